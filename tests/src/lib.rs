//! What the cross-crate tests share: where things are.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The code model that comes with the engine.
pub fn shipped_coder() -> PathBuf {
    repository().join("models/inhouse-coder/inhouse-coder.gguf")
}

/// A file of the published benchmarks (`../shared/benchmarks`, or `$INHOUSE_SHARED/benchmarks`); `None`, with the reason
/// printed, where it is missing: the test then skips.
pub fn benchmark(name: &str) -> Option<PathBuf> {
    let shared = match std::env::var_os("INHOUSE_SHARED") {
        Some(folder) => PathBuf::from(folder),
        None => repository().join("../shared"),
    };
    let path = shared.join("benchmarks").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not here", path.display());
    None
}

/// The Python environment of that name in `.env` (see `scripts/benchmark-env.sh`); `None`, with the reason printed, where
/// it is missing.
pub fn python_environment(name: &str) -> Option<PathBuf> {
    let python = repository().join(".env").join(name).join("bin/python");
    if python.exists() {
        return Some(python);
    }
    println!(
        "skipped: {} is not here (scripts/setup.sh and scripts/benchmark-env.sh make it)",
        python.display()
    );
    None
}

/// One of this workspace's commands, built beside the test binary by `cargo build --workspace`.
///
/// # Panics
/// It is not built.
#[allow(clippy::panic, reason = "a test without its command must fail, not skip")]
pub fn command(name: &str) -> Command {
    let test = std::env::current_exe().unwrap_or_default();
    let found = test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Command::new(path),
        None => panic!(
            "{name} is not built beside {}: run `cargo build --release --workspace` first",
            test.display()
        ),
    }
}
