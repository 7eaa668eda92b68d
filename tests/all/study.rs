//! `inhouse study` from a configuration to tables, figures and the report: killed, sharded, merged, and by a program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use inhouse_tests::{benchmark, command, python_environment, repository, shipped_coder};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROBLEMS: usize = 8;

/// A folder with the first problems of the private library, its index and a configuration for `model`.
fn study(folder: &Path, python: &Path, model: &str) -> PathBuf {
    let library = repository().join("tests/private-library");
    let problems = fs::read_to_string(library.join("problems.jsonl")).unwrap();
    let problems: String = problems.lines().take(PROBLEMS).map(|line| format!("{line}\n")).collect();
    fs::write(folder.join("problems.jsonl"), problems).unwrap();
    let index = folder.join("index");
    let built = command("inhouse")
        .args([
            "index",
            "build",
            library.join("gaugewren").to_str().unwrap(),
            "--out",
            index.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let config = folder.join("study.toml");
    let text = format!(
        "n = 2\nk = [1, 2]\ntemperatures = [0.2, 0.8]\nsettings = [\"none\", \"top:2\"]\nmax_tokens = 12\nparallel = 2\n\
         timeout = 20\nbootstrap = 200\n\
         [[problems]]\nname = \"Gaugewren\"\nfile = {:?}\nindex = {:?}\nenv = \"{}:gaugewren\"\n\
         [[models]]\nname = \"m\"\n{model}\n",
        folder.join("problems.jsonl"),
        index,
        python.display()
    );
    fs::write(&config, text).unwrap();
    config
}

fn tiny() -> String {
    // One thread: a small model gains nothing by more, and on a busy machine they wait for one another.
    format!("threads = 1\npath = {:?}", shipped_coder())
}

fn inhouse(arguments: &[&str]) -> Command {
    let mut inhouse = command("inhouse");
    inhouse.arg("study").args(arguments);
    inhouse
}

fn done(arguments: &[&str]) -> Output {
    let output = inhouse(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The files under a folder whose names end so, by path below it.
fn files(folder: &Path, end: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push((path.strip_prefix(folder).unwrap().to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// All results of a store without the times that differ between any two runs, and all tallies as they are.
fn content(store: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, path) in files(store, ".results.jsonl") {
        let rows = fs::read_to_string(path).unwrap();
        let rows: String = rows
            .lines()
            .map(|line| {
                let mut row: Value = serde_json::from_str(line).unwrap();
                for times in ["cpu_ms", "wall_ms"] {
                    assert!(row.as_object_mut().unwrap().remove(times).is_some(), "{line}");
                }
                format!("{row}\n")
            })
            .collect();
        all.push((name, rows));
    }
    all.extend(
        files(store, ".tally.json").into_iter().map(|(name, path)| (name, fs::read_to_string(path).unwrap())),
    );
    assert!(files(store, ".samples.jsonl").is_empty(), "samples that were run are left");
    all
}

#[test]
fn a_study_that_is_killed_or_sharded_is_the_same_study() {
    let Some(python) = python_environment("python") else { return };
    let folder = TempDir::new().unwrap();
    let config = study(folder.path(), &python, &tiny());
    let store = |name: &str| folder.path().join(name);
    let run = |name: &str, more: &[&str]| {
        let store = store(name);
        let mut arguments = vec!["run", "--config", text(&config), "--store", text(&store)];
        arguments.extend(more);
        done(&arguments)
    };

    let html = folder.path().join("report.html");
    let said = run("whole", &["--report", text(&html), "--json"]);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    // Two problems a unit, two settings, two temperatures.
    assert_eq!((&said["units"], &said["done"], &said["done_now"]), (&json!(16), &json!(16), &json!(16)));
    let whole = content(&store("whole"));
    assert_eq!(whole.len(), 32);

    // Verdicts are the same where equal samples share one.
    let once = folder.path().join("once.toml");
    let text_of = fs::read_to_string(&config).unwrap();
    fs::write(&once, format!("equal_samples = \"once\"\n{text_of}")).unwrap();
    done(&["run", "--config", text(&once), "--store", text(&store("once"))]);
    assert_eq!(content(&store("once")), whole);

    // Where it came from stands beside it.
    let (_, log) = files(&store("whole").join("runs"), ".json").remove(0);
    let log: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    let environment = &log["environments"][format!("{}:gaugewren", python.display())];
    assert!(environment["python"].as_str().is_some_and(|version| version.starts_with("3.")), "{environment}");
    assert!(environment["packages"].is_object(), "{environment}");
    assert_eq!(log["models"]["m"]["architecture"], "phi2", "{log}");

    // Killed twice, wherever it is; then once more to the end.
    for kill in 1..=2 {
        let store = store("killed");
        let mut child =
            inhouse(&["run", "--config", text(&config), "--store", text(&store)]).spawn().unwrap();
        let begun = Instant::now();
        while files(&store, ".tally.json").len() < 5 * kill && begun.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let n_done = files(&store, ".tally.json").len();
        assert!((5 * kill..16).contains(&n_done), "{n_done} units at kill {kill}");
    }
    run("killed", &[]);
    assert_eq!(content(&store("killed")), whole);

    // Two stores, a shard each, sampled by one worker and run by another; merged in a third.
    for shard in ["0/2", "1/2"] {
        let name = shard.replace('/', " of ");
        run(&name, &["--shard", shard, "--only", "generate"]);
        assert_eq!(files(&store(&name), ".samples.jsonl").len(), 8);
        run(&name, &["--shard", shard, "--only", "evaluate", "--follow"]);
    }
    let merged = store("merged");
    done(&["merge", "--into", text(&merged), text(&store("0 of 2")), text(&store("1 of 2"))]);
    assert_eq!(content(&merged), whole);

    // What is asked of the stores is the same, byte for byte.
    for what in [
        &["table1"][..],
        &["table1", "--format", "csv"],
        &["table1", "--format", "json"],
        &["fig5", "--format", "csv"],
        &["fig7", "--format", "json"],
    ] {
        let of = |name: &str| {
            let store = store(name);
            done(&[what, &["--store", text(&store)]].concat()).stdout
        };
        assert_eq!(of("whole"), of("killed"), "{what:?}");
        assert_eq!(of("whole"), of("merged"), "{what:?}");
    }
    let table = String::from_utf8(done(&["table1", "--store", text(&merged)]).stdout).unwrap();
    assert!(table.contains("Gaugewren: 8 problems, all solved by their own solutions"), "{table}");
    for row in ["No API", "Top-2"] {
        assert!(table.lines().any(|line| line.starts_with('m') && line.contains(row)), "{table}");
    }
    for (name, magic) in [("f.svg", &b"<svg "[..]), ("f.png", b"\x89PNG")] {
        let out = folder.path().join(name);
        done(&["fig6", "--store", text(&merged), "--out", text(&out)]);
        assert!(fs::read(&out).unwrap().starts_with(magic));
    }
    let html = fs::read_to_string(html).unwrap();
    assert_eq!(html.matches("<svg ").count(), 3);
    assert!(!html.contains("src=") && !html.contains("@import") && !html.contains("url("), "{html}");

    // Another study does not go into the same store, and says why.
    let other = fs::read_to_string(&config).unwrap().replace("n = 2", "n = 3");
    fs::write(&config, other).unwrap();
    let output = inhouse(&["run", "--config", text(&config), "--store", text(&merged)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("was made with n = 2, not 3"), "{said}");
}

/// Starts an endpoint that answers every prompt with its problem's own solution and a line that the stop rules cut, then
/// the program that is its argument, with the endpoint's address.
const ENDPOINT: &str = r#"
import http.server, json, subprocess, sys, threading
problems = [json.loads(line) for line in open(sys.argv[1])]
class Handler(http.server.BaseHTTPRequestHandler):
    tries = 0
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.tries += 1
        if Handler.tries == 1:
            self.send_response(503); self.send_header("Retry-After", "0"); self.end_headers(); return
        problem = next(p for p in problems if body["prompt"].endswith(p["prompt"]))
        solution = problem["canonical_solution"]
        solution = solution if isinstance(solution, str) else solution[0]
        answer = json.dumps({"choices": [{"text": solution + "\nprint(1)"}] * body["n"]}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(answer)
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1/completions"
sys.exit(subprocess.call([sys.executable, sys.argv[2], "--url", url, "--model", "x", "--at-once", "1"]))
"#;

#[test]
fn a_model_behind_an_endpoint_is_asked_by_a_program() {
    let Some(python) = python_environment("python") else { return };
    let folder = TempDir::new().unwrap();
    let endpoint = folder.path().join("endpoint.py");
    fs::write(&endpoint, ENDPOINT).unwrap();
    let example = repository().join("examples/openai_completions.py");
    let program = |arguments: &[&Path]| {
        let arguments: Vec<String> =
            arguments.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
        format!("command = [{}]", arguments.join(", "))
    };
    let problems = folder.path().join("problems.jsonl");
    let config = study(folder.path(), &python, &program(&[&python, &endpoint, &problems, &example]));
    let store = folder.path().join("store");
    done(&["run", "--config", text(&config), "--store", text(&store)]);
    let table: Value =
        serde_json::from_slice(&done(&["table1", "--store", text(&store), "--format", "json"]).stdout)
            .unwrap();
    for row in table["sections"][0]["rows"].as_array().unwrap() {
        assert_eq!(row["sweep"]["temperatures"][0][1][0]["value"], 1.0, "{row}");
    }

    // A program that fails is an error that says what it did; nothing of the unit is kept.
    let config = study(folder.path(), &python, &program(&[Path::new("false")]));
    let store = folder.path().join("failed");
    let output = inhouse(&["run", "--config", text(&config), "--store", text(&store)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("the program `false` ended"), "{said}");
    assert!(files(&store, "samples.jsonl").is_empty());
}

#[test]
fn the_baselines_architectures_go_through_one_command() {
    let folder = TempDir::new().unwrap();
    let problems = folder.path().join("problems.jsonl");
    let row = |i: usize| json!({"task_id": format!("T/{i}"), "prompt": "y =", "entry_point": "none", "test": "def check():\n    assert y\n"});
    fs::write(&problems, format!("{}\n{}\n", row(0), row(1))).unwrap();
    // CodeGen and CodeGenAPI; CodeParrot and CodeGPT; CodeClippy; CodeT5: Hugging Face folders with random weights.
    let models = ["codegen", "gpt2", "gpt_neo", "t5"];
    let mut config = format!(
        "n = 1\nk = [1]\ntemperatures = [0.8]\nsettings = [\"none\"]\nmax_tokens = 4\n[[problems]]\nname = \"P\"\nfile = {problems:?}\n"
    );
    for model in models {
        config += &format!(
            "[[models]]\nname = \"{model}\"\npath = {:?}\n",
            repository().join("tests/fixtures").join(model)
        );
    }
    let path = folder.path().join("study.toml");
    fs::write(&path, config).unwrap();
    done(&["run", "--config", text(&path), "--only", "generate"]);
    let store = folder.path().join("study.store");
    for model in models {
        let samples = files(&store.join("units/P").join(model), ".samples.jsonl");
        let [(_, samples)] = samples.as_slice() else { panic!("{model}: {samples:?}") };
        assert_eq!(fs::read_to_string(samples).unwrap().lines().count(), 2, "{model}");
    }
    // What was drawn is not drawn again.
    let said = done(&["run", "--config", text(&path), "--only", "generate", "--json"]).stdout;
    assert_eq!(serde_json::from_slice::<Value>(&said).unwrap()["units"], 4);
}

#[test]
fn recall_of_the_papers_retriever_is_as_published() {
    let published = [
        ("torchdata", [0.479, 0.630, 0.658, 0.740], Some((0.548, 0.930))),
        ("monkey", [0.467, 0.598, 0.664, 0.738], Some((0.541, 0.930))),
        ("pandas", [0.350, 0.463, 0.504, 0.650], None),
    ];
    let folder = TempDir::new().unwrap();
    let mut config = String::from("n = 1\nk = [1]\n");
    for (name, _, human) in published {
        let file = |end: &str| benchmark(&format!("real_{name}_eval_v3{end}.jsonl.gz"));
        let (Some(problems), Some(gold)) = (file(""), benchmark(&format!("apis/{name}.gold.jsonl.gz")))
        else {
            return;
        };
        config += &format!(
            "[[problems]]\nname = \"{name}\"\nfile = {problems:?}\ngold = {gold:?}\nsettings = [\"none\"]\n[problems.prompts]\n"
        );
        for k in [1, 2, 3, 5] {
            let Some(prompts) = file(&format!("_api_{k}")) else { return };
            config += &format!("\"top:{k}\" = {prompts:?}\n");
        }
        if human.is_some() {
            let Some(prompts) = file("_human_labelled") else { return };
            config += &format!("human = {prompts:?}\n");
        }
    }
    let path = folder.path().join("recall.toml");
    fs::write(&path, config).unwrap();
    done(&["run", "--config", text(&path)]);
    let store = folder.path().join("recall.store");
    let figure: Value =
        serde_json::from_slice(&done(&["fig5", "--store", text(&store), "--format", "json"]).stdout).unwrap();
    let value = |panel: &str, group: &str| {
        let points = figure["points"].as_array().unwrap();
        let point = points.iter().find(|point| point["panel"] == panel && point["group"] == group);
        point.unwrap_or_else(|| panic!("no {panel} {group}"))["value"].as_f64().unwrap()
    };
    for (name, recall, human) in published {
        let mut expected: Vec<(String, f64)> =
            [1, 2, 3, 5].iter().zip(recall).map(|(k, recall)| (format!("@{k}"), recall)).collect();
        if let Some((recall, precision)) = human {
            expected.extend([("human recall".to_owned(), recall), ("human precision".to_owned(), precision)]);
        }
        for (group, expected) in expected {
            let got = value(name, &group);
            assert!((got - expected).abs() <= 0.0005, "{name} {group}: {got}, published {expected}");
        }
    }
}
