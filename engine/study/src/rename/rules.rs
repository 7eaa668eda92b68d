//! How a completion is converted back, and which completions are not taken.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use super::{Table, text};

/// What counts as a private word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Any occurrence, inside longer words, strings and comments too, one table row after the other (the published rule:
    /// `unsipping` becomes `undropping`).
    Substrings,
    /// Whole words, in strings and comments too.
    Words,
    /// Whole words of the code alone.
    Code,
}

/// Which completions are refused for a public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// Any public word anywhere, builtins, strings and comments included (the published rule: `len(kf)` and `"last"` fail).
    Text,
    /// Any public word in the code, builtins included.
    Code,
    /// A public word after a dot, or on an `import` line.
    Attributes,
    /// None.
    Nothing,
}

/// How completions are converted back: `published`, `words`, `sound`, or one name for each half, as `code,reject-text`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What counts as a private word.
    pub replace: Replace,
    /// Which completions are refused.
    pub reject: Reject,
}

impl Rules {
    /// The rules of the paper's harness, flaws included.
    pub const PUBLISHED: Self = Self { replace: Replace::Substrings, reject: Reject::Text };
    /// Whole words, and nothing refused.
    pub const WORDS: Self = Self { replace: Replace::Words, reject: Reject::Nothing };
    /// Words of the code, and public names refused where they would be attributes.
    pub const SOUND: Self = Self { replace: Replace::Code, reject: Reject::Attributes };

    /// A completion in public names. `before` is the prompt in public names: the completion may begin within a string of it,
    /// and speaks of its names (`kf_original`, which the prompt now calls `df_original`).
    ///
    /// # Errors
    /// The public word for which it is refused.
    pub fn convert_back(self, table: &Table, before: &str, completion: &str) -> Result<String, String> {
        if let Some(word) = self.refused(table, before, completion) {
            return Err(word);
        }
        Ok(match self.replace {
            Replace::Substrings => table.public_text(completion),
            Replace::Words => replace_words(table, before, completion, |_| true),
            Replace::Code => {
                let code = Code::of(before, completion);
                replace_words(table, before, completion, |at| code.contains(at))
            }
        })
    }

    fn refused(self, table: &Table, before: &str, completion: &str) -> Option<String> {
        let code = (self.reject != Reject::Nothing).then(|| Code::of(before, completion))?;
        let mut words = text::words(completion).filter(|(_, word)| table.private(word).is_some());
        let found = words.find(|(place, _)| match self.reject {
            Reject::Text => true,
            Reject::Code => code.contains(place.start),
            Reject::Attributes => code.contains(place.start) && is_attribute(&completion[..place.start]),
            Reject::Nothing => false,
        });
        found.map(|(_, word)| word.to_owned())
    }
}

/// The code of a completion behind what stands before it.
struct Code {
    ranges: Vec<std::ops::Range<usize>>,
    offset: usize,
}

impl Code {
    fn of(before: &str, completion: &str) -> Self {
        Self { ranges: text::code_ranges(&format!("{before}{completion}")), offset: before.len() }
    }

    fn contains(&self, at: usize) -> bool {
        self.ranges.iter().any(|range| range.contains(&(at + self.offset)))
    }
}

fn replace_words(table: &Table, before: &str, completion: &str, is_wanted: impl Fn(usize) -> bool) -> String {
    let prompt: HashSet<&str> = super::words(before).collect();
    let public = |word: &str| match table.public(word) {
        Some(public) => Some(public.to_owned()),
        None => Some(table.public_text(word))
            .filter(|public| public != word && prompt.contains(public.as_str()) && !prompt.contains(word)),
    };
    let mut converted = String::with_capacity(completion.len());
    let mut copied = 0;
    for (place, word) in text::words(completion) {
        if is_wanted(place.start)
            && let Some(public) = public(word)
        {
            converted.push_str(&completion[copied..place.start]);
            converted.push_str(&public);
            copied = place.end;
        }
    }
    converted.push_str(&completion[copied..]);
    converted
}

/// Whether a word after this text is looked up in something: behind a dot, or on an import line.
fn is_attribute(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or(before).trim_start();
    before.trim_end().ends_with('.') || line.starts_with("import ") || line.starts_with("from ")
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replace = match self.replace {
            Replace::Substrings => "substrings",
            Replace::Words => "words",
            Replace::Code => "code",
        };
        let reject = match self.reject {
            Reject::Text => "reject-text",
            Reject::Code => "reject-code",
            Reject::Attributes => "reject-attributes",
            Reject::Nothing => "accept",
        };
        write!(f, "{replace},{reject}")
    }
}

impl FromStr for Rules {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut replace, mut reject) = (None, None);
        for part in text.split(',').map(str::trim) {
            let rules = match part {
                "published" => Self::PUBLISHED,
                "sound" => Self::SOUND,
                "words" if text.trim() == "words" => Self::WORDS,
                _ => {
                    let half_replace = match part {
                        "substrings" => Some(Replace::Substrings),
                        "words" => Some(Replace::Words),
                        "code" => Some(Replace::Code),
                        _ => None,
                    };
                    let half_reject = match part {
                        "reject-text" => Some(Reject::Text),
                        "reject-code" => Some(Reject::Code),
                        "reject-attributes" => Some(Reject::Attributes),
                        "accept" => Some(Reject::Nothing),
                        _ => None,
                    };
                    let fits = half_replace.is_some() && replace.is_none()
                        || half_reject.is_some() && reject.is_none();
                    if !fits {
                        return Err(format!(
                            "`{part}`: expected published, words or sound, or one of substrings, words, code with one of \
                             reject-text, reject-code, reject-attributes, accept"
                        ));
                    }
                    replace = replace.or(half_replace);
                    reject = reject.or(half_reject);
                    continue;
                }
            };
            if text.trim() != part {
                return Err(format!("`{part}` stands for both halves and takes no other beside it"));
            }
            return Ok(rules);
        }
        match (replace, reject) {
            (Some(replace), Some(reject)) => Ok(Self { replace, reject }),
            // One half alone: the other is the published one.
            (replace, reject) => Ok(Self {
                replace: replace.unwrap_or(Self::PUBLISHED.replace),
                reject: reject.unwrap_or(Self::PUBLISHED.reject),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let pairs = [
            ("pd", "mk"),
            ("dropna", "sipna"),
            ("drop", "sip"),
            ("sum", "total_sum"),
            ("last", "final_item"),
        ];
        Table {
            pairs: pairs.map(|(public, private)| (public.to_owned(), private.to_owned())).to_vec(),
            ..Table::default()
        }
    }

    fn convert(rules: &str, before: &str, completion: &str) -> Result<String, String> {
        rules.parse::<Rules>().unwrap().convert_back(&table(), before, completion)
    }

    #[test]
    fn the_published_rules_have_their_flaws_and_each_can_be_switched_off() {
        for (rules, completion, want) in [
            ("published", "kf.sipna().total_sum()", Ok("kf.dropna().sum()")),
            ("published", "unsipping = 'sip'  # sip", Ok("undropping = 'drop'  # drop")),
            ("published", "sum([1])", Err("sum")),
            ("published", "kf.keep('last')", Err("last")),
            ("published", "kf  # the last", Err("last")),
            ("published", "mklib.total_summary", Ok("pdlib.summary")),
            ("substrings,accept", "sum([1]).sip()", Ok("sum([1]).drop()")),
            ("words", "unsipping = 'sip'  # sip", Ok("unsipping = 'drop'  # drop")),
            ("words", "sum(x.total_sum())", Ok("sum(x.sum())")),
            ("words,reject-text", "x('last')", Err("last")),
            ("code,reject-code", "x('last', 'sip').sip()", Ok("x('last', 'sip').drop()")),
            ("code,reject-code", "sum(x)", Err("sum")),
            ("code,reject-attributes", "sum(x)", Ok("sum(x)")),
            ("sound", "sum(x.sip('last'))  # sum sip", Ok("sum(x.drop('last'))  # sum sip")),
            ("sound", "x. sum()", Err("sum")),
            ("sound", "from mk import drop", Err("drop")),
            ("sound", "f'{x.sip()} sip'", Ok("f'{x.drop()} sip'")),
        ] {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(convert(rules, "", completion), want, "{rules}: {completion}");
        }
    }

    #[test]
    fn a_completion_may_begin_within_a_string() {
        let got = convert("sound", "def f():\n    '''Gives ", "sip. last'''\n    return x.sip()");
        assert_eq!(got.unwrap(), "sip. last'''\n    return x.drop()");
    }

    #[test]
    fn names_of_the_prompt_follow_it() {
        let got =
            convert("sound", "def f(sum_of, mkd):\n    ", "return total_sum_of + mkd + other_total_sum");
        assert_eq!(got.unwrap(), "return sum_of + mkd + other_total_sum");
    }

    #[test]
    fn rules_are_read_and_shown() {
        assert_eq!("published".parse::<Rules>().unwrap(), Rules::PUBLISHED);
        assert_eq!("accept".parse::<Rules>().unwrap(), Rules { reject: Reject::Nothing, ..Rules::PUBLISHED });
        assert_eq!("code".parse::<Rules>().unwrap(), Rules { replace: Replace::Code, ..Rules::PUBLISHED });
        for rules in [Rules::PUBLISHED, Rules::WORDS, Rules::SOUND] {
            assert_eq!(rules.to_string().parse::<Rules>().unwrap(), rules);
        }
        for bad in ["", "public", "code,words", "accept,reject-text", "published,accept", "sound,code"] {
            assert!(bad.parse::<Rules>().is_err(), "{bad}");
        }
    }
}
