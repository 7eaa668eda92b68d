//! Makes the coder's corpus as the `[data]` part of a TOML file says; `inhouse train corpus` does the same with a progress bar.
//!
//!     cargo run --release -p inhouse-train --example make_corpus -- engine/train/coder.toml

use std::path::Path;
use std::process::ExitCode;

use inhouse_core::progress::Progress;
use inhouse_train::corpus::coder::{DataConfig, build};

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
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: make_corpus CONFIG");
        return ExitCode::from(2);
    };
    match DataConfig::read(Path::new(&path)).and_then(|config| build(&config, &Notes)) {
        Ok(manifest) => {
            println!(
                "{} rows, digest {}",
                manifest.shards.iter().map(|shard| shard.rows).sum::<usize>(),
                manifest.digest
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
