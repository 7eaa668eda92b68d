//! What keeps a test in the candidate's process: told from its words, before anything runs, so that no candidate has a say.

use std::collections::HashSet;

/// Why the test cannot run in a process of its own; `None`: as far as its words tell, it can.
///
/// A word counts wherever it is code. Strings and comments are passed over.
pub fn needs(test: &str) -> Option<String> {
    let tokens = tokens(test);
    let modules = imported(&tokens);
    let word = |token: &str| {
        WORDS.iter().find(|(words, _)| words.contains(&token)).map(|(_, why)| format!("{why} (`{token}`)"))
    };
    for (at, token) in tokens.iter().enumerate() {
        if let Some(why) = word(token) {
            return Some(why);
        }
        // `module.name = value`, but for the standard streams.
        if modules.contains(token)
            && (at == 0 || tokens[at - 1] != ".")
            && let [".", name, "=", ..] = &tokens[at + 1..]
            && !matches!(*name, "stdin" | "stdout" | "stderr")
        {
            return Some(format!("it replaces parts of a module (`{token}.{name} =`)"));
        }
        // `os.environ[...] =` and its kin
        if *token == "environ" && matches!(tokens.get(at + 1), Some(&"[")) {
            return Some("it changes the environment (`environ[`)".into());
        }
    }
    None
}

/// Words, and what a test that has them does.
const WORDS: &[(&[&str], &str)] = &[
    (&["patch", "monkeypatch", "mock_open", "setattr", "delattr"], "it replaces parts of the program"),
    (
        &["__builtins__", "builtins", "globals", "__globals__", "__dict__"],
        "it looks into the program's names",
    ),
    (
        &[
            "getsource",
            "getsourcelines",
            "signature",
            "getfullargspec",
            "__code__",
            "__closure__",
            "inspect",
            "settrace",
        ],
        "it looks at the candidate's code",
    ),
    (
        &[
            "open",
            "tempfile",
            "shutil",
            "tmp_path",
            "tmpdir",
            "makedirs",
            "mkdir",
            "mkdtemp",
            "NamedTemporaryFile",
            "chdir",
            "write_text",
            "write_bytes",
            "remove",
            "unlink",
            "rmtree",
            "listdir",
            "to_csv",
            "to_excel",
            "savefig",
            "sqlite3",
        ],
        "it uses files",
    ),
    (
        &[
            "threading",
            "Thread",
            "ThreadPoolExecutor",
            "ProcessPoolExecutor",
            "multiprocessing",
            "concurrent",
        ],
        "it runs the candidate in threads",
    ),
    (&["signal", "alarm", "setitimer", "subprocess"], "it uses signals or processes"),
    (&["pickle", "weakref", "getrefcount", "gc", "tracemalloc"], "it needs the candidate's own objects"),
];

/// `remove` and `open` are methods of lists and streams too; as such they are no files.
const METHODS_TOO: &[&str] = &["remove", "open", "unlink"];

fn imported<'a>(tokens: &[&'a str]) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    for (at, token) in tokens.iter().enumerate() {
        if *token == "import"
            && (at == 0 || !tokens[..at].iter().rev().take(4).any(|before| *before == "from"))
        {
            let names = tokens[at + 1..].split(|token| *token == "\n").next().unwrap_or_default();
            for import in names.split(|token| *token == ",") {
                // The first name, or the one after `as`.
                let name = import.iter().position(|token| *token == "as").map_or(0, |at| at + 1);
                found.extend(import.get(name));
            }
        }
    }
    found
}

/// Names, operators and line ends of Python text, without strings and comments. Linear, whatever the text is.
fn tokens(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut found: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b'#' => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            quote @ (b'\'' | b'"') => {
                at = string_end(bytes, at, quote);
                continue;
            }
            byte if byte.is_ascii_whitespace() && byte != b'\n' => {
                at += 1;
                continue;
            }
            byte if byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80 => {
                while at < bytes.len()
                    && (bytes[at] == b'_' || bytes[at].is_ascii_alphanumeric() || bytes[at] >= 0x80)
                {
                    at += 1;
                }
            }
            b'=' if bytes.get(at + 1) == Some(&b'=') => at += 2,
            _ => at += 1,
        }
        let token = &text[start..at];
        let is_method = found.last() == Some(&".");
        if !(is_method && METHODS_TOO.contains(&token)) || os_before(&found) {
            found.push(token);
        } else {
            found.push("method");
        }
    }
    found
}

fn os_before(found: &[&str]) -> bool {
    matches!(found, [.., "os" | "io" | "codecs" | "gzip", "."])
}

/// Behind the string literal that begins at `at`.
fn string_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let triple = bytes[at..].starts_with(&[quote; 3]);
    let mut at = at + if triple { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' if !triple => return at,
            byte if byte == quote && !triple => return at + 1,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_code_count_and_others_do_not() {
        for (test, why) in [
            ("def check(c):\n    assert c('open(x)') == 2  # patch", None),
            ("x = [1]\nx.remove(1)\nassert f(x)", None),
            ("import sys, io\nsys.stdin = io.StringIO('3')\nassert f() == 3", None),
            ("df.columns = ['a']\nassert f(df)", None),
            ("assert math.pi == f()", None),
            ("import math\nmath.pi = 3\nassert f() == 3", Some("replaces parts of a module")),
            ("from unittest import mock\nwith mock.patch('x.y'): f()", Some("replaces parts of the program")),
            ("with open('a') as file: assert f(file)", Some("uses files")),
            ("import os\nos.remove('a')", Some("uses files")),
            ("import os as o\nos.environ['A'] = '1'", Some("changes the environment")),
            ("'''patch\n\"'''\nimport threading", Some("threads")),
            ("\"unclosed patch\nassert f(1)", None),
        ] {
            let got = needs(test);
            assert_eq!(got.is_some(), why.is_some(), "{test}: {got:?}");
            assert!(got.unwrap_or_default().contains(why.unwrap_or_default()), "{test}");
        }
    }
}
