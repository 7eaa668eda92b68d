//! Hyperparameters and tensors of the architectures this build knows: which keys there are, and the shape of every
//! tensor. They follow `load_arch_hparams` and `load_arch_tensors` of llama.cpp's `src/models/*.cpp`.

use std::collections::HashMap;

use inhouse_core::gguf::{Header, MAX_DIMS, TensorEntry, Value};

use super::{Fault, text};

/// `LLAMA_MAX_LAYERS`.
const MAX_BLOCKS: u64 = 512;
/// Above any model's; keeps every product of two sizes far from overflow.
const MAX_SIZE: u64 = 1 << 24;

/// What the rest of the program wants to know.
pub(super) struct Shape {
    pub(super) n_blocks: usize,
    pub(super) n_embd: usize,
    pub(super) context_length: usize,
    pub(super) generates: bool,
}

/// Sizes that tensors' shapes are made of.
struct Sizes {
    n_blocks: u64,
    n_embd: u64,
    n_ff: u64,
    n_vocab: u64,
    n_context: u64,
    /// Widths of all heads together: queries, keys, values.
    q: u64,
    k: u64,
    v: u64,
    n_heads: u64,
    n_rot: u64,
    n_token_types: u64,
    n_relative_buckets: u64,
}

/// Checks hyperparameters and tensors of the file's architecture against each other.
pub(super) fn check(file: &Header, vocab_size: usize) -> Result<Shape, Fault> {
    let name = text(file, "general.architecture")?;
    let keys = Keys { file, arch: name };
    let sizes = match name {
        "phi2" | "gpt2" | "llama" | "bert" | "t5" => keys.sizes(vocab_size as u64)?,
        other => {
            return Err(Fault::unsupported(format!(
                "architecture `{other}` is not supported, expected phi2 (CodeGen is converted to it), gpt2, llama, bert or t5"
            )));
        }
    };
    let mut rest =
        Tensors { tensors: file.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect() };
    match name {
        "phi2" => phi2(&mut rest, &sizes)?,
        "gpt2" => gpt2(&mut rest, &sizes)?,
        "llama" => llama(&mut rest, &sizes)?,
        "bert" => bert(&mut rest, &sizes)?,
        _ => t5(&mut rest, &sizes)?,
    }
    if let Some(tensor) = rest.tensors.keys().min() {
        return Err(Fault::data(format!("tensor `{tensor}` does not belong to a `{name}` model")));
    }
    Ok(Shape {
        n_blocks: sizes.n_blocks as usize,
        n_embd: sizes.n_embd as usize,
        context_length: sizes.n_context as usize,
        generates: matches!(name, "phi2" | "gpt2" | "llama"),
    })
}

struct Keys<'f> {
    file: &'f Header,
    arch: &'f str,
}

impl Keys<'_> {
    /// A size under the architecture's name.
    fn size(&self, key: &str, default: Option<u64>) -> Result<u64, Fault> {
        let key = format!("{}.{key}", self.arch);
        match (self.file.get(&key), default) {
            (Some(Value::U32(size)), _) if (1..=MAX_SIZE).contains(&u64::from(*size)) => Ok(u64::from(*size)),
            (Some(Value::U32(size)), _) => {
                Err(Fault::data(format!("`{key}` is {size}, expected 1 to {MAX_SIZE}")))
            }
            (Some(other), _) => {
                Err(Fault::data(format!("`{key}` is of type {}, expected u32", other.kind_name())))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err(Fault::data(format!("`{key}` is missing"))),
        }
    }

    fn positive(&self, key: &str, required: bool) -> Result<(), Fault> {
        let key = format!("{}.{key}", self.arch);
        match self.file.get(&key) {
            Some(Value::F32(value)) if value.is_finite() && *value > 0.0 => Ok(()),
            None if !required => Ok(()),
            None => Err(Fault::data(format!("`{key}` is missing"))),
            Some(other) => Err(Fault::data(format!("`{key}` is {other:?}, expected a positive f32"))),
        }
    }

    fn sizes(&self, n_vocab: u64) -> Result<Sizes, Fault> {
        self.check_known()?;
        let n_embd = self.size("embedding_length", None)?;
        let n_heads = self.size("attention.head_count", None)?;
        let n_heads_kv = self.size("attention.head_count_kv", Some(n_heads))?;
        let n_blocks = self.size("block_count", None)?;
        let n_context = self.size("context_length", None)?;
        let n_ff = self.size("feed_forward_length", None)?;
        let wrong = |what: String| Err(Fault::data(what));
        if n_blocks > MAX_BLOCKS {
            return wrong(format!(
                "`{}.block_count` is {n_blocks}, at most {MAX_BLOCKS} are possible",
                self.arch
            ));
        }
        if self.size("vocab_size", Some(n_vocab))? != n_vocab {
            return wrong(format!("`{}.vocab_size` is not the {n_vocab} tokens of the tokenizer", self.arch));
        }
        if n_heads % n_heads_kv != 0 {
            return wrong(format!("{n_heads} attention heads cannot share {n_heads_kv} key-value heads"));
        }
        // Only llama and t5 have heads whose width is free of the hidden state's.
        let free = matches!(self.arch, "llama" | "t5");
        if n_embd % n_heads != 0 && !(free && self.has("attention.key_length")) {
            return wrong(format!("{n_heads} attention heads do not divide a width of {n_embd}"));
        }
        let head = self.size("attention.key_length", Some(n_embd / n_heads))?;
        let head_v = self.size("attention.value_length", Some(n_embd / n_heads))?;
        if head != head_v || (!free && head * n_heads != n_embd) {
            return wrong(format!(
                "key heads of {head} and value heads of {head_v} do not fit {n_heads} in {n_embd}"
            ));
        }
        if self.arch == "gpt2" && n_heads_kv != n_heads {
            return wrong(format!(
                "{n_heads_kv} key-value heads for {n_heads} heads: gpt2 has as many of both"
            ));
        }
        let n_rot = self.size("rope.dimension_count", Some(head))?;
        if matches!(self.arch, "phi2" | "llama") && (n_rot % 2 != 0 || n_rot > head) {
            return wrong(format!(
                "`{}.rope.dimension_count` is {n_rot}, expected an even number up to {head}",
                self.arch
            ));
        }
        if self.arch == "llama" && n_rot != head {
            return wrong(format!(
                "`llama.rope.dimension_count` is {n_rot}, expected the heads' width {head}"
            ));
        }
        self.check_numbers()?;
        Ok(Sizes {
            n_blocks,
            n_embd,
            n_ff,
            n_vocab,
            n_context,
            q: head * n_heads,
            k: head * n_heads_kv,
            v: head_v * n_heads_kv,
            n_heads,
            n_rot,
            n_token_types: match self.file.get("tokenizer.ggml.token_type_count") {
                Some(Value::U32(n)) if self.arch == "bert" && (1..=64).contains(n) => u64::from(*n),
                _ if self.arch != "bert" => 0,
                _ => return wrong("`tokenizer.ggml.token_type_count` is missing or not 1 to 64".into()),
            },
            n_relative_buckets: if self.arch == "t5" {
                self.size("attention.relative_buckets_count", None)?
            } else {
                0
            },
        })
    }

    fn has(&self, key: &str) -> bool {
        self.file.get(&format!("{}.{key}", self.arch)).is_some()
    }

    /// Numbers that are no sizes.
    fn check_numbers(&self) -> Result<(), Fault> {
        let rms = matches!(self.arch, "llama" | "t5");
        self.positive("attention.layer_norm_epsilon", !rms)?;
        self.positive("attention.layer_norm_rms_epsilon", rms)?;
        self.positive("rope.freq_base", false)?;
        self.positive("rope.scale_linear", false)?;
        self.positive("rope.scaling.factor", false)?;
        self.positive("rope.scaling.attn_factor", false)?;
        self.size("rope.scaling.original_context_length", Some(1))?;
        let scaling = format!("{}.rope.scaling.type", self.arch);
        match self.file.get(&scaling) {
            None => {}
            Some(Value::Text(kind)) if matches!(kind.as_str(), "none" | "linear" | "yarn") => {}
            Some(other) => {
                return Err(Fault::unsupported(format!(
                    "`{scaling}` is {other:?}, expected none, linear or yarn"
                )));
            }
        }
        let causal = format!("{}.attention.causal", self.arch);
        match self.file.get(&causal) {
            None => {}
            Some(Value::Bool(causal)) if *causal != (self.arch == "bert") => {}
            Some(other) => {
                return Err(Fault::data(format!("`{causal}` is {other:?}: not as `{}` is", self.arch)));
            }
        }
        let pooling = format!("{}.pooling_type", self.arch);
        match self.file.get(&pooling) {
            None => Ok(()),
            Some(Value::U32(0..=3)) if self.arch == "bert" => Ok(()),
            Some(other) => Err(Fault::data(format!("`{pooling}` is {other:?}"))),
        }
    }

    /// Anything else under the architecture's name might switch on something that nobody has checked.
    fn check_known(&self) -> Result<(), Fault> {
        const KNOWN: &[&str] = &[
            "context_length",
            "embedding_length",
            "block_count",
            "feed_forward_length",
            "vocab_size",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "attention.layer_norm_epsilon",
            "attention.layer_norm_rms_epsilon",
            "attention.causal",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.type",
            "rope.scaling.factor",
            "rope.scaling.attn_factor",
            "rope.scaling.original_context_length",
        ];
        let own: &[&str] = match self.arch {
            "bert" => &["pooling_type"],
            "t5" => &["attention.relative_buckets_count", "decoder_start_token_id"],
            _ => &[],
        };
        for (key, value) in &self.file.metadata {
            let Some(short) = key.strip_prefix(self.arch).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            if !KNOWN.contains(&short) && !own.contains(&short) {
                return Err(Fault::unsupported(format!("`{key}` ({}) is not known", value.kind_name())));
            }
        }
        if self.arch == "t5" && self.has("decoder_start_token_id") {
            self.size("decoder_start_token_id", None).or_else(|fault| {
                let zero = self.file.get("t5.decoder_start_token_id") == Some(&Value::U32(0));
                if zero { Ok(0) } else { Err(fault) }
            })?;
        }
        Ok(())
    }
}

/// The tensors that no shape was asked of yet.
struct Tensors<'f> {
    tensors: HashMap<&'f str, &'f TensorEntry>,
}

impl Tensors<'_> {
    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes the tensor `name`, which must have `shape`. Vectors are F32: ggml's additions and norms need it.
    fn take(&mut self, name: &str, shape: &[u64]) -> Result<(), Fault> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(Fault::data(format!("tensor `{name}` is missing")));
        };
        // ggml knows no number of dimensions: [3, 1] is [3].
        let dim = |dims: &[u64], i| dims.get(i).copied().unwrap_or(1);
        if (0..MAX_DIMS).any(|i| dim(tensor.dims(), i) != dim(shape, i)) {
            let dims = tensor.dims();
            return Err(Fault::data(format!("tensor `{name}` has shape {dims:?}, expected {shape:?}")));
        }
        if shape.len() == 1 && tensor.kind.name != "F32" {
            return Err(Fault::data(format!("tensor `{name}` is {}, expected F32", tensor.kind.name)));
        }
        Ok(())
    }

    fn maybe(&mut self, name: &str, shape: &[u64]) -> Result<(), Fault> {
        if self.has(name) { self.take(name, shape) } else { Ok(()) }
    }

    /// `name.weight` and `name.bias`: a matrix from `from` to `to`.
    fn linear(&mut self, name: &str, from: u64, to: u64) -> Result<(), Fault> {
        self.take(&format!("{name}.weight"), &[from, to])?;
        self.take(&format!("{name}.bias"), &[to])
    }

    /// The same with the bias left free.
    fn linear_maybe_bias(&mut self, name: &str, from: u64, to: u64) -> Result<(), Fault> {
        self.take(&format!("{name}.weight"), &[from, to])?;
        self.maybe(&format!("{name}.bias"), &[to])
    }

    /// `name.weight` and `name.bias`: a LayerNorm.
    fn norm(&mut self, name: &str, width: u64) -> Result<(), Fault> {
        self.take(&format!("{name}.weight"), &[width])?;
        self.take(&format!("{name}.bias"), &[width])
    }

    /// Queries, keys and values, fused or separate (`create_tensor_qkv`).
    fn qkv(&mut self, block: &str, sizes: &Sizes) -> Result<(), Fault> {
        if self.has(&format!("{block}.attn_qkv.weight")) {
            return self.linear_maybe_bias(
                &format!("{block}.attn_qkv"),
                sizes.n_embd,
                sizes.q + sizes.k + sizes.v,
            );
        }
        self.linear_maybe_bias(&format!("{block}.attn_q"), sizes.n_embd, sizes.q)?;
        self.linear_maybe_bias(&format!("{block}.attn_k"), sizes.n_embd, sizes.k)?;
        self.linear_maybe_bias(&format!("{block}.attn_v"), sizes.n_embd, sizes.v)
    }
}

fn phi2(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.norm("output_norm", sizes.n_embd)?;
    tensors.linear("output", sizes.n_embd, sizes.n_vocab)?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.norm(&format!("{block}.attn_norm"), sizes.n_embd)?;
        tensors.qkv(&block, sizes)?;
        tensors.linear(&format!("{block}.attn_output"), sizes.n_embd, sizes.n_embd)?;
        tensors.linear(&format!("{block}.ffn_up"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear(&format!("{block}.ffn_down"), sizes.n_ff, sizes.n_embd)?;
    }
    Ok(())
}

fn gpt2(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.take("position_embd.weight", &[sizes.n_embd, sizes.n_context])?;
    tensors.norm("output_norm", sizes.n_embd)?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.norm(&format!("{block}.attn_norm"), sizes.n_embd)?;
        tensors.linear(&format!("{block}.attn_qkv"), sizes.n_embd, sizes.q + sizes.k + sizes.v)?;
        tensors.linear(&format!("{block}.attn_output"), sizes.n_embd, sizes.n_embd)?;
        tensors.norm(&format!("{block}.ffn_norm"), sizes.n_embd)?;
        tensors.linear(&format!("{block}.ffn_up"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear(&format!("{block}.ffn_down"), sizes.n_ff, sizes.n_embd)?;
    }
    Ok(())
}

fn llama(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.take("output_norm.weight", &[sizes.n_embd])?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.maybe("rope_freqs.weight", &[sizes.n_rot / 2])?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.take(&format!("{block}.attn_norm.weight"), &[sizes.n_embd])?;
        tensors.qkv(&block, sizes)?;
        tensors.linear_maybe_bias(&format!("{block}.attn_output"), sizes.q, sizes.n_embd)?;
        tensors.take(&format!("{block}.ffn_norm.weight"), &[sizes.n_embd])?;
        tensors.linear_maybe_bias(&format!("{block}.ffn_gate"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear_maybe_bias(&format!("{block}.ffn_up"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear_maybe_bias(&format!("{block}.ffn_down"), sizes.n_ff, sizes.n_embd)?;
    }
    Ok(())
}

fn bert(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.maybe("token_types.weight", &[sizes.n_embd, sizes.n_token_types])?;
    tensors.take("position_embd.weight", &[sizes.n_embd, sizes.n_context])?;
    tensors.norm("token_embd_norm", sizes.n_embd)?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.qkv(&block, sizes)?;
        tensors.linear_maybe_bias(&format!("{block}.attn_output"), sizes.n_embd, sizes.n_embd)?;
        tensors.norm(&format!("{block}.attn_output_norm"), sizes.n_embd)?;
        tensors.linear_maybe_bias(&format!("{block}.ffn_up"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear_maybe_bias(&format!("{block}.ffn_down"), sizes.n_ff, sizes.n_embd)?;
        tensors.norm(&format!("{block}.layer_output_norm"), sizes.n_embd)?;
    }
    Ok(())
}

fn t5(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    for (side, attentions) in [("enc", &["attn"][..]), ("dec", &["attn", "cross_attn"])] {
        tensors.take(&format!("{side}.output_norm.weight"), &[sizes.n_embd])?;
        for i in 0..sizes.n_blocks {
            let block = format!("{side}.blk.{i}");
            for attention in attentions {
                let part = format!("{block}.{attention}");
                tensors.take(&format!("{part}_norm.weight"), &[sizes.n_embd])?;
                tensors.maybe(&format!("{part}_rel_b.weight"), &[sizes.n_heads, sizes.n_relative_buckets])?;
                tensors.take(&format!("{part}_q.weight"), &[sizes.n_embd, sizes.q])?;
                tensors.take(&format!("{part}_k.weight"), &[sizes.n_embd, sizes.k])?;
                tensors.take(&format!("{part}_v.weight"), &[sizes.n_embd, sizes.v])?;
                let output = if *attention == "attn" { "attn_o" } else { "cross_attn_o" };
                tensors.take(&format!("{block}.{output}.weight"), &[sizes.q, sizes.n_embd])?;
            }
            tensors.take(&format!("{block}.ffn_norm.weight"), &[sizes.n_embd])?;
            tensors.maybe(&format!("{block}.ffn_gate.weight"), &[sizes.n_embd, sizes.n_ff])?;
            tensors.take(&format!("{block}.ffn_up.weight"), &[sizes.n_embd, sizes.n_ff])?;
            tensors.take(&format!("{block}.ffn_down.weight"), &[sizes.n_ff, sizes.n_embd])?;
        }
    }
    Ok(())
}
