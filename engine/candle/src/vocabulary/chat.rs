//! The chat templates of a folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`.

use std::path::Path;

use inhouse_core::{Error, Result, files};
use serde_json::Value;

/// Jinja texts that turn messages into a prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatTemplates {
    /// The one for a conversation without tools.
    pub default: Option<String>,
    /// The others, by name.
    pub named: Vec<(String, String)>,
}

impl ChatTemplates {
    /// Reads the templates of a folder; there may be none.
    ///
    /// # Errors
    /// A file cannot be read, or is no JSON.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut templates = Self::default();
        let file = dir.join("chat_template.jinja");
        if file.exists() {
            templates.default = Some(files::read_text(&file)?);
            return Ok(templates);
        }
        let path = dir.join("tokenizer_config.json");
        if !path.exists() {
            return Ok(templates);
        }
        let settings: Value = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|cause| Error::data(&path, format!("bad JSON: {cause}")))?;
        let chat = &settings["chat_template"];
        templates.default = chat.as_str().map(str::to_owned);
        for named in chat.as_array().into_iter().flatten() {
            if let (Some(name), Some(text)) = (named["name"].as_str(), named["template"].as_str()) {
                match name {
                    "default" => templates.default = Some(text.to_owned()),
                    _ => templates.named.push((name.to_owned(), text.to_owned())),
                }
            }
        }
        Ok(templates)
    }
}
