//! What the C ABI costs over the Rust facade: the same calls both ways, in turns, in one process.
//!
//!     cargo bench -p inhouse-ffi --features llama --bench overhead [-- MODEL]
//!
//! Completion (greedy, one thread, with a callback) as the median ratio of pairs; retrieval over 10,000 APIs and the opening of an engine as
//! differences and times; memory that an idle engine and session hold. The model is the shipped one; the one that is
//! opened is the same with its blocks repeated until it has 40 MB. Prints a table for benches/runs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made must fail")]

use std::ffi::c_void;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Instant;

use inhouse::{ApiChoice, CancelToken, CompletionRequest, Engine, EngineOptions, SamplingParams, StopRules};
use inhouse_core::gguf::{self, Value};
use inhouse_core::{ApiDoc, index, progress};
use inhouse_ffi::*;

const CONTEXT: &str =
    "import ledgers\n\n\ndef close_of_month(path):\n    # open the ledger and sum its entries\n    ";
const MAX_TOKENS: u32 = 64;
const APIS: usize = 10_000;
const BIG_BYTES: u64 = 40 << 20;

fn view(text: &str) -> inhouse_str {
    inhouse_str { data: text.as_ptr().cast(), len: text.len() }
}

fn ok(status: inhouse_status, error: *mut inhouse_error) {
    if status != inhouse_status::INHOUSE_STATUS_OK {
        let message = inhouse_error_message(error);
        // SAFETY: the view is of a live error.
        let bytes = unsafe { std::slice::from_raw_parts(message.data.cast::<u8>(), message.len) };
        panic!("{status:?}: {}", String::from_utf8_lossy(bytes));
    }
}

/// 10,000 APIs of 25 x 25 actions on 16 libraries.
fn apis() -> Vec<ApiDoc> {
    let verbs = [
        "add", "align", "apply", "bind", "clip", "count", "drop", "fill", "filter", "find", "group", "join",
        "merge", "parse", "pivot", "rank", "read", "rename", "reshape", "round", "sample", "shift", "sort",
        "split", "write",
    ];
    let nouns = [
        "axis", "block", "column", "entry", "field", "file", "frame", "graph", "index", "key", "label",
        "matrix", "node", "path", "period", "record", "row", "series", "stream", "table", "token", "value",
        "vector", "window", "zone",
    ];
    let api = |i: usize| {
        let (verb, noun, twin) = (verbs[i % 25], nouns[i / 25 % 25], i / 625);
        ApiDoc {
            name: format!("{verb}_{noun}_{twin}"),
            qualified_name: format!("lib{twin}.{noun}s.{verb}_{noun}_{twin}"),
            signature: format!("({noun}, other=None, *, strict: bool = False) -> None"),
            description: format!(
                "{verb} each {noun} of the frame, in the order of its {noun} labels, number {i}."
            ),
            ..ApiDoc::default()
        }
    };
    (0..APIS).map(api).collect()
}

/// `model` with its blocks repeated until the file has `bytes`.
fn repeat_blocks(model: &Path, out: &Path, bytes: u64) {
    let header = gguf::read(model).unwrap();
    let data = std::fs::read(model).unwrap();
    let architecture = header.text("general.architecture").unwrap().to_owned();
    let key = format!("{architecture}.block_count");
    let n_blocks = header.get(&key).and_then(Value::as_u64).unwrap();
    let block = |name: &str| name.strip_prefix("blk.")?.split('.').next()?.parse::<u64>().ok();
    let own: u64 = header.tensors.iter().filter(|t| block(&t.name).is_some()).map(|t| t.n_bytes()).sum();
    let rounds = (bytes - (header.file_bytes - own)).div_ceil(own);
    let mut specs = Vec::new();
    let mut sources = Vec::new();
    for round in 0..rounds {
        for tensor in &header.tensors {
            let name = match block(&tensor.name) {
                None if round > 0 => continue,
                None => tensor.name.clone(),
                Some(i) => {
                    tensor.name.replacen(&format!("blk.{i}."), &format!("blk.{}.", i + round * n_blocks), 1)
                }
            };
            let shape = tensor.dims().iter().rev().map(|&dim| dim as usize).collect();
            specs.push(gguf::TensorSpec { name, shape, kind: tensor.kind });
            let start = (header.data_start + tensor.offset) as usize;
            sources.push(&data[start..start + tensor.n_bytes() as usize]);
        }
    }
    let mut metadata = header.metadata;
    for (name, value) in &mut metadata {
        if *name == key {
            *value = Value::U32((n_blocks * rounds) as u32);
        }
    }
    let mut file = std::io::BufWriter::new(std::fs::File::create(out).unwrap());
    let mut writer = gguf::Writer::new(&mut file, &metadata, &specs).unwrap();
    for source in sources {
        writer.begin().unwrap();
        writer.write(source).unwrap();
    }
    writer.finish().unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn seconds<T>(call: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let value = call();
    (start.elapsed().as_secs_f64(), value)
}

/// Seconds that this thread has been on a processor: what a busy machine does not change much. A tick of the clock is read
/// from the kernel, so this is for calls of milliseconds.
fn on_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn cpu_seconds<T>(call: impl FnOnce() -> T) -> (f64, T) {
    let start = on_cpu();
    let value = call();
    (on_cpu() - start, value)
}

/// Memory of this process in RAM that is its own: mapped files, which other processes share, do not count.
fn own_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

fn open(index: Option<&Path>, model: Option<&Path>) -> *mut inhouse_engine {
    let (mut engine, mut error) = (ptr::null_mut(), ptr::null_mut());
    fn text(path: Option<&Path>) -> &str {
        path.map_or("", |path| path.to_str().unwrap())
    }
    // SAFETY: every pointer is to a local, every view to live text.
    unsafe {
        let mut params = std::mem::zeroed::<inhouse_engine_params>();
        ok(inhouse_engine_params_init(&mut params, size_of_val(&params)), error);
        if index.is_some() {
            params.index = view(text(index));
        }
        if model.is_some() {
            params.model = view(text(model));
            params.threads = 1;
        }
        let status = inhouse_engine_open(&params, &mut engine, &mut error);
        ok(status, error);
    }
    engine
}

unsafe extern "C" fn count(user_data: *mut c_void, event: *const inhouse_event) -> i32 {
    // SAFETY: `complete` passes a counter, and the library a whole event.
    unsafe { *user_data.cast::<usize>() += (*event).text.len };
    0
}

fn complete(session: *mut inhouse_session) -> usize {
    let (mut heard, mut error) = (0usize, ptr::null_mut());
    let mut completion = ptr::null_mut();
    // SAFETY: every pointer is to a local, every view to live text.
    unsafe {
        let mut params = std::mem::zeroed::<inhouse_complete_params>();
        ok(inhouse_complete_params_init(&mut params, size_of_val(&params)), error);
        params.api_choice = inhouse_api_choice::INHOUSE_APIS_TOP as i32;
        params.n_apis = 2;
        params.max_tokens = MAX_TOKENS;
        params.temperature = 0.0;
        params.stop_choice = inhouse_stop_choice::INHOUSE_STOPS_NONE as i32;
        params.on_event = Some(count);
        params.user_data = (&raw mut heard).cast();
        let status = inhouse_session_complete(session, view(CONTEXT), &params, &mut completion, &mut error);
        ok(status, error);
    }
    let text = inhouse_completion_text(completion, 0);
    assert_eq!(heard, 2 * text.len);
    ok(inhouse_completion_free(completion), ptr::null_mut());
    text.len
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, what, folder, model] = arguments.as_slice()
        && what == "memory"
    {
        return memory(Path::new(folder), Path::new(model));
    }
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let model = given.unwrap_or_else(|| root.join("models/inhouse-coder/inhouse-coder.gguf"));
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("index");
    index::build(&apis(), &folder, &index::BuildOptions::default(), &progress::Silent).unwrap();
    println!("| what | Rust | C | |\n|---|---|---|---|");

    // Retrieval.
    let options = EngineOptions { index: Some(folder.clone()), ..EngineOptions::default() };
    let rust = Engine::open(&options).unwrap();
    let engine = open(Some(&folder), None);
    let query = "how do I merge the rows of a table and sort them by their label";
    let (mut in_rust, mut in_c) = (Vec::new(), Vec::new());
    for round in 0..2200 {
        let (a, hits) = seconds(|| rust.retrieve(&query.into(), 5).unwrap());
        let (b, n) = seconds(|| {
            let (mut apis, mut error) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: every pointer is to a local, the view to live text.
            let status = unsafe { inhouse_engine_retrieve(engine, view(query), 5, &mut apis, &mut error) };
            ok(status, error);
            let mut n = 0;
            for i in 0..inhouse_apis_count(apis) {
                n += usize::from(inhouse_apis_name(apis, i).len > 0);
            }
            ok(inhouse_apis_free(apis), error);
            n
        });
        assert_eq!(hits.len(), n);
        if round >= 200 {
            in_rust.push(a * 1e6);
            in_c.push(b * 1e6);
        }
    }
    let (a, b) = (median(in_rust), median(in_c));
    println!("| retrieve 5 of {APIS} APIs, with their names | {a:.1} us | {b:.1} us | {:+.1} us |", b - a);
    drop(rust);
    ok(inhouse_engine_release(engine), ptr::null_mut());

    if !inhouse::available_backends().contains(&"llama.cpp") {
        println!("skipped what needs a model: this build has no llama.cpp");
        return;
    }
    // Completion.
    let options = EngineOptions { model: Some(model.clone()), threads: Some(1), ..options };
    let rust = Engine::open(&options).unwrap();
    let engine = open(Some(&folder), Some(&model));
    let mut rust_session = rust.session(1).unwrap();
    let mut session = ptr::null_mut();
    // SAFETY: every pointer is to a local or NULL.
    ok(unsafe { inhouse_session_open(engine, ptr::null(), &mut session, ptr::null_mut()) }, ptr::null_mut());
    let request = CompletionRequest {
        apis: ApiChoice::Top(2),
        params: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_tokens: MAX_TOKENS as usize,
        stops: StopRules::none(),
        ..CompletionRequest::new(CONTEXT)
    };
    let (mut in_rust, mut in_c, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..130 {
        let through_rust = |session: &mut inhouse::Session| {
            let mut heard = 0;
            let done = session.complete(&request, &CancelToken::new(), &mut |event| {
                heard += match event {
                    inhouse::Event::Text { text, .. } => text.len(),
                    inhouse::Event::Finished(done) => done.text.len(),
                };
                ControlFlow::Continue(())
            });
            assert_eq!(heard, 2 * done.as_ref().unwrap().completions[0].text.len());
            done.unwrap().completions[0].text.len()
        };
        // Which comes first alternates, so that neither always finds the caches warm.
        let (a, b) = if round % 2 == 0 {
            let a = cpu_seconds(|| through_rust(&mut rust_session));
            (a, cpu_seconds(|| complete(session)))
        } else {
            let b = cpu_seconds(|| complete(session));
            (cpu_seconds(|| through_rust(&mut rust_session)), b)
        };
        assert_eq!(a.1, b.1);
        if round >= 10 {
            in_rust.push(a.0 * 1e3);
            in_c.push(b.0 * 1e3);
            ratios.push(b.0 / a.0);
        }
    }
    let (a, b, ratio) = (median(in_rust), median(in_c), median(ratios));
    println!(
        "| complete, {MAX_TOKENS} tokens | {a:.2} ms | {b:.2} ms | {:+.2} % (median of pairs) |",
        (ratio - 1.0) * 100.0
    );
    drop((rust_session, rust));
    ok(inhouse_session_close(session), ptr::null_mut());
    ok(inhouse_engine_release(engine), ptr::null_mut());

    // Opening, with a session: the first opening reads the files, the others find them in the page cache.
    let big = dir.path().join("big.gguf");
    repeat_blocks(&model, &big, BIG_BYTES);
    let big_mib = std::fs::metadata(&big).unwrap().len() >> 20;
    let options =
        EngineOptions { index: Some(folder.clone()), model: Some(big.clone()), ..EngineOptions::default() };
    let (mut in_rust, mut in_c, mut rust_cpu, mut c_cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..21 {
        let (wall, (cpu, ())) = seconds(|| cpu_seconds(|| drop(Engine::open(&options).unwrap())));
        in_rust.push(wall * 1e3);
        rust_cpu.push(cpu * 1e3);
        let (wall, (cpu, engine)) = seconds(|| cpu_seconds(|| open(Some(&folder), Some(&big))));
        in_c.push(wall * 1e3);
        c_cpu.push(cpu * 1e3);
        ok(inhouse_engine_release(engine), ptr::null_mut());
    }
    let (a, b, cpu_a, cpu_b) = (median(in_rust), median(in_c), median(rust_cpu), median(c_cpu));
    println!(
        "| open a {big_mib} MiB model and {APIS} APIs | {a:.1} ms | {b:.1} ms | on the processor {cpu_a:.1}, {cpu_b:.1} ms |"
    );

    // In a process of its own, where nothing has been allocated and freed before.
    let mut memory = std::process::Command::new(std::env::current_exe().unwrap());
    memory.arg("memory").arg(&folder).arg(&big);
    assert!(memory.status().unwrap().success());
}

/// What opening adds to the process's own memory.
fn memory(folder: &Path, big: &Path) {
    let base = own_mib();
    let engine = open(Some(folder), None);
    let with_index = own_mib();
    let other = open(Some(folder), Some(big));
    let with_model = own_mib();
    let mut session = ptr::null_mut();
    // SAFETY: every pointer is to a local or NULL.
    ok(unsafe { inhouse_session_open(other, ptr::null(), &mut session, ptr::null_mut()) }, ptr::null_mut());
    let with_session = own_mib();
    println!("| idle memory: the process before anything was opened | | {base:.1} MiB | |");
    println!("| an engine on the index alone | | {:+.1} MiB | |", with_index - base);
    println!("| an engine on index and model | | {:+.1} MiB | weights are mapped |", with_model - with_index);
    println!("| a session on it | | {:+.1} MiB | |", with_session - with_model);
    ok(inhouse_session_close(session), ptr::null_mut());
    ok(inhouse_engine_release(other), ptr::null_mut());
    ok(inhouse_engine_release(engine), ptr::null_mut());
}
