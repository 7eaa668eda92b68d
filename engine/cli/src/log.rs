//! What libraries log, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Shows warnings, or what `INHOUSE_LOG` asks for.
pub fn to_stderr() {
    // llama.cpp warns of caches that hold more than one sequence; that is how n samples are drawn.
    let filter = EnvFilter::try_from_env("INHOUSE_LOG").unwrap_or_else(|_| "warn,llama-cpp-2=error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}
