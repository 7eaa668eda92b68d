//! The Python files of a wheel, within bounds.

use std::io::{BufReader, Read};
use std::path::Path;

use inhouse_core::{Error, ErrorKind, Result, files};

/// A longer file is data.
const MAX_FILE_BYTES: u64 = 2 << 20;
const MAX_ENTRIES: usize = 400_000;
/// Bytes of all Python files of one wheel.
const MAX_TOTAL_BYTES: u64 = 512 << 20;

/// Folders with other people's code, and with tests, whose comments say little of what is called.
const FOREIGN: &[&str] =
    &["tests", "test", "_vendor", "_vendored", "vendor", "vendored", "third_party", "extern", "externals"];

/// One file of Python source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path in the wheel.
    pub path: String,
    /// The dotted name by which it is imported.
    pub module: String,
    /// Whether it is an `__init__.py`.
    pub is_package: bool,
    /// Its text.
    pub text: String,
}

/// The `.py` files of a wheel in the order of the archive. Files that are not UTF-8, are longer than any source, or lie in a
/// folder of tests or vendored code are passed over, and so are paths that begin with one of `exclude`.
///
/// # Errors
/// It is no readable zip archive, or exceeds the bounds.
pub fn read_wheel(path: &Path, exclude: &[String]) -> Result<Vec<SourceFile>> {
    let bad = |cause: zip::result::ZipError| Error::data(path, format!("not a readable wheel: {cause}"));
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(bad)?;
    let too_much =
        || Error::new(ErrorKind::LimitExceeded, format!("{}: too large to be read", path.display()));
    if archive.len() > MAX_ENTRIES {
        return Err(too_much());
    }
    let mut found = Vec::new();
    let mut total = 0;
    for i in 0..archive.len() {
        let Some(name) = archive.name_for_index(i).map(str::to_owned) else { continue };
        if !name.ends_with(".py") {
            continue;
        }
        let skipped = name.split('/').any(|part| FOREIGN.contains(&part) || part.ends_with(".data"))
            || exclude.iter().any(|prefix| name.starts_with(prefix.as_str()));
        if skipped {
            continue;
        }
        let mut bytes = Vec::new();
        let entry = archive.by_index(i).map_err(bad)?;
        if entry.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).is_err() {
            return Err(Error::data(path, format!("entry {:?} is damaged", name)));
        }
        total += bytes.len() as u64;
        if total > MAX_TOTAL_BYTES {
            return Err(too_much());
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            continue;
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        found.push(source_file(name, text));
    }
    Ok(found)
}

/// The `.py` files of a folder and its folders, in the order of their paths, with the same ones passed over as of a wheel.
///
/// # Errors
/// The folder or a file in it cannot be read, or they exceed the bounds.
pub fn read_folder(folder: &Path) -> Result<Vec<SourceFile>> {
    let mut open = vec![folder.to_path_buf()];
    let mut paths = Vec::new();
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).map_err(|cause| Error::io("read", &at, cause))? {
            let entry = entry.map_err(|cause| Error::io("read", &at, cause))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().map_err(|cause| Error::io("read", &at, cause))?;
            if kind.is_dir() && !FOREIGN.contains(&name.as_str()) && !name.starts_with('.') {
                open.push(entry.path());
            } else if kind.is_file() && name.ends_with(".py") {
                paths.push(entry.path());
            }
        }
        if paths.len() > MAX_ENTRIES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("{}: too many files", folder.display()),
            ));
        }
    }
    paths.sort();
    // What a folder `loom` with an `__init__.py` holds is imported as `loom.x`.
    let is_package = folder.join("__init__.py").exists();
    let base = if is_package { folder.parent().unwrap_or(folder) } else { folder };
    let mut found = Vec::new();
    let mut total = 0;
    for path in paths {
        let bytes = match files::read_bounded(&path, MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            // A longer file is data.
            Err(cause) if cause.kind() == std::io::ErrorKind::FileTooLarge => continue,
            Err(cause) => return Err(Error::io("read", &path, cause)),
        };
        total += bytes.len() as u64;
        if total > MAX_TOTAL_BYTES {
            let what = format!("{}: too large to be read", folder.display());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        let (Ok(text), Ok(inside)) = (String::from_utf8(bytes), path.strip_prefix(base)) else { continue };
        let name =
            inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
        found.push(source_file(name, text));
    }
    Ok(found)
}

fn source_file(path: String, text: String) -> SourceFile {
    let stem = path.strip_suffix(".py").unwrap_or(&path);
    let is_package = stem == "__init__" || stem.ends_with("/__init__");
    let module = stem.strip_suffix("/__init__").unwrap_or(stem).replace('/', ".");
    let text = text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned);
    SourceFile { path, module, is_package, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn files_of_a_wheel() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loom-1.0-py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        let entries: [(&str, &[u8]); 6] = [
            ("loom/__init__.py", b"\xef\xbb\xbfx = 1\n"),
            ("loom/dye/soak.py", b"y = 2\n"),
            ("loom/_vendor/six.py", b"z = 3\n"),
            ("loom/latin.py", b"\xe9"),
            ("loom/left/out.py", b""),
            ("loom/data.txt", b"no"),
        ];
        for (name, bytes) in entries {
            archive.start_file(name, options).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        let files = read_wheel(&path, &["loom/left/".into()]).unwrap();
        let seen: Vec<_> = files.iter().map(|f| (f.module.as_str(), f.is_package, f.text.as_str())).collect();
        assert_eq!(seen, [("loom", true, "x = 1\n"), ("loom.dye.soak", false, "y = 2\n")]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_wheel(&path, &[]).is_err());
    }
}
