//! Hostile and mutated input: no panic, no overflow of the stack, no hang.
#![allow(clippy::unwrap_used)]

mod docs_support;

use docs_support::{files_of, fixture, gz_tar, zip_of};
use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::progress::Silent;
use proptest::prelude::*;

fn read_source(text: &[u8]) -> docs::Documentation {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.py");
    std::fs::write(&path, text).unwrap();
    docs::read(&path, &ReadOptions::default(), &Silent).unwrap()
}

#[test]
fn deep_nesting_is_skipped_with_a_reason() {
    let n = 100_000;
    let cases: Vec<(&str, String)> = vec![
        ("parentheses", "(".repeat(n)),
        ("closed parentheses", format!("x = {}1{}", "(".repeat(n), ")".repeat(n))),
        ("brackets", "[".repeat(n)),
        ("braces", format!("x = {}", "{".repeat(n))),
        ("not", format!("x = {}y", "not ".repeat(n))),
        ("minus", format!("x = {}y", "-".repeat(n))),
        ("await", format!("async def f():\n    return {}y", "await ".repeat(n))),
        ("attributes", format!("x = a{}", ".b".repeat(n))),
        ("subscripts", format!("x = a{}", "[0]".repeat(n))),
        ("calls", format!("x = a{}", "()".repeat(n))),
        ("lambdas", format!("x = {}1", "lambda: ".repeat(n))),
        ("lambda parameters", format!("x = {}1", "lambda a, b: ".repeat(n))),
        ("lambda defaults", format!("x = {}1", "lambda a=".repeat(n))),
        ("choices", format!("x = {}a", "a if b else ".repeat(n))),
        ("powers", format!("x = a{}", "**a".repeat(n))),
        ("sums", format!("x = a{}", "+a".repeat(n))),
        ("f-strings", format!("x = {}", "f'{".repeat(n))),
        ("alternating f-strings", format!("x = {}", "f'{f\"{".repeat(n))),
        ("format specs", format!("x = f'{}'", "{a:".repeat(n))),
        ("blocks", (0..2_000).map(|i| format!("{}if x:\n", " ".repeat(i))).collect()),
        ("classes", (0..2_000).map(|i| format!("{}class C:\n", " ".repeat(i))).collect()),
        ("match patterns", format!("match x:\n    case {}", "[".repeat(n))),
        ("annotations", format!("def f(x: {}int): ...", "List[".repeat(n))),
        ("decorators", format!("@{}\ndef f(): ...", "a(".repeat(n))),
    ];
    for (what, text) in cases {
        let found = read_source(text.as_bytes());
        assert_eq!(found.skipped.len(), 1, "{what}");
        assert!(found.skipped[0].line.is_some(), "{what}: {:?}", found.skipped);
    }
}

#[test]
fn nesting_at_the_limit_is_read() {
    // As deep as is let through: parsed, walked and dropped on the threads made for it.
    let cases = [
        format!("x = {}1{}\n", "(".repeat(390), ")".repeat(390)),
        format!("x = a{}\n", ".b".repeat(1_900)),
        format!("x = {}y\n", "not ".repeat(3_900)),
        format!("x = a{}\n", "+a".repeat(1_900)),
        format!("x = {}1\n", "lambda: ".repeat(1_300)),
        format!("x = {}a\n", "a if b else ".repeat(900)),
        format!("__all__ = ['x'{}\n", "] + ['x'".repeat(900) + "]"),
    ];
    for text in cases {
        let found = read_source(text.as_bytes());
        assert!(found.skipped.is_empty(), "{:?}: {}", found.skipped, &text[..60]);
    }
}

#[test]
fn many_overloads_are_one_function() {
    let overloads: String = (0..50_000).map(|i| format!("@overload\ndef f(x: T{i}) -> int: ...\n")).collect();
    let text = format!("from typing import overload\n{overloads}def f(x, y=1): 'Does it.'\n");
    let found = read_source(text.as_bytes());
    let f = found.apis.iter().find(|api| api.name == "f").unwrap();
    assert_eq!((f.signature.as_str(), f.description.as_str()), ("(x, y=1)", "Does it."));
}

#[test]
fn references_in_circles_end() {
    let cases = [
        "from m import *\n__all__ = __all__ + ['a']\n",
        "a = b\nb = a\n",
        "class A(B): ...\nclass B(A): ...\n",
        "class A(A):\n    x = x\n    y = A\n    A = A\n",
        "def doc(*a): ...\n@doc(g)\ndef f(): 'x'\n@doc(f)\ndef g(): 'y'\n",
        "f.__doc__ = g.__doc__\ndef f(): ...\ndef g(): ...\ng.__doc__ = f.__doc__\n",
        "def f(c):\n    f(c)\n    setattr(c, 'x', f)\nclass C: ...\nf(C)\n",
        "def f(c):\n    for i in [1] * 1000:\n        for j in [1] * 1000:\n            setattr(c, 'x', f)\nclass C: ...\nf(C)\n",
        "x = 'a' * 1000000000\ny = x * 1000000000\nclass A:\n    __doc__ = ('%s' % x) * 99\n",
        "import m as a\nfrom m import a as b\nfrom .m import c\nfrom ... import d\n",
        "class A:\n    s = X('s', A)\nclass X:\n    t = Y('t', A)\n",
        "d = {}\nd.update(d)\nd['a'] = d\nx = d['a']['a']\nclass C:\n    __doc__ = d['a']['b']\n",
        "class A:\n    class B:\n        class C(A): ...\n    D = B\n    E = property(lambda self: self.E)\n",
    ];
    for text in cases {
        read_source(text.as_bytes());
    }
}

fn sources() -> Vec<Vec<u8>> {
    files_of(&fixture("tidepool"), "t")
        .into_iter()
        .filter(|(name, _)| name.ends_with("py"))
        .map(|(_, text)| text)
        .collect()
}

fn mutated(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    const PIECES: &[&str] = &[
        "(",
        ")",
        "[",
        "{",
        "}",
        "'",
        "\"",
        "\"\"\"",
        "f'{",
        "\\",
        "\n",
        "    ",
        "lambda ",
        "class C(",
        "def f(",
        "@",
        ":",
        ",",
        "*",
        "**",
        "import ",
        "from . import *\n",
        "__all__ += ",
        "é",
        "\u{0}",
        "=",
        ".",
        "%(x)s",
        "{x}",
    ];
    for (at, how, what) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at % bytes.len();
        let piece = PIECES[usize::from(*what) % PIECES.len()].as_bytes();
        match how % 4 {
            0 => bytes[at] = *what,
            1 => drop(bytes.splice(at..at, piece.iter().copied())),
            2 => drop(bytes.drain(at..(at + usize::from(*what)).min(bytes.len()))),
            _ => {
                let end = (at + usize::from(*what)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.extend(part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_sources_are_read_or_skipped(
        which in any::<usize>(),
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..12),
    ) {
        let sources = sources();
        read_source(&mutated(sources[which % sources.len()].clone(), &edits));
    }

    #[test]
    fn mutated_archives_are_read_or_refused(
        zip in any::<bool>(),
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        let files = files_of(&fixture("tidepool"), "tidepool");
        let (name, bytes) = if zip { ("a.whl", zip_of(&files)) } else { ("a.tar.gz", gz_tar(&files)) };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, mutated(bytes, &edits)).unwrap();
        // Whether it can be read depends on the damage; it must not panic, and an error must be one line.
        if let Err(error) = docs::read(&path, &ReadOptions::default(), &Silent) {
            prop_assert!(!error.to_string().contains('\n'), "{}", error);
        }
    }

    #[test]
    fn any_text_has_a_first_sentence(text in "\\PC{0,200}|[a-z .(`\n>:-]{0,200}") {
        let sentence = docs::first_sentence(&text);
        prop_assert!(!sentence.contains('\n'));
    }
}
