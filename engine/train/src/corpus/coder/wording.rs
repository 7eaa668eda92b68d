//! What a comment says of an API: its description as somebody would ask for it, or what people really wrote.

use rand::Rng;
use rand::seq::IndexedRandom;
use rustc_hash::FxHashMap;

use crate::pairs::{ask, vary};

/// The commonest words of English, which carry no meaning by themselves. Their order is that of their tokens.
pub(super) const FUNCTION_WORDS: &[&str] = &[
    "the", "a", "an", "of", "to", "in", "on", "for", "and", "or", "is", "are", "be", "by", "with", "from",
    "this", "that", "it", "its", "as", "at", "into", "if", "all",
];

/// How far a comment may be from the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distance {
    /// Nearly its words.
    Near,
    /// As chance says.
    Any,
}

/// The sentence with which a comment asks for an API of this description, of which `queries` were said too; names are not exchanged
/// yet.
pub(super) fn wish(description: &str, queries: &[String], distance: Distance, rng: &mut impl Rng) -> String {
    let roll: f64 = rng.random();
    let description = description.trim_end_matches('.');
    let text = if distance == Distance::Near || roll < 0.35 {
        if rng.random_bool(0.6) { ask(description, rng) } else { description.to_owned() }
    } else if roll < 0.7 || queries.is_empty() {
        shortened(&vary(&ask(description, rng), 0.6, rng), rng)
    } else {
        match queries.choose(rng) {
            Some(query) => vary(query, 0.15, rng),
            None => description.to_owned(),
        }
    };
    let text = text.trim_end_matches(['.', ':', ';']).to_owned();
    let end = if text.ends_with('?') { "" } else { ["", ".", "."].choose(rng).copied().unwrap_or_default() };
    format!("{text}{end}")
}

/// Words that no sentence ends with.
const OPEN_ENDS: &[&str] = &[
    "a", "an", "the", "of", "to", "in", "on", "for", "and", "or", "is", "are", "be", "by", "with", "from",
    "that", "this", "as", "at", "into", "if", "which", "using", "its", "their", "was", "where", "when",
    "than", "between", "given", "each", "any", "all",
];

fn shortened(text: &str, rng: &mut impl Rng) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() > 9 && rng.random_bool(0.35) {
        let mut kept = rng.random_range(7..=words.len());
        // Not in the middle of a phrase.
        while kept > 4 && OPEN_ENDS.contains(&words[kept - 1].to_ascii_lowercase().as_str()) {
            kept -= 1;
        }
        return words[..kept].join(" ");
    }
    words.join(" ")
}

/// The text with the identifiers in it, and names of classes, under the names that `names` gives them; plain words stay, also
/// where they are names.
pub(super) fn renamed(text: &str, names: &FxHashMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        out.push_str(&rest[..begin]);
        let tail = &rest[begin..];
        let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        match names.get(word) {
            // A capital within a sentence is a class's.
            Some(name)
                if is_identifier(word)
                    || after.starts_with('(')
                    || rest[..begin].ends_with(['.', '`'])
                    || (!out.is_empty() && word.starts_with(|c: char| c.is_ascii_uppercase())) =>
            {
                out.push_str(name);
            }
            _ => out.push_str(word),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a word in a sentence is a name of code: it has an underscore or a capital inside.
pub(super) fn is_identifier(word: &str) -> bool {
    let trimmed = word.trim_matches('_');
    trimmed.contains('_')
        || (trimmed.chars().skip(1).any(char::is_uppercase) && trimmed.chars().any(char::is_lowercase))
}

/// The identifiers in a sentence.
pub(super) fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| is_identifier(word))
}

/// The comment behind `mark`, over several lines where it is long and chance says so.
pub(super) fn wrapped(comment: &str, mark: &str, rng: &mut impl Rng) -> String {
    let width = [60, 72, 80, 100].choose(rng).copied().unwrap_or(80);
    if rng.random_bool(0.5) || comment.len() + mark.len() <= width {
        return format!("{mark}{comment}");
    }
    let mut lines = vec![mark.to_owned()];
    for word in comment.split(' ') {
        let last = lines.len() - 1;
        if lines[last].len() + word.len() > width && lines[last].len() > mark.len() {
            lines.push(format!("{mark}{word}"));
        } else {
            if lines[last].len() > mark.len() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn identifiers_are_renamed_and_words_are_not() {
        let names: FxHashMap<String, String> =
            [("DataFrame", "Zib"), ("drop", "mol"), ("read_csv", "ged"), ("Drop", "Vol"), ("Row", "Bim")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .into_iter()
                .collect();
        let text = "Drop or drop() rows of the DataFrame, as read_csv and obj.drop do; drop them: a Row.";
        let expected = "Drop or mol() rows of the Zib, as ged and obj.mol do; drop them: a Bim.";
        assert_eq!(renamed(text, &names), expected);
        assert_eq!(identifiers(text).collect::<Vec<_>>(), ["DataFrame", "read_csv"]);
    }

    #[test]
    fn comments_are_wrapped_whole() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let text = "words and more of them ".repeat(8);
        for _ in 0..20 {
            let comment = wrapped(text.trim(), "    # ", &mut rng);
            let back: Vec<&str> = comment.lines().map(|line| line.strip_prefix("    # ").unwrap()).collect();
            assert_eq!(back.join(" "), text.trim());
        }
    }
}
