//! Builds, opens, asks and updates an index over many records whose vectors are given, and prints what it cost.
//!
//!     index_at_scale DATA INDEX
//!
//! DATA holds `apis.jsonl`, `vectors.f32` (a vector of 384 a record), `queries.json` (a list of texts), `queries.f32`, and
//! for each line of `exact.txt` the numbers of the ten records that are nearest to that query (benches/peers/index.py makes
//! them). INDEX is the folder of the index; it is built where there is none. CPU times are those of the measured thread.

#![allow(clippy::unwrap_used, clippy::panic)] // a measurement: where it fails, it may say so by a panic

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inhouse_core::decode::CancelToken;
use inhouse_core::encode::{EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::index::{
    BuildOptions, Index, IndexEncoder, UpdateOptions, UpdateScope, build, document_text, update,
};
use inhouse_core::progress::Silent;
use inhouse_core::{ApiDoc, api};
use nix::time::{ClockId, clock_gettime};

const DIM: usize = 384;
const K: usize = 10;

/// Vectors of known texts from a file.
struct Given {
    info: EncoderInfo,
    documents: File,
    /// From a text's hash to its row.
    rows: HashMap<u64, u32>,
    queries: Vec<f32>,
    query_rows: HashMap<String, usize>,
}

fn hash(text: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

impl TextEncoder for Given {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, role: Role, texts: &[&str], _cancel: &CancelToken) -> inhouse_core::Result<Vectors> {
        let mut values = Vec::with_capacity(texts.len() * DIM);
        for text in texts {
            if role == Role::Query {
                // A text of question marks alone asks with the vector of that number and without words.
                let row = self.query_rows.get(*text).copied().unwrap_or(text.len() - 1);
                values.extend_from_slice(&self.queries[row * DIM..(row + 1) * DIM]);
                continue;
            }
            let row =
                self.rows.get(&hash(text)).copied().unwrap_or((hash(text) % self.rows.len() as u64) as u32);
            let mut bytes = [0; DIM * 4];
            self.documents.read_exact_at(&mut bytes, u64::from(row) * (DIM * 4) as u64).unwrap();
            values.extend(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)));
        }
        Ok(Vectors { dim: DIM, values })
    }
}

/// CPU seconds of this thread so far.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(time).as_secs_f64()
}

fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Milliseconds: median, .99 quantile, most.
fn quantiles(mut seconds: Vec<f64>) -> String {
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize] * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms", at(0.5), at(0.99), at(1.0))
}

fn timed<R>(what: &str, work: impl FnOnce() -> R) -> R {
    let (cpu, wall) = (cpu_s(), Instant::now());
    let result = work();
    println!("{what}: CPU {:.3} s, wall {:.3} s", cpu_s() - cpu, wall.elapsed().as_secs_f64());
    result
}

/// Asks every query and returns the names of the hits.
fn ask(what: &str, index: &Index, queries: &[String], k: usize) -> Vec<Vec<String>> {
    let (mut cpu_times, mut wall_times) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for query in queries {
        let (cpu, wall) = (cpu_s(), Instant::now());
        let hits = index.search(&query.as_str().into(), k).unwrap();
        wall_times.push(wall.elapsed().as_secs_f64());
        cpu_times.push(cpu_s() - cpu);
        found.push(hits.into_iter().take(K).map(|hit| hit.api.name).collect());
    }
    println!(
        "{what}, {} queries: CPU {}; wall {}",
        queries.len(),
        quantiles(cpu_times),
        quantiles(wall_times)
    );
    found
}

fn recall(found: &[Vec<String>], right: &[Vec<String>]) -> f64 {
    let (mut hits, mut all) = (0, 0);
    for (found, right) in found.iter().zip(right) {
        hits += right.iter().filter(|name| found.contains(name)).count();
        all += right.len();
    }
    hits as f64 / all as f64
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (data, dir) = (PathBuf::from(arguments.next().unwrap()), PathBuf::from(arguments.next().unwrap()));
    let apis = api::read_jsonl(&data.join("apis.jsonl")).unwrap();
    println!("{} records; {} MB before anything is built", apis.len(), peak_mb());
    let queries: Vec<String> =
        serde_json::from_slice(&std::fs::read(data.join("queries.json")).unwrap()).unwrap();
    let words = std::fs::read(data.join("queries.f32")).unwrap();
    let info = EncoderInfo {
        architecture: "bert".into(),
        name: "given".into(),
        fingerprint: "given".into(),
        dim: DIM,
        max_tokens: 256,
        normalized: true,
        backend: "none",
    };
    let encoder = Arc::new(Given {
        info,
        documents: File::open(data.join("vectors.f32")).unwrap(),
        rows: (0..).zip(&apis).map(|(i, api)| (hash(&document_text(api)), i)).collect(),
        queries: words.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        query_rows: queries.iter().cloned().zip(0..).collect(),
    });
    let given = || Some(IndexEncoder { encoder: encoder.clone(), path: "given".into() });
    if Index::open(&dir).is_err() {
        let options = BuildOptions { encoder: given(), ..BuildOptions::default() };
        timed("build", || build(&apis, &dir, &options, &Silent).unwrap());
        println!("{} MB at most, the records to be indexed included", peak_mb());
    }
    let open = || Index::open(&dir).unwrap().with_encoder(encoder.clone()).unwrap();
    let index = timed("open", open);
    let info = index.info();
    println!(
        "{} names, {} segments, {} bytes on disk: {:.0} an API",
        info.names,
        info.segments,
        info.bytes,
        info.bytes as f64 / info.apis as f64
    );
    for _ in 0..3 {
        timed("open again", open);
    }

    let some = &queries[..1000.min(queries.len())];
    let vectors_alone: Vec<String> = (1..=some.len()).map(|n| "?".repeat(n)).collect();
    ask("first queries, words and vectors", &index, &some[..20], K);
    let fused = ask("words and vectors", &index, some, K);
    let by_vectors = ask("vectors alone", &index, &vectors_alone, K);
    let plain = Index::open(&dir).unwrap();
    let by_words = ask("words alone", &plain, some, K);
    // More hits than a search of a part gives: every record is looked at.
    let few = some.len().min(200);
    let all = 101;
    let exact_fused = ask("words and vectors, every record looked at", &index, &some[..few], all);
    let exact_vectors = ask("vectors alone, every record looked at", &index, &vectors_alone[..few], all);
    let exact_words = ask("words alone, every record looked at", &plain, &some[..few], all);
    println!(
        "recall@10 of the search of every record: words and vectors {:.4}, vectors {:.4}, words {:.4} (equal lists: {})",
        recall(&fused, &exact_fused),
        recall(&by_vectors, &exact_vectors),
        recall(&by_words, &exact_words),
        by_words.iter().zip(&exact_words).filter(|(a, b)| a == b).count(),
    );
    println!(
        "the first hit is the same: {} of {few}",
        fused.iter().zip(&exact_fused).filter(|(a, b)| a.first() == b.first()).count()
    );
    if let Ok(text) = std::fs::read_to_string(data.join("exact.txt")) {
        // Records of one name are one hit, so their names are compared, not their numbers.
        let names = |line: &str| -> Vec<String> {
            let rows: BTreeSet<usize> = line.split(' ').map(|row| row.parse().unwrap()).collect();
            rows.into_iter().map(|row| apis[row].name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
        };
        let exact: Vec<Vec<String>> = text.lines().take(some.len()).map(names).collect();
        println!("recall@10 of f32 products, by name: {:.4}", recall(&by_vectors, &exact));
    }
    update_beside_a_reader(&dir, &apis, &encoder, some);
}

/// Changes 100 records while another thread asks.
fn update_beside_a_reader(dir: &Path, apis: &[ApiDoc], encoder: &Arc<Given>, queries: &[String]) {
    for round in 0..4usize {
        let mut changed: Vec<ApiDoc> =
            (0..100).map(|i| apis[(i * 9973 + round * 31) % apis.len()].clone()).collect();
        changed.iter_mut().for_each(|api| {
            api.description = format!("Says something else, {round} {}.", std::process::id())
        });
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut index = Index::open(dir).unwrap().with_encoder(encoder.clone()).unwrap();
                let (mut asked, mut times) = (0, Vec::new());
                while !done.load(Ordering::Relaxed) || asked < 20 {
                    let cpu = cpu_s();
                    let hits = index.search(&queries[asked % queries.len()].as_str().into(), K).unwrap();
                    times.push(cpu_s() - cpu);
                    assert_eq!(hits.len(), K);
                    asked += 1;
                    if let Some(newer) = index.refresh().unwrap() {
                        index = newer;
                    }
                }
                println!("  a reader asked {asked} times meanwhile, no error: CPU {}", quantiles(times));
            });
            let options = UpdateOptions {
                scope: UpdateScope::Only(BTreeSet::new()),
                encoder: Some(IndexEncoder { encoder: encoder.clone(), path: "given".into() }),
                usage: None,
            };
            let report = timed("update of 100", || update(dir, &changed, &options, &Silent).unwrap());
            let index = timed("  and opened", || Index::open(dir).unwrap());
            assert!(index.find(&changed[7].qualified_name).unwrap().contains(&changed[7]));
            println!("  {report:?}, {} segments", index.info().segments);
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
    }
}
