//! The files that a program in the machine sees: a read-only tree in memory. There is no way from it to the host's files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result, Step};

/// Index of a file or folder of a [`Tree`].
pub type Node = usize;

/// Where things are mounted: the root.
pub const ROOT: Node = 0;

/// All files together are not larger.
const MAX_TREE_BYTES: u64 = 512 << 20;
/// Nothing is nested deeper, neither on disk nor in a path.
const DEEPEST: usize = 64;

/// A file or folder.
#[derive(Debug)]
pub enum Entry {
    /// A file with its bytes.
    File(Arc<[u8]>),
    /// A folder: names and what they stand for, sorted.
    Folder(BTreeMap<String, Node>),
}

/// Files and folders, none of which ever changes.
#[derive(Debug)]
pub struct Tree {
    /// By node: the entry and its folder.
    nodes: Vec<(Entry, Node)>,
    bytes: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![(Entry::Folder(BTreeMap::new()), ROOT)], bytes: 0 }
    }
}

/// Whether a name of a path may be in a tree: what Python can import and read without native code.
type Wanted<'a> = &'a dyn Fn(&Path) -> bool;

impl Tree {
    /// The entry of a node.
    pub fn entry(&self, node: Node) -> Option<&Entry> {
        self.nodes.get(node).map(|(entry, _)| entry)
    }

    /// The node at `path`, seen from the folder `from`. `..` stops at the root.
    pub fn find(&self, from: Node, path: &str) -> Option<Node> {
        let mut node = if path.starts_with('/') { ROOT } else { from };
        for name in path.split('/') {
            let (entry, parent) = self.nodes.get(node)?;
            let Entry::Folder(names) = entry else { return None };
            node = match name {
                "" | "." => node,
                ".." => *parent,
                name => *names.get(name)?,
            };
        }
        // A file is no folder, whatever slash follows it.
        let is_file = matches!(self.entry(node)?, Entry::File(_));
        (!(is_file && path.ends_with('/'))).then_some(node)
    }

    /// The folder at `path`, made where it is missing.
    ///
    /// # Errors
    /// A file is in the way.
    pub fn folder(&mut self, path: &str) -> Result<Node> {
        let mut node = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            node = match self.find(node, name) {
                Some(found) => found,
                None => self.add(node, name, Entry::Folder(BTreeMap::new()))?,
            };
        }
        Ok(node)
    }

    /// Adds an entry to a folder; the first of a name stays.
    fn add(&mut self, folder: Node, name: &str, entry: Entry) -> Result<Node> {
        if let Entry::File(bytes) = &entry {
            self.bytes += bytes.len() as u64;
            if self.bytes > MAX_TREE_BYTES {
                let most = MAX_TREE_BYTES >> 20;
                return Err(Error::Host(format!(
                    "the libraries are larger than {most} MiB; give evald an environment with less in it"
                )));
            }
        }
        let new = self.nodes.len();
        match self.nodes.get_mut(folder) {
            Some((Entry::Folder(names), _)) if !names.contains_key(name) => {
                names.insert(name.to_owned(), new);
                self.nodes.push((entry, folder));
                Ok(new)
            }
            _ => Err(Error::Host(format!("two libraries have a file {name} at the same place"))),
        }
    }

    /// Copies a folder of the host below `at`, as far as `wanted` says so. Links are followed to files, not to folders.
    ///
    /// # Errors
    /// A file or folder cannot be read, or all together are too large.
    pub fn mount(&mut self, host: &Path, at: &str, wanted: Wanted<'_>) -> Result<()> {
        let mut todo = vec![(host.to_path_buf(), self.folder(at)?, 0usize)];
        while let Some((folder, node, depth)) = todo.pop() {
            let step = || format!("read {}", folder.display());
            for entry in std::fs::read_dir(&folder).step(step())? {
                let entry = entry.step(step())?;
                let path = entry.path();
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|_| wanted(&path)) else { continue };
                let kind = entry.file_type().step(step())?;
                if kind.is_dir() {
                    if depth < DEEPEST {
                        let below = self.add(node, name, Entry::Folder(BTreeMap::new()))?;
                        todo.push((path, below, depth + 1));
                    }
                } else if std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
                    let bytes = std::fs::read(&path).step(format!("read {}", path.display()))?;
                    self.add(node, name, Entry::File(bytes.into()))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let host = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(host.path().join("a/b")).expect("made");
        std::fs::write(host.path().join("a/b/x.py"), "x = 1").expect("written");
        std::fs::write(host.path().join("a/y.so"), "y").expect("written");
        std::fs::write(host.path().join("secret"), "hunter2").expect("written");
        std::os::unix::fs::symlink("/", host.path().join("a/root")).expect("linked");
        let mut tree = Tree::default();
        let not_native = |path: &Path| path.extension().is_none_or(|extension| extension != "so");
        tree.mount(&host.path().join("a"), "/lib/0", &not_native).expect("mounted");
        (host, tree)
    }

    #[test]
    fn paths_lead_to_what_was_mounted_and_nowhere_else() {
        let (_host, tree) = tree();
        let found = tree.find(ROOT, "lib/0/b/x.py").expect("there");
        assert!(matches!(tree.entry(found), Some(Entry::File(bytes)) if bytes[..] == *b"x = 1"));
        assert_eq!(tree.find(ROOT, "/lib/./0//b/../b/x.py"), Some(found));
        let folder = tree.find(ROOT, "lib/0/").expect("there");
        assert_eq!(tree.find(folder, "b/x.py"), Some(found));
        // The root is the end of every way up.
        assert_eq!(tree.find(folder, "../../../../../../../lib/0/b/x.py"), Some(found));
        for missing in [
            "lib/0/y.so",
            "lib/0/secret",
            "lib/0/../secret",
            "lib/0/root/etc",
            "lib/0/b/x.py/",
            "lib/0/b/x.py/..",
            "etc/passwd",
            "lib/0/b/x.py/more",
        ] {
            assert_eq!(tree.find(ROOT, missing), None, "{missing}");
        }
    }

    #[test]
    fn no_two_things_are_in_one_place() {
        let (host, mut tree) = tree();
        let again = tree.mount(&host.path().join("a/b"), "/lib/0/b", &|_| true);
        assert!(again.is_err_and(|error| error.to_string().contains("x.py")));
    }
}
