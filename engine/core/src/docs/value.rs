//! Values of static evaluation, and what operators make of them.

use std::rc::Rc;

use ruff_python_ast::{CmpOp, Operator};

use super::members::Made;
use super::program::Target;
use super::text;

/// Bytes of an evaluated string; a longer one is unknown.
pub(super) const MAX_STRING: usize = 1 << 20;
/// Items of an evaluated list or dictionary.
pub(super) const MAX_ITEMS: usize = 10_000;

/// The value of an expression, as far as it is known.
#[derive(Clone)]
pub(super) enum Val<'a> {
    Unknown,
    None,
    Bool(bool),
    Int(i64),
    Str(Rc<str>),
    /// List, tuple or set.
    List(Rc<Vec<Val<'a>>>),
    /// Dictionary with string keys; the last of equal keys counts.
    Dict(Rc<Vec<(Rc<str>, Val<'a>)>>),
    /// A module, class, function or value of the library.
    Target(Target<'a>),
    /// A function or property made inside a function.
    Made(Rc<Made<'a>>),
}

impl<'a> Val<'a> {
    pub fn string(text: impl Into<Rc<str>>) -> Self {
        let text = text.into();
        if text.len() > MAX_STRING { Val::Unknown } else { Val::Str(text) }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn list(items: Vec<Val<'a>>) -> Self {
        if items.len() > MAX_ITEMS { Val::Unknown } else { Val::List(Rc::new(items)) }
    }

    pub fn dict(items: Vec<(Rc<str>, Val<'a>)>) -> Self {
        if items.len() > MAX_ITEMS { Val::Unknown } else { Val::Dict(Rc::new(items)) }
    }

    /// The strings of a list of nothing but strings.
    pub fn strings(&self) -> Option<Vec<Rc<str>>> {
        let Val::List(items) = self else { return None };
        items.iter().map(|item| if let Val::Str(text) = item { Some(text.clone()) } else { None }).collect()
    }

    pub fn display(&self) -> Option<String> {
        match self {
            Val::Str(text) => Some(text.to_string()),
            Val::Int(number) => Some(number.to_string()),
            Val::Bool(true) => Some("True".into()),
            Val::Bool(false) => Some("False".into()),
            Val::None => Some("None".into()),
            _ => None,
        }
    }

    /// Equality where both sides are known.
    fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Val::Str(a), Val::Str(b)) => Some(a == b),
            (Val::Int(a), Val::Int(b)) => Some(a == b),
            (Val::Bool(a), Val::Bool(b)) => Some(a == b),
            (Val::None, Val::None) => Some(true),
            (Val::List(a), Val::List(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            (Val::Unknown | Val::Target(_) | Val::Made(_), _)
            | (_, Val::Unknown | Val::Target(_) | Val::Made(_)) => None,
            _ => Some(false),
        }
    }

    pub fn truth(&self) -> Option<bool> {
        match self {
            Val::None => Some(false),
            Val::Bool(value) => Some(*value),
            Val::Int(value) => Some(*value != 0),
            Val::Str(text) => Some(!text.is_empty()),
            Val::List(items) => Some(!items.is_empty()),
            Val::Dict(items) => Some(!items.is_empty()),
            _ => None,
        }
    }
}

pub(super) fn binary<'a>(op: Operator, left: Val<'a>, right: Val<'a>) -> Val<'a> {
    match (op, left, right) {
        (Operator::Add, Val::Str(a), Val::Str(b)) => Val::string(format!("{a}{b}")),
        (Operator::Add, Val::Str(a), Val::Unknown) => Val::Str(a),
        (Operator::Add | Operator::BitOr, Val::List(a), Val::List(b)) => {
            let mut items = a.to_vec();
            items.extend(b.iter().cloned());
            Val::list(items)
        }
        (Operator::Sub, Val::List(a), Val::List(b)) => {
            let kept = a.iter().filter(|item| !b.iter().any(|other| item.equals(other) == Some(true)));
            Val::list(kept.cloned().collect())
        }
        (Operator::BitOr, Val::Dict(a), Val::Dict(b)) => {
            let mut items = a.to_vec();
            items.extend(b.iter().cloned());
            Val::dict(items)
        }
        (Operator::Mod, Val::Str(template), values) => {
            let lookup = |name: &str| match &values {
                Val::Dict(items) => items.iter().rev().find(|(key, _)| &**key == name)?.1.display(),
                Val::List(items) => items.get(name.parse::<usize>().ok()?)?.display(),
                single if name == "0" => single.display(),
                _ => None,
            };
            Val::string(text::percent(&template, &lookup))
        }
        (Operator::Mult, Val::List(items), Val::Int(n)) | (Operator::Mult, Val::Int(n), Val::List(items)) => {
            let n = usize::try_from(n).unwrap_or(0);
            if n.saturating_mul(items.len()) > MAX_ITEMS {
                Val::Unknown
            } else {
                Val::list(items.iter().cycle().take(n * items.len()).cloned().collect())
            }
        }
        (Operator::Mult, Val::Str(text), Val::Int(n)) | (Operator::Mult, Val::Int(n), Val::Str(text)) => {
            let n = usize::try_from(n).unwrap_or(0);
            if n.saturating_mul(text.len()) > MAX_STRING { Val::Unknown } else { Val::string(text.repeat(n)) }
        }
        _ => Val::Unknown,
    }
}

pub(super) fn comparison<'a>(op: CmpOp, left: &Val<'a>, right: &Val<'a>) -> Val<'a> {
    let contains = || -> Option<bool> {
        match right {
            Val::List(items) => {
                let mut known = true;
                for item in items.iter() {
                    match left.equals(item) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => known = false,
                    }
                }
                known.then_some(false)
            }
            Val::Dict(items) => left.as_str().map(|name| items.iter().any(|(key, _)| &**key == name)),
            Val::Str(text) => left.as_str().map(|part| text.contains(part)),
            _ => None,
        }
    };
    let result = match op {
        CmpOp::Eq | CmpOp::Is => left.equals(right),
        CmpOp::NotEq | CmpOp::IsNot => left.equals(right).map(|equal| !equal),
        CmpOp::In => contains(),
        CmpOp::NotIn => contains().map(|found| !found),
        _ => None,
    };
    result.map_or(Val::Unknown, Val::Bool)
}
