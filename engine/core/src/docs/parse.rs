//! One file of Python source to a syntax tree: encoding (PEP 263), limits, parser.

use ruff_python_ast::{Expr, Stmt, Suite};
use ruff_text_size::{Ranged, TextSize};

use super::encoding::decode;
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
    /// Lines before each block of [`BLOCK`] bytes.
    lines_before: Vec<u32>,
}

/// Bytes of text between two counts of lines: a table of all lines would be a tenth of the text.
const BLOCK: usize = 2048;

impl ParsedFile {
    /// 1-based line of an offset.
    pub fn line(&self, offset: TextSize) -> u32 {
        let at = offset.to_usize().min(self.text.len());
        let block = (at / BLOCK).min(self.lines_before.len().saturating_sub(1));
        let before = self.lines_before.get(block).copied().unwrap_or(0);
        before + newlines(&self.text.as_bytes()[block * BLOCK..at]) + 1
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
    let mut text = decode(bytes)?;
    let parsed = python::parse(&text).map_err(|refusal| (refusal.line, refusal.reason))?;
    if let Some(error) = parsed.errors().first() {
        let line = newlines(&text.as_bytes()[..error.location.start().to_usize().min(text.len())]) + 1;
        return Err((Some(line), format!("does not parse: {}", error.error)));
    }
    let mut body = parsed.into_suite();
    trim(&mut body, &text);
    body.shrink_to_fit();
    text.shrink_to_fit();
    let mut so_far = 0;
    let lines_before = text.as_bytes().chunks(BLOCK).map(|block| {
        let before = so_far;
        so_far += newlines(block);
        before
    });
    let lines_before = lines_before.collect();
    Ok(ParsedFile {
        module: file.module.clone(),
        path: file.display.clone(),
        is_package: file.is_package,
        stub: file.stub,
        dependency: file.dependency,
        text,
        body,
        lines_before,
    })
}

fn newlines(text: &[u8]) -> u32 {
    text.iter().filter(|byte| **byte == b'\n').count() as u32
}

/// Drops what no later step looks at, so that a large package fits in memory: bodies of functions, but for the
/// docstring. A body that defines functions (factories of methods, class decorators) is kept and, in a file that sets attributes by
/// name, that of any function but the methods of classes which do not.
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
            Stmt::ClassDef(class) => {
                let range = class.range();
                let source = text.get(range.start().to_usize()..range.end().to_usize()).unwrap_or("");
                let sets_attributes = sets_attributes && source.contains("setattr(");
                trim_suite(&mut class.body, text, sets_attributes);
            }
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

/// Whether a file holds tests, as opposed to a module of the interface that is called like one.
pub(super) fn is_test(file: &ParsedFile) -> bool {
    let tools = |module: &str| {
        matches!(module.split('.').next(), Some("pytest" | "unittest" | "hypothesis" | "nose" | "doctest"))
    };
    file.body.iter().any(|stmt| match stmt {
        Stmt::FunctionDef(def) => def.name.starts_with("test"),
        Stmt::ClassDef(def) => {
            def.name.starts_with("Test") || def.name.ends_with("Test") || def.name.ends_with("Tests")
        }
        Stmt::Import(import) => import.names.iter().any(|alias| tools(&alias.name)),
        Stmt::ImportFrom(import) => import.module.as_ref().is_some_and(|module| tools(module)),
        _ => false,
    })
}

/// Whether a string literal stands behind another statement, as its documentation.
fn has_strings(body: &[Stmt]) -> bool {
    body.iter().skip(1).any(is_docstring)
}

fn is_docstring(stmt: &Stmt) -> bool {
    matches!(stmt, Stmt::Expr(expr) if matches!(&*expr.value, Expr::StringLiteral(_)))
}
