//! What stands around a place in code: the function, its docstring, the statement, and the comments of its paragraph.

use ruff_python_ast::token::TokenKind;
use ruff_python_ast::visitor::{Visitor, walk_stmt};
use ruff_python_ast::{Expr, ModModule, Stmt};
use ruff_python_parser::Parsed;
use ruff_text_size::{Ranged, TextRange};

use crate::docs;

/// Lines above a statement in which a comment still speaks of it.
const MAX_LINES: usize = 8;

/// A function and what it says of itself.
pub(super) struct Function {
    range: TextRange,
    /// Its name, below that of its class.
    pub name: String,
    /// The first sentence of its docstring.
    pub says: String,
}

/// The places of one parsed piece of code.
pub(super) struct Contexts<'t> {
    text: &'t str,
    functions: Vec<Function>,
    /// Simple statements, and the heads of the others, in the order of the text.
    statements: Vec<TextRange>,
    /// First byte of each line.
    lines: Vec<usize>,
    /// The comment of each line.
    comments: Vec<Option<&'t str>>,
}

impl<'t> Contexts<'t> {
    pub fn new(text: &'t str, parsed: &Parsed<ModModule>) -> Self {
        let mut places = Places { class: String::new(), functions: Vec::new(), statements: Vec::new() };
        parsed.suite().iter().for_each(|stmt| places.visit_stmt(stmt));
        let mut lines = vec![0];
        lines.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        let mut comments = vec![None; lines.len()];
        for token in parsed.tokens().iter().filter(|token| token.kind() == TokenKind::Comment) {
            let at = token.start().to_usize();
            let line = lines.partition_point(|start| *start <= at).saturating_sub(1);
            let comment = text.get(at..token.end().to_usize()).unwrap_or_default();
            comments[line] = Some(comment.trim_start_matches('#').trim());
        }
        places.statements.sort_by_key(|range| (range.start(), std::cmp::Reverse(range.end())));
        Self { text, functions: places.functions, statements: places.statements, lines, comments }
    }

    /// The number of the innermost function around a place, counted from 1; 0 outside of all.
    pub fn function(&self, at: usize) -> usize {
        let around = |function: &Function| {
            function.range.start().to_usize() <= at && at < function.range.end().to_usize()
        };
        // Inner functions come after those around them.
        self.functions.iter().rposition(around).map_or(0, |i| i + 1)
    }

    /// The function of a number that [`Self::function`] gave.
    pub fn function_of(&self, number: usize) -> Option<&Function> {
        self.functions.get(number.checked_sub(1)?)
    }

    /// The statement around a place, or the head of one.
    pub fn statement(&self, at: usize) -> Option<TextRange> {
        let next = self.statements.partition_point(|range| range.start().to_usize() <= at);
        self.statements[..next].last().filter(|range| at < range.end().to_usize()).copied()
    }

    /// 0-based line of a place.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The comments of the paragraph above the statement at `at`, down to its own last line.
    pub fn comments(&self, at: usize) -> String {
        let (first, last) = match self.statement(at) {
            Some(range) => (self.line(range.start().to_usize()), self.line(range.end().to_usize())),
            None => (self.line(at), self.line(at)),
        };
        let mut top = first;
        while top > 0 && first - top < MAX_LINES && !self.is_blank(top - 1) {
            top -= 1;
        }
        let found: Vec<&str> =
            self.comments[top..=last].iter().flatten().copied().filter(|c| is_prose(c)).collect();
        found.join(" ")
    }

    fn is_blank(&self, line: usize) -> bool {
        let end = self.lines.get(line + 1).copied().unwrap_or(self.text.len());
        let text = self.text.get(self.lines[line]..end).unwrap_or_default().trim();
        // Comments do not reach into a function from above it.
        text.is_empty() || text.starts_with("def ") || text.starts_with("class ")
    }
}

/// Whether a comment is for readers, not for tools and not code that was put aside.
fn is_prose(comment: &str) -> bool {
    let tool = ["noqa", "type:", "pragma", "pylint", "fmt:", "flake8", "mypy:", "isort"];
    !tool.iter().any(|tool| comment.starts_with(tool))
        && comment.chars().any(char::is_alphabetic)
        && !comment.contains(" = ")
        && !comment.ends_with(')')
}

struct Places {
    class: String,
    functions: Vec<Function>,
    statements: Vec<TextRange>,
}

impl<'a> Visitor<'a> for Places {
    fn visit_expr(&mut self, _: &'a Expr) {}

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::FunctionDef(def) => {
                let says = match def.body.first() {
                    Some(Stmt::Expr(first)) => match &*first.value {
                        Expr::StringLiteral(string) => docs::first_sentence(string.value.to_str().trim()),
                        _ => String::new(),
                    },
                    _ => String::new(),
                };
                let name = format!("{} {}", self.class, def.name.as_str());
                self.functions.push(Function { range: def.range(), name: name.trim().to_owned(), says });
                walk_stmt(self, stmt);
            }
            Stmt::ClassDef(class) => {
                let outer = std::mem::replace(&mut self.class, class.name.to_string());
                walk_stmt(self, stmt);
                self.class = outer;
            }
            Stmt::If(_) | Stmt::For(_) | Stmt::While(_) | Stmt::With(_) | Stmt::Try(_) | Stmt::Match(_) => {
                // The head ends where the body begins; a place in the body finds its own statement, which begins later.
                self.statements.push(stmt.range());
                walk_stmt(self, stmt);
            }
            _ => self.statements.push(stmt.range()),
        }
    }
}
