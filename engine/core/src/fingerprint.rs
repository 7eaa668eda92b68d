//! What tells one model from another, without reading all of its weights.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Files are hashed in this many pieces, spread over the file, and its ends: all of a large model would take seconds.
const PIECES: u64 = 64;
const PIECE_BYTES: u64 = 64 << 10;

/// A digest of texts and files.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint {
    hash: Sha256,
}

impl Fingerprint {
    /// Takes in bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// Takes in a file: its length, beginning, end, and samples between them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let io = |cause| Error::io("read", path, cause);
        let mut file = crate::files::open_regular(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        self.hash.update(length.to_le_bytes());
        let mut piece = Vec::new();
        for i in 0..=PIECES {
            let start = length.saturating_sub(PIECE_BYTES) / PIECES * i;
            let start = if i == PIECES { length.saturating_sub(PIECE_BYTES) } else { start };
            piece.clear();
            file.seek(SeekFrom::Start(start)).map_err(io)?;
            Read::by_ref(&mut file).take(PIECE_BYTES).read_to_end(&mut piece).map_err(io)?;
            self.hash.update(&piece);
        }
        Ok(())
    }

    /// The digest, in hexadecimal digits.
    pub fn finish(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
