//! Invented identifiers: names that nothing can be known of, whether by heart or by guessing.

use rand::Rng;
use rand::seq::IndexedRandom;
use sha2::{Digest, Sha256};

const ONSETS: &[&str] = &[
    "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "fr", "g", "gl", "gr", "h", "j", "k", "kl", "kr", "l",
    "m", "n", "p", "pl", "pr", "qu", "r", "s", "sh", "sk", "sl", "sp", "st", "t", "th", "tr", "v", "w", "y",
    "z",
];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "ee", "oo", "ou"];
const CODAS: &[&str] = &["", "", "", "", "n", "r", "l", "m", "t", "k", "p", "s", "nd", "rt", "x", "st"];

/// Words that would read as more than a name.
const SPECIAL: &[&str] = &["match", "case", "type", "self", "cls"];

/// One name of this many is kept away from training, so that evaluation uses names that were never seen.
const RESERVED_ONE_IN: u32 = 20;

/// Whether a name is for evaluation alone.
pub(super) fn reserved(name: &str) -> bool {
    let digest = Sha256::digest(name.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]).is_multiple_of(RESERVED_ONE_IN)
}

/// Where names come from: pseudo-words, and words of real identifiers.
pub(super) struct Names<'a> {
    /// Words of identifiers, in lower case.
    pub words: &'a [String],
    /// Names for evaluation, or for training.
    pub held_out: bool,
}

impl Names<'_> {
    /// A pseudo-word.
    pub fn syllables(&self, low: usize, high: usize, rng: &mut impl Rng) -> String {
        let mut word = String::new();
        for _ in 0..rng.random_range(low..=high) {
            for part in [ONSETS, VOWELS, CODAS] {
                word.push_str(part.choose(rng).copied().unwrap_or_default());
            }
        }
        word
    }

    fn part(&self, rng: &mut impl Rng) -> String {
        if self.words.is_empty() || rng.random_bool(0.45) {
            self.syllables(1, 3, rng)
        } else {
            self.words.choose(rng).cloned().unwrap_or_default()
        }
    }

    /// A name as a function has it, or (`camel`) a class.
    pub fn name(&self, camel: bool, rng: &mut impl Rng) -> String {
        self.name_of(camel, 24, rng)
    }

    /// A name of at most so many letters, from about ten on.
    pub fn name_of(&self, camel: bool, most: usize, rng: &mut impl Rng) -> String {
        loop {
            let n_parts = match rng.random_range(0..100) {
                0..35 => 1,
                35..85 => 2,
                _ => 3,
            };
            let parts: Vec<String> = (0..n_parts).map(|_| self.part(rng)).collect();
            let name =
                if camel { parts.iter().map(|part| capitalized(part)).collect() } else { parts.join("_") };
            if (4..=most).contains(&name.len()) && !is_keyword(&name) && reserved(&name) == self.held_out {
                return name;
            }
        }
    }

    /// A short name as a parameter has it.
    pub fn parameter(&self, rng: &mut impl Rng) -> String {
        loop {
            let name = if rng.random_bool(0.7) {
                self.part(rng)
            } else {
                format!("{}_{}", self.part(rng), self.part(rng))
            };
            if (2..=14).contains(&name.len()) && !is_keyword(&name) {
                return name;
            }
        }
    }
}

/// With its first letter in upper case.
pub(super) fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Whether Python, or its programmers, keep the word for themselves.
pub(super) fn is_keyword(name: &str) -> bool {
    inhouse_core::python::is_keyword(name) || SPECIAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn training_and_evaluation_share_no_name() {
        let words = ["red".to_owned(), "tree".to_owned()];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut draw = |held_out| -> Vec<String> {
            let names = Names { words: &words, held_out };
            (0..300).map(|i| names.name(i % 3 == 0, &mut rng)).collect()
        };
        let (trained, measured) = (draw(false), draw(true));
        assert!(measured.iter().all(|name| !trained.contains(name)));
        assert!(trained.iter().any(|name| name.starts_with(|c: char| c.is_uppercase())));
        assert_eq!(capitalized("tree"), "Tree");
    }
}
