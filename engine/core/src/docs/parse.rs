//! One file of Python source to a syntax tree: encoding (PEP 263), limits, parser.

use std::borrow::Cow;

use ruff_python_ast::{Expr, Stmt, Suite};
use ruff_text_size::{Ranged, TextSize};

use super::source::RawFile;
use crate::python;

/// A file that parsed: the text and the tree whose ranges point into it.
pub(super) struct ParsedFile {
    /// Dotted module name.
    pub module: String,
    /// Path for the reader of the documentation, with `/`.
    pub path: String,
    /// Whether it is an `__init__` file.
    pub is_package: bool,
    /// Whether it is a `.pyi` file.
    pub stub: bool,
    /// Whether it belongs to a dependency that was only looked into.
    pub dependency: bool,
    pub text: String,
    pub body: Suite,
    line_starts: Vec<u32>,
}

impl ParsedFile {
    /// 1-based line of an offset.
    pub fn line(&self, offset: TextSize) -> u32 {
        self.line_starts.partition_point(|&start| start <= offset.to_u32()) as u32
    }

    /// The source text of a node.
    pub fn slice(&self, node: &impl Ranged) -> &str {
        let range = node.range();
        self.text.get(range.start().to_usize()..range.end().to_usize()).unwrap_or("")
    }
}

/// Why a file was passed over: 1-based line where it is known, and the reason.
pub(super) type Refusal = (Option<u32>, String);

/// Decodes and parses `bytes`.
///
/// # Errors
/// The bytes are not text in the declared encoding, nest too deeply, or are not Python.
pub(super) fn parse(file: &RawFile, bytes: Vec<u8>) -> Result<ParsedFile, Refusal> {
    let text = decode(bytes)?;
    let parsed = python::parse(&text).map_err(|refusal| (refusal.line, refusal.reason))?;
    let mut line_starts = vec![0];
    line_starts.extend(memchr_newlines(&text));
    if let Some(error) = parsed.errors().first() {
        let line = line_starts.partition_point(|&start| start <= error.location.start().to_u32()) as u32;
        return Err((Some(line), format!("does not parse: {}", error.error)));
    }
    let mut body = parsed.into_suite();
    trim(&mut body, &text);
    Ok(ParsedFile {
        module: file.module.clone(),
        path: file.display.clone(),
        is_package: file.is_package,
        stub: file.stub,
        dependency: file.dependency,
        text,
        body,
        line_starts,
    })
}

fn memchr_newlines(text: &str) -> impl Iterator<Item = u32> + '_ {
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at as u32 + 1)
}

/// Text of a source file: UTF-8 (with or without a byte order mark) unless a PEP 263 comment names Latin-1 or ASCII.
fn decode(bytes: Vec<u8>) -> Result<String, Refusal> {
    let declared = declared_encoding(&bytes).map(|name| name.to_ascii_lowercase().replace('_', "-"));
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    match declared.as_deref() {
        Some("latin-1" | "latin1" | "iso-8859-1" | "iso8859-1" | "l1" | "cp819") => {
            Ok(bytes.iter().map(|&byte| byte as char).collect())
        }
        None | Some("utf-8" | "utf8" | "u8" | "utf-8-sig" | "utf-8-unix" | "ascii" | "us-ascii") => {
            String::from_utf8(bytes).map_err(|cause| {
                let at = cause.utf8_error().valid_up_to();
                let line = cause.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() as u32 + 1;
                (Some(line), format!("not UTF-8 at byte {at}"))
            })
        }
        Some(other) => Err((Some(1), format!("encoding `{other}` is not supported (save it as UTF-8)"))),
    }
}

/// The encoding named by a comment in the first two lines (PEP 263).
fn declared_encoding(bytes: &[u8]) -> Option<Cow<'_, str>> {
    for line in bytes.split(|&byte| byte == b'\n').take(2) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | 0x0c))?;
        if line[start] != b'#' {
            return None;
        }
        let comment = String::from_utf8_lossy(line);
        if let Some(at) = comment.find("coding") {
            let rest = &comment[at + "coding".len()..];
            if let Some(rest) = rest.strip_prefix([':', '=']) {
                let name: String = rest
                    .trim_start()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                    .collect();
                if !name.is_empty() {
                    return Some(Cow::Owned(name));
                }
            }
        }
    }
    None
}

/// Drops what no later step looks at, so that a large package fits in memory: bodies of functions, but for the
/// docstring. A body that defines functions (factories of methods, class decorators) or, in a file that sets
/// attributes by name, any body is kept.
fn trim(body: &mut Suite, text: &str) {
    let sets_attributes = text.contains("setattr(");
    trim_suite(body, text, sets_attributes);
}

fn trim_suite(body: &mut Suite, text: &str, sets_attributes: bool) {
    for stmt in body.iter_mut() {
        match stmt {
            Stmt::FunctionDef(function) => {
                let range = function.range();
                let source = text.get(range.start().to_usize()..range.end().to_usize()).unwrap_or("");
                let kept = sets_attributes
                    || source.match_indices("def ").nth(1).is_some()
                    // A constructor that documents what it sets, a signature put together, a field of a dataclass.
                    || (function.name.as_str() == "__init__" && (source.contains("#:") || has_strings(&function.body)))
                    || function.name.as_str() == "__signature__"
                    || source.contains("field(");
                if kept {
                    trim_suite(&mut function.body, text, sets_attributes);
                } else {
                    let documented = function.body.first().is_some_and(is_docstring);
                    function.body.truncate(usize::from(documented));
                    function.body.shrink_to_fit();
                }
            }
            Stmt::ClassDef(class) => trim_suite(&mut class.body, text, sets_attributes),
            Stmt::If(branch) => {
                trim_suite(&mut branch.body, text, sets_attributes);
                for clause in &mut branch.elif_else_clauses {
                    trim_suite(&mut clause.body, text, sets_attributes);
                }
            }
            Stmt::Try(attempt) => {
                trim_suite(&mut attempt.body, text, sets_attributes);
                trim_suite(&mut attempt.orelse, text, sets_attributes);
                trim_suite(&mut attempt.finalbody, text, sets_attributes);
            }
            _ => {}
        }
    }
}

/// Whether a string literal stands behind another statement, as its documentation.
fn has_strings(body: &[Stmt]) -> bool {
    body.iter().skip(1).any(is_docstring)
}

fn is_docstring(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Expr(expr) if matches!(&*expr.value, Expr::StringLiteral(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let latin = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n".to_vec();
        assert_eq!(decode(latin).unwrap(), "# -*- coding: latin-1 -*-\nx = '\u{e9}'\n");
        assert_eq!(decode(b"\xef\xbb\xbfx = 1\n".to_vec()).unwrap(), "x = 1\n");
        assert_eq!(
            decode(b"x = 1\ny = '\xff'\n".to_vec()).unwrap_err(),
            (Some(2), "not UTF-8 at byte 11".into())
        );
        let (line, reason) =
            decode(b"#!/bin/python\n# vim: set fileencoding=koi8-r :\n".to_vec()).unwrap_err();
        assert_eq!(line, Some(1));
        assert!(reason.contains("koi8-r"), "{reason}");
        assert!(decode(b"x = 'coding: koi8-r'\n".to_vec()).is_ok());
    }
}
