//! Tiny GGUF files with random weights, written here so that the tests need no file from elsewhere.

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Meta {
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strs(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    U8s(Vec<u8>),
}

/// A tensor of F32 values, fastest dimension first.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub data: Vec<f32>,
    /// Written as the type; the data are F32 (0) or rounded to F16 (1).
    pub kind: u32,
}

/// A GGUF file in parts, to be written as it is or broken first.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub meta: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

/// A small deterministic generator; the tests' only source of chance.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn weight(&mut self, scale: f32) -> f32 {
        ((self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    }
}

impl Gguf {
    pub fn set(&mut self, key: &str, value: Meta) {
        match self.meta.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.meta.push((key.to_owned(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.meta.retain(|(name, _)| name != key);
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        let string = |out: &mut Vec<u8>, text: &str| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        };
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            string(&mut out, key);
            let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
            match value {
                Meta::U32(v) => (kind(&mut out, 4), out.extend(v.to_le_bytes())).1,
                Meta::I32(v) => (kind(&mut out, 5), out.extend(v.to_le_bytes())).1,
                Meta::F32(v) => (kind(&mut out, 6), out.extend(v.to_le_bytes())).1,
                Meta::Bool(v) => (kind(&mut out, 7), out.push(u8::from(*v))).1,
                Meta::U64(v) => (kind(&mut out, 10), out.extend(v.to_le_bytes())).1,
                Meta::Str(v) => (kind(&mut out, 8), string(&mut out, v)).1,
                Meta::Strs(v) => {
                    kind(&mut out, 9);
                    kind(&mut out, 8);
                    out.extend((v.len() as u64).to_le_bytes());
                    v.iter().for_each(|item| string(&mut out, item));
                }
                Meta::I32s(v) => {
                    kind(&mut out, 9);
                    kind(&mut out, 5);
                    out.extend((v.len() as u64).to_le_bytes());
                    v.iter().for_each(|item| out.extend(item.to_le_bytes()));
                }
                Meta::F32s(v) => {
                    kind(&mut out, 9);
                    kind(&mut out, 6);
                    out.extend((v.len() as u64).to_le_bytes());
                    v.iter().for_each(|item| out.extend(item.to_le_bytes()));
                }
                Meta::U8s(v) => {
                    kind(&mut out, 9);
                    kind(&mut out, 0);
                    out.extend((v.len() as u64).to_le_bytes());
                    out.extend(v);
                }
            }
        }
        let pad = |n: usize| n.next_multiple_of(32);
        let mut offset = 0;
        for tensor in &self.tensors {
            string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += pad(tensor.encoded().len());
        }
        out.resize(pad(out.len()), 0);
        for tensor in &self.tensors {
            out.extend(tensor.encoded());
            out.resize(pad(out.len()), 0);
        }
        out
    }
}

impl Tensor {
    fn encoded(&self) -> Vec<u8> {
        match self.kind {
            1 => self.data.iter().flat_map(|v| half(*v).to_le_bytes()).collect(),
            _ => self.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

/// F32 to F16, cut off: precise enough for random weights between 2^-14 and 1.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

/// GPT-2's `bytes_to_unicode`.
fn symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let n = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(0x100 + n).unwrap()
}

pub const N_VOCAB: usize = 272;
pub const END: u32 = 256;
/// Two and three spaces, as CodeGen's added tokens.
pub const SPACES: [u32; 2] = [259, 260];
pub const FIRST_PADDING: u32 = 261;
pub const CONTEXT: u32 = 256;

/// A byte-level vocabulary: 256 bytes, the end of text, two merged tokens, two runs of spaces, padding.
fn byte_vocab(meta: &mut Vec<(String, Meta)>) {
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| symbol(byte).to_string()).collect();
    tokens.push("<|endoftext|>".into());
    tokens.extend(["de".into(), "def".into(), "  ".into(), "   ".into()]);
    let mut types = vec![1; 256];
    types.extend([3, 1, 1, 4, 4]);
    while tokens.len() < N_VOCAB {
        tokens.push(format!("<pad{}>", tokens.len()));
        types.push(5);
    }
    let mut push = |key: &str, value| meta.push((format!("tokenizer.ggml.{key}"), value));
    push("model", Meta::Str("gpt2".into()));
    push("pre", Meta::Str("gpt-2".into()));
    push("tokens", Meta::Strs(tokens));
    push("token_type", Meta::I32s(types));
    push("merges", Meta::Strs(vec!["d e".into(), "de f".into()]));
    push("bos_token_id", Meta::U32(END));
    push("eos_token_id", Meta::U32(END));
}

/// What precedes every vocabulary below but the byte-level one.
fn pieces(first: &[(&str, i32)], texts: &[&str]) -> (Vec<String>, Vec<i32>) {
    let mut tokens: Vec<String> = first.iter().map(|(text, _)| (*text).to_owned()).collect();
    let mut types: Vec<i32> = first.iter().map(|(_, kind)| *kind).collect();
    tokens.extend(texts.iter().map(|text| (*text).to_owned()));
    types.resize(tokens.len(), 1);
    (tokens, types)
}

fn scored_vocab(meta: &mut Vec<(String, Meta)>, model: &str, mut tokens: Vec<String>, mut types: Vec<i32>) {
    let scores = (0..N_VOCAB).map(|i| -(i as f32) / 8.0).collect();
    while tokens.len() < N_VOCAB {
        tokens.push(format!("<pad{}>", tokens.len()));
        types.push(5);
    }
    meta.retain(|(key, _)| !key.starts_with("tokenizer."));
    let mut push = |key: &str, value| meta.push((format!("tokenizer.ggml.{key}"), value));
    push("model", Meta::Str(model.into()));
    push("pre", Meta::Str("default".into()));
    push("tokens", Meta::Strs(tokens));
    push("scores", Meta::F32s(scores));
    push("token_type", Meta::I32s(types));
}

/// sentencepiece's BPE with a token for every byte, as llama has it.
fn sentencepiece_vocab(meta: &mut Vec<(String, Meta)>) {
    let (mut tokens, mut types) = pieces(&[("<unk>", 2), ("<s>", 3), ("</s>", 3)], &[]);
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    let (more, kinds) = pieces(&[], &["▁", "d", "e", "f", "de", "def", "▁def"]);
    tokens.extend(more);
    types.extend(kinds);
    scored_vocab(meta, "llama", tokens, types);
    meta.push(("tokenizer.ggml.bos_token_id".into(), Meta::U32(1)));
    meta.push(("tokenizer.ggml.eos_token_id".into(), Meta::U32(2)));
}

/// sentencepiece's unigram vocabulary, as T5 has it, with a map of characters: a capital A becomes a small one.
fn unigram_vocab(meta: &mut Vec<(String, Meta)>) {
    let texts: Vec<String> = ('!'..='~').map(String::from).collect();
    let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    texts.extend(["▁", "▁def", "def", "é"]);
    let (tokens, types) = pieces(&[("<pad>", 3), ("</s>", 3), ("<unk>", 2)], &texts);
    scored_vocab(meta, "t5", tokens, types);
    let mut nodes = vec![0u32; 512];
    let from = 256 ^ u32::from(b'A');
    nodes[0] = 256 << 10;
    nodes[from as usize] = u32::from(b'A') | 1 << 8 | (from ^ 10) << 10;
    nodes[10] = 1 << 31;
    let array: Vec<u8> = nodes.iter().flat_map(|node| node.to_le_bytes()).collect();
    let map = [&(array.len() as u32).to_le_bytes(), &array[..], b"a\0"].concat();
    meta.push(("tokenizer.ggml.precompiled_charsmap".into(), Meta::U8s(map)));
    meta.push(("tokenizer.ggml.eos_token_id".into(), Meta::U32(1)));
    meta.push(("tokenizer.ggml.unknown_token_id".into(), Meta::U32(2)));
    meta.push(("tokenizer.ggml.add_eos_token".into(), Meta::Bool(true)));
}

/// Every architecture that is accepted, and the tokenizers beside byte-level BPE.
pub const ALL: [&str; 12] = [
    "phi2",
    "gpt2",
    "llama",
    "qwen2",
    "qwen3",
    "mistral3",
    "starcoder2",
    "t5",
    "t5encoder",
    "bert",
    "llama-pieces",
    "t5-unigram",
];

/// A random model named in [`ALL`]: 2 blocks, 64 wide, 4 heads.
pub fn model(name: &str, seed: u64) -> Gguf {
    let (arch, variant) = name.split_once('-').unwrap_or((name, ""));
    let mut gguf = match arch {
        "t5" | "t5encoder" => t5(arch, seed),
        _ => decoder(arch, seed),
    };
    match variant {
        "pieces" => sentencepiece_vocab(&mut gguf.meta),
        "unigram" => unigram_vocab(&mut gguf.meta),
        _ => {}
    }
    gguf
}

const E: u64 = 64;
const FF: u64 = 128;
const V: u64 = N_VOCAB as u64;

fn general(arch: &str) -> Vec<(String, Meta)> {
    let mut meta = vec![
        ("general.architecture".to_owned(), Meta::Str(arch.into())),
        ("general.name".to_owned(), Meta::Str(format!("tiny {arch}"))),
        ("general.file_type".to_owned(), Meta::U32(0)),
    ];
    let mut push = |key: &str, value| meta.push((format!("{arch}.{key}"), value));
    push("context_length", Meta::U32(CONTEXT));
    push("embedding_length", Meta::U32(E as u32));
    push("block_count", Meta::U32(2));
    push("feed_forward_length", Meta::U32(FF as u32));
    push("attention.head_count", Meta::U32(4));
    meta
}

fn tensor(random: &mut Random, name: String, shape: &[u64]) -> Tensor {
    let n = shape.iter().product::<u64>() as usize;
    let is_norm = name.contains("norm.weight");
    // Large enough that the logits of different tokens differ clearly.
    let scale = if shape.len() == 1 { 0.1 } else { 2.0 / (shape[0] as f32).sqrt() };
    let data = (0..n).map(|_| random.weight(scale) + if is_norm { 1.0 } else { 0.0 }).collect();
    Tensor { name, shape: shape.to_vec(), data, kind: 0 }
}

fn t5(arch: &str, seed: u64) -> Gguf {
    let mut random = Random(seed);
    let mut meta = general(arch);
    let mut push = |key: &str, value| meta.push((format!("{arch}.{key}"), value));
    push("attention.key_length", Meta::U32(16));
    push("attention.value_length", Meta::U32(16));
    push("attention.layer_norm_rms_epsilon", Meta::F32(1e-6));
    push("attention.relative_buckets_count", Meta::U32(32));
    push("decoder_start_token_id", Meta::U32(0));
    byte_vocab(&mut meta);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[u64]| tensors.push(tensor(&mut random, name, shape));
    add("token_embd.weight".into(), &[E, V]);
    for side in if arch == "t5" { &["enc", "dec"][..] } else { &["enc"] } {
        for i in 0..2 {
            let block = format!("{side}.blk.{i}");
            for part in if *side == "dec" { &["attn", "cross_attn"][..] } else { &["attn"] } {
                add(format!("{block}.{part}_norm.weight"), &[E]);
                for projection in ["q", "k", "v", "o"] {
                    add(format!("{block}.{part}_{projection}.weight"), &[E, E]);
                }
            }
            if i == 0 {
                add(format!("{block}.attn_rel_b.weight"), &[4, 32]);
            }
            add(format!("{block}.ffn_norm.weight"), &[E]);
            add(format!("{block}.ffn_up.weight"), &[E, FF]);
            add(format!("{block}.ffn_down.weight"), &[FF, E]);
        }
        add(format!("{side}.output_norm.weight"), &[E]);
    }
    Gguf { version: 3, meta, tensors }
}

fn decoder(arch: &str, seed: u64) -> Gguf {
    let mut random = Random(seed);
    let mut meta = general(arch);
    let mut push = |key: &str, value| meta.push((format!("{arch}.{key}"), value));
    let grouped = matches!(arch, "qwen2" | "qwen3" | "mistral3" | "starcoder2");
    push("attention.head_count_kv", Meta::U32(if grouped { 2 } else { 4 }));
    let gated = matches!(arch, "llama" | "qwen2" | "qwen3" | "mistral3");
    let norm = if gated { "attention.layer_norm_rms_epsilon" } else { "attention.layer_norm_epsilon" };
    push(norm, Meta::F32(1e-5));
    let head = if arch == "qwen3" { 32 } else { 16 };
    if arch == "qwen3" {
        push("attention.key_length", Meta::U32(head as u32));
        push("attention.value_length", Meta::U32(head as u32));
    }
    if !matches!(arch, "gpt2" | "bert") {
        push("rope.dimension_count", Meta::U32(if arch == "phi2" { 8 } else { head as u32 }));
    }
    byte_vocab(&mut meta);
    if arch == "bert" {
        meta.push(("tokenizer.ggml.token_type_count".into(), Meta::U32(2)));
    }

    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[u64]| tensors.push(tensor(&mut random, name, shape));
    let bias = !gated;
    let linear = |add: &mut dyn FnMut(String, &[u64]), name: &str, from, to, bias| {
        add(format!("{name}.weight"), &[from, to]);
        if bias {
            add(format!("{name}.bias"), &[to]);
        }
    };
    let normed = |add: &mut dyn FnMut(String, &[u64]), name: String| {
        add(format!("{name}.weight"), &[E]);
        if bias {
            add(format!("{name}.bias"), &[E]);
        }
    };
    add("token_embd.weight".into(), &[E, V]);
    if matches!(arch, "gpt2" | "bert") {
        add("position_embd.weight".into(), &[E, u64::from(CONTEXT)]);
    }
    match arch {
        "bert" => {
            add("token_types.weight".into(), &[E, 2]);
            normed(&mut add, "token_embd_norm".into());
        }
        _ => {
            normed(&mut add, "output_norm".into());
            linear(&mut add, "output", E, V, arch == "phi2");
        }
    }
    let (q, kv) = (4 * head, if grouped { 2 } else { 4 } * head);
    for i in 0..2 {
        let block = format!("blk.{i}");
        if arch != "bert" {
            normed(&mut add, format!("{block}.attn_norm"));
        }
        if arch == "gpt2" {
            linear(&mut add, &format!("{block}.attn_qkv"), E, 3 * E, true);
        } else {
            for (part, width) in [("q", q), ("k", kv), ("v", kv)] {
                linear(&mut add, &format!("{block}.attn_{part}"), E, width, bias || arch == "qwen2");
            }
        }
        if arch == "qwen3" {
            add(format!("{block}.attn_q_norm.weight"), &[head]);
            add(format!("{block}.attn_k_norm.weight"), &[head]);
        }
        linear(&mut add, &format!("{block}.attn_output"), q, E, bias);
        match arch {
            "phi2" => {}
            "bert" => normed(&mut add, format!("{block}.attn_output_norm")),
            _ => normed(&mut add, format!("{block}.ffn_norm")),
        }
        if gated {
            linear(&mut add, &format!("{block}.ffn_gate"), E, FF, false);
        }
        linear(&mut add, &format!("{block}.ffn_up"), E, FF, bias);
        linear(&mut add, &format!("{block}.ffn_down"), FF, E, bias);
        if arch == "bert" {
            normed(&mut add, format!("{block}.layer_output_norm"));
        }
    }
    Gguf { version: 3, meta, tensors }
}
