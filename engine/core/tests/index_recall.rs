//! Recall of the sparse retriever on the shared benchmarks: at least that of the plain BM25 beside them, with the one
//! default setting. Skips, and says so, where the data is absent.

// Clippy allows it in test functions only, not in the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use inhouse_core::index::{BuildOptions, Index, build};
use inhouse_core::progress::Silent;
use inhouse_core::{api, files};

#[derive(serde::Deserialize)]
struct Row {
    query: String,
    gold: Vec<String>,
}

/// Pool, size, recall @1 @2 @3 @5 by API name, micro-averaged over golden APIs: the floor.
const FLOORS: &[(&str, &str, [f64; 4])] = &[
    ("torchdata", "small", [0.411, 0.644, 0.685, 0.712]),
    ("torchdata", "full", [0.260, 0.438, 0.548, 0.671]),
    ("monkey", "small", [0.230, 0.336, 0.410, 0.525]),
    ("monkey", "full", [0.180, 0.230, 0.279, 0.352]),
    ("pandas", "small", [0.236, 0.293, 0.341, 0.439]),
    ("pandas", "full", [0.203, 0.268, 0.309, 0.382]),
];

fn shared() -> PathBuf {
    match std::env::var_os("INHOUSE_SHARED") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
}

#[test]
fn recall_is_at_least_that_of_plain_bm25_with_one_setting() {
    let pools = shared().join("benchmarks/apis");
    if !pools.is_dir() {
        eprintln!("skipped: {} is not there", pools.display());
        return;
    }
    let mut short = Vec::new();
    for (library, size, floor) in FLOORS {
        let apis = api::read_jsonl(&pools.join(format!("{library}.{size}.jsonl.gz"))).unwrap();
        let dir = tempfile::tempdir().unwrap();
        build(&apis, dir.path(), &BuildOptions::default(), &Silent).unwrap();
        let index = Index::open(dir.path()).unwrap();
        let mut found = [0usize; 4];
        let mut golden = 0usize;
        for row in files::json_lines::<Row>(&pools.join(format!("{library}.gold.jsonl.gz"))).unwrap() {
            let row = row.unwrap().1;
            let hits = index.search(&row.query.as_str().into(), 5).unwrap();
            for gold in row.gold.iter().collect::<BTreeSet<_>>() {
                golden += 1;
                let rank = hits.iter().position(|hit| hit.api.name == *gold).map_or(usize::MAX, |at| at + 1);
                for (count, k) in found.iter_mut().zip([1, 2, 3, 5]) {
                    *count += usize::from(rank <= k);
                }
            }
        }
        let recall = found.map(|n| n as f64 / golden as f64);
        println!("{library:9} {size:5} {:.3?}  floor {floor:.3?}", recall);
        // The floors are rounded to three digits.
        if recall.iter().zip(floor).any(|(recall, floor)| *recall < floor - 0.0005) {
            short.push(format!("{library} {size}: {recall:.3?} below {floor:.3?}"));
        }
    }
    assert!(short.is_empty(), "{}", short.join("\n"));
}
