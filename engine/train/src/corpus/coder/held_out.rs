//! Evaluation data: code of held-out libraries with its API lines and without, and tasks that ask for their APIs.

use std::path::Path;

use inhouse_core::{Result, files};
use rand::seq::SliceRandom;
use rustc_hash::FxHashSet;

use super::blocks::CodeBlock;
use super::build::rng_of;
use super::code::Coder;
use super::config::DataConfig;
use super::document::weight;
use super::library::Shelf;
use super::report::TaskRow;
use super::rows::{Row, Shard, write_shard};
use super::tasks::{Maker, Size};
use super::tokenizer::Encoder;
use crate::pairs::ApiTable;

/// What evaluation is made from.
pub(super) struct HeldOut<'a> {
    pub config: &'a DataConfig,
    pub encoder: &'a Encoder,
    /// APIs of held-out libraries.
    pub shelves: &'a [Shelf],
    /// Words of names.
    pub words: &'a [String],
    /// Code of held-out libraries.
    pub blocks: &'a [CodeBlock],
    pub table: &'a ApiTable,
}

impl HeldOut<'_> {
    /// Writes `eval.safetensors`, `eval_no_api.safetensors` and `tasks.jsonl`.
    ///
    /// # Errors
    /// A file cannot be written, or the tokenizer fails.
    pub fn write(&self, partial: &Path) -> Result<Vec<Shard>> {
        let Self { config, encoder, shelves, words, blocks, table } = *self;
        let coder = Coder::new(table, words, config.noise, 1.0, 0.0, true);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut rng = rng_of(config, "evaluation code", 0);
        let mut order: Vec<&CodeBlock> = blocks.iter().filter(|block| !block.calls.is_empty()).collect();
        order.shuffle(&mut rng);
        for block in order {
            if with.len() >= config.evaluation_rows {
                break;
            }
            let Some(mut sheet) = coder.sheet(block, &mut rng) else { continue };
            // The same tokens count in both.
            sheet.code = vec![(sheet.code.iter().map(|(text, _)| text.as_str()).collect(), weight::CALL)];
            let row = |with_apis| -> Result<Row> {
                let (tokens, mut weights) = sheet.document(with_apis).encode(encoder)?;
                weights
                    .iter_mut()
                    .for_each(|weight| *weight = if *weight == weight::CALL { weight::CALL } else { 0 });
                Ok(Row { tokens, weights })
            };
            let (one, other) = (row(true)?, row(false)?);
            if one.tokens.len() <= config.block_tokens {
                with.push(one);
                without.push(other);
            }
        }
        let shards = vec![
            write_shard(partial, "evaluation", "eval.safetensors", &with)?,
            write_shard(partial, "evaluation", "eval_no_api.safetensors", &without)?,
        ];
        let mut rows = Vec::new();
        if !shelves.is_empty() {
            let maker = Maker::new(shelves, words, 0.0, true);
            // No name that any library has: code may hold it.
            let known: FxHashSet<&str> =
                table.apis().iter().flat_map(|api| [api.name.as_str(), api.library()]).collect();
            for (kind, n_apis) in [("one", 1), ("two", 2), ("three", 3), ("five", 5)] {
                let mut rng = rng_of(config, "evaluation tasks", n_apis as u64);
                let mut found = 0;
                for _ in 0..config.evaluation_tasks * 400 {
                    if found == config.evaluation_tasks {
                        break;
                    }
                    let Some(task) = maker.task(n_apis, Size::Full, &mut rng) else { continue };
                    let length = task.document.encode(encoder)?.0.len();
                    if length <= config.block_tokens && !known.contains(task.name.as_str()) {
                        found += 1;
                        rows.push(TaskRow {
                            kind: kind.into(),
                            prompt: task.prompt,
                            prompt_no_api: task.prompt_no_api,
                            name: task.name,
                            line: task.line,
                            library: task.library,
                        });
                    }
                }
            }
        }
        files::write_json_lines(&partial.join("tasks.jsonl"), rows.iter())?;
        Ok(shards)
    }
}
