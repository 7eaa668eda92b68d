//! Samples from a program of the user's: a model behind an endpoint, or anything else that completes text.
//!
//! The engine opens no connection of its own, so a model elsewhere is asked by a program that the user names. It reads one
//! JSON object a line from its standard input and answers each with one on its standard output, in any order:
//!
//! ```text
//! {"id": "T/0", "prompt": "...", "n": 20, "temperature": 0.8, "top_p": 0.9, "max_tokens": 100, "stop": ["\nclass"], "seed": 7}
//! {"id": "T/0", "completions": ["...", "..."]}        or        {"id": "T/0", "error": "why not"}
//! ```
//!
//! What it writes to standard error goes to ours. `examples/openai_completions.py` is such a program.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use inhouse::{ApiChoice, ApiDoc, CancelToken, Engine, Error, ErrorKind, Progress, Result};
use inhouse_core::files;
use inhouse_core::prompt::{self, Block, Draft};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{GenerateOptions, context, names_in_prompt, prepare, with_report};
use crate::problems::Problem;

/// An answer is not longer: a thousand completions of 16 KiB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// How long a program goes on after a cancel.
const CANCEL_EVERY: Duration = Duration::from_millis(50);

/// A program that completes prompts, and its arguments; found on the PATH where it is a bare name. No shell reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Program(pub Vec<String>);

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[derive(Serialize)]
struct Question<'q> {
    id: &'q str,
    prompt: String,
    n: usize,
    temperature: f32,
    top_p: f32,
    max_tokens: usize,
    stop: &'q [String],
    seed: u64,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    completions: Option<Vec<String>>,
    error: Option<String>,
}

/// Samples every problem by `program` and writes `out`, in the order of the problems, when all are answered. `engine` needs an
/// index where the setting does, and no model. The stop rules cut what comes back, whatever the program did with them.
///
/// # Errors
/// As [`super::run`]; a setting that needs a model's own words (a chat, a constraint) or code after the completion; a program
/// that cannot be started, refuses a problem, answers what was not asked, or ends early. Nothing is written then.
pub fn run_program(
    program: &Program,
    engine: &Engine,
    problems: &[Problem],
    options: &GenerateOptions,
    out: &Path,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<usize> {
    let asked = problems.iter().map(|problem| ask(engine, problem, options)).collect::<Result<Vec<_>>>()?;
    let mut lines = String::new();
    for (problem, (_, prompt, seed)) in problems.iter().zip(&asked) {
        let question = Question {
            id: &problem.task_id,
            prompt: prompt.clone(),
            n: options.n,
            temperature: options.params.temperature,
            top_p: options.params.top_p,
            max_tokens: options.max_tokens,
            stop: options.stops.strings(),
            seed: *seed,
        };
        lines.push_str(&serde_json::to_string(&question).map_err(internal)?);
        lines.push('\n');
    }
    progress.start("sampling", Some((problems.len() * options.n) as u64));
    let answers = converse(program, lines, problems, options.n, cancel, progress)?;
    progress.finish();
    let mut rows: Vec<Value> = Vec::new();
    for (problem, (apis, ..)) in problems.iter().zip(&asked) {
        let names = names_in_prompt(problem, options.setting, apis);
        let texts = answers.get(problem.task_id.as_str()).map(Vec::as_slice).unwrap_or_default();
        for (i, text) in texts.iter().enumerate() {
            let completion = options.stops.cut(text);
            let row = json!({
                "task_id": problem.task_id,
                "completion": completion,
                "sample": i,
                "finish_reason": "program",
                "apis": names,
            });
            rows.push(with_report(engine, context(problem, options.setting), completion, row)?);
        }
    }
    files::write_json_lines(out, rows.iter())?;
    Ok(rows.len())
}

fn ask(engine: &Engine, problem: &Problem, options: &GenerateOptions) -> Result<(Vec<ApiDoc>, String, u64)> {
    let refuse = |what: &str| {
        Err(Error::new(ErrorKind::Unsupported, format!("{}: {what} by a program", problem.task_id)))
    };
    if problem.suffix.is_some() {
        return refuse("the middle of code cannot be filled in");
    }
    if options.constrain {
        return refuse("names cannot be constrained");
    }
    if options.refine {
        return refuse("no draft can be asked for");
    }
    if options.best_of > 1 {
        return refuse("candidates cannot be ranked without log-probabilities, which are not given");
    }
    let request = prepare(engine, problem, options)?;
    let mut apis = match request.apis {
        ApiChoice::Given(apis) => apis,
        ApiChoice::Top(n) => {
            let hits = engine.propose(&request.context, request.query.as_deref(), n)?;
            hits.into_iter().map(|hit| hit.api).collect()
        }
        _ => Vec::new(),
    };
    if request.examples > 0 {
        engine.add_examples(&mut apis)?;
    }
    let draft = Draft::from(request.context.as_str());
    let block = Block { apis: &apis, examples: options.examples };
    let prompt = prompt::assemble(block, draft, None, &|_, _| Ok(0))?;
    Ok((apis, prompt.text, request.seed))
}

/// Ends the program when its conversation is over, whatever the reason.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn converse(
    program: &Program,
    questions: String,
    problems: &[Problem],
    n: usize,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<HashMap<String, Vec<String>>> {
    let failed = |what: String| Error::new(ErrorKind::Backend, format!("the program `{program}` {what}"));
    let (name, arguments) = program
        .0
        .split_first()
        .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no program is named"))?;
    let started = Command::new(name).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = Ended(started.map_err(|cause| failed(format!("cannot be started: {cause}")))?);
    let (Some(mut input), Some(output)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Err(failed("has no standard input or output".into()));
    };
    // Two threads, so that neither side waits for the other with a full pipe. Both end with the program.
    std::thread::spawn(move || input.write_all(questions.as_bytes()).ok());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            let read = output.by_ref().take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) || sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut answers: HashMap<String, Vec<String>> = HashMap::new();
    while answers.len() < problems.len() {
        cancel.check()?;
        progress.check()?;
        let line = match lines.recv_timeout(CANCEL_EVERY) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.0.wait().map(|status| status.to_string()).unwrap_or_default();
                let what = format!("ended ({status}) after {} of {} answers", answers.len(), problems.len());
                return Err(failed(what));
            }
        };
        let answer: Answer = serde_json::from_slice(&line).map_err(|cause| {
            let start: String = String::from_utf8_lossy(&line).chars().take(80).collect();
            failed(format!("wrote `{}`, which is no answer: {cause}", start.trim_end()))
        })?;
        let id = answer.id;
        if let Some(error) = answer.error {
            return Err(failed(format!("refused {id}: {error}")));
        }
        if !problems.iter().any(|problem| problem.task_id == id) {
            return Err(failed(format!("answered `{id}`, which was not asked")));
        }
        let completions = answer.completions.unwrap_or_default();
        if completions.len() != n {
            return Err(failed(format!(
                "gave {} completions for {id}, {n} were asked for",
                completions.len()
            )));
        }
        if answers.insert(id.clone(), completions).is_some() {
            return Err(failed(format!("answered {id} twice")));
        }
        progress.advance(n as u64);
    }
    Ok(answers)
}

fn internal(cause: serde_json::Error) -> Error {
    Error::with_source(ErrorKind::Internal, "cannot write a question", cause)
}
