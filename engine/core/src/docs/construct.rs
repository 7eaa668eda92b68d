//! The signature of a class: of its constructor, written or generated.

use ruff_python_ast::{Expr, Stmt, StmtFunctionDef};

use super::library::Library;
use super::program::{Base, ClassId, Function, Target};
use super::scope::{Binding, last_name};
use super::signature::{self, Kind, Parameter, Signature};

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
    "AsyncIterable",
    "AsyncIterator",
    "Awaitable",
    "Collection",
    "Container",
    "Reversible",
    "Callable",
    "Mapping",
    "MutableMapping",
    "Sequence",
    "MutableSequence",
    "Set",
    "AbstractSet",
    "MutableSet",
    "SupportsInt",
    "SupportsFloat",
    "SupportsIndex",
    "SupportsAbs",
    "SupportsRound",
    "ContextManager",
    "AbstractContextManager",
    "AsyncContextManager",
    "AbstractAsyncContextManager",
    "ContextDecorator",
];
const ENUM_BASES: &[&str] = &["Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "ReprEnum"];

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// How an object is made of a class that takes its constructor from one of Python's own, as `inspect.signature` gives it. Those that it
/// cannot tell (`str`, `int`, `dict`) are not here.
fn constructor_of_python(base: &str) -> Option<Signature> {
    use Kind::{KeywordOnly, PositionalOnly, Standard};
    let base = base.strip_prefix("builtins.").unwrap_or(base);
    let rows: &[(&str, Kind, &str)] = match base {
        "float" => &[("x", PositionalOnly, "0")],
        "list" | "set" | "frozenset" | "typing.List" | "typing.Set" | "typing.FrozenSet" => {
            &[("iterable", PositionalOnly, "()")]
        }
        "decimal.Decimal" => &[("value", Standard, "\"0\""), ("context", Standard, "None")],
        "uuid.UUID" => &[
            ("hex", Standard, "None"),
            ("bytes", Standard, "None"),
            ("bytes_le", Standard, "None"),
            ("fields", Standard, "None"),
            ("int", Standard, "None"),
            ("version", Standard, "None"),
            ("is_safe", KeywordOnly, "SafeUUID.unknown"),
        ],
        "ipaddress._BaseAddress" | "ipaddress._BaseNetwork" => &[],
        _ => return None,
    };
    let parameters = rows.iter().map(|(name, kind, default)| Parameter {
        name: (*name).to_owned(),
        kind: *kind,
        annotation: None,
        default: Some((*default).to_owned()),
    });
    Some(Signature { parameters: parameters.collect(), returns: None })
}

impl<'a> Library<'a> {
    /// `(a, b=1)`, what follows the class's name when it is called.
    pub(super) fn constructor(&self, class: ClassId) -> String {
        self.constructor_signature(class).to_string()
    }

    /// Whether a class is an enumeration.
    pub(super) fn is_enum(&self, class: ClassId) -> bool {
        self.unknown_base(class, ENUM_BASES)
    }

    pub(super) fn constructor_signature(&self, class: ClassId) -> Signature {
        if self.is_enum(class) {
            let value =
                Parameter { name: "value".into(), kind: Kind::Standard, annotation: None, default: None };
            return Signature { parameters: vec![value], returns: None };
        }
        if let Some(found) = self.metaclass_call(class).or_else(|| self.set_by_decorator(class)) {
            return found;
        }
        if self.is_typed_dict(class) {
            return self.typed_dict(class);
        }
        for &owner in self.program.mro(class) {
            let transform = self.transform(owner);
            let model = transform.is_some_and(|transform| transform.maker == super::fields::Maker::Model);
            if !model && let Some(found) = self.written_constructor(owner) {
                return found;
            }
            if let Some(transform) = transform
                && transform.init
            {
                return self.made_constructor(owner, transform);
            }
            for base in self.program.bases(owner) {
                let Base::Unknown(name) = base else { continue };
                match last(name) {
                    "NamedTuple" => return Signature::of_fields(self.plain_fields(owner, false)),
                    "Struct" => return self.structure(class, owner),
                    "namedtuple" => {
                        if let Some(found) = self.namedtuple_base(owner) {
                            return found;
                        }
                    }
                    _ => {
                        if let Some(found) = constructor_of_python(name) {
                            return found;
                        }
                    }
                }
            }
        }
        let outside = self.program.mro(class).iter().any(|&owner| {
            self.program
                .bases(owner)
                .iter()
                .any(|base| matches!(base, Base::Unknown(name) if !PLAIN_BASES.contains(&last(name))))
        });
        if outside { Signature::general() } else { Signature::default() }
    }

    /// msgspec's: positional fields of all classes, keyword-only where a class says so.
    fn structure(&self, class: ClassId, owner: ClassId) -> Signature {
        let mut fields: Vec<Parameter> = Vec::new();
        let from = self.program.mro(class).iter().position(|&found| found == owner).unwrap_or(0);
        for &id in self.program.mro(class)[..=from].iter().rev() {
            let arguments = self.program.classes[id].def.arguments.as_deref();
            let keyword_only = arguments.is_some_and(|arguments| {
                arguments.keywords.iter().any(|keyword| {
                    keyword.arg.as_ref().is_some_and(|name| name.as_str() == "kw_only")
                        && matches!(&keyword.value, Expr::BooleanLiteral(value) if value.value)
                })
            });
            for field in self.plain_fields(id, keyword_only) {
                match fields.iter_mut().find(|other| other.name == field.name) {
                    Some(other) => *other = field,
                    None => fields.push(field),
                }
            }
        }
        Signature::of_fields(fields)
    }

    /// Whether annotated names of the class body are fields (dataclass, NamedTuple, TypedDict, pydantic).
    pub(super) fn has_fields(&self, class: ClassId) -> bool {
        const BASES: &[&str] = &["NamedTuple", "TypedDict", "Struct", "Protocol"];
        self.transform(class).is_some() || self.unknown_base(class, BASES)
    }

    /// Whether some class of the order has an unknown base of one of these names.
    pub(super) fn unknown_base(&self, class: ClassId, names: &[&str]) -> bool {
        self.program.mro(class).iter().any(|&owner| {
            self.program
                .bases(owner)
                .iter()
                .any(|base| matches!(base, Base::Unknown(name) if names.contains(&last(name))))
        })
    }

    /// `__call__` of the metaclass, which stands before every constructor, where it says what it takes.
    fn metaclass_call(&self, class: ClassId) -> Option<Signature> {
        let meta = self.metaclass(class)?;
        let call = self.program.mro(meta).iter().find_map(|&owner| self.method_of(owner, "__call__"))?;
        let mut found = self.signature_of(&call);
        found.skip_first();
        found.returns = None;
        let named = found.parameters.iter().any(|p| !matches!(p.kind, Kind::Rest | Kind::Keywords));
        let rest = found.parameters.iter().any(|p| matches!(p.kind, Kind::Rest | Kind::Keywords));
        (named || !rest).then_some(found)
    }

    /// The `__init__` that a decorator of the class puts in.
    fn set_by_decorator(&self, id: ClassId) -> Option<Signature> {
        let class = &self.program.classes[id];
        class.def.decorator_list.iter().find_map(|decorator| {
            let called = match &decorator.expression {
                Expr::Call(call) => &*call.func,
                other => other,
            };
            let Some(Target::Function(function)) =
                self.program.resolve_expr(class.module, class.outer, called)
            else {
                return None;
            };
            let file = self.program.modules[function.module].file;
            let text = file.slice(function.main());
            if !text.contains(".__init__ =") || text.contains("wraps(") {
                return None;
            }
            let def = set_as_init(&function.main().body, 0)?;
            let mut found = signature::of_definition(file, def);
            found.skip_first();
            found.returns = None;
            (!found.is_general()).then_some(found)
        })
    }

    /// A method that a class body (or its stub) defines, or takes over by assignment.
    fn method_of(&self, id: ClassId, name: &str) -> Option<Function<'a>> {
        let find = |id: ClassId| {
            let class = &self.program.classes[id];
            match class.scope.get(name)? {
                Binding::Function(defs) => {
                    Some(Function { module: class.module, class: Some(id), defs: defs.clone() })
                }
                binding @ (Binding::Value(_) | Binding::Import(_)) => {
                    match self.program.target(class.module, Some(id), binding, 0)? {
                        Target::Function(function) => Some(function),
                        _ => None,
                    }
                }
                Binding::Class(_) => None,
            }
        };
        find(id).or_else(|| find(self.program.stub_class(id)?))
    }

    /// `__init__` or `__new__` of one class body (or of its stub).
    fn written_constructor(&self, owner: ClassId) -> Option<Signature> {
        let read = |name: &str| {
            let mut found = self.signature_of(&self.method_of(owner, name)?);
            let general = found.is_general();
            found.skip_first();
            found.returns = None;
            Some((found, general))
        };
        match (read("__init__"), read("__new__")) {
            (Some((_, true)), Some((new, false))) => Some(new),
            (Some((init, _)), _) => Some(init),
            (None, Some((new, _))) => Some(new),
            (None, None) => None,
        }
    }

    /// `class X(namedtuple("X", "a b"))`.
    fn namedtuple_base(&self, owner: ClassId) -> Option<Signature> {
        let class = &self.program.classes[owner];
        class.def.arguments.as_deref()?.args.iter().find_map(|base| match base {
            Expr::Call(call) => self.namedtuple_call(class.module, call),
            _ => None,
        })
    }
}

/// The function of a body that it assigns to `something.__init__`.
fn set_as_init(body: &[Stmt], depth: usize) -> Option<&StmtFunctionDef> {
    let assigned = body.iter().find_map(|stmt| match stmt {
        Stmt::Assign(assign) => assign
            .targets
            .iter()
            .any(|target| matches!(target, Expr::Attribute(target) if target.attr.as_str() == "__init__"))
            .then(|| last_name(&assign.value))
            .flatten(),
        _ => None,
    });
    body.iter().find_map(|stmt| match stmt {
        Stmt::FunctionDef(def) if assigned == Some(def.name.as_str()) => Some(def),
        Stmt::FunctionDef(def) if depth < 4 => set_as_init(&def.body, depth + 1),
        _ => None,
    })
}
