//! A program by itself, within its sample: standard input, files that it finds, and files that are wanted of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::RawFd;
use std::path::{Component, Path};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use evald_proto::{Job, Program};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::sys;

/// Most files that a program is given or asked for: their names travel in one frame.
pub const MOST_FILES: usize = 256;
/// Longest path of such a file, in bytes.
pub const LONGEST_PATH: usize = 128;
/// In the place of a length: no such file, or it is too large.
const MISSING: u64 = u64::MAX;

/// Why a path cannot be that of a program's file; `None`: it can.
pub fn refusal(path: &str) -> Option<String> {
    let usual = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !usual || path.ends_with('/') || path.contains('\0') {
        return Some(format!("{path:?} is no path of a file below the program's folder"));
    }
    (path.len() > LONGEST_PATH).then(|| format!("{path:?} is longer than {LONGEST_PATH} bytes"))
}

/// Why a program cannot be run as it is; `None`: it can.
pub fn unusable(job: &Job) -> Option<String> {
    let program = job.program.as_ref()?;
    if !job.test.is_empty() || !job.entry_point.is_empty() {
        return Some("a job with `program` has no test and no entry point".into());
    }
    if program.files.len() > MOST_FILES || program.fetch.len() > MOST_FILES {
        return Some(format!("more than {MOST_FILES} files"));
    }
    program.files.keys().chain(&program.fetch).find_map(|path| refusal(path)).or_else(|| files(program).err())
}

/// The bytes that a job takes besides its code and test.
pub fn size(program: &Program) -> usize {
    program.stdin.len()
        + program.files.iter().map(|(path, bytes)| path.len() + 2 * bytes.len()).sum::<usize>()
}

/// A program's files, decoded.
///
/// # Errors
/// One is no base64; the message names it.
pub fn files(program: &Program) -> Result<Vec<(String, Vec<u8>)>, String> {
    let decode = |(path, text): (&String, &String)| {
        let bytes =
            STANDARD.decode(text).map_err(|error| format!("the file {path:?} is no base64: {error}"))?;
        Ok((path.clone(), bytes))
    };
    program.files.iter().map(decode).collect()
}

/// The files that were wanted, encoded, out of what the sample has handed over.
pub fn fetched(paths: &[String], bytes: &[u8]) -> BTreeMap<String, Option<String>> {
    let files =
        handed_over(bytes, paths.len()).into_iter().map(|file| file.map(|file| STANDARD.encode(file)));
    paths.iter().cloned().zip(files).collect()
}

/// Standard input, from its first byte.
pub fn input(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Writes the files into the current folder.
pub fn lay_out(files: &[(String, Vec<u8>)]) -> std::io::Result<()> {
    for (path, bytes) in files {
        if let Some(folder) = Path::new(path).parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}

/// Writes the wanted files to a pipe, each as its length (u64 LE) and its bytes, altogether no more bytes than `most`.
///
/// The program has had its turn: what it did to these files, to the pipe and to this process shows in nothing but the files
/// themselves.
pub fn hand_over(paths: &[String], most: u64, pipe: RawFd) {
    let Ok(pipe) = sys::adopt(pipe) else { return };
    let mut pipe = File::from(pipe);
    let mut left = most;
    for path in paths {
        let bytes = read(path, left);
        left -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let length = bytes.as_ref().map_or(MISSING, |bytes| bytes.len() as u64);
        let written = pipe.write_all(&length.to_le_bytes());
        if written.and_then(|()| pipe.write_all(&bytes.unwrap_or_default())).is_err() {
            return;
        }
    }
}

fn read(path: &str, most: u64) -> Option<Vec<u8>> {
    // A fifo would be waited for.
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most.saturating_add(1)).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

/// What [`hand_over`] wrote, for so many paths; what was cut off is missing.
pub fn handed_over(mut bytes: &[u8], paths: usize) -> Vec<Option<Vec<u8>>> {
    let mut next = || {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        if length == MISSING {
            bytes = rest;
            return None;
        }
        let (file, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        bytes = rest;
        Some(file.to_vec())
    };
    (0..paths).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_folder() {
        for path in ["a", "a/b.txt", "ä", "a.b/c"] {
            assert_eq!(refusal(path), None, "{path}");
        }
        let long = "x".repeat(LONGEST_PATH + 1);
        for path in ["", "/a", "..", "a/../../b", "./a", "a/", "a\0b", &long] {
            assert!(refusal(path).is_some(), "{path}");
        }
    }

    #[test]
    fn files_come_over_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::write(place("one"), b"1234").expect("written");
        std::fs::write(place("two"), b"").expect("written");
        let paths = ["one", "none", "two", "one"].map(place);
        let (mut from, to) = std::io::pipe().expect("a pipe");
        hand_over(&paths, 7, std::os::fd::IntoRawFd::into_raw_fd(to));
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("read");
        let want = [Some(b"1234".to_vec()), None, Some(Vec::new()), None];
        assert_eq!(handed_over(&bytes, 4), want, "the last would be over the limit");
        for cut in 0..bytes.len() {
            assert_eq!(handed_over(&bytes[..cut], 4).len(), 4);
        }
        assert_eq!(handed_over(&[7; 9], 2), [None, None]);
    }
}
