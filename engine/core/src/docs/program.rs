//! All modules of a library side by side, and what a dotted name in one of them means.

use std::cell::{OnceCell, RefCell};

use ruff_python_ast::{Expr, StmtClassDef, StmtFunctionDef};
use rustc_hash::{FxHashMap, FxHashSet};

use super::condition::Interpreter;
use super::lazy;
use super::parse::ParsedFile;
use super::scope::{self, Assigned, Binding, Scope};

/// Position of a module in [`Program::modules`].
pub(super) type ModId = usize;
/// Position of a class in [`Program::classes`].
pub(super) type ClassId = usize;

/// Imports that lead from one to the next before a cycle is assumed.
const MAX_HOPS: usize = 40;
/// Classes in a method resolution order.
const MAX_MRO: usize = 256;

/// What a name means.
#[derive(Clone)]
pub(super) enum Target<'a> {
    Module(ModId),
    Class(ClassId),
    Function(Function<'a>),
    Value(Value<'a>),
    /// A dotted name outside what was read.
    External(String),
}

/// A function or method: its definitions (overloads, then the implementation) and where they stand.
#[derive(Clone)]
pub(super) struct Function<'a> {
    pub module: ModId,
    pub class: Option<ClassId>,
    pub defs: Vec<&'a StmtFunctionDef>,
}

impl<'a> Function<'a> {
    /// The implementation, or the last overload.
    pub fn main(&self) -> &'a StmtFunctionDef {
        self.defs[self.defs.len() - 1]
    }

    /// An identity for maps: the address of the tree node, which never moves while the program lives.
    pub fn key(&self) -> usize {
        std::ptr::from_ref(self.main()) as usize
    }
}

/// An assigned name and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub module: ModId,
    pub class: Option<ClassId>,
    pub assigned: Assigned<'a>,
}

/// A module: its file and what it binds.
pub(super) struct Module<'a> {
    pub file: &'a ParsedFile,
    pub scope: Scope<'a>,
    /// The module of the `.pyi` file beside it.
    pub stub: Option<ModId>,
}

/// A class, nested ones included.
pub(super) struct Class<'a> {
    pub def: &'a StmtClassDef,
    pub module: ModId,
    pub outer: Option<ClassId>,
    pub scope: Scope<'a>,
    bases: OnceCell<Vec<Base>>,
    mro: OnceCell<Vec<ClassId>>,
}

/// A base class.
#[derive(Clone)]
pub(super) enum Base {
    Known(ClassId),
    /// Dotted name of a class outside, or the text of an expression.
    Unknown(String),
}

/// The modules of a library (and of the dependencies looked into), with their classes.
pub(super) struct Program<'a> {
    pub modules: Vec<Module<'a>>,
    pub classes: Vec<Class<'a>>,
    interpreter: Interpreter,
    by_name: FxHashMap<&'a str, ModId>,
    class_ids: FxHashMap<usize, ClassId>,
    /// Modules outside that a name led to: what a search of the dependencies may add.
    wanted: RefCell<Vec<String>>,
    star_guard: RefCell<Vec<(ModId, String)>>,
}

impl<'a> Program<'a> {
    /// Scans all files. Of two files for one module the one that is no stub stands for it.
    pub fn new(files: &'a [ParsedFile], interpreter: Interpreter) -> Self {
        let known: FxHashSet<&str> = files.iter().map(|file| file.module.as_str()).collect();
        let mut program = Program {
            interpreter,
            modules: Vec::with_capacity(files.len()),
            classes: Vec::new(),
            by_name: FxHashMap::default(),
            class_ids: FxHashMap::default(),
            wanted: RefCell::default(),
            star_guard: RefCell::default(),
        };
        for (id, file) in files.iter().enumerate() {
            let mut scope = scope::scan(&file.body, &file.module, file.is_package, interpreter);
            lazy::fill(&mut scope, file, &|name| known.contains(name));
            program.modules.push(Module { file, scope, stub: None });
            program.add_classes(id, None, &file.body, 0);
            match program.by_name.get(file.module.as_str()).copied() {
                None => {
                    program.by_name.insert(&file.module, id);
                }
                Some(other) if file.stub && !files[other].stub => program.modules[other].stub = Some(id),
                Some(other) if !file.stub && files[other].stub => {
                    program.modules[id].stub = Some(other);
                    program.by_name.insert(&file.module, id);
                }
                Some(_) => {}
            }
        }
        program
    }

    fn add_classes(
        &mut self,
        module: ModId,
        outer: Option<ClassId>,
        body: &'a [ruff_python_ast::Stmt],
        depth: usize,
    ) {
        use ruff_python_ast::Stmt;
        if depth > 64 {
            return;
        }
        for stmt in body {
            match stmt {
                Stmt::ClassDef(def) => {
                    let file = self.modules[module].file;
                    let id = self.classes.len();
                    let scope = scope::scan(&def.body, &file.module, file.is_package, self.interpreter);
                    let class =
                        Class { def, module, outer, scope, bases: OnceCell::new(), mro: OnceCell::new() };
                    self.classes.push(class);
                    self.class_ids.insert(std::ptr::from_ref(def) as usize, id);
                    self.add_classes(module, Some(id), &def.body, depth + 1);
                }
                Stmt::If(test) => {
                    self.add_classes(module, outer, &test.body, depth + 1);
                    for clause in &test.elif_else_clauses {
                        self.add_classes(module, outer, &clause.body, depth + 1);
                    }
                }
                Stmt::Try(attempt) => {
                    self.add_classes(module, outer, &attempt.body, depth + 1);
                    self.add_classes(module, outer, &attempt.orelse, depth + 1);
                    for handler in &attempt.handlers {
                        let ruff_python_ast::ExceptHandler::ExceptHandler(handler) = handler;
                        self.add_classes(module, outer, &handler.body, depth + 1);
                    }
                }
                Stmt::With(with) => self.add_classes(module, outer, &with.body, depth + 1),
                Stmt::For(each) => self.add_classes(module, outer, &each.body, depth + 1),
                Stmt::While(repeat) => self.add_classes(module, outer, &repeat.body, depth + 1),
                Stmt::Match(choice) => {
                    for case in &choice.cases {
                        self.add_classes(module, outer, &case.body, depth + 1);
                    }
                }
                _ => {}
            }
        }
    }

    /// The module of a dotted name.
    pub fn module(&self, name: &str) -> Option<ModId> {
        self.by_name.get(name).copied()
    }

    /// The class of a definition.
    pub fn class_id(&self, def: &StmtClassDef) -> Option<ClassId> {
        self.class_ids.get(&(std::ptr::from_ref(def) as usize)).copied()
    }

    /// Modules outside that names led to since the last call.
    pub fn take_wanted(&self) -> Vec<String> {
        self.wanted.take()
    }

    fn external(&self, name: String) -> Target<'a> {
        self.wanted.borrow_mut().push(name.clone());
        Target::External(name)
    }

    /// A dotted module name as a target.
    pub fn module_target(&self, name: &str) -> Target<'a> {
        match self.module(name) {
            Some(id) => Target::Module(id),
            None => self.external(name.to_owned()),
        }
    }

    /// What `name` means as an attribute of a module, imports followed.
    pub fn resolve(&self, module: ModId, name: &str) -> Option<Target<'a>> {
        self.resolve_hops(module, name, 0)
    }

    fn resolve_hops(&self, module: ModId, name: &str, hops: usize) -> Option<Target<'a>> {
        if hops > MAX_HOPS {
            return None;
        }
        let this = &self.modules[module];
        if let Some(binding) = this.scope.get(name) {
            // A star import after the binding takes the name over.
            if let Some(found) = self.star(module, name, hops) {
                return Some(found);
            }
            // What a stub defines, and the source only assigns, is what the stub says.
            if let (Binding::Value(_), Some(stub)) = (binding, this.stub)
                && let Some(Binding::Function(_) | Binding::Class(_)) = self.modules[stub].scope.get(name)
            {
                return self.resolve_hops(stub, name, hops + 1);
            }
            let found = self.target(module, None, binding, hops);
            // A stub says what a lazily filled or compiled name is.
            let better = |target: &Target<'a>| match (&found, target) {
                (Some(Target::External(_)) | None, target) => !matches!(target, Target::External(_)),
                (Some(Target::Value(_)), target) => matches!(target, Target::Function(_) | Target::Class(_)),
                _ => false,
            };
            if matches!(found, Some(Target::External(_) | Target::Value(_)) | None) {
                if let Some(stub) = this.stub
                    && let Some(target) = self.resolve_hops(stub, name, hops + 1)
                    && better(&target)
                {
                    return Some(target);
                }
                for other in this.scope.others(name) {
                    if let Some(target) = self.target(module, None, other, hops + 1)
                        && matches!(target, Target::Function(_) | Target::Class(_))
                        && better(&target)
                    {
                        return Some(target);
                    }
                }
            }
            return found;
        }
        if let Some(stub) = this.stub
            && self.modules[stub].scope.get(name).is_some()
        {
            return self.resolve_hops(stub, name, hops + 1);
        }
        if let Some(found) = self.star(module, name, hops) {
            return Some(found);
        }
        let child = format!("{}.{name}", this.file.module);
        if this.file.is_package
            && let Some(id) = self.module(&child)
        {
            return Some(Target::Module(id));
        }
        None
    }

    /// What the star imports give that come after the binding of `name`; all of them where it has none.
    fn star(&self, module: ModId, name: &str, hops: usize) -> Option<Target<'a>> {
        let scope = &self.modules[module].scope;
        if scope.stars.is_empty() || name.starts_with("__") {
            return None;
        }
        let key = (module, name.to_owned());
        if self.star_guard.borrow().contains(&key) {
            return None;
        }
        self.star_guard.borrow_mut().push(key);
        let found = scope.stars_after(name).find_map(|star| match self.module(&star.module) {
            Some(id) if id != module && self.modules[id].scope.gives_by_star(name) => {
                self.resolve_hops(id, name, hops + 1)
            }
            Some(_) => None,
            None => {
                self.wanted.borrow_mut().push(star.module.clone());
                None
            }
        });
        self.star_guard.borrow_mut().pop();
        found
    }

    /// What a binding of `module` (or of a class in it) means.
    pub fn target(
        &self,
        module: ModId,
        class: Option<ClassId>,
        binding: &Binding<'a>,
        hops: usize,
    ) -> Option<Target<'a>> {
        match binding {
            Binding::Function(defs) => Some(Target::Function(Function { module, class, defs: defs.clone() })),
            Binding::Class(def) => self.class_id(def).map(Target::Class),
            Binding::Import(import) => {
                let Some(name) = import.name else { return Some(self.module_target(&import.module)) };
                if let Some(id) = self.module(&import.module) {
                    // `from . import name` in the package itself asks for the submodule.
                    let own = id == module
                        && matches!(self.modules[id].scope.get(name), Some(Binding::Import(other))
                            if other.module == import.module);
                    if !own && let Some(found) = self.resolve_hops(id, name, hops + 1) {
                        return Some(found);
                    }
                }
                let child = format!("{}.{name}", import.module);
                Some(self.module_target(&child))
            }
            Binding::Value(assigned) => {
                if let Some(value @ (Expr::Name(_) | Expr::Attribute(_))) = assigned.value
                    && hops < MAX_HOPS
                    && let Some(found) = self.resolve_expr_hops(module, class, value, hops + 1)
                    && !matches!(found, Target::External(_))
                {
                    return Some(found);
                }
                Some(Target::Value(Value { module, class, assigned: *assigned }))
            }
        }
    }

    /// What an expression (`a`, `a.b.c`, `a[...]`) names in a module, or in the body of a class.
    pub fn resolve_expr(&self, module: ModId, class: Option<ClassId>, expr: &Expr) -> Option<Target<'a>> {
        self.resolve_expr_hops(module, class, expr, 0)
    }

    fn resolve_expr_hops(
        &self,
        module: ModId,
        class: Option<ClassId>,
        expr: &Expr,
        hops: usize,
    ) -> Option<Target<'a>> {
        if hops > MAX_HOPS {
            return None;
        }
        match expr {
            Expr::Name(name) => {
                let name = name.id.as_str();
                let mut at = class;
                while let Some(id) = at {
                    if let Some(binding) = self.classes[id].scope.get(name) {
                        // `x = x` in a class body means the module's.
                        let itself = matches!(binding, Binding::Value(Assigned { value: Some(Expr::Name(value)), .. })
                            if value.id.as_str() == name);
                        if !itself {
                            return self.target(module, Some(id), binding, hops + 1);
                        }
                    }
                    at = self.classes[id].outer;
                }
                self.resolve_hops(module, name, hops + 1)
            }
            Expr::Attribute(attribute) => {
                let owner = self.resolve_expr_hops(module, class, &attribute.value, hops + 1)?;
                self.attribute(&owner, attribute.attr.as_str(), hops + 1)
            }
            Expr::Subscript(subscript) => self.resolve_expr_hops(module, class, &subscript.value, hops + 1),
            _ => None,
        }
    }

    /// `target.name`.
    pub fn attribute(&self, target: &Target<'a>, name: &str, hops: usize) -> Option<Target<'a>> {
        match target {
            Target::Module(id) => self.resolve_hops(*id, name, hops),
            Target::Class(id) => self.mro(*id).iter().find_map(|&owner| {
                let class = &self.classes[owner];
                let binding = class.scope.get(name)?;
                self.target(class.module, Some(owner), binding, hops + 1)
            }),
            Target::External(module) => Some(self.external(format!("{module}.{name}"))),
            Target::Function(_) | Target::Value(_) => None,
        }
    }

    /// The base classes of a class, in order.
    pub fn bases(&self, id: ClassId) -> &[Base] {
        let class = &self.classes[id];
        if let Some(bases) = class.bases.get() {
            return bases;
        }
        let arguments = class.def.arguments.as_deref();
        let exprs = arguments.map_or(&[][..], |arguments| &arguments.args);
        let bases = exprs
            .iter()
            .map(|expr| match self.resolve_expr(class.module, class.outer, expr) {
                Some(Target::Class(base)) if base != id => Base::Known(base),
                Some(Target::External(name)) => Base::Unknown(name),
                _ => {
                    let expr = match expr {
                        Expr::Subscript(subscript) => &*subscript.value,
                        Expr::Call(call) => &*call.func,
                        other => other,
                    };
                    Base::Unknown(self.modules[class.module].file.slice(expr).to_owned())
                }
            })
            .collect();
        class.bases.get_or_init(|| bases)
    }

    /// The class and its known base classes in the order in which attributes are looked up (C3, or depth first where
    /// the classes do not linearise).
    pub fn mro(&self, id: ClassId) -> &[ClassId] {
        if let Some(mro) = self.classes[id].mro.get() {
            return mro;
        }
        let mro = self.linearise(id, &mut Vec::new());
        self.classes[id].mro.get_or_init(|| mro)
    }

    fn linearise(&self, id: ClassId, path: &mut Vec<ClassId>) -> Vec<ClassId> {
        if let Some(mro) = self.classes[id].mro.get() {
            return mro.clone();
        }
        if path.contains(&id) || path.len() > MAX_HOPS {
            return vec![id];
        }
        path.push(id);
        let bases: Vec<ClassId> = self
            .bases(id)
            .iter()
            .filter_map(|base| match base {
                Base::Known(base) if !path.contains(base) => Some(*base),
                _ => None,
            })
            .collect();
        let mut queues: Vec<Vec<ClassId>> = bases.iter().map(|&base| self.linearise(base, path)).collect();
        path.pop();
        queues.push(bases);
        let mut mro = vec![id];
        loop {
            queues.retain(|queue| !queue.is_empty());
            if queues.is_empty() || mro.len() > MAX_MRO {
                break;
            }
            let head = queues
                .iter()
                .map(|queue| queue[0])
                .find(|head| !queues.iter().any(|queue| queue[1..].contains(head)))
                .unwrap_or(queues[0][0]);
            if !mro.contains(&head) {
                mro.push(head);
            }
            for queue in &mut queues {
                queue.retain(|class| *class != head);
            }
        }
        mro
    }

    /// `Outer.Inner`, the name of a class within its module.
    pub fn class_path(&self, id: ClassId) -> String {
        let class = &self.classes[id];
        match class.outer {
            Some(outer) => format!("{}.{}", self.class_path(outer), class.def.name),
            None => class.def.name.to_string(),
        }
    }

    /// The class in the stub beside the module of `id`.
    pub fn stub_class(&self, id: ClassId) -> Option<ClassId> {
        let class = &self.classes[id];
        let name = class.def.name.as_str();
        let binding = match class.outer {
            Some(outer) => {
                let outer = self.stub_class(outer)?;
                self.classes[outer].scope.get(name)
            }
            None => self.modules[self.modules[class.module].stub?].scope.get(name),
        };
        match binding {
            Some(Binding::Class(def)) => self.class_id(def).filter(|&stub| stub != id),
            _ => None,
        }
    }

    /// The function in the stub beside the module of `function`.
    pub fn stub_function(&self, function: &Function<'a>) -> Option<Function<'a>> {
        let name = function.main().name.as_str();
        let (module, class, binding) = match function.class {
            Some(class) => {
                let stub = self.stub_class(class)?;
                (self.classes[stub].module, Some(stub), self.classes[stub].scope.get(name))
            }
            None => {
                let stub = self.modules[function.module].stub?;
                (stub, None, self.modules[stub].scope.get(name))
            }
        };
        match binding {
            Some(Binding::Function(defs)) => Some(Function { module, class, defs: defs.clone() }),
            _ => None,
        }
    }
}
