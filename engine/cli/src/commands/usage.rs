//! `--usage`: the code that an index learns from how its APIs are used.

use std::path::PathBuf;

use anyhow::Result;
use inhouse_core::ApiDoc;
use inhouse_core::index::UsageLedger;
use inhouse_core::progress::Progress;
use inhouse_core::usage::{self, UsageOptions, UsageSource};

use super::source;
use crate::term::Usage;

/// Notes of skipped files that are printed one by one.
const MAX_NOTES: usize = 20;

/// Where usage is read.
#[derive(clap::Args)]
pub struct Arguments {
    /// Code that uses the library: folders, wheels, sdists, .py, .ipynb, .md and .rst files, or a usage.jsonl(.gz) of `inhouse
    /// privatize`; `none`: no usage [default: the library's own tests, examples and documents, where the sources have them, and the
    /// examples of its docstrings]
    #[arg(long, value_name = "CODE", num_args = 1..)]
    usage: Vec<PathBuf>,

    /// Keep counts of usage alone: no words of the code, no examples, no paths
    #[arg(long)]
    usage_no_text: bool,
}

/// Reads the usage of `apis`, going on from what is `known`, and tells of every file that was passed over. `None`: none is wanted.
pub fn read(
    arguments: &Arguments,
    source: &source::Arguments,
    apis: &[ApiDoc],
    known: Option<&UsageLedger>,
    progress: &dyn Progress,
) -> Result<Option<UsageLedger>> {
    let none = arguments.usage.iter().any(|path| path.as_os_str() == "none");
    if none && arguments.usage.len() > 1 {
        return Err(Usage("--usage none goes alone").into());
    }
    let sources: Vec<UsageSource> = match arguments.usage.is_empty() {
        _ if none => return Ok(None),
        true => source.paths()?.into_iter().map(|path| UsageSource { path, own: true }).collect(),
        false => arguments.usage.iter().map(|path| UsageSource { path: path.clone(), own: false }).collect(),
    };
    let options = UsageOptions { text: !arguments.usage_no_text, ..UsageOptions::default() };
    let reading = usage::read(&sources, apis, known, &options, progress)?;
    for skipped in reading.skipped.iter().take(MAX_NOTES) {
        let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
        progress.note(&format!("no usage from {}{line}: {}", skipped.path, skipped.reason));
    }
    if reading.skipped.len() > MAX_NOTES {
        progress.note(&format!("no usage from {} more files", reading.skipped.len() - MAX_NOTES));
    }
    if reading.files_read > 0 || !reading.skipped.is_empty() {
        let known = match reading.files_known {
            0 => String::new(),
            n => format!(", {n} of them unchanged"),
        };
        progress.note(&format!(
            "usage: {} files read{known}, {} skipped",
            reading.files_read,
            reading.skipped.len()
        ));
    }
    Ok(Some(reading.ledger))
}
