//! Whole programs in C and C++, linked against the library and run.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{build_index, compiler, host_source, infill_model, installed, model, run, succeed, text};
use inhouse_tests::repository;
use tempfile::TempDir;

/// Compiles tests/hosts/complete.c, links it as `link` says and runs it.
fn c_host(dir: &Path, link: &[&str]) {
    let program = dir.join("complete");
    let mut compile = compiler("cc", "c99");
    compile.arg("-g").arg(host_source("complete.c")).arg("-o").arg(&program);
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
    if let Some(model) = model() {
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
    c_host(dir.path(), &["-linhouse"]);
}

#[test]
fn a_c_host_links_the_static_library() {
    let dir = TempDir::new().unwrap();
    installed(dir.path());
    let mut link = vec!["-l:libinhouse.a", "-lpthread", "-ldl", "-lm"];
    if inhouse::available_backends().contains(&"llama.cpp") {
        link.push("-lstdc++");
    }
    c_host(dir.path(), &link);
}

/// Compiles a host of tests/hosts against the shared library, for [`run_host`].
fn shared_host(dir: &Path, source: &str) -> Option<PathBuf> {
    installed(dir);
    let program = dir.join("host");
    let mut compile = compiler("cc", "c99");
    compile.arg("-g").arg(host_source(source)).arg("-o").arg(&program);
    succeed(compile.arg(format!("-L{}", dir.display())).arg("-l:libinhouse.so.0"))?;
    Some(program)
}

fn run_host(program: &Path, arguments: &[&Path]) {
    let mut host = Command::new(program);
    let out = succeed(host.args(arguments).env("LD_LIBRARY_PATH", program.parent().unwrap()));
    let out = out.expect("the host was built");
    println!("{out}");
    assert!(out.ends_with("ok\n"), "{out}");
}

#[test]
fn a_c_host_builds_and_updates_an_index() {
    let dir = TempDir::new().unwrap();
    let Some(program) = shared_host(dir.path(), "index.c") else { return };
    run_host(&program, &[&repository().join("tests/private-library/gaugewren"), dir.path()]);
}

/// An encoder's folder on candle, and its conversion on llama.cpp; without candle the folder is refused.
#[test]
fn a_c_host_encodes_texts_and_builds_an_index_with_an_encoder() {
    let dir = TempDir::new().unwrap();
    let Some(program) = shared_host(dir.path(), "encode.c") else { return };
    let fixture = repository().join("tests/fixtures/bert");
    let scratch = |name: &str| {
        let scratch = dir.path().join(name);
        std::fs::create_dir(&scratch).unwrap();
        scratch
    };
    if inhouse::available_backends().contains(&"llama.cpp") {
        let file = dir.path().join("bert.gguf");
        let mut convert = inhouse_tests::command("inhouse-convert");
        convert.args(["gguf", "--from"]).arg(&fixture).arg("--out").arg(&file);
        succeed(&mut convert).expect("inhouse-convert was found");
        run_host(&program, &[&file, &scratch("llama"), Path::new("llama.cpp")]);
    }
    // The host moves it.
    let folder = dir.path().join("bert");
    for file in [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        std::fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    run_host(&program, &[&folder, &scratch("candle"), Path::new("candle")]);
}

#[test]
fn a_c_host_evaluates_samples() {
    let dir = TempDir::new().unwrap();
    let Some(program) = shared_host(dir.path(), "evaluate.c") else { return };
    run_host(&program, &[dir.path()]);
    let evald = PathBuf::from(inhouse_tests::command("evald").get_program());
    run_host(&program, &[dir.path(), &evald]);
}

#[test]
fn a_c_host_fills_in_the_middle() {
    let dir = TempDir::new().unwrap();
    let Some(model) = infill_model(dir.path()) else { return };
    let Some(program) = shared_host(dir.path(), "fill_in.c") else { return };
    run_host(&program, &[&model]);
}

#[test]
fn a_c_host_survives_its_models_process() {
    let dir = TempDir::new().unwrap();
    let Some(model) = model() else { return };
    let Some(program) = shared_host(dir.path(), "worker.c") else { return };
    let worker = PathBuf::from(inhouse_tests::command("inhouse-worker").get_program());
    run_host(&program, &[&model, &worker]);
}

#[test]
fn a_cpp_host_completes_with_exceptions_and_without() {
    let dir = TempDir::new().unwrap();
    installed(dir.path());
    build_index(&dir.path().join("index"));
    let Some(model) = model() else { return };
    for name in ["g++", "clang++"] {
        for standard in ["c++17", "c++20"] {
            for exceptions in [&["-fexceptions"][..], &["-fno-exceptions", "-fno-rtti"]] {
                let program = dir.path().join("complete-cc");
                let mut compile = compiler(name, standard);
                compile.args(exceptions).arg(host_source("complete.cc")).arg("-o").arg(&program);
                compile.arg(format!("-L{}", dir.path().display())).args(["-l:libinhouse.so.0", "-lpthread"]);
                if succeed(&mut compile).is_none() {
                    continue;
                }
                let mut start = Command::new(&program);
                start.arg(dir.path().join("index")).arg(&model).env("LD_LIBRARY_PATH", dir.path());
                if inhouse::available_backends().contains(&"candle") {
                    start.arg(repository().join("tests/fixtures/bert"));
                }
                let out = succeed(&mut start).expect("the host was built");
                let expected = format!("exceptions: {}\n", i32::from(exceptions == ["-fexceptions"]));
                assert!(out.ends_with("ok\n") && out.contains(&expected), "{out}");
            }
        }
    }
}

/// The examples, as a person at a console would use them: other words first, then a number, and what is not there.
#[test]
fn the_console_examples_choose_and_complete() {
    let dir = TempDir::new().unwrap();
    installed(dir.path());
    let (index, draft) = (dir.path().join("index"), dir.path().join("draft.py"));
    build_index(&index);
    std::fs::write(&draft, "import ledgers\n# open the ledger of May\nledger = ledgers.").unwrap();
    let Some(model) = model() else { return };
    for (name, standard, source) in [("cc", "c99", "console.c"), ("c++", "c++17", "console.cc")] {
        let program = dir.path().join(name);
        let mut compile = compiler(name, standard);
        compile.arg(repository().join("examples").join(source)).arg("-o").arg(&program);
        if succeed(compile.arg(format!("-L{}", dir.path().display())).arg("-l:libinhouse.so.0")).is_none() {
            continue;
        }
        let start = |index: &Path, answers: &str| {
            let file = dir.path().join("answers");
            std::fs::write(&file, answers).unwrap();
            let mut command = Command::new(&program);
            command.arg(index).arg(&model).arg(&draft).stdin(std::fs::File::open(file).unwrap());
            run(command.env("LD_LIBRARY_PATH", dir.path())).expect("it was built")
        };
        let output = start(&index, "sum a month\n1\n");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.trim().len() > 1, "{out}{err}");
        let offered: Vec<_> = err.lines().filter(|line| line.contains("1  ledgers.")).collect();
        assert_eq!(offered.len(), 2, "{err}");
        assert!(offered[0].contains("open_ledger(path): Opens") && offered[1].contains("tally"), "{err}");
        // No answer at all is none of the above.
        assert!(start(&index, "").status.success());
        let output = start(&dir.path().join("none"), "");
        assert_eq!((output.status.code(), text(&output.stderr).lines().count()), (Some(1), 1));
    }
}
