//! `inhouse eval`: pass@k of samples, each run in the sandbox.

use std::path::{Path, PathBuf};

use anyhow::Result;
use inhouse_core::progress::Progress;
use inhouse_study::evaluate::{self, EnvSpec, EvalOptions, Limits, TrustWish};
use inhouse_study::naming::Naming;
use inhouse_study::privatize;
use inhouse_study::problems::{self, Problem};
use inhouse_study::rename::{Rules, Table};
use inhouse_study::samples;
use inhouse_study::twin::{Scope, Twin};
use inhouse_study::unusable::UnusableRow;

use super::number;
use super::on_interrupt;
use crate::term::{self, Usage};

/// Run samples in the sandbox and compute pass@k
///
/// Starts a private evald unless --evald names the socket of one that runs. With --out, a run that was killed or stopped goes
/// on where it was when the same command is given again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse eval --problems problems.jsonl --samples samples.jsonl
  inhouse eval --problems problems.jsonl --samples samples.jsonl --env venv/bin/python:pandas --k 1,10,100 --json
  inhouse eval --problems problems.jsonl --canonical        the problems' own solutions: a check of set and environment
  inhouse eval --problems monkey.jsonl --samples samples.jsonl --env venv/bin/python:pandas --rename monkey
                                                            private words converted back, as the paper does it
  inhouse eval --problems monkey.jsonl --samples samples.jsonl --env venv/bin/python:pandas --private monkey
                                                            an importable private library: public names fail")]
pub struct Arguments {
    /// Problems, one JSON object a line
    #[arg(long)]
    problems: PathBuf,

    /// Samples, one JSON object a line
    #[arg(long, required_unless_present = "canonical")]
    samples: Option<PathBuf>,

    /// Run the first canonical solution of every problem instead of samples
    #[arg(long, conflicts_with = "samples")]
    canonical: bool,

    /// The k of pass@k; a k above the samples of a problem is left out
    #[arg(long, value_delimiter = ',', default_value = "1,10,100", value_parser = clap::value_parser!(u64).range(1..))]
    k: Vec<u64>,

    /// Python interpreter, and modules to import beforehand: PYTHON[:MODULE,...]
    #[arg(long, default_value = "python3")]
    env: EnvSpec,

    /// CPU seconds a sample; its wall-clock limit is three times that
    #[arg(long, default_value_t = 3.0, value_parser = number::timeout, allow_negative_numbers = true)]
    timeout: f64,

    /// What else a sample may use: cpu, wall, memory, output, disk, inodes, processes (threads count), files; what is left
    /// open is evald's usual (see the README). `cpu` goes before --timeout
    #[arg(long = "limit", value_name = "NAME=VALUE[,...]", default_value = "")]
    limits: Limits,

    /// As --limit memory=SIZE (512MiB, 2GiB), and goes before it, as do the next three
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<Limits>,

    /// As --limit threads=N: threads and processes at a time, together
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<Limits>,

    /// As --limit output=SIZE
    #[arg(long, value_name = "SIZE", value_parser = output)]
    output: Option<Limits>,

    /// As --limit disk=SIZE
    #[arg(long, value_name = "SIZE", value_parser = disk)]
    disk: Option<Limits>,

    /// Let samples start processes (subprocess, multiprocessing); an evald of --evald must allow it too
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<Allow>,

    /// A folder on the module search path of samples, read-only; may be repeated
    #[arg(long = "path", value_name = "DIR", conflicts_with = "evald")]
    paths: Vec<PathBuf>,

    /// Socket of a running evald; its first environment runs the samples
    #[arg(long, value_name = "SOCKET", conflicts_with = "env")]
    evald: Option<PathBuf>,

    /// Sandbox tier to insist on (see `evald check`); T4, CPython as WebAssembly, runs pure Python alone
    #[arg(long, value_parser = ["auto", "T0", "T1", "T2", "T3", "T4"])]
    tier: Option<String>,

    /// Where tests run: isolated (out of the candidate's reach; a test that cannot run there is no_test), in_process (in the
    /// candidate's process), or auto, the one where it can be had and else the other; rows say which, and why
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    trust: TrustWish,

    /// Convert private words back to public names before running: a JSON table of names, or monkey or beatnum
    #[arg(long, value_name = "TABLE", conflicts_with = "private")]
    rename: Option<PathBuf>,

    /// How --rename converts and what it refuses: published, words, sound, or one of substrings, words, code and one of
    /// reject-text, reject-code, reject-attributes, accept [default: published]
    #[arg(long, value_name = "RULES", requires = "rename")]
    rename_rules: Option<Rules>,

    /// Run samples as they are against an importable private twin of the library, which has private words alone: a JSON
    /// table of names, monkey or beatnum, or a folder that `inhouse privatize` made
    #[arg(long, value_name = "TABLE", conflicts_with = "evald")]
    private: Option<PathBuf>,

    /// Where the private words of --private may be used: everywhere (on builtins and other libraries too, as the published
    /// problems do) or library [default: what the table says, else everywhere]
    #[arg(long, value_name = "SCOPE", requires = "private")]
    private_scope: Option<Scope>,

    /// Where to write one result row per sample; until all are done, results are kept in OUT.journal, from which a second
    /// run goes on (remove it to run all again, as after a change of the installed packages)
    #[arg(long)]
    out: Option<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What samples may have only where it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Allow {
    /// Further processes, up to the limit on them.
    Processes,
}

/// A short form of `--limit`.
macro_rules! short {
    ($function:ident, $name:literal) => {
        fn $function(text: &str) -> Result<Limits, String> {
            format!(concat!($name, "={}"), text).parse()
        }
    };
}
short!(memory, "memory");
short!(threads, "threads");
short!(output, "output");
short!(disk, "disk");

fn naming(arguments: &Arguments, problems: &[Problem]) -> Result<Naming> {
    // Tests speak public names: they show which side of an undeclared table is public.
    let tests: String = problems.iter().map(|problem| problem.test.as_str()).collect();
    if let Some(path) = &arguments.rename {
        let rules = arguments.rename_rules.unwrap_or(Rules::PUBLISHED);
        return Ok(Naming::convert_back(Table::read(path, &tests)?, rules, problems));
    }
    if let Some(path) = &arguments.private {
        let table = if path.is_dir() { path.join(privatize::TABLE_FILE) } else { path.clone() };
        let table = Table::read(&table, &tests)?;
        let of_table = || table.everywhere.map(|all| if all { Scope::Everywhere } else { Scope::Library });
        let scope = arguments.private_scope.or_else(of_table).unwrap_or_default();
        return Ok(Naming::Private(Twin::new(&table, &arguments.env.preload, scope)?));
    }
    Ok(Naming::AsWritten)
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    if arguments.json && arguments.out.as_deref() == Some(Path::new("-")) {
        return Err(Usage("--json and --out - would both write to stdout").into());
    }
    let short = [&arguments.memory, &arguments.threads, &arguments.output, &arguments.disk];
    let limits =
        short.into_iter().flatten().fold(Limits::default(), |all, one| all.or(one)).or(&arguments.limits);
    let (problems, spoilt) = problems::read_each(&arguments.problems)?;
    let mut k = arguments.k.clone();
    k.sort_unstable();
    k.dedup();
    let samples = match &arguments.samples {
        Some(path) => samples::read_each(path, &problems, &spoilt)?,
        None => {
            let mut samples = evaluate::canonical_samples(&problems);
            samples.extend(spoilt.iter().map(UnusableRow::sample));
            samples
        }
    };
    let options = EvalOptions {
        k,
        naming: naming(arguments, &problems)?,
        environment: arguments.env.clone(),
        timeout_seconds: arguments.timeout,
        limits,
        allow_processes: arguments.allow.contains(&Allow::Processes),
        paths: arguments.paths.clone(),
        trust: arguments.trust,
        equal_once: false,
        socket: arguments.evald.clone(),
        evald: None,
        tier: arguments.tier.clone(),
        out: arguments.out.clone(),
    };
    let evaluation = evaluate::run(&problems, &samples, &options, &on_interrupt()?, progress)?;
    progress.finish();
    let report = &evaluation.report;
    if arguments.json {
        return term::json(report);
    }
    for (k, value) in &report.pass_at {
        term::line(format_args!("pass@{k:<4} {value:.4}"))?;
    }
    term::line(format_args!(
        "{} samples of {} problems, tier {}, {:.1} samples/s",
        report.samples, report.problems, report.tier, report.samples_per_second
    ))?;
    let trust: Vec<String> = report.trust.iter().map(|(trust, count)| format!("{trust} {count}")).collect();
    term::line(format_args!("  trust: {}", trust.join(", ")))?;
    for (verdict, count) in &report.verdicts {
        term::line(format_args!("  {verdict:<17} {count}"))?;
    }
    Ok(())
}
