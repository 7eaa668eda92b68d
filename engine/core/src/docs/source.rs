//! The files of a library, wherever they lie: folder, single file, wheel or sdist.

use std::path::{Path, PathBuf};

use super::layout::{self, Choice, Layout, Placed};
use super::packaging::{self, Root};
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

/// The files of a library.
#[derive(Default)]
pub(super) struct Files {
    /// The modules of its interface.
    pub modules: Vec<RawFile>,
    /// Modules that are looked into where the interface leads to them.
    pub reserve: Vec<RawFile>,
    /// Folders and files that those of `reserve` lie in.
    pub passed_over: Vec<String>,
}

impl Files {
    fn placed(layout: Layout, names: &[String], mut content: impl FnMut(usize) -> Option<Content>) -> Self {
        let mut raw = |placed: Vec<Placed>, dependency: bool| -> Vec<RawFile> {
            let files = placed.into_iter().filter_map(|module| {
                Some(RawFile {
                    display: names[module.file].clone(),
                    content: content(module.file)?,
                    module: module.name,
                    is_package: module.is_package,
                    stub: module.stub,
                    dependency,
                })
            });
            files.collect()
        };
        Files {
            modules: raw(layout.modules, false),
            reserve: raw(layout.reserve, true),
            passed_over: layout.passed_over,
        }
    }
}

/// The Python files below a folder with their paths relative to it, sorted; foreign folders are not entered.
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
            || entry.file_name().to_str().is_some_and(|name| !layout::is_foreign_folder(name))
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

/// The modules of a folder: a package (it has an `__init__`) with the stubs installed beside it, or a project or site-packages
/// folder with packages.
///
/// # Errors
/// The folder cannot be read or has no Python module.
pub(super) fn folder(path: &Path, choice: &Choice) -> Result<Files> {
    let path = &path.canonicalize().map_err(|cause| Error::io("open", path, cause))?;
    let (names, paths): (Vec<String>, Vec<PathBuf>) = list(path)?.into_iter().unzip();
    let own = own_folders(&names, &|at| files::read_bounded(&paths[at], MAX_SOURCE_BYTES).ok());
    let mut found = if is_package(path) {
        let name = package_name(path);
        let layout = layout::package(&names, &name, own, choice);
        let mut found = Files::placed(layout, &names, |at| Some(Content::Disk(paths[at].clone())));
        found.modules.extend(stubs_beside(path, &name, choice)?);
        found
    } else {
        let roots: Vec<Root> = packaging::FILES
            .iter()
            .filter_map(|name| {
                Some((name, files::read_bounded(&path.join(name), packaging::MAX_BYTES).ok()?))
            })
            .flat_map(|(name, text)| packaging::roots(name, &String::from_utf8_lossy(&text)))
            .collect();
        let layout = layout::project(&names, &roots, own, choice);
        Files::placed(layout, &names, |at| Some(Content::Disk(paths[at].clone())))
    };
    if found.modules.is_empty() {
        return Err(Error::data(path, "no Python package or module in this folder"));
    }
    found.passed_over.sort();
    Ok(found)
}

/// The stubs of an installed `name-stubs` (PEP 561) beside the package `name`.
fn stubs_beside(package: &Path, name: &str, choice: &Choice) -> Result<Vec<RawFile>> {
    let stubs = package.with_file_name(format!("{name}-stubs"));
    if name.contains('.') || !stubs.is_dir() {
        return Ok(Vec::new());
    }
    let (names, paths): (Vec<String>, Vec<PathBuf>) = list(&stubs)?.into_iter().unzip();
    let layout = layout::package(&names, name, Vec::new(), choice);
    let mut files = Files::placed(layout, &names, |at| Some(Content::Disk(paths[at].clone()))).modules;
    for file in &mut files {
        file.display = format!("{name}-stubs/{}", file.display);
    }
    Ok(files)
}

/// Folders called like copies of other packages whose `__init__` has code: they are packages of the library's own.
fn own_folders<'n>(names: &'n [String], read: &dyn Fn(usize) -> Option<Vec<u8>>) -> Vec<&'n str> {
    let mut found = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(folder) = name.strip_suffix("/__init__.py").or_else(|| name.strip_suffix("/__init__.pyi"))
        else {
            continue;
        };
        if !matches!(folder.rsplit('/').next(), Some("vendor" | "vendored" | "third_party")) {
            continue;
        }
        let bytes = read(at).unwrap_or_default();
        let code = bytes.split(|byte| *byte == b'\n').any(|line| {
            [&b"def "[..], b"class ", b"from .", b"import ", b"__all__"]
                .iter()
                .any(|start| line.starts_with(start))
        });
        if code {
            found.push(folder);
        }
    }
    found
}

/// One `.py` or `.pyi` file.
pub(super) fn single(path: &Path) -> Files {
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
    let mut modules = Vec::new();
    // A stub beside the file says what types it has.
    for path in [path.to_path_buf(), path.with_extension("pyi")] {
        let stub = path.extension().is_some_and(|extension| extension == "pyi");
        if modules.is_empty() || (stub && path.is_file()) {
            modules.push(RawFile {
                module: module.clone(),
                display: display.clone(),
                is_package,
                stub,
                dependency: false,
                content: Content::Disk(path),
            });
        }
    }
    modules.dedup_by(|b, a| a.stub && b.stub);
    Files { modules, ..Files::default() }
}

/// The files of an unpacked archive, as [`folder`] takes them from disk.
///
/// # Errors
/// There is no Python module among them.
pub(super) fn unpacked(archive: &Path, files: Vec<(String, Vec<u8>)>, choice: &Choice) -> Result<Files> {
    let mut roots = Vec::new();
    let (mut names, mut bytes) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
        if packaging::FILES.contains(&file) {
            let found = packaging::roots(file, &String::from_utf8_lossy(&content)).into_iter();
            roots.extend(found.map(|root| match folder {
                "" => root,
                folder => Root { folder: format!("{folder}/{}", root.folder), ..root },
            }));
        }
        names.push(name);
        bytes.push(Some(content));
    }
    let own = own_folders(&names, &|at| bytes[at].clone());
    let layout = layout::project(&names, &roots, own, choice);
    let mut found = Files::placed(layout, &names, |at| bytes[at].take().map(Content::Memory));
    if found.modules.is_empty() {
        return Err(Error::data(archive, "no Python module in this archive"));
    }
    found.passed_over.sort();
    Ok(found)
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
