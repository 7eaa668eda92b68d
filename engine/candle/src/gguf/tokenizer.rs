//! The tokenizer of a GGUF file as the files of a Hugging Face folder.

use std::path::Path;

use inhouse_core::gguf::{self, Header, Kind, Texts, Value};
use inhouse_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value as Json, json};

/// `llama_token_type` in `llama.h`.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// A pattern of `Split`, as `tokenizer.json` of Qwen 2 has it.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same of Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What `tokenizer.json` and `tokenizer_config.json` of the folder hold.
#[derive(Debug, Clone)]
pub struct TokenizerParts {
    /// `tokenizer.json`.
    pub tree: Json,
    /// The token that begins a text, and the one that ends it.
    pub begin: Option<String>,
    /// See `begin`.
    pub end: Option<String>,
    /// Whether the first stands before every text.
    pub adds_begin: bool,
    /// The chat template.
    pub chat: Option<String>,
    /// Chat templates with names.
    pub named_chats: Vec<(String, String)>,
}

impl TokenizerParts {
    /// The content of `tokenizer_config.json`.
    pub fn settings(&self) -> Json {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.begin,
            "eos_token": self.end,
            "add_bos_token": self.adds_begin,
            "chat_template": self.chat,
            "clean_up_tokenization_spaces": false,
        })
    }
}

/// Reads the byte-level BPE tokenizer of a GGUF file. A text becomes the tokens that llama.cpp makes of it.
///
/// # Errors
/// The file cannot be read; its tokenizer is of another kind, or splits texts by a rule that has no counterpart here.
pub fn read_tokenizer(path: &Path) -> Result<TokenizerParts> {
    let header = gguf::read(path)?;
    parts(&header).map_err(|(kind, what)| Error::new(kind, format!("{}: {what}", path.display())))
}

type Fault = (ErrorKind, String);

fn texts<'h>(header: &'h Header, key: &str) -> std::result::Result<&'h Texts, Fault> {
    match header.get(key) {
        Some(Value::Texts(texts)) => Ok(texts),
        _ => Err((ErrorKind::InvalidData, format!("`{key}` is missing or no array of text"))),
    }
}

fn parts(header: &Header) -> std::result::Result<TokenizerParts, Fault> {
    let model = header.text("tokenizer.ggml.model").unwrap_or_default();
    if model != "gpt2" {
        let what = format!("its tokenizer `{model}` is not read from GGUF (byte-level BPE, `gpt2`, is)");
        return Err((ErrorKind::Unsupported, what));
    }
    let tokens = texts(header, "tokenizer.ggml.tokens")?;
    let types: Vec<i32> = match header.get("tokenizer.ggml.token_type") {
        Some(Value::Numbers(types)) if types.kind() == Kind::I32 => {
            types.i32s().into_iter().flatten().collect()
        }
        _ => Vec::new(),
    };
    let utf8 = |text: &[u8], what: &str, i: usize| {
        let text = std::str::from_utf8(text).map(str::to_owned);
        text.map_err(|_| (ErrorKind::InvalidData, format!("{what} {i} is no UTF-8")))
    };
    let mut vocab = Map::new();
    let mut added = Vec::new();
    let mut named: Vec<String> = Vec::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let text = utf8(token, "token", id)?;
        let kind = types.get(id).copied().unwrap_or(1);
        named.push(text.clone());
        if kind == UNUSED {
            continue;
        }
        if vocab.insert(text.clone(), json!(id)).is_some() {
            return Err((ErrorKind::InvalidData, format!("token {id} is there twice")));
        }
        if matches!(kind, UNKNOWN | CONTROL | USER_DEFINED) {
            added.push(json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind != USER_DEFINED,
            }));
        }
    }
    let mut merges = Vec::new();
    for (i, merge) in texts(header, "tokenizer.ggml.merges")?.iter().enumerate() {
        merges.push(Json::String(utf8(merge, "merge", i)?));
    }
    let text_of = |key: &str| {
        let id = header.get(&format!("tokenizer.ggml.{key}")).and_then(Value::as_u64)?;
        named.get(usize::try_from(id).ok()?).cloned()
    };
    let pre = header.text("tokenizer.ggml.pre").unwrap_or("default");
    let (pre_tokenizer, ignore_merges) = pre_tokenizer(pre)?;
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tree = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
            "vocab": vocab, "merges": merges,
        },
    });
    // llama.cpp's default for these two.
    let adds_begin = match header.get("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(adds)) => *adds,
        _ => ignore_merges,
    };
    let mut named_chats = Vec::new();
    for (key, value) in &header.metadata {
        if let (Some(name), Value::Text(text)) = (key.strip_prefix("tokenizer.chat_template."), value) {
            named_chats.push((name.to_owned(), text.clone()));
        }
    }
    Ok(TokenizerParts {
        tree,
        begin: text_of("bos_token_id"),
        end: text_of("eos_token_id"),
        adds_begin,
        chat: header.text("tokenizer.chat_template").map(str::to_owned),
        named_chats,
    })
}

/// The pre-tokenizer that llama.cpp knows by this name, and whether whole words are looked up before merges.
fn pre_tokenizer(name: &str) -> std::result::Result<(Json, bool), Fault> {
    let byte_level = |by_rule: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": by_rule});
    let sequence = |first: Json, by_rule: bool| json!({"type": "Sequence", "pretokenizers": [first, byte_level(by_rule)]});
    let split = |pattern: &str| {
        let split =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        sequence(split, false)
    };
    Ok(match name {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "roberta-bpe" | "jina-v2-code" => (byte_level(true), false),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            (sequence(json!({"type": "Digits", "individual_digits": true}), true), false)
        }
        "qwen2" | "deepseek-r1-qwen" => (split(QWEN2), false),
        "llama-bpe" | "llama3" | "llama-v3" => (split(LLAMA3), true),
        other => {
            let what = format!(
                "its pre-tokenizer `{other}` is not read from GGUF (gpt-2, smollm, starcoder, qwen2, llama-bpe are)"
            );
            return Err((ErrorKind::Unsupported, what));
        }
    })
}
