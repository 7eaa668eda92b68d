//! Every entry point with arguments that the contract allows to be wrong, drawn at random: null, misaligned, stale and
//! foreign handles, sizes, lengths and numbers out of range, text that is not UTF-8. A status each time, never a crash.
//!
//! Pointers that are neither null nor misaligned always point to live memory of the stated length: that is the part
//! of the contract that a host must keep.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up must fail")]

use std::ffi::{c_char, c_void};
use std::ptr;

use inhouse_core::{ApiDoc, index, progress};
use inhouse_ffi::*;

/// Calls in a test run; `INHOUSE_MISUSE_CALLS` asks for another number.
const ROUNDS: usize = 100_000;

fn rounds() -> usize {
    let asked = std::env::var("INHOUSE_MISUSE_CALLS").ok();
    asked.map_or(ROUNDS, |number| number.parse().expect("INHOUSE_MISUSE_CALLS is a number"))
}

/// xorshift64*: the calls are the same in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn number(&mut self) -> u64 {
        let any = self.next();
        self.one(&[0, 1, 2, 3, 100, 10_000, u64::from(u32::MAX), u64::MAX, u64::MAX - 1, 1 << 63, any])
    }

    fn text(&mut self) -> inhouse_str {
        const TEXTS: [&[u8]; 8] = [
            b"",
            b"open the ledger",
            b"\xff\xfe",
            b"a\0b",
            b"/",
            b"/dev/null",
            b"../..",
            "caf\u{e9} \u{1f980}".as_bytes(),
        ];
        let text = self.one(&TEXTS);
        match self.below(2) {
            0 => self.unset_or_huge(),
            _ => inhouse_str { data: text.as_ptr().cast(), len: text.len() },
        }
    }

    /// A view that is unset, contradicts itself, or is beyond every limit and so refused by its length alone.
    fn unset_or_huge(&mut self) -> inhouse_str {
        let data: *const c_char = c"x".as_ptr();
        match self.below(4) {
            0 => inhouse_str { data: ptr::null(), len: 0 },
            1 => inhouse_str { data: ptr::null(), len: self.next() as usize | 1 },
            2 => inhouse_str { data, len: usize::MAX - self.below(4096) },
            _ => inhouse_str { data, len: INHOUSE_MAX_TEXT_BYTES + 1 },
        }
    }
}

/// The handles that calls are made with: live ones of every type, stale ones, made-up ones.
struct Handles(Vec<usize>);

impl Handles {
    fn any<H>(&self, draw: &mut Draw) -> *mut H {
        let made_up = draw.next() as usize;
        let some = if self.0.is_empty() { 0 } else { draw.one(&self.0) };
        ptr::without_provenance_mut(draw.one(&[
            0,
            1,
            8,
            usize::MAX,
            made_up,
            some,
            some,
            some,
            some,
            some ^ 1,
        ]))
    }

    fn keep<H>(&mut self, handle: *mut H) {
        if self.0.len() < 64 {
            self.0.push(handle.addr());
        }
    }
}

/// Where a call may put a result: NULL, a misaligned place, or a good one.
struct Place<H> {
    room: [*mut H; 2],
}

impl<H> Place<H> {
    fn new() -> Self {
        // Not null: a call that fails must set it so.
        Self { room: [ptr::dangling_mut(); 2] }
    }

    fn draw(&mut self, draw: &mut Draw) -> (*mut *mut H, bool) {
        let place = self.room.as_mut_ptr();
        match draw.below(8) {
            0 => (ptr::null_mut(), false),
            1 => (place.wrapping_byte_add(1 + draw.below(7)), false),
            _ => (place, true),
        }
    }
}

/// An index whose engine stays open throughout.
fn open_engine(dir: &std::path::Path) -> *mut inhouse_engine {
    let api = |name: &str, description: &str| ApiDoc {
        name: name.into(),
        qualified_name: format!("ledgers.{name}"),
        signature: "(path)".into(),
        description: description.into(),
        ..ApiDoc::default()
    };
    let apis = [api("open_ledger", "Opens the ledger of a month."), api("close_ledger", "Closes a ledger.")];
    index::build(&apis, dir, &index::BuildOptions::default(), &progress::Silent).unwrap();
    let path = dir.to_str().unwrap();
    let mut engine = ptr::null_mut();
    // SAFETY: every pointer is to a local, every view to live text.
    unsafe {
        let mut params = std::mem::zeroed::<inhouse_engine_params>();
        assert_eq!(
            inhouse_engine_params_init(&mut params, size_of_val(&params)),
            inhouse_status::INHOUSE_STATUS_OK
        );
        params.index = inhouse_str { data: path.as_ptr().cast(), len: path.len() };
        assert_eq!(
            inhouse_engine_open(&params, &mut engine, ptr::null_mut()),
            inhouse_status::INHOUSE_STATUS_OK
        );
    }
    engine
}

/// The text encoder in `folder`; NULL where this build has no backend for it.
fn open_encoder(folder: &str) -> *mut inhouse_encoder {
    let (mut encoder, mut error) = (ptr::null_mut(), ptr::null_mut());
    let path = inhouse_str { data: folder.as_ptr().cast(), len: folder.len() };
    // SAFETY: the view is of live text, the places are locals.
    let status = unsafe { inhouse_encoder_open(path, &mut encoder, &mut error) };
    match inhouse::available_backends().contains(&"candle") {
        true => assert_eq!(status, inhouse_status::INHOUSE_STATUS_OK),
        false => {
            println!("skipped the encoder: this build has no candle");
            assert_eq!(status, inhouse_status::INHOUSE_STATUS_UNSUPPORTED);
            assert_eq!(inhouse_error_free(error), inhouse_status::INHOUSE_STATUS_OK);
        }
    }
    encoder
}

fn engine_params(draw: &mut Draw, texts: &[inhouse_str; 3]) -> inhouse_engine_params {
    let (backend, threads, length) = (draw.number() as i32, draw.number() as u32, draw.number() as u32);
    inhouse_engine_params {
        struct_size: draw.one(&[
            0,
            1,
            8,
            size_of::<inhouse_engine_params>(),
            size_of::<inhouse_engine_params>(),
        ]),
        index: draw.text(),
        model: draw.text(),
        backend: draw.one(&[0, 0, 1, 2, backend]),
        gpu_layers: draw.number() as u32,
        threads: draw.one(&[0, 0, 1, threads]),
        context_length: draw.one(&[0, 0, 64, length]),
        prefix_tokens: draw.one(&[0, 0, 64, length]),
        worker: draw.one(&[0, 0, 1, 2]),
        worker_program: inhouse_str { data: c"/no/such/program".as_ptr(), len: 16 },
        encoder: draw.text(),
        adapters: draw.one(&[ptr::null(), texts.as_ptr(), texts.as_ptr().wrapping_byte_add(1)]),
        n_adapters: draw.one(&[0, 0, 0, 0, 1, 3, 65, usize::MAX]),
    }
}

fn complete_params(draw: &mut Draw, handles: &Handles, texts: &[inhouse_str; 3]) -> inhouse_complete_params {
    let list = |draw: &mut Draw| match draw.below(4) {
        0 => (ptr::null(), draw.number() as usize),
        1 => (texts.as_ptr().wrapping_byte_add(1), draw.number() as usize),
        2 => (texts.as_ptr(), usize::MAX - draw.below(100)),
        _ => (texts.as_ptr(), draw.below(4)),
    };
    let (api_names, n_apis) = list(draw);
    let (stops, n_stops) = list(draw);
    inhouse_complete_params {
        struct_size: draw.one(&[0, 7, size_of::<inhouse_complete_params>()]),
        cancel: handles.any(draw),
        on_event: None,
        user_data: ptr::null_mut(),
        query: draw.text(),
        api_names,
        n_apis,
        stops,
        n_stops,
        seed: draw.next(),
        timeout_ms: draw.number(),
        api_choice: draw.number() as i32,
        stop_choice: draw.number() as i32,
        n_completions: draw.number() as u32,
        max_tokens: draw.number() as u32,
        top_k: draw.number() as u32,
        temperature: f32::from_bits(draw.next() as u32),
        top_p: f32::from_bits(draw.next() as u32),
        reserved: draw.one(&[0, 0, 0, 1]),
        apis: handles.any(draw),
        min_p: f32::from_bits(draw.next() as u32),
        repetition_penalty: f32::from_bits(draw.next() as u32),
        constrain: draw.number() as i32,
        log_probabilities: draw.number() as i32,
        suffix: draw.text(),
        chat_template: draw.text(),
        chat: draw.number() as i32,
        reserved_chat: draw.one(&[0, 0, 0, 1]),
        examples: draw.one(&[0, 0, 1, 3, 101]),
        reserved_examples: draw.one(&[0, 0, 0, 1]),
    }
}

/// A path for calls that read or write files: within `scratch`, or one that cannot be used.
fn path(draw: &mut Draw, scratch: &Scratch) -> inhouse_str {
    let text = draw.one(&[
        scratch.rows,
        scratch.rows,
        scratch.index,
        scratch.index,
        scratch.new,
        scratch.encoder,
        "/no/such/folder/x",
        "/dev/null",
        "/dev/zero",
        "-",
        "",
        "a\0b",
    ]);
    match draw.below(8) {
        0 => draw.unset_or_huge(),
        _ => inhouse_str { data: text.as_ptr().cast(), len: text.len() },
    }
}

fn index_params(
    draw: &mut Draw,
    handles: &Handles,
    paths: &[inhouse_str; 2],
    scratch: &Scratch,
    told: &mut Told,
) -> inhouse_index_params {
    let list = |draw: &mut Draw| match draw.below(6) {
        0 => (ptr::null(), draw.number() as usize),
        1 => (paths.as_ptr().wrapping_byte_add(1), draw.number() as usize),
        2 => (paths.as_ptr(), usize::MAX - draw.below(100)),
        _ => (paths.as_ptr(), draw.below(3)),
    };
    let (sources, n_sources) = list(draw);
    let (search_paths, n_search_paths) = if draw.below(4) == 0 { list(draw) } else { (ptr::null(), 0) };
    let size = size_of::<inhouse_index_params>();
    let cancel = handles.any(draw);
    inhouse_index_params {
        struct_size: draw.one(&[0, 7, size, size, size, size]),
        cancel: draw.one(&[ptr::null(), ptr::null(), cancel]),
        on_progress: draw.one(&[None, Some(on_progress as _)]),
        user_data: (&raw mut *told).cast(),
        sources,
        n_sources,
        search_paths,
        n_search_paths,
        threads: draw.one(&[0, 1, 1, u32::MAX]),
        include_private: draw.one(&[0, 0, 1, 2]),
        prune: draw.one(&[0, 0, 1, -1]),
        reserved: draw.one(&[0, 0, 0, 1]),
        encoder: match draw.below(4) {
            0 => path(draw, scratch),
            1 => draw.text(),
            _ => inhouse_str { data: ptr::null(), len: 0 },
        },
    }
}

fn evaluate_params(
    draw: &mut Draw,
    handles: &Handles,
    ks: &[u64; 3],
    scratch: &Scratch,
) -> inhouse_evaluate_params {
    let size = size_of::<inhouse_evaluate_params>();
    let cancel = handles.any(draw);
    let (k, n_k) = match draw.below(5) {
        0 => (ptr::null(), draw.number() as usize),
        1 => (ks.as_ptr().wrapping_byte_add(4), draw.number() as usize),
        2 => (ks.as_ptr(), usize::MAX - draw.below(100)),
        _ => (ks.as_ptr(), draw.below(4)),
    };
    // Nothing that could be started: the fuzz is of the border, not of the sandbox.
    let none = inhouse_str { data: c"/no/such/evald".as_ptr(), len: 14 };
    inhouse_evaluate_params {
        struct_size: draw.one(&[0, 7, size, size, size, size]),
        cancel: draw.one(&[ptr::null(), ptr::null(), cancel]),
        on_progress: None,
        user_data: ptr::null_mut(),
        socket: draw.one(&[inhouse_str { data: ptr::null(), len: 0 }, none]),
        evald: none,
        env: draw.text(),
        tier: draw.text(),
        rows: path(draw, scratch),
        k,
        n_k,
        timeout_seconds: f64::from_bits(draw.next()),
        limits: draw.text(),
        trust: draw.text(),
    }
}

/// Paths in a folder of the test's own.
#[derive(Clone, Copy)]
struct Scratch {
    /// An apis.jsonl.
    rows: &'static str,
    /// An index.
    index: &'static str,
    /// A name that calls may write to.
    new: &'static str,
    /// A text encoder's folder.
    encoder: &'static str,
}

/// What callbacks have been told, and when they have heard enough.
#[derive(Default)]
struct Told {
    calls: usize,
    enough: usize,
}

unsafe extern "C" fn on_progress(user_data: *mut c_void, progress: *const inhouse_progress) -> i32 {
    // SAFETY: `index_params` passes a value that outlives the call, and the library a whole struct.
    let (told, progress) = unsafe { (&mut *user_data.cast::<Told>(), *progress) };
    assert!(!progress.text.data.is_null());
    told.calls += 1;
    i32::from(told.calls == told.enough)
}

unsafe extern "C" fn on_log(_user_data: *mut c_void, record: *const inhouse_log_record) {
    // SAFETY: the library passes a whole struct.
    let record = unsafe { *record };
    assert!(!record.message.data.is_null() && !record.target.data.is_null());
}

#[test]
fn random_calls_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_engine(&dir.path().join("index"));
    let scratch = scratch(dir.path());
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let encoder = open_encoder(scratch.encoder);
    let mut handles = Handles(vec![engine.addr()]);
    let mut seen = std::collections::BTreeMap::new();
    for round in 0..rounds() {
        if handles.0.len() >= 64 {
            // Live and stale handles alike are dropped; freeing a stale one is answered, too.
            for handle in handles.0.drain(1..) {
                let handle = ptr::without_provenance_mut::<u8>(handle);
                inhouse_apis_free(handle.cast());
                inhouse_cancel_free(handle.cast());
                inhouse_text_free(handle.cast());
                inhouse_error_free(handle.cast());
                inhouse_session_close(handle.cast());
                inhouse_completion_free(handle.cast());
                inhouse_vectors_free(handle.cast());
            }
        }
        let mut error = Place::<inhouse_error>::new();
        let (error_place, error_good) = error.draw(&mut draw);
        // Files are slow: one call in 200.
        let status = match draw.below(200) {
            0 => file_call(&mut draw, &mut handles, engine, &scratch, error_place),
            _ => call(&mut draw, &mut handles, engine, encoder, error_place),
        };
        *seen.entry(status as i32).or_insert(0usize) += 1;
        assert_ne!(status, inhouse_status::INHOUSE_STATUS_PANIC, "round {round}");
        assert_ne!(status, inhouse_status::INHOUSE_STATUS_INTERNAL, "round {round}");
        if error_good && error.room[0] != ptr::dangling_mut() && !error.room[0].is_null() {
            assert_eq!(inhouse_error_status(error.room[0]), status, "round {round}");
            assert!(inhouse_error_message(error.room[0]).len > 0);
            if draw.below(2) == 0 {
                handles.keep(error.room[0]);
            } else {
                assert_eq!(inhouse_error_free(error.room[0]), inhouse_status::INHOUSE_STATUS_OK);
            }
        }
    }
    println!("{} calls by status: {seen:?}", seen.values().sum::<usize>());
    // The calls reached further than the first check, and the engine is none the worse.
    for expected in [0, 1, 2, 7, 100] {
        assert!(seen.get(&expected).is_some_and(|&n| n > 20), "{seen:?}");
    }
    let mut apis = ptr::null_mut();
    // SAFETY: `out` is a local, the query static text.
    let status = unsafe {
        inhouse_engine_retrieve(
            engine,
            inhouse_str_of(c"open the ledger".as_ptr()),
            1,
            &mut apis,
            ptr::null_mut(),
        )
    };
    assert_eq!((status, inhouse_apis_count(apis)), (inhouse_status::INHOUSE_STATUS_OK, 1));
    assert_eq!(inhouse_apis_free(apis), inhouse_status::INHOUSE_STATUS_OK);
    assert_eq!(inhouse_engine_release(engine), inhouse_status::INHOUSE_STATUS_OK);
    assert_eq!(inhouse_encoder_free(encoder), inhouse_status::INHOUSE_STATUS_OK);
}

/// Paths that live as long as the test.
fn scratch(dir: &std::path::Path) -> Scratch {
    let path = |name: &str| -> &'static str { dir.join(name).to_str().unwrap().to_owned().leak() };
    let scratch = Scratch {
        rows: path("apis.jsonl"),
        index: path("other"),
        new: path("new"),
        encoder: concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/bert"),
    };
    let row = "{\"name\": \"merge\", \"qualified_name\": \"ledgers.merge\", \"description\": \"Merges.\"}\n";
    std::fs::write(scratch.rows, row).unwrap();
    scratch
}

/// One call that reads or writes files.
fn file_call(
    draw: &mut Draw,
    handles: &mut Handles,
    engine: *mut inhouse_engine,
    scratch: &Scratch,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let mut told = Told { calls: 0, enough: draw.below(6) };
    let paths = [path(draw, scratch), path(draw, scratch)];
    let target = path(draw, scratch);
    let mut out = Place::<inhouse_text>::new();
    let (place, good) = out.draw(draw);
    // SAFETY: as in `call`.
    unsafe {
        let params = index_params(draw, handles, &paths, scratch, &mut told);
        let misaligned = (&raw const params).wrapping_byte_add(1);
        let params =
            draw.one(&[ptr::null(), misaligned, &raw const params, &raw const params, &raw const params]);
        let status = match draw.below(8) {
            0 => inhouse_index_build(target, params, place, error),
            1 => inhouse_index_update(target, params, place, error),
            2 => inhouse_docs_read(target, params, place, error),
            3 => inhouse_index_info(target, place, error),
            4 => {
                let ks = [1, draw.number(), 3];
                let params = evaluate_params(draw, handles, &ks, scratch);
                let params = draw.one(&[ptr::null(), &raw const params, &raw const params]);
                // Never the defaults with sound texts: they would start a sandbox.
                match draw.below(2) {
                    0 => inhouse_evaluate(draw.text(), draw.text(), params, place, error),
                    _ => {
                        inhouse_evaluate_files(path(draw, scratch), path(draw, scratch), params, place, error)
                    }
                }
            }
            5 => {
                let session = handles.any::<inhouse_session>(draw);
                let mut n = [7usize; 2];
                let count = n.as_mut_ptr();
                let count = draw.one(&[ptr::null_mut(), count.wrapping_byte_add(3), count, count]);
                return match draw.below(2) {
                    0 => inhouse_session_save_prefixes(session, target, error),
                    _ => inhouse_session_load_prefixes(session, target, count, error),
                };
            }
            6 => {
                let mut fresh = Place::<inhouse_encoder>::new();
                let (place, good) = fresh.draw(draw);
                let status = inhouse_encoder_open(target, place, error);
                check_out(status, &fresh, good);
                if good && !fresh.room[0].is_null() {
                    assert_eq!(inhouse_encoder_free(fresh.room[0]), inhouse_status::INHOUSE_STATUS_OK);
                    handles.keep(fresh.room[0]);
                }
                return status;
            }
            _ => {
                let mut fresh = Place::<inhouse_engine>::new();
                let (place, good) = fresh.draw(draw);
                let engine = near(engine, handles, draw);
                let status = inhouse_engine_with_index(engine, target, place, error);
                check_out(status, &fresh, good);
                if good && !fresh.room[0].is_null() {
                    assert_eq!(inhouse_engine_release(fresh.room[0]), inhouse_status::INHOUSE_STATUS_OK);
                    handles.keep(fresh.room[0]);
                }
                return status;
            }
        };
        if !place.is_null() {
            check_out(status, &out, good);
        }
        if good && !out.room[0].is_null() && !place.is_null() {
            handles.keep(out.room[0]);
        }
        status
    }
}

/// The handle two times out of three, else any.
fn near<H>(handle: *mut H, handles: &Handles, draw: &mut Draw) -> *mut H {
    let any = handles.any(draw);
    draw.one(&[handle, handle, any])
}

/// One call on a text encoder, or on vectors.
unsafe fn encoder_call(
    draw: &mut Draw,
    handles: &mut Handles,
    encoder: *mut inhouse_encoder,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let texts = [draw.text(), draw.text()];
    let (texts, n) = match draw.below(6) {
        0 => (ptr::null(), draw.number() as usize),
        1 => (texts.as_ptr().wrapping_byte_add(1), draw.number() as usize),
        2 => (texts.as_ptr(), usize::MAX - draw.below(100)),
        _ => (texts.as_ptr(), draw.below(3)),
    };
    // SAFETY: as in `call`.
    unsafe {
        match draw.below(4) {
            0 => {
                let mut out = Place::<inhouse_text>::new();
                let (place, good) = out.draw(draw);
                let status = inhouse_encoder_info(near(encoder, handles, draw), place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    handles.keep(out.room[0]);
                }
                status
            }
            1 => {
                let vectors = handles.any::<inhouse_vectors>(draw);
                let (n, dim) = (inhouse_vectors_count(vectors), inhouse_vectors_dim(vectors));
                for idx in [0, 1, n, usize::MAX] {
                    let row = inhouse_vectors_row(vectors, idx);
                    assert_eq!(row.is_null(), idx >= n);
                    assert!(row.is_null() || (*row.add(dim - 1)).is_finite());
                }
                // Made-up handles may be the encoder's: that one must live.
                match handles.any::<inhouse_encoder>(draw) {
                    any if any != encoder && draw.below(2) == 0 => inhouse_encoder_free(any),
                    _ => inhouse_vectors_free(vectors),
                }
            }
            _ => {
                let number = draw.number() as i32;
                let (role, cancel) = (draw.one(&[1, 2, 1, 2, number]), handles.any(draw));
                let cancel = draw.one(&[ptr::null_mut(), ptr::null_mut(), cancel]);
                let mut out = Place::<inhouse_vectors>::new();
                let (place, good) = out.draw(draw);
                let encoder = near(encoder, handles, draw);
                let status = inhouse_encoder_encode(encoder, role, texts, n, cancel, place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    assert_eq!(inhouse_vectors_count(out.room[0]), n);
                    handles.keep(out.room[0]);
                }
                status
            }
        }
    }
}

/// One call. The engine's own handle is only released where it was retained.
fn call(
    draw: &mut Draw,
    handles: &mut Handles,
    engine: *mut inhouse_engine,
    encoder: *mut inhouse_encoder,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let idx = draw.one(&[0, 1, 2, usize::MAX]);
    // SAFETY: pointers are null, misaligned, or to live memory of the stated length (see the file's head); handles may
    // be anything.
    unsafe {
        match draw.below(17) {
            0 => {
                let texts = [draw.text(), draw.text(), draw.text()];
                let params = engine_params(draw, &texts);
                let misaligned = (&raw const params).wrapping_byte_add(1);
                let params = draw.one(&[ptr::null(), misaligned, &raw const params, &raw const params]);
                let mut out = Place::new();
                let (place, good) = out.draw(draw);
                let status = inhouse_engine_open(params, place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    assert_eq!(inhouse_engine_release(out.room[0]), inhouse_status::INHOUSE_STATUS_OK);
                    handles.keep(out.room[0]);
                }
                status
            }
            1 => {
                let mut room = [0xaau8; 4096 + 16];
                let base = room.as_mut_ptr().wrapping_add(room.as_ptr().align_offset(8));
                let size = draw.number() as usize;
                let at = draw.one(&[ptr::null_mut(), base, base.wrapping_add(4), base]);
                let size = draw.one(&[size, 128, 136, 4096]);
                match draw.below(5) {
                    0 => inhouse_engine_params_init(at.cast(), size),
                    1 => inhouse_session_params_init(at.cast(), size),
                    2 => inhouse_index_params_init(at.cast(), size),
                    3 => inhouse_evaluate_params_init(at.cast(), size),
                    _ => inhouse_complete_params_init(at.cast(), size),
                }
            }
            2 => {
                let (engine, mut out) = (near(engine, handles, draw), Place::new());
                let (place, good) = out.draw(draw);
                let status =
                    inhouse_engine_retrieve(engine, draw.text(), draw.number() as usize, place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    handles.keep(out.room[0]);
                }
                status
            }
            3 => {
                let (engine, mut out) = (near(engine, handles, draw), Place::new());
                let (place, good) = out.draw(draw);
                let status = inhouse_engine_info(engine, place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    handles.keep(out.room[0]);
                }
                status
            }
            4 => {
                let session = inhouse_session_params {
                    struct_size: draw.one(&[0, 16, 16, 17, 4096 + 8]),
                    n_sequences: draw.number() as u32,
                    reserved: draw.one(&[0, 0, 1]),
                };
                let (engine, mut out) = (near(engine, handles, draw), Place::<inhouse_session>::new());
                let (place, good) = out.draw(draw);
                let status =
                    inhouse_session_open(engine, draw.one(&[ptr::null(), &raw const session]), place, error);
                check_out(status, &out, good);
                status
            }
            5 => {
                let texts = [draw.text(), draw.text(), draw.text()];
                let params = complete_params(draw, handles, &texts);
                let params =
                    draw.one(&[ptr::null(), &raw const params, (&raw const params).wrapping_byte_add(2)]);
                let mut out = Place::<inhouse_completion>::new();
                let (place, good) = out.draw(draw);
                let status = inhouse_session_complete(handles.any(draw), draw.text(), params, place, error);
                check_out(status, &out, good);
                status
            }
            6 => {
                let mut out = Place::new();
                let (place, good) = out.draw(draw);
                let status = inhouse_cancel_new(place, error);
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    handles.keep(out.room[0]);
                }
                status
            }
            7 => {
                let cancel = handles.any::<inhouse_cancel>(draw);
                inhouse_cancel_is_set(cancel);
                draw.one(&[inhouse_cancel_set, inhouse_cancel_reset])(cancel)
            }
            8 => {
                let apis = handles.any::<inhouse_apis>(draw);
                for view in [
                    inhouse_apis_name(apis, idx),
                    inhouse_apis_qualified_name(apis, idx),
                    inhouse_apis_signature(apis, idx),
                    inhouse_apis_description(apis, idx),
                    inhouse_apis_label(apis, idx),
                    inhouse_apis_json(apis, idx),
                ] {
                    assert_eq!(view.data.is_null(), idx >= inhouse_apis_count(apis));
                    assert!(view.data.is_null() || *view.data.add(view.len) == 0);
                }
                assert!(inhouse_apis_score(apis, idx).is_finite());
                if draw.below(4) == 0 { inhouse_apis_free(apis) } else { inhouse_status::INHOUSE_STATUS_OK }
            }
            9 => {
                let completion = handles.any::<inhouse_completion>(draw);
                assert_eq!(inhouse_completion_count(completion), 0);
                assert!(inhouse_completion_text(completion, idx).data.is_null());
                assert!(inhouse_completion_prompt(completion).data.is_null());
                assert_eq!(inhouse_completion_tokens(completion, idx), 0);
                assert_eq!(inhouse_completion_prompt_tokens_shared(completion), 0);
                let mut n = [7usize; 2];
                let count = n.as_mut_ptr();
                let place = draw.one(&[ptr::null_mut(), count, count.wrapping_byte_add(1)]);
                assert!(inhouse_completion_log_probabilities(completion, idx, place).is_null());
                assert_eq!(n, [if place == count { 0 } else { 7 }, 7]);
                let mut text = Place::<inhouse_text>::new();
                let (place, good) = text.draw(draw);
                check_out(inhouse_completion_json(completion, place, error), &text, good);
                assert_eq!(inhouse_completion_prompt_tokens(completion), 0);
                assert_eq!(inhouse_completion_context_truncated(completion), 0);
                assert_eq!(inhouse_completion_prefill_seconds(completion), 0.0);
                assert_eq!(inhouse_completion_decode_seconds(completion), 0.0);
                let unknown = inhouse_finish_reason::INHOUSE_FINISH_UNKNOWN;
                assert_eq!(inhouse_completion_finish_reason(completion, idx), unknown);
                let mut out = Place::<inhouse_apis>::new();
                let (place, good) = out.draw(draw);
                let status = inhouse_completion_apis(completion, place, error);
                check_out(status, &out, good);
                status
            }
            10 => {
                let handle = handles.any::<inhouse_engine>(draw);
                // Where it is the engine, it is held once more first, so that the release is not the last.
                let held = inhouse_engine_retain(handle);
                let released = inhouse_engine_release(handle);
                assert!(held == released || handle.is_null());
                released
            }
            11 | 12 => {
                let (engine, mut out) = (near(engine, handles, draw), Place::<inhouse_apis>::new());
                let (place, good) = out.draw(draw);
                let (first, second) = (handles.any(draw), handles.any(draw));
                let chosen = [0, idx, 1, 0];
                let indices = chosen.as_ptr();
                let indices = draw.one(&[ptr::null(), indices.wrapping_byte_add(1), indices, indices]);
                let n = draw.one(&[0, 1, 2, 4, usize::MAX, 10_001]);
                let n = if indices == chosen.as_ptr() && n == 10_001 { 4 } else { n };
                let status = match draw.below(4) {
                    0 | 1 => {
                        let (context, query) = (draw.text(), draw.text());
                        inhouse_engine_propose(engine, context, query, draw.number() as usize, place, error)
                    }
                    2 => inhouse_apis_select(first, indices, n, place, error),
                    _ => inhouse_apis_join(first, second, place, error),
                };
                check_out(status, &out, good);
                // Joined lists grow; those that are small stay.
                if good && !out.room[0].is_null() {
                    if inhouse_apis_count(out.room[0]) < 16 {
                        handles.keep(out.room[0]);
                    } else {
                        assert_eq!(inhouse_apis_free(out.room[0]), inhouse_status::INHOUSE_STATUS_OK);
                    }
                }
                status
            }
            13 => {
                let (engine, mut out) = (near(engine, handles, draw), Place::<inhouse_text>::new());
                let (place, good) = out.draw(draw);
                let status = match draw.below(3) {
                    0 => inhouse_query_of_context(draw.text(), place, error),
                    1 => inhouse_engine_api_report(engine, draw.text(), draw.text(), place, error),
                    _ => inhouse_session_info(handles.any(draw), place, error),
                };
                check_out(status, &out, good);
                if good && !out.room[0].is_null() {
                    handles.keep(out.room[0]);
                }
                status
            }
            14 => encoder_call(draw, handles, encoder, error),
            15 => {
                let level = draw.one(&[0, 1, 5, 6, -1, i32::MAX, i32::MIN]);
                inhouse_log_set(level, draw.one(&[None, Some(on_log as _)]), ptr::null_mut(), error)
            }
            _ => {
                let text = handles.any::<inhouse_text>(draw);
                inhouse_text_view(text);
                inhouse_error_message(handles.any(draw));
                inhouse_error_status(handles.any(draw));
                inhouse_status_name(draw.number() as i32);
                match draw.below(4) {
                    0 => inhouse_text_free(text),
                    1 => inhouse_session_close(handles.any(draw)),
                    2 => inhouse_completion_free(handles.any(draw)),
                    _ => inhouse_session_close(ptr::null_mut()),
                }
            }
        }
    }
}

/// A failed call leaves NULL where it could write, and one that succeeded a handle.
fn check_out<H>(status: inhouse_status, out: &Place<H>, good: bool) {
    if good {
        assert_eq!(out.room[0].is_null(), status != inhouse_status::INHOUSE_STATUS_OK);
    }
    assert_eq!(out.room[1], ptr::dangling_mut());
}
