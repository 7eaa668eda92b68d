//! Rows of problem and sample files that cannot be used: one of them costs its own samples, never the run.

use evald_proto::{MAX_LINE_BYTES, Verdict};
use inhouse_core::Error;
use serde::Deserialize;
use serde_json::Map;

use crate::samples::Sample;

/// A row of a problem file that is no problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableRow {
    /// The problem's id, where it can be read.
    pub task_id: Option<String>,
    /// What is wrong, with file and line.
    pub why: String,
}

impl UnusableRow {
    /// The sample that stands for the problem where its own solution was to run.
    pub fn sample(&self) -> Sample {
        let task_id = self.task_id.clone().unwrap_or_default();
        Sample { task_id, unusable: Some(Unusable::problem(&self.why)), ..Sample::default() }
    }
}

/// Why a sample is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// [`Verdict::InfraError`] where nothing can be said of the program, which is then not counted;
    /// [`Verdict::CompileError`] where there is one and Python would not take it.
    pub verdict: Verdict,
    /// One line for people.
    pub detail: String,
}

impl Unusable {
    /// The problem cannot be used.
    pub fn problem(why: &str) -> Self {
        Self { verdict: Verdict::InfraError, detail: format!("not run, its problem cannot be used: {why}") }
    }

    /// The program of the sample of that number is over what evald takes.
    pub(crate) fn too_large(number: usize) -> Self {
        let detail = format!("sample {number}: its program and test are over evald's {MAX_LINE_BYTES} bytes");
        Self { verdict: Verdict::CompileError, detail }
    }
}

/// The sample of a row that cannot be used.
///
/// Half of a surrogate pair is no character, so that Python compiles no text with it: the program is there, and fails. Of
/// other rows nothing is known but, mostly, whose they are.
pub(crate) fn sample(text: &str, error: &Error) -> Sample {
    let mended = mend_surrogates(text).and_then(|mended| serde_json::from_str::<Sample>(&mended).ok());
    match mended {
        Some(sample) => {
            let detail = format!("{error}; half of a surrogate pair is no text that Python compiles");
            Sample { unusable: Some(Unusable { verdict: Verdict::CompileError, detail }), ..sample }
        }
        None => Sample {
            task_id: task_id(text).unwrap_or_default(),
            completion: String::new(),
            extra: Map::new(),
            unusable: Some(Unusable { verdict: Verdict::InfraError, detail: format!("not run: {error}") }),
        },
    }
}

/// The `task_id` of a row that is no whole row: of the object, or else of what its text looks like.
pub(crate) fn task_id(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        task_id: String,
    }
    // serde reads a list as a struct as well: by the order of its fields.
    if !text.trim_start().starts_with('{') {
        return None;
    }
    if let Ok(named) = serde_json::from_str::<Named>(text) {
        return Some(named.task_id);
    }
    let (_, rest) = text.split_once("\"task_id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let mut escaped = false;
    let end = rest.strip_prefix('"')?.find(|letter| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    })?;
    serde_json::from_str(&rest[..end + 2]).ok()
}

/// A row's text with U+FFFD for every half of a surrogate pair; `None` where there is none.
fn mend_surrogates(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut from, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                mended.push_str(&text[from..at]);
                mended.push_str("\\ufffd");
                at += 6;
                from = at;
            }
            Some(_) => at += 6,
            // The letter behind a backslash may be one.
            None => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    if from == 0 {
        return None;
    }
    mended.push_str(&text[from..]);
    Some(mended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn halves_of_pairs_are_mended_and_pairs_are_not() {
        assert_eq!(mend_surrogates(r#"a\ud83d\ude00 \\ud83d \n"#), None);
        assert_eq!(mend_surrogates(r"\ud83dx\ude00").as_deref(), Some(r"\ufffdx\ufffd"));
        assert_eq!(mend_surrogates(r"\\\udfff\").as_deref(), Some(r"\\\ufffd\"));
        assert_eq!(mend_surrogates(r"\ud83d\ud83d\ude00").as_deref(), Some(r"\ufffd\ud83d\ude00"));
        assert_eq!(mend_surrogates(r"\ud8"), None);
        assert_eq!(mend_surrogates("ü\\ü\\"), None);
    }

    #[test]
    fn a_broken_row_still_says_whose_it_is() {
        for (text, id) in [
            (r#"{"task_id":"T/1","completion":"#, Some("T/1")),
            (r#"{"completion": 3, "task_id" : "a\"b" }"#, Some("a\"b")),
            (r#"{"task_id": 7"#, None),
            (r#"{"task_id": "T"#, None),
            (r#"["T/1"]"#, None),
        ] {
            assert_eq!(task_id(text).as_deref(), id, "{text}");
        }
    }

    #[test]
    fn a_program_that_is_no_text_fails_and_a_broken_row_is_not_counted() {
        let error = Error::data_at(Path::new("s.jsonl"), 3, "bad row");
        let half = sample(r#"{"task_id":"T","completion":"x='\ud83d'","model":"m"}"#, &error);
        let why = half.unusable.expect("a reason");
        assert_eq!((half.task_id.as_str(), why.verdict), ("T", Verdict::CompileError));
        assert_eq!((half.completion.as_str(), half.extra.len()), ("x='\u{fffd}'", 1));
        assert!(why.detail.contains("s.jsonl:3") && why.detail.contains("surrogate"), "{}", why.detail);
        let torn = sample(r#"{"task_id":"T","compl"#, &error);
        let why = torn.unusable.expect("a reason");
        assert_eq!((torn.task_id.as_str(), why.verdict), ("T", Verdict::InfraError));
    }
}
