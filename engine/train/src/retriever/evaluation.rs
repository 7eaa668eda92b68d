//! Recall by exact dot products: on libraries that are held out, and on given pools.

use inhouse_core::decode::CancelToken;
use inhouse_core::encode::{Role, TextEncoder};
use inhouse_core::{ApiDoc, Result, docs, files, progress::Silent};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::config::{EvaluationConfig, PoolConfig};
use crate::pairs::{ApiTable, Origin, Pair, api_text};

/// Recall by API name, micro-averaged over golden APIs; k counts different names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Among the first name.
    pub at1: f64,
    /// Among the first two.
    pub at2: f64,
    /// Among the first three.
    pub at3: f64,
    /// Among the first five.
    pub at5: f64,
    /// Queries with a golden API.
    pub queries: usize,
}

/// One library to search.
pub struct Pool {
    /// What it is called.
    pub name: String,
    names: Vec<String>,
    texts: Vec<String>,
    queries: Vec<(String, Vec<String>)>,
}

#[derive(Deserialize)]
struct QueryRow {
    query: String,
    #[serde(default)]
    gold: Vec<String>,
}

impl Pool {
    /// Of records and (query, golden names). Records that read the same are searched once.
    pub fn new<'a>(
        name: String,
        apis: impl IntoIterator<Item = &'a ApiDoc>,
        queries: Vec<(String, Vec<String>)>,
    ) -> Self {
        let mut seen = FxHashSet::default();
        let (mut names, mut texts) = (Vec::new(), Vec::new());
        for api in apis {
            let text = api_text(api);
            if seen.insert((api.name.clone(), text.clone())) {
                names.push(api.name.clone());
                texts.push(text);
            }
        }
        Self { name, names, texts, queries }
    }

    /// Reads a pool of the configuration.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(config: &PoolConfig) -> Result<Self> {
        let read = docs::read(&config.apis, &docs::ReadOptions::default(), &Silent)?;
        let rows = files::json_lines::<QueryRow>(&config.queries)?;
        let rows = rows.map(|row| row.map(|(_, row)| (row.query, row.gold))).collect::<Result<Vec<_>>>()?;
        let apis = read.apis.iter().filter(|api| api.kind != Some(inhouse_core::api::ApiKind::Module));
        Ok(Self::new(config.name.clone(), apis, rows))
    }

    /// Recall of an encoder.
    ///
    /// # Errors
    /// The encoder fails.
    pub fn recall(&self, encoder: &dyn TextEncoder) -> Result<Recall> {
        let cancel = CancelToken::new();
        let asked: Vec<&(String, Vec<String>)> =
            self.queries.iter().filter(|(_, gold)| !gold.is_empty()).collect();
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let apis = encoder.encode(Role::Document, &texts, &cancel)?;
        let queries: Vec<&str> = asked.iter().map(|(query, _)| query.as_str()).collect();
        let queries = encoder.encode(Role::Query, &queries, &cancel)?;
        let mut found = [0usize; 4];
        let mut golden = 0;
        for ((_, gold), query) in asked.iter().zip(queries.rows()) {
            let mut scored: Vec<(f32, usize)> = apis
                .rows()
                .enumerate()
                .map(|(i, api)| (query.iter().zip(api).map(|(x, y)| x * y).sum(), i))
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut names: Vec<&str> = Vec::new();
            for (_, i) in scored {
                let name = self.names[i].as_str();
                if !names.contains(&name) {
                    names.push(name);
                    if names.len() == 5 {
                        break;
                    }
                }
            }
            let gold: FxHashSet<&str> = gold.iter().map(String::as_str).collect();
            golden += gold.len();
            for (slot, k) in found.iter_mut().zip([1, 2, 3, 5]) {
                *slot += names.iter().take(k).filter(|name| gold.contains(**name)).count();
            }
        }
        let share = |count: usize| count as f64 / golden.max(1) as f64;
        let [at1, at2, at3, at5] = found.map(share);
        Ok(Recall { at1, at2, at3, at5, queries: asked.len() })
    }
}

/// The held-out libraries as pools: people's words, as far as the limits allow.
pub fn held_out(table: &ApiTable, pairs: &[Pair], config: &EvaluationConfig) -> Vec<Pool> {
    let mut by_library: FxHashMap<&str, Vec<&Pair>> = FxHashMap::default();
    for pair in pairs {
        let human =
            matches!(pair.origin, Origin::Comment | Origin::Docstring | Origin::Example | Origin::Reference);
        if human && let Some(id) = pair.apis.first().and_then(|api| table.callable(api)) {
            by_library.entry(table.api(id).library()).or_default().push(pair);
        }
    }
    let mut libraries: Vec<(&str, Vec<&Pair>)> = by_library.into_iter().collect();
    libraries.sort_by_key(|(name, _)| *name);
    let share = config.queries / libraries.len().max(1);
    let mut pools = Vec::new();
    for (name, pairs) in libraries {
        // Pairs come in an order that is random but fixed.
        let chosen: Vec<&Pair> = pairs.into_iter().take(share).collect();
        let wanted: FxHashSet<u32> =
            chosen.iter().flat_map(|pair| &pair.apis).filter_map(|api| table.id(api)).collect();
        let of_library = |id: &u32| {
            let api = table.api(*id);
            api.library() == name && table.callable(&api.qualified_name).is_some()
        };
        let all: Vec<u32> = (0..table.apis().len() as u32).filter(of_library).collect();
        let stride = (all.len() / config.apis_per_library.max(1)).max(1);
        let others = all.iter().copied().step_by(stride).filter(|id| !wanted.contains(id));
        let room = config.apis_per_library.saturating_sub(wanted.len());
        let mut ids: Vec<u32> = wanted.iter().copied().chain(others.take(room)).collect();
        ids.sort_unstable();
        let queries = chosen
            .iter()
            .map(|pair| {
                let gold = pair.apis.iter().filter_map(|api| table.id(api));
                (pair.query.clone(), gold.map(|id| table.api(id).name.clone()).collect())
            })
            .collect();
        pools.push(Pool::new(name.to_owned(), ids.iter().map(|&id| table.api(id)), queries));
    }
    pools
}

/// Recall over several pools together.
///
/// # Errors
/// The encoder fails.
pub fn overall(pools: &[Pool], encoder: &dyn TextEncoder) -> Result<Recall> {
    let mut sum = Recall::default();
    for pool in pools {
        let recall = pool.recall(encoder)?;
        let n = recall.queries as f64;
        sum.at1 += recall.at1 * n;
        sum.at2 += recall.at2 * n;
        sum.at3 += recall.at3 * n;
        sum.at5 += recall.at5 * n;
        sum.queries += recall.queries;
    }
    let n = sum.queries.max(1) as f64;
    Ok(Recall {
        at1: sum.at1 / n,
        at2: sum.at2 / n,
        at3: sum.at3 / n,
        at5: sum.at5 / n,
        queries: sum.queries,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use inhouse_core::encode::{EncoderInfo, Vectors};

    /// One dimension per letter.
    struct Letters(EncoderInfo);

    impl TextEncoder for Letters {
        fn info(&self) -> &EncoderInfo {
            &self.0
        }

        fn encode(&self, _: Role, texts: &[&str], _: &CancelToken) -> Result<Vectors> {
            let mut values = vec![0.0; texts.len() * 26];
            for (text, row) in texts.iter().zip(values.chunks_exact_mut(26)) {
                text.bytes()
                    .filter(u8::is_ascii_lowercase)
                    .for_each(|byte| row[usize::from(byte - b'a')] += 1.0);
            }
            Ok(Vectors { dim: 26, values })
        }
    }

    #[test]
    fn recall_counts_names() {
        let info = EncoderInfo {
            architecture: "letters".into(),
            name: String::new(),
            fingerprint: String::new(),
            dim: 26,
            max_tokens: 1,
            normalized: false,
            backend: "candle",
        };
        let api = |name: &str| ApiDoc { name: name.into(), ..ApiDoc::default() };
        let apis = [api("aaa"), api("aab"), api("aab"), api("zz"), api("q")];
        let queries = vec![
            ("aa".to_owned(), vec!["aaa".to_owned()]),
            ("zzb".to_owned(), vec!["aab".to_owned(), "zz".to_owned()]),
            ("nothing".to_owned(), vec![]),
        ];
        let recall = Pool::new("p".into(), &apis, queries).recall(&Letters(info)).unwrap();
        assert_eq!(recall, Recall { at1: 2.0 / 3.0, at2: 1.0, at3: 1.0, at5: 1.0, queries: 2 });
    }
}
