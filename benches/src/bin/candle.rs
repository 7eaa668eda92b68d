//! Times a Hugging Face folder on candle, for `benches/peers/candle.py`:
//!
//!     candle FOLDER f32|f16|bf16 THREADS PROMPT_TOKENS SEQUENCES NEW_TOKENS
//!
//! Sequences of their own prompts are read, each in one feed, then go on greedily side by side, nothing around the model:
//! no text, no stop rules. Prints one JSON object: CPU seconds (of all threads) of reading the first prompt and of the steps,
//! their wall seconds, and the tokens of every sequence.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use inhouse_benches::cpu_seconds;
use inhouse_candle::{DType, LoadOptions, load};
use inhouse_core::decode::{CancelToken, Decoder, DecoderOptions, Feed, TokenId};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Readings of the prompt that count; one before them finds nothing in the caches.
const READINGS: usize = 2;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, dtype, numbers @ ..] = arguments.as_slice() else { return Err(usage()) };
    let numbers = numbers.iter().map(|text| text.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
    let &[threads, prompt, sequences, new_tokens] = numbers.as_slice() else { return Err(usage()) };
    let dtype = match dtype.as_str() {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => return Err(usage()),
    };
    let model = load(Path::new(folder), &LoadOptions { dtype, ..LoadOptions::default() })?;
    let options = DecoderOptions { sequences, threads: Some(threads), ..DecoderOptions::default() };
    let mut decoder = Arc::clone(&model).decoder(&options)?;
    let go = CancelToken::new();
    let first = prompt_of(0, prompt);
    let mut before = cpu_seconds()?;
    for reading in 0..=READINGS {
        if reading == 1 {
            before = cpu_seconds()?;
        }
        decoder.rewind(0, 0)?;
        decoder.feed(&[Feed { seq: 0, tokens: &first }], &go)?;
    }
    let prefill = (cpu_seconds()? - before) / READINGS as f64;
    let mut texts = Vec::with_capacity(sequences);
    for sequence in 0..sequences {
        let tokens = prompt_of(sequence, prompt);
        decoder.rewind(sequence as u32, 0)?;
        decoder.feed(&[Feed { seq: sequence as u32, tokens: &tokens }], &go)?;
        texts.push(vec![likeliest(decoder.logits(0)?)]);
    }
    let (before, start) = (cpu_seconds()?, Instant::now());
    for _ in 0..new_tokens {
        step(decoder.as_mut(), &mut texts, &go)?;
    }
    let (cpu, wall) = (cpu_seconds()? - before, start.elapsed().as_secs_f64());
    println!(
        "{{\"prefill_cpu\": {prefill}, \"decode_cpu\": {cpu}, \"decode_wall\": {wall}, \"texts\": {texts:?}}}"
    );
    Ok(())
}

fn usage() -> Box<dyn std::error::Error> {
    "usage: candle FOLDER f32|f16|bf16 THREADS PROMPT_TOKENS SEQUENCES NEW_TOKENS".into()
}

/// Which tokens does not matter for the time; the peer makes the same.
fn prompt_of(sequence: usize, n: usize) -> Vec<TokenId> {
    (0..n).map(|i| ((i * 7919 + sequence * 31) % 256) as TokenId).collect()
}

fn step(decoder: &mut dyn Decoder, texts: &mut [Vec<TokenId>], go: &CancelToken) -> Result<()> {
    let last: Vec<[TokenId; 1]> = texts.iter().map(|text| [text.last().copied().unwrap_or(0)]).collect();
    let feeds: Vec<Feed<'_>> = (0u32..).zip(&last).map(|(seq, tokens)| Feed { seq, tokens }).collect();
    decoder.feed(&feeds, go)?;
    for (i, text) in texts.iter_mut().enumerate() {
        text.push(likeliest(decoder.logits(i)?));
    }
    Ok(())
}

fn likeliest(logits: &[f32]) -> TokenId {
    let best = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (id, &logit)| if logit > best.1 { (id, logit) } else { best });
    best.0 as TokenId
}
