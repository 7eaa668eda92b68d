//! The record: what the harness inside the sample's process tells its supervisor, over a private pipe.
//!
//! A record is `nonce [16] | kind u8 | value u64 LE | length u16 LE | text`. The nonce is drawn per sample and lives in
//! Rust memory only, so no Python object leads to it. A sample writes exactly one [`Kind::Start`] and then at most one
//! other record; anything else on the pipe is tampering. Every record is one write below PIPE_BUF, hence whole or absent.

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// The secret that marks a record as the harness's own.
pub type Nonce = [u8; NONCE_BYTES];

/// Longest text of a record, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
const HEAD_BYTES: usize = NONCE_BYTES + 1 + 8 + 2;
/// More bytes than an honest sample ever writes.
pub const MAX_STREAM_BYTES: usize = 4 * (HEAD_BYTES + MAX_TEXT_BYTES);

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// The walls stand, the candidate starts now; the value is the CPU time used so far in nanoseconds.
    Start = 1,
    /// Code and test ran to their end.
    Passed = 2,
    /// Code or test raised.
    Failed = 3,
    /// The code does not compile.
    CompileError = 4,
    /// Code or test raised SystemExit.
    Exited = 5,
    /// Code or test ended with MemoryError.
    Memory = 6,
    /// Code or test ended with "no space", "quota" or "file too large".
    Disk = 7,
    /// Code or test ended because no thread or process could be started.
    Processes = 8,
    /// The walls could not be raised; the candidate never ran.
    Broken = 9,
    /// The machine stopped code or test (T4): stack overflow, abort. Native code is stopped by a signal and has no record.
    Crashed = 10,
    /// Code and test ran, and nothing that could fail did.
    NoTest = 11,
    /// A candidate has run, and waits for what its judge asks.
    Ready = 12,
    /// A candidate has answered its judge, who has hung up.
    Served = 13,
    /// A judge's test needs the candidate in its own process.
    Needs = 14,
    /// A judge's candidate has ended before its test.
    Gone = 15,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Start,
            2 => Self::Passed,
            3 => Self::Failed,
            4 => Self::CompileError,
            5 => Self::Exited,
            6 => Self::Memory,
            7 => Self::Disk,
            8 => Self::Processes,
            9 => Self::Broken,
            10 => Self::Crashed,
            11 => Self::NoTest,
            12 => Self::Ready,
            13 => Self::Served,
            14 => Self::Needs,
            15 => Self::Gone,
            _ => return None,
        })
    }
}

/// Encodes one record; a longer text is cut at a character.
pub fn encode(nonce: &Nonce, kind: Kind, value: u64, text: &str) -> Vec<u8> {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = Vec::with_capacity(HEAD_BYTES + end);
    bytes.extend_from_slice(nonce);
    bytes.push(kind as u8);
    bytes.extend_from_slice(&value.to_le_bytes());
    bytes.extend_from_slice(&(end as u16).to_le_bytes());
    bytes.extend_from_slice(&text.as_bytes()[..end]);
    bytes
}

/// What the pipe held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// The value of the start record.
    pub start: Option<u64>,
    /// Whether a candidate is ready for its judge.
    pub ready: bool,
    /// The record that ends it.
    pub last: Option<(Kind, String)>,
    /// That record's value: of a program, its exit status.
    pub status: u64,
}

/// Reads everything that was written to the pipe; `None` when it is not what an honest harness writes.
pub fn decode(nonce: &Nonce, mut bytes: &[u8]) -> Option<Stream> {
    let mut stream = Stream::default();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (mark, head) = head.split_at(NONCE_BYTES);
        let kind = Kind::from_byte(head[0])?;
        let value = u64::from_le_bytes(head[1..9].try_into().ok()?);
        let length = u16::from_le_bytes([head[9], head[10]]) as usize;
        let (text, rest) = rest.split_at_checked(length)?;
        if mark != nonce || stream.last.is_some() {
            return None;
        }
        match kind {
            Kind::Start if stream.start.is_none() => stream.start = Some(value),
            Kind::Start => return None,
            Kind::Broken => stream.last = Some((kind, String::from_utf8(text.to_vec()).ok()?)),
            _ if stream.start.is_none() => return None,
            Kind::Ready if !stream.ready => stream.ready = true,
            Kind::Ready => return None,
            _ => {
                stream.status = value;
                stream.last = Some((kind, String::from_utf8(text.to_vec()).ok()?));
            }
        }
        bytes = rest;
    }
    Some(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: Nonce = *b"0123456789abcdef";

    #[test]
    fn honest_streams_round_trip() {
        let mut bytes = encode(&NONCE, Kind::Start, 77, "");
        assert_eq!(decode(&NONCE, &bytes), Some(Stream { start: Some(77), ..Stream::default() }));
        bytes.extend(encode(&NONCE, Kind::Failed, 0, "ValueError: ü"));
        let want = Stream {
            start: Some(77),
            last: Some((Kind::Failed, "ValueError: ü".into())),
            ..Stream::default()
        };
        assert_eq!(decode(&NONCE, &bytes), Some(want));
        assert_eq!(decode(&NONCE, &[]), Some(Stream::default()));
        let broken = encode(&NONCE, Kind::Broken, 0, "no tmpfs");
        assert_eq!(
            decode(&NONCE, &broken).and_then(|stream| stream.last).map(|last| last.0),
            Some(Kind::Broken)
        );
    }

    #[test]
    fn forged_damaged_and_extra_records_are_tampering() {
        let start = encode(&NONCE, Kind::Start, 1, "");
        let passed = encode(&NONCE, Kind::Passed, 0, "");
        let foreign = encode(b"################", Kind::Passed, 0, "");
        for bytes in [
            passed.clone(),                                           // no start
            [start.clone(), foreign].concat(),                        // wrong nonce
            [start.clone(), passed.clone(), passed.clone()].concat(), // two ends
            [start.clone(), start.clone()].concat(),                  // two starts
            [start.clone(), passed.clone(), b"x".to_vec()].concat(),  // trailing byte
            [b"{\"passed\": true}\n".to_vec(), start.clone(), passed.clone()].concat(),
            start[..start.len() - 1].to_vec(), // cut
        ] {
            assert_eq!(decode(&NONCE, &bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn no_prefix_or_flipped_byte_becomes_a_pass() {
        let honest = [encode(&NONCE, Kind::Start, 1, ""), encode(&NONCE, Kind::Failed, 0, "x")].concat();
        for at in 0..honest.len() {
            let passed =
                |stream: Option<Stream>| stream.is_some_and(|s| matches!(s.last, Some((Kind::Passed, _))));
            assert!(!passed(decode(&NONCE, &honest[..at])));
            let mut flipped = honest.clone();
            flipped[at] ^= 0x80;
            assert!(!passed(decode(&NONCE, &flipped)));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "é".repeat(MAX_TEXT_BYTES);
        let bytes = [encode(&NONCE, Kind::Start, 1, ""), encode(&NONCE, Kind::Failed, 0, &text)].concat();
        assert!(bytes.len() <= MAX_STREAM_BYTES);
        assert!(decode(&NONCE, &bytes).is_some_and(|stream| stream.last.is_some()));
    }
}
