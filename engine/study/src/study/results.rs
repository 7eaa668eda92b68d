//! What a store holds, read for tables and figures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inhouse::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use super::config::{Config, ProblemSet, Protocol};
use super::recalled::Recalled;
use super::store::{Store, read_json};
use super::tally::{Tally, Uses};
use super::units::{Cell, cells, units};
use crate::bootstrap::{self, Share};
use crate::pass_at_k::pass_at_k;

/// A figure and its confidence interval ([`bootstrap::LEVEL`]).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// All that a study has found so far.
#[derive(Debug, Clone)]
pub struct Results {
    /// Its configuration.
    pub config: Config,
    /// Digests of its models, by name.
    pub models: BTreeMap<String, String>,
    /// Cells that are complete, with the tallies of their problems in the order of the set.
    cells: Vec<(Cell, Vec<Tally>)>,
    /// Units that are done, and all of them.
    pub units: (usize, usize),
    recall: BTreeMap<String, Recalled>,
    canonical: BTreeMap<String, BTreeMap<String, bool>>,
    /// The records of the workers, oldest first.
    pub runs: Vec<Value>,
    store: Store,
}

/// One setting of one model on one problem set: pass@k at each temperature, and the best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// Temperature, and pass@k for each k of [`Config::ks`].
    pub temperatures: Vec<(f32, Vec<Option<Estimate>>)>,
    /// For each k the place of the best temperature in the list; the lowest of equals.
    pub best: Vec<Option<usize>>,
    /// Temperatures of the configuration that are not complete yet.
    pub missing: usize,
    /// Problems that are counted.
    pub problems: usize,
}

impl Sweep {
    /// The best pass@k, and its temperature; `ki` is the place of k.
    pub fn best(&self, ki: usize) -> Option<(f32, Estimate)> {
        let (temperature, values) = self.temperatures.get((*self.best.get(ki)?)?)?;
        Some((*temperature, (*values.get(ki)?)?))
    }
}

impl Results {
    /// Reads what is complete.
    ///
    /// # Errors
    /// A file of the store is damaged.
    pub fn read(store: &Store) -> Result<Self> {
        let config = store.record.config.clone();
        let mut complete = Vec::new();
        let mut count = (0, 0);
        for cell in cells(&config) {
            let n_problems = store.record.sets.get(&cell.set).map_or(0, |set| set.problems);
            let (mut tallies, mut whole) = (Vec::new(), true);
            for unit in units(&cell, n_problems, store.record.problems_per_unit) {
                count.1 += 1;
                let path = unit.file(&store.folder, "tally.json");
                match read_json::<Vec<Tally>>(&path)? {
                    Some(found) if found.len() == unit.problems.len() => {
                        count.0 += 1;
                        tallies.extend(found);
                    }
                    Some(_) => return Err(Error::data(&path, "does not have the problems of its name")),
                    None => whole = false,
                }
            }
            if whole && !tallies.is_empty() {
                complete.push((cell, tallies));
            }
        }
        let (mut recall, mut canonical) = (BTreeMap::new(), BTreeMap::new());
        for set in &config.problems {
            recall.extend(read_json(&store.recall(&set.name))?.map(|found| (set.name.clone(), found)));
            canonical.extend(read_json(&store.canonical(&set.name))?.map(|found| (set.name.clone(), found)));
        }
        let mut paths: Vec<_> = match std::fs::read_dir(store.folder.join("runs")) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        let runs = paths.iter().filter_map(|path| read_json(path).transpose()).collect::<Result<_>>()?;
        let models = store.record.models.clone();
        Ok(Self {
            config,
            models,
            cells: complete,
            units: count,
            recall,
            canonical,
            runs,
            store: store.clone(),
        })
    }

    /// Problems of a set that none of their own solutions solves here; `None` before that was tried.
    pub fn unsolvable(&self, set: &str) -> Option<Vec<&str>> {
        let solved = self.canonical.get(set)?;
        Some(solved.iter().filter(|(_, solved)| !**solved).map(|(id, _)| id.as_str()).collect())
    }

    /// Recall on a set; `None` where nothing golden is known.
    pub fn recall(&self, set: &str) -> Option<&Recalled> {
        self.recall.get(set).filter(|recalled| **recalled != Recalled::default())
    }

    /// The settings of a set that are complete at one temperature at least.
    pub fn settings(&self, set: &ProblemSet, model: &str) -> Vec<String> {
        let done = |setting: &String| {
            self.cells
                .iter()
                .any(|(cell, _)| cell.set == set.name && cell.model == model && cell.setting == *setting)
        };
        self.config.settings_of(set).into_iter().filter(done).collect()
    }

    /// The tallies that count: under [`Protocol::Sound`] without the problems that cannot be solved.
    fn tallies(&self, set: &str, model: &str, setting: &str) -> impl Iterator<Item = (f32, Vec<&Tally>)> {
        let unsolvable: Vec<String> = match self.config.protocol {
            Protocol::Sound => {
                self.unsolvable(set).unwrap_or_default().into_iter().map(str::to_owned).collect()
            }
            Protocol::AsPublished => Vec::new(),
        };
        let (set, model, setting) = (set.to_owned(), model.to_owned(), setting.to_owned());
        let wanted = move |(cell, _): &&(Cell, Vec<Tally>)| {
            cell.set == set && cell.model == model && cell.setting == setting
        };
        self.cells.iter().filter(wanted).map(move |(cell, tallies)| {
            let counted = |tally: &&Tally| !unsolvable.contains(&tally.task_id);
            (cell.temperature, tallies.iter().filter(counted).collect())
        })
    }

    /// The sweep of one setting; `None` where no temperature is complete.
    pub fn sweep(&self, set: &str, model: &str, setting: &str) -> Option<Sweep> {
        let ks = self.config.ks();
        let mut problems = 0;
        let temperatures: Vec<(f32, Vec<Option<Estimate>>)> = self
            .tallies(set, model, setting)
            .map(|(temperature, tallies)| {
                problems = tallies.len();
                (temperature, ks.iter().map(|k| self.pass_at(&tallies, *k)).collect())
            })
            .collect();
        if temperatures.is_empty() {
            return None;
        }
        let best = (0..ks.len())
            .map(|ki| {
                let value = |i: usize| Some((i, temperatures[i].1[ki]?.value));
                let values = (0..temperatures.len()).filter_map(value);
                values.fold(None, |best: Option<(usize, f64)>, (i, value)| match best {
                    Some((_, highest)) if value <= highest => best,
                    _ => Some((i, value)),
                })
            })
            .map(|best| best.map(|(i, _)| i))
            .collect();
        let missing = self.config.temperatures.len() - temperatures.len();
        Some(Sweep { temperatures, best, missing, problems })
    }

    /// pass@k of some problems; `None` where one has too few samples.
    fn pass_at<'t>(&self, tallies: impl IntoIterator<Item = &'t &'t Tally>, k: u64) -> Option<Estimate> {
        let repeats = self.config.repeats() as u64;
        let shares: Option<Vec<Share>> = tallies
            .into_iter()
            .map(|tally| {
                Some(Share { of: pass_at_k(tally.n * repeats, tally.passed * repeats, k)?, out_of: 1.0 })
            })
            .collect();
        self.estimate(&shares?)
    }

    /// A quotient with its interval.
    pub(crate) fn estimate(&self, shares: &[Share]) -> Option<Estimate> {
        let value = bootstrap::quotient(shares)?;
        let (low, high) = bootstrap::interval(shares, self.config.bootstrap, self.config.seed)?;
        Some(Estimate { value, low, high })
    }

    /// The tallies at the temperature that is best for the smallest k.
    pub(crate) fn at_best(&self, set: &str, model: &str, setting: &str) -> Option<(f32, Vec<&Tally>)> {
        let (best, _) = self.sweep(set, model, setting)?.best(0)?;
        self.tallies(set, model, setting).find(|(temperature, _)| *temperature == best)
    }

    /// The files with a row for each sample of a cell, whether they are there or not.
    pub(super) fn result_files(
        &self,
        set: &str,
        model: &str,
        setting: &str,
        temperature: f32,
    ) -> impl Iterator<Item = PathBuf> {
        let cell = Cell { set: set.into(), model: model.into(), setting: setting.into(), temperature };
        let record = &self.store.record;
        let problems = record.sets.get(set).map_or(0, |set| set.problems);
        units(&cell, problems, record.problems_per_unit)
            .map(|unit| unit.file(&self.store.folder, "results.jsonl"))
    }

    /// pass@k of every problem that counts, at the temperature that is best for this k; `None` where nothing is complete, or
    /// a problem has too few samples.
    pub(super) fn problem_values(
        &self,
        set: &str,
        model: &str,
        setting: &str,
        k: u64,
    ) -> Option<(f32, Vec<(&str, f64)>)> {
        let ki = self.config.ks().iter().position(|other| *other == k)?;
        let (best, _) = self.sweep(set, model, setting)?.best(ki)?;
        let (temperature, tallies) =
            self.tallies(set, model, setting).find(|(temperature, _)| *temperature == best)?;
        let repeats = self.config.repeats() as u64;
        let value = |tally: &&'_ Tally| pass_at_k(tally.n * repeats, tally.passed * repeats, k);
        let values = tallies.into_iter().map(|tally| Some((tally.task_id.as_str(), value(&tally)?)));
        Some((temperature, values.collect::<Option<_>>()?))
    }

    /// Uses of APIs at the temperature that is best for the smallest k.
    pub fn uses(&self, set: &str, model: &str, setting: &str) -> Option<Uses> {
        let (_, tallies) = self.at_best(set, model, setting)?;
        tallies.iter().map(|tally| tally.uses).sum::<Option<Uses>>()
    }

    /// pass@k (the smallest) by the number of golden APIs, at the best temperature: `(APIs, problems, figure)`. Problems with
    /// `most` and more stand together.
    pub fn by_difficulty(
        &self,
        set: &str,
        model: &str,
        setting: &str,
        most: u64,
    ) -> Vec<(u64, usize, Option<Estimate>)> {
        let Some((_, tallies)) = self.at_best(set, model, setting) else { return Vec::new() };
        let k = self.config.ks().first().copied().unwrap_or(1);
        let of = |n: u64| {
            let group: Vec<&Tally> = tallies
                .iter()
                .copied()
                .filter(|tally| tally.golden.is_some_and(|golden| golden.min(most) == n))
                .collect();
            (n, group.len(), self.pass_at(&group, k))
        };
        (0..=most).map(of).filter(|(_, problems, _)| *problems > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::store::{Record, write_json};
    use super::super::units::problems_per_unit;
    use super::*;
    use crate::study::SetRecord;

    /// A store of two problems, each with two samples at two temperatures: `passed[temperature][problem]` of them pass.
    fn results(protocol: &str, passed: [[u64; 2]; 2]) -> Results {
        let text = format!(
            "{protocol}\nk = [1, 8]\ntemperatures = [0.2, 0.8]\nsettings = [\"none\"]\nbootstrap = 500\n\
             [[problems]]\nname = \"A\"\nfile = \"a\"\n[[models]]\nname = \"m\"\npath = \"m\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("study.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let set = SetRecord { problems: 2, fingerprint: String::new(), index: None };
        let record = Record::new(
            &config,
            problems_per_unit(&config),
            BTreeMap::from([("A".into(), set)]),
            BTreeMap::new(),
        );
        let store = Store::begin(folder.path(), record).unwrap();
        for (cell, passed) in cells(&config).iter().zip(passed) {
            let of_problem = |(i, passed): (usize, u64)| Tally {
                task_id: format!("t/{i}"),
                n: 2,
                passed,
                golden: Some(i as u64 + 1),
                ..Tally::default()
            };
            let tallies: Vec<Tally> = passed.into_iter().enumerate().map(of_problem).collect();
            let unit = units(cell, 2, store.record.problems_per_unit).next().unwrap();
            write_json(&unit.file(&store.folder, "tally.json"), &tallies).unwrap();
        }
        write_json(&store.canonical("A"), &BTreeMap::from([("t/0", true), ("t/1", false)])).unwrap();
        Results::read(&store).unwrap()
    }

    #[test]
    fn as_published_counts_each_sample_eight_times_and_every_problem() {
        let results = results("protocol = \"as-published\"\nn = 16", [[1, 0], [0, 0]]);
        assert_eq!((results.config.drawn(), results.units), (2, (2, 2)));
        let sweep = results.sweep("A", "m", "none").unwrap();
        // One of two samples passes: 8 of 16. Eight drawn of these all fail in one of C(16, 8) = 12870 ways.
        let (temperature, first) = sweep.best(0).unwrap();
        assert_eq!((temperature, first.value, first.low, first.high), (0.2, 0.25, 0.0, 0.5));
        let (_, second) = sweep.best(1).unwrap();
        assert!((second.value - (1.0 - 1.0 / 12870.0) / 2.0).abs() < 1e-12, "{second:?}");
        assert_eq!((sweep.problems, sweep.missing), (2, 0));
        assert_eq!(results.unsolvable("A").unwrap(), ["t/1"]);
    }

    #[test]
    fn sound_leaves_out_what_cannot_be_solved_and_takes_the_best_temperature() {
        let results = results("n = 2", [[1, 2], [2, 0]]);
        let sweep = results.sweep("A", "m", "none").unwrap();
        assert_eq!((sweep.problems, sweep.temperatures.len()), (1, 2));
        let (temperature, best) = sweep.best(0).unwrap();
        assert_eq!((temperature, best.value), (0.8, 1.0));
        assert_eq!(sweep.temperatures[0].1[0].unwrap().value, 0.5);
        let by_apis = results.by_difficulty("A", "m", "none", 4);
        assert_eq!(
            by_apis.iter().map(|(apis, problems, _)| (*apis, *problems)).collect::<Vec<_>>(),
            [(1, 1)]
        );
    }
}
