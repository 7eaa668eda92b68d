//! Every architecture that is converted: GGUF files through llama.cpp against what transformers computed for the fixtures of
//! tests/fixtures/make_models.py, in logits and in tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse_convert::quantize::Quantization;
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed, Model};
use inhouse_core::progress::Silent;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A folder with the files of a fixture, its config.json patched.
fn patched(name: &str, patch: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (key, value) in patch.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    dir
}

fn convert(from: &Path, out: &Path, quantization: Quantization) -> inhouse_core::Result<()> {
    let options = inhouse_convert::Options {
        from: from.into(),
        out: out.into(),
        quantization: Some(quantization),
        token_embedding: None,
        name: Some("fixture".into()),
    };
    inhouse_convert::convert(&options, &Silent).map(drop)
}

/// A converted folder, loaded.
fn converted(from: &Path, quantization: Quantization) -> Arc<dyn Model> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    convert(from, &out, quantization).unwrap();
    let mut options = inhouse_llama::LoadOptions::default();
    options.mmap = false;
    inhouse_llama::load(&out, &options).unwrap()
}

struct Case {
    config: Value,
    prompt: Option<Vec<u32>>,
    tokens: Vec<u32>,
    /// Positions of `tokens` with their logits.
    rows: Vec<(usize, Vec<f32>)>,
}

fn cases(name: &str) -> Vec<Case> {
    let dir = fixture(name);
    let tree: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
    let vocab_size = tree["vocab_size"].as_u64().unwrap() as usize;
    let bytes = std::fs::read(dir.join("logits.bin")).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let rows: Vec<&[f32]> = values.chunks(vocab_size).collect();
    let cases = tree["cases"].as_array().unwrap().iter().map(|case| {
        let first = case["first_row"].as_u64().unwrap() as usize;
        let positions: Vec<usize> = serde_json::from_value(case["positions"].clone()).unwrap();
        Case {
            config: case["config"].clone(),
            prompt: serde_json::from_value(case["prompt"].clone()).unwrap(),
            tokens: serde_json::from_value(case["tokens"].clone()).unwrap(),
            rows: positions.into_iter().enumerate().map(|(i, at)| (at, rows[first + i].to_vec())).collect(),
        }
    });
    cases.collect()
}

/// Logits after each of a case's tokens. An encoder-decoder is fed its prompt first, which brings the start token with it.
fn logits(model: &Arc<dyn Model>, case: &Case) -> Vec<Vec<f32>> {
    let options = DecoderOptions { exact: true, threads: Some(1), ..DecoderOptions::default() };
    let mut decoder = Arc::clone(model).decoder(&options).unwrap();
    let mut rows = Vec::new();
    let mut feed = |tokens: &[u32]| {
        decoder.feed(&[Feed { seq: 0, tokens }], &CancelToken::new()).unwrap();
        rows.push(decoder.logits(0).unwrap().to_vec());
    };
    let rest = match &case.prompt {
        Some(prompt) => {
            feed(prompt);
            &case.tokens[1..]
        }
        None => &case.tokens[..],
    };
    // A model whose window became its context holds fewer.
    let room = model.info().context_length.min(rest.len());
    rest[..room].iter().for_each(|token| feed(&[*token]));
    rows
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

/// (largest difference, positions whose largest logit is another)
fn compare(got: &[Vec<f32>], want: &[(usize, Vec<f32>)]) -> (f32, usize) {
    let mut worst = 0f32;
    let mut other = 0;
    for (at, want) in want {
        let Some(got) = got.get(*at) else { continue };
        assert_eq!(got.len(), want.len());
        worst = got.iter().zip(want).fold(worst, |worst, (got, want)| worst.max((got - want).abs()));
        other += usize::from(argmax(got) != argmax(want));
    }
    (worst, other)
}

/// What a file type may differ by, and at how many of 64 positions the most likely token may be another.
const TYPES: [(Quantization, f32, usize); 4] = [
    (Quantization::F32, 5e-3, 0),
    (Quantization::F16, 2e-2, 0),
    (Quantization::BF16, 0.2, 4),
    (Quantization::Q8_0, 1.0, 6),
];

#[test]
fn logits_equal_those_of_transformers() {
    let mut failures = Vec::new();
    for name in ["gpt2", "llama", "qwen2", "mistral", "t5", "t5_gated"] {
        for (number, case) in cases(name).iter().enumerate() {
            let dir = patched(name, &case.config);
            let what = format!("{name} {}", case.config);
            let out = tempfile::tempdir().unwrap();
            if let Err(error) = convert(dir.path(), &out.path().join("model.gguf"), Quantization::F32) {
                println!("{what}: {error}");
                continue;
            }
            let types = if number == 0 { &TYPES[..] } else { &TYPES[..1] };
            for (quantization, bound, allowed) in types {
                let model = converted(dir.path(), *quantization);
                let rows = logits(&model, case);
                let (worst, other) = compare(&rows, &case.rows);
                let n = rows.len();
                println!(
                    "{what} {quantization}: largest difference {worst:.1e}, {other} of {n} positions differ"
                );
                if worst > *bound || other > *allowed {
                    failures.push(format!("{what} {quantization}: {worst}, {other}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A gated T5 as llama.cpp has it, for which there is no reference: both backends agree.
#[test]
fn a_gated_t5_is_the_same_on_both_backends() {
    let patch = serde_json::json!({"relative_attention_max_distance": 128, "num_decoder_layers": 1});
    let dir = patched("t5_gated", &patch);
    let mut case = cases("t5_gated").remove(0);
    let llama = {
        let out = dir.path().join("model.gguf");
        convert(dir.path(), &out, Quantization::F32).unwrap();
        inhouse_llama::load(&out, &inhouse_llama::LoadOptions::default()).unwrap()
    };
    let candle = inhouse_candle::load(dir.path(), &inhouse_candle::LoadOptions::default()).unwrap();
    case.rows = logits(&candle, &case).into_iter().enumerate().collect();
    let (worst, other) = compare(&logits(&llama, &case), &case.rows);
    println!("largest difference {worst:.1e}, {other} of {} positions differ", case.rows.len());
    assert!(worst < 5e-3 && other == 0 && case.rows.len() == 64, "{worst}, {other}");
}

#[test]
fn tokens_equal_those_of_hugging_face() {
    for name in ["gpt2", "llama", "qwen2", "mistral", "t5", "t5_gated"] {
        let dir = patched(
            name,
            &serde_json::json!({"relative_attention_max_distance": 128, "num_decoder_layers": 1}),
        );
        if !name.starts_with("t5_") {
            std::fs::copy(fixture(name).join("config.json"), dir.path().join("config.json")).unwrap();
        }
        let model = converted(dir.path(), Quantization::F16);
        let tokenizer = model.tokenizer();
        let text = std::fs::read_to_string(fixture(name).join("tokenisations.json")).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        for case in tree["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let got = tokenizer.encode(text).unwrap();
            // What llama.cpp cannot do: Unicode composition, and a leading space that is put there only where there is none.
            let composed = name == "qwen2" && text.contains('\u{301}');
            let leading = name == "mistral" && text.starts_with([' ', '▁']);
            assert_eq!(got == want, !(composed || leading), "{name} {text:?}: {got:?} for {want:?}");
        }
    }
}

#[test]
fn gpt_neo_is_refused_with_the_reason() {
    let out = tempfile::tempdir().unwrap();
    let error = convert(&fixture("gpt_neo"), &out.path().join("model.gguf"), Quantization::F16).unwrap_err();
    assert_eq!(error.kind(), inhouse_core::ErrorKind::Unsupported);
    assert!(error.to_string().contains("gpt_neo") && error.to_string().contains("candle"), "{error}");
}

/// Every file type of every architecture loads and computes something finite.
#[test]
fn every_type_runs() {
    for name in ["gpt2", "llama", "qwen2", "t5"] {
        let cases = cases(name);
        let mut case = cases.into_iter().next().unwrap();
        case.tokens.truncate(4);
        for quantization in Quantization::ALL {
            let rows = logits(&converted(&fixture(name), quantization), &case);
            assert!(rows.iter().flatten().all(|value| value.is_finite()), "{name} {quantization}");
        }
    }
}

/// What a llama.cpp user expects to find in a file, for a model with chat and infilling tokens.
#[test]
fn metadata_says_what_the_folder_says() {
    let dir = patched("qwen2", &Value::Null);
    let edit = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = dir.path().join(file);
        let mut tree: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut tree);
        std::fs::write(&path, serde_json::to_vec(&tree).unwrap()).unwrap();
    };
    edit("tokenizer.json", &|tree| {
        let added = tree["added_tokens"].as_array_mut().unwrap();
        let mut more = added[0].clone();
        for (id, text) in [(303, "<|fim_prefix|>"), (304, "<|fim_suffix|>"), (305, "<|fim_middle|>")] {
            more["id"] = id.into();
            more["content"] = text.into();
            added.push(more.clone());
        }
    });
    edit("tokenizer_config.json", &|tree| tree["chat_template"] = "{{ messages }}".into());
    edit("config.json", &|tree| tree["eos_token_id"] = serde_json::json!([300, 302]));
    let out = dir.path().join("model.gguf");
    convert(dir.path(), &out, Quantization::Q8_0).unwrap();
    let info = inhouse_convert::info(&out).unwrap();
    for (key, value) in [
        ("general.architecture", Value::from("qwen2")),
        ("general.file_type", 7.into()),
        ("general.quantization_version", 2.into()),
        ("qwen2.attention.head_count_kv", 2.into()),
        ("qwen2.rope.freq_base", 1e6.into()),
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", "qwen2".into()),
        ("tokenizer.ggml.eos_token_id", 300.into()),
        ("tokenizer.ggml.eot_token_id", 302.into()),
        ("tokenizer.ggml.padding_token_id", 300.into()),
        ("tokenizer.ggml.add_bos_token", false.into()),
        ("tokenizer.ggml.fim_pre_token_id", 303.into()),
        ("tokenizer.ggml.fim_suf_token_id", 304.into()),
        ("tokenizer.ggml.fim_mid_token_id", 305.into()),
        ("tokenizer.chat_template", "{{ messages }}".into()),
    ] {
        assert_eq!(info.metadata.get(key), Some(&value), "{key}");
    }
    // Rows that only pad the embedding are marked as unused, and are never sampled.
    let model = inhouse_llama::load(&out, &inhouse_llama::LoadOptions::default()).unwrap();
    let tokenizer = model.tokenizer();
    assert!(!tokenizer.is_sampleable(319) && !tokenizer.is_sampleable(303) && tokenizer.is_sampleable(65));
    assert!(tokenizer.is_end(300) && tokenizer.is_end(302));
}

/// The reader that llama.cpp's own project publishes agrees with what was written; skipped without it.
#[test]
fn the_python_reader_agrees() {
    const SCRIPT: &str = "
import json, sys
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith('GGUF.')}
tensors = [[t.name, t.tensor_type.name, [int(d) for d in reversed(t.shape)], int(t.n_bytes), int(t.data_offset)]
           for t in reader.tensors]
print(json.dumps({'fields': fields, 'tensors': tensors}))
";
    let python = std::env::var_os("INHOUSE_GGUF_PYTHON").unwrap_or_else(|| "python3".into());
    let has = std::process::Command::new(&python).args(["-c", "import gguf"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with the package gguf (INHOUSE_GGUF_PYTHON names one)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["codegen", "gpt2", "llama", "qwen2", "mistral", "t5"] {
        for quantization in [Quantization::F32, Quantization::BF16, Quantization::Q8_0, Quantization::Q4_K_M]
        {
            let out = dir.path().join("model.gguf");
            convert(&fixture(name), &out, quantization).unwrap();
            let output = std::process::Command::new(&python).args(["-c", SCRIPT]).arg(&out).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
            let info = inhouse_convert::info(&out).unwrap();
            let header = inhouse_core::gguf::read(&out).unwrap();
            assert_eq!(tree["fields"].as_object().unwrap().len(), info.metadata.len());
            for (key, value) in &info.metadata {
                let theirs = &tree["fields"][key];
                match (value.get("items"), theirs.as_array()) {
                    (Some(items), Some(theirs)) => {
                        assert_eq!(value["len"], theirs.len(), "{name} {key}");
                        let items = items.as_array().unwrap();
                        assert!(items.iter().zip(theirs).all(|(a, b)| same(a, b)), "{name} {key}");
                    }
                    _ => assert!(same(value, theirs), "{name} {key}: {value} for {theirs}"),
                }
            }
            for ((tensor, row), theirs) in
                header.tensors.iter().zip(&info.tensors).zip(tree["tensors"].as_array().unwrap())
            {
                let at = header.data_start + tensor.offset;
                let ours = serde_json::json!([row.name, row.kind, row.shape, row.bytes, at]);
                assert_eq!(ours, *theirs, "{name}");
            }
        }
    }
}

/// Equal, numbers to the precision of an F32.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(ours), Some(theirs)) => (ours - theirs).abs() <= theirs.abs() * 1e-6,
        _ => ours == theirs,
    }
}
