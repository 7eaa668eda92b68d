//! What a module's or a class's body binds: names in source order, star imports, `__all__`, later changes.

use std::cell::OnceCell;

use ruff_python_ast::{Expr, Stmt, StmtClassDef, StmtFunctionDef, StmtImportFrom};
use ruff_text_size::{Ranged, TextRange};
use rustc_hash::{FxHashMap, FxHashSet};

use super::condition::{Interpreter, is_type_checking, truth};

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
    /// A call that may change it: `extend_all(module)`.
    Call(&'a Expr),
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

/// A name with all that may be bound to it.
struct Named<'a> {
    name: &'a str,
    binding: Binding<'a>,
    /// What other branches bind, or what an import replaced that may fail.
    others: Vec<Binding<'a>>,
    /// Bound below `if TYPE_CHECKING` alone.
    typing: bool,
    /// Gone at the end of the body (`del name`).
    deleted: bool,
    /// Bound to several values one after the other.
    reassigned: bool,
    /// Where the binding stands among names and star imports.
    at: usize,
}

impl<'a> Named<'a> {
    fn new(name: &'a str, binding: Binding<'a>, typing: bool, at: usize) -> Self {
        Named { name, binding, others: Vec::new(), typing, deleted: false, reassigned: false, at }
    }
}

/// `from module import *`.
pub(super) struct Star {
    /// Absolute dotted name.
    pub module: String,
    /// Below `if TYPE_CHECKING` alone.
    pub typing: bool,
    at: usize,
}

/// The bindings of one body.
#[derive(Default)]
pub(super) struct Scope<'a> {
    names: Vec<Named<'a>>,
    index: FxHashMap<&'a str, usize>,
    /// Modules imported with `*`, in order.
    pub stars: Vec<Star>,
    pub all: Vec<AllChange<'a>>,
    /// The literals in `__all__`, and whether there may be more.
    given: OnceCell<(FxHashSet<&'a str>, bool)>,
    pub updates: FxHashMap<&'a str, Vec<Update<'a>>>,
    /// Assignments to attributes: `X.__doc__ = value`.
    pub attributes: Vec<(&'a Expr, &'a str, &'a Expr)>,
    /// Calls and loops that may add members to classes.
    pub actions: Vec<&'a Stmt>,
    /// The string literal the body begins with.
    pub docstring: Option<&'a Expr>,
    /// Tests whose other side is not read, with the side that is: `true` the first.
    pub chosen: Vec<(TextRange, bool)>,
}

impl<'a> Scope<'a> {
    /// Names in the order in which they were first bound, without those that were deleted.
    pub fn names(&self) -> impl Iterator<Item = (&'a str, &Binding<'a>)> {
        self.names.iter().filter(|named| !named.deleted).map(|named| (named.name, &named.binding))
    }

    /// The binding of a name, a deleted one included: it was there while the body ran.
    pub fn get(&self, name: &str) -> Option<&Binding<'a>> {
        self.index.get(name).map(|&at| &self.names[at].binding)
    }

    /// What else a name may be bound to, the likeliest first.
    pub fn others(&self, name: &str) -> &[Binding<'a>] {
        self.index.get(name).map_or(&[], |&at| &self.names[at].others)
    }

    /// Whether a name that the body bound is gone at its end.
    pub fn is_deleted(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|&at| self.names[at].deleted)
    }

    /// Whether a name exists for type checkers only.
    pub fn typing_only(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|&at| self.names[at].typing)
    }

    /// Whether a name is bound to several values one after the other.
    pub fn is_reassigned(&self, name: &str) -> bool {
        self.index.get(name).is_some_and(|&at| self.names[at].reassigned)
    }

    /// The star imports that come after the binding of `name`, or all of them where it has none; the last first.
    pub fn stars_after(&self, name: &str) -> impl Iterator<Item = &Star> {
        let at = self.index.get(name).map(|&at| &self.names[at]).filter(|named| !named.deleted);
        let at = at.map_or(0, |named| named.at);
        self.stars.iter().rev().take_while(move |star| star.at >= at)
    }

    /// Whether `import *` of the module takes `name` with it, as far as that can be told without evaluating `__all__`.
    pub fn gives_by_star(&self, name: &str) -> bool {
        if self.all.is_empty() {
            return !name.starts_with('_');
        }
        let (literals, open) = self.given.get_or_init(|| {
            let (mut literals, mut open) = (FxHashSet::default(), false);
            for change in &self.all {
                match change {
                    AllChange::Remove(_) => {}
                    AllChange::Set(expr) | AllChange::Extend(expr) | AllChange::Append(expr) => {
                        literals_of(expr, &mut literals, &mut open);
                    }
                    AllChange::Call(_) => open = true,
                }
            }
            (literals, open)
        });
        *open || literals.contains(name)
    }

    /// Binds a name that the module makes on demand (PEP 562): `taken` of `module`.
    pub fn bind_lazily(&mut self, name: &'a str, module: String, taken: &'a str) {
        match self.index.get(name) {
            Some(&at) if self.names[at].typing => self.names[at].typing = false,
            Some(_) => {}
            None => {
                let import = Import { module, name: Some(taken), explicit: true, relative: true };
                self.index.insert(name, self.names.len());
                self.names.push(Named::new(name, Binding::Import(import), false, 0));
            }
        }
    }
}

/// The strings of a list literal; `open` where there is more than literals.
fn literals_of<'a>(expr: &'a Expr, found: &mut FxHashSet<&'a str>, open: &mut bool) {
    match expr {
        Expr::StringLiteral(literal) => drop(found.insert(literal.value.to_str())),
        Expr::List(ruff_python_ast::ExprList { elts, .. })
        | Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
        | Expr::Set(ruff_python_ast::ExprSet { elts, .. }) => {
            elts.iter().for_each(|item| literals_of(item, found, open));
        }
        _ => *open = true,
    }
}

/// Collects the bindings of `body`. `module` is the dotted name that relative imports start from: that of the package
/// when `is_package`.
pub(super) fn scan<'a>(
    body: &'a [Stmt],
    module: &str,
    is_package: bool,
    interpreter: Interpreter,
) -> Scope<'a> {
    let mut scanner = Scanner { scope: Scope::default(), module, is_package, interpreter, at: 0 };
    if let Some(Stmt::Expr(first)) = body.first()
        && matches!(&*first.value, Expr::StringLiteral(_))
    {
        scanner.scope.docstring = Some(&first.value);
    }
    scanner.body(body, Branch::Main, 0);
    scanner.scope.names.shrink_to_fit();
    scanner.scope
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Main,
    /// Below a condition that is not known: a definition that is there already stays.
    Perhaps,
    /// The `else` or `except` side: what the main side bound stays.
    Alternative,
    /// Below `if TYPE_CHECKING`.
    Typing,
}

struct Scanner<'a, 'm> {
    scope: Scope<'a>,
    module: &'m str,
    is_package: bool,
    interpreter: Interpreter,
    at: usize,
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
            Stmt::For(each) => {
                self.scope.actions.push(stmt);
                if depth < 64 {
                    self.body(&each.body, branch, depth + 1);
                }
            }
            Stmt::If(test) if depth < 64 => self.choice(test, branch, depth),
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
            Stmt::While(repeat) if depth < 64 => self.body(&repeat.body, branch, depth + 1),
            Stmt::Match(choice) if depth < 64 => {
                for (i, case) in choice.cases.iter().enumerate() {
                    let branch = if i == 0 { branch } else { Branch::Alternative };
                    self.body(&case.body, branch, depth + 1);
                }
            }
            Stmt::Delete(delete) => {
                for target in &delete.targets {
                    if let Expr::Name(name) = target
                        && branch == Branch::Main
                        && let Some(&at) = self.scope.index.get(name.id.as_str())
                    {
                        self.scope.names[at].deleted = true;
                    }
                }
            }
            _ => {}
        }
    }

    /// `if`: the side that version, platform or a constant decide for, or all sides.
    fn choice(&mut self, test: &'a ruff_python_ast::StmtIf, branch: Branch, depth: usize) {
        let mut branch = branch;
        let first = (Some(&*test.test), test.body.as_slice());
        let others =
            test.elif_else_clauses.iter().map(|clause| (clause.test.as_ref(), clause.body.as_slice()));
        let last = test.elif_else_clauses.len();
        for (i, (condition, body)) in std::iter::once(first).chain(others).enumerate() {
            let Some(condition) = condition else {
                self.body(body, branch, depth + 1);
                continue;
            };
            if is_type_checking(condition) {
                let inner =
                    if matches!(branch, Branch::Main | Branch::Perhaps) { Branch::Typing } else { branch };
                self.body(body, inner, depth + 1);
                continue;
            }
            match truth(condition, &self.scope, self.interpreter) {
                Some(true) => {
                    if i < last {
                        self.scope.chosen.push((condition.range(), true));
                    }
                    self.body(body, branch, depth + 1);
                    return;
                }
                Some(false) => self.scope.chosen.push((condition.range(), false)),
                None => {
                    let inner = if branch == Branch::Main { Branch::Perhaps } else { branch };
                    self.body(body, inner, depth + 1);
                    if matches!(branch, Branch::Main | Branch::Perhaps) {
                        branch = Branch::Alternative;
                    }
                }
            }
        }
    }

    fn bind(&mut self, name: &'a str, binding: Binding<'a>, branch: Branch) {
        self.at += 1;
        let (typing, here) = (branch == Branch::Typing, self.at);
        let Some(&at) = self.scope.index.get(name) else {
            self.scope.index.insert(name, self.scope.names.len());
            self.scope.names.push(Named::new(name, binding, typing, here));
            return;
        };
        let named = &mut self.scope.names[at];
        if named.deleted && branch != Branch::Alternative {
            *named = Named::new(name, binding, typing, here);
            return;
        }
        if let (Binding::Value(old), Binding::Value(new)) = (&mut named.binding, &binding) {
            // A bare annotation adds to an assignment and the other way round.
            if new.value.is_none() {
                old.annotation = old.annotation.or(new.annotation);
                return;
            }
            named.reassigned |= old.value.is_some();
            if branch != Branch::Alternative {
                let annotation = new.annotation.or(old.annotation);
                *old = Assigned { annotation, ..*new };
                (named.typing, named.at) = (typing, here);
            }
            return;
        }
        // `if TYPE_CHECKING: from a import X`, `else: X = f()`: the import says what it is.
        if named.typing && matches!((&named.binding, &binding), (Binding::Import(_), Binding::Value(_))) {
            named.typing = typing;
            return;
        }
        let bare = matches!(&binding, Binding::Value(value) if value.value.is_none());
        let self_alias = matches!(&binding, Binding::Value(Assigned { value: Some(Expr::Call(_)), .. })
            if matches!(named.binding, Binding::Function(_) | Binding::Class(_)));
        let defined = matches!(named.binding, Binding::Function(_) | Binding::Class(_));
        let replaces = branch == Branch::Main || (branch == Branch::Perhaps && !defined);
        if (named.typing && !typing) || (replaces && !bare && !self_alias) {
            let old = std::mem::replace(&mut named.binding, binding);
            // An import may fail, and what was there before then stays.
            if matches!(named.binding, Binding::Import(_)) {
                named.others.insert(0, old);
            }
            (named.typing, named.at) = (typing, here);
        } else if !bare && !self_alias && !typing {
            named.others.push(binding);
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
            && let Named { binding: Binding::Function(defs), typing, deleted: false, .. } =
                &mut self.scope.names[at]
            // So were those before it, or it would not be among them.
            && defs.last().is_some_and(|earlier| is_overload(earlier))
        {
            defs.push(def);
            *typing &= branch == Branch::Typing;
            return;
        }
        self.bind(name, Binding::Function(vec![def]), branch);
    }

    fn import_from(&mut self, import: &'a StmtImportFrom, branch: Branch) {
        let Some(module) = self.absolute(import) else { return };
        for alias in &import.names {
            let name = alias.name.as_str();
            if name == "*" {
                self.at += 1;
                let typing = branch == Branch::Typing;
                self.scope.stars.push(Star { module: module.clone(), typing, at: self.at });
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
                    ("insert", Some(_)) if call.arguments.args.len() == 2 => {
                        AllChange::Append(&call.arguments.args[1])
                    }
                    ("clear" | "sort" | "reverse", _) => return,
                    _ => AllChange::Call(expr),
                };
                self.scope.all.push(change);
                return;
            }
            if method.attr.as_str() == "update" {
                self.scope.updates.entry(owner.id.as_str()).or_default().push(Update::Merge(expr));
                return;
            }
        }
        if !self.scope.all.is_empty() && matches!(&*call.func, Expr::Name(_)) {
            self.scope.all.push(AllChange::Call(expr));
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
