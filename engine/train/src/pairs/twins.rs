//! Renamed twins: a library under other names, the same ones in all texts of a batch.
//!
//! The encoder sees `drop: Remove rows` as `harbor: Remove rows`: of such a library nothing can be known by heart, only read.

use std::hash::Hasher;

use inhouse_core::ApiDoc;
use rustc_hash::FxHasher;

/// Words that stand for the parts of names: plain English, none of them a word of programming.
const WORDS: &[&str] = &[
    "acorn", "amber", "anchor", "apron", "aspen", "badger", "banner", "barley", "basil", "beacon", "birch",
    "bishop", "blossom", "bonnet", "bramble", "breeze", "bronze", "brook", "butter", "cabin", "candle",
    "canoe", "canyon", "cedar", "cello", "cherry", "cider", "cinder", "clover", "cobalt", "comet", "copper",
    "coral", "cotton", "crane", "crater", "cricket", "crimson", "daisy", "dapple", "dawn", "denim", "desert",
    "donkey", "dragon", "drizzle", "eagle", "ember", "falcon", "fennel", "ferry", "fiddle", "finch",
    "flannel", "flint", "forest", "fox", "garnet", "ginger", "glacier", "goblet", "granite", "grove", "gull",
    "hamlet", "harbor", "harvest", "hazel", "heron", "hickory", "honey", "horizon", "indigo", "iris",
    "island", "ivory", "ivy", "jasmine", "jasper", "kettle", "ladder", "lagoon", "lantern", "larch", "lark",
    "laurel", "lavender", "lemon", "lentil", "lichen", "lilac", "linen", "lobster", "lotus", "lumber",
    "magnet", "maple", "marble", "meadow", "melon", "mercury", "mitten", "molasses", "moss", "mustard",
    "myrtle", "nectar", "needle", "nettle", "oak", "oasis", "ocean", "olive", "onion", "opal", "orchard",
    "orchid", "otter", "oyster", "paddle", "panther", "parsley", "pebble", "pepper", "pewter", "pigeon",
    "pillow", "pine", "plum", "pollen", "pond", "poppy", "prairie", "quail", "quartz", "quill", "rabbit",
    "raven", "ribbon", "river", "robin", "rosemary", "ruby", "saddle", "saffron", "salmon", "sandal",
    "sapphire", "satin", "scarlet", "shovel", "silver", "sparrow", "spruce", "squash", "stork", "summit",
    "sunset", "swallow", "tailor", "tamarind", "teapot", "thicket", "thistle", "thunder", "tiger", "timber",
    "topaz", "trout", "tulip", "tundra", "turnip", "turtle", "valley", "vanilla", "velvet", "violet",
    "walnut", "walrus", "weasel", "whistle", "willow", "winter", "wolf", "wren", "yarrow", "yonder",
    "zephyr", "zinnia",
];

/// One way of renaming a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    seed: u64,
}

impl Twin {
    /// The way of a seed: the same seed gives the same names.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    fn word(self, part: &str) -> &'static str {
        let mut hasher = FxHasher::default();
        hasher.write_u64(self.seed);
        hasher.write(part.as_bytes());
        // FxHash keeps its entropy in the high bits.
        WORDS[((hasher.finish() >> 32) % WORDS.len() as u64) as usize]
    }

    /// A name with each of its words exchanged, written as it was: `drop_duplicates` -> `harbor_lemon`, `DataFrame` ->
    /// `OtterPlum`.
    pub fn name(self, name: &str) -> String {
        let mut out = String::new();
        for part in parts(name) {
            if !part.starts_with(|c: char| c.is_alphabetic()) {
                out.push_str(part);
                continue;
            }
            let word = self.word(&part.to_lowercase());
            if part.starts_with(|c: char| c.is_uppercase()) {
                out.push_str(&word[..1].to_uppercase());
                out.push_str(&word[1..]);
            } else {
                out.push_str(word);
            }
        }
        out
    }

    /// A sentence with its identifiers renamed; plain words stay.
    pub fn sentence(self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
            out.push_str(&rest[..begin]);
            let tail = &rest[begin..];
            let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
            let (word, after) = tail.split_at(end);
            if is_identifier(word) || after.starts_with('(') {
                out.push_str(&self.name(word))
            } else {
                out.push_str(word)
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    /// The API in this twin.
    pub fn api(self, api: &ApiDoc) -> ApiDoc {
        ApiDoc {
            name: self.name(&api.name),
            qualified_name: api
                .qualified_name
                .split('.')
                .map(|part| self.name(part))
                .collect::<Vec<_>>()
                .join("."),
            description: self.sentence(&api.description),
            ..api.clone()
        }
    }
}

/// Whether a word in a sentence is a name of code: it has an underscore or a capital inside.
fn is_identifier(word: &str) -> bool {
    let trimmed = word.trim_matches('_');
    trimmed.contains('_')
        || (trimmed.chars().skip(1).any(char::is_uppercase) && trimmed.chars().any(char::is_lowercase))
}

/// The words of a name and what stands between them: `read_csvFile2` -> `read`, `_`, `csv`, `File`, `2`.
fn parts(name: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c.is_alphabetic() {
            0
        } else if c.is_numeric() {
            1
        } else {
            2
        }
    };
    let chars: Vec<(usize, char)> = name.char_indices().collect();
    let mut found = Vec::new();
    let mut begin = 0;
    for i in 1..chars.len() {
        let (at, c) = chars[i];
        let (_, before) = chars[i - 1];
        let next_is_lower = chars.get(i + 1).is_some_and(|(_, next)| next.is_lowercase());
        let hump = c.is_uppercase() && (before.is_lowercase() || (before.is_uppercase() && next_is_lower));
        if hump || kind(c) != kind(before) {
            found.push(&name[begin..at]);
            begin = at;
        }
    }
    if begin < name.len() {
        found.push(&name[begin..]);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_renamed_consistently() {
        assert_eq!(parts("read_csvFile2"), ["read", "_", "csv", "File", "2"]);
        assert_eq!(parts("HTTPServer"), ["HTTP", "Server"]);
        assert!(parts("").is_empty());
        let twin = Twin::new(7);
        let drop = twin.name("drop");
        assert_ne!(drop, "drop");
        assert!(twin.name("drop_duplicates").starts_with(&format!("{drop}_")));
        let text = "Drop rows of the DataFrame by drop_duplicates or drop().";
        let renamed = twin.sentence(text);
        assert!(
            renamed.starts_with("Drop rows of the ") && renamed.ends_with(&format!("{drop}().")),
            "{renamed}"
        );
        assert!(!renamed.contains("DataFrame") && renamed.contains(&twin.name("drop_duplicates")));
        assert_ne!(Twin::new(8).name("one_two_three"), twin.name("one_two_three"));
    }
}
