//! The GGUF reader's memory on damaged and adversarial files: below four times the file's size.
//! A test binary of its own, since its allocator counts. `INHOUSE_MUTATIONS` sets how many damaged files are read.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

#[path = "../../../tests/support/counting.rs"]
mod counting;
#[path = "../../../tests/support/damage.rs"]
mod damage;

use std::path::Path;

use damage::Random;
use inhouse_core::gguf::{self, TensorSpec, TensorType, Value, Writer};

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// Buffer of the reader and strings of paths and errors.
const CONSTANT: usize = 12 << 10;

fn check(path: &Path, bytes: &[u8], what: &str) {
    std::fs::write(path, bytes).unwrap();
    let (ok, usage) = counting::measure(|| gguf::read(path).is_ok());
    assert!(
        usage.peak <= 4 * bytes.len() + CONSTANT,
        "{what}: {} bytes for a file of {}, read: {ok}",
        usage.peak,
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
    let _turn = counting::turn();
    let mut random = Random(88_172_645_463_325_252);
    let each = damage::wanted(320) / files.len();
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
        for _ in 0..each {
            let mut bytes = bytes.clone();
            damage::bytes(&mut bytes, 4096, &mut random);
            check(&path, &bytes, what);
        }
    }
}
