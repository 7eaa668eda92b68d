//! Sample files: one completion a row, and what became of it.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::path::Path;

use evald_proto::Verdict;
use inhouse_core::files::JsonLines;
use inhouse_core::{Error, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::problems::Problem;
use crate::unusable::{self, Unusable, UnusableRow};

/// One completion of one problem. Fields that this crate does not know are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The problem it completes.
    pub task_id: String,
    /// What the model wrote after the prompt.
    pub completion: String,
    /// Why it is not run, where its row or its problem's cannot be used ([`read_each`]).
    #[serde(skip)]
    pub unusable: Option<Unusable>,
    /// Everything else in the row.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Reads a sample file (plain or gzip) for a set of problems.
///
/// # Errors
/// The file cannot be read, a row is not a sample or completes none of the problems (named by its line), or there is no row
/// at all.
pub fn read(path: &Path, problems: &[Problem]) -> Result<Vec<Sample>> {
    collect(files::json_lines(path)?, path, problems)
}

/// Reads a sample file as [`read`] does, but no row that cannot be used ends it: such a row is a sample that is not run and
/// says why. `spoilt` are the rows of the problem file that are no problems: their samples are not run either.
///
/// # Errors
/// The file cannot be read, a row completes a problem that there is not, or no row at all is a sample; the message is about
/// the first.
pub fn read_each(path: &Path, problems: &[Problem], spoilt: &[UnusableRow]) -> Result<Vec<Sample>> {
    each(files::json_lines(path)?, path, problems, spoilt)
}

/// As [`read_each`], of the text of a sample file; messages speak of `samples`.
///
/// # Errors
/// As [`read_each`].
pub fn parse_each(text: &str, problems: &[Problem], spoilt: &[UnusableRow]) -> Result<Vec<Sample>> {
    let path = Path::new("samples");
    let rows = JsonLines::new(Box::new(Cursor::new(text.as_bytes().to_vec())), path);
    each(rows, path, problems, spoilt)
}

fn each(
    mut rows: JsonLines<Sample>,
    path: &Path,
    problems: &[Problem],
    spoilt: &[UnusableRow],
) -> Result<Vec<Sample>> {
    let known: HashSet<_> = problems.iter().map(|problem| problem.task_id.as_str()).collect();
    let lost: HashMap<_, _> =
        spoilt.iter().filter_map(|row| Some((row.task_id.as_deref()?, row.why.as_str()))).collect();
    // A problem whose name cannot be read may be any that there is not.
    let nameless = spoilt.iter().find(|row| row.task_id.is_none()).map(|row| row.why.as_str());
    let (mut samples, mut first) = (Vec::new(), None);
    let mut good = false;
    while let Some(row) = rows.next_or_bad()? {
        let (line, mut sample) = match row {
            Ok((line, sample)) => {
                good = true;
                (line, sample)
            }
            Err(bad) => {
                let sample = unusable::sample(&bad.text, &bad.error);
                first.get_or_insert(bad.error);
                (bad.line, sample)
            }
        };
        let id = sample.task_id.as_str();
        // What a row that cannot be read seems to name is a guess: no reason to end the run.
        let unread = sample.unusable.as_ref().is_some_and(|why| why.verdict == Verdict::InfraError);
        if !unread && !known.contains(id) {
            match lost.get(id).copied().or(nameless) {
                Some(why) => sample.unusable = Some(Unusable::problem(why)),
                None => return Err(no_such_problem(path, line, id)),
            }
        }
        samples.push(sample);
    }
    if !good {
        return Err(first.unwrap_or_else(|| no_sample(path)));
    }
    Ok(samples)
}

fn no_such_problem(path: &Path, line: usize, id: &str) -> Error {
    Error::data_at(path, line, format!("no problem has task_id `{id}`"))
}

fn no_sample(path: &Path) -> Error {
    Error::data(path, "no sample in this file (expected one JSON object with task_id and completion a line)")
}

fn collect(rows: JsonLines<Sample>, path: &Path, problems: &[Problem]) -> Result<Vec<Sample>> {
    let known: HashSet<_> = problems.iter().map(|problem| problem.task_id.as_str()).collect();
    let check = |row: Result<(usize, Sample)>| {
        let (line, sample) = row?;
        if known.contains(sample.task_id.as_str()) {
            return Ok(sample);
        }
        Err(no_such_problem(path, line, &sample.task_id))
    };
    let samples = rows.map(check).collect::<Result<Vec<_>>>()?;
    if samples.is_empty() {
        return Err(no_sample(path));
    }
    Ok(samples)
}
