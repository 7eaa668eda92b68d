//! A model's tokens, sent once: their bytes, which end a text, which may be sampled.

use inhouse_core::decode::{TokenId, Tokenizer};

use crate::frame::bad;

const END: u8 = 1;
const SAMPLEABLE: u8 = 2;

/// The token table of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    /// The tokens' bytes one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    flags: Vec<u8>,
}

impl Vocabulary {
    /// As the body of a frame: the number of tokens (u32, little endian), where each ends in the bytes (u32 each), their
    /// flags (u8 each), their bytes.
    pub fn pack(tokenizer: &dyn Tokenizer) -> Vec<u8> {
        let n = tokenizer.vocab_size();
        let (mut bytes, mut flags) = (Vec::new(), Vec::with_capacity(n));
        let mut packed = (n as u32).to_le_bytes().to_vec();
        for token in 0..n as TokenId {
            bytes.extend(tokenizer.token_bytes(token));
            packed.extend((bytes.len() as u32).to_le_bytes());
            let flag = |on: bool, flag: u8| if on { flag } else { 0 };
            flags.push(flag(tokenizer.is_end(token), END) | flag(tokenizer.is_sampleable(token), SAMPLEABLE));
        }
        packed.extend(flags);
        packed.extend(bytes);
        packed
    }

    pub fn unpack(packed: &[u8]) -> std::io::Result<Self> {
        let cut = || bad("a vocabulary is cut off");
        let (n, rest) = packed.split_first_chunk::<4>().ok_or_else(cut)?;
        let n = u32::from_le_bytes(*n) as usize;
        let (ends, rest) = n.checked_mul(4).and_then(|n| rest.split_at_checked(n)).ok_or_else(cut)?;
        let (flags, bytes) = rest.split_at_checked(n).ok_or_else(cut)?;
        let ends: Vec<u32> = ends.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
        let last = ends.last().map_or(0, |end| *end as usize);
        if !ends.is_sorted()
            || last != bytes.len()
            || flags.iter().any(|flags| flags & !(END | SAMPLEABLE) != 0)
        {
            return Err(bad("a vocabulary contradicts itself"));
        }
        Ok(Self { bytes: bytes.to_vec(), ends, flags: flags.to_vec() })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn token_bytes(&self, token: TokenId) -> &[u8] {
        let token = token as usize;
        let Some(&end) = self.ends.get(token) else {
            return &[];
        };
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub fn is_end(&self, token: TokenId) -> bool {
        self.flags.get(token as usize).is_some_and(|flags| flags & END != 0)
    }

    pub fn is_sampleable(&self, token: TokenId) -> bool {
        self.flags.get(token as usize).is_some_and(|flags| flags & SAMPLEABLE != 0)
    }
}
