//! Figures 5 to 7 as data and as charts.

use serde::Serialize;

use super::config::setting_title;
use super::results::{Estimate, Results};
use crate::bootstrap::Share;
use crate::chart::{Bar, Chart, Panel};
use crate::recall::KS;

/// Which figure of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Recall of the retriever.
    Fig5,
    /// APIs in the prompt against APIs that are called.
    Fig6,
    /// Difficulty by the number of APIs.
    Fig7,
}

/// A figure: a panel for each problem set, or each pair of set and model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// Its points.
    pub points: Vec<Point>,
    /// Whether the chart says how many problems a group has.
    #[serde(skip)]
    counts_groups: bool,
}

/// One bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Which panel.
    pub panel: String,
    /// Which group on the x axis.
    pub group: String,
    /// Which colour.
    pub series: String,
    /// The share from 0 to 1, with its interval; `None`: there is none.
    #[serde(flatten)]
    pub estimate: Option<Estimate>,
    /// Problems behind it.
    pub problems: usize,
}

/// Problems that need so many APIs and more stand together in Figure 7.
const MOST_APIS: u64 = 4;

impl Figure {
    /// The figure of what is complete.
    pub fn of(results: &Results, which: Which) -> Self {
        let (title, caption, points) = match which {
            Which::Fig5 => (
                "Figure 5: recall of the APIs that a problem needs",
                "Share of golden APIs among the first k names, over all golden APIs of a set.",
                recall(results),
            ),
            Which::Fig6 => (
                "Figure 6: golden APIs in the prompt, and called",
                "Share of golden APIs that the prompt shows, and share that completions call (at the temperature best for the \
                 smallest k). What is called and not shown the model guessed or knew.",
                chosen(results),
            ),
            Which::Fig7 => (
                "Figure 7: pass@1 by the number of APIs that a problem needs",
                "At the temperature best for the smallest k; below each group how many problems it has.",
                difficulty(results),
            ),
        };
        let k = results.config.ks().first().copied().unwrap_or(1);
        let title = title.replace("pass@1", &format!("pass@{k}"));
        Self { title, caption: caption.into(), points, counts_groups: which == Which::Fig7 }
    }

    /// The data, a line for each bar.
    pub fn csv(&self) -> String {
        let mut out = String::from("panel,group,series,value,low,high,problems\n");
        for point in &self.points {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let values = point
                .estimate
                .map_or(",,".into(), |found| format!("{},{},{}", found.value, found.low, found.high));
            out.push_str(&format!(
                "{},{},{},{values},{}\n",
                quoted(&point.panel),
                quoted(&point.group),
                quoted(&point.series),
                point.problems
            ));
        }
        out
    }

    /// The chart.
    pub fn chart(&self) -> Chart {
        let mut series: Vec<String> = Vec::new();
        let mut panels: Vec<Panel> = Vec::new();
        for point in &self.points {
            let colour = position(&mut series, &point.series);
            let panel = match panels.iter().position(|panel| panel.title == point.panel) {
                Some(i) => i,
                None => {
                    panels.push(Panel { title: point.panel.clone(), groups: Vec::new(), bars: Vec::new() });
                    panels.len() - 1
                }
            };
            let panel = &mut panels[panel];
            let label = match self.counts_groups {
                true if point.problems == 1 => format!("{}\n1 problem", point.group),
                true => format!("{}\n{} problems", point.group, point.problems),
                false => point.group.clone(),
            };
            let group = position(&mut panel.groups, &label);
            if let Some(Estimate { value, low, high }) = point.estimate {
                panel.bars.push(Bar { group, series: colour, value, low, high });
            }
        }
        Chart { title: self.title.clone(), series, panels }
    }
}

/// The place of a text in a list, where it is put if it is new.
fn position(list: &mut Vec<String>, text: &str) -> usize {
    list.iter().position(|other| other == text).unwrap_or_else(|| {
        list.push(text.to_owned());
        list.len() - 1
    })
}

fn recall(results: &Results) -> Vec<Point> {
    let mut points = Vec::new();
    for set in &results.config.problems {
        let Some(found) = results.recall(&set.name) else { continue };
        let sources = [("our retriever", &found.retriever), ("published prompts", &found.published)];
        for (series, counts) in sources {
            let Some(counts) = counts else { continue };
            for (ki, k) in KS.into_iter().enumerate() {
                let shares: Vec<Share> = counts
                    .iter()
                    .map(|count| Share { of: count.found[ki] as f64, out_of: count.golden as f64 })
                    .collect();
                points.push(Point {
                    panel: set.name.clone(),
                    group: format!("@{k}"),
                    series: series.into(),
                    estimate: results.estimate(&shares),
                    problems: shares.len(),
                });
            }
        }
        if let Some(chosen) = &found.human {
            let shares = |out_of: fn(&super::recalled::Chosen) -> usize| -> Vec<Share> {
                chosen
                    .iter()
                    .map(|chosen| Share { of: chosen.right as f64, out_of: out_of(chosen) as f64 })
                    .collect()
            };
            for (group, shares) in [
                ("human recall", shares(|chosen| chosen.golden)),
                ("human precision", shares(|chosen| chosen.chosen)),
            ] {
                points.push(Point {
                    panel: set.name.clone(),
                    group: group.into(),
                    series: "people".into(),
                    estimate: results.estimate(&shares),
                    problems: shares.len(),
                });
            }
        }
    }
    points
}

/// A panel for each set and model, with what `add` says of each of its settings.
fn by_setting(results: &Results, mut add: impl FnMut(&str, &str, &str, &str)) {
    let several = results.config.models.len() > 1;
    for set in &results.config.problems {
        for model in &results.config.models {
            let panel = if several { format!("{}, {}", set.name, model.name) } else { set.name.clone() };
            for setting in results.settings(set, &model.name) {
                add(&panel, &set.name, &model.name, &setting);
            }
        }
    }
}

fn chosen(results: &Results) -> Vec<Point> {
    let mut points = Vec::new();
    by_setting(results, |panel, set, model, setting| {
        let Some((_, tallies)) = results.at_best(set, model, setting) else { return };
        let known: Vec<_> = tallies
            .iter()
            .filter_map(|tally| Some((tally.golden.filter(|golden| *golden > 0)? as f64, *tally)))
            .collect();
        let samples = |tally: &super::tally::Tally| tally.verdicts.values().sum::<u64>() as f64;
        let shown: Vec<Share> = known
            .iter()
            .map(|(golden, tally)| Share { of: tally.golden_shown as f64, out_of: *golden })
            .collect();
        let called: Vec<Share> = known
            .iter()
            .map(|(golden, tally)| Share { of: tally.golden_called as f64, out_of: golden * samples(tally) })
            .collect();
        for (series, shares) in [("in the prompt", shown), ("called", called)] {
            points.push(Point {
                panel: panel.into(),
                group: setting_title(setting),
                series: series.into(),
                estimate: results.estimate(&shares),
                problems: shares.len(),
            });
        }
    });
    points
}

fn difficulty(results: &Results) -> Vec<Point> {
    let mut points = Vec::new();
    by_setting(results, |panel, set, model, setting| {
        for (apis, problems, estimate) in results.by_difficulty(set, model, setting, MOST_APIS) {
            let more = if apis == MOST_APIS { "+" } else { "" };
            let noun = if apis == 1 { "API" } else { "APIs" };
            points.push(Point {
                panel: panel.into(),
                group: format!("{apis}{more} {noun}"),
                series: setting_title(setting),
                estimate,
                problems,
            });
        }
    });
    points
}
