//! What written-out gradients are made of: projections with their updates, norms, the embedding, and the output layer with its loss.
//!
//! Gradients are added for the tensors that have a place in [`Gradients`]: what is not trained has none, and costs nothing.

use candle_core::{Result, bail};

use crate::cpu::product::{Target, View, multiply};
use crate::cpu::rows::{CrossEntropy, RowNorm};
use crate::kernels::{Values, values};
use crate::layers::{Linear, Norm};
use crate::low_rank::Dropout;
use crate::trainable::{Batch, Gradient, Gradients, Loss};

/// Logits of one piece, in numbers: fewer would read a large vocabulary's weight too often, more would take too much memory.
const HEAD_NUMBERS: usize = 1 << 24;
/// Rows of one piece: at least, and at most.
const HEAD_ROWS: [usize; 2] = [128, 1024];

/// `buffer` with `len` numbers of any value.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// The low-rank update of a projection, and its names.
struct Update<'a> {
    a_name: String,
    b_name: String,
    a: Values<'a>,
    b: Values<'a>,
    rank: usize,
    scale: f32,
    dropout: Option<&'a Dropout>,
}

/// A weight `[out, in]` for the length of a pass, and its name.
pub(crate) struct Matrix<'a> {
    pub name: String,
    weight: Values<'a>,
    pub outputs: usize,
    pub inputs: usize,
    bias: Option<(String, Values<'a>)>,
    update: Option<Update<'a>>,
}

impl<'a> Matrix<'a> {
    /// Inputs are dropped where the pass is `training`.
    pub fn of(linear: &'a Linear, name: &str, training: bool) -> Result<Self> {
        let (outputs, inputs) = linear.weight().dims2()?;
        let bias = linear.bias().map(|bias| (format!("{name}.bias"), values(bias)));
        let update = linear.update().map(|update| {
            Ok::<_, candle_core::Error>(Update {
                a_name: format!("{}.lora_A.weight", update.name),
                b_name: format!("{}.lora_B.weight", update.name),
                a: values(&update.a),
                b: values(&update.b),
                rank: update.a.dim(0)?,
                scale: update.scale as f32,
                dropout: update.dropout.as_ref().filter(|_| training),
            })
        });
        Ok(Self {
            name: format!("{name}.weight"),
            weight: values(linear.weight()),
            outputs,
            inputs,
            bias,
            update: update.transpose()?,
        })
    }

    fn view(&self) -> Result<View<'_>> {
        Ok(View::new(self.weight.slice()?, self.outputs, self.inputs))
    }

    pub fn bias(&self) -> Result<Option<&[f32]>> {
        self.bias.as_ref().map(|(_, bias)| bias.slice()).transpose()
    }

    /// Writes or adds `x [rows, in]` times the weight's transpose, with the update, to the columns of `y` that begin at its start; the
    /// bias is left to the caller.
    pub fn forward(&self, x: &[f32], y: &mut [f32], row_stride: usize, add: bool) -> Result<()> {
        let rows = x.len() / self.inputs;
        let x = View::new(x, rows, self.inputs);
        multiply(Target { data: y, row_stride, add }, x, self.view()?.t());
        if let Some(update) = &self.update {
            let dropped = update.dropped(x);
            let x = dropped.as_deref().map_or(x, |dropped| View::new(dropped, rows, self.inputs));
            let low = update.low(x)?;
            let b = View::new(update.b.slice()?, self.outputs, update.rank);
            multiply(Target { data: y, row_stride, add: true }, View::new(&low, rows, update.rank), b.t());
        }
        Ok(())
    }

    /// Adds the bias to the columns of `y` that begin at its start.
    pub fn add_bias(&self, y: &mut [f32], row_stride: usize) -> Result<()> {
        if let Some(bias) = self.bias()? {
            for row in y.chunks_mut(row_stride) {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        Ok(())
    }

    /// Adds to the gradients of what is trained, and writes or adds that of `x` to `d_x`.
    pub fn backward(
        &self,
        x: &[f32],
        d_y: View<'_>,
        gradients: &mut Gradients,
        d_x: &mut [f32],
        add: bool,
    ) -> Result<()> {
        multiply(Target { data: d_x, row_stride: self.inputs, add }, d_y, self.view()?);
        let (rows, inputs) = (d_y.rows(), self.inputs);
        let x = View::new(x, rows, inputs);
        if let Some(data) = gradients.get_mut(&self.name) {
            multiply(Target { data, row_stride: inputs, add: true }, d_y.t(), x);
        }
        if let Some((name, _)) = &self.bias
            && let Some(sum) = gradients.get_mut(name)
        {
            for row in 0..rows {
                sum.iter_mut().zip(d_y.row(row)).for_each(|(sum, more)| *sum += more);
            }
        }
        let Some(update) = &self.update else { return Ok(()) };
        let rank = update.rank;
        let dropped = update.dropped(x);
        let kept = dropped.as_deref().map_or(x, |dropped| View::new(dropped, rows, inputs));
        let low = update.low(kept)?;
        if let Some(data) = gradients.get_mut(&update.b_name) {
            multiply(Target { data, row_stride: rank, add: true }, d_y.t(), View::new(&low, rows, rank));
        }
        let mut d_low = low;
        let b = View::new(update.b.slice()?, self.outputs, rank);
        multiply(Target { data: &mut d_low, row_stride: rank, add: false }, d_y, b);
        d_low.iter_mut().for_each(|value| *value *= update.scale);
        let d_low = View::new(&d_low, rows, rank);
        if let Some(data) = gradients.get_mut(&update.a_name) {
            multiply(Target { data, row_stride: inputs, add: true }, d_low.t(), kept);
        }
        let a = View::new(update.a.slice()?, rank, inputs);
        match update.dropout {
            None => multiply(Target { data: d_x, row_stride: inputs, add: true }, d_low, a),
            Some(dropout) => {
                let mut d_kept = vec![0f32; rows * inputs];
                multiply(Target { data: &mut d_kept, row_stride: inputs, add: false }, d_low, a);
                let mut mask = vec![0f32; rows * inputs];
                dropout.mask(&mut mask, inputs);
                d_x.iter_mut().zip(&d_kept).zip(&mask).for_each(|((d_x, d), mask)| *d_x += d * mask);
            }
        }
        Ok(())
    }
}

impl Update<'_> {
    /// `x` without what is dropped; `None`: nothing is.
    fn dropped(&self, x: View<'_>) -> Option<Vec<f32>> {
        let dropout = self.dropout?;
        let columns = x.row(0).len();
        let mut kept = vec![0f32; x.rows() * columns];
        dropout.mask(&mut kept, columns);
        for (i, row) in kept.chunks_exact_mut(columns).enumerate() {
            row.iter_mut().zip(x.row(i)).for_each(|(kept, x)| *kept *= x);
        }
        Some(kept)
    }

    /// `scale * A x`, `[rows, rank]`.
    fn low(&self, x: View<'_>) -> Result<Vec<f32>> {
        let columns = x.row(0).len();
        let mut low = vec![0f32; x.rows() * self.rank];
        let a = View::new(self.a.slice()?, self.rank, columns);
        multiply(Target { data: &mut low, row_stride: self.rank, add: false }, x, a.t());
        low.iter_mut().for_each(|value| *value *= self.scale);
        Ok(low)
    }
}

/// A layer norm or root-mean-square norm for the length of a pass.
pub(crate) struct NormRows<'a> {
    name: String,
    weight: Values<'a>,
    bias: Option<Values<'a>>,
    epsilon: f32,
}

impl<'a> NormRows<'a> {
    pub fn of(norm: &'a Norm, name: &str) -> Self {
        let (weight, bias, epsilon) = norm.parts();
        Self { name: name.into(), weight: values(weight), bias: bias.map(values), epsilon: epsilon as f32 }
    }

    fn rows(&self) -> Result<RowNorm<'_>> {
        Ok(RowNorm {
            weight: self.weight.slice()?,
            bias: self.bias.as_ref().map(Values::slice).transpose()?,
            epsilon: self.epsilon,
        })
    }

    /// The norm of the rows of `x`, in `y`.
    pub fn forward<'b>(&self, x: &[f32], y: &'b mut Vec<f32>) -> Result<&'b [f32]> {
        let y = sized(y, x.len());
        self.rows()?.forward(x, y);
        Ok(y)
    }

    /// Adds to `d_x` and to the gradients.
    pub fn backward(&self, x: &[f32], d_y: &[f32], d_x: &mut [f32], gradients: &mut Gradients) -> Result<()> {
        let norm = self.rows()?;
        let mut d_weight = vec![0f32; norm.weight.len()];
        let mut d_bias = d_weight.clone();
        norm.backward(x, d_y, d_x, &mut d_weight, &mut d_bias);
        for (tensor, more) in [("weight", d_weight), ("bias", d_bias)] {
            if let Some(sum) = gradients.get_mut(&format!("{}.{tensor}", self.name)) {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
        }
        Ok(())
    }
}

/// Rows of an embedding `[vocab, width]`, one for each token, in `x`.
pub(crate) fn embed(embedding: &[f32], width: usize, tokens: &[u32], x: &mut Vec<f32>) {
    x.clear();
    for &token in tokens {
        x.extend_from_slice(&embedding[token as usize * width..][..width]);
    }
}

/// Adds the rows of `d_x` to the gradient of the embedding, where it is trained.
pub(crate) fn embed_backward(
    d_x: &[f32],
    width: usize,
    tokens: &[u32],
    name: &str,
    gradients: &mut Gradients,
) {
    let Some(d_embedding) = gradients.get_mut(name) else { return };
    for (&token, d) in tokens.iter().zip(d_x.chunks_exact(width)) {
        let to = &mut d_embedding[token as usize * width..][..width];
        to.iter_mut().zip(d).for_each(|(to, d)| *to += d);
    }
}

/// Buffers of [`head`].
#[derive(Default)]
pub(crate) struct HeadRoom {
    chosen: Vec<f32>,
    normed: Vec<f32>,
    d_normed: Vec<f32>,
    d_chosen: Vec<f32>,
    logits: Vec<f32>,
}

/// Final norm, output layer and loss of the rows that something is learned from; the others get no logits. Where there is a gradient
/// to make, that by `x [rows, width]` is written to `d_x`.
pub(crate) fn head(
    norm: &NormRows<'_>,
    output: &Matrix<'_>,
    x: &[f32],
    batch: &Batch<'_>,
    gradient: Option<&mut Gradient<'_>>,
    room: &mut HeadRoom,
    d_x: &mut Vec<f32>,
) -> Result<Loss> {
    let width = output.inputs;
    let HeadRoom { chosen, normed, d_normed, d_chosen, logits } = room;
    chosen.clear();
    for &row in &batch.wanted {
        chosen.extend_from_slice(&x[row as usize * width..][..width]);
    }
    let normed = norm.forward(chosen, normed)?;
    let d_normed = sized(d_normed, chosen.len());
    let mut loss = Loss::default();
    let (scale, mut gradients) = match gradient {
        Some(gradient) => (gradient.scale as f32, Some(&mut *gradient.sums)),
        None => (0.0, None),
    };
    let piece = (HEAD_NUMBERS / output.outputs.max(1)).clamp(HEAD_ROWS[0], HEAD_ROWS[1]);
    for begin in (0..batch.wanted.len()).step_by(piece) {
        let count = piece.min(batch.wanted.len() - begin);
        let range = begin * width..(begin + count) * width;
        let logits = sized(logits, count * output.outputs);
        let bias = output.bias()?;
        if let Some(bias) = bias {
            logits.chunks_exact_mut(bias.len()).for_each(|row| row.copy_from_slice(bias));
        }
        output.forward(&normed[range.clone()], logits, output.outputs, bias.is_some())?;
        let rows = CrossEntropy {
            targets: &batch.targets[begin..begin + count],
            weights: &batch.weights[begin..begin + count],
        };
        loss.add(rows.differentiate(logits, scale), rows.weights);
        if let Some(gradients) = &mut gradients {
            let d_logits = View::new(logits, count, output.outputs);
            output.backward(&normed[range.clone()], d_logits, gradients, &mut d_normed[range], false)?;
        }
    }
    let Some(gradients) = gradients else { return Ok(loss) };
    // [wanted, width], then put where the rows are.
    let d_chosen = sized(d_chosen, chosen.len());
    d_chosen.fill(0.0);
    norm.backward(chosen, d_normed, d_chosen, gradients)?;
    d_x.clear();
    d_x.resize(x.len(), 0.0);
    for (&row, d) in batch.wanted.iter().zip(d_chosen.chunks_exact(width)) {
        let to = &mut d_x[row as usize * width..][..width];
        to.iter_mut().zip(d).for_each(|(to, d)| *to += d);
    }
    Ok(loss)
}

/// The guard's content, or what became of an earlier pass.
pub(crate) fn locked<T>(room: &std::sync::Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    match room.lock() {
        Ok(room) => Ok(room),
        Err(_) => bail!("an earlier pass failed"),
    }
}
