//! The first bytes in both directions: who speaks, which protocol, which build. Their layout never changes, so that any two
//! builds can tell each other apart.

use std::io::Read;

/// The protocol of [`crate::frame`] and [`crate::message`]; another number, another language.
pub(crate) const PROTOCOL: u32 = 1;

/// Longest version in a hello.
const MAX_VERSION_BYTES: usize = 64;
const MAGIC: [u8; 7] = *b"INHOUSE";

/// Which end speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Side {
    Host = b'H',
    Worker = b'W',
}

/// What was said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub protocol: u32,
    pub version: String,
}

impl Hello {
    /// This build's.
    pub fn own() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Bytes: `INHOUSE`, the side, the protocol (u32, little endian), the length of the version (u8), the version.
    pub fn bytes(&self, side: Side) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(side as u8);
        bytes.extend(self.protocol.to_le_bytes());
        let version = &self.version.as_bytes()[..self.version.len().min(MAX_VERSION_BYTES)];
        bytes.push(version.len() as u8);
        bytes.extend(version);
        bytes
    }

    /// Reads the hello of `side`; `InvalidData` where it is none.
    pub fn read(side: Side, input: &mut dyn Read) -> std::io::Result<Self> {
        let bad = || std::io::Error::new(std::io::ErrorKind::InvalidData, "it does not say hello");
        let mut head = [0; 13];
        input.read_exact(&mut head)?;
        let [magic @ .., said, p0, p1, p2, p3, length] = head;
        if magic != MAGIC || said != side as u8 || usize::from(length) > MAX_VERSION_BYTES {
            return Err(bad());
        }
        let mut version = vec![0; usize::from(length)];
        input.read_exact(&mut version)?;
        let version = String::from_utf8(version).map_err(|_| bad())?;
        Ok(Self { protocol: u32::from_le_bytes([p0, p1, p2, p3]), version })
    }

    /// Whether the two can work together. Builds of one version only: a model must be the same on both sides of a restart,
    /// and messages are not kept compatible from one version to the next.
    pub fn fits(&self, other: &Self) -> bool {
        self == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_back_and_nothing_else_is() {
        let bytes = Hello::own().bytes(Side::Worker);
        let read = |side, bytes: &[u8]| Hello::read(side, &mut &*bytes);
        assert_eq!(read(Side::Worker, &bytes).unwrap(), Hello::own());
        // A program that sends back what it is sent is no worker.
        assert!(read(Side::Host, &bytes).is_err());
        for at in 0..bytes.len() {
            assert!(read(Side::Worker, &bytes[..at]).is_err());
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            assert!(read(Side::Worker, &changed).map_or(true, |hello| !hello.fits(&Hello::own())), "{at}");
        }
    }
}
