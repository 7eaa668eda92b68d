//! The index of a library's documentation: records on disk, found by name and searched by what they do.
//!
//! [`build`] and [`update`] write a folder; [`Index`] reads it. The folder holds a small manifest, replaced by an atomic
//! rename, that names immutable, checksummed files in segments. A segment is a set of records with one file per way of
//! finding them: `records` (by name), `sparse` (BM25), and, where there is an encoder, `dense` (vectors). Readers keep what they
//! opened; a killed writer leaves the index before it. Callers see [`Query`] and [`Hit`] alone, whatever ranks them:
//! words, and where the index was built with a text encoder, vectors too ([`Index::with_encoder`]).
//!
//! ```
//! use inhouse_core::{ApiDoc, index, progress::Silent};
//! # fn main() -> inhouse_core::Result<()> {
//! # let dir = tempfile::tempdir().expect("a temporary folder");
//! let pivot = ApiDoc { name: "pivot".into(), description: "Turns rows into columns.".into(), ..ApiDoc::default() };
//! index::build(&[pivot], dir.path(), &index::BuildOptions::default(), &Silent)?;
//! let hits = index::Index::open(dir.path())?.search(&"make columns of rows".into(), 5)?;
//! assert_eq!(hits[0].api.name, "pivot");
//! # Ok(())
//! # }
//! ```

mod analysis;
mod dense;
mod encoding;
mod fields;
mod fusion;
mod impacts;
mod large;
mod lists;
mod manifest;
mod near;
mod packed;
mod postings;
mod pruned;
mod ranker;
mod ranking;
mod reader;
mod records;
mod section_file;
mod segment;
mod twins;
mod usage;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use encoding::{IndexEncoder, document_text};
pub use fields::FieldWeights;
pub use manifest::{EncoderEntry, FORMAT_VERSION};
pub use ranker::{Share, Signal};
pub use reader::Index;
pub use usage::{ApiUsage, DOCUMENTATION, FileUsage, PlacedExample, UsageExample, UsageLedger, UsageSummary};
pub(crate) use usage::{UsageTerms, terms_of};
pub use writer::{build, merge, update};

use crate::ApiDoc;

/// Longest query text in bytes.
pub const MAX_QUERY_BYTES: usize = 64 << 10;
/// Most names in [`Hit::also`].
pub const MAX_ALSO: usize = 20;

/// How an index is built.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// What of a record is searched, and how much it counts.
    pub weights: FieldWeights,
    /// The text encoder of the dense half; `None`: the index is searched by words alone.
    pub encoder: Option<IndexEncoder>,
    /// How code uses the APIs ([`crate::usage::read`]); `None`: the index knows nothing of it.
    pub usage: Option<UsageLedger>,
}

/// How an index is updated. Field weights stay as it was built.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// What the given records stand for.
    pub scope: UpdateScope,
    /// The text encoder that the index was built with, where it was built with one.
    pub encoder: Option<IndexEncoder>,
    /// All usage that the index is to know from now on; `None`: what it knows stays.
    pub usage: Option<UsageLedger>,
}

/// What the records given to [`update`] stand for.
///
/// Given records are always added or take the place of their namesakes. What differs is what an absent record means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum UpdateScope {
    /// Every library that occurs in them is given as a whole: its records that are not given are removed. Records of
    /// no library (neither module nor dotted qualified name) count as one library.
    #[default]
    Libraries,
    /// These libraries are given as a whole, the others in part. With none, nothing is removed.
    Only(BTreeSet<String>),
}

/// What an update did, in records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateReport {
    /// New ones.
    pub added: usize,
    /// Those whose content changed.
    pub replaced: usize,
    /// Those that are gone.
    pub removed: usize,
    /// Those that were left as they were.
    pub unchanged: usize,
}

/// Facts about an index.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IndexInfo {
    /// Its folder.
    pub path: PathBuf,
    /// Version of the format on disk.
    pub format_version: u32,
    /// Grows with every build and update of the folder.
    pub generation: u64,
    /// Records.
    pub apis: usize,
    /// Distinct bare names.
    pub names: usize,
    /// Records of each library; the empty name stands for records that name no module.
    pub libraries: BTreeMap<String, usize>,
    /// Segments on disk.
    pub segments: usize,
    /// Deleted records that still take room in them.
    pub deleted: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// The text encoder of the dense half; `None`: the index is searched by words alone.
    pub encoder: Option<EncoderEntry>,
    /// What is searched, and how much it counts.
    pub weights: FieldWeights,
    /// Names of which it knows how code uses them; `None`: it holds no usage.
    pub names_used: Option<usize>,
}

/// What is asked of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// What the API should do, in words or code.
    pub text: String,
}

impl From<&str> for Query {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned() }
    }
}

impl From<String> for Query {
    fn from(text: String) -> Self {
        Self { text }
    }
}

/// Why a hit stands where it does: [`Index::explain`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The hit, as [`Index::search`] gives it.
    pub hit: Hit,
    /// What each signal adds to its score. Where it stands for another record of the same description, these are the signals of the
    /// better of the two.
    pub shares: Vec<Share>,
    /// The usage that they rest on, where the index knows of any.
    pub usage: Option<UsageSummary>,
}

/// A record that a search looks at, before it is ranked: [`Index::candidates`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The best record of its name.
    pub api: ApiDoc,
    /// What each signal says of it.
    pub shares: Vec<Share>,
}

/// A record's number within one open [`Index`]; another opening may number otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiId(u32);

/// One API name that answers a query.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// 1 for the best.
    pub rank: usize,
    /// The number of the record.
    pub id: ApiId,
    /// The best record of this name.
    pub api: ApiDoc,
    /// Higher is better; comparable within one search only.
    pub score: f32,
    /// How probably it is one that the task needs, from 0 to 1: below some bound it is better to offer none.
    pub confidence: f32,
    /// Qualified names of other records of the same bare name, and of classes with the description of this function, sorted, at
    /// most [`MAX_ALSO`].
    pub also: Vec<String>,
}
