//! A rename table out of a seed: readable private words, the same for the same part of a name wherever it stands.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::lexicon::{Dice, lexicon};
use super::surface::Surface;
use super::words::{Case, Ending, inflect, is_word, pieces, stems};
use crate::rename::{Table, is_plain_word, is_python_word, words};

/// Short pieces that stand in front of others or behind them in one word: `groupby`, `isna`, `tolist`, `cumsum`.
const GLUE: &[&str] = &[
    "arg", "as", "at", "by", "cum", "from", "has", "idx", "in", "is", "iter", "na", "nan", "not", "of", "re",
    "to", "un",
];

/// Coins the table of a library's public names.
///
/// A name is taken apart (`sort_values`, `DataFrame`, `groupby`), each word gets one private word, and the name is put
/// together again. No private name is a public one, a word of Python's or a builtin; no private word is a word of the public
/// names; no two are the same.
pub fn coin(surface: &Surface, seed: u64) -> Table {
    let mut mint = Mint::new(surface, Dice(seed));
    let mut pairs = BTreeMap::new();
    let mut used = HashSet::new();
    let name = mint.library_name(&surface.library);
    used.insert(name.clone());
    pairs.insert(surface.library.clone(), name.clone());
    for public in &surface.names {
        if *public == surface.library {
            continue;
        }
        let mut private = mint.name(public);
        let mut turn = 0;
        while surface.names.contains(&private) || is_python_word(&private) || !used.insert(private.clone()) {
            let extra = mint.fresh(public, turn);
            let lower = public.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
            private =
                mint.name(public) + &if lower { format!("_{extra}") } else { Case::of(public).write(&extra) };
            turn += 1;
        }
        pairs.insert(public.clone(), private);
    }
    let mut table = Table {
        library: Some(surface.library.clone()),
        name: Some(name),
        everywhere: Some(false),
        pairs: pairs.into_iter().collect(),
        ..Table::default()
    };
    table.aliases = aliases(&table, surface);
    table
}

/// Examples that say a short form, in a hundred, for it to be one.
const USUAL_PERCENT: usize = 2;

/// Short forms that people give to objects: `df` of DataFrame, where the library's own examples say so. `pd`, which no rule gives, is read off the
/// programs that say it (see [`super::problems`]).
fn aliases(table: &Table, surface: &Surface) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    let examples: Vec<HashSet<&str>> = surface
        .apis
        .iter()
        .filter(|api| !api.examples.is_empty())
        .map(|api| api.examples.iter().flat_map(|example| words(example)).collect())
        .collect();
    let is_usual = |form: &str| {
        let said = examples.iter().filter(|words| words.contains(form)).count();
        said >= 3 && said * 100 >= examples.len() * USUAL_PERCENT
    };
    let mut classes: Vec<&str> = surface
        .apis
        .iter()
        .filter(|api| {
            api.kind == Some(inhouse_core::api::ApiKind::Class)
                && api.qualified_name.matches('.').count() == 1
        })
        .map(|api| api.name.as_str())
        .collect();
    classes.sort_unstable_by_key(|name| (name.len(), *name));
    for class in classes {
        let public = initials(class);
        let Some(private) = table.private(class) else { continue };
        if public.len() < 2
            || !is_usual(&public)
            || found.iter().any(|(known, _)| *known == public)
            || surface.names.contains(&public)
        {
            continue;
        }
        let private = short_form(private, |form| {
            !surface.names.contains(form) && !taken.contains(form) && form != public && !is_python_word(form)
        });
        taken.insert(private.clone());
        found.push((public, private));
    }
    found
}

fn initials(name: &str) -> String {
    pieces(name)
        .into_iter()
        .filter(|piece| is_word(piece))
        .filter_map(|piece| piece.get(..1))
        .collect::<String>()
        .to_lowercase()
}

/// A short form of a private name that `is_free`: its first letters, as few as will do.
pub fn short_form(private: &str, is_free: impl Fn(&str) -> bool) -> String {
    let words: Vec<String> =
        pieces(private).into_iter().filter(|p| is_word(p)).map(str::to_lowercase).collect();
    let start = |letters: usize| -> String {
        words.iter().filter_map(|word| word.get(..letters.min(word.len()))).collect()
    };
    let one = words
        .first()
        .map(|word| (2..=word.len()).map(|n| word[..n].to_owned()).collect())
        .unwrap_or_default();
    let several: Vec<String> = (1..8).map(start).filter(|form| form.len() >= 2).collect();
    let forms: Vec<String> = if words.len() > 1 { several } else { one };
    forms.into_iter().find(|form| is_free(form)).unwrap_or_else(|| format!("{}_x", private.to_lowercase()))
}

struct Mint<'a> {
    dice: Dice,
    public: &'a BTreeSet<String>,
    /// Words that no private word may be: those of the public names.
    taken: HashSet<String>,
    /// Words that public names are made of.
    vocabulary: HashSet<String>,
    words: HashMap<String, String>,
    used: HashSet<String>,
}

impl<'a> Mint<'a> {
    fn new(surface: &'a Surface, dice: Dice) -> Self {
        let mut vocabulary = HashSet::new();
        for name in &surface.names {
            let words: Vec<_> = pieces(name).into_iter().filter(|piece| is_word(piece)).collect();
            if words.len() > 1 {
                vocabulary
                    .extend(words.iter().filter(|word| word.len() >= 3).map(|word| word.to_lowercase()));
            }
        }
        vocabulary
            .extend(lexicon().names.keys().filter(|word| word.len() >= 3).map(|word| (*word).to_owned()));
        vocabulary.extend(GLUE.iter().map(|word| (*word).to_owned()));
        let all = surface.names.iter().flat_map(|name| pieces(name)).map(str::to_lowercase);
        let taken = all.chain(surface.names.iter().map(|name| name.to_lowercase())).collect();
        let mut mint = Self {
            dice,
            public: &surface.names,
            taken,
            vocabulary,
            words: HashMap::new(),
            used: HashSet::new(),
        };
        // In one order, so that who comes first to a word does not depend on the names around it.
        let parts: BTreeSet<String> = surface
            .names
            .iter()
            .flat_map(|name| pieces(name))
            .filter(|p| is_word(p))
            .map(str::to_lowercase)
            .collect();
        let (known, unknown): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| lexicon().names.contains_key(part.as_str()));
        for part in known.iter().chain(&unknown) {
            mint.word(part);
        }
        mint
    }

    fn library_name(&self, library: &str) -> String {
        let lexicon = lexicon();
        for turn in 0.. {
            let first = self.dice.pick(&lexicon.qualities, library, turn).copied().unwrap_or("fair");
            let second = self.dice.pick(&lexicon.nouns, library, turn + 1).copied().unwrap_or("stone");
            let name = format!("{first}{second}");
            if self.is_free(&name) {
                return name;
            }
        }
        library.to_owned()
    }

    fn name(&mut self, public: &str) -> String {
        pieces(public)
            .into_iter()
            .map(|piece| {
                if !is_word(piece) {
                    return piece.to_owned();
                }
                let private = self.word(&piece.to_lowercase());
                Case::of(piece).write(&private)
            })
            .collect()
    }

    /// The private word of a lower-case word.
    fn word(&mut self, public: &str) -> String {
        if let Some(known) = self.words.get(public) {
            return known.clone();
        }
        let private = self.coined(public);
        self.used.insert(private.clone());
        self.words.insert(public.to_owned(), private.clone());
        private
    }

    fn coined(&mut self, public: &str) -> String {
        let lexicon = lexicon();
        if let Some(candidates) = lexicon.names.get(public) {
            let first = self.dice.roll(public, 0) as usize % candidates.len();
            let turned = candidates[first..].iter().chain(&candidates[..first]);
            if let Some(free) = turned.copied().find(|word| self.is_free(word)) {
                return free.to_owned();
            }
            return self.fresh(public, 0);
        }
        // `values` is the plural of what stands for `value`.
        for (stem, ending) in stems(public) {
            let known = lexicon.names.contains_key(stem.as_str()) || self.taken.contains(&stem);
            if known && stem.len() >= 3 {
                let form = self.inflected(&stem, ending);
                if self.is_free(&form) {
                    return form;
                }
            }
        }
        if let Some(parts) = self.segmented(public) {
            let form: String = parts.iter().map(|part| self.word(part)).collect();
            if self.is_free(&form) {
                return form;
            }
        }
        self.fresh(public, 0)
    }

    fn inflected(&mut self, stem: &str, ending: Ending) -> String {
        let private = self.word(stem);
        inflect(&private, ending)
    }

    /// A word of known parts (`groupby`), fewest first; every part but one may be short.
    fn segmented(&self, word: &str) -> Option<Vec<String>> {
        if word.len() < 5 || !word.is_ascii() {
            return None;
        }
        let mut best: Vec<Option<Vec<&str>>> = vec![None; word.len() + 1];
        best[0] = Some(Vec::new());
        for end in 1..=word.len() {
            for start in 0..end {
                let part = &word[start..end];
                if part.len() == word.len() || !self.vocabulary.contains(part) {
                    continue;
                }
                let Some(before) = best[start].clone() else { continue };
                if best[end].as_ref().is_none_or(|known| known.len() > before.len() + 1) {
                    best[end] = Some(before.into_iter().chain([part]).collect());
                }
            }
        }
        let parts = best.pop().flatten()?;
        let sound = parts.len() <= 3 && parts.iter().any(|part| part.len() >= 3 && !GLUE.contains(part));
        sound.then(|| parts.into_iter().map(str::to_owned).collect())
    }

    /// A word that means nothing of the kind.
    fn fresh(&self, public: &str, turn: usize) -> String {
        let lexicon = lexicon();
        for turn in turn * 97.. {
            let noun = self.dice.pick(&lexicon.nouns, public, turn).copied().unwrap_or("stone");
            let quality = self.dice.pick(&lexicon.qualities, public, turn + 1).copied().unwrap_or("fair");
            // The nouns alone are soon used up.
            let word = if turn % 97 < 3 { noun.to_owned() } else { format!("{quality}{noun}") };
            if self.is_free(&word) {
                return word;
            }
        }
        public.to_owned()
    }

    fn is_free(&self, word: &str) -> bool {
        is_plain_word(word)
            && !is_python_word(word)
            && !self.taken.contains(word)
            && !self.public.contains(word)
            && !self.used.contains(word)
            // Prose inflects it: `loads` may be public where `load` is not.
            && [Ending::S, Ending::Ed, Ending::Ing].iter().all(|ending| !self.taken.contains(&inflect(word, *ending)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(names: &[&str]) -> Surface {
        let names = names.iter().map(|name| (*name).to_owned()).chain(["lib".to_owned()]).collect();
        Surface { library: "lib".into(), apis: Vec::new(), names }
    }

    const NAMES: [&str; 16] = [
        "drop",
        "dropna",
        "drop_duplicates",
        "DataFrame",
        "frame",
        "value",
        "values",
        "sort_values",
        "T",
        "groupby",
        "shed",
        "discard",
        "jettison",
        "xylo",
        "XYLO",
        "xyloFrame",
    ];

    #[test]
    fn a_seed_gives_one_sound_table() {
        let surface = surface(&NAMES);
        let table = coin(&surface, 7);
        assert_eq!(table, coin(&surface, 7));
        assert_ne!(table.pairs, coin(&surface, 8).pairs);
        table.check().unwrap();
        assert_eq!(table.pairs.len(), NAMES.len() + 1);
        for (public, private) in &table.pairs {
            assert!(!surface.names.contains(private) && !is_python_word(private), "{public}: {private}");
        }
    }

    #[test]
    fn parts_of_names_have_one_private_word() {
        let table = coin(&surface(&NAMES), 7);
        let of = |name: &str| table.private(name).unwrap().to_owned();
        assert!(of("dropna").starts_with(&of("drop")));
        assert!(of("drop_duplicates").starts_with(&format!("{}_", of("drop"))));
        assert_eq!(of("DataFrame").to_lowercase().strip_suffix(&of("frame")).map(str::is_empty), Some(false));
        assert_eq!(of("values"), inflect(&of("value"), Ending::S));
        assert!(of("sort_values").ends_with(&format!("_{}", of("values"))));
        // all that the lexicon offers is a public name already
        assert!(!["shed", "discard", "jettison"].contains(&of("drop").as_str()));
    }

    #[test]
    fn another_name_changes_no_word() {
        let small = coin(&surface(&["sort", "merge"]), 3);
        let large = coin(&surface(&["sort", "merge", "zzz_top", "unheard"]), 3);
        for (public, private) in &small.pairs {
            assert_eq!(large.private(public), Some(private.as_str()));
        }
    }

    #[test]
    fn short_forms_are_free() {
        assert_eq!(short_form("FactSheet", |_| true), "fs");
        assert_eq!(short_form("FactSheet", |form| form != "fs"), "fash");
        assert_eq!(short_form("amber", |form| form.len() > 2), "amb");
    }
}
