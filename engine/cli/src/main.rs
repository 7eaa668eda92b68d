//! The `inhouse` command: arguments in, calls to the engine and the study crate, text or JSON out.
//!
//! Data goes to stdout, messages and progress to stderr. Exit status: 0 done, 1 the work failed, 2 wrong usage.

#![forbid(unsafe_code)]

mod commands;
mod log;
mod progress;
mod term;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Writes code against libraries that no language model has seen.
///
/// It reads a private library's documentation, finds the APIs a task needs, generates code that calls them, and runs
/// the generated code in a sandbox to compute pass@k.
#[derive(Parser)]
#[command(
    name = "inhouse",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  inhouse docs ./mylib --out apis.jsonl
  inhouse index build ./mylib --out mylib.index
  inhouse retrieve --index mylib.index \"read the ledger of one day\"
  inhouse complete --index mylib.index --model model.gguf --apis top:2 draft.py
  inhouse generate --problems problems.jsonl --model model.gguf --index mylib.index --apis top:2 --out samples.jsonl
  inhouse eval --problems problems.jsonl --samples samples.jsonl
  inhouse privatize pandas --seed 7 --env venv/bin/python --out mine
  inhouse study run --config study.toml --report report.html
  inhouse train retriever --config engine/train/retriever.toml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// How long work reports on stderr: a bar on a terminal, JSON lines, or not at all
    #[arg(long, global = true, value_enum, default_value = "auto")]
    progress: progress::Style,
}

#[derive(Subcommand)]
enum Command {
    Docs(commands::docs::Arguments),
    Index(commands::index::Arguments),
    Retrieve(commands::retrieve::Arguments),
    Complete(commands::complete::Arguments),
    Generate(commands::generate::Arguments),
    Eval(commands::eval::Arguments),
    Privatize(commands::privatize::Arguments),
    Study(commands::study::Arguments),
    Train(commands::train::Arguments),
}

fn main() -> ExitCode {
    log::to_stderr();
    let arguments = Arguments::parse();
    let style = arguments.progress;
    let progress = progress::make(style);
    let result = match arguments.command {
        Command::Docs(arguments) => commands::docs::run(&arguments, progress.as_ref()),
        Command::Index(arguments) => commands::index::run(&arguments, progress.as_ref()),
        Command::Retrieve(arguments) => commands::retrieve::run(&arguments),
        Command::Complete(arguments) => commands::complete::run(&arguments),
        Command::Generate(arguments) => commands::generate::run(&arguments, progress.as_ref()),
        Command::Eval(arguments) => commands::eval::run(&arguments, progress.as_ref()),
        Command::Privatize(arguments) => commands::privatize::run(&arguments, progress.as_ref()),
        Command::Study(arguments) => commands::study::run(&arguments, progress.as_ref()),
        Command::Train(arguments) => {
            let json = style == progress::Style::Json;
            commands::train::run(&arguments, json, progress.as_ref())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.finish();
            // A reader that closes the pipe (`inhouse docs | head`) ends the command quietly, as it does any Unix tool.
            if !term::is_closed_pipe(&error) {
                eprintln!("inhouse: {}", term::message(&error));
            }
            ExitCode::from(if error.is::<term::Usage>() { 2 } else { 1 })
        }
    }
}
