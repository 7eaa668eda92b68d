//! How tokens spell text, and which tokenizers that covers.

use std::collections::HashMap;

use inhouse_core::decode::TokenId;
use serde_json::{Value, json};

/// How the ordinary tokens of a vocabulary spell text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// GPT-2's byte-level BPE with GPT-2's pre-tokenizer.
    Gpt2,
    /// Byte-level BPE, spelled as GPT-2's, with a pre-tokenizer or normalizer of its own (llama 3, Qwen2, StarCoder).
    ByteLevel,
    /// sentencepiece's BPE: U+2581 for a space, `<0xNN>` for a byte that no token spells (llama, Mistral).
    SentencePiece,
}

/// sentencepiece's stand-in for a space.
const SPACE: &str = "\u{2581}";

impl Scheme {
    /// The bytes that an ordinary token stands for.
    pub(super) fn bytes_of(self, text: &str) -> Vec<u8> {
        match self {
            Self::Gpt2 | Self::ByteLevel => byte_level_bytes(text),
            Self::SentencePiece => match fallback_byte(text) {
                Some(byte) => vec![byte],
                None => text.replace(SPACE, " ").into_bytes(),
            },
        }
    }
}

/// The byte of a token `<0xNN>`.
fn fallback_byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Which scheme a tokenizer follows; what follows none is an error that names it, not a silent difference.
pub(super) fn check(tree: &Value) -> Result<Scheme, String> {
    let wrong = |what: &str| {
        Err(format!(
            "{what}: supported are byte-level BPE (GPT-2, llama 3, Qwen2) and sentencepiece BPE with byte fallback (llama)"
        ))
    };
    if !tree.is_object() {
        return Err("is no JSON object".into());
    }
    let Some(model) = tree["model"].as_object() else { return wrong("has no model") };
    if let Some(kind) = model.get("type").filter(|kind| *kind != "BPE") {
        return wrong(&format!("its model is {}", shown(kind)));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
            return wrong(&format!("its model has a {key}"));
        }
    }
    let (normalizers, pre_tokenizers) =
        (steps(&tree["normalizer"], "normalizers"), steps(&tree["pre_tokenizer"], "pretokenizers"));
    let flag = |value: &Value, key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    if model.get("byte_fallback").is_some_and(|flag| flag == true) {
        for step in normalizers {
            let prepends = step["type"] == "Prepend" && step["prepend"] == SPACE;
            let replaces =
                step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE;
            if !(prepends || replaces) {
                return wrong(&format!("has byte fallback and the normalizer {}", shown(&step["type"])));
            }
        }
        for step in pre_tokenizers {
            if step["type"] != "Metaspace" || step["replacement"] != SPACE {
                return wrong(&format!("has byte fallback and the pre_tokenizer {}", shown(&step["type"])));
            }
        }
        return Ok(Scheme::SentencePiece);
    }
    for step in &normalizers {
        if !matches!(step["type"].as_str(), Some("NFC" | "NFD" | "NFKC" | "NFKD")) {
            return wrong(&format!("has the normalizer {}", shown(&step["type"])));
        }
    }
    let Some(byte_level) = pre_tokenizers.iter().find(|step| step["type"] == "ByteLevel") else {
        let kinds: Vec<String> = pre_tokenizers.iter().map(|step| shown(&step["type"])).collect();
        return wrong(&format!("its pre_tokenizer ({}) is not byte-level", kinds.join(", ")));
    };
    if flag(byte_level, "add_prefix_space", true) {
        return wrong("its pre_tokenizer adds a space before a text (add_prefix_space)");
    }
    let plain = normalizers.is_empty() && pre_tokenizers.len() == 1 && flag(byte_level, "use_regex", true);
    let by_merges = !model.get("ignore_merges").is_some_and(|flag| flag == true);
    Ok(if plain && by_merges { Scheme::Gpt2 } else { Scheme::ByteLevel })
}

/// The steps of a sequence, one step, or none.
fn steps<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value {
        Value::Null => Vec::new(),
        sequence if sequence["type"] == "Sequence" => {
            sequence[list].as_array().into_iter().flatten().collect()
        }
        one => vec![one],
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| "of no type".to_owned(), |text| text.chars().take(40).collect())
}

/// Makes every byte without a token a word of its own, after the words of the pre-tokenizer: it is left out, and what stands around
/// it is not merged over the gap. That is what llama.cpp does; the tokenizers crate would put the two sides together first.
pub(crate) fn separate(tree: &mut Value, unspelled: &[u8]) {
    if unspelled.is_empty() {
        return;
    }
    let symbol = |byte: &u8| format!("\\x{{{:X}}}", u32::from(printable(*byte)));
    let symbols: String = unspelled.iter().map(symbol).collect();
    let split = json!({
        "type": "Split", "pattern": {"Regex": format!("[{symbols}]")}, "behavior": "Isolated", "invert": false,
    });
    let mut steps: Vec<Value> = steps(&tree["pre_tokenizer"], "pretokenizers").into_iter().cloned().collect();
    steps.push(split);
    tree["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": steps});
}

/// Takes out what would change a text's tokens from call to call, and what adds tokens that the text does not contain.
pub(crate) fn strip(tree: &mut Value) {
    if let Some(model) = tree["model"].as_object_mut() {
        model.insert("dropout".into(), Value::Null);
    }
    for key in ["truncation", "padding", "post_processor"] {
        if let Some(root) = tree.as_object_mut() {
            root.insert(key.into(), Value::Null);
        }
    }
}

/// Whether sentencepiece's space goes before the beginning of a prompt alone.
pub(super) fn spaces_start_only(tree: &Value) -> bool {
    steps(&tree["pre_tokenizer"], "pretokenizers").iter().any(|step| step["prepend_scheme"] == "first")
}

/// Makes control tokens of the added tokens that `is_control` names, whatever the file says of them: text never becomes one.
pub(super) fn mark_controls(tree: &mut Value, is_control: impl Fn(&str) -> bool) {
    for added in tree["added_tokens"].as_array_mut().into_iter().flatten() {
        if added["content"].as_str().is_some_and(&is_control) {
            added["special"] = Value::Bool(true);
        }
    }
}

/// The tokens that the post-processor puts before and after a single text.
pub(crate) fn wrapping(tree: &Value, vocab_size: usize) -> Result<(Vec<TokenId>, Vec<TokenId>), String> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let id = |value: &Value| {
        let id = value.as_u64().filter(|&id| id < vocab_size as u64);
        id.map(|id| id as TokenId).ok_or_else(|| "its post_processor adds a token that has no row".to_owned())
    };
    for step in steps(&tree["post_processor"], "processors") {
        match step["type"].as_str() {
            Some("ByteLevel") => {}
            Some("RobertaProcessing" | "BertProcessing") => {
                before.push(id(&step["cls"][1])?);
                after.push(id(&step["sep"][1])?);
            }
            Some("TemplateProcessing") => {
                let mut seen_text = false;
                for piece in step["single"].as_array().into_iter().flatten() {
                    if piece.get("Sequence").is_some() {
                        seen_text = true;
                        continue;
                    }
                    let name = piece["SpecialToken"]["id"].as_str().unwrap_or_default();
                    let ids = step["special_tokens"][name]["ids"].as_array();
                    for token in ids.into_iter().flatten() {
                        if seen_text { &mut after } else { &mut before }.push(id(token)?);
                    }
                }
            }
            _ => return Err(format!("its post_processor {} is not supported", shown(&step["type"]))),
        }
    }
    Ok((before, after))
}

/// GPT-2's printable stand-in for a byte (`bytes_to_unicode` in its `encoder.py`): printable Latin-1 stands for itself,
/// the other 68 bytes follow from U+0100 on.
fn printable(byte: u8) -> char {
    let stands_for_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&earlier| !stands_for_itself(earlier)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Bytes of a token in GPT-2's spelling; a character that stands for no byte is taken as itself.
fn byte_level_bytes(text: &str) -> Vec<u8> {
    static BYTES: std::sync::LazyLock<HashMap<char, u8>> =
        std::sync::LazyLock::new(|| (0..=255).map(|byte| (printable(byte), byte)).collect());
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match BYTES.get(&character) {
            Some(&byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_bytes_follow_gpt2() {
        assert_eq!(printable(b' '), 'Ġ');
        assert_eq!(printable(b'\n'), 'Ċ');
        assert_eq!(printable(b'\t'), 'ĉ');
        assert_eq!(printable(0), 'Ā');
        assert_eq!(printable(0xad), 'Ń');
        assert_eq!(printable(b'a'), 'a');
        let all: std::collections::HashSet<char> = (0..=255).map(printable).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(Scheme::Gpt2.bytes_of("Ġaé"), [b' ', b'a', 0xe9]);
    }
}
