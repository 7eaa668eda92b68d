//! Every entry point with arguments that the contract allows to be wrong, drawn at random: null, misaligned, stale and
//! foreign handles, sizes, lengths and numbers out of range, text that is not UTF-8. A status each time, never a crash.
//!
//! Pointers that are neither null nor misaligned always point to live memory of the stated length: that is the part
//! of the contract that a host must keep.
#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up must fail")]

use std::ffi::c_char;
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
        let data: *const c_char = text.as_ptr().cast();
        match self.below(8) {
            0 => inhouse_str { data: ptr::null(), len: 0 },
            1 => inhouse_str { data: ptr::null(), len: self.next() as usize | 1 },
            // Beyond every limit, so refused by its length alone.
            2 => inhouse_str { data, len: usize::MAX - self.below(4096) },
            3 => inhouse_str { data, len: INHOUSE_MAX_TEXT_BYTES + 1 },
            _ => inhouse_str { data, len: text.len() },
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

fn engine_params(draw: &mut Draw) -> inhouse_engine_params {
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
    }
}

#[test]
fn random_calls_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_engine(&dir.path().join("index"));
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
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
            }
        }
        let mut error = Place::<inhouse_error>::new();
        let (error_place, error_good) = error.draw(&mut draw);
        let status = call(&mut draw, &mut handles, engine, error_place);
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
        assert!(seen.get(&expected).is_some_and(|&n| n > 100), "{seen:?}");
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
}

/// The engine two times out of three, else any handle.
fn near(engine: *mut inhouse_engine, handles: &Handles, draw: &mut Draw) -> *mut inhouse_engine {
    let any = handles.any(draw);
    draw.one(&[engine, engine, any])
}

/// One call. The engine's own handle is only released where it was retained.
fn call(
    draw: &mut Draw,
    handles: &mut Handles,
    engine: *mut inhouse_engine,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let idx = draw.one(&[0, 1, 2, usize::MAX]);
    // SAFETY: pointers are null, misaligned, or to live memory of the stated length (see the file's head); handles may
    // be anything.
    unsafe {
        match draw.below(12) {
            0 => {
                let params = engine_params(draw);
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
                match draw.below(3) {
                    0 => inhouse_engine_params_init(at.cast(), size),
                    1 => inhouse_session_params_init(at.cast(), size),
                    _ => inhouse_complete_params_init(at.cast(), draw.one(&[size, 128, 136, 4096])),
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
