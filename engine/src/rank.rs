//! Candidates for one completion, the best first: by how probable the model finds them, and by what they do with the APIs.

use inhouse_core::constrain::{self, ApiReport, Library};
use inhouse_core::decode::{Completion, FinishReason};
use inhouse_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::engine::Engine;

/// Against every use of a member that does not exist and every call that cannot succeed, in the unit of a mean log-probability.
const AGAINST_WRONG: f64 = 1.0;
/// Such uses that are counted.
const MOST_WRONG: usize = 3;
/// Against code that is no Python.
const AGAINST_UNPARSED: f64 = 2.0;
/// For code that uses an API of the index as it can be.
const FOR_INDEXED: f64 = 0.5;
/// What stands for the mean log-probability of a completion without code.
const OF_NOTHING: f64 = -10.0;

/// A completion among others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Ranked {
    /// It.
    #[serde(skip)]
    pub completion: Completion,
    /// Its rank's reason: the mean log-probability, and what the report counts for and against it.
    pub score: f64,
    /// Of its tokens, as the model gives them.
    pub mean_log_probability: f64,
    /// What it does with the APIs of the index; without an index, whether it is Python.
    pub report: ApiReport,
}

impl Engine {
    /// The completions of `context`, the best first; the earlier of equals. Their log-probabilities are needed
    /// ([`CompletionRequest::log_probabilities`](crate::CompletionRequest::log_probabilities)).
    ///
    /// # Errors
    /// A completion without log-probabilities, or an index that cannot be read.
    pub fn rank(&self, context: &str, completions: Vec<Completion>) -> Result<Vec<Ranked>> {
        let none = Library::new(&[]);
        let library = match self.index() {
            Ok(_) => Some(self.library()?),
            Err(_) => None,
        };
        let library = library.as_deref().unwrap_or(&none);
        let judge = |completion| judged(library, context, completion);
        let mut ranked = completions.into_iter().map(judge).collect::<Result<Vec<_>>>()?;
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(ranked)
    }
}

fn judged(library: &Library, context: &str, completion: Completion) -> Result<Ranked> {
    let Some(values) = &completion.log_probabilities else {
        let message = "completions are ranked by their log-probabilities, and these were not asked for";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    };
    let sum: f64 = values.iter().copied().map(f64::from).sum();
    let empty = completion.text.trim().is_empty() || values.is_empty();
    let mean_log_probability = if empty { OF_NOTHING } else { sum / values.len() as f64 };
    let report = constrain::report(library, context, whole_lines(&completion));
    let wrong = (report.unknown + report.misused).min(MOST_WRONG);
    let mut score = mean_log_probability - AGAINST_WRONG * wrong as f64;
    score += if report.indexed > 0 { FOR_INDEXED } else { 0.0 };
    score -= if report.parses { 0.0 } else { AGAINST_UNPARSED };
    Ok(Ranked { completion, score, mean_log_probability, report })
}

/// What can be Python of a completion: one that ran out of tokens ends within a line.
fn whole_lines(completion: &Completion) -> &str {
    let text = completion.text.as_str();
    match (completion.finish_reason, text.rfind('\n')) {
        (FinishReason::Stop | FinishReason::EndOfText, _) | (_, None) => text,
        (_, Some(at)) => &text[..at + 1],
    }
}

#[cfg(test)]
mod tests {
    use inhouse_core::ApiDoc;
    use inhouse_core::api::ApiKind;

    use super::*;

    fn completion(text: &str, values: &[f32], finish_reason: FinishReason) -> Completion {
        Completion {
            index: 0,
            text: text.into(),
            finish_reason,
            completion_tokens: values.len(),
            log_probabilities: Some(values.to_vec()),
        }
    }

    #[test]
    fn what_exists_counts_for_a_candidate_and_what_does_not_against_it() {
        let api = |full: &str, kind| ApiDoc {
            name: full.rsplit('.').next().unwrap().into(),
            qualified_name: full.into(),
            module: "kiln".into(),
            kind: Some(kind),
            signature: "(clay, heat=1)".into(),
            ..ApiDoc::default()
        };
        let library = Library::new(&[api("kiln", ApiKind::Module), api("kiln.bake", ApiKind::Function)]);
        let scored = |text: &str, values: &[f32], reason| {
            judged(&library, "import kiln\npot =", completion(text, values, reason)).unwrap().score
        };
        // text, probabilities, why it ended, and the score
        let cases: [(&str, &[f32], FinishReason, f64); 7] = [
            (" kiln.bake(3)", &[-0.5, -1.5], FinishReason::Stop, -0.5),
            (" kiln.fire(3)", &[-0.5, -0.5], FinishReason::Stop, -1.5),
            (" kiln.bake(3, glow=2)", &[-0.5], FinishReason::Stop, -1.5),
            (" kiln.bake(3", &[-0.25], FinishReason::Stop, -1.75),
            // What ran out of tokens is judged by its whole lines.
            (" kiln.bake(3)\nlid = kiln.bake((", &[-0.5], FinishReason::Length, 0.0),
            (" 3", &[-0.5], FinishReason::EndOfText, -0.5),
            ("  \n", &[-0.1], FinishReason::EndOfText, -12.0),
        ];
        for (text, values, reason, expected) in cases {
            let found = scored(text, values, reason);
            assert!((found - expected).abs() < 1e-6, "{text:?}: {found}, not {expected}");
        }
        let bare = Completion { log_probabilities: None, ..completion("x", &[], FinishReason::Stop) };
        assert!(judged(&library, "", bare).unwrap_err().to_string().contains("log-probabilities"));
    }

    #[test]
    fn the_best_is_first_and_without_an_index_it_is_the_most_probable_python() {
        let engine = Engine::open(&crate::EngineOptions::default()).unwrap();
        let candidates = vec![
            completion(" (", &[-0.1], FinishReason::Stop),
            completion(" 1", &[-0.9], FinishReason::Stop),
            completion(" 2", &[-0.4], FinishReason::Stop),
        ];
        let ranked = engine.rank("x =", candidates).unwrap();
        let texts: Vec<&str> = ranked.iter().map(|ranked| ranked.completion.text.as_str()).collect();
        assert_eq!(texts, [" 2", " 1", " ("]);
    }
}
