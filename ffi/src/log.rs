//! The library's log, to a host's callback: a `tracing` subscriber of our own, since a full one is larger than the library.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::Write as _;
use std::mem::size_of;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::boundary::attempt;
use crate::error::inhouse_error;
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str};

/// How much matters: values of `inhouse_log_record.level` and of inhouse_log_set(). A level includes those before it.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_log_level {
    /// Nothing.
    INHOUSE_LOG_OFF = 0,
    /// Something failed that no call reports.
    INHOUSE_LOG_ERROR = 1,
    /// Something is not as it should be.
    INHOUSE_LOG_WARN = 2,
    /// What was done.
    INHOUSE_LOG_INFO = 3,
    /// How it was done; llama.cpp's own log is mostly here.
    INHOUSE_LOG_DEBUG = 4,
    /// Everything.
    INHOUSE_LOG_TRACE = 5,
}

/// One record of the log; valid during the callback only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_log_record {
    /// Size of the struct in bytes as the library knows it; fields are only ever appended.
    pub struct_size: usize,
    /// The part of the library that speaks, such as "inhouse_core::index::reader".
    pub target: inhouse_str,
    /// What it says, without a line break at its end; fields follow as " name=value".
    pub message: inhouse_str,
    /// One of inhouse_log_level.
    pub level: i32,
    /// Zero.
    pub reserved: u32,
}

/// Receives the log, from any thread, also several at the same time, inside of calls and beside them. `record` and its
/// texts are valid until the callback returns.
///
/// What the callback itself makes the library log is dropped; inhouse_log_set() called from it gives
/// INHOUSE_STATUS_BUSY. It must return normally: no longjmp and no C++ exception may leave it.
pub type inhouse_on_log =
    Option<unsafe extern "C" fn(user_data: *mut c_void, record: *const inhouse_log_record)>;

/// Where the log goes.
struct Sink {
    on_log: unsafe extern "C" fn(user_data: *mut c_void, record: *const inhouse_log_record),
    user_data: *mut c_void,
}

// SAFETY: `user_data` is never followed here, only passed to the host's callback, which may be called from any thread by
// the host's promise.
unsafe impl Send for Sink {}
// SAFETY: as above; the callback may be called from several threads at a time by the host's promise.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);
/// The level of the sink, beside it: what is not wanted costs one load.
static LEVEL: AtomicI32 = AtomicI32::new(0);

thread_local! {
    /// Whether this thread is inside the host's callback: there, what is logged goes nowhere and the sink stays.
    static SPEAKING: Cell<bool> = const { Cell::new(false) };
}

fn number(level: &Level) -> i32 {
    (match *level {
        Level::ERROR => inhouse_log_level::INHOUSE_LOG_ERROR,
        Level::WARN => inhouse_log_level::INHOUSE_LOG_WARN,
        Level::INFO => inhouse_log_level::INHOUSE_LOG_INFO,
        Level::DEBUG => inhouse_log_level::INHOUSE_LOG_DEBUG,
        Level::TRACE => inhouse_log_level::INHOUSE_LOG_TRACE,
    }) as i32
}

/// Passes events on. Spans are not told: nothing in the library opens one.
struct ToHost;

impl Subscriber for ToHost {
    fn register_callsite(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::sometimes() // The level may change.
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if SPEAKING.get() {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sink) = &*sink else { return };
        let target = Text::from(event.metadata().target());
        let message = Text::from(said.text());
        let record = inhouse_log_record {
            struct_size: size_of::<inhouse_log_record>(),
            target: target.view(),
            message: message.view(),
            level: number(event.metadata().level()),
            reserved: 0,
        };
        SPEAKING.set(true);
        // SAFETY: the host promises that its callback can be called from any thread until another takes its place, which
        // waits for the lock that is held here; the record and its texts outlive the call.
        unsafe { (sink.on_log)(sink.user_data, &raw const record) };
        SPEAKING.set(false);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message of an event and its fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl Said {
    fn text(mut self) -> String {
        self.message.truncate(self.message.trim_end().len());
        self.message + &self.fields
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail, but a value's own Debug may: what it wrote by then stays.
        if field.name() == "message" {
            write!(self.message, "{value:?}").ok();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).ok();
        }
    }
}

/// Sends the library's log, and llama.cpp's, to `on_log` up to `level`, one of inhouse_log_level; INHOUSE_LOG_OFF or
/// `on_log` NULL ends that. There is one log in a process: a second call takes the place of the first. Without one nothing
/// is logged anywhere.
///
/// Ownership: nothing changes hands; `user_data` is passed to `on_log` as it is. When the call returns, the callback that was
/// set before is not running any more and will not be called again.
/// Threads: any.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a level that is none; INHOUSE_STATUS_BUSY from inside the callback, and where a
/// program that contains the library as Rust code has a log of its own.
/// Null: `on_log`, `user_data` and `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_log_set(
    level: i32,
    on_log: inhouse_on_log,
    user_data: *mut c_void,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let set = || {
        let levels = inhouse_log_level::INHOUSE_LOG_OFF as i32..=inhouse_log_level::INHOUSE_LOG_TRACE as i32;
        if !levels.contains(&level) {
            return Err(Failure::invalid(format!("`level` {level} is no inhouse_log_level")));
        }
        let busy = |what: &str| Failure::new(inhouse_status::INHOUSE_STATUS_BUSY, what);
        if SPEAKING.get() {
            return Err(busy("the log cannot be changed from inside its callback"));
        }
        let sink = on_log.filter(|_| level > 0).map(|on_log| Sink { on_log, user_data });
        if sink.is_some() {
            static OURS: OnceLock<bool> = OnceLock::new();
            if !OURS.get_or_init(|| tracing::subscriber::set_global_default(ToHost).is_ok()) {
                return Err(busy("this process has a log of its own"));
            }
        }
        let mut place = SINK.write().unwrap_or_else(PoisonError::into_inner);
        LEVEL.store(if sink.is_some() { level } else { 0 }, Ordering::Relaxed);
        *place = sink;
        drop(place);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    };
    // SAFETY: the host promises that `error` can be written.
    unsafe { attempt(error, set) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::boundary::guard;

    unsafe extern "C" fn keep(user_data: *mut c_void, record: *const inhouse_log_record) {
        // SAFETY: the test below passes a list that outlives the callback, and `event` a whole record.
        let (list, record) = unsafe { (&*user_data.cast::<Mutex<Vec<(i32, String)>>>(), *record) };
        // SAFETY: the views are NUL-terminated texts of the stated length.
        let text = |view: inhouse_str| unsafe { view.read("text", 1 << 20) };
        let message = guard(|| text(record.message)).ok().flatten().unwrap_or_default();
        // Neither of these comes back here.
        tracing::error!("from inside the callback");
        // SAFETY: no pointer is passed.
        let status = unsafe { inhouse_log_set(0, None, std::ptr::null_mut(), std::ptr::null_mut()) };
        assert_eq!(status, inhouse_status::INHOUSE_STATUS_BUSY);
        if message.starts_with("log test") {
            list.lock().unwrap().push((record.level, message));
        }
    }

    #[test]
    fn the_log_reaches_the_host_by_level() {
        let seen: Mutex<Vec<(i32, String)>> = Mutex::default();
        let set = |level: i32, on_log: inhouse_on_log| {
            // SAFETY: `keep` is given its list, which lives until the log is off again.
            unsafe {
                inhouse_log_set(level, on_log, (&raw const seen).cast_mut().cast(), std::ptr::null_mut())
            }
        };
        tracing::error!("log test: before");
        assert_eq!(set(9, Some(keep)), inhouse_status::INHOUSE_STATUS_INVALID_ARGUMENT);
        assert_eq!(set(2, Some(keep)), inhouse_status::INHOUSE_STATUS_OK);
        let speak = || {
            tracing::warn!(rows = 3, name = "x", "log test: warn\n");
            tracing::debug!("log test: debug");
        };
        speak();
        assert_eq!(set(5, Some(keep)), inhouse_status::INHOUSE_STATUS_OK);
        speak();
        assert_eq!(set(5, None), inhouse_status::INHOUSE_STATUS_OK);
        speak();
        let warn = (2, "log test: warn rows=3 name=\"x\"".to_owned());
        assert_eq!(*seen.lock().unwrap(), [warn.clone(), warn, (4, "log test: debug".to_owned())]);
    }
}
