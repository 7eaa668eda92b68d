//! T5 (CodeT5) as llama.cpp's `t5` graph (`llama.cpp/src/models/t5.cpp`).
//!
//! With a tied output projection transformers scales the decoder's last states by `d_model^-0.5`, which the graph does not:
//! the scale goes into the decoder's final norm.

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::{Activation, ConfigFile};
use inhouse_candle::t5::Config;
use inhouse_core::Result;
use inhouse_core::gguf::Value;

use super::{Plan, Source, Tensors, number, unsupported};

/// Distances from here on share a bucket in llama.cpp, whatever the model.
const MAX_DISTANCE: usize = 128;

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    let refuse = |what: String| Err(unsupported(file, &what));
    let buckets = config.relative_attention_num_buckets;
    if config.relative_attention_max_distance != MAX_DISTANCE || !buckets.is_multiple_of(4) || buckets < 8 {
        return refuse(format!(
            "llama.cpp's t5 has distances up to {MAX_DISTANCE} in a multiple of 4 buckets, the model {} in {buckets}",
            config.relative_attention_max_distance
        ));
    }
    if config.num_decoder_layers > config.num_layers {
        let (decoder, encoder) = (config.num_decoder_layers, config.num_layers);
        return refuse(format!(
            "llama.cpp's t5 runs at most as many decoder as encoder blocks, not {decoder} and {encoder}"
        ));
    }
    match (config.is_gated_act, config.dense_act_fn) {
        (false, Activation::Relu) | (true, Activation::GeluTanh) => {}
        _ => {
            return refuse(
                "llama.cpp's t5 has a relu or gated-gelu feed_forward_proj, not another".to_owned(),
            );
        }
    }
    let mut hyperparameters = vec![
        ("context_length", number(config.n_positions)),
        ("embedding_length", number(config.d_model)),
        ("block_count", number(config.num_layers)),
        ("feed_forward_length", number(config.d_ff)),
        ("attention.head_count", number(config.num_heads)),
        ("attention.key_length", number(config.d_kv)),
        ("attention.value_length", number(config.d_kv)),
        ("attention.layer_norm_epsilon", Value::F32(config.layer_norm_epsilon as f32)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.layer_norm_epsilon as f32)),
        ("attention.relative_buckets_count", number(buckets)),
        ("decoder_start_token_id", number(config.decoder_start_token_id)),
        ("vocab_size", number(config.vocab_size)),
    ];
    if config.num_decoder_layers != config.num_layers {
        hyperparameters.push(("decoder_block_count", number(config.num_decoder_layers)));
    }
    let mut tensors = Tensors::new(checkpoint);
    let embedding = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
    let embedding = embedding.into_iter().find(|name| checkpoint.get(name).is_some()).unwrap_or(embedding[0]);
    tensors.whole("token_embd.weight", embedding, &[config.vocab_size, config.d_model])?;
    stack(&mut tensors, &config, "enc", "encoder", config.num_layers)?;
    stack(&mut tensors, &config, "dec", "decoder", config.num_decoder_layers)?;
    if !config.tie_word_embeddings {
        tensors.whole("output.weight", "lm_head.weight", &[config.vocab_size, config.d_model])?;
    }
    Ok(tensors.plan("t5", config.vocab_size, hyperparameters))
}

fn stack(tensors: &mut Tensors<'_>, config: &Config, to: &str, from: &str, n_blocks: usize) -> Result<()> {
    let (model, inner) = (config.d_model, config.num_heads * config.d_kv);
    for block in 0..n_blocks {
        let to = |tensor: &str| format!("{to}.blk.{block}.{tensor}");
        let from = |layer: usize, tensor: &str| format!("{from}.block.{block}.layer.{layer}.{tensor}");
        let mut attentions = vec![("attn", "attn_o", "SelfAttention")];
        if to("").starts_with("dec") {
            attentions.push(("cross_attn", "cross_attn_o", "EncDecAttention"));
        }
        for (layer, (part, output, name)) in attentions.iter().enumerate() {
            tensors.whole(
                &to(&format!("{part}_norm.weight")),
                &from(layer, "layer_norm.weight"),
                &[model],
            )?;
            for projection in ["q", "k", "v"] {
                let from = from(layer, &format!("{name}.{projection}.weight"));
                tensors.whole(&to(&format!("{part}_{projection}.weight")), &from, &[inner, model])?;
            }
            let from_output = from(layer, &format!("{name}.o.weight"));
            tensors.whole(&to(&format!("{output}.weight")), &from_output, &[model, inner])?;
            if block == 0 && layer == 0 {
                let shape = [config.relative_attention_num_buckets, config.num_heads];
                let from = from(layer, &format!("{name}.relative_attention_bias.weight"));
                tensors.whole(&to("attn_rel_b.weight"), &from, &shape)?;
            }
        }
        let layer = attentions.len();
        tensors.whole(&to("ffn_norm.weight"), &from(layer, "layer_norm.weight"), &[model])?;
        let dense = |tensor: &str| from(layer, &format!("DenseReluDense.{tensor}.weight"));
        if config.is_gated_act {
            tensors.whole(&to("ffn_gate.weight"), &dense("wi_0"), &[config.d_ff, model])?;
            tensors.whole(&to("ffn_up.weight"), &dense("wi_1"), &[config.d_ff, model])?;
        } else {
            tensors.whole(&to("ffn_up.weight"), &dense("wi"), &[config.d_ff, model])?;
        }
        tensors.whole(&to("ffn_down.weight"), &dense("wo"), &[model, config.d_ff])?;
    }
    tensors.whole(
        &format!("{to}.output_norm.weight"),
        &format!("{from}.final_layer_norm.weight"),
        &[model],
    )?;
    if to == "dec" && config.tie_word_embeddings {
        for tensor in tensors.last(1) {
            let source = std::mem::replace(&mut tensor.source, Source::Zeros);
            // Of a vector the "rows" are its elements.
            tensor.source = source.scaled(0..model, (model as f32).sqrt().recip());
        }
    }
    Ok(())
}
