//! Loops over numbers that compilers turn into vector instructions: the choice of those at run time, and functions of parts that
//! have vector forms.

/// Runs `work` with the widest instructions that the processor has of those known here. It must be inlined into this, which the
/// compiler does of itself for the smallest alone: closures and what they call are marked `#[inline(always)]`.
#[inline(always)]
pub fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(work);
    }
    work()
}

/// Has the processor fetch `items`, which will be read soon: a scan that waits for each line of them takes several times as long.
#[inline(always)]
pub fn prefetch<T>(items: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        const LINE: usize = 64;
        const ALL_CACHES: i32 = 3;
        for line in items.chunks((LINE / size_of::<T>().max(1)).max(1)) {
            simd.sse._mm_prefetch::<ALL_CACHES>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = items;
}

/// e^x, to a few units in the last place; 0 and not a denormal far below.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that the difference is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.3);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let rest = x - whole * LN2_HIGH - whole * LN2_LOW;
    let series = 1.987_569_1e-4;
    let series = series * rest + 1.398_199_9e-3;
    let series = series * rest + 8.333_452e-3;
    let series = series * rest + 4.166_579_6e-2;
    let series = series * rest + 1.666_666_5e-1;
    let series = series * rest + 0.5;
    let series = series * rest * rest + rest + 1.0;
    series * f32::from_bits(rounded.to_bits().wrapping_add(127).wrapping_shl(23))
}

/// The error function as a quotient of polynomials, to 4e-7 (Eigen's `generic_fast_erf_float`).
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let top = -2.726_142_3e-10;
    let top = top * square + 2.770_681_4e-8;
    let top = top * square - 2.101_024e-6;
    let top = top * square - 5.692_506_4e-5;
    let top = top * square - 7.349_906_3e-4;
    let top = top * square - 2.954_6e-3;
    let top = top * square - 1.609_603_3e-2;
    let bottom = -1.456_607_2e-5;
    let bottom = bottom * square - 2.133_740_6e-4;
    let bottom = bottom * square - 1.682_827e-3;
    let bottom = bottom * square - 7.373_329_2e-3;
    let bottom = bottom * square - 1.426_473_9e-2;
    x * top / bottom
}

/// Sums that are kept apart, so that additions need not wait for each other.
const LANES: usize = 16;

/// The sum of `n` numbers.
#[inline(always)]
pub fn lane_sum(values: impl Fn(usize) -> f32, n: usize) -> f32 {
    let mut sums = [0f32; LANES];
    let whole = n - n % LANES;
    for begin in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += values(begin + lane);
        }
    }
    (whole..n).fold(sums.iter().sum(), |total, i| total + values(i))
}

/// An IEEE half as f32: the exponent's bias grows from 15 to 127.
#[inline(always)]
pub fn widen_f16(half: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff) << 13);
    let scaled = (f32::from_bits(rest) * TWO_TO_112).to_bits();
    // The largest exponent is infinity and what is no number.
    let bits = if rest >= 0x1f << 23 { rest | 0x7f80_0000 } else { scaled };
    f32::from_bits(sign | bits)
}
