//! Files as this project reads and writes them: size-limited, gzip-transparent, line-numbered, atomic.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::display_path;
use crate::{Error, ErrorKind, Result};

/// No text file (documentation, problems, samples) is read beyond this many bytes, after decompression.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// No line of a JSON-lines file may be longer, so that a file of zeros costs no memory.
pub const MAX_LINE_BYTES: u64 = 64 << 20;

/// Opens a text file for reading: `-` is standard input; gzip is recognised by its magic bytes, not by the name.
///
/// # Errors
/// The file does not exist, is a folder, or cannot be opened.
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let raw: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
        let meta = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
        if meta.is_dir() {
            return Err(Error::data(path, "is a folder, expected a file"));
        }
        if meta.is_file() && meta.len() > MAX_FILE_BYTES {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "{}: {} bytes is over the limit of {MAX_FILE_BYTES} bytes",
                    path.display(),
                    meta.len()
                ),
            ));
        }
        Box::new(file)
    };
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    let head = raw.fill_buf().map_err(|cause| Error::io("read", path, cause))?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::with_capacity(1 << 16, flate2::bufread::MultiGzDecoder::new(raw))))
    } else {
        Ok(Box::new(raw))
    }
}

/// Opens a regular file. Anything else is refused before it is opened: a pipe would wait for a writer, and a device has no
/// end.
///
/// # Errors
/// There is no such file, it is a folder, a pipe or a device, or it cannot be opened.
pub fn open_regular(path: &Path) -> std::io::Result<File> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "is a folder, expected a file" } else { "is not a regular file" };
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
    }
    File::open(path)
}

/// Reads a regular file of at most `limit` bytes, whatever length it claims.
///
/// # Errors
/// As [`open_regular`]; also when it is longer ([`std::io::ErrorKind::FileTooLarge`]).
pub fn read_bounded(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_large = |length: u64| {
        let what = format!("{length} bytes is over the limit of {limit} bytes");
        std::io::Error::new(std::io::ErrorKind::FileTooLarge, what)
    };
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Reads a whole text file as UTF-8.
///
/// # Errors
/// As [`open_text`]; also when it is over [`MAX_FILE_BYTES`], truncated (gzip), or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open_text(path)?
        .take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::io("read", path, cause))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(over_limit(path));
    }
    String::from_utf8(bytes).map_err(|cause| {
        Error::data(
            Path::new(&display_path(path)),
            format!("not UTF-8 at byte {}", cause.utf8_error().valid_up_to()),
        )
    })
}

fn over_limit(path: &Path) -> Error {
    Error::new(
        ErrorKind::LimitExceeded,
        format!("{}: over the limit of {MAX_FILE_BYTES} bytes (decompressed)", display_path(path)),
    )
}

/// Opens a JSON-lines file: an iterator of (1-based line number, row). See [`JsonLines`].
///
/// # Errors
/// As [`open_text`].
pub fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<JsonLines<T>> {
    Ok(JsonLines::new(open_text(path)?, path))
}

/// A line that holds no row.
#[derive(Debug)]
pub struct BadRow {
    /// Its number, from 1 on.
    pub line: usize,
    /// Its text, cut to [`MAX_BAD_BYTES`]; what is not UTF-8 is replaced.
    pub text: String,
    /// What is wrong with it, with file and line.
    pub error: Error,
}

/// So much of a line that holds no row is kept, in bytes.
pub const MAX_BAD_BYTES: usize = 32 << 20;

/// Iterator over the rows of a JSON-lines stream; blank lines are passed over. It ends after the first error.
/// [`JsonLines::next_or_bad`] goes on after it.
pub struct JsonLines<T> {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    line: usize,
    bytes: u64,
    done: bool,
    row: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> JsonLines<T> {
    /// Reads rows from `reader`; `path` is only used in messages.
    pub fn new(reader: Box<dyn BufRead + Send>, path: &Path) -> Self {
        Self { reader, path: display_path(path).into(), line: 0, bytes: 0, done: false, row: PhantomData }
    }

    /// The next row, or the line that holds none; `None` at the end.
    ///
    /// # Errors
    /// The stream cannot be read on, or is over [`MAX_FILE_BYTES`].
    pub fn next_or_bad(&mut self) -> Result<Option<std::result::Result<(usize, T), BadRow>>> {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            self.line += 1;
            let read = (&mut self.reader)
                .take(MAX_LINE_BYTES + 1)
                .read_until(b'\n', &mut buffer)
                .map_err(|cause| Error::data_at(&self.path, self.line, format!("cannot read on: {cause}")))?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes += read as u64;
            if read as u64 > MAX_LINE_BYTES {
                if buffer.last() != Some(&b'\n') {
                    self.skip_line()?;
                }
                let what = format!("line longer than {MAX_LINE_BYTES} bytes (not a JSON-lines file?)");
                return Ok(Some(Err(self.bad(&buffer, what))));
            }
            if self.bytes > MAX_FILE_BYTES {
                return Err(over_limit(&self.path));
            }
            let text = match std::str::from_utf8(&buffer) {
                Ok(text) => text.trim_start_matches('\u{feff}').trim(),
                Err(cause) => {
                    let what = format!("not UTF-8 at byte {} of the line", cause.valid_up_to());
                    return Ok(Some(Err(self.bad(&buffer, what))));
                }
            };
            if text.is_empty() {
                continue;
            }
            let row = serde_json::from_str(text).map(|row| (self.line, row));
            return Ok(Some(row.map_err(|cause| self.bad(text.as_bytes(), format!("bad row: {cause}")))));
        }
    }

    fn bad(&self, text: &[u8], what: String) -> BadRow {
        BadRow {
            line: self.line,
            text: String::from_utf8_lossy(&text[..text.len().min(MAX_BAD_BYTES)]).into_owned(),
            error: Error::data_at(&self.path, self.line, what),
        }
    }

    /// Reads to the end of a line whose rest nobody wants.
    fn skip_line(&mut self) -> Result<()> {
        loop {
            let chunk = self
                .reader
                .fill_buf()
                .map_err(|cause| Error::data_at(&self.path, self.line, format!("cannot read on: {cause}")))?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(used);
            self.bytes += used as u64;
            if self.bytes > MAX_FILE_BYTES {
                return Err(over_limit(&self.path));
            }
            if end.is_some() || used == 0 {
                return Ok(());
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<(usize, T)>> {
        self.next_or_bad()?.transpose().map_err(|bad| bad.error)
    }
}

impl<T: DeserializeOwned> Iterator for JsonLines<T> {
    type Item = Result<(usize, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_row().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Writes rows as JSON lines, atomically; `-` is standard output, gzip when the name ends in `.gz`.
///
/// # Errors
/// The file cannot be written; an existing one is then left as it was.
pub fn write_json_lines<T: Serialize>(path: &Path, rows: impl Iterator<Item = T>) -> Result<()> {
    write_atomic(path, |out| {
        for row in rows {
            serde_json::to_writer(&mut *out, &row)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Writes a file under a temporary name in the same folder, syncs it and renames it: readers see the old file or the
/// whole new one. `-` writes to standard output, a pipe or device is written as it is, a link is followed; a name ending in
/// `.gz` compresses.
///
/// # Errors
/// As the closure, or any step of the writing; an existing file is then left as it was.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let io = |cause| Error::io("write", path, cause);
    if path == Path::new("-") {
        let mut out = BufWriter::new(std::io::stdout().lock());
        fill(&mut out).and_then(|()| out.flush()).map_err(io)?;
        return Ok(());
    }
    if let Ok(meta) = std::fs::metadata(path)
        && !meta.is_file()
        && !meta.is_dir()
    {
        let mut out = BufWriter::new(std::fs::OpenOptions::new().write(true).open(path).map_err(io)?);
        return fill(&mut out).and_then(|()| out.flush()).map_err(io);
    }
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let target = resolved.as_path();
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".inhouse-");
    // Temporary files are private (0600) by default; a result is readable as any file the user makes: the umask decides.
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666))
    };
    let temporary = builder.tempfile_in(folder).map_err(io)?;
    {
        let file = BufWriter::with_capacity(1 << 16, temporary.as_file());
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::default());
            fill(&mut out).map_err(io)?;
            out.finish().and_then(|mut file| file.flush()).map_err(io)?;
        } else {
            let mut file = file;
            fill(&mut file).and_then(|()| file.flush()).map_err(io)?;
        }
    }
    // An existing file keeps the permissions that its owner gave it.
    if let Ok(meta) = std::fs::metadata(target) {
        temporary.as_file().set_permissions(meta.permissions()).map_err(io)?;
    }
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(target).map_err(|failed| io(failed.error))?;
    // The rename itself must survive a power cut; a folder that cannot be synced (some file systems) is no error.
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn pipes_and_devices_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let (zero, pipe) = (folder.path().join("zero"), folder.path().join("pipe"));
        std::os::unix::fs::symlink("/dev/zero", &zero).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&zero, &pipe] {
            assert!(open_regular(path).unwrap_err().to_string().contains("not a regular file"));
            assert!(read_bounded(path, 10).is_err());
        }
        assert!(open_regular(folder.path()).unwrap_err().to_string().contains("folder"));
    }

    #[test]
    fn a_bounded_read_has_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap(), b"0123456789");
        assert_eq!(read_bounded(&path, 9).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_rewritten_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_atomic(&link, |out| out.write_all(b"new")).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_device_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        write_atomic(Path::new("/dev/null"), |out| out.write_all(b"gone")).unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
