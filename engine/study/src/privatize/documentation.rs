//! Documentation in private words, its sentences said otherwise.

use std::collections::HashMap;
use std::ops::Range;

use inhouse_core::{ApiDoc, python};

use super::code::{Converter, Names, apply};
use super::speech::{Quotes, Said, Speech, Why};
use super::surface::Surface;

/// Headings of docstrings behind which nothing is kept: programs and their output are among the examples, references point
/// at the public library.
const CUT: &[&str] = &["Examples", "Example", "See Also", "References", "Notes", "Methods", "Attributes"];

/// A record in private words, and its texts with what was kept in them.
pub struct Converted {
    /// The record.
    pub api: ApiDoc,
    /// All of its texts.
    pub texts: Vec<Said>,
}

/// Converts the documentation of a library.
pub fn convert(surface: &Surface, speech: &Speech) -> Vec<Converted> {
    surface.apis.iter().map(|api| record(api, speech)).collect()
}

fn record(api: &ApiDoc, speech: &Speech) -> Converted {
    let none = HashMap::new();
    let prose = |text: &str| speech.prose(&speech.paraphrase(text), Quotes::Keep, &none);
    let plain = |text: String| Said { text, kept: Vec::new() };
    let signature = signature(&api.signature, speech);
    let description = prose(&api.description);
    let doc = prose(&cut(&api.doc));
    let examples: Vec<Said> = api.examples.iter().filter_map(|text| example(text, speech)).collect();
    let converted = ApiDoc {
        name: private_name(speech, &api.name),
        qualified_name: private_path(speech, &api.qualified_name),
        kind: api.kind,
        signature: signature.text.clone(),
        description: description.text.clone(),
        module: private_path(speech, &api.module),
        aliases: api.aliases.iter().map(|alias| private_path(speech, alias)).collect(),
        inherited_by: api.inherited_by,
        bases: api
            .bases
            .iter()
            .filter(|base| base.starts_with(speech.library()))
            .map(|base| private_path(speech, base))
            .collect(),
        undocumented: api
            .undocumented
            .as_ref()
            .map(|names| names.iter().map(|name| private_name(speech, name)).collect()),
        receiver: api.receiver.clone(),
        doc: doc.text.clone(),
        examples: examples.iter().map(|example| example.text.clone()).collect(),
        source: None,
    };
    let names = [&converted.name, &converted.qualified_name, &converted.module];
    let paths = names.into_iter().chain(&converted.aliases).chain(&converted.bases);
    let paths = paths.chain(converted.undocumented.iter().flatten()).map(|text| plain(text.clone()));
    let texts = paths.chain([signature, description, doc]).chain(examples).collect();
    Converted { api: converted, texts }
}

pub fn private_name(speech: &Speech, name: &str) -> String {
    speech
        .name(name)
        .map_or_else(|| if name.starts_with('_') { name.into() } else { speech.identifier(name) }, Into::into)
}

pub fn private_path(speech: &Speech, path: &str) -> String {
    path.split('.').map(|part| private_name(speech, part)).collect::<Vec<_>>().join(".")
}

/// A signature by the rules of code: parameters as the twin takes them, that is by the table alone.
fn signature(signature: &str, speech: &Speech) -> Said {
    if signature.is_empty() {
        return Said::default();
    }
    let names = Names::default();
    let strings = HashMap::new();
    let converter =
        Converter { speech, names: &names, evidence: None, strings: &strings, quotes: Quotes::Keep };
    let (before, after) = ("def _", ": pass");
    let text = format!("{before}{signature}{after}");
    let mut edits = converter.edits(&text);
    // Parameters are no identifiers of the program's: what the table does not have is called as the library calls it.
    let parameters = parameters(&text);
    for edit in &mut edits {
        if parameters.contains(&edit.range) {
            let name = &text[edit.range.clone()];
            edit.said = Said { text: speech.name(name).unwrap_or(name).to_owned(), kept: Vec::new() };
        }
    }
    apply(&text, before.len()..text.len() - after.len(), &edits)
}

fn parameters(text: &str) -> Vec<Range<usize>> {
    use ruff_python_ast::Stmt;
    use ruff_text_size::Ranged;

    let ranges = python::read(text, |parsed| {
        let Some(Stmt::FunctionDef(function)) = parsed.suite().first() else { return Vec::new() };
        function.parameters.iter().map(|p| p.name().start().to_usize()..p.name().end().to_usize()).collect()
    });
    ranges.unwrap_or_default()
}

/// The part of a docstring that tells what the API does and takes.
fn cut(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().collect();
    let is_rule = |line: &str| {
        line.trim().len() >= 3 && line.trim().bytes().all(|byte| matches!(byte, b'-' | b'=' | b'~'))
    };
    let end = (0..lines.len())
        .find(|at| {
            let line = lines[*at].trim();
            let heading = line.strip_suffix(':').unwrap_or(line);
            let ruled = lines.get(at + 1).is_some_and(|next| is_rule(next));
            CUT.contains(&heading) && (ruled || line.ends_with(':')) || line.starts_with(">>>")
        })
        .unwrap_or(lines.len());
    let kept: Vec<&str> =
        lines[..end].iter().copied().filter(|line| !line.trim_start().starts_with(".. ")).collect();
    kept.join("\n").trim().to_owned()
}

/// An example's code, without what it prints; `None` where it has none.
fn example(text: &str, speech: &Speech) -> Option<Said> {
    let mut code = String::new();
    for line in text.lines().map(str::trim_start) {
        let Some(rest) = line.strip_prefix(">>>").or_else(|| line.strip_prefix("...")) else { continue };
        code.push_str(rest.strip_prefix(' ').unwrap_or(rest));
        code.push('\n');
    }
    let prompted = !code.is_empty();
    let code = if prompted { code } else { text.to_owned() };
    let mut names = Names::default();
    names.read(&code, speech.library());
    // What examples take for granted.
    names.read("import numpy as np\nimport os, sys, re, math, datetime\n", speech.library());
    let strings = HashMap::new();
    let converter =
        Converter { speech, names: &names, evidence: None, strings: &strings, quotes: Quotes::Keep };
    let said = apply(&code, 0..code.len(), &converter.edits(&code));
    if said.text.trim().is_empty() {
        return None;
    }
    if !prompted {
        return Some(said);
    }
    // The prompts again, and what was kept a prompt further on.
    let mut out = Said::default();
    let mut start = 0;
    for (i, line) in said.text.split_inclusive('\n').enumerate() {
        let goes_on = i > 0 && line.starts_with([' ', '\t', ')', ']', '}']);
        out.text.push_str(if goes_on { "... " } else { ">>> " });
        let shift = out.text.len();
        let within =
            said.kept.iter().filter(|(kept, _)| kept.start >= start && kept.end <= start + line.len());
        out.kept
            .extend(within.map(|(kept, why)| (kept.start - start + shift..kept.end - start + shift, *why)));
        // A string over several lines is split by the prompts.
        let across = said.kept.iter().filter(|(kept, why)| {
            *why == Why::String
                && kept.start < start + line.len()
                && kept.end > start
                && !(kept.start >= start && kept.end <= start + line.len())
        });
        out.kept.extend(across.map(|(_, why)| (shift..shift + line.len(), *why)));
        out.text.push_str(line);
        start += line.len();
    }
    let length = out.text.trim_end().len();
    out.text.truncate(length);
    out.kept.retain(|(kept, _)| kept.end <= length);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rename::Table;

    #[test]
    fn a_record_is_said_in_private_words() {
        let pairs = [
            ("frames", "amberwell"),
            ("DataFrame", "FactSheet"),
            ("merge", "fuse"),
            ("first", "foremost"),
            ("copy", "clone"),
            ("values", "facts"),
            ("array", "lattice"),
        ];
        let table = Table {
            pairs: pairs.map(|(public, private)| (public.to_owned(), private.to_owned())).to_vec(),
            ..Table::default()
        };
        let speech = Speech::new(&table, "frames", 5);
        let api = ApiDoc {
            name: "merge".into(),
            qualified_name: "frames.DataFrame.merge".into(),
            module: "frames".into(),
            signature: "(other: 'DataFrame', copy: bool = True, keep='first', n_values=1) -> DataFrame".into(),
            description: "Return the merged DataFrame.".into(),
            doc: "Return the merged DataFrame.\n\nParameters\n----------\ncopy : bool\n    'first' or any.\n\nExamples\n--------\n\
                  >>> df.merge()\n"
                .into(),
            examples: vec![">>> df = frames.DataFrame(\n...     np.array([1]))\n>>> df.merge(copy='first')\n   merge\n0 1".into()],
            bases: vec!["object".into()],
            ..ApiDoc::default()
        };
        let got = record(&api, &speech);
        assert_eq!(got.api.qualified_name, "amberwell.FactSheet.fuse");
        assert_eq!(
            got.api.signature,
            "(other: 'FactSheet', clone: bool = True, keep='first', n_values=1) -> FactSheet"
        );
        assert!(got.api.description.ends_with("the fused FactSheet."), "{}", got.api.description);
        assert!(
            got.api.doc.contains("clone : bool\n    'first' or any.") && !got.api.doc.contains(">>>"),
            "{}",
            got.api.doc
        );
        assert_eq!(
            got.api.examples,
            [">>> df = amberwell.FactSheet(\n...     np.array([1]))\n>>> df.fuse(clone='first')"]
        );
        assert!(got.api.bases.is_empty() && got.api.source.is_none());
        for text in &got.texts {
            assert!(text.kept.iter().all(|(kept, _)| text.text.get(kept.clone()).is_some()), "{text:?}");
        }
    }
}
