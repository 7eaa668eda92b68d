//! The impacts file of a large segment: what lets a search pass over most of the postings of common words.
//!
//! Of every term with many postings it keeps how much they add at most, block by block (Ding and Suel, "Faster top-k document
//! retrieval using block-max indexes", SIGIR 2011), and the figures that a search of all of them would give. It is derived from the
//! records and sparse files, and the same files give the same bytes.
//!
//! ```text
//! 0 version u32, average length that the figures were computed with f32     1 terms with figures [n] u32, ascending
//! 2 figures [n]: first block u32, names u32, sum and sum of squares over names of the most that the term adds f32, f32
//! 3 blocks of 128 postings, the last one shorter: last doc u32, first byte within the term's postings u32, most that it adds f32
//! ```
//!
//! What a term adds is computed for a weight of 1.

use std::borrow::Cow;
use std::path::Path;

use super::postings::Postings;
use super::ranking::contribution;
use super::section_file::{FileEntry, SectionFile, SectionWriter, u32_at};
use crate::Result;

const KIND: [u8; 4] = *b"IMPC";
const VERSION: u32 = 1;
/// Postings in a block; terms with fewer have no figures.
const BLOCK: usize = 128;
const BLOCK_BYTES: usize = 12;
const FIGURE_BYTES: usize = 16;
/// Bounds and scores are sums in different orders.
const ROUNDING: f32 = 1.0 + 1e-5;
/// Blocks that are so many times as wide as what is asked about are looked into.
const SPARSE: u32 = 4;

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
    let (mut terms, mut figures, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
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
        if found.len() < BLOCK {
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
        let first_block = (blocks.len() / BLOCK_BYTES) as u32;
        for word in [first_block, names, (sum as f32).to_bits(), (squares as f32).to_bits()] {
            figures.extend_from_slice(&word.to_le_bytes());
        }
        for block in found.chunks(BLOCK) {
            let most = block.iter().map(|posting| posting.2).fold(0f32, f32::max);
            for word in [block[block.len() - 1].1, block[0].0, most.to_bits()] {
                blocks.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.u32s([VERSION, average.to_bits()])?;
    out.u32s(terms)?;
    out.section();
    out.write(&figures)?;
    out.section();
    out.write(&blocks)?;
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
            && file.section_len(2) == file.section_len(1) / 4 * FIGURE_BYTES
            && file.section_len(3).is_multiple_of(BLOCK_BYTES);
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
    /// What the figures in `blocks` are multiplied by to be bounds.
    bound_scale: f32,
    average_length: f32,
    /// The first block that may still be of interest.
    at: usize,
    /// The block that is being read, and how far.
    reading: Option<usize>,
    cursor: Cursor<'s>,
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
            bound_scale: ROUNDING,
            average_length,
            at: 0,
            reading: None,
            cursor: Cursor::default(),
            figures: Figures::default(),
            weight_idf: 0.0,
        };
        if let Some(impacts) = impacts
            && let Some(i) = impacts.find(number)?
        {
            list.use_figures(impacts, i)?;
        } else {
            list.read_all(name_of, deleted)?;
        }
        Ok(Some(list))
    }

    fn use_figures(&mut self, impacts: &'s Impacts, i: usize) -> Result<()> {
        let file = &impacts.file;
        let n = file.section_len(1) / 4;
        let figures = file.bytes(2, i * FIGURE_BYTES..(i + 1) * FIGURE_BYTES)?;
        let float = |at: usize| f64::from(f32::from_bits(u32_at(figures, at)));
        self.figures = Figures { names: u32_at(figures, 1) as usize, sum: float(2), squares: float(3) };
        let first = u32_at(figures, 0) as usize;
        let end = if i + 1 < n {
            u32_at(file.bytes(2, (i + 1) * FIGURE_BYTES..(i + 2) * FIGURE_BYTES)?, 0) as usize
        } else {
            file.section_len(3) / BLOCK_BYTES
        };
        if first >= end {
            return Err(file.corrupted("a term has no blocks"));
        }
        let blocks = file.bytes(3, first.saturating_mul(BLOCK_BYTES)..end.saturating_mul(BLOCK_BYTES))?;
        self.blocks = Cow::Borrowed(blocks);
        // What a posting adds grows at most as the average length does.
        self.bound_scale *= (self.average_length / impacts.average_length).max(1.0);
        Ok(())
    }

    /// All postings as one block.
    fn read_all(&mut self, name_of: &[u32], deleted: impl Fn(usize) -> bool) -> Result<()> {
        let (mut bytes, mut next, mut last, mut most) = (self.bytes, 0, 0, 0f32);
        let (mut name, mut most_of_name) = (u32::MAX, 0f32);
        let figures = &mut self.figures;
        while !bytes.is_empty() {
            let (doc, frequency) = self.postings.take(&mut bytes, &mut next)?;
            last = doc;
            if deleted(doc as usize) {
                continue;
            }
            let adds = contribution(1.0, frequency, self.lengths[doc as usize], self.average_length);
            most = most.max(adds);
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
        let words = [last, 0, most.to_bits()];
        self.blocks = Cow::Owned(words.iter().flat_map(|word| word.to_le_bytes()).collect());
        Ok(())
    }

    fn n_blocks(&self) -> usize {
        self.blocks.len() / BLOCK_BYTES
    }

    fn last(&self, block: usize) -> u32 {
        u32_at(&self.blocks, block * 3)
    }

    fn bound(&self, block: usize) -> f32 {
        f32::from_bits(u32_at(&self.blocks, block * 3 + 2)) * self.bound_scale * self.weight_idf
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

    /// The most that the term adds to the score of a doc within `begin..end`; calls come in ascending order.
    pub fn bound_within(&mut self, begin: u32, end: u32) -> Result<f32> {
        self.skip_to(begin);
        let mut most = 0f32;
        for block in self.at..self.n_blocks() {
            let before = if block == 0 { 0 } else { self.last(block - 1) };
            // What a block adds at most says little of a small part of it, and a look at the few postings there costs little.
            let sparse = self.last(block).saturating_sub(before) / SPARSE > end - begin;
            most = most.max(match block == self.at && sparse {
                true => self.most_within(begin, end)?,
                false => self.bound(block),
            });
            if self.last(block) >= end - 1 {
                break;
            }
        }
        Ok(most)
    }

    /// The most that the postings within `begin..end` of the block at `self.at` add, and a little more.
    fn most_within(&mut self, begin: u32, end: u32) -> Result<f32> {
        self.read_to(begin)?;
        let (mut cursor, mut most) = (self.cursor, 0f32);
        while let Some(posting) = cursor.current.filter(|posting| posting.0 < end) {
            most = most.max(self.adds(posting));
            cursor.advance(self.postings)?;
        }
        Ok(most * ROUNDING)
    }

    /// Reads on, in the block at `self.at`, to the first posting of `doc` or of a later one.
    fn read_to(&mut self, doc: u32) -> Result<()> {
        if self.reading != Some(self.at) {
            let next = if self.at == 0 { 0 } else { self.last(self.at - 1).saturating_add(1) };
            let begin = u32_at(&self.blocks, self.at * 3 + 1) as usize;
            let end = match self.at + 1 < self.n_blocks() {
                true => u32_at(&self.blocks, self.at * 3 + 4) as usize,
                false => self.bytes.len(),
            };
            // An impacts file that does not fit its postings gives an error below, or postings that are there.
            let rest = self.bytes.get(begin..end).unwrap_or(&[]);
            self.cursor = Cursor { rest, next, current: None };
            self.cursor.advance(self.postings)?;
            self.reading = Some(self.at);
        }
        while self.cursor.current.is_some_and(|posting| posting.0 < doc) {
            self.cursor.advance(self.postings)?;
        }
        Ok(())
    }

    fn adds(&self, (doc, frequency): (u32, u32)) -> f32 {
        contribution(self.weight_idf, frequency, self.lengths[doc as usize], self.average_length)
    }

    /// Calls `each` with doc and what the term adds, for the docs within `begin..end`; calls come in ascending order.
    pub fn each_within(&mut self, begin: u32, end: u32, mut each: impl FnMut(u32, f32)) -> Result<()> {
        self.skip_to(begin);
        while self.at < self.n_blocks() {
            self.read_to(begin)?;
            while let Some(posting) = self.cursor.current.filter(|posting| posting.0 < end) {
                each(posting.0, self.adds(posting));
                self.cursor.advance(self.postings)?;
            }
            if self.cursor.current.is_some() || self.last(self.at) >= end - 1 {
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
        Ok(self.cursor.current.filter(|posting| posting.0 == doc).map_or(0.0, |posting| self.adds(posting)))
    }
}

/// A place in the postings of a block.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor<'s> {
    /// What follows the current posting.
    rest: &'s [u8],
    /// The least that the doc of the next one may be.
    next: u32,
    /// Doc and frequency; `None` at the end.
    current: Option<(u32, u32)>,
}

impl Cursor<'_> {
    #[inline]
    fn advance(&mut self, postings: &Postings) -> Result<()> {
        self.current = match self.rest.is_empty() {
            true => None,
            false => Some(postings.take(&mut self.rest, &mut self.next)?),
        };
        Ok(())
    }
}
