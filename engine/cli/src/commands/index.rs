//! `inhouse index`: build, update, merge and describe an index.

use std::path::PathBuf;

use anyhow::Result;
use inhouse::EncoderChoice;
use inhouse_core::index::{self, BuildOptions, Index, UpdateOptions, UpdateScope};
use inhouse_core::progress::Progress;

use super::{encoder, source, usage};
use crate::term;

/// Build, update, merge or describe an index over API documentation
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build an index; an existing one is replaced in one step when the new one is whole
    #[command(after_help = "Examples:\n  inhouse index build ./mylib apis.jsonl --out mylib.index\n  \
        inhouse index build ./mylib --out mylib.index --encoder all-MiniLM-L6-v2\n  \
        inhouse index build ./mylib --usage ./mylib/tests ./shop --out mylib.index")]
    Build {
        #[command(flatten)]
        source: source::Arguments,
        #[command(flatten)]
        usage: usage::Arguments,
        /// Folder of the index
        #[arg(long)]
        out: PathBuf,
        /// Text encoder: its folder or file, or `none`. With one the index is searched by meaning too; it names the encoder,
        /// which is needed again for updates and searches [default: the retriever that comes with inhouse]
        #[arg(long, value_name = "PATH|none", value_parser = encoder::parse)]
        encoder: Option<EncoderChoice>,
    },
    /// Add, replace and remove what changed in the given libraries; readers keep working meanwhile
    #[command(
        long_about = "Add, replace and remove what changed in the given libraries; readers keep working meanwhile.\n\n\
            Of a package given as a whole (folder, wheel, sdist, installed package, objects.inv), what is gone is removed. \
            A module or sub-package alone, and the rows of an apis.jsonl, only add and replace, unless --prune says that \
            they are all there is.",
        after_help = "Examples:\n  inhouse index update mylib.index ./mylib\n  inhouse index update mylib.index changed.jsonl\n  \
            inhouse index update mylib.index ./mylib --usage ./shop"
    )]
    Update {
        /// Folder of the index
        dir: PathBuf,
        #[command(flatten)]
        source: source::Arguments,
        #[command(flatten)]
        usage: usage::Arguments,
        /// The text encoder that the index was built with, where it is no longer where the index says
        #[arg(long, value_name = "PATH")]
        encoder: Option<PathBuf>,
        /// Remove what the sources no longer name, also where they may be a part of their library
        #[arg(long)]
        prune: bool,
    },
    /// Merge what updates have left in pieces; readers keep working meanwhile
    #[command(long_about = "Merge what updates have left in pieces; readers keep working meanwhile.\n\n\
            Updates merge by themselves when pieces have grown too many, after readers can see the change. This makes one piece of \
            all and frees the room of what was removed; it rewrites the whole index.")]
    Merge {
        /// Folder of the index
        dir: PathBuf,
    },
    /// Describe an index
    Info {
        /// Folder of the index
        dir: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

pub fn run(arguments: &Arguments, progress: &dyn Progress) -> Result<()> {
    match &arguments.action {
        Action::Build { source, usage, out, encoder } => {
            let encoder = match encoder {
                Some(EncoderChoice::At(path)) => Some(inhouse::index_encoder(path)?),
                Some(_) => None,
                None => {
                    let retriever = inhouse::shipped_retriever()?;
                    if retriever.is_none() {
                        let what = "no retriever is installed: the index is searched by words alone";
                        progress.note(what);
                    }
                    retriever.map(|path| inhouse::index_encoder(&path)).transpose()?
                }
            };
            let documentation = source::read(source, progress)?;
            let usage = usage::read(usage, source, &documentation.apis, None, progress)?;
            let options = BuildOptions { encoder, usage, ..BuildOptions::default() };
            let info = index::build(&documentation.apis, out, &options, progress)?;
            progress.finish();
            eprintln!("{} APIs -> {}", info.apis, out.display());
        }
        Action::Update { dir, source, usage, encoder, prune } => {
            let choice = encoder.clone().map_or(EncoderChoice::OfIndex, EncoderChoice::At);
            let encoder = inhouse::encoder_for_update(dir, &choice)?;
            let documentation = source::read(source, progress)?;
            let known = Index::open(dir)?.usage_ledger()?;
            let usage = usage::read(usage, source, &documentation.apis, known.as_ref(), progress)?;
            let scope = match prune {
                true => UpdateScope::Libraries,
                false => UpdateScope::Only(documentation.whole_libraries),
            };
            let report =
                index::update(dir, &documentation.apis, &UpdateOptions { scope, encoder, usage }, progress)?;
            progress.finish();
            eprintln!(
                "{} added, {} replaced, {} removed, {} unchanged -> {}",
                report.added,
                report.replaced,
                report.removed,
                report.unchanged,
                dir.display()
            );
        }
        Action::Merge { dir } => {
            let info = index::merge(dir, progress)?;
            progress.finish();
            eprintln!("{} APIs, {} bytes -> {}", info.apis, info.bytes, dir.display());
        }
        Action::Info { dir, json } => {
            let info = Index::open(dir)?.info();
            if *json {
                term::json(&info)?;
            } else {
                let table = serde_json::to_value(&info)?;
                for (key, value) in table.as_object().into_iter().flatten() {
                    term::line(format_args!(
                        "{:16} {}",
                        key.replace('_', " "),
                        value.to_string().trim_matches('"')
                    ))?;
                }
            }
        }
    }
    Ok(())
}
