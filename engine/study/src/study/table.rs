//! Tables 1 to 3: pass@k by problem set, model and setting, as text, CSV and JSON.

use std::fmt::Write;

use serde::Serialize;

use super::config::{Config, Protocol, setting_title};
use super::results::{Estimate, Results, Sweep};
use super::tally::Uses;

/// Which table of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Private libraries.
    Table1,
    /// Noise and resampling in training: models that say so.
    Table2,
    /// Public libraries.
    Table3,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// What has to be said of it.
    pub notes: Vec<String>,
    /// The k of its columns.
    pub k: Vec<u64>,
    /// A part for each problem set.
    pub sections: Vec<Section>,
}

/// The rows of one problem set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Section {
    /// The problem set.
    pub set: String,
    /// Problems that are counted.
    pub problems: usize,
    /// Problems whose own solutions fail here; `None` before that was tried.
    pub unsolvable: Option<Vec<String>>,
    /// Whether those are counted all the same.
    pub counts_unsolvable: bool,
    /// Rows, by model and setting.
    pub rows: Vec<Row>,
}

/// One model in one setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The model.
    pub model: String,
    /// Noise in its training prompts, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// Whether its training data was resampled, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resampling: Option<bool>,
    /// Which APIs stand in the prompt.
    pub setting: String,
    /// pass@k by temperature.
    pub sweep: Sweep,
    /// Uses of APIs at the temperature that is best for the smallest k.
    pub uses: Option<Uses>,
    /// Share of resolved uses that the documentation does not have.
    pub hallucinated: Option<f64>,
    /// The same by the names of methods alone, whatever they are called on.
    pub hallucinated_by_name: Option<f64>,
}

impl Table {
    /// The table of what is complete.
    pub fn of(results: &Results, which: Which) -> Self {
        let config = &results.config;
        let models: Vec<_> = config
            .models
            .iter()
            .filter(|model| which != Which::Table2 || model.noise.is_some() || model.resampling.is_some())
            .collect();
        let sets = config.problems.iter().filter(|set| match which {
            Which::Table1 => !set.public,
            Which::Table2 => true,
            Which::Table3 => set.public,
        });
        let sections = sets.filter_map(|set| {
            let mut rows = Vec::new();
            for model in &models {
                for setting in results.settings(set, &model.name) {
                    let Some(sweep) = results.sweep(&set.name, &model.name, &setting) else { continue };
                    let uses = results.uses(&set.name, &model.name, &setting);
                    rows.push(Row {
                        model: model.name.clone(),
                        noise: model.noise,
                        resampling: model.resampling,
                        setting,
                        sweep,
                        uses,
                        hallucinated: uses.and_then(|uses| uses.hallucinated()),
                        hallucinated_by_name: uses.and_then(|uses| uses.hallucinated_by_name()),
                    });
                }
            }
            let problems = rows.first()?.sweep.problems;
            let unsolvable = results.unsolvable(&set.name);
            Some(Section {
                set: set.name.clone(),
                problems,
                unsolvable: unsolvable.map(|ids| ids.into_iter().map(str::to_owned).collect()),
                counts_unsolvable: config.protocol == Protocol::AsPublished,
                rows,
            })
        });
        let sections: Vec<Section> = sections.collect();
        let title = match which {
            Which::Table1 => "Table 1: pass@k on private libraries",
            Which::Table2 => "Table 2: noise and resampling in training",
            Which::Table3 => "Table 3: pass@k on public libraries",
        };
        Self { title: title.into(), notes: notes(results, which, &sections), k: config.ks(), sections }
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.title);
        for note in &self.notes {
            let _ = writeln!(out, "  {note}");
        }
        for section in &self.sections {
            let _ = writeln!(out, "\n{}: {}", section.set, section.about());
            let ablation = section.rows.iter().any(|row| row.noise.is_some() || row.resampling.is_some());
            let mut lines = vec![header(&self.k, ablation)];
            lines.extend(section.rows.iter().map(|row| row.cells(&self.k, ablation)));
            out.push_str(&aligned(&lines));
        }
        out
    }

    /// The table for programs: a line for each k and temperature.
    pub fn csv(&self) -> String {
        let mut out = String::from(
            "set,model,noise,resampling,setting,k,temperature,best,pass,low,high,problems,hallucinated,hallucinated_by_name\n",
        );
        for section in &self.sections {
            for row in &section.rows {
                for (ki, k) in self.k.iter().enumerate() {
                    for (ti, (temperature, values)) in row.sweep.temperatures.iter().enumerate() {
                        let Some(Estimate { value, low, high }) = values[ki] else { continue };
                        let best = row.sweep.best[ki] == Some(ti);
                        let optional =
                            |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
                        let _ = writeln!(
                            out,
                            "{},{},{},{},{},{k},{temperature},{best},{value},{low},{high},{},{},{}",
                            quoted(&section.set),
                            quoted(&row.model),
                            optional(row.noise),
                            row.resampling.map_or(String::new(), |yes| yes.to_string()),
                            row.setting,
                            row.sweep.problems,
                            optional(row.hallucinated),
                            optional(row.hallucinated_by_name),
                        );
                    }
                }
            }
        }
        out
    }
}

fn notes(results: &Results, which: Which, sections: &[Section]) -> Vec<String> {
    let config = &results.config;
    let mut notes = vec![format!(
        "in percent, with 95 % bootstrap intervals over problems; protocol {}: {}; {}",
        config.protocol,
        samples(config),
        match config.temperatures.as_slice() {
            [one] => format!("temperature {one}"),
            several => format!("best of {} temperatures", several.len()),
        }
    )];
    let (done, all) = results.units;
    if done < all {
        notes.push(format!("not finished: {done} of {all} units are done; only what is complete is shown"));
    }
    if sections.is_empty() {
        notes.push(match which {
            Which::Table1 => "nothing to show: no problem set without `public = true` is complete".into(),
            Which::Table2 => "nothing to show: no model with `noise` or `resampling` is complete".into(),
            Which::Table3 => "nothing to show: no problem set with `public = true` is complete".into(),
        });
    }
    notes
}

/// How many samples a problem has, and how they are counted.
pub(crate) fn samples(config: &Config) -> String {
    let plural = |n: usize| if n == 1 { "1 sample".to_owned() } else { format!("{n} samples") };
    match config.repeats() {
        1 => format!("{} a problem", plural(config.n)),
        repeats => format!("{} a problem, each counted {repeats} times", plural(config.drawn())),
    }
}

impl Section {
    /// How many problems, and which cannot be solved.
    pub fn about(&self) -> String {
        let problems = format!("{} problems", self.problems);
        match &self.unsolvable {
            None => format!("{problems} (their own solutions have not been run)"),
            Some(ids) if ids.is_empty() => format!("{problems}, all solved by their own solutions"),
            Some(ids) => {
                let counted = if self.counts_unsolvable { "counted" } else { "not counted" };
                format!(
                    "{problems}; {} that their own solutions do not solve are {counted}: {}",
                    ids.len(),
                    ids.join(", ")
                )
            }
        }
    }
}

fn header(k: &[u64], ablation: bool) -> Vec<String> {
    let mut header = vec!["model".to_owned()];
    if ablation {
        header.extend(["noise".to_owned(), "resampling".to_owned()]);
    }
    header.push("APIs".into());
    header.extend(k.iter().map(|k| format!("pass@{k}")));
    header.extend(["hallucinated".to_owned(), "by name".to_owned()]);
    header
}

impl Row {
    /// The cells of a row, as the header has them.
    fn cells(&self, k: &[u64], ablation: bool) -> Vec<String> {
        let mut cells = vec![self.model.clone()];
        if ablation {
            cells.push(self.noise.map_or("-".into(), |noise| format!("{} %", noise * 100.0)));
            cells.push(self.resampling.map_or("-", |yes| if yes { "yes" } else { "no" }).into());
        }
        cells.push(setting_title(&self.setting));
        cells.extend((0..k.len()).map(|ki| match self.sweep.best(ki) {
            Some((temperature, Estimate { value, low, high })) => {
                format!("{:.2} [{:.2}, {:.2}] T {temperature}", 100.0 * value, 100.0 * low, 100.0 * high)
            }
            None => "-".into(),
        }));
        cells.extend([self.hallucinated, self.hallucinated_by_name].map(percent));
        cells
    }
}

/// A share in percent, or a dash.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1} %", 100.0 * share))
}

/// Lines of cells in columns; two spaces stand between.
pub(super) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// A text as a field of CSV.
pub(super) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
