//! What decides a sample: the problem's test, in any of HumanEval's shapes. evald runs it and sees what it asserts; only a
//! test that a twin runs ([`crate::twin`]) is set off by a line of its own, and told by its look:
//!
//! - A test that defines `check` is called: `check(entry_point)`, or `check()` where the entry point is "none".
//! - A test that calls `check` itself is left alone.
//! - Any other test is a script: it runs from top to bottom.
//!
//! A test that could not fail, because nothing in it is ever run, decides nothing: it fails every sample and says so.

use inhouse_core::{Error, ErrorKind, Result, python};
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Expr, Stmt};

use crate::problems::Problem;

/// The entry point of a problem; empty where it has none.
///
/// # Errors
/// It is neither a name nor a path of names and calls without arguments (`Solution().solve`).
pub fn entry_point(problem: &Problem) -> Result<&str> {
    let entry = problem.entry_point.trim();
    let entry = if entry == "none" { "" } else { entry };
    if !is_entry_point(entry) {
        let message = format!(
            "problem `{}`: entry_point `{entry}` is no name (expected a function's name, or \"none\")",
            problem.task_id
        );
        return Err(Error::new(ErrorKind::InvalidData, message));
    }
    Ok(entry)
}

/// The Python that decides after the candidate, in the same namespace.
///
/// # Errors
/// As [`entry_point`].
pub fn test_program(problem: &Problem) -> Result<String> {
    let entry = entry_point(problem)?;
    let test = &problem.test;
    let shape = shape(test);
    Ok(match shape {
        Shape::Check => format!("{test}\ncheck({entry})\n"),
        Shape::Script => format!("{test}\n"),
        Shape::Hollow(why) => format!("raise AssertionError('this problem decides nothing: {why}')\n"),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Shape {
    Check,
    Script,
    Hollow(&'static str),
}

fn shape(test: &str) -> Shape {
    // What a parser refuses, Python will refuse: the sample fails there, with Python's own words.
    python::read_valid(test, |parsed| Some(shape_of(parsed.suite()))).unwrap_or(Shape::Check)
}

fn shape_of(body: &[Stmt]) -> Shape {
    let mut seen = TopLevel::default();
    seen.visit_body(body);
    if let Some(why) = seen.hollow_check {
        return Shape::Hollow(why);
    }
    match (seen.defines_check, seen.calls_check, seen.acts) {
        (true, false, _) => Shape::Check,
        (_, true, _) | (false, false, true) => Shape::Script,
        (false, false, false) if body.is_empty() => Shape::Hollow("its test is empty"),
        (false, false, false) => Shape::Hollow("nothing in its test is ever called"),
    }
}

/// What a test does when it runs from top to bottom; functions and classes are looked into for `check` alone.
#[derive(Default)]
struct TopLevel {
    defines_check: bool,
    calls_check: bool,
    acts: bool,
    hollow_check: Option<&'static str>,
}

impl Visitor<'_> for TopLevel {
    fn visit_stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::FunctionDef(function) if function.name.as_str() == "check" => {
                self.defines_check = true;
                self.hollow_check = if function.is_async {
                    Some("its check is asynchronous, and nothing awaits it")
                } else {
                    hollow_body(&function.body)
                };
            }
            Stmt::FunctionDef(_) => {}
            Stmt::ClassDef(class) => self.defines_check |= class.name.as_str() == "check",
            Stmt::Assign(assign) => {
                let named = |target: &Expr| matches!(target, Expr::Name(name) if name.id == "check");
                self.defines_check |= assign.targets.iter().any(named);
                // A candidate that is called, or a module that is imported, may raise.
                visitor::walk_stmt(self, stmt);
            }
            Stmt::Import(_) => {}
            Stmt::ImportFrom(import) => {
                self.defines_check |= import
                    .names
                    .iter()
                    .any(|alias| alias.asname.as_ref().unwrap_or(&alias.name).as_str() == "check");
            }
            Stmt::Assert(_) | Stmt::Raise(_) => {
                self.acts = true;
                visitor::walk_stmt(self, stmt);
            }
            _ => visitor::walk_stmt(self, stmt),
        }
    }

    fn visit_expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Lambda(_) => {}
            Expr::Call(call) => {
                let is_check = matches!(&*call.func, Expr::Name(name) if name.id == "check");
                self.calls_check |= is_check;
                self.acts = true;
                visitor::walk_expr(self, expr);
            }
            _ => visitor::walk_expr(self, expr),
        }
    }
}

/// Why a `check` of this body can only pass.
fn hollow_body(body: &[Stmt]) -> Option<&'static str> {
    let mut inside = Inside::default();
    inside.visit_body(body);
    if inside.yields {
        Some("its check is a generator, and nothing iterates it")
    } else if inside.acts {
        None
    } else {
        Some("its check neither asserts, raises nor calls")
    }
}

#[derive(Default)]
struct Inside {
    acts: bool,
    yields: bool,
}

impl Visitor<'_> for Inside {
    fn visit_stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::FunctionDef(_) | Stmt::ClassDef(_) => return,
            Stmt::Assert(_) | Stmt::Raise(_) => self.acts = true,
            _ => {}
        }
        visitor::walk_stmt(self, stmt);
    }

    fn visit_expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Lambda(_) => return,
            Expr::Call(_) => self.acts = true,
            Expr::Yield(_) | Expr::YieldFrom(_) => self.yields = true,
            _ => {}
        }
        visitor::walk_expr(self, expr);
    }
}

/// Whether a text is empty, a name, or names and empty calls joined by dots.
fn is_entry_point(text: &str) -> bool {
    text.is_empty()
        || text.split('.').all(|part| {
            let name = part.strip_suffix("()").unwrap_or(part);
            let mut chars = name.chars();
            chars.next().is_some_and(|first| first == '_' || first.is_alphabetic())
                && chars.all(|c| c == '_' || c.is_alphanumeric())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(entry_point: &str, test: &str) -> Problem {
        Problem {
            task_id: "t".into(),
            entry_point: entry_point.into(),
            test: test.into(),
            ..Problem::default()
        }
    }

    #[test]
    fn every_shape_of_test_is_set_off() {
        for (entry, test, end) in [
            ("f", "def check(candidate):\n    assert candidate(1)", "check(f)\n"),
            ("none", "def check():\n    assert x == 1", "check()\n"),
            ("", "def check():\n    assert x == 1", "check()\n"),
            ("Solution().run", "def check(c):\n    assert c()", "check(Solution().run)\n"),
            ("f", "if True:\n    def check(c):\n        c(1)", "check(f)\n"),
            ("f", "from helpers import run as check", "check(f)\n"),
            ("f", "check = lambda c: c(1)", "check(f)\n"),
            ("f", "def check(c):\n    assert c()\n\ncheck(f)", "check(f)\n"),
            ("f", "assert f(2) == 4", "assert f(2) == 4\n"),
            ("none", "for i in range(3):\n    assert f(i)", "assert f(i)\n"),
            ("none", "import unittest\nunittest.main()", "main()\n"),
            ("f", "def check(candidate:\n", "check(f)\n"), // Python will say what is wrong with it
        ] {
            let program = test_program(&problem(entry, test)).unwrap();
            assert!(program.starts_with(test) && program.ends_with(end), "{program}");
            assert_eq!(program.matches("check(f)").count(), usize::from(end == "check(f)\n"), "{program}");
        }
    }

    #[test]
    fn a_test_that_never_runs_anything_fails() {
        for (test, why) in [
            ("", "empty"),
            ("\n# assert f(1)\n", "empty"),
            ("'''assert f(1)'''", "ever called"),
            ("def test_f():\n    assert f(1) == 2", "ever called"),
            (
                "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        assert f(1)",
                "ever called",
            ),
            ("x = 1\nassertion = x == 2", "ever called"),
            ("def check(candidate):\n    pass", "neither asserts"),
            ("def check(candidate):\n    def inner():\n        assert candidate(1)", "neither asserts"),
            ("def check(candidate):\n    assert candidate(1)\n    yield", "generator"),
            ("async def check(candidate):\n    assert candidate(1)", "asynchronous"),
        ] {
            let program = test_program(&problem("f", test)).unwrap();
            assert!(
                program.starts_with("raise AssertionError") && program.contains(why),
                "{test}: {program}"
            );
        }
    }

    #[test]
    fn a_test_of_any_depth_ends_nothing() {
        let deep = |open: &str, close: &str| {
            let n = 150_000;
            format!("def check(c):\n    assert c({}1{})\n", open.repeat(n), close.repeat(n))
        };
        let tests = [deep("-", ""), deep("not ", ""), deep("(", ")"), deep("[", "]"), deep("", ".x")];
        let small = std::thread::Builder::new().stack_size(512 << 10);
        let judged = small.spawn(move || {
            tests.iter().map(|test| test_program(&problem("f", test)).unwrap()).collect::<Vec<_>>()
        });
        // Python has the last word on them, as on anything that does not parse.
        assert!(judged.unwrap().join().unwrap().iter().all(|program| program.ends_with("check(f)\n")));
    }

    #[test]
    fn an_entry_point_is_a_name_and_no_program() {
        for entry in ["f(1)", "a; b", "1f", "f,", "f) or (g", "a..b", "__import__('os')"] {
            let error = test_program(&problem(entry, "assert f()")).unwrap_err().to_string();
            assert!(error.contains("problem `t`") && error.contains("entry_point"), "{error}");
        }
    }
}
