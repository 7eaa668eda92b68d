//! Python source to records: parse in parallel, look into dependencies where names lead there, write records.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::condition::Interpreter;
use super::exports::Key;
use super::layout;
use super::library::Library;
use super::losses::{Loss, Lost};
use super::parse::{self, ParsedFile};
use super::program::{Base, ClassId, Program, Target};
use super::records;
use super::source::{self, Files, RawFile};
use super::{Documentation, ReadOptions, Skipped};
use crate::python::STACK_BYTES;
use crate::{Error, ErrorKind, Progress, Result};

/// Modules of dependencies that are looked into.
const MAX_DEPENDENCY_MODULES: usize = 600;
/// Rounds of looking: a re-export of a re-export takes one each.
const MAX_ROUNDS: usize = 16;

/// Reads the modules of one library. `roots` are folders in which its dependencies may be installed.
///
/// # Errors
/// No thread can be started, or whoever watches ends the work.
pub(super) fn read(
    files: Files,
    roots: &[PathBuf],
    options: &ReadOptions,
    progress: &dyn Progress,
) -> Result<Documentation> {
    let threads = options.threads.unwrap_or(0);
    let interpreter = Interpreter::new(options.python);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|i| format!("inhouse-docs-{i}"))
        .build()
        .map_err(|cause| {
            Error::with_source(ErrorKind::Io, format!("cannot start threads to parse with: {cause}"), cause)
        })?;
    let Files { modules, mut reserve, mut passed_over } = files;
    progress.start("reading Python source", Some(modules.len() as u64));
    let found = pool.install(|| {
        let mut skipped = Vec::new();
        let files_read = modules.len();
        let mut parsed = parse_all(modules, &mut skipped, Some(progress));
        progress.check()?;
        for file in &mut parsed {
            let stem = file.module.rsplit('.').next().unwrap_or_default();
            let included = options.include.iter().any(|glob| layout::Glob::new(glob).matches(&file.path));
            if layout::may_be_test(stem) && parse::is_test(file) && !included {
                file.dependency = true;
                passed_over.push(file.path.clone());
            }
        }
        look_into_dependencies(&mut parsed, &mut reserve, roots, interpreter);
        progress.check()?;
        let program = Program::new(&parsed, interpreter);
        let library = Library::new(&program);
        let exports = library.exports(options.include_private);
        let apis = records::all(&library, &exports, options.include_private);
        let mut losses = library.losses(&exports, options.include_private);
        losses.extend(passed_over.into_iter().map(|place| Lost {
            kind: Loss::PassedOver,
            place,
            names: Vec::new(),
        }));
        Ok(Documentation { apis, skipped, losses, files_read, ..Documentation::default() })
    })?;
    progress.finish();
    Ok(found)
}

fn parse_all(
    mut files: Vec<RawFile>,
    skipped: &mut Vec<Skipped>,
    progress: Option<&dyn Progress>,
) -> Vec<ParsedFile> {
    let refused = Mutex::new(Vec::new());
    let parsed: Vec<ParsedFile> = files
        .par_iter_mut()
        .with_max_len(4)
        .filter_map(|file| {
            if progress.is_some_and(|progress| progress.check().is_err()) {
                return None; // The caller asks once more, and ends.
            }
            let parsed = file
                .take_bytes()
                .map_err(|reason| (None, reason))
                .and_then(|bytes| parse::parse(file, bytes));
            if let Some(progress) = progress {
                progress.advance(1);
            }
            match parsed {
                Ok(parsed) => Some(parsed),
                Err((line, reason)) => {
                    let skip = Skipped { path: file.display.clone(), line, reason };
                    if let Ok(mut refused) = refused.lock() {
                        refused.push(skip);
                    }
                    None
                }
            }
        })
        .collect();
    let mut refused = refused.into_inner().unwrap_or_default();
    refused.sort_by(|a: &Skipped, b: &Skipped| (&a.path, a.line).cmp(&(&b.path, b.line)));
    skipped.extend(refused);
    parsed
}

/// Adds the modules outside the library that its exported names lead to, as far as they are installed in `roots`.
fn look_into_dependencies(
    parsed: &mut Vec<ParsedFile>,
    reserve: &mut Vec<RawFile>,
    roots: &[PathBuf],
    interpreter: Interpreter,
) {
    if roots.is_empty() && reserve.is_empty() {
        return;
    }
    let mut loaded = 0;
    let mut tried: Vec<String> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let mut wanted = outside_names(parsed, interpreter);
        wanted.retain(|name| !tried.contains(name));
        if wanted.is_empty() || loaded >= MAX_DEPENDENCY_MODULES {
            return;
        }
        let mut files = Vec::new();
        for name in &wanted {
            for (module, found) in modules_of(name, reserve, roots) {
                let known = parsed.iter().any(|file| file.module == module)
                    || files.iter().any(|file: &RawFile| file.module == module);
                if !known {
                    files.extend(found);
                }
            }
        }
        tried.extend(wanted);
        if files.is_empty() {
            return;
        }
        loaded += files.len();
        // Whether a dependency's file parses is not this library's concern.
        parsed.extend(parse_all(files, &mut Vec::new(), None));
    }
}

/// Dotted names outside that exports, their bases and their decorators lead to.
fn outside_names(parsed: &[ParsedFile], interpreter: Interpreter) -> Vec<String> {
    let program = Program::new(parsed, interpreter);
    let library = Library::new(&program);
    program.take_wanted();
    let mut wanted = Vec::new();
    for export in library.exports(false) {
        match &export.target {
            Target::External(name) => wanted.push(Key::External(name.clone())),
            Target::Class(id) => {
                // The constructor may be one that a base class of another library brings.
                let constructs = |&owner: &ClassId| {
                    let scope = &program.classes[owner].scope;
                    scope.get("__init__").is_some() || scope.get("__new__").is_some()
                };
                let made = program.mro(*id).iter().any(constructs);
                for &owner in program.mro(*id) {
                    if !made || !library.program.classes[owner].def.decorator_list.is_empty() {
                        for base in program.bases(owner) {
                            if let Base::Unknown(name) = base {
                                wanted.push(Key::External(name.clone()));
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let mut names: Vec<String> = wanted
        .into_iter()
        .filter_map(|key| match key {
            Key::External(name) if name.contains('.') => Some(name),
            _ => None,
        })
        // Star imports inside a dependency.
        .chain(program.take_wanted().into_iter().filter(|name| name.contains('.')))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The files of the innermost module of `name` that is installed: of `a.b.C` those of `a.b` or, failing that, `a`.
fn modules_of(name: &str, reserve: &mut Vec<RawFile>, roots: &[PathBuf]) -> Vec<(String, Vec<RawFile>)> {
    let mut module = name;
    loop {
        let held: Vec<RawFile> = reserve.extract_if(.., |file| file.module == module).collect();
        if !held.is_empty() {
            return vec![(module.to_owned(), held)];
        }
        for root in roots {
            let files = source::dependency(root, module);
            if !files.is_empty() {
                return vec![(module.to_owned(), files)];
            }
        }
        match module.rsplit_once('.') {
            Some((parent, _)) => module = parent,
            None => return Vec::new(),
        }
    }
}

/// Folders where the dependencies of a source may lie: those of the options and, for an installed package, the folder
/// it is installed in.
pub(super) fn roots(source: &Path, options: &ReadOptions) -> Vec<PathBuf> {
    let mut roots = options.search_paths.clone();
    if let Some(root) = source::import_root(source) {
        let installed =
            root.file_name().is_some_and(|name| name == "site-packages" || name == "dist-packages");
        if installed && !roots.contains(&root) {
            roots.push(root);
        }
    }
    roots
}
