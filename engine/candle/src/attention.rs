//! Attention over the cells of several sequences, the one that all architectures share.

use candle_core::{D, DType, Device, Result, Tensor};
use inhouse_core::decode::CancelToken;

use crate::cache::{KeyValue, Memory, Sequence};
use crate::cpu::{self, Seen};
use crate::ops::Ops;

/// Queries looked at together: bounds the scores' memory, `n_head * QUERY_ROWS * cells` numbers.
const QUERY_ROWS: usize = 256;

/// Consecutive rows of a pass that extend one sequence.
pub(crate) struct Rows<'a> {
    /// The sequence's cache, with room for the rows; `None`: the rows are the whole sequence, and nothing is kept of them.
    pub sequence: Option<&'a mut Sequence>,
    /// What an encoder read, where there is no cache to hold it.
    pub memory: Option<&'a Memory>,
    /// First row and number of rows.
    pub begin: usize,
    pub count: usize,
    /// Looked at in every layer: a pass over a large model takes seconds.
    pub cancel: Option<&'a CancelToken>,
}

impl Rows<'_> {
    /// What the encoder of an encoder-decoder read for these rows.
    pub fn memory(&self) -> Result<&Memory> {
        let cached = self.sequence.as_ref().and_then(|sequence| sequence.memory()).map(AsRef::as_ref);
        cached.or(self.memory).ok_or_else(|| candle_core::Error::Msg("no prompt was encoded".into()))
    }

    /// Cells before the rows.
    pub fn past(&self) -> usize {
        self.sequence.as_ref().map_or(0, |sequence| sequence.len())
    }
}

/// Position of each row of a pass in its sequence.
pub(crate) fn positions(parts: &[Rows<'_>]) -> Vec<usize> {
    parts.iter().flat_map(|part| part.past()..part.past() + part.count).collect()
}

/// What the rows of one sequence see. Made once per pass, since it is the same for all layers of a kind.
pub(crate) struct Sight {
    /// Cells before this one are seen by none of the rows.
    first: usize,
    /// Added to the scores: `[1 or n_head, rows, cells - first] f32`.
    bias: Option<Tensor>,
}

impl Sight {
    /// Every cell.
    pub fn all() -> Self {
        Self { first: 0, bias: None }
    }

    /// Each of `n` rows after `past` cells sees itself and what is before it, at most `window` cells in all.
    pub fn causal(past: usize, n: usize, window: Option<usize>, device: &Device) -> Result<Self> {
        let window = window.unwrap_or(usize::MAX);
        let first = (past + 1).saturating_sub(window);
        let bias = if n > 1 {
            let cells = past + n - first;
            let seen = |row: usize, cell: usize| cell <= past + row && past + row - cell < window;
            let mask: Vec<f32> = (0..n)
                .flat_map(|row| {
                    (first..past + n).map(move |cell| if seen(row, cell) { 0.0 } else { f32::NEG_INFINITY })
                })
                .collect();
            Some(Tensor::from_vec(mask, (1, n, cells), device)?)
        } else {
            None
        };
        Ok(Self { first, bias })
    }

    /// The same cells with `bias [n_head, rows, cells] f32` added to the scores.
    pub fn biased(self, bias: &Tensor) -> Result<Self> {
        let bias = match &self.bias {
            Some(mask) => bias.broadcast_add(mask)?,
            None => bias.clone(),
        };
        Ok(Self { first: self.first, bias: Some(bias) })
    }

    /// What every sequence of a pass sees causally.
    pub fn causal_of(parts: &[Rows<'_>], window: Option<usize>, device: &Device) -> Result<Vec<Self>> {
        parts.iter().map(|part| Self::causal(part.past(), part.count, window, device)).collect()
    }
}

/// `x [rows, heads * head_dim]` as `[heads, rows, head_dim]`.
pub(crate) fn split_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    x.reshape((rows, heads, width / heads))?.transpose(0, 1)
}

/// Queries, keys and values of a pass, each `[heads, rows, head_dim]`; there may be fewer heads of keys and values.
pub(crate) struct Projected {
    pub queries: Tensor,
    pub keys: Tensor,
    pub values: Tensor,
}

/// Self-attention of all rows of a pass, each within its sequence; the new cells are written to layer `layer` of the caches.
/// `factor` scales the scores beside the usual `1 / sqrt(head_dim)`. Gives `[rows, n_head * head_dim]`.
pub(crate) fn self_attention(
    layer: usize,
    projected: &Projected,
    factor: f64,
    parts: &mut [Rows<'_>],
    sights: &[Sight],
    ops: Ops,
) -> Result<Tensor> {
    if parts.iter().any(|part| part.cancel.is_some_and(|cancel| cancel.check().is_err())) {
        // The decoder asks the token for the reason.
        candle_core::bail!("cancelled");
    }
    let mut readers = Vec::with_capacity(parts.len());
    for (run, sight) in parts.iter_mut().zip(sights) {
        let cut = |tensor: &Tensor| tensor.narrow(1, run.begin, run.count)?.contiguous();
        let (keys, values) = (cut(&projected.keys)?, cut(&projected.values)?);
        let cells = match &mut run.sequence {
            Some(sequence) => sequence.write(layer, &keys, &values)?,
            None => vec![KeyValue { keys, values }],
        };
        readers.push(Reader { begin: run.begin, count: run.count, cells, sight });
    }
    attend(&projected.queries, factor, readers, ops)
}

/// Consecutive rows of queries, and the cells of their sequence.
pub(crate) struct Reader<'a> {
    pub begin: usize,
    pub count: usize,
    /// In order, each part `[n_kv_head, cells, head_dim]`.
    pub cells: Vec<KeyValue>,
    pub sight: &'a Sight,
}

/// Attention of `queries [n_head, rows, head_dim]`, whose rows `readers` hold in order. Gives `[rows, n_head * head_dim]`.
pub(crate) fn attend(
    queries: &Tensor,
    factor: f64,
    mut readers: Vec<Reader<'_>>,
    ops: Ops,
) -> Result<Tensor> {
    for reader in &mut readers {
        reader.cells = visible(&reader.cells, reader.sight.first)?;
    }
    let scale = 1.0 / (queries.dim(2)? as f64).sqrt();
    if ops == Ops::Fused && readers.iter().all(|reader| reader.count == 1) {
        let seen: Vec<Seen<'_>> = readers
            .iter()
            .map(|reader| Seen { cells: &reader.cells, bias: reader.sight.bias.as_ref() })
            .collect();
        if let Some(output) = cpu::attend(queries, scale * factor, &seen)? {
            return Ok(output);
        }
    }
    // Scaled before the product, so that half precision does not overflow where the model has no scale of its own.
    let queries = (queries * scale)?;
    let mut outputs = Vec::with_capacity(readers.len());
    for reader in &readers {
        outputs.push(attend_in_pieces(&queries, factor, reader, ops)?);
    }
    match outputs.as_slice() {
        [one] => Ok(one.clone()),
        several => Tensor::cat(several, 0),
    }
}

/// Attention of one reader's rows, `[count, n_head * head_dim]`.
fn attend_in_pieces(queries: &Tensor, factor: f64, reader: &Reader<'_>, ops: Ops) -> Result<Tensor> {
    let (n_head, _, head_dim) = queries.dims3()?;
    let mut outputs = Vec::new();
    for begin in (0..reader.count).step_by(QUERY_ROWS) {
        let count = QUERY_ROWS.min(reader.count - begin);
        let bias = reader.sight.bias.as_ref().map(|bias| bias.narrow(1, begin, count)).transpose()?;
        let queries = queries.narrow(1, reader.begin + begin, count)?.contiguous()?;
        let output = attend_rows(&queries, factor, &reader.cells, bias.as_ref(), ops)?;
        outputs.push(output.transpose(0, 1)?.reshape((count, n_head * head_dim))?);
    }
    match outputs.as_slice() {
        [one] => Ok(one.clone()),
        several => Tensor::cat(several, 0),
    }
}

/// The cells from `first` on.
fn visible(cells: &[KeyValue], first: usize) -> Result<Vec<KeyValue>> {
    let mut before = 0;
    let mut seen = Vec::with_capacity(cells.len());
    for part in cells {
        let length = part.keys.dim(1)?;
        let skip = first.saturating_sub(before).min(length);
        before += length;
        match skip {
            0 => seen.push(part.clone()),
            skip if skip < length => seen.push(KeyValue {
                keys: part.keys.narrow(1, skip, length - skip)?,
                values: part.values.narrow(1, skip, length - skip)?,
            }),
            _ => {}
        }
    }
    Ok(seen)
}

fn attend_rows(
    queries: &Tensor,
    factor: f64,
    cells: &[KeyValue],
    bias: Option<&Tensor>,
    ops: Ops,
) -> Result<Tensor> {
    let (n_head, n, head_dim) = queries.dims3()?;
    let Some(part) = cells.first() else { candle_core::bail!("attention over no cells") };
    let n_kv_head = part.keys.dim(0)?;
    // Heads that share keys become rows of one product.
    let grouped = queries.reshape((n_kv_head, n_head / n_kv_head * n, head_dim))?;
    let scores: Vec<Tensor> =
        cells.iter().map(|part| grouped.matmul(&part.keys.transpose(1, 2)?)).collect::<Result<_>>()?;
    let scores = match scores.as_slice() {
        [one] => one.clone(),
        several => Tensor::cat(several, D::Minus1)?,
    };
    let length = scores.dim(D::Minus1)?;
    let mut scores = scores.to_dtype(DType::F32)?.reshape((n_head, n, length))?;
    if factor != 1.0 {
        scores = (scores * factor)?;
    }
    if let Some(bias) = bias {
        scores = scores.broadcast_add(bias)?;
    }
    let weights = ops.softmax(&scores)?.to_dtype(queries.dtype())?.reshape((
        n_kv_head,
        n_head / n_kv_head * n,
        length,
    ))?;
    let mut output: Option<Tensor> = None;
    let mut begin = 0;
    for part in cells {
        let length = part.values.dim(1)?;
        let share = if cells.len() == 1 {
            weights.matmul(&part.values)?
        } else {
            weights.narrow(D::Minus1, begin, length)?.contiguous()?.matmul(&part.values)?
        };
        begin += length;
        output = Some(match output {
            None => share,
            Some(sum) => (sum + share)?,
        });
    }
    match output {
        Some(output) => output.reshape((n_head, n, head_dim)),
        None => candle_core::bail!("attention over no cells"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_is_seen_in_every_layer() {
        let heads = || Tensor::ones((2, 3, 4), DType::F32, &Device::Cpu).unwrap();
        let projected = Projected { queries: heads(), keys: heads(), values: heads() };
        let token = CancelToken::new();
        let attend = || {
            let rows = Rows { sequence: None, memory: None, begin: 0, count: 3, cancel: Some(&token) };
            self_attention(0, &projected, 1.0, &mut [rows], &[Sight::all()], Ops::Fused)
        };
        assert_eq!(attend().unwrap().dims(), [3, 8]);
        token.cancel();
        assert!(attend().unwrap_err().to_string().contains("cancelled"));
    }
}
