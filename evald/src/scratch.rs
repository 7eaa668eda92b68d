//! The folder below which T3 samples get their private ones, and what killed daemons have left of theirs.
//!
//! The folder is locked (flock(2)) for as long as its daemon lives; the kernel takes the lock back however that ends. So
//! a folder of ours that can be locked belongs to nobody, and is removed.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Result, Step};
use crate::frame::SANDBOX_USER;
use crate::tree;
use crate::zygote::LEFT;

/// What the names of these folders begin with.
const PREFIX: &str = "evald-scratch-";
/// While it is not locked yet, a folder has another name, which no other daemon touches.
const UNLOCKED: &str = ".evald-scratch-";

/// A daemon's folder, removed when it is dropped.
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

/// Where the folder is made: below TMPDIR where that is set, else in memory where there is plenty (folders by the
/// thousand are removed from a disk far more slowly than a sample makes them), else in /tmp.
pub fn usual_parent() -> PathBuf {
    const MEMORY: &str = "/dev/shm";
    const PLENTY: u64 = 1 << 30;
    let plenty = || {
        let found = nix::sys::statfs::statfs(MEMORY).ok()?;
        let in_memory = found.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC;
        let free = found.blocks_available().saturating_mul(u64::try_from(found.block_size()).ok()?);
        let ours = nix::unistd::access(MEMORY, nix::unistd::AccessFlags::W_OK).is_ok();
        (in_memory && ours && free >= PLENTY).then(|| PathBuf::from(MEMORY))
    };
    let given = std::env::var_os("TMPDIR").is_some();
    Some(()).filter(|()| !given).and_then(|()| plenty()).unwrap_or_else(std::env::temp_dir)
}

impl Scratch {
    /// Makes a folder below `parent`, for the user that samples run as, after removing those of daemons of this user that were killed.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub fn create(parent: &Path) -> Result<Self> {
        clear(parent);
        let name = format!("{:032x}", u128::from_le_bytes(crate::sys::random_bytes().step("draw a name")?));
        let (hidden, path) =
            (parent.join(format!("{UNLOCKED}{name}")), parent.join(format!("{PREFIX}{name}")));
        let step = || format!("make a folder in {}", parent.display());
        DirBuilder::new().mode(0o700).create(&hidden).step(step())?;
        let lock = open(&hidden).step(step())?;
        lock.lock().step(step())?;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&hidden, Some(SANDBOX_USER), Some(SANDBOX_USER)).step(step())?;
        }
        std::fs::rename(&hidden, &path).step(step())?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(folder: &Path) {
    if let Err(error) = tree::remove(folder) {
        tracing::warn!(?folder, error = error.to_string(), "cannot be removed");
    }
}

/// Removes what samples leave; each message says that there may be something.
pub type Sweeper = std::sync::mpsc::Sender<()>;

/// Starts the thread that removes the folders of samples that have ended, and those of slots that have.
///
/// # Errors
/// No thread can be started.
pub fn sweeper(scratch: PathBuf) -> std::io::Result<Sweeper> {
    let (sweeper, told) = std::sync::mpsc::channel();
    let go = move || {
        while let Ok(()) = told.recv() {
            // One look for all that was said meanwhile.
            while told.try_recv().is_ok() {}
            for entry in std::fs::read_dir(&scratch).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                let slot = name.split_once('-').map(|(slot, _)| slot.to_owned());
                let slot_ended = slot.is_some_and(|slot| !Path::new("/proc").join(slot).exists());
                if slot_ended || path.extension().is_some_and(|extension| extension == LEFT) {
                    remove(&path);
                }
            }
        }
    };
    std::thread::Builder::new().name("sweep".into()).spawn(go)?;
    Ok(sweeper)
}

/// Opens a folder, and no link to one.
fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

fn clear(parent: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(folder) = open(&entry.path()) else { continue };
        let ours =
            folder.metadata().is_ok_and(|meta| meta.uid() == own || (own == 0 && meta.uid() == SANDBOX_USER));
        if ours && folder.try_lock().is_ok() {
            tracing::info!(path = ?entry.path(), "removing what a killed daemon left");
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(parent: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> =
            std::fs::read_dir(parent).expect("read").flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_killed_daemons_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a folder");
        let alive = Scratch::create(parent.path()).expect("made");
        let mode = std::fs::metadata(alive.path()).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        // As a kill leaves it: unlocked, with whatever a sample did to its own folder.
        let left = parent.path().join(format!("{PREFIX}left"));
        std::fs::create_dir_all(left.join("1-1/deep")).expect("made");
        std::fs::write(left.join("1-1/deep/file"), "x").expect("written");
        std::fs::set_permissions(left.join("1-1"), std::fs::Permissions::from_mode(0o000)).expect("shut");
        // Not ours to touch: other names, files, links.
        let elsewhere = parent.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("made");
        std::fs::write(elsewhere.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(&elsewhere, parent.path().join(format!("{PREFIX}link"))).expect("linked");
        std::fs::write(parent.path().join(format!("{PREFIX}file")), "x").expect("written");
        std::fs::create_dir(parent.path().join("evald-it-1")).expect("made");
        std::fs::create_dir(parent.path().join(format!("{UNLOCKED}begun"))).expect("made");
        let before = names(parent.path());

        let second = Scratch::create(parent.path()).expect("made");
        let mut want: Vec<_> = before.into_iter().filter(|path| *path != left).collect();
        want.push(second.path().to_path_buf());
        want.sort();
        assert_eq!(names(parent.path()), want);
        assert!(elsewhere.join("file").exists());

        let gone = alive.path().to_path_buf();
        drop(alive);
        assert!(!gone.exists() && second.path().exists());
    }
}
