//! Where a project keeps its packages, as pyproject.toml, setup.cfg or setup.py say it.

use super::layout::is_identifier;

/// The files that say it.
pub(super) const FILES: &[&str] = &["pyproject.toml", "setup.cfg", "setup.py"];
/// A longer one is none.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// A folder below the project's with the package that it holds; an empty name: it holds packages by their own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    /// Relative to the project, with `/`; never empty.
    pub folder: String,
    /// Dotted name of the package that the folder is, or empty.
    pub package: String,
}

/// The folders that one of [`FILES`] names.
pub(super) fn roots(file: &str, text: &str) -> Vec<Root> {
    let mut found = match file {
        "pyproject.toml" => pyproject(text),
        "setup.cfg" => setup_cfg(text),
        _ => setup_py(text),
    };
    for root in &mut found {
        root.folder = root.folder.trim_start_matches("./").trim_matches('/').to_owned();
    }
    found.retain(|root| {
        let inside =
            !root.folder.is_empty() && root.folder.split('/').all(|part| part != ".." && part != ".");
        inside && (root.package.is_empty() || root.package.split('.').all(is_identifier))
    });
    let mut unique: Vec<Root> = Vec::new();
    for root in found {
        if !unique.contains(&root) {
            unique.push(root);
        }
    }
    unique
}

fn holding(folder: &str) -> Root {
    Root { folder: folder.to_owned(), package: String::new() }
}

fn pyproject(text: &str) -> Vec<Root> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    let Some(tool) = table.get("tool") else { return Vec::new() };
    let at = |path: &[&str]| path.iter().try_fold(tool, |value, key| value.get(key));
    let strings = |value: Option<&toml::Value>| -> Vec<String> {
        match value {
            Some(toml::Value::String(one)) => vec![one.clone()],
            Some(toml::Value::Array(many)) => {
                many.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        }
    };
    let mut found = Vec::new();
    if let Some(toml::Value::Table(folders)) = at(&["setuptools", "package-dir"]) {
        for (package, folder) in folders {
            if let Some(folder) = folder.as_str() {
                found.push(Root { folder: folder.to_owned(), package: package.clone() });
            }
        }
    }
    for path in [
        &["setuptools", "packages", "find", "where"][..],
        &["maturin", "python-source"],
        &["pdm", "build", "package-dir"],
        &["uv", "build-backend", "module-root"],
    ] {
        found.extend(strings(at(path)).iter().map(|folder| holding(folder)));
    }
    // Packages by their paths: the folders that they lie in.
    for path in
        [&["hatch", "build", "targets", "wheel", "packages"][..], &["scikit-build", "wheel", "packages"]]
    {
        for package in strings(at(path)) {
            if let Some((folder, _)) = package.trim_end_matches('/').rsplit_once('/') {
                found.push(holding(folder));
            }
        }
    }
    if let Some(toml::Value::Array(packages)) = at(&["poetry", "packages"]) {
        found.extend(packages.iter().filter_map(|package| package.get("from")?.as_str()).map(holding));
    }
    found
}

/// `package_dir` of `[options]` and `where` of `[options.packages.find]`.
fn setup_cfg(text: &str) -> Vec<Root> {
    let mut found = Vec::new();
    let (mut section, mut key) = (String::new(), String::new());
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_owned();
            key.clear();
            continue;
        }
        let indented = line.starts_with(char::is_whitespace);
        let value = match bare.split_once('=') {
            Some((name, value)) if !indented => {
                key = name.trim().replace('-', "_");
                value.trim()
            }
            _ if indented => bare,
            _ => continue,
        };
        match (section.as_str(), key.as_str()) {
            ("options", "package_dir") if !value.is_empty() => {
                for entry in value.split(',') {
                    let (package, folder) = entry.split_once('=').unwrap_or(("", entry));
                    found.push(Root { folder: folder.trim().to_owned(), package: package.trim().to_owned() });
                }
            }
            ("options.packages.find" | "options.packages.find_namespace", "where") if !value.is_empty() => {
                found.push(holding(value));
            }
            _ => {}
        }
    }
    found
}

/// `package_dir={"": "lib"}`, `find_packages("lib")` and `find_packages(where="lib")`, as literals of setup.py.
fn setup_py(text: &str) -> Vec<Root> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("package_dir") {
        let rest = text[at + "package_dir".len()..].trim_start();
        let Some(rest) = rest.strip_prefix('=').map(str::trim_start) else { continue };
        let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for entry in inside.0.split(',') {
            if let Some((package, folder)) = entry.split_once(':')
                && let (Some(package), Some(folder)) = (literal(package), literal(folder))
            {
                found.push(Root { folder: folder.to_owned(), package: package.to_owned() });
            }
        }
    }
    for (at, call) in
        text.match_indices("find_packages(").chain(text.match_indices("find_namespace_packages("))
    {
        let Some((inside, _)) = text[at + call.len()..].split_once(')') else { continue };
        for (i, argument) in inside.split(',').enumerate() {
            let folder = match argument.split_once('=') {
                Some((name, value)) if name.trim() == "where" => literal(value),
                None if i == 0 => literal(argument),
                _ => None,
            };
            found.extend(folder.map(holding));
        }
    }
    found
}

/// The text between quotes.
fn literal(text: &str) -> Option<&str> {
    let text = text.trim();
    ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_projects_say() {
        let cases = [
            ("pyproject.toml", "[tool.setuptools.package-dir]\n\"\" = \"code\"\n", "code="),
            ("pyproject.toml", "[tool.setuptools.packages.find]\nwhere = [\"lib\"]\n", "lib="),
            ("pyproject.toml", "[tool.maturin]\npython-source = \"py/\"\n", "py="),
            ("pyproject.toml", "[tool.hatch.build.targets.wheel]\npackages = [\"inner/shell\"]\n", "inner="),
            (
                "pyproject.toml",
                "[tool.poetry]\npackages = [{ include = \"shell\", from = \"inner\" }]\n",
                "inner=",
            ),
            (
                "setup.cfg",
                "[options]\npackage_dir =\n    =lib\n    shell = other/shell\n",
                "lib= other/shell=shell",
            ),
            ("setup.cfg", "[options.packages.find]\nwhere = lib\n", "lib="),
            ("setup.py", "setup(package_dir={'': 'lib'}, packages=find_packages('lib'))", "lib="),
            ("setup.py", "setup(packages=find_packages(where=\"code\", exclude=['t']))", "code="),
            ("setup.py", "setup(package_dir={'': '../out'})", ""),
            ("pyproject.toml", "not toml [", ""),
        ];
        for (file, text, expected) in cases {
            let found: Vec<String> = roots(file, text)
                .into_iter()
                .map(|root| format!("{}={}", root.folder, root.package))
                .collect();
            assert_eq!(found.join(" "), expected, "{text}");
        }
    }
}
