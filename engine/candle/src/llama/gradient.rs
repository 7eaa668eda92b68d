//! The llama family's loss and gradient on the CPU in f32, written out as CodeGen's is.
//!
//! For the backward pass a layer keeps what its products gave; what follows from that row by row (norms, the gated activation) is
//! computed again.

use candle_core::Result;

use super::Llama;
use crate::cpu::causal::{self, Causal, Head};
use crate::cpu::product::View;
use crate::cpu::rows::{gated_silu, gated_silu_backward};
use crate::kernels::values;
use crate::ops::Pairs;
use crate::trainable::{Batch, Gradient, Loss};
use crate::written_out::{HeadRoom, Matrix, NormRows, embed, embed_backward, head, locked, sized};

/// What is kept of a layer for the backward pass.
#[derive(Default)]
struct Kept {
    /// `[rows, hidden_size]`: what goes into the block, and into its feed-forward half.
    input: Vec<f32>,
    middle: Vec<f32>,
    /// `[rows, (heads + 2 kv_heads) * head_dim]`: queries, keys and values, the first two turned.
    fused: Vec<f32>,
    /// `[rows, heads * head_dim]`.
    attended: Vec<f32>,
    /// `[rows, heads]`.
    levels: Vec<f32>,
    /// `[rows, intermediate_size]`.
    gate: Vec<f32>,
    up: Vec<f32>,
}

/// Buffers of a pass.
#[derive(Default)]
pub(super) struct Room {
    /// One of each layer; with recomputation all but `input` are in the first alone.
    layers: Vec<Kept>,
    x: Vec<f32>,
    normed: Vec<f32>,
    hidden: Vec<f32>,
    d_normed: Vec<f32>,
    d_x: Vec<f32>,
    d_hidden: Vec<f32>,
    d_attended: Vec<f32>,
    d_fused: Vec<f32>,
    head: HeadRoom,
}

struct Block<'a> {
    attention_norm: NormRows<'a>,
    /// With the column of the fused matrix that each begins at.
    projections: [(Matrix<'a>, usize); 3],
    attention_output: Matrix<'a>,
    feed_forward_norm: NormRows<'a>,
    gate: Matrix<'a>,
    up: Matrix<'a>,
    down: Matrix<'a>,
}

impl<'a> Block<'a> {
    fn of(block: &'a super::Block, name: impl Fn(&str) -> String, training: bool) -> Result<Self> {
        let matrix = |linear: &'a _, tensor: &str| Matrix::of(linear, &name(tensor), training);
        let queries = matrix(&block.queries, "self_attn.q_proj")?;
        let keys = matrix(&block.keys, "self_attn.k_proj")?;
        let values = matrix(&block.values, "self_attn.v_proj")?;
        let (first, second) = (queries.outputs, queries.outputs + keys.outputs);
        Ok(Self {
            attention_norm: NormRows::of(&block.attention_norm, &name("input_layernorm")),
            projections: [(queries, 0), (keys, first), (values, second)],
            attention_output: matrix(&block.attention_output, "self_attn.o_proj")?,
            feed_forward_norm: NormRows::of(&block.feed_forward_norm, &name("post_attention_layernorm")),
            gate: matrix(&block.gate, "mlp.gate_proj")?,
            up: matrix(&block.up, "mlp.up_proj")?,
            down: matrix(&block.down, "mlp.down_proj")?,
        })
    }

    /// Fills all of `kept` but its input, which is there; `normed` and `hidden` are room.
    fn forward(
        &self,
        kept: &mut Kept,
        normed: &mut Vec<f32>,
        hidden: &mut Vec<f32>,
        causal: &Causal<'_>,
    ) -> Result<()> {
        let width = self.attention_output.outputs;
        let rows = kept.input.len() / width;
        let fused = sized(&mut kept.fused, rows * causal.fused);
        let rows_in = self.attention_norm.forward(&kept.input, normed)?;
        for (matrix, column) in &self.projections {
            matrix.forward(rows_in, &mut fused[*column..], causal.fused, false)?;
            matrix.add_bias(&mut fused[*column..], causal.fused)?;
        }
        causal.rotate(fused, false);
        let attended = sized(&mut kept.attended, rows * causal.width);
        causal.forward(fused, attended, sized(&mut kept.levels, rows * causal.heads.len()));
        kept.middle.clone_from(&kept.input);
        self.attention_output.forward(attended, &mut kept.middle, width, true)?;
        self.attention_output.add_bias(&mut kept.middle, width)?;
        let rows_in = self.feed_forward_norm.forward(&kept.middle, normed)?;
        let inner = self.gate.outputs;
        for (matrix, y) in [(&self.gate, &mut kept.gate), (&self.up, &mut kept.up)] {
            let y = sized(y, rows * inner);
            matrix.forward(rows_in, y, inner, false)?;
            matrix.add_bias(y, inner)?;
        }
        gated_silu(&kept.gate, &kept.up, sized(hidden, rows * inner));
        Ok(())
    }
}

impl Llama {
    fn heads(&self) -> Vec<Head> {
        let config = &self.config;
        let (n, n_kv, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let columns = |at: usize| at * dim..(at + 1) * dim;
        (0..n)
            .map(|head| {
                let shared = head / (n / n_kv);
                Head {
                    query: columns(head),
                    key: columns(n + shared),
                    value: columns(n + n_kv + shared),
                    output: columns(head),
                }
            })
            .collect()
    }

    pub(super) fn loss_written_out(
        &self,
        batch: &Batch<'_>,
        mut gradient: Option<Gradient<'_>>,
    ) -> Result<Loss> {
        let mut room = locked(&self.room)?;
        let Room { layers, x, normed, hidden, d_normed, d_x, d_hidden, d_attended, d_fused, head: head_room } =
            &mut *room;
        let config = &self.config;
        let width = config.hidden_size;
        let rows = batch.tokens.len();
        let heads = self.heads();
        let frequencies = self.rotary.frequencies();
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        let causal = Causal {
            lengths: &batch.lengths,
            heads: &heads,
            fused: (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim,
            width: config.num_attention_heads * config.head_dim,
            turns: causal::turns(longest, frequencies),
            pairs: frequencies.len(),
            order: Pairs::Halves,
        };
        let training = gradient.is_some();
        let block = |(layer, block)| {
            Block::of(block, |tensor| format!("{}layers.{layer}.{tensor}", self.root), training)
        };
        let blocks: Vec<Block<'_>> = self.blocks.iter().enumerate().map(block).collect::<Result<_>>()?;
        let recompute = gradient.as_ref().is_none_or(|gradient| gradient.recompute);

        let embedding_name = format!("{}embed_tokens.weight", self.root);
        embed(values(&self.embedding).slice()?, width, &batch.tokens, x);
        layers.resize_with(blocks.len(), Kept::default);
        for (layer, block) in blocks.iter().enumerate() {
            // What the first layer keeps is overwritten by the next with recomputation, and made again when it is needed.
            let mut input = std::mem::take(&mut layers[layer].input);
            input.clone_from(x);
            let kept = &mut layers[if recompute { 0 } else { layer }];
            std::mem::swap(&mut kept.input, &mut input);
            block.forward(kept, normed, hidden, &causal)?;
            x.clone_from(&kept.middle);
            block.down.forward(hidden, x, width, true)?;
            block.down.add_bias(x, width)?;
            std::mem::swap(&mut kept.input, &mut input);
            layers[layer].input = input;
        }

        let final_norm = NormRows::of(&self.final_norm, &format!("{}norm", self.root));
        let mut output = Matrix::of(&self.output, "lm_head", training)?;
        if config.tie_word_embeddings {
            output.name.clone_from(&embedding_name);
        }
        let loss = head(&final_norm, &output, x, batch, gradient.as_mut(), head_room, d_x)?;
        let Some(Gradient { sums: gradients, .. }) = gradient else { return Ok(loss) };

        for (layer, block) in blocks.iter().enumerate().rev() {
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
            }
            if recompute {
                block.forward(&mut layers[0], normed, hidden, &causal)?;
            }
            let Kept { input, middle, fused, attended, levels, gate, up } =
                &mut layers[if recompute { 0 } else { layer }];
            let d_rows = View::new(d_x, rows, width);
            let inner = gate.len();
            gated_silu(gate, up, sized(hidden, inner));
            let d_hidden = sized(d_hidden, inner);
            block.down.backward(hidden, d_rows, gradients, d_hidden, false)?;
            gated_silu_backward(gate, up, d_hidden);
            let rows_in = block.feed_forward_norm.forward(middle, normed)?;
            let d_normed = sized(d_normed, rows * width);
            for (matrix, d_y, add) in [(&block.gate, gate, false), (&block.up, up, true)] {
                matrix.backward(rows_in, View::new(d_y, rows, matrix.outputs), gradients, d_normed, add)?;
            }
            block.feed_forward_norm.backward(middle, d_normed, d_x, gradients)?;
            let d_attended = sized(d_attended, attended.len());
            let d_rows = View::new(d_x, rows, width);
            block.attention_output.backward(attended, d_rows, gradients, d_attended, false)?;
            let d_fused = sized(d_fused, fused.len());
            causal.backward(fused, attended, levels, d_attended, d_fused);
            causal.rotate(d_fused, true);
            let rows_in = block.attention_norm.forward(input, normed)?;
            for (matrix, column) in &block.projections {
                let d_y = View::strided(&d_fused[*column..], rows, matrix.outputs, causal.fused);
                matrix.backward(rows_in, d_y, gradients, d_normed, *column > 0)?;
            }
            block.attention_norm.backward(input, d_normed, d_x, gradients)?;
            if recompute && layer > 0 {
                let (first, rest) = layers.split_at_mut(1);
                std::mem::swap(&mut first[0].input, &mut rest[layer - 1].input);
            }
        }
        embed_backward(d_x, width, &batch.tokens, &embedding_name, gradients);
        Ok(loss)
    }
}
