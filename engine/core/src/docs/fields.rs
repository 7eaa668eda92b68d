//! Classes whose constructor is made of their annotated names: dataclasses, attrs, pydantic, and whatever says by
//! `dataclass_transform` that it works like them.

use ruff_python_ast::{Expr, ExprCall, Stmt};

use super::library::Library;
use super::program::{Base, ClassId, Target};
use super::scope::{Assigned, Binding, last_name};
use super::signature::{Kind, Parameter, Signature, fold};

/// Who makes the constructor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Dataclass,
    /// `attr.s` without `auto_attribs` takes what `attr.ib()` is assigned to, the others annotated names.
    Attrs {
        annotated: bool,
    },
    /// pydantic: keyword arguments by their aliases.
    Model,
}

/// How a class gets its constructor.
#[derive(Clone, Copy)]
pub(super) struct Transform {
    pub maker: Maker,
    keyword_only: bool,
    /// `init=False`: it makes none.
    pub init: bool,
}

/// Where pydantic's models begin.
const MODELS: &[&str] = &["BaseModel", "BaseSettings", "RootModel", "SQLModel", "GenericModel"];

impl<'a> Library<'a> {
    /// What makes the constructor of a class, by its own decorators or by what it inherits.
    pub(super) fn transform(&self, id: ClassId) -> Option<Transform> {
        let class = &self.program.classes[id];
        if self.is_model(id) {
            return Some(Transform { maker: Maker::Model, keyword_only: true, init: true });
        }
        for decorator in &class.def.decorator_list {
            if let Some(found) = self.decorating_transform(class.module, class.outer, &decorator.expression) {
                return Some(found);
            }
        }
        self.inherited_transform(id)
    }

    fn decorating_transform(
        &self,
        module: usize,
        outer: Option<ClassId>,
        decorator: &'a Expr,
    ) -> Option<Transform> {
        let (called, call) = match decorator {
            Expr::Call(call) => (&*call.func, Some(call)),
            other => (other, None),
        };
        let written = last_name(called)?;
        let named = |name: &str, package: &str| {
            let maker = match (package, name) {
                ("attr" | "attrs", "define" | "frozen" | "mutable" | "dataclass") => {
                    Maker::Attrs { annotated: true }
                }
                ("attr" | "attrs", "s" | "attrs" | "attributes") => Maker::Attrs {
                    annotated: call.is_some_and(|call| flag(call, "auto_attribs") == Some(true)),
                },
                (_, "dataclass") => Maker::Dataclass,
                _ => return None,
            };
            Some(Transform::new(maker, call, false))
        };
        match self.program.resolve_expr(module, outer, called) {
            Some(Target::External(name)) => named(last(&name), name.split('.').next().unwrap_or("")),
            Some(Target::Function(function)) => {
                let top = self.module_name_of(function.module).split('.').next().unwrap_or("");
                if let Some(found) = named(function.main().name.as_str(), top) {
                    return Some(found);
                }
                let file = self.program.modules[function.module].file;
                let of_typing = transforming(&function.main().decorator_list)
                    .map(|options| options.is_some_and(|call| flag(call, "kw_only_default") == Some(true)));
                if let Some(keyword_only) = of_typing {
                    return Some(Transform::new(Maker::Dataclass, call, keyword_only));
                }
                file.slice(function.main())
                    .contains("dataclass(")
                    .then(|| Transform::new(Maker::Dataclass, call, false))
            }
            // `frozen = partial(dataclass, frozen=True)`
            Some(Target::Value(value)) => {
                let Some(Expr::Call(partial)) = value.assigned.value else { return None };
                if last_name(&partial.func) != Some("partial") {
                    return None;
                }
                let mut found =
                    self.decorating_transform(value.module, None, partial.arguments.args.first()?)?;
                found.keyword_only |= flag(partial, "kw_only") == Some(true);
                found.init &= flag(partial, "init") != Some(false);
                Some(found)
            }
            Some(Target::Class(id)) => named(self.program.classes[id].def.name.as_str(), ""),
            Some(Target::Module(_)) | None => {
                let package = match called {
                    Expr::Attribute(attribute) => last_name(&attribute.value).unwrap_or(""),
                    _ => "attr",
                };
                named(written, package)
            }
        }
    }

    /// `@dataclass_transform` on a base class or on its metaclass.
    fn inherited_transform(&self, id: ClassId) -> Option<Transform> {
        let options = self
            .program
            .mro(id)
            .iter()
            .skip(1)
            .find_map(|&base| transforming(&self.program.classes[base].def.decorator_list));
        let options = options.or_else(|| {
            let meta = self.metaclass(id)?;
            let metas = self.program.mro(meta).iter();
            metas.copied().find_map(|meta| transforming(&self.program.classes[meta].def.decorator_list))
        })?;
        let keyword_only = options.is_some_and(|call| flag(call, "kw_only_default") == Some(true));
        let mut found = Transform::new(Maker::Dataclass, None, keyword_only);
        let arguments = self.program.classes[id].def.arguments.as_deref();
        for keyword in arguments.into_iter().flat_map(|arguments| &arguments.keywords) {
            if let (Some(name), Expr::BooleanLiteral(value)) = (&keyword.arg, &keyword.value) {
                match name.as_str() {
                    "kw_only" => found.keyword_only = value.value,
                    "init" => found.init = value.value,
                    _ => {}
                }
            }
        }
        Some(found)
    }

    /// The metaclass that a class or one of its bases names.
    pub(super) fn metaclass(&self, id: ClassId) -> Option<ClassId> {
        self.program.mro(id).iter().find_map(|&owner| {
            let class = &self.program.classes[owner];
            let keywords = &class.def.arguments.as_deref()?.keywords;
            let keyword = keywords
                .iter()
                .find(|keyword| keyword.arg.as_ref().is_some_and(|name| name.as_str() == "metaclass"))?;
            match self.program.resolve_expr(class.module, class.outer, &keyword.value) {
                Some(Target::Class(meta)) if meta != owner => Some(meta),
                _ => None,
            }
        })
    }

    /// Whether a class is one of pydantic's models.
    fn is_model(&self, id: ClassId) -> bool {
        self.program.mro(id).iter().any(|&owner| {
            let class = &self.program.classes[owner];
            let known = MODELS.contains(&class.def.name.as_str())
                && self
                    .module_name_of(class.module)
                    .split('.')
                    .next()
                    .is_some_and(|top| top.starts_with("pydantic"));
            known && owner != id
                || self
                    .program
                    .bases(owner)
                    .iter()
                    .any(|base| matches!(base, Base::Unknown(name) if MODELS.contains(&last(name))))
        })
    }

    /// The signature of a constructor made of fields: of `owner`, which `transform` makes, as the first of `mro` that has one.
    pub(super) fn made_constructor(&self, owner: ClassId, transform: Transform) -> Signature {
        let mro = self.program.mro(owner).to_vec();
        let mut fields: Vec<Field> = Vec::new();
        for &class in mro.iter().rev() {
            let of_class = if class == owner { Some(transform) } else { self.transform(class) };
            let of_class = match (transform.maker, of_class) {
                // Every base of a model may declare fields.
                (Maker::Model, None) => Some(transform),
                (_, found) => {
                    found.filter(|found| found.maker == transform.maker || transform.maker != Maker::Model)
                }
            };
            let Some(of_class) = of_class else { continue };
            for field in self.fields_of(class, of_class) {
                // A field that a subclass declares again keeps its place and takes the later declaration.
                match fields.iter_mut().find(|other| other.name == field.name) {
                    Some(other) => *other = field,
                    None => fields.push(field),
                }
            }
        }
        if transform.maker == Maker::Model {
            return self.model_constructor(owner, fields);
        }
        let parameters = fields.into_iter().filter(|field| field.init).map(|field| field.parameter).collect();
        Signature::of_fields(parameters)
    }

    /// pydantic's: what a written `__init__` takes, then the fields by keyword where it takes the rest as `**data`.
    fn model_constructor(&self, owner: ClassId, fields: Vec<Field>) -> Signature {
        let written = self.program.mro(owner).iter().find_map(|&class| {
            let Some(Binding::Function(defs)) = self.program.classes[class].scope.get("__init__") else {
                return None;
            };
            let module = self.program.classes[class].module;
            let function = super::program::Function { module, class: Some(class), defs: defs.clone() };
            let mut found = self.signature_of(&function);
            found.skip_first();
            found.returns = None;
            Some(found)
        });
        let mut signature = match written {
            Some(written) if written.parameters.iter().all(|p| p.kind != Kind::Keywords) => return written,
            Some(written) => written,
            None => Signature::default(),
        };
        let rest = signature.parameters.pop_if(|last| last.kind == Kind::Keywords);
        for mut field in fields.into_iter().filter(|field| field.init) {
            // An alias that is no name cannot be written in a call.
            if !is_argument(&field.parameter.name) {
                field.parameter.name = field.name;
            }
            if !signature.parameters.iter().any(|parameter| parameter.name == field.parameter.name) {
                signature.parameters.push(field.parameter);
            }
        }
        if self.model_allows_extra(owner) {
            let name = match rest {
                Some(rest) if rest.name != "data" => rest.name,
                _ => "extra_data".into(),
            };
            signature.parameters.push(Parameter {
                name,
                kind: Kind::Keywords,
                annotation: None,
                default: None,
            });
        }
        signature
    }

    fn model_allows_extra(&self, id: ClassId) -> bool {
        self.program.mro(id).iter().any(|&owner| {
            let class = &self.program.classes[owner];
            let file = self.program.modules[class.module].file;
            let config = class.scope.names().find_map(|(name, binding)| match (name, binding) {
                ("model_config", Binding::Value(assigned)) => assigned.value.map(|value| file.slice(value)),
                ("Config", Binding::Class(def)) => Some(file.slice(*def)),
                _ => None,
            });
            config.is_some_and(|text| {
                let text: String = text.split_whitespace().collect();
                [
                    "extra=\"allow\"",
                    "extra='allow'",
                    "\"extra\":\"allow\"",
                    "'extra':'allow'",
                    "extra=Extra.allow",
                ]
                .iter()
                .any(|part| text.contains(part))
            })
        })
    }

    /// The fields that one class body declares.
    fn fields_of(&self, owner: ClassId, transform: Transform) -> Vec<Field> {
        let class = &self.program.classes[owner];
        let file = self.program.modules[class.module].file;
        let mut keyword_only = transform.keyword_only;
        let mut fields = Vec::new();
        for (name, binding) in class.scope.names() {
            let Binding::Value(assigned) = binding else { continue };
            let annotation = assigned.annotation.map(|annotation| fold(file.slice(annotation)));
            let bare = annotation.as_deref().map(|text| text.trim_matches(['"', '\'']));
            if bare.is_some_and(|text| last(text) == "KW_ONLY") {
                keyword_only = true;
                continue;
            }
            let outer = bare.map(|text| last(text.split('[').next().unwrap_or(text)));
            if outer == Some("ClassVar") {
                continue;
            }
            let call = self.field_call(owner, assigned);
            let declared = match transform.maker {
                Maker::Attrs { annotated: false } => call.is_some(),
                Maker::Attrs { annotated: true } => annotation.is_some() || call.is_some(),
                Maker::Dataclass => annotation.is_some(),
                Maker::Model => annotation.is_some() && !name.starts_with('_') && name != "model_config",
            };
            if !declared {
                continue;
            }
            let mut field = Field {
                name: name.to_owned(),
                init: true,
                parameter: Parameter {
                    name: name.to_owned(),
                    kind: if keyword_only { Kind::KeywordOnly } else { Kind::Standard },
                    annotation: annotation.map(|text| unwrapped(text, "InitVar")),
                    default: None,
                },
            };
            match (call, assigned.value) {
                (Some(call), _) => field.described(call, file, transform.maker),
                (None, Some(value)) => field.parameter.default = Some(fold(file.slice(value))),
                (None, None) => {}
            }
            if transform.maker == Maker::Model {
                for call in assigned.annotation.into_iter().flat_map(annotated_calls) {
                    let default = field.parameter.default.clone();
                    field.described(call, file, transform.maker);
                    field.parameter.default = default.or(field.parameter.default);
                }
            }
            if let Maker::Attrs { .. } = transform.maker {
                // `@x.default` on a method gives the default of `x`.
                if field.parameter.default.is_none() && defaulted(&class.def.body, name) {
                    field.parameter.default = Some("...".into());
                }
                if field.parameter.name == name {
                    field.parameter.name = if name.starts_with("__") {
                        format!("{}{name}", class.def.name.trim_start_matches('_'))
                    } else {
                        name.trim_start_matches('_').to_owned()
                    };
                }
            }
            fields.push(field);
        }
        fields
    }

    /// The call of `field()` and its kin behind an assignment; a function of the library that hands one back counts as such.
    fn field_call(&self, owner: ClassId, assigned: &Assigned<'a>) -> Option<&'a ExprCall> {
        let Some(Expr::Call(call)) = assigned.value else { return None };
        let name = last_name(&call.func)?;
        if matches!(
            name,
            "field" | "Field" | "ib" | "attrib" | "PrivateAttr" | "mapped_column" | "relationship"
        ) {
            return Some(call);
        }
        let class = &self.program.classes[owner];
        let Some(Target::Function(function)) =
            self.program.resolve_expr(class.module, class.outer, &call.func)
        else {
            return None;
        };
        function.main().body.iter().find_map(|stmt| match stmt {
            Stmt::Return(result) => match result.value.as_deref() {
                Some(Expr::Call(inner))
                    if matches!(last_name(&inner.func), Some("field" | "Field" | "ib")) =>
                {
                    Some(inner)
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The fields of a `NamedTuple` or `Struct` body.
    pub(super) fn plain_fields(&self, id: ClassId, keyword_only: bool) -> Vec<Parameter> {
        let transform = Transform { maker: Maker::Dataclass, keyword_only, init: true };
        let fields = self.fields_of(id, transform).into_iter();
        fields.filter(|field| field.init).map(|field| field.parameter).collect()
    }
}

impl Transform {
    fn new(maker: Maker, call: Option<&ExprCall>, keyword_only: bool) -> Self {
        let option = |name: &str| call.and_then(|call| flag(call, name));
        Transform {
            maker,
            keyword_only: option("kw_only").unwrap_or(keyword_only),
            init: option("init") != Some(false),
        }
    }
}

struct Field {
    /// As the class body names it.
    name: String,
    init: bool,
    parameter: Parameter,
}

impl Field {
    /// Takes over what `field(...)` says.
    fn described(&mut self, call: &ExprCall, file: &super::parse::ParsedFile, maker: Maker) {
        if flag(call, "init") == Some(false) || last_name(&call.func) == Some("PrivateAttr") {
            self.init = false;
        }
        let named = |name: &str| keyword(call, name).map(|value| fold(file.slice(value)));
        let positional = matches!(last_name(&call.func), Some("Field" | "ib" | "attrib"))
            .then(|| call.arguments.args.first().map(|first| fold(file.slice(first))))
            .flatten();
        let default = named("default").or(positional).filter(|default| {
            default != "..."
                && !matches!(last(default), "NOTHING" | "MISSING" | "PydanticUndefined" | "Undefined")
        });
        let made =
            named("default_factory").or_else(|| named("factory")).map(|factory| format!("{factory}()"));
        self.parameter.default = default.or(made);
        match flag(call, "kw_only") {
            Some(true) => self.parameter.kind = Kind::KeywordOnly,
            Some(false) => self.parameter.kind = Kind::Standard,
            None => {}
        }
        let aliases: &[&str] = match maker {
            Maker::Model => &["alias", "validation_alias"],
            Maker::Attrs { .. } => &["alias"],
            Maker::Dataclass => &[],
        };
        let alias = aliases.iter().find_map(|name| match keyword(call, name) {
            Some(Expr::StringLiteral(alias)) => Some(alias.value.to_str().to_owned()),
            _ => None,
        });
        if let Some(alias) = alias {
            self.parameter.name = alias;
        }
    }
}

/// The calls of `Field` in `Annotated[type, Field(...)]`.
fn annotated_calls(annotation: &Expr) -> Vec<&ExprCall> {
    let Expr::Subscript(subscript) = annotation else { return Vec::new() };
    if last_name(&subscript.value) != Some("Annotated") {
        return Vec::new();
    }
    let Expr::Tuple(parts) = &*subscript.slice else { return Vec::new() };
    let calls = parts.elts.iter().skip(1).filter_map(|part| match part {
        Expr::Call(call) if last_name(&call.func) == Some("Field") => Some(call),
        _ => None,
    });
    calls.collect()
}

/// `dataclass_transform` among decorators: `Some(None)` without a call.
fn transforming(decorators: &[ruff_python_ast::Decorator]) -> Option<Option<&ExprCall>> {
    decorators.iter().find_map(|decorator| {
        let name = last_name(&decorator.expression)?;
        matches!(name, "dataclass_transform" | "__dataclass_transform__").then_some(
            match &decorator.expression {
                Expr::Call(call) => Some(call),
                _ => None,
            },
        )
    })
}

/// Whether a method below `@name.default` is among the statements of a class.
fn defaulted(body: &[Stmt], name: &str) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::FunctionDef(def) => def.decorator_list.iter().any(|decorator| {
            matches!(&decorator.expression, Expr::Attribute(attribute)
                if attribute.attr.as_str() == "default"
                    && matches!(&*attribute.value, Expr::Name(owner) if owner.id.as_str() == name))
        }),
        _ => false,
    })
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `X` of `Wrapper[X]`, qualified or not; anything else as it is.
pub(super) fn unwrapped(text: String, wrapper: &str) -> String {
    let inner = text.strip_suffix(']').and_then(|text| text.split_once('['));
    match inner {
        Some((outer, inner)) if last(outer) == wrapper => inner.to_owned(),
        _ => text,
    }
}

/// Whether a name can be written before `=` in a call.
fn is_argument(name: &str) -> bool {
    super::layout::is_identifier(name) && !crate::python::is_keyword(name)
}

pub(super) fn keyword<'a>(call: &'a ExprCall, name: &str) -> Option<&'a Expr> {
    let mut keywords = call.arguments.keywords.iter();
    keywords
        .find(|keyword| keyword.arg.as_ref().is_some_and(|argument| argument.as_str() == name))
        .map(|keyword| &keyword.value)
}

pub(super) fn flag(call: &ExprCall, name: &str) -> Option<bool> {
    match keyword(call, name) {
        Some(Expr::BooleanLiteral(value)) => Some(value.value),
        _ => None,
    }
}
