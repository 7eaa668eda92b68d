//! libinhouse as its hosts see it: the headers compiled alone, C and C++ programs linked and run, the symbols and the
//! name of the shared library.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up must fail")]

mod headers;
mod hosts;
mod neovim;
mod package;
mod sanitizers;
mod symbols;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inhouse_core::index::{self, BuildOptions};
use inhouse_core::{ApiDoc, progress};
use inhouse_tests::repository;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Runs a command to its end; `None`, with the reason printed, where the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {} is not installed", command.get_program().display());
            None
        }
        Err(cause) => panic!("{command:?}: {cause}"),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(command: &mut Command) -> Option<String> {
    let output = run(command)?;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    Some(out)
}

/// A file that cargo made of `inhouse-ffi`: in the folder of this test binary (as its dependency) or the one above.
fn artifact(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not beside {}: is inhouse-ffi a dependency?", test.display()))
}

/// A compiler that takes warnings for errors and finds the headers.
fn compiler(name: &str, standard: &str) -> Command {
    let mut command = Command::new(name);
    command.arg(format!("-std={standard}")).args(WARNINGS).arg("-I").arg(repository().join("include"));
    command
}

fn host_source(name: &str) -> PathBuf {
    repository().join("tests/hosts").join(name)
}

/// The library as it is installed: by its own name and, for the shared one, under its SONAME.
fn installed(dir: &Path) {
    std::fs::copy(artifact("libinhouse_ffi.a"), dir.join("libinhouse.a")).unwrap();
    std::fs::copy(artifact("libinhouse_ffi.so"), dir.join("libinhouse.so.0")).unwrap();
    std::os::unix::fs::symlink("libinhouse.so.0", dir.join("libinhouse.so")).unwrap();
}

fn build_index(dir: &Path) {
    let api = |name: &str, description: &str| ApiDoc {
        name: name.into(),
        qualified_name: format!("ledgers.{name}"),
        signature: "(path)".into(),
        description: description.into(),
        ..ApiDoc::default()
    };
    let apis = [
        api("open_ledger", "Opens a ledger."),
        api("close_ledger", "Closes what was opened."),
        api("tally", "Sums the entries of a month."),
    ];
    index::build(&apis, dir, &BuildOptions::default(), &progress::Silent).unwrap();
}

/// A random model that fills in gaps; `None`, with the reason printed, where this build cannot run it.
fn infill_model(scratch: &Path) -> Option<PathBuf> {
    if !inhouse::available_backends().contains(&"llama.cpp") {
        println!("skipped: this build has no llama.cpp");
        return None;
    }
    let model = scratch.join("t5.gguf");
    let mut convert = inhouse_tests::command("inhouse-convert");
    convert.args(["gguf", "--from"]).arg(repository().join("tests/fixtures/t5")).arg("--out").arg(&model);
    succeed(&mut convert).expect("inhouse-convert was found");
    Some(model)
}

/// A model for the host: the shipped one, or else the random checkpoint of the parity tests in whatever form this build
/// can load. `None`, with the reason printed, where there is no backend.
fn model() -> Option<PathBuf> {
    let backends = inhouse::available_backends();
    if backends.contains(&"llama.cpp") {
        return Some(inhouse_tests::shipped_coder());
    }
    if backends.contains(&"candle") {
        return Some(repository().join("tests/fixtures/codegen"));
    }
    println!("skipped the completion: this build has no backend (feature llama or candle)");
    None
}
