//! Words in a text, and which of them are code.

use std::ops::Range;

/// Whether a text is a Python name of ASCII letters.
pub fn is_ascii_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
        && bytes.all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// The names of a text with their places, wherever they stand: what `\b[a-zA-Z_][a-zA-Z0-9_]*\b` finds in Python.
pub fn words(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        loop {
            let from = rest + text[rest..].find(is_word_char)?;
            let length = text[from..].find(|c| !is_word_char(c)).unwrap_or(text.len() - from);
            rest = from + length;
            let word = &text[from..rest];
            if is_ascii_name(word) {
                return Some((from..rest, word));
            }
        }
    })
}

fn is_word_char(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Where a Python text is code: neither in a comment nor in a string. The braces of an f-string are code.
///
/// A scanner, not a parser: it takes unfinished programs too.
pub fn code_ranges(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    let mut begin = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'#' => {
                ranges.push(begin..at);
                at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at);
                begin = at;
            }
            quote @ (b'"' | b'\'') => {
                // A prefix has one letter or two (`f`, `rf`); more before the quote is a name.
                let letters =
                    bytes[..at].iter().rev().take_while(|byte| is_name_byte(**byte)).take(3).count();
                let prefix = &bytes[at - letters..at];
                let formatted = letters < 3 && prefix.iter().any(|byte| byte.eq_ignore_ascii_case(&b'f'));
                ranges.push(begin..at);
                let end = string_end(bytes, at, quote);
                if formatted {
                    ranges.extend(braces(bytes, at..end));
                }
                at = end;
                begin = at;
            }
            _ => at += 1,
        }
    }
    ranges.push(begin..bytes.len());
    ranges
}

fn is_name_byte(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// The end of the string literal whose first quote is at `at`; one that is not closed ends with its line, or the text.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let close: &[u8] = if triple { &[quote; 3] } else { &[quote] };
    let mut i = at + close.len();
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'\n' if !triple => return i,
            _ if bytes[i..].starts_with(close) => return i + close.len(),
            _ => i += 1,
        }
    }
    bytes.len()
}

fn braces(bytes: &[u8], string: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open = None;
    let mut i = string.start;
    while i < string.end {
        match (bytes[i], open) {
            (b'{', None) if bytes.get(i + 1) == Some(&b'{') => i += 1,
            (b'{', None) => open = Some(i + 1),
            (b'}', Some(start)) => {
                found.push(start..i);
                open = None;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_published_pattern() {
        let found: Vec<_> = words("a.b_1 + 2c é éd _x'y' 漢f ß").map(|(_, word)| word).collect();
        assert_eq!(found, ["a", "b_1", "_x", "y"]);
        assert_eq!(words("").count(), 0);
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        for (text, code) in [
            ("a # b\nc", "a |\nc"),
            ("a 'b' c", "a | c"),
            ("a 'it\\'s' c", "a | c"),
            ("a '''b\n'c' ''' d", "a | d"),
            ("a \"b\nc", "a |\nc"),
            ("f'{a} b {{c}} {d}'", "f|a|d|"),
            ("elf'{a}'", "elf|"),
            ("rb'a' + F\"{x:{y}}\"", "rb| + F|x:{y|"),
            ("'''open", "|"),
            ("'\\", "|"),
        ] {
            let got: Vec<_> = code_ranges(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(got.join("|").trim_start_matches('|'), code.trim_start_matches('|'), "{text}");
        }
    }
}
