//! The converter and its command on the fixture of tests/fixtures/make_codegen.py, and on damaged copies of it.

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inhouse_convert::quantize::Quantization;
use inhouse_convert::{Options, convert, info};
use inhouse_core::progress::Silent;
use inhouse_core::{Error, ErrorKind};

const FILES: [&str; 4] = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/codegen")
}

fn copy(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(fixture().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn options(from: &Path, out: &Path, quantization: Option<Quantization>) -> Options {
    Options {
        from: from.into(),
        out: out.into(),
        quantization,
        token_embedding: None,
        name: Some("fixture".into()),
    }
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inhouse-convert")).args(arguments).output().unwrap()
}

#[test]
fn every_layout_of_a_folder_gives_the_same_file() {
    let out = tempfile::tempdir().unwrap();
    let write = |from: &Path, name: &str| {
        let path = out.path().join(name);
        convert(&options(from, &path, Some(Quantization::F16)), &Silent).unwrap();
        std::fs::read(path).unwrap()
    };
    let whole = write(&fixture(), "whole.gguf");
    let pickled = copy(&["config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json"]);
    assert!(whole == write(pickled.path(), "pickled.gguf"), "safetensors and pytorch_model.bin differ");
    let parts = copy(&[
        "config.json",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "tokenizer_config.json",
    ]);
    assert!(whole == write(parts.path(), "parts.gguf"), "tokenizer.json and its parts differ");
}

#[test]
fn types_are_as_asked_and_fall_back_where_rows_do_not_fit() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    for (quantization, types) in [
        (None, [("F32", 35)].as_slice()),
        (Some(Quantization::F16), &[("F16", 14), ("F32", 21)]),
        (Some(Quantization::Q8_0), &[("F32", 21), ("Q8_0", 14)]),
        (Some(Quantization::Q4_0), &[("F32", 21), ("Q4_0", 13), ("Q8_0", 1)]),
        (Some(Quantization::Q4_K_S), &[("F32", 21), ("Q4_K", 3), ("Q5_0", 10), ("Q8_0", 1)]),
    ] {
        let report = convert(&options(&fixture(), &path, quantization), &Silent).unwrap();
        let info = info(&path).unwrap();
        assert_eq!(info.tensor_types.into_iter().collect::<Vec<_>>(), types, "{quantization:?}");
        assert_eq!(
            report.fallbacks.is_empty(),
            !matches!(quantization, Some(Quantization::Q4_K_S | Quantization::Q4_0)),
            "{:?}",
            report.fallbacks
        );
        assert_eq!((info.vocab_size, info.context_length), (Some(640), Some(128)));
        assert_eq!(info.architecture.as_deref(), Some("phi2"));
        assert_eq!(info.metadata["phi2.attention.layer_norm_epsilon"], 1e-5);
        assert_eq!(info.metadata["tokenizer.ggml.eos_token_id"], 559);
    }
    // Half-precision weights stay so by default.
    let pickled = copy(&["config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(convert(&options(pickled.path(), &path, None), &Silent).unwrap().file_type, "F16");
}

/// candle's reader of GGUF, written by others, agrees with what was written.
#[test]
fn candle_reads_it_too() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    convert(&options(&fixture(), &path, Some(Quantization::Q8_0)), &Silent).unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    let header = inhouse_core::gguf::read(&path).unwrap();
    assert_eq!(content.metadata.len(), header.metadata.len());
    assert_eq!(content.metadata["phi2.context_length"].to_u32().unwrap(), 128);
    let bytes = std::fs::read(&path).unwrap();
    for entry in &header.tensors {
        let tensor = content.tensor(&mut file, &entry.name, &candle_core::Device::Cpu).unwrap();
        let begin = (header.data_start + entry.offset) as usize;
        assert_eq!(
            tensor.data().unwrap().as_ref(),
            &bytes[begin..begin + entry.n_bytes() as usize],
            "{}",
            entry.name
        );
    }
}

/// Changes one file of a copy and converts; the error, after checking that nothing was written.
fn failure(file: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> Error {
    let dir = copy(&FILES);
    let path = dir.path().join(file);
    match change(std::fs::read(&path).unwrap()) {
        Some(bytes) => std::fs::write(&path, bytes).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("model.gguf");
    std::fs::write(&target, "what was there before").unwrap();
    let error = convert(&options(dir.path(), &target, Some(Quantization::F16)), &Silent).unwrap_err();
    assert_eq!(std::fs::read(&target).unwrap(), b"what was there before");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "a temporary file was left behind");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

/// `config.json` with a key set, or taken out.
fn config(key: &str, value: Option<serde_json::Value>) -> Error {
    failure("config.json", |bytes| {
        let mut tree: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).unwrap();
        match value {
            Some(value) => drop(tree.insert(key.into(), value)),
            None => drop(tree.remove(key)),
        }
        Some(serde_json::to_vec(&tree).unwrap())
    })
}

#[test]
fn faults_are_named_and_nothing_is_written() {
    let cases: Vec<(Error, &[&str])> = vec![
        (config("n_embd", None), &["config.json", "\"n_embd\" is missing"]),
        (config("n_layer", Some((-3).into())), &["config.json", "\"n_layer\" is -3", "whole number"]),
        (config("n_layer", Some(4.into())), &["transformer.h.3.ln_1.weight is missing"]),
        (config("n_head", Some(6.into())), &["config.json", "n_head 6"]),
        (config("rotary_dim", Some(24.into())), &["config.json", "rotary_dim 24"]),
        (config("n_embd", Some(128.into())), &["model.safetensors", "[640, 64]", "[640, 128]"]),
        (config("vocab_size", Some(500.into())), &["[640, 64]", "[500, 64]"]),
        (config("activation_function", Some("relu".into())), &["config.json", "relu", "gelu_new"]),
        (
            config("model_type", Some("mamba".into())),
            &["config.json", "\"mamba\"", "supported: bert, codegen, gpt2, llama, mistral, qwen2, t5"],
        ),
        (config("model_type", None), &["config.json", "\"model_type\" is missing"]),
        (failure("config.json", |_| None), &["config.json", "No such file"]),
        (failure("config.json", |_| Some(Vec::new())), &["config.json", "bad JSON"]),
        (failure("config.json", |_| Some(b"{\"a\": \"\xff\"}".to_vec())), &["config.json", "UTF-8"]),
        (failure("model.safetensors", |_| None), &["holds no weights", "pytorch_model.bin"]),
        (failure("model.safetensors", |_| Some(Vec::new())), &["model.safetensors", "too short"]),
        (
            failure("model.safetensors", |bytes| Some(bytes[..bytes.len() - 1].to_vec())),
            &["model.safetensors", "truncated"],
        ),
        (
            failure("model.safetensors", |mut bytes| {
                let last = bytes.len() - 4;
                bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
                Some(bytes)
            }),
            &["model.safetensors", "holds NaN"],
        ),
        (failure("tokenizer.json", |_| None), &["no tokenizer"]),
        (failure("tokenizer.json", |_| Some(b"{}".to_vec())), &["tokenizer.json", "byte-level BPE"]),
        (
            failure("tokenizer.json", |bytes| {
                let text = String::from_utf8(bytes).unwrap();
                Some(text.replace("\"id\":597", "\"id\":640").into_bytes())
            }),
            &["tokenizer.json", "640 rows"],
        ),
    ];
    for (error, wanted) in cases {
        for part in wanted {
            assert!(error.to_string().contains(part), "{error} (wanted {part})");
        }
    }
    assert_eq!(config("model_type", Some("mamba".into())).kind(), ErrorKind::Unsupported);
}

#[test]
fn the_command_follows_the_conventions() {
    let out = tempfile::tempdir().unwrap();
    let target = out.path().join("model.gguf");
    let (from, to) = (fixture(), target.to_str().unwrap().to_owned());
    let from = from.to_str().unwrap();
    let done = command(&[
        "gguf",
        "--from",
        from,
        "--out",
        &to,
        "--quantize",
        "q8_0",
        "--json",
        "--progress",
        "json",
    ]);
    assert!(done.status.success(), "{done:?}");
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&report["file_type"], &report["tensors"]), (&"Q8_0".into(), &35.into()));
    let events: Vec<serde_json::Value> = String::from_utf8(done.stderr)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.last().unwrap()["event"], "finish");
    assert_eq!(events.last().unwrap()["done"], report["bytes"]);

    let shown = command(&["info", &to]);
    assert!(shown.status.success());
    assert!(String::from_utf8(shown.stdout).unwrap().contains("blk.2.ffn_down.weight"));
    let json = command(&["info", &to, "--json"]);
    let tree: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(tree["tensors"].as_array().unwrap().len(), 35);

    for (arguments, status) in [
        (vec!["gguf", "--from", "/no/such/folder", "--out", &to], 1),
        (vec!["gguf", "--from", from, "--out", "/no/such/folder/model.gguf"], 1),
        (vec!["info", "/no/such/file"], 1),
        (vec!["gguf", "--from", from], 2),
        (vec!["gguf", "--from", from, "--out", &to, "--quantize", "Q9"], 2),
        (vec!["frobnicate"], 2),
        (vec!["--help"], 0),
    ] {
        let ended = command(&arguments);
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {ended:?}");
        if status == 1 {
            assert_eq!(String::from_utf8(ended.stderr).unwrap().lines().count(), 1, "{arguments:?}");
        }
    }
}
