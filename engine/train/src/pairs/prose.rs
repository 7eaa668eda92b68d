//! Which comments and docstrings are sentences that a person might ask with.

/// Words that mark a comment as an aside to tools or to other programmers.
const ASIDES: &[&str] = &[
    "todo",
    "fixme",
    "xxx",
    "hack",
    "noqa",
    "pylint",
    "pragma",
    "mypy",
    "type:",
    "flake8",
    "copyright",
    "license",
    "licence",
    "http:",
    "https:",
    "www.",
    "isort",
    "yapf",
    "black:",
    "fmt:",
    "ruff:",
    "pyright",
    "gh-",
    "nosec",
    "-*-",
    "deprecated",
    "versionadded",
    "versionchanged",
    "see also",
    "@",
    "eslint",
    "coverage:",
    "bug",
];

/// The text as one line of plain words, where it is a sentence of 3 to `max_words` words.
pub fn sentence(text: &str, max_words: usize) -> Option<String> {
    let plain = plain(text);
    let words: Vec<&str> = plain.split_whitespace().collect();
    if words.len() < 3 || words.len() > max_words || plain.len() > 600 {
        return None;
    }
    let lower = plain.to_lowercase();
    if ASIDES.iter().any(|aside| lower.contains(aside)) {
        return None;
    }
    let n_letters = plain.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').count();
    let n_chars = plain.chars().count();
    let is_word = |word: &&&str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        word.len() >= 2 && word.chars().all(|c| c.is_ascii_alphabetic() || c == '-' || c == '\'')
    };
    let n_plain = words.iter().filter(is_word).count();
    let begins = plain.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || "\"'`(".contains(c));
    let good = begins && n_letters * 10 >= n_chars * 8 && n_plain * 10 >= words.len() * 6 && n_plain >= 2;
    good.then(|| words.join(" "))
}

/// The text without the markup of reST and Markdown: what a reader sees.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['`', ':']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        // `:role:`~a.b.c``: the last part where a tilde says so.
        let role = tail.strip_prefix(':').and_then(|tail| {
            let end = tail.find(':')?;
            let named =
                tail[..end].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            (end > 0 && named && tail[end + 1..].starts_with('`')).then(|| &tail[end + 1..])
        });
        let Some(quoted) = role.or_else(|| tail.starts_with('`').then_some(tail)) else {
            out.push_str(&tail[..1]);
            rest = &tail[1..];
            continue;
        };
        let inner = quoted.trim_start_matches('`');
        let Some(end) = inner.find('`') else {
            rest = inner;
            continue;
        };
        let mut name = &inner[..end];
        if let Some((shown, target)) = name.split_once('<')
            && target.ends_with('>')
            && !shown.trim().is_empty()
        {
            name = shown.trim();
        }
        match name.strip_prefix('~') {
            Some(path) => out.push_str(path.rsplit('.').next().unwrap_or(path)),
            None => out.push_str(name),
        }
        rest = inner[end..].trim_start_matches('`').trim_start_matches('_');
    }
    out.push_str(rest);
    let out = out.replace("**", "").replace("\\", "");
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Paragraphs of a docstring's prose: white space folded, sections, lists, examples and literal blocks left out.
pub fn paragraphs(doc: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut current: Vec<&str> = Vec::new();
    let mut flush = |current: &mut Vec<&str>| {
        if !current.is_empty() {
            found.push(current.join(" "));
            current.clear();
        }
    };
    let lines: Vec<&str> = doc.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let trimmed = line.trim();
        let underline = trimmed.len() >= 3 && trimmed.bytes().all(|byte| b"-=~^".contains(&byte));
        let headed = lines.get(i + 1).is_some_and(|next| {
            let next = next.trim();
            next.len() >= 3 && next.bytes().all(|byte| b"-=~^".contains(&byte))
        });
        if underline || (headed && i > 0) || is_section(trimmed) {
            // Sections list parameters and the like: prose comes before them.
            break;
        }
        let other = trimmed.is_empty()
            || trimmed.starts_with(">>>")
            || trimmed.starts_with("..")
            || trimmed.starts_with(":")
            || trimmed.starts_with("- ")
            || trimmed.starts_with("* ")
            || line.starts_with("    ");
        if other {
            flush(&mut current);
        } else {
            current.push(trimmed);
        }
    }
    flush(&mut current);
    found
}

fn is_section(line: &str) -> bool {
    let name = line.trim_end_matches(':').to_ascii_lowercase();
    line.ends_with(':')
        && matches!(
            name.as_str(),
            "args"
                | "arguments"
                | "parameters"
                | "params"
                | "returns"
                | "return"
                | "yields"
                | "raises"
                | "example"
                | "examples"
                | "note"
                | "notes"
                | "attributes"
                | "references"
                | "keyword args"
                | "keyword arguments"
        )
}

/// The sentences of a paragraph.
pub fn sentences(paragraph: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = paragraph.trim();
    while !rest.is_empty() {
        let first = inhouse_core::docs::first_sentence(rest);
        if first.is_empty() || !rest.starts_with(first.as_str()) {
            break;
        }
        rest = rest[first.len()..].trim_start();
        found.push(first);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_and_others() {
        for (text, expected) in [
            ("Drop rows with missing values", Some("Drop rows with missing values")),
            ("Sort the ``frame`` by :meth:`~loom.Thread.spin`.", Some("Sort the frame by spin.")),
            ("see `the guide <https://x.y>`_ for more", Some("see the guide for more")),
            ("TODO: drop rows here", None),
            ("x = f(a, b)", None),
            ("noqa: E501 is a long line", None),
            ("one two", None),
            ("------ a b c", None),
            ("ratio a:b of the two", Some("ratio a:b of the two")),
            ("`unclosed quote in a comment", Some("unclosed quote in a comment")),
        ] {
            assert_eq!(sentence(text, 40).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn prose_of_a_docstring() {
        let doc = "First line\nof two. Second one.\n\nMore prose here.\n\n>>> f(1)\n\nParameters\n----------\nx : int\n";
        assert_eq!(paragraphs(doc), ["First line of two. Second one.", "More prose here."]);
        assert_eq!(sentences("First line of two. Second one."), ["First line of two.", "Second one."]);
    }
}
