//! The impacts file of a large segment: what lets a search pass over most of the postings of common words.
//!
//! Docs lie in windows of [`WINDOW`]. Of every term with many postings the file keeps how much it adds at most in each window, in
//! a byte (as Mallia, Suel and Tonellotto, "Faster learned sparse retrieval with block-max pruning", SIGIR 2024), its postings so that
//! those of a window are found at once ([`super::packed`]), and the figures that a search of all of them would give. It is derived
//! from the records and sparse files, and the same files give the same bytes.
//!
//! ```text
//! 0 version u32, average length that the rest was computed with f32
//! 1 per term: per window, the most that the term adds there u8, in steps of (K1 + 1) / 255, rounded up; then its packed postings
//! 2 terms [n] u32, ascending
//! 3 figures [n]: first byte in 1 u64, names u32, sum and sum of squares over names of the most that the term adds f32, f32
//! ```
//!
//! What a term adds is computed for a weight of 1.

use std::path::Path;

use super::packed::{Packed, pack};
use super::postings::Postings;
use super::ranking::{MOST_OF_WEIGHT, contribution};
use super::section_file::{FileEntry, SectionFile, SectionWriter, u32_at};
use crate::{Error, Result};

const KIND: [u8; 4] = *b"IMPC";
const VERSION: u32 = 3;
/// Docs that bounds are kept of together.
pub(super) const WINDOW: usize = 32;
const FIGURE_BYTES: usize = 20;
/// Terms with fewer postings have no figures, since all of these are soon read; nor have those with so few that bounds and first
/// postings would take more than twelve bytes a posting.
const FEW: usize = 256;
const WINDOWS_PER_POSTING: usize = 8;
/// What a step of a bound is.
pub(super) const STEP: f32 = MOST_OF_WEIGHT / 255.0;

/// What adds no more than so many steps.
fn steps(adds: f32) -> u8 {
    // One that rounds down to a whole number of steps may be above it by a rounding, which is covered where bounds are summed.
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
    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.u32s([VERSION, average.to_bits()])?;
    out.section();
    let (mut terms, mut figures, mut first) = (Vec::new(), Vec::new(), 0u64);
    let (mut found, mut bytes) = (Vec::new(), Vec::<u8>::new());
    for term in 0..postings.n_terms() {
        found.clear();
        let (mut list, mut next) = (postings.list(term)?, 0);
        while !list.is_empty() {
            let (doc, frequency) = postings.take(&mut list, &mut next)?;
            found.push((doc, frequency, contribution(1.0, frequency, lengths[doc as usize], average)));
        }
        if found.len() < FEW.max(n_windows / WINDOWS_PER_POSTING) {
            continue;
        }
        bytes.clear();
        bytes.resize(n_windows, 0);
        let adds = found.iter().map(|(doc, _, adds)| (*doc, *adds));
        let Figures { names, sum, squares } = Figures::of(adds, name_of, &mut bytes);
        terms.push(term as u32);
        figures.extend_from_slice(&first.to_le_bytes());
        for word in [names as u32, (sum as f32).to_bits(), (squares as f32).to_bits()] {
            figures.extend_from_slice(&word.to_le_bytes());
        }
        pack(found.iter().map(|(doc, frequency, _)| (*doc, *frequency)), lengths.len(), &mut bytes);
        out.write(&bytes)?;
        first += bytes.len() as u64;
    }
    out.u32s(terms)?;
    out.section();
    out.write(&figures)?;
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
            && file.section_len(2).is_multiple_of(4)
            && file.section_len(3) == file.section_len(2) / 4 * FIGURE_BYTES;
        if !fits {
            return Err(file.corrupted("its sections do not fit each other"));
        }
        Ok(Some(Self { file, average_length }))
    }

    /// The average length that bounds were computed with.
    pub fn average_length(&self) -> f32 {
        self.average_length
    }

    /// What the file has of `term` in a segment of `docs`: figures, postings, and the bounds of all windows in steps; `None` where it
    /// has nothing.
    pub fn find(&self, term: usize, docs: usize) -> Result<Option<(Figures, Packed<'_>, &[u8])>> {
        let n_terms = self.file.section_len(2) / 4;
        let (mut low, mut high) = (0, n_terms);
        while low < high {
            let middle = low + (high - low) / 2;
            let there = u32_at(self.file.bytes(2, middle * 4..middle * 4 + 4)?, 0) as usize;
            match there.cmp(&term) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return self.term(middle, docs).map(Some),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn term(&self, i: usize, docs: usize) -> Result<(Figures, Packed<'_>, &[u8])> {
        let figures = |i: usize| self.file.bytes(3, i * FIGURE_BYTES..(i + 1) * FIGURE_BYTES);
        let first =
            |figures: &[u8]| (u64::from(u32_at(figures, 1)) << 32 | u64::from(u32_at(figures, 0))) as usize;
        let found = figures(i)?;
        let end = match (i + 1) * FIGURE_BYTES < self.file.section_len(3) {
            true => first(figures(i + 1)?),
            false => self.file.section_len(1),
        };
        let float = |at: usize| f64::from(f32::from_bits(u32_at(found, at)));
        let figures = Figures { names: u32_at(found, 2) as usize, sum: float(3), squares: float(4) };
        let bytes = self.file.bytes(1, first(found)..end)?;
        let (bounds, packed) =
            bytes.split_at_checked(docs.div_ceil(WINDOW)).ok_or_else(|| self.bad_postings())?;
        Ok((figures, Packed::new(packed, docs).ok_or_else(|| self.bad_postings())?, bounds))
    }

    /// The error for postings that cannot be.
    pub fn bad_postings(&self) -> Error {
        self.file.corrupted("packed postings do not parse")
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

impl Figures {
    /// Of the docs of a term, ascending, and what it adds to each; `bounds` of windows, in steps, are raised to that.
    pub fn of(adds: impl Iterator<Item = (u32, f32)>, name_of: &[u32], bounds: &mut [u8]) -> Self {
        let mut figures = Self::default();
        let (mut name, mut most_of_name) = (u32::MAX, 0f32);
        for (doc, adds) in adds {
            let most = &mut bounds[doc as usize / WINDOW];
            *most = steps(adds).max(*most);
            if name_of[doc as usize] != name {
                figures.add(most_of_name);
                (name, most_of_name) = (name_of[doc as usize], 0.0);
                figures.names += 1;
            }
            most_of_name = most_of_name.max(adds);
        }
        figures.add(most_of_name);
        figures
    }

    fn add(&mut self, most_of_name: f32) {
        self.sum += f64::from(most_of_name);
        self.squares += f64::from(most_of_name).powi(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sections: [&[u8]; 4]) -> Result<Option<(usize, usize)>> {
        const DOCS: usize = 2 * WINDOW;
        let dir = tempfile::tempdir().unwrap();
        let mut out = SectionWriter::create(dir.path(), "f", KIND).unwrap();
        for section in sections {
            out.section();
            out.write(section).unwrap();
        }
        let Some(impacts) = Impacts::open(dir.path(), &out.finish().unwrap())? else { return Ok(None) };
        assert!(impacts.find(6, DOCS)?.is_none());
        let (figures, packed, bounds) = impacts.find(7, DOCS)?.expect("the term is there");
        let n_postings = packed.group(0).map_or(0, |(docs, _)| docs.len());
        Ok(Some((figures.names + bounds.len(), n_postings)))
    }

    #[test]
    fn files_of_other_versions_are_passed_over_and_impossible_ones_refused() {
        let head = |version: u32| [version.to_le_bytes(), 30f32.to_le_bytes()].concat();
        let mut list = vec![9, 0];
        pack([(3, 20), (40, 60)].into_iter(), 2 * WINDOW, &mut list);
        let term = 7u32.to_le_bytes();
        let figures = |first: u64| [&first.to_le_bytes()[..], &[2, 0, 0, 0], &[0; 8]].concat();
        let good = written([&head(VERSION), &list, &term, &figures(0)]).unwrap();
        assert_eq!(good, Some((4, 2)));
        for version in [0, 1, 2, VERSION + 1] {
            assert_eq!(written([&head(version), &[], &[], &[]]).unwrap(), None);
        }
        let bad: [[&[u8]; 4]; 7] = [
            [&[], &list, &term, &figures(0)],
            [&head(VERSION)[..4], &list, &term, &figures(0)],
            [&head(VERSION), &list[..list.len() - 1], &term, &figures(0)],
            [&head(VERSION), &[0], &term, &figures(0)],
            [&head(VERSION), &list, &term, &figures(0)[1..]],
            [&head(VERSION), &list, &term, &figures(1)],
            [&head(VERSION), &list, &term, &figures(u64::MAX)],
        ];
        for (i, sections) in bad.into_iter().enumerate() {
            assert!(written(sections).is_err_and(|error| error.to_string().contains("corrupted")), "{i}");
        }
    }
}
