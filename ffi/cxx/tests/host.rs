//! `example/main.cc` compiled against the bridge's headers, linked with its library, and run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up must fail")]

use std::path::{Path, PathBuf};
use std::process::Command;

use inhouse_core::{ApiDoc, index, progress};

fn succeed(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
            Some(out)
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {} is not installed", command.get_program().display());
            None
        }
        Err(cause) => panic!("{command:?}: {cause}"),
    }
}

fn build_index(dir: &Path) {
    let api = |name: &str, description: &str| ApiDoc {
        name: name.into(),
        qualified_name: format!("ledgers.{name}"),
        signature: "(path)".into(),
        description: description.into(),
        ..ApiDoc::default()
    };
    let apis = [api("open_ledger", "Opens a ledger."), api("tally", "Sums the entries of a month.")];
    index::build(&apis, dir, &index::BuildOptions::default(), &progress::Silent).unwrap();
}

/// The shipped model, where this build, or the worker that INHOUSE_WORKER names, can run it.
fn model() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/inhouse-coder");
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let gguf = files.find(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    let runs =
        inhouse::available_backends().contains(&"llama.cpp") || std::env::var_os("INHOUSE_WORKER").is_some();
    if gguf.is_none() || !runs {
        println!(
            "skipped: the completion, since this build has no llama.cpp and INHOUSE_WORKER names no program that has"
        );
        return None;
    }
    gguf
}

/// The library that cargo built for this test: the newest, since its name has a number for every way of building it.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let files = std::fs::read_dir(test.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("libinhouse_cxx") && name.ends_with(".a")
    };
    let newest = files.filter(is_ours).max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.expect("cargo builds the library for its tests")
}

#[test]
fn a_cpp_program_completes_through_the_bridge() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bridge = Path::new(env!("INHOUSE_CXX_BRIDGE"));
    let library = library();
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("main");
    let mut compile = Command::new("c++");
    compile.args(["-std=c++17", "-Wall", "-Wextra", "-Werror"]);
    compile.arg("-I").arg(bridge.join("include")).arg("-I").arg(bridge.join("crate"));
    compile.arg(here.join("example/main.cc")).arg(library).arg("-o").arg(&program);
    if succeed(compile.args(["-lpthread", "-ldl", "-lm"])).is_none() {
        return;
    }
    let index = dir.path().join("index");
    build_index(&index);
    let out = succeed(Command::new(&program).arg(&index)).expect("it was built");
    assert!(out.ends_with("ok\n"), "{out}");
    if let Some(model) = model() {
        let out = succeed(Command::new(&program).arg(&index).arg(model)).expect("it was built");
        assert!(out.ends_with("ok\n"), "{out}");
    }
}
