//! Files that are not what they should be.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use inhouse_core::ErrorKind;
use inhouse_core::decode::{CancelToken, DecoderOptions, Request, SamplingParams, StopRules, generate};
use inhouse_llama::{LoadOptions, load, validate};

use crate::tiny::{self, Gguf, Meta, Random};

#[test]
fn what_a_valid_file_holds() {
    for name in tiny::ALL {
        for version in [2, 3] {
            let gguf = Gguf { version, ..tiny::model(name, 1) };
            let (_folder, path) = crate::write(&gguf);
            let summary = validate(&path).unwrap();
            let arch = name.split('-').next().unwrap();
            assert_eq!((summary.version, summary.architecture.as_str()), (version, arch));
            assert_eq!((summary.n_blocks, summary.n_embd, summary.vocab_size), (2, 64, tiny::N_VOCAB));
            assert_eq!(summary.n_tensors, gguf.tensors.len());
            assert_eq!(
                summary.parameters,
                gguf.tensors.iter().map(|tensor| tensor.data.len() as u64).sum::<u64>()
            );
            let generates = !matches!(arch, "bert" | "t5encoder");
            assert_eq!(summary.generates, generates);
            assert_eq!(summary.decoder_start, (arch == "t5").then_some(0));
            match load(&path, &LoadOptions::default()) {
                Ok(model) => assert!(generates && model.info().architecture == arch),
                Err(error) => {
                    assert!(!generates && error.kind() == ErrorKind::Unsupported, "{name}: {error}")
                }
            }
        }
    }
}

#[test]
fn matrices_may_be_f16_vectors_not() {
    let mut gguf = tiny::model("phi2", 1);
    for tensor in &mut gguf.tensors {
        tensor.kind = u32::from(tensor.shape.len() == 2);
    }
    let (_folder, path) = crate::write(&gguf);
    assert_eq!(validate(&path).unwrap().dtype, "F16");
    load(&path, &LoadOptions::default()).unwrap();
    gguf.tensor("output_norm.bias").kind = 1;
    let (_folder, path) = crate::write(&gguf);
    assert!(validate(&path).unwrap_err().to_string().contains("`output_norm.bias` is F16, expected F32"));
}

/// A change to a valid file, and what the error says about it.
type Case = (&'static str, fn(&mut Gguf), ErrorKind, &'static str);

#[test]
fn faults_are_named() {
    use ErrorKind::{InvalidData, Unsupported, UnsupportedVersion};
    let cases: &[Case] = &[
        ("phi2", |g| g.version = 1, UnsupportedVersion, "GGUF version 1"),
        ("phi2", |g| g.version = 4, UnsupportedVersion, "GGUF version 4"),
        ("phi2", |g| g.version = 3 << 24, UnsupportedVersion, "big-endian"),
        ("phi2", |g| g.tensors.clear(), InvalidData, "0 tensors"),
        ("phi2", |g| g.remove("general.architecture"), InvalidData, "`general.architecture` is missing"),
        ("phi2", |g| g.set("general.architecture", Meta::Str("mamba".into())), Unsupported, "`mamba`"),
        ("phi2", |g| g.set("general.architecture", Meta::Str("a\nb".into())), Unsupported, "`a\\nb`"),
        ("phi2", |g| g.set("a\nb", Meta::U32(1)), InvalidData, "malformed metadata key"),
        ("phi2", |g| g.set("general.alignment", Meta::U32(33)), InvalidData, "general.alignment"),
        (
            "phi2",
            |g| g.set("phi2.block_count", Meta::U32(3)),
            InvalidData,
            "`blk.2.attn_norm.weight` is missing",
        ),
        ("phi2", |g| g.set("phi2.block_count", Meta::U32(1)), InvalidData, "`blk.1."),
        ("phi2", |g| g.set("phi2.block_count", Meta::U32(0)), InvalidData, "phi2.block_count"),
        ("phi2", |g| g.set("phi2.block_count", Meta::U64(2)), InvalidData, "of type u64"),
        ("phi2", |g| g.set("phi2.embedding_length", Meta::U32(128)), InvalidData, "token_embd.weight"),
        ("phi2", |g| g.set("phi2.attention.head_count", Meta::U32(5)), InvalidData, "heads"),
        ("phi2", |g| g.set("phi2.attention.head_count_kv", Meta::U32(3)), InvalidData, "cannot share"),
        (
            "phi2",
            |g| g.set("phi2.attention.layer_norm_epsilon", Meta::F32(-1.0)),
            InvalidData,
            "layer_norm_epsilon",
        ),
        ("phi2", |g| g.set("phi2.rope.dimension_count", Meta::U32(7)), InvalidData, "rope.dimension_count"),
        ("phi2", |g| g.set("phi2.rope.dimension_count", Meta::U32(18)), InvalidData, "rope.dimension_count"),
        (
            "phi2",
            |g| g.set("phi2.rope.scaling.type", Meta::Str("x".into())),
            Unsupported,
            "rope.scaling.type",
        ),
        ("phi2", |g| g.set("phi2.expert_count", Meta::U32(9999)), Unsupported, "`phi2.expert_count`"),
        ("phi2", |g| g.set("split.count", Meta::U32(2)), Unsupported, "split over several files"),
        (
            "phi2",
            |g| g.set("tokenizer.ggml.model", Meta::Str("none".into())),
            Unsupported,
            "tokenizer `none`",
        ),
        (
            "phi2",
            |g| g.set("tokenizer.ggml.pre", Meta::Str("odd".into())),
            Unsupported,
            "pre-tokenizer `odd`",
        ),
        ("phi2", |g| g.set("tokenizer.ggml.tokens", Meta::Strs(vec![])), InvalidData, "0 tokens"),
        ("phi2", |g| g.set("tokenizer.ggml.tokens", Meta::Strs(vec!["a".into()])), InvalidData, "token_type"),
        ("phi2", |g| g.remove("tokenizer.ggml.tokens"), InvalidData, "no vocabulary"),
        (
            "phi2",
            |g| g.set("tokenizer.ggml.merges", Meta::Strs(vec!["ab".into()])),
            InvalidData,
            "merge 0, `ab`",
        ),
        (
            "phi2",
            |g| g.set("tokenizer.ggml.merges", Meta::Strs(vec!["a b".into()])),
            InvalidData,
            "merge 0, `a b`",
        ),
        (
            "phi2",
            |g| g.set("tokenizer.ggml.model", Meta::Str("llama".into())),
            InvalidData,
            "no token `<0x00>`",
        ),
        ("phi2", |g| g.set("tokenizer.ggml.eos_token_id", Meta::U32(9999)), InvalidData, "eos_token_id"),
        ("phi2", |g| g.set("tokenizer.ggml.eos_token_id", Meta::I32(1)), InvalidData, "expected u32"),
        ("phi2", |g| g.set("tokenizer.ggml.add_bos_token", Meta::Bool(true)), InvalidData, ""),
        (
            "phi2",
            |g| g.tensor("output.bias").name = "output.bios".into(),
            InvalidData,
            "`output.bias` is missing",
        ),
        ("phi2", |g| g.tensor("output.bias").shape = vec![136, 2], InvalidData, "`output.bias` has shape"),
        ("phi2", |g| g.tensor("output.bias").shape = vec![u64::MAX, 2], InvalidData, "impossible shape"),
        ("phi2", |g| g.tensor("output.bias").shape = vec![0], InvalidData, "impossible shape"),
        ("phi2", |g| g.tensor("output.bias").shape = vec![1; 5], InvalidData, "5 dimensions"),
        ("phi2", |g| g.tensor("output.weight").kind = 99, Unsupported, "ggml type 99"),
        ("phi2", |g| g.tensor("output.weight").kind = 12, InvalidData, "no whole blocks of Q4_K"),
        ("gpt2", |g| g.set("gpt2.attention.head_count_kv", Meta::U32(2)), InvalidData, "gpt2 has as many"),
        ("gpt2", |g| g.set("gpt2.context_length", Meta::U32(512)), InvalidData, "position_embd.weight"),
        ("llama", |g| g.set("llama.rope.dimension_count", Meta::U32(8)), InvalidData, "rope.dimension_count"),
        ("llama", |g| g.remove("llama.attention.layer_norm_rms_epsilon"), InvalidData, "is missing"),
        ("qwen2", |g| g.set("qwen2.rope.dimension_count", Meta::U32(8)), InvalidData, "rope.dimension_count"),
        ("qwen3", |g| g.remove("qwen3.attention.key_length"), InvalidData, "do not fit"),
        ("qwen3", |g| g.tensor("blk.1.attn_q_norm.weight").name = "x".into(), InvalidData, "attn_q_norm"),
        ("starcoder2", |g| g.tensor("blk.0.ffn_up.bias").name = "x".into(), InvalidData, "ffn_up.bias"),
        (
            "mistral3",
            |g| g.set("mistral3.attention.temperature_scale", Meta::F32(f32::NAN)),
            InvalidData,
            "temperature_scale",
        ),
        ("t5", |g| g.set("t5.decoder_block_count", Meta::U32(3)), Unsupported, "at most as many can run"),
        ("t5", |g| g.set("t5.decoder_start_token_id", Meta::U32(272)), InvalidData, "decoder_start_token_id"),
        ("t5", |g| g.set("t5.context_length", Meta::U32(1 << 20)), InvalidData, "t5.context_length"),
        (
            "t5",
            |g| g.set("t5.attention.relative_buckets_count", Meta::U32(6)),
            Unsupported,
            "relative_buckets_count",
        ),
        ("t5", |g| g.tensor("dec.blk.0.attn_rel_b.weight").name = "x".into(), InvalidData, "attn_rel_b"),
        (
            "t5-unigram",
            |g| g.set("tokenizer.ggml.precompiled_charsmap", Meta::U8s(vec![4, 0, 0, 0, 0, 4, 0, 0, 0])),
            InvalidData,
            "precompiled_charsmap",
        ),
        (
            "llama-pieces",
            |g| g.set("tokenizer.ggml.model", Meta::Str("bert".into())),
            Unsupported,
            "byte tokens",
        ),
        ("llama-pieces", |g| g.set("tokenizer.ggml.scores", Meta::F32s(vec![0.0])), InvalidData, "1 items"),
    ];
    for (arch, change, kind, text) in cases {
        let mut gguf = tiny::model(arch, 1);
        change(&mut gguf);
        let (_folder, path) = crate::write(&gguf);
        match validate(&path) {
            // The one change that is none: an option this build knows.
            Ok(_) => assert!(text.is_empty(), "accepted: {text}"),
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(text) && message.contains("tiny.gguf"), "{text}: {message}");
                assert_eq!(error.kind(), *kind, "{message}");
                assert!(!message.contains('\n'));
            }
        }
    }
}

#[test]
fn no_gguf_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    assert_eq!(validate(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(validate(folder.path()).unwrap_err().kind(), ErrorKind::InvalidData);
    for bytes in [&b""[..], b"GG", b"GGUF", b"hello world, this is text", &[0; 4096]] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(load(&path, &LoadOptions::default()).err().unwrap().kind(), ErrorKind::InvalidData);
    }
    // 2 GB of nothing: a sparse file with a header that promises everything.
    std::fs::write(&path, [&b"GGUF"[..], &3u32.to_le_bytes(), &[0xff; 16]].concat()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 << 30).unwrap();
    assert_eq!(validate(&path).unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn every_truncation_is_an_error() {
    let gguf = tiny::model("phi2", 1);
    let bytes = gguf.bytes();
    let (_folder, path) = crate::write(&gguf);
    let directory = 12_000.min(bytes.len());
    for length in (0..directory).step_by(7).chain((directory..bytes.len() - 32).step_by(4099)) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(validate(&path).unwrap_err().kind(), ErrorKind::InvalidData, "{length} bytes");
    }
}

const INTERESTING: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    31,
    32,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    257,
    512,
    513,
    1000,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// A change to the parts of a file: well-formed, but rarely right.
fn change_parts(gguf: &mut Gguf, random: &mut Random) {
    let n = INTERESTING[random.below(INTERESTING.len())];
    let at = random.below(gguf.meta.len());
    let tensor = random.below(gguf.tensors.len());
    match random.below(12) {
        0 => drop(gguf.meta.remove(at)),
        1 => drop(gguf.tensors.remove(tensor)),
        2 => gguf.tensors[tensor].shape[0] = n,
        3 => gguf.tensors[tensor].shape.push(n),
        4 => gguf.tensors[tensor].kind = n as u32,
        5 => {
            let other = random.below(gguf.tensors.len());
            gguf.tensors.swap(tensor, other);
        }
        6 => {
            let Some(Meta::Str(arch)) = gguf.meta.first().map(|(_, value)| value.clone()) else { return };
            let (key, value) = match random.below(8) {
                0 => ("rope.freq_base", Meta::F32(f32::from_bits(random.next() as u32))),
                1 => ("rope.scaling.factor", Meta::F32(f32::from_bits(random.next() as u32))),
                2 => ("attention.layer_norm_epsilon", Meta::F32(f32::from_bits(random.next() as u32))),
                3 => ("attention.temperature_scale", Meta::F32(f32::from_bits(random.next() as u32))),
                4 => ("attention.head_count_kv", Meta::U32(n as u32)),
                5 => ("attention.key_length", Meta::U32(n as u32)),
                6 => ("decoder_block_count", Meta::U32(n as u32)),
                _ => ("context_length", Meta::U32(n as u32)),
            };
            gguf.set(&format!("{arch}.{key}"), value);
        }
        7 => {
            // Values that are strange but may be valid.
            gguf.tensors[tensor].data.fill([f32::NAN, f32::INFINITY, 1e30, 0.0][random.below(4)]);
        }
        _ => match &mut gguf.meta[at].1 {
            Meta::U32(value) => *value = n as u32,
            Meta::U64(value) => *value = n,
            Meta::I32(value) => *value = n as i32,
            Meta::F32(value) => *value = f32::from_bits(random.next() as u32),
            Meta::Bool(value) => *value = !*value,
            Meta::Str(text) => {
                *text = ["", "llama", "gpt2", "t5", "bert", "phi3", "\0", "phi2"][random.below(8)].into()
            }
            Meta::Strs(items) => {
                let i = random.below(items.len());
                items[i] = ["", "a", "</s>", "<|return|>", "<|im_end|>", "unused", "  ", "\u{10ffff}"]
                    [random.below(8)]
                .into();
            }
            Meta::F32s(items) => {
                let i = random.below(items.len());
                items[i] = f32::from_bits(random.next() as u32);
            }
            Meta::U8s(items) => {
                let i = random.below(items.len());
                items[i] = random.next() as u8;
            }
            Meta::I32s(items) => {
                let i = random.below(items.len());
                items[i] = n as i32;
            }
        },
    }
}

/// A change to the bytes of a file, mostly before its data.
fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let directory = 12_000.min(bytes.len() - 8);
    let at = if random.below(8) == 0 { random.below(bytes.len() - 8) } else { random.below(directory) };
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes[at..at + 4]
            .copy_from_slice(&(INTERESTING[random.below(INTERESTING.len())] as u32).to_le_bytes()),
        3 => bytes[at..at + 8].copy_from_slice(&INTERESTING[random.below(INTERESTING.len())].to_le_bytes()),
        _ => bytes.truncate(random.below(bytes.len())),
    }
}

const CHILD: &str = "INHOUSE_LLAMA_FUZZ_FOLDER";
/// How many broken files are tried; 3,000 where it is not set.
const ROUNDS: &str = "INHOUSE_MUTATIONS";

/// Thousands of broken files: none makes `validate` panic, and none that it accepts makes llama.cpp end the process,
/// which would be seen as the child's death.
#[test]
fn broken_files_end_in_errors_not_in_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(2024);
    let (mut n_files, mut n_accepted) = (0, 0);
    let n_rounds = std::env::var(ROUNDS).ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let bases: Vec<Gguf> = tiny::ALL.iter().map(|name| tiny::model(name, 1)).collect();
    let whole: Vec<Vec<u8>> = bases.iter().map(Gguf::bytes).collect();
    for round in 0..n_rounds {
        let base = round % bases.len();
        let bytes = if random.below(2) == 0 {
            let mut gguf = bases[base].clone();
            for _ in 0..=random.below(2) {
                change_parts(&mut gguf, &mut random);
            }
            gguf.bytes()
        } else {
            let mut bytes = whole[base].clone();
            for _ in 0..=random.below(3) {
                if bytes.len() > 16 {
                    change_bytes(&mut bytes, &mut random);
                }
            }
            bytes
        };
        let path = folder.path().join(format!("{round:05}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        n_files += 1;
        match validate(&path) {
            Ok(_) => n_accepted += 1,
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "{error}");
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
    assert!(
        n_accepted > 100,
        "only {n_accepted} files accepted: the changes are too coarse to test anything"
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::child_loads_what_was_accepted", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().rfind(|line| line.contains("loading ")).unwrap_or("no file");
    eprintln!("{n_files} broken files, {n_accepted} accepted");
    assert!(
        output.status.success(),
        "{}: {last}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(stdout.matches("loading ").count(), n_accepted);
}

/// The other half of the test above, in a process of its own; nothing to do without its folder.
#[test]
fn child_loads_what_was_accepted() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let mut paths: Vec<_> =
        std::fs::read_dir(Path::new(&folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        println!("loading {}", path.display());
        let Ok(model) = load(&path, &LoadOptions::default()) else {
            continue;
        };
        let Ok(mut decoder) = model.clone().decoder(&DecoderOptions {
            sequences: 2,
            threads: Some(1),
            kv_cells: Some(256),
            ..DecoderOptions::default()
        }) else {
            continue;
        };
        let tokens = model.tokenizer().encode("def f(a):\n    é  ").unwrap();
        let prompt: Vec<_> = tokens.into_iter().take(decoder.context_length()).collect();
        let request = Request {
            prompt,
            n: 3,
            params: SamplingParams::default(),
            seed: 0,
            max_tokens: 4,
            stops: StopRules::none(),
            ends: Vec::new(),
            silent: Vec::new(),
            log_probabilities: false,
            constraint: None,
            healed: 0,
            greedy_first: false,
        };
        // Broken weights give broken logits: an error is a fine answer.
        let _ = generate(&mut *decoder, model.tokenizer(), &request, &CancelToken::new(), &mut |_| {
            ControlFlow::Continue(())
        });
    }
}
