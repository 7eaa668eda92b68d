//! `inhouse-train`: training data from public packages, and the trainers.
//!
//! Reading order: [`sources`] (the pinned packages) -> [`corpus`] (their files and blocks) -> [`pairs`] (what is said of code,
//! and the APIs it calls) -> [`ranker`] (weights of signals), [`retriever`] (the dual encoder's trainer) and [`coder`] (the language model's), on [`optimizer`] (AdamW,
//! schedule, clipping) and [`snapshot`] (what a killed run goes on from). Nothing of a package is ever run.

#![forbid(unsafe_code)]

pub mod coder;
pub mod corpus;
mod journal;
pub mod optimizer;
pub mod pairs;
pub mod ranker;
pub mod retriever;
pub mod snapshot;
pub mod sources;

use std::path::Path;

use inhouse_core::{Error, ErrorKind, Result, files};
use serde::de::DeserializeOwned;

/// A configuration in TOML; what is wrong with it is an error with the line.
fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = files::read_text(path)?;
    toml::from_str(&text).map_err(|cause| {
        let what = cause.message().trim().replace('\n', " ");
        match cause.span() {
            Some(span) => Error::data_at(path, text[..span.start].matches('\n').count() + 1, what),
            None => Error::data(path, what),
        }
    })
}

/// An error of candle as the engine's: its first line, since the rest is a backtrace.
fn backend_error(error: candle_core::Error) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Error::with_source(ErrorKind::Backend, format!("candle: {line}"), error)
}
