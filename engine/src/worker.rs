//! The model in a process of its own: what the host asks the worker to load, and the worker's side of it.

use std::path::Path;

use inhouse_core::{Error, ErrorKind, Result};
use inhouse_remote::{Load, Worker, WorkerProgram};

use crate::backend::{self, Backend};

/// Starts a worker with the model at `path`.
pub(crate) fn start(
    program: &WorkerProgram,
    path: &Path,
    backend: Backend,
    gpu_layers: u32,
) -> Result<Worker> {
    Worker::start(program, path, Load { backend: backend.name().to_owned(), gpu_layers })
}

/// What the program `inhouse-worker` does: serves the host that started it until that hangs up, with the backends of this
/// build. To be called before anything else opens a file.
///
/// # Errors
/// It was not started by a host, or by one of another build; the host breaks the protocol; work goes on that does not end
/// with the channel ([`ErrorKind::Busy`]), at which the process should end without waiting for it.
pub fn serve_worker() -> Result<()> {
    inhouse_remote::serve(inhouse_remote::channel()?, |path, load| {
        let backend = Backend::named(&load.backend).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, format!("no backend is called `{}`", load.backend))
        })?;
        backend::load(path, backend, load.gpu_layers)
    })
}
