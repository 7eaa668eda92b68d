//! Names taken apart into words, and English inflection by rule.

/// How a piece of a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// `sort`
    Lower,
    /// `Sort`
    Capital,
    /// `SORT`
    Upper,
}

impl Case {
    /// How a word is written; one capital letter alone is a capital.
    pub fn of(word: &str) -> Self {
        let mut letters = word.chars().filter(|c| c.is_alphabetic());
        match (letters.next(), letters.next()) {
            (Some(first), Some(second)) if first.is_uppercase() && second.is_uppercase() => Self::Upper,
            (Some(first), _) if first.is_uppercase() => Self::Capital,
            _ => Self::Lower,
        }
    }

    /// A lower-case word so written.
    pub fn write(self, word: &str) -> String {
        match self {
            Self::Lower => word.to_owned(),
            Self::Upper => word.to_uppercase(),
            Self::Capital => {
                let mut letters = word.chars();
                letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
            }
        }
    }
}

/// The pieces of a name: its words, its digits, its underscores, in order (`to_csv2`: `to`, `_`, `csv`, `2`).
pub fn pieces(name: &str) -> Vec<&str> {
    let class = |byte: u8| match byte {
        b'_' => 0,
        b'0'..=b'9' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    };
    let bytes = name.as_bytes();
    let mut found = Vec::new();
    let mut start = 0;
    for at in 1..bytes.len() {
        let (before, here) = (class(bytes[at - 1]), class(bytes[at]));
        let after = bytes.get(at + 1).map(|byte| class(*byte));
        let ends = match (before, here) {
            (2, 3) => false,
            // The last capital of a run begins the next word: `HDFStore`.
            (2, 2) => after == Some(3),
            (before, here) => before != here,
        };
        if ends && name.is_char_boundary(at) {
            found.push(&name[start..at]);
            start = at;
        }
    }
    if start < name.len() {
        found.push(&name[start..]);
    }
    found
}

/// Whether a piece is a word.
pub fn is_word(piece: &str) -> bool {
    piece.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
}

/// What English adds to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Plural, third person.
    S,
    /// Past.
    Ed,
    /// Present participle.
    Ing,
}

/// What a lower-case word may be a form of, likeliest first.
pub fn stems(word: &str) -> Vec<(String, Ending)> {
    let mut found = Vec::new();
    let mut push = |stem: &str, ending| {
        if stem.len() >= 2 {
            found.push((stem.to_owned(), ending));
        }
    };
    if let Some(stem) = word.strip_suffix("ies") {
        push(&format!("{stem}y"), Ending::S);
    }
    if let Some(stem) = word.strip_suffix('s').filter(|stem| !stem.ends_with(['s', 'u'])) {
        push(stem, Ending::S);
        if let Some(stem) = stem.strip_suffix('e') {
            push(stem, Ending::S);
        }
    }
    for (suffix, ending) in [("ed", Ending::Ed), ("ing", Ending::Ing)] {
        if let Some(stem) = word.strip_suffix(suffix).filter(|stem| stem.len() >= 2) {
            push(stem, ending);
            push(&format!("{stem}e"), ending);
            let bytes = stem.as_bytes();
            if bytes.len() >= 3 && bytes[bytes.len() - 1] == bytes[bytes.len() - 2] {
                push(&stem[..stem.len() - 1], ending);
            }
            if let Some(stem) = stem.strip_suffix('i') {
                push(&format!("{stem}y"), ending);
            }
        }
    }
    found
}

/// A lower-case word in another form.
pub fn inflect(word: &str, ending: Ending) -> String {
    let vowel = |byte: u8| b"aeiou".contains(&byte);
    let bytes = word.as_bytes();
    let last = |back: usize| bytes.len().checked_sub(back).map_or(b' ', |at| bytes[at]);
    let after_consonant_y = last(1) == b'y' && !vowel(last(2));
    // `shed`, `trim`: one vowel between consonants in a short word.
    let doubles = bytes.len() <= 4
        && vowel(last(2))
        && !vowel(last(3))
        && !vowel(last(1))
        && !b"wxy".contains(&last(1))
        && bytes.len() >= 3;
    match ending {
        Ending::S if after_consonant_y => format!("{}ies", &word[..word.len() - 1]),
        Ending::S if ["s", "x", "z", "ch", "sh"].iter().any(|end| word.ends_with(end)) => format!("{word}es"),
        Ending::S => format!("{word}s"),
        Ending::Ed if word.ends_with('e') => format!("{word}d"),
        Ending::Ed if after_consonant_y => format!("{}ied", &word[..word.len() - 1]),
        Ending::Ing if word.ends_with('e') && !word.ends_with("ee") => {
            format!("{}ing", &word[..word.len() - 1])
        }
        Ending::Ed | Ending::Ing => {
            let doubled = if doubles { &word[word.len() - 1..] } else { "" };
            format!("{word}{doubled}{}", if ending == Ending::Ed { "ed" } else { "ing" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, want) in [
            ("sort_values", "sort|_|values"),
            ("DataFrame", "Data|Frame"),
            ("HDFStore", "HDF|Store"),
            ("to_csv2", "to|_|csv|2"),
            ("FY5253Quarter", "FY|5253|Quarter"),
            ("ALL_INT", "ALL|_|INT"),
            ("T", "T"),
            ("", ""),
        ] {
            assert_eq!(pieces(name).join("|"), want);
        }
    }

    #[test]
    fn forms_of_words_are_made_and_undone() {
        for (word, ending, form) in [
            ("merge", Ending::Ed, "merged"),
            ("merge", Ending::Ing, "merging"),
            ("drop", Ending::Ing, "dropping"),
            ("copy", Ending::S, "copies"),
            ("copy", Ending::Ed, "copied"),
            ("index", Ending::S, "indexes"),
            ("append", Ending::Ing, "appending"),
            ("column", Ending::S, "columns"),
        ] {
            assert_eq!(inflect(word, ending), form);
            assert!(stems(form).contains(&(word.to_owned(), ending)), "{form}");
        }
        assert!(stems("is").is_empty() && stems("class").is_empty());
    }

    #[test]
    fn words_keep_their_case() {
        for (like, want) in [("x", "word"), ("Xy", "Word"), ("XY", "WORD"), ("X", "Word")] {
            assert_eq!(Case::of(like).write("word"), want);
        }
    }
}
