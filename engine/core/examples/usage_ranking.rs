//! What the ranker is learned from and measured on: the signals of the best hits of queries, one JSON object a line.
//!
//! ```text
//! usage_ranking ENCODER.gguf|none SOURCE[,SOURCE...] USAGE[,USAGE...]|own|none queries.jsonl     rows {task_id, query, gold}
//! usage_ranking ENCODER.gguf|none SOURCE[,SOURCE...] USAGE[,USAGE...] split                      queries out of half of the usage
//! ```
//!
//! `split` takes every second file of code for queries (a comment of eight words or less than forty, and the names used below it) and
//! indexes the usage of the others. Each row: `{"task_id", "query", "gold", "hits": [{"name", "aliases", "score", "signals": {...}}]}`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use inhouse_core::bert::load_encoder;
use inhouse_core::index::{self, BuildOptions, FileUsage, Index, IndexEncoder, Query, UsageLedger};
use inhouse_core::progress::Silent;
use inhouse_core::usage::{self, UsageOptions, UsageSource};
use inhouse_core::{Result, docs, files};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Asked {
    task_id: String,
    query: String,
    gold: Vec<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [encoder, sources, code, queries] = arguments.as_slice() else {
        eprintln!("usage: usage_ranking ENCODER|none SOURCES USAGE|own|none QUERIES|split");
        std::process::exit(2);
    };
    let paths = |list: &str| list.split(',').map(PathBuf::from).collect::<Vec<_>>();
    let documentation = docs::read_all(&paths(sources), &docs::ReadOptions::default(), &Silent)?;
    let usage_sources: Vec<UsageSource> = match code.as_str() {
        "none" => Vec::new(),
        "own" => paths(sources).into_iter().map(|path| UsageSource { path, own: true }).collect(),
        list => paths(list).into_iter().map(|path| UsageSource { path, own: false }).collect(),
    };
    let start = Instant::now();
    let reading = usage::read(&usage_sources, &documentation.apis, None, &UsageOptions::default(), &Silent)?;
    eprintln!(
        "usage: {} files, {} skipped, {:.1} s",
        reading.files_read,
        reading.skipped.len(),
        start.elapsed().as_secs_f64()
    );
    let mut ledger = reading.ledger;
    let asked: Vec<Asked> = match queries.as_str() {
        "split" => split(&mut ledger),
        file => files::json_lines::<Asked>(file.as_ref())?.map(|row| Ok(row?.1)).collect::<Result<_>>()?,
    };
    let folder = std::env::temp_dir().join(format!("usage-ranking-{}", std::process::id()));
    let encoder = match encoder.as_str() {
        "none" => None,
        path => Some(IndexEncoder { encoder: load_encoder(path.as_ref())?, path: path.into() }),
    };
    let loaded = encoder.as_ref().map(|encoder| Arc::clone(&encoder.encoder));
    let options =
        BuildOptions { encoder, usage: (code != "none").then_some(ledger), ..BuildOptions::default() };
    let info = index::build(&documentation.apis, &folder, &options, &Silent)?;
    eprintln!(
        "index: {} APIs, {} names, {:?} used, {} bytes",
        info.apis, info.names, info.names_used, info.bytes
    );
    let mut index = Index::open(&folder)?;
    if let Some(encoder) = loaded {
        index = index.with_encoder(encoder)?;
    }
    let start = Instant::now();
    for row in &asked {
        let mut hits = Vec::new();
        for found in index.explain(&Query::from(row.query.as_str()), 100)? {
            let signals: BTreeMap<String, f32> = found
                .shares
                .iter()
                .map(|share| {
                    (
                        serde_json::to_value(share.signal)
                            .unwrap_or_default()
                            .as_str()
                            .unwrap_or_default()
                            .to_owned(),
                        share.value,
                    )
                })
                .collect();
            hits.push(json!({"name": found.hit.api.name, "aliases": found.hit.api.aliases, "score": found.hit.score, "signals": signals}));
        }
        println!("{}", json!({"task_id": row.task_id, "query": row.query, "gold": row.gold, "hits": hits}));
    }
    eprintln!(
        "{} queries, {:.1} ms each",
        asked.len(),
        start.elapsed().as_secs_f64() * 1e3 / asked.len().max(1) as f64
    );
    std::fs::remove_dir_all(&folder).ok();
    Ok(())
}

/// Takes every second file of code out of the usage and makes queries of it.
fn split(ledger: &mut UsageLedger) -> Vec<Asked> {
    let (mut kept, mut taken): (Vec<FileUsage>, Vec<FileUsage>) = (Vec::new(), Vec::new());
    let mut n = 0;
    for file in std::mem::take(&mut ledger.files) {
        n += usize::from(file.source != "documentation");
        if file.source != "documentation" && n % 2 == 0 { &mut taken } else { &mut kept }.push(file);
    }
    ledger.files = kept;
    let mut queries: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for file in &taken {
        for used in &file.uses {
            for example in &used.examples {
                let words = example.says.split_whitespace().count();
                if (4..40).contains(&words) {
                    let gold = queries.entry((file.path.clone(), example.says.clone())).or_default();
                    if !gold.contains(&used.name) {
                        gold.push(used.name.clone());
                    }
                }
            }
        }
    }
    let rows = queries.into_iter().filter(|(_, gold)| gold.len() <= 4);
    rows.map(|((path, query), gold)| Asked { task_id: path, query, gold }).collect()
}
