//! Documentation read and indexes written.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse::docs::{self, Documentation, ReadOptions};
use inhouse::index::{self, BuildOptions, Index, UpdateOptions, UpdateScope};
use inhouse::{EncoderChoice, api};
use serde_json::{Value, json};

use crate::boundary::{Out, act, create};
use crate::cancel::inhouse_cancel;
use crate::engine::INHOUSE_MAX_THREADS;
use crate::error::inhouse_error;
use crate::handle;
use crate::params::{self, Params, flag};
use crate::progress::{Watcher, inhouse_on_progress};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, check_input, inhouse_str, inhouse_text, installed, read_input_paths};

/// No call reads more sources.
pub const INHOUSE_MAX_SOURCES: usize = 4096;

/// What inhouse_docs_read(), inhouse_index_build() and inhouse_index_update() read. Set up with
/// inhouse_index_params_init(), then change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_index_params {
    /// Size of the struct in bytes as the host knows it.
    pub struct_size: usize,
    /// Ends the work when it is set; NULL: nothing does. It must not be freed before the call begins. Default: NULL.
    pub cancel: *const inhouse_cancel,
    /// Called as the work goes on; NULL: not called. Default: NULL.
    pub on_progress: inhouse_on_progress,
    /// Passed to `on_progress` as it is. Default: NULL.
    pub user_data: *mut c_void,
    /// What is read: paths of package folders, .py and .pyi files, wheels, sdists, objects.inv with its HTML beside it,
    /// apis.jsonl (plain or gzip). Nothing of them is imported or run. Default: NULL.
    pub sources: *const inhouse_str,
    /// Length of `sources`, 1 to INHOUSE_MAX_SOURCES. Default: 0.
    pub n_sources: usize,
    /// Folders with installed packages (site-packages) in which names that a library re-exports from its dependencies are
    /// looked up. Default: NULL.
    pub search_paths: *const inhouse_str,
    /// Length of `search_paths`, at most INHOUSE_MAX_SOURCES. Default: 0.
    pub n_search_paths: usize,
    /// Threads that parse, at most INHOUSE_MAX_THREADS; 0: one per core. Default: 0.
    pub threads: u32,
    /// 1: modules and names that begin with an underscore are listed, too. Default: 0.
    pub include_private: i32,
    /// inhouse_index_update(): 1 removes what the sources no longer name even where they may be a part of their library
    /// (a module alone, rows of an apis.jsonl). Default: 0.
    pub prune: i32,
    /// Zero.
    pub reserved: u32,
    /// Text encoder of the index, a Hugging Face folder or a GGUF file: the index is then searched by meaning, too.
    /// "default" is the retriever that comes with inhouse. inhouse_index_build(): unset: by words alone.
    /// inhouse_index_update(): unset: the encoder that the index was built with, from where it was then; else where that
    /// encoder, or its conversion to another format, is now. Default: unset.
    pub encoder: inhouse_str,
}

// SAFETY: `repr(C)`; eight words of the machine, four 32-bit numbers and a view leave no padding; numbers, raw pointers and an
// optional function pointer take every bit pattern.
unsafe impl Params for inhouse_index_params {
    const NAME: &'static str = "inhouse_index_params";
    const FIRST_SIZE: usize = offset_of!(Self, encoder);

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            cancel: std::ptr::null(),
            on_progress: None,
            user_data: std::ptr::null_mut(),
            sources: std::ptr::null(),
            n_sources: 0,
            search_paths: std::ptr::null(),
            n_search_paths: 0,
            threads: 0,
            include_private: 0,
            prune: 0,
            reserved: 0,
            encoder: inhouse_str::ABSENT,
        }
    }
}

/// What is read, and who watches.
struct Work {
    sources: Vec<PathBuf>,
    options: ReadOptions,
    prune: bool,
    encoder: Option<PathBuf>,
    watcher: Watcher,
}

impl Work {
    /// # Safety
    /// `params` is as [`params::read`] wants it, its arrays as [`read_input_paths`] does, and its callback can be called from any
    /// thread as long as the value lives.
    unsafe fn of(params: *const inhouse_index_params) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let params = unsafe { params::read(params) }?;
        if params.reserved != 0 {
            return Err(Failure::invalid("`reserved` is not 0: call inhouse_index_params_init first"));
        }
        if params.threads > INHOUSE_MAX_THREADS {
            let fault = format!("`threads` {} is over the limit of {INHOUSE_MAX_THREADS}", params.threads);
            return Err(Failure::limit(fault));
        }
        if params.n_sources == 0 {
            return Err(Failure::invalid("`n_sources` is 0: there is nothing to read"));
        }
        // SAFETY: the caller's promise, for all.
        let (sources, search_paths, encoder) = unsafe {
            let most = INHOUSE_MAX_SOURCES;
            (
                read_input_paths(params.sources, params.n_sources, "sources", most)?,
                read_input_paths(params.search_paths, params.n_search_paths, "search_paths", most)?,
                params.encoder.read_path("encoder")?,
            )
        };
        let encoder = match encoder {
            Some(path) => match installed(&path, "encoder", inhouse::shipped_retriever)? {
                Some(retriever) => Some(retriever),
                None => {
                    check_input(&path, "encoder")?;
                    Some(path)
                }
            },
            None => None,
        };
        let mut options = ReadOptions::default();
        options.include_private = flag("include_private", params.include_private)?;
        options.search_paths = search_paths;
        options.threads = (params.threads > 0).then_some(params.threads as usize);
        let cancel = if params.cancel.is_null() { Arc::default() } else { handle::get(params.cancel)? };
        // SAFETY: the caller's promise.
        let watcher = unsafe { Watcher::new(params.on_progress, params.user_data, cancel.as_ref().clone()) };
        Ok(Self { sources, options, prune: flag("prune", params.prune)?, encoder, watcher })
    }

    fn read(&self) -> Result<Documentation, Failure> {
        Ok(docs::read_all(&self.sources, &self.options, &self.watcher)?)
    }
}

/// What was read, for the reports.
fn reading(documentation: &Documentation, mut report: Value) -> Text {
    report["files_read"] = json!(documentation.files_read);
    report["skipped"] = json!(documentation.skipped);
    report.to_string().into()
}

/// Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
///
/// Ownership: nothing changes hands.
/// Threads: any; the struct is the host's.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
/// Null: `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_index_params_init(
    params: *mut inhouse_index_params,
    struct_size: usize,
) -> inhouse_status {
    // SAFETY: the host promises `struct_size` writable bytes.
    act(|| unsafe { params::init(params, struct_size) })
}

/// Reads the documentation of `params->sources` and writes it to the file `path` as apis.jsonl, one JSON object per API
/// (compressed where the name ends in .gz). A file that is there is replaced in one step. `*out` is a report, a JSON
/// object: `apis` (their number), `files_read`, `skipped` (files that do not parse: `path`, `line`, `reason`).
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
/// Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
/// Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA (also an archive that is hostile or damaged, a source of no known
/// kind), _LIMIT_EXCEEDED for the sources; INHOUSE_STATUS_IO for `path`; INHOUSE_STATUS_INVALID_HANDLE (`cancel`);
/// INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_CANCELLED.
/// Null: `params` must not be NULL; `out` may be (no report), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_docs_read(
    path: inhouse_str,
    params: *const inhouse_index_params,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let write = || {
        // SAFETY: the host promises that the view can be read, that `params` is as long as it says, and that its callback
        // can be called from any thread.
        let (path, work) = unsafe { (path.read_required_path("path")?, Work::of(params)?) };
        if path == Path::new("-") {
            return Err(Failure::invalid("`path` is `-`: standard output is the host's"));
        }
        let documentation = work.read()?;
        api::write_jsonl(&path, &documentation.apis)?;
        Ok(reading(&documentation, json!({"apis": documentation.apis.len()})))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Optional, error, write) }
}

/// Builds an index over the documentation of `params->sources` in the folder `folder`, which is made where it does not
/// exist. An index that is there answers until the new one is whole and is then replaced in one step; engines that have
/// it open keep what they opened (inhouse_engine_with_index() takes the new one). `*out` is a report, a JSON object:
/// `index` (as inhouse_index_info()), `files_read`, `skipped`.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
/// Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
/// Errors: as inhouse_docs_read(), and as inhouse_encoder_open() for `encoder`; INHOUSE_STATUS_INVALID_ARGUMENT also where
/// `folder` holds anything but an index; INHOUSE_STATUS_BUSY where another writer is at work on it. The old index is then as
/// it was.
/// Null: `params` must not be NULL; `out` may be (no report), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_index_build(
    folder: inhouse_str,
    params: *const inhouse_index_params,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let build = || {
        // SAFETY: the host promises that the view can be read, that `params` is as long as it says, and that its callback
        // can be called from any thread.
        let (folder, work) = unsafe { (folder.read_required_path("folder")?, Work::of(params)?) };
        let encoder = work.encoder.as_deref().map(inhouse::index_encoder).transpose()?;
        let documentation = work.read()?;
        let options = BuildOptions { encoder, ..BuildOptions::default() };
        let info = index::build(&documentation.apis, &folder, &options, &work.watcher)?;
        Ok(reading(&documentation, json!({"index": info})))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Optional, error, build) }
}

/// Brings the index in the folder `folder` up to date with a fresh reading of some libraries: records are added and
/// replaced, and of a package given as a whole what is gone is removed (`prune`: of every library). Unchanged records are
/// not written again; engines keep what they opened (inhouse_engine_with_index() takes the new state). `*out` is a
/// report, a JSON object: `added`, `replaced`, `removed`, `unchanged`, `files_read`, `skipped`.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). `params` and its texts are copied.
/// Threads: any. It may take seconds and starts threads of its own: not for a user interface's thread.
/// Errors: as inhouse_index_build(), and INHOUSE_STATUS_NOT_FOUND, _INVALID_DATA, _UNSUPPORTED_VERSION where `folder` holds
/// no index that this build reads, INHOUSE_STATUS_INVALID_ARGUMENT where `encoder` is not the index's. The index is then as it
/// was.
/// Null: `params` must not be NULL; `out` may be (no report), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_index_update(
    folder: inhouse_str,
    params: *const inhouse_index_params,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let update = || {
        // SAFETY: the host promises that the view can be read, that `params` is as long as it says, and that its callback
        // can be called from any thread.
        let (folder, work) = unsafe { (folder.read_required_path("folder")?, Work::of(params)?) };
        let choice = work.encoder.clone().map_or(EncoderChoice::OfIndex, EncoderChoice::At);
        let encoder = inhouse::encoder_for_update(&folder, &choice)?;
        let mut documentation = work.read()?;
        let scope = match work.prune {
            true => UpdateScope::Libraries,
            false => UpdateScope::Only(std::mem::take(&mut documentation.whole_libraries)),
        };
        let options = UpdateOptions { scope, encoder, usage: None };
        let report = index::update(&folder, &documentation.apis, &options, &work.watcher)?;
        Ok(reading(&documentation, json!(report)))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Optional, error, update) }
}

/// Facts about the index in the folder `folder` as a JSON object: `path`, `format_version`, `generation` (grows with every
/// build and update), `apis`, `names`, `libraries` (records of each), `segments`, `deleted`, `bytes`, `encoder`, `weights`.
/// Unknown members must be passed over: more may come.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). `folder` is copied.
/// Threads: any.
/// Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION; INHOUSE_STATUS_INVALID_ARGUMENT;
/// INHOUSE_STATUS_LIMIT_EXCEEDED.
/// Null: `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_index_info(
    folder: inhouse_str,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let info = || {
        // SAFETY: the host promises that the view can be read.
        let folder = unsafe { folder.read_required_path("folder") }?;
        Text::json(&Index::open(&folder)?.info())
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, info) }
}
