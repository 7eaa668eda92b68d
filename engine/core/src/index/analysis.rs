//! From text to index terms: identifiers split by case, underscore and digits (the whole is kept too), lower case,
//! English stems (Porter2, "Snowball English").

use rust_stemmers::{Algorithm, Stemmer};
use rustc_hash::FxHashMap;

/// Words that say nothing about which API is meant. Only queries and prose are freed of them: a name keeps all of its
/// parts.
const STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "can", "could", "did", "do", "does", "for",
    "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me", "my", "of", "on",
    "or", "our", "s", "should", "so", "such", "t", "that", "the", "their", "then", "there", "these", "they",
    "this", "those", "to", "was", "we", "were", "what", "when", "where", "which", "who", "will", "with",
    "would", "you", "your",
];

/// Terms longer than this (hashes, base64) are cut: nobody searches for them whole.
const MAX_TERM_CHARS: usize = 64;

/// Whether stop words stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopWords {
    /// All words are terms: names, and queries of stop words alone.
    Keep,
    /// Prose. A word that stands as code (in back quotes, called, or after a dot) stays.
    Drop,
}

/// Turns text into terms. Stems are remembered, so one analyzer should serve many texts.
pub(super) struct Analyzer {
    stemmer: Stemmer,
    stems: FxHashMap<String, String>,
}

impl Analyzer {
    /// Bumped when the same text gives other terms: an index of another analysis must be built again.
    pub const VERSION: u32 = 1;

    pub fn new() -> Self {
        Self { stemmer: Stemmer::create(Algorithm::English), stems: FxHashMap::default() }
    }

    /// Calls `emit` with each term of `text`, in order.
    pub fn terms(&mut self, text: &str, stop_words: StopWords, mut emit: impl FnMut(&str)) {
        for (start, word) in words(text) {
            let code =
                || text[..start].ends_with(['`', '.']) || text[start + word.len()..].starts_with(['(', '`']);
            let drop = stop_words == StopWords::Drop && !code();
            let mut term = |analyzer: &mut Self, part: &str| {
                let lower: String = part.chars().take(MAX_TERM_CHARS).flat_map(char::to_lowercase).collect();
                if !(drop && STOP_WORDS.binary_search(&lower.as_str()).is_ok()) {
                    emit(analyzer.stem(lower));
                }
            };
            let parts = identifier_parts(word);
            for part in &parts {
                term(self, part);
            }
            if parts.len() > 1 {
                term(self, word);
            }
        }
    }

    fn stem(&mut self, lower: String) -> &str {
        let stemmer = &self.stemmer;
        self.stems.entry(lower).or_insert_with_key(|word| {
            // The stemmer is for ASCII English; other words and numbers are left as they are.
            if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
                stemmer.stem(word).into_owned()
            } else {
                word.clone()
            }
        })
    }
}

/// Runs of letters, digits and underscores, with their byte positions.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(|c: char| c.is_alphanumeric() || c == '_')?;
        let end = text[start..]
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(text.len(), |n| start + n);
        rest = end;
        Some((start, &text[start..end]))
    })
}

/// Splits `read_csvFile2` into `read`, `csv`, `File`, `2`; acronyms stay whole (`CSVParser`: `CSV`, `Parser`; `URLs`).
pub(super) fn identifier_parts(word: &str) -> Vec<&str> {
    #[derive(PartialEq, Clone, Copy)]
    enum Class {
        Upper,
        Lower,
        Digit,
        Gap,
    }
    let class = |c: char| match c {
        '_' => Class::Gap,
        c if c.is_numeric() => Class::Digit,
        c if c.is_uppercase() => Class::Upper,
        _ => Class::Lower,
    };
    let chars: Vec<(usize, char)> = word.char_indices().collect();
    let mut parts = Vec::new();
    let mut start = 0; // of the current part, in bytes
    for i in 1..=chars.len() {
        let end = chars.get(i).map_or(word.len(), |(at, _)| *at);
        let before = class(chars[i - 1].1);
        let here = chars.get(i).map(|(_, c)| class(*c));
        let after = chars.get(i + 1).map(|(_, c)| class(*c));
        let plural = |at: usize| {
            chars.get(at).is_some_and(|(_, c)| *c == 's') && {
                chars.get(at + 1).is_none_or(|(_, c)| class(*c) != Class::Lower)
            }
        };
        let cut = match (before, here) {
            (_, None) => true,
            // the last capital of a run begins the next word, unless what follows is only a plural s
            (Class::Upper, Some(Class::Upper)) => after == Some(Class::Lower) && !plural(i + 1),
            (Class::Upper, Some(Class::Lower)) => false,
            (before, Some(here)) => before != here,
        };
        if cut {
            if before != Class::Gap {
                parts.push(&word[start..end]);
            }
            start = end;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str, stop_words: StopWords) -> Vec<String> {
        let mut out = Vec::new();
        Analyzer::new().terms(text, stop_words, |term| out.push(term.to_owned()));
        out
    }

    #[test]
    fn identifiers_split() {
        for (word, parts) in [
            ("read_csv", &["read", "csv"][..]),
            ("CSVDictParser", &["CSV", "Dict", "Parser"]),
            ("__init__", &["init"]),
            ("float64", &["float", "64"]),
            ("toHTML5Page", &["to", "HTML", "5", "Page"]),
            ("URLs", &["URLs"]),
            ("URLsOf", &["URLs", "Of"]),
            ("IDs_by_URL", &["IDs", "by", "URL"]),
            ("X", &["X"]),
            ("___", &[]),
            ("Größe", &["Größe"]),
            ("表格", &["表格"]),
        ] {
            assert_eq!(identifier_parts(word), parts, "{word}");
        }
    }

    #[test]
    fn terms_are_stemmed_parts_and_the_whole() {
        assert_eq!(terms("Dropping columns!", StopWords::Drop), ["drop", "column"]);
        assert_eq!(terms("fill_missing", StopWords::Drop), ["fill", "miss", "fill_missing"]);
        assert_eq!(terms("how do I sort it?", StopWords::Drop), ["sort"]);
        assert_eq!(
            terms("use `where` or x.all() and for(", StopWords::Drop),
            ["use", "where", "x", "all", "for"]
        );
        assert_eq!(terms("to_csv", StopWords::Keep), ["to", "csv", "to_csv"]);
        assert_eq!(terms("", StopWords::Keep), [""; 0]);
        assert_eq!(terms(&"x".repeat(9999), StopWords::Keep)[0].len(), MAX_TERM_CHARS);
    }

    #[test]
    fn stop_words_are_sorted_for_the_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }
}
