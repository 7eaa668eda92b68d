//! The impacts file of a large segment: what lets a search pass over most of the postings of common words.
//!
//! Docs lie in windows of [`WINDOW`]. Of every term with many postings the file keeps how much it adds at most in each window, in
//! a byte (as Mallia, Suel and Tonellotto, "Faster learned sparse retrieval with block-max pruning", SIGIR 2024), where its postings
//! of a doc begin, and the figures that a search of all of them would give. It is derived from the records and sparse files, and
//! the same files give the same bytes.
//!
//! ```text
//! 0 version u32, average length that the rest was computed with f32     1 terms [n] u32, ascending
//! 2 figures [n]: first byte in 3 u64, names u32, sum and sum of squares over names of the most that the term adds f32, f32
//! 3 per term: blocks of 128 postings, the last one shorter: last doc u32, first byte within the term's postings u32;
//!   then, per window, the most that the term adds there u8, in steps of (K1 + 1) / 255, rounded up
//! ```
//!
//! What a term adds is computed for a weight of 1.

use std::borrow::Cow;
use std::path::Path;

use super::postings::Postings;
use super::ranking::{MOST_OF_WEIGHT, contribution};
use super::section_file::{FileEntry, SectionFile, SectionWriter, u32_at};
use crate::Result;

const KIND: [u8; 4] = *b"IMPC";
const VERSION: u32 = 2;
/// Docs that bounds are kept of together.
pub(super) const WINDOW: usize = 32;
/// Postings in a block.
const BLOCK: usize = 128;
const BLOCK_BYTES: usize = 8;
const FIGURE_BYTES: usize = 20;
/// Terms with fewer postings have no figures, since all of these are soon read; nor have those with so few that bounds would take
/// more than eight bytes a posting.
const FEW: usize = 256;
const WINDOWS_PER_POSTING: usize = 8;
/// Bounds and scores are sums in different orders.
const ROUNDING: f32 = 1.0 + 1e-5;
/// What a step of a bound is.
const STEP: f32 = MOST_OF_WEIGHT / 255.0;

/// What adds no more than so many steps.
fn steps(adds: f32) -> u8 {
    // One that rounds down to a whole number of steps may be above it by a rounding, which `ROUNDING` covers.
    (adds / STEP).ceil().clamp(0.0, 255.0) as u8
}

/// Writes the impacts of `postings` as `dir/name`; `name_of` and `lengths` are of each doc.
pub(super) fn write(
    dir: &Path,
    name: &str,
    postings: &Postings,
    name_of: &[u32],
    lengths: &[u32],
) -> Result<FileEntry> {
    let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    let average = (total as f64 / lengths.len().max(1) as f64).max(1.0) as f32;
    let n_windows = lengths.len().div_ceil(WINDOW);
    let (mut terms, mut figures, mut lists) = (Vec::new(), Vec::new(), Vec::<u8>::new());
    let mut found = Vec::new();
    for term in 0..postings.n_terms() {
        let list = postings.list(term)?;
        found.clear();
        let (mut bytes, mut next) = (list, 0);
        while !bytes.is_empty() {
            let at = (list.len() - bytes.len()) as u32;
            let (doc, frequency) = postings.take(&mut bytes, &mut next)?;
            found.push((at, doc, contribution(1.0, frequency, lengths[doc as usize], average)));
        }
        if found.len() < FEW.max(n_windows / WINDOWS_PER_POSTING) {
            continue;
        }
        let (mut names, mut sum, mut squares) = (0u32, 0f64, 0f64);
        for name in found.chunk_by(|a, b| name_of[a.1 as usize] == name_of[b.1 as usize]) {
            let most = name.iter().map(|posting| posting.2).fold(0f32, f32::max);
            names += 1;
            sum += f64::from(most);
            squares += f64::from(most).powi(2);
        }
        terms.push(term as u32);
        figures.extend_from_slice(&(lists.len() as u64).to_le_bytes());
        for word in [names, (sum as f32).to_bits(), (squares as f32).to_bits()] {
            figures.extend_from_slice(&word.to_le_bytes());
        }
        for block in found.chunks(BLOCK) {
            for word in [block[block.len() - 1].1, block[0].0] {
                lists.extend_from_slice(&word.to_le_bytes());
            }
        }
        let bounds = lists.len();
        lists.resize(bounds + n_windows, 0);
        for (_, doc, adds) in &found {
            let most = &mut lists[bounds + *doc as usize / WINDOW];
            *most = steps(*adds).max(*most);
        }
    }
    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.u32s([VERSION, average.to_bits()])?;
    out.u32s(terms)?;
    out.section();
    out.write(&figures)?;
    out.section();
    out.write(&lists)?;
    out.finish()
}

/// An open impacts file.
#[derive(Debug)]
pub(super) struct Impacts {
    file: SectionFile,
    average_length: f32,
}

impl Impacts {
    /// Opens `dir/entry.name`; `None` where it is of a version that this build does not know.
    pub fn open(dir: &Path, entry: &FileEntry) -> Result<Option<Self>> {
        let file = SectionFile::open(dir, entry, KIND, 4)?;
        let head = file.section(0)?;
        if head.len() < 4 {
            return Err(file.corrupted("it has no version"));
        }
        if u32_at(head, 0) != VERSION {
            return Ok(None);
        }
        let average_length = if head.len() == 8 { f32::from_bits(u32_at(head, 1)) } else { 0.0 };
        let fits = average_length >= 1.0
            && file.section_len(1).is_multiple_of(4)
            && file.section_len(2) == file.section_len(1) / 4 * FIGURE_BYTES;
        if !fits {
            return Err(file.corrupted("its sections do not fit each other"));
        }
        Ok(Some(Self { file, average_length }))
    }

    /// The position of `term` among those with figures.
    fn find(&self, term: usize) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, self.file.section_len(1) / 4);
        while low < high {
            let middle = low + (high - low) / 2;
            let there = u32_at(self.file.bytes(1, middle * 4..middle * 4 + 4)?, 0) as usize;
            match there.cmp(&term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// The figures of the term at `i`, and what section 3 has of it.
    fn term(&self, i: usize) -> Result<(Figures, &[u8])> {
        let figures = |i: usize| self.file.bytes(2, i * FIGURE_BYTES..(i + 1) * FIGURE_BYTES);
        let first =
            |figures: &[u8]| (u64::from(u32_at(figures, 1)) << 32 | u64::from(u32_at(figures, 0))) as usize;
        let found = figures(i)?;
        let end = match i + 1 < self.file.section_len(1) / 4 {
            true => first(figures(i + 1)?),
            false => self.file.section_len(3),
        };
        let float = |at: usize| f64::from(f32::from_bits(u32_at(found, at)));
        let figures = Figures { names: u32_at(found, 2) as usize, sum: float(3), squares: float(4) };
        Ok((figures, self.file.bytes(3, first(found)..end)?))
    }
}

/// What a query needs to know of a term in a segment as a whole, for a weight of 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    /// Names with the term.
    pub names: usize,
    /// Sum over names of the most that it adds.
    pub sum: f64,
    /// Sum of the squares of these.
    pub squares: f64,
}

/// The postings of one term in one segment, in blocks that are read when they are needed.
#[derive(Debug)]
pub(super) struct List<'s> {
    postings: &'s Postings,
    lengths: &'s [u32],
    bytes: &'s [u8],
    /// As in section 3.
    blocks: Cow<'s, [u8]>,
    bounds: Cow<'s, [u8]>,
    /// What bounds are multiplied by to be bounds for a weight of 1.
    bound_scale: f32,
    average_length: f32,
    /// The first block that may still be of interest.
    at: usize,
    /// The block that is read, its docs and frequencies, and the first of them that may still be of interest.
    reading: Option<usize>,
    docs: Vec<u32>,
    frequencies: Vec<u32>,
    next: usize,
    /// What is known of the term.
    pub figures: Figures,
    /// Its weight.
    pub weight_idf: f32,
}

impl<'s> List<'s> {
    /// The postings of `term`; `None` where the segment has none.
    pub fn open(
        term: &str,
        postings: &'s Postings,
        impacts: Option<&'s Impacts>,
        name_of: &[u32],
        lengths: &'s [u32],
        average_length: f32,
        deleted: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>> {
        let Some(number) = postings.find(term)? else { return Ok(None) };
        let bytes = postings.list(number)?;
        let mut list = Self {
            postings,
            lengths,
            bytes,
            blocks: Cow::Borrowed(&[]),
            bounds: Cow::Borrowed(&[]),
            bound_scale: STEP * ROUNDING,
            average_length,
            at: 0,
            reading: None,
            docs: Vec::with_capacity(BLOCK),
            frequencies: Vec::with_capacity(BLOCK),
            next: 0,
            figures: Figures::default(),
            weight_idf: 0.0,
        };
        if let Some(impacts) = impacts
            && let Some(i) = impacts.find(number)?
        {
            list.use_impacts(impacts, i)?;
        } else {
            list.read_all(name_of, deleted)?;
        }
        Ok(Some(list))
    }

    fn use_impacts(&mut self, impacts: &'s Impacts, i: usize) -> Result<()> {
        let (figures, bytes) = impacts.term(i)?;
        let n_windows = self.lengths.len().div_ceil(WINDOW);
        let blocks = bytes.len().checked_sub(n_windows).filter(|n| *n > 0 && n.is_multiple_of(BLOCK_BYTES));
        let Some(blocks) = blocks else { return Err(impacts.file.corrupted("a term has no blocks")) };
        let (blocks, bounds) = bytes.split_at(blocks);
        (self.blocks, self.bounds, self.figures) = (Cow::Borrowed(blocks), Cow::Borrowed(bounds), figures);
        // What a posting adds grows at most as the average length does.
        self.bound_scale *= (self.average_length / impacts.average_length).max(1.0);
        Ok(())
    }

    /// Computes from all postings what impacts would say.
    fn read_all(&mut self, name_of: &[u32], deleted: impl Fn(usize) -> bool) -> Result<()> {
        let (mut bytes, mut next) = (self.bytes, 0);
        // Last doc and first byte of each block.
        let mut blocks: Vec<[u32; 2]> = Vec::new();
        let mut count = 0;
        let (mut name, mut most_of_name) = (u32::MAX, 0f32);
        let mut bounds = vec![0u8; self.lengths.len().div_ceil(WINDOW)];
        let figures = &mut self.figures;
        while !bytes.is_empty() {
            if count % BLOCK == 0 {
                blocks.push([0, (self.bytes.len() - bytes.len()) as u32]);
            }
            let (doc, frequency) = self.postings.take(&mut bytes, &mut next)?;
            if let Some(block) = blocks.last_mut() {
                block[0] = doc;
            }
            count += 1;
            if deleted(doc as usize) {
                continue;
            }
            let adds = contribution(1.0, frequency, self.lengths[doc as usize], self.average_length);
            let most = &mut bounds[doc as usize / WINDOW];
            *most = steps(adds).max(*most);
            if name_of[doc as usize] != name {
                figures.sum += f64::from(most_of_name);
                figures.squares += f64::from(most_of_name).powi(2);
                (name, most_of_name) = (name_of[doc as usize], 0.0);
                figures.names += 1;
            }
            most_of_name = most_of_name.max(adds);
        }
        figures.sum += f64::from(most_of_name);
        figures.squares += f64::from(most_of_name).powi(2);
        self.blocks = Cow::Owned(blocks.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect());
        self.bounds = Cow::Owned(bounds);
        Ok(())
    }

    fn n_blocks(&self) -> usize {
        self.blocks.len() / BLOCK_BYTES
    }

    fn last(&self, block: usize) -> u32 {
        u32_at(&self.blocks, block * 2)
    }

    /// The most that the term adds to the score of a doc of a window.
    pub fn bound(&self, window: usize) -> f32 {
        self.bounds.get(window).map_or(0.0, |steps| f32::from(*steps) * (self.bound_scale * self.weight_idf))
    }

    /// Adds [`bound`](Self::bound) of every window to `sums`.
    pub fn add_bounds(&self, sums: &mut [f32]) {
        let scale = self.bound_scale * self.weight_idf;
        for (sum, steps) in sums.iter_mut().zip(&*self.bounds) {
            *sum += f32::from(*steps) * scale;
        }
    }

    /// Back to the first posting.
    pub fn rewind(&mut self) {
        (self.at, self.reading) = (0, None);
    }

    /// Passes over the blocks that end before `doc`.
    fn skip_to(&mut self, doc: u32) {
        let n = self.n_blocks();
        if self.at >= n || self.last(self.at) >= doc {
            return;
        }
        // Galloping: the block is often near.
        let (mut low, mut step) = (self.at, 1);
        while low + step < n && self.last(low + step) < doc {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(n);
        // last(low) < doc, and last(high) >= doc or high is the end
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.last(middle) < doc { low = middle } else { high = middle }
        }
        self.at = high;
    }

    /// Goes on, in the block at `self.at`, to the first posting of `doc` or of a later one.
    fn read_to(&mut self, doc: u32) -> Result<()> {
        if self.reading != Some(self.at) {
            self.read_block()?;
        }
        while self.docs.get(self.next).is_some_and(|next| *next < doc) {
            self.next += 1;
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<()> {
        let mut next = if self.at == 0 { 0 } else { self.last(self.at - 1).saturating_add(1) };
        let begin = u32_at(&self.blocks, self.at * 2 + 1) as usize;
        let end = match self.at + 1 < self.n_blocks() {
            true => u32_at(&self.blocks, self.at * 2 + 3) as usize,
            false => self.bytes.len(),
        };
        // An impacts file that does not fit its postings gives an error below, or postings that are there.
        let mut rest = self.bytes.get(begin..end).unwrap_or(&[]);
        self.docs.clear();
        self.frequencies.clear();
        while !rest.is_empty() {
            let (doc, frequency) = self.postings.take(&mut rest, &mut next)?;
            self.docs.push(doc);
            self.frequencies.push(frequency);
        }
        (self.next, self.reading) = (0, Some(self.at));
        Ok(())
    }

    /// What the term adds to the score of `doc`, the posting at `self.next`.
    fn adds(&self, doc: u32) -> f32 {
        let frequency = self.frequencies[self.next];
        contribution(self.weight_idf, frequency, self.lengths[doc as usize], self.average_length)
    }

    /// Calls `each` with doc and what the term adds, for the docs within `begin..end`; calls come in ascending order.
    pub fn each_within(&mut self, begin: u32, end: u32, mut each: impl FnMut(u32, f32)) -> Result<()> {
        self.skip_to(begin);
        while self.at < self.n_blocks() {
            self.read_to(begin)?;
            while let Some(&doc) = self.docs.get(self.next).filter(|doc| **doc < end) {
                each(doc, self.adds(doc));
                self.next += 1;
            }
            if self.next < self.docs.len() || self.last(self.at) >= end - 1 {
                break;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// What the term adds to the score of `doc`, 0 where the doc lacks it; calls come in ascending order.
    pub fn adds_to(&mut self, doc: u32) -> Result<f32> {
        self.skip_to(doc);
        if self.at >= self.n_blocks() {
            return Ok(0.0);
        }
        self.read_to(doc)?;
        Ok(if self.docs.get(self.next) == Some(&doc) { self.adds(doc) } else { 0.0 })
    }
}
