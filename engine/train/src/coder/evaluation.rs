//! Perplexity of held-out code with and without API lines, and calls on held-out libraries by greedy decoding.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use inhouse_candle::{Example, Lesson, Loss, Trainable};
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed, Model, TokenId};
use inhouse_core::{Result, files};
use serde::{Deserialize, Serialize};

use super::config::EvaluationConfig;
use super::corpus::{Corpus, Rows};

/// Sequences that are decoded side by side.
const SIDE_BY_SIDE: usize = 16;
/// Tokens of one pass of perplexity, about.
const PASS_TOKENS: usize = 4096;

/// One task: a prompt that ends where a call is due.
#[derive(Debug, Clone, Deserialize)]
struct Task {
    kind: String,
    prompt: String,
    #[serde(default)]
    prompt_no_api: String,
    name: String,
    line: String,
}

/// Shares of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TaskScore {
    /// Tasks asked.
    pub n: usize,
    /// The line holds the right API's name as a word.
    pub name: f64,
    /// The line is the expected one.
    pub line: f64,
}

/// What was measured after a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// After this many steps.
    pub step: u64,
    /// Of held-out code below its API lines.
    pub perplexity: Option<f64>,
    /// Of the same code without them.
    pub perplexity_no_api: Option<f64>,
    /// Tasks by the number of APIs in the block.
    pub tasks: BTreeMap<String, TaskScore>,
    /// The tasks with one API without their block: the names cannot be known.
    pub no_api: TaskScore,
}

/// Held-out data.
pub struct HeldOut {
    with: Option<Rows>,
    without: Option<Rows>,
    tasks: Vec<Task>,
    answer_tokens: usize,
}

impl HeldOut {
    /// Reads what a corpus holds out, as much as the limits allow.
    ///
    /// # Errors
    /// A file that the manifest names cannot be read.
    pub fn read(corpus: &Corpus, config: &EvaluationConfig) -> Result<Self> {
        let held = &corpus.manifest.evaluation;
        let rows = |name: &Option<String>| -> Result<Option<Rows>> {
            let read = |name: &String| Rows::read(&corpus.path(name), "", corpus.manifest.vocab_size);
            let rows = name.as_ref().filter(|_| config.rows > 0).map(read).transpose()?;
            Ok(rows.map(|rows| rows.first(config.rows)))
        };
        let mut tasks: Vec<Task> = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        if let Some(name) = &held.tasks {
            for row in files::json_lines::<Task>(&corpus.path(name))? {
                let (_, task) = row?;
                let count = counts.entry(task.kind.clone()).or_default();
                if *count < config.tasks {
                    *count += 1;
                    tasks.push(task);
                }
            }
        }
        Ok(Self {
            with: rows(&held.perplexity)?,
            without: rows(&held.perplexity_no_api)?,
            tasks,
            answer_tokens: config.answer_tokens,
        })
    }

    /// Measures `trainable` with the tokenizer of a folder or GGUF file.
    ///
    /// # Errors
    /// The tokenizer cannot be read, or the backend fails.
    pub fn measure(
        &self,
        step: u64,
        trainable: &Trainable,
        tokenizer: &Path,
        cancel: &CancelToken,
    ) -> Result<Measured> {
        let mut measured = Measured {
            step,
            perplexity: self.with.as_ref().map(|rows| perplexity(trainable, rows)).transpose()?,
            perplexity_no_api: self.without.as_ref().map(|rows| perplexity(trainable, rows)).transpose()?,
            ..Measured::default()
        };
        if self.tasks.is_empty() {
            return Ok(measured);
        }
        let model = trainable.model(tokenizer)?;
        let mut by_kind: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
        for task in &self.tasks {
            by_kind.entry(&task.kind).or_default().push(task);
        }
        for (kind, tasks) in &by_kind {
            let prompts: Vec<&str> = tasks.iter().map(|task| task.prompt.as_str()).collect();
            let answers = answers(&model, &prompts, self.answer_tokens, cancel)?;
            measured.tasks.insert((*kind).to_owned(), score(tasks, &answers));
        }
        if let Some(tasks) = by_kind.get("one").or_else(|| by_kind.values().next()) {
            let prompts: Vec<&str> = tasks.iter().map(|task| task.prompt_no_api.as_str()).collect();
            measured.no_api = score(tasks, &answers(&model, &prompts, self.answer_tokens, cancel)?);
        }
        Ok(measured)
    }
}

fn perplexity(trainable: &Trainable, rows: &Rows) -> Result<f64> {
    let mut loss = Loss::default();
    let mut lessons: Vec<Lesson<'_>> = Vec::new();
    let mut count = 0;
    for i in 0..rows.len() {
        let (tokens, weights) = rows.row(i);
        lessons.push(Lesson { example: Example { source: &[], tokens }, weights });
        count += tokens.len();
        if count >= PASS_TOKENS || i + 1 == rows.len() {
            loss += trainable.loss(&lessons)?;
            lessons.clear();
            count = 0;
        }
    }
    Ok(loss.mean().exp())
}

fn score(tasks: &[&Task], answers: &[String]) -> TaskScore {
    let share = |right: &dyn Fn(&Task, &str) -> bool| {
        let count = tasks.iter().zip(answers).filter(|(task, answer)| right(task, answer)).count();
        count as f64 / tasks.len().max(1) as f64
    };
    TaskScore {
        n: tasks.len(),
        name: share(&|task, answer| has_word(answer, &task.name)),
        line: share(&|task, answer| answer.trim() == task.line.trim()),
    }
}

/// Whether `word` stands in `text` and is not part of a longer identifier.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            !text[..at].chars().next_back().is_some_and(part)
                && !text[at + word.len()..].chars().next().is_some_and(part)
        })
}

/// What the model writes greedily after each prompt, up to the line's end.
fn answers(
    model: &Arc<dyn Model>,
    prompts: &[&str],
    limit: usize,
    cancel: &CancelToken,
) -> Result<Vec<String>> {
    let tokenizer = model.tokenizer();
    let context = model.info().context_length;
    let options = DecoderOptions { sequences: SIDE_BY_SIDE, ..DecoderOptions::default() };
    let mut decoder = Arc::clone(model).decoder(&options)?;
    let mut answers = Vec::with_capacity(prompts.len());
    for prompts in prompts.chunks(SIDE_BY_SIDE) {
        let mut pending: Vec<(usize, Vec<TokenId>)> = Vec::new();
        let mut lengths = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            decoder.rewind(i as u32, 0)?;
            let mut tokens = tokenizer.encode(prompt)?;
            // The end of a prompt that is too long is what counts.
            let room = context.saturating_sub(limit).max(1);
            tokens.drain(..tokens.len().saturating_sub(room));
            lengths.push(tokens.len());
            if !tokens.is_empty() {
                pending.push((i, tokens));
            }
        }
        let mut written: Vec<Vec<u8>> = vec![Vec::new(); prompts.len()];
        for _ in 0..limit {
            if pending.is_empty() {
                break;
            }
            let feeds: Vec<Feed<'_>> =
                pending.iter().map(|(seq, tokens)| Feed { seq: *seq as u32, tokens }).collect();
            decoder.feed(&feeds, cancel)?;
            let mut next = Vec::new();
            for (i, (seq, _)) in pending.iter().enumerate() {
                let logits = decoder.logits(i)?;
                let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
                let token = best as TokenId;
                let bytes = tokenizer.token_bytes(token);
                let ended = tokenizer.is_end(token) || bytes.contains(&b'\n');
                written[*seq].extend(bytes.iter().take_while(|&&byte| byte != b'\n'));
                lengths[*seq] += 1;
                if !ended && lengths[*seq] < context {
                    next.push((*seq, vec![token]));
                }
            }
            pending = next;
        }
        answers.extend(written.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::has_word;

    #[test]
    fn words_are_whole() {
        assert!(has_word("x = lib.take_rows(3)", "take_rows"));
        assert!(!has_word("x = lib.retake_rows(3)", "take_rows"));
        assert!(!has_word("x = lib.take_rows_now(3)", "take_rows"));
        assert!(has_word("take", "take") && !has_word("anything", ""));
    }
}
