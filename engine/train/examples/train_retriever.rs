//! Trains a retriever as a TOML file says, telling every event as a line of JSON; `inhouse train retriever` does the same with a
//! progress bar.
//!
//!     cargo run --release -p inhouse-train --example train_retriever -- engine/train/retriever.toml [--resume]

use std::path::Path;
use std::process::ExitCode;

use inhouse_core::decode::CancelToken;
use inhouse_core::progress::Progress;
use inhouse_train::retriever::{Config, run};

struct Notes;

impl Progress for Notes {
    fn start(&self, what: &str, total: Option<u64>) {
        eprintln!("{what}: {}", total.unwrap_or(0));
    }
    fn advance(&self, _: u64) {}
    fn note(&self, message: &str) {
        eprintln!("{message}");
    }
    fn finish(&self) {}
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = arguments.first() else {
        eprintln!("usage: train_retriever CONFIG [--resume]");
        return ExitCode::from(2);
    };
    let resume = arguments.iter().any(|argument| argument == "--resume");
    let mut tell = |report: &_| match serde_json::to_string(report) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    };
    let done = Config::read(Path::new(path))
        .and_then(|config| run(&config, resume, &CancelToken::new(), &Notes, &mut tell));
    match done {
        Ok(outcome) => {
            eprintln!("{outcome:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
