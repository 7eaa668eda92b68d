//! `inhouse generate`: problems in, samples out; resumed where it was killed.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use inhouse::{
    ApiChoice, CancelToken, Chat, CompletionRequest, Engine, Error, ErrorKind, Progress, Result,
    SamplingParams, Session, StopRules,
};
use inhouse_core::files;
use inhouse_core::prompt::{self, PromptApi};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::problems::Problem;

/// Which APIs stand in front of a problem (section 4 of arXiv 2210.17236).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiSetting {
    /// No API.
    None,
    /// The golden APIs of the problem.
    Perfect,
    /// The retriever's best N.
    Top(usize),
    /// The APIs a person chose, recorded in the problem's `human` field.
    Human,
    /// The prompt exactly as the problem file has it.
    AsIs,
}

impl FromStr for ApiSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "perfect" => Ok(Self::Perfect),
            "human" => Ok(Self::Human),
            "as-is" => Ok(Self::AsIs),
            _ => text
                .strip_prefix("top:")
                .and_then(|n| n.parse().ok())
                .filter(|n| (1..=1000).contains(n))
                .map(Self::Top)
                .ok_or_else(|| "expected none, perfect, top:N (N from 1 to 1000), human or as-is".into()),
        }
    }
}

impl std::fmt::Display for ApiSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Perfect => f.write_str("perfect"),
            Self::Top(n) => write!(f, "top:{n}"),
            Self::Human => f.write_str("human"),
            Self::AsIs => f.write_str("as-is"),
        }
    }
}

/// What to sample.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Which APIs stand in the prompt.
    pub setting: ApiSetting,
    /// Samples a problem.
    pub n: usize,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// What ends a sample.
    pub stops: StopRules,
    /// Most new tokens a sample.
    pub max_tokens: usize,
    /// Seed; each problem and sample draws from a stream of its own.
    pub seed: u64,
    /// Samples decoded side by side.
    pub parallel: usize,
    /// Whether only documented names of the index's libraries may be written.
    pub constrain: bool,
    /// Whether the model is asked in a chat.
    pub chat: Chat,
}

/// What [`run`] did.
#[derive(Debug, Clone, Serialize)]
pub struct GenerateReport {
    /// Problems sampled in this run.
    pub problems: usize,
    /// Problems found done in the partial file of an earlier run.
    pub resumed: usize,
    /// Rows of the finished file.
    pub samples: usize,
    /// New tokens of this run.
    pub completion_tokens: usize,
    /// Seconds spent decoding in this run.
    pub decode_seconds: f64,
}

/// Samples every problem and writes `out`. Until all is done the rows stand in `OUT.partial`; a run that is started again
/// with the same settings goes on from there, and ends with the same file as an undisturbed one.
///
/// # Errors
/// Settings out of range, a problem without the APIs the setting needs, a cancel, a failing backend, or a file that
/// cannot be written. What was sampled stays in the partial file.
pub fn run(
    engine: &Engine,
    problems: &[Problem],
    options: &GenerateOptions,
    out: &Path,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<GenerateReport> {
    if options.n == 0 || options.parallel == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "n and the parallel count must be at least 1"));
    }
    // Every problem is prepared before the first token is drawn, so that a bad one costs nothing.
    let requests =
        problems.iter().map(|problem| prepare(engine, problem, options)).collect::<Result<Vec<_>>>()?;
    let header = Header::new(engine, problems, options);
    let mut partial = Partial::open(out, &header)?;
    let resumed = partial.done.len();
    if resumed > 0 {
        progress.note(&format!("going on after {resumed} problems in {}", partial.path.display()));
    }
    let mut session = engine.session(options.parallel.min(options.n))?;
    let mut report =
        GenerateReport { problems: 0, resumed, samples: 0, completion_tokens: 0, decode_seconds: 0.0 };
    progress.start("sampling", Some((problems.len() * options.n) as u64));
    progress.advance((resumed * options.n) as u64);
    for (problem, request) in problems.iter().zip(&requests) {
        if partial.done.contains(&problem.task_id) {
            continue;
        }
        let rows = sample(engine, &mut session, problem, request, cancel, progress, &mut report)?;
        partial.append(&rows)?;
        report.problems += 1;
    }
    report.samples = partial.publish(out, problems)?;
    progress.finish();
    Ok(report)
}

fn sample(
    engine: &Engine,
    session: &mut Session,
    problem: &Problem,
    request: &CompletionRequest,
    cancel: &CancelToken,
    progress: &dyn Progress,
    report: &mut GenerateReport,
) -> Result<Vec<serde_json::Value>> {
    let result = session
        .complete(request, cancel, &mut |event| {
            if matches!(event, inhouse::Event::Finished(_)) {
                progress.advance(1);
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| Error::new(error.kind(), format!("{}: {error}", problem.task_id)))?;
    // A cancelled generation gives back what it has; half a problem is not a result.
    cancel.check()?;
    report.completion_tokens += result.completion_tokens();
    report.decode_seconds += result.decode_seconds;
    if result.context_truncated {
        progress.note(&format!(
            "{}: the prompt is longer than the model reads; its beginning was left out",
            problem.task_id
        ));
    }
    let apis: Vec<_> = result.apis.iter().map(|api| &api.name).collect();
    result
        .completions
        .iter()
        .map(|completion| {
            let mut row = json!({
                "task_id": problem.task_id,
                "completion": completion.text,
                "sample": completion.index,
                "finish_reason": completion.finish_reason.as_str(),
                "completion_tokens": completion.completion_tokens,
                "apis": apis,
            });
            if engine.index().is_ok() {
                row["api_report"] = json!(engine.api_report(&request.context, &completion.text)?);
            }
            Ok(row)
        })
        .collect()
}

fn prepare(engine: &Engine, problem: &Problem, options: &GenerateOptions) -> Result<CompletionRequest> {
    let (block, context) = prompt::split(&problem.prompt);
    let (context, apis) = match options.setting {
        ApiSetting::AsIs => (problem.prompt.as_str(), ApiChoice::None),
        ApiSetting::None => (context, ApiChoice::None),
        ApiSetting::Top(n) => {
            engine.index()?;
            (context, ApiChoice::Top(n))
        }
        ApiSetting::Perfect | ApiSetting::Human => {
            let human = options.setting == ApiSetting::Human;
            let names = if human { &problem.human } else { &problem.gold };
            if names.is_none() && human {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "{}: no `human` field with the chosen names (a file whose prompts already hold the choices goes with --apis as-is)",
                        problem.task_id
                    ),
                ));
            }
            let Some(names) = names else {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!(
                        "{}: neither a `gold` field nor a `# [start]` block names its APIs",
                        problem.task_id
                    ),
                ));
            };
            let from_block =
                |name: &String| block.iter().find(|api| api.name == *name).map(PromptApi::to_doc);
            let apis = names
                .iter()
                .map(|name| match from_block(name) {
                    Some(api) => Ok(api),
                    None => engine.lookup(std::slice::from_ref(name)).map(|mut found| found.remove(0)),
                })
                .collect::<Result<Vec<_>>>()
                .map_err(|error| Error::new(error.kind(), format!("{}: {error}", problem.task_id)))?;
            (context, ApiChoice::Given(apis))
        }
    };
    Ok(CompletionRequest {
        suffix: problem.suffix.clone(),
        chat: options.chat.clone(),
        query: problem.query.clone(),
        apis,
        n: options.n,
        params: options.params.clone(),
        seed: problem_seed(options.seed, &problem.task_id),
        max_tokens: options.max_tokens,
        constrain: options.constrain,
        stops: options.stops.clone(),
        ..CompletionRequest::new(context)
    })
}

/// A seed for each problem, so that a problem's samples do not depend on which others are in the file (FNV-1a, 64 bit).
fn problem_seed(seed: u64, task_id: &str) -> u64 {
    task_id.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Name, length and time of change (seconds since 1970) of a model's files, so that a model made anew is another model.
fn fingerprint(model: &Path) -> Vec<(String, u64, u64)> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(model) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => vec![model.to_path_buf()],
    };
    paths.sort();
    let describe = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok()?;
        let changed = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
        Some((path.file_name()?.to_string_lossy().into_owned(), meta.len(), changed))
    };
    paths.into_iter().filter_map(describe).collect()
}

/// First line of a partial file: two runs go on from one another only where all of this is equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Header {
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
}

impl Header {
    fn new(engine: &Engine, problems: &[Problem], options: &GenerateOptions) -> Self {
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
            chat: match &options.chat {
                Chat::Template(source) => Some(source.clone()),
                Chat::Auto => Some("auto".to_owned()),
                _ => None,
            },
        }
    }
}

/// The rows of a run that has not ended: a header line, then whole problems. A torn last line is cut off when it is opened.
struct Partial {
    path: PathBuf,
    file: File,
    done: HashSet<String>,
    /// The file itself, where samples go to standard output: nothing to go on with, so it is removed with this.
    temporary: Option<tempfile::NamedTempFile>,
}

impl Partial {
    fn open(out: &Path, header: &Header) -> Result<Self> {
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

    fn append(&mut self, rows: &[serde_json::Value]) -> Result<()> {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|cause| Error::io("write", &self.path, cause))
    }

    /// Writes the finished file in the order of the problems and removes the partial one.
    fn publish(self, out: &Path, problems: &[Problem]) -> Result<usize> {
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
