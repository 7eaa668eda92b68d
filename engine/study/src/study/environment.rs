//! Where results came from: the machine, the versions, and what is installed beside an interpreter.

use evald_proto::{EnvSpec, Job, Limits, SpawnOptions, Verdict};
use inhouse::{CancelToken, Result};
use serde_json::{Value, json};

use super::run::RunOptions;
use crate::evaluate::{environment, located, run_one};

/// Runs in evald, since nothing else here runs Python. A sample's process ends without flushing what `print` holds back.
const SCRIPT: &str = "\
import json, os, platform
from importlib import metadata
left = json.dumps({
    'python': platform.python_version(),
    'implementation': platform.python_implementation(),
    'packages': dict(sorted((d.metadata['Name'] or '', d.version) for d in metadata.distributions())),
}).encode()
while left:
    left = left[os.write(1, left):]
";

/// The interpreter's version and its packages, or why they are not known.
///
/// # Errors
/// evald or the interpreter cannot be started, or a cancel.
pub(crate) fn of_interpreter(env: &EnvSpec, options: &RunOptions, cancel: &CancelToken) -> Result<Value> {
    let spawn = SpawnOptions {
        tier: options.tier.clone(),
        envs: vec![environment(&env.python, Vec::new())],
        ..SpawnOptions::default()
    };
    let job = Job {
        code: SCRIPT.into(),
        limits: Limits { cpu_ms: Some(20_000), ..Limits::default() },
        keep_output: true,
        ..Job::default()
    };
    let (info, result) = run_one(job, &spawn, options.evald.as_deref(), cancel)?;
    let mut said = match serde_json::from_str::<Value>(&result.output) {
        Ok(value) if result.verdict == Verdict::Passed && value.is_object() => value,
        _ => json!({"unknown": format!("{}: {}", result.verdict.as_str(), result.detail)}),
    };
    said["path"] = json!(located(&env.python));
    said["preload"] = json!(env.preload);
    said["evald"] = json!(info.version);
    said["tier"] = json!(info.tier);
    Ok(said)
}

/// The machine, as far as the kernel tells.
pub(crate) fn of_machine() -> Value {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line[key.len()..].trim_start_matches([':', '\t', ' ']).trim().to_owned())
    };
    json!({
        "host": first("/proc/sys/kernel/hostname", ""),
        "kernel": first("/proc/sys/kernel/osrelease", ""),
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": first("/proc/meminfo", "MemTotal"),
        "architecture": std::env::consts::ARCH,
        "inhouse": env!("CARGO_PKG_VERSION"),
        "backends": inhouse::available_backends(),
    })
}
