//! The pipeline: wheels in, pairs out; each package is a step that is kept, so that a killed run goes on where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, docs, files};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::table::is_answer;
use super::{ApiTable, Benchmarks, Origin, OverlapReport, Pair, code, documentation};
use crate::corpus::read_wheel;
use crate::sources::{Package, SourceList};

/// Of the code here: another number makes every step anew.
const VERSION: u32 = 2;
/// Different APIs that one query may be found with before it says nothing ("create the model").
const MAX_MEANINGS: usize = 4;

/// How pairs are made.
#[derive(Debug, Clone)]
pub struct MakeOptions {
    /// Folder with the wheels of the list.
    pub wheels: PathBuf,
    /// Folder that the steps are kept in.
    pub work: PathBuf,
    /// Folder with benchmark problems, which nothing may repeat.
    pub benchmarks: Option<PathBuf>,
    /// Pairs of one API name at most.
    pub max_pairs_per_api: usize,
    /// Top-level names of libraries that nothing is learned from: evaluation during training asks for them.
    pub held_out: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Packages read.
    pub packages: usize,
    /// Files of source that code was read from, repeated ones once.
    pub files: usize,
    /// Files that another package has as well.
    pub repeated_files: usize,
    /// Documented APIs.
    pub apis: usize,
    /// Pairs found, before anything is left out.
    pub found: usize,
    /// Pairs left out because the same query with the same APIs is there already.
    pub repeated: usize,
    /// Pairs left out because the query is found with too many different APIs.
    pub vague: usize,
    /// Pairs left out because their APIs have enough.
    pub over_the_limit: usize,
    /// Pairs kept to train on.
    pub kept: usize,
    /// Pairs of libraries that are held out.
    pub held_out: usize,
    /// Kept, by where their text is from.
    pub by_origin: BTreeMap<Origin, usize>,
    /// Kept, by library, the largest twenty.
    pub largest: BTreeMap<String, usize>,
    /// Different APIs that the kept pairs ask for.
    pub apis_asked_for: usize,
}

/// Everything that training needs.
pub struct Made {
    /// All documented APIs.
    pub table: ApiTable,
    /// Pairs to train on.
    pub pairs: Vec<Pair>,
    /// Pairs of the libraries that are held out.
    pub held_out: Vec<Pair>,
    /// Numbers.
    pub statistics: Statistics,
    /// What repeats a benchmark; `None`: there was none to look for.
    pub overlap: Option<OverlapReport>,
}

/// What was made of every package, kept in a folder.
pub(crate) struct Steps<'a> {
    pub work: &'a Path,
}

impl Steps<'_> {
    /// Where a step of a package is kept; `key` is of all that it depends on.
    pub fn path(&self, kind: &str, package: &Package, key: &str) -> PathBuf {
        self.work.join(kind).join(format!("{}-{}-{key}.jsonl.gz", package.name, package.version))
    }

    /// The rows of a step: read where it is kept, else made and kept.
    pub fn rows<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        path: &Path,
        make: impl FnOnce() -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        if path.exists() {
            let rows: Result<Vec<T>> = files::json_lines(path)?.map(|row| row.map(|(_, row)| row)).collect();
            if let Ok(rows) = rows {
                return Ok(rows);
            }
        }
        let rows = make()?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
        }
        files::write_json_lines(path, rows.iter())?;
        Ok(rows)
    }
}

/// A short name for everything that a step depends on.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(VERSION.to_le_bytes());
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// One package's documentation: records without their long texts, and the pairs that those gave.
#[derive(Serialize, Deserialize)]
enum Row {
    Api(ApiDoc),
    Pair(Pair),
}

/// One package's code: its files by their hashes, so that another package's copy is known when a run goes on, and the pairs.
#[derive(Serialize, Deserialize)]
enum CodeRow {
    File(String),
    Repeated(usize),
    Pair(Pair),
}

/// Makes the pairs of all packages of a list, whose wheels are fetched already.
///
/// # Errors
/// A wheel cannot be read, a step cannot be written, or no thread can be started. A wheel without documentation gives none.
pub fn make(list: &SourceList, options: &MakeOptions, progress: &dyn Progress) -> Result<Made> {
    let pool =
        rayon::ThreadPoolBuilder::new().thread_name(|i| format!("inhouse-train-{i}")).build().map_err(
            |cause| Error::with_source(ErrorKind::Io, format!("cannot start threads: {cause}"), cause),
        )?;
    let steps = Steps { work: &options.work };
    let mut apis: Vec<ApiDoc> = Vec::new();
    let mut pairs: Vec<Pair> = Vec::new();
    progress.start("reading documentation", Some(list.package.len() as u64));
    for package in &list.package {
        let path = steps.path("docs", package, &key(&[&package.sha256, &package.exclude.join("|")]));
        for row in steps.rows(&path, || documentation_of(package, options, progress))? {
            match row {
                Row::Api(api) => apis.push(api),
                Row::Pair(pair) => pairs.push(pair),
            }
        }
        progress.advance(1);
    }
    progress.finish();
    let table = ApiTable::new(apis);

    let everything: Vec<&str> = list.package.iter().map(|package| package.sha256.as_str()).collect();
    let everything = key(&everything);
    let mut statistics =
        Statistics { packages: list.package.len(), apis: table.apis().len(), ..Statistics::default() };
    let mut seen: FxHashSet<String> = FxHashSet::default();
    progress.start("reading code", Some(list.package.len() as u64));
    for package in &list.package {
        let path = steps.path("code", package, &everything);
        let rows = steps.rows(&path, || {
            let mut files = read_wheel(&options.wheels.join(&package.file), &package.exclude)?;
            let total = files.len();
            let mut hashes = Vec::new();
            files.retain(|file| {
                let hash = key(&[&file.text]);
                let is_new = seen.insert(hash.clone());
                if is_new {
                    hashes.push(hash);
                }
                is_new
            });
            let mut rows: Vec<CodeRow> = hashes.into_iter().map(CodeRow::File).collect();
            rows.push(CodeRow::Repeated(total - files.len()));
            let pairs: Vec<Pair> =
                pool.install(|| files.par_iter().flat_map_iter(|file| code::pairs(file, &table)).collect());
            rows.extend(pairs.into_iter().map(CodeRow::Pair));
            Ok(rows)
        })?;
        for row in rows {
            match row {
                CodeRow::File(hash) => {
                    statistics.files += 1;
                    seen.insert(hash);
                }
                CodeRow::Repeated(count) => statistics.repeated_files += count,
                CodeRow::Pair(pair) => pairs.push(pair),
            }
        }
        progress.advance(1);
    }
    progress.finish();
    statistics.found = pairs.len();
    let overlap = match &options.benchmarks {
        Some(folder) => Some(Benchmarks::read(folder)?.filter(&mut pairs)),
        None => None,
    };
    let (pairs, held_out) = choose(pairs, &table, options, &mut statistics);
    Ok(Made { table, pairs, held_out, statistics, overlap })
}

fn documentation_of(package: &Package, options: &MakeOptions, progress: &dyn Progress) -> Result<Vec<Row>> {
    let wheel = options.wheels.join(&package.file);
    let read = match docs::read(&wheel, &docs::ReadOptions::default(), &inhouse_core::progress::Silent) {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            progress.note(&format!("{}: no documentation: {error}", package.name));
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let excluded = |api: &ApiDoc| {
        let path = api.source.as_ref().map_or("", |source| source.path.as_str());
        package.exclude.iter().any(|prefix| path.starts_with(prefix.as_str()))
    };
    let apis: Vec<ApiDoc> = read.apis.into_iter().filter(|api| !excluded(api)).collect();
    let pairs = documentation::pairs(&apis);
    let stripped = apis.into_iter().map(|mut api| {
        api.doc.clear();
        api.examples.clear();
        Row::Api(api)
    });
    Ok(stripped.chain(pairs.into_iter().map(Row::Pair)).collect())
}

/// What a training set keeps of the pairs: each once, none vague, no API with too many; those of held-out libraries apart.
fn choose(
    mut pairs: Vec<Pair>,
    table: &ApiTable,
    options: &MakeOptions,
    statistics: &mut Statistics,
) -> (Vec<Pair>, Vec<Pair>) {
    pairs.retain(|pair| pair.apis.iter().all(|api| table.id(api).is_some_and(|id| is_answer(table.api(id)))));
    let bare = |pair: &Pair| -> Vec<(String, String)> {
        let name = |full: &String| {
            table.id(full).map(|id| (table.api(id).library().to_owned(), table.api(id).name.clone()))
        };
        pair.apis.iter().filter_map(name).collect()
    };
    let mut meanings: FxHashMap<String, FxHashSet<(String, String)>> = FxHashMap::default();
    for pair in &pairs {
        meanings.entry(pair.query.to_lowercase()).or_default().extend(bare(pair));
    }
    let mut seen: FxHashSet<(String, Vec<(String, String)>)> = FxHashSet::default();
    // What is known for sure comes before what is guessed, people's words before documentation's.
    pairs.sort_by_cached_key(|pair| {
        let mut hasher = Sha256::new();
        hasher.update(pair.query.as_bytes());
        hasher.update(pair.path.as_bytes());
        let rank = match pair.origin {
            Origin::Example | Origin::Reference | Origin::Summary => 0,
            Origin::Comment | Origin::Docstring => 1,
            Origin::Paragraph | Origin::Detail => 2,
        };
        let order: [u8; 8] = hasher.finalize().as_slice()[..8].try_into().unwrap_or_default();
        (pair.guessed, rank, order, pair.line)
    });
    let mut counts: FxHashMap<(String, String), usize> = FxHashMap::default();
    let (mut kept, mut held_out) = (Vec::new(), Vec::new());
    for pair in pairs {
        let names = bare(&pair);
        let query = pair.query.to_lowercase();
        if meanings.get(&query).is_some_and(|found| found.len() > MAX_MEANINGS) {
            statistics.vague += 1;
            continue;
        }
        if !seen.insert((query, names.clone())) {
            statistics.repeated += 1;
            continue;
        }
        let library = names.first().map_or("", |(library, _)| library.as_str());
        if options.held_out.iter().any(|held| held == library) {
            held_out.push(pair);
            continue;
        }
        let fewest = names.iter().map(|name| counts.get(name).copied().unwrap_or(0)).min().unwrap_or(0);
        if fewest >= options.max_pairs_per_api {
            statistics.over_the_limit += 1;
            continue;
        }
        for name in names {
            *counts.entry(name).or_default() += 1;
        }
        kept.push(pair);
    }
    statistics.kept = kept.len();
    statistics.held_out = held_out.len();
    statistics.apis_asked_for = counts.len();
    let mut by_library: BTreeMap<String, usize> = BTreeMap::new();
    for pair in &kept {
        *statistics.by_origin.entry(pair.origin).or_default() += 1;
        let library = pair.apis[0].split('.').next().unwrap_or_default();
        *by_library.entry(library.to_owned()).or_default() += 1;
    }
    let mut largest: Vec<(String, usize)> = by_library.into_iter().collect();
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    statistics.largest = largest.into_iter().take(20).collect();
    (kept, held_out)
}
