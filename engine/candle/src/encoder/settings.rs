//! How a folder's encoder makes one vector of a text.

use std::path::Path;

pub use inhouse_core::encode::Pooling;
use inhouse_core::{Error, ErrorKind, Result, files};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bert;

/// The file of [`EncoderSettings`] in a folder.
pub const SETTINGS_FILE: &str = "inhouse_encoder.json";
const VERSION: u32 = 1;

/// Whether queries and documents are read by one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Towers {
    /// By one.
    #[default]
    Tied,
    /// By two of one shape; their weights are named `query.NAME` and `document.NAME`.
    Independent,
}

/// `inhouse_encoder.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSettings {
    version: u32,
    /// How the states of a text's tokens become its vector.
    pub pooling: Pooling,
    /// Whether vectors are divided by their length.
    pub normalize: bool,
    /// Tokens of a text at most, the tokenizer's own included.
    pub max_tokens: usize,
    /// Whether queries and documents are read by one network.
    #[serde(default)]
    pub towers: Towers,
}

impl EncoderSettings {
    /// Settings of a new encoder.
    pub fn new(pooling: Pooling, normalize: bool, max_tokens: usize, towers: Towers) -> Self {
        Self { version: VERSION, pooling, normalize, max_tokens, towers }
    }

    /// The settings of a folder: `inhouse_encoder.json`, else what sentence-transformers wrote (`modules.json`,
    /// `1_Pooling/config.json`, `sentence_bert_config.json`); `None` where it has neither.
    ///
    /// # Errors
    /// A file is malformed, or asks for what is not built; the message names the key and its value.
    pub fn read(dir: &Path, config: &bert::Config) -> Result<Option<Self>> {
        let own = dir.join(SETTINGS_FILE);
        if own.exists() {
            let settings: Self =
                serde_json::from_str(&files::read_text(&own)?).map_err(|cause| Error::data(&own, cause))?;
            if settings.version != VERSION {
                let what = format!("version {}, this build reads {VERSION}", settings.version);
                let what = format!("{}: {what}", own.display());
                return Err(Error::new(ErrorKind::UnsupportedVersion, what));
            }
            settings.check(config).map_err(|what| Error::data(&own, what))?;
            return Ok(Some(settings));
        }
        sentence_transformers(dir, config)
    }

    /// The content of `inhouse_encoder.json`.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write the settings: {cause}")))
    }

    /// Whether they fit a network.
    pub(super) fn check(&self, config: &bert::Config) -> Result<(), String> {
        let longest = config.max_position_embeddings;
        if (1..=longest).contains(&self.max_tokens) {
            return Ok(());
        }
        Err(format!("max_tokens {} is not within 1..={longest} (max_position_embeddings)", self.max_tokens))
    }
}

fn read_json(path: &Path) -> Result<Value> {
    serde_json::from_str(&files::read_text(path)?)
        .map_err(|cause| Error::data(path, format!("bad JSON: {cause}")))
}

fn sentence_transformers(dir: &Path, config: &bert::Config) -> Result<Option<EncoderSettings>> {
    let refuse = |path: &Path, what: String| {
        Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())))
    };
    let mut pooling_dir = dir.join("1_Pooling");
    let mut normalize = false;
    let modules = dir.join("modules.json");
    if modules.exists() {
        for module in read_json(&modules)?.as_array().into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.strip_prefix("sentence_transformers.models.") {
                Some("Transformer") => {}
                Some("Pooling") => {
                    let name = module["path"].as_str().unwrap_or("1_Pooling");
                    if name.contains(['/', '\\', '\0']) || name == ".." {
                        return Err(Error::data(&modules, format!("path {name:?} is not a plain name")));
                    }
                    pooling_dir = dir.join(name);
                }
                Some("Normalize") => normalize = true,
                _ => {
                    let what = format!(
                        "module {kind:?} is not supported (supported: Transformer, Pooling, Normalize)"
                    );
                    return refuse(&modules, what);
                }
            }
        }
    }
    let path = pooling_dir.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let tree = read_json(&path)?;
    let mut pooling = None;
    for (key, value) in tree.as_object().into_iter().flatten() {
        if !key.starts_with("pooling_mode_") || value != &Value::Bool(true) {
            continue;
        }
        let mode = match key.as_str() {
            "pooling_mode_cls_token" => Pooling::Cls,
            "pooling_mode_mean_tokens" => Pooling::Mean,
            _ => return refuse(&path, format!("{key} is not supported (supported: cls_token, mean_tokens)")),
        };
        if pooling.replace(mode).is_some() {
            return refuse(&path, "several pooling modes at once are not supported".into());
        }
    }
    let Some(pooling) = pooling else {
        return Err(Error::data(&path, "no pooling_mode_ is true"));
    };
    if let Some(width) = tree["word_embedding_dimension"].as_u64()
        && width != config.hidden_size as u64
    {
        let what = format!("word_embedding_dimension {width} is not hidden_size {}", config.hidden_size);
        return Err(Error::data(&path, what));
    }
    let path = dir.join("sentence_bert_config.json");
    let mut max_tokens = config.max_position_embeddings;
    if path.exists() {
        let tree = read_json(&path)?;
        if tree["do_lower_case"] == true {
            return refuse(
                &path,
                "do_lower_case true is not supported (the tokenizer says what is lowercased)".into(),
            );
        }
        if let Some(length) = tree["max_seq_length"].as_u64() {
            max_tokens = usize::try_from(length).unwrap_or(usize::MAX);
        }
    }
    let settings = EncoderSettings::new(pooling, normalize, max_tokens, Towers::Tied);
    settings.check(config).map_err(|what| Error::data(&path, what))?;
    Ok(Some(settings))
}
