//! Rows of whole documents, and the files they are kept in.

use std::path::Path;

use inhouse_core::{Error, ErrorKind, Result, files};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Rows that are filled side by side.
const OPEN_ROWS: usize = 24;

/// One training sequence: documents, each ended by the end token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub tokens: Vec<u16>,
    pub weights: Vec<u8>,
}

/// Puts documents into rows of at most `length` tokens; a longer document is refused.
pub(super) struct Packer {
    length: usize,
    open: Vec<Row>,
    pub done: Vec<Row>,
    /// Tokens of all rows, open ones included.
    pub tokens: u64,
}

impl Packer {
    pub fn new(length: usize) -> Self {
        Self { length, open: Vec::new(), done: Vec::new(), tokens: 0 }
    }

    pub fn add(&mut self, tokens: &[u16], weights: &[u8]) -> bool {
        if tokens.len() > self.length {
            return false;
        }
        self.tokens += tokens.len() as u64;
        let fits = |row: &Row| row.tokens.len() + tokens.len() <= self.length;
        // Best fit: the fullest row that has room.
        let best =
            (0..self.open.len()).filter(|&i| fits(&self.open[i])).max_by_key(|&i| self.open[i].tokens.len());
        let i = best.unwrap_or_else(|| {
            self.open.push(Row::default());
            self.open.len() - 1
        });
        let row = &mut self.open[i];
        row.tokens.extend_from_slice(tokens);
        row.weights.extend_from_slice(weights);
        if row.tokens.len() + 8 > self.length {
            self.done.push(self.open.swap_remove(i));
        } else if self.open.len() > OPEN_ROWS {
            let fullest = (0..self.open.len()).max_by_key(|&i| self.open[i].tokens.len()).unwrap_or(0);
            self.done.push(self.open.swap_remove(fullest));
        }
        true
    }

    pub fn finish(mut self) -> Vec<Row> {
        self.done.append(&mut self.open);
        self.done
    }
}

/// One file of rows, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The part of the corpus that it belongs to.
    pub part: String,
    /// Its name in the folder.
    pub file: String,
    /// Training sequences in it.
    pub rows: usize,
    /// Their tokens.
    pub tokens: usize,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
}

/// Writes rows as safetensors: `tokens` U16 `[n]`, `weights` U8 `[n]`, `starts` U32 `[rows + 1]`.
///
/// # Errors
/// The file cannot be written, or holds more than 32 bits number.
pub(super) fn write_shard(folder: &Path, part: &str, file: &str, rows: &[Row]) -> Result<Shard> {
    let mut tokens: Vec<u8> = Vec::new();
    let mut weights: Vec<u8> = Vec::new();
    let mut starts: Vec<u8> = vec![0; 4];
    for row in rows {
        tokens.extend(row.tokens.iter().flat_map(|token| token.to_le_bytes()));
        weights.extend_from_slice(&row.weights);
        let end = u32::try_from(weights.len()).map_err(|_| {
            Error::new(ErrorKind::LimitExceeded, format!("{file}: too many tokens for one file"))
        })?;
        starts.extend(end.to_le_bytes());
    }
    let broken =
        |cause: safetensors::SafeTensorError| Error::new(ErrorKind::Internal, format!("{file}: {cause}"));
    let n = weights.len();
    let views = [
        ("starts", TensorView::new(Dtype::U32, vec![rows.len() + 1], &starts).map_err(broken)?),
        ("tokens", TensorView::new(Dtype::U16, vec![n], &tokens).map_err(broken)?),
        ("weights", TensorView::new(Dtype::U8, vec![n], &weights).map_err(broken)?),
    ];
    let bytes = safetensors::serialize(views, None).map_err(broken)?;
    files::write_atomic(&folder.join(file), |out| out.write_all(&bytes))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Shard { part: part.to_owned(), file: file.to_owned(), rows: rows.len(), tokens: n, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_whole_documents() {
        let mut packer = Packer::new(20);
        for i in 0..50_u16 {
            let n = usize::from(i % 7) + 2;
            let mut tokens = vec![i + 1; n];
            tokens.push(0);
            assert!(packer.add(&tokens, &vec![1; n + 1]));
        }
        assert!(!packer.add(&[1; 21], &[1; 21]));
        let tokens = packer.tokens;
        let rows = packer.finish();
        assert_eq!(rows.iter().map(|row| row.tokens.len() as u64).sum::<u64>(), tokens);
        assert!(rows.iter().all(|row| row.tokens.len() <= 20 && row.tokens.last() == Some(&0)));
        let folder = tempfile::tempdir().unwrap();
        let shard = write_shard(folder.path(), "full", "a.safetensors", &rows).unwrap();
        let bytes = std::fs::read(folder.path().join("a.safetensors")).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("starts").unwrap().shape(), [rows.len() + 1]);
        assert_eq!((read.tensor("tokens").unwrap().dtype(), shard.tokens as u64), (Dtype::U16, tokens));
    }
}
