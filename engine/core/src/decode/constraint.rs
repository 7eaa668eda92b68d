//! What may narrow the draws of a sequence: the one hook of the decode loop for constraints on the text.

use std::fmt::Debug;
use std::sync::Arc;

use super::sampler::Sampler;
use super::{TokenId, TokenSet};
use crate::{ErrorKind, Result};

/// A constraint on every sample of a request.
pub trait Constraint: Debug + Send + Sync {
    /// The state of a sample that has no token yet: where the prompt ends.
    fn begin(&self) -> Box<dyn Guard>;
}

/// The state of a constraint in one sequence; it is told every token that the sequence takes.
///
/// A guard may answer in two steps, a cheap set first and the exact one only where a token drawn from the cheap one is
/// refused. The exact set must be the tokens for which [`Guard::admits`] holds, and lie in the cheap one.
pub trait Guard: Send {
    /// A set that holds every token that may follow, and possibly more; `None`: any may.
    fn allowed(&mut self) -> Option<Arc<TokenSet>>;

    /// Whether `token` may follow.
    fn admits(&mut self, token: TokenId) -> bool;

    /// Exactly the tokens that may follow; `None`: any may.
    fn exact(&mut self) -> Option<Arc<TokenSet>>;

    /// The sequence takes `token`, admitted or not.
    fn accept(&mut self, token: TokenId);

    /// Takes note that no token of the exact set could be drawn and the draw was left free.
    fn gave_way(&mut self);

    /// A copy that goes on by itself. Kept from an earlier token, it is the way back to it.
    fn fork(&self) -> Box<dyn Guard>;
}

/// Draws the next token of a sequence from `logits` (`[vocab] f32`), among the `sampleable` ones that its guard lets
/// pass, and tells the guard. Where the guard leaves none, the draw is free.
///
/// # Errors
/// As [`Sampler::sample`].
pub(super) fn draw(
    guard: &mut dyn Guard,
    sampler: &mut Sampler,
    logits: &[f32],
    sampleable: &TokenSet,
) -> Result<TokenId> {
    let token = guarded(guard, sampler, logits, sampleable)?;
    guard.accept(token);
    Ok(token)
}

fn guarded(
    guard: &mut dyn Guard,
    sampler: &mut Sampler,
    logits: &[f32],
    sampleable: &TokenSet,
) -> Result<TokenId> {
    let mut refused = false;
    if let Some(set) = guard.allowed() {
        match sampler.sample(logits, &set.intersection(sampleable)) {
            Ok(token) if guard.admits(token) => return Ok(token),
            Ok(_) => refused = true,
            Err(error) if error.kind() == ErrorKind::Backend => {}
            Err(error) => return Err(error),
        }
    } else {
        let token = sampler.sample(logits, sampleable)?;
        if guard.admits(token) {
            return Ok(token);
        }
        refused = true;
    }
    if refused && let Some(set) = guard.exact() {
        match sampler.sample(logits, &set.intersection(sampleable)) {
            Ok(token) => return Ok(token),
            Err(error) if error.kind() == ErrorKind::Backend => {}
            Err(error) => return Err(error),
        }
    }
    guard.gave_way();
    sampler.sample(logits, sampleable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::SamplingParams;

    /// Promises the tokens of `cheap`, keeps those of `exact`.
    struct Fixed {
        cheap: Option<Vec<TokenId>>,
        exact: Vec<TokenId>,
        taken: Vec<TokenId>,
        gave_way: usize,
    }

    fn set(tokens: &[TokenId]) -> Arc<TokenSet> {
        Arc::new(TokenSet::new(4, |token| tokens.contains(&token)))
    }

    impl Guard for Fixed {
        fn allowed(&mut self) -> Option<Arc<TokenSet>> {
            self.cheap.as_deref().map(set)
        }
        fn admits(&mut self, token: TokenId) -> bool {
            self.exact.contains(&token)
        }
        fn exact(&mut self) -> Option<Arc<TokenSet>> {
            Some(set(&self.exact))
        }
        fn accept(&mut self, token: TokenId) {
            self.taken.push(token);
        }
        fn gave_way(&mut self) {
            self.gave_way += 1;
        }
        fn fork(&self) -> Box<dyn Guard> {
            unreachable!("no draw forks")
        }
    }

    #[test]
    fn draws_are_the_best_token_that_may_follow() {
        // cheap set, exact set, the greedy draw over logits 0, 1, 2, 3 of which token 3 is not sampleable, draws left free
        type Case = (Option<&'static [TokenId]>, &'static [TokenId], TokenId, usize);
        let cases: [Case; 6] = [
            (None, &[0, 1, 2, 3], 2, 0),
            (None, &[0, 1], 1, 0),
            (Some(&[0, 1]), &[0, 1], 1, 0),
            (Some(&[0, 1, 2]), &[0], 0, 0),
            (Some(&[3]), &[3], 2, 1),
            (Some(&[0, 3]), &[3], 2, 1),
        ];
        let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
        for (cheap, exact, expected, gave_way) in cases {
            let mut guard =
                Fixed { cheap: cheap.map(<[_]>::to_vec), exact: exact.to_vec(), taken: vec![], gave_way: 0 };
            let mut sampler = Sampler::new(&greedy, 0, 0).unwrap();
            let token = draw(&mut guard, &mut sampler, &[0.0, 1.0, 2.0, 3.0], &set(&[0, 1, 2])).unwrap();
            assert_eq!((token, guard.gave_way), (expected, gave_way), "{cheap:?} {exact:?}");
            assert_eq!(guard.taken, [expected]);
        }
    }
}
