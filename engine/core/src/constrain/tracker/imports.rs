//! Import statements: the modules they name and the names they bind.

use std::sync::Arc;

use super::Tracker;
use super::frame::Statement;
use crate::constrain::library::Kind;
use crate::constrain::scope::Ty;

/// Modules whose names say nothing about values.
const HARMLESS: &[&str] = &["__future__", "typing", "typing_extensions"];

impl Tracker {
    pub(super) fn bind_import(&mut self) {
        if let Some((name, ty)) = self.line.imported.take() {
            self.bind(&name, ty);
        }
        self.line.alias = false;
        if self.line.kind == Statement::Import {
            self.line.top = None;
            self.line.module = None;
        }
    }

    pub(super) fn import_word(&mut self, word: &str, after_dot: bool) {
        let library = Arc::clone(&self.library);
        if self.line.kind == Statement::From && word == "import" {
            self.line.kind = Statement::FromNames;
            self.top().operand = None;
            if self.line.relative || (self.line.module.is_none() && !self.is_harmless()) {
                self.foreign = true;
            }
            return;
        }
        if word == "as" {
            self.line.alias = true;
            return;
        }
        if self.line.alias {
            if let Some((name, _)) = &mut self.line.imported {
                *name = word.into();
            }
            if self.line.kind == Statement::Import {
                let ty = self.line.module.map_or(Ty::Free, |id| Ty::of(&library, id));
                self.line.imported = Some((word.into(), ty));
            }
            self.line.alias = false;
            return;
        }
        if self.line.kind == Statement::FromNames {
            let child = self.line.module.and_then(|module| library.child(module, word));
            let ty = child.map_or(Ty::Free, |id| Ty::of(&library, id));
            if child.is_some_and(|id| library.kind(id) == Kind::Value) {
                // A name that the documentation cannot tell anything of may be of another library.
                self.foreign |= library.signature(child.unwrap_or_default()).is_none() && ty == Ty::Free;
            }
            self.line.imported = Some((word.into(), ty));
            self.top().operand = Some(Ty::Free);
            return;
        }
        if after_dot {
            self.line.module = self.line.module.and_then(|module| library.child(module, word));
            return;
        }
        self.line.top = Some(word.into());
        self.line.module = library.top(word);
        if self.line.kind == Statement::Import {
            let ty = self.line.module.map_or(Ty::Free, Ty::Module);
            self.foreign |= self.line.module.is_none() && !self.is_harmless();
            self.line.imported = Some((word.into(), ty));
        }
    }

    pub(super) fn is_harmless(&self) -> bool {
        self.line.top.as_deref().is_some_and(|top| HARMLESS.contains(&top))
    }
}
