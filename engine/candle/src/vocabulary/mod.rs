//! The vocabulary of a BPE tokenizer as Hugging Face folders hold it: `tokenizer.json`, or `vocab.json` + `merges.txt` +
//! `added_tokens.json`. It is byte-level as GPT-2's, or sentencepiece's with byte fallback as llama's ([`Scheme`]).
//!
//! Both layouts become one value, the tree of a `tokenizer.json`, which is checked here (what cannot be represented is an
//! error, not a silent difference) and then used twice: by [`crate::HfTokenizer`] and by the GGUF writer.

mod chat;
mod parts;
pub(crate) mod scheme;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use inhouse_core::decode::{Conventions, TokenId, Unspelled, is_infill_marker};
use inhouse_core::{Error, ErrorKind, Result, files};
use serde_json::{Map, Value};

use crate::config::ConfigFile;
use crate::gguf;
use parts::Specials;

pub use chat::ChatTemplates;
pub use scheme::Scheme;

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
    /// [`TokenKind::Normal`]: as the scheme spells it; else the text itself.
    pub text: String,
    /// What it is.
    pub kind: TokenKind,
}

/// A BPE vocabulary, padded to the model's embedding.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    /// One entry per row of the embedding; texts are unique.
    pub tokens: Vec<Token>,
    /// Merges, best first, spelled as the tokens.
    pub merges: Vec<(String, String)>,
    /// How tokens spell text.
    pub scheme: Scheme,
    /// The token that ends a text.
    pub end: TokenId,
    /// All tokens that end a text, `end` included: instruction models have several.
    pub ends: Vec<TokenId>,
    /// What the tokenizer puts before and after a text that a model reads whole, such as `<s>` and `</s>`.
    pub wrapping: (Vec<TokenId>, Vec<TokenId>),
    /// The token that begins a text, where the tokenizer names one.
    pub begin: Option<TokenId>,
    /// The templates of an instruction model.
    pub chat: ChatTemplates,
    /// What the user may want to know: flags that are dropped, bytes that cannot be encoded.
    pub notes: Vec<String>,
    /// Bytes that no token spells; of a scheme with byte fallback, those that become the unknown token.
    pub unspelled: Unspelled,
    path: PathBuf,
    tree: Value,
}

/// Longest text of a token, far beyond any real one.
const MAX_TOKEN_BYTES: usize = 1 << 16;

impl Vocabulary {
    /// Reads the tokenizer of a folder, or of a GGUF file, for a model with `vocab_size` rows.
    ///
    /// # Errors
    /// Tokenizer files are missing or malformed; the tokenizer follows no [`Scheme`]; a token lies
    /// beyond the embedding; there is no token that ends a text.
    pub fn read(dir: &Path, vocab_size: usize, config: &ConfigFile) -> Result<Self> {
        let Files { path, mut tree, specials, chat } = Files::read(dir)?;
        let scheme = scheme::check(&tree).map_err(|what| Error::data(&path, what))?;
        let mut wrapping = scheme::wrapping(&tree, vocab_size).map_err(|what| Error::data(&path, what))?;
        scheme::strip(&mut tree);
        // Some tokenizers mark these as ordinary text (Qwen2.5-Coder): a file that spells one would end its own prefix.
        scheme::mark_controls(&mut tree, is_infill_marker);
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
        // transformers lets the setting overrule the post-processor.
        match (specials.adds_begin, begin) {
            (Some(false), Some(begin)) => wrapping.0.retain(|&token| token != id_of(begin)),
            (Some(true), Some(begin)) if wrapping.0.first() != Some(&id_of(begin)) => {
                wrapping.0.insert(0, id_of(begin));
            }
            _ => {}
        }
        let configured: Vec<usize> = config
            .sizes("eos_token_id")?
            .into_iter()
            .filter(|&id| rows.get(id).is_some_and(Option::is_some))
            .collect();
        let end = match find(&specials.end)? {
            Some(id) => id,
            None => configured.first().copied().ok_or_else(|| {
                let what =
                    "no token ends a text (eos_token in tokenizer_config.json, eos_token_id in config.json)";
                Error::data(dir, what)
            })?,
        };
        drop(ids);
        let mut tokens = pad(rows).map_err(|what| Error::data(&path, what))?;
        tokens[end].kind = TokenKind::Control;
        scheme::mark_controls(&mut tree, |text| text == tokens[end].text);
        // One number in config.json is often a leftover of another tokenizer; a list is there because it is needed.
        let mut ends = vec![id_of(end)];
        if configured.len() > 1 {
            let control = |&&other: &&usize| other != end && tokens[other].kind == TokenKind::Control;
            ends.extend(configured.iter().filter(control).map(|&other| id_of(other)));
        }
        let unspelled = unspelled(&tokens, scheme);
        let missing = unspelled.bytes().len();
        if missing > 0 {
            notes.push(format!("{missing} of the 256 bytes have no token: text that holds them loses them"));
        }
        let (end, begin) = (id_of(end), begin.map(id_of));
        Ok(Self { tokens, merges, scheme, end, ends, wrapping, begin, chat, notes, unspelled, path, tree })
    }

    /// The file it was read from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tree of a `tokenizer.json`, without truncation, padding and dropout.
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// What a model with this vocabulary expects around a text. Where it `encodes` prompts, its decoder wraps them.
    pub fn conventions(&self, encodes: bool) -> Conventions {
        let mut controls = BTreeMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if token.kind == TokenKind::Control {
                controls.insert(token.text.clone(), id_of(id));
            }
        }
        let before = self.wrapping.0.first().copied();
        let mut conventions = Conventions::from_controls(controls);
        if encodes {
            conventions = conventions.with_gaps(before);
            // The token that the decoder begins with, too.
            conventions.extra_cells = self.wrapping.0.len() + self.wrapping.1.len() + 1;
        } else {
            conventions.bos = before;
        }
        let text = |token: Option<TokenId>| {
            token.and_then(|token| self.tokens.get(token as usize)).map(|token| token.text.clone())
        };
        conventions.bos_text = text(self.begin).unwrap_or_default();
        conventions.eos_text = text(Some(self.end)).unwrap_or_default();
        conventions.spaces_start_only = scheme::spaces_start_only(&self.tree);
        conventions.chat_template.clone_from(&self.chat.default);
        conventions
    }

    /// The bytes that a token stands for; empty for control tokens and padding.
    pub fn token_bytes(&self, id: TokenId) -> Vec<u8> {
        let Some(token) = self.tokens.get(id as usize) else { return Vec::new() };
        match token.kind {
            TokenKind::Control | TokenKind::Unused => Vec::new(),
            TokenKind::UserDefined => token.text.clone().into_bytes(),
            TokenKind::Normal => self.scheme.bytes_of(&token.text),
        }
    }
}

/// What a tokenizer is read from.
struct Files {
    /// The one of them that messages name.
    path: PathBuf,
    /// `tokenizer.json`.
    tree: Value,
    specials: Specials,
    chat: ChatTemplates,
}

impl Files {
    fn read(dir: &Path) -> Result<Self> {
        if dir.is_file() {
            let parts = gguf::read_tokenizer(dir)?;
            let chat = ChatTemplates { default: parts.chat, named: parts.named_chats };
            let specials = Specials::of(parts.begin, parts.end, parts.adds_begin);
            return Ok(Self { path: dir.to_path_buf(), tree: parts.tree, specials, chat });
        }
        let specials = Specials::read(dir)?;
        let chat = ChatTemplates::read(dir)?;
        let whole = dir.join("tokenizer.json");
        if whole.exists() {
            let text = files::read_text(&whole)?;
            let tree = serde_json::from_str(&text)
                .map_err(|cause| Error::data(&whole, format!("bad JSON: {cause}")))?;
            return Ok(Self { path: whole, tree, specials, chat });
        }
        if dir.join("vocab.json").exists() {
            let tree = parts::tree(dir, &specials)?;
            return Ok(Self { path: dir.join("vocab.json"), tree, specials, chat });
        }
        let what = "no tokenizer (looked for tokenizer.json, and for vocab.json with merges.txt)";
        Err(Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display())))
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

fn id_of(row: usize) -> TokenId {
    row as TokenId
}

/// The bytes that no ordinary token stands for by itself.
fn unspelled(tokens: &[Token], scheme: Scheme) -> Unspelled {
    let mut present = [false; 256];
    for token in tokens.iter().filter(|token| token.kind == TokenKind::Normal) {
        if let [byte] = scheme.bytes_of(&token.text)[..] {
            present[usize::from(byte)] = true;
        }
    }
    Unspelled::new(|byte| present[usize::from(byte)])
}
