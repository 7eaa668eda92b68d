//! The members of a class as its users see them: its own, inherited, delegated, attached.

use std::rc::Rc;

use ruff_python_ast::{Decorator, Expr, Stmt};
use rustc_hash::FxHashMap;

use super::eval::Frame;
use super::library::Library;
use super::program::{ClassId, Function, Target, Value};
use super::scope::{Assigned, Binding};
use super::signature::Signature;
use super::value::Val;

/// What a function made elsewhere is in the class it was put into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MadeKind {
    Function,
    Property,
    Static,
    Class,
}

/// A function that a value stands for: made inside a function, bound to an object, or `partial` of another.
pub(super) struct Made<'a> {
    pub kind: MadeKind,
    /// The docstring it was given.
    pub doc: Option<Rc<str>>,
    pub function: Function<'a>,
    pub bound: Bound,
}

/// Arguments that are given already.
#[derive(Clone, Default)]
pub(super) struct Bound {
    /// How many positional ones, the receiver among them.
    pub positional: usize,
    /// Name and source text of the others.
    pub keywords: Vec<(String, String)>,
}

/// A member of a class.
#[derive(Clone)]
pub(super) enum Member<'a> {
    Function(Function<'a>),
    Made(Rc<Made<'a>>),
    Value(Value<'a>),
    Class(ClassId),
    /// A name under which the members of another class are reached: `Series.str`.
    Accessor(ClassId),
    /// A name that exists and of which nothing more is known.
    Bare,
}

/// The members that one class body brings, in source order.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub list: Vec<(Rc<str>, Member<'a>)>,
    index: FxHashMap<Rc<str>, usize>,
}

impl<'a> Members<'a> {
    pub fn get(&self, name: &str) -> Option<&Member<'a>> {
        self.index.get(name).map(|&at| &self.list[at].1)
    }

    fn insert(&mut self, name: &str, member: Member<'a>, replace: bool) {
        match self.index.get(name) {
            Some(&at) if replace => self.list[at].1 = member,
            Some(_) => {}
            None => {
                let name: Rc<str> = name.into();
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, member));
            }
        }
    }
}

impl<'a> Library<'a> {
    /// The public members of a class, inherited ones included, with the class that brings each.
    pub(super) fn members(&self, class: ClassId) -> Vec<(Rc<str>, Member<'a>, ClassId)> {
        let mut seen: FxHashMap<Rc<str>, ()> = FxHashMap::default();
        let mut found = Vec::new();
        let own = self.module_name_of(self.program.classes[class].module);
        let dependency = |id: ClassId| self.is_foreign(self.program.classes[id].module, own);
        for &owner in self.program.mro(class) {
            // What a dependency's class brings is the dependency's to document.
            if dependency(owner) && owner != class {
                continue;
            }
            for (name, member) in &self.own(owner).list {
                if !name.starts_with('_') && seen.insert(name.clone(), ()).is_none() {
                    found.push((name.clone(), member.clone(), owner));
                }
            }
        }
        found
    }

    /// The member a name leads to and the class that brings it.
    pub(super) fn find_member(&self, class: ClassId, name: &str) -> Option<(ClassId, Member<'a>)> {
        self.program
            .mro(class)
            .iter()
            .find_map(|&owner| self.own(owner).get(name).map(|member| (owner, member.clone())))
    }

    /// The docstring of a member: its own, or that of the same name further up.
    pub(super) fn doc_of_member(&self, class: ClassId, name: &str, member: &Member<'a>) -> Option<Rc<str>> {
        let own = match member {
            Member::Function(function) => self.doc_of_function(function),
            Member::Made(made) => made.doc.clone().or_else(|| self.doc_of_function(&made.function)),
            Member::Value(value) => {
                let target = Target::Value(*value);
                self.doc_of_target(&target)
            }
            Member::Class(id) | Member::Accessor(id) => self.doc_of_class(*id),
            Member::Bare => None,
        };
        own.or_else(|| {
            self.program.mro(class).iter().find_map(|&owner| match self.own(owner).get(name)? {
                Member::Function(function) => self.doc_of_function(function),
                Member::Made(made) => made.doc.clone(),
                _ => None,
            })
        })
    }

    /// What the body of a class, its decorators, its stub and later statements bring; found once.
    pub(super) fn own(&self, id: ClassId) -> Rc<Members<'a>> {
        if let Some(known) = self.own_members.borrow().get(&id) {
            return known.clone();
        }
        // Whoever asks while the members are being found sees those of the body so far as none.
        self.own_members.borrow_mut().insert(id, Rc::default());
        let class = &self.program.classes[id];
        let mut members = Members::default();
        // `name: type` alone says that objects have the attribute, not how it comes about: what decorators and stubs
        // say counts more, and without documentation it is listed only where it is a field.
        let mut declared = Vec::new();
        let fields = self.has_fields(id) || self.program.modules[class.module].file.stub;
        for (name, binding) in class.scope.names() {
            match self.member(id, name, binding) {
                Some(member @ Member::Value(Value { assigned: Assigned { value: None, .. }, .. }))
                    if !fields =>
                {
                    declared.push((name, member));
                }
                Some(member) => members.insert(name, member, true),
                None => {}
            }
        }
        for decorator in &class.def.decorator_list {
            for (name, member) in self.delegated(id, decorator) {
                members.insert(&name, member, false);
            }
        }
        for name in self.slots(id) {
            let range = class.def.name.range;
            let assigned = Assigned { value: None, annotation: None, range, doc: None };
            let value = Value { module: class.module, class: Some(id), assigned };
            members.insert(&name, Member::Value(value), false);
        }
        for (name, value) in self.set_in_init(id) {
            members.insert(name, Member::Value(value), false);
        }
        if let Some(stub) = self.program.stub_class(id) {
            for (name, binding) in self.program.classes[stub].scope.names() {
                if let Some(member) = self.member(stub, name, binding) {
                    members.insert(name, member, false);
                }
            }
        }
        if let Some(added) = self.added.borrow().get(&id) {
            for (name, member) in added {
                members.insert(name, member.clone(), !matches!(member, Member::Bare));
            }
        }
        for (name, member) in declared {
            let documented = matches!(&member, Member::Value(value) if self.value_doc(value).is_some());
            if documented {
                members.insert(name, member, false);
            }
        }
        let members = Rc::new(members);
        self.own_members.borrow_mut().insert(id, members.clone());
        members
    }

    fn member(&self, id: ClassId, name: &str, binding: &Binding<'a>) -> Option<Member<'a>> {
        if name.starts_with("__") && name != "__call__" {
            return None;
        }
        let module = self.program.classes[id].module;
        match binding {
            Binding::Function(defs) => {
                Some(Member::Function(Function { module, class: Some(id), defs: defs.clone() }))
            }
            Binding::Class(def) => self.program.class_id(def).map(Member::Class),
            Binding::Import(_) => match self.program.target(module, Some(id), binding, 0)? {
                Target::Function(function) => Some(Member::Function(function)),
                Target::Class(class) if class != id => Some(Member::Class(class)),
                _ => None,
            },
            Binding::Value(assigned) => {
                let value = Value { module, class: Some(id), assigned: *assigned };
                match self.program.target(module, Some(id), binding, 0) {
                    Some(Target::Function(function)) => return Some(Member::Function(function)),
                    Some(Target::Class(class)) if class != id => return Some(Member::Class(class)),
                    _ => {}
                }
                if let Some(Expr::Call(call)) = assigned.value {
                    if let Some(accessor) = self.accessor(id, name, call) {
                        return Some(Member::Accessor(accessor));
                    }
                    let mut frame = Frame::new(module, Some(id));
                    if let Some(expr) = assigned.value
                        && let Val::Made(made) = self.eval(expr, &mut frame)
                    {
                        return Some(Member::Made(self.with_given_doc(made, call, &mut frame)));
                    }
                }
                if matches!(assigned.value, Some(Expr::Lambda(_))) && name.starts_with('_') {
                    return None;
                }
                Some(Member::Value(value))
            }
        }
    }

    /// `isalnum = _wrap("isalnum", docstring=text)`: a factory's product without a docstring takes the text given.
    fn with_given_doc(
        &self,
        made: Rc<Made<'a>>,
        call: &'a ruff_python_ast::ExprCall,
        frame: &mut Frame<'a>,
    ) -> Rc<Made<'a>> {
        if made.doc.is_some() {
            return made;
        }
        let keywords = call.arguments.keywords.iter().map(|keyword| &keyword.value);
        let text = call.arguments.args.iter().chain(keywords).find_map(|argument| {
            match self.eval(argument, frame) {
                Val::Str(text) if text.contains(' ') => Some(text),
                _ => None,
            }
        });
        match text {
            None => made,
            doc => Rc::new(Made {
                kind: made.kind,
                doc,
                function: made.function.clone(),
                bound: made.bound.clone(),
            }),
        }
    }

    /// `str = CachedAccessor("str", StringMethods)`: a call that is given the name it is assigned to and a class.
    fn accessor(&self, id: ClassId, name: &str, call: &'a ruff_python_ast::ExprCall) -> Option<ClassId> {
        let [Expr::StringLiteral(first), rest @ ..] = &*call.arguments.args else { return None };
        if first.value.to_str() != name {
            return None;
        }
        let module = self.program.classes[id].module;
        rest.iter().find_map(|argument| match self.program.resolve_expr(module, Some(id), argument) {
            Some(Target::Class(class)) => Some(class),
            _ => None,
        })
    }

    /// `@delegate_names(Other, ["a", "b"])`: a class decorator that is given a class and names of its members.
    fn delegated(&self, id: ClassId, decorator: &'a Decorator) -> Vec<(Rc<str>, Member<'a>)> {
        let Expr::Call(call) = &decorator.expression else { return Vec::new() };
        let class = &self.program.classes[id];
        let mut frame = Frame::new(class.module, class.outer);
        let mut delegate = None;
        let mut names = Vec::new();
        let keywords = call.arguments.keywords.iter().map(|keyword| &keyword.value);
        for argument in call.arguments.args.iter().chain(keywords) {
            if let Some(Target::Class(other)) = self.program.resolve_expr(class.module, class.outer, argument)
            {
                delegate = Some(other);
            } else if !matches!(argument, Expr::StringLiteral(_) | Expr::BooleanLiteral(_))
                && let Some(more) = self.eval(argument, &mut frame).strings()
            {
                names.extend(more);
            }
        }
        let Some(delegate) = delegate.filter(|&delegate| delegate != id) else { return Vec::new() };
        let inherited = &self.program.mro(id)[1..];
        names
            .into_iter()
            .filter(|name| !name.starts_with('_'))
            .filter(|name| !inherited.iter().any(|&owner| self.own(owner).get(name).is_some()))
            .map(|name| {
                let member = self.find_member(delegate, &name).map_or(Member::Bare, |(_, member)| member);
                (name, member)
            })
            .collect()
    }

    /// The signature of a made function as it is called.
    pub(super) fn made_signature(&self, made: &Made<'a>, skip: bool) -> Signature {
        let mut found = self.signature_of(&made.function);
        if skip {
            found.skip_first();
        }
        found.bind(made.bound.positional, &made.bound.keywords);
        found
    }

    /// The public names of `__slots__`.
    fn slots(&self, id: ClassId) -> Vec<Rc<str>> {
        let class = &self.program.classes[id];
        let Some(Binding::Value(Assigned { value: Some(slots), .. })) = class.scope.get("__slots__") else {
            return Vec::new();
        };
        let names = match self.eval(slots, &mut Frame::new(class.module, Some(id))) {
            Val::Str(name) => vec![name],
            Val::Dict(items) => items.iter().map(|(name, _)| name.clone()).collect(),
            several => several.strings().unwrap_or_default(),
        };
        names.into_iter().filter(|name| !name.starts_with('_')).collect()
    }

    /// Attributes that `__init__` sets and documents, by a string behind the assignment or by `#:`.
    fn set_in_init(&self, id: ClassId) -> Vec<(&'a str, Value<'a>)> {
        let class = &self.program.classes[id];
        let Some(Binding::Function(defs)) = class.scope.get("__init__") else { return Vec::new() };
        let Some(def) = defs.last() else { return Vec::new() };
        let receiver = def.parameters.iter().next().map_or("self", |first| first.name().as_str());
        let mut found = Vec::new();
        for (i, stmt) in def.body.iter().enumerate() {
            let (target, value, annotation, range) = match stmt {
                Stmt::Assign(assign) => match assign.targets.as_slice() {
                    [target] => (target, Some(&*assign.value), None, assign.range),
                    _ => continue,
                },
                Stmt::AnnAssign(assign) => {
                    (&*assign.target, assign.value.as_deref(), Some(&*assign.annotation), assign.range)
                }
                _ => continue,
            };
            let Expr::Attribute(attribute) = target else { continue };
            let own = matches!(&*attribute.value, Expr::Name(owner) if owner.id.as_str() == receiver);
            if !own || attribute.attr.starts_with('_') {
                continue;
            }
            let doc = match def.body.get(i + 1) {
                Some(Stmt::Expr(next)) if matches!(&*next.value, Expr::StringLiteral(_)) => {
                    Some(&*next.value)
                }
                _ => None,
            };
            let assigned = Assigned { value, annotation, range, doc };
            let value = Value { module: class.module, class: Some(id), assigned };
            if self.value_doc(&value).is_some() {
                found.push((attribute.attr.as_str(), value));
            }
        }
        found
    }

    /// The class that an assigned name is an object of, by its call, what the function called says that it returns, or its
    /// annotation.
    pub(super) fn class_of_value(&self, value: &Value<'a>) -> Option<ClassId> {
        let named = match (value.assigned.value, value.assigned.annotation) {
            (Some(Expr::Call(call)), _) => &*call.func,
            (None, Some(annotation)) => annotation,
            _ => return None,
        };
        match self.program.resolve_expr(value.module, value.class, named)? {
            Target::Class(id) => Some(id),
            Target::Function(function) if value.assigned.value.is_some() => {
                let plain = function.main().decorator_list.is_empty() && function.defs.len() == 1;
                let returns =
                    function.main().returns.as_deref().filter(|_| plain && !function.main().is_async)?;
                match self.program.resolve_expr(function.module, function.class, returns)? {
                    Target::Class(id) => Some(id),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What calling an assigned name does: a function behind it, or `__call__` of the object that it is.
    pub(super) fn callable(&self, value: &Value<'a>) -> Option<Rc<Made<'a>>> {
        if let Some(expr @ (Expr::Call(_) | Expr::Attribute(_) | Expr::Subscript(_))) = value.assigned.value
            && let Some(made) = self.made(self.eval(expr, &mut Frame::new(value.module, value.class)))
        {
            return Some(made);
        }
        let class = self.class_of_value(value)?;
        match self.find_member(class, "__call__")? {
            (_, Member::Function(function)) => Some(Rc::new(Made {
                kind: MadeKind::Function,
                doc: None,
                function,
                bound: Bound { positional: 1, keywords: Vec::new() },
            })),
            _ => None,
        }
    }
}
