//! Text encoders: a BERT, or one for queries and one for documents, with pooling and a WordPiece tokenizer.

mod settings;
mod trainable;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Tensor, Var};
use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::encode::{self, EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::{Error, ErrorKind, Fingerprint, Result};

use crate::bert::{self, Bert};
use crate::checkpoint::Checkpoint;
use crate::config::ConfigFile;
use crate::layers::{Loader, Trained};
use crate::ops::Ops;
use crate::ragged::Texts;
use crate::wordpiece::WordPiece;
use crate::{LoadOptions, backend_error, model};

pub use settings::{EncoderSettings, Pooling, SETTINGS_FILE, Towers};
pub use trainable::TrainableEncoder;

/// Tokens of one forward pass: bounds its memory and the time until a cancel is seen.
const PASS_TOKENS: usize = 1024;
/// Texts of one forward pass.
const PASS_TEXTS: usize = 128;
/// Prefixes of the names of two towers' weights.
const QUERY: &str = "query.";
const DOCUMENT: &str = "document.";

/// Loads the text encoder of a folder: `config.json` (BERT), weights, WordPiece tokenizer, and how its vectors are pooled
/// ([`EncoderSettings::read`]).
///
/// # Errors
/// A file is missing, truncated or malformed; a value means something that is not built; the device is not there.
pub fn load_encoder(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn TextEncoder>> {
    let loaded = Loaded::open(dir, options, None, false)?;
    Ok(Arc::new(HfEncoder { info: loaded.info, tokenizer: loaded.tokenizer, towers: loaded.towers }))
}

/// Everything of a folder.
struct Loaded {
    info: EncoderInfo,
    config: ConfigFile,
    tokenizer: WordPiece,
    towers: Network,
    /// By name: of tied towers as in a BertModel, else with [`QUERY`] or [`DOCUMENT`] before it.
    variables: BTreeMap<String, Var>,
}

impl Loaded {
    fn open(
        dir: &Path,
        options: &LoadOptions,
        wanted: Option<EncoderSettings>,
        trainable: bool,
    ) -> Result<Self> {
        let config_file = ConfigFile::read(dir)?;
        let config = bert::Config::from_file(&config_file)?;
        let stored = EncoderSettings::read(dir, &config)?;
        let stored_towers = stored.as_ref().map_or(Towers::Tied, |settings| settings.towers);
        let settings = wanted.or(stored).ok_or_else(|| without_settings(dir))?;
        settings.check(&config).map_err(|what| Error::new(ErrorKind::InvalidArgument, what))?;
        let checkpoint = Checkpoint::open(dir)?;
        let device = options.device.open()?;
        let mut variables = BTreeMap::new();
        let mut tower = |stored: &str, name: &str| -> Result<Bert> {
            let trained = if trainable { Trained::Weights } else { Trained::Nothing };
            let loader = Loader::new(&checkpoint, options.dtype.to_candle(), device.clone(), trained);
            let root = if stored.is_empty() { Bert::prefix(&loader) } else { stored };
            let bert = Bert::load(&config, &loader, root)?;
            let named = loader.into_variables()?.by_name.into_iter().map(|(full, variable)| {
                let bare = full.strip_prefix(root).unwrap_or(&full);
                (format!("{name}{bare}"), variable)
            });
            variables.extend(named);
            Ok(bert)
        };
        let berts = match (stored_towers, settings.towers) {
            (Towers::Tied, Towers::Tied) => vec![tower("", "")?],
            // Two that begin alike.
            (Towers::Tied, Towers::Independent) => vec![tower("", QUERY)?, tower("", DOCUMENT)?],
            (Towers::Independent, Towers::Independent) => {
                vec![tower(QUERY, QUERY)?, tower(DOCUMENT, DOCUMENT)?]
            }
            (Towers::Independent, Towers::Tied) => {
                let what = "holds two encoders, they cannot be loaded as one";
                return Err(Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", dir.display())));
            }
        };
        let tokenizer = WordPiece::read(dir, config.vocab_size, settings.max_tokens)?;
        let fingerprint = fingerprint(&settings, &config_file, &tokenizer, &checkpoint)?;
        let info = EncoderInfo {
            architecture: "bert".into(),
            name: model::folder_name(dir),
            fingerprint,
            dim: config.hidden_size,
            max_tokens: settings.max_tokens,
            normalized: settings.normalize,
            backend: "candle",
        };
        let towers = Network { towers: berts, settings };
        Ok(Self { info, config: config_file, tokenizer, towers, variables })
    }
}

/// What tells a folder's vectors from another's.
fn fingerprint(
    settings: &EncoderSettings,
    config: &ConfigFile,
    tokenizer: &WordPiece,
    checkpoint: &Checkpoint,
) -> Result<String> {
    let mut fingerprint = Fingerprint::default();
    for text in [settings.to_json()?, config.to_json(), tokenizer.to_json()] {
        fingerprint.add(text.as_bytes());
    }
    for path in checkpoint.files() {
        fingerprint.add_file(path)?;
    }
    Ok(fingerprint.finish())
}

/// The fingerprint that [`load_encoder`] gives the encoder of a folder, without loading it: a conversion keeps it.
///
/// # Errors
/// As [`load_encoder`].
pub fn encoder_fingerprint(dir: &Path) -> Result<String> {
    let config_file = ConfigFile::read(dir)?;
    let config = bert::Config::from_file(&config_file)?;
    let settings = EncoderSettings::read(dir, &config)?.ok_or_else(|| without_settings(dir))?;
    let tokenizer = WordPiece::read(dir, config.vocab_size, settings.max_tokens)?;
    fingerprint(&settings, &config_file, &tokenizer, &Checkpoint::open(dir)?)
}

fn without_settings(dir: &Path) -> Error {
    let what = format!(
        "holds nothing that says how vectors are pooled; write {SETTINGS_FILE} with {{\"version\": 1, \
         \"pooling\": \"cls\" or \"mean\", \"normalize\": true or false, \"max_tokens\": N}}"
    );
    Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display()))
}

/// One or two towers, and what becomes of their states.
struct Network {
    /// One for both roles, or one for queries and one for documents.
    towers: Vec<Bert>,
    settings: EncoderSettings,
}

impl Network {
    fn tower(&self, role: Role) -> Result<&Bert> {
        let tower = match role {
            Role::Query => self.towers.first(),
            Role::Document => self.towers.last(),
        };
        tower.ok_or_else(|| Error::new(ErrorKind::Internal, "an encoder without a tower"))
    }

    /// The vectors `[texts, dim] f32` of texts, each with its tokens.
    fn encode(&self, role: Role, texts: &[&[TokenId]], ops: Ops) -> Result<Tensor> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let tower = self.tower(role)?;
        let (vocab_size, longest) = (tower.config().vocab_size, self.settings.max_tokens);
        if texts.is_empty() {
            return wrong("no text to encode".into());
        }
        for (i, text) in texts.iter().enumerate() {
            if text.is_empty() || text.len() > longest {
                return wrong(format!("text {i}: {} tokens are not within 1..={longest}", text.len()));
            }
            if let Some(token) = text.iter().find(|&&token| token as usize >= vocab_size) {
                return wrong(format!("text {i}: token {token} is not below the vocabulary's {vocab_size}"));
            }
        }
        self.forward(tower, texts, ops).map_err(backend_error)
    }

    fn forward(&self, tower: &Bert, texts: &[&[TokenId]], ops: Ops) -> candle_core::Result<Tensor> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let rows = Texts::new(&lengths, tower.device())?;
        let states = tower.forward(&texts.concat(), &rows, ops)?;
        let pooled = match self.settings.pooling {
            Pooling::Cls => rows.first(&states)?.to_dtype(DType::F32)?,
            Pooling::Mean => rows.mean(&states.to_dtype(DType::F32)?)?,
        };
        if !self.settings.normalize {
            return Ok(pooled);
        }
        // The least length keeps a vector of zeros from becoming NaN.
        let lengths = (pooled.sqr()?.sum_keepdim(D::Minus1)? + 1e-24)?.sqrt()?;
        pooled.broadcast_div(&lengths)
    }

    fn encode_texts(
        &self,
        role: Role,
        texts: &[&str],
        tokenizer: &WordPiece,
        cancel: &CancelToken,
    ) -> Result<Vectors> {
        let dim = self.tower(role)?.config().hidden_size;
        let tokens = encode::tokens_of(texts, cancel, |text| tokenizer.encode(text))?;
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let mut values = vec![0f32; texts.len() * dim];
        for pass in encode::passes(&lengths, PASS_TOKENS, PASS_TEXTS) {
            cancel.check()?;
            let of_pass: Vec<&[TokenId]> = pass.iter().map(|&i| tokens[i].as_slice()).collect();
            let vectors = self.encode(role, &of_pass, Ops::Fused)?;
            let vectors: Vec<f32> =
                vectors.flatten_all().and_then(|vectors| vectors.to_vec1()).map_err(backend_error)?;
            for (&i, vector) in pass.iter().zip(vectors.chunks_exact(dim)) {
                values[i * dim..][..dim].copy_from_slice(vector);
            }
        }
        Ok(Vectors { dim, values })
    }
}

struct HfEncoder {
    info: EncoderInfo,
    tokenizer: WordPiece,
    towers: Network,
}

impl TextEncoder for HfEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors> {
        self.towers.encode_texts(role, texts, &self.tokenizer, cancel)
    }
}
