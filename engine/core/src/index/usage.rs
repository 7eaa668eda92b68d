//! The usage file of an index: what code that calls the APIs says of them. One file for the whole index, named by the manifest
//! (`usage`), since it speaks of names and not of records: an update of records leaves it as it is, and the other way round.
//!
//! ```text
//! 0 the ledger: what was found in each file of code, deflated JSON; read only to bring it up to date
//! 1, 2 string table: the names that are used        3 figures of each name, 4 x u32: files, files that resolve it, calls, terms
//! 4, 5 string table: terms of the words around calls 6 offsets [terms + 1] u64 into 7
//! 7 postings, u32 by name: name << 8 | contexts     8 offsets [names + 1] u64 into 9     9 details of each name, deflated JSON
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::analysis::{Analyzer, StopWords};
use super::ranking::inverse_frequency;
use super::section_file::{FileEntry, SectionFile, SectionWriter, StringTable, offsets, u32_at};
use crate::{Error, ErrorKind, Result};

const KIND: [u8; 4] = *b"USGE";
const SECTIONS: usize = 10;
/// Figures of a name.
const FIGURES: usize = 4;
/// Examples that are kept of a name.
const MAX_EXAMPLES: usize = 3;
/// Keywords, and dotted names, that are kept of a name: the most frequent.
const MAX_KEYWORDS: usize = 12;
/// Terms that are kept of a name: those in most contexts.
const MAX_TERMS: usize = 256;
/// Contexts that a posting counts; more say no more.
const MAX_CONTEXTS: u32 = 255;
/// Names that postings can tell apart.
const MAX_NAMES: usize = 1 << 24;
/// The source of what the examples in docstrings show. Everything that is documented has such examples, so they say nothing of how
/// often an API is used, nor in other words than its documentation: they are shown, not counted.
pub const DOCUMENTATION: &str = "documentation";
/// No ledger is longer, unpacked.
const MAX_LEDGER_BYTES: u64 = 1 << 30;
/// BM25's constants, the textbook's.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// All usage that an index knows, by file of code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageLedger {
    /// What was read, ordered by source and path.
    pub files: Vec<FileUsage>,
}

/// What one file of code says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileUsage {
    /// Where the file was found: a folder, an archive, or a file.
    pub source: String,
    /// Its path within, with `/`; of a notebook or a page of text that of the page.
    pub path: String,
    /// Digest of its bytes and of what it was read by: a file whose digest is known need not be read again.
    pub digest: String,
    /// The APIs that it uses, by bare name.
    pub uses: Vec<ApiUsage>,
}

/// How one file uses the APIs of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiUsage {
    /// The bare name.
    pub name: String,
    /// Uses.
    pub calls: u32,
    /// Uses of which the code tells what they are of, by dotted name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<String, u32>,
    /// Keywords of the calls.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keywords: BTreeMap<String, u32>,
    /// Terms of the words around the uses (names of functions, comments, docstrings), and in how many contexts they stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, u32>,
    /// The best examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<UsageExample>,
}

/// An example of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageExample {
    /// The call, one line.
    pub code: String,
    /// What it is for, as a comment or the name of the function around it says; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    /// 1-based line in the file.
    pub line: u32,
    /// How well it teaches: higher is better.
    pub score: u32,
}

/// What an index knows of the use of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageSummary {
    /// Files that use it.
    pub files: u32,
    /// Files of which some code tells what the name is of.
    pub files_resolved: u32,
    /// Uses in all of them.
    pub calls: u32,
    /// Dotted names and in how many files, the most frequent first.
    pub targets: Vec<(String, u32)>,
    /// Keywords and in how many files, the most frequent first.
    pub keywords: Vec<(String, u32)>,
    /// The best examples, from different files where there are.
    pub examples: Vec<PlacedExample>,
}

/// An example and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedExample {
    /// The call, one line.
    pub code: String,
    /// What it is for; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    /// The source and the path in it.
    pub file: String,
    /// 1-based line.
    pub line: u32,
}

/// The index's terms of a text: how usage is written down, so that no word is kept in its order.
pub(crate) fn terms_of(analyzer: &mut UsageTerms, text: &str, mut emit: impl FnMut(&str)) {
    analyzer.0.terms(text, StopWords::Drop, |term| {
        let word = term.chars().all(char::is_alphabetic);
        // Numbers, hashes and the like say nothing of what a call does, and may be somebody's secret.
        if word && (2..=24).contains(&term.len()) {
            emit(term);
        }
    });
}

/// Turns text into terms for [`ApiUsage::terms`].
pub(crate) struct UsageTerms(Analyzer);

impl UsageTerms {
    pub fn new() -> Self {
        Self(Analyzer::new())
    }
}

/// All that is known of a name, while it is gathered.
#[derive(Default)]
struct Gathered<'l> {
    files: u32,
    files_resolved: u32,
    calls: u32,
    targets: BTreeMap<&'l str, u32>,
    keywords: BTreeMap<&'l str, u32>,
    terms: BTreeMap<&'l str, u32>,
    examples: Vec<(&'l UsageExample, &'l FileUsage)>,
}

fn most<'l>(counts: &BTreeMap<&'l str, u32>, n: usize) -> Vec<(&'l str, u32)> {
    let mut sorted: Vec<(&str, u32)> = counts.iter().map(|(key, count)| (*key, *count)).collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    sorted.truncate(n);
    sorted
}

impl Gathered<'_> {
    fn summary(&self) -> UsageSummary {
        let owned = |counts: Vec<(&str, u32)>| {
            counts.into_iter().map(|(key, count)| (key.to_owned(), count)).collect::<Vec<_>>()
        };
        let mut sorted: Vec<&(&UsageExample, &FileUsage)> = self.examples.iter().collect();
        sorted.sort_by(|(a, a_file), (b, b_file)| {
            let place = |example: &UsageExample, file: &FileUsage| (file.path.clone(), example.line);
            b.score.cmp(&a.score).then_with(|| place(a, a_file).cmp(&place(b, b_file)))
        });
        let mut examples: Vec<PlacedExample> = Vec::new();
        let mut again = Vec::new();
        for (example, file) in sorted {
            let placed = PlacedExample {
                code: example.code.clone(),
                says: example.says.clone(),
                file: if file.path.is_empty() { file.source.clone() } else { file.path.clone() },
                line: example.line,
            };
            if examples.iter().chain(&again).any(|known| known.code == placed.code) {
                continue;
            }
            // One of each file before the second of any: examples of one test are much alike.
            let list = if examples.iter().any(|known| known.file == placed.file) {
                &mut again
            } else {
                &mut examples
            };
            list.push(placed);
            if examples.len() >= MAX_EXAMPLES {
                break;
            }
        }
        examples.extend(again);
        examples.truncate(MAX_EXAMPLES);
        UsageSummary {
            files: self.files,
            files_resolved: self.files_resolved,
            calls: self.calls,
            targets: owned(most(&self.targets, MAX_KEYWORDS)),
            keywords: owned(most(&self.keywords, MAX_KEYWORDS)),
            examples,
        }
    }
}

/// Writes the usage file `dir/name`.
pub(super) fn write(dir: &Path, name: &str, ledger: &UsageLedger) -> Result<FileEntry> {
    let mut names: BTreeMap<&str, Gathered<'_>> = BTreeMap::new();
    for file in &ledger.files {
        for used in &file.uses {
            let gathered = names.entry(&used.name).or_default();
            gathered.examples.extend(used.examples.iter().map(|example| (example, file)));
            if file.source == DOCUMENTATION {
                continue;
            }
            gathered.files += 1;
            gathered.files_resolved += u32::from(!used.targets.is_empty());
            gathered.calls = gathered.calls.saturating_add(used.calls);
            used.targets.keys().for_each(|key| *gathered.targets.entry(key).or_default() += 1);
            used.keywords.keys().for_each(|key| *gathered.keywords.entry(key).or_default() += 1);
            for (term, contexts) in &used.terms {
                *gathered.terms.entry(term).or_default() += contexts;
            }
        }
    }
    if names.len() > MAX_NAMES {
        let what = format!("usage of {} names in one index, at most {MAX_NAMES}", names.len());
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    let mut postings: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut figures: Vec<u32> = Vec::with_capacity(names.len() * FIGURES);
    for (i, gathered) in (0u32..).zip(names.values()) {
        let mut length = 0;
        for (term, contexts) in most(&gathered.terms, MAX_TERMS) {
            let contexts = contexts.min(MAX_CONTEXTS);
            postings.entry(term).or_default().push(i << 8 | contexts);
            length += contexts;
        }
        figures.extend([gathered.files, gathered.files_resolved, gathered.calls, length]);
    }

    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.section();
    out.write(&packed(ledger)?)?;
    StringTable::write(&mut out, names.keys().copied())?;
    out.u32s(figures)?;
    StringTable::write(&mut out, postings.keys().copied())?;
    let mut end = 0u64;
    let ends: Vec<u64> = postings
        .values()
        .map(|list| {
            end += list.len() as u64 * 4;
            end
        })
        .collect();
    out.u64s(std::iter::once(0).chain(ends))?;
    out.u32s(postings.values().flatten().copied())?;
    let details = names.values().map(|gathered| packed(&gathered.summary())).collect::<Result<Vec<_>>>()?;
    let mut end = 0u64;
    let ends: Vec<u64> = details
        .iter()
        .map(|detail| {
            end += detail.len() as u64;
            end
        })
        .collect();
    out.u64s(std::iter::once(0).chain(ends))?;
    out.section();
    details.iter().try_for_each(|detail| out.write(detail))?;
    out.finish()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| {
        Error::with_source(ErrorKind::Internal, format!("cannot serialise usage: {cause}"), cause)
    })
}

fn packed(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(&json(value)?)
        .and_then(|()| encoder.finish())
        .map_err(|cause| Error::with_source(ErrorKind::Internal, "cannot pack usage", cause))
}

/// An open usage file.
#[derive(Debug)]
pub(super) struct Usage {
    file: SectionFile,
    names: StringTable,
    terms: StringTable,
    /// Names that have words around their uses, and how many on the average.
    with_words: usize,
    average_length: f32,
}

/// Figures of a name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Figures {
    pub files: u32,
    pub files_resolved: u32,
    pub calls: u32,
}

impl Usage {
    /// Opens `dir/entry.name`.
    pub fn open(dir: &Path, entry: &FileEntry) -> Result<Self> {
        let file = SectionFile::open(dir, entry, KIND, SECTIONS)?;
        let (names, terms) = (StringTable::open(&file, 1)?, StringTable::open(&file, 4)?);
        let expected = [(3, names.len() * FIGURES * 4), (6, terms.len() * 8 + 8), (8, names.len() * 8 + 8)];
        if let Some((section, _)) =
            expected.iter().find(|(section, bytes)| file.section_len(*section) != *bytes)
        {
            return Err(file.corrupted(format!("section {section} does not fit {} names", names.len())));
        }
        let figures = file.section(3)?;
        let lengths = (0..names.len()).map(|i| u32_at(figures, i * FIGURES + 3));
        let with_words = lengths.clone().filter(|length| *length > 0).count();
        let length: u64 = lengths.map(u64::from).sum();
        let average_length = (length as f64 / with_words.max(1) as f64).max(1.0) as f32;
        Ok(Self { file, names, terms, with_words, average_length })
    }

    /// What was found in each file.
    pub fn ledger(&self) -> Result<UsageLedger> {
        self.unpacked("its ledger", self.file.section(0)?)
    }

    fn unpacked<T: for<'d> Deserialize<'d>>(&self, what: &str, packed: &[u8]) -> Result<T> {
        let mut bytes = Vec::new();
        DeflateDecoder::new(packed)
            .take(MAX_LEDGER_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|cause| self.file.corrupted(format!("{what} does not unpack: {cause}")))?;
        serde_json::from_slice(&bytes)
            .map_err(|cause| self.file.corrupted(format!("{what} does not parse: {cause}")))
    }

    /// The number of a name that is used.
    pub fn find(&self, name: &str) -> Result<Option<usize>> {
        self.names.find(&self.file, name)
    }

    /// Names that are used.
    pub fn n_names(&self) -> usize {
        self.names.len()
    }

    /// The figures of the `i`-th name.
    pub fn figures(&self, i: usize) -> Result<Figures> {
        let bytes = self.file.bytes(3, i * FIGURES * 4..(i + 1) * FIGURES * 4)?;
        Ok(Figures { files: u32_at(bytes, 0), files_resolved: u32_at(bytes, 1), calls: u32_at(bytes, 2) })
    }

    /// All that is kept of the `i`-th name.
    pub fn summary(&self, i: usize) -> Result<UsageSummary> {
        self.unpacked("the usage of a name", self.file.bytes(9, offsets(&self.file, 8, i)?)?)
    }

    /// What the words around the uses of a name say to the `terms` of a query: BM25 of the names that share any.
    ///
    /// Divided by the root of the terms' weights, for long queries, and not standardised: where little code was read, few names have any
    /// words at all, and each of them would stand out by many deviations on no evidence.
    pub fn scores(&self, terms: &BTreeMap<String, f32>) -> Result<FxHashMap<u32, f32>> {
        let scale = 1.0 / terms.values().sum::<f32>().max(1.0).sqrt();
        let figures = self.file.section(3)?;
        let mut scores: FxHashMap<u32, f32> = FxHashMap::default();
        for (term, weight) in terms {
            let Some(i) = self.terms.find(&self.file, term)? else { continue };
            let list = self.file.bytes(7, offsets(&self.file, 6, i)?)?;
            let n = list.len() / 4;
            let weight_idf = weight * inverse_frequency(self.with_words, n);
            for posting in 0..n {
                let posting = u32_at(list, posting);
                let (name, contexts) = (posting >> 8, (posting & MAX_CONTEXTS) as f32);
                if name as usize >= self.names.len() {
                    return Err(self.file.corrupted("a posting is of a name that is not there"));
                }
                let length = u32_at(figures, name as usize * FIGURES + 3) as f32;
                let norm = K1 * (1.0 - B + B * length / self.average_length);
                *scores.entry(name).or_default() +=
                    scale * weight_idf * contexts * (K1 + 1.0) / (contexts + norm);
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, terms: &[&str], code: &str, score: u32) -> ApiUsage {
        ApiUsage {
            name: name.into(),
            calls: 2,
            targets: [(format!("loom.{name}"), 1)].into(),
            keywords: [("deep".to_owned(), 1)].into(),
            terms: terms.iter().map(|term| ((*term).to_owned(), 1)).collect(),
            examples: vec![UsageExample { code: code.into(), says: "why".into(), line: 3, score }],
        }
    }

    #[test]
    fn usage_comes_back_and_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            |path: &str, uses: Vec<ApiUsage>| FileUsage { path: path.into(), uses, ..FileUsage::default() };
        let ledger = UsageLedger {
            files: vec![
                file(
                    "a.py",
                    vec![used("dye", &["colour", "cloth"], "dye(1)", 2), used("hem", &["edg"], "hem()", 1)],
                ),
                file("b.py", vec![used("dye", &["colour"], "dye(2)", 5)]),
            ],
        };
        let entry = write(dir.path(), "0000000001.usage", &ledger).unwrap();
        let usage = Usage::open(dir.path(), &entry).unwrap();
        assert_eq!(usage.ledger().unwrap(), ledger);
        let dye = usage.find("dye").unwrap().unwrap();
        assert_eq!(usage.figures(dye).unwrap(), Figures { files: 2, files_resolved: 2, calls: 4 });
        let summary = usage.summary(dye).unwrap();
        assert_eq!(summary.targets, [("loom.dye".to_owned(), 2)]);
        assert_eq!(
            summary.examples.iter().map(|e| e.code.as_str()).collect::<Vec<_>>(),
            ["dye(2)", "dye(1)"]
        );
        let scores = usage.scores(&[("edg".to_owned(), 1.0)].into()).unwrap();
        let hem = usage.find("hem").unwrap().unwrap();
        assert!(scores.len() == 1 && scores[&(hem as u32)] > 0.1, "{scores:?}");
        assert_eq!(usage.find("weave").unwrap(), None);
    }

    #[test]
    fn an_empty_ledger_is_a_usage_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let entry = write(dir.path(), "0000000001.usage", &UsageLedger::default()).unwrap();
        let usage = Usage::open(dir.path(), &entry).unwrap();
        assert!(usage.scores(&[("a".to_owned(), 1.0)].into()).unwrap().is_empty());
        assert_eq!((usage.n_names(), usage.ledger().unwrap()), (0, UsageLedger::default()));
    }

    #[test]
    fn what_may_be_a_secret_is_no_term() {
        let mut terms = Vec::new();
        terms_of(&mut UsageTerms::new(), "token a8f3e99c sk-live-51H9 merges the ledgers", |t| {
            terms.push(t.to_owned())
        });
        assert!(terms.iter().all(|term| !term.contains(char::is_numeric)), "{terms:?}");
        assert!(terms.contains(&"ledger".to_owned()), "{terms:?}");
    }
}
