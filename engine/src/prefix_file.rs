//! The prompts of a session's prefix cache as a file: saved on request, and read back by a session of the same model.
//!
//! Layout: `INHOUSEKV`, a version byte, the length of a JSON header (u64, little endian), the header (the model's
//! fingerprint and, for each prompt, its tokens and the length of its cells), the cells one prompt after another, and the
//! SHA-256 of everything before it.

use std::io::Read;
use std::path::Path;

use inhouse_core::decode::{Decoder, PrefixCache, TokenId};
use inhouse_core::lora::LoraChoice;
use inhouse_core::{Error, ErrorKind, Fingerprint, Result, files};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const MAGIC: &[u8] = b"INHOUSEKV";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    model: String,
    prompts: Vec<Prompt>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    tokens: Vec<TokenId>,
    n_bytes: u64,
}

/// What the cells were computed with.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'w> {
    pub model: &'w Path,
    pub adapters: &'w [LoraChoice],
}

impl Weights<'_> {
    /// What tells them from others.
    fn fingerprint(&self) -> Result<String> {
        let mut fingerprint = Fingerprint::default();
        fingerprint.add_file(self.model)?;
        self.adapters.iter().try_for_each(|adapter| adapter.add_to(&mut fingerprint))?;
        Ok(fingerprint.finish())
    }
}

/// Writes the cache's prompts.
pub(crate) fn save(
    path: &Path,
    weights: Weights<'_>,
    decoder: &dyn Decoder,
    cache: &PrefixCache,
) -> Result<()> {
    let mut header = Header { model: weights.fingerprint()?, prompts: Vec::new() };
    let mut cells = Vec::new();
    for (seq, tokens) in cache.prompts() {
        let bytes = decoder.save(seq)?;
        header.prompts.push(Prompt { tokens: tokens.to_vec(), n_bytes: bytes.len() as u64 });
        cells.push(bytes);
    }
    let header = serde_json::to_vec(&header)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write the header: {cause}")))?;
    let length = (header.len() as u64).to_le_bytes();
    let parts = [MAGIC, &[VERSION], &length, &header].into_iter().chain(cells.iter().map(Vec::as_slice));
    let mut hash = Sha256::new();
    parts.clone().for_each(|part| hash.update(part));
    let checksum = hash.finalize();
    files::write_atomic(path, |file| {
        parts.clone().chain([checksum.as_slice()]).try_for_each(|part| file.write_all(part))
    })
}

/// Reads prompts into an empty cache; how many there were. Those that do not fit are left out, the oldest first.
pub(crate) fn load(
    path: &Path,
    weights: Weights<'_>,
    vocab: usize,
    decoder: &mut dyn Decoder,
    cache: &mut PrefixCache,
) -> Result<usize> {
    // A pipe would wait for a writer, and a device has no end.
    let mut bytes = Vec::new();
    files::open_regular(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|cause| Error::io("read", path, cause))?;
    let damaged = |what: &str| Error::data(path, format!("{what}: remove the file, it is made anew"));
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("no file of saved prompts"))?;
    let (&version, _) = rest.split_first().ok_or_else(|| damaged("the file is cut off"))?;
    if version != VERSION {
        return Err(damaged(&format!("version {version} of saved prompts, this program writes {VERSION}")));
    }
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|at| *at > MAGIC.len() + 8);
    let (body, checksum) = bytes.split_at(split.ok_or_else(|| damaged("the file is cut off"))?);
    if Sha256::digest(body).as_slice() != checksum {
        return Err(damaged("the checksum is wrong"));
    }
    let mut body = &body[MAGIC.len() + 1..];
    let mut take = |n: u64| {
        let n = usize::try_from(n).ok().filter(|n| *n <= body.len())?;
        let (part, rest) = body.split_at(n);
        body = rest;
        Some(part)
    };
    let length = take(8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    let header = length.and_then(&mut take).ok_or_else(|| damaged("the header is cut off"))?;
    let header: Header =
        serde_json::from_slice(header).map_err(|cause| damaged(&format!("bad header: {cause}")))?;
    if header.model != weights.fingerprint()? {
        let what =
            format!("saved with another model than {}, or with other adapters", weights.model.display());
        return Err(Error::data(path, what));
    }
    let mut n_read = 0;
    for prompt in &header.prompts {
        let cells = take(prompt.n_bytes).ok_or_else(|| damaged("cells are missing"))?;
        if prompt.tokens.iter().any(|token| *token as usize >= vocab) {
            return Err(damaged("a token that the model does not have"));
        }
        let fill = |decoder: &mut dyn Decoder, seq| decoder.restore(seq, prompt.tokens.len(), cells);
        n_read += usize::from(cache.adopt(decoder, &prompt.tokens, fill)?);
    }
    Ok(n_read)
}
