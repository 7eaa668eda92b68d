use std::path::{Path, PathBuf};

use super::*;
use crate::ErrorKind;

/// Metadata, the table of tensors, and their bytes.
type Sample = (Vec<(String, Value)>, Vec<TensorSpec>, Vec<Vec<u8>>);

fn sample() -> Sample {
    let metadata = vec![
        ("general.architecture".to_owned(), Value::from("phi2")),
        ("a.flag".to_owned(), Value::Bool(true)),
        ("a.number".to_owned(), Value::U64(1 << 40)),
        ("a.float".to_owned(), Value::F32(0.5)),
        ("a.texts".to_owned(), Value::texts((0..20).map(|i| format!("token {i}")))),
        ("a.ids".to_owned(), Value::i32s(0..20)),
        ("a.scores".to_owned(), Value::f32s([0.5, -1.0])),
    ];
    let kind = |name: &str| TensorType::by_name(name).unwrap();
    let specs = vec![
        TensorSpec { name: "odd".into(), shape: vec![3, 7], kind: kind("F16") },
        TensorSpec { name: "blocks".into(), shape: vec![5, 64], kind: kind("Q8_0") },
        TensorSpec { name: "vector".into(), shape: vec![9], kind: kind("F32") },
    ];
    let data = specs.iter().map(|spec| (0..spec.bytes()).map(|i| i as u8).collect()).collect();
    (metadata, specs, data)
}

fn write_sample(dir: &Path) -> PathBuf {
    let (metadata, specs, data) = sample();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &metadata, &specs).unwrap();
    for tensor in &data {
        writer.begin().unwrap();
        let (head, tail) = tensor.split_at(tensor.len() / 2);
        writer.write(head).unwrap();
        writer.write(tail).unwrap();
    }
    writer.finish().unwrap();
    let path = dir.join("sample.gguf");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_sample(dir.path());
    let header = read(&path).unwrap();
    let (metadata, specs, data) = sample();
    assert_eq!(header.version, 3);
    assert_eq!(header.metadata, metadata);
    let Some(Value::Texts(texts)) = header.get("a.texts") else { panic!("no array") };
    assert_eq!((texts.len(), texts.get(19), texts.get(20)), (20, Some(&b"token 19"[..]), None));
    let Some(Value::Numbers(ids)) = header.get("a.ids") else { panic!("no array") };
    assert_eq!((ids.len(), ids.get(3), ids.get(20)), (20, Some(Value::I32(3)), None));
    assert!(ids.i32s().unwrap().eq(0..20) && ids.f32s().is_none());
    let bytes = std::fs::read(&path).unwrap();
    for ((entry, spec), data) in header.tensors.iter().zip(&specs).zip(&data) {
        assert_eq!(entry.name, spec.name);
        assert!(entry.dims().iter().rev().copied().eq(spec.shape.iter().map(|&dim| dim as u64)));
        let begin = (header.data_start + entry.offset) as usize;
        assert!(begin.is_multiple_of(32));
        assert_eq!(&bytes[begin..begin + entry.n_bytes() as usize], data);
    }
}

#[test]
fn tensors_of_the_wrong_size_are_not_written() {
    let (metadata, specs, data) = sample();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &metadata, &specs).unwrap();
    writer.begin().unwrap();
    assert!(writer.write(&vec![0; data[0].len() + 1]).is_err());
    let mut writer = Writer::new(&mut bytes, &metadata, &specs).unwrap();
    writer.begin().unwrap();
    assert!(writer.begin().is_err());
    let mut writer = Writer::new(&mut bytes, &metadata, &specs).unwrap();
    writer.begin().unwrap();
    writer.write(&data[0]).unwrap();
    assert!(writer.finish().is_err());
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(write_sample(dir.path())).unwrap();
    let path = dir.path().join("bad.gguf");
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        read(&path).map_err(|error| {
            assert!(error.to_string().contains("bad.gguf"), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            error.kind()
        })
    };
    // The last tensor's padding is not missed: only alignment asks for it.
    let last = read(&write_sample(dir.path())).map(|header| {
        let tensor = header.tensors.last().unwrap();
        (header.data_start + tensor.offset + tensor.n_bytes()) as usize
    });
    for len in 0..last.unwrap() {
        assert_eq!(check(&good[..len]).unwrap_err(), ErrorKind::InvalidData, "{len} bytes");
    }
    for (version, kind) in [(1u32, ErrorKind::UnsupportedVersion), (4, ErrorKind::UnsupportedVersion)] {
        let mut bytes = good.clone();
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        assert_eq!(check(&bytes).unwrap_err(), kind);
    }
    let mut bytes = good.clone();
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert_eq!(check(&bytes).unwrap_err(), ErrorKind::UnsupportedVersion);
    // Every byte of the header damaged in turn: an error or another header, never a panic or a large allocation.
    let header = read(&write_sample(dir.path())).unwrap().data_start as usize;
    for at in 0..header {
        for flip in [0xff, 0x01] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            drop(check(&bytes));
        }
    }
    assert_eq!(read(&dir.path().join("none.gguf")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(read(dir.path()).is_err());
}
