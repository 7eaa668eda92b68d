//! A bound on how deeply Python source nests, taken before it is parsed.
//!
//! A syntax tree is dropped and walked recursively, so its depth must fit the stack whatever the input. The bound is
//! lexical and errs on the high side: inside one bracket every token since the last comma may add a level
//! (`a.b.c.d`, `not not x`, `a + b + c`), a `lambda` adds one that no comma ends, an open bracket or replacement field
//! of an f-string adds its own.

use super::Refusal;

/// Levels of one expression, by the bound above. Written code stays below a few hundred; a generated sum of several thousand
/// terms still passes.
const MAX_EXPRESSION_DEPTH: u32 = 16_000;
/// Brackets and replacement fields open at once.
const MAX_OPEN: usize = 400;
/// Levels of indentation (CPython stops at 100).
const MAX_INDENTATION: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The statement itself, or a bracket closed by this byte.
    Bracket(u8),
    /// Between the quotes of an f-string.
    Text { quote: u8, triple: bool },
    /// The expression of a replacement field.
    Field,
    /// The format after the `:` of a replacement field.
    Format,
}

struct Level {
    kind: Kind,
    /// Tokens since the last comma, plus the lambdas since the level began.
    tokens: u32,
    lambdas: u32,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    levels: Vec<Level>,
    /// Sum of `tokens + lambdas` over all levels.
    depth: u32,
    /// Whether the last token was a string: strings in a row are one.
    after_string: bool,
}

/// Checks that `source` nests within the limits.
///
/// # Errors
/// The line and the limit that is exceeded.
pub(super) fn check(source: &str) -> Result<(), Refusal> {
    let mut scanner = Scanner {
        bytes: source.as_bytes(),
        at: 0,
        line: 1,
        levels: Vec::new(),
        depth: 0,
        after_string: false,
    };
    scanner.push(Kind::Bracket(0));
    scanner.run()
}

impl Scanner<'_> {
    fn push(&mut self, kind: Kind) {
        self.levels.push(Level { kind, tokens: 0, lambdas: 0 });
    }

    fn pop(&mut self) {
        // The outermost level stays: a stray closing bracket is the parser's to report.
        if self.levels.len() > 1
            && let Some(level) = self.levels.pop()
        {
            self.depth -= level.tokens + level.lambdas;
        }
    }

    fn token(&mut self) -> Result<(), Refusal> {
        self.after_string = false;
        if let Some(level) = self.levels.last_mut() {
            level.tokens += 1;
            self.depth += 1;
        }
        if self.depth > MAX_EXPRESSION_DEPTH {
            return Err(
                self.refusal(format!("an expression nests deeper than {MAX_EXPRESSION_DEPTH} levels"))
            );
        }
        Ok(())
    }

    fn refusal(&self, reason: String) -> Refusal {
        Refusal { line: Some(self.line), reason }
    }

    fn reset(&mut self, lambdas: bool) {
        if let Some(level) = self.levels.last_mut() {
            self.depth -= level.tokens;
            level.tokens = 0;
            if lambdas {
                self.depth -= level.lambdas;
                level.lambdas = 0;
            }
        }
    }

    fn peek(&self, offset: usize) -> u8 {
        self.bytes.get(self.at + offset).copied().unwrap_or(0)
    }

    /// The end of a line: `\n`, `\r` or both.
    fn newline(&mut self) {
        self.line += 1;
        self.at += if self.peek(0) == b'\r' && self.peek(1) == b'\n' { 2 } else { 1 };
    }

    /// A backslash and what it escapes.
    fn escape(&mut self) {
        self.at += 1;
        if matches!(self.peek(0), b'\n' | b'\r') {
            self.newline();
        } else {
            self.at += 1;
        }
    }

    fn run(&mut self) -> Result<(), Refusal> {
        let mut indentation: Vec<usize> = Vec::new();
        let mut line_start = true;
        while self.at < self.bytes.len() {
            if line_start && self.levels.len() == 1 {
                line_start = false;
                self.indent(&mut indentation)?;
                continue;
            }
            if self.levels.len() > MAX_OPEN {
                return Err(self.refusal(format!("more than {MAX_OPEN} brackets are open at once")));
            }
            let kind = self.levels.last().map_or(Kind::Bracket(0), |level| level.kind);
            if let Kind::Text { quote, triple } = kind {
                self.f_string_text(quote, triple);
                continue;
            }
            let byte = self.bytes[self.at];
            if kind == Kind::Format {
                self.format(byte);
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.newline();
                    if self.levels.len() == 1 {
                        self.reset(true);
                        line_start = true;
                    }
                }
                b' ' | b'\t' | 0x0c => self.at += 1,
                b'\\' => self.escape(),
                b'#' => {
                    while !matches!(self.peek(0), b'\n' | b'\r') && self.at < self.bytes.len() {
                        self.at += 1;
                    }
                }
                b',' => {
                    self.reset(false);
                    self.at += 1;
                }
                b';' if self.levels.len() == 1 => {
                    self.reset(true);
                    self.at += 1;
                }
                b'(' | b'[' | b'{' => {
                    self.token()?;
                    let close = match byte {
                        b'(' => b')',
                        b'[' => b']',
                        _ => b'}',
                    };
                    self.push(Kind::Bracket(close));
                    self.at += 1;
                }
                b')' | b']' | b'}' => {
                    // One that closes nothing may be passed over by the parser, which stays in the bracket.
                    if kind == Kind::Bracket(byte) || kind == Kind::Field && byte == b'}' {
                        self.pop();
                    }
                    self.at += 1;
                }
                b':' if kind == Kind::Field => {
                    if let Some(level) = self.levels.last_mut() {
                        level.kind = Kind::Format;
                    }
                    self.at += 1;
                }
                b'"' | b'\'' => {
                    if !self.after_string {
                        self.token()?;
                    }
                    self.string(false);
                    self.after_string = true;
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80..=0xff => {
                    self.token()?;
                    self.word();
                }
                _ => {
                    self.token()?;
                    self.at += 1;
                }
            }
        }
        Ok(())
    }

    /// The white space a logical line begins with: counts indentation, unless the line is blank.
    fn indent(&mut self, indentation: &mut Vec<usize>) -> Result<(), Refusal> {
        let start = self.at;
        while matches!(self.peek(0), b' ' | b'\t' | 0x0c) && self.at < self.bytes.len() {
            self.at += 1;
        }
        if matches!(self.peek(0), b'\n' | b'\r' | b'#') {
            return Ok(());
        }
        let width = self.at - start;
        while indentation.last().is_some_and(|&outer| outer >= width) {
            indentation.pop();
        }
        indentation.push(width);
        if indentation.len() > MAX_INDENTATION {
            return Err(self.refusal(format!("blocks nest deeper than {MAX_INDENTATION} levels")));
        }
        Ok(())
    }

    /// A name, keyword or number, or the prefix of a string.
    fn word(&mut self) {
        let start = self.at;
        while matches!(self.peek(0), b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80..=0xff) {
            self.at += 1;
        }
        let word = &self.bytes[start..self.at];
        if matches!(self.peek(0), b'"' | b'\'') && word.len() <= 2 {
            let formatted = word.iter().any(|byte| matches!(byte, b'f' | b'F' | b't' | b'T'));
            self.string(formatted);
        } else if word == b"lambda"
            && let Some(level) = self.levels.last_mut()
        {
            level.lambdas += 1;
            self.depth += 1;
        }
    }

    /// A string from its opening quote; of an f-string only the quote is taken and a level opened.
    fn string(&mut self, formatted: bool) {
        let quote = self.bytes[self.at];
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if triple { 3 } else { 1 };
        if formatted {
            self.push(Kind::Text { quote, triple });
            return;
        }
        while self.at < self.bytes.len() {
            let byte = self.bytes[self.at];
            if byte == b'\\' {
                self.escape();
            } else if byte == quote && !triple {
                self.at += 1;
                return;
            } else if byte == quote && self.peek(1) == quote && self.peek(2) == quote {
                self.at += 3;
                return;
            } else if matches!(byte, b'\n' | b'\r') {
                if !triple {
                    return; // unterminated: the parser says so
                }
                self.newline();
            } else {
                self.at += 1;
            }
        }
    }

    fn f_string_text(&mut self, quote: u8, triple: bool) {
        let byte = self.bytes[self.at];
        match byte {
            b'{' if self.peek(1) == b'{' => self.at += 2,
            b'{' => {
                self.push(Kind::Field);
                self.at += 1;
            }
            b'\\' if self.peek(1) != b'{' => self.escape(),
            b'\n' | b'\r' => {
                if triple {
                    self.newline();
                } else {
                    self.pop();
                }
            }
            _ if byte == quote && !triple => {
                self.at += 1;
                self.pop();
            }
            _ if byte == quote && self.peek(1) == quote && self.peek(2) == quote => {
                self.at += 3;
                self.pop();
            }
            _ => self.at += 1,
        }
    }

    fn format(&mut self, byte: u8) {
        match byte {
            b'{' => self.push(Kind::Field),
            b'}' => self.pop(),
            b'\n' | b'\r' => {
                self.newline();
                return;
            }
            b'"' | b'\'' => {
                // A quote of the enclosing string ends both; any other is part of the format.
                let enclosing = self.levels.iter().rev().find_map(|level| match level.kind {
                    Kind::Text { quote, triple } => Some((quote, triple)),
                    _ => None,
                });
                if enclosing == Some((byte, false)) {
                    self.pop();
                    return;
                }
            }
            _ => {}
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_code_passes() {
        let table: String = (0..50_000).map(|i| format!("    ({i}, 'x', f\"{{{i}:>10}}\"),\n")).collect();
        let sum = vec!["'x'"; 7000].join(" + ");
        let strings = "'x' ".repeat(50_000);
        let cases = [
            "def f(a, b=lambda x, y: x):\n    return f'{a!r:>{b}} {{}}' + \"it's\"\n".to_owned(),
            format!("table = [\n{table}]\n"),
            format!("text = {sum}\n"),
            format!("text = ({strings})\n"),
            "x = f\"{f'{1:%H:%M}'}\"\ny = rb'\\''\nz = '''a\n'b'''\n".to_owned(),
            "if a:\n  if b:\n    pass\n# comment\n\n  pass\n".to_owned(),
        ];
        for case in cases {
            assert_eq!(check(&case), Ok(()), "{}", &case[..case.len().min(80)]);
        }
    }

    #[test]
    fn deep_code_is_refused() {
        let n = 100_000;
        let cases = [
            "(".repeat(n),
            "[".repeat(n),
            "{".repeat(n),
            format!("x = {}x", "not ".repeat(n)),
            format!("x = {}x", "-".repeat(n)),
            format!("x = a{}", ".b".repeat(n)),
            format!("x = a{}", "[0]".repeat(n)),
            format!("x = a{}", "()".repeat(n)),
            format!("x = {}1", "lambda: ".repeat(n)),
            format!("x = {}1", "lambda a, b,: ".repeat(n)),
            format!("x = {}a", "a if b else ".repeat(n)),
            format!("x = a{}", " + a".repeat(n)),
            format!("x = {}", "f\"{".repeat(n)),
            format!("x = {}", "f'{f\"{".repeat(n)),
            (0..500).map(|i| format!("{}if x:\n", " ".repeat(i))).collect(),
        ];
        for case in cases {
            assert!(check(&case).is_err(), "{}", &case[..40]);
        }
    }
}
