//! The `[data]` part of a coder's TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// What a corpus is made from, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The list of pinned packages; without one `folders` alone are read.
    pub sources: Option<PathBuf>,
    /// Folders of Python source beside them: a company's own code.
    #[serde(default)]
    pub folders: Vec<PathBuf>,
    /// Wheels, and what was read of every package, so that a killed run goes on.
    pub cache: PathBuf,
    /// The Python whose pip fetches what the cache lacks.
    #[serde(default = "python")]
    pub python: String,
    /// The folder of the corpus.
    pub out: PathBuf,
    /// Folder with benchmark problems: documents that repeat one are removed and listed.
    pub benchmarks: Option<PathBuf>,
    /// Top-level names of libraries that nothing is learned from: evaluation asks for them.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// Packages of the list that are not used at all.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// A `tokenizer.json`, as CodeGen's, or a GGUF file with such a tokenizer; without one a tokenizer is trained.
    pub tokenizer: Option<PathBuf>,
    /// Whether something is learned on what a prompt gives as well (API lines, code above the cursor): a model that starts from nothing
    /// needs it, a pretrained one has it.
    #[serde(default = "yes")]
    pub learn_given: bool,
    /// Tokens of the tokenizer that is trained.
    #[serde(default = "vocabulary")]
    pub vocabulary: usize,
    /// The longest row of any part and of the evaluation.
    #[serde(default = "block_tokens")]
    pub block_tokens: usize,
    /// How a block's calls are told to be APIs.
    #[serde(default)]
    pub resolution: Resolution,
    /// For every API that a block calls, the chance that another one of its library is put beside it.
    #[serde(default = "noise")]
    pub noise: f64,
    /// Whether documents of code are files (A1, d1, A2, d2, ...: each block below its API lines), as many blocks as a row holds; else
    /// single blocks.
    #[serde(default)]
    pub merged: bool,
    /// How often a block of code is taken.
    #[serde(default)]
    pub resampling: Resampling,
    /// Stars of packages, for `resampling`; 0 where they are not known.
    #[serde(default)]
    pub stars: BTreeMap<String, f64>,
    /// Share of the blocks with API lines in which the library has other names.
    #[serde(default = "twins")]
    pub twins: f64,
    /// Share of documents whose API lines have example calls below them.
    #[serde(default)]
    pub examples: f64,
    /// Blocks of one package at most.
    #[serde(default = "blocks_per_package")]
    pub blocks_per_package: usize,
    /// Different APIs of one library at most that tasks are made of.
    #[serde(default = "apis_per_library")]
    pub apis_per_library: usize,
    /// Held-out tasks of each kind.
    #[serde(default = "evaluation_tasks")]
    pub evaluation_tasks: usize,
    /// Held-out rows for perplexity.
    #[serde(default = "evaluation_rows")]
    pub evaluation_rows: usize,
    /// Of all randomness.
    #[serde(default)]
    pub seed: u64,
    /// What the corpus consists of; a curriculum reads one after the other.
    pub part: Vec<PartConfig>,
}

/// Whose name a call is taken for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Through imports, aliases, assignments and annotations.
    #[default]
    Imports,
    /// The paper's rule: whatever is written like a call, by its bare name, among the APIs of the libraries that the file imports.
    BareName,
}

/// Weights of blocks (Appendix B of arXiv 2210.17236).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// Every block counts the same.
    #[default]
    None,
    /// As the paper's text has it.
    PaperText,
    /// As the paper's code has it.
    PaperCode,
}

impl Resampling {
    /// The weight of code from a package with so many `stars`, of whose functions the share `tests` are tests, and which calls
    /// `apis` APIs whose names `candidates` APIs have. The paper's data has no share of tests and takes it for 1.
    pub(super) fn weight(self, stars: f64, tests: f64, apis: usize, candidates: usize) -> f64 {
        let ambiguity =
            if apis == 0 { 5.0 } else { (candidates.max(apis) as f64 / apis as f64).ln().clamp(0.0, 5.0) };
        let tests = (1.5 - tests).clamp(0.0, 1.0);
        match self {
            Self::None => 1.0,
            Self::PaperText => {
                (1.0 + 0.2 * (stars + 1.0).ln().clamp(0.0, 5.0)) * tests * (5.0 - 0.2 * ambiguity)
            }
            Self::PaperCode => {
                (1.0 + (stars + 1.0).log10().clamp(0.0, 5.0) / 5.0) * tests * (1.0 - ambiguity / 5.0)
            }
        }
    }
}

/// One part of the corpus: shares are of tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    /// Its name in the manifest.
    pub name: String,
    /// Tokens of it.
    pub tokens: u64,
    /// Tokens of a row at most.
    pub row_tokens: usize,
    /// Random tokens said again: all that can be learned of it is to copy.
    #[serde(default)]
    pub repeats: f64,
    /// Tasks from documentation with one API in the block.
    #[serde(default)]
    pub one: f64,
    /// Tasks from documentation with two to five APIs, one of which the comment asks for.
    #[serde(default)]
    pub choice: f64,
    /// Several comments and calls after one block of APIs.
    #[serde(default)]
    pub script: f64,
    /// Blocks of code with the lines of the APIs that they call.
    #[serde(default)]
    pub code: f64,
    /// Blocks of code alone.
    #[serde(default)]
    pub plain: f64,
    /// Examples of docstrings below the lines of the APIs that they call, after a comment that says what they do.
    #[serde(default)]
    pub example: f64,
    /// Blocks of code that call no API, below the lines of some that they do not call.
    #[serde(default)]
    pub unused: f64,
}

impl PartConfig {
    /// The shares in the order of the fields.
    pub(super) fn shares(&self) -> [f64; 8] {
        [self.repeats, self.one, self.choice, self.script, self.code, self.plain, self.example, self.unused]
    }
}

impl DataConfig {
    /// The `[data]` part of a TOML file; its other parts are the trainer's.
    ///
    /// # Errors
    /// The file cannot be read, has no `[data]`, or an unknown or senseless value in it: file, line where TOML tells it, key and value
    /// are named.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            data: DataConfig,
        }
        let File { data } = crate::read_toml(path)?;
        data.sense().map_err(|what| Error::data(path, what))?;
        Ok(data)
    }

    /// Whether the numbers make sense together.
    ///
    /// # Errors
    /// They do not: what and where is said.
    pub fn check(&self) -> Result<()> {
        self.sense().map_err(|what| Error::new(ErrorKind::InvalidArgument, what))
    }

    fn sense(&self) -> Result<(), String> {
        let bad = |what: String| Err(format!("[data] {what}"));
        if self.sources.is_none() && self.folders.is_empty() {
            return bad("neither `sources` nor `folders` are given: there is nothing to read".into());
        }
        if self.part.is_empty() {
            return bad("has no [[data.part]]".into());
        }
        if !(300..=65_535).contains(&self.vocabulary) {
            return bad(format!("vocabulary = {} is not within 300 and 65535", self.vocabulary));
        }
        if !(32..=8192).contains(&self.block_tokens) {
            return bad(format!("block_tokens = {} is not within 32 and 8192", self.block_tokens));
        }
        for (name, value) in [("noise", self.noise), ("twins", self.twins), ("examples", self.examples)] {
            if !(0.0..=1.0).contains(&value) {
                return bad(format!("{name} = {value} is no share (0 to 1)"));
            }
        }
        for (i, part) in self.part.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if part.name.is_empty() || !part.name.chars().all(plain) {
                return bad(format!("part {:?}: its name is not a plain word", part.name));
            }
            if self.part[..i].iter().any(|other| other.name == part.name) {
                return bad(format!("part {:?} is there twice", part.name));
            }
            if !(32..=self.block_tokens).contains(&part.row_tokens) {
                let (name, rows, most) = (&part.name, part.row_tokens, self.block_tokens);
                return bad(format!(
                    "part {name:?}: row_tokens = {rows} is not within 32 and block_tokens = {most}"
                ));
            }
            let shares = part.shares();
            if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || shares.iter().sum::<f64>() <= 0.0 {
                return bad(format!(
                    "part {:?}: its shares are not numbers from 0 to 1, one of them above 0",
                    part.name
                ));
            }
        }
        Ok(())
    }
}

fn python() -> String {
    "python3".into()
}

fn yes() -> bool {
    true
}

fn vocabulary() -> usize {
    4096
}

fn block_tokens() -> usize {
    384
}

fn noise() -> f64 {
    0.05
}

fn twins() -> f64 {
    0.7
}

fn blocks_per_package() -> usize {
    1500
}

fn apis_per_library() -> usize {
    1200
}

fn evaluation_tasks() -> usize {
    250
}

fn evaluation_rows() -> usize {
    400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_appendix_b() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(Resampling::None.weight(9.0, 1.0, 1, 50), 1.0);
        // No star, no test, names that are the APIs' own.
        near(Resampling::PaperText.weight(0.0, 0.0, 3, 3), 5.0);
        near(Resampling::PaperCode.weight(0.0, 0.0, 3, 3), 1.0);
        // 99 stars, nothing but tests, e candidates for each.
        near(Resampling::PaperCode.weight(99.0, 1.0, 1000, 2500), 1.4 * 0.5 * (1.0 - 2.5_f64.ln() / 5.0));
        near(Resampling::PaperText.weight(1e9, 1.0, 1000, 2500), 2.0 * 0.5 * (5.0 - 0.2 * 2.5_f64.ln()));
        // Code without APIs is never taken by the code's rule.
        near(Resampling::PaperCode.weight(0.0, 0.0, 0, 0), 0.0);
    }

    #[test]
    fn senseless_values_are_refused() {
        let text = |change: &str| {
            let (from, to) = change.split_once(" -> ").unwrap();
            let text = "[data]\nfolders = [\"a\"]\ncache = \"c\"\nout = \"o\"\nnoise = 0.1\n[[data.part]]\nname = \"full\"\ntokens = 10\nrow_tokens = 64\none = 1.0\n";
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("coder.toml");
            std::fs::write(&path, text.replace(from, to)).unwrap();
            DataConfig::read(&path).map_err(|error| error.to_string())
        };
        assert_eq!(text("0.1 -> 0.2").unwrap().part[0].shares(), [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        for (change, said) in [
            ("0.1 -> 1.5", "noise = 1.5"),
            ("\"full\" -> \"a/b\"", "plain word"),
            ("one = 1.0 -> one = 0.0", "shares"),
            ("row_tokens = 64 -> row_tokens = 4096", "row_tokens = 4096"),
            ("noise -> nois", "coder.toml:5: unknown field `nois`"),
            ("one = 1.0 -> one = \"all\"", "coder.toml:10: invalid type"),
            ("one = 1.0 -> onee = 1.0", "coder.toml:10: unknown field `onee`"),
            ("cache = -> cash =", "coder.toml:3: unknown field `cash`"),
            ("[\"a\"] -> []", "nothing to read"),
        ] {
            let error = text(change).unwrap_err();
            assert!(error.contains("coder.toml") && error.contains(said), "{change}: {error}");
        }
    }
}
