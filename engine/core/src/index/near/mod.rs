//! The near file of a large segment: what finds the vectors near a query without looking at all of them.
//!
//! Vectors lie in lists around centres (an inverted file); of what a vector differs from its centre by, rotated at random, the
//! signs alone are kept, with a factor that makes their products with a query unbiased estimates (RaBitQ: Gao and Long,
//! SIGMOD 2024). A search visits the lists whose centres are nearest, ranks what is in them by estimates, and scores the best of
//! these exactly by the segment's dense file. Everything is derived from that file, and the same file gives the same bytes.
//!
//! ```text
//! 0 version, dim, lists, entries, low and high half of the seed, u32     1 rotated centres [lists, dim] f32
//! 2 first entry of each list [lists + 1] u32     3 doc of each entry [entries] u32     4 factor of each entry [entries] f32
//! 5 signs: per list whole blocks of 32 entries (see `scan`)     6 docs of a sample of names [n] u32, ascending
//! 7 their vectors [n, dim] f32
//! ```

mod clusters;
mod rotation;
mod scan;

use std::path::Path;

use clusters::{Clusters, Points, dot};
use rotation::Rotation;
use scan::{BLOCK, Kernel, Table, block_bytes, put_signs};

use super::dense::{Dense, QueryCode};
use super::section_file::{FileEntry, SectionFile, SectionWriter, u32_at};
use crate::Result;
use crate::vector::vectorized;

const KIND: [u8; 4] = *b"NEAR";
const VERSION: u32 = 1;
const SEED: u64 = 0x696e_686f_7573_6500;
/// Vectors that the centres are fitted to, a list.
const SAMPLE_PER_LIST: usize = 32;
/// Names in the sample that a query's scores are standardised by, and records of each.
const SAMPLE_NAMES: usize = 2048;
const SAMPLE_PER_NAME: usize = 4;

/// What a search looks at. Both grow recall and cost; see benches/runs for the figures at a million.
const VISITED_SHARE: f32 = 0.08;
const VISITED_LEAST: usize = 16_384;
/// Estimates that are scored exactly.
pub(super) const SHORT_LIST: usize = 1000;

/// Writes the near file of `dense` as `dir/name`; `name_of` is the name number of each doc.
pub(super) fn write(dir: &Path, name: &str, dense: &Dense, name_of: &[u32]) -> Result<FileEntry> {
    let dim = dense.dim();
    let docs: Vec<u32> =
        (0u32..).zip(name_of).map(|(doc, _)| doc).filter(|doc| dense.has(*doc as usize)).collect();
    let clusters = fit(dense, &docs)?;
    let mut lists = vec![Vec::new(); clusters.centres.len()];
    let (mut vector, mut scratch) = (vec![0f32; dim], Vec::new());
    for &doc in &docs {
        dense.vector(doc as usize, &mut vector)?;
        lists[clusters.list_of(&vector, &mut scratch)].push(doc);
    }
    let rotation = Rotation::new(dim, SEED);
    let mut centres = clusters.centres.values;
    centres.chunks_exact_mut(dim).for_each(|centre| vectorized(|| rotation.apply(centre)));

    let mut out = SectionWriter::create(dir, name, KIND)?;
    let seed = [SEED as u32, (SEED >> 32) as u32];
    out.u32s([VERSION, dim as u32, lists.len() as u32, docs.len() as u32, seed[0], seed[1]])?;
    out.u32s(centres.iter().map(|value| value.to_bits()))?;
    let mut end = 0u32;
    out.u32s(std::iter::once(0).chain(lists.iter().map(|list| {
        end += list.len() as u32;
        end
    })))?;
    out.u32s(lists.iter().flatten().copied())?;
    // The signs go to the file after the factors; they are an eighth of the codes, so they are kept meanwhile.
    let mut factors = Vec::with_capacity(docs.len());
    let bytes = block_bytes(dim);
    let mut signs = Vec::with_capacity((docs.len() / BLOCK + lists.len()) * bytes);
    for (list, centre) in lists.iter().zip(centres.chunks_exact(dim)) {
        for part in list.chunks(BLOCK) {
            let begin = signs.len();
            signs.resize(begin + bytes, 0u8);
            for (i, &doc) in part.iter().enumerate() {
                dense.vector(doc as usize, &mut vector)?;
                vectorized(|| rotation.apply(&mut vector));
                vector.iter_mut().zip(centre).for_each(|(value, centre)| *value -= centre);
                put_signs(&mut signs[begin..], i, &vector);
                let length: f32 = vector.iter().map(|value| value.abs()).sum();
                factors.push(dot(&vector, &vector) / length.max(f32::MIN_POSITIVE));
            }
        }
    }
    out.u32s(factors.iter().map(|factor| factor.to_bits()))?;
    out.section();
    out.write(&signs)?;

    let sample = sample_of_names(&docs, name_of);
    out.u32s(sample.iter().copied())?;
    out.section();
    for doc in sample {
        dense.vector(doc as usize, &mut vector)?;
        vector.iter().try_for_each(|value| out.write(&value.to_le_bytes()))?;
    }
    out.finish()
}

/// Lists fitted to a sample of the `docs` with vectors: about as many as the root of their number.
fn fit(dense: &Dense, docs: &[u32]) -> Result<Clusters> {
    let dim = dense.dim();
    let lists = docs.len().isqrt().max(1);
    let wanted = (lists * SAMPLE_PER_LIST).min(docs.len());
    let mut values = vec![0f32; wanted * dim];
    // Docs are in the order of their names, so that evenly spaced ones are of all kinds; strewn, since `lloyd` starts from
    // evenly spaced points as well.
    let stride =
        (1..).map(|n| wanted * 3 / 8 + n).find(|stride| gcd(*stride, wanted.max(1)) == 1).unwrap_or(1);
    for (i, row) in values.chunks_exact_mut(dim).enumerate() {
        let strewn = i * stride % wanted;
        dense.vector(docs[strewn * docs.len() / wanted] as usize, row)?;
    }
    Ok(Clusters::fit(&Points::new(dim, values), lists))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The first docs of evenly spaced names, ascending.
fn sample_of_names(docs: &[u32], name_of: &[u32]) -> Vec<u32> {
    let starts: Vec<usize> = (0..docs.len())
        .filter(|i| *i == 0 || name_of[docs[*i] as usize] != name_of[docs[*i - 1] as usize])
        .collect();
    let n = SAMPLE_NAMES.min(starts.len());
    let names = (0..n).map(|i| starts[i * starts.len() / n]);
    names
        .flat_map(|start| {
            let name = name_of[docs[start] as usize];
            docs[start..].iter().take(SAMPLE_PER_NAME).take_while(move |doc| name_of[**doc as usize] == name)
        })
        .copied()
        .collect()
}

/// An open near file.
#[derive(Debug)]
pub(super) struct Near {
    file: SectionFile,
    dim: usize,
    rotation: Rotation,
    centres: Vec<f32>,
    starts: Vec<u32>,
    sample: Vec<u32>,
}

impl Near {
    /// Opens the file that is about `docs` vectors of `dim`; `None` where it is of a version that this build does not know.
    pub fn open(dir: &Path, entry: &FileEntry, docs: usize, dim: usize) -> Result<Option<Self>> {
        let file = SectionFile::open(dir, entry, KIND, 8)?;
        let head = file.section(0)?;
        if head.len() < 4 {
            return Err(file.corrupted("it has no version"));
        }
        if u32_at(head, 0) != VERSION {
            return Ok(None);
        }
        if head.len() != 24 || u32_at(head, 1) as usize != dim {
            return Err(file.corrupted(format!("it is not about vectors of {dim}")));
        }
        let (lists, entries) = (u32_at(head, 2) as usize, u32_at(head, 3) as usize);
        let seed = u64::from(u32_at(head, 4)) | u64::from(u32_at(head, 5)) << 32;
        let u32s = |section: usize| -> Result<Vec<u32>> {
            Ok(file
                .section(section)?
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| u32::from_le_bytes(*word))
                .collect())
        };
        let (starts, sample) = (u32s(2)?, u32s(6)?);
        let centres: Vec<f32> = u32s(1)?.into_iter().map(f32::from_bits).collect();
        let blocks: usize =
            starts.windows(2).map(|pair| (pair[1].saturating_sub(pair[0]) as usize).div_ceil(BLOCK)).sum();
        let fits = starts.len() == lists + 1
            && starts.is_sorted()
            && starts.first() == Some(&0)
            && starts.last().is_some_and(|last| *last as usize == entries)
            && Some(centres.len()) == lists.checked_mul(dim)
            && file.section_len(3) == entries * 4
            && file.section_len(4) == entries * 4
            && Some(file.section_len(5)) == blocks.checked_mul(block_bytes(dim))
            && sample.is_sorted()
            && sample.iter().all(|doc| (*doc as usize) < docs)
            && file.section_len(7) == sample.len() * dim * 4;
        if !fits {
            return Err(file.corrupted("its sections do not fit each other"));
        }
        Ok(Some(Self { file, dim, rotation: Rotation::new(dim, seed), centres, starts, sample }))
    }

    /// The docs nearest to `query` and not `skipped`, with their exact scores: at most [`SHORT_LIST`], in no order.
    pub fn search(
        &self,
        query: &[f32],
        code: &QueryCode,
        dense: &Dense,
        skipped: impl Fn(usize) -> bool,
    ) -> Result<Vec<(u32, f32)>> {
        let mut rotated = query.to_vec();
        self.rotation.apply(&mut rotated);
        let table = Table::new(&rotated);
        let mut order: Vec<(f32, usize)> = vectorized(|| {
            self.centres
                .chunks_exact(self.dim)
                .enumerate()
                .map(|(i, centre)| (dot(centre, &rotated), i))
                .collect()
        });
        order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let first_block: Vec<usize> = self
            .starts
            .windows(2)
            .scan(0, |block, pair| {
                let first = *block;
                *block += ((pair[1] - pair[0]) as usize).div_ceil(BLOCK);
                Some(first)
            })
            .collect();
        let entries = self.starts.last().map_or(0, |last| *last as usize);
        let mut left = ((entries as f32 * VISITED_SHARE) as usize).max(VISITED_LEAST);
        let mut best = ShortList::default();
        for (centre_score, list) in order {
            let (start, end) = (self.starts[list] as usize, self.starts[list + 1] as usize);
            self.visit(start..end, first_block[list], centre_score, &table, &mut best, &skipped)?;
            left = left.saturating_sub(end - start);
            if left == 0 {
                break;
            }
        }
        let mut scored = Vec::with_capacity(SHORT_LIST);
        for doc in best.docs() {
            let score = dense.score(code, doc as usize)?;
            if !score.is_nan() {
                scored.push((doc, score));
            }
        }
        Ok(scored)
    }

    fn visit(
        &self,
        entries: std::ops::Range<usize>,
        first_block: usize,
        centre_score: f32,
        table: &Table,
        best: &mut ShortList,
        skipped: &impl Fn(usize) -> bool,
    ) -> Result<()> {
        let bytes = block_bytes(self.dim);
        let blocks = entries.len().div_ceil(BLOCK);
        let signs = self.file.bytes(5, first_block * bytes..(first_block + blocks) * bytes)?;
        let factors = self.file.bytes(4, entries.start * 4..entries.end * 4)?.as_chunks::<4>().0;
        let docs = self.file.bytes(3, entries.start * 4..entries.end * 4)?;
        let kernel = Kernel::best();
        kernel.run(|| {
            for (b, (signs, factors)) in signs.chunks_exact(bytes).zip(factors.chunks(BLOCK)).enumerate() {
                let mut scores = table.products(signs, kernel);
                let mut most = f32::NEG_INFINITY;
                for (score, factor) in scores.iter_mut().zip(factors) {
                    *score = centre_score + *score * f32::from_le_bytes(*factor);
                    most = most.max(*score);
                }
                if most <= best.least {
                    continue;
                }
                for (i, score) in scores[..factors.len()].iter().enumerate() {
                    let doc = u32_at(docs, b * BLOCK + i);
                    if *score > best.least && !skipped(doc as usize) {
                        best.push(*score, doc);
                    }
                }
            }
        });
        Ok(())
    }

    /// The exact products of `query` with the vectors of the sample, and their docs.
    pub fn sample_scores(&self, query: &[f32]) -> Result<Vec<(u32, f32)>> {
        let vectors = self.file.section(7)?.as_chunks::<4>().0;
        Ok(vectorized(|| {
            let mut row = vec![0f32; self.dim];
            let score = |words: &[[u8; 4]]| {
                row.iter_mut().zip(words).for_each(|(value, word)| *value = f32::from_le_bytes(*word));
                dot(&row, query)
            };
            self.sample.iter().copied().zip(vectors.chunks_exact(self.dim).map(score)).collect()
        }))
    }
}

/// The entries with the highest estimates so far.
#[derive(Debug)]
struct ShortList {
    found: Vec<(f32, u32)>,
    /// What a further one must exceed.
    least: f32,
}

impl Default for ShortList {
    fn default() -> Self {
        Self { found: Vec::with_capacity(2 * SHORT_LIST), least: f32::NEG_INFINITY }
    }
}

impl ShortList {
    fn push(&mut self, score: f32, doc: u32) {
        self.found.push((score, doc));
        if self.found.len() == 2 * SHORT_LIST {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.found.len() > SHORT_LIST {
            self.found.select_nth_unstable_by(SHORT_LIST - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.found.truncate(SHORT_LIST);
            self.least = self.found[SHORT_LIST - 1].0;
        }
    }

    fn docs(mut self) -> impl Iterator<Item = u32> {
        self.cut();
        self.found.into_iter().map(|(_, doc)| doc)
    }
}
