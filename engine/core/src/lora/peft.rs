//! Adapters as PEFT saves them: a folder with `adapter_config.json` and `adapter_model.safetensors`
//! (<https://huggingface.co/docs/peft/developer_guides/checkpoint>).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Adapter, MAX_RANK, Module, Naming};
use crate::files;
use crate::safetensors::{ElementType, StoredTensor, read_header, write_as};
use crate::{Error, ErrorKind, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before the names of the wrapped model's modules.
const PREFIX: &str = "base_model.model.";
/// No configuration is longer.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// What a written `adapter_config.json` says beside what follows from the modules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeftSettings {
    /// Name or path of the base model.
    pub base: String,
    /// Dropout that it was trained with.
    pub dropout: f64,
}

/// The settings that loading depends on.
struct Config {
    path: PathBuf,
    rank: u64,
    alpha: f64,
    rank_stabilized: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
    base: Option<String>,
}

impl Config {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let bytes = files::read_bounded(&path, MAX_CONFIG_BYTES).map_err(|cause| {
            if cause.kind() == std::io::ErrorKind::NotFound {
                let what = format!("no {CONFIG}: not a PEFT folder");
                return Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display()));
            }
            Error::io("read", &path, cause)
        })?;
        let tree: Value = serde_json::from_slice(&bytes)
            .map_err(|cause| Error::data(&path, format!("bad JSON: {cause}")))?;
        let Value::Object(values) = tree else { return Err(Error::data(&path, "is no JSON object")) };
        let unsupported =
            |what: String| Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        match values.get("peft_type") {
            Some(Value::String(kind)) if kind == "LORA" => {}
            Some(kind) => {
                return unsupported(format!("peft_type {} is not supported, expected \"LORA\"", brief(kind)));
            }
            None => return Err(Error::data(&path, "key \"peft_type\" is missing")),
        }
        for key in [
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "lora_bias",
            "modules_to_save",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "layer_replication",
            "target_parameters",
        ] {
            if values.get(key).is_some_and(is_set) {
                let value = values.get(key).map(brief).unwrap_or_default();
                return unsupported(format!(
                    "{key} {value}: only low-rank matrices of linear layers are supported"
                ));
            }
        }
        let number = |key: &str| match values.get(key) {
            None => Err(Error::data(&path, format!("key {key:?} is missing"))),
            Some(value) => {
                value.as_f64().filter(|number| number.is_finite() && *number > 0.0).ok_or_else(|| {
                    Error::data(&path, format!("{key} is {}, expected a positive number", brief(value)))
                })
            }
        };
        let rank = number("r")?;
        if rank.fract() != 0.0 || rank > MAX_RANK as f64 {
            return Err(Error::data(
                &path,
                format!("r is {rank}, expected a whole number from 1 to {MAX_RANK}"),
            ));
        }
        Ok(Self {
            rank: rank as u64,
            alpha: number("lora_alpha")?,
            rank_stabilized: values.get("use_rslora").is_some_and(is_set),
            ranks: patterns(&path, &values, "rank_pattern")?,
            alphas: patterns(&path, &values, "alpha_pattern")?,
            base: values.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
            path,
        })
    }

    fn rank_of(&self, module: &str) -> u64 {
        matching(&self.ranks, module).map_or(self.rank, |rank| rank as u64)
    }

    fn scale_of(&self, module: &str, rank: usize) -> f32 {
        let alpha = matching(&self.alphas, module).unwrap_or(self.alpha);
        let rank = rank as f64;
        (alpha / if self.rank_stabilized { rank.sqrt() } else { rank }) as f32
    }
}

/// Whether a value switches something on.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// `rank_pattern` and `alpha_pattern`: names, or ends of names, with a number each. PEFT takes them as regular expressions; those that
/// are more than a name are refused.
fn patterns(path: &Path, values: &Map<String, Value>, key: &str) -> Result<Vec<(String, f64)>> {
    let entries = match values.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            return Err(Error::data(path, format!("{key} is {}, expected an object", brief(other))));
        }
    };
    let mut patterns = Vec::with_capacity(entries.len());
    for (pattern, value) in entries {
        let name = pattern.strip_prefix('^').unwrap_or(pattern);
        let name = name.strip_suffix('$').unwrap_or(name).replace("\\.", ".");
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')) {
            let what = format!("{key} has the pattern {pattern:?}: only names are supported");
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        }
        match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => patterns.push((name, number)),
            None => {
                let what =
                    format!("{key} gives {pattern:?} the value {}, expected a positive number", brief(value));
                return Err(Error::data(path, what));
            }
        }
    }
    Ok(patterns)
}

/// The number of the first pattern that `module` is or ends with.
fn matching(patterns: &[(String, f64)], module: &str) -> Option<f64> {
    let fits =
        |name: &str| module == name || module.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
    patterns.iter().find(|(name, _)| fits(name)).map(|(_, number)| *number)
}

/// The files of a folder.
pub(super) fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join(CONFIG), dir.join(WEIGHTS)]
}

/// Which matrix of which module a tensor is.
fn role(tensor: &str) -> Option<(&str, bool)> {
    let name = tensor.strip_prefix(PREFIX).unwrap_or(tensor);
    let name = name.strip_suffix(".weight")?;
    // Saved by hand, the adapter's name stands between.
    let name = name.strip_suffix(".default").unwrap_or(name);
    match name.strip_suffix(".lora_A") {
        Some(module) => Some((module, true)),
        None => Some((name.strip_suffix(".lora_B")?, false)),
    }
}

pub(super) fn read(dir: &Path) -> Result<Adapter> {
    let config = Config::read(dir)?;
    let path = dir.join(WEIGHTS);
    if !path.exists() {
        let what = match dir.join("adapter_model.bin").exists() {
            true => format!("holds a pickled adapter: save it as {WEIGHTS} (safe_serialization=True)"),
            false => format!("no {WEIGHTS}"),
        };
        return Err(Error::new(ErrorKind::NotFound, format!("{}: {what}", dir.display())));
    }
    let file = files::open_regular(&path).map_err(|cause| Error::io("open", &path, cause))?;
    let header = read_header(&path, &file)?;
    let mut pairs: BTreeMap<String, [Option<&StoredTensor>; 2]> = BTreeMap::new();
    for (tensor, stored) in &header {
        let Some((module, is_a)) = role(tensor) else {
            let what = format!("tensor {tensor} is no lora_A or lora_B of a linear layer");
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        };
        let slot = &mut pairs.entry(module.to_owned()).or_default()[usize::from(!is_a)];
        if slot.replace(stored).is_some() {
            return Err(Error::data(&path, format!("module {module} has its matrices twice")));
        }
    }
    if pairs.is_empty() {
        return Err(Error::data(&path, "holds no adapter: no lora_A, no lora_B"));
    }
    let mut modules = BTreeMap::new();
    for (name, pair) in pairs {
        let [Some(a), Some(b)] = pair else {
            let lacking = if pair[0].is_none() { "lora_A" } else { "lora_B" };
            return Err(Error::data(&path, format!("module {name} has no {lacking}")));
        };
        let (&[rank, inputs], &[outputs, b_rank]) = (a.shape.as_slice(), b.shape.as_slice()) else {
            let what = format!(
                "module {name} has matrices of shape {:?} and {:?}, expected two dimensions",
                a.shape, b.shape
            );
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        };
        if rank != b_rank {
            let what = format!("module {name} has lora_A of rank {rank} and lora_B of rank {b_rank}");
            return Err(Error::data(&path, what));
        }
        let expected = config.rank_of(&name);
        if rank as u64 != expected || inputs == 0 || outputs == 0 {
            let what = format!(
                "module {name} is [{outputs}, {rank}] x [{rank}, {inputs}], {} says rank {expected}",
                config.path.display()
            );
            return Err(Error::data(&path, what));
        }
        let scale = config.scale_of(&name, rank);
        let a = matrix(&path, &file, &name, "lora_A", a)?;
        let b = matrix(&path, &file, &name, "lora_B", b)?;
        modules.insert(name, Module { rank, inputs, outputs, scale, a, b });
    }
    Ok(Adapter { path: dir.to_path_buf(), naming: Naming::HuggingFace, base: config.base, modules })
}

fn matrix(path: &Path, file: &File, module: &str, role: &str, stored: &StoredTensor) -> Result<Vec<f32>> {
    let n: usize = stored.shape.iter().product();
    // Both sizes are bounded by the file's.
    let mut bytes = vec![0u8; n * stored.dtype.size()];
    file.read_exact_at(&mut bytes, stored.offset).map_err(|cause| Error::io("read", path, cause))?;
    let mut values = vec![0f32; n];
    if !stored.dtype.widen(&bytes, &mut values) {
        return Err(Error::data(path, format!("{role} of module {module} is not of a floating-point type")));
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::data(path, format!("{role} of module {module} holds {value}"))),
        None => Ok(values),
    }
}

pub(super) fn write(adapter: &Adapter, dir: &Path, settings: &PeftSettings) -> Result<()> {
    if adapter.naming != Naming::HuggingFace {
        return Err(Error::new(ErrorKind::InvalidArgument, "a PEFT folder wants Hugging Face's names"));
    }
    std::fs::create_dir_all(dir).map_err(|cause| Error::io("create", dir, cause))?;
    let mut names: Vec<(String, [usize; 2], &[f32])> = Vec::with_capacity(adapter.modules.len() * 2);
    for (name, module) in &adapter.modules {
        let Module { rank, inputs, outputs, a, b, .. } = module;
        names.push((format!("{PREFIX}{name}.lora_A.weight"), [*rank, *inputs], a));
        names.push((format!("{PREFIX}{name}.lora_B.weight"), [*outputs, *rank], b));
    }
    let tensors: Vec<(&str, &[usize])> =
        names.iter().map(|(name, shape, _)| (name.as_str(), shape.as_slice())).collect();
    let mut values = names.iter().map(|(_, _, values)| *values);
    write_as(&dir.join(WEIGHTS), ElementType::F16, &tensors, |_, put| match values.next() {
        Some(values) => put(values),
        None => Ok(()),
    })?;

    // The most common rank and alpha stand for all; others are named.
    let alpha_of = |module: &Module| f64::from(module.scale) * module.rank as f64;
    let rank = common(adapter.modules.values().map(|module| module.rank as f64)).unwrap_or(1.0);
    let alpha = common(adapter.modules.values().map(alpha_of)).unwrap_or(1.0);
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (name, module) in &adapter.modules {
        if module.rank as f64 != rank {
            ranks.insert(name.clone(), json!(module.rank));
        }
        if (alpha_of(module) - alpha).abs() > 1e-6 * alpha.abs() {
            alphas.insert(name.clone(), json!(alpha_of(module)));
        }
    }
    let mut targets: Vec<&str> =
        adapter.modules.keys().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    targets.sort_unstable();
    targets.dedup();
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.base,
        "r": rank as u64,
        "lora_alpha": alpha,
        "lora_dropout": settings.dropout,
        "target_modules": targets,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
    });
    let text = serde_json::to_string_pretty(&config).unwrap_or_else(|_| config.to_string());
    files::write_atomic(&dir.join(CONFIG), |out| writeln!(out, "{text}"))
}

/// The number that is there most often.
fn common(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for number in numbers {
        *counts.entry(number.to_bits()).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(bits, _)| f64::from_bits(bits))
}
