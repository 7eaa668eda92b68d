//! An encoder-decoder behind the decode loop's interface: one stream a sequence, its prompt read by the encoder.

use std::ops::ControlFlow;
use std::sync::Arc;

use inhouse_core::ErrorKind;
use inhouse_core::decode::{
    CancelToken, Decoder, DecoderOptions, Feed, Model, Request, SamplingParams, SeqId, StopRules, generate,
};

use crate::tiny;

const A: &[u32] = &[100, 101, 32, 40, 97];
const B: &[u32] = &[97, 98, 99];

fn decoder(sequences: usize) -> (Arc<dyn Model>, Box<dyn Decoder>) {
    let model = crate::load(&tiny::model("t5", 3));
    let options = DecoderOptions { sequences, threads: Some(1), exact: true, ..DecoderOptions::default() };
    let decoder = model.clone().decoder(&options).unwrap();
    (model, decoder)
}

fn feed(decoder: &mut dyn Decoder, feeds: &[(SeqId, &[u32])]) -> Vec<Vec<f32>> {
    let feeds: Vec<Feed<'_>> = feeds.iter().map(|&(seq, tokens)| Feed { seq, tokens }).collect();
    decoder.feed(&feeds, &CancelToken::new()).unwrap();
    (0..feeds.len()).map(|i| decoder.logits(i).unwrap().to_vec()).collect()
}

/// The logits after a prompt and after each further token, in a decoder of their own.
fn alone(prompt: &[u32], rest: &[u32]) -> Vec<Vec<f32>> {
    let (_model, mut decoder) = decoder(1);
    let mut rows = feed(&mut *decoder, &[(0, prompt)]);
    for token in rest {
        rows.extend(feed(&mut *decoder, &[(0, &[*token])]));
    }
    rows
}

fn near(got: &[f32], want: &[f32]) -> bool {
    got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-4)
}

#[test]
fn samples_share_a_prompt_and_prompts_stand_side_by_side() {
    let (_model, mut decoder) = decoder(3);
    assert!(decoder.reads_prompt_whole());
    let (a, b) = (alone(A, &[7, 8]), alone(B, &[9]));
    assert!(!near(&a[0], &b[0]), "the encoder is not seen");
    assert!(near(&feed(&mut *decoder, &[(0, A)])[0], &a[0]));
    assert_eq!(decoder.len(0), A.len());
    // A sample of the same prompt goes its own way.
    decoder.fork(0, 1).unwrap();
    let rows = feed(&mut *decoder, &[(0, &[7]), (1, &[9])]);
    assert!(near(&rows[0], &a[1]) && !near(&rows[1], &a[1]));
    // Another prompt, in the middle of it: both are read again, and neither sees the other.
    let rows = feed(&mut *decoder, &[(2, B), (0, &[8])]);
    assert!(near(&rows[0], &b[0]) && near(&rows[1], &a[2]));
    assert!(near(&feed(&mut *decoder, &[(2, &[9])])[0], &b[1]));
    assert_eq!((decoder.len(0), decoder.len(1), decoder.len(2)), (A.len() + 2, A.len() + 1, B.len() + 1));
    // A sequence that becomes a copy of another has its prompt.
    decoder.fork(2, 0).unwrap();
    decoder.rewind(0, B.len()).unwrap();
    assert!(near(&feed(&mut *decoder, &[(0, &[9])])[0], &b[1]));
}

#[test]
fn a_cut_prompt_is_read_anew() {
    let (_model, mut decoder) = decoder(1);
    let want = alone(A, &[7]);
    feed(&mut *decoder, &[(0, A)]);
    feed(&mut *decoder, &[(0, &[1, 2, 3])]);
    decoder.rewind(0, A.len()).unwrap();
    assert!(near(&feed(&mut *decoder, &[(0, &[7])])[0], &want[1]));
    decoder.rewind(0, 2).unwrap();
    assert_eq!(decoder.len(0), 2);
    assert!(near(&feed(&mut *decoder, &[(0, &A[2..])])[0], &want[0]));
    decoder.rewind(0, 0).unwrap();
    assert!(near(&feed(&mut *decoder, &[(0, B)])[0], &alone(B, &[])[0]));
    assert_eq!(decoder.rewind(0, 9).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn bad_feeds_and_cancels_change_nothing() {
    let (_model, mut decoder) = decoder(2);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    for (tokens, cancel, kind) in [
        (&[][..], &CancelToken::new(), ErrorKind::InvalidArgument),
        (&[99_999], &CancelToken::new(), ErrorKind::InvalidArgument),
        (&[1; 300], &CancelToken::new(), ErrorKind::LimitExceeded),
        (A, &cancelled, ErrorKind::Cancelled),
    ] {
        let error = decoder.feed(&[Feed { seq: 0, tokens }], cancel).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(decoder.len(0), 0);
    }
    assert!(near(&feed(&mut *decoder, &[(0, A)])[0], &alone(A, &[])[0]));
}

#[test]
fn the_decode_loop_runs_it() {
    let (model, mut decoder) = decoder(4);
    let run = |decoder: &mut dyn Decoder, n| {
        let request = Request {
            prompt: A.to_vec(),
            n,
            params: SamplingParams::default(),
            seed: 5,
            max_tokens: 6,
            stops: StopRules::none(),
            ends: Vec::new(),
            silent: Vec::new(),
            log_probabilities: false,
            constraint: None,
            healed: 0,
            greedy_first: false,
        };
        let generation = generate(decoder, model.tokenizer(), &request, &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        });
        generation.unwrap().completions.into_iter().map(|completion| completion.text).collect::<Vec<_>>()
    };
    let many = run(&mut *decoder, 6);
    assert_eq!(many.len(), 6);
    // A sample does not depend on how many are drawn.
    assert_eq!(run(&mut *decoder, 2), many[..2]);
}
