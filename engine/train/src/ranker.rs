//! The trainer of the weights by which an index with usage orders its hits (`models/inhouse-ranker`).
//!
//! Pinned public packages outside of the retriever's training list are indexed with the usage in their tests and examples. Questions are
//! comments and docstrings over calls of them, in code that is not that usage; the names called are the answers. So nothing that is
//! counted is asked, and nothing of a benchmark is read.
//!
//! Reading order: [`config`] -> `queries` (the questions) -> [`rows`] (the signals of the candidates, kept as files) -> `fit` (weights and
//! the probability) -> [`report`] (recall, each signal alone and left out).

pub mod config;
mod fit;
mod queries;
pub mod report;
pub mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use inhouse_core::encode::TextEncoder;
use inhouse_core::index::Signal;
use inhouse_core::{Progress, Result, bert, files};
use serde::Serialize;

pub use config::{Config, PoolConfig};
use fit::Example;
use report::{Line, Weights, name_of};
use rows::{Rows, SIGNALS};

use crate::journal::write_json;
use crate::sources::{SourceList, fetch};

/// Hits of a question whose confidence is calibrated: so many are shown.
const SHOWN: usize = 5;
/// Questions from which on a package has a recall of its own in a mean.
const MIN_QUESTIONS: usize = 10;

/// `ranker.json`, as the index reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranker {
    /// Of the format.
    pub version: u32,
    /// By signal; 0 for those that were not chosen.
    pub weights: BTreeMap<Signal, f64>,
    /// From a score to a probability.
    pub confidence: Logistic,
}

/// A logistic curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Logistic {
    /// Factor of the score.
    pub slope: f64,
    /// What is added.
    pub offset: f64,
}

/// Of each pool, per tenth of confidence: hits, and how many of them were right.
pub type Calibration = Vec<(String, Vec<(usize, usize)>)>;

/// What a run learned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What an index is to use.
    pub ranker: Ranker,
    /// Questions of each package, by its name.
    pub questions: BTreeMap<String, usize>,
    /// Recall.
    pub lines: Vec<Line>,
    /// Per pool that was measured on alone, and per tenth of confidence: the hits that are shown, and how many of them were right.
    pub calibration: Calibration,
}

/// Learns the weights; writes `ranker.json`, `report.md` and `report.json` to the folder of the run.
///
/// # Errors
/// A package cannot be fetched or read, the encoder cannot be loaded, a file cannot be written; whoever watches ends the work.
pub fn run(config: &Config, progress: &dyn Progress) -> Result<Outcome> {
    let list = SourceList::read(&config.sources)?;
    for name in config.learn.iter().chain(&config.evaluate) {
        if !list.package.iter().any(|package| package.name == *name) {
            let what = format!("has no package `{name}`, which the configuration names");
            return Err(inhouse_core::Error::data(&config.sources, what));
        }
    }
    rows::make_folder(&config.out)?;
    fetch(&list, &config.wheels, &config.python, progress)?;
    let encoder = bert::load_encoder(&config.encoder)?;
    let libraries = queries::libraries(&list, config, progress)?;
    let n_pools = libraries.len() + config.calibrate.len() + config.pool.len();
    progress.start("asking", Some(n_pools as u64));
    let (mut learn, mut evaluate, mut questions) = (Vec::new(), Vec::new(), BTreeMap::new());
    for library in &libraries {
        progress.check()?;
        questions.insert(library.name.clone(), library.questions.len());
        let made = rows::of_library(library, config, &encoder, &inhouse_core::progress::Silent)?;
        match config.learn.contains(&library.name) {
            true => learn.extend(made),
            // With all usage there is: that is what an index would have.
            false => evaluate.extend(made.into_iter().max_by(|a, b| a.share.total_cmp(&b.share))),
        }
        progress.advance(1);
    }
    let calibrate = pools(&config.calibrate, config, &encoder, progress)?;
    let pools = pools(&config.pool, config, &encoder, progress)?;
    progress.finish();
    let (ranker, lines, calibration) = learned(config, &learn, &evaluate, &calibrate, &pools);
    let outcome = Outcome { ranker, questions, lines, calibration };
    write_json(&config.out.join("ranker.json"), &outcome.ranker)?;
    write_json(&config.out.join("report.json"), &outcome)?;
    let text = markdown(config, &outcome);
    files::write_atomic(&config.out.join("report.md"), |out| out.write_all(text.as_bytes()))?;
    Ok(outcome)
}

fn pools(
    pools: &[PoolConfig],
    config: &Config,
    encoder: &Arc<dyn TextEncoder>,
    progress: &dyn Progress,
) -> Result<Vec<Rows>> {
    let mut found = Vec::new();
    for pool in pools {
        progress.check()?;
        found.push(rows::of_pool(pool, config, encoder)?);
        progress.advance(1);
    }
    Ok(found)
}

/// The numbers of signals in [`SIGNALS`].
fn numbers(signals: &[Signal]) -> Vec<usize> {
    (0..SIGNALS.len()).filter(|i| signals.contains(&SIGNALS[*i])).collect()
}

fn fitted(config: &Config, packages: &[&[Example<'_>]], chosen: &[usize]) -> Weights {
    let found = fit::weights(packages, chosen, config.enough_queries, config.ridge);
    let mut weights = [0.0; SIGNALS.len()];
    chosen.iter().zip(found).for_each(|(i, weight)| weights[*i] = weight);
    weights
}

/// The sets of signals that are compared: those chosen, without each of them, and words and meaning with each.
fn sets(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (found, all) = (numbers(&[Signal::Words, Signal::Meaning]), numbers(&config.signals));
    let mut sets = vec![("all that were chosen".to_owned(), all.clone())];
    for i in all.iter().filter(|_| all.len() > 1) {
        let rest = all.iter().copied().filter(|other| other != i).collect();
        sets.push((format!("without {}", name_of(SIGNALS[*i])), rest));
    }
    for (i, signal) in SIGNALS.into_iter().enumerate() {
        sets.push((format!("{} alone", name_of(signal)), vec![i]));
    }
    sets.push(("words and meaning".to_owned(), found.clone()));
    for i in (0..SIGNALS.len()).filter(|i| !found.contains(i)) {
        let set = found.iter().copied().chain([i]).collect();
        sets.push((format!("words, meaning and {}", name_of(SIGNALS[i])), set));
    }
    sets
}

/// The weights, recall, and the calibration.
fn learned(
    config: &Config,
    learn: &[Rows],
    evaluate: &[Rows],
    calibrate: &[Rows],
    pools: &[Rows],
) -> (Ranker, Vec<Line>, Calibration) {
    let examples: Vec<Vec<Example<'_>>> = learn.iter().map(|pool| fit::examples(&pool.rows)).collect();
    let mut names: Vec<&str> = learn.iter().map(|pool| pool.name.as_str()).collect();
    names.dedup();
    // All rows of a package are in one fold.
    let fold = |name: &str| names.iter().position(|known| *known == name).unwrap_or(0) % config.folds;
    let most = config.usage_shares.iter().copied().fold(0.0, f64::max);
    let mut lines = Vec::new();
    let mut line = |pool: &str, signals: &str, recall| {
        lines.push(Line { pool: pool.to_owned(), signals: signals.to_owned(), recall });
    };
    let fused: Weights = [0.25, 0.75, 0.0, 0.0, 0.0];
    let measured: Vec<&Rows> =
        learn.iter().filter(|pool| pool.share == most && pool.rows.len() >= MIN_QUESTIONS).collect();
    let means = |weights: &dyn Fn(&Rows) -> Weights, pools: &[&Rows]| {
        let recalls: Vec<[f64; 5]> =
            pools.iter().map(|pool| report::recall(&pool.rows, &weights(pool))).collect();
        report::mean(&recalls)
    };
    let held: Vec<&Rows> = evaluate.iter().filter(|pool| pool.rows.len() >= MIN_QUESTIONS).collect();
    line("learned from, cross-validated", "as fused, without usage", means(&|_| fused, &measured));
    line("held out, mean", "as fused, without usage", means(&|_| fused, &held));
    for pool in evaluate.iter().chain(pools) {
        line(&pool.name, "as fused, without usage", report::recall(&pool.rows, &fused));
    }
    let mut weights = fused;
    let mut scored: Vec<(f64, bool)> = Vec::new();
    for (i, (title, chosen)) in sets(config).into_iter().enumerate() {
        let of_fold: Vec<Weights> = (0..config.folds)
            .map(|held| {
                let others = learn.iter().zip(&examples).filter(|(pool, _)| fold(&pool.name) != held);
                let others: Vec<&[Example<'_>]> = others.map(|(_, examples)| examples.as_slice()).collect();
                fitted(config, &others, &chosen)
            })
            .collect();
        let all: Vec<&[Example<'_>]> = examples.iter().map(Vec::as_slice).collect();
        let of_all = fitted(config, &all, &chosen);
        line("learned from, cross-validated", &title, means(&|pool| of_fold[fold(&pool.name)], &measured));
        line("held out, mean", &title, means(&|_| of_all, &held));
        for pool in evaluate.iter().chain(pools) {
            line(&pool.name, &title, report::recall(&pool.rows, &of_all));
        }
        if i == 0 {
            weights = of_all;
            // What the weights were not learned from says how far they may be trusted.
            for pool in learn {
                scored.extend(shown(pool, &of_fold[fold(&pool.name)]));
            }
        }
    }
    if !calibrate.is_empty() {
        scored = calibrate.iter().flat_map(|pool| shown(pool, &weights)).collect();
    }
    let (slope, offset) = fit::logistic(&scored);
    let tenths = |pool: &Rows| {
        let mut tenths = vec![(0, 0); 10];
        for (score, right) in shown(pool, &weights) {
            let tenth = (10.0 / (1.0 + (-(slope * score + offset)).exp())) as usize;
            let slot = &mut tenths[tenth.min(9)];
            slot.0 += 1;
            slot.1 += usize::from(right);
        }
        (pool.name.clone(), tenths)
    };
    let calibration = calibrate.iter().chain(evaluate).chain(pools).map(tenths).collect();
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    let ranker = Ranker {
        version: 1,
        weights: SIGNALS.into_iter().zip(weights.map(rounded)).collect(),
        confidence: Logistic { slope: rounded(slope), offset: rounded(offset) },
    };
    lines.sort_by_key(|line| pool_order(line, evaluate, pools));
    (ranker, lines, calibration)
}

fn pool_order(line: &Line, evaluate: &[Rows], pools: &[Rows]) -> usize {
    match line.pool.as_str() {
        "learned from, cross-validated" => 0,
        "held out, mean" => 1,
        name => 2 + evaluate.iter().chain(pools).position(|pool| pool.name == name).unwrap_or(0),
    }
}

/// The hits that are shown of each question: their scores, and whether they are right.
fn shown(pool: &Rows, weights: &Weights) -> Vec<(f64, bool)> {
    let of_row = |row: &rows::Row| -> Vec<(f64, bool)> {
        let first = report::order(row, weights).into_iter().take(SHOWN);
        let known = first.map(|c| &row.candidates[c]);
        known.map(|c| (report::score(&c.values, weights), !c.answers.is_empty())).collect()
    };
    pool.rows.iter().flat_map(of_row).collect()
}

fn markdown(config: &Config, outcome: &Outcome) -> String {
    let mut text = String::from("# Weights\n\n| signal | weight |\n|---|---|\n");
    for (signal, weight) in &outcome.ranker.weights {
        text.push_str(&format!("| {} | {weight} |\n", name_of(*signal)));
    }
    let Logistic { slope, offset } = outcome.ranker.confidence;
    text.push_str(&format!(
        "\nConfidence: 1 / (1 + exp(-({slope} score + {offset}))). Seed {}, ",
        config.seed
    ));
    text.push_str(&format!("ridge {}, usage shares {:?}.\n\n", config.ridge, config.usage_shares));
    text.push_str(
        "The first five hits by confidence:\n\n| pool | confidence | hits | right |\n|---|---|---|---|\n",
    );
    for (pool, tenths) in &outcome.calibration {
        for (i, (hits, right)) in tenths.iter().enumerate().filter(|(_, (hits, _))| *hits > 0) {
            let (from, to) = (i as f64 / 10.0, (i + 1) as f64 / 10.0);
            let right = *right as f64 / *hits as f64;
            text.push_str(&format!("| {pool} | {from:.1} to {to:.1} | {hits} | {right:.3} |\n"));
        }
    }
    let questions: Vec<String> = outcome.questions.iter().map(|(name, n)| format!("{name} {n}")).collect();
    text.push_str(&format!("\nQuestions: {}.\n\n", questions.join(", ")));
    text.push_str("# Recall by name\n\nWeights are learned anew for each set of signals. Means are over packages with at least ");
    text.push_str(&format!("{MIN_QUESTIONS} questions, each alike.\n\n{}", report::markdown(&outcome.lines)));
    text
}
