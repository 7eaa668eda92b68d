//! Folders that samples have filled: what is in them, and how they go. However deep they are, whatever they forbid, and
//! however long their paths: one folder is open at a time, and nothing is called by a path. Links are not followed.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes a folder and all in it. What is not there is no error.
///
/// Folders within are first moved up into the outermost one, so that depth costs neither descriptors nor stack.
///
/// # Errors
/// Something in it is not ours to remove, or changes while we do.
pub fn remove(folder: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let name = CString::new(name.as_bytes())?;
    let parent = nix::fcntl::open(parent, FOLDER, Mode::empty())?;
    let Some(outermost) = open_any(parent.as_fd(), &name)? else { return Ok(()) };
    let mut moved = Moved { count: 0 };
    // Each round empties the folders that it finds; what those held of folders is there in the next.
    loop {
        let before = moved.count;
        empty(outermost.as_fd(), outermost.as_fd(), &mut moved, true)?;
        let folders = folders_in(outermost.as_fd())?;
        if folders.is_empty() && before == moved.count {
            break;
        }
        for name in folders {
            if let Some(inner) = open_any(outermost.as_fd(), &name)? {
                empty(inner.as_fd(), outermost.as_fd(), &mut moved, false)?;
            }
            unlinkat(outermost.as_fd(), name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
    unlinkat(parent.as_fd(), name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    Ok(())
}

struct Moved {
    count: u64,
}

impl Moved {
    /// A name that no sample has given: they are asked for again where one has.
    fn next(&mut self) -> io::Result<CString> {
        self.count += 1;
        Ok(CString::new(format!(".evald-removed-{:x}", self.count))?)
    }
}

/// Opens a folder, allowing ourselves to where it forbids that; `None` when there is none.
fn open_any(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match openat(parent, name, FOLDER, Mode::empty()) {
        Ok(folder) => {
            // To be read is not enough: things are removed from it.
            nix::sys::stat::fchmod(&folder, Mode::S_IRWXU)?;
            Ok(Some(folder))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(Errno::EACCES) => {
            fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            Ok(Some(openat(parent, name, FOLDER, Mode::empty())?))
        }
        Err(error) => Err(error.into()),
    }
}

fn entries(folder: BorrowedFd<'_>) -> io::Result<Vec<(CString, bool)>> {
    let again = openat(folder, c".", FOLDER, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::from_fd(again)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => is_folder(folder, name),
        };
        found.push((name.to_owned(), is_folder));
    }
    Ok(found)
}

fn is_folder(parent: BorrowedFd<'_>, name: &CStr) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|meta| meta.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn folders_in(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    Ok(entries(folder)?.into_iter().filter(|(_, is_folder)| *is_folder).map(|(name, _)| name).collect())
}

/// Removes the files of a folder, and moves its folders to `up` unless it is that one.
fn empty(folder: BorrowedFd<'_>, up: BorrowedFd<'_>, moved: &mut Moved, is_up: bool) -> io::Result<()> {
    for (name, is_folder) in entries(folder)? {
        if !is_folder {
            unlinkat(folder, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
        } else if !is_up {
            // A folder that changes its parent is written to.
            fchmodat(folder, name.as_c_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            loop {
                match renameat(folder, name.as_c_str(), up, moved.next()?.as_c_str()) {
                    Ok(()) => break,
                    Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// What is in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk of all files.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

/// Adds up what is in a folder, as far as it takes to know that there is more than `most`. Folders that cannot be entered
/// count as one entry.
pub fn usage(folder: &Path, most: Usage) -> Usage {
    let mut found = Usage::default();
    let Ok(folder) = nix::fcntl::open(folder, FOLDER, Mode::empty()) else { return found };
    let mut todo = vec![folder];
    while let Some(folder) = todo.pop() {
        for (name, is_folder) in entries(folder.as_fd()).unwrap_or_default() {
            found.entries += 1;
            if let Ok(meta) = fstatat(folder.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                found.bytes += u64::try_from(meta.st_blocks).unwrap_or(0) * 512;
            }
            if found.entries > most.entries || found.bytes > most.bytes {
                return found;
            }
            // So many are open at once at most: what is in the others shows when the sample has ended.
            if is_folder && todo.len() < 64 {
                todo.extend(openat(folder.as_fd(), name.as_c_str(), FOLDER, Mode::empty()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn whatever_a_sample_has_built_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a folder");
        let elsewhere = parent.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("made");
        std::fs::write(elsewhere.join("file"), "x").expect("written");
        let folder = parent.path().join("sample");
        std::fs::create_dir(&folder).expect("made");
        symlink(&elsewhere, folder.join("link")).expect("linked");
        std::fs::write(folder.join(".evald-removed-1"), "a name of ours").expect("written");
        std::fs::create_dir_all(folder.join(".evald-removed-2/inner")).expect("made");
        // Deeper than a path can be long, and shut at every tenth level.
        let mut at = nix::fcntl::open(&folder, FOLDER, Mode::empty()).expect("open");
        let name = CString::new("d".repeat(200)).expect("a name");
        let mut shut = Vec::new();
        for level in 0..2_000 {
            nix::sys::stat::mkdirat(at.as_fd(), name.as_c_str(), Mode::S_IRWXU).expect("made");
            let next = openat(at.as_fd(), name.as_c_str(), FOLDER, Mode::empty()).expect("open");
            if level % 10 == 0 {
                shut.push(next.try_clone().expect("cloned"));
            }
            at = next;
        }
        for level in &shut {
            nix::sys::stat::fchmod(level, Mode::empty()).expect("shut");
        }
        drop((at, shut));
        for i in 0..100 {
            std::fs::create_dir(folder.join(format!("empty{i}"))).expect("made");
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0)).expect("shut");
        remove(&folder).expect("removed");
        assert!(!folder.exists() && elsewhere.join("file").exists());
        remove(&folder).expect("what is not there is no error");
    }

    #[test]
    fn usage_stops_where_it_is_too_much() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("inner")).expect("made");
        for i in 0..20 {
            std::fs::write(folder.path().join(format!("inner/{i}")), [1u8; 8192]).expect("written");
        }
        let all = usage(folder.path(), Usage { bytes: u64::MAX, entries: u64::MAX });
        assert_eq!(all.entries, 21);
        assert!(all.bytes >= 20 * 8192, "{all:?}");
        let some = usage(folder.path(), Usage { bytes: u64::MAX, entries: 5 });
        assert_eq!(some.entries, 6);
        assert!(usage(folder.path(), Usage { bytes: 20_000, entries: u64::MAX }).bytes < 40_000);
    }
}
