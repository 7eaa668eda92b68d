//! The files of a library, wherever they lie: folder, single file, wheel or sdist.

use std::path::{Path, PathBuf};

use super::layout;
use crate::python::MAX_SOURCE_BYTES;
use crate::{Error, ErrorKind, Result, files};

/// Where the bytes of a file are.
pub(super) enum Content {
    /// On disk, read when it is parsed.
    Disk(PathBuf),
    /// Unpacked from an archive.
    Memory(Vec<u8>),
}

/// A file of source with the module it defines.
pub(super) struct RawFile {
    pub module: String,
    pub display: String,
    pub is_package: bool,
    pub stub: bool,
    pub dependency: bool,
    pub content: Content,
}

impl RawFile {
    /// The bytes of the file.
    ///
    /// # Errors
    /// Why it cannot be read, for the list of skipped files.
    pub fn take_bytes(&mut self) -> Result<Vec<u8>, String> {
        match std::mem::replace(&mut self.content, Content::Memory(Vec::new())) {
            Content::Memory(bytes) => Ok(bytes),
            Content::Disk(path) => {
                files::read_bounded(&path, MAX_SOURCE_BYTES).map_err(|cause| format!("cannot read: {cause}"))
            }
        }
    }
}

/// The Python files below a folder with their paths relative to it, sorted; skipped folders are not entered.
///
/// # Errors
/// A folder cannot be listed, or holds more files than any library.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    const MAX_FILES: usize = 200_000;
    let mut files = Vec::new();
    let walk = walkdir::WalkDir::new(folder).follow_links(false).max_depth(64).sort_by_file_name();
    let entries = walk.into_iter().filter_entry(|entry| {
        entry.depth() == 0
            || !entry.file_type().is_dir()
            || entry.file_name().to_str().is_some_and(|name| !layout::is_skipped_folder(name))
    });
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(cause) if cause.depth() == 0 => {
                return Err(Error::new(ErrorKind::Io, format!("cannot read {}: {cause}", folder.display())));
            }
            // A folder below that may not be read is no part of the interface.
            Err(_) => continue,
        };
        let is_source =
            entry.path().extension().is_some_and(|extension| extension == "py" || extension == "pyi");
        if !is_source || !entry.path().is_file() {
            continue;
        }
        let Ok(relative) = entry.path().strip_prefix(folder) else { continue };
        let Some(relative) = relative.to_str() else { continue };
        files.push((relative.replace('\\', "/"), entry.path().to_path_buf()));
        if files.len() > MAX_FILES {
            let what = format!("{}: more than {MAX_FILES} Python files", folder.display());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
    }
    Ok(files)
}

/// The modules of a folder: a package (it has an `__init__`), or a project or site-packages folder with packages.
///
/// # Errors
/// The folder cannot be read or has no Python module.
pub(super) fn folder(path: &Path) -> Result<Vec<RawFile>> {
    let path = &path.canonicalize().map_err(|cause| Error::io("open", path, cause))?;
    let listed = list(path)?;
    let (names, paths): (Vec<String>, Vec<PathBuf>) = listed.into_iter().unzip();
    let placed = if is_package(path) {
        let package = package_name(path);
        layout::package(&names, &package)
    } else {
        layout::project(&names)
    };
    let files: Vec<RawFile> = placed
        .into_iter()
        .map(|module| RawFile {
            display: names[module.file].clone(),
            content: Content::Disk(paths[module.file].clone()),
            module: module.name,
            is_package: module.is_package,
            stub: module.stub,
            dependency: false,
        })
        .collect();
    if files.is_empty() {
        return Err(Error::data(path, "no Python package or module in this folder"));
    }
    Ok(files)
}

/// One `.py` or `.pyi` file.
pub(super) fn single(path: &Path) -> Vec<RawFile> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("module");
    let is_package = stem == "__init__";
    let folder = path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_path_buf));
    let prefix = match &folder {
        Some(folder) if self::is_package(folder) => package_name(folder),
        _ => String::new(),
    };
    let module = match (is_package, prefix.is_empty()) {
        (true, false) => prefix,
        (false, false) => format!("{prefix}.{stem}"),
        _ => stem.to_owned(),
    };
    let display =
        path.file_name().map_or_else(|| stem.to_owned(), |name| name.to_string_lossy().into_owned());
    vec![RawFile {
        module,
        display,
        is_package,
        stub: path.extension().is_some_and(|extension| extension == "pyi"),
        dependency: false,
        content: Content::Disk(path.to_path_buf()),
    }]
}

/// The files of an unpacked archive, as [`folder`] takes them from disk.
///
/// # Errors
/// There is no Python module among them.
pub(super) fn unpacked(archive: &Path, files: Vec<(String, Vec<u8>)>) -> Result<Vec<RawFile>> {
    let (names, bytes): (Vec<String>, Vec<Vec<u8>>) = files.into_iter().unzip();
    let mut bytes: Vec<Option<Vec<u8>>> = bytes.into_iter().map(Some).collect();
    let files: Vec<RawFile> = layout::project(&names)
        .into_iter()
        .filter_map(|module| {
            Some(RawFile {
                display: names[module.file].clone(),
                content: Content::Memory(bytes[module.file].take()?),
                module: module.name,
                is_package: module.is_package,
                stub: module.stub,
                dependency: false,
            })
        })
        .collect();
    if files.is_empty() {
        return Err(Error::data(archive, "no Python module in this archive"));
    }
    Ok(files)
}

/// Whether a folder is a package by itself.
pub(super) fn is_package(folder: &Path) -> bool {
    folder.join("__init__.py").is_file() || folder.join("__init__.pyi").is_file()
}

/// Whether a file or folder is a part of a package rather than a whole one.
pub(super) fn is_inside_package(path: &Path) -> bool {
    path.canonicalize().ok().and_then(|path| path.parent().map(is_package)).unwrap_or(false)
}

/// The dotted name of a package folder: the names of the packages it lies in come first.
fn package_name(folder: &Path) -> String {
    let mut parts = Vec::new();
    let mut at = Some(folder);
    while let Some(folder) = at.filter(|folder| is_package(folder) && parts.len() < 64) {
        parts.push(folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()));
        at = folder.parent();
    }
    parts.reverse();
    parts.join(".").trim_end_matches("-stubs").to_owned()
}

/// The folder that holds the outermost package of `path`: where its dependencies may lie too.
pub(super) fn import_root(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut at = if path.is_dir() { path.as_path() } else { path.parent()? };
    while is_package(at) {
        at = at.parent()?;
    }
    Some(at.to_path_buf())
}

/// The files of one module of a dependency: `root/a/b/__init__.py`, `root/a/b.py` and the stubs beside them.
pub(super) fn dependency(root: &Path, module: &str) -> Vec<RawFile> {
    let parts: Vec<&str> = module.split('.').collect();
    if parts.iter().any(|part| !layout::is_identifier(part)) {
        return Vec::new();
    }
    let mut base = root.to_path_buf();
    base.extend(&parts);
    let mut found = Vec::new();
    for (is_package, stem) in [(true, base.join("__init__")), (false, base.clone())] {
        for stub in [false, true] {
            let path = stem.with_extension(if stub { "pyi" } else { "py" });
            if path.is_file() {
                let display = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                found.push(RawFile {
                    module: module.to_owned(),
                    display,
                    is_package,
                    stub,
                    dependency: true,
                    content: Content::Disk(path),
                });
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}
