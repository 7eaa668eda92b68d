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
        let model = model();
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

/// Opens an engine whose model runs in a worker, kills that, and goes on with another.
const WORKER_HOST: &str = r#"
#define _POSIX_C_SOURCE 200809L
#include <inhouse.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inhouse_status complete(const inhouse_engine *engine, int kill_worker)
{
    inhouse_session_params params;
    inhouse_complete_params how;
    inhouse_session *session = NULL;
    inhouse_completion *completion = NULL;
    inhouse_error *error = NULL;
    inhouse_text *info = NULL;
    inhouse_status status;
    char json[16384] = "";
    long pid = 0;
    inhouse_session_params_init(&params, sizeof params);
    inhouse_complete_params_init(&how, sizeof how);
    how.max_tokens = 4;
    if (inhouse_session_open(engine, &params, &session, &error) != INHOUSE_STATUS_OK)
        return inhouse_error_status(error);
    if (inhouse_engine_info(engine, &info, NULL) == INHOUSE_STATUS_OK) {
        inhouse_str view = inhouse_text_view(info);
        snprintf(json, sizeof json, "%.*s", (int)view.len, view.data);
        pid = strtol(strstr(json, "\"pid\":") + 6, NULL, 10);
    }
    inhouse_text_free(info);
    if (kill_worker && (pid < 2 || kill((pid_t)pid, SIGKILL) != 0))
        return INHOUSE_STATUS_INTERNAL;
    status = inhouse_session_complete(session, inhouse_str_of("x = "), &how, &completion, &error);
    if (error != NULL)
        printf("%.*s\n", (int)inhouse_error_message(error).len, inhouse_error_message(error).data);
    inhouse_error_free(error);
    inhouse_completion_free(completion);
    inhouse_session_close(session);
    return status;
}

int main(int argc, char **argv)
{
    inhouse_engine_params params;
    inhouse_engine *engine = NULL;
    int fine = argc == 3;
    inhouse_engine_params_init(&params, sizeof params);
    params.model = inhouse_str_of(argv[2]);
    params.worker = 1;
    fine = fine && inhouse_engine_open(&params, &engine, NULL) == INHOUSE_STATUS_OK;
    fine = fine && complete(engine, 0) == INHOUSE_STATUS_OK;
    fine = fine && complete(engine, 1) == INHOUSE_STATUS_BACKEND;
    fine = fine && complete(engine, 0) == INHOUSE_STATUS_OK;
    inhouse_engine_release(engine);
    puts(fine ? "ok" : "not ok");
    return !fine;
}
"#;

#[test]
fn an_installed_library_finds_its_worker() {
    let Some(installed) = Installed::new() else { return };
    std::fs::write(installed.path("worker.c"), WORKER_HOST).unwrap();
    let (include, library) = (installed.path("prefix/include"), installed.path("prefix/lib"));
    let mut compile = installed.command("cc");
    compile.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "worker.c", "-o", "worker", "-linhouse"]);
    if succeed(compile.arg("-I").arg(include).arg("-L").arg(library)).is_none() {
        return;
    }
    if let Some(out) = installed.host(&installed.path("worker")) {
        assert!(out.contains("signal 9") && out.ends_with("ok\n"), "{out}");
    }
}
