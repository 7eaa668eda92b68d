//! What the shared library exports, under which name, and that C programs exercise all of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{artifact, compiler, host_source, succeed};
use inhouse_tests::repository;
use tempfile::TempDir;

/// The last word of each line that `nm` prints; `None` where it is not installed.
fn symbols(options: &[&str], file: &Path) -> Option<BTreeSet<String>> {
    let listing = succeed(Command::new("nm").args(options).arg(file))?;
    Some(listing.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
}

#[test]
fn the_shared_library_exports_what_is_ours_under_its_own_name() {
    let library = artifact("libinhouse_ffi.so");
    if let Some(names) = symbols(&["-D", "--defined-only"], &library) {
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

#[test]
fn a_c_host_exercises_every_function() {
    let dir = TempDir::new().unwrap();
    let mut called = BTreeSet::new();
    for entry in std::fs::read_dir(host_source("")).unwrap() {
        let source = entry.unwrap().path();
        if source.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        let object = dir.path().join("host.o");
        if succeed(compiler("cc", "c11").arg("-c").arg(&source).arg("-o").arg(&object)).is_none() {
            return;
        }
        // The object's undefined symbols are what it calls: a name in a comment does not count.
        let Some(names) = symbols(&["-u"], &object) else { return };
        called.extend(names);
    }
    let Some(exported) = symbols(&["-D", "--defined-only"], &artifact("libinhouse_ffi.so")) else { return };
    let missing: Vec<_> = exported.difference(&called).collect();
    assert!(
        missing.is_empty(),
        "no C program in tests/hosts calls {missing:?}: call each in one, with what its documentation says checked"
    );
}
