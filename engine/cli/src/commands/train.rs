//! `inhouse train`: trains the retriever's encoder.

use std::path::PathBuf;

use anyhow::Result;
use inhouse_core::progress::Progress;
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
}

pub fn run(arguments: &Arguments, json: bool, progress: &dyn Progress) -> Result<()> {
    let What::Retriever { config, resume } = &arguments.what;
    let config = Config::read(config)?;
    let cancel = super::on_interrupt()?;
    let outcome =
        retriever::run(&config, *resume, &cancel, progress, &mut |report| tell(report, json, progress))?;
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
