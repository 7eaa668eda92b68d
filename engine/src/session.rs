//! [`Session`]: a context in, completions out.

use std::ops::ControlFlow;
use std::sync::Arc;

use inhouse_core::constrain::{ApiConstraint, ConstraintStatistics};
use inhouse_core::decode::{
    self, CancelToken, Completion, Constraint, Decoder, Event, Model, Request, SamplingParams, StopRules,
};
use inhouse_core::index::Query;
use inhouse_core::prompt::{self, Budget};
use inhouse_core::{ApiDoc, Error, ErrorKind, Result};

use crate::engine::Engine;

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
    /// The APIs in front of it.
    pub apis: ApiChoice,
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
}

impl CompletionRequest {
    /// The paper's settings for one completion of `context`: 100 tokens, temperature 0.8, top-p 0.9, its stop rules.
    pub fn new(context: impl Into<String>) -> Self {
        Self {
            context: context.into(),
            apis: ApiChoice::None,
            query: None,
            n: 1,
            params: SamplingParams::default(),
            seed: 0,
            max_tokens: 100,
            stops: StopRules::paper(),
            constrain: false,
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
    /// The whole prompt, as the model read it.
    pub prompt: String,
    /// Whether the beginning of the context had to be cut to fit the model.
    pub context_truncated: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
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

/// One KV cache of an [`Engine`]'s model; used by one thread at a time.
pub struct Session {
    engine: Engine,
    model: Arc<dyn Model>,
    decoder: Box<dyn Decoder>,
}

impl Session {
    pub(crate) fn new(engine: Engine, model: Arc<dyn Model>, decoder: Box<dyn Decoder>) -> Self {
        Self { engine, model, decoder }
    }

    /// Completes a context. `on_event` sees text as it is written and may end the work by `Break`.
    ///
    /// # Errors
    /// A request out of range, an API that is not in the index, a constraint without an index, a cancel before the first token, or a failing backend.
    pub fn complete(
        &mut self,
        request: &CompletionRequest,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<CompletionResult> {
        if request.n == 0 || request.max_tokens == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "n and max_tokens must be at least 1"));
        }
        let room = self.decoder.context_length().checked_sub(request.max_tokens).filter(|room| *room > 0);
        let room = room.ok_or_else(|| {
            Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "max_tokens {} leaves no room for a prompt in a context of {} tokens",
                    request.max_tokens,
                    self.decoder.context_length()
                ),
            )
        })?;
        let apis = self.choose(request)?;
        let tokenizer = self.model.tokenizer();
        let count = |text: &str| tokenizer.encode(text).map(|tokens| tokens.len());
        let prompt = prompt::assemble(&apis, &request.context, Some(Budget { tokens: room }), &count)?;
        let tokens = tokenizer.encode(&prompt.text)?;
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "the prompt is empty"));
        }
        let constraint = match request.constrain {
            true => {
                let names = self.engine.api_names(self.model.as_ref())?;
                Some(Arc::new(ApiConstraint::new(names, &request.context)))
            }
            false => None,
        };
        let generation = decode::generate(
            self.decoder.as_mut(),
            tokenizer,
            &Request {
                prompt: tokens,
                n: request.n,
                params: request.params.clone(),
                seed: request.seed,
                max_tokens: request.max_tokens,
                stops: request.stops.clone(),
                constraint: constraint.clone().map(|constraint| constraint as Arc<dyn Constraint>),
            },
            cancel,
            on_event,
        )?;
        let mut apis = apis;
        apis.truncate(prompt.apis_used);
        Ok(CompletionResult {
            completions: generation.completions,
            apis,
            prompt: prompt.text,
            context_truncated: prompt.context_truncated,
            prompt_tokens: generation.prompt_tokens,
            prefill_seconds: generation.seconds_prefill,
            decode_seconds: generation.seconds_decode,
            constraint: constraint.map(|constraint| constraint.statistics()),
        })
    }

    fn choose(&self, request: &CompletionRequest) -> Result<Vec<ApiDoc>> {
        match &request.apis {
            ApiChoice::None => Ok(Vec::new()),
            ApiChoice::Given(apis) => Ok(apis.clone()),
            ApiChoice::Named(names) => self.engine.lookup(names),
            ApiChoice::Top(n) => {
                let text = match &request.query {
                    Some(query) => query.clone(),
                    None => prompt::query_from_context(&request.context),
                };
                let hits = self.engine.retrieve(&Query::from(text.as_str()), *n)?;
                Ok(hits.into_iter().map(|hit| hit.api).collect())
            }
        }
    }
}
