//! include/inhouse.h against the crate: the committed header is what cbindgen makes of it, and every function in it
//! states its contract.

use std::path::{Path, PathBuf};

/// The order of the parts in the header.
const SOURCES: [&str; 16] = [
    "version",
    "status",
    "strings",
    "error",
    "log",
    "cancel",
    "progress",
    "encoder",
    "index",
    "apis",
    "engine",
    "event",
    "request",
    "completion",
    "session",
    "evaluate",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn generate() -> String {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config =
        cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    // From the sources, not the crate: cbindgen would run `cargo metadata`, which a test must not.
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
        builder.with_src(crate_dir.join("src").join(source).with_extension("rs"))
    });
    let mut text = Vec::new();
    builder.generate().expect("cbindgen reads the crate").write(&mut text);
    String::from_utf8(text).expect("cbindgen writes UTF-8")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = root().join("include/inhouse.h");
    let generated = generate();
    if std::env::var_os("INHOUSE_WRITE_HEADER").is_some_and(|value| value == "1") {
        std::fs::write(&path, &generated).expect("include/inhouse.h can be written");
        println!("wrote {}", path.display());
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed == generated {
        return;
    }
    let differs = committed.lines().zip(generated.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or(committed.lines().count().min(generated.lines().count()));
    panic!(
        "include/inhouse.h is not what ffi/src makes, from line {}:\n  committed: {}\n  generated: {}\n\
         run `make header` (INHOUSE_WRITE_HEADER=1 cargo test -p inhouse-ffi --test header) and commit the result",
        line + 1,
        committed.lines().nth(line).unwrap_or("(end of file)"),
        generated.lines().nth(line).unwrap_or("(end of file)"),
    );
}

/// The doc comment and the prototype of every function in the header.
fn functions(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = header.lines();
    let mut doc = String::new();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("/**") {
            doc.clear();
            for line in lines.by_ref() {
                if line.trim() == "*/" {
                    break;
                }
                doc.push_str(line.trim_start().trim_start_matches('*'));
                doc.push('\n');
            }
            continue;
        }
        let is_function = !line.starts_with([' ', '#', '}', '*', '/'])
            && line.contains('(')
            && !line.starts_with("typedef");
        if is_function {
            let mut prototype = line.to_owned();
            while !prototype.ends_with(';') {
                let Some(line) = lines.next() else { break };
                prototype.push_str(line);
            }
            found.push((std::mem::take(&mut doc), prototype));
        } else if !line.trim().is_empty() {
            doc.clear();
        }
    }
    found
}

fn name(prototype: &str) -> &str {
    let head = prototype.split('(').next().unwrap_or_default();
    head.rsplit([' ', '*']).next().unwrap_or_default()
}

#[test]
fn every_function_states_its_contract() {
    let header = generate();
    let functions = functions(&header);
    for (doc, prototype) in &functions {
        for part in ["Ownership:", "Threads:", "Errors:", "Null:"] {
            assert!(doc.contains(part), "{}: its documentation lacks `{part}`", name(prototype));
        }
    }
    // Every exported function of the sources is in the header, by the count and by its name.
    let mut exported = Vec::new();
    for source in
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("ffi/src is there")
    {
        let text = std::fs::read_to_string(source.expect("a source").path()).expect("a source can be read");
        for after in text.split("#[unsafe(no_mangle)]").skip(1) {
            let head = after.split('(').next().unwrap_or_default();
            exported.push(head.rsplit(' ').next().unwrap_or_default().to_owned());
        }
    }
    let mut in_header: Vec<_> = functions.iter().map(|(_, prototype)| name(prototype).to_owned()).collect();
    exported.sort();
    in_header.sort();
    assert_eq!(in_header, exported);
    assert!(in_header.iter().all(|name| name.starts_with("inhouse_")));
}

#[test]
fn every_type_field_and_value_is_documented() {
    let header = generate();
    let lines: Vec<&str> = header.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let is_item = line.starts_with("#define INHOUSE_") && *line != "#define INHOUSE_H"
            || line.starts_with("    INHOUSE_")
            || line.starts_with("    ") && line.ends_with(';') && !line.contains(['(', ')'])
            || line.starts_with("typedef struct inhouse_")
            || line.starts_with("enum inhouse_");
        if is_item {
            assert!(at > 0 && lines[at - 1].trim() == "*/", "line {}: `{line}` has no documentation", at + 1);
        }
    }
}
