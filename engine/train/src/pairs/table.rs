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
    /// Methods of each class, by its dotted name.
    class_sizes: FxHashMap<String, usize>,
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
        let mut methods: FxHashMap<String, Vec<u32>> = FxHashMap::default();
        for (id, api) in apis.iter().enumerate() {
            if api.kind == Some(ApiKind::Method) && !api.description.is_empty() {
                methods.entry(api.name.clone()).or_default().push(id as u32);
            }
        }
        let mut class_sizes: FxHashMap<String, usize> = FxHashMap::default();
        for id in methods.values().flatten() {
            if let Some((class, _)) = apis[*id as usize].qualified_name.rsplit_once('.') {
                *class_sizes.entry(class.to_owned()).or_default() += 1;
            }
        }
        let libraries = apis.iter().map(|api| api.library().to_owned()).collect();
        Self { apis, by_name, methods, class_sizes, libraries, names }
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

    /// The method of this bare name in one of `libraries`, called on something whose expression begins with the name `receiver`. Its
    /// class is the one that the receiver is named after (`df` after `DataFrame`), if any; else only one of the libraries may have such a
    /// method, and the class with the most methods is taken: mostly the one that the library is about.
    pub fn method_named(&self, name: &str, receiver: &str, libraries: &[&str]) -> Option<u32> {
        let class = |id: u32| self.api(id).qualified_name.rsplit_once('.').map_or("", |(class, _)| class);
        let rank = |id: u32| {
            let full = &self.api(id).qualified_name;
            let methods = self.class_sizes.get(class(id)).copied().unwrap_or(0);
            (is_named_after(receiver, class(id)), methods, std::cmp::Reverse((full.len(), id)))
        };
        let of_libraries =
            self.methods.get(name)?.iter().copied().filter(|&id| libraries.contains(&self.api(id).library()));
        let best = of_libraries.clone().max_by_key(|&id| rank(id))?;
        let (named, ..) = rank(best);
        let library = self.api(best).library();
        let rivals =
            |id: u32| self.api(id).library() != library && is_named_after(receiver, class(id)) == named;
        (!of_libraries.clone().any(rivals)).then_some(best)
    }
}

/// Whether a variable has the name that people give to objects of a class: the class's own in lower case (`axes`), its initials (`df`
/// of `DataFrame`), or a beginning of it (`fig` of `Figure`); digits and what stands before or after an underscore do not matter.
fn is_named_after(variable: &str, class: &str) -> bool {
    let class = class.rsplit('.').next().unwrap_or_default();
    let initials: String = class.chars().filter(char::is_ascii_uppercase).collect::<String>().to_lowercase();
    let class = class.to_lowercase();
    variable.split('_').any(|part| {
        let part = part.trim_end_matches(|c: char| c.is_ascii_digit()).to_lowercase();
        (part.len() >= 2 && part == initials) || (part.len() >= 3 && class.starts_with(&part))
    })
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
            method("loom.Thread.cut", "Cuts."),
            method("mill.Wheel.spin", "Spins too."),
            method("mill.Wheel.hush", ""),
        ]);
        let name = |id: Option<u32>| id.map(|id| table.api(id).qualified_name.as_str());
        assert_eq!(name(table.method_named("spin", "x", &["loom"])), Some("loom.Thread.spin"));
        assert_eq!(name(table.method_named("spin", "wt", &["loom"])), Some("loom.WoolThread.spin"));
        assert_eq!(name(table.method_named("spin", "x", &["loom", "mill"])), None);
        assert_eq!(name(table.method_named("spin", "my_wheel2", &["loom", "mill"])), Some("mill.Wheel.spin"));
        assert_eq!(name(table.method_named("hush", "x", &["mill"])), None);
        assert!(table.callable("mill.Wheel.hush").is_none() && table.has_library("mill"));
    }

    #[test]
    fn variables_are_named_after_classes() {
        for (variable, class, expected) in [
            ("df", "pandas.DataFrame", true),
            ("df2", "pandas.DataFrame", true),
            ("left_df", "pandas.DataFrame", true),
            ("fig", "matplotlib.Figure", true),
            ("axes", "matplotlib.Axes", true),
            ("s", "pandas.Series", false),
            ("data", "pandas.Series", false),
            ("x", "x.X", false),
        ] {
            assert_eq!(is_named_after(variable, class), expected, "{variable} {class}");
        }
    }
}
