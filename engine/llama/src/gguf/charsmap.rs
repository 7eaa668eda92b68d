//! The map of characters that the `t5` tokenizer normalises a text with: a blob that llama.cpp walks while it tokenises,
//! throwing (which ends the process) where the walk leaves it. So every walk that some text can lead is taken here once.

use inhouse_core::gguf::{Numbers, Value};

const LABEL: u32 = 1 << 31 | 0xff;

/// Checks the blob: a length, as many bytes of a double array (Kanda 2018, compacted by XOR), and texts that end in zero.
pub(super) fn check(map: &Numbers) -> Result<(), &'static str> {
    let bytes: Vec<u8> = (0..map.len())
        .filter_map(|i| match map.get(i) {
            Some(Value::U8(byte)) => Some(byte),
            Some(Value::I8(byte)) => Some(byte as u8),
            _ => None,
        })
        .collect();
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Err("is too short");
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length >= rest.len() || !length.is_multiple_of(4) || length == 0 {
        return Err("has an array that does not fit it");
    }
    let (array, texts) = rest.split_at(length);
    if texts.last() != Some(&0) {
        return Err("has a text without an end");
    }
    let nodes: Vec<u32> = array.as_chunks::<4>().0.iter().map(|node| u32::from_le_bytes(*node)).collect();
    walk(&nodes, texts.len())
}

fn walk(nodes: &[u32], n_text_bytes: usize) -> Result<(), &'static str> {
    const OUTSIDE: &str = "leads out of its array";
    let base = |node: u32| (node >> 10) << ((node & 1 << 9) >> 6);
    let mut seen = vec![false; nodes.len()];
    let mut rest = vec![base(nodes[0])];
    while let Some(from) = rest.pop() {
        for byte in 1..=0xff {
            let at = from ^ byte;
            let &node = nodes.get(at as usize).ok_or(OUTSIDE)?;
            if node & LABEL != byte {
                continue;
            }
            let next = at ^ base(node);
            if node & 1 << 8 != 0 {
                let value = nodes.get(next as usize).ok_or(OUTSIDE)? & !(1 << 31);
                if value as usize >= n_text_bytes {
                    return Err("leads out of its texts");
                }
            }
            // Where it ends, the next step is looked up all the same.
            match seen.get_mut(at as usize) {
                Some(seen) if !*seen => {
                    *seen = true;
                    rest.push(next);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use inhouse_core::gguf::{Kind, Numbers};

    use super::*;

    /// `a` becomes the text at 0; every node is within 512.
    fn map() -> (Vec<u32>, Vec<u8>) {
        let mut nodes = vec![0u32; 512];
        nodes[0] = 256 << 10;
        let a = 256 ^ u32::from(b'a');
        nodes[a as usize] = u32::from(b'a') | 1 << 8 | (a ^ 10) << 10;
        nodes[10] = 1 << 31;
        (nodes, b"b\0".to_vec())
    }

    fn checked(nodes: &[u32], texts: &[u8]) -> Result<(), &'static str> {
        let array: Vec<u8> = nodes.iter().flat_map(|node| node.to_le_bytes()).collect();
        let bytes = [&(array.len() as u32).to_le_bytes(), &array[..], texts].concat();
        check(&Numbers::new(Kind::U8, bytes).unwrap())
    }

    #[test]
    fn every_walk_stays_inside() {
        let (nodes, texts) = map();
        checked(&nodes, &texts).unwrap();
        assert!(checked(&nodes[..256], &texts).unwrap_err().contains("out of its array"));
        assert!(checked(&nodes, b"b").unwrap_err().contains("without an end"));
        assert!(checked(&nodes, b"").unwrap_err().contains("does not fit"));
        let mut far = nodes.clone();
        far[10] = 1 << 31 | 2;
        assert!(checked(&far, &texts).unwrap_err().contains("out of its texts"));
        far[0] = 1 << 20;
        assert!(checked(&far, &texts).unwrap_err().contains("out of its array"));
        assert!(checked(&[], &texts).is_err());
    }
}
