//! Generates text with a GGUF model: `generate MODEL.gguf PROMPT [SAMPLES] [SEQUENCES] [THREADS]`.

use std::ops::ControlFlow;
use std::path::Path;

use inhouse_core::decode::{
    CancelToken, DecoderOptions, Event, Request, SamplingParams, StopRules, generate,
};
use inhouse_llama::{LoadOptions, load, validate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompt, numbers @ ..] = arguments.as_slice() else {
        return Err("usage: generate MODEL.gguf PROMPT [SAMPLES] [SEQUENCES] [THREADS]".into());
    };
    let number = |i: usize| numbers.get(i).map(|text| text.parse::<usize>()).transpose();
    let n = number(0)?.unwrap_or(1);

    let path = Path::new(model);
    eprintln!("{:?}", validate(path)?);
    let model = load(path, &LoadOptions::default())?;
    let options = DecoderOptions {
        sequences: number(1)?.unwrap_or(n.min(32)),
        threads: number(2)?,
        ..DecoderOptions::default()
    };
    let mut decoder = std::sync::Arc::clone(&model).decoder(&options)?;
    let request = Request {
        prompt: model.tokenizer().encode(prompt)?,
        n,
        params: SamplingParams::default(),
        seed: 0,
        max_tokens: 100,
        stops: StopRules::paper(),
        ends: Vec::new(),
        silent: Vec::new(),
        log_probabilities: false,
        constraint: None,
        healed: 0,
        greedy_first: false,
    };
    let generation =
        generate(&mut *decoder, model.tokenizer(), &request, &CancelToken::new(), &mut |event| {
            if let Event::Finished(completion) = event {
                println!("--- {} ({})\n{}", completion.index, completion.finish_reason, completion.text);
            }
            ControlFlow::Continue(())
        })?;
    let n_tokens: usize = generation.completions.iter().map(|completion| completion.completion_tokens).sum();
    eprintln!(
        "{} prompt tokens in {:.3} s, {n_tokens} tokens in {:.3} s: {:.1} tokens/s",
        generation.prompt_tokens,
        generation.seconds_prefill,
        generation.seconds_decode,
        n_tokens as f64 / generation.seconds_decode
    );
    Ok(())
}
