//! Which strings of other people's code may be kept in an example.

use ruff_python_ast::visitor::{Visitor, walk_expr};
use ruff_python_ast::{Expr, Keyword};
use ruff_text_size::{Ranged, TextRange};

/// A longer string is data.
const MAX_BYTES: usize = 24;
/// What stands in the place of a string that is not kept.
const IN_ITS_PLACE: &str = "\"...\"";

/// The code of an expression or statement, with strings kept only where they are short and harmless: words, not keys, tokens, hosts,
/// addresses or numbers of people.
pub(super) fn cleaned(code: &str, range: TextRange, within: impl Fn(&mut Strings)) -> String {
    let mut strings = Strings { found: Vec::new(), secret: 0 };
    within(&mut strings);
    strings.found.sort_by_key(|(range, _)| std::cmp::Reverse(range.start()));
    strings.found.dedup_by_key(|(range, _)| range.start());
    let begin = range.start().to_usize();
    let mut text = code.get(begin..range.end().to_usize()).unwrap_or_default().to_owned();
    for (at, kept) in strings.found {
        let (start, end) = (at.start().to_usize(), at.end().to_usize());
        if !kept && start >= begin && end - begin <= text.len() {
            text.replace_range(start - begin..end - begin, IN_ITS_PLACE);
        }
    }
    text
}

/// Looks for strings.
pub(super) struct Strings {
    found: Vec<(TextRange, bool)>,
    /// Keywords and assignments around that name a secret.
    secret: usize,
}

impl<'a> Visitor<'a> for Strings {
    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::StringLiteral(string) => {
                let kept = self.secret == 0 && is_harmless(string.value.to_str());
                self.found.push((expr.range(), kept));
            }
            // What they are put together from is not looked into.
            Expr::BytesLiteral(_) | Expr::FString(_) | Expr::TString(_) => {
                self.found.push((expr.range(), false))
            }
            Expr::Call(call) => {
                // The arguments of what is called `login` are nobody's business.
                let name = match &*call.func {
                    Expr::Attribute(attribute) => attribute.attr.as_str(),
                    Expr::Name(name) => name.id.as_str(),
                    _ => "",
                };
                let secret = usize::from(names_a_secret(name));
                self.visit_expr(&call.func);
                self.secret += secret;
                self.visit_arguments(&call.arguments);
                self.secret -= secret;
            }
            Expr::Dict(dict) => {
                for item in &dict.items {
                    let named = matches!(&item.key, Some(Expr::StringLiteral(key)) if names_a_secret(key.value.to_str()));
                    item.key.iter().for_each(|key| self.visit_expr(key));
                    self.secret += usize::from(named);
                    self.visit_expr(&item.value);
                    self.secret -= usize::from(named);
                }
            }
            _ => walk_expr(self, expr),
        }
    }

    fn visit_keyword(&mut self, keyword: &'a Keyword) {
        let secret = usize::from(keyword.arg.as_ref().is_some_and(|name| names_a_secret(name.as_str())));
        self.secret += secret;
        self.visit_expr(&keyword.value);
        self.secret -= secret;
    }
}

pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "passw",
        "pwd",
        "secret",
        "token",
        "credential",
        "apikey",
        "api_key",
        "auth",
        "login",
        "private_key",
        "access_key",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Short, of words: letters, with few digits and the marks that formats and columns have.
fn is_harmless(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let fits = |c: char| c.is_ascii_alphanumeric() || " _-.,:;%/+*()[]{}|<>=!?'#".contains(c);
    // A key mixes cases and digits; a date or a format does not.
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    let is_key = |part: &str| {
        let count = |is: fn(&char) -> bool| part.chars().filter(is).count();
        let (lower, upper, digit) =
            (count(char::is_ascii_lowercase), count(char::is_ascii_uppercase), count(char::is_ascii_digit));
        part.len() >= 8 && digit > 0 && lower + upper > 0 && digit.min(lower + upper) >= 2
    };
    text.len() <= MAX_BYTES
        && text.chars().all(fits)
        && digits <= 8
        && !text.contains("://")
        && !parts.into_iter().any(is_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(code: &str) -> String {
        let parsed = ruff_python_parser::parse_module(code).unwrap();
        let stmt = &parsed.suite()[0];
        cleaned(code, stmt.range(), |strings| strings.visit_stmt(stmt))
    }

    #[test]
    fn short_words_are_kept_and_secrets_are_not() {
        for kept in
            ["f('team')", "x.y(\"%Y-%m-%d\", 'a b')", "f('2020-01-31')", "f({'a': 'sum'})", "f('read_csv')"]
        {
            assert_eq!(clean(kept), kept);
        }
        for (code, left) in [
            ("f('a8f3e99c11')", "f(\"...\")"),
            ("f('https://host/x')", "f(\"...\")"),
            ("f('somebody@example.com', 'b')", "f(\"...\", 'b')"),
            ("f(password='hunter')", "f(password=\"...\")"),
            ("login('ann', 'rose')", "login(\"...\", \"...\")"),
            ("f({'token': 'abc'})", "f({'token': \"...\"})"),
            (
                "f(b'raw', f'{x}', 'a sentence that is longer than most words')",
                "f(\"...\", \"...\", \"...\")",
            ),
            ("f('0049 171 5550199')", "f(\"...\")"),
        ] {
            assert_eq!(clean(code), left);
        }
    }
}
