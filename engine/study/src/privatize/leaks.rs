//! Whether public names are left in what a private library shows.
//!
//! Counted is every word (a maximal run of letters, digits and underscores) of two letters or more that is a public name, as the
//! table writes it or with another first letter (`Index` and `index`; words all in capitals only as the table writes them). Not
//! counted but told apart: words in the place of something else than the library's name ([`Why`]).

use std::collections::BTreeMap;

use serde::Serialize;

use super::speech::{Said, Speech, Why};
use crate::rename::words_at;

/// The words of texts that are public names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Leaks {
    /// Words looked at.
    pub words: usize,
    /// Public names among them that stand for the library's.
    pub public_names: usize,
    /// The first of these, with how often each stands there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub which: BTreeMap<String, usize>,
    /// Names of builtins, and of modules, attributes and keywords of other libraries, that happen to be public names too.
    pub foreign: usize,
    /// In strings: values of options (`how="any"`), data, formats.
    pub strings: usize,
}

impl Leaks {
    /// Adds the words of a text.
    pub fn look(&mut self, said: &Said, speech: &Speech) {
        for (place, word) in words_at(&said.text) {
            self.words += 1;
            if !speech.is_public(word) {
                continue;
            }
            let kept = said.kept.iter().find(|(kept, _)| kept.start <= place.start && place.end <= kept.end);
            match kept {
                Some((_, Why::Foreign)) => self.foreign += 1,
                Some((_, Why::String)) => self.strings += 1,
                None => {
                    self.public_names += 1;
                    if self.which.len() < 50 || self.which.contains_key(word) {
                        *self.which.entry(word.to_owned()).or_default() += 1;
                    }
                }
            }
        }
    }
}
