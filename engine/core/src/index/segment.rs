//! One segment: immutable files over the same docs, and which of the docs have been deleted since.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::dense::{self, Code, Dense};
use super::impacts::{self, Impacts};
use super::manifest::{DENSE, IMPACTS, NEAR, RECORDS, SPARSE, SegmentEntry, file_name};
use super::near::{self, Near};
use super::postings::{self, Postings};
use super::records::{self, Records};
use super::section_file::{FileEntry, SectionFile, SectionWriter};
use super::{FieldWeights, manifest};
use crate::{ApiDoc, Error, Progress, Result};

/// Segments of so many docs have impacts and near files, so that searches need not look at every record. Below, looking at
/// every record takes a few milliseconds and misses nothing.
const LARGE_DOCS: usize = 32_768;
const DELETED_KIND: [u8; 4] = *b"DELS";

/// A set of docs, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DocSet {
    bits: Vec<u8>,
}

impl DocSet {
    /// The empty set over `docs` docs.
    pub fn new(docs: usize) -> Self {
        Self { bits: vec![0; docs.div_ceil(8)] }
    }

    /// Whether `doc` is in it.
    pub fn contains(&self, doc: usize) -> bool {
        self.bits.get(doc / 8).is_some_and(|byte| byte >> (doc % 8) & 1 == 1)
    }

    /// Adds `doc`.
    pub fn insert(&mut self, doc: usize) {
        if let Some(byte) = self.bits.get_mut(doc / 8) {
            *byte |= 1 << (doc % 8);
        }
    }

    /// Number of docs in it.
    pub fn len(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Writes it as `dir/name`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<FileEntry> {
        let mut out = SectionWriter::create(dir, name, DELETED_KIND)?;
        out.section();
        out.write(&self.bits)?;
        out.finish()
    }

    fn read(dir: &Path, entry: &FileEntry, docs: usize) -> Result<Self> {
        let file = SectionFile::open(dir, entry, DELETED_KIND, 1)?;
        let set = Self { bits: file.section(0)?.to_vec() };
        let beyond = (docs..set.bits.len() * 8).any(|doc| set.contains(doc));
        if set.bits.len() != docs.div_ceil(8) || beyond {
            return Err(file.corrupted(format!("it does not fit {docs} records")));
        }
        Ok(set)
    }
}

/// A record to be written.
pub(super) struct Row<'a> {
    pub api: &'a ApiDoc,
    /// Its vector, where the index has an encoder.
    pub code: Option<Arc<Code>>,
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its line in the manifest.
    pub entry: SegmentEntry,
    /// Its records.
    pub records: Records,
    /// Its postings.
    pub postings: Postings,
    /// Its vectors, where the index has an encoder.
    pub dense: Option<Dense>,
    /// What makes searches of its postings faster, where it is large.
    pub impacts: Option<Impacts>,
    /// What makes searches of its vectors faster, where it is large.
    pub near: Option<Near>,
    /// Its deleted docs.
    pub deleted: DocSet,
    /// Length of every doc, in units.
    pub lengths: Vec<u32>,
    /// Name number of every doc.
    pub name_of: Vec<u32>,
}

impl Segment {
    /// Opens the files that `entry` names.
    /// `dim` is the width of the index's vectors, where it has any.
    pub fn open(dir: &Path, entry: &SegmentEntry, dim: Option<usize>) -> Result<Self> {
        let docs = entry.docs as usize;
        let file = |role: &str| {
            entry.files.get(role).ok_or_else(|| {
                let manifest = dir.join(manifest::MANIFEST);
                Error::data(
                    &manifest,
                    format!("corrupted: a segment has no {role} file (build the index again)"),
                )
            })
        };
        let records = Records::open(dir, file(RECORDS)?, docs)?;
        let postings = Postings::open(dir, file(SPARSE)?, docs)?;
        let dense = dim.map(|dim| Dense::open(dir, file(DENSE)?, docs, dim)).transpose()?;
        let deleted = match &entry.deleted {
            Some(entry) => DocSet::read(dir, entry, docs)?,
            None => DocSet::new(docs),
        };
        let (lengths, name_of) = (postings.lengths()?, records.name_of_docs()?);
        let impacts = entry.files.get(IMPACTS).map(|entry| Impacts::open(dir, entry)).transpose()?.flatten();
        let near = match (entry.files.get(NEAR), &dense) {
            (Some(entry), Some(dense)) => Near::open(dir, entry, dense)?,
            _ => None,
        };
        Ok(Self { entry: entry.clone(), records, postings, dense, impacts, near, deleted, lengths, name_of })
    }

    /// Writes the segment of `rows` (sorted here) under names of `generation`. Either all rows have a code or none.
    pub fn write(
        dir: &Path,
        generation: u64,
        mut rows: Vec<Row<'_>>,
        weights: &FieldWeights,
        progress: &dyn Progress,
    ) -> Result<SegmentEntry> {
        rows.sort_by(|a, b| records::compare(a.api, b.api));
        let docs = u32::try_from(rows.len()).map_err(|_| {
            Error::new(crate::ErrorKind::LimitExceeded, format!("{} records in one index", rows.len()))
        })?;
        let apis: Vec<&ApiDoc> = rows.iter().map(|row| row.api).collect();
        let sparse = postings::write(dir, &file_name(generation, SPARSE), &apis, weights, progress)?;
        let records = records::write(dir, &file_name(generation, RECORDS), &apis)?;
        let mut files: BTreeMap<_, _> = [(RECORDS.to_owned(), records), (SPARSE.to_owned(), sparse)].into();
        let codes: Vec<&Code> = rows.iter().filter_map(|row| row.code.as_deref()).collect();
        if codes.len() == rows.len() {
            let dense = dense::write(dir, &file_name(generation, DENSE), codes.iter().copied())?;
            files.insert(DENSE.to_owned(), dense);
        }
        let mut entry = SegmentEntry { docs, files, deleted: None };
        if docs as usize >= LARGE_DOCS {
            progress.check()?;
            let dim = codes.first().map(|code| code.dim());
            drop(rows);
            let segment = Self::open(dir, &entry, dim)?;
            let (name_of, lengths) = (&segment.name_of, &segment.lengths);
            let name = file_name(generation, IMPACTS);
            let file = impacts::write(dir, &name, &segment.postings, name_of, lengths)?;
            entry.files.insert(IMPACTS.to_owned(), file);
            if let Some(dense) = &segment.dense {
                progress.check()?;
                let file = near::write(dir, &file_name(generation, NEAR), dense, name_of)?;
                entry.files.insert(NEAR.to_owned(), file);
            }
        }
        Ok(entry)
    }

    /// Number of docs, deleted ones included.
    pub fn docs(&self) -> usize {
        self.entry.docs as usize
    }

    /// Docs that are not deleted, ascending.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.docs()).filter(|doc| !self.deleted.contains(*doc))
    }
}
