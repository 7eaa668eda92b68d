//! The vocabulary of a byte-level BPE tokenizer as Hugging Face folders hold it: `tokenizer.json`, or `vocab.json` +
//! `merges.txt` + `added_tokens.json`.
//!
//! Both layouts become one value, the tree of a `tokenizer.json`, which is checked here (what cannot be represented is an
//! error, not a silent difference) and then used twice: by [`crate::HfTokenizer`] and by the GGUF writer.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use inhouse_core::decode::TokenId;
use inhouse_core::{Error, ErrorKind, Result, files};
use serde_json::{Map, Value, json};

use crate::config::ConfigFile;

/// What a row of the vocabulary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Made by the merges.
    Normal,
    /// Ends a text or is otherwise no text; never matched in a text.
    Control,
    /// Added text (runs of spaces and tabs), matched before the pre-tokenizer.
    UserDefined,
    /// A row that only pads the embedding.
    Unused,
}

/// A row of the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// [`TokenKind::Normal`]: GPT-2's printable spelling of the bytes; else the text itself.
    pub text: String,
    /// What it is.
    pub kind: TokenKind,
}

/// A byte-level BPE vocabulary, padded to the model's embedding.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// One entry per row of the embedding; texts are unique.
    pub tokens: Vec<Token>,
    /// Merges, best first, in GPT-2's printable spelling.
    pub merges: Vec<(String, String)>,
    /// The token that ends a text.
    pub end: TokenId,
    /// The token that begins a text, where the tokenizer names one.
    pub begin: Option<TokenId>,
    /// What the user may want to know: flags that are dropped, bytes that cannot be encoded.
    pub notes: Vec<String>,
    path: PathBuf,
    tree: Value,
}

/// Longest text of a token, far beyond any real one.
const MAX_TOKEN_BYTES: usize = 1 << 16;

impl Vocabulary {
    /// Reads the tokenizer of a folder for a model with `vocab_size` rows.
    ///
    /// # Errors
    /// Tokenizer files are missing or malformed; the tokenizer is no byte-level BPE with GPT-2's pre-tokenizer; a token lies
    /// beyond the embedding; there is no token that ends a text.
    pub fn read(dir: &Path, vocab_size: usize, config: &ConfigFile) -> Result<Self> {
        let specials = Specials::read(dir)?;
        let whole = dir.join("tokenizer.json");
        let (path, mut tree) = if whole.exists() {
            let text = files::read_text(&whole)?;
            let tree = serde_json::from_str(&text)
                .map_err(|cause| Error::data(&whole, format!("bad JSON: {cause}")))?;
            (whole, tree)
        } else if dir.join("vocab.json").exists() {
            (dir.join("vocab.json"), tree_of_parts(dir, &specials)?)
        } else {
            let what = "no tokenizer (looked for tokenizer.json, and for vocab.json with merges.txt)";
            return Err(Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display())));
        };
        check_kind(&mut tree).map_err(|what| Error::data(&path, what))?;
        let mut reader = Reader { rows: vec![None; vocab_size], notes: Vec::new() };
        let merges = reader.read(&tree).map_err(|what| Error::data(&path, what))?;
        let Reader { rows, mut notes } = reader;

        let ids: HashMap<&str, usize> =
            rows.iter().enumerate().filter_map(|(id, row)| Some((row.as_ref()?.text.as_str(), id))).collect();
        let find = |text: &Option<String>| -> Result<Option<usize>> {
            let Some(text) = text else { return Ok(None) };
            let id = ids.get(text.as_str()).copied();
            let what = || format!("the tokenizer has no token {text:?}, which tokenizer_config.json names");
            id.map(Some).ok_or_else(|| Error::data(&path, what()))
        };
        let begin = find(&specials.begin)?;
        let end = match find(&specials.end)? {
            Some(id) => id,
            None => config
                .optional_size("eos_token_id", 0..=vocab_size - 1)?
                .filter(|&id| rows[id].is_some())
                .ok_or_else(|| {
                    let what = "no token ends a text (eos_token in tokenizer_config.json, eos_token_id in config.json)";
                    Error::data(dir, what)
                })?,
        };
        drop(ids);
        let mut tokens = pad(rows).map_err(|what| Error::data(&path, what))?;
        tokens[end].kind = TokenKind::Control;
        let missing = missing_bytes(&tokens);
        if missing > 0 {
            notes.push(format!("{missing} of the 256 bytes have no token: text that holds them loses them"));
        }
        let id = |id: usize| id as TokenId;
        Ok(Self { tokens, merges, end: id(end), begin: begin.map(id), notes, path, tree })
    }

    /// The file it was read from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree of a `tokenizer.json`, without truncation, padding and dropout.
    pub(crate) fn tree(&self) -> &Value {
        &self.tree
    }

    /// The bytes that a token stands for; empty for control tokens and padding.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        let Some(token) = self.tokens.get(id as usize) else { return Vec::new() };
        match token.kind {
            TokenKind::Control | TokenKind::Unused => Vec::new(),
            TokenKind::UserDefined => token.text.clone().into_bytes(),
            TokenKind::Normal => bytes_of(&token.text),
        }
    }
}

/// Reads a tree into rows.
struct Reader {
    rows: Vec<Option<Token>>,
    notes: Vec<String>,
}

impl Reader {
    fn read(&mut self, tree: &Value) -> Result<Vec<(String, String)>, String> {
        let vocab = tree["model"]["vocab"].as_object().ok_or("model.vocab is no object")?;
        for (text, id) in vocab {
            let id = self.row(id, text)?;
            if let Some(other) = &self.rows[id] {
                return Err(format!("tokens {:?} and {text:?} share the id {id}", other.text));
            }
            self.rows[id] = Some(Token { text: text.clone(), kind: TokenKind::Normal });
        }
        let mut flagged = 0usize;
        for added in tree["added_tokens"].as_array().into_iter().flatten() {
            let text = added["content"].as_str().ok_or("an added token without a text")?;
            let id = self.row(&added["id"], text)?;
            let known = vocab.get(text).and_then(Value::as_u64);
            if known.is_some_and(|known| known != id as u64) {
                return Err(format!("added token {text:?} has the id {id}, in model.vocab another"));
            }
            match &self.rows[id] {
                Some(other) if other.text != text => {
                    return Err(format!("tokens {:?} and {text:?} share the id {id}", other.text));
                }
                _ => {}
            }
            let flag = |name: &str| added[name].as_bool().unwrap_or(false);
            flagged += usize::from(flag("lstrip") || flag("rstrip") || flag("single_word"));
            let kind = if flag("special") { TokenKind::Control } else { TokenKind::UserDefined };
            self.rows[id] = Some(Token { text: text.to_owned(), kind });
        }
        if flagged > 0 {
            self.notes.push(format!(
                "{flagged} added tokens strip spaces or match whole words only: GGUF cannot say so"
            ));
        }
        self.merges(tree, vocab)
    }

    fn row(&self, id: &Value, text: &str) -> Result<usize, String> {
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES {
            return Err(format!("a token of {} bytes", text.len()));
        }
        let id = id.as_u64().ok_or_else(|| format!("token {text:?} has no id"))?;
        usize::try_from(id).ok().filter(|&id| id < self.rows.len()).ok_or_else(|| {
            format!(
                "token {text:?} has the id {id}, beyond the embedding's {} rows (vocab_size)",
                self.rows.len()
            )
        })
    }

    fn merges(&self, tree: &Value, vocab: &Map<String, Value>) -> Result<Vec<(String, String)>, String> {
        let merges = tree["model"]["merges"].as_array().ok_or("model.merges is no list")?;
        let mut pairs = Vec::with_capacity(merges.len());
        for (i, merge) in merges.iter().enumerate() {
            let pair = match merge {
                Value::String(line) => line.split_once(' '),
                Value::Array(parts) => match parts.as_slice() {
                    [left, right] => left.as_str().zip(right.as_str()),
                    _ => None,
                },
                _ => None,
            };
            let (left, right) = pair.ok_or_else(|| format!("merge {} is no pair of tokens", i + 1))?;
            let product = format!("{left}{right}");
            for token in [left, right, &product] {
                if !vocab.contains_key(token) || token.contains(' ') {
                    return Err(format!("merge {} uses {token:?}, which is not in the vocabulary", i + 1));
                }
            }
            pairs.push((left.to_owned(), right.to_owned()));
        }
        Ok(pairs)
    }
}

/// Fills the rows without a token, so that each text stands once (llama.cpp aborts on a repeated one).
fn pad(rows: Vec<Option<Token>>) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::with_capacity(rows.len());
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(rows.len());
    for (id, row) in rows.into_iter().enumerate() {
        let token = row.unwrap_or_else(|| Token { text: format!("[PAD{id}]"), kind: TokenKind::Unused });
        if let Some(other) = seen.insert(token.text.clone(), id) {
            return Err(format!("tokens {other} and {id} have the same text {:?}", token.text));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Refuses what is not GPT-2's byte-level BPE, and takes out what would change a text's tokens from call to call.
fn check_kind(tree: &mut Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: only byte-level BPE as GPT-2's is supported"));
    let Some(root) = tree.as_object_mut() else { return Err("is no JSON object".into()) };
    if !root.get("normalizer").is_none_or(Value::is_null) {
        return wrong("has a normalizer");
    }
    let pre = root.get("pre_tokenizer").cloned().unwrap_or_default();
    if pre["type"] != "ByteLevel" || pre["add_prefix_space"] != false || pre["use_regex"] == false {
        return wrong("its pre_tokenizer is not ByteLevel with add_prefix_space false and use_regex true");
    }
    let Some(model) = root.get_mut("model").and_then(Value::as_object_mut) else {
        return wrong("has no model");
    };
    if model.get("type").is_some_and(|kind| kind != "BPE") {
        return wrong("its model is not BPE");
    }
    for key in ["byte_fallback", "ignore_merges"] {
        if model.get(key).is_some_and(|flag| flag == true) {
            return wrong(&format!("its model has {key}"));
        }
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
            return wrong(&format!("its model has a {key}"));
        }
    }
    model.insert("dropout".into(), Value::Null);
    root.insert("truncation".into(), Value::Null);
    root.insert("padding".into(), Value::Null);
    // Adds tokens that the text does not contain, or trims offsets that nobody reads.
    root.insert("post_processor".into(), Value::Null);
    Ok(())
}

/// Tokens with a role, by text.
#[derive(Debug, Default)]
struct Specials {
    begin: Option<String>,
    end: Option<String>,
    unknown: Option<String>,
}

impl Specials {
    fn read(dir: &Path) -> Result<Self> {
        let mut specials = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            let tree: Value = serde_json::from_str(&files::read_text(&path)?)
                .map_err(|cause| Error::data(&path, format!("bad JSON: {cause}")))?;
            // A text, or an object with the text and flags.
            let text = |key: &str| {
                let value = &tree[key];
                value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
            };
            specials.begin = specials.begin.or_else(|| text("bos_token"));
            specials.end = specials.end.or_else(|| text("eos_token"));
            specials.unknown = specials.unknown.or_else(|| text("unk_token"));
        }
        Ok(specials)
    }
}

/// The tree that transformers would build from the files of the slow tokenizer.
fn tree_of_parts(dir: &Path, specials: &Specials) -> Result<Value> {
    let read_map = |path: &Path| -> Result<Map<String, Value>> {
        serde_json::from_str(&files::read_text(path)?)
            .map_err(|cause| Error::data(path, format!("not a map from token to id: {cause}")))
    };
    let vocab = read_map(&dir.join("vocab.json"))?;
    let merges_path = dir.join("merges.txt");
    let text = files::read_text(&merges_path)?;
    let merges: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(i, line)| !(line.is_empty() || (*i == 0 && line.starts_with("#version"))))
        .map(|(_, line)| line)
        .collect();

    // By id, since the order of an added vocabulary is the order of its ids.
    let mut added: BTreeMap<u64, Value> = BTreeMap::new();
    let mut add = |text: &str, id: &Value, special: bool| {
        let entry = json!({
            "id": id, "content": text, "special": special, "normalized": !special,
            "single_word": false, "lstrip": false, "rstrip": false,
        });
        added.insert(id.as_u64().unwrap_or(u64::MAX), entry);
    };
    let added_path = dir.join("added_tokens.json");
    if added_path.exists() {
        for (text, id) in &read_map(&added_path)? {
            add(text, id, false);
        }
    }
    for text in [&specials.unknown, &specials.begin, &specials.end].into_iter().flatten() {
        if let Some(id) = vocab.get(text) {
            add(text, id, true);
        }
    }
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.into_values().collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    }))
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
fn bytes_of(text: &str) -> Vec<u8> {
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

fn missing_bytes(tokens: &[Token]) -> usize {
    let mut present = [false; 256];
    for token in tokens.iter().filter(|token| token.kind == TokenKind::Normal) {
        if let [byte] = bytes_of(&token.text)[..] {
            present[usize::from(byte)] = true;
        }
    }
    present.iter().filter(|present| !**present).count()
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
        assert_eq!(bytes_of("Ġaé"), [b' ', b'a', 0xe9]);
    }
}
