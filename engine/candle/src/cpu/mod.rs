//! What decoding does on the CPU, in kernels of our own: candle's operations there are made for large tensors, and run a
//! step of a few tokens on one thread, or once for each sequence and head.
//!
//! Everything is computed in f32, whatever the elements are, and with the widest instructions that the processor has of
//! those known to `pulp`, chosen at run time.

mod activation;
pub(crate) mod causal;
mod few_rows;
mod one_query;
pub(crate) mod product;
pub(crate) mod rows;

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};
use half::{bf16, f16};
use inhouse_core::vector::widen_f16;
use pulp::{Arch, Simd, WithSimd};

pub(crate) use activation::activate;
pub(crate) use few_rows::{MAX_ROWS, project};
pub(crate) use one_query::{Seen, attend};

/// Numbers widened at a time: they stay in the first-level cache.
const PIECE: usize = 1024;

/// An element of weights, activations and caches.
trait Element: WithDType {
    /// How many numbers [`Self::widen`] is given at most.
    const PIECE: usize = PIECE;

    /// `from` as f32: itself, or written into `room`.
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32];
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    const PIECE: usize = usize::MAX;

    #[inline(always)]
    fn widen<'a>(from: &'a [Self], _room: &'a mut [f32]) -> &'a [f32] {
        from
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32] {
        let room = &mut room[..from.len()];
        // In operations that become vectors here. (The conversion of the half crate is a call for every eight.)
        for (wide, narrow) in room.iter_mut().zip(from) {
            *wide = widen_f16(narrow.to_bits());
        }
        room
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32] {
        let room = &mut room[..from.len()];
        // The upper half of an f32. (The conversion of the half crate looks at each number for NaN.)
        for (wide, narrow) in room.iter_mut().zip(from) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
        room
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// The elements of a contiguous tensor.
fn contiguous<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&T::cpu_storage_as_slice(storage)?[begin..end]),
        None => bail!("a tensor is not contiguous"),
    }
}

/// What a guard of a tensor's storage holds, for tensors on the CPU.
fn on_cpu<T: Element>(storage: &Storage) -> Result<&[T]> {
    match storage {
        Storage::Cpu(storage) => T::cpu_storage_as_slice(storage),
        _ => bail!("a tensor is not on the CPU"),
    }
}

/// Whether the kernels here take these tensors.
fn takes(tensor: &Tensor) -> bool {
    use candle_core::DType::{BF16, F16, F32};
    tensor.device().is_cpu() && matches!(tensor.dtype(), F32 | F16 | BF16)
}

/// Runs `op` with the widest instructions there are. (`Arch` knows those of x86 only with features of pulp that would be one
/// more build of candle.)
fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return Simd::vectorize(simd, op);
    }
    Arch::new().dispatch(op)
}

/// `a * b + c`: in one operation, but where that would be a call of the C library.
#[inline(always)]
fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if S::IS_SCALAR { simd.add_f32s(simd.mul_f32s(a, b), c) } else { simd.mul_add_f32s(a, b, c) }
}

/// Products of `x` with each of `weights`, all of one length.
#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, x: &[f32], weights: [&[f32]; N]) -> [f32; N] {
    // Sums that are kept apart, so that additions need not wait for each other.
    let mut sums = [[simd.splat_f32s(0.0); 2]; N];
    let (x, x_rest) = S::as_simd_f32s(x);
    let (pairs, single) = x.as_chunks::<2>();
    let mut vectors: [&[S::f32s]; N] = [&[]; N];
    let mut rests: [&[f32]; N] = [&[]; N];
    let mut weight_pairs: [&[[S::f32s; 2]]; N] = [&[]; N];
    for n in 0..N {
        (vectors[n], rests[n]) = S::as_simd_f32s(weights[n]);
        weight_pairs[n] = &vectors[n].as_chunks::<2>().0[..pairs.len()];
    }
    for (at, x) in pairs.iter().enumerate() {
        for n in 0..N {
            for i in 0..2 {
                sums[n][i] = multiply_add(simd, x[i], weight_pairs[n][at][i], sums[n][i]);
            }
        }
    }
    let mut totals = [0f32; N];
    for n in 0..N {
        if let [x] = single {
            sums[n][0] = multiply_add(simd, *x, vectors[n][2 * pairs.len()], sums[n][0]);
        }
        totals[n] = simd.reduce_sum_f32s(simd.add_f32s(sums[n][0], sums[n][1]));
        totals[n] += x_rest.iter().zip(rests[n]).map(|(x, weight)| x * weight).sum::<f32>();
    }
    totals
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_widened() {
        for bits in 0..=u16::MAX {
            let (got, want) = (super::widen_f16(bits), half::f16::from_bits(bits).to_f32());
            assert!(
                got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                "{bits:#x}: {got} {want}"
            );
        }
    }
}
