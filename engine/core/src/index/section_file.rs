//! Immutable files of numbered sections whose every byte is under a checksum that is verified when it is first read.
//!
//! ```text
//! section 0 | section 1 | ... | crc32 of each 64 KiB block, u32 | length of each section, u64 | trailer, 36 bytes
//! trailer: "IHINDEX\n" | kind, 4 bytes | version u32 | sections u32 | blocks u32 | data bytes u64 | crc32 of the tail u32
//! ```
//!
//! Integers are little-endian. The tail (checksums, lengths, trailer) is verified on opening against the length and
//! checksum that the manifest holds; blocks are verified one by one when they are touched. So opening costs the same
//! for a hundred and for a million APIs, and a flipped bit still never becomes a wrong answer.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result, files};

const MAGIC: &[u8; 8] = b"IHINDEX\n";
const VERSION: u32 = 1;
const BLOCK: usize = 64 << 10;
const TRAILER: usize = 36;
const MEND: &str = "build the index again";

/// What the manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Name inside the index folder.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Checksum of the file's tail, which holds the checksums of all the rest.
    pub crc32: u32,
}

/// Writes a section file front to back.
pub(super) struct SectionWriter {
    path: PathBuf,
    name: String,
    file: File,
    kind: [u8; 4],
    block: Vec<u8>,
    block_crcs: Vec<u32>,
    sections: Vec<u64>,
    written: u64,
}

impl SectionWriter {
    /// Creates `dir/name`, replacing what a killed writer may have left there.
    pub fn create(dir: &Path, name: &str, kind: [u8; 4]) -> Result<Self> {
        let path = dir.join(name);
        let file = File::create(&path).map_err(|cause| Error::io("create", &path, cause))?;
        Ok(Self {
            path,
            name: name.to_owned(),
            file,
            kind,
            block: Vec::with_capacity(BLOCK),
            block_crcs: Vec::new(),
            sections: Vec::new(),
            written: 0,
        })
    }

    /// Ends the section before, if any, and begins the next one.
    pub fn section(&mut self) {
        self.sections.push(0);
    }

    /// Appends to the current section.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        if let Some(length) = self.sections.last_mut() {
            *length += bytes.len() as u64;
        }
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = rest;
            if self.block.len() == BLOCK {
                self.end_block()?;
            }
        }
        Ok(())
    }

    /// One section of little-endian `u32`.
    pub fn u32s(&mut self, values: impl IntoIterator<Item = u32>) -> Result<()> {
        self.section();
        values.into_iter().try_for_each(|value| self.write(&value.to_le_bytes()))
    }

    /// One section of little-endian `u64`.
    pub fn u64s(&mut self, values: impl IntoIterator<Item = u64>) -> Result<()> {
        self.section();
        values.into_iter().try_for_each(|value| self.write(&value.to_le_bytes()))
    }

    fn end_block(&mut self) -> Result<()> {
        self.block_crcs.push(crc32fast::hash(&self.block));
        self.file.write_all(&self.block).map_err(|cause| Error::io("write", &self.path, cause))?;
        self.written += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Writes the tail and syncs the file to the disk.
    pub fn finish(mut self) -> Result<FileEntry> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let count = |n: usize| {
            u32::try_from(n).map_err(|_| Error::new(ErrorKind::LimitExceeded, "an index file is too large"))
        };
        let mut tail = Vec::new();
        self.block_crcs.iter().for_each(|crc| tail.extend_from_slice(&crc.to_le_bytes()));
        self.sections.iter().for_each(|length| tail.extend_from_slice(&length.to_le_bytes()));
        tail.extend_from_slice(MAGIC);
        tail.extend_from_slice(&self.kind);
        tail.extend_from_slice(&VERSION.to_le_bytes());
        tail.extend_from_slice(&count(self.sections.len())?.to_le_bytes());
        tail.extend_from_slice(&count(self.block_crcs.len())?.to_le_bytes());
        tail.extend_from_slice(&self.written.to_le_bytes());
        let crc32 = crc32fast::hash(&tail);
        tail.extend_from_slice(&crc32.to_le_bytes());
        self.file
            .write_all(&tail)
            .and_then(|()| self.file.sync_all())
            .map_err(|cause| Error::io("write", &self.path, cause))?;
        Ok(FileEntry { name: self.name, bytes: self.written + tail.len() as u64, crc32 })
    }
}

/// A section file mapped into memory. It stays readable after its name has been removed from the folder.
#[derive(Debug)]
pub(super) struct SectionFile {
    path: PathBuf,
    map: Mmap,
    sections: Vec<Range<usize>>,
    block_crcs: Vec<u32>,
    /// One bit a block: its checksum was found right.
    verified: Box<[AtomicU64]>,
    data: usize,
}

impl SectionFile {
    /// Maps `dir/entry.name` and checks its length and tail.
    ///
    /// # Errors
    /// The file is missing, not as long as the manifest says, not of this `kind` and number of sections, or its tail
    /// fails its checksum.
    pub fn open(dir: &Path, entry: &FileEntry, kind: [u8; 4], sections: usize) -> Result<Self> {
        let path = dir.join(&entry.name);
        let file = files::open_regular(&path).map_err(|cause| Error::io("open", &path, cause))?;
        let actual = file.metadata().map_err(|cause| Error::io("read", &path, cause))?.len();
        if actual != entry.bytes {
            let fault = if actual < entry.bytes { "truncated" } else { "corrupted" };
            let what = format!("{fault}: {actual} bytes where the manifest says {} ({MEND})", entry.bytes);
            return Err(Error::data(&path, what));
        }
        if actual < TRAILER as u64 {
            return Err(Error::data(&path, format!("corrupted: no trailer in {actual} bytes ({MEND})")));
        }
        // SAFETY: the file is mapped read-only and our writers never change a file once it is named in a manifest: new
        // content gets a new name, and removing the old name keeps the pages of this mapping alive. What remains is
        // another program truncating the file in place under a reader, which no program that maps files can rule out.
        let map = unsafe { Mmap::map(&file) }.map_err(|cause| Error::io("map", &path, cause))?;
        Self::parse(path, map, entry, kind, sections)
    }

    fn parse(path: PathBuf, map: Mmap, entry: &FileEntry, kind: [u8; 4], sections: usize) -> Result<Self> {
        let bad = |what: &str| Error::data(&path, format!("corrupted: {what} ({MEND})"));
        let at = map.len().checked_sub(TRAILER).ok_or_else(|| bad("no trailer"))?;
        let trailer = &map[at..];
        if &trailer[..8] != MAGIC || trailer[8..12] != kind {
            return Err(bad("its trailer is not that of such an index file"));
        }
        let version = u32_at(trailer, 3);
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::UnsupportedVersion,
                format!("{}: file version {version}, this build reads {VERSION} ({MEND})", path.display()),
            ));
        }
        let (n_sections, n_blocks) = (u32_at(trailer, 4) as usize, u32_at(trailer, 5) as usize);
        let data = usize::try_from(u64_at(&trailer[24..], 0)).map_err(|_| bad("its length is impossible"))?;
        if n_sections != sections || n_blocks != data.div_ceil(BLOCK) {
            return Err(bad("its trailer contradicts itself"));
        }
        let tail_bytes = (n_blocks as u64) * 4 + (n_sections as u64) * 8 + TRAILER as u64;
        if data as u64 + tail_bytes != map.len() as u64 {
            return Err(bad("its trailer does not fit its length"));
        }
        let tail = &map[data..];
        if crc32fast::hash(&tail[..tail.len() - 4]) != entry.crc32 || u32_at(trailer, 8) != entry.crc32 {
            return Err(bad("the checksum of its tail differs from the manifest's"));
        }
        let block_crcs = (0..n_blocks).map(|i| u32_at(tail, i)).collect();
        let mut ranges = Vec::with_capacity(n_sections);
        let mut start = 0usize;
        for i in 0..n_sections {
            let length = u64_at(&tail[n_blocks * 4..], i);
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
            let end = end.filter(|end| *end <= data).ok_or_else(|| bad("a section lies outside of it"))?;
            ranges.push(start..end);
            start = end;
        }
        let verified = (0..n_blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { path, map, sections: ranges, block_crcs, verified, data })
    }

    /// Length of a section in bytes; 0 where there is no such section.
    pub fn section_len(&self, section: usize) -> usize {
        self.sections.get(section).map_or(0, |range| range.len())
    }

    /// A whole section.
    pub fn section(&self, section: usize) -> Result<&[u8]> {
        self.bytes(section, 0..self.section_len(section))
    }

    /// Bytes `range` of a section, verified.
    ///
    /// # Errors
    /// The range is not inside the section or a block under it fails its checksum.
    pub fn bytes(&self, section: usize, range: Range<usize>) -> Result<&[u8]> {
        let bounds = self.sections.get(section).cloned().unwrap_or(0..0);
        if range.start > range.end || range.end > bounds.len() {
            return Err(
                self.corrupted(format!("bytes {}..{} lie outside of their section", range.start, range.end))
            );
        }
        let (start, end) = (bounds.start + range.start, bounds.start + range.end);
        if start < end {
            for block in start / BLOCK..=(end - 1) / BLOCK {
                self.verify(block)?;
            }
        }
        Ok(&self.map[start..end])
    }

    fn verify(&self, block: usize) -> Result<()> {
        let (word, bit) = (block / 64, 1u64 << (block % 64));
        // Relaxed: the bit guards no other memory; at worst two threads check the same block.
        if self.verified[word].load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(self.data));
        if crc32fast::hash(&self.map[start..end]) != self.block_crcs[block] {
            return Err(self.corrupted(format!("the checksum of bytes {start}..{end} is wrong")));
        }
        self.verified[word].fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// The error for content that cannot be: one line with the file, the fault and the mend.
    pub fn corrupted(&self, what: impl std::fmt::Display) -> Error {
        Error::data(&self.path, format!("corrupted: {what} ({MEND})"))
    }
}

/// The `i`-th little-endian `u32` of `bytes`; the caller has checked the length.
pub(super) fn u32_at(bytes: &[u8], i: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[i * 4..i * 4 + 4]);
    u32::from_le_bytes(word)
}

/// The `i`-th little-endian `u64` of `bytes`; the caller has checked the length.
pub(super) fn u64_at(bytes: &[u8], i: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
    u64::from_le_bytes(word)
}

/// Sorted, distinct strings in two sections: offsets `[n + 1] u64`, then the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringTable {
    offsets: usize,
    len: usize,
}

impl StringTable {
    /// Writes the two sections.
    pub fn write<'a>(out: &mut SectionWriter, strings: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
        let mut end = 0u64;
        let ends = strings.clone().map(|text| {
            end += text.len() as u64;
            end
        });
        out.u64s(std::iter::once(0).chain(ends))?;
        out.section();
        for text in strings {
            out.write(text.as_bytes())?;
        }
        Ok(())
    }

    /// The table whose offsets are in `section` and whose bytes are in the one after.
    pub fn open(file: &SectionFile, section: usize) -> Result<Self> {
        let bytes = file.section_len(section);
        if bytes < 8 || !bytes.is_multiple_of(8) {
            return Err(file.corrupted("a table of strings has no whole number of offsets"));
        }
        Ok(Self { offsets: section, len: bytes / 8 - 1 })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The `i`-th string in byte order.
    pub fn get<'f>(&self, file: &'f SectionFile, i: usize) -> Result<&'f str> {
        std::str::from_utf8(self.bytes(file, i)?).map_err(|_| file.corrupted("a string is not UTF-8"))
    }

    fn bytes<'f>(&self, file: &'f SectionFile, i: usize) -> Result<&'f [u8]> {
        file.bytes(self.offsets + 1, offsets(file, self.offsets, i)?)
    }

    /// The position of `text`.
    pub fn find(&self, file: &SectionFile, text: &str) -> Result<Option<usize>> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.bytes(file, middle)?.cmp(text.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Some(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }
}

/// Entry `i` of a section of `[n + 1] u64` offsets, as a range of the bytes that they point into.
pub(super) fn offsets(file: &SectionFile, section: usize, i: usize) -> Result<Range<usize>> {
    let pair = file.bytes(section, i * 8..i * 8 + 16)?;
    let (start, end) = (u64_at(pair, 0), u64_at(pair, 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => Ok(start..end),
        _ => Err(file.corrupted(format!("offsets {start}..{end} are impossible"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_and_every_flipped_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let big: Vec<u8> = (0..200_000u32).map(|i| (i * 7) as u8).collect();
        let mut out = SectionWriter::create(dir.path(), "f", *b"TEST").unwrap();
        StringTable::write(&mut out, ["a", "bc", "é"].into_iter()).unwrap();
        out.section();
        out.write(&big).unwrap();
        out.u32s([1, 2, u32::MAX]).unwrap();
        let entry = out.finish().unwrap();
        let read_all = || -> Result<()> {
            let file = SectionFile::open(dir.path(), &entry, *b"TEST", 4)?;
            let table = StringTable::open(&file, 0)?;
            assert_eq!((table.len(), table.get(&file, 1)?), (3, "bc"));
            assert_eq!((table.find(&file, "é")?, table.find(&file, "b")?), (Some(2), None));
            assert_eq!(file.section(2)?, big);
            assert_eq!(u32_at(file.section(3)?, 2), u32::MAX);
            Ok(())
        };
        read_all().unwrap();
        let good = std::fs::read(dir.path().join("f")).unwrap();
        assert_eq!(good.len() as u64, entry.bytes);
        for at in (0..good.len()).step_by(997).chain(good.len() - 80..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(dir.path().join("f"), &bad).unwrap();
            let error = read_all().expect_err("a flipped byte must be noticed").to_string();
            assert!(error.contains("/f: "), "{error}");
        }
        for length in [0, 1, 35, 36, good.len() - 1] {
            std::fs::write(dir.path().join("f"), &good[..length]).unwrap();
            assert!(read_all().unwrap_err().to_string().contains("truncated"));
        }
    }
}
