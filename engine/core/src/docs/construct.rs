//! The signature of a class: of its constructor, written or generated (dataclass, NamedTuple, TypedDict, Enum).

use ruff_python_ast::{Expr, ExprCall};

use super::library::Library;
use super::program::{Base, ClassId, Function};
use super::scope::{Assigned, Binding, last_name};
use super::signature::{self, Field, fold};

/// Bases that bring no constructor arguments of their own.
const PLAIN_BASES: &[&str] = &[
    "object",
    "ABC",
    "Generic",
    "Protocol",
    "Hashable",
    "Sized",
    "Iterable",
    "Iterator",
    "Collection",
    "Container",
    "Callable",
    "Mapping",
    "MutableMapping",
    "Sequence",
    "MutableSequence",
    "SupportsInt",
    "SupportsFloat",
    "ContextManager",
    "AbstractContextManager",
];
const ENUM_BASES: &[&str] = &["Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "ReprEnum"];

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

impl<'a> Library<'a> {
    /// `(a, b=1)`, what follows the class's name when it is called.
    pub(super) fn constructor(&self, class: ClassId) -> String {
        if self.unknown_base(class, ENUM_BASES) {
            return "(value)".into();
        }
        let mro = self.program.mro(class).to_vec();
        for &owner in &mro {
            if let Some(signature) = self.written(owner) {
                return signature;
            }
            if let Some(call) = self.dataclass_decorator(owner) {
                return signature::fields(self.dataclass_fields(&mro, owner, call));
            }
            for base in self.program.bases(owner) {
                let Base::Unknown(name) = base else { continue };
                match last(name) {
                    "NamedTuple" => return signature::fields(self.own_fields(owner, false)),
                    "TypedDict" | "BaseModel" | "BaseSettings" | "Struct" => {
                        let keyword_only = last(name) != "Struct";
                        let owners = mro.iter().rev();
                        let all = owners.flat_map(|&owner| self.own_fields(owner, keyword_only)).collect();
                        return signature::fields(unique(all));
                    }
                    "namedtuple" => {
                        if let Some(signature) = self.namedtuple(owner) {
                            return signature;
                        }
                    }
                    _ => {}
                }
            }
        }
        let outside = mro.iter().any(|&owner| {
            self.program
                .bases(owner)
                .iter()
                .any(|base| matches!(base, Base::Unknown(name) if !PLAIN_BASES.contains(&last(name))))
        });
        if outside { "(*args, **kwargs)".into() } else { "()".into() }
    }

    /// Whether annotated names of the class body are fields (dataclass, NamedTuple, TypedDict, pydantic).
    pub(super) fn has_fields(&self, class: ClassId) -> bool {
        const BASES: &[&str] =
            &["NamedTuple", "TypedDict", "BaseModel", "BaseSettings", "Struct", "Protocol"];
        self.dataclass_decorator(class).is_some() || self.unknown_base(class, BASES)
    }

    /// Whether some class of the order has an unknown base of one of these names.
    fn unknown_base(&self, class: ClassId, names: &[&str]) -> bool {
        self.program.mro(class).iter().any(|&owner| {
            self.program
                .bases(owner)
                .iter()
                .any(|base| matches!(base, Base::Unknown(name) if names.contains(&last(name))))
        })
    }

    /// `__init__` or `__new__` of one class body (or of its stub).
    fn written(&self, owner: ClassId) -> Option<String> {
        let in_class = |id: ClassId, name: &str| match self.program.classes[id].scope.get(name) {
            Some(Binding::Function(defs)) => Some(Function {
                module: self.program.classes[id].module,
                class: Some(id),
                defs: defs.clone(),
            }),
            _ => None,
        };
        let find =
            |name: &str| in_class(owner, name).or_else(|| in_class(self.program.stub_class(owner)?, name));
        let general = |function: &Function<'a>| {
            let parameters = &function.main().parameters;
            parameters.args.len() + parameters.posonlyargs.len() <= 1 && parameters.vararg.is_some()
        };
        let function = match (find("__init__"), find("__new__")) {
            (Some(init), Some(new)) if general(&init) && !general(&new) => new,
            (Some(init), _) => init,
            (None, Some(new)) => new,
            (None, None) => return None,
        };
        let (file, def) = signature::best(self, &function);
        Some(signature::parameters(file, &def.parameters, true))
    }

    /// The decorator that makes a class a dataclass: `Some(None)` without arguments.
    fn dataclass_decorator(&self, owner: ClassId) -> Option<Option<&'a ExprCall>> {
        self.program.classes[owner].def.decorator_list.iter().find_map(|decorator| {
            let name = last_name(&decorator.expression)?;
            let attrs = matches!(name, "define" | "frozen" | "mutable" | "attrs")
                || (name == "s" && matches!(&decorator.expression, Expr::Attribute(_) | Expr::Call(_)));
            if !(name == "dataclass" || attrs) {
                return None;
            }
            Some(match &decorator.expression {
                Expr::Call(call) => Some(call),
                _ => None,
            })
        })
    }

    fn dataclass_fields(&self, mro: &[ClassId], owner: ClassId, call: Option<&'a ExprCall>) -> Vec<Field> {
        let keyword_only =
            |call: Option<&'a ExprCall>| call.is_some_and(|call| flag(call, "kw_only") == Some(true));
        let from = mro.iter().position(|&class| class == owner).unwrap_or(0);
        let mut all = Vec::new();
        for &class in mro[from..].iter().rev() {
            let options = if class == owner { Some(call) } else { self.dataclass_decorator(class) };
            if let Some(options) = options {
                all.extend(self.own_fields(class, keyword_only(options)));
            }
        }
        unique(all)
    }

    /// The annotated names of a class body as constructor parameters.
    fn own_fields(&self, owner: ClassId, keyword_only: bool) -> Vec<Field> {
        let class = &self.program.classes[owner];
        let file = self.program.modules[class.module].file;
        let mut keyword_only = keyword_only;
        let mut fields = Vec::new();
        for (name, binding) in class.scope.names() {
            let Binding::Value(assigned) = binding else { continue };
            let annotation = assigned.annotation.map(|annotation| fold(file.slice(annotation)));
            if annotation.as_deref().is_some_and(|text| last(text) == "KW_ONLY") {
                keyword_only = true;
                continue;
            }
            if annotation.as_deref().is_some_and(|text| text.trim_matches(['"', '\'']).contains("ClassVar")) {
                continue;
            }
            let Some((default, own_keyword_only)) = field_default(assigned, file) else { continue };
            if annotation.is_none() && !is_field_call(assigned) {
                continue;
            }
            let annotation = annotation.map(|text| {
                let inner = text.strip_prefix("InitVar[").and_then(|inner| inner.strip_suffix(']'));
                inner.map_or(text.clone(), str::to_owned)
            });
            fields.push(Field {
                name: name.to_owned(),
                annotation,
                default,
                keyword_only: own_keyword_only.unwrap_or(keyword_only),
            });
        }
        fields
    }

    /// `class X(namedtuple("X", "a b"))`.
    fn namedtuple(&self, owner: ClassId) -> Option<String> {
        let class = &self.program.classes[owner];
        class.def.arguments.as_deref()?.args.iter().find_map(|base| match base {
            Expr::Call(call) => self.namedtuple_call(class.module, call),
            _ => None,
        })
    }

    /// The signature of `namedtuple("X", "a b")` and `NamedTuple("X", [("a", int)])`.
    pub(super) fn namedtuple_call(&self, module: usize, call: &'a ExprCall) -> Option<String> {
        if !matches!(last_name(&call.func), Some("namedtuple" | "NamedTuple")) {
            return None;
        }
        let file = self.program.modules[module].file;
        let field = |name: String, annotation: Option<String>| Field {
            name,
            annotation,
            default: None,
            keyword_only: false,
        };
        let mut fields: Vec<Field> = match call.arguments.args.get(1)? {
            Expr::StringLiteral(names) => {
                let names = names.value.to_str().replace(',', " ");
                names.split_whitespace().map(|name| field(name.to_owned(), None)).collect()
            }
            Expr::List(ruff_python_ast::ExprList { elts, .. })
            | Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. }) => elts
                .iter()
                .filter_map(|element| match element {
                    Expr::StringLiteral(name) => Some(field(name.value.to_str().to_owned(), None)),
                    Expr::Tuple(pair) => match pair.elts.as_slice() {
                        [Expr::StringLiteral(name), annotation] => {
                            Some(field(name.value.to_str().to_owned(), Some(fold(file.slice(annotation)))))
                        }
                        _ => None,
                    },
                    _ => None,
                })
                .collect(),
            _ => return None,
        };
        let defaults = call
            .arguments
            .keywords
            .iter()
            .find(|keyword| keyword.arg.as_ref().is_some_and(|name| name.as_str() == "defaults"));
        if let Some(
            Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
            | Expr::List(ruff_python_ast::ExprList { elts, .. }),
        ) = defaults.map(|keyword| &keyword.value)
        {
            let skip = fields.len().saturating_sub(elts.len());
            for (field, default) in fields.iter_mut().skip(skip).zip(elts) {
                field.default = Some(fold(file.slice(default)));
            }
        }
        Some(signature::fields(fields))
    }
}

fn is_field_call(assigned: &Assigned<'_>) -> bool {
    assigned.value.is_some_and(|value| {
        matches!(value, Expr::Call(_)) && matches!(last_name(value), Some("field" | "ib" | "attrib"))
    })
}

/// The default of a field as text, and whether the field itself says it is keyword-only; `None` when the constructor
/// does not take it.
fn field_default(
    assigned: &Assigned<'_>,
    file: &super::parse::ParsedFile,
) -> Option<(Option<String>, Option<bool>)> {
    let Some(value) = assigned.value else { return Some((None, None)) };
    let Expr::Call(call) = value else { return Some((Some(fold(file.slice(value))), None)) };
    if !matches!(last_name(value), Some("field" | "Field" | "ib" | "attrib")) {
        return Some((Some(fold(file.slice(value))), None));
    }
    if flag(call, "init") == Some(false) {
        return None;
    }
    let named = |name: &str| {
        let keyword = call
            .arguments
            .keywords
            .iter()
            .find(|keyword| keyword.arg.as_ref().is_some_and(|argument| argument.as_str() == name));
        keyword.map(|keyword| fold(file.slice(&keyword.value)))
    };
    let positional = (last_name(value) == Some("Field"))
        .then(|| call.arguments.args.first().map(|first| fold(file.slice(first))))
        .flatten();
    let default = named("default").or(positional).filter(|default| default != "...");
    let made = named("default_factory").or_else(|| named("factory")).map(|factory| format!("{factory}()"));
    Some((default.or(made), flag(call, "kw_only")))
}

fn flag(call: &ExprCall, name: &str) -> Option<bool> {
    call.arguments.keywords.iter().find_map(|keyword| match (&keyword.arg, &keyword.value) {
        (Some(argument), Expr::BooleanLiteral(value)) if argument.as_str() == name => Some(value.value),
        _ => None,
    })
}

/// A field that a subclass declares again keeps its place and takes the later declaration.
fn unique(fields: Vec<Field>) -> Vec<Field> {
    let mut kept: Vec<Field> = Vec::new();
    for field in fields {
        match kept.iter_mut().find(|other| other.name == field.name) {
            Some(other) => *other = field,
            None => kept.push(field),
        }
    }
    kept
}
