//! Hugging Face's tokenizer behind the decode loop's trait.

use inhouse_core::decode::{TokenId, Tokenizer};
use inhouse_core::{Error, ErrorKind, Result};

use crate::vocabulary::{Scheme, TokenKind, Vocabulary, scheme};

/// A BPE tokenizer of a Hugging Face folder, on the `tokenizers` crate.
///
/// Control tokens spelled out in a text (`<|endoftext|>`) are tokenised as text: a prompt cannot end itself.
pub struct HfTokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
}

impl HfTokenizer {
    /// Builds the tokenizer of a vocabulary.
    ///
    /// # Errors
    /// The `tokenizers` crate refuses it, or numbers its added tokens differently.
    pub fn new(vocabulary: Vocabulary) -> Result<Self> {
        let path = vocabulary.path();
        let mut tree = vocabulary.tree().clone();
        if vocabulary.scheme != Scheme::SentencePiece {
            scheme::separate(&mut tree, vocabulary.unspelled.bytes());
        }
        let mut inner: tokenizers::Tokenizer = serde_json::from_value(tree)
            .map_err(|cause| Error::data(path, format!("not a tokenizer: {cause}")))?;
        inner.set_encode_special_tokens(true);
        for (id, token) in vocabulary.tokens.iter().enumerate() {
            let known = inner.token_to_id(&token.text);
            if token.kind != TokenKind::Unused && known != Some(id as TokenId) {
                let what = format!("token {:?} has the id {id} in the file, {known:?} as loaded", token.text);
                return Err(Error::data(
                    path,
                    format!("{what}: added tokens must follow the vocabulary without a gap"),
                ));
            }
        }
        Ok(Self { inner, vocabulary })
    }

    /// The vocabulary it was built from.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        if self.vocabulary.scheme != Scheme::SentencePiece {
            self.vocabulary.unspelled.warn_of_loss(text);
        }
        let encoding = self.inner.encode_fast(text, false).map_err(|cause| {
            Error::new(
                ErrorKind::Backend,
                format!("tokenizer: cannot encode {} bytes of text: {cause}", text.len()),
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.vocabulary.token_bytes(token)
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.vocabulary.ends.contains(&token)
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        match self.vocabulary.tokens.get(token as usize).map(|token| token.kind) {
            Some(TokenKind::Normal | TokenKind::UserDefined) => true,
            Some(TokenKind::Control) => self.is_end(token),
            Some(TokenKind::Unused) | None => false,
        }
    }

    fn vocab_size(&self) -> usize {
        self.vocabulary.tokens.len()
    }
}
