//! The dense half of an index, with an encoder of words in a few topics.

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inhouse_core::decode::CancelToken;
use inhouse_core::encode::{EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::index::{BuildOptions, Index, IndexEncoder, UpdateOptions, UpdateScope, build, update};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, ErrorKind, Result};

/// One dimension a topic: how many of its words a text has.
const TOPICS: [&[&str]; 4] = [
    &["merge", "join", "combine", "unite"],
    &["remove", "drop", "delete", "discard"],
    &["sort", "order", "arrange"],
    &["file", "disk", "path"],
];

struct Topics {
    info: EncoderInfo,
    /// Documents encoded so far.
    documents: AtomicUsize,
}

impl Topics {
    fn new(fingerprint: &str) -> Arc<Self> {
        let info = EncoderInfo {
            architecture: "topics".into(),
            name: "topics".into(),
            fingerprint: fingerprint.into(),
            dim: TOPICS.len(),
            max_tokens: 100,
            normalized: true,
            backend: "none",
        };
        Arc::new(Self { info, documents: AtomicUsize::new(0) })
    }

    fn for_index(self: &Arc<Self>) -> Option<IndexEncoder> {
        Some(IndexEncoder {
            encoder: Arc::clone(self) as Arc<dyn TextEncoder>,
            path: "/encoders/topics".into(),
        })
    }
}

impl TextEncoder for Topics {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, role: Role, texts: &[&str], _cancel: &CancelToken) -> Result<Vectors> {
        let mut values = Vec::new();
        for text in texts {
            self.documents.fetch_add(usize::from(role == Role::Document), Ordering::Relaxed);
            let text = text.to_lowercase();
            let row: Vec<f32> = TOPICS
                .iter()
                .map(|words| words.iter().filter(|word| text.contains(**word)).count() as f32 + 0.01)
                .collect();
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            values.extend(row.iter().map(|value| value / length));
        }
        Ok(Vectors { dim: TOPICS.len(), values })
    }
}

fn api(qualified: &str, description: &str) -> ApiDoc {
    ApiDoc {
        name: qualified.rsplit('.').next().unwrap().into(),
        qualified_name: qualified.into(),
        description: description.into(),
        ..ApiDoc::default()
    }
}

fn apis() -> Vec<ApiDoc> {
    vec![
        api("lib.Left.knit", "Join two threads."),
        api("lib.Right.knit", "Join two threads."),
        api("lib.frog", "Discard a row."),
        api("lib.rank", "Arrange the rows."),
        api("lib.load", "Read a file."),
        api("lib.plain", "Nothing of note."),
        ApiDoc { kind: Some(inhouse_core::api::ApiKind::Module), ..api("lib.merge", "Join and combine.") },
    ]
}

fn names(index: &Index, query: &str, k: usize) -> Vec<String> {
    index.search(&query.into(), k).unwrap().into_iter().map(|hit| hit.api.name).collect()
}

fn built(dir: &Path, encoder: &Arc<Topics>) {
    let options = BuildOptions { encoder: encoder.for_index(), ..BuildOptions::default() };
    build(&apis(), dir, &options, &Silent).unwrap();
}

#[test]
fn vectors_find_what_words_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = Topics::new("a");
    built(dir.path(), &encoder);
    // The module is not encoded, the two equal texts once.
    assert_eq!(encoder.documents.load(Ordering::Relaxed), 5);
    let index = Index::open(dir.path()).unwrap();
    let entry = index.info().encoder.unwrap();
    assert_eq!((entry.name.as_str(), entry.dim), ("topics", 4));
    assert_eq!(index.encoder().unwrap().path, Path::new("/encoders/topics"));
    // By words alone, without the encoder.
    assert!(names(&index, "unite", 5).is_empty());
    assert_eq!(names(&index, "join", 5), ["knit"]);
    let index = index.with_encoder(encoder.clone()).unwrap();
    assert_eq!(names(&index, "unite", 1), ["knit"]);
    assert_eq!(names(&index, "delete", 1), ["frog"]);
    // Every name is a candidate, each once; a module is none.
    let all = names(&index, "order by disk", 10);
    assert_eq!(all.len(), 5);
    // A text of no topic is near to all of them.
    assert!(all[..3].contains(&"rank".into()) && all[..3].contains(&"load".into()), "{all:?}");
    let hits = index.search(&"unite".into(), 3).unwrap();
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    assert_eq!(hits[0].also, ["lib.Right.knit"]);
    // Words still count: both are of the topic, one has the word.
    assert_eq!(names(&index, "discard", 1), ["frog"]);
    let fresh = Index::open(dir.path()).unwrap();
    let error = fresh.with_encoder(Topics::new("b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("topics"), "{error}");
}

#[test]
fn updates_encode_only_what_is_new_and_refuse_another_encoder() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = Topics::new("a");
    built(dir.path(), &encoder);
    let before = encoder.documents.load(Ordering::Relaxed);
    let mut changed = apis();
    changed[2].description = "Sort a row.".into();
    changed.push(api("lib.shred", "Delete a file."));
    let options =
        |encoder: Option<IndexEncoder>| UpdateOptions { scope: UpdateScope::Libraries, encoder, usage: None };
    for wrong in [None, Topics::new("b").for_index()] {
        let error = update(dir.path(), &changed, &options(wrong), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("/encoders/topics"), "{error}");
    }
    let report = update(dir.path(), &changed, &options(encoder.for_index()), &Silent).unwrap();
    assert_eq!((report.added, report.replaced, report.removed), (1, 1, 0));
    assert_eq!(encoder.documents.load(Ordering::Relaxed), before + 2);
    // The same answers as an index built anew, whatever segments they lie in.
    let anew = tempfile::tempdir().unwrap();
    let build_options = BuildOptions { encoder: encoder.for_index(), ..BuildOptions::default() };
    build(&changed, anew.path(), &build_options, &Silent).unwrap();
    let open = |dir: &Path| Index::open(dir).unwrap().with_encoder(encoder.clone()).unwrap();
    let (updated, anew) = (open(dir.path()), open(anew.path()));
    for query in ["unite", "arrange rows", "remove from disk", "a row"] {
        let hits = |index: &Index| -> Vec<(String, f32)> {
            let hits = index.search(&query.into(), 10).unwrap();
            hits.into_iter().map(|hit| (hit.api.qualified_name, hit.score)).collect()
        };
        assert_eq!(hits(&updated), hits(&anew), "{query}");
    }
    // Merged into one segment, without encoding anything again.
    let documents = encoder.documents.load(Ordering::Relaxed);
    for i in 0..6 {
        changed.push(api(&format!("lib.more{i}"), "Order."));
        update(dir.path(), &changed, &options(encoder.for_index()), &Silent).unwrap();
    }
    assert_eq!(encoder.documents.load(Ordering::Relaxed), documents + 6);
    assert_eq!(names(&open(dir.path()), "shred delete", 1), ["shred"]);
    // A reader with its encoder keeps it over a refresh.
    let newer = updated.refresh().unwrap().unwrap();
    assert!(names(&newer, "unite", 1) == ["knit"]);
    // An index without an encoder takes none.
    let plain = tempfile::tempdir().unwrap();
    build(&apis(), plain.path(), &BuildOptions::default(), &Silent).unwrap();
    update(plain.path(), &changed, &options(None), &Silent).unwrap();
    assert!(Index::open(plain.path()).unwrap().with_encoder(encoder.clone()).is_err());
}

#[test]
fn damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = Topics::new("a");
    built(dir.path(), &encoder);
    let entry = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let dense = entry.into_iter().find(|path| path.extension().is_some_and(|role| role == "dense")).unwrap();
    let whole = std::fs::read(&dense).unwrap();
    let search = || -> Result<()> {
        let index = Index::open(dir.path())?.with_encoder(encoder.clone())?;
        index.search(&"unite".into(), 3).map(drop)
    };
    search().unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&dense, &bytes).unwrap();
        let kind = search().unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::InvalidData | ErrorKind::UnsupportedVersion),
            "byte {at}: {kind:?}"
        );
    }
    for length in 0..whole.len() {
        std::fs::write(&dense, &whole[..length]).unwrap();
        assert_eq!(search().unwrap_err().kind(), ErrorKind::InvalidData, "{length} bytes");
    }
    std::fs::remove_file(&dense).unwrap();
    assert!(search().is_err());
}
