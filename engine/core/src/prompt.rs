//! The prompt: API lines in front of a context, as in the paper's Figure 3 (arXiv 2210.17236), and back.
//!
//! ```text
//! # [start]
//! # name(signature): First sentence.
//! # [end]
//! <the user's context>
//! ```

mod query;

pub use query::query_from_context;

use crate::api::ApiDoc;
use crate::{Error, ErrorKind, Result};

const START: &str = "# [start]";
const END: &str = "# [end]";

/// Tokens that a prompt may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most tokens, counted by the function given with it.
    pub tokens: usize,
}

/// A prompt and what had to be left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The text for the model.
    pub text: String,
    /// How many of the APIs are in it: the first ones of the list.
    pub apis_used: usize,
    /// Whether lines at the beginning of the context are missing.
    pub context_truncated: bool,
}

/// Puts the lines of `apis` before `context`, which stays unchanged; without any API there is no block.
///
/// Over the budget, APIs are dropped from the end of the list as long as one stays. Where even one does not fit before
/// the whole context, the context gives way: the block keeps the APIs that fit into half of the budget, and of the context
/// the tail that fits after them, cut at the beginning of a line. `count_tokens` is asked a few times, for whole prompts.
///
/// # Errors
/// Not even the last line of the context fits ([`ErrorKind::LimitExceeded`]); whatever `count_tokens` reports.
pub fn assemble(
    apis: &[ApiDoc],
    context: &str,
    budget: Option<Budget>,
    count_tokens: &dyn Fn(&str) -> Result<usize>,
) -> Result<Prompt> {
    let lines: Vec<String> = apis.iter().map(|api| format!("# {}\n", api.prompt_line())).collect();
    let text = |n_apis: usize, context: &str| {
        if n_apis == 0 {
            context.to_owned()
        } else {
            format!("{START}\n{}{END}\n{context}", lines[..n_apis].concat())
        }
    };
    let whole = Prompt { text: text(apis.len(), context), apis_used: apis.len(), context_truncated: false };
    let Some(Budget { tokens: limit }) = budget else {
        return Ok(whole);
    };
    let fits = |text: &str| Ok(count_tokens(text)? <= limit);
    if fits(&whole.text)? {
        return Ok(whole);
    }
    if let Some(i) = last_that_fits(apis.len(), |i| fits(&text(i + 1, context)))? {
        return Ok(Prompt { text: text(i + 1, context), apis_used: i + 1, context_truncated: false });
    }
    // The lines kept are counted from the end, so that more of them is longer.
    let mut starts: Vec<usize> = context.match_indices('\n').map(|(i, _)| i + 1).collect();
    starts.retain(|&start| start < context.len());
    starts.reverse();
    starts.push(0);
    let half = last_that_fits(apis.len(), |i| Ok(count_tokens(&text(i + 1, ""))? <= limit / 2))?;
    for n_apis in [half.map_or(0, |i| i + 1), 0] {
        if let Some(i) = last_that_fits(starts.len(), |i| fits(&text(n_apis, &context[starts[i]..])))? {
            let tail = &context[starts[i]..];
            return Ok(Prompt {
                text: text(n_apis, tail),
                apis_used: n_apis,
                context_truncated: starts[i] > 0,
            });
        }
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        format!("not even the last line of the context fits into {limit} tokens: allow a longer prompt"),
    ))
}

/// The last of `0..n` that fits, for things that grow, by bisection. Token counts grow only nearly with the text (tokens
/// merge over line ends): the answer was asked and fits, but a longer one might have fitted too.
fn last_that_fits(n: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low.checked_sub(1))
}

/// One API line of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptApi {
    /// The name before the signature.
    pub name: String,
    /// The line without its `# `.
    pub line: String,
}

impl PromptApi {
    /// The record that the line was written from, as far as the line tells: [`ApiDoc::prompt_line`] gives the line again.
    pub fn to_doc(&self) -> ApiDoc {
        let rest = self.line.strip_prefix(self.name.as_str()).unwrap_or_default();
        let mut depth = 0usize;
        // The description begins after the first `: ` outside brackets; those inside belong to annotations.
        let colon = rest.char_indices().find(|&(at, c)| {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && rest[at..].starts_with(": ")
        });
        let (signature, description) = match colon {
            Some((at, _)) => (&rest[..at], &rest[at + 2..]),
            None => (rest, ""),
        };
        ApiDoc {
            name: self.name.clone(),
            signature: signature.to_owned(),
            description: description.to_owned(),
            ..ApiDoc::default()
        }
    }
}

/// Takes a prompt apart: the APIs of a `# [start]` block at its beginning, and the context after it.
///
/// A prompt without a complete block is all context.
pub fn split(prompt: &str) -> (Vec<PromptApi>, &str) {
    let mut rest = prompt;
    let mut next_line = || {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let found = !rest.is_empty();
        rest = after;
        found.then_some((line.trim_end(), after))
    };
    if next_line().is_none_or(|(line, _)| line != START) {
        return (Vec::new(), prompt);
    }
    let mut apis = Vec::new();
    while let Some((line, after)) = next_line() {
        if line == END {
            return (apis, after);
        }
        let Some(line) = line.strip_prefix('#') else {
            break;
        };
        let line = line.trim();
        if !line.is_empty() {
            let name = line.split(['(', ':']).next().unwrap_or(line).trim();
            apis.push(PromptApi { name: name.to_owned(), line: line.to_owned() });
        }
    }
    (Vec::new(), prompt)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn api(name: &str, signature: &str, description: &str) -> ApiDoc {
        ApiDoc {
            name: name.into(),
            signature: signature.into(),
            description: description.into(),
            ..ApiDoc::default()
        }
    }

    fn three() -> Vec<ApiDoc> {
        vec![
            api("weave", "(a, b=1)", "Weaves\n two things."),
            api("Loom", "", "A loom."),
            api("knot", "(*threads: 'Thread') -> 'Rope'", ""),
        ]
    }

    fn words(text: &str) -> Result<usize> {
        Ok(text.split_whitespace().count())
    }

    #[test]
    fn a_line_gives_its_record_back() {
        let prompt = assemble(&three(), "x =", None, &words).unwrap();
        for (written, read) in three().iter().zip(split(&prompt.text).0) {
            assert_eq!(read.to_doc().prompt_line(), written.prompt_line());
            assert_eq!((&read.to_doc().name, &read.to_doc().signature), (&written.name, &written.signature));
        }
    }

    #[test]
    fn the_figure() {
        let prompt = assemble(&three(), "import loom\nx =", None, &words).unwrap();
        let expected = "# [start]\n\
                        # weave(a, b=1): Weaves two things.\n\
                        # Loom: A loom.\n\
                        # knot(*threads: 'Thread') -> 'Rope'\n\
                        # [end]\n\
                        import loom\nx =";
        assert_eq!(prompt, Prompt { text: expected.into(), apis_used: 3, context_truncated: false });
        let (apis, context) = split(&prompt.text);
        assert_eq!(apis.iter().map(|api| api.name.as_str()).collect::<Vec<_>>(), ["weave", "Loom", "knot"]);
        assert_eq!(apis[1].line, "Loom: A loom.");
        assert_eq!(context, "import loom\nx =");
    }

    #[test]
    fn without_apis_there_is_no_block() {
        assert_eq!(assemble(&[], "x =", None, &words).unwrap().text, "x =");
        assert_eq!(split("x =\n# [start]\n# a\n# [end]\n"), (vec![], "x =\n# [start]\n# a\n# [end]\n"));
        for whole in [
            "",
            "# [start]",
            "# [start]\n# a(b)\nx = 1\n# [end]\n",
            "# [start]\n# a(b)\n",
            "#[start]\n# [end]\n",
        ] {
            assert_eq!(split(whole), (vec![], whole));
        }
        assert_eq!(split("# [start]\r\n# a(b)\r\n#\n# [end]\r\nx\r\n").1, "x\r\n");
        assert_eq!(split("# [start]\n# [end]"), (vec![], ""));
    }

    #[test]
    fn a_long_context_gives_way_to_its_apis() {
        let context: String = (0..40).map(|i| format!("line {i}\n")).collect();
        let prompt = assemble(&three(), &context, Some(Budget { tokens: 30 }), &words).unwrap();
        // The block of the first API has 10 words, of the first two 13: within half of 30. 17 words are 8 lines.
        assert_eq!((prompt.apis_used, prompt.context_truncated), (2, true));
        assert!(prompt.text.starts_with("# [start]\n# weave(a, b=1)"), "{}", prompt.text);
        assert!(
            prompt.text.ends_with("line 38\nline 39\n") && prompt.text.contains("# [end]\nline 32\n"),
            "{}",
            prompt.text
        );
    }

    #[test]
    fn a_budget_drops_apis_from_the_end_then_lines_from_the_beginning() {
        let context = "import loom\na = 1\n\nx =";
        let n_words =
            |n_apis| words(&assemble(&three()[..n_apis], context, None, &words).unwrap().text).unwrap();
        for n_apis in 0..=3 {
            let budget = Some(Budget { tokens: n_words(n_apis) });
            let prompt = assemble(&three(), context, budget, &words).unwrap();
            assert_eq!((prompt.apis_used, prompt.context_truncated), (n_apis, false));
            assert!(prompt.text.ends_with(context));
        }
        for (tokens, tail) in [(6, "a = 1\n\nx ="), (5, "a = 1\n\nx ="), (4, "\nx ="), (2, "\nx =")] {
            let prompt = assemble(&three(), context, Some(Budget { tokens }), &words).unwrap();
            assert_eq!(prompt, Prompt { text: tail.into(), apis_used: 0, context_truncated: true });
        }
        for context in [context, "one line", "one line\n"] {
            let error = assemble(&three(), context, Some(Budget { tokens: 1 }), &words).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        }
        assert_eq!(assemble(&three(), "", Some(Budget { tokens: 0 }), &words).unwrap().text, "");
    }

    #[test]
    fn tokens_are_counted_a_few_times_only() {
        let calls = Cell::new(0);
        let count = |text: &str| {
            calls.set(calls.get() + 1);
            words(text)
        };
        let apis = vec![api("weave", "", ""); 1000];
        let prompt = assemble(&apis, &"x = 1\n".repeat(1000), Some(Budget { tokens: 100 }), &count).unwrap();
        // Half of the budget for 23 APIs of two words and the four words around them, the rest for 16 lines.
        assert_eq!((prompt.apis_used, prompt.text.matches("x = 1\n").count()), (23, 16));
        assert!(calls.get() < 40, "{}", calls.get());
    }

    #[test]
    fn a_failing_counter_is_reported() {
        let fail = |_: &str| Err(Error::new(ErrorKind::Backend, "no tokenizer"));
        let error = assemble(&three(), "x", Some(Budget { tokens: 5 }), &fail).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
    }

    proptest! {
        #[test]
        fn the_block_is_read_back_whatever_the_texts(
            texts in proptest::collection::vec(("[A-Za-z_][A-Za-z0-9_]{0,8}", "(\\([^\\r]{0,20}\\))?", "\\PC{0,20}|[\\n# \\[end\\]a]{0,12}"), 1..5),
            context in "(\\PC|\\n){0,60}",
        ) {
            let apis: Vec<ApiDoc> = texts.iter().map(|(name, signature, description)| api(name, signature, description)).collect();
            let prompt = assemble(&apis, &context, None, &words).unwrap();
            let (read, rest) = split(&prompt.text);
            prop_assert_eq!(rest, &context);
            let names: Vec<&str> = read.iter().map(|api| api.name.as_str()).collect();
            prop_assert_eq!(names, texts.iter().map(|(name, _, _)| name.as_str()).collect::<Vec<_>>());
        }

        #[test]
        fn nothing_panics(prompt in "(# \\[start\\]\n)?(# [a(:]{0,3}\n){0,3}(# \\[end\\]\n)?(\\PC|\n){0,30}", tokens in 0usize..12) {
            let (_, context) = split(&prompt);
            let _ = assemble(&three(), context, Some(Budget { tokens }), &words);
            let _ = query_from_context(context);
        }
    }
}
