//! Products of a query with vectors of which the signs alone are kept, 32 at a time: tables of sums for every four signs, looked
//! up by byte shuffles (André, Kermarrec and Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor
//! search with product quantization fast scan", VLDB 2015).
//!
//! A block holds 32 vectors: for every four elements 16 bytes, byte `i` with the signs of vector `i` in its low four bits and
//! those of vector `i + 16` in the high ones.

/// Vectors in a block.
pub(super) const BLOCK: usize = 32;
/// Elements looked up at a time.
const QUAD: usize = 4;
/// Quads whose sums of bytes fit 16 bits.
const QUADS_AT_ONCE: usize = 256;
const QUAD_BYTES: usize = BLOCK / 2;

/// Quads of vectors of `dim` elements: an even number.
fn quads(dim: usize) -> usize {
    dim.div_ceil(2 * QUAD) * 2
}

/// Bytes of a block of vectors of `dim` elements.
pub(super) fn block_bytes(dim: usize) -> usize {
    quads(dim) * QUAD_BYTES
}

/// Puts the signs of `vector` into `block` as vector `i`; the block is zeroed at first.
#[inline(always)]
pub(super) fn put_signs(block: &mut [u8], i: usize, vector: &[f32]) {
    for (quad, bytes) in vector.chunks(QUAD).zip(block.chunks_exact_mut(QUAD_BYTES)) {
        let signs =
            quad.iter().enumerate().fold(0u8, |signs, (bit, value)| signs | u8::from(*value > 0.0) << bit);
        bytes[i % QUAD_BYTES] |= signs << (QUAD * (i / QUAD_BYTES));
    }
}

/// The sums of a query's elements for every combination of four signs.
#[derive(Debug)]
pub(super) struct Table {
    /// `[quads, 16]`, from 0.
    sums: Vec<[u8; 16]>,
    step: f32,
    /// What the zeros of all quads stand for.
    least: f32,
}

impl Table {
    pub fn new(query: &[f32]) -> Self {
        let mut quad_values = vec![[0f32; QUAD]; quads(query.len())];
        for (values, given) in quad_values.iter_mut().zip(query.chunks(QUAD)) {
            values[..given.len()].copy_from_slice(given);
        }
        let span = |values: &[f32; QUAD]| values.iter().map(|value| value.abs()).sum::<f32>();
        let widest = quad_values.iter().map(span).fold(0f32, f32::max);
        let step = (2.0 * widest / f32::from(u8::MAX)).max(f32::MIN_POSITIVE);
        let row = |values: &[f32; QUAD]| -> [u8; 16] {
            std::array::from_fn(|signs| {
                let sum: f32 =
                    (0..QUAD).map(|bit| if signs >> bit & 1 == 1 { values[bit] } else { -values[bit] }).sum();
                ((sum + span(values)) / step).round() as u8
            })
        };
        Self {
            sums: quad_values.iter().map(row).collect(),
            step,
            least: -quad_values.iter().map(span).sum::<f32>(),
        }
    }

    /// The products with the vectors of `block`.
    #[inline(always)]
    pub fn products(&self, block: &[u8], kernel: Kernel) -> [f32; BLOCK] {
        let mut totals = [0u32; BLOCK];
        let bytes = block.as_chunks::<QUAD_BYTES>().0;
        for (sums, bytes) in self.sums.chunks(QUADS_AT_ONCE).zip(bytes.chunks(QUADS_AT_ONCE)) {
            kernel.add(sums, bytes, &mut totals);
        }
        totals.map(|total| total as f32 * self.step + self.least)
    }
}

/// The instructions to look up with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Plain,
}

impl Kernel {
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Self::Avx2(simd);
        }
        Self::Plain
    }

    /// Runs `work` with these instructions. It must be inlined into this: it is marked `#[inline(always)]`, and so is what it calls.
    #[inline(always)]
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(work),
            Self::Plain => work(),
        }
    }

    #[inline(always)]
    fn add(self, sums: &[[u8; 16]], bytes: &[[u8; QUAD_BYTES]], totals: &mut [u32; BLOCK]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => avx2(simd, sums, bytes, totals),
            Self::Plain => plain(sums, bytes, totals),
        }
    }
}

#[inline(always)]
fn plain(sums: &[[u8; 16]], bytes: &[[u8; QUAD_BYTES]], totals: &mut [u32; BLOCK]) {
    let (low, high) = totals.split_at_mut(QUAD_BYTES);
    for (sums, bytes) in sums.iter().zip(bytes) {
        for ((low, high), byte) in low.iter_mut().zip(high.iter_mut()).zip(bytes) {
            *low += u32::from(sums[usize::from(byte & 15)]);
            *high += u32::from(sums[usize::from(byte >> 4)]);
        }
    }
}

/// Two quads at a time, one in each half of a register. Sums are kept as 16 bits of two bytes each: those of odd bytes apart, so
/// that the even ones follow by subtraction.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx2(simd: pulp::x86::V3, sums: &[[u8; 16]], bytes: &[[u8; QUAD_BYTES]], totals: &mut [u32; BLOCK]) {
    use std::arch::x86_64::__m256i;
    let (avx, avx2) = (simd.avx, simd.avx2);
    let low_bits = avx._mm256_set1_epi8(15);
    let zero = avx._mm256_setzero_si256();
    let (mut low_both, mut low_odd, mut high_both, mut high_odd) = (zero, zero, zero, zero);
    for (sums, bytes) in sums.as_chunks::<2>().0.iter().zip(bytes.as_chunks::<2>().0) {
        let sums: __m256i = pulp::cast(*sums);
        let bytes: __m256i = pulp::cast(*bytes);
        let low = avx2._mm256_shuffle_epi8(sums, avx2._mm256_and_si256(bytes, low_bits));
        let high_index = avx2._mm256_and_si256(avx2._mm256_srli_epi16::<4>(bytes), low_bits);
        let high = avx2._mm256_shuffle_epi8(sums, high_index);
        low_both = avx2._mm256_add_epi16(low_both, low);
        low_odd = avx2._mm256_add_epi16(low_odd, avx2._mm256_srli_epi16::<8>(low));
        high_both = avx2._mm256_add_epi16(high_both, high);
        high_odd = avx2._mm256_add_epi16(high_odd, avx2._mm256_srli_epi16::<8>(high));
    }
    let (low, high) = totals.split_at_mut(QUAD_BYTES);
    for (both, odd, totals) in [(low_both, low_odd, low), (high_both, high_odd, high)] {
        let both: [u16; 16] = pulp::cast(both);
        let odd: [u16; 16] = pulp::cast(odd);
        for i in 0..8 {
            let even = |lane: usize| both[lane].wrapping_sub(odd[lane] << 8);
            totals[2 * i] += u32::from(even(i)) + u32::from(even(i + 8));
            totals[2 * i + 1] += u32::from(odd[i]) + u32::from(odd[i + 8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn products_are_those_with_the_signs() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for dim in [1, 4, 9, 64, 384, 3000] {
            let mut vector = || -> Vec<f32> { (0..dim).map(|_| random.random_range(-1.0..1.0)).collect() };
            let query = vector();
            let vectors: Vec<Vec<f32>> = (0..BLOCK).map(|_| vector()).collect();
            let mut block = vec![0; block_bytes(dim)];
            vectors.iter().enumerate().for_each(|(i, vector)| put_signs(&mut block, i, vector));
            let table = Table::new(&query);
            let plain = table.products(&block, Kernel::Plain);
            assert_eq!(plain, table.products(&block, Kernel::best()));
            for (vector, product) in vectors.iter().zip(plain) {
                let want: f32 = vector.iter().zip(&query).map(|(v, q)| q * v.signum()).sum();
                assert!((want - product).abs() < 0.05 * (dim as f32).sqrt(), "{dim}: {want} {product}");
            }
        }
        assert!(Table::new(&[0.0; 8]).products(&[0; 64], Kernel::best())[0].abs() < 1e-6);
    }
}
