//! Which APIs a file of Python calls, resolved through imports, aliases, assignments and annotations.

use ruff_python_ast::visitor::Visitor;
use ruff_python_ast::{Expr, Stmt};
use ruff_text_size::Ranged;

use super::library::Library;
use super::report::Reader;
use super::scope::Ty;
use crate::python;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Byte offset of the name that is called: in `a.b(c)` that of `b`.
    pub at: usize,
    /// That name.
    pub name: String,
    /// The dotted name of what is called, as it is documented; `None` where the file does not tell, or it is no API of the
    /// library.
    pub target: Option<String>,
    /// The name that the expression begins with (`df` of `df.a[0].b()`), where it begins with one and is not that alone.
    pub root: Option<String>,
}

/// What [`calls`] finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// The calls in the order of the text.
    pub calls: Vec<Call>,
    /// What is imported: the name in the file, and the dotted name that it stands for.
    pub imports: Vec<(String, String)>,
}

/// Lists the calls in a parsed file of source; `module` is its own dotted name, which relative imports are resolved by, or
/// empty.
pub fn calls(library: &Library, module: &str, is_package: bool, text: &str, body: &[Stmt]) -> Calls {
    let package =
        if is_package { module } else { module.rsplit_once('.').map_or("", |(package, _)| package) };
    let mut reader = Reader::new(library, text);
    reader.calls = Some(CallLog { package: package.to_owned(), found: Calls::default() });
    for stmt in body {
        reader.visit_stmt(stmt);
    }
    let mut found = reader.calls.map(|log| log.found).unwrap_or_default();
    found.calls.sort_by_key(|call| call.at);
    found
}

/// Lists the calls of a `completion` in the code after `context`, which may be cut anywhere or be no Python at all; offsets
/// count from its beginning. Imports are those of both. Nothing is listed of code that [`super::report`] does not read.
pub fn calls_in_completion(library: &Library, context: &str, completion: &str) -> Calls {
    let text = format!("{context}{completion}");
    let found = python::read(&text, |parsed| calls(library, "", false, &text, parsed.suite()));
    let mut found = found.unwrap_or_default();
    found.calls.retain(|call| call.at >= context.len());
    found.calls.iter_mut().for_each(|call| call.at -= context.len());
    found
}

/// Where a [`Reader`] notes the calls it meets.
pub(super) struct CallLog {
    /// The package that the file lies in.
    package: String,
    found: Calls,
}

impl CallLog {
    /// The dotted name of a module that an import names with `level` dots in front; `None` where that leads out.
    pub fn absolute(&self, named: &str, level: u32) -> Option<String> {
        if level == 0 {
            return Some(named.to_owned());
        }
        let mut parts: Vec<&str> = self.package.split('.').filter(|part| !part.is_empty()).collect();
        let kept = (parts.len() + 1).checked_sub(level as usize)?;
        parts.truncate(kept);
        parts.extend(named.split('.').filter(|part| !part.is_empty()));
        (!parts.is_empty()).then(|| parts.join("."))
    }

    pub fn note_import(&mut self, bound: &str, full: &str) {
        self.found.imports.push((bound.to_owned(), full.to_owned()));
    }

    pub fn note(&mut self, func: &Expr, callee: Ty, library: &Library) {
        let (at, name) = match func {
            Expr::Attribute(attribute) => (attribute.attr.start(), attribute.attr.as_str()),
            Expr::Name(name) => (name.start(), name.id.as_str()),
            _ => return,
        };
        let target = match callee {
            Ty::Class(id) | Ty::Callable(id) => Some(library.full_name(id)),
            _ => None,
        };
        let root = match func {
            Expr::Attribute(attribute) => root(&attribute.value),
            _ => None,
        };
        self.found.calls.push(Call { at: at.to_usize(), name: name.to_owned(), target, root });
    }
}

/// The name that an expression begins with.
pub(crate) fn root(expr: &Expr) -> Option<String> {
    let mut at = expr;
    loop {
        at = match at {
            Expr::Name(name) => return Some(name.id.to_string()),
            Expr::Attribute(attribute) => &attribute.value,
            Expr::Subscript(subscript) => &subscript.value,
            Expr::Call(call) => &call.func,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ApiDoc;
    use crate::api::ApiKind;

    fn api(full: &str, kind: ApiKind, module: &str) -> ApiDoc {
        ApiDoc {
            name: full.rsplit('.').next().unwrap_or_default().into(),
            qualified_name: full.into(),
            module: module.into(),
            kind: Some(kind),
            signature: "(*args, **kwargs)".into(),
            ..ApiDoc::default()
        }
    }

    #[test]
    fn calls_are_resolved() {
        let library = Library::new(&[
            api("loom.Thread", ApiKind::Class, "loom"),
            api("loom.Thread.spin", ApiKind::Method, "loom"),
            api("loom.weave", ApiKind::Function, "loom"),
            api("loom.dye.soak", ApiKind::Function, "loom.dye"),
        ]);
        let text = "\
import loom as lm, os
from loom.dye import soak as s
from loom._core.thread import Thread
from . import dye
from .dye import soak
t = Thread()
t.spin(lm.weave(1))
s(2)
soak(os.getcwd())
def f(t2: lm.Thread, u):
    t2.spin()
    u.rows[0].spin()
    dye.soak(3)
";
        let found =
            python::read(text, |parsed| calls(&library, "loom.shop", false, text, parsed.suite())).unwrap();
        let listed: Vec<_> = found
            .calls
            .iter()
            .map(|call| (call.name.as_str(), call.target.as_deref(), call.root.as_deref()))
            .collect();
        assert_eq!(
            listed,
            [
                ("Thread", Some("loom.Thread"), None),
                ("spin", Some("loom.Thread.spin"), Some("t")),
                ("weave", Some("loom.weave"), Some("lm")),
                ("s", Some("loom.dye.soak"), None),
                ("soak", Some("loom.dye.soak"), None),
                ("getcwd", None, Some("os")),
                ("spin", Some("loom.Thread.spin"), Some("t2")),
                ("spin", None, Some("u")),
                ("soak", Some("loom.dye.soak"), Some("dye")),
            ]
        );
        assert!(found.imports.contains(&("soak".into(), "loom.dye.soak".into())));
        assert_eq!(&text[found.calls[1].at..][..4], "spin");
    }

    #[test]
    fn an_import_that_leads_out_binds_nothing() {
        let library = Library::new(&[]);
        let text = "from ....b import c\n";
        let found = python::read(text, |parsed| calls(&library, "a", false, text, parsed.suite()));
        assert_eq!(found, Ok(Calls::default()));
    }
}
