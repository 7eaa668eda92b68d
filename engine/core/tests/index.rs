//! What callers see of the index: building, finding, searching, updating, locking, and readers beside writers.

// Clippy allows it in test functions only, not in the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use inhouse_core::api::ApiKind;
use inhouse_core::index::{
    BuildOptions, FieldWeights, Hit, Index, MAX_QUERY_BYTES, Query, UpdateOptions, UpdateReport, UpdateScope,
    build, merge, update,
};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, ErrorKind};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn api(qualified_name: &str, signature: &str, description: &str) -> ApiDoc {
    ApiDoc {
        name: qualified_name.rsplit('.').next().unwrap().into(),
        qualified_name: qualified_name.into(),
        signature: signature.into(),
        description: description.into(),
        ..ApiDoc::default()
    }
}

fn loom() -> Vec<ApiDoc> {
    vec![
        api("loom.Cloth.fold_edges", "(width: int = 2, *, corner='sharp')", "Turns the border inwards."),
        api("loom.Rug.fold_edges", "(width)", "Turns the fringe of a rug inwards."),
        api("loom.weave", "(warp, weft)", "Crosses two sets of threads."),
        api("loom.dye.soak", "(seconds)", "Leaves the cloth in a bath of colour."),
        ApiDoc {
            aliases: vec!["loom.cut".into(), "snip".into()],
            ..api("loom.tools.Cutter", "(blade)", "Parts a cloth.")
        },
        ApiDoc {
            kind: Some(ApiKind::Module),
            module: "loom.dye".into(),
            ..api("loom.dye", "", "Colours and baths.")
        },
    ]
}

fn built(apis: &[ApiDoc]) -> (tempfile::TempDir, Index) {
    let dir = tempfile::tempdir().unwrap();
    build(apis, dir.path(), &BuildOptions::default(), &Silent).unwrap();
    let index = Index::open(dir.path()).unwrap();
    (dir, index)
}

fn names(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.api.name.as_str()).collect()
}

fn search(index: &Index, query: &str, k: usize) -> Vec<Hit> {
    index.search(&query.into(), k).unwrap()
}

/// All records, in a canonical order.
fn content(index: &Index) -> Vec<String> {
    let mut rows: Vec<String> =
        index.ids().map(|id| serde_json::to_string(&index.api(id).unwrap()).unwrap()).collect();
    rows.sort();
    rows
}

#[test]
fn records_come_back_whole_and_are_counted() {
    let (_dir, index) = built(&loom());
    let mut expected: Vec<String> = loom().iter().map(|api| serde_json::to_string(api).unwrap()).collect();
    expected.sort();
    assert_eq!(content(&index), expected);
    let info = index.info();
    assert_eq!((info.apis, info.names, info.segments, info.deleted), (6, 5, 1, 0));
    assert_eq!(info.libraries, [("loom".to_owned(), 6)].into());
    assert_eq!((index.len(), index.is_empty()), (6, false));
    assert!(serde_json::to_value(&info).unwrap()["bytes"].as_u64().unwrap() > 0);
}

#[test]
fn search_reads_names_parameters_descriptions_and_aliases() {
    let (_dir, index) = built(&loom());
    for (query, first) in [
        ("fold the edges of a cloth", "fold_edges"),
        ("foldEdges", "fold_edges"),
        ("which blade", "Cutter"),
        ("snipping", "Cutter"),
        ("weft", "weave"),
        ("cross threads", "weave"),
        ("call `soak`", "soak"),
    ] {
        assert_eq!(names(&search(&index, query, 1)), [first], "{query}");
    }
    // A module answers no task, whatever its words; its name still leads to it.
    assert!(!names(&search(&index, "colours", 5)).contains(&"dye"));
    assert_eq!(index.find("dye").unwrap().len(), 1);
    assert!(search(&index, "zeppelin", 5).is_empty());
    assert!(search(&index, "?!", 5).is_empty());
}

#[test]
fn records_of_one_name_are_one_hit() {
    let (_dir, index) = built(&loom());
    let hits = search(&index, "fold edges of a rug", 5);
    assert_eq!(names(&hits).iter().collect::<BTreeSet<_>>().len(), hits.len());
    assert_eq!(hits[0].api.qualified_name, "loom.Rug.fold_edges");
    assert_eq!(hits[0].also, ["loom.Cloth.fold_edges"]);
    assert_eq!(hits.iter().map(|hit| hit.rank).collect::<Vec<_>>(), (1..=hits.len()).collect::<Vec<_>>());
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    assert_eq!(index.api(hits[0].id).unwrap(), hits[0].api);
}

#[test]
fn a_class_and_its_function_are_one_hit() {
    let folds = "Folds the edges of a rug.";
    let (_dir, index) = built(&[
        api("loom.EdgeFolder", "(rug)", folds),
        api("loom.Rug.tuck", "()", folds),
        api("loom.Rug.hem", "()", folds),
        ApiDoc { kind: Some(ApiKind::Property), ..api("loom.Rug.edges_folded", "", folds) },
        // another library's is its own
        api("mill.Edge", "(rug)", folds),
        api("loom.Rug.undescribed", "(rug)", ""),
        api("loom.Rugs", "(rug)", ""),
    ]);
    // The class answers better, by its name; what is called stands for it.
    let hits = search(&index, "fold edge", 7);
    let edge = hits.iter().position(|hit| hit.api.name == "hem").unwrap();
    assert_eq!(hits[edge].also, ["loom.EdgeFolder"]);
    let mut found = names(&hits);
    found.sort_unstable();
    assert_eq!(found, ["Edge", "edges_folded", "hem", "tuck"]);
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score), "{hits:?}");
    assert_eq!(hits.iter().map(|hit| hit.rank).collect::<Vec<_>>(), [1, 2, 3, 4]);
    for k in 1..=3 {
        assert_eq!(names(&search(&index, "fold edge", k)), names(&hits)[..k]);
    }
    // Without descriptions nothing says that they belong together.
    let hits = search(&index, "rug", 9);
    assert!(names(&hits).contains(&"undescribed") && names(&hits).contains(&"Rugs"), "{:?}", names(&hits));
    // It is still found by its name.
    assert_eq!(index.find("EdgeFolder").unwrap().len(), 1);
}

#[test]
fn equal_scores_are_ordered_by_name_whatever_k() {
    let mut apis: Vec<ApiDoc> =
        (0..50).map(|i| api(&format!("lib.f{}", (b'a' + i % 25) as char), "", "Sorts.")).collect();
    apis.reverse();
    let (_dir, index) = built(&apis);
    let all = search(&index, "sort", usize::MAX);
    assert_eq!(all.len(), 25);
    assert!(names(&all).is_sorted());
    for k in [1, 7, 24] {
        assert_eq!(names(&search(&index, "sort", k)), names(&all)[..k]);
    }
}

#[test]
fn find_knows_bare_names_qualified_names_tails_and_aliases() {
    let (_dir, index) = built(&loom());
    for (name, found) in [
        ("fold_edges", &["loom.Cloth.fold_edges", "loom.Rug.fold_edges"][..]),
        ("Rug.fold_edges", &["loom.Rug.fold_edges"]),
        ("loom.weave", &["loom.weave"]),
        ("snip", &["loom.tools.Cutter"]),
        ("loom.cut", &["loom.tools.Cutter"]),
        ("cut", &["loom.tools.Cutter"]),
        ("dye", &["loom.dye"]),
        ("Fold_Edges", &[]),
        ("", &[]),
    ] {
        let apis = index.find(name).unwrap();
        assert_eq!(apis.iter().map(|api| api.qualified_name.as_str()).collect::<Vec<_>>(), found, "{name}");
    }
}

#[test]
fn bad_arguments_are_refused() {
    let (dir, index) = built(&loom());
    for (query, k, kind) in [
        ("", 5, ErrorKind::InvalidArgument),
        (" \n", 5, ErrorKind::InvalidArgument),
        ("fold", 0, ErrorKind::InvalidArgument),
        (&"x ".repeat(MAX_QUERY_BYTES), 5, ErrorKind::LimitExceeded),
    ] {
        assert_eq!(index.search(&Query::from(query), k).unwrap_err().kind(), kind);
    }
    let refuse =
        |apis: &[ApiDoc], dir: &Path, options: &BuildOptions| build(apis, dir, options, &Silent).unwrap_err();
    let options = BuildOptions::default();
    assert_eq!(refuse(&[], dir.path(), &options).kind(), ErrorKind::InvalidArgument);
    let unnamed = [loom().remove(0), ApiDoc::default()];
    assert_eq!(refuse(&unnamed, dir.path(), &options).to_string(), "API 2 of 2 has an empty name");
    let weights = FieldWeights { name: f32::INFINITY, ..FieldWeights::default() };
    assert_eq!(
        refuse(&loom(), dir.path(), &BuildOptions { weights, ..BuildOptions::default() }).kind(),
        ErrorKind::InvalidArgument
    );
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("thesis.tex"), "precious").unwrap();
    assert!(refuse(&loom(), foreign.path(), &options).to_string().contains("thesis.tex"));
    assert_eq!(std::fs::read_dir(foreign.path()).unwrap().count(), 1);
    // and the index is as before
    assert_eq!(content(&Index::open(dir.path()).unwrap()), content(&index));
}

#[test]
fn update_counts_and_leaves_other_libraries_alone() {
    let mut apis = loom();
    apis.push(api("kiln.fire", "(hours)", "Hardens clay."));
    let (dir, before) = built(&apis);
    let mut fresh = loom();
    fresh.remove(2);
    fresh[0].description = "Turns the border outwards.".into();
    fresh.push(api("loom.unpick", "(seam)", "Opens a seam."));
    let report = update(dir.path(), &fresh, &UpdateOptions::default(), &Silent).unwrap();
    assert_eq!(report, UpdateReport { added: 1, replaced: 1, removed: 1, unchanged: 4 });
    let after = before.refresh().unwrap().expect("the index has changed");
    fresh.push(apis.pop().unwrap());
    let (_other, built_anew) = built(&fresh);
    assert_eq!(content(&after), content(&built_anew));
    // the old reader keeps its view
    assert_eq!(names(&search(&before, "cross threads", 1)), ["weave"]);
    assert_ne!(names(&search(&after, "cross threads", 1)), ["weave"]);
    let again = update(dir.path(), &fresh, &UpdateOptions::default(), &Silent).unwrap();
    assert_eq!(again, UpdateReport { unchanged: 7, ..UpdateReport::default() });
    assert!(after.refresh().unwrap().is_none(), "an update without a change writes nothing");
}

#[test]
fn update_of_records_alone_removes_nothing() {
    let (dir, _) = built(&loom());
    let options = UpdateOptions { scope: UpdateScope::Only(BTreeSet::new()), ..UpdateOptions::default() };
    let rows =
        [api("loom.weave", "(warp)", "Crosses."), api("loom.unpick", "()", "Opens."), loom().remove(0)];
    let report = update(dir.path(), &rows, &options, &Silent).unwrap();
    assert_eq!(report, UpdateReport { added: 1, replaced: 1, removed: 0, unchanged: 1 });
    assert_eq!(Index::open(dir.path()).unwrap().len(), 7);
}

/// However an index came to its content, it answers as one that was built of that content.
#[test]
fn an_updated_index_answers_as_one_built_anew() {
    let words =
        ["sort", "rows", "merge", "table", "read", "file", "drop", "value", "count", "group", "time", "plot"];
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut random_api = |library: usize| {
        let mut pick = |n: usize| words.choose_multiple(&mut rng, n).copied().collect::<Vec<_>>();
        let (name, description) = (pick(2).join("_"), pick(4).join(" "));
        api(&format!("lib{library}.C{}.{name}", description.len() % 3), "(x)", &description)
    };
    let mut libraries: Vec<Vec<ApiDoc>> =
        (0..4).map(|library| (0..60).map(|_| random_api(library)).collect()).collect();
    let (dir, mut reader) = built(&libraries.concat());
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for round in 0..12 {
        let library = rng.random_range(0..libraries.len());
        let apis = &mut libraries[library];
        apis.shuffle(&mut rng);
        apis.truncate(apis.len() - rng.random_range(0..10));
        apis.extend((0..rng.random_range(0..12)).map(|_| random_api(library)));
        update(dir.path(), apis, &UpdateOptions::default(), &Silent).unwrap();
        reader = reader.refresh().unwrap().unwrap_or(reader);
        let (_other, anew) = built(&libraries.concat());
        assert_eq!(content(&reader), content(&anew), "round {round}");
        assert_eq!((reader.info().names, reader.len()), (anew.info().names, anew.len()));
        for query in ["sort the rows", "read a table from a file", "count values by time", "group"] {
            let key = |hit: &Hit| (hit.api.name.clone(), hit.score.to_bits(), hit.also.clone());
            let (a, b) = (search(&reader, query, 10), search(&anew, query, 10));
            assert_eq!(
                a.iter().map(key).collect::<Vec<_>>(),
                b.iter().map(key).collect::<Vec<_>>(),
                "{round} {query}"
            );
        }
    }
    assert!(reader.info().segments <= 8, "{} segments", reader.info().segments);
}

#[test]
fn two_writers_do_not_meet_and_readers_need_no_lock() {
    let (dir, _) = built(&loom());
    let lock = std::fs::File::options().write(true).open(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let busy = build(&loom(), dir.path(), &BuildOptions::default(), &Silent).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    let busy = update(dir.path(), &loom(), &UpdateOptions::default(), &Silent).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert_eq!(Index::open(dir.path()).unwrap().len(), 6);
    drop(lock);
    build(&loom(), dir.path(), &BuildOptions::default(), &Silent).unwrap();
}

#[test]
fn readers_keep_opening_and_answering_while_a_writer_replaces_the_index() {
    let (dir, old) = built(&loom());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let index = Index::open(dir.path()).unwrap();
                    assert!(index.info().generation >= last, "a reader went back in time");
                    last = index.info().generation;
                    assert_eq!(names(&search(&index, "fold edges", 1)), ["fold_edges"]);
                    // the old record or the new one, never none, both or a part
                    let weave = index.find("weave").unwrap();
                    assert!(
                        weave.len() == 1
                            && (weave == loom()[2..3] || weave[0].description.starts_with("Round "))
                    );
                }
            });
        }
        for round in 0..20 {
            let mut apis = loom();
            apis[2].description = format!("Round {round}.");
            if round % 2 == 0 {
                update(dir.path(), &apis, &UpdateOptions::default(), &Silent).unwrap();
            } else {
                build(&apis, dir.path(), &BuildOptions::default(), &Silent).unwrap();
            }
            if round % 5 == 4 {
                merge(dir.path(), &Silent).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(content(&old).len(), 6);
    assert_eq!(names(&search(&old, "cross threads", 1)), ["weave"]);
    // nothing is left behind: one segment of two files, perhaps a few more after an update, the manifest and the lock
    let index = Index::open(dir.path()).unwrap();
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files <= index.info().segments * 3 + 2, "{files} files");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let bytes = |dir: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>()
    };
    let mut shuffled = loom();
    shuffled.reverse();
    let ((a, _), (b, _)) = (built(&loom()), built(&shuffled));
    assert_eq!(bytes(a.path()), bytes(b.path()));
}

/// Ends the work after so many questions.
struct Impatient(std::sync::atomic::AtomicUsize);

impl inhouse_core::Progress for Impatient {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _message: &str) {}
    fn finish(&self) {}
    fn check(&self) -> inhouse_core::Result<()> {
        use std::sync::atomic::Ordering::Relaxed;
        let left = self.0.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(1))).unwrap();
        if left > 0 { Ok(()) } else { Err(inhouse_core::Error::new(ErrorKind::Cancelled, "enough")) }
    }
}

#[test]
fn work_that_is_ended_leaves_the_index_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let many: Vec<_> = (0..3000)
        .map(|i| api(&format!("loom.part{i}"), "()", &format!("Does the thing number {i}.")))
        .collect();
    let mut cancelled = 0;
    for patience in 0.. {
        let impatient = || Impatient(patience.into());
        let before = Index::open(&path).map(|index| index.info().generation).ok();
        match build(&many, &path, &BuildOptions::default(), &impatient()) {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
        assert_eq!(Index::open(&path).map(|index| index.info().generation).ok(), before);
        cancelled += 1;
    }
    assert!(cancelled >= 2, "asked {cancelled} times over 3000 records");
    let generation = Index::open(&path).unwrap().info().generation;
    let fresh = [api("other.thing", "()", "Is new.")];
    let ended = update(&path, &fresh, &UpdateOptions::default(), &Impatient(0.into()));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    let index = Index::open(&path).unwrap();
    assert_eq!((index.info().generation, index.info().apis), (generation, 3000));
    // Reading is ended as well, a folder of modules and rows alike.
    let package = dir.path().join("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("__init__.py"), "def f():\n    '''Does.'''\n").unwrap();
    for patience in 0..2 {
        let ended = inhouse_core::docs::read(&package, &Default::default(), &Impatient(patience.into()));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled, "{patience}");
    }
    assert!(inhouse_core::docs::read(&package, &Default::default(), &Impatient(100.into())).is_ok());
}
