//! The setting `human`, live: what a person is asked so that the choices can be recorded.

use inhouse::{Error, ErrorKind, Hit, Query, Result};
use inhouse_core::prompt;

use super::config::{Config, lacks};
use super::sets::Set;

/// One question to a person: which of these APIs does the problem need?
#[derive(Debug, Clone)]
pub struct Question {
    /// The problem.
    pub task_id: String,
    /// Its code, without APIs.
    pub code: String,
    /// What the retriever was asked.
    pub query: String,
    /// The best of what it found (Figure 4 of arXiv 2210.17236: five).
    pub hits: Vec<Hit>,
}

/// The questions of a problem set, in its order; `k` APIs each.
///
/// # Errors
/// There is no such set, it has no index, or a file cannot be read.
pub fn questions(config: &Config, set: &str, k: usize) -> Result<Vec<Question>> {
    let found = config.problems.iter().find(|found| found.name == set).ok_or_else(|| {
        let names: Vec<&str> = config.problems.iter().map(|set| set.name.as_str()).collect();
        let message = format!("no problem set `{set}` (there is: {})", names.join(", "));
        Error::new(ErrorKind::NotFound, message)
    })?;
    // What was chosen before is not needed to choose.
    let set = Set::read(&super::ProblemSet { human: None, ..found.clone() })?;
    let Some(index) = &set.config.index else {
        return Err(lacks(&set.config.name, "human", "nothing to choose from; name an `index`"));
    };
    let index = inhouse::open_index(index, &config.encoder())?;
    let asked = set.queries().into_iter().zip(&set.problems);
    asked
        .map(|(query, problem)| {
            let hits = match query.query.trim() {
                "" => Vec::new(),
                text => index.search(&Query::from(text), k)?,
            };
            let code = prompt::split(&problem.prompt).1.to_owned();
            Ok(Question { task_id: query.task_id, code, query: query.query, hits })
        })
        .collect()
}
