//! Limits of jobs: on the wire as numbers, on command lines and in C as text, `NAME=VALUE[,NAME=VALUE...]`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Limits of one job. `None` means the daemon's default.
///
/// As text: `cpu=3s,wall=10s,memory=1GiB,output=4MiB,disk=64MiB,inodes=4096,processes=128,files=1024`. Times are in
/// seconds or carry `ms`, `s`, `m` or `h`; sizes are in bytes or carry `K`, `M`, `G` or `KiB`, `MiB`, `GiB`, all powers of
/// 1024.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of all its processes, user and system, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Wall-clock time from the moment the candidate starts, in milliseconds; default: three times the CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Memory above what the interpreter holds at the start, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes written to standard output and error together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes of all files in the sample's private folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Files and folders in the sample's private folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
    /// Threads and processes at a time, all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Open file descriptors of a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Whether it may have further processes; default: what the daemon was started with, and no more than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_processes: Option<bool>,
}

impl Limits {
    /// These, and where they say nothing, `others`.
    pub fn or(self, others: &Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.or(others.cpu_ms),
            wall_ms: self.wall_ms.or(others.wall_ms),
            memory_bytes: self.memory_bytes.or(others.memory_bytes),
            output_bytes: self.output_bytes.or(others.output_bytes),
            disk_bytes: self.disk_bytes.or(others.disk_bytes),
            inodes: self.inodes.or(others.inodes),
            processes: self.processes.or(others.processes),
            files: self.files.or(others.files),
            allow_processes: self.allow_processes.or(others.allow_processes),
        }
    }
}

const NAMES: &str = "cpu, wall (times), memory, output, disk (sizes), inodes, processes, files (numbers)";

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!("{part:?} is no limit; expected NAME=VALUE with a name of {NAMES}"));
            };
            let (name, value) = (name.trim(), value.trim());
            let (field, read): (_, fn(&str) -> Result<u64, String>) = match name {
                "cpu" => (&mut limits.cpu_ms, milliseconds),
                "wall" => (&mut limits.wall_ms, milliseconds),
                "memory" => (&mut limits.memory_bytes, bytes),
                "output" => (&mut limits.output_bytes, bytes),
                "disk" => (&mut limits.disk_bytes, bytes),
                "inodes" => (&mut limits.inodes, number),
                "processes" | "threads" => (&mut limits.processes, number),
                "files" => (&mut limits.files, number),
                _ => return Err(format!("no limit is named {name:?}; there are {NAMES}")),
            };
            let value = read(value).map_err(|reason| format!("limit {name}: {reason}"))?;
            if field.replace(value).is_some() {
                return Err(format!("limit {name} is given twice"));
            }
        }
        Ok(limits)
    }
}

/// A number and what stands behind it.
fn split(text: &str) -> (&str, String) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim().to_ascii_lowercase())
}

fn scaled(text: &str, units: &[(&[&str], f64)], expected: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = units.iter().find(|(names, _)| names.contains(&unit.as_str())).map(|(_, factor)| factor);
    let value = number.parse::<f64>().ok().zip(factor).map(|(number, factor)| (number * factor).ceil());
    match value {
        // Beyond that a float has no whole numbers left.
        Some(value) if (0.0..9e15).contains(&value) => Ok(value as u64),
        _ => Err(format!("{text:?} is no {expected}")),
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    let units: &[(&[&str], f64)] =
        &[(&["", "s"], 1e3), (&["ms"], 1.0), (&["m", "min"], 6e4), (&["h"], 3.6e6)];
    scaled(text, units, "time, such as 10s, 500ms or 2m")
}

fn bytes(text: &str) -> Result<u64, String> {
    let units: &[(&[&str], f64)] = &[
        (&["", "b"], 1.0),
        (&["k", "kib", "kb"], 1024.0),
        (&["m", "mib", "mb"], 1048576.0),
        (&["g", "gib", "gb"], 1073741824.0),
    ];
    scaled(text, units, "size, such as 512MiB or 2GiB")
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_text() {
        let text = "cpu=3s, wall=1.5m,memory=2GiB,output=64k,disk=100,inodes=7,threads=9,files=20";
        let want = Limits {
            cpu_ms: Some(3_000),
            wall_ms: Some(90_000),
            memory_bytes: Some(2 << 30),
            output_bytes: Some(64 << 10),
            disk_bytes: Some(100),
            inodes: Some(7),
            processes: Some(9),
            files: Some(20),
            allow_processes: None,
        };
        assert_eq!(text.parse(), Ok(want));
        assert_eq!("".parse(), Ok(Limits::default()));
        assert_eq!("cpu=250ms".parse::<Limits>().map(|limits| limits.cpu_ms), Ok(Some(250)));
    }

    #[test]
    fn what_is_no_limit_is_named_with_what_would_be() {
        for (text, word) in [
            ("cpu", "NAME=VALUE"),
            ("ram=1g", "memory"),
            ("cpu=soon", "10s"),
            ("memory=1 stone", "512MiB"),
            ("memory=-1", "512MiB"),
            ("memory=99999999999g", "512MiB"),
            ("files=1.5", "number"),
            ("cpu=1,cpu=2", "twice"),
        ] {
            let error = text.parse::<Limits>().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_asked_goes_before_what_is_usual() {
        let usual = Limits { cpu_ms: Some(1), files: Some(2), ..Limits::default() };
        let asked = Limits { cpu_ms: Some(3), ..Limits::default() };
        assert_eq!(asked.or(&usual), Limits { cpu_ms: Some(3), files: Some(2), ..Limits::default() });
    }
}
