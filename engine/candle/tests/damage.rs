//! Damaged folders of every architecture: an error of one line or a model that runs, no panic, no abort, and no allocation
//! out of proportion to the files. A test binary of its own, since its allocator keeps count.
//!
//! `INHOUSE_MUTATIONS` sets how many damaged folders are loaded (400 without it; 10,000 is the long run).

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use inhouse_candle::LoadOptions;
use inhouse_candle::checkpoint::Checkpoint;
use inhouse_core::decode::{CancelToken, DecoderOptions, Feed};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, less: usize) {
    LARGEST.fetch_max(more, Ordering::Relaxed);
    let now = NOW.fetch_add(more, Ordering::Relaxed) + more;
    PEAK.fetch_max(now, Ordering::Relaxed);
    NOW.fetch_sub(less, Ordering::Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it is; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The counts are everybody's: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// What the tokenizers crate takes for its caches and regular expressions, whatever the vocabulary.
const CONSTANT: usize = 2 << 20;

/// A small generator of our own (xorshift), so that a failing mutation can be made again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// Flips, overwrites, cuts and doubles pieces, mostly in the first `head` and the last bytes, where the headers are.
fn mutate(bytes: &mut Vec<u8>, head: usize, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let reach = head.min(bytes.len());
        let at = match random.below(3) {
            0 => bytes.len() - 1 - random.below(reach),
            _ => random.below(reach),
        };
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 0xff, 0x80, b'9', b'"', b'-'][random.below(6)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + random.below(40)).min(bytes.len()))),
            4 => {
                let piece = bytes[at..(at + 1 + random.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            _ => replace_number(bytes, at, random),
        }
    }
}

/// Puts another value in the place of the number that follows `at`: what a header or a configuration may claim.
fn replace_number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    const CLAIMS: [&str; 12] = [
        "0",
        "1",
        "-1",
        "3",
        "65536",
        "1048576",
        "4294967296",
        "18446744073709551615",
        "1e300",
        "null",
        "true",
        "[]",
    ];
    let Some(begin) = bytes[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) else { return };
    let length = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.splice(begin..begin + length, CLAIMS[random.below(CLAIMS.len())].bytes());
}

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

#[test]
fn damaged_folders_are_errors() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = std::env::var("INHOUSE_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut errors, mut harmless, mut done) = (0, 0, 0);
    let (mut slowest, mut largest_ratio, mut peak_ratio) = (Duration::ZERO, 0f64, 0f64);
    // Every file of every architecture in turn, so that a short run looks at all of them.
    let mut victims = Vec::new();
    for name in ["codegen", "gpt2", "gpt_neo", "t5", "t5_gated", "llama", "qwen2", "mistral"] {
        let dir = tempfile::tempdir().unwrap();
        let files = model_files(&fixture(name));
        for (file, bytes) in &files {
            std::fs::write(dir.path().join(file), bytes).unwrap();
        }
        let dir = Arc::new(dir);
        run(dir.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        for (file, bytes) in files {
            // CodeGen's fixture holds its weights twice: the pickle is read where safetensors are not there.
            victims.push((name, Arc::clone(&dir), size, file, bytes));
        }
    }
    while done < wanted {
        let (name, dir, size, file, good) = &victims[done % victims.len()];
        done += 1;
        let seed = random.0;
        let mut bytes = good.clone();
        // The weights' bytes themselves cannot be wrong: aim at the headers.
        let head = if file.ends_with(".json") || file.ends_with(".txt") { good.len() } else { 6000 };
        mutate(&mut bytes, head, &mut random);
        let path = dir.path().join(file);
        std::fs::write(&path, &bytes).unwrap();
        let hidden = dir.path().join("model.safetensors");
        let aside = dir.path().join("aside");
        let two_layouts = file == "pytorch_model.bin" && hidden.exists();
        if two_layouts {
            std::fs::rename(&hidden, &aside).unwrap();
        }
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        LARGEST.store(0, Ordering::Relaxed);
        let start = Instant::now();
        let outcome = run(dir.path());
        slowest = slowest.max(start.elapsed());
        let largest = LARGEST.load(Ordering::Relaxed);
        let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        match outcome {
            Ok(()) => harmless += 1,
            Err(error) => {
                errors += 1;
                let text = error.to_string();
                assert!(!text.contains('\n'), "{name}/{file}, seed {seed}: {text}");
            }
        }
        // Of the whole folder: a damaged config.json may still describe the weights beside it.
        largest_ratio = largest_ratio.max(largest.saturating_sub(CONSTANT) as f64 / *size as f64);
        peak_ratio = peak_ratio.max(peak as f64 / *size as f64);
        assert!(
            largest <= 4 * size + CONSTANT,
            "{name}/{file}, seed {seed}: one allocation of {largest} bytes for a folder of {size}"
        );
        if two_layouts {
            std::fs::rename(&aside, &hidden).unwrap();
        }
        std::fs::write(&path, good).unwrap();
    }
    println!(
        "{done} damaged folders: {errors} errors, {harmless} harmless; slowest {slowest:.1?}; largest single allocation \
         {largest_ratio:.2} times the folder (above {CONSTANT} bytes), highest total {peak_ratio:.1} times"
    );
    assert!(errors > done / 3, "{errors} errors of {done}");
}

/// The reader of checkpoints alone, file by file: no allocation above four times the one file.
#[test]
fn damaged_headers_allocate_no_more_than_the_file() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for (name, file) in [("gpt2", "model.safetensors"), ("t5", "pytorch_model.bin")] {
        let good = std::fs::read(fixture(name).join(file)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..300 {
            let mut bytes = good.clone();
            mutate(&mut bytes, 6000, &mut random);
            std::fs::write(dir.path().join(file), &bytes).unwrap();
            LARGEST.store(0, Ordering::Relaxed);
            if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
                for (_, info) in checkpoint.tensors() {
                    let mut values = vec![0f32; info.len()];
                    drop(checkpoint.read_f32(info, 0, &mut values));
                }
            }
            let largest = LARGEST.load(Ordering::Relaxed);
            let limit = 4 * bytes.len() + (64 << 10);
            assert!(largest <= limit, "{file}: an allocation of {largest} bytes for {} bytes", bytes.len());
        }
    }
}
