//! What a completion is asked with: [`inhouse_complete_params`] and its way to the engine's request.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inhouse::{ApiChoice, CancelToken, Chat, CompletionRequest, SamplingParams, StopRules};

use crate::apis::inhouse_apis;
use crate::cancel::inhouse_cancel;
use crate::engine::{INHOUSE_MAX_APIS, check_k};
use crate::event::inhouse_on_event;
use crate::handle;
use crate::params::{Params, flag};
use crate::status::Failure;
use crate::strings::{INHOUSE_MAX_TEXT_BYTES, inhouse_str, read_list};

/// No call asks for more completions.
pub const INHOUSE_MAX_COMPLETIONS: u32 = 4096;
/// No call asks for more examples of an API.
pub const INHOUSE_MAX_EXAMPLES: u32 = 100;
/// No call passes more stop strings.
pub const INHOUSE_MAX_STOPS: usize = 256;

/// Which APIs go in front of the context: values of `inhouse_complete_params.api_choice`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_api_choice {
    /// None.
    INHOUSE_APIS_NONE = 0,
    /// The best `n_apis` that the retriever finds for `query`.
    INHOUSE_APIS_TOP = 1,
    /// The `n_apis` in `api_names`, from the index.
    INHOUSE_APIS_NAMED = 2,
    /// Those in the list `apis`, such as a person chose with inhouse_apis_select().
    INHOUSE_APIS_GIVEN = 3,
}

/// What ends a completion: values of `inhouse_complete_params.stop_choice`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_stop_choice {
    /// The rules of arXiv 2210.17236: a completion ends where a new top-level class, function, comment, decorator,
    /// print or if begins.
    INHOUSE_STOPS_PAPER = 0,
    /// No rule: only the end of text, `max_tokens` and the context's length.
    INHOUSE_STOPS_NONE = 1,
    /// The `n_stops` strings in `stops`.
    INHOUSE_STOPS_GIVEN = 2,
}

/// Whether a model is asked in a chat: values of `inhouse_complete_params.chat`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_chat {
    /// The model continues the code itself.
    INHOUSE_CHAT_NONE = 0,
    /// By the model's own chat template; a model without one continues the code.
    INHOUSE_CHAT_AUTO = 1,
    /// By the Jinja text in `chat_template`.
    INHOUSE_CHAT_GIVEN = 2,
}

/// How inhouse_session_complete() completes. Set up with inhouse_complete_params_init(), then change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_complete_params {
    /// Size of the struct in bytes as the host knows it.
    pub struct_size: usize,
    /// Ends the completion when it is set; NULL: nothing does. It must not be freed before the call begins. Default:
    /// NULL.
    pub cancel: *const inhouse_cancel,
    /// Called as text comes; NULL: not called. Default: NULL.
    pub on_event: inhouse_on_event,
    /// Passed to `on_event` as it is. Default: NULL.
    pub user_data: *mut c_void,
    /// What the retriever is asked with INHOUSE_APIS_TOP; unset: the comments of the context. Default: unset.
    pub query: inhouse_str,
    /// With INHOUSE_APIS_NAMED: names of APIs of the index, bare, dotted or aliases. Default:
    /// NULL.
    pub api_names: *const inhouse_str,
    /// With INHOUSE_APIS_TOP the number of APIs, with INHOUSE_APIS_NAMED the length of `api_names`; at most
    /// INHOUSE_MAX_APIS. Default: 0.
    pub n_apis: usize,
    /// With INHOUSE_STOPS_GIVEN: a completion ends before the first of these strings. Default: NULL.
    pub stops: *const inhouse_str,
    /// Length of `stops`, at most INHOUSE_MAX_STOPS. Default: 0.
    pub n_stops: usize,
    /// Seed of the draw: the same seed, model and context give the same completions on the same machine. Default: 0.
    pub seed: u64,
    /// Milliseconds from the beginning of the call after which it ends; 0: no deadline. Default: 0.
    pub timeout_ms: u64,
    /// One of inhouse_api_choice. Default: INHOUSE_APIS_NONE.
    pub api_choice: i32,
    /// One of inhouse_stop_choice. Default: INHOUSE_STOPS_PAPER.
    pub stop_choice: i32,
    /// Independent completions of the context, 1 to INHOUSE_MAX_COMPLETIONS. Default: 1.
    pub n_completions: u32,
    /// Most new tokens per completion, at least 1. Default: 100.
    pub max_tokens: u32,
    /// Only this many most probable tokens are drawn from; 0: all. Default: 0.
    pub top_k: u32,
    /// Divides the logits, 0 or more; 0: always the most probable token. Default: 0.8.
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of tokens whose probability reaches this, above 0 and at most 1. Default: 0.9.
    pub top_p: f32,
    /// Zero.
    pub reserved: u32,
    /// With INHOUSE_APIS_GIVEN: the APIs, in the order in which they stand in the prompt; an empty list is none. It must
    /// not be freed before the call begins. Default: NULL.
    pub apis: *const inhouse_apis,
    /// Only tokens at least this many times as probable as the most probable one are drawn, 0 to 1; 0: all. Default: 0.
    pub min_p: f32,
    /// Divides the logits of tokens that are in the text already, above 0; 1: no penalty. Default: 1.
    pub repetition_penalty: f32,
    /// 1: where the code refers to a library of the index, only names follow that its documentation has (and keywords of
    /// known calls); everything else is free. Default: 0.
    pub constrain: i32,
    /// 1: the log-probability of every token is kept: inhouse_completion_log_probabilities(). Default: 0.
    pub log_probabilities: i32,
    /// The code after the cursor: the completion is what stands between `context` and it. Only models that were trained to
    /// fill in can do this (`can_infill` of inhouse_engine_info()), or a chat. Unset: nothing is said of what follows.
    /// Default: unset.
    pub suffix: inhouse_str,
    /// With INHOUSE_CHAT_GIVEN: the template. Default: unset.
    pub chat_template: inhouse_str,
    /// One of inhouse_chat. In a chat a completion is the code of the reply, in one event; stop rules cut that code, and
    /// `max_tokens` and log-probabilities are those of the reply. Default: INHOUSE_CHAT_NONE.
    pub chat: i32,
    /// Zero.
    pub reserved_chat: u32,
    /// The most example calls below the line of each API in the prompt, at most INHOUSE_MAX_EXAMPLES; they come from the index,
    /// and give way where the prompt is long. 0: none, the paper's form. Default: 0.
    pub examples: u32,
    /// Zero.
    pub reserved_examples: u32,
}

// SAFETY: `repr(C)`; twelve 8-byte words (on 64-bit machines; on 32-bit ones the pointers and sizes before `seed` are
// ten words, so it is aligned) and eight 4-byte ones, then pairs of pointer and length and an
// even number of 4-byte words leave no padding; numbers, raw pointers and an optional function pointer take every bit pattern.
unsafe impl Params for inhouse_complete_params {
    const NAME: &'static str = "inhouse_complete_params";
    const FIRST_SIZE: usize = offset_of!(Self, apis);

    fn defaults() -> Self {
        let request = CompletionRequest::new("");
        Self {
            struct_size: size_of::<Self>(),
            cancel: std::ptr::null(),
            on_event: None,
            user_data: std::ptr::null_mut(),
            query: inhouse_str::ABSENT,
            api_names: std::ptr::null(),
            n_apis: 0,
            stops: std::ptr::null(),
            n_stops: 0,
            seed: request.seed,
            timeout_ms: 0,
            api_choice: inhouse_api_choice::INHOUSE_APIS_NONE as i32,
            stop_choice: inhouse_stop_choice::INHOUSE_STOPS_PAPER as i32,
            n_completions: 1,
            max_tokens: request.max_tokens as u32,
            top_k: request.params.top_k as u32,
            temperature: request.params.temperature,
            top_p: request.params.top_p,
            reserved: 0,
            apis: std::ptr::null(),
            min_p: request.params.min_p,
            repetition_penalty: request.params.repetition_penalty,
            constrain: 0,
            log_probabilities: 0,
            suffix: inhouse_str::ABSENT,
            chat_template: inhouse_str::ABSENT,
            chat: inhouse_chat::INHOUSE_CHAT_NONE as i32,
            reserved_chat: 0,
            examples: 0,
            reserved_examples: 0,
        }
    }
}

impl inhouse_complete_params {
    /// The engine's request.
    ///
    /// # Safety
    /// `context` and every view and array of the struct are as [`inhouse_str::read`] and [`read_list`] want them.
    pub(crate) unsafe fn request(&self, context: inhouse_str) -> Result<CompletionRequest, Failure> {
        if [self.reserved, self.reserved_chat, self.reserved_examples] != [0; 3] {
            return Err(Failure::invalid("`reserved` is not 0: call inhouse_complete_params_init first"));
        }
        if !(1..=INHOUSE_MAX_COMPLETIONS).contains(&self.n_completions) {
            let fault =
                format!("`n_completions` {} is not in 1..={INHOUSE_MAX_COMPLETIONS}", self.n_completions);
            return Err(if self.n_completions == 0 {
                Failure::invalid(fault)
            } else {
                Failure::limit(fault)
            });
        }
        if self.examples > INHOUSE_MAX_EXAMPLES {
            let fault = format!("`examples` {} is not in 0..={INHOUSE_MAX_EXAMPLES}", self.examples);
            return Err(Failure::limit(fault));
        }
        if self.max_tokens == 0 {
            return Err(Failure::invalid("`max_tokens` is 0, expected at least 1"));
        }
        // SAFETY: the caller's promise, for all that follows.
        let (context, suffix, chat, query, apis, stops) = unsafe {
            (
                context.read_required("context", INHOUSE_MAX_TEXT_BYTES)?,
                self.suffix.read("suffix", INHOUSE_MAX_TEXT_BYTES)?,
                self.chat()?,
                self.query.read("query", INHOUSE_MAX_TEXT_BYTES)?,
                self.apis()?,
                self.stop_rules()?,
            )
        };
        Ok(CompletionRequest {
            suffix,
            chat,
            apis,
            examples: self.examples as usize,
            query,
            n: self.n_completions as usize,
            params: SamplingParams {
                temperature: self.temperature,
                top_p: self.top_p,
                top_k: self.top_k as usize,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
            },
            seed: self.seed,
            max_tokens: self.max_tokens as usize,
            stops,
            constrain: flag("constrain", self.constrain)?,
            log_probabilities: flag("log_probabilities", self.log_probabilities)?,
            ..CompletionRequest::new(context)
        })
    }

    /// # Safety
    /// `api_names` is as [`read_list`] wants it.
    unsafe fn apis(&self) -> Result<ApiChoice, Failure> {
        match self.api_choice {
            0 => Ok(ApiChoice::None),
            1 => {
                check_k("n_apis", self.n_apis)?;
                Ok(ApiChoice::Top(self.n_apis))
            }
            // SAFETY: the caller's promise.
            2 => Ok(ApiChoice::Named(unsafe {
                read_list(self.api_names, self.n_apis, "api_names", INHOUSE_MAX_APIS)
            }?)),
            3 => Ok(ApiChoice::Given(handle::get(self.apis)?.docs())),
            other => Err(Failure::invalid(format!("`api_choice` {other} is no inhouse_api_choice"))),
        }
    }

    /// # Safety
    /// `chat_template` is as [`inhouse_str::read`] wants it.
    unsafe fn chat(&self) -> Result<Chat, Failure> {
        match self.chat {
            0 => Ok(Chat::None),
            1 => Ok(Chat::Auto),
            // SAFETY: the caller's promise.
            2 => Ok(Chat::Template(unsafe {
                self.chat_template.read_required("chat_template", INHOUSE_MAX_TEXT_BYTES)
            }?)),
            other => Err(Failure::invalid(format!("`chat` {other} is no inhouse_chat"))),
        }
    }

    /// # Safety
    /// `stops` is as [`read_list`] wants it.
    unsafe fn stop_rules(&self) -> Result<StopRules, Failure> {
        match self.stop_choice {
            0 => Ok(StopRules::paper()),
            1 => Ok(StopRules::none()),
            2 => {
                // SAFETY: the caller's promise.
                let stops = unsafe { read_list(self.stops, self.n_stops, "stops", INHOUSE_MAX_STOPS) }?;
                if stops.iter().any(String::is_empty) {
                    return Err(Failure::invalid(
                        "`stops` has an empty string, which would end every completion at once",
                    ));
                }
                Ok(StopRules::new(stops))
            }
            other => Err(Failure::invalid(format!("`stop_choice` {other} is no inhouse_stop_choice"))),
        }
    }

    /// The token that the call watches: the host's, if any, with the deadline.
    pub(crate) fn token(&self) -> Result<CancelToken, Failure> {
        let token = if self.cancel.is_null() { Arc::default() } else { handle::get(self.cancel)? };
        let deadline = match self.timeout_ms {
            0 => None,
            // So late that the clock cannot say it is no deadline.
            ms => Instant::now().checked_add(Duration::from_millis(ms)),
        };
        Ok(deadline.map_or_else(|| token.as_ref().clone(), |deadline| token.with_deadline(deadline)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::inhouse_status::{self, *};

    fn view(text: &'static str) -> inhouse_str {
        inhouse_str { data: text.as_ptr().cast(), len: text.len() }
    }

    fn request(
        change: impl FnOnce(&mut inhouse_complete_params),
    ) -> Result<CompletionRequest, (inhouse_status, String)> {
        let mut params = inhouse_complete_params::defaults();
        change(&mut params);
        // SAFETY: the tests below pass live static views, or what is refused before it is read.
        unsafe { params.request(view("x = ")) }.map_err(|failure| (failure.status, failure.message))
    }

    #[test]
    fn defaults_are_the_engines() {
        let (ours, engines) = (request(|_| {}).unwrap(), CompletionRequest::new("x = "));
        assert_eq!(format!("{ours:?}"), format!("{engines:?}"));
    }

    #[test]
    fn every_field_arrives() {
        static NAMES: [&str; 2] = ["load", "ledger.close"];
        let names = NAMES.map(view);
        let asked = request(|params| {
            params.api_choice = 2;
            (params.api_names, params.n_apis) = (names.as_ptr(), 2);
            params.stop_choice = 2;
            (params.stops, params.n_stops) = (names.as_ptr(), 1);
            params.query = view("close the ledger");
            (params.seed, params.n_completions, params.max_tokens) = (9, 3, 7);
            (params.temperature, params.top_p, params.top_k) = (0.5, 0.25, 11);
            (params.min_p, params.repetition_penalty) = (0.125, 1.5);
            (params.constrain, params.log_probabilities) = (1, 1);
            params.suffix = view("\nclose(ledger)");
            (params.chat, params.chat_template) = (2, view("{{ messages }}"));
        })
        .unwrap();
        assert_eq!(asked.apis, ApiChoice::Named(NAMES.map(str::to_owned).to_vec()));
        assert_eq!(asked.stops, StopRules::new(["load"]));
        assert_eq!(asked.query.as_deref(), Some("close the ledger"));
        assert_eq!((asked.seed, asked.n, asked.max_tokens), (9, 3, 7));
        assert_eq!(
            asked.params,
            SamplingParams {
                temperature: 0.5,
                top_p: 0.25,
                top_k: 11,
                min_p: 0.125,
                repetition_penalty: 1.5
            }
        );
        assert!(asked.constrain && asked.log_probabilities);
        assert_eq!(asked.suffix.as_deref(), Some("\nclose(ledger)"));
        assert_eq!(asked.chat, Chat::Template("{{ messages }}".into()));
        let top = request(|params| (params.api_choice, params.n_apis) = (1, 4)).unwrap();
        assert_eq!(top.apis, ApiChoice::Top(4));
        assert_eq!(request(|params| params.stop_choice = 1).unwrap().stops, StopRules::none());
    }

    #[test]
    fn bad_fields_are_named() {
        type Change = fn(&mut inhouse_complete_params);
        let cases: [(&str, Change); 17] = [
            ("reserved", |params| params.reserved = 1),
            ("n_completions", |params| params.n_completions = 0),
            ("n_completions", |params| params.n_completions = u32::MAX),
            ("max_tokens", |params| params.max_tokens = 0),
            ("api_choice", |params| params.api_choice = -1),
            ("stop_choice", |params| params.stop_choice = 3),
            ("n_apis", |params| params.api_choice = 1),
            ("n_apis", |params| (params.api_choice, params.n_apis) = (1, usize::MAX)),
            ("api_names", |params| (params.api_choice, params.n_apis) = (2, 1)),
            ("stops", |params| (params.stop_choice, params.n_stops) = (2, usize::MAX)),
            ("constrain", |params| params.constrain = 2),
            ("log_probabilities", |params| params.log_probabilities = -1),
            ("reserved", |params| params.reserved_chat = 7),
            ("reserved", |params| params.reserved_examples = 7),
            ("examples", |params| params.examples = 101),
            ("chat", |params| params.chat = 3),
            ("chat_template", |params| params.chat = 2),
        ];
        for (name, change) in cases {
            let (status, message) = request(change).unwrap_err();
            assert!(message.contains(&format!("`{name}`")), "{name}: {message}");
            assert!(
                [INHOUSE_STATUS_INVALID_ARGUMENT, INHOUSE_STATUS_LIMIT_EXCEEDED].contains(&status),
                "{name}"
            );
        }
    }

    /// A host that was compiled with the first version of the header.
    #[test]
    fn hosts_of_the_first_version_get_the_defaults_of_what_they_do_not_know() {
        let mut old = [0usize; 128 / 8];
        let first = old.as_mut_ptr().cast::<inhouse_complete_params>();
        // SAFETY: `old` has the 128 bytes that the size says.
        let params = unsafe {
            crate::params::init(first, 128).unwrap_or_else(|failure| panic!("{}", failure.message));
            crate::params::read(first).unwrap_or_else(|failure| panic!("{}", failure.message))
        };
        assert_eq!((params.repetition_penalty, params.min_p, params.constrain), (1.0, 0.0, 0));
        assert!(params.apis.is_null());
    }

    #[test]
    fn deadlines_beyond_the_clock_are_none() {
        let mut params = inhouse_complete_params::defaults();
        for (timeout_ms, over) in [(0, false), (u64::MAX, false), (3_600_000, false)] {
            params.timeout_ms = timeout_ms;
            let token = params.token().unwrap_or_else(|failure| panic!("{}", failure.message));
            assert_eq!(token.is_cancelled(), over);
        }
        params.cancel = std::ptr::without_provenance(1);
        assert!(params.token().is_err_and(|failure| failure.status == INHOUSE_STATUS_INVALID_HANDLE));
    }
}
