//! The rows of a run that has not ended, and what they were drawn with.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use inhouse::{Chat, Engine, Error, ErrorKind, Result};
use inhouse_core::files;
use serde::{Deserialize, Serialize};

use super::{GenerateOptions, problem_seed};
use crate::problems::Problem;

/// Name, length and time of change (seconds since 1970) of a model's files, so that a model made anew is another model.
fn fingerprint(model: &Path) -> Vec<(String, u64, u64)> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(model) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![model.to_path_buf()],
    };
    paths.sort();
    paths.into_iter().filter_map(describe).collect()
}

fn describe(path: PathBuf) -> Option<(String, u64, u64)> {
    let meta = std::fs::metadata(&path).ok()?;
    let changed = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some((path.file_name()?.to_string_lossy().into_owned(), meta.len(), changed))
}

/// First line of a partial file: two runs go on from one another only where all of this is equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    inhouse_partial_samples: u32,
    model: serde_json::Value,
    model_files: Vec<(String, u64, u64)>,
    problems: u64,
    setting: String,
    index: Option<serde_json::Value>,
    n: usize,
    temperature: f32,
    top_p: f32,
    top_k: usize,
    min_p: f32,
    repetition_penalty: f32,
    stops: Vec<String>,
    max_tokens: usize,
    seed: u64,
    #[serde(default)]
    constrain: bool,
    #[serde(default)]
    chat: Option<String>,
    #[serde(default)]
    examples: usize,
    /// 0 in the files of versions that knew no candidates.
    #[serde(default)]
    best_of: usize,
    #[serde(default)]
    refine: bool,
    /// Files and scale of each adapter.
    #[serde(default)]
    adapters: Vec<(Vec<(String, u64, u64)>, f32)>,
}

impl Header {
    pub(super) fn new(engine: &Engine, problems: &[Problem], options: &GenerateOptions) -> Self {
        let text: String = problems
            .iter()
            .flat_map(|problem| {
                let suffix = problem.suffix.as_deref().map_or(["", ""], |suffix| ["\0\0", suffix]);
                [problem.task_id.as_str(), "\0", &problem.prompt, "\0", suffix[0], suffix[1]]
            })
            .collect();
        Self {
            inhouse_partial_samples: 2,
            model: serde_json::to_value(engine.model_info()).unwrap_or_default(),
            model_files: engine.model_path().map(fingerprint).unwrap_or_default(),
            problems: problem_seed(0, &text),
            setting: options.setting.to_string(),
            index: engine.index().ok().and_then(|index| {
                let mut info = serde_json::to_value(index.info()).ok()?;
                // The same records built anew or found by another path are the same index.
                for key in ["path", "generation", "segments", "deleted", "bytes"] {
                    info.as_object_mut()?.remove(key);
                }
                Some(info)
            }),
            n: options.n,
            temperature: options.params.temperature,
            top_p: options.params.top_p,
            top_k: options.params.top_k,
            min_p: options.params.min_p,
            repetition_penalty: options.params.repetition_penalty,
            stops: options.stops.strings().to_vec(),
            max_tokens: options.max_tokens,
            seed: options.seed,
            constrain: options.constrain,
            examples: options.examples,
            best_of: options.best_of,
            refine: options.refine,
            chat: match &options.chat {
                Chat::Template(source) => Some(source.clone()),
                Chat::Auto => Some("auto".to_owned()),
                _ => None,
            },
            adapters: engine
                .adapters()
                .iter()
                .map(|adapter| (adapter.files().into_iter().filter_map(describe).collect(), adapter.scale))
                .collect(),
        }
    }
}

/// The rows of a run that has not ended: a header line, then whole problems. A torn last line is cut off when it is opened.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    file: File,
    pub(super) done: HashSet<String>,
    /// The file itself, where samples go to standard output: nothing to go on with, so it is removed with this.
    temporary: Option<tempfile::NamedTempFile>,
}

impl Partial {
    pub(super) fn open(out: &Path, header: &Header) -> Result<Self> {
        let mut temporary = None;
        let path = if out == Path::new("-") {
            let file = tempfile::NamedTempFile::new()
                .map_err(|cause| Error::io("write", &std::env::temp_dir(), cause))?;
            temporary.insert(file).path().to_path_buf()
        } else {
            let mut name = out.as_os_str().to_owned();
            name.push(".partial");
            PathBuf::from(name)
        };
        let io = |cause| Error::io("write", &path, cause);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        file.try_lock().map_err(|_| {
            Error::new(ErrorKind::Busy, format!("{}: another run is writing this file", path.display()))
        })?;
        let line = serde_json::to_string(header)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write settings: {cause}")))?;
        let (keep, done, same) = Self::scan(&mut file, &line, header.n).map_err(io)?;
        if !same && keep > 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{}: left by a run with other settings (or no file of this program); remove it, or repeat that run's flags to go on with it",
                    path.display()
                ),
            ));
        }
        file.set_len(keep).and_then(|()| file.seek(std::io::SeekFrom::End(0))).map_err(io)?;
        if keep == 0 {
            file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data()).map_err(io)?;
        }
        Ok(Self { path, file, done, temporary })
    }

    /// How many bytes to keep, which problems are whole, and whether the header is ours.
    fn scan(file: &mut File, header: &str, n: usize) -> std::io::Result<(u64, HashSet<String>, bool)> {
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        let mut position = reader.read_line(&mut line)? as u64;
        // A header that was cut short while it was written is begun anew; any other text is somebody's file.
        if header.starts_with(&line) {
            return Ok((0, HashSet::new(), true));
        }
        if line.trim_end() != header {
            // Nothing is lost with a run of other settings that finished nothing.
            let ours = serde_json::from_str::<serde_json::Value>(&line)
                .is_ok_and(|header| header.get("inhouse_partial_samples").is_some());
            if ours && reader.read_line(&mut line)? == 0 {
                return Ok((0, HashSet::new(), true));
            }
            return Ok((position, HashSet::new(), false));
        }
        let (mut keep, mut done, mut rows) = (position, HashSet::new(), 0usize);
        loop {
            line.clear();
            let read = reader.read_line(&mut line)?;
            let Ok(sample) = serde_json::from_str::<crate::samples::Sample>(&line) else { break };
            if !line.ends_with('\n') {
                break;
            }
            position += read as u64;
            rows += 1;
            if rows == n {
                done.insert(sample.task_id);
                keep = position;
                rows = 0;
            }
        }
        Ok((keep, done, true))
    }

    pub(super) fn append(&mut self, rows: &[serde_json::Value]) -> Result<()> {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Writes the finished file in the order of the problems and removes the partial one.
    pub(super) fn publish(self, out: &Path, problems: &[Problem]) -> Result<usize> {
        let order: std::collections::HashMap<_, _> =
            problems.iter().enumerate().map(|(i, problem)| (problem.task_id.as_str(), i)).collect();
        let mut lines: Vec<(usize, String)> = Vec::new();
        let text = files::read_text(&self.path)?;
        for (number, line) in text.lines().enumerate().skip(1) {
            let sample: crate::samples::Sample = serde_json::from_str(line)
                .map_err(|cause| Error::data_at(&self.path, number + 1, format!("bad row: {cause}")))?;
            let Some(at) = order.get(sample.task_id.as_str()) else { continue };
            lines.push((*at, line.to_owned()));
        }
        lines.sort_by_key(|(at, _)| *at);
        files::write_atomic(out, |file| lines.iter().try_for_each(|(_, line)| writeln!(file, "{line}")))?;
        if self.temporary.is_none() {
            std::fs::remove_file(&self.path).map_err(|cause| Error::io("remove", &self.path, cause))?;
        }
        Ok(lines.len())
    }
}
