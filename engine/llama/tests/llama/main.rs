//! Behaviour of the llama.cpp backend on tiny models that the tests write themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod decoding;
mod encoder_decoder;
mod files;
mod tiny;

use std::path::PathBuf;
use std::sync::Arc;

use inhouse_core::decode::Model;
use inhouse_llama::LoadOptions;
use tempfile::TempDir;

/// A folder with one GGUF file.
fn write(gguf: &tiny::Gguf) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, gguf.bytes()).unwrap();
    (folder, path)
}

/// A loaded model; its file may be gone afterwards, as it is not mapped.
fn load(gguf: &tiny::Gguf) -> Arc<dyn Model> {
    let (_folder, path) = write(gguf);
    let mut options = LoadOptions::default();
    options.mmap = false;
    inhouse_llama::load(&path, &options).unwrap()
}
