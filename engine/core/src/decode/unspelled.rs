//! Bytes that a vocabulary has no token for.

/// The bytes that no token of a byte-level vocabulary spells, as of SmolLM's (21 of them). What a text holds of them is left
/// out when it is tokenised, as llama.cpp does; the bytes around them are not merged over the gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unspelled {
    bytes: Vec<u8>,
}

impl Unspelled {
    /// Those of the 256 bytes that `is_spelled` denies.
    pub fn new(is_spelled: impl Fn(u8) -> bool) -> Self {
        Self { bytes: (0..=255).filter(|&byte| !is_spelled(byte)).collect() }
    }

    /// The bytes, in order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first byte of `text` that is left out, and where it stands.
    pub fn first_in(&self, text: &str) -> Option<(usize, u8)> {
        if self.bytes.is_empty() {
            return None;
        }
        text.bytes().enumerate().find(|(_, byte)| self.bytes.binary_search(byte).is_ok())
    }

    /// Says so where `text`, which is tokenised for a model, loses bytes.
    pub fn warn_of_loss(&self, text: &str) {
        if let Some((at, byte)) = self.first_in(text) {
            tracing::warn!(
                "the model's vocabulary has no token for byte 0x{byte:02x} (byte {at} of a text of {}): it is left out, \
                 as are others of {} such bytes",
                text.len(),
                self.bytes.len()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_token_is_found_in_a_text() {
        let unspelled = Unspelled::new(|byte| byte != 4 && byte < 0xf1);
        assert_eq!(unspelled.bytes().len(), 16);
        assert_eq!(unspelled.first_in("plain, é and 文"), None);
        assert_eq!(unspelled.first_in("ab\u{4}"), Some((2, 4)));
        assert_eq!(unspelled.first_in("é\u{40000}"), Some((2, 0xf1)));
        assert_eq!(Unspelled::default().first_in("\u{4}"), None);
    }
}
