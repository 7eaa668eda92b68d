//! Which files of a library the machine gets to see, and which it could not load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Whether a file or folder is of use: native code and byte code of other interpreters is not.
pub fn is_wanted(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name != "__pycache__" && !name.ends_with(".pyc") && !is_native(path)
}

fn is_native(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.") || name.ends_with(".a")
}

/// Libraries with extension modules: name of the package, and the first native file found in it.
#[derive(Debug, Default)]
pub struct Native(BTreeMap<String, PathBuf>);

impl Native {
    /// Looks through folders of libraries. What cannot be read is passed over: importing it will tell.
    pub fn of<'a>(folders: impl Iterator<Item = &'a PathBuf>) -> Self {
        let mut found = BTreeMap::new();
        for folder in folders {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let package = name.split('.').next().unwrap_or_default().to_owned();
                if let Some(file) = first_native(&entry.path()) {
                    let file = file.strip_prefix(folder).map(Path::to_path_buf).unwrap_or(file);
                    found.entry(package).or_insert(file);
                }
            }
        }
        Self(found)
    }

    /// Why a module cannot be imported, if the package that it belongs to has nothing but native code under its name.
    ///
    /// # Errors
    /// It is an extension module itself. A package may come with native code and do without: its import decides.
    pub fn refuse(&self, module: &str) -> Result<(), String> {
        match self.0.get(top(module)) {
            Some(file) if file.components().count() == 1 => {
                Err(format!("T4 cannot import {module}: it is an extension module ({})", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// What makes it doubtful that a module can be imported, if anything does.
    pub fn doubt(&self, module: &str) -> Option<String> {
        let package = top(module);
        let file = self.0.get(package)?;
        Some(format!("{package} has extension modules ({}), and T4 runs pure Python only", file.display()))
    }

    /// Adds to the reason of a failed import what is behind it.
    pub fn explain(&self, reason: &str) -> String {
        const LONGEST: usize = 160;
        let mut line: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = line.char_indices().nth(LONGEST) {
            line.truncate(end);
            line.push_str("...");
        }
        let words = |text: &str| {
            let split = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'));
            split.map(|word| top(word).to_owned()).collect::<Vec<_>>()
        };
        // The missing module is in quotes; the module to import comes first. Whichever has native code is to blame.
        let blamed = words(reason).into_iter().rev().find_map(|word| Some((self.0.get(&word)?, word)));
        match blamed {
            Some((file, package)) => format!(
                "{package} has extension modules ({}), and T4 runs pure Python only: {line}",
                file.display()
            ),
            None => line,
        }
    }
}

fn top(module: &str) -> &str {
    module.split('.').next().unwrap_or_default()
}

fn first_native(path: &Path) -> Option<PathBuf> {
    const DEEPEST: usize = 8;
    let mut todo = vec![(path.to_path_buf(), 0)];
    while let Some((path, depth)) = todo.pop() {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() && depth < DEEPEST {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            todo.extend(entries.map(|entry| (entry.path(), depth + 1)));
        } else if !meta.is_dir() && is_native(&path) {
            return Some(path);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_modules_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, "").expect("written");
        };
        put("pure/__init__.py");
        put("mixed/__init__.py");
        put("mixed/core/_fast.cpython-311-x86_64-linux-gnu.so");
        put("_speed.cpython-311-x86_64-linux-gnu.so");
        let native = Native::of([folder.path().to_path_buf()].iter());
        assert_eq!(native.refuse("pure"), Ok(()));
        assert_eq!(native.refuse("mixed.core"), Ok(()));
        assert!(native.doubt("mixed.core").is_some_and(|doubt| doubt.contains("mixed/core/_fast.")));
        assert_eq!(native.doubt("pure"), None);
        let reason = native.refuse("_speed").expect_err("native");
        assert!(reason.contains("_speed.cpython-311-x86_64-linux-gnu.so"), "{reason}");
        let reason =
            native.explain("cannot import pure: ModuleNotFoundError: No module named 'mixed.core._fast'");
        assert!(reason.contains("mixed/core/_fast.") && reason.contains("pure Python only"), "{reason}");
        let other = "cannot import pure: ValueError: no";
        assert_eq!(native.explain(other), other);
        assert!(is_wanted(Path::new("a/b.py")) && !is_wanted(Path::new("a/libx.so.3")));
        assert!(!is_wanted(Path::new("a/__pycache__")) && is_wanted(Path::new("a/data.json")));
    }
}
