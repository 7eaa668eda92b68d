//! Asking an instruction model to continue code: the message, the model's chat template around it, and the code out of the
//! reply.

mod json;
mod reply;
mod template;

pub use reply::code_of_reply;
pub use template::{ChatTemplate, Piece};

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Message {
    /// `user`, `assistant` or `system`.
    pub role: String,
    /// What it says.
    pub content: String,
}

impl Message {
    /// What a user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// The conversation that asks to continue `text` (API lines and code, as in [`crate::prompt`]), or to fill in what stands
/// between it and `suffix`.
pub fn request(text: &str, suffix: Option<&str>) -> Vec<Message> {
    let fence = fence_for(text, suffix.unwrap_or_default());
    let block = |code: &str| format!("{fence}python\n{code}\n{fence}\n");
    let content = match suffix {
        None => format!(
            "Continue this Python code from where it ends. Answer with the code that follows, in one code block, without \
             repeating what is there and without explanations.\n\n{}",
            block(text)
        ),
        Some(suffix) => format!(
            "Write the Python code that is missing between these two parts. Answer with the missing code, in one code block, \
             without repeating the parts and without explanations.\n\nThe code before:\n\n{}\nThe code after:\n\n{}",
            block(text),
            block(suffix)
        ),
    };
    vec![Message::user(content)]
}

/// A fence that does not stand in the code.
fn fence_for(text: &str, suffix: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) || suffix.contains(&fence) {
        fence.push('`');
    }
    fence
}
