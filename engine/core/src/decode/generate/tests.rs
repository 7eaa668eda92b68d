use std::collections::HashSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::toy::{Mind, ToyDecoder, ToyTokenizer};
use super::*;
use crate::decode::{SamplingParams, StopRules, TokenId};

fn letters() -> ToyTokenizer {
    ToyTokenizer::new(&["a", "b", "c", "d", "\n", "é", " ", "def", "\nd", "x"])
}

fn request(n: usize) -> Request {
    Request {
        prompt: vec![0, 1, 2],
        n,
        params: SamplingParams { temperature: 1.0, top_p: 0.95, ..SamplingParams::default() },
        seed: 11,
        max_tokens: 20,
        stops: StopRules::none(),
        ends: Vec::new(),
        silent: Vec::new(),
        log_probabilities: false,
        constraint: None,
        healed: 0,
        greedy_first: false,
    }
}

fn run(decoder: &mut ToyDecoder, tokenizer: &ToyTokenizer, request: &Request) -> Generation {
    let mut streamed = vec![String::new(); request.n];
    let mut finished = HashSet::new();
    let generation = generate(decoder, tokenizer, request, &CancelToken::new(), &mut |event| {
        match event {
            Event::Text { index, text } => {
                assert!(!text.is_empty() && !finished.contains(&index));
                streamed[index].push_str(text);
            }
            Event::Finished(completion) => {
                assert_eq!(streamed[completion.index], completion.text);
                assert!(finished.insert(completion.index));
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(finished.len(), request.n);
    assert!(generation.completions.iter().enumerate().all(|(i, completion)| completion.index == i));
    assert_eq!(generation.prompt_tokens, request.prompt.len());
    generation
}

#[test]
fn a_sample_depends_on_its_index_alone() {
    let tokenizer = letters();
    let all = run(&mut ToyDecoder::new(&tokenizer, 7), &tokenizer, &request(23)).completions;
    for n_seq in [1, 2, 23, 64] {
        for n in [1, 5, 23] {
            let some = run(&mut ToyDecoder::new(&tokenizer, n_seq), &tokenizer, &request(n)).completions;
            assert_eq!(some, all[..n], "{n} samples over {n_seq} sequences");
        }
    }
}

#[test]
fn two_hundred_samples_are_two_hundred_different_ones() {
    let tokenizer = letters();
    let generation = run(&mut ToyDecoder::new(&tokenizer, 32), &tokenizer, &request(200));
    let texts: HashSet<_> = generation.completions.iter().map(|completion| &completion.text).collect();
    assert_eq!(texts.len(), 200);
}

#[test]
fn the_prompt_is_fed_once_and_samples_side_by_side() {
    let tokenizer = letters();
    let mut decoder = ToyDecoder::new(&tokenizer, 50);
    run(&mut decoder, &tokenizer, &request(50));
    // The first of 20 tokens comes from the prompt's logits, the last is not fed.
    assert_eq!(decoder.n_fed, 3 + 50 * 19);
    assert_eq!(decoder.n_passes, 1 + 19);
    assert_eq!(decoder.peak_sequences, 50);
}

#[test]
fn padding_is_never_sampled() {
    let tokenizer = letters();
    for temperature in [0.0, 1.0] {
        let mut request = request(5);
        request.params.temperature = temperature;
        let generation = run(&mut ToyDecoder::new(&tokenizer, 5), &tokenizer, &request);
        assert!(generation.completions.iter().all(|completion| !completion.text.is_empty()));
    }
}

#[test]
fn greedy_samples_are_equal() {
    let tokenizer = letters();
    let mut request = request(4);
    request.params.temperature = 0.0;
    let generation = run(&mut ToyDecoder::new(&tokenizer, 2), &tokenizer, &request);
    let texts: HashSet<_> = generation.completions.iter().map(|completion| &completion.text).collect();
    assert_eq!(texts.len(), 1);
}

#[test]
fn the_first_of_candidates_is_greedy_and_the_others_are_not() {
    let tokenizer = letters();
    let drawn = run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &request(6)).completions;
    let mut greedy = request(1);
    greedy.params.temperature = 0.0;
    let greedy = run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &greedy).completions;
    let candidates = Request { greedy_first: true, ..request(6) };
    let found = run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &candidates).completions;
    assert_eq!((&found[..1], &found[1..]), (&greedy[..], &drawn[1..]));
}

#[test]
fn what_is_written_again_of_the_prompt_is_no_part_of_the_completion() {
    let tokenizer = letters();
    let whole = Request { log_probabilities: true, ..request(12) };
    let all = run(&mut ToyDecoder::new(&tokenizer, 5), &tokenizer, &whole).completions;
    let healed = Request { healed: 3, max_tokens: 17, ..whole };
    let found = run(&mut ToyDecoder::new(&tokenizer, 5), &tokenizer, &healed).completions;
    for (all, found) in all.iter().zip(&found) {
        // Three bytes are one to three tokens; a longer token that they end in is the completion's.
        let rest = String::from_utf8_lossy(&all.text.as_bytes()[3.min(all.text.len())..]).into_owned();
        assert!(rest.starts_with(found.text.as_str()), "{all:?} {found:?}");
        assert_eq!(found.log_probabilities.as_ref().unwrap().len(), found.completion_tokens);
        assert!(found.completion_tokens <= 17 && all.completion_tokens <= found.completion_tokens + 3);
    }
}

#[test]
fn a_small_cache_makes_samples_wait_but_changes_none() {
    let tokenizer = letters();
    let expected = run(&mut ToyDecoder::new(&tokenizer, 16), &tokenizer, &request(16)).completions;
    for cells in [3 + 19, 3 + 20, 3 + 40, 3 + 100, 3 + 16 * 19] {
        let mut decoder = ToyDecoder::new(&tokenizer, 16);
        decoder.cells = cells;
        assert_eq!(run(&mut decoder, &tokenizer, &request(16)).completions, expected, "{cells} cells");
    }
    let mut decoder = ToyDecoder::new(&tokenizer, 16);
    decoder.cells = 3 + 10;
    for completion in run(&mut decoder, &tokenizer, &request(16)).completions {
        assert_eq!((completion.finish_reason, completion.completion_tokens), (FinishReason::ContextFull, 11));
        assert!(expected[completion.index].text.starts_with(&completion.text));
    }
}

#[test]
fn log_probabilities_go_with_the_tokens() {
    let tokenizer = letters();
    let plain = run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &request(6));
    let mut request = Request { log_probabilities: true, ..request(6) };
    let asked = run(&mut ToyDecoder::new(&tokenizer, 3), &tokenizer, &request);
    for (plain, asked) in plain.completions.iter().zip(&asked.completions) {
        let values = asked.log_probabilities.as_deref().unwrap();
        assert_eq!((values.len(), &asked.text), (plain.completion_tokens, &plain.text));
        assert!(values.iter().all(|value| *value <= 0.0 && value.is_finite()));
    }
    // A script is certain to the last.
    let mut decoder = ToyDecoder::new(&tokenizer, 1);
    decoder.mind = Mind::Script(tokenizer.encode("ab\nx").unwrap());
    request.prompt = vec![0];
    let values = run(&mut decoder, &tokenizer, &request).completions.remove(0).log_probabilities.unwrap();
    assert!(values.len() == 4 && values.iter().all(|value| value.abs() < 1e-6), "{values:?}");
}

#[test]
fn a_repetition_penalty_counts_the_prompt_and_the_sample() {
    let tokenizer = letters();
    let mut decoder = ToyDecoder::new(&tokenizer, 2);
    decoder.end_logit = 0.0;
    let params = SamplingParams { temperature: 0.0, repetition_penalty: 1e6, ..SamplingParams::default() };
    let request = Request { params, max_tokens: 7, ..request(1) };
    let text = run(&mut decoder, &tokenizer, &request).completions.remove(0).text;
    // Ten tokens, three of them in the prompt: each of the others once.
    let sorted = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(sorted(&text), sorted("def\ndd\né x"));
}

#[test]
fn a_prompt_is_read_only_past_what_an_earlier_one_shares() {
    let tokenizer = letters();
    let mut decoder = ToyDecoder::new(&tokenizer, 6);
    let mut cache = PrefixCache::new(2, 6, 100);
    let prompt = |shared: usize, own: usize| -> Vec<TokenId> {
        (0..shared).map(|i| (i % 9) as TokenId).chain((0..own).map(|i| (i * 3 % 7) as TokenId)).collect()
    };
    // Length of the shared and the own part, tokens expected from the cache, tokens held afterwards.
    for (shared, own, expected, held) in
        [(30, 5, 0, 35), (30, 5, 34, 35), (20, 8, 20, 63), (30, 6, 35, 64), (5, 9, 0, 50), (40, 90, 30, 50)]
    {
        let request = Request { prompt: prompt(shared, own), ..request(7) };
        let fed = decoder.n_fed;
        let none = &mut |_: Event<'_>| ControlFlow::Continue(());
        let cached =
            generate_cached(&mut decoder, &mut cache, &tokenizer, &request, &CancelToken::new(), none)
                .unwrap();
        let fresh = run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &request);
        assert_eq!(cached.completions, fresh.completions, "{shared} + {own}");
        assert_eq!((cached.prompt_tokens_shared, cache.tokens()), (expected, held), "{shared} + {own}");
        assert_eq!(decoder.n_fed - fed, shared + own - expected + 7 * 19);
        assert!(decoder.peak_sequences <= 4);
    }
    // Too few cells for both: the samples come first.
    decoder.cells = 60;
    let request = Request { prompt: prompt(3, 2), ..request(7) };
    let none = &mut |_: Event<'_>| ControlFlow::Continue(());
    let cached =
        generate_cached(&mut decoder, &mut cache, &tokenizer, &request, &CancelToken::new(), none).unwrap();
    assert_eq!(
        cached.completions,
        run(&mut ToyDecoder::new(&tokenizer, 4), &tokenizer, &request).completions
    );
    assert_eq!(cache.tokens(), 0);
}

#[test]
fn finish_reasons() {
    let tokenizer = letters();
    let script = tokenizer.encode("ab\n\nx\n").unwrap();
    /// Stops, limits of tokens and context, then the text, the reason and the tokens expected.
    type Case = (&'static [&'static str], usize, usize, &'static str, FinishReason, usize);
    let cases: &[Case] = &[
        (&[], 20, 99, "ab\n\nx\n", FinishReason::EndOfText, 6),
        (&["\nx"], 20, 99, "ab\n", FinishReason::Stop, 5),
        (&["\nd"], 20, 99, "ab\n\nx\n", FinishReason::EndOfText, 6),
        (&["\nx"], 4, 99, "ab\n\n", FinishReason::Length, 4),
        (&["\nx"], 5, 99, "ab\n", FinishReason::Stop, 5),
        (&["a"], 20, 99, "", FinishReason::Stop, 1),
        (&[], 20, 3, "ab\n", FinishReason::ContextFull, 3),
        (&["b\n", "ab\nx"], 20, 99, "a", FinishReason::Stop, 4),
        (&["b\n", "ab\nx"], 3, 99, "a", FinishReason::Stop, 3),
    ];
    for (stops, max_tokens, context, text, reason, n_tokens) in cases {
        let mut decoder = ToyDecoder::new(&tokenizer, 2);
        decoder.mind = Mind::Script(script.clone());
        decoder.context = *context;
        let request = Request {
            prompt: vec![0],
            max_tokens: *max_tokens,
            stops: StopRules::new(stops.iter().copied()),
            ..request(3)
        };
        for completion in run(&mut decoder, &tokenizer, &request).completions {
            let got = (completion.text.as_str(), completion.finish_reason, completion.completion_tokens);
            assert_eq!(got, (*text, *reason, *n_tokens), "{stops:?} {max_tokens} {context}");
        }
    }
}

#[test]
fn a_full_context_gives_one_more_token() {
    let tokenizer = letters();
    let mut decoder = ToyDecoder::new(&tokenizer, 1);
    decoder.context = 3;
    let generation = run(&mut decoder, &tokenizer, &request(2));
    for completion in &generation.completions {
        assert_eq!((completion.finish_reason, completion.completion_tokens), (FinishReason::ContextFull, 1));
    }
    decoder.context = 2;
    let error = generate(&mut decoder, &tokenizer, &request(1), &CancelToken::new(), &mut |_| {
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn cancel_deadline_and_break_keep_what_is_there() {
    let tokenizer = letters();
    let whole = run(&mut ToyDecoder::new(&tokenizer, 3), &tokenizer, &request(8)).completions;

    let cancel = CancelToken::new();
    let mut n_texts = 0;
    let mut decoder = ToyDecoder::new(&tokenizer, 3);
    let generation = generate(&mut decoder, &tokenizer, &request(8), &cancel, &mut |event| {
        n_texts += usize::from(matches!(event, Event::Text { .. }));
        if n_texts == 80 {
            cancel.cancel();
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let reasons: Vec<_> = generation.completions.iter().map(|completion| completion.finish_reason).collect();
    assert_eq!(reasons[..3], [FinishReason::Length; 3]);
    assert_eq!(reasons[3..], [FinishReason::Cancelled; 5]);
    for (part, whole) in generation.completions.iter().zip(&whole) {
        assert!(whole.text.starts_with(&part.text));
    }
    assert!(generation.completions[7].text.is_empty() && generation.completions[7].completion_tokens == 0);
    assert!((0..3).all(|seq| decoder.len(seq) == 0));

    let mut n_events = 0;
    let generation = generate(&mut decoder, &tokenizer, &request(8), &CancelToken::new(), &mut |_| {
        n_events += 1;
        if n_events == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(generation.completions.len(), 8);
    assert!(
        generation.completions.iter().all(|completion| completion.finish_reason == FinishReason::Cancelled)
    );
    assert_eq!(n_events, 5 + 8);

    // A deadline that has passed before the prompt is read, and one that a pass reports in the middle.
    let late = CancelToken::new().with_deadline(Instant::now() - Duration::from_millis(1));
    let generation =
        generate(&mut decoder, &tokenizer, &request(2), &late, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(generation.completions.iter().all(|completion| {
        completion.finish_reason == FinishReason::Deadline && completion.text.is_empty()
    }));
    decoder.n_passes = 0;
    decoder.fail_at = Some((4, ErrorKind::DeadlineExceeded));
    let generation = run(&mut decoder, &tokenizer, &request(2));
    assert!(generation.completions.iter().all(|completion| {
        completion.finish_reason == FinishReason::Deadline && completion.completion_tokens == 3
    }));
}

#[test]
fn a_failing_backend_is_an_error() {
    let tokenizer = letters();
    for pass in [1, 2, 5] {
        let mut decoder = ToyDecoder::new(&tokenizer, 2);
        decoder.fail_at = Some((pass, ErrorKind::Backend));
        let result = generate(&mut decoder, &tokenizer, &request(2), &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Backend);
    }
}

#[test]
fn bad_requests_are_errors() {
    let tokenizer = letters();
    let bad = [
        Request { prompt: vec![], ..request(1) },
        Request { prompt: vec![99], ..request(1) },
        request(0),
        Request { max_tokens: 0, ..request(1) },
        Request { params: SamplingParams { temperature: -1.0, ..SamplingParams::default() }, ..request(1) },
    ];
    for request in bad {
        let mut decoder = ToyDecoder::new(&tokenizer, 2);
        let result = generate(&mut decoder, &tokenizer, &request, &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

proptest! {
    /// The same bytes in any pieces, characters and stops cut in the middle: the same text and the same end.
    #[test]
    fn the_text_does_not_depend_on_token_borders(
        bytes in proptest::collection::vec(prop_oneof![
            4 => Just(b'\n'), 4 => Just(b'i'), 4 => Just(b'f'), 2 => Just(b'#'), 2 => Just(0xc3u8), 2 => Just(0xa9u8), 1 => any::<u8>()
        ], 1..50),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        stops in prop_oneof![
            Just(StopRules::paper()),
            Just(StopRules::none()),
            Just(StopRules::new(["é", "f\nif", "if"])),
        ],
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let tokenizer = ToyTokenizer::new(&pieces);
        let mut decoder = ToyDecoder::new(&tokenizer, 1);
        decoder.mind = Mind::Script((0..pieces.len() as TokenId).collect());
        let request = Request { prompt: vec![0], max_tokens: 1000, stops: stops.clone(), ..request(1) };
        let completion = run(&mut decoder, &tokenizer, &request).completions.remove(0);
        let whole = String::from_utf8_lossy(&bytes).into_owned();
        let expected = stops.cut(&whole);
        prop_assert_eq!(&completion.text, expected);
        let reason = if expected.len() < whole.len() { FinishReason::Stop } else { FinishReason::EndOfText };
        prop_assert_eq!(completion.finish_reason, reason);
    }
}
