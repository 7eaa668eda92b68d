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

use super::{Plan, Source, Tensor};
use inhouse_core::gguf::Value;

/// CodeGen's wavelengths, not in its `config.json`.
const ROPE_BASE: f32 = 10_000.0;

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    let number = |value: usize| Value::U32(value as u32);
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
    let mut tensors = Tensors { checkpoint, list: Vec::new() };
    tensors.all(&config)?;
    Ok(Plan { architecture: "phi2", vocab_size: config.vocab_size, hyperparameters, tensors: tensors.list })
}

struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    list: Vec<Tensor>,
}

impl Tensors<'_> {
    fn all(&mut self, config: &Config) -> Result<()> {
        let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
        let order = fused_order(config);
        self.whole("token_embd.weight", names::EMBEDDING, &[vocab, embd])?;
        self.norm("output_norm", names::FINAL_NORM, embd)?;
        let output = if config.tie_word_embeddings { names::EMBEDDING } else { "lm_head.weight" };
        self.whole("output.weight", output, &[vocab, embd])?;
        self.whole("output.bias", "lm_head.bias", &[vocab])?;
        for layer in 0..config.n_layer {
            let to = |tensor: &str| format!("blk.{layer}.{tensor}");
            let from = |tensor: &str| names::block(layer, tensor);
            self.norm(&to("attn_norm"), &from("ln_1"), embd)?;
            let fused = from("attn.qkv_proj.weight");
            self.checkpoint.require(&fused, &[3 * embd, embd])?;
            self.add(to("attn_qkv.weight"), &[3 * embd, embd], Source::Rows(fused, order.clone()));
            self.add(to("attn_qkv.bias"), &[3 * embd], Source::Zeros);
            self.whole(&to("attn_output.weight"), &from("attn.out_proj.weight"), &[embd, embd])?;
            self.add(to("attn_output.bias"), &[embd], Source::Zeros);
            self.whole(&to("ffn_up.weight"), &from("mlp.fc_in.weight"), &[inner, embd])?;
            self.whole(&to("ffn_up.bias"), &from("mlp.fc_in.bias"), &[inner])?;
            self.whole(&to("ffn_down.weight"), &from("mlp.fc_out.weight"), &[embd, inner])?;
            self.whole(&to("ffn_down.bias"), &from("mlp.fc_out.bias"), &[embd])?;
        }
        Ok(())
    }

    fn norm(&mut self, to: &str, from: &str, width: usize) -> Result<()> {
        self.whole(&format!("{to}.weight"), &format!("{from}.weight"), &[width])?;
        self.whole(&format!("{to}.bias"), &format!("{from}.bias"), &[width])
    }

    fn whole(&mut self, to: &str, from: &str, shape: &[usize]) -> Result<()> {
        self.checkpoint.require(from, shape)?;
        self.add(to.to_owned(), shape, Source::Whole(from.to_owned()));
        Ok(())
    }

    fn add(&mut self, name: String, shape: &[usize], source: Source) {
        self.list.push(Tensor { name, shape: shape.to_vec(), source });
    }
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
