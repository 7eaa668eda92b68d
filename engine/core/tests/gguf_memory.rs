//! The GGUF reader's memory on damaged and adversarial files: below four times the file's size.
//! A test binary of its own, since its allocator counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use inhouse_core::gguf::{self, TensorSpec, TensorType, Value, Writer};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(more: usize, less: usize) {
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
        // Old and new stand side by side while one is copied to the other.
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Buffer of the reader and strings of paths and errors.
const CONSTANT: usize = 12 << 10;

fn check(path: &Path, bytes: &[u8], what: &str) {
    std::fs::write(path, bytes).unwrap();
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = gguf::read(path);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    let ok = result.is_ok();
    assert!(
        peak <= 4 * bytes.len() + CONSTANT,
        "{what}: {peak} bytes for a file of {}, read: {ok}",
        bytes.len()
    );
}

fn file(metadata: &[(String, Value)], specs: &[TensorSpec]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, metadata, specs).unwrap();
    for spec in specs {
        writer.begin().unwrap();
        writer.write(&vec![1; spec.bytes() as usize]).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

#[test]
fn memory_stays_below_four_times_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file.gguf");
    let kind = TensorType::by_name("F32").unwrap();
    let key = |i: u32| char::from_u32(0x21 + i).map(String::from).unwrap_or_default();
    let named = |value: Value| vec![("k".to_owned(), value)];
    // The shapes that cost most memory a byte.
    let many_pairs: Vec<_> = (0..4000).map(|i| (key(i), Value::U8(1))).collect();
    let many_arrays: Vec<_> = (0..4000).map(|i| (key(i), Value::texts(["a"]))).collect();
    let many_tensors: Vec<_> = (0..8000).map(|i| TensorSpec { name: key(i), shape: vec![1], kind }).collect();
    let files = [
        ("pairs", file(&many_pairs, &[])),
        ("arrays", file(&many_arrays, &[])),
        ("tensors", file(&[], &many_tensors)),
        ("empty texts", file(&named(Value::texts((0..50_000).map(|_| ""))), &[])),
        ("short texts", file(&named(Value::texts((0..50_000).map(|i| i.to_string()))), &[])),
        ("one text", file(&named(Value::Text("x".repeat(3_000_000))), &[])),
        ("long texts", file(&named(Value::texts((0..3).map(|_| "x".repeat(1_100_000)))), &[])),
        ("numbers", file(&named(Value::f32s((0..700_000).map(|i| i as f32))), &[])),
    ];
    let mut state = 88_172_645_463_325_252u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    for (what, bytes) in &files {
        check(&path, bytes, what);
        // Counts that promise more than there is.
        for at in [8, 16] {
            for count in [4096u64, 1 << 16, u64::MAX] {
                let mut bytes = bytes.clone();
                bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
                check(&path, &bytes, what);
            }
        }
        for _ in 0..40 {
            let mut bytes = bytes.clone();
            let at = next(bytes.len().min(4096) - 8);
            match next(4) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes[at..at + 8].copy_from_slice(&(next(1 << 40) as u64).to_le_bytes()),
                2 => bytes[at..at + 8].fill(0xff),
                _ => bytes.truncate(at),
            }
            check(&path, &bytes, what);
        }
    }
}
