//! Text encoders: one model on every backend and on none, and as the dense half of an index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse::{Backend, EncoderChoice, Role, TextEncoder};
use inhouse_convert::Options;
use inhouse_convert::quantize::Quantization;
use inhouse_core::decode::CancelToken;
use inhouse_core::index::{self, BuildOptions};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, ErrorKind, bert, gguf};
use inhouse_tests::repository;

fn fixture() -> PathBuf {
    repository().join("tests/fixtures/bert")
}

fn convert(from: &Path, out: &Path, quantization: Quantization) {
    let options = Options {
        from: from.to_path_buf(),
        out: out.to_path_buf(),
        quantization: Some(quantization),
        token_embedding: None,
        name: None,
    };
    inhouse_convert::convert(&options, &Silent).unwrap();
}

/// Of [`TEXTS`], those that one encodes in earnest.
const N_REAL: usize = 4;
/// Texts as they are encoded: descriptions of APIs, questions; then what a tokenizer may stumble over.
const TEXTS: &[&str] = &[
    "read csv: Read a comma-separated values (csv) file into DataFrame. (filepath or buffer, sep, header)",
    "How to augument the datapipe by repeating it six times.",
    "settle: Drops ticks that follow another too soon.",
    "group by: Group rows by the values of a column, then sum each group.",
    "x",
    "",
    "naïve café, ÀÉ; 日本語 text (and: punctuation!)",
    "def add(a, b):\n    return a + b",
    "HTMLParser.parse_args(*args, **kwargs) -> None",
];

fn least_cosine(a: &dyn TextEncoder, b: &dyn TextEncoder, texts: &[&str]) -> f32 {
    let encode = |encoder: &dyn TextEncoder| encoder.encode(Role::Query, texts, &CancelToken::new()).unwrap();
    let (a, b) = (encode(a), encode(b));
    assert_eq!((a.len(), b.len()), (texts.len(), texts.len()));
    let cosine = |(a, b): (&[f32], &[f32])| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    a.rows().zip(b.rows()).map(cosine).fold(f32::INFINITY, f32::min)
}

/// The folder on candle, and its conversions on llama.cpp and without a backend.
fn compare(folder: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let candle = inhouse::load_encoder(folder).unwrap();
    for (quantization, name) in [(Quantization::F32, "f32"), (Quantization::Q8_0, "q8_0")] {
        let file = dir.path().join(format!("{name}.gguf"));
        convert(folder, &file, quantization);
        let own = inhouse::load_encoder(&file).unwrap();
        // What is no Q8_0 goes to llama.cpp of itself.
        let exact = quantization == Quantization::F32;
        assert_eq!(own.info().backend, if exact { "llama.cpp" } else { "inhouse" });
        for encoder in [own, inhouse::load_encoder_on(&file, Backend::Llama).unwrap()] {
            let (a, b) = (candle.info(), encoder.info());
            assert_eq!(
                (&a.fingerprint, a.dim, a.max_tokens, a.normalized),
                (&b.fingerprint, b.dim, b.max_tokens, b.normalized)
            );
            let real = least_cosine(candle.as_ref(), encoder.as_ref(), &TEXTS[..N_REAL]);
            let all = least_cosine(candle.as_ref(), encoder.as_ref(), TEXTS);
            println!(
                "{} {name}: least cosine to candle's vectors of {}'s {real:.5}, of odd texts {all:.5}",
                folder.display(),
                b.backend
            );
            // 8 bits of weights and states show where a text says little.
            assert!(real > 0.999 && all > if exact { 0.9999 } else { 0.997 }, "{name}");
            let cancelled = CancelToken::new();
            cancelled.cancel();
            let error = encoder.encode(Role::Query, TEXTS, &cancelled).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            // Longer than the model reads: cut, not refused.
            let long = "word ".repeat(5000);
            assert!(least_cosine(candle.as_ref(), encoder.as_ref(), &[&long]) > 0.999);
        }
    }
}

/// The fixture's file of 8-bit weights.
fn own_file(dir: &Path) -> PathBuf {
    let file = dir.join("own.gguf");
    convert(&fixture(), &file, Quantization::Q8_0);
    file
}

/// To the last bit, in whatever batch.
#[test]
fn a_vector_does_not_depend_on_the_texts_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = bert::load_encoder(&own_file(dir.path())).unwrap();
    // More than one pass.
    let texts: Vec<String> = (0..90).map(|i| TEXTS[i % TEXTS.len()].repeat(1 + i % 4)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encode = |texts: &[&str]| encoder.encode(Role::Document, texts, &CancelToken::new()).unwrap();
    let together = encode(&texts);
    for (text, want) in texts.iter().zip(together.rows()) {
        assert_eq!(encode(&[text]).values, want, "{text}");
    }
    assert_eq!(encode(&texts), together);
    assert!(encode(&[]).is_empty());
}

#[test]
fn tokens_are_those_of_the_tokenizers_crate() {
    let dir = tempfile::tempdir().unwrap();
    let own = bert::WordPiece::read(&gguf::read(&own_file(dir.path())).unwrap()).unwrap();
    let reference = inhouse_candle::WordPiece::read(&fixture(), own.n_tokens(), 48).unwrap();
    let mut state = 7u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % n
    };
    // Letters that the vocabulary has, then what is changed, dropped or set apart.
    let parts: Vec<char> = "aeinrst   \t\n.,_(ÀéÅßİΣ\u{301}\u{200b}\u{ad}\u{a0}\u{3000}日本가あ“—¿€\0\u{fffd}\u{1f600}\u{e000}ﬁ²"
        .chars()
        .collect();
    let random = (0..2000).map(|_| (0..below(40)).map(|_| parts[below(parts.len())]).collect());
    let long = ["a".repeat(100), "a".repeat(101), "é".repeat(101), "read ".repeat(200)];
    for text in TEXTS.iter().map(|text| (*text).to_owned()).chain(long).chain(random) {
        let text: String = text;
        assert_eq!(own.encode(&text, 48), reference.encode(&text).unwrap(), "{text:?}");
    }
}

/// No file ends the process: what is damaged is an error that names it, or other vectors.
#[test]
fn damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(own_file(dir.path())).unwrap();
    let file = dir.path().join("damaged.gguf");
    let try_it = |bytes: &[u8]| -> Result<(), inhouse::Error> {
        std::fs::write(&file, bytes).unwrap();
        let encoder = bert::load_encoder(&file)?;
        let vectors = encoder.encode(Role::Query, &TEXTS[..2], &CancelToken::new())?;
        assert!(vectors.values.iter().all(|value| value.is_finite()));
        Ok(())
    };
    try_it(&whole).unwrap();
    for end in (0..whole.len()).step_by(whole.len() / 60 + 1) {
        let error = try_it(&whole[..end]).unwrap_err();
        assert!(error.to_string().contains("damaged.gguf"), "{error}");
    }
    let data_start = gguf::read(&own_file(dir.path())).unwrap().data_start as usize;
    let mut state = 3u64;
    let mut refused = 0;
    for i in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..=i % 3 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            // Mostly what stands before the weights.
            let range = if i % 4 == 0 { bytes.len() } else { data_start };
            bytes[(state >> 33) as usize % range] = (state >> 20) as u8;
        }
        refused += usize::from(try_it(&bytes).is_err());
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn all_give_the_same_vectors() {
    compare(&fixture());
}

/// `INHOUSE_MINILM`: the folder of all-MiniLM-L6-v2.
#[test]
fn all_give_the_same_vectors_of_minilm() {
    match std::env::var_os("INHOUSE_MINILM") {
        Some(folder) => compare(Path::new(&folder)),
        None => println!("skipped: INHOUSE_MINILM names no folder of all-MiniLM-L6-v2"),
    }
}

fn apis() -> Vec<ApiDoc> {
    let api = |name: &str, description: &str| ApiDoc {
        name: name.into(),
        description: description.into(),
        ..ApiDoc::default()
    };
    vec![api("knit", "Joins two threads."), api("purl", "Turns a thread."), api("frog", "Undoes a row.")]
}

/// An index built with the folder is searched with the file that it was converted to, and found by its own hint.
#[test]
fn an_index_finds_its_encoder_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("encoder");
    std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        std::fs::copy(fixture().join(name), folder.join(name)).unwrap();
    }
    let out = dir.path().join("index");
    let encoder = inhouse::index_encoder(&folder).unwrap();
    let options = BuildOptions { encoder: Some(encoder), ..BuildOptions::default() };
    index::build(&apis(), &out, &options, &Silent).unwrap();
    let all = |choice: &EncoderChoice| {
        let index = inhouse::open_index(&out, choice).unwrap();
        index.search(&"unravel".into(), 5).unwrap().len()
    };
    // With vectors every name is a candidate; no word is shared.
    assert_eq!(all(&EncoderChoice::OfIndex), 3);
    assert_eq!(all(&EncoderChoice::None), 0);
    let file = dir.path().join("encoder.gguf");
    convert(&folder, &file, Quantization::Q8_0);
    assert_eq!(all(&EncoderChoice::At(file)), 3);
    // Another model at the place, or none: words alone.
    std::fs::write(
        folder.join("inhouse_encoder.json"),
        r#"{"version": 1, "pooling": "cls", "normalize": true, "max_tokens": 48}"#,
    )
    .unwrap();
    assert_eq!(all(&EncoderChoice::OfIndex), 0);
    let other = inhouse::open_index(&out, &EncoderChoice::At(folder.clone())).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidArgument);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(all(&EncoderChoice::OfIndex), 0);
    assert!(inhouse::encoder_for_update(&out, &EncoderChoice::OfIndex).is_err());
}

#[test]
fn models_that_are_no_encoders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t5.gguf");
    convert(&repository().join("tests/fixtures/t5"), &file, Quantization::F32);
    let refused = |path: &Path| -> inhouse::Error {
        inhouse::load_encoder(path)
            .map(|encoder: Arc<dyn TextEncoder>| encoder.info().name.clone())
            .unwrap_err()
    };
    assert_eq!(refused(&file).kind(), ErrorKind::Unsupported);
    assert_eq!(refused(&repository().join("tests/fixtures/t5")).kind(), ErrorKind::Unsupported);
    assert_eq!(refused(&dir.path().join("nothing")).kind(), ErrorKind::NotFound);
}
