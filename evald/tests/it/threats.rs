//! The threat model names its tests: each one that it names exists.

use std::collections::BTreeSet;
use std::path::Path;

fn folder(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of the file of a module, of the tests here or of the crate.
fn module(name: &str) -> Option<String> {
    let places = [format!("tests/it/{name}.rs"), format!("src/{name}.rs"), format!("src/wasi/{name}.rs")];
    places.iter().find_map(|place| std::fs::read_to_string(folder(place)).ok())
}

#[test]
fn every_test_that_is_named_exists() {
    let text = std::fs::read_to_string(folder("THREATS.md")).expect("THREATS.md");
    let named = text.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::"));
    let mut count = 0;
    for (file, test) in named {
        count += 1;
        let source = module(file).unwrap_or_default();
        let there = match test {
            "*" => source.contains("#[test]"),
            test => {
                source.contains(&format!("    fn {test}()")) || source.contains(&format!("\nfn {test}()"))
            }
        };
        assert!(there, "no test {file}::{test}");
    }
    assert!(count > 15, "{count} tests are named");
}

/// Every row of a promise names a test, or says that it has none; every attack that a row names is in the suite.
#[test]
fn every_promise_names_its_test() {
    let text = std::fs::read_to_string(folder("THREATS.md")).expect("THREATS.md");
    let suite = module("escapes").expect("the suite");
    let calls = ["attack(", "syscall("].iter().flat_map(|call| suite.split(call).skip(1));
    let attacks: BTreeSet<u32> = calls
        .filter_map(|rest| rest.trim_start().split(',').next().and_then(|number| number.parse().ok()))
        .collect();
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Promise")) {
        let tested = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        assert!(tested.contains("::") || tested.contains("suite") || tested.starts_with("no test"), "{row}");
        let Some((_, numbers)) = tested.split_once("suite ") else { continue };
        let numbers = numbers.split(';').next().unwrap_or_default();
        for range in numbers.split(',').filter(|range| range.trim().starts_with(|c: char| c.is_ascii_digit()))
        {
            let digits =
                |text: &str| text.trim().split(' ').next().and_then(|number| number.parse::<u32>().ok());
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for number in digits(first).expect(row)..=digits(last).expect(row) {
                // Those are no code of a sample's: they are tests of the daemon.
                assert!(attacks.contains(&number) || ELSEWHERE.contains(&number), "attack {number}: {row}");
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named} attacks are named");
}

/// Attacks that are tests of their own (see `daemon.rs`, `sys.rs`).
const ELSEWHERE: &[u32] = &[17, 27, 28, 49];
