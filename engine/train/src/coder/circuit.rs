//! A start in which copying half works.
//!
//! From a random start a small model copies nothing until it has read some millions of tokens. Here two heads of each of the first
//! two layers begin as the induction circuit that such models end up with (Olsson et al. 2022, "In-context Learning and Induction
//! Heads", arXiv 2209.11895); training is free to change every weight of it, and everything else begins at random.
//!
//! - Layer 0, heads 0 and 1 look one and two tokens back and write that token into parts of the residual stream of their own.
//! - Layer 1, heads 0 and 1 look for a place whose previous token is the present one, and copy the token that stands there.

use inhouse_candle::codegen::{Config, Part, names};
use inhouse_core::{Error, ErrorKind, Result};
use rand_chacha::ChaCha8Rng;

use super::start::{Tensors, normal};

/// Channels on which a layer's norm is made to give 1, whatever the token.
const CONSTANT: usize = 8;
/// Standard deviation of the token embeddings.
const SPREAD: f32 = 0.06;
/// Sharpness of looking back, of matching, strength of what is copied, and of reading it out.
const BACK: f32 = 8.0;
const MATCH: f32 = 1.8;
const COPY: f32 = 2.0;
const READ: f32 = 0.1;
/// Pairs of dimensions by whose turning a head finds the token before.
const PAIRS: usize = 4;

/// A matrix of rows.
type Matrix = Vec<Vec<f32>>;

/// `rows` orthonormal rows of `columns`, by Gram and Schmidt.
fn orthonormal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Matrix {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(rows);
    while basis.len() < rows {
        let mut row: Vec<f64> = (0..columns).map(|_| f64::from(normal(rng))).collect();
        // Twice: once leaves what rounding leaves.
        for _ in 0..2 {
            for other in &basis {
                let share: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
            }
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 1e-3 {
            row.iter_mut().for_each(|x| *x /= length);
            basis.push(row);
        }
    }
    basis.into_iter().map(|row| row.into_iter().map(|x| x as f32).collect()).collect()
}

/// Directions within the channels after the constant ones, as rows of the whole width.
fn padded(rows: &[Vec<f32>]) -> Matrix {
    rows.iter().map(|row| std::iter::repeat_n(0.0, CONSTANT).chain(row.iter().copied()).collect()).collect()
}

/// Sets the weights of the circuit; the other weights stay as they are.
pub fn plant(tensors: &mut Tensors, config: &Config, rng: &mut ChaCha8Rng) -> Result<()> {
    let (width, size, turn) = (config.n_embd, config.head_dim(), config.rotary_dim);
    let content = width - CONSTANT;
    // Directions of the residual stream that do not meet: what is copied from, the token before, the one before that, the answer.
    let basis = orthonormal(content.min(4 * size), content, rng);
    let token = padded(&orthonormal(2 * size, content, rng));
    let previous = padded(&basis[..size]);
    let answer = padded(&basis[size..3 * size]);
    let mut earlier = padded(&basis[3 * size..]);
    earlier.resize(size, vec![0.0; width]);

    let embedding = get(tensors, names::EMBEDDING)?;
    for row in embedding.chunks_exact_mut(width) {
        row[..CONSTANT].fill(0.0);
        row[CONSTANT..].iter_mut().for_each(|value| *value = SPREAD * normal(rng));
    }
    let embedding = embedding.clone();
    get(tensors, &names::block(0, "ln_1.weight"))?[..CONSTANT].fill(0.0);
    get(tensors, &names::block(0, "ln_1.bias"))?[..CONSTANT].fill(1.0);

    // Looking back: the key is constant and the query the same, turned by one or two places, so that rotation puts the peak there.
    let weight = get(tensors, &names::block(0, "attn.qkv_proj.weight"))?;
    for head in 0..2 {
        let [query, key, value] =
            [Part::Query, Part::Key, Part::Value].map(|part| config.head_rows(part, head));
        for rows in [&query, &key, &value] {
            weight[rows.start * width..rows.end * width].fill(0.0);
        }
        let distance = (head + 1) as f64;
        for i in 0..PAIRS.min(turn / 2) {
            let angle = distance * 10_000f64.powf(-((2 * i) as f64) / turn as f64);
            let mut set = |row: usize, value: f64| {
                weight[row * width..][..CONSTANT].fill((f64::from(BACK) * value / CONSTANT as f64) as f32);
            };
            set(key.start + 2 * i, 1.0);
            set(query.start + 2 * i, angle.cos());
            set(query.start + 2 * i + 1, -angle.sin());
        }
        put(weight, width, value.start, &token[..size], 1.0);
    }
    let output = get(tensors, &names::block(0, "attn.out_proj.weight"))?;
    put_turned(output, width, 0, &previous, SPREAD);
    put_turned(output, width, size, &earlier, SPREAD);

    // The present token meets the previous one in the channels that rotation leaves (almost) alone.
    let still = 2 * turn / 3;
    let n_still = size - still;
    let weight = get(tensors, &names::block(1, "attn.qkv_proj.weight"))?;
    for head in 0..2 {
        let [query, key, value] =
            [Part::Query, Part::Key, Part::Value].map(|part| config.head_rows(part, head));
        for rows in [&query, &key, &value] {
            weight[rows.start * width..rows.end * width].fill(0.0);
        }
        let part = if head == 0 { 0..n_still } else { size - n_still..size };
        put(weight, width, query.start + still, &token[part.clone()], MATCH);
        put(weight, width, key.start + still, &previous[part], MATCH);
        put(weight, width, value.start, &token[head * size..(head + 1) * size], 1.0);
    }
    let output = get(tensors, &names::block(1, "attn.out_proj.weight"))?;
    put_turned(output, width, 0, &answer, COPY * SPREAD);

    // Reading out: what was copied speaks for its token.
    let head = get(tensors, &format!("{}.weight", names::OUTPUT))?;
    for (row, embedding) in head.chunks_exact_mut(width).zip(embedding.chunks_exact(width)) {
        for (token, answer) in token.iter().zip(&answer) {
            let share: f32 = embedding.iter().zip(token).map(|(x, y)| x * y).sum::<f32>() * READ / SPREAD;
            row.iter_mut().zip(answer).for_each(|(row, answer)| *row += share * answer);
        }
    }
    Ok(())
}

fn get<'a>(tensors: &'a mut Tensors, name: &str) -> Result<&'a mut Vec<f32>> {
    match tensors.get_mut(name) {
        Some((_, values)) => Ok(values),
        None => Err(Error::new(ErrorKind::Internal, format!("a new model without {name}"))),
    }
}

/// Writes rows from `first` on.
fn put(weight: &mut [f32], width: usize, first: usize, rows: &[Vec<f32>], factor: f32) {
    for (i, row) in rows.iter().enumerate() {
        let to = &mut weight[(first + i) * width..][..width];
        to.iter_mut().zip(row).for_each(|(to, value)| *to = factor * value);
    }
}

/// Writes rows as columns from `first` on.
fn put_turned(weight: &mut [f32], width: usize, first: usize, columns: &[Vec<f32>], factor: f32) {
    for (i, column) in columns.iter().enumerate() {
        for (row, value) in column.iter().enumerate() {
            weight[row * width + first + i] = factor * value;
        }
    }
}
