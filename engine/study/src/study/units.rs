//! What a study is made of: units of work, each a file.

use std::path::{Path, PathBuf};

use super::config::Config;

/// Everything of one table cell at one temperature: problem set, model, setting, temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Name of the problem set.
    pub set: String,
    /// Name of the model.
    pub model: String,
    /// Which APIs stand in the prompt.
    pub setting: String,
    /// Sampling temperature.
    pub temperature: f32,
}

/// The samples of a few neighbouring problems in one cell. A unit is done as a whole or not at all and depends on nothing
/// outside of it, so that neither a kill nor the number of workers changes a byte of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    /// The cell.
    pub cell: Cell,
    /// Places of its problems in the set.
    pub problems: std::ops::Range<usize>,
}

impl Cell {
    /// Its folder in a store.
    pub fn folder(&self, store: &Path) -> PathBuf {
        store
            .join("units")
            .join(folder_name(&self.set))
            .join(folder_name(&self.model))
            .join(folder_name(&self.setting))
            .join(format!("t{:.3}", self.temperature))
    }
}

impl Unit {
    /// A file of the unit: `samples.jsonl`, `results.jsonl`, `tally.json`, `claim`.
    pub fn file(&self, store: &Path, kind: &str) -> PathBuf {
        self.cell.folder(store).join(format!("{:05}-{:05}.{kind}", self.problems.start, self.problems.end))
    }
}

/// Part `index` of `of`; the whole is 0 of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// All of the work.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// Whether unit number `i` belongs to it.
    pub fn has(self, i: usize) -> bool {
        i % self.of == self.index
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err("expected I/N with I from 0 to N-1, as in 0/8".into()),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// Problems of a unit: enough that a decoder is busy with them, and no more, since a kill loses a unit at most.
pub fn problems_per_unit(config: &Config) -> usize {
    (2 * config.parallel).div_ceil(config.drawn()).max(1)
}

/// The cells of a study: models first, since loading one costs most.
pub fn cells(config: &Config) -> Vec<Cell> {
    let mut cells = Vec::new();
    for model in &config.models {
        for set in &config.problems {
            for setting in config.settings_of(set) {
                for temperature in &config.temperatures {
                    cells.push(Cell {
                        set: set.name.clone(),
                        model: model.name.clone(),
                        setting: setting.clone(),
                        temperature: *temperature,
                    });
                }
            }
        }
    }
    cells
}

/// The units of a cell with so many problems.
pub fn units(cell: &Cell, n_problems: usize, per_unit: usize) -> impl Iterator<Item = Unit> + use<> {
    let cell = cell.clone();
    (0..n_problems)
        .step_by(per_unit)
        .map(move |start| Unit { cell: cell.clone(), problems: start..(start + per_unit).min(n_problems) })
}

/// A name as a part of a path: letters, digits, `.`, `_` and `-`; never `.` or `..`.
pub fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = name.trim().chars().map(plain).collect();
    if name.chars().all(|c| c == '.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_part_the_work() {
        let shards: Vec<Shard> = (0..3).map(|i| format!("{i}/3").parse().unwrap()).collect();
        for unit in 0..20 {
            assert_eq!(shards.iter().filter(|shard| shard.has(unit)).count(), 1);
        }
        for bad in ["3/3", "x", "1", "-1/2", "0/0"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn units_cover_a_cell() {
        let cell = Cell { set: "A/B".into(), model: "..".into(), setting: "top:2".into(), temperature: 0.1 };
        let units: Vec<Unit> = units(&cell, 10, 4).collect();
        assert_eq!(units.iter().map(|unit| unit.problems.clone()).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        let path = units[2].file(Path::new("s"), "tally.json");
        assert_eq!(path, Path::new("s/units/A_B/_../top_2/t0.100/00008-00010.tally.json"));
    }
}
