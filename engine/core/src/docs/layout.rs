//! Which of a library's files are modules of its interface, and under which names they are imported.

use super::packaging::Root;

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

/// Which of the files of a library are its interface.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The modules of the interface.
    pub modules: Vec<Placed>,
    /// Modules that are passed over by their names and looked into where the interface leads to them: tests, copies of other
    /// packages.
    pub reserve: Vec<Placed>,
    /// The folders and files that those of `reserve` lie in.
    pub passed_over: Vec<String>,
}

/// What a user says of files that the layout takes or passes over.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub include: Vec<Glob>,
    pub exclude: Vec<Glob>,
}

/// A pattern of paths: `*` within a folder, `**` across folders, `?` one character. It matches a file and everything below a
/// folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(String);

impl Glob {
    pub fn new(pattern: &str) -> Self {
        Glob(pattern.trim_start_matches("./").trim_end_matches('/').to_owned())
    }

    /// Whether the path, a folder it lies in, or its end from some folder on matches.
    pub fn matches(&self, path: &str) -> bool {
        let starts = std::iter::once(0).chain(path.match_indices('/').map(|(at, _)| at + 1));
        let starts: Vec<usize> = if self.0.contains('/') { vec![0] } else { starts.collect() };
        let ends = || path.match_indices('/').map(|(at, _)| at).chain(std::iter::once(path.len()));
        starts.iter().any(|&start| {
            ends().any(|end| end > start && matches(self.0.as_bytes(), &path.as_bytes()[start..end]))
        })
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Positions of the pattern that are reached after each byte of the text.
    let mut reached = vec![false; pattern.len() + 1];
    let spread = |reached: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if reached[at] && pattern[at] == b'*' {
                reached[at + 1] = true;
            }
        }
    };
    reached[0] = true;
    spread(&mut reached);
    for &byte in text {
        let mut next = vec![false; pattern.len() + 1];
        for at in 0..pattern.len() {
            if !reached[at] {
                continue;
            }
            match pattern[at] {
                // The first star of `**` crosses folders as the second does.
                b'*' => {
                    let across = pattern.get(at + 1) == Some(&b'*') || (at > 0 && pattern[at - 1] == b'*');
                    next[at] |= across || byte != b'/';
                }
                b'?' if byte != b'/' => next[at + 1] = true,
                other if other == byte => next[at + 1] = true,
                _ => {}
            }
        }
        spread(&mut next);
        reached = next;
    }
    reached[pattern.len()]
}

/// Folders that hold no source of the library's own, and are not entered.
pub(super) fn is_foreign_folder(name: &str) -> bool {
    name.starts_with('.')
        || matches!(name, "__pycache__" | "__pypackages__" | "node_modules" | "site-packages" | "venv")
}

/// Folders that are passed over by their names. A package called `vendor` may be the library's own, though.
fn is_passed_over(name: &str) -> bool {
    matches!(name, "tests" | "_vendor" | "_vendored" | "vendor" | "vendored" | "third_party" | "_distutils")
}

/// Folders beside a project's packages that hold no package.
fn is_project_folder(name: &str) -> bool {
    matches!(
        name,
        "test"
            | "tests"
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

/// Whether a file is called as files of tests are; what is in it decides ([`super::parse::is_test`]).
pub(super) fn may_be_test(stem: &str) -> bool {
    stem == "conftest" || stem.starts_with("test_") || stem.ends_with("_test")
}

/// Whether `name` can be a Python name.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && chars.all(|c| c == '_' || c.is_alphanumeric())
}

/// Splits `a/b/c.py` into (`[a, b]`, `c`, stub); `None` when it is no module.
fn split(path: &str) -> Option<(Vec<&str>, &str, bool)> {
    let (stem, stub) = match path.strip_suffix(".pyi") {
        Some(stem) => (stem, true),
        None => (path.strip_suffix(".py")?, false),
    };
    let mut parts: Vec<&str> = stem.split('/').collect();
    let name = parts.pop()?;
    let foreign = parts.iter().any(|part| is_foreign_folder(part));
    (!foreign && is_identifier(name)).then_some((parts, name, stub))
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

/// Parts placed modules into the interface and the reserve.
struct Sorter<'p> {
    paths: &'p [String],
    tests: Vec<Vec<&'p str>>,
    /// Folders whose `__init__` is a package of the library's own, whatever they are called.
    own: Vec<&'p str>,
    choice: &'p Choice,
    found: Layout,
}

impl<'p> Sorter<'p> {
    fn new(paths: &'p [String], own: Vec<&'p str>, choice: &'p Choice) -> Self {
        Sorter { paths, tests: test_folders(paths), own, choice, found: Layout::default() }
    }

    /// Takes a module whose folders, from the top of what is read on, are `folders`.
    fn add(&mut self, placed: Placed, folders: &[&str]) {
        let path = &self.paths[placed.file];
        if self.choice.exclude.iter().any(|glob| glob.matches(path)) {
            return;
        }
        if self.choice.include.iter().any(|glob| glob.matches(path)) {
            self.found.modules.push(placed);
            return;
        }
        let mut over = None;
        let mut length = path.len() - path.rsplit('/').next().map_or(0, str::len);
        for (depth, folder) in folders.iter().enumerate().rev() {
            // `length` is where the folder ends in the path.
            length = length.saturating_sub(1);
            let at = &path[..length];
            let test = in_any(&folders[..=depth], &self.tests);
            if (is_passed_over(folder) && !self.own.contains(&at)) || test {
                over = Some(at.to_owned());
            }
            length = length.saturating_sub(folder.len());
        }
        let conftest = placed.name.rsplit('.').next() == Some("conftest");
        match over.or_else(|| conftest.then(|| path.clone())) {
            None => self.found.modules.push(placed),
            Some(over) => {
                if !self.found.passed_over.contains(&over) {
                    self.found.passed_over.push(over);
                }
                self.found.reserve.push(placed);
            }
        }
    }

    fn finish(self) -> Layout {
        let Layout { modules, reserve, passed_over } = self.found;
        Layout { modules: sorted(modules), reserve: sorted(reserve), passed_over }
    }
}

/// The modules of a package folder; `paths` are relative to it. `own` are folders that are packages of the library's own,
/// whatever they are called.
pub(super) fn package(paths: &[String], name: &str, own: Vec<&str>, choice: &Choice) -> Layout {
    let mut sorter = Sorter::new(paths, own, choice);
    for (file, path) in paths.iter().enumerate() {
        if let Some((folders, stem, stub)) = split(path)
            && let Some(placed) = place(file, &folders, stem, stub, name)
        {
            sorter.add(placed, &folders);
        }
    }
    sorter.finish()
}

/// The modules of a project, an installed tree or an unpacked archive; `paths` are relative to its top.
///
/// Packages at the top (or below `src/`, or below the only folder there is, as in an sdist) are taken; top-level
/// modules too, unless they are a project's own scripts. Folders without `__init__` count only where there is no
/// regular package.
/// `roots` are the folders that the project's own files name, relative to the top of `paths`.
pub(super) fn project(paths: &[String], roots: &[Root], own: Vec<&str>, choice: &Choice) -> Layout {
    let mut declared = Sorter::new(paths, own.clone(), choice);
    for root in roots {
        for (file, path) in paths.iter().enumerate() {
            if let Some(rest) =
                path.strip_prefix(root.folder.as_str()).and_then(|rest| rest.strip_prefix('/'))
                && let Some((folders, stem, stub)) = split(rest)
                && !(folders.is_empty() && root.package.is_empty() && is_project_file(stem))
                && let Some(placed) = place(file, &folders, stem, stub, &root.package)
            {
                declared.add(placed, &folders);
            }
        }
    }
    if !declared.found.modules.is_empty() {
        return declared.finish();
    }
    let paths: &[String] = &paths.iter().map(|path| data_prefix(path).to_owned()).collect::<Vec<_>>();
    let mut sorter = Sorter::new(paths, own, choice);
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
    for (file, path) in paths.iter().enumerate() {
        let Some(at) = below(path) else { continue };
        let Some((folders, stem, stub)) = split(&path[at..]) else { continue };
        let taken = match folders.first() {
            // A project with packages keeps its helper scripts at the top; an installed tree has modules there.
            None => !(is_project_file(stem) || may_be_test(stem) || (scripts && !regular.is_empty())),
            Some(top) if regular.contains(top) => true,
            Some(top) => regular.is_empty() && !is_project_folder(top) && !loose,
        };
        let included = choice.include.iter().any(|glob| glob.matches(path));
        if (taken || included)
            && let Some(placed) = place(file, &folders, stem, stub, "")
        {
            sorter.add(placed, &folders);
        }
    }
    sorter.finish()
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
    // Where projects keep their packages that do not say where.
    for folder in ["src", "lib", "python"] {
        let holds = |path: &String| {
            let mut rest = path.as_str();
            for part in root.iter().map(String::as_str).chain([folder]) {
                match rest.strip_prefix(part).and_then(|rest| rest.strip_prefix('/')) {
                    Some(below) => rest = below,
                    None => return false,
                }
            }
            folder == "src" || matches!(rest.split_once('/'), Some((_, "__init__.py" | "__init__.pyi")))
        };
        if tops.contains(&folder) && paths.iter().any(holds) {
            return Some(folder.into());
        }
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
        let found = project(&paths, &[], Vec::new(), &Choice::default());
        found.modules.into_iter().map(|placed| placed.name).collect()
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

    #[test]
    fn folders_that_a_project_names() {
        let paths =
            ["p/lib/a/__init__.py", "p/lib/a/tests/x.py", "p/tools/gen.py", "p/b/c.py"].map(str::to_owned);
        let roots = [
            Root { folder: "p/lib".into(), package: String::new() },
            Root { folder: "p/b".into(), package: "other".into() },
        ];
        let found = project(&paths, &roots, Vec::new(), &Choice::default());
        let names: Vec<&str> = found.modules.iter().map(|placed| placed.name.as_str()).collect();
        assert_eq!(names, ["a", "other.c"]);
        assert_eq!(found.passed_over, ["p/lib/a/tests"]);
        assert_eq!(found.reserve[0].name, "a.tests.x");
    }

    #[test]
    fn globs() {
        let cases = [
            ("tests", "a/tests/x.py", true),
            ("test_*", "a/test_x.py", true),
            ("a/*.py", "a/x.py", true),
            ("a/*.py", "a/b/x.py", false),
            ("a/**", "a/b/x.py", true),
            ("**/x.py", "a/b/x.py", true),
            ("b", "a/bb/x.py", false),
            ("a/b/", "a/b/x.py", true),
            ("?.py", "a/x.py", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }
}
