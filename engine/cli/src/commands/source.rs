//! What a SOURCE on the command line stands for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use inhouse_core::decode::CancelToken;
use inhouse_core::docs::{self, Documentation, ReadOptions};
use inhouse_core::progress::Progress;
use inhouse_study::introspect::{self, ImportOptions, Verified};

use super::{number, on_interrupt};

/// What comes before the name of a library that is imported.
const IMPORT: &str = "import:";

/// Sources and where their dependencies are.
#[derive(clap::Args)]
pub struct Arguments {
    /// Package folder, .py/.pyi file, wheel, sdist, objects.inv, apis.jsonl, the name of an installed package, or
    /// import:NAME: a library imported in the sandbox and asked there (C extensions, names that are made at run time)
    #[arg(required = true)]
    source: Vec<String>,

    /// Folder of installed packages: names that the library re-exports from its dependencies are documented from there
    /// [default: the active virtual environment, then every python3 on the PATH]
    #[arg(long, value_name = "DIR")]
    site: Vec<PathBuf>,

    /// Python interpreter for import:NAME and --verify
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    env: PathBuf,

    /// CPU seconds for import:NAME and --verify; its wall-clock limit is three times that
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = number::timeout, allow_negative_numbers = true)]
    import_timeout: f64,
}

/// Reads the documentation of all sources and tells of every file that was passed over.
pub fn read(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    let imports = arguments.source.iter().any(|source| source.starts_with(IMPORT));
    let cancel = if imports { on_interrupt()? } else { CancelToken::new() };
    read_and(arguments, &cancel, progress, &mut |_, documentation| Ok(documentation))
}

/// Reads installed packages by their names, holds each against what importing it in the sandbox shows, and tells what either
/// side missed.
pub fn read_verified(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    for source in &arguments.source {
        if !source.split('.').all(|part| is_name(part)) {
            bail!("--verify takes the names of installed packages, which it imports: `{source}` is none");
        }
    }
    let cancel = on_interrupt()?;
    read_and(arguments, &cancel, progress, &mut |library, documentation| {
        let options = import_options(arguments);
        let verified = introspect::verify(documentation, library, &options, &cancel, progress)
            .with_context(|| format!("--verify imports {library} in the sandbox, and that failed"))?;
        tell(library, &verified, progress);
        Ok(verified.documentation)
    })
}

/// How many names a report lists of a kind.
const MAX_TOLD: usize = 8;

/// Says what each side missed.
fn tell(library: &str, found: &Verified, progress: &dyn Progress) {
    progress.note(&format!(
        "{library}: {} names at run time, {} records; the source text misses {} of them, run time {} of its own",
        found.at_run_time,
        found.documentation.apis.len(),
        found.missed_by_source.len(),
        found.missed_by_run_time.len() + found.absent.len(),
    ));
    let some = |names: &mut dyn Iterator<Item = String>, all: usize| {
        let mut told = names.take(MAX_TOLD).collect::<Vec<_>>().join(", ");
        if all > MAX_TOLD {
            told.push_str(&format!(", and {} more", all - MAX_TOLD));
        }
        told
    };
    for (what, names) in [
        ("added, known at run time alone", &found.missed_by_source),
        ("left out, not there at run time", &found.absent),
        ("kept, not shown at run time", &found.missed_by_run_time),
    ] {
        if !names.is_empty() {
            let told = some(&mut names.iter().cloned(), names.len());
            progress.note(&format!("{library}: {} {what}: {told}", names.len()));
        }
    }
    if !found.signatures.is_empty() {
        let mut each = found
            .signatures
            .iter()
            .map(|one| format!("{}{} instead of {}", one.name, one.run_time, one.source));
        let told = some(&mut each, found.signatures.len());
        progress.note(&format!("{library}: {} signatures corrected: {told}", found.signatures.len()));
    }
}

/// What is done with the documentation of a source.
type Then<'t> = &'t mut dyn FnMut(&str, Documentation) -> Result<Documentation>;

fn read_and(
    arguments: &Arguments,
    cancel: &CancelToken,
    progress: &dyn Progress,
    then: Then<'_>,
) -> Result<Documentation> {
    let sites = if arguments.site.is_empty() { site_folders(&arguments.env) } else { arguments.site.clone() };
    let mut options = ReadOptions::default();
    options.search_paths.clone_from(&sites);
    let mut documentation = Documentation::default();
    for source in &arguments.source {
        let read = match source.strip_prefix(IMPORT) {
            Some(library) => {
                introspect::read(library, &import_options(arguments), cancel, progress)?
            }
            None => docs::read(&resolve(source, &sites)?, &options, progress)?,
        };
        documentation.append(then(source, read)?);
    }
    for skipped in &documentation.skipped {
        let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
        progress.note(&format!("skipped {}{line}: {}", skipped.path, skipped.reason));
    }
    Ok(documentation)
}

fn import_options(arguments: &Arguments) -> ImportOptions {
    ImportOptions {
        python: arguments.env.clone(),
        paths: arguments.site.clone(),
        timeout_seconds: arguments.import_timeout,
    }
}

fn is_name(part: &str) -> bool {
    part.starts_with(|c: char| c == '_' || c.is_alphabetic())
        && part.chars().all(|c| c == '_' || c.is_alphanumeric())
}

/// A path as it is, or the folder of an installed package of that name.
fn resolve(source: &str, folders: &[PathBuf]) -> Result<PathBuf> {
    let path = PathBuf::from(source);
    let is_name = !source.is_empty() && source.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
    if path.exists() || !is_name {
        return Ok(path);
    }
    let relative: PathBuf = source.split('.').collect();
    for folder in folders {
        let package = folder.join(&relative);
        let module = package.with_extension("py");
        if package.is_dir() {
            return Ok(package);
        }
        if module.is_file() {
            return Ok(module);
        }
    }
    let searched = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    bail!("{source}: no such file, and no installed package of that name in {searched}")
}

/// Package folders of the interpreter that is named by a path, of the active virtual environment, then of every `python3` on the
/// PATH. Found by looking, without running Python.
fn site_folders(python: &Path) -> Vec<PathBuf> {
    let mut prefixes = Vec::new();
    if python.components().count() > 1 {
        prefixes.extend(python.parent().and_then(Path::parent).map(Path::to_path_buf));
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV") {
        prefixes.push(PathBuf::from(environment));
    }
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        if folder.join("python3").exists()
            && let Some(prefix) = folder.parent()
        {
            prefixes.push(prefix.to_path_buf());
        }
    }
    let mut folders = Vec::new();
    for prefix in prefixes {
        for python in children(&prefix.join("lib")) {
            let named = python.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
            folders.extend(
                ["site-packages", "dist-packages"]
                    .map(|name| python.join(name))
                    .into_iter()
                    .filter(|f| named && f.is_dir()),
            );
        }
    }
    folders
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}
