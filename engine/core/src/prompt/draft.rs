//! What the retriever is asked for a draft: code that a model wrote without knowing the library.

use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{Expr, ExprCall};
use ruff_text_size::Ranged;

use crate::python;

/// Words of a query; a draft that calls more than this tries several things.
const MAX_WORDS: usize = 48;

/// What a `draft`, which goes on after `context`, tries to do, in words: the names of what it calls, and the keywords of these calls, in
/// the order of the text, each once; `clear_rows(keep="first")` says "clear rows keep". Functions of Python itself say nothing, and neither do names that the
/// code defines. Empty where nothing is left, or where the text is no source.
pub fn query_from_draft(context: &str, draft: &str) -> String {
    let text = format!("{context}{draft}");
    let found = python::read(&text, |parsed| {
        let mut calls = Calls { from: context.len(), names: Vec::new() };
        parsed.suite().iter().for_each(|stmt| calls.visit_stmt(stmt));
        calls.names
    });
    let mut names = found.unwrap_or_default();
    names.sort_by_key(|(at, _)| *at);
    let defines =
        |name: &str| text.contains(&format!("def {name}(")) || text.contains(&format!("class {name}"));
    let mut said: Vec<String> = Vec::new();
    for (_, name) in names.iter().filter(|(_, name)| !defines(name)) {
        for word in words(name) {
            if said.len() < MAX_WORDS && !said.contains(&word) {
                said.push(word);
            }
        }
    }
    said.join(" ")
}

/// The words of an identifier, in lower case: `dropEmpty_rows` has three.
fn words(name: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for part in name.split('_') {
        let mut after_lower = true;
        for letter in part.chars() {
            if found.is_empty()
                || (after_lower && letter.is_uppercase())
                || found.last().is_some_and(String::is_empty)
            {
                found.push(String::new());
            }
            after_lower = !letter.is_uppercase();
            found.last_mut().into_iter().for_each(|word| word.extend(letter.to_lowercase()));
        }
        found.push(String::new());
    }
    found.retain(|word| word.chars().count() > 1);
    found
}

struct Calls {
    from: usize,
    names: Vec<(usize, String)>,
}

impl Calls {
    fn note(&mut self, call: &ExprCall) {
        let (at, name) = match &*call.func {
            Expr::Attribute(attribute) => (attribute.attr.start(), attribute.attr.as_str()),
            Expr::Name(name) if !python::is_builtin(&name.id) => (name.start(), name.id.as_str()),
            _ => return,
        };
        if at.to_usize() < self.from {
            return;
        }
        self.names.push((at.to_usize(), name.to_owned()));
        let keywords = call.arguments.keywords.iter().filter_map(|keyword| keyword.arg.as_ref());
        self.names.extend(keywords.map(|keyword| (keyword.start().to_usize(), keyword.to_string())));
    }
}

impl<'a> Visitor<'a> for Calls {
    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Call(call) = expr {
            self.note(call);
        }
        walk_expr(self, expr);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_says_what_it_calls() {
        let context = "from loom import Cloth\n# take out the wet rows\ndef dry(cloth):\n    ";
        for (draft, query) in [
            ("return cloth.dropEmpty_rows(keepOrder=True, axis=0)\n", "drop empty rows keep order axis"),
            ("return sorted(print(cloth))", ""),
            ("return dry(cloth).spin().spin()", "spin"),
            // The rest of a line that the model did not end.
            ("return cloth.rows_where(lambda row: row.wet(", "rows where wet"),
            ("", ""),
            ("\u{0}((((", ""),
        ] {
            assert_eq!(query_from_draft(context, draft), query, "{draft}");
        }
        let half_a_line = "cloth = weave(3)\nred = ";
        assert_eq!(query_from_draft(half_a_line, "cloth.dye_all('red')"), "dye all");
        let many: String = (0..200).map(|i| format!("x.word{i}()\n")).collect();
        assert_eq!(query_from_draft("", &many).split(' ').count(), MAX_WORDS);
        assert_eq!(query_from_draft("", &"(".repeat(200_000)), "");
    }

    #[test]
    fn words_of_identifiers() {
        assert_eq!(words("readHTTPTable_of__rows2"), ["read", "httptable", "of", "rows2"]);
        assert!(words("__a_").is_empty());
    }
}
