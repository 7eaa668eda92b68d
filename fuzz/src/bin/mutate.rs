//! Runs fuzz targets on a stable toolchain: `mutate TARGET SECONDS [SEEDS...]`. Inputs are seeds, cut, joined and changed at
//! random; no coverage leads them, so this finds less than libFuzzer in the same time. Each input is written to
//! `fuzz/failures/TARGET` before it runs, and stays there when the process ends in it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inhouse_fuzz::TARGETS;
use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const MAX_BYTES: usize = 64 << 10;

/// What grammars turn on.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    ".",
    "=",
    "*",
    "**",
    "/",
    "->",
    "@",
    ";",
    "\\",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "    ",
    "\u{c}",
    "'",
    "\"",
    "'''",
    "\"\"\"",
    "f'{",
    "rb'",
    "#",
    "#:",
    "lambda ",
    "not ",
    "-",
    "await ",
    "class C(",
    "def f(",
    "async ",
    "import ",
    "from . import *\n",
    "__all__ = ",
    "if x:\n",
    "else:\n",
    "try:\n",
    "except E:\n",
    "match x:\n case ",
    "with a as b: ",
    "global x",
    "@property\n",
    "@overload\n",
    "TYPE_CHECKING",
    "Unpack[",
    "Optional[",
    "x if y else ",
    "%(x)s",
    "{x!r:>{y}}",
    ">>> ",
    "... ",
    "Parameters\n----------\n",
    ":param x: ",
    ".. ",
    "e.g. ",
    "é",
    "\u{0}",
    "\u{feff}",
    "0x",
    "1e999",
    "{\"name\": \"",
    "\"}",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: mutate TARGET SECONDS [SEED_FOLDER...]";
    let name = arguments.next().ok_or(usage)?;
    let seconds: u64 = arguments.next().ok_or(usage)?.parse()?;
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).ok_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        format!("no target `{name}` (there are {})", known.join(", "))
    })?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    folders.push(root.join("seeds"));
    let mut seeds = Vec::new();
    for folder in &folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                let mut bytes = std::fs::read(path)?;
                bytes.truncate(MAX_BYTES);
                seeds.push(bytes);
            }
        }
    }
    let failures = root.join("failures");
    std::fs::create_dir_all(&failures)?;
    let current = failures.join(&name);
    let mut random = ChaCha8Rng::seed_from_u64(seconds);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0u64;
    for seed in seeds.clone() {
        std::fs::write(&current, &seed)?;
        target(&seed);
        runs += 1;
    }
    while Instant::now() < end {
        let input = mutated(&seeds, &mut random);
        std::fs::write(&current, &input)?;
        target(&input);
        runs += 1;
    }
    std::fs::remove_file(&current)?;
    println!("{name}: {runs} inputs in {seconds} s, nothing found");
    Ok(())
}

fn mutated(seeds: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..12) {
        let at = random.random_range(0..=bytes.len());
        let to = (at + random.random_range(0..40)).min(bytes.len());
        let piece = PIECES[random.random_range(0..PIECES.len())].as_bytes();
        match random.random_range(0..7) {
            0 => drop(bytes.drain(at..to)),
            1 => drop(bytes.splice(at..at, piece.iter().copied())),
            2 => drop(bytes.splice(at..to, piece.iter().copied())),
            3 => {
                let times = 1 << random.random_range(0..13);
                let many = piece.repeat(times).into_iter().take(MAX_BYTES);
                drop(bytes.splice(at..at, many.collect::<Vec<_>>()));
            }
            4 => {
                let part = bytes[at..to].to_vec();
                let again = random.random_range(0..=bytes.len());
                drop(bytes.splice(again..again, part));
            }
            5 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => {}
        }
        bytes.truncate(MAX_BYTES);
    }
    bytes
}
