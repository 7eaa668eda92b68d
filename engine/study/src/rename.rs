//! Rename tables: which private word stands for which public name, and completions converted back by them.
//!
//! The paper (arXiv 2210.17236, Table 5) made MonkeyEval and BeatNumEval out of pandas and numpy by such a table, and
//! evaluates a completion by converting its private names back ([`Rules::PUBLISHED`]).

mod rules;
mod text;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use inhouse_core::python::{is_builtin, is_keyword};
use inhouse_core::{Error, ErrorKind, Result, files};
use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};

pub use rules::{Reject, Replace, Rules};
pub(crate) use text::words as words_at;

/// The names that stand in a text, in code or not.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text::words(text).map(|(_, word)| word)
}

/// No table is longer.
const MAX_WORDS: usize = 100_000;

/// A rename table whose direction is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Import name of the public library, where the table says so.
    pub library: Option<String>,
    /// Import name of the private one, where the table says so.
    pub name: Option<String>,
    /// Further top-level modules that belong to the library (its C extensions, say).
    pub modules: Vec<String>,
    /// Whether private words also stand for names outside of the library, where the table says so.
    pub everywhere: Option<bool>,
    /// Short forms that programs give to the library and its objects (`pd`, `df`), with their private ones: no names of the
    /// library, but they give it away.
    pub aliases: Vec<(String, String)>,
    /// `(public, private)` words in the order of the file, which is the order in which the published conversion replaces.
    pub pairs: Vec<(String, String)>,
}

impl Table {
    /// Reads a table: the name of a shipped one (`monkey`: pandas, `beatnum`: numpy), or a JSON file.
    ///
    /// The file is `{"library": "pandas", "name": "monkey", "public_to_private": {...}}` (or `private_to_public`; `library`,
    /// `name` and a list of `modules` may be missing), or the words alone as they are published. Which side is public is then
    /// read off `public_text`, text that is known to speak public names (the problems' tests).
    ///
    /// # Errors
    /// There is no such file, it is not such JSON, a word is no Python name, a word stands twice on one side or on both, or
    /// the direction cannot be told.
    pub fn read(name_or_path: &Path, public_text: &str) -> Result<Self> {
        let shipped = match name_or_path.to_str() {
            Some("monkey") => Some(include_str!("../tables/monkey.json")),
            Some("beatnum") => Some(include_str!("../tables/beatnum.json")),
            _ => None,
        };
        let text = match shipped {
            Some(text) => text.to_owned(),
            None => files::read_text(name_or_path)?,
        };
        Self::parse(&text, public_text).map_err(|what| Error::data(name_or_path, what))
    }

    fn parse(text: &str, public_text: &str) -> Result<Self, String> {
        let not_a_table = |error| format!("not a rename table (an object of name to name): {error}");
        let declared = text.contains("\"public_to_private\"") || text.contains("\"private_to_public\"");
        let table = if declared {
            let declared: Declared = serde_json::from_str(text).map_err(not_a_table)?;
            declared.into_table()?
        } else {
            let words: Words = serde_json::from_str(text).map_err(not_a_table)?;
            let pairs = if left_is_public(&words.0, public_text)? { words.0 } else { swapped(words.0) };
            Self { pairs, ..Self::default() }
        };
        table.check()?;
        Ok(table)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        if self.pairs.is_empty() {
            return Err("an empty rename table".into());
        }
        if self.pairs.len() > MAX_WORDS {
            return Err(format!("{} words; at most {MAX_WORDS} are taken", self.pairs.len()));
        }
        let mut privates = HashMap::new();
        for (public, private) in &self.pairs {
            for word in [public, private] {
                if !is_plain_word(word) {
                    return Err(format!("`{word}` is no name that could be renamed"));
                }
            }
            if let Some(other) = privates.insert(private.as_str(), public.as_str()) {
                return Err(format!("ambiguous: `{private}` stands for `{other}` and for `{public}`"));
            }
        }
        for (public, private) in &self.pairs {
            if let Some(other) = privates.get(public.as_str()) {
                return Err(if public == private {
                    format!("`{public}` is renamed to itself")
                } else {
                    format!(
                        "ambiguous: `{public}` is a public name (now `{private}`) and the private one of `{other}`"
                    )
                });
            }
        }
        let mut dotted = self.library.iter().chain(&self.name).chain(&self.modules);
        if let Some(bad) = dotted.find(|name| !is_plain_word(name)) {
            return Err(format!("`{bad}` is no module name"));
        }
        if self.library.is_some() && self.library == self.name {
            return Err("the private library has the public one's name".into());
        }
        Ok(())
    }

    /// The table as [`Table::read`] reads it.
    pub fn to_json(&self) -> String {
        let object = |pairs: &[(String, String)]| -> serde_json::Map<_, _> {
            pairs.iter().map(|(left, right)| (left.clone(), right.as_str().into())).collect()
        };
        let mut table = serde_json::Map::new();
        let texts = [("library", &self.library), ("name", &self.name)];
        table.extend(texts.into_iter().filter_map(|(key, text)| Some((key.into(), text.as_deref()?.into()))));
        if !self.modules.is_empty() {
            table.insert("modules".into(), self.modules.as_slice().into());
        }
        table.extend(self.everywhere.map(|everywhere| ("everywhere".to_owned(), everywhere.into())));
        if !self.aliases.is_empty() {
            table.insert("aliases".into(), object(&self.aliases).into());
        }
        table.insert("public_to_private".into(), object(&self.pairs).into());
        format!("{:#}\n", serde_json::Value::Object(table))
    }

    /// The private word of a public name.
    pub fn private(&self, public: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| name == public).map(|(_, private)| private.as_str())
    }

    /// The public name of a private word.
    pub fn public(&self, private: &str) -> Option<&str> {
        self.pairs.iter().find(|(_, word)| word == private).map(|(public, _)| public.as_str())
    }

    /// The public library and its private name; a table that does not say is asked for `candidates` (the modules that the
    /// environment imports).
    ///
    /// # Errors
    /// Neither the table nor the candidates say which library is renamed.
    pub fn library_and_name(&self, candidates: &[String]) -> Result<(&str, &str)> {
        let of_candidates = || {
            let roots = candidates.iter().filter_map(|module| module.split('.').next());
            let mut known = roots.filter_map(|root| self.pairs.iter().find(|(public, _)| public == root));
            known.next().map(|(public, _)| public.as_str())
        };
        let library = self.library.as_deref().or_else(of_candidates);
        let name = self.name.as_deref().or_else(|| self.private(library?));
        library.zip(name).ok_or_else(|| {
            let message = "the rename table does not say which library it renames: add \"library\" and \"name\" to it, or \
                           import the library beforehand (--env PYTHON:LIBRARY)";
            Error::new(ErrorKind::InvalidArgument, message)
        })
    }

    /// Whether a text speaks private words rather than public names: it has more different ones of them.
    pub fn speaks_private(&self, text: &str) -> bool {
        let (public, private) = spoken(&self.pairs, text);
        private > public
    }

    /// A text with every private word replaced, in the table's order and inside longer words too.
    pub fn public_text(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (public, private)| text.replace(private, public))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    library: Option<String>,
    name: Option<String>,
    #[serde(default)]
    modules: Vec<String>,
    everywhere: Option<bool>,
    aliases: Option<Words>,
    public_to_private: Option<Words>,
    private_to_public: Option<Words>,
}

impl Declared {
    fn into_table(self) -> Result<Table, String> {
        let pairs = match (self.public_to_private, self.private_to_public) {
            (Some(words), None) => words.0,
            (None, Some(words)) => swapped(words.0),
            _ => return Err("expected one of `public_to_private` and `private_to_public`".into()),
        };
        let aliases = self.aliases.map(|words| words.0).unwrap_or_default();
        Ok(Table {
            library: self.library,
            name: self.name,
            modules: self.modules,
            everywhere: self.everywhere,
            aliases,
            pairs,
        })
    }
}

/// An object of strings in the order of the file, in which no key stands twice.
struct Words(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Words;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of name to name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
                let mut seen = HashSet::new();
                let mut words = Vec::new();
                while let Some((left, right)) = map.next_entry::<String, String>()? {
                    if !seen.insert(left.clone()) {
                        return Err(de::Error::custom(format!("ambiguous: `{left}` stands twice")));
                    }
                    words.push((left, right));
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn swapped(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(left, right)| (right, left)).collect()
}

fn left_is_public(pairs: &[(String, String)], public_text: &str) -> Result<bool, String> {
    let (left, right) = spoken(pairs, public_text);
    if left == right {
        return Err(
            "the table does not say which side is public, and the tests do not show it: write it as {\"public_to_private\": \
             {...}} or {\"private_to_public\": {...}}"
                .into(),
        );
    }
    Ok(left > right)
}

/// How many different left and right words a text has.
fn spoken(pairs: &[(String, String)], text: &str) -> (usize, usize) {
    let said: HashSet<&str> = words(text).collect();
    let count = |side: fn(&(String, String)) -> &String| {
        pairs.iter().filter(|pair| said.contains(side(pair).as_str())).count()
    };
    (count(|pair| &pair.0), count(|pair| &pair.1))
}

/// Whether a word may be renamed, or stand for one that is.
pub(crate) fn is_plain_word(word: &str) -> bool {
    text::is_ascii_name(word) && !word.starts_with("__") && !is_keyword(word)
}

/// Whether a word is one of Python's own, keywords and builtins.
pub(crate) fn is_python_word(word: &str) -> bool {
    is_keyword(word) || is_builtin(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Result<Table, String> {
        Table::parse(text, "import pandas as pd\npd.DataFrame()")
    }

    #[test]
    fn the_shipped_tables_are_read() {
        for (name, library, word) in
            [("monkey", "pandas", ("groupby", "grouper")), ("beatnum", "numpy", ("array", "numset"))]
        {
            let table = Table::read(Path::new(name), "").unwrap();
            assert_eq!(table.library_and_name(&[]).unwrap(), (library, name));
            assert_eq!(table.private(word.0), Some(word.1));
        }
    }

    #[test]
    fn the_direction_is_declared_or_read_off_public_text() {
        let pairs = vec![("pandas".to_owned(), "monkey".to_owned()), ("pd".to_owned(), "mk".to_owned())];
        for text in [
            r#"{"pandas":"monkey","pd":"mk"}"#,
            r#"{"monkey":"pandas","mk":"pd"}"#,
            r#"{"public_to_private":{"pandas":"monkey","pd":"mk"}}"#,
            r#"{"private_to_public":{"monkey":"pandas","mk":"pd"}}"#,
        ] {
            assert_eq!(table(text).unwrap().pairs, pairs, "{text}");
        }
        let flat = table(r#"{"pandas":"monkey","pd":"mk"}"#).unwrap();
        assert_eq!(
            flat.library_and_name(&["os".into(), "pandas.core".into()]).unwrap(),
            ("pandas", "monkey")
        );
        assert!(
            flat.library_and_name(&["os".into()]).unwrap_err().to_string().contains("--env PYTHON:LIBRARY")
        );
    }

    #[test]
    fn what_is_no_clear_table_is_refused() {
        for (text, what) in [
            ("", "not a rename table"),
            ("[]", "not a rename table"),
            (r#"{"pandas":["monkey"]}"#, "not a rename table"),
            (r#"{"pandas":"monkey""#, "not a rename table"),
            (r#"{"public_to_private":{}}"#, "empty"),
            (
                r#"{"library":"pandas","public_to_private":{"a":"b"},"private_to_public":{"b":"a"}}"#,
                "expected one of",
            ),
            (r#"{"public_to_private":{"a":"b"},"surprise":1}"#, "surprise"),
            (r#"{"pandas":"monkey","pandas":"ape"}"#, "stands twice"),
            (
                r#"{"public_to_private":{"sum":"total","add":"total"}}"#,
                "`total` stands for `sum` and for `add`",
            ),
            (r#"{"public_to_private":{"sum":"total","total":"all_of"}}"#, "ambiguous: `total`"),
            (r#"{"public_to_private":{"sum":"sum"}}"#, "to itself"),
            (r#"{"public_to_private":{"sum":"is"}}"#, "`is` is no name"),
            (r#"{"public_to_private":{"sum":"a.b"}}"#, "`a.b` is no name"),
            (r#"{"public_to_private":{"__init__":"begin"}}"#, "no name"),
            (r#"{"library":"a b","name":"c","public_to_private":{"sum":"total"}}"#, "no module name"),
            (r#"{"library":"a","name":"a","public_to_private":{"sum":"total"}}"#, "public one's name"),
            (r#"{"left":"right"}"#, "which side is public"),
        ] {
            let error = table(text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
        let missing = Table::read(Path::new("/no/such/table"), "").unwrap_err().to_string();
        assert!(missing.contains("/no/such/table"), "{missing}");
    }
}
