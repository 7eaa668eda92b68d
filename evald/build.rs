//! Stamps the build: `evald` loads only the `libevald.so` that was built from the same source.

use std::fs;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=proto/src");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["src", "src/wasi", "proto/src"] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
                files.push(path);
            }
        }
    }
    files.sort();
    // FNV-1a: it tells builds apart, it protects against nothing.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for file in files {
        for byte in fs::read(file)? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    println!("cargo::rustc-env=EVALD_BUILD={hash:016x}");
    Ok(())
}
