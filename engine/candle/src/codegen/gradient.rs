//! CodeGen's loss and gradient on the CPU in f32, written out.
//!
//! The same function as the forward pass with `Ops::Differentiable` and candle's backward pass, in a fraction of the time: products
//! are added straight into the gradients, operations between them are done in place, rows that nothing is learned from get no
//! logits, and no memory is allocated from one batch to the next.

use candle_core::Result;

use super::{CodeGen, Part, names};
use crate::cpu::causal::{self, Causal, Head};
use crate::cpu::product::View;
use crate::cpu::rows::{bias_gelu, gelu_again};
use crate::kernels::values;
use crate::ops::Pairs;
use crate::trainable::{Batch, Gradient, Loss};
use crate::written_out::{HeadRoom, Matrix, NormRows, embed, embed_backward, head, locked, sized};

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
    d_normed: Vec<f32>,
    d_x: Vec<f32>,
    d_wide: Vec<f32>,
    d_fused: Vec<f32>,
    head: HeadRoom,
}

struct Block<'a> {
    norm: NormRows<'a>,
    qkv: Matrix<'a>,
    attention_output: Matrix<'a>,
    feed_forward_in: Matrix<'a>,
    feed_forward_out: Matrix<'a>,
}

impl<'a> Block<'a> {
    fn of(block: &'a super::Block, layer: usize, training: bool) -> Result<Self> {
        let name = |tensor: &str| names::block(layer, tensor);
        Ok(Self {
            norm: NormRows::of(&block.norm, &name("ln_1")),
            qkv: Matrix::of(&block.qkv, &name("attn.qkv_proj"), training)?,
            attention_output: Matrix::of(&block.attention_output, &name("attn.out_proj"), training)?,
            feed_forward_in: Matrix::of(&block.feed_forward_in, &name("mlp.fc_in"), training)?,
            feed_forward_out: Matrix::of(&block.feed_forward_out, &name("mlp.fc_out"), training)?,
        })
    }

    /// Fills all of `kept` but its input, which is there; `hidden` becomes the activation.
    fn forward(&self, kept: &mut Kept, hidden: &mut Vec<f32>, causal: &Causal<'_>) -> Result<()> {
        let rows = kept.input.len() / causal.width;
        let normed = self.norm.forward(&kept.input, &mut kept.normed)?;
        let fused = sized(&mut kept.fused, rows * causal.fused);
        self.qkv.forward(normed, fused, causal.fused, false)?;
        causal.rotate(fused, false);
        let attended = sized(&mut kept.attended, rows * causal.width);
        causal.forward(fused, attended, sized(&mut kept.levels, rows * causal.heads.len()));
        let width = self.feed_forward_in.outputs;
        let inner = sized(&mut kept.inner, rows * width);
        self.feed_forward_in.forward(normed, inner, width, false)?;
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

    pub(super) fn loss_written_out(
        &self,
        batch: &Batch<'_>,
        mut gradient: Option<Gradient<'_>>,
    ) -> Result<Loss> {
        let mut room = locked(&self.room)?;
        let Room { layers, x, hidden, d_normed, d_x, d_wide, d_fused, head: head_room } = &mut *room;
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
            order: Pairs::Neighbours,
        };
        let training = gradient.is_some();
        let blocks: Vec<Block<'_>> = self
            .blocks
            .iter()
            .enumerate()
            .map(|(layer, block)| Block::of(block, layer, training))
            .collect::<Result<_>>()?;
        let recompute = gradient.as_ref().is_none_or(|gradient| gradient.recompute);

        embed(values(&self.embedding).slice()?, width, &batch.tokens, x);
        layers.resize_with(blocks.len(), Kept::default);
        for (layer, block) in blocks.iter().enumerate() {
            layers[layer].input.clone_from(x);
            // Without the others' room: what the first layer keeps is overwritten by the next, and made again when it is needed.
            let mut input = std::mem::take(&mut layers[layer].input);
            let kept = &mut layers[if recompute { 0 } else { layer }];
            std::mem::swap(&mut kept.input, &mut input);
            block.forward(kept, hidden, &causal)?;
            block.attention_output.forward(&kept.attended, x, width, true)?;
            block.feed_forward_out.forward(hidden, x, width, true)?;
            block.feed_forward_out.add_bias(x, width)?;
            std::mem::swap(&mut kept.input, &mut input);
            layers[layer].input = input;
        }

        let final_norm = NormRows::of(&self.final_norm, names::FINAL_NORM);
        let mut output = Matrix::of(&self.output, names::OUTPUT, training)?;
        if self.config.tie_word_embeddings {
            output.name = names::EMBEDDING.into();
        }
        let loss = head(&final_norm, &output, x, batch, gradient.as_mut(), head_room, d_x)?;
        let Some(Gradient { sums: gradients, .. }) = gradient else { return Ok(loss) };

        for (layer, block) in blocks.iter().enumerate().rev() {
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
            }
            if recompute {
                block.forward(&mut layers[0], hidden, &causal)?;
            }
            let kept = &mut layers[if recompute { 0 } else { layer }];
            let Kept { input, normed, fused, attended, levels, inner } = kept;
            let d_normed = sized(d_normed, rows * width);
            let wide = sized(d_wide, inner.len().max(rows * width));
            let d_inner = &mut wide[..inner.len()];
            let d_rows = View::new(d_x, rows, width);
            // The activation takes the place of what went into it.
            let slopes = sized(hidden, inner.len());
            gelu_again(inner, slopes);
            block.feed_forward_out.backward(inner, d_rows, gradients, d_inner, false)?;
            d_inner.iter_mut().zip(slopes).for_each(|(d, slope)| *d *= *slope);
            let d_inner = View::new(d_inner, rows, block.feed_forward_in.outputs);
            block.feed_forward_in.backward(normed, d_inner, gradients, d_normed, false)?;
            let d_attended = &mut wide[..rows * width];
            block.attention_output.backward(attended, d_rows, gradients, d_attended, false)?;
            let d_fused = sized(d_fused, fused.len());
            causal.backward(fused, attended, levels, d_attended, d_fused);
            causal.rotate(d_fused, true);
            let d_fused = View::new(d_fused, rows, causal.fused);
            block.qkv.backward(normed, d_fused, gradients, d_normed, true)?;
            block.norm.backward(input, d_normed, d_x, gradients)?;
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
            }
        }
        embed_backward(d_x, width, &batch.tokens, names::EMBEDDING, gradients);
        Ok(loss)
    }
}
