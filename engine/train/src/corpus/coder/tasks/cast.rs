//! Who is in a task: the APIs of its block, and the names that everything has in it.

use inhouse_core::api::ApiKind;
use rand::Rng;
use rand::seq::IndexedRandom;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Maker, Size};
use crate::corpus::coder::library::{Api, Shelf, stems};
use crate::corpus::coder::wording::{Distance, identifiers, renamed, wish};

/// One API in a task.
pub(super) struct Entry<'s> {
    pub api: &'s Api,
    pub name: String,
    pub line: String,
}

/// The APIs of a task and everything that has another name in it.
pub(super) struct Cast<'s> {
    pub library: &'s str,
    pub entries: Vec<Entry<'s>>,
    /// Identifier -> its name in this task.
    pub names: FxHashMap<String, String>,
    /// Parameter -> its name in this task.
    pub parameters: FxHashMap<String, String>,
    pub package: String,
}

impl<'a> Maker<'a> {
    /// New names for the APIs, their classes, their parameters, and the library.
    pub(super) fn cast(
        &self,
        shelf: &'a Shelf,
        apis: &[&'a Api],
        size: Size,
        rng: &mut impl Rng,
    ) -> Cast<'a> {
        // Names that mean something are real libraries' way, so some tasks keep theirs.
        let keeps = !self.names.held_out && rng.random_bool(0.12);
        let most = if size == Size::Small { 14 } else { 24 };
        let mut names: FxHashMap<String, String> = FxHashMap::default();
        let mut taken: FxHashSet<String> = FxHashSet::default();
        let mut invent = |old: &str, names: &mut FxHashMap<String, String>, rng: &mut _| {
            if let Some(name) = names.get(old) {
                return name.clone();
            }
            let camel = old.starts_with(|c: char| c.is_ascii_uppercase());
            let mut name = if keeps { old.to_owned() } else { self.names.name_of(camel, most, rng) };
            while !keeps && !taken.insert(name.clone()) {
                name = self.names.name_of(camel, most, rng);
            }
            names.insert(old.to_owned(), name.clone());
            name
        };
        for api in apis {
            invent(&api.name, &mut names, rng);
            if let Some(owner) = &api.owner {
                invent(owner, &mut names, rng);
            }
            for word in identifiers(&api.description) {
                invent(word, &mut names, rng);
            }
        }
        let renames_parameters = !keeps && rng.random_bool(0.35);
        let mut parameters: FxHashMap<String, String> = FxHashMap::default();
        for parameter in apis.iter().flat_map(|api| &api.parameters.list) {
            if !parameters.contains_key(&parameter.name) {
                let new = if renames_parameters && parameter.name.len() > 1 {
                    self.names.parameter(rng)
                } else {
                    parameter.name.clone()
                };
                parameters.insert(parameter.name.clone(), new);
            }
        }
        let annotations = size == Size::Full && rng.random_bool(0.75);
        let returns = size == Size::Full && rng.random_bool(0.5);
        // How the receiver of a method is written: mostly as `self`, which alone tells it from a function.
        let receiver = rng.random_range(0..20);
        let source =
            ["source", "datapipe", "source_datapipe", "obj", "frame"].choose(rng).copied().unwrap_or("obj");
        let entries = apis
            .iter()
            .map(|api| {
                let name = names.get(&api.name).cloned().unwrap_or_else(|| api.name.clone());
                let mut signature = api.parameters.render(annotations, &mut |old| {
                    parameters.get(old).cloned().unwrap_or_else(|| old.to_owned())
                });
                signature = renamed(&signature, &names);
                if api.kind == ApiKind::Method && receiver < 16 {
                    let owner = api.owner.as_ref().and_then(|owner| names.get(owner));
                    let first = match owner {
                        Some(owner) if receiver < 2 => format!("{source}: {owner}"),
                        _ => "self".into(),
                    };
                    signature = if signature.is_empty() { first } else { format!("{first}, {signature}") };
                }
                let gives = api.parameters.returns.as_ref().filter(|returned| returns && returned.len() < 40);
                let gives = gives.map_or_else(String::new, |gives| format!(" -> {}", renamed(gives, &names)));
                let description = renamed(&api.description, &names);
                let line = format!("# {name}({signature}){gives}: {description}\n");
                Entry { api, name, line }
            })
            .collect();
        let package = if keeps {
            shelf.library.clone()
        } else {
            let tail =
                ["", "", "", ".core", ".io", ".tools", ".iter"].choose(rng).copied().unwrap_or_default();
            format!("{}{tail}", self.names.syllables(1, 2, rng))
        };
        Cast { library: &shelf.library, entries, names, parameters, package }
    }
}

/// The lines of the APIs, between their marks.
pub(super) fn block(cast: &Cast<'_>) -> String {
    let lines: String = cast.entries.iter().map(|entry| entry.line.as_str()).collect();
    format!("# [start]\n{lines}# [end]\n")
}

/// A comment that asks for one of the entries and no other: its description has more of the words than any other's.
pub(super) fn comment(cast: &Cast<'_>, golden: usize, rng: &mut impl Rng) -> Option<String> {
    let api = cast.entries[golden].api;
    for attempt in 0..12 {
        let distance = if attempt < 8 { Distance::Any } else { Distance::Near };
        let text = wish(&api.description, &api.queries, distance, rng);
        let words = stems(&text);
        let shared = |api: &Api| api.stems.intersection(&words).count();
        let own = shared(api);
        if own == 0
            || cast.entries.iter().enumerate().any(|(i, other)| i != golden && shared(other.api) >= own)
        {
            continue;
        }
        // A real name that is left in the comment would be another than the block's.
        let text = renamed(&text, &cast.names);
        if !text.is_ascii() || text.len() > 240 {
            continue;
        }
        return Some(text);
    }
    None
}
