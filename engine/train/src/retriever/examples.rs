//! The training set as steps draw from it: pairs by library, the APIs of each library, and BM25's mistakes.

use std::path::Path;

use inhouse_core::index::{self, BuildOptions, Index};
use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, progress::Silent};
use rand::Rng;
use rand::seq::IndexedRandom;
use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};

use crate::pairs::{ApiTable, Origin, Pair};

/// APIs that BM25 is asked for when negatives are mined.
const MINED_FROM: usize = 12;

/// A pair with its APIs by number.
pub struct Example {
    pub query: String,
    pub origin: Origin,
    pub apis: Vec<u32>,
}

/// One library.
pub struct Shelf {
    pub name: String,
    pub examples: Vec<Example>,
    /// Sums of the examples' weights, one after the other.
    cumulative: Vec<f64>,
    /// Callable, documented APIs; those that read alike once.
    pub apis: Vec<u32>,
    index: Option<Index>,
    /// The APIs of `index` by what they read.
    by_text: FxHashMap<(String, String), u32>,
}

/// Everything that is drawn from.
pub struct Examples {
    pub table: ApiTable,
    pub shelves: Vec<Shelf>,
    cumulative: Vec<f64>,
}

/// How often a pair is drawn for where it is from.
fn weight(origin: Origin) -> f64 {
    match origin {
        Origin::Example => 2.0,
        Origin::Reference => 1.2,
        Origin::Comment | Origin::Docstring => 1.0,
        Origin::Detail => 0.6,
        Origin::Paragraph | Origin::Summary => 0.5,
    }
}

fn reads(api: &ApiDoc) -> (String, String) {
    (api.name.clone(), api.description.clone())
}

impl Examples {
    /// Of pairs and the APIs they ask for. `work` holds the indexes that hard negatives are mined from; with `mine` false
    /// there are none.
    ///
    /// # Errors
    /// There is no pair, or an index cannot be built.
    pub fn new(
        table: ApiTable,
        pairs: &[Pair],
        work: &Path,
        mine: bool,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut by_library: FxHashMap<String, Vec<Example>> = FxHashMap::default();
        let mut counts: FxHashMap<u32, usize> = FxHashMap::default();
        for pair in pairs {
            let apis: Vec<u32> = pair.apis.iter().filter_map(|api| table.callable(api)).collect();
            let Some(&first) = apis.first() else { continue };
            for &api in &apis {
                *counts.entry(api).or_default() += 1;
            }
            let example = Example { query: pair.query.clone(), origin: pair.origin, apis };
            by_library.entry(table.api(first).library().to_owned()).or_default().push(example);
        }
        let mut pools: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        for (id, api) in table.apis().iter().enumerate() {
            if table.callable(&api.qualified_name).is_some() {
                pools.entry(api.library()).or_default().push(id as u32);
            }
        }
        let mut names: Vec<String> = by_library.keys().cloned().collect();
        names.sort();
        progress.start("indexing libraries", Some(names.len() as u64));
        let mut shelves = Vec::new();
        for name in names {
            let mut examples = by_library.remove(&name).unwrap_or_default();
            examples.sort_by(|a, b| (&a.query, &a.apis).cmp(&(&b.query, &b.apis)));
            let mut seen = FxHashSet::default();
            let mut apis = pools.remove(name.as_str()).unwrap_or_default();
            apis.retain(|&id| seen.insert(reads(table.api(id))));
            if apis.len() < 8 || examples.len() < 8 {
                progress.advance(1);
                continue;
            }
            let by_text = apis.iter().map(|&id| (reads(table.api(id)), id)).collect();
            let index = if mine { Some(open_index(&table, &apis, &work.join(&name))?) } else { None };
            // An API that half of the code calls must not be half of the batch.
            let of = |example: &Example| {
                let rarest =
                    example.apis.iter().filter_map(|api| counts.get(api)).min().copied().unwrap_or(1);
                weight(example.origin) / (rarest as f64).sqrt()
            };
            let cumulative = sums(examples.iter().map(of));
            shelves.push(Shelf { name, examples, cumulative, apis, index, by_text });
            progress.advance(1);
        }
        progress.finish();
        if shelves.is_empty() {
            let what = "no library has enough pairs and APIs to train on";
            return Err(Error::new(ErrorKind::InvalidData, what));
        }
        // Large libraries come more often, but not in proportion.
        let cumulative = sums(shelves.iter().map(|shelf| (shelf.examples.len() as f64).powf(0.6)));
        Ok(Self { table, shelves, cumulative })
    }

    /// Draws a library.
    pub fn shelf(&self, rng: &mut impl Rng) -> &Shelf {
        &self.shelves[draw(&self.cumulative, rng)]
    }

    /// What the set is made of, as a digest: two runs over the same set draw the same.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for shelf in &self.shelves {
            hasher.update(shelf.name.as_bytes());
            for example in &shelf.examples {
                hasher.update(example.query.as_bytes());
                for &api in &example.apis {
                    hasher.update(self.table.api(api).prompt_line().as_bytes());
                }
            }
            hasher.update((shelf.apis.len() as u64).to_le_bytes());
        }
        hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Shelf {
    /// Draws a pair.
    pub fn example(&self, rng: &mut impl Rng) -> &Example {
        &self.examples[draw(&self.cumulative, rng)]
    }

    /// Up to `count` APIs that BM25 takes for answers to `query` and that are none of `golden`.
    pub fn hard_negatives(
        &self,
        query: &str,
        count: usize,
        golden: &dyn Fn(u32) -> bool,
        rng: &mut impl Rng,
    ) -> Result<Vec<u32>> {
        let Some(index) = self.index.as_ref().filter(|_| count > 0) else { return Ok(Vec::new()) };
        let hits = index.search(&query.into(), MINED_FROM)?;
        let found = hits.iter().filter_map(|hit| self.by_text.get(&reads(&hit.api)).copied());
        let found: Vec<u32> = found.filter(|&api| !golden(api)).collect();
        Ok(found.choose_multiple(rng, count).copied().collect())
    }
}

fn open_index(table: &ApiTable, apis: &[u32], folder: &Path) -> Result<Index> {
    let apis: Vec<ApiDoc> = apis.iter().map(|&id| table.api(id).clone()).collect();
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    index::build(&apis, folder, &BuildOptions::default(), &Silent)?;
    Index::open(folder)
}

fn sums(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

fn draw(cumulative: &[f64], rng: &mut impl Rng) -> usize {
    let total = cumulative.last().copied().unwrap_or(0.0);
    let at = rng.random::<f64>() * total;
    cumulative.partition_point(|&sum| sum <= at).min(cumulative.len() - 1)
}
