//! A GGUF file of the llama family as a Hugging Face checkpoint: its metadata as a `config.json`, its tensors by their names there, their
//! values dequantised.
//!
//! llama.cpp's `llama` graph rotates neighbours where transformers rotates halves: rows of queries and keys are put back in order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use inhouse_core::gguf::{self, Header, TensorEntry, TensorType};
use inhouse_core::{Error, ErrorKind, Result, files};
use serde_json::{Map, Value, json};

use super::{Checkpoint, ElementType, TensorInfo};
use crate::backend_error;
use crate::config::ConfigFile;

/// candle's name of a storage type that it can read and write in blocks.
pub fn block_type(kind: &TensorType) -> Option<GgmlDType> {
    Some(match kind.name {
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        _ => return None,
    })
}

/// How a tensor lies in a GGUF file.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    kind: &'static TensorType,
    dtype: GgmlDType,
    /// Width of the heads within which rows are re-ordered.
    head: Option<usize>,
}

impl Packed {
    /// Elements `start..start + out.len()` in the order of transformers.
    pub fn read(
        &self,
        path: &Path,
        file: &File,
        info: &TensorInfo,
        start: usize,
        out: &mut [f32],
    ) -> Result<()> {
        if start.checked_add(out.len()).is_none_or(|end| end > info.len()) {
            let what = format!("elements {start}.. ({}) are outside a tensor of {}", out.len(), info.len());
            return Err(Error::new(ErrorKind::Internal, format!("{}: {what}", path.display())));
        }
        let Some(head) = self.head else { return self.run(path, file, info, start, out) };
        let columns = if info.shape.len() > 1 { info.shape[1..].iter().product() } else { 1 };
        let mut done = 0;
        while done < out.len() {
            let (row, column) = ((start + done) / columns, (start + done) % columns);
            let count = (columns - column).min(out.len() - done);
            let place = row % head;
            let half = head / 2;
            let stored = row - place + if place < half { 2 * place } else { 2 * (place - half) + 1 };
            self.run(path, file, info, stored * columns + column, &mut out[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    /// Elements as they lie in the file.
    fn run(&self, path: &Path, file: &File, info: &TensorInfo, start: usize, out: &mut [f32]) -> Result<()> {
        let block = self.kind.block_len;
        let first = start / block;
        let n_blocks = (start + out.len()).div_ceil(block) - first;
        let mut bytes = vec![0u8; n_blocks * self.kind.block_bytes];
        let offset = info.offset + (first * self.kind.block_bytes) as u64;
        file.read_exact_at(&mut bytes, offset).map_err(|cause| Error::io("read", path, cause))?;
        let values = || -> candle_core::Result<Vec<f32>> {
            let storage = QStorage::from_data(Cow::Owned(bytes), &Device::Cpu, self.dtype)?;
            QTensor::new(storage, n_blocks * block)?.dequantize(&Device::Cpu)?.to_vec1()
        };
        let values = values().map_err(backend_error)?;
        out.copy_from_slice(&values[start - first * block..][..out.len()]);
        Ok(())
    }
}

/// Opens a file of the architectures `llama` and `qwen2`.
///
/// # Errors
/// It is no sound GGUF file, of another architecture, or holds what a `config.json` of the family cannot say.
pub(super) fn open(path: &Path) -> Result<(ConfigFile, Checkpoint)> {
    let header = gguf::read(path)?;
    let reader = Reader { path, header: &header, graph: header.text("general.architecture").unwrap_or("") };
    if !["llama", "qwen2"].contains(&reader.graph) {
        return Err(reader.unsupported(&format!(
            "a GGUF file of architecture {:?} cannot be trained (llama and qwen2 can; of others give the Hugging Face folder)",
            reader.graph
        )));
    }
    let config = ConfigFile::of(path, reader.config()?);
    let tensors = reader.tensors(&config)?;
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let dir = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    Ok((config, Checkpoint { dir, files: vec![(path.to_path_buf(), file)], tensors }))
}

struct Reader<'a> {
    path: &'a Path,
    header: &'a Header,
    graph: &'a str,
}

impl Reader<'_> {
    fn unsupported(&self, what: &str) -> Error {
        Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display()))
    }

    fn has(&self, tensor: &str) -> bool {
        self.header.tensors.iter().any(|entry| entry.name == tensor)
    }

    fn key(&self, key: &str) -> Option<&gguf::Value> {
        self.header.get(&format!("{}.{key}", self.graph))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.key(key) else { return Ok(None) };
        let wrong = || {
            let what =
                format!("`{}.{key}` is {}, one whole number is supported", self.graph, value.kind_name());
            self.unsupported(&what)
        };
        value.as_u64().map(Some).ok_or_else(wrong)
    }

    fn required(&self, key: &str) -> Result<u64> {
        let missing = || Error::data(self.path, format!("`{}.{key}` is missing", self.graph));
        self.size(key)?.ok_or_else(missing)
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.key(key) {
            // A float is written with as many digits as tell it from its neighbours: 1e-5 stays 1e-5.
            Some(gguf::Value::F32(number)) => number.to_string().parse().ok(),
            Some(gguf::Value::F64(number)) => Some(*number),
            _ => None,
        }
    }

    fn config(&self) -> Result<Map<String, Value>> {
        let embedding = self.header.tensors.iter().find(|entry| entry.name == "token_embd.weight");
        let vocab = embedding.and_then(|entry| entry.dims().get(1).copied());
        let vocab = vocab.ok_or_else(|| Error::data(self.path, "tensor token_embd.weight is missing"))?;
        let (heads, hidden) =
            (self.required("attention.head_count")?, self.required("embedding_length")?);
        let head_dim = self.size("attention.key_length")?.unwrap_or(hidden / heads.max(1));
        let class = if self.graph == "qwen2" { "Qwen2ForCausalLM" } else { "LlamaForCausalLM" };
        let mut config = json!({
            "architectures": [class],
            "model_type": self.graph,
            "vocab_size": vocab,
            "max_position_embeddings": self.required("context_length")?,
            "hidden_size": hidden,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_hidden_layers": self.required("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.size("attention.head_count_kv")?.unwrap_or(heads),
            "head_dim": head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.number("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
            "rope_theta": self.number("rope.freq_base").unwrap_or(10_000.0),
            "attention_bias": self.graph == "llama" && self.has("blk.0.attn_q.bias"),
            "mlp_bias": self.has("blk.0.ffn_gate.bias"),
            "tie_word_embeddings": !self.has("output.weight"),
        });
        let turned = self.size("rope.dimension_count")?.unwrap_or(head_dim);
        if turned != head_dim || self.size("attention.value_length")?.unwrap_or(head_dim) != head_dim {
            return Err(self.unsupported(
                "heads whose keys and values differ in width, or that are turned in part, are not supported",
            ));
        }
        if self.size("expert_count")?.unwrap_or(0) > 0 {
            return Err(self.unsupported("mixtures of experts are not supported"));
        }
        match self.header.text(&format!("{}.rope.scaling.type", self.graph)) {
            None | Some("none") => {}
            Some("linear") => {
                let factor = self.number("rope.scaling.factor");
                config["rope_scaling"] = json!({"rope_type": "linear", "factor": factor});
            }
            Some(other) => return Err(self.unsupported(&format!("rope scaling {other:?} is not supported"))),
        }
        if let Some(end) = self.header.get("tokenizer.ggml.eos_token_id").and_then(gguf::Value::as_u64) {
            config["eos_token_id"] = json!(end);
        }
        match config {
            Value::Object(config) => Ok(config),
            _ => Ok(Map::new()),
        }
    }

    fn tensors(&self, config: &ConfigFile) -> Result<BTreeMap<String, TensorInfo>> {
        let head = config.size("head_dim", 2..=1 << 16)?;
        let mut tensors = BTreeMap::new();
        for entry in &self.header.tensors {
            let Some((name, turned)) = name_of(&entry.name) else {
                return Err(self.unsupported(&format!("tensor {} is not supported", entry.name)));
            };
            let info = self.info(entry, (turned && self.graph == "llama").then_some(head))?;
            tensors.insert(name, info);
        }
        Ok(tensors)
    }

    fn info(&self, entry: &TensorEntry, head: Option<usize>) -> Result<TensorInfo> {
        let shape: Vec<usize> = entry.dims().iter().rev().map(|&dim| dim as usize).collect();
        let (dtype, blocks) = match entry.kind.name {
            "F32" => (ElementType::F32, GgmlDType::F32),
            "F16" => (ElementType::F16, GgmlDType::F16),
            "BF16" => (ElementType::BF16, GgmlDType::BF16),
            name => match block_type(entry.kind) {
                Some(dtype) => (ElementType::F32, dtype),
                None => {
                    let what = format!("tensor {} is of type {name}, which is not supported", entry.name);
                    return Err(self.unsupported(&what));
                }
            },
        };
        if let Some(head) = head
            && (head % 2 != 0 || shape.first().is_none_or(|rows| rows % head != 0))
        {
            let what = format!("tensor {} of shape {shape:?} has no whole heads of {head}", entry.name);
            return Err(Error::data(self.path, what));
        }
        let plain = matches!(entry.kind.name, "F32" | "F16" | "BF16") && head.is_none();
        let packed = (!plain).then_some(Packed { kind: entry.kind, dtype: blocks, head });
        let dtype = if packed.is_some() { ElementType::F32 } else { dtype };
        let offset = self.header.data_start + entry.offset;
        Ok(TensorInfo { dtype, shape, offset, file: 0, contiguous: true, packed })
    }
}

/// A tensor's name in transformers, and whether its rows are turned.
fn name_of(name: &str) -> Option<(String, bool)> {
    match name {
        "token_embd.weight" => return Some(("model.embed_tokens.weight".into(), false)),
        "output_norm.weight" => return Some(("model.norm.weight".into(), false)),
        "output.weight" => return Some(("lm_head.weight".into(), false)),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let (module, kind) = part.rsplit_once('.')?;
    if !["weight", "bias"].contains(&kind) {
        return None;
    }
    let to = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some((format!("model.layers.{layer}.{to}.{kind}"), matches!(module, "attn_q" | "attn_k")))
}
