//! Constructors of classes that are dictionaries or tuples with names (`TypedDict`, `namedtuple`), and of models made by a call.

use ruff_python_ast::{Expr, ExprCall};

use super::eval::Frame;
use super::fields::{keyword, unwrapped};
use super::library::Library;
use super::program::ClassId;
use super::scope::{Assigned, Binding, last_name};
use super::signature::{Kind, Parameter, Signature, fold};
use super::value::Val;

impl<'a> Library<'a> {
    /// Whether a class is a `TypedDict`.
    pub(super) fn is_typed_dict(&self, id: ClassId) -> bool {
        self.unknown_base(id, &["TypedDict"])
    }

    /// The keys of a `TypedDict` as keyword arguments; a key that may be left out has `...` for its default.
    pub(super) fn typed_dict(&self, id: ClassId) -> Signature {
        let mut keys: Vec<Parameter> = Vec::new();
        for &owner in self.program.mro(id).iter().rev() {
            let class = &self.program.classes[owner];
            let file = self.program.modules[class.module].file;
            let total = class.def.arguments.as_deref().is_none_or(|arguments| {
                !arguments.keywords.iter().any(|keyword| {
                    keyword.arg.as_ref().is_some_and(|name| name.as_str() == "total")
                        && matches!(&keyword.value, Expr::BooleanLiteral(value) if !value.value)
                })
            });
            for (name, binding) in class.scope.names() {
                let Binding::Value(Assigned { annotation: Some(annotation), .. }) = binding else { continue };
                let mut text = unwrapped(fold(file.slice(*annotation)), "ReadOnly");
                let mut needed = total;
                for (wrapper, is_needed) in [("NotRequired", false), ("Required", true)] {
                    let inner = unwrapped(text.clone(), wrapper);
                    if inner != text {
                        (text, needed) = (inner, is_needed);
                    }
                }
                let key = Parameter {
                    name: name.to_owned(),
                    kind: Kind::KeywordOnly,
                    annotation: Some(unwrapped(text, "ReadOnly")),
                    default: (!needed).then(|| "...".into()),
                };
                match keys.iter_mut().find(|other| other.name == key.name) {
                    Some(other) => *other = key,
                    None => keys.push(key),
                }
            }
        }
        Signature { parameters: keys, returns: None }
    }

    /// The signature of pydantic's `create_model("X", a=(int, 1), b=(str, ...))`.
    pub(super) fn model_call(&self, module: usize, call: &'a ExprCall) -> Option<Signature> {
        if last_name(&call.func) != Some("create_model") || keyword(call, "__base__").is_some() {
            return None;
        }
        let file = self.program.modules[module].file;
        let fields = call.arguments.keywords.iter().filter_map(|field| {
            let name = field.arg.as_ref().filter(|name| !name.starts_with('_'))?;
            let (annotation, default) = match &field.value {
                Expr::Tuple(pair) => (pair.elts.first(), pair.elts.get(1)),
                other => (None, Some(other)),
            };
            let default = default.map(|default| fold(file.slice(default))).filter(|default| default != "...");
            let annotation = annotation.map(|annotation| fold(file.slice(annotation)));
            Some(Parameter { name: name.to_string(), kind: Kind::KeywordOnly, annotation, default })
        });
        Some(Signature::of_fields(fields.collect()))
    }

    /// The signature of `namedtuple("X", "a b")` and `NamedTuple("X", [("a", int)])`.
    pub(super) fn namedtuple_call(&self, module: usize, call: &'a ExprCall) -> Option<Signature> {
        if !matches!(last_name(&call.func), Some("namedtuple" | "NamedTuple")) {
            return None;
        }
        let file = self.program.modules[module].file;
        let mut frame = Frame::new(module, None);
        let field = |name: &str, annotation: Option<String>| Parameter {
            name: name.to_owned(),
            kind: Kind::Standard,
            annotation,
            default: None,
        };
        let listed = call.arguments.args.get(1).or_else(|| keyword(call, "field_names"))?;
        let pairs = match listed {
            Expr::List(ruff_python_ast::ExprList { elts, .. })
            | Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. }) => elts.as_slice(),
            _ => &[],
        };
        let mut fields: Vec<Parameter> = pairs
            .iter()
            .filter_map(|pair| match pair {
                Expr::Tuple(pair) => match pair.elts.as_slice() {
                    [Expr::StringLiteral(name), annotation] => {
                        Some(field(name.value.to_str(), Some(fold(file.slice(annotation)))))
                    }
                    _ => None,
                },
                _ => None,
            })
            .collect();
        if fields.is_empty() {
            match self.eval(listed, &mut frame) {
                Val::Str(names) => {
                    fields.extend(names.replace(',', " ").split_whitespace().map(|name| field(name, None)));
                }
                Val::List(items) => {
                    fields.extend(items.iter().filter_map(Val::as_str).map(|name| field(name, None)));
                }
                _ => return None,
            }
        }
        if let Some(defaults) = keyword(call, "defaults") {
            let texts: Vec<String> = match defaults {
                Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
                | Expr::List(ruff_python_ast::ExprList { elts, .. }) => {
                    elts.iter().map(|item| fold(file.slice(item))).collect()
                }
                computed => match self.eval(computed, &mut frame) {
                    Val::List(items) => {
                        items.iter().map(|item| item.display().unwrap_or_else(|| "...".into())).collect()
                    }
                    // How many is not known: all of them, as far as a caller need care.
                    _ => vec!["...".into(); fields.len()],
                },
            };
            let skip = fields.len().saturating_sub(texts.len());
            for (field, default) in fields.iter_mut().skip(skip).zip(texts) {
                field.default = Some(default);
            }
        }
        Some(Signature::of_fields(fields))
    }
}
