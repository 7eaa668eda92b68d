//! The TOML file that describes a study.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use evald_proto::EnvSpec;
use inhouse::{EncoderChoice, Error, ErrorKind, Result};
use inhouse_core::decode::PAPER_STOPS;
use inhouse_core::files;
use serde::{Deserialize, Serialize};

use crate::generate::{ApiSetting, Program, PromptSetting};

/// What is published and what is sound differ; a study says which it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `n` independent samples; a private library is importable ([`crate::twin`]) and completions run as they stand; problems
    /// whose own solutions fail here are reported apart and not counted.
    #[default]
    Sound,
    /// As the paper's code has it: n / 8 samples, each counted 8 times (it seeds every batch of 25 anew, so that its 200 are
    /// 25 different ones and pass@100 is about "solved by 25"), private words converted back as text, every problem counted.
    AsPublished,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sound => "sound",
            Self::AsPublished => "as published",
        })
    }
}

/// A study. Relative paths are relative to the working folder; an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the report is headed by.
    #[serde(default = "title")]
    pub title: String,
    /// How samples are counted and run.
    #[serde(default)]
    pub protocol: Protocol,
    /// Samples a problem that are counted.
    #[serde(default = "n")]
    pub n: usize,
    /// How often each sample is counted: 8 as published, 1 otherwise.
    pub repeats: Option<usize>,
    /// The k of pass@k; those above n are left out.
    #[serde(default = "k")]
    pub k: Vec<u64>,
    /// Which APIs stand in the prompt, for every problem set that names none of its own.
    #[serde(default = "settings")]
    pub settings: Vec<String>,
    /// The sweep; the best is reported and all are kept.
    #[serde(default = "temperatures")]
    pub temperatures: Vec<f32>,
    /// Nucleus sampling.
    #[serde(default = "top_p")]
    pub top_p: f32,
    /// Most new tokens a completion.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// What ends a completion; the paper's six by default.
    #[serde(default = "stop")]
    pub stop: Vec<String>,
    /// Lets only documented names follow a library of the index.
    #[serde(default)]
    pub constrain: bool,
    /// Seed of all samples and of the bootstrap.
    #[serde(default)]
    pub seed: u64,
    /// Samples decoded side by side.
    #[serde(default = "parallel")]
    pub parallel: usize,
    /// CPU seconds that a sample may run.
    #[serde(default = "timeout")]
    pub timeout: f64,
    /// How often samples that are equal to the letter run.
    #[serde(default)]
    pub equal_samples: EqualSamples,
    /// Text encoder of the indexes, where it is not where they say; `none` searches by words alone.
    pub encoder: Option<PathBuf>,
    /// Draws of the bootstrap.
    #[serde(default = "bootstrap")]
    pub bootstrap: usize,
    /// What is completed.
    pub problems: Vec<ProblemSet>,
    /// What completes it; without any, only recall is measured.
    #[serde(default)]
    pub models: Vec<ModelConfig>,
}

/// How often samples that are equal to the letter run. At a low temperature most are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EqualSamples {
    /// Each runs, so that what is flaky shows.
    #[default]
    Each,
    /// One runs, and the others share its verdict.
    Once,
}

/// A problem set and its library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemSet {
    /// What tables call it.
    pub name: String,
    /// The problems.
    pub file: PathBuf,
    /// Whether models may know the library: such sets stand in Table 3, the others in Table 1.
    #[serde(default)]
    pub public: bool,
    /// Folder of the index over the library's documentation.
    pub index: Option<PathBuf>,
    /// The interpreter, and modules to import beforehand: `PYTHON[:MODULE,...]`.
    #[serde(default = "python")]
    pub env: String,
    /// The rename table that made the library private: `monkey`, `beatnum` or a file.
    pub private: Option<PathBuf>,
    /// Rows `{task_id, gold}`, or problems whose prompts show the golden APIs.
    pub gold: Option<PathBuf>,
    /// Rows `{task_id, gold}` with what a person chose, or problems whose prompts show it.
    pub human: Option<PathBuf>,
    /// Settings of this set alone.
    pub settings: Option<Vec<String>>,
    /// Published prompts: a problem file by setting, taken as it is.
    #[serde(default)]
    pub prompts: BTreeMap<String, PathBuf>,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What tables call it.
    pub name: String,
    /// GGUF file, or Hugging Face folder.
    pub path: Option<PathBuf>,
    /// Low-rank adapters of the model, `PATH` or `PATH:SCALE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lora: Vec<String>,
    /// A program that completes prompts, in the place of a file (see [`mod@crate::generate`]).
    pub command: Option<Program>,
    /// How the model is asked: `none`, `auto` or a Jinja template's file.
    #[serde(default = "chat")]
    pub chat: String,
    /// Layers on the GPU.
    #[serde(default)]
    pub gpu_layers: u32,
    /// Threads; chosen by the model's size and the cores by default.
    pub threads: Option<usize>,
    /// Runs the model in a process of its own.
    #[serde(default)]
    pub worker: bool,
    /// Share of noise in its training prompts; with `resampling`, puts it in Table 2.
    pub noise: Option<f64>,
    /// Whether its training data was resampled; with `noise`, puts it in Table 2.
    pub resampling: Option<bool>,
}

fn title() -> String {
    "Private library study".into()
}
fn n() -> usize {
    200
}
fn k() -> Vec<u64> {
    vec![1, 10, 100]
}
fn settings() -> Vec<String> {
    ["none", "perfect", "top:1", "top:2", "top:3", "top:5", "human"].map(str::to_owned).into()
}
fn temperatures() -> Vec<f32> {
    (1..=10).map(|tenths| tenths as f32 / 10.0).collect()
}
fn top_p() -> f32 {
    0.9
}
fn max_tokens() -> usize {
    100
}
fn stop() -> Vec<String> {
    PAPER_STOPS.iter().map(|stop| (*stop).to_owned()).collect()
}
fn parallel() -> usize {
    16
}
fn timeout() -> f64 {
    3.0
}
fn bootstrap() -> usize {
    2000
}
fn python() -> String {
    "python3".into()
}
fn chat() -> String {
    "none".into()
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The file cannot be read, is no such TOML, or a value is out of range; the message says which.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let config: Self = toml::from_str(&text).map_err(|cause| Error::data(path, cause))?;
        config.check().map_err(|what| Error::data(path, what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let within = |name: &str, fits: bool, expected: &str| {
            if fits { Ok(()) } else { Err(format!("`{name}` is out of range: expected {expected}")) }
        };
        within("n", (1..=100_000).contains(&self.n), "1 to 100000")?;
        within("repeats", (1..=self.n).contains(&self.repeats()), "1 to n")?;
        within(
            "n",
            self.n.is_multiple_of(self.repeats()),
            &format!("a multiple of {} repeats", self.repeats()),
        )?;
        within("k", !self.k.is_empty() && !self.k.contains(&0), "numbers from 1")?;
        within("k", self.k.iter().any(|k| *k <= self.n as u64), "one that is at most n")?;
        let known = |t: &f32| (0.0..=100.0).contains(t);
        within(
            "temperatures",
            !self.temperatures.is_empty() && self.temperatures.iter().all(known),
            "0 to 100",
        )?;
        within("top_p", self.top_p > 0.0 && self.top_p <= 1.0, "above 0, up to 1")?;
        within("max_tokens", (1..=1_000_000).contains(&self.max_tokens), "1 to 1000000")?;
        within("parallel", (1..=256).contains(&self.parallel), "1 to 256")?;
        within("timeout", self.timeout > 0.0 && self.timeout <= 86_400.0, "above 0, up to 86400 seconds")?;
        within("bootstrap", (1..=1_000_000).contains(&self.bootstrap), "1 to 1000000")?;
        within("problems", !self.problems.is_empty(), "at least one [[problems]]")?;
        distinct("problems", self.problems.iter().map(|set| &set.name))?;
        distinct("models", self.models.iter().map(|model| &model.name))?;
        for set in &self.problems {
            set.env.parse::<EnvSpec>().map_err(|what| format!("problems `{}`: env: {what}", set.name))?;
            for setting in self.settings_of(set).iter().chain(set.prompts.keys()) {
                match setting.parse::<PromptSetting>().map(|setting| setting.apis) {
                    Ok(ApiSetting::AsIs) if !set.prompts.contains_key(setting) => {
                        let what =
                            "`as-is` is what a set's `prompts` are; name the file there by its setting";
                        return Err(format!("problems `{}`: {what}", set.name));
                    }
                    Ok(_) => {}
                    Err(what) => return Err(format!("problems `{}`: setting `{setting}`: {what}", set.name)),
                }
            }
        }
        for model in &self.models {
            if model.path.is_some() == model.command.is_some() {
                return Err(format!("models `{}`: expected either `path` or `command`", model.name));
            }
            if model.command.is_some() && !model.lora.is_empty() {
                return Err(format!("models `{}`: `lora` goes with `path`", model.name));
            }
            for adapter in &model.lora {
                adapter
                    .parse::<inhouse::LoraChoice>()
                    .map_err(|what| format!("models `{}`: lora: {what}", model.name))?;
            }
            if model.command.is_some() && model.chat != "none" {
                return Err(format!(
                    "models `{}`: a program is asked as it asks itself; leave `chat` out",
                    model.name
                ));
            }
        }
        Ok(())
    }

    /// How often each sample is counted.
    pub fn repeats(&self) -> usize {
        self.repeats.unwrap_or(if self.protocol == Protocol::AsPublished { 8 } else { 1 })
    }

    /// Samples that are drawn of each problem.
    pub fn drawn(&self) -> usize {
        (self.n / self.repeats()).max(1)
    }

    /// The settings in which a set is completed, in the order of the tables.
    pub fn settings_of(&self, set: &ProblemSet) -> Vec<String> {
        set.settings.clone().unwrap_or_else(|| self.settings.clone())
    }

    /// The k that `n` allows, rising.
    pub fn ks(&self) -> Vec<u64> {
        let mut k: Vec<u64> = self.k.iter().copied().filter(|k| *k <= self.n as u64).collect();
        k.sort_unstable();
        k.dedup();
        k
    }

    /// What the indexes are searched with.
    pub(crate) fn encoder(&self) -> EncoderChoice {
        match &self.encoder {
            Some(path) if path == Path::new("none") => EncoderChoice::None,
            Some(path) => EncoderChoice::At(path.clone()),
            None => EncoderChoice::default(),
        }
    }
}

fn distinct<'n>(list: &str, names: impl Iterator<Item = &'n String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(format!("{list}: a name is empty"));
        }
        if !seen.insert(super::units::folder_name(name)) {
            return Err(format!("{list}: two are called `{name}` (or differ in punctuation alone)"));
        }
    }
    Ok(())
}

/// What a setting is called in tables, as the paper calls it.
pub fn setting_title(setting: &str) -> String {
    if let (Some((drawn, _)), Ok(PromptSetting { best_of, .. })) =
        (setting.rsplit_once("+best:"), setting.parse::<PromptSetting>())
    {
        return format!("{}, best of {best_of}", setting_title(drawn));
    }
    if let (Some((apis, _)), Ok(PromptSetting { examples, .. })) =
        (setting.split_once("+examples"), setting.parse::<PromptSetting>())
    {
        let plural = if examples == 1 { "" } else { "s" };
        return format!("{} + {examples} example{plural}", setting_title(apis));
    }
    if let (Some(apis), true) = (setting.strip_suffix("+refine"), setting.parse::<PromptSetting>().is_ok()) {
        return format!("{}, asked again with a draft", setting_title(apis));
    }
    match setting.parse() {
        Ok(ApiSetting::None) => "No API".into(),
        Ok(ApiSetting::Perfect) => "Perfect".into(),
        Ok(ApiSetting::Top(n)) => format!("Top-{n}"),
        Ok(ApiSetting::Human) => "Human".into(),
        _ => setting.into(),
    }
}

/// A refusal that names the set and the mend.
pub(crate) fn lacks(set: &str, setting: &str, what: &str) -> Error {
    let message =
        format!("problems `{set}`, setting `{setting}`: {what}, or leave the setting out of its `settings`");
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    const SMALL: &str =
        "[[problems]]\nname = \"A\"\nfile = \"a.jsonl\"\n[[models]]\nname = \"m\"\npath = \"m.gguf\"\n";

    #[test]
    fn what_is_not_said_is_the_papers() {
        let config = read(SMALL).unwrap();
        assert_eq!((config.n, config.drawn(), config.ks()), (200, 200, vec![1, 10, 100]));
        assert_eq!(config.temperatures.len(), 10);
        assert_eq!(config.settings_of(&config.problems[0]).len(), 7);
        let published = read(&format!("protocol = \"as-published\"\n{SMALL}")).unwrap();
        assert_eq!((published.drawn(), published.repeats()), (25, 8));
        assert_eq!(read(&format!("n = 5\n{SMALL}")).unwrap().ks(), [1]);
        assert_eq!(setting_title("top:3"), "Top-3");
        assert_eq!(setting_title("perfect+examples"), "Perfect + 1 example");
        assert_eq!(setting_title("top:2+examples:3"), "Top-2 + 3 examples");
        assert_eq!(setting_title("top:2+examples+best:8"), "Top-2 + 1 example, best of 8");
        assert_eq!(setting_title("top:2+refine"), "Top-2, asked again with a draft");
        assert_eq!(setting_title("top:2+refine+examples"), "Top-2, asked again with a draft + 1 example");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, what) in [
            (format!("n = 0\n{SMALL}"), "`n` is out of range"),
            (format!("samples = 3\n{SMALL}"), "unknown field `samples`"),
            (format!("protocol = \"as-published\"\nn = 20\n{SMALL}"), "multiple of 8 repeats"),
            (format!("k = [7]\nn = 2\n{SMALL}"), "at most n"),
            (format!("settings = [\"top:0\"]\n{SMALL}"), "setting `top:0`"),
            (format!("settings = [\"none+examples\"]\n{SMALL}"), "no API into the prompt"),
            (format!("settings = [\"top:1+examples:0\"]\n{SMALL}"), "N from 1"),
            (format!("settings = [\"perfect+refine\"]\n{SMALL}"), "+refine goes with top:N"),
            (format!("settings = [\"perfect+best:1\"]\n{SMALL}"), "+best:N at the end (N from 2"),
            (format!("settings = [\"perfect+best:4+examples\"]\n{SMALL}"), "+best:N at the end"),
            (format!("settings = [\"as-is\"]\n{SMALL}"), "`prompts`"),
            (format!("temperatures = [-1.0]\n{SMALL}"), "`temperatures`"),
            (format!("{SMALL}[[models]]\nname = \"m\"\npath = \"x\"\n"), "two are called `m`"),
            (format!("{SMALL}[[models]]\nname = \"n\"\n"), "either `path` or `command`"),
            (SMALL.replace("file = \"a.jsonl\"", "file = \"a.jsonl\"\nenv = \"\""), "env"),
            ("n = [".into(), "TOML"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
