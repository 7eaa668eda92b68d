//! The tokenizer of a small model: byte-level BPE in which a name is cut the same way with a space before it and without.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};

use inhouse_core::{Error, ErrorKind, Result};
use rustc_hash::FxHashMap;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::wording::FUNCTION_WORDS;

/// The token between documents, number 0.
pub const END: &str = "<|endoftext|>";
/// Words that get a token with the space before them, after [`FUNCTION_WORDS`]: they seldom begin a name, so that nobody has to copy
/// them from a place with a space to one without.
const WITH_SPACE: &[&str] = &[
    "which",
    "when",
    "not",
    "no",
    "we",
    "I",
    "you",
    "how",
    "then",
    "now",
    "return",
    "def",
    "class",
    "import",
    "None",
    "True",
    "False",
    "else",
    "elif",
    "while",
    "try",
    "except",
    "raise",
    "lambda",
    "yield",
    "assert",
    "del",
    "pass",
    "given",
    "whether",
    "can",
    "will",
    "has",
    "have",
    "was",
    "been",
    "our",
    "your",
    "so",
    "there",
    "these",
    "their",
    "each",
    "where",
    "than",
    "between",
    "using",
    "do",
    "does",
    "want",
    "would",
    "like",
    "need",
    "please",
    "should",
    "first",
    "Return",
    "Returns",
    "The",
    "How",
    "Use",
    "With",
    "This",
    "Get",
    "Set",
    "Take",
    "Now",
    "We",
    "Please",
    "Specifically",
    "Its",
    "Here",
    "used",
    "current",
    "otherwise",
    "such",
    "other",
    "only",
    "same",
    "any",
    "self",
];

fn failed(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, format!("tokenizer: {cause}"))
}

/// Learns `vocabulary` tokens from texts.
///
/// GPT-2's merges glue the space to a word's first letters, so that `# foo(` and `.foo(` share no token, and nothing small gets to
/// copy one into the other. Here the space is split off while merges are learned; afterwards words that begin no names get their
/// space back by a last merge each. Text is cut at run time by GPT-2's own rule, so that every reader of GPT-2
/// tokenizers reads this one. A line break and the blanks of an indentation are one token by that rule.
///
/// # Errors
/// The trainer fails.
pub(super) fn train(texts: &[String], vocabulary: usize) -> Result<Tokenizer> {
    let words = || FUNCTION_WORDS.iter().chain(WITH_SPACE);
    let with_space = words().count().min(vocabulary / 8);
    let byte_level = ByteLevel::new(false, true, true);
    let apart = Split::new(
        tokenizers::pre_tokenizers::split::SplitPattern::Regex("^\u{120}(?=[^\u{120}\u{10a}])".into()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(failed)?;
    let mut learner = Tokenizer::new(BPE::default());
    learner.with_pre_tokenizer(Some(Sequence::new(vec![byte_level.into(), apart.into()])));
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary - with_space)
        .special_tokens(vec![AddedToken::from(END, true)])
        .initial_alphabet(alphabet)
        .show_progress(false)
        .build();
    let mut trainer = trainer.into();
    learner
        .train::<tokenizers::models::TrainerWrapper, _, _>(&mut trainer, texts.iter().map(String::as_str))
        .map_err(failed)?;
    let mut tree: serde_json::Value =
        serde_json::from_str(&learner.to_string(false).map_err(failed)?).map_err(failed)?;
    let model = &mut tree["model"];
    let mut added = 0;
    for bare in words() {
        if added == with_space {
            break;
        }
        let word = format!("\u{120}{bare}");
        let vocab = model["vocab"].as_object_mut().ok_or_else(|| failed("no vocabulary"))?;
        if !vocab.contains_key(*bare) || vocab.contains_key(&word) {
            continue;
        }
        let id = vocab.len();
        vocab.insert(word.clone(), id.into());
        let merges = model["merges"].as_array_mut().ok_or_else(|| failed("no merges"))?;
        merges.push(serde_json::json!(["\u{120}", bare]));
        added += 1;
    }
    tree["pre_tokenizer"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    tree["decoder"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    tree["post_processor"] = serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    Tokenizer::from_bytes(serde_json::to_vec(&tree).map_err(failed)?).map_err(failed)
}

/// Text to tokens, with the byte at which each begins.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    /// The token that ends documents.
    pub end: u16,
    /// Whether what a prompt gives has a weight.
    pub learns_given: bool,
    /// Words by GPT-2's rule that were met, with their tokens and those's lengths in bytes; `None` where the tokenizer is not one of
    /// that rule alone.
    known: Option<RwLock<FxHashMap<String, Word>>>,
}

type Word = Arc<[(u16, u8)]>;
/// Words are forgotten beyond this many.
const MAX_KNOWN: usize = 1 << 20;

impl Encoder {
    /// `is_own`: the tokenizer is one that [`train`] gave.
    ///
    /// # Errors
    /// As [`end_of`].
    pub fn new(tokenizer: Tokenizer, is_own: bool, learns_given: bool) -> Result<Self> {
        let end = end_of(&tokenizer)?;
        Ok(Self { tokenizer, end, learns_given, known: is_own.then(RwLock::default) })
    }

    /// Tokens of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<(u16, usize)>> {
        let Some(known) = self.known.as_ref().filter(|_| text.is_ascii()) else { return self.whole(text) };
        let mut tokens = Vec::with_capacity(text.len() / 2);
        let mut at = 0;
        while at < text.len() {
            let word = &text[at..at + first_word(&text.as_bytes()[at..])];
            let found = known.read().ok().and_then(|known| known.get(word).cloned());
            let found = match found {
                Some(found) => found,
                None => {
                    let pieces = self.whole(word)?;
                    let ends = pieces.iter().skip(1).map(|(_, begin)| *begin).chain([word.len()]);
                    let made: Word = pieces
                        .iter()
                        .zip(ends)
                        .map(|((id, begin), end)| (*id, (end - begin) as u8))
                        .collect();
                    if let Ok(mut known) = known.write()
                        && word.len() < 64
                    {
                        if known.len() > MAX_KNOWN {
                            known.clear();
                        }
                        known.insert(word.to_owned(), made.clone());
                    }
                    if word.len() >= 256 {
                        tokens.extend(pieces.into_iter().map(|(id, begin)| (id, at + begin)));
                        at += word.len();
                        continue;
                    }
                    made
                }
            };
            for &(id, length) in found.iter() {
                tokens.push((id, at));
                at += usize::from(length);
            }
        }
        Ok(tokens)
    }

    fn whole(&self, text: &str) -> Result<Vec<(u16, usize)>> {
        let encoded = self.tokenizer.encode(text, false).map_err(failed)?;
        let number =
            |id: u32| u16::try_from(id).map_err(|_| failed(format!("token {id} does not fit into 16 bits")));
        let offsets = encoded.get_offsets().iter().map(|(begin, _)| *begin);
        encoded.get_ids().iter().zip(offsets).map(|(id, begin)| Ok((number(*id)?, begin))).collect()
    }
}

/// Bytes of the first word of ASCII text by GPT-2's rule:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn first_word(text: &[u8]) -> usize {
    for short in ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"] {
        if text.starts_with(short.as_bytes()) {
            return short.len();
        }
    }
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let kind = |byte: u8| match byte {
        _ if byte.is_ascii_alphabetic() => 0,
        _ if byte.is_ascii_digit() => 1,
        _ if is_space(byte) => 2,
        _ => 3,
    };
    let begin = usize::from(text.first() == Some(&b' '));
    if let Some(first) = text.get(begin).map(|byte| kind(*byte)).filter(|kind| *kind != 2) {
        return begin + text[begin..].iter().take_while(|byte| kind(**byte) == first).count();
    }
    let spaces = text.iter().take_while(|byte| is_space(**byte)).count();
    // The last blank before a word belongs to the word.
    if spaces > 1 && spaces < text.len() { spaces - 1 } else { spaces.max(1).min(text.len()) }
}

/// The number of the token that ends documents.
///
/// # Errors
/// The tokenizer has none, or has more tokens than 16 bits number.
pub(super) fn end_of(tokenizer: &Tokenizer) -> Result<u16> {
    let size = tokenizer.get_vocab_size(true);
    if size > usize::from(u16::MAX) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("a tokenizer of {size} tokens: at most 65535"),
        ));
    }
    let end = tokenizer.token_to_id(END).ok_or_else(|| {
        Error::new(ErrorKind::InvalidData, format!("the tokenizer has no token {END} to end documents with"))
    })?;
    u16::try_from(end).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_alike_with_a_space_and_without() {
        let texts: Vec<String> = (0..40)
            .map(|i| format!("# gather_rows(limit): Gather {i} rows.\ndef f(x):\n    if x:\n        return x.gather_rows(limit)\n"))
            .collect();
        let tokenizer = train(&texts, 400).unwrap();
        assert_eq!(end_of(&tokenizer).unwrap(), 0);
        let cut = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        let (bare, spaced) = (cut(".gather_rows("), cut(" gather_rows("));
        assert_eq!(bare[1..], spaced[1..], "{bare:?} {spaced:?}");
        // An indentation is one token with its line break.
        assert!(
            cut("\n        return")
                .contains(&"\u{10a}\u{120}\u{120}\u{120}\u{120}\u{120}\u{120}\u{120}".to_owned())
        );
        let text = "x = 'é' # ü\n\tdone";
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
    #[test]
    fn words_are_cut_by_the_tokenizers_own_rule() {
        let texts = vec!["def f(x): return x.gather_rows(12)  # it's we'll\n    if x:\n".repeat(20)];
        let tokenizer = train(&texts, 400).unwrap();
        let encoder = Encoder::new(tokenizer.clone(), true, true).unwrap();
        let mut state = 7_u32;
        let mut draw = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        let alphabet = [
            " ", "  ", "\n", "\t", "'", "s", "'re", "ll", "ab", "X", "12", "_", "(", ").", "é", "\r\n",
            "\u{1c}",
        ];
        for _ in 0..400 {
            let n = draw(14);
            let text: String = (0..n).map(|_| alphabet[draw(alphabet.len() as u32) as usize]).collect();
            let expected = tokenizer.encode(text.as_str(), false).unwrap();
            let (ids, begins): (Vec<u16>, Vec<usize>) = encoder.encode(&text).unwrap().into_iter().unzip();
            assert_eq!(
                ids.iter().map(|id| u32::from(*id)).collect::<Vec<_>>(),
                expected.get_ids(),
                "{text:?}"
            );
            assert_eq!(
                begins,
                expected.get_offsets().iter().map(|(begin, _)| *begin).collect::<Vec<_>>(),
                "{text:?}"
            );
        }
        let long = "a".repeat(1000);
        assert_eq!(encoder.encode(&long).unwrap().len(), tokenizer.encode(long, false).unwrap().len());
    }
}
