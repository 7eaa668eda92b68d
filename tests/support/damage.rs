//! Damage to files: what hides in every test that breaks them. Tests include this file (`#[path = "..."] mod damage;`).
#![allow(dead_code, reason = "each binary that includes this file uses what it needs")]

/// A small generator of our own (xorshift), so that a failing mutation can be made again.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub fn one_of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }
}

/// How many damaged files a test makes: `INHOUSE_MUTATIONS` where it is set (10,000 is the long run), else `usual`.
pub fn wanted(usual: usize) -> usize {
    std::env::var("INHOUSE_MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What lengths, counts and offsets may claim.
pub const CLAIMS: [u64; 16] = [
    0,
    1,
    3,
    7,
    64,
    65_535,
    65_536,
    1 << 20,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 47,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Flips, overwrites, cuts and doubles pieces, mostly in the first `head` and the last bytes, where the headers are.
pub fn bytes(bytes: &mut Vec<u8>, head: usize, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let reach = head.min(bytes.len());
        let at = match random.below(3) {
            0 => bytes.len() - 1 - random.below(reach),
            _ => random.below(reach),
        };
        let piece = at..(at + 1 + random.below(40)).min(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = *random.one_of(&[0, 0xff, 0x80, b'9', b'"', b'-']),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(piece)),
            4 => {
                let copy = bytes[piece].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            6 => {
                let claim = random.one_of(&CLAIMS).to_le_bytes();
                let end = (at + *random.one_of(&[2, 4, 8])).min(bytes.len());
                bytes[at..end].copy_from_slice(&claim[..end - at]);
            }
            _ => number(bytes, at, random),
        }
    }
}

/// Puts another value in the place of the number that follows `at`: what a header or a configuration may claim.
fn number(bytes: &mut Vec<u8>, at: usize, random: &mut Random) {
    const WORDS: [&str; 6] = ["-1", "1e300", "null", "true", "[]", "1.5"];
    let Some(begin) = bytes[at..].iter().position(u8::is_ascii_digit).map(|skip| at + skip) else { return };
    let length = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let claim = match random.below(3) {
        0 => (*random.one_of(&WORDS)).to_owned(),
        _ => random.one_of(&CLAIMS).to_string(),
    };
    bytes.splice(begin..begin + length, claim.bytes());
}
