//! Sample files: one completion a row, and what became of it.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::Path;

use inhouse_core::files::JsonLines;
use inhouse_core::{Error, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::problems::Problem;

/// One completion of one problem. Fields that this crate does not know are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The problem it completes.
    pub task_id: String,
    /// What the model wrote after the prompt.
    pub completion: String,
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

/// Reads the text of a sample file for a set of problems.
///
/// # Errors
/// As [`read`]; messages speak of `samples`.
pub fn parse(text: &str, problems: &[Problem]) -> Result<Vec<Sample>> {
    let path = Path::new("samples");
    collect(JsonLines::new(Box::new(Cursor::new(text.as_bytes().to_vec())), path), path, problems)
}

fn collect(rows: JsonLines<Sample>, path: &Path, problems: &[Problem]) -> Result<Vec<Sample>> {
    let known: HashSet<_> = problems.iter().map(|problem| problem.task_id.as_str()).collect();
    let check = |row: Result<(usize, Sample)>| {
        let (line, sample) = row?;
        if known.contains(sample.task_id.as_str()) {
            return Ok(sample);
        }
        Err(Error::data_at(path, line, format!("no problem has task_id `{}`", sample.task_id)))
    };
    let samples = rows.map(check).collect::<Result<Vec<_>>>()?;
    if samples.is_empty() {
        return Err(Error::data(
            path,
            "no sample in this file (expected one JSON object with task_id and completion a line)",
        ));
    }
    Ok(samples)
}
