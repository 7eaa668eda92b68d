//! libinhouse as its hosts see it: the header compiled alone, a C program linked and run, the symbols and the name of
//! the shared library.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up must fail")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inhouse_core::index::{self, BuildOptions};
use inhouse_core::{ApiDoc, progress};
use inhouse_tests::repository;
use tempfile::TempDir;

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

/// A model for the host: the shipped one, or else the random checkpoint of the parity tests in whatever form this build
/// can load. `None`, with the reason printed, where there is no backend.
fn model(scratch: &Path) -> Option<PathBuf> {
    let checkpoint = repository().join("tests/fixtures/codegen");
    let backends = inhouse::available_backends();
    if backends.contains(&"llama.cpp") {
        let shipped =
            std::fs::read_dir(repository().join("models/inhouse-tiny")).into_iter().flatten().flatten();
        let mut shipped = shipped.map(|entry| entry.path());
        if let Some(gguf) = shipped.find(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        {
            return Some(gguf);
        }
        let gguf = scratch.join("random.gguf");
        let mut convert = inhouse_tests::command("inhouse-convert");
        convert.args(["gguf", "--from"]).arg(&checkpoint).arg("--out").arg(&gguf);
        succeed(&mut convert).expect("inhouse-convert was found");
        return Some(gguf);
    }
    if backends.contains(&"candle") {
        return Some(checkpoint);
    }
    println!("skipped the completion: this build has no backend (feature llama or candle)");
    None
}

/// Compiles tests/hosts/complete.c, links it as `link` says and runs it.
fn host(dir: &Path, link: &[&str]) {
    let program = dir.join("complete");
    let mut compile = Command::new("cc");
    compile.args(["-std=c99", "-g"]).args(WARNINGS).arg("-I").arg(repository().join("include"));
    compile.arg(repository().join("tests/hosts/complete.c")).arg("-o").arg(&program);
    compile.arg(format!("-L{}", dir.display())).args(link);
    if succeed(&mut compile).is_none() {
        return;
    }
    let index = dir.join("index");
    build_index(&index);
    let start = || {
        let mut command = Command::new(&program);
        command.arg(&index).env("LD_LIBRARY_PATH", dir);
        command
    };
    let out = succeed(&mut start()).expect("the host was built");
    assert!(out.ends_with("ok\n"), "{out}");
    assert!(out.contains("ledgers.open_ledger(path): Opens a ledger."), "{out}");
    assert!(out.contains("INHOUSE_STATUS_NOT_FOUND"), "{out}");
    if let Some(model) = model(dir) {
        let out = succeed(start().arg(model)).expect("the host was built");
        println!("{out}");
        assert!(out.ends_with("ok\n") && out.contains("# [start]"), "{out}");
    }
    // A host's own mistake: a missing index is an error in words, not a crash.
    let output = run(Command::new(&program).arg(dir.join("none")).env("LD_LIBRARY_PATH", dir))
        .expect("the host was built");
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("INHOUSE_STATUS_NOT_FOUND") && err.trim().lines().count() == 1, "{err}");
}

#[test]
fn a_c_host_links_the_shared_library() {
    let dir = TempDir::new().unwrap();
    installed(dir.path());
    // The static one must not be taken in its place.
    std::fs::remove_file(dir.path().join("libinhouse.a")).unwrap();
    host(dir.path(), &["-linhouse"]);
}

#[test]
fn a_c_host_links_the_static_library() {
    let dir = TempDir::new().unwrap();
    installed(dir.path());
    let mut link = vec!["-l:libinhouse.a", "-lpthread", "-ldl", "-lm"];
    if inhouse::available_backends().contains(&"llama.cpp") {
        link.push("-lstdc++");
    }
    host(dir.path(), &link);
}

#[test]
fn the_header_compiles_alone() {
    let dir = TempDir::new().unwrap();
    let include = repository().join("include");
    for (extension, compilers, standards) in
        [("c", ["gcc", "clang"], ["c99", "c11"]), ("cc", ["g++", "clang++"], ["c++17", "c++20"])]
    {
        let source = dir.path().join(format!("alone.{extension}"));
        std::fs::write(
            &source,
            "#include <inhouse.h>\n#include <inhouse.h>\nint alone = INHOUSE_STATUS_OK;\n",
        )
        .unwrap();
        for compiler in compilers {
            for standard in standards {
                let mut compile = Command::new(compiler);
                compile.arg(format!("-std={standard}")).args(WARNINGS).arg("-fsyntax-only");
                succeed(compile.arg("-I").arg(&include).arg(&source));
            }
        }
    }
}

#[test]
fn the_shared_library_exports_what_is_ours_under_its_own_name() {
    let library = artifact("libinhouse_ffi.so");
    if let Some(symbols) = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)) {
        let names: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert!(names.len() > 30, "{names:?}");
        let foreign: Vec<_> = names.iter().filter(|name| !name.starts_with("inhouse_")).collect();
        assert!(foreign.is_empty(), "exported, but not ours: {foreign:?}");
        let header = std::fs::read_to_string(repository().join("include/inhouse.h")).unwrap();
        for name in names {
            assert!(header.contains(&format!("{name}(")), "{name} is exported, but not in the header");
        }
    }
    if let Some(dynamic) = succeed(Command::new("readelf").args(["-d", "-W"]).arg(&library)) {
        assert!(dynamic.contains("Library soname: [libinhouse.so.0]"), "{dynamic}");
    }
}
