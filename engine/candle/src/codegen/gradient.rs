//! CodeGen's loss and gradient on the CPU in f32, written out.
//!
//! The same function as the forward pass with `Ops::Differentiable` and candle's backward pass, in a fraction of the time: products
//! are added straight into the gradients, operations between them are done in place, rows that nothing is learned from get no
//! logits, and no memory is allocated from one batch to the next.

use candle_core::{Result, bail};

use super::{CodeGen, Part, names};
use crate::cpu::causal::{self, Causal, Head};
use crate::cpu::product::{Target, View, multiply};
use crate::cpu::rows::{CrossEntropy, RowNorm, add_rows, bias_gelu, gelu_backward};
use crate::kernels::{Values, values};
use crate::layers::{Linear, Norm};
use crate::trainable::{Batch, Gradient, Gradients, Loss};

/// Logits of one piece, in rows: with a vocabulary of thousands more would leave the caches.
const HEAD_ROWS: usize = 128;

/// What is kept of a layer for the backward pass.
#[derive(Default)]
struct Kept {
    /// `[rows, n_embd]`: what goes into the block, and after its norm.
    input: Vec<f32>,
    normed: Vec<f32>,
    /// `[rows, 3 * n_embd]`: queries, values and keys, the former and the latter turned.
    fused: Vec<f32>,
    /// `[rows, n_embd]`.
    attended: Vec<f32>,
    /// `[rows, n_head]`.
    levels: Vec<f32>,
    /// `[rows, n_inner]`, before the activation.
    inner: Vec<f32>,
}

/// Buffers of a pass.
#[derive(Default)]
pub(super) struct Room {
    /// One of each layer; with recomputation all but `input` are in the first alone.
    layers: Vec<Kept>,
    x: Vec<f32>,
    hidden: Vec<f32>,
    chosen: Vec<f32>,
    normed: Vec<f32>,
    logits: Vec<f32>,
    d_normed: Vec<f32>,
    d_x: Vec<f32>,
    d_wide: Vec<f32>,
    d_fused: Vec<f32>,
}

/// `buffer` with `len` numbers of any value.
fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// A weight `[out, in]` for the length of a pass, and its name.
struct Matrix<'a> {
    name: String,
    weight: Values<'a>,
    outputs: usize,
    inputs: usize,
    bias: Option<(String, Values<'a>)>,
}

impl<'a> Matrix<'a> {
    fn of(linear: &'a Linear, name: &str) -> Result<Self> {
        let (outputs, inputs) = linear.weight().dims2()?;
        let bias = linear.bias().map(|bias| (format!("{name}.bias"), values(bias)));
        Ok(Self { name: format!("{name}.weight"), weight: values(linear.weight()), outputs, inputs, bias })
    }

    fn view(&self) -> Result<View<'_>> {
        Ok(View::new(self.weight.slice()?, self.outputs, self.inputs))
    }

    fn bias(&self) -> Result<Option<&[f32]>> {
        self.bias.as_ref().map(|(_, bias)| bias.slice()).transpose()
    }

    /// `x [rows, in]` times the weight's transpose; the bias is left to the caller.
    fn forward(&self, x: &[f32], y: &mut [f32], add: bool) -> Result<()> {
        let rows = y.len() / self.outputs;
        let target = Target { data: y, row_stride: self.outputs, add };
        multiply(target, View::new(x, rows, self.inputs), self.view()?.t());
        Ok(())
    }

    /// Adds to the gradients of weight and bias, and writes or adds that of `x` to `d_x`.
    fn backward(
        &self,
        x: &[f32],
        d_y: &[f32],
        gradients: &mut Gradients,
        d_x: &mut [f32],
        add: bool,
    ) -> Result<()> {
        let rows = d_y.len() / self.outputs;
        let d_rows = View::new(d_y, rows, self.outputs);
        let data = part(gradients, &self.name)?;
        multiply(
            Target { data, row_stride: self.inputs, add: true },
            d_rows.t(),
            View::new(x, rows, self.inputs),
        );
        if let Some((name, _)) = &self.bias {
            add_rows(part(gradients, name)?, d_y);
        }
        multiply(Target { data: d_x, row_stride: self.inputs, add }, d_rows, self.view()?);
        Ok(())
    }
}

fn part<'a>(gradients: &'a mut Gradients, name: &str) -> Result<&'a mut [f32]> {
    match gradients.get_mut(name) {
        Some(gradient) => Ok(gradient),
        None => bail!("no room for the gradient of {name}"),
    }
}

struct LayerNorm<'a> {
    name: String,
    weight: Values<'a>,
    bias: Values<'a>,
    epsilon: f32,
}

impl<'a> LayerNorm<'a> {
    fn of(norm: &'a Norm, name: &str) -> Result<Self> {
        let (weight, bias, epsilon) = norm.parts();
        let Some(bias) = bias else { bail!("{name} has no bias") };
        Ok(Self { name: name.into(), weight: values(weight), bias: values(bias), epsilon: epsilon as f32 })
    }

    fn rows(&self) -> Result<RowNorm<'_>> {
        Ok(RowNorm { weight: self.weight.slice()?, bias: self.bias.slice()?, epsilon: self.epsilon })
    }

    /// Adds to `d_x` and to the gradients.
    fn backward(&self, x: &[f32], d_y: &[f32], d_x: &mut [f32], gradients: &mut Gradients) -> Result<()> {
        let norm = self.rows()?;
        let mut d_weight = vec![0f32; norm.weight.len()];
        let mut d_bias = d_weight.clone();
        norm.backward(x, d_y, d_x, &mut d_weight, &mut d_bias);
        for (tensor, more) in [("weight", d_weight), ("bias", d_bias)] {
            let sum = part(gradients, &format!("{}.{tensor}", self.name))?;
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        Ok(())
    }
}

struct Block<'a> {
    norm: LayerNorm<'a>,
    qkv: Matrix<'a>,
    attention_output: Matrix<'a>,
    feed_forward_in: Matrix<'a>,
    feed_forward_out: Matrix<'a>,
}

impl<'a> Block<'a> {
    fn of(block: &'a super::Block, layer: usize) -> Result<Self> {
        let name = |tensor: &str| names::block(layer, tensor);
        Ok(Self {
            norm: LayerNorm::of(&block.norm, &name("ln_1"))?,
            qkv: Matrix::of(&block.qkv, &name("attn.qkv_proj"))?,
            attention_output: Matrix::of(&block.attention_output, &name("attn.out_proj"))?,
            feed_forward_in: Matrix::of(&block.feed_forward_in, &name("mlp.fc_in"))?,
            feed_forward_out: Matrix::of(&block.feed_forward_out, &name("mlp.fc_out"))?,
        })
    }

    /// Fills all of `kept` but its input, which is there; `hidden` becomes the activation.
    fn forward(&self, kept: &mut Kept, hidden: &mut Vec<f32>, causal: &Causal<'_>) -> Result<()> {
        let norm = self.norm.rows()?;
        let width = norm.weight.len();
        let rows = kept.input.len() / width;
        let normed = sized(&mut kept.normed, rows * width);
        norm.forward(&kept.input, normed);
        let fused = sized(&mut kept.fused, rows * causal.fused);
        self.qkv.forward(normed, fused, false)?;
        causal.rotate(fused, false);
        let attended = sized(&mut kept.attended, rows * width);
        causal.forward(fused, attended, sized(&mut kept.levels, rows * causal.heads.len()));
        let inner = sized(&mut kept.inner, rows * self.feed_forward_in.outputs);
        self.feed_forward_in.forward(normed, inner, false)?;
        let bias = self.feed_forward_in.bias()?.unwrap_or_default();
        let length = inner.len();
        bias_gelu(inner, bias, sized(hidden, length));
        Ok(())
    }
}

impl CodeGen {
    fn heads(&self) -> Vec<Head> {
        let dim = self.config.head_dim();
        (0..self.config.n_head)
            .map(|head| Head {
                query: self.config.head_rows(Part::Query, head),
                key: self.config.head_rows(Part::Key, head),
                value: self.config.head_rows(Part::Value, head),
                output: head * dim..(head + 1) * dim,
            })
            .collect()
    }

    pub(super) fn loss_written_out(&self, batch: &Batch<'_>, gradient: Option<Gradient<'_>>) -> Result<Loss> {
        let Ok(mut room) = self.room.lock() else { bail!("an earlier pass failed") };
        let Room { layers, x, hidden, chosen, normed, logits, d_normed, d_x, d_wide, d_fused } = &mut *room;
        let width = self.config.n_embd;
        let rows = batch.tokens.len();
        let heads = self.heads();
        let frequencies = self.rotary.frequencies();
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        let causal = Causal {
            lengths: &batch.lengths,
            heads: &heads,
            fused: 3 * width,
            width,
            turns: causal::turns(longest, frequencies),
            pairs: frequencies.len(),
        };
        let blocks: Vec<Block<'_>> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(layer, block)| Block::of(block, layer))
            .collect::<Result<_>>()?;
        let recompute = gradient.as_ref().is_none_or(|gradient| gradient.recompute);

        let embedding = values(&self.embedding);
        let embedding = embedding.slice()?;
        x.clear();
        for &token in &batch.tokens {
            x.extend_from_slice(&embedding[token as usize * width..][..width]);
        }
        layers.resize_with(blocks.len(), Kept::default);
        for (layer, block) in blocks.iter().enumerate() {
            layers[layer].input.clone_from(x);
            // Without the others' room: what the first layer keeps is overwritten by the next, and made again when it is needed.
            let mut input = std::mem::take(&mut layers[layer].input);
            let kept = &mut layers[if recompute { 0 } else { layer }];
            std::mem::swap(&mut kept.input, &mut input);
            block.forward(kept, hidden, &causal)?;
            block.attention_output.forward(&kept.attended, x, true)?;
            block.feed_forward_out.forward(hidden, x, true)?;
            if let Some(bias) = block.feed_forward_out.bias()? {
                for row in x.chunks_exact_mut(width) {
                    row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
                }
            }
            std::mem::swap(&mut kept.input, &mut input);
            layers[layer].input = input;
        }

        // Only the rows that something is learned from go on.
        chosen.clear();
        for &row in &batch.wanted {
            chosen.extend_from_slice(&x[row as usize * width..][..width]);
        }
        let final_norm = LayerNorm::of(&self.final_norm, names::FINAL_NORM)?;
        let mut output = Matrix::of(&self.output, names::OUTPUT)?;
        if self.config.tie_word_embeddings {
            output.name = names::EMBEDDING.into();
        }
        let normed = sized(normed, chosen.len());
        final_norm.rows()?.forward(chosen, normed);
        let d_normed_len = rows * width;
        let d_normed = sized(d_normed, d_normed_len);
        let mut loss = Loss::default();
        let (scale, mut gradients) = match gradient {
            Some(gradient) => (gradient.scale as f32, Some(gradient.sums)),
            None => (0.0, None),
        };
        for begin in (0..batch.wanted.len()).step_by(HEAD_ROWS) {
            let count = HEAD_ROWS.min(batch.wanted.len() - begin);
            let range = begin * width..(begin + count) * width;
            let logits = sized(logits, count * output.outputs);
            let bias = output.bias()?;
            if let Some(bias) = bias {
                logits.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
            }
            output.forward(&normed[range.clone()], logits, bias.is_some())?;
            let rows = CrossEntropy {
                targets: &batch.targets[begin..begin + count],
                weights: &batch.weights[begin..begin + count],
            };
            loss.add(rows.differentiate(logits, scale), rows.weights);
            if let Some(gradients) = &mut gradients {
                output.backward(&normed[range.clone()], logits, gradients, &mut d_normed[range], false)?;
            }
        }
        let Some(gradients) = gradients else { return Ok(loss) };

        // [wanted, width], then put where the rows are.
        let d_chosen = sized(hidden, chosen.len());
        d_chosen.fill(0.0);
        final_norm.backward(chosen, &d_normed[..chosen.len()], d_chosen, gradients)?;
        d_x.clear();
        d_x.resize(rows * width, 0.0);
        for (&row, d) in batch.wanted.iter().zip(d_chosen.chunks_exact(width)) {
            let to = &mut d_x[row as usize * width..][..width];
            to.iter_mut().zip(d).for_each(|(to, d)| *to += d);
        }
        for (layer, block) in blocks.iter().enumerate().rev() {
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
                block.forward(&mut first[0], hidden, &causal)?;
            } else if recompute {
                block.forward(&mut layers[0], hidden, &causal)?;
            }
            let kept = &mut layers[if recompute { 0 } else { layer }];
            let Kept { input, normed, fused, attended, levels, inner } = kept;
            let wide = sized(d_wide, inner.len().max(rows * width));
            let d_inner = &mut wide[..inner.len()];
            // The activation takes the place of what went into it, and the gradient of that the place of the activation's.
            multiply(
                Target { data: d_inner, row_stride: block.feed_forward_out.inputs, add: false },
                View::new(d_x, rows, width),
                block.feed_forward_out.view()?,
            );
            gelu_backward(inner, d_inner);
            let data = part(gradients, &block.feed_forward_out.name)?;
            let target = Target { data, row_stride: block.feed_forward_out.inputs, add: true };
            multiply(
                target,
                View::new(d_x, rows, width).t(),
                View::new(inner, rows, block.feed_forward_out.inputs),
            );
            if let Some((name, _)) = &block.feed_forward_out.bias {
                add_rows(part(gradients, name)?, d_x);
            }
            block.feed_forward_in.backward(normed, d_inner, gradients, d_normed, false)?;
            let d_attended = &mut wide[..rows * width];
            block.attention_output.backward(attended, d_x, gradients, d_attended, false)?;
            let d_fused = sized(d_fused, fused.len());
            causal.backward(fused, attended, levels, d_attended, d_fused);
            causal.rotate(d_fused, true);
            block.qkv.backward(normed, d_fused, gradients, d_normed, true)?;
            block.norm.backward(input, d_normed, d_x, gradients)?;
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
            }
        }
        let d_embedding = part(gradients, names::EMBEDDING)?;
        for (&token, d) in batch.tokens.iter().zip(d_x.chunks_exact(width)) {
            let to = &mut d_embedding[token as usize * width..][..width];
            to.iter_mut().zip(d).for_each(|(to, d)| *to += d);
        }
        Ok(loss)
    }
}
