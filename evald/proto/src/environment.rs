//! How an environment is written down: `PYTHON[:MODULE,...]`, and with its name, `NAME=PYTHON[:MODULE,...]`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A Python interpreter and the modules that are imported before any sample starts: `PYTHON[:MODULE,...]`.
///
/// The first colon ends the interpreter, so a path that holds one cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvSpec {
    /// The interpreter: a path, or a name on the PATH.
    pub python: PathBuf,
    /// Modules to import beforehand.
    pub preload: Vec<String>,
}

/// An environment of a daemon: `NAME=PYTHON[:MODULE,...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEnv {
    /// What jobs call it.
    pub name: String,
    /// What it is.
    pub spec: EnvSpec,
}

impl FromStr for EnvSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (python, modules) = text.split_once(':').unwrap_or((text, ""));
        if python.is_empty() {
            return Err(format!("{text:?} names no interpreter; expected PYTHON[:MODULE,...]"));
        }
        let preload: Vec<_> =
            modules.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if let Some(bad) = preload.iter().find(|name| !name.split('.').all(is_identifier)) {
            return Err(format!("{bad:?} is no module name; expected PYTHON[:MODULE,...]"));
        }
        Ok(Self { python: python.into(), preload })
    }
}

impl fmt::Display for EnvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.python.display())?;
        if self.preload.is_empty() { Ok(()) } else { write!(f, ":{}", self.preload.join(",")) }
    }
}

impl FromStr for NamedEnv {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, spec)) if !name.is_empty() => Ok(Self { name: name.into(), spec: spec.parse()? }),
            _ => Err(format!("{text:?} has no name; expected NAME=PYTHON[:MODULE,...]")),
        }
    }
}

impl fmt::Display for NamedEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.spec)
    }
}

/// Whether `text` is a Python identifier (keywords included).
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|first| first == '_' || first.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_as_they_are_written() {
        for (text, python, preload) in [
            ("python3", "python3", &[][..]),
            ("/opt/python:pandas,numpy.linalg", "/opt/python", &["pandas", "numpy.linalg"]),
            ("a=b:_x", "a=b", &["_x"]),
        ] {
            let spec: EnvSpec = text.parse().expect(text);
            assert_eq!((spec.python.to_str(), spec.preload.as_slice()), (Some(python), &*own(preload)));
            assert_eq!(spec.to_string(), text);
            let named: NamedEnv = format!("pd={text}").parse().expect(text);
            assert_eq!((named.name.as_str(), &named.spec), ("pd", &spec));
            assert_eq!(named.to_string(), format!("pd={text}"));
        }
        let spaced: EnvSpec = "python3: pandas , numpy,".parse().expect("a spec");
        assert_eq!(spaced.preload, ["pandas", "numpy"]);
    }

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn bad_specs_say_what_is_expected() {
        for bad in ["", ":pandas", "python:os;print", "python:1x", "python:a..b", "python:.a"] {
            let error = bad.parse::<EnvSpec>().expect_err(bad);
            assert!(error.contains("expected PYTHON[:MODULE,...]"), "{error}");
        }
        for bad in ["", "python3", "=python3", "a=", "a=:os", "a=python:1x"] {
            let error = bad.parse::<NamedEnv>().expect_err(bad);
            assert!(error.contains("PYTHON[:MODULE,...]"), "{error}");
        }
    }
}
