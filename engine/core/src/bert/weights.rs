//! Tensors of a GGUF file, each read whole where it is asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::product::{BLOCK, BLOCK_BYTES, Linear};
use crate::files::open_regular;
use crate::gguf::{Header, MAX_DIMS, TensorEntry};
use crate::vector::widen_f16;
use crate::{Error, ErrorKind, Result};

/// The tensors that were not asked for yet.
pub(super) struct Weights<'a> {
    path: &'a Path,
    file: File,
    data_start: u64,
    rest: HashMap<&'a str, &'a TensorEntry>,
}

impl<'a> Weights<'a> {
    pub fn new(path: &'a Path, header: &'a Header) -> Result<Self> {
        let file = open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
        let rest = header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Ok(Self { path, file, data_start: header.data_start, rest })
    }

    fn wrong(&self, what: String) -> Error {
        Error::data(self.path, what)
    }

    pub fn has(&self, name: &str) -> bool {
        self.rest.contains_key(name)
    }

    /// The bytes of the tensor `name` of `shape`, fastest dimension first.
    fn take(&mut self, name: &str, shape: &[u64]) -> Result<(&'a TensorEntry, Vec<u8>)> {
        let entry = self.rest.remove(name);
        let entry = entry.ok_or_else(|| self.wrong(format!("tensor `{name}` is missing")))?;
        let dim = |dims: &[u64], i| dims.get(i).copied().unwrap_or(1);
        if (0..MAX_DIMS).any(|i| dim(entry.dims(), i) != dim(shape, i)) {
            let dims = entry.dims();
            return Err(self.wrong(format!("tensor `{name}` has shape {dims:?}, expected {shape:?}")));
        }
        let io = |cause| Error::io("read", self.path, cause);
        self.file.seek(SeekFrom::Start(self.data_start + entry.offset)).map_err(io)?;
        let mut bytes = Vec::new();
        // Below the file's length: the header was checked against it.
        let room = usize::try_from(entry.n_bytes()).ok().and_then(|n| bytes.try_reserve_exact(n).ok());
        if room.is_none() {
            let what = format!("{}: no memory for tensor `{name}`", self.path.display());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        (&self.file).take(entry.n_bytes()).read_to_end(&mut bytes).map_err(io)?;
        // The file may shrink while it is read.
        if bytes.len() as u64 != entry.n_bytes() {
            return Err(self.wrong(format!("truncated while reading tensor `{name}`")));
        }
        Ok((entry, bytes))
    }

    /// `[width] f32`, all of them finite.
    pub fn vector(&mut self, name: &str, width: usize) -> Result<Vec<f32>> {
        let (entry, bytes) = self.take(name, &[width as u64])?;
        if entry.kind.name != "F32" {
            return Err(self.wrong(format!("tensor `{name}` is {}, expected F32", entry.kind.name)));
        }
        let values: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(self.wrong(format!("tensor `{name}` holds a value that is not finite")))
    }

    /// The rows `[rows, width]` of an embedding.
    pub fn table(&mut self, name: &str, width: usize, rows: usize) -> Result<Table> {
        let (entry, bytes) = self.take(name, &[width as u64, rows as u64])?;
        let Some(storage) = Storage::of(entry.kind.name) else {
            let kind = entry.kind.name;
            let what = format!("tensor `{name}` is {kind}, which the built-in encoder does not read");
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display())));
        };
        Ok(Table { storage, row_bytes: bytes.len() / rows, bytes })
    }

    /// The matrices `name.weight` `[outputs, inputs]` side by side, and their biases where there are any.
    pub fn linear(&mut self, names: &[String], inputs: usize, outputs: usize) -> Result<Linear> {
        let (mut bytes, mut bias) = (Vec::new(), Vec::new());
        for name in names {
            let weight = format!("{name}.weight");
            let (entry, more) = self.take(&weight, &[inputs as u64, outputs as u64])?;
            if entry.kind.name != "Q8_0" {
                let what = format!(
                    "tensor `{weight}` is {}; the built-in encoder computes with Q8_0 (inhouse-convert gguf --quantize Q8_0), \
                     with others only llama.cpp does",
                    entry.kind.name
                );
                return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display())));
            }
            bytes.extend(more);
            let name = format!("{name}.bias");
            bias.extend(if self.has(&name) { self.vector(&name, outputs)? } else { vec![0.0; outputs] });
        }
        Linear::new(&bytes, inputs, bias)
            .ok_or_else(|| self.wrong(format!("`{}` holds a scale that is not finite", names.join("`, `"))))
    }

    /// Whether every tensor was asked for.
    pub fn finish(self) -> Result<()> {
        match self.rest.keys().min() {
            Some(name) => Err(self.wrong(format!("tensor `{name}` does not belong to a `bert` model"))),
            None => Ok(()),
        }
    }
}

/// An embedding, as it lies in the file.
#[derive(Debug)]
pub(super) struct Table {
    storage: Storage,
    row_bytes: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Storage {
    F32,
    F16,
    Bf16,
    Q8,
    /// 4 or 5 bits, with an offset of each block or none.
    Low {
        five: bool,
        offset: bool,
    },
}

impl Storage {
    fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "Q8_0" => Self::Q8,
            "Q4_0" => Self::Low { five: false, offset: false },
            "Q4_1" => Self::Low { five: false, offset: true },
            "Q5_0" => Self::Low { five: true, offset: false },
            "Q5_1" => Self::Low { five: true, offset: true },
            _ => return None,
        })
    }
}

impl Table {
    /// Adds row `i` to `out`.
    pub fn add_row(&self, i: usize, out: &mut [f32]) {
        let bytes = &self.bytes[i * self.row_bytes..][..self.row_bytes];
        let half = |bytes: [u8; 2]| widen_f16(u16::from_le_bytes(bytes));
        match self.storage {
            Storage::F32 => {
                let values = bytes.as_chunks::<4>().0;
                out.iter_mut().zip(values).for_each(|(out, value)| *out += f32::from_le_bytes(*value));
            }
            Storage::F16 => {
                let values = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(values).for_each(|(out, value)| *out += half(*value));
            }
            Storage::Bf16 => {
                let value = |bytes: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
                let values = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(values).for_each(|(out, bytes)| *out += value(*bytes));
            }
            Storage::Q8 => {
                let blocks = bytes.as_chunks::<BLOCK_BYTES>().0;
                for (out, [low, high, codes @ ..]) in out.chunks_exact_mut(BLOCK).zip(blocks) {
                    let scale = half([*low, *high]);
                    for (out, code) in out.iter_mut().zip(codes) {
                        *out += f32::from(code.cast_signed()) * scale;
                    }
                }
            }
            Storage::Low { five, offset } => {
                let size = 2 + if offset { 2 } else { 0 } + if five { 4 } else { 0 } + BLOCK / 2;
                for (out, block) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(size)) {
                    add_low(out, block, five, offset);
                }
            }
        }
    }
}

/// A block of 4 or 5 bits a value (ggml's `dequantize_row_q4_0` and the like): scale, offset, fifth bits, then the first half of the
/// values in the low four bits of each byte and the second in the high ones.
fn add_low(out: &mut [f32], block: &[u8], five: bool, offset: bool) {
    let mut rest = block;
    let mut half = || match rest {
        [low, high, after @ ..] => {
            rest = after;
            widen_f16(u16::from_le_bytes([*low, *high]))
        }
        _ => 0.0,
    };
    let scale = half();
    let least = match (offset, five) {
        (true, _) => half(),
        (false, true) => -16.0 * scale,
        (false, false) => -8.0 * scale,
    };
    let mut fifth = 0u32;
    if five && let Some((bits, after)) = rest.split_first_chunk::<4>() {
        (fifth, rest) = (u32::from_le_bytes(*bits), after);
    }
    let (first, second) = out.split_at_mut(BLOCK / 2);
    for (i, (byte, (first, second))) in rest.iter().zip(first.iter_mut().zip(second)).enumerate() {
        let high_bit = |at: usize| (fifth >> at & 1) << 4;
        let value = |code: u32| code as f32 * scale + least;
        *first += value(u32::from(byte & 15) | high_bit(i));
        *second += value(u32::from(byte >> 4) | high_bit(i + BLOCK / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks put together here from the layout in `ggml-quants.c`.
    #[test]
    fn rows_of_every_type() {
        let half_of_two = 0x4000u16.to_le_bytes();
        let half_of_minus_one = 0xbc00u16.to_le_bytes();
        let codes: Vec<u32> = (0..BLOCK as u32).map(|i| (i * 7 + 3) % 32).collect();
        let nibbles = |mask: u32| -> Vec<u8> {
            (0..16).map(|i| ((codes[i] & mask & 15) | (codes[i + 16] & 15) << 4) as u8).collect()
        };
        let fifth: u32 = codes.iter().enumerate().map(|(i, code)| (code >> 4) << i).sum();
        let check = |kind: &str, bytes: Vec<u8>, want: &dyn Fn(u32) -> f32| {
            let rows = [vec![0xff; bytes.len()], bytes.clone()].concat();
            let table = Table { storage: Storage::of(kind).unwrap(), row_bytes: bytes.len(), bytes: rows };
            let mut out = vec![0.5f32; BLOCK];
            table.add_row(1, &mut out);
            let want: Vec<f32> = codes.iter().map(|&code| want(code) + 0.5).collect();
            assert_eq!(out, want, "{kind}");
        };
        let (scale, least) = (&half_of_two[..], &half_of_minus_one[..]);
        check("Q4_0", [scale, &nibbles(15)].concat(), &|code| 2.0 * ((code & 15) as f32 - 8.0));
        check("Q4_1", [scale, least, &nibbles(15)].concat(), &|code| 2.0 * (code & 15) as f32 - 1.0);
        let bits = fifth.to_le_bytes();
        check("Q5_0", [scale, &bits, &nibbles(15)].concat(), &|code| 2.0 * (code as f32 - 16.0));
        check("Q5_1", [scale, least, &bits, &nibbles(15)].concat(), &|code| 2.0 * code as f32 - 1.0);
        let bytes: Vec<u8> = codes.iter().map(|code| (*code as i8 - 9).cast_unsigned()).collect();
        check("Q8_0", [scale, &bytes].concat(), &|code| 2.0 * (code as f32 - 9.0));
        let bytes = |bytes: &dyn Fn(u32) -> Vec<u8>| codes.iter().flat_map(|code| bytes(*code)).collect();
        check("F32", bytes(&|code| (code as f32).to_le_bytes().into()), &|code| code as f32);
        let bf16 = |code: u32| ((code as f32).to_bits() >> 16) as u16;
        check("BF16", bytes(&|code| bf16(code).to_le_bytes().into()), &|code| code as f32);
        let f16 = |code: u32| if code.is_multiple_of(2) { 0x3c00u16 } else { 0x4200 };
        check("F16", bytes(&|code| f16(code).to_le_bytes().into()), &|code| {
            if code % 2 == 0 { 1.0 } else { 3.0 }
        });
        assert!(Storage::of("Q4_K").is_none());
    }
}
