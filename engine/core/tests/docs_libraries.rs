//! Real libraries: the golden APIs of torchdata 0.3.0 and the names of pandas 1.5.3 are found in their wheels.
//!
//! The wheels are looked for in the folder `INHOUSE_WHEELS` names, else in `wheels` beside the benchmarks
//! (`pip download --no-deps torchdata==0.3.0 pandas==1.5.3 -d FOLDER` fetches them); the benchmarks in the folder
//! `INHOUSE_SHARED` names, else in `../shared` beside the repository. What is missing skips its test, with a reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use inhouse_core::api;
use inhouse_core::docs::{self, ReadOptions};
use inhouse_core::files;
use inhouse_core::progress::Silent;

fn shared() -> PathBuf {
    std::env::var_os("INHOUSE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

fn benchmark(name: &str) -> Option<PathBuf> {
    let path = shared().join("benchmarks/apis").join(name);
    if !path.is_file() {
        println!("skipped: {} is not there (set INHOUSE_SHARED)", path.display());
        return None;
    }
    Some(path)
}

fn wheel(start: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("INHOUSE_WHEELS").map_or_else(|| shared().join("wheels"), PathBuf::from);
    let found = std::fs::read_dir(&folder).ok().and_then(|entries| {
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
    });
    if found.is_none() {
        println!("skipped: no wheel {start}* in {} (set INHOUSE_WHEELS)", folder.display());
    }
    found
}

/// Folders with an installed torch, whose data pipes torchdata hands on to its users.
fn torch_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = vec!["/usr/lib/python3/dist-packages".into()];
    folders.extend(std::env::var_os("INHOUSE_SITE_PACKAGES").map(PathBuf::from));
    folders.retain(|folder| folder.join("torch/utils/data/__init__.py").is_file());
    folders
}

#[derive(serde::Deserialize)]
struct Gold {
    gold: Vec<String>,
}

#[test]
fn every_golden_api_of_torchdata_is_found() {
    let (Some(wheel), Some(gold)) = (wheel("torchdata-0.3.0"), benchmark("torchdata.gold.jsonl.gz")) else {
        return;
    };
    let mut options = ReadOptions::default();
    options.search_paths = torch_folders();
    let found = docs::read(&wheel, &options, &Silent).unwrap();
    let names: BTreeSet<&str> = found.apis.iter().map(|api| api.name.as_str()).collect();
    let mut missing = BTreeSet::new();
    for row in files::json_lines::<Gold>(&gold).unwrap() {
        missing.extend(row.unwrap().1.gold.into_iter().filter(|name| !names.contains(name.as_str())));
    }
    if options.search_paths.is_empty() {
        // Methods that torch registers are written in torch alone.
        println!(
            "skipped in part: no torch installed (set INHOUSE_SITE_PACKAGES); without it missing: {missing:?}"
        );
        assert!(missing.len() <= 9, "{missing:?}");
    } else {
        assert!(missing.is_empty(), "{missing:?}");
    }
    let cycle =
        found.apis.iter().find(|api| api.qualified_name == "torchdata.datapipes.iter.IterDataPipe.cycle");
    assert_eq!(cycle.unwrap().signature, "(count: Optional[int] = None)");
}

#[test]
fn the_names_of_pandas_are_found() {
    let (Some(wheel), Some(pool)) = (wheel("pandas-1.5.3"), benchmark("pandas.full.jsonl.gz")) else {
        return;
    };
    let found = docs::read(&wheel, &ReadOptions::default(), &Silent).unwrap();
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    let names: BTreeSet<&str> = found.apis.iter().map(|api| api.name.as_str()).collect();
    let pool = api::read_jsonl(&pool).unwrap();
    let all: BTreeSet<&str> = pool.iter().map(|api| api.name.as_str()).collect();
    let missing: BTreeSet<&str> = all.difference(&names).copied().collect();
    println!("{} of {} names; missing: {missing:?}", all.len() - missing.len(), all.len());
    // Those missing are attributes of classes that only the C extensions define (offsets, periods); a name that some
    // row of a class written in Python has must be there.
    let compiled =
        ["tseries.offsets", "tseries.frequencies", "Timestamp", "Timedelta", "Period", "DateOffset"];
    let python: BTreeSet<&str> = pool
        .iter()
        .filter(|api| !compiled.iter().any(|part| api.qualified_name.contains(part)))
        .map(|api| api.name.as_str())
        .collect();
    let lost = python.iter().filter(|name| missing.contains(*name)).count();
    assert!(lost * 100 <= python.len(), "{lost} of {}", python.len());
    assert!(missing.len() * 25 <= all.len(), "{missing:?}");
    // A member that a class inherits unchanged is a record of its own class, with the others among its aliases.
    let qualified: BTreeSet<&str> = found
        .apis
        .iter()
        .flat_map(|api| std::iter::once(&api.qualified_name).chain(&api.aliases))
        .map(String::as_str)
        .collect();
    for name in [
        "pandas.DataFrame.head",
        "pandas.DataFrame.sum",
        "pandas.Series.str.upper",
        "pandas.Series.dt.year",
        "pandas.isnull",
    ] {
        assert!(qualified.contains(name), "{name}");
    }
}
