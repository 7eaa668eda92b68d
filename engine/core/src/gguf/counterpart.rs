//! What llama.cpp and Hugging Face call the same weights, and how llama.cpp orders their rows.

use super::{Header, Value};

/// The names of one architecture on both sides, and the sizes that the order of rows depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterparts {
    families: Vec<Family>,
    sizes: HeadSizes,
}

/// The sizes of attention that the order of rows follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadSizes {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Width of a head.
    pub head: usize,
    /// Dimensions of a head that rotate.
    pub rotary: usize,
}

/// Models that share names on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Llama, Mistral: queries and keys are re-ordered.
    Llama,
    /// Qwen, Gemma, ...: named alike, nothing is re-ordered.
    LlamaUnordered,
    Phi3,
    StarCoder2,
    Gpt2,
    CodeGen,
    Phi2,
}

/// How the rows of a weight in GGUF follow from those of Hugging Face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Same,
    /// Heads of queries, rotated pairs side by side.
    Queries,
    /// The same of keys.
    Keys,
    /// CodeGen's fused projection.
    Fused,
}

type Entry = (&'static str, &'static str, Order);

/// `{}` is the block's number.
const LLAMA: &[Entry] = &[
    ("model.embed_tokens", "token_embd", Order::Same),
    ("model.norm", "output_norm", Order::Same),
    ("lm_head", "output", Order::Same),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm", Order::Same),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", Order::Queries),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", Order::Keys),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", Order::Same),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", Order::Same),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Order::Same),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Order::Same),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up", Order::Same),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down", Order::Same),
];
const PHI3: &[Entry] = &[
    ("lm_head", "output", Order::Same),
    ("model.layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv", Order::Same),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", Order::Same),
    ("model.layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up", Order::Same),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down", Order::Same),
];
const STARCODER2: &[Entry] = &[
    ("lm_head", "output", Order::Same),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", Order::Same),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", Order::Same),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", Order::Same),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", Order::Same),
    ("model.layers.{}.mlp.c_fc", "blk.{}.ffn_up", Order::Same),
    ("model.layers.{}.mlp.c_proj", "blk.{}.ffn_down", Order::Same),
];
const GPT2: &[Entry] = &[
    ("transformer.h.{}.attn.c_attn", "blk.{}.attn_qkv", Order::Same),
    ("transformer.h.{}.attn.c_proj", "blk.{}.attn_output", Order::Same),
    ("transformer.h.{}.mlp.c_fc", "blk.{}.ffn_up", Order::Same),
    ("transformer.h.{}.mlp.c_proj", "blk.{}.ffn_down", Order::Same),
];
const CODEGEN: &[Entry] = &[
    ("lm_head", "output", Order::Same),
    ("transformer.h.{}.attn.qkv_proj", "blk.{}.attn_qkv", Order::Fused),
    ("transformer.h.{}.attn.out_proj", "blk.{}.attn_output", Order::Same),
    ("transformer.h.{}.mlp.fc_in", "blk.{}.ffn_up", Order::Same),
    ("transformer.h.{}.mlp.fc_out", "blk.{}.ffn_down", Order::Same),
];
const PHI2: &[Entry] = &[
    ("lm_head", "output", Order::Same),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", Order::Same),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", Order::Same),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", Order::Same),
    ("model.layers.{}.self_attn.dense", "blk.{}.attn_output", Order::Same),
    ("model.layers.{}.mlp.fc1", "blk.{}.ffn_up", Order::Same),
    ("model.layers.{}.mlp.fc2", "blk.{}.ffn_down", Order::Same),
];

/// CodeGen's fused projection is made of four blocks (`mp_num` in transformers' `modeling_codegen.py`).
const FUSED_BLOCKS: usize = 4;

impl Family {
    fn entries(self) -> &'static [Entry] {
        match self {
            Self::Llama | Self::LlamaUnordered => LLAMA,
            Self::Phi3 => PHI3,
            Self::StarCoder2 => STARCODER2,
            Self::Gpt2 => GPT2,
            Self::CodeGen => CODEGEN,
            Self::Phi2 => PHI2,
        }
    }
}

impl Counterparts {
    /// Those of a GGUF model; `None` where its architecture is not known here, or its sizes are missing.
    pub fn of_header(header: &Header) -> Option<Self> {
        let architecture = header.text("general.architecture")?;
        let families = match architecture {
            "llama" | "mistral3" => vec![Family::Llama],
            "granite" | "smollm3" => vec![Family::Llama],
            "qwen2" | "qwen3" | "gemma" | "gemma2" | "gemma3" => vec![Family::LlamaUnordered],
            "phi3" => vec![Family::Phi3],
            "starcoder2" => vec![Family::StarCoder2],
            "gpt2" => vec![Family::Gpt2],
            "phi2" => vec![Family::CodeGen, Family::Phi2],
            _ => return None,
        };
        let size = |key: &str| {
            let value = header.get(&format!("{architecture}.{key}")).and_then(Value::as_u64)?;
            usize::try_from(value).ok().filter(|value| (1..1 << 24).contains(value))
        };
        let heads = size("attention.head_count")?;
        let head = size("attention.key_length").or_else(|| Some(size("embedding_length")? / heads))?;
        let sizes = HeadSizes {
            heads,
            kv_heads: size("attention.head_count_kv").unwrap_or(heads),
            head,
            rotary: size("rope.dimension_count").unwrap_or(head).min(head),
        };
        Some(Self { families, sizes })
    }

    /// Those of a Hugging Face `model_type`; `None` where it is not known here.
    pub fn of_model_type(model_type: &str, sizes: HeadSizes) -> Option<Self> {
        let family = match model_type {
            "llama" | "mistral" => Family::Llama,
            "qwen2" | "qwen3" => Family::LlamaUnordered,
            "gpt2" => Family::Gpt2,
            "codegen" => Family::CodeGen,
            _ => return None,
        };
        Some(Self { families: vec![family], sizes })
    }

    /// What GGUF calls the Hugging Face module `name`, both without `.weight`, and which row of the module each of its rows is;
    /// `None`: as they are.
    pub fn in_gguf(&self, name: &str) -> Option<(String, Option<Vec<usize>>)> {
        self.families.iter().find_map(|family| {
            family.entries().iter().find_map(|&(hf, gguf, order)| {
                let block = matches(hf, name)?;
                Some((gguf.replace("{}", block), self.order(*family, order)))
            })
        })
    }

    /// What Hugging Face calls the tensor `name` of a GGUF file, both without `.weight`, and which row of the tensor each row of
    /// the module is; `None`: as they are.
    pub fn in_hugging_face(&self, name: &str) -> Option<(String, Option<Vec<usize>>)> {
        self.families.iter().find_map(|family| {
            family.entries().iter().find_map(|&(hf, gguf, order)| {
                let block = matches(gguf, name)?;
                let rows = self.order(*family, order).map(|rows| inverse(&rows));
                Some((hf.replace("{}", block), rows))
            })
        })
    }

    fn order(&self, family: Family, order: Order) -> Option<Vec<usize>> {
        let HeadSizes { heads, kv_heads, head, .. } = self.sizes;
        match (family, order) {
            (_, Order::Same) | (Family::LlamaUnordered, Order::Queries | Order::Keys) => None,
            (_, Order::Queries) => Some(interleaved(heads, head)),
            (_, Order::Keys) => Some(interleaved(kv_heads, head)),
            (_, Order::Fused) => Some(fused(self.sizes)),
        }
    }
}

/// The block's number where `name` fits `pattern`; empty where the pattern has none.
fn matches<'n>(pattern: &str, name: &'n str) -> Option<&'n str> {
    let Some((before, after)) = pattern.split_once("{}") else {
        return (pattern == name).then_some("");
    };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && (number == "0" || !number.starts_with('0'))).then_some(number)
}

/// Rows of `n` heads of width `head`, in each the two halves interleaved: 0, head/2, 1, head/2 + 1, ... llama.cpp's `llama` graph
/// rotates pairs of neighbouring dimensions where transformers rotates halves.
pub fn interleaved(n: usize, head: usize) -> Vec<usize> {
    let row = |at: usize| (at / head) * head + (at % head) / 2 + (at % 2) * (head / 2);
    (0..n * head).map(row).collect()
}

/// Rows of CodeGen's fused projection (blocks of queries, values, keys) in the order of the `phi2` graph: queries, keys, values,
/// heads in order, of queries and keys the even rotated dimensions before the odd ones.
pub fn fused(sizes: HeadSizes) -> Vec<usize> {
    let HeadSizes { heads, head, rotary, .. } = sizes;
    let in_block = (heads / FUSED_BLOCKS).max(1);
    let part_rows = in_block * head;
    let mut order = Vec::with_capacity(3 * heads * head);
    // Where queries, keys and values lie in a block.
    for part in [0, 2, 1] {
        for n in 0..heads {
            let start = (n / in_block) * 3 * part_rows + part * part_rows + (n % in_block) * head;
            let rotated = if part == 1 { start..start } else { start..start + rotary };
            order.extend(rotated.clone().step_by(2));
            order.extend(rotated.clone().skip(1).step_by(2));
            order.extend(rotated.end..start + head);
        }
    }
    order
}

fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (at, &row) in order.iter().enumerate() {
        if let Some(place) = inverse.get_mut(row) {
            *place = at;
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: HeadSizes = HeadSizes { heads: 8, kv_heads: 2, head: 4, rotary: 2 };

    #[test]
    fn names_and_rows_go_there_and_back() {
        for model_type in ["llama", "qwen2", "gpt2", "codegen"] {
            let known = Counterparts::of_model_type(model_type, SIZES).unwrap();
            for &(hf, _, _) in known.families[0].entries() {
                let name = hf.replace("{}", "12");
                let (gguf, there) = known.in_gguf(&name).unwrap();
                let (back, and_back) = known.in_hugging_face(&gguf).unwrap();
                assert_eq!(back, name);
                if let (Some(there), Some(back)) = (there, and_back) {
                    assert!(back.iter().enumerate().all(|(row, &at)| there[at] == row), "{name}");
                }
            }
        }
        let llama = Counterparts::of_model_type("llama", SIZES).unwrap();
        assert_eq!(llama.in_gguf("model.layers.03.mlp.up_proj"), None);
        assert_eq!(llama.in_gguf("model.layers.x.mlp.up_proj"), None);
        assert_eq!(llama.in_gguf("model.layers.3.mlp.fc_in"), None);
    }

    #[test]
    fn rows_are_ordered_as_llama_cpp_wants_them() {
        assert_eq!(interleaved(2, 6), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        // Four blocks of 24 rows; each holds queries, values, keys of two heads of width 4.
        let order = fused(SIZES);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..96).collect::<Vec<_>>());
        assert_eq!(order[..12], [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27]);
        assert_eq!(order[32..40], [16, 17, 18, 19, 20, 21, 22, 23], "keys follow the values in a block");
        assert_eq!(order[64..72], [8, 9, 10, 11, 12, 13, 14, 15], "values come second in a block");
        let order = fused(HeadSizes { rotary: 4, ..SIZES });
        assert_eq!(order[..8], [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(order[64..68], [8, 9, 10, 11]);
    }
}
