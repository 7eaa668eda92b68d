//! The forward pass over rows of several sequences at once.
//!
//! All tokens of a pass, whichever sequence they belong to, are rows of one matrix `[rows, n_embd]`: the weights are read
//! once for all of them and nothing is padded. Only attention looks at each sequence by itself.

use candle_core::{D, DType, Device, Result, Tensor};

use super::cache::{KeyValue, Sequence, Shape};
use super::{Block, Config, Linear, Norm, Weights};

/// Base of the rotary embedding's wavelengths.
const ROTARY_BASE: f64 = 10_000.0;

/// Consecutive rows of a pass that extend one sequence.
pub(super) struct Rows<'a> {
    pub sequence: &'a mut Sequence,
    /// First row and number of rows.
    pub begin: usize,
    pub count: usize,
}

/// Cosines and sines for every position, each `[n_positions, rotary_dim / 2] f32` (Su et al. 2021, arXiv 2104.09864).
pub(super) fn rotary_tables(config: &Config, device: &Device) -> Result<(Tensor, Tensor)> {
    let half = config.rotary_dim / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| ROTARY_BASE.powf(-((2 * i) as f64) / config.rotary_dim as f64) as f32).collect();
    let frequencies = Tensor::new(frequencies, device)?.reshape((1, half))?;
    let positions: Vec<f32> = (0..config.n_positions).map(|position| position as f32).collect();
    let positions = Tensor::new(positions, device)?.reshape((config.n_positions, 1))?;
    let angles = positions.matmul(&frequencies)?;
    Ok((angles.cos()?, angles.sin()?))
}

impl Norm {
    fn apply(&self, x: &Tensor, epsilon: f64) -> Result<Tensor> {
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, epsilon as f32)
    }
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl Weights {
    pub(super) fn cache_shape(&self) -> Shape {
        Shape {
            n_layer: self.config.n_layer,
            n_head: self.config.n_head,
            head_dim: self.config.head_dim(),
            dtype: self.dtype,
            device: self.device.clone(),
        }
    }

    /// One pass: `tokens` are the rows, `parts` say which sequence each run of rows extends (and has room for). The cells are
    /// written but not yet counted. Gives the logits `[wanted.len(), vocab_size] f32` of the rows in `wanted`.
    pub(super) fn forward(&self, tokens: &[u32], parts: &mut [Rows<'_>], wanted: &[u32]) -> Result<Tensor> {
        let positions: Vec<u32> = parts
            .iter()
            .flat_map(|part| {
                let first = part.sequence.len();
                (first..first + part.count).map(|position| position as u32)
            })
            .collect();
        let positions = Tensor::new(positions, &self.device)?;
        let cos = self.rotary.0.index_select(&positions, 0)?.to_dtype(self.dtype)?;
        let sin = self.rotary.1.index_select(&positions, 0)?.to_dtype(self.dtype)?;

        let mut x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = block.norm.apply(&x, self.config.layer_norm_epsilon)?;
            let attention = self.attention(layer, block, &normed, parts, (&cos, &sin))?;
            let hidden = block.feed_forward_in.apply(&normed)?.gelu()?;
            let feed_forward = block.feed_forward_out.apply(&hidden)?;
            x = ((attention + feed_forward)? + x)?;
        }
        let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let x = self.final_norm.apply(&x, self.config.layer_norm_epsilon)?;
        self.output.apply(&x)?.to_dtype(DType::F32)
    }

    fn attention(
        &self,
        layer: usize,
        block: &Block,
        normed: &Tensor,
        parts: &mut [Rows<'_>],
        (cos, sin): (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let (n_head, head_dim, n_embd) = (self.config.n_head, self.config.head_dim(), self.config.n_embd);
        let rows = normed.dim(0)?;
        // [rows, 3 * n_embd] -> three of [n_head, rows, head_dim]
        let fused = block.qkv.apply(normed)?.reshape((rows, 3, n_head, head_dim))?;
        let part = |i: usize| fused.narrow(1, i, 1)?.squeeze(1)?.transpose(0, 1)?.contiguous();
        let scale = 1.0 / (head_dim as f64).sqrt();
        // Scaled before the product, so that half precision does not overflow.
        let queries = (self.rotate(&part(0)?, cos, sin)? * scale)?;
        let keys = self.rotate(&part(1)?, cos, sin)?;
        let values = part(2)?;

        let mut outputs = Vec::with_capacity(parts.len());
        for run in parts.iter_mut() {
            let cut = |tensor: &Tensor| tensor.narrow(1, run.begin, run.count)?.contiguous();
            let cells = run.sequence.write(layer, &cut(&keys)?, &cut(&values)?)?;
            let output = attend(&cut(&queries)?, &cells)?;
            outputs.push(output.transpose(0, 1)?.reshape((run.count, n_embd))?);
        }
        block.attention_output.apply(&Tensor::cat(&outputs, 0)?)
    }

    /// Rotary embedding, interleaved pairs, on the first `rotary_dim` dimensions of `[n_head, rows, head_dim]`.
    fn rotate(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let (rotary, head_dim) = (self.config.rotary_dim, self.config.head_dim());
        let turned = x.narrow(D::Minus1, 0, rotary)?.contiguous()?.unsqueeze(0)?;
        let turned = candle_nn::rotary_emb::rope_i(&turned, cos, sin)?.squeeze(0)?;
        if rotary == head_dim {
            return Ok(turned);
        }
        let rest = x.narrow(D::Minus1, rotary, head_dim - rotary)?;
        Tensor::cat(&[&turned, &rest], D::Minus1)?.contiguous()
    }
}

/// Causal attention of `queries [n_head, n, head_dim]`, the last n positions, over the cells of one sequence (in parts).
fn attend(queries: &Tensor, cells: &[KeyValue]) -> Result<Tensor> {
    let n = queries.dim(1)?;
    let scores: Vec<Tensor> =
        cells.iter().map(|part| queries.matmul(&part.keys.transpose(1, 2)?)).collect::<Result<_>>()?;
    let mut scores = match scores.as_slice() {
        [one] => one.clone(),
        several => Tensor::cat(several, D::Minus1)?,
    };
    scores = scores.to_dtype(DType::F32)?;
    if n > 1 {
        let length = scores.dim(D::Minus1)?;
        let past = length - n;
        let mask: Vec<f32> = (0..n)
            .flat_map(|row| {
                (0..length).map(move |cell| if cell > past + row { f32::NEG_INFINITY } else { 0.0 })
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, n, length), queries.device())?;
        scores = scores.broadcast_add(&mask)?;
    }
    let weights = candle_nn::ops::softmax_last_dim(&scores.contiguous()?)?.to_dtype(queries.dtype())?;
    let mut output: Option<Tensor> = None;
    let mut begin = 0;
    for part in cells {
        let length = part.values.dim(1)?;
        let share = weights.narrow(D::Minus1, begin, length)?.contiguous()?.matmul(&part.values)?;
        begin += length;
        output = Some(match output {
            None => share,
            Some(sum) => (sum + share)?,
        });
    }
    output.map_or_else(|| candle_core::bail!("attention over no cells"), Ok)
}
