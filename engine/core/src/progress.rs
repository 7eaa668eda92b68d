//! Progress of long work, told to whoever watches: a bar, JSON lines, a C callback or nobody.

use crate::Result;

/// Receives the progress of one piece of work. Calls may come from several threads.
pub trait Progress: Send + Sync {
    /// Work called `what` begins; `total` steps where it is known.
    fn start(&self, what: &str, total: Option<u64>);
    /// `steps` more steps are done.
    fn advance(&self, steps: u64);
    /// Something the user should read now, without an end to the work (a skipped file, a retry).
    fn note(&self, message: &str);
    /// The work is over.
    fn finish(&self);
    /// Asked by the work between its steps: whether to go on.
    ///
    /// # Errors
    /// Whoever watches wants it to end ([`crate::ErrorKind::Cancelled`]); the work returns the error and leaves what it
    /// was to replace as it was. Asked again, the answer is the same.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _message: &str) {}
    fn finish(&self) {}
}
