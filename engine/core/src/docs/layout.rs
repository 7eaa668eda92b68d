//! Which of a library's files are modules of its interface, and under which names they are imported.

/// A file that defines a module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Position in the list of paths.
    pub file: usize,
    /// Dotted module name.
    pub name: String,
    pub is_package: bool,
    pub stub: bool,
}

/// Folders that are never part of a library's interface.
pub(super) fn is_skipped_folder(name: &str) -> bool {
    name.starts_with('.')
        || matches!(
            name,
            "tests"
                | "__pycache__"
                | "__pypackages__"
                | "_vendor"
                | "_vendored"
                | "vendor"
                | "vendored"
                | "third_party"
                | "_distutils"
                | "node_modules"
                | "site-packages"
                | "venv"
        )
}

/// Folders beside a project's packages that hold no package.
fn is_project_folder(name: &str) -> bool {
    matches!(
        name,
        "test"
            | "testing"
            | "doc"
            | "docs"
            | "example"
            | "examples"
            | "demo"
            | "demos"
            | "benchmark"
            | "benchmarks"
            | "bench"
            | "build"
            | "dist"
            | "ci"
            | "scripts"
            | "script"
            | "tools"
            | "tool"
            | "tutorial"
            | "tutorials"
            | "notebooks"
            | "samples"
            | "env"
    )
}

/// Modules beside a project's packages that are not installed.
fn is_project_file(stem: &str) -> bool {
    matches!(stem, "setup" | "conftest" | "noxfile" | "tasks" | "fabfile" | "dodo" | "conf" | "versioneer")
}

fn is_test_file(stem: &str) -> bool {
    stem == "conftest" || stem.starts_with("test_") || stem.ends_with("_test")
}

/// Whether `name` can be a Python name.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}

/// Splits `a/b/c.py` into (`[a, b]`, `c`, stub); `None` when it is no module or lies in a skipped folder.
fn split(path: &str) -> Option<(Vec<&str>, &str, bool)> {
    let (stem, stub) = match path.strip_suffix(".pyi") {
        Some(stem) => (stem, true),
        None => (path.strip_suffix(".py")?, false),
    };
    let mut parts: Vec<&str> = stem.split('/').collect();
    let name = parts.pop()?;
    if parts.iter().any(|part| is_skipped_folder(part)) || !is_identifier(name) || is_test_file(name) {
        return None;
    }
    Some((parts, name, stub))
}

fn place(file: usize, folders: &[&str], name: &str, stub: bool, prefix: &str) -> Option<Placed> {
    let mut parts: Vec<&str> = Vec::new();
    if !prefix.is_empty() {
        parts.push(prefix);
    }
    for folder in folders {
        parts.push(folder.strip_suffix("-stubs").unwrap_or(folder));
    }
    if parts.iter().skip(usize::from(!prefix.is_empty())).any(|part| !is_identifier(part))
        || name == "__main__"
    {
        return None;
    }
    let is_package = name == "__init__";
    if !is_package {
        parts.push(name);
    }
    if parts.is_empty() {
        return None;
    }
    Some(Placed { file, name: parts.join("."), is_package, stub })
}

/// The modules of a package folder; `paths` are relative to it.
pub(super) fn package(paths: &[String], name: &str) -> Vec<Placed> {
    let tests = test_folders(paths);
    let placed = paths.iter().enumerate().filter_map(|(file, path)| {
        let (folders, stem, stub) = split(path)?;
        if in_any(&folders, &tests) {
            return None;
        }
        place(file, &folders, stem, stub, name)
    });
    sorted(placed.collect())
}

/// The modules of a project, an installed tree or an unpacked archive; `paths` are relative to its top.
///
/// Packages at the top (or below `src/`, or below the only folder there is, as in an sdist) are taken; top-level
/// modules too, unless they are a project's own scripts. Folders without `__init__` count only where there is no
/// regular package.
pub(super) fn project(paths: &[String]) -> Vec<Placed> {
    let paths: &[String] = &paths.iter().map(|path| data_prefix(path).to_owned()).collect::<Vec<_>>();
    let tests = test_folders(paths);
    let mut root = Vec::new();
    for _ in 0..4 {
        let Some(next) = descend(paths, &root) else { break };
        root.push(next);
    }
    let mut regular: Vec<&str> = Vec::new();
    let mut loose = false;
    let mut scripts = false;
    let below = |path: &'_ str| -> Option<usize> {
        let mut rest = path;
        for folder in &root {
            rest = rest.strip_prefix(folder.as_str())?.strip_prefix('/')?;
        }
        Some(path.len() - rest.len())
    };
    for path in paths {
        let Some(rest) = below(path).map(|at| &path[at..]) else { continue };
        if let Some((top, file)) = rest.split_once('/') {
            if file == "__init__.py" || file == "__init__.pyi" {
                regular.push(top);
            }
        } else if rest == "setup.py" {
            scripts = true;
        } else {
            loose = true;
        }
    }
    let regular_only: Vec<&str> = regular.iter().copied().filter(|top| !is_project_folder(top)).collect();
    if !regular_only.is_empty() {
        regular = regular_only;
    }
    let placed = paths.iter().enumerate().filter_map(|(file, path)| {
        let rest = &path[below(path)?..];
        let (folders, stem, stub) = split(rest)?;
        if in_any(&folders, &tests) {
            return None;
        }
        match folders.first() {
            // A project with packages keeps its helper scripts at the top; an installed tree has modules there.
            None if is_project_file(stem) || (scripts && !regular.is_empty()) => None,
            None => place(file, &folders, stem, stub, ""),
            Some(top) if regular.contains(top) => place(file, &folders, stem, stub, ""),
            Some(top) if regular.is_empty() && !is_project_folder(top) && !loose => {
                place(file, &folders, stem, stub, "")
            }
            Some(_) => None,
        }
    });
    sorted(placed.collect())
}

/// `X.data/purelib/` and `X.data/platlib/` of a wheel are installed at the top (PEP 427).
fn data_prefix(path: &str) -> &str {
    if let Some((top, rest)) = path.split_once('/')
        && top.ends_with(".data")
        && let Some((kind, rest)) = rest.split_once('/')
        && matches!(kind, "purelib" | "platlib")
    {
        return rest;
    }
    path
}

/// The folder to go down into from `root`: `src`, or the only folder there is.
fn descend(paths: &[String], root: &[String]) -> Option<String> {
    let mut tops: Vec<&str> = Vec::new();
    let mut packages = false;
    let mut loose = false;
    for path in paths {
        let mut rest = path.as_str();
        let inside = root.iter().all(|folder| {
            match rest.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/')) {
                Some(below) => {
                    rest = below;
                    true
                }
                None => false,
            }
        });
        if !inside {
            continue;
        }
        match rest.split_once('/') {
            None => loose |= rest != "setup.py" && rest != "conftest.py",
            Some((top, file)) => {
                if !tops.contains(&top) {
                    tops.push(top);
                }
                packages |= matches!(file, "__init__.py" | "__init__.pyi") && !is_project_folder(top);
            }
        }
    }
    if packages {
        return None;
    }
    if tops.contains(&"src") {
        return Some("src".into());
    }
    // The one folder of an sdist, `name-1.0`, is no identifier; a namespace package is.
    match tops.as_slice() {
        [only] if !loose && root.is_empty() && !is_identifier(only) => Some((*only).to_owned()),
        _ => None,
    }
}

/// Folders called `test` that hold test files (a public `package.test` does not).
fn test_folders(paths: &[String]) -> Vec<Vec<&str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    for path in paths {
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(file) = parts.pop() else { continue };
        if parts.last() == Some(&"test") && file.starts_with("test_") && !found.contains(&parts) {
            found.push(parts);
        }
    }
    found
}

fn in_any(folders: &[&str], tests: &[Vec<&str>]) -> bool {
    tests
        .iter()
        .any(|test| folders.ends_with(test) || folders.windows(test.len().max(1)).any(|part| part == test))
}

/// By module name, source before stub; of two files for one name the first stays.
fn sorted(mut placed: Vec<Placed>) -> Vec<Placed> {
    placed.sort_by(|a, b| {
        (&a.name, a.stub, !a.is_package, a.file).cmp(&(&b.name, b.stub, !b.is_package, b.file))
    });
    placed.dedup_by(|b, a| a.name == b.name && a.stub == b.stub);
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<String> {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        project(&paths).into_iter().map(|placed| placed.name).collect()
    }

    #[test]
    fn layouts() {
        let cases: &[(&[&str], &[&str])] = &[
            // a wheel
            (&["a/__init__.py", "a/b.py", "a/tests/test_b.py", "a-1.0.dist-info/x.py"], &["a", "a.b"]),
            // purelib of a wheel
            (&["a-1.0.data/purelib/m.py"], &["m"]),
            // an sdist with src/
            (
                &["a-1.0/setup.py", "a-1.0/src/a/__init__.py", "a-1.0/src/a/c.pyi", "a-1.0/tests/test_a.py"],
                &["a", "a.c"],
            ),
            // a flat sdist with a helper script
            (&["a-1.0/setup.py", "a-1.0/a/__init__.py", "a-1.0/run.py", "a-1.0/docs/conf.py"], &["a"]),
            // a single-module sdist
            (&["six-1.0/setup.py", "six-1.0/six.py", "six-1.0/test_six.py"], &["six"]),
            // site-packages
            (&["six.py", "a/__init__.py", "a/_vendor/x.py", "b/__init__.py"], &["a", "b", "six"]),
            // a namespace package
            (&["ns/pkg/__init__.py", "ns/pkg/m.py"], &["ns.pkg", "ns.pkg.m"]),
            // stubs beside and apart
            (&["a/__init__.py", "a/__init__.pyi", "a/test/__init__.py"], &["a", "a", "a.test"]),
            (&["a-stubs/__init__.pyi"], &["a"]),
            (&["a/__init__.py", "a/test/test_x.py", "a/test/helper.py"], &["a"]),
        ];
        for (paths, expected) in cases {
            assert_eq!(&names(paths), expected, "{paths:?}");
        }
    }
}
