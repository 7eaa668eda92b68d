//! The pipeline as a whole, on made-up packages.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use inhouse_core::progress::Silent;
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use safetensors::SafeTensors;
use tokenizers::Tokenizer;

use super::*;

/// A package of documented functions, a class, and code that calls them.
fn package(folder: &Path, name: &str, things: &[&str]) {
    let root = folder.join(name);
    std::fs::create_dir_all(&root).unwrap();
    let verbs = [
        "gather", "split", "paint", "carry", "mend", "weigh", "polish", "stack", "rinse", "fold", "label",
        "trace",
    ];
    let mut text = format!("\"\"\"About {name}.\"\"\"\n\n\n");
    for (i, verb) in verbs.iter().enumerate() {
        let thing = things[i % things.len()];
        text.push_str(&format!(
            "def {name}_{verb}(rows, limit={i}, *, soft=False):\n    \"\"\"{} every {thing} of the {name} shelf number{i}.\"\"\"\n    return rows\n\n\n",
            super::names::capitalized(verb),
        ));
    }
    text.push_str(&format!(
        "class {}Shelf:\n    \"\"\"Keeps what the {name} makes.\"\"\"\n\n",
        super::names::capitalized(name)
    ));
    for verb in &verbs[..6] {
        text.push_str(&format!(
            "    def {verb}_all(self, box, deep=False):\n        \"\"\"{} all boxes with {verb} care, quickly.\"\"\"\n        return box\n\n",
            super::names::capitalized(verb),
        ));
    }
    std::fs::write(root.join("__init__.py"), text).unwrap();
    let mut code = format!("import {name} as lib\nfrom {name} import {name}_{} as helper\n\n\n", verbs[0]);
    for (i, verb) in verbs.iter().enumerate() {
        code.push_str(&format!(
            "def job_{i}(first_{i}, second):\n    # Do the {verb} job for {name} in step {i}\n    kept = lib.{name}_{verb}(first_{i}, limit={i})\n    \
             other = helper(kept, soft=second > {i})\n    return [kept, other, first_{i}]\n\n\n"
        ));
    }
    std::fs::write(root.join("jobs.py"), code).unwrap();
    let mut notes = String::new();
    for (i, verb) in verbs.iter().enumerate() {
        notes.push_str(&format!(
            "def note_{i}():\n    \"\"\"Says how.\n\n    Examples\n    --------\n    \
             Let us {verb} what the old {name} has on its board {i}:\n\n    \
             >>> board = list(range({i}))\n    >>> {name}.{name}_{verb}(board, soft=True)\n    [0, 1]\n    \"\"\"\n\n\n"
        ));
    }
    std::fs::write(root.join("notes.py"), notes).unwrap();
}

fn config(folder: &Path) -> DataConfig {
    let source = folder.join("source");
    package(&source, "loom", &["thread", "cloth", "hem"]);
    package(&source, "mill", &["grain", "sack", "stone", "wheel"]);
    package(&source, "kiln", &["pot", "glaze"]);
    let text = format!(
        "folders = [{}]\ncache = {:?}\nout = {:?}\nheld_out = [\"kiln\"]\nvocabulary = 600\nevaluation_tasks = 8\nevaluation_rows = 6\nnoise = 0.5\n\
         [[part]]\nname = \"short\"\ntokens = 4000\nrow_tokens = 160\nrepeats = 0.1\none = 0.5\nscript = 0.4\n\
         [[part]]\nname = \"full\"\ntokens = 12000\nrow_tokens = 384\nchoice = 0.4\ncode = 0.5\nplain = 0.1\nexample = 0.2\n",
        ["loom", "mill", "kiln"].map(|name| format!("{:?}", source.join(name))).join(", "),
        folder.join("cache"),
        folder.join("corpus"),
    );
    toml::from_str(&text).unwrap()
}

/// Ends the work at the n-th question whether to go on.
struct Killed {
    left: AtomicU64,
}

impl Progress for Killed {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn finish(&self) {}
    fn check(&self) -> Result<()> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Cancelled, "killed"))
        }
    }
}

/// The documents of all shards, decoded.
fn documents(out: &Path, manifest: &Manifest) -> Vec<String> {
    let tokenizer = Tokenizer::from_file(out.join(&manifest.tokenizer)).unwrap();
    let mut found = Vec::new();
    for shard in &manifest.shards {
        let bytes = std::fs::read(out.join(&shard.file)).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let numbers = |name: &str| -> Vec<u32> {
            let view = read.tensor(name).unwrap();
            let width = view.data().len() / view.shape()[0];
            view.data()
                .chunks(width)
                .map(|raw| raw.iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte)))
                .collect()
        };
        let (tokens, weights, starts) = (numbers("tokens"), numbers("weights"), numbers("starts"));
        assert_eq!((tokens.len(), weights.len()), (shard.tokens, shard.tokens));
        assert_eq!(
            (starts.len(), starts[0], *starts.last().unwrap() as usize),
            (shard.rows + 1, 0, shard.tokens)
        );
        for row in starts.windows(2) {
            let row = row[0] as usize..row[1] as usize;
            assert!(
                !row.is_empty()
                    && row.len() <= manifest.block_tokens
                    && tokens[row.end - 1] == 0
                    && weights[row.start] == 0
            );
            for document in tokens[row].split(|token| *token == 0).filter(|document| !document.is_empty()) {
                found.push(tokenizer.decode(document, false).unwrap());
            }
        }
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|other| other == word)
}

#[test]
fn the_same_seed_gives_the_same_corpus_also_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let whole = build(&config, &Silent).unwrap();
    assert_eq!(build(&config, &Silent).unwrap(), whole);
    let other = DataConfig { seed: 5, ..config.clone() };
    assert_ne!(build(&other, &Silent).unwrap().digest, whole.digest);
    let mut kills = 0;
    for left in 1.. {
        let killed = Killed { left: AtomicU64::new(left) };
        match build(&config, &killed) {
            Ok(manifest) => {
                assert_eq!(manifest, whole);
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled),
        }
        kills += 1;
        // What is there is whole: the last corpus.
        let text = files::read_text(&config.out.join("manifest.json")).unwrap();
        assert!(serde_json::from_str::<Manifest>(&text).is_ok());
    }
    assert!(kills > 2);
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".partial")), "{left:?}");
    assert!(
        std::fs::read_dir(&config.out).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.'))
    );
}

#[test]
fn nothing_of_a_held_out_library_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let manifest = build(&config, &Silent).unwrap();
    let found = documents(&config.out, &manifest);
    assert!(found.len() > 60);
    let learned = found.iter().filter(|text| text.contains("number3")).count();
    assert!(learned > 0, "descriptions of libraries to learn from are there");
    for text in &found {
        assert!(!text.contains("kiln"), "{text}");
    }
    let rows: Vec<TaskRow> =
        files::json_lines(&config.out.join("tasks.jsonl")).unwrap().map(|row| row.unwrap().1).collect();
    for kind in ["one", "two", "three", "five"] {
        assert_eq!(rows.iter().filter(|row| row.kind == kind).count(), 8, "{kind}");
    }
    for row in &rows {
        assert_eq!(row.library, "kiln");
        assert_eq!(row.prompt.split_once("# [end]\n").unwrap().1, row.prompt_no_api);
        assert!(
            row.prompt.contains(&format!("\n# {}(", row.name)) && has_word(&row.line, &row.name),
            "{row:?}"
        );
        assert!(!row.prompt_no_api.contains(&row.name), "{row:?}");
        // Names of evaluation are no names of training.
        assert!(super::names::reserved(&row.name), "{row:?}");
        assert!(found.iter().all(|text| !has_word(text, &row.name)), "{row:?}");
    }
    let held: Vec<u8> = std::fs::read(config.out.join("eval.safetensors")).unwrap();
    let bare: Vec<u8> = std::fs::read(config.out.join("eval_no_api.safetensors")).unwrap();
    let counted = |bytes: &[u8]| -> usize {
        SafeTensors::deserialize(bytes)
            .unwrap()
            .tensor("weights")
            .unwrap()
            .data()
            .iter()
            .filter(|weight| **weight > 0)
            .count()
    };
    assert!(
        counted(&held) > 100 && counted(&held) == counted(&bare),
        "the same tokens count with API lines and without"
    );
    let card = files::read_text(&config.out.join("card.md")).unwrap();
    assert!(card.contains("| full | code |") && card.contains("kiln"), "{card}");
}

#[test]
fn what_repeats_a_benchmark_is_left_out_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let benchmarks = folder.path().join("benchmarks");
    std::fs::create_dir(&benchmarks).unwrap();
    let row = serde_json::json!({"task_id": "Loom/0", "prompt": "# Do the paint job for loom in step 2\nkept =", "canonical_solution": " x"});
    std::fs::write(benchmarks.join("loom.jsonl"), format!("{row}\n")).unwrap();
    let other = serde_json::json!({"task_id": "Loom/1", "prompt": "# Let us rinse what the old loom has on its board 8"});
    std::fs::write(benchmarks.join("other.jsonl"), format!("{other}\n")).unwrap();
    let planted = "Do the paint job for loom in step 2";
    let plain = config(folder.path());
    let before = documents(&plain.out, &build(&plain, &Silent).unwrap());
    assert!(before.iter().any(|text| text.contains("paint job")), "it is there without benchmarks");
    assert!(before.iter().any(|text| text.contains("loom has on its board 8")), "and so is the example");
    let config = DataConfig { benchmarks: Some(benchmarks), ..plain };
    let found = documents(&config.out, &build(&config, &Silent).unwrap());
    assert!(found.iter().all(|text| !text.contains(planted) && !text.contains("loom has on its board 8")));
    assert!(found.iter().any(|text| text.contains("on its board")), "other examples stay");
    let overlap = files::read_text(&config.out.join("overlap.json")).unwrap();
    assert!(overlap.contains("loom:Loom/0") && overlap.contains("paint job"), "{overlap}");
    assert!(overlap.contains("other:Loom/1"), "{overlap}");
}

#[test]
fn rates_of_noise_and_files_merged() {
    let folder = tempfile::tempdir().unwrap();
    let counts = |change: &dyn Fn(&mut DataConfig)| {
        let mut config = config(folder.path());
        change(&mut config);
        let manifest = build(&config, &Silent).unwrap();
        let text = files::read_text(&config.out.join("statistics.json")).unwrap();
        let statistics: Statistics = serde_json::from_str(&text).unwrap();
        let part = statistics.parts["full"].clone();
        (part.noise_apis as f64 / part.called_apis as f64, part.twins, documents(&config.out, &manifest))
    };
    let (none, twins, _) = counts(&|config| (config.noise, config.twins) = (0.0, 0.0));
    assert_eq!((none, twins), (0.0, 0));
    let (half, twins, _) = counts(&|config| (config.noise, config.twins) = (0.5, 1.0));
    assert!((0.3..0.6).contains(&half) && twins > 10, "{half} {twins}");
    let (_, _, found) = counts(&|config| {
        (config.merged, config.twins, config.block_tokens) = (true, 0.0, 1024);
        config.part[1].row_tokens = 1024;
    });
    let merged = found.iter().find(|text| text.matches("# [start]").count() > 1).unwrap();
    let at = |text: &str| merged.find(text).unwrap();
    assert!(
        at("# [start]") < at("def job_") && merged.rfind("# [start]").unwrap() > at("def job_"),
        "{merged}"
    );
}

#[test]
fn examples_of_docstrings_ask_and_call() {
    let folder = tempfile::tempdir().unwrap();
    let config = DataConfig { twins: 0.5, ..config(folder.path()) };
    let manifest = build(&config, &Silent).unwrap();
    let text = files::read_text(&config.out.join("statistics.json")).unwrap();
    let statistics: Statistics = serde_json::from_str(&text).unwrap();
    let examples = statistics.examples.unwrap();
    // Those of the library that is held out are read as well.
    assert_eq!((examples.read, examples.training, examples.overlapping), (36, 24, 0));
    assert!(statistics.parts["full"].documents["example"] > 5);
    let card = files::read_text(&config.out.join("card.md")).unwrap();
    assert!(card.contains("| full | example |") && card.contains("24 are learned from"), "{card}");
    let found = documents(&config.out, &manifest);
    let of: Vec<&String> = found.iter().filter(|text| text.contains("board = list(range(")).collect();
    assert!(!of.is_empty() && of.iter().all(|text| text.starts_with("# [start]\n")));
    let own = of.iter().find(|text| text.contains("import mill\n\n")).unwrap();
    let lines: Vec<&str> = own.split_once("import mill\n\n").unwrap().1.lines().collect();
    let call = lines.iter().position(|line| line.starts_with("mill.mill_")).unwrap();
    assert!(lines[0].starts_with("# ") && lines[call].ends_with("(board, soft=True)"), "{own}");
    assert!(of.iter().any(|text| !text.contains("mill_") && !text.contains("loom_")), "some are twins");
}
