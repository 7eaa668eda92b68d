//! What a host sees of long work, and how it ends it.

use std::ffi::c_void;
use std::mem::size_of;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use inhouse::{CancelToken, Error, ErrorKind, Progress};

use crate::strings::{Text, inhouse_str};

/// Steps are told this often at most; the end of a piece of work is always told.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// What a host is told of long work: values of `inhouse_progress.kind`. Hosts must pass over kinds that they do not know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_progress_kind {
    /// A piece of work begins.
    INHOUSE_PROGRESS_STARTED = 1,
    /// More of its steps are done.
    INHOUSE_PROGRESS_ADVANCED = 2,
    /// Something that a person should read now, without an end to the work.
    INHOUSE_PROGRESS_NOTE = 3,
    /// The piece of work is done; another may follow.
    INHOUSE_PROGRESS_FINISHED = 4,
}

/// How far a piece of work is; valid during the callback only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_progress {
    /// Size of the struct in bytes as the library knows it; fields are only ever appended.
    pub struct_size: usize,
    /// What is being done, for people; with INHOUSE_PROGRESS_NOTE the note.
    pub text: inhouse_str,
    /// Steps that are done.
    pub done: u64,
    /// Steps in all; 0 where that is not known.
    pub total: u64,
    /// One of inhouse_progress_kind.
    pub kind: i32,
    /// Zero.
    pub reserved: u32,
}

/// Receives the progress of long work, before the call that does it returns; from any thread, but never two at the same
/// time. `progress` and its text are valid until the callback returns. Returns 0 to go on; anything else ends the work
/// at its next step, and the call returns INHOUSE_STATUS_CANCELLED. What it was to replace is then as it was.
///
/// The callback may call every function of this header. It must return normally: no longjmp and no C++ exception may
/// leave it.
pub type inhouse_on_progress =
    Option<unsafe extern "C" fn(user_data: *mut c_void, progress: *const inhouse_progress) -> i32>;

/// Passes the progress of one call to a host's callback, and the host's wish to end it to the work.
pub(crate) struct Watcher {
    on_progress: inhouse_on_progress,
    user_data: *mut c_void,
    cancel: CancelToken,
    state: Mutex<State>,
}

struct State {
    what: Text,
    done: u64,
    total: u64,
    told: Instant,
    stopped: bool,
}

// SAFETY: the only part that is not Send and Sync by itself is `user_data`, which is never followed here, only passed to
// the host's callback; the host promises that it may be called from any thread, one at a time, which the mutex sees to.
unsafe impl Send for Watcher {}
// SAFETY: as above.
unsafe impl Sync for Watcher {}

impl Watcher {
    /// # Safety
    /// `on_progress` can be called with `user_data` from any thread as long as the watcher lives.
    pub(crate) unsafe fn new(
        on_progress: inhouse_on_progress,
        user_data: *mut c_void,
        cancel: CancelToken,
    ) -> Self {
        let state = State { what: "".into(), done: 0, total: 0, told: Instant::now(), stopped: false };
        Self { on_progress, user_data, cancel, state: Mutex::new(state) }
    }

    fn tell(&self, kind: inhouse_progress_kind, note: Option<&str>, change: impl FnOnce(&mut State)) {
        // A panic elsewhere must not silence the callback: the state is numbers, whole at any time.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let Some(on_progress) = self.on_progress.filter(|_| !state.stopped) else { return };
        let advanced = kind == inhouse_progress_kind::INHOUSE_PROGRESS_ADVANCED;
        if advanced && state.done != state.total && state.told.elapsed() < TELL_EVERY {
            return;
        }
        let note = note.map(Text::from);
        let progress = inhouse_progress {
            struct_size: size_of::<inhouse_progress>(),
            text: note.as_ref().unwrap_or(&state.what).view(),
            done: state.done,
            total: state.total,
            kind: kind as i32,
            reserved: 0,
        };
        // SAFETY: the promise of `new`; `progress` and its text outlive the call.
        let stop = unsafe { on_progress(self.user_data, &raw const progress) } != 0;
        state.told = Instant::now();
        state.stopped |= stop;
    }
}

impl Progress for Watcher {
    fn start(&self, what: &str, total: Option<u64>) {
        self.tell(inhouse_progress_kind::INHOUSE_PROGRESS_STARTED, None, |state| {
            (state.what, state.done, state.total) = (what.into(), 0, total.unwrap_or(0));
        });
    }

    fn advance(&self, steps: u64) {
        self.tell(inhouse_progress_kind::INHOUSE_PROGRESS_ADVANCED, None, |state| {
            state.done = state.done.saturating_add(steps);
        });
    }

    fn note(&self, message: &str) {
        self.tell(inhouse_progress_kind::INHOUSE_PROGRESS_NOTE, Some(message), |_| {});
    }

    fn finish(&self) {
        self.tell(inhouse_progress_kind::INHOUSE_PROGRESS_FINISHED, None, |_| {});
    }

    fn check(&self) -> inhouse::Result<()> {
        self.cancel.check()?;
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped {
            return Err(Error::new(ErrorKind::Cancelled, "the progress callback ended the work"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn record(user_data: *mut c_void, progress: *const inhouse_progress) -> i32 {
        // SAFETY: the test below passes a vector, and `tell` a whole struct with a NUL-terminated text.
        let (seen, progress, text) = unsafe {
            let progress = *progress;
            let text = std::slice::from_raw_parts(progress.text.data.cast::<u8>(), progress.text.len + 1);
            (&mut *user_data.cast::<Vec<(i32, String, u64, u64)>>(), progress, text)
        };
        seen.push((progress.kind, String::from_utf8_lossy(text).into(), progress.done, progress.total));
        i32::from(progress.kind == inhouse_progress_kind::INHOUSE_PROGRESS_NOTE as i32)
    }

    #[test]
    fn work_is_told_until_the_host_ends_it() {
        let mut seen: Vec<(i32, String, u64, u64)> = Vec::new();
        let token = CancelToken::new();
        // SAFETY: `record` is given its vector, which outlives the watcher.
        let watcher = unsafe { Watcher::new(Some(record), (&raw mut seen).cast(), token.clone()) };
        watcher.start("reading", Some(3));
        watcher.advance(1); // too soon to be told
        watcher.advance(2);
        watcher.finish();
        assert!(watcher.check().is_ok());
        watcher.note("a file was passed over");
        let kinds = [ErrorKind::Cancelled; 2];
        assert_eq!([(); 2].map(|()| watcher.check().unwrap_err().kind()), kinds);
        watcher.start("more", None);
        drop(watcher);
        let told = |kind, text: &str, done| (kind, format!("{text}\0"), done, 3);
        let note = told(3, "a file was passed over", 3);
        assert_eq!(seen, [told(1, "reading", 0), told(2, "reading", 3), told(4, "reading", 3), note]);
        // SAFETY: nothing is called.
        let nobody = unsafe { Watcher::new(None, std::ptr::null_mut(), token.clone()) };
        nobody.start("x", None);
        assert!(nobody.check().is_ok());
        token.cancel();
        assert_eq!(nobody.check().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
