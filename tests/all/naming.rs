//! The modes of `inhouse eval`: the shapes of HumanEval's tests, private words converted back, and private twins of libraries
//! that answer to their new names alone.

use std::path::{Path, PathBuf};

use inhouse_tests::{benchmark, command, python_environment};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs the canonical solutions of rows `(task_id, prompt + completion, entry point, test)`.
fn evaluate(rows: &[Value], arguments: &[&str]) -> Vec<Value> {
    let folder = TempDir::new().unwrap();
    let problems = folder.path().join("problems.jsonl");
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&problems, text).unwrap();
    evaluate_file(&problems, arguments)
}

fn evaluate_file(problems: &Path, arguments: &[&str]) -> Vec<Value> {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("results.jsonl");
    let samples = if arguments.contains(&"--samples") { &[][..] } else { &["--canonical"][..] };
    let output = command("inhouse")
        .args(["eval", "--problems", problems.to_str().unwrap(), "--out", out.to_str().unwrap()])
        .args(samples)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    inhouse_core::files::json_lines::<Value>(&out).unwrap().map(|row| row.unwrap().1).collect()
}

fn row(id: &str, prompt: &str, entry: &str, code: &str, test: &str) -> Value {
    json!({"task_id": id, "prompt": prompt, "entry_point": entry, "canonical_solution": code, "test": test})
}

#[test]
fn the_shapes_of_tests_are_run_and_hollow_ones_do_not_pass() {
    let code = "def f(x):\n    return x + 1\ny = f(1)\n";
    let check = "def check(candidate):\n    assert candidate(1) == 2\n";
    let wrong = "def check(candidate):\n    assert candidate(1) == 3\n";
    let class = "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(f(1), 2)\n";
    let shapes = [
        ("check(entry_point)", "f", check, true, ""),
        ("check(entry_point), wrong", "f", wrong, false, "AssertionError (test line 2)"),
        ("check()", "none", "def check():\n    assert y == 2\n", true, ""),
        ("check(), wrong", "none", "def check():\n    assert y == 3\n", false, "AssertionError"),
        ("check() for check(candidate)", "none", check, false, "missing 1 required positional argument"),
        (
            "check(f) for check()",
            "f",
            "def check():\n    assert y == 2\n",
            false,
            "takes 0 positional arguments",
        ),
        ("an entry point that is not there", "g", check, false, "name 'g' is not defined"),
        ("script", "f", "assert f(1) == 2\nassert f(2) == 3\n", true, ""),
        (
            "script, wrong",
            "none",
            "assert f(1) == 2\nassert f(2) == 2\n",
            false,
            "AssertionError (test line 2)",
        ),
        ("script that calls check", "f", &format!("{check}check(f)\n"), true, ""),
        ("empty", "f", "", false, "the test asserted nothing"),
        ("comments", "f", "# assert f(1) == 3\n", false, "the test asserted nothing"),
        ("never called", "f", "def test_f():\n    assert f(1) == 3\n", false, "AssertionError (test line 2)"),
        ("a test case that no one runs", "f", class, true, ""),
        ("nothing in check", "f", "def check(candidate):\n    pass\n", false, "the test asserted nothing"),
        ("generator", "f", &format!("{wrong}    yield\n"), false, "AssertionError (test line 2)"),
        ("coroutine", "f", &format!("async {wrong}"), false, "AssertionError (test line 2)"),
        ("no Python", "f", "def check(candidate:\n", false, "the test does not compile"),
    ];
    let rows: Vec<_> = shapes.iter().map(|(id, entry, test, ..)| row(id, "", entry, code, test)).collect();
    for (result, (id, _, _, passes, detail)) in evaluate(&rows, &[]).iter().zip(shapes) {
        assert_eq!(result["passed"], passes, "{id}: {result}");
        assert!(result["detail"].as_str().unwrap().contains(detail), "{id}: {result}");
    }
}

fn tables(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("table.json");
    let table = json!({"library": "datetime", "name": "daymoment", "modules": ["_datetime"], "public_to_private": {
        "datetime": "daymoment", "timedelta": "stretch", "date": "calday", "total_seconds": "all_seconds",
        "year": "annum", "replace": "swapped", "hours": "sixties", "isoformat": "to_iso", "now": "at_present",
        "weekday": "nth_day", "copy": "dup", "tzinfo": "zone", "utcoffset": "zone_gap", "dst": "summer", "tzname": "zone_name",
        "max": "latest", "sum": "total"}});
    std::fs::write(&path, table.to_string()).unwrap();
    path
}

/// Programs against the twin of a library of C types, as (code, what is said of its failure; empty: it passes).
const PROGRAMS: [(&str, &str); 39] = [
    // private words answer, on modules, classes and instances of C types
    ("import daymoment as dm\nassert dm.daymoment(2024, 1, 2).annum == 2024", ""),
    ("from daymoment import stretch\nassert stretch(sixties=2).all_seconds() == 7200.0", ""),
    ("from daymoment import stretch as s\nassert s(0, 5).seconds == 5", ""),
    ("from daymoment import *\nassert calday(2024, 1, 2).swapped(annum=2023) == calday(2023, 1, 2)", ""),
    ("import daymoment\nassert [d.annum for d in [daymoment.calday.latest]] == [9999]", ""),
    (
        "import daymoment\nf = lambda d: f'{d.to_iso()}'\nassert f(daymoment.calday(2024, 1, 2)) == '2024-01-02'",
        "",
    ),
    ("import daymoment\nassert getattr(daymoment.calday(2024, 1, 2), 'annum') == 2024", ""),
    ("import daymoment\nassert not hasattr(daymoment.calday(2024, 1, 2), 'year')", ""),
    ("import daymoment\nassert getattr(daymoment.calday(2024, 1, 2), 'year', 7) == 7", ""),
    ("import daymoment\nassert eval('daymoment.calday(2024, 1, 2).annum') == 2024", ""),
    ("import daymoment\nassert daymoment.calday.nth_day(daymoment.calday(2024, 1, 2)) == 1", ""),
    // a program's own classes, also below the library's, and overriding methods under private words
    (
        "import daymoment\nclass Z(daymoment.zone):\n    def zone_gap(self, t):\n        return daymoment.stretch(sixties=3)\n    \
         def summer(self, t):\n        return None\n    def zone_name(self, t):\n        return 'Z'\n\
         t = daymoment.daymoment(2024, 1, 2, zone=Z())\nassert t.zone_gap().all_seconds() == 10800 and t.zone_name() == 'Z'",
        "",
    ),
    (
        "import daymoment\nclass D(daymoment.calday):\n    def swapped(self, **k):\n        return super().swapped(**k).annum\n\
         assert D(2024, 1, 2).swapped(day=3) == 2024",
        "",
    ),
    // what is not the library's keeps its names
    (
        "class A:\n    year = 1\n    def replace(self, year):\n        return year\na = A()\na.year += 1\nassert a.year == 2 and a.replace(year=4) == 4",
        "",
    ),
    (
        "assert 'aba'.replace('a', 'c') == 'cbc' and [1].copy() == [1] and sum([1]) == 1 and max(1, 2) == 2",
        "",
    ),
    ("def f(hours):\n    return hours\nassert f(hours=2) == 2", ""),
    ("import collections, json\nassert collections.Counter('aab').copy()['a'] == 2", ""),
    ("import time\nassert time.gmtime(0).tm_year == 1970", ""),
    // the library's inside speaks public names
    ("import daymoment\nassert repr(daymoment.stretch(1)) == 'datetime.timedelta(days=1)'", ""),
    (
        "import email.utils\nassert email.utils.parsedate_to_datetime('Tue, 02 Jan 2024 00:00:00 +0000').annum == 2024",
        "",
    ),
    (
        "import daymoment, pickle, copy\nd = daymoment.calday(2024, 1, 2)\nassert pickle.loads(pickle.dumps(d)) == copy.copy(d) == d",
        "",
    ),
    // public names are refused, wherever they are said
    (
        "import daymoment\ndaymoment.calday(2024, 1, 2).year",
        "'calday' object has no attribute 'year' (a public name",
    ),
    (
        "import daymoment\ndaymoment.stretch(1).total_seconds()",
        "'stretch' object has no attribute 'total_seconds'",
    ),
    ("import daymoment\ndaymoment.date(2024, 1, 2)", "module 'daymoment' has no attribute 'date'"),
    ("import daymoment\ndaymoment.calday.max", "type object 'calday' has no attribute 'max'"),
    ("from daymoment import timedelta", "cannot import name 'timedelta'"),
    ("import datetime", "No module named 'datetime' (the public library; here it is daymoment)"),
    ("import os, datetime as d", "No module named 'datetime'"),
    ("from datetime import timedelta", "No module named 'datetime'"),
    ("__import__('datetime')", "No module named 'datetime'"),
    ("import daymoment\ndaymoment.stretch(hours=2)", "unexpected keyword argument 'hours' (a public name"),
    (
        "import daymoment\ndaymoment.calday(2024, 1, 2).swapped(year=2023)",
        "unexpected keyword argument 'year'",
    ),
    ("import daymoment\ngetattr(daymoment.calday(2024, 1, 2), 'year')", "has no attribute 'year'"),
    ("import daymoment\neval('daymoment.calday(2024, 1, 2).year')", "has no attribute 'year'"),
    ("import daymoment\nexec('import datetime')", "No module named 'datetime'"),
    (
        "import daymoment\nd = daymoment.calday(2024, 1, 2)\nsorted([d], key=lambda d: d.year)",
        "no attribute 'year' (a public name, which daymoment does not have) (line 3)",
    ),
    ("import daymoment\nd = daymoment.calday(2024, 1, 2)\nd.year = 3", "has no attribute 'year'"),
    (
        "import daymoment\nclass D(daymoment.calday):\n    pass\nD(2024, 1, 2).isoformat()",
        "'D' object has no attribute 'isoformat'",
    ),
    ("import daymoment\nx = (", "was never closed"),
];

#[test]
fn a_twin_answers_to_its_words_alone() {
    let folder = TempDir::new().unwrap();
    let table = tables(&folder);
    let rows: Vec<_> = PROGRAMS
        .iter()
        .enumerate()
        .map(|(i, (code, _))| row(&i.to_string(), "", "none", code, "assert len('ab') == 2"))
        .collect();
    let arguments = ["--private", table.to_str().unwrap(), "--private-scope", "library"];
    for (result, (code, detail)) in evaluate(&rows, &arguments).iter().zip(PROGRAMS) {
        assert_eq!(result["passed"], detail.is_empty(), "{code}\n{result}");
        assert!(result["detail"].as_str().unwrap().contains(detail), "{code}\n{result}");
        let verdict = match detail {
            "" => "passed",
            "was never closed" => "compile_error",
            _ => "failed",
        };
        assert_eq!(result["verdict"], verdict, "{code}\n{result}");
    }
}

#[test]
fn tests_speak_public_or_private_names() {
    let folder = TempDir::new().unwrap();
    let table = tables(&folder);
    let prompt = "import daymoment\ntotal_of = 3\nfirst_calday = daymoment.calday(2024, 1, 2)\n";
    let mut private =
        row("private", prompt, "none", "", "def check():\n    assert first_calday.annum == 2024\n");
    private["test_names"] = json!("private");
    let mut refused = row("refused", prompt, "none", "", "assert first_calday.year == 2024\n");
    refused["test_names"] = json!("private");
    let public = row(
        "public",
        prompt,
        "none",
        "",
        "def check():\n    assert first_date.year == 2024 == datetime.MINYEAR + 2023 and sum_of == 3\n",
    );
    let results = evaluate(&[private, refused, public], &["--private", table.to_str().unwrap()]);
    let verdicts: Vec<_> = results.iter().map(|result| result["passed"].as_bool().unwrap()).collect();
    assert_eq!(verdicts, [true, false, true], "{results:#?}");
    assert!(results[1]["detail"].as_str().unwrap().contains("'year' (a public name"), "{}", results[1]);
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    let problems = folder.path().join("problems.jsonl");
    std::fs::write(&problems, format!("{}\n", row("a", "", "none", "x = 1", "assert x"))).unwrap();
    for (table, message) in [
        ("{\"a\": \"b\"}", "which side is public"),
        ("{\"public_to_private\": {\"a\": \"b\", \"c\": \"b\"}}", "`b` stands for `a` and for `c`"),
        ("{\"public_to_private\": {\"json\": \"notation\"}}", "does not say which library"),
        (
            "{\"library\": \"nosuch\", \"name\": \"mine\", \"public_to_private\": {\"a\": \"b\"}}",
            "cannot import mine: ModuleNotFoundError",
        ),
        ("nonsense", "not a rename table"),
    ] {
        let path = folder.path().join("table.json");
        std::fs::write(&path, table).unwrap();
        let output = command("inhouse")
            .args([
                "eval",
                "--canonical",
                "--problems",
                problems.to_str().unwrap(),
                "--private",
                path.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{table}: {said}");
        assert!(said.contains(message) && said.trim().lines().count() == 1, "{table}: {said}");
    }
}

fn passed(results: &[Value]) -> usize {
    results.iter().filter(|result| result["passed"] == true).count()
}

fn without_test(results: &[Value]) -> usize {
    results.iter().filter(|result| result["verdict"] == "no_test").count()
}

/// The Monkey problems' first canonical solutions, as a sample file for the public problems.
fn monkey_solutions(folder: &TempDir, monkey: &Path) -> PathBuf {
    let path = folder.path().join("solutions.jsonl");
    let rows: String = inhouse_core::files::json_lines::<Value>(monkey)
        .unwrap()
        .map(|row| row.unwrap().1)
        .map(|row| {
            format!("{}\n", json!({"task_id": row["task_id"], "completion": row["canonical_solution"][0]}))
        })
        .collect();
    std::fs::write(&path, rows).unwrap();
    path
}

#[test]
fn monkey_solutions_pass_as_published_and_unconverted() {
    let (Some(monkey), Some(pandas)) =
        (benchmark("real_monkey_eval_v3.jsonl.gz"), benchmark("real_pandas_eval_v3.jsonl.gz"))
    else {
        return;
    };
    let Some(python) = python_environment("pandas") else { return };
    let folder = TempDir::new().unwrap();
    let env = format!("{}:pandas", python.display());
    let solutions = monkey_solutions(&folder, &monkey);
    let samples = ["--env", &env, "--samples", solutions.to_str().unwrap()];
    // The paper runs the public prompts and tests. One of the 88 that pass there has a test that compares and drops what
    // the comparison says: it asserts nothing, and that is no pass here.
    let published = evaluate_file(&pandas, &[&samples[..], &["--rename", "monkey"]].concat());
    assert_eq!((passed(&published), without_test(&published)), (87, 1));
    let lenient = [&samples[..], &["--rename", "monkey", "--rename-rules", "sound"]].concat();
    let lenient = evaluate_file(&pandas, &lenient);
    assert_eq!((passed(&lenient), without_test(&lenient)), (88, 1));
    // Unconverted: prompt and solution run as they are.
    let twin = evaluate_file(&monkey, &["--env", &env, "--private", "monkey"]);
    assert!(passed(&twin) >= 91, "{} pass", passed(&twin));
    assert_eq!(without_test(&twin), 1);
    // What is written in public names fails there.
    let public = evaluate_file(&pandas, &["--env", &env, "--private", "monkey"]);
    assert_eq!(passed(&public), 0);
}

/// Completions against `monkey` that say a public name, and the name.
const REFUSED: [(&str, &str); 20] = [
    ("kf.groupby('a').total_sum()", "groupby"),
    ("kf.grouper('a').sum()", "sum"),
    ("kf.a.sum()", "sum"),
    ("kf['a'].tolist()", "tolist"),
    ("kf.employ(lambda x: x.max())", "max"),
    ("kf.employ(pick, axis=1)", "min"),
    ("mk.DataFrame()", "DataFrame"),
    ("mk.Series([1])", "Series"),
    ("from monkey import DataFrame", "DataFrame"),
    ("import pandas as pd", "pandas"),
    ("kf.reseting_index(drop=True)", "drop"),
    ("kf.renaming(columns={'a': 'b'}, copy=False)", "copy"),
    ("mk.KnowledgeFrame([1], copy=True)", "copy"),
    ("mk.concating([kf, kf], copy=False)", "copy"),
    ("stamp.to_pydatetime()", "to_pydatetime"),
    ("mk.Timestamp('2020-01-01').replace(year=2021)", "replace"),
    ("mk.Collections(['a']).str.replace('a', 'b')", "replace"),
    ("kf.columns.append(kf.columns)", "append"),
    ("kf.index.min()", "min"),
    ("kf.loc[0].isnull()", "isnull"),
];
const TAKEN: [&str; 9] = [
    "kf.values.sum(); kf.values.total_sum(); np.max([1]); np.get_max([1])",
    "len(kf); length(kf); [1].copy(); [1].clone(); 'a'.replace('a', 'b')",
    "kf.reseting_index(sip=True); kf.clone(deep=True)",
    "mk.KnowledgeFrame([1], clone=True)",
    "stamp.convert_pydatetime(); stamp.replacing(year=2021)",
    "kf.allocate(total=1).total.total_sum()",
    "kf.grouper('a').agg(get_max=('b', 'max')).get_max()",
    "class K(mk.KnowledgeFrame):\n    def sum_all(self):\n        return self.total_sum().total_sum()\nK([1]).sum_all()",
    "import monkey.tseries.offsets as o; o.Day(1).clone() if hasattr(o.Day(1), 'clone') else o.Day(1)",
];

#[test]
fn monkey_refuses_public_names_on_every_kind_of_object() {
    let Some(python) = python_environment("pandas") else { return };
    let prompt = "import monkey as mk\nimport numpy as np\nkf = mk.KnowledgeFrame({'a': [1, 1], 'b': [2, 3]})\n\
                  stamp = mk.Timestamp('2020-01-01')\ndef pick(x):\n    return x.min()\n";
    let mut rows: Vec<_> = REFUSED
        .iter()
        .enumerate()
        .map(|(i, (code, _))| row(&format!("r{i}"), prompt, "none", code, "assert len(kf) == 2"))
        .collect();
    rows.extend(
        TAKEN
            .iter()
            .enumerate()
            .map(|(i, code)| row(&format!("t{i}"), prompt, "none", code, "assert len(kf) == 2")),
    );
    let results = evaluate(&rows, &["--env", &format!("{}:pandas", python.display()), "--private", "monkey"]);
    for (result, (code, name)) in results.iter().zip(REFUSED) {
        let detail = result["detail"].as_str().unwrap();
        assert_eq!(result["verdict"], "failed", "{code}: {result}");
        assert!(detail.contains(&format!("'{name}'")), "{code}: {detail}");
    }
    for (result, code) in results[REFUSED.len()..].iter().zip(TAKEN) {
        assert_eq!(result["passed"], true, "{code}: {result}");
    }
}
