//! A WordPiece vocabulary as GGUF metadata, as llama.cpp wants it: a piece that begins a word has U+2581 before it, one that
//! continues a word loses its `##`.

use std::path::Path;

use inhouse_candle::{EncoderSettings, WordPiece, bert};
use inhouse_core::gguf::Value;
use inhouse_core::{Error, ErrorKind, Result};
use serde_json::Value as Json;

/// `llama_token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The keys of the tokenizer and of the encoder.
///
/// # Errors
/// The tokenizer splits or changes text otherwise than llama.cpp does, or lacks a token that a text stands between.
pub fn metadata(
    dir: &Path,
    config: &bert::Config,
    settings: &EncoderSettings,
    fingerprint: String,
) -> Result<Vec<(String, Value)>> {
    let pieces = WordPiece::read(dir, config.vocab_size, settings.max_tokens)?;
    let tree = pieces.tree();
    check(tree).map_err(|what| {
        let what = format!("{}: {what}, llama.cpp's tokenizer cannot do that", pieces.path().display());
        Error::new(ErrorKind::Unsupported, what)
    })?;
    let prefix = tree["model"]["continuing_subword_prefix"].as_str().unwrap_or("##");
    let mut tokens: Vec<(String, i32)> =
        (0..config.vocab_size).map(|id| (format!("[PAD{id}]"), UNUSED)).collect();
    let mut put = |text: &str, id: &Json, kind: i32| {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        if let Some(slot) = slot {
            *slot = (text.to_owned(), kind);
        }
    };
    for (text, id) in tree["model"]["vocab"].as_object().into_iter().flatten() {
        match text.strip_prefix(prefix) {
            // A bare prefix stands for nothing.
            Some("") => {}
            Some(rest) => put(rest, id, NORMAL),
            None => put(&format!("\u{2581}{text}"), id, NORMAL),
        }
    }
    for added in tree["added_tokens"].as_array().into_iter().flatten() {
        put(added["content"].as_str().unwrap_or_default(), &added["id"], CONTROL);
    }
    let (before, after) = pieces.wrapping();
    let (&[cls], &[sep]) = (before, after) else {
        let what = "texts are not wrapped in one token before and one after them";
        return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", pieces.path().display())));
    };
    let id_of = |text: &str| tree["model"]["vocab"][text].as_u64().map_or(cls, |id| id as u32);
    let unknown = tree["model"]["unk_token"].as_str().unwrap_or("[UNK]");
    for (id, text) in [(cls, "[CLS]"), (sep, "[SEP]")] {
        if let Some(slot) = tokens.get_mut(id as usize) {
            *slot = (text.to_owned(), CONTROL);
        }
    }
    let texts: Vec<&String> = tokens.iter().map(|(text, _)| text).collect();
    let types: Vec<i32> = tokens.iter().map(|(_, kind)| *kind).collect();
    let entries = [
        ("tokenizer.ggml.model", Value::from("bert")),
        ("tokenizer.ggml.pre", Value::from("default")),
        ("tokenizer.ggml.tokens", Value::texts(texts)),
        ("tokenizer.ggml.token_type", Value::i32s(types)),
        ("tokenizer.ggml.token_type_count", Value::U32(config.type_vocab_size as u32)),
        ("tokenizer.ggml.bos_token_id", Value::U32(cls)),
        ("tokenizer.ggml.cls_token_id", Value::U32(cls)),
        ("tokenizer.ggml.seperator_token_id", Value::U32(sep)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(id_of(unknown))),
        ("tokenizer.ggml.padding_token_id", Value::U32(id_of("[PAD]"))),
        ("tokenizer.ggml.mask_token_id", Value::U32(id_of("[MASK]"))),
        ("inhouse.encoder.normalize", Value::Bool(settings.normalize)),
        ("inhouse.encoder.max_tokens", Value::U32(settings.max_tokens as u32)),
        ("inhouse.encoder.fingerprint", Value::Text(fingerprint)),
    ];
    Ok(entries.map(|(key, value)| (key.to_owned(), value)).into())
}

/// Whether llama.cpp's tokenizer reads texts as this one does: lower case, without accents, punctuation and Chinese characters
/// on their own.
fn check(tree: &Json) -> std::result::Result<(), String> {
    let normalizer = &tree["normalizer"];
    if normalizer["type"] != "BertNormalizer" {
        return Err(format!("the normalizer is {}", normalizer["type"]));
    }
    // null: as `lowercase` says.
    let accents = normalizer["strip_accents"].as_bool().unwrap_or(true);
    for (key, flag) in [
        ("lowercase", normalizer["lowercase"].as_bool().unwrap_or(true)),
        ("strip_accents", accents),
        ("clean_text", normalizer["clean_text"].as_bool().unwrap_or(true)),
        ("handle_chinese_chars", normalizer["handle_chinese_chars"].as_bool().unwrap_or(true)),
    ] {
        if !flag {
            return Err(format!("the normalizer has {key} false"));
        }
    }
    match &tree["pre_tokenizer"]["type"] {
        kind if kind == "BertPreTokenizer" => Ok(()),
        kind => Err(format!("the pre_tokenizer is {kind}")),
    }
}
