//! The tokenizer of a small model: byte-level BPE in which a name is cut the same way with a space before it and without.

use std::collections::{BTreeMap, HashSet};

use inhouse_core::{Error, ErrorKind, Result};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior, Tokenizer,
};

/// The token between documents, number 0.
pub const END: &str = "<|endoftext|>";
/// Of this many tokens one is a frequent word with its space.
const WITH_SPACE_ONE_IN: usize = 8;

fn failed(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, format!("tokenizer: {cause}"))
}

/// Learns `vocabulary` tokens from texts.
///
/// GPT-2's merges glue the space to a word's first letters, so that `# foo(` and `.foo(` share no token, and nothing small gets to
/// copy one into the other. Here the space is split off while merges are learned; afterwards the most frequent words that are one
/// token get their space back by a last merge each. Text is cut at run time by GPT-2's own rule, so that every reader of GPT-2
/// tokenizers reads this one. A line break and the blanks of an indentation are one token by that rule.
///
/// # Errors
/// The trainer fails.
pub(super) fn train(texts: &[String], vocabulary: usize) -> Result<Tokenizer> {
    let with_space = vocabulary / WITH_SPACE_ONE_IN;
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
    learner.train::<tokenizers::models::TrainerWrapper, _, _>(&mut trainer, texts.iter().map(String::as_str)).map_err(failed)?;
    let mut tree: serde_json::Value = serde_json::from_str(&learner.to_string(false).map_err(failed)?).map_err(failed)?;
    // Frequent words with their space.
    let mut words: BTreeMap<String, u64> = BTreeMap::new();
    for text in texts {
        let mut cut = PreTokenizedString::from(text.as_str());
        byte_level.pre_tokenize(&mut cut).map_err(failed)?;
        for (word, _, _) in cut.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if word.starts_with('\u{120}') {
                *words.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    let mut frequent: Vec<(String, u64)> = words.into_iter().collect();
    frequent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let model = &mut tree["model"];
    let mut added = 0;
    for (word, _) in frequent {
        if added == with_space {
            break;
        }
        let Some(bare) = word.strip_prefix('\u{120}') else { continue };
        let vocab = model["vocab"].as_object_mut().ok_or_else(|| failed("no vocabulary"))?;
        if !vocab.contains_key(bare) || vocab.contains_key(&word) {
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

/// The number of the token that ends documents.
///
/// # Errors
/// The tokenizer has none, or has more tokens than 16 bits number.
pub(super) fn end_of(tokenizer: &Tokenizer) -> Result<u16> {
    let size = tokenizer.get_vocab_size(true);
    if size > usize::from(u16::MAX) {
        return Err(Error::new(ErrorKind::Unsupported, format!("a tokenizer of {size} tokens: at most 65535")));
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
        assert!(spaced.ends_with(&bare[1..]) || spaced[0] == format!("\u{120}{}", bare[1]), "{bare:?} {spaced:?}");
        // An indentation is one token with its line break.
        assert!(cut("\n        return").contains(&"\u{10a}\u{120}\u{120}\u{120}\u{120}\u{120}\u{120}\u{120}".to_owned()));
        let text = "x = 'é' # ü\n\tdone";
        let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}
