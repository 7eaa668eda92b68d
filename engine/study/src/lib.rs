//! Problem sets, sampling, evaluation and the figures of a study.

#![forbid(unsafe_code)]

pub mod problems;
pub mod recall;
