//! What reading could not see: told at the end, so that nothing is lost silently.

use std::collections::BTreeMap;

use ruff_python_ast::{Stmt, StmtIf};
use ruff_text_size::Ranged;

use super::exports::Export;
use super::library::Library;
use super::program::{ModId, Target};
use super::scope::Binding;

/// Kinds of what is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Loss {
    /// A module with public definitions and not one API.
    NoApi,
    /// A module whose `__all__` is made in a way that cannot be told without running it: its public definitions stand in.
    UnknownAll,
    /// Names imported from a module that is not there, is compiled without a stub, or does not parse: listed bare.
    UnreadImport,
    /// A folder or file of Python source that is no part of the interface by its name (`tests`, `vendor`).
    PassedOver,
    /// A branch that version or platform rule out, with the definitions in it.
    Branch,
}

impl Loss {
    /// What is lost, for a heading.
    pub fn describe(self) -> &'static str {
        match self {
            Loss::NoApi => "modules with definitions and no API",
            Loss::UnknownAll => {
                "modules whose __all__ is known only at run time (their public definitions are listed)"
            }
            Loss::UnreadImport => {
                "names imported from modules that cannot be read (listed without a signature)"
            }
            Loss::PassedOver => {
                "files and folders passed over (--include GLOB reads them, --exclude GLOB settles it)"
            }
            Loss::Branch => "definitions in branches for another interpreter or platform",
        }
    }
}

/// One thing that was not seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Lost {
    /// The kind.
    pub kind: Loss,
    /// The module, file or folder that it is about.
    pub place: String,
    /// What is not seen of it: names, or nothing where it is all.
    pub names: Vec<String>,
}

impl<'a> Library<'a> {
    /// Remembers a loss of a module.
    pub(super) fn note_loss(&self, module: ModId, kind: Loss) {
        if !self.program.modules[module].file.dependency {
            self.losses.borrow_mut().insert((kind, self.module_name_of(module).to_owned()));
        }
    }

    /// All that the library's records do not say.
    pub(super) fn losses(&self, exports: &[Export<'a>], include_private: bool) -> Vec<Lost> {
        let mut lost: BTreeMap<(Loss, String), Vec<String>> = BTreeMap::new();
        for id in self.public_modules(include_private) {
            let module = &self.program.modules[id];
            let defines = module.scope.names().any(|(name, binding)| {
                !name.starts_with('_')
                    && matches!(binding, Binding::Function(_) | Binding::Class(_))
                    && !module.scope.typing_only(name)
            });
            if defines && self.public_names(id, include_private).is_empty() {
                lost.entry((Loss::NoApi, module.file.module.clone())).or_default();
            }
            for stmt in &module.file.body {
                if let Stmt::If(test) = stmt {
                    self.ruled_out(id, test, &mut lost);
                }
            }
        }
        for export in exports {
            if let (Target::External(name), Some(best)) = (&export.target, export.paths.first()) {
                let source = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
                let place = format!("{} (from {source})", self.module_name_of(best.module));
                lost.entry((Loss::UnreadImport, place)).or_default().push(best.name.to_string());
            }
        }
        for (kind, place) in self.losses.borrow().iter() {
            lost.entry((*kind, place.clone())).or_default();
        }
        lost.into_iter().map(|((kind, place), names)| Lost { kind, place, names }).collect()
    }

    /// Public definitions on the sides of an `if` that are not read and that no other side defines.
    fn ruled_out(&self, id: ModId, test: &'a StmtIf, lost: &mut BTreeMap<(Loss, String), Vec<String>>) {
        let module = &self.program.modules[id];
        let chosen = &module.scope.chosen;
        let first = (Some(&*test.test), test.body.as_slice());
        let others =
            test.elif_else_clauses.iter().map(|clause| (clause.test.as_ref(), clause.body.as_slice()));
        let mut taken = false;
        for (condition, body) in std::iter::once(first).chain(others) {
            let known = condition
                .and_then(|condition| chosen.iter().find(|(range, _)| *range == condition.range()))
                .map(|(_, is)| *is);
            if taken || known == Some(false) {
                for stmt in body {
                    let name = match stmt {
                        Stmt::FunctionDef(def) => def.name.as_str(),
                        Stmt::ClassDef(def) => def.name.as_str(),
                        _ => continue,
                    };
                    if !name.starts_with('_') && module.scope.get(name).is_none() {
                        let place = format!("{}:{}", module.file.path, module.file.line(test.start()));
                        lost.entry((Loss::Branch, place)).or_default().push(name.to_owned());
                    }
                }
            }
            taken |= known == Some(true);
        }
    }
}
