//! Training pairs of the retriever: what people say of code, and the APIs that the code calls.
//!
//! Reading order: `prose` (which texts are sentences) -> `table` (the documented APIs of all packages) -> `code` (comments and
//! docstrings with the calls below them) and `documentation` (examples, cross references, further sentences) -> `overlap` (what
//! repeats a benchmark) -> `make` (the pipeline over packages, restartable) ; `wording` and `twins` vary the texts of a batch.

pub(crate) mod code;
mod documentation;
pub(crate) mod make;
mod overlap;
pub(crate) mod prose;
pub(crate) mod table;
mod twins;
mod wording;

use serde::{Deserialize, Serialize};

pub use make::{Made, MakeOptions, Statistics, make};
pub use overlap::{Benchmarks, NGRAM_WORDS, OverlapReport};
pub use table::{ApiTable, api_text};
pub use twins::Twin;
pub use wording::{ask, vary};

/// Where the text of a pair comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A `#` comment above or beside the code that calls the APIs.
    Comment,
    /// The first sentence of the docstring of a function that calls the APIs.
    Docstring,
    /// The first paragraph of such a docstring.
    Paragraph,
    /// A sentence above an example in the documentation of the API.
    Example,
    /// What another API's documentation says of this one (See Also).
    Reference,
    /// The first sentence of the API's own documentation.
    Summary,
    /// A further sentence of it.
    Detail,
}

/// One query with the APIs that answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// What a person might ask.
    pub query: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Dotted names of APIs, all of one library.
    pub apis: Vec<String>,
    /// Some of them are known by their bare names alone: the receiver's type is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guessed: bool,
    /// The file, inside its package.
    pub path: String,
    /// 1-based line.
    pub line: usize,
}
