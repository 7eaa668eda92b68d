//! Documentation of a library that is asked at run time: `import:NAME`.
//!
//! Source text does not show what C extensions offer, nor names that are made while a library is imported. So the library is
//! imported inside evald, like any sample, by a script that walks its modules, classes and members and writes what
//! `inspect` and the docstrings say. Nothing of that is trusted: it is bounded, parsed as data and validated record by record.

mod verify;

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use evald_proto::{Job, JobResult, Limits, SpawnOptions, Verdict, is_identifier};
use flate2::read::ZlibDecoder;
use inhouse_core::api::{ApiDoc, ApiKind, SourceLocation};
use inhouse_core::decode::CancelToken;
use inhouse_core::docs::{self, Documentation, Skipped};
use inhouse_core::{Error, ErrorKind, Progress, Result};
use serde::Deserialize;

pub use self::verify::{Differing, Verified, verify};
use crate::evaluate::{environment, folders, run_one};

const SCRIPT: &str = include_str!("introspect/introspect.py");
/// No library has more APIs; numpy has 8,000, pandas 10,000.
const MAX_RECORDS: usize = 200_000;
/// Further names of inherited members, and answers.
const MAX_LINES: usize = 4_000_000;
/// A longer docstring is cut.
const MAX_DOC_CHARS: usize = 20_000;
/// All records together, in JSON.
const MAX_BYTES: u64 = 128 << 20;
/// The same, compressed and in base64: what the job writes.
const MAX_OUTPUT_BYTES: u64 = 12 << 20;
const MEMORY_BYTES: u64 = 4 << 30;
const MAX_SIGNATURE_CHARS: usize = 2_000;

/// How a library is imported.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The interpreter that can import it: a path, or a name on the PATH.
    pub python: PathBuf,
    /// Further folders in which packages are looked for.
    pub paths: Vec<PathBuf>,
    /// CPU seconds for import and walk; the wall-clock limit is evald's multiple of it.
    pub timeout_seconds: f64,
}

/// Imports a library in a private evald and reads its documentation. `library` is an import name, sub-packages included
/// (`numpy.linalg`).
///
/// # Errors
/// It is no import name, evald or the interpreter cannot be started, the import raises, ends the process, or goes beyond the
/// time, memory or output limit, a cancel, or what comes back is not what the script writes.
pub fn read(
    library: &str,
    options: &ImportOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Documentation> {
    ask(library, &[], options, cancel, progress).map(|said| said.documentation)
}

/// What an imported library says of itself, and of the names that it was asked for.
#[derive(Debug, Default)]
struct Said {
    documentation: Documentation,
    /// Records of names that code can reach although they are not public.
    asked: HashMap<String, ApiDoc>,
    /// Names that are there, of which nothing more is said.
    there: BTreeSet<String>,
    /// Names that are not there.
    missing: BTreeSet<String>,
}

/// Imports a library as [`read`] does and asks for `names` too: dotted names, each of which starts with the library's.
fn ask(
    library: &str,
    names: &[&str],
    options: &ImportOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Said> {
    if !library.split('.').all(is_identifier) {
        let message = format!("import:{library}: `{library}` is no import name");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    progress.start(&format!("importing {library}"), None);
    let spawn = SpawnOptions {
        envs: vec![environment(&options.python, Vec::new())],
        paths: folders(&options.paths),
        ..SpawnOptions::default()
    };
    let (_, result) = run_one(job(library, names, options), &spawn, None, cancel)?;
    progress.finish();
    let output = output(library, options, &result)?;
    decode(library, output).map_err(|what| {
        Error::new(
            ErrorKind::InvalidData,
            format!("import:{library}: what the library says of itself is damaged: {what}"),
        )
    })
}

fn job(library: &str, names: &[&str], options: &ImportOptions) -> Job {
    // What is no path of identifiers would be more than a name in the script.
    let names: Vec<&str> = names.iter().copied().filter(|name| name.split('.').all(is_identifier)).collect();
    let asked = names.join(" ");
    let call = format!("_introspect('{library}', {MAX_RECORDS}, {MAX_DOC_CHARS}, {MAX_BYTES}, '{asked}')");
    Job {
        code: format!("{SCRIPT}\n{call}\n"),
        limits: Limits {
            cpu_ms: Some((options.timeout_seconds * 1000.0).ceil() as u64),
            memory_bytes: Some(MEMORY_BYTES),
            output_bytes: Some(MAX_OUTPUT_BYTES),
            ..Limits::default()
        },
        keep_output: true,
        ..Job::default()
    }
}

/// What the job wrote, or why it wrote nothing of use.
fn output<'a>(library: &str, options: &ImportOptions, result: &'a JobResult) -> Result<&'a str> {
    let failed = |kind, what: String| Err(Error::new(kind, format!("import:{library}: {what}")));
    // The line is one of the script's.
    let detail = result.detail.rsplit_once(" (line ").map_or(result.detail.as_str(), |(text, _)| text);
    let python = options.python.display();
    match result.verdict {
        Verdict::Passed => Ok(&result.output),
        Verdict::Failed if detail.starts_with("ModuleNotFoundError: ") => failed(
            ErrorKind::NotFound,
            format!("{python} cannot import it: {detail} (--env names the interpreter)"),
        ),
        Verdict::Failed => failed(ErrorKind::InvalidData, format!("the import failed: {detail}")),
        Verdict::TimeoutCpu | Verdict::TimeoutWall => {
            let limit = options.timeout_seconds;
            failed(
                ErrorKind::DeadlineExceeded,
                format!("it takes longer than {limit} s of CPU time or three times that"),
            )
        }
        Verdict::OutputLimit => failed(
            ErrorKind::LimitExceeded,
            "it has more documentation than is taken; name a sub-package".into(),
        ),
        Verdict::Oom => failed(ErrorKind::LimitExceeded, "the import takes more than 4 GiB of memory".into()),
        Verdict::InfraError => failed(ErrorKind::Sandbox, format!("the sandbox failed: {detail}")),
        other => failed(ErrorKind::InvalidData, format!("the import ended as {}: {detail}", other.as_str())),
    }
}

/// One line of the script's.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    End { end: bool, full: bool, modules: usize },
    Skipped { skipped: String, reason: String },
    Also { also: String, of: String },
    Missing { missing: String },
    There { there: String },
    Record(Record),
}

#[derive(Deserialize)]
struct Record {
    name: String,
    qualified_name: String,
    kind: ApiKind,
    #[serde(default)]
    signature: String,
    #[serde(default)]
    doc: String,
    #[serde(default)]
    module: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    file: String,
    #[serde(default)]
    line: u32,
    /// Not found by walking: it was asked for.
    #[serde(default)]
    asked: bool,
}

fn decode(library: &str, output: &str) -> Result<Said, String> {
    let packed = base64(output.trim())?;
    let mut text = Vec::new();
    let most = MAX_BYTES + (8 << 20);
    ZlibDecoder::new(packed.as_slice())
        .take(most + 1)
        .read_to_end(&mut text)
        .map_err(|cause| format!("not compressed data ({cause})"))?;
    if text.len() as u64 > most {
        return Err(format!("more than {most} bytes"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| "not UTF-8")?;
    let root = library.split('.').next().unwrap_or(library);
    let mut said = Said::default();
    let documentation = &mut said.documentation;
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut ended = false;
    for (i, line) in text.lines().enumerate() {
        if ended || i > MAX_LINES {
            return Err(format!("more lines than the script writes (line {})", i + 1));
        }
        match serde_json::from_str(line).map_err(|error| format!("line {}: {error}", i + 1))? {
            Line::End { end, full, modules } => {
                ended = end;
                documentation.files_read = modules;
                if full {
                    let reason =
                        format!("more than {MAX_RECORDS} APIs or {MAX_BYTES} bytes: the rest is left out");
                    documentation.skipped.push(Skipped { path: library.to_owned(), line: None, reason });
                }
            }
            Line::Skipped { skipped, reason } => {
                documentation.skipped.push(Skipped {
                    path: printable(&skipped),
                    line: None,
                    reason: printable(&reason),
                });
            }
            Line::Also { also, of } => {
                if let Some(&at) = by_name.get(&of)
                    && is_path(&also, root)
                {
                    documentation.apis[at].aliases.push(also);
                }
            }
            Line::Missing { missing } => {
                said.missing.insert(missing);
            }
            Line::There { there } => {
                said.there.insert(there);
            }
            Line::Record(record) => {
                let asked = record.asked;
                match api(record, root) {
                    Ok(api) if asked => {
                        said.asked.insert(api.qualified_name.clone(), api);
                    }
                    Ok(api) => {
                        by_name.insert(api.qualified_name.clone(), documentation.apis.len());
                        documentation.apis.push(api);
                    }
                    Err(reason) => {
                        let path = format!("{library}, record {}", i + 1);
                        documentation.skipped.push(Skipped { path, line: None, reason });
                    }
                }
            }
        }
    }
    if !ended {
        return Err("cut off".into());
    }
    if documentation.apis.is_empty() {
        return Err("no API".into());
    }
    if library == root && documentation.skipped.is_empty() {
        documentation.whole_libraries.insert(root.to_owned());
    }
    Ok(said)
}

/// Whether a dotted name is one of the library's.
fn is_path(path: &str, root: &str) -> bool {
    path.split('.').next() == Some(root) && path.split('.').all(is_identifier)
}

/// A record, where it is one of the library's.
fn api(record: Record, root: &str) -> Result<ApiDoc, String> {
    if !is_identifier(&record.name) || !is_path(&record.qualified_name, root) {
        return Err(format!("`{}` is no name of an API", printable(&record.qualified_name)));
    }
    if record.qualified_name.rsplit('.').next() != Some(record.name.as_str()) {
        return Err(format!("`{}` does not end with its name", record.qualified_name));
    }
    let mut api = ApiDoc {
        signature: printable(&record.signature).chars().take(MAX_SIGNATURE_CHARS).collect(),
        kind: Some(record.kind),
        module: if is_path(&record.module, root) { record.module } else { String::new() },
        aliases: record.aliases.into_iter().filter(|alias| is_path(alias, root)).take(16).collect(),
        source: location(&record.file, record.line),
        name: record.name,
        qualified_name: record.qualified_name,
        ..ApiDoc::default()
    };
    let plain = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    docs::describe(&mut api, &record.doc.chars().filter(plain).take(MAX_DOC_CHARS).collect::<String>());
    Ok(api)
}

fn location(file: &str, line: u32) -> Option<SourceLocation> {
    let parts = Path::new(file).components();
    let inside = parts.clone().count() > 0
        && parts.clone().all(|part| matches!(part, std::path::Component::Normal(_)));
    let told = inside && line > 0 && file.len() < 4096 && !file.chars().any(char::is_control);
    told.then(|| SourceLocation { path: file.to_owned(), line })
}

/// A text on one line, without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(4_000).collect()
}

/// The standard alphabet with padding, as Python writes it.
fn base64(text: &str) -> Result<Vec<u8>, String> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Ok(u32::from(byte - b'A')),
        b'a'..=b'z' => Ok(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(byte - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => Err(format!("byte {byte} is not base64")),
    };
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return Err("not base64 (cut off?)".into());
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0;
        for digit in group {
            bits = bits << 6 | value(*digit)?;
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::ZlibEncoder;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let mut bits = [0u8; 4];
            bits[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(bits);
            for i in 0..4 {
                let digit = alphabet[(bits >> (18 - 6 * i)) as usize & 63] as char;
                text.push(if i <= group.len() { digit } else { '=' });
            }
        }
        text
    }

    fn said(lines: &str) -> Result<Documentation, String> {
        let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(lines.as_bytes()).unwrap();
        decode("lib", &encoded(&packed.finish().unwrap())).map(|said| said.documentation)
    }

    const END: &str = r#"{"end": true, "full": false, "modules": 2}"#;

    #[test]
    fn records_become_documentation() {
        let record = r#"{"name":"f","qualified_name":"lib.f","kind":"function","signature":"(a)","module":"lib",
            "doc":"Adds, e.g. one. And more.\n\n>>> f(1)\n2","aliases":["lib.core.f","other.f"],"file":"lib/a.py","line":3}"#;
        let inherited = r#"{"also":"lib.Sub.f","of":"lib.f"}"#;
        let got = said(&format!("{}\n{inherited}\n{END}\n", record.replace('\n', ""))).unwrap();
        let api = &got.apis[0];
        assert_eq!(api.description, "Adds, e.g. one.");
        assert_eq!(api.aliases, ["lib.core.f", "lib.Sub.f"]);
        assert_eq!(api.examples, [">>> f(1)\n2"]);
        assert_eq!(api.source, Some(SourceLocation { path: "lib/a.py".into(), line: 3 }));
        assert!(got.whole_libraries.contains("lib") && got.files_read == 2);
    }

    #[test]
    fn what_is_not_the_library_s_is_passed_over() {
        for record in [
            r#"{"name":"f","qualified_name":"os.f","kind":"function"}"#,
            r#"{"name":"f","qualified_name":"lib.g","kind":"function"}"#,
            r#"{"name":"f g","qualified_name":"lib.f g","kind":"function"}"#,
            r#"{"name":"","qualified_name":"","kind":"function"}"#,
        ] {
            let good = r#"{"name":"f","qualified_name":"lib.f","kind":"function","file":"../../etc/passwd","line":1}"#;
            let got = said(&format!("{record}\n{good}\n{END}\n")).unwrap();
            assert_eq!((got.apis.len(), got.skipped.len()), (1, 1), "{record}");
            assert_eq!(got.apis[0].source, None);
            assert!(got.whole_libraries.is_empty());
        }
    }

    #[test]
    fn damage_is_an_error() {
        let good = r#"{"name":"f","qualified_name":"lib.f","kind":"function"}"#;
        for (lines, what) in [
            (good.to_owned(), "cut off"),
            (END.to_owned(), "no API"),
            (format!("{END}\n{good}"), "more lines"),
            (format!("[1]\n{END}"), "line 1"),
            (format!("{{\"name\":\"f\",\"qualified_name\":\"lib.f\",\"kind\":\"spell\"}}\n{END}"), "line 1"),
        ] {
            let error = said(&lines).unwrap_err();
            assert!(error.contains(what), "{lines}: {error}");
        }
        for output in ["", "????", "QUJD", "QUJ", "QUJDRA=", "A==="] {
            assert!(decode("lib", output).is_err(), "{output}");
        }
        assert_eq!(base64("QUJDRA==").unwrap(), b"ABCD");
        assert_eq!(base64(&encoded(b"any carnal pleas")).unwrap(), b"any carnal pleas");
    }
}
