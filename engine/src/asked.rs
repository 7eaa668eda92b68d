//! Asking in a chat: which template, and the completions out of the replies.

use std::ops::ControlFlow;

use inhouse_core::Result;
use inhouse_core::chat::{ChatTemplate, code_of_reply};
use inhouse_core::decode::{Completion, Conventions, Event, FinishReason, StopRules};
use inhouse_core::prompt::Prompt;

/// Whether the model is asked in a chat, and by which template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chat {
    /// The model continues the code itself.
    #[default]
    None,
    /// By the model's own template; a model without one continues the code.
    Auto,
    /// By this Jinja text.
    Template(String),
}

impl Chat {
    pub(crate) fn template(&self, conventions: &Conventions) -> Result<Option<ChatTemplate>> {
        let source = match self {
            Self::None => None,
            Self::Auto => conventions.chat_template.as_deref(),
            Self::Template(source) => Some(source.as_str()),
        };
        source.map(ChatTemplate::new).transpose()
    }
}

/// The replies to a prompt, turned into completions as they come.
pub(crate) struct Replies {
    prompt: Prompt,
    stops: StopRules,
    completions: Vec<Completion>,
}

impl Replies {
    pub(crate) fn new(prompt: Prompt, stops: StopRules) -> Self {
        Self { prompt, stops, completions: Vec::new() }
    }

    /// Hands the code of a reply on when the reply is complete: before that it is not known where the code begins.
    pub(crate) fn pass_on(
        &mut self,
        event: Event<'_>,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Event::Finished(reply) = event else { return ControlFlow::Continue(()) };
        let code = code_of_reply(&reply.text, &self.prompt.text, self.prompt.suffix.as_deref());
        let kept = self.stops.cut(&code);
        let cut = kept.len() < code.len();
        let completion = Completion {
            text: kept.to_owned(),
            finish_reason: if cut { FinishReason::Stop } else { reply.finish_reason },
            ..reply.clone()
        };
        let mut flow = ControlFlow::Continue(());
        if !completion.text.is_empty() {
            flow = on_event(Event::Text { index: completion.index, text: &completion.text });
        }
        if on_event(Event::Finished(&completion)).is_break() {
            flow = ControlFlow::Break(());
        }
        self.completions.push(completion);
        flow
    }

    /// The completions, by index.
    pub(crate) fn completions(mut self) -> Vec<Completion> {
        self.completions.sort_unstable_by_key(|completion| completion.index);
        self.completions
    }
}
