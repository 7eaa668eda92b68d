//! Which blocks repeat another: exactly, or nearly, by MinHash over runs of words (Broder 1997) and locality-sensitive hashing.

use std::hash::Hasher;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

/// Words of a shingle.
const SHINGLE: usize = 5;
/// Hashes of a signature: `BANDS` of `ROWS` each, so that texts with a similarity of about (1/BANDS)^(1/ROWS) = 0.59 and
/// more are compared.
const BANDS: usize = 8;
const ROWS: usize = 4;
/// Share of equal hashes from which on two texts are the same.
const SAME: f64 = 0.8;

type Signature = [u32; BANDS * ROWS];

fn shingles(text: &str) -> FxHashSet<u64> {
    let words: Vec<&str> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let hash = |words: &[&str]| {
        let mut hasher = FxHasher::default();
        for word in words {
            hasher.write(word.as_bytes());
            hasher.write_u8(0);
        }
        hasher.finish()
    };
    if words.len() < SHINGLE {
        [hash(&words)].into_iter().collect()
    } else {
        words.windows(SHINGLE).map(hash).collect()
    }
}

fn signature(text: &str) -> Signature {
    let mut least = [u32::MAX; BANDS * ROWS];
    for shingle in shingles(text) {
        let mut state = shingle;
        for least in &mut least {
            // splitmix64: one good hash function after the other.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *least = (*least).min((mixed ^ (mixed >> 31)) as u32);
        }
    }
    least
}

/// For every text whether it stays: the first of those that are the same does. The second number is how many repeat exactly.
pub(super) fn distinct(texts: &[&str]) -> (Vec<bool>, usize) {
    let signatures: Vec<Signature> = texts.par_iter().map(|text| signature(text)).collect();
    let mut exact: FxHashSet<&str> = FxHashSet::default();
    let mut buckets: FxHashMap<(usize, [u32; ROWS]), Vec<u32>> = FxHashMap::default();
    let mut repeated = 0;
    let keep = texts
        .iter()
        .zip(&signatures)
        .enumerate()
        .map(|(i, (text, signature))| {
            if !exact.insert(text) {
                repeated += 1;
                return false;
            }
            let bands = || {
                signature.chunks_exact(ROWS).enumerate().map(|(band, rows)| {
                    let mut key = [0; ROWS];
                    key.copy_from_slice(rows);
                    (band, key)
                })
            };
            let alike = |other: u32| {
                let equal = signatures[other as usize].iter().zip(signature).filter(|(a, b)| a == b).count();
                equal as f64 >= SAME * signature.len() as f64
            };
            let near = bands()
                .any(|key| buckets.get(&key).is_some_and(|others| others.iter().any(|&other| alike(other))));
            if !near {
                for key in bands() {
                    let others = buckets.entry(key).or_default();
                    // What very many share is boilerplate: a few of them stand for all.
                    if others.len() < 16 {
                        others.push(i as u32);
                    }
                }
            }
            !near
        })
        .collect();
    (keep, repeated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_nearly_repeated_texts_go() {
        let long: String = (0..60).map(|i| format!("word{} = call_{i}(arg{i}, other)\n", i % 7)).collect();
        let near = long.replace("call_30", "call_x");
        let other: String = (0..60).map(|i| format!("thing{i} = other_{}(x, y)\n", i * 3)).collect();
        let (keep, exact) = distinct(&[&long, &other, &near, &long, "a = 1", "b = 2"]);
        assert_eq!(keep, [true, true, false, false, true, true]);
        assert_eq!(exact, 1);
    }
}
