//! Problem files: HumanEval's format, the paper's (arXiv 2210.17236) and plain retrieval rows.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use inhouse_core::files::JsonLines;
use inhouse_core::{Error, Result, files, prompt};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::unusable::{self, UnusableRow};

/// One programming problem.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Problem {
    /// Its id, unique in the file.
    pub task_id: String,
    /// What the model completes; may begin with a `# [start]` block of API lines.
    pub prompt: String,
    /// The function that `check` receives, or `none` where the tests look at variables.
    pub entry_point: String,
    /// Completions known to be right; any number of them. `canonical_solution` in the file, a string or a list.
    #[serde(rename = "canonical_solution")]
    pub canonical_solutions: Vec<String>,
    /// Python that defines `check`.
    pub test: String,
    /// Names of the golden APIs: the `gold` field, else the names in the prompt's block. `None`: there is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gold: Option<Vec<String>>,
    /// Names of the APIs that a person chose: the `human` field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<Vec<String>>,
    /// What to ask the retriever, where the file says so: the `query` field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The code after the completion, where the middle is to be filled in: the `suffix` field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
    /// Everything else in the row.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A question to the retriever and its right answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrievalQuery {
    /// The row's id.
    pub task_id: String,
    /// The question.
    pub query: String,
    /// Names of the golden APIs; may be empty.
    pub gold: Vec<String>,
}

/// A row as it stands in the file. What is required depends on who reads it.
#[derive(Deserialize)]
struct Row {
    task_id: Option<String>,
    prompt: Option<String>,
    entry_point: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    canonical_solution: Option<Vec<String>>,
    test: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    gold: Option<Vec<String>>,
    #[serde(default, deserialize_with = "one_or_many")]
    human: Option<Vec<String>>,
    query: Option<String>,
    suffix: Option<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<OneOrMany>::deserialize(deserializer)?.map(|value| match value {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    }))
}

/// Reads a problem file (plain or gzip; `-` is standard input).
///
/// `task_id`, `prompt` and `test` are required; `entry_point` is `none` where it is missing. Unknown fields are kept.
///
/// # Errors
/// The file cannot be read, has no row, or a row is not a problem or repeats a `task_id`; the message names the line.
pub fn read(path: &Path) -> Result<Vec<Problem>> {
    collect(files::json_lines(path)?, path)
}

/// Reads a problem file as [`read`] does, but passes over rows that are no problems: those come beside the problems, and
/// only what names them is lost ([`crate::unusable`]).
///
/// # Errors
/// The file cannot be read, two rows have one `task_id`, or no row is a problem; the message is about the first.
pub fn read_each(path: &Path) -> Result<(Vec<Problem>, Vec<UnusableRow>)> {
    each(files::json_lines(path)?, path)
}

/// As [`read_each`], of the text of a problem file; messages speak of `problems`.
///
/// # Errors
/// As [`read_each`].
pub fn parse_each(text: &str) -> Result<(Vec<Problem>, Vec<UnusableRow>)> {
    let path = Path::new("problems");
    each(JsonLines::new(Box::new(Cursor::new(text.as_bytes().to_vec())), path), path)
}

fn each(mut rows: JsonLines<Row>, path: &Path) -> Result<(Vec<Problem>, Vec<UnusableRow>)> {
    let (mut ids, mut problems, mut unusable) = (Ids::default(), Vec::new(), Vec::new());
    let mut first = None;
    while let Some(row) = rows.next_or_bad()? {
        let read = match row {
            Ok((line, row)) => {
                let task_id = row.task_id.clone().filter(|id| !id.trim().is_empty());
                if let Some(id) = &task_id {
                    ids.take(path, line, Some(id.clone()))?;
                }
                problem(path, line, row).map_err(|error| (task_id, error))
            }
            Err(bad) => Err((unusable::task_id(&bad.text), bad.error)),
        };
        match read {
            Ok(problem) => problems.push(problem),
            Err((task_id, error)) => {
                unusable.push(UnusableRow { task_id, why: error.to_string() });
                first.get_or_insert(error);
            }
        }
    }
    if problems.is_empty() {
        return Err(first.unwrap_or_else(|| no_problem(path)));
    }
    Ok((problems, unusable))
}

fn no_problem(path: &Path) -> Error {
    Error::data(path, "no problem in this file (expected one JSON object a line)")
}

fn collect(rows: JsonLines<Row>, path: &Path) -> Result<Vec<Problem>> {
    let mut ids = Ids::default();
    let mut problems = Vec::new();
    for row in rows {
        let (line, row) = row?;
        ids.take(path, line, row.task_id.clone())?;
        problems.push(problem(path, line, row)?);
    }
    if problems.is_empty() {
        return Err(no_problem(path));
    }
    Ok(problems)
}

/// The problem of a row.
fn problem(path: &Path, line: usize, row: Row) -> Result<Problem> {
    let missing =
        |field: &str| Error::data_at(path, line, format!("no `{field}` in this row (not a problem?)"));
    let task_id = named(path, line, row.task_id)?;
    let prompt = row.prompt.ok_or_else(|| missing("prompt"))?;
    Ok(Problem {
        task_id,
        entry_point: row.entry_point.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| "none".into()),
        canonical_solutions: row.canonical_solution.unwrap_or_default(),
        test: row.test.ok_or_else(|| missing("test"))?,
        gold: row.gold.or_else(|| names_in_block(&prompt)),
        human: row.human,
        query: row.query,
        suffix: row.suffix,
        extra: row.extra,
        prompt,
    })
}

/// A row's task id.
fn named(path: &Path, line: usize, task_id: Option<String>) -> Result<String> {
    let task_id = task_id.filter(|id| !id.trim().is_empty());
    task_id.ok_or_else(|| Error::data_at(path, line, "no `task_id` in this row"))
}

/// Reads what the retriever is measured on: rows `{task_id, query, gold}`, or problems whose prompt has a `# [start]`
/// block: its names are the golden ones, and the question is the comments of the rest.
///
/// A row without any golden name is kept with none: it has nothing to be found, and recall passes over it.
///
/// # Errors
/// The file cannot be read; a row has neither `query` nor `prompt`, asks nothing, or repeats a `task_id`; or no row at
/// all has a golden name.
pub fn read_queries(path: &Path) -> Result<Vec<RetrievalQuery>> {
    let mut ids = Ids::default();
    let mut queries = Vec::new();
    for row in files::json_lines::<Row>(path)? {
        let (line, row) = row?;
        let task_id = ids.take(path, line, row.task_id)?;
        let from_prompt = row.prompt.as_deref().map(|text| prompt::query_from_context(prompt::split(text).1));
        let query = row
            .query
            .or(from_prompt)
            .ok_or_else(|| Error::data_at(path, line, "neither `query` nor `prompt` in this row"))?;
        let gold = row.gold.or_else(|| names_in_block(row.prompt.as_deref()?)).unwrap_or_default();
        if query.trim().is_empty() && !gold.is_empty() {
            return Err(Error::data_at(path, line, "the query is empty"));
        }
        queries.push(RetrievalQuery { task_id, query, gold });
    }
    if queries.iter().all(|query| query.gold.is_empty()) {
        let what = "no golden API in this file (expected `gold`, or prompts with a `# [start]` block)";
        return Err(Error::data(path, what));
    }
    Ok(queries)
}

fn names_in_block(text: &str) -> Option<Vec<String>> {
    let (apis, _) = prompt::split(text);
    (!apis.is_empty()).then(|| apis.into_iter().map(|api| api.name).collect())
}

/// The task ids seen so far, with their lines.
#[derive(Default)]
struct Ids(HashMap<String, usize>);

impl Ids {
    fn take(&mut self, path: &Path, line: usize, task_id: Option<String>) -> Result<String> {
        let task_id = named(path, line, task_id)?;
        match self.0.insert(task_id.clone(), line) {
            Some(first) => {
                Err(Error::data_at(path, line, format!("task_id `{task_id}` is in line {first} already")))
            }
            None => Ok(task_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    const BLOCK: &str =
        r##""# [start]\n# knit(a): Joins threads.\n# purl(): Turns.\n# [end]\n# tie two ends\nx =""##;

    #[test]
    fn problems_of_all_shapes() {
        let rows = format!(
            "{}\n\n{}\n",
            r#"{"task_id":"a","prompt":"p","entry_point":"f","canonical_solution":"s","test":"t","origin":{"x":1}}"#,
            format_args!(
                r#"{{"task_id":"b","prompt":{BLOCK},"canonical_solution":["s","u"],"test":"t","human":["knit"]}}"#
            ),
        );
        let problems = read(file(&rows).path()).unwrap();
        assert_eq!(problems[0].entry_point, "f");
        assert_eq!(problems[0].canonical_solutions, ["s"]);
        assert_eq!((&problems[0].gold, problems[0].extra["origin"]["x"].as_i64()), (&None, Some(1)));
        assert_eq!(problems[1].entry_point, "none");
        assert_eq!(problems[1].canonical_solutions, ["s", "u"]);
        assert_eq!(problems[1].gold.as_deref().unwrap(), ["knit", "purl"]);
        assert_eq!(problems[1].human.as_deref().unwrap(), ["knit"]);
        // what is written can be read again
        let again: Vec<String> =
            problems.iter().map(|problem| serde_json::to_string(problem).unwrap()).collect();
        assert_eq!(read(file(&again.join("\n")).path()).unwrap(), problems);
    }

    #[test]
    fn queries_from_rows_and_from_prompts() {
        let rows = format!(
            "{}\n{}\n{}",
            r#"{"task_id":"a","query":"join threads","gold":["knit"]}"#,
            format_args!(r#"{{"task_id":"b","prompt":{BLOCK}}}"#),
            r##"{"task_id":"c","prompt":"# nothing golden here\ny ="}"##,
        );
        let queries = read_queries(file(&rows).path()).unwrap();
        assert_eq!(
            (queries[0].query.as_str(), &queries[0].gold[..]),
            ("join threads", &["knit".to_owned()][..])
        );
        assert_eq!(queries[1].query, "tie two ends");
        assert_eq!(queries[1].gold, ["knit", "purl"]);
        assert!(queries[2].gold.is_empty());
    }

    #[test]
    fn faults_name_the_line() {
        for (rows, line, what) in [
            (
                "{\"task_id\":\"a\",\"prompt\":\"p\",\"test\":\"t\"}\n{\"task_id\":\"a\",\"prompt\":\"p\",\"test\":\"t\"}",
                2,
                "line 1 already",
            ),
            ("{\"task_id\":\"a\",\"prompt\":\"p\"}", 1, "no `test`"),
            ("{\"task_id\":\"a\",\"test\":\"t\"}", 1, "no `prompt`"),
            ("{\"prompt\":\"p\",\"test\":\"t\"}", 1, "no `task_id`"),
            (
                "\n{\"task_id\":\"a\",\"prompt\":\"p\",\"test\":\"t\",\"canonical_solution\":7}",
                2,
                "a string or a list",
            ),
            ("{\"task_id\":", 1, "bad row"),
            ("[1]", 1, "bad row"),
        ] {
            let file = file(rows);
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{line}: ", file.path().display())), "{error}");
            assert!(error.contains(what), "{error}");
        }
        assert!(read(file("").path()).unwrap_err().to_string().contains("no problem"));
        for (rows, what) in [
            ("{\"task_id\":\"a\",\"gold\":[\"x\"]}", "neither `query` nor `prompt`"),
            ("{\"task_id\":\"a\",\"query\":\" \",\"gold\":[\"x\"]}", "the query is empty"),
            ("{\"task_id\":\"a\",\"query\":\"q\"}", "no golden API"),
            ("", "no golden API"),
        ] {
            let error = read_queries(file(rows).path()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
