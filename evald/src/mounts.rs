//! File systems: the read-only root of an environment, and the private folder of a sample.
//!
//! The root is a tmpfs that holds bind mounts of just the interpreter and its libraries, a handful of harmless devices,
//! and a few static files. There is no /proc and no /sys beyond copies of the files that count processors.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::error::{Result, Step};
use crate::sys;

/// Something of the host that the sandbox's root shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Entry {
    /// A symbolic link, copied.
    Link {
        /// Where it stands.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A folder that a path only passes through (`folder/../elsewhere`), made empty: the kernel must find it on its way.
    Folder {
        /// Where it stands, with no symbolic link on the way.
        path: PathBuf,
    },
    /// A file or folder, bind-mounted read-only at its own path.
    Bind {
        /// Where it stands, with no symbolic link on the way.
        path: PathBuf,
    },
}

/// The entries that make `paths` reachable under their own names: the links on the way and what they end at.
///
/// # Errors
/// A path cannot be read (the reason names it), is relative, or links in a circle.
pub fn plan(paths: &[PathBuf]) -> Result<Vec<Entry>, String> {
    let mut way = Way::default();
    let mut binds = BTreeSet::new();
    for path in paths {
        let end = follow(path, &mut way)?;
        binds.insert(end);
    }
    let covered = |path: &Path| path.ancestors().skip(1).any(|above| binds.contains(above));
    let mut entries: Vec<Entry> = Vec::new();
    for (path, target) in &way.links {
        if !covered(path) {
            entries.push(Entry::Link { path: path.clone(), target: target.clone() });
        }
    }
    // What lies on the way to something shown is made with it.
    let needed: Vec<&Path> =
        binds.iter().map(PathBuf::as_path).chain(way.links.iter().map(|(path, _)| path.as_path())).collect();
    let shown = |folder: &Path| covered(folder) || needed.iter().any(|path| path.starts_with(folder));
    entries
        .extend(way.left.iter().filter(|path| !shown(path)).map(|path| Entry::Folder { path: path.clone() }));
    entries.extend(binds.iter().filter(|path| !covered(path)).map(|path| Entry::Bind { path: path.clone() }));
    Ok(entries)
}

/// What is met on the way to the ends of paths.
#[derive(Default)]
struct Way {
    /// Symbolic links, and what they say.
    links: BTreeSet<(PathBuf, PathBuf)>,
    /// Folders left again by `..`.
    left: BTreeSet<PathBuf>,
}

/// Walks a path as the kernel does, collecting what is met, and returns where it ends.
fn follow(path: &Path, way: &mut Way) -> Result<PathBuf, String> {
    const MOST_LINKS: usize = 40;
    if !path.is_absolute() {
        return Err(format!("{} is not an absolute path", path.display()));
    }
    let mut todo: Vec<PathBuf> = vec![path.to_path_buf()];
    let mut links_met = 0;
    'restart: while let Some(next) = todo.pop() {
        let mut here = PathBuf::from("/");
        let parts: Vec<Component<'_>> = next.components().collect();
        for (index, part) in parts.iter().enumerate() {
            match part {
                Component::ParentDir => {
                    way.left.insert(here.clone());
                    here.pop();
                    continue;
                }
                Component::Normal(name) => here.push(name),
                _ => continue,
            }
            let meta = std::fs::symlink_metadata(&here).map_err(|cause| {
                format!("cannot read {} (on the way to {}): {cause}", here.display(), path.display())
            })?;
            if meta.file_type().is_symlink() {
                links_met += 1;
                if links_met > MOST_LINKS {
                    return Err(format!("{}: too many symbolic links", path.display()));
                }
                let target = std::fs::read_link(&here)
                    .map_err(|cause| format!("cannot read the link {}: {cause}", here.display()))?;
                let mut onward = here.parent().unwrap_or(Path::new("/")).join(&target);
                onward.extend(parts[index + 1..].iter());
                way.links.insert((here, target));
                todo.push(onward);
                continue 'restart;
            }
        }
        return Ok(here);
    }
    Err(format!("{}: cannot be followed", path.display()))
}

impl Entry {
    /// Where it stands.
    pub fn path(&self) -> &Path {
        match self {
            Self::Link { path, .. } | Self::Folder { path } | Self::Bind { path } => path,
        }
    }
}

/// The entries that a sample's private folder would hide (an environment made below /tmp): every sample gets them back.
pub fn kept(entries: &[Entry]) -> Vec<Entry> {
    entries.iter().filter(|entry| entry.path().starts_with(SCRATCH)).cloned().collect()
}

/// Where the `index`th kept entry can be bound from while the private folder hides it.
fn keep_path(index: usize) -> PathBuf {
    Path::new("/.kept").join(index.to_string())
}

/// Where `libevald.so` stands in the root: inside the folder that every sample's private tmpfs hides.
pub const LIBRARY_PATH: &str = "/tmp/libevald.so";
/// The sample's private folder, its working directory and HOME.
pub const SCRATCH: &str = "/tmp";

const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// Host files that only count processors and memory; some libraries read them when they are imported.
const COPIED: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
    "/etc/ld.so.cache",
];

const STATIC: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/tmp:/bin/false\nnobody:x:65534:65534:nobody:/tmp:/bin/false\n"),
    ("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Folder under which the host's root hangs while the new one is being filled.
const OLD_ROOT: &str = "/.host";

/// Makes the new root and moves into it. The caller has a mount namespace of its own.
///
/// # Errors
/// Any step, named.
pub fn enter_root(entries: &[Entry], library: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("make mounts private")?;
    let copies: Vec<(&str, Vec<u8>)> =
        COPIED.iter().filter_map(|path| Some((*path, std::fs::read(path).ok()?))).collect();
    // A mount point that exists everywhere; the host's folder shows again once the new mount is the root.
    let base = Path::new("/tmp");
    let options = "size=4m,nr_inodes=8k,mode=0755";
    mount(Some("evald"), base, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))
        .step("mount a tmpfs for the root")?;
    let old = base.join(OLD_ROOT.trim_start_matches('/'));
    std::fs::create_dir(&old).step("make the folder of the old root")?;
    nix::unistd::pivot_root(base, &old).step("pivot into the new root")?;
    std::env::set_current_dir("/").step("enter the new root")?;

    std::fs::create_dir_all(SCRATCH).step("make /tmp")?;
    // For imports that write caches; every sample mounts its own over it.
    let options = "size=64m,nr_inodes=8k,mode=1777";
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("warm"), SCRATCH, Some("tmpfs"), flags, Some(options))
        .step("mount the warm interpreter's /tmp")?;
    let read_only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV;
    for entry in entries {
        match entry {
            Entry::Link { path, target } => {
                make_link(path, target).step(format!("make the link {}", path.display()))?
            }
            Entry::Folder { path } => {
                std::fs::create_dir_all(path).step(format!("make the folder {}", path.display()))?;
            }
            Entry::Bind { path } => bind(path, path, read_only)?,
        }
    }
    for (index, entry) in kept(entries).iter().enumerate() {
        if let Entry::Bind { path } = entry {
            bind(path, &keep_path(index), read_only)?;
        }
    }
    for device in DEVICES {
        // Read-only bounds what is done to the node, not what is written into it.
        bind(Path::new(device), Path::new(device), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC)?;
    }
    std::fs::create_dir_all("/var").step("make /var")?;
    for link in ["/dev/shm", "/var/tmp"] {
        if !Path::new(link).exists() {
            std::os::unix::fs::symlink(SCRATCH, link).step(format!("make the link {link}"))?;
        }
    }
    bind(library, Path::new(LIBRARY_PATH), libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV)?;
    let texts = STATIC.iter().map(|(path, text)| (*path, text.as_bytes()));
    for (path, text) in texts.chain(copies.iter().map(|(path, text)| (*path, text.as_slice()))) {
        let path = Path::new(path);
        if !path.exists() {
            make_parents(path).step(format!("make a folder for {}", path.display()))?;
            std::fs::write(path, text).step(format!("write {}", path.display()))?;
        }
    }
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).step("let go of the host's root")?;
    std::fs::remove_dir(OLD_ROOT).step("remove the folder of the old root")?;
    sys::mount_setattr(Path::new("/"), libc::MOUNT_ATTR_RDONLY, false).step("make the root read-only")
}

fn make_parents(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
}

fn make_link(path: &Path, target: &Path) -> io::Result<()> {
    make_parents(path)?;
    std::os::unix::fs::symlink(target, path)
}

/// An empty file or folder to mount `source` on.
fn make_mount_point(source: &Path, target: &Path) -> io::Result<()> {
    make_parents(target)?;
    if std::fs::metadata(source)?.is_dir() {
        std::fs::create_dir_all(target)
    } else {
        std::fs::File::create(target).map(|_| ())
    }
}

/// Shows the host's `source` at `target`, with all that is mounted below it (a user namespace may not leave parts out).
fn bind(source: &Path, target: &Path, attributes: u64) -> Result<()> {
    let none = None::<&str>;
    let from = Path::new(OLD_ROOT).join(source.strip_prefix("/").unwrap_or(source));
    make_mount_point(&from, target).step(format!("make a mount point for {}", source.display()))?;
    mount(Some(&from), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .step(format!("bind {}", source.display()))?;
    sys::mount_setattr(target, attributes | libc::MOUNT_ATTR_NOSUID, true)
        .step(format!("restrict the mount of {}", source.display()))
}

/// Mounts a sample's private folder: size- and inode-capped, no devices, no set-uid, nothing executable. What it hides of
/// the interpreter's own files (see [`kept`]) is shown in it again, read-only.
///
/// # Errors
/// As mount(2).
pub fn mount_scratch(disk_bytes: u64, inodes: u64, kept: &[Entry]) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let depth: usize = kept.iter().map(|entry| entry.path().components().count()).sum();
    // One inode for the folder itself, and what it takes to get to the kept entries.
    let options = format!("size={disk_bytes},nr_inodes={},mode=0700", inodes + 1 + depth as u64);
    mount(Some("sample"), SCRATCH, Some("tmpfs"), flags, Some(options.as_str()))?;
    for (index, entry) in kept.iter().enumerate() {
        match entry {
            Entry::Link { path, target } => make_link(path, target)?,
            Entry::Folder { path } => std::fs::create_dir_all(path)?,
            Entry::Bind { path } => {
                let from = keep_path(index);
                make_mount_point(&from, path)?;
                // A bind of a read-only mount is read-only, and locked so in this user namespace.
                mount(Some(&from), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            }
        }
    }
    std::env::set_current_dir(SCRATCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_copied_and_nested_binds_dropped() {
        let folder = tempfile::tempdir().expect("temp folder");
        let root = folder.path().canonicalize().expect("real path");
        std::fs::create_dir_all(root.join("real/lib")).expect("mkdir");
        std::fs::write(root.join("real/lib/python3.9"), b"").expect("write");
        symlink("real", root.join("alias")).expect("link");
        symlink("../alias/lib/python3.9", root.join("real/python")).expect("link");
        let entries = plan(&[root.join("alias/python"), root.join("real/lib")]).expect("planned");
        assert_eq!(
            entries,
            [
                Entry::Link { path: root.join("alias"), target: "real".into() },
                Entry::Link { path: root.join("real/python"), target: "../alias/lib/python3.9".into() },
                Entry::Bind { path: root.join("real/lib") },
            ]
        );
    }

    #[test]
    fn folders_that_links_climb_through_are_shown() {
        let folder = tempfile::tempdir().expect("temp folder");
        let root = folder.path().canonicalize().expect("real path");
        for name in ["venv/bin", "base/bin", "base/etc/deep", "else"] {
            std::fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        std::fs::write(root.join("base/bin/python3"), b"").expect("write");
        symlink("deep", root.join("base/etc/alias")).expect("link");
        let python = Entry::Bind { path: root.join("base/bin/python3") };
        let venv = Entry::Bind { path: root.join("venv") };
        let shown = |name: &str| Entry::Folder { path: root.join(name) };
        let link = root.join("venv/bin/python");
        for (target, more) in [
            // Up through what is shown anyway.
            ("../../base/bin/python3", vec![]),
            ("../bin/../../base/bin/python3", vec![]),
            ("../../base/bin/../bin/python3", vec![]),
            // Down into folders that nothing else shows, and out again.
            ("../../else/../base/bin/python3", vec![shown("else")]),
            ("../../base/etc/deep/../../bin/python3", vec![shown("base/etc"), shown("base/etc/deep")]),
            (
                "../../base/etc/alias/../../bin/python3",
                vec![
                    Entry::Link { path: root.join("base/etc/alias"), target: "deep".into() },
                    shown("base/etc/deep"),
                ],
            ),
        ] {
            std::fs::remove_file(&link).ok();
            symlink(target, &link).expect("link");
            let got = plan(&[link.clone(), root.join("venv")]).expect("planned");
            let mut want = more;
            want.extend([python.clone(), venv.clone()]);
            assert_eq!(got, want, "{target}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let folder = tempfile::tempdir().expect("temp folder");
        let root = folder.path().canonicalize().expect("real path");
        symlink("b", root.join("a")).expect("link");
        symlink("a", root.join("b")).expect("link");
        for (path, word) in [
            (root.join("a"), "too many"),
            (root.join("missing"), "missing"),
            (PathBuf::from("lib"), "absolute"),
        ] {
            let error = plan(std::slice::from_ref(&path)).expect_err("no plan");
            assert!(error.contains(word), "{error}");
        }
    }
}
