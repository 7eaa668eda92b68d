//! The journal of an evaluation: what is decided stands here until the results are written, so that a killed run goes on
//! with nothing lost and nothing run twice.
//!
//! `OUT.journal` is a file of lines that is only ever appended to:
//!
//! ```text
//! {"inhouse_eval_journal":1}
//! 5d0c9b1e {"key":{"digest":"<SHA-256>","nth":0},"result":{"verdict":"passed",...}}
//! ```
//!
//! The eight hexadecimal digits are the CRC-32 of the rest of the line, and key and result share a line, so that no damage
//! turns into a verdict. A row is one `write`: the death of the process tears at most the last one, and a power cut takes
//! about [`SYNC_EVERY`] of work. From the first row that is torn or damaged the file is cut; what stood there is run again.
//!
//! What a key does not see: the packages that are installed in the interpreter's folder. Whoever changes those between the
//! kill and the second try removes the journal.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evald_proto::{Job, JobResult, TrustWish, Verdict};
use inhouse_core::{Error, ErrorKind, Progress, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the format; in the first line of every journal.
const VERSION: u32 = 1;
/// No row is longer: a result came over evald's wire, whose lines are bounded, and the key is short.
const MAX_ROW_BYTES: u64 = evald_proto::MAX_LINE_BYTES as u64 + 4096;
/// No first line is longer.
const MAX_HEADER_BYTES: u64 = 4096;
/// Rows are forced to the disk this often. Not a kill, only a power cut can take those in between, and a sync for each row
/// would cost more than running a sample does.
const SYNC_EVERY: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Header {
    inhouse_eval_journal: u32,
}

#[derive(Serialize, Deserialize)]
struct Row<K, R> {
    key: K,
    result: R,
}

/// What a result is the result of: two jobs with the same key cannot be told apart by anything that decides a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// SHA-256 of the code, the test, the environment and the policy, in hexadecimal.
    digest: String,
    /// How many equal jobs stand before it. Equal samples are all run, as without a journal: each has times of its own,
    /// and what is flaky shows.
    nth: u32,
}

/// The keys of jobs. `runner` describes all that bears on their verdicts beside the jobs themselves.
pub(crate) fn keys<'a>(runner: &str, jobs: impl IntoIterator<Item = &'a Job>) -> Result<Vec<Key>> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    jobs.into_iter()
        .map(|job| {
            // In full, so that a field that is added to a job cannot be forgotten here.
            // What a job writes decides nothing, kept or not.
            let Job { id: _, code, test, env, limits, keep_output: _, entry_point, prompt, trust, program } =
                job;
            let trust = trust.map_or("", TrustWish::as_str);
            let limits = serde_json::to_string(limits)
                .map_err(|cause| Error::with_source(ErrorKind::Internal, "cannot write limits", cause))?;
            let program =
                program.as_ref().map_or(Ok(String::new()), serde_json::to_string).map_err(|cause| {
                    Error::with_source(ErrorKind::Internal, "cannot write a program's input", cause)
                })?;
            let mut hash = Sha256::new();
            // A part that only programs have changes no digest of the others.
            let program = (!program.is_empty()).then_some(program.as_str());
            let parts = [runner, code, test, env, &limits, entry_point, prompt, trust];
            for part in parts.into_iter().chain(program) {
                // The lengths keep `ab`, `c` apart from `a`, `bc`.
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
            let digest = format!("{:x}", hash.finalize());
            let nth = seen.entry(digest.clone()).or_default();
            let key = Key { digest, nth: *nth };
            *nth += 1;
            Ok(key)
        })
        .collect()
}

/// An open journal, locked against other runs.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    found: HashMap<Key, JobResult>,
    /// Rows in the file.
    rows: usize,
    synced: Instant,
    removed: bool,
}

impl Journal {
    /// The journal for the results `out`: none where they go to standard output, a pipe or a device.
    ///
    /// # Errors
    /// As [`Journal::open`]; also where `out` is a folder, which could not be written when all is done.
    pub(crate) fn beside(out: &Path, progress: &dyn Progress) -> Result<Option<Self>> {
        match std::fs::metadata(out) {
            _ if out == Path::new("-") => Ok(None),
            Ok(there) if there.is_dir() => {
                Err(Error::data(out, "is a folder, expected a file for the results"))
            }
            Ok(there) if !there.is_file() => Ok(None),
            _ => Self::open(out, progress).map(Some),
        }
    }

    /// Opens the journal of the results file `out`, or begins one. A torn or damaged tail is cut, with a note.
    ///
    /// # Errors
    /// Another run writes it ([`ErrorKind::Busy`]); it is of a version that this build does not read; the file is no
    /// journal, and is left alone; or it cannot be read or written.
    fn open(out: &Path, progress: &dyn Progress) -> Result<Self> {
        let mut path = out.as_os_str().to_owned();
        path.push(".journal");
        let path = PathBuf::from(path);
        let mut file = open_locked(&path)?;
        let io = |cause| Error::io("write", &path, cause);
        let bytes = file.metadata().map_err(io)?.len();
        let Scan { keep, rows, found } = scan(&path, &mut BufReader::new(&file))?;
        if keep < bytes {
            progress.note(&format!(
                "{}: torn or damaged after {rows} results: the last {} bytes are cut, what they held is run again",
                path.display(),
                bytes - keep
            ));
            file.set_len(keep).map_err(io)?;
        }
        if keep == 0 {
            file.write_all(header()?.as_bytes()).map_err(io)?;
        }
        if keep < bytes || keep == 0 {
            file.sync_data().map_err(io)?;
            // The new name must survive a power cut too; a folder that cannot be synced is no error.
            if let Some(folder) = path.parent() {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                File::open(folder).and_then(|folder| folder.sync_all()).ok();
            }
        }
        Ok(Self { path, file, found, rows, synced: Instant::now(), removed: false })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Results in the file, those of other jobs included.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The result that an earlier run left for a key.
    pub(crate) fn take(&mut self, key: &Key) -> Option<JobResult> {
        self.found.remove(key)
    }

    /// Records a result. A sandbox that failed says nothing about the sample: such a result is not recorded, so that the
    /// sample is run again.
    ///
    /// # Errors
    /// The file cannot be written (a full disk).
    pub(crate) fn append(&mut self, key: &Key, result: &JobResult) -> Result<()> {
        if result.verdict == Verdict::InfraError {
            return Ok(());
        }
        let row = serde_json::to_string(&Row { key, result })
            .map_err(|cause| Error::with_source(ErrorKind::Internal, "cannot write a result", cause))?;
        let line = format!("{:08x} {row}\n", crc32fast::hash(row.as_bytes()));
        let io = |cause| Error::io("write", &self.path, cause);
        self.file.write_all(line.as_bytes()).map_err(io)?;
        self.rows += 1;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.file.sync_data().map_err(io)?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// Removes the file: the results are written elsewhere now.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.removed = true;
        std::fs::remove_file(&self.path).map_err(|cause| Error::io("remove", &self.path, cause))
    }
}

impl Drop for Journal {
    /// A run that failed before its first result leaves nothing behind. The lock is still held, so the file is ours.
    fn drop(&mut self) {
        if self.rows == 0 && !self.removed {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn header() -> Result<String> {
    serde_json::to_string(&Header { inhouse_eval_journal: VERSION }).map(|line| line + "\n").map_err(
        |cause| Error::with_source(ErrorKind::Internal, "cannot write a journal's first line", cause),
    )
}

/// Opens or creates a file and locks it. The operating system takes the lock back when the process ends, however it ends.
fn open_locked(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(|cause| Error::io("open", path, cause))?;
        let ours = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
        if !ours.is_file() {
            return Err(Error::data(path, "is no regular file; choose another name for the results"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another run is writing this journal; wait for its end, or choose another --out";
                return Err(Error::new(ErrorKind::Busy, format!("{}: {what}", path.display())));
            }
            Err(TryLockError::Error(cause)) => return Err(Error::io("lock", path, cause)),
        }
        // A run that ended between the two calls has removed the name: what is locked then is no file of anybody's.
        let there = std::fs::metadata(path);
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

/// What a journal holds.
#[derive(Default)]
struct Scan {
    /// Bytes up to the end of the last good row.
    keep: u64,
    /// Good rows.
    rows: usize,
    found: HashMap<Key, JobResult>,
}

fn scan(path: &Path, reader: &mut impl BufRead) -> Result<Scan> {
    let mut line = Vec::new();
    let io = |cause| Error::io("read", path, cause);
    let mut position =
        reader.by_ref().take(MAX_HEADER_BYTES).read_until(b'\n', &mut line).map_err(io)? as u64;
    if header()?.as_bytes().starts_with(&line) && line.last() != Some(&b'\n') {
        // Empty, or killed while it was begun.
        return Ok(Scan::default());
    }
    match serde_json::from_slice::<Header>(&line) {
        Ok(Header { inhouse_eval_journal: VERSION }) if line.ends_with(b"\n") => {}
        Ok(Header { inhouse_eval_journal: version }) if line.ends_with(b"\n") => {
            let message = format!(
                "{}: a journal of version {version}, this build reads {VERSION}; finish the run with the build that began \
                 it, or remove the file to run all samples again",
                path.display()
            );
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        _ => {
            let what = "not a journal of `inhouse eval`, or its first line is damaged; remove it, or choose another --out";
            return Err(Error::data(path, what));
        }
    }
    let mut scan = Scan { keep: position, ..Scan::default() };
    loop {
        line.clear();
        position += reader.by_ref().take(MAX_ROW_BYTES).read_until(b'\n', &mut line).map_err(io)? as u64;
        let Some(Row { key, result }) = row(&line) else { break };
        scan.keep = position;
        scan.rows += 1;
        scan.found.entry(key).or_insert(result);
    }
    Ok(scan)
}

/// A row, if the line is whole and sound.
fn row(line: &[u8]) -> Option<Row<Key, JobResult>> {
    let (crc, rest) = line.strip_suffix(b"\n")?.split_at_checked(8)?;
    let rest = rest.strip_prefix(b" ")?;
    if format!("{:08x}", crc32fast::hash(rest)).as_bytes() != crc {
        return None;
    }
    let row: Row<Key, JobResult> = serde_json::from_slice(rest).ok()?;
    let result = &row.result;
    let sound = result.verdict != Verdict::InfraError && result.passed == (result.verdict == Verdict::Passed);
    sound.then_some(row)
}

#[cfg(test)]
mod tests;
