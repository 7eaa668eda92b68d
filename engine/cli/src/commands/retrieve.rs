//! `inhouse retrieve`: the APIs that fit a task, or recall@k over a set of tasks.

use std::path::PathBuf;

use anyhow::Result;
use inhouse::EncoderChoice;
use inhouse_core::index::{Explanation, Hit, Query};
use inhouse_study::{problems, recall};
use serde_json::json;

use super::{encoder, number};
use crate::term;

/// Find the APIs that a task needs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse retrieve --index mylib.index \"merge two ledgers by day\"
  inhouse retrieve --index mylib.index -k 3 --json \"merge two ledgers by day\"
  inhouse retrieve --index mylib.index --explain \"merge two ledgers by day\"
  inhouse retrieve --index mylib.index --problems problems.jsonl --json")]
pub struct Arguments {
    /// Folder of the index
    #[arg(long)]
    index: PathBuf,

    /// Text encoder to search with: `none`, or its folder or file [default: the one that the index names]
    #[arg(long, value_name = "PATH|none", value_parser = encoder::parse)]
    encoder: Option<EncoderChoice>,

    /// How many APIs, distinct by name
    #[arg(short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    k: u32,

    /// Leave out APIs that fit less probably than this, from 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number::min_p, allow_negative_numbers = true)]
    min_confidence: f32,

    /// Say what each signal adds to a hit's score, and name the code that it rests on (file and line)
    #[arg(long, conflicts_with = "problems")]
    explain: bool,

    /// One JSON object
    #[arg(long)]
    json: bool,

    /// Measure recall@1,2,3,5 over these problems: rows {task_id, query, gold}, or problems with golden APIs
    #[arg(long, conflicts_with_all = ["query", "k", "min_confidence"])]
    problems: Option<PathBuf>,

    /// What the code is to do, in words
    #[arg(required_unless_present = "problems", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    query: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let index = inhouse::open_index(&arguments.index, &arguments.encoder.clone().unwrap_or_default())?;
    if let Some(path) = &arguments.problems {
        let queries = problems::read_queries(path)?;
        let report = recall::measure(&index, &queries)?;
        if arguments.json {
            return term::json(&report);
        }
        term::line(format_args!("{} problems, recall by API name", report.problems))?;
        for (k, value) in report.by_k() {
            term::line(format_args!("recall@{k}  {value:.3}"))?;
        }
        return Ok(());
    }
    let query = arguments.query.as_deref().unwrap_or_default();
    if arguments.explain {
        let mut found = index.explain(&Query::from(query), arguments.k as usize)?;
        found.retain(|found| found.hit.confidence >= arguments.min_confidence);
        return explain(&found, arguments.json);
    }
    let mut hits = index.search(&Query::from(query), arguments.k as usize)?;
    hits.retain(|hit| hit.confidence >= arguments.min_confidence);
    if arguments.json {
        return term::json(&json!({"hits": hits.iter().map(row).collect::<Vec<_>>()}));
    }
    if hits.is_empty() {
        eprintln!("no API fits");
    }
    for hit in &hits {
        term::line(listing(hit))?;
    }
    Ok(())
}

fn explain(found: &[Explanation], as_json: bool) -> Result<()> {
    if as_json {
        let explained = |found: &Explanation| {
            let mut row = row(&found.hit);
            row["signals"] = json!(found.shares);
            row["usage"] = json!(found.usage);
            row
        };
        return term::json(&json!({"hits": found.iter().map(explained).collect::<Vec<_>>()}));
    }
    if found.is_empty() {
        eprintln!("no API fits");
    }
    for Explanation { hit, shares, usage, .. } in found {
        term::line(listing(hit))?;
        let told: Vec<String> = shares
            .iter()
            .filter(|share| share.share != 0.0)
            .map(|share| {
                let signal = json!(share.signal);
                format!("{} {:+.2}", signal.as_str().unwrap_or_default(), share.share)
            })
            .collect();
        term::line(format_args!("      score {:.2} = {}", hit.score, told.join(", ")))?;
        let Some(usage) = usage else { continue };
        term::line(format_args!("      used {} times in {} files", usage.calls, usage.files))?;
        for example in usage.examples.iter().take(3) {
            let says = if example.says.is_empty() { String::new() } else { format!("  # {}", example.says) };
            term::line(format_args!("        {}:{}: {}{says}", example.file, example.line, example.code))?;
        }
    }
    Ok(())
}

fn row(hit: &Hit) -> serde_json::Value {
    json!({
        "rank": hit.rank,
        "name": hit.api.name,
        "qualified_name": hit.api.qualified_name,
        "signature": hit.api.signature,
        "description": hit.api.description,
        "score": hit.score,
        "confidence": hit.confidence,
    })
}

/// `1  mylib.Ledger.merge(other): Merges ...`, as a person reads it.
pub fn listing(hit: &Hit) -> String {
    let name = if hit.api.qualified_name.is_empty() { &hit.api.name } else { &hit.api.qualified_name };
    format!("{:>2}  {name}{}\n      {}", hit.rank, hit.api.signature, hit.api.description)
}
