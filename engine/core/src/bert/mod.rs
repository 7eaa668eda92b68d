//! A GGUF file with a BERT as a text encoder, without a backend: 8-bit weights (Q8_0) times 16-bit states, on the processor.
//!
//! The vectors of a text are the same to the last bit in whatever batch it is encoded, and on whatever number of threads.

mod attention;
mod network;
mod product;
mod weights;
mod wordpiece;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::decode::{CancelToken, TokenId};
use crate::encode::{self, EncoderInfo, FileSettings, Role, TextEncoder, Vectors};
use crate::gguf::{self, Header, Value};
use crate::{Error, ErrorKind, Result};
use network::{Network, Room, Sizes};
use weights::Weights;
pub use wordpiece::WordPiece;

/// Tokens of one pass.
const PASS_TOKENS: usize = 128;
/// Texts of one pass.
const PASS_TEXTS: usize = 64;
const MAX_LAYERS: usize = 512;
/// Above any model's; keeps every product of two sizes far from overflow.
const MAX_SIZE: usize = 1 << 24;

/// The keys under the architecture's name whose meaning is built here; another might change what is to be computed.
const KNOWN: &[&str] = &[
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_epsilon",
    "attention.causal",
    "pooling_type",
];

/// Loads a text encoder from a GGUF file.
///
/// # Errors
/// As [`gguf::read`]; [`ErrorKind::Unsupported`] for what this encoder cannot compute and another might: a model that is no BERT,
/// matrices that are not Q8_0, a tokenizer that is not BERT's, keys that are not known, as [`FileSettings::read`];
/// [`ErrorKind::InvalidData`] where sizes, tensors or tokens do not fit each other or a weight is not finite. The line names the
/// file and the key or tensor.
pub fn load_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    let header = gguf::read(path)?;
    let unsupported =
        |what: String| Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display()));
    let shown = |text: Option<&str>| -> String {
        text.unwrap_or("nothing").chars().take(40).flat_map(char::escape_debug).collect()
    };
    let architecture = header.text("general.architecture");
    if architecture != Some("bert") {
        let what = format!("a `{}` model is no text encoder (supported: bert)", shown(architecture));
        return Err(unsupported(what));
    }
    let tokenizer = header.text("tokenizer.ggml.model");
    if tokenizer != Some("bert") {
        return Err(unsupported(format!("tokenizer `{}` is not supported, expected bert", shown(tokenizer))));
    }
    if let Some((key, _)) = header.metadata.iter().find(|(key, _)| key.starts_with("split.")) {
        return Err(unsupported(format!("`{key}`: the model is split over several files")));
    }
    for (key, _) in &header.metadata {
        if key.strip_prefix("bert.").is_some_and(|key| !KNOWN.contains(&key)) {
            return Err(unsupported(format!("`{key}` is not known")));
        }
    }
    let tokenizer = WordPiece::read(&header).map_err(|what| Error::data(path, what))?;
    let sizes = sizes(&header, tokenizer.n_tokens()).map_err(|what| Error::data(path, what))?;
    let settings = FileSettings::read(path, &header, sizes.positions)?;
    let mut weights = Weights::new(path, &header)?;
    let network = Network::load(&mut weights, sizes)?;
    weights.finish()?;
    let info = EncoderInfo {
        architecture: "bert".into(),
        name: settings.name.clone(),
        fingerprint: settings.fingerprint.clone(),
        dim: sizes.width,
        max_tokens: settings.max_tokens,
        normalized: settings.normalized,
        backend: "inhouse",
    };
    Ok(Arc::new(BertEncoder { info, tokenizer, network, settings, rooms: Mutex::default() }))
}

fn sizes(header: &Header, vocabulary: usize) -> std::result::Result<Sizes, String> {
    let size = |key: &str, default: Option<usize>| -> std::result::Result<usize, String> {
        let key = format!("bert.{key}");
        match (header.get(&key), default) {
            (Some(Value::U32(size)), _) if (1..=MAX_SIZE).contains(&(*size as usize)) => Ok(*size as usize),
            (Some(other), _) => Err(format!("`{key}` is {other:?}, expected 1 to {MAX_SIZE} (u32)")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(format!("`{key}` is missing")),
        }
    };
    let epsilon = match header.get("bert.attention.layer_norm_epsilon") {
        Some(Value::F32(epsilon)) if epsilon.is_finite() && *epsilon > 0.0 => *epsilon,
        other => {
            return Err(format!("`bert.attention.layer_norm_epsilon` is {other:?}, expected a positive f32"));
        }
    };
    match header.get("bert.attention.causal") {
        None | Some(Value::Bool(false)) => {}
        Some(other) => return Err(format!("`bert.attention.causal` is {other:?}: not as `bert` is")),
    }
    let heads = size("attention.head_count", None)?;
    let sizes = Sizes {
        layers: size("block_count", None)?,
        width: size("embedding_length", None)?,
        heads,
        inner: size("feed_forward_length", None)?,
        positions: size("context_length", None)?,
        vocabulary,
        segments: match header.get("tokenizer.ggml.token_type_count") {
            Some(Value::U32(n @ 1..=64)) => *n as usize,
            other => return Err(format!("`tokenizer.ggml.token_type_count` is {other:?}, expected 1 to 64")),
        },
        epsilon,
    };
    if sizes.layers > MAX_LAYERS {
        return Err(format!("`bert.block_count` is {}, at most {MAX_LAYERS} are possible", sizes.layers));
    }
    if !sizes.width.is_multiple_of(heads) || size("attention.head_count_kv", Some(heads))? != heads {
        return Err(format!(
            "{heads} attention heads, keys and values do not fit a width of {}",
            sizes.width
        ));
    }
    if size("vocab_size", Some(vocabulary))? != vocabulary {
        return Err(format!("`bert.vocab_size` is not the {vocabulary} tokens of the tokenizer"));
    }
    // [CLS], [SEP], and a token between them.
    if sizes.positions < 3 {
        return Err(format!("`bert.context_length` is {}, which leaves no room for a text", sizes.positions));
    }
    Ok(sizes)
}

struct BertEncoder {
    info: EncoderInfo,
    tokenizer: WordPiece,
    network: Network,
    settings: FileSettings,
    /// Memory of passes that have ended.
    rooms: Mutex<Vec<Room>>,
}

impl BertEncoder {
    /// The vectors of a pass, one after the other.
    fn pass(&self, texts: &[&[TokenId]], cancel: &CancelToken) -> Result<Vec<f32>> {
        let dim = self.network.width();
        let rooms = || self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = rooms().pop().unwrap_or_default();
        let done = self.network.forward(texts, &mut room, cancel);
        let mut vectors = vec![0f32; texts.len() * dim];
        let mut at = 0;
        for (text, vector) in texts.iter().zip(vectors.chunks_exact_mut(dim)) {
            // An error leaves states of another length behind.
            if done.is_ok() {
                self.settings.pool(&room.states[at..at + text.len() * dim], vector);
            }
            at += text.len() * dim;
        }
        rooms().push(room);
        done?;
        if vectors.iter().all(|value| value.is_finite()) {
            return Ok(vectors);
        }
        let what =
            format!("the encoder {} gave a vector that is not finite: a damaged file?", self.info.name);
        Err(Error::new(ErrorKind::InvalidData, what))
    }
}

impl TextEncoder for BertEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, _role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors> {
        let dim = self.info.dim;
        let tokens =
            encode::tokens_of(texts, cancel, |text| Ok(self.tokenizer.encode(text, self.info.max_tokens)))?;
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let passes = encode::passes(&lengths, PASS_TOKENS, PASS_TEXTS);
        let run = |pass: &Vec<usize>| {
            cancel.check()?;
            let texts: Vec<&[TokenId]> = pass.iter().map(|&i| tokens[i].as_slice()).collect();
            self.pass(&texts, cancel)
        };
        let vectors: Vec<Vec<f32>> = match passes.as_slice() {
            // Not worth waking a thread for.
            [pass] => vec![run(pass)?],
            passes => passes.par_iter().map(run).collect::<Result<_>>()?,
        };
        let mut values = vec![0f32; texts.len() * dim];
        for (pass, vectors) in passes.iter().zip(&vectors) {
            for (&i, vector) in pass.iter().zip(vectors.chunks_exact(dim)) {
                values[i * dim..][..dim].copy_from_slice(vector);
            }
        }
        Ok(Vectors { dim, values })
    }
}
