//! Reads API documentation from a source and writes it as JSON lines: `read_docs SOURCE [OUT.jsonl] [SEARCH_PATH...]`.

use std::path::PathBuf;
use std::process::ExitCode;

use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::{api, progress};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(source) = arguments.next() else {
        eprintln!("usage: read_docs SOURCE [OUT.jsonl] [SEARCH_PATH...]");
        return ExitCode::from(2);
    };
    let out = arguments.next();
    let mut options = ReadOptions::default();
    options.search_paths = arguments.collect();
    options.short = true;
    let result = docs::read(&source, &options, &progress::Silent).and_then(|documentation| {
        eprintln!("{} APIs from {} files", documentation.apis.len(), documentation.files_read);
        for skipped in &documentation.skipped {
            let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
            eprintln!("skipped {}{line}: {}", skipped.path, skipped.reason);
        }
        out.map_or(Ok(()), |out| api::write_jsonl(&out, &documentation.apis))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
