//! Writes a GGUF file front to back: header, metadata, the table of tensors, then each tensor's bytes as they come.

use std::io::{Error, Result, Write};

use super::{ALIGNMENT, Kind, TensorType, VERSION, Value};

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Dimensions, outermost first (the file has them the other way round).
    pub shape: Vec<usize>,
    /// How it is stored.
    pub kind: &'static TensorType,
}

impl TensorSpec {
    /// Bytes of its elements.
    pub fn bytes(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|&dim| dim as u64).product();
        self.kind.bytes(elements).unwrap_or(u64::MAX)
    }
}

/// Writes the tensors of one file in the order of its table.
pub struct Writer<'a> {
    out: &'a mut dyn Write,
    specs: &'a [TensorSpec],
    next: usize,
    /// Bytes of the current tensor still to come.
    left: u64,
}

impl<'a> Writer<'a> {
    /// Writes everything before the tensors' bytes.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn new(
        out: &'a mut dyn Write,
        metadata: &[(String, Value)],
        specs: &'a [TensorSpec],
    ) -> Result<Self> {
        let mut head = Vec::with_capacity(1 << 20);
        head.extend_from_slice(b"GGUF");
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(specs.len() as u64).to_le_bytes());
        head.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_text(&mut head, key);
            head.extend_from_slice(&(value.kind() as u32).to_le_bytes());
            put_value(&mut head, value);
        }
        let mut offset = 0u64;
        for spec in specs {
            put_text(&mut head, &spec.name);
            head.extend_from_slice(&(spec.shape.len() as u32).to_le_bytes());
            for &dim in spec.shape.iter().rev() {
                head.extend_from_slice(&(dim as u64).to_le_bytes());
            }
            head.extend_from_slice(&spec.kind.id.to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            offset += spec.bytes().next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        out.write_all(&head)?;
        Ok(Self { out, specs, next: 0, left: 0 })
    }

    /// Begins the next tensor of the table.
    ///
    /// # Errors
    /// The one before is not complete, or there is no next.
    pub fn begin(&mut self) -> Result<()> {
        self.end_tensor()?;
        let spec = self.specs.get(self.next).ok_or_else(|| Error::other("more tensors than in the table"))?;
        self.left = spec.bytes();
        self.next += 1;
        Ok(())
    }

    /// Writes more bytes of the current tensor.
    ///
    /// # Errors
    /// More bytes than the tensor has, or `out` cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| Error::other("a tensor has more bytes than its table entry"))?;
        self.out.write_all(bytes)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// A tensor is missing or incomplete.
    pub fn finish(mut self) -> Result<()> {
        self.end_tensor()?;
        if self.next < self.specs.len() {
            return Err(Error::other(format!(
                "only {} of {} tensors were written",
                self.next,
                self.specs.len()
            )));
        }
        Ok(())
    }

    fn end_tensor(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::other(format!("tensor {} lacks {} bytes", self.next, self.left)));
        }
        if let Some(spec) = self.next.checked_sub(1).and_then(|last| self.specs.get(last)) {
            let padding = spec.bytes().next_multiple_of(ALIGNMENT) - spec.bytes();
            self.out.write_all(&[0u8; ALIGNMENT as usize][..padding as usize])?;
        }
        Ok(())
    }
}

fn put_text(head: &mut Vec<u8>, text: &str) {
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
}

fn put_value(head: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I8(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U16(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I16(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::F32(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::U64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::I64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::F64(number) => head.extend_from_slice(&number.to_le_bytes()),
        Value::Bool(flag) => head.push(u8::from(*flag)),
        Value::Text(text) => put_text(head, text),
        Value::Texts(texts) => {
            put_array(head, Kind::Text, texts.len());
            for text in texts.iter() {
                head.extend_from_slice(&(text.len() as u64).to_le_bytes());
                head.extend_from_slice(text);
            }
        }
        Value::Numbers(numbers) => {
            put_array(head, numbers.kind, numbers.len());
            head.extend_from_slice(&numbers.bytes);
        }
    }
}

fn put_array(head: &mut Vec<u8>, kind: Kind, len: usize) {
    head.extend_from_slice(&(kind as u32).to_le_bytes());
    head.extend_from_slice(&(len as u64).to_le_bytes());
}
