//! What the daemon says while it serves, on standard error: text for people or one JSON object a line.
//!
//! Texts of clients and candidates are logged as string fields, which both forms escape; so one event is one line.

use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::EnvFilter;

/// How to log.
#[derive(Args)]
pub struct Logging {
    /// How log lines look
    #[arg(long = "log", value_enum, default_value = "text", env = "EVALD_LOG_FORMAT")]
    format: Format,
    /// How much is logged: error, warn (also what went wrong), info (also environments, connections, the end), debug
    /// (also every verdict), trace
    #[arg(long = "log-level", value_name = "LEVEL", default_value = "warn", env = "EVALD_LOG")]
    level: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl Logging {
    /// Logs from here on.
    pub fn start(&self) {
        // Of our own only: dependencies have nothing to say that a keeper of this daemon could use.
        let filter = EnvFilter::new(format!("off,evald={}", self.level));
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        match self.format {
            Format::Text => log.init(),
            Format::Json => log.json().flatten_event(true).init(),
        }
    }
}
