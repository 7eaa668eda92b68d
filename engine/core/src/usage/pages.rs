//! Files to code: a Python file is one, notebooks and pages of prose have pieces of it.

use serde_json::Value;

use crate::ApiDoc;
use crate::docs;

/// Why a file was passed over: its 1-based line where that is known, and the reason.
pub(super) type Refusal = (Option<u32>, String);

/// A piece of code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// The code.
    pub code: String,
    /// The 1-based line of its file on which it begins.
    pub line: u32,
    /// What the prose right before it says.
    pub says: String,
}

/// The code of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// Its pieces in their order; what one imports, the later ones have.
    pub pieces: Vec<Piece>,
    /// Whether a piece that does not parse is the fault of the file. In prose much is indented that is no Python.
    pub all_code: bool,
}

/// The code of a file by its name.
pub(super) fn of(path: &str, bytes: Vec<u8>) -> Result<Pages, Refusal> {
    if bytes.contains(&0) {
        return Err((None, "is binary: it holds a byte 0".into()));
    }
    let text = String::from_utf8(bytes).map_err(|cause| {
        let at = cause.utf8_error().valid_up_to();
        let line = cause.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() as u32 + 1;
        (Some(line), format!("not UTF-8 at byte {at}"))
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let name = path.to_ascii_lowercase();
    if name.ends_with(".ipynb") {
        notebook(&text)
    } else if name.ends_with(".md") || name.ends_with(".rst") {
        Ok(prose(&text))
    } else {
        Ok(Pages { pieces: vec![Piece { code: text, line: 1, says: String::new() }], all_code: true })
    }
}

/// The examples of a docstring.
pub(super) fn of_examples(api: &ApiDoc) -> Pages {
    let line = api.source.as_ref().map_or(1, |source| source.line);
    let pieces = api.examples.iter().map(|example| Piece {
        code: docs::typed_code(example),
        line,
        says: String::new(),
    });
    Pages { pieces: pieces.collect(), all_code: false }
}

fn notebook(text: &str) -> Result<Pages, Refusal> {
    let notebook: Value = serde_json::from_str(text)
        .map_err(|cause| (Some(cause.line() as u32), format!("is no notebook: {cause}")))?;
    let Some(cells) = notebook.get("cells").and_then(Value::as_array) else {
        return Err((None, "is no notebook: it has no `cells` (version 4 of the format is read)".into()));
    };
    let source = |cell: &Value| match cell.get("source") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(lines)) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    };
    let mut pages = Pages::default();
    let mut says = String::new();
    for (i, cell) in (1u32..).zip(cells) {
        match cell.get("cell_type").and_then(Value::as_str) {
            Some("code") => {
                // Lines for IPython and the shell are no Python.
                let code: String = source(cell)
                    .lines()
                    .map(|line| {
                        if line.trim_start().starts_with(['%', '!', '?']) {
                            "\n".into()
                        } else {
                            format!("{line}\n")
                        }
                    })
                    .collect();
                // Cells are numbered, lines of the JSON say nothing.
                pages.pieces.push(Piece { code, line: i, says: std::mem::take(&mut says) });
            }
            Some("markdown") => says = last_paragraph(&source(cell)),
            _ => {}
        }
    }
    Ok(pages)
}

fn prose(text: &str) -> Pages {
    let mut pages = Pages::default();
    let lines: Vec<&str> = text.lines().collect();
    let mut end = 0;
    for found in docs::examples(text) {
        let says = last_paragraph(&lines[end.min(found.line)..found.line.min(lines.len())].join("\n"));
        end = found.line + found.code.lines().count();
        pages.pieces.push(Piece { code: docs::typed_code(&found.code), line: found.line as u32 + 1, says });
    }
    pages
}

/// The last paragraph of prose, marks of code and headings left out.
fn last_paragraph(text: &str) -> String {
    let is_prose = |line: &&str| {
        !line.starts_with("```")
            && !line.starts_with("..")
            && *line != "::"
            && line.chars().any(char::is_alphabetic)
    };
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|part| part.lines().map(str::trim).filter(is_prose).collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty())
        .collect();
    paragraphs
        .last()
        .map(|part| part.trim_start_matches('#').trim().chars().take(400).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notebooks_and_prose() {
        let notebook = r##"{"cells": [
            {"cell_type": "markdown", "source": ["# Dyeing\n", "\n", "Dye the cloth."]},
            {"cell_type": "code", "source": ["%pip install loom\n", "import loom\n", "loom.dye(1)"]}]}"##;
        let pages = of("a.ipynb", notebook.into()).unwrap();
        assert_eq!(pages.pieces[0].says, "Dye the cloth.");
        assert_eq!(pages.pieces[0].code, "\nimport loom\nloom.dye(1)\n");
        let page =
            of("README.md", b"Weave it:\n\n```python\nloom.weave(1)\n```\n\nNo code.\n".to_vec()).unwrap();
        assert_eq!(
            (page.pieces[0].says.as_str(), page.pieces[0].code.trim()),
            ("Weave it:", "loom.weave(1)")
        );
        assert_eq!(page.pieces[0].line, 4);
    }

    #[test]
    fn what_is_none_says_why() {
        for (name, bytes, why) in [
            ("a.ipynb", &b"{\"cells\": [1, "[..], "is no notebook"),
            ("a.ipynb", b"[1]", "no `cells`"),
            ("a.py", b"x = 1\0", "binary"),
            ("a.py", b"x = 1\ny = '\xff'", "not UTF-8"),
        ] {
            assert!(of(name, bytes.to_vec()).unwrap_err().1.contains(why), "{why}");
        }
    }
}
