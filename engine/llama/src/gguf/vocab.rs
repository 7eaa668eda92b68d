//! The tokenizer in a GGUF file.

use super::Fault;
use super::read::{Container, FLOAT32, INT8, INT32, UINT8, Value};

/// Pre-tokenizers of byte-level BPE whose splitting llama.cpp does with code of its own. The others run `std::regex`,
/// whose recursion a long text can drive over the end of the stack.
const PRE_TOKENIZERS: &[&str] =
    &["gpt-2", "phi-2", "mpt", "olmo", "starcoder", "refact", "llama-bpe", "llama3", "llama-v3"];

const BYTE: i32 = 6;

/// Checks everything under `tokenizer.` and gives the number of tokens.
pub(super) fn check(file: &Container) -> Result<usize, Fault> {
    let Some(tokens @ Value::Strings { ends, .. }) = file.get("tokenizer.ggml.tokens") else {
        return Err(Fault::data(
            "`tokenizer.ggml.tokens` is missing or no array of strings: no vocabulary in this file",
        ));
    };
    let n_tokens = ends.len();
    if n_tokens == 0 || n_tokens > 1 << 24 {
        return Err(Fault::data(format!(
            "`tokenizer.ggml.tokens` has {n_tokens} tokens, expected 1 to {}",
            1 << 24
        )));
    }
    check_keys(file, n_tokens)?;
    let lookup = Lookup::new(tokens, n_tokens)?;
    let types = token_types(file);
    match file.string("tokenizer.ggml.model")? {
        "gpt2" => check_bpe(file, &lookup, types)?,
        "llama" => {
            check_byte_tokens(tokens, types)?;
            check_all_bytes(&lookup, |byte| format!("<0x{byte:02X}>"))?;
        }
        "bert" => {}
        "t5" => check_byte_tokens(tokens, types)?,
        other => {
            return Err(Fault::unsupported(format!(
                "tokenizer `{other}` is not supported, expected gpt2, llama, bert or t5"
            )));
        }
    }
    Ok(n_tokens)
}

/// Every key is one of those llama.cpp reads, with the type it reads.
fn check_keys(file: &Container, n_tokens: usize) -> Result<(), Fault> {
    for (key, value) in &file.metadata {
        let Some(short) = key.strip_prefix("tokenizer.") else {
            continue;
        };
        let wrong = |expected: &str| {
            Err(Fault::data(format!("`{key}` is of type {}, expected {expected}", value.type_name())))
        };
        match (short, value) {
            ("ggml.model" | "ggml.pre" | "huggingface.json" | "chat_template", Value::String(_)) => {}
            ("ggml.tokens" | "ggml.merges", Value::Strings { .. }) => {}
            ("ggml.scores", Value::Numbers { kind: FLOAT32, bytes }) => {
                if bytes.len() / 4 != n_tokens {
                    return Err(Fault::data(format!(
                        "`{key}` has {} items for {n_tokens} tokens",
                        bytes.len() / 4
                    )));
                }
                if bytes.chunks_exact(4).any(|item| !f32_of(item).is_finite()) {
                    return Err(Fault::data(format!("`{key}` holds a value that is not finite")));
                }
            }
            ("ggml.token_type", Value::Numbers { kind: INT32, bytes }) => {
                if bytes.len() / 4 != n_tokens {
                    return Err(Fault::data(format!(
                        "`{key}` has {} items for {n_tokens} tokens",
                        bytes.len() / 4
                    )));
                }
                if let Some(kind) = bytes.chunks_exact(4).map(i32_of).find(|kind| !(1..=6).contains(kind)) {
                    return Err(Fault::data(format!("`{key}` holds the unknown token type {kind}")));
                }
            }
            ("ggml.precompiled_charsmap", Value::Numbers { kind: INT8 | UINT8, .. }) => {}
            ("ggml.token_type_count", Value::U32(_)) => {}
            (
                "ggml.add_bos_token"
                | "ggml.add_eos_token"
                | "ggml.add_sep_token"
                | "ggml.add_space_prefix"
                | "ggml.remove_extra_whitespaces",
                Value::Bool(_),
            ) => {}
            (id, Value::U32(token)) if id.starts_with("ggml.") && id.ends_with("_token_id") => {
                if *token as usize >= n_tokens {
                    return Err(Fault::data(format!(
                        "`{key}` is {token}, the vocabulary has {n_tokens} tokens"
                    )));
                }
            }
            (id, _) if id.starts_with("ggml.") && id.ends_with("_token_id") => return wrong("u32"),
            ("ggml.model" | "ggml.pre" | "huggingface.json" | "chat_template", _) => return wrong("string"),
            ("ggml.merges", _) => return wrong("array of strings"),
            ("ggml.scores", _) => return wrong("array of f32"),
            ("ggml.token_type", _) => return wrong("array of i32"),
            _ => return Err(Fault::unsupported(format!("`{key}` ({}) is not known", value.type_name()))),
        }
    }
    Ok(())
}

/// The tokens in the order of their texts.
struct Lookup<'f> {
    tokens: &'f Value,
    order: Vec<u32>,
}

impl<'f> Lookup<'f> {
    /// Tokens must be distinct, not empty, and UTF-8 without a zero.
    fn new(tokens: &'f Value, n_tokens: usize) -> Result<Self, Fault> {
        for token in 0..n_tokens {
            let text = tokens.string_at(token).unwrap_or_default();
            if text.is_empty() || text.contains(&0) || std::str::from_utf8(text).is_err() {
                return Err(Fault::data(format!(
                    "token {token} of `tokenizer.ggml.tokens` is empty or no text"
                )));
            }
        }
        let mut order: Vec<u32> = (0..n_tokens as u32).collect();
        order.sort_unstable_by_key(|&token| tokens.string_at(token as usize));
        let same = |pair: &&[u32]| tokens.string_at(pair[0] as usize) == tokens.string_at(pair[1] as usize);
        match order.windows(2).find(same) {
            Some(pair) => {
                Err(Fault::data(format!("tokens {} and {} of the vocabulary are the same", pair[0], pair[1])))
            }
            None => Ok(Self { tokens, order }),
        }
    }

    fn contains(&self, text: &[u8]) -> bool {
        self.order.binary_search_by_key(&Some(text), |&token| self.tokens.string_at(token as usize)).is_ok()
    }
}

fn token_types(file: &Container) -> Option<&[u8]> {
    match file.get("tokenizer.ggml.token_type") {
        Some(Value::Numbers { bytes, .. }) => Some(bytes),
        _ => None,
    }
}

/// Byte-level BPE: a known pre-tokenizer, merges of two tokens to a third, a token for every byte. llama.cpp would drop the
/// text of a missing token without a word.
fn check_bpe(file: &Container, lookup: &Lookup<'_>, types: Option<&[u8]>) -> Result<(), Fault> {
    let pre = file.string("tokenizer.ggml.pre")?;
    if !PRE_TOKENIZERS.contains(&pre) {
        let known = PRE_TOKENIZERS.join(", ");
        return Err(Fault::unsupported(format!(
            "pre-tokenizer `{pre}` is not supported, expected one of {known}"
        )));
    }
    let Some(merges @ Value::Strings { ends, .. }) = file.get("tokenizer.ggml.merges") else {
        return Err(Fault::data("`tokenizer.ggml.merges` is missing"));
    };
    for i in 0..ends.len() {
        let merge = merges.string_at(i).unwrap_or_default();
        // llama.cpp splits at the first space after the first byte.
        let space = merge.iter().skip(1).position(|byte| *byte == b' ').map(|at| at + 1);
        let known = space.is_some_and(|at| {
            let (first, second) = (&merge[..at], &merge[at + 1..]);
            lookup.contains(first) && lookup.contains(second) && lookup.contains(&[first, second].concat())
        });
        if !known {
            let merge = String::from_utf8_lossy(merge);
            return Err(Fault::data(format!("merge {i}, `{merge}`, does not make a token out of two")));
        }
    }
    if types.is_some_and(|types| types.chunks_exact(4).any(|kind| i32_of(kind) == BYTE)) {
        return Err(Fault::unsupported("byte tokens in a byte-level vocabulary"));
    }
    check_all_bytes(lookup, |byte| symbol_of_byte(byte).to_string())
}

/// Every byte has its token. llama.cpp drops the text of a missing one, or throws out of the tokenizer, which ends the
/// process.
fn check_all_bytes(lookup: &Lookup<'_>, text: impl Fn(u8) -> String) -> Result<(), Fault> {
    match (0..=255u8).find(|&byte| !lookup.contains(text(byte).as_bytes())) {
        Some(byte) => {
            Err(Fault::data(format!("the vocabulary has no token `{}` for byte 0x{byte:02x}", text(byte))))
        }
        None => Ok(()),
    }
}

/// GPT-2's `bytes_to_unicode`: printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards.
fn symbol_of_byte(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|&other| !printable(other)).count();
    char::from_u32(0x100 + n_before as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// SentencePiece byte tokens are written `<0xHH>`.
fn check_byte_tokens(tokens: &Value, types: Option<&[u8]>) -> Result<(), Fault> {
    for (token, kind) in types.unwrap_or_default().chunks_exact(4).enumerate() {
        if i32_of(kind) != BYTE {
            continue;
        }
        let text = tokens.string_at(token).unwrap_or_default();
        let digits = text.strip_prefix(b"<0x").and_then(|rest| rest.strip_suffix(b">")).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Fault::data(format!("token {token} is marked as a byte but not written <0xHH>")));
        }
    }
    Ok(())
}

fn i32_of(item: &[u8]) -> i32 {
    i32::from_le_bytes([item[0], item[1], item[2], item[3]])
}

fn f32_of(item: &[u8]) -> f32 {
    f32::from_bits(i32_of(item) as u32)
}
