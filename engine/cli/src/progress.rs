//! Progress on stderr: a bar, JSON lines or silence.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use inhouse_core::progress::{Progress, Silent};

/// How long work reports.
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
        Style::Auto if std::io::stderr().is_terminal() => Box::new(Bar(Mutex::new(None))),
        Style::Auto => Box::new(NotesOnly),
        Style::Json => Box::new(JsonLines::default()),
        Style::None => Box::new(Silent),
    }
}

struct Bar(Mutex<Option<ProgressBar>>);

impl Bar {
    fn with(&self, use_bar: impl FnOnce(&mut Option<ProgressBar>)) {
        // A panic elsewhere must not hide the progress: the bar is usable whatever state it was left in.
        use_bar(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Progress for Bar {
    fn start(&self, what: &str, total: Option<u64>) {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(
                ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len} {per_sec} eta {eta}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            ),
            None => ProgressBar::new_spinner(),
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with(|slot| {
            if let Some(old) = slot.replace(bar) {
                old.finish_and_clear();
            }
        });
    }

    fn advance(&self, steps: u64) {
        self.with(|slot| {
            if let Some(bar) = slot {
                bar.inc(steps);
            }
        });
    }

    fn note(&self, message: &str) {
        self.with(|slot| match slot {
            Some(bar) => bar.suspend(|| eprintln!("inhouse: {message}")),
            None => eprintln!("inhouse: {message}"),
        });
    }

    fn finish(&self) {
        self.with(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}

struct NotesOnly;

impl Progress for NotesOnly {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, message: &str) {
        eprintln!("inhouse: {message}");
    }
    fn finish(&self) {}
}

/// At most ten lines a second, and always the last state.
#[derive(Default)]
struct JsonLines {
    work: Mutex<Option<Work>>,
    done: AtomicU64,
}

struct Work {
    what: String,
    total: Option<u64>,
    printed: Instant,
}

impl JsonLines {
    fn print(&self, work: &Work, event: &str) {
        let done = self.done.load(Ordering::Relaxed);
        let line = serde_json::json!({"event": event, "work": work.what, "done": done, "total": work.total});
        eprintln!("{line}");
    }
}

impl Progress for JsonLines {
    fn start(&self, what: &str, total: Option<u64>) {
        self.done.store(0, Ordering::Relaxed);
        let work = Work { what: what.to_owned(), total, printed: Instant::now() };
        self.print(&work, "start");
        *self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(work);
    }

    fn advance(&self, steps: u64) {
        self.done.fetch_add(steps, Ordering::Relaxed);
        if let Some(work) = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut()
            && work.printed.elapsed() >= Duration::from_millis(100)
        {
            work.printed = Instant::now();
            self.print(work, "progress");
        }
    }

    fn note(&self, message: &str) {
        eprintln!("{}", serde_json::json!({"event": "note", "message": message}));
    }

    fn finish(&self) {
        if let Some(work) = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            self.print(&work, "finish");
        }
    }
}
