//! Calls of an API that its examples show, each as one line of a prompt.

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::{Ranged, TextRange};

use crate::api::{ApiDoc, ApiKind};
use crate::{docs, python};

/// A longer line teaches a call less well than it fills a prompt.
const MAX_BYTES: usize = 120;
/// Examples of one API that are looked at.
const MAX_LOOKED_AT: usize = 64;

/// The first `n` different calls of `api` in its [`ApiDoc::examples`], one line each: the statement that holds the call
/// or, where that is long, the call alone. Examples may be code or doctests; what does not parse shows nothing. Of what is not
/// called (a property, a constant) the lines that read it are shown.
pub fn example_calls(api: &ApiDoc, n: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let kind_is_called = matches!(api.kind, Some(ApiKind::Class | ApiKind::Function | ApiKind::Method));
    let called = kind_is_called || !api.signature.is_empty();
    for example in api.examples.iter().take(MAX_LOOKED_AT) {
        if lines.len() >= n {
            break;
        }
        // Most examples of a class's page are of its other members.
        if !example.contains(api.name.as_str()) {
            continue;
        }
        let code = docs::typed_code(example);
        python::read_valid(&code, |parsed| {
            Found { name: &api.name, called, code: &code, lines: &mut lines, most: n }
                .visit_body(parsed.suite());
            Some(())
        });
    }
    lines
}

struct Found<'c> {
    name: &'c str,
    called: bool,
    code: &'c str,
    lines: &'c mut Vec<String>,
    most: usize,
}

impl Found<'_> {
    fn take(&mut self, statement: TextRange, within: impl Fn(&mut Uses<'_>)) {
        if self.lines.len() >= self.most {
            return;
        }
        let mut uses = Uses { name: self.name, called: self.called, shortest: None };
        within(&mut uses);
        let Some(call) = uses.shortest else { return };
        let text = |range: TextRange| self.code.get(range.start().to_usize()..range.end().to_usize());
        let line = text(statement).and_then(one_line).or_else(|| text(call).and_then(one_line));
        if let Some(line) = line.filter(|line| !self.lines.contains(line)) {
            self.lines.push(line);
        }
    }
}

impl<'a> Visitor<'a> for Found<'_> {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Import(_) | Stmt::ImportFrom(_) => {}
            Stmt::FunctionDef(_)
            | Stmt::ClassDef(_)
            | Stmt::If(_)
            | Stmt::For(_)
            | Stmt::While(_)
            | Stmt::With(_)
            | Stmt::Try(_)
            | Stmt::Match(_) => walk_stmt(self, stmt),
            _ => self.take(stmt.range(), |uses| uses.visit_stmt(stmt)),
        }
    }

    /// What stands in the head of a compound statement.
    fn visit_expr(&mut self, expr: &'a Expr) {
        self.take(expr.range(), |uses| uses.visit_expr(expr));
    }
}

/// Looks for the shortest expression that uses a name: a call of it or, where it need not be called, the name itself.
struct Uses<'n> {
    name: &'n str,
    called: bool,
    shortest: Option<TextRange>,
}

impl<'a> Visitor<'a> for Uses<'_> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        let is_named = |expr: &Expr| match expr {
            Expr::Attribute(attribute) => attribute.attr.as_str() == self.name,
            Expr::Name(name) => name.id.as_str() == self.name && name.ctx.is_load(),
            _ => false,
        };
        let used = match expr {
            Expr::Call(call) => is_named(&call.func),
            other => !self.called && is_named(other),
        };
        if used && self.shortest.is_none_or(|shortest| expr.range().len() < shortest.len()) {
            self.shortest = Some(expr.range());
        }
        // The name inside of its own call is not looked at again, but what it is called on and with is.
        match expr {
            Expr::Call(call) if used => {
                if let Expr::Attribute(attribute) = &*call.func {
                    self.visit_expr(&attribute.value);
                }
                self.visit_arguments(&call.arguments);
            }
            _ => walk_expr(self, expr),
        }
    }
}

/// A part of code with its line breaks folded; `None` where it is too long, or where folding may change what it means
/// (comments, strings over lines).
pub(crate) fn one_line(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > 4 * MAX_BYTES {
        return None;
    }
    let line = if !text.contains(['\n', '\r']) {
        text.to_owned()
    } else if text.contains(['#', '\\']) || text.contains("\"\"\"") || text.contains("'''") {
        return None;
    } else {
        let mut line = String::new();
        for part in text.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()) {
            let opened = line.is_empty() || line.ends_with(['(', '[', '{']);
            if !opened && !part.starts_with([')', ']', '}']) {
                line.push(' ');
            }
            line.push_str(part);
        }
        line
    };
    // Other breaks of lines, and what a terminal or a tokenizer does not show, have no place in a prompt.
    (line.len() <= MAX_BYTES && !line.contains(char::is_control)).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, signature: &str, examples: &[&str], n: usize) -> Vec<String> {
        let examples = examples.iter().map(|example| (*example).to_owned()).collect();
        example_calls(
            &ApiDoc { name: name.into(), signature: signature.into(), examples, ..ApiDoc::default() },
            n,
        )
    }

    fn calls(name: &str, examples: &[&str], n: usize) -> Vec<String> {
        shown(name, "()", examples, n)
    }

    #[test]
    fn statements_that_call_it() {
        let doctest = ">>> import loom\n>>> cloth = loom.weave(2)\n>>> cloth.dye('red')\n<Cloth>\n>>> cloth.dye(\n...     'blue',\n...     deep=True)\n";
        assert_eq!(calls("dye", &[doctest], 3), ["cloth.dye('red')", "cloth.dye('blue', deep=True)"]);
        assert_eq!(calls("weave", &[doctest], 3), ["cloth = loom.weave(2)"]);
        assert_eq!(calls("dye", &[doctest, doctest], 1), ["cloth.dye('red')"]);
        assert!(calls("dye", &[doctest], 0).is_empty() && calls("loom", &["import loom\n"], 1).is_empty());
    }

    #[test]
    fn inside_of_other_statements() {
        let code = "for row in cloth.rows(3):\n    with cloth.held(row) as held:\n        held.knot(1)\n";
        assert_eq!(calls("rows", &[code], 2), ["cloth.rows(3)"]);
        assert_eq!(calls("held", &[code], 2), ["cloth.held(row)"]);
        assert_eq!(calls("knot", &[code], 2), ["held.knot(1)"]);
        assert_eq!(shown("width", "", &["print(cloth.width * 2)"], 2), ["print(cloth.width * 2)"]);
        assert!(calls("width", &["print(cloth.width * 2)"], 2).is_empty());
    }

    #[test]
    fn of_a_long_statement_the_call_is_shown() {
        let long = format!("x = run({}, cloth.dye(1))\n", vec!["1"; 100].join(", "));
        assert_eq!(calls("dye", &[&long], 1), ["cloth.dye(1)"]);
        assert_eq!(calls("run", &[&long], 1), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_shown_on_a_line_is_not() {
        for code in [
            "dye(",
            "dye('''a\nb''')",
            "dye(1,  # one\n  2)",
            "dye('\u{1b}[2J')",
            "def dye(): pass",
            "dye = 3",
            ">>> dye(\n",
        ] {
            assert!(calls("dye", &[code], 3).is_empty(), "{code}");
        }
    }
}
