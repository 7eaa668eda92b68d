//! Which files a Python interpreter needs: found by asking it (isolated, without site packages) and by reading
//! `pyvenv.cfg`, never by importing a library.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::mounts;

/// An interpreter and what the sandbox must show for it to run.
#[derive(Debug, Clone)]
pub struct Interpreter {
    /// The path as given (a virtual environment's `python` stays one, so that it finds its packages); where that is a
    /// script, the interpreter that it starts.
    pub path: PathBuf,
    /// Files and folders that it reads.
    pub needs: Vec<PathBuf>,
    /// Folders with libraries, in the order of the module search path.
    pub sites: Vec<PathBuf>,
    /// `major.minor`.
    pub version: String,
}

#[derive(Deserialize)]
struct Facts {
    implementation: String,
    executable: PathBuf,
    version: (u32, u32),
    base_prefixes: Vec<PathBuf>,
    path: Vec<PathBuf>,
}

const QUESTION: &str = "import sys, json
print(json.dumps({'implementation': sys.implementation.name, 'executable': sys.executable, 'version': sys.version_info[:2],
    'base_prefixes': [sys.base_prefix, sys.base_exec_prefix], 'path': [p for p in sys.path if p]}))";

/// Shared libraries and data that any interpreter may need; those that a host lacks are passed over.
const SYSTEM: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/localtime",
    "/etc/alternatives",
    "/usr/share/zoneinfo",
    "/usr/share/python-wheels",
];

/// Where the host's programs are.
const PROGRAMS: &[&str] = &["/bin", "/usr/bin", "/sbin", "/usr/sbin"];

impl Interpreter {
    /// Looks at the interpreter `python` (a path, or a name on PATH).
    ///
    /// # Errors
    /// It is missing, unreadable by this user, does not answer, or is not CPython 3.7 or newer.
    pub fn inspect(name: &str, python: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Environment { name: name.into(), reason };
        let mut path = locate(python).map_err(&fail)?;
        // A version manager's `python3` is a script that starts the real one; it finds that by PATH and HOME.
        let script = is_script(&path);
        let kept = ["PATH", "HOME"].map(|name| (name, std::env::var_os(name).unwrap_or_default()));
        let output = Command::new(&path)
            .args(["-I", "-S", "-c", QUESTION])
            .env_clear()
            .envs(kept.into_iter().filter(|_| script))
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| fail(format!("cannot run {}: {cause}", path.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("no message");
            return Err(fail(format!("{} ended with {}: {last}", path.display(), output.status)));
        }
        let facts: Facts = serde_json::from_slice(&output.stdout)
            .map_err(|cause| fail(format!("{} does not answer like Python: {cause}", path.display())))?;
        if facts.implementation != "cpython" || facts.version < (3, 7) {
            let (major, minor) = facts.version;
            let found = format!("{} {major}.{minor}", facts.implementation);
            return Err(fail(format!("{} is {found}, need CPython 3.7 or newer", path.display())));
        }
        if script {
            path = facts.executable;
        }
        let mut needs = vec![path.clone()];
        needs.extend(SYSTEM.iter().map(PathBuf::from).filter(|path| path.exists()));
        let version = format!("{}.{}", facts.version.0, facts.version.1);
        needs.extend(facts.base_prefixes.iter().flat_map(|prefix| prefix_parts(prefix, &version)));
        needs.extend(facts.path.into_iter().filter(|path| path.exists()));
        let venv = venv_root(&path);
        let sites = sites(venv.as_deref(), &facts.base_prefixes, &version);
        needs.extend(venv.iter().flat_map(|root| venv_parts(root, &version)));
        needs.sort();
        needs.dedup();
        Ok(Self { path, needs, sites, version })
    }

    /// The entries of the sandbox's root, with `extra` folders beside the interpreter's own, and with the host's `programs`
    /// where samples may run some.
    ///
    /// # Errors
    /// A file or folder cannot be reached by this user.
    pub fn root(&self, name: &str, extra: &[PathBuf], programs: bool) -> Result<Vec<mounts::Entry>> {
        let programs = PROGRAMS.iter().filter(|_| programs).map(PathBuf::from).filter(|path| path.exists());
        let paths: Vec<PathBuf> = self.needs.iter().chain(extra).cloned().chain(programs).collect();
        mounts::plan(&paths).map_err(|reason| Error::Environment { name: name.into(), reason })
    }
}

/// What belongs to an interpreter below its prefix. The prefix itself may be anything, a home folder too, and holds what is
/// nobody's business: keys, sources, other programs.
fn prefix_parts(prefix: &Path, version: &str) -> Vec<PathBuf> {
    let shared = ["/", "/usr", "/usr/local"].iter().any(|system| prefix == Path::new(system));
    // An environment of conda's keeps its shared libraries, which packages need, in the folder that is named so.
    let whole = shared || prefix.join("conda-meta").is_dir();
    let mut parts = Vec::new();
    for lib in ["lib", "lib64"].map(|name| prefix.join(name)) {
        if whole {
            parts.push(lib);
            continue;
        }
        parts.push(lib.join(format!("python{version}")));
        parts.push(lib.join(format!("python{}.zip", version.replace('.', ""))));
        let entries = std::fs::read_dir(&lib).into_iter().flatten().flatten();
        parts.extend(entries.map(|entry| entry.path()).filter(|path| is_library_of_python(path)));
    }
    parts.into_iter().filter(|path| path.exists()).collect()
}

/// The interpreter itself as a shared library, and what Tk needs.
fn is_library_of_python(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.starts_with("libpython") && name.contains(".so"))
        || name.starts_with("tcl")
        || name.starts_with("tk")
}

/// What belongs to a virtual environment: what says that it is one, its interpreters, its libraries. It may have been made
/// in the folder of a project, beside all of that.
fn venv_parts(root: &Path, version: &str) -> Vec<PathBuf> {
    let lib = format!("lib/python{version}");
    let mut parts = vec![root.join("pyvenv.cfg"), root.join(&lib)];
    if std::fs::symlink_metadata(root.join("lib64")).is_ok() {
        parts.push(root.join(lib.replacen("lib", "lib64", 1)));
    }
    let programs = std::fs::read_dir(root.join("bin")).into_iter().flatten().flatten();
    parts.extend(
        programs
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python"))
            .map(|entry| entry.path()),
    );
    parts.into_iter().filter(|path| path.exists()).collect()
}

/// Where `site` looks for libraries: the virtual environment's own, and without one, or where it says so, the system's.
fn sites(venv: Option<&Path>, prefixes: &[PathBuf], version: &str) -> Vec<PathBuf> {
    let own = venv.map(|root| root.join(format!("lib/python{version}/site-packages")));
    let config = venv.and_then(|root| std::fs::read_to_string(root.join("pyvenv.cfg")).ok());
    let says_so = |text: String| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.any(|(key, value)| {
            key.trim() == "include-system-site-packages" && value.trim().eq_ignore_ascii_case("true")
        })
    };
    let system = match venv {
        None => true,
        Some(_) => config.is_some_and(says_so),
    };
    let below = |prefix: &PathBuf| {
        // Debian has a folder of its own for what the administrator installs, and one for packages.
        [
            format!("local/lib/python{version}/dist-packages"),
            format!("lib/python{version}/site-packages"),
            format!("lib/python{version}/dist-packages"),
            "lib/python3/dist-packages".to_owned(),
        ]
        .map(|folder| prefix.join(folder))
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in own.into_iter().chain(prefixes.iter().filter(|_| system).flat_map(below)) {
        if folder.is_dir() && !found.contains(&folder) {
            found.push(folder);
        }
    }
    found
}

/// The virtual environment that an interpreter's path belongs to.
fn venv_root(python: &Path) -> Option<PathBuf> {
    let root = python.parent()?.parent()?;
    root.join("pyvenv.cfg").is_file().then(|| root.to_path_buf())
}

/// Whether a file is run by an interpreter of its own (`#!`).
fn is_script(path: &Path) -> bool {
    let mut head = [0; 2];
    std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head)).is_ok()
        && head == *b"#!"
}

fn locate(python: &Path) -> Result<PathBuf, String> {
    let candidate = if python.components().count() == 1 && !python.is_absolute() {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders)
            .map(|folder| folder.join(python))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("no {} on PATH", python.display()))?
    } else {
        std::path::absolute(python).map_err(|cause| format!("{}: {cause}", python.display()))?
    };
    match std::fs::metadata(&candidate) {
        Ok(meta) if meta.is_file() => Ok(candidate),
        Ok(_) => Err(format!("{} is not a file", candidate.display())),
        Err(cause) => {
            let real = std::fs::read_link(&candidate).unwrap_or_default();
            let via = if real == OsStr::new("") {
                String::new()
            } else {
                format!(" (a link to {})", real.display())
            };
            let user = nix::unistd::geteuid();
            Err(format!("user {user} cannot read the interpreter {}{via}: {cause}", candidate.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_leads_to_the_interpreter_that_it_starts() {
        let Ok(real) = Interpreter::inspect("e", Path::new("/usr/bin/python3")) else {
            println!("skipped: no /usr/bin/python3");
            return;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let shim = folder.path().join("python3");
        std::fs::write(&shim, "#!/bin/sh\nexec /usr/bin/python3 \"$@\"\n").expect("a script");
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(&shim, mode).expect("a mode");
        let found = Interpreter::inspect("e", &shim).expect("the script's interpreter");
        assert_eq!((found.path, found.version), (real.path, real.version));
    }

    /// As when Python is installed with the prefix `$HOME`, or a virtual environment is made in a project's folder.
    #[test]
    fn what_stands_beside_an_interpreter_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path();
        for path in [
            "lib/python3.11/os.py",
            "lib/libpython3.11.so.1.0",
            "lib/notes/diary",
            ".ssh/id",
            "bin/python3",
            "bin/tool",
            "pyvenv.cfg",
            "lib/python3.11/site-packages/x.py",
            "lib/python2.7/old.py",
        ] {
            std::fs::create_dir_all(home.join(path).parent().expect("a folder")).expect("made");
            std::fs::write(home.join(path), "").expect("written");
        }
        let names = |parts: Vec<PathBuf>| {
            let mut names: Vec<String> = parts
                .iter()
                .map(|path| path.strip_prefix(home).expect("below").display().to_string())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(prefix_parts(home, "3.11")), ["lib/libpython3.11.so.1.0", "lib/python3.11"]);
        assert_eq!(names(venv_parts(home, "3.11")), ["bin/python3", "lib/python3.11", "pyvenv.cfg"]);
        std::fs::create_dir(home.join("conda-meta")).expect("made");
        assert_eq!(names(prefix_parts(home, "3.11")), ["lib"]);
    }

    #[test]
    fn a_missing_or_wrong_interpreter_is_named() {
        for (python, word) in
            [("/no/such/python", "/no/such/python"), ("/bin/false", "ended with"), ("/", "not a file")]
        {
            let error = Interpreter::inspect("e", Path::new(python)).expect_err("not Python").to_string();
            assert!(error.contains(word) && error.contains("environment e"), "{error}");
        }
    }

    #[test]
    fn the_host_python_needs_its_own_file_and_library() {
        let Ok(python) = Interpreter::inspect("e", Path::new("python3")) else {
            println!("skipped: no python3 on PATH");
            return;
        };
        assert!(python.needs.contains(&python.path));
        assert!(python.needs.len() > 2, "{:?}", python.needs);
        assert!(!python.needs.iter().any(|path| path == Path::new("/usr") || path == Path::new("/")));
    }
}
