//! Values and variables as scripts have them, and how a comment speaks of them.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::names::Names;

// Statics and no constants: `literal` tells one list from another by its address.
static INTS: &[&str] = &[
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "15", "16", "20", "24", "30", "32", "50",
    "60", "64", "100", "128",
];
static FLOATS: &[&str] = &["0.1", "0.5", "0.25", "1.0", "1.5", "2.0", "0.01", "3.14", "10.0"];
static STRINGS: &[&str] = &[
    "'a'",
    "'b'",
    "'key'",
    "'red'",
    "'left'",
    "'name'",
    "'abc'",
    "'x y z'",
    "'hello'",
    "'data.txt'",
    "'north'",
    "'A-1'",
    "\"id\"",
    "\"total\"",
    "\"blue\"",
    "'mean'",
    "'utf-8'",
    "\"out.csv\"",
    "'day'",
    "'max'",
    "\"%Y-%m\"",
    "'one'",
];
static LISTS: &[&str] = &[
    "[1, 2, 3]",
    "[3, 1, 2]",
    "['a', 'b', 'c']",
    "[0, 5, 5, 9]",
    "[(1, 2), (3, 4)]",
    "range(10)",
    "[1.5, 2.5]",
    "['x', 'yy']",
    "[]",
    "range(5)",
    "[4, 8, 15, 16]",
    "[\"one\", \"two\"]",
    "[[1, 2], [3, 4]]",
    "[10, 20, 30]",
    "list(range(8))",
];
static DICTS: &[&str] =
    &["{'a': 1, 'b': 2}", "{}", "{'x': [1, 2]}", "{1: 'one', 2: 'two'}", "{'A': [0, 9], 'B': [7, 3]}"];
static FUNCTIONS: &[&str] = &[
    "str",
    "len",
    "lambda x: x + 1",
    "lambda x: x % 2",
    "lambda x: x > 3",
    "int",
    "lambda a, b: a + b",
    "max",
    "sum",
    "lambda row: row[0]",
];
static OTHERS: &[&str] = &["True", "False", "None", "0.5", "('a', 3)", "(2, 3)"];

const VARIABLES: &[&str] = &[
    "a", "b", "x", "y", "data", "items", "values", "left", "right", "source", "first", "second", "n",
    "limit", "words", "rows", "p", "q", "lines", "numbers", "points", "text", "path", "key", "size",
];
const OBJECTS: &[&str] = &[
    "obj",
    "box",
    "store",
    "table",
    "pipe",
    "graph",
    "node",
    "tree",
    "reader",
    "client",
    "queue",
    "grid",
    "item",
    "ds",
    "src",
    "model",
    "df",
    "dp",
    "source_dp",
    "log",
    "stream",
];
const RESULTS: &[&str] = &[
    "result", "out", "res", "answer", "value", "found", "total", "output", "r", "final", "new", "y", "ans",
    "result_1", "dp", "df2",
];

/// How a comment tells a value that an argument has by its position.
const MENTIONS: &[&str] = &[
    "Use {v}.",
    "With {v}.",
    "The {p} is {v}.",
    "Take {v} as {p}.",
    "{v} is the {p}.",
    "Do it with {v}.",
    "Use {v} for the {p}.",
    "Here it is {v}.",
    "The {p} should be {v}.",
    "Specifically, the {p} is {v}.",
];
/// How it tells one that is given by name.
const SETTINGS: &[&str] = &[
    "Use {p}={v}.",
    "Set {p} to {v}.",
    "With {p}={v}.",
    "The {p} should be {v}.",
    "Its {p} is {v}.",
    "Specially, set {p} to {v}.",
];

fn pick<'a>(list: &[&'a str], rng: &mut impl Rng) -> &'a str {
    list.choose(rng).copied().unwrap_or_default()
}

/// What a parameter's name says of its values.
fn kinds(parameter: &str) -> &'static [&'static str] {
    let word = parameter.trim_matches('_').to_ascii_lowercase();
    let is = |words: &[&str]| words.contains(&word.as_str());
    let has = |parts: &[&str]| parts.iter().any(|part| word.contains(part));
    if is(&["n", "k", "i", "j", "m", "x", "y", "start", "stop", "step", "axis", "dim", "times", "prec"])
        || has(&[
            "num", "count", "size", "width", "height", "length", "limit", "index", "depth", "maxlen",
            "level", "port", "n_",
        ])
    {
        INTS
    } else if has(&["func", "callback", "predicate", "pred", "_fn"]) || is(&["f", "fn", "cmp"]) {
        FUNCTIONS
    } else if has(&["dict", "map", "kwargs", "attrs", "params", "options", "headers", "environ"]) {
        DICTS
    } else if has(&[
        "iter", "seq", "list", "items", "array", "values", "nodes", "args", "elements", "lines", "words",
        "tokens", "data",
    ]) || is(&["xs", "points", "it"])
    {
        LISTS
    } else if has(&["ratio", "rate", "alpha", "scale", "tol", "weight", "factor", "eps", "prob"]) {
        FLOATS
    } else if is(&["s", "key", "sep", "char", "url", "msg", "word", "attr", "label"])
        || has(&[
            "name", "text", "path", "str", "prefix", "suffix", "value", "pattern", "message", "line",
            "column", "mode", "method",
        ])
    {
        STRINGS
    } else {
        &[]
    }
}

/// A plausible value for a parameter, by its name.
pub(super) fn literal(parameter: &str, rng: &mut impl Rng) -> String {
    let known = kinds(parameter);
    let list = if !known.is_empty() && rng.random_bool(0.9) {
        known
    } else {
        [INTS, STRINGS, LISTS, OTHERS, FLOATS].choose(rng).copied().unwrap_or(INTS)
    };
    if std::ptr::eq(list, STRINGS) && rng.random_bool(0.3) {
        // A word that was never seen: it can only be taken over.
        let word = Names { words: &[], held_out: false }.syllables(1, 2, rng);
        return if rng.random_bool(0.5) { format!("'{word}'") } else { format!("\"{word}\"") };
    }
    if std::ptr::eq(list, INTS) && rng.random_bool(0.3) {
        return rng.random_range(0..1000).to_string();
    }
    pick(list, rng).to_owned()
}

static NUMBER_WORDS: &[(&str, &str)] = &[
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("a dozen", "12"),
    ("fifteen", "15"),
    ("twenty", "20"),
    ("fifty", "50"),
    ("a hundred", "100"),
    ("a thousand", "1000"),
    ("half", "0.5"),
    ("a half", "0.5"),
    ("a quarter", "0.25"),
    ("a third", "1/3"),
    ("10 percent", "0.1"),
    ("5 %", "0.05"),
    ("three quarters", "0.75"),
    ("nothing", "None"),
    ("an empty list", "[]"),
    ("zero", "0"),
    ("a tenth", "0.1"),
    ("minus one", "-1"),
];
/// Units of time in seconds.
static DURATIONS: &[(&str, u32)] =
    &[("minute", 60), ("hour", 3600), ("day", 86_400), ("second", 1), ("week", 604_800)];

/// A value for a parameter as code writes it, and as a comment says it: often the same, sometimes a number in words, or a time that code
/// has in seconds.
pub(super) fn told(parameter: &str, rng: &mut impl Rng) -> (String, String) {
    match rng.random_range(0..100) {
        0..14 => {
            let (said, value) = NUMBER_WORDS.choose(rng).copied().unwrap_or(("one", "1"));
            (value.to_owned(), said.to_owned())
        }
        14..24 => {
            let (unit, seconds) = DURATIONS.choose(rng).copied().unwrap_or(("minute", 60));
            let (words, n) = [
                ("one", 1),
                ("two", 2),
                ("3", 3),
                ("five", 5),
                ("10", 10),
                ("15", 15),
                ("six", 6),
                ("30", 30),
            ]
            .choose(rng)
            .copied()
            .unwrap_or(("one", 1));
            let plural = if n == 1 { "" } else { "s" };
            let value = if seconds > 1 && rng.random_bool(0.5) {
                format!("{n} * {seconds}")
            } else {
                (n * seconds).to_string()
            };
            (value.trim_start_matches("1 * ").to_owned(), format!("{words} {unit}{plural}"))
        }
        _ => {
            let value = literal(parameter, rng);
            (value.clone(), value)
        }
    }
}

/// A sentence that tells an argument's value.
pub(super) fn mention(parameter: &str, value: &str, by_name: bool, rng: &mut impl Rng) -> String {
    let (form, parameter) = if by_name {
        (pick(SETTINGS, rng), parameter.to_owned())
    } else {
        (pick(MENTIONS, rng), parameter.trim_matches('_').replace('_', " "))
    };
    form.replace("{p}", &parameter).replace("{v}", value)
}

/// A variable's name.
pub(super) fn variable(rng: &mut impl Rng) -> String {
    pick(VARIABLES, rng).to_owned()
}

/// The name of an object of a class: made of the class's, or any.
pub(super) fn object(class: &str, rng: &mut impl Rng) -> String {
    let initials: String =
        class.chars().filter(char::is_ascii_uppercase).collect::<String>().to_ascii_lowercase();
    match rng.random_range(0..10) {
        0..3 if (2..=3).contains(&initials.len()) && !super::names::is_keyword(&initials) => initials,
        3..5 if class.len() <= 9 && !super::names::is_keyword(&class.to_ascii_lowercase()) => {
            class.to_ascii_lowercase()
        }
        _ => pick(OBJECTS, rng).to_owned(),
    }
}

/// The name of what a call gives.
pub(super) fn result(rng: &mut impl Rng) -> String {
    pick(RESULTS, rng).to_owned()
}

/// What an object is made from.
pub(super) fn material(rng: &mut impl Rng) -> String {
    match rng.random_range(0..4) {
        0 => String::new(),
        1 => pick(DICTS, rng).to_owned(),
        2 => pick(STRINGS, rng).to_owned(),
        _ => pick(LISTS, rng).to_owned(),
    }
}
