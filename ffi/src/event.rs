//! What a host sees while a completion is written.

use std::ffi::c_void;
use std::mem::size_of;
use std::ops::ControlFlow;

use inhouse::{Event, FinishReason};

use crate::strings::inhouse_str;

/// What an event tells: values of `inhouse_event.kind`. Hosts must pass over kinds that they do not know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_event_kind {
    /// More text of a completion.
    INHOUSE_EVENT_TEXT = 1,
    /// A completion is finished.
    INHOUSE_EVENT_FINISHED = 2,
}

/// Why a completion ended. Hosts must expect values that they do not know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_finish_reason {
    /// It has not ended, there is no such completion, or the reason has no number of its own.
    INHOUSE_FINISH_UNKNOWN = 0,
    /// A stop string; the text ends before it.
    INHOUSE_FINISH_STOP = 1,
    /// The model ended the text.
    INHOUSE_FINISH_END_OF_TEXT = 2,
    /// `max_tokens` were written.
    INHOUSE_FINISH_LENGTH = 3,
    /// The context or the cache is full.
    INHOUSE_FINISH_CONTEXT_FULL = 4,
    /// The host cancelled, by its token or from the callback; the text is what was there by then.
    INHOUSE_FINISH_CANCELLED = 5,
    /// The deadline passed; the text is what was there by then.
    INHOUSE_FINISH_DEADLINE = 6,
}

impl From<FinishReason> for inhouse_finish_reason {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => Self::INHOUSE_FINISH_STOP,
            FinishReason::EndOfText => Self::INHOUSE_FINISH_END_OF_TEXT,
            FinishReason::Length => Self::INHOUSE_FINISH_LENGTH,
            FinishReason::ContextFull => Self::INHOUSE_FINISH_CONTEXT_FULL,
            FinishReason::Cancelled => Self::INHOUSE_FINISH_CANCELLED,
            FinishReason::Deadline => Self::INHOUSE_FINISH_DEADLINE,
            _ => Self::INHOUSE_FINISH_UNKNOWN,
        }
    }
}

/// One event, valid during the callback only.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_event {
    /// Size of the struct in bytes as the library knows it; fields are only ever appended.
    pub struct_size: usize,
    /// INHOUSE_EVENT_TEXT: the new text, whole characters, never part of a stop string; the texts of a completion's
    /// events are together its text. INHOUSE_EVENT_FINISHED: the whole text.
    pub text: inhouse_str,
    /// One of inhouse_event_kind.
    pub kind: i32,
    /// The completion, below `n_completions`; events of several completions interleave.
    pub completion_idx: u32,
    /// INHOUSE_EVENT_FINISHED: one of inhouse_finish_reason; else INHOUSE_FINISH_UNKNOWN.
    pub finish_reason: i32,
    /// INHOUSE_EVENT_FINISHED: tokens written for the completion; else 0.
    pub completion_tokens: u32,
}

/// Receives the events of a completion, on the thread that called inhouse_session_complete(), before that returns.
/// `event` and its text are valid until the callback returns. Returns 0 to go on; anything else ends the call, every
/// unfinished completion with INHOUSE_FINISH_CANCELLED, and no event follows.
///
/// The callback may call every function of this header; the session it is called from answers INHOUSE_STATUS_BUSY. It
/// must return normally: no longjmp and no C++ exception may leave it.
pub type inhouse_on_event =
    Option<unsafe extern "C" fn(user_data: *mut c_void, event: *const inhouse_event) -> i32>;

/// Passes the engine's events to a host's callback.
pub(crate) struct Listener {
    on_event: inhouse_on_event,
    user_data: *mut c_void,
    /// The text of the event with its NUL byte; kept for its allocation.
    buffer: Vec<u8>,
    stopped: bool,
}

impl Listener {
    pub(crate) fn new(on_event: inhouse_on_event, user_data: *mut c_void) -> Self {
        Self { on_event, user_data, buffer: Vec::new(), stopped: false }
    }

    /// Tells the host. After it asked to stop it hears nothing more.
    ///
    /// # Safety
    /// `on_event` can be called with `user_data` now.
    pub(crate) unsafe fn tell(&mut self, event: Event<'_>) -> ControlFlow<()> {
        let Some(on_event) = self.on_event else { return ControlFlow::Continue(()) };
        if self.stopped {
            return ControlFlow::Break(());
        }
        let unknown = inhouse_finish_reason::INHOUSE_FINISH_UNKNOWN;
        let (kind, idx, text, reason, tokens) = match event {
            Event::Text { index, text } => (inhouse_event_kind::INHOUSE_EVENT_TEXT, index, text, unknown, 0),
            Event::Finished(done) => (
                inhouse_event_kind::INHOUSE_EVENT_FINISHED,
                done.index,
                done.text.as_str(),
                done.finish_reason.into(),
                done.completion_tokens,
            ),
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(0);
        let event = inhouse_event {
            struct_size: size_of::<inhouse_event>(),
            text: inhouse_str { data: self.buffer.as_ptr().cast(), len: text.len() },
            kind: kind as i32,
            completion_idx: u32::try_from(idx).unwrap_or(u32::MAX),
            finish_reason: reason as i32,
            completion_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        };
        // SAFETY: the caller's promise; `event` and its text outlive the call.
        self.stopped = unsafe { on_event(self.user_data, &raw const event) } != 0;
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use inhouse::Completion;

    use super::*;

    unsafe extern "C" fn record(user_data: *mut c_void, event: *const inhouse_event) -> i32 {
        // SAFETY: the test below passes a vector, and `tell` an event with a NUL-terminated text.
        let (seen, event, text) = unsafe {
            let event = *event;
            let text = std::slice::from_raw_parts(event.text.data.cast::<u8>(), event.text.len + 1);
            (&mut *user_data.cast::<Vec<(i32, u32, String, i32)>>(), event, text)
        };
        seen.push((
            event.kind,
            event.completion_idx,
            String::from_utf8_lossy(text).into(),
            event.finish_reason,
        ));
        i32::from(seen.len() == 2)
    }

    #[test]
    fn events_reach_the_host_until_it_stops() {
        let mut seen: Vec<(i32, u32, String, i32)> = Vec::new();
        let mut listener = Listener::new(Some(record), (&raw mut seen).cast());
        let done = Completion {
            index: 3,
            text: "".into(),
            finish_reason: FinishReason::EndOfText,
            completion_tokens: 5,
            log_probabilities: None,
        };
        // SAFETY: `record` is given its vector.
        unsafe {
            assert!(listener.tell(Event::Text { index: 1, text: "é(" }).is_continue());
            assert!(listener.tell(Event::Finished(&done)).is_break());
            assert!(listener.tell(Event::Text { index: 1, text: "x" }).is_break());
        }
        assert_eq!(seen, [(1, 1, "é(\0".into(), 0), (2, 3, "\0".into(), 2)]);
        let mut nobody = Listener::new(None, std::ptr::null_mut());
        // SAFETY: nothing is called.
        assert!(unsafe { nobody.tell(Event::Finished(&done)) }.is_continue());
    }
}
