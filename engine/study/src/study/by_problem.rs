//! Problem by problem: what each setting of each model made of it, down to completions and what became of them.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use inhouse::Result;
use inhouse_core::files;
use serde::Serialize;
use serde_json::{Map, Value};

use super::config::{ProblemSet, setting_title};
use super::results::Results;
use super::table::{aligned, quoted};
use super::tally::Tally;

/// Completions of a problem that are shown, of all the different ones.
const SHOWN: usize = 3;

/// One problem set: a row for each problem, a column for each setting of each model at its best temperature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ByProblem {
    /// The problem set.
    pub set: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The problems, in the order of the set.
    pub rows: Vec<ProblemRow>,
}

/// A setting of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// The model.
    pub model: String,
    /// Which APIs stand in the prompt.
    pub setting: String,
    /// The temperature that is best: in a table of problems for the smallest k.
    pub temperature: f32,
}

/// A problem, and what each column made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProblemRow {
    /// The problem.
    pub task_id: String,
    /// By column; `None` where it is not counted there.
    pub cells: Vec<Option<ProblemCell>>,
}

/// The samples of one problem in one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProblemCell {
    /// Their counts: passed of n, verdicts, APIs shown and called.
    #[serde(flatten)]
    pub tally: Tally,
    /// APIs that the prompt shows, by name.
    pub apis: Vec<String>,
    /// Some of the different completions, one of each verdict first.
    pub completions: Vec<ShownCompletion>,
}

/// A completion, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownCompletion {
    /// The code.
    pub completion: String,
    /// Its verdict.
    pub verdict: String,
    /// What the verdict says beside its name.
    pub detail: String,
    /// Samples that are this text with this verdict.
    pub samples: u64,
}

impl ByProblem {
    /// Of a set; `None` where nothing of it is complete.
    ///
    /// # Errors
    /// Results of the store that cannot be read.
    pub fn of(results: &Results, set: &ProblemSet) -> Result<Option<Self>> {
        let mut columns = Vec::new();
        let mut rows: Vec<ProblemRow> = Vec::new();
        for model in &results.config.models {
            for setting in results.settings(set, &model.name) {
                let Some((temperature, tallies)) = results.at_best(&set.name, &model.name, &setting) else {
                    continue;
                };
                let mut shown = completions(results, set, &model.name, &setting, temperature)?;
                for tally in tallies {
                    let at = rows.iter().position(|row| row.task_id == tally.task_id).unwrap_or_else(|| {
                        rows.push(ProblemRow { task_id: tally.task_id.clone(), cells: Vec::new() });
                        rows.len() - 1
                    });
                    let (apis, completions) = shown.remove(&tally.task_id).unwrap_or_default();
                    rows[at].cells.resize(columns.len(), None);
                    rows[at].cells.push(Some(ProblemCell { tally: tally.clone(), apis, completions }));
                }
                columns.push(Column { model: model.name.clone(), setting, temperature });
            }
        }
        rows.iter_mut().for_each(|row| row.cells.resize(columns.len(), None));
        let set = set.name.clone();
        Ok((!columns.is_empty()).then_some(Self { set, columns, rows }))
    }

    /// All sets of a study.
    ///
    /// # Errors
    /// As [`ByProblem::of`].
    pub fn all(results: &Results) -> Result<Vec<Self>> {
        let of = |set| Self::of(results, set).transpose();
        results.config.problems.iter().filter_map(of).collect()
    }

    /// For people: passed of n, problem by setting.
    pub fn text(&self) -> String {
        let mut lines = vec![vec![self.set.clone()]];
        lines[0].extend(self.columns.iter().map(Column::title));
        for row in &self.rows {
            let cell = |cell: &Option<ProblemCell>| match cell {
                Some(ProblemCell { tally, .. }) => {
                    format!("{}/{} {}", tally.passed, tally.n, verdicts(tally))
                }
                None => "-".into(),
            };
            lines.push([row.task_id.clone()].into_iter().chain(row.cells.iter().map(cell)).collect());
        }
        aligned(&lines)
    }

    /// For programs: a line for each problem and column.
    pub fn csv(tables: &[Self]) -> String {
        let mut out = String::from(
            "set,task_id,model,setting,temperature,n,passed,verdicts,golden,golden_shown,golden_called,shown,shown_called\n",
        );
        for table in tables {
            for row in &table.rows {
                for (column, cell) in table.columns.iter().zip(&row.cells) {
                    let Some(ProblemCell { tally, .. }) = cell else { continue };
                    let verdicts: Vec<String> =
                        tally.verdicts.iter().map(|(name, n)| format!("{name}={n}")).collect();
                    let _ = writeln!(
                        out,
                        "{},{},{},{},{},{},{},{},{},{},{},{},{}",
                        quoted(&table.set),
                        quoted(&row.task_id),
                        quoted(&column.model),
                        column.setting,
                        column.temperature,
                        tally.n,
                        tally.passed,
                        verdicts.join(" "),
                        tally.golden.map_or(String::new(), |golden| golden.to_string()),
                        tally.golden_shown,
                        tally.golden_called,
                        tally.shown,
                        tally.shown_called,
                    );
                }
            }
        }
        out
    }
}

impl Column {
    /// As a table heads it.
    pub fn title(&self) -> String {
        format!("{}, {}", self.model, setting_title(&self.setting))
    }
}

/// What did not pass, the most frequent first: `failed 3, error 1`.
pub(super) fn verdicts(tally: &Tally) -> String {
    let mut found: Vec<(&String, &u64)> =
        tally.verdicts.iter().filter(|(name, _)| *name != "passed").collect();
    found.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    found.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

type OfProblems = HashMap<String, (Vec<String>, Vec<ShownCompletion>)>;

/// The APIs shown and the completions to show of each problem of a cell. Rows that are gone (a store may be kept without
/// them) leave the counts.
fn completions(
    results: &Results,
    set: &ProblemSet,
    model: &str,
    setting: &str,
    temperature: f32,
) -> Result<OfProblems> {
    let text = |row: &Map<String, Value>, key: &str| {
        row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut found: HashMap<String, (Vec<String>, BTreeMap<(String, String), ShownCompletion>)> =
        HashMap::new();
    for path in results.result_files(&set.name, model, setting, temperature) {
        if !path.exists() {
            continue;
        }
        for row in files::json_lines::<Map<String, Value>>(&path)? {
            let (_, row) = row?;
            let (apis, texts) = found.entry(text(&row, "task_id")).or_default();
            let names = row.get("apis").and_then(Value::as_array).into_iter().flatten();
            *apis = names.filter_map(Value::as_str).map(str::to_owned).collect();
            let (verdict, completion) = (text(&row, "verdict"), text(&row, "completion"));
            let one = texts.entry((verdict.clone(), completion.clone())).or_insert_with(|| ShownCompletion {
                completion,
                verdict,
                detail: text(&row, "detail"),
                samples: 0,
            });
            one.samples += 1;
        }
    }
    let chosen = |texts: BTreeMap<(String, String), ShownCompletion>| {
        let mut all: Vec<ShownCompletion> = texts.into_values().collect();
        all.sort_by(|a, b| b.samples.cmp(&a.samples).then(a.completion.cmp(&b.completion)));
        let mut seen: Vec<String> = Vec::new();
        let (mut first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| {
            let new = !seen.contains(&one.verdict);
            seen.push(one.verdict.clone());
            new
        });
        first.extend(rest);
        first.truncate(SHOWN);
        first
    };
    Ok(found.into_iter().map(|(id, (apis, texts))| (id, (apis, chosen(texts)))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::store;
    use super::super::report;
    use super::*;

    #[test]
    fn figures_lead_to_problems_and_problems_to_completions() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results::read(&store(folder.path(), "m", &[true, false, false])).unwrap();
        let tables = ByProblem::all(&results).unwrap();
        let [table] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!((table.columns.len(), table.rows.len(), table.rows[1].task_id.as_str()), (1, 3, "t/1"));
        let cell = table.rows[1].cells[0].as_ref().unwrap();
        assert_eq!((cell.tally.passed, cell.tally.n, cell.apis.as_slice()), (0, 1, &["bake".to_owned()][..]));
        let shown = &cell.completions[0];
        assert_eq!((shown.verdict.as_str(), shown.detail.as_str()), ("failed", "AssertionError: <3> & 4"));
        assert!(table.text().contains("0/1 failed 1"), "{}", table.text());
        assert_eq!(ByProblem::csv(&tables).lines().nth(2), Some("A,t/1,m,none,0,1,0,failed=1,,0,0,0,0"));

        let html = report::html(&results).unwrap();
        for part in [
            "href=\"#problems-0\"",
            "id=\"problems-0\"",
            "href=\"#p0-1-0\">0 of 1",
            "id=\"p0-1-0\"",
            "AssertionError: &lt;3&gt; &amp; 4",
            "x = 1 &lt; 9",
        ] {
            assert!(html.contains(part), "{part}");
        }
        assert!(
            !html.contains("src=") && !html.contains("href=\"http"),
            "the report asks for something from elsewhere"
        );
    }

    #[test]
    fn of_many_completions_one_of_each_verdict_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "m", &[false]);
        let results = Results::read(&store).unwrap();
        let file = results.result_files("A", "m", "none", 0.0).next().unwrap();
        let row = |verdict: &str, text: &str| {
            format!("{{\"task_id\": \"t/0\", \"completion\": \"{text}\", \"verdict\": \"{verdict}\"}}\n")
        };
        let rows = [("failed", "a"), ("failed", "a"), ("failed", "b"), ("failed", "c"), ("error", "d")];
        std::fs::write(&file, rows.map(|(verdict, text)| row(verdict, text)).concat()).unwrap();
        let table = ByProblem::all(&results).unwrap().remove(0);
        let shown = &table.rows[0].cells[0].as_ref().unwrap().completions;
        let shown: Vec<_> = shown.iter().map(|one| (one.completion.as_str(), one.samples)).collect();
        assert_eq!(shown, [("a", 2), ("d", 1), ("b", 1)]);
        // Without the rows the counts stay.
        std::fs::remove_file(&file).unwrap();
        let table = ByProblem::all(&results).unwrap().remove(0);
        assert!(table.rows[0].cells[0].as_ref().unwrap().completions.is_empty());
    }
}
