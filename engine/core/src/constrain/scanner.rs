//! Python text byte by byte, wherever it is cut and however broken it is: strings, comments, names, lines; and at each
//! byte, which names may stand there.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::library::{Library, SetKey};
use super::mask::{Lead, NameSet, is_name_byte};
use super::tracker::{Place, Tracker};

/// What the prompt itself uses without the documentation naming it: the user's own code is taken at its word.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned {
    sets: FxHashMap<SetKey, NameSet>,
    /// All names of the prompt.
    words: NameSet,
    /// Names of the APIs that the prompt offers: they may stand after any dot, since what an object is may be guessed wrong, and
    /// documentation may have a member under another class.
    offered: NameSet,
}

impl Learned {
    pub fn of(&self, key: SetKey) -> Option<&NameSet> {
        if key == SetKey::Any { Some(&self.words) } else { self.sets.get(&key) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quotes {
    byte: u8,
    triple: bool,
    formatted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Code,
    Word,
    Number,
    Comment,
    /// One or two quotes that may become three.
    Opening(Quotes, u8),
    /// In a string: after a backslash, quotes seen in a row, after a single `{`.
    Text {
        quotes: Quotes,
        escaped: bool,
        run: u8,
        brace: bool,
    },
    /// In the format of a replacement field, after `:`.
    Format,
}

/// Where a name is constrained: its set, and what may stand before it.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub key: SetKey,
    pub names: Arc<NameSet>,
    pub lead: Lead,
}

/// The state after some text. The same text in other pieces gives the same state.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    mode: Mode,
    /// The name in progress.
    word: Vec<u8>,
    /// The byte before, where it is part of an operator.
    operator: u8,
    /// A `=` that may become `==`; `true`: it must, since it does not end a keyword that the callable takes.
    equals: Option<bool>,
    /// A backslash at the end of a line.
    continued: bool,
    at_line_start: bool,
    indent: usize,
    spot: Option<Spot>,
    tracker: Tracker,
    /// Replacement fields that are open: their string, and the depth of brackets they began at.
    fields: Vec<(Quotes, usize)>,
    learned: Arc<Learned>,
    /// Names used since the prompt.
    fresh: Arc<Vec<Box<str>>>,
    learning: bool,
}

impl Scanner {
    /// The state before any text. Until [`Self::seal`] it learns from the text instead of judging it.
    pub fn new(library: Arc<Library>) -> Self {
        Self {
            mode: Mode::Code,
            word: Vec::new(),
            operator: 0,
            equals: None,
            continued: false,
            at_line_start: true,
            indent: 0,
            spot: None,
            tracker: Tracker::new(library),
            fields: Vec::new(),
            learned: Arc::default(),
            fresh: Arc::default(),
            learning: true,
        }
    }

    /// Takes in the name of an API that the prompt offers.
    pub fn offer(&mut self, name: &str) {
        Arc::make_mut(&mut self.learned).offered.insert(name);
    }

    /// Ends the prompt.
    pub fn seal(&mut self) {
        self.learning = false;
        if let Some(spot) = &self.spot
            && !self.known(spot, &self.word, false)
        {
            self.spot = None;
        }
    }

    /// Goes over one byte; `false` where it refers to a name that cannot stand here. The state goes on in either case.
    pub fn step(&mut self, byte: u8) -> bool {
        match self.mode {
            Mode::Code => self.code(byte),
            Mode::Word => {
                if is_name_byte(byte) {
                    return self.grow(byte);
                }
                let quote = matches!(byte, b'"' | b'\'');
                if quote && self.spot.is_none() && is_string_prefix(&self.word) && !self.tracker.after_dot() {
                    let formatted = self.word.iter().any(|byte| matches!(byte, b'f' | b'F' | b't' | b'T'));
                    self.word.clear();
                    self.mode = Mode::Opening(Quotes { byte, triple: false, formatted }, 1);
                    return true;
                }
                let known = self.end_word();
                self.mode = Mode::Code;
                self.code(byte) && known
            }
            Mode::Number => {
                if is_name_byte(byte) || byte == b'.' {
                    return true;
                }
                self.mode = Mode::Code;
                self.tracker.literal(false);
                self.code(byte)
            }
            Mode::Comment => {
                // A lone carriage return ends a line, too.
                if matches!(byte, b'\n' | b'\r') {
                    self.mode = Mode::Code;
                    self.newline();
                }
                true
            }
            Mode::Opening(quotes, 1) if byte == quotes.byte => {
                self.mode = Mode::Opening(quotes, 2);
                true
            }
            Mode::Opening(quotes, 1) => {
                self.mode = Mode::Text { quotes, escaped: false, run: 0, brace: false };
                self.text(byte)
            }
            Mode::Opening(quotes, _) if byte == quotes.byte => {
                let quotes = Quotes { triple: true, ..quotes };
                self.mode = Mode::Text { quotes, escaped: false, run: 0, brace: false };
                true
            }
            Mode::Opening(..) => {
                self.mode = Mode::Code;
                self.tracker.literal(true);
                self.code(byte)
            }
            Mode::Text { .. } => self.text(byte),
            Mode::Format => {
                match byte {
                    b'{' => self.mode = Mode::Code,
                    b'}' => self.end_field(),
                    b'\n' if self.fields.last().is_some_and(|(quotes, _)| !quotes.triple) => {
                        self.end_field();
                        self.text(byte);
                    }
                    _ => {}
                }
                if byte == b'{' {
                    self.begin_field();
                }
                true
            }
        }
    }

    fn text(&mut self, byte: u8) -> bool {
        let Mode::Text { quotes, escaped, run, brace } = self.mode else { return true };
        let state = |escaped, run, brace| Mode::Text { quotes, escaped, run, brace };
        self.mode = match byte {
            _ if escaped => state(false, 0, false),
            b'\\' => state(true, 0, false),
            b'{' if quotes.formatted => state(false, 0, !brace),
            _ if brace => {
                self.fields.push((quotes, 0));
                self.begin_field();
                self.mode = Mode::Code;
                return self.code(byte);
            }
            _ if byte == quotes.byte && (!quotes.triple || run == 2) => {
                self.tracker.literal(true);
                Mode::Code
            }
            _ if byte == quotes.byte => state(false, run + 1, false),
            b'\n' if !quotes.triple => {
                // Broken text: the string ends with its line.
                self.tracker.literal(true);
                self.mode = Mode::Code;
                self.newline();
                Mode::Code
            }
            _ => state(false, 0, false),
        };
        true
    }

    /// Within a field, or within the format of one, where its string is the last of `fields` already.
    fn begin_field(&mut self) {
        let depth = self.tracker.open(b'f');
        match self.fields.last_mut() {
            Some(field) if field.1 == 0 => field.1 = depth,
            Some(&mut (quotes, _)) => self.fields.push((quotes, depth)),
            None => {}
        }
    }

    /// The `}` of a field: back to the string, or to the format around it.
    fn end_field(&mut self) {
        let Some((quotes, depth)) = self.fields.pop() else {
            self.mode = Mode::Code;
            return;
        };
        self.tracker.close_to(depth);
        let inner =
            self.fields.last().is_some_and(|(_, outer)| *outer + 1 == depth && self.tracker.in_format());
        self.mode =
            if inner { Mode::Format } else { Mode::Text { quotes, escaped: false, run: 0, brace: false } };
    }

    fn code(&mut self, byte: u8) -> bool {
        if let Some(must) = self.equals.take() {
            if byte == b'=' {
                self.tracker.operator(b'=');
                self.operator = 0;
                return true;
            }
            self.tracker.assign();
            if must {
                self.tracker_step(byte);
                return self.learning;
            }
        }
        self.tracker_step(byte)
    }

    fn tracker_step(&mut self, byte: u8) -> bool {
        let operator = std::mem::take(&mut self.operator);
        if self.continued {
            self.continued = false;
            if matches!(byte, b'\n' | b'\r') {
                self.continued = byte == b'\r';
                return true;
            }
        }
        if self.at_line_start {
            match byte {
                b' ' | b'\x0c' => {
                    self.indent += usize::from(byte == b' ');
                    return true;
                }
                b'\t' => {
                    self.indent = (self.indent / 8 + 1) * 8;
                    return true;
                }
                b'\n' | b'\r' => {
                    self.indent = 0;
                    return true;
                }
                b'#' => {
                    self.mode = Mode::Comment;
                    return true;
                }
                _ => {
                    self.at_line_start = false;
                    self.tracker.begin_line(self.indent);
                }
            }
        }
        if self.spot.is_some() && !self.lead_holds(byte) {
            self.spot = None;
            self.tracker.drop_place();
            self.operate(byte, operator);
            return self.learning;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\x0c' => {}
            b'\n' => self.newline(),
            b'\\' => self.continued = true,
            b'#' => self.mode = Mode::Comment,
            b'"' | b'\'' => {
                self.mode = Mode::Opening(Quotes { byte, triple: false, formatted: false }, 1);
            }
            _ if byte.is_ascii_digit() => self.mode = Mode::Number,
            _ if is_name_byte(byte) => {
                self.mode = Mode::Word;
                return self.grow(byte);
            }
            _ => self.operate(byte, operator),
        }
        true
    }

    /// Whether `byte` may stand where a name of the spot is due.
    fn lead_holds(&self, byte: u8) -> bool {
        let Some(spot) = &self.spot else { return true };
        let starts = is_name_byte(byte) && !byte.is_ascii_digit();
        starts || spot.lead.blanks().contains(&byte) || spot.lead.instead.contains(&byte)
    }

    fn operate(&mut self, byte: u8, before: u8) {
        if !byte.is_ascii_punctuation() {
            return;
        }
        if self.fields.last().is_some_and(|(_, depth)| self.tracker.depth() == *depth) {
            match byte {
                b'}' => return self.end_field(),
                b':' => {
                    self.tracker.enter_format();
                    self.mode = Mode::Format;
                    return;
                }
                _ => {}
            }
        }
        if byte == b'=' {
            match before {
                b'=' | b'!' | b'<' | b'>' => self.tracker.operator(byte),
                b':' => self.tracker.walrus(),
                b'+' | b'-' | b'*' | b'/' | b'%' | b'@' | b'&' | b'|' | b'^' => self.tracker.augmented(),
                _ => self.equals = Some(!self.tracker.may_assign()),
            }
        } else {
            self.tracker.operator(byte);
        }
        self.operator = byte;
        self.place();
    }

    /// Looks up which names the tracker says may follow.
    fn place(&mut self) {
        self.spot = self.tracker.place().map(|Place { key, lead }| Spot {
            key,
            names: self.tracker.library().names(key),
            lead,
        });
    }

    fn grow(&mut self, byte: u8) -> bool {
        // What is no name, however long, needs not be kept.
        if self.word.len() < 256 {
            self.word.push(byte);
        }
        let Some(spot) = &self.spot else { return true };
        if self.learning || self.known(spot, &self.word, false) {
            return true;
        }
        self.spot = None;
        false
    }

    /// Whether a name that may stand in the spot begins with `word`, or is it where that must be the `whole`.
    fn known(&self, spot: &Spot, word: &[u8], whole: bool) -> bool {
        let holds = |names: &NameSet| if whole { names.contains(word) } else { names.has_prefix(word) };
        let fresh =
            |name: &str| if whole { name.as_bytes() == word } else { name.as_bytes().starts_with(word) };
        holds(&spot.names)
            || self.learned.of(spot.key).is_some_and(holds)
            || self.offered(spot.key).is_some_and(holds)
            || (spot.key == SetKey::Any && self.fresh.iter().any(|name| fresh(name)))
    }

    fn end_word(&mut self) -> bool {
        let word = std::mem::take(&mut self.word);
        let spot = self.spot.take();
        let mut known = true;
        if let Some(spot) = &spot {
            known = self.known(spot, &word, true);
        }
        let text = String::from_utf8_lossy(&word);
        if self.learning {
            let learned = Arc::make_mut(&mut self.learned);
            learned.words.insert(&text);
            if let Some(spot) = &spot
                && !known
            {
                learned.sets.entry(spot.key).or_default().insert(&text);
            }
        } else if !crate::python::is_keyword(&text)
            && self.fresh.len() < 4096
            && !self.learned.words.contains(&word)
            && !self.fresh.iter().any(|other| **other == *text)
        {
            Arc::make_mut(&mut self.fresh).push(text.as_ref().into());
        }
        self.tracker.word(&text);
        self.place();
        known || self.learning
    }

    fn newline(&mut self) {
        self.operator = 0;
        if self.tracker.newline() {
            self.at_line_start = true;
            self.indent = 0;
            self.spot = None;
        }
    }

    /// The constrained name that is due or in progress, with what is there of it.
    pub fn spot(&self) -> Option<(&Spot, &[u8])> {
        match self.mode {
            Mode::Code if self.equals.is_none() && !self.continued => {
                self.spot.as_ref().map(|spot| (spot, &[][..]))
            }
            Mode::Word => self.spot.as_ref().map(|spot| (spot, &self.word[..])),
            _ => None,
        }
    }

    /// Whether a constrained name is due, be it behind a comment or a continuation of the line, or can
    /// be within a token: in imports.
    pub fn has_spot(&self) -> bool {
        self.spot.is_some() || self.tracker.in_import()
    }

    /// Whether the next byte must be a second `=`.
    pub fn must_compare(&self) -> bool {
        self.equals == Some(true) && !self.learning
    }

    /// The names that the prompt offers, where members are due.
    fn offered(&self, key: SetKey) -> Option<&NameSet> {
        let members = !matches!(key, SetKey::Submodules(_)) && !self.learned.offered.is_empty();
        members.then_some(&self.learned.offered)
    }

    /// What the prompt and the text since add to the names of a set.
    pub fn additions(&self, key: SetKey) -> Option<NameSet> {
        let (learned, offered) = (self.learned.of(key), self.offered(key));
        if key != SetKey::Any && offered.is_none() {
            return learned.cloned();
        }
        let mut names = learned.cloned().unwrap_or_default();
        offered.into_iter().flat_map(NameSet::iter).for_each(|name| names.insert(name));
        if key == SetKey::Any {
            self.fresh.iter().for_each(|name| names.insert(name));
        }
        Some(names)
    }

    /// Whether the text may end here: not before a name that is due, not within one.
    pub fn may_end(&self) -> bool {
        if self.must_compare() {
            return false;
        }
        match self.spot() {
            Some((_, [])) => false,
            Some((spot, word)) => self.known(spot, word, true),
            None => true,
        }
    }
}

fn is_string_prefix(word: &[u8]) -> bool {
    word.len() <= 2
        && matches!(
            word.to_ascii_lowercase().as_slice(),
            b"r" | b"b" | b"u" | b"f" | b"t" | b"br" | b"rb" | b"fr" | b"rf" | b"tr" | b"rt"
        )
}
