//! The tokenizer in a GGUF file.

use inhouse_core::decode::Unspelled;
use inhouse_core::gguf::{Header, Kind, Numbers, Texts, Value};

use super::{Fault, charsmap, text};

/// Pre-tokenizers of byte-level BPE whose splitting llama.cpp does with code of its own (or by single characters). The
/// others run `std::regex`, whose recursion a long text can drive over the end of the stack.
const PRE_TOKENIZERS: &[&str] = &[
    // GPT-2's.
    "gpt-2",
    "phi-2",
    "mpt",
    "olmo",
    "jais",
    "trillion",
    "granite-docling",
    "exaone4",
    "roberta-bpe",
    "jina-v2-code",
    "modern-bert",
    "gigachat",
    "a.x-4.0",
    "mellum",
    // Digits one by one, then GPT-2's.
    "starcoder",
    "refact",
    "command-r",
    "smollm",
    "codeshell",
    "exaone",
    "minerva-7b",
    "mellum2",
    // Llama 3's.
    "llama-bpe",
    "llama3",
    "llama-v3",
    "falcon3",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "dbrx",
    "smaug-bpe",
    "chatglm-bpe",
    "glm4",
    // Qwen 2's.
    "qwen2",
    "deepseek-r1-qwen",
    "kormo",
    "megrez",
    "stablelm2",
    "hunyuan",
    "solar-open",
    "grok-2",
    // Qwen 3.5's.
    "qwen35",
];

const BYTE: i32 = 6;
/// llama.cpp's default for the `t5` tokenizer.
const UNKNOWN_OF_T5: usize = 2;

/// What there is to know of a tokenizer that is sound.
pub(super) struct Vocab {
    pub(super) n_tokens: usize,
    /// Of byte-level BPE; none elsewhere.
    pub(super) unspelled: Unspelled,
}

/// Checks everything under `tokenizer.`.
pub(super) fn check(file: &Header) -> Result<Vocab, Fault> {
    let Some(Value::Texts(tokens)) = file.get("tokenizer.ggml.tokens") else {
        return Err(Fault::data(
            "`tokenizer.ggml.tokens` is missing or no array of strings: no vocabulary in this file",
        ));
    };
    let n_tokens = tokens.len();
    if n_tokens == 0 || n_tokens > 1 << 24 {
        return Err(Fault::data(format!(
            "`tokenizer.ggml.tokens` has {n_tokens} tokens, expected 1 to {}",
            1 << 24
        )));
    }
    check_keys(file, n_tokens)?;
    let lookup = Lookup::new(tokens, n_tokens)?;
    let types = token_types(file);
    let mut unspelled = Unspelled::default();
    match text(file, "tokenizer.ggml.model")? {
        "gpt2" => {
            check_bpe(file, &lookup, &types)?;
            unspelled = Unspelled::new(|byte| {
                lookup.contains(symbol_of_byte(byte).encode_utf8(&mut [0; 4]).as_bytes())
            });
        }
        "llama" => {
            check_byte_tokens(tokens, &types)?;
            check_fallback_bytes(&lookup)?;
        }
        "bert" if types.contains(&BYTE) => {
            return Err(Fault::unsupported("byte tokens in a vocabulary of word pieces"));
        }
        "bert" => {
            // llama.cpp takes these for granted where the file does not say, as in BERT's own vocabulary.
            for (role, default) in
                [("bos", 101), ("unknown", 100), ("seperator", 102), ("padding", 0), ("mask", 103)]
            {
                let key = format!("tokenizer.ggml.{role}_token_id");
                if file.get(&key).is_none() && n_tokens <= default {
                    return Err(Fault::data(format!("`{key}` is missing")));
                }
            }
        }
        "t5" => {
            check_byte_tokens(tokens, &types)?;
            // What cannot be split otherwise becomes this token, which llama.cpp does not ask for.
            if file.get("tokenizer.ggml.unknown_token_id").is_none() && n_tokens <= UNKNOWN_OF_T5 {
                return Err(Fault::data("`tokenizer.ggml.unknown_token_id` is missing"));
            }
        }
        other => {
            return Err(Fault::unsupported(format!(
                "tokenizer `{other}` is not supported, expected gpt2, llama, bert or t5"
            )));
        }
    }
    Ok(Vocab { n_tokens, unspelled })
}

/// Every key is one of those llama.cpp reads, with the type it reads.
fn check_keys(file: &Header, n_tokens: usize) -> Result<(), Fault> {
    for (key, value) in &file.metadata {
        let Some(short) = key.strip_prefix("tokenizer.") else {
            continue;
        };
        let wrong = |expected: &str| {
            Err(Fault::data(format!("`{key}` is of type {}, expected {expected}", value.kind_name())))
        };
        let check_length = |items: &Numbers| {
            if items.len() == n_tokens {
                return Ok(());
            }
            Err(Fault::data(format!("`{key}` has {} items for {n_tokens} tokens", items.len())))
        };
        match (short, value) {
            ("ggml.model" | "ggml.pre" | "huggingface.json" | "chat_template", Value::Text(_)) => {}
            ("ggml.tokens" | "ggml.merges" | "chat_templates", Value::Texts(_)) => {}
            ("ggml.scores", Value::Numbers(scores)) if scores.kind() == Kind::F32 => {
                check_length(scores)?;
                if scores.f32s().into_iter().flatten().any(|score| !score.is_finite()) {
                    return Err(Fault::data(format!("`{key}` holds a value that is not finite")));
                }
            }
            ("ggml.token_type", Value::Numbers(types)) if types.kind() == Kind::I32 => {
                check_length(types)?;
                if let Some(kind) = types.i32s().into_iter().flatten().find(|kind| !(1..=6).contains(kind)) {
                    return Err(Fault::data(format!("`{key}` holds the unknown token type {kind}")));
                }
            }
            ("ggml.precompiled_charsmap", Value::Numbers(map))
                if matches!(map.kind(), Kind::I8 | Kind::U8) =>
            {
                charsmap::check(map).map_err(|what| Fault::data(format!("`{key}` {what}")))?;
            }
            ("ggml.token_type_count", Value::U32(_)) => {}
            (
                "ggml.add_bos_token"
                | "ggml.add_eos_token"
                | "ggml.add_sep_token"
                | "ggml.add_space_prefix"
                | "ggml.remove_extra_whitespaces",
                Value::Bool(_),
            ) => {}
            (name, Value::Text(_)) if name.starts_with("chat_template.") => {}
            (id, Value::U32(token)) if id.starts_with("ggml.") && id.ends_with("_token_id") => {
                if *token as usize >= n_tokens {
                    return Err(Fault::data(format!(
                        "`{key}` is {token}, the vocabulary has {n_tokens} tokens"
                    )));
                }
            }
            (id, _) if id.starts_with("ggml.") && id.ends_with("_token_id") => return wrong("u32"),
            ("ggml.model" | "ggml.pre" | "huggingface.json" | "chat_template", _) => return wrong("text"),
            ("ggml.merges", _) => return wrong("array of text"),
            ("ggml.scores", _) => return wrong("array of f32"),
            ("ggml.token_type", _) => return wrong("array of i32"),
            _ => return Err(Fault::unsupported(format!("`{key}` ({}) is not known", value.kind_name()))),
        }
    }
    Ok(())
}

/// The tokens in the order of their texts.
struct Lookup<'f> {
    tokens: &'f Texts,
    order: Vec<u32>,
}

impl<'f> Lookup<'f> {
    /// Tokens must be distinct, not empty, and UTF-8 without a zero.
    fn new(tokens: &'f Texts, n_tokens: usize) -> Result<Self, Fault> {
        for token in 0..n_tokens {
            let text = tokens.get(token).unwrap_or_default();
            if text.is_empty() || text.contains(&0) || std::str::from_utf8(text).is_err() {
                return Err(Fault::data(format!(
                    "token {token} of `tokenizer.ggml.tokens` is empty or no text"
                )));
            }
        }
        let mut order: Vec<u32> = (0..n_tokens as u32).collect();
        order.sort_unstable_by_key(|&token| tokens.get(token as usize));
        let same = |pair: &&[u32]| tokens.get(pair[0] as usize) == tokens.get(pair[1] as usize);
        match order.windows(2).find(same) {
            Some(pair) => {
                Err(Fault::data(format!("tokens {} and {} of the vocabulary are the same", pair[0], pair[1])))
            }
            None => Ok(Self { tokens, order }),
        }
    }

    fn contains(&self, text: &[u8]) -> bool {
        self.order.binary_search_by_key(&Some(text), |&token| self.tokens.get(token as usize)).is_ok()
    }
}

/// The types of all tokens; none where the file has none.
fn token_types(file: &Header) -> Vec<i32> {
    match file.get("tokenizer.ggml.token_type") {
        Some(Value::Numbers(types)) => types.i32s().into_iter().flatten().collect(),
        _ => Vec::new(),
    }
}

/// Byte-level BPE: a known pre-tokenizer, merges of two tokens to a third. A byte without a token is left out of texts.
fn check_bpe(file: &Header, lookup: &Lookup<'_>, types: &[i32]) -> Result<(), Fault> {
    let pre = text(file, "tokenizer.ggml.pre")?;
    if !PRE_TOKENIZERS.contains(&pre) {
        let known = PRE_TOKENIZERS.join(", ");
        return Err(Fault::unsupported(format!(
            "pre-tokenizer `{pre}` is not supported, expected one of {known}"
        )));
    }
    let Some(Value::Texts(merges)) = file.get("tokenizer.ggml.merges") else {
        return Err(Fault::data("`tokenizer.ggml.merges` is missing"));
    };
    for i in 0..merges.len() {
        let merge = merges.get(i).unwrap_or_default();
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
    if types.contains(&BYTE) {
        return Err(Fault::unsupported("byte tokens in a byte-level vocabulary"));
    }
    Ok(())
}

/// Every byte has its token: for a missing one llama.cpp throws out of the tokenizer, which ends the process.
fn check_fallback_bytes(lookup: &Lookup<'_>) -> Result<(), Fault> {
    let text = |byte: u8| format!("<0x{byte:02X}>");
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
fn check_byte_tokens(tokens: &Texts, types: &[i32]) -> Result<(), Fault> {
    for (token, &kind) in types.iter().enumerate() {
        if kind != BYTE {
            continue;
        }
        let text = tokens.get(token).unwrap_or_default();
        let digits = text.strip_prefix(b"<0x").and_then(|rest| rest.strip_suffix(b">")).unwrap_or_default();
        if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Fault::data(format!("token {token} is marked as a byte but not written <0xHH>")));
        }
    }
    Ok(())
}
