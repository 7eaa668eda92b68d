//! CodeGen as llama.cpp's `phi2` graph (`llama.cpp/src/models/phi2.cpp`), which computes the same: one layer norm feeding
//! attention and feed-forward side by side, partial rotary embedding, tanh-GELU, an output projection with a bias.
//!
//! What differs is layout. The fused projection is re-ordered from CodeGen's four blocks of queries, values, keys into
//! queries, keys, values; the rotated dimensions of each head go from interleaved pairs (GPT-J) to two halves (NeoX), which
//! permutes rows of queries and keys alike and so leaves their products as they are; biases that CodeGen lacks are zeros.

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::codegen::{Config, Part, names};
use inhouse_candle::config::ConfigFile;
use inhouse_core::Result;

use super::{Plan, Source, Tensors, number};
use inhouse_core::gguf::Value;

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
    let order = fused_order(config);
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

/// Rows of CodeGen's fused weight in phi2's order: queries, keys, values; heads in order; rotated dimensions in halves.
fn fused_order(config: &Config) -> Vec<usize> {
    let mut order = Vec::with_capacity(3 * config.n_embd);
    for part in [Part::Query, Part::Key, Part::Value] {
        for head in 0..config.n_head {
            let rows = config.head_rows(part, head);
            if part == Part::Value {
                order.extend(rows);
                continue;
            }
            let rotated = rows.start..rows.start + config.rotary_dim;
            order.extend(rotated.clone().step_by(2));
            order.extend(rotated.clone().skip(1).step_by(2));
            order.extend(rotated.end..rows.end);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_reordered_as_the_two_layouts_say() {
        let config = Config {
            vocab_size: 1,
            n_positions: 1,
            n_embd: 32,
            n_layer: 1,
            n_head: 8,
            n_inner: 1,
            rotary_dim: 2,
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: false,
        };
        // Four blocks of 24 rows; each holds queries, values, keys of two heads of width 4.
        let order = fused_order(&config);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..96).collect::<Vec<_>>());
        assert_eq!(order[..12], [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27]);
        assert_eq!(order[32..40], [16, 17, 18, 19, 20, 21, 22, 23], "keys follow the values in a block");
        assert_eq!(order[64..72], [8, 9, 10, 11, 12, 13, 14, 15], "values come second in a block");
        // All four dimensions rotated: even ones first. Values are never rotated.
        let order = fused_order(&Config { rotary_dim: 4, ..config });
        assert_eq!(order[..8], [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(order[64..68], [8, 9, 10, 11]);
    }
}
