//! Many requests over one session: what each gives is what it gives alone, whatever runs beside it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use inhouse::{
    CancelToken, CompletionClient, CompletionRequest, CompletionResult, Engine, EngineOptions, ErrorKind,
    Event, FinishReason, Result, Session,
};

fn session(model: PathBuf, sequences: usize) -> Session {
    let options = EngineOptions { model: Some(model), threads: Some(1), ..EngineOptions::default() };
    Engine::open(&options).unwrap().session(sequences).unwrap()
}

/// Requests of different sizes, contexts that begin alike among them.
fn requests(longest: usize, max_tokens: usize) -> Vec<CompletionRequest> {
    (0..10)
        .map(|i| {
            let context = format!(
                "# {}\nimport gaugewren as gw\nlog{i} = ",
                "read ".repeat(1 + (i % 3) * longest / 10)
            );
            CompletionRequest {
                n: [1, 5, 2][i % 3],
                seed: i as u64,
                max_tokens: 1 + max_tokens * (i % 4 + 1) / 4,
                ..CompletionRequest::new(context)
            }
        })
        .collect()
}

#[derive(Default)]
struct Client {
    requests: Vec<CompletionRequest>,
    n_taken: usize,
    n_events: usize,
    cancel_at: Option<(usize, CancelToken)>,
    done: BTreeMap<usize, Result<CompletionResult>>,
}

impl CompletionClient for Client {
    fn next(&mut self) -> Result<Option<CompletionRequest>> {
        let request = self.requests.get(self.n_taken).cloned();
        self.n_taken += usize::from(request.is_some());
        Ok(request)
    }

    fn event(&mut self, _request: usize, _event: Event<'_>) -> ControlFlow<()> {
        self.n_events += 1;
        if let Some((_, cancel)) = self.cancel_at.as_ref().filter(|(at, _)| *at == self.n_events) {
            cancel.cancel();
        }
        ControlFlow::Continue(())
    }

    fn done(&mut self, request: usize, outcome: Result<CompletionResult>) -> Result<()> {
        assert!(self.done.insert(request, outcome).is_none());
        Ok(())
    }
}

fn models() -> [(PathBuf, usize, usize); 3] {
    let root = inhouse_tests::repository();
    [
        (inhouse_tests::shipped_coder(), 150, 24),
        (root.join("tests/fixtures/codegen"), 20, 12),
        // Its encoder reads one prompt after another.
        (root.join("tests/fixtures/t5"), 8, 8),
    ]
}

#[test]
fn a_stream_gives_what_its_requests_give_alone() {
    for (model, longest, max_tokens) in models() {
        let mut client = Client { requests: requests(longest, max_tokens), ..Client::default() };
        // Refused, and nothing to the others.
        client.requests[4].max_tokens = 0;
        let cancel = CancelToken::new();
        session(model.clone(), 6).complete_all(&mut client, &cancel).unwrap();
        let mut alone = session(model.clone(), 2);
        let (mut n, mut equal) = (0, 0);
        for (i, request) in client.requests.iter().enumerate() {
            let outcome = client.done.remove(&i).unwrap();
            if i == 4 {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::InvalidArgument);
                continue;
            }
            let result = outcome.unwrap();
            let expected = alone.complete(request, &cancel, &mut |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((&result.prompt, result.completions.len()), (&expected.prompt, request.n));
            n += request.n;
            let pairs = result.completions.iter().zip(&expected.completions);
            equal += pairs.filter(|(a, b)| a == b).count();
        }
        // Logits differ in the last bits with the shape of a batch: a rare draw may fall into the difference.
        assert!(equal + 1 >= n, "{}: {equal} of {n} samples equal", model.display());
    }
}

#[test]
fn a_cancelled_stream_takes_no_more_requests() {
    let (model, longest, _) = models()[0].clone();
    let cancel = CancelToken::new();
    let mut requests = requests(longest, 24);
    requests.extend(requests.clone());
    let mut client = Client { requests, cancel_at: Some((60, cancel.clone())), ..Client::default() };
    let mut session = session(model, 3);
    session.complete_all(&mut client, &cancel).unwrap();
    assert!(client.n_taken < 20 && client.done.len() == client.n_taken, "{} taken", client.n_taken);
    let reasons: Vec<FinishReason> = client
        .done
        .values()
        .flatten()
        .flat_map(|result| result.completions.iter().map(|completion| completion.finish_reason))
        .collect();
    assert!(reasons.contains(&FinishReason::Cancelled) && reasons.contains(&FinishReason::Length));
    // The session goes on.
    cancel.reset();
    let result = session.complete(&client.requests[0], &cancel, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_ne!(result.completions[0].finish_reason, FinishReason::Cancelled);
}
