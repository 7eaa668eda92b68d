//! Products of a few rows with matrices of 8-bit weights, as a file of Q8_0 has them: for every 32 weights of an output a scale.
//!
//! Rows are quantised to 16 bits, each with a scale of its own: with 8-bit weights a block of 32 products stays far below 2^31,
//! so that sums of integers are exact and the rounding of rows is not to be seen. AVX2 multiplies 16-bit numbers as fast
//! as it does 8-bit ones (`vpmaddwd` and the pair `vpmaddubsw`, `vpmaddwd` both take half a cycle for 16 products), whose sums of two
//! saturate at 16 bits unless rows have 7 bits; integer kernels of other crates (rten-gemm) are made of that pair.
//!
//! What is computed for an element does not depend on the rows beside it: the same row gives the same numbers in any batch.

use std::array;

use crate::vector::{vectorized, widen_f16};

/// Weights that share a scale.
pub(super) const BLOCK: usize = 32;
/// Bytes of a block in a file: its scale as a half, its codes.
pub(super) const BLOCK_BYTES: usize = 2 + BLOCK;
/// Pairs of weights in a block.
const PAIRS: usize = BLOCK / 2;
/// Outputs of a panel: two vectors of sums.
const WIDE: usize = 16;
/// Rows of a tile: with two vectors each they fill 12 of 16 registers.
const TALL: usize = 6;
/// The largest code of a row.
const LARGEST: f32 = 32_767.0;

/// A block of a panel.
#[derive(Debug, Clone, Copy)]
struct Block {
    scales: [f32; WIDE],
    /// For each two inputs the two weights of each output.
    codes: [[i8; 2 * WIDE]; PAIRS],
}

/// The matrix and bias of a linear layer.
#[derive(Debug)]
pub(super) struct Linear {
    inputs: usize,
    outputs: usize,
    /// `[outputs / WIDE, inputs / BLOCK]`.
    panels: Vec<Block>,
    /// As many as the panels have outputs.
    bias: Vec<f32>,
}

/// A block of a row, in pairs.
type Codes = [[i16; 2]; PAIRS];

/// Rows in 16 bits.
#[derive(Debug, Default)]
pub(super) struct Rows {
    codes: Vec<Codes>,
    scales: Vec<f32>,
}

impl Rows {
    /// Takes `values [rows, width]`, of a width of whole blocks. A row with a value that is not finite becomes NaN in products.
    pub fn quantize(&mut self, values: &[f32], width: usize) {
        self.codes.clear();
        self.scales.clear();
        vectorized(
            #[inline(always)]
            || {
                for row in values.chunks_exact(width) {
                    let row = row.as_chunks::<BLOCK>().0;
                    let largest = largest(row);
                    let scale = if largest < LARGEST * f32::MIN_POSITIVE {
                        f32::MIN_POSITIVE
                    } else {
                        largest / LARGEST
                    };
                    self.scales.push(scale);
                    for block in row {
                        self.codes.push(codes(block, 1.0 / scale));
                    }
                }
            },
        );
    }
}

/// The largest magnitude; no number where one of them is none.
#[inline(always)]
fn largest(row: &[[f32; BLOCK]]) -> f32 {
    // Without their signs, floats are in the order of their bits, and what is no number comes last.
    let mut most = [0u32; BLOCK];
    for block in row {
        for (most, value) in most.iter_mut().zip(block) {
            *most = (*most).max(value.abs().to_bits());
        }
    }
    f32::from_bits(most.into_iter().fold(0, u32::max))
}

#[inline(always)]
fn codes(block: &[f32; BLOCK], rate: f32) -> Codes {
    // 1.5 * 2^23: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let code = |value: f32| (value * rate + ROUND).to_bits() as i16;
    let codes: [i16; BLOCK] = array::from_fn(|i| code(block[i]));
    array::from_fn(|pair| [codes[2 * pair], codes[2 * pair + 1]])
}

impl Linear {
    /// From the rows of a matrix `[outputs, inputs]` as blocks of a file, and a bias for each output; `None` where the sizes do not
    /// fit or a scale is not finite.
    pub fn new(bytes: &[u8], inputs: usize, mut bias: Vec<f32>) -> Option<Self> {
        let outputs = bias.len();
        let blocks = inputs / BLOCK;
        let stored = bytes.as_chunks::<BLOCK_BYTES>().0;
        if blocks == 0 || !inputs.is_multiple_of(BLOCK) || Some(stored.len()) != outputs.checked_mul(blocks) {
            return None;
        }
        bias.resize(outputs.next_multiple_of(WIDE), 0.0);
        let mut panels =
            vec![Block { scales: [0.0; WIDE], codes: [[0; 2 * WIDE]; PAIRS] }; bias.len() / WIDE * blocks];
        for (output, row) in stored.chunks_exact(blocks).enumerate() {
            let panel = &mut panels[output / WIDE * blocks..][..blocks];
            let column = output % WIDE;
            for (block, [low, high, codes @ ..]) in panel.iter_mut().zip(row) {
                let scale = widen_f16(u16::from_le_bytes([*low, *high]));
                if !scale.is_finite() {
                    return None;
                }
                block.scales[column] = scale;
                for (to, from) in block.codes.iter_mut().zip(codes.as_chunks::<2>().0) {
                    to[2 * column] = from[0].cast_signed();
                    to[2 * column + 1] = from[1].cast_signed();
                }
            }
        }
        Some(Self { inputs, outputs, panels, bias })
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes `rows [n, inputs]` times the matrix plus the bias to `out [n, outputs]`.
    pub fn apply(&self, rows: &Rows, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(OnAvx2 { simd, linear: self, rows, out });
        }
        self.run(Plain, rows, out);
    }

    #[inline(always)]
    fn run<K: Kernel>(&self, kernel: K, rows: &Rows, out: &mut [f32]) {
        let blocks = self.inputs / BLOCK;
        let n = rows.scales.len();
        // Tiles of nearly one height: a last one of a row or two would read all weights for little.
        let tiles = n.div_ceil(TALL).max(1);
        let panels = self.panels.chunks_exact(blocks).zip(self.bias.as_chunks::<WIDE>().0);
        for (at, (panel, bias)) in panels.enumerate() {
            let to = Target { column: at * WIDE, outputs: self.outputs, bias };
            for tile in 0..tiles {
                let (begin, end) = (tile * n / tiles, (tile + 1) * n / tiles);
                let place = Place { rows, begin, blocks, panel };
                match end - begin {
                    6 => to.put(out, &place, place.tile::<K, 6>(kernel)),
                    5 => to.put(out, &place, place.tile::<K, 5>(kernel)),
                    4 => to.put(out, &place, place.tile::<K, 4>(kernel)),
                    3 => to.put(out, &place, place.tile::<K, 3>(kernel)),
                    2 => to.put(out, &place, place.tile::<K, 2>(kernel)),
                    1 => to.put(out, &place, place.tile::<K, 1>(kernel)),
                    _ => {}
                }
            }
        }
    }
}

/// Rows from `begin` on, and a panel.
struct Place<'a> {
    rows: &'a Rows,
    begin: usize,
    blocks: usize,
    panel: &'a [Block],
}

impl Place<'_> {
    #[inline(always)]
    fn tile<K: Kernel, const N: usize>(&self, kernel: K) -> [[f32; WIDE]; N] {
        let row = |i: usize| &self.rows.codes[(self.begin + i) * self.blocks..][..self.blocks];
        kernel.tile(array::from_fn(row), self.panel)
    }
}

/// Where the outputs of a panel go.
struct Target<'a> {
    column: usize,
    outputs: usize,
    bias: &'a [f32; WIDE],
}

impl Target<'_> {
    #[inline(always)]
    fn put<const N: usize>(&self, out: &mut [f32], place: &Place<'_>, tile: [[f32; WIDE]; N]) {
        for (i, sums) in tile.iter().enumerate() {
            let row = place.begin + i;
            let scale = place.rows.scales[row];
            let values: [f32; WIDE] = array::from_fn(|j| sums[j] * scale + self.bias[j]);
            let out = &mut out[row * self.outputs + self.column..(row + 1) * self.outputs];
            match out.first_chunk_mut::<WIDE>() {
                Some(out) => *out = values,
                None => out.copy_from_slice(&values[..out.len()]),
            }
        }
    }
}

/// The instructions to multiply with.
trait Kernel: Copy {
    /// The products of `N` rows with the outputs of a panel, but for the rows' scales.
    fn tile<const N: usize>(self, rows: [&[Codes]; N], panel: &[Block]) -> [[f32; WIDE]; N];
}

#[derive(Clone, Copy)]
struct Plain;

impl Kernel for Plain {
    #[inline(always)]
    fn tile<const N: usize>(self, rows: [&[Codes]; N], panel: &[Block]) -> [[f32; WIDE]; N] {
        let mut totals = [[0f32; WIDE]; N];
        for (at, block) in panel.iter().enumerate() {
            for (total, row) in totals.iter_mut().zip(rows) {
                let mut sums = [0i32; WIDE];
                for (pair, weights) in row[at].iter().zip(&block.codes) {
                    let [first, second] = pair.map(i32::from);
                    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                        let weights = weights.map(i32::from);
                        *sum += first * weights[0] + second * weights[1];
                    }
                }
                for (total, (sum, scale)) in total.iter_mut().zip(sums.iter().zip(&block.scales)) {
                    *total += *sum as f32 * scale;
                }
            }
        }
        totals
    }
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Avx2(pulp::x86::V3);

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Two weights of each output, in 16 bits.
    #[inline(always)]
    fn widen(self, codes: &[i8; 2 * WIDE]) -> [std::arch::x86_64::__m256i; 2] {
        let [low, high]: [[i8; WIDE]; 2] = pulp::cast(*codes);
        let avx2 = self.0.avx2;
        [avx2._mm256_cvtepi8_epi16(pulp::cast(low)), avx2._mm256_cvtepi8_epi16(pulp::cast(high))]
    }
}

/// A product as what `pulp` runs: a closure's way there is a function that need not be inlined, and then no instruction in it is.
#[cfg(target_arch = "x86_64")]
struct OnAvx2<'a> {
    simd: pulp::x86::V3,
    linear: &'a Linear,
    rows: &'a Rows,
    out: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for OnAvx2<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.linear.run(Avx2(self.simd), self.rows, self.out);
    }
}

#[cfg(target_arch = "x86_64")]
impl Kernel for Avx2 {
    #[inline(always)]
    fn tile<const N: usize>(self, rows: [&[Codes]; N], panel: &[Block]) -> [[f32; WIDE]; N] {
        use std::arch::x86_64::__m256;
        let (avx, avx2, fma) = (self.0.avx, self.0.avx2, self.0.fma);
        let mut totals = [[avx._mm256_setzero_ps(); 2]; N];
        let rows: [&[Codes]; N] = array::from_fn(|i| &rows[i][..panel.len()]);
        for (at, block) in panel.iter().enumerate() {
            let rows: [&Codes; N] = array::from_fn(|i| &rows[i][at]);
            let mut sums = [[avx._mm256_setzero_si256(); 2]; N];
            // The first products are the sums: nothing is added to zero.
            let weights = self.widen(&block.codes[0]);
            for i in 0..N {
                let row = avx._mm256_set1_epi32(pulp::cast(rows[i][0]));
                for half in 0..2 {
                    sums[i][half] = avx2._mm256_madd_epi16(row, weights[half]);
                }
            }
            for (pair, codes) in block.codes.iter().enumerate().skip(1) {
                let weights = self.widen(codes);
                for i in 0..N {
                    let row = avx._mm256_set1_epi32(pulp::cast(rows[i][pair]));
                    for half in 0..2 {
                        let products = avx2._mm256_madd_epi16(row, weights[half]);
                        sums[i][half] = avx2._mm256_add_epi32(sums[i][half], products);
                    }
                }
            }
            let scales: [__m256; 2] = pulp::cast(block.scales);
            for i in 0..N {
                for half in 0..2 {
                    let sum = avx._mm256_cvtepi32_ps(sums[i][half]);
                    totals[i][half] = fma._mm256_fmadd_ps(sum, scales[half], totals[i][half]);
                }
            }
        }
        let mut tile = [[0f32; WIDE]; N];
        for i in 0..N {
            tile[i] = pulp::cast(totals[i]);
        }
        tile
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// A matrix as blocks of a file, and what it stands for.
    fn matrix(random: &mut impl Rng, inputs: usize, outputs: usize) -> (Vec<u8>, Vec<f64>) {
        let (mut bytes, mut weights) = (Vec::new(), Vec::new());
        for _ in 0..inputs / BLOCK * outputs {
            // Halves between 2^-9 and 2^-8.
            let scale = 0x1800u16 + random.random_range(0..0x400);
            bytes.extend(scale.to_le_bytes());
            for _ in 0..BLOCK {
                let code: i8 = random.random();
                bytes.push(code.cast_unsigned());
                weights.push(f64::from(code) * f64::from(widen_f16(scale)));
            }
        }
        (bytes, weights)
    }

    #[test]
    fn every_kernel_agrees_with_sums_in_f64() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        for (n, inputs, outputs) in
            [(1, 32, 1), (2, 64, 16), (3, 96, 17), (7, 384, 40), (13, 64, 96), (20, 1536, 33), (0, 32, 5)]
        {
            let (bytes, weights) = matrix(&mut random, inputs, outputs);
            let bias: Vec<f32> = (0..outputs).map(|_| random.random_range(-1.0..1.0)).collect();
            let x: Vec<f32> = (0..n * inputs).map(|_| random.random_range(-3.0..3.0)).collect();
            let linear = Linear::new(&bytes, inputs, bias.clone()).unwrap();
            let mut rows = Rows::default();
            rows.quantize(&x, inputs);
            let (mut got, mut plain) = (vec![0f32; n * outputs], vec![0f32; n * outputs]);
            linear.apply(&rows, &mut got);
            linear.run(Plain, &rows, &mut plain);
            for row in 0..n {
                for output in 0..outputs {
                    let terms =
                        (0..inputs).map(|i| f64::from(x[row * inputs + i]) * weights[output * inputs + i]);
                    let want = terms.clone().sum::<f64>() + f64::from(bias[output]);
                    let size: f64 = terms.map(f64::abs).sum();
                    for got in [got[row * outputs + output], plain[row * outputs + output]] {
                        let off = (f64::from(got) - want).abs();
                        assert!(off < 1e-5 * size + 1e-6, "{n} {inputs} {outputs}: {got} {want}");
                    }
                }
            }
            // A row by itself gives the same bits.
            for row in 0..n {
                let mut alone = vec![0f32; outputs];
                rows.quantize(&x[row * inputs..][..inputs], inputs);
                linear.apply(&rows, &mut alone);
                assert_eq!(alone, got[row * outputs..][..outputs]);
            }
        }
    }

    /// The largest sums that there can be, and rows that are no numbers.
    #[test]
    fn extremes() {
        let mut bytes = Vec::new();
        for _ in 0..4 {
            bytes.extend(0x3c00u16.to_le_bytes());
            bytes.extend([0x80; BLOCK]);
        }
        let linear = Linear::new(&bytes, 128, vec![0.0]).unwrap();
        let apply = |x: &[f32]| {
            let mut rows = Rows::default();
            rows.quantize(x, 128);
            let (mut out, mut plain) = ([0f32], [0f32]);
            linear.apply(&rows, &mut out);
            linear.run(Plain, &rows, &mut plain);
            assert!(out == plain || out[0].is_nan() && plain[0].is_nan());
            out[0]
        };
        for sign in [1.0, -1.0] {
            let want = -128.0 * 128.0 * sign;
            assert!((apply(&[sign; 128]) / want - 1.0).abs() < 1e-6);
        }
        assert_eq!(apply(&[0.0; 128]), 0.0);
        assert!(apply(&[f32::MIN_POSITIVE / 64.0; 128]).is_finite());
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 128];
            x[77] = odd;
            assert!(!apply(&x).is_finite(), "{odd}");
        }
        // Sizes that do not fit; a scale that is no number.
        assert!(Linear::new(&bytes, 96, vec![0.0]).is_none());
        assert!(Linear::new(&bytes, 128, vec![0.0; 2]).is_none());
        assert!(Linear::new(&bytes, 0, Vec::new()).is_none());
        bytes[1] = 0x7e;
        assert!(Linear::new(&bytes, 128, vec![0.0]).is_none());
    }
}
