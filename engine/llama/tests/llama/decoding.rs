//! Decoder and tokenizer of a loaded model.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inhouse_core::ErrorKind;
use inhouse_core::decode::{
    CancelToken, Decoder, DecoderOptions, Feed, FinishReason, Generation, Model, Request, SamplingParams,
    StopRules, TokenId, generate,
};

use crate::tiny::{self, CONTEXT, END, FIRST_PADDING, N_VOCAB, SPACES};

pub fn options(sequences: usize) -> DecoderOptions {
    DecoderOptions { sequences, threads: Some(1), ..DecoderOptions::default() }
}

fn decoder(model: &Arc<dyn Model>, sequences: usize) -> Box<dyn Decoder> {
    Arc::clone(model).decoder(&options(sequences)).unwrap()
}

fn feed(decoder: &mut dyn Decoder, seq: u32, tokens: &[TokenId]) -> Vec<f32> {
    decoder.feed(&[Feed { seq, tokens }], &CancelToken::new()).unwrap();
    decoder.logits(0).unwrap().to_vec()
}

fn run(model: &Arc<dyn Model>, decoder: &mut dyn Decoder, request: &Request) -> Generation {
    generate(decoder, model.tokenizer(), request, &CancelToken::new(), &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn request(n: usize, temperature: f32) -> Request {
    Request {
        prompt: vec![100, 101, 102, 32, 103],
        n,
        params: SamplingParams { temperature, ..SamplingParams::default() },
        seed: 5,
        max_tokens: 24,
        stops: StopRules::none(),
        ends: Vec::new(),
        silent: Vec::new(),
        log_probabilities: false,
        constraint: None,
        healed: 0,
        greedy_first: false,
    }
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

/// f16 in the cache and sums in another order: what two ways of computing the same logits may differ by.
fn assert_close(a: &[f32], b: &[f32]) {
    let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < 2e-2, "logits differ by {difference}");
    assert_eq!(argmax(a), argmax(b));
}

#[test]
fn facts_of_the_model() {
    for arch in ["phi2", "gpt2", "llama"] {
        let model = crate::load(&tiny::model(arch, 1));
        let info = model.info();
        assert_eq!((info.architecture.as_str(), info.name.as_str()), (arch, format!("tiny {arch}").as_str()));
        assert_eq!((info.context_length, info.vocab_size), (CONTEXT as usize, N_VOCAB));
        assert_eq!((&*info.backend, info.dtype.as_str()), ("llama.cpp", "F32"));
    }
}

#[test]
fn greedy_generation_is_deterministic_and_shared_prefill_changes_nothing() {
    for arch in ["phi2", "gpt2", "llama"] {
        let model = crate::load(&tiny::model(arch, 2));
        let alone = run(&model, &mut *decoder(&model, 1), &request(1, 0.0));
        let again = run(&model, &mut *decoder(&model, 1), &request(1, 0.0));
        assert_eq!(alone.completions, again.completions);
        assert!(alone.completions[0].completion_tokens > 0);
        for sequences in [1, 3, 8] {
            let together = run(&model, &mut *decoder(&model, sequences), &request(8, 0.0));
            for completion in &together.completions {
                assert_eq!(completion.text, alone.completions[0].text, "{arch}, {sequences} sequences");
            }
        }
    }
}

#[test]
fn samples_are_many_and_do_not_depend_on_their_number() {
    let model = crate::load(&tiny::model("phi2", 3));
    let all = run(&model, &mut *decoder(&model, 40), &request(200, 1.0));
    let mut texts: Vec<&str> = all.completions.iter().map(|completion| completion.text.as_str()).collect();
    texts.sort_unstable();
    texts.dedup();
    assert!(texts.len() > 190, "only {} different samples", texts.len());
    let again = run(&model, &mut *decoder(&model, 40), &request(200, 1.0));
    assert_eq!(all.completions, again.completions, "the same request gives the same samples");
    // Logits differ in the last bits with the shape of a batch: a rare draw may fall into the difference.
    let few = run(&model, &mut *decoder(&model, 3), &request(30, 1.0));
    let equal = few.completions.iter().zip(&all.completions).filter(|(few, all)| few == all).count();
    assert!(equal >= 28, "{equal} of 30 samples equal");
}

#[test]
fn padding_and_control_tokens_are_never_sampled() {
    let mut gguf = tiny::model("phi2", 4);
    let bias = &mut gguf.tensor("output.bias").data;
    bias[FIRST_PADDING as usize..].fill(1000.0);
    let model = crate::load(&gguf);
    let tokenizer = model.tokenizer();
    assert!((FIRST_PADDING..N_VOCAB as u32).all(|token| !tokenizer.is_sampleable(token)));
    assert!(tokenizer.is_sampleable(END) && tokenizer.is_end(END));
    assert!(!tokenizer.is_sampleable(N_VOCAB as u32) && !tokenizer.is_end(u32::MAX));
    for temperature in [0.0, 1.0] {
        let generation = run(&model, &mut *decoder(&model, 4), &request(4, temperature));
        assert!(generation.completions.iter().all(|completion| !completion.text.contains("pad")));
    }
}

#[test]
fn a_likely_end_of_text_ends_the_samples() {
    let mut gguf = tiny::model("phi2", 4);
    gguf.tensor("output.bias").data[END as usize] = 1000.0;
    let model = crate::load(&gguf);
    for completion in run(&model, &mut *decoder(&model, 2), &request(5, 1.0)).completions {
        assert_eq!((completion.finish_reason, completion.completion_tokens), (FinishReason::EndOfText, 0));
    }
}

#[test]
fn batch_and_single_steps_give_the_same_logits() {
    for arch in ["phi2", "gpt2", "llama"] {
        let model = crate::load(&tiny::model(arch, 5));
        let tokens: Vec<TokenId> = (0..40).map(|i| (i * 37 + 11) % 256).collect();
        let whole = feed(&mut *decoder(&model, 1), 0, &tokens);
        let mut stepwise = decoder(&model, 1);
        let mut last = Vec::new();
        for token in &tokens {
            last = feed(&mut *stepwise, 0, &[*token]);
        }
        assert_close(&whole, &last);
        // Three sequences of different lengths in one batch.
        let mut together = decoder(&model, 3);
        let feeds = [
            Feed { seq: 2, tokens: &tokens[..7] },
            Feed { seq: 0, tokens: &tokens },
            Feed { seq: 1, tokens: &tokens[3..4] },
        ];
        together.feed(&feeds, &CancelToken::new()).unwrap();
        assert_eq!((together.len(0), together.len(1), together.len(2)), (40, 1, 7));
        assert_close(together.logits(1).unwrap(), &whole);
        assert_close(together.logits(0).unwrap(), &feed(&mut *decoder(&model, 1), 0, &tokens[..7]));
        assert_close(together.logits(2).unwrap(), &feed(&mut *decoder(&model, 1), 0, &tokens[3..4]));
        assert_eq!(together.logits(3).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn an_exact_decoder_keeps_its_cache_in_f32() {
    let tokens: Vec<TokenId> = (0..40).map(|i| (i * 37 + 11) % 256).collect();
    for arch in ["phi2", "gpt2", "llama"] {
        let model = crate::load(&tiny::model(arch, 5));
        // A token at a time, what was read comes from the cache: rounded, or as it was computed.
        let [rounded, exact] = [false, true].map(|exact| {
            let options = DecoderOptions { exact, ..options(1) };
            let mut decoder = Arc::clone(&model).decoder(&options).unwrap();
            for token in &tokens[..39] {
                feed(&mut *decoder, 0, &[*token]);
            }
            feed(&mut *decoder, 0, &tokens[39..])
        });
        let difference = rounded.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference > 0.0 && difference < 2e-2, "{arch}: {difference}");
        let options = DecoderOptions { exact: true, ..options(1) };
        let whole = feed(&mut *Arc::clone(&model).decoder(&options).unwrap(), 0, &tokens);
        let difference = whole.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "{arch}: {difference}");
    }
}

#[test]
fn a_batch_larger_than_a_pass_is_cut() {
    let model = crate::load(&tiny::model("phi2", 6));
    let tokens: Vec<TokenId> = (0..200).map(|i| (i * 31 + 7) % 256).collect();
    let mut decoder = decoder(&model, 4);
    let feeds: Vec<Feed<'_>> = (0..4).map(|seq| Feed { seq, tokens: &tokens[seq as usize..] }).collect();
    decoder.feed(&feeds, &CancelToken::new()).unwrap();
    for seq in 0..4 {
        let alone = feed(&mut *self::decoder(&model, 1), 0, &tokens[seq..]);
        assert_close(decoder.logits(seq).unwrap(), &alone);
    }
}

#[test]
fn a_cache_smaller_than_a_batch_takes_smaller_batches() {
    let model = crate::load(&tiny::model("phi2", 6));
    let tokens: Vec<TokenId> = (0..200).map(|i| (i * 31 + 7) % 256).collect();
    for cells in [1, 9, 100, 200] {
        let small = DecoderOptions { kv_cells: Some(cells), ..options(2) };
        let mut decoder = Arc::clone(&model).decoder(&small).unwrap();
        match decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &CancelToken::new()) {
            Ok(()) => {
                assert_close(decoder.logits(0).unwrap(), &feed(&mut *self::decoder(&model, 1), 0, &tokens))
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{cells} cells"),
        }
    }
}

#[test]
fn fork_and_rewind() {
    let model = crate::load(&tiny::model("phi2", 7));
    let mut decoder = decoder(&model, 3);
    let (prompt, a, b) = ([5, 6, 7, 8], [20, 21, 22], [30, 31]);
    feed(&mut *decoder, 0, &prompt);
    decoder.fork(0, 1).unwrap();
    decoder.fork(0, 2).unwrap();
    let after_a = feed(&mut *decoder, 1, &a);
    let after_b = feed(&mut *decoder, 2, &b);
    let fresh = |tokens: &[TokenId]| feed(&mut *self::decoder(&model, 1), 0, tokens);
    assert_close(&after_a, &fresh(&[5, 6, 7, 8, 20, 21, 22]));
    assert_close(&after_b, &fresh(&[5, 6, 7, 8, 30, 31]));
    // One sequence goes back without harm to the others, and on another way.
    decoder.rewind(1, 4).unwrap();
    assert_eq!((decoder.len(0), decoder.len(1), decoder.len(2)), (4, 4, 6));
    assert_close(&feed(&mut *decoder, 1, &b), &after_b);
    assert_close(&feed(&mut *decoder, 2, &[40]), &fresh(&[5, 6, 7, 8, 30, 31, 40]));
    decoder.rewind(2, 5).unwrap();
    assert_close(&feed(&mut *decoder, 2, &[31]), &after_b);
    // A fork over a used sequence drops what that held.
    decoder.fork(0, 2).unwrap();
    assert_close(&feed(&mut *decoder, 2, &a), &after_a);
    decoder.rewind(2, 0).unwrap();
    assert_close(&feed(&mut *decoder, 2, &[5, 6, 7, 8, 20, 21, 22]), &after_a);
    for (seq, len) in [(0, 5), (3, 0)] {
        assert_eq!(decoder.rewind(seq, len).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(decoder.fork(0, 3).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn bad_feeds_are_errors_and_change_nothing() {
    let model = crate::load(&tiny::model("gpt2", 8));
    let mut decoder = decoder(&model, 2);
    let before = feed(&mut *decoder, 0, &[1, 2, 3]);
    let long = vec![1; CONTEXT as usize];
    let cases: &[(&[Feed<'_>], ErrorKind)] = &[
        (&[Feed { seq: 0, tokens: &[] }], ErrorKind::InvalidArgument),
        (&[Feed { seq: 2, tokens: &[1] }], ErrorKind::InvalidArgument),
        (&[Feed { seq: 0, tokens: &[N_VOCAB as u32] }], ErrorKind::InvalidArgument),
        (&[Feed { seq: 0, tokens: &[u32::MAX] }], ErrorKind::InvalidArgument),
        (&[Feed { seq: 1, tokens: &[1] }, Feed { seq: 1, tokens: &[1] }], ErrorKind::InvalidArgument),
        (&[Feed { seq: 0, tokens: &long }], ErrorKind::LimitExceeded),
    ];
    for (feeds, kind) in cases {
        assert_eq!(decoder.feed(feeds, &CancelToken::new()).unwrap_err().kind(), *kind);
        assert_eq!((decoder.len(0), decoder.len(1)), (3, 0));
    }
    decoder.rewind(0, 2).unwrap();
    assert_close(&feed(&mut *decoder, 0, &[3]), &before);
}

#[test]
fn a_full_cache_is_an_error_that_changes_nothing_and_generation_copes() {
    let model = crate::load(&tiny::model("phi2", 9));
    let small = DecoderOptions { kv_cells: Some(256), ..options(8) };
    let mut decoder = Arc::clone(&model).decoder(&small).unwrap();
    let tokens: Vec<TokenId> = (0..200).collect();
    let whole = feed(&mut *decoder, 0, &tokens);
    let error = decoder.feed(&[Feed { seq: 1, tokens: &tokens }], &CancelToken::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!((decoder.len(0), decoder.len(1)), (200, 0));
    decoder.rewind(0, 199).unwrap();
    assert_close(&feed(&mut *decoder, 0, &tokens[199..]), &whole);
    // 8 samples of 60 tokens do not fit beside each other into 256 cells.
    let request = Request { max_tokens: 60, ..request(8, 1.0) };
    let generation = run(&model, &mut *decoder, &request);
    let roomy = run(&model, &mut *self::decoder(&model, 8), &request);
    let equal = generation.completions.iter().zip(&roomy.completions).filter(|(a, b)| a == b).count();
    assert!(equal >= 7, "{equal} of 8 samples equal");
    assert!(
        generation.completions.iter().all(|completion| completion.finish_reason != FinishReason::ContextFull)
    );
}

#[test]
fn cancel_and_deadline_stop_a_pass_and_leave_the_decoder_usable() {
    let model = crate::load(&tiny::model("phi2", 10));
    let mut decoder = decoder(&model, 2);
    let before = feed(&mut *decoder, 0, &[1, 2, 3]);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    let error = decoder.feed(&[Feed { seq: 0, tokens: &[4] }], &cancelled).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let late = CancelToken::new().with_deadline(Instant::now());
    let error = decoder.feed(&[Feed { seq: 1, tokens: &[4] }], &late).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    // Deadlines that fall anywhere in the middle of long feeds: an error or success, and a usable decoder either way.
    let tokens = vec![9; 250];
    for micros in (0..6000).step_by(150) {
        let soon = CancelToken::new().with_deadline(Instant::now() + Duration::from_micros(micros));
        match decoder.feed(&[Feed { seq: 1, tokens: &tokens }], &soon) {
            Ok(()) => decoder.rewind(1, 0).unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded),
        }
        assert_eq!((decoder.len(0), decoder.len(1)), (3, 0));
    }
    decoder.rewind(0, 2).unwrap();
    assert_close(&feed(&mut *decoder, 0, &[3]), &before);
}

#[test]
fn options_out_of_range_are_errors() {
    let model = crate::load(&tiny::model("phi2", 11));
    let bad = [
        DecoderOptions { context_length: Some(CONTEXT as usize + 1), ..options(1) },
        DecoderOptions { context_length: Some(0), ..options(1) },
        options(0),
        options(257),
        DecoderOptions { kv_cells: Some(0), ..options(1) },
        DecoderOptions { threads: Some(0), ..options(1) },
    ];
    for options in bad {
        let error = Arc::clone(&model).decoder(&options).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{options:?}");
    }
    let huge = DecoderOptions { kv_cells: Some(1 << 29), ..options(1) };
    let error = Arc::clone(&model).decoder(&huge).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let most = decoder(&model, 256);
    assert_eq!((most.max_sequences(), most.context_length()), (256, CONTEXT as usize));
}

#[test]
fn a_decoder_outlives_its_model_and_moves_between_threads() {
    let model = crate::load(&tiny::model("phi2", 12));
    let expected = feed(&mut *decoder(&model, 1), 0, &[1, 2, 3]);
    let mut kept = decoder(&model, 1);
    drop(model);
    let got = std::thread::spawn(move || feed(&mut *kept, 0, &[1, 2, 3])).join().unwrap();
    assert_close(&expected, &got);
}

#[test]
fn tokens_of_text_and_text_of_tokens() {
    let model = crate::load(&tiny::model("phi2", 13));
    let tokenizer = model.tokenizer();
    let bytes = |text: &str| text.bytes().map(TokenId::from).collect::<Vec<_>>();
    assert!(tokenizer.encode("").unwrap().is_empty());
    assert_eq!(tokenizer.encode("ab").unwrap(), bytes("ab"));
    assert_eq!(tokenizer.encode("def f").unwrap(), [258, 32, 102]);
    // Runs of spaces are added tokens: the longest first, from the left, wherever they stand.
    assert_eq!(tokenizer.encode("a   b").unwrap(), [97, SPACES[1], 98]);
    assert_eq!(tokenizer.encode("     ").unwrap(), [SPACES[1], SPACES[0]]);
    assert_eq!(tokenizer.encode("é").unwrap(), [0xc3, 0xa9]);
    // The text of a control token is text.
    let text = "<|endoftext|>";
    let tokens = tokenizer.encode(text).unwrap();
    assert!(!tokens.contains(&END));
    for text in [text, "x =  1\n\tdef é😀\u{0}  \r\n", "def  de", "   "] {
        let tokens = tokenizer.encode(text).unwrap();
        let back: Vec<u8> = tokens.iter().flat_map(|&token| tokenizer.token_bytes(token)).collect();
        assert_eq!(String::from_utf8(back).unwrap(), text);
    }
    assert!(tokenizer.token_bytes(END).is_empty() && tokenizer.token_bytes(FIRST_PADDING).is_empty());
    assert!(tokenizer.token_bytes(N_VOCAB as u32).is_empty());
    assert_eq!(tokenizer.vocab_size(), N_VOCAB);
    let error = tokenizer.encode(&"a".repeat((16 << 20) + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(tokenizer.encode(&"a b".repeat(100_000)).unwrap().len(), 300_000);
}
