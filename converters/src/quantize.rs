//! How tensors are stored: the file types on offer, which tensor gets which type in them, and the encoding of rows.

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use inhouse_candle::gguf::ggml_dtype;
use inhouse_core::gguf::{TENSOR_TYPES, TensorType};

/// A file type: how the matrices of a model are stored. Those ending in `_S` and `_M` are llama.cpp's mixes, in which the
/// matrices that matter most get more bits (`llama-quant.cpp`, without an importance matrix).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // the names are the format's
pub enum Quantization {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 8.5 bits per weight, the safe choice.
    Q8_0,
    /// 6.6 bits.
    Q6_K,
    /// 5.5 bits, and 6.6 for part of the attention and feed-forward.
    Q5_K_M,
    /// 5.5 bits.
    Q5_K_S,
    /// 6 bits.
    Q5_1,
    /// 5.5 bits.
    Q5_0,
    /// 4.5 bits, and 6.6 for part of the attention and feed-forward.
    Q4_K_M,
    /// 4.5 bits, and 5.5 for the first blocks.
    Q4_K_S,
    /// 5 bits.
    Q4_1,
    /// 4.5 bits.
    Q4_0,
    /// 3.4 bits, and 4.5 to 5.5 for part of the attention and feed-forward.
    Q3_K_M,
    /// 3.4 bits.
    Q3_K_S,
    /// 2.6 bits, and 3.4 for part of the attention and feed-forward.
    Q2_K,
}

use Quantization::{
    BF16, F16, F32, Q2_K, Q3_K_M, Q3_K_S, Q4_0, Q4_1, Q4_K_M, Q4_K_S, Q5_0, Q5_1, Q5_K_M, Q5_K_S, Q6_K, Q8_0,
};

/// Other names, as llama.cpp's quantiser has them.
const ALIASES: [(&str, Quantization); 3] = [("Q5_K", Q5_K_M), ("Q4_K", Q4_K_M), ("Q3_K", Q3_K_M)];

/// What the choice of a tensor's type depends on beside the tensor.
#[derive(Debug)]
pub struct Model {
    /// Whether the output projection is a tensor of its own; else the embedding stands for it.
    has_output: bool,
    /// Blocks of each stack: of the whole model, or of encoder and decoder.
    n_blocks: Vec<(String, usize)>,
}

impl Model {
    /// Takes it from the names of the file's tensors.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut model = Self { has_output: false, n_blocks: Vec::new() };
        for name in names {
            model.has_output |= name == "output.weight";
            let Some((stack, block)) = block_of(name) else { continue };
            match model.n_blocks.iter_mut().find(|(known, _)| known == stack) {
                Some((_, n)) => *n = (*n).max(block + 1),
                None => model.n_blocks.push((stack.to_owned(), block + 1)),
            }
        }
        model
    }

    /// The block of a tensor, and how many there are in its stack.
    fn place(&self, name: &str) -> (usize, usize) {
        let Some((stack, block)) = block_of(name) else { return (0, 1) };
        let n = self.n_blocks.iter().find(|(known, _)| known == stack);
        (block, n.map_or(block + 1, |(_, n)| *n))
    }
}

/// `dec.blk` and 3 of `dec.blk.3.attn_q.weight`.
fn block_of(name: &str) -> Option<(&str, usize)> {
    let at = name.find("blk.")? + 3;
    let number = name[at + 1..].split('.').next()?;
    Some((&name[..at], number.parse().ok()?))
}

/// Blocks at both ends and every third between them.
fn more_bits(block: usize, n: usize) -> bool {
    block < n / 8 || block >= 7 * n / 8 || (block - n / 8) % 3 == 2
}

impl Quantization {
    /// All of them, best first.
    pub const ALL: [Self; 16] = [
        F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, Q3_K_M, Q3_K_S,
        Q2_K,
    ];

    /// Its name, as typed and as llama.cpp's users know it.
    pub fn name(self) -> &'static str {
        match self {
            F32 => "F32",
            F16 => "F16",
            BF16 => "BF16",
            Q8_0 => "Q8_0",
            Q6_K => "Q6_K",
            Q5_K_M => "Q5_K_M",
            Q5_K_S => "Q5_K_S",
            Q5_1 => "Q5_1",
            Q5_0 => "Q5_0",
            Q4_K_M => "Q4_K_M",
            Q4_K_S => "Q4_K_S",
            Q4_1 => "Q4_1",
            Q4_0 => "Q4_0",
            Q3_K_M => "Q3_K_M",
            Q3_K_S => "Q3_K_S",
            Q2_K => "Q2_K",
        }
    }

    /// `general.file_type` of such a file (`llama_ftype` in `llama.h`).
    pub fn file_type(self) -> u32 {
        match self {
            F32 => 0,
            F16 => 1,
            Q4_0 => 2,
            Q4_1 => 3,
            Q8_0 => 7,
            Q5_0 => 8,
            Q5_1 => 9,
            Q2_K => 10,
            Q3_K_S => 11,
            Q3_K_M => 12,
            Q4_K_S => 14,
            Q4_K_M => 15,
            Q5_K_S => 16,
            Q5_K_M => 17,
            Q6_K => 18,
            BF16 => 32,
        }
    }

    /// The type that most matrices get.
    fn base(self) -> &'static str {
        match self {
            Q5_K_M | Q5_K_S => "Q5_K",
            Q4_K_M | Q4_K_S => "Q4_K",
            Q3_K_M | Q3_K_S => "Q3_K",
            other => other.name(),
        }
    }

    /// The type that a tensor should get in a file of this type, and the one that it gets: where rows are no whole number of
    /// blocks, the nearest type in which they are.
    pub fn for_tensor(
        self,
        name: &str,
        shape: &[usize],
        model: &Model,
    ) -> (&'static TensorType, &'static TensorType) {
        fitting(named(self.wanted(name, shape, model)), shape)
    }

    /// As [`Quantization::for_tensor`], for a matrix whose type was chosen by itself.
    pub fn for_matrix(self, shape: &[usize]) -> (&'static TensorType, &'static TensorType) {
        fitting(named(self.base()), shape)
    }

    /// Vectors stay F32 (llama.cpp adds and multiplies them so), and what is looked up by position, distance or type.
    fn wanted(self, name: &str, shape: &[usize], model: &Model) -> &'static str {
        let by_place = ["position_embd.weight", "token_types.weight"].contains(&name);
        if shape.len() < 2 || name.contains("attn_rel_b.") || by_place {
            return "F32";
        }
        if matches!(self, F32 | F16 | BF16 | Q8_0) {
            return self.base();
        }
        let is_output = name == "output.weight" || (name == "token_embd.weight" && !model.has_output);
        if is_output {
            // Falls back to Q8_0.
            return "Q6_K";
        }
        let (block, n) = model.place(name);
        let part = name.trim_end_matches(".weight").rsplit('.').next().unwrap_or_default();
        match (self, part) {
            (Q5_K_M, "attn_v" | "cross_attn_v" | "ffn_down") if more_bits(block, n) => "Q6_K",
            (Q4_K_M, "attn_v" | "cross_attn_v" | "ffn_down") if more_bits(block, n) => "Q6_K",
            (Q5_K_M, "attn_qkv") => "Q6_K",
            (Q4_K_M, "attn_qkv") => "Q5_K",
            (Q4_K_S, "attn_v" | "cross_attn_v") if block < 4 => "Q5_K",
            (Q4_K_S, "ffn_down") if block < n / 8 => "Q5_K",
            (Q3_K_M, "attn_v" | "cross_attn_v") if block < 2 => "Q5_K",
            (Q3_K_M, "ffn_down") if block < n / 16 => "Q5_K",
            (Q3_K_M, "attn_v" | "cross_attn_v" | "ffn_down") => "Q4_K",
            (Q3_K_M, "attn_qkv" | "attn_output" | "attn_o" | "cross_attn_o") => "Q4_K",
            (Q2_K, "attn_v" | "cross_attn_v" | "ffn_down") => "Q3_K",
            (Q2_K, "attn_output" | "attn_o" | "cross_attn_o") => "Q3_K",
            _ => self.base(),
        }
    }
}

/// `wanted`, and it or the nearest type in whose blocks the rows of `shape` are whole.
fn fitting(wanted: &'static TensorType, shape: &[usize]) -> (&'static TensorType, &'static TensorType) {
    let columns = shape.last().copied().unwrap_or(1);
    let fits = |kind: &TensorType| columns.is_multiple_of(kind.block_len);
    if fits(wanted) {
        return (wanted, wanted);
    }
    let near = named(match wanted.name {
        "Q2_K" | "Q3_K" => "Q4_0",
        "Q4_K" => "Q5_0",
        "Q5_K" => "Q5_1",
        _ => "Q8_0",
    });
    (wanted, if fits(near) { near } else { named("F16") })
}

fn named(name: &str) -> &'static TensorType {
    TensorType::by_name(name).unwrap_or(&TENSOR_TYPES[0])
}

/// Encodes whole rows.
///
/// # Errors
/// One line without the tensor's name: a value is not finite, or does not fit the type.
pub fn encode(kind: &TensorType, values: &[f32]) -> Result<Vec<u8>, String> {
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(format!("holds {value}"));
    }
    match (ggml_dtype(kind), kind.name) {
        (Some(dtype), name) => {
            let encode = || {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                Ok(QTensor::quantize(&tensor, dtype)?.data()?.into_owned())
            };
            encode().map_err(|cause: candle_core::Error| format!("cannot be quantised to {name}: {cause}"))
        }
        (None, "F16") => {
            halves(values, |value| (f16::from_f32(value).is_finite(), f16::from_f32(value).to_bits()))
        }
        (None, "BF16") => {
            halves(values, |value| (bf16::from_f32(value).is_finite(), bf16::from_f32(value).to_bits()))
        }
        (None, "F32") => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        (None, name) => Err(format!("cannot be stored as {name}")),
    }
}

/// Encodes values of two bytes each; `convert` also says whether the value is within range.
fn halves(values: &[f32], convert: impl Fn(f32) -> (bool, u16)) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for &value in values {
        let (fits, bits) = convert(value);
        if !fits {
            return Err(format!("holds {value}, beyond the range of this type; use F32 or Q8_0"));
        }
        bytes.extend_from_slice(&bits.to_le_bytes());
    }
    Ok(bytes)
}

impl fmt::Display for Quantization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().map(|kind| (kind.name(), kind)).chain(ALIASES);
        let known = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, kind)| kind);
        known.ok_or_else(|| format!("unknown type (one of {})", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_blocks_agree_with_ggml_dtype() {
        for kind in Quantization::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.name().to_lowercase().parse(), Ok(kind));
            let listed = inhouse_core::gguf::FILE_TYPES.iter().find(|(id, _)| *id == kind.file_type());
            assert_eq!(listed.map(|(_, name)| *name), Some(kind.name()));
            let stored = named(kind.base());
            assert_eq!(stored.name, kind.base());
            if let Some(dtype) = ggml_dtype(stored) {
                assert_eq!((dtype.block_size(), dtype.type_size()), (stored.block_len, stored.block_bytes));
            }
        }
        assert_eq!("q4_k".parse(), Ok(Q4_K_M));
        assert!("Q9".parse::<Quantization>().unwrap_err().contains("Q8_0"));
    }

    #[test]
    fn tensors_get_what_llama_cpp_gives_them() {
        let names: Vec<String> = (0..16)
            .flat_map(|i| ["attn_v", "ffn_down", "attn_qkv"].map(|part| format!("blk.{i}.{part}.weight")))
            .chain(["token_embd.weight".into(), "output.weight".into()])
            .collect();
        let whole = Model::new(names.iter().map(String::as_str));
        let tied = Model::new(names[..names.len() - 1].iter().map(String::as_str));
        let of = |kind: Quantization, name: &str, columns: usize, model: &Model| {
            kind.for_tensor(name, &[8, columns], model).1.name
        };
        for (kind, name, columns, expected) in [
            (Q4_K_M, "blk.0.attn_q.weight", 512, "Q4_K"),
            (Q4_K_M, "blk.0.attn_v.weight", 512, "Q6_K"),
            (Q4_K_M, "blk.2.ffn_down.weight", 512, "Q4_K"),
            (Q4_K_M, "blk.4.ffn_down.weight", 512, "Q6_K"),
            (Q4_K_M, "blk.15.ffn_down.weight", 512, "Q6_K"),
            (Q4_K_M, "blk.3.attn_qkv.weight", 512, "Q5_K"),
            (Q5_K_M, "blk.3.attn_qkv.weight", 512, "Q6_K"),
            (Q4_K_S, "blk.3.attn_v.weight", 512, "Q5_K"),
            (Q4_K_S, "blk.4.attn_v.weight", 512, "Q4_K"),
            (Q4_K_M, "output.weight", 512, "Q6_K"),
            (Q4_0, "output.weight", 512, "Q6_K"),
            (Q4_0, "output.weight", 192, "Q8_0"),
            (Q4_K_M, "token_embd.weight", 512, "Q4_K"),
            (Q4_K_S, "blk.9.ffn_up.weight", 192, "Q5_0"),
            (Q5_K_S, "blk.9.ffn_up.weight", 192, "Q5_1"),
            (Q6_K, "blk.9.ffn_up.weight", 192, "Q8_0"),
            (Q2_K, "blk.9.ffn_up.weight", 192, "Q4_0"),
            (Q4_0, "blk.9.ffn_up.weight", 192, "Q4_0"),
            (Q8_0, "blk.9.ffn_up.weight", 50, "F16"),
            (Q8_0, "enc.blk.0.attn_rel_b.weight", 64, "F32"),
            (BF16, "blk.9.ffn_up.weight", 7, "BF16"),
        ] {
            assert_eq!(of(kind, name, columns, &whole), expected, "{kind} {name} {columns}");
        }
        assert_eq!(of(Q4_K_M, "token_embd.weight", 512, &tied), "Q6_K");
        assert_eq!(F16.for_tensor("blk.0.attn_v.bias", &[512], &whole).1.name, "F32");
    }

    #[test]
    fn values_come_back_within_the_step_of_the_type() {
        let values: Vec<f32> = (0..2048).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
        for kind in Quantization::ALL {
            let stored = named(kind.base());
            let bytes = encode(stored, &values).unwrap();
            assert_eq!(bytes.len() as u64, stored.bytes(2048).unwrap(), "{kind}");
            let Some(dtype) = ggml_dtype(stored) else { continue };
            let storage =
                candle_core::quantized::QStorage::from_data(bytes.into(), &Device::Cpu, dtype).unwrap();
            let back = QTensor::new(storage, 2048).unwrap().dequantize(&Device::Cpu).unwrap();
            let back: Vec<f32> = back.to_vec1().unwrap();
            let worst = values.iter().zip(&back).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            let step = match stored.name {
                "Q8_0" => 0.003,
                "Q6_K" => 0.015,
                "Q5_K" | "Q5_0" | "Q5_1" => 0.03,
                "Q4_K" | "Q4_0" | "Q4_1" => 0.06,
                _ => 0.25,
            };
            assert!(worst <= step, "{kind}: {worst}");
        }
    }

    #[test]
    fn values_that_cannot_be_stored_are_refused() {
        for kind in Quantization::ALL {
            let mut values = vec![0.5f32; 256];
            values[77] = f32::NAN;
            assert!(encode(named(kind.base()), &values).unwrap_err().contains("NaN"), "{kind}");
        }
        assert!(encode(named("F16"), &[1e6]).unwrap_err().contains("beyond the range"));
        assert!(encode(named("BF16"), &[1e6]).is_ok());
        assert!(encode(named("IQ4_XS"), &[0.0; 256]).is_err());
    }
}
