//! One step's gradient, with gradient caching (Gao et al. 2021, arXiv 2101.06983).
//!
//! All vectors of a batch are computed first, in passes without a graph; the loss gives the gradient of each vector; then each
//! pass is computed again with its graph and takes its part of that gradient back to the weights. Memory is that of one pass
//! at any batch size. A batch that is one pass is computed once.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use inhouse_candle::TrainableEncoder;
use inhouse_core::decode::TokenId;
use inhouse_core::encode::Role;
use inhouse_core::{Error, ErrorKind, Result};

use super::batch::Batch;
use super::config::{ModelConfig, TrainingConfig};
use super::loss::{Loss, Vectors, cross_entropy};
use crate::backend_error;
use crate::optimizer::values;

/// Gradients by the names of variables.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// The texts of a batch as tokens.
pub struct Tokens {
    /// Of the queries.
    pub queries: Vec<Vec<TokenId>>,
    /// Of the APIs.
    pub apis: Vec<Vec<TokenId>>,
}

impl Tokens {
    /// Tokenises and cuts to the lengths of the configuration.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn of(batch: &Batch, encoder: &TrainableEncoder, config: &ModelConfig) -> Result<Self> {
        let all = |texts: &[String], limit: usize| -> Result<Vec<Vec<TokenId>>> {
            texts.iter().map(|text| Ok(cut(encoder.tokenizer().encode(text)?, limit))).collect()
        };
        Ok(Self {
            queries: all(&batch.queries, config.query_tokens)?,
            apis: all(&batch.apis, config.api_tokens)?,
        })
    }

    /// Tokens in all texts.
    pub fn count(&self) -> usize {
        self.queries.iter().chain(&self.apis).map(Vec::len).sum()
    }
}

/// The first tokens, and the last one, which ends the text.
pub fn cut(mut tokens: Vec<TokenId>, limit: usize) -> Vec<TokenId> {
    if tokens.len() > limit
        && let Some(&end) = tokens.last()
    {
        tokens.truncate(limit.saturating_sub(1));
        tokens.push(end);
    }
    tokens
}

struct Pass<'a> {
    role: Role,
    /// Row of its first text among those of its role.
    first: usize,
    texts: Vec<&'a [TokenId]>,
}

/// The loss of a batch, and the gradients of `trained`.
///
/// # Errors
/// The backend fails, or a variable has no gradient: an operation without a backward pass stands before it.
pub fn gradients(
    encoder: &TrainableEncoder,
    tokens: &Tokens,
    batch: &Batch,
    training: &TrainingConfig,
    trained: &[(String, Var)],
) -> Result<(Loss, Gradients)> {
    let size = if training.chunk_texts == 0 { usize::MAX } else { training.chunk_texts };
    let mut passes = Vec::new();
    for (role, texts) in [(Role::Query, &tokens.queries), (Role::Document, &tokens.apis)] {
        for (i, chunk) in texts.chunks(size.min(texts.len().max(1))).enumerate() {
            passes.push(Pass {
                role,
                first: i * size.min(texts.len()),
                texts: chunk.iter().map(Vec::as_slice).collect(),
            });
        }
    }
    let once = passes.len() <= 2;
    let (mut queries, mut apis) = (Vec::new(), Vec::new());
    let mut dim = 0;
    let mut graphs: Vec<Option<Tensor>> = Vec::new();
    for pass in &passes {
        let vectors = match once {
            true => encoder.encode_tokens(pass.role, &pass.texts)?,
            false => encoder.encode_tokens_detached(pass.role, &pass.texts)?,
        };
        dim = vectors.dim(1).map_err(backend_error)?;
        match pass.role {
            Role::Query => queries.extend(values(&vectors)?),
            Role::Document => apis.extend(values(&vectors)?),
        }
        graphs.push(once.then_some(vectors));
    }
    let loss =
        cross_entropy(Vectors { queries: &queries, apis: &apis, dim }, &batch.masked, training.temperature)?;
    let mut gradients = Gradients::new();
    // Weights that both roles share get both their parts in one backward pass, where there is only one.
    let mut surrogate: Option<Tensor> = None;
    for (pass, graph) in passes.iter().zip(graphs) {
        let wanted = match pass.role {
            Role::Query => &loss.d_queries,
            Role::Document => &loss.d_apis,
        };
        let wanted = &wanted[pass.first * dim..][..pass.texts.len() * dim];
        let vectors = match graph {
            Some(vectors) => vectors,
            None => encoder.encode_tokens(pass.role, &pass.texts)?,
        };
        let part = Tensor::from_slice(wanted, (pass.texts.len(), dim), vectors.device())
            .and_then(|wanted| (vectors.to_dtype(DType::F32)? * wanted)?.sum_all())
            .map_err(backend_error)?;
        if once {
            surrogate = Some(match surrogate {
                Some(sum) => (sum + part).map_err(backend_error)?,
                None => part,
            });
        } else {
            backward(&part, trained, &mut gradients)?;
        }
    }
    if let Some(sum) = surrogate {
        backward(&sum, trained, &mut gradients)?;
    }
    if let Some((name, _)) = trained.iter().find(|(name, _)| !gradients.contains_key(name)) {
        return Err(Error::new(ErrorKind::Internal, format!("no gradient reaches {name}")));
    }
    Ok((loss, gradients))
}

fn backward(surrogate: &Tensor, trained: &[(String, Var)], gradients: &mut Gradients) -> Result<()> {
    let store = surrogate.backward().map_err(backend_error)?;
    for (name, variable) in trained {
        let Some(gradient) = store.get(variable.as_tensor()) else { continue };
        let gradient = gradient.to_device(&Device::Cpu).map_err(backend_error)?;
        let new = values(&gradient)?;
        match gradients.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(new).for_each(|(sum, new)| *sum += new),
            None => {
                gradients.insert(name.clone(), new);
            }
        }
    }
    Ok(())
}
