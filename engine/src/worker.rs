//! The model in a process of its own: what the host asks the worker to load, and the worker's side of it.

use inhouse_core::{Error, ErrorKind, Result};
use inhouse_remote::{Load, Worker, WorkerProgram};

use crate::backend::{self, Backend, Source};

/// Starts a worker with a model.
pub(crate) fn start(program: &WorkerProgram, source: &Source<'_>) -> Result<Worker> {
    let load = Load::new(source.backend.name(), source.gpu_layers).with_adapters(source.adapters.to_vec());
    Worker::start(program, source.path, load)
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
        let source = Source { path, backend, gpu_layers: load.gpu_layers, adapters: &load.adapters };
        backend::load(&source, true)
    })
}
