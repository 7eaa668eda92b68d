//! Asking again with a draft (`--refine`): what a completion without APIs tries to call says in other words than the comment what is
//! needed. The words of those calls are a second query, fused with the first (after De-Hallucinator, arXiv 2401.01701, which retrieves
//! by the code that a model wrote without knowing the project).

use inhouse_core::Result;
use inhouse_core::index::{Hit, Query};
use inhouse_core::prompt::{query_from_context, query_from_draft};

use crate::engine::Engine;
use crate::session::{ApiChoice, CompletionRequest};

/// New tokens of a draft: a statement or two say what is tried.
const DRAFT_TOKENS: usize = 64;
/// What the second query's score counts beside the first one's.
const SECOND: f32 = 0.2;
/// Names of each query that are fused.
const DEPTH: usize = 50;

impl CompletionRequest {
    /// The request for a draft of this one: greedy, short, with no API in front of it. What comes out goes to [`Engine::refined`].
    pub fn draft(&self) -> Self {
        let mut draft = self.clone();
        (draft.apis, draft.examples, draft.n) = (ApiChoice::None, 0, 1);
        (draft.constrain, draft.log_probabilities, draft.greedy_first) = (false, false, false);
        draft.params.temperature = 0.0;
        draft.max_tokens = self.max_tokens.min(DRAFT_TOKENS);
        draft
    }
}

impl Engine {
    /// The APIs of a request for [`ApiChoice::Top`], found by its query and by what `draft` tries to call; the choice of any other request
    /// as it is.
    ///
    /// # Errors
    /// No index is open, or it cannot be read.
    pub fn refined(&self, request: &CompletionRequest, draft: &str) -> Result<ApiChoice> {
        let ApiChoice::Top(n) = &request.apis else { return Ok(request.apis.clone()) };
        let first = match &request.query {
            Some(query) => query.clone(),
            None => query_from_context(&request.context),
        };
        let second = query_from_draft(&request.context, draft);
        let hits = self.retrieve_refined(&first, &second, *n)?;
        Ok(ApiChoice::Given(hits.into_iter().map(|hit| hit.api).collect()))
    }

    /// The `k` APIs that fit `query` best, what fits the words of a draft lifted. Without such words they are those of the query.
    ///
    /// # Errors
    /// As [`Engine::retrieve`].
    pub fn retrieve_refined(&self, query: &str, draft: &str, k: usize) -> Result<Vec<Hit>> {
        if draft.is_empty() {
            return self.retrieve(&Query::from(query), k);
        }
        let depth = DEPTH.max(k);
        let first = self.retrieve(&Query::from(query), depth)?;
        let second = self.retrieve(&Query::from(draft), depth)?;
        Ok(fused(first, second, depth, k))
    }
}

/// The sum of both scores, the second's weighed; what is not among the `depth` that a query found has the score of its last.
fn fused(first: Vec<Hit>, second: Vec<Hit>, depth: usize, k: usize) -> Vec<Hit> {
    // A list that is not full has all that shares a word with its query.
    let last = |hits: &[Hit]| match hits.last() {
        Some(hit) if hits.len() < depth => hit.score.min(0.0),
        Some(hit) => hit.score,
        None => 0.0,
    };
    let (last_first, last_second) = (last(&first), last(&second));
    let score_of = |hits: &[Hit], name: &str, last: f32| {
        hits.iter().find(|hit| hit.api.name == name).map_or(last, |hit| hit.score)
    };
    let further: Vec<Hit> = second
        .iter()
        .filter(|hit| first.iter().all(|known| known.api.name != hit.api.name))
        .cloned()
        .collect();
    let mut all: Vec<Hit> = first.iter().cloned().chain(further).collect();
    for hit in &mut all {
        hit.score = score_of(&first, &hit.api.name, last_first)
            + SECOND * score_of(&second, &hit.api.name, last_second);
    }
    // Stable: equal ones stay in the order of the first query.
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(k);
    (1..).zip(&mut all).for_each(|(rank, hit)| hit.rank = rank);
    all
}
