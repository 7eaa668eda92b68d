//! Damaged folders of every architecture: an error of one line or a model that runs, no panic, no abort, and no allocation
//! out of proportion to the files. A test binary of its own, since its allocator keeps count.
//!
//! `INHOUSE_MUTATIONS` sets how many damaged folders are loaded (400 without it; 10,000 is the long run).

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, where a panic is the report

#[path = "../../../../tests/support/counting.rs"]
mod counting;
#[path = "../../../../tests/support/damage.rs"]
mod damage;
mod structured;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inhouse_candle::LoadOptions;
use inhouse_candle::checkpoint::Checkpoint;
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed};

use damage::Random;

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// What the tokenizers crate takes for its caches and regular expressions, whatever the vocabulary.
const CONSTANT: usize = 2 << 20;
/// No load takes longer, on a machine that many share.
const HANGS: Duration = Duration::from_secs(60);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// Files that a model is loaded from; the rest of a fixture is its reference.
fn model_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<(String, Vec<u8>)> = names
        .filter(|name| !["logits.bin", "reference.json", "tokenisations.json"].contains(&name.as_str()))
        .map(|name| (name.clone(), std::fs::read(dir.join(&name)).unwrap()))
        .collect();
    files.sort();
    files
}

/// Half of the changes keep the file's form, half do not.
fn damaged(name: &str, good: &[u8], random: &mut Random) -> Vec<u8> {
    if random.below(2) == 0
        && let Some(bytes) = structured::change(name, good, random)
    {
        return bytes;
    }
    let mut bytes = good.to_vec();
    // The weights' bytes themselves cannot be wrong: aim at the headers.
    let head = if name.ends_with(".json") || name.ends_with(".txt") { good.len() } else { 6000 };
    damage::bytes(&mut bytes, head, random);
    bytes
}

/// Loads a folder and lets the model read some tokens.
fn run(dir: &Path) -> inhouse_core::Result<()> {
    let model = inhouse_candle::load(dir, &LoadOptions::default())?;
    let tokens = model.tokenizer().encode("def f(x):\n")?;
    let mut decoder =
        Arc::clone(&model).decoder(&DecoderOptions { sequences: 2, ..DecoderOptions::default() })?;
    decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &CancelToken::new())?;
    decoder.fork(0, 1)?;
    decoder.feed(&[Feed { seq: 1, tokens: &tokens[..1] }], &CancelToken::new())
}

/// A folder of a fixture, and one of its files.
struct Victim {
    name: &'static str,
    dir: Arc<tempfile::TempDir>,
    folder_size: usize,
    file: String,
    good: Vec<u8>,
}

/// Every file of every architecture, so that a short run looks at all of them.
fn victims() -> Vec<Victim> {
    let mut victims = Vec::new();
    for name in ["codegen", "gpt2", "gpt_neo", "t5", "t5_gated", "llama", "qwen2", "mistral"] {
        let dir = tempfile::tempdir().unwrap();
        let files = model_files(&fixture(name));
        for (file, bytes) in &files {
            std::fs::write(dir.path().join(file), bytes).unwrap();
        }
        run(dir.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let dir = Arc::new(dir);
        let folder_size = files.iter().map(|(_, bytes)| bytes.len()).sum();
        victims.extend(files.into_iter().map(|(file, good)| Victim {
            name,
            dir: Arc::clone(&dir),
            folder_size,
            file,
            good,
        }));
    }
    victims
}

#[test]
fn damaged_folders_are_errors() {
    let _turn = counting::turn();
    let wanted = damage::wanted(400);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut errors, mut harmless) = (0, 0);
    let (mut slowest, mut largest_ratio, mut peak_ratio) = (Duration::ZERO, 0f64, 0f64);
    let victims = victims();
    for victim in victims.iter().cycle().take(wanted) {
        let Victim { name, file, folder_size, .. } = victim;
        let seed = random.0;
        let bytes = damaged(file, &victim.good, &mut random);
        let path = victim.dir.path().join(file);
        std::fs::write(&path, &bytes).unwrap();
        // CodeGen's fixture holds its weights twice: the pickle is read where safetensors are not there.
        let (hidden, aside) = (victim.dir.path().join("model.safetensors"), victim.dir.path().join("aside"));
        let two_layouts = file == "pytorch_model.bin" && hidden.exists();
        if two_layouts {
            std::fs::rename(&hidden, &aside).unwrap();
        }
        let start = Instant::now();
        let (outcome, usage) = counting::measure(|| run(victim.dir.path()));
        let took = start.elapsed();
        slowest = slowest.max(took);
        assert!(took < HANGS, "{name}/{file}, seed {seed}: {took:?}");
        match outcome {
            Ok(()) => harmless += 1,
            Err(error) => {
                errors += 1;
                let text = error.to_string();
                assert!(!text.contains('\n'), "{name}/{file}, seed {seed}: {text}");
            }
        }
        // Of the whole folder: a damaged config.json may still describe the weights beside it.
        let size = folder_size + bytes.len().saturating_sub(victim.good.len());
        largest_ratio = largest_ratio.max(usage.largest.saturating_sub(CONSTANT) as f64 / size as f64);
        peak_ratio = peak_ratio.max(usage.peak as f64 / size as f64);
        assert!(
            usage.largest <= 4 * size + CONSTANT,
            "{name}/{file}, seed {seed}: one allocation of {} bytes for a folder of {size}",
            usage.largest
        );
        if two_layouts {
            std::fs::rename(&aside, &hidden).unwrap();
        }
        std::fs::write(&path, &victim.good).unwrap();
    }
    println!(
        "{wanted} damaged folders: {errors} errors, {harmless} harmless; slowest {slowest:.1?}; largest single allocation \
         {largest_ratio:.2} times the folder (above {CONSTANT} bytes), highest total {peak_ratio:.1} times"
    );
    assert!(errors > wanted / 3, "{errors} errors of {wanted}");
    assert!(!Path::new(structured::TOUCHED).exists(), "a pickle was executed");
}

/// The reader of checkpoints alone, file by file: no allocation above four times the one file.
#[test]
fn damaged_headers_allocate_no_more_than_the_file() {
    let _turn = counting::turn();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (name, file) in [("gpt2", "model.safetensors"), ("t5", "pytorch_model.bin")] {
        let good = std::fs::read(fixture(name).join(file)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..damage::wanted(300) {
            let seed = random.0;
            let bytes = damaged(file, &good, &mut random);
            std::fs::write(dir.path().join(file), &bytes).unwrap();
            let (_, usage) = counting::measure(|| {
                let Ok(checkpoint) = Checkpoint::open(dir.path()) else { return };
                for (_, info) in checkpoint.tensors() {
                    let mut values = vec![0f32; info.len()];
                    drop(checkpoint.read_f32(info, 0, &mut values));
                }
            });
            let (largest, limit) = (usage.largest, 4 * bytes.len() + (64 << 10));
            assert!(
                largest <= limit,
                "{file}, seed {seed}: an allocation of {largest} bytes for {} bytes",
                bytes.len()
            );
        }
    }
}
