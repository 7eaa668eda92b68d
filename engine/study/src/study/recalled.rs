//! Figure 5: how many of the golden APIs stand in front of a problem, by whoever put them there.

use std::collections::BTreeSet;

use inhouse::{EncoderChoice, Result};
use inhouse_core::prompt;
use serde::{Deserialize, Serialize};

use super::sets::Set;
use crate::problems::Problem;
use crate::recall::{self, Counts, KS, bare};

/// Recall on one problem set. Each source has its counts by problem, those with golden APIs alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recalled {
    /// The retriever of the index.
    pub retriever: Option<Vec<Found>>,
    /// The published prompts of top:1, top:2, top:3 and top:5: somebody else's retriever.
    pub published: Option<Vec<Found>>,
    /// What people chose.
    pub human: Option<Vec<Chosen>>,
}

/// Golden APIs of a problem, and those among the first 1, 2, 3 and 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Found for each of [`KS`].
    pub found: [usize; 4],
    /// Golden ones.
    pub golden: usize,
}

impl From<Counts> for Found {
    fn from(Counts { found, golden }: Counts) -> Self {
        Self { found, golden }
    }
}

/// What people chose for a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Golden APIs among those chosen.
    pub right: usize,
    /// Golden ones.
    pub golden: usize,
    /// Chosen ones.
    pub chosen: usize,
}

/// Measures what the set has.
///
/// # Errors
/// The index cannot be opened or read.
pub(crate) fn measure(set: &Set, encoder: &EncoderChoice) -> Result<Recalled> {
    let queries = set.queries();
    if queries.iter().all(|query| query.gold.is_empty()) {
        return Ok(Recalled::default());
    }
    let retriever = match &set.config.index {
        Some(folder) => {
            let index = inhouse::open_index(folder, encoder)?;
            Some(recall::by_problem(&index, &queries)?.into_iter().map(Found::from).collect())
        }
        None => None,
    };
    Ok(Recalled { retriever, published: published(set), human: human(set) })
}

/// The counts over published prompts, where there are all four of them.
fn published(set: &Set) -> Option<Vec<Found>> {
    let shown: Vec<&[Problem]> =
        KS.iter().map(|k| set.published(&format!("top:{k}"))).collect::<Option<_>>()?;
    let of_problem = |(i, problem): (usize, &Problem)| {
        let gold = problem.gold.as_ref().filter(|gold| !gold.is_empty())?;
        let names = shown.iter().map(|problems| names(&problems[i]));
        let by_k: Vec<_> = KS.into_iter().zip(names).collect();
        let is_shown = |name: &str, k: usize| by_k.iter().any(|(at, names)| *at == k && names.contains(name));
        Some(recall::count(gold, is_shown).into())
    };
    Some(set.problems.iter().enumerate().filter_map(of_problem).collect())
}

fn human(set: &Set) -> Option<Vec<Chosen>> {
    let published = set.published("human");
    let of_problem = |(i, problem): (usize, &Problem)| {
        // What is chosen where nothing is golden counts against precision.
        let gold: BTreeSet<String> =
            problem.gold.iter().flatten().map(|name| bare(name).to_owned()).collect();
        let chosen = match (published, &problem.human) {
            (Some(published), _) => names(&published[i]),
            (None, Some(human)) => human.iter().map(|name| bare(name).to_owned()).collect(),
            (None, None) => return None,
        };
        let right = gold.intersection(&chosen).count();
        Some(Chosen { right, golden: gold.len(), chosen: chosen.len() })
    };
    let chosen: Vec<Chosen> = set.problems.iter().enumerate().filter_map(of_problem).collect();
    (!chosen.is_empty()).then_some(chosen)
}

fn names(problem: &Problem) -> BTreeSet<String> {
    prompt::split(&problem.prompt).0.iter().map(|api| bare(&api.name).to_owned()).collect()
}
