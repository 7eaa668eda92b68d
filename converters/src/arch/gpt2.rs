//! GPT-2 (CodeParrot, CodeGPT) as llama.cpp's `gpt2` graph (`llama.cpp/src/models/gpt2.cpp`).
//!
//! Matrices are stored `[in, out]` and so are turned. llama.cpp always divides scores by the square root of the head's width:
//! what else a configuration scales them by goes into the queries.

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::{Activation, ConfigFile};
use inhouse_candle::gpt2::Config;
use inhouse_core::Result;
use inhouse_core::gguf::Value;

use super::{Plan, Source, Tensors, number, unsupported};

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    if config.activation_function != Activation::GeluTanh {
        return Err(unsupported(
            file,
            "llama.cpp's gpt2 computes gelu_new alone, activation_function is another",
        ));
    }
    let hyperparameters = vec![
        ("context_length", number(config.n_positions)),
        ("embedding_length", number(config.n_embd)),
        ("block_count", number(config.n_layer)),
        ("feed_forward_length", number(config.n_inner)),
        ("attention.head_count", number(config.n_head)),
        ("attention.layer_norm_epsilon", Value::F32(config.layer_norm_epsilon as f32)),
        ("vocab_size", number(config.vocab_size)),
    ];
    let mut tensors = Tensors::new(checkpoint);
    let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
    // A model saved without its head has no prefix.
    let root = tensors.prefix("transformer.", "wte.weight");
    tensors.whole("token_embd.weight", &format!("{root}wte.weight"), &[vocab, embd])?;
    tensors.whole("position_embd.weight", &format!("{root}wpe.weight"), &[config.n_positions, embd])?;
    tensors.norm("output_norm", &format!("{root}ln_f"), embd)?;
    if !config.tie_word_embeddings {
        tensors.whole("output.weight", "lm_head.weight", &[vocab, embd])?;
    }
    for layer in 0..config.n_layer {
        let to = |tensor: &str| format!("blk.{layer}.{tensor}");
        let from = |tensor: &str| format!("{root}h.{layer}.{tensor}");
        let scale = query_scale(&config, layer);
        tensors.norm(&to("attn_norm"), &from("ln_1"), embd)?;
        tensors.turned(&to("attn_qkv"), &from("attn.c_attn"), embd, 3 * embd)?;
        for tensor in tensors.last(2) {
            tensor.source = std::mem::replace(&mut tensor.source, Source::Zeros).scaled(0..embd, scale);
        }
        tensors.turned(&to("attn_output"), &from("attn.c_proj"), embd, embd)?;
        tensors.norm(&to("ffn_norm"), &from("ln_2"), embd)?;
        tensors.turned(&to("ffn_up"), &from("mlp.c_fc"), embd, inner)?;
        tensors.turned(&to("ffn_down"), &from("mlp.c_proj"), inner, embd)?;
    }
    Ok(tensors.plan("gpt2", vocab, hyperparameters))
}

/// What queries are multiplied by, so that the usual division gives the scores that the configuration asks for.
fn query_scale(config: &Config, layer: usize) -> f32 {
    let mut scale = 1.0;
    if !config.scale_attn_weights {
        scale *= (config.head_dim() as f32).sqrt();
    }
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (layer + 1) as f32;
    }
    scale
}
