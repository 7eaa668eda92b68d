//! Hostile bytes from either end: an error, never a panic, a hang or a large allocation.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inhouse_core::decode::{CancelToken, Feed, Model};

use super::toy::{Random, Toy};
use super::{load, options, worker};
use crate::connection::Connection;
use crate::model::RemoteModel;

/// What a host does in these tests; the first error ends it.
fn talk(host: UnixStream) -> inhouse_core::Result<()> {
    let connection = Connection::open(host, None)?;
    let model: Arc<dyn Model> = Arc::new(RemoteModel::load(connection, Path::new("toy"), &load())?);
    let tokens = model.tokenizer().encode("read the ledger")?;
    let mut decoder = Arc::clone(&model).decoder(&options(3))?;
    let cancel = CancelToken::new();
    decoder.feed(&[Feed { seq: 0, tokens: &tokens }], &cancel)?;
    decoder.fork(0, 1)?;
    decoder.rewind(1, 4)?;
    decoder.feed(&[Feed { seq: 0, tokens: &[3] }, Feed { seq: 1, tokens: &[4, 5] }], &cancel)?;
    assert_eq!(decoder.logits(1)?.len(), model.tokenizer().vocab_size());
    let cells = decoder.save(1)?;
    decoder.restore(2, cells.len(), &cells)?;
    Ok(())
}

/// What both ends say in such a talk: the host's bytes and the worker's.
fn record() -> (Vec<u8>, Vec<u8>) {
    let (worker, _served) = worker();
    let (host, ours) = UnixStream::pair().unwrap();
    let copy = |mut from: UnixStream, mut to: UnixStream| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&said);
        let copying = std::thread::spawn(move || {
            let mut buffer = [0; 1000];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                kept.lock().unwrap().extend(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            to.shutdown(std::net::Shutdown::Write).ok();
        });
        (said, copying)
    };
    let (hosts, a) = copy(ours.try_clone().unwrap(), worker.try_clone().unwrap());
    let (workers, b) = copy(worker, ours);
    talk(host).unwrap();
    a.join().unwrap();
    b.join().unwrap();
    let (hosts, workers) = (hosts.lock().unwrap().clone(), workers.lock().unwrap().clone());
    (hosts, workers)
}

/// Bytes changed, cut, doubled or made up.
fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at + 1),
            3 => drop(bytes.drain(at..(at + 1 + random.below(20)).min(bytes.len()))),
            4 => bytes.insert(at, random.next() as u8),
            5 => {
                let n = (1 + random.below(8)).min(bytes.len() - at);
                bytes[at..at + n].fill(if random.below(2) == 0 { 0xff } else { 0 });
            }
            _ => {
                let piece: Vec<u8> = bytes[at..(at + random.below(100)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Peak memory of this process in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_host_survives_any_worker() {
    let (_, said) = record();
    let mut random = Random(1);
    let mut whole = 0;
    for round in 0..500 {
        let (host, mut worker) = UnixStream::pair().unwrap();
        let mut bytes = match round {
            0 => said.clone(),
            _ if round % 10 == 1 => (0..random.below(300)).map(|_| random.next() as u8).collect(),
            _ => mutate(&said, &mut random),
        };
        let talking = std::thread::spawn(move || talk(host));
        // Answers before the questions would be answers to nobody: a piece at a time, as the host reads.
        worker.set_nonblocking(false).unwrap();
        worker.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut heard = [0; 4096];
        while !bytes.is_empty() && !talking.is_finished() {
            match worker.read(&mut heard) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => {
                    let n = piece(&bytes);
                    if worker.write_all(&bytes[..n]).is_err() {
                        break;
                    }
                    bytes.drain(..n);
                }
            }
        }
        drop(worker);
        whole += usize::from(talking.join().unwrap().is_ok());
    }
    assert!((1..100).contains(&whole), "{whole} talks were as if nothing had happened");
}

/// Length of the hello or frame that `bytes` begin with, as far as they go.
fn piece(bytes: &[u8]) -> usize {
    let number = |at: usize, n: usize| {
        let mut value = [0; 8];
        let there = bytes.get(at..at + n).unwrap_or_default();
        value[..there.len()].copy_from_slice(there);
        u64::from_le_bytes(value)
    };
    let length = match bytes.starts_with(b"INHOUSE") {
        true => 13 + number(12, 1),
        false => number(0, 4).saturating_add(number(8, 8)).saturating_add(16),
    };
    usize::try_from(length).unwrap_or(usize::MAX).clamp(1, bytes.len())
}

#[test]
fn a_worker_survives_any_host() {
    let (said, _) = record();
    let mut random = Random(2);
    let before = peak_kib();
    for round in 0..2000 {
        let (mut host, worker) = UnixStream::pair().unwrap();
        let bytes = match round % 10 {
            1 => (0..random.below(300)).map(|_| random.next() as u8).collect(),
            _ => mutate(&said, &mut random),
        };
        let served = std::thread::spawn(move || crate::serve(worker, |path, _| Toy::load(path)));
        let mut answers = host.try_clone().unwrap();
        let reading = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
        // A worker that has had enough hangs up.
        host.write_all(&bytes).ok();
        host.shutdown(std::net::Shutdown::Write).unwrap();
        // An error or none, but an end.
        drop(served.join().unwrap());
        host.shutdown(std::net::Shutdown::Both).ok();
        reading.join().unwrap().ok();
    }
    // Threads have stacks; 16 GiB that a frame promises would show.
    assert!(peak_kib() - before < 4 << 20, "{} KiB more", peak_kib() - before);
}
