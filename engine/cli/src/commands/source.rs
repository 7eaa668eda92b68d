//! What a SOURCE on the command line stands for.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use inhouse_core::docs::{self, Documentation, ReadOptions};
use inhouse_core::progress::Progress;

/// Sources and where their dependencies are.
#[derive(clap::Args)]
pub struct Arguments {
    /// Package folder, .py/.pyi file, wheel, sdist, objects.inv, apis.jsonl or the name of an installed package
    #[arg(required = true)]
    source: Vec<String>,

    /// Folder of installed packages: names that the library re-exports from its dependencies are documented from there
    /// [default: the active virtual environment, then every python3 on the PATH]
    #[arg(long, value_name = "DIR")]
    site: Vec<PathBuf>,
}

/// Reads the documentation of all sources and tells of every file that was passed over.
pub fn read(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    let sites = if arguments.site.is_empty() { site_folders() } else { arguments.site.clone() };
    let paths = arguments.source.iter().map(|source| resolve(source, &sites)).collect::<Result<Vec<_>>>()?;
    let mut options = ReadOptions::default();
    options.search_paths = sites;
    let documentation = docs::read_all(&paths, &options, progress)?;
    for skipped in &documentation.skipped {
        let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
        progress.note(&format!("skipped {}{line}: {}", skipped.path, skipped.reason));
    }
    Ok(documentation)
}

/// A path as it is, or the folder of an installed package of that name.
fn resolve(source: &str, folders: &[PathBuf]) -> Result<PathBuf> {
    if source.starts_with("import:") {
        bail!(
            "{source}: reading documentation by importing is not part of this build; give the package's folder or wheel"
        );
    }
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
