//! Where in the cgroup v2 hierarchy samples may have their groups: found by looking, decided by [`place`], which touches
//! nothing.
//!
//! A group is of use when this user may make groups in it and its memory and pids controllers can be passed on to them.
//! The kernel passes controllers on only from a group that holds no process itself (the root of the hierarchy apart):
//! a daemon alone in a group that systemd delegated to it moves into a leaf below. Where systemd delegated nothing, a
//! group further up that passes its controllers on, or can without anybody moving, comes first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;

use crate::sys;

/// The controllers that a sample's group needs.
pub const NEEDED: [&str; 2] = ["memory", "pids"];

/// One group, as found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where it stands in the file system.
    pub path: PathBuf,
    /// What stands in the way of making groups in it and moving processes into those, if anything.
    pub obstacle: Option<String>,
    /// Controllers that it has (`cgroup.controllers`).
    pub controllers: Vec<String>,
    /// Those that it passes on already (`cgroup.subtree_control`).
    pub passes_on: Vec<String>,
    /// Whether systemd says that it is delegated: it will keep its hands off what is below.
    pub is_marked: bool,
    /// Whether it is the root of the whole hierarchy, which may hold processes beside groups.
    pub is_root: bool,
    /// Whether it holds processes other than this one.
    pub has_others: bool,
    /// Whether it holds this process.
    pub has_us: bool,
}

/// Where samples get their groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The group below which they are made.
    pub base: PathBuf,
    /// Controllers that the base has.
    pub controllers: Vec<String>,
    /// Those of [`NEEDED`] that it has to be told to pass on.
    pub to_pass_on: Vec<String>,
    /// Whether this process must leave it for a leaf first.
    pub vacate: bool,
}

/// The best group of use, of our own and those above it (in this order): the nearest that systemd delegated, else the
/// nearest that nobody has to leave, else our own.
///
/// # Errors
/// There is none: why our own is not, why the topmost is not, and the mend.
pub fn place(groups: &[Found]) -> Result<Place, String> {
    let of_use = || groups.iter().filter(|group| obstacle(group).is_none());
    let best = of_use()
        .find(|group| group.is_marked)
        .or_else(|| of_use().find(|group| !must_be_left(group)))
        .or_else(|| of_use().next());
    if let Some(group) = best {
        return Ok(Place {
            base: group.path.clone(),
            controllers: group.controllers.clone(),
            to_pass_on: to_pass_on(group),
            vacate: must_be_left(group),
        });
    }
    let mut reasons = groups
        .iter()
        .filter_map(|group| obstacle(group).map(|reason| format!("{} {reason}", group.path.display())));
    let mut text = reasons.next().unwrap_or_else(|| "there is no group".into());
    if let Some(top) = reasons.next_back() {
        // Writing to a String cannot fail.
        write!(text, "; {top}").ok();
    }
    Err(format!(
        "{text}: start it as a service with Delegate=yes, or by `systemd-run --user --scope -p Delegate=yes`"
    ))
}

fn to_pass_on(group: &Found) -> Vec<String> {
    let passes = |name: &str| group.passes_on.iter().any(|has| has == name);
    NEEDED.into_iter().filter(|name| !passes(name)).map(String::from).collect()
}

fn must_be_left(group: &Found) -> bool {
    group.has_us && !group.is_root && !to_pass_on(group).is_empty()
}

fn obstacle(group: &Found) -> Option<String> {
    let has = |name: &&str| group.controllers.iter().any(|controller| controller == name);
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        return Some(format!("has no {} controller", missing.join(" and no ")));
    }
    if let Some(reason) = &group.obstacle {
        return Some(reason.clone());
    }
    (group.has_others && !group.is_root && !to_pass_on(group).is_empty())
        .then(|| "holds other processes too, so it cannot pass controllers on".into())
}

/// Looks at our own group and those above it, up to the top of what is mounted.
///
/// # Errors
/// No cgroup v2 is mounted, or we are not in what is mounted.
pub fn look() -> Result<Vec<Found>, String> {
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let (mount_point, mount_root) =
        mounted(&read("/proc/self/mountinfo")?).ok_or("no cgroup v2 is mounted")?;
    let own = own_group(&read("/proc/self/cgroup")?).ok_or("this process is in no cgroup v2")?;
    let below = own.strip_prefix(&mount_root).map_err(|_| {
        format!("this process's cgroup {} is not below {}", own.display(), mount_point.display())
    })?;
    let own: PathBuf = mount_point.join(below).components().collect();
    let up = own.ancestors().take_while(|path| path.starts_with(&mount_point));
    Ok(up.map(look_at).collect())
}

fn look_at(path: &Path) -> Found {
    let words = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(path.join(name)).unwrap_or_default();
        text.split_whitespace().map(String::from).collect()
    };
    let own = std::process::id().to_string();
    // Processes outside our pid namespace are listed as 0: others.
    let (us, others): (Vec<String>, Vec<String>) =
        words("cgroup.procs").into_iter().partition(|pid| *pid == own);
    Found {
        path: path.to_path_buf(),
        obstacle: not_writable(path),
        controllers: words("cgroup.controllers"),
        passes_on: words("cgroup.subtree_control"),
        is_marked: ["user.delegate", "trusted.delegate"]
            .iter()
            .any(|name| sys::xattr(path, name).is_some_and(|value| value == b"1")),
        is_root: !path.join("cgroup.type").exists(),
        has_others: !others.is_empty(),
        has_us: !us.is_empty(),
    }
}

/// Delegation is permission to write exactly these (the kernel's admin guide to cgroup v2, "Model of delegation").
fn not_writable(path: &Path) -> Option<String> {
    for (name, flags) in [
        ("", AccessFlags::W_OK | AccessFlags::X_OK),
        ("cgroup.procs", AccessFlags::W_OK),
        ("cgroup.subtree_control", AccessFlags::W_OK),
    ] {
        let file = path.join(name);
        if let Err(error) = nix::unistd::faccessat(nix::fcntl::AT_FDCWD, &file, flags, AtFlags::AT_EACCESS) {
            return Some(match error {
                nix::errno::Errno::EACCES | nix::errno::Errno::EPERM => {
                    "is not delegated to this user".into()
                }
                nix::errno::Errno::EROFS => "is mounted read-only".into(),
                other => format!("cannot be written: {name} {}", other.desc()),
            });
        }
    }
    None
}

/// Mount point and root of the first cgroup v2 in the text of `/proc/self/mountinfo`.
fn mounted(mountinfo: &str) -> Option<(PathBuf, PathBuf)> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup2 ").then(|| (unescape(point).into(), unescape(root).into()))
    })
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Our group in the text of `/proc/self/cgroup`.
fn own_group(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    /// A writable group with all controllers that holds us alone.
    fn ours(path: &str) -> Found {
        Found { path: path.into(), controllers: words("cpu memory pids"), has_us: true, ..Found::default() }
    }

    fn foreign(path: &str) -> Found {
        let obstacle = Some("is not delegated to this user".into());
        Found { obstacle, has_us: false, passes_on: words("memory pids"), ..ours(path) }
    }

    fn root() -> Found {
        Found { is_root: true, has_us: false, has_others: true, ..ours("/cg") }
    }

    #[test]
    fn the_best_group_of_use_is_taken() {
        let busy = |path: &str| Found { has_others: true, ..ours(path) };
        let empty = |path: &str| Found { has_us: false, ..ours(path) };
        let passing = |path: &str| Found { passes_on: words("memory pids"), ..empty(path) };
        // What is found, own group first; the base, what it must pass on, and whether it must be vacated.
        let marked = |group| Found { is_marked: true, ..group };
        for (name, groups, want) in [
            (
                "a service with Delegate=, below a slice of the same user",
                vec![marked(ours("/cg/u/s")), passing("/cg/u"), foreign("/cg")],
                Some(("/cg/u/s", "memory pids", true)),
            ),
            (
                "a subgroup (DelegateSubgroup=) whose service passes nothing on yet",
                vec![ours("/cg/s/sub"), marked(empty("/cg/s")), foreign("/cg")],
                Some(("/cg/s", "memory pids", false)),
            ),
            (
                "a second daemon beside one that has moved into a leaf",
                vec![busy("/cg/s/leaf"), marked(passing("/cg/s")), foreign("/cg")],
                Some(("/cg/s", "", false)),
            ),
            (
                "a marked group among others",
                vec![marked(busy("/cg/u/s")), passing("/cg/u"), foreign("/cg")],
                Some(("/cg/u", "", false)),
            ),
            (
                "a folder given away by hand",
                vec![ours("/cg/s"), foreign("/cg")],
                Some(("/cg/s", "memory pids", true)),
            ),
            (
                "a folder below one given away by hand",
                vec![ours("/cg/s/sub"), passing("/cg/s"), foreign("/cg")],
                Some(("/cg/s", "", false)),
            ),
            (
                "only one controller is passed on",
                vec![Found { passes_on: words("pids"), ..ours("/cg/s") }],
                Some(("/cg/s", "memory", true)),
            ),
            (
                "root in its session, among others",
                vec![busy("/cg/u"), root()],
                Some(("/cg", "memory pids", false)),
            ),
            ("root alone in its group", vec![ours("/cg/u"), root()], Some(("/cg", "memory pids", false))),
            ("root in the root", vec![Found { has_us: true, ..root() }], Some(("/cg", "memory pids", false))),
            ("a user's session, among others", vec![busy("/cg/u"), foreign("/cg")], None),
            ("nothing is writable", vec![foreign("/cg/u"), foreign("/cg")], None),
            (
                "the controllers belong to version 1",
                vec![Found { controllers: words("hugetlb"), ..root() }],
                None,
            ),
            ("a container's root, which is not the hierarchy's", vec![busy("/cg")], None),
            ("a container's root with nobody else", vec![ours("/cg")], Some(("/cg", "memory pids", true))),
            ("nothing at all", vec![], None),
        ] {
            let got = place(&groups).ok();
            let got = got.map(|place| (place.base, place.to_pass_on.join(" "), place.vacate));
            let want =
                want.map(|(base, pass, vacate): (&str, &str, bool)| (base.into(), pass.to_owned(), vacate));
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn a_refusal_names_the_group_and_what_it_lacks() {
        let refused = |groups: &[Found]| place(groups).expect_err("no place");
        let reason = refused(&[Found { controllers: words("cpu pids"), ..ours("/cg/s") }, foreign("/cg")]);
        assert!(reason.contains("/cg/s has no memory controller"), "{reason}");
        assert!(reason.contains("/cg is not delegated") && reason.contains("Delegate=yes"), "{reason}");
        let reason = refused(&[Found { controllers: words("hugetlb"), ..root() }]);
        assert!(reason.contains("no memory and no pids controller"), "{reason}");
    }

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        for (text, want) in [
            ("31 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n", Some(("/sys/fs/cgroup", "/"))),
            (
                "30 1 0:2 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 none rw\n",
                Some(("/sys/fs/cgroup/unified", "/")),
            ),
            ("31 1 0:26 /box /a\\040b rw - cgroup2 cgroup2 rw\n", Some(("/a b", "/box"))),
            ("30 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", None),
            ("", None),
        ] {
            let want = want.map(|(point, root)| (PathBuf::from(point), PathBuf::from(root)));
            assert_eq!(mounted(text), want, "{text}");
        }
        assert_eq!(own_group("4:memory:/x\n0::/user.slice\n"), Some("/user.slice".into()));
        assert_eq!(own_group("4:memory:/x\n"), None);
    }

    #[test]
    fn a_folder_is_looked_at_like_a_group() {
        let folder = tempfile::tempdir().expect("temp folder");
        let own = std::process::id();
        for (name, text) in [
            ("cgroup.controllers", "cpu pids memory\n".to_owned()),
            ("cgroup.subtree_control", "pids\n".to_owned()),
            ("cgroup.procs", format!("{own}\n0\n")),
            ("cgroup.type", "domain\n".to_owned()),
        ] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let found = look_at(folder.path());
        let want = Found {
            path: folder.path().into(),
            controllers: words("cpu pids memory"),
            passes_on: words("pids"),
            has_others: true,
            has_us: true,
            ..Found::default()
        };
        assert_eq!(found, want);
        std::fs::remove_file(folder.path().join("cgroup.procs")).expect("removed");
        assert!(look_at(folder.path()).obstacle.is_some_and(|reason| reason.contains("cgroup.procs")));
    }
}
