//! `inhouse generate`: problems in, samples out; resumed where it was killed.

mod partial;
mod program;

use std::ops::ControlFlow;
use std::path::Path;
use std::str::FromStr;
use std::time::Instant;

use inhouse::{
    ApiChoice, ApiDoc, CancelToken, Chat, CompletionClient, CompletionRequest, CompletionResult, Engine,
    Error, ErrorKind, Event, Progress, Result, SamplingParams, Session, StopRules,
};
use inhouse_core::prompt::{self, PromptApi};
use partial::{Header, Partial};
pub use program::{Program, run_program};
use serde::Serialize;
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

/// A setting of a study: which APIs stand in the prompt, whether they are looked for with a draft too, how many example calls stand below
/// each, and of how many candidates a sample is the best: `perfect`, `top:2+refine`, `top:2+examples`, `top:2+refine+examples:3`,
/// `perfect+best:8`. Examples without a number are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSetting {
    /// Which APIs.
    pub apis: ApiSetting,
    /// The most example calls below each.
    pub examples: usize,
    /// Candidates of which a sample is the best; 1: it is drawn.
    pub best_of: usize,
    /// Whether the retriever is asked once more with a draft ([`Engine::refined`]).
    pub refine: bool,
}

/// Most candidates of one sample.
pub const MAX_CANDIDATES: usize = 1000;

/// Nobody shows more calls of one API.
pub const MAX_EXAMPLES: usize = 100;

impl FromStr for PromptSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, best_of) = match text.rsplit_once("+best:") {
            None => (text, 1),
            Some((rest, n)) => {
                let n = n.parse().ok().filter(|n| (2..=MAX_CANDIDATES).contains(n));
                (
                    rest,
                    n.ok_or_else(|| format!("expected +best:N at the end (N from 2 to {MAX_CANDIDATES})"))?,
                )
            }
        };
        let (apis, examples) = match text.split_once("+examples") {
            None => (text, 0),
            Some((apis, "")) => (apis, 1),
            Some((apis, n)) => {
                let n = n.strip_prefix(':').and_then(|n| n.parse().ok());
                let n = n.filter(|n| (1..=MAX_EXAMPLES).contains(n));
                (
                    apis,
                    n.ok_or_else(|| {
                        format!("expected +examples or +examples:N (N from 1 to {MAX_EXAMPLES})")
                    })?,
                )
            }
        };
        let (apis, refine) = match apis.strip_suffix("+refine") {
            Some(apis) => (apis, true),
            None => (apis, false),
        };
        let apis: ApiSetting = apis.parse()?;
        if refine && !matches!(apis, ApiSetting::Top(_)) {
            return Err(format!(
                "`{apis}` asks no retriever that a draft could help; +refine goes with top:N"
            ));
        }
        if examples > 0 && matches!(apis, ApiSetting::None | ApiSetting::AsIs) {
            return Err(format!("`{apis}` puts no API into the prompt that examples could stand below"));
        }
        Ok(Self { apis, examples, best_of, refine })
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
    /// The most example calls below the line of each API; 0 is the paper's form.
    pub examples: usize,
    /// Candidates of which a sample is the best ([`Engine::rank`]), the first of all the greedy one; 1: a sample is drawn.
    pub best_of: usize,
    /// Whether a draft without APIs is sampled of each problem first, and the retriever asked with what it tries to call too.
    pub refine: bool,
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
    /// Seconds spent sampling in this run, prompts included.
    pub decode_seconds: f64,
}

/// Samples every problem and writes `out`. The samples of all problems run side by side, [`GenerateOptions::parallel`] of
/// them: where the last of one problem end, those of the next begin.
///
/// Until all is done the rows of complete problems stand in `OUT.partial`; a run that is started again with the same
/// settings goes on from there. What repeats: the same run on the same machine writes the same bytes. A run that was killed
/// keeps the rows it has, and its other samples, like those of another `parallel`, are the same draws from the same model; a
/// model's last bits depend on what stands beside a sample in a batch, so that one in some ten thousand samples may take
/// another way from a token on.
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
    if options.refine && !matches!(options.setting, ApiSetting::Top(_)) {
        let what = format!(
            "a draft helps the retriever, which `{}` does not ask; it goes with top:N",
            options.setting
        );
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    if options.n == 0 || options.parallel == 0 || options.best_of == 0 {
        let what = "n, the parallel count and the number of candidates must be at least 1";
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    // Every problem is looked at before the first token is drawn, so that a bad one costs nothing.
    problems.iter().try_for_each(|problem| prepare(engine, problem, options).map(drop))?;
    let header = Header::new(engine, problems, options);
    let mut partial = Partial::open(out, &header)?;
    let resumed = partial.done.len();
    if resumed > 0 {
        progress.note(&format!("going on after {resumed} problems in {}", partial.path.display()));
    }
    progress.start("sampling", Some((problems.len() * options.n) as u64));
    progress.advance((resumed * options.n) as u64);
    let left: Vec<&Problem> =
        problems.iter().filter(|problem| !partial.done.contains(&problem.task_id)).collect();
    let mut session = engine.session(options.parallel.min(candidates(options).saturating_mul(left.len())))?;
    let mut report =
        GenerateReport { problems: 0, resumed, samples: 0, completion_tokens: 0, decode_seconds: 0.0 };
    let start = Instant::now();
    let drafts = match options.refine {
        true => drafts(engine, &mut session, &left, options, cancel, progress)?,
        false => Vec::new(),
    };
    let mut sampling = Sampling {
        engine,
        options,
        left: &left,
        drafts,
        n_begun: 0,
        partial: &mut partial,
        report: &mut report,
        cancel,
        progress,
    };
    session.complete_all(&mut sampling, cancel)?;
    // A cancel may come before the first problem or after the last.
    cancel.check()?;
    report.decode_seconds = start.elapsed().as_secs_f64();
    report.samples = partial.publish(out, problems)?;
    progress.finish();
    Ok(report)
}

/// Hands problems to the session and takes their samples.
struct Sampling<'r> {
    engine: &'r Engine,
    options: &'r GenerateOptions,
    left: &'r [&'r Problem],
    /// Of each of those left, where they are wanted.
    drafts: Vec<String>,
    n_begun: usize,
    partial: &'r mut Partial,
    report: &'r mut GenerateReport,
    cancel: &'r CancelToken,
    progress: &'r dyn Progress,
}

impl CompletionClient for Sampling<'_> {
    fn next(&mut self) -> Result<Option<CompletionRequest>> {
        let Some(problem) = self.left.get(self.n_begun) else { return Ok(None) };
        let mut request = prepare(self.engine, problem, self.options)?;
        if let Some(draft) = self.drafts.get(self.n_begun) {
            request.apis = self.engine.refined(&request, draft)?;
        }
        self.n_begun += 1;
        Ok(Some(request))
    }

    fn event(&mut self, _request: usize, event: Event<'_>) -> ControlFlow<()> {
        // What is counted is samples, not their candidates.
        if let Event::Finished(completion) = event
            && completion.index % self.options.best_of == 0
        {
            self.progress.advance(1);
        }
        ControlFlow::Continue(())
    }

    fn done(&mut self, request: usize, outcome: Result<CompletionResult>) -> Result<()> {
        let Some(problem) = self.left.get(request) else { return Ok(()) };
        let result =
            outcome.map_err(|error| Error::new(error.kind(), format!("{}: {error}", problem.task_id)))?;
        // A cancelled generation gives back what it has; half a problem is not a result.
        self.cancel.check()?;
        self.report.completion_tokens += result.completion_tokens();
        if result.context_truncated {
            self.progress.note(&format!(
                "{}: the prompt is longer than the model reads; its beginning was left out",
                problem.task_id
            ));
        }
        let rows = rows(self.engine, self.options, problem, &result)?;
        self.partial.append(&rows)?;
        self.report.problems += 1;
        Ok(())
    }
}

/// A draft of every problem: one greedy completion without APIs.
fn drafts(
    engine: &Engine,
    session: &mut Session,
    problems: &[&Problem],
    options: &GenerateOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Vec<String>> {
    progress.note(&format!("drafts of {} problems", problems.len()));
    let texts = vec![String::new(); problems.len()];
    let mut drafting = Drafting { engine, options, problems, n_begun: 0, texts };
    session.complete_all(&mut drafting, cancel)?;
    cancel.check()?;
    Ok(drafting.texts)
}

struct Drafting<'r> {
    engine: &'r Engine,
    options: &'r GenerateOptions,
    problems: &'r [&'r Problem],
    n_begun: usize,
    texts: Vec<String>,
}

impl CompletionClient for Drafting<'_> {
    fn next(&mut self) -> Result<Option<CompletionRequest>> {
        let Some(problem) = self.problems.get(self.n_begun) else { return Ok(None) };
        self.n_begun += 1;
        Ok(Some(prepare(self.engine, problem, self.options)?.draft()))
    }

    fn event(&mut self, _request: usize, _event: Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn done(&mut self, request: usize, outcome: Result<CompletionResult>) -> Result<()> {
        let named = |error: Error| Error::new(error.kind(), format!("a draft of problem {request}: {error}"));
        let completion = outcome.map_err(named)?.completions.into_iter().next();
        if let (Some(text), Some(completion)) = (self.texts.get_mut(request), completion) {
            *text = completion.text;
        }
        Ok(())
    }
}

fn rows(
    engine: &Engine,
    options: &GenerateOptions,
    problem: &Problem,
    result: &CompletionResult,
) -> Result<Vec<serde_json::Value>> {
    let apis = names_in_prompt(problem, options.setting, &result.apis);
    let context = context(problem, options.setting);
    result
        .completions
        .chunks(options.best_of)
        .enumerate()
        .map(|(sample, candidates)| {
            let best = match candidates {
                [drawn] => (drawn.clone(), None),
                _ => engine
                    .rank(context, candidates.to_vec())?
                    .into_iter()
                    .next()
                    .map(|best| (best.completion, Some(best.score)))
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a sample without candidates"))?,
            };
            let (completion, score) = best;
            let mut row = json!({
                "task_id": problem.task_id,
                "completion": completion.text,
                "sample": sample,
                "finish_reason": completion.finish_reason.as_str(),
                "completion_tokens": completion.completion_tokens,
                "apis": apis,
            });
            if let Some(score) = score {
                row["candidates"] = json!(candidates.len());
                row["candidate"] = json!(completion.index % options.best_of);
                row["score"] = json!(score);
            }
            with_report(engine, context, &completion.text, row)
        })
        .collect()
}

/// Texts that are drawn for a problem.
fn candidates(options: &GenerateOptions) -> usize {
    options.n.saturating_mul(options.best_of)
}

/// The APIs that a sample's prompt shows: those that were put there, or those of the file's own block.
fn names_in_prompt(problem: &Problem, setting: ApiSetting, apis: &[ApiDoc]) -> Vec<String> {
    match setting {
        ApiSetting::AsIs => prompt::split(&problem.prompt).0.into_iter().map(|api| api.name).collect(),
        _ => apis.iter().map(|api| api.name.clone()).collect(),
    }
}

/// A sample's row, with what its completion does with the APIs of the index where there is one.
fn with_report(
    engine: &Engine,
    context: &str,
    completion: &str,
    mut row: serde_json::Value,
) -> Result<serde_json::Value> {
    if engine.index().is_ok() {
        row["api_report"] = json!(engine.api_report(context, completion)?);
    }
    Ok(row)
}

/// The code that a sample continues, the APIs left out.
fn context(problem: &Problem, setting: ApiSetting) -> &str {
    match setting {
        ApiSetting::AsIs => &problem.prompt,
        _ => prompt::split(&problem.prompt).1,
    }
}

fn prepare(engine: &Engine, problem: &Problem, options: &GenerateOptions) -> Result<CompletionRequest> {
    let apis = match options.setting {
        ApiSetting::AsIs | ApiSetting::None => ApiChoice::None,
        ApiSetting::Top(n) => {
            engine.index()?;
            ApiChoice::Top(n)
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
            let (block, _) = prompt::split(&problem.prompt);
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
            ApiChoice::Given(apis)
        }
    };
    Ok(CompletionRequest {
        suffix: problem.suffix.clone(),
        chat: options.chat.clone(),
        query: problem.query.clone(),
        apis,
        examples: options.examples,
        n: candidates(options),
        greedy_first: options.best_of > 1,
        log_probabilities: options.best_of > 1,
        params: options.params.clone(),
        seed: problem_seed(options.seed, &problem.task_id),
        max_tokens: options.max_tokens,
        constrain: options.constrain,
        stops: options.stops.clone(),
        ..CompletionRequest::new(context(problem, options.setting))
    })
}

/// A seed for each problem, so that a problem's samples do not depend on which others are in the file (FNV-1a, 64 bit).
fn problem_seed(seed: u64, task_id: &str) -> u64 {
    task_id.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
