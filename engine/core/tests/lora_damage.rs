//! Damaged adapters, PEFT folders and GGUF files: 10,000 of them, an error or an adapter that is sound, and no panic.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up must fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::ErrorKind;
use inhouse_core::lora::{Adapter, Module, Naming, PeftSettings};

const ROUNDS: usize = 5_000;

fn adapter(naming: Naming) -> Adapter {
    let module = |rank: usize, outputs: usize, inputs: usize| Module {
        rank,
        inputs,
        outputs,
        scale: 2.0,
        a: (0..rank * inputs).map(|i| (i % 7) as f32).collect(),
        b: (0..outputs * rank).map(|i| (i % 5) as f32).collect(),
    };
    let names = match naming {
        Naming::HuggingFace => ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"],
        Naming::Gguf => ["blk.0.attn_q", "blk.0.ffn_down"],
    };
    let modules: BTreeMap<String, Module> =
        names.map(str::to_owned).into_iter().zip([module(2, 8, 8), module(2, 8, 12)]).collect();
    Adapter { path: PathBuf::new(), naming, base: None, modules }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// One to four changes, mostly in the first half: flipped bits, numbers that are at a border, a cut, bytes moved.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let span = if random.below(4) == 0 { bytes.len() } else { bytes.len().div_ceil(2) };
        let at = random.below(span.max(1));
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b"0919{}[]\",:-.eE\0\xff"[random.below(17)],
            2 => {
                let number = [0, 1, u64::MAX, 1 << 31, 1 << 40, u64::from(u32::MAX)][random.below(6)];
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'x');
        }
    }
    bytes
}

/// What was read is sound in itself, or the error names what is wrong with which file.
fn check(path: &Path) -> bool {
    match Adapter::read(path) {
        Ok(adapter) => {
            for (name, module) in &adapter.modules {
                assert_eq!(module.a.len(), module.rank * module.inputs, "{name}");
                assert_eq!(module.b.len(), module.outputs * module.rank, "{name}");
                assert!(module.a.iter().chain(&module.b).all(|value| value.is_finite()), "{name}");
                let mut rows = vec![0f32; module.inputs];
                module.add_to_rows(module.outputs - 1, &mut rows);
            }
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(path.file_name().unwrap().to_str().unwrap()), "{text}");
            assert!(!matches!(error.kind(), ErrorKind::Internal), "{text}");
            false
        }
    }
}

#[test]
fn damaged_peft_folders_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("peft");
    adapter(Naming::HuggingFace).write_peft(&dir, &PeftSettings::default()).unwrap();
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(|name| dir.join(name));
    let whole = files.clone().map(|file| std::fs::read(file).unwrap());
    assert!(check(&dir));
    let (mut random, mut refused) = (Random(7), 0);
    for round in 0..ROUNDS {
        let which = usize::from(round % 3 != 0);
        std::fs::write(&files[which], damaged(&whole[which], &mut random)).unwrap();
        refused += usize::from(!check(&dir));
        std::fs::write(&files[which], &whole[which]).unwrap();
    }
    // Values of weights and free texts may change without harm.
    assert!(refused > ROUNDS / 2, "{refused} of {ROUNDS}");
}

#[test]
fn damaged_gguf_adapters_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter.gguf");
    adapter(Naming::Gguf).write_gguf(&path, "llama", true).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(check(&path));
    let (mut random, mut refused) = (Random(11), 0);
    for _ in 0..ROUNDS {
        std::fs::write(&path, damaged(&whole, &mut random)).unwrap();
        refused += usize::from(!check(&path));
    }
    assert!(refused > ROUNDS / 2, "{refused} of {ROUNDS}");
}
