//! BERT text encoders as llama.cpp's `bert` graph (`llama.cpp/src/models/bert.cpp`).
//!
//! The graph has the tanh form of GELU, the model that by the error function: vectors differ by less than 1e-3 in cosine.

use inhouse_candle::EncoderSettings;
use inhouse_candle::bert::Config;
use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::{Activation, ConfigFile};
use inhouse_candle::{Pooling, Towers};
use inhouse_core::gguf::Value;
use inhouse_core::{Error, ErrorKind, Result};

use super::{Plan, Tensors, number, unsupported};

pub(super) fn plan(file: &ConfigFile, checkpoint: &Checkpoint) -> Result<Plan> {
    let config = Config::from_file(file)?;
    if !matches!(config.hidden_act, Activation::Gelu | Activation::GeluTanh) {
        return Err(unsupported(file, "llama.cpp's bert has gelu as its hidden_act, not another"));
    }
    if config.num_hidden_layers == 0 {
        return Err(unsupported(
            file,
            "an encoder without layers has no graph in llama.cpp; candle runs its folder",
        ));
    }
    let settings = EncoderSettings::read(checkpoint.dir(), &config)?.ok_or_else(|| {
        let what =
            "holds nothing that says how vectors are pooled (1_Pooling/config.json or inhouse_encoder.json)";
        Error::new(ErrorKind::NotFound, format!("{}: {what}", checkpoint.dir().display()))
    })?;
    if settings.towers == Towers::Independent {
        return Err(unsupported(
            file,
            "two encoders, one for queries and one for documents, have no place in one GGUF file",
        ));
    }
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let hyperparameters = vec![
        ("context_length", number(config.max_position_embeddings)),
        ("embedding_length", number(hidden)),
        ("block_count", number(config.num_hidden_layers)),
        ("feed_forward_length", number(inner)),
        ("attention.head_count", number(config.num_attention_heads)),
        ("attention.layer_norm_epsilon", Value::F32(config.layer_norm_eps as f32)),
        ("attention.causal", Value::Bool(false)),
        ("pooling_type", Value::U32(if settings.pooling == Pooling::Mean { 1 } else { 2 })),
        ("vocab_size", number(config.vocab_size)),
    ];
    let mut tensors = Tensors::new(checkpoint);
    let root = tensors.prefix("bert.", "embeddings.word_embeddings.weight");
    let old = checkpoint.get(&format!("{root}embeddings.LayerNorm.gamma")).is_some();
    let norm = |tensors: &mut Tensors<'_>, to: &str, from: &str| {
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        tensors.whole(&format!("{to}.weight"), &format!("{from}.{weight}"), &[hidden])?;
        tensors.whole(&format!("{to}.bias"), &format!("{from}.{bias}"), &[hidden])
    };
    let embeddings = format!("{root}embeddings");
    for (to, from, rows) in [
        ("token_embd", "word", config.vocab_size),
        ("position_embd", "position", config.max_position_embeddings),
        ("token_types", "token_type", config.type_vocab_size),
    ] {
        let from = format!("{embeddings}.{from}_embeddings.weight");
        tensors.whole(&format!("{to}.weight"), &from, &[rows, hidden])?;
    }
    norm(&mut tensors, "token_embd_norm", &format!("{embeddings}.LayerNorm"))?;
    for block in 0..config.num_hidden_layers {
        let to = |part: &str| format!("blk.{block}.{part}");
        let from = |part: &str| format!("{root}encoder.layer.{block}.{part}");
        for (to_part, from_part) in [("attn_q", "query"), ("attn_k", "key"), ("attn_v", "value")] {
            let from = from(&format!("attention.self.{from_part}"));
            tensors.linear(&to(to_part), &from, hidden, hidden, true)?;
        }
        tensors.linear(&to("attn_output"), &from("attention.output.dense"), hidden, hidden, true)?;
        norm(&mut tensors, &to("attn_output_norm"), &from("attention.output.LayerNorm"))?;
        tensors.linear(&to("ffn_up"), &from("intermediate.dense"), hidden, inner, true)?;
        tensors.linear(&to("ffn_down"), &from("output.dense"), inner, hidden, true)?;
        norm(&mut tensors, &to("layer_output_norm"), &from("output.LayerNorm"))?;
    }
    let mut plan = tensors.plan("bert", config.vocab_size, hyperparameters);
    plan.encoder = Some((config, settings));
    Ok(plan)
}
