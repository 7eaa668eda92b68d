//! Recall with all signals, without each, and with each beside words and meaning: the tables of a run.

use serde::Serialize;

use super::rows::{Row, SIGNALS};
use inhouse_core::index::Signal;

/// The k of recall@k.
pub const KS: [usize; 5] = [1, 2, 3, 5, 10];

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What is measured on.
    pub pool: String,
    /// Which signals order the candidates.
    pub signals: String,
    /// recall@1, 2, 3, 5, 10: by name, micro-averaged over the golden names of a pool.
    pub recall: [f64; 5],
}

/// Weights by the order of [`SIGNALS`].
pub type Weights = [f64; SIGNALS.len()];

/// The name of a signal, as `ranker.json` has it.
pub fn name_of(signal: Signal) -> String {
    serde_json::to_value(signal).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
}

/// The score of a candidate.
pub fn score(values: &[f32], weights: &Weights) -> f64 {
    values.iter().zip(weights).map(|(value, weight)| f64::from(*value) * weight).sum()
}

/// The candidates of a row from the highest score; equal ones as they were found.
pub fn order(row: &Row, weights: &Weights) -> Vec<usize> {
    let scores: Vec<f64> = row.candidates.iter().map(|candidate| score(&candidate.values, weights)).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order
}

/// recall at each of [`KS`].
pub fn recall(rows: &[Row], weights: &Weights) -> [f64; 5] {
    let (mut found, mut golden) = ([0usize; 5], 0);
    for row in rows {
        golden += row.gold.len();
        let order = order(row, weights);
        for (slot, k) in found.iter_mut().zip(KS) {
            let mut names: Vec<&String> =
                order.iter().take(k).flat_map(|c| &row.candidates[*c].answers).collect();
            names.sort_unstable();
            names.dedup();
            *slot += names.len();
        }
    }
    found.map(|found| found as f64 / golden.max(1) as f64)
}

/// The mean over pools, each alike.
pub fn mean(recalls: &[[f64; 5]]) -> [f64; 5] {
    let mut mean = [0.0; 5];
    for recall in recalls {
        mean.iter_mut().zip(recall).for_each(|(mean, value)| *mean += value / recalls.len() as f64);
    }
    mean
}

/// The lines as a Markdown table.
pub fn markdown(lines: &[Line]) -> String {
    let mut text =
        String::from("| pool | signals | @1 | @2 | @3 | @5 | @10 |\n|---|---|---|---|---|---|---|\n");
    for line in lines {
        let cells: Vec<String> = line.recall.iter().map(|value| format!("{value:.3}")).collect();
        text.push_str(&format!("| {} | {} | {} |\n", line.pool, line.signals, cells.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranker::rows::RowCandidate;

    #[test]
    fn recall_is_by_name_over_all_golden_names() {
        let candidate = |name: &str, answers: &[&str], words: f32| RowCandidate {
            name: name.into(),
            answers: answers.iter().map(|name| (*name).to_owned()).collect(),
            values: vec![words, 0.0, 0.0, 0.0, 0.0],
        };
        let rows = [Row {
            query: "q".into(),
            gold: vec!["a".into(), "b".into(), "missing".into()],
            candidates: vec![
                candidate("x", &[], 1.0),
                candidate("a", &["a"], 3.0),
                candidate("a2", &["a"], 2.0),
                candidate("b", &["b"], 0.5),
            ],
        }];
        let third = 1.0 / 3.0;
        assert_eq!(
            recall(&rows, &[1.0, 0.0, 0.0, 0.0, 0.0]),
            [third, third, third, 2.0 * third, 2.0 * third]
        );
        // With no weight the order stays.
        assert_eq!(recall(&rows, &[0.0; 5])[0], 0.0);
    }
}
