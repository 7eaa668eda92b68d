//! `inhouse-study`: problem sets, samples, recall, evaluation and pass@k.
//!
//! Problems come in ([`problems`]), the engine completes them ([`generate`]), evald runs the completions ([`evaluate`]), and
//! out come the figures ([`mod@pass_at_k`], [`recall`]). Nothing here runs Python or draws a token itself.

#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod chart;
#[cfg(test)]
mod estimates;
pub mod evaluate;
pub mod generate;
pub mod introspect;
mod journal;
mod judge;
pub mod naming;
pub mod pass_at_k;
pub mod privatize;
pub mod problems;
pub mod recall;
pub mod rename;
pub mod samples;
pub mod study;
pub mod twin;
pub mod unusable;
