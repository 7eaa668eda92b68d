//! Progress on stderr: a bar on a terminal, JSON lines, or notes alone.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use inhouse_core::Progress;
use inhouse_core::progress::Silent;

/// How work reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// A bar when stderr is a terminal, else nothing but notes
    Auto,
    /// One JSON object a line
    Json,
    /// Nothing at all
    None,
}

/// The reporter for a style.
pub fn make(style: Style) -> Box<dyn Progress> {
    match style {
        Style::Auto => {
            let bar = if std::io::stderr().is_terminal() {
                ProgressBar::no_length()
            } else {
                ProgressBar::hidden()
            };
            Box::new(Bar(bar))
        }
        Style::Json => Box::new(JsonLines(Mutex::new(None))),
        Style::None => Box::new(Silent),
    }
}

/// A bar over bytes.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn start(&self, what: &str, total: Option<u64>) {
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {bytes}/{total_bytes} eta {eta}") {
            self.0.set_style(style);
        }
        self.0.set_message(what.to_owned());
        if let Some(total) = total {
            self.0.set_length(total);
        }
    }

    fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }

    fn note(&self, message: &str) {
        self.0.suspend(|| eprintln!("inhouse-convert: {message}"));
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

/// At most ten lines a second, and always the first and last state.
struct JsonLines(Mutex<Option<Work>>);

struct Work {
    what: String,
    done: u64,
    total: Option<u64>,
    printed: Instant,
}

impl Work {
    fn print(&mut self, event: &str) {
        self.printed = Instant::now();
        let (what, done, total) = (&self.what, self.done, self.total);
        eprintln!("{}", serde_json::json!({"event": event, "work": what, "done": done, "total": total}));
    }
}

impl JsonLines {
    fn work(&self) -> MutexGuard<'_, Option<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for JsonLines {
    fn start(&self, what: &str, total: Option<u64>) {
        let mut work = Work { what: what.to_owned(), done: 0, total, printed: Instant::now() };
        work.print("start");
        *self.work() = Some(work);
    }

    fn advance(&self, steps: u64) {
        if let Some(work) = &mut *self.work() {
            work.done += steps;
            if work.printed.elapsed() >= Duration::from_millis(100) {
                work.print("progress");
            }
        }
    }

    fn note(&self, message: &str) {
        eprintln!("{}", serde_json::json!({"event": "note", "message": message}));
    }

    fn finish(&self) {
        if let Some(mut work) = self.work().take() {
            work.print("finish");
        }
    }
}
