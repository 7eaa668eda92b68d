//! What is said in public words, said in private ones: names, a program's own identifiers, and prose.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::lexicon::{Dice, lexicon};
use super::words::{Case, Ending, inflect, is_word, pieces, stems};
use inhouse_core::python::is_keyword;

use crate::rename::{Table, is_python_word, words_at};

/// Shorter words inside of longer ones are left: `at`, `dt`, `n`.
const MIN_PIECE: usize = 3;

/// A text in private words, and where it kept public ones on purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The text.
    pub text: String,
    /// Ranges of it that name something else than the library's, and what.
    pub kept: Vec<(Range<usize>, Why)>,
}

/// Why a public word stands in a converted text: there it is not the library's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A builtin or an attribute, keyword or module of another library.
    Foreign,
    /// A string: an option's value (`how="any"`), data, a format.
    String,
}

/// How quoted words of prose are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotes {
    /// As values of options: kept.
    Keep,
    /// By the words that the problem at hand has for strings.
    Follow,
}

/// A rename table as a language.
pub struct Speech {
    exact: HashMap<String, String>,
    /// Lower-case forms of names without underscores: what prose says of them.
    lower: HashMap<String, String>,
    aliases: HashMap<String, String>,
    public: HashSet<String>,
    library: String,
    dice: Dice,
}

impl Speech {
    /// The language of a table; `seed` decides which paraphrase is taken.
    pub fn new(table: &Table, library: &str, seed: u64) -> Self {
        let exact: HashMap<_, _> = table.pairs.iter().cloned().collect();
        let mut lower = HashMap::new();
        // A name that is written so in the table goes before one that is not (`index` before `Index`).
        for (public, private) in table.pairs.iter().filter(|(public, _)| !public.contains('_')) {
            let form = public.to_lowercase();
            if form == *public {
                lower.insert(form, private.to_lowercase());
            } else {
                lower.entry(form).or_insert_with(|| private.to_lowercase());
            }
        }
        Self {
            public: exact.keys().cloned().collect(),
            exact,
            lower,
            aliases: table.aliases.iter().cloned().collect(),
            library: library.to_owned(),
            dice: Dice(seed),
        }
    }

    /// Import name of the public library.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// The private name of a public one.
    pub fn name(&self, public: &str) -> Option<&str> {
        self.exact.get(public).map(String::as_str)
    }

    /// A dotted path in private names.
    pub fn path(&self, path: &str) -> String {
        path.split('.').map(|part| self.name(part).unwrap_or(part)).collect::<Vec<_>>().join(".")
    }

    /// Adds a short form of the library that a program uses, where the table has none.
    pub fn add_alias(&mut self, public: &str, private: impl FnOnce(&dyn Fn(&str) -> bool) -> String) {
        if self.exact.contains_key(public) || self.aliases.contains_key(public) {
            return;
        }
        let is_free = |form: &str| {
            !self.public.contains(form)
                && form != public
                && !is_python_word(form)
                && !self.aliases.iter().any(|(known, private)| known == form || private == form)
        };
        let private = private(&is_free);
        self.aliases.insert(public.to_owned(), private);
    }

    /// Short forms, those added included, in order.
    pub fn aliases(&self) -> Vec<(String, String)> {
        let mut all: Vec<_> = self.aliases.clone().into_iter().collect();
        all.sort();
        all
    }

    /// A program's own identifier: `merged_df`, `append_in_dataframe`. Names and short forms stand for theirs; else every
    /// word of it that the library has as a name is replaced, in its form (`merged`).
    pub fn identifier(&self, name: &str) -> String {
        if name.starts_with("__") || is_python_word(name) && !self.exact.contains_key(name) {
            return name.to_owned();
        }
        if let Some(private) = self.exact.get(name).or_else(|| self.aliases.get(name)) {
            // One letter is nobody's name in particular.
            return if name.len() > 1 { private.clone() } else { name.to_owned() };
        }
        let parts = pieces(name);
        let mut found = String::with_capacity(name.len() + 8);
        let mut at = 0;
        while at < parts.len() {
            // A whole name within a longer one: `subDataFrame`.
            let whole = (2..=3usize.min(parts.len() - at)).rev().find_map(|n| {
                let joined = parts[at..at + n].concat();
                Some((n, self.exact.get(&joined).filter(|_| !joined.contains('_'))?))
            });
            match whole {
                Some((n, private)) => {
                    found.push_str(private);
                    at += n;
                }
                None => {
                    found.push_str(&self.piece(parts[at]));
                    at += 1;
                }
            }
        }
        if is_python_word(&found) { format!("{found}_") } else { found }
    }

    fn piece(&self, piece: &str) -> String {
        if !is_word(piece) {
            return piece.to_owned();
        }
        let lower = piece.to_lowercase();
        let found = match self.aliases.get(&lower) {
            Some(alias) => Some(alias.clone()),
            None if lower.len() >= MIN_PIECE => self.word(&lower),
            None => None,
        };
        found.map_or_else(|| piece.to_owned(), |private| Case::of(piece).write(&private))
    }

    /// The private form of a lower-case word, where it is a name of the library or a form of one.
    fn word(&self, lower: &str) -> Option<String> {
        if let Some(private) = self.lower.get(lower) {
            return Some(private.clone());
        }
        let form = |(stem, ending): (String, Ending)| {
            let known = stem.len() >= MIN_PIECE && !lexicon().prose.contains_key(stem.as_str());
            known.then(|| self.lower.get(&stem)).flatten().map(|private| inflect(private, ending))
        };
        stems(lower).into_iter().find_map(form)
    }

    /// Whether a word, wherever it stands, is a public name: as the table writes it, or with another first letter.
    pub fn is_public(&self, word: &str) -> bool {
        if word.len() < 2 || is_keyword(word) {
            return false;
        }
        self.public.contains(word)
            || Case::of(word) != Case::Upper && self.lower.contains_key(&word.to_lowercase())
    }

    /// Prose in private words. `strings` are the problem's (see [`Quotes::Follow`]).
    pub fn prose(&self, text: &str, quotes: Quotes, strings: &HashMap<String, String>) -> Said {
        let mut said = Said::default();
        let mut copied = 0;
        for (place, word) in words_at(text) {
            let around = Around::of(text, &place);
            let is_kept = around.quoted && quotes == Quotes::Keep && self.is_public(word);
            let private = if is_kept { None } else { self.prose_word(word, around, quotes, strings) };
            let Some(private) = private.filter(|private| private != word) else {
                if is_kept {
                    said.text.push_str(&text[copied..place.start]);
                    copied = place.end;
                    let start = said.text.len();
                    said.text.push_str(word);
                    said.kept.push((start..said.text.len(), Why::String));
                }
                continue;
            };
            said.text.push_str(&text[copied..place.start]);
            fit_article(&mut said.text, &private);
            said.text.push_str(&private);
            copied = place.end;
        }
        said.text.push_str(&text[copied..]);
        said
    }

    fn prose_word(
        &self,
        word: &str,
        around: Around,
        quotes: Quotes,
        strings: &HashMap<String, String>,
    ) -> Option<String> {
        if around.quoted
            && quotes == Quotes::Follow
            && let Some(private) = strings.get(word)
        {
            return Some(private.clone());
        }
        // `None` and `True` are Python's in prose as well.
        if word.starts_with(char::is_uppercase) && is_keyword(word) {
            return None;
        }
        let plain = word.bytes().all(|byte| byte.is_ascii_alphabetic());
        let case = Case::of(word);
        let mixed = case != Case::Upper
            && word.get(1..).is_some_and(|rest| rest.bytes().any(|b| b.is_ascii_uppercase()));
        if around.is_parameter {
            return self.exact.get(word).cloned();
        }
        if mixed
            && !self.exact.contains_key(word)
            && let Some(private) = self.lower.get(&word.to_lowercase())
        {
            return Some(Case::Capital.write(private));
        }
        if around.is_code || !plain || mixed {
            return if word.len() < 2 && !around.is_code { None } else { Some(self.code_word(word)) };
        }
        if word.len() < 2 || case == Case::Upper && !self.public.contains(word) {
            return self.aliases.get(word).cloned();
        }
        if let Some(alias) = self.aliases.get(word) {
            return Some(alias.clone());
        }
        let lower = word.to_lowercase();
        if self.lower.contains_key(&lower)
            && let Some(other) = lexicon().prose.get(lower.as_str())
            && !other.split(' ').any(|word| self.is_public(word))
        {
            return Some(case.write(other));
        }
        Some(case.write(&self.word(&lower)?))
    }

    fn code_word(&self, word: &str) -> String {
        if let Some(private) = self.exact.get(word) {
            return private.clone();
        }
        match word.strip_suffix('s').and_then(|stem| self.exact.get(stem)) {
            Some(private) => inflect(private, Ending::S),
            None => self.identifier(word),
        }
    }

    /// A sentence in other words. What it says of names stays; it may be said in private ones afterwards.
    pub fn paraphrase(&self, sentence: &str) -> String {
        let mut out = String::with_capacity(sentence.len());
        let mut rest = sentence;
        let mut at_start = true;
        'next: while !rest.is_empty() {
            if at_start {
                for (phrase, others) in &lexicon().phrases {
                    let Some(head) = rest.get(..phrase.len()) else { continue };
                    let ends =
                        rest[phrase.len()..].chars().next().is_none_or(|c| c == ' ' || c == ',' || c == '.');
                    if !ends || !head.eq_ignore_ascii_case(phrase) || head.split(' ').any(is_written_name) {
                        continue;
                    }
                    // A phrase that says a public name is put in private words instead.
                    if phrase.split(' ').any(|word| self.is_public(word)) {
                        continue;
                    }
                    let free: Vec<_> = others
                        .iter()
                        .filter(|other| !other.split(' ').any(|word| self.is_public(word)))
                        .collect();
                    let Some(other) = self.dice.pick(&free, &format!("{sentence}/{}", out.len()), 0) else {
                        continue;
                    };
                    fit_article(&mut out, other);
                    let capital = head.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
                    out.push_str(&if capital { Case::Capital.write(other) } else { (***other).to_owned() });
                    rest = &rest[phrase.len()..];
                    at_start = false;
                    continue 'next;
                }
            }
            let Some(letter) = rest.chars().next() else { break };
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
            at_start = letter == ' ';
        }
        out
    }
}

fn is_written_name(word: &str) -> bool {
    word.bytes().skip(1).any(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// What stands around a word of prose.
#[derive(Debug, Clone, Copy)]
struct Around {
    quoted: bool,
    is_code: bool,
    /// Where a parameter's name stands: that is what the table says, or the library's own.
    is_parameter: bool,
}

impl Around {
    fn of(text: &str, place: &Range<usize>) -> Self {
        let before = text[..place.start].chars().next_back();
        let mut behind = text[place.end..].chars();
        let after = behind.next();
        let quoted = matches!((before, after), (Some('\''), Some('\'')) | (Some('"'), Some('"')));
        let line = text[..place.start].rsplit('\n').next().unwrap_or_default();
        let heads_line = line.trim().is_empty() || line.trim() == "#";
        let joined = before == Some('.')
            && !text[..place.start - 1].ends_with(|c: char| c.is_whitespace() || c == '.')
            || after == Some('.') && behind.next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let is_code = quoted || before == Some('`') || after == Some('`') || after == Some('(') || joined;
        // `frame.drop(index=1)`, and the lists of parameters in docstrings.
        let equals = after == Some('=') && !text[place.end + 1..].starts_with('=');
        let is_parameter =
            !quoted && place.len() > 1 && (equals || heads_line && text[place.end..].starts_with(" :"));
        Self { quoted, is_code, is_parameter }
    }
}

/// Makes `a` and `an` before a word fit it.
fn fit_article(text: &mut String, word: &str) {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    let has = |text: &str, article: &str| {
        text.strip_suffix(article)
            .is_some_and(|before| before.is_empty() || before.ends_with(|c: char| !c.is_alphanumeric()))
    };
    if vowel && (has(text, "a ") || has(text, "A ")) {
        text.insert(text.len() - 1, 'n');
    } else if !vowel && (has(text, "an ") || has(text, "An ")) {
        text.remove(text.len() - 2);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn speech() -> Speech {
        let pairs = [
            ("frames", "amberwell"),
            ("DataFrame", "FactSheet"),
            ("index", "anchor"),
            ("Index", "Anchor"),
            ("merge", "fuse"),
            ("sort_values", "marshal_facts"),
            ("values", "facts"),
            ("at", "spot"),
            ("all", "entirety"),
            ("drop", "shed"),
            ("T", "FLIP"),
            ("item", "oddment"),
        ];
        let table = Table {
            pairs: pairs.map(|(public, private)| (public.to_owned(), private.to_owned())).to_vec(),
            aliases: vec![("df".into(), "fs".into())],
            ..Table::default()
        };
        Speech::new(&table, "frames", 1)
    }

    #[test]
    fn identifiers_are_renamed_by_their_words() {
        for (public, private) in [
            ("merged_df", "fused_fs"),
            ("append_in_dataframe", "append_in_factsheet"),
            ("T", "T"),
            ("sort_values", "marshal_facts"),
            ("get_at_index", "get_at_anchor"),
            ("newIndex", "newAnchor"),
            ("__name__", "__name__"),
            ("df2", "fs2"),
            ("x", "x"),
        ] {
            assert_eq!(speech().identifier(public), private, "{public}");
        }
    }

    #[test]
    fn prose_is_put_in_private_words() {
        for (public, private) in [
            ("Merging an index at all DataFrames.", "Fusing an anchor by every FactSheets."),
            ("an item of `df.index`, `merge(T)`", "a piece of `fs.anchor`, `fuse(T)`"),
            ("the dataframe df is merged; drops all", "the factsheet fs is fused; sheds every"),
            ("Use df.drop(index=1) or \"x\".", "Use fs.shed(anchor=1) or \"x\"."),
            ("INDEX é values2", "INDEX é facts2"),
        ] {
            assert_eq!(speech().prose(public, Quotes::Follow, &HashMap::new()).text, private);
        }
    }

    #[test]
    fn quoted_words_of_documentation_are_values() {
        let said = speech().prose("Where \u{e4} 'all' or all.", Quotes::Keep, &HashMap::new());
        assert_eq!(said.text, "Where \u{e4} 'all' or every.");
        assert_eq!(said.kept.len(), 1);
        assert_eq!(&said.text[said.kept[0].0.clone()], "all");
    }

    #[test]
    fn sentences_are_said_otherwise() {
        let text = "Return the number of elements, whether given or not.";
        let other = speech().paraphrase(text);
        assert_ne!(other, text);
        assert_eq!(other, speech().paraphrase(text));
        // a form of a public name is no phrase to be exchanged: `item` of the table is never brought in either
        assert!(!other.contains("item"), "{other}");
        assert_eq!(speech().paraphrase("É"), "É");
    }
}
