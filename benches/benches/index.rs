//! Building, opening, updating and searching an index of 100,000 records, made by renaming a few hundred.
#![allow(missing_docs)] // criterion's macros make public functions

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use inhouse_core::ApiDoc;
use inhouse_core::index::{BuildOptions, Index, Query, UpdateOptions, UpdateScope, build, update};
use inhouse_core::progress::Silent;

const APIS: usize = 100_000;

const VERBS: &[&str] = &[
    "add", "align", "apply", "bind", "clip", "count", "drop", "fill", "filter", "find", "group", "join",
    "merge", "parse", "pivot", "rank", "read", "rename", "reshape", "round", "sample", "shift", "sort",
    "split", "write",
];
const NOUNS: &[&str] = &[
    "axis", "block", "column", "entry", "field", "file", "frame", "graph", "index", "key", "label", "matrix",
    "node", "path", "period", "record", "row", "series", "stream", "table", "token", "value", "vector",
    "window", "zone",
];

/// 25 x 25 actions, renamed until there are `n`: names, classes and libraries get numbers, so that common words have
/// long posting lists and rare ones short lists.
fn synthetic(n: usize) -> Vec<ApiDoc> {
    let api = |i: usize| {
        let (verb, noun) = (VERBS[i % VERBS.len()], NOUNS[i / VERBS.len() % NOUNS.len()]);
        let (other, twin) = (NOUNS[i / 7 % NOUNS.len()], i / (VERBS.len() * NOUNS.len()));
        ApiDoc {
            name: format!("{verb}_{noun}_{twin}"),
            qualified_name: format!("lib{}.{noun}s.{other}Tool.{verb}_{noun}_{twin}", twin % 50),
            signature: format!("({noun}, {other}=None, *, strict: bool = False) -> None"),
            description: format!(
                "{verb} each {noun} of the {other} number {i}, in the order of its {noun} labels."
            ),
            ..ApiDoc::default()
        }
    };
    (0..n).map(api).collect()
}

fn index(criterion: &mut Criterion) {
    let apis = synthetic(APIS);
    let mut group = criterion.benchmark_group("index_100k");
    let folder = || tempfile::tempdir().expect("a temporary folder");
    let make = |dir: &std::path::Path| {
        build(&apis, dir, &BuildOptions::default(), &Silent).expect("the index is built")
    };

    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20))
        .throughput(Throughput::Elements(APIS as u64));
    group.bench_function("build", |bencher| {
        bencher.iter_batched_ref(folder, |dir| make(dir.path()), BatchSize::PerIteration);
    });

    let dir = folder();
    make(dir.path());
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(5));
    group.bench_function("open", |bencher| {
        bencher.iter(|| Index::open(black_box(dir.path())).expect("the index opens"));
    });
    let open = Index::open(dir.path()).expect("the index opens");
    for (name, query) in [
        ("search_one_rare_word", "41234"),
        ("search_sentence", "how do I merge the rows of a table and sort them by their label"),
        ("search_six_common_words", "order each label number strict lib"),
    ] {
        let query = Query::from(query);
        group.bench_function(name, |bencher| {
            bencher.iter(|| open.search(black_box(&query), 5).expect("the search succeeds"));
        });
    }

    let mut round = 0;
    group.bench_function("update_100_and_open", |bencher| {
        bencher.iter(|| {
            round += 1;
            let mut changed = apis[..100].to_vec();
            changed.iter_mut().for_each(|api| api.description = format!("Says something else, {round}."));
            let options =
                UpdateOptions { scope: UpdateScope::Only(BTreeSet::new()), ..UpdateOptions::default() };
            update(dir.path(), &changed, &options, &Silent).expect("the index is updated");
            Index::open(dir.path()).expect("the index opens")
        });
    });
    group.finish();
}

criterion_group!(benches, index);
criterion_main!(benches);
