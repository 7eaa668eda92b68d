//! The tensors of each architecture: which there must be, which there may be, and the shape of every one. They follow
//! `load_arch_tensors` of llama.cpp's `src/models/*.cpp`.

use std::collections::HashMap;

use inhouse_core::gguf::{Header, MAX_DIMS, TensorEntry};

use super::Fault;
use super::arch::Sizes;

/// Checks that `file` has the tensors of `arch` and no other.
pub(super) fn check(file: &Header, arch: &str, sizes: &Sizes) -> Result<(), Fault> {
    let mut rest =
        Tensors { tensors: file.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect() };
    match arch {
        "phi2" => phi2(&mut rest, sizes)?,
        "gpt2" => gpt2(&mut rest, sizes)?,
        "llama" | "mistral3" => llama(&mut rest, sizes)?,
        "qwen2" => qwen2(&mut rest, sizes)?,
        "qwen3" => qwen3(&mut rest, sizes)?,
        "qwen2moe" | "qwen3moe" => qwen_moe(&mut rest, sizes, arch == "qwen3moe")?,
        "gemma" | "gemma2" | "gemma3" => gemma(&mut rest, sizes, arch)?,
        "granite" => granite(&mut rest, sizes)?,
        "smollm3" => gated(&mut rest, sizes, plain_attention)?,
        "phi3" => phi3(&mut rest, sizes)?,
        "starcoder2" => starcoder2(&mut rest, sizes)?,
        "bert" => bert(&mut rest, sizes)?,
        "t5" => t5(&mut rest, sizes, &[("enc", sizes.n_blocks), ("dec", sizes.n_decoder_blocks)])?,
        _ => t5(&mut rest, sizes, &[("enc", sizes.n_blocks)])?,
    }
    match rest.tensors.keys().min() {
        Some(tensor) => Err(Fault::data(format!("tensor `{tensor}` does not belong to a `{arch}` model"))),
        None => Ok(()),
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

    /// The type of a tensor, where there is one.
    fn kind(&self, name: &str) -> Option<&'static str> {
        self.tensors.get(name).map(|tensor| tensor.kind.name)
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
    // Its first row is added as a vector is.
    if tensors.kind("token_types.weight").is_some_and(|kind| kind != "F32") {
        return Err(Fault::data("tensor `token_types.weight` is not F32"));
    }
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

fn t5(tensors: &mut Tensors<'_>, sizes: &Sizes, sides: &[(&str, u64)]) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    for &(side, n_blocks) in sides {
        tensors.take(&format!("{side}.output_norm.weight"), &[sizes.n_embd])?;
        let attentions: &[(&str, &str)] = match side {
            "dec" => &[("attn", "attn_o"), ("cross_attn", "cross_attn_o")],
            _ => &[("attn", "attn_o")],
        };
        for i in 0..n_blocks {
            let block = format!("{side}.blk.{i}");
            for &(attention, output) in attentions {
                let part = format!("{block}.{attention}");
                tensors.take(&format!("{part}_norm.weight"), &[sizes.n_embd])?;
                let bias = format!("{part}_rel_b.weight");
                let shape = [sizes.n_heads, sizes.n_relative_buckets];
                // Blocks without one share that of the first.
                match (attention, i) {
                    ("attn", 0) => tensors.take(&bias, &shape)?,
                    _ => tensors.maybe(&bias, &shape)?,
                }
                tensors.take(&format!("{part}_q.weight"), &[sizes.n_embd, sizes.q])?;
                tensors.take(&format!("{part}_k.weight"), &[sizes.n_embd, sizes.k])?;
                tensors.take(&format!("{part}_v.weight"), &[sizes.n_embd, sizes.v])?;
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

fn qwen2(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.maybe("output.bias", &[sizes.n_vocab])?;
    gated(tensors, sizes, plain_attention)
}

fn qwen3(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    gated(tensors, sizes, |tensors, block, sizes| {
        tensors.qkv(block, sizes)?;
        tensors.take(&format!("{block}.attn_q_norm.weight"), &[sizes.head])?;
        tensors.take(&format!("{block}.attn_k_norm.weight"), &[sizes.head])?;
        tensors.take(&format!("{block}.attn_output.weight"), &[sizes.q, sizes.n_embd])
    })
}

/// Queries, keys and values, and the output projection.
fn plain_attention(tensors: &mut Tensors<'_>, block: &str, sizes: &Sizes) -> Result<(), Fault> {
    tensors.qkv(block, sizes)?;
    tensors.take(&format!("{block}.attn_output.weight"), &[sizes.q, sizes.n_embd])
}

fn qwen_moe(tensors: &mut Tensors<'_>, sizes: &Sizes, third: bool) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.take("output_norm.weight", &[sizes.n_embd])?;
    if third {
        tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    } else {
        tensors.take("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    }
    let (n_embd, experts) = (sizes.n_embd, &sizes.experts);
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        let name = |part: &str| format!("{block}.{part}.weight");
        tensors.take(&name("attn_norm"), &[n_embd])?;
        plain_attention(tensors, &block, sizes)?;
        if third {
            tensors.take(&name("attn_q_norm"), &[sizes.head])?;
            tensors.take(&name("attn_k_norm"), &[sizes.head])?;
        }
        tensors.take(&name("ffn_norm"), &[n_embd])?;
        tensors.take(&name("ffn_gate_inp"), &[n_embd, experts.n])?;
        tensors.take(&name("ffn_gate_exps"), &[n_embd, experts.n_ff, experts.n])?;
        tensors.take(&name("ffn_up_exps"), &[n_embd, experts.n_ff, experts.n])?;
        tensors.take(&name("ffn_down_exps"), &[experts.n_ff, n_embd, experts.n])?;
        if !third {
            let shared = experts.n_ff_shared;
            tensors.take(&name("ffn_gate_inp_shexp"), &[n_embd])?;
            tensors.take(&name("ffn_gate_shexp"), &[n_embd, shared])?;
            tensors.take(&name("ffn_up_shexp"), &[n_embd, shared])?;
            tensors.take(&name("ffn_down_shexp"), &[shared, n_embd])?;
        }
    }
    Ok(())
}

fn gemma(tensors: &mut Tensors<'_>, sizes: &Sizes, arch: &str) -> Result<(), Fault> {
    // The embedding is the output projection of the first two.
    if arch != "gemma3" && tensors.has("output.weight") {
        return Err(Fault::data(format!("tensor `output.weight` does not belong to a `{arch}` model")));
    }
    gated(tensors, sizes, |tensors, block, sizes| {
        plain_attention(tensors, block, sizes)?;
        if arch == "gemma" {
            return Ok(());
        }
        if arch == "gemma3" {
            tensors.take(&format!("{block}.attn_q_norm.weight"), &[sizes.head])?;
            tensors.take(&format!("{block}.attn_k_norm.weight"), &[sizes.head])?;
        }
        tensors.take(&format!("{block}.post_attention_norm.weight"), &[sizes.n_embd])?;
        tensors.take(&format!("{block}.post_ffw_norm.weight"), &[sizes.n_embd])
    })
}

fn granite(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.maybe("rope_freqs.weight", &[sizes.n_rot / 2])?;
    gated(tensors, sizes, |tensors, block, sizes| {
        plain_attention(tensors, block, sizes)?;
        tensors.maybe(&format!("{block}.attn_output.bias"), &[sizes.n_embd])?;
        tensors.maybe(&format!("{block}.ffn_gate.bias"), &[sizes.n_ff])?;
        tensors.maybe(&format!("{block}.ffn_up.bias"), &[sizes.n_ff])?;
        tensors.maybe(&format!("{block}.ffn_down.bias"), &[sizes.n_embd])
    })
}

fn phi3(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.take("output_norm.weight", &[sizes.n_embd])?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    let factors = ["rope_factors_long.weight", "rope_factors_short.weight"];
    if factors.iter().any(|name| tensors.has(name)) {
        for name in factors {
            tensors.take(name, &[sizes.n_rot / 2])?;
        }
    }
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.take(&format!("{block}.attn_norm.weight"), &[sizes.n_embd])?;
        plain_attention(tensors, &block, sizes)?;
        tensors.take(&format!("{block}.ffn_norm.weight"), &[sizes.n_embd])?;
        tensors.take(&format!("{block}.ffn_up.weight"), &[sizes.n_embd, 2 * sizes.n_ff])?;
        tensors.take(&format!("{block}.ffn_down.weight"), &[sizes.n_ff, sizes.n_embd])?;
    }
    Ok(())
}

/// Everything but the attention of the models with root-mean-square norms and a gated feed-forward without biases.
fn gated(
    tensors: &mut Tensors<'_>,
    sizes: &Sizes,
    attention: impl Fn(&mut Tensors<'_>, &str, &Sizes) -> Result<(), Fault>,
) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.take("output_norm.weight", &[sizes.n_embd])?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.take(&format!("{block}.attn_norm.weight"), &[sizes.n_embd])?;
        attention(tensors, &block, sizes)?;
        tensors.take(&format!("{block}.ffn_norm.weight"), &[sizes.n_embd])?;
        tensors.take(&format!("{block}.ffn_gate.weight"), &[sizes.n_embd, sizes.n_ff])?;
        tensors.take(&format!("{block}.ffn_up.weight"), &[sizes.n_embd, sizes.n_ff])?;
        tensors.take(&format!("{block}.ffn_down.weight"), &[sizes.n_ff, sizes.n_embd])?;
    }
    Ok(())
}

fn starcoder2(tensors: &mut Tensors<'_>, sizes: &Sizes) -> Result<(), Fault> {
    tensors.take("token_embd.weight", &[sizes.n_embd, sizes.n_vocab])?;
    tensors.norm("output_norm", sizes.n_embd)?;
    tensors.maybe("output.weight", &[sizes.n_embd, sizes.n_vocab])?;
    for i in 0..sizes.n_blocks {
        let block = format!("blk.{i}");
        tensors.norm(&format!("{block}.attn_norm"), sizes.n_embd)?;
        tensors.qkv(&block, sizes)?;
        tensors.linear(&format!("{block}.attn_output"), sizes.n_embd, sizes.n_embd)?;
        tensors.norm(&format!("{block}.ffn_norm"), sizes.n_embd)?;
        tensors.linear(&format!("{block}.ffn_up"), sizes.n_embd, sizes.n_ff)?;
        tensors.linear(&format!("{block}.ffn_down"), sizes.n_ff, sizes.n_embd)?;
    }
    Ok(())
}
