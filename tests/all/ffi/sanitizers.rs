//! `scripts/sanitize.sh` in its short form: the hosts under AddressSanitizer with UBSan, valgrind and ThreadSanitizer.

use std::path::PathBuf;
use std::process::Command;

use super::{artifact, run, text};
use inhouse_tests::repository;
use tempfile::TempDir;

/// Runs one part of the script on what cargo built; `INHOUSE_TSAN_SECONDS` asks for a longer run of the threads.
fn sanitize(part: &str) {
    if !inhouse::available_backends().contains(&"llama.cpp") {
        println!("skipped: this build has no llama.cpp, and the hosts complete code");
        return;
    }
    let built = TempDir::new().unwrap();
    let command = PathBuf::from(inhouse_tests::command("inhouse").get_program());
    std::fs::copy(artifact("libinhouse_ffi.so"), built.path().join("libinhouse_ffi.so")).unwrap();
    std::os::unix::fs::symlink(command, built.path().join("inhouse")).unwrap();
    let evald = PathBuf::from(inhouse_tests::command("evald").get_program());
    std::os::unix::fs::symlink(evald, built.path().join("evald")).unwrap();
    let seconds = std::env::var("INHOUSE_TSAN_SECONDS").unwrap_or_else(|_| "3".to_owned());
    let mut script = Command::new(repository().join("scripts/sanitize.sh"));
    script.arg(seconds).env("BUILT", built.path()).env("ONLY", part);
    let output = run(&mut script).expect("scripts/sanitize.sh is there");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    println!("{out}{err}");
    assert!(output.status.success(), "{part}: {}", output.status);
}

#[test]
fn the_hosts_are_clean_under_address_and_undefined_behaviour_sanitizers() {
    sanitize("asan");
}

#[test]
fn a_c_host_is_clean_and_leaks_nothing_under_valgrind() {
    sanitize("valgrind");
}

#[test]
fn eight_threads_on_one_engine_are_clean_under_thread_sanitizer() {
    sanitize("tsan");
}
