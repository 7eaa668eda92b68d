//! The manifest: the one file that says what an index consists of. It is replaced by an atomic rename, and everything
//! that it names is immutable, so whoever has read it has a whole index.
//!
//! Two lines of JSON: a header that every version of the format keeps, then the body under the header's checksum.
//!
//! ```text
//! {"format":"inhouse-index","version":1,"crc32":3735928559}
//! {"generation":3,"analysis":1,"weights":{...},"segments":[{"docs":3924,"files":{"records":{...},"sparse":{...}},...}]}
//! ```
//!
//! `usage` beside them names one file for the whole index, which speaks of names and not of records (`index/usage.rs`).
//! Files of a segment are named by their role. A reader passes over roles that it does not know, so that a dense file
//! (vectors of the same docs) can be added beside the sparse one without a new version.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::analysis::Analyzer;
use super::dense::MAX_DIM;
use super::fields::FieldWeights;
use super::section_file::FileEntry;
use crate::encode::EncoderInfo;
use crate::files::write_atomic;
use crate::{Error, ErrorKind, Result};

/// Name of the manifest in the index folder.
pub(super) const MANIFEST: &str = "manifest.json";
/// Version of the index format that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;
const FORMAT: &str = "inhouse-index";
const MAX_BYTES: u64 = 64 << 20;

/// Role of the records file.
pub(super) const RECORDS: &str = "records";
/// Role of the sparse file.
pub(super) const SPARSE: &str = "sparse";
/// Role of the dense file; every segment has one where the manifest names an encoder.
pub(super) const DENSE: &str = "dense";
/// Role of the impacts file, which a large segment has beside its sparse one. It only makes searches faster.
pub(super) const IMPACTS: &str = "impacts";
/// Role of the usage file, of which an index has one.
pub(super) const USAGE: &str = "usage";
/// Role of the near file, which a large segment has beside its dense one. It only makes searches faster.
pub(super) const NEAR: &str = "near";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    #[serde(default)]
    crc32: u32,
}

/// The body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Counts the manifests written to this folder; part of the names of new files.
    pub generation: u64,
    /// [`Analyzer::VERSION`] of the postings.
    pub analysis: u32,
    /// Field weights of the postings.
    pub weights: FieldWeights,
    /// The encoder of the dense files, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderEntry>,
    /// The segments, in order of their making.
    pub segments: Vec<SegmentEntry>,
    /// How code uses the APIs, where that was read. A reader that does not know of it searches without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<FileEntry>,
}

/// The text encoder of the dense files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderEntry {
    /// Its name, for messages.
    pub name: String,
    /// What tells its vectors from another encoder's.
    pub fingerprint: String,
    /// Width of its vectors.
    pub dim: usize,
    /// Where it was when the index was built.
    pub path: PathBuf,
}

impl EncoderEntry {
    /// Whether `encoder` gives the vectors that are in the index.
    pub(super) fn matches(&self, encoder: &EncoderInfo) -> bool {
        self.fingerprint == encoder.fingerprint && self.dim == encoder.dim
    }
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SegmentEntry {
    /// Records in its files, deleted ones included.
    pub docs: u32,
    /// Its immutable files by role.
    pub files: BTreeMap<String, FileEntry>,
    /// Which of its docs are deleted; a new file at each change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<FileEntry>,
}

impl SegmentEntry {
    /// All files of the segment.
    pub fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.values().chain(&self.deleted)
    }
}

/// The name of a new file.
pub(super) fn file_name(generation: u64, role: &str) -> String {
    format!("{generation:010}.{role}")
}

/// The generation in the name of one of our files; `None` for any other name.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    let (number, role) = name.split_once('.')?;
    let ours = number.len() >= 10
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !role.is_empty();
    number.parse().ok().filter(|_| ours)
}

impl Manifest {
    /// All files that it names.
    pub fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        self.segments.iter().flat_map(SegmentEntry::entries).chain(&self.usage)
    }

    /// Reads `dir/manifest.json`.
    ///
    /// # Errors
    /// There is no index, it is of another version, or the manifest is corrupted.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let file = crate::files::open_regular(&path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound if dir.is_dir() => Error::with_source(
                ErrorKind::NotFound,
                format!(
                    "{}: no index in this folder ({MANIFEST} is missing; build one first)",
                    dir.display()
                ),
                cause,
            ),
            std::io::ErrorKind::NotFound => Error::with_source(
                ErrorKind::NotFound,
                format!("{}: no such index folder", dir.display()),
                cause,
            ),
            std::io::ErrorKind::NotADirectory => {
                Error::data(dir, "is a file, expected an index folder (made by `inhouse index build`)")
            }
            _ => Error::io("open", &path, cause),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("read", &path, cause))?;
        Self::parse(&path, &bytes)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::data(path, format!("corrupted: {what} (build the index again)"));
        if bytes.len() as u64 > MAX_BYTES {
            return Err(bad(format!("longer than {MAX_BYTES} bytes")));
        }
        let end = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| bad("its first line has no end".into()))?;
        let (first, body) = (&bytes[..end], &bytes[end + 1..]);
        let header: Header = serde_json::from_slice(first)
            .map_err(|cause| bad(format!("its first line does not parse: {cause}")))?;
        if header.format != FORMAT {
            return Err(bad(format!("its format is {:?}, expected {FORMAT:?}", header.format)));
        }
        if header.version != FORMAT_VERSION {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!(
                    "{}: index format version {}, this build reads version {FORMAT_VERSION} (build the index again)",
                    path.display(),
                    header.version
                ),
            ));
        }
        if crc32fast::hash(body) != header.crc32 {
            return Err(bad("its checksum is wrong".into()));
        }
        let manifest: Self =
            serde_json::from_slice(body).map_err(|cause| bad(format!("its body does not parse: {cause}")))?;
        if manifest.analysis != Analyzer::VERSION {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!(
                    "{}: text analysis version {}, this build has version {} (build the index again)",
                    path.display(),
                    manifest.analysis,
                    Analyzer::VERSION
                ),
            ));
        }
        if let Some(entry) = manifest.entries().find(|entry| generation_of(&entry.name).is_none()) {
            return Err(bad(format!("{:?} is not the name of an index file", entry.name)));
        }
        let docs: u64 = manifest.segments.iter().map(|segment| u64::from(segment.docs)).sum();
        if u32::try_from(docs).is_err() {
            return Err(bad(format!("{docs} records are over the limit of {}", u32::MAX)));
        }
        if let Some(encoder) =
            manifest.encoder.as_ref().filter(|encoder| !(1..=MAX_DIM).contains(&encoder.dim))
        {
            return Err(bad(format!("vectors of width {} are not within 1..={MAX_DIM}", encoder.dim)));
        }
        manifest.weights.validate().map_err(|cause| bad(cause.to_string()))?;
        Ok(manifest)
    }

    /// Puts this manifest in the place of the one before: the moment at which readers see the new index.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let mut body = serde_json::to_vec(self).map_err(|cause| {
            Error::with_source(ErrorKind::Internal, format!("cannot serialise the manifest: {cause}"), cause)
        })?;
        body.push(b'\n');
        let header = Header { format: FORMAT.into(), version: FORMAT_VERSION, crc32: crc32fast::hash(&body) };
        write_atomic(&dir.join(MANIFEST), |out| {
            serde_json::to_writer(&mut *out, &header)?;
            out.write_all(b"\n")?;
            out.write_all(&body)
        })
    }
}
