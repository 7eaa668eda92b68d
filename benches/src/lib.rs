//! Criterion benches of the workspace; they live in `benches/`, this library is empty.

#![forbid(unsafe_code)]
