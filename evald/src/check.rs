//! What the host gives, which tier that makes, and why not a higher one.

use std::fmt::Write as _;
use std::path::Path;

use crate::delegation::{self, Place};
use crate::landlock;
use crate::sys;
use crate::tier::{Tier, Wish};
use crate::wasi::{Distribution, PURE_ONLY};

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
    /// A cgroup v2 below which samples can have their own, or why there is none.
    pub cgroup: Result<Place, String>,
    /// A CPython for WASI, or what is missing.
    pub machine: Result<Distribution, String>,
}

impl Host {
    /// Looks at this host. Namespaces are tried out in a process of its own: `executable` with `__probe`. `wasi` is the folder
    /// of a CPython for WASI, where that is not in a usual place.
    pub fn probe(executable: &Path, wasi: Option<&Path>) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            root: nix::unistd::geteuid().is_root() && sys::has_sys_admin(),
            namespaces: probe_namespaces(executable),
            landlock: landlock::version(),
            seccomp: probe_seccomp(),
            cgroup: delegation::look().and_then(|groups| delegation::place(&groups)),
            machine: Distribution::find(wasi, executable),
        }
    }

    /// The tier that will run, by what was asked for.
    ///
    /// # Errors
    /// The host does not give it; the message says what is missing.
    pub fn choose(&self, wish: Wish) -> Result<Tier, String> {
        match wish {
            Wish::Auto => {
                Tier::ALL.into_iter().find(|tier| self.lacks_for(*tier).is_empty()).ok_or_else(|| {
                    let needs = [Tier::T2, Tier::T3, Tier::T4]
                        .map(|tier| format!("{tier} needs {}", self.lacks_for(tier).join(" and ")));
                    format!("this host gives no sandbox: {}", needs.join("; "))
                })
            }
            Wish::Exactly(tier) => {
                let lacks = self.lacks_for(tier);
                if lacks.is_empty() { Ok(tier) } else { Err(format!("{tier} needs {}", lacks.join(" and "))) }
            }
        }
    }

    fn lacks_for(&self, tier: Tier) -> Vec<String> {
        let mut lacks = Vec::new();
        match tier {
            Tier::T0 if !self.root => lacks.push("root".to_owned()),
            Tier::T1 if self.root => {
                lacks.push("an unprivileged user (for root, T0 is the same and more)".into())
            }
            _ => {}
        }
        if let (true, Err(reason)) = (tier.has_cgroups(), &self.cgroup) {
            lacks.push(format!("a cgroup v2 to make others in ({reason})"));
        }
        if let (true, Err(reason)) = (tier.has_namespaces(), &self.namespaces) {
            lacks.push(format!("user namespaces ({reason})"));
        }
        if tier == Tier::T3 {
            match self.landlock {
                None => {
                    lacks.push("Landlock (Linux 5.13 or newer, enabled at boot: lsm=landlock,...)".into())
                }
                // Before version 3 a file can be truncated without the right to write it.
                Some(version) if version < 3 => {
                    lacks.push(format!("Landlock 3 (Linux 6.2), this kernel has {version}"));
                }
                Some(_) => {}
            }
        }
        match (tier, &self.seccomp, &self.machine) {
            // Its first wall is the machine; Landlock and seccomp stand behind that where there are any.
            (Tier::T4, _, Err(reason)) => lacks.push(reason.clone()),
            (Tier::T4, _, Ok(_)) => {}
            (_, Err(reason), _) => lacks.push(format!("seccomp ({reason})")),
            (_, Ok(()), _) => {}
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
        let cgroup = match &self.cgroup {
            Ok(place) => {
                let moves = if place.vacate { "; evald moves into a leaf of it" } else { "" };
                format!("yes: {} has {}{moves}", place.base.display(), place.controllers.join(" "))
            }
            Err(reason) => format!("no: {reason}"),
        };
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            writeln!(out, "{name:<18} {value}").ok();
        };
        line("kernel", &self.kernel);
        line("root", root);
        line("user namespaces", &yes_no(&self.namespaces));
        line("seccomp", &yes_no(&self.seccomp));
        line("landlock", &landlock);
        line("cgroup v2", &cgroup);
        match &self.machine {
            Ok(found) => {
                let version = found.version().map_or(String::new(), |version| format!(" (Python {version})"));
                line("CPython for WASI", &format!("{}{version}", found.program.display()));
                line("T4 runs", PURE_ONLY);
            }
            Err(reason) => line("CPython for WASI", &format!("no: T4 needs {reason}")),
        }
        let chosen = self.choose(wish);
        match &chosen {
            Ok(tier) => line("tier", &tier.to_string()),
            Err(reason) => line("tier", &format!("none: {reason}")),
        }
        for tier in Tier::ALL.into_iter().take_while(|tier| chosen.as_ref() != Ok(tier)) {
            let lacks = self.lacks_for(tier);
            let why = if lacks.is_empty() {
                "another was asked for".to_owned()
            } else {
                format!("needs {}", lacks.join(" and "))
            };
            line(&format!("why not {tier}"), &why);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An invented host.
    fn host(root: bool, cgroup: bool, namespaces: bool, landlock: Option<i64>, seccomp: bool) -> Host {
        let or = |given: bool, reason: &str| if given { Ok(()) } else { Err(reason.to_owned()) };
        let place = Place {
            base: "/cg/evald.service".into(),
            controllers: vec!["memory".into(), "pids".into()],
            to_pass_on: Vec::new(),
            vacate: true,
        };
        Host {
            kernel: "6.1.0".into(),
            root,
            namespaces: or(namespaces, "switched off"),
            landlock,
            seccomp: or(seccomp, "none"),
            cgroup: or(cgroup, "/cg is not delegated").map(|()| place),
            machine: Err("a CPython for WASI".into()),
        }
    }

    /// The same with a machine for T4.
    fn with_machine(host: Host) -> Host {
        let distribution = Distribution { program: "/wasi/python.wasm".into(), usr: "/wasi/usr".into() };
        Host { machine: Ok(distribution), ..host }
    }

    #[test]
    fn the_strongest_tier_that_the_host_gives_is_chosen() {
        let (newest, old) = (Some(7), Some(2));
        for (host, wish, want) in [
            (host(true, true, true, newest, true), Wish::Auto, Some(Tier::T0)),
            (host(true, true, true, None, true), Wish::Auto, Some(Tier::T0)),
            (host(false, true, true, newest, true), Wish::Auto, Some(Tier::T1)),
            (host(true, false, true, newest, true), Wish::Auto, Some(Tier::T2)),
            (host(false, false, true, newest, true), Wish::Auto, Some(Tier::T2)),
            (host(false, false, true, None, true), Wish::Auto, Some(Tier::T2)),
            // A cgroup without namespaces is no tier of its own.
            (host(true, true, false, newest, true), Wish::Auto, Some(Tier::T3)),
            (host(false, false, false, newest, true), Wish::Auto, Some(Tier::T3)),
            (host(false, false, false, old, true), Wish::Auto, None),
            (host(false, true, false, None, true), Wish::Auto, None),
            (host(true, true, true, newest, false), Wish::Auto, None),
            (host(true, true, true, newest, true), Wish::Exactly(Tier::T0), Some(Tier::T0)),
            (host(true, true, true, newest, true), Wish::Exactly(Tier::T1), None),
            (host(false, true, true, newest, true), Wish::Exactly(Tier::T0), None),
            (host(false, true, true, newest, true), Wish::Exactly(Tier::T1), Some(Tier::T1)),
            (host(true, false, true, newest, true), Wish::Exactly(Tier::T0), None),
            (host(false, false, true, newest, true), Wish::Exactly(Tier::T1), None),
            (host(true, true, true, newest, true), Wish::Exactly(Tier::T2), Some(Tier::T2)),
            (host(false, false, false, newest, true), Wish::Exactly(Tier::T2), None),
            (host(false, true, true, newest, true), Wish::Exactly(Tier::T3), Some(Tier::T3)),
            // T4 needs nothing of the host, and comes last.
            (with_machine(host(false, false, false, None, false)), Wish::Auto, Some(Tier::T4)),
            (with_machine(host(false, false, false, newest, true)), Wish::Auto, Some(Tier::T3)),
            (with_machine(host(true, true, true, newest, true)), Wish::Exactly(Tier::T4), Some(Tier::T4)),
            (host(true, true, true, newest, true), Wish::Exactly(Tier::T4), None),
        ] {
            assert_eq!(host.choose(wish).ok(), want, "{host:?} {wish:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let error = host(false, false, false, None, true).choose(Wish::Auto).expect_err("no tier");
        assert!(error.contains("switched off") && error.contains("Landlock"), "{error}");
        let error =
            host(false, false, true, None, true).choose(Wish::Exactly(Tier::T0)).expect_err("no tier");
        assert_eq!(error, "T0 needs root and a cgroup v2 to make others in (/cg is not delegated)");
    }

    #[test]
    fn the_report_says_why_not_a_higher_tier() {
        for (host, wish, has, has_not) in [
            (
                host(false, false, false, Some(7), true),
                Wish::Auto,
                vec![
                    "tier               T3",
                    "why not T0",
                    "why not T1",
                    "why not T2         needs user namespaces",
                ],
                vec!["why not T3"],
            ),
            (
                host(false, true, true, Some(7), true),
                Wish::Auto,
                vec![
                    "tier               T1",
                    "why not T0         needs root",
                    "/cg/evald.service has memory pids; evald moves",
                ],
                vec!["why not T1"],
            ),
            (
                host(true, true, true, Some(7), true),
                Wish::Exactly(Tier::T2),
                vec![
                    "tier               T2",
                    "why not T0         another was asked for",
                    "why not T1         needs an unprivileged",
                ],
                vec![],
            ),
        ] {
            let report = host.report(wish);
            assert!(has.iter().all(|text| report.contains(text)), "{report}");
            assert!(!has_not.iter().any(|text: &&str| report.contains(text)), "{report}");
        }
    }
}
