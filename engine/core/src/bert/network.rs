//! The network of a BERT (Devlin et al. 2018, arXiv 1810.04805) on the processor.

use super::attention::{self, Scratch};
use super::product::{Linear, Rows};
use super::weights::{Table, Weights};
use crate::Result;
use crate::decode::{CancelToken, TokenId};
use crate::vector::{erf, lane_sum, vectorized};

/// Sizes and numbers of a network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub inner: usize,
    pub positions: usize,
    pub vocabulary: usize,
    /// 0: no segments.
    pub segments: usize,
    pub epsilon: f32,
}

#[derive(Debug)]
pub(super) struct Network {
    sizes: Sizes,
    embedding: Table,
    /// `[positions, width]`: of position and first segment.
    places: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values side by side.
    projections: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

/// What a forward pass writes; kept from one to the next.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The states of all tokens `[tokens, width]`.
    pub states: Vec<f32>,
    rows: Rows,
    wide: Vec<f32>,
    narrow: Vec<f32>,
    scratch: Scratch,
}

/// The first `n` numbers of `room`, whatever they are.
fn part(room: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if room.len() < n {
        room.resize(n, 0.0);
    }
    &mut room[..n]
}

impl Network {
    pub fn load(weights: &mut Weights<'_>, sizes: Sizes) -> Result<Self> {
        let Sizes { width, inner, positions, epsilon, .. } = sizes;
        let norm = |weights: &mut Weights<'_>, name: &str| -> Result<Norm> {
            Ok(Norm {
                weight: weights.vector(&format!("{name}.weight"), width)?,
                bias: weights.vector(&format!("{name}.bias"), width)?,
                epsilon,
            })
        };
        let embedding = weights.table("token_embd.weight", width, sizes.vocabulary)?;
        let positions_table = weights.table("position_embd.weight", width, positions)?;
        let mut places = vec![0f32; positions * width];
        for (i, place) in places.chunks_exact_mut(width).enumerate() {
            positions_table.add_row(i, place);
        }
        if weights.has("token_types.weight") {
            let segments = weights.table("token_types.weight", width, sizes.segments)?;
            places.chunks_exact_mut(width).for_each(|place| segments.add_row(0, place));
        }
        let embedding_norm = norm(weights, "token_embd_norm")?;
        let mut layers = Vec::with_capacity(sizes.layers);
        for i in 0..sizes.layers {
            let name = |part: &str| format!("blk.{i}.{part}");
            let fused = name("attn_qkv");
            let projections = if weights.has(&format!("{fused}.weight")) {
                weights.linear(&[fused], width, 3 * width)?
            } else {
                weights.linear(&["attn_q", "attn_k", "attn_v"].map(name), width, width)?
            };
            layers.push(Layer {
                projections,
                attention_output: weights.linear(&[name("attn_output")], width, width)?,
                attention_norm: norm(weights, &name("attn_output_norm"))?,
                up: weights.linear(&[name("ffn_up")], width, inner)?,
                down: weights.linear(&[name("ffn_down")], inner, width)?,
                norm: norm(weights, &name("layer_output_norm"))?,
            });
        }
        Ok(Self { sizes, embedding, places, norm: embedding_norm, layers })
    }

    pub fn width(&self) -> usize {
        self.sizes.width
    }

    /// Writes the last hidden states of `texts`, one after the other, to `room.states`. Tokens are below the vocabulary, and no
    /// text is longer than there are positions.
    ///
    /// # Errors
    /// Cancelled.
    pub fn forward(&self, texts: &[&[TokenId]], room: &mut Room, cancel: &CancelToken) -> Result<()> {
        let Sizes { width, heads, inner, .. } = self.sizes;
        let n: usize = texts.iter().map(|text| text.len()).sum();
        let Room { states, rows, wide, narrow, scratch } = room;
        states.clear();
        for text in texts {
            for (&token, place) in text.iter().zip(self.places.chunks_exact(width)) {
                let at = states.len();
                states.extend_from_slice(place);
                self.embedding.add_row(token as usize, &mut states[at..]);
            }
        }
        self.norm.apply(states);
        for layer in &self.layers {
            cancel.check()?;
            rows.quantize(states, width);
            let projected = part(wide, n * layer.projections.outputs());
            layer.projections.apply(rows, projected);
            let attended = part(narrow, n * width);
            let mut at = 0;
            for text in texts {
                let projected = &projected[3 * at * width..3 * (at + text.len()) * width];
                let out = &mut attended[at * width..(at + text.len()) * width];
                attention::attend(projected, heads, width / heads, scratch, out, cancel)?;
                at += text.len();
            }
            rows.quantize(attended, width);
            let output = part(narrow, n * width);
            layer.attention_output.apply(rows, output);
            add(states, output);
            layer.attention_norm.apply(states);
            rows.quantize(states, width);
            let hidden = part(wide, n * inner);
            layer.up.apply(rows, hidden);
            gelu(hidden);
            rows.quantize(hidden, inner);
            let output = part(narrow, n * width);
            layer.down.apply(rows, output);
            add(states, output);
            layer.norm.apply(states);
        }
        Ok(())
    }
}

impl Norm {
    /// Layer norm of each row, in place.
    fn apply(&self, rows: &mut [f32]) {
        let width = self.weight.len();
        vectorized(
            #[inline(always)]
            || {
                for x in rows.chunks_exact_mut(width) {
                    let mean = lane_sum(|i| x[i], width) / width as f32;
                    let variance = lane_sum(|i| (x[i] - mean) * (x[i] - mean), width) / width as f32;
                    let rate = 1.0 / (variance + self.epsilon).sqrt();
                    for (x, (weight, bias)) in x.iter_mut().zip(self.weight.iter().zip(&self.bias)) {
                        *x = (*x - mean) * rate * weight + bias;
                    }
                }
            },
        );
    }
}

fn add(to: &mut [f32], more: &[f32]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

/// GELU by the error function.
fn gelu(values: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for x in values {
                *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
            }
        },
    );
}
