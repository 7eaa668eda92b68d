//! What is counted of the samples of one problem: all that tables and figures need, so that they need not read the samples.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use inhouse::{Engine, Result};
use inhouse_core::constrain::is_builtin_member;
use inhouse_core::prompt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::generate::ApiSetting;
use crate::problems::Problem;
use crate::recall::bare;

/// The counts of one problem in one cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The problem.
    pub task_id: String,
    /// Samples with a verdict; those that the sandbox failed on are not among them.
    pub n: u64,
    /// Samples that passed.
    pub passed: u64,
    /// Samples by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// Distinct golden APIs; `None` where the set names none for the problem.
    pub golden: Option<u64>,
    /// Of these, those that the prompt shows.
    pub golden_shown: u64,
    /// Golden APIs called, summed over samples.
    pub golden_called: u64,
    /// APIs that the prompt shows.
    pub shown: u64,
    /// Of these, those called, summed over samples.
    pub shown_called: u64,
    /// What samples do with APIs, where there is an index.
    pub uses: Option<Uses>,
}

/// Uses of APIs, over all samples of a problem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// Members of the library that the code resolves: `lib.name`, a method of an object whose class is known.
    pub resolved: u64,
    /// Of these, those that the documentation does not have and that do not exist undocumented either.
    pub unknown: u64,
    /// Calls that resolve and cannot succeed: arguments too many, too few or of no such name.
    pub misused: u64,
    /// Calls of methods on anything but other libraries' modules, those that Python's own types have left out.
    pub methods: u64,
    /// Of these, those whose name no API of the documentation has.
    pub methods_unknown: u64,
}

impl Uses {
    /// Share of resolved uses that the documentation does not have.
    pub fn hallucinated(&self) -> Option<f64> {
        (self.resolved > 0).then(|| self.unknown as f64 / self.resolved as f64)
    }

    /// Share of calls by name alone that the documentation does not have: it also sees objects whose class is unknown.
    pub fn hallucinated_by_name(&self) -> Option<f64> {
        (self.methods > 0).then(|| self.methods_unknown as f64 / self.methods as f64)
    }
}

impl std::iter::Sum for Uses {
    fn sum<I: Iterator<Item = Self>>(uses: I) -> Self {
        uses.fold(Self::default(), |a, b| Self {
            resolved: a.resolved + b.resolved,
            unknown: a.unknown + b.unknown,
            misused: a.misused + b.misused,
            methods: a.methods + b.methods,
            methods_unknown: a.methods_unknown + b.methods_unknown,
        })
    }
}

/// Counts rows of results.
pub(crate) struct Counter<'e> {
    engine: &'e Engine,
    documented: HashMap<String, bool>,
}

impl<'e> Counter<'e> {
    /// By the index of `engine`, where it has one.
    pub fn new(engine: &'e Engine) -> Self {
        Self { engine, documented: HashMap::new() }
    }

    /// The counts of every problem, in their order.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn count(
        &mut self,
        problems: &[Problem],
        setting: ApiSetting,
        rows: &[Map<String, Value>],
    ) -> Result<Vec<Tally>> {
        problems.iter().map(|problem| self.of_problem(problem, setting, rows)).collect()
    }

    fn of_problem(
        &mut self,
        problem: &Problem,
        setting: ApiSetting,
        rows: &[Map<String, Value>],
    ) -> Result<Tally> {
        let golden: Option<BTreeSet<&str>> =
            problem.gold.as_ref().map(|names| names.iter().map(|name| bare(name)).collect());
        let mut tally = Tally {
            task_id: problem.task_id.clone(),
            golden: golden.as_ref().map(|names| names.len() as u64),
            uses: self.engine.index().is_ok().then(Uses::default),
            ..Tally::default()
        };
        let golden = golden.unwrap_or_default();
        let (_, code) = prompt::split(&problem.prompt);
        let context = if setting == ApiSetting::AsIs { problem.prompt.as_str() } else { code };
        let text = |row: &Map<String, Value>, key: &str| {
            row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        for row in
            rows.iter().filter(|row| row.get("task_id").and_then(Value::as_str) == Some(&problem.task_id))
        {
            let verdict = text(row, "verdict");
            if verdict != "infra_error" {
                tally.n += 1;
                tally.passed += u64::from(row.get("passed").and_then(Value::as_bool) == Some(true));
            }
            *tally.verdicts.entry(verdict).or_default() += 1;
            let names =
                row.get("apis").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let shown: BTreeSet<String> = names.map(|name| bare(name).to_owned()).collect();
            // The prompt is the same for all samples of a problem.
            tally.shown = shown.len() as u64;
            tally.golden_shown = golden.iter().filter(|name| shown.contains(**name)).count() as u64;
            let called = self.called(context, &text(row, "completion"), row, &mut tally)?;
            tally.golden_called += golden.iter().filter(|name| called.contains(**name)).count() as u64;
            tally.shown_called += shown.iter().filter(|name| called.contains(*name)).count() as u64;
        }
        Ok(tally)
    }

    /// The bare names that a completion calls, or uses where they resolve.
    fn called(
        &mut self,
        context: &str,
        completion: &str,
        row: &Map<String, Value>,
        tally: &mut Tally,
    ) -> Result<HashSet<String>> {
        let calls = match self.engine.index() {
            Ok(_) => self.engine.api_calls(context, completion)?,
            Err(_) => inhouse_core::constrain::calls_in_completion(
                &inhouse_core::constrain::Library::new(&[]),
                context,
                completion,
            ),
        };
        let mut names: HashSet<String> = calls.calls.iter().map(|call| call.name.clone()).collect();
        let Some(mut uses) = tally.uses else { return Ok(names) };
        for found in row
            .get("api_report")
            .and_then(|report| report.get("uses"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            uses.resolved += 1;
            match found.get("verdict").and_then(Value::as_str) {
                Some("unknown_member") => uses.unknown += 1,
                Some("impossible_arity" | "unknown_keyword") => uses.misused += 1,
                _ => {}
            }
            names.extend(found.get("name").and_then(Value::as_str).map(|name| bare(name).to_owned()));
        }
        // Where the documentation does not say which library it is of, no import is known to be another's.
        let knows_libraries = self.engine.index().is_ok_and(|index| !index.info().libraries.is_empty());
        for call in &calls.calls {
            let is_method = completion.as_bytes()[..call.at.min(completion.len())].last() == Some(&b'.');
            let elsewhere = knows_libraries
                && call.root.as_ref().is_some_and(|root| {
                    calls.imports.iter().any(|(bound, full)| {
                        bound == root && !self.is_documented(full.split('.').next().unwrap_or(full))
                    })
                });
            if !is_method || elsewhere || is_builtin_member(&call.name) {
                continue;
            }
            uses.methods += 1;
            uses.methods_unknown += u64::from(!self.is_documented(&call.name));
        }
        tally.uses = Some(uses);
        Ok(names)
    }

    fn is_documented(&mut self, name: &str) -> bool {
        if let Some(known) = self.documented.get(name) {
            return *known;
        }
        let index = self.engine.index();
        let known = index.is_ok_and(|index| {
            index.info().libraries.contains_key(name) || index.find(name).is_ok_and(|found| !found.is_empty())
        });
        self.documented.insert(name.to_owned(), known);
        known
    }
}

#[cfg(test)]
mod tests {
    use inhouse::EngineOptions;
    use inhouse_core::ApiDoc;
    use inhouse_core::api::ApiKind;
    use inhouse_core::index::{BuildOptions, build};
    use inhouse_core::progress::Silent;
    use serde_json::json;

    use super::*;

    fn api(full: &str, kind: ApiKind) -> ApiDoc {
        let (module, name) = full.rsplit_once('.').unwrap();
        ApiDoc {
            name: name.into(),
            qualified_name: full.into(),
            module: module.into(),
            kind: Some(kind),
            signature: "(*args)".into(),
            ..ApiDoc::default()
        }
    }

    #[test]
    fn uses_are_counted_over_samples() {
        let folder = tempfile::tempdir().unwrap();
        let apis = [
            ApiDoc {
                name: "loom".into(),
                qualified_name: "loom".into(),
                kind: Some(ApiKind::Module),
                ..ApiDoc::default()
            },
            api("loom.weave", ApiKind::Function),
            api("loom.spin", ApiKind::Function),
        ];
        build(&apis, folder.path(), &BuildOptions::default(), &Silent).unwrap();
        let options = EngineOptions { index: Some(folder.path().into()), ..EngineOptions::default() };
        let engine = Engine::open(&options).unwrap();
        let problem = Problem {
            task_id: "t".into(),
            prompt: "import loom\nimport os\nx =".into(),
            gold: Some(vec!["loom.weave".into(), "spin".into()]),
            ..Problem::default()
        };
        let row = |completion: &str, verdict: &str, passed: bool| {
            let report = engine.api_report(&problem.prompt, completion).unwrap();
            let row = json!({"task_id": "t", "completion": completion, "apis": ["weave", "frog"], "verdict": verdict,
                             "passed": passed, "api_report": report});
            row.as_object().unwrap().clone()
        };
        let rows = [
            row(" loom.weave(1)", "passed", true),
            // Invented; another library's; Python's own; a name of the library on who knows what; one that it has not.
            row(" loom.knit(1)\nos.getcwd()\ny.append(1)\ny.spin()\ny.purl()", "failed", false),
            row(" (((", "infra_error", false),
        ];
        let tallies =
            Counter::new(&engine).count(std::slice::from_ref(&problem), ApiSetting::Top(2), &rows).unwrap();
        let [tally] = tallies.as_slice() else { panic!("{tallies:?}") };
        assert_eq!((tally.n, tally.passed, tally.verdicts["infra_error"]), (2, 1, 1));
        assert_eq!((tally.golden, tally.golden_shown, tally.golden_called), (Some(2), 1, 2));
        assert_eq!((tally.shown, tally.shown_called), (2, 1));
        let uses = tally.uses.unwrap();
        assert_eq!((uses.resolved, uses.unknown, uses.misused), (2, 1, 0));
        assert_eq!((uses.methods, uses.methods_unknown), (4, 2));
        assert_eq!((uses.hallucinated(), uses.hallucinated_by_name()), (Some(0.5), Some(0.5)));
    }
}
