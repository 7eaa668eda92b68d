//! What a completion does with the APIs of an index, read from its syntax tree: which it calls, which do not exist, which
//! are called as they cannot be.

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_stmt};
use ruff_python_ast::{Comprehension, Expr, ExprCall, Stmt, StmtFunctionDef};
use ruff_text_size::{Ranged, TextSize};
use serde::Serialize;

use super::calls::CallLog;
use super::library::{Kind, Library, NodeId, SetKey};
use super::scope::{ScopeKind, Scopes, Ty};
use super::signature::Signature;
use crate::python;

/// Expressions that are nested deeper are not looked into.
const MAX_DEPTH: usize = 200;

/// What is to be said of a use of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It is in the index, and called as its signature allows where it is called.
    Indexed,
    /// It exists, but no record documents it.
    Undocumented,
    /// The module or class has no such member.
    UnknownMember,
    /// The call has arguments too many or too few.
    ImpossibleArity,
    /// The call has a keyword that the callable does not take.
    UnknownKeyword,
}

/// One use of an API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiUse {
    /// The dotted name in the index, or the one that is not there.
    pub name: String,
    /// What is to be said of it.
    pub verdict: Verdict,
    /// The keyword or the numbers at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// 1-based line in the completion.
    pub line: usize,
    /// 1-based column in it, in characters.
    pub column: usize,
}

/// How a completion uses the APIs of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiReport {
    /// Uses, in the order of the text.
    pub uses: Vec<ApiUse>,
    /// How many of them are in order.
    pub indexed: usize,
    /// How many refer to a member that does not exist.
    pub unknown: usize,
    /// How many are calls that cannot succeed.
    pub misused: usize,
    /// Whether the whole code, context and completion, is Python without a syntax error.
    pub parses: bool,
}

/// Reads `context` and the `completion` after it, which may be cut anywhere or be no Python at all; reports on the
/// completion alone.
pub fn report(library: &Library, context: &str, completion: &str) -> ApiReport {
    let text = format!("{context}{completion}");
    let read = python::read(&text, |parsed| {
        let mut reader = Reader::new(library, &text);
        reader.visit_body(parsed.suite());
        (reader.found, parsed.errors().is_empty())
    });
    let Ok((mut found, parses)) = read else { return ApiReport::default() };
    found.retain(|(at, _)| at.to_usize() >= context.len());
    found.sort_by_key(|(at, _)| *at);
    let mut report = ApiReport { parses, ..ApiReport::default() };
    for (at, mut api) in found {
        let before = &text[context.len()..at.to_usize()];
        api.line = before.matches('\n').count() + 1;
        api.column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        match api.verdict {
            Verdict::Indexed => report.indexed += 1,
            Verdict::UnknownMember => report.unknown += 1,
            Verdict::ImpossibleArity | Verdict::UnknownKeyword => report.misused += 1,
            Verdict::Undocumented => {}
        }
        report.uses.push(api);
    }
    report
}

/// Walks a syntax tree and follows what its names mean.
pub(super) struct Reader<'l, 't> {
    library: &'l Library,
    text: &'t str,
    scopes: Scopes,
    /// Blocks around the statement.
    block: usize,
    /// Expressions around the expression.
    depth: usize,
    found: Vec<(TextSize, ApiUse)>,
    /// Every call, where they are wanted rather than a judgement.
    pub(super) calls: Option<CallLog>,
}

impl<'l, 't> Reader<'l, 't> {
    pub(super) fn new(library: &'l Library, text: &'t str) -> Self {
        Self { library, text, scopes: Scopes::default(), block: 0, depth: 0, found: Vec::new(), calls: None }
    }
}

impl Reader<'_, '_> {
    fn note(&mut self, at: TextSize, name: String, verdict: Verdict, detail: Option<String>) {
        self.found.push((at, ApiUse { name, verdict, detail, line: 0, column: 0 }));
    }

    fn bind(&mut self, name: &str, ty: Ty) {
        self.scopes.bind(name, ty, self.block, false);
    }

    /// Binds every name in an assignment's target to something unknown; visits what else stands in it.
    fn release(&mut self, target: &Expr) {
        match target {
            Expr::Name(name) => self.bind(name.id.as_str(), Ty::Free),
            Expr::Tuple(tuple) => tuple.elts.iter().for_each(|element| self.release(element)),
            Expr::List(list) => list.elts.iter().for_each(|element| self.release(element)),
            Expr::Starred(starred) => self.release(&starred.value),
            // An attribute that is set needs not exist.
            Expr::Attribute(attribute) => self.visit_expr(&attribute.value),
            other => self.visit_expr(other),
        }
    }

    fn member(&mut self, owner: Ty, name: &str, at: TextSize) {
        let library = self.library;
        let (id, key, closed) = match owner {
            Ty::Module(id) => (id, SetKey::Module(id), library.is_closed_module(id)),
            Ty::Class(id) => (id, SetKey::Class(id), library.is_closed(id)),
            Ty::Object(id) => (id, SetKey::Object(id), library.is_closed(id)),
            Ty::Free | Ty::Unknown | Ty::Callable(_) => return,
        };
        match library.child(id, name) {
            Some(child) => {
                if library.kind(child) != Kind::Module {
                    self.note(at, library.full_name(child), Verdict::Indexed, None);
                }
            }
            None => {
                let full = format!("{}.{name}", library.full_name(id));
                if library.names(key).contains(name.as_bytes()) {
                    self.note(at, full, Verdict::Undocumented, None);
                } else if closed {
                    self.note(at, full, Verdict::UnknownMember, None);
                }
            }
        }
    }

    /// Visits an expression and says what it is.
    fn ty(&mut self, expr: &Expr) -> Ty {
        if self.depth >= MAX_DEPTH {
            return Ty::Free;
        }
        self.depth += 1;
        let ty = match expr {
            Expr::Name(name) => self.scopes.lookup(name.id.as_str()),
            Expr::Attribute(attribute) => {
                let owner = self.ty(&attribute.value);
                let name = attribute.attr.as_str();
                if !name.is_empty() {
                    self.member(owner, name, attribute.attr.start());
                }
                owner.attribute(self.library, name)
            }
            Expr::Call(call) => self.call(call),
            Expr::Subscript(subscript) => {
                let owner = self.ty(&subscript.value);
                self.visit_expr(&subscript.slice);
                if matches!(owner, Ty::Object(_) | Ty::Unknown) { Ty::Unknown } else { Ty::Free }
            }
            Expr::StringLiteral(_) | Expr::List(_) | Expr::Dict(_) | Expr::Set(_) => {
                walk_expr(self, expr);
                Ty::Unknown
            }
            other => {
                self.enter(other);
                Ty::Free
            }
        };
        self.depth -= 1;
        ty
    }

    fn enter(&mut self, expr: &Expr) {
        match expr {
            Expr::Lambda(lambda) => {
                for parameter in lambda.parameters.iter().flat_map(|list| list.iter()) {
                    self.bind(parameter.name().as_str(), Ty::Free);
                }
                walk_expr(self, expr);
            }
            Expr::Named(named) => {
                self.visit_expr(&named.value);
                self.release(&named.target);
            }
            _ => walk_expr(self, expr),
        }
    }

    fn call(&mut self, call: &ExprCall) -> Ty {
        let through_class = matches!(&*call.func, Expr::Attribute(attribute)
            if matches!(&*attribute.value, Expr::Name(name) if matches!(self.scopes.lookup(name.id.as_str()), Ty::Class(_))));
        let before = self.found.len();
        let callee = self.ty(&call.func);
        if let Some(calls) = &mut self.calls {
            calls.note(&call.func, callee, self.library);
        }
        for argument in &call.arguments.args {
            self.visit_expr(argument);
        }
        for keyword in &call.arguments.keywords {
            self.visit_expr(&keyword.value);
        }
        if let Ty::Class(id) | Ty::Callable(id) = callee
            && let Some((verdict, detail)) = self.fault(id, call, through_class)
        {
            let at = match &*call.func {
                Expr::Attribute(attribute) => attribute.attr.start(),
                func => func.start(),
            };
            // The use and what is wrong with it are one entry.
            let name = self.library.full_name(id);
            if let Some(i) =
                (before..self.found.len()).find(|&i| self.found[i].0 == at && self.found[i].1.name == name)
            {
                self.found.remove(i);
            }
            self.note(at, name, verdict, Some(detail));
        } else if let (Ty::Class(id) | Ty::Callable(id), Expr::Name(name)) = (callee, &*call.func) {
            self.note(name.start(), self.library.full_name(id), Verdict::Indexed, None);
        }
        if let Expr::Name(name) = &*call.func
            && matches!(name.id.as_str(), "isinstance" | "issubclass" | "hasattr" | "setattr" | "cast")
            && let Some(Expr::Name(narrowed)) = call.arguments.args.first()
        {
            self.scopes.forget(narrowed.id.as_str());
        }
        callee.call(self.library)
    }

    /// Why no signature of the callable takes this call.
    fn fault(&self, id: NodeId, call: &ExprCall, through_class: bool) -> Option<(Verdict, String)> {
        let signatures = self.library.signatures(id)?;
        let faults: Option<Vec<_>> =
            signatures.iter().map(|signature| self.misfit(signature, call, through_class)).collect();
        faults?.into_iter().next()
    }

    fn misfit(
        &self,
        signature: &Signature,
        call: &ExprCall,
        through_class: bool,
    ) -> Option<(Verdict, String)> {
        let arguments = &call.arguments;
        for keyword in &arguments.keywords {
            if let Some(name) = &keyword.arg
                && !signature.takes(name.as_str())
            {
                return Some((Verdict::UnknownKeyword, name.to_string()));
            }
        }
        let spread = arguments.args.iter().any(Expr::is_starred_expr);
        // The receiver of a method called through its class.
        let receiver = usize::from(through_class);
        let given = arguments.args.len();
        if !spread && !signature.rest && given > signature.positional.len() + receiver {
            let detail = format!("{given} positional arguments, at most {}", signature.positional.len());
            return Some((Verdict::ImpossibleArity, detail));
        }
        let spread = spread || arguments.keywords.iter().any(|keyword| keyword.arg.is_none());
        let end = call.end().to_usize();
        let cut = !self.text.get(..end).is_some_and(|text| text.ends_with(')'));
        if spread || cut || through_class {
            return None;
        }
        let named = |name: &str| {
            arguments
                .keywords
                .iter()
                .any(|keyword| keyword.arg.as_ref().is_some_and(|arg| arg.as_str() == name))
        };
        let missing = signature.positional.iter().skip(given).chain(&signature.keyword_only);
        let missing: Vec<&str> =
            missing.filter(|(name, required)| *required && !named(name)).map(|(name, _)| &**name).collect();
        (!missing.is_empty()).then(|| (Verdict::ImpossibleArity, format!("without {}", missing.join(", "))))
    }

    fn function(&mut self, def: &StmtFunctionDef) {
        self.bind(def.name.as_str(), Ty::Free);
        for decorator in &def.decorator_list {
            self.visit_expr(&decorator.expression);
        }
        let mut parameters = Vec::new();
        for parameter in def.parameters.iter() {
            if let Some(default) = parameter.default() {
                self.visit_expr(default);
            }
            let ty = match parameter.annotation().map(|annotation| self.ty(annotation)) {
                Some(Ty::Class(id)) if !parameter.is_variadic() => Ty::Object(id),
                _ => Ty::Free,
            };
            parameters.push((parameter.name().as_str(), ty));
        }
        if let Some(returns) = &def.returns {
            self.visit_expr(returns);
        }
        self.scopes.enter(ScopeKind::Function, self.block);
        for (name, ty) in parameters {
            self.bind(name, ty);
        }
        self.visit_body(&def.body);
        self.scopes.dedent(self.block);
    }

    fn import(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Import(import) => {
                for alias in &import.names {
                    let full = alias.name.as_str();
                    let top = full.split('.').next().unwrap_or_default();
                    let ty = |id: Option<NodeId>| id.map_or(Ty::Free, |id| Ty::of(self.library, id));
                    let bound = alias.asname.as_ref().map_or(top, |name| name.as_str());
                    if let Some(calls) = &mut self.calls {
                        calls.note_import(bound, full);
                    }
                    match &alias.asname {
                        Some(name) => self.bind(name.as_str(), ty(self.library.find(full))),
                        None => self.bind(top, ty(self.library.top(top))),
                    }
                }
            }
            Stmt::ImportFrom(import) => {
                let named = import.module.as_ref().map_or("", |module| module.as_str());
                let full = match &self.calls {
                    Some(calls) => calls.absolute(named, import.level),
                    None => (import.level == 0).then(|| named.to_owned()),
                };
                let module = full.as_deref().and_then(|module| self.library.find(module));
                for alias in &import.names {
                    let name = alias.name.as_str();
                    if name == "*" || name.is_empty() {
                        continue;
                    }
                    if let Some(id) = module.filter(|&id| self.library.kind(id) == Kind::Module) {
                        self.member(Ty::Module(id), name, alias.name.start());
                    }
                    let mut child = module.and_then(|module| self.library.child(module, name));
                    if let (Some(calls), Some(full)) = (&mut self.calls, &full) {
                        let bound = alias.asname.as_ref().map_or(name, |name| name.as_str());
                        calls.note_import(bound, &format!("{full}.{name}"));
                        // A module that users do not import, but whose names they do under another path.
                        child = child.or_else(|| self.library.only_one_named(full, name));
                    }
                    let ty = child.map_or(Ty::Free, |id| Ty::of(self.library, id));
                    self.bind(alias.asname.as_ref().map_or(name, |name| name.as_str()), ty);
                }
            }
            _ => {}
        }
    }
}

impl<'a> Visitor<'a> for Reader<'_, '_> {
    fn visit_expr(&mut self, expr: &'a Expr) {
        self.ty(expr);
    }

    fn visit_comprehension(&mut self, comprehension: &'a Comprehension) {
        self.visit_expr(&comprehension.iter);
        self.release(&comprehension.target);
        comprehension.ifs.iter().for_each(|test| self.visit_expr(test));
    }

    fn visit_body(&mut self, body: &'a [Stmt]) {
        self.block += 1;
        body.iter().for_each(|stmt| self.visit_stmt(stmt));
        self.block -= 1;
        self.scopes.dedent(self.block);
    }

    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Import(_) | Stmt::ImportFrom(_) => self.import(stmt),
            Stmt::FunctionDef(def) => self.function(def),
            Stmt::ClassDef(def) => {
                self.bind(def.name.as_str(), Ty::Free);
                def.decorator_list.iter().for_each(|decorator| self.visit_expr(&decorator.expression));
                def.arguments.iter().flat_map(|list| &list.args).for_each(|base| self.visit_expr(base));
                self.scopes.enter(ScopeKind::Class, self.block);
                self.visit_body(&def.body);
                self.scopes.dedent(self.block);
            }
            Stmt::Assign(assign) => {
                let ty = self.ty(&assign.value);
                for target in &assign.targets {
                    match target {
                        Expr::Name(name) => self.bind(name.id.as_str(), ty),
                        other => self.release(other),
                    }
                }
            }
            Stmt::AnnAssign(assign) => {
                let annotation = self.ty(&assign.annotation);
                if let Some(value) = &assign.value {
                    self.visit_expr(value);
                }
                match (&*assign.target, annotation) {
                    (Expr::Name(name), Ty::Class(id)) => self.bind(name.id.as_str(), Ty::Object(id)),
                    (target, _) => self.release(target),
                }
            }
            Stmt::AugAssign(assign) => {
                self.visit_expr(&assign.value);
                self.release(&assign.target);
            }
            Stmt::For(each) => {
                self.visit_expr(&each.iter);
                self.release(&each.target);
                self.visit_body(&each.body);
                self.visit_body(&each.orelse);
            }
            Stmt::With(with) => {
                for item in &with.items {
                    self.visit_expr(&item.context_expr);
                    if let Some(target) = &item.optional_vars {
                        self.release(target);
                    }
                }
                self.visit_body(&with.body);
            }
            Stmt::Global(global) => global.names.iter().for_each(|name| self.scopes.forget(name.as_str())),
            Stmt::Nonlocal(nonlocal) => {
                nonlocal.names.iter().for_each(|name| self.scopes.forget(name.as_str()))
            }
            Stmt::Try(attempt) => {
                for handler in &attempt.handlers {
                    let ruff_python_ast::ExceptHandler::ExceptHandler(handler) = handler;
                    if let Some(name) = &handler.name {
                        self.scopes.forget(name.as_str());
                    }
                }
                walk_stmt(self, stmt);
            }
            Stmt::Match(_) => {
                // Patterns bind names of any type; none of them is followed.
            }
            other => walk_stmt(self, other),
        }
    }
}
