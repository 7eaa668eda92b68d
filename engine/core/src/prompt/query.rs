//! What the retriever is asked for a context.

/// The question in a context: its comments, one after the other (the paper's query at evaluation time); without any
/// comment the docstring of the last function or class, else of the module; without that the last line of code.
///
/// White space is folded. The block of API lines of a prompt is no part of its context: see [`super::split`].
pub fn query_from_context(context: &str) -> String {
    let Found { comments, docstring } = scan(context);
    let query = fold(&comments.join(" "));
    if !query.is_empty() {
        return query;
    }
    let query = fold(docstring.unwrap_or_default());
    if !query.is_empty() {
        return query;
    }
    fold(context.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

fn fold(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Found<'t> {
    /// Texts of the `#` comments, in order, without the `#`; shebang and coding lines left out.
    comments: Vec<&'t str>,
    /// The last docstring: a string that is the first statement of the file or of a block.
    docstring: Option<&'t str>,
}

/// Python's lexical rules as far as comments and strings need them. A parser would not do: the context ends in the
/// middle of a program, and its nesting must not cost stack.
fn scan(source: &str) -> Found<'_> {
    let bytes = source.as_bytes();
    let mut found = Found { comments: Vec::new(), docstring: None };
    // The last byte of code before the current position that is not white space, and whether only white space stands
    // between the line's beginning and the position.
    let mut last_code = None;
    let mut at_line_start = true;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\n' => {
                at_line_start = true;
                i += 1;
            }
            b'#' => {
                let end = source[i..].find('\n').map_or(bytes.len(), |length| i + length);
                let text = source[i..end].trim_start_matches('#').trim();
                let about_the_file =
                    last_code.is_none() && (source[i..end].starts_with("#!") || text.starts_with("-*-"));
                if !text.is_empty() && !about_the_file {
                    found.comments.push(text);
                }
                i = end;
            }
            quote @ (b'"' | b'\'') => {
                let (body, next) = string_at(source, i, quote);
                if at_line_start && matches!(last_code, None | Some(b':')) {
                    found.docstring = Some(body);
                }
                last_code = Some(quote);
                at_line_start = false;
                i = next;
            }
            // A docstring may be raw; any other prefix makes it none, which does not matter here.
            b'r' | b'R' if at_line_start && matches!(bytes.get(i + 1), Some(b'"' | b'\'')) => i += 1,
            byte => {
                if !byte.is_ascii_whitespace() {
                    last_code = Some(byte);
                    at_line_start = false;
                }
                i += 1;
            }
        }
    }
    found
}

/// The body of the string whose opening quote is at `start`, and the position after it. One that is not closed ends with
/// its line, or with the file when its quotes are triple.
fn string_at(source: &str, start: usize, quote: u8) -> (&str, usize) {
    let bytes = source.as_bytes();
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    let begin = start + width;
    let mut i = begin;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'\n' if !triple => return (&source[begin..i], i),
            byte if byte == quote && (!triple || bytes[i..].starts_with(&[quote; 3])) => {
                return (&source[begin..i], i + width);
            }
            _ => {}
        }
        i += 1;
    }
    (&source[begin..], bytes.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::{Path, PathBuf};

    use serde::Deserialize;

    use super::*;
    use crate::files;

    #[test]
    fn comments_then_docstring_then_the_last_line() {
        for (context, query) in [
            ("import loom\n# Weave  two\n#threads.\nx = loom.", "Weave two threads."),
            ("x = 1  # first\n## Second\ny =", "first Second"),
            ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n# Real\nx", "Real"),
            ("def f(a):\n    \"\"\"Weave\n    it.\n    \"\"\"\n    return ", "Weave it."),
            ("def f(a):\n    '''No # comment.'''\n", "No # comment."),
            ("def f(a):\n    r\"\"\"A \\d\"\"\"\n", "A \\d"),
            ("\"\"\"Module.\"\"\"\nimport a\n", "Module."),
            ("def f():\n    \"\"\"First.\"\"\"\ndef g():\n    'Second.'\n    x = {1:\n", "Second."),
            ("x = \"# none\"\ny = f('\\'#', 1)\nresult = weave(\n\n", "result = weave("),
            ("x = '''\n# inside\n'''\n# outside\n", "outside"),
            ("s = 'open # string\n# real\n", "real"),
            ("def f():\n    \"\"\"Never closed", "Never closed"),
            ("", ""),
            ("\n \n", ""),
            ("#\n#  \nlast", "last"),
            ("x = '\\", "x = '\\"),
            ("é = 'é\\é'  # ü", "ü"),
        ] {
            assert_eq!(query_from_context(context), query, "{context:?}");
        }
    }

    #[derive(Deserialize)]
    struct Gold {
        task_id: String,
        query: String,
    }

    #[derive(Deserialize)]
    struct Problem {
        task_id: String,
        prompt: String,
    }

    fn rows<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
        files::json_lines(path).unwrap().map(|row| row.unwrap().1).collect()
    }

    /// The paper's problems: our queries against those made from their comments, and the golden blocks read back.
    #[test]
    fn queries_of_the_paper_s_problems() {
        let shared = std::env::var_os("INHOUSE_SHARED")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
        let benchmarks = shared.join("benchmarks");
        if !benchmarks.is_dir() {
            eprintln!("skipped: {} is not there", benchmarks.display());
            return;
        }
        for library in ["torchdata", "pandas", "monkey"] {
            let gold: HashMap<String, String> =
                rows::<Gold>(&benchmarks.join(format!("apis/{library}.gold.jsonl.gz")))
                    .into_iter()
                    .map(|row| (row.task_id, row.query))
                    .collect();
            let bare = rows::<Problem>(&benchmarks.join(format!("real_{library}_eval_v3.jsonl.gz")));
            let with_apis =
                rows::<Problem>(&benchmarks.join(format!("real_{library}_eval_v3_api_n.jsonl.gz")));
            let (mut n_equal, mut n_rows) = (0, 0);
            for (bare, with_apis) in bare.iter().zip(&with_apis) {
                let (_, context) = crate::prompt::split(&with_apis.prompt);
                assert_eq!(context, bare.prompt, "{}", bare.task_id);
                if let Some(expected) = gold.get(&bare.task_id) {
                    n_rows += 1;
                    n_equal += usize::from(fold(expected) == query_from_context(context));
                }
            }
            eprintln!("{library}: {n_equal} of {n_rows} queries equal");
            assert!(n_equal * 100 >= n_rows * 95, "{library}: only {n_equal} of {n_rows} queries equal");
        }
    }
}
