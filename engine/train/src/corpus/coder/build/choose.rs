//! What is learned from: each text once, none that repeats a benchmark, none of a library that is held or left out.

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::Pipeline;
use crate::corpus::coder::blocks::CodeBlock;
use crate::corpus::coder::dedup;
use crate::corpus::coder::examples::Example;
use crate::corpus::coder::report::ExampleStatistics;
use crate::pairs::{ApiTable, Benchmarks};

/// Overlaps that are listed one by one; all are counted.
const MAX_LISTED: usize = 1_000;

impl Pipeline<'_> {
    /// (to learn from, of held-out libraries): each block once, none that repeats a benchmark.
    pub(super) fn chosen(
        &mut self,
        blocks: Vec<CodeBlock>,
        table: &ApiTable,
        benchmarks: Option<&Benchmarks>,
    ) -> (Vec<CodeBlock>, Vec<CodeBlock>) {
        self.statistics.blocks = blocks.len();
        let texts: Vec<&str> = blocks.iter().map(|block| block.text.as_str()).collect();
        let (keep, repeated) = dedup::distinct(&texts);
        self.statistics.repeated_blocks = repeated;
        self.statistics.similar_blocks = keep.iter().filter(|keep| !**keep).count() - repeated;
        let overlaps = overlaps(&texts, benchmarks);
        let (mut training, mut held_out) = (Vec::new(), Vec::new());
        for ((block, keep), overlap) in blocks.into_iter().zip(keep).zip(overlaps) {
            if !keep {
                continue;
            }
            if let Some(problem) = overlap {
                self.statistics.overlapping_blocks += 1;
                self.removed(&block.text, problem);
            } else if self.is_held_out(block.library()) {
                held_out.push(block);
            } else if !self.uses_kept_away(&block, table) {
                training.push(block);
            }
        }
        (training, held_out)
    }

    /// The examples to learn from; none says what a held-out API's description, of `kept_away`, says.
    pub(super) fn chosen_examples(
        &mut self,
        examples: Vec<Example>,
        table: &ApiTable,
        benchmarks: Option<&Benchmarks>,
        kept_away: &FxHashSet<&str>,
    ) -> Vec<Example> {
        if examples.is_empty() {
            return examples;
        }
        let texts: Vec<String> =
            examples.iter().map(|example| format!("{}\n{}", example.says, example.block.text)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut statistics = ExampleStatistics { read: examples.len(), ..ExampleStatistics::default() };
        let (keep, _) = dedup::distinct(&texts);
        let overlaps = overlaps(&texts, benchmarks);
        let mut training = Vec::new();
        for (i, example) in examples.into_iter().enumerate() {
            let block = &example.block;
            if !keep[i] {
                statistics.repeated += 1;
            } else if let Some(problem) = &overlaps[i] {
                statistics.overlapping += 1;
                self.removed(texts[i], problem.clone());
            } else if !self.is_held_out(block.library())
                && !self.uses_kept_away(block, table)
                && !kept_away.contains(example.says.as_str())
            {
                training.push(example);
            }
        }
        statistics.training = training.len();
        self.statistics.examples = Some(statistics);
        training
    }

    fn is_held_out(&self, library: &str) -> bool {
        self.config.held_out.iter().any(|name| name == library)
    }

    /// Whether a block imports or calls what nothing is learned from.
    fn uses_kept_away(&self, block: &CodeBlock, table: &ApiTable) -> bool {
        let imported = block.imports.iter().map(|(_, full)| full.split('.').next().unwrap_or_default());
        let called = block.calls.iter().filter_map(|(_, full)| Some(table.api(table.id(full)?).library()));
        imported
            .chain(called)
            .any(|name| self.is_held_out(name) || self.config.left_out.iter().any(|other| other == name))
    }

    pub(super) fn removed(&mut self, text: &str, problem: String) {
        self.overlap.n_removed += 1;
        if self.overlap.removed.len() < MAX_LISTED {
            self.overlap.removed.push((text.chars().take(400).collect(), problem));
        }
    }
}

/// Of each text the benchmark problem that it repeats.
fn overlaps(texts: &[&str], benchmarks: Option<&Benchmarks>) -> Vec<Option<String>> {
    texts
        .par_iter()
        .map(|text| benchmarks.and_then(|benchmarks| benchmarks.overlap(text)).map(str::to_owned))
        .collect()
}
