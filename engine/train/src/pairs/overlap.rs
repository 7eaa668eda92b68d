//! What repeats a benchmark: every query is held against the texts of all problems, and what overlaps is removed and listed.

use std::hash::Hasher;
use std::path::Path;

use inhouse_core::{Error, Result, files};
use rustc_hash::{FxHashMap, FxHasher};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pair;

/// Words of an n-gram that two texts do not share by chance.
pub const NGRAM_WORDS: usize = 8;
/// A golden query shorter than an n-gram counts as a whole, from this many words on.
const MIN_WHOLE_WORDS: usize = 4;

/// Fields of a problem that hold text of its author.
const FIELDS: &[&str] = &["prompt", "canonical_solution", "query", "test"];

/// The texts of benchmark problems, as n-grams of words.
#[derive(Debug, Default)]
pub struct Benchmarks {
    /// Hash of an n-gram or of a whole short text -> the problem it is from.
    seen: FxHashMap<u64, u32>,
    problems: Vec<String>,
    texts: usize,
}

/// What was looked for and what was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlapReport {
    /// Words of an n-gram.
    pub ngram_words: usize,
    /// Rows of problems read.
    pub problems: usize,
    /// Their texts.
    pub texts: usize,
    /// Different n-grams in them.
    pub ngrams: usize,
    /// Queries held against them.
    pub queries: usize,
    /// The queries that were removed.
    pub removed: Vec<Removed>,
}

/// One query that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The query.
    pub query: String,
    /// The file it is from.
    pub path: String,
    /// The problem that it shares words with.
    pub problem: String,
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

fn hash(words: &[String]) -> u64 {
    let mut hasher = FxHasher::default();
    for word in words {
        hasher.write(word.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

impl Benchmarks {
    /// Reads every `.jsonl` and `.jsonl.gz` of problems in a folder and in its folders; other rows are passed over.
    ///
    /// # Errors
    /// The folder or one of its files cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut this = Self::default();
        let mut paths = Vec::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(folder) = open.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|cause| Error::io("read", &folder, cause))?;
            for entry in entries {
                let path = entry.map_err(|cause| Error::io("read", &folder, cause))?.path();
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                if path.is_dir() {
                    open.push(path);
                } else if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
                    paths.push((path, name));
                }
            }
        }
        paths.sort();
        for (path, name) in paths {
            for row in files::json_lines::<Value>(&path)? {
                let (_, row) = row?;
                // Documentation pools have no task.
                if let Some(task) = row.get("task_id").and_then(Value::as_str) {
                    let name = name.trim_end_matches(".gz").trim_end_matches(".jsonl");
                    this.add(&format!("{name}:{task}"), &row);
                }
            }
        }
        Ok(this)
    }

    fn add(&mut self, problem: &str, row: &Value) {
        let id = self.problems.len() as u32;
        self.problems.push(problem.to_owned());
        for field in FIELDS {
            let texts: Vec<&str> = match row.get(*field) {
                Some(Value::String(text)) => vec![text],
                Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
                _ => continue,
            };
            for text in texts {
                let words = words(text);
                self.texts += 1;
                for ngram in words.windows(NGRAM_WORDS) {
                    self.seen.entry(hash(ngram)).or_insert(id);
                }
                if (MIN_WHOLE_WORDS..NGRAM_WORDS).contains(&words.len()) {
                    self.seen.entry(hash(&words)).or_insert(id);
                }
            }
        }
    }

    /// The problem that a text shares an n-gram with, or is a whole short text of.
    pub fn overlap(&self, text: &str) -> Option<&str> {
        let words = words(text);
        let whole = (MIN_WHOLE_WORDS..NGRAM_WORDS).contains(&words.len()).then(|| hash(&words));
        let found = words.windows(NGRAM_WORDS).map(hash).chain(whole).find_map(|key| self.seen.get(&key))?;
        self.problems.get(*found as usize).map(String::as_str)
    }

    /// Removes the pairs that overlap.
    pub fn filter(&self, pairs: &mut Vec<Pair>) -> OverlapReport {
        let mut report = OverlapReport {
            ngram_words: NGRAM_WORDS,
            problems: self.problems.len(),
            texts: self.texts,
            ngrams: self.seen.len(),
            queries: pairs.len(),
            removed: Vec::new(),
        };
        pairs.retain(|pair| match self.overlap(&pair.query) {
            None => true,
            Some(problem) => {
                report.removed.push(Removed {
                    query: pair.query.clone(),
                    path: pair.path.clone(),
                    problem: problem.to_owned(),
                });
                false
            }
        });
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Origin;

    #[test]
    fn shared_words_are_found() {
        let mut benchmarks = Benchmarks::default();
        let row = serde_json::json!({
            "prompt": "# Weave the red thread and the blue one until the cloth is long\nx =",
            "canonical_solution": [" weave(red, blue)"],
            "query": "Weave both threads together",
        });
        benchmarks.add("Loom/0", &row);
        for (text, found) in [
            ("we WEAVE the red thread, and the blue one until noon", true),
            ("the red thread and the blue", false),
            ("Weave both threads together!", true),
            ("Weave both threads together now", false),
            ("", false),
        ] {
            assert_eq!(benchmarks.overlap(text).is_some(), found, "{text}");
        }
        let pair = |query: &str| Pair {
            query: query.into(),
            origin: Origin::Comment,
            apis: vec!["loom.weave".into()],
            guessed: false,
            path: "a.py".into(),
            line: 1,
        };
        let mut pairs = vec![pair("weave both threads together"), pair("cut the cloth in two")];
        let report = benchmarks.filter(&mut pairs);
        assert_eq!((pairs.len(), report.queries, report.removed[0].problem.as_str()), (1, 2, "Loom/0"));
    }
}
