//! Indexes of which a search does not look at every record: what they answer beside a search that does, damage, and updates.

// Clippy allows it in test functions only, not in the functions that they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse_core::decode::CancelToken;
use inhouse_core::encode::{EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::index::{
    BuildOptions, Hit, Index, IndexEncoder, UpdateOptions, UpdateScope, build, merge, update,
};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A few more than an index has that looks at every record.
const RECORDS: usize = 33_500;
const DIM: usize = 48;
/// More hits than a search of a part gives: every record is looked at.
const ALL: usize = 101;

const WORDS: [&str; 24] = [
    "sort", "merge", "read", "write", "drop", "fill", "group", "count", "row", "column", "table", "file",
    "label", "value", "index", "frame", "window", "token", "graph", "node", "path", "time", "zone", "key",
];

/// A record; low numbers of words are common, high ones rare, as in documentation.
fn api(i: usize) -> ApiDoc {
    let mut random = ChaCha8Rng::seed_from_u64(i as u64);
    let mut word = || {
        let share: f32 = random.random::<f32>().powi(3);
        WORDS[(share * WORDS.len() as f32) as usize]
    };
    let name = format!("{}_{}_{}", word(), word(), i % 4001);
    let description = (0..6).map(|_| word()).collect::<Vec<_>>().join(" ");
    ApiDoc {
        qualified_name: format!("lib{}.C{}.{name}", i % 13, i / 4001),
        signature: format!("({}, {}=None)", word(), word()),
        description: format!("{description} number{}.", i % 97),
        name,
        ..ApiDoc::default()
    }
}

fn apis() -> Vec<ApiDoc> {
    (0..RECORDS).map(api).collect()
}

/// A text's vector is the sum of one random vector for each of its words.
struct Bags(EncoderInfo);

impl TextEncoder for Bags {
    fn info(&self) -> &EncoderInfo {
        &self.0
    }

    fn encode(&self, _role: Role, texts: &[&str], _cancel: &CancelToken) -> Result<Vectors> {
        let mut values = Vec::new();
        for text in texts {
            let mut sum = [0f32; DIM];
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                let seed =
                    word.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                sum.iter_mut().for_each(|value| *value += random.random_range(-1.0..1.0));
            }
            let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-3);
            values.extend(sum.iter().map(|value| value / length));
        }
        Ok(Vectors { dim: DIM, values })
    }
}

fn encoder() -> Arc<Bags> {
    Arc::new(Bags(EncoderInfo {
        architecture: "bags".into(),
        name: "bags".into(),
        fingerprint: "bags".into(),
        dim: DIM,
        max_tokens: 100,
        normalized: true,
        backend: "none",
    }))
}

fn for_index() -> Option<IndexEncoder> {
    Some(IndexEncoder { encoder: encoder(), path: "bags".into() })
}

fn built(dir: &Path) {
    let options = BuildOptions { encoder: for_index(), ..BuildOptions::default() };
    build(&apis(), dir, &options, &Silent).unwrap();
}

fn open(dir: &Path) -> Index {
    Index::open(dir).unwrap().with_encoder(encoder()).unwrap()
}

fn queries() -> Vec<String> {
    let mut queries: Vec<String> =
        ["sort", "number41", "sort merge read write", "zone key time", "merge_read_17", "nothing of it"]
            .map(str::to_owned)
            .into();
    queries.extend((0..60).map(|i| {
        let other = api(i * 557 + 100_000);
        format!("{} {}", other.description, if i % 3 == 0 { other.name } else { String::new() })
    }));
    queries
}

fn keys(hits: &[Hit]) -> Vec<(String, u32, Vec<String>)> {
    hits.iter().map(|hit| (hit.api.qualified_name.clone(), hit.score.to_bits(), hit.also.clone())).collect()
}

fn files(dir: &Path, role: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == role)).collect()
}

/// How many of the hits of every-record searches are found, and how many of the first ones.
fn recall(index: &Index) -> (f64, f64) {
    let (mut found, mut all, mut first) = (0, 0, 0);
    let queries = queries();
    for query in &queries {
        let hits = index.search(&query.as_str().into(), 10).unwrap();
        let right = index.search(&query.as_str().into(), ALL).unwrap();
        let names: BTreeSet<&str> = hits.iter().map(|hit| hit.api.name.as_str()).collect();
        found += right.iter().take(10).filter(|hit| names.contains(hit.api.name.as_str())).count();
        all += right.len().min(10);
        first += usize::from(hits[0].api.name == right[0].api.name);
    }
    (found as f64 / all as f64, first as f64 / queries.len() as f64)
}

#[test]
fn a_part_of_the_records_gives_the_hits_of_all() {
    let dir = tempfile::tempdir().unwrap();
    built(dir.path());
    assert_eq!((files(dir.path(), "near").len(), files(dir.path(), "impacts").len()), (1, 1));
    // By words they are equal to the last bit.
    let words = Index::open(dir.path()).unwrap();
    for query in queries() {
        for k in [1, 10, 100] {
            let part = words.search(&query.as_str().into(), k).unwrap();
            let mut all = words.search(&query.as_str().into(), ALL).unwrap();
            all.truncate(k);
            let differs = keys(&part).iter().zip(&keys(&all)).position(|(part, all)| part != all);
            assert_eq!((part.len(), differs), (all.len(), None), "{query} {k}");
            for (part, all) in part.iter().zip(&all) {
                assert_eq!(part.confidence, all.confidence);
            }
        }
    }
    // By vectors too they are nearly equal.
    let (found, first) = recall(&open(dir.path()));
    println!("recall@10 of the search of every record {found:.3}, equal first hits {first:.3}");
    assert!(found > 0.98 && first > 0.98, "{found} {first}");
    // A hit has one score, however many hits are asked for.
    let index = open(dir.path());
    for query in queries() {
        let part = index.search(&query.as_str().into(), 10).unwrap();
        let all = index.search(&query.as_str().into(), ALL).unwrap();
        for hit in part {
            let same = all.iter().find(|other| other.id == hit.id);
            assert!(
                same.is_none_or(|same| same.score == hit.score && same.confidence == hit.confidence),
                "{query}"
            );
        }
    }

    // The same input gives the same bytes.
    let again = tempfile::tempdir().unwrap();
    built(again.path());
    for role in ["near", "impacts", "dense", "sparse", "records"] {
        let bytes = |dir: &Path| std::fs::read(&files(dir, role)[0]).unwrap();
        assert!(bytes(dir.path()) == bytes(again.path()), "{role}");
    }

    // Files of roles that a reader does not know are passed over: what is left is searched whole.
    let names = |hits: &[Hit]| hits.iter().map(|hit| hit.api.qualified_name.clone()).collect::<Vec<_>>();
    let right = names(&open(dir.path()).search(&"sort the zone".into(), ALL).unwrap());
    for role in ["near", "impacts"] {
        forget(dir.path(), role);
        let index = open(dir.path());
        let some = index.search(&"sort the zone".into(), 10).unwrap();
        assert_eq!(names(&some), right[..10], "{role}");
        let all = index.search(&"sort the zone".into(), ALL).unwrap();
        assert_eq!(keys(&some), keys(&all)[..10], "{role}");
    }

    update_and_merge(again.path());
}

/// Gives files of `role` one in the manifest that no reader knows.
fn forget(dir: &Path, role: &str) {
    let manifest = dir.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let body = text.split_once('\n').unwrap().1.replace(&format!("\"{role}\":"), &format!("\"un{role}\":"));
    let crc32 = crc32fast::hash(body.as_bytes());
    let head = format!("{{\"format\":\"inhouse-index\",\"version\":1,\"crc32\":{crc32}}}");
    std::fs::write(&manifest, format!("{head}\n{body}")).unwrap();
}

/// Updates of a large index are segments of their own, in which every record is looked at.
fn update_and_merge(dir: &Path) {
    let options = UpdateOptions {
        scope: UpdateScope::Only(BTreeSet::new()),
        encoder: for_index(),
        ..UpdateOptions::default()
    };
    let before = open(dir);
    let large = std::fs::metadata(&files(dir, "near")[0]).unwrap().modified().unwrap();
    let mut changed: Vec<ApiDoc> = (0..100).map(|i| api(i * 331)).collect();
    changed.iter_mut().for_each(|api| api.description = "Knits a zeppelin.".into());
    let old = before.find(&changed[3].qualified_name).unwrap();
    let report = update(dir, &changed, &options, &Silent).unwrap();
    assert_eq!((report.added, report.replaced, report.removed, report.unchanged), (0, 100, 0, 0));
    let report = update(dir, &changed, &options, &Silent).unwrap();
    assert_eq!((report.added, report.replaced, report.removed, report.unchanged), (0, 0, 0, 100));
    let after = before.refresh().unwrap().unwrap();
    let info = after.info();
    assert_eq!((info.apis, info.segments, info.deleted), (RECORDS, 2, 100));
    assert_eq!(std::fs::metadata(&files(dir, "near")[0]).unwrap().modified().unwrap(), large);
    let hits = after.search(&"knit a zeppelin".into(), 100).unwrap();
    assert!(hits.iter().take(90).all(|hit| hit.api.description == "Knits a zeppelin."));
    assert!(
        before
            .search(&"zeppelin".into(), 10)
            .unwrap()
            .iter()
            .all(|hit| !hit.api.description.contains("zeppelin"))
    );
    assert_eq!(before.find(&changed[3].qualified_name).unwrap(), old);
    let (found, first) = recall(&after);
    assert!(found > 0.9 && first > 0.85, "{found} {first}");

    // More than is merged at once: the change is a generation of its own, its merge the next.
    let many: Vec<ApiDoc> = (0..9000).map(|i| api(i + 200_000)).collect();
    for part in [&many[..4000], &many[4000..]] {
        update(dir, part, &options, &Silent).unwrap();
    }
    let info = open(dir).info();
    assert_eq!((info.apis, info.segments), (RECORDS + 9000, 2));
    assert_eq!(info.generation, 5);

    let key = |hits: Vec<Hit>| hits.into_iter().map(|hit| hit.api.qualified_name).collect::<Vec<_>>();
    let answers = |index: &Index| key(index.search(&"knit a zeppelin".into(), ALL).unwrap());
    let answers_before = answers(&open(dir));
    let info = merge(dir, &Silent).unwrap();
    assert_eq!((info.apis, info.segments, info.deleted), (RECORDS + 9000, 1, 0));
    assert_eq!(answers(&open(dir)), answers_before);
    assert_eq!(merge(dir, &Silent).unwrap().generation, info.generation, "there was nothing to merge");
}

#[test]
fn damage_is_noticed_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    built(dir.path());
    let answers = || -> Result<Vec<Vec<(String, u32, Vec<String>)>>> {
        let index = Index::open(dir.path())?.with_encoder(encoder())?;
        ["sort merge", "zone number41 of a key", "read_write_5"]
            .into_iter()
            .map(|query| Ok(keys(&index.search(&query.into(), 5)?)))
            .collect()
    };
    let right = answers().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut noticed = 0;
    for role in ["near", "impacts"] {
        let path = &files(dir.path(), role)[0];
        let good = std::fs::read(path).unwrap();
        for round in 0..60 {
            let mut bad = good.clone();
            let at = random.random_range(0..good.len());
            match round % 3 {
                0 => bad[at] ^= 1 << random.random_range(0..8),
                1 => bad.iter_mut().skip(at).take(3000).for_each(|byte| *byte = 0xff),
                _ => bad.truncate(at),
            }
            std::fs::write(path, &bad).unwrap();
            match answers() {
                Ok(found) => assert_eq!(found, right, "{role} {round}"),
                Err(error) => {
                    noticed += 1;
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                }
            }
        }
        std::fs::write(path, &good).unwrap();
    }
    assert!(noticed > 40, "{noticed}");
    assert_eq!(answers().unwrap(), right);
}
