//! Small libraries in the ways that people write them (data/docs/variants.txt), each with the calls that it must be documented with.
#![allow(clippy::unwrap_used, clippy::panic)]

mod docs_support;

use docs_support::{names, read};

/// What a case comes to: the first line that is not met.
fn fault(files: &str, expected: &str) -> Option<String> {
    let (at, files) = match files.strip_prefix("@ ") {
        Some(rest) => rest.split_once('\n').map(|(at, rest)| (Some(at.trim()), rest))?,
        None => (None, files),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut first = None;
    // At the start of a line: a file may compare, too.
    for file in format!("\n{files}").split("\n== ").skip(1) {
        let (path, text) = file.split_once('\n').unwrap_or((file, ""));
        let whole = dir.path().join(path);
        std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
        std::fs::write(whole, text).unwrap();
        first.get_or_insert_with(|| path.split('/').next().unwrap().to_owned());
    }
    let found = read(&dir.path().join(at.unwrap_or(first.as_deref().unwrap())));
    let find = |name: &str| {
        let by_alias = || found.apis.iter().find(|api| api.aliases.iter().any(|alias| alias == name));
        found.apis.iter().find(|api| api.qualified_name == name).or_else(by_alias)
    };
    for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('-') {
            if find(name).is_some() {
                return Some(format!("{name} is documented"));
            }
            continue;
        }
        let (name, signature) = line.split_at(line.find('(').unwrap_or(line.len()));
        match find(name) {
            None => return Some(format!("no {name} in {:?}", names(&found))),
            Some(api) if !signature.is_empty() && api.signature != signature => {
                return Some(format!("{name}{}, not {line}", api.signature));
            }
            Some(_) => {}
        }
    }
    None
}

#[test]
fn libraries_as_they_are_written() {
    let text = include_str!("data/docs/variants.txt");
    let mut faults = Vec::new();
    let mut count = 0;
    for case in text.split("\n## ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (files, expected) = rest.split_once("-- expected\n").unwrap();
        count += 1;
        faults.extend(fault(files, expected).map(|fault| format!("{title}: {fault}")));
    }
    assert!(count >= 40, "{count}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
