//! What an architecture implements, and the model that the decode loop sees.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Result as CandleResult, Tensor};
use inhouse_core::Result;
use inhouse_core::decode::{
    CancelToken, Conventions, Decoder, DecoderOptions, Model, ModelInfo, TokenId, Tokenizer,
};

use crate::attention::Rows;
use crate::cache::{Memory, Shape};
use crate::decoder::CellDecoder;
use crate::encoder_decoder::EncoderDecoder;
use crate::ops::Ops;
use crate::tokenizer::HfTokenizer;
use crate::trainable::{Batch, Gradient, Loss};

/// The weights and the forward pass of an architecture.
///
/// All tokens of a pass, whichever sequence they belong to, are rows of one matrix `[rows, width]`: the weights are read once
/// for all of them and nothing is padded. Only attention looks at each sequence by itself.
pub(crate) trait Network: Send + Sync {
    /// Rows of the embedding and of the output, padding included.
    fn vocab_size(&self) -> usize;

    /// Tokens of context.
    fn context_length(&self) -> usize;

    /// The caches that a sequence needs.
    fn cache_shape(&self) -> Shape;

    /// One pass: `tokens` are the rows, `parts` say which sequence each run of rows extends. Cells are written to the caches
    /// but not yet counted. Gives the logits `[wanted.len(), vocab_size] f32` of the rows in `wanted`.
    fn forward(
        &self,
        tokens: &[TokenId],
        parts: &mut [Rows<'_>],
        wanted: &[u32],
        ops: Ops,
    ) -> CandleResult<Tensor>;

    /// The loss of a batch, and its gradient where it is asked for, by code that is written out for the network instead of derived
    /// from its forward pass: faster, where there is such code for where the weights are.
    fn written_out(&self, _batch: &Batch<'_>, _gradient: Option<Gradient<'_>>) -> Option<CandleResult<Loss>> {
        None
    }

    /// The encoder, where the prompt goes to one.
    fn encoder(&self) -> Option<&dyn Encoder> {
        None
    }
}

/// The half of an encoder-decoder that reads the prompt.
pub(crate) trait Encoder: Send + Sync {
    /// The token that a decoder begins with.
    fn start(&self) -> TokenId;

    /// Reads a whole prompt. A cancel is looked at between layers.
    fn encode(&self, tokens: &[TokenId], cancel: &CancelToken, ops: Ops) -> CandleResult<Memory>;
}

/// A network with its tokenizer.
pub(crate) struct HfModel {
    pub info: ModelInfo,
    pub tokenizer: HfTokenizer,
    pub conventions: Conventions,
    pub network: Arc<dyn Network>,
}

impl Model for HfModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &dyn Tokenizer {
        &self.tokenizer
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>> {
        let decoder = CellDecoder::new(Arc::clone(&self), options)?;
        if self.network.encoder().is_some() {
            return Ok(Box::new(EncoderDecoder::new(self, decoder)?));
        }
        Ok(Box::new(decoder))
    }
}

/// What a folder is called, whatever way leads to it.
pub(crate) fn folder_name(dir: &Path) -> String {
    let name = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned()
}
