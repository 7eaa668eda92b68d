//! The models that come with the engine: where they lie beside the program, and how a company puts its own in their place.

use std::path::PathBuf;

use inhouse_core::{Error, Result, installation};

use crate::backend;

/// One of them.
struct Shipped {
    /// What messages call it.
    what: &'static str,
    /// The environment variable that names another, for a whole installation.
    variable: &'static str,
    /// Its folder in `models` of the checkout; the file has the same name and `.gguf`. The first that is there is taken.
    names: &'static [&'static str],
    /// Whether only llama.cpp runs it.
    needs_llama: bool,
}

const RETRIEVER: Shipped = Shipped {
    what: "retriever",
    variable: "INHOUSE_RETRIEVER",
    names: &["inhouse-retriever"],
    needs_llama: false,
};
const CODER: Shipped = Shipped {
    what: "code model",
    variable: "INHOUSE_CODER",
    names: &[installation::DEFAULT_CODER, SMALL_CODER],
    needs_llama: true,
};
/// What serves where the default code model was not made.
const SMALL_CODER: &str = "inhouse-coder";

/// The project's own retriever: what `INHOUSE_RETRIEVER` names (nothing: none); else
/// `inhouse-retriever.gguf` beside the library or executable that holds this code, in `../share/inhouse` from there, as
/// `make install` leaves it, or in `models/inhouse-retriever` of the checkout that it was built in.
///
/// # Errors
/// What `INHOUSE_RETRIEVER` names is not there.
pub fn shipped_retriever() -> Result<Option<PathBuf>> {
    RETRIEVER.find()
}

/// The default code model, where this build can run it: what `INHOUSE_CODER` names (nothing: none); else `inhouse-smollm2.gguf`, which
/// `make setup` makes of a pinned base and the adapter in `models/inhouse-smollm2`, found as [`shipped_retriever`] is; else
/// `inhouse-coder.gguf`, the project's own small model, with a warning.
///
/// # Errors
/// What `INHOUSE_CODER` names is not there.
pub fn shipped_coder() -> Result<Option<PathBuf>> {
    let found = CODER.find()?;
    let is_small = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == SMALL_CODER);
    if std::env::var_os(CODER.variable).is_none() && found.as_ref().is_some_and(is_small) {
        tracing::warn!(
            "the default code model is not here (`make setup` makes it, with a network): the small one serves, which is weak;              --model or INHOUSE_CODER name another"
        );
    }
    Ok(found)
}

impl Shipped {
    fn find(&self) -> Result<Option<PathBuf>> {
        let Self { what, variable, names, needs_llama } = self;
        if let Some(named) = std::env::var_os(variable) {
            if named.is_empty() {
                return Ok(None);
            }
            let path = PathBuf::from(named);
            return match std::fs::metadata(&path) {
                Ok(_) => Ok(Some(path)),
                Err(cause) => Err(Error::io(&format!("open the {what} that {variable} names"), &path, cause)),
            };
        }
        if *needs_llama && !backend::available_backends().contains(&"llama.cpp") {
            return Ok(None);
        }
        Ok(names.iter().find_map(|name| installation::model_file(name)))
    }
}
