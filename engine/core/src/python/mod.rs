//! Reading Python: the one way from text to syntax tree.
//!
//! A syntax tree is walked and dropped recursively, and text decides how deep it is: a test with 150,000 minus signs in a
//! row would end the process. So a text is looked over before it is parsed (`nesting`), the tree is measured, and whoever
//! looks at it runs on a stack that bears it ([`read`]), whatever the thread's own is. What names Python keeps for itself is
//! told here too.

mod nesting;

use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{
    Expr, InterpolatedStringElement, ModModule, Pattern, PySourceType, Stmt, StmtFunctionDef,
};
use ruff_python_parser::{Parsed, parse_unchecked_source};

pub use ruff_python_stdlib::keyword::is_keyword;

/// The version of Python whose builtins are known.
const MINOR_VERSION: u8 = 14;

/// Whether a name is bound before a program binds it.
pub fn is_builtin(name: &str) -> bool {
    ruff_python_stdlib::builtins::is_python_builtin(name, MINOR_VERSION, false)
}

/// Longer text is data, not source.
pub const MAX_SOURCE_BYTES: u64 = 16 << 20;
/// A longer signature is not read.
const MAX_SIGNATURE_BYTES: usize = 16 << 10;
/// Stack of threads that hold trees of their own ([`parse`]).
pub const STACK_BYTES: usize = 256 << 20;
/// What one level of a tree may take of a stack: frames of a visitor and what it calls at each node. Visitors here take
/// less than 2 KiB.
const LEVEL_BYTES: usize = 8 << 10;
/// What a visitor may take beside that.
const BASE_BYTES: usize = 128 << 10;

/// The tree of a text, with its tokens, comments included, and its syntax errors.
pub type Tree = Parsed<ModModule>;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 1-based line, where it is known.
    pub line: Option<u32>,
    /// What is wrong, in lower case.
    pub reason: String,
}

/// Parses a text and hands its tree to `look`, on a stack that is large enough for visitors of the tree. A text with syntax
/// errors has a tree too: of what can be told ([`Parsed::errors`]).
///
/// # Errors
/// The text is longer than [`MAX_SOURCE_BYTES`] or nests too deeply for any source.
pub fn read<R>(text: &str, look: impl FnOnce(&Tree) -> R) -> Result<R, Refusal> {
    let parsed = parse(text)?;
    let needed = BASE_BYTES + depth(parsed.suite()) * LEVEL_BYTES;
    Ok(stacker::maybe_grow(needed, needed, move || look(&parsed)))
}

/// As [`read`], of texts without a syntax error alone; `None` for others, and where `look` finds nothing.
pub fn read_valid<R>(text: &str, look: impl FnOnce(&Tree) -> Option<R>) -> Option<R> {
    read(text, |parsed| if parsed.errors().is_empty() { look(parsed) } else { None }).ok().flatten()
}

/// Reads a documented signature, `(a, b: int = 1, *, c) -> d`, as the definition of a function; `look` gets the text that
/// ranges point into too. `None` where it is not one, and where `look` finds nothing.
pub fn read_signature<R>(
    signature: &str,
    look: impl FnOnce(&StmtFunctionDef, &str) -> Option<R>,
) -> Option<R> {
    if !signature.starts_with('(')
        || signature.len() > MAX_SIGNATURE_BYTES
        || signature.contains(['\n', '\r'])
    {
        return None;
    }
    let source = format!("def f{signature}: pass\n");
    read_valid(&source, |parsed| match parsed.suite().as_slice() {
        [Stmt::FunctionDef(def)] => look(def, &source),
        _ => None,
    })
}

/// Parses a text for a thread with [`STACK_BYTES`] of stack: on a smaller one even dropping the tree may overflow.
///
/// # Errors
/// As [`read`].
pub(crate) fn parse(text: &str) -> Result<Tree, Refusal> {
    if text.len() as u64 > MAX_SOURCE_BYTES {
        let reason = format!("{} bytes is over the limit of {MAX_SOURCE_BYTES} bytes", text.len());
        return Err(Refusal { line: None, reason });
    }
    nesting::check(text)?;
    Ok(parse_unchecked_source(text, PySourceType::Python))
}

/// How many nodes lie within each other at most. The walk needs no stack of its caller's.
fn depth(body: &[Stmt]) -> usize {
    let mut meter = Meter { depth: 0, deepest: 0 };
    meter.visit_body(body);
    meter.deepest
}

struct Meter {
    depth: usize,
    deepest: usize,
}

impl Meter {
    fn within(&mut self, walk: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        // What a walk takes from one such depth to the next fits what is kept free.
        if self.depth.is_multiple_of(16) {
            stacker::maybe_grow(BASE_BYTES, 1 << 20, || walk(self));
        } else {
            walk(self);
        }
        self.depth -= 1;
    }
}

impl<'a> Visitor<'a> for Meter {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        self.within(|meter| visitor::walk_stmt(meter, stmt));
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        self.within(|meter| visitor::walk_expr(meter, expr));
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        self.within(|meter| visitor::walk_pattern(meter, pattern));
    }

    fn visit_interpolated_string_element(&mut self, element: &'a InterpolatedStringElement) {
        self.within(|meter| visitor::walk_interpolated_string_element(meter, element));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread as hosts make them.
    fn on_a_small_stack(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work);
            thread.unwrap().join().unwrap();
        });
    }

    /// What visitors do with the tree: count names.
    fn names(text: &str) -> Result<usize, Refusal> {
        struct Names(usize);
        impl Visitor<'_> for Names {
            fn visit_expr(&mut self, expr: &Expr) {
                self.0 += usize::from(expr.is_name_expr());
                visitor::walk_expr(self, expr);
            }
        }
        read(text, |tree| {
            let mut names = Names(0);
            names.visit_body(tree.suite());
            names.0
        })
    }

    #[test]
    fn deep_trees_fit_small_stacks() {
        let n = 3_900;
        let blocks: String = (0..99).map(|i| format!("{}if a:\n", " ".repeat(i))).collect();
        let lists: String = (0..10_000).map(|_| "(a, ] ").collect();
        let tabs: String = (1..90)
            .flat_map(|i| [format!("{}if a:\n", " ".repeat(3 + i)), format!("{}x\n", "\t".repeat(i))])
            .collect();
        on_a_small_stack(|| {
            for (text, found) in [
                (format!("x = {}a\n", "-".repeat(n)), 2),
                (format!("x = {}a\n", "not ".repeat(n)), 2),
                (format!("x = a{}\n", " + a".repeat(n / 2 - 10)), n / 2 - 8),
                (format!("x = {}a{}\n", "[".repeat(390), "]".repeat(390)), 2),
                (format!("{blocks}{}a", " ".repeat(99)), 100),
            ] {
                assert_eq!(names(&text), Ok(found), "{}", &text[..40]);
            }
            // Whatever a parser makes of these, it must be borne.
            for text in
                [lists, tabs, "class A: ".repeat(50_000), "if a: ".repeat(50_000), "@".repeat(100_000)]
            {
                let _ = names(&text);
            }
        });
    }

    #[test]
    fn hostile_text_is_refused() {
        on_a_small_stack(|| {
            for text in [
                format!("x = {}1", "-".repeat(150_000)),
                format!("x = {}1", "(".repeat(150_000)),
                "f'{".repeat(150_000),
                "lambda: ".repeat(150_000),
                "x = (\rif a,b:\r ".repeat(50_000),
            ] {
                let refusal = names(&text).unwrap_err();
                assert!(refusal.line.is_some(), "{refusal:?}");
            }
            assert_eq!(names(&" ".repeat((16 << 20) + 1)).unwrap_err().line, None);
        });
    }

    #[test]
    fn signatures_are_definitions() {
        let count = |text: &str| read_signature(text, |def, _| Some(def.parameters.len()));
        assert_eq!(count("(a, /, *b, c=f(1)) -> d"), Some(3));
        for text in ["", "a", "(a", "(a)\n", "(): pass; f(", &format!("({}a)", "-".repeat(20_000))] {
            assert_eq!(count(text), None);
        }
    }
}
