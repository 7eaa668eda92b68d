//! Questions to each package: comments and docstrings over calls of it, in its own code outside of tests and in that of the others.

use inhouse_core::{ApiDoc, Progress, Result, docs, progress::Silent};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::config::Config;
use crate::corpus::read_wheel;
use crate::pairs::{ApiTable, Origin, Pair, code};
use crate::sources::SourceList;

/// Different answers of one question, beyond which it says nothing ("create the model").
const MAX_MEANINGS: usize = 4;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub query: String,
    /// Bare names that answer it.
    #[serde(default)]
    pub gold: Vec<String>,
    /// The file that it stands in, with its package: usage of the same file is left out.
    #[serde(default)]
    pub file: (String, String),
}

/// A package that is asked about.
#[derive(Debug, Clone)]
pub struct Library {
    /// Its name at the package index.
    pub name: String,
    /// Its documentation.
    pub apis: Vec<ApiDoc>,
    /// Its wheel.
    pub wheel: std::path::PathBuf,
    /// The questions.
    pub questions: Vec<Question>,
}

/// Reads the wheels, and gives the packages of `learn` and `evaluate` with their questions.
///
/// # Errors
/// A wheel is no readable archive; whoever watches ends the work.
pub fn libraries(list: &SourceList, config: &Config, progress: &dyn Progress) -> Result<Vec<Library>> {
    progress.start("reading documentation", Some(list.package.len() as u64));
    let mut all: Vec<(String, Vec<ApiDoc>)> = Vec::new();
    for package in &list.package {
        progress.check()?;
        let read = docs::read(&config.wheels.join(&package.file), &docs::ReadOptions::default(), &Silent)?;
        all.push((package.name.clone(), read.apis));
        progress.advance(1);
    }
    progress.finish();
    let table = ApiTable::new(all.iter().flat_map(|(_, apis)| apis.iter().cloned()).collect());
    let mut pairs: Vec<(String, Pair)> = Vec::new();
    progress.start("reading code", Some(list.package.len() as u64));
    for package in &list.package {
        progress.check()?;
        for file in read_wheel(&config.wheels.join(&package.file), &package.exclude)? {
            let of_file = code::pairs(&file, &table).into_iter();
            pairs.extend(of_file.map(|pair| (package.name.clone(), pair)));
        }
        progress.advance(1);
    }
    progress.finish();
    let mut found = Vec::new();
    for package in &list.package {
        if !config.learn.contains(&package.name) && !config.evaluate.contains(&package.name) {
            continue;
        }
        let Some((_, apis)) = all.iter().find(|(name, _)| *name == package.name) else { continue };
        let own: FxHashSet<&str> = apis.iter().map(ApiDoc::library).collect();
        let of_library = pairs.iter().filter(|(_, pair)| {
            let library = pair.apis.first().and_then(|api| api.split('.').next()).unwrap_or_default();
            own.contains(library)
        });
        found.push(Library {
            name: package.name.clone(),
            apis: apis.clone(),
            wheel: config.wheels.join(&package.file),
            questions: choose(of_library, config),
        });
    }
    Ok(found)
}

/// Each question once, none that is vague, not too many of one answer.
fn choose<'p>(pairs: impl Iterator<Item = &'p (String, Pair)>, config: &Config) -> Vec<Question> {
    let bare = |pair: &Pair| -> Vec<String> {
        let mut names: Vec<String> =
            pair.apis.iter().map(|api| api.rsplit('.').next().unwrap_or(api).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    // The first paragraph of a docstring says what its first sentence does, and more.
    let pairs: Vec<&(String, Pair)> =
        pairs.filter(|(_, pair)| matches!(pair.origin, Origin::Comment | Origin::Docstring)).collect();
    let mut meanings: FxHashMap<String, FxHashSet<String>> = FxHashMap::default();
    for (_, pair) in &pairs {
        meanings.entry(pair.query.to_lowercase()).or_default().extend(bare(pair));
    }
    let mut ordered: Vec<(bool, [u8; 8], &(String, Pair))> = pairs
        .into_iter()
        .map(|pair| {
            let text = format!("{}\0{}\0{}\0{}", config.seed, pair.0, pair.1.path, pair.1.query);
            let digest = Sha256::digest(text.as_bytes());
            // What is known for sure comes before what is guessed by the bare name of a method.
            (pair.1.guessed, digest.as_slice()[..8].try_into().unwrap_or_default(), pair)
        })
        .collect();
    ordered.sort_by(|a, b| (a.0, a.1, a.2.1.line).cmp(&(b.0, b.1, b.2.1.line)));
    let mut seen = FxHashSet::default();
    let mut counts: FxHashMap<String, usize> = FxHashMap::default();
    let mut chosen = Vec::new();
    for (_, _, (package, pair)) in ordered {
        let (query, names) = (pair.query.to_lowercase(), bare(pair));
        let vague = meanings.get(&query).is_some_and(|found| found.len() > MAX_MEANINGS);
        let enough = |name: &String| counts.get(name).copied().unwrap_or(0) >= config.queries_per_name;
        if vague
            || names.iter().all(enough)
            || chosen.len() >= config.queries_per_package
            || !seen.insert(query)
        {
            continue;
        }
        names.iter().for_each(|name| *counts.entry(name.clone()).or_default() += 1);
        chosen.push(Question {
            query: pair.query.clone(),
            gold: names,
            file: (package.clone(), pair.path.clone()),
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(query: &str, apis: &[&str], origin: Origin) -> (String, Pair) {
        let pair = Pair {
            query: query.into(),
            origin,
            apis: apis.iter().map(|api| (*api).to_owned()).collect(),
            guessed: false,
            path: "loom/a.py".into(),
            line: 1,
        };
        ("loom".into(), pair)
    }

    #[test]
    fn questions_are_few_of_one_answer_and_none_is_vague() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ranker.toml");
        let config = Config { queries_per_name: 2, ..Config::read(&path).unwrap() };
        let mut pairs: Vec<_> = (0..9)
            .map(|i| pair(&format!("make the cloth wet, way {i}"), &["loom.Cloth.soak"], Origin::Comment))
            .collect();
        pairs.push(pair("put a hem on it", &["loom.Cloth.hem", "loom.hem"], Origin::Docstring));
        pairs.push(pair("Put a hem on it", &["loom.hem"], Origin::Comment));
        pairs.push(pair("put a hem on it and more of it", &["loom.hem"], Origin::Paragraph));
        for name in ["a", "b", "c", "d", "e"] {
            pairs.push(pair("make the model", &[&format!("loom.{name}")], Origin::Comment));
        }
        let chosen = choose(pairs.iter(), &config);
        let asking = |name: &str| chosen.iter().filter(|q| q.gold == [name]).count();
        assert_eq!((asking("soak"), asking("hem"), chosen.len()), (2, 1, 3), "{chosen:?}");
        // Another seed takes others.
        let other = choose(pairs.iter(), &Config { seed: 9, ..config });
        assert!(other.len() == 3 && other != chosen);
    }
}
