//! GGUF files read as the Hugging Face folders that they were made of: configuration, tokenizer, and weights with quantised ones
//! widened. [`crate::config::ConfigFile`], [`crate::checkpoint::Checkpoint`] and [`crate::vocabulary::Vocabulary`] take a file in place of a
//! folder, so whatever reads folders reads these files: candle's models, the trainers, the converter.
//!
//! Of the architectures `llama` and `qwen2`, with byte-level tokenizers.

mod rows;
mod tokenizer;

use std::path::{Path, PathBuf};

use inhouse_core::gguf::{self, Counterparts, Header, TensorType, Value};
use inhouse_core::safetensors::ElementType;
use inhouse_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value as Json, json};

pub(crate) use rows::Rows;
pub use rows::{dequantize, ggml_dtype};
pub use tokenizer::{TokenizerParts, read_tokenizer};

/// Architectures that are read, with the `model_type` of each.
const ARCHITECTURES: [(&str, &str); 2] = [("llama", "llama"), ("qwen2", "qwen2")];

/// Texts of tokens that llama.cpp lets end a text whatever the file says (`llama-vocab.cpp`), of those that models of these
/// architectures have.
const ENDS: [&str; 6] =
    ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>"];

/// A GGUF file whose header was read.
pub(crate) struct Gguf {
    path: PathBuf,
    header: Header,
    architecture: &'static str,
    model_type: &'static str,
}

/// A weight under its name in a Hugging Face folder.
pub(crate) struct NamedTensor {
    pub name: String,
    /// Outermost first.
    pub shape: Vec<usize>,
    /// Of the first stored row, from the beginning of the file.
    pub offset: u64,
    /// What its values are read as.
    pub dtype: ElementType,
    pub rows: Rows,
}

impl Gguf {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// It cannot be read, is no GGUF file, or of an architecture that is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let header = gguf::read(path)?;
        let found = header.text("general.architecture").unwrap_or_default();
        let known = ARCHITECTURES.iter().find(|(known, _)| *known == found);
        let Some(&(architecture, model_type)) = known else {
            let what = format!(
                "a GGUF file of architecture `{found}` is not read as a checkpoint (llama and qwen2 are): use the model's Hugging \
                 Face folder"
            );
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        };
        Ok(Self { path: path.to_path_buf(), header, architecture, model_type })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.get(&format!("{}.{key}", self.architecture))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || {
            let kind = value.kind_name();
            Error::data(
                &self.path,
                format!("`{}.{key}` is of type {kind}, expected a size", self.architecture),
            )
        };
        value.as_u64().map(Some).ok_or_else(wrong)
    }

    fn required(&self, key: &str) -> Result<u64> {
        let missing = || Error::data(&self.path, format!("`{}.{key}` is missing", self.architecture));
        self.size(key)?.ok_or_else(missing)
    }

    /// A floating-point number; of the kinds that files hold f32 alone.
    fn number(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            // The shortest text of an f32 is what its writer meant: 1e-5, not 9.99999974e-6.
            Some(Value::F32(value)) => value.to_string().parse().ok(),
            _ => None,
        }
    }

    fn has(&self, tensor: &str) -> bool {
        self.header.tensors.iter().any(|entry| entry.name == tensor)
    }

    /// What the `config.json` of its folder says.
    ///
    /// # Errors
    /// A key is missing or of the wrong type, or means something that no `config.json` says.
    pub fn config(&self) -> Result<Map<String, Json>> {
        let unsupported = |what: String| {
            Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display())))
        };
        if self.has("rope_freqs.weight") {
            return unsupported(
                "its rope factors (`rope_freqs.weight`) have no counterpart in config.json".into(),
            );
        }
        let scaling = match self.get("rope.scaling.type") {
            None => Json::Null,
            Some(Value::Text(kind)) if kind == "none" => Json::Null,
            Some(Value::Text(kind)) if kind == "linear" => {
                json!({"type": "linear", "factor": self.number("rope.scaling.factor").unwrap_or(1.0)})
            }
            Some(other) => return unsupported(format!("`rope.scaling.type` is {other:?}")),
        };
        let heads = self.required("attention.head_count")?;
        let width = self.required("embedding_length")?;
        if heads == 0 || width == 0 {
            return Err(Error::data(&self.path, format!("{heads} heads in a width of {width}")));
        }
        let tokens = self.header.get("tokenizer.ggml.tokens");
        let n_tokens = match tokens {
            Some(Value::Texts(tokens)) => tokens.len() as u64,
            _ => return Err(Error::data(&self.path, "`tokenizer.ggml.tokens` is missing")),
        };
        let token = |key: &str| {
            let value = self.header.get(&format!("tokenizer.ggml.{key}_token_id")).and_then(Value::as_u64);
            value.filter(|&token| token < n_tokens)
        };
        let mut ends: Vec<u64> = ["eos", "eot", "eom"].iter().filter_map(|key| token(key)).collect();
        if let Some(Value::Texts(tokens)) = tokens {
            let ending = |(id, text): (usize, &[u8])| {
                ENDS.iter().any(|end| end.as_bytes() == text).then_some(id as u64)
            };
            ends.extend(tokens.iter().enumerate().filter_map(ending));
        }
        let mut seen = std::collections::HashSet::new();
        ends.retain(|end| seen.insert(*end));
        let mut config = json!({
            "architectures": [if self.model_type == "qwen2" { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" }],
            "model_type": self.model_type,
            "vocab_size": n_tokens,
            "max_position_embeddings": self.required("context_length")?,
            "hidden_size": width,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_hidden_layers": self.required("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.size("attention.head_count_kv")?.unwrap_or(heads),
            "head_dim": self.size("attention.key_length")?.unwrap_or(width / heads),
            "hidden_act": "silu",
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon"),
            "rope_theta": self.number("rope.freq_base").unwrap_or(10_000.0),
            "rope_scaling": scaling,
            "tie_word_embeddings": !self.has("output.weight"),
            "bos_token_id": token("bos"),
            "eos_token_id": ends,
            "torch_dtype": "float32",
        });
        if self.model_type == "llama" {
            config["attention_bias"] = json!(self.has("blk.0.attn_q.bias"));
            config["mlp_bias"] = json!(self.has("blk.0.ffn_up.bias"));
        }
        match config {
            Json::Object(config) => Ok(config),
            _ => Err(Error::new(ErrorKind::Internal, "no configuration")),
        }
    }

    /// Its weights.
    ///
    /// # Errors
    /// A tensor that the architecture has not, or of a type that is not widened.
    pub fn tensors(&self) -> Result<Vec<NamedTensor>> {
        let counterparts = Counterparts::of_header(&self.header)
            .ok_or_else(|| Error::data(&self.path, "sizes of attention are missing"))?;
        let mut tensors = Vec::with_capacity(self.header.tensors.len());
        for entry in &self.header.tensors {
            let named = entry.name.rsplit_once('.').and_then(|(module, part)| {
                let (module, order) = counterparts.in_hugging_face(module)?;
                Some((format!("{module}.{part}"), order))
            });
            let Some((name, order)) = named else {
                let what = format!("tensor `{}` does not belong to a {} model", entry.name, self.model_type);
                return Err(Error::data(&self.path, what));
            };
            let shape: Vec<usize> = entry.dims().iter().rev().map(|&dim| dim as usize).collect();
            let order = order.filter(|order| Some(&order.len()) == shape.first());
            let rows = Rows::new(entry.kind, order).map_err(|what| {
                Error::new(
                    ErrorKind::Unsupported,
                    format!("{}: tensor `{}` {what}", self.path.display(), entry.name),
                )
            })?;
            let offset = self.header.data_start + entry.offset;
            tensors.push(NamedTensor { name, shape, offset, dtype: read_as(entry.kind), rows });
        }
        Ok(tensors)
    }
}

/// What values of a storage type are read as.
fn read_as(kind: &TensorType) -> ElementType {
    match kind.name {
        "F16" => ElementType::F16,
        "BF16" => ElementType::BF16,
        _ => ElementType::F32,
    }
}

/// The configuration of a GGUF file.
///
/// # Errors
/// As [`Gguf::open`] and [`Gguf::config`].
pub(crate) fn config(path: &Path) -> Result<Map<String, Json>> {
    Gguf::open(path)?.config()
}
