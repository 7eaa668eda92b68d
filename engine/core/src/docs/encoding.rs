//! Bytes of Python source to text (PEP 263).

use encoding_rs::Encoding;

use super::parse::Refusal;

/// Text of a source file: UTF-8 (with or without a byte order mark) unless a comment in its first two lines names another encoding.
///
/// # Errors
/// The bytes are not text in that encoding, or it is none that is known.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, Refusal> {
    let declared = declared(&bytes).map(|name| name.to_ascii_lowercase().replace('_', "-"));
    let bytes = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    match declared.as_deref() {
        Some(
            "latin-1" | "latin1" | "latin" | "iso-8859-1" | "iso8859-1" | "8859" | "l1" | "cp819"
            | "iso-latin-1",
        ) => Ok(bytes.iter().map(|&byte| byte as char).collect()),
        None
        | Some(
            "utf-8" | "utf8" | "utf" | "u8" | "utf-8-sig" | "utf8-sig" | "utf-8-unix" | "utf-8-dos"
            | "utf-8-mac" | "cp65001" | "ascii" | "us-ascii" | "646",
        ) => String::from_utf8(bytes).map_err(|cause| {
            let at = cause.utf8_error().valid_up_to();
            (Some(line(cause.as_bytes(), at)), format!("not UTF-8 at byte {at}"))
        }),
        Some(name) => {
            let Some(encoding) = named(name) else {
                let reason = format!("encoding `{name}` is not known (save it as UTF-8)");
                return Err((Some(1), reason));
            };
            match encoding.decode_without_bom_handling_and_without_replacement(&bytes) {
                Some(text) => Ok(text.into_owned()),
                None => Err((None, format!("not text in the encoding `{name}` that it declares"))),
            }
        }
    }
}

fn line(bytes: &[u8], at: usize) -> u32 {
    bytes[..at].iter().filter(|&&byte| byte == b'\n').count() as u32 + 1
}

/// The encoding that Python calls so. Its names are those of the encoding standard but for the ones below.
fn named(name: &str) -> Option<&'static Encoding> {
    let label = match name {
        "mac-roman" | "macroman" | "macintosh" => "macintosh",
        "mac-cyrillic" | "maccyrillic" => "x-mac-cyrillic",
        "cp932" | "932" | "ms932" | "mskanji" | "ms-kanji" | "s-jis" | "shiftjis" | "sjis" => "shift_jis",
        "cp936" | "936" | "ms936" | "euc-cn" | "euccn" | "eucgb2312-cn" | "gb2312-1980" => "gbk",
        "cp949" | "949" | "ms949" | "uhc" | "euckr" | "korean" | "ks-c-5601" => "euc-kr",
        "cp950" | "950" | "ms950" | "big5-tw" | "big5-hkscs" | "big5hkscs" | "hkscs" => "big5",
        "gb18030-2000" => "gb18030",
        "eucjp" | "ujis" | "u-jis" => "euc-jp",
        "iso2022jp" | "iso-2022-jp-1" | "iso-2022-jp-2" | "iso-2022-jp-ext" | "iso2022-jp" => "iso-2022-jp",
        "tis620" | "tis-620-0" | "thai" | "cp874" => "windows-874",
        "koi8-t" | "koi8u" => "koi8-u",
        "866" | "ibm866" => "ibm866",
        other => other,
    };
    let direct = Encoding::for_label(label.as_bytes());
    // `cp1252`, `windows1252`, `1252`; `iso8859_15`, `latin9`, `l9`.
    let by_page = || {
        let page = label.trim_start_matches("windows").trim_start_matches("cp").trim_start_matches('-');
        Encoding::for_label(format!("windows-{page}").as_bytes())
    };
    let by_part = || {
        let part = label.trim_start_matches("iso").trim_start_matches('-').strip_prefix("8859")?;
        Encoding::for_label(format!("iso-8859-{}", part.trim_start_matches('-')).as_bytes())
    };
    let by_latin = || {
        const PARTS: &[(&str, &str)] = &[
            ("2", "2"),
            ("3", "3"),
            ("4", "4"),
            ("5", "9"),
            ("6", "10"),
            ("7", "13"),
            ("8", "14"),
            ("9", "15"),
            ("10", "16"),
        ];
        let number = label.strip_prefix("latin").or_else(|| label.strip_prefix('l'))?.trim_start_matches('-');
        let (_, part) = PARTS.iter().find(|(latin, _)| *latin == number)?;
        Encoding::for_label(format!("iso-8859-{part}").as_bytes())
    };
    // UTF-16 and what the standard replaces cannot hold the comment that names it.
    direct
        .or_else(by_page)
        .or_else(by_part)
        .or_else(by_latin)
        .filter(|found| found.is_ascii_compatible() || *found == encoding_rs::ISO_2022_JP)
}

/// The encoding named by a comment in the first two lines.
fn declared(bytes: &[u8]) -> Option<String> {
    for line in bytes.split(|&byte| byte == b'\n').take(2) {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | 0x0c | b'\r'));
        // A blank first line leaves the second to say it.
        let Some(start) = start else { continue };
        if line[start] != b'#' {
            return None;
        }
        let comment = String::from_utf8_lossy(line);
        if let Some(at) = comment.find("coding") {
            let rest = &comment[at + "coding".len()..];
            if let Some(rest) = rest.strip_prefix([':', '=']) {
                let name: String = rest
                    .trim_start()
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                    .collect();
                if !name.is_empty() {
                    return Some(name);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let latin = b"# -*- coding: latin-1 -*-\nx = '\xe9'\n".to_vec();
        assert_eq!(decode(latin).unwrap(), "# -*- coding: latin-1 -*-\nx = '\u{e9}'\n");
        assert_eq!(decode(b"\xef\xbb\xbfx = 1\n".to_vec()).unwrap(), "x = 1\n");
        assert_eq!(
            decode(b"x = 1\ny = '\xff'\n".to_vec()).unwrap_err(),
            (Some(2), "not UTF-8 at byte 11".into())
        );
        let (line, reason) =
            decode(b"#!/bin/python\n# vim: set fileencoding=elvish :\n".to_vec()).unwrap_err();
        assert_eq!(line, Some(1));
        assert!(reason.contains("elvish"), "{reason}");
        assert!(decode(b"x = 'coding: elvish'\n".to_vec()).is_ok());
        assert!(decode(b"# coding: gbk\nx = '\xff\xff'\n".to_vec()).is_err());
    }

    #[test]
    fn names_that_python_gives_encodings() {
        for (name, byte, expected) in [
            ("cp1252", 0x80, '\u{20ac}'),
            ("windows_1251", 0xc0, '\u{410}'),
            ("1250", 0xa3, '\u{141}'),
            ("koi8_r", 0xc1, '\u{430}'),
            ("iso8859_15", 0xa4, '\u{20ac}'),
            ("latin9", 0xa4, '\u{20ac}'),
            ("L2", 0xa3, '\u{141}'),
            ("mac_roman", 0x8e, '\u{e9}'),
            ("cp866", 0x80, '\u{410}'),
        ] {
            let mut bytes = format!("# coding: {name}\nx = '").into_bytes();
            bytes.push(byte);
            bytes.push(b'\'');
            assert!(decode(bytes).unwrap().ends_with(&format!("'{expected}'")), "{name}");
        }
        assert!(named("utf-16").is_none());
    }
}
