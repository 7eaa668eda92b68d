//! Which names of which modules are public, and under which path each thing is best imported.

use std::collections::BTreeMap;
use std::rc::Rc;

use ruff_python_ast::Expr;
use rustc_hash::{FxHashMap, FxHashSet};

use super::lazy;
use super::library::Library;
use super::losses::Loss;
use super::program::{ModId, Module, Target};
use super::scope::{Assigned, Binding, last_name};

/// What is exported, as a key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Class(usize),
    /// Address of the definition.
    Node(usize),
    External(String),
}

/// One path under which a thing is imported.
#[derive(Clone)]
pub(super) struct ExportPath {
    pub module: ModId,
    pub name: Rc<str>,
    /// An import that a module without `__all__` happens to hold; it counts where there is no other path.
    pub weak: bool,
}

/// A thing with all its paths, the best first.
pub(super) struct Export<'a> {
    pub target: Target<'a>,
    pub paths: Vec<ExportPath>,
}

/// Whether a dotted module name is public: no part begins with an underscore.
pub(super) fn is_public_module(name: &str) -> bool {
    !name.split('.').any(|part| part.starts_with('_'))
}

impl<'a> Library<'a> {
    /// The public modules of the library, in order of their names.
    pub(super) fn public_modules(&self, include_private: bool) -> Vec<ModId> {
        let mut modules: BTreeMap<&str, ModId> = BTreeMap::new();
        for module in &self.program.modules {
            let name = module.file.module.as_str();
            if !module.file.dependency
                && (include_private || is_public_module(name))
                && let Some(id) = self.program.module(name)
            {
                modules.insert(name, id);
            }
        }
        modules.into_values().collect()
    }

    /// The public names of a module with what they mean; `true` marks a weak path.
    pub(super) fn public_names(
        &self,
        module: ModId,
        include_private: bool,
    ) -> Vec<(Rc<str>, Target<'a>, bool)> {
        self.names_of(module, include_private, &mut Vec::new())
    }

    fn names_of(
        &self,
        module: ModId,
        include_private: bool,
        path: &mut Vec<ModId>,
    ) -> Vec<(Rc<str>, Target<'a>, bool)> {
        if path.contains(&module) || path.len() > 16 {
            return Vec::new();
        }
        let this = &self.program.modules[module];
        let mut found: Vec<(Rc<str>, Target<'a>, bool)> = Vec::new();
        let mut seen: FxHashSet<Rc<str>> = FxHashSet::default();
        let (listed, more) = self.listed_names(module);
        for name in listed.into_iter().flatten() {
            let target = self
                .program
                .resolve(module, &name)
                .unwrap_or_else(|| Target::External(format!("{}.{name}", this.file.module)));
            if seen.insert(name.clone()) {
                found.push((name, target, false));
            }
        }
        if !more {
            return found;
        }
        let scopes = std::iter::once(module).chain(this.stub);
        let binds_all = this.stub.is_some() && binds_all(this);
        for scope_of in scopes {
            let source = this;
            let this = &self.program.modules[scope_of];
            for (name, binding) in this.scope.names() {
                let hidden = name.starts_with("__") || (name.starts_with('_') && !include_private);
                let typing = this.scope.typing_only(name)
                    && !(lazy::is_lazy(&this.file.text) && lazy::makes(&this.file.text, name));
                // Types that only the stub has are there for type checkers.
                let unbound = scope_of != module
                    && binds_all
                    && !matches!(binding, Binding::Function(_))
                    && source.scope.get(name).is_none();
                if hidden || typing || unbound || seen.contains(name) {
                    continue;
                }
                let Some(weak) = self.strength(scope_of, name, binding) else { continue };
                if let Some(target) = self.program.resolve(module, name) {
                    seen.insert(name.into());
                    found.push((name.into(), target, weak));
                }
            }
        }
        path.push(module);
        let stub_stars = this.stub.map_or(&[][..], |stub| &self.program.modules[stub].scope.stars);
        // The last star import that has a name gives it.
        let mut groups = Vec::new();
        for star in stub_stars.iter().chain(&this.scope.stars).rev() {
            let Some(source) = self.program.module(&star.module) else { continue };
            let typing = star.typing && !lazy::is_lazy(&this.file.text);
            if typing || self.is_foreign(source, this.file.module.as_str()) {
                continue;
            }
            let mut names = self.names_of(source, include_private, path);
            names.retain(|(name, _, _)| !this.scope.is_deleted(name) && seen.insert(name.clone()));
            groups.push(names);
        }
        let given = groups.into_iter().rev().flatten();
        found.extend(given.map(|(name, target, _)| (name, target, !this.file.is_package)));
        path.pop();
        found
    }

    /// What a module lists in `__all__`, and whether its public definitions count too: where it has none, or where it cannot be
    /// told statically what is in it.
    pub(super) fn listed_names(&self, module: ModId) -> (Option<Vec<Rc<str>>>, bool) {
        let this = &self.program.modules[module];
        let of_stub = this.stub.and_then(|stub| self.module_all(stub)).filter(|all| !all.names.is_empty());
        match (self.module_all(module), of_stub) {
            // `__all__: list[str]` in a stub promises nothing.
            (Some(own), None) if own.names.is_empty() && (this.file.stub || this.stub.is_some()) => {
                (None, true)
            }
            (Some(own), _) if own.whole => (Some(own.names), false),
            (Some(own), Some(of_stub)) => {
                let names = own.names.into_iter().chain(of_stub.names).collect();
                (Some(names), false)
            }
            (Some(own), None) => {
                self.note_loss(module, Loss::UnknownAll);
                (Some(own.names), true)
            }
            (None, Some(of_stub)) => (Some(of_stub.names), !of_stub.whole),
            (None, None) => (None, true),
        }
    }

    /// Whether a name that a module without `__all__` binds is part of its interface: `None` no, `Some(true)` only
    /// where the thing has no better path.
    fn strength(&self, module: ModId, name: &str, binding: &Binding<'a>) -> Option<bool> {
        let Module { file, scope, .. } = &self.program.modules[module];
        let defines = |other: &Binding<'a>| matches!(other, Binding::Function(_) | Binding::Class(_));
        // What stands in where an import fails is the module's own.
        if scope.others(name).iter().any(defines) {
            return Some(false);
        }
        match binding {
            Binding::Function(_) | Binding::Class(_) => Some(false),
            // `Flag = int` in a stub is a name for type checkers.
            Binding::Value(Assigned { value: Some(Expr::Name(alias)), annotation: None, .. })
                if file.stub && is_builtin_type(&alias.id) =>
            {
                None
            }
            Binding::Value(assigned) => is_constant(name, assigned).then_some(false),
            Binding::Import(import) => {
                let top = import.module.split('.').next().unwrap_or_default();
                let own = import.relative || self.is_own(top) || file.module.split('.').next() == Some(top);
                match (import.name, own) {
                    (Some(_), true) => {
                        // A submodule that is imported is listed as the module it is.
                        if let Some(Target::Module(_)) = self.program.resolve(module, name) {
                            return None;
                        }
                        Some(!(file.is_package || import.explicit))
                    }
                    (Some(_), false) if import.explicit => Some(false),
                    (Some(_), false) if file.is_package && !is_standard(top) => Some(false),
                    _ => None,
                }
            }
        }
    }

    /// Whether a module is of another package than the named one: what that brings is its own to document.
    pub(super) fn is_foreign(&self, module: ModId, to: &str) -> bool {
        let file = &self.program.modules[module].file;
        file.dependency && file.module.split('.').next() != to.split('.').next()
    }

    /// Whether a top-level package is part of what was read.
    fn is_own(&self, top: &str) -> bool {
        self.program.module(top).is_some_and(|id| !self.program.modules[id].file.dependency)
    }

    /// Everything public with its paths.
    pub(super) fn exports(&self, include_private: bool) -> Vec<Export<'a>> {
        let mut order: Vec<Export<'a>> = Vec::new();
        let mut index: FxHashMap<Key, usize> = FxHashMap::default();
        for module in self.public_modules(include_private) {
            for (name, target, weak) in self.public_names(module, include_private) {
                let key = match &target {
                    Target::Module(_) => continue,
                    Target::Class(id) => Key::Class(*id),
                    Target::Function(function) => Key::Node(function.key()),
                    Target::Value(value) => match value.assigned.value {
                        Some(expr) => Key::Node(std::ptr::from_ref(expr) as usize),
                        None => Key::External(format!("{}:{:?}", value.module, value.assigned.range)),
                    },
                    Target::External(name) => Key::External(name.clone()),
                };
                let at = *index.entry(key).or_insert_with(|| {
                    order.push(Export { target, paths: Vec::new() });
                    order.len() - 1
                });
                order[at].paths.push(ExportPath { module, name, weak });
            }
        }
        for export in &mut order {
            let original: Rc<str> = match &export.target {
                Target::Class(id) => self.program.classes[*id].def.name.as_str().into(),
                Target::Function(function) => function.main().name.as_str().into(),
                _ => "".into(),
            };
            export.paths.sort_by_cached_key(|path| {
                let module = self.module_name_of(path.module);
                (
                    path.weak,
                    module.matches('.').count(),
                    path.name != original,
                    module.to_owned(),
                    path.name.clone(),
                )
            });
            if export.paths.first().is_some_and(|best| !best.weak) {
                // Weak paths add nothing but noise where there is a real one.
                export.paths.retain(|path| !path.weak);
            }
        }
        order
    }

    pub(super) fn module_name_of(&self, module: ModId) -> &'a str {
        &self.program.modules[module].file.module
    }
}

/// Whether a module's own text binds all of its names, as far as that shows: it neither takes names over from others by `*` nor makes
/// any on demand or by computed names.
fn binds_all(module: &Module<'_>) -> bool {
    const COMPUTED: &[&str] = &[
        "globals()",
        "sys.modules",
        "vars()",
        "setattr(",
        "exec(",
        "__dict__",
        "import_module",
        "load_dynamic",
    ];
    module.file.is_package
        && module.scope.stars.is_empty()
        && module.scope.get("__getattr__").is_none()
        && !COMPUTED.iter().any(|text| module.file.text.contains(text))
        && module.scope.names().any(|(name, _)| !name.starts_with('_'))
}

fn is_builtin_type(name: &str) -> bool {
    matches!(name, "int" | "float" | "str" | "bool" | "bytes" | "complex" | "object")
}

/// Whether an assigned name of a module is worth listing.
fn is_constant(name: &str, assigned: &Assigned<'_>) -> bool {
    if matches!(name, "logger" | "log" | "LOG" | "LOGGER") {
        return false;
    }
    match assigned.value {
        Some(value @ Expr::Call(_)) => !matches!(
            last_name(value),
            Some("TypeVar" | "ParamSpec" | "TypeVarTuple" | "getLogger" | "get_logger")
        ),
        Some(Expr::Name(_) | Expr::Attribute(_)) => true,
        Some(_) => true,
        // An annotation, or one name of an unpacked tuple.
        None => true,
    }
}

/// Whether a top-level module is part of Python: what a package imports from it is for its own use.
pub(super) fn is_standard(top: &str) -> bool {
    const STANDARD: &[&str] = &[
        "__future__",
        "_thread",
        "abc",
        "argparse",
        "array",
        "ast",
        "asyncio",
        "atexit",
        "base64",
        "bisect",
        "builtins",
        "bz2",
        "calendar",
        "cmath",
        "codecs",
        "collections",
        "colorsys",
        "concurrent",
        "configparser",
        "contextlib",
        "contextvars",
        "copy",
        "copyreg",
        "csv",
        "ctypes",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "dis",
        "email",
        "enum",
        "errno",
        "faulthandler",
        "fcntl",
        "filecmp",
        "fileinput",
        "fnmatch",
        "fractions",
        "ftplib",
        "functools",
        "gc",
        "getopt",
        "getpass",
        "gettext",
        "glob",
        "graphlib",
        "gzip",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "http",
        "importlib",
        "inspect",
        "io",
        "ipaddress",
        "itertools",
        "json",
        "keyword",
        "linecache",
        "locale",
        "logging",
        "lzma",
        "marshal",
        "math",
        "mimetypes",
        "mmap",
        "multiprocessing",
        "numbers",
        "operator",
        "optparse",
        "os",
        "pathlib",
        "pdb",
        "pickle",
        "pickletools",
        "pkgutil",
        "platform",
        "plistlib",
        "pprint",
        "profile",
        "pwd",
        "queue",
        "random",
        "re",
        "readline",
        "reprlib",
        "resource",
        "runpy",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shelve",
        "shlex",
        "shutil",
        "signal",
        "site",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "stat",
        "statistics",
        "string",
        "stringprep",
        "struct",
        "subprocess",
        "symtable",
        "sys",
        "sysconfig",
        "syslog",
        "tarfile",
        "telnetlib",
        "tempfile",
        "termios",
        "textwrap",
        "threading",
        "time",
        "timeit",
        "tkinter",
        "token",
        "tokenize",
        "tomllib",
        "trace",
        "traceback",
        "tracemalloc",
        "tty",
        "turtle",
        "types",
        "typing",
        "typing_extensions",
        "unicodedata",
        "unittest",
        "urllib",
        "uuid",
        "venv",
        "warnings",
        "wave",
        "weakref",
        "webbrowser",
        "winreg",
        "wsgiref",
        "xml",
        "xmlrpc",
        "zipapp",
        "zipfile",
        "zipimport",
        "zlib",
        "zoneinfo",
        "importlib_metadata",
        "importlib_resources",
        "pkg_resources",
        "setuptools",
        "mypy_extensions",
        "_typeshed",
    ];
    STANDARD.contains(&top)
}
