//! `inhouse privatize`: a private twin of a public library.

use std::path::PathBuf;

use anyhow::Result;
use inhouse_core::progress::Progress;
use inhouse_study::privatize::{self, Options, Report, Source};
use inhouse_study::twin::Scope;

use super::{number, on_interrupt};
use crate::term;

/// Make a private library, which no model has seen, out of an installed public one
///
/// Writes a folder: an importable package that answers to private names alone (public ones are refused, on instances of C types
/// too), its documentation in those names and other words (apis.jsonl), the rename table (rename.json), and, of a problem set,
/// prompts, solutions, tests and entry points in them (problems.jsonl). manifest.json and README.md tell what is there.
///
/// Every problem is run in the sandbox, which shows what its names stand for, and its canonical solution before and after.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse privatize pandas --seed 7 --env venv/bin/python --out mine
  inhouse privatize pandas --seed 7 --env venv/bin/python --problems pandas-eval.jsonl --out mine
  inhouse privatize pandas --table monkey --env venv/bin/python --out monkey
  inhouse privatize mylib --seed 1 --site ./src --out mine        a package that lies in ./src

  PYTHONPATH=mine python program.py                               a program that imports the private name
  inhouse index build mine/apis.jsonl --out mine.index
  inhouse eval --problems mine/problems.jsonl --samples samples.jsonl --env venv/bin/python:pandas --private mine")]
pub struct Arguments {
    /// Import name of the library
    library: String,

    /// Coin private words from this number: the same number, library and version give the same words
    #[arg(long, value_name = "S", required_unless_present = "table", conflicts_with = "table")]
    seed: Option<u64>,

    /// Take the private words from a rename table: a JSON file of names, or monkey (pandas) or beatnum (numpy)
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// The folder to make
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace the private library that an earlier run made at DIR
    #[arg(long)]
    force: bool,

    /// Python interpreter that can import the library
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    env: PathBuf,

    /// Problems to convert, one JSON object a line
    #[arg(long, value_name = "FILE")]
    problems: Option<PathBuf>,

    /// Further folder in which packages are looked for
    #[arg(long, value_name = "DIR")]
    site: Vec<PathBuf>,

    /// Module whose APIs are left public (pandas.io), with all below it
    #[arg(long, value_name = "MODULE")]
    exclude: Vec<String>,

    /// Where private words may be used: library, or everywhere (on builtins and other libraries too, as the published
    /// problems do) [default: library; with --table what it says, else everywhere]
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Scope>,

    /// CPU seconds for importing the library and reading its documentation
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = number::timeout, allow_negative_numbers = true)]
    import_timeout: f64,

    /// Print the manifest as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    let source = match (&arguments.table, arguments.seed) {
        (Some(table), _) => Source::Table(table.clone()),
        (None, seed) => Source::Seed(seed.unwrap_or_default()),
    };
    let options = Options {
        library: arguments.library.clone(),
        python: arguments.env.clone(),
        paths: arguments.site.clone(),
        source,
        excluded: arguments.exclude.clone(),
        scope: arguments.scope,
        problems: arguments.problems.clone(),
        out: arguments.out.clone(),
        replace: arguments.force,
        import_timeout_seconds: arguments.import_timeout,
        evald: None,
    };
    let report = privatize::run(&options, &on_interrupt()?, progress)?;
    progress.finish();
    if arguments.json {
        return term::json(&report);
    }
    tell(&report, &arguments.out)
}

fn tell(report: &Report, out: &std::path::Path) -> Result<()> {
    let Report { library, name, names, apis, documentation, .. } = report;
    let version = report.library_version.as_deref().unwrap_or("(no version)");
    term::line(format_args!("{name}: {library} {version} in private words -> {}", out.display()))?;
    term::line(format_args!("  {names} names, {apis} APIs"))?;
    let left = |leaks: &inhouse_study::privatize::Leaks| {
        format!(
            "{} public names in {} words (beside {} of builtins and other libraries, {} in strings)",
            leaks.public_names, leaks.words, leaks.foreign, leaks.strings
        )
    };
    term::line(format_args!("  documentation: {}", left(documentation)))?;
    if let Some(problems) = &report.problems {
        term::line(format_args!("  prompts: {}", left(&problems.prompts)))?;
        term::line(format_args!(
            "  {} problems: {} canonical solutions pass, {} passed before",
            problems.problems, problems.solved, problems.solved_before
        ))?;
        for (task_id, why) in &problems.lost {
            eprintln!("inhouse: {task_id} no longer passes: {why}");
        }
    }
    Ok(())
}
