//! API-constrained decoding: where generated code refers to an indexed library, only names that its documentation has
//! can follow; everything else is free.
//!
//! Constrained are: the name after `module.` of an indexed module, in `from module import` and `import module.`, after
//! an object or class of which the index knows all members, after a value of unknown type in a file that uses nothing
//! but indexed libraries (there also Python's own members and the file's own names), and a keyword in the call of a
//! known callable. Where the text does not tell what a name means, or a module or class may have members that the
//! records do not name, nothing is constrained. What the prompt itself uses is allowed too: it is the user's own code. So is, after any dot, the
//! name of an API that stands in the prompt.
//!
//! Reading order: `signature`, `library` (the names of an index) -> `scope`, `tracker`, `scanner` (what a text means at
//! its end, byte by byte) -> `vocabulary`, `mask` (names against tokens) -> this file (the decode loop's
//! [`Constraint`]); `report` judges finished text by its syntax tree, and `calls` lists what it calls; `heal` has samples write the end of the prompt again. A free position costs no look at the vocabulary: the text of the one token drawn is scanned, and only
//! where it refers to an unknown name is the exact set of tokens computed. A constrained position takes its mask from a
//! cache, filled by walking the names and the tokens together.

mod builtins;
mod calls;
mod heal;
mod library;
mod mask;
mod report;
mod scanner;
mod scope;
mod signature;
mod tracker;
mod vocabulary;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;
use serde::Serialize;

pub use builtins::is_builtin_member;
pub(crate) use calls::root;
pub use calls::{Call, Calls, calls, calls_in_completion};
pub use heal::Healing;
pub use library::Library;
pub use report::{ApiReport, ApiUse, Verdict, report};
pub use vocabulary::Vocabulary;

use crate::ApiDoc;
use crate::decode::{Constraint, Guard, TokenId, TokenSet};
use library::SetKey;
use mask::Lead;
use scanner::{Scanner, Spot};

/// Bytes that cached masks of one [`ApiConstraint::names`] may take.
const MAX_CACHE_BYTES: usize = 32 << 20;

/// What constrained decoding did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConstraintStatistics {
    /// Tokens drawn.
    pub steps: u64,
    /// Those drawn from a mask: within a name that is constrained.
    pub masked: u64,
    /// Tokens that were drawn first and not taken.
    pub refused: u64,
    /// Draws left free because no token of the mask could be drawn.
    pub gave_way: u64,
}

#[derive(Debug, Default)]
struct Counters {
    steps: AtomicU64,
    masked: AtomicU64,
    refused: AtomicU64,
    gave_way: AtomicU64,
}

type MaskKey = (SetKey, Lead, Box<[u8]>);

/// A library's names against a model's vocabulary, with the masks found so far: made once for both, shared by requests.
#[derive(Debug)]
pub struct ApiNames {
    library: Arc<Library>,
    vocabulary: Arc<Vocabulary>,
    masks: Mutex<FxHashMap<MaskKey, Arc<TokenSet>>>,
}

impl ApiNames {
    /// Of a library and a vocabulary.
    pub fn new(library: Arc<Library>, vocabulary: Arc<Vocabulary>) -> Self {
        Self { library, vocabulary, masks: Mutex::default() }
    }

    /// The names.
    pub fn library(&self) -> &Library {
        &self.library
    }

    fn mask(&self, spot: &Spot, prefix: &[u8]) -> Arc<TokenSet> {
        let lead = if prefix.is_empty() { spot.lead } else { Lead { lines: false, instead: b"" } };
        let key = (spot.key, lead, Box::from(prefix));
        let mut masks = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = masks.get(&key) {
            return Arc::clone(mask);
        }
        if masks.len() * self.vocabulary.size().div_ceil(8) > MAX_CACHE_BYTES {
            masks.clear();
        }
        let mut set = TokenSet::empty(self.vocabulary.size());
        mask::admit(&self.vocabulary, &spot.names, prefix, lead, &mut set);
        if !prefix.is_empty() && spot.names.contains(prefix) {
            self.vocabulary.ends().iter().for_each(|&token| set.insert(token));
        }
        let set = Arc::new(set);
        masks.insert(key, Arc::clone(&set));
        set
    }
}

/// The constraint on what follows one prompt.
#[derive(Debug)]
pub struct ApiConstraint {
    names: Arc<ApiNames>,
    prompt: Scanner,
    counters: Arc<Counters>,
}

impl ApiConstraint {
    /// Scans the code before the cursor, once for all samples. APIs that stand in it as lines of a prompt are offered.
    pub fn new(names: Arc<ApiNames>, context: &str) -> Self {
        Self::offering(names, context, &[])
    }

    /// The same where these APIs stand in front of the code too: a name that the prompt offers is never refused.
    pub fn offering(names: Arc<ApiNames>, context: &str, apis: &[ApiDoc]) -> Self {
        let mut prompt = Scanner::new(Arc::clone(&names.library));
        let lines = crate::prompt::split(context).0;
        let offered =
            apis.iter().map(|api| api.name.as_str()).chain(lines.iter().map(|line| line.name.as_str()));
        for name in offered.flat_map(|name| name.split('.')).filter(|name| library::is_name(name)) {
            prompt.offer(name);
        }
        for byte in context.bytes() {
            prompt.step(byte);
        }
        prompt.seal();
        Self { names, prompt, counters: Arc::default() }
    }

    /// What its guards did so far.
    pub fn statistics(&self) -> ConstraintStatistics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        ConstraintStatistics {
            steps: get(&counters.steps),
            masked: get(&counters.masked),
            refused: get(&counters.refused),
            gave_way: get(&counters.gave_way),
        }
    }
}

impl Constraint for ApiConstraint {
    fn begin(&self) -> Box<dyn Guard> {
        Box::new(ApiGuard {
            names: Arc::clone(&self.names),
            counters: Arc::clone(&self.counters),
            scanner: self.prompt.clone(),
            tried: None,
        })
    }
}

/// The state of an [`ApiConstraint`] in one sequence.
#[derive(Clone)]
struct ApiGuard {
    names: Arc<ApiNames>,
    counters: Arc<Counters>,
    scanner: Scanner,
    /// The token looked at last, and the state after it.
    tried: Option<(TokenId, Scanner)>,
}

impl ApiGuard {
    /// The state after `token`, and whether it may follow.
    fn after(&self, token: TokenId) -> (Scanner, bool) {
        let vocabulary = &self.names.vocabulary;
        let mut scanner = self.scanner.clone();
        let mut known = true;
        for &byte in vocabulary.text(token) {
            known &= scanner.step(byte);
        }
        // Where a token `==` exists, a lone `=` is a keyword's: to let it pass would force a comparison.
        known &= !(vocabulary.has_equals && scanner.must_compare());
        (scanner, known)
    }

    fn follows(&self, token: TokenId) -> bool {
        if self.names.vocabulary.is_end(token) { self.scanner.may_end() } else { self.after(token).1 }
    }

    /// The mask where a name or a second `=` is due.
    fn mask(&self) -> Option<Arc<TokenSet>> {
        let vocabulary = &self.names.vocabulary;
        if self.scanner.must_compare() {
            let mut set = TokenSet::empty(vocabulary.size());
            for at in vocabulary.child(&vocabulary.all(), 0, b'=') {
                set.insert(vocabulary.token(at));
            }
            return Some(Arc::new(set));
        }
        let (spot, prefix) = self.scanner.spot()?;
        let mask = self.names.mask(spot, prefix);
        let Some(additions) = self.scanner.additions(spot.key) else { return Some(mask) };
        let mut set = (*mask).clone();
        mask::admit(vocabulary, &additions, prefix, spot.lead, &mut set);
        if additions.contains(prefix) {
            vocabulary.ends().iter().for_each(|&token| set.insert(token));
        }
        Some(Arc::new(set))
    }
}

impl Guard for ApiGuard {
    fn allowed(&mut self) -> Option<Arc<TokenSet>> {
        self.counters.steps.fetch_add(1, Ordering::Relaxed);
        let mask = self.mask()?;
        self.counters.masked.fetch_add(1, Ordering::Relaxed);
        Some(mask)
    }

    fn admits(&mut self, token: TokenId) -> bool {
        let admitted = if self.names.vocabulary.is_end(token) {
            self.scanner.may_end()
        } else {
            let (scanner, known) = self.after(token);
            self.tried = Some((token, scanner));
            known
        };
        if !admitted {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn exact(&mut self) -> Option<Arc<TokenSet>> {
        let vocabulary = &self.names.vocabulary;
        let set = match self.mask() {
            Some(mask) => {
                let size = vocabulary.size();
                TokenSet::new(size, |token| mask.contains(token) && self.follows(token))
            }
            None if self.scanner.has_spot() => {
                let sampleable = vocabulary.sampleable();
                TokenSet::new(vocabulary.size(), |token| sampleable.contains(token) && self.follows(token))
            }
            None => {
                // In a free place only a token with something constrained in it can go wrong, or one that goes on from a
                // name to a `=`.
                let mut set = vocabulary.sampleable().clone();
                for &token in &vocabulary.risky {
                    if !self.follows(token) {
                        set.remove(token);
                    }
                }
                set
            }
        };
        Some(Arc::new(set))
    }

    fn accept(&mut self, token: TokenId) {
        self.scanner = match self.tried.take() {
            Some((tried, scanner)) if tried == token => scanner,
            _ => self.after(token).0,
        };
    }

    fn gave_way(&mut self) {
        self.counters.gave_way.fetch_add(1, Ordering::Relaxed);
    }

    fn fork(&self) -> Box<dyn Guard> {
        Box::new(self.clone())
    }
}
