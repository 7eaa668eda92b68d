//! How tensors are stored: the types on offer, which tensor gets which, and the encoding of rows.

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};

use inhouse_core::gguf::{TENSOR_TYPES, TensorType};

/// A storage type for the matrices of a model.
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
    /// 5.5 bits.
    Q5_K,
    /// 6 bits.
    Q5_1,
    /// 5.5 bits.
    Q5_0,
    /// 4.5 bits.
    Q4_K,
    /// 5 bits.
    Q4_1,
    /// 4.5 bits.
    Q4_0,
    /// 3.4 bits.
    Q3_K,
    /// 2.6 bits.
    Q2_K,
}

use Quantization::{BF16, F16, F32, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};

impl Quantization {
    /// All of them, best first.
    pub const ALL: [Self; 13] = [F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, Q3_K, Q2_K];

    /// Its name, as typed and as in the format.
    pub fn name(self) -> &'static str {
        self.tensor_type().name
    }

    /// `general.file_type` of a file whose matrices are mostly of this type (`llama_ftype` in `llama.h`).
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
            Q3_K => 11,
            Q4_K => 14,
            Q5_K => 16,
            Q6_K => 18,
            BF16 => 32,
        }
    }

    /// The storage type.
    pub fn tensor_type(self) -> &'static TensorType {
        let id = match self {
            F32 => 0,
            F16 => 1,
            Q4_0 => 2,
            Q4_1 => 3,
            Q5_0 => 6,
            Q5_1 => 7,
            Q8_0 => 8,
            Q2_K => 10,
            Q3_K => 11,
            Q4_K => 12,
            Q5_K => 13,
            Q6_K => 14,
            BF16 => 30,
        };
        TensorType::by_id(id).unwrap_or(&TENSOR_TYPES[0])
    }

    fn candle(self) -> Option<GgmlDType> {
        Some(match self {
            F32 | F16 | BF16 => return None,
            Q4_0 => GgmlDType::Q4_0,
            Q4_1 => GgmlDType::Q4_1,
            Q5_0 => GgmlDType::Q5_0,
            Q5_1 => GgmlDType::Q5_1,
            Q8_0 => GgmlDType::Q8_0,
            Q2_K => GgmlDType::Q2K,
            Q3_K => GgmlDType::Q3K,
            Q4_K => GgmlDType::Q4K,
            Q5_K => GgmlDType::Q5K,
            Q6_K => GgmlDType::Q6K,
        })
    }

    /// The type that a tensor gets in a file of this type: vectors stay F32 (llama.cpp adds and multiplies them so), the
    /// output projection is kept at 6 bits or more, and rows that are no whole number of blocks fall back to a type that
    /// fits them, at least as good.
    pub fn for_tensor(self, shape: &[usize], is_output: bool) -> Self {
        let [.., _, columns] = *shape else { return F32 };
        let wanted = match self {
            Q5_K | Q4_K | Q3_K | Q2_K if is_output => Q6_K,
            Q5_1 | Q5_0 | Q4_1 | Q4_0 if is_output => Q8_0,
            other => other,
        };
        [wanted, Q8_0, F16]
            .into_iter()
            .find(|kind| columns.is_multiple_of(kind.tensor_type().block_len))
            .unwrap_or(F32)
    }

    /// Encodes whole rows.
    ///
    /// # Errors
    /// One line without the tensor's name: a value is not finite, or does not fit the type.
    pub fn encode(self, values: &[f32]) -> Result<Vec<u8>, String> {
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("holds {value}"));
        }
        match self.candle() {
            Some(dtype) => {
                let encode = || {
                    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                    Ok(QTensor::quantize(&tensor, dtype)?.data()?.into_owned())
                };
                encode()
                    .map_err(|cause: candle_core::Error| format!("cannot be quantised to {self}: {cause}"))
            }
            None if self == F16 => {
                halves(values, |value| (f16::from_f32(value).is_finite(), f16::from_f32(value).to_bits()))
            }
            None if self == BF16 => {
                halves(values, |value| (bf16::from_f32(value).is_finite(), bf16::from_f32(value).to_bits()))
            }
            None => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        }
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
        let known = Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| format!("unknown type (one of {})", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_blocks_agree_with_candle() {
        for kind in Quantization::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(kind.name().to_lowercase().parse(), Ok(kind));
            if let Some(dtype) = kind.candle() {
                assert_eq!((dtype.block_size(), dtype.type_size()), {
                    let stored = kind.tensor_type();
                    (stored.block_len, stored.block_bytes)
                });
            }
        }
        assert!("Q9".parse::<Quantization>().unwrap_err().contains("Q8_0"));
    }

    #[test]
    fn rows_that_do_not_fit_fall_back() {
        assert_eq!(Q4_K.for_tensor(&[8, 512], false), Q4_K);
        assert_eq!(Q4_K.for_tensor(&[8, 512], true), Q6_K);
        assert_eq!(Q4_K.for_tensor(&[8, 192], false), Q8_0);
        assert_eq!(Q4_0.for_tensor(&[8, 192], false), Q4_0);
        assert_eq!(Q8_0.for_tensor(&[8, 50], false), F16);
        assert_eq!(Q4_K.for_tensor(&[512], false), F32);
        assert_eq!(F16.for_tensor(&[512], false), F32);
        assert_eq!(BF16.for_tensor(&[3, 7], true), BF16);
    }

    #[test]
    fn values_come_back_within_the_step_of_the_type() {
        let values: Vec<f32> = (0..2048).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) * 0.3).collect();
        for kind in Quantization::ALL {
            let bytes = kind.encode(&values).unwrap();
            let stored = kind.tensor_type();
            assert_eq!(bytes.len() as u64, stored.bytes(2048).unwrap(), "{kind}");
            let Some(dtype) = kind.candle() else { continue };
            let storage =
                candle_core::quantized::QStorage::from_data(bytes.into(), &Device::Cpu, dtype).unwrap();
            let back = QTensor::new(storage, 2048).unwrap().dequantize(&Device::Cpu).unwrap();
            let back: Vec<f32> = back.to_vec1().unwrap();
            let worst = values.iter().zip(&back).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            let step = match kind {
                Q8_0 => 0.003,
                Q6_K => 0.015,
                Q5_K | Q5_0 | Q5_1 => 0.03,
                Q4_K | Q4_0 | Q4_1 => 0.06,
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
            assert!(kind.encode(&values).unwrap_err().contains("NaN"), "{kind}");
        }
        assert!(F16.encode(&[1e6]).unwrap_err().contains("beyond the range"));
        assert!(BF16.encode(&[1e6]).is_ok());
    }
}
