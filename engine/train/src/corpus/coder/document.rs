//! One document of the corpus: its text, how much each part of it counts, and where a cursor may stand.

use inhouse_core::Result;

use super::tokenizer::Encoder;

/// Loss weights in hundredths.
pub(super) mod weight {
    /// Lines of API information. Names there are invented: learning to guess them is waste.
    pub const BLOCK: u8 = 4;
    /// Code around the cursor.
    pub const CONTEXT: u8 = 10;
    /// Code that is to be completed.
    pub const CALL: u8 = 100;
    /// The name of the API in it: what the block and the comment decide.
    pub const NAME: u8 = 200;
    /// What nothing in the prompt decides.
    pub const FREE: u8 = 15;
    /// Code without API lines.
    pub const PLAIN: u8 = 40;
    /// Code below API lines.
    pub const CODE: u8 = 60;
    /// Nothing is learned of it.
    pub const NONE: u8 = 0;
}

/// A document as it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Document {
    text: String,
    /// From these bytes on, this weight.
    weights: Vec<(usize, u8)>,
    /// Before these bytes a prompt may end: what follows is tokenized by itself, as it is generated.
    cuts: Vec<usize>,
}

impl Document {
    pub fn push(&mut self, text: &str, weight: u8) {
        if self.weights.last().is_none_or(|(_, last)| *last != weight) {
            self.weights.push((self.text.len(), weight));
        }
        self.text.push_str(text);
    }

    pub fn cut(&mut self) {
        self.cuts.push(self.text.len());
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its tokens, the end token after them, and the weight of predicting each; the first is never predicted.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, encoder: &Encoder) -> Result<(Vec<u16>, Vec<u8>)> {
        let mut tokens = Vec::new();
        let mut weights = Vec::new();
        let bytes = self.text.as_bytes();
        let mut begin = 0;
        for &cut in self.cuts.iter().chain([&self.text.len()]) {
            for (id, from) in encoder.encode(&self.text[begin..cut])? {
                // A token counts as its first letter does, whatever space it brings along.
                let mut at = begin + from;
                if bytes[at] == b' ' && at + 1 < cut {
                    at += 1;
                }
                let i = self.weights.partition_point(|(start, _)| *start <= at);
                let learned = i.checked_sub(1).map_or(weight::NONE, |i| self.weights[i].1);
                let is_given = matches!(learned, weight::BLOCK | weight::CONTEXT);
                tokens.push(id);
                weights.push(if is_given && !encoder.learns_given { weight::NONE } else { learned });
            }
            begin = cut;
        }
        tokens.push(encoder.end);
        weights.push(self.weights.last().map_or(weight::NONE, |(_, last)| *last).min(weight::CALL));
        weights[0] = weight::NONE;
        Ok((tokens, weights))
    }
}
