//! API documentation of Python libraries, read statically: nothing of a library is ever imported or run.
//!
//! [`read`] takes a package folder, a project or site-packages folder, a `.py` or `.pyi` file, a wheel, an sdist, a
//! Sphinx `objects.inv` with the HTML beside it, or `apis.jsonl`, and gives one [`ApiDoc`] per public API under the
//! name by which users import it.
//!
//! Reading order: `source`, `layout`, `archive` (which files are modules) -> `parse` (text to tree) ->
//! `scope`, `program` (names and what they mean) -> `eval`, `calls`, `library`, `members` (docstrings and members that
//! are made rather than written) -> `exports`, `signature`, `construct`, `registered`, `undocumented`, `records` (what is public, and
//! the record of each) ; `docstring` and `text` work on strings, `inventory` and `html` read Sphinx's output.

mod archive;
mod calls;
mod condition;
mod construct;
mod decorated;
mod docstring;
mod encoding;
mod eval;
mod exports;
mod fields;
mod html;
mod inventory;
mod layout;
mod lazy;
mod library;
mod listed;
mod losses;
mod mappings;
mod members;
mod packaging;
mod parse;
mod program;
mod python;
mod records;
mod registered;
mod scope;
mod signature;
mod source;
mod statements;
mod text;
mod undocumented;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use docstring::{Example, examples, first_sentence, typed_code};
pub use losses::{Loss, Lost};

use crate::api::{self, ApiDoc};
use crate::{Error, Progress, Result};

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Documentation {
    /// The APIs: modules in order of their names, each followed by its own, each class by its members.
    pub apis: Vec<ApiDoc>,
    /// Files that were passed over.
    pub skipped: Vec<Skipped>,
    /// What else could not be seen.
    pub losses: Vec<Lost>,
    /// Files looked at, skipped ones included.
    pub files_read: usize,
    /// Libraries that were read as a whole: what is not among `apis` is not in them. A module or sub-package alone is
    /// a part of its library, and rows of an apis.jsonl may be.
    pub whole_libraries: BTreeSet<String>,
}

impl Documentation {
    /// Adds what another source says. Of records with the same qualified name the first stays.
    pub fn append(&mut self, mut other: Self) {
        let mut seen: rustc_hash::FxHashSet<String> =
            self.apis.iter().map(|api| api.qualified_name.clone()).collect();
        other.apis.retain(|api| api.qualified_name.is_empty() || seen.insert(api.qualified_name.clone()));
        self.apis.append(&mut other.apis);
        self.skipped.append(&mut other.skipped);
        self.losses.append(&mut other.losses);
        self.files_read += other.files_read;
        self.whole_libraries.append(&mut other.whole_libraries);
    }
}

/// A file that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Path inside the source, with `/`.
    pub path: String,
    /// 1-based line of the fault, where there is one.
    pub line: Option<u32>,
    /// What is wrong with it, in lower case.
    pub reason: String,
}

/// How documentation is read.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Lists modules and names that begin with an underscore too.
    pub include_private: bool,
    /// Patterns of paths inside the source (`*`, `**`, `?`; a pattern without `/` matches at any depth) whose files are read
    /// though they are passed over otherwise.
    pub include: Vec<String>,
    /// Patterns of paths whose files are not read.
    pub exclude: Vec<String>,
    /// The version of Python that the library is read for, as branches on `sys.version_info` go; `None`: the newest.
    pub python: Option<(u8, u8)>,
    /// Folders with installed packages (`site-packages`) in which names that the library re-exports from its
    /// dependencies are looked up; without them such names are listed bare. The folder that an installed package lies
    /// in is searched in any case.
    pub search_paths: Vec<PathBuf>,
    /// Leaves out the names that follow from the base classes of a large hierarchy, as rows of a file do; [`api::expand`] puts
    /// them back.
    pub short: bool,
    /// Threads that parse; `None`: one per core.
    pub threads: Option<usize>,
}

/// Reads the documentation of one source.
///
/// # Errors
/// The source does not exist or cannot be read, is of no known kind, is a damaged or hostile archive (truncated, with
/// entries that point out of it, or beyond the limits of size), or holds no Python module; whoever watches ends the work
/// ([`Progress::check`]). A file inside that does not parse is no error: it is listed in [`Documentation::skipped`].
pub fn read(source: &Path, options: &ReadOptions, progress: &dyn Progress) -> Result<Documentation> {
    progress.check()?;
    let installed_for;
    let mut options = options;
    if options.python.is_none() {
        installed_for = ReadOptions { python: version_of(source), ..options.clone() };
        options = &installed_for;
    }
    let mut documentation = read_part(source, options, progress)?;
    if !options.short {
        api::expand(&mut documentation.apis);
    }
    let name = source.to_string_lossy().to_lowercase();
    let rows = name == "-" || name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
    if !rows && !source::is_inside_package(source) {
        documentation.whole_libraries =
            documentation.apis.iter().map(|api| api.library().to_owned()).collect();
    }
    Ok(documentation)
}

/// The version of Python in whose folder (`lib/python3.13`) a package is installed.
fn version_of(source: &Path) -> Option<(u8, u8)> {
    let path = source.canonicalize().ok()?;
    path.components().rev().find_map(|part| {
        let (major, minor) = part.as_os_str().to_str()?.strip_prefix("python")?.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn read_part(source: &Path, options: &ReadOptions, progress: &dyn Progress) -> Result<Documentation> {
    if source == Path::new("-") {
        return rows(source);
    }
    let patterns = |patterns: &[String]| patterns.iter().map(|pattern| layout::Glob::new(pattern)).collect();
    let choice = &layout::Choice { include: patterns(&options.include), exclude: patterns(&options.exclude) };
    let meta = std::fs::metadata(source).map_err(|cause| Error::io("open", source, cause))?;
    if meta.is_dir() {
        let roots = python::roots(source, options);
        return python::read(source::folder(source, choice)?, &roots, options, progress);
    }
    let name = source.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name.ends_with(".py") || name.ends_with(".pyi") {
        let roots = python::roots(source, options);
        return python::read(source::single(source), &roots, options, progress);
    }
    if name.ends_with(".inv") {
        return inventory::read(source, progress);
    }
    if name.ends_with(".jsonl") || name.ends_with(".jsonl.gz") {
        return rows(source);
    }
    let is_tar = name.ends_with(".tar.gz") || name.ends_with(".tgz");
    match archive::format(source)? {
        archive::Format::Zip => {
            let files = source::unpacked(source, archive::python_files(source)?, choice)?;
            python::read(files, &options.search_paths, options, progress)
        }
        archive::Format::Gzip if is_tar => {
            let files = source::unpacked(source, archive::python_files(source)?, choice)?;
            python::read(files, &options.search_paths, options, progress)
        }
        _ if name.ends_with(".whl") || name.ends_with(".zip") => {
            Err(Error::data(source, "not a zip archive (truncated or damaged download?)"))
        }
        _ if is_tar => Err(Error::data(source, "not a gzip file (truncated or damaged download?)")),
        _ => Err(Error::data(
            source,
            "not a kind of documentation that is read (package folder, .py, .pyi, .whl, .tar.gz, .zip, objects.inv, apis.jsonl)",
        )),
    }
}

/// Reads several sources one after the other. Of records with the same qualified name the first stays.
///
/// # Errors
/// As [`read`], at the first source that fails; also when `sources` is empty.
pub fn read_all(
    sources: &[PathBuf],
    options: &ReadOptions,
    progress: &dyn Progress,
) -> Result<Documentation> {
    if sources.is_empty() {
        return Err(Error::new(crate::ErrorKind::InvalidArgument, "no source of documentation is given"));
    }
    let mut all = Documentation::default();
    for source in sources {
        all.append(read(source, options, progress)?);
    }
    Ok(all)
}

/// Fills in what follows from a docstring: `doc`, `description` and `examples`.
pub fn describe(api: &mut ApiDoc, docstring: &str) {
    api.doc = docstring::clean(docstring);
    api.description = docstring::first_sentence(&api.doc);
    api.examples = docstring::examples(&api.doc).into_iter().map(|example| example.code).collect();
}

/// Hands over the files of a wheel or sdist whose paths are `wanted`: their bytes, or why a file is passed over.
///
/// # Errors
/// It is no such archive, damaged or hostile (truncated, with entries that point out of it, or beyond the limits of size).
pub(crate) fn archive_entries(
    archive: &Path,
    wanted: &dyn Fn(&str) -> bool,
    take: &mut dyn FnMut(&str, Result<Vec<u8>, String>),
) -> Result<()> {
    archive::entries(archive, wanted, &mut |name, bytes| take(name, bytes.map_err(|error| error.to_string())))
}

fn rows(source: &Path) -> Result<Documentation> {
    Ok(Documentation { apis: api::read_jsonl(source)?, files_read: 1, ..Documentation::default() })
}
