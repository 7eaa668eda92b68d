//! Token healing: where a prompt ends within what the model would write as one token, its last tokens are taken back and
//! every sample begins by writing their text again, in whatever tokens the model prefers.
//!
//! A model has hardly seen `    ` before `return`, since training wrote `   ` and ` return`; nor `aver` before `age`. Taken
//! back are the tokens of the blanks or of the word at the end, or else the last one; never the end of a line, after which
//! models are used to begin.

use std::sync::Arc;

use super::mask::is_name_byte;
use super::vocabulary::Vocabulary;
use crate::decode::{Constraint, Guard, TokenId, TokenSet};

/// Tokens that are taken back at most.
const MAX_TOKENS: usize = 12;
/// Bytes that are taken back at most.
const MAX_BYTES: usize = 96;

/// What was taken back, and what has the samples write it again.
#[derive(Debug, Clone)]
pub struct Healing {
    vocabulary: Arc<Vocabulary>,
    text: Arc<[u8]>,
    /// Whether tokens can write the text from each of its bytes on.
    writable: Arc<[bool]>,
    inner: Option<Arc<dyn Constraint>>,
}

impl Healing {
    /// Takes the last tokens of `prompt` back where it ends within a word, in blanks, or in a token that others begin with.
    /// `text` is what the prompt says; of its tokens the first `keep` stay. `None` where nothing is to be healed.
    pub fn of_prompt(
        vocabulary: &Arc<Vocabulary>,
        prompt: &mut Vec<TokenId>,
        text: &str,
        keep: usize,
    ) -> Option<Self> {
        let taken = taken_back(vocabulary, prompt.get(keep.max(1)..)?, text.as_bytes())?;
        let written = &text[text.len() - taken.bytes..];
        let healing = Self::new(vocabulary, written)?;
        // What can only be written as it was is left as it is.
        if healing.followers(0).count() == 1 && taken.tokens == 1 {
            return None;
        }
        prompt.truncate(prompt.len() - taken.tokens);
        Some(healing)
    }

    /// Has samples begin with `text`. `None` where the vocabulary cannot write it.
    fn new(vocabulary: &Arc<Vocabulary>, text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let mut writable = vec![false; text.len() + 1];
        writable[text.len()] = true;
        for at in (0..text.len()).rev() {
            let (shorter, longer) = vocabulary.beginning(&text[at..]);
            writable[at] = !longer.is_empty() || shorter.iter().any(|&(length, _)| writable[at + length]);
        }
        (!text.is_empty() && writable[0]).then(|| Self {
            vocabulary: Arc::clone(vocabulary),
            text: text.into(),
            writable: writable.into(),
            inner: None,
        })
    }

    /// The same, with a constraint on the text from the first byte that is written again.
    #[must_use]
    pub fn within(self, inner: Option<Arc<dyn Constraint>>) -> Self {
        Self { inner, ..self }
    }

    /// Bytes at the end of the prompt's text that samples write again.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The tokens that may stand where `at` bytes are written.
    fn followers(&self, at: usize) -> TokenSet {
        let mut set = TokenSet::empty(self.vocabulary.size());
        let (shorter, longer) = self.vocabulary.beginning(&self.text[at..]);
        for (length, token) in shorter {
            if self.writable[at + length] {
                set.insert(token);
            }
        }
        longer.for_each(|place| set.insert(self.vocabulary.token(place)));
        set
    }
}

impl Constraint for Healing {
    fn begin(&self) -> Box<dyn Guard> {
        let inner = self.inner.as_ref().map(|inner| inner.begin());
        Box::new(HealingGuard { healing: self.clone(), written: 0, inner, alone: false })
    }
}

struct TakenBack {
    tokens: usize,
    bytes: usize,
}

/// How much of the end of `tokens`, which end in what `text` ends in, is to be written again.
fn taken_back(vocabulary: &Vocabulary, tokens: &[TokenId], text: &[u8]) -> Option<TakenBack> {
    let last = *text.last()?;
    if matches!(last, b'\n' | b'\r') {
        return None;
    }
    let blank = |byte: u8| matches!(byte, b' ' | b'\t');
    let run = |alike: &dyn Fn(u8) -> bool| text.iter().rev().take_while(|&&byte| alike(byte)).count();
    let wanted = if blank(last) { run(&blank) } else { run(&is_name_byte) }.max(1);
    let mut best = None;
    let mut taken = TakenBack { tokens: 0, bytes: 0 };
    for &token in tokens.iter().rev().take(MAX_TOKENS) {
        let piece = vocabulary.text(token);
        let bytes = taken.bytes + piece.len();
        // A token that stands for something else than its place in the text tells nothing.
        if piece.is_empty() || bytes > MAX_BYTES || !text[..text.len() - taken.bytes].ends_with(piece) {
            break;
        }
        taken = TakenBack { tokens: taken.tokens + 1, bytes };
        // Not within a character.
        if text[text.len() - bytes] & 0xC0 != 0x80 {
            best = Some(TakenBack { ..taken });
            if bytes >= wanted {
                break;
            }
        }
    }
    best
}

/// The state of a [`Healing`] in one sequence.
struct HealingGuard {
    healing: Healing,
    /// Bytes of the text that the sequence has.
    written: usize,
    inner: Option<Box<dyn Guard>>,
    /// The constraint within has no way to write the text: until it is written it is not asked.
    alone: bool,
}

impl HealingGuard {
    fn is_done(&self) -> bool {
        self.written >= self.healing.text.len()
    }

    fn fits(&self, token: TokenId) -> bool {
        let (piece, rest) = (self.healing.vocabulary.text(token), &self.healing.text[self.written..]);
        match rest.strip_prefix(piece) {
            Some(_) => !piece.is_empty() && self.healing.writable[self.written + piece.len()],
            None => piece.starts_with(rest),
        }
    }

    /// What is left of the followers by what the constraint within allows; all of them where that is nothing.
    fn narrowed(&mut self, within: Option<Arc<TokenSet>>) -> Arc<TokenSet> {
        let followers = self.healing.followers(self.written);
        if let (Some(within), false) = (within, self.alone) {
            let both = followers.intersection(&within);
            if both.count() > 0 {
                return Arc::new(both);
            }
            self.alone = true;
        }
        Arc::new(followers)
    }
}

impl Guard for HealingGuard {
    fn allowed(&mut self) -> Option<Arc<TokenSet>> {
        let within = self.inner.as_mut().and_then(|inner| inner.allowed());
        if self.is_done() { within } else { Some(self.narrowed(within)) }
    }

    fn admits(&mut self, token: TokenId) -> bool {
        let within = self.alone || self.inner.as_mut().is_none_or(|inner| inner.admits(token));
        within && (self.is_done() || self.fits(token))
    }

    fn exact(&mut self) -> Option<Arc<TokenSet>> {
        let within = self.inner.as_mut().and_then(|inner| inner.exact());
        if self.is_done() { within } else { Some(self.narrowed(within)) }
    }

    fn accept(&mut self, token: TokenId) {
        if let Some(inner) = &mut self.inner {
            inner.accept(token);
        }
        if !self.is_done() {
            self.written += self.healing.vocabulary.text(token).len();
            self.alone &= !self.is_done();
        }
    }

    fn gave_way(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.gave_way();
        }
    }

    fn fork(&self) -> Box<dyn Guard> {
        let inner = self.inner.as_ref().map(|inner| inner.fork());
        Box::new(Self { healing: self.healing.clone(), inner, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Tokenizer;

    /// Tokens that are these texts; the last row is the end of text.
    struct Texts(&'static [&'static str]);

    impl Tokenizer for Texts {
        fn encode(&self, _text: &str) -> crate::Result<Vec<TokenId>> {
            unreachable!("tests write tokens")
        }
        fn token_bytes(&self, token: TokenId) -> Vec<u8> {
            self.0.get(token as usize).map_or(Vec::new(), |text| text.as_bytes().to_vec())
        }
        fn is_end(&self, token: TokenId) -> bool {
            token as usize == self.0.len()
        }
        fn is_sampleable(&self, _token: TokenId) -> bool {
            true
        }
        fn vocab_size(&self) -> usize {
            self.0.len() + 1
        }
    }

    const TEXTS: Texts = Texts(&[
        "x", " ", "  ", "   ", "    ", " ret", "\n", "sp", "spin", "n", "s", "p", ".", "é", "in(", "i",
    ]);

    fn id(text: &str) -> TokenId {
        TEXTS.0.iter().position(|other| *other == text).unwrap() as TokenId
    }

    fn tokens(texts: &[&str]) -> Vec<TokenId> {
        texts.iter().map(|text| id(text)).collect()
    }

    fn healed(texts: &[&str]) -> (Vec<TokenId>, Option<Healing>) {
        let mut prompt = tokens(texts);
        let healing = Healing::of_prompt(&Arc::new(Vocabulary::new(&TEXTS)), &mut prompt, &texts.concat(), 0);
        (prompt, healing)
    }

    #[test]
    fn takes_back_blanks_words_and_tokens_that_others_begin_with() {
        // the prompt's tokens, and those that stay
        let cases: [(&[&str], &[&str]); 8] = [
            (&["x", "\n", "    "], &["x", "\n"]),
            (&["x", "\n", "    ", "  "], &["x", "\n"]),
            (&["x", "\n"], &["x", "\n"]),
            (&["x", ".", "sp", "i"], &["x", "."]),
            (&["x", ".", "s", "p", "i", "n"], &["x", "."]),
            // Nothing else can be written there, or nothing would be left.
            (&["x", "."], &["x", "."]),
            (&["spin"], &["spin"]),
            (&["x", "é"], &["x", "é"]),
        ];
        for (prompt, stay) in cases {
            let (left, healing) = healed(prompt);
            assert_eq!(left, tokens(stay), "{prompt:?}");
            assert_eq!(healing.is_some(), prompt.len() != stay.len(), "{prompt:?}");
            if let Some(healing) = healing {
                assert_eq!(healing.bytes(), prompt.concat().len() - stay.concat().len(), "{prompt:?}");
            }
        }
    }

    #[test]
    fn what_was_taken_back_is_written_again_in_other_tokens() {
        let healing = healed(&["x", "\n", "    "]).1.unwrap();
        let mut guard = healing.begin();
        let first = guard.allowed().unwrap();
        let may: Vec<&str> = TEXTS.0.iter().copied().filter(|text| first.contains(id(text))).collect();
        assert_eq!(may, [" ", "  ", "   ", "    "]);
        assert!(!first.contains(TEXTS.0.len() as TokenId), "a sample ended before the prompt's end");
        guard.accept(id("   "));
        let mut other = guard.fork();
        let second = guard.exact().unwrap();
        assert!(second.contains(id(" ret")) && second.contains(id("    ")) && !second.contains(id("x")));
        assert!(guard.admits(id(" ret")) && !guard.admits(id("x")));
        guard.accept(id(" ret"));
        assert!(guard.allowed().is_none() && guard.exact().is_none() && guard.admits(id("x")));
        assert!(other.allowed().is_some(), "a fork goes on by itself");
    }

    #[test]
    fn a_way_that_ends_nowhere_is_not_taken() {
        const GAP: Texts = Texts(&["x", ".", "ab", "abc", "a", "abcd"]);
        let mut prompt = vec![0, 1, 3];
        let healing = Healing::of_prompt(&Arc::new(Vocabulary::new(&GAP)), &mut prompt, "x.abc", 0).unwrap();
        let set = healing.begin().allowed().unwrap();
        // After `ab` and `a` no token begins the rest.
        assert_eq!((0..6).filter(|&token| set.contains(token)).collect::<Vec<_>>(), [3, 5]);
    }

    /// Allows some tokens, whatever was before.
    #[derive(Debug, Clone)]
    struct Only(Vec<TokenId>);

    impl Constraint for Only {
        fn begin(&self) -> Box<dyn Guard> {
            Box::new(self.clone())
        }
    }

    impl Guard for Only {
        fn allowed(&mut self) -> Option<Arc<TokenSet>> {
            Some(Arc::new(TokenSet::new(TEXTS.vocab_size(), |token| self.0.contains(&token))))
        }
        fn admits(&mut self, token: TokenId) -> bool {
            self.0.contains(&token)
        }
        fn exact(&mut self) -> Option<Arc<TokenSet>> {
            self.allowed()
        }
        fn accept(&mut self, _token: TokenId) {}
        fn gave_way(&mut self) {}
        fn fork(&self) -> Box<dyn Guard> {
            Box::new(self.clone())
        }
    }

    #[test]
    fn a_constraint_within_narrows_what_is_written_but_never_keeps_it_from_being_written() {
        // what the constraint allows; what may begin the text `sp`
        let cases: [(&[&str], &[&str]); 2] = [(&["spin", "x"], &["spin"]), (&["x"], &["sp", "spin", "s"])];
        for (only, expected) in cases {
            let healing = healed(&["x", ".", "sp"]).1.unwrap();
            let mut guard = healing.within(Some(Arc::new(Only(tokens(only))))).begin();
            let set = guard.allowed().unwrap();
            let may: Vec<&str> = TEXTS.0.iter().copied().filter(|text| set.contains(id(text))).collect();
            assert_eq!(may, expected);
            assert!(expected.iter().all(|text| guard.admits(id(text))), "{only:?}");
            guard.accept(id("spin"));
            assert!(!guard.admits(id("sp")), "the constraint is asked again");
        }
    }
}
