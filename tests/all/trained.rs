//! The trained model that the project ships, on both backends. Its Q8_0 file is turned back into a Hugging Face folder (the
//! values that the file stands for, as f32), which candle runs as it is and llama.cpp through `inhouse-convert`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse_candle::checkpoint::write_safetensors;
use inhouse_candle::codegen::{Config, Part, names};
use inhouse_candle::config::ConfigFile;
use inhouse_convert::quantize::Quantization;
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed, Model, TokenId};
use inhouse_core::gguf::Header;
use inhouse_core::progress::Silent;
use inhouse_tests::repository;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn shipped() -> PathBuf {
    repository().join("models/inhouse-coder")
}

/// The tensors of a GGUF file of Q8_0 and F32, outermost dimension first.
fn dequantised(path: &Path) -> Tensors {
    let Header { tensors, data_start, .. } = inhouse_core::gguf::read(path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let of_entry = |entry: &inhouse_core::gguf::TensorEntry| {
        let bytes = &bytes[(data_start + entry.offset) as usize..][..entry.n_bytes() as usize];
        match entry.kind.name {
            "F32" => bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            // Blocks of a scale in f16 and 32 signed bytes (ggml's block_q8_0).
            "Q8_0" => bytes.as_chunks::<34>().0.iter().flat_map(of_block).collect::<Vec<f32>>(),
            other => panic!("{}: {other}", entry.name),
        }
    };
    let shape = |dims: &[u64]| dims.iter().rev().map(|&dim| dim as usize).collect();
    tensors.iter().map(|entry| (entry.name.clone(), (shape(entry.dims()), of_entry(entry)))).collect()
}

fn of_block(block: &[u8; 34]) -> impl Iterator<Item = f32> {
    let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
    block[2..].iter().map(move |&byte| scale * f32::from(byte.cast_signed()))
}

/// A Hugging Face folder of the shipped model, its weights passed through `change`.
fn folder(mut change: impl FnMut(&str, &mut [f32])) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(shipped().join(file), dir.path().join(file)).unwrap();
    }
    let config = Config::from_file(&ConfigFile::read(dir.path()).unwrap()).unwrap();
    let mut tensors = Tensors::new();
    for (name, (shape, mut values)) in dequantised(&shipped().join("inhouse-coder.gguf")) {
        let Some(original) = original_name(&name) else { continue };
        if name.ends_with("attn_qkv.weight") {
            values = fused(&config, &values);
        }
        change(&original, &mut values);
        tensors.insert(original, (shape, values));
    }
    let by_name = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    write_safetensors(&dir.path().join("model.safetensors"), &by_name).unwrap();
    dir
}

/// A tensor's name in the checkpoint; `None` for biases that CodeGen does not have.
fn original_name(name: &str) -> Option<String> {
    let whole =
        [("token_embd", "transformer.wte"), ("output_norm", "transformer.ln_f"), ("output", "lm_head")];
    let of_block = [
        ("attn_norm", "ln_1"),
        ("attn_qkv", "attn.qkv_proj"),
        ("attn_output", "attn.out_proj"),
        ("ffn_up", "mlp.fc_in"),
        ("ffn_down", "mlp.fc_out"),
    ];
    let (stem, kind) = name.rsplit_once('.').unwrap();
    let find = |table: &[(&str, &str)], stem: &str| {
        let found = table.iter().find(|(gguf, _)| *gguf == stem);
        found.unwrap_or_else(|| panic!("{name}: no such tensor in CodeGen")).1.to_owned()
    };
    let Some((layer, part)) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return Some(format!("{}.{kind}", find(&whole, stem)));
    };
    if kind == "bias" && matches!(part, "attn_qkv" | "attn_output") {
        return None;
    }
    Some(names::block(layer.parse().unwrap(), &format!("{}.{kind}", find(&of_block, part))))
}

/// phi2's queries, keys and values, rotated dimensions in halves, as CodeGen's four blocks with neighbours rotated.
fn fused(config: &Config, values: &[f32]) -> Vec<f32> {
    let width = config.n_embd;
    let mut fused = vec![0f32; values.len()];
    let mut rows = values.chunks_exact(width);
    for part in [Part::Query, Part::Key, Part::Value] {
        for head in 0..config.n_head {
            let to = config.head_rows(part, head);
            let rotated = if part == Part::Value { 0 } else { config.rotary_dim };
            let even_then_odd = (0..rotated).step_by(2).chain((1..rotated).step_by(2));
            for row in even_then_odd.chain(rotated..to.len()) {
                fused[(to.start + row) * width..][..width].copy_from_slice(rows.next().unwrap());
            }
        }
    }
    fused
}

fn converted(from: &Path, quantization: Quantization) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let options = inhouse_convert::Options {
        from: from.into(),
        out: out.clone(),
        quantization: Some(quantization),
        token_embedding: None,
        name: None,
    };
    inhouse_convert::convert(&options, &Silent).unwrap();
    (dir, out)
}

fn on_llama(from: &Path, quantization: Quantization) -> Arc<dyn Model> {
    let (_dir, out) = converted(from, quantization);
    let mut options = inhouse_llama::LoadOptions::default();
    options.mmap = false;
    inhouse_llama::load(&out, &options).unwrap()
}

fn on_candle(from: &Path) -> Arc<dyn Model> {
    inhouse_candle::load(from, &inhouse_candle::LoadOptions::default()).unwrap()
}

/// The folder is the shipped file's model: converting it gives the file's values back.
#[test]
fn the_folder_holds_the_shipped_weights() {
    let dir = folder(|_, _| ());
    let want = dequantised(&shipped().join("inhouse-coder.gguf"));
    for quantization in [Quantization::F32, Quantization::Q8_0] {
        let (_dir, out) = converted(dir.path(), quantization);
        let got = dequantised(&out);
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        for (name, (shape, values)) in &want {
            assert_eq!(&got[name].0, shape, "{name}");
            let worst = values.iter().zip(&got[name].1).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst <= 1e-6, "{quantization} {name}: {worst}");
        }
    }
}

const PROMPTS: [&str; 6] = [
    "# [start]\n# open_ledger(path): Opens a ledger.\n# [end]\n# open the ledger at path\nledger = ",
    "# [start]\n# tally(entries, month): Sums the entries of a month.\n# close_ledger(ledger): Closes a ledger.\n# [end]\n# the sum of march\ntotal = ",
    "import os\n\n\ndef read_lines(path):\n    \"\"\"Lines of a file.\"\"\"\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "for i in range(10):\n    print(",
    "def fib(n):\n",
];

/// How far apart the two likeliest tokens may be for a difference between backends to be one of rounding.
const TIE: f32 = 2e-3;

/// Greedy tokens, and at each how far the likeliest is from the next.
fn greedy(model: &Arc<dyn Model>, prompt: &[TokenId], n: usize) -> Vec<(TokenId, f32)> {
    let options = DecoderOptions { exact: true, ..DecoderOptions::default() };
    let mut decoder = Arc::clone(model).decoder(&options).unwrap();
    let mut next = prompt.to_vec();
    let mut tokens = Vec::with_capacity(n);
    while tokens.len() < n {
        decoder.feed(&[Feed { seq: 0, tokens: &next }], &CancelToken::new()).unwrap();
        let mut best = (0, f32::NEG_INFINITY);
        let mut second = f32::NEG_INFINITY;
        for (id, &logit) in (0..).zip(decoder.logits(0).unwrap()) {
            // 200 tokens are wanted, so the end of text does not count as one.
            if !model.tokenizer().is_sampleable(id) || model.tokenizer().is_end(id) {
                continue;
            }
            if logit > best.1 {
                second = best.1;
                best = (id, logit);
            } else if logit > second {
                second = logit;
            }
        }
        tokens.push((best.0, best.1 - second));
        next = vec![best.0];
    }
    tokens
}

#[test]
fn greedy_output_of_both_backends_is_the_same() {
    const N: usize = 200;
    let dir = folder(|_, _| ());
    let (candle, llama) = (on_candle(dir.path()), on_llama(dir.path(), Quantization::F32));
    let mut whole = 0;
    for prompt in PROMPTS {
        let tokens = candle.tokenizer().encode(prompt).unwrap();
        assert_eq!(tokens, llama.tokenizer().encode(prompt).unwrap(), "{prompt:?}");
        let (ours, theirs) = (greedy(&candle, &tokens, N), greedy(&llama, &tokens, N));
        let closest = ours.iter().map(|(_, gap)| *gap).fold(f32::INFINITY, f32::min);
        let differs = (0..N).find(|&i| ours[i].0 != theirs[i].0);
        println!("{prompt:?}: first difference {differs:?}, closest pair of likeliest tokens {closest:.1e}");
        match differs {
            None => whole += 1,
            // From there on the texts are other texts.
            Some(i) => {
                let gap = ours[i].1.max(theirs[i].1);
                assert!(gap < TIE, "{prompt:?}: token {i} differs where the likeliest is {gap} ahead");
                println!("a tie within rounding: {gap:.1e}");
            }
        }
    }
    assert!(whole + 1 >= PROMPTS.len(), "{whole} of {} texts are the same", PROMPTS.len());
}

/// exp of the mean negative log-likelihood of `text`, in windows of `window` tokens, the first token of each given.
fn perplexity(model: &Arc<dyn Model>, text: &str, window: usize) -> f64 {
    let options = DecoderOptions { exact: true, ..DecoderOptions::default() };
    let mut decoder = Arc::clone(model).decoder(&options).unwrap();
    let tokens = model.tokenizer().encode(text).unwrap();
    let (mut sum, mut n) = (0f64, 0usize);
    for part in tokens.chunks(window) {
        decoder.rewind(0, 0).unwrap();
        for pair in part.windows(2) {
            decoder.feed(&[Feed { seq: 0, tokens: &pair[..1] }], &CancelToken::new()).unwrap();
            let row = decoder.logits(0).unwrap();
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|value| f64::from(value - top).exp()).sum();
            sum += total.ln() - f64::from(row[pair[1] as usize] - top);
            n += 1;
        }
    }
    (sum / n as f64).exp()
}

/// File types against F32. The weights are moved within the steps of Q8_0 first, so that they are such as the shipped file was
/// made from (in its own values Q8_0 would lose nothing). `INHOUSE_TRAINED_MODEL` names the Hugging Face folder of another
/// model to look at. The text is the private library's own source.
#[test]
fn quantised_perplexity_stays_near() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let own = folder(|name, values| {
        if !name.ends_with("weight") || name.contains("ln_") {
            return;
        }
        for block in values.chunks_mut(32) {
            let step = block.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
            for value in block {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *value += step * ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5);
            }
        }
    });
    let from =
        std::env::var_os("INHOUSE_TRAINED_MODEL").map_or_else(|| own.path().to_path_buf(), PathBuf::from);
    let library = repository().join("tests/private-library/gaugewren");
    let text: String = ["gauges.py", "stages.py", "slate.py"]
        .map(|file| std::fs::read_to_string(library.join(file)).unwrap())
        .concat();
    let reference = perplexity(&on_candle(&from), &text, 128);
    println!("F32 on candle: {reference:.4}");
    for (quantization, bound) in [
        (Quantization::F32, 0.0005),
        (Quantization::F16, 0.001),
        (Quantization::BF16, 0.01),
        (Quantization::Q8_0, 0.01),
        (Quantization::Q6_K, 0.02),
        (Quantization::Q5_K_M, 0.05),
        (Quantization::Q4_K_M, 0.15),
        (Quantization::Q4_0, 0.3),
    ] {
        let off = perplexity(&on_llama(&from, quantization), &text, 128) / reference - 1.0;
        println!("{quantization} on llama.cpp: {:.4} ({:+.3} %)", reference * (1.0 + off), off * 100.0);
        assert!(off.abs() <= bound, "{quantization}: {off}");
    }
}

/// Shares of the private library's problems with one golden API whose completion names it, by what stands in the prompt. The
/// model is the one that is taken where none is named.
#[test]
fn the_default_model_calls_what_the_prompt_shows_it() {
    let library = repository().join("tests/private-library");
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], paths: &[(&str, &Path)]| {
        let mut inhouse = inhouse_tests::command("inhouse");
        inhouse.env_remove("INHOUSE_CODER").args(arguments);
        for (flag, path) in paths {
            inhouse.arg(flag).arg(path);
        }
        let output = inhouse.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let package = library.join("gaugewren");
    let index = dir.path().join("index");
    run(&["index", "build", package.to_str().unwrap(), "--encoder", "none"], &[("--out", &index)]);
    let rows = |path: &Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let single = dir.path().join("problems.jsonl");
    let problems = rows(&library.join("problems.jsonl"));
    let problems: Vec<_> =
        problems.into_iter().filter(|row| row["gold"].as_array().unwrap().len() == 1).collect();
    let text: String = problems.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&single, text).unwrap();
    let share = |apis: &str| {
        let out = dir.path().join(apis);
        let sampling = ["generate", "--apis", apis, "-n", "1", "--temperature", "0", "--max-tokens", "40"];
        run(&sampling, &[("--problems", &single), ("--index", &index), ("--out", &out)]);
        let named = rows(&out).iter().zip(&problems).filter(|(row, problem)| {
            assert_eq!(row["task_id"], problem["task_id"]);
            let name = problem["gold"][0].as_str().unwrap();
            let words = row["completion"].as_str().unwrap();
            words.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
        });
        named.count() as f64 / problems.len() as f64
    };
    let (perfect, none) = (share("perfect"), share("none"));
    println!(
        "{} problems with one API: named in {perfect:.3} with its line, {none:.3} without",
        problems.len()
    );
    assert!(perfect >= 0.6 && none <= 0.05, "{perfect} {none}");
}
