//! Keys and values of one sequence: shared immutable segments, then a tail of its own that grows in place.
//!
//! Forking freezes the tail into a segment that both sequences point to, so n samples of a prompt hold its cells once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Result, Tensor};

/// Past this many segments a sequence copies them into one: attention looks at each in turn.
const MAX_SEGMENTS: usize = 8;
/// A tail begins with room for this many cells and doubles.
const FIRST_CAPACITY: usize = 32;

/// Shape and place of the caches of a model.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub n_layer: usize,
    pub n_kv_head: usize,
    pub head_dim: usize,
    pub dtype: DType,
    pub device: Device,
}

/// Keys and values of one layer, each `[n_kv_head, cells, head_dim]`.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub keys: Tensor,
    pub values: Tensor,
}

impl KeyValue {
    fn narrow(&self, len: usize) -> Result<Self> {
        Ok(Self { keys: self.keys.narrow(1, 0, len)?, values: self.values.narrow(1, 0, len)? })
    }
}

/// Cells that no one changes any more, per layer.
#[derive(Debug)]
struct Segment {
    /// The same for every cut of the same cells, so that they are counted once.
    id: u64,
    len: usize,
    layers: Vec<KeyValue>,
}

/// Cells of one sequence alone: per layer `[n_kv_head, capacity, head_dim]`, of which the first `len` count.
#[derive(Debug)]
struct Tail {
    len: usize,
    capacity: usize,
    layers: Vec<KeyValue>,
}

/// What an encoder read, as the decoder's cross-attention sees it: keys and values per layer of the decoder.
#[derive(Debug)]
pub(crate) struct Memory {
    pub len: usize,
    pub layers: Vec<KeyValue>,
}

/// The cache of one sequence.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    segments: Vec<Arc<Segment>>,
    tail: Option<Tail>,
    /// For an encoder-decoder: what its encoder read.
    memory: Option<Arc<Memory>>,
}

impl Sequence {
    /// A sequence without cells of its own that continues what an encoder read.
    pub fn after(memory: Memory) -> Self {
        Self { memory: Some(Arc::new(memory)), ..Self::default() }
    }

    /// What an encoder read for it.
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        self.memory.as_ref()
    }

    /// Cells, that is tokens.
    pub fn len(&self) -> usize {
        self.frozen_len() + self.tail.as_ref().map_or(0, |tail| tail.len)
    }

    fn frozen_len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// Makes room for `count` more cells. It changes nothing that counts.
    pub fn reserve(&mut self, count: usize, shape: &Shape) -> Result<()> {
        let (len, capacity) = self.tail.as_ref().map_or((0, 0), |tail| (tail.len, tail.capacity));
        if len + count <= capacity {
            return Ok(());
        }
        let capacity = (len + count).next_power_of_two().max(FIRST_CAPACITY);
        let empty = || Tensor::zeros((shape.n_kv_head, capacity, shape.head_dim), shape.dtype, &shape.device);
        let mut layers = Vec::with_capacity(shape.n_layer);
        for layer in 0..shape.n_layer {
            let grown = KeyValue { keys: empty()?, values: empty()? };
            if let Some(tail) = self.tail.as_ref().filter(|tail| tail.len > 0) {
                let old = tail.layers[layer].narrow(tail.len)?;
                grown.keys.slice_set(&old.keys.contiguous()?, 1, 0)?;
                grown.values.slice_set(&old.values.contiguous()?, 1, 0)?;
            }
            layers.push(grown);
        }
        self.tail = Some(Tail { len, capacity, layers });
        Ok(())
    }

    /// Writes the cells that follow the counted ones in one layer (room was reserved), and gives all cells of that layer
    /// in order, the new ones included: a list of parts.
    pub fn write(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<Vec<KeyValue>> {
        let mut parts: Vec<KeyValue> =
            self.segments.iter().map(|segment| segment.layers[layer].clone()).collect();
        let Some(tail) = &self.tail else { candle_core::bail!("no room was reserved in the cache") };
        let buffer = &tail.layers[layer];
        buffer.keys.slice_set(keys, 1, tail.len)?;
        buffer.values.slice_set(values, 1, tail.len)?;
        parts.push(buffer.narrow(tail.len + keys.dim(1)?)?);
        Ok(parts)
    }

    /// Counts `count` cells that were written in every layer.
    pub fn commit(&mut self, count: usize) {
        if let Some(tail) = &mut self.tail {
            tail.len += count;
        }
    }

    /// Drops the cells from `len` on.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        let frozen = self.frozen_len();
        if len >= frozen {
            if let Some(tail) = &mut self.tail {
                tail.len = len - frozen;
            }
            return Ok(());
        }
        let mut kept = Vec::new();
        let mut left = len;
        for segment in &self.segments {
            if left == 0 {
                break;
            }
            if segment.len <= left {
                kept.push(Arc::clone(segment));
            } else {
                let layers = segment.layers.iter().map(|layer| layer.narrow(left)).collect::<Result<_>>()?;
                kept.push(Arc::new(Segment { id: segment.id, len: left, layers }));
            }
            left -= segment.len.min(left);
        }
        self.segments = kept;
        self.tail = None;
        Ok(())
    }

    /// A second sequence with the same cells. The tail is frozen, so that neither overwrites the other.
    pub fn fork(&mut self) -> Result<Self> {
        if let Some(tail) = self.tail.take_if(|tail| tail.len > 0) {
            let layers = tail.layers.iter().map(|layer| layer.narrow(tail.len)).collect::<Result<_>>()?;
            self.segments.push(Arc::new(Segment { id: next_id(), len: tail.len, layers }));
        }
        if self.segments.len() > MAX_SEGMENTS {
            self.merge()?;
        }
        Ok(Self { segments: self.segments.clone(), tail: None, memory: self.memory.clone() })
    }

    fn merge(&mut self) -> Result<()> {
        let n_layer = self.segments.first().map_or(0, |segment| segment.layers.len());
        let mut layers = Vec::with_capacity(n_layer);
        for layer in 0..n_layer {
            let parts = |pick: fn(&KeyValue) -> &Tensor| {
                let tensors: Vec<&Tensor> =
                    self.segments.iter().map(|segment| pick(&segment.layers[layer])).collect();
                Tensor::cat(&tensors, 1)
            };
            layers
                .push(KeyValue { keys: parts(|layer| &layer.keys)?, values: parts(|layer| &layer.values)? });
        }
        self.segments = vec![Arc::new(Segment { id: next_id(), len: self.frozen_len(), layers })];
        Ok(())
    }
}

/// Cells held by all sequences together; shared ones count once.
pub(crate) fn cells(sequences: &[Sequence]) -> usize {
    let mut frozen: std::collections::HashMap<u64, usize> = std::collections::HashMap::new();
    let mut memories: std::collections::HashMap<*const Memory, usize> = std::collections::HashMap::new();
    let mut own = 0;
    for sequence in sequences {
        own += sequence.tail.as_ref().map_or(0, |tail| tail.len);
        for segment in &sequence.segments {
            let longest = frozen.entry(segment.id).or_default();
            *longest = segment.len.max(*longest);
        }
        if let Some(memory) = &sequence.memory {
            memories.insert(Arc::as_ptr(memory), memory.len);
        }
    }
    own + frozen.values().sum::<usize>() + memories.values().sum::<usize>()
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
