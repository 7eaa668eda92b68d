//! A worker's model as a [`Model`], and the worker that a host starts anew when one has died.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use inhouse_core::decode::{Conventions, Decoder, DecoderOptions, Model, ModelInfo, TokenId, Tokenizer};
use inhouse_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, Payload};
use crate::decoder::RemoteDecoder;
use crate::message::{self, Load, Loaded, Options, Reply, Request};
use crate::process::Process;
use crate::search;
use crate::vocabulary::Vocabulary;

/// No vocabulary is sent with more bytes.
const MAX_VOCABULARY_BYTES: u64 = 256 << 20;
/// Sequences of a decoder that a worker may claim.
const MAX_SEQUENCES: u32 = 1 << 16;

/// Which program is the worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WorkerProgram {
    /// The one that `INHOUSE_WORKER` names; else `inhouse-worker` beside the library or executable that holds this code, or
    /// in `../libexec/inhouse-VERSION` from there; else the one on PATH.
    #[default]
    Search,
    /// This one.
    At(PathBuf),
}

/// A model in a worker process, and how to start another when that one has died.
pub struct Worker {
    program: PathBuf,
    path: PathBuf,
    load: Load,
    current: Mutex<Arc<RemoteModel>>,
}

impl Worker {
    /// Starts a worker that loads the model at `path`.
    ///
    /// # Errors
    /// No such program or one of another build, a worker that dies ([`ErrorKind::Backend`]), or what keeps it from loading
    /// the model.
    pub fn start(program: &WorkerProgram, path: &Path, mut load: Load) -> Result<Self> {
        let program = match program {
            WorkerProgram::Search => search::find()?,
            WorkerProgram::At(program) => search::checked(program, "the caller")?,
        };
        // A worker has another current folder.
        let path = std::path::absolute(path).map_err(|cause| Error::io("open model", path, cause))?;
        for adapter in &mut load.adapters {
            adapter.path = std::path::absolute(&adapter.path)
                .map_err(|cause| Error::io("open adapter", &adapter.path, cause))?;
        }
        let current = Mutex::new(Arc::new(start(&program, &path, &load)?));
        Ok(Self { program, path, load, current })
    }

    /// The model. Where its worker has died it is loaded by a new one; what uses the old one gets errors on and on.
    ///
    /// # Errors
    /// As [`Worker::start`]; also where the file is another model by now ([`ErrorKind::InvalidData`]).
    pub fn model(&self) -> Result<Arc<dyn Model>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !current.connection.is_alive() {
            let mut fresh = start(&self.program, &self.path, &self.load)?;
            let same = fresh.info == current.info
                && fresh.conventions == current.conventions
                && fresh.tokenizer.vocabulary == current.tokenizer.vocabulary;
            if !same {
                return Err(Error::data(&self.path, "the file has changed since the engine was opened"));
            }
            fresh.tokenizer.vocabulary = Arc::clone(&current.tokenizer.vocabulary);
            tracing::info!(pid = fresh.connection.pid(), "a new worker takes the place of one that died");
            *current = Arc::new(fresh);
        }
        Ok(Arc::clone(&*current) as Arc<dyn Model>)
    }

    /// The number of the worker's process.
    pub fn pid(&self) -> Option<u32> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).connection.pid()
    }

    /// Its program.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

fn start(program: &Path, path: &Path, load: &Load) -> Result<RemoteModel> {
    let (host, worker) = UnixStream::pair().map_err(|cause| {
        Error::with_source(ErrorKind::Io, format!("cannot open a channel to a worker: {cause}"), cause)
    })?;
    let process = Process::start(program, worker)?;
    RemoteModel::load(Connection::open(host, Some(process))?, path, load)
}

/// A model at the other end of a connection.
pub(crate) struct RemoteModel {
    info: ModelInfo,
    conventions: Conventions,
    tokenizer: RemoteTokenizer,
    connection: Arc<Connection>,
}

struct RemoteTokenizer {
    vocabulary: Arc<Vocabulary>,
    connection: Arc<Connection>,
}

impl RemoteModel {
    pub fn load(connection: Connection, path: &Path, load: &Load) -> Result<Self> {
        let paths = load.body(path);
        let body = [paths.as_slice()];
        let payload = Payload { body: &body, limit: MAX_VOCABULARY_BYTES, ..Payload::default() };
        let answer = connection.call(&Request::Load(load.clone()), payload)?;
        let Reply::Loaded(loaded) = answer.reply else {
            return Err(connection.protocol_error("it does not say what it loaded"));
        };
        let vocabulary = Vocabulary::unpack(&answer.body)
            .map_err(|cause| connection.protocol_error(&cause.to_string()))?;
        if vocabulary.len() != loaded.info.vocab_size {
            return Err(connection.protocol_error("its vocabulary has another size than its model"));
        }
        let connection = Arc::new(connection);
        let vocabulary = Arc::new(vocabulary);
        let tokenizer = RemoteTokenizer { vocabulary, connection: Arc::clone(&connection) };
        let Loaded { info, conventions } = *loaded;
        Ok(Self { info, conventions, tokenizer, connection })
    }
}

impl Model for RemoteModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &dyn Tokenizer {
        &self.tokenizer
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>> {
        let answer = self.connection.call(&Request::Open(Options::from(options)), Payload::default())?;
        match answer.reply {
            Reply::Opened(opened) if (1..=MAX_SEQUENCES).contains(&opened.max_sequences) => {
                let n_vocab = self.tokenizer.vocabulary.len();
                Ok(Box::new(RemoteDecoder::new(Arc::clone(&self.connection), &opened, n_vocab)))
            }
            _ => Err(self.connection.protocol_error("it does not say which decoder it opened")),
        }
    }
}

impl Tokenizer for RemoteTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        // Hardly more tokens than bytes.
        let limit = (text.len() as u64 + 64) * size_of::<TokenId>() as u64;
        let payload = Payload { body: &[text.as_bytes()], limit, ..Payload::default() };
        let answer = self.connection.call(&Request::Encode, payload)?;
        let tokens = message::tokens(&answer.body).ok();
        let known = |tokens: &Vec<TokenId>| tokens.iter().all(|token| (*token as usize) < self.vocab_size());
        match (answer.reply, tokens.filter(known)) {
            (Reply::Tokens, Some(tokens)) => Ok(tokens),
            _ => Err(self.connection.protocol_error("it does not answer a text with tokens")),
        }
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.vocabulary.token_bytes(token).to_vec()
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.vocabulary.is_end(token)
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        self.vocabulary.is_sampleable(token)
    }

    fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }
}
