//! Damaged index files and killed writers: an error that names the file, or the right answer; never a panic.

// Clippy allows it in test functions only, not in the functions that they share.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use inhouse_core::index::{BuildOptions, Index, UpdateOptions, build, merge, update};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, ErrorKind, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn apis(library: &str, n: usize, round: usize) -> Vec<ApiDoc> {
    let verbs = ["fold", "weave", "spin", "dye", "cut"];
    let api = |i: usize| ApiDoc {
        name: format!("{}_{i}", verbs[i % verbs.len()]),
        qualified_name: format!("{library}.C{}.{}_{i}", i % 7, verbs[i % verbs.len()]),
        signature: "(cloth, width=1)".into(),
        description: format!("Does {} number {i} in round {round}.", verbs[i % verbs.len()]),
        ..ApiDoc::default()
    };
    (0..n).map(api).collect()
}

/// An index of two segments with deletions, so that every kind of file is there.
fn make(dir: &Path) {
    build(&apis("loom", 120, 0), dir, &BuildOptions::default(), &Silent).unwrap();
    let mut changed = apis("loom", 115, 0);
    changed[3].description = "Something else entirely.".into();
    update(dir, &changed, &UpdateOptions::default(), &Silent).unwrap();
}

/// Everything a caller can ask, as text.
fn answers(dir: &Path) -> Result<String> {
    let index = Index::open(dir)?;
    let mut text = format!("{:?}\n", (index.len(), index.info().names, index.info().libraries));
    for query in ["fold the cloth", "something else", "number 17", "cloth width"] {
        for hit in index.search(&query.into(), 5)? {
            text.push_str(&format!("{} {} {} {:?}\n", hit.rank, hit.api.qualified_name, hit.score, hit.also));
        }
    }
    for name in ["fold_5", "C3.dye_3", "nothing"] {
        text.push_str(&format!("{:?}\n", index.find(name)?));
    }
    for id in index.ids() {
        text.push_str(&format!("{:?}\n", index.api(id)?));
    }
    Ok(text)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap() != "lock");
    files.sort();
    files
}

#[test]
fn random_damage_gives_an_error_with_the_file_or_the_right_answer() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let right = answers(dir.path()).unwrap();
    let files = files(dir.path());
    assert_eq!(files.len(), 6, "{files:?}");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut noticed = 0;
    for round in 0..2000 {
        let path = &files[round % files.len()];
        let good = std::fs::read(path).unwrap();
        let mut bad = good.clone();
        match rng.random_range(0..5) {
            0 => bad.truncate(rng.random_range(0..good.len())),
            1 => bad.extend_from_slice(&vec![rng.random(); rng.random_range(1..100)]),
            2 => {
                let (at, n) = (rng.random_range(0..good.len()), rng.random_range(1..64));
                bad.iter_mut().skip(at).take(n).for_each(|byte| *byte = 0);
            }
            3 => {
                let at = rng.random_range(0..good.len());
                let end = (at + 8).min(bad.len());
                bad[at..end].fill(0xff);
            }
            _ => {
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..bad.len());
                    bad[at] ^= 1 << rng.random_range(0..8);
                }
            }
        }
        std::fs::write(path, &bad).unwrap();
        match answers(dir.path()) {
            Ok(text) => assert_eq!(text, right, "round {round}: {}", path.display()),
            Err(error) => {
                noticed += 1;
                let text = error.to_string();
                assert!(!text.contains('\n') && text.contains(dir.path().to_str().unwrap()), "{text}");
            }
        }
        std::fs::write(path, &good).unwrap();
    }
    assert!(noticed > 1700, "{noticed}");
    assert_eq!(answers(dir.path()).unwrap(), right);
}

/// Checksums do not stop a file that lies with right checksums; its numbers are not trusted either.
#[test]
fn lies_in_the_manifest_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let path = dir.path().join("manifest.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let body = good.split_once('\n').unwrap().1;
    let write = |version: u32, body: &str| {
        let crc32 = crc32fast::hash(body.as_bytes());
        std::fs::write(
            &path,
            format!("{{\"format\":\"inhouse-index\",\"version\":{version},\"crc32\":{crc32}}}\n{body}"),
        )
        .unwrap();
        answers(dir.path()).unwrap_err()
    };
    let error = write(2, "whatever comes in version 2");
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("version 2, this build reads version 1"), "{error}");
    assert_eq!(
        write(1, &body.replace("\"analysis\":1", "\"analysis\":9")).kind(),
        ErrorKind::UnsupportedVersion
    );
    for (from, to) in [
        ("\"docs\":120", "\"docs\":121"),
        ("\"docs\":120", "\"docs\":4294967295"),
        ("\"docs\":120", "\"docs\":0"),
        ("0000000001.records", "../../etc/passwd"),
        ("0000000001.records", "0000000001.sparse"),
        ("0000000001.records", "0000000009.records"),
        ("\"records\":", "\"other\":"),
        ("\"name\":3.0", "\"name\":-3.0"),
    ] {
        assert!(body.contains(from), "{from} in {body}");
        let error = write(1, &body.replacen(from, to, 1));
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{from} -> {to}: {error}");
    }
    std::fs::write(&path, good).unwrap();
    answers(dir.path()).unwrap();
}

#[test]
fn missing_things_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| Index::open(path).unwrap_err();
    let absent = open(&dir.path().join("absent"));
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains("no such index folder"), "{absent}");
    let empty = open(dir.path());
    assert_eq!(empty.kind(), ErrorKind::NotFound);
    assert!(empty.to_string().contains("no index in this folder"), "{empty}");
    std::fs::write(dir.path().join("file"), "x").unwrap();
    assert_eq!(open(&dir.path().join("file")).kind(), ErrorKind::InvalidData);
    let error = update(dir.path(), &apis("loom", 1, 0), &UpdateOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    std::fs::remove_file(dir.path().join("file")).unwrap();
    make(dir.path());
    for path in files(dir.path()) {
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(open(dir.path()).to_string().contains(name), "{name}");
        std::fs::write(&path, good).unwrap();
    }
    // a damaged index can be built again
    std::fs::write(dir.path().join("manifest.json"), "rubbish").unwrap();
    assert_eq!(open(dir.path()).kind(), ErrorKind::InvalidData);
    make(dir.path());
    assert_eq!(Index::open(dir.path()).unwrap().len(), 115);
    assert_eq!(files(dir.path()).len(), 6, "the old files are gone");
}

/// `kill -9` of a writer at any moment leaves an index that opens and is whole, and the next writer is not hindered.
///
/// The writer is this very test in a second process, told by the environment which folder to write.
#[cfg(unix)]
#[test]
fn a_killed_writer_leaves_the_index_readable() {
    const FOLDER: &str = "INHOUSE_TEST_WRITE_INDEX";
    const SIZES: [usize; 2] = [400, 150];
    if let Some(dir) = std::env::var_os(FOLDER) {
        let dir = Path::new(&dir);
        for round in 0.. {
            let rows = apis("loom", SIZES[round % 2], round);
            if round % 3 == 0 {
                build(&rows, dir, &BuildOptions::default(), &Silent).unwrap();
                merge(dir, &Silent).unwrap();
            } else {
                // records of the other rounds go, so that some are deleted and some pieces are merged
                update(dir, &rows, &UpdateOptions::default(), &Silent).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    build(&apis("loom", SIZES[0], 0), dir.path(), &BuildOptions::default(), &Silent).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut generations = std::collections::BTreeSet::new();
    for _ in 0..25 {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_writer_leaves_the_index_readable"])
            .env(FOLDER, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(rng.random_range(1_000..150_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        answers(dir.path()).unwrap();
        let index = Index::open(dir.path()).unwrap();
        assert!(SIZES.contains(&index.len()), "{} records", index.len());
        generations.insert(index.info().generation);
    }
    // The lock of the killed is free, their leftovers are cleared away.
    update(dir.path(), &apis("loom", 9, 0), &UpdateOptions::default(), &Silent).unwrap();
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.len(), 9);
    assert!(files(dir.path()).len() <= 1 + 3 * index.info().segments);
    assert!(generations.len() > 1, "no writer lived long enough to write anything");
}
