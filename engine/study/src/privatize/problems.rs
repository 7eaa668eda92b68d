//! A problem set in private words: prompts, solutions, tests and entry points of a problem converted as one program.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::Value;

use super::code::{Converter, Edit, Evidence, Names, Place, apply, strings_of};
use super::coin::short_form;
use super::speech::{Quotes, Said, Speech};
use crate::judge;
use crate::problems::Problem;
use crate::rename::words_at;

/// What was seen when a problem's program and its test ran.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// In prompt, solution and suffix as one text.
    pub program: Evidence,
    /// In the test.
    pub test: Evidence,
}

impl Seen {
    /// Reads what `record.py` wrote; what it cannot have written is passed over.
    pub fn parse(output: &str) -> Self {
        let mut seen = Self::default();
        let places: HashMap<String, bool> = serde_json::from_str(output.trim()).unwrap_or_default();
        for (key, is_api) in places {
            let mut parts = key.split(':');
            let text = parts.next();
            let mut number = || parts.next().and_then(|part| part.parse().ok());
            let (Some(line), Some(column)) = (number(), number()) else { continue };
            let evidence = if text == Some("t") { &mut seen.test } else { &mut seen.program };
            evidence.insert(Place { line, column }, is_api);
        }
        seen
    }
}

/// The text that runs with a problem's solution.
pub fn program(problem: &Problem, solution: &str) -> String {
    format!("{}{solution}{}", problem.prompt, problem.suffix.as_deref().unwrap_or_default())
}

/// A problem in private words.
pub struct Converted {
    /// The problem; its tests speak private names.
    pub problem: Problem,
    /// Its prompt, with what was kept in it.
    pub prompt: Said,
}

/// Whether strings of a problem that say public words change with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strings {
    /// Those that the prompt has, everywhere.
    Follow,
    /// None.
    Keep,
}

/// Gives the library's short forms in these problems (`pd`) private ones.
pub fn learn_aliases(speech: &mut Speech, problems: &[Problem], private_name: &str) {
    let library = speech.library().to_owned();
    for problem in problems {
        let mut names = Names::default();
        names.read(&problem.prompt, &library);
        for alias in names.library.into_iter().filter(|alias| *alias != library) {
            speech.add_alias(&alias, |is_free| short_form(private_name, is_free));
        }
    }
}

/// Converts a problem. `seen` holds what was seen with each canonical solution, in their order.
pub fn convert(problem: &Problem, speech: &Speech, seen: &[Seen], strings: Strings) -> Converted {
    let programs: Vec<String> = if problem.canonical_solutions.is_empty() {
        vec![program(problem, "")]
    } else {
        problem.canonical_solutions.iter().map(|solution| program(problem, solution)).collect()
    };
    let mut names = Names::default();
    for text in programs.iter().chain([&problem.test]) {
        names.read(text, speech.library());
    }
    let strings = if strings == Strings::Follow { followed(problem, speech) } else { HashMap::new() };
    let converter =
        |evidence| Converter { speech, names: &names, evidence, strings: &strings, quotes: Quotes::Follow };
    let edits: Vec<Vec<Edit>> = programs
        .iter()
        .enumerate()
        .map(|(i, text)| converter(seen.get(i).map(|s| &s.program)).edits(text))
        .collect();
    let part = |i: usize, range: Range<usize>| apply(&programs[i], range, &edits[i]);
    let before = problem.prompt.len();
    let prompt = part(0, 0..before);
    let first_end = before + problem.canonical_solutions.first().map_or(0, String::len);
    let canonical_solutions = problem
        .canonical_solutions
        .iter()
        .enumerate()
        .map(|(i, solution)| part(i, before..before + solution.len()).text)
        .collect();
    let suffix = problem.suffix.as_ref().map(|suffix| part(0, first_end..first_end + suffix.len()).text);
    let test_edits = converter(seen.first().map(|seen| &seen.test)).edits(&problem.test);
    let test = apply(&problem.test, 0..problem.test.len(), &test_edits).text;
    let golden = |names: &Option<Vec<String>>| {
        names.as_ref().map(|names| names.iter().map(|name| private_path(speech, name)).collect())
    };
    let prose = |text: &str| speech.prose(text, Quotes::Follow, &strings).text;
    let mut extra = problem.extra.clone();
    for (key, value) in &mut extra {
        convert_value(value, &|text| if key == "apis" { private_path(speech, text) } else { prose(text) });
    }
    extra.insert("test_names".into(), "private".into());
    let entry = |path: &str| {
        let parts = path.split('.').map(|part| match part.strip_suffix("()") {
            Some(name) => format!("{}()", speech.identifier(name)),
            None => speech.identifier(part),
        });
        parts.collect::<Vec<_>>().join(".")
    };
    let problem = Problem {
        task_id: words_replaced(&problem.task_id, |word| speech.identifier(word)),
        entry_point: if problem.entry_point == "none" { "none".into() } else { entry(&problem.entry_point) },
        prompt: prompt.text.clone(),
        canonical_solutions,
        test,
        gold: golden(&problem.gold),
        human: golden(&problem.human),
        query: problem.query.as_deref().map(prose),
        suffix,
        extra,
    };
    Converted { problem, prompt }
}

fn private_path(speech: &Speech, path: &str) -> String {
    words_replaced(path, |word| speech.name(word).unwrap_or(word).to_owned())
}

fn words_replaced(text: &str, private: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (place, word) in words_at(text) {
        out.push_str(&text[copied..place.start]);
        out.push_str(&private(word));
        copied = place.end;
    }
    out.push_str(&text[copied..]);
    out
}

fn convert_value(value: &mut Value, convert: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = convert(text),
        Value::Array(values) => values.iter_mut().for_each(|value| convert_value(value, convert)),
        Value::Object(fields) => fields.values_mut().for_each(|value| convert_value(value, convert)),
        _ => {}
    }
}

/// The strings that change: those of the prompt's code, and words in quotes or with underscores in its comments. They change in
/// solution and test as well, where they stand whole.
fn followed(problem: &Problem, speech: &Speech) -> HashMap<String, String> {
    let mut strings = HashMap::new();
    let mut add = |text: &str, private: String| {
        if private != text {
            strings.insert(text.to_owned(), private);
        }
    };
    for (place, word) in words_at(&problem.prompt) {
        let before = problem.prompt[..place.start].chars().next_back();
        let after = problem.prompt[place.end..].chars().next();
        let quoted = before == after && matches!(before, Some('`' | '\'' | '"'));
        if quoted || word.contains('_') && speech.name(word).is_none() {
            add(word, speech.identifier(word));
        }
    }
    for text in strings_of(&problem.prompt) {
        let mut words = words_at(&text);
        let first = words.next();
        let alone = first.is_some_and(|(place, word)| {
            place == (0..text.len()) && words.next().is_none() && !word.is_empty()
        });
        if alone {
            add(&text, speech.identifier(&text));
        } else if text.contains(' ') {
            add(&text, speech.prose(&text, Quotes::Follow, &HashMap::new()).text);
        }
    }
    strings
}

/// The job's program that records what a problem's names stand for.
///
/// # Errors
/// The problem's entry point is no name.
pub fn recording(twin: &str, problem: &Problem, solution: &str) -> inhouse_core::Result<String> {
    let (program, test) = (program(problem, solution), judge::test_program(problem)?);
    let script = include_str!("record.py");
    Ok(format!("{script}\n_record({}, {}, {})\n", Value::from(twin), Value::from(program), Value::from(test)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rename::Table;

    fn speech() -> Speech {
        let pairs = [
            ("frames", "amberwell"),
            ("DataFrame", "FactSheet"),
            ("index", "anchor"),
            ("merge", "fuse"),
            ("sum", "total"),
            ("values", "facts"),
            ("first", "foremost"),
            ("append", "affix"),
            ("date", "calday"),
            ("mean", "midvalue"),
            ("copy", "clone"),
            ("drop", "shed"),
        ];
        let table = Table {
            pairs: pairs.map(|(public, private)| (public.to_owned(), private.to_owned())).to_vec(),
            aliases: vec![("df".into(), "fs".into())],
            ..Table::default()
        };
        let mut speech = Speech::new(&table, "frames", 1);
        speech.add_alias("fr", |_| "am".into());
        speech
    }

    #[test]
    fn a_problem_is_converted_as_one_program() {
        let problem = Problem {
            task_id: "FramesEval/3".into(),
            prompt: "import frames as fr\nimport other as ot\nfrom frames import DataFrame\n\n\
                     def merge_values(df, values, first=None):\n    # Append the values, named 'date', to a dataframe `mean_of`.\n"
                .into(),
            entry_point: "merge_values".into(),
            canonical_solutions: vec![
                "    rows = [1]\n    rows.append(sum(values))\n    df['date'] = ot.sum(df.index.mean(first='first'))\n\
                 \x20   return fr.merge(df, copy=f'{df.drop} drop', mean_of=dict(date=1)).date\n"
                    .into(),
            ],
            test: "def check(candidate):\n    df = DataFrame({'date': [1], 'mean_of': 2, 'mean': 'drop'})\n    \
                   assert candidate(df, values=[1]).sum() == df.copy()\n"
                .into(),
            gold: Some(vec!["merge".into(), "DataFrame.sum".into()]),
            ..Problem::default()
        };
        let got = convert(&problem, &speech(), &[], Strings::Follow).problem;
        assert_eq!(got.task_id, "AmberwellEval/3");
        assert_eq!(
            got.prompt,
            "import amberwell as am\nimport other as ot\nfrom amberwell import FactSheet\n\n\
             def fuse_facts(fs, facts, foremost=None):\n    # Affix the facts, named 'calday', to a factsheet `midvalue_of`.\n"
        );
        assert_eq!(
            got.canonical_solutions[0],
            "    rows = [1]\n    rows.affix(sum(facts))\n    fs['calday'] = ot.sum(fs.anchor.midvalue(foremost='first'))\n\
             \x20   return am.fuse(fs, clone=f'{fs.shed} drop', midvalue_of=dict(calday=1)).calday\n",
        );
        assert_eq!(
            got.test,
            "def check(candidate):\n    fs = FactSheet({'calday': [1], 'midvalue_of': 2, 'mean': 'drop'})\n    \
             assert candidate(fs, facts=[1]).total() == fs.clone()\n"
        );
        assert_eq!(
            (got.entry_point.as_str(), got.extra["test_names"].as_str()),
            ("fuse_facts", Some("private"))
        );
        assert_eq!(got.gold.unwrap(), ["fuse", "FactSheet.total"]);
    }

    #[test]
    fn what_was_seen_decides_over_what_it_looks_like() {
        let problem = Problem {
            task_id: "t".into(),
            prompt: "rows = make()\n".into(),
            entry_point: "none".into(),
            canonical_solutions: vec!["rows.append(1); x.append(2)".into()],
            test: "assert rows.sum(copy=1)".into(),
            ..Problem::default()
        };
        let seen = Seen::parse(
            r#"{"p:2:11": false, "p:2:24": true, "t:1:15": false, "nonsense": true, "t:1:16": false}"#,
        );
        let got = convert(&problem, &speech(), &[seen], Strings::Follow).problem;
        assert_eq!(got.canonical_solutions[0], "rows.append(1); x.affix(2)");
        assert_eq!(got.test, "assert rows.sum(copy=1)");
        assert!(Seen::parse("{\"p:1\": tru").program.is_empty());
    }

    #[test]
    fn what_is_no_python_is_converted_as_far_as_it_goes() {
        for text in [
            "def f(:\n  df.merge(",
            "'",
            "x = (((",
            "\"\"\"merge",
            "# merge\n\u{e9}\u{e9} = df.",
            "f'{df.merge",
        ] {
            let problem = Problem {
                task_id: "t".into(),
                prompt: text.into(),
                entry_point: "none".into(),
                canonical_solutions: vec![text.into(), String::new()],
                test: text.into(),
                ..Problem::default()
            };
            let got = convert(&problem, &speech(), &[], Strings::Follow).problem;
            assert_eq!(got.prompt.lines().count(), text.lines().count(), "{text}: {}", got.prompt);
        }
    }
}
