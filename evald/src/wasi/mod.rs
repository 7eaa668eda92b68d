//! Tier T4: CPython as WebAssembly, for hosts that give neither user namespaces nor Landlock.
//!
//! ```text
//! evald ── master: the machine with CPython in it, libraries imported     start, module, world, preview1
//!           └ slot, one per core: a fork of the master                    zygote, supervise (as in every tier)
//!              └ sample: a fork of the slot                               guest (drives CPython), sample, seccomp, landlock
//! ```
//!
//! The snapshot of the started interpreter is the process itself: the machine stops inside of a function that CPython calls,
//! and there it is forked, memory, globals, table and native stack alike; the kernel copies what a sample then changes.
//! So clocks, kills, output, records and verdicts are those of the other tiers, and need no checks within the machine code.
//! The daemon itself neither loads machine code nor reads a program.
//!
//! Two walls stand around a sample: the machine (its memory is all that a program can name, its calls are all that
//! [`preview1`] defines, its files are a tree in memory), and around the process rlimits, and as far as the host has them
//! Landlock without a single file and a short seccomp list.

#[cfg(feature = "wasi")]
mod files;
#[cfg(feature = "wasi")]
mod guest;
#[cfg(feature = "wasi")]
mod library;
#[cfg(feature = "wasi")]
mod memfile;
#[cfg(feature = "wasi")]
mod module;
#[cfg(feature = "wasi")]
mod preview1;
#[cfg(feature = "wasi")]
mod start;
#[cfg(feature = "wasi")]
mod world;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(feature = "wasi")]
pub use module::compile;
#[cfg(feature = "wasi")]
pub(crate) use start::run;

use crate::error::Result;

/// What T4 cannot run, in a line for people.
pub const PURE_ONLY: &str = "pure Python only: no extension modules (numpy, pandas), no threads or processes, no files to write, \
    no more than 4 GiB of memory";

/// A CPython for WASI on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The program.
    pub program: PathBuf,
    /// The folder that it sees as `/usr`, with its standard library.
    pub usr: PathBuf,
}

impl Distribution {
    /// The distribution in `given`, or in one of the usual places beside the executable.
    ///
    /// # Errors
    /// There is none, or this evald was built without T4; the message names the mend.
    pub fn find(given: Option<&Path>, executable: &Path) -> Result<Self, String> {
        if !cfg!(feature = "wasi") {
            return Err("an evald built with the feature `wasi`".into());
        }
        if let Some(folder) = given {
            return Self::at(folder).ok_or_else(|| {
                format!("a CPython for WASI (python.wasm and usr/) in {}, which has none", folder.display())
            });
        }
        let beside = executable.parent().unwrap_or(Path::new("/"));
        let places = ["wasi", "../share/inhouse/wasi", "../../.env/wasi"].map(|place| beside.join(place));
        places.iter().find_map(|place| Self::at(place)).ok_or_else(|| {
            "a CPython for WASI (scripts/wasi.sh fetches one; --wasi or EVALD_WASI says where it is)".into()
        })
    }

    fn at(folder: &Path) -> Option<Self> {
        let (program, usr) = (folder.join("python.wasm"), folder.join("usr"));
        let found = program.is_file() && usr.is_dir();
        let whole = |path: PathBuf| path.canonicalize().ok();
        found.then_some(())?;
        Some(Self { program: whole(program)?, usr: whole(usr)? })
    }

    /// `major.minor` of its standard library; `None` where that is in no usual place.
    pub fn version(&self) -> Option<String> {
        let folders = ["local/lib", "lib"].map(|folder| self.usr.join(folder));
        let entries =
            folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        let names = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
        let versions = names.filter_map(|name| Some(name.to_str()?.strip_prefix("python")?.to_owned()));
        versions.filter(|version| version.contains('.')).min()
    }
}

/// What a master of T4 is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// CPython and its standard library.
    pub distribution: Distribution,
    /// Where machine code is kept.
    pub cache: PathBuf,
    /// Folders with libraries of the environment's interpreter.
    pub sites: Vec<PathBuf>,
    /// The same random bytes and clocks for each sample.
    pub seed: Option<u64>,
}

/// Where this user's machine code is kept, if nothing else is said.
pub fn usual_cache() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    // A user without a home (of a service, say) has one folder in the temporary one; `Cache::open` looks whose it is.
    match base.filter(|base| base.is_dir() || std::fs::create_dir_all(base).is_ok()) {
        Some(base) => base.join("inhouse").join("evald"),
        None => std::env::temp_dir().join(format!("evald-machine-{}", nix::unistd::geteuid())),
    }
}

/// Without the feature there is nothing to run.
#[cfg(not(feature = "wasi"))]
pub(crate) fn run(_machine: &Machine, _paths: &[PathBuf], _daemon: u32) -> Result<std::convert::Infallible> {
    Err(without())
}

/// As above.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wasi"))]
pub fn compile(_program: &Path, _cache: &Path) -> Result<()> {
    Err(without())
}

#[cfg(not(feature = "wasi"))]
fn without() -> crate::error::Error {
    crate::error::Error::Host("this evald was built without tier T4 (feature `wasi`)".into())
}

/// What can be said of an environment before its modules are imported: `Ok` may hold a doubt, since a package may come with
/// native code and do without.
///
/// # Errors
/// A module to be preloaded is native code itself.
#[cfg(feature = "wasi")]
pub fn examine(preload: &[String], paths: &[PathBuf], sites: &[PathBuf]) -> Result<Option<String>, String> {
    let native = library::Native::of(paths.iter().chain(sites));
    preload.iter().try_for_each(|module| native.refuse(module))?;
    Ok(preload.iter().find_map(|module| native.doubt(module)))
}

/// As above.
///
/// # Errors
/// Always.
#[cfg(not(feature = "wasi"))]
pub fn examine(
    _preload: &[String],
    _paths: &[PathBuf],
    _sites: &[PathBuf],
) -> Result<Option<String>, String> {
    Err(without().to_string())
}
