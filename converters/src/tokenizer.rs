//! A byte-level BPE vocabulary as GGUF metadata.

use inhouse_candle::vocabulary::{TokenKind, Vocabulary};

use inhouse_core::gguf::Value;

/// `llama_token_type` in `llama.h`.
fn token_type(kind: TokenKind) -> i32 {
    match kind {
        TokenKind::Normal => 1,
        TokenKind::Control => 3,
        TokenKind::UserDefined => 4,
        TokenKind::Unused => 5,
    }
}

/// The `tokenizer.ggml.*` keys. The vocabulary was checked to be GPT-2's kind of BPE, so its pre-tokenizer is "gpt-2".
pub fn metadata(vocabulary: &Vocabulary) -> Vec<(String, Value)> {
    let tokens = Value::texts(vocabulary.tokens.iter().map(|token| &token.text));
    let types = Value::i32s(vocabulary.tokens.iter().map(|token| token_type(token.kind)));
    let merges = Value::texts(vocabulary.merges.iter().map(|(left, right)| format!("{left} {right}")));
    let entries = [
        ("model", Value::from("gpt2")),
        ("pre", Value::from("gpt-2")),
        ("tokens", tokens),
        ("token_type", types),
        ("merges", merges),
        ("bos_token_id", Value::U32(vocabulary.begin.unwrap_or(vocabulary.end))),
        ("eos_token_id", Value::U32(vocabulary.end)),
        ("add_bos_token", Value::Bool(false)),
        ("add_eos_token", Value::Bool(false)),
    ];
    entries.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).into()
}
