//! Both ends in one process, over a socket pair, with a toy for a model. Real processes and models: tests/all/worker.rs.

mod fuzz;
mod toy;

use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inhouse_core::decode::{
    CancelToken, Decoder, DecoderOptions, Feed, Generation, Model, Request, SamplingParams, StopRules,
    generate,
};
use inhouse_core::{ErrorKind, Result};
use toy::Toy;

use crate::connection::Connection;
use crate::message::Load;
use crate::model::RemoteModel;

fn load() -> Load {
    Load::new("toy", 0)
}

/// Serves a toy at the other end of the stream.
fn worker() -> (UnixStream, JoinHandle<Result<()>>) {
    let (host, worker) = UnixStream::pair().unwrap();
    (host, std::thread::spawn(move || crate::serve(worker, |path, _| Toy::load(path))))
}

fn remote(host: UnixStream) -> Arc<dyn Model> {
    Arc::new(RemoteModel::load(Connection::open(host, None).unwrap(), Path::new("toy"), &load()).unwrap())
}

fn options(sequences: usize) -> DecoderOptions {
    DecoderOptions { sequences, ..DecoderOptions::default() }
}

fn samples(model: &Arc<dyn Model>, seed: u64) -> Generation {
    let mut decoder = Arc::clone(model).decoder(&options(4)).unwrap();
    let request = Request {
        prompt: model.tokenizer().encode("load the ledger").unwrap(),
        n: 7,
        params: SamplingParams::default(),
        seed,
        max_tokens: 30,
        stops: StopRules::none(),
        ends: Vec::new(),
        silent: Vec::new(),
        log_probabilities: true,
        constraint: None,
        healed: 0,
        greedy_first: false,
    };
    let mut on_event = |_: inhouse_core::decode::Event<'_>| ControlFlow::Continue(());
    generate(decoder.as_mut(), model.tokenizer(), &request, &CancelToken::new(), &mut on_event).unwrap()
}

#[test]
fn samples_are_those_of_the_model_itself_on_many_threads() {
    let (host, served) = worker();
    let (local, remote) = (Toy::load(Path::new("toy")).unwrap(), remote(host));
    assert_eq!((local.info(), local.conventions()), (remote.info(), remote.conventions()));
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (local, remote) = (&local, &remote);
            scope.spawn(move || {
                for seed in (0..5).map(|i| seed + 10 * i) {
                    assert_eq!(samples(local, seed).completions, samples(remote, seed).completions);
                }
            });
        }
    });
    drop(remote);
    served.join().unwrap().unwrap();
}

/// Whatever is done to a decoder, both say the same: lengths, logits, kinds of errors.
#[test]
fn a_remote_decoder_does_what_the_decoder_does() {
    let (host, _served) = worker();
    let (local, remote) = (Toy::load(Path::new("toy")).unwrap(), remote(host));
    let mut random = toy::Random(7);
    for _ in 0..20 {
        let (mut a, mut b) = (
            Arc::clone(&local).decoder(&options(5)).unwrap(),
            Arc::clone(&remote).decoder(&options(5)).unwrap(),
        );
        assert_eq!((a.max_sequences(), a.context_length()), (b.max_sequences(), b.context_length()));
        let mut saved = Vec::new();
        for _ in 0..200 {
            // One past the end now and then.
            let (seq, other) = (random.below(21) as u32 / 4, random.below(21) as u32 / 4);
            let len = random.below(12);
            let outcome = |result: Result<()>| result.map_err(|error| error.kind());
            let cancel = CancelToken::new();
            match random.below(8) {
                0 => assert_eq!(outcome(a.fork(seq, other)), outcome(b.fork(seq, other))),
                1 | 2 => assert_eq!(outcome(a.rewind(seq, len)), outcome(b.rewind(seq, len))),
                3 => {
                    let (cells, remote) = (a.save(seq), b.save(seq));
                    assert_eq!(cells.as_ref().ok(), remote.as_ref().ok());
                    saved.extend(cells.ok().map(|cells| (cells, a.len(seq))));
                }
                4 if !saved.is_empty() => {
                    let (cells, len) = &saved[random.below(saved.len())];
                    let restore = |decoder: &mut dyn Decoder| outcome(decoder.restore(seq, *len, cells));
                    assert_eq!(restore(a.as_mut()), restore(b.as_mut()));
                }
                _ => {
                    let tokens: Vec<u32> = (0..1 + random.below(4))
                        .map(|_| random.below(70) as u32)
                        .filter(|token| *token != toy::PANIC)
                        .collect();
                    let feeds: Vec<Feed<'_>> = (0..=random.below(3) as u32)
                        .map(|i| Feed { seq: (seq + i) % 6, tokens: &tokens })
                        .collect();
                    let fed = outcome(a.feed(&feeds, &cancel));
                    assert_eq!(fed, outcome(b.feed(&feeds, &cancel)));
                    for i in 0..feeds.len() + 1 {
                        assert_eq!(a.logits(i).ok(), b.logits(i).ok(), "{fed:?}");
                    }
                }
            }
            (0..7).for_each(|seq| assert_eq!(a.len(seq), b.len(seq)));
        }
    }
}

#[test]
fn a_cancel_and_a_deadline_reach_a_long_feed() {
    let (host, _served) = worker();
    let remote = remote(host);
    let mut decoder = Arc::clone(&remote).decoder(&options(1)).unwrap();
    // A toy reads token 0 for a millisecond.
    let tokens = [0; 10_000];
    let begun = Instant::now();
    let token = CancelToken::new();
    let mut other = Arc::clone(&remote).decoder(&options(1)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            // Meanwhile another decoder is served.
            other.feed(&[Feed { seq: 0, tokens: &[1] }], &CancelToken::new()).unwrap();
            token.cancel();
        });
        let error = decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &token).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
    let token = CancelToken::new().with_deadline(Instant::now() + Duration::from_millis(30));
    let error = decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &token).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(decoder.len(0), 0);
    decoder.feed(&[Feed { seq: 0, tokens: &[0; 3] }], &CancelToken::new()).unwrap();
    assert_eq!(decoder.len(0), 3);
}

#[test]
fn a_host_that_hangs_up_ends_the_work() {
    let (host, served) = worker();
    let (model, begun) = (remote(host.try_clone().unwrap()), Instant::now());
    let mut decoder = model.decoder(&options(1)).unwrap();
    std::thread::spawn(move || decoder.feed(&[Feed { seq: 0, tokens: &[0; 10_000] }], &CancelToken::new()));
    std::thread::sleep(Duration::from_millis(30));
    host.shutdown(std::net::Shutdown::Both).unwrap();
    served.join().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_worker_that_is_gone_is_an_error_on_and_on() {
    let (host, served) = worker();
    let model = remote(host.try_clone().unwrap());
    let mut decoder = Arc::clone(&model).decoder(&options(1)).unwrap();
    host.shutdown(std::net::Shutdown::Both).unwrap();
    served.join().unwrap().unwrap();
    for _ in 0..3 {
        let feed = decoder.feed(&[Feed { seq: 0, tokens: &[1] }], &CancelToken::new());
        assert_eq!(feed.unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(model.tokenizer().encode("ledger").unwrap_err().kind(), ErrorKind::Backend);
        assert_eq!(Arc::clone(&model).decoder(&options(1)).err().unwrap().kind(), ErrorKind::Backend);
    }
}

#[test]
fn errors_and_panics_of_the_model_come_through() {
    let (host, _served) = worker();
    let error =
        RemoteModel::load(Connection::open(host, None).unwrap(), Path::new("none"), &load()).err().unwrap();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "no toy at none"));
    let (host, _served) = worker();
    let model = remote(host);
    let mut decoder = Arc::clone(&model).decoder(&options(1)).unwrap();
    let panic = decoder.feed(&[Feed { seq: 0, tokens: &[toy::PANIC] }], &CancelToken::new()).unwrap_err();
    assert!(panic.kind() == ErrorKind::Backend && panic.to_string().contains("panic"), "{panic}");
    let mut other = Arc::clone(&model).decoder(&options(1)).unwrap();
    other.feed(&[Feed { seq: 0, tokens: &[1] }], &CancelToken::new()).unwrap();
}
