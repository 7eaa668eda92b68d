//! Where a library is installed and which version it is: asked of the interpreter, in the sandbox.

use std::path::{Path, PathBuf};

use evald_proto::{Job, Limits, SpawnOptions, Verdict, is_identifier};
use inhouse_core::decode::CancelToken;
use inhouse_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::evaluate::{environment, folders, run_one};
use crate::introspect::ImportOptions;

/// What the interpreter says of a library.
#[derive(Debug, Default, Deserialize)]
pub struct Installed {
    /// The file that it is imported from.
    pub file: Option<PathBuf>,
    /// Its version.
    pub version: Option<String>,
    /// The interpreter's version.
    #[serde(default)]
    pub python: String,
    /// Whether there is a module of its name with an underscore before it (`_datetime`), where its C types live.
    #[serde(default)]
    pub has_c_half: bool,
}

const SCRIPT: &str = "
def _ask(name):
    import importlib.util, json, os, platform
    channel = os.dup(1)
    void = os.open('/dev/null', os.O_WRONLY)
    os.dup2(void, 1)
    os.dup2(void, 2)
    found = {'python': platform.python_version(), 'has_c_half': importlib.util.find_spec('_' + name) is not None}
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError('No module named ' + repr(name))
    if isinstance(spec.origin, str):
        found['file'] = spec.origin
    try:
        from importlib.metadata import packages_distributions, version
        owners = packages_distributions().get(name, [name])
        found['version'] = version(owners[0])
    except Exception:
        try:
            from importlib.metadata import version
            found['version'] = version(name)
        except Exception:
            pass
    line = json.dumps(found).encode('ascii')
    while line:
        line = line[os.write(channel, line):]
";

/// Asks for a library, without importing it.
///
/// # Errors
/// It is no import name of a top-level package, the interpreter does not find it, or evald cannot be started.
pub fn ask(
    library: &str,
    import: &ImportOptions,
    evald: Option<&Path>,
    cancel: &CancelToken,
) -> Result<Installed> {
    if !is_identifier(library) {
        let message = format!(
            "`{library}` is no import name of a library (a module of one is made private with its whole)"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let spawn = SpawnOptions {
        envs: vec![environment(&import.python, Vec::new())],
        paths: folders(&import.paths),
        ..SpawnOptions::default()
    };
    let job = Job {
        code: format!("{SCRIPT}\n_ask('{library}')\n"),
        limits: Limits { cpu_ms: Some(20_000), ..Limits::default() },
        keep_output: true,
        ..Job::default()
    };
    let (_, result) = run_one(job, &spawn, evald, cancel)?;
    let python = import.python.display();
    if result.verdict != Verdict::Passed {
        let message = format!(
            "{python} does not find `{library}`: {} (--env names the interpreter, --site a folder with the package)",
            result.detail
        );
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    serde_json::from_str(result.output.trim()).map_err(|error| {
        Error::new(ErrorKind::InvalidData, format!("{python} says nothing of use of `{library}`: {error}"))
    })
}
