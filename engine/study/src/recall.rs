//! recall@k of a retriever, as the paper counts it: by API name, micro-averaged over golden APIs.

use std::collections::BTreeSet;

use inhouse_core::index::{Hit, Index, Query};
use inhouse_core::{Error, ErrorKind, Result};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::problems::RetrievalQuery;

/// The k that are reported.
pub const KS: [usize; 4] = [1, 2, 3, 5];

/// recall@1, 2, 3, 5. Serialises as `{"recall@1": x, "recall@2": x, "recall@3": x, "recall@5": x, "problems": n}`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecallReport {
    /// Golden APIs found among the first k names, for each of [`KS`].
    pub found: [usize; 4],
    /// Golden APIs in all, distinct within a problem.
    pub golden: usize,
    /// Problems with at least one golden API.
    pub problems: usize,
}

impl RecallReport {
    /// `(k, recall@k)` for each of [`KS`].
    pub fn by_k(&self) -> impl Iterator<Item = (usize, f64)> + use<> {
        let golden = self.golden.max(1) as f64;
        KS.into_iter().zip(self.found.map(|found| found as f64 / golden))
    }
}

impl Serialize for RecallReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(KS.len() + 1))?;
        for (k, recall) in self.by_k() {
            map.serialize_entry(&format!("recall@{k}"), &recall)?;
        }
        map.serialize_entry("problems", &self.problems)?;
        map.end()
    }
}

/// What one problem adds to a report: golden APIs found among the first k names for each of [`KS`], and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Golden APIs found.
    pub found: [usize; 4],
    /// Distinct golden APIs; at least one.
    pub golden: usize,
}

impl FromIterator<Counts> for RecallReport {
    fn from_iter<I: IntoIterator<Item = Counts>>(counts: I) -> Self {
        let mut report = Self { found: [0; 4], golden: 0, problems: 0 };
        for Counts { found, golden } in counts {
            report.problems += 1;
            report.golden += golden;
            report.found.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        }
        report
    }
}

/// Asks `index` every query and counts the golden APIs among the first names. Queries without any are passed over.
///
/// # Errors
/// No query has a golden API, or a search fails; the message names the task.
pub fn measure(index: &Index, queries: &[RetrievalQuery]) -> Result<RecallReport> {
    let report: RecallReport = by_problem(index, queries)?.into_iter().collect();
    if report.golden == 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "no query has a golden API"));
    }
    Ok(report)
}

/// [`measure`]'s counts for each query that has golden APIs.
///
/// # Errors
/// A search fails; the message names the task.
pub fn by_problem(index: &Index, queries: &[RetrievalQuery]) -> Result<Vec<Counts>> {
    let asked = queries.iter().filter(|query| !query.gold.is_empty());
    asked
        .map(|RetrievalQuery { task_id, query, gold }| {
            let hits = index
                .search(&Query::from(query.as_str()), KS[KS.len() - 1])
                .map_err(|error| Error::new(error.kind(), format!("{task_id}: {error}")))?;
            Ok(count(gold, |name, k| hits.iter().any(|hit| hit.rank <= k && goes_by(hit, name))))
        })
        .collect()
}

/// Counts for the golden APIs of one problem, where `shown` says whether a name is among the first k.
pub fn count(gold: &[String], shown: impl Fn(&str, usize) -> bool) -> Counts {
    let gold: BTreeSet<&str> = gold.iter().map(|name| bare(name)).collect();
    let found = KS.map(|k| gold.iter().filter(|name| shown(name, k)).count());
    Counts { found, golden: gold.len() }
}

/// Whether the hit's name, or one of its other names, is `name`.
fn goes_by(hit: &Hit, name: &str) -> bool {
    hit.api.name == name || hit.api.aliases.iter().any(|alias| bare(alias) == name)
}

/// The last part of a dotted name: APIs are counted by it.
pub(crate) fn bare(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use inhouse_core::ApiDoc;
    use inhouse_core::index::{BuildOptions, build};
    use inhouse_core::progress::Silent;

    use super::*;

    #[test]
    fn counts_are_micro_averaged_by_name() {
        let api = |name: &str, description: &str, alias: &str| ApiDoc {
            name: name.into(),
            description: description.into(),
            aliases: vec![alias.into()],
            ..ApiDoc::default()
        };
        let apis = [
            api("knit", "Joins two threads.", "yarn.weave"),
            api("purl", "Turns a thread.", ""),
            api("frog", "Undoes a row.", ""),
        ];
        let dir = tempfile::tempdir().unwrap();
        build(&apis, dir.path(), &BuildOptions::default(), &Silent).unwrap();
        let index = Index::open(dir.path()).unwrap();
        let query = |task_id: &str, query: &str, gold: &[&str]| RetrievalQuery {
            task_id: task_id.into(),
            query: query.into(),
            gold: gold.iter().map(|name| (*name).to_owned()).collect(),
        };
        let queries = [
            query("by an alias, and one that is missed", "join two threads", &["weave", "frog"]),
            query("at rank 2, said twice", "join two threads, turn", &["purl", "lib.purl"]),
            query("nothing golden", "undo", &[]),
        ];
        let report = measure(&index, &queries).unwrap();
        assert_eq!((report.found, report.golden, report.problems), ([1, 2, 2, 2], 3, 2));
        let json =
            serde_json::to_string(&RecallReport { found: [1, 2, 2, 3], golden: 4, problems: 2 }).unwrap();
        assert_eq!(json, r#"{"recall@1":0.25,"recall@2":0.5,"recall@3":0.5,"recall@5":0.75,"problems":2}"#);
        assert_eq!(measure(&index, &queries[2..]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
