//! The APIs that tasks are made of, by library: each with what people and its own documentation say of it.

use std::hash::{Hash, Hasher};

use inhouse_core::api::ApiKind;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::parameters::Parameters;
use super::wording::FUNCTION_WORDS;
use crate::pairs::{ApiTable, Origin, Pair, prose};

/// A longer line of documentation is seldom needed, and few prompts have room for it.
const MAX_SIGNATURE_BYTES: usize = 180;
const MAX_REQUIRED: usize = 4;
const MAX_WORDS: usize = 24;
/// Lines that many of fit into a short row.
const MAX_SMALL_DESCRIPTION: usize = 56;
const MAX_SMALL_SIGNATURE: usize = 24;
/// APIs of one library with the very same description.
const MAX_ALIKE: usize = 2;
/// Other wordings kept of each API.
const MAX_QUERIES: usize = 12;

/// One documented API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    pub name: String,
    pub kind: ApiKind,
    /// Of a method: its class.
    pub owner: Option<String>,
    pub parameters: Parameters,
    /// Its first sentence.
    pub description: String,
    /// What else is said of it: comments above its calls, sentences above examples, cross references.
    pub queries: Vec<String>,
    /// Stems of the description's words.
    pub stems: FxHashSet<u64>,
    /// Whether its line is short.
    pub is_small: bool,
}

/// The APIs of one library.
pub(super) struct Shelf {
    /// Its top-level name.
    pub library: String,
    pub apis: Vec<Api>,
    /// Those with short lines.
    pub small: Vec<u32>,
    /// Stem -> the APIs whose description has it, where they are few.
    near: FxHashMap<u64, Vec<u32>>,
}

impl Shelf {
    fn new(library: &str, apis: Vec<Api>) -> Self {
        let mut near: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
        for (i, api) in apis.iter().enumerate() {
            for stem in &api.stems {
                near.entry(*stem).or_default().push(i as u32);
            }
        }
        near.retain(|_, apis| (2..=40).contains(&apis.len()));
        let small = (0..apis.len()).filter(|&i| apis[i].is_small).map(|i| i as u32).collect();
        Self { library: library.to_owned(), apis, small, near }
    }

    /// Without the APIs that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&Api) -> bool) {
        let mut apis = std::mem::take(&mut self.apis);
        apis.retain(keep);
        *self = Self::new(&self.library, apis);
    }

    /// APIs that share a word of their description with this one.
    pub fn near(&self, api: &Api) -> Vec<u32> {
        let mut found: Vec<u32> =
            api.stems.iter().filter_map(|stem| self.near.get(stem)).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Words beside [`FUNCTION_WORDS`] that say nothing of what is asked for.
const EMPTY: &[&str] = &[
    "given",
    "specified",
    "using",
    "use",
    "how",
    "do",
    "we",
    "want",
    "need",
    "please",
    "now",
    "then",
    "first",
    "would",
    "like",
    "can",
    "will",
    "which",
    "when",
    "where",
    "not",
    "no",
    "return",
    "get",
    "set",
    "new",
    "one",
    "two",
    "any",
    "each",
    "has",
    "have",
    "was",
    "been",
    "i",
    "you",
    "our",
    "your",
    "so",
    "there",
    "these",
    "their",
    "result",
    "place",
];

/// The words of a text that carry meaning, each by a hash of its stem.
pub(super) fn stems(text: &str) -> FxHashSet<u64> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 1)
        .map(str::to_ascii_lowercase)
        .filter(|word| !FUNCTION_WORDS.contains(&word.as_str()) && !EMPTY.contains(&word.as_str()))
        .map(|word| {
            let mut hasher = FxHasher::default();
            stem(&word).hash(&mut hasher);
            hasher.finish()
        })
        .collect()
}

fn stem(word: &str) -> &str {
    for end in ["ations", "ation", "ings", "ing", "ies", "ied", "ed", "es", "s", "e", "y"] {
        if let Some(stem) = word.strip_suffix(end)
            && stem.len() >= 3
        {
            return stem;
        }
    }
    word
}

/// A hash that stays the same on every machine and in every build.
pub(super) fn stable_hash(parts: &[&str]) -> u64 {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let digest = hasher.finalize();
    u64::from_be_bytes(digest[..8].try_into().unwrap_or_default())
}

/// The shelves of a table, in the order of their libraries' names; `keep` says which libraries.
pub(super) fn shelves(
    table: &ApiTable,
    pairs: &[Pair],
    apis_per_library: usize,
    keep: &dyn Fn(&str) -> bool,
) -> Vec<Shelf> {
    // What is said of (library, bare name, owner's description) counts for every record of it.
    let mut said: FxHashMap<(&str, &str), Vec<&str>> = FxHashMap::default();
    for pair in pairs.iter().filter(|pair| pair.apis.len() == 1 && pair.origin != Origin::Summary) {
        if let Some(id) = table.id(&pair.apis[0]) {
            let api = table.api(id);
            let said = said.entry((api.library(), api.name.as_str())).or_default();
            if said.len() < MAX_QUERIES && pair.query.is_ascii() {
                said.push(&pair.query);
            }
        }
    }
    let mut of_library: FxHashMap<&str, Vec<(u64, Api)>> = FxHashMap::default();
    let mut seen: FxHashSet<(&str, &str, &str)> = FxHashSet::default();
    let mut alike: FxHashMap<(&str, &str), usize> = FxHashMap::default();
    for api in table.apis() {
        let library = api.library();
        let kind = match api.kind {
            Some(kind @ (ApiKind::Function | ApiKind::Method | ApiKind::Class)) => kind,
            _ => continue,
        };
        let good_name = (3..=32).contains(&api.name.len())
            && api.name.is_ascii()
            && !api.name.starts_with('_')
            && api.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if library.is_empty() || !keep(library) || !good_name || !api.description.is_ascii() {
            continue;
        }
        if api.signature.len() > MAX_SIGNATURE_BYTES || !api.signature.is_ascii() {
            continue;
        }
        let Some(description) = prose::sentence(&api.description, MAX_WORDS) else { continue };
        if description.contains("=")
            || description.len() > 170
            || !seen.insert((library, &api.name, &api.description))
        {
            continue;
        }
        let alike = alike.entry((library, &api.description)).or_default();
        *alike += 1;
        if *alike > MAX_ALIKE {
            continue;
        }
        let Some(parameters) = Parameters::parse(&api.signature) else { continue };
        if parameters.required().count() > MAX_REQUIRED {
            continue;
        }
        let stems = stems(&description);
        if stems.len() < 2 {
            continue;
        }
        let owner = (kind == ApiKind::Method)
            .then(|| api.qualified_name.rsplit('.').nth(1).unwrap_or_default().to_owned())
            .filter(|owner| owner.starts_with(|c: char| c.is_ascii_uppercase()));
        let queries =
            said.get(&(library, api.name.as_str())).into_iter().flatten().map(|q| (*q).to_owned()).collect();
        let order = stable_hash(&[&api.qualified_name]);
        let name = api.name.clone();
        let is_small = description.len() <= MAX_SMALL_DESCRIPTION
            && parameters.list.len() <= 3
            && parameters.render(false, &mut str::to_owned).len() <= MAX_SMALL_SIGNATURE;
        let made = Api { name, kind, owner, parameters, description, queries, stems, is_small };
        of_library.entry(library).or_default().push((order, made));
    }
    let mut shelves: Vec<Shelf> = of_library
        .into_iter()
        .map(|(library, mut apis)| {
            apis.sort_by_key(|(order, _)| *order);
            apis.truncate(apis_per_library);
            let apis: Vec<Api> = apis.into_iter().map(|(_, api)| api).collect();
            Shelf::new(library, apis)
        })
        .filter(|shelf| shelf.apis.len() >= 12)
        .collect();
    shelves.sort_by(|a, b| a.library.cmp(&b.library));
    shelves
}

/// Words of the APIs' own names, for invented names that look like a library's.
pub(super) fn name_words(shelves: &[Shelf]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for api in shelves.iter().flat_map(|shelf| &shelf.apis) {
        let mut word = String::new();
        for c in api.name.chars().chain(['_']) {
            if c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit() {
                if (3..=9).contains(&word.len()) {
                    words.push(std::mem::take(&mut word));
                }
                word.clear();
            }
            if c.is_ascii_alphabetic() {
                word.push(c.to_ascii_lowercase());
            }
        }
    }
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_of_words() {
        assert_eq!(stems("Removes the rows"), stems("remove a row"));
        assert_ne!(stems("Removes the rows"), stems("Removes the columns"));
        assert!(stems("of the a an").is_empty());
    }
}
