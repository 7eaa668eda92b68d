//! Damage that keeps a file's form: what lies behind checksums, lengths and brackets is reached by no flipped bit.

use std::io::{Cursor, Read, Write};

use serde_json::{Map, Value};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::damage::{self, CLAIMS, Random};

/// A changed file that still has the form of its kind.
pub fn change(name: &str, good: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension {
        "json" => {
            let mut tree = serde_json::from_slice(good).ok()?;
            several(random, |random| change_tree(&mut tree, random));
            Some(tree.to_string().into_bytes())
        }
        "safetensors" => safetensors(good, random),
        "bin" => torch(good, random),
        "txt" => Some(lines(good, random)),
        _ => None,
    }
}

fn several(random: &mut Random, mut change: impl FnMut(&mut Random)) {
    for _ in 0..1 + random.below(3) {
        change(random);
    }
}

/// Goes down from the root, as often into a map of a few keys as into one of thousands, and changes what it comes to.
fn change_tree(tree: &mut Value, random: &mut Random) {
    let mut node = tree;
    loop {
        let stop = random.below(5) == 0;
        let empty = node.as_array().is_some_and(Vec::is_empty) || node.as_object().is_some_and(Map::is_empty);
        if stop || empty || !(node.is_array() || node.is_object()) {
            return change_node(node, random);
        }
        node = match node {
            Value::Array(items) => {
                let at = random.below(items.len());
                &mut items[at]
            }
            Value::Object(map) => {
                let at = random.below(map.len());
                match map.iter_mut().nth(at) {
                    Some((_, value)) => value,
                    None => return,
                }
            }
            _ => return,
        };
    }
}

/// Names that mean something to a reader of configurations, tokenizers and headers, and patterns that are costly.
const TEXTS: [&str; 34] = [
    "",
    "\0",
    "a\nb",
    "gelu",
    "gelu_new",
    "silu",
    "llama3",
    "linear",
    "yarn",
    "gpt2",
    "t5",
    "llama",
    "codegen",
    "F64",
    "BF16",
    "I64",
    "F8_E4M3",
    "BPE",
    "WordPiece",
    "Unigram",
    "Sequence",
    "ByteLevel",
    "Metaspace",
    "Split",
    "Regex",
    "Precompiled",
    "NFKC",
    "TemplateProcessing",
    "(a+)+$",
    "(.*)*\\n!",
    "(?:(?:x{999}){999}){999}",
    "\u{2581}",
    "<0xZZ>",
    "../../../etc/passwd",
];

fn change_node(node: &mut Value, random: &mut Random) {
    match (random.below(4), node) {
        (0, node) => *node = invented(random),
        (_, Value::Number(number)) => {
            let old = number.as_u64().unwrap_or(1);
            let claims = [
                old.wrapping_add(1),
                old.wrapping_sub(1),
                old.wrapping_mul(2),
                old / 2,
                old.wrapping_mul(1000),
            ];
            *number = match random.below(3) {
                0 => (*random.one_of(&CLAIMS)).into(),
                1 => (-1 - random.below(1 << 20) as i64).into(),
                _ => (*random.one_of(&claims)).into(),
            };
        }
        (_, Value::String(text)) => match random.below(4) {
            0 => *text = (*random.one_of(&TEXTS)).to_owned(),
            1 => drop(text.pop()),
            2 => *text = text.repeat(2),
            _ => text.push(*random.one_of(&['a', ' ', '\u{10ffff}', '0', '\u{301}'])),
        },
        (_, Value::Array(items)) => match random.below(5) {
            0 => drop(items.pop()),
            1 => items.push(invented(random)),
            2 => items.reverse(),
            3 => {
                if let Some(item) = items.first().cloned() {
                    items.resize(items.len() + *random.one_of(&[1, 7, 3000]), item);
                }
            }
            _ => items.clear(),
        },
        (_, Value::Object(map)) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            if keys.is_empty() {
                return drop(map.insert((*random.one_of(&TEXTS)).to_owned(), invented(random)));
            }
            let (key, other) = (random.one_of(&keys).clone(), random.one_of(&keys).clone());
            match random.below(4) {
                0 => drop(map.remove(&key)),
                1 => {
                    let value = map[&other].clone();
                    map.insert(key, value);
                }
                2 => {
                    let value = map.remove(&key).unwrap_or_default();
                    map.insert((*random.one_of(&TEXTS)).to_owned(), value);
                }
                _ => drop(map.insert(key, invented(random))),
            }
        }
        (_, node) => *node = invented(random),
    }
}

fn invented(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => random.below(2).eq(&0).into(),
        2 => (*random.one_of(&CLAIMS)).into(),
        3 => (*random.one_of(&[-1.0, 0.0, 1e-300, 1e300, 0.5])).into(),
        4 => (*random.one_of(&TEXTS)).into(),
        5 => "x".repeat(*random.one_of(&[300, 70_000])).into(),
        6 => Value::Array(vec![Value::from(1); random.below(5)]),
        7 => Value::Object(Map::new()),
        // Readers that call themselves must not run out of stack.
        _ => (0..*random.one_of(&[3, 120, 5000])).fold(Value::Null, |inner, _| Value::Array(vec![inner])),
    }
}

fn safetensors(good: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let (length, rest) = good.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut tree = serde_json::from_slice(header).ok()?;
    several(random, |random| change_tree(&mut tree, random));
    let mut header = tree.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let claimed = if random.below(8) == 0 { *random.one_of(&CLAIMS) } else { header.len() as u64 };
    let mut data = data.to_vec();
    if random.below(8) == 0 {
        data.truncate(random.below(data.len()));
    }
    Some([&claimed.to_le_bytes()[..], &header, &data].concat())
}

/// What a pickle may do to a reader that runs it: the file would be there afterwards.
pub const TOUCHED: &str = "/tmp/inhouse-damage-executed";

fn torch(good: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(good)).ok()?;
    let mut entries = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).ok()?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).ok()?;
        entries.push((entry.name().to_owned(), bytes, CompressionMethod::Stored));
    }
    let pickle = entries.iter().position(|(name, ..)| name.ends_with("data.pkl"))?;
    several(random, |random| {
        let at = random.below(entries.len());
        match random.below(12) {
            0 => entries[at].1.truncate(random.below(64)),
            1 => entries[at].0.push('x'),
            2 => {
                let copy = entries[at].clone();
                entries.push((format!("{}2", copy.0), copy.1, copy.2));
            }
            3 => entries[at].2 = CompressionMethod::Deflated,
            4 => entries[at].1.resize(good.len() * 5, 0),
            _ => change_pickle(&mut entries[pickle].1, random),
        }
    });
    if random.below(10) == 0 {
        entries[pickle].2 = CompressionMethod::Deflated;
        entries[pickle].1.resize(8 << 20, b'.');
    }
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes, compression) in entries {
        writer.start_file(name, SimpleFileOptions::default().compression_method(compression)).ok()?;
        writer.write_all(&bytes).ok()?;
    }
    Some(writer.finish().ok()?.into_inner())
}

fn change_pickle(bytes: &mut Vec<u8>, random: &mut Random) {
    const OPCODES: &[u8] = b"().012BCDFGHIJKLMNPQRSTUVXYZ[]abcdefghijloqrstu}\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98";
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] = *random.one_of(OPCODES),
        1 => bytes.insert(at, *random.one_of(OPCODES)),
        2 => drop(bytes.remove(at)),
        3 => {
            let call = format!("cposix\nsystem\n(S'touch {TOUCHED}'\ntR");
            bytes.splice(at..at, call.bytes());
        }
        4 => {
            let flood = vec![*random.one_of(OPCODES); *random.one_of(&[10, 1000, 50_000])];
            bytes.splice(at..at, flood);
        }
        5 => {
            // BININT1, BININT2 and BININT: a size, a stride, an offset.
            let ints = bytes[at..].iter().position(|byte| matches!(byte, b'K' | b'M' | b'J'));
            let Some(at) = ints.map(|skip| at + skip) else { return };
            let claim = random.one_of(&CLAIMS).to_le_bytes();
            let old = if bytes[at] == b'K' { 2 } else { 3 };
            let end = (at + old).min(bytes.len());
            bytes.splice(at..end, [&[0x8a, 8][..], &claim].concat());
        }
        6 => {
            let other = random.below(bytes.len());
            bytes.swap(at, other);
        }
        _ => damage::bytes(bytes, usize::MAX, random),
    }
}

fn lines(good: &[u8], random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(good);
    let mut lines: Vec<&str> = text.lines().collect();
    several(random, |random| {
        if lines.is_empty() {
            return;
        }
        let (at, other) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(5) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[other]),
            2 => lines.swap(at, other),
            3 => lines[at] = TEXTS[random.below(TEXTS.len())],
            _ => lines.truncate(at),
        }
    });
    lines.join("\n").into_bytes()
}
