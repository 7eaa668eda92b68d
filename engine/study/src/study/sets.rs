//! A problem set as a study uses it: its problems with their golden and chosen APIs, and the published prompts beside them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use inhouse::{Error, Result};
use inhouse_core::Fingerprint;
use serde::{Deserialize, Serialize};

use super::config::{ProblemSet, Protocol, lacks};
use crate::evaluate::EnvSpec;
use crate::generate::{ApiSetting, PromptSetting};
use crate::naming::Naming;
use crate::problems::{self, Problem, RetrievalQuery};
use crate::recall::bare;
use crate::rename::{Rules, Table};
use crate::twin::{Scope, Twin};

/// What a store remembers of a problem set: results are of use only where it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    /// How many problems it has.
    pub problems: usize,
    /// Digest of the problems and everything beside them.
    pub fingerprint: String,
    /// Digest of the index, where there is one.
    pub index: Option<String>,
}

/// A problem set, read.
pub(crate) struct Set {
    pub config: ProblemSet,
    pub problems: Vec<Problem>,
    /// Published prompts by setting, in the order of `problems`.
    prompts: BTreeMap<String, Vec<Problem>>,
    pub record: SetRecord,
}

impl Set {
    /// # Errors
    /// A file that cannot be read or does not fit the problems.
    pub fn read(config: &ProblemSet) -> Result<Self> {
        let mut print = Fingerprint::default();
        let mut problems = problems::read(&config.file)?;
        if let Some(path) = &config.gold {
            let gold = names_by_task(path, &problems)?;
            for problem in &mut problems {
                problem.gold = Some(gold.get(&problem.task_id).cloned().unwrap_or_default());
            }
        }
        if let Some(path) = &config.human {
            let human = names_by_task(path, &problems)?;
            for problem in &mut problems {
                problem.human = Some(human.get(&problem.task_id).cloned().unwrap_or_default());
            }
        }
        let mut prompts = BTreeMap::new();
        for (setting, path) in &config.prompts {
            prompts.insert(setting.clone(), aligned(problems::read(path)?, &problems, path)?);
        }
        for problem in problems.iter().chain(prompts.values().flatten()) {
            print.add(serde_json::to_string(problem).unwrap_or_default().as_bytes());
        }
        if let Some(table) = &config.private {
            print.add(
                serde_json::to_string(&Table::read(table, &tests(&problems))?.pairs)
                    .unwrap_or_default()
                    .as_bytes(),
            );
        }
        let index = match &config.index {
            Some(folder) => {
                let mut print = Fingerprint::default();
                print.add_file(&folder.join("manifest.json"))?;
                Some(print.finish())
            }
            None => None,
        };
        let record = SetRecord { problems: problems.len(), fingerprint: print.finish(), index };
        Ok(Self { config: config.clone(), problems, prompts, record })
    }

    /// The problems for a setting, and how they are asked: published prompts go in as they are.
    ///
    /// # Errors
    /// The set has not what the setting needs.
    pub fn asked(&self, setting: &str) -> Result<(&[Problem], PromptSetting)> {
        if let Some(published) = self.prompts.get(setting) {
            return Ok((
                published,
                PromptSetting { apis: ApiSetting::AsIs, examples: 0, best_of: 1, refine: false },
            ));
        }
        let name = &self.config.name;
        let parsed: PromptSetting = setting.parse().map_err(|what: String| lacks(name, setting, &what))?;
        let lacking = match parsed.apis {
            _ if parsed.examples > 0 && self.config.index.is_none() => {
                Some("no examples to show; name the `index` that keeps them")
            }
            ApiSetting::Top(_) if self.config.index.is_none() => {
                Some("nothing to retrieve from; name an `index`, or published `prompts`")
            }
            ApiSetting::Perfect if self.problems.iter().any(|problem| problem.gold.is_none()) => {
                Some("problems without golden APIs; name a file of them as `gold`, or published `prompts`")
            }
            ApiSetting::Human if self.problems.iter().any(|problem| problem.human.is_none()) => Some(
                "nobody has chosen; name a file of choices as `human` (`inhouse study choose` makes one), or published `prompts`",
            ),
            _ => None,
        };
        match lacking {
            Some(what) => Err(lacks(name, setting, what)),
            None => Ok((&self.problems, parsed)),
        }
    }

    /// The published prompts of a setting.
    pub fn published(&self, setting: &str) -> Option<&[Problem]> {
        self.prompts.get(setting).map(Vec::as_slice)
    }

    /// Questions to the retriever.
    pub fn queries(&self) -> Vec<RetrievalQuery> {
        let ask = |problem: &Problem| RetrievalQuery {
            task_id: problem.task_id.clone(),
            query: problem.query.clone().unwrap_or_else(|| {
                inhouse::query_from_context(inhouse_core::prompt::split(&problem.prompt).1)
            }),
            gold: problem.gold.clone().unwrap_or_default(),
        };
        self.problems.iter().map(ask).collect()
    }

    /// In whose names its samples run.
    ///
    /// # Errors
    /// The rename table cannot be read.
    pub fn naming(&self, protocol: Protocol) -> Result<Naming> {
        let Some(path) = &self.config.private else { return Ok(Naming::AsWritten) };
        let table = Table::read(path, &tests(&self.problems))?;
        Ok(match protocol {
            Protocol::AsPublished => Naming::convert_back(table, Rules::PUBLISHED, &self.problems),
            Protocol::Sound => {
                Naming::Private(Twin::new(&table, &self.environment()?.preload, Scope::default())?)
            }
        })
    }

    /// The interpreter that runs its samples.
    ///
    /// # Errors
    /// Its text names none.
    pub fn environment(&self) -> Result<EnvSpec> {
        self.config.env.parse().map_err(|what: String| {
            Error::new(
                inhouse::ErrorKind::InvalidArgument,
                format!("problems `{}`: env: {what}", self.config.name),
            )
        })
    }
}

/// Tests speak public names: they show which side of an undeclared table is public.
fn tests(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.test.as_str()).collect()
}

/// The names of a file by task, bare and distinct.
fn names_by_task(path: &Path, problems: &[Problem]) -> Result<HashMap<String, Vec<String>>> {
    let rows = problems::read_queries(path)?;
    if !rows.iter().any(|row| problems.iter().any(|problem| problem.task_id == row.task_id)) {
        return Err(Error::data(path, "no row has the task_id of a problem"));
    }
    let distinct = |names: Vec<String>| {
        let mut kept: Vec<String> = Vec::new();
        for name in names {
            if !kept.iter().any(|other| bare(other) == bare(&name)) {
                kept.push(name);
            }
        }
        kept
    };
    Ok(rows.into_iter().map(|row| (row.task_id, distinct(row.gold))).collect())
}

/// Published problems in the order of the set, with its golden APIs.
fn aligned(published: Vec<Problem>, problems: &[Problem], path: &Path) -> Result<Vec<Problem>> {
    let mut by_id: HashMap<String, Problem> =
        published.into_iter().map(|problem| (problem.task_id.clone(), problem)).collect();
    let take = |problem: &Problem| {
        let found = by_id.remove(&problem.task_id);
        let found = found
            .ok_or_else(|| Error::data(path, format!("no problem has task_id `{}`", problem.task_id)))?;
        Ok(Problem { gold: problem.gold.clone(), human: problem.human.clone(), ..found })
    };
    problems.iter().map(take).collect()
}
