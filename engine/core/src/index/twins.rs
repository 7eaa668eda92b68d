//! One operation under two names: a class, and the function or method through which it is used.
//!
//! Libraries that register classes as functions (`Batcher` as `batch`, `Adam` as `adam`) document both with one text, so both
//! would be found together and take two of the few places. They are offered once, by the function: in public code it was the
//! function in 617 of 736 uses of such pairs, 187 of 304 without keras (benches/runs/2026-11-26-retriever.md).

use rustc_hash::FxHashMap;

use super::ranking::Scored;
use super::segment::Segment;
use crate::api::ApiKind;
use crate::{ApiDoc, Result};

/// A record that is offered.
#[derive(Debug)]
pub(super) struct Offer {
    /// The record, with the better score of the two where it has a twin.
    pub scored: Scored,
    /// Its content.
    pub api: ApiDoc,
    /// Qualified names of the classes that it stands for.
    pub classes: Vec<String>,
}

/// How many names must be ranked so that `k` are left, since an offer hides one other as a rule. The same number for all small
/// `k`, so that their answers begin alike.
pub(super) fn names_to_rank(k: usize) -> usize {
    k.saturating_mul(2).max(10)
}

/// The `k` first of the `ranked` names, twins once.
pub(super) fn offers(segments: &[Segment], ranked: Vec<Scored>, k: usize) -> Result<Vec<Offer>> {
    let mut offers: Vec<Option<Offer>> = Vec::with_capacity(ranked.len());
    let mut places: FxHashMap<(String, String), Places> = FxHashMap::default();
    for scored in ranked {
        let api = segments[scored.place.segment].records.api(scored.place.doc)?;
        let mut offer = Offer { scored, api, classes: Vec::new() };
        if let Some(is_class) = is_class(&offer.api) {
            let key = (offer.api.library().to_owned(), offer.api.description.trim().to_owned());
            let known = places.entry(key).or_default();
            match (is_class, known.function) {
                (true, Some(function)) => {
                    if let Some(function) = &mut offers[function] {
                        function.classes.push(offer.api.qualified_name);
                    }
                    continue;
                }
                (true, None) => known.classes.push(offers.len()),
                (false, None) => {
                    let classes = std::mem::take(&mut known.classes);
                    for class in classes.iter().filter_map(|at| offers[*at].take()) {
                        offer.scored.score = offer.scored.score.max(class.scored.score);
                        offer.classes.push(class.api.qualified_name);
                    }
                    known.function = Some(classes.first().copied().unwrap_or(offers.len()));
                    if let Some(first) = classes.first() {
                        offers[*first] = Some(offer);
                        continue;
                    }
                }
                // another function with the same words is another thing to call
                (false, Some(_)) => {}
            }
        }
        offers.push(Some(offer));
    }
    Ok(offers.into_iter().flatten().take(k).collect())
}

/// Where in the offers the classes and the first function of one description stand.
#[derive(Debug, Default)]
struct Places {
    classes: Vec<usize>,
    function: Option<usize>,
}

/// Whether a described record is a class (`true`), or is a function or method (`false`). Documentation that says no kind is judged by
/// the initial, as PEP 8 has it.
fn is_class(api: &ApiDoc) -> Option<bool> {
    if api.description.trim().is_empty() {
        return None;
    }
    match api.kind {
        Some(ApiKind::Class) => Some(true),
        Some(ApiKind::Function | ApiKind::Method) => Some(false),
        Some(_) => None,
        None => Some(api.name.starts_with(char::is_uppercase)),
    }
}
