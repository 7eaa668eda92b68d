//! A list of APIs: what the retriever found, or what stands in a prompt.

use std::sync::OnceLock;

use inhouse::{ApiDoc, Hit};

use crate::boundary::{Out, act, check_aligned, create, read};
use crate::engine::INHOUSE_MAX_APIS;
use crate::error::inhouse_error;
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str};

/// A list of APIs, best first; freed with inhouse_apis_free(). It does not depend on the engine that made it.
pub struct inhouse_apis {
    _private: [u8; 0],
}

handle!(inhouse_apis, Apis);

/// What an `inhouse_apis` stands for.
pub(crate) struct Apis(Vec<Api>);

struct Api {
    name: Text,
    qualified_name: Text,
    signature: Text,
    description: Text,
    label: Text,
    score: f32,
    doc: ApiDoc,
    /// Made when it is first asked for.
    json: OnceLock<Text>,
}

impl Api {
    fn new(doc: ApiDoc, score: f32) -> Self {
        Self {
            name: doc.name.as_str().into(),
            qualified_name: doc.qualified_name.as_str().into(),
            signature: doc.signature.as_str().into(),
            description: doc.description.as_str().into(),
            label: label(&doc).into(),
            score,
            doc,
            json: OnceLock::new(),
        }
    }

    fn json(&self) -> Result<&Text, Failure> {
        if let Some(text) = self.json.get() {
            return Ok(text);
        }
        let text = Text::json(&self.doc)?;
        Ok(self.json.get_or_init(|| text))
    }
}

/// One line for a person who chooses: the name under which it is imported, how it is called, what it does.
fn label(doc: &ApiDoc) -> String {
    let name = if doc.qualified_name.is_empty() { &doc.name } else { &doc.qualified_name };
    let head = format!("{name}{}", doc.signature);
    let line = if doc.description.is_empty() { head } else { format!("{head}: {}", doc.description) };
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl From<Vec<Hit>> for Apis {
    fn from(hits: Vec<Hit>) -> Self {
        Self(hits.into_iter().map(|hit| Api::new(hit.api, hit.score)).collect())
    }
}

impl From<&[ApiDoc]> for Apis {
    fn from(apis: &[ApiDoc]) -> Self {
        Self(apis.iter().map(|api| Api::new(api.clone(), 0.0)).collect())
    }
}

impl Apis {
    /// The records, as a prompt takes them.
    pub(crate) fn docs(&self) -> Vec<ApiDoc> {
        self.0.iter().map(|api| api.doc.clone()).collect()
    }

    /// The chosen ones in the order of the choice, each once.
    fn select(&self, chosen: &[usize]) -> Result<Self, Failure> {
        let mut selected = Vec::new();
        for (at, &idx) in chosen.iter().enumerate() {
            if !chosen[..at].contains(&idx) {
                let api = self.at(idx)?;
                selected.push(Api::new(api.doc.clone(), api.score));
            }
        }
        Ok(Self(selected))
    }

    /// These, then what `more` has beside them.
    fn join(&self, more: &Self) -> Self {
        let is_here = |api: &&Api| !self.0.iter().any(|own| own.doc == api.doc);
        let all = self.0.iter().chain(more.0.iter().filter(is_here));
        Self(all.map(|api| Api::new(api.doc.clone(), api.score)).collect())
    }

    fn at(&self, idx: usize) -> Result<&Api, Failure> {
        self.0.get(idx).ok_or_else(|| Failure::invalid(format!("no API {idx} in a list of {}", self.0.len())))
    }
}

fn text(apis: *const inhouse_apis, idx: usize, field: impl FnOnce(&Api) -> &Text) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(field(handle::get(apis)?.at(idx)?).view()))
}

/// Number of APIs in a list.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `apis` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_count(apis: *const inhouse_apis) -> usize {
    read(0, || Ok(handle::get(apis)?.0.len()))
}

/// The bare name of API `idx`, as it is written at the call: "read_csv".
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_name(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    text(apis, idx, |api| &api.name)
}

/// The dotted name of API `idx` under which users import it: "pandas.read_csv"; empty where it is not known.
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_qualified_name(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    text(apis, idx, |api| &api.qualified_name)
}

/// The signature of API `idx` as users call it: "(path, sep=',') -> DataFrame"; empty where it is not called.
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_signature(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    text(apis, idx, |api| &api.signature)
}

/// The first sentence of the documentation of API `idx`; empty where there is none.
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_description(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    text(apis, idx, |api| &api.description)
}

/// API `idx` in one line, for a person who chooses among several: "pandas.read_csv(path, sep=',') -> DataFrame: Reads a
/// table from a file."
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_label(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    text(apis, idx, |api| &api.label)
}

/// Everything that is known of API `idx` (aliases, module, whole docstring, examples, source) as one JSON object, the
/// row of an apis.jsonl file.
///
/// Ownership: the view belongs to `apis` and is valid until inhouse_apis_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `apis` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_json(apis: *const inhouse_apis, idx: usize) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(apis)?.at(idx)?.json()?.view()))
}

/// How well API `idx` fits the query: higher is better, comparable within one list only. 0 in a list that no query
/// made.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives 0.
/// Null: `apis` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_score(apis: *const inhouse_apis, idx: usize) -> f32 {
    read(0.0, || Ok(handle::get(apis)?.at(idx)?.score))
}

/// Those of a list that a person chose: `n` indices at `indices`, in the order in which they are to stand in a prompt.
/// An index given twice counts once; with `n` 0 ("none of the above") the new list is empty.
///
/// Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on `apis`. `indices` is
/// copied.
/// Threads: any, also at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for an index out of range;
/// INHOUSE_STATUS_LIMIT_EXCEEDED for `n` over INHOUSE_MAX_APIS.
/// Null: `apis` and `out` must not be NULL; `indices` may be where `n` is 0; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_apis_select(
    apis: *const inhouse_apis,
    indices: *const usize,
    n: usize,
    out: *mut *mut inhouse_apis,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let select = || {
        let apis = handle::get(apis)?;
        if n == 0 {
            return apis.select(&[]);
        }
        if indices.is_null() {
            return Err(Failure::invalid(format!("`indices` is NULL, but `n` is {n}")));
        }
        check_aligned(indices, "indices")?;
        if n > INHOUSE_MAX_APIS {
            return Err(Failure::limit(format!("`n` {n} is over the limit of {INHOUSE_MAX_APIS}")));
        }
        // SAFETY: not null, aligned, `n` numbers readable by the host's promise; no reference outlives the copy.
        let chosen = unsafe { std::slice::from_raw_parts(indices, n) }.to_vec();
        apis.select(&chosen)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, select) }
}

/// Two lists as one: the APIs of `first`, then those of `second` that are not among them. So a person may choose from
/// the answers to several queries.
///
/// Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on the two.
/// Threads: any, also at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `first`, `second` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_apis_join(
    first: *const inhouse_apis,
    second: *const inhouse_apis,
    out: *mut *mut inhouse_apis,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let join = || Ok(handle::get(first)?.join(&*handle::get(second)?));
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, join) }
}

/// Frees a list.
///
/// Ownership: takes `apis` back; views of its texts end.
/// Threads: any; not while another thread still reads its texts.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `apis` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_apis_free(apis: *mut inhouse_apis) -> inhouse_status {
    act(|| handle::release(apis))
}
