//! A vocabulary as GGUF metadata: `tokenizer.ggml.*` and chat templates, as llama.cpp's own converter writes them.

use std::collections::HashMap;
use std::path::Path;

use inhouse_candle::vocabulary::{ChatTemplates, Scheme, TokenKind, Vocabulary};
use inhouse_core::gguf::Value;
use inhouse_core::{Error, Result, files};
use serde_json::Value as Json;

/// Roles of tokens: the key in `tokenizer_config.json` and in the file.
const ROLES: [(&str, &str); 5] = [
    ("unk_token", "unknown_token_id"),
    ("pad_token", "padding_token_id"),
    // The format's spelling.
    ("sep_token", "seperator_token_id"),
    ("cls_token", "cls_token_id"),
    ("mask_token", "mask_token_id"),
];

/// Tokens for filling in the middle, by the texts that code models give them (`llama-vocab.cpp`).
const INFILL: [(&str, &[&str]); 6] = [
    (
        "fim_pre_token_id",
        &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"],
    ),
    (
        "fim_suf_token_id",
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"],
    ),
    (
        "fim_mid_token_id",
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"],
    ),
    ("fim_pad_token_id", &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"]),
    ("fim_rep_token_id", &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("fim_sep_token_id", &["<|file_sep|>"]),
];

/// Pre-tokenizers of byte-level BPE that llama.cpp has by name: the pattern in `tokenizer.json`, the name.
const PATTERNS: [(&str, &str); 2] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "qwen2",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "llama-bpe",
    ),
];

type Entries = Vec<(String, Value)>;

/// The keys, and what the user may want to know.
///
/// # Errors
/// The pre-tokenizer is none that llama.cpp has; `tokenizer_config.json` is malformed.
pub fn metadata(dir: &Path, vocabulary: &Vocabulary) -> Result<(Entries, Vec<String>)> {
    let settings = settings(dir)?;
    let mut notes = Vec::new();
    let ids: HashMap<&str, usize> =
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (token.text.as_str(), id)).collect();
    let unknown = text_of(&settings, "unk_token").and_then(|text| ids.get(text).copied());
    let types = token_types(vocabulary, unknown);
    let mut entries: Entries = Vec::new();
    let mut put = |key: &str, value: Value| entries.push((format!("tokenizer.ggml.{key}"), value));
    let tokens = Value::texts(vocabulary.tokens.iter().map(|token| &token.text));
    let merges = || Value::texts(vocabulary.merges.iter().map(|(left, right)| format!("{left} {right}")));
    match vocabulary.scheme {
        Scheme::SentencePiece => {
            put("model", Value::from("llama"));
            put("pre", Value::from("default"));
            put("tokens", tokens);
            put("scores", Value::f32s(scores(vocabulary)));
            put("token_type", Value::i32s(types));
            put("add_space_prefix", Value::Bool(adds_space(vocabulary.tree())));
        }
        Scheme::Gpt2 | Scheme::ByteLevel => {
            let pre = pre_tokenizer(vocabulary.tree()).map_err(|what| {
                Error::new(
                    inhouse_core::ErrorKind::Unsupported,
                    format!("{}: {what}", vocabulary.path().display()),
                )
            })?;
            if !vocabulary.tree()["normalizer"].is_null() {
                notes.push(
                    "the tokenizer normalises text (Unicode composition), llama.cpp does not".to_owned(),
                );
            }
            put("model", Value::from("gpt2"));
            put("pre", Value::from(pre));
            put("tokens", tokens);
            put("token_type", Value::i32s(types));
            put("merges", merges());
        }
        _ => {
            let what =
                format!("{}: this kind of tokenizer cannot be written to GGUF", vocabulary.path().display());
            return Err(Error::new(inhouse_core::ErrorKind::Unsupported, what));
        }
    }
    let (before, after) = &vocabulary.wrapping;
    let begin = before.first().copied().or(vocabulary.begin).unwrap_or(vocabulary.end);
    put("bos_token_id", Value::U32(begin));
    put("eos_token_id", Value::U32(vocabulary.end));
    if let Some(other) = vocabulary.ends.iter().find(|&&end| end != vocabulary.end) {
        put("eot_token_id", Value::U32(*other));
    }
    put("add_bos_token", Value::Bool(!before.is_empty()));
    put("add_eos_token", Value::Bool(after.first() == Some(&vocabulary.end)));
    for (role, key) in ROLES {
        if let Some(&id) = text_of(&settings, role).and_then(|text| ids.get(text)) {
            put(key, Value::U32(id as u32));
        }
    }
    for (key, texts) in INFILL {
        if let Some(&id) = texts.iter().find_map(|text| ids.get(text)) {
            put(key, Value::U32(id as u32));
        }
    }
    entries.extend(chat_templates(&vocabulary.chat));
    Ok((entries, notes))
}

/// The trees of `tokenizer_config.json` and `special_tokens_map.json`, where they are there.
fn settings(dir: &Path) -> Result<Vec<Json>> {
    let paths = ["tokenizer_config.json", "special_tokens_map.json"].map(|name| dir.join(name));
    let read = |path: &std::path::PathBuf| {
        serde_json::from_str(&files::read_text(path)?)
            .map_err(|cause| Error::data(path, format!("bad JSON: {cause}")))
    };
    paths.iter().filter(|path| path.exists()).map(read).collect()
}

/// A text, or an object with the text and flags.
fn text_of<'a>(settings: &'a [Json], key: &str) -> Option<&'a str> {
    settings
        .iter()
        .map(|tree| &tree[key])
        .find_map(|value| value.as_str().or_else(|| value["content"].as_str()))
}

/// `llama_token_type` in `llama.h`.
fn token_types(vocabulary: &Vocabulary, unknown: Option<usize>) -> Vec<i32> {
    let pieces = vocabulary.scheme == Scheme::SentencePiece;
    let of = |(id, token): (usize, &inhouse_candle::vocabulary::Token)| match token.kind {
        _ if pieces && unknown == Some(id) => 2,
        TokenKind::Normal if pieces && is_byte(&token.text) => 6,
        TokenKind::Normal => 1,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
        TokenKind::Unused => 5,
    };
    vocabulary.tokens.iter().enumerate().map(of).collect()
}

/// Whether a token of sentencepiece is a byte, `<0xNN>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).unwrap_or_default();
    digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// sentencepiece joins the pair whose product scores best, so a product's score is its merge's rank.
fn scores(vocabulary: &Vocabulary) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(vocabulary.merges.len());
    for (rank, (left, right)) in vocabulary.merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let last = vocabulary.merges.len();
    let of = |token: &inhouse_candle::vocabulary::Token| match (token.kind, ranks.get(&token.text)) {
        (TokenKind::Normal, Some(&rank)) => -(rank as f32),
        (TokenKind::Normal, None) if !is_byte(&token.text) => -(last as f32),
        _ => 0.0,
    };
    vocabulary.tokens.iter().map(of).collect()
}

/// Whether a space is put before a text: by a normalizer, or by the pre-tokenizer.
fn adds_space(tree: &Json) -> bool {
    let prepends = steps(&tree["normalizer"], "normalizers").iter().any(|step| step["type"] == "Prepend");
    prepends
        || steps(&tree["pre_tokenizer"], "pretokenizers").iter().any(|step| {
            let scheme = step["prepend_scheme"].as_str();
            scheme.map_or(step["add_prefix_space"] == true, |scheme| scheme != "never")
        })
}

/// llama.cpp's name of a byte-level pre-tokenizer.
fn pre_tokenizer(tree: &Json) -> std::result::Result<&'static str, String> {
    let steps = steps(&tree["pre_tokenizer"], "pretokenizers");
    let kinds: Vec<&str> = steps.iter().map(|step| step["type"].as_str().unwrap_or("?")).collect();
    let regex_of = |step: &Json| step["use_regex"].as_bool().unwrap_or(true);
    match (kinds.as_slice(), steps.as_slice()) {
        (["ByteLevel"], [step]) if regex_of(step) => return Ok("gpt-2"),
        (["Digits", "ByteLevel"], [digits, step])
            if regex_of(step) && digits["individual_digits"] == true =>
        {
            return Ok("starcoder");
        }
        (["Split", "ByteLevel"], [split, step]) if !regex_of(step) => {
            let pattern = split["pattern"]["Regex"].as_str().unwrap_or_default();
            let known = PATTERNS.iter().find(|(known, _)| *known == pattern);
            if let Some((_, name)) = known.filter(|_| split["behavior"] == "Isolated") {
                return Ok(name);
            }
        }
        _ => {}
    }
    Err(format!("its pre_tokenizer ({}) has no name in llama.cpp that is known here", kinds.join(", ")))
}

/// The steps of a sequence, one step, or none.
fn steps<'a>(value: &'a Json, list: &str) -> Vec<&'a Json> {
    match value {
        Json::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => {
            sequence[list].as_array().into_iter().flatten().collect()
        }
        one => vec![one],
    }
}

/// The template called default, and the others by name.
fn chat_templates(chat: &ChatTemplates) -> Entries {
    let mut entries = Vec::new();
    if let Some(text) = &chat.default {
        entries.push(("tokenizer.chat_template".to_owned(), Value::from(text.as_str())));
    }
    // Part of a key: letters, digits and underscores.
    let fits = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let named: Vec<_> = chat.named.iter().filter(|(name, _)| fits(name)).collect();
    for (name, text) in &named {
        entries.push((format!("tokenizer.chat_template.{name}"), Value::from(text.as_str())));
    }
    if !named.is_empty() {
        entries
            .push(("tokenizer.chat_templates".to_owned(), Value::texts(named.iter().map(|(name, _)| name))));
    }
    entries
}
