//! The tiers: how strong the walls are, chosen once at start and recorded in every verdict.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a sample is walled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Tier {
    /// User, pid, mount, network, IPC and UTS namespaces, Landlock where there is one, seccomp, rlimits.
    T2,
    /// No user namespaces: Landlock, seccomp and rlimits around a single process.
    T3,
}

impl fmt::Display for Tier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::T2 => "T2",
            Self::T3 => "T3",
        })
    }
}

/// What `--tier` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The strongest that the host gives.
    Auto,
    /// This one or none.
    Exactly(Tier),
}

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "AUTO" => Ok(Self::Auto),
            "T2" => Ok(Self::Exactly(Tier::T2)),
            "T3" => Ok(Self::Exactly(Tier::T3)),
            "T0" | "T1" => Err(format!("tier {text} (cgroups) is not in this version; use auto, T2 or T3")),
            "T4" => Err("tier T4 (WebAssembly) is not in this version; use auto, T2 or T3".into()),
            _ => Err(format!("no tier {text:?}; use auto, T2 or T3")),
        }
    }
}
