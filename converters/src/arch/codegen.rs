//! CodeGen as llama.cpp's `phi2` graph (`llama.cpp/src/models/phi2.cpp`), which computes the same: one layer norm feeding
//! attention and feed-forward side by side, partial rotary embedding, tanh-GELU, an output projection with a bias.
//!
//! What differs is layout. The fused projection is re-ordered from CodeGen's four blocks of queries, values, keys into
//! queries, keys, values; the rotated dimensions of each head go from interleaved pairs (GPT-J) to two halves (NeoX), which
//! permutes rows of queries and keys alike and so leaves their products as they are; biases that CodeGen lacks are zeros.

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::codegen::{Config, names};
use inhouse_candle::config::ConfigFile;
use inhouse_core::Result;

use super::{Plan, Source, Tensors, number};
use inhouse_core::gguf::{HeadSizes, Value, fused};

/// CodeGen's wavelengths, not in its `config.json`.
const ROPE_BASE: f32 = 10_000.0;

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    let hyperparameters = vec![
        ("context_length", number(config.n_positions)),
        ("embedding_length", number(config.n_embd)),
        ("block_count", number(config.n_layer)),
        ("feed_forward_length", number(config.n_inner)),
        ("attention.head_count", number(config.n_head)),
        ("attention.head_count_kv", number(config.n_head)),
        ("attention.layer_norm_epsilon", Value::F32(config.layer_norm_epsilon as f32)),
        ("rope.dimension_count", number(config.rotary_dim)),
        ("rope.freq_base", Value::F32(ROPE_BASE)),
        ("vocab_size", number(config.vocab_size)),
    ];
    let mut tensors = Tensors::new(checkpoint);
    all(&mut tensors, &config)?;
    Ok(tensors.plan("phi2", config.vocab_size, hyperparameters))
}

fn all(tensors: &mut Tensors<'_>, config: &Config) -> Result<()> {
    let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
    let head = config.n_embd / config.n_head;
    let (heads, kv_heads, rotary) = (config.n_head, config.n_head, config.rotary_dim);
    let order = fused(HeadSizes { heads, kv_heads, head, rotary });
    tensors.whole("token_embd.weight", names::EMBEDDING, &[vocab, embd])?;
    tensors.norm("output_norm", names::FINAL_NORM, embd)?;
    let output = if config.tie_word_embeddings { names::EMBEDDING } else { "lm_head.weight" };
    tensors.whole("output.weight", output, &[vocab, embd])?;
    tensors.whole("output.bias", "lm_head.bias", &[vocab])?;
    for layer in 0..config.n_layer {
        let to = |tensor: &str| format!("blk.{layer}.{tensor}");
        let from = |tensor: &str| names::block(layer, tensor);
        tensors.norm(&to("attn_norm"), &from("ln_1"), embd)?;
        let fused = from("attn.qkv_proj.weight");
        tensors.checkpoint.require(&fused, &[3 * embd, embd])?;
        tensors.add(to("attn_qkv.weight"), &[3 * embd, embd], Source::Rows(fused, order.clone()));
        tensors.add(to("attn_qkv.bias"), &[3 * embd], Source::Zeros);
        tensors.linear(&to("attn_output"), &from("attn.out_proj"), embd, embd, false)?;
        tensors.add(to("attn_output.bias"), &[embd], Source::Zeros);
        tensors.linear(&to("ffn_up"), &from("mlp.fc_in"), embd, inner, true)?;
        tensors.linear(&to("ffn_down"), &from("mlp.fc_out"), inner, embd, true)?;
    }
    Ok(())
}
