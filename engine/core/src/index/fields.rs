//! What of an API record is searched, and how much each field counts.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::analysis::{Analyzer, StopWords};
use crate::api::ApiKind;
use crate::{ApiDoc, Error, ErrorKind, Result};

/// How often one occurrence of a word counts, by the field that it stands in (the weights of BM25F: Robertson, Zaragoza
/// and Taylor, CIKM 2004). 0 leaves a field out; values are kept in steps of 1/20.
///
/// The defaults follow from what the fields are: the name is the shortest summary of an API and is what will be called,
/// so a word in it counts as three in the description; a parameter name tells of one facet (half); the classes and
/// modules around it are shared by all of their members, so they tell members apart badly but still match a query that
/// names the class (0.3). The rest of the docstring and the examples are left out by default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldWeights {
    /// The bare name and the bare names of aliases.
    pub name: f32,
    /// The first sentence.
    pub description: f32,
    /// Names of parameters.
    pub parameters: f32,
    /// Classes and modules around the name, the library itself excepted.
    pub qualifier: f32,
    /// The docstring beyond its first sentence.
    pub doc: f32,
    /// Usage examples.
    pub examples: f32,
}

impl Default for FieldWeights {
    fn default() -> Self {
        Self { name: 3.0, description: 1.0, parameters: 0.5, qualifier: 0.3, doc: 0.0, examples: 0.0 }
    }
}

/// Weighted frequencies are whole numbers of 1/20, so that sums do not depend on their order.
pub(super) const UNITS_PER_OCCURRENCE: f32 = 20.0;
const MAX_WEIGHT: f32 = 100.0;

impl FieldWeights {
    /// Checks the ranges.
    pub(super) fn validate(&self) -> Result<()> {
        let all = [
            ("name", self.name),
            ("description", self.description),
            ("parameters", self.parameters),
            ("qualifier", self.qualifier),
            ("doc", self.doc),
            ("examples", self.examples),
        ];
        for (field, weight) in all {
            if !(0.0..=MAX_WEIGHT).contains(&weight) {
                let what = format!("the weight of field {field} is {weight}, expected 0 to {MAX_WEIGHT}");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        }
        if all.iter().all(|(_, weight)| units(*weight) == 0) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "all field weights are 0: nothing would be searched",
            ));
        }
        Ok(())
    }
}

fn units(weight: f32) -> u32 {
    // in range after `validate`: 0..=2000
    (weight * UNITS_PER_OCCURRENCE).round() as u32
}

/// The searched terms of `api` with their weighted frequencies in [units](UNITS_PER_OCCURRENCE), put into `terms`
/// (cleared first); none for a module. Returns their sum, the record's length.
pub(super) fn term_frequencies(
    api: &ApiDoc,
    weights: &FieldWeights,
    analyzer: &mut Analyzer,
    terms: &mut FxHashMap<String, u32>,
) -> u32 {
    terms.clear();
    // A module cannot be called, so it answers no task; it is still found by its name.
    if api.kind == Some(ApiKind::Module) {
        return 0;
    }
    let mut length = 0u32;
    let mut field = |text: &str, weight: f32, stop_words: StopWords| {
        let units = units(weight);
        if units == 0 || text.is_empty() {
            return;
        }
        analyzer.terms(text, stop_words, |term| {
            length = length.saturating_add(units);
            match terms.get_mut(term) {
                Some(frequency) => *frequency = frequency.saturating_add(units),
                None => {
                    terms.insert(term.to_owned(), units);
                }
            }
        });
    };
    field(&api.name, weights.name, StopWords::Keep);
    let mut aliases: Vec<&str> =
        api.aliases.iter().map(|alias| bare(alias)).filter(|name| *name != api.name).collect();
    aliases.sort_unstable();
    aliases.dedup();
    for alias in aliases {
        field(alias, weights.name, StopWords::Keep);
    }
    field(&api.description, weights.description, StopWords::Drop);
    for name in parameter_names(&api.signature) {
        field(name, weights.parameters, StopWords::Drop);
    }
    field(qualifier(&api.qualified_name, &api.module), weights.qualifier, StopWords::Drop);
    field(rest_of_doc(api), weights.doc, StopWords::Drop);
    for example in &api.examples {
        field(example, weights.examples, StopWords::Drop);
    }
    // A member that many classes inherit answers to a query that names one of them, and is no longer for it.
    let units = units(weights.qualifier);
    if units > 0 && matches!(api.kind, Some(ApiKind::Method | ApiKind::Property)) {
        for class in api.aliases.iter().filter(|alias| bare(alias) == api.name) {
            analyzer.terms(qualifier(class, ""), StopWords::Drop, |term| {
                if !terms.contains_key(term) {
                    terms.insert(term.to_owned(), units);
                }
            });
        }
    }
    length
}

/// What follows the last dot.
pub(super) fn bare(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `datapipes.iter` of `torchdata.datapipes.iter.Batcher`.
fn qualifier<'a>(qualified_name: &'a str, module: &'a str) -> &'a str {
    let path = if qualified_name.is_empty() { module } else { qualified_name };
    let inner = path.split_once('.').map_or("", |(_, inner)| inner);
    if qualified_name.is_empty() { inner } else { inner.rsplit_once('.').map_or("", |(around, _)| around) }
}

fn rest_of_doc(api: &ApiDoc) -> &str {
    let doc = api.doc.trim_start();
    doc.strip_prefix(api.description.as_str()).unwrap_or(doc)
}

/// The names of the parameters in `(a, *, b: Dict[str, int] = {}, **rest) -> int`, `self` and the like left out.
pub(super) fn parameter_names(signature: &str) -> Vec<&str> {
    const EMPTY_NAMES: &[&str] = &["self", "cls", "args", "kwargs", "kwds"];
    let Some(inside) = signature.trim_start().strip_prefix('(') else { return Vec::new() };
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut quote = None;
    let mut start = 0;
    let end_parameter =
        |text: &'_ str, range: std::ops::Range<usize>, names: &mut Vec<std::ops::Range<usize>>| {
            let parameter = &text[range.clone()];
            let name = parameter.trim_start_matches(|c: char| c == '*' || c.is_whitespace());
            let at = range.start + (parameter.len() - name.len());
            let length = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
            if length > 0 && !EMPTY_NAMES.contains(&&name[..length]) {
                names.push(at..at + length);
            }
        };
    let mut escaped = false;
    let mut closed = false;
    for (at, c) in inside.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')') if depth == 0 => {
                end_parameter(inside, start..at, &mut names);
                closed = true;
                break;
            }
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                end_parameter(inside, start..at, &mut names);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !closed && quote.is_none() && depth == 0 {
        end_parameter(inside, start..inside.len(), &mut names);
    }
    names.into_iter().map(|range| &inside[range]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_signatures() {
        for (signature, names) in [
            ("(self, a, *, b: Dict[str, int] = {1: (2, 3)}, **rest) -> int", &["a", "b", "rest"][..]),
            ("(x=',', y=\")\", z='\\'', /)", &["x", "y", "z"]),
            ("(*args, **kwargs)", &[]),
            ("()", &[]),
            ("", &[]),
            ("no parenthesis", &[]),
            ("(a, b", &["a", "b"]),
            ("(wrapper=<class 'a.B'>, größe=1)", &["wrapper", "größe"]),
        ] {
            assert_eq!(parameter_names(signature), names, "{signature}");
        }
    }

    #[test]
    fn libraries_and_qualifiers() {
        let api = |name: &str, qualified: &str, module: &str| ApiDoc {
            name: name.into(),
            qualified_name: qualified.into(),
            module: module.into(),
            ..ApiDoc::default()
        };
        assert_eq!(api("f", "lib.sub.C.f", "").library(), "lib");
        assert_eq!(api("f", "lib.sub.C.f", "lib.sub").library(), "lib");
        assert_eq!(api("f", "", "lib").library(), "lib");
        assert_eq!(api("lib", "lib.core", "").library(), "lib");
        assert_eq!(api("f", "f", "").library(), "");
        assert_eq!(api("f", "", "").library(), "");
        assert_eq!(qualifier("lib.sub.C.f", "lib.sub"), "sub.C");
        assert_eq!(qualifier("lib.f", "lib"), "");
        assert_eq!(qualifier("", "lib.sub"), "sub");
    }

    #[test]
    fn frequencies_are_weighted_and_sum_up() {
        let api = ApiDoc {
            name: "drop_rows".into(),
            signature: "(self, rows)".into(),
            description: "Drop the rows.".into(),
            aliases: vec!["lib.discard".into(), "lib.drop_rows".into()],
            ..ApiDoc::default()
        };
        let mut terms = FxHashMap::default();
        let length = term_frequencies(&api, &FieldWeights::default(), &mut Analyzer::new(), &mut terms);
        assert_eq!(terms["drop"], 60 + 20);
        assert_eq!(terms["row"], 60 + 20 + 10);
        assert_eq!(terms["discard"], 60);
        assert_eq!(length, terms.values().sum::<u32>());
    }

    #[test]
    fn weights_out_of_range_are_refused() {
        for weights in [
            FieldWeights { name: -1.0, ..FieldWeights::default() },
            FieldWeights { doc: f32::NAN, ..FieldWeights::default() },
            FieldWeights {
                name: 0.0,
                description: 0.0,
                parameters: 0.0,
                qualifier: 0.0,
                doc: 0.0,
                examples: 0.0,
            },
        ] {
            assert_eq!(weights.validate().unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}
