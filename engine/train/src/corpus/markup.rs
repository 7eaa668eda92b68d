//! reStructuredText, Markdown, notebooks and gallery scripts as paragraphs and pieces of code. No full grammar of any: what a guide
//! uses to set code below prose.

use serde::Deserialize;

use super::pages::Piece;

type Split = (Vec<Piece>, Vec<String>);

/// Collects what a reader of lines finds.
#[derive(Default)]
struct Found {
    pieces: Vec<Piece>,
    paragraphs: Vec<String>,
    /// The paragraph that is being read.
    open: String,
    /// The last whole one, until code or a heading follows.
    above: String,
}

impl Found {
    fn word(&mut self, line: &str) {
        if !self.open.is_empty() {
            self.open.push(' ');
        }
        self.open.push_str(line.trim());
    }

    /// Ends the paragraph.
    fn close(&mut self) {
        if !self.open.is_empty() {
            self.above = std::mem::take(&mut self.open);
            self.paragraphs.push(self.above.clone());
        }
    }

    /// Ends a section: what stands above it says nothing of what comes.
    fn forget(&mut self) {
        self.open.clear();
        self.above.clear();
    }

    fn code(&mut self, lines: &[&str], line: usize) {
        self.close();
        let blank = lines.iter().take_while(|line| line.trim().is_empty()).count();
        let (lines, line) = (&lines[blank..], line + blank);
        let code = python(lines);
        if !code.trim().is_empty() {
            let says = std::mem::take(&mut self.above);
            let says = says.trim_end().trim_end_matches(':').to_owned();
            self.pieces.push(Piece { says, code, line });
        }
    }

    fn split(mut self) -> Split {
        self.close();
        (self.pieces, self.paragraphs)
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Code as it would stand in a file: what prompts are followed by where there are prompts, else all of it, moved to the margin;
/// without IPython's own commands.
fn python(lines: &[&str]) -> String {
    let prompt = |line: &&str| {
        let line = line.trim_start();
        line.starts_with(">>>") || (line.starts_with("In [") && line.contains("]:"))
    };
    let mut code = String::new();
    if lines.iter().any(prompt) {
        for line in lines {
            let line = line.trim_start();
            let of = match line.strip_prefix(">>>").or_else(|| line.strip_prefix("...")) {
                Some(rest) => rest,
                None if line.starts_with("In [") => line.split_once("]:").map_or("", |(_, rest)| rest),
                None => continue,
            };
            code.push_str(of.strip_prefix(' ').unwrap_or(of));
            code.push('\n');
        }
        return code;
    }
    let margin =
        lines.iter().filter(|line| !line.trim().is_empty()).map(|line| indent(line)).min().unwrap_or(0);
    for line in lines {
        let line = line.get(margin..).unwrap_or_default();
        // Magic, a shell's command, a decorator of the ipython directive.
        let own = line.starts_with(['%', '!', '?'])
            || line.starts_with("@savefig")
            || line.starts_with("@suppress");
        if !own {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The lines after `from` that are blank or further right than `margin`, and the line after them.
fn block<'t>(lines: &[&'t str], from: usize, margin: usize) -> (Vec<&'t str>, usize) {
    let mut end = from;
    let mut last = from;
    while end < lines.len() && (lines[end].trim().is_empty() || indent(lines[end]) > margin) {
        end += 1;
        if !lines[end - 1].trim().is_empty() {
            last = end;
        }
    }
    (lines[from..last].to_vec(), last)
}

fn is_underline(line: &str) -> bool {
    let line = line.trim_end();
    let first = line.chars().next().unwrap_or(' ');
    line.len() >= 3 && "=-~^\"'`#*+.:_".contains(first) && line.chars().all(|c| c == first)
}

fn is_python(language: &str) -> bool {
    matches!(
        language.trim().trim_matches(['{', '}']),
        "" | "python"
            | "py"
            | "python3"
            | "pycon"
            | "ipython"
            | "ipython3"
            | "default"
            | "code-cell ipython3"
            | "jupyter-execute"
    )
}

/// reStructuredText.
pub(super) fn rest(text: &str) -> Split {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Found::default();
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        let trimmed = line.trim();
        if trimmed.is_empty() {
            found.close();
            i += 1;
        } else if let Some(directive) = trimmed.strip_prefix(".. ") {
            found.close();
            let (name, argument) = directive.split_once("::").unwrap_or((directive, ""));
            let is_code = match name.trim() {
                "ipython" | "code-block" | "code" | "sourcecode" | "highlight" => is_python(argument),
                "plot" | "doctest" | "testcode" | "jupyter-execute" | "try_examples" | "testsetup" => true,
                _ => false,
            };
            i += 1;
            let is_directive = directive.contains("::");
            if is_code || !is_directive || is_opaque(name.trim()) {
                let (body, end) = block(&lines, i, indent(line));
                if is_code {
                    let options = body.iter().take_while(|line| line.trim_start().starts_with(':')).count();
                    found.code(&body[options..], i + 1 + options);
                }
                i = end.max(i);
            }
        } else if trimmed.starts_with(">>>") {
            let begin = i;
            while i < lines.len() && !lines[i].trim().is_empty() {
                i += 1;
            }
            found.code(&lines[begin..i], begin + 1);
        } else if is_underline(trimmed) {
            found.forget();
            i += 1;
        } else {
            // A list's item is a paragraph of its own.
            let item = ["* ", "- ", "#. "].iter().find_map(|bullet| trimmed.strip_prefix(bullet));
            if item.is_some() {
                found.close();
            }
            found.word(item.unwrap_or(trimmed));
            i += 1;
            if trimmed.ends_with("::") && lines.get(i).is_none_or(|next| next.trim().is_empty()) {
                let (body, end) = block(&lines, i, indent(line));
                if !body.is_empty() {
                    found.code(&body, i + 1);
                    i = end;
                }
            }
        }
    }
    found.split()
}

/// Directives whose body is neither prose nor code.
fn is_opaque(name: &str) -> bool {
    matches!(
        name,
        "code-block"
            | "code"
            | "sourcecode"
            | "toctree"
            | "autosummary"
            | "math"
            | "table"
            | "list-table"
            | "csv-table"
            | "raw"
            | "figure"
            | "image"
            | "image-sg"
            | "productionlist"
            | "graphviz"
            | "literalinclude"
            | "parsed-literal"
            | "ipython"
            | "highlight"
            | "only"
            | "meta"
            | "versionchanged"
            | "deprecated"
            | "versionadded"
            | "testoutput"
            | "console"
            | "prompt"
    )
}

/// Markdown, MyST's included.
pub(super) fn markdown(text: &str) -> Split {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Found::default();
    let mut i = 0;
    while i < lines.len() {
        let trimmed = lines[i].trim();
        let fence = ["```", "~~~"].into_iter().find(|fence| trimmed.starts_with(fence));
        if let Some(fence) = fence {
            let language = trimmed.trim_start_matches(['`', '~']);
            let (directive, argument) = match language.strip_prefix('{').and_then(|rest| rest.split_once('}'))
            {
                Some((name, argument)) => (name, argument),
                None => ("", language.split([' ', ',', '{']).next().unwrap_or_default()),
            };
            let is_code = match directive {
                "" => !argument.is_empty() && is_python(argument),
                "code-block" | "code" | "code-cell" | "ipython" => is_python(argument),
                "doctest" | "plot" | "jupyter-execute" => true,
                _ => false,
            };
            let begin = i + 1;
            i = begin;
            while i < lines.len() && !lines[i].trim_start().starts_with(fence) {
                i += 1;
            }
            if is_code {
                let body = &lines[begin..i];
                let options = body.iter().take_while(|line| line.trim_start().starts_with(':')).count();
                found.code(&body[options..], begin + 1 + options);
            } else {
                found.close();
            }
        } else if trimmed.is_empty() {
            found.close();
        } else if trimmed.starts_with('#') || is_underline(trimmed) {
            found.forget();
        } else if trimmed.starts_with(['|', '<']) {
            found.close();
        } else {
            found.word(&links(trimmed));
        }
        i += 1;
    }
    found.split()
}

/// `[shown](address)` as what is shown.
fn links(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(open) = rest.find('[') {
        let shown = rest[open + 1..]
            .split_once("](")
            .and_then(|(shown, after)| Some((shown, after.split_once(')')?.1)));
        match shown {
            Some((shown, after)) if !shown.contains('[') => {
                out.push_str(&rest[..open]);
                out.push_str(shown);
                rest = after;
            }
            _ => {
                out.push_str(&rest[..=open]);
                rest = &rest[open + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// A text of a notebook: one string, or its lines.
#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    Whole(String),
    Lines(Vec<String>),
}

#[derive(Deserialize)]
struct Cell {
    cell_type: String,
    source: Source,
}

#[derive(Deserialize)]
struct Notebook {
    cells: Vec<Cell>,
}

/// A Jupyter notebook (format 4); anything else has nothing.
pub(super) fn notebook(text: &str) -> Split {
    let Ok(notebook) = serde_json::from_str::<Notebook>(text) else { return Split::default() };
    let mut found = Found::default();
    for (i, cell) in notebook.cells.into_iter().enumerate() {
        let text = match cell.source {
            Source::Whole(text) => text,
            Source::Lines(lines) => lines.concat(),
        };
        match cell.cell_type.as_str() {
            "markdown" => {
                let (pieces, paragraphs) = markdown(&text);
                found.forget();
                found.pieces.extend(pieces);
                found.above = paragraphs.last().cloned().unwrap_or_default();
                found.paragraphs.extend(paragraphs);
            }
            "code" => {
                let lines: Vec<&str> = text.lines().collect();
                found.code(&lines, i + 1);
            }
            _ => {}
        }
    }
    found.split()
}

/// A script of a gallery: comments after a line of `# %%` or `####` are prose in reStructuredText, up to the code below.
pub(super) fn script(text: &str) -> Split {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Found::default();
    let mut code: Vec<&str> = Vec::new();
    let mut begin = 1;
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i];
        if !(line.starts_with("# %%")
            || line.starts_with("#%%")
            || (line.len() >= 20 && line.bytes().all(|byte| byte == b'#')))
        {
            if code.is_empty() {
                begin = i + 1;
            }
            code.push(line);
            i += 1;
            continue;
        }
        found.code(&std::mem::take(&mut code), begin);
        i += 1;
        let mut prose = String::new();
        while let Some(said) = lines.get(i).and_then(|line| line.strip_prefix('#')) {
            prose.push_str(said.strip_prefix(' ').unwrap_or(said));
            prose.push('\n');
            i += 1;
        }
        let (_, paragraphs) = rest(&prose);
        found.forget();
        found.above = paragraphs.last().cloned().unwrap_or_default();
        found.paragraphs.extend(paragraphs);
    }
    found.code(&code, begin);
    found.split()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(split: &Split) -> Vec<(&str, &str, usize)> {
        split.0.iter().map(|piece| (piece.says.as_str(), piece.code.as_str(), piece.line)).collect()
    }

    #[test]
    fn prose_and_code_of_rest() {
        let text = "\
Weaving
=======

.. _label:

First words
of a guide. Put two threads together:

.. ipython:: python
   :okwarning:

   cloth = weave(a, b)
   @savefig x.png
   cloth

.. code-block:: bash

   make cloth

.. note::

   Cut the cloth with :meth:`Cloth.cut`::

       cloth.cut(
           3)

Then dye it.

>>> cloth.dye('red')
red
>>> for c in cloth:
...     c.dry()
";
        let split = rest(text);
        assert_eq!(
            seen(&split),
            [
                ("First words of a guide. Put two threads together", "cloth = weave(a, b)\ncloth\n", 12),
                ("Cut the cloth with :meth:`Cloth.cut`", "cloth.cut(\n    3)\n", 24),
                ("Then dye it.", "cloth.dye('red')\nfor c in cloth:\n    c.dry()\n", 29),
            ]
        );
        assert_eq!(split.1.len(), 3);
    }

    #[test]
    fn prose_and_code_of_markdown_and_notebooks() {
        let text = "# Title\n\nDye [the cloth](x.md) red:\n\n```python\ndye(c)\n```\n\n```\nred\n```\n";
        assert_eq!(seen(&markdown(text)), [("Dye the cloth red", "dye(c)\n", 6)]);
        let text = r##"{"cells": [{"cell_type": "markdown", "source": ["# Title\n", "\n", "Dye it."]},
            {"cell_type": "code", "source": "%time\ndye(c)"}, {"cell_type": "code", "source": ["dry(c)"]}]}"##;
        assert_eq!(seen(&notebook(text)), [("Dye it.", "dye(c)\n", 2), ("", "dry(c)\n", 3)]);
        assert_eq!(notebook("{"), Split::default());
    }

    #[test]
    fn prose_and_code_of_scripts() {
        let text = "\"\"\"Title\"\"\"\nimport loom\n# %%\n# Dye\n# ---\n# Dye it\n# red.\n\nloom.dye()\n";
        assert_eq!(
            seen(&script(text)),
            [("", "\"\"\"Title\"\"\"\nimport loom\n", 1), ("Dye it red.", "loom.dye()\n", 9)]
        );
    }

    #[test]
    fn no_text_breaks_them() {
        let all = ".. code::\n   :x:\n\n>>> ```[a](b)\n::\n\n    x\n#%%\n####################\n# a\n===\n* é\u{a0}b ::\n{\"cells\": [";
        for cut in (0..=all.len()).filter(|&at| all.is_char_boundary(at)) {
            for text in [&all[..cut], &all[cut..]] {
                for read in [rest, markdown, notebook, script] {
                    let (pieces, _) = read(text);
                    assert!(pieces.iter().all(|piece| !piece.code.trim().is_empty()));
                }
            }
        }
    }
}
