//! Tasks from documentation: a block of APIs under invented names, some code, and a comment that decides which of them is called.
//!
//! Every library is renamed anew for every task, so that a name can come from nowhere but the block, and which one it is from
//! nowhere but the comment: no other API's description has as many of its words.

mod cast;
mod scene;
mod script;
mod single;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::document::Document;
use super::library::{Api, Shelf};
use super::names::Names;

/// What is asked for at one cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub document: Document,
    /// All up to the cursor.
    pub prompt: String,
    /// The same without the block.
    pub prompt_no_api: String,
    /// What follows, up to the end of the line.
    pub line: String,
    /// The API that is called there.
    pub name: String,
    pub library: String,
}

/// How much a task may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// One or two lines of context, short signatures.
    Small,
    /// As in real use.
    Full,
}

/// Makes tasks of the libraries it is given.
pub(super) struct Maker<'a> {
    shelves: &'a [Shelf],
    /// Sums of the shelves' chances.
    chances: Vec<f64>,
    names: Names<'a>,
    /// Share of tasks whose lines have example calls below them.
    examples: f64,
}

impl<'a> Maker<'a> {
    pub fn new(shelves: &'a [Shelf], words: &'a [String], examples: f64, held_out: bool) -> Self {
        let mut sum = 0.0;
        let chances = shelves
            .iter()
            .map(|shelf| {
                sum += (shelf.apis.len() as f64).sqrt();
                sum
            })
            .collect();
        Self { shelves, chances, names: Names { words, held_out }, examples }
    }

    fn shelf(&self, rng: &mut impl Rng) -> Option<&'a Shelf> {
        let at = rng.random_range(0.0..*self.chances.last()?);
        self.shelves.get(self.chances.partition_point(|sum| *sum <= at).min(self.shelves.len() - 1))
    }

    /// `golden` and others beside it: of its class, with words of its description, or any of the library.
    fn with_others(
        &self,
        shelf: &'a Shelf,
        golden: &'a Api,
        n_apis: usize,
        size: Size,
        rng: &mut impl Rng,
    ) -> Option<Vec<&'a Api>> {
        let near = if n_apis > 1 { shelf.near(golden) } else { Vec::new() };
        let mut apis = vec![golden];
        let mut tries = 0;
        while apis.len() < n_apis {
            tries += 1;
            if tries > 60 {
                return None;
            }
            let roll: f64 = rng.random();
            let other = if roll < 0.3 && !near.is_empty() {
                &shelf.apis[*near.choose(rng)? as usize]
            } else if roll < 0.55 && golden.owner.is_some() {
                let any = pick(shelf, size, rng)?;
                if any.owner != golden.owner && tries < 30 {
                    continue;
                }
                any
            } else {
                pick(shelf, size, rng)?
            };
            let alike = |api: &&Api| api.name == other.name || api.description == other.description;
            if (size == Size::Small && !other.is_small) || apis.iter().any(alike) {
                continue;
            }
            apis.push(other);
        }
        Some(apis)
    }
}

/// Any API of a shelf, or one with a short line.
fn pick<'a>(shelf: &'a Shelf, size: Size, rng: &mut impl Rng) -> Option<&'a Api> {
    match size {
        Size::Small => shelf.small.choose(rng).map(|&i| &shelf.apis[i as usize]),
        Size::Full => shelf.apis.choose(rng),
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::weight;
    use super::super::library::stems;
    use super::*;
    use crate::corpus::coder::library::shelves;
    use crate::pairs::ApiTable;
    use inhouse_core::ApiDoc;
    use inhouse_core::api::ApiKind;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn table() -> ApiTable {
        let verbs = [
            "gather", "split", "paint", "carry", "mend", "weigh", "polish", "stack", "rinse", "fold",
            "label", "trace",
        ];
        let things = ["threads", "pots", "letters", "wheels"];
        let apis = (0..48).map(|i| {
            let (verb, thing) = (verbs[i % 12], things[i / 12]);
            let kind = [ApiKind::Function, ApiKind::Method][i % 2];
            let owner = if kind == ApiKind::Method { "Cart." } else { "" };
            ApiDoc {
                name: format!("{verb}_{thing}"),
                qualified_name: format!("loom.{owner}{verb}_{thing}"),
                module: "loom".into(),
                kind: Some(kind),
                signature: "(rows, limit: int = 3, *, soft=False) -> Cart".into(),
                description: format!(
                    "{} the {thing} of deep_water beside river {i}.",
                    super::super::names::capitalized(verb)
                ),
                ..ApiDoc::default()
            }
        });
        ApiTable::new(apis.collect())
    }

    #[test]
    fn the_block_alone_has_the_name_and_the_comment_decides() {
        let table = table();
        let shelves = shelves(&table, &[], 100, &|_| true);
        let words = vec!["red".to_owned(), "tree".to_owned()];
        let maker = Maker::new(&shelves, &words, 0.0, true);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut places = [0; 3];
        let mut made = 0;
        for _ in 0..600 {
            let Some(task) = maker.task(3, Size::Full, &mut rng) else { continue };
            made += 1;
            assert!(!task.prompt_no_api.contains(&task.name) && task.line.contains(&task.name), "{task:?}");
            assert!(task.document.text().starts_with(&format!("{}{}", task.prompt, task.line)));
            // No old name is left, neither in the block nor below it.
            let mut words = task.prompt.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            assert!(
                words.all(|word| word != "deep_water" && table.apis().iter().all(|api| api.name != word)),
                "{}",
                task.prompt
            );
            let lines: Vec<&str> = task.prompt.lines().skip(1).take(3).collect();
            let place = lines.iter().position(|line| line.starts_with(&format!("# {}(", task.name))).unwrap();
            places[place] += 1;
            let words = stems(&task.prompt_no_api);
            let shared = |line: &str| {
                stems(
                    line.split_once("): ").or_else(|| line.split_once("Cart: ")).map_or("", |(_, says)| says),
                )
                .intersection(&words)
                .count()
            };
            let best = (0..3).max_by_key(|&i| (shared(lines[i]), i == place)).unwrap();
            assert_eq!(best, place, "{}", task.prompt);
        }
        assert!(made > 200, "{made}");
        assert!(places.iter().all(|&count| count * 5 > made), "the right one is at any place: {places:?}");
    }

    #[test]
    fn names_weigh_and_prompts_end_at_cuts() {
        let table = table();
        let shelves = shelves(&table, &[], 100, &|_| true);
        let maker = Maker::new(&shelves, &[], 0.5, false);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let texts: Vec<String> = (0..400)
            .filter_map(|_| maker.script(3, Size::Full, &mut rng))
            .map(|document| document.text().to_owned())
            .collect();
        assert!(texts.len() > 100 && texts.iter().any(|text| text.matches("\n# ").count() > 6));
        let tokenizer = crate::corpus::coder::tokenizer::train(&texts, 500).unwrap();
        let task = (0..50).find_map(|_| maker.task(1, Size::Full, &mut rng)).unwrap();
        let encoder = crate::corpus::coder::tokenizer::Encoder::new(tokenizer.clone(), true, true).unwrap();
        let (tokens, weights) = task.document.encode(&encoder).unwrap();
        assert_eq!((tokens.len(), *tokens.last().unwrap(), weights[0]), (weights.len(), 0, 0));
        let prompt = tokenizer.encode(task.prompt.as_str(), false).unwrap();
        let ids: Vec<u16> = prompt.get_ids().iter().map(|id| *id as u16).collect();
        assert_eq!(tokens[..ids.len()], ids, "what is generated goes on from the prompt's own tokens");
        let named: Vec<u32> = tokens
            .iter()
            .zip(&weights)
            .filter(|(_, w)| **w == weight::NAME)
            .map(|(id, _)| u32::from(*id))
            .collect();
        assert_eq!(tokenizer.decode(&named, false).unwrap().trim(), task.name);
    }
}
