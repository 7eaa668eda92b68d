//! Converted models against the originals: logits and tokens of the GGUF file through llama.cpp, and of the Hugging Face
//! folder through candle, against what transformers computed for tests/fixtures/codegen.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use inhouse_convert::quantize::Quantization;
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed, Model, Tokenizer};
use inhouse_core::progress::Silent;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/codegen")
}

struct Reference {
    tokens: Vec<u32>,
    /// `[position][vocab]`
    logits: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(fixture().join("reference.json")).unwrap();
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vocab_size = tree["shape"][1].as_u64().unwrap() as usize;
    let bytes = std::fs::read(fixture().join(tree["logits"].as_str().unwrap())).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    Reference {
        tokens: tree["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect(),
        logits: values.chunks(vocab_size).map(<[f32]>::to_vec).collect(),
    }
}

/// The fixture converted, loaded by llama.cpp. The folder must outlive the model.
fn converted(quantization: Quantization) -> (tempfile::TempDir, Arc<dyn Model>) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let options = inhouse_convert::Options {
        from: fixture(),
        out: out.clone(),
        quantization: Some(quantization),
        token_embedding: None,
        name: None,
    };
    inhouse_convert::convert(&options, &Silent).unwrap();
    let model = inhouse_llama::load(&out, &inhouse_llama::LoadOptions::default()).unwrap();
    (dir, model)
}

fn candle() -> Arc<dyn Model> {
    inhouse_candle::load(&fixture(), &inhouse_candle::LoadOptions::default()).unwrap()
}

/// Logits after each token: fed one by one, or each prefix anew in one feed.
fn all_logits(model: &Arc<dyn Model>, tokens: &[u32], incremental: bool) -> Vec<Vec<f32>> {
    let mut decoder =
        Arc::clone(model).decoder(&DecoderOptions { exact: true, ..DecoderOptions::default() }).unwrap();
    let mut rows = Vec::new();
    for i in 0..tokens.len() {
        let from = if incremental {
            i
        } else {
            decoder.rewind(0, 0).unwrap();
            0
        };
        decoder.feed(&[Feed { seq: 0, tokens: &tokens[from..=i] }], &CancelToken::new()).unwrap();
        rows.push(decoder.logits(0).unwrap().to_vec());
    }
    rows
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// (largest difference, positions whose largest logit is the same)
fn compare(got: &[Vec<f32>], want: &[Vec<f32>]) -> (f32, usize) {
    let mut worst = 0f32;
    let mut equal = 0;
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.len(), want.len());
        worst = got.iter().zip(want).fold(worst, |worst, (got, want)| worst.max((got - want).abs()));
        equal += usize::from(argmax(got) == argmax(want));
    }
    (worst, equal)
}

#[test]
fn gguf_f32_logits_equal_those_of_transformers() {
    let reference = reference();
    let (_dir, model) = converted(Quantization::F32);
    assert_eq!(model.info().architecture, "phi2");
    for incremental in [true, false] {
        let (worst, equal) = compare(&all_logits(&model, &reference.tokens, incremental), &reference.logits);
        println!("F32, incremental {incremental}: largest difference {worst:.2e}, argmax equal at {equal}");
        // What is left is llama.cpp's GELU, a table in f16.
        assert!(worst <= 5e-4, "{worst}");
        assert_eq!(equal, reference.tokens.len());
    }
}

#[test]
fn quantised_logits_stay_near() {
    let reference = reference();
    let n = reference.tokens.len();
    let table =
        [(Quantization::F16, 0.002, n), (Quantization::BF16, 0.02, n - 2), (Quantization::Q8_0, 0.05, n - 4)];
    for (quantization, bound, at_least) in table {
        let (_dir, model) = converted(quantization);
        let (worst, equal) = compare(&all_logits(&model, &reference.tokens, true), &reference.logits);
        println!("{quantization}: largest difference {worst:.2e}, argmax equal at {equal} of {n}");
        assert!(worst <= bound && equal >= at_least, "{quantization}: {worst}, {equal}");
    }
    // Every other type loads and computes something finite.
    for quantization in Quantization::ALL {
        let (_dir, model) = converted(quantization);
        let rows = all_logits(&model, &reference.tokens[..4], true);
        assert!(rows.iter().flatten().all(|value| value.is_finite()), "{quantization}");
    }
}

#[test]
fn candle_and_llama_agree() {
    let reference = reference();
    let (_dir, llama) = converted(Quantization::F32);
    let candle = all_logits(&candle(), &reference.tokens, true);
    let (worst, _) = compare(&candle, &reference.logits);
    assert!(worst < 1e-4, "candle against transformers: {worst}");
    let (worst, equal) = compare(&all_logits(&llama, &reference.tokens, true), &candle);
    assert!(worst <= 5e-4 && equal == reference.tokens.len(), "llama.cpp against candle: {worst}, {equal}");
}

#[test]
fn tokens_equal_those_of_hugging_face() {
    let (_dir, llama) = converted(Quantization::F16);
    let (llama, candle_model) = (llama.tokenizer(), candle());
    let candle = candle_model.tokenizer();
    let text = std::fs::read_to_string(fixture().join("tokenisations.json")).unwrap();
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    for case in tree["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let tokens = llama.encode(text).unwrap();
        assert_eq!(tokens, candle.encode(text).unwrap(), "{text:?}");
        // Hugging Face reads a spelled-out control token as one; a prompt must not end itself.
        if !text.contains("<|endoftext|>") {
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokens, want, "{text:?}");
        }
        assert_eq!(bytes_of(llama, &tokens), text.as_bytes(), "{text:?}");
    }
    assert_eq!(llama.vocab_size(), candle.vocab_size());
    for id in 0..candle.vocab_size() as u32 {
        assert_eq!(llama.token_bytes(id), candle.token_bytes(id), "token {id}");
        assert_eq!(llama.is_end(id), candle.is_end(id), "token {id}");
        assert_eq!(llama.is_sampleable(id), candle.is_sampleable(id), "token {id}");
    }
}

fn bytes_of(tokenizer: &dyn Tokenizer, tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect()
}

#[test]
fn a_thousand_python_files_have_the_same_tokens() {
    const WANTED: usize = 1000;
    let files = python_files(WANTED);
    if files.len() < WANTED {
        println!("skipped: {} Python files on this machine, {WANTED} wanted", files.len());
        return;
    }
    let (_dir, llama) = converted(Quantization::F16);
    let candle = candle();
    let mut total = 0;
    for (path, text) in &files {
        let tokens = llama.tokenizer().encode(text).unwrap();
        assert_eq!(tokens, candle.tokenizer().encode(text).unwrap(), "{}", path.display());
        assert_eq!(bytes_of(llama.tokenizer(), &tokens), text.as_bytes(), "{}", path.display());
        total += tokens.len();
    }
    println!("{} files, {total} tokens: all equal", files.len());
}

/// UTF-8 Python files of the standard library and of what is installed beside it, up to `limit`.
fn python_files(limit: usize) -> Vec<(PathBuf, String)> {
    let script = "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('purelib')); print('/usr/lib/python3')";
    let Ok(output) = Command::new("python3").args(["-c", script]).output() else { return Vec::new() };
    let mut folders: Vec<PathBuf> =
        String::from_utf8_lossy(&output.stdout).lines().rev().map(PathBuf::from).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "py")
                && path.metadata().is_ok_and(|meta| (1..300_000).contains(&meta.len()))
                && seen.insert(path.clone())
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                files.push((path, text));
                if files.len() == limit {
                    return files;
                }
            }
        }
    }
    files
}
