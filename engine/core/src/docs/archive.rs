//! Wheels and sdists (zip, tar.gz): their files of some kind, within limits that no library reaches.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::python::MAX_SOURCE_BYTES;
use crate::{Error, ErrorKind, Result, files};

/// Entries of an archive.
const MAX_ENTRIES: usize = 400_000;
/// Bytes of all Python files of an archive, unpacked.
const MAX_UNPACKED_BYTES: u64 = 512 << 20;
/// Bytes of a `.tar.gz`, unpacked, that are read in search of Python files.
const MAX_STREAM_BYTES: u64 = 8 << 30;
/// No name or attribute block of a tar entry is longer (a path has at most 4,096 bytes).
const MAX_NAME_BYTES: u64 = 1 << 20;

/// Path inside the archive and content.
type Unpacked = Vec<(String, Vec<u8>)>;
/// Takes a file: its path, and its content or why it is too large.
type Take<'t> = &'t mut dyn FnMut(&str, Result<Vec<u8>>);

/// What a file is by its first bytes.
pub(super) enum Format {
    Zip,
    Gzip,
    Other,
}

/// Looks at the first bytes of a file.
///
/// # Errors
/// It cannot be read.
pub(super) fn format(path: &Path) -> Result<Format> {
    let mut head = [0_u8; 4];
    let mut file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut read = 0;
    while read < head.len() {
        match file.read(&mut head[read..]).map_err(|cause| Error::io("read", path, cause))? {
            0 => break,
            n => read += n,
        }
    }
    Ok(match head {
        [b'P', b'K', 3 | 5, 4 | 6] => Format::Zip,
        [0x1f, 0x8b, ..] => Format::Gzip,
        _ => Format::Other,
    })
}

/// Whether an entry is read: Python source outside foreign folders, and what says at the top where packages are.
fn is_read(name: &str) -> bool {
    let says = |file: &str| super::packaging::FILES.contains(&file);
    let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
    let source = file.ends_with(".py") || file.ends_with(".pyi");
    (source && !folder.split('/').any(super::layout::is_foreign_folder))
        || (says(file) && !folder.contains('/'))
}

/// The Python files of a library's archive.
///
/// # Errors
/// As [`entries`]; also when a file is too large.
pub(super) fn python_files(path: &Path) -> Result<Unpacked> {
    let mut files = Vec::new();
    let mut failed = Ok(());
    entries(path, &is_read, &mut |name, bytes| match bytes {
        Ok(bytes) => files.push((name.to_owned(), bytes)),
        Err(error) if failed.is_ok() => failed = Err(error),
        Err(_) => {}
    })?;
    failed.map(|()| files)
}

/// The files of a zip or tar.gz archive whose paths are `wanted`. One that is too large is handed over as the error it is, and the
/// others are read on.
///
/// # Errors
/// It is neither, truncated or corrupted, an entry points out of it, or it exceeds the limits.
pub(super) fn entries(path: &Path, wanted: &dyn Fn(&str) -> bool, take: Take<'_>) -> Result<()> {
    match format(path)? {
        Format::Zip => zip(path, wanted, take),
        Format::Gzip => tar_gz(path, wanted, take),
        Format::Other => {
            Err(Error::data(path, "neither a zip archive nor a tar.gz (truncated or damaged download?)"))
        }
    }
}

/// Refuses names that point out of the archive; folders are passed over as `None`.
fn checked_name<'a>(archive: &Path, name: &'a str) -> Result<Option<&'a str>> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let drive = name.as_bytes().get(1) == Some(&b':');
    if name.starts_with(['/', '\\']) || drive || name.split(['/', '\\']).any(|part| part == "..") {
        return Err(Error::data(
            archive,
            format!("entry `{}` points out of the archive", name.escape_debug()),
        ));
    }
    Ok((!name.is_empty() && !name.ends_with('/')).then_some(name))
}

/// A cause on one line: names inside an archive can hold anything.
fn one_line(cause: &dyn std::fmt::Display) -> String {
    let text = cause.to_string();
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

struct Budget<'a> {
    archive: &'a Path,
    left: u64,
}

impl Budget<'_> {
    /// Reads one entry to its end, within the limits whatever its header claims, and hands it over.
    fn read(&mut self, name: &str, reader: impl Read, take: Take<'_>) -> Result<()> {
        let limit = self.left.min(MAX_SOURCE_BYTES);
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes).map_err(|cause| {
            Error::data(self.archive, format!("entry `{}`: {}", name.escape_debug(), one_line(&cause)))
        })?;
        if bytes.len() as u64 > limit {
            let what = format!(
                "{}: entry `{}` unpacks to more than {limit} bytes",
                self.archive.display(),
                name.escape_debug()
            );
            take(name, Err(Error::new(ErrorKind::LimitExceeded, what)));
            return Ok(());
        }
        self.left -= bytes.len() as u64;
        take(name, Ok(bytes));
        Ok(())
    }
}

fn too_many(archive: &Path) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{}: more than {MAX_ENTRIES} entries", archive.display()))
}

fn zip(path: &Path, wanted: &dyn Fn(&str) -> bool, take: Take<'_>) -> Result<()> {
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file))
        .map_err(|cause| Error::data(path, format!("not a readable zip archive: {}", one_line(&cause))))?;
    if archive.len() > MAX_ENTRIES {
        return Err(too_many(path));
    }
    let mut budget = Budget { archive: path, left: MAX_UNPACKED_BYTES };
    for i in 0..archive.len() {
        let Some(name) = archive.name_for_index(i).map(str::to_owned) else { continue };
        let Some(name) = checked_name(path, &name)? else { continue };
        if !wanted(name) {
            continue;
        }
        let entry = archive.by_index(i).map_err(|cause| {
            Error::data(path, format!("entry `{}`: {}", name.escape_debug(), one_line(&cause)))
        })?;
        budget.read(name, entry, &mut *take)?;
    }
    Ok(())
}

fn tar_gz(path: &Path, wanted: &dyn Fn(&str) -> bool, take: Take<'_>) -> Result<()> {
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let stream = flate2::bufread::MultiGzDecoder::new(BufReader::new(file)).take(MAX_STREAM_BYTES);
    let mut archive = tar::Archive::new(stream);
    let bad = |cause: std::io::Error| {
        Error::data(path, format!("not a readable tar.gz archive: {}", one_line(&cause)))
    };
    let mut budget = Budget { archive: path, left: MAX_UNPACKED_BYTES };
    // Entries that only name the next one are read here, with a bound; the library would read them whole.
    let mut long_name = None;
    for (count, entry) in archive.entries().map_err(bad)?.raw(true).enumerate() {
        if count >= MAX_ENTRIES {
            return Err(too_many(path));
        }
        let mut entry = entry.map_err(bad)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
        {
            let mut bytes = Vec::new();
            entry.by_ref().take(MAX_NAME_BYTES + 1).read_to_end(&mut bytes).map_err(bad)?;
            if bytes.len() as u64 > MAX_NAME_BYTES {
                return Err(Error::data(
                    path,
                    format!("an entry's name or attributes are over {MAX_NAME_BYTES} bytes"),
                ));
            }
            if kind.is_gnu_longname() {
                long_name = Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
            } else if kind.is_pax_local_extensions() {
                let named =
                    tar::PaxExtensions::new(&bytes).flatten().find(|record| record.key_bytes() == b"path");
                long_name = named.map(|record| record.value_bytes().to_vec()).or(long_name);
            }
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        if !kind.is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        let Some(name) = checked_name(path, &name)? else { continue };
        if !wanted(name) {
            continue;
        }
        budget.read(name, entry, &mut *take)?;
    }
    // The end of the stream carries the checksum: a truncated download must not pass for a small library.
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(bad)?;
    if rest.limit() == 0 {
        let what = format!("{}: unpacks to more than {MAX_STREAM_BYTES} bytes", path.display());
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    Ok(())
}
