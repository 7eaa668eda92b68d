//! `inhouse docs`: API documentation out of Python packages.

use std::path::{Path, PathBuf};

use anyhow::Result;
use inhouse_core::api;
use inhouse_core::progress::Progress;

use super::source;

/// Read a library's API documentation, without importing it
///
/// But for import:NAME, which imports a library inside the sandbox: for C extensions and names that are made at run time.
///
/// Writes one JSON object per API (apis.jsonl): name, qualified name, signature, first sentence, docstring, examples.
/// Files that do not parse are named on stderr and skipped; so is, at the end, what else could not be seen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  inhouse docs ./mylib                       a package folder (or a project that contains packages)
  inhouse docs mylib-1.0-py3-none-any.whl    a wheel or an sdist
  inhouse docs docs/_build/html/objects.inv  a Sphinx inventory with its HTML pages
  inhouse docs pandas --out pandas.jsonl.gz  an installed package
  inhouse docs ./mylib --exclude 'mylib/gui/**' --strict
                                             everything but one sub-package, and an error if anything else was not seen
  inhouse docs import:numpy --env venv/bin/python --out numpy.jsonl.gz
                                             what the imported library says of itself
  inhouse docs numpy --verify --env venv/bin/python --out numpy.jsonl
                                             text from its source, names and signatures held against run time")]
pub struct Arguments {
    #[command(flatten)]
    source: source::Arguments,

    /// Hold the documentation of an installed package against what importing it in the sandbox shows: text from the source, names
    /// and signatures from run time where they differ
    #[arg(long)]
    verify: bool,

    /// Where to write; `-` is stdout, a name ending in .gz is compressed
    #[arg(long, default_value = "-")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    let documentation = if arguments.verify {
        source::read_verified(&arguments.source, progress)?
    } else {
        source::read_rows(&arguments.source, progress)?
    };
    progress.finish();
    api::write_jsonl(&arguments.out, &documentation.apis)?;
    if arguments.out != Path::new("-") {
        eprintln!(
            "{} APIs from {} files ({} skipped, {} not seen) -> {}",
            documentation.apis.len(),
            documentation.files_read,
            documentation.skipped.len(),
            documentation.losses.len(),
            arguments.out.display()
        );
    }
    Ok(())
}
