//! The documentation record of one API and its file format, `apis.jsonl`.

mod inherited;

use std::path::Path;

pub(crate) use inherited::{Heirs, Hidden, name_heirs, name_hidden};
pub use inherited::{OF_BASES, expand};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::{Error, Result};

/// What an API is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ApiKind {
    /// An importable module or package.
    Module,
    /// A class; its signature is its constructor's.
    Class,
    /// A module-level function.
    Function,
    /// A method, class method or static method; its signature is what follows `receiver.name`.
    Method,
    /// A property or attribute read without a call.
    Property,
    /// A module-level or class-level constant.
    Constant,
}

/// In [`ApiDoc::undocumented`]: names that cannot be listed.
pub const OTHERS: &str = "*";

/// Where an API is defined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLocation {
    /// Path inside the package, wheel or sdist, with `/`.
    pub path: String,
    /// 1-based line of the definition.
    pub line: u32,
}

/// One API as a user of the library sees it: one row of `apis.jsonl`.
///
/// Only `name` is required when a file is read; empty fields are left out when it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiDoc {
    /// The bare name, as it is written at the call: `read_csv`.
    pub name: String,
    /// The dotted name under which users import it: `pandas.read_csv`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub qualified_name: String,
    /// What it is; `None` where the source did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ApiKind>,
    /// `(a, b=1) -> int` as the user must call it (no `self`), or empty where it is not called.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// The first sentence of its documentation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The module under which users import it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub module: String,
    /// Other names of the same thing: further import paths, names registered by a decorator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Of a member in a row of a file: how many further classes inherit it, whose names `aliases` leaves out because their
    /// `bases` lead to it. [`expand`] puts them back; reading a file does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inherited_by: usize,
    /// Of a class: its base classes, by the names under which they are documented, or as the source writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<String>,
    /// Of a module or class: names that it or its objects have and no record documents (private ones, attributes set
    /// by methods). [`OTHERS`] among them: there may be more (`__getattr__`, a base class that is not documented). [`OF_BASES`] among
    /// them, in a row of a file: and those of its base classes, without names behind a `-`.
    /// `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undocumented: Option<Vec<String>>,
    /// Of a method: the parameter that a call through its object or class fills in (`self`, `cls`) and that `signature` leaves out;
    /// absent for static methods and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
    /// The whole docstring, dedented.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doc: String,
    /// Usage examples from the documentation, one string each, prompts (`>>>`) kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// Where it is defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceLocation>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl ApiDoc {
    /// `name(signature): description`, the line that goes into a prompt (Figure 3 of arXiv 2210.17236).
    ///
    /// White space, line breaks included, is folded, so that it is always one line. A method's [`receiver`](Self::receiver) stands first
    /// among its parameters, as in the paper's prompts: without it nothing in the line tells a method from a function.
    pub fn prompt_line(&self) -> String {
        let fold = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let signature = with_receiver(&fold(&self.signature), self.receiver.as_deref());
        let head = format!("{}{signature}", fold(&self.name));
        let description = fold(&self.description);
        if description.is_empty() { head } else { format!("{head}: {description}") }
    }

    /// The library that a record belongs to: the first component of its module or qualified name, empty where it has
    /// neither.
    pub fn library(&self) -> &str {
        let dotted = if self.module.is_empty() { &self.qualified_name } else { &self.module };
        match dotted.split_once('.') {
            Some((first, _)) => first,
            // a bare `qualified_name` that only repeats the name says nothing of a library, unless it is the library itself
            None if self.module.is_empty() && *dotted == self.name && self.kind != Some(ApiKind::Module) => {
                ""
            }
            None => dotted,
        }
    }
}

/// `(a, b)` with the receiver before its parameters: `(self, a, b)`. A text that is no parameter list stays as it is.
fn with_receiver(signature: &str, receiver: Option<&str>) -> String {
    match (receiver, signature.strip_prefix('(')) {
        (Some(receiver), Some(rest)) if rest.starts_with(')') => format!("({receiver}{rest}"),
        (Some(receiver), Some(rest)) => format!("({receiver}, {rest}"),
        _ => signature.to_owned(),
    }
}

/// Reads `apis.jsonl` (plain or gzip; `-` is standard input).
///
/// Blank lines are passed over; unknown fields are ignored; names that rows leave out are put back ([`expand`]).
///
/// # Errors
/// The file cannot be read, is larger than [`files::MAX_FILE_BYTES`], is not UTF-8, or a row is not a JSON object
/// with a non-empty `name`: the error names the file, the line and the fault. A file without any row is an error too.
pub fn read_jsonl(path: &Path) -> Result<Vec<ApiDoc>> {
    let mut apis = Vec::new();
    for row in files::json_lines::<ApiDoc>(path)? {
        let (line, api) = row?;
        if api.name.trim().is_empty() {
            return Err(Error::data_at(path, line, "`name` is empty"));
        }
        apis.push(api);
    }
    if apis.is_empty() {
        return Err(Error::data(path, "no API in this file (expected one JSON object a line)"));
    }
    expand(&mut apis);
    Ok(apis)
}

/// Writes `apis.jsonl` atomically (gzip when the name ends in `.gz`; `-` is standard output).
///
/// # Errors
/// The file cannot be written; an existing one is then left as it was.
pub fn write_jsonl(path: &Path, apis: &[ApiDoc]) -> Result<()> {
    files::write_json_lines(path, apis.iter())
}
