//! Where a study's results stand until they are asked for, and how a run that ended anyhow goes on.
//!
//! ```text
//! STORE/study.json                     the configuration, and digests of problem sets and models
//! STORE/recall/SET.json                recall of the retriever, of published prompts and of people's choices
//! STORE/canonical/SET.json             which problems their own solutions solve here
//! STORE/units/SET/MODEL/SETTING/tT/AAAAA-BBBBB.*      problems A to B of a cell:
//!     claim                            locked by the worker that is at it
//!     samples.jsonl                    sampled, not run yet
//!     results.jsonl                    run: samples and verdicts in one row
//!     tally.json                       counted: the unit is done
//! STORE/runs/*.json                    one for each worker: machine, versions, environments, when
//! ```
//!
//! Every file is written under another name and renamed, so what is there is whole. A unit depends on nothing but the
//! configuration and its problems: whoever does it, and how often it was begun, its samples are the same bytes (results also
//! hold times, which are not). So any number of workers share a store, each takes what nobody is at, and two stores of one
//! study are merged by taking what is there. Locks are the kernel's and end with their process; a file system without them
//! costs work done twice, not results.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use inhouse::{Error, ErrorKind, Result};
use inhouse_core::files;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::Config;
use super::sets::SetRecord;

/// Version of the layout.
const VERSION: u32 = 1;

/// What stands in `study.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    inhouse_study: u32,
    /// The configuration of the last run.
    pub config: Config,
    /// Problems in a unit.
    pub problems_per_unit: usize,
    /// Problem sets by name.
    pub sets: BTreeMap<String, SetRecord>,
    /// Digests of models by name.
    pub models: BTreeMap<String, String>,
}

impl Record {
    /// A record of the layout that this build writes.
    pub(crate) fn new(
        config: &Config,
        problems_per_unit: usize,
        sets: BTreeMap<String, SetRecord>,
        models: BTreeMap<String, String>,
    ) -> Self {
        Self { inhouse_study: VERSION, config: config.clone(), problems_per_unit, sets, models }
    }

    /// What every unit depends on, beside its problem set and its model.
    fn common(&self) -> Vec<(&'static str, Value)> {
        let config = &self.config;
        vec![
            ("protocol", json!(config.protocol)),
            ("n", json!(config.n)),
            ("repeats", json!(config.repeats())),
            ("top_p", json!(config.top_p)),
            ("max_tokens", json!(config.max_tokens)),
            ("stop", json!(config.stop)),
            ("constrain", json!(config.constrain)),
            ("seed", json!(config.seed)),
            ("parallel", json!(config.parallel)),
            ("timeout", json!(config.timeout)),
            ("equal_samples", json!(config.equal_samples)),
            ("encoder", json!(config.encoder)),
        ]
    }

    /// Why results of `other` cannot stand beside those of this one.
    fn differs(&self, other: &Self) -> Option<String> {
        for ((what, ours), (_, theirs)) in self.common().into_iter().zip(other.common()) {
            if ours != theirs {
                return Some(format!("was made with {what} = {ours}, not {theirs}"));
            }
        }
        let set = other.sets.iter().find(|(name, set)| self.sets.get(*name).is_some_and(|ours| ours != *set));
        if let Some((name, _)) = set {
            return Some(format!("was made with other problems, documentation or golden APIs in `{name}`"));
        }
        let model = other
            .models
            .iter()
            .find(|(name, print)| self.models.get(*name).is_some_and(|ours| ours != *print));
        model.map(|(name, _)| format!("was made with another model called `{name}`"))
    }
}

/// A store.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds results of.
    pub record: Record,
}

impl Store {
    /// Opens or begins the store in `folder` for a study. Problem sets, models, settings and temperatures may come and go
    /// between runs; what is done of them stays.
    ///
    /// # Errors
    /// The store holds results that do not go with these (the message says what differs), or it cannot be read or written.
    pub(crate) fn begin(folder: &Path, record: Record) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|cause| Error::io("make", folder, cause))?;
        let lock = folder.join("study.lock");
        let file = File::create(&lock).map_err(|cause| Error::io("write", &lock, cause))?;
        file.lock().map_err(|cause| Error::io("lock", &lock, cause))?;
        let mut record = record;
        if let Some(there) = Self::read_record(folder)? {
            if let Some(why) = there.differs(&record) {
                let message = format!(
                    "{}: {why}; choose another store, or go back to what it was made with",
                    folder.display()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            // What is known of sets and models that this run leaves out stays known.
            for (name, set) in there.sets {
                record.sets.entry(name).or_insert(set);
            }
            for (name, model) in there.models {
                record.models.entry(name).or_insert(model);
            }
        }
        write_json(&folder.join("study.json"), &record)?;
        Ok(Self { folder: folder.to_path_buf(), record })
    }

    /// Opens a store for reading.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let record = Self::read_record(folder)?.ok_or_else(|| {
            let message = format!("{}: no study here (`inhouse study run` makes one)", folder.display());
            Error::new(ErrorKind::NotFound, message)
        })?;
        Ok(Self { folder: folder.to_path_buf(), record })
    }

    fn read_record(folder: &Path) -> Result<Option<Record>> {
        let path = folder.join("study.json");
        let Some(value) = read_json::<Value>(&path)? else { return Ok(None) };
        match value.get("inhouse_study").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let message = format!("{}: version {version}, this build reads {VERSION}", path.display());
                return Err(Error::new(ErrorKind::UnsupportedVersion, message));
            }
            None => return Err(Error::data(&path, "is no study")),
        }
        serde_json::from_value(value).map(Some).map_err(|cause| Error::data(&path, cause))
    }

    /// Where recall of a problem set stands.
    pub(crate) fn recall(&self, set: &str) -> PathBuf {
        self.folder.join("recall").join(super::units::folder_name(set) + ".json")
    }

    /// Where it stands which problems of a set can be solved.
    pub(crate) fn canonical(&self, set: &str) -> PathBuf {
        self.folder.join("canonical").join(super::units::folder_name(set) + ".json")
    }

    /// Takes from other stores of the same study what this one lacks. Returns how many files came.
    ///
    /// # Errors
    /// A store that does not go with this one, or files that cannot be read or written.
    pub fn merge(into: &Path, others: &[PathBuf]) -> Result<usize> {
        let mut n_files = 0;
        for other in others {
            let other = Self::open(other)?;
            let mut record = other.record.clone();
            if let Some(ours) = Self::read_record(into)? {
                join(&mut record.config, ours.config);
            }
            let store = Self::begin(into, record)?;
            for part in ["recall", "canonical", "units", "runs"] {
                n_files += copy_missing(&other.folder.join(part), &store.folder.join(part))?;
            }
        }
        Ok(n_files)
    }
}

/// Adds the sets, models, settings and temperatures of `more` that `config` lacks, in front of its own.
fn join(config: &mut Config, more: Config) {
    fn prepend<T>(list: &mut Vec<T>, more: Vec<T>, same: impl Fn(&T, &T) -> bool) {
        let own = std::mem::replace(list, more);
        for item in own {
            if !list.iter().any(|other| same(other, &item)) {
                list.push(item);
            }
        }
    }
    prepend(&mut config.problems, more.problems, |a, b| a.name == b.name);
    prepend(&mut config.models, more.models, |a, b| a.name == b.name);
    prepend(&mut config.settings, more.settings, |a, b| a == b);
    prepend(&mut config.temperatures, more.temperatures, |a, b| a == b);
}

/// Whether a file of a store is a result, rather than work at hand.
fn is_result(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".jsonl")
}

fn copy_missing(from: &Path, to: &Path) -> Result<usize> {
    let Ok(entries) = std::fs::read_dir(from) else { return Ok(0) };
    let mut n_files = 0;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io("read", from, cause))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let target = to.join(&name);
        if path.is_dir() {
            n_files += copy_missing(&path, &target)?;
        } else if is_result(&name) && !target.exists() {
            // Samples that have been run there or here are in the results.
            let stem = name.trim_end_matches(".samples.jsonl");
            let run = |folder: &Path| stem != name && folder.join(format!("{stem}.results.jsonl")).exists();
            if run(from) || run(to) {
                continue;
            }
            std::fs::create_dir_all(to).map_err(|cause| Error::io("make", to, cause))?;
            let bytes = std::fs::read(&path).map_err(|cause| Error::io("read", &path, cause))?;
            files::write_atomic(&target, |out| out.write_all(&bytes))?;
            n_files += 1;
        }
    }
    Ok(n_files)
}

/// Reads a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io("read", path, cause)),
    };
    serde_json::from_str(&text).map(Some).map_err(|cause| Error::data(path, cause))
}

/// Writes a JSON file atomically, its folder too.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|cause| Error::io("make", folder, cause))?;
    }
    files::write_atomic(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// A unit that this process is at. Ends with it.
pub(crate) struct Claim {
    path: PathBuf,
    _file: File,
}

impl Claim {
    /// `None` where another process is at it.
    pub fn take(path: PathBuf) -> Result<Option<Self>> {
        let io = |cause| Error::io("write", &path, cause);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let taken = file.try_lock().is_ok();
        Ok(taken.then_some(Self { path, _file: file }))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
