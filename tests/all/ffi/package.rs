//! The library as `make install` and the Debian packages leave it, used from outside the tree through nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{artifact, build_index, host_source, model, run, succeed};
use inhouse_tests::repository;
use tempfile::TempDir;

/// An installation in a folder, with an index and sources of hosts beside it.
struct Installed {
    dir: TempDir,
    model: Option<PathBuf>,
}

impl Installed {
    /// `None`, with the reason printed, where the tools are missing.
    fn new() -> Option<Self> {
        for tool in ["ld", "objcopy", "ar", "strip"] {
            run(Command::new(tool).arg("--version"))?;
        }
        let dir = TempDir::new().unwrap();
        let built = artifact("libinhouse_ffi.so").parent().unwrap().to_path_buf();
        let mut install = Command::new(repository().join("scripts/install.sh"));
        install.env("PREFIX", dir.path().join("prefix")).env("BUILT", built).env_remove("DESTDIR");
        succeed(&mut install)?;
        build_index(&dir.path().join("index"));
        for host in ["host.h", "complete.c", "complete.cc", "own_llama.c", "own_llama_host.c"] {
            std::fs::copy(host_source(host), dir.path().join(host)).unwrap();
        }
        let model = model(dir.path());
        Some(Self { dir, model })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that runs in the folder outside the tree.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path());
        command
    }

    /// Runs a host on the index and the model and returns what it printed; nothing where there is no backend.
    fn host(&self, program: &Path) -> Option<String> {
        let mut host = self.command(program);
        host.env("LD_LIBRARY_PATH", self.path("prefix/lib"));
        succeed(host.arg(self.path("index")).arg(self.model.as_ref()?))
    }
}

#[test]
fn a_cmake_project_outside_the_tree_completes() {
    let Some(installed) = Installed::new() else { return };
    std::fs::write(
        installed.path("CMakeLists.txt"),
        "cmake_minimum_required(VERSION 3.16)\nproject(host C CXX)\nset(CMAKE_CXX_STANDARD 17)\n\
         find_package(inhouse 0.1 REQUIRED)\nfind_package(Threads REQUIRED)\n\
         add_executable(c complete.c)\ntarget_link_libraries(c PRIVATE inhouse::inhouse)\n\
         add_executable(cpp complete.cc)\ntarget_link_libraries(cpp PRIVATE inhouse::inhouse Threads::Threads)\n\
         add_executable(fixed complete.c)\ntarget_link_libraries(fixed PRIVATE inhouse::static)\n",
    )
    .unwrap();
    let mut configure = installed.command("cmake");
    configure.args(["-S", ".", "-B", "build"]);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", installed.path("prefix").display()));
    if succeed(&mut configure).is_none() {
        return;
    }
    succeed(installed.command("cmake").args(["--build", "build"]));
    for program in ["build/c", "build/cpp", "build/fixed"] {
        if let Some(out) = installed.host(&installed.path(program)) {
            assert!(out.ends_with("ok\n"), "{program}: {out}");
        }
    }
    // A version that is not installed is not found.
    let lists = std::fs::read_to_string(installed.path("CMakeLists.txt")).unwrap();
    std::fs::write(installed.path("CMakeLists.txt"), lists.replace("inhouse 0.1 ", "inhouse 7.0 ")).unwrap();
    assert!(!configure.output().unwrap().status.success());
}

#[test]
fn a_pkg_config_project_outside_the_tree_completes() {
    let Some(installed) = Installed::new() else { return };
    let pkg_config = |options: &[&str]| {
        let mut command = installed.command("pkg-config");
        command.env("PKG_CONFIG_PATH", installed.path("prefix/lib/pkgconfig")).args(options).arg("inhouse");
        succeed(&mut command)
    };
    let Some(flags) = pkg_config(&["--cflags", "--libs"]) else { return };
    assert_eq!(pkg_config(&["--modversion"]).unwrap().trim(), env!("CARGO_PKG_VERSION"));
    let mut compile = installed.command("cc");
    compile.args(["-std=c99", "complete.c", "-o", "c"]).args(flags.split_whitespace());
    if succeed(&mut compile).is_none() {
        return;
    }
    if let Some(out) = installed.host(&installed.path("c")) {
        assert!(out.ends_with("ok\n"), "{out}");
    }
}

#[test]
fn a_host_with_a_llama_of_its_own_runs_both() {
    let Some(installed) = Installed::new() else { return };
    let include = installed.path("prefix/include");
    let compile = |source: &str| {
        let mut compile = installed.command("cc");
        succeed(compile.args(["-std=c99", "-c", source, "-I"]).arg(&include))
    };
    if compile("own_llama.c").is_none() {
        return;
    }
    compile("own_llama_host.c");
    let library = installed.path("prefix/lib");
    let fixed = library.join("libinhouse.a");
    // With -rdynamic the host's symbols stand before the library's in the search order of the dynamic linker.
    let ways: [(&str, Vec<&str>); 2] = [
        ("shared", vec!["-rdynamic", "-l:libinhouse.so.0"]),
        ("static", vec![fixed.to_str().unwrap(), "-lstdc++", "-lpthread", "-ldl", "-lm"]),
    ];
    for (name, link) in ways {
        let program = installed.path(name);
        let mut command = installed.command("cc");
        command.args(["own_llama_host.o", "own_llama.o", "-o"]).arg(&program);
        succeed(command.arg(format!("-L{}", library.display())).args(link));
        if let Some(out) = installed.host(&program) {
            assert!(out.ends_with("own calls: 3\n"), "{name}: {out}");
        }
    }
    // The static library shows nothing that is not ours.
    if let Some(names) = succeed(Command::new("nm").args(["-g", "--defined-only"]).arg(&fixed)) {
        let foreign = names.lines().filter_map(|line| line.split_whitespace().nth(2));
        let foreign: Vec<_> = foreign.filter(|name| !name.starts_with("inhouse_")).collect();
        assert!(foreign.is_empty(), "global, but not ours: {foreign:?}");
    }
}

#[test]
fn the_debian_packages_hold_a_whole_library() {
    if run(Command::new("dpkg-deb").arg("--version")).is_none() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut make = Command::new(repository().join("scripts/deb.sh"));
    make.arg(dir.path())
        .env("COMPRESSION", "none")
        .env("BUILT", artifact("libinhouse_ffi.so").parent().unwrap());
    succeed(&mut make);
    let root = dir.path().join("root");
    let mut packages = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let package = entry.unwrap().path();
        succeed(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root));
        packages.push(package);
    }
    assert_eq!(packages.len(), 2, "{packages:?}");
    let program = dir.path().join("c");
    let mut compile = Command::new("cc");
    compile.args(["-std=c99", "-I"]).arg(root.join("usr/include")).arg(host_source("complete.c"));
    compile.arg("-o").arg(&program).arg(format!("-L{}", root.join("usr/lib").display())).arg("-linhouse");
    if succeed(&mut compile).is_none() {
        return;
    }
    let index = dir.path().join("index");
    build_index(&index);
    let mut host = Command::new(&program);
    host.arg(&index).env("LD_LIBRARY_PATH", root.join("usr/lib"));
    assert!(succeed(&mut host).unwrap().ends_with("ok\n"));
}
