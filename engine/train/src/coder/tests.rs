//! The trainer on a small corpus of its own making: as it is killed, in half precision, in passes, and whether it learns to copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use inhouse_candle::{Example, Lesson, LoadOptions, LowRankOptions, Trainable};
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed, Model};
use inhouse_core::lora::LoraChoice;
use inhouse_core::progress::Silent;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::config::{Config, EvaluationConfig, LoraConfig, Precision};
use super::run::{Report, Trainer, run};
use crate::optimizer::{AdamW, Optimizer};

/// Writes rows as a shard; its SHA-256.
fn shard(path: &Path, rows: &[(Vec<u16>, Vec<u8>)]) -> String {
    let (mut tokens, mut weights, mut starts) = (Vec::new(), Vec::new(), vec![0u32]);
    for (row, row_weights) in rows {
        tokens.extend(row.iter().flat_map(|token| token.to_le_bytes()));
        weights.extend_from_slice(row_weights);
        starts.push(weights.len() as u32);
    }
    let starts_bytes: Vec<u8> = starts.iter().flat_map(|start| start.to_le_bytes()).collect();
    let views = [
        ("tokens", TensorView::new(Dtype::U16, vec![weights.len()], &tokens).unwrap()),
        ("weights", TensorView::new(Dtype::U8, vec![weights.len()], &weights).unwrap()),
        ("starts", TensorView::new(Dtype::U32, vec![starts.len()], &starts_bytes).unwrap()),
    ];
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(path, &bytes).unwrap();
    Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows whose second half repeats the first, which is random, in two parts; a tokenizer of 64 words; four tasks.
fn corpus(folder: &Path) {
    let mut state = 12345u32;
    let mut next = |n: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % n
    };
    let mut rows = |count: usize, half: usize| -> Vec<(Vec<u16>, Vec<u8>)> {
        (0..count)
            .map(|_| {
                let first: Vec<u16> = (0..half + next(3) as usize).map(|_| 1 + next(63) as u16).collect();
                let tokens: Vec<u16> = first.iter().chain(&first).copied().chain([0]).collect();
                let weights =
                    (0..tokens.len()).map(|i| if i > first.len() { 100 } else { 4 * u8::from(i % 2 == 0) });
                (tokens.clone(), weights.collect())
            })
            .collect()
    };
    let mut shards = Vec::new();
    for (part, file, count, half) in
        [("short", "short-0", 30, 5), ("short", "short-1", 20, 6), ("full", "full-0", 40, 14)]
    {
        let rows = rows(count, half);
        let tokens: usize = rows.iter().map(|(tokens, _)| tokens.len()).sum();
        let sha256 = shard(&folder.join(file), &rows);
        shards.push(serde_json::json!({"part": part, "file": file, "rows": count, "tokens": tokens, "sha256": sha256}));
    }
    shard(&folder.join("eval.safetensors"), &rows(10, 8));
    shard(&folder.join("eval_no_api.safetensors"), &rows(10, 4));
    let tasks: Vec<String> = (0..4)
        .map(|i| {
            let kind = ["one", "two"][i % 2];
            serde_json::json!({"kind": kind, "prompt": "a b c\na", "prompt_no_api": "a", "name": "b", "line": " b c", "library": "l"})
                .to_string()
        })
        .collect();
    std::fs::write(folder.join("tasks.jsonl"), tasks.join("\n")).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/codegen/tokenizer.json");
    let tokenizer = std::fs::read_to_string(fixture).unwrap();
    let vocab_size = tokenizers::Tokenizer::from_bytes(tokenizer.as_bytes()).unwrap().get_vocab_size(true);
    std::fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
    let manifest = serde_json::json!({
        "version": 1, "vocab_size": vocab_size, "tokenizer": "tokenizer.json", "block_tokens": 40, "digest": "d", "shards": shards,
        "evaluation": {"perplexity": "eval.safetensors", "perplexity_no_api": "eval_no_api.safetensors", "tasks": "tasks.jsonl"}
    });
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
}

fn config(folder: &Path) -> Config {
    let text = format!(
        r#"
        [model.new]
        n_embd = 80
        n_layer = 2
        n_head = 4
        rotary_dim = 8
        n_positions = 64
        seed = 3
        [training]
        corpus = "{0}/corpus"
        out = "{0}/out"
        phase = [{{ part = "short", tokens = 400 }}, {{ part = "full", tokens = 800 }}]
        batch_tokens = 200
        pass_tokens = 64
        learning_rate = 3e-3
        warmup_steps = 2
        final_rate = 0.1
        checkpoint_every = 2
        [evaluation]
        every = 3
        "#,
        folder.display()
    );
    toml::from_str(&text).unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("corpus")).unwrap();
    corpus(&folder.path().join("corpus"));
    folder
}

fn weights(trainer: &Trainer) -> Vec<(String, Vec<f32>)> {
    trainer.optimizer.slots().map(|(name, slot)| (name.to_owned(), slot.weights.clone())).collect()
}

#[test]
fn a_batch_follows_from_the_step() {
    let folder = folder();
    let mut trainer = Trainer::new(&config(folder.path())).unwrap();
    assert_eq!(trainer.corpus.steps(), 2 + 4);
    let whole: Vec<_> = (1..=6).map(|step| trainer.corpus.batch(step).unwrap()).collect();
    // In any order, and none is left out or there twice.
    for step in [5usize, 1, 6, 3, 2, 4] {
        assert_eq!(trainer.corpus.batch(step as u64).unwrap(), whole[step - 1]);
    }
    let short: Vec<_> = whole[..2].concat();
    let again = super::corpus::Rows::read(&folder.path().join("corpus/short-0"), "", 64).unwrap();
    for (i, (tokens, weights)) in short.iter().enumerate().take(30) {
        let (row, row_weights) = again.row(i);
        assert!(row == tokens && row_weights == weights);
    }
    let tokens = |rows: &[(Vec<u32>, Vec<f32>)]| rows.iter().map(|(tokens, _)| tokens.len()).sum::<usize>();
    for rows in &whole {
        assert!((160..=240).contains(&tokens(rows)), "{}", tokens(rows));
    }
    assert!(whole[2][0].0.len() > 20, "the second phase has the long rows");
    // A damaged shard is not read.
    let path = folder.path().join("corpus/full-0");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = Trainer::new(&config(folder.path())).unwrap().corpus.batch(4).unwrap_err().to_string();
    assert!(error.contains("SHA-256"), "{error}");
}

#[test]
fn a_resumed_run_ends_as_an_undisturbed_one() {
    let folder = folder();
    let config = config(folder.path());
    let mut whole = Trainer::new(&config).unwrap();
    let losses: Vec<f64> = (0..6).map(|_| whole.step().unwrap().loss).collect();
    assert!(whole.finished() && losses.iter().all(|loss| loss.is_finite()));

    let snapshots = folder.path().join("snapshots");
    let mut first = Trainer::new(&config).unwrap();
    for step in 1..=4 {
        first.step().unwrap();
        if step == 3 {
            first.snapshot(&snapshots).unwrap();
        }
    }
    // Killed while it wrote another: what is not whole is not seen.
    std::fs::create_dir(snapshots.join(".partial")).unwrap();
    std::fs::write(snapshots.join(".partial/model.safetensors"), "half").unwrap();
    // Recomputation changes memory and time alone.
    let mut config = config;
    config.model.recompute = true;
    let mut second = Trainer::new(&config).unwrap();
    assert!(second.restore(&snapshots).unwrap());
    for loss in &losses[3..] {
        assert_eq!(second.step().unwrap().loss, *loss);
    }
    assert_eq!(second.rest.tokens, whole.rest.tokens);
    assert!(weights(&whole) == weights(&second), "the weights differ");

    config.training.learning_rate *= 2.0;
    let error = Trainer::new(&config).unwrap().restore(&snapshots).unwrap_err().to_string();
    assert!(error.contains("another `out`"), "{error}");
}

#[test]
fn passes_add_up_to_the_step() {
    let folder = folder();
    let mut config = config(folder.path());
    let mut parts = Trainer::new(&config).unwrap();
    config.training.pass_tokens = 0;
    let mut whole = Trainer::new(&config).unwrap();
    let (parts, whole) = (parts.step().unwrap(), whole.step().unwrap());
    assert!((parts.loss - whole.loss).abs() < 1e-6 && (parts.norm / whole.norm - 1.0).abs() < 1e-4);
}

#[test]
fn halves_train_with_masters_in_f32() {
    let folder = folder();
    for (precision, bound) in [(Precision::BF16, 0.05), (Precision::F16, 0.02)] {
        let mut config = config(folder.path());
        let mut exact = Trainer::new(&config).unwrap();
        config.model.precision = precision;
        let mut half = Trainer::new(&config).unwrap();
        // The masters are not the rounded copies.
        assert!(weights(&exact) == weights(&half));
        for _ in 0..3 {
            let (want, got) = (exact.step().unwrap(), half.step().unwrap());
            assert!(
                (got.loss - want.loss).abs() < bound * want.loss,
                "{precision:?}: {} {}",
                got.loss,
                want.loss
            );
            assert!(
                (got.norm / want.norm - 1.0).abs() < 4.0 * bound,
                "{precision:?}: {} {}",
                got.norm,
                want.norm
            );
        }
        assert_eq!(half.rest.scale.dynamic, precision == Precision::F16);
    }
}

#[test]
fn a_run_learns_to_copy_is_stopped_and_goes_on() {
    let folder = folder();
    let mut config = config(folder.path());
    config.training.phase[0].tokens = 4000;
    config.training.phase[1].tokens = 8000;
    config.training.checkpoint_every = 10;
    config.evaluation = EvaluationConfig { every: 25, rows: 5, tasks: 2, answer_tokens: 4 };
    let mut losses = Vec::new();
    let mut measured = Vec::new();
    // Stopped in the middle, as by a user.
    let cancel = CancelToken::new();
    let stopped = run(&config, false, &cancel, &Silent, &mut |report| {
        if let Report::Step(step) = report {
            losses.push(step.loss);
            if step.step == 33 {
                cancel.cancel();
            }
        }
    })
    .unwrap();
    assert!(!stopped.finished && stopped.steps == 33);
    let error = run(&config, false, &CancelToken::new(), &Silent, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("--resume"), "{error}");
    let outcome = run(&config, true, &CancelToken::new(), &Silent, &mut |report| match report {
        Report::Step(step) => losses.push(step.loss),
        Report::Measured(found) => measured.push(found.clone()),
        Report::Model { .. } => {}
    })
    .unwrap();
    assert!(outcome.finished && outcome.steps == 60 && losses.len() == 60);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[50..]) < 0.9 * mean(&losses[..5]), "{losses:?}");
    let last = measured.last().unwrap();
    assert_eq!((last.step, last.tasks["one"].n, last.tasks["two"].n, last.no_api.n), (60, 2, 2, 2));
    assert!(last.perplexity.is_some_and(|perplexity| perplexity > 1.0) && last.perplexity_no_api.is_some());
    for name in ["curve.csv", "curve.svg", "log.jsonl", "model/config.json", "model/tokenizer.json"] {
        assert!(folder.path().join("out").join(name).exists(), "{name}");
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("out/curve.csv")).unwrap().lines().count(), 61);
    // A time to finish by ends the schedule early.
    config.training.out = folder.path().join("hurried");
    config.training.finish_minutes = Some(1e-5);
    let hurried = run(&config, false, &CancelToken::new(), &Silent, &mut |_| {}).unwrap();
    assert!(hurried.finished && hurried.steps < 10, "{}", hurried.steps);
}

/// The circuit copies before anything is learned.
#[test]
fn the_induction_start_copies() {
    let folder = folder();
    let mut config = config(folder.path());
    config.model.new.as_mut().unwrap().n_embd = 160;
    config.model.new.as_mut().unwrap().n_head = 8;
    config.training.phase.remove(0);
    let mut accuracy = [0.0; 2];
    for (induction, accuracy) in [false, true].into_iter().zip(&mut accuracy) {
        config.model.new.as_mut().unwrap().induction = induction;
        *accuracy = Trainer::new(&config).unwrap().step().unwrap().accuracy;
    }
    assert!(accuracy[0] < 0.1 && accuracy[1] > 0.3, "{accuracy:?}");
}

#[test]
fn presets_are_read_and_mistakes_are_named() {
    for name in ["coder.toml", "codegenapi.toml", "adapter.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        Config::read(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        for (from, to, said) in [
            ("[training]", "[training]\nrate = 1", "rate"),
            ("\nbatch_tokens =", "\nbatch_tokens = 0 #", "training.batch_tokens"),
            ("\nclip_norm =", "\nclip_norm = 0.0 #", "training.clip_norm = 0"),
            ("\nprecision =", "\nprecision = \"f8\" #", "f8"),
        ] {
            assert!(text.contains(from), "{name}: {from}");
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = Config::read(&path).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("run.toml"), "{said}: {error}");
        }
    }
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    rank: usize,
    #[serde(default)]
    alpha: f64,
    samples: usize,
    rate: f64,
    weight_decay: f64,
    betas: [f64; 2],
    clip_norm: f64,
    models: Vec<ModelCase>,
}

#[derive(Deserialize)]
struct ModelCase {
    name: String,
    texts: Vec<Vec<u32>>,
    sources: Vec<Vec<u32>>,
    weights: Vec<Vec<f32>>,
    sum: f64,
    weight: f64,
    norm: f64,
    tensors: Vec<TensorCase>,
}

#[derive(Deserialize)]
struct TensorCase {
    name: String,
    norm: f64,
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// Every trainable tensor of every trainable model; `make_gradients.py` says what is in the fixture.
#[test]
fn gradients_and_a_step_are_pytorch_s() {
    compare_with_pytorch("reference.json", "samples.bin", |dir, _| {
        Trainable::load(dir, &LoadOptions::default()).unwrap()
    });
}

/// The same of low-rank updates, by the written-out gradients (CodeGen, llama) and by candle's (GPT-2, a window).
#[test]
fn gradients_and_a_step_of_adapters_are_pytorch_s() {
    compare_with_pytorch("lora.json", "lora.bin", |dir, reference| {
        let options = updates(reference.rank, reference.alpha, 0.0);
        let trainable = Trainable::load_updates(dir, &LoadOptions::default(), &options).unwrap();
        // A and B of each projection by the fixture's formula: that of PEFT begins with zeros.
        for (number, (_, variable)) in trainable.variables().iter().enumerate() {
            let values: Vec<f32> = (0..variable.elem_count())
                .map(|i| (((i * 7919 + number * 104_729) % 1009) as f64 / 1009.0 - 0.5) as f32 * 0.4)
                .collect();
            let tensor = Tensor::from_vec(values, variable.dims(), variable.device()).unwrap();
            variable.set(&tensor).unwrap();
        }
        trainable
    });
}

fn updates(rank: usize, alpha: f64, dropout: f64) -> LowRankOptions {
    LowRankOptions { rank, alpha, dropout, targets: Vec::new(), seed: 3 }
}

fn compare_with_pytorch(reference: &str, samples: &str, load: impl Fn(&Path, &Reference) -> Trainable) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let folder = fixtures.join("gradients");
    let reference: Reference =
        serde_json::from_str(&std::fs::read_to_string(folder.join(reference)).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join(samples)).unwrap();
    let mut samples = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    for case in &reference.models {
        let trainable = load(&fixtures.join(&case.name), &reference);
        let texts = case.texts.iter().zip(&case.sources).zip(&case.weights);
        let lessons: Vec<Lesson<'_>> = texts
            .map(|((tokens, source), weights)| Lesson { example: Example { source, tokens }, weights })
            .collect();
        let mut gradients = trainable.zero_gradients();
        let loss = trainable.gradient(&lessons, 1.0 / case.weight, &mut gradients).unwrap();
        assert!((loss.sum / case.sum - 1.0).abs() < 1e-4, "{}: {} {}", case.name, loss.sum, case.sum);
        assert!((loss.weight / case.weight - 1.0).abs() < 1e-6);
        let [beta1, beta2] = reference.betas;
        let constants = AdamW { weight_decay: reference.weight_decay, beta1, beta2, ..AdamW::default() };
        let named = trainable.variables().iter().map(|(name, variable)| (name.clone(), variable.clone()));
        let mut optimizer = Optimizer::new(named, constants).unwrap();
        let whole = optimizer.update(&gradients, reference.rate, Some(reference.clip_norm)).unwrap();
        assert!((whole / case.norm - 1.0).abs() < 1e-3, "{}: {whole} {}", case.name, case.norm);
        let after: BTreeMap<&str, &[f32]> =
            optimizer.slots().map(|(name, slot)| (name, slot.weights.as_slice())).collect();
        assert_eq!(gradients.len(), case.tensors.len(), "{}", case.name);
        for row in &case.tensors {
            let (got, weights) = (&gradients[&row.name], after[row.name.as_str()]);
            let at = |i: usize| i * got.len() / reference.samples;
            let want: Vec<f32> = samples.by_ref().take(reference.samples).collect();
            let stepped: Vec<f32> = samples.by_ref().take(reference.samples).collect();
            // What moves all scores of a softmax alike (the keys' biases) has a gradient of nothing but rounding.
            if row.norm < 1e-6 * case.norm {
                assert!(norm(got) < 1e-5 * case.norm, "{} {}", case.name, row.name);
                continue;
            }
            let error: Vec<f32> = want.iter().enumerate().map(|(i, want)| got[at(i)] - want).collect();
            let scale =
                norm(&want).max(row.norm * (reference.samples as f64 / got.len() as f64).sqrt() * 0.1);
            assert!(norm(&error) <= 1e-3 * scale, "{} {}: {} of {scale}", case.name, row.name, norm(&error));
            assert!((norm(got) / row.norm - 1.0).abs() < 1e-3, "{} {}", case.name, row.name);
            for (i, stepped) in stepped.iter().enumerate() {
                // The first step of Adam is the gradient over its own size: where that is next to nothing, rounding decides.
                let tiny = f64::from(want[i].abs()) < 1e-4 * row.norm / (got.len() as f64).sqrt();
                let error = (weights[at(i)] - stepped).abs();
                assert!(tiny || error < 1e-5, "{} {} {i}: {error}", case.name, row.name);
            }
        }
    }
    assert_eq!(samples.next(), None);
}

/// An adapter's run: killed and resumed it ends as an undisturbed one, dropout included; what it writes loads as an adapter that gives
/// the same model.
#[test]
fn an_adapter_is_trained_resumed_and_written() {
    let folder = folder();
    let mut config = config(folder.path());
    let base = folder.path().join("base");
    config.training.phase.remove(0);
    config.training.learning_rate = 1e-2;
    let plain = Trainer::new(&config).unwrap();
    plain.save(&base).unwrap();
    config.model.new = None;
    config.model.start = Some(base.clone());
    config.model.lora = Some(LoraConfig {
        rank: 4,
        alpha: 8.0,
        dropout: 0.1,
        targets: vec!["qkv_proj".into(), "fc_out".into()],
        seed: 1,
        base: Some("a base".into()),
    });
    let mut whole = Trainer::new(&config).unwrap();
    assert_eq!(weights(&whole).len(), 2 * 2 * 2);
    // The rows of this corpus are documents that end with token 0; the first step is that of the model without an update.
    assert!(whole.end.is_some());
    let first = whole.step().unwrap();
    config.model.lora.as_mut().unwrap().dropout = 0.0;
    let undropped = Trainer::new(&config).unwrap().step().unwrap();
    assert_eq!(first.loss, undropped.loss);
    config.model.lora.as_mut().unwrap().dropout = 0.1;
    whole.step().unwrap();
    let snapshots = folder.path().join("snapshots");
    whole.snapshot(&snapshots).unwrap();
    let mut second = Trainer::new(&config).unwrap();
    assert!(second.restore(&snapshots).unwrap());
    for _ in 0..2 {
        assert_eq!(whole.step().unwrap().loss, second.step().unwrap().loss);
    }
    assert!(weights(&whole) == weights(&second), "the weights differ");

    let written = folder.path().join("adapter");
    whole.save(&written).unwrap();
    let config_file = std::fs::read_to_string(written.join("adapter_config.json")).unwrap();
    for said in ["\"r\": 4", "\"lora_alpha\": 8", "fc_out", "qkv_proj", "a base"] {
        assert!(config_file.contains(said), "{said} is not in {config_file}");
    }
    let text = "a b c a b";
    let logits = |model: Arc<dyn Model>| {
        let tokens = model.tokenizer().encode(text).unwrap();
        let mut decoder = Arc::clone(&model).decoder(&DecoderOptions::default()).unwrap();
        decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &CancelToken::new()).unwrap();
        decoder.logits(0).unwrap().to_vec()
    };
    let trained = logits(whole.trainable.model(&base).unwrap());
    let options = LoadOptions::default();
    let loaded = logits(inhouse_candle::load_adapted(&base, &options, &[LoraChoice::new(&written)]).unwrap());
    let before = logits(inhouse_candle::load(&base, &options).unwrap());
    let distance = |other: &[f32]| trained.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(
        distance(&loaded) < 1e-3 && distance(&before) > 1e-2,
        "{} {}",
        distance(&loaded),
        distance(&before)
    );

    config.model.lora.as_mut().unwrap().targets = vec!["q_proj".into()];
    let error = Trainer::new(&config).err().unwrap().to_string();
    assert!(error.contains("q_proj") && error.contains("qkv_proj"), "{error}");
}
