//! The packages that training data is made from: a pinned list, fetched by pip into a cache outside the repository.
//!
//! Only wheels are taken. A wheel is unpacked and nothing more; pip asks an sdist for its metadata by running its build
//! script, and nothing of a package is ever run here.

use std::path::{Path, PathBuf};
use std::process::Command;

use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A wheel is not larger.
const MAX_WHEEL_BYTES: u64 = 1 << 30;

/// One pinned package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name at the package index.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Name of the wheel.
    pub file: String,
    /// SHA-256 of the wheel, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Its licence, as the wheel states it.
    pub licence: String,
    /// One of the paper's 31 libraries.
    #[serde(default)]
    pub paper: bool,
    /// Paths inside the wheel, by their beginnings, that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
}

/// The pinned list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceList {
    /// The packages.
    pub package: Vec<Package>,
}

impl SourceList {
    /// Reads and checks a list.
    ///
    /// # Errors
    /// The file cannot be read or is not such a list; a name, file or checksum in it cannot be one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_text(path)?;
        let list: Self = toml::from_str(&text)
            .map_err(|cause| Error::data(path, cause.to_string().trim().replace('\n', " | ")))?;
        for package in &list.package {
            let plain = |text: &str| {
                !text.is_empty()
                    && !text.starts_with('-')
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+!".contains(&byte))
            };
            if !plain(&package.name) || !plain(&package.version) || !plain(&package.file) {
                let what = format!("package {:?}: name, version and file are plain words", package.name);
                return Err(Error::data(path, what));
            }
            if !package.file.ends_with(".whl") {
                let what = format!("{}: not a wheel, and nothing else is taken", package.file);
                return Err(Error::data(path, what));
            }
            let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if package.sha256.len() != 64 || !package.sha256.bytes().all(hexadecimal) {
                let what = format!("{}: sha256 is not 64 lower-case hexadecimal digits", package.name);
                return Err(Error::data(path, what));
            }
        }
        Ok(list)
    }
}

/// Fetches what `folder` lacks of the list; a file that is there is checked against its hash.
///
/// # Errors
/// The folder cannot be written, pip cannot be run or fails, or a wheel is not the pinned one.
pub fn fetch(
    list: &SourceList,
    folder: &Path,
    python: &str,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    progress.start("fetching packages", Some(list.package.len() as u64));
    let mut wheels = Vec::new();
    for package in &list.package {
        let path = folder.join(&package.file);
        if !path.exists() {
            download(package, folder, python)?;
        }
        let found = sha256(&path)?;
        if found != package.sha256 {
            let what = format!("SHA-256 is {found}, the pinned one is {}; remove the file", package.sha256);
            return Err(Error::data(&path, what));
        }
        wheels.push(path);
        progress.advance(1);
    }
    progress.finish();
    Ok(wheels)
}

/// Platform and Python tags of a wheel's name: the last three parts.
fn tags(file: &str) -> Option<(&str, &str, &str)> {
    let mut parts = file.strip_suffix(".whl")?.rsplitn(4, '-');
    let (platform, abi, python) = (parts.next()?, parts.next()?, parts.next()?);
    Some((python, abi, platform))
}

fn download(package: &Package, folder: &Path, python: &str) -> Result<()> {
    let io = |cause| Error::io("write", folder, cause);
    let requirements = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let line = format!("{}=={} --hash=sha256:{}\n", package.name, package.version, package.sha256);
    std::fs::write(requirements.path(), line).map_err(io)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes", "-r"]);
    pip.arg(requirements.path()).arg("-d").arg(folder);
    if let Some((tag, _, platforms)) = tags(&package.file)
        && platforms != "any"
    {
        for platform in platforms.split('.') {
            pip.args(["--platform", platform]);
        }
        let digits = tag.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let (major, minor) = digits.split_at(digits.len().min(1));
        let version = if minor.is_empty() { "3.11".into() } else { format!("{major}.{minor}") };
        pip.args(["--implementation", "cp", "--python-version", &version]);
    }
    let done = pip.output().map_err(|cause| {
        Error::with_source(ErrorKind::Io, format!("cannot run {python} -m pip: {cause}"), cause)
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no message").trim();
        let what = format!("pip cannot fetch {}=={}: {last}", package.name, package.version);
        return Err(Error::new(ErrorKind::Io, what));
    }
    Ok(())
}

fn sha256(path: &Path) -> Result<String> {
    let bytes = files::read_bounded(path, MAX_WHEEL_BYTES).map_err(|cause| Error::io("read", path, cause))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::progress::Silent;

    fn list(change: impl FnOnce(String) -> String) -> Result<SourceList> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        let text = format!(
            "[[package]]\nname = \"loom\"\nversion = \"1.0\"\nfile = \"loom-1.0-py3-none-any.whl\"\nsha256 = \"{}\"\nlicence = \"MIT\"\n",
            "0".repeat(64)
        );
        std::fs::write(&path, change(text)).unwrap();
        SourceList::read(&path)
    }

    #[test]
    fn lists_are_checked() {
        assert_eq!(list(|text| text).unwrap().package[0].name, "loom");
        for (from, to, said) in [
            ("loom\"", "--index\"", "plain words"),
            (".whl", ".tar.gz", "not a wheel"),
            ("0000", "xyz", "sha256"),
            ("licence", "license", "unknown field"),
        ] {
            let error = list(|text| text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("sources.toml"), "{error}");
        }
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("loom-1.0-py3-none-any.whl"), "other").unwrap();
        let list = list(|text| text).unwrap();
        let error = fetch(&list, folder.path(), "python3", &Silent).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }

    #[test]
    fn the_pinned_list_is_one() {
        let list = SourceList::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sources.toml")).unwrap();
        assert!(list.package.iter().any(|package| package.paper));
        assert!(list.package.iter().all(|package| !package.name.contains("torchdata")));
    }

    #[test]
    fn tags_of_wheels() {
        assert_eq!(tags("a-1.0-py3-none-any.whl"), Some(("py3", "none", "any")));
        let file = "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
        assert_eq!(tags(file).unwrap().2, "manylinux_2_27_x86_64.manylinux_2_28_x86_64");
    }
}
