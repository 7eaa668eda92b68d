//! `inhouse-worker`: runs a model for the host that started it, and ends with it. Hosts of libinhouse start it by themselves,
//! and so does `inhouse complete --worker`.

#![forbid(unsafe_code)]

mod log;

use std::process::ExitCode;

use inhouse::ErrorKind;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--version") {
        println!("inhouse-worker {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    log::to_stderr();
    match inhouse::serve_worker() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inhouse-worker: {error}");
            if error.kind() == ErrorKind::Busy {
                // Threads of a backend still compute: what an ordinary exit destroys would be taken from under them.
                std::process::abort();
            }
            ExitCode::from(if error.kind() == ErrorKind::InvalidArgument { 2 } else { 1 })
        }
    }
}
