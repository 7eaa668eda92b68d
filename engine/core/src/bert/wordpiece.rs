//! BERT's tokenizer (`tokenization_bert.py` of transformers, with lower case and without accents) over the vocabulary of a GGUF
//! file, where a piece that begins a word has U+2581 before it.

use std::iter;

use rustc_hash::FxHashMap;
use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

use crate::decode::TokenId;
use crate::gguf::{Header, Value};

/// Characters of a word at most; a longer one is unknown.
const MAX_WORD_CHARS: usize = 100;
/// `llama_token_type`: of these a text is made.
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const BEGINS_WORD: &str = "\u{2581}";

/// A WordPiece tokenizer.
#[derive(Debug)]
pub struct WordPiece {
    /// Pieces that begin a word.
    first: Pieces,
    /// Pieces that continue one.
    later: Pieces,
    unknown: TokenId,
    /// What stands before and after a text.
    around: (TokenId, TokenId),
    n_tokens: usize,
}

#[derive(Debug, Default)]
struct Pieces {
    tokens: FxHashMap<Box<str>, TokenId>,
    /// Bytes of the longest.
    longest: usize,
}

impl Pieces {
    fn add(&mut self, text: &str, token: TokenId) {
        self.longest = self.longest.max(text.len());
        self.tokens.entry(text.into()).or_insert(token);
    }

    /// The longest piece that `text` begins with: its token and bytes.
    fn longest(&self, text: &str) -> Option<(TokenId, usize)> {
        let mut end = text.floor_char_boundary(self.longest);
        while end > 0 {
            if let Some(&token) = self.tokens.get(&text[..end]) {
                return Some((token, end));
            }
            end = text.floor_char_boundary(end - 1);
        }
        None
    }
}

impl WordPiece {
    /// The tokenizer of a file.
    ///
    /// # Errors
    /// What is wrong with it: tokens, their types or the special ones are missing, malformed or do not fit each other.
    pub fn read(header: &Header) -> Result<Self, String> {
        let Some(Value::Texts(texts)) = header.get("tokenizer.ggml.tokens") else {
            return Err("`tokenizer.ggml.tokens` is missing or no array of strings".into());
        };
        let n_tokens = texts.len();
        let types: Vec<i32> = match header.get("tokenizer.ggml.token_type") {
            Some(Value::Numbers(types)) => types.i32s().into_iter().flatten().collect(),
            None => vec![NORMAL; n_tokens],
            Some(_) => Vec::new(),
        };
        if types.len() != n_tokens {
            return Err("`tokenizer.ggml.token_type` is no array of i32, one for each token".into());
        }
        // What is taken for granted where a file does not say, as llama.cpp does: the places in BERT's own vocabulary.
        let special = |role: &str, default: TokenId| -> Result<TokenId, String> {
            let key = format!("tokenizer.ggml.{role}_token_id");
            let token = match header.get(&key) {
                Some(Value::U32(token)) => *token,
                Some(other) => {
                    return Err(format!("`{key}` is of type {}, expected u32", other.kind_name()));
                }
                None => default,
            };
            if (token as usize) < n_tokens {
                return Ok(token);
            }
            Err(format!("`{key}` is {token}, the vocabulary has {n_tokens} tokens"))
        };
        let around = (special("bos", 101)?, special("seperator", 102)?);
        let unknown = special("unknown", 100)?;
        let (mut first, mut later) = (Pieces::default(), Pieces::default());
        for (token, (text, kind)) in texts.iter().zip(types).enumerate() {
            let Ok(text) = std::str::from_utf8(text) else {
                return Err(format!("token {token} of `tokenizer.ggml.tokens` is no text"));
            };
            if !matches!(kind, NORMAL | USER_DEFINED) {
                continue;
            }
            match text.strip_prefix(BEGINS_WORD) {
                Some(text) => first.add(text, token as TokenId),
                None => later.add(text, token as TokenId),
            }
        }
        Ok(Self { first, later, unknown, around, n_tokens })
    }

    /// Rows of the vocabulary.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// The tokens of a text, at most `max_tokens` of them, those around it included; what is beyond is cut off.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Vec<TokenId> {
        let most = max_tokens.saturating_sub(1);
        let mut tokens = vec![self.around.0];
        let mut word = String::new();
        let mut n_chars = 0;
        // A last space ends the last word.
        for character in normalized(text).chain(iter::once(' ')) {
            let punctuation = character.is_ascii_punctuation() || character.is_punctuation();
            if punctuation || character.is_whitespace() {
                self.split(&word, n_chars, &mut tokens);
                word.clear();
                n_chars = 0;
                if punctuation {
                    self.split(character.encode_utf8(&mut [0; 4]), 1, &mut tokens);
                }
                if tokens.len() >= most {
                    break;
                }
            } else {
                n_chars += 1;
                if n_chars <= MAX_WORD_CHARS {
                    word.push(character);
                }
            }
        }
        tokens.truncate(most.max(1));
        tokens.push(self.around.1);
        tokens
    }

    /// Appends the pieces of a word, always the longest that fits; the unknown token where one fits nowhere.
    fn split(&self, word: &str, n_chars: usize, tokens: &mut Vec<TokenId>) {
        if word.is_empty() {
            return;
        }
        let begin = tokens.len();
        let mut rest = if n_chars > MAX_WORD_CHARS { None } else { Some(word) };
        let mut pieces = &self.first;
        while let Some(text) = rest.filter(|text| !text.is_empty()) {
            rest = pieces.longest(text).map(|(token, bytes)| {
                tokens.push(token);
                &text[bytes..]
            });
            pieces = &self.later;
        }
        if rest.is_none() {
            tokens.truncate(begin);
            tokens.push(self.unknown);
        }
    }
}

/// Without control characters and accents, in lower case, Chinese characters between spaces.
fn normalized(text: &str) -> impl Iterator<Item = char> {
    let kept = |character: &char| match character {
        '\t' | '\n' | '\r' => true,
        '\0' | '\u{fffd}' => false,
        character => !character.is_other(),
    };
    text.chars()
        .filter(kept)
        .flat_map(|character| {
            let around = is_chinese(character).then_some(' ');
            around.into_iter().chain(iter::once(character)).chain(around)
        })
        .nfd()
        .filter(|character| !character.is_mark_nonspacing())
        .flat_map(char::to_lowercase)
}

/// Of a block of unified ideographs.
fn is_chinese(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b73f
            | 0x2b740..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0xf900..=0xfaff
            | 0x2f800..=0x2fa1f
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tokens: &[&str], metadata: &[(&str, Value)]) -> Header {
        let tokens = [("tokenizer.ggml.tokens".to_owned(), Value::texts(tokens))];
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        Header {
            version: 3,
            metadata: tokens.into_iter().chain(metadata).collect(),
            tensors: Vec::new(),
            file_bytes: 0,
            alignment: 32,
            data_start: 0,
        }
    }

    const TOKENS: &[&str] = &[
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}un",
        "aff",
        "able",
        "\u{2581}the",
        "\u{2581}.",
        "\u{2581}日",
        "\u{2581}cafe",
        "\u{2581}unaffab",
        "\u{2581}x",
        "x",
    ];

    fn ids(special: [u32; 3]) -> Vec<(&'static str, Value)> {
        let keys = [
            "tokenizer.ggml.unknown_token_id",
            "tokenizer.ggml.bos_token_id",
            "tokenizer.ggml.seperator_token_id",
        ];
        keys.into_iter().zip(special.map(Value::U32)).collect()
    }

    #[test]
    fn pieces_of_texts() {
        let mut types = vec![NORMAL; TOKENS.len()];
        types[1] = 3;
        types[2] = 3;
        let mut metadata = ids([0, 1, 2]);
        metadata.push(("tokenizer.ggml.token_type", Value::i32s(types)));
        let pieces = WordPiece::read(&header(TOKENS, &metadata)).unwrap();
        let long = "x".repeat(MAX_WORD_CHARS);
        let longer = format!("{long}x the");
        let many = "the ".repeat(100_000);
        let cases: &[(&str, usize, &[TokenId])] = &[
            ("", 8, &[1, 2]),
            ("The  THE\u{a0}the\tthe\n", 8, &[1, 6, 6, 6, 6, 2]),
            // The longest piece is taken, though no piece goes on from there.
            ("unaffable", 8, &[1, 0, 2]),
            ("unaff", 8, &[1, 3, 4, 2]),
            ("un.the", 8, &[1, 3, 7, 6, 2]),
            ("café CAFE\u{301} the\u{0}\u{200b}\u{fffd}", 8, &[1, 9, 9, 6, 2]),
            ("日日the", 8, &[1, 8, 8, 6, 2]),
            ("[SEP] [CLS]", 16, &[1, 0, 0, 0, 0, 0, 0, 2]),
            (&longer, 8, &[1, 0, 6, 2]),
            (&many, 4, &[1, 6, 6, 2]),
            ("unaff the", 4, &[1, 3, 4, 2]),
            ("the", 3, &[1, 6, 2]),
        ];
        for (text, most, want) in cases {
            assert_eq!(pieces.encode(text, *most), *want, "{text:.20}");
        }
        assert_eq!(pieces.encode(&long, 200).len(), 2 + MAX_WORD_CHARS);
    }

    #[test]
    fn what_does_not_fit() {
        for (metadata, what) in [
            (ids([0, 1, 13]), "`tokenizer.ggml.seperator_token_id` is 13"),
            (Vec::new(), "`tokenizer.ggml.bos_token_id` is 101"),
            (vec![("tokenizer.ggml.bos_token_id", Value::I32(1))], "of type i32"),
            (vec![("tokenizer.ggml.token_type", Value::i32s([1]))], "one for each token"),
            (vec![("tokenizer.ggml.token_type", Value::U32(1))], "one for each token"),
        ] {
            let error = WordPiece::read(&header(TOKENS, &metadata)).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let mut header = header(TOKENS, &ids([0, 1, 2]));
        header.metadata.remove(0);
        assert!(WordPiece::read(&header).unwrap_err().contains("is missing"));
    }
}
