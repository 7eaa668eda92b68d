//! The wire types. Unknown fields are ignored, so that an older daemon serves a newer client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Version of the protocol, sent in [`Reply::Hello`].
pub const PROTOCOL_VERSION: u32 = 1;

/// No line on the wire is longer.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// What the daemon is and can do; answered by [`Reply::Hello`].
    Hello,
    /// Run one job; answered by [`Reply::Verdict`], or [`Reply::Error`] where the job itself is unusable.
    Run(Job),
    /// Forget a job of this connection that has not ended; answered by its verdict or [`Reply::Error`].
    Cancel {
        /// The job's id.
        id: String,
    },
    /// What the daemon has counted; answered by [`Reply::Metrics`].
    Metrics,
}

/// One piece of Python to run and the test that decides it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The client's name for it, unique among its unanswered jobs.
    pub id: String,
    /// The candidate: prompt + completion. Compiled and executed first.
    pub code: String,
    /// What decides: the problem's test and the call of `check`. Executed in the same namespace after `code`.
    #[serde(default)]
    pub test: String,
    /// The environment's name, as given to `evald serve --env`; empty: the first.
    #[serde(default)]
    pub env: String,
    /// Limits; fields that are absent take the daemon's defaults.
    #[serde(default)]
    pub limits: Limits,
    /// Whether the result carries what the job wrote to standard output and error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_output: bool,
    /// What the test is about: a name, or names and empty calls joined by dots (`Solution().solve`). Where the test defines
    /// `check` and does not call it, `check(entry_point)` is called after it, or `check()` where this is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entry_point: String,
    /// The part of `code` that the problem gives: an isolated test gets the problem's own functions and modules from it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prompt: String,
    /// Where the test runs; `None`, as clients of before this field send it: [`TrustWish::InProcess`], with results in the
    /// words that they know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustWish>,
    /// Runs `code` as a program by itself, as `python file.py` does: with this input and these files, and to its exit status.
    /// Such a job has no test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// What a program is given, and what is wanted of it besides its output, which the result always carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its standard input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    /// Files in its folder, before it starts: bytes in base64 by relative path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Relative paths of files whose bytes the result carries. They are read when the program has come to its end; what ends
    /// its process (`os._exit`, a signal, a limit) leaves none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<String>,
}

/// Where a job's test is to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustWish {
    /// Out of the candidate's reach where the test can run there, else in the candidate's process; the result says which, and why.
    #[default]
    Auto,
    /// Out of the candidate's reach; a test that cannot run there ends as [`Verdict::NoTest`].
    Isolated,
    /// In the candidate's process.
    InProcess,
}

impl TrustWish {
    /// The name on the wire and on command lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Isolated => "isolated",
            Self::InProcess => "in_process",
        }
    }
}

impl std::str::FromStr for TrustWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Isolated, Self::InProcess]
            .into_iter()
            .find(|wish| wish.as_str() == text)
            .ok_or_else(|| format!("no trust {text:?}: expected isolated, in_process or auto"))
    }
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello {
        /// [`PROTOCOL_VERSION`] of the daemon.
        protocol: u32,
        /// The daemon's version.
        version: String,
        /// The tier that runs jobs: `T0` to `T4`.
        tier: String,
        /// Names of its environments.
        envs: Vec<String>,
        /// Jobs it runs side by side.
        slots: usize,
        /// Unanswered requests it takes from one connection before it stops reading from it.
        #[serde(default = "default_max_in_flight")]
        max_in_flight: usize,
    },
    /// The end of one job.
    Verdict(JobResult),
    /// To [`Request::Metrics`].
    Metrics {
        /// Prometheus' text format, version 0.0.4.
        text: String,
    },
    /// A request that cannot be served.
    Error {
        /// The job it is about, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Why, for programs.
        #[serde(default)]
        code: ErrorCode,
        /// Why, in one line for people; programs go by the code.
        message: String,
    },
}

impl Reply {
    /// A [`Reply::Error`] about the job `id`, or about none.
    pub fn error(id: Option<String>, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Error { id, code, message: message.into() }
    }
}

/// Why a request cannot be served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The line is no request; the connection goes on.
    BadRequest,
    /// The line cannot be read (too long, not UTF-8, cut off); the daemon hangs up.
    BadLine,
    /// No environment has that name.
    UnknownEnv,
    /// A limit is out of the daemon's range.
    BadLimits,
    /// A job of that id of this connection has not ended. The reply carries no id, as it does not end that job.
    DuplicateId,
    /// The job was cancelled.
    Cancelled,
    /// There is no such job to cancel: it may just have ended. The reply carries no id.
    NothingToCancel,
    /// The daemon ends what runs and takes no more jobs; this one was not run.
    Stopping,
    /// This user may not connect; the daemon hangs up.
    Forbidden,
    /// The daemon has no room for this connection now (others, threads, memory); it hangs up.
    Busy,
    /// Another reason, or one that a newer daemon gives.
    #[default]
    #[serde(other)]
    Other,
}

fn default_max_in_flight() -> usize {
    16
}

/// How one job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// The job's id.
    pub id: String,
    /// How it ended.
    pub verdict: Verdict,
    /// True for [`Verdict::Passed`] alone.
    pub passed: bool,
    /// What the verdict may be trusted for.
    pub trust: Trust,
    /// Why that is not [`Trust::Isolated`], where more was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trust_reason: String,
    /// The tier that ran it: `T0` to `T4`.
    pub tier: String,
    /// CPU time used, in milliseconds.
    pub cpu_ms: f64,
    /// Wall-clock time from the candidate's start, in milliseconds.
    pub wall_ms: f64,
    /// One line for people: the exception and its line, the limit that was hit, the system call.
    #[serde(default)]
    pub detail: String,
    /// What the job wrote, where it asked for that ([`Job::keep_output`]): not to be trusted in any way. Bytes that are not
    /// UTF-8 are replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// What a program ([`Job::program`]) wrote to standard error; `output` then is its standard output alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub errors: String,
    /// A program's exit status, or minus the signal that ended it; `None`: it was ended by a limit, or did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// The files that were to be fetched, in base64; `None`: not there, no file, or beyond the limit on output, which these
    /// bytes count against.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Option<String>>,
}

/// How a job ended. A verdict is never [`Verdict::Passed`] because a record is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Code and test ran to their end.
    Passed,
    /// The code or the test raised.
    Failed,
    /// The code does not compile.
    CompileError,
    /// The CPU time limit.
    TimeoutCpu,
    /// The wall-clock limit.
    TimeoutWall,
    /// The memory limit.
    Oom,
    /// The output limit.
    OutputLimit,
    /// The file size or disk limit.
    DiskLimit,
    /// The process or thread limit.
    ProcLimit,
    /// A forbidden system call.
    PolicyViolation,
    /// Ended by a signal of its own (stack overflow, abort).
    Signaled,
    /// It ended without a record of its result: `os._exit`, `SystemExit`.
    NoVerdict,
    /// The record was forged or damaged.
    Tampered,
    /// The code ran, but its test did not: it asserted nothing, or cannot run where it was asked to.
    NoTest,
    /// The sandbox itself failed: retried, never counted in pass@k.
    InfraError,
}

impl Verdict {
    /// Every verdict, in the order of their declaration.
    pub const ALL: [Self; 15] = [
        Self::Passed,
        Self::Failed,
        Self::CompileError,
        Self::TimeoutCpu,
        Self::TimeoutWall,
        Self::Oom,
        Self::OutputLimit,
        Self::DiskLimit,
        Self::ProcLimit,
        Self::PolicyViolation,
        Self::Signaled,
        Self::NoVerdict,
        Self::Tampered,
        Self::NoTest,
        Self::InfraError,
    ];

    /// The name on the wire: `passed`, `timeout_cpu`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::CompileError => "compile_error",
            Self::TimeoutCpu => "timeout_cpu",
            Self::TimeoutWall => "timeout_wall",
            Self::Oom => "oom",
            Self::OutputLimit => "output_limit",
            Self::DiskLimit => "disk_limit",
            Self::ProcLimit => "proc_limit",
            Self::PolicyViolation => "policy_violation",
            Self::Signaled => "signaled",
            Self::NoVerdict => "no_verdict",
            Self::Tampered => "tampered",
            Self::NoTest => "no_test",
            Self::InfraError => "infra_error",
        }
    }
}

/// What a verdict may be trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trust {
    /// The test ran inside the candidate's interpreter, so a candidate that attacks its own test can pass: no more than
    /// the usual trust of HumanEval-style harnesses.
    InProcess,
    /// Decided outside the candidate's reach (limits, compile errors).
    Outside,
    /// The test ran in a process of its own, which the candidate reaches by the data of its answers alone.
    Isolated,
}

impl Trust {
    /// The name on the wire: `in_process`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "in_process",
            Self::Outside => "outside",
            Self::Isolated => "isolated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_other_versions_are_read() {
        for (text, want) in [
            (r#"{"reply":"error","code":"nothing_to_cancel","message":"m"}"#, ErrorCode::NothingToCancel),
            (r#"{"reply":"error","code":"of_the_future","message":"m"}"#, ErrorCode::Other),
            (r#"{"reply":"error","message":"of the past"}"#, ErrorCode::Other),
        ] {
            let reply: Reply = serde_json::from_str(text).expect(text);
            assert!(matches!(reply, Reply::Error { id: None, code, .. } if code == want), "{reply:?}");
        }
        let reply = Reply::error(Some("x".into()), ErrorCode::UnknownEnv, "no");
        let text = serde_json::to_string(&reply).expect("text");
        assert_eq!(text, r#"{"reply":"error","id":"x","code":"unknown_env","message":"no"}"#);
        assert_eq!(serde_json::from_str::<Reply>(&text).ok(), Some(reply));
    }
}
