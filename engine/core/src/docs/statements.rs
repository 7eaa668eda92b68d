//! Static evaluation of statements: function bodies and module-level code that attach members to classes.

use std::rc::Rc;

use ruff_python_ast::{Expr, Stmt};

use super::calls::MAX_ROUNDS;
use super::eval::{Frame, bind_target};
use super::library::Library;
use super::members::{Bound, Made, MadeKind};
use super::program::{Function, Target};
use super::scope::last_name;
use super::value::{Val, binary};

/// Where execution goes on.
pub(super) enum Flow<'a> {
    Next,
    Leave,
    Return(Val<'a>),
}

impl<'a> Library<'a> {
    /// Runs a statement of a module's body that may attach members to classes.
    pub(super) fn run_action(&self, stmt: &'a Stmt, module: usize) {
        let mut frame = Frame::new(module, None);
        self.run(std::slice::from_ref(stmt), &mut frame);
    }

    pub(super) fn run(&self, body: &'a [Stmt], frame: &mut Frame<'a>) -> Flow<'a> {
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
                let made = Val::Made(Rc::new(Made { kind, doc, function, bound: Bound::default() }));
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
                    let value = binary(assign.op, old, more);
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
                    let made = Made {
                        kind: made.kind,
                        doc,
                        function: made.function.clone(),
                        bound: made.bound.clone(),
                    };
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
}
