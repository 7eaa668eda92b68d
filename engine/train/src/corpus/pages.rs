//! The pages of an sdist that people read: guides, notebooks and galleries, split into prose and the code below it.

use std::path::Path;

use inhouse_core::{Result, docs};

use super::markup;

/// A longer page is data.
const MAX_PAGE_BYTES: u64 = 2 << 20;

/// Folders with no guide in them.
const OTHER_FOLDERS: &[&str] =
    &["tests", "test", "_vendor", "vendor", "third_party", "extern", "node_modules", "_static", "_templates"];
/// Folders whose scripts are made to be read.
const GALLERIES: &[&str] = &["examples", "example", "gallery", "galleries", "tutorials", "tutorial"];
/// Parts of names of pages that say what changed rather than how something is done.
const NEWS: &[&str] =
    &["whatsnew", "changelog", "changes", "release", "history", "news", "todo", "upgrading", "migration"];

/// A piece of code with what stands above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The paragraph above, with its markup; empty where the code follows other code.
    pub says: String,
    /// The code, without prompts and what they print.
    pub code: String,
    /// 1-based line of the page on which the code begins; of a notebook, the number of the cell.
    pub line: usize,
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Its path in the archive.
    pub path: String,
    /// Its code in order.
    pub pieces: Vec<Piece>,
    /// Its paragraphs in order, with their markup.
    pub paragraphs: Vec<String>,
}

/// The pages of an sdist (`.tar.gz`) that have code, in the order of the archive.
///
/// # Errors
/// It is no readable archive, or exceeds the bounds.
pub fn read_pages(path: &Path) -> Result<Vec<Page>> {
    let files = docs::tar_gz_files(path, &|name, bytes| bytes <= MAX_PAGE_BYTES && is_page(name))?;
    let pages = files.into_iter().filter_map(|(name, bytes)| {
        let text = String::from_utf8(bytes).ok()?;
        Some(page(name, &text))
    });
    Ok(pages.filter(|page| !page.pieces.is_empty()).collect())
}

fn is_page(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    // The archive's own folder says nothing.
    let parts: Vec<&str> = lower.split('/').skip(1).collect();
    let Some((file, folders)) = parts.split_last() else { return false };
    let within = |names: &[&str]| folders.iter().any(|folder| names.contains(folder));
    if within(OTHER_FOLDERS) || parts.iter().any(|part| NEWS.iter().any(|news| part.contains(news))) {
        return false;
    }
    match file.rsplit_once('.') {
        Some((_, "rst" | "md" | "ipynb")) => true,
        Some((_, "txt")) => within(&["doc", "docs"]),
        Some((_, "py")) => within(GALLERIES),
        _ => false,
    }
}

/// A page by its path and text.
pub fn page(path: String, text: &str) -> Page {
    let (pieces, paragraphs) = match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("md") => markup::markdown(text),
        Some("ipynb") => markup::notebook(text),
        Some("py") => markup::script(text),
        _ => markup::rest(text),
    };
    Page { path, pieces, paragraphs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guides_are_told_from_other_files() {
        for (name, expected) in [
            ("loom-1.0/doc/source/user_guide/weaving.rst", true),
            ("loom-1.0/docs/topics/cloth.txt", true),
            ("loom-1.0/README.md", true),
            ("loom-1.0/examples/shirts/plot_shirt.py", true),
            ("loom-1.0/loom/weave.py", false),
            ("loom-1.0/requirements.txt", false),
            ("loom-1.0/doc/source/whatsnew/v1.0.rst", false),
            ("loom-1.0/loom/tests/examples/a.py", false),
            ("weave.rst", false),
        ] {
            assert_eq!(is_page(name), expected, "{name}");
        }
    }

    #[test]
    fn an_archive_gives_its_pages_and_a_damaged_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loom-1.0.tar.gz");
        let mut archive =
            tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (name, text) in [
            ("loom-1.0/doc/weaving.rst", "Weave two threads:\n\n>>> weave(a, b)\n"),
            ("loom-1.0/doc/plain.rst", "Nothing but words.\n"),
            ("loom-1.0/loom/weave.py", "x = 1\n"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        let bytes = archive.into_inner().unwrap().finish().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let pages = read_pages(&path).unwrap();
        assert_eq!(pages.len(), 1);
        assert_eq!(pages[0].path, "loom-1.0/doc/weaving.rst");
        assert_eq!(pages[0].pieces[0].code, "weave(a, b)\n");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_pages(&path).unwrap_err().to_string().contains("loom-1.0.tar.gz"));
    }
}
