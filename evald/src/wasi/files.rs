//! The files that a program in the machine sees: a read-only tree in memory. There is no way from it to the host's files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::memfile;
use crate::error::{Error, Result, Step};

/// Index of a file or folder of a [`Tree`].
pub type Node = usize;

/// Where things are mounted: the root.
pub const ROOT: Node = 0;

/// All files together are not larger.
const MAX_TREE_BYTES: usize = 512 << 20;
/// Nothing is nested deeper, neither on disk nor in a path.
const DEEPEST: usize = 64;

/// A file or folder.
#[derive(Debug)]
pub enum Entry {
    /// A file: where its bytes are (see [`Tree::bytes`]).
    File(Range<usize>),
    /// A folder: names and what they stand for, sorted.
    Folder(BTreeMap<String, Node>),
}

/// Files and folders, none of which ever changes.
#[derive(Debug)]
pub struct Tree {
    nodes: Nodes,
    bytes: Option<Mmap>,
}

/// By node: the entry and its folder.
type Nodes = Vec<(Entry, Node)>;

/// A tree that is being filled.
#[derive(Debug)]
pub struct Planting {
    tree: Tree,
    file: File,
    end: usize,
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

    /// The bytes of a file; none of a folder.
    pub fn bytes(&self, node: Node) -> &[u8] {
        match (self.entry(node), &self.bytes) {
            (Some(Entry::File(range)), Some(bytes)) => bytes.get(range.clone()).unwrap_or_default(),
            _ => &[],
        }
    }
}

impl Planting {
    /// An empty tree.
    ///
    /// # Errors
    /// The kernel gives no file in memory.
    pub fn begin() -> Result<Self> {
        let nodes = vec![(Entry::Folder(BTreeMap::new()), ROOT)];
        let file = memfile::create("evald-files").step("make a file in memory")?;
        Ok(Self { tree: Tree { nodes, bytes: None }, file, end: 0 })
    }

    /// The tree, which changes no more.
    ///
    /// # Errors
    /// The kernel does not let its bytes be mapped.
    #[allow(unsafe_code, reason = "a mapping of a file")]
    pub fn end(self) -> Result<Tree> {
        memfile::seal(&self.file).step("seal a file in memory")?;
        let mapped = (self.end > 0)
            // SAFETY: the file has no name, and its seals let nobody write to it or change its size.
            .then(|| unsafe { Mmap::map(&self.file) })
            .transpose()
            .step("map a file in memory")?;
        Ok(Tree { bytes: mapped, ..self.tree })
    }

    /// The folder at `path`, made where it is missing.
    ///
    /// # Errors
    /// A file is in the way.
    pub fn folder(&mut self, path: &str) -> Result<Node> {
        let mut node = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            node = match self.tree.find(node, name) {
                Some(found) => found,
                None => self.add(node, name, Entry::Folder(BTreeMap::new()))?,
            };
        }
        Ok(node)
    }

    /// Adds an entry to a folder; the first of a name stays.
    fn add(&mut self, folder: Node, name: &str, entry: Entry) -> Result<Node> {
        let new = self.tree.nodes.len();
        match self.tree.nodes.get_mut(folder) {
            Some((Entry::Folder(names), _)) if !names.contains_key(name) => {
                names.insert(name.to_owned(), new);
                self.tree.nodes.push((entry, folder));
                Ok(new)
            }
            _ => Err(Error::Host(format!("two libraries have a file {name} at the same place"))),
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Range<usize>> {
        let range = self.end..self.end + bytes.len();
        if range.end > MAX_TREE_BYTES {
            let most = MAX_TREE_BYTES >> 20;
            return Err(Error::Host(format!(
                "the libraries are larger than {most} MiB; give evald an environment with less in it"
            )));
        }
        self.file.write_all(bytes).step("fill a file in memory")?;
        self.end = range.end;
        Ok(range)
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
                    let range = self.keep(&bytes)?;
                    self.add(node, name, Entry::File(range))?;
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
        let mut planting = Planting::begin().expect("a tree");
        let not_native = |path: &Path| path.extension().is_none_or(|extension| extension != "so");
        planting.mount(&host.path().join("a"), "/lib/0", &not_native).expect("mounted");
        let again = planting.mount(&host.path().join("a/b"), "/lib/0/b", &|_| true);
        assert!(again.is_err_and(|error| error.to_string().contains("x.py")), "two things in one place");
        (host, planting.end().expect("a tree"))
    }

    #[test]
    fn paths_lead_to_what_was_mounted_and_nowhere_else() {
        let (_host, tree) = tree();
        let found = tree.find(ROOT, "lib/0/b/x.py").expect("there");
        assert_eq!(tree.bytes(found), b"x = 1");
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
}
