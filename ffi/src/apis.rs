//! A list of APIs: what the retriever found, or what stands in a prompt.

use std::sync::OnceLock;

use inhouse::{ApiDoc, Hit};

use crate::boundary::{act, read};
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
            score,
            doc,
            json: OnceLock::new(),
        }
    }

    fn json(&self) -> Result<&Text, Failure> {
        if let Some(text) = self.json.get() {
            return Ok(text);
        }
        let text = serde_json::to_string(&self.doc)
            .map_err(|cause| Failure::new(inhouse_status::INHOUSE_STATUS_INTERNAL, cause.to_string()))?;
        Ok(self.json.get_or_init(|| text.into()))
    }
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
