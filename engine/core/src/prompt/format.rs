//! From the texts of a prompt to the model's tokens: what stands around them is put in as tokens, never as text.

use crate::chat::{self, ChatTemplate, Piece};
use crate::decode::{Conventions, InfillPart, TokenId, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// How a prompt is written.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Format<'m> {
    /// The text, which the model continues.
    Continue,
    /// Text and suffix between the model's markers.
    Infill,
    /// A user's message in a chat, which asks to continue the text (or to fill in before the suffix).
    Chat(&'m ChatTemplate),
}

/// Writes prompts for a model.
pub struct Writer<'m> {
    tokenizer: &'m dyn Tokenizer,
    conventions: &'m Conventions,
    format: Format<'m>,
    /// What a tokenizer that puts a space before every text makes of [`WITHIN`]; else empty.
    within: Vec<TokenId>,
}

/// Stands before a text that is to be tokenised as the middle of another, and is then taken off again. It merges with
/// nothing (`encode_infilling` in Code Llama's and Mistral's tokenizers does the same).
const WITHIN: &str = "☺";

impl<'m> Writer<'m> {
    /// A writer for the model of `tokenizer` and `conventions`.
    ///
    /// # Errors
    /// [`Format::Infill`] for a model that cannot fill in ([`ErrorKind::Unsupported`]): the message names what is missing.
    pub fn new(
        tokenizer: &'m dyn Tokenizer,
        conventions: &'m Conventions,
        format: Format<'m>,
    ) -> Result<Self> {
        if matches!(format, Format::Infill) && conventions.infill.is_none() {
            return Err(no_infill(conventions));
        }
        let within = tokenizer.encode(WITHIN)?;
        let adds_space = within.iter().flat_map(|&token| tokenizer.token_bytes(token)).next() == Some(b' ');
        let within = if adds_space { within } else { Vec::new() };
        Ok(Self { tokenizer, conventions, format, within })
    }

    /// The tokens of a prompt, the one that begins a text included where the model wants it.
    ///
    /// # Errors
    /// The texts cannot be tokenised, or the chat template fails on them.
    pub fn tokens(&self, text: &str, suffix: Option<&str>) -> Result<Vec<TokenId>> {
        let mut tokens = Vec::new();
        match (self.format, &self.conventions.infill) {
            (Format::Chat(template), _) => self.chat(template, text, suffix, &mut tokens)?,
            (Format::Infill, Some(infill)) => {
                for part in &infill.layout {
                    match part {
                        InfillPart::Token(token) => tokens.push(*token),
                        InfillPart::Prefix => tokens.extend(self.tokenizer.encode(text)?),
                        InfillPart::Suffix => tokens.extend(self.within(suffix.unwrap_or_default())?),
                    }
                }
            }
            _ => tokens = self.tokenizer.encode(text)?,
        }
        if let Some(bos) = self.conventions.bos.filter(|bos| tokens.first() != Some(bos)) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    /// The prompt as one text, markers spelled out: for people.
    ///
    /// # Errors
    /// The chat template fails on the texts.
    pub fn shown(&self, text: &str, suffix: Option<&str>) -> Result<String> {
        match (self.format, &self.conventions.infill) {
            (Format::Chat(template), _) => {
                let pieces = template.render(&chat::request(text, suffix), self.conventions)?;
                Ok(pieces.iter().map(Piece::text).collect())
            }
            (Format::Infill, Some(infill)) => Ok(infill
                .layout
                .iter()
                .map(|part| match part {
                    InfillPart::Token(token) => self.spelling(*token),
                    InfillPart::Prefix => text,
                    InfillPart::Suffix => suffix.unwrap_or_default(),
                })
                .collect()),
            _ => Ok(text.to_owned()),
        }
    }

    fn spelling(&self, token: TokenId) -> &str {
        let mut controls = self.conventions.controls.iter();
        controls.find(|(_, id)| **id == token).map_or("", |(text, _)| text.as_str())
    }

    fn chat(
        &self,
        template: &ChatTemplate,
        text: &str,
        suffix: Option<&str>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<()> {
        let pieces = template.render(&chat::request(text, suffix), self.conventions)?;
        tokens.extend(self.pieces(&pieces)?);
        Ok(())
    }

    /// Tokens of a rendered chat, as transformers tokenises it: what lies between two control tokens is one text.
    ///
    /// # Errors
    /// A text cannot be tokenised.
    pub fn pieces(&self, pieces: &[Piece]) -> Result<Vec<TokenId>> {
        let mut tokens = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Control { token, .. } => tokens.push(*token),
                Piece::Text(text) if i > 0 && self.conventions.spaces_start_only => {
                    tokens.extend(self.within(text)?);
                }
                Piece::Text(text) => tokens.extend(self.tokenizer.encode(text)?),
            }
        }
        Ok(tokens)
    }

    /// Tokens of a text that others come before: without the space that some tokenizers put before a text.
    fn within(&self, text: &str) -> Result<Vec<TokenId>> {
        if self.within.is_empty() || text.is_empty() {
            return self.tokenizer.encode(text);
        }
        let mut tokens = self.tokenizer.encode(&format!("{WITHIN}{text}"))?;
        if !tokens.starts_with(&self.within) {
            return self.tokenizer.encode(text);
        }
        Ok(tokens.split_off(self.within.len()))
    }
}

fn no_infill(conventions: &Conventions) -> Error {
    let what = if conventions.infill_lacks.is_empty() {
        "its vocabulary has none of the markers that models are trained with (<|fim_prefix|>, <fim_prefix>, ▁<PRE>, \
         [PREFIX], <extra_id_0>, ...) and its file names none (tokenizer.ggml.fim_pre_token_id, ...)"
            .to_owned()
    } else {
        format!("its vocabulary lacks {}", conventions.infill_lacks.join(" and "))
    };
    let mend = "take another model, ask in a chat, or leave the suffix away";
    Error::new(ErrorKind::Unsupported, format!("this model cannot fill in the middle: {what}; {mend}"))
}
