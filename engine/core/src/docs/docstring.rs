//! Docstrings as text: dedent, first sentence, usage examples (numpy, Google and reST styles).

use std::ops::Range;

/// Removes the indentation that all lines after the first share, and blank lines at both ends, as `inspect.cleandoc`.
pub(super) fn clean(text: &str) -> String {
    let expanded;
    let text = if text.contains('\t') {
        expanded = text.replace('\t', "        ");
        &expanded
    } else {
        text
    };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let margin = text.lines().skip(1).filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let mut cleaned = String::with_capacity(text.len());
    for (i, line) in text.lines().enumerate() {
        let line = if i == 0 { line.trim_start() } else { line.get(margin..).unwrap_or("") };
        cleaned.push_str(line.trim_end());
        cleaned.push('\n');
    }
    cleaned.trim_matches('\n').trim_end().to_owned()
}

/// The first sentence of a documentation text, on one line.
///
/// A sentence ends at `.`, `!` or `?` before white space, or at the end of its paragraph; not after an abbreviation
/// ("e.g.", "vs.", "Fig. 1"), inside a number or a dotted name, at "...", or inside back quotes or parentheses. A first
/// line that repeats the signature, a heading and a directive are passed over.
pub fn first_sentence(doc: &str) -> String {
    let doc = clean(doc);
    let paragraph = first_paragraph(&doc);
    match sentence_end(&paragraph) {
        Some(end) => paragraph[..end].to_owned(),
        None => paragraph,
    }
}

/// The first paragraph of prose with its white space folded.
fn first_paragraph(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().collect();
    let mut paragraph = String::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        let underlined = lines.get(at + 1).is_some_and(|next| is_underline(next) && !is_underline(line));
        if paragraph.is_empty() {
            // A docstring that begins with a section has no sentence.
            if underlined && SECTIONS.contains(&line.trim_end_matches(':').to_ascii_lowercase().as_str()) {
                return paragraph;
            }
            let skipped = line.is_empty()
                || is_underline(line)
                || underlined
                || (is_signature(line) && lines.get(at + 1).is_some());
            if skipped {
                at += 1;
                continue;
            }
            if let Some(directive) = line.strip_prefix(".. ") {
                // The body of a directive is indented; `.. note:: text` may still be all there is.
                let _ = directive;
                at += 1;
                while at < lines.len() && (lines[at].trim().is_empty() || lines[at].starts_with(' ')) {
                    at += 1;
                }
                continue;
            }
            if is_field(line) || is_section(line, lines.get(at + 1).copied()) || line.starts_with(">>>") {
                return paragraph;
            }
            if let Some(name) = line.strip_suffix(':')
                && SECTIONS.contains(&name.to_ascii_lowercase().as_str())
            {
                return paragraph;
            }
        } else if line.is_empty()
            || underlined
            || line.starts_with(">>>")
            || line.starts_with(".. ")
            || line.starts_with("- ")
            || line.starts_with("* ")
            || is_field(line)
            || is_section(line, lines.get(at + 1).copied())
        {
            break;
        }
        for word in line.split_whitespace() {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(word);
        }
        at += 1;
    }
    if let Some(stripped) = paragraph.strip_suffix("::") {
        return format!("{stripped}:");
    }
    paragraph
}

fn is_underline(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 3
        && line.bytes().all(|byte| matches!(byte, b'-' | b'=' | b'~' | b'^' | b'*' | b'#' | b'+'))
        && line.bytes().all(|byte| byte == line.as_bytes()[0])
}

/// `:param x: text` and `@param x: text`, the fields of reST and Epytext.
fn is_field(line: &str) -> bool {
    line.strip_prefix([':', '@']).filter(|rest| rest.contains(':')).is_some_and(|rest| {
        let word: String = rest.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        matches!(
            word.as_str(),
            "param"
                | "type"
                | "return"
                | "returns"
                | "rtype"
                | "raises"
                | "raise"
                | "except"
                | "exception"
                | "arg"
                | "argument"
                | "key"
                | "keyword"
                | "kwarg"
                | "kwparam"
                | "parameter"
                | "yield"
                | "yields"
                | "meta"
                | "deprecated"
                | "since"
                | "see"
                | "note"
                | "var"
                | "ivar"
                | "cvar"
        )
    })
}

const SECTIONS: &[&str] = &[
    "args",
    "arguments",
    "parameters",
    "params",
    "keyword args",
    "keyword arguments",
    "other parameters",
    "returns",
    "return",
    "yields",
    "yield",
    "raises",
    "raise",
    "receives",
    "example",
    "examples",
    "note",
    "notes",
    "attributes",
    "see also",
    "references",
    "warnings",
    "warns",
    "todo",
    "methods",
    "usage",
    "shape",
    "inputs",
    "outputs",
];

/// `Args:` alone on its line before an indented one, the sections of Google style.
fn is_section(line: &str, next: Option<&str>) -> bool {
    let Some(name) = line.strip_suffix(':') else { return false };
    SECTIONS.contains(&name.trim_end_matches(':').to_ascii_lowercase().as_str())
        && next.is_none_or(|next| next.is_empty() || next.starts_with(' '))
}

/// `name(a, b=1) -> c`: the signature that compiled modules put first.
fn is_signature(line: &str) -> bool {
    let Some(open) = line.find('(') else { return false };
    let name = &line[..open];
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.') {
        return false;
    }
    line.ends_with(')') || line.rfind(") -> ").is_some_and(|at| !line[at + 5..].contains(". "))
}

/// Words whose full stop does not end a sentence, in lower case and without it.
const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "eg", "ie", "vs", "cf", "fig", "figs", "eq", "eqs", "eqn", "nos", "sect", "ch", "chap",
    "approx", "resp", "dr", "mr", "mrs", "ms", "prof", "vol", "pp", "p", "eds", "ca", "incl", "esp", "ref",
    "refs", "tab", "thm", "lem", "cor", "alg", "a.k.a", "aka", "w.r.t", "i.i.d", "viz", "u.s", "ph.d",
    "dept", "est", "avg", "nr", "art", "ver", "n.b", "nb", "q.v", "ibid", "p.s", "excl", "sc", "m.sc",
    "b.sc", "cont",
];
/// Abbreviations that often end a sentence: they do where a capital letter follows.
const ENDING_ABBREVIATIONS: &[&str] = &[
    "etc", "inc", "ltd", "co", "corp", "jr", "sr", "al", "no", "min", "max", "def", "ed", "app", "std",
    "num", "st", "a.m", "p.m", "sec", "secs", "dev", "err", "var", "cov", "corr", "coef", "coeff", "freq",
    "temp", "deg", "dim", "dims", "elem", "elems", "func", "hr", "hrs", "int", "lat", "lon", "mag", "orig",
    "param", "params", "prev", "prob", "rel", "abs", "sep", "spec", "sq", "sym", "tot", "vec", "dist",
    "distr", "op", "ops", "doc", "docs", "arg", "args",
];

/// Offset after the sentence's last character; `None` when the whole text is one sentence.
fn sentence_end(text: &str) -> Option<usize> {
    scan_sentence(text, true).or_else(|| {
        // Brackets or back quotes that are never closed say nothing about the rest.
        let unbalanced =
            text.matches('(').count() != text.matches(')').count() || text.matches('`').count() % 2 == 1;
        if unbalanced { scan_sentence(text, false) } else { None }
    })
}

fn scan_sentence(text: &str, balanced: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut round, mut quoted) = (0_usize, false);
    for (at, c) in text.char_indices() {
        match c {
            // Double back quotes open and close once.
            '`' if bytes.get(at + 1) == Some(&b'`') => {}
            '`' => quoted = !quoted,
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            '.' | '!' | '?' | '。' => {
                if balanced && (quoted || round > 0) {
                    continue;
                }
                // Closing quotes and brackets belong to the sentence.
                let mut end = at + c.len_utf8();
                while matches!(bytes.get(end), Some(b'"' | b'\'' | b')' | b']' | b'*' | b'`')) {
                    end += 1;
                }
                if c == '。' {
                    return Some(end);
                }
                let rest = &text[end..];
                if rest.is_empty() {
                    return Some(end);
                }
                if !rest.starts_with(char::is_whitespace) {
                    continue;
                }
                let next = rest.trim_start().chars().next();
                let capital = next.is_none_or(|next| !next.is_lowercase());
                if c == '.' && !ends_at_stop(&text[..at], capital, next) {
                    continue;
                }
                if c != '.' && !capital {
                    continue;
                }
                return Some(end);
            }
            _ => {}
        }
    }
    None
}

/// Whether the full stop after `before` ends a sentence.
fn ends_at_stop(before: &str, capital: bool, next: Option<char>) -> bool {
    if before.ends_with('.') || before.is_empty() {
        return false; // an ellipsis
    }
    let word =
        before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '\'' | '`' | '/')).next();
    let word = word.unwrap_or("").to_lowercase();
    if word.is_empty() {
        return true;
    }
    let digit = next.is_some_and(|next| next.is_ascii_digit());
    // "std. dev. of": an abbreviation before a word in small letters goes on, whatever else it may do.
    if ENDING_ABBREVIATIONS.contains(&word.as_str()) {
        // "et al. (2010)" goes on, "etc. The next" does not.
        return capital && !digit && next.is_none_or(char::is_uppercase);
    }
    if ABBREVIATIONS.contains(&word.as_str()) {
        return false;
    }
    // Initials: "J. Smith"; a single capital letter can also end a sentence ("as in R. The"), which is rarer.
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_alphabetic()
        && before.ends_with(char::is_uppercase)
    {
        return false;
    }
    // A list counter: "1. First".
    if word.chars().all(|c| c.is_ascii_digit()) && before.trim() == word {
        return false;
    }
    // "Returns x. otherwise" is a typing mistake far more often than an abbreviation.
    true
}

/// A usage example in a docstring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Number of its first line in the docstring, from 0.
    pub line: usize,
    /// Its lines, dedented; prompts and what they print are kept.
    pub code: String,
}

/// The usage examples of a cleaned docstring (as in [`ApiDoc::doc`](crate::ApiDoc)): doctest blocks, the code of `Examples` sections,
/// and code blocks.
pub fn examples(doc: &str) -> Vec<Example> {
    const SIGNS: &[&str] = &[">>>", "::", "```", "~~~", "xample", "sage"];
    if !SIGNS.iter().any(|sign| doc.contains(sign)) {
        return Vec::new();
    }
    let lines: Vec<&str> = doc.lines().collect();
    let mut found = Vec::new();
    let mut in_examples = false;
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let trimmed = line.trim();
        let next = lines.get(at + 1).copied();
        if is_section(trimmed, next) || (next.is_some_and(is_underline) && !trimmed.is_empty()) {
            let name = trimmed.trim_end_matches(':').to_ascii_lowercase();
            in_examples = matches!(name.as_str(), "example" | "examples" | "usage" | "usage example");
        }
        if trimmed.starts_with(">>>") {
            let end = doctest_end(&lines, at);
            push_code(&mut found, &lines, at..end);
            at = end;
        } else if let Some(fence) =
            fence(trimmed).filter(|_| at == 0 || lines[at - 1].trim().is_empty() || !is_underline(line))
        {
            let end = lines[at + 1..].iter().position(|line| line.trim().starts_with(fence));
            let end = end.map_or(lines.len(), |offset| at + 1 + offset);
            push_code(&mut found, &lines, at + 1..end);
            at = end + 1;
        } else if is_code_directive(trimmed)
            || (trimmed.ends_with("::") && !trimmed.starts_with(".. ") && !trimmed.starts_with(':'))
        {
            let end = indented_end(&lines, at + 1, indent_of(line));
            let mut start = at + 1;
            while start < end && (lines[start].trim().is_empty() || lines[start].trim().starts_with(':')) {
                start += 1;
            }
            // A doctest inside is found as such.
            if lines[start..end].iter().any(|line| line.trim().starts_with(">>>")) {
                at += 1;
            } else {
                push_code(&mut found, &lines, start..end);
                at = end.max(at + 1);
            }
        } else if in_examples && is_plain_code(trimmed) {
            let start = at;
            while at < lines.len() && !lines[at].trim().is_empty() {
                at += 1;
            }
            push_code(&mut found, &lines, start..at);
        } else {
            at += 1;
        }
    }
    found
}

/// The marks that open a code block of Markdown.
fn fence(line: &str) -> Option<&'static str> {
    ["```", "~~~"].into_iter().find(|fence| {
        line.strip_prefix(fence)
            .is_some_and(|rest| rest.chars().all(|c| c.is_alphanumeric() || "{}. -_+=".contains(c)))
    })
}

/// The code of an example: what was typed at the prompts where it has prompts, else the whole.
pub fn typed_code(example: &str) -> String {
    if !example.trim_start().starts_with(">>>") {
        return format!("{example}\n");
    }
    let mut code = String::new();
    for line in example.lines() {
        let Some(typed) = line.strip_prefix(">>>").or_else(|| line.strip_prefix("...")) else { continue };
        // Directives are for the one who tests.
        let typed = typed.split("# doctest:").next().unwrap_or(typed);
        code.push_str(typed.strip_prefix(' ').unwrap_or(typed).trim_end());
        code.push('\n');
    }
    code
}

fn push_code(found: &mut Vec<Example>, lines: &[&str], range: Range<usize>) {
    let code = dedent(&lines[range.clone()]);
    if !code.trim().is_empty() {
        found.push(Example { line: range.start, code });
    }
}

fn is_code_directive(line: &str) -> bool {
    [".. code-block::", ".. code::", ".. sourcecode::", ".. ipython::", ".. doctest::", ".. testcode::"]
        .iter()
        .any(|directive| line.starts_with(directive))
}

/// A line of an `Examples` section that is a statement rather than prose.
fn is_plain_code(line: &str) -> bool {
    let first = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).next().unwrap_or("");
    matches!(first, "import" | "from" if line.contains("import "))
        || line
            .split_once(" = ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_alphanumeric() || "_,. []".contains(c)))
        || (!first.is_empty() && line[first.len()..].starts_with('(') && line.ends_with(')'))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The doctest that begins at `at` ends before a blank line that no further prompt follows at once.
fn doctest_end(lines: &[&str], at: usize) -> usize {
    let mut end = at;
    while end < lines.len() {
        if lines[end].trim().is_empty() {
            let continues = lines.get(end + 1).is_some_and(|next| next.trim().starts_with(">>>"));
            if !continues {
                break;
            }
        } else if indent_of(lines[end]) < indent_of(lines[at]) {
            break;
        }
        end += 1;
    }
    end
}

fn indented_end(lines: &[&str], start: usize, indent: usize) -> usize {
    let mut end = start;
    let mut last = start;
    while end < lines.len() && (lines[end].trim().is_empty() || indent_of(lines[end]) > indent) {
        end += 1;
        if !lines[end - 1].trim().is_empty() {
            last = end;
        }
    }
    last
}

fn dedent(lines: &[&str]) -> String {
    let margin =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indent_of(line)).min().unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        text.push_str(line.get(margin..).unwrap_or("").trim_end());
        text.push('\n');
    }
    text.trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sentences() {
        let cases = [
            ("Adds one. And more.", "Adds one."),
            ("Reads a file, e.g. a CSV. Returns rows.", "Reads a file, e.g. a CSV."),
            ("Reads a file, i.e. a CSV.\nReturns rows.", "Reads a file, i.e. a CSV."),
            ("Scales by 1.5 at most. Never more.", "Scales by 1.5 at most."),
            ("Compares a vs. b quickly. Done.", "Compares a vs. b quickly."),
            ("Takes lists, sets, etc. and joins them. Done.", "Takes lists, sets, etc. and joins them."),
            ("Takes lists, sets, etc. Joins them.", "Takes lists, sets, etc."),
            ("As in Fig. 1 of the paper. Done.", "As in Fig. 1 of the paper."),
            ("Calls `a. B` first. Done.", "Calls `a. B` first."),
            ("Wraps module.attr for use. Done.", "Wraps module.attr for use."),
            ("Loads... and waits. Done.", "Loads... and waits."),
            ("Splits (see X. Y) here. Done.", "Splits (see X. Y) here."),
            ("No stop at the end\n\nSecond paragraph.", "No stop at the end"),
            ("Several\n    lines of it.\n    More.", "Several lines of it."),
            ("\n    Indented first. Second.\n    ", "Indented first."),
            ("f(x, y) -> int\n\nReturns the sum. Fast.", "Returns the sum."),
            ("Title\n=====\n\nThe text. More.", "The text."),
            (".. deprecated:: 1.0\n   Use b.\n\nThe old way. More.", "The old way."),
            ("Summary of it\nArgs:\n    x: y", "Summary of it"),
            ("Summary here\n:param x: y", "Summary here"),
            ("By J. Smith in 1990. More.", "By J. Smith in 1990."),
            ("Is it? Yes.", "Is it?"),
            ("Unclosed (paren here. Then more.", "Unclosed (paren here."),
            ("Builds a list of::\n\n    code", "Builds a list of:"),
            ("Works with Smith et al. (2010) data. Yes.", "Works with Smith et al. (2010) data."),
            ("", ""),
            ("   \n\n", ""),
            ("Ends here.\nargs: none", "Ends here."),
            ("Été à la mer. Fin.", "Été à la mer."),
            ("Version 2. Then more.", "Version 2."),
        ];
        for (doc, expected) in cases {
            assert_eq!(first_sentence(doc), expected, "{doc:?}");
        }
    }

    #[test]
    fn examples_of_all_styles() {
        let codes = |doc: &str| -> Vec<String> {
            examples(doc)
                .into_iter()
                .inspect(|example| {
                    let line = doc.lines().nth(example.line).unwrap();
                    assert_eq!(line.trim(), example.code.lines().next().unwrap());
                })
                .map(|example| example.code)
                .collect()
        };
        let numpy = "Sum.\n\nExamples\n--------\nFirst:\n\n>>> f(1)\n1\n\n>>> g(2)\n\nLater:\n\n>>> h(3)\n3\n\nNotes\n-----\nx";
        assert_eq!(codes(numpy), [">>> f(1)\n1\n\n>>> g(2)", ">>> h(3)\n3"]);
        let google = "Sum.\n\nExample:\n    >>> f(1)\n    1\n\nReturns:\n    x";
        assert_eq!(codes(google), [">>> f(1)\n1"]);
        let rest = "Sum.\n\n.. code-block:: python\n   :linenos:\n\n   x = f(1)\n   y = g(x)\n\nText::\n\n    z = 3\n\nEnd.";
        assert_eq!(codes(rest), ["x = f(1)\ny = g(x)", "z = 3"]);
        let plain = "Sum.\n\nExample:\n    x = f(1)\n    print(x)\n";
        assert_eq!(codes(plain), ["x = f(1)\nprint(x)"]);
        assert_eq!(codes("```python\nf(1)\n```"), ["f(1)"]);
        assert!(examples("Nothing here.").is_empty());
    }

    #[test]
    fn cleaning() {
        assert_eq!(clean("\n    A.\n\n      B\n    C\n    "), "A.\n\n  B\nC");
        assert_eq!(clean("A.\n\tB"), "A.\nB");
        assert_eq!(clean("A\n    é\n  b"), "A\n  é\nb");
    }
}
