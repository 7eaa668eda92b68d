//! What a model expects around a text beside its vocabulary: the token that begins a text, the markers for filling in the
//! middle, the chat template of an instruction model.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TokenId;

/// How a model was trained to be asked. What is absent the model was not made for, as far as its files tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conventions {
    /// Stands before every prompt. `None` for an encoder-decoder: its decoder wraps the text itself.
    pub bos: Option<TokenId>,
    /// Cells of the cache that a sequence takes beside its tokens: what an encoder-decoder puts around a prompt by itself.
    pub extra_cells: usize,
    /// Tokens that end an answer in a chat, the end of text included where it does.
    pub ends_of_turn: Vec<TokenId>,
    /// How a prompt with code after the cursor is written.
    pub infill: Option<Infill>,
    /// Where the vocabulary has some of the tokens for filling in, but not all: those that are missing.
    pub infill_lacks: Vec<String>,
    /// Jinja text that turns messages into a prompt.
    pub chat_template: Option<String>,
    /// Text of the token that begins a text, for the template; empty where there is none.
    pub bos_text: String,
    /// Text of the token that ends a text, for the template.
    pub eos_text: String,
    /// Of a tokenizer that puts a space before a text: whether it does so at the beginning of a prompt alone, and not after
    /// every control token too (Metaspace's `prepend_scheme` `first`; GGUF cannot say so).
    pub spaces_start_only: bool,
    /// The tokens that no text can become, by their spelling: only a template, or the layout of a prompt, may write them.
    pub controls: BTreeMap<String, TokenId>,
}

/// How a model fills in the middle between a prefix and a suffix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Infill {
    /// The prompt, in this order, after the token that begins a text.
    pub layout: Vec<InfillPart>,
    /// Tokens that end the middle, beside those that end any text.
    pub ends: Vec<TokenId>,
    /// Control tokens that the model may write and that stand for no text: an encoder-decoder names the gap that it fills.
    pub openings: Vec<TokenId>,
}

/// A part of an infilling prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InfillPart {
    /// A marker.
    Token(TokenId),
    /// The code before the cursor.
    Prefix,
    /// The code after the cursor.
    Suffix,
}

/// Markers by their spelling in the vocabularies of code models: prefix, suffix, middle.
const MARKERS: [[&str; 3]; 8] = [
    // Qwen2.5-Coder, CodeGemma
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    // StarCoder, Granite
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    // SantaCoder
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    // DeepSeek-Coder
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    // Code Llama (Rozière et al. 2023, arXiv 2308.12950, section 2.3)
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    // GLM
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
    // Falcon-H1-Coder
    ["<|prefix|>", "<|suffix|>", "<|middle|>"],
];

/// Codestral's: the suffix first, and no marker for the middle (`encode_fim` in mistral-common).
const SUFFIX_FIRST: [&str; 2] = ["[SUFFIX]", "[PREFIX]"];

/// What code models write after a middle: padding, the next file, the next repository, the end of a turn.
const INFILL_ENDS: [&str; 14] = [
    "<|fim_pad|>",
    "<fim_pad>",
    "<fim-pad>",
    "<|file_sep|>",
    "<file_sep>",
    "<|file_separator|>",
    "<|repo_name|>",
    "<|fim_repo|>",
    "<repo_name>",
    "<reponame>",
    "<EOT>",
    "▁<EOT>",
    "<|endoftext|>",
    "<|end_of_text|>",
];

/// What instruction models write after an answer.
const TURN_ENDS: [&str; 10] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|EOT|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<EOT>",
];

/// T5's names of the gaps in a text: the first is filled, the second would begin the next.
const GAPS: [&str; 2] = ["<extra_id_0>", "<extra_id_1>"];

/// Whether `text` is how code models spell a token for filling in, which must be a control token then: some files mark
/// these as ordinary text, which a file of the user could hold.
pub fn is_infill_marker(text: &str) -> bool {
    MARKERS.as_flattened().contains(&text) || INFILL_ENDS.contains(&text)
}

impl Conventions {
    /// What the spellings of the control tokens tell: infilling and the ends of a turn.
    pub fn from_controls(controls: BTreeMap<String, TokenId>) -> Self {
        let id = |text: &&str| controls.get(*text).copied();
        let mut found = Self::default();
        let complete = MARKERS.iter().find_map(|texts| Some(texts.each_ref().map(id)).filter(all_there));
        let ends: Vec<TokenId> = INFILL_ENDS.iter().filter_map(id).collect();
        if let Some([Some(prefix), Some(suffix), Some(middle)]) = complete {
            found.infill = Some(Infill::prefix_first(prefix, suffix, middle, ends));
        } else if let [Some(suffix), Some(prefix)] = SUFFIX_FIRST.each_ref().map(id) {
            found.infill = Some(Infill::suffix_first(suffix, prefix, ends));
        } else if let Some(texts) = MARKERS.iter().find(|texts| texts.iter().any(|text| id(text).is_some())) {
            let missing = texts.iter().filter(|text| id(text).is_none());
            found.infill_lacks = missing.map(|text| (*text).to_owned()).collect();
        }
        found.ends_of_turn = TURN_ENDS.iter().filter_map(id).collect();
        found.controls = controls;
        found
    }

    /// Filling in as T5 was trained to (span corruption, Raffel et al. 2020, arXiv 1910.10683; CodeT5, arXiv 2109.00859):
    /// the encoder reads `prefix <extra_id_0> suffix`, the decoder writes `<extra_id_0> middle <extra_id_1>`. `begin` is the
    /// token before a text, which the decoder may write as well.
    pub fn with_gaps(mut self, begin: Option<TokenId>) -> Self {
        if let [Some(&gap), Some(&next)] = GAPS.map(|text| self.controls.get(text)) {
            self.infill = Some(Infill {
                layout: vec![InfillPart::Prefix, InfillPart::Token(gap), InfillPart::Suffix],
                ends: vec![next],
                openings: begin.into_iter().chain([gap]).collect(),
            });
            self.infill_lacks.clear();
        }
        self
    }
}

fn all_there(ids: &[Option<TokenId>; 3]) -> bool {
    ids.iter().all(Option::is_some)
}

impl Infill {
    /// Prefix, suffix, middle: what all models with three markers are trained on (Bavarian et al. 2022, arXiv 2207.14255).
    /// Any of the markers ends a middle too.
    pub fn prefix_first(prefix: TokenId, suffix: TokenId, middle: TokenId, ends: Vec<TokenId>) -> Self {
        use InfillPart::{Prefix, Suffix, Token};
        let layout = vec![Token(prefix), Prefix, Token(suffix), Suffix, Token(middle)];
        Self { layout, ends: with(ends, &[prefix, suffix, middle]), openings: Vec::new() }
    }

    /// Suffix, then prefix, which the middle follows directly.
    pub fn suffix_first(suffix: TokenId, prefix: TokenId, ends: Vec<TokenId>) -> Self {
        use InfillPart::{Prefix, Suffix, Token};
        let layout = vec![Token(suffix), Suffix, Token(prefix), Prefix];
        Self { layout, ends: with(ends, &[prefix, suffix]), openings: Vec::new() }
    }
}

fn with(mut ends: Vec<TokenId>, more: &[TokenId]) -> Vec<TokenId> {
    for token in more {
        if !ends.contains(token) {
            ends.push(*token);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls(texts: &[&str]) -> BTreeMap<String, TokenId> {
        texts.iter().zip(100..).map(|(text, id)| ((*text).to_owned(), id)).collect()
    }

    #[test]
    fn families_are_known_by_their_spelling() {
        use InfillPart::{Prefix, Suffix, Token};
        for texts in MARKERS {
            let found = Conventions::from_controls(controls(&texts)).infill.unwrap();
            assert_eq!(found.layout, [Token(100), Prefix, Token(101), Suffix, Token(102)], "{texts:?}");
            assert_eq!(found.ends, [100, 101, 102]);
        }
        let found = Conventions::from_controls(controls(&["[PREFIX]", "[SUFFIX]", "<s>"])).infill.unwrap();
        assert_eq!(found.layout, [Token(101), Suffix, Token(100), Prefix]);
        let gaps = Conventions::from_controls(controls(&["<s>", "<extra_id_0>", "<extra_id_1>"]));
        assert_eq!(gaps.infill, None);
        let found = gaps.with_gaps(Some(100)).infill.unwrap();
        assert_eq!(found.layout, [Prefix, Token(101), Suffix]);
        assert_eq!((found.ends, found.openings), (vec![102], vec![100, 101]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = Conventions::from_controls(controls(&["<fim_prefix>", "<fim_suffix>"]));
        assert_eq!((found.infill, found.infill_lacks), (None, vec!["<fim_middle>".to_owned()]));
        let found = Conventions::from_controls(controls(&["<|endoftext|>"]));
        assert_eq!((found.infill, found.infill_lacks), (None, vec![]));
        // Of two families the complete one counts.
        let texts = ["<PRE>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>"];
        let found = Conventions::from_controls(controls(&texts)).infill.unwrap();
        assert_eq!(found.ends, [104, 101, 102, 103]);
    }

    #[test]
    fn they_travel_as_json() {
        let mut there = Conventions::from_controls(controls(&MARKERS[3])).with_gaps(None);
        (there.bos, there.chat_template) = (Some(1), Some("{{ bos_token }}".to_owned()));
        let back: Conventions = serde_json::from_str(&serde_json::to_string(&there).unwrap()).unwrap();
        assert_eq!(back, there);
        assert_eq!(serde_json::from_str::<Conventions>("{}").unwrap(), Conventions::default());
    }
}
