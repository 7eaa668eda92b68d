//! Records as vectors: what of a record an encoder reads, and the codes of many records.

use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::analysis::identifier_parts;
use super::dense::{Code, MAX_DIM};
use super::fields::parameter_names;
use super::manifest::EncoderEntry;
use crate::api::ApiKind;
use crate::decode::CancelToken;
use crate::encode::{Role, TextEncoder};
use crate::{ApiDoc, Error, ErrorKind, Progress, Result};

/// Texts given to the encoder at once.
const BATCH_TEXTS: usize = 512;
/// More of a description is not read.
const MAX_DESCRIPTION_BYTES: usize = 1000;

/// The text encoder of an index's dense half, and where it was loaded from.
#[derive(Clone)]
pub struct IndexEncoder {
    /// The encoder.
    pub encoder: Arc<dyn TextEncoder>,
    /// Where it was loaded from; the index names it, so that whoever opens it finds the encoder again.
    pub path: PathBuf,
}

impl std::fmt::Debug for IndexEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexEncoder").field("info", self.encoder.info()).field("path", &self.path).finish()
    }
}

impl IndexEncoder {
    /// What the manifest says of it.
    pub(super) fn entry(&self) -> Result<EncoderEntry> {
        let info = self.encoder.info();
        if !(1..=MAX_DIM).contains(&info.dim) {
            let what =
                format!("encoder {}: vectors of width {} are not within 1..={MAX_DIM}", info.name, info.dim);
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        Ok(EncoderEntry {
            name: info.name.clone(),
            fingerprint: info.fingerprint.clone(),
            dim: info.dim,
            path: self.path.clone(),
        })
    }

    /// The codes of `apis`, in their order. Equal texts (a method and its heirs) are read once and share their code.
    pub(super) fn codes(&self, apis: &[&ApiDoc], progress: &dyn Progress) -> Result<Vec<Arc<Code>>> {
        let dim = self.encoder.info().dim;
        let mut number: FxHashMap<String, usize> = FxHashMap::default();
        let mut texts: Vec<String> = Vec::new();
        let mut text_of = Vec::with_capacity(apis.len());
        for api in apis {
            // A module cannot be called, so it answers no task.
            if api.kind == Some(ApiKind::Module) {
                text_of.push(None);
                continue;
            }
            let text = document_text(api);
            let known = number.get(&text).copied();
            text_of.push(Some(known.unwrap_or(texts.len())));
            if known.is_none() {
                number.insert(text.clone(), texts.len());
                texts.push(text);
            }
        }
        progress.start("encode", Some(texts.len() as u64));
        let cancel = CancelToken::new();
        let mut codes = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH_TEXTS) {
            progress.check()?;
            let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
            let vectors = self.encoder.encode(Role::Document, &batch, &cancel)?;
            if vectors.dim != dim || vectors.len() != batch.len() {
                let what = format!("the encoder gave {} vectors for {} texts", vectors.len(), batch.len());
                return Err(Error::new(ErrorKind::Backend, what));
            }
            for vector in vectors.rows() {
                codes.push(Arc::new(Code::of(vector)?));
            }
            progress.advance(batch.len() as u64);
        }
        progress.finish();
        let none = Arc::new(Code::none(dim));
        let code = |text: Option<usize>| Arc::clone(text.map_or(&none, |text| &codes[text]));
        Ok(text_of.into_iter().map(code).collect())
    }
}

/// What an encoder reads of a record: its name in words, what it does, and what it takes. Of five forms tried on four pools
/// with an untrained encoder this one found most by vectors alone (recall@5 .58, the prompt's line .55, without the parameters
/// .53, with the classes around it .56).
pub fn document_text(api: &ApiDoc) -> String {
    let mut text = words(&api.name);
    let description = api.description.trim();
    if !description.is_empty() {
        text.push_str(": ");
        let mut end = description.len().min(MAX_DESCRIPTION_BYTES);
        while !description.is_char_boundary(end) {
            end -= 1;
        }
        text.push_str(&description[..end]);
    }
    let parameters: Vec<String> = parameter_names(&api.signature).into_iter().map(words).collect();
    if !parameters.is_empty() {
        text.push_str(&format!(" ({})", parameters.join(", ")));
    }
    text
}

/// `read csv file` of `readCSV_file`.
pub(super) fn words(identifier: &str) -> String {
    let parts = identifier_parts(identifier);
    if parts.is_empty() { identifier.to_owned() } else { parts.join(" ").to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_words() {
        let api = |name: &str, description: &str| ApiDoc {
            name: name.into(),
            description: description.into(),
            ..ApiDoc::default()
        };
        assert_eq!(document_text(&api("readCSV_file", " Reads it. ")), "read csv file: Reads it.");
        let pivot =
            ApiDoc { signature: "(self, newColumn, *args) -> Frame".into(), ..api("pivot", "Turns.") };
        assert_eq!(document_text(&pivot), "pivot: Turns. (new column)");
        assert_eq!(document_text(&api("__", "")), "__");
        let long = document_text(&api("f", &"é".repeat(700)));
        assert!(long.len() <= MAX_DESCRIPTION_BYTES + 3 && long.ends_with('é'));
    }
}
