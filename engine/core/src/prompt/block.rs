//! The block of APIs in front of a context.

use super::example_calls;
use crate::api::ApiDoc;

pub(super) const START: &str = "# [start]";
pub(super) const END: &str = "# [end]";
/// What an example's line begins with. The line of an API has one space.
pub(super) const EXAMPLE: &str = "#   ";

/// The APIs in front of a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// The APIs, the most important first.
    pub apis: &'a [ApiDoc],
    /// The most example calls below the line of each; 0 is the paper's form.
    pub examples: usize,
}

impl<'a> From<&'a [ApiDoc]> for Block<'a> {
    fn from(apis: &'a [ApiDoc]) -> Self {
        Self { apis, examples: 0 }
    }
}

impl<'a> From<&'a Vec<ApiDoc>> for Block<'a> {
    fn from(apis: &'a Vec<ApiDoc>) -> Self {
        apis.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [ApiDoc; N]> for Block<'a> {
    fn from(apis: &'a [ApiDoc; N]) -> Self {
        apis.as_slice().into()
    }
}

/// The whole block as [`assemble`](super::assemble) writes it where there is room: `# [start]`, the line of each API with at most
/// `examples` example calls below it, `# [end]`, each with its line break; empty without an API.
pub fn block(apis: &[ApiDoc], examples: usize) -> String {
    let parts: Vec<Part> = apis.iter().map(|api| Part::new(api, examples)).collect();
    write_block(&parts, examples)
}

/// What a block has of one API: its line and the lines of its examples.
pub(super) struct Part {
    line: String,
    pub examples: Vec<String>,
}

impl Part {
    pub fn new(api: &ApiDoc, n_examples: usize) -> Self {
        let examples = example_calls(api, n_examples).into_iter().map(|call| format!("{EXAMPLE}{call}\n"));
        Self { line: format!("# {}\n", api.prompt_line()), examples: examples.collect() }
    }
}

pub(super) fn write_block(parts: &[Part], n_examples: usize) -> String {
    write_some(parts, &vec![n_examples; parts.len()])
}

/// The block with so many examples of each part.
pub(super) fn write_some(parts: &[Part], n_examples: &[usize]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let lines = parts.iter().zip(n_examples).flat_map(|(part, &n)| {
        std::iter::once(&part.line).chain(part.examples.iter().take(n)).map(String::as_str)
    });
    format!("{START}\n{}{END}\n", lines.collect::<String>())
}

/// How many examples of each part the first `n` are: the first example of every API comes before the second of any.
pub(super) fn first_examples(parts: &[Part], n: usize) -> Vec<usize> {
    let mut taken = vec![0; parts.len()];
    let most = parts.iter().map(|part| part.examples.len()).max().unwrap_or_default();
    let order = (0..most).flat_map(|round| (0..parts.len()).map(move |i| (round, i)));
    for (_, i) in order.filter(|&(round, i)| round < parts[i].examples.len()).take(n) {
        taken[i] += 1;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, Draft, assemble, split};
    use super::*;
    use crate::Result;

    fn two() -> Vec<ApiDoc> {
        let api = |name: &str, examples: &[&str]| ApiDoc {
            name: name.into(),
            signature: "(a)".into(),
            examples: examples.iter().map(|example| (*example).to_owned()).collect(),
            ..ApiDoc::default()
        };
        vec![api("weave", &["c = weave(1)\nweave(2)\nweave(3)"]), api("dye", &[">>> c.dye('red')"])]
    }

    fn words(text: &str, suffix: Option<&str>) -> Result<usize> {
        Ok(text.split_whitespace().count() + suffix.map_or(0, |suffix| suffix.split_whitespace().count()))
    }

    #[test]
    fn examples_stand_below_their_line_and_are_read_back() {
        let written = block(&two(), 2);
        let expected =
            "# [start]\n# weave(a)\n#   c = weave(1)\n#   weave(2)\n# dye(a)\n#   c.dye('red')\n# [end]\n";
        assert_eq!(written, expected);
        assert_eq!(block(&two(), 0), "# [start]\n# weave(a)\n# dye(a)\n# [end]\n");
        assert_eq!(block(&[], 2), "");
        let (apis, rest) = split(&written);
        assert_eq!(
            (apis[0].examples.len(), apis[1].examples.as_slice(), rest),
            (2, &["c.dye('red')".to_owned()][..], "")
        );
        let docs: Vec<ApiDoc> = apis.iter().map(super::super::PromptApi::to_doc).collect();
        assert_eq!(block(&docs, 2), written);
    }

    #[test]
    fn examples_give_way_before_apis_do() {
        let shown = |tokens| {
            let block = Block { apis: &two(), examples: 3 };
            let prompt = assemble(block, Draft::from("x ="), Some(Budget { tokens }), &words).unwrap();
            assert!(prompt.text.ends_with("# [end]\nx ="), "{}", prompt.text);
            (prompt.apis_used, prompt.examples_used, prompt.text)
        };
        // Bare: 2 + 2 * 2 + 2 + 2 words. The examples have 4, 2, 2 and 2.
        let counts: Vec<(usize, usize)> = [20, 19, 18, 17, 16, 15, 14, 13, 10, 9]
            .map(|tokens| shown(tokens))
            .iter()
            .map(|(a, e, _)| (*a, *e))
            .collect();
        assert_eq!(counts, [(2, 4), (2, 3), (2, 3), (2, 2), (2, 2), (2, 1), (2, 1), (2, 0), (2, 0), (1, 0)]);
        // The first of each before the second of any.
        assert!(shown(16).2.contains("#   c = weave(1)\n# dye(a)\n#   c.dye"), "{}", shown(16).2);
    }
}
