//! `__all__`: what a module says its interface is, as far as that can be told without running it.

use std::rc::Rc;

use ruff_python_ast::{Decorator, Expr};
use rustc_hash::FxHashSet;

use super::calls::MAX_CALLS;
use super::eval::Frame;
use super::library::Library;
use super::program::{ModId, Target};
use super::scope::{AllChange, Binding, last_name};
use super::value::Val;

/// The names of an `__all__`.
#[derive(Default)]
pub(super) struct Listed {
    pub names: Vec<Rc<str>>,
    /// Whether these are all: no part of it was beyond static evaluation.
    pub whole: bool,
}

impl Listed {
    fn add(&mut self, more: Listed) {
        let mut known: Option<FxHashSet<Rc<str>>> =
            (more.names.len() > 1).then(|| self.names.iter().cloned().collect());
        for name in more.names {
            let new = match &mut known {
                Some(known) => known.insert(name.clone()),
                None => !self.names.contains(&name),
            };
            if new {
                self.names.push(name);
            }
        }
        self.whole &= more.whole;
    }
}

impl<'a> Library<'a> {
    /// What `__all__` of a module holds; `None` where it has none.
    pub(super) fn module_all(&self, module: ModId) -> Option<Listed> {
        let scope = &self.program.modules[module].scope;
        let depth = self.calls.get();
        if scope.all.is_empty() || depth >= MAX_CALLS {
            return None;
        }
        self.calls.set(depth + 1);
        let mut listed: Option<Listed> = None;
        for change in &scope.all {
            let mut frame = Frame::new(module, None);
            if let Some(known) = &listed {
                let names = known.names.iter().cloned().map(Val::Str).collect();
                frame.locals.insert("__all__".into(), Val::list(names));
            }
            match change {
                AllChange::Set(expr) => {
                    let set = self.all_part(expr, &mut frame);
                    // `__all__ = sorted(__all__)` by a function that is not understood keeps what is known.
                    listed = match listed {
                        Some(mut old) if !set.whole && !old.names.is_empty() => {
                            old.add(set);
                            Some(old)
                        }
                        _ => Some(set),
                    };
                }
                AllChange::Extend(expr) | AllChange::Append(expr) => {
                    let more = self.all_part(expr, &mut frame);
                    listed.get_or_insert_with(whole).add(more);
                }
                AllChange::Remove(expr) => {
                    let gone = self.all_part(expr, &mut frame).names;
                    listed.get_or_insert_with(whole).names.retain(|name| !gone.contains(name));
                }
                AllChange::Call(expr) => {
                    if let Some(more) = self.all_by_call(expr, &mut frame) {
                        listed.get_or_insert_with(whole).add(more);
                    }
                }
            }
        }
        let mut listed = listed?;
        listed.add(Listed { names: self.all_by_decorators(module), whole: true });
        self.calls.set(depth);
        Some(listed)
    }

    /// One part of a sum that is not known must not lose the others.
    fn all_part(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Listed {
        if let Expr::BinOp(sum) = expr
            && matches!(sum.op, ruff_python_ast::Operator::Add | ruff_python_ast::Operator::BitOr)
        {
            let mut left = self.all_part(&sum.left, frame);
            left.add(self.all_part(&sum.right, frame));
            return left;
        }
        if let Expr::Call(call) = expr
            && matches!(last_name(&call.func), Some("list" | "tuple" | "set" | "sorted" | "frozenset"))
            && let Some(Expr::BinOp(_)) = call.arguments.args.first()
        {
            return self.all_part(&call.arguments.args[0], frame);
        }
        if let Expr::List(ruff_python_ast::ExprList { elts, .. })
        | Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
        | Expr::Set(ruff_python_ast::ExprSet { elts, .. }) = expr
        {
            let mut listed = whole();
            for item in elts {
                listed.add(match item {
                    Expr::Starred(starred) => self.all_part(&starred.value, frame),
                    item => self.listed_value(&self.eval(item, frame)),
                });
            }
            return listed;
        }
        match self.eval(expr, frame) {
            Val::List(items) => {
                let mut listed = whole();
                for item in items.iter() {
                    listed.add(self.listed_value(item));
                }
                listed
            }
            Val::Dict(items) => {
                Listed { names: items.iter().map(|(name, _)| name.clone()).collect(), whole: true }
            }
            single => self.listed_value(&single),
        }
    }

    /// An item of `__all__`: a name, or (against the rules, but done) the thing itself.
    fn listed_value(&self, item: &Val<'a>) -> Listed {
        let name: Option<Rc<str>> = match item {
            Val::Str(name) => Some(name.clone()),
            Val::Target(Target::Function(function)) => Some(function.main().name.as_str().into()),
            Val::Target(Target::Class(id)) => Some(self.program.classes[*id].def.name.as_str().into()),
            Val::Made(made) => Some(made.function.main().name.as_str().into()),
            Val::Target(Target::Module(id)) => self.module_name_of(*id).rsplit('.').next().map(Rc::from),
            _ => None,
        };
        Listed { whole: name.is_some(), names: name.into_iter().collect() }
    }

    /// `extend_all(module)`: a call of a function that changes `__all__` by what it is given. `None`: it does not.
    fn all_by_call(&self, expr: &'a Expr, frame: &mut Frame<'a>) -> Option<Listed> {
        let Expr::Call(call) = expr else { return None };
        let function = match self.program.resolve_expr(frame.module, None, &call.func)? {
            Target::Function(function) => function,
            _ => return None,
        };
        if !self.program.modules[function.module].file.slice(function.main()).contains("__all__") {
            return None;
        }
        let mut listed = whole();
        for argument in &call.arguments.args {
            let argument = match argument {
                Expr::Starred(starred) => &*starred.value,
                other => other,
            };
            match self.eval(argument, frame) {
                Val::Target(Target::Module(id)) => {
                    let names = self.public_names(id, false).into_iter().map(|(name, _, _)| name).collect();
                    listed.add(Listed { names, whole: true });
                }
                Val::List(items) => items.iter().for_each(|item| listed.add(self.listed_value(item))),
                single => listed.add(self.listed_value(&single)),
            }
        }
        Some(listed)
    }

    /// Names of the functions and classes whose decorator puts them into `__all__`.
    fn all_by_decorators(&self, module: ModId) -> Vec<Rc<str>> {
        let this = &self.program.modules[module];
        let mut found = Vec::new();
        for (name, binding) in this.scope.names() {
            let decorators: &[Decorator] = match binding {
                Binding::Function(defs) => defs.last().map_or(&[], |def| &def.decorator_list),
                Binding::Class(def) => &def.decorator_list,
                _ => continue,
            };
            if decorators.iter().any(|decorator| self.lists(module, &decorator.expression)) {
                found.push(name.into());
            }
        }
        found
    }

    fn lists(&self, module: ModId, decorator: &'a Expr) -> bool {
        let target = match decorator {
            Expr::Call(call) => self.program.resolve_expr(module, None, &call.func),
            other => self.program.resolve_expr(module, None, other),
        };
        match target {
            Some(Target::Function(function)) => {
                self.program.modules[function.module].file.slice(function.main()).contains("__all__")
            }
            Some(Target::Class(id)) => {
                let class = &self.program.classes[id];
                self.program.modules[class.module].file.slice(class.def).contains("__all__")
            }
            // The package atpublic.
            Some(Target::External(name)) => name == "public.public",
            _ => false,
        }
    }

    /// The names a module binds while it runs, with those of its star imports: what `dir()` in it gives. Names of Python's own
    /// modules are left out: they are there for the module's use.
    pub(super) fn bound_names(&self, module: ModId) -> Vec<Rc<str>> {
        let this = &self.program.modules[module];
        let mut names: Vec<Rc<str>> = Vec::new();
        for (name, binding) in this.scope.names() {
            let foreign = match binding {
                Binding::Import(import) => {
                    import.name.is_none()
                        || super::exports::is_standard(import.module.split('.').next().unwrap_or(""))
                }
                _ => false,
            };
            if !foreign && !this.scope.typing_only(name) {
                names.push(name.into());
            }
        }
        for star in &this.scope.stars {
            if let Some(source) = self.program.module(&star.module).filter(|&source| source != module) {
                for (name, _, _) in self.public_names(source, false) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
        }
        names
    }
}

fn whole() -> Listed {
    Listed { names: Vec::new(), whole: true }
}
