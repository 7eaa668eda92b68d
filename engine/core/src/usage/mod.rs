//! Usage: how code that already calls a library calls it. Tests, examples, notebooks and in-house programs say in people's words
//! what an API is for, which no signature does.
//!
//! [`read`] goes through code and gives a [`UsageLedger`], which an index keeps beside its records
//! ([`crate::index::BuildOptions::usage`]): how often each name is used, in how many files, with which keywords, the words around
//! the uses, and a few short examples. Nothing is run. What a call is of is told as [`crate::constrain::calls`] tells it; a method on a
//! value of unknown type counts for its bare name, unless the name is one that Python's own types have too.
//!
//! Reading order: `sources` (which files) -> `pages` (notebooks and prose to code) -> `contexts` (what stands around a call) ->
//! `file` (the uses of one file) -> `literal` (which strings may be kept).

mod contexts;
mod file;
mod literal;
mod pages;
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::api::ApiKind;
use crate::constrain::Library;
use crate::docs::Skipped;
use crate::index::{DOCUMENTATION, FileUsage, UsageLedger, UsageTerms};
use crate::python::{self, STACK_BYTES};
use crate::{ApiDoc, Error, ErrorKind, Progress, Result};
use file::{Names, Reading};
use sources::{Found, Listed};

/// Where usage is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSource {
    /// A folder, a wheel, an sdist, or a file: Python, a notebook, Markdown or reStructuredText, or rows of [`FileUsage`] (`.jsonl`,
    /// `.jsonl.gz`).
    pub path: PathBuf,
    /// Whether it is the library's own source, of which only tests, examples and documents are usage.
    pub own: bool,
}

/// How usage is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageOptions {
    /// Whether words, keywords and examples are kept. Without, counts alone are, and paths only as digests.
    pub text: bool,
    /// Threads; `None`: one per core.
    pub threads: Option<usize>,
}

impl Default for UsageOptions {
    fn default() -> Self {
        Self { text: true, threads: None }
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageReading {
    /// What an index keeps.
    pub ledger: UsageLedger,
    /// Files that were passed over.
    pub skipped: Vec<Skipped>,
    /// Files of code whose usage is known now; those that were passed over are not among them.
    pub files_read: usize,
    /// Files whose usage was known already.
    pub files_known: usize,
}

/// Reads how the code in `sources` uses `apis`, and what the examples in their docstrings show. Of what is `known`, files of other
/// sources stay, files that have not changed are not read again, and files that are gone are forgotten.
///
/// # Errors
/// A source does not exist or is of no known kind, or an archive is damaged; whoever watches ends the work. A file that cannot be
/// read (not Python, not UTF-8, too large) is no error: it is listed in [`UsageReading::skipped`].
pub fn read(
    sources: &[UsageSource],
    apis: &[ApiDoc],
    known: Option<&UsageLedger>,
    options: &UsageOptions,
    progress: &dyn Progress,
) -> Result<UsageReading> {
    let library = Library::new(apis);
    let names = Names::new(apis);
    let mark = mark(apis, options);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.unwrap_or(0))
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|cause| Error::with_source(ErrorKind::Internal, "cannot start threads", cause))?;
    let mut reading = UsageReading::default();
    let asked: BTreeSet<String> = sources.iter().map(|source| sources::title(&source.path)).collect();
    for file in known.iter().flat_map(|known| &known.files) {
        if file.source != DOCUMENTATION && !asked.contains(&file.source) {
            reading.ledger.files.push(file.clone());
        }
    }
    for source in sources {
        progress.check()?;
        let title = sources::title(&source.path);
        if sources::is_rows(&source.path) && !source.own {
            reading.ledger.files.extend(rows(&source.path, &title, options)?);
            continue;
        }
        let Listed { mut files, skipped } = sources::list(source)?;
        reading.skipped.extend(skipped);
        let n_files = files.len();
        progress.start("usage", Some(files.len() as u64));
        let refused = Mutex::new(Vec::new());
        let done = |file: &mut Found| -> Option<(FileUsage, bool)> {
            progress.check().ok()?; // The caller asks once more, and ends.
            progress.advance(1);
            let bytes = file.take_bytes();
            let refuse = |line: Option<u32>, reason: String| {
                let skip = Skipped { path: file.path.clone(), line, reason };
                refused.lock().map(|mut refused| refused.push(skip)).ok();
            };
            let bytes = bytes.map_err(|reason| refuse(None, reason)).ok()?;
            let digest = digest(&mark, &bytes);
            let path = if options.text { file.path.clone() } else { digest.clone() };
            let same = |old: &&FileUsage| old.digest == digest && old.path == path && old.source == title;
            if let Some(old) = known.and_then(|known| known.files.iter().find(same)) {
                return Some((old.clone(), true));
            }
            let reading = Reading { library: &library, names: &names, text: options.text };
            let pages = pages::of(&file.path, bytes).map_err(|(line, reason)| refuse(line, reason)).ok()?;
            let uses = reading.uses(&pages).map_err(|(line, reason)| refuse(line, reason)).ok()?;
            Some((FileUsage { source: title.clone(), path, digest, uses }, false))
        };
        let mut found: Vec<(FileUsage, bool)> =
            pool.install(|| files.par_iter_mut().with_max_len(4).filter_map(done).collect());
        progress.check()?;
        progress.finish();
        let refused = refused.into_inner().unwrap_or_default();
        reading.files_read += n_files - refused.len();
        reading.skipped.extend(refused);
        reading.files_known += found.iter().filter(|(_, known)| *known).count();
        found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        reading.ledger.files.extend(found.into_iter().map(|(file, _)| file));
    }
    let shown = pool
        .install(|| documentation(apis, &Reading { library: &library, names: &names, text: options.text }));
    reading.ledger.files.extend(shown);
    reading.ledger.files.sort_by(|a, b| (&a.source, &a.path).cmp(&(&b.source, &b.path)));
    reading.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(reading)
}

/// Usage that was read before and written down as rows: [`FileUsage`] as JSON, one a line.
fn rows(path: &Path, title: &str, options: &UsageOptions) -> Result<Vec<FileUsage>> {
    let mut files = Vec::new();
    for row in crate::files::json_lines::<FileUsage>(path)? {
        let (line, mut file) = row?;
        if file.uses.iter().any(|used| used.name.trim().is_empty()) {
            return Err(Error::data_at(path, line, "`name` of a use is empty"));
        }
        file.source = title.to_owned();
        if !options.text {
            file.path = digest("", file.path.as_bytes());
            for used in &mut file.uses {
                (used.keywords, used.terms, used.examples) = Default::default();
            }
        }
        files.push(file);
    }
    Ok(files)
}

/// The terms of a text as usage keeps them ([`crate::index::ApiUsage::terms`]): stems of its words, numbers and short words left out.
pub fn terms(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    crate::index::terms_of(&mut UsageTerms::new(), text, |term| found.push(term.to_owned()));
    found
}

/// What the examples of docstrings show. A docstring that several records have (a method and its heirs) counts once.
fn documentation(apis: &[ApiDoc], reading: &Reading<'_>) -> Vec<FileUsage> {
    let mut seen: BTreeSet<&[String]> = BTreeSet::new();
    let with_examples =
        apis.iter().filter(|api| !api.examples.is_empty() && api.kind != Some(ApiKind::Module));
    let distinct: Vec<&ApiDoc> = with_examples.filter(|api| seen.insert(&api.examples)).collect();
    let mut found: Vec<FileUsage> = distinct
        .par_iter()
        .filter_map(|api| {
            let page = pages::of_examples(api);
            let mut uses = reading.uses(&page).ok()?;
            uses.retain(|used| !used.examples.is_empty());
            uses.iter_mut().for_each(|used| used.terms.clear());
            let path = if api.qualified_name.is_empty() { &api.name } else { &api.qualified_name };
            let path = if reading.text { path.clone() } else { digest("", path.as_bytes()) };
            (!uses.is_empty()).then(|| FileUsage {
                source: DOCUMENTATION.into(),
                path,
                digest: String::new(),
                uses,
            })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What a file's usage follows from beside its bytes: the names that are looked for, and what is kept.
fn mark(apis: &[ApiDoc], options: &UsageOptions) -> String {
    const VERSION: u32 = 1;
    let mut names: Vec<&str> = apis
        .iter()
        .map(
            |api| if api.qualified_name.is_empty() { api.name.as_str() } else { api.qualified_name.as_str() },
        )
        .collect();
    names.sort_unstable();
    digest(&format!("{VERSION} {}", options.text), names.join("\n").as_bytes())
}

fn digest(mark: &str, bytes: &[u8]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(mark.as_bytes());
    hasher.update([0]);
    hasher.update(bytes);
    hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Parses code, saying where it is none. The caller's thread has [`STACK_BYTES`] of stack.
fn parse(text: &str) -> Result<python::Tree, (Option<u32>, String)> {
    let parsed = python::parse(text).map_err(|refusal| (refusal.line, refusal.reason))?;
    let Some(error) = parsed.errors().first() else { return Ok(parsed) };
    let at = error.location.start().to_usize().min(text.len());
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
    Err((Some(line), format!("does not parse: {}", error.error)))
}

#[cfg(test)]
mod tests;
