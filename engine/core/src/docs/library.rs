//! The library as documentation sees it: the program with what was found out about docstrings and members, each
//! found out once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use ruff_python_ast::{Decorator, Expr};
use rustc_hash::FxHashMap;

use super::docstring;
use super::eval::Frame;
use super::losses::Loss;
use super::members::{Member, Members};
use super::program::{Base, ClassId, Function, Program, Target, Value};
use super::scope::{Binding, last_name};
use super::text;
use super::undocumented::HiddenNames;
use super::value::Val;

/// Steps of static evaluation for one library; beyond, values are unknown.
const FUEL: u64 = 20_000_000;
/// Docstrings that refer to docstrings.
const MAX_REFERENCES: usize = 24;

/// A docstring made ready for a record.
pub(super) struct Rendered {
    pub doc: String,
    pub first_sentence: String,
    pub examples: Vec<String>,
    /// Keeps the key of the cache alive.
    _raw: Rc<str>,
}

/// Members that later statements attach to a class, in order.
pub(super) type NamedMembers<'a> = Vec<(Rc<str>, Member<'a>)>;

/// Docstrings that are kept while records are written; more would cost more memory than finding them again costs time.
const MAX_KEPT_DOCS: usize = 8192;
/// As above, cleaned and with their examples. A text is asked for again soon or not at all.
const MAX_KEPT_RENDERED: usize = 512;

/// The program and everything evaluated so far.
pub(super) struct Library<'a> {
    pub program: &'a Program<'a>,
    pub(super) values: RefCell<FxHashMap<usize, Val<'a>>>,
    pub(super) calls: Cell<usize>,
    fuel: Cell<u64>,
    docs: RefCell<FxHashMap<usize, Option<Rc<str>>>>,
    rendered: RefCell<FxHashMap<usize, Rc<Rendered>>>,
    references: Cell<usize>,
    pub(super) own_members: RefCell<FxHashMap<ClassId, Rc<Members<'a>>>>,
    pub(super) added: RefCell<FxHashMap<ClassId, NamedMembers<'a>>>,
    /// Names and base classes under which statements register a class as a method.
    pub(super) registered: FxHashMap<ClassId, Vec<(String, Base)>>,
    /// Names that decorators register as methods of a class which their source does not tell.
    pub(super) put_anywhere: BTreeSet<String>,
    pub(super) losses: RefCell<BTreeSet<(Loss, String)>>,
    pub(super) hidden: RefCell<HiddenNames>,
    /// `X.__doc__ = value` by the key of X.
    assigned_docs: FxHashMap<usize, (usize, &'a Expr)>,
}

impl<'a> Library<'a> {
    /// A view of `program`; runs the statements that attach members to classes.
    pub fn new(program: &'a Program<'a>) -> Self {
        let mut library = Library {
            program,
            values: RefCell::default(),
            calls: Cell::new(0),
            fuel: Cell::new(FUEL),
            docs: RefCell::default(),
            rendered: RefCell::default(),
            references: Cell::new(0),
            own_members: RefCell::default(),
            added: RefCell::default(),
            registered: FxHashMap::default(),
            put_anywhere: BTreeSet::new(),
            losses: RefCell::default(),
            hidden: RefCell::default(),
            assigned_docs: FxHashMap::default(),
        };
        for (id, module) in program.modules.iter().enumerate() {
            for (owner, attribute, value) in &module.scope.attributes {
                if *attribute == "__doc__"
                    && let Some(target) = program.resolve_expr(id, None, owner)
                    && let Some(key) = library.doc_key(&target)
                {
                    library.assigned_docs.insert(key, (id, value));
                }
            }
        }
        library.registered = library.registering_calls();
        library.put_anywhere = library.put_who_knows_where();
        library.attach_members();
        library
    }

    fn attach_members(&self) {
        for (id, module) in self.program.modules.iter().enumerate() {
            if module.file.dependency {
                continue;
            }
            for (owner, attribute, value) in &module.scope.attributes {
                if attribute.starts_with('_') {
                    continue;
                }
                if let Some(Target::Class(class)) = self.program.resolve_expr(id, None, owner) {
                    let member = match self.eval(value, &mut Frame::new(id, None)) {
                        Val::Made(made) => Member::Made(made),
                        Val::Target(Target::Function(function)) => Member::Function(function),
                        _ => continue,
                    };
                    self.add_member(class, attribute, member);
                }
            }
            for stmt in &module.scope.actions {
                if self.may_attach(id, stmt) {
                    self.run_action(stmt, id);
                }
            }
        }
    }

    /// Whether evaluation may go on.
    pub(super) fn spend(&self) -> bool {
        let left = self.fuel.get();
        self.fuel.set(left.saturating_sub(1));
        left > 0
    }

    pub(super) fn add_member(&self, class: ClassId, name: &str, member: Member<'a>) {
        self.added.borrow_mut().entry(class).or_default().push((name.into(), member));
        self.own_members.borrow_mut().remove(&class);
    }

    fn doc_key(&self, target: &Target<'a>) -> Option<usize> {
        match target {
            Target::Function(function) => Some(function.key()),
            Target::Class(id) => Some(std::ptr::from_ref(self.program.classes[*id].def) as usize),
            Target::Value(value) => value.assigned.value.map(|expr| std::ptr::from_ref(expr) as usize),
            _ => None,
        }
    }

    /// The docstring of a module, class, function or value, as written or as supplied by decorators.
    pub(super) fn doc_of_target(&self, target: &Target<'a>) -> Option<Rc<str>> {
        match target {
            Target::Function(function) => self.doc_of_function(function),
            Target::Class(id) => self.doc_of_class(*id),
            Target::Module(id) => self.doc_of_module(*id),
            Target::Value(value) => {
                let key = self.doc_key(target);
                match key.and_then(|key| self.assigned_docs.get(&key)) {
                    Some((module, expr)) => self.literal(*module, expr),
                    None => self.literal(value.module, value.assigned.doc?),
                }
            }
            Target::External(_) => None,
        }
    }

    fn literal(&self, module: usize, expr: &'a Expr) -> Option<Rc<str>> {
        match self.eval(expr, &mut Frame::new(module, None)) {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The docstring of a module: its own, what `__doc__` is set to, or its stub's.
    pub(super) fn doc_of_module(&self, id: usize) -> Option<Rc<str>> {
        let module = &self.program.modules[id];
        if let Some(Binding::Value(assigned)) = module.scope.get("__doc__")
            && let Some(value) = assigned.value
            && let Some(doc) = self.literal(id, value)
        {
            return Some(doc);
        }
        let own = module.scope.docstring.and_then(|doc| self.literal(id, doc));
        own.or_else(|| self.doc_of_module(module.stub?))
    }

    /// The docstring of a class.
    pub(super) fn doc_of_class(&self, id: ClassId) -> Option<Rc<str>> {
        let class = &self.program.classes[id];
        let key = std::ptr::from_ref(class.def) as usize;
        self.cached_doc(key, || {
            let mut frame = Frame::new(class.module, Some(id));
            let own = match class.scope.get("__doc__") {
                Some(Binding::Value(assigned)) => assigned.value,
                _ => class.scope.docstring,
            };
            let own = own.and_then(|expr| match self.eval(expr, &mut frame) {
                Val::Str(text) => Some(text),
                _ => None,
            });
            let mut frame = Frame::new(class.module, class.outer);
            let supplied = self.decorated_doc(own, &class.def.decorator_list, &mut frame);
            supplied.or_else(|| self.doc_of_class(self.program.stub_class(id)?))
        })
    }

    /// The docstring of a function: its own, changed by the decorators that supply docstrings, or its stub's.
    pub(super) fn doc_of_function(&self, function: &Function<'a>) -> Option<Rc<str>> {
        self.cached_doc(function.key(), || {
            let mut frame = Frame::new(function.module, function.class);
            self.doc_in_frame(function, &mut frame)
                .or_else(|| self.doc_of_function(&self.program.stub_function(function)?))
        })
    }

    fn cached_doc(&self, key: usize, find: impl FnOnce() -> Option<Rc<str>>) -> Option<Rc<str>> {
        if let Some(known) = self.docs.borrow().get(&key) {
            return known.clone();
        }
        if self.references.get() > MAX_REFERENCES {
            return None;
        }
        // A docstring that leads back to itself is absent while it is looked for.
        self.docs.borrow_mut().insert(key, None);
        self.references.set(self.references.get() + 1);
        let assigned = self.assigned_docs.get(&key).and_then(|(module, expr)| self.literal(*module, expr));
        let doc = assigned.or_else(find).filter(|doc| !doc.trim().is_empty());
        self.references.set(self.references.get() - 1);
        if self.references.get() == 0 && self.docs.borrow().len() > MAX_KEPT_DOCS {
            self.docs.borrow_mut().clear();
        }
        self.docs.borrow_mut().insert(key, doc.clone());
        doc
    }

    /// The docstring of a function whose decorators see the names of `frame`.
    pub(super) fn doc_in_frame(&self, function: &Function<'a>, frame: &mut Frame<'a>) -> Option<Rc<str>> {
        let own = own_docstring(function);
        self.decorated_doc(own, &function.main().decorator_list, frame)
    }

    fn decorated_doc(
        &self,
        own: Option<Rc<str>>,
        decorators: &'a [Decorator],
        frame: &mut Frame<'a>,
    ) -> Option<Rc<str>> {
        let mut doc = own;
        for decorator in decorators.iter().rev() {
            let Expr::Call(call) = &decorator.expression else { continue };
            let name = last_name(&decorator.expression).unwrap_or("");
            match name {
                "doc" => {
                    let mut parts: Vec<String> = doc.iter().map(|own| text::dedent(own)).collect();
                    for argument in &call.arguments.args {
                        parts.extend(self.templates(argument, frame));
                    }
                    let values = self.merged(Vec::new(), call, frame);
                    let lookup =
                        |name: &str| values.iter().rev().find(|(key, _)| &**key == name)?.1.display();
                    let joined: String =
                        parts.into_iter().map(|part| text::format(&part, &lookup).unwrap_or(part)).collect();
                    doc = Some(joined.into());
                }
                "Appender" => {
                    if let Some(Val::Str(more)) =
                        call.arguments.args.first().map(|more| self.eval(more, frame))
                    {
                        let own = doc.as_deref().unwrap_or("");
                        doc = Some(text::dedent(&format!("{own}{more}")).into());
                    }
                }
                "Substitution" => {
                    let Some(own) = doc.as_deref() else { continue };
                    let named = self.merged(Vec::new(), call, frame);
                    let positional: Vec<Val<'a>> =
                        call.arguments.args.iter().map(|argument| self.eval(argument, frame)).collect();
                    let lookup = |name: &str| match name.parse::<usize>() {
                        Ok(at) => positional.get(at)?.display(),
                        Err(_) => named.iter().rev().find(|(key, _)| &**key == name)?.1.display(),
                    };
                    doc = Some(text::percent(own, &lookup).into());
                }
                _ if doc.is_none() => doc = self.supplied(name, call, frame),
                _ => {}
            }
        }
        doc
    }

    /// A docstring handed to some other decorator: a text, or the function that is wrapped or copied from.
    fn supplied(
        &self,
        name: &str,
        call: &'a ruff_python_ast::ExprCall,
        frame: &mut Frame<'a>,
    ) -> Option<Rc<str>> {
        let keywords = call.arguments.keywords.iter().filter(|keyword| {
            keyword
                .arg
                .as_ref()
                .is_some_and(|name| matches!(name.as_str(), "doc" | "docstring" | "doc_string"))
        });
        let lower = name.to_ascii_lowercase();
        let about_docs = lower.contains("doc") || lower.contains("inherit") || lower == "wraps";
        let candidates =
            call.arguments.args.iter().filter(|_| about_docs).chain(keywords.map(|keyword| &keyword.value));
        for candidate in candidates {
            match self.eval(candidate, frame) {
                Val::Str(text) if text.contains(' ') => return Some(text),
                Val::Target(target @ (Target::Function(_) | Target::Class(_))) => {
                    return self.doc_of_target(&target);
                }
                _ => {}
            }
        }
        None
    }

    /// What `@doc(argument)` appends: a text, or the templates of a function that `@doc` made too.
    fn templates(&self, argument: &'a Expr, frame: &mut Frame<'a>) -> Vec<String> {
        match self.eval(argument, frame) {
            Val::Str(text) => vec![text.to_string()],
            Val::Target(Target::Function(function)) if self.references.get() < MAX_REFERENCES => {
                self.references.set(self.references.get() + 1);
                let found = self.templates_of(&function);
                self.references.set(self.references.get() - 1);
                found
            }
            Val::Target(target) => {
                self.doc_of_target(&target).map(|doc| text::dedent(&doc)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn templates_of(&self, function: &Function<'a>) -> Vec<String> {
        let decorators = &function.main().decorator_list;
        let made_by_doc = decorators.iter().rev().find_map(|decorator| match &decorator.expression {
            Expr::Call(call) if last_name(&decorator.expression) == Some("doc") => Some(call),
            _ => None,
        });
        let Some(call) = made_by_doc else {
            // Braces of an ordinary docstring are no fields.
            let doc = self.doc_of_function(function);
            return doc
                .map(|doc| text::dedent(&doc).replace('{', "{{").replace('}', "}}"))
                .into_iter()
                .collect();
        };
        let mut parts: Vec<String> =
            own_docstring(function).map(|own| text::dedent(&own)).into_iter().collect();
        let mut frame = Frame::new(function.module, function.class);
        for argument in &call.arguments.args {
            parts.extend(self.templates(argument, &mut frame));
        }
        parts
    }

    /// The string after an assignment, or the `#:` comments before or behind it.
    pub(super) fn value_doc(&self, value: &Value<'a>) -> Option<Rc<str>> {
        if let Some(doc) = self.doc_of_target(&Target::Value(*value)) {
            return Some(doc);
        }
        let file = self.program.modules[value.module].file;
        let start = value.assigned.range.start().to_usize();
        let text = &file.text;
        let line_start = text.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
        let mut comments: Vec<&str> = Vec::new();
        for line in text.get(..line_start)?.lines().rev() {
            match line.trim().strip_prefix("#:") {
                Some(comment) => comments.push(comment.trim()),
                None => break,
            }
        }
        comments.reverse();
        if comments.is_empty() {
            let line = text.get(line_start..)?.lines().next()?;
            comments.push(line.split_once("#:")?.1.trim());
        }
        Some(comments.join("\n").into())
    }

    /// A docstring ready for a record; made once.
    pub(super) fn render(&self, raw: &Rc<str>) -> Rc<Rendered> {
        let key = raw.as_ptr() as usize;
        if let Some(known) = self.rendered.borrow().get(&key) {
            return known.clone();
        }
        let doc = docstring::clean(raw);
        let rendered = Rc::new(Rendered {
            first_sentence: docstring::first_sentence(&doc),
            examples: docstring::examples(&doc).into_iter().map(|example| example.code).collect(),
            doc,
            _raw: raw.clone(),
        });
        let mut kept = self.rendered.borrow_mut();
        if kept.len() > MAX_KEPT_RENDERED {
            kept.clear();
        }
        kept.insert(key, rendered.clone());
        rendered
    }
}

fn own_docstring(function: &Function<'_>) -> Option<Rc<str>> {
    function.defs.iter().rev().find_map(|def| match def.body.first() {
        Some(ruff_python_ast::Stmt::Expr(first)) => match &*first.value {
            Expr::StringLiteral(literal) => Some(Rc::from(literal.value.to_str())),
            _ => None,
        },
        _ => None,
    })
}
