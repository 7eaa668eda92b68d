//! A network whose weights are variables: the forward passes of inference in the forms that have a backward pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::{D, DType, Tensor, Var};
use inhouse_core::decode::{CancelToken, Model, TokenId};
use inhouse_core::{Error, ErrorKind, Result, files};

use crate::attention::Rows;
use crate::checkpoint::{Checkpoint, write_safetensors};
use crate::config::ConfigFile;
use crate::layers::{Loader, Trained, Variables};
use crate::low_rank::LowRankOptions;
use crate::model::Network;
use crate::ops::Ops;
use crate::{LoadOptions, backend_error};

/// One text of a training batch.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// What the encoder reads, wrapped as the tokenizer wraps a text; empty for a model without an encoder.
    pub source: &'a [TokenId],
    /// What the decoder reads; for an encoder-decoder it begins with the decoder's start token.
    pub tokens: &'a [TokenId],
}

/// A text, and how much is learned from each of its tokens.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// The text. Of an encoder-decoder the decoder's start is its first token.
    pub example: Example<'a>,
    /// For each of `example.tokens` the weight of its loss, predicted from those before it; that of the first counts for nothing.
    pub weights: &'a [f32],
}

/// Gradients by the names of variables, each with its tensor's elements row-major.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// Cross-entropy over a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Loss {
    /// Sum of `weight * nats` over the tokens.
    pub sum: f64,
    /// Sum of weights.
    pub weight: f64,
    /// Sum of the weights of tokens that were the likeliest.
    pub right: f64,
}

impl Loss {
    pub(crate) fn add(&mut self, (sum, right): (f64, f64), weights: &[f32]) {
        self.sum += sum;
        self.right += right;
        self.weight += weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
    }

    /// The mean per unit of weight, in nats.
    pub fn mean(&self) -> f64 {
        self.sum / self.weight.max(f64::MIN_POSITIVE)
    }
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
        self.right += other.right;
    }
}

/// Lessons as the networks take them: rows of tokens, one text after the other.
pub(crate) struct Batch<'a> {
    pub tokens: Vec<TokenId>,
    /// Rows of each text.
    pub lengths: Vec<usize>,
    /// Rows after which a token of weight comes, and of each that token and its weight.
    pub wanted: Vec<u32>,
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
    pub examples: Vec<Example<'a>>,
}

impl<'a> Batch<'a> {
    fn new(lessons: &[Lesson<'a>]) -> Self {
        let examples: Vec<Example<'a>> = lessons.iter().map(|lesson| lesson.example).collect();
        let tokens = examples.iter().flat_map(|example| example.tokens).copied().collect();
        let lengths = examples.iter().map(|example| example.tokens.len()).collect();
        let (mut wanted, mut targets, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let mut begin = 0;
        for lesson in lessons {
            let tokens = lesson.example.tokens;
            for (i, (&token, &weight)) in tokens.iter().zip(lesson.weights).enumerate().skip(1) {
                if weight > 0.0 {
                    wanted.push((begin + i - 1) as u32);
                    targets.push(token);
                    weights.push(weight);
                }
            }
            begin += tokens.len();
        }
        Self { tokens, lengths, wanted, targets, weights, examples }
    }
}

/// Where a gradient goes, and how it is computed.
pub(crate) struct Gradient<'a> {
    /// Factor of the loss's sum.
    pub scale: f64,
    /// The gradient is added to these.
    pub sums: &'a mut Gradients,
    /// Whether each layer is computed again in the backward pass instead of being kept.
    pub recompute: bool,
}

/// A network to train: all its weights, or low-rank updates of its projections.
pub struct Trainable {
    config: ConfigFile,
    network: Arc<dyn Network>,
    variables: Variables,
    /// Of the network's own weights.
    parameters: u64,
    options: LoadOptions,
    recompute: bool,
}

impl Trainable {
    /// Loads a Hugging Face folder, or a GGUF file whose weights are dequantised, with all weights as variables.
    ///
    /// # Errors
    /// As [`crate::load`], the tokenizer left out; a GGUF file of another architecture than llama and qwen2.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self> {
        Self::with(path, options, Trained::Weights)
    }

    /// The same with low-rank updates of projections as the only variables (LoRA; Hu et al. 2021, arXiv 2106.09685). They begin as
    /// PEFT's do: A uniform, B zeros. The names of variables are those of the projections, with `.lora_A.weight [rank, in]` and
    /// `.lora_B.weight [out, rank]`.
    ///
    /// # Errors
    /// As [`Trainable::load`]; a target that is no projection.
    pub fn load_updates(path: &Path, options: &LoadOptions, updates: &LowRankOptions) -> Result<Self> {
        Self::with(path, options, Trained::Updates(updates.clone()))
    }

    fn with(path: &Path, options: &LoadOptions, trained: Trained) -> Result<Self> {
        let config = ConfigFile::read(path)?;
        let checkpoint = Checkpoint::open(path)?;
        let loader = Loader::new(&checkpoint, options.dtype.to_candle(), options.device.open()?, trained);
        let network = crate::network(&config, &loader)?;
        let parameters = loader.parameters();
        let variables = loader.into_variables()?;
        Ok(Self { config, network, variables, parameters, options: *options, recompute: false })
    }

    /// What is trained, by its names in the checkpoint.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables.by_name
    }

    /// What dropout leaves out follows from this number: another for each gradient.
    pub fn draw(&self, number: u64) {
        self.variables.draw.store(number, Ordering::Relaxed);
    }

    /// A model that runs on the weights as they are at each moment, with the tokenizer of a folder or GGUF file.
    ///
    /// # Errors
    /// The tokenizer cannot be read.
    pub fn model(&self, tokenizer: &Path) -> Result<Arc<dyn Model>> {
        let network = Arc::clone(&self.network);
        crate::assembled(&self.config, tokenizer, network, self.parameters, &self.options)
    }

    /// Writes config.json, and `weights` (shapes and values by the names of variables) in f32, so that [`Trainable::load`] and
    /// [`crate::load`] read them; the tokenizer is the caller's. Each file is replaced as a whole, the weights last.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn save(&self, dir: &Path, weights: &BTreeMap<&str, (Vec<usize>, Vec<f32>)>) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|cause| Error::io("create the folder", dir, cause))?;
        let config = format!("{}\n", self.config.to_json());
        files::write_atomic(&dir.join("config.json"), |file| file.write_all(config.as_bytes()))?;
        write_safetensors(&dir.join("model.safetensors"), weights)
    }

    /// The token that the decoder of an encoder-decoder begins with; `None`: the model has no encoder.
    pub fn decoder_start(&self) -> Option<TokenId> {
        self.network.encoder().map(|encoder| encoder.start())
    }

    /// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): of each layer only its input is kept, and the rest computed again
    /// in the backward pass.
    pub fn recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    /// Tokens of the vocabulary, padding included.
    pub fn vocab_size(&self) -> usize {
        self.network.vocab_size()
    }

    /// Tokens that a text may have.
    pub fn context_length(&self) -> usize {
        self.network.context_length()
    }

    /// A gradient of zeros.
    pub fn zero_gradients(&self) -> Gradients {
        let zeros = |variable: &Var| vec![0f32; variable.elem_count()];
        self.variables().iter().map(|(name, variable)| (name.clone(), zeros(variable))).collect()
    }

    /// The loss of a batch. None of it is padded, and only what has a weight gets logits.
    ///
    /// # Errors
    /// As [`Trainable::logits`]; weights that are not one for each token, or not finite and at least 0.
    pub fn loss(&self, lessons: &[Lesson<'_>]) -> Result<Loss> {
        self.differentiate(lessons, None)
    }

    /// The loss of a batch; `scale` times the gradient of its `sum` by each variable is added to `sums`.
    ///
    /// # Errors
    /// As [`Trainable::loss`].
    pub fn gradient(&self, lessons: &[Lesson<'_>], scale: f64, sums: &mut Gradients) -> Result<Loss> {
        self.differentiate(lessons, Some(Gradient { scale, sums, recompute: self.recompute }))
    }

    fn differentiate(&self, lessons: &[Lesson<'_>], gradient: Option<Gradient<'_>>) -> Result<Loss> {
        let batch = Batch::new(lessons);
        self.check(&batch.examples)?;
        for (i, lesson) in lessons.iter().enumerate() {
            let good = |weight: &f32| weight.is_finite() && *weight >= 0.0;
            if lesson.weights.len() != lesson.example.tokens.len() || !lesson.weights.iter().all(good) {
                let what = format!(
                    "example {i}: {} tokens and {} weights, or a weight below 0",
                    lesson.example.tokens.len(),
                    lesson.weights.len()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        }
        if batch.wanted.is_empty() {
            return Ok(Loss::default());
        }
        let mut gradient = gradient;
        let borrowed = gradient.as_mut().map(|gradient| Gradient {
            scale: gradient.scale,
            sums: gradient.sums,
            recompute: gradient.recompute,
        });
        match self.network.written_out(&batch, borrowed) {
            Some(loss) => loss.map_err(backend_error),
            None => self.derive(&batch, gradient).map_err(backend_error),
        }
    }

    /// The loss by the forward pass, and its gradient by candle's backward pass.
    fn derive(&self, batch: &Batch<'_>, gradient: Option<Gradient<'_>>) -> candle_core::Result<Loss> {
        let ops = if gradient.is_some() { Ops::Differentiable } else { Ops::Fused };
        let logits = self.forward(&batch.examples, &batch.wanted, ops)?;
        let device = logits.device().clone();
        let rows = batch.targets.len();
        let targets = Tensor::new(batch.targets.as_slice(), &device)?.unsqueeze(1)?;
        let weights = Tensor::new(batch.weights.as_slice(), &device)?;
        let top = logits.max_keepdim(D::Minus1)?.detach();
        let shifted = logits.broadcast_sub(&top)?;
        let own = shifted.gather(&targets, 1)?.reshape(rows)?;
        let nats = (shifted.exp()?.sum(D::Minus1)?.log()? - &own)?;
        let sum = (nats * &weights)?.sum_all()?;
        let right = (own.ge(0f64)?.to_dtype(DType::F32)? * &weights)?.sum_all()?;
        let mut loss = Loss::default();
        let scalar = |tensor: &Tensor| Ok::<_, candle_core::Error>(f64::from(tensor.to_scalar::<f32>()?));
        loss.add((scalar(&sum)?, scalar(&right)?), &batch.weights);
        if let Some(gradient) = gradient {
            let store = (sum * gradient.scale)?.backward()?;
            for (name, variable) in self.variables() {
                let Some(found) = store.get(variable.as_tensor()) else { continue };
                let found: Vec<f32> = found.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                match gradient.sums.get_mut(name) {
                    Some(sum) => sum.iter_mut().zip(found).for_each(|(sum, more)| *sum += more),
                    None => {
                        gradient.sums.insert(name.clone(), found);
                    }
                }
            }
        }
        Ok(loss)
    }

    /// Logits `[all tokens, vocab_size] f32` after each token of the examples, one example after the other; none is padded.
    /// Gradients flow back to every variable.
    ///
    /// # Errors
    /// No or an empty example, one that is longer than the context, a token out of range, a source for a model without an
    /// encoder or none for one with it, or a failing backend.
    pub fn logits(&self, examples: &[Example<'_>]) -> Result<Tensor> {
        self.check(examples)?;
        let count: usize = examples.iter().map(|example| example.tokens.len()).sum();
        let wanted: Vec<u32> = (0..count as u32).collect();
        self.forward(examples, &wanted, Ops::Differentiable).map_err(backend_error)
    }

    fn check(&self, examples: &[Example<'_>]) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let (vocab_size, context) = (self.network.vocab_size(), self.network.context_length());
        if examples.is_empty() {
            return wrong("no example to train on".into());
        }
        for (i, example) in examples.iter().enumerate() {
            let all = || example.source.iter().chain(example.tokens);
            if let Some(token) = all().find(|&&token| token as usize >= vocab_size) {
                return wrong(format!(
                    "example {i}: token {token} is not below the vocabulary's {vocab_size}"
                ));
            }
            let longest = example.source.len().max(example.tokens.len());
            if example.tokens.is_empty() || longest > context {
                return wrong(format!("example {i}: {longest} tokens are not within 1..={context}"));
            }
            if example.source.is_empty() == self.network.encoder().is_some() {
                return wrong(format!(
                    "example {i}: a source is for a model with an encoder, and needed there"
                ));
            }
        }
        Ok(())
    }

    fn forward(&self, examples: &[Example<'_>], wanted: &[u32], ops: Ops) -> candle_core::Result<Tensor> {
        let go = CancelToken::new();
        let memories = match self.network.encoder() {
            Some(encoder) => {
                let read = |example: &Example<'_>| encoder.encode(example.source, &go, ops).map(Some);
                examples.iter().map(read).collect::<candle_core::Result<Vec<_>>>()?
            }
            None => examples.iter().map(|_| None).collect(),
        };
        let mut begin = 0;
        let mut parts = Vec::with_capacity(examples.len());
        for (example, memory) in examples.iter().zip(&memories) {
            let count = example.tokens.len();
            parts.push(Rows { sequence: None, memory: memory.as_ref(), begin, count, cancel: None });
            begin += count;
        }
        let tokens: Vec<TokenId> = examples.iter().flat_map(|example| example.tokens).copied().collect();
        self.network.forward(&tokens, &mut parts, wanted, ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt()
    }

    /// What is written out for a network, with and without recomputation, against candle's backward pass over its forward pass: of all
    /// weights, and of updates with dropout.
    #[test]
    fn the_written_out_gradient_is_the_derived_one() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let updates = LowRankOptions { rank: 3, alpha: 5.0, dropout: 0.3, targets: Vec::new(), seed: 2 };
        let options = LoadOptions::default();
        for model in ["codegen", "llama", "qwen2"] {
            let dir = fixtures.join(model);
            agrees(model, Trainable::load(&dir, &options).unwrap());
            let adapted = Trainable::load_updates(&dir, &options, &updates).unwrap();
            for (i, variable) in adapted.variables().values().enumerate() {
                let values = (0..variable.elem_count()).map(|at| ((at * 37 + i) % 11) as f32 * 0.02 - 0.1);
                let values = Tensor::from_vec(values.collect(), variable.dims(), variable.device()).unwrap();
                variable.set(&values).unwrap();
            }
            adapted.draw(77);
            agrees(model, adapted);
        }
    }

    fn agrees(model: &str, mut trainable: Trainable) {
        let vocab = trainable.vocab_size();
        let texts: Vec<Vec<TokenId>> = [1usize, 5, 64, 90, 2]
            .iter()
            .map(|&n| (0..n).map(|i| ((i * i + 7 * n + i) % vocab) as TokenId).collect())
            .collect();
        let weights: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| (0..text.len()).map(|i| [1.0, 0.0, 0.4][(i * 5 + text.len()) % 3]).collect())
            .collect();
        let lessons: Vec<Lesson<'_>> = texts
            .iter()
            .zip(&weights)
            .map(|(tokens, weights)| Lesson { example: Example { source: &[], tokens }, weights })
            .collect();
        let batch = Batch::new(&lessons);
        let mut want = trainable.zero_gradients();
        let gradient = Gradient { scale: 0.5, sums: &mut want, recompute: false };
        let want_loss = trainable.derive(&batch, Some(gradient)).unwrap();
        assert!(want_loss.weight > 10.0);
        for recompute in [false, true] {
            trainable.recompute(recompute);
            let mut got = trainable.zero_gradients();
            // Twice, since it is added; the second time in used buffers.
            for _ in 0..2 {
                let loss = trainable.gradient(&lessons, 0.25, &mut got).unwrap();
                for (got, want) in [
                    (loss.sum, want_loss.sum),
                    (loss.weight, want_loss.weight),
                    (loss.right, want_loss.right),
                ] {
                    assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{model}: {got} {want}");
                }
            }
            let whole = want.values().map(|values| norm(values).powi(2)).sum::<f64>().sqrt();
            for (name, want) in &want {
                let error: Vec<f32> = got[name].iter().zip(want).map(|(got, want)| got - want).collect();
                let (error, size) = (norm(&error), norm(want));
                assert!(
                    error <= 1e-4 * size.max(1e-3 * whole),
                    "{model} {name}: {error} of {size}, all {whole}"
                );
            }
        }
        // Without a gradient nothing is dropped.
        let fused = trainable.derive(&batch, None).unwrap();
        let alone = trainable.loss(&lessons).unwrap();
        assert!((alone.sum - fused.sum).abs() < 1e-4 * fused.sum, "{model}: {} {}", alone.sum, fused.sum);
        assert!(trainable.network.written_out(&batch, None).is_some(), "{model}");
        let short = [Lesson { weights: &weights[2][1..], ..lessons[2] }];
        assert!(trainable.loss(&short).is_err());
        assert_eq!(trainable.loss(&lessons[..1]).unwrap(), Loss::default());
    }
}
