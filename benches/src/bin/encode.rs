//! Times a text encoder, and an index with it, for `benches/peers/encode.py`:
//!
//!     encode texts ENCODER TEXTS_FILE BATCH ROUNDS
//!     encode queries INDEX TEXTS_FILE ROUNDS
//!
//! A text is a line of the file. Prints one JSON object: CPU seconds of each round over all texts (a round before them does not
//! count); of `queries` the wall seconds of every query, from its text to the hits.

use std::path::Path;
use std::time::Instant;

use inhouse::EncoderChoice;
use inhouse_core::decode::CancelToken;
use inhouse_core::encode::Role;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (file, rounds) = match words[..] {
        ["texts", _, file, _, rounds] | ["queries", _, file, rounds] => (file, rounds.parse::<usize>()?),
        _ => {
            return Err(
                "usage: encode texts ENCODER FILE BATCH ROUNDS | encode queries INDEX FILE ROUNDS".into()
            );
        }
    };
    let content = std::fs::read_to_string(file)?;
    let texts: Vec<&str> = content.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut cpu = Vec::new();
    let mut walls = Vec::new();
    if words[0] == "texts" {
        let encoder = inhouse::load_encoder(Path::new(words[1]))?;
        let batch = words[3].parse::<usize>()?.max(1);
        for _ in 0..=rounds {
            let before = inhouse_benches::cpu_seconds()?;
            for texts in texts.chunks(batch) {
                encoder.encode(Role::Query, texts, &CancelToken::new())?;
            }
            cpu.push(inhouse_benches::cpu_seconds()? - before);
        }
    } else {
        let index = inhouse::open_index(Path::new(words[1]), &EncoderChoice::OfIndex)?;
        for round in 0..=rounds {
            let before = inhouse_benches::cpu_seconds()?;
            for text in &texts {
                let start = Instant::now();
                index.search(&(*text).into(), 5)?;
                if round > 0 {
                    walls.push(start.elapsed().as_secs_f64());
                }
            }
            cpu.push(inhouse_benches::cpu_seconds()? - before);
        }
    }
    println!("{{\"texts\": {}, \"cpu\": {:?}, \"walls\": {walls:?}}}", texts.len(), &cpu[1..]);
    Ok(())
}
