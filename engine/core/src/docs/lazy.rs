//! Packages that fill their names on demand (PEP 562): `lazy_loader.attach`, dictionaries behind `__getattr__`, and modules that
//! replace themselves in `sys.modules`.

use ruff_python_ast::{Expr, ExprCall, Stmt};

use super::layout::is_identifier;
use super::parse::ParsedFile;
use super::scope::{Binding, Scope, Update, last_name};

/// Whether a module makes names when they are asked for.
pub(super) fn is_lazy(text: &str) -> bool {
    const NAME: &str = "__getattr__";
    let of_module = |at: usize| {
        let rest = text[at + NAME.len()..].trim_start();
        // A method of that name has a receiver.
        let function =
            text[..at].ends_with("def ") && !rest.starts_with("(self") && !rest.starts_with("(cls");
        function || rest.starts_with([',', '='])
    };
    replaces_itself(text) || text.match_indices(NAME).any(|(at, _)| of_module(at))
}

/// Whether a module puts another object into its own place.
fn replaces_itself(text: &str) -> bool {
    text.contains("sys.modules[__name__] =")
}

/// Whether a name that a module imports for type checkers is one of those it makes on demand: it names it in a string, or
/// everything that it has is made so.
pub(super) fn makes(text: &str, name: &str) -> bool {
    replaces_itself(text) || ['"', '\''].iter().any(|quote| text.contains(&format!("{quote}{name}{quote}")))
}

/// Binds the names that a module makes on demand. `exists` tells whether a dotted name is a module of the library.
pub(super) fn fill<'a>(scope: &mut Scope<'a>, file: &'a ParsedFile, exists: &dyn Fn(&str) -> bool) {
    if !is_lazy(&file.text) {
        return;
    }
    let place = Place { file, exists };
    let mut found: Vec<(&'a str, String, &'a str)> = Vec::new();
    for stmt in &file.body {
        if let Stmt::Assign(assign) = stmt
            && let Expr::Call(call) = &*assign.value
            && last_name(&call.func).is_some_and(|name| name.ends_with("attach"))
        {
            place.attached(call, &mut found);
        }
    }
    let dictionaries: Vec<(&'a str, &'a Expr)> = scope
        .names()
        .filter_map(|(name, binding)| match binding {
            Binding::Value(assigned) => Some((name, assigned.value?)),
            _ => None,
        })
        .collect();
    for (name, value) in dictionaries {
        let Expr::Dict(dict) = value else { continue };
        for item in &dict.items {
            if let Some(Expr::StringLiteral(key)) = &item.key {
                place.entry(key.value.to_str(), &item.value, &mut found);
            }
        }
        for update in scope.updates.get(name).into_iter().flatten() {
            match update {
                Update::Item(Expr::StringLiteral(key), value) => {
                    place.entry(key.value.to_str(), value, &mut found);
                }
                Update::Merge(Expr::Call(call)) => {
                    for argument in &call.arguments.args {
                        let Expr::Dict(more) = argument else { continue };
                        for item in &more.items {
                            if let Some(Expr::StringLiteral(key)) = &item.key {
                                place.entry(key.value.to_str(), &item.value, &mut found);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
    }
    for action in &scope.actions {
        if let Some((key, value)) = extended(action)
            && let Some(module) = place.module(key)
        {
            names(value, &mut |name| found.push((name, module.clone(), name)));
        }
    }
    for (name, module, taken) in found {
        scope.bind_lazily(name, module, taken);
    }
}

/// `structure["module"].extend(["name"])` and `.append("name")`.
fn extended(stmt: &Stmt) -> Option<(&str, &Expr)> {
    let Stmt::Expr(stmt) = stmt else { return None };
    let Expr::Call(call) = &*stmt.value else { return None };
    let Expr::Attribute(method) = &*call.func else { return None };
    let Expr::Subscript(subscript) = &*method.value else { return None };
    let Expr::StringLiteral(key) = &*subscript.slice else { return None };
    matches!(method.attr.as_str(), "extend" | "append").then_some(())?;
    Some((key.value.to_str(), call.arguments.args.first()?))
}

struct Place<'a, 'e> {
    file: &'a ParsedFile,
    exists: &'e dyn Fn(&str) -> bool,
}

impl<'a> Place<'a, '_> {
    /// The absolute name of a module as a lazy package writes it: `.core`, `core`, `package.core`.
    fn module(&self, written: &str) -> Option<String> {
        let package = if self.file.is_package {
            self.file.module.as_str()
        } else {
            self.file.module.rsplit_once('.').map_or("", |(package, _)| package)
        };
        let inner = written.trim_start_matches('.');
        if inner.is_empty() || !inner.split('.').all(is_identifier) {
            return None;
        }
        let mut base = package;
        for _ in 1..written.len() - inner.len() {
            base = base.rsplit_once('.')?.0;
        }
        let relative = format!("{base}.{inner}");
        if (self.exists)(&relative) {
            return Some(relative);
        }
        (!written.starts_with('.') && (self.exists)(inner)).then(|| inner.to_owned())
    }

    /// `lazy_loader.attach(__name__, submodules=[...], submod_attrs={"module": ["name"]})`.
    fn attached(&self, call: &'a ExprCall, found: &mut Vec<(&'a str, String, &'a str)>) {
        let named = call.arguments.keywords.iter().map(|keyword| &keyword.value);
        for argument in call.arguments.args.iter().chain(named) {
            let Expr::Dict(dict) = argument else { continue };
            for item in &dict.items {
                if let Some(Expr::StringLiteral(key)) = &item.key
                    && let Some(module) = self.module(key.value.to_str())
                {
                    names(&item.value, &mut |name| found.push((name, module.clone(), name)));
                }
            }
        }
    }

    /// One entry of a dictionary: a module with the names it gives, or a name with where it comes from.
    fn entry(&self, key: &'a str, value: &'a Expr, found: &mut Vec<(&'a str, String, &'a str)>) {
        if let Expr::Tuple(pair) = value
            && let [Expr::StringLiteral(module), Expr::StringLiteral(taken)] = pair.elts.as_slice()
            && is_identifier(key)
            && let Some(module) = self.module(module.value.to_str())
        {
            found.push((key, module, taken.value.to_str()));
            return;
        }
        if let Expr::StringLiteral(written) = value {
            let written = written.value.to_str();
            if !is_identifier(key) {
                return;
            }
            if let Some((module, taken)) = written.split_once(':') {
                found.extend(self.module(module).map(|module| (key, module, taken)));
            } else if let Some(module) = self.module(written) {
                // A module under its own name is a module, not a name in it.
                if !module.ends_with(&format!(".{key}")) {
                    found.push((key, module, key));
                }
            } else if let Some((module, taken)) = written.rsplit_once('.')
                && let Some(module) = self.module(module)
            {
                found.push((key, module, taken));
            }
            return;
        }
        if let Some(module) = self.module(key) {
            names(value, &mut |name| found.push((name, module.clone(), name)));
        }
    }
}

/// The identifiers of a literal list, tuple or set of strings, or of one string.
fn names<'a>(expr: &'a Expr, each: &mut dyn FnMut(&'a str)) {
    match expr {
        Expr::StringLiteral(literal) => {
            let name = literal.value.to_str();
            if is_identifier(name) {
                each(name);
            }
        }
        Expr::List(ruff_python_ast::ExprList { elts, .. })
        | Expr::Tuple(ruff_python_ast::ExprTuple { elts, .. })
        | Expr::Set(ruff_python_ast::ExprSet { elts, .. }) => {
            for item in elts {
                names(item, each);
            }
        }
        _ => {}
    }
}
