//! `inhouse study`: from problem sets and models to the paper's tables and figures.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use inhouse_core::files;
use inhouse_core::progress::Progress;
use inhouse_study::chart::Palette;
use inhouse_study::study::figure::{self, Figure};
use inhouse_study::study::table::{self, Table};
use inhouse_study::study::{
    self, ByProblem, Comparison, Config, Phase, Results, RunOptions, Shard, Side, Store,
};

use serde_json::json;

use super::complete::pick;
use super::on_interrupt;
use crate::term;

/// Measure models on problem sets: the tables and figures of the paper, on any library
#[derive(clap::Args)]
#[command(
    long_about = "Measure models on problem sets: the tables and figures of the paper (arXiv 2210.17236), on any library.\n\n\
        A TOML file names problem sets, models, settings and temperatures. `run` does the work into a store, which it goes on \
        from after a kill; the others read the store, also while it is worked on.",
    after_help = "\
Examples:
  inhouse study run --config study.toml --report report.html     all of it in one command
  inhouse study run --config study.toml --shard 3/16             one of sixteen workers over the same store
  inhouse study table1 --store study.store
  inhouse study problems --store study.store --format csv
  inhouse study compare study.store:base study.store:adapted
  inhouse study fig5 --store study.store --out recall.svg
  inhouse study choose --config study.toml --set MyLibEval --out choices.jsonl
  inhouse study merge --into all.store node1.store node2.store"
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Sample, run and count what a configuration names, or a shard of it; goes on where it was
    #[command(after_help = "examples/study.toml is a configuration with comments.")]
    Run(RunArguments),
    /// pass@k on private libraries, by model and setting
    Table1(TableArguments),
    /// pass@k by noise and resampling in training, of models that say theirs
    Table2(TableArguments),
    /// pass@k on public libraries
    Table3(TableArguments),
    /// Recall of the retriever, of published prompts and of people
    Fig5(FigureArguments),
    /// Golden APIs in the prompt against those that are called
    Fig6(FigureArguments),
    /// pass@k by the number of APIs that a problem needs
    Fig7(FigureArguments),
    /// Everything as one HTML file without anything from elsewhere
    Report {
        #[command(flatten)]
        store: StoreArguments,
        /// Where to write it
        #[arg(long, default_value = "-")]
        out: PathBuf,
    },
    /// Problem by setting: passed of n, verdicts, APIs shown and called, and with --format json completions
    Problems(TableArguments),
    /// Two studies, models or settings side by side on the same problems
    #[command(
        long_about = "Two studies, models or settings side by side on the same problems: pass@k of both, the difference with the 95 % \
        interval of a paired bootstrap over problems, and which problems went which way (--format json names them).\n\nA side is \
        STORE, STORE:MODEL or STORE:MODEL:SETTING. Models and settings of one name go together; where no name is on both sides, \
        every one goes with every one.",
        after_help = "\
Examples:
  inhouse study compare before.store after.store
  inhouse study compare study.store:base study.store:adapted
  inhouse study compare study.store:base:top:2 study.store:base:top:2+best:8"
    )]
    Compare {
        /// What the difference is taken from
        first: Side,
        /// What is compared with it
        second: Side,
        /// As what
        #[arg(long, value_enum, default_value = "text")]
        format: TableFormat,
    },
    /// Ask a person which of the five best APIs each problem needs, for the setting `human`
    #[command(
        long_about = "Ask a person which of the five best APIs each problem needs (Figure 4 of the paper).\n\nAnswers are \
        recorded as they come, and what has one is not asked again. The file goes into the configuration as the set's `human`."
    )]
    Choose {
        /// TOML file that describes the study
        #[arg(long)]
        config: PathBuf,
        /// Name of the problem set
        #[arg(long)]
        set: String,
        /// Where the answers go, a row {task_id, query, gold} each
        #[arg(long)]
        out: PathBuf,
    },
    /// Take into one store what others of the same study have done
    Merge {
        /// The store that is added to; made where there is none
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// The stores that are read
        #[arg(required = true)]
        stores: Vec<PathBuf>,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// TOML file that describes the study
    #[arg(long)]
    config: PathBuf,

    /// Folder of the store [default: the configuration's name with .store]
    #[arg(long)]
    store: Option<PathBuf>,

    /// Do part I of N of the work, I from 0 to N-1
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,

    /// Do one half of the work alone: generate needs no evald, evaluate no model
    #[arg(long, value_enum)]
    only: Option<Half>,

    /// With --only evaluate: wait for the samples of others until the shard is done
    #[arg(long)]
    follow: bool,

    /// Refuse to run with less isolation than this tier of evald
    #[arg(long, value_parser = ["auto", "T0", "T1", "T2", "T3", "T4"])]
    tier: Option<String>,

    /// Write the report when all is done
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Half {
    /// Sample
    Generate,
    /// Run samples
    Evaluate,
}

#[derive(clap::Args)]
struct StoreArguments {
    /// Folder of the store
    #[arg(long)]
    store: PathBuf,
}

#[derive(clap::Args)]
struct TableArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// As what
    #[arg(long, value_enum, default_value = "text")]
    format: TableFormat,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum TableFormat {
    Text,
    Csv,
    Json,
}

#[derive(clap::Args)]
struct FigureArguments {
    #[command(flatten)]
    store: StoreArguments,
    /// Where to write the chart: a name ending in .svg or .png
    #[arg(long, value_name = "FILE", required_unless_present = "format")]
    out: Option<PathBuf>,
    /// Print the data
    #[arg(long, value_enum)]
    format: Option<DataFormat>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum DataFormat {
    Csv,
    Json,
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    match &arguments.action {
        Action::Run(arguments) => work(arguments, progress),
        Action::Table1(arguments) => print_table(arguments, table::Which::Table1),
        Action::Table2(arguments) => print_table(arguments, table::Which::Table2),
        Action::Table3(arguments) => print_table(arguments, table::Which::Table3),
        Action::Fig5(arguments) => draw(arguments, figure::Which::Fig5),
        Action::Fig6(arguments) => draw(arguments, figure::Which::Fig6),
        Action::Fig7(arguments) => draw(arguments, figure::Which::Fig7),
        Action::Report { store, out } => write_report(&store.store, out),
        Action::Problems(arguments) => print_problems(arguments),
        Action::Compare { first, second, format } => {
            let comparison = Comparison::of(first, second)?;
            print_as(*format, &comparison, || comparison.text(), || comparison.csv())
        }
        Action::Choose { config, set, out } => choose(&Config::read(config)?, set, out),
        Action::Merge { into, stores } => {
            let n_files = Store::merge(into, stores)?;
            let (done, all) = Results::read(&Store::open(into)?)?.units;
            eprintln!("{n_files} files taken; {done} of {all} units are done -> {}", into.display());
            Ok(())
        }
    }
}

fn work(arguments: &RunArguments, progress: &dyn Progress) -> Result<()> {
    let config = Config::read(&arguments.config)?;
    let store = arguments.store.clone().unwrap_or_else(|| arguments.config.with_extension("store"));
    let options = RunOptions {
        store: store.clone(),
        shard: arguments.shard.unwrap_or(Shard::WHOLE),
        only: arguments.only.map(|half| match half {
            Half::Generate => Phase::Generate,
            Half::Evaluate => Phase::Evaluate,
        }),
        follow: arguments.follow,
        evald: None,
        tier: arguments.tier.clone(),
    };
    let report = study::run(&config, &options, &on_interrupt()?, progress)
        .with_context(|| format!("stopped; the same command goes on from {}", store.display()))?;
    if let Some(out) = &arguments.report {
        write_report(&store, out)?;
    }
    if arguments.json {
        return term::json(&report);
    }
    let busy = match report.busy {
        0 => String::new(),
        busy => format!(", {busy} left to other workers"),
    };
    eprintln!(
        "{} of {} units done ({} now{busy}) -> {}",
        report.done,
        report.units,
        report.done_now,
        store.display()
    );
    Ok(())
}

fn print_table(arguments: &TableArguments, which: table::Which) -> Result<()> {
    let table = Table::of(&Results::read(&Store::open(&arguments.store.store)?)?, which);
    print_as(arguments.format, &table, || table.text(), || table.csv())
}

fn print_problems(arguments: &TableArguments) -> Result<()> {
    let tables = ByProblem::all(&Results::read(&Store::open(&arguments.store.store)?)?)?;
    let text = || tables.iter().map(ByProblem::text).collect::<Vec<_>>().join("\n");
    print_as(arguments.format, &json!({ "sets": tables }), text, || ByProblem::csv(&tables))
}

fn print_as(
    format: TableFormat,
    json: &impl serde::Serialize,
    text: impl FnOnce() -> String,
    csv: impl FnOnce() -> String,
) -> Result<()> {
    match format {
        TableFormat::Text => term::line(text().trim_end()),
        TableFormat::Csv => term::line(csv().trim_end()),
        TableFormat::Json => term::json(json),
    }
}

fn draw(arguments: &FigureArguments, which: figure::Which) -> Result<()> {
    let figure = Figure::of(&Results::read(&Store::open(&arguments.store.store)?)?, which);
    if let Some(out) = &arguments.out {
        let chart = figure.chart();
        match out.extension().and_then(|extension| extension.to_str()) {
            Some("png") => {
                let png = chart.png()?;
                files::write_atomic(out, |file| file.write_all(&png))?;
            }
            Some("svg") => {
                let svg = chart.svg(Palette::Paper);
                files::write_atomic(out, |file| file.write_all(svg.as_bytes()))?;
            }
            _ => return Err(term::Usage("--out takes a name that ends in .svg or .png").into()),
        }
    }
    match arguments.format {
        Some(DataFormat::Csv) => term::line(figure.csv().trim_end()),
        Some(DataFormat::Json) => term::json(&figure),
        None => Ok(()),
    }
}

fn write_report(store: &Path, out: &Path) -> Result<()> {
    let html = study::report::html(&Results::read(&Store::open(store)?)?)?;
    Ok(files::write_atomic(out, |file| file.write_all(html.as_bytes()))?)
}

/// APIs that a person chooses from.
const CHOICES: usize = 5;

fn choose(config: &Config, set: &str, out: &Path) -> Result<()> {
    let questions = study::choose::questions(config, set, CHOICES)?;
    let mut answered = HashSet::new();
    if out.exists() {
        for row in files::json_lines::<serde_json::Value>(out)? {
            answered.extend(row?.1["task_id"].as_str().map(str::to_owned));
        }
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    let left: Vec<_> = questions.iter().filter(|question| !answered.contains(&question.task_id)).collect();
    let (mut answers, mut screen) = (std::io::stdin().lock(), std::io::stderr().lock());
    for (i, question) in left.iter().enumerate() {
        writeln!(
            screen,
            "\n{} ({} left)\n\n{}\n",
            question.task_id,
            left.len() - i,
            question.code.trim_end()
        )?;
        let Some(picked) = pick(&question.hits, &mut answers, &mut screen)? else { break };
        let names: Vec<_> = picked.iter().map(|hit| &hit.api.name).collect();
        let row = json!({"task_id": question.task_id, "query": question.query, "gold": names});
        // One write a row: a kill tears none.
        file.write_all(format!("{row}\n").as_bytes())?;
        answered.insert(question.task_id.clone());
    }
    writeln!(
        screen,
        "{} of {} problems have an answer -> {}",
        answered.len(),
        questions.len(),
        out.display()
    )?;
    Ok(())
}
