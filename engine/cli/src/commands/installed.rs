//! Where an installed package lies, found by looking, without running Python: site-packages of environments, pyenv, and what
//! editable installs leave behind.

use std::path::{Path, PathBuf};

/// A longer `.pth` file or finder is none.
const MAX_BYTES: u64 = 4 << 20;

/// The folder or file of an installed package, `name` dotted for a module in it.
pub fn find(name: &str, sites: &[PathBuf]) -> Option<PathBuf> {
    let relative: PathBuf = name.split('.').collect();
    let inside = |folder: &Path| {
        let package = folder.join(&relative);
        let (module, stub) = (package.with_extension("py"), package.with_extension("pyi"));
        if package.is_dir() { Some(package) } else { [module, stub].into_iter().find(|file| file.is_file()) }
    };
    for site in sites {
        if let Some(found) = inside(site) {
            return Some(found);
        }
    }
    let (top, rest) = name.split_once('.').unwrap_or((name, ""));
    for site in sites {
        if let Some(package) = mapped(site, top) {
            let found =
                rest.split('.').filter(|part| !part.is_empty()).fold(package, |path, part| path.join(part));
            let module = found.with_extension("py");
            if found.exists() {
                return Some(found);
            }
            if module.is_file() {
                return Some(module);
            }
        }
        for folder in path_entries(site).into_iter().chain(projects(site)) {
            if let Some(found) = inside(&folder) {
                return Some(found);
            }
        }
    }
    None
}

/// Lines of `.pth` files that are folders.
fn path_entries(site: &Path) -> Vec<PathBuf> {
    let files = children(site).into_iter().filter(|path| path.extension().is_some_and(|is| is == "pth"));
    let texts: Vec<String> = files.filter_map(|path| text(&path)).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
    let entries =
        lines.filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("import "));
    entries.map(|line| site.join(line)).filter(|folder| folder.is_dir()).collect()
}

/// Where the finder of an editable install (`__editable___NAME_finder.py`) says that a package is: its `MAPPING` is a literal.
fn mapped(site: &Path, name: &str) -> Option<PathBuf> {
    let finders = children(site).into_iter().filter(|path| {
        let file = path.file_name().map(|file| file.to_string_lossy()).unwrap_or_default();
        file.starts_with("__editable__") && file.ends_with(".py")
    });
    for finder in finders {
        let Some(text) = text(&finder) else { continue };
        let mapping = text.lines().find(|line| line.starts_with("MAPPING"));
        let Some((_, dictionary)) = mapping.and_then(|line| line.split_once('{')) else { continue };
        let quoted: Vec<&str> = dictionary.split(['"', '\'']).skip(1).step_by(2).collect();
        for pair in quoted.chunks(2) {
            if let [package, path] = pair
                && *package == name
            {
                return Some(PathBuf::from(path.replace("\\\\", "\\")));
            }
        }
    }
    None
}

/// The projects that `direct_url.json` of editable installs names, and the folders of packages that projects have.
fn projects(site: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for info in children(site) {
        if !info.extension().is_some_and(|is| is == "dist-info") {
            continue;
        }
        let Some(text) = text(&info.join("direct_url.json")) else { continue };
        let Ok(direct) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
        let editable =
            direct.pointer("/dir_info/editable").and_then(serde_json::Value::as_bool) == Some(true);
        let url = direct.get("url").and_then(serde_json::Value::as_str);
        if let (true, Some(path)) = (editable, url.and_then(|url| url.strip_prefix("file://"))) {
            let project = PathBuf::from(unescaped(path));
            found.extend(["src", "lib", "python", "."].map(|folder| project.join(folder)));
        }
    }
    found
}

/// `%20` and its kin.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match (first, tail) {
            (b'%', [a, b, ..]) => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = &tail[if code.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Package folders of the interpreter that is named by its path, of the active virtual environment, then of every `python3` on
/// the PATH; a shim of pyenv stands for the version that it would start.
pub fn sites(python: &Path) -> Vec<PathBuf> {
    let mut prefixes = Vec::new();
    if python.components().count() > 1 {
        prefixes.extend(python.parent().and_then(Path::parent).map(Path::to_path_buf));
    }
    if let Some(environment) = std::env::var_os("VIRTUAL_ENV") {
        prefixes.push(PathBuf::from(environment));
    }
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        if folder.join("python3").exists()
            && let Some(prefix) = folder.parent()
        {
            if folder.ends_with("shims") && prefix.join("versions").is_dir() {
                prefixes.extend(pyenv_versions(prefix));
            } else {
                prefixes.push(prefix.to_path_buf());
            }
        }
    }
    let mut folders = Vec::new();
    for prefix in prefixes {
        for python in children(&prefix.join("lib")) {
            let named = python.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
            folders.extend(
                ["site-packages", "dist-packages"]
                    .map(|name| python.join(name))
                    .into_iter()
                    .filter(|f| named && f.is_dir()),
            );
        }
    }
    folders.dedup();
    folders
}

/// The versions that pyenv chooses: PYENV_VERSION, the next `.python-version` upwards, the global one; else all there are.
fn pyenv_versions(root: &Path) -> Vec<PathBuf> {
    let local = || {
        let here = std::env::current_dir().ok()?;
        here.ancestors().find_map(|folder| text(&folder.join(".python-version")))
    };
    let chosen = std::env::var("PYENV_VERSION").ok().map(|names| names.replace(':', "\n")).or_else(local);
    let chosen = chosen.or_else(|| text(&root.join("version"))).unwrap_or_default();
    let installed = children(&root.join("versions"));
    let mut found: Vec<PathBuf> = Vec::new();
    for name in chosen.split_whitespace() {
        let name = name.trim_start_matches("python-");
        // `3.12` stands for the newest of its kind.
        let like = |path: &&PathBuf| {
            let file = path.file_name().map(|file| file.to_string_lossy()).unwrap_or_default();
            file == name || file.starts_with(&format!("{name}."))
        };
        found.extend(installed.iter().rfind(like).cloned());
    }
    if found.is_empty() { installed.into_iter().rev().collect() } else { found }
}

fn text(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if size > MAX_BYTES {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    children.sort();
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editable_installs_lead_to_their_projects() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = dir.path().display();
        for package in ["one/src/alder", "two/src/birch", "my three/cedar"] {
            write(&format!("{package}/__init__.py"), "def grow(): 'Grows.'\n");
        }
        write(
            "site/__editable___alder_1_finder.py",
            &format!("MAPPING: dict[str, str] = {{'other': '/x', 'alder': '{root}/one/src/alder'}}\n"),
        );
        write("site/birch.pth", &format!("# a comment\nimport something\n{root}/two/src\n"));
        write(
            "site/cedar-1.dist-info/direct_url.json",
            &format!("{{\"url\": \"file://{root}/my%20three\", \"dir_info\": {{\"editable\": true}}}}"),
        );
        let sites = [dir.path().join("site")];
        for (name, path) in
            [("alder", "one/src/alder"), ("birch", "two/src/birch"), ("cedar", "my three/./cedar")]
        {
            assert_eq!(find(name, &sites).unwrap(), dir.path().join(path), "{name}");
        }
        assert_eq!(find("dogwood", &sites), None);
    }

    #[test]
    fn escapes_of_addresses() {
        assert_eq!(unescaped("/a%20b/%zz%4"), "/a b/%zz%4");
    }
}
