//! Which names of a library are public: those of its documentation.

use std::collections::BTreeSet;

use inhouse_core::ApiDoc;

use crate::rename::{is_plain_word, words};

/// Sub-packages that hold a library's inside by convention: what is there and nowhere else is not for users.
const INSIDE: &[&str] = &[
    "core",
    "internal",
    "internals",
    "impl",
    "compat",
    "vendor",
    "vendored",
    "extern",
    "externals",
    "tests",
    "test",
    "conftest",
];

/// The documented APIs that are public, and their names.
#[derive(Debug, Clone)]
pub struct Surface {
    /// Import name.
    pub library: String,
    /// The public APIs.
    pub apis: Vec<ApiDoc>,
    /// Every name among them, those of modules included, the library's own too. One letter alone is left: `T` says nothing.
    pub names: BTreeSet<String>,
}

impl Surface {
    /// What is public of `apis`, leaving out what lies below the modules `excluded` (`pandas.io`) alone.
    pub fn of(library: &str, apis: Vec<ApiDoc>, excluded: &[String]) -> Self {
        let is_public = |path: &str| {
            let mut parts = path.split('.').skip(1);
            let out = excluded.iter().any(|module| {
                path.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            });
            !out && parts.all(|part| !part.starts_with('_') && !INSIDE.contains(&part))
        };
        let mut names = BTreeSet::from([library.to_owned()]);
        let apis: Vec<ApiDoc> = apis
            .into_iter()
            .filter(|api| api.library() == library && is_public(&api.qualified_name))
            .map(|mut api| {
                api.aliases.retain(|alias| is_public(alias));
                api.bases.retain(|base| is_public(base));
                api
            })
            .collect();
        for api in &apis {
            let paths = [&api.qualified_name, &api.name].into_iter().chain(&api.aliases);
            let parts = paths.flat_map(|path| path.split('.')).filter(|part| is_plain_word(part));
            names.extend(parts.filter(|part| !part.starts_with('_') && part.len() > 1).map(str::to_owned));
        }
        // `series` for a Series: where it is a parameter's name it gives the class away, and is renamed with it.
        let signatures: BTreeSet<&str> = apis.iter().flat_map(|api| words(&api.signature)).collect();
        let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        names.extend(
            lower.into_iter().filter(|name| signatures.contains(name.as_str()) && is_plain_word(name)),
        );
        Self { library: library.to_owned(), apis, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_of_a_library_is_not_public() {
        let api = |path: &str| ApiDoc {
            name: path.rsplit('.').next().unwrap().into(),
            qualified_name: path.into(),
            aliases: vec!["lib.core.again".into(), "lib.shown".into()],
            ..ApiDoc::default()
        };
        let apis = ["lib.read", "lib.core.Block", "lib._hid.x", "lib.io.deep", "other.y", "lib.Box.__init__"];
        let surface = Surface::of("lib", apis.map(api).to_vec(), &["lib.io".into()]);
        assert_eq!(surface.apis.len(), 1);
        assert_eq!(surface.names.iter().map(String::as_str).collect::<Vec<_>>(), ["lib", "read", "shown"]);
    }
}
