//! The words that private libraries are made of: `lexicon.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// What `lexicon.txt` holds.
pub struct Lexicon {
    /// Candidates for a public word.
    pub names: HashMap<&'static str, Vec<&'static str>>,
    /// What stands in running text for public words that are small words of English too.
    pub prose: HashMap<&'static str, &'static str>,
    /// Phrases of descriptions with others that say the same, longest first.
    pub phrases: Vec<(&'static str, Vec<&'static str>)>,
    /// Words for what has no candidates.
    pub nouns: Vec<&'static str>,
    /// Words to put before those.
    pub qualities: Vec<&'static str>,
}

/// The one lexicon.
pub fn lexicon() -> &'static Lexicon {
    static LEXICON: OnceLock<Lexicon> = OnceLock::new();
    LEXICON.get_or_init(|| read(include_str!("lexicon.txt")))
}

fn read(text: &'static str) -> Lexicon {
    let mut lexicon = Lexicon {
        names: HashMap::new(),
        prose: HashMap::new(),
        phrases: Vec::new(),
        nouns: Vec::new(),
        qualities: Vec::new(),
    };
    let mut section = "";
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let pair = |by| line.split_once(by).map(|(left, right): (&str, &str)| (left.trim(), right.trim()));
        match section {
            "names" => lexicon
                .names
                .extend(pair(':').map(|(word, others)| (word, others.split_whitespace().collect()))),
            "prose" => lexicon.prose.extend(pair(':')),
            "phrases" => lexicon.phrases.extend(
                pair('=').map(|(phrase, others)| (phrase, others.split('|').map(str::trim).collect())),
            ),
            "nouns" => lexicon.nouns.extend(line.split_whitespace()),
            _ => lexicon.qualities.extend(line.split_whitespace()),
        }
    }
    lexicon.phrases.sort_by_key(|(phrase, _)| std::cmp::Reverse(phrase.len()));
    lexicon
}

/// Draws by a seed. What is drawn for a key depends on seed and key alone: a library's next version keeps its private words.
#[derive(Debug, Clone, Copy)]
pub struct Dice(pub u64);

impl Dice {
    /// A number that `key` and `turn` decide.
    pub fn roll(self, key: &str, turn: usize) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(self.0.to_le_bytes());
        hasher.update((turn as u64).to_le_bytes());
        hasher.update(key.as_bytes());
        let digest = hasher.finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// One of `choices`.
    pub fn pick<'a, T>(self, choices: &'a [T], key: &str, turn: usize) -> Option<&'a T> {
        if choices.is_empty() {
            None
        } else {
            choices.get((self.roll(key, turn) % choices.len() as u64) as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rename::is_plain_word;

    #[test]
    fn the_lexicon_holds_plain_words() {
        let lexicon = lexicon();
        assert!(lexicon.names.len() > 200 && lexicon.nouns.len() > 200 && lexicon.qualities.len() > 80);
        for (word, others) in &lexicon.names {
            assert!(!others.is_empty(), "{word}");
            for other in others {
                assert!(is_plain_word(other) && other != word && !other.contains('_'), "{word}: {other}");
            }
        }
        for word in lexicon.nouns.iter().chain(&lexicon.qualities) {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
        for (phrase, others) in &lexicon.phrases {
            assert!(others.iter().all(|other| !other.is_empty() && other != phrase), "{phrase}");
        }
    }

    #[test]
    fn draws_depend_on_seed_and_key() {
        let roll = |seed, key| Dice(seed).roll(key, 0);
        assert_eq!(roll(1, "a"), roll(1, "a"));
        assert!(roll(1, "a") != roll(2, "a") && roll(1, "a") != roll(1, "b"));
        assert_eq!(Dice(1).pick::<u8>(&[], "a", 0), None);
    }
}
