//! evald as its users meet it: real daemons, real interpreters, real attacks.
//!
//! Every test says why it skips where the host lacks something (user namespaces, root, a Python).

mod cases;
mod client;
mod daemon;
mod escapes;
mod fuzz;
mod hosts;
mod http;
mod logs;
mod machine;
mod metrics;
mod mutants;
mod programs;
mod soak;
mod starting;
mod support;
mod threats;
mod verdicts;
mod wire;
