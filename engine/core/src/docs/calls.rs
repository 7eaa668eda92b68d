//! Static evaluation of calls: string methods, the built-ins that docstring templates use, and the library's own
//! functions that make or attach members (`setattr(cls, name, f)`), followed statement by statement.

use std::rc::Rc;

use ruff_python_ast::{Expr, ExprCall, Stmt};

use super::eval::{Frame, Val, bind_target};
use super::library::Library;
use super::members::{Made, MadeKind, Member};
use super::program::{ClassId, Function, Target};
use super::scope::last_name;
use super::text;

/// Calls within calls.
const MAX_CALLS: usize = 16;
/// Rounds of one loop.
const MAX_ROUNDS: usize = 500;

/// Where execution goes on.
enum Flow<'a> {
    Next,
    Leave,
    Return(Val<'a>),
}

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
                    return super::eval::binary(op, owner, other);
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
                let mut given = arguments.iter().map(|argument| self.eval(argument, frame));
                given.find(|value| matches!(value, Val::Made(_))).unwrap_or(Val::Unknown)
            }
            _ => Val::Unknown,
        }
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
                Val::Made(Rc::new(Made { kind: MadeKind::Property, doc, function: made.function.clone() }))
            }
            "staticmethod" | "classmethod" => {
                let made = argument(0).and_then(|value| self.made(value))?;
                let kind = if name == "staticmethod" { MadeKind::Static } else { MadeKind::Class };
                Val::Made(Rc::new(Made { kind, doc: made.doc.clone(), function: made.function.clone() }))
            }
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
    fn made(&self, value: Val<'a>) -> Option<Rc<Made<'a>>> {
        match value {
            Val::Made(made) => Some(made),
            Val::Target(Target::Function(function)) => {
                let doc = self.doc_of_function(&function);
                Some(Rc::new(Made { kind: MadeKind::Function, doc, function }))
            }
            _ => None,
        }
    }

    fn attach(&self, owner: &Val<'a>, name: Option<&str>, value: Val<'a>) {
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

    /// Runs a statement of a module's body that may attach members to classes.
    pub(super) fn run_action(&self, stmt: &'a Stmt, module: usize) {
        let mut frame = Frame::new(module, None);
        self.run(std::slice::from_ref(stmt), &mut frame);
    }

    fn run(&self, body: &'a [Stmt], frame: &mut Frame<'a>) -> Flow<'a> {
        for stmt in body {
            if !self.spend() {
                return Flow::Leave;
            }
            match self.step(stmt, frame) {
                Flow::Next => {}
                other => return other,
            }
        }
        Flow::Next
    }

    fn step(&self, stmt: &'a Stmt, frame: &mut Frame<'a>) -> Flow<'a> {
        match stmt {
            Stmt::FunctionDef(def) => {
                let function = Function { module: frame.module, class: None, defs: vec![def] };
                let doc = self.doc_in_frame(&function, frame);
                let property =
                    def.decorator_list.iter().any(|d| last_name(&d.expression) == Some("property"));
                let kind = if property { MadeKind::Property } else { MadeKind::Function };
                let made = Val::Made(Rc::new(Made { kind, doc, function }));
                frame.locals.insert(def.name.as_str().into(), made);
            }
            Stmt::Assign(assign) => {
                let value = self.eval(&assign.value, frame);
                for target in &assign.targets {
                    self.store(target, value.clone(), frame);
                }
            }
            Stmt::AnnAssign(assign) => {
                if let Some(value) = &assign.value {
                    let value = self.eval(value, frame);
                    self.store(&assign.target, value, frame);
                }
            }
            Stmt::AugAssign(assign) => {
                if let Expr::Name(name) = &*assign.target {
                    let old = frame.locals.get(name.id.as_str()).cloned().unwrap_or(Val::Unknown);
                    let more = self.eval(&assign.value, frame);
                    let value = super::eval::binary(assign.op, old, more);
                    frame.locals.insert(name.id.as_str().into(), value);
                }
            }
            Stmt::Expr(expr) => {
                self.eval(&expr.value, frame);
            }
            Stmt::Return(result) => {
                return Flow::Return(
                    result.value.as_ref().map_or(Val::None, |value| self.eval(value, frame)),
                );
            }
            Stmt::If(test) => return self.branch(test, frame),
            Stmt::For(each) => {
                let items = self.items_of(&each.iter, frame).unwrap_or_default();
                for item in items.into_iter().take(MAX_ROUNDS) {
                    let mut names = Vec::new();
                    bind_target(&each.target, item, &mut names);
                    frame.locals.extend(names);
                    if let Flow::Return(value) = self.run(&each.body, frame) {
                        return Flow::Return(value);
                    }
                }
            }
            Stmt::With(with) => return self.run(&with.body, frame),
            Stmt::Try(attempt) => return self.run(&attempt.body, frame),
            Stmt::Continue(_) | Stmt::Break(_) | Stmt::Raise(_) => return Flow::Leave,
            _ => {}
        }
        Flow::Next
    }

    /// `if`: the side that is known to be taken, or all sides where that is not known.
    fn branch(&self, test: &'a ruff_python_ast::StmtIf, frame: &mut Frame<'a>) -> Flow<'a> {
        let mut returned = None;
        let first = (Some(&*test.test), &test.body);
        let others = test.elif_else_clauses.iter().map(|clause| (clause.test.as_ref(), &clause.body));
        for (condition, body) in std::iter::once(first).chain(others) {
            let truth = condition.map_or(Some(true), |condition| self.eval(condition, frame).truth());
            if truth == Some(false) {
                continue;
            }
            let flow = self.run(body, frame);
            if truth == Some(true) {
                return match flow {
                    Flow::Next => returned.map_or(Flow::Next, Flow::Return),
                    other => other,
                };
            }
            if let Flow::Return(
                value @ (Val::Made(_) | Val::Str(_) | Val::Dict(_) | Val::List(_) | Val::Target(_)),
            ) = flow
            {
                returned.get_or_insert(value);
            }
        }
        returned.map_or(Flow::Next, Flow::Return)
    }

    fn store(&self, target: &'a Expr, value: Val<'a>, frame: &mut Frame<'a>) {
        match target {
            Expr::Name(_) | Expr::Tuple(_) => {
                let mut names = Vec::new();
                bind_target(target, value, &mut names);
                frame.locals.extend(names);
            }
            Expr::Subscript(subscript) => {
                if let Expr::Name(name) = &*subscript.value
                    && let Some(Val::Dict(items)) = frame.locals.get(name.id.as_str()).cloned()
                    && let Val::Str(key) = self.eval(&subscript.slice, frame)
                {
                    let mut items = items.to_vec();
                    items.push((key, value));
                    frame.locals.insert(name.id.as_str().into(), Val::dict(items));
                }
            }
            Expr::Attribute(attribute) => {
                if attribute.attr.as_str() == "__doc__"
                    && let Expr::Name(name) = &*attribute.value
                    && let Some(Val::Made(made)) = frame.locals.get(name.id.as_str())
                {
                    let doc = match value {
                        Val::Str(doc) => Some(doc),
                        _ => made.doc.clone(),
                    };
                    let made = Made { kind: made.kind, doc, function: made.function.clone() };
                    frame.locals.insert(name.id.as_str().into(), Val::Made(Rc::new(made)));
                } else {
                    let owner = self.eval(&attribute.value, frame);
                    if !attribute.attr.starts_with("__") {
                        self.attach(&owner, Some(attribute.attr.as_str()), value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a statement of a module's body can reach a `setattr`: a call or loop in, or of a function from, a file
    /// that has one.
    pub(super) fn may_attach(&self, module: usize, stmt: &'a Stmt) -> bool {
        let sets = |module: usize| {
            let file = self.program.modules[module].file;
            !file.dependency && file.text.contains("setattr(")
        };
        match stmt {
            Stmt::For(_) => sets(module),
            Stmt::Expr(expr) => match &*expr.value {
                Expr::Call(call) => {
                    matches!(&*call.func, Expr::Name(name) if name.id.as_str() == "setattr")
                        || matches!(self.program.resolve_expr(module, None, &call.func),
                            Some(Target::Function(function)) if sets(function.module))
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The names of `__all__`, where it is there and known.
    pub(super) fn module_all(&self, module: usize) -> Option<Vec<Rc<str>>> {
        use super::scope::AllChange;
        let changes = &self.program.modules[module].scope.all;
        if changes.is_empty() || self.calls.get() >= MAX_CALLS {
            return None;
        }
        let depth = self.calls.get();
        self.calls.set(depth + 1);
        let mut names: Option<Vec<Rc<str>>> = None;
        for change in changes {
            let mut frame = Frame::new(module, None);
            if let Some(known) = &names {
                frame
                    .locals
                    .insert("__all__".into(), Val::list(known.iter().cloned().map(Val::Str).collect()));
            }
            let (AllChange::Set(expr)
            | AllChange::Extend(expr)
            | AllChange::Append(expr)
            | AllChange::Remove(expr)) = change;
            // One part of a sum that is not known must not lose the others.
            let more = self.all_part(expr, &mut frame);
            match change {
                AllChange::Set(_) => names = more.or(names),
                AllChange::Extend(_) => names.get_or_insert_default().extend(more.unwrap_or_default()),
                AllChange::Append(_) => names.get_or_insert_default().extend(more.unwrap_or_default()),
                AllChange::Remove(_) => {
                    let gone = more.unwrap_or_default();
                    names.get_or_insert_default().retain(|name| !gone.contains(name));
                }
            }
        }
        self.calls.set(depth);
        names
    }

    fn all_part(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Option<Vec<Rc<str>>> {
        if let Expr::BinOp(sum) = expr {
            let (left, right) = (self.all_part(&sum.left, frame), self.all_part(&sum.right, frame));
            return match (left, right) {
                (Some(mut left), right) => {
                    left.extend(right.unwrap_or_default());
                    Some(left)
                }
                (None, right) => right,
            };
        }
        match self.eval(expr, frame) {
            Val::Str(name) => Some(vec![name]),
            Val::List(items) => Some(
                items
                    .iter()
                    .filter_map(|item| match item {
                        Val::Str(name) => Some(name.clone()),
                        // `__all__ = [f.__name__]` and lists of the objects themselves.
                        Val::Target(Target::Function(function)) => Some(function.main().name.as_str().into()),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        }
    }
}
