//! The documented APIs of all packages, as the pipeline looks them up.

use inhouse_core::ApiDoc;
use inhouse_core::api::ApiKind;
use inhouse_core::constrain::Library;
use inhouse_core::index::document_text;
use rustc_hash::{FxHashMap, FxHashSet};

/// The APIs, by their dotted names and by their bare ones.
pub struct ApiTable {
    apis: Vec<ApiDoc>,
    by_name: FxHashMap<String, u32>,
    /// Methods by their bare names, per library.
    methods: FxHashMap<String, Vec<u32>>,
    libraries: FxHashSet<String>,
    names: Library,
}

impl ApiTable {
    /// Of the documentation of all packages. Of records with one dotted name the first stays.
    pub fn new(all: Vec<ApiDoc>) -> Self {
        let names = Library::new(&all);
        let mut by_name = FxHashMap::default();
        let mut apis: Vec<ApiDoc> = Vec::with_capacity(all.len());
        for api in all {
            if !by_name.contains_key(&api.qualified_name) {
                by_name.insert(api.qualified_name.clone(), apis.len() as u32);
                apis.push(api);
            }
        }
        // What a class inherits is called by the name that it has there.
        for (id, api) in (0..).zip(&apis) {
            for alias in &api.aliases {
                by_name.entry(alias.clone()).or_insert(id);
            }
        }
        let mut methods: FxHashMap<String, Vec<u32>> = FxHashMap::default();
        for (id, api) in apis.iter().enumerate() {
            if api.kind == Some(ApiKind::Method) && !api.description.is_empty() {
                methods.entry(api.name.clone()).or_default().push(id as u32);
            }
        }
        let libraries = apis.iter().map(|api| api.library().to_owned()).collect();
        Self { apis, by_name, methods, libraries, names }
    }

    /// The APIs in the order of their numbers.
    pub fn apis(&self) -> &[ApiDoc] {
        &self.apis
    }

    /// The number of a dotted name.
    pub fn id(&self, full: &str) -> Option<u32> {
        self.by_name.get(full).copied()
    }

    /// The record of a number.
    pub fn api(&self, id: u32) -> &ApiDoc {
        &self.apis[id as usize]
    }

    /// An API that code can call, with a description to find it by.
    pub fn callable(&self, full: &str) -> Option<u32> {
        self.id(full).filter(|&id| is_answer(self.api(id)))
    }

    /// The names as code refers to them.
    pub fn names(&self) -> &Library {
        &self.names
    }

    /// Whether this is the top-level name of a documented library.
    pub fn has_library(&self, name: &str) -> bool {
        self.libraries.contains(name)
    }

    /// The method of this bare name in one of `libraries`, where only one of them has such a method: the one with the shortest
    /// dotted name, which is mostly the class that the others derive from.
    pub fn method_named(&self, name: &str, libraries: &[&str]) -> Option<u32> {
        let candidates = self.methods.get(name)?.iter().copied();
        let mut found: Option<u32> = None;
        for id in candidates.filter(|&id| libraries.contains(&self.api(id).library())) {
            found = match found {
                Some(best) if self.api(best).library() != self.api(id).library() => return None,
                Some(best) if self.api(best).qualified_name.len() <= self.api(id).qualified_name.len() => {
                    Some(best)
                }
                _ => Some(id),
            };
        }
        found
    }
}

/// Whether a record can answer a query: it is called, and documented.
pub(crate) fn is_answer(api: &ApiDoc) -> bool {
    matches!(api.kind, Some(ApiKind::Function | ApiKind::Method | ApiKind::Class))
        && !api.description.is_empty()
        && !api.name.starts_with('_')
}

/// What the encoder reads of an API: the text that an index gives it.
pub fn api_text(api: &ApiDoc) -> String {
    document_text(api)
}

/// A documented API for tests, of a package's module that is named by its first part.
#[cfg(test)]
pub(crate) fn api(dotted: &str, kind: ApiKind) -> ApiDoc {
    ApiDoc {
        name: dotted.rsplit('.').next().unwrap_or(dotted).into(),
        qualified_name: dotted.into(),
        module: dotted.split('.').next().unwrap_or(dotted).into(),
        kind: Some(kind),
        signature: "(*args)".into(),
        description: "Does it.".into(),
        ..ApiDoc::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(full: &str, description: &str) -> ApiDoc {
        ApiDoc {
            name: full.rsplit('.').next().unwrap().into(),
            qualified_name: full.into(),
            module: full.split('.').next().unwrap().into(),
            kind: Some(ApiKind::Method),
            description: description.into(),
            ..ApiDoc::default()
        }
    }

    #[test]
    fn methods_by_bare_names() {
        let table = ApiTable::new(vec![
            method("loom.WoolThread.spin", "Spins."),
            method("loom.Thread.spin", "Spins."),
            method("mill.Wheel.spin", "Spins too."),
            method("mill.Wheel.hush", ""),
        ]);
        let name = |id: Option<u32>| id.map(|id| table.api(id).qualified_name.as_str());
        assert_eq!(name(table.method_named("spin", &["loom"])), Some("loom.Thread.spin"));
        assert_eq!(name(table.method_named("spin", &["loom", "mill"])), None);
        assert_eq!(name(table.method_named("hush", &["mill"])), None);
        assert!(table.callable("mill.Wheel.hush").is_none() && table.has_library("mill"));
    }
}
