//! The Neovim plug-in, headless, on the library that cargo built.

use std::process::Command;

use super::{artifact, build_index, infill_model, model, run, succeed};
use inhouse_tests::repository;
use tempfile::TempDir;

#[test]
fn the_neovim_plug_in_chooses_and_completes() {
    if run(Command::new("nvim").arg("--version")).is_none() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let index = dir.path().join("index");
    build_index(&index);
    let Some(model) = model() else { return };
    let plugin = repository().join("editors/nvim");
    let mut nvim = Command::new("nvim");
    nvim.args(["--headless", "--clean", "-c", "luafile tests/headless.lua"]).current_dir(&plugin);
    nvim.env("INHOUSE_PLUGIN", &plugin).env("INHOUSE_LIBRARY", artifact("libinhouse_ffi.so"));
    nvim.env("INHOUSE_INDEX", &index).env("INHOUSE_MODEL", &model);
    nvim.env("INHOUSE_INFILL_MODEL", infill_model(dir.path()).unwrap_or_default());
    for (name, folder) in
        [("XDG_STATE_HOME", "state"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")]
    {
        nvim.env(name, dir.path().join(folder));
    }
    let out = succeed(&mut nvim).expect("nvim was found");
    assert!(out.ends_with("ok\n"), "{out}");
}
