//! The parameters in a documented signature.

use ruff_python_ast::{Expr, StmtFunctionDef};
use ruff_text_size::Ranged;

use crate::python;

/// What a callable takes, and what it gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signature {
    /// Parameters that a position fills, in order, with whether each must be given.
    pub positional: Vec<(Box<str>, bool)>,
    /// How many of them, from the first, cannot be given by name.
    pub positional_only: usize,
    /// Parameters that only a name fills, with whether each must be given.
    pub keyword_only: Vec<(Box<str>, bool)>,
    /// `*args`.
    pub rest: bool,
    /// `**kwargs`.
    pub keywords: bool,
    /// The text of the return annotation.
    pub returns: Option<Box<str>>,
}

impl Signature {
    /// Reads `(a, b: int = 1, *, c) -> d`; `None` where it is not Python.
    pub fn parse(text: &str) -> Option<Self> {
        python::read_signature(text, |def, source| Some(Self::of(def, source)))
    }

    fn of(def: &StmtFunctionDef, source: &str) -> Self {
        let list = &def.parameters;
        let entry = |parameter: &ruff_python_ast::ParameterWithDefault| {
            (parameter.parameter.name.as_str().into(), parameter.default.is_none())
        };
        Self {
            positional: list.posonlyargs.iter().chain(&list.args).map(entry).collect(),
            positional_only: list.posonlyargs.len(),
            keyword_only: list.kwonlyargs.iter().map(entry).collect(),
            rest: list.vararg.is_some(),
            keywords: list.kwarg.is_some(),
            returns: def.returns.as_deref().map(|returns| class_name(returns, source).into()),
        }
    }

    /// Names that may be given as keywords.
    pub fn keyword_names(&self) -> impl Iterator<Item = &str> {
        let named = self.positional.iter().skip(self.positional_only).chain(&self.keyword_only);
        named.map(|(name, _)| &**name)
    }

    /// Whether `name` may be given as a keyword.
    pub fn takes(&self, name: &str) -> bool {
        self.keywords || self.keyword_names().any(|other| other == name)
    }
}

/// The dotted name in an annotation: of `"X"` and `Optional[X]`, `X | None`, `Type` alone; else the text as it stands.
fn class_name(annotation: &Expr, source: &str) -> String {
    match annotation {
        Expr::StringLiteral(text) => {
            let inner = text.value.to_str().trim();
            let optional = inner.strip_prefix("Optional[").and_then(|rest| rest.strip_suffix(']'));
            optional.or_else(|| inner.strip_suffix("| None")).unwrap_or(inner).trim().to_owned()
        }
        Expr::Subscript(subscript) if matches!(&*subscript.value, Expr::Name(name) if name.id == "Optional") => {
            class_name(&subscript.slice, source)
        }
        Expr::BinOp(either) => match (&*either.left, &*either.right) {
            (one, Expr::NoneLiteral(_)) | (Expr::NoneLiteral(_), one) => class_name(one, source),
            _ => String::new(),
        },
        other => {
            let range = other.range();
            source.get(range.start().to_usize()..range.end().to_usize()).unwrap_or("").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signature;

    #[test]
    fn signatures_are_read() {
        let signature =
            Signature::parse("(a, /, b: Dict[str, int] = {}, *rest, c, d=1, **more) -> \"Slate\"").unwrap();
        assert_eq!(signature.positional, [("a".into(), true), ("b".into(), false)]);
        assert_eq!(signature.keyword_names().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(signature.rest && signature.keywords && signature.takes("anything"));
        assert_eq!(signature.returns.as_deref(), Some("Slate"));
        for (text, returns) in [
            ("() -> Optional[Slate]", "Slate"),
            ("() -> Slate | None", "Slate"),
            ("() -> 'Slate | None'", "Slate"),
            ("() -> Slate | Pane", ""),
            ("() -> List[Slate]", "List[Slate]"),
        ] {
            assert_eq!(Signature::parse(text).unwrap().returns.as_deref(), Some(returns), "{text}");
        }
        for bad in ["", "a, b", "(a", "(a))", "(a):\n  pass\ndef g()", "(a): pass; x = (1)", "(a, b=)"] {
            assert_eq!(Signature::parse(bad), None, "{bad}");
        }
    }
}
