//! From completion requests to what the decode loop serves, and back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use inhouse_core::constrain::{ApiConstraint, Healing};
use inhouse_core::decode::{
    Client, Constraint, Event, FinishReason, Generation, Model, Request, StopRules, TokenId,
};
use inhouse_core::prompt::{self, Block, Budget, Draft, Format, Writer};
use inhouse_core::{ApiDoc, Error, ErrorKind, Result};

use crate::asked::Replies;
use crate::engine::Engine;
use crate::session::{ApiChoice, CompletionRequest, CompletionResult, SessionStatistics};

/// Cells that a sample is given at first, however many tokens it may have; when they run short, samples wait for others.
pub(crate) const CELLS_PER_SAMPLE: usize = 512;

/// Where the requests of [`Session::complete_all`](crate::Session::complete_all) come from, and where what becomes of them
/// goes.
pub trait CompletionClient {
    /// The next request; `None`: there are no more. It is called when there is room to begin one.
    ///
    /// # Errors
    /// Whatever keeps the client from going on; the session's call ends with it.
    fn next(&mut self) -> Result<Option<CompletionRequest>>;

    /// Something happened in request number `request` (they are counted from 0 as they come). `Break` ends all of them as
    /// a cancel does.
    fn event(&mut self, request: usize, event: Event<'_>) -> ControlFlow<()>;

    /// A request is complete, or was refused. Requests end in any order. A cancelled one has the completions that were
    /// there by then.
    ///
    /// # Errors
    /// Whatever keeps the client from going on; the session's call ends with it. An answer of `Ok` to a refusal goes on
    /// with the others.
    fn done(&mut self, request: usize, outcome: Result<CompletionResult>) -> Result<()>;
}

/// What turns a request into tokens.
pub(crate) struct Preparer<'m> {
    pub(crate) engine: &'m Engine,
    pub(crate) model: &'m dyn Model,
    /// Tokens that one sequence may hold.
    pub(crate) context_length: usize,
    /// Samples that run side by side.
    pub(crate) sequences: usize,
    /// Prompts that are to fit side by side.
    pub(crate) prompts: usize,
}

/// A request as the decode loop takes it.
struct Prepared {
    request: Request,
    /// Cells without which it does not run well, and cells with which others run beside it.
    cells: (usize, usize),
    about: About,
}

/// What a result says beside the completions.
struct About {
    /// As the client counts.
    number: usize,
    apis: Vec<ApiDoc>,
    examples: usize,
    prompt: String,
    /// Of the prompt, those included that samples write again.
    prompt_tokens: usize,
    format: &'static str,
    context_truncated: bool,
    constraint: Option<Arc<ApiConstraint>>,
    /// In a chat, what turns its replies into completions.
    replies: Option<Replies>,
}

impl Preparer<'_> {
    fn prepare(&self, number: usize, request: &CompletionRequest) -> Result<Prepared> {
        if request.n == 0 || request.max_tokens == 0 {
            return Err(Error::new(ErrorKind::InvalidArgument, "n and max_tokens must be at least 1"));
        }
        let room = self.context_length.checked_sub(request.max_tokens).filter(|room| *room > 0);
        let room = room.ok_or_else(|| {
            Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "max_tokens {} leaves no room for a prompt in a context of {} tokens",
                    request.max_tokens, self.context_length
                ),
            )
        })?;
        let mut apis = self.choose(request)?;
        if request.examples > 0 {
            self.engine.add_examples(&mut apis)?;
        }
        let (tokenizer, conventions) = (self.model.tokenizer(), self.model.conventions());
        let template = request.chat.template(conventions)?;
        let suffix = request.suffix.as_deref();
        let (format, name) = match (&template, suffix) {
            (Some(template), _) => (Format::Chat(template), "chat"),
            (None, Some(_)) => (Format::Infill, "infill"),
            (None, None) => (Format::Continue, "continue"),
        };
        if template.is_some() && request.constrain {
            let what = "a chat's reply cannot be constrained: it is not all code";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let (ends, silent): (&[_], &[_]) = match (format, &conventions.infill) {
            (Format::Chat(_), _) => (&conventions.ends_of_turn, &[]),
            (Format::Infill, Some(infill)) => (&infill.ends, &infill.openings),
            _ => (&[], &[]),
        };
        let writer = Writer::new(tokenizer, conventions, format)?;
        let draft = Draft { prefix: &request.context, suffix };
        let count = |text: &str, suffix: Option<&str>| Ok(writer.tokens(text, suffix)?.len());
        let block = Block { apis: &apis, examples: request.examples };
        let prompt = prompt::assemble(block, draft, Some(Budget { tokens: room }), &count)?;
        let mut tokens = writer.tokens(&prompt.text, prompt.suffix.as_deref())?;
        let shown = writer.shown(&prompt.text, prompt.suffix.as_deref())?;
        if tokens.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "the prompt is empty"));
        }
        let prompt_tokens = tokens.len();
        let healing = match format {
            Format::Continue => self.heal(&mut tokens, &prompt.text),
            _ => None,
        };
        let healed = healing.as_ref().map_or(0, Healing::bytes);
        let constraint = match request.constrain {
            true => {
                let names = self.engine.api_names(self.model)?;
                let shown = &apis[..prompt.apis_used.min(apis.len())];
                let kept = &request.context[..request.context.len().saturating_sub(healed)];
                Some(Arc::new(ApiConstraint::offering(names, kept, shown)))
            }
            false => None,
        };
        let narrowing = constraint.clone().map(|constraint| constraint as Arc<dyn Constraint>);
        apis.truncate(prompt.apis_used);
        let (context_truncated, examples) = (prompt.context_truncated, prompt.examples_used);
        let replies = template.is_some().then(|| Replies::new(prompt, request.stops.clone()));
        Ok(Prepared {
            cells: self.cells(prompt_tokens + healed, request),
            request: Request {
                prompt: tokens,
                n: request.n,
                params: request.params.clone(),
                seed: request.seed,
                max_tokens: request.max_tokens,
                stops: if replies.is_some() { StopRules::none() } else { request.stops.clone() },
                ends: ends.to_vec(),
                silent: silent.to_vec(),
                log_probabilities: request.log_probabilities,
                constraint: match healing {
                    Some(healing) => Some(Arc::new(healing.within(narrowing))),
                    None => narrowing,
                },
                healed,
                greedy_first: request.greedy_first,
            },
            about: About {
                number,
                prompt_tokens,
                apis,
                examples,
                prompt: shown,
                format: name,
                context_truncated,
                constraint,
                replies,
            },
        })
    }

    /// Takes back the tokens at the end of a prompt that is continued, where samples are to write their text again. Not for
    /// an encoder, whose prompt is not what the decoder goes on from.
    fn heal(&self, tokens: &mut Vec<TokenId>, text: &str) -> Option<Healing> {
        let conventions = self.model.conventions();
        // A line's end is never healed, and needs no vocabulary.
        if conventions.extra_cells > 0 || text.is_empty() || text.ends_with('\n') {
            return None;
        }
        let bos = usize::from(conventions.bos.is_some() && tokens.first() == conventions.bos.as_ref());
        Healing::of_prompt(&self.engine.vocabulary(self.model), tokens, text, bos)
    }

    fn cells(&self, prompt: usize, request: &CompletionRequest) -> (usize, usize) {
        let extra = self.model.conventions().extra_cells;
        let of_samples = |n: usize| {
            let cells = request.max_tokens.max(n.saturating_mul(request.max_tokens.min(CELLS_PER_SAMPLE)));
            cells + n.saturating_mul(extra)
        };
        let needed = prompt + of_samples(request.n.min(self.sequences));
        let prompts = self.sequences.div_ceil(request.n).min(self.prompts);
        let wanted = match prompts {
            0 | 1 => needed,
            _ => prompts * prompt + of_samples(self.sequences),
        };
        (needed, wanted)
    }

    fn choose(&self, request: &CompletionRequest) -> Result<Vec<ApiDoc>> {
        match &request.apis {
            ApiChoice::None => Ok(Vec::new()),
            ApiChoice::Given(apis) => Ok(apis.clone()),
            ApiChoice::Named(names) => self.engine.lookup(names),
            ApiChoice::Top(n) => {
                let hits = self.engine.propose(&request.context, request.query.as_deref(), *n)?;
                Ok(hits.into_iter().map(|hit| hit.api).collect())
            }
        }
    }
}

/// The decode loop's client, over a client of the session.
pub(crate) struct Stream<'c> {
    client: &'c mut dyn CompletionClient,
    preparer: Preparer<'c>,
    n_taken: usize,
    /// Taken, and not given to the decode loop yet.
    next: Option<Prepared>,
    /// Cells of the decoder at hand.
    cells: usize,
    /// Requests that the decode loop has, by its numbers.
    served: BTreeMap<usize, About>,
    n_served: usize,
    statistics: SessionStatistics,
}

impl<'c> Stream<'c> {
    /// What is done is added to `statistics`.
    pub(crate) fn new(
        client: &'c mut dyn CompletionClient,
        preparer: Preparer<'c>,
        statistics: SessionStatistics,
    ) -> Self {
        Self {
            client,
            preparer,
            n_taken: 0,
            next: None,
            cells: 0,
            served: BTreeMap::new(),
            n_served: 0,
            statistics,
        }
    }

    pub(crate) fn statistics(&self) -> SessionStatistics {
        self.statistics
    }

    /// Cells that the next request needs, and those it is better off with; `None`: there is none.
    pub(crate) fn cells_of_next(&mut self) -> Result<Option<(usize, usize)>> {
        if self.next.is_none() {
            self.next = self.prepare_next()?;
        }
        Ok(self.next.as_ref().map(|prepared| prepared.cells))
    }

    /// Begins to serve with a decoder of so many cells.
    pub(crate) fn begin(&mut self, cells: usize) {
        (self.cells, self.n_served) = (cells, 0);
        self.served.clear();
    }

    /// Answers a request that was taken and never begun, where everything was ended early.
    pub(crate) fn give_up(&mut self, reason: FinishReason) -> Result<()> {
        let Some(prepared) = self.next.take() else { return Ok(()) };
        let error = match reason {
            FinishReason::Deadline => Error::new(ErrorKind::DeadlineExceeded, "deadline exceeded"),
            _ => Error::new(ErrorKind::Cancelled, "cancelled"),
        };
        self.client.done(prepared.about.number, Err(error))
    }

    fn prepare_next(&mut self) -> Result<Option<Prepared>> {
        while let Some(request) = self.client.next()? {
            let number = self.n_taken;
            self.n_taken += 1;
            match self.preparer.prepare(number, &request) {
                Ok(prepared) => return Ok(Some(prepared)),
                Err(error) => self.client.done(number, Err(error))?,
            }
        }
        Ok(None)
    }
}

impl Client for Stream<'_> {
    /// A request that needs more cells than there are waits for another decoder.
    fn next(&mut self) -> Result<Option<Request>> {
        if self.cells_of_next()?.is_none_or(|(needed, _)| needed > self.cells) {
            return Ok(None);
        }
        Ok(self.next.take().map(|Prepared { request, about, .. }| {
            self.served.insert(self.n_served, about);
            self.n_served += 1;
            request
        }))
    }

    fn event(&mut self, request: usize, event: Event<'_>) -> ControlFlow<()> {
        let Some(about) = self.served.get_mut(&request) else { return ControlFlow::Continue(()) };
        let (number, client) = (about.number, &mut self.client);
        match &mut about.replies {
            Some(replies) => replies.pass_on(event, &mut |event| client.event(number, event)),
            None => client.event(number, event),
        }
    }

    fn done(&mut self, request: usize, outcome: Result<Generation>) -> Result<()> {
        let Some(about) = self.served.remove(&request) else { return Ok(()) };
        let number = about.number;
        let result = outcome.map(|generation| CompletionResult {
            completions: match about.replies {
                Some(replies) => replies.completions(),
                None => generation.completions,
            },
            apis: about.apis,
            examples: about.examples,
            prompt: about.prompt,
            format: about.format,
            context_truncated: about.context_truncated,
            prompt_tokens: about.prompt_tokens,
            prompt_tokens_shared: generation.prompt_tokens_shared,
            prefill_seconds: generation.seconds_prefill,
            decode_seconds: generation.seconds_decode,
            constraint: about.constraint.map(|constraint| constraint.statistics()),
        });
        if let Ok(result) = &result {
            self.statistics.add(result);
        }
        self.client.done(number, result)
    }
}
