//! The ABI against its record, `ffi/abi/libinhouse.so.0`: every function, struct, field and number that a host may have
//! been compiled with must still be what it was. Additions are recorded; anything else needs a new SONAME.
//!
//! `make abi` (INHOUSE_WRITE_ABI=1 cargo test -p inhouse-ffi --test abi) records additions, and refuses to record a
//! change. The symbols of the built library are held against the header in tests/all/ffi/symbols.rs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the record says of each item, by the item.
type Record = BTreeMap<String, String>;

const HEAD: &str = "\
# The ABI of libinhouse.so.0 on x86-64 Linux. `make abi` adds to it; a line is never changed or removed by hand:
# hosts were compiled with it. See ffi/tests/abi.rs.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn record_path() -> PathBuf {
    root().join("ffi/abi/libinhouse.so.0")
}

/// The header without comments, and without what the preprocessor would leave out for C++ and C23.
fn declarations(header: &str) -> String {
    let mut text = String::new();
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        text.push_str(&rest[..start]);
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    text.push_str(rest);
    text
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A declarator's type and name: `const struct inhouse_str *api_names`.
fn split_name(declarator: &str) -> (String, String) {
    let declarator = declarator.trim();
    let at = declarator.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    (words(&declarator[..at]), declarator[at..].to_owned())
}

/// Functions by name, with the types that they take and give; the names of parameters are not part of the ABI.
fn functions(text: &str, into: &mut Record) {
    for statement in text.split(';') {
        let statement = statement.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
        let statement = words(statement.rsplit(['{', '}']).next().unwrap_or_default());
        let Some((head, parameters)) = statement.split_once('(') else { continue };
        let Some(parameters) = parameters.strip_suffix(')') else { continue };
        if let Some(callback) = head.strip_prefix("typedef ") {
            let (name, parameters) = parameters.split_once(")(").unwrap();
            let types = types(parameters);
            into.insert(
                format!("callback {}", name.trim_start_matches('*')),
                format!("{} ({types})", callback.trim_end_matches([' ', '('])),
            );
        } else {
            let (result, name) = split_name(head);
            into.insert(format!("function {name}"), format!("{result} ({})", types(parameters)));
        }
    }
}

fn types(parameters: &str) -> String {
    if parameters == "void" {
        return parameters.to_owned();
    }
    parameters.split(',').map(|parameter| split_name(parameter).0).collect::<Vec<_>>().join(", ")
}

/// The name and the body of each declaration that begins a line with `keyword` and has a body.
fn bodies<'a>(text: &'a str, keyword: &str) -> Vec<(String, &'a str)> {
    let begin = format!("\n{keyword} ");
    let with_body = |declaration: &'a str| {
        let name = declaration.split_whitespace().next()?.to_owned();
        let (open, semicolon) = (declaration.find('{')?, declaration.find(';')?);
        let is_opaque = keyword.starts_with("typedef") && semicolon < open;
        let close = declaration.find('}')?;
        (!is_opaque).then(|| (name, &declaration[open + 1..close]))
    };
    text.split(begin.as_str()).skip(1).filter_map(with_body).collect()
}

/// The ABI as this header and this compiler make it; `None`, with the reason printed, where there is no compiler.
fn current() -> Option<Record> {
    let header = std::fs::read_to_string(root().join("include/inhouse.h")).unwrap();
    let text = declarations(&header);
    let mut record = Record::new();
    functions(&text, &mut record);
    // Sizes, offsets and values are the compiler's word.
    let mut program = String::from("#include <inhouse.h>\n#include <stdio.h>\nint main(void) {\n");
    for (name, fields) in bodies(&text, "typedef struct") {
        writeln!(
            program,
            "struct align_{name} {{ char first; {name} then; }};\n\
             printf(\"struct {name}\\tsize %zu align %zu\\n\", sizeof({name}), offsetof(struct align_{name}, then));"
        )
        .unwrap();
        for field in fields.split(';').filter(|field| !field.trim().is_empty()) {
            let (kind, field) = split_name(field);
            writeln!(
                program,
                "printf(\"field {name}.{field}\\toffset %zu size %zu {kind}\\n\", offsetof({name}, {field}), \
                 sizeof((({name} *)0)->{field}));"
            )
            .unwrap();
        }
    }
    for (name, values) in bodies(&text, "enum") {
        writeln!(program, "printf(\"enum {name}\\tsize %zu\\n\", sizeof({name}));").unwrap();
        for value in values.split(',').filter(|value| !value.trim().is_empty()) {
            let value = value.split('=').next().unwrap().trim();
            writeln!(program, "printf(\"value {value}\\t%ld\\n\", (long){value});").unwrap();
        }
    }
    for name in
        text.lines().filter_map(|line| line.strip_prefix("#define ")).filter_map(|rest| rest.split_once(' '))
    {
        writeln!(program, "printf(\"constant {0}\\t%ld\\n\", (long)({0}));", name.0).unwrap();
    }
    program.push_str("return 0;\n}\n");

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("layout.c");
    std::fs::write(&source, &program).unwrap();
    let binary = dir.path().join("layout");
    let mut compile = Command::new("cc");
    compile.args(["-std=c11", "-I"]).arg(root().join("include")).arg(&source).arg("-o").arg(&binary);
    let output = match compile.output() {
        Ok(output) => output,
        Err(cause) => {
            println!("skipped: the C compiler cannot be started: {cause}");
            return None;
        }
    };
    assert!(output.status.success(), "{}\n{program}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(&binary).output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (item, what) = line.split_once('\t').unwrap();
        record.insert(item.to_owned(), what.to_owned());
    }
    Some(record)
}

fn parse(text: &str) -> Record {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once('\t').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn write(record: &Record) -> String {
    record.iter().fold(HEAD.to_owned(), |text, (item, what)| text + item + "\t" + what + "\n")
}

/// The number after `key` in what a record says.
fn number(what: &str, key: &str) -> Option<u64> {
    what.split_whitespace().skip_while(|&word| word != key).nth(1)?.parse().ok()
}

/// What a host compiled with `old` would stumble over in `new`, in words.
fn breaks(old: &Record, new: &Record) -> Vec<String> {
    let mut found = Vec::new();
    for (item, was) in old {
        let Some(is) = new.get(item) else {
            if item.ends_with(".reserved") {
                continue; // Its place may be taken: every host has left it zero.
            }
            found.push(format!("{item} is gone (it was: {was})"));
            continue;
        };
        let may_differ = match item.split_once(' ') {
            // Parameter structs and events say how long they are, so fields may be appended.
            Some(("struct", name)) => {
                old.contains_key(&format!("field {name}.struct_size"))
                    && number(is, "size") >= number(was, "size")
                    && number(is, "align") == number(was, "align")
            }
            // The version and the limits may grow.
            Some(("constant", _)) => is.parse::<i64>().ok() >= was.parse::<i64>().ok(),
            _ => false,
        };
        if is != was && !may_differ {
            found.push(format!("{item} was: {was}; is: {is}"));
        }
    }
    // A new field must lie where hosts that do not know it have nothing: behind the end that they were compiled with.
    for (item, what) in new.iter().filter(|(item, _)| !old.contains_key(*item)) {
        let Some((name, _)) = item.strip_prefix("field ").and_then(|field| field.split_once('.')) else {
            continue;
        };
        let offset = number(what, "offset");
        let end = old.get(&format!("struct {name}")).and_then(|what| number(what, "size"));
        let reserved = old.get(&format!("field {name}.reserved")).and_then(|what| number(what, "offset"));
        if end.is_some_and(|end| offset.is_none_or(|offset| offset < end))
            && (reserved.is_none() || reserved != offset)
        {
            found.push(format!("{item} is new, but not at the end of the struct: {what}"));
        }
    }
    found
}

#[test]
fn the_abi_is_the_recorded_one() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("skipped: the record is of x86-64 Linux");
        return;
    }
    let Some(new) = current() else { return };
    let old = parse(&std::fs::read_to_string(record_path()).unwrap_or_default());
    let broken = breaks(&old, &new);
    assert!(
        broken.is_empty(),
        "hosts compiled with an earlier header would break:\n  {}\n\
         undo it (add a function or a field at the end instead), or give the library a new SONAME \
         (ffi/build.rs, a new record in ffi/abi)",
        broken.join("\n  ")
    );
    if std::env::var_os("INHOUSE_WRITE_ABI").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(record_path().parent().unwrap()).unwrap();
        std::fs::write(record_path(), write(&new)).unwrap();
        println!("wrote {}", record_path().display());
        return;
    }
    let added: Vec<_> = new.iter().filter(|&(item, what)| old.get(item) != Some(what)).collect();
    assert!(
        added.is_empty(),
        "not in the record of the ABI: {added:#?}\nrun `make abi` and commit ffi/abi; hosts may rely on it from then on"
    );
}

#[test]
fn the_record_knows_every_function_of_the_sources() {
    let Some(new) = current() else { return };
    let recorded: BTreeSet<_> = new.keys().filter_map(|item| item.strip_prefix("function ")).collect();
    let mut exported = Vec::new();
    for source in std::fs::read_dir(root().join("ffi/src")).unwrap() {
        let text = std::fs::read_to_string(source.unwrap().path()).unwrap();
        for after in text.split("#[unsafe(no_mangle)]").skip(1) {
            exported.push(after.split('(').next().unwrap().rsplit(' ').next().unwrap().to_owned());
        }
    }
    assert_eq!(recorded, exported.iter().map(String::as_str).collect());
    for kind in
        ["struct inhouse_str", "field inhouse_event.text", "enum inhouse_status", "callback inhouse_on_event"]
    {
        assert!(new.contains_key(kind), "{kind} was not found in the header");
    }
    assert_eq!(new.get("value INHOUSE_STATUS_POISONED").map(String::as_str), Some("102"));
}

#[test]
fn changes_are_told_from_additions() {
    let record = |lines: &[&str]| parse(&lines.join("\n"));
    let old = record(&[
        "function inhouse_f\tint32_t (void)",
        "struct inhouse_p\tsize 16 align 8",
        "field inhouse_p.struct_size\toffset 0 size 8 size_t",
        "field inhouse_p.a\toffset 8 size 8 uint64_t",
        "struct inhouse_str\tsize 16 align 8",
        "value INHOUSE_A\t1",
        "constant INHOUSE_MAX\t10",
    ]);
    let change = |from: &str, to: &str| breaks(&old, &parse(&write(&old).replace(from, to)));
    assert!(breaks(&old, &old).is_empty());
    // Additions.
    let text = write(&old).replace("inhouse_p\tsize 16", "inhouse_p\tsize 24")
        + "function inhouse_g\tint32_t (size_t)\nfield inhouse_p.b\toffset 16 size 8 uint64_t\nvalue INHOUSE_B\t2\n";
    assert!(breaks(&old, &parse(&text)).is_empty());
    assert!(change("INHOUSE_MAX\t10", "INHOUSE_MAX\t11").is_empty());
    // Changes.
    for (from, to) in [
        ("function inhouse_f\tint32_t (void)\n", ""),
        ("int32_t (void)", "int64_t (void)"),
        ("inhouse_p\tsize 16", "inhouse_p\tsize 8"),
        ("inhouse_str\tsize 16", "inhouse_str\tsize 24"),
        ("a\toffset 8", "a\toffset 16"),
        ("size 8 uint64_t", "size 8 double"),
        ("INHOUSE_A\t1", "INHOUSE_A\t2"),
        ("INHOUSE_MAX\t10", "INHOUSE_MAX\t9"),
    ] {
        assert_eq!(change(from, to).len(), 1, "{from} -> {to}");
    }
    let reserved = parse(&(write(&old) + "field inhouse_p.reserved\toffset 12 size 4 uint32_t\n"));
    let used = parse(&(write(&old) + "field inhouse_p.b\toffset 12 size 4 uint32_t\n"));
    assert!(breaks(&reserved, &used).is_empty());
    let squeezed = write(&old) + "field inhouse_p.b\toffset 12 size 4 uint32_t\n";
    assert_eq!(breaks(&old, &parse(&squeezed)).len(), 1);
}
