//! The llama family: Llama and Mistral as llama.cpp's `llama` graph, Qwen2 as `qwen2` (`llama.cpp/src/models/*.cpp`).
//!
//! The `llama` graph rotates pairs of neighbouring dimensions where transformers rotates halves, so the rows of queries and
//! keys are re-ordered within each head; both alike, which leaves their products as they are. `qwen2` rotates halves.
//!
//! Neither graph has a window of attention: a model with one is given the window as its context, up to which both are equal.

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::{Activation, ConfigFile};
use inhouse_candle::llama::{Config, RopeScaling};
use inhouse_core::Result;
use inhouse_core::gguf::{Value, interleaved};

use super::{Plan, Source, Tensors, number, unsupported};

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    let graph = if file.model_type()? == "qwen2" { "qwen2" } else { "llama" };
    if config.hidden_act != Activation::Silu {
        return Err(unsupported(file, "llama.cpp's graph computes silu alone, hidden_act is another"));
    }
    let (hidden, head) = (config.hidden_size, config.head_dim);
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    if graph == "qwen2" && heads * head != hidden {
        return Err(unsupported(
            file,
            "llama.cpp's qwen2 has heads that divide hidden_size, head_dim is another",
        ));
    }
    if graph == "qwen2" && (config.output_bias || config.mlp_bias) {
        return Err(unsupported(
            file,
            "llama.cpp's qwen2 has no biases but those of queries, keys and values",
        ));
    }
    let window = config.windows.iter().flatten().min().copied();
    let context = window.unwrap_or(config.max_position_embeddings).min(config.max_position_embeddings);
    let mut hyperparameters = vec![
        ("context_length", number(context)),
        ("embedding_length", number(hidden)),
        ("block_count", number(config.windows.len())),
        ("feed_forward_length", number(config.intermediate_size)),
        ("attention.head_count", number(heads)),
        ("attention.head_count_kv", number(kv_heads)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("rope.dimension_count", number(head)),
        ("rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("vocab_size", number(config.vocab_size)),
    ];
    if heads * head != hidden {
        hyperparameters.push(("attention.key_length", number(head)));
        hyperparameters.push(("attention.value_length", number(head)));
    }
    let mut tensors = Tensors::new(checkpoint);
    match config.rope_scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            hyperparameters.push(("rope.scaling.type", Value::from("linear")));
            hyperparameters.push(("rope.scaling.factor", Value::F32(factor as f32)));
        }
        RopeScaling::Llama3 { .. } if graph == "llama" => {
            let factors = llama3_factors(&config);
            tensors.add("rope_freqs.weight".into(), &[factors.len()], Source::Values(factors));
        }
        _ => return Err(unsupported(file, "this rope scaling cannot be said in the model's GGUF")),
    }
    let order = if graph == "llama" { Some(interleaved as fn(usize, usize) -> Vec<usize>) } else { None };
    all(&mut tensors, &config, order)?;
    let mut plan = tensors.plan(graph, config.vocab_size, hyperparameters);
    if let Some(window) = window.filter(|&window| window < config.max_position_embeddings) {
        plan.notes.push(format!(
            "attention sees {window} tokens, which the graph cannot say: the context is cut from {} to that",
            config.max_position_embeddings
        ));
    }
    Ok(plan)
}

fn all(
    tensors: &mut Tensors<'_>,
    config: &Config,
    order: Option<fn(usize, usize) -> Vec<usize>>,
) -> Result<()> {
    let (vocab, hidden, inner) = (config.vocab_size, config.hidden_size, config.intermediate_size);
    let (heads, kv_heads, head) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    // A model saved without its head has no prefix.
    let root = tensors.prefix("model.", "embed_tokens.weight");
    tensors.whole("token_embd.weight", &format!("{root}embed_tokens.weight"), &[vocab, hidden])?;
    tensors.whole("output_norm.weight", &format!("{root}norm.weight"), &[hidden])?;
    if !config.tie_word_embeddings {
        tensors.whole("output.weight", "lm_head.weight", &[vocab, hidden])?;
    }
    for layer in 0..config.windows.len() {
        let to = |tensor: &str| format!("blk.{layer}.{tensor}");
        let from = |tensor: &str| format!("{root}layers.{layer}.{tensor}");
        tensors.whole(&to("attn_norm.weight"), &from("input_layernorm.weight"), &[hidden])?;
        for (part, name, n) in [("q", "q_proj", heads), ("k", "k_proj", kv_heads), ("v", "v_proj", kv_heads)]
        {
            let (to, from) = (to(&format!("attn_{part}")), from(&format!("self_attn.{name}")));
            let n_added = tensors.linear(&to, &from, hidden, n * head, config.qkv_bias)?;
            let Some(order) = order.filter(|_| part != "v") else { continue };
            for tensor in tensors.last(n_added) {
                if let Source::Whole(from) = &tensor.source {
                    tensor.source = Source::Rows(from.clone(), order(n, head));
                }
            }
        }
        let (to_output, from_output) = (to("attn_output"), from("self_attn.o_proj"));
        tensors.linear(&to_output, &from_output, heads * head, hidden, config.output_bias)?;
        tensors.whole(&to("ffn_norm.weight"), &from("post_attention_layernorm.weight"), &[hidden])?;
        tensors.linear(&to("ffn_gate"), &from("mlp.gate_proj"), hidden, inner, config.mlp_bias)?;
        tensors.linear(&to("ffn_up"), &from("mlp.up_proj"), hidden, inner, config.mlp_bias)?;
        tensors.linear(&to("ffn_down"), &from("mlp.down_proj"), inner, hidden, config.mlp_bias)?;
    }
    Ok(())
}

/// What each frequency is divided by in Llama 3's scaling (`_compute_llama3_parameters` in transformers'
/// `modeling_rope_utils.py`).
fn llama3_factors(config: &Config) -> Vec<f32> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } = config.rope_scaling
    else {
        return Vec::new();
    };
    let original = original as f64;
    let of = |pair: usize| {
        let frequency = config.rope_theta.powf(-(2.0 * pair as f64) / config.head_dim as f64);
        let wavelength = std::f64::consts::TAU / frequency;
        if wavelength > original / low_freq_factor {
            factor
        } else if wavelength < original / high_freq_factor {
            1.0
        } else {
            let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..config.head_dim / 2).map(|pair| of(pair) as f32).collect()
}
