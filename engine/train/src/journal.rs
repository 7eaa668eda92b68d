//! What the trainers write and read of themselves: `log.jsonl`, and the memory of the process.

use std::io::Write;
use std::path::{Path, PathBuf};

use inhouse_core::{Error, ErrorKind, Result, files};
use serde::Serialize;

/// Resident memory of this process in MiB, where the system tells.
pub fn memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// `log.jsonl`: what was told, one object a line. A resumed run adds to it.
pub struct Log {
    file: std::fs::File,
    path: PathBuf,
}

impl Log {
    /// Opens or creates it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: file.map_err(|cause| Error::io("open", path, cause))?, path: path.to_owned() })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, what: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(what)
            .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write the log: {cause}")))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|cause| Error::io("write", &self.path, cause))
    }
}

/// Writes a file of JSON whole.
///
/// # Errors
/// It cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    files::write_atomic(path, |file| Ok(serde_json::to_writer_pretty(file, value)?))
}
