//! The dense file of a segment: the vector of each record, quantised to whole numbers of 8 bits with a scale of its own.
//!
//! ```text
//! 0 scale of each doc [docs] f32; 0: it has no vector     1 codes [docs, dim] i8, a vector's element is its code by its scale
//! ```
//!
//! `dim + 4` bytes a record. A query is quantised to at most 16 bits: its error is then far below that of the records, and the
//! product needs the same instructions. All records are looked at; at ten thousand that takes a fraction of a millisecond.

use std::path::Path;

use super::section_file::{FileEntry, SectionFile, SectionWriter};
use crate::vector::{prefetch, vectorized};
use crate::{Error, ErrorKind, Result};

const KIND: [u8; 4] = *b"DENS";
/// Widest vectors.
pub(super) const MAX_DIM: usize = 1 << 14;
const LARGEST_CODE: f32 = 127.0;
/// Docs whose codes are read at a time.
const PIECE_DOCS: usize = 1024;
/// How far ahead scattered codes are fetched.
pub(super) const ROWS_AHEAD: usize = 8;

/// A quantised vector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Code {
    scale: f32,
    codes: Vec<i8>,
}

impl Code {
    /// The nearest code of `vector`.
    ///
    /// # Errors
    /// It holds a value that is not finite.
    pub fn of(vector: &[f32]) -> Result<Self> {
        let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        if vector.iter().any(|value| !value.is_finite()) {
            return Err(Error::new(ErrorKind::Backend, "the encoder gave a vector that is not finite"));
        }
        let scale = largest / LARGEST_CODE;
        // A vector of zeros (or nearly) answers nothing, as one that is not there.
        if scale < f32::MIN_POSITIVE {
            return Ok(Self { scale: 0.0, codes: vec![0; vector.len()] });
        }
        let code = |value: &f32| (value / scale).round().clamp(-LARGEST_CODE, LARGEST_CODE) as i8;
        Ok(Self { scale, codes: vector.iter().map(code).collect() })
    }

    /// Width of the vector.
    pub fn dim(&self) -> usize {
        self.codes.len()
    }

    /// Its codes as they lie in files.
    pub fn bytes(&self) -> Vec<u8> {
        self.codes.iter().map(|code| code.cast_unsigned()).collect()
    }

    /// A vector's element is its code by this.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Puts the vector into `out`, of its width.
    pub fn vector(&self, out: &mut [f32]) {
        out.iter_mut().zip(&self.codes).for_each(|(value, code)| *value = f32::from(*code) * self.scale);
    }

    /// The code of a record that is not to be found.
    pub fn none(dim: usize) -> Self {
        Self { scale: 0.0, codes: vec![0; dim] }
    }
}

/// Writes the codes of all docs as `dir/name`.
pub(super) fn write<'c>(
    dir: &Path,
    name: &str,
    codes: impl Iterator<Item = &'c Code> + Clone,
) -> Result<FileEntry> {
    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.u32s(codes.clone().map(|code| code.scale.to_bits()))?;
    out.section();
    for code in codes {
        out.write(&code.bytes())?;
    }
    out.finish()
}

/// An open dense file.
#[derive(Debug)]
pub(super) struct Dense {
    file: SectionFile,
    dim: usize,
    scales: Vec<f32>,
}

impl Dense {
    /// Opens the file of `docs` vectors of `dim`.
    pub fn open(dir: &Path, entry: &FileEntry, docs: usize, dim: usize) -> Result<Self> {
        let file = SectionFile::open(dir, entry, KIND, 2)?;
        if file.section_len(0) != docs * 4 || file.section_len(1) != docs * dim {
            return Err(file.corrupted(format!("it does not hold {docs} vectors of {dim}")));
        }
        let scales: Vec<f32> =
            file.section(0)?.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        if scales.iter().any(|scale| !scale.is_finite() || *scale < 0.0) {
            return Err(file.corrupted("a vector's scale is no scale"));
        }
        Ok(Self { file, dim, scales })
    }

    /// The code of a doc.
    pub fn code(&self, doc: usize) -> Result<Code> {
        let bytes = self.file.bytes(1, doc * self.dim..(doc + 1) * self.dim)?;
        Ok(Code { scale: self.scales[doc], codes: bytes.iter().map(|byte| byte.cast_signed()).collect() })
    }

    /// Width of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of docs, those without a vector included.
    pub fn docs(&self) -> usize {
        self.scales.len()
    }

    /// Whether `doc` has a vector.
    pub fn has(&self, doc: usize) -> bool {
        self.scales[doc] > 0.0
    }

    /// Puts the vector of `doc` into `out`, of the vectors' width.
    pub fn vector(&self, doc: usize, out: &mut [f32]) -> Result<()> {
        let bytes = self.file.bytes(1, doc * self.dim..(doc + 1) * self.dim)?;
        let scale = self.scales[doc];
        out.iter_mut().zip(bytes).for_each(|(value, code)| *value = f32::from(code.cast_signed()) * scale);
        Ok(())
    }

    /// The stored codes of `doc`.
    fn row(&self, doc: usize) -> Result<&[u8]> {
        if doc >= self.scales.len() {
            return Err(self.file.corrupted(format!("there is no vector {doc} of {}", self.scales.len())));
        }
        self.file.bytes(1, doc * self.dim..(doc + 1) * self.dim)
    }

    /// The dot product of `query` and the vector of `doc`; NaN where it has none.
    pub fn score(&self, query: &QueryCode, doc: usize) -> Result<f32> {
        let row = self.row(doc)?;
        Ok(vectorized(
            #[inline(always)]
            || score(query, row, self.scales[doc]),
        ))
    }

    /// Has the codes of `doc` fetched, which will be asked for soon.
    pub fn prefetch(&self, doc: usize) -> Result<()> {
        prefetch(self.row(doc)?);
        Ok(())
    }

    /// The `docs` with a vector, and its dot product with `query`.
    pub fn scores_of(&self, query: &QueryCode, docs: &[u32]) -> Result<Vec<(u32, f32)>> {
        let rows = docs.iter().map(|doc| self.row(*doc as usize)).collect::<Result<Vec<_>>>()?;
        let mut scores = Vec::with_capacity(docs.len());
        for (i, (&doc, row)) in docs.iter().zip(&rows).enumerate() {
            if let Some(later) = rows.get(i + ROWS_AHEAD) {
                prefetch(later);
            }
            let scale = self.scales[doc as usize];
            let score = vectorized(
                #[inline(always)]
                || score(query, row, scale),
            );
            if !score.is_nan() {
                scores.push((doc, score));
            }
        }
        Ok(scores)
    }

    /// The dot product of `query` and each doc's vector, by doc; NaN for a doc without one.
    pub fn scores(&self, query: &QueryCode) -> Result<Vec<f32>> {
        let mut scores = Vec::with_capacity(self.scales.len());
        for (piece, scales) in self.scales.chunks(PIECE_DOCS).enumerate() {
            let begin = piece * PIECE_DOCS * self.dim;
            let bytes = self.file.bytes(1, begin..begin + scales.len() * self.dim)?;
            add_scores(query, bytes, scales, &mut scores);
        }
        Ok(scores)
    }

    /// The scale of a doc's code, 0 where it has none.
    pub fn scale(&self, doc: usize) -> f32 {
        self.scales[doc]
    }
}

/// Appends the products of `query` with the vectors of `codes` [n, dim] and `scales` [n]; NaN where a scale is 0.
pub(super) fn add_scores(query: &QueryCode, codes: &[u8], scales: &[f32], scores: &mut Vec<f32>) {
    let rows = codes.chunks_exact(query.codes.len().max(1));
    vectorized(
        #[inline(always)]
        || {
            for (row, &scale) in rows.zip(scales) {
                scores.push(score(query, row, scale));
            }
        },
    );
}

/// A query's vector, quantised.
#[derive(Debug)]
pub(super) struct QueryCode {
    scale: f32,
    codes: Vec<i16>,
}

impl QueryCode {
    /// # Errors
    /// The vector holds a value that is not finite.
    pub fn of(vector: &[f32]) -> Result<Self> {
        if vector.iter().any(|value| !value.is_finite()) {
            return Err(Error::new(ErrorKind::Backend, "the encoder gave a vector that is not finite"));
        }
        let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        // A sum of products stays below 2^31.
        let most = (i32::MAX as f32 / LARGEST_CODE / vector.len().max(1) as f32).min(32_000.0).floor();
        let scale = (largest / most).max(f32::MIN_POSITIVE);
        let codes = vector.iter().map(|value| (value / scale).round().clamp(-most, most) as i16).collect();
        Ok(Self { scale, codes })
    }
}

#[inline(always)]
fn score(query: &QueryCode, codes: &[u8], scale: f32) -> f32 {
    let score = dot(&query.codes, codes) as f32 * scale * query.scale;
    if scale > 0.0 { score } else { f32::NAN }
}

/// Written so that compilers make multiply-and-add instructions of it (`vpmaddwd`).
#[inline(always)]
fn dot(query: &[i16], codes: &[u8]) -> i32 {
    const LANES: usize = 32;
    let mut sums = [0i32; LANES];
    let ((query, query_rest), (codes, codes_rest)) = (query.as_chunks::<LANES>(), codes.as_chunks::<LANES>());
    let product = |query: i16, code: u8| i32::from(query).wrapping_mul(i32::from(code.cast_signed()));
    for (query, codes) in query.iter().zip(codes) {
        for lane in 0..LANES {
            sums[lane] = sums[lane].wrapping_add(product(query[lane], codes[lane]));
        }
    }
    let rest = query_rest.iter().zip(codes_rest).map(|(&query, &code)| product(query, code));
    sums.into_iter().chain(rest).fold(0, i32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn scores_are_the_dot_products() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for dim in [1, 31, 32, 64, 384, 1000] {
            let dir = tempfile::tempdir().unwrap();
            let mut unit = || -> Vec<f32> {
                let vector: Vec<f32> = (0..dim).map(|_| random.random_range(-1.0..1.0)).collect();
                let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-9);
                vector.iter().map(|value| value / length).collect()
            };
            let vectors: Vec<Vec<f32>> = (0..2100).map(|_| unit()).collect();
            let mut codes: Vec<Code> = vectors.iter().map(|vector| Code::of(vector).unwrap()).collect();
            codes[7] = Code::none(dim);
            let entry = write(dir.path(), "dense", codes.iter()).unwrap();
            let dense = Dense::open(dir.path(), &entry, codes.len(), dim).unwrap();
            assert!(Dense::open(dir.path(), &entry, codes.len(), dim + 1).is_err());
            assert_eq!(dense.code(2099).unwrap(), codes[2099]);
            let query = unit();
            let scores = dense.scores(&QueryCode::of(&query).unwrap()).unwrap();
            assert!(scores[7].is_nan());
            let code = QueryCode::of(&query).unwrap();
            let some = dense.scores_of(&code, &[2099, 7, 5]).unwrap();
            assert_eq!(some, [(2099, scores[2099]), (5, scores[5])]);
            assert_eq!(dense.score(&code, 5).unwrap(), scores[5]);
            assert!(dense.scores_of(&code, &[5, 2100]).is_err());
            for (doc, vector) in vectors.iter().enumerate().filter(|(doc, _)| *doc != 7) {
                let want: f32 = vector.iter().zip(&query).map(|(a, b)| a * b).sum();
                assert!((scores[doc] - want).abs() < 8e-3, "{dim}: {} {want}", scores[doc]);
            }
        }
        // The largest sum that there can be.
        let query = QueryCode::of(&vec![-1.0; MAX_DIM]).unwrap();
        let codes = vec![127i8.cast_unsigned(); MAX_DIM];
        let exact: i64 = query.codes.iter().map(|code| i64::from(*code) * 127).sum();
        assert_eq!(i64::from(dot(&query.codes, &codes)), exact);
        assert!(Code::of(&[f32::NAN]).is_err() && QueryCode::of(&[f32::INFINITY]).is_err());
        assert_eq!(Code::of(&[0.0, 0.0]).unwrap(), Code::none(2));
    }
}
