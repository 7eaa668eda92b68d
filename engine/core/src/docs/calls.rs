//! Static evaluation of calls: string methods, the built-ins that docstring templates use, and the library's own
//! functions that make or attach members (`setattr(cls, name, f)`), followed statement by statement.

use std::rc::Rc;

use ruff_python_ast::{Expr, ExprCall};

use super::eval::Frame;
use super::library::Library;
use super::members::{Bound, Made, MadeKind, Member};
use super::program::{ClassId, Function, Target};
use super::scope::last_name;
use super::statements::Flow;
use super::text;
use super::value::{Val, binary};

/// Calls within calls.
pub(super) const MAX_CALLS: usize = 16;
/// Rounds of one loop.
pub(super) const MAX_ROUNDS: usize = 500;

impl<'a> Library<'a> {
    pub(super) fn call(&self, call: &'a ExprCall, frame: &mut Frame<'a>) -> Val<'a> {
        let arguments = &call.arguments.args;
        if let Expr::Attribute(method) = &*call.func {
            let owner = self.eval(&method.value, frame);
            match &owner {
                Val::Str(text) => return self.string_method(text.clone(), method.attr.as_str(), call, frame),
                Val::Dict(items) => return self.dict_method(items, method.attr.as_str(), call, frame),
                Val::List(_) if matches!(method.attr.as_str(), "union" | "copy" | "difference") => {
                    let op = match method.attr.as_str() {
                        "union" => ruff_python_ast::Operator::Add,
                        "difference" => ruff_python_ast::Operator::Sub,
                        _ => return owner,
                    };
                    let other = arguments.first().map_or(Val::Unknown, |other| self.eval(other, frame));
                    return binary(op, owner, other);
                }
                Val::Target(Target::Class(class)) => {
                    let found = self.attribute_value(&owner, method.attr.as_str(), frame);
                    if let Val::Target(Target::Function(function)) = found {
                        return self.call_known(&function, Some(*class), call, frame);
                    }
                }
                _ => {}
            }
        }
        let name = last_name(&call.func).unwrap_or("");
        let shadowed = frame.locals.contains_key(name);
        if !shadowed && let Some(value) = self.builtin(name, call, frame) {
            return value;
        }
        match self.eval(&call.func, frame) {
            Val::Target(Target::Function(function)) => self.call_known(&function, None, call, frame),
            Val::Made(made) => {
                // A decorator applied by hand hands back what it was given.
                let given = arguments.iter().map(|argument| self.eval(argument, frame));
                if let Some(function @ Val::Made(_)) =
                    given.into_iter().find(|value| matches!(value, Val::Made(_)))
                {
                    return function;
                }
                self.call_function(&made.function, None, call, frame, true)
            }
            Val::Target(Target::Class(_) | Target::External(_)) | Val::Unknown => {
                let given: Vec<Val<'a>> =
                    arguments.iter().map(|argument| self.eval(argument, frame)).collect();
                if let Some(made) = given.iter().find(|value| matches!(value, Val::Made(_))) {
                    return made.clone();
                }
                // `decorator(options)(function)`
                match (&*call.func, given.as_slice()) {
                    (Expr::Call(_), [Val::Target(Target::Function(function))]) => self
                        .made(Val::Target(Target::Function(function.clone())))
                        .map_or(Val::Unknown, Val::Made),
                    _ => Val::Unknown,
                }
            }
            _ => Val::Unknown,
        }
    }

    /// What `dir()` or `globals()` gives in the body of a module.
    fn names_as_value(&self, module: usize, bare: bool) -> Val<'a> {
        if self.calls.get() >= MAX_CALLS {
            return Val::Unknown;
        }
        self.calls.set(self.calls.get() + 1);
        let names = self.bound_names(module).into_iter();
        let value = if bare {
            Val::list(names.map(Val::Str).collect())
        } else {
            let mean = |name: &Rc<str>| {
                self.program.resolve(module, name).map_or(Val::Unknown, |target| match target {
                    // Not evaluated: it may lead back here.
                    Target::Value(value) => Val::Target(Target::Value(value)),
                    other => Val::Target(other),
                })
            };
            Val::dict(names.map(|name| (name.clone(), mean(&name))).collect())
        };
        self.calls.set(self.calls.get() - 1);
        value
    }

    fn call_known(
        &self,
        function: &Function<'a>,
        receiver: Option<ClassId>,
        call: &'a ExprCall,
        frame: &mut Frame<'a>,
    ) -> Val<'a> {
        if self.program.modules[function.module].file.dependency {
            return Val::Unknown;
        }
        let is = |name: &str| {
            function
                .main()
                .decorator_list
                .iter()
                .any(|decorator| last_name(&decorator.expression) == Some(name))
        };
        let receiver = receiver.filter(|_| is("classmethod"));
        let value = self.call_function(function, receiver, call, frame, false);
        if matches!(value, Val::Unknown) {
            // A decorator that is not understood hands back what it was given.
            let mut given = call.arguments.args.iter().map(|argument| self.eval(argument, frame));
            return given.find(|value| matches!(value, Val::Made(_))).unwrap_or(Val::Unknown);
        }
        value
    }

    fn builtin(&self, name: &str, call: &'a ExprCall, frame: &mut Frame<'a>) -> Option<Val<'a>> {
        let arguments = &call.arguments.args;
        let (module, class) = (frame.module, frame.class);
        let mut argument = |at: usize| arguments.get(at).map(|argument| self.eval(argument, frame));
        Some(match name {
            "dedent" => match argument(0)? {
                Val::Str(text) => Val::string(text::dedent(&text)),
                _ => Val::Unknown,
            },
            "cleandoc" => match argument(0)? {
                Val::Str(text) => Val::string(super::docstring::clean(&text)),
                _ => Val::Unknown,
            },
            "indent" => match (argument(0)?, argument(1)) {
                (Val::Str(text), Some(Val::Str(prefix))) if text.len() < 1 << 16 && prefix.len() < 64 => {
                    let lines = text.split_inclusive('\n');
                    Val::string(lines.map(|line| format!("{prefix}{line}")).collect::<String>())
                }
                _ => Val::Unknown,
            },
            "str" => argument(0)?.display().map_or(Val::Unknown, Val::string),
            "dict" => Val::dict(self.merged(Vec::new(), call, frame)),
            "list" | "tuple" | "set" | "frozenset" | "sorted" => match argument(0) {
                None => Val::list(Vec::new()),
                Some(Val::List(items)) => Val::List(items),
                Some(Val::Dict(items)) => {
                    Val::list(items.iter().map(|(key, _)| Val::Str(key.clone())).collect())
                }
                Some(_) => Val::Unknown,
            },
            "cast" => argument(1)?,
            "property" | "cached_property" | "cache_readonly" => {
                let made = argument(0).and_then(|value| self.made(value));
                let doc = call
                    .arguments
                    .keywords
                    .iter()
                    .find(|keyword| keyword.arg.as_ref().is_some_and(|name| name.as_str() == "doc"));
                let fget = call
                    .arguments
                    .keywords
                    .iter()
                    .find(|keyword| keyword.arg.as_ref().is_some_and(|name| name.as_str() == "fget"));
                let made = match (made, fget) {
                    (None, Some(fget)) => {
                        let value = self.eval(&fget.value, frame);
                        self.made(value)
                    }
                    (made, _) => made,
                }?;
                let doc = match doc.map(|doc| self.eval(&doc.value, frame)) {
                    Some(Val::Str(doc)) => Some(doc),
                    _ => made.doc.clone(),
                };
                Val::Made(Rc::new(Made {
                    kind: MadeKind::Property,
                    doc,
                    function: made.function.clone(),
                    bound: made.bound.clone(),
                }))
            }
            "staticmethod" | "classmethod" => {
                let made = argument(0).and_then(|value| self.made(value))?;
                let kind = if name == "staticmethod" { MadeKind::Static } else { MadeKind::Class };
                Val::Made(Rc::new(Made {
                    kind,
                    doc: made.doc.clone(),
                    function: made.function.clone(),
                    bound: made.bound.clone(),
                }))
            }
            "partial" | "partialmethod" => {
                let made = argument(0).and_then(|value| self.made(value))?;
                let file = self.program.modules[module].file;
                let mut bound = made.bound.clone();
                bound.positional += arguments.len() - 1;
                for keyword in &call.arguments.keywords {
                    if let Some(name) = &keyword.arg {
                        bound.keywords.retain(|(known, _)| *known != name.as_str());
                        let text = super::signature::fold(file.slice(&keyword.value));
                        bound.keywords.push((name.to_string(), text));
                    }
                }
                // A partial object in a class is no method: it gets no receiver.
                let kind = match (name, class) {
                    ("partial", Some(_)) => MadeKind::Static,
                    _ => made.kind,
                };
                Val::Made(Rc::new(Made {
                    kind,
                    doc: made.doc.clone(),
                    function: made.function.clone(),
                    bound,
                }))
            }
            "lru_cache"
            | "cache"
            | "contextmanager"
            | "asynccontextmanager"
            | "singledispatch"
            | "jit"
            | "update_wrapper"
                if !arguments.is_empty() =>
            {
                Val::Made(argument(0).and_then(|value| self.made(value))?)
            }
            "dir" | "globals" | "locals" | "vars" if arguments.is_empty() && class.is_none() => {
                self.names_as_value(module, name == "dir")
            }
            "dir" | "vars" => match argument(0)? {
                Val::Target(Target::Module(module)) => self.names_as_value(module, name == "dir"),
                _ => return None,
            },
            "callable" | "isfunction" | "isclass" | "ismodule" | "isroutine" => match (name, argument(0)?) {
                (_, Val::Unknown | Val::Target(Target::External(_) | Target::Value(_))) => Val::Unknown,
                ("callable", value) => Val::Bool(matches!(
                    value,
                    Val::Made(_) | Val::Target(Target::Function(_) | Target::Class(_))
                )),
                ("isclass", value) => Val::Bool(matches!(value, Val::Target(Target::Class(_)))),
                ("ismodule", value) => Val::Bool(matches!(value, Val::Target(Target::Module(_)))),
                (_, value) => Val::Bool(matches!(value, Val::Made(_) | Val::Target(Target::Function(_)))),
            },
            "isinstance" => match (argument(0)?, arguments.get(1).and_then(last_name)) {
                (Val::Unknown | Val::Target(Target::External(_) | Target::Value(_)), _) => Val::Unknown,
                (value, Some("type")) => Val::Bool(matches!(value, Val::Target(Target::Class(_)))),
                (value, Some("ModuleType")) => Val::Bool(matches!(value, Val::Target(Target::Module(_)))),
                (value, Some("FunctionType")) => {
                    Val::Bool(matches!(value, Val::Made(_) | Val::Target(Target::Function(_))))
                }
                _ => Val::Unknown,
            },
            "issubclass" => match (argument(0)?, argument(1)) {
                (Val::Target(Target::Class(class)), Some(Val::Target(Target::Class(base)))) => {
                    Val::Bool(self.program.mro(class).contains(&base))
                }
                _ => Val::Unknown,
            },
            "setattr" => {
                let (owner, name, value) = (argument(0)?, argument(1)?, argument(2)?);
                self.attach(&owner, name.as_str(), value);
                Val::None
            }
            "hasattr" => {
                let (owner, name) = (argument(0)?, argument(1)?);
                match (owner, name.as_str()) {
                    (Val::Target(Target::Class(class)), Some(name)) => {
                        Val::Bool(self.find_member(class, name).is_some())
                    }
                    _ => Val::Unknown,
                }
            }
            "getattr" => {
                let (owner, name) = (argument(0)?, argument(1)?);
                match (owner, name.as_str()) {
                    (Val::Target(Target::Class(class)), Some(name)) => match self.find_member(class, name) {
                        Some((_, Member::Function(function))) => Val::Target(Target::Function(function)),
                        Some((_, Member::Made(made))) => Val::Made(made),
                        _ => Val::Unknown,
                    },
                    (owner, Some(name)) => self.attribute_value(&owner, name, frame),
                    _ => Val::Unknown,
                }
            }
            _ => return None,
        })
    }

    /// A function value as something that can be made a property or method.
    pub(super) fn made(&self, value: Val<'a>) -> Option<Rc<Made<'a>>> {
        match value {
            Val::Made(made) => Some(made),
            Val::Target(Target::Function(function)) => {
                let doc = self.doc_of_function(&function);
                Some(Rc::new(Made { kind: MadeKind::Function, doc, function, bound: Bound::default() }))
            }
            _ => None,
        }
    }

    pub(super) fn attach(&self, owner: &Val<'a>, name: Option<&str>, value: Val<'a>) {
        let (Val::Target(Target::Class(class)), Some(name)) = (owner, name) else { return };
        let member = match value {
            Val::Made(made) => Member::Made(made),
            Val::Target(Target::Function(function)) => Member::Function(function),
            Val::Target(Target::Class(class)) => Member::Class(class),
            _ => Member::Bare,
        };
        self.add_member(*class, name, member);
    }

    fn string_method(
        &self,
        text: Rc<str>,
        method: &str,
        call: &'a ExprCall,
        frame: &mut Frame<'a>,
    ) -> Val<'a> {
        let mut argument = |at: usize| call.arguments.args.get(at).map(|argument| self.eval(argument, frame));
        match method {
            "format" => {
                let positional: Vec<Val<'a>> =
                    call.arguments.args.iter().map(|argument| self.eval(argument, frame)).collect();
                let named = self.merged(Vec::new(), call, frame);
                let lookup = |name: &str| match name.parse::<usize>() {
                    Ok(at) => positional.get(at)?.display(),
                    Err(_) => named.iter().rev().find(|(key, _)| &**key == name)?.1.display(),
                };
                text::format(&text, &lookup).map_or(Val::Str(text), Val::string)
            }
            "join" => match argument(0).and_then(|items| items.strings()) {
                Some(items) => Val::string(items.join(&*text)),
                None => Val::Unknown,
            },
            "replace" => match (argument(0), argument(1)) {
                (Some(Val::Str(from)), Some(Val::Str(to))) if !from.is_empty() && to.len() < 1 << 12 => {
                    Val::string(text.replace(&*from, &to))
                }
                _ => Val::Unknown,
            },
            "strip" | "lstrip" | "rstrip" => {
                let set: Vec<char> = match argument(0) {
                    Some(Val::Str(set)) => set.chars().collect(),
                    _ => vec![' ', '\n', '\t', '\r'],
                };
                let cut = |c: char| set.contains(&c);
                Val::string(match method {
                    "strip" => text.trim_matches(cut),
                    "lstrip" => text.trim_start_matches(cut),
                    _ => text.trim_end_matches(cut),
                })
            }
            "lower" => Val::string(text.to_lowercase()),
            "upper" => Val::string(text.to_uppercase()),
            "capitalize" | "title" => {
                let mut chars = text.chars();
                let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
                Val::string(format!("{first}{}", chars.as_str()))
            }
            "split" => {
                let items: Vec<Val<'a>> = match argument(0) {
                    None => text.split_whitespace().map(Val::string).collect(),
                    Some(Val::Str(at)) if !at.is_empty() => text.split(&*at).map(Val::string).collect(),
                    _ => return Val::Unknown,
                };
                Val::list(items)
            }
            "startswith" | "endswith" => match argument(0) {
                Some(Val::Str(part)) if method == "startswith" => Val::Bool(text.starts_with(&*part)),
                Some(Val::Str(part)) => Val::Bool(text.ends_with(&*part)),
                _ => Val::Unknown,
            },
            _ => Val::Unknown,
        }
    }

    fn dict_method(
        &self,
        items: &Rc<Vec<(Rc<str>, Val<'a>)>>,
        method: &str,
        call: &'a ExprCall,
        frame: &mut Frame<'a>,
    ) -> Val<'a> {
        match method {
            "items" => {
                let pairs =
                    items.iter().map(|(key, value)| Val::list(vec![Val::Str(key.clone()), value.clone()]));
                Val::list(pairs.collect())
            }
            "keys" => Val::list(items.iter().map(|(key, _)| Val::Str(key.clone())).collect()),
            "values" => Val::list(items.iter().map(|(_, value)| value.clone()).collect()),
            "copy" => Val::Dict(items.clone()),
            "get" => {
                let key = call.arguments.args.first().map(|key| self.eval(key, frame));
                match key.as_ref().and_then(Val::as_str) {
                    Some(key) => items
                        .iter()
                        .rev()
                        .find(|(name, _)| &**name == key)
                        .map_or(Val::Unknown, |(_, value)| value.clone()),
                    None => Val::Unknown,
                }
            }
            "update" => {
                let merged = Val::dict(self.merged(items.to_vec(), call, frame));
                if let Expr::Attribute(attribute) = &*call.func
                    && let Expr::Name(name) = &*attribute.value
                    && frame.locals.contains_key(name.id.as_str())
                {
                    frame.locals.insert(name.id.as_str().into(), merged);
                }
                Val::None
            }
            _ => Val::Unknown,
        }
    }

    /// Runs a function's statements on what is known of its arguments. A function made inside another sees the names
    /// of its caller (`nested`), which is where such functions are called.
    fn call_function(
        &self,
        function: &Function<'a>,
        receiver: Option<ClassId>,
        call: &'a ExprCall,
        caller: &mut Frame<'a>,
        nested: bool,
    ) -> Val<'a> {
        let depth = self.calls.get();
        if depth >= MAX_CALLS || !self.spend() {
            return Val::Unknown;
        }
        let mut frame = Frame::new(function.module, None);
        frame.depth = caller.depth;
        if nested {
            frame.locals.extend(caller.locals.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let parameters = &function.main().parameters;
        let mut positional: Vec<Val<'a>> =
            receiver.map(|class| Val::Target(Target::Class(class))).into_iter().collect();
        for argument in &call.arguments.args {
            if let Expr::Starred(starred) = argument {
                if let Val::List(items) = self.eval(&starred.value, caller) {
                    positional.extend(items.iter().cloned());
                }
            } else {
                positional.push(self.eval(argument, caller));
            }
        }
        let mut positional = positional.into_iter();
        for parameter in parameters.posonlyargs.iter().chain(&parameters.args) {
            let value = match positional.next() {
                Some(value) => value,
                None => match &parameter.default {
                    Some(default) => self.eval(default, &mut Frame::new(function.module, function.class)),
                    None => Val::Unknown,
                },
            };
            frame.locals.insert(parameter.parameter.name.as_str().into(), value);
        }
        for parameter in &parameters.kwonlyargs {
            let value = match &parameter.default {
                Some(default) => self.eval(default, &mut Frame::new(function.module, function.class)),
                None => Val::Unknown,
            };
            frame.locals.insert(parameter.parameter.name.as_str().into(), value);
        }
        if let Some(rest) = &parameters.vararg {
            frame.locals.insert(rest.name.as_str().into(), Val::list(positional.collect()));
        }
        let mut rest = Vec::new();
        for keyword in &call.arguments.keywords {
            let Some(name) = &keyword.arg else { continue };
            let value = self.eval(&keyword.value, caller);
            if frame.locals.contains_key(name.as_str()) {
                frame.locals.insert(name.as_str().into(), value);
            } else {
                rest.push((Rc::from(name.as_str()), value));
            }
        }
        if let Some(parameter) = &parameters.kwarg {
            frame.locals.insert(parameter.name.as_str().into(), Val::dict(rest));
        }
        self.calls.set(depth + 1);
        let flow = self.run(&function.main().body, &mut frame);
        self.calls.set(depth);
        match flow {
            Flow::Return(value) => value,
            _ => Val::None,
        }
    }
}
