//! Times the project's own path from prompt to text on a GGUF model, for `benches/peers/llama.py`:
//!
//!     llama MODEL THREADS prefill TOKENS
//!     llama MODEL THREADS decode TOKENS
//!     llama MODEL THREADS samples PROMPT_TOKENS N TOKENS SEQUENCES
//!     llama MODEL THREADS serial PROMPT_TOKENS N TOKENS
//!     llama MODEL THREADS constrained INDEX CONTEXT_FILE N TOKENS SEQUENCES ROUNDS
//!
//! `decode` and `samples` go through the whole loop (sampling at the paper's settings, text, stop rules); `serial` draws
//! the same samples one after another, each with a prefill of its own; `constrained` draws samples after a context without and
//! with the constraint of an index, in turns, and prints the CPU seconds of each round. The others print one JSON object: seconds of the prompt, of
//! the rest, tokens, and memory: of the weights' file, of the KV cells, and the process's peak.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use inhouse_core::constrain::{ApiConstraint, ApiNames, Library, Vocabulary};
use inhouse_core::decode::{
    CancelToken, Constraint, Decoder, DecoderOptions, Feed, Generation, Model, Request, SamplingParams,
    StopRules, TokenId, Tokenizer, generate,
};
use inhouse_core::index::Index;
use inhouse_llama::{LoadOptions, load};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The model's tokenizer without an end of text, so that every sample has all its tokens.
struct Endless<'t>(&'t dyn Tokenizer);

impl Tokenizer for Endless<'_> {
    fn encode(&self, text: &str) -> inhouse_core::Result<Vec<TokenId>> {
        self.0.encode(text)
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.0.token_bytes(token)
    }

    fn is_end(&self, _token: TokenId) -> bool {
        false
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        self.0.is_sampleable(token) && !self.0.is_end(token)
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }
}

/// Seconds of the prompt and of the rest, and tokens of both.
#[derive(Default)]
struct Measured {
    prefill_seconds: f64,
    decode_seconds: f64,
    prompt_tokens: usize,
    new_tokens: usize,
    /// Memory of the decoder before its first pass: all cells, and nothing else worth counting.
    kv_kib: u64,
}

struct Bench {
    model: Arc<dyn Model>,
    threads: usize,
}

impl Bench {
    fn decoder(&self, sequences: usize, cells: usize) -> Result<Box<dyn Decoder>> {
        let options = DecoderOptions {
            sequences,
            kv_cells: Some(cells),
            threads: Some(self.threads),
            ..DecoderOptions::default()
        };
        Ok(Arc::clone(&self.model).decoder(&options)?)
    }

    /// Some tokens of the vocabulary; which does not matter for the time.
    fn prompt(&self, n: usize) -> Vec<TokenId> {
        (0..n).map(|i| (i * 7919 % 256) as TokenId).collect()
    }

    fn prefill(&self, n: usize) -> Result<Measured> {
        let mut decoder = self.decoder(1, n)?;
        let tokens = self.prompt(n);
        let mut feed = |tokens: &[TokenId]| -> Result<f64> {
            decoder.rewind(0, 0)?;
            let start = Instant::now();
            decoder.feed(&[Feed { seq: 0, tokens }], &CancelToken::new())?;
            Ok(start.elapsed().as_secs_f64())
        };
        feed(&tokens)?;
        let prefill_seconds = feed(&tokens)?;
        Ok(Measured { prefill_seconds, prompt_tokens: n, ..Measured::default() })
    }

    fn generate(
        &self,
        decoder: &mut dyn Decoder,
        prompt: usize,
        n: usize,
        max_tokens: usize,
        seed: u64,
    ) -> Result<Generation> {
        self.generate_after(decoder, self.prompt(prompt), n, max_tokens, seed, None)
    }

    fn generate_after(
        &self,
        decoder: &mut dyn Decoder,
        prompt: Vec<TokenId>,
        n: usize,
        max_tokens: usize,
        seed: u64,
        constraint: Option<Arc<dyn Constraint>>,
    ) -> Result<Generation> {
        let request = Request {
            prompt,
            n,
            params: SamplingParams::default(),
            seed,
            max_tokens,
            // Looked for as others, and never found: every sample has all its tokens.
            stops: StopRules::new(["\u{1}\n\u{1}"]),
            ends: Vec::new(),
            silent: Vec::new(),
            log_probabilities: false,
            constraint,
            healed: 0,
            greedy_first: false,
        };
        let tokenizer = Endless(self.model.tokenizer());
        Ok(generate(decoder, &tokenizer, &request, &CancelToken::new(), &mut |_| ControlFlow::Continue(()))?)
    }

    fn samples(&self, prompt: usize, n: usize, tokens: usize, sequences: usize) -> Result<Measured> {
        let before = memory("RssAnon").unwrap_or(0);
        let mut decoder = self.decoder(sequences, prompt + sequences * tokens)?;
        let kv_kib = memory("RssAnon").unwrap_or(0).saturating_sub(before);
        self.warm_up(&mut *decoder)?;
        let mut measured = Measured { kv_kib, ..Measured::default() };
        measured.add(&self.generate(&mut *decoder, prompt, n, tokens, 1)?);
        Ok(measured)
    }

    fn serial(&self, prompt: usize, n: usize, tokens: usize) -> Result<Measured> {
        let mut decoder = self.decoder(1, prompt + tokens)?;
        self.warm_up(&mut *decoder)?;
        let mut measured = Measured::default();
        for i in 0..n {
            measured.add(&self.generate(&mut *decoder, prompt, 1, tokens, i as u64)?);
        }
        Ok(measured)
    }

    fn constrained(&self, index: &str, context: &str, numbers: &[usize]) -> Result<String> {
        let &[n, tokens, sequences, rounds] = numbers else {
            return Err("constrained: N TOKENS SEQUENCES ROUNDS".into());
        };
        let context = std::fs::read_to_string(context)?;
        let tokenizer = self.model.tokenizer();
        let library = Arc::new(Library::of_index(&Index::open(Path::new(index))?)?);
        let names = Arc::new(ApiNames::new(library, Arc::new(Vocabulary::new(tokenizer))));
        let prompt = tokenizer.encode(&context)?;
        let mut decoder = self.decoder(sequences, prompt.len() + sequences * tokens)?;
        let (mut plain, mut constrained) = (Vec::new(), Vec::new());
        let mut statistics = None;
        for round in 0..=rounds {
            for with in [round % 2 == 0, round % 2 == 1] {
                let before = cpu_seconds();
                let constraint = with.then(|| Arc::new(ApiConstraint::new(Arc::clone(&names), &context)));
                let dynamic = constraint.clone().map(|constraint| constraint as Arc<dyn Constraint>);
                self.generate_after(&mut *decoder, prompt.clone(), n, tokens, round as u64, dynamic)?;
                let seconds = cpu_seconds() - before;
                // The first round warms up.
                if round > 0 {
                    if with { constrained.push(seconds) } else { plain.push(seconds) }
                }
                statistics = constraint.map(|constraint| constraint.statistics()).or(statistics);
            }
        }
        Ok(format!(
            "{{\"plain\": {plain:?}, \"constrained\": {constrained:?}, \"last\": \"{statistics:?}\"}}"
        ))
    }

    fn warm_up(&self, decoder: &mut dyn Decoder) -> Result<()> {
        self.generate(decoder, 16, 1, 2, 0).map(drop)
    }
}

impl Measured {
    fn add(&mut self, generation: &Generation) {
        self.prefill_seconds += generation.seconds_prefill;
        self.decode_seconds += generation.seconds_decode;
        self.prompt_tokens += generation.prompt_tokens;
        self.new_tokens +=
            generation.completions.iter().map(|completion| completion.completion_tokens).sum::<usize>();
    }
}

/// CPU seconds of all threads that are alive.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(nanoseconds).sum::<u64>() as f64 / 1e9
}

/// A line of `/proc/self/status` in KiB.
fn memory(line: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, threads, mode, numbers @ ..] = arguments.as_slice() else {
        return Err("usage: llama MODEL THREADS prefill|decode|samples|serial NUMBERS".into());
    };
    let (texts, numbers) = numbers.split_at(if mode == "constrained" { 2.min(numbers.len()) } else { 0 });
    let numbers = numbers.iter().map(|text| text.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
    let path = Path::new(model);
    let model = load(path, &LoadOptions::default())?;
    let bench = Bench { model, threads: threads.parse()? };
    if let [index, context] = texts {
        println!("{}", bench.constrained(index, context, &numbers)?);
        return Ok(());
    }
    let weights_kib = std::fs::metadata(path)?.len() / 1024;
    let measured = match (mode.as_str(), numbers.as_slice()) {
        ("prefill", [n]) => bench.prefill(*n)?,
        ("decode", [n]) => bench.samples(1, 1, *n, 1)?,
        ("samples", [prompt, n, tokens, sequences]) => bench.samples(*prompt, *n, *tokens, *sequences)?,
        ("serial", [prompt, n, tokens]) => bench.serial(*prompt, *n, *tokens)?,
        _ => return Err(format!("no mode `{mode}` with {} numbers", numbers.len()).into()),
    };
    println!(
        "{{\"prefill_seconds\": {}, \"decode_seconds\": {}, \"prompt_tokens\": {}, \"new_tokens\": {}, \"weights_kib\": {}, \"kv_kib\": {}, \"peak_kib\": {}}}",
        measured.prefill_seconds,
        measured.decode_seconds,
        measured.prompt_tokens,
        measured.new_tokens,
        weights_kib,
        measured.kv_kib,
        memory("VmHWM").map_or("null".to_owned(), |value| value.to_string()),
    );
    Ok(())
}
