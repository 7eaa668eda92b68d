//! What the zygotes ask of CPython: as native code of their own process (T0 to T3), or as WebAssembly in it (T4).

use std::io;

use crate::limits::Limits;

/// Why a piece of Python did not end well.
#[derive(Debug)]
pub struct Raised {
    /// The exception's class.
    pub kind: RaisedKind,
    /// `Type: message (line N)`.
    pub text: String,
}

/// Exceptions that have a verdict of their own, and ends that are none (WebAssembly only: native code takes its process along).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaisedKind {
    /// SystemExit, by the candidate or by whom nobody knows.
    SystemExit,
    /// SystemExit by the test itself, as `unittest.main` ends; whether with success.
    TestExit(bool),
    /// MemoryError.
    Memory,
    /// An OSError with this number.
    Os(i64),
    /// RuntimeError.
    Runtime,
    /// Anything else.
    Other,
    /// The program asked for the end of its process, with this status.
    Ended(i32),
    /// The machine stopped it: stack overflow, an abort, an access outside of its memory.
    Trapped,
}

/// The file name of candidates in tracebacks.
pub const CODE_FILE: &str = "<candidate>";
/// The file name of tests in tracebacks.
pub const TEST_FILE: &str = "<test>";
/// The file name of what the harness itself runs.
pub const HARNESS_FILE: &str = "<evald>";
/// Longest message of an exception that is looked at, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 600;
/// A traceback is followed no further.
pub const DEEPEST_TRACEBACK: usize = 100_000;

impl Raised {
    /// What a person is told of an exception: class, message, and the innermost line of the candidate or its test.
    pub fn new(kind: RaisedKind, class: String, message: &str, place: Option<(String, i64)>) -> Self {
        let mut text = class;
        if !message.is_empty() {
            text.push_str(": ");
            text.push_str(&message.replace(['\n', '\r'], " "));
        }
        if let Some((file, line)) = place {
            let part = if file == TEST_FILE { "test line" } else { "line" };
            text.push_str(&format!(" ({part} {line})"));
        }
        Self { kind, text }
    }
}

/// An interpreter with its libraries imported, which samples are forked from.
pub trait Cpython {
    /// Compiled code.
    type Code: Copy;
    /// The dict in which code runs.
    type Namespace: Copy;

    /// Forks. The child gets `None`.
    ///
    /// # Errors
    /// As fork(2).
    fn fork(&mut self) -> io::Result<Option<i32>>;

    /// In a sample: what the interpreter has to enforce of the limits by itself.
    fn limit(&mut self, limits: &Limits);

    /// In a sample: fresh seeds for the random generators.
    ///
    /// # Errors
    /// What that raised.
    fn reseed(&mut self) -> Result<(), Raised>;

    /// Compiles a whole source text, like `compile(source, file_name, "exec", dont_inherit=True)`.
    ///
    /// # Errors
    /// What the compiler raised.
    fn compile(&mut self, source: &str, file_name: &str) -> Result<Self::Code, Raised>;

    /// The namespace of `__main__`, as Python has it before it runs a script; `None` without memory for it.
    fn namespace(&mut self) -> Option<Self::Namespace>;

    /// Where the harness's own Python is defined (see `testing`).
    fn harness(&self) -> Self::Namespace;

    /// Runs code in a namespace.
    ///
    /// # Errors
    /// What it raised.
    fn run(&mut self, code: Self::Code, namespace: Self::Namespace) -> Result<(), Raised>;
}
