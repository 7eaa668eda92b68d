//! The wire, fuzzed: lines that are nearly requests, against the real parser and against a live daemon.
//!
//! `INHOUSE_FUZZ_SECONDS` makes each of the two go on for that long. The seed is printed; a round is made from it and its
//! number alone.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use evald::wire_line::{LineError, read_line};
use evald_proto::{Reply, Request, Verdict};

use crate::support::{Daemon, any_setting, run, wait_until};

/// What requests are made of.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00",
    "\\u",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.1",
    "\"op\"",
    "\"run\"",
    "\"hello\"",
    "\"cancel\"",
    "\"metrics\"",
    "\"id\"",
    "\"code\"",
    "\"test\"",
    "\"env\"",
    "\"limits\"",
    "\"cpu_ms\"",
    "\"wall_ms\"",
    "\"memory_bytes\"",
    "\"x\"",
    "\"py\"",
    " ",
    "\t",
    "\r",
    "\u{feff}",
    "\u{0}",
    "é",
    "\u{1f980}",
];

/// Whole requests, from which most lines begin.
const SEEDS: &[&str] = &[
    r#"{"op":"hello"}"#,
    r#"{"op":"metrics"}"#,
    r#"{"op":"cancel","id":"x"}"#,
    r#"{"op":"run","id":"x","code":"x = 1","test":"assert x == 1","limits":{"cpu_ms":500}}"#,
    r#"{"op":"run","id":"y","code":"raise ValueError('\u00e9')","test":"","env":"py","limits":{"memory_bytes":67108864,"files":32}}"#,
    r#"{"op":"run","id":"z","code":"x = 1","test":"","env":"nowhere"}"#,
];

/// xorshift64*, seeded per round.
struct Noise(u64);

impl Noise {
    fn of(seed: u64, round: u64) -> Self {
        Self((seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A line without its end: a request as it is, a damaged one, or words in a row.
    fn line(&mut self) -> Vec<u8> {
        let mut line = match self.below(8) {
            0 => (0..self.below(40)).map(|_| self.pick(WORDS)).collect::<String>().into_bytes(),
            1 => self.pick(&["[", "{\"a\":", "\"\\"]).repeat(self.below(3000)).into_bytes(),
            _ => self.pick(SEEDS).as_bytes().to_vec(),
        };
        for _ in 0..self.below(5) {
            let at = self.below(line.len() + 1);
            match self.below(6) {
                0 if at < line.len() => line[at] ^= 1 << self.below(8),
                1 => line.truncate(at),
                2 => drop(line.splice(at..at, self.pick(WORDS).bytes())),
                3 if at < line.len() => drop(line.remove(at)),
                4 => {
                    let other = self.below(line.len() + 1);
                    let piece = line[at.min(other)..at.max(other)].to_vec();
                    line.splice(at..at, piece);
                }
                _ => {
                    let other = self.pick(SEEDS).as_bytes();
                    line.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
        line.retain(|byte| *byte != b'\n');
        line
    }
}

fn seed() -> u64 {
    let given = std::env::var("INHOUSE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |at| at.as_nanos() as u64)
    };
    given.unwrap_or_else(now)
}

fn end() -> Instant {
    let seconds =
        std::env::var("INHOUSE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    Instant::now() + Duration::from_secs(seconds)
}

/// The reader splits a stream into exactly its lines however it is cut up, and what the parser takes, it writes back to the
/// same request.
#[test]
fn no_line_breaks_the_parser() {
    let (seed, end) = (seed(), end());
    let (mut rounds, mut lines, mut requests, mut refused, mut not_utf8) = (0u64, 0u64, 0u64, 0u64, 0u64);
    while rounds < 3_000 || Instant::now() < end {
        rounds += 1;
        let mut noise = Noise::of(seed, rounds);
        let sent: Vec<Vec<u8>> = (0..=noise.below(6)).map(|_| noise.line()).collect();
        let whole = noise.below(4) > 0;
        let mut stream = sent.join(&b'\n');
        if whole {
            stream.push(b'\n');
        }
        let mut reader = BufReader::with_capacity(1 + noise.below(64), stream.as_slice());
        for (at, want) in sent.iter().enumerate() {
            lines += 1;
            let context =
                || format!("seed {seed}, round {rounds}, line {at}: {:?}", String::from_utf8_lossy(want));
            match read_line(&mut reader, &mut |_| true) {
                Ok(Some(line)) => {
                    assert!(line.as_bytes() == want, "{}", context());
                    match serde_json::from_str::<Request>(&line) {
                        Ok(request) => {
                            requests += 1;
                            let again = serde_json::to_string(&request).expect("a request can be written");
                            let again = serde_json::from_str::<Request>(&again).ok();
                            assert!(again.as_ref() == Some(&request), "{}", context());
                        }
                        Err(_) => refused += 1,
                    }
                }
                Err(LineError::NotUtf8) => {
                    assert!(std::str::from_utf8(want).is_err(), "{}", context());
                    not_utf8 += 1;
                    break;
                }
                Err(LineError::Cut) => {
                    assert!(!whole && at + 1 == sent.len() && !want.is_empty(), "{}", context());
                    break;
                }
                Ok(None) => {
                    assert!(!whole && at + 1 == sent.len() && want.is_empty(), "{}", context());
                    break;
                }
                Err(error) => panic!("{}: {error}", context()),
            }
        }
    }
    println!(
        "seed {seed}: {rounds} streams, {lines} lines: {requests} requests, {refused} refused, {not_utf8} not UTF-8"
    );
    assert!(requests > 0 && refused > 0 && not_utf8 > 0);
}

/// A live daemon answers every line with well-formed replies, then hangs up when its client does; nothing is left over.
#[test]
fn no_line_harms_a_live_daemon() {
    let Some(setting) = any_setting() else { return };
    let (seed, end) = (seed(), end());
    let daemon = Daemon::start(setting);
    assert_eq!(run(&mut daemon.client(), "x = 1", "").verdict, Verdict::Passed);
    let idle = daemon.descendants().len();
    wait_until("the first client has gone", || connections(&daemon) == 1);
    let (files, memory) = (daemon.open_files(), daemon.resident_kib());
    let (mut rounds, mut lines, mut verdicts, mut errors, mut others) = (0u64, 0u64, 0u64, 0u64, 0u64);
    while rounds < 60 || Instant::now() < end {
        rounds += 1;
        let mut noise = Noise::of(seed, rounds);
        let count = 1 + noise.below(40);
        let sent: Vec<Vec<u8>> = (0..count).map(|_| noise.line()).collect();
        let stream = UnixStream::connect(&daemon.socket).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        let mut answered = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // It may have hung up by now, on a line that is not UTF-8.
                (&stream).write_all(&sent.join(&b'\n')).ok();
                if rounds % 2 == 0 {
                    (&stream).write_all(b"\n").ok();
                }
                if rounds % 5 > 0 {
                    stream.shutdown(Shutdown::Write).ok();
                } else {
                    // Gone in the middle of everything.
                    stream.shutdown(Shutdown::Both).ok();
                }
            });
            for line in BufReader::new(&stream).split(b'\n') {
                let line = match line {
                    Ok(line) => line,
                    Err(error) => {
                        let reset = error.kind() == std::io::ErrorKind::ConnectionReset;
                        assert!(reset, "seed {seed}, round {rounds}: {error}");
                        break;
                    }
                };
                answered += 1;
                match serde_json::from_slice::<Reply>(&line) {
                    Ok(Reply::Verdict(_)) => verdicts += 1,
                    Ok(Reply::Error { .. }) => errors += 1,
                    Ok(_) => others += 1,
                    Err(error) if rounds % 5 == 0 => drop(error),
                    Err(error) => {
                        panic!("seed {seed}, round {rounds}: {error}: {}", String::from_utf8_lossy(&line));
                    }
                }
            }
        });
        lines += count as u64;
        assert!(answered <= count, "seed {seed}, round {rounds}: {answered} replies to {count} lines");
        if rounds % 20 == 0 {
            assert_eq!(
                run(&mut daemon.client(), "x = 1", "").verdict,
                Verdict::Passed,
                "seed {seed}, round {rounds}"
            );
        }
    }
    wait_until("all clients have gone", || connections(&daemon) == 1);
    wait_until("all samples have ended", || daemon.descendants().len() == idle);
    let after = daemon.resident_kib();
    println!(
        "seed {seed}: {rounds} connections, {lines} lines: {verdicts} verdicts, {errors} errors, {others} others; {memory} -> {after} KiB"
    );
    wait_until("all descriptors are closed", || daemon.open_files() <= files);
    assert!(after < memory + (16 << 10), "seed {seed}: {memory} KiB -> {after} KiB");
    assert!(verdicts > 0 && errors > 0 && others > 0);
}

/// Open connections, the asking one included.
fn connections(daemon: &Daemon) -> usize {
    let text = daemon.client().metrics().expect("metrics");
    let value = text.lines().find_map(|line| line.strip_prefix("evald_connections "));
    value.and_then(|value| value.parse().ok()).expect("a number")
}
