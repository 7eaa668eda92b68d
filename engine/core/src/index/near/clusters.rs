//! Lists of neighbouring vectors: k-means in two levels (Lloyd's algorithm, "Least squares quantization in PCM", 1982), so that
//! a vector is compared with about four times the root of the number of lists.

use crate::vector::vectorized;

const ITERATIONS: usize = 8;
/// Neighbouring groups whose lists a vector is compared with.
const GROUPS_TRIED: usize = 3;
/// Four registers of eight: sums of a single one would wait for each other.
const LANES: usize = 32;

/// Points and half their squared length.
#[derive(Debug, Clone, Default)]
pub(super) struct Points {
    pub dim: usize,
    /// `[n, dim]`.
    pub values: Vec<f32>,
    half_squares: Vec<f32>,
}

impl Points {
    pub fn new(dim: usize, values: Vec<f32>) -> Self {
        let half_squares = values.chunks_exact(dim).map(|row| dot(row, row) / 2.0).collect();
        Self { dim, values, half_squares }
    }

    pub fn len(&self) -> usize {
        self.half_squares.len()
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dim)
    }

    /// How near `vector` is to each point: the more the nearer (its squared length less the squared distance, halved).
    fn nearness(&self, vector: &[f32], out: &mut Vec<f32>) {
        out.clear();
        vectorized(
            #[inline(always)]
            || {
                for (row, half) in self.rows().zip(&self.half_squares) {
                    out.push(dot(row, vector) - half);
                }
            },
        );
    }

    /// The nearest point within `range`, and its nearness.
    fn nearest(&self, vector: &[f32], range: std::ops::Range<usize>) -> (usize, f32) {
        let mut best = (range.start, f32::NEG_INFINITY);
        vectorized(
            #[inline(always)]
            || {
                for i in range {
                    let nearness = dot(self.row(i), vector) - self.half_squares[i];
                    if nearness > best.1 {
                        best = (i, nearness);
                    }
                }
            },
        );
        best
    }
}

/// The dot product; the order of the sums does not depend on the processor.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Centres of lists in groups.
#[derive(Debug)]
pub(super) struct Clusters {
    groups: Points,
    /// Lists of each group: `starts[g]..starts[g + 1]`.
    starts: Vec<usize>,
    /// The centre of each list.
    pub centres: Points,
}

impl Clusters {
    /// About `lists` lists fitted to `sample`. The same sample gives the same lists.
    pub fn fit(sample: &Points, lists: usize) -> Self {
        let all: Vec<usize> = (0..sample.len()).collect();
        let (groups, group_of) = lloyd(sample, &all, lists.isqrt().max(1));
        let mut members = vec![Vec::new(); groups.len()];
        for (i, group) in group_of.into_iter().enumerate() {
            members[group].push(i);
        }
        let (mut starts, mut centres) = (vec![0], Vec::new());
        for (group, members) in members.iter().enumerate() {
            if members.is_empty() {
                centres.extend_from_slice(groups.row(group));
            } else {
                let share = (members.len() * lists).div_ceil(sample.len()).max(1);
                centres.extend_from_slice(&lloyd(sample, members, share).0.values);
            }
            starts.push(centres.len() / sample.dim);
        }
        Self { groups, starts, centres: Points::new(sample.dim, centres) }
    }

    /// The list of `vector`. `scratch` keeps its memory from call to call.
    pub fn list_of(&self, vector: &[f32], scratch: &mut Vec<f32>) -> usize {
        self.groups.nearness(vector, scratch);
        let mut best = (0, f32::NEG_INFINITY);
        for _ in 0..GROUPS_TRIED.min(scratch.len()) {
            let nearest = scratch.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            let Some((group, _)) = nearest else { break };
            scratch[group] = f32::NEG_INFINITY;
            let found = self.centres.nearest(vector, self.starts[group]..self.starts[group + 1]);
            if found.1 > best.1 {
                best = found;
            }
        }
        best.0
    }
}

/// `k` means of the `members` of `points`, and the mean that each member is nearest to.
fn lloyd(points: &Points, members: &[usize], k: usize) -> (Points, Vec<usize>) {
    let k = k.clamp(1, members.len().max(1));
    let dim = points.dim;
    // Evenly spaced members: the caller's points are in an order that means nothing.
    let start = (0..k).flat_map(|i| points.row(members[i * members.len() / k])).copied().collect();
    let mut means = Points::new(dim, start);
    let mut mean_of = vec![0; members.len()];
    for _ in 0..ITERATIONS {
        let mut sums = vec![0f32; k * dim];
        let mut counts = vec![0usize; k];
        for (&member, mean) in members.iter().zip(&mut mean_of) {
            *mean = means.nearest(points.row(member), 0..k).0;
            counts[*mean] += 1;
            let sum = &mut sums[*mean * dim..(*mean + 1) * dim];
            sum.iter_mut().zip(points.row(member)).for_each(|(sum, value)| *sum += value);
        }
        for (i, (sum, &count)) in sums.chunks_exact_mut(dim).zip(&counts).enumerate() {
            match count {
                0 => sum.copy_from_slice(means.row(i)),
                _ => sum.iter_mut().for_each(|value| *value /= count as f32),
            }
        }
        means = Points::new(dim, sums);
    }
    (means, mean_of)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn vectors_of_one_heap_share_their_lists() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let values = (0..600usize).flat_map(|i| {
            let heap = i % 6;
            (0..20).map(|at| f32::from(u8::from(at == heap))).collect::<Vec<_>>()
        });
        let values: Vec<f32> = values.map(|value| value + random.random_range(-0.05..0.05)).collect();
        let sample = Points::new(20, values);
        let clusters = Clusters::fit(&sample, 24);
        assert!((12..60).contains(&clusters.centres.len()), "{}", clusters.centres.len());
        let lists: Vec<usize> = (0..600).map(|i| clusters.list_of(sample.row(i), &mut Vec::new())).collect();
        for i in 0..600 {
            for j in 0..i {
                assert!(i % 6 == j % 6 || lists[i] != lists[j], "{i} {j}");
            }
        }
        // Fewer vectors than lists, and all alike.
        let alike = Points::new(3, vec![1.0; 15]);
        assert_eq!(Clusters::fit(&alike, 9).list_of(&[1.0; 3], &mut Vec::new()), 0);
    }
}
