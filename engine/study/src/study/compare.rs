//! Two studies, or two models or settings of one, side by side on the same problems.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use inhouse::{Error, ErrorKind, Result};
use serde::Serialize;

use super::by_problem::Column;
use super::results::{Estimate, Results};
use super::store::Store;
use super::table::{aligned, quoted};
use crate::bootstrap::{self, Share};

/// One side: a store, and where it is to be one model or one setting of it, which: `STORE`, `STORE:MODEL`, `STORE:MODEL:SETTING`.
/// A model or setting may be left empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The store's folder.
    pub store: PathBuf,
    /// The model.
    pub model: Option<String>,
    /// The setting.
    pub setting: Option<String>,
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A folder's name may hold a colon, and so may a setting (`top:2`).
        if Path::new(text).is_dir() {
            return Ok(Self { store: text.into(), model: None, setting: None });
        }
        let mut parts = text.splitn(3, ':');
        let store =
            parts.next().filter(|store| !store.is_empty()).ok_or("expected STORE[:MODEL[:SETTING]]")?;
        let named = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(str::to_owned);
        Ok(Self { store: store.into(), model: named(parts.next()), setting: named(parts.next()) })
    }
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Rows by set, pair of models, pair of settings and k.
    pub rows: Vec<Compared>,
    /// Draws of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub seed: u64,
}

/// A figure on both sides, over the problems that both have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The problem set.
    pub set: String,
    /// Model and setting of either side, and the temperature that is best there.
    pub sides: [Shown; 2],
    /// The k of pass@k.
    pub k: u64,
    /// Problems that both sides count.
    pub problems: usize,
    /// pass@k of the second side less that of the first, with the interval of a paired bootstrap over problems.
    pub difference: Estimate,
    /// Whether the interval leaves out 0.
    pub differs: bool,
    /// Problems that the second side solves more often.
    pub better: Vec<String>,
    /// Problems that it solves less often.
    pub worse: Vec<String>,
}

/// One side of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The model in its setting, at the temperature that is best for this k.
    #[serde(flatten)]
    pub column: Column,
    /// pass@k.
    pub value: f64,
}

impl Comparison {
    /// Compares what both sides have. Settings of one name go together, and models of one name; where there are none, every one
    /// goes with every one of the other side.
    ///
    /// # Errors
    /// A store that cannot be read, or nothing that both have.
    pub fn of(first: &Side, second: &Side) -> Result<Self> {
        let read = |side: &Side| Results::read(&Store::open(&side.store)?);
        let both = [read(first)?, read(second)?];
        let (resamples, seed) = (both[0].config.bootstrap, both[0].config.seed);
        let mut rows = Vec::new();
        for set in &both[0].config.problems {
            if !both[1].config.problems.iter().any(|other| other.name == set.name) {
                continue;
            }
            let models = |results: &Results, side: &Side| {
                chosen(results.config.models.iter().map(|model| model.name.clone()), &side.model)
            };
            for models in pairs(&models(&both[0], first), &models(&both[1], second)) {
                let of = |i: usize, side: &Side| {
                    let results = &both[i];
                    let config_set = results.config.problems.iter().find(|other| other.name == set.name);
                    let settings =
                        config_set.map(|set| results.settings(set, &models[i])).unwrap_or_default();
                    chosen(settings.into_iter(), &side.setting)
                };
                for settings in pairs(&of(0, first), &of(1, second)) {
                    for k in both[0].config.ks() {
                        rows.extend(compared(&both, &set.name, &models, &settings, k, (resamples, seed)));
                    }
                }
            }
        }
        if rows.is_empty() {
            let message = format!(
                "{} and {} have no problem set, model and setting in common that is complete: name them as STORE:MODEL:SETTING",
                first.store.display(),
                second.store.display()
            );
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(Self { rows, resamples, seed })
    }

    /// For people.
    pub fn text(&self) -> String {
        let head = ["Set", "k", "First", "%", "Second", "%", "Difference", "95 %", "Better", "Worse", "of"];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let [a, b] = &row.sides;
            lines.push(vec![
                row.set.clone(),
                row.k.to_string(),
                a.column.title(),
                format!("{:.1}", 100.0 * a.value),
                b.column.title(),
                format!("{:.1}", 100.0 * b.value),
                format!("{:+.1}{}", 100.0 * row.difference.value, if row.differs { " *" } else { "" }),
                format!("{:+.1} to {:+.1}", 100.0 * row.difference.low, 100.0 * row.difference.high),
                row.better.len().to_string(),
                row.worse.len().to_string(),
                row.problems.to_string(),
            ]);
        }
        format!(
            "{}* the interval leaves out 0 (paired bootstrap over problems, {} draws, seed {})\n",
            aligned(&lines),
            self.resamples,
            self.seed
        )
    }

    /// For programs: a line for each row; lists of problems are in JSON alone.
    pub fn csv(&self) -> String {
        let mut out = String::from(
            "set,k,model_1,setting_1,temperature_1,pass_1,model_2,setting_2,temperature_2,pass_2,difference,low,high,problems,better,worse\n",
        );
        for row in &self.rows {
            let side = |Shown { column, value }: &Shown| {
                format!("{},{},{},{value}", quoted(&column.model), column.setting, column.temperature)
            };
            let Estimate { value, low, high } = row.difference;
            let _ = writeln!(
                out,
                "{},{},{},{},{value},{low},{high},{},{},{}",
                quoted(&row.set),
                row.k,
                side(&row.sides[0]),
                side(&row.sides[1]),
                row.problems,
                row.better.len(),
                row.worse.len()
            );
        }
        out
    }
}

/// The one that was named, or all.
fn chosen(all: impl Iterator<Item = String>, named: &Option<String>) -> Vec<String> {
    all.filter(|name| named.as_ref().is_none_or(|named| named == name)).collect()
}

/// What goes with what: those of one name; where no name is on both sides, all with all.
fn pairs(first: &[String], second: &[String]) -> Vec<[String; 2]> {
    let all = || first.iter().flat_map(|a| second.iter().map(|b| [a.clone(), b.clone()]));
    let same: Vec<_> = all().filter(|[a, b]| a == b).collect();
    if same.is_empty() { all().collect() } else { same }
}

fn compared(
    both: &[Results; 2],
    set: &str,
    models: &[String; 2],
    settings: &[String; 2],
    k: u64,
    (resamples, seed): (usize, u64),
) -> Option<Compared> {
    let side = |i: usize| both[i].problem_values(set, &models[i], &settings[i], k);
    let ((t0, first), (t1, second)) = (side(0)?, side(1)?);
    let second: BTreeMap<&str, f64> = second.into_iter().collect();
    let paired: Vec<(&str, f64, f64)> =
        first.iter().filter_map(|(id, a)| Some((*id, *a, *second.get(id)?))).collect();
    let shares: Vec<Share> = paired.iter().map(|(_, a, b)| Share { of: b - a, out_of: 1.0 }).collect();
    let value = bootstrap::quotient(&shares)?;
    let (low, high) = bootstrap::interval(&shares, resamples, seed)?;
    let mean =
        |of: &dyn Fn(&(&str, f64, f64)) -> f64| paired.iter().map(of).sum::<f64>() / paired.len() as f64;
    let shown = |i: usize, temperature: f32, value: f64| Shown {
        column: Column { model: models[i].clone(), setting: settings[i].clone(), temperature },
        value,
    };
    let ids = |wanted: &dyn Fn(f64, f64) -> bool| {
        paired.iter().filter(|(_, a, b)| wanted(*a, *b)).map(|(id, ..)| (*id).to_owned()).collect()
    };
    Some(Compared {
        set: set.into(),
        sides: [shown(0, t0, mean(&|row| row.1)), shown(1, t1, mean(&|row| row.2))],
        k,
        problems: paired.len(),
        difference: Estimate { value, low, high },
        differs: low > 0.0 || high < 0.0,
        better: ids(&|a, b| b > a),
        worse: ids(&|a, b| b < a),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::SetRecord;
    use super::super::config::Config;
    use super::super::store::{Record, write_json};
    use super::super::tally::Tally;
    use super::super::units::{cells, problems_per_unit, units};
    use super::*;

    /// A store of one model in one setting, one sample a problem: `passed` says of each whether it passes.
    pub fn store(folder: &Path, model: &str, passed: &[bool]) -> Store {
        std::fs::create_dir_all(folder).unwrap();
        let file = folder.join("study.toml");
        let text = format!(
            "n = 1\nk = [1]\ntemperatures = [0.0]\nsettings = [\"none\"]\nbootstrap = 2000\n\
             [[problems]]\nname = \"A\"\nfile = \"a\"\n[[models]]\nname = \"{model}\"\npath = \"m\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let set = SetRecord { problems: passed.len(), fingerprint: String::new(), index: None };
        let record = Record::new(
            &config,
            problems_per_unit(&config),
            BTreeMap::from([("A".into(), set)]),
            BTreeMap::new(),
        );
        let store = Store::begin(folder, record).unwrap();
        for unit in units(&cells(&config)[0], passed.len(), store.record.problems_per_unit) {
            let verdict = |i: usize| if passed[i] { "passed" } else { "failed" };
            let tally = |i: usize| Tally {
                task_id: format!("t/{i}"),
                n: 1,
                passed: u64::from(passed[i]),
                verdicts: BTreeMap::from([(verdict(i).into(), 1)]),
                ..Tally::default()
            };
            let tallies: Vec<Tally> = unit.problems.clone().map(tally).collect();
            write_json(&unit.file(&store.folder, "tally.json"), &tallies).unwrap();
            let row = |i: usize| {
                let detail = if passed[i] { "" } else { "AssertionError: <3> & 4" };
                json!({"task_id": format!("t/{i}"), "completion": format!("x = {i} < 9"), "verdict": verdict(i),
                       "detail": detail, "apis": ["bake"]})
            };
            let rows: String = unit.problems.clone().map(|i| format!("{}\n", row(i))).collect();
            std::fs::write(unit.file(&store.folder, "results.jsonl"), rows).unwrap();
        }
        store
    }

    #[test]
    fn two_studies_are_paired_by_problem() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        // Of 40 problems ten pass on either side and ten more on the second: each gains.
        store(&a, "base", &(0..40).map(|i| i < 10).collect::<Vec<_>>());
        store(&b, "adapted", &(0..40).map(|i| i < 20).collect::<Vec<_>>());
        let side = |path: &Path| Side { store: path.into(), model: None, setting: None };
        let comparison = Comparison::of(&side(&a), &side(&b)).unwrap();
        let [row] = comparison.rows.as_slice() else { panic!("{comparison:?}") };
        assert_eq!((row.sides[0].value, row.sides[1].value, row.problems), (0.25, 0.5, 40));
        assert_eq!((row.better.len(), row.worse.len(), row.better[0].as_str()), (10, 0, "t/10"));
        // The mean of 40 draws of 0 or 1 with probability a quarter has a standard error of .0685.
        let Estimate { value, low, high } = row.difference;
        assert_eq!(value, 0.25);
        assert!((low - 0.125).abs() < 0.03 && (high - 0.385).abs() < 0.03 && row.differs, "{low} {high}");
        assert_eq!(comparison, Comparison::of(&side(&a), &side(&b)).unwrap());
        assert!(comparison.text().contains("base, No API") && comparison.text().contains("+25.0 *"));
        assert!(
            comparison
                .csv()
                .lines()
                .nth(1)
                .unwrap()
                .starts_with("A,1,base,none,0,0.25,adapted,none,0,0.5,0.25,")
        );

        let same = Comparison::of(&side(&a), &side(&a)).unwrap();
        assert!(!same.rows[0].differs && same.rows[0].better.is_empty());
        let nobody = Side { model: Some("nobody".into()), ..side(&b) };
        let error = Comparison::of(&side(&a), &nobody).unwrap_err().to_string();
        assert!(error.contains("no problem set, model and setting in common"), "{error}");
    }

    #[test]
    fn sides_are_named() {
        let side = |text: &str| text.parse::<Side>();
        let expected = |store: &str, model: Option<&str>, setting: Option<&str>| {
            Ok(Side {
                store: store.into(),
                model: model.map(str::to_owned),
                setting: setting.map(str::to_owned),
            })
        };
        assert_eq!(side("a.store"), expected("a.store", None, None));
        assert_eq!(side("a.store:m"), expected("a.store", Some("m"), None));
        assert_eq!(side("a.store:m:top:2"), expected("a.store", Some("m"), Some("top:2")));
        assert_eq!(side("a.store::top:2"), expected("a.store", None, Some("top:2")));
        assert!(side(":m").is_err());
    }

    #[test]
    fn what_has_one_name_goes_together() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        // names on either side, and the pairs
        type Case = (&'static [&'static str], &'static [&'static str], &'static [[&'static str; 2]]);
        let cases: [Case; 4] = [
            (&["a", "b"], &["b", "a"], &[["a", "a"], ["b", "b"]]),
            (&["a"], &["b"], &[["a", "b"]]),
            (&["a"], &["a", "b"], &[["a", "a"]]),
            (&["a"], &[], &[]),
        ];
        for (first, second, expected) in cases {
            let found = pairs(&names(first), &names(second));
            assert_eq!(found, expected.iter().map(|pair| pair.map(str::to_owned)).collect::<Vec<_>>());
        }
    }
}
