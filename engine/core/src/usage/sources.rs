//! The files of code below a source, wherever they lie.

use std::path::{Path, PathBuf};

use super::UsageSource;
use crate::docs::{Skipped, archive_entries};
use crate::{Error, ErrorKind, Result, files};

/// A longer file is data, whatever its name says.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// Files of one source.
const MAX_FILES: usize = 200_000;

/// A file of code.
pub(super) struct Found {
    /// Within the source, with `/`.
    pub path: String,
    content: Content,
}

enum Content {
    Disk(PathBuf),
    Memory(Vec<u8>),
}

impl Found {
    /// Its bytes.
    ///
    /// # Errors
    /// Why they cannot be had, for the list of skipped files.
    pub fn take_bytes(&mut self) -> Result<Vec<u8>, String> {
        match std::mem::replace(&mut self.content, Content::Memory(Vec::new())) {
            Content::Memory(bytes) => Ok(bytes),
            Content::Disk(path) => {
                files::read_bounded(&path, MAX_BYTES).map_err(|cause| format!("cannot read: {cause}"))
            }
        }
    }
}

/// The files of a source, and those that were passed over.
pub(super) struct Listed {
    pub files: Vec<Found>,
    pub skipped: Vec<Skipped>,
}

/// What a ledger calls a source.
pub(super) fn title(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

/// Whether a source is usage that was written down as rows.
pub(super) fn is_rows(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

/// Lists the files of a source in the order of their paths.
///
/// # Errors
/// It does not exist, is of no known kind, is a damaged archive, or has more files than any project.
pub(super) fn list(source: &UsageSource) -> Result<Listed> {
    let path = &source.path;
    let meta = std::fs::metadata(path).map_err(|cause| Error::io("open", path, cause))?;
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let wanted =
        |name: &str| is_code(name) && !in_skipped_folder(name) && (!source.own || is_own_usage(name));
    let mut listed = if meta.is_dir() {
        folder(path, &wanted)?
    } else if [".whl", ".zip", ".tar.gz", ".tgz"].iter().any(|ending| name.ends_with(ending)) {
        archive(path, &wanted)?
    } else if is_code(&name) {
        let files = match source.own && !is_own_usage(&name) {
            true => Vec::new(),
            false => vec![Found { path: name_of(path), content: Content::Disk(path.clone()) }],
        };
        Listed { files, skipped: Vec::new() }
    } else if source.own {
        Listed { files: Vec::new(), skipped: Vec::new() }
    } else {
        let what =
            "not a kind of usage that is read (folder, .whl, .zip, .tar.gz, .py, .ipynb, .md, .rst, .jsonl)";
        return Err(Error::data(path, what));
    };
    if listed.files.len() > MAX_FILES {
        let what = format!("{}: more than {MAX_FILES} files of code", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    listed.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(listed)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn is_code(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".py", ".ipynb", ".md", ".rst"].iter().any(|ending| name.ends_with(ending))
}

/// Folders of other people's code, and of none.
fn is_skipped_folder(name: &str) -> bool {
    name.starts_with('.')
        || matches!(
            name,
            "__pycache__" | "node_modules" | "site-packages" | "venv" | "_vendor" | "vendor" | "third_party"
        )
}

fn in_skipped_folder(path: &str) -> bool {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').any(|folder| !matches!(folder, "" | ".") && is_skipped_folder(folder))
}

/// Whether a file of a library's own source is usage of it: tests, examples and documents.
fn is_own_usage(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.split('.').next().unwrap_or(name).to_ascii_lowercase();
    let is_usage_folder = |folder: &str| {
        matches!(
            folder.to_ascii_lowercase().as_str(),
            "test"
                | "tests"
                | "testing"
                | "example"
                | "examples"
                | "doc"
                | "docs"
                | "demo"
                | "demos"
                | "tutorial"
                | "tutorials"
                | "notebooks"
                | "samples"
                | "cookbook"
                | "gallery"
                | "benchmarks"
                | "asv_bench"
        )
    };
    folders.split('/').any(is_usage_folder)
        || stem == "readme"
        || stem == "conftest"
        || stem.starts_with("test_")
        || stem.ends_with("_test")
        || name.to_ascii_lowercase().ends_with(".ipynb")
}

fn folder(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Listed> {
    let mut listed = Listed { files: Vec::new(), skipped: Vec::new() };
    // Links within are not followed: they lead out of the source, or round in circles. The source itself may be one.
    let walk = walkdir::WalkDir::new(path)
        .follow_root_links(true)
        .follow_links(false)
        .max_depth(64)
        .sort_by_file_name();
    let entries = walk.into_iter().filter_entry(|entry| {
        entry.depth() == 0
            || !entry.file_type().is_dir()
            || !entry.file_name().to_str().is_none_or(is_skipped_folder)
    });
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(cause) if cause.depth() == 0 => {
                return Err(Error::new(ErrorKind::Io, format!("cannot read {}: {cause}", path.display())));
            }
            Err(cause) => {
                let at = cause.path().unwrap_or(path).strip_prefix(path).unwrap_or(path);
                let reason = format!("cannot be listed: {cause}");
                listed.skipped.push(Skipped { path: at.display().to_string(), line: None, reason });
                continue;
            }
        };
        if entry.file_type().is_dir() {
            continue;
        }
        let relative = entry.path().strip_prefix(path).unwrap_or(entry.path());
        let name = relative.to_string_lossy().replace('\\', "/");
        if entry.file_type().is_symlink() {
            // A link to a folder may lead to code, or to the folder that it lies in; whoever wants it names it as a source.
            let to_folder = std::fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir());
            if wanted(&name) || (to_folder && wanted(&format!("{name}/code.py"))) {
                let kind = if to_folder { "a folder" } else { "a file" };
                let reason =
                    format!("is a link to {kind}, which is not followed (give its target to --usage too)");
                listed.skipped.push(Skipped { path: name, line: None, reason });
            }
            continue;
        }
        if !wanted(&name) {
            continue;
        }
        listed.files.push(Found { path: name, content: Content::Disk(entry.path().to_path_buf()) });
        if listed.files.len() > MAX_FILES {
            break;
        }
    }
    Ok(listed)
}

fn archive(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Listed> {
    let mut listed = Listed { files: Vec::new(), skipped: Vec::new() };
    archive_entries(path, wanted, &mut |name, bytes| match bytes {
        Ok(bytes) => listed.files.push(Found { path: name.to_owned(), content: Content::Memory(bytes) }),
        Err(reason) => listed.skipped.push(Skipped { path: name.to_owned(), line: None, reason }),
    })?;
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_examples_and_documents_are_a_librarys_own_usage() {
        for path in [
            "loom/tests/test_a.py",
            "tests/a.py",
            "examples/x/y.py",
            "README.md",
            "loom/test_b.py",
            "n.ipynb",
            "docs/a.rst",
        ] {
            assert!(is_own_usage(path), "{path}");
        }
        for path in ["loom/core.py", "setup.py", "CHANGELOG.md", "loom/latest.py"] {
            assert!(!is_own_usage(path), "{path}");
        }
        assert!(
            in_skipped_folder("a/.git/x.py")
                && in_skipped_folder("venv/x.py")
                && !in_skipped_folder("./a/b.py")
        );
    }
}
