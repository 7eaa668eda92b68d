//! Building and updating. New files are written and synced under names that nothing refers to, then the manifest is
//! replaced, then files that no manifest names are removed. A writer killed at any point leaves the old index and some
//! unnamed files, which the next writer removes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::manifest::{MANIFEST, Manifest, USAGE, file_name, generation_of};
use super::reader::Index;
use super::records::encode;
use super::section_file::FileEntry;
use super::segment::{DocSet, Row, Segment};
use super::{
    BuildOptions, IndexEncoder, IndexInfo, UpdateOptions, UpdateReport, UpdateScope, UsageLedger,
    analysis::Analyzer,
};
use crate::{ApiDoc, Error, ErrorKind, Progress, Result};

const LOCK: &str = "lock";
/// What `files::write_atomic` calls a file that is not finished.
const TEMPORARY: &str = ".inhouse-";

/// Builds the index of `apis` in the folder `dir`, which is made where it does not exist.
///
/// An index that is there already answers until the new one is complete, then it is replaced at once; one that is
/// damaged or of another version is replaced too.
///
/// # Errors
/// `apis` is empty or has a record without a name; an option is out of range; `dir` holds anything that is not an
/// index; another writer is at work ([`ErrorKind::Busy`]); a file cannot be written; whoever watches ends the work
/// ([`Progress::check`]). The old index is then untouched.
pub fn build(
    apis: &[ApiDoc],
    dir: &Path,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<IndexInfo> {
    check_apis(apis)?;
    options.weights.validate()?;
    std::fs::create_dir_all(dir).map_err(|cause| Error::io("create the folder", dir, cause))?;
    check_folder(dir)?;
    let folder = WriteLock::take(dir)?;
    let generation = next_generation(dir)?;
    remove_unnamed(dir, Manifest::read(dir).ok().as_ref())?;
    let encoder = options.encoder.as_ref().map(|encoder| encoder.entry()).transpose()?;
    let rows = encoded(apis.iter().collect(), options.encoder.as_ref(), progress)?;
    progress.start("index", Some(apis.len() as u64));
    let segment = Segment::write(dir, generation, rows, &options.weights, progress)?;
    let manifest = Manifest {
        generation,
        analysis: Analyzer::VERSION,
        weights: options.weights,
        encoder,
        segments: vec![segment],
        usage: write_usage(dir, generation, options.usage.as_ref())?,
    };
    progress.check()?;
    commit(dir, &manifest)?;
    progress.finish();
    let info = Index::open(dir)?.info();
    drop(folder);
    Ok(info)
}

/// Brings the index in `dir` up to date with `apis`, a fresh reading of some libraries.
///
/// Records are told apart by qualified name (by name where they have none). Of a library (first component of module or
/// qualified name) that is given as a whole ([`UpdateScope`]), records that `apis` no longer has are removed. Other
/// libraries stay. Unchanged records are not rewritten; the cost follows the size of the libraries read and of the
/// change, not that of the index. Where many records must be merged, readers see the change before that work begins.
///
/// # Errors
/// `apis` is empty or has a record without a name; `dir` holds no index or a damaged one; another writer is at work
/// ([`ErrorKind::Busy`]); a file cannot be written; whoever watches ends the work. The index is then as before.
pub fn update(
    dir: &Path,
    apis: &[ApiDoc],
    options: &UpdateOptions,
    progress: &dyn Progress,
) -> Result<UpdateReport> {
    check_apis(apis)?;
    // before the lock file is made: there must be an index
    Manifest::read(dir)?;
    let folder = WriteLock::take(dir)?;
    let index = Index::open(dir)?;
    let encoder = encoder_of(&index, options)?;
    remove_unnamed(dir, Some(index.manifest()))?;
    progress.start("index", Some(apis.len() as u64));
    let change = Change::find(&index, apis, &options.scope)?;
    let report = change.report;
    let usage = match &options.usage {
        Some(usage) if index.usage_ledger()?.as_ref() != Some(usage) => Some(usage),
        _ => None,
    };
    if change.added.is_empty() && change.removed.is_empty() && usage.is_none() {
        progress.advance(apis.len() as u64);
    } else {
        let (mut manifest, left) = change.write(dir, &index, encoder, progress)?;
        if let Some(entry) = write_usage(dir, manifest.generation, usage)? {
            manifest.usage = Some(entry);
        }
        progress.check()?;
        commit(dir, &manifest)?;
        progress.finish();
        drop(index);
        if let Some(rows) = left {
            // The change is there, whatever becomes of the merge: a later update finds it due again.
            let index = Index::open(dir)?;
            let deleted: Vec<DocSet> =
                index.segments().iter().map(|segment| segment.deleted.clone()).collect();
            let merged = due(&index, &deleted, rows);
            merge_segments(dir, &index, &merged, progress)?;
        }
    }
    progress.finish();
    drop(folder);
    Ok(report)
}

fn write_usage(dir: &Path, generation: u64, usage: Option<&UsageLedger>) -> Result<Option<FileEntry>> {
    usage.map(|ledger| super::usage::write(dir, &file_name(generation, USAGE), ledger)).transpose()
}

/// The encoder to update `index` with: the one that it was built with.
fn encoder_of<'o>(index: &Index, options: &'o UpdateOptions) -> Result<Option<&'o IndexEncoder>> {
    match (&index.manifest().encoder, &options.encoder) {
        (None, _) => Ok(None),
        (Some(entry), Some(given)) if entry.matches(given.encoder.info()) => Ok(Some(given)),
        (Some(entry), given) => {
            let given = match given {
                Some(given) => format!("{} is another (its fingerprint differs)", given.path.display()),
                None => "it is needed for an update".into(),
            };
            let what = format!(
                "{}: the index was built with the encoder {} ({}); {given}; give that one, or build the index again",
                index.path().display(),
                entry.name,
                entry.path.display(),
            );
            Err(Error::new(ErrorKind::InvalidArgument, what))
        }
    }
}

/// Records with their vectors, where there is an encoder.
fn encoded<'a>(
    apis: Vec<&'a ApiDoc>,
    encoder: Option<&IndexEncoder>,
    progress: &dyn Progress,
) -> Result<Vec<Row<'a>>> {
    let Some(encoder) = encoder else {
        return Ok(apis.into_iter().map(|api| Row { api, code: None }).collect());
    };
    let codes = encoder.codes(&apis, progress)?;
    Ok(apis.into_iter().zip(codes).map(|(api, code)| Row { api, code: Some(code) }).collect())
}

fn check_apis(apis: &[ApiDoc]) -> Result<()> {
    if apis.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "no API to index"));
    }
    if let Some(i) = apis.iter().position(|api| api.name.trim().is_empty()) {
        let what = format!("API {} of {} has an empty name", i + 1, apis.len());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    Ok(())
}

/// Refuses a folder that holds anything but an index, so that no path given by mistake is written into.
fn check_folder(dir: &Path) -> Result<()> {
    for name in names_in(dir)? {
        if !(name == MANIFEST
            || name == LOCK
            || name.starts_with(TEMPORARY)
            || generation_of(&name).is_some())
        {
            let what = format!(
                "{}: holds {name:?}, which is no part of an index; give an empty folder",
                dir.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
    }
    Ok(())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let io = |cause| Error::io("list", dir, cause);
    let entries = std::fs::read_dir(dir).map_err(io)?;
    entries.map(|entry| Ok(entry.map_err(io)?.file_name().to_string_lossy().into_owned())).collect()
}

/// A generation whose file names are not in use, also when the manifest is damaged.
fn next_generation(dir: &Path) -> Result<u64> {
    let named = names_in(dir)?.iter().filter_map(|name| generation_of(name)).max().unwrap_or(0);
    let current = Manifest::read(dir).map(|manifest| manifest.generation).unwrap_or(0);
    Ok(named.max(current) + 1)
}

fn commit(dir: &Path, manifest: &Manifest) -> Result<()> {
    // The names of the new files must be on the disk before the manifest that refers to them; a folder that cannot be
    // synced (some file systems) is no error.
    if let Ok(folder) = File::open(dir) {
        folder.sync_all().ok();
    }
    manifest.write(dir)?;
    remove_unnamed(dir, Some(manifest))
}

/// Removes index files that `manifest` does not name: of the index before, or of a killed writer. Readers that have them
/// open keep them; a reader between manifest and files starts over (see [`Index::open`]).
fn remove_unnamed(dir: &Path, manifest: Option<&Manifest>) -> Result<()> {
    let Some(manifest) = manifest else { return Ok(()) };
    let named: BTreeSet<&str> = manifest.entries().map(|entry| entry.name.as_str()).collect();
    for name in names_in(dir)? {
        let ours = name.starts_with(TEMPORARY) || generation_of(&name).is_some();
        if ours && !named.contains(name.as_str()) {
            // Where a file cannot be removed (mapped, on some systems), the next writer tries again.
            if let Err(cause) = std::fs::remove_file(dir.join(&name)) {
                tracing::debug!("cannot remove {}: {cause}", dir.join(&name).display());
            }
        }
    }
    Ok(())
}

/// The right to write to an index folder. The operating system takes it back when the process ends, however it ends.
struct WriteLock {
    file: File,
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Closing would do, were there no other thread that starts a process right now: its copy of the descriptor lives on
        // until the new program takes over, and the lock with it.
        self.file.unlock().ok();
    }
}

impl WriteLock {
    fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|cause| Error::io("open", &path, cause))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{}: another process is writing this index; try again when it is done",
                    dir.display()
                ),
            )),
            Err(TryLockError::Error(cause)) => Err(Error::io("lock", &path, cause)),
        }
    }
}

/// What an update does to an index.
struct Change<'a> {
    added: Vec<&'a ApiDoc>,
    /// Docs to delete, per segment.
    removed: BTreeMap<usize, Vec<usize>>,
    report: UpdateReport,
}

/// What tells records apart.
fn key(api: &ApiDoc) -> &str {
    if api.qualified_name.is_empty() { &api.name } else { &api.qualified_name }
}

impl<'a> Change<'a> {
    fn find(index: &Index, apis: &'a [ApiDoc], scope: &UpdateScope) -> Result<Self> {
        let mut report = UpdateReport::default();
        // rows by content, so that what is stored already is found without parsing it
        let mut fresh: FxHashMap<Vec<u8>, Vec<&ApiDoc>> = FxHashMap::default();
        for api in apis {
            fresh.entry(encode(api)?).or_default().push(api);
        }
        let libraries: BTreeSet<&str> = apis.iter().map(ApiDoc::library).collect();
        let is_whole = |library: &str| match scope {
            UpdateScope::Libraries => true,
            UpdateScope::Only(whole) => whole.contains(library),
        };
        let mut outdated: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (s, segment) in index.segments().iter().enumerate() {
            for doc in Self::concerned(segment, apis, &libraries, is_whole)? {
                if fresh.get_mut(segment.records.bytes(doc)?).and_then(Vec::pop).is_some() {
                    report.unchanged += 1;
                } else {
                    outdated.entry(key(&segment.records.api(doc)?).to_owned()).or_default().push((s, doc));
                }
            }
        }
        let mut added: Vec<&ApiDoc> = fresh.into_values().flatten().collect();
        super::records::sort(&mut added);
        let mut removed: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for api in &added {
            // a row takes the place of one outdated row of its key
            match outdated.get_mut(key(api)).and_then(Vec::pop) {
                Some((segment, doc)) => {
                    report.replaced += 1;
                    removed.entry(segment).or_default().push(doc);
                }
                None => report.added += 1,
            }
        }
        for (segment, doc) in outdated.into_values().flatten() {
            report.removed += 1;
            removed.entry(segment).or_default().push(doc);
        }
        Ok(Self { added, removed, report })
    }

    /// The docs of `segment` that stay only if they are among `apis`, ascending: all of the libraries that are given as a whole,
    /// and of the others those that an API is given for. The latter are looked up by name, so that a few changed
    /// records cost little in an index of any size.
    fn concerned(
        segment: &Segment,
        apis: &[ApiDoc],
        libraries: &BTreeSet<&str>,
        is_whole: impl Fn(&str) -> bool,
    ) -> Result<BTreeSet<usize>> {
        let names = segment.records.libraries()?;
        let whole: Vec<bool> = names.iter().map(|name| libraries.contains(name) && is_whole(name)).collect();
        let mut docs = BTreeSet::new();
        if whole.contains(&true) {
            let of_docs = segment.records.library_of_docs()?.enumerate();
            docs.extend(
                of_docs.filter(|(_, library)| whole.get(*library) == Some(&true)).map(|(doc, _)| doc),
            );
        }
        let partly: BTreeSet<&str> = libraries
            .iter()
            .copied()
            .filter(|library| !is_whole(library) && names.contains(library))
            .collect();
        if !partly.is_empty() {
            for key_of_api in apis.iter().map(key).collect::<BTreeSet<_>>() {
                for doc in segment.records.find(key_of_api)? {
                    let old = segment.records.api(doc)?;
                    if partly.contains(old.library()) && key(&old) == key_of_api {
                        docs.insert(doc);
                    }
                }
            }
        }
        docs.retain(|doc| !segment.deleted.contains(*doc));
        Ok(docs)
    }

    /// Writes new files and returns the manifest that names them; where segments are left to be merged, also the number of rows
    /// of the new one.
    fn write(
        &self,
        dir: &Path,
        index: &Index,
        encoder: Option<&IndexEncoder>,
        progress: &dyn Progress,
    ) -> Result<(Manifest, Option<usize>)> {
        let mut deleted: Vec<DocSet> =
            index.segments().iter().map(|segment| segment.deleted.clone()).collect();
        for (segment, docs) in &self.removed {
            docs.iter().for_each(|doc| deleted[*segment].insert(*doc));
        }
        let due = due(index, &deleted, self.added.len());
        // What takes long waits until readers can see the change.
        let mut now = BTreeSet::new();
        let mut rows = self.added.len();
        for &s in &due {
            let live = index.segments()[s].docs() - deleted[s].len();
            if rows + live <= MERGED_AT_ONCE {
                rows += live;
                now.insert(s);
            }
        }
        // Only what is new is encoded.
        let added = encoded(self.added.clone(), encoder, progress)?;
        let left = (now.len() < due.len()).then_some(rows);
        Ok((rewrite(dir, index, &deleted, &now, added, progress)?, left))
    }
}

/// Live rows that an update merges before readers see it.
const MERGED_AT_ONCE: usize = 8192;

/// The segments that a new one of so many `rows` is to be merged with: those that are not larger than it and they together, or
/// half dead. So the number of segments grows with the logarithm of the index, and a row is rewritten about as often.
fn due(index: &Index, deleted: &[DocSet], mut rows: usize) -> BTreeSet<usize> {
    let docs: Vec<usize> = index.segments().iter().map(Segment::docs).collect();
    let live: Vec<usize> = docs.iter().zip(deleted).map(|(docs, dead)| docs - dead.len()).collect();
    let mut merged = BTreeSet::new();
    while let Some(next) =
        (0..live.len()).find(|s| !merged.contains(s) && (live[*s] <= rows || live[*s] * 2 < docs[*s]))
    {
        merged.insert(next);
        rows += live[next];
    }
    merged
}

/// Writes a segment of the `added` rows and of what is not in `deleted` of the `merged` segments, and the deletions of the other
/// segments where they have changed; returns the manifest of all.
fn rewrite(
    dir: &Path,
    index: &Index,
    deleted: &[DocSet],
    merged: &BTreeSet<usize>,
    added: Vec<Row<'_>>,
    progress: &dyn Progress,
) -> Result<Manifest> {
    let mut manifest = index.manifest().clone();
    manifest.generation = next_generation(dir)?;
    let mut moved = Vec::new();
    for s in merged {
        let segment = &index.segments()[*s];
        for doc in (0..segment.docs()).filter(|doc| !deleted[*s].contains(*doc)) {
            let code = segment.dense.as_ref().map(|dense| dense.code(doc)).transpose()?;
            moved.push((segment.records.api(doc)?, code.map(Arc::new)));
        }
    }
    let mut segments = Vec::new();
    for (s, (segment, dead)) in index.segments().iter().zip(deleted).enumerate() {
        if merged.contains(&s) {
            continue;
        }
        let mut entry = segment.entry.clone();
        if segment.deleted != *dead {
            let name = file_name(manifest.generation, &format!("deleted-{s}"));
            entry.deleted = Some(dead.write(dir, &name)?);
        }
        segments.push(entry);
    }
    let mut rows = added;
    rows.extend(moved.iter().map(|(api, code)| Row { api, code: code.clone() }));
    if !rows.is_empty() {
        segments.push(Segment::write(dir, manifest.generation, rows, &manifest.weights, progress)?);
    }
    manifest.segments = segments;
    Ok(manifest)
}

/// Merges `merged` of the open `index`, with nothing else changed.
fn merge_segments(
    dir: &Path,
    index: &Index,
    merged: &BTreeSet<usize>,
    progress: &dyn Progress,
) -> Result<()> {
    let deleted: Vec<DocSet> = index.segments().iter().map(|segment| segment.deleted.clone()).collect();
    let rows: usize = merged.iter().map(|s| index.segments()[*s].docs() - deleted[*s].len()).sum();
    progress.start("merge", Some(rows as u64));
    let manifest = rewrite(dir, index, &deleted, merged, Vec::new(), progress)?;
    progress.check()?;
    commit(dir, &manifest)?;
    progress.finish();
    Ok(())
}

/// Merges all segments of the index in `dir` into one without deleted records. It answers as before, meanwhile from the old
/// files. Updates merge what has grown too many by themselves; this is for after the last of many.
///
/// # Errors
/// As [`update`].
pub fn merge(dir: &Path, progress: &dyn Progress) -> Result<IndexInfo> {
    Manifest::read(dir)?;
    let folder = WriteLock::take(dir)?;
    let index = Index::open(dir)?;
    remove_unnamed(dir, Some(index.manifest()))?;
    let dead = index.segments().iter().any(|segment| segment.deleted.len() > 0);
    if index.segments().len() > 1 || dead {
        merge_segments(dir, &index, &(0..index.segments().len()).collect(), progress)?;
    }
    let info = Index::open(dir)?.info();
    drop(folder);
    Ok(info)
}
