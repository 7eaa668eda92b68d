//! What one step sees. A batch follows from the seed and the step's number alone.

use inhouse_core::{ApiDoc, Result};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::TrainingConfig;
use super::examples::{Example, Examples, Shelf};
use crate::pairs::{Origin, Twin, api_text, ask, vary};

/// Queries and APIs as the encoder reads them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The queries.
    pub queries: Vec<String>,
    /// The APIs: first the positive of each query, in their order, then the negatives.
    pub apis: Vec<String>,
    /// (query, API) that are no negatives of one another although they are in one batch: another answer to the query, or one
    /// that reads the same.
    pub masked: Vec<(usize, usize)>,
}

/// An API of a batch before it is text.
struct Entry {
    id: u32,
    library: usize,
}

impl Batch {
    /// The batch of a step.
    ///
    /// # Errors
    /// An index that negatives are mined from cannot be read.
    pub fn draw(examples: &Examples, config: &TrainingConfig, step: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step);
        let mut groups: Vec<(&Shelf, Option<Twin>)> = Vec::new();
        let mut drawn: Vec<(&Example, usize)> = Vec::new();
        while drawn.len() < config.batch {
            let mut shelf = examples.shelf(&mut rng);
            for _ in 0..8 {
                if !groups.iter().any(|(other, _)| std::ptr::eq(*other, shelf)) {
                    break;
                }
                shelf = examples.shelf(&mut rng);
            }
            let twin = rng.random_bool(config.twins).then(|| Twin::new(rng.random()));
            groups.push((shelf, twin));
            for _ in 0..config.queries_per_library.min(config.batch - drawn.len()) {
                drawn.push((shelf.example(&mut rng), groups.len() - 1));
            }
        }
        let mut batch = Self::default();
        let mut entries: Vec<Entry> = Vec::new();
        for &(example, library) in &drawn {
            let (_, twin) = groups[library];
            // The least common of a block's APIs tells most of it; any of them may stand for it.
            let Some(&id) = example.apis.choose(&mut rng) else { continue };
            entries.push(Entry { id, library });
            let mut query = example.query.clone();
            if let Some(twin) = twin {
                query = twin.sentence(&query);
            }
            batch.queries.push(reword(&query, example.origin, config.reworded, &mut rng));
        }
        let n_queries = entries.len();
        for &(example, library) in &drawn {
            let (shelf, _) = groups[library];
            let golden = |id: u32| is_golden(examples, example, id);
            let hard = shelf.hard_negatives(&example.query, config.hard_negatives, &golden, &mut rng)?;
            let wanted = config.random_negatives + config.hard_negatives - hard.len();
            let random: Vec<u32> = shelf.apis.choose_multiple(&mut rng, wanted * 2).copied().collect();
            let random = random.into_iter().filter(|&id| !golden(id)).take(wanted);
            for id in hard.into_iter().chain(random) {
                // One that is there already is everybody's negative.
                if !entries.iter().any(|entry| entry.id == id && entry.library == library) {
                    entries.push(Entry { id, library });
                }
            }
        }
        for (q, &(example, library)) in drawn.iter().enumerate() {
            for (a, entry) in entries.iter().enumerate() {
                if a != q && entry.library == library && is_golden(examples, example, entry.id) {
                    batch.masked.push((q, a));
                }
            }
        }
        for (a, entry) in entries.iter().enumerate() {
            let (_, twin) = groups[entry.library];
            let origin = drawn.get(a).filter(|_| a < n_queries).map(|(example, _)| example.origin);
            batch.apis.push(text(examples.table.api(entry.id), twin, origin, &mut rng));
        }
        Ok(batch)
    }
}

/// Whether an API answers the query of an example: it is one of its APIs, or has the name or the words of one.
fn is_golden(examples: &Examples, example: &Example, id: u32) -> bool {
    let api = examples.table.api(id);
    example.apis.iter().any(|&golden| {
        let golden = examples.table.api(golden);
        golden.name == api.name || golden.description == api.description
    })
}

/// The API's text; where the query repeats its description, often without that, so that the words of the name must do.
fn text(api: &ApiDoc, twin: Option<Twin>, origin: Option<Origin>, rng: &mut impl Rng) -> String {
    match twin {
        Some(twin) => api_text(&twin.api(api)),
        None if origin == Some(Origin::Summary) && rng.random_bool(0.5) => {
            api_text(&ApiDoc { description: String::new(), ..api.clone() })
        }
        None => api_text(api),
    }
}

fn reword(query: &str, origin: Origin, strength: f64, rng: &mut impl Rng) -> String {
    // Documentation states, people ask.
    let documentation =
        matches!(origin, Origin::Summary | Origin::Reference | Origin::Docstring | Origin::Paragraph);
    let strength = if origin == Origin::Summary { strength.max(0.6) } else { strength };
    let mut query =
        if documentation && rng.random_bool(strength) { ask(query, rng) } else { query.to_owned() };
    if rng.random_bool(strength) {
        query = vary(&query, 0.7, rng);
    }
    query
}
