//! The files of a slow tokenizer, `vocab.json`, `merges.txt` and `added_tokens.json`, as the tree of a `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::Path;

use inhouse_core::{Error, Result, files};
use serde_json::{Map, Value, json};

/// Tokens with a role, by text.
#[derive(Debug, Default)]
pub(super) struct Specials {
    pub begin: Option<String>,
    pub end: Option<String>,
    /// Whether the first of these stands before every text; `None`: as the post-processor says.
    pub adds_begin: Option<bool>,
    /// Others that are no text: unknown, padding, mask, sentinels.
    others: Vec<String>,
    /// transformers' class of the slow tokenizer.
    class: Option<String>,
}

impl Specials {
    /// Those of a tokenizer without files of its own.
    pub fn of(begin: Option<String>, end: Option<String>, adds_begin: bool) -> Self {
        Self { begin, end, adds_begin: Some(adds_begin), ..Self::default() }
    }

    pub fn read(dir: &Path) -> Result<Self> {
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
            specials.adds_begin = specials.adds_begin.or_else(|| tree["add_bos_token"].as_bool());
            specials.class = specials.class.or_else(|| text("tokenizer_class"));
            let roles = ["unk_token", "pad_token", "cls_token", "sep_token", "mask_token"];
            specials.others.extend(roles.into_iter().filter_map(text));
            let more = tree["additional_special_tokens"].as_array().into_iter().flatten();
            let more = more.filter_map(|value| value.as_str().or_else(|| value["content"].as_str()));
            specials.others.extend(more.map(str::to_owned));
        }
        Ok(specials)
    }
}

/// The tree that transformers would build from the files of the slow tokenizer.
pub(super) fn tree(dir: &Path, specials: &Specials) -> Result<Value> {
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
    let mut beside = Map::new();
    let added_path = dir.join("added_tokens.json");
    if added_path.exists() {
        beside = read_map(&added_path)?;
        for (text, id) in &beside {
            add(text, id, false);
        }
    }
    let id_of = |text: &str| vocab.get(text).or_else(|| beside.get(text));
    for text in specials.others.iter().chain(&specials.begin).chain(&specials.end) {
        if let Some(id) = id_of(text) {
            add(text, id, true);
        }
    }
    // What transformers' converters of slow tokenizers put around a text.
    let around = |text: &Option<String>| {
        let text = text.as_ref()?;
        Some(json!([text, id_of(text)?]))
    };
    let post_processor = match (specials.class.as_deref(), around(&specials.end), around(&specials.begin)) {
        (Some("RobertaTokenizer" | "RobertaTokenizerFast"), Some(sep), Some(cls)) => {
            json!({"type": "RobertaProcessing", "sep": sep, "cls": cls})
        }
        _ => Value::Null,
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.into_values().collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": post_processor, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges,
        },
    }))
}
