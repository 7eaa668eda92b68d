//! Each header compiled alone, twice over, by every compiler and standard it is for.

use super::{compiler, succeed};
use inhouse_tests::repository;
use tempfile::TempDir;

fn compiles_alone(header: &str, source: &str, compilers: [&str; 2], standards: [&str; 2]) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join(source);
    std::fs::write(
        &file,
        format!("#include <{header}>\n#include <{header}>\nint alone = INHOUSE_STATUS_OK;\n"),
    )
    .unwrap();
    for name in compilers {
        for standard in standards {
            succeed(compiler(name, standard).arg("-fsyntax-only").arg(&file));
        }
    }
}

#[test]
fn the_c_header_compiles_alone() {
    compiles_alone("inhouse.h", "alone.c", ["gcc", "clang"], ["c99", "c11"]);
    compiles_alone("inhouse.h", "alone.cc", ["g++", "clang++"], ["c++17", "c++20"]);
}

#[test]
fn the_cpp_header_compiles_alone() {
    compiles_alone("inhouse.hpp", "alone.cc", ["g++", "clang++"], ["c++17", "c++20"]);
    for part in std::fs::read_dir(repository().join("include/inhouse")).unwrap() {
        let part = format!("inhouse/{}", part.unwrap().file_name().display());
        compiles_alone(&part, "alone.cc", ["g++", "clang++"], ["c++17", "c++20"]);
    }
}
