//! `inhouse privatize`: a private twin of a public library, that no model has seen.
//!
//! The library's documentation ([`surface`]) says which names are public; a seed coins a private word for each ([`coin`]), or a
//! table gives them. Out come an importable package that answers to the private names alone ([`crate::twin`]), documentation in
//! them ([`documentation`]), and a problem set converted as programs are, not as text ([`problems`], [`code`]): what stands for
//! the library's names and what does not is seen by running each problem once in the sandbox.

mod code;
mod coin;
mod documentation;
mod folder;
mod installed;
mod leaks;
mod lexicon;
mod problems;
mod speech;
mod surface;
mod trial;
mod usage;
mod words;

use std::path::{Path, PathBuf};

use inhouse_core::decode::CancelToken;
use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::index::UsageLedger;
use inhouse_core::usage::{UsageOptions, UsageSource};
use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, api, files};
use serde::Serialize;

use crate::introspect::{self, ImportOptions};
use crate::problems::Problem;
use crate::rename::Table;
use crate::twin::{Scope, Twin};
use folder::Folder;
pub use leaks::Leaks;
use speech::Speech;
use surface::Surface;
pub use usage::FILE as USAGE_FILE;

/// Name of the rename table in the folder of a private library.
pub const TABLE_FILE: &str = "rename.json";

/// Where the private words come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Coined.
    Seed(u64),
    /// Given: a file, or the name of a shipped table.
    Table(PathBuf),
}

/// What is made private, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Import name of the public library.
    pub library: String,
    /// The interpreter that can import it.
    pub python: PathBuf,
    /// Further folders in which packages are looked for.
    pub paths: Vec<PathBuf>,
    /// The private words.
    pub source: Source,
    /// Modules that are left out of documentation and table.
    pub excluded: Vec<String>,
    /// Where private words may be used; `None`: what the table says, else the library alone for coined words and everywhere
    /// for given ones.
    pub scope: Option<Scope>,
    /// Problems to convert.
    pub problems: Option<PathBuf>,
    /// The folder to make.
    pub out: PathBuf,
    /// Whether an earlier private library there is replaced.
    pub replace: bool,
    /// CPU seconds for importing the library.
    pub import_timeout_seconds: f64,
    /// Executable of evald; see [`crate::evaluate::EvalOptions::evald`].
    pub evald: Option<PathBuf>,
}

/// What was made: `manifest.json` of the folder.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Says that the folder is a private library.
    pub format: &'static str,
    /// Version of the program that made it.
    pub made_by: String,
    /// The public library.
    pub library: String,
    /// Its version, where it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library_version: Option<String>,
    /// Version of the interpreter that imported it.
    pub python_version: String,
    /// The private import name.
    pub name: String,
    /// The seed of coined words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Where private words may be used: `library` or `everywhere`.
    pub scope: &'static str,
    /// Names in the table.
    pub names: usize,
    /// Records of documentation.
    pub apis: usize,
    /// Files of its own code whose usage of it is kept: tests, examples, docstrings.
    pub usage_files: usize,
    /// Public names left in the usage.
    pub usage: Leaks,
    /// Public names left in the documentation.
    pub documentation: Leaks,
    /// The problems, where some were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<ProblemReport>,
}

/// How the conversion of the problems went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProblemReport {
    /// How many there are.
    pub problems: usize,
    /// Problems whose first canonical solution passed before.
    pub solved_before: usize,
    /// Problems whose first canonical solution, converted, passes against the private library.
    pub solved: usize,
    /// Problems that passed before and do not now, by their new ids, with why.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub lost: std::collections::BTreeMap<String, String>,
    /// Problems in which strings kept public words, because they are options of the library's, not data.
    pub strings_kept: usize,
    /// Public names left in the prompts.
    pub prompts: Leaks,
}

/// Makes a private library out of a public one.
///
/// # Errors
/// The folder is there already, the library cannot be imported or has no documentation, the table is not one of its, a problem
/// file cannot be read, evald cannot be started, a cancel. Nothing is left then.
pub fn run(options: &Options, cancel: &CancelToken, progress: &dyn Progress) -> Result<Report> {
    let folder = Folder::begin(&options.out, options.replace)?;
    let problems = options.problems.as_deref().map(crate::problems::read).transpose()?;
    if let Source::Table(path) = &options.source {
        // A table that is no table is found out before the library is imported. Its direction may need the names.
        if path.components().count() > 1 && !path.is_file() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: no such table", path.display())));
        }
    }
    let import = ImportOptions {
        python: options.python.clone(),
        paths: options.paths.clone(),
        timeout_seconds: options.import_timeout_seconds,
    };
    let found = installed::ask(&options.library, &import, options.evald.as_deref(), cancel)?;
    let surface = read_surface(options, &import, found.file.as_deref(), cancel, progress)?;
    let mut table = match &options.source {
        Source::Seed(seed) => coin::coin(&surface, *seed),
        Source::Table(path) => given(path, &surface)?,
    };
    let seed = if let Source::Seed(seed) = options.source { Some(seed) } else { None };
    if table.modules.is_empty() && found.has_c_half {
        table.modules = vec![format!("_{}", surface.library)];
    }
    let scope = match (options.scope, table.everywhere) {
        (Some(scope), _) => scope,
        (None, Some(false)) => Scope::Library,
        (None, _) => Scope::Everywhere,
    };
    table.everywhere = Some(scope == Scope::Everywhere);
    let twin = Twin::new(&table, &[], scope)?;
    twin.write(folder.path())?;

    let mut speech = Speech::new(&table, &surface.library, seed.unwrap_or_default());
    if let Some(problems) = &problems {
        problems::learn_aliases(&mut speech, problems, twin.name());
    }
    table.aliases = speech.aliases();
    files::write_atomic(&folder.path().join(TABLE_FILE), |out| out.write_all(table.to_json().as_bytes()))?;

    progress.start("documentation", Some(surface.apis.len() as u64));
    let mut documentation = Leaks::default();
    let apis: Vec<ApiDoc> = documentation::convert(&surface, &speech)
        .into_iter()
        .map(|record| {
            record.texts.iter().for_each(|text| documentation.look(text, &speech));
            progress.advance(1);
            record.api
        })
        .collect();
    progress.finish();
    api::write_jsonl(&folder.path().join("apis.jsonl"), &apis)?;
    progress.check()?;

    let (usage, texts) =
        usage::convert(&own_usage(&surface, found.file.as_deref(), progress)?, &table, &speech);
    let mut usage_leaks = Leaks::default();
    texts.iter().for_each(|text| usage_leaks.look(text, &speech));
    files::write_json_lines(&folder.path().join(USAGE_FILE), usage.iter())?;
    progress.check()?;

    let problems = match problems {
        Some(problems) => {
            let trial = trial::Trial { options, twin: &twin, folder: folder.path(), cancel, progress };
            let (converted, report) = trial.run(&problems, &speech)?;
            write_problems(&folder.path().join("problems.jsonl"), &converted)?;
            Some(report)
        }
        None => None,
    };
    let report = Report {
        format: folder::FORMAT,
        made_by: format!("inhouse {}", env!("CARGO_PKG_VERSION")),
        library: surface.library.clone(),
        library_version: found.version,
        python_version: found.python,
        name: twin.name().to_owned(),
        seed,
        scope: if scope == Scope::Everywhere { "everywhere" } else { "library" },
        names: table.pairs.len(),
        apis: apis.len(),
        usage_files: usage.len(),
        usage: usage_leaks,
        documentation,
        problems,
    };
    folder.finish(&report)?;
    Ok(report)
}

fn write_problems(path: &Path, problems: &[Problem]) -> Result<()> {
    files::write_json_lines(path, problems.iter())
}

/// The library's documentation, from its source where there is some and from itself.
fn read_surface(
    options: &Options,
    import: &ImportOptions,
    file: Option<&Path>,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Surface> {
    let library = options.library.as_str();
    let mut documentation = docs::Documentation::default();
    if let Some(source) = file.and_then(source_of) {
        match docs::read(&source, &ReadOptions::default(), progress) {
            Ok(read) => documentation = read,
            // What it says of itself when imported is enough.
            Err(error) => progress.note(&format!("its source is not read: {error}")),
        }
        progress.finish();
    }
    let of_itself = introspect::read(library, import, cancel, progress)?;
    for skipped in &of_itself.skipped {
        progress.note(&format!("skipped {}: {}", skipped.path, skipped.reason));
    }
    documentation.append(of_itself);
    let surface = Surface::of(library, documentation.apis, &options.excluded);
    if surface.apis.is_empty() {
        let message = format!(
            "{library}: no public API is left (is it the import name? what does --exclude leave out?)"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(surface)
}

/// How the library's own tests and examples use it.
fn own_usage(surface: &Surface, file: Option<&Path>, progress: &dyn Progress) -> Result<UsageLedger> {
    let source = file.and_then(source_of).map(|path| UsageSource { path, own: true });
    let options = UsageOptions::default();
    let reading = inhouse_core::usage::read(source.as_slice(), &surface.apis, None, &options, progress)?;
    Ok(reading.ledger)
}

/// What `inhouse docs` reads of a library that was imported from `file`.
fn source_of(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    match name {
        "__init__.py" => file.parent().map(Path::to_path_buf),
        _ if name.ends_with(".py") => Some(file.to_path_buf()),
        _ => None,
    }
}

/// A given table, which must be one of the library's.
fn given(path: &Path, surface: &Surface) -> Result<Table> {
    let names: Vec<&str> = surface.names.iter().map(String::as_str).collect();
    let mut table = Table::read(path, &names.join(" "))?;
    let library = &surface.library;
    if let Some(other) = table.library.as_ref().filter(|other| *other != library) {
        return Err(Error::data(path, format!("this table renames `{other}`, not `{library}`")));
    }
    if table.name.is_none() && table.private(library).is_none() {
        let what = format!("the table has no private name for `{library}`: add \"name\" to it");
        return Err(Error::data(path, what));
    }
    table.name =
        Some(table.name.clone().or_else(|| table.private(library).map(str::to_owned)).unwrap_or_default());
    table.library = Some(library.clone());
    if table.private(library).is_none() {
        let name = table.name.clone().unwrap_or_default();
        table.pairs.insert(0, (library.clone(), name));
    }
    if !table.pairs.iter().any(|(public, _)| public != library && surface.names.contains(public)) {
        return Err(Error::data(path, format!("none of its public names is one of `{library}`'s")));
    }
    Ok(table)
}
