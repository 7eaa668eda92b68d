//! Which side of an `if` an interpreter takes, where its version, its platform or a constant decide that.

use ruff_python_ast::{BoolOp, CmpOp, Expr, Number, UnaryOp};

use super::scope::{Assigned, Binding, Scope, last_name};

/// Names that lead to one another before a condition is unknown.
const MAX_DEPTH: usize = 24;

/// The interpreter that the library is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// `(3, 13)`.
    pub version: (u8, u8),
    /// `sys.platform`.
    pub platform: &'static str,
}

impl Interpreter {
    /// The newest version of Python, for a library of which nothing says what it is installed for.
    pub const NEWEST: (u8, u8) = (3, 14);

    /// An interpreter of this version on the system that reads.
    pub fn new(version: Option<(u8, u8)>) -> Self {
        let platform = match std::env::consts::OS {
            "windows" => "win32",
            "macos" | "ios" => "darwin",
            _ => "linux",
        };
        Interpreter { version: version.unwrap_or(Self::NEWEST), platform }
    }
}

/// A value that conditions compare.
enum Constant {
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<i64>),
}

/// The truth of a condition in a body whose names so far are in `scope`.
pub(super) fn truth(test: &Expr, scope: &Scope<'_>, interpreter: Interpreter) -> Option<bool> {
    Reader { scope, interpreter }.truth(test, 0)
}

struct Reader<'s, 'a> {
    scope: &'s Scope<'a>,
    interpreter: Interpreter,
}

impl Reader<'_, '_> {
    fn truth(&self, test: &Expr, depth: usize) -> Option<bool> {
        if depth > MAX_DEPTH {
            return None;
        }
        match test {
            Expr::UnaryOp(not) if not.op == UnaryOp::Not => self.truth(&not.operand, depth + 1).map(|is| !is),
            Expr::BoolOp(operation) => {
                let decides = operation.op == BoolOp::Or;
                let mut known = true;
                for value in &operation.values {
                    match self.truth(value, depth + 1) {
                        Some(is) if is == decides => return Some(decides),
                        Some(_) => {}
                        None => known = false,
                    }
                }
                known.then_some(!decides)
            }
            Expr::Compare(compare) => {
                let mut left = &*compare.left;
                let mut all = Some(true);
                for (op, right) in compare.ops.iter().zip(&compare.comparators) {
                    match self.compare(*op, left, right, depth) {
                        Some(true) => {}
                        Some(false) => return Some(false),
                        None => all = None,
                    }
                    left = right;
                }
                all
            }
            Expr::Call(call) => match (last_name(&call.func), &*call.arguments.args) {
                (Some("bool"), [only]) => self.truth(only, depth + 1),
                // `sys.platform.startswith("win")`
                (Some("startswith"), [prefix]) => {
                    let Expr::Attribute(method) = &*call.func else { return None };
                    match (self.constant(&method.value, depth + 1)?, self.constant(prefix, depth + 1)?) {
                        (Constant::Text(text), Constant::Text(prefix)) => Some(text.starts_with(&prefix)),
                        _ => None,
                    }
                }
                _ => None,
            },
            other => match self.constant(other, depth)? {
                Constant::Bool(is) => Some(is),
                Constant::Int(number) => Some(number != 0),
                Constant::Text(text) => Some(!text.is_empty()),
                Constant::Tuple(items) => Some(!items.is_empty()),
            },
        }
    }

    fn compare(&self, op: CmpOp, left: &Expr, right: &Expr, depth: usize) -> Option<bool> {
        if matches!(op, CmpOp::In | CmpOp::NotIn)
            && let Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
            | Expr::List(ruff_python_ast::ExprList { elts, .. })
            | Expr::Set(ruff_python_ast::ExprSet { elts, .. }) = right
        {
            let mut found = false;
            for item in elts {
                found |= self.compare(CmpOp::Eq, left, item, depth + 1)?;
            }
            return Some(found == (op == CmpOp::In));
        }
        // Whether some other program is about, Sphinx most often.
        if matches!(op, CmpOp::In | CmpOp::NotIn)
            && self.dotted(right, depth + 1).is_some_and(|name| name == "sys.modules")
        {
            return Some(op == CmpOp::NotIn);
        }
        let ordering = match (self.constant(left, depth + 1)?, self.constant(right, depth + 1)?) {
            (Constant::Int(a), Constant::Int(b)) => a.cmp(&b),
            (Constant::Text(a), Constant::Text(b)) => a.cmp(&b),
            (Constant::Tuple(a), Constant::Tuple(b)) => a.cmp(&b),
            (Constant::Bool(a), Constant::Bool(b)) => a.cmp(&b),
            _ => return None,
        };
        match op {
            CmpOp::Eq | CmpOp::Is => Some(ordering.is_eq()),
            CmpOp::NotEq | CmpOp::IsNot => Some(ordering.is_ne()),
            CmpOp::Lt => Some(ordering.is_lt()),
            CmpOp::LtE => Some(ordering.is_le()),
            CmpOp::Gt => Some(ordering.is_gt()),
            CmpOp::GtE => Some(ordering.is_ge()),
            _ => None,
        }
    }

    fn constant(&self, expr: &Expr, depth: usize) -> Option<Constant> {
        if depth > MAX_DEPTH {
            return None;
        }
        match expr {
            Expr::BooleanLiteral(literal) => Some(Constant::Bool(literal.value)),
            Expr::NumberLiteral(literal) => match &literal.value {
                Number::Int(number) => number.as_i64().map(Constant::Int),
                _ => None,
            },
            Expr::StringLiteral(literal) => Some(Constant::Text(literal.value.to_str().to_owned())),
            Expr::Tuple(tuple) => {
                let items = tuple.elts.iter().map(|item| match self.constant(item, depth + 1)? {
                    Constant::Int(number) => Some(number),
                    _ => None,
                });
                items.collect::<Option<Vec<i64>>>().map(Constant::Tuple)
            }
            Expr::Subscript(subscript) => {
                let Constant::Tuple(items) = self.constant(&subscript.value, depth + 1)? else { return None };
                if let Expr::Slice(slice) = &*subscript.slice {
                    let until = match slice.upper.as_deref().map(|upper| self.constant(upper, depth + 1)) {
                        None => items.len(),
                        Some(Some(Constant::Int(until))) => usize::try_from(until).ok()?.min(items.len()),
                        Some(_) => return None,
                    };
                    return slice.lower.is_none().then(|| Constant::Tuple(items[..until].to_vec()));
                }
                let Constant::Int(at) = self.constant(&subscript.slice, depth + 1)? else { return None };
                items.get(usize::try_from(at).ok()?).copied().map(Constant::Int)
            }
            // `platform.system()`
            Expr::Call(call) => match self.dotted(&call.func, depth + 1)?.as_str() {
                "platform.system" => Some(Constant::Text(
                    match self.interpreter.platform {
                        "win32" => "Windows",
                        "darwin" => "Darwin",
                        _ => "Linux",
                    }
                    .into(),
                )),
                "platform.python_implementation" => Some(Constant::Text("CPython".into())),
                _ => None,
            },
            Expr::Compare(_) | Expr::BoolOp(_) | Expr::UnaryOp(_) => {
                self.truth(expr, depth + 1).map(Constant::Bool)
            }
            Expr::Name(_) | Expr::Attribute(_) => self.named(expr, depth),
            _ => None,
        }
    }

    fn named(&self, expr: &Expr, depth: usize) -> Option<Constant> {
        if let Expr::Name(name) = expr {
            // A module that is read is imported, not run.
            if name.id.as_str() == "__name__" {
                return Some(Constant::Text("(an imported module)".into()));
            }
            if let Some(Binding::Value(Assigned { value: Some(value), .. })) = self.scope.get(&name.id)
                && !self.scope.is_reassigned(&name.id)
            {
                return self.constant(value, depth + 1);
            }
        }
        let (major, minor) = (i64::from(self.interpreter.version.0), i64::from(self.interpreter.version.1));
        let dotted = self.dotted(expr, depth + 1)?;
        Some(match dotted.as_str() {
            "sys.version_info" => Constant::Tuple(vec![major, minor, 0]),
            "sys.version_info.major" => Constant::Int(major),
            "sys.version_info.minor" => Constant::Int(minor),
            "sys.hexversion" => Constant::Int((major << 24) | (minor << 16)),
            "sys.platform" => Constant::Text(self.interpreter.platform.into()),
            "sys.implementation.name" => Constant::Text("cpython".into()),
            "os.name" => {
                Constant::Text(if self.interpreter.platform == "win32" { "nt" } else { "posix" }.into())
            }
            _ => match dotted.rsplit('.').next()? {
                // By these names compatibility modules say it.
                "PY2" => Constant::Bool(false),
                "PY3" => Constant::Bool(true),
                "TYPE_CHECKING" => Constant::Bool(false),
                _ => return None,
            },
        })
    }

    /// The dotted name of what an expression means, imports of the body followed: `_s.platform` is `sys.platform`.
    fn dotted(&self, expr: &Expr, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        match expr {
            Expr::Attribute(attribute) => {
                Some(format!("{}.{}", self.dotted(&attribute.value, depth + 1)?, attribute.attr))
            }
            Expr::Name(name) => match self.scope.get(&name.id) {
                Some(Binding::Import(import)) => Some(match import.name {
                    Some(taken) => format!("{}.{taken}", import.module),
                    None => import.module.clone(),
                }),
                // In a class body: the module's own import.
                None if matches!(name.id.as_str(), "sys" | "os" | "platform") => Some(name.id.to_string()),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether a condition asks for `typing.TYPE_CHECKING` (or mypy's old name of it).
pub(super) fn is_type_checking(test: &Expr) -> bool {
    last_name(test) == Some("TYPE_CHECKING") && !matches!(test, Expr::Call(_))
}
