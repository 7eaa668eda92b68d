//! Marks in a test, at the places that can make it fail.
//!
//! The text is changed within its lines, so that tracebacks keep their numbers. `assert x` becomes `MARK(3);assert x`, a call
//! of an assertion `(MARK(4)or self.assertEqual)(a, b)`, a condition that decides about a `raise` `if MARK(5)or(c):`. `MARK` is
//! the `add` of a set, which costs little and gives `None`.

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Expr, ExprCall, Int, Number, Stmt};
use ruff_python_parser::parse_module;
use ruff_text_size::{Ranged, TextRange};

/// The name that marks go by in the test's namespace.
pub const MARK: &str = "__evald_mark__";
/// The mark of a call of `check` by the test itself.
pub const CHECK: usize = 0;
/// The parser descends once for each level; what is nested deeper is left to Python's, which has bounds.
const DEEPEST: usize = 180;

/// A test with its marks.
#[derive(Debug, PartialEq, Eq)]
pub struct Marked {
    /// The text to run.
    pub text: String,
    /// Whether marks could be set; a text that cannot be parsed here is left as it is, for Python to refuse.
    pub understood: bool,
    /// Whether the marks of its `check` are in it: it defines that itself.
    pub checks_itself: bool,
    /// Its test functions, a line for each: name, first mark, and the one behind the last.
    pub spans: String,
}

/// Sets the marks.
pub fn marked(test: &str) -> Marked {
    let as_it_is =
        || Marked { text: test.to_owned(), understood: false, checks_itself: true, spans: String::new() };
    if nesting(test) > DEEPEST {
        return as_it_is();
    }
    let Ok(parsed) = parse_module(test) else { return as_it_is() };
    let mut marks = Marks { next: CHECK + 1, ..Marks::default() };
    marks.checks_itself = parsed
        .syntax()
        .body
        .iter()
        .any(|stmt| matches!(stmt, Stmt::FunctionDef(function) if function.name.as_str() == "check"));
    marks.visit_body(&parsed.syntax().body);
    // Stable: of insertions at one place, those of what encloses come first.
    marks.inserts.sort_by_key(|(at, _)| *at);
    let mut text = String::with_capacity(test.len() + marks.inserts.len() * 24);
    let mut from = 0;
    for (at, insert) in &marks.inserts {
        text.push_str(&test[from..*at]);
        text.push_str(insert);
        from = *at;
    }
    text.push_str(&test[from..]);
    Marked { text, understood: true, checks_itself: marks.checks_itself, spans: marks.spans }
}

/// At most so many levels of brackets, or of prefix operators in a row, that an expression here is nested in.
fn nesting(text: &str) -> usize {
    let (mut open, mut row, mut most) = (0usize, 0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        row = match byte {
            b'-' | b'+' | b'~' => row + 1,
            b' ' | b'\t' => row,
            _ => 0,
        };
        most = most.max(open).max(row);
    }
    // `not not not`, `lambda: lambda:`, `a if b else a if b else`, `**` and `await` nest without brackets too.
    let words = ["not not ", "lambda:lambda", "lambda: lambda", "else lambda"];
    most.max(words.iter().map(|word| text.matches(word).count()).max().unwrap_or(0)).max(
        text.lines()
            .map(|line| line.matches(" else ").count().max(line.matches("**").count()))
            .max()
            .unwrap_or(0),
    )
}

#[derive(Default)]
struct Marks {
    inserts: Vec<(usize, String)>,
    next: usize,
    /// The test has a `def check`, whose assertions are marked themselves.
    checks_itself: bool,
    spans: String,
}

impl Marks {
    fn mark(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn insert(&mut self, at: usize, text: String) {
        self.inserts.push((at, text));
    }

    /// `expression` becomes `MARK(n)or(expression)`.
    fn before(&mut self, range: TextRange) {
        let mark = self.mark();
        self.insert(range.start().to_usize(), format!("({MARK}({mark})or("));
        self.insert(range.end().to_usize(), "))".into());
    }

    /// `statement` becomes `MARK(n);statement`; only for simple ones.
    fn in_front(&mut self, stmt: &Stmt) {
        if is_simple(stmt) {
            let mark = self.mark();
            self.insert(stmt.range().start().to_usize(), format!("{MARK}({mark});"));
        }
    }
}

fn is_simple(stmt: &Stmt) -> bool {
    !matches!(
        stmt,
        Stmt::FunctionDef(_)
            | Stmt::ClassDef(_)
            | Stmt::For(_)
            | Stmt::While(_)
            | Stmt::If(_)
            | Stmt::With(_)
            | Stmt::Match(_)
            | Stmt::Try(_)
    )
}

/// Whether a block itself, without the blocks in it, raises or ends the program.
fn gives_up(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Raise(_) => true,
        Stmt::Assert(assert) => is_false(&assert.test),
        Stmt::Expr(expr) => matches!(&*expr.value, Expr::Call(call) if gives_up_by(call)),
        _ => false,
    })
}

fn gives_up_by(call: &ExprCall) -> bool {
    matches!(called(call), Some("exit" | "_exit" | "quit" | "fail" | "abort"))
}

fn called(call: &ExprCall) -> Option<&str> {
    match &*call.func {
        Expr::Name(name) => Some(name.id.as_str()),
        Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
        _ => None,
    }
}

/// Whether a call checks something: `assertEqual`, `assert_frame_equal`, `pytest.raises`, ...
fn asserts(call: &ExprCall) -> bool {
    called(call).is_some_and(|name| {
        let name = name.trim_start_matches('_');
        name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("assert"))
            || matches!(name, "raises" | "warns" | "deprecated_call" | "fail")
    })
}

fn is_false(expr: &Expr) -> bool {
    match expr {
        Expr::BooleanLiteral(literal) => !literal.value,
        Expr::NumberLiteral(literal) => literal.value == Number::Int(Int::ZERO),
        Expr::NoneLiteral(_) => true,
        _ => false,
    }
}

/// What `assert` can never refuse: a tuple with something in it, a constant.
fn always_true(expr: &Expr) -> bool {
    match expr {
        Expr::Tuple(tuple) => !tuple.elts.is_empty(),
        Expr::BooleanLiteral(literal) => literal.value,
        Expr::StringLiteral(literal) => !literal.value.is_empty(),
        Expr::NumberLiteral(_) => !is_false(expr),
        Expr::Lambda(_) | Expr::EllipsisLiteral(_) => true,
        _ => false,
    }
}

impl Visitor<'_> for Marks {
    fn visit_stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Assert(assert) if !always_true(&assert.test) => self.in_front(stmt),
            Stmt::If(branch) => {
                let otherwise = branch.elif_else_clauses.iter().any(|clause| gives_up(&clause.body));
                if gives_up(&branch.body) || otherwise {
                    self.before(branch.test.range());
                }
            }
            Stmt::While(branch) if gives_up(&branch.body) || gives_up(&branch.orelse) => {
                self.before(branch.test.range());
            }
            Stmt::For(branch) if gives_up(&branch.orelse) => self.before(branch.iter.range()),
            // `f(-1)` that should have raised, and then `raise` or `assert False`.
            Stmt::Try(tried) if gives_up(&tried.body) || gives_up(&tried.orelse) => {
                if let Some(first) = tried.body.first() {
                    self.in_front(first);
                }
            }
            _ => {}
        }
        let first = self.next;
        visitor::walk_stmt(self, stmt);
        if let Stmt::FunctionDef(function) = stmt
            && function.name.starts_with("test")
        {
            self.spans.push_str(&format!("{} {first} {}\n", function.name, self.next));
        }
    }

    fn visit_expr(&mut self, expr: &Expr) {
        match expr {
            // Places within an f-string are not as they look to all versions of Python.
            Expr::FString(_) => return,
            Expr::Call(call) => {
                let checks = matches!(&*call.func, Expr::Name(name) if name.id == "check");
                let range = call.func.range();
                if checks || asserts(call) || (gives_up_by(call) && !call.arguments.is_empty()) {
                    let mark = if checks { CHECK } else { self.mark() };
                    let other = if checks && !self.checks_itself {
                        // A check from elsewhere: what it asserts cannot be seen.
                        let mark = self.mark();
                        format!("{MARK}({mark})or ")
                    } else {
                        String::new()
                    };
                    self.insert(range.start().to_usize(), format!("({MARK}({mark})or {other}"));
                    self.insert(range.end().to_usize(), ")".into());
                }
            }
            _ => {}
        }
        visitor::walk_expr(self, expr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(test: &str) -> String {
        let marked = marked(test);
        assert_eq!(marked.text.lines().count(), test.lines().count());
        marked.text.replace(MARK, "M")
    }

    #[test]
    fn what_can_fail_is_marked() {
        for (test, want) in [
            ("assert f(1) == 2", "M(1);assert f(1) == 2"),
            ("if x: assert f(1)", "if x: M(1);assert f(1)"),
            (
                "def check(c):\n    assert c(1)\ncheck(f)",
                "def check(c):\n    M(1);assert c(1)\n(M(0)or check)(f)",
            ),
            ("self.assertEqual(f(2), 4)", "(M(1)or self.assertEqual)(f(2), 4)"),
            ("np.testing.assert_allclose(a, b)", "(M(1)or np.testing.assert_allclose)(a, b)"),
            ("with pytest.raises(E):\n    f()", "with (M(1)or pytest.raises)(E):\n    f()"),
            ("if f(2) != 4:\n    raise E", "if (M(1)or(f(2) != 4)):\n    raise E"),
            ("if ok:\n    pass\nelse:\n    raise E", "if (M(1)or(ok)):\n    pass\nelse:\n    raise E"),
            ("if ok: pass\nelif no: sys.exit(1)", "if (M(1)or(ok)): pass\nelif no: (M(2)or sys.exit)(1)"),
            (
                "try:\n    f(-1)\n    assert False\nexcept E: pass",
                "try:\n    M(1);f(-1)\n    M(2);assert False\nexcept E: pass",
            ),
            (
                "for x in 1, 2:\n    pass\nelse:\n    raise E",
                "for x in (M(1)or(1, 2)):\n    pass\nelse:\n    raise E",
            ),
            ("from h import run as check\ncheck(f)", "from h import run as check\n(M(0)or M(1)or check)(f)"),
            // What cannot fail is not.
            ("assert (f(2) == 4, 'x')", "assert (f(2) == 4, 'x')"),
            ("assert True", "assert True"),
            ("print(f(2) == 4)", "print(f(2) == 4)"),
            ("x = f'{assertion(1)}'", "x = f'{assertion(1)}'"),
        ] {
            assert_eq!(short(test), want);
        }
    }

    #[test]
    fn marks_of_test_functions_are_told() {
        let test = "assert x\ndef test_a():\n    assert y\n    assert z\nclass T:\n    def test_b(self):\n        assert x\n";
        assert_eq!(marked(test).spans, "test_a 2 4\ntest_b 4 5\n");
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let deep = "(".repeat(100_000);
        let minus = format!("assert {}1", "-".repeat(100_000));
        for test in ["def check(c:\n", "assert f(\n", &deep, &minus] {
            let marked = marked(test);
            assert!(!marked.understood && marked.text == test);
        }
    }
}
