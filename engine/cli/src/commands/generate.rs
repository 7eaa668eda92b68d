//! `inhouse generate`: samples for a problem set.

use std::path::PathBuf;

use anyhow::Result;
use inhouse_core::progress::Progress;
use inhouse_study::generate::{self, ApiSetting, GenerateOptions};
use inhouse_study::problems;

use super::complete::{ModelArguments, SamplingArguments};
use super::{number, on_interrupt};
use crate::term::Usage;

/// Sample completions for a set of problems
///
/// The samples of all problems run side by side: where the last of one end, those of the next begin. The rows of finished
/// problems stand in OUT.partial until all are done; the same command started again after a kill goes on from there. The
/// same command on the same machine writes the same bytes; what is drawn after a kill, or with another --parallel, may
/// rarely differ in a sample, since a model's last bits depend on what is computed beside it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse generate --problems problems.jsonl --model model.gguf --apis none -n 20 --out none.jsonl
  inhouse generate --problems problems.jsonl --model model.gguf --index mylib.index --apis top:2 --out top2.jsonl
  inhouse generate --problems problems.jsonl --model model.gguf --index mylib.index --apis perfect --examples 1 --out examples.jsonl
  inhouse generate --problems problems.jsonl --model model.gguf --index mylib.index --apis top:2 --refine --out refined.jsonl
  inhouse generate --problems problems.jsonl --model base.gguf --lora my-adapter --apis perfect --out adapted.jsonl
  inhouse generate --problems problems.jsonl --model model.gguf --index mylib.index --apis top:2 --best-of 8 --out best.jsonl
  inhouse generate --problems torchdata_api_n.jsonl.gz --model model.gguf --apis as-is --out samples.jsonl.gz")]
pub struct Arguments {
    /// Problems, one JSON object a line
    #[arg(long)]
    problems: PathBuf,

    #[command(flatten)]
    model: ModelArguments,

    /// Folder of an index, for top:N and for the lines of named APIs
    #[arg(long)]
    index: Option<PathBuf>,

    /// Which APIs stand in the prompt: none, perfect (golden), top:N (retrieved), human (recorded), as-is (the file's own)
    #[arg(long)]
    apis: ApiSetting,

    /// Example calls below the line of each API, at most so many; they come from the index, and give way where the prompt is long
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = number::examples)]
    examples: usize,

    /// With --apis top:N: sample a greedy draft of each problem without APIs first, and ask the retriever with what it tries to call too
    #[arg(long)]
    refine: bool,

    /// Samples a problem [default: 200; with --best-of 1]
    #[arg(short, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    n: Option<u32>,

    /// Keep the best of N candidates as a sample: by their mean log-probability, and by whether they are Python and call what the
    /// index has as it can be called. The very first candidate is the greedy one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    best_of: Option<u16>,

    #[command(flatten)]
    sampling: SamplingArguments,

    /// Samples decoded side by side, of whichever problems
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,

    /// Where to write the samples; a name ending in .gz is compressed
    #[arg(long)]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    if matches!(arguments.apis, ApiSetting::Top(_)) && arguments.index.is_none() {
        return Err(Usage("--apis top:N needs --index DIR").into());
    }
    if arguments.refine && !matches!(arguments.apis, ApiSetting::Top(_)) {
        return Err(Usage("--refine goes with --apis top:N: a draft helps the retriever").into());
    }
    if arguments.sampling.constrain && arguments.index.is_none() {
        return Err(Usage("--constrain needs --index DIR").into());
    }
    if arguments.examples > 0 {
        if matches!(arguments.apis, ApiSetting::None | ApiSetting::AsIs) {
            return Err(Usage(
                "--examples goes with --apis perfect, top:N or human: examples stand below an API",
            )
            .into());
        }
        if arguments.index.is_none() {
            return Err(Usage("--examples needs --index DIR: that is where examples are kept").into());
        }
    }
    arguments.sampling.check_candidates(arguments.best_of)?;
    let chat = arguments.model.chat()?;
    if arguments.sampling.constrain && chat != inhouse::Chat::None {
        return Err(Usage("--constrain goes with --chat none: a reply is not all code").into());
    }
    let problems = problems::read(&arguments.problems)?;
    let engine = arguments.model.open(arguments.index.as_deref())?;
    let cancel = on_interrupt()?;
    let options = GenerateOptions {
        setting: arguments.apis,
        n: arguments.n.unwrap_or(if arguments.best_of.is_some() { 1 } else { 200 }) as usize,
        best_of: arguments.best_of.map_or(1, usize::from),
        params: arguments.sampling.params(),
        stops: arguments.sampling.stops(),
        max_tokens: arguments.sampling.max_tokens as usize,
        seed: arguments.sampling.seed,
        parallel: arguments.parallel as usize,
        constrain: arguments.sampling.constrain,
        chat,
        examples: arguments.examples,
        refine: arguments.refine,
    };
    let report = generate::run(&engine, &problems, &options, &arguments.out, &cancel, progress)?;
    progress.finish();
    let rate = if report.decode_seconds > 0.0 {
        report.completion_tokens as f64 / report.decode_seconds
    } else {
        0.0
    };
    eprintln!(
        "{} samples of {} problems ({rate:.0} tokens/s) -> {}",
        report.samples,
        problems.len(),
        arguments.out.display()
    );
    Ok(())
}
