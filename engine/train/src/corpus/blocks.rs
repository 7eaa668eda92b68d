//! Source split into blocks: functions with a docstring, and statements under a comment.

use std::ops::Range;

use ruff_python_ast::token::{TokenKind, Tokens};
use ruff_python_ast::visitor::{Visitor, walk_stmt};
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::Ranged;

/// Lines of a group of statements under one comment.
const MAX_GROUP_LINES: usize = 15;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// A function or method, with its docstring.
    Function,
    /// Statements that follow a comment on lines of its own, or stand before one on their line.
    Statements,
}

/// A block with what its author says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Byte range of the code.
    pub code: Range<usize>,
    /// 1-based line on which it begins.
    pub line: usize,
    /// The comment without `#`, its lines joined, or the docstring as it is written.
    pub says: String,
}

/// The blocks of a parsed file, functions first.
pub fn blocks(text: &str, body: &[Stmt], tokens: &Tokens) -> Vec<Block> {
    let mut functions = Functions { text, found: Vec::new() };
    for stmt in body {
        functions.visit_stmt(stmt);
    }
    let mut found = functions.found;
    statements(text, tokens, &mut found);
    found
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|&byte| byte == b'\n').count() + 1
}

struct Functions<'t> {
    text: &'t str,
    found: Vec<Block>,
}

impl<'a> Visitor<'a> for Functions<'_> {
    fn visit_expr(&mut self, _: &'a Expr) {}

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        if let Stmt::FunctionDef(def) = stmt
            && let Some(Stmt::Expr(first)) = def.body.first()
            && let Expr::StringLiteral(string) = &*first.value
        {
            self.found.push(Block {
                kind: BlockKind::Function,
                code: first.end().to_usize()..def.end().to_usize(),
                line: line_of(self.text, def.name.start().to_usize()),
                says: string.value.to_str().to_owned(),
            });
        }
        walk_stmt(self, stmt);
    }
}

struct Line<'t> {
    range: Range<usize>,
    text: &'t str,
}

impl Line<'_> {
    fn indent(&self) -> usize {
        self.text.len() - self.text.trim_start().len()
    }

    fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

fn statements(text: &str, tokens: &Tokens, found: &mut Vec<Block>) {
    let mut lines = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        lines.push(Line { range: start..start + line.len(), text: line.trim_end_matches(['\n', '\r']) });
        start += line.len();
    }
    // Per line: the offset at which its comment begins.
    let mut comments: Vec<Option<usize>> = vec![None; lines.len()];
    for token in tokens.iter().filter(|token| token.kind() == TokenKind::Comment) {
        let at = token.start().to_usize();
        let line = lines.partition_point(|line| line.range.start <= at).saturating_sub(1);
        if let Some(comment) = comments.get_mut(line) {
            *comment = Some(at);
        }
    }
    let alone = |i: usize| comments[i].is_some_and(|at| at == lines[i].range.start + lines[i].indent());
    let says = |i: usize| {
        let at = comments[i].unwrap_or(lines[i].range.end);
        text[at..lines[i].range.end].trim_start_matches('#').trim()
    };
    let mut i = 0;
    while i < lines.len() {
        let Some(at) = comments[i] else {
            i += 1;
            continue;
        };
        if !alone(i) {
            found.push(Block {
                kind: BlockKind::Statements,
                code: lines[i].range.start..at,
                line: i + 1,
                says: says(i).to_owned(),
            });
            i += 1;
            continue;
        }
        let indent = lines[i].indent();
        let mut comment = String::new();
        while i < lines.len() && alone(i) && lines[i].indent() == indent {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(says(i));
            i += 1;
        }
        let first = i;
        let mut end = first;
        while end < lines.len()
            && end - first < MAX_GROUP_LINES
            && !lines[end].is_blank()
            && lines[end].indent() >= indent
            && !(alone(end) && lines[end].indent() == indent)
        {
            end += 1;
        }
        if end > first && lines[first].indent() == indent {
            found.push(Block {
                kind: BlockKind::Statements,
                code: lines[first].range.start..lines[end - 1].range.end,
                line: first + 1,
                says: comment,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::python;

    #[test]
    fn functions_and_statements() {
        let text = "\
# Weave two
# threads.
t = weave(a, b)
t.cut()

def f():
    \"\"\"Dye it.\"\"\"
    # soak the thread
    soak(t)
    # then dry
    dry(t)  # in the sun
x = '# none'
# alone
";
        let found = python::read(text, |tree| blocks(text, tree.suite(), tree.tokens())).unwrap();
        let seen: Vec<_> =
            found.iter().map(|b| (b.says.as_str(), text[b.code.clone()].trim(), b.line)).collect();
        assert_eq!(
            seen,
            [
                ("Dye it.", "# soak the thread\n    soak(t)\n    # then dry\n    dry(t)", 6),
                ("Weave two threads.", "t = weave(a, b)\nt.cut()", 3),
                ("soak the thread", "soak(t)", 9),
                ("then dry", "dry(t)  # in the sun", 11),
                ("in the sun", "dry(t)", 11),
            ]
        );
    }
}
