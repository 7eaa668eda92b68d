//! Work that is begun and cancelled over and over leaves nothing behind.
//!
//! A few rounds in every run of the tests; `INHOUSE_CANCEL_CYCLES=1000` under valgrind shows leaks byte by byte:
//!
//!     INHOUSE_CANCEL_CYCLES=1000 valgrind --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 \\
//!         target/release/deps/llama-* cycles

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inhouse_core::decode::{CancelToken, FinishReason, Request, SamplingParams, StopRules, generate};

use crate::tiny;

#[test]
fn cancelled_work_leaves_nothing() {
    let cycles = std::env::var("INHOUSE_CANCEL_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let model = crate::load(&tiny::model("phi2", 14));
    let options = crate::decoding::options(4);
    let mut kept = Arc::clone(&model).decoder(&options).unwrap();
    let mut cancelled = 0;
    for cycle in 0..cycles {
        let request = Request {
            prompt: (0..200).map(|i| (i * 7 + cycle as u32) % 256).collect(),
            n: 6,
            params: SamplingParams::default(),
            seed: cycle as u64,
            max_tokens: 20,
            stops: StopRules::paper(),
            ends: Vec::new(),
            silent: Vec::new(),
            log_probabilities: cycle % 2 == 0,
            constraint: None,
            healed: 0,
            greedy_first: false,
        };
        // Within the prompt, before the first token, after some tokens; in a decoder of its own or in one that goes on.
        let cancel = CancelToken::new();
        let timed = cancel.with_deadline(Instant::now() + Duration::from_micros(137 * (cycle as u64 % 40)));
        let token = if cycle % 3 == 0 { &timed } else { &cancel };
        let mut fresh = None;
        let decoder = match cycle % 4 {
            0 => fresh.insert(Arc::clone(&model).decoder(&options).unwrap()),
            _ => &mut kept,
        };
        let mut left: usize = cycle % 7;
        let generation = generate(decoder.as_mut(), model.tokenizer(), &request, token, &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 {
                cancel.cancel();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(generation.completions.len(), 6);
        let ended =
            |reason| generation.completions.iter().any(|completion| completion.finish_reason == reason);
        cancelled += usize::from(ended(FinishReason::Cancelled) || ended(FinishReason::Deadline));
    }
    assert!(cancelled > cycles / 2, "{cancelled} of {cycles} were cut short");
}
