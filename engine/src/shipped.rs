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
    /// Its folder in `models` of the checkout; the file has the same name and `.gguf`.
    name: &'static str,
    /// Whether only llama.cpp runs it.
    needs_llama: bool,
}

const RETRIEVER: Shipped = Shipped {
    what: "retriever",
    variable: "INHOUSE_RETRIEVER",
    name: "inhouse-retriever",
    needs_llama: false,
};
const CODER: Shipped =
    Shipped { what: "code model", variable: "INHOUSE_CODER", name: "inhouse-coder", needs_llama: true };

/// The project's own retriever: what `INHOUSE_RETRIEVER` names (nothing: none); else
/// `inhouse-retriever.gguf` beside the library or executable that holds this code, in `../share/inhouse` from there, as
/// `make install` leaves it, or in `models/inhouse-retriever` of the checkout that it was built in.
///
/// # Errors
/// What `INHOUSE_RETRIEVER` names is not there.
pub fn shipped_retriever() -> Result<Option<PathBuf>> {
    RETRIEVER.find()
}

/// The project's own small code model, where this build can run it: what `INHOUSE_CODER` names (nothing: none); else
/// `inhouse-coder.gguf`, found as [`shipped_retriever`] is.
///
/// # Errors
/// What `INHOUSE_CODER` names is not there.
pub fn shipped_coder() -> Result<Option<PathBuf>> {
    CODER.find()
}

impl Shipped {
    fn find(&self) -> Result<Option<PathBuf>> {
        let Self { what, variable, name, needs_llama } = self;
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
        let beside = |folder: &PathBuf| {
            let checkout = folder.ancestors().take(4).map(|folder| folder.join("models").join(name));
            [folder.clone(), folder.join("../share/inhouse")].into_iter().chain(checkout).collect::<Vec<_>>()
        };
        let folders = installation::folders();
        let mut places =
            folders.iter().flat_map(beside).map(|folder| folder.join(name).with_added_extension("gguf"));
        Ok(places.find(|file| file.is_file()))
    }
}
