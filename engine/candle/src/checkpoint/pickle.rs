//! A reader for the one kind of pickle that a checkpoint needs: a dictionary of tensors.
//!
//! Pickle is a program for a stack machine that may call any Python function. This machine knows the opcodes that torch
//! writes, resolves only the names in [`Global::resolve`], and builds plain records out of them: there is nothing it
//! could execute. Any other name or opcode is an error that says which.
//!
//! Objects live in one arena and refer to each other by index, as memoised Python objects do. So a memo reference costs
//! nothing (no exponential copies), cycles are harmless, and nothing recurses (no stack overflow); each byte of input makes
//! at most one object. `candle_core::pickle`, which boxes and clones, has neither property.
//!
//! Opcodes: CPython's `Lib/pickletools.py`; tensors: `torch/_utils.py` (`_rebuild_tensor_v2`).

use std::collections::HashMap;
use std::rc::Rc;

/// Index of an object in the arena.
type Id = usize;

/// Objects of one pickle; a real state dict needs about 20 per tensor.
const MAX_OBJECTS: usize = 1 << 20;
/// Bytes of a pickle for each of its objects, at least, beyond the first [`FEW_OBJECTS`]: a real state dict has six. A byte may
/// make an object, so without this bound a pickle would need memory many times its size.
const BYTES_PER_OBJECT: usize = 4;
const FEW_OBJECTS: usize = 4096;
/// Arguments of one call, dimensions of one tensor: torch has 7 and 8 at most. A bound, because a memoised tuple can be
/// used again for two bytes.
const MAX_TUPLE_READ: usize = 16;

/// A tensor as pickled: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PickledTensor {
    /// `FloatStorage`, `HalfStorage`, ...
    pub storage_type: Rc<str>,
    /// Name of the storage's entry in the archive.
    pub storage_key: Rc<str>,
    /// In elements.
    pub offset: u64,
    pub shape: Vec<usize>,
    /// In elements.
    pub strides: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    RebuildFromType,
    /// The Python type of a tensor, an argument of `_rebuild_from_type_v2`.
    TensorType,
    StorageType(Rc<str>),
}

impl Global {
    fn resolve(module: &str, name: &str) -> Result<Self, String> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => Self::TensorType,
            ("torch", name) if name.ends_with("Storage") => Self::StorageType(name.into()),
            _ => {
                return Err(format!(
                    "asks for {module}.{name}, which a dictionary of tensors has no need of; nothing was executed"
                ));
            }
        })
    }
}

#[derive(Debug)]
enum Object {
    None,
    /// A number that only flags use (bool, float).
    Scalar,
    Int(i64),
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<PickledTensor>),
}

#[derive(Debug)]
struct Storage {
    class: Rc<str>,
    key: Rc<str>,
}

/// Reads the state dict of a pickle: tensors by name, in the order of the file.
///
/// # Errors
/// One line without the file's name: what the pickle asks for that is not allowed, or where it breaks off.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(Rc<str>, PickledTensor)>, String> {
    let mut machine = Machine { bytes, ..Machine::default() };
    let root = machine.run()?;
    machine.tensors_of(root)
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Stack heights at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let position = self.at;
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode).map_err(|what| format!("byte {position}: {what}"))?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), String> {
        match opcode {
            // PROTO, FRAME: framing only.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'N' => self.push(Object::None),
            0x88 | 0x89 => self.push(Object::Scalar),
            b'G' => {
                self.take(8)?;
                self.push(Object::Scalar)
            }
            b'K' => {
                let value = self.unsigned(1)?;
                self.push(Object::Int(value as i64))
            }
            b'M' => {
                let value = self.unsigned(2)?;
                self.push(Object::Int(value as i64))
            }
            b'J' => {
                let value = self.unsigned(4)? as u32 as i32;
                self.push(Object::Int(i64::from(value)))
            }
            0x8a => self.long(),
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'c' => self.global(),
            0x93 => self.stack_global(),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(opcode - 0x84))?;
                self.push(Object::Tuple(items))
            }
            b']' => self.push(Object::List(Vec::new())),
            b'a' => {
                let items = self.pop_many(1)?;
                self.extend_list(items)
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b's' => {
                let items = self.pop_many(2)?;
                self.extend_dict(&items)
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)
            }
            b'q' => self.memoise_next(1),
            b'r' => self.memoise_next(4),
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "too many memo entries")?;
                self.memoise(key)
            }
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'Q' => self.persistent_load(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            other => Err(format!("opcode 0x{other:02x} is not part of a dictionary of tensors")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| format!("the pickle breaks off after {} bytes", self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian number of `width` bytes.
    fn unsigned(&mut self, width: usize) -> Result<u64, String> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn push(&mut self, object: Object) -> Result<(), String> {
        self.make_room()?;
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    /// Checks that there may be one more object, in the arena and on the stack.
    fn make_room(&mut self) -> Result<(), String> {
        let limit = MAX_OBJECTS.min(FEW_OBJECTS + self.bytes.len() / BYTES_PER_OBJECT);
        let n = self.objects.len();
        if n >= limit || self.stack.len() >= limit {
            return Err(format!("more than {limit} objects in {} bytes", self.bytes.len()));
        }
        if n == self.objects.capacity() {
            self.objects.reserve_exact(n.max(64).min(limit - n));
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.pop_many(1).map(|ids| ids[0])
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => Err("takes from an empty stack".into()),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let start = self.marks.pop().ok_or("closes what was never opened (no MARK)")?;
        Ok(self.stack.split_off(start))
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "looks at an empty stack".into())
    }

    fn long(&mut self) -> Result<(), String> {
        let width = self.unsigned(1)? as usize;
        let bytes = self.take(width)?;
        if width > 8 {
            return Err(format!("an integer of {width} bytes"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut padded = [if negative { 0xff } else { 0 }; 8];
        padded[..width].copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(padded)))
    }

    fn text(&mut self, length_width: usize) -> Result<(), String> {
        let length = self.unsigned(length_width)?;
        let bytes = self.take(usize::try_from(length).map_err(|_| "a text beyond the file")?)?;
        let text = std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
        self.push(Object::Text(text.into()))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).map_err(|_| "a name that is not UTF-8".into())
    }

    fn global(&mut self) -> Result<(), String> {
        let module = self.line()?;
        let name = self.line()?;
        self.push(Object::Global(Global::resolve(module, name)?))
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let ids = self.pop_many(2)?;
        match (&self.objects[ids[0]], &self.objects[ids[1]]) {
            (Object::Text(module), Object::Text(name)) => {
                let global = Global::resolve(module, name)?;
                self.push(Object::Global(global))
            }
            _ => Err("a name that is no text".into()),
        }
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), String> {
        let id = self.top()?;
        match &mut self.objects[id] {
            Object::List(list) => {
                list.extend(items);
                Ok(())
            }
            _ => Err("appends to what is no list".into()),
        }
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), String> {
        let id = self.top()?;
        match &mut self.objects[id] {
            Object::Dict(dict) if items.len().is_multiple_of(2) => {
                dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                Ok(())
            }
            Object::Dict(_) => Err("a dictionary with a key and no value".into()),
            _ => Err("sets an item of what is no dictionary".into()),
        }
    }

    fn memoise_next(&mut self, width: usize) -> Result<(), String> {
        let key = self.unsigned(width)? as u32;
        self.memoise(key)
    }

    fn memoise(&mut self, key: u32) -> Result<(), String> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), String> {
        let key = self.unsigned(width)? as u32;
        let id = *self.memo.get(&key).ok_or_else(|| format!("memo entry {key} was never set"))?;
        // The same byte read again and again makes no new object, but the stack must not outgrow the limit either.
        self.make_room()?;
        self.stack.push(id);
        Ok(())
    }

    /// `('storage', storage type, key, device, number of elements)` becomes a storage.
    fn persistent_load(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Object::Tuple(parts) = &self.objects[id] else {
            return Err("a persistent id that is no tuple".into());
        };
        let storage = match parts.as_slice() {
            &[tag, class, key, _device, _elements] => {
                match (&self.objects[tag], &self.objects[class], &self.objects[key]) {
                    (Object::Text(tag), Object::Global(Global::StorageType(class)), Object::Text(key))
                        if &**tag == "storage" =>
                    {
                        Some(Object::Storage(Box::new(Storage { class: class.clone(), key: key.clone() })))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        self.push(storage.ok_or("a persistent id that is no storage")?)
    }

    /// Applies one of the functions of [`Global`], as a record; anything else cannot have reached the stack.
    fn reduce(&mut self) -> Result<(), String> {
        let ids = self.pop_many(2)?;
        let Object::Global(global) = &self.objects[ids[0]] else {
            return Err("calls what is no function".into());
        };
        let global = global.clone();
        let Object::Tuple(arguments) = &self.objects[ids[1]] else {
            return Err("calls with arguments that are no tuple".into());
        };
        if arguments.len() > MAX_TUPLE_READ {
            return Err(format!("a call with {} arguments", arguments.len()));
        }
        let arguments = arguments.clone();
        self.call(&global, &arguments)
    }

    fn call(&mut self, global: &Global, arguments: &[Id]) -> Result<(), String> {
        match (global, arguments) {
            (Global::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (Global::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                let tensor = self.tensor(storage, offset, shape, strides)?;
                self.push(Object::Tensor(Box::new(tensor)))
            }
            (Global::RebuildParameter, &[tensor, ..]) => {
                self.stack.push(tensor);
                Ok(())
            }
            // (function, type, its arguments, state): one level only, as torch nests it.
            (Global::RebuildFromType, &[function, _type, inner, ..]) => {
                match (&self.objects[function], &self.objects[inner]) {
                    (
                        Object::Global(function @ (Global::RebuildTensor | Global::RebuildParameter)),
                        Object::Tuple(inner),
                    ) if inner.len() <= MAX_TUPLE_READ => {
                        let (function, inner) = (function.clone(), inner.clone());
                        self.call(&function, &inner)
                    }
                    _ => Err("_rebuild_from_type_v2 of what is no tensor".into()),
                }
            }
            _ => Err(format!("{global:?} with {} arguments", arguments.len())),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<PickledTensor, String> {
        let Object::Storage(storage) = &self.objects[storage] else {
            return Err("a tensor without a storage".into());
        };
        let Object::Int(offset) = self.objects[offset] else {
            return Err("a tensor whose offset is no integer".into());
        };
        Ok(PickledTensor {
            storage_type: storage.class.clone(),
            storage_key: storage.key.clone(),
            offset: u64::try_from(offset).map_err(|_| format!("a tensor at offset {offset}"))?,
            shape: self.dimensions(shape)?,
            strides: self.dimensions(strides)?,
        })
    }

    fn dimensions(&self, id: Id) -> Result<Vec<usize>, String> {
        let Object::Tuple(items) = &self.objects[id] else {
            return Err("a tensor whose shape is no tuple".into());
        };
        if items.len() > MAX_TUPLE_READ {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        let dimension = |&id: &Id| match self.objects[id] {
            Object::Int(value) => usize::try_from(value).map_err(|_| format!("a dimension of {value}")),
            _ => Err("a dimension that is no integer".into()),
        };
        items.iter().map(dimension).collect()
    }

    /// Sets attributes: torch does so for `_metadata` of the dictionary, which no reader needs.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.objects[self.top()?] {
            Object::Dict(_) | Object::Tensor(_) => Ok(()),
            _ => Err("sets attributes of what is no dictionary".into()),
        }
    }

    /// The tensors of a dictionary; where it has none but a dictionary under `state_dict`, those of that one.
    fn tensors_of(&self, root: Id) -> Result<Vec<(Rc<str>, PickledTensor)>, String> {
        let mut items = self.dict(root)?;
        let nested = items
            .iter()
            .find(|(key, _)| matches!(&self.objects[*key], Object::Text(key) if &**key == "state_dict"));
        if let Some(&(_, value)) = nested {
            items = self.dict(value)?;
        }
        let mut tensors = Vec::new();
        for &(key, value) in items {
            if let (Object::Text(name), Object::Tensor(tensor)) = (&self.objects[key], &self.objects[value]) {
                tensors.push((Rc::clone(name), PickledTensor::clone(tensor)));
            }
        }
        Ok(tensors)
    }

    fn dict(&self, id: Id) -> Result<&[(Id, Id)], String> {
        match &self.objects[id] {
            Object::Dict(items) => Ok(items),
            _ => Err("is no dictionary of tensors".into()),
        }
    }
}
