//! What a SOURCE on the command line stands for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use inhouse_core::decode::CancelToken;
use inhouse_core::docs::{self, Documentation, Loss, Lost, ReadOptions};
use inhouse_core::progress::Progress;
use inhouse_study::introspect::{self, ImportOptions};

use super::{installed, number, on_interrupt, verified};

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

    /// List modules and names that begin with an underscore too
    #[arg(long)]
    include_private: bool,

    /// Read files that are passed over otherwise (tests, copies of other packages): a pattern of paths inside SOURCE, `*` within
    /// a folder, `**` across folders; without `/` it matches at any depth
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,

    /// Do not read these files, nor tell of them
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,

    /// Fail where something could not be seen: a file that does not parse, a module without any API, names imported from modules
    /// that cannot be read, folders passed over, definitions for another interpreter
    #[arg(long)]
    strict: bool,

    /// Python interpreter for import:NAME and --verify; installed packages are looked for with it first
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    env: PathBuf,

    /// CPU seconds for import:NAME and --verify; its wall-clock limit is three times that
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
        if self.site.is_empty() { installed::sites(&self.env) } else { self.site.clone() }
    }
}

/// Reads the documentation of all sources and tells of every file that was passed over.
pub fn read(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    read_whole(arguments, false, progress)
}

/// As [`read`], for a file: without the names that [`inhouse_core::api::expand`] puts back.
pub fn read_rows(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    read_whole(arguments, true, progress)
}

fn read_whole(arguments: &Arguments, short: bool, progress: &dyn Progress) -> Result<Documentation> {
    let imports = arguments.source.iter().any(|source| source.starts_with(IMPORT));
    let cancel = if imports { on_interrupt()? } else { CancelToken::new() };
    read_and(arguments, short, &cancel, progress, &mut |_, documentation| Ok(documentation))
}

/// As [`read`], of installed packages: each is held against what importing it in the sandbox shows, and what either side missed
/// is told.
pub fn read_verified(arguments: &Arguments, progress: &dyn Progress) -> Result<Documentation> {
    for source in &arguments.source {
        if !source.split('.').all(is_name) {
            bail!("--verify takes the names of installed packages, which it imports: `{source}` is none");
        }
    }
    let cancel = on_interrupt()?;
    read_and(arguments, false, &cancel, progress, &mut |library, documentation| {
        let options = import_options(arguments);
        let found = introspect::verify(documentation, library, &options, &cancel, progress)
            .with_context(|| format!("--verify imports {library} in the sandbox, and that failed"))?;
        verified::tell(library, &found, progress);
        Ok(found.documentation)
    })
}

/// What is done with the documentation of each source.
type Then<'t> = &'t mut dyn FnMut(&str, Documentation) -> Result<Documentation>;

fn read_and(
    arguments: &Arguments,
    short: bool,
    cancel: &CancelToken,
    progress: &dyn Progress,
    then: Then<'_>,
) -> Result<Documentation> {
    let sites = arguments.sites();
    let mut options = ReadOptions::default();
    options.search_paths.clone_from(&sites);
    options.short = short;
    options.include_private = arguments.include_private;
    options.include.clone_from(&arguments.include);
    options.exclude.clone_from(&arguments.exclude);
    let mut documentation = Documentation::default();
    for source in &arguments.source {
        let read = match source.strip_prefix(IMPORT) {
            Some(library) => introspect::read(library, &import_options(arguments), cancel, progress)?,
            None => docs::read(&resolve(source, &sites)?, &options, progress)?,
        };
        documentation.append(then(source, read)?);
    }
    for skipped in &documentation.skipped {
        let line = skipped.line.map(|line| format!(":{line}")).unwrap_or_default();
        progress.note(&format!("skipped {}{line}: {}", skipped.path, skipped.reason));
    }
    tell_losses(&documentation, arguments.strict, progress)?;
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
    if let Some(found) = installed::find(source, folders) {
        return Ok(found);
    }
    let searched = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    bail!("{source}: no such file, and no installed package of that name in {searched}")
}

/// Tells what could not be seen: a line for each kind, with the first few places.
///
/// # Errors
/// Something could not be seen, and `--strict` is given.
fn tell_losses(documentation: &Documentation, strict: bool, progress: &dyn Progress) -> Result<()> {
    const SHOWN: usize = 8;
    let mut kinds: BTreeMap<Loss, Vec<&Lost>> = BTreeMap::new();
    for lost in &documentation.losses {
        kinds.entry(lost.kind).or_default().push(lost);
    }
    for (kind, lost) in &kinds {
        let mut places: Vec<String> = lost
            .iter()
            .take(SHOWN)
            .map(|lost| match lost.names.as_slice() {
                [] => lost.place.clone(),
                names if names.len() <= SHOWN => format!("{}: {}", lost.place, names.join(" ")),
                names => {
                    format!("{}: {} and {} more", lost.place, names[..SHOWN].join(" "), names.len() - SHOWN)
                }
            })
            .collect();
        if lost.len() > SHOWN {
            places.push(format!("and {} more", lost.len() - SHOWN));
        }
        progress.note(&format!("not seen: {}: {}", kind.describe(), places.join("; ")));
    }
    let unread = documentation.skipped.len() + documentation.losses.len();
    if strict && unread > 0 {
        bail!("{unread} things could not be seen (listed above); without --strict they are only told");
    }
    Ok(())
}
