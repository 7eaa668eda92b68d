//! Where the worker's program is.

use std::path::{Path, PathBuf};

use inhouse_core::{Error, ErrorKind, Result, installation};

/// Names the program for every engine of a process that does not name one itself.
const VARIABLE: &str = "INHOUSE_WORKER";
const PROGRAM: &str = "inhouse-worker";

/// The program: what `INHOUSE_WORKER` names; else `inhouse-worker` beside the library or executable that holds this code, or
/// in `../libexec/inhouse-VERSION` from there, as `make install` leaves it; else the one on PATH.
///
/// # Errors
/// There is none.
pub(crate) fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return checked(Path::new(&named), VARIABLE);
    }
    let installed = Path::new("..").join("libexec").join(concat!("inhouse-", env!("CARGO_PKG_VERSION")));
    let folders = installation::folders();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = folders.iter().flat_map(|folder| [folder.clone(), folder.join(&installed)]);
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let found = beside.chain(on_path).map(|folder| folder.join(PROGRAM)).find(|file| is_program(file));
    found.ok_or_else(|| {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Error::new(
            ErrorKind::NotFound,
            format!(
                "no worker program: {PROGRAM} is neither beside {} nor in {} from there, nor on PATH; install it \
                 (`make install`) or name it ({VARIABLE})",
                places.join(" or "),
                installed.display()
            ),
        )
    })
}

/// `program` as an absolute path, which is what a process that may change its folder needs.
///
/// # Errors
/// It is no program.
pub(crate) fn checked(program: &Path, named_by: &str) -> Result<PathBuf> {
    let absolute =
        std::path::absolute(program).map_err(|cause| Error::io("find the worker program", program, cause))?;
    if is_program(&absolute) {
        return Ok(absolute);
    }
    let what = format!("{}: no such program (named by {named_by})", absolute.display());
    Err(Error::new(ErrorKind::NotFound, what))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_refused() {
        for path in ["/", "/proc/self/maps", "/nonexistent/inhouse-worker"] {
            let error = checked(Path::new(path), VARIABLE).unwrap_err();
            assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains(path), "{error}");
        }
    }
}
