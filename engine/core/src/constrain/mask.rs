//! Names against tokens: which tokens can follow where one of a set of names must stand.

use std::ops::Range;

use crate::decode::TokenSet;

use super::vocabulary::Vocabulary;

/// Whether a byte can be part of a name; every byte of a character beyond ASCII counts as one.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Names, sorted and distinct: a trie in which every prefix is a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NameSet {
    names: Vec<Box<str>>,
}

impl FromIterator<Box<str>> for NameSet {
    fn from_iter<I: IntoIterator<Item = Box<str>>>(names: I) -> Self {
        let mut names: Vec<Box<str>> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        Self { names }
    }
}

impl NameSet {
    pub fn contains(&self, name: &[u8]) -> bool {
        self.names.binary_search_by(|other| other.as_bytes().cmp(name)).is_ok()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    pub fn insert(&mut self, name: &str) {
        if let Err(at) = self.names.binary_search_by(|other| (**other).cmp(name)) {
            self.names.insert(at, name.into());
        }
    }

    /// Whether a name begins with `prefix`.
    pub fn has_prefix(&self, prefix: &[u8]) -> bool {
        !self.range(prefix).is_empty()
    }

    fn range(&self, prefix: &[u8]) -> Range<usize> {
        let from = self.names.partition_point(|name| name.as_bytes() < prefix);
        let len = self.names[from..].partition_point(|name| name.as_bytes().starts_with(prefix));
        from..from + len
    }

    fn child(&self, range: &Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let names = &self.names[range.clone()];
        let next = |name: &str| name.as_bytes().get(depth).copied();
        let from = names.partition_point(|name| next(name) < Some(byte));
        let to = from + names[from..].partition_point(|name| next(name) <= Some(byte));
        range.start + from..range.start + to
    }
}

/// What may stand before the name, where none of it is there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lead {
    /// White space may run over lines: inside brackets.
    pub lines: bool,
    /// Bytes that may stand in the name's place: `*`, `(` and `)` in imports.
    pub instead: &'static [u8],
}

impl Lead {
    /// Bytes that may stand before a name.
    pub fn blanks(self) -> &'static [u8] {
        if self.lines { b" \t\x0c\\\n\r#" } else { b" \t\x0c\\" }
    }
}

/// Puts the tokens into `set` that can follow where a name of `names` must stand and `prefix` of it is there already.
///
/// Both tries are walked together. A token that finishes a name is put in whatever comes after it, and so is one that
/// begins with a comment or a line continuation; what they hold must still be looked at.
pub(super) fn admit(vocabulary: &Vocabulary, names: &NameSet, prefix: &[u8], lead: Lead, set: &mut TokenSet) {
    let range = names.range(prefix);
    let all = vocabulary.all();
    if !range.is_empty() {
        walk(vocabulary, names, &all, 0, &range, prefix.len(), set);
    }
    if prefix.is_empty() {
        blanks(vocabulary, names, &all, 0, lead, set);
    }
}

fn walk(
    vocabulary: &Vocabulary,
    names: &NameSet,
    tokens: &Range<usize>,
    depth: usize,
    range: &Range<usize>,
    length: usize,
    set: &mut TokenSet,
) {
    let ending = vocabulary.ending(tokens, depth);
    if depth > 0 {
        put(vocabulary, tokens.start..tokens.start + ending, set);
    }
    let tokens = tokens.start + ending..tokens.end;
    if tokens.is_empty() {
        return;
    }
    let mut at = range.start;
    if names.names[at].len() == length {
        at += 1;
        for byte in (0..0x80).filter(|&byte| !is_name_byte(byte)) {
            put(vocabulary, vocabulary.child(&tokens, depth, byte), set);
        }
    }
    while at < range.end {
        let byte = names.names[at].as_bytes()[length];
        let child = names.child(&(at..range.end), length, byte);
        let below = vocabulary.child(&tokens, depth, byte);
        if !below.is_empty() {
            walk(vocabulary, names, &below, depth + 1, &child, length + 1, set);
        }
        at = child.end;
    }
}

/// Tokens that begin with what may stand before the name.
fn blanks(
    vocabulary: &Vocabulary,
    names: &NameSet,
    tokens: &Range<usize>,
    depth: usize,
    lead: Lead,
    set: &mut TokenSet,
) {
    for &byte in lead.instead {
        put(vocabulary, vocabulary.child(tokens, depth, byte), set);
    }
    for &byte in lead.blanks() {
        let below = vocabulary.child(tokens, depth, byte);
        if below.is_empty() {
            continue;
        }
        if matches!(byte, b'\\' | b'#') {
            put(vocabulary, below, set);
            continue;
        }
        if names.is_empty() {
            let ending = vocabulary.ending(&below, depth + 1);
            put(vocabulary, below.start..below.start + ending, set);
        } else {
            walk(vocabulary, names, &below, depth + 1, &(0..names.names.len()), 0, set);
        }
        if depth < 256 {
            blanks(vocabulary, names, &below, depth + 1, lead, set);
        }
    }
}

fn put(vocabulary: &Vocabulary, tokens: Range<usize>, set: &mut TokenSet) {
    for at in tokens {
        set.insert(vocabulary.token(at));
    }
}
