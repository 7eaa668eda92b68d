use std::path::{Path, PathBuf};

use super::*;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/codegen")
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let info = checkpoint.get(name).unwrap();
    let mut values = vec![0f32; info.len()];
    checkpoint.read_f32(info, 0, &mut values).unwrap();
    values
}

/// A folder with one file of the fixture in it.
fn folder_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), bytes).unwrap();
    dir
}

#[test]
fn safetensors_and_pickle_hold_the_same_values() {
    let safe = Checkpoint::open(&fixture()).unwrap();
    let bin = std::fs::read(fixture().join("pytorch_model.bin")).unwrap();
    let dir = folder_with("pytorch_model.bin", &bin);
    let pickled = Checkpoint::open(dir.path()).unwrap();
    let mut compared = 0;
    for (name, info) in safe.tensors() {
        let other = pickled.get(name).unwrap();
        assert_eq!(other.shape, info.shape, "{name}");
        if !matches!(info.dtype, ElementType::Other(_)) {
            assert_eq!((info.dtype, other.dtype), (ElementType::F32, ElementType::F16), "{name}");
            assert_eq!(values(&safe, name), values(&pickled, name), "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 29);
}

/// Writes tensors of the fixture as a safetensors file of their own.
fn write_shard(path: &Path, from: &Checkpoint, names: &[&str]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
    for name in names {
        let begin = data.len();
        data.extend(values(from, name).iter().flat_map(|value| value.to_le_bytes()));
        let shape = &from.get(name).unwrap().shape;
        header.insert(
            (*name).to_owned(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}),
        );
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn shards_are_one_checkpoint() {
    let whole = Checkpoint::open(&fixture()).unwrap();
    let names: Vec<&str> = whole
        .tensors()
        .filter(|(_, info)| !matches!(info.dtype, ElementType::Other(_)))
        .map(|(name, _)| name)
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = names.split_at(names.len() / 2);
    write_shard(&dir.path().join("model-1-of-2.safetensors"), &whole, first);
    write_shard(&dir.path().join("model-2-of-2.safetensors"), &whole, second);
    let index = |shard_of: &dyn Fn(usize) -> String| {
        let map: serde_json::Map<String, serde_json::Value> =
            names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), shard_of(i).into())).collect();
        let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
        std::fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
    };
    index(&|i| format!("model-{}-of-2.safetensors", if i < first.len() { 1 } else { 2 }));
    let sharded = Checkpoint::open(dir.path()).unwrap();
    for name in &names {
        assert_eq!(values(&sharded, name), values(&whole, name), "{name}");
    }
    for (shard, wanted) in [
        ("model-1-of-2.safetensors", "is missing"),
        ("../model.safetensors", "not a plain file name"),
        ("model-3-of-2.safetensors", "model-3-of-2.safetensors"),
    ] {
        index(&|_| shard.to_owned());
        let error = Checkpoint::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let checkpoint = Checkpoint::open(&fixture()).unwrap();
    let missing = checkpoint.require("no.such", &[1]).unwrap_err().to_string();
    assert!(missing.contains("no.such is missing"), "{missing}");
    let shape = checkpoint.require("lm_head.weight", &[640, 65]).unwrap_err().to_string();
    assert!(shape.contains("model.safetensors") && shape.contains("[640, 64]"), "{shape}");
    let info = checkpoint.get("lm_head.weight").unwrap();
    assert!(checkpoint.read_f32(info, 640 * 64 - 1, &mut [0.0; 2]).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Checkpoint::open(empty.path()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(Checkpoint::open(&empty.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn pickles_that_call_functions_are_refused_and_run_nothing() {
    let flag = std::env::temp_dir().join(format!("inhouse-pickle-{}", std::process::id()));
    let command = format!("touch {}", flag.display());
    // cos\nsystem\n(S'..'\ntR. as os.system(command) pickles in protocol 0, 2 and 4.
    let length = (command.len() as u32).to_le_bytes();
    let mut two = b"\x80\x02cposix\nsystem\nq\x00X".to_vec();
    two.extend(length);
    two.extend(command.as_bytes());
    two.extend(b"q\x01\x85q\x02Rq\x03.");
    let mut four = b"\x80\x04\x8c\x05posix\x8c\x06system\x93X".to_vec();
    four.extend(length);
    four.extend(command.as_bytes());
    four.extend(b"\x85R.");
    let zero = format!("cposix\nsystem\n(S'{command}'\ntR.").into_bytes();
    let builtin = b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.".to_vec();
    for pickle in [two, four, zero, builtin] {
        let what = pickle::state_dict(&pickle).unwrap_err();
        assert!(what.contains("nothing was executed"), "{what}");
    }
    assert!(!flag.exists());
}

#[test]
fn pickles_made_to_exhaust_end_quickly() {
    // Nested tuples (a recursive reader overflows its stack), a "billion laughs" of memo references, a cycle, and a shape
    // used again and again.
    let mut nested = b"\x80\x02)".to_vec();
    nested.extend(std::iter::repeat_n(0x85, 900_000));
    nested.push(b'.');
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for i in 0u8..60 {
        laughs.extend([b']', b'q', i + 1, b'(']);
        laughs.extend([b'h', i].repeat(100));
        laughs.push(b'e');
    }
    laughs.push(b'.');
    let cycle = b"\x80\x02}q\x00(h\x00h\x00u.".to_vec();
    let flood = [b"\x80\x02)q\x00".to_vec(), b"h\x00".repeat(3 << 20), b".".to_vec()].concat();
    let objects = [b"\x80\x02".to_vec(), b"]".repeat(8 << 20), b".".to_vec()].concat();
    let long_text = b"\x80\x02X\xff\xff\xff\xff.".to_vec();
    for pickle in
        [nested, laughs, cycle, flood, objects, long_text, b"".to_vec(), b".".to_vec(), b"t.".to_vec()]
    {
        let outcome = pickle::state_dict(&pickle);
        assert!(outcome.is_err() || outcome.is_ok_and(|tensors| tensors.is_empty()));
    }
}
