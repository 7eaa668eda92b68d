//! The tiers: how strong the walls are, chosen once at start and recorded in every verdict.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a sample is walled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Tier {
    /// T2 with a cgroup v2 per sample, by a daemon that is root.
    T0,
    /// T2 with a cgroup v2 per sample, by an unprivileged daemon in a subtree that was delegated to it.
    T1,
    /// User, pid, mount, network, IPC and UTS namespaces, Landlock where there is one, seccomp, rlimits.
    T2,
    /// No user namespaces: Landlock, seccomp and rlimits around a single process.
    T3,
    /// CPython in WebAssembly, and around its process whatever of Landlock and seccomp the host has. Pure Python only.
    T4,
}

impl Tier {
    /// The tiers of this version, strongest first.
    pub const ALL: [Self; 5] = [Self::T0, Self::T1, Self::T2, Self::T3, Self::T4];

    /// Whether samples live in namespaces of their own, below a root of their own.
    pub fn has_namespaces(self) -> bool {
        !matches!(self, Self::T3 | Self::T4)
    }

    /// Whether samples live in cgroups of their own.
    pub fn has_cgroups(self) -> bool {
        matches!(self, Self::T0 | Self::T1)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::T0 => "T0",
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
            Self::T4 => "T4",
        })
    }
}

/// What `--tier` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The strongest that the host gives and that can run the environments.
    Auto,
    /// This one or none.
    Exactly(Tier),
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        if upper == "AUTO" {
            return Ok(Self::Auto);
        }
        if let Some(tier) = Tier::ALL.into_iter().find(|tier| tier.to_string() == upper) {
            return Ok(Self::Exactly(tier));
        }
        Err(format!("no tier {text:?}; use auto, T0, T1, T2, T3 or T4"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_is_asked_for_by_its_name() {
        for tier in Tier::ALL {
            assert_eq!(tier.to_string().to_lowercase().parse(), Ok(Wish::Exactly(tier)));
        }
        assert_eq!("auto".parse(), Ok(Wish::Auto));
        for wrong in ["T5", "T9", "", "0"] {
            assert!(wrong.parse::<Wish>().is_err_and(|reason| reason.contains("T0")), "{wrong:?}");
        }
    }
}
