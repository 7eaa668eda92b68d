//! What runs within the walls: a candidate and its test in one interpreter, or one of them beside the other's process.

use std::os::fd::RawFd;

use crate::cpython::{CODE_FILE, Cpython, HARNESS_FILE, Raised, RaisedKind, TEST_FILE};
use crate::message::{Role, SlotJob};
use crate::record::Kind;
use crate::seccomp::REFUSED;
use crate::testing;

/// How a sample comes to an end that is no pass.
pub enum End {
    /// Told by a record.
    Told(Kind, String),
    /// By an end of its (emulated) process.
    Exit(i32),
}

/// The texts of a sample, as its role has them: a judge gets the problem's prompt in the place of the code.
pub struct Texts {
    /// The candidate, or the prompt.
    pub code: String,
    /// The test.
    pub test: String,
    /// A program's standard input.
    pub stdin: Vec<u8>,
    /// A program's files.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Runs what the role says. `Ok`: to its end, which for a judge is that the test has passed; with what is to be said of it.
pub fn run<C: Cpython>(
    python: &mut C,
    job: &SlotJob,
    texts: &Texts,
    line: RawFd,
    ready: impl FnOnce(),
) -> Result<String, End> {
    match job.role {
        Role::Whole => whole(python, texts, &job.entry).map(|()| String::new()),
        Role::Candidate => {
            let code = compile_code(python, &texts.code)?;
            let serve = harness_code(python, &format!("serve({line})\n"))?;
            let namespace = begin(python, &texts.code, CODE_FILE)?;
            run_program(python, code, namespace)?;
            ready();
            let harness = python.harness();
            python.run(serve, harness).map_err(classify)?;
            Err(End::Told(Kind::Served, String::new()))
        }
        Role::Judge { compare } => judge(python, texts, &job.entry, compare, line),
        Role::Program => program(python, texts),
    }
}

/// Runs a program as a script is run: an exception is shown on standard error, and what it has left to do at its end is done.
fn program<C: Cpython>(python: &mut C, texts: &Texts) -> Result<String, End> {
    crate::program::lay_out(&texts.files).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            End::Told(Kind::Disk, "its files are more than its folder takes".into())
        }
        _ => End::Told(Kind::Failed, format!("cannot lay out its files: {error}")),
    })?;
    compile_code(python, &texts.code).inspect_err(|end| {
        if let End::Told(_, text) = end {
            eprintln!("{text}");
        }
    })?;
    let run = harness_code(python, &format!("program({})\n", literal(&texts.code)))?;
    let harness = python.harness();
    run_program(python, run, harness).map(|()| String::new())
}

/// What has the interpreter write what it holds back of its output.
pub fn flushing<C: Cpython>(python: &mut C) -> Option<C::Code> {
    harness_code(python, "flush()\n").ok()
}

/// The exit status of a program that ended so: CPython's.
pub fn exit_status(kind: Kind, text: &str) -> u64 {
    match kind {
        Kind::Passed => 0,
        Kind::Exited => {
            let status = text.strip_prefix("SystemExit: ").unwrap_or_default().split(" (line ").next();
            status.and_then(|status| status.parse::<i64>().ok()).map_or(1, |status| (status & 0xff) as u64)
        }
        _ => 1,
    }
}

fn compile_code<C: Cpython>(python: &mut C, code: &str) -> Result<C::Code, End> {
    python.compile(code, CODE_FILE).map_err(|raised| match raised.kind {
        RaisedKind::Memory | RaisedKind::Ended(_) | RaisedKind::Trapped => classify(raised),
        _ => End::Told(Kind::CompileError, raised.text),
    })
}

/// Runs a program that a test follows. As a script it may end with success before its text does.
fn run_program<C: Cpython>(python: &mut C, code: C::Code, namespace: C::Namespace) -> Result<(), End> {
    match python.run(code, namespace) {
        Err(Raised { kind: RaisedKind::SystemExit, text }) if ends_well(&text) => Ok(()),
        other => other.map_err(classify),
    }
}

/// Whether a SystemExit, as text, has the status 0.
fn ends_well(text: &str) -> bool {
    let status = text.strip_prefix("SystemExit").unwrap_or("1");
    let status = status.split(" (line ").next().unwrap_or_default();
    matches!(status.trim_start_matches(": "), "" | "0" | "None" | "False")
}

fn harness_code<C: Cpython>(python: &mut C, text: &str) -> Result<C::Code, End> {
    python.compile(text, HARNESS_FILE).map_err(classify)
}

/// Empties `__main__` for a program, whose source then is known by its file's name.
fn begin<C: Cpython>(python: &mut C, code: &str, file: &str) -> Result<C::Namespace, End> {
    let text = format!("begin({}, {})\n", literal(code), literal(file));
    let code = harness_code(python, &text)?;
    let harness = python.harness();
    python.run(code, harness).map_err(classify)?;
    python.namespace().ok_or_else(|| End::Told(Kind::Memory, "no memory for a namespace".into()))
}

/// Compiles code and test and runs both in `__main__`, then what the test has only defined.
fn whole<C: Cpython>(python: &mut C, texts: &Texts, entry: &str) -> Result<(), End> {
    let code = compile_code(python, &texts.code)?;
    // Before the candidate runs, so that it cannot have a hand in how its test is read.
    let marked = testing::marked(&texts.test);
    let test = python
        .compile(&marked.text, TEST_FILE)
        .map_err(|raised| End::Told(Kind::Failed, format!("the test does not compile: {}", raised.text)))?;
    let flags = format!("{}, {}", flag(marked.understood), flag(marked.checks_itself));
    let (text, spans) = (literal(&texts.test), literal(&marked.spans));
    let watch = harness_code(python, &format!("deciding = watched({text}, {spans}, {flags})\n"))?;
    let decide = harness_code(python, &format!("decided(deciding, {})\n", literal(entry)))?;
    let namespace = begin(python, &texts.code, CODE_FILE)?;
    if texts.test.is_empty() && entry.is_empty() {
        // A program by itself.
        return python.run(code, namespace).map_err(classify);
    }
    run_program(python, code, namespace)?;
    let harness = python.harness();
    python.run(watch, harness).map_err(classify)?;
    match python.run(test, namespace) {
        Err(Raised { kind: RaisedKind::TestExit(true), .. }) => {}
        other => other.map_err(classify)?,
    }
    python.run(decide, harness).map_err(classify)
}

/// Runs a test that asks a candidate in another process.
fn judge<C: Cpython>(
    python: &mut C,
    texts: &Texts,
    entry: &str,
    compare: bool,
    line: RawFd,
) -> Result<String, End> {
    let marked = testing::marked(&texts.test);
    let arguments = [&marked.text, &texts.test, &texts.code, entry, &marked.spans].map(literal).join(", ");
    let flags = [marked.understood, marked.checks_itself, compare].map(flag).join(", ");
    let code = harness_code(python, &format!("tell(judge({line}, {arguments}, {flags}))\n"))?;
    begin(python, &texts.test, TEST_FILE)?;
    let harness = python.harness();
    let said = match python.run(code, harness) {
        Err(raised) => raised,
        Ok(()) => return Err(End::Told(Kind::Failed, "the judge said nothing".into())),
    };
    let Some((kind, text)) = said.text.strip_prefix("Said: ").and_then(|said| said.split_once('|')) else {
        return Err(classify(said));
    };
    let kind = match kind {
        "passed" => return Ok(text.to_owned()),
        "no_test" => Kind::NoTest,
        "needs" => Kind::Needs,
        "gone" => Kind::Gone,
        "exited" => Kind::Exited,
        "memory" => Kind::Memory,
        "disk" => Kind::Disk,
        "processes" => Kind::Processes,
        _ => Kind::Failed,
    };
    Err(End::Told(kind, text.to_owned()))
}

fn flag(on: bool) -> &'static str {
    if on { "True" } else { "False" }
}

/// A text as a Python string literal: JSON's escapes are Python's.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether this process can start no thread now.
fn no_more_threads() -> bool {
    std::thread::Builder::new().stack_size(64 << 10).spawn(|| ()).is_err()
}

/// Which end an exception is.
pub fn classify(raised: Raised) -> End {
    let kind = match raised.kind {
        RaisedKind::SystemExit => Kind::Exited,
        RaisedKind::Memory => Kind::Memory,
        RaisedKind::Os(number) => match number as i32 {
            libc::ENOMEM => Kind::Memory,
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Kind::Disk,
            REFUSED => Kind::Processes,
            // A read that would block says that too. Where it was the limit, it is still reached, or is no more to blame.
            libc::EAGAIN if no_more_threads() => Kind::Processes,
            _ => Kind::Failed,
        },
        RaisedKind::Runtime if raised.text.contains("can't start new thread") => Kind::Processes,
        // A class of that name of the candidate's own is no pass either.
        RaisedKind::Other if raised.text.starts_with("NoTest: ") => {
            return End::Told(Kind::NoTest, raised.text["NoTest: ".len()..].to_owned());
        }
        RaisedKind::Runtime | RaisedKind::Other | RaisedKind::TestExit(_) => Kind::Failed,
        RaisedKind::Trapped => Kind::Crashed,
        RaisedKind::Ended(status) => return End::Exit(status),
    };
    End::Told(kind, raised.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_that_of_a_process() {
        for (text, status) in [
            ("SystemExit: 3 (line 4)", 3),
            ("SystemExit: 256", 0),
            ("SystemExit: -1", 255),
            ("SystemExit: no luck (line 1)", 1),
        ] {
            assert_eq!(exit_status(Kind::Exited, text), status, "{text}");
        }
        assert_eq!((exit_status(Kind::Passed, ""), exit_status(Kind::Failed, "ValueError: 7")), (0, 1));
    }

    #[test]
    fn only_a_status_of_0_is_a_good_end() {
        for (text, well) in [
            ("SystemExit", true),
            ("SystemExit (line 4)", true),
            ("SystemExit: 0 (line 4)", true),
            ("SystemExit: 1 (line 4)", false),
            ("SystemExit: no", false),
            ("ValueError: 0", false),
        ] {
            assert_eq!(ends_well(text), well, "{text}");
        }
    }
}
