//! The engine for C++ programs that build it from source: the facade `inhouse` through the cxx bridge.
//!
//! This is for programs that have cargo in their build and want Rust's types in C++ (`rust::Vec`, `rust::Str`) and errors as
//! exceptions. Programs that link a library which somebody else built use `inhouse.h` or `inhouse.hpp` instead: what the
//! bridge makes is bound to one compilation.
//!
//! `example/main.cc` is a whole program. It needs the headers that the build leaves in `target/cxxbridge`
//! (`inhouse-cxx/src/lib.rs.h` is the one to include) and the library `libinhouse_cxx.a`. The crate is a workspace of its own
//! (`cargo build --release --manifest-path ffi/cxx/Cargo.toml --features llama`): cxx-build changes how every procedural macro
//! is built, and with them everything else.
//!
//! Every function throws `rust::Error` where it fails, also for a panic, which is caught here: the bridge itself would end
//! the process over one.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::{Duration, Instant};

use inhouse::{
    ApiChoice, CompletionRequest, EngineOptions, Error, ErrorKind, Event, LoraChoice, Result, SamplingParams,
    StopRules, WorkerProgram,
};

#[cxx::bridge(namespace = "inhouse::source")]
mod bridge {
    /// What an engine opens; what is empty or 0 is left out or chosen.
    #[derive(Default)]
    struct OpenOptions {
        /// Folder of an index.
        index: String,
        /// GGUF file or Hugging Face folder.
        model: String,
        /// Layers on the GPU.
        gpu_layers: u32,
        /// Threads for the model.
        threads: usize,
        /// Tokens of context per sequence.
        context_length: usize,
        /// Runs the model in a process of its own (`inhouse-worker`, found as INHOUSE_WORKER or beside the program says), which
        /// may have backends that this build lacks.
        worker: bool,
        /// Low-rank adapters (LoRA) of the model: PEFT folders or GGUF adapters, `PATH` or `PATH:SCALE`.
        adapters: Vec<String>,
    }

    /// One API of the index.
    struct Api {
        /// The bare name, as it is written at the call.
        name: String,
        /// The dotted name under which users import it.
        qualified_name: String,
        /// How it is called.
        signature: String,
        /// The first sentence of its documentation.
        description: String,
        /// Higher is better, within one answer; 0 in a completion.
        score: f32,
    }

    /// What a session is asked; made by `default_request()`, then changed.
    struct CompleteOptions {
        /// Names of the APIs that go in front of the code; used where there are any.
        api_names: Vec<String>,
        /// Else the best so many for `query`.
        top_apis: usize,
        /// What the retriever is asked; empty: the comments of the code.
        query: String,
        /// The code after the cursor, where the model can fill in; empty: nothing is said of what follows.
        suffix: String,
        /// Completions.
        n: usize,
        /// Most new tokens a completion.
        max_tokens: usize,
        /// Seed of the draw.
        seed: u64,
        /// Divides the logits; 0: always the most probable token.
        temperature: f32,
        /// Nucleus sampling.
        top_p: f32,
        /// Only the so many most probable tokens; 0: all.
        top_k: usize,
        /// What ends a completion.
        stops: Vec<String>,
        /// Where the code refers to a library of the index, only names follow that its documentation has.
        constrain: bool,
        /// Milliseconds after which the call ends with what is there; 0: no deadline.
        timeout_ms: u64,
    }

    /// One completion.
    struct Completion {
        /// What follows the code.
        text: String,
        /// Why it ended: `stop`, `end_of_text`, `length`, `context_full`, `cancelled`, `deadline`.
        finish_reason: String,
        /// Tokens written.
        tokens: usize,
    }

    /// What a call gave.
    struct Completed {
        /// The completions.
        completions: Vec<Completion>,
        /// The APIs that stand in the prompt.
        apis: Vec<Api>,
        /// The whole prompt.
        prompt: String,
        /// Its tokens.
        prompt_tokens: usize,
    }

    unsafe extern "C++" {
        include!("inhouse-cxx/include/listener.h");

        /// What hears of a completion as it is written.
        type Listener;
        /// More text; whether to go on.
        fn on_text(self: Pin<&mut Listener>, completion: usize, text: &str) -> Result<bool>;
    }

    extern "Rust" {
        /// An open index, a loaded model, or both; may be used by any number of threads.
        type Engine;
        /// A place to complete code in; used by one thread at a time.
        type Session;
        /// A flag that ends a completion; any thread may set it.
        type CancelToken;

        fn open_engine(options: &OpenOptions) -> Result<Box<Engine>>;
        fn retrieve(self: &Engine, query: &str, k: usize) -> Result<Vec<Api>>;
        fn open_session(self: &Engine, sequences: usize) -> Result<Box<Session>>;
        fn default_options() -> CompleteOptions;
        fn complete(
            self: &mut Session,
            context: &str,
            options: &CompleteOptions,
            cancel: &CancelToken,
        ) -> Result<Completed>;
        fn complete_to(
            self: &mut Session,
            context: &str,
            options: &CompleteOptions,
            cancel: &CancelToken,
            listener: Pin<&mut Listener>,
        ) -> Result<Completed>;
        fn make_cancel_token() -> Box<CancelToken>;
        fn cancel(self: &CancelToken);
        fn reset(self: &CancelToken);
    }
}

use bridge::{Api, CompleteOptions, Completed, Completion, Listener, OpenOptions};

struct Engine(inhouse::Engine);
struct Session(inhouse::Session);
struct CancelToken(inhouse::CancelToken);

/// Runs a body, turning a panic into an error.
fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&'static str>().copied()).unwrap_or("no message");
        let error = Error::new(ErrorKind::Internal, format!("caught a panic (a bug in inhouse): {text}"));
        // Its destructor is foreign code that could panic again, outside the guard.
        std::mem::forget(payload);
        Err(error)
    })
}

fn open_engine(options: &OpenOptions) -> Result<Box<Engine>> {
    let path = |text: &String| (!text.is_empty()).then(|| text.into());
    let number = |n: usize| (n > 0).then_some(n);
    let adapter = |text: &String| {
        let wrong = |what: String| Error::new(ErrorKind::InvalidArgument, what);
        text.parse::<LoraChoice>().map_err(wrong)
    };
    guard(|| {
        let options = EngineOptions {
            adapters: options.adapters.iter().map(adapter).collect::<Result<_>>()?,
            index: path(&options.index),
            model: path(&options.model),
            gpu_layers: options.gpu_layers,
            threads: number(options.threads),
            context_length: number(options.context_length),
            worker: options.worker.then(WorkerProgram::default),
            ..EngineOptions::default()
        };
        Ok(Box::new(Engine(inhouse::Engine::open(&options)?)))
    })
}

fn api(doc: inhouse::ApiDoc, score: f32) -> Api {
    let inhouse::ApiDoc { name, qualified_name, signature, description, .. } = doc;
    Api { name, qualified_name, signature, description, score }
}

impl Engine {
    fn retrieve(&self, query: &str, k: usize) -> Result<Vec<Api>> {
        guard(|| {
            Ok(self.0.retrieve(&query.into(), k)?.into_iter().map(|hit| api(hit.api, hit.score)).collect())
        })
    }

    fn open_session(&self, sequences: usize) -> Result<Box<Session>> {
        guard(|| Ok(Box::new(Session(self.0.session(sequences)?))))
    }
}

fn default_options() -> CompleteOptions {
    let request = CompletionRequest::new("");
    CompleteOptions {
        api_names: Vec::new(),
        top_apis: 0,
        query: String::new(),
        suffix: String::new(),
        n: request.n,
        max_tokens: request.max_tokens,
        seed: request.seed,
        temperature: request.params.temperature,
        top_p: request.params.top_p,
        top_k: request.params.top_k,
        stops: request.stops.strings().to_vec(),
        constrain: false,
        timeout_ms: 0,
    }
}

impl Session {
    fn complete(
        &mut self,
        context: &str,
        options: &CompleteOptions,
        cancel: &CancelToken,
    ) -> Result<Completed> {
        self.run(context, options, cancel, &mut |_| ControlFlow::Continue(()))
    }

    fn complete_to(
        &mut self,
        context: &str,
        options: &CompleteOptions,
        cancel: &CancelToken,
        mut listener: Pin<&mut Listener>,
    ) -> Result<Completed> {
        let mut thrown = None;
        let done = self.run(context, options, cancel, &mut |event| {
            let Event::Text { index, text } = event else { return ControlFlow::Continue(()) };
            match listener.as_mut().on_text(index, text) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => ControlFlow::Break(()),
                Err(exception) => {
                    thrown = Some(exception);
                    ControlFlow::Break(())
                }
            }
        });
        match thrown {
            Some(exception) => {
                Err(Error::new(ErrorKind::Cancelled, format!("the listener threw: {}", exception.what())))
            }
            None => done,
        }
    }

    fn run(
        &mut self,
        context: &str,
        options: &CompleteOptions,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Completed> {
        guard(|| {
            let apis = match (options.api_names.as_slice(), options.top_apis) {
                ([], 0) => ApiChoice::None,
                ([], n) => ApiChoice::Top(n),
                (names, _) => ApiChoice::Named(names.to_vec()),
            };
            let request = CompletionRequest {
                apis,
                suffix: (!options.suffix.is_empty()).then(|| options.suffix.clone()),
                query: (!options.query.is_empty()).then(|| options.query.clone()),
                n: options.n,
                params: SamplingParams {
                    temperature: options.temperature,
                    top_p: options.top_p,
                    top_k: options.top_k,
                    ..SamplingParams::default()
                },
                seed: options.seed,
                max_tokens: options.max_tokens,
                stops: StopRules::new(options.stops.iter().cloned()),
                constrain: options.constrain,
                ..CompletionRequest::new(context)
            };
            let deadline = (options.timeout_ms > 0)
                .then(|| Instant::now().checked_add(Duration::from_millis(options.timeout_ms)))
                .flatten();
            let token =
                deadline.map_or_else(|| cancel.0.clone(), |deadline| cancel.0.with_deadline(deadline));
            let done = self.0.complete(&request, &token, on_event)?;
            let completion = |one: inhouse::Completion| Completion {
                text: one.text,
                finish_reason: one.finish_reason.as_str().into(),
                tokens: one.completion_tokens,
            };
            Ok(Completed {
                completions: done.completions.into_iter().map(completion).collect(),
                apis: done.apis.into_iter().map(|doc| api(doc, 0.0)).collect(),
                prompt: done.prompt,
                prompt_tokens: done.prompt_tokens,
            })
        })
    }
}

fn make_cancel_token() -> Box<CancelToken> {
    Box::new(CancelToken(inhouse::CancelToken::new()))
}

impl CancelToken {
    fn cancel(&self) {
        self.0.cancel();
    }

    fn reset(&self) {
        self.0.reset();
    }
}
