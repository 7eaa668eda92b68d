//! The near file of a large segment: what finds the vectors near a query without looking at all of them.
//!
//! Vectors lie in lists around centres (an inverted file); of what a vector differs from its centre by, rotated at random, the
//! signs alone are kept, with a factor that makes their products with a query unbiased estimates (RaBitQ: Gao and Long,
//! SIGMOD 2024). A search visits the lists whose centres are nearest, ranks what is in them by estimates, and scores the best of
//! these exactly by the segment's dense file. Everything is derived from that file, and the same file gives the same bytes.
//!
//! ```text
//! 0 version, dim, lists, entries, low and high half of the seed, u32
//! 1 centres: scales [lists] f32, root mean square distances of their entries [lists] f32, codes [lists, dim] i8
//! 2 first entry of each list [lists + 1] u32     3 doc of each entry [entries] u32     4 factor of each entry [entries] f32
//! 5 signs: per list whole blocks of 32 entries (see `scan`)     6 docs of a sample of names [n] u32, ascending
//! 7 their codes [n, dim] i8, as in the dense file
//! ```

mod clusters;
mod rotation;
mod scan;

use std::ops::Range;
use std::path::Path;

use clusters::{Clusters, Points, dot};
use rotation::Rotation;
use scan::{BLOCK, Kernel, Table, block_bytes, put_signs};

use super::dense::{Code, Dense, QueryCode, add_scores};
use super::section_file::{FileEntry, SectionFile, SectionWriter, u32_at};
use crate::Result;
use crate::vector::{prefetch, vectorized};

const KIND: [u8; 4] = *b"NEAR";
const VERSION: u32 = 2;
const SEED: u64 = 0x696e_686f_7573_6500;
/// Lists are so many times the root of the number of vectors: the more, the smaller the part of the vectors that must be visited, and
/// the more centres a query is compared with.
const LISTS_PER_ROOT: usize = 4;
/// Vectors that the centres are fitted to, a list.
const SAMPLE_PER_LIST: usize = 32;
/// Names in the sample that a query's scores are standardised by, and records of each.
const SAMPLE_NAMES: usize = 2048;
const SAMPLE_PER_NAME: usize = 4;

/// Vectors that a search visits. More of them grow recall and cost; see benches/runs for the figures at a million.
const VISITED_SHARE: f32 = 0.1;
const VISITED_LEAST: usize = 50_000;
/// Estimates that are scored exactly.
pub(super) const SHORT_LIST: usize = 400;
/// How much the spread of a list counts beside the product with its centre: what is strewn wide reaches nearer to a query.
const REACH: f32 = 0.2;
/// How far ahead signs are fetched.
const BLOCKS_AHEAD: usize = 2;

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
    let centres = clusters.centres.rows().map(Code::of).collect::<Result<Vec<_>>>()?;

    let (mut spreads, mut factors) = (Vec::with_capacity(lists.len()), Vec::with_capacity(docs.len()));
    let bytes = block_bytes(dim);
    let mut signs = Vec::with_capacity((docs.len() / BLOCK + lists.len()) * bytes);
    let (rotation, mut centre) = (Rotation::new(dim, SEED), vec![0f32; dim]);
    for (list, code) in lists.iter().zip(&centres) {
        code.vector(&mut centre);
        let mut squares = 0.0;
        for part in list.chunks(BLOCK) {
            let begin = signs.len();
            signs.resize(begin + bytes, 0u8);
            for (i, &doc) in part.iter().enumerate() {
                dense.vector(doc as usize, &mut vector)?;
                let block = &mut signs[begin..];
                let (square, length) = vectorized(
                    #[inline(always)]
                    || {
                        vector.iter_mut().zip(&centre).for_each(|(value, centre)| *value -= centre);
                        rotation.apply(&mut vector);
                        put_signs(block, i, &vector);
                        (dot(&vector, &vector), vector.iter().map(|value| value.abs()).sum::<f32>())
                    },
                );
                factors.push(square / length.max(f32::MIN_POSITIVE));
                squares += square;
            }
        }
        spreads.push((squares / list.len().max(1) as f32).sqrt());
    }

    let mut out = SectionWriter::create(dir, name, KIND)?;
    let seed = [SEED as u32, (SEED >> 32) as u32];
    out.u32s([VERSION, dim as u32, lists.len() as u32, docs.len() as u32, seed[0], seed[1]])?;
    out.u32s(centres.iter().map(Code::scale).chain(spreads).map(f32::to_bits))?;
    centres.iter().try_for_each(|centre| out.write(&centre.bytes()))?;
    let mut end = 0u32;
    out.u32s(std::iter::once(0).chain(lists.iter().map(|list| {
        end += list.len() as u32;
        end
    })))?;
    out.u32s(lists.iter().flatten().copied())?;
    out.u32s(factors.iter().map(|factor| factor.to_bits()))?;
    out.section();
    out.write(&signs)?;

    let sample = sample_of_names(&docs, name_of);
    out.u32s(sample.iter().copied())?;
    out.section();
    for doc in sample {
        out.write(&dense.code(doc as usize)?.bytes())?;
    }
    out.finish()
}

/// Lists fitted to a sample of the `docs` with vectors: see [`LISTS_PER_ROOT`].
fn fit(dense: &Dense, docs: &[u32]) -> Result<Clusters> {
    let dim = dense.dim();
    let lists = (LISTS_PER_ROOT * docs.len().isqrt()).max(1);
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
    /// First entry of each list, and the number of all.
    starts: Vec<u32>,
    /// First block of each list, and the number of all.
    first_blocks: Vec<u32>,
    /// Docs of the sample, and the scales of their codes.
    sample: Vec<u32>,
    sample_scales: Vec<f32>,
    centre_scales: Vec<f32>,
    /// Root of the mean square distance of each list's vectors from their centre.
    spreads: Vec<f32>,
}

impl Near {
    /// Opens the file that is about the vectors of `dense`; `None` where it is of a version that this build does not know.
    pub fn open(dir: &Path, entry: &FileEntry, dense: &Dense) -> Result<Option<Self>> {
        let dim = dense.dim();
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
        let u32s = |section: usize, range: Range<usize>| -> Result<Vec<u32>> {
            let words = file.bytes(section, range)?.as_chunks::<4>().0;
            Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
        };
        let (starts, sample) = (u32s(2, 0..file.section_len(2))?, u32s(6, 0..file.section_len(6))?);
        let first_blocks: Vec<u32> = std::iter::once(0)
            .chain(starts.windows(2).scan(0u32, |block, pair| {
                *block = block.saturating_add(pair[1].saturating_sub(pair[0]).div_ceil(BLOCK as u32));
                Some(*block)
            }))
            .collect();
        let blocks = first_blocks.last().map_or(0, |blocks| *blocks as usize);
        let fits = starts.len() == lists + 1
            && starts.is_sorted()
            && starts.first() == Some(&0)
            && starts.last().is_some_and(|last| *last as usize == entries)
            && Some(file.section_len(1)) == lists.checked_mul(dim + 8)
            && file.section_len(3) == entries * 4
            && file.section_len(4) == entries * 4
            && Some(file.section_len(5)) == blocks.checked_mul(block_bytes(dim))
            && sample.is_sorted()
            && sample.last().is_none_or(|last| (*last as usize) < dense.docs())
            && file.section_len(7) == sample.len() * dim;
        if !fits {
            return Err(file.corrupted("its sections do not fit each other"));
        }
        let floats = |range| u32s(1, range).map(|words| words.into_iter().map(f32::from_bits).collect());
        let (centre_scales, spreads) = (floats(0..lists * 4)?, floats(lists * 4..lists * 8)?);
        let sample_scales = sample.iter().map(|doc| dense.scale(*doc as usize)).collect();
        let rotation = Rotation::new(dim, seed);
        Ok(Some(Self {
            file,
            dim,
            rotation,
            starts,
            first_blocks,
            sample,
            sample_scales,
            centre_scales,
            spreads,
        }))
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
        let mut centre_scores = Vec::with_capacity(self.centre_scales.len());
        let lists = self.centre_scales.len();
        add_scores(
            code,
            self.file.bytes(1, lists * 8..self.file.section_len(1))?,
            &self.centre_scales,
            &mut centre_scores,
        );
        // A centre of zeros has no direction.
        centre_scores.iter_mut().filter(|score| score.is_nan()).for_each(|score| *score = 0.0);
        let reach = REACH * dot(query, query).sqrt();
        let mut order: Vec<(f32, usize)> =
            (0..lists).map(|list| (centre_scores[list] + reach * self.spreads[list], list)).collect();
        let entries = self.starts.last().map_or(0, |last| *last as usize);
        let mut left = ((entries as f32 * VISITED_SHARE) as usize).max(VISITED_LEAST);
        let mut best = ShortList::default();
        let by_score = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        // Most lists need not be sorted: twice the visited share are enough, or nearly always.
        let likely = (lists * left * 2 / entries.max(1)).min(lists);
        if likely < lists {
            order.select_nth_unstable_by(likely, by_score);
        }
        let (likely, others) = order.split_at_mut(likely);
        for part in [likely, others] {
            if left == 0 {
                break;
            }
            part.sort_unstable_by(by_score);
            let mut part = part.iter().map(|(_, list)| *list).peekable();
            while let Some(list) = part.next().filter(|_| left > 0) {
                self.visit(list, part.peek().copied(), centre_scores[list], &table, &mut best, &skipped)?;
                left = left.saturating_sub((self.starts[list + 1] - self.starts[list]) as usize);
            }
        }
        dense.scores_of(code, &best.docs())
    }

    /// The stored signs, factors and docs of a list.
    fn list(&self, list: usize) -> Result<(&[u8], &[u8], &[u8])> {
        let bytes = block_bytes(self.dim);
        let entries = self.starts[list] as usize * 4..self.starts[list + 1] as usize * 4;
        let blocks = self.first_blocks[list] as usize..self.first_blocks[list + 1] as usize;
        let signs = self.file.bytes(5, blocks.start * bytes..blocks.end * bytes)?;
        Ok((signs, self.file.bytes(4, entries.clone())?, self.file.bytes(3, entries)?))
    }

    /// Puts what is best of `list` into `best`; `next` is the list that will be visited after it.
    fn visit(
        &self,
        list: usize,
        next: Option<usize>,
        centre_score: f32,
        table: &Table,
        best: &mut ShortList,
        skipped: &impl Fn(usize) -> bool,
    ) -> Result<()> {
        let bytes = block_bytes(self.dim);
        let (signs, factors, docs) = self.list(list)?;
        let (next_signs, next_factors, next_docs) = match next {
            Some(next) => self.list(next)?,
            None => (&[][..], &[][..], &[][..]),
        };
        prefetch(next_factors);
        prefetch(next_docs);
        prefetch(&next_signs[..next_signs.len().min(BLOCKS_AHEAD * bytes)]);
        let kernel = Kernel::best();
        kernel.run(
            #[inline(always)]
            || {
                let factors = factors.as_chunks::<4>().0;
                for (b, (block, factors)) in signs.chunks_exact(bytes).zip(factors.chunks(BLOCK)).enumerate()
                {
                    let later = &signs[signs.len().min((b + BLOCKS_AHEAD) * bytes)..];
                    prefetch(&later[..later.len().min(bytes)]);
                    let mut scores = table.products(block, kernel);
                    let mut most = f32::NEG_INFINITY;
                    for (score, factor) in scores.iter_mut().zip(factors) {
                        *score = centre_score + *score * f32::from_le_bytes(*factor);
                        most = if *score > most { *score } else { most };
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
            },
        );
        Ok(())
    }

    /// The docs of the sample.
    pub fn sample(&self) -> &[u32] {
        &self.sample
    }

    /// The exact products of a query with the vectors of the sample; NaN for a doc without one.
    pub fn sample_scores(&self, code: &QueryCode) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(self.sample.len());
        add_scores(code, self.file.section(7)?, &self.sample_scales, &mut scores);
        Ok(scores)
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

    fn docs(mut self) -> Vec<u32> {
        self.cut();
        self.found.into_iter().map(|(_, doc)| doc).collect()
    }
}
