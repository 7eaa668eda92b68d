//! In whose names samples are written, and what is run of them.

use evald_proto::{Job, JobResult, Limits, TrustWish, Verdict};
use inhouse_core::Result;

use crate::judge;
use crate::problems::Problem;
use crate::rename::{Rules, Table};
use crate::samples::Sample;
use crate::twin::Twin;

/// In whose names samples are written.
#[derive(Debug, Clone, Default)]
pub enum Naming {
    /// As problems and tests are: they run as they stand.
    #[default]
    AsWritten,
    /// In private words, converted back before they run: the paper's way. Prompts in private words are converted too.
    ConvertBack {
        /// The words.
        table: Table,
        /// How they are converted, and what is refused.
        rules: Rules,
        /// Whether the prompts are in private words.
        prompts: bool,
    },
    /// In private words, run as they stand against an importable twin of the library.
    Private(Twin),
}

impl Naming {
    /// The paper's conversion for a set of problems.
    pub fn convert_back(table: Table, rules: Rules, problems: &[Problem]) -> Self {
        let prompts: String = problems.iter().map(|problem| problem.prompt.as_str()).collect();
        let prompts = table.speaks_private(&prompts);
        Self::ConvertBack { table, rules, prompts }
    }

    /// The job that decides one sample.
    pub(crate) fn job(
        &self,
        i: usize,
        problem: &Problem,
        sample: &Sample,
        limits: &Limits,
        trust: TrustWish,
    ) -> Result<Job> {
        let entry_point = judge::entry_point(problem)?.to_owned();
        let (prompt, suffix) = (problem.prompt.as_str(), problem.suffix.as_deref().unwrap_or_default());
        let test = problem.test.clone();
        let trust = Some(if trust == TrustWish::Auto && needs_one_process(problem) {
            TrustWish::InProcess
        } else {
            trust
        });
        let job = Job { id: i.to_string(), limits: limits.clone(), trust, ..Job::default() };
        Ok(match self {
            Self::AsWritten => {
                let code = format!("{prompt}{}{suffix}", sample.completion);
                Job { code, test, entry_point, prompt: prompt.to_owned(), ..job }
            }
            Self::ConvertBack { table, rules, prompts } => {
                let public = |text: &str| if *prompts { table.public_text(text) } else { text.to_owned() };
                let (prompt, suffix) = (public(prompt), public(suffix));
                let code = match rules.convert_back(table, &prompt, &sample.completion) {
                    Ok(completion) => format!("{prompt}{completion}{suffix}"),
                    Err(word) => refused(&word),
                };
                Job { code, test, entry_point, prompt, ..job }
            }
            // A twin looks at who calls: candidate and test share its process.
            Self::Private(twin) if speaks_private_tests(problem) => {
                let code = twin.candidate_program(&format!("{prompt}{}{suffix}", sample.completion), false);
                // The twin runs the test's text, so what it asserts is not seen from outside.
                let test = twin.private_test_program(&judge::test_program(problem)?);
                Job { code: format!("{code}{test}"), trust: Some(TrustWish::InProcess), ..job }
            }
            Self::Private(twin) => {
                let code = twin.candidate_program(&format!("{prompt}{}{suffix}", sample.completion), true);
                let test = twin.public_test_program(prompt, &test);
                Job { code, test, entry_point, trust: Some(TrustWish::InProcess), ..job }
            }
        })
    }

    /// A result in the terms of the sample, where a program stood between the sandbox and it.
    pub(crate) fn result(&self, mut result: JobResult) -> JobResult {
        if matches!(self, Self::Private(_))
            && result.verdict == Verdict::Failed
            && let Some(detail) = Twin::compile_error(&result.detail)
        {
            result.detail = detail.to_owned();
            result.verdict = Verdict::CompileError;
        }
        result
    }

    /// The package to import beforehand, and where it is written.
    pub(crate) fn twin(&self) -> Option<&Twin> {
        if let Self::Private(twin) = self { Some(twin) } else { None }
    }
}

/// A row with `"trust": "in_process"` has a test that looks at what a candidate does to its own process: to a library's registries.
fn needs_one_process(problem: &Problem) -> bool {
    problem.extra.get("trust").and_then(|value| value.as_str()) == Some(TrustWish::InProcess.as_str())
}

/// Published sets keep the public library's tests; a row with `"test_names": "private"` has tests in private words.
fn speaks_private_tests(problem: &Problem) -> bool {
    problem.extra.get("test_names").and_then(|value| value.as_str()) == Some("private")
}

/// What runs in the place of a completion that is refused: the paper's harness runs the text `error!`, which fails as well
/// but says nothing.
fn refused(word: &str) -> String {
    format!("raise NameError(\"the completion uses the public name `{word}`\")\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            task_id: "t".into(),
            prompt: "import monkey as mk\nkf = mk.KnowledgeFrame({'total_sum_of': [1]})\n".into(),
            entry_point: "none".into(),
            test: "def check():\n    assert df == pd.DataFrame({'sum_of': [1]})".into(),
            ..Problem::default()
        }
    }

    fn job(naming: &Naming, completion: &str) -> Job {
        let sample = Sample { task_id: "t".into(), completion: completion.into(), ..Sample::default() };
        naming.job(0, &problem(), &sample, &Limits::default(), TrustWish::Auto).unwrap()
    }

    #[test]
    fn completions_and_private_prompts_are_converted_back() {
        let table = Table::read(std::path::Path::new("monkey"), "").unwrap();
        let naming = Naming::convert_back(table.clone(), Rules::PUBLISHED, &[problem()]);
        let good = job(&naming, "x = kf.grouper('a')");
        assert_eq!(good.code, "import pandas as pd\ndf = pd.DataFrame({'sum_of': [1]})\nx = df.groupby('a')");
        assert!(good.test.starts_with("def check()") && good.entry_point.is_empty());
        assert!(good.prompt.starts_with("import pandas as pd\n"), "{}", good.prompt);
        assert!(job(&naming, "x = kf.groupby('a')").code.contains("public name `groupby`"));

        let public = Problem { prompt: "import pandas as pd\n".into(), ..problem() };
        let naming = Naming::convert_back(table, Rules::PUBLISHED, std::slice::from_ref(&public));
        assert!(matches!(naming, Naming::ConvertBack { prompts: false, .. }));
    }

    #[test]
    fn a_problem_may_say_that_its_test_needs_one_process() {
        let mut problem = problem();
        problem.extra.insert("trust".into(), "in_process".into());
        let sample = Sample { task_id: "t".into(), completion: "1".into(), ..Sample::default() };
        for (asked, got) in
            [(TrustWish::Auto, TrustWish::InProcess), (TrustWish::Isolated, TrustWish::Isolated)]
        {
            let job = Naming::AsWritten.job(0, &problem, &sample, &Limits::default(), asked).unwrap();
            assert_eq!(job.trust, Some(got));
        }
    }

    #[test]
    fn a_twin_runs_the_sample_as_it_stands() {
        let table = Table::read(std::path::Path::new("monkey"), "").unwrap();
        let naming = Naming::Private(Twin::new(&table, &[], Default::default()).unwrap());
        let job = job(&naming, "x = \"ü\\n\"");
        assert!(job.code.contains(r#"x = \"ü\\n\""#), "{}", job.code);
        assert_eq!(job.code.trim().lines().count(), 1);
        // The prompt's own words, in the test's strings too.
        assert!(job.test.contains("{'total_sum_of': [1]}"), "{}", job.test);
    }
}
