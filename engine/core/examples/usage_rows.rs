//! Usage as rows (`FileUsage` as JSON, one a line), which `--usage` and a pool of `inhouse train ranker` take: read once, or of a library
//! whose names are changed.
//!
//! ```text
//! usage_rows SOURCE[,SOURCE...] CODE[,CODE...] [names.json]
//! ```
//!
//! `names.json` maps bare names to others; words around the calls that are such a name are changed as well.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use inhouse_core::index::DOCUMENTATION;
use inhouse_core::progress::Silent;
use inhouse_core::usage::{self, UsageOptions, UsageSource};
use inhouse_core::{Error, Result, docs, files};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (sources, code, names) = match arguments.as_slice() {
        [sources, code] => (sources, code, None),
        [sources, code, names] => (sources, code, Some(PathBuf::from(names))),
        _ => {
            eprintln!("usage: usage_rows SOURCE[,SOURCE...] CODE[,CODE...] [names.json]");
            std::process::exit(2);
        }
    };
    let paths = |list: &str| list.split(',').map(PathBuf::from).collect::<Vec<_>>();
    let documentation = docs::read_all(&paths(sources), &docs::ReadOptions::default(), &Silent)?;
    let code: Vec<UsageSource> =
        paths(code).into_iter().map(|path| UsageSource { path, own: false }).collect();
    let reading = usage::read(&code, &documentation.apis, None, &UsageOptions::default(), &Silent)?;
    eprintln!("{} files read, {} skipped", reading.files_read, reading.skipped.len());
    let names: BTreeMap<String, String> = match &names {
        Some(path) => serde_json::from_str(&files::read_text(path)?)
            .map_err(|cause| Error::data(path, format!("not an object of names: {cause}")))?,
        None => BTreeMap::new(),
    };
    // A word is changed where it alone is a name.
    let word_of = |name: &str| match usage::terms(name).as_slice() {
        [word] => Some(word.clone()),
        _ => None,
    };
    let words: BTreeMap<String, String> = names
        .iter()
        .filter(|(old, new)| old != new)
        .filter_map(|(old, new)| Some((word_of(old)?, word_of(new)?)))
        .collect();
    let mut out = std::io::stdout().lock();
    for mut file in reading.ledger.files.into_iter().filter(|file| file.source != DOCUMENTATION) {
        for used in &mut file.uses {
            if let Some(new) = names.get(&used.name) {
                used.name.clone_from(new);
            }
            if !names.is_empty() {
                (used.targets, used.examples) = Default::default();
                let old = std::mem::take(&mut used.terms);
                for (term, contexts) in old {
                    let term = words.get(&term).cloned().unwrap_or(term);
                    *used.terms.entry(term).or_default() += contexts;
                }
            }
        }
        let line = serde_json::to_string(&file).unwrap_or_default();
        writeln!(out, "{line}").map_err(|cause| Error::io("write", "standard output".as_ref(), cause))?;
    }
    Ok(())
}
