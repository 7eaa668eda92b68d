//! `inhouse train`: trains the retriever's encoder, the ranker's weights and the language model, and makes the corpus of the latter.

use std::path::{Path, PathBuf};

use anyhow::Result;
use inhouse_core::progress::Progress;
use inhouse_train::coder;
use inhouse_train::corpus::{self, coder::DataConfig};
use inhouse_train::ranker;
use inhouse_train::retriever::{self, Config, Report};

/// Train the models of this engine on public packages
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Train the encoder that finds APIs: packages are fetched, read (never run) and made into pairs of queries and APIs
    #[command(
        long_about = "Train the encoder that finds APIs.\n\nThe pinned packages of the configuration are fetched by pip (wheels only), \
            read and never run, and made into pairs of queries and APIs. Every step of that is kept in the cache, and the \
            training in checkpoints: what was killed goes on with --resume, to the same weights. Ctrl-C ends after the step.",
        after_help = "Examples:\n  inhouse train retriever --config engine/train/retriever.toml\n  \
            inhouse train retriever --config engine/train/retriever.toml --resume\n  \
            inhouse index build ./mylib --out mylib.index --encoder ../inhouse-retriever-run/encoder"
    )]
    Retriever {
        /// TOML file; engine/train/retriever.toml is one with comments
        #[arg(long)]
        config: PathBuf,
        /// Go on from the newest checkpoint
        #[arg(long)]
        resume: bool,
    },
    /// Learn the weights by which an index with usage orders its hits, from code that calls public packages
    #[command(
        long_about = "Learn the weights by which an index with usage orders its hits.\n\nThe pinned packages of the configuration are \
            fetched by pip (wheels only), read and never run. Comments and docstrings over calls are questions, the names called their \
            answers; the usage in an index never is the code that its questions are from. The folder of the run gets ranker.json, \
            report.md, report.json and the signals of every candidate (rows/), from which a run that was killed goes on.",
        after_help = "Examples:\n  inhouse train ranker --config engine/train/ranker.toml\n  \
            cp ../inhouse-ranker-run/ranker.json models/inhouse-ranker/ && make build"
    )]
    Ranker {
        /// TOML file; engine/train/ranker.toml is one with comments
        #[arg(long)]
        config: PathBuf,
    },
    /// Make the corpus that `train coder` reads: packages to blocks of code below API lines, tasks from documentation, and a tokenizer
    #[command(
        long_about = "Make the corpus that `train coder` reads.\n\nPackages (or folders of your own code) are read and never run: blocks \
            of code and examples of docstrings with the APIs they call, tasks made of documentation under invented names, a \
            tokenizer, held-out tasks, statistics and a data card. What was read of a package and what was made of a part is \
            kept: a killed run goes on where it was, to the same corpus. The folder holds a whole corpus or none.",
        after_help = "Examples:\n  inhouse train corpus --config engine/train/coder.toml\n  \
            inhouse train coder --config engine/train/coder.toml"
    )]
    Corpus {
        /// TOML file with a [data] part; engine/train/coder.toml is one with comments
        #[arg(long)]
        config: PathBuf,
    },
    /// Train a language model on a corpus of code with API information: a new small one, or a checkpoint further
    #[command(
        long_about = "Train a language model on a corpus of code with API information.\n\nA new model of a given shape, a Hugging \
            Face folder to go on from, or (with [model.lora]) an adapter of a folder or GGUF file. Checkpoints, log.jsonl, curve.csv, \
            curve.svg and the model (a Hugging Face folder, written at every evaluation; of an adapter a PEFT folder, written at every \
            checkpoint) go to the run's folder; what was killed goes on with --resume, to the same weights. Ctrl-C ends after the step.",
        after_help = "Examples:\n  inhouse train coder --config engine/train/coder.toml\n  \
            inhouse train coder --config engine/train/coder.toml --resume\n  \
            inhouse train coder --config engine/train/adapter.toml\n  \
            inhouse-convert gguf --from ../inhouse-coder-run/model --out coder.Q8_0.gguf --quantize Q8_0"
    )]
    Coder {
        /// TOML file; engine/train/coder.toml is one with comments, engine/train/codegenapi.toml has the paper's settings
        #[arg(long)]
        config: PathBuf,
        /// Go on from the newest checkpoint
        #[arg(long)]
        resume: bool,
    },
}

pub fn run(arguments: &Arguments, json: bool, progress: &dyn Progress) -> Result<()> {
    match &arguments.what {
        What::Retriever { config, resume } => train_retriever(config, *resume, json, progress),
        What::Ranker { config } => train_ranker(config, json, progress),
        What::Corpus { config } => make_corpus(config, json, progress),
        What::Coder { config, resume } => train_coder(config, *resume, json, progress),
    }
}

fn train_ranker(config: &Path, json: bool, progress: &dyn Progress) -> Result<()> {
    let config = ranker::Config::read(config)?;
    let outcome = ranker::run(&config, progress)?;
    progress.finish();
    if json {
        println!("{}", serde_json::to_string(&outcome.ranker)?);
    }
    let asked: usize = outcome.questions.values().sum();
    let out = config.out.join("ranker.json");
    eprintln!("weights of {} signals from {asked} questions -> {}", config.signals.len(), out.display());
    Ok(())
}

fn make_corpus(config: &Path, json: bool, progress: &dyn Progress) -> Result<()> {
    let config = DataConfig::read(config)?;
    let manifest = corpus::coder::build(&config, progress)?;
    progress.finish();
    if json {
        println!("{}", serde_json::to_string(&manifest)?);
    }
    let rows: usize = manifest.shards.iter().map(|shard| shard.rows).sum();
    let tokens: usize = manifest.shards.iter().map(|shard| shard.tokens).sum();
    eprintln!("{:.2} M tokens in {rows} rows -> {}", tokens as f64 / 1e6, config.out.display());
    Ok(())
}

fn train_coder(config: &Path, resume: bool, json: bool, progress: &dyn Progress) -> Result<()> {
    let config = coder::Config::read(config)?;
    let cancel = super::on_interrupt()?;
    let outcome =
        coder::run(&config, resume, &cancel, progress, &mut |report| tell_coder(report, json, progress))?;
    progress.finish();
    let state = if outcome.finished { "finished" } else { "stopped; go on with --resume" };
    eprintln!(
        "{state} after {} steps and {:.2} M tokens, loss {:.3}, {:.0} tokens/s -> {}",
        outcome.steps,
        outcome.tokens as f64 / 1e6,
        outcome.loss,
        outcome.tokens as f64 / outcome.training_seconds.max(1e-9),
        outcome.model.display()
    );
    Ok(())
}

fn tell_coder(report: &coder::Report, json: bool, progress: &dyn Progress) {
    if json {
        if let Ok(line) = serde_json::to_string(report) {
            eprintln!("{line}");
        }
        return;
    }
    match report {
        coder::Report::Model { parameters, vocab_size, steps } => progress.note(&format!(
            "{:.2} M parameters, {vocab_size} tokens in the vocabulary, {steps} steps",
            *parameters as f64 / 1e6
        )),
        coder::Report::Step(step) if step.step.is_multiple_of(20) || step.step == 1 => {
            progress.note(&format!(
                "step {}: loss {:.3}, right {:.0} %, rate {:.2e}, {:.0} tokens/s, {} MiB",
                step.step,
                step.loss,
                100.0 * step.accuracy,
                step.rate,
                step.tokens_per_second,
                step.memory_mib.unwrap_or(0)
            ))
        }
        coder::Report::Measured(measured) => {
            let perplexity = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
            progress.note(&format!(
                "step {}: perplexity {} with API lines, {} without",
                measured.step,
                perplexity(measured.perplexity),
                perplexity(measured.perplexity_no_api)
            ));
            let kinds = measured.tasks.iter().map(|(kind, score)| (kind.as_str(), score));
            for (kind, score) in kinds.chain([("no API", &measured.no_api)]).filter(|(_, score)| score.n > 0)
            {
                progress.note(&format!(
                    "step {}: {kind}: name {:.1} %, line {:.1} % of {}",
                    measured.step,
                    100.0 * score.name,
                    100.0 * score.line,
                    score.n
                ));
            }
        }
        coder::Report::Step(_) => {}
    }
}

fn train_retriever(config: &Path, resume: bool, json: bool, progress: &dyn Progress) -> Result<()> {
    let config = Config::read(config)?;
    let cancel = super::on_interrupt()?;
    let outcome =
        retriever::run(&config, resume, &cancel, progress, &mut |report| tell(report, json, progress))?;
    progress.finish();
    let state = if outcome.finished { "finished" } else { "stopped; go on with --resume" };
    eprintln!(
        "{state} after {} steps, loss {:.3} -> {}",
        outcome.steps,
        outcome.loss,
        config.training.out.join("encoder").display()
    );
    Ok(())
}

fn tell(report: &Report, json: bool, progress: &dyn Progress) {
    if json {
        if let Ok(line) = serde_json::to_string(report) {
            eprintln!("{line}");
        }
        return;
    }
    match report {
        Report::Data { statistics, overlapping } => {
            let removed =
                overlapping.map_or_else(String::new, |n| format!(", {n} removed that repeat a benchmark"));
            progress.note(&format!(
                "{} pairs from {} packages and {} APIs{removed}",
                statistics.kept, statistics.packages, statistics.apis
            ));
        }
        Report::Step(step) if step.step.is_multiple_of(20) || step.step == 1 => progress.note(&format!(
            "step {}: loss {:.3}, first {:.0} %, {:.0} texts/s, {} MiB",
            step.step,
            step.loss,
            100.0 * step.accuracy,
            step.texts_per_second,
            step.memory_mib.unwrap_or(0)
        )),
        Report::HeldOut { step, recall } => {
            progress.note(&format!("step {step}: held-out recall@1 {:.3}, @5 {:.3}", recall.at1, recall.at5));
        }
        Report::Pool { step, name, recall } => progress.note(&format!(
            "step {step}: {name} recall@1 {:.3}, @2 {:.3}, @3 {:.3}, @5 {:.3}",
            recall.at1, recall.at2, recall.at3, recall.at5
        )),
        _ => {}
    }
}
