//! CodeGen on candle against transformers' `CodeGenForCausalLM`, on the fixture made by tests/fixtures/make_codegen.py.

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse_candle::{DType, LoadOptions};
use inhouse_core::ErrorKind;
use inhouse_core::decode::{CancelToken, Decoder, DecoderOptions, Feed, Model};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/codegen")
}

/// The fixed tokens and transformers' logits for each position.
struct Reference {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    let dir = fixture();
    let text = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tokens = tree["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let vocab_size = tree["shape"][1].as_u64().unwrap() as usize;
    let bytes = std::fs::read(dir.join(tree["logits"].as_str().unwrap())).unwrap();
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    Reference { tokens, logits: values.chunks(vocab_size).map(<[f32]>::to_vec).collect() }
}

fn load(dtype: DType) -> Arc<dyn Model> {
    inhouse_candle::load(&fixture(), &LoadOptions { dtype, ..LoadOptions::default() }).unwrap()
}

fn decoder(model: &Arc<dyn Model>, sequences: usize) -> Box<dyn Decoder> {
    Arc::clone(model).decoder(&DecoderOptions { sequences, ..DecoderOptions::default() }).unwrap()
}

fn feed(decoder: &mut dyn Decoder, feeds: &[(u32, &[u32])]) {
    let feeds: Vec<Feed<'_>> = feeds.iter().map(|&(seq, tokens)| Feed { seq, tokens }).collect();
    decoder.feed(&feeds, &CancelToken::new()).unwrap();
}

/// Largest difference, relative to the largest logit of the row.
fn relative_error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    got.iter().zip(want).fold(0f32, |error, (got, want)| error.max((got - want).abs())) / largest
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn token_by_token_matches_transformers() {
    let (model, reference) = (load(DType::F32), reference());
    let mut decoder = decoder(&model, 1);
    let mut worst = 0f32;
    for (i, token) in reference.tokens.iter().enumerate() {
        feed(&mut *decoder, &[(0, &[*token])]);
        let logits = decoder.logits(0).unwrap();
        worst = worst.max(relative_error(logits, &reference.logits[i]));
        assert_eq!(argmax(logits), argmax(&reference.logits[i]), "position {i}");
    }
    println!("largest relative difference, token by token: {worst:.2e}");
    assert!(worst < 1e-4, "{worst}");
}

/// Every prefix as a sequence of its own, all in one call.
#[test]
fn batch_of_ragged_prompts_matches_transformers() {
    let (model, reference) = (load(DType::F32), reference());
    let n = reference.tokens.len();
    let mut decoder = decoder(&model, n);
    let feeds: Vec<(u32, &[u32])> = (0..n).map(|i| (i as u32, &reference.tokens[..=i])).collect();
    feed(&mut *decoder, &feeds);
    for i in 0..n {
        let error = relative_error(decoder.logits(i).unwrap(), &reference.logits[i]);
        assert!(error < 1e-4, "prefix of {} tokens: {error}", i + 1);
    }
}

#[test]
fn forks_and_rewinds_continue_as_the_whole_prompt() {
    let (model, reference) = (load(DType::F32), reference());
    let tokens = &reference.tokens;
    let mut decoder = decoder(&model, 4);
    feed(&mut *decoder, &[(0, &tokens[..20])]);
    for to in 1..4 {
        decoder.fork(0, to).unwrap();
    }
    // 1 goes astray and comes back, 2 is cut into the shared part, 3 goes on by itself; all in batches.
    feed(&mut *decoder, &[(1, &[5, 6, 7]), (3, &tokens[20..23]), (0, &tokens[20..21])]);
    decoder.rewind(1, 20).unwrap();
    decoder.rewind(2, 11).unwrap();
    assert_eq!((0..4).map(|seq| decoder.len(seq)).collect::<Vec<_>>(), [21, 20, 11, 23]);
    feed(
        &mut *decoder,
        &[(2, &tokens[11..30]), (1, &tokens[20..30]), (3, &tokens[23..30]), (0, &tokens[21..30])],
    );
    for i in 0..4 {
        let error = relative_error(decoder.logits(i).unwrap(), &reference.logits[29]);
        assert!(error < 1e-4, "feed {i}: {error}");
    }
    // A chain of forks, each one token on: more segments than a sequence keeps apart.
    decoder.rewind(0, 0).unwrap();
    for (i, token) in tokens.iter().enumerate() {
        let (from, to) = ((i % 2) as u32, ((i + 1) % 2) as u32);
        if i == 0 {
            decoder.rewind(from, 0).unwrap();
        }
        feed(&mut *decoder, &[(from, &[*token])]);
        let error = relative_error(decoder.logits(0).unwrap(), &reference.logits[i]);
        assert!(error < 1e-4, "position {i}: {error}");
        decoder.fork(from, to).unwrap();
    }
}

#[test]
fn half_precision_stays_close() {
    let reference = reference();
    for (dtype, bound) in [(DType::F16, 0.02), (DType::BF16, 0.1)] {
        let model = load(dtype);
        let mut decoder = decoder(&model, 1);
        let (mut worst, mut equal) = (0f32, 0);
        for (i, token) in reference.tokens.iter().enumerate() {
            feed(&mut *decoder, &[(0, &[*token])]);
            let logits = decoder.logits(0).unwrap();
            worst = worst.max(relative_error(logits, &reference.logits[i]));
            equal += usize::from(argmax(logits) == argmax(&reference.logits[i]));
        }
        println!(
            "{dtype:?}: largest relative difference {worst:.2e}, argmax equal at {equal} of {}",
            reference.tokens.len()
        );
        assert!(worst < bound, "{dtype:?}: {worst}");
    }
}

#[test]
fn limits_are_errors_that_change_nothing() {
    let (model, reference) = (load(DType::F32), reference());
    let tokens = &reference.tokens;
    let options = DecoderOptions {
        context_length: Some(24),
        sequences: 2,
        kv_cells: Some(30),
        threads: Some(1),
        ..DecoderOptions::default()
    };
    let mut decoder = Arc::clone(&model).decoder(&options).unwrap();
    let go = CancelToken::new();
    let mut kind = |feeds: &[Feed<'_>], cancel: &CancelToken| decoder.feed(feeds, cancel).unwrap_err().kind();
    assert_eq!(kind(&[Feed { seq: 0, tokens: &tokens[..25] }], &go), ErrorKind::LimitExceeded);
    assert_eq!(kind(&[Feed { seq: 2, tokens: &tokens[..1] }], &go), ErrorKind::InvalidArgument);
    assert_eq!(kind(&[Feed { seq: 0, tokens: &[640] }], &go), ErrorKind::InvalidArgument);
    assert_eq!(kind(&[Feed { seq: 0, tokens: &[] }], &go), ErrorKind::InvalidArgument);
    let twice = [Feed { seq: 0, tokens: &tokens[..1] }, Feed { seq: 0, tokens: &tokens[..1] }];
    assert_eq!(kind(&twice, &go), ErrorKind::InvalidArgument);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    assert_eq!(kind(&[Feed { seq: 0, tokens: &tokens[..9] }], &cancelled), ErrorKind::Cancelled);
    assert!(decoder.logits(0).is_err());
    assert!(decoder.rewind(0, 1).is_err());
    assert!(decoder.fork(0, 2).is_err());
    assert_eq!(decoder.len(0), 0);

    // 20 cells shared count once; 21 more would not fit.
    feed(&mut *decoder, &[(0, &tokens[..20])]);
    decoder.fork(0, 1).unwrap();
    feed(&mut *decoder, &[(0, &tokens[20..24]), (1, &tokens[20..24])]);
    let error = relative_error(decoder.logits(1).unwrap(), &reference.logits[23]);
    assert!(error < 1e-4, "{error}");
    let full = decoder.feed(&[Feed { seq: 1, tokens: &tokens[..1] }], &go).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::LimitExceeded);
    assert_eq!(decoder.len(1), 24);

    for bad in [
        DecoderOptions { context_length: Some(129), ..DecoderOptions::default() },
        DecoderOptions { sequences: 0, ..DecoderOptions::default() },
        DecoderOptions { kv_cells: Some(0), ..DecoderOptions::default() },
    ] {
        assert!(Arc::clone(&model).decoder(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn tokenisation_matches_hugging_face() {
    let model = load(DType::F32);
    let tokenizer = model.tokenizer();
    let text = std::fs::read_to_string(fixture().join("tokenisations.json")).unwrap();
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = tree["cases"].as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        if text.contains("<|endoftext|>") {
            // Hugging Face makes the control token of it; a prompt must not.
            assert!(tokenizer.encode(text).unwrap().iter().all(|&id| !tokenizer.is_end(id)), "{text:?}");
        } else {
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), want, "{text:?}");
        }
        let bytes: Vec<u8> =
            tokenizer.encode(text).unwrap().into_iter().flat_map(|id| tokenizer.token_bytes(id)).collect();
        assert_eq!(bytes, text.as_bytes());
    }
    assert_eq!(tokenizer.vocab_size(), 640);
    assert!(tokenizer.is_end(559) && tokenizer.is_sampleable(559) && tokenizer.token_bytes(559).is_empty());
    assert!(tokenizer.is_sampleable(597) && !tokenizer.is_sampleable(598) && !tokenizer.is_sampleable(640));
}

/// The same tokenizer from vocab.json, merges.txt and added_tokens.json.
#[test]
fn split_tokenizer_files_give_the_same_tokens() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(fixture().join(name), dir.path().join(name)).unwrap();
    }
    let split = inhouse_candle::load(dir.path(), &LoadOptions::default()).unwrap();
    let whole = load(DType::F32);
    let (split, whole) = (split.tokenizer(), whole.tokenizer());
    for text in ["def f(x):\n\t\treturn x  # 日本 😀\r\n", "          a\t\t\tb   ", "<|endoftext|>"] {
        assert_eq!(split.encode(text).unwrap(), whole.encode(text).unwrap());
    }
    for id in 0..640 {
        assert_eq!(split.token_bytes(id), whole.token_bytes(id));
        assert_eq!(split.is_sampleable(id), whole.is_sampleable(id));
        assert_eq!(split.is_end(id), whole.is_end(id));
    }
}
