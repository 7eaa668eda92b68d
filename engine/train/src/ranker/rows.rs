//! The signals of the candidates of every question, kept as files: what is learned from and measured.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use inhouse_core::encode::TextEncoder;
use inhouse_core::index::{
    self, BuildOptions, DOCUMENTATION, Index, IndexEncoder, Query, Signal, UpdateOptions, UpdateScope,
    UsageLedger,
};
use inhouse_core::usage::{self, UsageOptions, UsageSource};
use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, docs, files, progress::Silent};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::{Config, PoolConfig};
use super::queries::{Library, Question};
use crate::pairs::make::key;

/// Of the code here and of the signals: another number makes all rows anew.
const VERSION: &str = "1";

/// All signals, in the order of [`RowCandidate::values`].
pub const SIGNALS: [Signal; 5] =
    [Signal::Words, Signal::Meaning, Signal::Files, Signal::Around, Signal::Named];

/// A question and its candidates, the best by words and vectors first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is asked.
    pub query: String,
    /// Bare names that answer it, each once.
    pub gold: Vec<String>,
    /// What a search looks at.
    pub candidates: Vec<RowCandidate>,
}

/// A candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowCandidate {
    /// Its bare name.
    pub name: String,
    /// The golden names that it goes by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Its signals, in the order of [`SIGNALS`].
    pub values: Vec<f32>,
}

impl Row {
    /// The candidates that answer the question.
    pub fn right(&self) -> Vec<usize> {
        (0..self.candidates.len()).filter(|c| !self.candidates[*c].answers.is_empty()).collect()
    }
}

/// The rows of a pool: of one package, or of a pool of the configuration.
pub struct Rows {
    /// What it is called.
    pub name: String,
    /// The share of its usage that the index had.
    pub share: f64,
    /// The rows.
    pub rows: Vec<Row>,
}

/// The rows of a package, one set for each share of its usage; kept in `config.out`.
///
/// # Errors
/// The wheel or the rows cannot be read, or the index cannot be built.
pub fn of_library(
    library: &Library,
    config: &Config,
    encoder: &Arc<dyn TextEncoder>,
    progress: &dyn Progress,
) -> Result<Vec<Rows>> {
    let questions = serde_json::to_string(&library.questions).unwrap_or_default();
    let mark = [VERSION, &encoder.info().fingerprint, &library.wheel.display().to_string(), &questions];
    let mark = key(&mark);
    let pools = |config: &Config| -> Result<Vec<Rows>> {
        let source = UsageSource { path: library.wheel.clone(), own: true };
        let reading = usage::read(&[source], &library.apis, None, &UsageOptions::default(), progress)?;
        let asked: BTreeSet<&str> = library
            .questions
            .iter()
            .filter(|question| question.file.0 == library.name)
            .map(|question| question.file.1.as_str())
            .collect();
        let mut ledger = reading.ledger;
        // The code that a question is from must not answer it.
        ledger.files.retain(|file| !asked.contains(file.path.as_str()));
        ask(library, &ledger, &config.usage_shares, config, encoder)
    };
    let mut kept = Vec::new();
    for share in &config.usage_shares {
        let path = path_of(config, &format!("{}-{share}-{mark}-{}", library.name, config.seed));
        kept.push((path, *share));
    }
    if kept.iter().all(|(path, _)| path.exists()) {
        let read = |(path, share): &(std::path::PathBuf, f64)| {
            let rows = files::json_lines(path)?.map(|row| Ok(row?.1)).collect::<Result<_>>()?;
            Ok(Rows { name: library.name.clone(), share: *share, rows })
        };
        return kept.iter().map(read).collect();
    }
    let made = pools(config)?;
    for ((path, _), pool) in kept.iter().zip(&made) {
        files::write_json_lines(path, pool.rows.iter())?;
    }
    Ok(made)
}

/// The rows of a pool that nothing is learned from.
///
/// # Errors
/// A file of it cannot be read.
pub fn of_pool(pool: &PoolConfig, config: &Config, encoder: &Arc<dyn TextEncoder>) -> Result<Rows> {
    let read = docs::read(&pool.apis, &docs::ReadOptions::default(), &Silent)?;
    let sources: Vec<UsageSource> = match pool.usage.is_empty() {
        true => vec![UsageSource { path: pool.apis.clone(), own: true }],
        false => pool.usage.iter().map(|path| UsageSource { path: path.clone(), own: false }).collect(),
    };
    let reading = usage::read(&sources, &read.apis, None, &UsageOptions::default(), &Silent)?;
    let mut questions: Vec<Question> =
        files::json_lines(&pool.queries)?.map(|row| Ok(row?.1)).collect::<Result<_>>()?;
    questions.retain(|question| !question.gold.is_empty());
    let library = Library { name: pool.name.clone(), apis: read.apis, wheel: pool.apis.clone(), questions };
    let mut rows = ask(&library, &reading.ledger, &[1.0], config, encoder)?;
    rows.pop().ok_or_else(|| Error::new(ErrorKind::Internal, "a pool without rows"))
}

fn path_of(config: &Config, name: &str) -> std::path::PathBuf {
    config.out.join("rows").join(format!("{name}.jsonl.gz"))
}

/// Asks an index of the library every question, with each share of its usage.
fn ask(
    library: &Library,
    ledger: &UsageLedger,
    shares: &[f64],
    config: &Config,
    encoder: &Arc<dyn TextEncoder>,
) -> Result<Vec<Rows>> {
    let folder = tempfile::tempdir().map_err(|cause| Error::io("write", &std::env::temp_dir(), cause))?;
    let folder = folder.path().join("index");
    let mut found = Vec::new();
    for (i, share) in shares.iter().enumerate() {
        let usage = Some(part(ledger, *share, config.seed));
        let indexed = Some(IndexEncoder { encoder: Arc::clone(encoder), path: config.encoder.clone() });
        if i == 0 {
            let options = BuildOptions { encoder: indexed, usage, ..BuildOptions::default() };
            index::build(&library.apis, &folder, &options, &Silent)?;
        } else {
            // The records are the same, so that none of them is encoded again.
            let scope = UpdateScope::Only(BTreeSet::new());
            let options = UpdateOptions { scope, encoder: indexed, usage };
            index::update(&folder, &library.apis[..1], &options, &Silent)?;
        }
        let index = Index::open(&folder)?.with_encoder(Arc::clone(encoder))?;
        let rows = library.questions.iter().map(|question| row(&index, question)).collect::<Result<_>>()?;
        found.push(Rows { name: library.name.clone(), share: *share, rows });
    }
    Ok(found)
}

/// A share of the files, the same for the same seed, and a larger share has those of a smaller one.
fn part(ledger: &UsageLedger, share: f64, seed: u64) -> UsageLedger {
    let taken = |path: &str| {
        let digest = Sha256::digest(format!("{seed}\0{path}").as_bytes());
        let at = u32::from_le_bytes(digest.as_slice()[..4].try_into().unwrap_or_default());
        f64::from(at) < share * (f64::from(u32::MAX) + 1.0)
    };
    let files = ledger.files.iter().filter(|file| file.source == DOCUMENTATION || taken(&file.path));
    UsageLedger { files: files.cloned().collect() }
}

fn row(index: &Index, question: &Question) -> Result<Row> {
    let bare = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let gold: BTreeSet<String> = question.gold.iter().map(|name| bare(name)).collect();
    let candidate = |found: index::Candidate| {
        let names = |api: &ApiDoc| -> BTreeSet<String> {
            api.aliases.iter().map(|alias| bare(alias)).chain([api.name.clone()]).collect()
        };
        let value = |signal: Signal| {
            found.shares.iter().find(|share| share.signal == signal).map_or(0.0, |share| share.value)
        };
        RowCandidate {
            answers: names(&found.api).intersection(&gold).cloned().collect(),
            values: SIGNALS.into_iter().map(value).collect(),
            name: found.api.name,
        }
    };
    let found = index.candidates(&Query::from(question.query.as_str()))?;
    let candidates = found.into_iter().map(candidate).collect();
    Ok(Row { query: question.query.clone(), gold: gold.into_iter().collect(), candidates })
}

/// Makes the folder of the rows.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(out: &Path) -> Result<()> {
    let rows = out.join("rows");
    std::fs::create_dir_all(&rows).map_err(|cause| Error::io("create", &rows, cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::index::FileUsage;

    #[test]
    fn a_larger_share_of_the_usage_has_the_smaller_one() {
        let file = |i: usize| FileUsage { path: format!("tests/{i}.py"), ..FileUsage::default() };
        let mut ledger = UsageLedger { files: (0..400).map(file).collect() };
        ledger.files.push(FileUsage { source: DOCUMENTATION.into(), ..FileUsage::default() });
        let paths = |share| -> BTreeSet<String> {
            part(&ledger, share, 1).files.into_iter().map(|file| file.path).collect()
        };
        let (none, some, all) = (paths(0.0), paths(0.3), paths(1.0));
        assert!(none.len() == 1 && all.len() == 401 && (90..150).contains(&some.len()), "{}", some.len());
        assert!(some.is_subset(&paths(0.6)));
    }
}
