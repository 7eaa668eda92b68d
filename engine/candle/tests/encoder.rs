//! Text encoders on candle against transformers, on the fixture made by tests/fixtures/make_encoder.py.

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use inhouse_candle::{
    DType, EncoderSettings, LoadOptions, Pooling, SETTINGS_FILE, Towers, TrainableEncoder, load_encoder,
};
use inhouse_core::ErrorKind;
use inhouse_core::decode::CancelToken;
use inhouse_core::encode::Role;
use serde_json::{Value, json};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bert")
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

struct Reference {
    texts: Vec<String>,
    ids: Vec<Vec<u32>>,
    cls: Vec<Vec<f32>>,
    /// Of length 1.
    mean: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    let tree = json_file(&fixture().join("reference.json"));
    let bytes = std::fs::read(fixture().join("vectors.bin")).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let rows = tree["texts"].as_array().unwrap();
    let mut vectors = values.chunks(tree["dim"].as_u64().unwrap() as usize).map(<[f32]>::to_vec);
    Reference {
        texts: rows.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect(),
        ids: rows.iter().map(|row| serde_json::from_value(row["ids"].clone()).unwrap()).collect(),
        cls: vectors.by_ref().take(rows.len()).collect(),
        mean: vectors.collect(),
    }
}

/// A copy of the fixture.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "1_Pooling/config.json",
    ] {
        std::fs::copy(fixture().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn patch(path: &Path, key: &str, value: Value) {
    let mut tree = if path.exists() { json_file(path) } else { json!({}) };
    tree[key] = value;
    std::fs::write(path, tree.to_string()).unwrap();
}

fn worst(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0f32, |worst, (got, want)| worst.max((got - want).abs()))
}

fn settings(pooling: Pooling, normalize: bool, towers: Towers) -> EncoderSettings {
    EncoderSettings::new(pooling, normalize, 48, towers)
}

#[test]
fn vectors_match_transformers_alone_and_in_ragged_batches() {
    let reference = reference();
    let dir = copy();
    let texts: Vec<&str> = reference.texts.iter().map(String::as_str).collect();
    for (pooling, want) in [("mean", &reference.mean), ("cls", &reference.cls)] {
        if pooling == "cls" {
            let text = r#"{"version": 1, "pooling": "cls", "normalize": false, "max_tokens": 48}"#;
            std::fs::write(dir.path().join(SETTINGS_FILE), text).unwrap();
        }
        let encoder = load_encoder(dir.path(), &LoadOptions::default()).unwrap();
        assert_eq!((encoder.info().dim, encoder.info().max_tokens), (64, 48));
        assert_eq!(encoder.info().normalized, pooling == "mean");
        let go = CancelToken::new();
        let batch = encoder.encode(Role::Document, &texts, &go).unwrap();
        assert_eq!(batch, encoder.encode(Role::Query, &texts, &go).unwrap(), "tied and deterministic");
        let mut error = 0f32;
        for (i, row) in batch.rows().enumerate() {
            let alone = encoder.encode(Role::Query, &texts[i..=i], &go).unwrap();
            error = error.max(worst(row, &want[i])).max(worst(&alone.values, &want[i]));
        }
        println!("{pooling}: {} texts, largest difference {error:.1e}", texts.len());
        assert!(error < 1e-5, "{pooling}: {error}");
        let cancelled = CancelToken::new();
        cancelled.cancel();
        let error = encoder.encode(Role::Query, &texts, &cancelled).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(encoder.encode(Role::Query, &[], &go).unwrap().is_empty());
    }
    // Half precision is padded, and close.
    for (dtype, bound) in [(DType::F16, 5e-3), (DType::BF16, 5e-2)] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let batch = load_encoder(&fixture(), &options).unwrap();
        let batch = batch.encode(Role::Query, &texts, &CancelToken::new()).unwrap();
        for (row, want) in batch.rows().zip(&reference.mean) {
            assert!(worst(row, want) < bound, "{dtype:?}: {}", worst(row, want));
        }
    }
}

/// Both layouts of the tokenizer's files, and what is cut off.
#[test]
fn tokenisations_match_transformers() {
    let reference = reference();
    let dir = copy();
    for file in ["tokenizer.json", "vocab.txt"] {
        let trainable = TrainableEncoder::load(dir.path(), &LoadOptions::default(), None).unwrap();
        for (text, want) in reference.texts.iter().zip(&reference.ids) {
            assert_eq!(&trainable.tokenizer().encode(text).unwrap(), want, "{file}: {text:?}");
        }
        assert!(reference.ids.iter().any(|ids| ids.len() == 48));
        if file == "tokenizer.json" {
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
    }
}

#[test]
fn every_variable_gets_a_gradient() {
    let reference = reference();
    let texts: Vec<&[u32]> = reference.ids.iter().map(Vec::as_slice).collect();
    for (pooling, normalize) in [(Pooling::Mean, true), (Pooling::Cls, false)] {
        for towers in [Towers::Tied, Towers::Independent] {
            let settings = settings(pooling, normalize, towers);
            let encoder =
                TrainableEncoder::load(&fixture(), &LoadOptions::default(), Some(settings)).unwrap();
            let queries = encoder.encode_tokens(Role::Query, &texts[..5]).unwrap();
            let documents = encoder.encode_tokens(Role::Document, &texts[5..]).unwrap();
            let detached = encoder.encode_tokens_detached(Role::Query, &texts[..5]).unwrap();
            let rows = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(worst(&rows(&queries), &rows(&detached)) < 1e-5);
            let want = if pooling == Pooling::Mean { &reference.mean } else { &reference.cls };
            assert!(worst(&rows(&queries), &want[..5].concat()) < 1e-5);
            let scores = queries.matmul(&documents.t().unwrap()).unwrap();
            let targets = Tensor::new(&[3u32, 0, 1, 4, 2], scores.device()).unwrap();
            let loss = candle_nn::loss::cross_entropy(&scores, &targets).unwrap();
            let gradients = loss.backward().unwrap();
            assert_eq!(encoder.variables().len(), if towers == Towers::Tied { 37 } else { 74 });
            for (name, variable) in encoder.variables() {
                let gradient = gradients.get(variable).unwrap_or_else(|| panic!("{name} gets no gradient"));
                let largest: f32 = gradient.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
                // A key's bias shifts all scores of a row alike: its gradient is zero but for rounding.
                assert!(largest.is_finite() && largest > 1e-10, "{name} gets a gradient of {largest}");
            }
        }
    }
}

/// A step along the gradient lowers a loss by what the gradient promises.
#[test]
fn gradients_agree_with_differences() {
    let reference = reference();
    let texts: Vec<&[u32]> = reference.ids.iter().map(Vec::as_slice).collect();
    let encoder = TrainableEncoder::load(&fixture(), &LoadOptions::default(), None).unwrap();
    let weights = Tensor::randn(0f32, 1.0, (texts.len(), 64), &candle_core::Device::Cpu).unwrap();
    let loss = || {
        let vectors = encoder.encode_tokens(Role::Query, &texts).unwrap();
        (vectors * &weights).unwrap().sum_all().unwrap()
    };
    let gradients = loss().backward().unwrap();
    for (name, variable) in encoder.variables().iter().filter(|(name, _)| !name.contains("key.bias")) {
        let gradient = gradients.get(variable).unwrap();
        let norm: f32 = gradient.sqr().unwrap().sum_all().unwrap().to_scalar().unwrap();
        let before = variable.as_tensor().copy().unwrap();
        // Half a step to each side; its size is what changes the loss by about 0.02.
        let step = (gradient * (0.01 / f64::from(norm))).unwrap();
        let at = |moved: Tensor| {
            variable.set(&moved).unwrap();
            f64::from(loss().to_scalar::<f32>().unwrap())
        };
        let change = at((&before + &step).unwrap()) - at((&before - &step).unwrap());
        variable.set(&before).unwrap();
        assert!((change / 0.02 - 1.0).abs() < 0.05, "{name}: {change}");
    }
}

#[test]
fn what_is_saved_loads_again() {
    let reference = reference();
    let texts: Vec<&str> = reference.texts.iter().map(String::as_str).collect();
    let go = CancelToken::new();
    for towers in [Towers::Tied, Towers::Independent] {
        let settings = settings(Pooling::Cls, true, towers);
        let trainable =
            TrainableEncoder::load(&fixture(), &LoadOptions::default(), Some(settings.clone())).unwrap();
        // As after a step of training: the towers differ.
        for (name, variable) in trainable.variables() {
            let factor = if name.starts_with("document.") { 1.1 } else { 0.9 };
            variable.set(&(variable.as_tensor() * factor).unwrap()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("encoder");
        trainable.save(&folder).unwrap();
        trainable.save(&folder).unwrap();
        let again = TrainableEncoder::load(&folder, &LoadOptions::default(), None).unwrap();
        assert_eq!(again.settings(), &settings);
        let loaded = load_encoder(&folder, &LoadOptions::default()).unwrap();
        use inhouse_core::encode::TextEncoder;
        for role in [Role::Query, Role::Document] {
            let want = trainable.encode(role, &texts, &go).unwrap();
            assert_eq!(loaded.encode(role, &texts, &go).unwrap(), want);
            assert_eq!(again.encode(role, &texts, &go).unwrap(), want);
        }
        let query = loaded.encode(Role::Query, &texts, &go).unwrap();
        let document = loaded.encode(Role::Document, &texts, &go).unwrap();
        assert_eq!(query == document, towers == Towers::Tied);
        assert_ne!(trainable.info().fingerprint, loaded.info().fingerprint);
        assert_eq!(again.info().fingerprint, loaded.info().fingerprint);
        if towers == Towers::Independent {
            let tied = self::settings(Pooling::Cls, true, Towers::Tied);
            assert!(TrainableEncoder::load(&folder, &LoadOptions::default(), Some(tied)).is_err());
        }
    }
}

#[test]
fn unknown_values_are_refused_by_name() {
    let cases = [
        ("config.json", "model_type", json!("roberta")),
        ("config.json", "position_embedding_type", json!("relative_key")),
        ("config.json", "is_decoder", json!(true)),
        ("config.json", "hidden_act", json!("mish")),
        ("config.json", "num_attention_heads", json!(5)),
        ("config.json", "hidden_size", json!(32)),
        ("config.json", "num_hidden_layers", json!(3)),
        ("config.json", "vocab_size", json!(100)),
        ("config.json", "quantization_config", json!({"quant_method": "gptq"})),
        ("sentence_bert_config.json", "max_seq_length", json!(65)),
        ("sentence_bert_config.json", "do_lower_case", json!(true)),
        ("1_Pooling/config.json", "pooling_mode_max_tokens", json!(true)),
        ("1_Pooling/config.json", "pooling_mode_cls_token", json!(true)),
        ("1_Pooling/config.json", "pooling_mode_mean_tokens", json!(false)),
        ("1_Pooling/config.json", "word_embedding_dimension", json!(63)),
        ("tokenizer.json", "model", json!({"type": "BPE", "vocab": {}, "merges": []})),
        ("tokenizer.json", "post_processor", json!({"type": "Unheard"})),
        (SETTINGS_FILE, "version", json!(2)),
        (SETTINGS_FILE, "pooling", json!("max")),
    ];
    for (file, key, value) in cases {
        let dir = copy();
        patch(&dir.path().join(file), key, value.clone());
        let Err(error) = load_encoder(dir.path(), &LoadOptions::default()) else {
            panic!("{file} with {key} {value} loads");
        };
        let text = error.to_string();
        assert!(text.contains(file) || text.contains("tensor "), "{file} {key} {value}: {text}");
        assert!(!text.contains('\n'), "{text}");
    }
    let dir = copy();
    std::fs::remove_file(dir.path().join("1_Pooling/config.json")).unwrap();
    let error = load_encoder(dir.path(), &LoadOptions::default()).err().unwrap();
    assert!(error.to_string().contains(SETTINGS_FILE), "{error}");
}
