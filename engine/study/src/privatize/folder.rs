//! The folder of a private library: whole, or not there.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use inhouse_core::{Error, ErrorKind, Result, files};
use tempfile::TempDir;

use super::Report;

/// What `manifest.json` says it is.
pub const FORMAT: &str = "inhouse private library 1";

const MANIFEST: &str = "manifest.json";

/// A folder that is being written under a temporary name.
pub struct Folder {
    out: PathBuf,
    written: TempDir,
}

impl Folder {
    /// Begins to write; `replace` an earlier private library at `out`.
    ///
    /// # Errors
    /// Something is there already, or the folder around it cannot be written.
    pub fn begin(out: &Path, replace: bool) -> Result<Self> {
        if out.symlink_metadata().is_ok() {
            let what = match (replace, is_ours(out)) {
                (true, true) => None,
                (true, false) => Some("something else than a private library is here; give another --out"),
                (false, _) => Some("already here; give another --out, or --force to replace it"),
            };
            if let Some(what) = what {
                return Err(Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", out.display())));
            }
        }
        let around = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if out.file_name().is_none() || !around.is_dir() {
            let message = format!("cannot write {}: no folder {}", out.display(), around.display());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        // Samples in the sandbox read from it, as other users do.
        let written = tempfile::Builder::new()
            .prefix(".inhouse-private-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(around)
            .map_err(|cause| Error::io("make a folder in", around, cause))?;
        Ok(Self { out: out.to_path_buf(), written })
    }

    /// Where it is written meanwhile.
    pub fn path(&self) -> &Path {
        self.written.path()
    }

    /// Writes what the folder says of itself and gives it its name.
    ///
    /// # Errors
    /// It cannot be written, or something has come in its place.
    pub fn finish(self, report: &Report) -> Result<()> {
        let path = self.written.path();
        files::write_atomic(&path.join(MANIFEST), |out| {
            serde_json::to_writer_pretty(&mut *out, report)?;
            out.write_all(b"\n")
        })?;
        files::write_atomic(&path.join("README.md"), |out| out.write_all(readme(report).as_bytes()))?;
        let rename = |from: &Path, to: &Path| {
            std::fs::rename(from, to).map_err(|cause| Error::io("rename", to, cause))
        };
        if self.out.symlink_metadata().is_ok() && is_ours(&self.out) {
            // The old one goes aside first, into the temporary folder that is removed with it.
            let aside = tempfile::Builder::new()
                .prefix(".inhouse-old-")
                .tempdir_in(path.parent().unwrap_or(Path::new(".")))
                .map_err(|cause| Error::io("make a folder beside", &self.out, cause))?;
            rename(&self.out, &aside.path().join("old"))?;
        }
        let written = self.written.keep();
        rename(&written, &self.out).inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&written);
        })
    }
}

/// Whether a folder is a private library.
fn is_ours(folder: &Path) -> bool {
    let text = files::read_text(&folder.join(MANIFEST)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    manifest["format"] == FORMAT
}

fn readme(report: &Report) -> String {
    let Report { library, name, names, apis, scope, .. } = report;
    let version = report.library_version.as_deref().map(|version| format!(" {version}")).unwrap_or_default();
    let origin = match report.seed {
        Some(seed) => format!("words coined from seed {seed}"),
        None => "words of a given table".to_owned(),
    };
    let problems = report.problems.as_ref().map_or(String::new(), |report| {
        format!(
            "\n- `problems.jsonl`: {} problems; {} canonical solutions pass against `{name}`, {} passed before the conversion. \
             Their tests speak `{name}`'s names (`\"test_names\": \"private\"`).",
            report.problems, report.solved, report.solved_before
        )
    });
    format!(
        "# {name}\n\n\
         A private twin of `{library}`{version}: {names} names, {origin}. It needs `{library}` installed, and answers to its own \
         names alone.\n\n\
         - `{name}/`: the package. `PYTHONPATH=. python program.py` or `PYTHONPATH=. python -m {name} program.py`; modules of the \
         program's that are imported before `{name}` are held to its names in the second way only. Private words may be used: \
         {scope}.\n\
         - `apis.jsonl`: {apis} records of documentation: `inhouse index build apis.jsonl --out {name}.index`.\n\
         - `rename.json`: which private word stands for which public name.{problems}\n\n\
         `inhouse eval --problems problems.jsonl --samples samples.jsonl --env PYTHON:{library} --private .` runs completions \
         against it. `manifest.json` has all figures.\n"
    )
}
