//! Hyperparameters of the architectures this build knows: which keys there are, and what llama.cpp asks of their values.
//! They follow `load_hparams` in its `src/llama-model.cpp` and `load_arch_hparams` and the graphs in `src/models/*.cpp`.

use inhouse_core::gguf::{Header, Value};

use super::{Fault, tensors, text};

/// The architectures whose files are accepted.
pub(super) const KNOWN: &[&str] = &[
    "phi2",
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
    "qwen2moe",
    "qwen3moe",
    "mistral3",
    "starcoder2",
    "gemma",
    "gemma2",
    "gemma3",
    "granite",
    "phi3",
    "smollm3",
    "t5",
    "t5encoder",
    "bert",
];
/// `LLAMA_MAX_EXPERTS`.
const MAX_EXPERTS: u64 = 512;

/// `LLAMA_MAX_LAYERS`.
const MAX_BLOCKS: u64 = 512;
/// Above any model's; keeps every product of two sizes far from overflow.
const MAX_SIZE: u64 = 1 << 24;

/// Tokens of a text that an encoder reads whole; T5 was trained with 512.
const MAX_ENCODER_CONTEXT: u64 = 1 << 14;

/// What the rest of the program wants to know.
pub(super) struct Shape {
    pub(super) n_blocks: usize,
    pub(super) n_embd: usize,
    pub(super) context_length: usize,
    pub(super) generates: bool,
    /// Of an encoder-decoder: the token that the decoder begins with.
    pub(super) decoder_start: Option<u32>,
    /// Numbers that a token has in the KV cache of a block.
    pub(super) kv_width: usize,
}

/// Sizes that tensors' shapes are made of.
pub(super) struct Sizes {
    pub(super) n_blocks: u64,
    /// Of an encoder-decoder; the same as `n_blocks` elsewhere.
    pub(super) n_decoder_blocks: u64,
    pub(super) n_embd: u64,
    pub(super) n_ff: u64,
    pub(super) n_vocab: u64,
    pub(super) n_context: u64,
    /// Width of one head.
    pub(super) head: u64,
    /// Widths of all heads together: queries, keys, values.
    pub(super) q: u64,
    pub(super) k: u64,
    pub(super) v: u64,
    pub(super) n_heads: u64,
    pub(super) n_rot: u64,
    pub(super) n_token_types: u64,
    pub(super) n_relative_buckets: u64,
    /// Of a mixture of experts; 0 elsewhere.
    pub(super) experts: Experts,
}

/// Sizes of a mixture of experts.
#[derive(Default)]
pub(super) struct Experts {
    pub(super) n: u64,
    /// Width of one.
    pub(super) n_ff: u64,
    /// Width of the one that all tokens share.
    pub(super) n_ff_shared: u64,
}

/// Checks hyperparameters and tensors of the file's architecture against each other.
pub(super) fn check(file: &Header, vocab_size: usize) -> Result<Shape, Fault> {
    let arch = text(file, "general.architecture")?;
    if !KNOWN.contains(&arch) {
        return Err(Fault::unsupported(format!(
            "architecture `{arch}` is not supported, expected one of {} (CodeGen becomes phi2 in conversion)",
            KNOWN.join(", ")
        )));
    }
    let keys = Keys { file, arch };
    let sizes = keys.sizes(vocab_size as u64)?;
    tensors::check(file, arch, &sizes)?;
    Ok(Shape {
        n_blocks: sizes.n_blocks as usize,
        n_embd: sizes.n_embd as usize,
        context_length: sizes.n_context as usize,
        generates: !matches!(arch, "bert" | "t5encoder"),
        decoder_start: if arch == "t5" { Some(keys.decoder_start(vocab_size)?) } else { None },
        kv_width: (sizes.k + sizes.v) as usize,
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
        if self.arch == "t5" && n_context > MAX_ENCODER_CONTEXT {
            // llama.cpp makes room for attention over all of it.
            return wrong(format!(
                "`t5.context_length` is {n_context}, at most {MAX_ENCODER_CONTEXT} are possible"
            ));
        }
        if self.size("vocab_size", Some(n_vocab))? != n_vocab {
            return wrong(format!("`{}.vocab_size` is not the {n_vocab} tokens of the tokenizer", self.arch));
        }
        if n_heads % n_heads_kv != 0 {
            return wrong(format!("{n_heads} attention heads cannot share {n_heads_kv} key-value heads"));
        }
        let gemma = self.is(&["gemma", "gemma2", "gemma3"]);
        let free = gemma
            || self.is(&["llama", "mistral3", "qwen3", "qwen3moe", "granite", "smollm3", "t5", "t5encoder"]);
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
        if self.is(&["gpt2", "t5", "t5encoder"]) && n_heads_kv != n_heads {
            return wrong(format!(
                "{n_heads_kv} key-value heads for {n_heads} heads: {} has as many of both",
                self.arch
            ));
        }
        let n_rot = self.size("rope.dimension_count", Some(head))?;
        let whole = gemma
            || self.is(&[
                "llama",
                "mistral3",
                "qwen2",
                "qwen3",
                "qwen2moe",
                "qwen3moe",
                "starcoder2",
                "granite",
                "smollm3",
            ]);
        if (whole || self.is(&["phi2", "phi3"]))
            && (n_rot % 2 != 0 || n_rot > head || (whole && n_rot != head))
        {
            let expected = if whole { "the heads' even width" } else { "an even number up to" };
            let key = "rope.dimension_count";
            return wrong(format!("`{}.{key}` is {n_rot}, expected {expected} {head}", self.arch));
        }
        self.check_numbers()?;
        Ok(Sizes {
            n_blocks,
            n_decoder_blocks: self.decoder_blocks(n_blocks)?,
            head,
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
            n_relative_buckets: self.relative_buckets()?,
            experts: self.experts(n_ff)?,
        })
    }

    /// Each token goes to a few of the experts, at least one.
    fn experts(&self, n_ff: u64) -> Result<Experts, Fault> {
        if !self.is(&["qwen2moe", "qwen3moe"]) {
            return Ok(Experts::default());
        }
        let (n, used) = (self.size("expert_count", None)?, self.size("expert_used_count", None)?);
        if used > n || !(2..=MAX_EXPERTS).contains(&n) {
            let what =
                format!("{used} of {n} experts for a token, expected at most all of 2 to {MAX_EXPERTS}");
            return Err(Fault::data(what));
        }
        Ok(Experts {
            n,
            n_ff: self.size("expert_feed_forward_length", Some((n_ff / used).max(1)))?,
            n_ff_shared: self.size("expert_shared_feed_forward_length", Some(n_ff))?,
        })
    }

    fn is(&self, any: &[&str]) -> bool {
        any.contains(&self.arch)
    }

    fn decoder_blocks(&self, n_blocks: u64) -> Result<u64, Fault> {
        let n = self.size("decoder_block_count", Some(n_blocks))?;
        // llama.cpp sizes its cache by the encoder and looks a further block up in vain.
        if n <= n_blocks {
            return Ok(n);
        }
        Err(Fault::unsupported(format!(
            "{n} decoder blocks for {n_blocks} encoder blocks: at most as many can run"
        )))
    }

    /// Distances go to buckets by a logarithm between a quarter of them and 128, which must stay in range.
    fn relative_buckets(&self) -> Result<u64, Fault> {
        if !self.is(&["t5", "t5encoder"]) {
            return Ok(0);
        }
        let n = self.size("attention.relative_buckets_count", None)?;
        if n % 4 == 0 && (8..256).contains(&n) {
            return Ok(n);
        }
        let key = "attention.relative_buckets_count";
        Err(Fault::unsupported(format!(
            "`{}.{key}` is {n}, expected a multiple of 4 from 8 to 252",
            self.arch
        )))
    }

    /// As llama.cpp and transformers have it, it is 0 where the file does not say.
    fn decoder_start(&self, n_vocab: usize) -> Result<u32, Fault> {
        let key = format!("{}.decoder_start_token_id", self.arch);
        match self.file.get(&key) {
            None => Ok(0),
            Some(Value::U32(token)) if (*token as usize) < n_vocab => Ok(*token),
            Some(other) => {
                Err(Fault::data(format!("`{key}` is {other:?}, expected a token below {n_vocab} (u32)")))
            }
        }
    }

    fn has(&self, key: &str) -> bool {
        self.file.get(&format!("{}.{key}", self.arch)).is_some()
    }

    /// Numbers that are no sizes.
    fn check_numbers(&self) -> Result<(), Fault> {
        let rms = !self.is(&["phi2", "gpt2", "starcoder2", "bert"]);
        self.positive("attention.layer_norm_epsilon", !rms)?;
        self.positive("attention.layer_norm_rms_epsilon", rms)?;
        for key in [
            "rope.freq_base",
            "rope.scale_linear",
            "rope.scaling.factor",
            "rope.scaling.attn_factor",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
            "rope.scaling.yarn_log_multiplier",
            "attention.temperature_scale",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "rope.freq_base_swa",
            "residual_scale",
            "embedding_scale",
            "attention.scale",
        ] {
            self.positive(key, false)?;
        }
        self.positive("logit_scale", self.arch == "granite")?;
        // Written by converters and read by none of these graphs.
        self.size("attention.sliding_window", Some(1))?;
        for (key, fits) in [
            ("rope.scaling.finetuned", (|value| matches!(value, Value::Bool(_))) as fn(&Value) -> bool),
            ("tensor_data_layout", |value| matches!(value, Value::Text(_))),
        ] {
            let key = format!("{}.{key}", self.arch);
            if let Some(value) = self.file.get(&key).filter(|value| !fits(value)) {
                return Err(Fault::data(format!("`{key}` is of type {}", value.kind_name())));
            }
        }
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
            Some(Value::Bool(causal)) if *causal != self.is(&["bert", "t5encoder"]) => {}
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
            "rope.scaling.finetuned",
            "rope.scaling.yarn_beta_fast",
            "rope.scaling.yarn_beta_slow",
            "rope.scaling.yarn_log_multiplier",
            "attention.sliding_window",
            "tensor_data_layout",
        ];
        let own: &[&str] = match self.arch {
            "bert" => &["pooling_type"],
            "mistral3" => &["attention.temperature_scale"],
            "gemma2" | "gemma3" => {
                &["attn_logit_softcapping", "final_logit_softcapping", "rope.freq_base_swa"]
            }
            "granite" => &["logit_scale", "residual_scale", "embedding_scale", "attention.scale"],
            "qwen2moe" | "qwen3moe" => &[
                "expert_count",
                "expert_used_count",
                "expert_feed_forward_length",
                "expert_shared_feed_forward_length",
            ],
            "t5" => &["attention.relative_buckets_count", "decoder_start_token_id", "decoder_block_count"],
            "t5encoder" => &["attention.relative_buckets_count", "decoder_start_token_id"],
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
        Ok(())
    }
}
