//! Sample files: one completion a row, and what became of it.

use std::path::Path;

use inhouse_core::{Error, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// Reads a sample file (plain or gzip).
///
/// # Errors
/// The file cannot be read, a row is not a sample (named by its line), or there is no row at all.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let samples = files::json_lines::<Sample>(path)?
        .map(|row| row.map(|(_, sample)| sample))
        .collect::<Result<Vec<_>>>()?;
    if samples.is_empty() {
        return Err(Error::data(
            path,
            "no sample in this file (expected one JSON object with task_id and completion a line)",
        ));
    }
    Ok(samples)
}
