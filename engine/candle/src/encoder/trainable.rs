//! An encoder whose weights are variables, and its folder.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor, Var};
use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::encode::{EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::{Error, Result, files};

use super::{EncoderSettings, Loaded, SETTINGS_FILE};
use crate::checkpoint::write_safetensors;
use crate::ops::Ops;
use crate::wordpiece::WordPiece;
use crate::{LoadOptions, backend_error};

/// A text encoder to train: the network of [`super::load_encoder`] in forms that have a backward pass.
///
/// As a [`TextEncoder`] it computes with its weights as they are at the moment.
pub struct TrainableEncoder {
    loaded: Loaded,
}

impl TrainableEncoder {
    /// Loads the weights of a folder as variables. `settings` take the place of the folder's own, where given: so two towers
    /// can begin with the weights of one.
    ///
    /// # Errors
    /// As [`super::load_encoder`]; settings that do not fit the network.
    pub fn load(dir: &Path, options: &LoadOptions, settings: Option<EncoderSettings>) -> Result<Self> {
        Ok(Self { loaded: Loaded::open(dir, options, settings, true)? })
    }

    /// How vectors are made.
    pub fn settings(&self) -> &EncoderSettings {
        &self.loaded.towers.settings
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &WordPiece {
        &self.loaded.tokenizer
    }

    /// The weights by their names in a BertModel's checkpoint; of two towers with `query.` or `document.` before them.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.loaded.variables
    }

    /// The vectors `[texts, dim] f32` of texts in tokens, as [`WordPiece::encode`] gives them. Gradients flow back to every
    /// variable of the role's tower.
    ///
    /// # Errors
    /// No text, one that is empty or too long, a token out of range, or a failing backend.
    pub fn encode_tokens(&self, role: Role, texts: &[&[TokenId]]) -> Result<Tensor> {
        self.loaded.towers.encode(role, texts, Ops::Differentiable)
    }

    /// The same vectors without gradients, in less time and memory: what gradient caching (Gao et al. 2021, arXiv 2101.06983)
    /// computes first, and what mines negatives.
    ///
    /// # Errors
    /// As [`TrainableEncoder::encode_tokens`].
    pub fn encode_tokens_detached(&self, role: Role, texts: &[&[TokenId]]) -> Result<Tensor> {
        Ok(self.loaded.towers.encode(role, texts, Ops::Fused)?.detach())
    }

    /// Writes a folder that [`TrainableEncoder::load`] and [`super::load_encoder`] read: weights in f32, configuration,
    /// tokenizer, settings. Each file is replaced as a whole, the weights last.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|cause| Error::io("create the folder", dir, cause))?;
        let write = |name: &str, text: &str| {
            files::write_atomic(&dir.join(name), |file| file.write_all(text.as_bytes()))
        };
        write(SETTINGS_FILE, &format!("{}\n", self.settings().to_json()?))?;
        write("config.json", &format!("{}\n", self.loaded.config.to_json()))?;
        write("tokenizer.json", &self.loaded.tokenizer.to_json())?;
        let mut tensors = BTreeMap::new();
        for (name, variable) in self.variables() {
            let values = variable
                .to_dtype(DType::F32)
                .and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>())
                .map_err(backend_error)?;
            tensors.insert(name.as_str(), (variable.dims().to_vec(), values));
        }
        write_safetensors(&dir.join("model.safetensors"), &tensors)
    }
}

impl TextEncoder for TrainableEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.loaded.info
    }

    fn encode(&self, role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors> {
        self.loaded.towers.encode_texts(role, texts, &self.loaded.tokenizer, cancel)
    }
}
