//! What a corpus says of itself: sources with versions and licences, counts, and what was left out.

use std::fmt::Write;

use super::config::DataConfig;
use super::report::{Manifest, Overlap, Statistics};
use crate::sources::SourceList;

/// The text of `card.md`.
pub(super) fn card(
    config: &DataConfig,
    list: &SourceList,
    statistics: &Statistics,
    overlap: &Overlap,
    manifest: &Manifest,
) -> String {
    let mut text = String::new();
    let rows: usize = manifest.shards.iter().map(|shard| shard.rows).sum();
    let tokens: usize = manifest.shards.iter().map(|shard| shard.tokens).sum();
    let _ = writeln!(text, "# Corpus {}\n", &manifest.digest[..12.min(manifest.digest.len())]);
    let _ = writeln!(
        text,
        "{tokens} tokens in {rows} rows of at most {} tokens, vocabulary {}. Seed {}.\n",
        manifest.block_tokens, manifest.vocab_size, config.seed
    );
    text.push_str("## Parts\n\n| part | kind | documents | tokens |\n|---|---|---|---|\n");
    for (name, part) in &statistics.parts {
        for (kind, documents) in &part.documents {
            let tokens = part.tokens_by_kind.get(kind).copied().unwrap_or_default();
            let _ = writeln!(text, "| {name} | {kind} | {documents} | {tokens} |");
        }
    }
    text.push_str("\n## Blocks of code\n\n");
    let _ = writeln!(
        text,
        "{} blocks were read; {} repeat another, {} nearly, {} repeat a benchmark. {} are learned from, {} of them call documented APIs. \
         Calls are resolved by {:?}; noise {}, twins {}, resampling {:?}.",
        statistics.blocks,
        statistics.repeated_blocks,
        statistics.similar_blocks,
        statistics.overlapping_blocks,
        statistics.training_blocks,
        statistics.blocks_with_calls,
        config.resolution,
        config.noise,
        config.twins,
        config.resampling,
    );
    if let Some(examples) = &statistics.examples {
        text.push_str("\n## Examples of docstrings\n\n");
        let _ = writeln!(
            text,
            "{} examples that call a documented API were read; {} repeat another, {} repeat a benchmark. {} are learned from.",
            examples.read, examples.repeated, examples.overlapping, examples.training,
        );
    }
    text.push_str("\n## Held out\n\n");
    let _ = writeln!(
        text,
        "Nothing is learned from {}: evaluation asks for their APIs, under names that training never has.",
        if config.held_out.is_empty() { "(no library)".to_owned() } else { config.held_out.join(", ") }
    );
    text.push_str("\n## Overlap with benchmarks\n\n");
    if overlap.looked_for {
        let _ = writeln!(
            text,
            "Every document was held against the problems: runs of {} words. {} texts were left out (overlap.json).",
            overlap.ngram_words, overlap.n_removed
        );
    } else {
        text.push_str("There were no benchmarks to look for.\n");
    }
    text.push_str("\n## Sources\n\n| package | version | licence |\n|---|---|---|\n");
    for package in list.package.iter().filter(|package| !config.left_out.contains(&package.name)) {
        let _ = writeln!(text, "| {} | {} | {} |", package.name, package.version, package.licence);
    }
    for folder in &config.folders {
        let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let _ = writeln!(text, "| {name} | | |");
    }
    text
}
