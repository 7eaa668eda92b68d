//! The prompt: API lines in front of a context, as in the paper's Figure 3 (arXiv 2210.17236), and back.
//!
//! ```text
//! # [start]
//! # name(signature): First sentence.
//! # [end]
//! <the user's context>
//! ```
//!
//! Where examples are asked for, calls of an API stand below its line ([`Block::examples`]):
//!
//! ```text
//! # weave(a, b=1): Weaves two things.
//! #   cloth = weave(warp, weft)
//! ```

mod block;
mod draft;
mod examples;
mod format;
mod query;

pub use block::{Block, block};
pub use draft::query_from_draft;
pub use examples::example_calls;
pub(crate) use examples::one_line;
pub use format::{Format, Writer};
pub use query::query_from_context;

use block::{END, EXAMPLE, Part, START, first_examples, write_block, write_some};

use crate::api::ApiDoc;
use crate::{Error, ErrorKind, Result};

/// Tokens that a prompt may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most tokens, counted by the function given with it.
    pub tokens: usize,
}

/// The code around the cursor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Draft<'a> {
    /// The code before it.
    pub prefix: &'a str,
    /// The code after it, where the middle is to be filled in.
    pub suffix: Option<&'a str>,
}

impl<'a> From<&'a str> for Draft<'a> {
    fn from(prefix: &'a str) -> Self {
        Self { prefix, suffix: None }
    }
}

/// A prompt and what had to be left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The API lines and the code before the cursor.
    pub text: String,
    /// The code after the cursor, where there is a suffix.
    pub suffix: Option<String>,
    /// How many of the APIs are in it: the first ones of the list.
    pub apis_used: usize,
    /// How many example calls stand below the lines of these.
    pub examples_used: usize,
    /// Whether lines at the beginning of the prefix are missing, or at the end of the suffix.
    pub context_truncated: bool,
}

/// Puts the block of APIs before the code in front of the cursor, which stays unchanged; without any API there is no block.
///
/// Over the budget, examples are left out first, the last ones of every API before the first ones of any. Then APIs are dropped
/// from the end of the list as long as one stays. Where even one does not fit with the
/// whole code, the code gives way: the block keeps the APIs that fit into half of the budget, and of the code what is nearest
/// to the cursor stays: the end of the prefix, cut at the beginning of a line, and the beginning of the suffix, cut at the
/// end of one. The suffix gets a quarter of the room, and more where the prefix leaves it.
///
/// `count_tokens` is asked a few times, for whole prompts (the text, the suffix): what it answers may hold more than the
/// texts. A code far beyond the budget is never counted as a whole, so that the work is bounded by the budget.
///
/// # Errors
/// Not even the last line of the prefix fits ([`ErrorKind::LimitExceeded`]); whatever `count_tokens` reports.
pub fn assemble<'a>(
    block: impl Into<Block<'a>>,
    draft: Draft<'_>,
    budget: Option<Budget>,
    count_tokens: &dyn Fn(&str, Option<&str>) -> Result<usize>,
) -> Result<Prompt> {
    let Block { apis, examples } = block.into();
    let parts: Vec<Part> = apis.iter().map(|api| Part::new(api, examples)).collect();
    let n_examples: usize = parts.iter().map(|part| part.examples.len()).sum();
    let with_examples = |n: usize| write_some(&parts, &first_examples(&parts, n)) + draft.prefix;
    let text = |n_apis: usize, prefix: &str| write_block(&parts[..n_apis], 0) + prefix;
    let prompt = |n_apis: usize, prefix: &str, suffix: Option<&str>| Prompt {
        text: text(n_apis, prefix),
        suffix: suffix.map(str::to_owned),
        apis_used: n_apis,
        examples_used: 0,
        context_truncated: prefix.len() < draft.prefix.len()
            || suffix.map(str::len) < draft.suffix.map(str::len),
    };
    let whole = |n: usize| Prompt {
        text: with_examples(n),
        examples_used: n,
        ..prompt(apis.len(), draft.prefix, draft.suffix)
    };
    let Some(Budget { tokens: limit }) = budget else {
        return Ok(whole(n_examples));
    };
    let measure = Measure { limit, count_tokens };
    if !measure.far_beyond(draft)? {
        let fits = |n_apis| measure.fits(&text(n_apis, draft.prefix), draft.suffix);
        if fits(apis.len())? {
            let fits = |n: usize| measure.fits(&with_examples(n), draft.suffix);
            return Ok(match n_examples > 0 && fits(n_examples)? {
                true => whole(n_examples),
                false => whole(last_that_fits(n_examples, |i| fits(i + 1))?.map_or(0, |i| i + 1)),
            });
        }
        if let Some(i) = last_that_fits(apis.len(), |i| fits(i + 1))? {
            return Ok(prompt(i + 1, draft.prefix, draft.suffix));
        }
    }
    // Shortest first: more lines are longer.
    let mut starts: Vec<usize> = draft.prefix.match_indices('\n').map(|(i, _)| i + 1).collect();
    starts.retain(|&start| start < draft.prefix.len());
    starts.reverse();
    starts.push(0);
    let empty = draft.suffix.map(|_| "");
    let half = last_that_fits(apis.len(), |i| Ok(measure.count(&text(i + 1, ""), empty)? <= limit / 2))?;
    for n_apis in [half.map_or(0, |i| i + 1), 0] {
        let block = text(n_apis, "");
        let mut suffix = empty;
        if let Some(whole) = draft.suffix {
            let room = limit.saturating_sub(measure.count(&block, empty)?);
            suffix = Some(head_that_fits(whole, |head| {
                Ok(measure.count(&block, Some(head))? <= limit - room + room / 4)
            })?);
        }
        let fits = |i: usize| measure.fits(&text(n_apis, &draft.prefix[starts[i]..]), suffix);
        if let Some(i) = last_that_fits(starts.len(), fits)? {
            let prefix = &draft.prefix[starts[i]..];
            if let Some(whole) = draft.suffix.filter(|_| starts[i] == 0) {
                let before = text(n_apis, prefix);
                let more = head_that_fits(whole, |head| measure.fits(&before, Some(head)))?;
                suffix = suffix.map(|suffix| if more.len() > suffix.len() { more } else { suffix });
            }
            return Ok(prompt(n_apis, prefix, suffix));
        }
    }
    Err(Error::new(
        ErrorKind::LimitExceeded,
        format!("not even the last line of the context fits into {limit} tokens: allow a longer prompt"),
    ))
}

/// A token stands for no more bytes than this on the average of a long text: code has three to five. What is longer is judged
/// by the part of this length that is nearest to the cursor.
const BYTES_PER_TOKEN: usize = 16;

/// Counts prompts against the budget.
struct Measure<'c> {
    limit: usize,
    count_tokens: &'c dyn Fn(&str, Option<&str>) -> Result<usize>,
}

impl Measure<'_> {
    fn count(&self, text: &str, suffix: Option<&str>) -> Result<usize> {
        (self.count_tokens)(text, suffix)
    }

    fn fits(&self, text: &str, suffix: Option<&str>) -> Result<bool> {
        Ok(!self.far_beyond(Draft { prefix: text, suffix })? && self.count(text, suffix)? <= self.limit)
    }

    /// Whether a part of a very long text is beyond the budget by itself.
    fn far_beyond(&self, draft: Draft<'_>) -> Result<bool> {
        let near = self.limit.saturating_add(16).saturating_mul(BYTES_PER_TOKEN);
        let suffix = draft.suffix.unwrap_or_default();
        let empty = draft.suffix.map(|_| "");
        if draft.prefix.len() / 2 > near {
            let tail = &draft.prefix[draft.prefix.ceil_char_boundary(draft.prefix.len() - near)..];
            if self.count(tail, empty)? > self.limit {
                return Ok(true);
            }
        }
        Ok(suffix.len() / 2 > near
            && self.count("", Some(&suffix[..suffix.floor_char_boundary(near)]))? > self.limit)
    }
}

/// The longest beginning of `text` that fits, cut at the end of a line.
fn head_that_fits(text: &str, fits: impl Fn(&str) -> Result<bool>) -> Result<&str> {
    let mut ends: Vec<usize> = text.match_indices('\n').map(|(i, _)| i + 1).collect();
    if ends.last() != Some(&text.len()) {
        ends.push(text.len());
    }
    Ok(match last_that_fits(ends.len(), |i| fits(&text[..ends[i]]))? {
        Some(i) => &text[..ends[i]],
        None => "",
    })
}

/// The last of `0..n` that fits, for things that grow: in steps that double, so that nothing much longer is looked at, then by
/// bisection. Token counts grow only nearly with the text (tokens merge over line ends): the answer was asked and fits, but a
/// longer one might have fitted too.
fn last_that_fits(n: usize, fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut low, mut high, mut step) = (0, n, 1);
    while low < high {
        let at = (low + step).min(high) - 1;
        if !fits(at)? {
            high = at;
            break;
        }
        low = at + 1;
        step *= 2;
    }
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
    /// The example calls below it.
    pub examples: Vec<String>,
}

impl PromptApi {
    /// The record that the line was written from, as far as the line tells: [`ApiDoc::prompt_line`] gives the line again,
    /// and [`example_calls`] the examples below it.
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
            examples: self.examples.clone(),
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
    let mut apis: Vec<PromptApi> = Vec::new();
    while let Some((line, after)) = next_line() {
        if line == END {
            return (apis, after);
        }
        if let (Some(example), Some(api)) = (line.strip_prefix(EXAMPLE), apis.last_mut()) {
            api.examples.push(example.trim().to_owned());
            continue;
        }
        let Some(line) = line.strip_prefix('#') else {
            break;
        };
        let line = line.trim();
        if !line.is_empty() {
            let name = line.split(['(', ':']).next().unwrap_or(line).trim();
            apis.push(PromptApi { name: name.to_owned(), line: line.to_owned(), examples: Vec::new() });
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

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn counted(text: &str, suffix: Option<&str>) -> Result<usize> {
        Ok(words(text) + suffix.map_or(0, words))
    }

    #[test]
    fn a_line_gives_its_record_back() {
        let prompt = assemble(&three(), "x =".into(), None, &counted).unwrap();
        for (written, read) in three().iter().zip(split(&prompt.text).0) {
            assert_eq!(read.to_doc().prompt_line(), written.prompt_line());
            assert_eq!((&read.to_doc().name, &read.to_doc().signature), (&written.name, &written.signature));
        }
    }

    #[test]
    fn the_figure() {
        let prompt = assemble(&three(), "import loom\nx =".into(), None, &counted).unwrap();
        let expected = "# [start]\n\
                        # weave(a, b=1): Weaves two things.\n\
                        # Loom: A loom.\n\
                        # knot(*threads: 'Thread') -> 'Rope'\n\
                        # [end]\n\
                        import loom\nx =";
        let whole = Prompt {
            text: expected.into(),
            suffix: None,
            apis_used: 3,
            examples_used: 0,
            context_truncated: false,
        };
        assert_eq!(prompt, whole);
        let (apis, context) = split(&prompt.text);
        assert_eq!(apis.iter().map(|api| api.name.as_str()).collect::<Vec<_>>(), ["weave", "Loom", "knot"]);
        assert_eq!(apis[1].line, "Loom: A loom.");
        assert_eq!(context, "import loom\nx =");
    }

    #[test]
    fn without_apis_there_is_no_block() {
        assert_eq!(assemble(&[], "x =".into(), None, &counted).unwrap().text, "x =");
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
        let prompt =
            assemble(&three(), context.as_str().into(), Some(Budget { tokens: 30 }), &counted).unwrap();
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
            |n_apis| words(&assemble(&three()[..n_apis], context.into(), None, &counted).unwrap().text);
        for n_apis in 0..=3 {
            let budget = Some(Budget { tokens: n_words(n_apis) });
            let prompt = assemble(&three(), context.into(), budget, &counted).unwrap();
            assert_eq!((prompt.apis_used, prompt.context_truncated), (n_apis, false));
            assert!(prompt.text.ends_with(context));
        }
        for (tokens, tail) in [(6, "a = 1\n\nx ="), (5, "a = 1\n\nx ="), (4, "\nx ="), (2, "\nx =")] {
            let prompt = assemble(&three(), context.into(), Some(Budget { tokens }), &counted).unwrap();
            let cut = Prompt {
                text: tail.into(),
                suffix: None,
                apis_used: 0,
                examples_used: 0,
                context_truncated: true,
            };
            assert_eq!(prompt, cut);
        }
        for context in [context, "one line", "one line\n"] {
            let error = assemble(&three(), context.into(), Some(Budget { tokens: 1 }), &counted).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        }
        assert_eq!(assemble(&three(), "".into(), Some(Budget { tokens: 0 }), &counted).unwrap().text, "");
    }

    #[test]
    fn tokens_are_counted_a_few_times_only() {
        let calls = Cell::new(0);
        let count = |text: &str, suffix: Option<&str>| {
            calls.set(calls.get() + 1);
            counted(text, suffix)
        };
        let apis = vec![api("weave", "", ""); 1000];
        let context = "x = 1\n".repeat(1000);
        let prompt = assemble(&apis, context.as_str().into(), Some(Budget { tokens: 100 }), &count).unwrap();
        // Half of the budget for 23 APIs of two words and the four words around them, the rest for 16 lines.
        assert_eq!((prompt.apis_used, prompt.text.matches("x = 1\n").count()), (23, 16));
        assert!(calls.get() < 40, "{}", calls.get());
    }

    #[test]
    fn what_is_nearest_to_the_cursor_stays() {
        let lines = |n: usize| (0..n).map(|i| format!("{i}\n")).collect::<String>();
        let cut = |prefix: usize, suffix: usize, tokens: usize| {
            let (prefix, suffix) = (lines(prefix), lines(suffix));
            let draft = Draft { prefix: &prefix, suffix: Some(&suffix) };
            let kept = assemble(&[], draft, Some(Budget { tokens }), &counted).unwrap();
            let kept_suffix = kept.suffix.unwrap();
            assert!(prefix.ends_with(&kept.text) && suffix.starts_with(&kept_suffix));
            assert_eq!(
                kept.context_truncated,
                (kept.text.len(), kept_suffix.len()) != (prefix.len(), suffix.len())
            );
            (words(&kept.text), words(&kept_suffix))
        };
        assert_eq!(cut(10, 10, 20), (10, 10));
        assert_eq!(cut(100, 100, 20), (15, 5));
        assert_eq!(cut(100, 2, 20), (18, 2));
        assert_eq!(cut(4, 100, 20), (4, 16));
        // The API lines of the figure come before the prefix, and count.
        let draft = Draft { prefix: &lines(30), suffix: Some(&lines(30)) };
        let kept = assemble(&three(), draft, Some(Budget { tokens: 30 }), &counted).unwrap();
        assert!(kept.text.starts_with("# [start]\n# weave(a, b=1)"), "{}", kept.text);
        assert_eq!(
            (kept.apis_used, words(&kept.text), kept.suffix.map(|text| words(&text))),
            (2, 26, Some(4))
        );
    }

    #[test]
    fn a_text_far_beyond_the_budget_is_never_counted_as_a_whole() {
        let longest = Cell::new(0);
        let count = |text: &str, suffix: Option<&str>| {
            longest.set(longest.get().max(text.len()).max(suffix.map_or(0, str::len)));
            counted(text, suffix)
        };
        let long = "some_name = other_name\n".repeat(1 << 18);
        for (prefix, suffix) in [(long.as_str(), None), (&long, Some(long.as_str())), ("x =", Some(&long))] {
            let kept =
                assemble(&three(), Draft { prefix, suffix }, Some(Budget { tokens: 200 }), &count).unwrap();
            assert!(kept.context_truncated);
            assert_eq!(counted(&kept.text, kept.suffix.as_deref()).unwrap() / 3, 66);
        }
        let error = assemble(&[], "x ".repeat(1 << 22).as_str().into(), Some(Budget { tokens: 200 }), &count);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(longest.get() < 10_000, "{}", longest.get());
    }

    #[test]
    fn a_failing_counter_is_reported() {
        let fail = |_: &str, _: Option<&str>| Err(Error::new(ErrorKind::Backend, "no tokenizer"));
        let error = assemble(&three(), "x".into(), Some(Budget { tokens: 5 }), &fail).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
    }

    proptest! {
        #[test]
        fn the_block_is_read_back_whatever_the_texts(
            texts in proptest::collection::vec(("[A-Za-z_][A-Za-z0-9_]{0,8}", "(\\([^\\r]{0,20}\\))?", "\\PC{0,20}|[\\n# \\[end\\]a]{0,12}"), 1..5),
            context in "(\\PC|\\n){0,60}",
        ) {
            let apis: Vec<ApiDoc> = texts.iter().map(|(name, signature, description)| api(name, signature, description)).collect();
            let prompt = assemble(&apis, context.as_str().into(), None, &counted).unwrap();
            let (read, rest) = split(&prompt.text);
            prop_assert_eq!(rest, &context);
            let names: Vec<&str> = read.iter().map(|api| api.name.as_str()).collect();
            prop_assert_eq!(names, texts.iter().map(|(name, _, _)| name.as_str()).collect::<Vec<_>>());
        }

        #[test]
        fn nothing_panics(prompt in "(# \\[start\\]\n)?(# [a(:]{0,3}\n){0,3}(# \\[end\\]\n)?(\\PC|\n){0,30}", tokens in 0usize..12) {
            let (_, context) = split(&prompt);
            let _ = assemble(&three(), context.into(), Some(Budget { tokens }), &counted);
            let draft = Draft { prefix: context, suffix: Some(&prompt) };
            if let Ok(kept) = assemble(&three(), draft, Some(Budget { tokens }), &counted) {
                prop_assert!(counted(&kept.text, kept.suffix.as_deref()).unwrap() <= tokens);
                prop_assert!(context.ends_with(split(&kept.text).1) || kept.apis_used == 0);
                prop_assert!(prompt.starts_with(kept.suffix.as_deref().unwrap()));
            }
            let _ = query_from_context(context);
        }
    }
}
