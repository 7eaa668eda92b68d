//! The WordPiece tokenizer of a BERT folder: `tokenizer.json`, or `vocab.txt` with `tokenizer_config.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::decode::TokenId;
use inhouse_core::{Error, ErrorKind, Result, files};
use serde_json::{Map, Value, json};

use crate::vocabulary::scheme;

/// A WordPiece tokenizer.
///
/// Control tokens spelled out in a text (`[SEP]`) are tokenised as text: a text cannot end itself.
pub struct WordPiece {
    inner: tokenizers::Tokenizer,
    /// The tree of a `tokenizer.json`, without truncation and padding.
    tree: Value,
    /// What the tokenizer puts before and after a text.
    wrapping: (Vec<TokenId>, Vec<TokenId>),
    max_tokens: usize,
    path: PathBuf,
}

impl WordPiece {
    /// Reads the tokenizer of a folder for a model with `vocab_size` rows that reads texts of at most `max_tokens` tokens.
    ///
    /// # Errors
    /// Tokenizer files are missing or malformed, it is no WordPiece tokenizer, a token lies beyond the embedding, or
    /// `max_tokens` leaves no room for text.
    pub fn read(dir: &Path, vocab_size: usize, max_tokens: usize) -> Result<Self> {
        let whole = dir.join("tokenizer.json");
        let lines = dir.join("vocab.txt");
        let (path, mut tree) = if whole.exists() {
            let text = files::read_text(&whole)?;
            let tree = serde_json::from_str(&text)
                .map_err(|cause| Error::data(&whole, format!("bad JSON: {cause}")))?;
            (whole, tree)
        } else if lines.exists() {
            let tree = tree_of_lines(dir, &lines)?;
            (lines, tree)
        } else {
            let what = "no tokenizer (looked for tokenizer.json and vocab.txt)";
            return Err(Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display())));
        };
        let bad = |what: String| Error::data(&path, what);
        if tree["model"]["type"] != "WordPiece" {
            let kind = tree["model"]["type"].as_str().unwrap_or("nothing known").chars().take(40);
            let what = format!("the model of the tokenizer is {}", kind.collect::<String>());
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{}: {what} (supported: WordPiece)", path.display()),
            ));
        }
        let wrapping = scheme::wrapping(&tree, vocab_size).map_err(bad)?;
        scheme::strip(&mut tree);
        let mut inner: tokenizers::Tokenizer =
            serde_json::from_value(tree.clone()).map_err(|cause| bad(format!("not a tokenizer: {cause}")))?;
        inner.set_encode_special_tokens(true);
        let beyond = inner.get_vocab(true).into_iter().find(|(_, id)| *id as usize >= vocab_size);
        if let Some((token, id)) = beyond {
            let what = format!(
                "token {token:?} has the id {id}, beyond the embedding's {vocab_size} rows (vocab_size)"
            );
            return Err(bad(what));
        }
        let around = wrapping.0.len() + wrapping.1.len();
        if max_tokens <= around {
            return Err(bad(format!(
                "{max_tokens} tokens of a text leave no room beside the {around} around it"
            )));
        }
        Ok(Self { inner, tree, wrapping, max_tokens, path })
    }

    /// The tokens of a text as the model reads them: wrapped (`[CLS] ... [SEP]`), what is beyond `max_tokens` cut off.
    ///
    /// # Errors
    /// The `tokenizers` crate fails.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|cause| {
            let what = format!("tokenizer: cannot encode {} bytes of text: {cause}", text.len());
            Error::new(ErrorKind::Backend, what)
        })?;
        let (before, after) = &self.wrapping;
        let room = self.max_tokens - before.len() - after.len();
        let ids = encoding.get_ids();
        Ok([before, &ids[..ids.len().min(room)], after].concat())
    }

    /// Tokens of a text at most, wrapping included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// What it puts before and after a text.
    pub fn wrapping(&self) -> (&[TokenId], &[TokenId]) {
        (&self.wrapping.0, &self.wrapping.1)
    }

    /// The tree of a `tokenizer.json`, without truncation, padding and post-processor.
    pub fn tree(&self) -> &Value {
        &self.tree
    }

    /// The file it was read from, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A whole `tokenizer.json`.
    pub(crate) fn to_json(&self) -> String {
        let token = |&id: &TokenId| self.inner.id_to_token(id).unwrap_or_default();
        let piece = |id: &TokenId| json!({"SpecialToken": {"id": token(id), "type_id": 0}});
        let text = std::iter::once(json!({"Sequence": {"id": "A", "type_id": 0}}));
        let (before, after) = &self.wrapping;
        let single: Vec<Value> =
            before.iter().map(piece).chain(text).chain(after.iter().map(piece)).collect();
        let special = before
            .iter()
            .chain(after)
            .map(|id| (token(id), json!({"id": token(id), "ids": [id], "tokens": [token(id)]})));
        let special: Map<String, Value> = special.collect();
        let mut tree = self.tree.clone();
        tree["post_processor"] = json!({
            "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special,
        });
        tree.to_string()
    }
}

/// The tree that transformers builds from the files of the slow tokenizer.
fn tree_of_lines(dir: &Path, lines: &Path) -> Result<Value> {
    let text = files::read_text(lines)?;
    let mut vocab: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, line) in text.lines().enumerate() {
        if let Some(other) = vocab.insert(line, id) {
            return Err(Error::data_at(lines, id + 1, format!("{line:?} stands on line {} too", other + 1)));
        }
    }
    let path = dir.join("tokenizer_config.json");
    let config: Value = if path.exists() {
        serde_json::from_str(&files::read_text(&path)?)
            .map_err(|cause| Error::data(&path, format!("bad JSON: {cause}")))?
    } else {
        json!({})
    };
    let flag = |key: &str| config[key].as_bool().unwrap_or(true);
    let special = |key: &str, default: &str| {
        let value = &config[key];
        let text = value.as_str().or_else(|| value["content"].as_str()).unwrap_or(default).to_owned();
        let missing = || Error::data(lines, format!("the vocabulary has no {text}"));
        let id = vocab.get(text.as_str()).copied().ok_or_else(missing)?;
        Ok::<_, Error>((text, id))
    };
    let (unknown, _) = special("unk_token", "[UNK]")?;
    let (cls, sep) = (special("cls_token", "[CLS]")?, special("sep_token", "[SEP]")?);
    let added: Vec<Value> = [&cls, &sep]
        .map(|(text, id)| {
            json!({
                "id": id, "content": text, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .into();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": flag("tokenize_chinese_chars"),
            "strip_accents": config["strip_accents"], "lowercase": flag("do_lower_case"),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    }))
}
