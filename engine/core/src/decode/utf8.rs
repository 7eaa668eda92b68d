//! Bytes of tokens to text, piece by piece.

/// Turns a stream of bytes into text: whole characters only, whatever the borders of the pieces.
///
/// The concatenated output equals [`String::from_utf8_lossy`] of the concatenated input: an incomplete character at the
/// end of a piece waits for the next one, a byte that can no longer become a character is replaced by U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Utf8Stream {
    /// The beginning of a character, at most three bytes.
    incomplete: Vec<u8>,
}

impl Utf8Stream {
    /// Takes the next bytes and appends every character that is now complete to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.incomplete.extend_from_slice(bytes);
        let mut rest = self.incomplete.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(fault) => {
                    let (valid, after) = rest.split_at(fault.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    match fault.error_len() {
                        Some(length) => {
                            out.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
            }
        }
        let done = self.incomplete.len() - rest.len();
        self.incomplete.drain(..done);
    }

    /// Ends the stream: what is still incomplete is replaced by U+FFFD.
    pub(super) fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.incomplete).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(bytes: &[u8], cuts: &[usize]) -> String {
        let mut stream = Utf8Stream::default();
        let mut out = String::new();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut start = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            stream.push(&bytes[start..cut], &mut out);
            start = cut;
        }
        stream.finish(&mut out);
        out
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = Utf8Stream::default();
        let mut out = String::new();
        let bytes = "é😀".as_bytes();
        for (i, byte) in bytes.iter().enumerate() {
            stream.push(&[*byte], &mut out);
            assert_eq!(out, ["", "é", "é", "é", "é", "é😀"][i]);
        }
    }

    proptest! {
        #[test]
        fn pieces_equal_the_whole(bytes in proptest::collection::vec(prop_oneof![
            Just(0xe2u8), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), Just(0x98), Just(0x80), Just(b'a'), any::<u8>()
        ], 0..40), cuts in proptest::collection::vec(any::<usize>(), 0..12)) {
            prop_assert_eq!(in_pieces(&bytes, &cuts), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
