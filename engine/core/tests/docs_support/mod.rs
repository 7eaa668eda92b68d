//! What the tests of documentation share: fixtures, archives made in memory.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};

use inhouse_core::ApiDoc;
use inhouse_core::docs::{self, Documentation, ReadOptions};
use inhouse_core::progress::Silent;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/docs").join(name)
}

pub fn read(path: &Path) -> Documentation {
    docs::read(path, &ReadOptions::default(), &Silent)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn names(found: &Documentation) -> Vec<String> {
    found.apis.iter().map(|api| api.qualified_name.clone()).collect()
}

pub fn api<'a>(found: &'a Documentation, name: &str) -> &'a ApiDoc {
    found
        .apis
        .iter()
        .find(|api| api.qualified_name == name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", names(found)))
}

/// The files below a folder, named from `prefix`.
pub fn files_of(folder: &Path, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files.extend(files_of(&entry.path(), &name));
        } else {
            files.push((name, std::fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

pub fn zip_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub fn gz_tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}
