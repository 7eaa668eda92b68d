//! What decides a sample: its test, read before it runs.
//!
//! A test that did not run decides nothing. So that this is judged by what was executed, and not by how the text looks,
//! each place in it that can make it fail gets a mark ([`marked`]) that is counted as it is passed.

mod marks;
mod needs;

pub use marks::{MARK, Marked, marked};
pub use needs::needs;

use crate::cpython::{CODE_FILE, TEST_FILE};

/// What decides, in the process of the candidate or in one of its own.
const DECIDING: &str = include_str!("python/deciding.py");
const ENDS: &str = include_str!("python/ends.py");

/// The Python of both ends of a test: what runs the candidate for its judge, what judges, and what decides in one process.
pub fn harness() -> String {
    let parts = [
        &names(),
        include_str!("python/codec.py"),
        include_str!("python/libraries.py"),
        include_str!("python/peer.py"),
        include_str!("python/candidate.py"),
        DECIDING,
        include_str!("python/judge.py"),
        ENDS,
    ];
    parts.join("\n")
}

/// As [`harness`], for an interpreter that runs no candidate without its test.
pub fn harness_of_one_process() -> String {
    [&names(), DECIDING, ENDS].join("\n")
}

fn names() -> String {
    format!("CODE_FILE, TEST_FILE, MARK = {CODE_FILE:?}, {TEST_FILE:?}, {MARK:?}\n")
}
