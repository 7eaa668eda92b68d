//! Many requests over one decoder.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::toy::{ToyDecoder, ToyTokenizer};
use super::*;
use crate::decode::{SamplingParams, StopRules, TokenId};

fn letters() -> ToyTokenizer {
    ToyTokenizer::new(&["a", "b", "c", "d", "\n", "é", " ", "def", "\nd", "x"])
}

fn request(prompt: Vec<TokenId>, n: usize, max_tokens: usize, seed: u64) -> Request {
    Request {
        prompt,
        n,
        params: SamplingParams { temperature: 1.0, top_p: 0.95, ..SamplingParams::default() },
        seed,
        max_tokens,
        stops: StopRules::none(),
        ends: Vec::new(),
        silent: Vec::new(),
        log_probabilities: false,
        constraint: None,
        healed: 0,
        greedy_first: false,
    }
}

/// A text of `len` tokens; those of one `family` begin alike.
fn prompt(family: usize, shared: usize, len: usize) -> Vec<TokenId> {
    (0..len)
        .map(|i| {
            let salt = if i < shared { family } else { family * 31 + len };
            ((i * 7 + salt * (i % 7 + 1) + salt / 10) % 10) as TokenId
        })
        .collect()
}

/// Keeps what becomes of its requests.
#[derive(Default)]
struct Keeper {
    requests: Vec<Request>,
    n_taken: usize,
    done: BTreeMap<usize, Result<Generation>>,
    texts: BTreeMap<(usize, usize), String>,
    n_events: usize,
    break_at: Option<usize>,
    cancel_at: Option<(usize, CancelToken)>,
    /// Most requests that were under way at once.
    peak: usize,
}

impl Client for Keeper {
    fn next(&mut self) -> Result<Option<Request>> {
        let request = self.requests.get(self.n_taken).cloned();
        self.n_taken += usize::from(request.is_some());
        self.peak = self.peak.max(self.n_taken - self.done.len());
        Ok(request)
    }

    fn event(&mut self, request: usize, event: Event<'_>) -> ControlFlow<()> {
        assert!(request < self.n_taken && !self.done.contains_key(&request));
        self.n_events += 1;
        match event {
            Event::Text { index, text } => {
                self.texts.entry((request, index)).or_default().push_str(text);
            }
            Event::Finished(completion) => {
                let text = self.texts.entry((request, completion.index)).or_default();
                assert_eq!(*text, completion.text);
            }
        }
        if let Some((_, cancel)) = self.cancel_at.as_ref().filter(|(at, _)| *at == self.n_events) {
            cancel.cancel();
        }
        match self.break_at {
            Some(at) if at == self.n_events => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn done(&mut self, request: usize, outcome: Result<Generation>) -> Result<()> {
        assert!(self.done.insert(request, outcome).is_none(), "request {request} ended twice");
        Ok(())
    }
}

impl Keeper {
    fn of(requests: &[Request]) -> Self {
        Self { requests: requests.to_vec(), ..Self::default() }
    }

    fn serve(&mut self, decoder: &mut ToyDecoder, tokenizer: &ToyTokenizer) -> Option<FinishReason> {
        let cancel = self.cancel_at.as_ref().map_or_else(CancelToken::new, |(_, cancel)| cancel.clone());
        let ended = serve(decoder, None, tokenizer, self, &cancel).unwrap();
        assert!(decoder.sequences.iter().all(Vec::is_empty));
        ended
    }

    fn completions(&self) -> Vec<Vec<Completion>> {
        self.done.values().map(|outcome| outcome.as_ref().unwrap().completions.clone()).collect()
    }
}

/// What each request gives by itself.
fn alone(tokenizer: &ToyTokenizer, requests: &[Request], end_logit: f32) -> Vec<Vec<Completion>> {
    requests
        .iter()
        .map(|request| {
            let mut decoder = ToyDecoder::new(tokenizer, 1);
            decoder.end_logit = end_logit;
            let none = &mut |_: Event<'_>| ControlFlow::Continue(());
            generate(&mut decoder, tokenizer, request, &CancelToken::new(), none).unwrap().completions
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever is served beside a request, over however many sequences and cells, its samples are those it has alone.
    #[test]
    fn samples_do_not_depend_on_what_else_is_served(
        sizes in proptest::collection::vec((0usize..3, 1usize..400, 1usize..7, 1usize..30), 1..12),
        n_seq in 1usize..9,
        spare in prop_oneof![Just(usize::MAX), 0usize..400],
        cached in 0usize..2,
    ) {
        let tokenizer = letters();
        let requests: Vec<Request> = sizes
            .iter()
            .enumerate()
            .map(|(i, &(family, len, n, max))| request(prompt(family, 60, len), n, max, i as u64))
            .collect();
        let expected = alone(&tokenizer, &requests, 1.5);
        let mut decoder = ToyDecoder::new(&tokenizer, n_seq + cached);
        decoder.end_logit = 1.5;
        // Room for the largest at least.
        let largest = sizes.iter().map(|&(_, len, _, max)| len + max).max().unwrap_or(0);
        decoder.cells = largest.saturating_add(spare);
        let mut cache = PrefixCache::new(cached, n_seq + cached, 300);
        let mut keeper = Keeper::of(&requests);
        let ended = serve(&mut decoder, Some(&mut cache), &tokenizer, &mut keeper, &CancelToken::new()).unwrap();
        prop_assert_eq!(ended, None);
        prop_assert_eq!(keeper.completions(), expected);
        // Pulled as they were needed: never more than there are sequences, and one that waits.
        prop_assert!(keeper.peak <= n_seq + 1, "{} requests over {} sequences", keeper.peak, n_seq);
    }
}

#[test]
fn a_sequence_that_is_done_goes_to_the_next_request() {
    let tokenizer = letters();
    // One sample each, of quite different lengths: one after another they take the sum of tokens in passes.
    let requests: Vec<Request> =
        (0..40).map(|i| request(prompt(i, 0, 10), 1, 1 + (i * 7) % 50, i as u64)).collect();
    let mut decoder = ToyDecoder::new(&tokenizer, 8);
    let mut keeper = Keeper::of(&requests);
    keeper.serve(&mut decoder, &tokenizer);
    let tokens: usize = requests.iter().map(|request| request.max_tokens).sum();
    assert_eq!(decoder.n_fed, tokens - 40 + 40 * 10);
    assert!(decoder.peak_sequences == 8 && decoder.n_passes < tokens / 6, "{} passes", decoder.n_passes);

    // The last samples of a request and the first of the next run side by side.
    let requests = [request(prompt(1, 0, 9), 9, 20, 1), request(prompt(2, 0, 9), 9, 20, 2)];
    let mut decoder = ToyDecoder::new(&tokenizer, 4);
    Keeper::of(&requests).serve(&mut decoder, &tokenizer);
    // 18 samples of 19 passes over 4 sequences, and two prompts.
    assert!(decoder.n_passes <= (18 * 19_usize).div_ceil(4) + 2 + 19, "{} passes", decoder.n_passes);
}

#[test]
fn a_prompt_is_read_in_pieces_beside_the_others_tokens() {
    let tokenizer = letters();
    let requests = [request(prompt(1, 0, 5), 3, 40, 1), request(prompt(2, 0, 1000), 3, 10, 2)];
    let mut decoder = ToyDecoder::new(&tokenizer, 5);
    let mut keeper = Keeper::of(&requests);
    keeper.serve(&mut decoder, &tokenizer);
    assert_eq!(decoder.n_fed, 5 + 3 * 39 + 1000 + 3 * 9);
    // The short ones never wait for more than a piece.
    assert!(decoder.most_fed <= 128 + 3, "{} tokens in a pass", decoder.most_fed);
    // The first prompt's pass, and 39 passes within which the second prompt is read and its samples decoded.
    assert_eq!(decoder.n_passes, 1 + 39);
}

#[test]
fn prompts_that_begin_alike_share_their_beginning() {
    let tokenizer = letters();
    for (n_seq, n) in [(1, 1), (4, 1), (4, 6), (16, 2)] {
        let requests: Vec<Request> =
            (0..6).map(|i| request(prompt(3, 200, 210 + 10 * i), n, 8, i as u64)).collect();
        let mut decoder = ToyDecoder::new(&tokenizer, n_seq);
        let mut keeper = Keeper::of(&requests);
        keeper.serve(&mut decoder, &tokenizer);
        let own: usize = (0..6).map(|i| 10 + 10 * i).sum();
        assert_eq!(decoder.n_fed, 200 + own + 6 * n * 7, "{n_seq} sequences, {n} samples");
        for (i, outcome) in keeper.done {
            assert_eq!(outcome.unwrap().prompt_tokens_shared, if i == 0 { 0 } else { 200 });
        }
    }
}

#[test]
fn samples_wait_for_cells_without_reading_prompts_again_and_again() {
    let tokenizer = letters();
    let requests: Vec<Request> = (0..30).map(|i| request(prompt(i, 0, 100), 1, 50, i as u64)).collect();
    let mut decoder = ToyDecoder::new(&tokenizer, 16);
    decoder.cells = 600;
    let mut keeper = Keeper::of(&requests);
    keeper.serve(&mut decoder, &tokenizer);
    assert_eq!(keeper.completions(), alone(&tokenizer, &requests, f32::NEG_INFINITY));
    let once = 30 * (100 + 49);
    assert!(decoder.n_fed < once + once / 4, "{} tokens fed, {once} without any waiting", decoder.n_fed);
    // Four of 150 cells fit.
    assert!(decoder.n_passes < 30 * 50 / 3, "{} passes", decoder.n_passes);
}

#[test]
fn a_refused_request_does_not_stop_the_others() {
    let tokenizer = letters();
    let mut requests: Vec<Request> = (0..5).map(|i| request(prompt(i, 0, 20), 2, 9, i as u64)).collect();
    requests[1].prompt.clear();
    requests[2].prompt = prompt(2, 0, 5000);
    requests[3].prompt = prompt(2, 0, 900);
    let mut decoder = ToyDecoder::new(&tokenizer, 3);
    // Enough for all but the fourth, whose prompt finds no room.
    decoder.cells = 500;
    let mut keeper = Keeper::of(&requests);
    keeper.serve(&mut decoder, &tokenizer);
    let kinds: Vec<_> = keeper.done.values().map(|outcome| outcome.as_ref().err().map(Error::kind)).collect();
    let (invalid, limit) = (Some(ErrorKind::InvalidArgument), Some(ErrorKind::LimitExceeded));
    assert_eq!(kinds, [None, invalid, limit, limit, None]);
}

#[test]
fn cancel_deadline_and_break_end_all_requests() {
    let tokenizer = letters();
    let requests: Vec<Request> = (0..50).map(|i| request(prompt(i, 0, 20), 3, 30, i as u64)).collect();
    let whole = {
        let mut keeper = Keeper::of(&requests);
        keeper.serve(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer);
        keeper.completions()
    };
    for by_break in [false, true] {
        let mut keeper = Keeper::of(&requests);
        match by_break {
            true => keeper.break_at = Some(400),
            false => keeper.cancel_at = Some((400, CancelToken::new())),
        }
        let mut decoder = ToyDecoder::new(&tokenizer, 4);
        assert_eq!(keeper.serve(&mut decoder, &tokenizer), Some(FinishReason::Cancelled));
        // Those that were begun are answered, with what they had; no other was taken.
        assert!(keeper.n_taken < 10 && keeper.done.len() == keeper.n_taken);
        let mut cancelled = 0;
        for (parts, whole) in keeper.completions().iter().zip(&whole) {
            assert_eq!(parts.len(), 3);
            for (part, whole) in parts.iter().zip(whole) {
                assert!(whole.text.starts_with(&part.text));
                cancelled += usize::from(part.finish_reason == FinishReason::Cancelled);
            }
        }
        assert!(cancelled > 0);
    }
}

/// Counts passes, not time: what a cancel waits for is the pass under way, whatever the length of the prompt.
#[test]
fn a_cancel_within_a_long_prompt_ends_with_the_pass_under_way() {
    let tokenizer = letters();
    for at in [1, 2, 7] {
        let mut decoder = ToyDecoder::new(&tokenizer, 2);
        decoder.context = 100_000;
        let cancel = CancelToken::new();
        decoder.cancel_in = Some((at, cancel.clone()));
        let request = request(prompt(1, 0, 50_000), 2, 10, 0);
        let none = &mut |_: Event<'_>| ControlFlow::Continue(());
        let generation = generate(&mut decoder, &tokenizer, &request, &cancel, none).unwrap();
        assert_eq!(decoder.n_passes, at);
        assert!(decoder.most_fed <= 128);
        assert!(generation.completions.iter().all(|completion| {
            completion.finish_reason == FinishReason::Cancelled && completion.completion_tokens == 0
        }));
    }
}

#[test]
fn a_client_that_fails_ends_the_loop_and_leaves_the_decoder_empty() {
    struct Failing(usize);
    impl Client for Failing {
        fn next(&mut self) -> Result<Option<Request>> {
            self.0 += 1;
            if self.0 == 4 {
                return Err(Error::new(ErrorKind::Io, "no more input"));
            }
            Ok(Some(request(vec![1, 2, 3], 2, 9, 0)))
        }
        fn event(&mut self, _request: usize, _event: Event<'_>) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }
        fn done(&mut self, _request: usize, outcome: Result<Generation>) -> Result<()> {
            outcome.map(drop)
        }
    }
    let tokenizer = letters();
    let mut decoder = ToyDecoder::new(&tokenizer, 3);
    let error = serve(&mut decoder, None, &tokenizer, &mut Failing(0), &CancelToken::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(decoder.sequences.iter().all(Vec::is_empty));
}
