//! The trainer against PyTorch, against itself in passes, and against itself when killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Var;
use inhouse_candle::{DType, Device, EncoderSettings, LoadOptions, Pooling, Towers, TrainableEncoder};
use inhouse_core::ApiDoc;
use inhouse_core::api::ApiKind;
use inhouse_core::encode::Role;
use inhouse_core::progress::Silent;
use serde::Deserialize;

use super::batch::Batch;
use super::config::{Config, TrainingConfig};
use super::distil::distil;
use super::examples::Examples;
use super::run::Trainer;
use super::step::{self, Tokens};
use crate::optimizer::{AdamW, Optimizer, values};
use crate::pairs::{ApiTable, Origin, Pair};
use crate::snapshot;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn load(settings: EncoderSettings) -> TrainableEncoder {
    let options = LoadOptions { dtype: DType::F32, device: Device::Cpu };
    TrainableEncoder::load(&fixtures().join("bert"), &options, Some(settings)).unwrap()
}

fn config(out: &Path) -> Config {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("retriever.toml")).unwrap();
    let mut config: Config = toml::from_str(&text).unwrap();
    config.training = TrainingConfig {
        out: out.to_owned(),
        steps: 6,
        batch: 6,
        queries_per_library: 3,
        hard_negatives: 1,
        warmup_steps: 2,
        learning_rate: 1e-3,
        ..config.training
    };
    config.model.freeze_embeddings = false;
    config
}

#[derive(Deserialize)]
struct Reference {
    samples: usize,
    rate: f64,
    weight_decay: f64,
    clip_norm: f64,
    masked: Vec<(usize, usize)>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    towers: Towers,
    pooling: Pooling,
    normalize: bool,
    temperature: f64,
    queries: Vec<Vec<u32>>,
    apis: Vec<Vec<u32>>,
    loss: f64,
    norm: f64,
    tensors: Vec<TensorRow>,
}

#[derive(Deserialize)]
struct TensorRow {
    name: String,
    norm: f64,
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
}

/// `make_training.py` says what is in the fixture.
#[test]
fn one_step_is_pytorch_s() {
    let folder = fixtures().join("training");
    let reference: Reference =
        serde_json::from_str(&std::fs::read_to_string(folder.join("reference.json")).unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("samples.bin")).unwrap();
    let mut samples =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    for case in &reference.cases {
        let encoder = load(EncoderSettings::new(case.pooling, case.normalize, 48, case.towers));
        let tokens = Tokens { queries: case.queries.clone(), apis: case.apis.clone() };
        let batch = Batch { masked: reference.masked.clone(), ..Batch::default() };
        let mut training = config(Path::new("")).training;
        training.temperature = case.temperature;
        let trained: Vec<(String, Var)> =
            encoder.variables().iter().map(|(name, variable)| (name.clone(), variable.clone())).collect();
        // In one pass, and in passes of two texts.
        let (loss, gradients) = step::gradients(&encoder, &tokens, &batch, &training, &trained).unwrap();
        training.chunk_texts = 2;
        let (cached_loss, cached) = step::gradients(&encoder, &tokens, &batch, &training, &trained).unwrap();
        assert!((loss.value - case.loss).abs() < 1e-4, "{} {}", loss.value, case.loss);
        assert!((loss.value - cached_loss.value).abs() < 1e-5);
        assert_eq!(gradients.len(), case.tensors.len());
        let mut optimizer = Optimizer::new(
            trained.iter().cloned(),
            AdamW { weight_decay: reference.weight_decay, ..AdamW::default() },
        )
        .unwrap();
        let norm_of_all = optimizer.update(&gradients, reference.rate, Some(reference.clip_norm)).unwrap();
        assert!((norm_of_all / case.norm - 1.0).abs() < 1e-3, "{norm_of_all} {}", case.norm);
        for row in &case.tensors {
            let (got, cached) = (&gradients[&row.name], &cached[&row.name]);
            let weights = values(encoder.variables()[&row.name].as_tensor()).unwrap();
            let at = |i: usize| i * got.len() / reference.samples;
            let want: Vec<f32> = samples.by_ref().take(reference.samples).collect();
            let after: Vec<f32> = samples.by_ref().take(reference.samples).collect();
            // What moves all scores of a softmax alike (the keys' biases, the last bias of the APIs' tower) has a gradient of
            // nothing but rounding.
            if row.norm < 1e-6 * case.norm {
                assert!(norm(got) < 1e-5 * case.norm, "{}", row.name);
                continue;
            }
            let error: Vec<f32> = want.iter().enumerate().map(|(i, want)| got[at(i)] - want).collect();
            let scale =
                norm(&want).max(row.norm * (reference.samples as f64 / got.len() as f64).sqrt() * 0.1);
            assert!(norm(&error) <= 1e-3 * scale, "{}: {} of {scale}", row.name, norm(&error));
            assert!((norm(got) / row.norm - 1.0).abs() < 1e-3, "{}", row.name);
            let error: Vec<f32> = got.iter().zip(cached).map(|(got, cached)| got - cached).collect();
            assert!(norm(&error) <= 1e-4 * row.norm, "{}: in passes {}", row.name, norm(&error));
            for (i, after) in after.iter().enumerate() {
                // The first step of Adam is the gradient over its own size: where that is next to nothing, rounding decides.
                let tiny = f64::from(want[i].abs()) < 1e-4 * row.norm / (got.len() as f64).sqrt();
                assert!(tiny || (weights[at(i)] - after).abs() < 1e-5, "{} {i}", row.name);
            }
        }
    }
    assert_eq!(samples.next(), None);
}

/// Two made-up libraries of ten APIs each, with a query or two for each.
fn examples(work: &Path) -> Examples {
    const WORDS: [&str; 10] =
        ["sum", "list", "file", "name", "value", "line", "text", "parse", "module", "class"];
    let mut apis = Vec::new();
    let mut pairs = Vec::new();
    for library in ["loom", "mill"] {
        for (i, word) in WORDS.iter().enumerate() {
            let other = WORDS[(i + 3) % WORDS.len()];
            let name = format!("{word}_{library}");
            apis.push(ApiDoc {
                qualified_name: format!("{library}.{name}"),
                name: name.clone(),
                module: library.into(),
                kind: Some(ApiKind::Function),
                signature: "(a, b)".into(),
                description: format!("Returns the {word} of each {other} in {library}."),
                ..ApiDoc::default()
            });
            for query in [format!("get the {word} of the {other}"), format!("now {word} all {other} again")] {
                pairs.push(Pair {
                    query,
                    origin: Origin::Comment,
                    apis: vec![format!("{library}.{name}")],
                    guessed: false,
                    path: String::new(),
                    line: 1,
                });
            }
        }
    }
    Examples::new(ApiTable::new(apis), &pairs, work, true, &Silent).unwrap()
}

#[test]
fn a_batch_follows_from_seed_and_step() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path());
    let training = config(folder.path()).training;
    let draw = |step| Batch::draw(&examples, &training, step).unwrap();
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
    for step in 1..30 {
        let batch = draw(step);
        assert_eq!(batch.queries.len(), 6);
        assert!(batch.apis.len() > 6, "negatives are mined");
        // Drawn twice, an API must not be its own negative.
        for (q, positive) in batch.apis[..6].iter().enumerate() {
            for (a, other) in batch.apis.iter().enumerate() {
                assert!(
                    a == q || other != positive || batch.masked.contains(&(q, a)),
                    "step {step}: {q} {a}"
                );
            }
        }
    }
}

fn weights(encoder: &TrainableEncoder) -> BTreeMap<String, Vec<f32>> {
    let all = encoder.variables().iter();
    all.map(|(name, variable)| (name.clone(), values(variable.as_tensor()).unwrap())).collect()
}

#[test]
fn a_resumed_run_ends_as_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path());
    let config = config(folder.path());
    let settings = || EncoderSettings::new(Pooling::Mean, true, 48, Towers::Tied);
    let whole = load(settings());
    let mut trainer = Trainer::new(&config, &whole, &examples).unwrap();
    let losses: Vec<f64> =
        (0..config.training.steps).map(|_| trainer.step(&config, &whole, &examples).unwrap().loss).collect();
    assert!(losses.iter().all(|loss| loss.is_finite()));

    let snapshots = folder.path().join("checkpoints");
    let first = load(settings());
    let mut trainer = Trainer::new(&config, &first, &examples).unwrap();
    for step in 1..=4 {
        trainer.step(&config, &first, &examples).unwrap();
        if step == 3 {
            snapshot::write(&snapshots, &trainer.optimizer, &trainer.run, &()).unwrap();
        }
    }
    // Killed while it wrote another: what is not whole is not seen.
    std::fs::create_dir(snapshots.join(".partial")).unwrap();
    std::fs::write(snapshots.join(".partial/model.safetensors"), "half").unwrap();
    let second = load(settings());
    let mut trainer = Trainer::new(&config, &second, &examples).unwrap();
    assert!(snapshot::restore::<()>(&snapshots, &mut trainer.optimizer, &trainer.run).unwrap().is_some());
    for loss in &losses[3..] {
        assert_eq!(trainer.step(&config, &second, &examples).unwrap().loss, *loss);
    }
    assert_eq!(trainer.optimizer.step(), config.training.steps);
    assert!(weights(&whole) == weights(&second), "the weights differ");

    let mut other = config.clone();
    other.training.seed += 1;
    let mut trainer = Trainer::new(&other, &second, &examples).unwrap();
    let error = snapshot::restore::<()>(&snapshots, &mut trainer.optimizer, &trainer.run).unwrap_err();
    assert!(error.to_string().contains("another `out`"), "{error}");

    let saved = folder.path().join("encoder");
    second.save(&saved).unwrap();
    let again = TrainableEncoder::load(&saved, &LoadOptions::default(), None).unwrap();
    assert!(weights(&again) == weights(&second));
}

#[test]
fn training_lowers_the_loss() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(folder.path());
    let mut config = config(folder.path());
    config.training = TrainingConfig { steps: 40, batch: 12, learning_rate: 2e-3, ..config.training };
    let encoder = load(EncoderSettings::new(Pooling::Mean, true, 48, Towers::Tied));
    let mut trainer = Trainer::new(&config, &encoder, &examples).unwrap();
    let losses: Vec<f64> =
        (0..40).map(|_| trainer.step(&config, &encoder, &examples).unwrap().loss).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[30..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn an_encoder_without_layers_is_the_mean_of_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(&folder.path().join("indexes"));
    let out = folder.path().join("start");
    distil(&fixtures().join("bert"), &LoadOptions::default(), &examples, &out, &Silent).unwrap();
    let encoder = TrainableEncoder::load(&out, &LoadOptions::default(), None).unwrap();
    let rows = values(encoder.variables()["embeddings.word_embeddings.weight"].as_tensor()).unwrap();
    let text = encoder.tokenizer().encode("parse the file").unwrap();
    let got = values(&encoder.encode_tokens(Role::Query, &[&text]).unwrap()).unwrap();
    let width = got.len();
    let row = |token: u32| &rows[token as usize * width..][..width];
    let mut want = vec![0f32; width];
    for &token in &text {
        want.iter_mut().zip(row(token)).for_each(|(sum, value)| *sum += value);
    }
    let dot: f32 = got.iter().zip(&want).map(|(x, y)| x * y).sum();
    let cosine = f64::from(dot) / (norm(&got) * norm(&want));
    assert!(cosine > 0.99 && (norm(&got) - 1.0).abs() < 1e-4, "{cosine}");
    // It learns as any other.
    let mut config = config(folder.path());
    config.training = TrainingConfig { steps: 20, batch: 12, learning_rate: 1e-2, ..config.training };
    let mut trainer = Trainer::new(&config, &encoder, &examples).unwrap();
    let losses: Vec<f64> =
        (0..20).map(|_| trainer.step(&config, &encoder, &examples).unwrap().loss).collect();
    assert!(losses[15..].iter().sum::<f64>() < losses[..5].iter().sum::<f64>(), "{losses:?}");
}
