//! The records file of a segment: the documentation records and what finds them by name.
//!
//! Records are sorted by name, then qualified name, and numbered from 0 in that order (their *doc* number); records of
//! one name are thus neighbours. Sections:
//!
//! ```text
//! 0 offsets [docs + 1] u64 into 1     1 the records, one JSON object each
//! 2, 3 string table: distinct names   4 first doc of each name [names + 1] u32     5 name of each doc [docs] u32
//! 6, 7 string table: libraries        8 library of each doc [docs] u32
//! 9 keys, (hash of a name by which a record can be asked for, u64; doc, u32), sorted
//! ```

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::fields::bare;
use super::section_file::{FileEntry, SectionFile, SectionWriter, StringTable, offsets, u32_at, u64_at};
use crate::{ApiDoc, Error, ErrorKind, Result};

const KIND: [u8; 4] = *b"RECS";
const KEY_BYTES: usize = 12;
/// Dotted names with more components than this are reachable by their longest tails only.
const MAX_TAILS: usize = 16;

/// Serialises a record as it is stored: equal records give equal bytes.
pub(super) fn encode(api: &ApiDoc) -> Result<Vec<u8>> {
    serde_json::to_vec(api).map_err(|cause| {
        Error::with_source(
            ErrorKind::Internal,
            format!("cannot serialise the record of {}: {cause}", api.name),
            cause,
        )
    })
}

/// Sorts records as [`write`] wants them.
pub(super) fn sort(apis: &mut [&ApiDoc]) {
    apis.sort_by(|a, b| compare(a, b));
}

/// The order of records.
pub(super) fn compare(a: &ApiDoc, b: &ApiDoc) -> Ordering {
    (&a.name, &a.qualified_name).cmp(&(&b.name, &b.qualified_name)).then_with(|| {
        // Equal names: any order that depends on nothing but the content.
        encode(a).unwrap_or_default().cmp(&encode(b).unwrap_or_default())
    })
}

/// Writes the records, sorted by [`sort`], as `dir/name`.
pub(super) fn write(dir: &Path, name: &str, apis: &[&ApiDoc]) -> Result<FileEntry> {
    let mut out = SectionWriter::create(dir, name, KIND)?;
    let mut ends = vec![0u64];
    let mut bodies = SectionBuffer::default();
    for api in apis {
        bodies.push(encode(api)?);
        ends.push(bodies.bytes);
    }
    out.u64s(ends)?;
    out.section();
    bodies.parts.iter().try_for_each(|part| out.write(part))?;
    drop(bodies);

    let mut names: Vec<&str> = Vec::new();
    let mut first_doc: Vec<u32> = Vec::new();
    let mut name_of: Vec<u32> = Vec::with_capacity(apis.len());
    for (doc, api) in (0u32..).zip(apis) {
        if names.last() != Some(&api.name.as_str()) {
            names.push(&api.name);
            first_doc.push(doc);
        }
        name_of.push(names.len() as u32 - 1);
    }
    first_doc.push(apis.len() as u32);
    StringTable::write(&mut out, names.iter().copied())?;
    out.u32s(first_doc)?;
    out.u32s(name_of)?;

    let mut libraries: BTreeMap<&str, u32> = apis.iter().map(|api| (api.library(), 0)).collect();
    (0u32..).zip(libraries.values_mut()).for_each(|(i, number)| *number = i);
    StringTable::write(&mut out, libraries.keys().copied())?;
    out.u32s(apis.iter().map(|api| libraries[api.library()]))?;

    let mut keys: Vec<(u64, u32)> = Vec::with_capacity(apis.len() * 3);
    for (doc, api) in (0u32..).zip(apis) {
        keys.extend(names_of(api).map(|key| (hash(key), doc)));
    }
    keys.sort_unstable();
    keys.dedup();
    out.section();
    for (hash, doc) in keys {
        out.write(&hash.to_le_bytes())?;
        out.write(&doc.to_le_bytes())?;
    }
    out.finish()
}

/// Serialised records on their way to the file, without one huge reallocated buffer.
#[derive(Default)]
struct SectionBuffer {
    parts: Vec<Vec<u8>>,
    bytes: u64,
}

impl SectionBuffer {
    fn push(&mut self, body: Vec<u8>) {
        self.bytes += body.len() as u64;
        match self.parts.last_mut() {
            Some(part) if part.len() + body.len() <= part.capacity() => part.extend_from_slice(&body),
            _ => {
                let mut part = Vec::with_capacity(body.len().max(1 << 20));
                part.extend_from_slice(&body);
                self.parts.push(part);
            }
        }
    }
}

/// Every name by which `api` can be asked for: the dotted tails of its qualified name and aliases, its bare name.
fn names_of(api: &ApiDoc) -> impl Iterator<Item = &str> {
    let dotted = std::iter::once(&api.qualified_name).chain(&api.aliases).filter(|name| !name.is_empty());
    std::iter::once(api.name.as_str())
        .chain(dotted.flat_map(|name| {
            let tails = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
            std::iter::once(name.as_str()).chain(tails).take(MAX_TAILS)
        }))
        .filter(|name| !name.is_empty())
}

/// FNV-1a, 64 bits: stable across versions, and a collision costs only a look at the record.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An open records file.
#[derive(Debug)]
pub(super) struct Records {
    file: SectionFile,
    docs: usize,
    names: StringTable,
    libraries: StringTable,
}

impl Records {
    /// Opens `dir/entry.name`, which must hold `docs` records.
    pub fn open(dir: &Path, entry: &FileEntry, docs: usize) -> Result<Self> {
        let file = SectionFile::open(dir, entry, KIND, 10)?;
        let names = StringTable::open(&file, 2)?;
        let libraries = StringTable::open(&file, 6)?;
        let expected = [(0, docs * 8 + 8), (4, names.len() * 4 + 4), (5, docs * 4), (8, docs * 4)];
        if let Some((section, _)) =
            expected.iter().find(|(section, bytes)| file.section_len(*section) != *bytes)
        {
            return Err(file.corrupted(format!("section {section} does not fit {docs} records")));
        }
        if file.section_len(9) % KEY_BYTES != 0 {
            return Err(file.corrupted("the section of keys is not a whole number of keys"));
        }
        Ok(Self { file, docs, names, libraries })
    }

    /// Number of distinct names.
    pub fn n_names(&self) -> usize {
        self.names.len()
    }

    /// The `i`-th distinct name in byte order.
    pub fn name(&self, i: usize) -> Result<&str> {
        self.names.get(&self.file, i)
    }

    /// The number of a name.
    pub fn find_name(&self, name: &str) -> Result<Option<usize>> {
        self.names.find(&self.file, name)
    }

    /// The docs of the `i`-th name.
    pub fn docs_of_name(&self, i: usize) -> Result<Range<usize>> {
        let pair = self.file.bytes(4, i * 4..i * 4 + 8)?;
        let (start, end) = (u32_at(pair, 0) as usize, u32_at(pair, 1) as usize);
        if start > end || end > self.docs {
            return Err(self.file.corrupted(format!("docs {start}..{end} of a name are impossible")));
        }
        Ok(start..end)
    }

    /// The name number of every doc.
    pub fn name_of_docs(&self) -> Result<Vec<u32>> {
        let bytes = self.file.section(5)?;
        let names: Vec<u32> = (0..self.docs).map(|doc| u32_at(bytes, doc)).collect();
        if names.iter().any(|name| *name as usize >= self.names.len()) {
            return Err(self.file.corrupted("a record has a name that is not there"));
        }
        Ok(names)
    }

    /// Names of the libraries.
    pub fn libraries(&self) -> Result<Vec<&str>> {
        (0..self.libraries.len()).map(|i| self.libraries.get(&self.file, i)).collect()
    }

    /// The library of every doc, an index into [`Records::libraries`].
    pub fn library_of_docs(&self) -> Result<impl Iterator<Item = usize>> {
        let bytes = self.file.section(8)?;
        Ok((0..self.docs).map(|doc| u32_at(bytes, doc) as usize))
    }

    /// The stored bytes of a record.
    pub fn bytes(&self, doc: usize) -> Result<&[u8]> {
        self.file.bytes(1, offsets(&self.file, 0, doc)?)
    }

    /// A record.
    pub fn api(&self, doc: usize) -> Result<ApiDoc> {
        serde_json::from_slice(self.bytes(doc)?)
            .map_err(|cause| self.file.corrupted(format!("record {doc} does not parse: {cause}")))
    }

    /// What records of one name are sorted by: see [`sort`].
    pub fn order(&self, doc: usize) -> Result<(String, &[u8])> {
        Ok((self.api(doc)?.qualified_name, self.bytes(doc)?))
    }

    /// Docs that can be asked for by `name`, ascending: by bare name, by qualified name or alias, or by a dotted tail of
    /// these (`DataFrame.pivot`).
    pub fn find(&self, name: &str) -> Result<Vec<usize>> {
        let n_keys = self.file.section_len(9) / KEY_BYTES;
        let key = |i: usize| -> Result<(u64, usize)> {
            let bytes = self.file.bytes(9, i * KEY_BYTES..(i + 1) * KEY_BYTES)?;
            Ok((u64_at(bytes, 0), u32_at(&bytes[8..], 0) as usize))
        };
        let wanted = hash(name);
        let (mut low, mut high) = (0, n_keys);
        while low < high {
            let middle = low + (high - low) / 2;
            if key(middle)?.0 < wanted { low = middle + 1 } else { high = middle }
        }
        let mut found = Vec::new();
        for i in low..n_keys {
            let (hash, doc) = key(i)?;
            if hash != wanted {
                break;
            }
            if doc >= self.docs {
                return Err(self.file.corrupted(format!("a key names record {doc} of {}", self.docs)));
            }
            if names_of(&self.api(doc)?).any(|own| own == name) {
                found.push(doc);
            }
        }
        Ok(found)
    }

    /// How well `api` answers to `name`: 0 qualified name, 1 bare name, 2 a tail or an alias.
    pub fn closeness(api: &ApiDoc, name: &str) -> u8 {
        match () {
            () if api.qualified_name == name => 0,
            () if api.name == name => 1,
            () if api.aliases.iter().any(|alias| alias == name || bare(alias) == name) => 2,
            () => 3,
        }
    }
}
