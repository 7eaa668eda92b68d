//! What a SOURCE on the command line stands for.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use inhouse_core::decode::CancelToken;
use inhouse_core::docs::{self, Documentation, ReadOptions};
use inhouse_core::progress::Progress;
use inhouse_study::introspect::{self, ImportOptions};

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

    /// Python interpreter for import:NAME
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    env: PathBuf,

    /// CPU seconds for import:NAME; its wall-clock limit is three times that
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0, value_parser = number::timeout, allow_negative_numbers = true)]
    import_timeout: f64,
}

impl Arguments {
    /// The sources that lie in files: code of their own may be among them.
    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        let sites = self.sites();
        let files = self.source.iter().filter(|source| !source.starts_with(IMPORT) && *source != "-");
        files.map(|source| resolve(source, &sites)).collect()
    }

    fn sites(&self) -> Vec<PathBuf> {
        if self.site.is_empty() { site_folders() } else { self.site.clone() }
    }
}

/// Reads the documentation of all sources and tells of every file that was passed over.
pub fn read(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    let sites = arguments.sites();
    let mut options = ReadOptions::default();
    options.search_paths.clone_from(&sites);
    let mut documentation = Documentation::default();
    let imports = arguments.source.iter().any(|source| source.starts_with(IMPORT));
    let cancel = if imports { on_interrupt()? } else { CancelToken::new() };
    for source in &arguments.source {
        documentation.append(match source.strip_prefix(IMPORT) {
            Some(library) => import(library, arguments, &cancel, progress)?,
            None => docs::read(&resolve(source, &sites)?, &options, progress)?,
        });
    }
    for skipped in &documentation.skipped {
        let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
        progress.note(&format!("skipped {}{line}: {}", skipped.path, skipped.reason));
    }
    Ok(documentation)
}

fn import(
    library: &str,
    arguments: &Arguments,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Documentation> {
    let options = ImportOptions {
        python: arguments.env.clone(),
        paths: arguments.site.clone(),
        timeout_seconds: arguments.import_timeout,
    };
    Ok(introspect::read(library, &options, cancel, progress)?)
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

/// Package folders of the active virtual environment, then of every `python3` on the PATH. Found by looking, without
/// running Python.
fn site_folders() -> Vec<PathBuf> {
    let mut prefixes = Vec::new();
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
