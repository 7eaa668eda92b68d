//! GGUF adapters, as llama.cpp reads and its `convert_lora_to_gguf.py` writes them: `general.type` is `adapter`, and each weight has
//! `NAME.weight.lora_a` and `NAME.weight.lora_b` (`llama-adapter.cpp`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::f16;

use super::{Adapter, MAX_RANK, Module, Naming};
use crate::gguf::{self, Header, TensorEntry, TensorSpec, TensorType, Value, Writer};
use crate::safetensors::ElementType;
use crate::{Error, ErrorKind, Result, files};

fn element(entry: &TensorEntry) -> Option<ElementType> {
    Some(match entry.kind.name {
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::BF16,
        _ => return None,
    })
}

fn expect(path: &Path, header: &Header, key: &str, wanted: &str) -> Result<()> {
    match header.get(key) {
        Some(Value::Text(text)) if text == wanted => Ok(()),
        Some(Value::Text(text)) => {
            Err(Error::data(path, format!("`{key}` is `{text}`, expected `{wanted}`: is this an adapter?")))
        }
        _ => Err(Error::data(path, format!("`{key}` is missing, expected `{wanted}`: is this an adapter?"))),
    }
}

pub(super) fn read(path: &Path) -> Result<Adapter> {
    let header = gguf::read(path)?;
    expect(path, &header, "general.type", "adapter")?;
    expect(path, &header, "adapter.type", "lora")?;
    if header.get("adapter.alora.invocation_tokens").is_some() {
        let what = "an adapter that is switched on by tokens (aLoRA) is not supported";
        return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
    }
    let base = match header.get("general.architecture") {
        Some(Value::Text(base)) => base.clone(),
        _ => return Err(Error::data(path, "`general.architecture` is missing")),
    };
    let alpha = match header.get("adapter.lora.alpha") {
        None => None,
        // llama.cpp takes 0 for none.
        Some(Value::F32(alpha)) if *alpha == 0.0 => None,
        Some(Value::F32(alpha)) if alpha.is_finite() => Some(*alpha),
        Some(other) => {
            return Err(Error::data(
                path,
                format!("`adapter.lora.alpha` is {other:?}, expected a finite f32"),
            ));
        }
    };
    let mut pairs: BTreeMap<&str, [Option<&TensorEntry>; 2]> = BTreeMap::new();
    for entry in &header.tensors {
        let role = entry.name.rsplit_once('.').and_then(|(weight, role)| {
            let module = weight.strip_suffix(".weight")?;
            Some((module, ["lora_a", "lora_b"].iter().position(|known| *known == role)?))
        });
        let Some((module, role)) = role else {
            let what = format!("tensor `{}` is no lora_a or lora_b of a weight", entry.name);
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        };
        if module == "token_embd" {
            let what = "the adapter changes the embedding of tokens, which is not supported";
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        }
        pairs.entry(module).or_default()[role] = Some(entry);
    }
    if pairs.is_empty() {
        return Err(Error::data(path, "holds no adapter: no lora_a, no lora_b"));
    }
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut modules = BTreeMap::new();
    for (name, pair) in pairs {
        let [Some(a), Some(b)] = pair else {
            let lacking = if pair[0].is_none() { "lora_a" } else { "lora_b" };
            return Err(Error::data(path, format!("weight `{name}` has no {lacking}")));
        };
        let dim = |entry: &TensorEntry, i: usize| entry.dims().get(i).map_or(1, |&dim| dim as usize);
        if a.dims().len() > 2 || b.dims().len() > 2 {
            let what = format!("weight `{name}` has matrices of more than two dimensions (experts)");
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        }
        let (inputs, rank) = (dim(a, 0), dim(a, 1));
        let (b_rank, outputs) = (dim(b, 0), dim(b, 1));
        if rank != b_rank || rank > MAX_RANK {
            let what = format!(
                "weight `{name}` has lora_a of rank {rank} and lora_b of rank {b_rank}, at most {MAX_RANK}"
            );
            return Err(Error::data(path, what));
        }
        let scale = alpha.map_or(1.0, |alpha| alpha / rank as f32);
        let a = matrix(path, &file, &header, a)?;
        let b = matrix(path, &file, &header, b)?;
        modules.insert(name.to_owned(), Module { rank, inputs, outputs, scale, a, b });
    }
    Ok(Adapter { path: path.to_path_buf(), naming: Naming::Gguf, base: Some(base), modules })
}

fn matrix(path: &Path, file: &File, header: &Header, entry: &TensorEntry) -> Result<Vec<f32>> {
    let name = &entry.name;
    let Some(dtype) = element(entry) else {
        let what =
            format!("tensor `{name}` is {}: adapters of F32, F16 and BF16 are supported", entry.kind.name);
        return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
    };
    // Within the file's size, as the header was checked.
    let n = entry.n_elements() as usize;
    let mut bytes = vec![0u8; n * dtype.size()];
    file.read_exact_at(&mut bytes, header.data_start + entry.offset)
        .map_err(|cause| Error::io("read", path, cause))?;
    let mut values = vec![0f32; n];
    dtype.widen(&bytes, &mut values);
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::data(path, format!("tensor `{name}` holds {value}"))),
        None => Ok(values),
    }
}

pub(super) fn write(
    adapter: &Adapter,
    out: &mut dyn Write,
    architecture: &str,
    half: bool,
) -> std::io::Result<()> {
    if adapter.naming != Naming::Gguf {
        return Err(std::io::Error::other("a GGUF adapter wants GGUF's names"));
    }
    let Some(kind) = TensorType::by_name(if half { "F16" } else { "F32" }) else {
        return Err(std::io::Error::other("no type of elements"));
    };
    // One alpha for all: where the modules have several, each scale goes into its matrix, and alpha is left out.
    let alpha_of = |module: &Module| module.scale * module.rank as f32;
    let first = adapter.modules.values().next().map(alpha_of).unwrap_or(0.0);
    let one_alpha = first != 0.0 && adapter.modules.values().all(|module| alpha_of(module) == first);
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::from(architecture)),
        ("general.type".to_owned(), Value::from("adapter")),
        ("adapter.type".to_owned(), Value::from("lora")),
    ];
    if one_alpha {
        metadata.push(("adapter.lora.alpha".to_owned(), Value::F32(first)));
    }
    let spec = |name: String, shape: [usize; 2]| TensorSpec { name, shape: shape.to_vec(), kind };
    let specs: Vec<TensorSpec> = adapter
        .modules
        .iter()
        .flat_map(|(name, module)| {
            [
                spec(format!("{name}.weight.lora_a"), [module.rank, module.inputs]),
                spec(format!("{name}.weight.lora_b"), [module.outputs, module.rank]),
            ]
        })
        .collect();
    let mut writer = Writer::new(out, &metadata, &specs)?;
    for module in adapter.modules.values() {
        put(&mut writer, &module.a, 1.0, half)?;
        put(&mut writer, &module.b, if one_alpha { 1.0 } else { module.scale }, half)?;
    }
    writer.finish()
}

fn put(writer: &mut Writer<'_>, values: &[f32], scale: f32, half: bool) -> std::io::Result<()> {
    writer.begin()?;
    let mut bytes = Vec::new();
    for piece in values.chunks(1 << 14) {
        bytes.clear();
        for value in piece {
            let value = value * scale;
            if half && !f16::from_f32(value).is_finite() {
                return Err(std::io::Error::other(format!("{value} is beyond the range of F16")));
            }
            match half {
                true => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
                false => bytes.extend_from_slice(&value.to_le_bytes()),
            }
        }
        writer.write(&bytes)?;
    }
    Ok(())
}
