//! [`Engine`]: what is loaded once and shared.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use inhouse_core::constrain::{self, ApiNames, ApiReport, Calls, Library, Vocabulary};
use inhouse_core::decode::{Conventions, DecoderOptions, Model, ModelInfo};
use inhouse_core::index::{Hit, Index, Query};
use inhouse_core::lora::LoraChoice;
use inhouse_core::{ApiDoc, Error, ErrorKind, Result, prompt};
use inhouse_remote::{Worker, WorkerProgram};

use crate::backend::{self, Backend, Source};
use crate::encoder::{EncoderChoice, open_index, reopen_index};
use crate::session::Session;
use crate::worker;

/// Most threads that a model may be given.
pub const MAX_THREADS: usize = 1024;

/// What an [`Engine`] opens.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Folder of an index; without one, retrieval is refused.
    pub index: Option<PathBuf>,
    /// Which text encoder the index is searched with.
    pub encoder: EncoderChoice,
    /// GGUF file or Hugging Face folder; without one, completion is refused.
    pub model: Option<PathBuf>,
    /// Which backend runs the model.
    pub backend: Backend,
    /// Layers on the GPU, where the build and the machine have one.
    pub gpu_layers: u32,
    /// Low-rank adapters (LoRA) of the model: PEFT folders or GGUF adapters. Their effects add up.
    pub adapters: Vec<LoraChoice>,
    /// Runs the model in a process of its own, so that whatever ends that (an assertion in C++, the kernel for want of memory)
    /// reaches this one as an error ([`ErrorKind::Backend`]); `None`: in this process. Sessions of a worker that has ended
    /// get errors on and on; the next [`Engine::session`] starts a new one. A GGUF file that holds more than this build knows to
    /// check (another architecture, say) gets such a process whatever is said here.
    pub worker: Option<WorkerProgram>,
    /// Threads for the model, at most [`MAX_THREADS`]; `None`: the backend chooses by the size of the model and the cores.
    pub threads: Option<usize>,
    /// Tokens of context per sequence; `None`: as the model was trained.
    pub context_length: Option<usize>,
    /// Tokens of prompts that a session keeps from one call to the next, so that what a new prompt shares with them (the
    /// APIs, the beginning of a file) is not read again; 0: none. The logits after a shared beginning may differ in their
    /// last bits from those of an empty session, so that a draw may rarely come out otherwise.
    pub prefix_tokens: usize,
}

/// An open index and a loaded model. Cloning is cheap and shares both; every method may be called from any thread.
#[derive(Clone)]
pub struct Engine {
    index: Option<Arc<Index>>,
    /// What its encoder is chosen by, for the next index.
    encoder: EncoderChoice,
    /// Where there is a worker, as its first process had it.
    model: Option<Arc<dyn Model>>,
    worker: Option<Arc<Worker>>,
    model_path: Option<PathBuf>,
    adapters: Arc<[LoraChoice]>,
    threads: Option<usize>,
    context_length: Option<usize>,
    prefix_tokens: usize,
    names: Arc<Names>,
}

/// A worker for a file that is not known completely, which llama.cpp might end the process over; `None` for others.
fn isolated(source: &Source<'_>) -> Result<Option<Worker>> {
    let Some(reason) = backend::why_isolated(source)? else { return Ok(None) };
    let worker = worker::start(&WorkerProgram::default(), source).map_err(|cause| {
        let what = format!("{reason}; it could run unchecked in a process of its own, but: {cause}");
        Error::with_source(cause.kind(), what, cause)
    })?;
    tracing::warn!("{reason}: it runs unchecked, in a process of its own");
    Ok(Some(worker))
}

/// The names of the index, as code refers to them; found when they are first asked for.
#[derive(Default)]
struct Names {
    library: Mutex<Option<Arc<Library>>>,
    /// The same against the model's vocabulary.
    tokens: Mutex<Option<Arc<ApiNames>>>,
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

impl Engine {
    /// Opens what `options` name.
    ///
    /// # Errors
    /// A missing or damaged index or model, or a backend that this build lacks.
    pub fn open(options: &EngineOptions) -> Result<Self> {
        if options.threads.is_some_and(|threads| threads == 0 || threads > MAX_THREADS) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("threads must be from 1 to {MAX_THREADS}"),
            ));
        }
        let open = |dir| open_index(dir, &options.encoder);
        let index = options.index.as_deref().map(open).transpose()?.map(Arc::new);
        let (mut model, mut worker) = (None, None);
        if let Some(path) = &options.model {
            let (backend, gpu_layers) = (options.backend, options.gpu_layers);
            let source = Source { path, backend, gpu_layers, adapters: &options.adapters };
            worker = match &options.worker {
                Some(program) => Some(worker::start(program, &source)?),
                None => isolated(&source)?,
            };
            model = Some(match &worker {
                Some(worker) => worker.model()?,
                None => backend::load(&source, false)?,
            });
        } else if !options.adapters.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "an adapter without a model"));
        }
        let model_path = options.model.clone();
        Ok(Self {
            index,
            encoder: options.encoder.clone(),
            model,
            worker: worker.map(Arc::new),
            model_path,
            adapters: options.adapters.clone().into(),
            threads: options.threads,
            context_length: options.context_length,
            names: Arc::default(),
            prefix_tokens: options.prefix_tokens,
        })
    }

    /// The names of the open index.
    pub(crate) fn library(&self) -> Result<Arc<Library>> {
        let mut library = self.names.library.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*library {
            return Ok(Arc::clone(library));
        }
        let found = Arc::new(Library::of_index(self.index()?)?);
        *library = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The names of the open index against the vocabulary of `model`, the loaded one.
    pub(crate) fn api_names(&self, model: &dyn Model) -> Result<Arc<ApiNames>> {
        let mut names = self.names.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = &*names {
            return Ok(Arc::clone(names));
        }
        let found = Arc::new(ApiNames::new(self.library()?, self.vocabulary(model)));
        *names = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The vocabulary of `model`, the loaded one, as a trie.
    pub(crate) fn vocabulary(&self, model: &dyn Model) -> Arc<Vocabulary> {
        let made = || Arc::new(Vocabulary::new(model.tokenizer()));
        Arc::clone(self.names.vocabulary.get_or_init(made))
    }

    /// How `completion`, which follows `context`, uses the APIs of the index: without running it.
    ///
    /// # Errors
    /// No index is open, or it cannot be read.
    pub fn api_report(&self, context: &str, completion: &str) -> Result<ApiReport> {
        Ok(constrain::report(&*self.library()?, context, completion))
    }

    /// What `completion`, which follows `context`, calls, resolved by the names of the index where the code tells.
    ///
    /// # Errors
    /// As [`Engine::api_report`].
    pub fn api_calls(&self, context: &str, completion: &str) -> Result<Calls> {
        Ok(constrain::calls_in_completion(&*self.library()?, context, completion))
    }

    /// The open index.
    ///
    /// # Errors
    /// The engine was opened without one.
    pub fn index(&self) -> Result<&Index> {
        self.index.as_deref().ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no index is open"))
    }

    /// Facts about the loaded model, if there is one.
    pub fn model_info(&self) -> Option<&ModelInfo> {
        self.model.as_ref().map(|model| model.info())
    }

    /// The process that runs the model, where it is not this one: the number of the last worker that was started.
    pub fn worker_pid(&self) -> Option<u32> {
        self.worker.as_ref()?.pid()
    }

    /// What the loaded model expects around a text, if there is one: whether it can fill in, its chat template.
    pub fn conventions(&self) -> Option<&Conventions> {
        self.model.as_ref().map(|model| model.conventions())
    }

    /// Where the loaded model came from.
    pub fn model_path(&self) -> Option<&Path> {
        self.model_path.as_deref()
    }

    /// The adapters of the loaded model.
    pub fn adapters(&self) -> &[LoraChoice] {
        &self.adapters
    }

    /// The `k` APIs that fit `query` best, distinct by name, best first.
    ///
    /// # Errors
    /// No index is open, or it cannot be read.
    pub fn retrieve(&self, query: &Query, k: usize) -> Result<Vec<Hit>> {
        self.index()?.search(query, k)
    }

    /// The `k` APIs to choose from for the code before the cursor (Figure 4 of arXiv 2210.17236: five): those that fit
    /// `query`, or the comments of `context` where a person asks nothing of their own. What is chosen goes into a prompt as
    /// [`crate::ApiChoice::Given`].
    ///
    /// # Errors
    /// As [`Engine::retrieve`].
    pub fn propose(&self, context: &str, query: Option<&str>, k: usize) -> Result<Vec<Hit>> {
        match query {
            Some(query) => self.retrieve(&Query::from(query), k),
            None => self.retrieve(&Query::from(prompt::query_from_context(context)), k),
        }
    }

    /// An engine with this one's model, which is not loaded again, and the index in `folder` as it is now.
    ///
    /// # Errors
    /// A missing or damaged index.
    pub fn with_index(&self, folder: &Path) -> Result<Self> {
        let loaded = self.index.as_ref().and_then(|index| index.loaded_encoder());
        let index = reopen_index(folder, &self.encoder, loaded)?;
        Ok(Self { index: Some(Arc::new(index)), names: Arc::default(), ..self.clone() })
    }

    /// The documentation of the named APIs, in that order: bare names, qualified names or aliases. Of several APIs of
    /// one name the index's first is taken.
    ///
    /// # Errors
    /// No index is open, or a name is not in it.
    pub fn lookup(&self, names: &[String]) -> Result<Vec<ApiDoc>> {
        let index = self.index()?;
        let find =
            |name: &String| {
                index.find(name)?.into_iter().next().ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("no API named `{name}` in the index"))
                })
            };
        names.iter().map(find).collect()
    }

    /// Puts what the index shows of the use of `apis` before their own examples: calls in code that uses the library, then those of
    /// its documentation. Without an index they stay as they are.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn add_examples(&self, apis: &mut [ApiDoc]) -> Result<()> {
        let Ok(index) = self.index() else { return Ok(()) };
        for api in apis {
            let used = index.usage_of(&api.name)?.unwrap_or_default();
            let mut examples: Vec<String> = used.examples.into_iter().map(|example| example.code).collect();
            if api.examples.is_empty() {
                // The line of a problem's own prompt: of the records of its name that with the same line, or else the first.
                let mut found = index.find(&api.name)?;
                found.retain(|known| known.name == api.name && !known.examples.is_empty());
                found.sort_by_key(|known| known.prompt_line() != api.prompt_line());
                examples.extend(found.into_iter().next().map(|known| known.examples).unwrap_or_default());
            }
            examples.append(&mut api.examples);
            api.examples = examples;
        }
        Ok(())
    }

    /// A session that decodes up to `sequences` completions side by side. Where the model's worker has ended it is started
    /// anew, which takes as long as loading the model did.
    ///
    /// # Errors
    /// No model is loaded, the memory for its cache is not to be had, or a new worker cannot be started.
    pub fn session(&self, sequences: usize) -> Result<Session> {
        let model = match (&self.worker, &self.model) {
            (Some(worker), _) => worker.model()?,
            (None, Some(model)) => Arc::clone(model),
            (None, None) => return Err(Error::new(ErrorKind::InvalidArgument, "no model is loaded")),
        };
        let options = DecoderOptions {
            context_length: self.context_length,
            threads: self.threads,
            ..DecoderOptions::default()
        };
        Session::new(self.clone(), model, options, sequences.max(1), self.prefix_tokens)
    }
}
