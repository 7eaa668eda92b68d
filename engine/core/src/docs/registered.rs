//! Methods that a class decorator registers under a name given as a string: `@functional_datapipe("cycle")` on a class
//! makes `.cycle(...)` on its base class.

use std::collections::BTreeSet;

use ruff_python_ast::{Expr, ExprCall, Stmt};
use rustc_hash::FxHashMap;

use super::layout::is_identifier;
use super::library::Library;
use super::program::{Base, ClassId, ModId, Target};
use super::scope::last_name;

impl<'a> Library<'a> {
    /// All names under which a class is registered as a method, each with the class that gets it.
    pub(super) fn registrations(&self, class: ClassId) -> Vec<(String, Base)> {
        let mut found = Vec::new();
        let names = self.registered_names(class);
        if !names.is_empty()
            && let Some(base) = self.registration_base(class)
        {
            found.extend(names.into_iter().map(|name| (name, base.clone())));
        }
        found.extend(self.registered.get(&class).into_iter().flatten().cloned());
        found.retain(|(name, _)| !name.starts_with('_'));
        found
    }

    /// Statements that register a class: `Base.register_datapipe_as_function("name", Class)`.
    pub(super) fn registering_calls(&self) -> FxHashMap<ClassId, Vec<(String, Base)>> {
        let mut found: FxHashMap<ClassId, Vec<(String, Base)>> = FxHashMap::default();
        for (id, module) in self.program.modules.iter().enumerate() {
            for stmt in &module.scope.actions {
                let Stmt::Expr(stmt) = stmt else { continue };
                let Expr::Call(call) = &*stmt.value else { continue };
                let Expr::Attribute(method) = &*call.func else { continue };
                let method_name = method.attr.as_str();
                let registers = method_name.starts_with("register")
                    && (method_name.contains("function") || method_name.contains("method"));
                let [Expr::StringLiteral(name), registered, ..] = &*call.arguments.args else { continue };
                if !registers || !is_identifier(name.value.to_str()) {
                    continue;
                }
                let base = match self.program.resolve_expr(id, None, &method.value) {
                    Some(Target::Class(base)) => Base::Known(base),
                    Some(Target::External(base)) => Base::Unknown(base),
                    _ => continue,
                };
                if let Some(Target::Class(class)) = self.program.resolve_expr(id, None, registered) {
                    found.entry(class).or_default().push((name.value.to_str().to_owned(), base));
                }
            }
        }
        found
    }

    /// The names under which decorators register a class as a method of its base.
    ///
    /// A string argument alone proves nothing (`@command("run")`): the decorator must say so by its name
    /// (`functional...`), by registering functions in its own source, or the class's docstring must use the method.
    pub(super) fn registered_names(&self, class: ClassId) -> Vec<String> {
        let def = self.program.classes[class].def;
        if self.program.bases(class).is_empty() {
            return Vec::new();
        }
        let mut names = Vec::new();
        for decorator in &def.decorator_list {
            let Expr::Call(call) = &decorator.expression else { continue };
            let Some(name) = given_name(call) else { continue };
            let called = last_name(&decorator.expression).unwrap_or("");
            let shown = || {
                self.doc_of_class(class).is_some_and(|doc| {
                    doc.contains(&format!(".{name}("))
                        || doc.contains(&format!("functional name: ``{name}``"))
                })
            };
            if is_identifier(name)
                && !called.contains("accessor")
                && (called.contains("functional") || shown() || self.registers_functions(class, call))
            {
                names.push(name.to_owned());
            }
        }
        names
    }

    fn registers_functions(&self, class: ClassId, call: &ExprCall) -> bool {
        self.source_of(class, call).is_some_and(|(_, source)| {
            source.contains("register") && (source.contains("as_function") || source.contains("as_method"))
        })
    }

    /// The source of a decorator of `class`, and the module that it stands in.
    fn source_of(&self, class: ClassId, call: &ExprCall) -> Option<(ModId, &'a str)> {
        let module = self.program.classes[class].module;
        match self.program.resolve_expr(module, None, &call.func)? {
            Target::Class(id) => {
                let class = &self.program.classes[id];
                Some((class.module, self.program.modules[class.module].file.slice(class.def)))
            }
            Target::Function(function) => {
                Some((function.module, self.program.modules[function.module].file.slice(function.main())))
            }
            _ => None,
        }
    }

    /// The class that a decorator's own source puts the method on: `setattr(Strand, name, ...)`.
    fn put_on(&self, class: ClassId) -> Option<Base> {
        self.program.classes[class].def.decorator_list.iter().find_map(|decorator| {
            let Expr::Call(call) = &decorator.expression else { return None };
            given_name(call)?;
            let (module, source) = self.source_of(class, call)?;
            source.split("setattr(").skip(1).find_map(|rest| {
                let name = rest.split(',').next()?.trim();
                match self.program.resolve(module, name)? {
                    Target::Class(id) => Some(Base::Known(id)),
                    _ => None,
                }
            })
        })
    }

    /// Names that decorators register where nothing tells on which class: they are documented under the likely one and may stand on
    /// any.
    pub(super) fn put_who_knows_where(&self) -> BTreeSet<String> {
        let guessed = (0..self.program.classes.len()).filter(|&class| self.is_guessed(class));
        guessed.flat_map(|class| self.registered_names(class)).collect()
    }

    /// Whether the class that gets the methods of `class` is not told by the source of a decorator: by what it puts them on, or by
    /// the class that it has register them.
    fn is_guessed(&self, class: ClassId) -> bool {
        if self.registered_names(class).is_empty() || self.put_on(class).is_some() {
            return false;
        }
        let base = match self.registration_base(class) {
            Some(Base::Known(base)) => self.program.classes[base].def.name.as_str().to_owned(),
            Some(Base::Unknown(full)) => full.rsplit('.').next().unwrap_or_default().to_owned(),
            None => return true,
        };
        let told = format!("{base}.register");
        !self.program.classes[class].def.decorator_list.iter().any(|decorator| {
            let Expr::Call(call) = &decorator.expression else { return false };
            given_name(call).is_some()
                && self.source_of(class, call).is_some_and(|(_, source)| source.contains(&told))
        })
    }

    /// The class whose objects get the method: the one that the decorator puts it on, where its source says so; else the nearest
    /// base that is not registered itself.
    pub(super) fn registration_base(&self, class: ClassId) -> Option<Base> {
        if let Some(base) = self.put_on(class) {
            return Some(base);
        }
        let mut at = class;
        for _ in 0..16 {
            match self.program.bases(at).first()? {
                Base::Known(base) => {
                    let name = self.program.classes[*base].def.name.as_str();
                    if self.registered_names(*base).is_empty() && !name.starts_with('_') {
                        return Some(Base::Known(*base));
                    }
                    at = *base;
                }
                unknown => return Some(unknown.clone()),
            }
        }
        None
    }
}

fn given_name(call: &ExprCall) -> Option<&str> {
    match call.arguments.args.first() {
        Some(Expr::StringLiteral(literal)) => Some(literal.value.to_str()),
        Some(_) => None,
        None => call.arguments.keywords.iter().find_map(|keyword| match (&keyword.arg, &keyword.value) {
            (Some(name), Expr::StringLiteral(literal)) if name.as_str() == "name" => {
                Some(literal.value.to_str())
            }
            _ => None,
        }),
    }
}
