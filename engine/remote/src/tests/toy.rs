//! A model whose logits are a hash of all tokens so far.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use inhouse_core::decode::{
    CancelToken, Conventions, Decoder, DecoderOptions, Feed, Model, ModelInfo, SeqId, TokenId, Tokenizer,
};
use inhouse_core::{Error, ErrorKind, Result};

/// Tokens: a letter each, end of text, padding.
const VOCAB: usize = 64;
/// Fed to a toy, it panics.
pub(super) const PANIC: TokenId = 63;
const CONTEXT: usize = 20_000;

/// A small generator of numbers (splitmix64).
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

pub(super) struct Toy {
    info: ModelInfo,
    conventions: Conventions,
}

impl Toy {
    pub fn load(path: &Path) -> Result<Arc<dyn Model>> {
        if path.file_name().is_none_or(|name| name != "toy") {
            return Err(Error::new(ErrorKind::NotFound, format!("no toy at {}", path.display())));
        }
        let info = ModelInfo {
            architecture: "toy".into(),
            name: "a toy".into(),
            context_length: CONTEXT,
            vocab_size: VOCAB,
            parameters: 0,
            backend: "toy".into(),
            dtype: "F32".into(),
        };
        let conventions = Conventions {
            bos: Some(61),
            chat_template: Some("{{ messages }}".into()),
            controls: [("<s>".to_owned(), 61)].into(),
            ..Conventions::default()
        };
        Ok(Arc::new(Self { info, conventions }))
    }
}

impl Model for Toy {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &dyn Tokenizer {
        self
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(ToyDecoder { sequences: vec![Vec::new(); options.sequences], rows: Vec::new() }))
    }
}

impl Tokenizer for Toy {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        Ok(text.bytes().map(|byte| TokenId::from(byte) % 60).collect())
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        if token < 62 { vec![b'A' + token as u8; 1 + token as usize % 3] } else { Vec::new() }
    }

    fn is_end(&self, token: TokenId) -> bool {
        token == 62
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        token < 63
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }
}

struct ToyDecoder {
    sequences: Vec<Vec<TokenId>>,
    rows: Vec<Vec<f32>>,
}

impl ToyDecoder {
    fn check(&self, seq: SeqId) -> Result<()> {
        if (seq as usize) < self.sequences.len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidArgument, "no such sequence"))
    }
}

impl Decoder for ToyDecoder {
    fn max_sequences(&self) -> usize {
        self.sequences.len()
    }

    fn context_length(&self) -> usize {
        CONTEXT
    }

    fn len(&self, seq: SeqId) -> usize {
        self.sequences.get(seq as usize).map_or(0, Vec::len)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        feeds.iter().try_for_each(|feed| self.check(feed.seq))?;
        self.rows.clear();
        for &token in feeds.iter().flat_map(|feed| feed.tokens) {
            cancel.check()?;
            assert!(token != PANIC, "this token panics");
            if token as usize >= VOCAB {
                return Err(Error::new(ErrorKind::LimitExceeded, "no such token"));
            }
            if token == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for feed in feeds {
            self.sequences[feed.seq as usize].extend(feed.tokens);
        }
        let row = |feed: &Feed<'_>| {
            let tokens = &self.sequences[feed.seq as usize];
            let hash = tokens.iter().fold(1, |hash: u64, token| {
                (hash ^ u64::from(*token)).wrapping_mul(0x100_0000_01b3).rotate_left(23)
            });
            let mut random = Random(hash);
            (0..VOCAB).map(|_| (random.next() >> 40) as f32 / (1u64 << 22) as f32).collect()
        };
        self.rows = feeds.iter().map(row).collect();
        Ok(())
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        let row = self.rows.get(i).map(Vec::as_slice);
        row.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no such feed"))
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.sequences[to as usize] = self.sequences[from as usize].clone();
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        self.check(seq)?;
        if len > self.len(seq) {
            return Err(Error::new(ErrorKind::InvalidArgument, "too short"));
        }
        self.sequences[seq as usize].truncate(len);
        Ok(())
    }

    fn save(&self, seq: SeqId) -> Result<Vec<u8>> {
        self.check(seq)?;
        Ok(self.sequences[seq as usize].iter().map(|token| *token as u8).collect())
    }

    fn restore(&mut self, seq: SeqId, len: usize, bytes: &[u8]) -> Result<()> {
        self.check(seq)?;
        self.rows.clear();
        assert_eq!(bytes.len(), len);
        self.sequences[seq as usize] = bytes.iter().map(|byte| TokenId::from(*byte)).collect();
        Ok(())
    }
}
