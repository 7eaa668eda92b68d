//! The weights of a new model, as a Hugging Face folder that the trainer then begins with as with any other.

use std::collections::BTreeMap;
use std::path::Path;

use inhouse_candle::checkpoint::write_safetensors;
use inhouse_candle::codegen::{self, names};
use inhouse_candle::config::ConfigFile;
use inhouse_core::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::circuit;
use super::config::NewModel;
use super::corpus::{Corpus, END};
use crate::journal::write_json;

/// Shapes and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A number of the standard normal distribution (Box and Muller 1958).
pub fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
}

/// Files of a tokenizer in a Hugging Face folder.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "generation_config.json",
];

/// Copies what there is of a tokenizer.
///
/// # Errors
/// A file cannot be copied.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|cause| Error::io("create", to, cause))?;
    for name in TOKENIZER_FILES {
        let (source, copy) = (from.join(name), to.join(name));
        if source.exists() {
            std::fs::copy(&source, &copy).map_err(|cause| Error::io("write", &copy, cause))?;
        }
    }
    Ok(())
}

/// Writes a new CodeGen with the tokenizer of a corpus. The weights follow from the seed.
///
/// # Errors
/// The tokenizer cannot be read, or a file cannot be written.
pub fn create(model: &NewModel, corpus: &Corpus, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|cause| Error::io("create", dir, cause))?;
    let vocab_size = corpus.manifest.vocab_size;
    let source = corpus.path(&corpus.manifest.tokenizer);
    let end = corpus.end_token()?;
    let copy = dir.join("tokenizer.json");
    std::fs::copy(&source, &copy).map_err(|cause| Error::io("write", &copy, cause))?;
    write_json(
        &dir.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": false,
            "bos_token": END,
            "eos_token": END,
            "unk_token": END,
            "model_max_length": model.n_positions,
        }),
    )?;
    let config = json!({
        "architectures": ["CodeGenForCausalLM"],
        "model_type": "codegen",
        "vocab_size": vocab_size,
        "n_positions": model.n_positions,
        "n_ctx": model.n_positions,
        "n_embd": model.n_embd,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_inner": null,
        "rotary_dim": model.rotary_dim,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "tie_word_embeddings": false,
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token_id": end,
        "eos_token_id": end,
        "torch_dtype": "float32",
        "use_cache": true,
    });
    write_json(&dir.join("config.json"), &config)?;
    let config = codegen::Config::from_file(&ConfigFile::read(dir)?)?;
    let mut rng = ChaCha8Rng::seed_from_u64(model.seed);
    let mut tensors = random(&config, &mut rng);
    if model.induction {
        circuit::plant(&mut tensors, &config, &mut rng)?;
    }
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    write_safetensors(&dir.join("model.safetensors"), &tensors)
}

/// CodeGen's initialisation: normal with deviation 0.02, and GPT-2's scaling of what is added to the residual stream.
fn random(config: &codegen::Config, rng: &mut ChaCha8Rng) -> Tensors {
    let (width, inner, vocab) = (config.n_embd, config.n_inner, config.vocab_size);
    let mut tensors = Tensors::new();
    let mut weight = |name: String, shape: [usize; 2], deviation: f32| {
        let values = (0..shape[0] * shape[1]).map(|_| deviation * normal(rng)).collect();
        tensors.insert(name, (shape.to_vec(), values));
    };
    let added = 0.02 / (2.0 * config.n_layer as f32).sqrt();
    weight(names::EMBEDDING.into(), [vocab, width], 0.02);
    weight(format!("{}.weight", names::OUTPUT), [vocab, width], 0.02);
    for layer in 0..config.n_layer {
        let name = |tensor: &str| names::block(layer, tensor);
        weight(name("attn.qkv_proj.weight"), [3 * width, width], 0.02);
        weight(name("attn.out_proj.weight"), [width, width], added);
        weight(name("mlp.fc_in.weight"), [inner, width], 0.02);
        weight(name("mlp.fc_out.weight"), [width, inner], added);
    }
    let mut constant = |name: String, size: usize, value: f32| {
        tensors.insert(name, (vec![size], vec![value; size]));
    };
    constant(format!("{}.bias", names::OUTPUT), vocab, 0.0);
    constant(format!("{}.weight", names::FINAL_NORM), width, 1.0);
    constant(format!("{}.bias", names::FINAL_NORM), width, 0.0);
    for layer in 0..config.n_layer {
        let name = |tensor: &str| names::block(layer, tensor);
        constant(name("ln_1.weight"), width, 1.0);
        constant(name("ln_1.bias"), width, 0.0);
        constant(name("mlp.fc_in.bias"), inner, 0.0);
        constant(name("mlp.fc_out.bias"), width, 0.0);
    }
    tensors
}
