//! What a GGUF file says of how its encoder makes one vector of a text.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gguf::{Header, Value};
use crate::{Error, ErrorKind, Fingerprint, Result};

/// How the states of a text's tokens become its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The mean of all states.
    Mean,
}

/// `llama_pooling_type`.
const MEAN: u32 = 1;
const CLS: u32 = 2;

/// What a GGUF file says of its encoder beside the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// How the states of a text's tokens become its vector.
    pub pooling: Pooling,
    /// Whether vectors are divided by their length.
    pub normalized: bool,
    /// Tokens of a text at most, those around it included.
    pub max_tokens: usize,
    /// What tells its vectors from another model's.
    pub fingerprint: String,
    /// The model's name, or the file's.
    pub name: String,
}

impl FileSettings {
    /// The settings of the file at `path` with this `header`, whose network reads texts of up to `context_length` tokens.
    ///
    /// # Errors
    /// It says nothing of pooling, or names another than mean and CLS ([`ErrorKind::Unsupported`]); the file cannot be read.
    pub fn read(path: &Path, header: &Header, context_length: usize) -> Result<Self> {
        let unsupported =
            |what: String| Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        let pooling = match header.get("bert.pooling_type") {
            Some(Value::U32(MEAN)) => Pooling::Mean,
            Some(Value::U32(CLS)) => Pooling::Cls,
            Some(other) => {
                return unsupported(format!(
                    "`bert.pooling_type` is {other:?} (supported: 1, mean, and 2, CLS)"
                ));
            }
            None => {
                return unsupported(
                    "`bert.pooling_type` is missing: nothing says how vectors are pooled".into(),
                );
            }
        };
        let normalized = match header.get("inhouse.encoder.normalize") {
            Some(Value::Bool(normalize)) => *normalize,
            // Files of other converters do not say; whoever uses them divides by the length.
            _ => true,
        };
        let max_tokens = match header.get("inhouse.encoder.max_tokens") {
            Some(Value::U32(most)) => (*most as usize).clamp(3, context_length.max(3)),
            _ => context_length,
        };
        let fingerprint = match header.text("inhouse.encoder.fingerprint") {
            Some(fingerprint) => fingerprint.to_owned(),
            None => {
                let mut fingerprint = Fingerprint::default();
                fingerprint.add_file(path)?;
                fingerprint.finish()
            }
        };
        let name = match header.text("general.name") {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        Ok(Self { pooling, normalized, max_tokens, fingerprint, name })
    }

    /// Writes the vector of a text into `out`, which is zero, from the `states` `[tokens, out.len()]` of its tokens.
    pub fn pool(&self, states: &[f32], out: &mut [f32]) {
        let n = states.len() / out.len();
        let rows = if self.pooling == Pooling::Cls { 1 } else { n };
        for row in states.chunks_exact(out.len()).take(rows) {
            out.iter_mut().zip(row).for_each(|(out, value)| *out += value / rows as f32);
        }
        if self.normalized {
            // The least length keeps a vector of zeros from becoming NaN.
            let length = (out.iter().map(|value| value * value).sum::<f32>() + 1e-24).sqrt();
            out.iter_mut().for_each(|value| *value /= length);
        }
    }
}
