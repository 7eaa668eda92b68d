//! `inhouse complete`: one context, one completion.

use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use inhouse::{
    ApiChoice, Chat, CompletionRequest, EncoderChoice, Engine, EngineOptions, Event, Hit, LoraChoice,
    SamplingParams, StopRules, WorkerProgram,
};
use inhouse_core::files;
use serde_json::json;

use super::cursor::Cursor;
use super::on_interrupt;
use super::retrieve::listing;
use super::{encoder, number};
use crate::term::{self, Usage};

/// Candidates that are decoded side by side.
const SIDE_BY_SIDE: usize = 16;

/// Tokens of the prompts in a `--prefix-cache` file.
const PREFIX_TOKENS: usize = 4096;

/// Complete code with the APIs of a library in front of it
///
/// Reads the code before the cursor from FILE (or stdin) and writes the completion to stdout. The APIs that stand in
/// the prompt are named on stderr.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse complete --index mylib.index --model model.gguf --apis top:2 draft.py
  inhouse complete --index mylib.index --model model.gguf --apis ask draft.py
  inhouse complete --index mylib.index --model model.gguf --apis top:2 --examples 1 draft.py
  inhouse complete --index mylib.index --model model.gguf --apis top:2 --refine draft.py
  inhouse complete --index mylib.index --model model.gguf --constrain --json draft.py
  inhouse complete --index mylib.index --model model.gguf --apis top:2 --best-of 8 draft.py
  inhouse complete --index mylib.index --model base.gguf --lora my-adapter --lora style.gguf:0.5 --apis top:2 draft.py
  inhouse complete --model code.gguf --cursor 12:9 draft.py               (fill in at line 12, column 9)
  inhouse complete --model code.gguf --cursor '<FILL>' draft.py           (fill in where <FILL> stands)
  inhouse complete --index mylib.index --model instruct.gguf --chat auto --max-tokens 300 --apis top:2 draft.py
  echo '# two days of ledgers' | inhouse complete --model model.gguf --temperature 0 -")]
pub struct Arguments {
    /// Folder of the index
    #[arg(long)]
    index: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArguments,

    /// Which APIs stand in the prompt: none, top:N, NAME,NAME,... or ask
    #[arg(long, default_value = "none")]
    apis: Apis,

    /// Example calls below the line of each API in the prompt, at most so many; they give way where the prompt is long
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = number::examples)]
    examples: usize,

    /// With --apis top:N: write a greedy draft without APIs first, and ask the retriever with what it tries to call too
    #[arg(long)]
    refine: bool,

    #[command(flatten)]
    sampling: SamplingArguments,

    /// Draw N candidates, the first of them the greedy one, and print the best: by their mean log-probability, and by whether they are
    /// Python and call what the index has as it can be called. With --json: all of them, the best first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    best_of: Option<u16>,

    /// Keep what the model made of the prompt in FILE, and go on from it where the next prompt begins alike. A file of
    /// another model, or a damaged one, is an error
    #[arg(long, value_name = "FILE")]
    prefix_cache: Option<PathBuf>,

    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,

    /// With --json: the logarithm of each token's probability, before temperature and the like
    #[arg(long, requires = "json")]
    logprobs: bool,

    /// Stop after this many milliseconds with what is there
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,

    /// Where the cursor stands in FILE: LINE:COLUMN (from 1, in characters), or a marker, a text that stands in it once.
    /// What comes after it goes to the model too: the completion fills in the middle
    #[arg(long, value_name = "LINE:COLUMN|MARKER", conflicts_with = "suffix_file")]
    cursor: Option<Cursor>,

    /// The code after the cursor, when FILE is the code before it
    #[arg(long, value_name = "FILE")]
    suffix_file: Option<PathBuf>,

    /// Code before the cursor (with --cursor: around it); `-` is stdin
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Flags that name a model.
#[derive(clap::Args)]
pub struct ModelArguments {
    /// GGUF file, or Hugging Face folder where this build has candle [default: the small model that comes with the engine, or
    /// what INHOUSE_CODER names]
    #[arg(long)]
    pub model: Option<PathBuf>,

    /// A low-rank adapter of the model (LoRA), PEFT folder or GGUF adapter, with what its effect is multiplied by; may be given
    /// again: effects add up
    #[arg(long, value_name = "ADAPTER[:SCALE]")]
    lora: Vec<LoraChoice>,

    /// Threads; default: chosen by the size of the model and the cores
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Layers on the GPU
    #[arg(long, default_value_t = 0)]
    pub gpu_layers: u32,

    /// Run the model in a process of its own: what ends that (a failed assertion, want of memory) is an error here, not the
    /// end of this program. The process is `inhouse-worker`, beside this program or as INHOUSE_WORKER names it
    #[arg(long)]
    pub worker: bool,

    /// Ask an instruction model in a chat and take the code of its reply: by its own template where it has one (auto), or by
    /// the Jinja template in FILE. The code as it stands goes to the model with none
    #[arg(long, default_value = "none", value_name = "none|auto|FILE")]
    chat: String,

    /// Text encoder to search the index with: `none`, or its folder or file [default: the one that the index names]
    #[arg(long, value_name = "PATH|none", value_parser = encoder::parse)]
    encoder: Option<EncoderChoice>,
}

impl ModelArguments {
    /// The engine with this model and, where one is given, an index.
    pub fn open(&self, index: Option<&Path>) -> inhouse::Result<Engine> {
        self.open_with(index, 0)
    }

    fn path(&self) -> inhouse::Result<PathBuf> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        inhouse::shipped_coder()?.ok_or_else(|| {
            let missing =
                "no model is named and none is installed: give one with --model, or set INHOUSE_CODER";
            inhouse::Error::new(inhouse::ErrorKind::NotFound, missing)
        })
    }

    /// How the model is asked.
    pub fn chat(&self) -> inhouse::Result<Chat> {
        match self.chat.as_str() {
            "none" => Ok(Chat::None),
            "auto" => Ok(Chat::Auto),
            file => files::read_text(Path::new(file)).map(Chat::Template),
        }
    }

    /// The same, with sessions that keep prompts of so many tokens.
    fn open_with(&self, index: Option<&Path>, prefix_tokens: usize) -> inhouse::Result<Engine> {
        Engine::open(&EngineOptions {
            prefix_tokens,
            index: index.map(Path::to_path_buf),
            encoder: self.encoder.clone().unwrap_or_default(),
            model: Some(self.path()?),
            gpu_layers: self.gpu_layers,
            adapters: self.lora.clone(),
            worker: self.worker.then(WorkerProgram::default),
            threads: self.threads.map(usize::from),
            ..EngineOptions::default()
        })
    }
}

/// Flags that say how tokens are drawn.
#[derive(clap::Args)]
pub struct SamplingArguments {
    /// Divides the logits; 0 takes the most probable token
    #[arg(long, default_value_t = 0.8, value_parser = number::temperature, allow_negative_numbers = true)]
    pub temperature: f32,

    /// Nucleus sampling
    #[arg(long, default_value_t = 0.9, value_parser = number::top_p, allow_negative_numbers = true)]
    pub top_p: f32,

    /// Only the K most probable tokens; 0: no such limit
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: u32,

    /// Only tokens at least P times as probable as the most probable one; 0: no such limit
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = number::min_p, allow_negative_numbers = true)]
    pub min_p: f32,

    /// Divides the logits of tokens that are in the text already; 1: none
    #[arg(long, default_value_t = 1.0, value_name = "R", value_parser = number::positive, allow_negative_numbers = true)]
    pub repetition_penalty: f32,

    /// End a completion at this text, which may hold \n, \t and \\; may be given again. Default: the paper's six, but none
    /// between --cursor and what follows; `none` alone: only the end of text and --max-tokens
    #[arg(long, value_name = "TEXT", value_parser = number::stop)]
    pub stop: Vec<String>,

    /// Most new tokens a completion
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,

    /// The same seed, model and input give the same output
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Where the code refers to the library of the index, let only names follow that its documentation has
    #[arg(long)]
    pub constrain: bool,
}

impl SamplingArguments {
    pub fn params(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k as usize,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
        }
    }

    /// Candidates that are all the same are no choice.
    pub fn check_candidates(&self, best_of: Option<u16>) -> Result<()> {
        if best_of.is_some() && self.temperature == 0.0 {
            return Err(Usage("--best-of draws candidates: give a --temperature above 0").into());
        }
        Ok(())
    }

    pub fn stops(&self) -> StopRules {
        match self.stop.as_slice() {
            [] => StopRules::paper(),
            [none] if none == "none" => StopRules::none(),
            stops => StopRules::new(stops.iter().cloned()),
        }
    }
}

/// The value of `--apis`.
#[derive(Debug, Clone, PartialEq)]
enum Apis {
    None,
    Top(usize),
    Ask,
    Named(Vec<String>),
}

impl FromStr for Apis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "ask" => Ok(Self::Ask),
            _ => match text.strip_prefix("top:") {
                Some(n) => parse_top(n).map(Self::Top),
                None if text.split(',').all(|name| !name.trim().is_empty()) => {
                    Ok(Self::Named(text.split(',').map(|name| name.trim().to_owned()).collect()))
                }
                None => Err("expected none, top:N, NAME,NAME,... or ask".into()),
            },
        }
    }
}

/// `N` of `top:N`.
pub fn parse_top(n: &str) -> Result<usize, String> {
    n.parse()
        .ok()
        .filter(|n| (1..=1000).contains(n))
        .ok_or_else(|| format!("top:{n}: N is a number from 1 to 1000"))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.index.is_none() && arguments.apis != Apis::None {
        return Err(Usage("--apis needs --index DIR").into());
    }
    if arguments.examples > 0 && arguments.apis == Apis::None {
        return Err(Usage("--examples needs --apis: examples stand below an API").into());
    }
    if arguments.refine && !matches!(arguments.apis, Apis::Top(_)) {
        return Err(Usage("--refine goes with --apis top:N: a draft helps the retriever").into());
    }
    if arguments.index.is_none() && arguments.sampling.constrain {
        return Err(Usage("--constrain needs --index DIR").into());
    }
    if arguments.sampling.constrain && arguments.model.chat != "none" {
        return Err(Usage("--constrain goes with --chat none: a reply is not all code").into());
    }
    arguments.sampling.check_candidates(arguments.best_of)?;
    let code = files::read_text(&arguments.file)?;
    let (context, suffix) = match (&arguments.cursor, &arguments.suffix_file) {
        (Some(cursor), _) => cursor.split(&code, &arguments.file)?,
        (None, Some(file)) => (code, Some(files::read_text(file)?)),
        (None, None) => (code, None),
    };
    // A middle may hold lines that begin like the paper's stops: the model ends it.
    let stops = match suffix {
        Some(_) if arguments.sampling.stop.is_empty() => StopRules::none(),
        _ => arguments.sampling.stops(),
    };
    let prefix_tokens = if arguments.prefix_cache.is_some() { PREFIX_TOKENS } else { 0 };
    let engine = arguments.model.open_with(arguments.index.as_deref(), prefix_tokens)?;
    let apis = match &arguments.apis {
        Apis::None => ApiChoice::None,
        Apis::Top(n) => ApiChoice::Top(*n),
        Apis::Named(names) => ApiChoice::Named(names.clone()),
        Apis::Ask => ask(&engine, &context)?,
    };
    let mut request = CompletionRequest {
        apis,
        examples: arguments.examples,
        suffix,
        chat: arguments.model.chat()?,
        params: arguments.sampling.params(),
        seed: arguments.sampling.seed,
        max_tokens: arguments.sampling.max_tokens as usize,
        constrain: arguments.sampling.constrain,
        stops,
        n: arguments.best_of.map_or(1, usize::from),
        greedy_first: arguments.best_of.is_some(),
        log_probabilities: arguments.logprobs || arguments.best_of.is_some(),
        ..CompletionRequest::new(context)
    };
    let mut cancel = on_interrupt()?;
    if let Some(deadline) =
        arguments.deadline_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)))
    {
        cancel = cancel.with_deadline(deadline);
    }

    let mut out = std::io::stdout().lock();
    let mut write_error = None;
    let mut session = engine.session(request.n.min(SIDE_BY_SIDE))?;
    if let Some(file) = arguments.prefix_cache.as_deref().filter(|file| file.exists()) {
        session.load_prefixes(file)?;
    }
    if arguments.refine {
        let draft = session.complete(&request.draft(), &cancel, &mut |_| ControlFlow::Continue(()))?;
        let draft = draft.completions.first().map_or("", |completion| completion.text.as_str());
        request.apis = engine.refined(&request, draft)?;
    }
    let result = session.complete(&request, &cancel, &mut |event| {
        if let Event::Text { text, .. } = event
            && !arguments.json
            && arguments.best_of.is_none()
            && let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        {
            write_error = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = write_error {
        return Err(error.into());
    }
    if let Some(file) = &arguments.prefix_cache {
        session.save_prefixes(file)?;
    }
    let ranked = match arguments.best_of {
        Some(_) => engine.rank(&request.context, result.completions.clone())?,
        None => Vec::new(),
    };
    let best = ranked.first().map(|best| &best.completion).or(result.completions.first());
    let Some(completion) = best else {
        bail!("the model gave no completion");
    };
    if arguments.json {
        drop(out);
        let report = match arguments.index {
            Some(_) => Some(engine.api_report(&request.context, &completion.text)?),
            None => None,
        };
        let mut object = json!({
            "completion": completion.text,
            "apis": result.apis.iter().map(|api| &api.name).collect::<Vec<_>>(),
            "examples": result.examples,
            "finish_reason": completion.finish_reason.as_str(),
            "prompt_tokens": result.prompt_tokens,
            "prompt_tokens_shared": result.prompt_tokens_shared,
            "completion_tokens": completion.completion_tokens,
            "tokens_per_second": result.tokens_per_second(),
            "context_truncated": result.context_truncated,
            "format": result.format,
            "constraint": result.constraint,
            "api_report": report,
        });
        if let Some(values) = completion.log_probabilities.as_ref().filter(|_| arguments.logprobs) {
            object["logprobs"] = json!(values);
        }
        if !ranked.is_empty() {
            let listed = |candidate: &inhouse::Ranked| {
                json!({
                    "completion": candidate.completion.text,
                    "candidate": candidate.completion.index,
                    "score": candidate.score,
                    "mean_log_probability": candidate.mean_log_probability,
                    "api_report": candidate.report,
                })
            };
            object["candidates"] = ranked.iter().map(listed).collect();
        }
        return term::json(&object);
    }
    if !ranked.is_empty() {
        out.write_all(completion.text.as_bytes())?;
    }
    writeln!(out)?;
    if result.context_truncated {
        eprintln!(
            "inhouse: the code is longer than the model reads; what is farthest from the cursor was left out"
        );
    }
    for api in &result.apis {
        eprintln!("# {}", api.prompt_line());
    }
    Ok(())
}

/// Figure 4 of the paper: the five best APIs, a person chooses. Asks on the terminal, since stdin may be the context.
fn ask(engine: &Engine, context: &str) -> Result<ApiChoice> {
    let hits = engine.propose(context, None, 5)?;
    if hits.is_empty() {
        eprintln!("no API fits; going on without");
        return Ok(ApiChoice::None);
    }
    let open =
        |write: bool| {
            std::fs::OpenOptions::new().read(!write).write(write).open(Path::new("/dev/tty")).context(
                "--apis ask needs a terminal; name the APIs instead: --apis NAME,NAME or --apis top:N",
            )
        };
    let (terminal, mut screen) = (open(false)?, open(true)?);
    let mut answers = std::io::BufReader::new(terminal);
    match pick(&hits, &mut answers, &mut screen)? {
        Some(picked) if picked.is_empty() => Ok(ApiChoice::None),
        Some(picked) => Ok(ApiChoice::Given(picked.into_iter().map(|hit| hit.api.clone()).collect())),
        None => bail!("no answer"),
    }
}

/// Lists `hits` and asks until the answer is one; `None` where the answers end.
pub fn pick<'h>(
    hits: &'h [Hit],
    answers: &mut dyn BufRead,
    screen: &mut dyn Write,
) -> Result<Option<Vec<&'h Hit>>> {
    for hit in hits {
        writeln!(screen, "{}", listing(hit))?;
    }
    loop {
        write!(screen, "Which of these? Numbers with spaces between, 0 or Enter for none: ")?;
        screen.flush()?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 {
            return Ok(None);
        }
        let numbers: Option<Vec<usize>> = answer
            .split([' ', ',', '\n', '\r'])
            .filter(|word| !word.is_empty())
            .map(|word| word.parse().ok())
            .collect();
        match numbers.as_deref() {
            Some([] | [0]) => return Ok(Some(Vec::new())),
            Some(numbers) if numbers.iter().all(|n| (1..=hits.len()).contains(n)) => {
                return Ok(Some(numbers.iter().map(|n| &hits[n - 1]).collect()));
            }
            _ => writeln!(screen, "numbers from 1 to {}, please", hits.len())?,
        }
    }
}
