//! [`Session`]: contexts in, completions out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use inhouse_core::constrain::ConstraintStatistics;
use inhouse_core::decode::{
    self, CancelToken, Completion, Decoder, DecoderOptions, Event, Model, PrefixCache, SamplingParams,
    StopRules,
};
use inhouse_core::{ApiDoc, Error, ErrorKind, Result};

use crate::asked::Chat;
use crate::engine::Engine;
use crate::prefix_file;
use crate::stream::{CELLS_PER_SAMPLE, CompletionClient, Preparer, Stream};

/// Which APIs go in front of the context.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum ApiChoice {
    /// None.
    #[default]
    None,
    /// The best `n` that the retriever finds for the context.
    Top(usize),
    /// These, by name, from the index.
    Named(Vec<String>),
    /// These records, as a person chose them or a problem names them.
    Given(Vec<ApiDoc>),
}

/// What a session is asked.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// The code before the cursor.
    pub context: String,
    /// The code after the cursor: the completion is then what stands between. Only models that were trained to fill in can
    /// do this, or a chat.
    pub suffix: Option<String>,
    /// Whether the model is asked in a chat. A completion is then the code of the reply; it comes as one piece of text, the
    /// stop rules cut the code, and `max_tokens` and `log_probabilities` are those of the reply.
    pub chat: Chat,
    /// The APIs in front of it.
    pub apis: ApiChoice,
    /// The most example calls below the line of each API; 0 is the paper's form.
    pub examples: usize,
    /// What the retriever is asked; `None`: the comments of the context.
    pub query: Option<String>,
    /// Independent completions.
    pub n: usize,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// Seed of the draw; the same seed, model and context give the same completions.
    pub seed: u64,
    /// Most new tokens a completion.
    pub max_tokens: usize,
    /// What ends a completion.
    pub stops: StopRules,
    /// Where a completion refers to a library of the index, lets only names follow that its documentation has.
    pub constrain: bool,
    /// Whether the completions' log-probabilities are wanted.
    pub log_probabilities: bool,
    /// Whether the first completion is the greedy one, whatever the temperature of the others: candidates for
    /// [`Engine::rank`](crate::Engine::rank).
    pub greedy_first: bool,
}

impl CompletionRequest {
    /// The paper's settings for one completion of `context`: 100 tokens, temperature 0.8, top-p 0.9, its stop rules.
    pub fn new(context: impl Into<String>) -> Self {
        Self {
            context: context.into(),
            suffix: None,
            chat: Chat::None,
            apis: ApiChoice::None,
            examples: 0,
            query: None,
            n: 1,
            params: SamplingParams::default(),
            seed: 0,
            max_tokens: 100,
            stops: StopRules::paper(),
            constrain: false,
            log_probabilities: false,
            greedy_first: false,
        }
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct CompletionResult {
    /// The completions, in the order of their index.
    pub completions: Vec<Completion>,
    /// The APIs that stand in the prompt.
    pub apis: Vec<ApiDoc>,
    /// How many example calls stand below their lines.
    pub examples: usize,
    /// The whole prompt, as the model read it, its markers spelled out.
    pub prompt: String,
    /// How the model was asked: `continue`, `infill` or `chat`.
    pub format: &'static str,
    /// Whether the code had to be cut to fit the model: what is farthest from the cursor is missing.
    pub context_truncated: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, the tokens that the session still held from earlier calls.
    pub prompt_tokens_shared: usize,
    /// Seconds spent reading the prompt.
    pub prefill_seconds: f64,
    /// Seconds spent writing the completions.
    pub decode_seconds: f64,
    /// What the constraint did, where one was asked for.
    pub constraint: Option<ConstraintStatistics>,
}

impl CompletionResult {
    /// New tokens over all completions.
    pub fn completion_tokens(&self) -> usize {
        self.completions.iter().map(|completion| completion.completion_tokens).sum()
    }

    /// New tokens a second, the reading of the prompt left out.
    pub fn tokens_per_second(&self) -> f64 {
        if self.decode_seconds > 0.0 { self.completion_tokens() as f64 / self.decode_seconds } else { 0.0 }
    }
}

/// What a session has done since it was opened, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct SessionStatistics {
    /// Requests that were completed.
    pub calls: u64,
    /// Completions of these calls.
    pub completions: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of these, the tokens that the session still held from earlier calls.
    pub prompt_tokens_shared: u64,
    /// Tokens of the completions.
    pub completion_tokens: u64,
    /// Seconds spent reading prompts.
    pub prefill_seconds: f64,
    /// Seconds spent writing completions.
    pub decode_seconds: f64,
    /// Cells of the KV cache; it is as large as the largest request so far needed.
    pub cache_cells: usize,
    /// Prompts that the session keeps for later calls.
    pub kept_prompts: usize,
    /// Tokens of these.
    pub kept_tokens: usize,
    /// Tokens that one sequence may hold.
    pub context_length: usize,
}

impl SessionStatistics {
    pub(crate) fn add(&mut self, result: &CompletionResult) {
        self.calls += 1;
        self.completions += result.completions.len() as u64;
        self.prompt_tokens += result.prompt_tokens as u64;
        self.prompt_tokens_shared += result.prompt_tokens_shared as u64;
        self.completion_tokens += result.completion_tokens() as u64;
        self.prefill_seconds += result.prefill_seconds;
        self.decode_seconds += result.decode_seconds;
    }
}

/// Prompts that a session keeps at most.
const PREFIXES: usize = 8;
/// Sequences that a backend has at most (llama.cpp's limit).
const MAX_SEQUENCES: usize = 256;
/// Prompts of a stream of requests that a session has room for side by side.
const PROMPTS_SIDE_BY_SIDE: usize = 8;

/// One KV cache of an [`Engine`]'s model; used by one thread at a time. The cache is as large as the largest request so
/// far needed.
pub struct Session {
    engine: Engine,
    model: Arc<dyn Model>,
    options: DecoderOptions,
    prefix_tokens: usize,
    n_prefixes: usize,
    done: SessionStatistics,
    /// `None` only after the memory for a larger one was not to be had.
    cache: Option<Cache>,
}

struct Cache {
    decoder: Box<dyn Decoder>,
    cells: usize,
    prefixes: PrefixCache,
}

impl Session {
    pub(crate) fn new(
        engine: Engine,
        model: Arc<dyn Model>,
        options: DecoderOptions,
        sequences: usize,
        prefix_tokens: usize,
    ) -> Result<Self> {
        let n_prefixes =
            if prefix_tokens == 0 { 0 } else { PREFIXES.min(MAX_SEQUENCES.saturating_sub(sequences)) };
        let options = DecoderOptions { sequences: sequences + n_prefixes, ..options };
        let done = SessionStatistics::default();
        let mut session = Self { engine, model, options, prefix_tokens, n_prefixes, done, cache: None };
        // Small, and enough to know that the options are sound.
        session.reserve(1)?;
        Ok(session)
    }

    /// What the session has done so far, and what it holds.
    pub fn statistics(&self) -> SessionStatistics {
        let cache = self.cache.as_ref();
        SessionStatistics {
            cache_cells: cache.map_or(0, |cache| cache.cells),
            kept_prompts: cache.map_or(0, |cache| cache.prefixes.prompts().count()),
            kept_tokens: cache.map_or(0, |cache| cache.prefixes.tokens()),
            context_length: self.context_length(),
            ..self.done
        }
    }

    /// Tokens that one sequence may hold.
    fn context_length(&self) -> usize {
        self.options.context_length.unwrap_or(self.model.info().context_length)
    }

    /// The cache, with at least `cells` cells beside those of the prompts kept from other calls. Where it has to grow it
    /// is made anew.
    fn reserve(&mut self, cells: usize) -> Result<&mut Cache> {
        let cells = cells + self.prefix_tokens;
        if self.cache.as_ref().is_none_or(|cache| cache.cells < cells) {
            // A session whose prompts grow with every call should not begin anew with every call.
            let grown = self.cache.take().map_or(0, |cache| cache.cells + cache.cells / 4);
            let cells = if grown > 1024 { cells.max(grown) } else { cells };
            let options = DecoderOptions { kv_cells: Some(cells), ..self.options.clone() };
            let decoder = Arc::clone(&self.model).decoder(&options)?;
            let prefixes = PrefixCache::new(self.n_prefixes, self.options.sequences, self.prefix_tokens);
            self.cache = Some(Cache { decoder, cells, prefixes });
        }
        self.cache.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "no cache"))
    }

    /// Writes the prompts that the session keeps, with what the model made of them, to a file for
    /// [`Session::load_prefixes`].
    ///
    /// # Errors
    /// The session keeps none (`EngineOptions::prefix_tokens`), the backend cannot save them, or the file cannot be
    /// written.
    pub fn save_prefixes(&self, path: &Path) -> Result<()> {
        let (Some(cache), Some(model)) = (&self.cache, self.engine.model_path()) else {
            return Err(Error::new(ErrorKind::InvalidArgument, "there is nothing to save"));
        };
        let weights = prefix_file::Weights { model, adapters: self.engine.adapters() };
        prefix_file::save(path, weights, cache.decoder.as_ref(), &cache.prefixes)
    }

    /// Takes in the prompts of a file that [`Session::save_prefixes`] wrote with the same model; returns how many. What
    /// the session kept before is dropped.
    ///
    /// # Errors
    /// No such file, or one that is damaged or of another model ([`ErrorKind::InvalidData`]); the session then keeps no
    /// prompt.
    pub fn load_prefixes(&mut self, path: &Path) -> Result<usize> {
        let model = self.engine.model_path().map(Path::to_path_buf);
        let model = model.ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no model is loaded"))?;
        let vocab = self.model.tokenizer().vocab_size();
        let most = self.context_length();
        let engine = self.engine.clone();
        self.cache = None;
        let cache = self.reserve(most.min(CELLS_PER_SAMPLE))?;
        let weights = prefix_file::Weights { model: &model, adapters: engine.adapters() };
        let loaded = prefix_file::load(path, weights, vocab, cache.decoder.as_mut(), &mut cache.prefixes);
        if loaded.is_err() {
            self.cache = None;
        }
        loaded
    }

    /// Completes a context. `on_event` sees text as it is written and may end the work by `Break`.
    ///
    /// # Errors
    /// A request out of range, an API that is not in the index, a constraint without an index or in a chat, a suffix for a model
    /// that cannot fill in ([`ErrorKind::Unsupported`]), a chat template that fails, a cancel before the first token, or a
    /// failing backend.
    pub fn complete(
        &mut self,
        request: &CompletionRequest,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<CompletionResult> {
        let mut single = Single { request: Some(request), on_event, result: None };
        self.serve(&mut single, cancel, 1)?;
        single.result.ok_or_else(|| Error::new(ErrorKind::Internal, "the request was not answered"))
    }

    /// Completes any number of contexts: as many samples side by side as the session has sequences, whichever requests
    /// they belong to. Where one ends the next begins. Prompts that begin alike (the APIs, the imports) share what the
    /// model makes of that.
    ///
    /// The memory is that of the largest request with a few prompts side by side, or without them where there is not as
    /// much; samples wait while it is full. A request that needs more than those before it runs after them.
    ///
    /// # Errors
    /// Those of the client, or a failing backend.
    pub fn complete_all(&mut self, client: &mut dyn CompletionClient, cancel: &CancelToken) -> Result<()> {
        self.serve(client, cancel, PROMPTS_SIDE_BY_SIDE)
    }

    fn serve(
        &mut self,
        client: &mut dyn CompletionClient,
        cancel: &CancelToken,
        prompts: usize,
    ) -> Result<()> {
        let (engine, model) = (self.engine.clone(), Arc::clone(&self.model));
        let preparer = Preparer {
            engine: &engine,
            model: model.as_ref(),
            context_length: self.context_length(),
            sequences: self.options.sequences - self.n_prefixes,
            prompts,
        };
        let mut stream = Stream::new(client, preparer, self.done);
        let served = self.serve_all(model.as_ref(), &mut stream, cancel);
        self.done = stream.statistics();
        served
    }

    fn serve_all(&mut self, model: &dyn Model, stream: &mut Stream<'_>, cancel: &CancelToken) -> Result<()> {
        while let Some((needed, wanted)) = stream.cells_of_next()? {
            if let Err(error) = self.reserve(wanted)
                && (error.kind() != ErrorKind::LimitExceeded || needed == wanted)
            {
                return Err(error);
            }
            let prefix_tokens = self.prefix_tokens;
            let Cache { decoder, cells, prefixes } = self.reserve(needed)?;
            stream.begin(*cells - prefix_tokens);
            let served = decode::serve(decoder.as_mut(), Some(prefixes), model.tokenizer(), stream, cancel);
            if served.as_ref().is_err_and(|error| error.kind() == ErrorKind::Backend) {
                self.cache = None;
            }
            if let Some(reason) = served? {
                return stream.give_up(reason);
            }
        }
        Ok(())
    }
}

/// A client with one request.
struct Single<'r, 'e> {
    request: Option<&'r CompletionRequest>,
    on_event: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    result: Option<CompletionResult>,
}

impl CompletionClient for Single<'_, '_> {
    fn next(&mut self) -> Result<Option<CompletionRequest>> {
        Ok(self.request.take().cloned())
    }

    fn event(&mut self, _request: usize, event: Event<'_>) -> ControlFlow<()> {
        (self.on_event)(event)
    }

    fn done(&mut self, _request: usize, outcome: Result<CompletionResult>) -> Result<()> {
        self.result = Some(outcome?);
        Ok(())
    }
}
