//! What the host gives, which tier that makes, and why not a higher one.

use std::fmt::Write as _;
use std::path::Path;

use crate::landlock;
use crate::sys;
use crate::tier::{Tier, Wish};

/// Findings about the host, each with its reason where something is missing.
#[derive(Debug, Clone)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Whether we are root with CAP_SYS_ADMIN.
    pub root: bool,
    /// User namespaces with everything T2 needs, or why not.
    pub namespaces: Result<(), String>,
    /// Version of Landlock's interface.
    pub landlock: Option<i64>,
    /// Whether the kernel filters system calls.
    pub seccomp: Result<(), String>,
    /// A cgroup v2 with memory and pids controllers that we may delegate from, or why not.
    pub cgroup: Result<(), String>,
}

impl Host {
    /// Looks at this host. Namespaces are tried out in a process of its own: `executable` with `__probe`.
    pub fn probe(executable: &Path) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            root: nix::unistd::geteuid().is_root() && sys::has_sys_admin(),
            namespaces: probe_namespaces(executable),
            landlock: landlock::version(),
            seccomp: probe_seccomp(),
            cgroup: probe_cgroup(Path::new("/sys/fs/cgroup")),
        }
    }

    /// The tier that will run, by what was asked for.
    ///
    /// # Errors
    /// The host does not give it; the message says what is missing.
    pub fn choose(&self, wish: Wish) -> Result<Tier, String> {
        let t2 = self.lacks_for_t2();
        let t3 = self.lacks_for_t3();
        match wish {
            Wish::Auto if t2.is_empty() => Ok(Tier::T2),
            Wish::Auto if t3.is_empty() => Ok(Tier::T3),
            Wish::Auto => Err(format!(
                "this host gives no sandbox: T2 needs {}; T3 needs {}",
                t2.join(" and "),
                t3.join(" and ")
            )),
            Wish::Exactly(tier) => {
                let lacks = if tier == Tier::T2 { t2 } else { t3 };
                if lacks.is_empty() { Ok(tier) } else { Err(format!("{tier} needs {}", lacks.join(" and "))) }
            }
        }
    }

    fn lacks_for_t2(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        if let Err(reason) = &self.namespaces {
            lacks.push(format!("user namespaces ({reason})"));
        }
        if let Err(reason) = &self.seccomp {
            lacks.push(format!("seccomp ({reason})"));
        }
        lacks
    }

    fn lacks_for_t3(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        match self.landlock {
            None => lacks.push("Landlock (Linux 5.13 or newer, enabled at boot: lsm=landlock,...)".into()),
            // Before version 3 a file can be truncated without the right to write it.
            Some(version) if version < 3 => {
                lacks.push(format!("Landlock 3 (Linux 6.2), this kernel has {version}"))
            }
            Some(_) => {}
        }
        if let Err(reason) = &self.seccomp {
            lacks.push(format!("seccomp ({reason})"));
        }
        lacks
    }

    /// The report of `evald check`.
    pub fn report(&self, wish: Wish) -> String {
        let mut out = String::new();
        let yes_no = |found: &Result<(), String>| match found {
            Ok(()) => "yes".to_owned(),
            Err(reason) => format!("no: {reason}"),
        };
        let landlock = self.landlock.map_or("no".to_owned(), |version| format!("version {version}"));
        let root = if self.root { "yes" } else { "no" };
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            writeln!(out, "{name:<18} {value}").ok();
        };
        line("kernel", &self.kernel);
        line("root", root);
        line("user namespaces", &yes_no(&self.namespaces));
        line("seccomp", &yes_no(&self.seccomp));
        line("landlock", &landlock);
        line("cgroup v2", &yes_no(&self.cgroup));
        match self.choose(wish) {
            Ok(tier) => line("tier", &tier.to_string()),
            Err(reason) => line("tier", &format!("none: {reason}")),
        }
        let above = match &self.cgroup {
            Ok(()) => {
                "this version does not use cgroups: memory and threads are limited by rlimits".to_owned()
            }
            Err(reason) => format!("needs cgroup v2: {reason}"),
        };
        line("why not T0, T1", &above);
        let t2 = self.lacks_for_t2();
        if !t2.is_empty() {
            line("why not T2", &format!("needs {}", t2.join(" and ")));
        }
        out
    }
}

/// Says more than "operation not permitted" about the switches that are known to be in the way.
fn probe_namespaces(executable: &Path) -> Result<(), String> {
    let output = std::process::Command::new(executable)
        .arg("__probe")
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", executable.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut reason = said.lines().last().unwrap_or("the probe said nothing").trim().to_owned();
    let is_set = |path: &str, to: &str| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == to);
    for (path, off, mend) in [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "set kernel.unprivileged_userns_clone = 1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "give evald an AppArmor profile with `userns,`",
        ),
        ("/proc/sys/user/max_user_namespaces", "0", "raise user.max_user_namespaces"),
    ] {
        if is_set(path, off) {
            reason = format!("{reason}; {mend}");
        }
    }
    Err(reason)
}

fn probe_seccomp() -> Result<(), String> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
        .map_err(|_| "this kernel has no seccomp filters".to_owned())?;
    if actions.split_whitespace().any(|action| action == "kill_process") {
        Ok(())
    } else {
        Err("this kernel cannot kill a process from a filter (Linux 4.14 or newer)".into())
    }
}

fn probe_cgroup(root: &Path) -> Result<(), String> {
    let unified = [root.to_path_buf(), root.join("unified")];
    let Some(root) = unified.iter().find(|root| root.join("cgroup.controllers").exists()) else {
        return Err("not mounted on /sys/fs/cgroup".into());
    };
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let missing: Vec<&str> = ["memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_whitespace().any(|controller| controller == *wanted))
        .collect();
    if !missing.is_empty() {
        return Err(format!("no {} controller in {}", missing.join(" and no "), root.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(namespaces: bool, landlock: Option<i64>, seccomp: bool) -> Host {
        let or = |given: bool, reason: &str| if given { Ok(()) } else { Err(reason.to_owned()) };
        Host {
            kernel: "6.1.0".into(),
            root: false,
            namespaces: or(namespaces, "switched off"),
            landlock,
            seccomp: or(seccomp, "none"),
            cgroup: Err("not mounted".into()),
        }
    }

    #[test]
    fn the_strongest_tier_that_the_host_gives_is_chosen() {
        for (host, wish, want) in [
            (host(true, Some(7), true), Wish::Auto, Some(Tier::T2)),
            (host(true, None, true), Wish::Auto, Some(Tier::T2)),
            (host(false, Some(7), true), Wish::Auto, Some(Tier::T3)),
            (host(false, Some(2), true), Wish::Auto, None),
            (host(false, None, true), Wish::Auto, None),
            (host(true, Some(7), false), Wish::Auto, None),
            (host(false, Some(7), true), Wish::Exactly(Tier::T2), None),
            (host(true, Some(7), true), Wish::Exactly(Tier::T3), Some(Tier::T3)),
        ] {
            assert_eq!(host.choose(wish).ok(), want, "{host:?} {wish:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let error = host(false, None, true).choose(Wish::Auto).expect_err("no tier");
        assert!(error.contains("switched off") && error.contains("Landlock"), "{error}");
        let report = host(false, Some(7), true).report(Wish::Auto);
        assert!(report.contains("tier               T3") && report.contains("why not T2"), "{report}");
    }

    #[test]
    fn cgroups_need_their_controllers() {
        let folder = tempfile::tempdir().expect("temp folder");
        assert!(probe_cgroup(folder.path()).is_err());
        std::fs::write(folder.path().join("cgroup.controllers"), "cpu pids\n").expect("written");
        assert!(probe_cgroup(folder.path()).expect_err("no memory").contains("memory"));
        std::fs::write(folder.path().join("cgroup.controllers"), "cpu pids memory\n").expect("written");
        assert!(probe_cgroup(folder.path()).is_ok());
    }
}
