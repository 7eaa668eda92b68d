//! What decorators make of a function: which signature its callers see, and whether it is a property.

use ruff_python_ast::{Decorator, Expr, ExprCall, Stmt, StmtFunctionDef};

use super::library::Library;
use super::members::MadeKind;
use super::program::{Base, ClassId, Function, ModId, Target};
use super::scope::{Binding, last_name};
use super::signature::{self, Kind, Parameter, Signature};

/// Decorators within decorators that are followed.
const MAX_DEPTH: usize = 8;
/// Text by which a decorator hands the signature of what it wraps on.
const KEEPS: &[&str] =
    &["wraps(", "update_wrapper", "__signature__", "__wrapped__", "decorate(", "decorator("];

/// What a function hands back.
enum Returned<'a> {
    /// What it was given, or something like it.
    Same,
    /// A function defined in it.
    Inner(&'a StmtFunctionDef),
    /// What a function defined in it makes of what was given: `return wrap(function)`.
    Applied(&'a StmtFunctionDef),
    Unknown,
}

impl<'a> Library<'a> {
    /// The signature of a function as its callers see it, the receiver included.
    pub(super) fn signature_of(&self, function: &Function<'a>) -> Signature {
        let mut found = self.expanded(signature::written(self, function), function);
        for decorator in function.main().decorator_list.iter().rev() {
            self.decorate(function, decorator, &mut found);
        }
        found
    }

    fn decorate(&self, function: &Function<'a>, decorator: &'a Decorator, found: &mut Signature) {
        let (called, factory) = match &decorator.expression {
            Expr::Call(call) => (&*call.func, true),
            other => (other, false),
        };
        match self.program.resolve_expr(function.module, function.class, called) {
            Some(Target::Function(decorator)) if !self.is_dependency(decorator.module) => {
                self.apply(&decorator, factory, found);
            }
            Some(Target::Class(id)) if !factory || self.wraps_what_it_is_given(id) => {
                self.apply_class(id, found)
            }
            Some(Target::Value(value)) => {
                // `deco = Decorator(...)`: an object that is called with the function.
                if let Some(Expr::Call(call)) = value.assigned.value
                    && let Some(Target::Class(id)) =
                        self.program.resolve_expr(value.module, value.class, &call.func)
                    && let Some(Binding::Function(defs)) = self.program.classes[id].scope.get("__call__")
                {
                    let module = self.program.classes[id].module;
                    self.apply(&Function { module, class: Some(id), defs: defs.clone() }, factory, found);
                }
            }
            _ => {}
        }
    }

    fn is_dependency(&self, module: ModId) -> bool {
        self.program.modules[module].file.dependency
    }

    fn apply(&self, decorator: &Function<'a>, factory: bool, found: &mut Signature) {
        let file = self.program.modules[decorator.module].file;
        if let Some(drop) = self.concatenated(decorator) {
            for _ in 0..drop {
                found.skip_first();
            }
            return;
        }
        if KEEPS.iter().any(|text| file.slice(decorator.main()).contains(text)) {
            return;
        }
        let mut at = decorator.main();
        let mut inner = None;
        for level in 0..MAX_DEPTH {
            match returned(at) {
                Returned::Inner(next) => {
                    inner = Some(next);
                    if level == usize::from(factory) {
                        break;
                    }
                    at = next;
                }
                Returned::Applied(next) if !factory => {
                    // Used without arguments, it calls the decorator inside itself.
                    at = next;
                }
                Returned::Applied(next) => at = next,
                Returned::Same | Returned::Unknown => return,
            }
        }
        let Some(inner) = inner else { return };
        let made = signature::of_definition(file, inner);
        if !made.is_general() {
            *found = made;
        }
    }

    /// How many leading arguments a decorator gives by itself, as its annotations say it: it takes
    /// `Callable[Concatenate[A, P], R]` and hands back `Callable[P, R]`.
    fn concatenated(&self, decorator: &Function<'a>) -> Option<usize> {
        let def = decorator.main();
        let taken = def.parameters.iter().find_map(|parameter| leading(parameter.annotation()?))?;
        let given = leading(def.returns.as_deref()?)?;
        (taken > given).then(|| taken - given)
    }

    /// A class used as a decorator: objects of it are called in the function's place.
    fn apply_class(&self, id: ClassId, found: &mut Signature) {
        let class = &self.program.classes[id];
        let file = self.program.modules[class.module].file;
        let text = file.slice(class.def);
        if let Some(Binding::Function(defs)) = class.scope.get("__signature__") {
            // A signature made of that of the function and of parameters that are spelled out.
            if let Some(def) = defs.last() {
                spelled_out(file, &def.body, found);
            }
            return;
        }
        if KEEPS.iter().any(|kept| text.contains(kept)) || self.is_dependency(class.module) {
            return;
        }
        if let Some(Target::Function(call)) = self.program.attribute(&Target::Class(id), "__call__", 0)
            && class.scope.get("__get__").is_none()
        {
            let file = self.program.modules[call.module].file;
            let mut made = signature::of_definition(file, call.main());
            made.skip_first();
            if !made.is_general() {
                *found = made;
            }
        }
    }

    /// Whether `Class(...)` in a decorator is itself a decorator of the function (`__new__` or a metaclass hand on what they get).
    fn wraps_what_it_is_given(&self, id: ClassId) -> bool {
        self.program.classes[id].scope.get("__signature__").is_some()
    }

    /// What a function is in a class, by its decorators.
    pub(super) fn method_kind(&self, function: &Function<'a>) -> MadeKind {
        let main = function.main();
        for decorator in &main.decorator_list {
            match last_name(&decorator.expression) {
                Some("staticmethod") => return MadeKind::Static,
                Some("classmethod") => return MadeKind::Class,
                Some(name) if is_property_decorator(name) => return MadeKind::Property,
                _ => {}
            }
            let called = match &decorator.expression {
                Expr::Call(call) => &*call.func,
                other => other,
            };
            if let Some(Target::Class(id)) =
                self.program.resolve_expr(function.module, function.class, called)
                && self.makes_properties(id)
            {
                return MadeKind::Property;
            }
        }
        if main.name.as_str() == "__new__" { MadeKind::Static } else { MadeKind::Function }
    }

    /// Whether objects of a class are descriptors that give a value where a function stood.
    pub(super) fn makes_properties(&self, id: ClassId) -> bool {
        for &owner in self.program.mro(id) {
            let outside = self.program.bases(owner).iter().any(|base| match base {
                Base::Unknown(name) => is_property_decorator(name.rsplit('.').next().unwrap_or(name)),
                Base::Known(_) => false,
            });
            if outside {
                return true;
            }
            let class = &self.program.classes[owner];
            if let Some(Binding::Function(defs)) = class.scope.get("__get__")
                && let Some(get) = defs.last()
            {
                let text = self.program.modules[class.module].file.slice(*get);
                // A method by other means: what it gives is called.
                let bound = ["MethodType", "partial", "__get__(", "def ", "lambda"];
                let calls = class.scope.get("__call__").is_some();
                return !calls
                    && !bound.iter().any(|part| text.replacen("def __get__(", "", 1).contains(part));
            }
        }
        false
    }

    /// `**kwargs: Unpack[Options]` with the keys of the dictionary in its place.
    fn expanded(&self, mut found: Signature, function: &Function<'a>) -> Signature {
        let Some(last) = found.parameters.last().filter(|last| last.kind == Kind::Keywords) else {
            return found;
        };
        if !last.annotation.as_deref().is_some_and(|text| text.contains("Unpack[")) {
            return found;
        }
        let annotation =
            function.defs.iter().rev().find_map(|def| def.parameters.kwarg.as_ref()?.annotation.as_deref());
        let Some(Expr::Subscript(unpack)) = annotation else { return found };
        let Some(Target::Class(id)) =
            self.program.resolve_expr(function.module, function.class, &unpack.slice)
        else {
            return found;
        };
        if !self.is_typed_dict(id) {
            return found;
        }
        found.parameters.pop();
        for key in self.constructor_signature(id).parameters {
            let known = found.parameters.iter().any(|parameter| parameter.name == key.name);
            if !known {
                found.parameters.push(key);
            }
        }
        found
    }
}

/// How many parameters `Callable[Concatenate[A, B, P], R]` names before the rest; 0 for `Callable[P, R]`.
fn leading(annotation: &Expr) -> Option<usize> {
    let Expr::Subscript(callable) = annotation else { return None };
    if last_name(&callable.value) != Some("Callable") {
        return None;
    }
    let Expr::Tuple(parts) = &*callable.slice else { return None };
    match parts.elts.first()? {
        Expr::Subscript(concatenate) if last_name(&concatenate.value) == Some("Concatenate") => {
            match &*concatenate.slice {
                Expr::Tuple(parts) => Some(parts.elts.len().saturating_sub(1)),
                _ => None,
            }
        }
        Expr::Name(_) => Some(0),
        _ => None,
    }
}

/// `property`, `cached_property`, `abstractproperty`, `cache_readonly` and their kin.
pub(super) fn is_property_decorator(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with("property")
        || matches!(name.as_str(), "cache_readonly" | "reify" | "lazy_attribute" | "getter")
}

/// What the statements of a function hand back, of those functions that they define.
fn returned(def: &StmtFunctionDef) -> Returned<'_> {
    let mut inner: Vec<&StmtFunctionDef> = Vec::new();
    let mut results: Vec<&Expr> = Vec::new();
    statements(&def.body, &mut inner, &mut results, 0);
    let named = |expr: &Expr| match expr {
        Expr::Name(name) => inner.iter().copied().find(|def| def.name.as_str() == name.id.as_str()),
        _ => None,
    };
    let takes = |expr: &Expr| {
        matches!(expr, Expr::Name(name)
            if def.parameters.iter().any(|parameter| parameter.name() == name.id.as_str()))
    };
    let mut applied = None;
    for result in results.iter().rev() {
        if let Some(def) = named(result) {
            return Returned::Inner(def);
        }
        if takes(result) {
            return Returned::Same;
        }
        if let Expr::Call(ExprCall { func, arguments, .. }) = result {
            if let Some(def) = named(func)
                && arguments.args.iter().any(takes)
            {
                applied = Some(def);
            } else if last_name(func) == Some("cast")
                && let Some(def) = arguments.args.iter().find_map(named)
            {
                return Returned::Inner(def);
            }
        }
    }
    applied.map_or(Returned::Unknown, Returned::Applied)
}

fn statements<'a>(
    body: &'a [Stmt],
    inner: &mut Vec<&'a StmtFunctionDef>,
    results: &mut Vec<&'a Expr>,
    depth: usize,
) {
    if depth > MAX_DEPTH {
        return;
    }
    for stmt in body {
        match stmt {
            Stmt::FunctionDef(def) => inner.push(def),
            Stmt::Return(result) => results.extend(result.value.as_deref()),
            Stmt::If(test) => {
                statements(&test.body, inner, results, depth + 1);
                for clause in &test.elif_else_clauses {
                    statements(&clause.body, inner, results, depth + 1);
                }
            }
            Stmt::Try(attempt) => statements(&attempt.body, inner, results, depth + 1),
            Stmt::With(with) => statements(&with.body, inner, results, depth + 1),
            _ => {}
        }
    }
}

/// Adds the parameters that a body makes by `inspect.Parameter("name", KIND, default=...)`, which the signature lacks.
fn spelled_out(file: &super::parse::ParsedFile, body: &[Stmt], found: &mut Signature) {
    use ruff_python_ast::visitor::{Visitor, walk_expr};
    struct Found<'f> {
        file: &'f super::parse::ParsedFile,
        made: Vec<Parameter>,
    }
    impl<'f> Visitor<'f> for Found<'f> {
        fn visit_expr(&mut self, expr: &'f Expr) {
            if let Expr::Call(call) = expr
                && last_name(&call.func) == Some("Parameter")
                && let Some(Expr::StringLiteral(name)) = call.arguments.args.first()
            {
                let named = |wanted: &str| {
                    let mut keywords = call.arguments.keywords.iter();
                    keywords
                        .find(|keyword| keyword.arg.as_ref().is_some_and(|name| name.as_str() == wanted))
                        .map(|keyword| &keyword.value)
                };
                let kind = match call.arguments.args.get(1).or_else(|| named("kind")).and_then(last_name) {
                    Some("POSITIONAL_ONLY") => Kind::PositionalOnly,
                    Some("VAR_POSITIONAL") => Kind::Rest,
                    Some("KEYWORD_ONLY") => Kind::KeywordOnly,
                    Some("VAR_KEYWORD") => Kind::Keywords,
                    _ => Kind::Standard,
                };
                let default = named("default").map(|default| signature::fold(self.file.slice(default)));
                self.made.push(Parameter {
                    name: name.value.to_str().into(),
                    kind,
                    annotation: None,
                    default,
                });
            }
            walk_expr(self, expr);
        }
    }
    let mut visitor = Found { file, made: Vec::new() };
    for stmt in body {
        visitor.visit_stmt(stmt);
    }
    for parameter in visitor.made {
        let known = found.parameters.iter().any(|known| known.name == parameter.name);
        // Only one parameter takes all other keywords.
        let second = parameter.kind == Kind::Keywords
            && found.parameters.iter().any(|known| known.kind == Kind::Keywords);
        if !known && !second {
            found.parameters.push(parameter);
        }
    }
    found.parameters.sort_by_key(|parameter| parameter.kind);
}
