//! The configuration of a run, in TOML.

use std::path::{Path, PathBuf};

use inhouse_core::index::Signal;
use inhouse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a run reads, learns from and writes. `engine/train/ranker.toml` is one with comments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The pinned packages.
    pub sources: PathBuf,
    /// Folder of their wheels.
    pub wheels: PathBuf,
    /// The Python whose pip fetches what the folder lacks.
    #[serde(default = "python")]
    pub python: String,
    /// The text encoder of the indexes, a GGUF file.
    pub encoder: PathBuf,
    /// Folder of the run.
    pub out: PathBuf,
    /// Packages that are learned from, by their names at the package index.
    pub learn: Vec<String>,
    /// Packages that are measured on alone.
    #[serde(default)]
    pub evaluate: Vec<String>,
    /// Signals that get a weight.
    pub signals: Vec<Signal>,
    /// Questions with one name for an answer.
    #[serde(default = "queries_per_name")]
    pub queries_per_name: usize,
    /// Questions of one package.
    #[serde(default = "queries_per_package")]
    pub queries_per_package: usize,
    /// Shares of a package's usage, from 0 (none) to 1.
    #[serde(default = "usage_shares")]
    pub usage_shares: Vec<f64>,
    /// Questions from which on a package counts in full.
    #[serde(default = "enough_queries")]
    pub enough_queries: usize,
    /// Half of it is the weight of the squared weights in the loss.
    #[serde(default = "ridge")]
    pub ridge: f64,
    /// Parts of the packages in cross-validation.
    #[serde(default = "folds")]
    pub folds: usize,
    /// Decides which questions and files are taken.
    #[serde(default)]
    pub seed: u64,
    /// Pools whose questions are tasks as people put them: the confidence is calibrated on their hits. Without any it is calibrated on the
    /// questions that are learned from, where a hit counts as wrong that the code might have called and did not.
    #[serde(default)]
    pub calibrate: Vec<PoolConfig>,
    /// Pools to measure on alone.
    #[serde(default)]
    pub pool: Vec<PoolConfig>,
}

/// A pool of documentation, with code that uses it and questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name in the report.
    pub name: String,
    /// Anything that documentation is read from.
    pub apis: PathBuf,
    /// Code that uses it; without any, the documentation's own tests and examples.
    #[serde(default)]
    pub usage: Vec<PathBuf>,
    /// Rows {query, gold: [names]}.
    pub queries: PathBuf,
}

fn python() -> String {
    "python3".into()
}
fn queries_per_name() -> usize {
    2
}
fn queries_per_package() -> usize {
    200
}
fn usage_shares() -> Vec<f64> {
    vec![1.0]
}
fn enough_queries() -> usize {
    60
}
fn ridge() -> f64 {
    0.01
}
fn folds() -> usize {
    5
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// The file cannot be read, does not parse, or a value in it is out of range: the line, or the key and what is expected.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = crate::read_toml(path)?;
        let refuse = |what: String| Err(Error::data(path, what));
        if config.learn.len() < config.folds {
            let what =
                format!("`learn` names {} packages, at least `folds` ({})", config.learn.len(), config.folds);
            return refuse(what);
        }
        if let Some(both) = config.evaluate.iter().find(|name| config.learn.contains(name)) {
            return refuse(format!(
                "`{both}` is both in `learn` and in `evaluate`: nothing is held out then"
            ));
        }
        if config.folds < 2 {
            return refuse(format!("`folds` is {}, at least 2", config.folds));
        }
        if config.signals.is_empty() {
            return refuse("`signals` names none".into());
        }
        if config.usage_shares.is_empty()
            || config.usage_shares.iter().any(|share| !(0.0..=1.0).contains(share))
        {
            return refuse(format!("`usage_shares` is {:?}: shares from 0 to 1", config.usage_shares));
        }
        if !(config.ridge > 0.0 && config.ridge.is_finite()) {
            return refuse(format!(
                "`ridge` is {}: a number above 0, or weights may grow without end",
                config.ridge
            ));
        }
        if config.queries_per_name == 0 || config.queries_per_package == 0 || config.enough_queries == 0 {
            return refuse(
                "`queries_per_name`, `queries_per_package` and `enough_queries` are at least 1".into(),
            );
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_the_shipped_ranker_is_one_and_mistakes_are_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ranker.toml");
        let config = Config::read(&path).unwrap();
        assert!(config.signals.contains(&Signal::Around) && config.pool.is_empty());
        let text = std::fs::read_to_string(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let wrong = folder.path().join("wrong.toml");
        for (from, to, said) in [
            ("folds = 5", "folds = 500", "`learn` names"),
            ("\"networkx\", \"petl\"", "\"ase\", \"petl\"", "both in `learn`"),
            ("ridge = 0.01", "ridge = 0", "`ridge`"),
            ("[1.0, 0.3]", "[1.5]", "shares from 0 to 1"),
            ("\"around\"]", "\"luck\"]", "luck"),
            ("seed = 1", "sead = 1", "sead"),
        ] {
            assert!(text.contains(from), "{from}");
            std::fs::write(&wrong, text.replace(from, to)).unwrap();
            let error = Config::read(&wrong).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("wrong.toml"), "{error}");
        }
    }
}
