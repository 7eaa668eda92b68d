//! Stop rules: strings at which a completion ends, found in the text whatever the borders of its tokens.

use std::sync::Arc;

/// The strings at which the paper's code cuts a completion (microsoft/PyCodeGPT, apicoder).
pub const PAPER_STOPS: &[&str] = &["\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif"];

/// Strings at which a completion ends; the completion is the text before the earliest occurrence of any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRules {
    /// Shared by the scanners of all samples.
    stops: Arc<[String]>,
}

impl StopRules {
    /// Rules from strings; empty strings, which would end every completion at once, are left out.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut stops: Vec<String> =
            stops.into_iter().map(Into::into).filter(|stop| !stop.is_empty()).collect();
        stops.sort_unstable();
        stops.dedup();
        Self { stops: stops.into() }
    }

    /// The paper's: [`PAPER_STOPS`].
    pub fn paper() -> Self {
        Self::new(PAPER_STOPS.iter().copied())
    }

    /// No rule: only the end of text, the length and the context end a completion.
    pub fn none() -> Self {
        Self::default()
    }

    /// The strings, sorted.
    pub fn strings(&self) -> &[String] {
        &self.stops
    }

    /// The part of a finished `text` that the rules keep.
    pub fn cut<'t>(&self, text: &'t str) -> &'t str {
        &text[..self.earliest(text).unwrap_or(text.len())]
    }

    fn earliest(&self, text: &str) -> Option<usize> {
        self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }

    /// The first position from which `text` runs into its end while matching the beginning of a stop string.
    fn partial(&self, text: &str) -> Option<usize> {
        let longest = self.stops.iter().map(String::len).max()?;
        let from = text.ceil_char_boundary(text.len().saturating_sub(longest - 1));
        text[from..].char_indices().map(|(i, _)| from + i).find(|&start| {
            let tail = &text[start..];
            self.stops.iter().any(|stop| stop.len() > tail.len() && stop.starts_with(tail))
        })
    }
}

/// Applies [`StopRules`] to a text that comes in pieces, and lets through only what no stop can take back.
#[derive(Debug)]
pub(super) struct StopScanner {
    rules: StopRules,
    /// Text not let through yet: every occurrence of a stop that is still possible begins in it.
    held: String,
}

/// What became of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// No stop so far; this text is certain.
    Text(String),
    /// A stop was found; this is the last text before it.
    Stopped(String),
}

impl StopScanner {
    pub(super) fn new(rules: &StopRules) -> Self {
        Self { rules: rules.clone(), held: String::new() }
    }

    /// Takes the next piece.
    ///
    /// A stop that is complete waits as long as a longer stop that began before it may still be completed, so that the
    /// cut is where [`StopRules::cut`] makes it on the whole text.
    pub(super) fn push(&mut self, piece: &str) -> Scanned {
        if self.rules.stops.is_empty() {
            return Scanned::Text(piece.to_owned());
        }
        self.held.push_str(piece);
        let found = self.rules.earliest(&self.held);
        let partial = self.rules.partial(&self.held);
        match (found, partial) {
            (Some(found), partial) if partial.is_none_or(|partial| partial >= found) => {
                self.held.truncate(found);
                Scanned::Stopped(std::mem::take(&mut self.held))
            }
            (_, partial) => {
                let certain = partial.unwrap_or(self.held.len());
                let rest = self.held.split_off(certain);
                Scanned::Text(std::mem::replace(&mut self.held, rest))
            }
        }
    }

    /// Ends the text: lets the held tail through, up to a stop that is complete in it.
    pub(super) fn finish(&mut self) -> Scanned {
        let mut held = std::mem::take(&mut self.held);
        match self.rules.earliest(&held) {
            Some(found) => {
                held.truncate(found);
                Scanned::Stopped(held)
            }
            None => Scanned::Text(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text that comes out, whether a stop was found, and a check that nothing let through was taken back.
    fn scan(rules: &StopRules, pieces: &[&str]) -> (String, bool) {
        let mut scanner = StopScanner::new(rules);
        let mut out = String::new();
        for piece in pieces {
            match scanner.push(piece) {
                Scanned::Text(text) => out.push_str(&text),
                Scanned::Stopped(text) => return (out + &text, true),
            }
        }
        match scanner.finish() {
            Scanned::Text(text) => (out + &text, false),
            Scanned::Stopped(text) => (out + &text, true),
        }
    }

    #[test]
    fn finds_stops_over_token_borders() {
        let paper = StopRules::paper();
        let cases: &[(&[&str], &str, bool)] = &[
            (&[" a\n", "de", "f f():"], " a", true),
            (&[" a\n", "de", "l x"], " a\ndel x", false),
            (&[" a\n"], " a\n", false),
            (&["\n", "\n", "\n", "if"], "\n\n", true),
            (&["x\n#"], "x", true),
            (&["x\n#y\ndef"], "x", true),
            (&["    x\n    if y"], "    x\n    if y", false),
            (&[], "", false),
        ];
        for (pieces, text, stopped) in cases {
            assert_eq!(scan(&paper, pieces), ((*text).to_owned(), *stopped), "{pieces:?}");
        }
    }

    #[test]
    fn an_earlier_and_longer_stop_wins_over_one_inside_it() {
        let rules = StopRules::new(["abcd", "bc"]);
        assert_eq!(scan(&rules, &["xab", "c", "d"]), ("x".into(), true));
        assert_eq!(scan(&rules, &["xab", "c", "e"]), ("xa".into(), true));
        assert_eq!(scan(&rules, &["xab", "c"]), ("xa".into(), true));
    }

    #[test]
    fn text_is_held_back_only_while_it_may_become_a_stop() {
        let rules = StopRules::paper();
        let mut scanner = StopScanner::new(&rules);
        assert_eq!(scanner.push("x = 1\n"), Scanned::Text("x = 1".into()));
        assert_eq!(scanner.push("pri"), Scanned::Text(String::new()));
        assert_eq!(scanner.push("ze"), Scanned::Text("\nprize".into()));
        assert_eq!(scanner.finish(), Scanned::Text(String::new()));
    }

    #[test]
    fn empty_stops_are_left_out() {
        assert_eq!(StopRules::new([""]), StopRules::none());
        assert_eq!(StopRules::new(["", "b", "a", "b"]).strings(), ["a", "b"]);
        assert_eq!(StopRules::none().cut("a\ndef"), "a\ndef");
    }

    proptest! {
        #[test]
        fn the_cut_does_not_depend_on_the_pieces(
            text in "[ab\u{e9}\n]{0,30}",
            stops in proptest::collection::vec("[ab\u{e9}\n]{0,4}", 0..4),
            cuts in proptest::collection::vec(any::<usize>(), 0..12),
        ) {
            let rules = StopRules::new(stops);
            let mut cuts: Vec<usize> =
                cuts.iter().map(|cut| text.floor_char_boundary(cut % (text.len() + 1))).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut start = 0;
            let pieces: Vec<&str> = cuts.iter().map(|&cut| { let piece = &text[start..cut]; start = cut; piece }).collect();
            let (out, stopped) = scan(&rules, &pieces);
            prop_assert_eq!(&out, rules.cut(&text));
            prop_assert_eq!(stopped, rules.earliest(&text).is_some());
        }
    }
}
