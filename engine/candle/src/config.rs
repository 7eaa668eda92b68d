//! `config.json` of a Hugging Face folder, read key by key with errors that name the key.

use std::path::{Path, PathBuf};

use inhouse_core::{Error, ErrorKind, Result, files};
use serde_json::Value;

pub use crate::ops::Activation;

/// The `model_type`s that [`crate::load`] runs.
pub const ARCHITECTURES: &[&str] = &["codegen", "gpt2", "gpt_neo", "llama", "mistral", "qwen2", "t5"];

/// A parsed `config.json`.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    values: serde_json::Map<String, Value>,
}

impl ConfigFile {
    /// Reads `config.json` of a folder, or what a GGUF file says in its place.
    ///
    /// # Errors
    /// The file is missing or holds no JSON object.
    pub fn read(dir: &Path) -> Result<Self> {
        if dir.is_file() {
            return Ok(Self { path: dir.to_path_buf(), values: crate::gguf::config(dir)? });
        }
        let path = dir.join("config.json");
        let text = files::read_text(&path)?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(values)) => Ok(Self { path, values }),
            Ok(_) => Err(Error::data(&path, "is no JSON object")),
            Err(cause) => Err(Error::data(&path, format!("bad JSON: {cause}"))),
        }
    }

    /// Its content.
    pub fn to_json(&self) -> String {
        let tree = Value::Object(self.values.clone());
        serde_json::to_string_pretty(&tree).unwrap_or_else(|_| tree.to_string())
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `model_type`: which architecture it is.
    ///
    /// # Errors
    /// The key is missing or no text.
    pub fn model_type(&self) -> Result<&str> {
        self.text("model_type")?.ok_or_else(|| Error::data(&self.path, "key \"model_type\" is missing"))
    }

    /// A value as it stands, where the key is there and not null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value(key)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// A text, where the key is there and not null.
    ///
    /// # Errors
    /// The value is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// A whole number in `range`, where the key is there and not null.
    ///
    /// # Errors
    /// The value is no whole number or out of range.
    pub fn optional_size(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        match size.filter(|size| range.contains(size)) {
            Some(size) => Ok(Some(size)),
            None => {
                let wanted = format!("a whole number from {} to {}", range.start(), range.end());
                Err(self.wrong(key, value, &wanted))
            }
        }
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// The key is missing, the value is no whole number or out of range.
    pub fn size(&self, key: &str, range: std::ops::RangeInclusive<usize>) -> Result<usize> {
        self.optional_size(key, range)?
            .ok_or_else(|| Error::data(&self.path, format!("key {key:?} is missing")))
    }

    /// Whole numbers: one, a list of them, or none where the key is missing.
    ///
    /// # Errors
    /// The value is something else.
    pub fn sizes(&self, key: &str) -> Result<Vec<usize>> {
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let size = |item: &Value| item.as_u64().and_then(|size| usize::try_from(size).ok());
        let sizes: Option<Vec<usize>> = items.iter().map(size).collect();
        sizes.ok_or_else(|| self.wrong(key, value, "a whole number or a list of them"))
    }

    /// A list of texts, where the key is there and not null.
    ///
    /// # Errors
    /// The value is no such list.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|items| items.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.wrong(key, value, "a list of texts"))
    }

    /// An object within the configuration, read with the same errors; `None` where the key is missing or null.
    ///
    /// # Errors
    /// The value is no object.
    pub fn section(&self, key: &str) -> Result<Option<Self>> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self { path: self.path.clone(), values: values.clone() })),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// An activation function by name, `default` where the key is missing.
    ///
    /// # Errors
    /// A name that is not among [`Activation::NAMES`].
    pub fn activation_or(&self, key: &str, default: Activation) -> Result<Activation> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        Activation::from_name(name).ok_or_else(|| self.unsupported(key, Activation::NAMES))
    }

    /// Refuses every value of `key` but `wanted` (and none at all), because nothing here computes with another.
    ///
    /// # Errors
    /// The value is another.
    pub fn only(&self, key: &str, wanted: &Value) -> Result<()> {
        match self.value(key) {
            Some(value) if value != wanted => Err(self.unsupported(key, &wanted.to_string())),
            _ => Ok(()),
        }
    }

    /// Refuses a checkpoint whose weights are quantised.
    pub(crate) fn refuse_quantization(&self) -> Result<()> {
        if self.section("quantization_config")?.is_none() {
            return Ok(());
        }
        let what = "quantization_config is not supported: use the checkpoint with unquantised weights";
        Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display())))
    }

    /// The error for a value that is well-formed and means something that is not built.
    pub(crate) fn unsupported(&self, key: &str, supported: &str) -> Error {
        let value = self.value(key).map(shown).unwrap_or_default();
        let what = format!("{key} {value} is not supported (supported: {supported})");
        Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display()))
    }

    /// A positive finite number, `default` where the key is missing.
    ///
    /// # Errors
    /// The value is no such number.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.value(key) else { return Ok(default) };
        value
            .as_f64()
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| self.wrong(key, value, "a positive number"))
    }

    /// True or false, `default` where the key is missing.
    ///
    /// # Errors
    /// The value is neither.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> Error {
        Error::data(&self.path, format!("key {key:?} is {}, expected {wanted}", shown(value)))
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 60 { format!("{}...", text.chars().take(57).collect::<String>()) } else { text }
}
