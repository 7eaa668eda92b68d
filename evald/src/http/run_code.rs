//! SandboxFusion's `/run_code`: its request, and a result in its form with evald's beside it.

use std::collections::BTreeMap;

use evald_proto::{Job, JobResult, Limits, Program, TrustWish, Verdict};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Refusal;

/// Seconds, where a request says nothing; SandboxFusion's.
const USUAL_TIMEOUT: f64 = 10.0;

/// What is asked. Fields that it does not have are ignored, as there.
#[derive(Debug, Deserialize)]
pub struct Asked {
    code: String,
    language: String,
    /// Seconds of CPU time, and of wall-clock time without what others hold up.
    #[serde(default = "usual_timeout")]
    run_timeout: f64,
    /// MiB; less than 1: as the daemon has it.
    #[serde(default, rename = "memory_limit_MB")]
    memory_limit_mb: f64,
    #[serde(default)]
    stdin: Option<String>,
    /// Bytes in base64 by path.
    #[serde(default)]
    files: BTreeMap<String, Option<String>>,
    #[serde(default)]
    fetch_files: Vec<String>,
    /// evald's own: the environment's name; the first where it is empty.
    #[serde(default)]
    env: String,
}

fn usual_timeout() -> f64 {
    USUAL_TIMEOUT
}

/// How a request's code was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As a program.
    Program,
    /// As a file of tests.
    Tests,
}

impl Asked {
    /// The job that does it.
    ///
    /// # Errors
    /// Another language than Python, or a value that makes no sense.
    pub fn job(self) -> Result<(Job, Shape), Refusal> {
        let refuse = |detail: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        let shape = match self.language.as_str() {
            "python" => Shape::Program,
            "pytest" => Shape::Tests,
            other => {
                return Err(refuse(format!(
                    "language {other:?}: this is evald, which runs python and pytest"
                )));
            }
        };
        if !(self.run_timeout > 0.0 && self.run_timeout <= 1e6) {
            return Err(refuse(format!("run_timeout {} is no number of seconds", self.run_timeout)));
        }
        let timeout = (self.run_timeout * 1e3).ceil() as u64;
        let memory =
            (self.memory_limit_mb >= 1.0).then(|| (self.memory_limit_mb * (1u64 << 20) as f64) as u64);
        let limits = Limits {
            cpu_ms: Some(timeout),
            wall_ms: Some(timeout),
            memory_bytes: memory,
            ..Limits::default()
        };
        let trust = Some(TrustWish::InProcess);
        let job = Job { env: self.env, limits, keep_output: true, trust, ..Job::default() };
        if shape == Shape::Tests {
            let given = self.stdin.is_some_and(|text| !text.is_empty());
            if given || !self.files.is_empty() || !self.fetch_files.is_empty() {
                return Err(refuse("language \"pytest\" takes no stdin, files or fetch_files here".into()));
            }
            return Ok((Job { test: self.code, ..job }, shape));
        }
        let program = Program {
            stdin: self.stdin.unwrap_or_default(),
            files: self.files.into_iter().map(|(path, bytes)| (path, bytes.unwrap_or_default())).collect(),
            fetch: self.fetch_files,
        };
        Ok((Job { code: self.code, program: Some(program), ..job }, shape))
    }
}

/// What is said.
#[derive(Debug, Serialize)]
pub struct Said {
    status: &'static str,
    message: String,
    /// Python is not compiled beforehand.
    compile_result: Option<()>,
    run_result: Option<Ran>,
    executor_pod_name: Option<()>,
    files: BTreeMap<String, String>,
    /// evald's own result, without what stands above.
    evald: JobResult,
}

#[derive(Debug, Serialize)]
struct Ran {
    status: &'static str,
    /// Seconds.
    execution_time: f64,
    return_code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A result in SandboxFusion's form.
pub fn said(mut result: JobResult, shape: Shape) -> Said {
    let (stdout, mut stderr) = (std::mem::take(&mut result.output), std::mem::take(&mut result.errors));
    let (mut files, mut missing) = (BTreeMap::new(), Vec::new());
    for (path, bytes) in std::mem::take(&mut result.files) {
        match bytes {
            Some(bytes) => drop(files.insert(path, bytes)),
            None => missing.push(path),
        }
    }
    let out_of_time = matches!(result.verdict, Verdict::TimeoutCpu | Verdict::TimeoutWall);
    let return_code = match (result.verdict, shape) {
        _ if out_of_time => None,
        (Verdict::Passed, _) => Some(0),
        // pytest's status where it finds no test.
        (Verdict::NoTest, Shape::Tests) => Some(5),
        (_, Shape::Tests) => Some(1),
        // Ended by a limit: as if killed.
        (_, Shape::Program) => Some(result.exit_status.unwrap_or(-libc::SIGKILL)),
    };
    // What a program did not say itself: why it was ended, what the tests found.
    if stderr.is_empty() && return_code != Some(0) && !result.detail.is_empty() {
        stderr = format!("{}\n", result.detail);
    }
    let broken = result.verdict == Verdict::InfraError;
    let ran = Ran {
        status: if out_of_time { "TimeLimitExceeded" } else { "Finished" },
        execution_time: result.wall_ms / 1e3,
        return_code,
        stdout,
        stderr,
    };
    let status = match return_code {
        _ if broken => "SandboxError",
        Some(0) => "Success",
        _ => "Failed",
    };
    let message = match (broken, missing.is_empty()) {
        (true, _) => result.detail.clone(),
        (false, true) => String::new(),
        (false, false) => format!("could not fetch {}", missing.join(", ")),
    };
    Said {
        status,
        message,
        compile_result: None,
        run_result: (!broken).then_some(ran),
        executor_pod_name: None,
        files,
        evald: result,
    }
}

#[cfg(test)]
mod tests {
    use evald_proto::Trust;

    use super::*;

    fn asked(text: &str) -> Result<(Job, Shape), Refusal> {
        serde_json::from_str::<Asked>(text).expect(text).job()
    }

    #[test]
    fn a_request_is_a_job() {
        let (job, shape) = asked(
            r#"{"code": "c", "language": "python", "compile_timeout": 1, "run_timeout": 2.5, "memory_limit_MB": 64,
                "stdin": "in", "files": {"a": "eA==", "b": null}, "fetch_files": ["c"], "more": 1}"#,
        )
        .expect("a job");
        let program = job.program.expect("a program");
        assert_eq!((job.code.as_str(), shape, program.stdin.as_str()), ("c", Shape::Program, "in"));
        assert_eq!((job.limits.cpu_ms, job.limits.wall_ms), (Some(2500), Some(2500)));
        assert_eq!(job.limits.memory_bytes, Some(64 << 20));
        assert_eq!((program.files.len(), program.fetch), (2, vec!["c".to_owned()]));
        let (job, _) = asked(r#"{"code": "c", "language": "python", "memory_limit_MB": -1, "stdin": null}"#)
            .expect("a job");
        assert_eq!((job.limits.cpu_ms, job.limits.memory_bytes), (Some(10_000), None));
        let (job, shape) = asked(r#"{"code": "t", "language": "pytest"}"#).expect("a job");
        assert_eq!((job.test.as_str(), shape, job.program), ("t", Shape::Tests, None));
        for bad in [
            r#"{"code": "c", "language": "cpp"}"#,
            r#"{"code": "c", "language": "python", "run_timeout": 0}"#,
            r#"{"code": "c", "language": "python", "run_timeout": -1e300}"#,
            r#"{"code": "c", "language": "pytest", "stdin": "x"}"#,
        ] {
            assert_eq!(asked(bad).expect_err(bad).status, 422, "{bad}");
        }
    }

    #[test]
    fn every_verdict_has_its_status() {
        for verdict in Verdict::ALL {
            let result = |exit_status| JobResult {
                id: String::new(),
                verdict,
                passed: verdict == Verdict::Passed,
                trust: Trust::InProcess,
                trust_reason: String::new(),
                tier: "T2".into(),
                cpu_ms: 1.0,
                wall_ms: 2000.0,
                detail: "why".into(),
                output: "out".into(),
                errors: String::new(),
                exit_status,
                files: BTreeMap::from([("f".into(), None)]),
            };
            let said = said(result(None), Shape::Program);
            let want = match verdict {
                Verdict::Passed => "Success",
                Verdict::InfraError => "SandboxError",
                _ => "Failed",
            };
            assert_eq!(said.status, want, "{verdict:?}");
            assert_eq!(said.run_result.is_none(), verdict == Verdict::InfraError);
            if let Some(ran) = said.run_result {
                let out_of_time = matches!(verdict, Verdict::TimeoutCpu | Verdict::TimeoutWall);
                assert_eq!(ran.status == "TimeLimitExceeded", out_of_time);
                assert_eq!(ran.return_code.is_none(), out_of_time);
                assert_eq!((ran.stdout.as_str(), ran.execution_time), ("out", 2.0));
                assert_eq!(said.message, "could not fetch f");
            }
        }
    }
}
