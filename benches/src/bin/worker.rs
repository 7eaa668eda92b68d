//! What it costs to run a model in a worker process: the same completions in this process and through a worker, in turns.
//!
//!     worker MODEL PROGRAM [ROUNDS [TOKENS]]
//!
//! PROGRAM is `inhouse-worker`. For 1 and 50 samples side by side of TOKENS (100) after a prompt of about 60 (paper's
//! sampling, one thread): new tokens a second by the wall clock, and CPU seconds of both processes, each round; then the
//! medians of the rounds' ratios, worker to in-process.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use inhouse::{CancelToken, CompletionRequest, Engine, EngineOptions, StopRules, WorkerProgram};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PROMPT: &str =
    "import gaugewren as gw\n\n# read the log of the station and keep the rows of one day\nlog = ";

struct Side {
    name: &'static str,
    engine: Engine,
}

#[derive(Clone, Copy)]
struct Measured {
    tokens_per_second: f64,
    prefill_ms: f64,
    cpu_seconds: f64,
}

impl Side {
    fn open(name: &'static str, model: &Path, worker: Option<WorkerProgram>) -> Result<Self> {
        let options =
            EngineOptions { model: Some(model.into()), worker, threads: Some(1), ..EngineOptions::default() };
        Ok(Self { name, engine: Engine::open(&options)? })
    }

    /// CPU seconds of the threads of this process and of the worker.
    fn cpu(&self) -> Result<f64> {
        let mut nanoseconds = 0;
        for pid in ["self".to_owned()].into_iter().chain(self.engine.worker_pid().map(|pid| pid.to_string()))
        {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let statistics = std::fs::read_to_string(task?.path().join("schedstat"))?;
                nanoseconds += statistics.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(nanoseconds as f64 * 1e-9)
    }

    fn measure(&self, n: usize, n_tokens: usize, seed: u64) -> Result<Measured> {
        let mut session = self.engine.session(n)?;
        let request = CompletionRequest {
            n,
            seed,
            max_tokens: n_tokens,
            stops: StopRules::none(),
            ..CompletionRequest::new(PROMPT)
        };
        let mut complete =
            || session.complete(&request, &CancelToken::new(), &mut |_| ControlFlow::Continue(()));
        // Once for the caches.
        complete()?;
        let cpu = self.cpu()?;
        let repeats = if n == 1 { 5 } else { 1 };
        let (mut n_written, mut decode, mut prefill) = (0, 0.0, 0.0);
        for _ in 0..repeats {
            let result = complete()?;
            n_written += result.completion_tokens();
            decode += result.decode_seconds;
            prefill += result.prefill_seconds;
        }
        Ok(Measured {
            tokens_per_second: n_written as f64 / decode,
            prefill_ms: prefill * 1e3 / f64::from(repeats),
            cpu_seconds: self.cpu()? - cpu,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, program, rest @ ..] = arguments.as_slice() else {
        return Err("worker MODEL PROGRAM [ROUNDS [TOKENS]]".into());
    };
    let rounds: u64 = rest.first().map_or(Ok(5), |rounds| rounds.parse())?;
    let n_tokens = rest.get(1).map_or(Ok(100), |tokens| tokens.parse())?;
    let (model, program) = (PathBuf::from(model), PathBuf::from(program));
    let here = Side::open("in-process", &model, None)?;
    let there = Side::open("worker", &model, Some(WorkerProgram::At(program)))?;
    if let Some(info) = here.engine.model_info() {
        println!(
            "{}: {} M parameters, vocabulary {}",
            info.name,
            info.parameters / 1_000_000,
            info.vocab_size
        );
    }
    for n in [1, 50] {
        let mut ratios = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (a, b) = (here.measure(n, n_tokens, round)?, there.measure(n, n_tokens, round)?);
            for (side, m) in [(&here, a), (&there, b)] {
                println!(
                    "n = {n}, round {round}, {}: {:.1} tokens/s, prompt {:.2} ms, CPU {:.3} s",
                    side.name, m.tokens_per_second, m.prefill_ms, m.cpu_seconds
                );
            }
            ratios.0.push(b.tokens_per_second / a.tokens_per_second);
            ratios.1.push(b.prefill_ms / a.prefill_ms);
            ratios.2.push(b.cpu_seconds / a.cpu_seconds);
        }
        println!(
            "n = {n}, worker / in-process, median of {rounds}: tokens/s {:.3}, prompt {:.3}, CPU {:.3}\n",
            median(ratios.0),
            median(ratios.1),
            median(ratios.2)
        );
    }
    Ok(())
}
