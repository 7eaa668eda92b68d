//! An encoder without layers: a vector per token, the mean of a text's tokens, and nothing that looks from one token to another.
//!
//! It is a BERT with `num_hidden_layers` 0. Its vectors are distilled from a whole BERT: each token is read alone, the mean over
//! the vocabulary is taken off, and what is left is weighted so that frequent tokens count less (smooth inverse frequency, Arora
//! et al., ICLR 2017). The layer norm of the embeddings is kept from doing anything by a large epsilon: the length of a token's
//! vector is how much the token counts. A step of training costs a thousandth of a whole BERT's, and so does a query.

use std::collections::BTreeMap;
use std::path::Path;

use inhouse_candle::checkpoint::write_safetensors;
use inhouse_candle::{EncoderSettings, LoadOptions, Pooling, Towers, TrainableEncoder};
use inhouse_core::decode::TokenId;
use inhouse_core::encode::Role;
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde_json::Value;

use super::examples::Examples;
use crate::optimizer::values;
use crate::pairs::api_text;

/// Tokens read at once.
const PASS_TOKENS: usize = 256;
/// Share of a text's tokens at which a token counts half.
const HALF_WEIGHT_SHARE: f64 = 1e-3;
/// Against it the variance of a token's vector (1 / width at most) is little, so that the norm changes next to nothing.
const EPSILON: f64 = 0.05;
/// Rows of the position embedding: zeros that a BERT must have.
const POSITIONS: usize = 512;
/// Tokens of a text, where training does not set another length.
const MAX_TOKENS: usize = 128;

/// Writes the folder of a layerless encoder, distilled from the BERT in `teacher`, to begin training with.
///
/// # Errors
/// The teacher cannot be loaded, the backend fails, or the folder cannot be written.
pub fn distil(
    teacher: &Path,
    options: &LoadOptions,
    examples: &Examples,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let path = teacher.join("config.json");
    let mut config: Value =
        serde_json::from_str(&files::read_text(&path)?).map_err(|cause| Error::data(&path, cause))?;
    let size = |key: &str| config[key].as_u64().map(|size| size as usize);
    let (Some(vocab), Some(width)) = (size("vocab_size"), size("hidden_size")) else {
        return Err(Error::data(&path, "no vocab_size or hidden_size"));
    };
    let longest = size("max_position_embeddings").unwrap_or(MAX_TOKENS).min(MAX_TOKENS);
    let settings = EncoderSettings::new(Pooling::Mean, true, longest, Towers::Tied);
    let encoder = TrainableEncoder::load(teacher, options, Some(settings.clone()))?;
    let empty = encoder.tokenizer().encode("")?;
    let (Some(&begin), Some(&end)) = (empty.first(), empty.last()) else {
        return Err(Error::new(ErrorKind::Unsupported, "the tokenizer wraps texts in nothing"));
    };
    progress.start("distilling token vectors", Some(vocab as u64));
    let mut rows: Vec<f32> = Vec::with_capacity(vocab * width);
    let all: Vec<TokenId> = (0..vocab as TokenId).collect();
    for tokens in all.chunks(PASS_TOKENS) {
        let texts: Vec<[TokenId; 3]> = tokens.iter().map(|&token| [begin, token, end]).collect();
        let texts: Vec<&[TokenId]> = texts.iter().map(|text| text.as_slice()).collect();
        rows.extend(values(&encoder.encode_tokens_detached(Role::Document, &texts)?)?);
        progress.advance(tokens.len() as u64);
    }
    progress.finish();
    if rows.len() != vocab * width {
        let what = format!("{} numbers for {vocab} tokens of width {width}", rows.len());
        return Err(Error::new(ErrorKind::Internal, what));
    }
    weigh(&mut rows, width, &frequencies(examples, &encoder, vocab)?);
    for token in [begin, end] {
        rows[token as usize * width..][..width].fill(0.0);
    }

    config["num_hidden_layers"] = 0.into();
    config["layer_norm_eps"] = EPSILON.into();
    config["max_position_embeddings"] = POSITIONS.into();
    std::fs::create_dir_all(out).map_err(|cause| Error::io("create", out, cause))?;
    let types = config["type_vocab_size"].as_u64().unwrap_or(2) as usize;
    let scale = EPSILON.sqrt() as f32;
    let tensors = BTreeMap::from([
        ("embeddings.word_embeddings.weight", (vec![vocab, width], rows)),
        ("embeddings.position_embeddings.weight", (vec![POSITIONS, width], vec![0.0; POSITIONS * width])),
        ("embeddings.token_type_embeddings.weight", (vec![types, width], vec![0.0; types * width])),
        ("embeddings.LayerNorm.weight", (vec![width], vec![scale; width])),
        ("embeddings.LayerNorm.bias", (vec![width], vec![0.0; width])),
    ]);
    let write =
        |name: &str, text: &str| files::write_atomic(&out.join(name), |file| file.write_all(text.as_bytes()));
    let pretty = |value: &Value| format!("{value:#}\n");
    write("config.json", &pretty(&config))?;
    let settings = serde_json::to_value(&settings)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write the settings: {cause}")))?;
    write(inhouse_candle::SETTINGS_FILE, &pretty(&settings))?;
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        let from = teacher.join(name);
        if from.exists() {
            write(name, &files::read_text(&from)?)?;
        }
    }
    // Last, so that a folder with weights is whole.
    write_safetensors(&out.join("model.safetensors"), &tensors)
}

/// Share of each token among the tokens of all queries and APIs.
fn frequencies(examples: &Examples, encoder: &TrainableEncoder, vocab: usize) -> Result<Vec<f64>> {
    let mut counts = vec![0u64; vocab];
    let mut add = |text: &str| -> Result<()> {
        for token in encoder.tokenizer().encode(text)? {
            if let Some(count) = counts.get_mut(token as usize) {
                *count += 1;
            }
        }
        Ok(())
    };
    for shelf in &examples.shelves {
        // The first of each are enough: they are in no order of theirs.
        for example in shelf.examples.iter().take(2000) {
            add(&example.query)?;
        }
        for &api in shelf.apis.iter().take(2000) {
            add(&api_text(examples.table.api(api)))?;
        }
    }
    let total: u64 = counts.iter().sum();
    Ok(counts.iter().map(|&count| count as f64 / total.max(1) as f64).collect())
}

/// Takes the mean off `rows [vocab, width]` and weighs each by its token's frequency.
fn weigh(rows: &mut [f32], width: usize, frequencies: &[f64]) {
    let mut mean = vec![0f64; width];
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value));
    }
    let count = (rows.len() / width).max(1) as f64;
    for (row, frequency) in rows.chunks_exact_mut(width).zip(frequencies) {
        let weight = HALF_WEIGHT_SHARE / (HALF_WEIGHT_SHARE + frequency);
        row.iter_mut().zip(&mean).for_each(|(value, mean)| {
            *value = ((f64::from(*value) - mean / count) * weight) as f32;
        });
    }
}

/// Whether `folder` holds a whole encoder.
pub fn is_whole(folder: &Path) -> bool {
    folder.join("model.safetensors").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_tokens_count_less() {
        let mut rows = vec![1.0, 3.0, 3.0, 1.0];
        weigh(&mut rows, 2, &[0.0, HALF_WEIGHT_SHARE]);
        assert_eq!(rows, [-1.0, 1.0, 0.5, -0.5]);
    }
}
