//! What a GGUF file holds, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use inhouse_core::Result;
use inhouse_core::gguf::{self, Header, TensorEntry, Value};
use serde::Serialize;
use serde_json::json;

/// A summary of a GGUF file.
#[derive(Debug, Serialize)]
pub struct Info {
    /// The file.
    pub file: String,
    /// Version of the format.
    pub version: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `general.name`.
    pub name: Option<String>,
    /// Name of `general.file_type`.
    pub file_type: Option<&'static str>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Trained context length in tokens.
    pub context_length: Option<u64>,
    /// Tokens in the vocabulary, padding included.
    pub vocab_size: Option<u64>,
    /// Number of tensors of each storage type.
    pub tensor_types: BTreeMap<&'static str, usize>,
    /// All keys in the order of the file; of arrays the length and the first items.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// All tensors in the order of the file.
    pub tensors: Vec<TensorRow>,
}

/// A tensor of the summary.
#[derive(Debug, Serialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Storage type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Bytes of its elements.
    pub bytes: u64,
}

/// Reads the header of a GGUF file.
///
/// # Errors
/// As [`gguf::read`].
pub fn info(path: &Path) -> Result<Info> {
    let header = gguf::read(path)?;
    let text = |key: &str| header.text(key).map(str::to_owned);
    let architecture = text("general.architecture");
    let prefix = architecture.clone().unwrap_or_default();
    let mut tensor_types = BTreeMap::new();
    for tensor in &header.tensors {
        *tensor_types.entry(tensor.kind.name).or_default() += 1;
    }
    Ok(Info {
        file: path.display().to_string(),
        version: header.version,
        file_bytes: header.file_bytes,
        name: text("general.name"),
        file_type: number(&header, "general.file_type").and_then(|id| {
            gguf::FILE_TYPES.iter().find(|(known, _)| u64::from(*known) == id).map(|(_, name)| *name)
        }),
        parameters: header.tensors.iter().map(TensorEntry::n_elements).sum(),
        context_length: number(&header, &format!("{prefix}.context_length")),
        vocab_size: match header.get("tokenizer.ggml.tokens") {
            Some(Value::Texts(tokens)) => Some(tokens.len() as u64),
            _ => number(&header, &format!("{prefix}.vocab_size")),
        },
        architecture,
        tensor_types,
        metadata: header.metadata.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
        tensors: header
            .tensors
            .into_iter()
            .map(|tensor| TensorRow {
                kind: tensor.kind.name,
                shape: tensor.dims().iter().rev().copied().collect(),
                bytes: tensor.n_bytes(),
                name: tensor.name,
            })
            .collect(),
    })
}

/// Items shown of an array.
const ARRAY_HEAD: usize = 8;

/// A value as JSON; an F32 as people wrote it (0.00001, not 0.000009999999747); an array as its length and first items.
fn json(value: &Value) -> serde_json::Value {
    let array = |len: usize, items: Vec<serde_json::Value>| json!({ "len": len, "items": items });
    match value {
        Value::U8(number) => (*number).into(),
        Value::I8(number) => (*number).into(),
        Value::U16(number) => (*number).into(),
        Value::I16(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::F32(number) => number.to_string().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
        Value::Bool(flag) => (*flag).into(),
        Value::Text(text) => text.as_str().into(),
        Value::U64(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::Texts(texts) => {
            let head = texts.iter().take(ARRAY_HEAD).map(|text| String::from_utf8_lossy(text).into());
            array(texts.len(), head.collect())
        }
        Value::Numbers(numbers) => {
            let head = (0..ARRAY_HEAD).filter_map(|i| numbers.get(i)).map(|item| json(&item));
            array(numbers.len(), head.collect())
        }
    }
}

fn number(header: &Header, key: &str) -> Option<u64> {
    header.get(key)?.as_u64()
}

/// The summary as people read it: facts, metadata, tensors.
impl fmt::Display for Info {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
        let types: Vec<String> =
            self.tensor_types.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(out, "{}: GGUF version {}, {} bytes", self.file, self.version, self.file_bytes)?;
        writeln!(out, "  name            {}", shown(&known(self.name.clone())))?;
        writeln!(out, "  architecture    {}", shown(&known(self.architecture.clone())))?;
        writeln!(out, "  type            {}", known(self.file_type.map(str::to_owned)))?;
        writeln!(out, "  parameters      {}", self.parameters)?;
        writeln!(out, "  context length  {}", known(self.context_length.map(|tokens| tokens.to_string())))?;
        writeln!(out, "  vocabulary      {}", known(self.vocab_size.map(|tokens| tokens.to_string())))?;
        writeln!(out, "  tensors         {} ({})", self.tensors.len(), types.join(", "))?;
        writeln!(out, "\nmetadata")?;
        for (key, value) in &self.metadata {
            match value.get("len").zip(value.get("items")) {
                Some((len, items)) => {
                    writeln!(out, "  {} = [{len}] {} ...", shown(key), shown(&items.to_string()))?
                }
                None => writeln!(out, "  {} = {}", shown(key), shown(&value.to_string()))?,
            }
        }
        writeln!(out, "\ntensors")?;
        for tensor in &self.tensors {
            let shape = format!("{:?}", tensor.shape);
            writeln!(
                out,
                "  {:32} {:8} {:20} {:>12} bytes",
                shown(&tensor.name),
                tensor.kind,
                shape,
                tensor.bytes
            )?;
        }
        Ok(())
    }
}

/// One line of bounded length, with no control character for the terminal to act on.
fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 160;
    let mut line: String = text.chars().take(MAX_CHARS).flat_map(printable).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("...");
    }
    line
}

fn printable(character: char) -> Vec<char> {
    if character.is_control() { character.escape_default().collect() } else { vec![character] }
}
