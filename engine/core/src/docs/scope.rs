//! What a module's or a class's body binds: names in source order, star imports, `__all__`, later changes.

use ruff_python_ast::{Expr, Stmt, StmtClassDef, StmtFunctionDef, StmtImportFrom};
use ruff_text_size::TextRange;
use rustc_hash::FxHashMap;

/// What a name stands for.
#[derive(Clone)]
pub(super) enum Binding<'a> {
    /// All definitions of one function: overloads, then the implementation.
    Function(Vec<&'a StmtFunctionDef>),
    Class(&'a StmtClassDef),
    Import(Import<'a>),
    Value(Assigned<'a>),
}

/// A name bound by an import statement.
#[derive(Clone)]
pub(super) struct Import<'a> {
    /// Absolute dotted name of the module.
    pub module: String,
    /// The name taken from it; `None` when the module itself is bound.
    pub name: Option<&'a str>,
    /// `from m import x as x` and `import x as x`: re-exported on purpose (PEP 484).
    pub explicit: bool,
    /// Relative, so within the package for sure.
    pub relative: bool,
}

/// A name bound by an assignment or an annotation.
#[derive(Clone, Copy)]
pub(super) struct Assigned<'a> {
    /// `None` for a bare annotation or one name of an unpacked tuple.
    pub value: Option<&'a Expr>,
    pub annotation: Option<&'a Expr>,
    pub range: TextRange,
    /// The string literal that follows as documentation.
    pub doc: Option<&'a Expr>,
}

/// One statement about `__all__`.
#[derive(Clone, Copy)]
pub(super) enum AllChange<'a> {
    Set(&'a Expr),
    Extend(&'a Expr),
    Append(&'a Expr),
    Remove(&'a Expr),
}

/// A change of a name's value after its assignment.
#[derive(Clone, Copy)]
pub(super) enum Update<'a> {
    /// `name[key] = value`
    Item(&'a Expr, &'a Expr),
    /// `name.update(...)`: the call.
    Merge(&'a Expr),
    /// `name += value`
    Extend(&'a Expr),
}

/// The bindings of one body.
#[derive(Default)]
pub(super) struct Scope<'a> {
    names: Vec<(&'a str, Binding<'a>, bool)>,
    index: FxHashMap<&'a str, usize>,
    /// Modules imported with `*`, absolute.
    pub stars: Vec<String>,
    pub all: Vec<AllChange<'a>>,
    pub updates: FxHashMap<&'a str, Vec<Update<'a>>>,
    /// Assignments to attributes: `X.__doc__ = value`.
    pub attributes: Vec<(&'a Expr, &'a str, &'a Expr)>,
    /// Calls and loops that may add members to classes.
    pub actions: Vec<&'a Stmt>,
    /// The string literal the body begins with.
    pub docstring: Option<&'a Expr>,
}

impl<'a> Scope<'a> {
    /// Names in the order in which they were first bound.
    pub fn names(&self) -> impl Iterator<Item = (&'a str, &Binding<'a>)> {
        self.names.iter().map(|(name, binding, _)| (*name, binding))
    }

    /// The binding of a name.
    pub fn get(&self, name: &str) -> Option<&Binding<'a>> {
        self.index.get(name).map(|&at| &self.names[at].1)
    }

    /// Whether a name exists for type checkers only.
    pub fn typing_only(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|&at| self.names[at].2)
    }
}

/// Collects the bindings of `body`. `module` is the dotted name that relative imports start from: that of the package
/// when `is_package`.
pub(super) fn scan<'a>(body: &'a [Stmt], module: &str, is_package: bool) -> Scope<'a> {
    let mut scanner = Scanner { scope: Scope::default(), module, is_package };
    if let Some(Stmt::Expr(first)) = body.first()
        && matches!(&*first.value, Expr::StringLiteral(_))
    {
        scanner.scope.docstring = Some(&first.value);
    }
    scanner.body(body, Branch::Main, 0);
    scanner.scope
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Main,
    /// The `else` or `except` side: what the main side bound stays.
    Alternative,
    /// Below `if TYPE_CHECKING`.
    Typing,
}

struct Scanner<'a, 'm> {
    scope: Scope<'a>,
    module: &'m str,
    is_package: bool,
}

impl<'a> Scanner<'a, '_> {
    fn body(&mut self, body: &'a [Stmt], branch: Branch, depth: usize) {
        for (i, stmt) in body.iter().enumerate() {
            let doc = match body.get(i + 1) {
                Some(Stmt::Expr(next)) if matches!(&*next.value, Expr::StringLiteral(_)) => {
                    Some(&*next.value)
                }
                _ => None,
            };
            self.statement(stmt, doc, branch, depth);
        }
    }

    fn statement(&mut self, stmt: &'a Stmt, doc: Option<&'a Expr>, branch: Branch, depth: usize) {
        match stmt {
            Stmt::FunctionDef(def) => self.function(def, branch),
            Stmt::ClassDef(def) => self.bind(def.name.as_str(), Binding::Class(def), branch),
            Stmt::Import(import) => {
                for alias in &import.names {
                    let (name, module) = match &alias.asname {
                        Some(asname) => (asname.as_str(), alias.name.as_str()),
                        None => {
                            let top = alias.name.split('.').next().unwrap_or_default();
                            (top, top)
                        }
                    };
                    let explicit = alias.asname.as_ref().is_some_and(|asname| asname.as_str() == module);
                    let import = Import { module: module.to_owned(), name: None, explicit, relative: false };
                    self.bind(name, Binding::Import(import), branch);
                }
            }
            Stmt::ImportFrom(import) => self.import_from(import, branch),
            Stmt::Assign(assign) => {
                for target in &assign.targets {
                    self.assign(target, Some(&assign.value), doc, branch);
                }
            }
            Stmt::AnnAssign(assign) => {
                if let Expr::Name(name) = &*assign.target {
                    if name.id.as_str() == "__all__" {
                        self.scope.all.extend(assign.value.as_deref().map(AllChange::Set));
                    }
                    let value = Assigned {
                        value: assign.value.as_deref(),
                        annotation: Some(&assign.annotation),
                        range: assign.range,
                        doc,
                    };
                    self.bind(name.id.as_str(), Binding::Value(value), branch);
                }
            }
            Stmt::TypeAlias(alias) => {
                if let Expr::Name(name) = &*alias.name {
                    let value =
                        Assigned { value: Some(&alias.value), annotation: None, range: alias.range, doc };
                    self.bind(name.id.as_str(), Binding::Value(value), branch);
                }
            }
            Stmt::AugAssign(assign) => {
                if let Expr::Name(name) = &*assign.target {
                    if name.id.as_str() == "__all__" {
                        self.scope.all.push(AllChange::Extend(&assign.value));
                    } else {
                        let updates = self.scope.updates.entry(name.id.as_str()).or_default();
                        updates.push(Update::Extend(&assign.value));
                    }
                }
            }
            Stmt::Expr(expr) => self.expression(stmt, &expr.value),
            Stmt::For(_) => self.scope.actions.push(stmt),
            Stmt::If(test) if depth < 64 => {
                let typing = is_type_checking(&test.test);
                let inner = match (branch, typing) {
                    (Branch::Main, true) => Branch::Typing,
                    _ => branch,
                };
                self.body(&test.body, inner, depth + 1);
                let otherwise = if typing { branch } else { Branch::Alternative };
                for clause in &test.elif_else_clauses {
                    self.body(&clause.body, otherwise, depth + 1);
                }
            }
            Stmt::Try(attempt) if depth < 64 => {
                self.body(&attempt.body, branch, depth + 1);
                self.body(&attempt.orelse, branch, depth + 1);
                for handler in &attempt.handlers {
                    let ruff_python_ast::ExceptHandler::ExceptHandler(handler) = handler;
                    self.body(&handler.body, Branch::Alternative, depth + 1);
                }
                self.body(&attempt.finalbody, branch, depth + 1);
            }
            Stmt::With(with) if depth < 64 => self.body(&with.body, branch, depth + 1),
            _ => {}
        }
    }

    fn bind(&mut self, name: &'a str, binding: Binding<'a>, branch: Branch) {
        let typing = branch == Branch::Typing;
        match self.scope.index.get(name) {
            Some(&at) => {
                let (_, existing, existing_typing) = &mut self.scope.names[at];
                // A bare annotation adds to an assignment and the other way round.
                if let (Binding::Value(old), Binding::Value(new)) = (&mut *existing, &binding) {
                    if new.value.is_none() {
                        old.annotation = old.annotation.or(new.annotation);
                        return;
                    }
                    if branch != Branch::Alternative {
                        let annotation = new.annotation.or(old.annotation);
                        *old = Assigned { annotation, ..*new };
                        *existing_typing = typing;
                    }
                    return;
                }
                let bare = matches!(&binding, Binding::Value(value) if value.value.is_none());
                let self_alias = matches!(&binding, Binding::Value(Assigned { value: Some(Expr::Call(_)), .. })
                    if matches!(existing, Binding::Function(_) | Binding::Class(_)));
                if *existing_typing || (branch == Branch::Main && !bare && !self_alias) {
                    *existing = binding;
                    *existing_typing = typing;
                }
            }
            None => {
                self.scope.index.insert(name, self.scope.names.len());
                self.scope.names.push((name, binding, typing));
            }
        }
    }

    fn function(&mut self, def: &'a StmtFunctionDef, branch: Branch) {
        let name = def.name.as_str();
        // `@x.setter` and its kin change a property; `@f.register` and `@f.overload` add to a function.
        let changes = def.decorator_list.iter().any(|decorator| {
            let target = match &decorator.expression {
                Expr::Call(call) => &*call.func,
                other => other,
            };
            matches!(target, Expr::Attribute(attribute)
                if matches!(&*attribute.value, Expr::Name(owner) if owner.id.as_str() == name)
                    && matches!(attribute.attr.as_str(), "setter" | "deleter" | "getter" | "register" | "expression"))
        });
        if changes && self.scope.index.contains_key(name) {
            return;
        }
        if let Some(&at) = self.scope.index.get(name)
            && let (_, Binding::Function(defs), _) = &mut self.scope.names[at]
        {
            let overloads = defs.iter().all(|earlier| is_overload(earlier));
            if overloads {
                defs.push(def);
                return;
            }
        }
        self.bind(name, Binding::Function(vec![def]), branch);
    }

    fn import_from(&mut self, import: &'a StmtImportFrom, branch: Branch) {
        let Some(module) = self.absolute(import) else { return };
        for alias in &import.names {
            let name = alias.name.as_str();
            if name == "*" {
                self.scope.stars.push(module.clone());
                continue;
            }
            let bound = alias.asname.as_ref().map_or(name, |asname| asname.as_str());
            let explicit = alias.asname.as_ref().is_some_and(|asname| asname.as_str() == name);
            let import =
                Import { module: module.clone(), name: Some(name), explicit, relative: import.level > 0 };
            self.bind(bound, Binding::Import(import), branch);
        }
    }

    /// The absolute module of a `from` import; `None` when it climbs out of the package.
    fn absolute(&self, import: &StmtImportFrom) -> Option<String> {
        let named = import.module.as_ref().map(|module| module.as_str());
        if import.level == 0 {
            return named.map(str::to_owned);
        }
        let mut base = self.module;
        let climb = import.level as usize - usize::from(self.is_package);
        for _ in 0..climb {
            base = match base.rsplit_once('.') {
                Some((parent, _)) => parent,
                None if base.is_empty() => return None,
                None => "",
            };
        }
        match (base, named) {
            ("", None) => None,
            ("", Some(named)) => Some(named.to_owned()),
            (base, None) => Some(base.to_owned()),
            (base, Some(named)) => Some(format!("{base}.{named}")),
        }
    }

    fn assign(&mut self, target: &'a Expr, value: Option<&'a Expr>, doc: Option<&'a Expr>, branch: Branch) {
        match target {
            Expr::Name(name) => {
                let name_str = name.id.as_str();
                if name_str == "__all__" {
                    self.scope.all.extend(value.map(AllChange::Set));
                }
                let assigned = Assigned { value, annotation: None, range: name.range, doc };
                self.bind(name_str, Binding::Value(assigned), branch);
            }
            Expr::Tuple(tuple) => self.unpack(&tuple.elts, value, branch),
            Expr::List(list) => self.unpack(&list.elts, value, branch),
            Expr::Subscript(subscript) => {
                if let (Expr::Name(name), Some(value)) = (&*subscript.value, value) {
                    let updates = self.scope.updates.entry(name.id.as_str()).or_default();
                    updates.push(Update::Item(&subscript.slice, value));
                }
            }
            Expr::Attribute(attribute) => {
                if let Some(value) = value {
                    self.scope.attributes.push((&attribute.value, attribute.attr.as_str(), value));
                }
            }
            _ => {}
        }
    }

    fn unpack(&mut self, targets: &'a [Expr], value: Option<&'a Expr>, branch: Branch) {
        let values: Option<&'a [Expr]> = match value {
            Some(Expr::Tuple(tuple)) if tuple.elts.len() == targets.len() => Some(&tuple.elts),
            _ => None,
        };
        for (i, target) in targets.iter().enumerate() {
            self.assign(target, values.map(|values| &values[i]), None, branch);
        }
    }

    fn expression(&mut self, stmt: &'a Stmt, expr: &'a Expr) {
        let Expr::Call(call) = expr else { return };
        if let Expr::Attribute(method) = &*call.func
            && let Expr::Name(owner) = &*method.value
        {
            let argument = call.arguments.args.first();
            if owner.id.as_str() == "__all__" {
                let change = match (method.attr.as_str(), argument) {
                    ("extend", Some(argument)) => AllChange::Extend(argument),
                    ("append", Some(argument)) => AllChange::Append(argument),
                    ("remove", Some(argument)) => AllChange::Remove(argument),
                    _ => return,
                };
                self.scope.all.push(change);
                return;
            }
            if method.attr.as_str() == "update" {
                self.scope.updates.entry(owner.id.as_str()).or_default().push(Update::Merge(expr));
                return;
            }
        }
        self.scope.actions.push(stmt);
    }
}

/// Whether a definition is one of several signatures (`typing.overload`).
pub(super) fn is_overload(def: &StmtFunctionDef) -> bool {
    def.decorator_list.iter().any(|decorator| last_name(&decorator.expression) == Some("overload"))
}

/// The last name of `a.b.c` or of what is called in `a.b.c(...)`.
pub(super) fn last_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Name(name) => Some(name.id.as_str()),
        Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
        Expr::Call(call) => match &*call.func {
            Expr::Name(name) => Some(name.id.as_str()),
            Expr::Attribute(attribute) => Some(attribute.attr.as_str()),
            _ => None,
        },
        _ => None,
    }
}

fn is_type_checking(test: &Expr) -> bool {
    last_name(test) == Some("TYPE_CHECKING") && !matches!(test, Expr::Call(_))
}
