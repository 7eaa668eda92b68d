//! Wrong solutions made from right ones, the same for the same seed: what a model's samples look like to a sandbox.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Dice(pub u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        (self.roll() % count as u64) as usize
    }
}

/// A piece of Python: a name, a number, or whatever stands between.
fn pieces(code: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let kind = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        c if c.is_whitespace() => 1,
        '(' | ')' | '[' | ']' | '{' | '}' | ',' | '"' | '\'' => 2,
        _ => 3,
    };
    let mut last = None;
    for c in code.chars() {
        let this = kind(c);
        match pieces.last_mut() {
            // Brackets and quotes each stand alone.
            Some(piece) if last == Some(this) && this != 2 => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
        last = Some(this);
    }
    pieces
}

/// What may stand for something else of its kind, and mostly still compile.
const SWAPS: &[&[&str]] = &[
    &["+", "-", "*", "/", "//", "%"],
    &["<", "<=", ">", ">=", "==", "!="],
    &["and", "or"],
    &["True", "False", "None"],
    &["0", "1", "2", "-1", "10", "0.5", "1e9", "''"],
    &["min", "max", "sum", "len", "sorted", "list", "set"],
    &["return", "yield", "pass", "raise"],
];

/// What a program may come to do instead.
const DEEDS: &[&str] = &[
    "raise SystemExit",
    "while True: pass",
    "x = [0] * (1 << 29)",
    "import no_such_module",
    "print('x' * 4000000)",
    "def f(): return f()\nf()",
    "1 / 0",
    "assert False, 'mutant'",
    "import os; os._exit(3)",
    "global = 1",
];

/// One mutant of a solution, which may be as right as that.
pub fn mutant(solution: &str, dice: &mut Dice) -> String {
    let mut pieces = pieces(solution);
    match dice.below(20) {
        // Cut off, as a model's last token would be.
        0 => {
            let keep = dice.below(pieces.len()).max(1);
            pieces.truncate(keep);
        }
        1 => {
            let (a, b) = (dice.below(pieces.len()), dice.below(pieces.len()));
            pieces.swap(a, b);
        }
        2 => {
            pieces.remove(dice.below(pieces.len()));
        }
        // Before what the solution begins with, or behind it.
        3 => {
            let deed = DEEDS[dice.below(DEEDS.len())];
            return format!("{solution}\n{deed}\n");
        }
        _ => {
            let places: Vec<usize> = (0..pieces.len())
                .filter(|at| {
                    let number = pieces[*at].starts_with(|c: char| c.is_ascii_digit());
                    number || SWAPS.iter().any(|swap| swap.contains(&pieces[*at].as_str()))
                })
                .collect();
            let names: Vec<usize> = (0..pieces.len())
                .filter(|at| pieces[*at].starts_with(|c: char| c.is_alphabetic() || c == '_'))
                .collect();
            if places.is_empty() || dice.below(3) == 0 {
                if names.len() < 2 {
                    return format!("{solution} + 1");
                }
                let (from, to) = (names[dice.below(names.len())], names[dice.below(names.len())]);
                pieces[to] = pieces[from].clone();
            } else {
                let at = places[dice.below(places.len())];
                let swap = SWAPS.iter().find(|swap| swap.contains(&pieces[at].as_str())).unwrap_or(&SWAPS[4]);
                pieces[at] = swap[dice.below(swap.len())].to_owned();
            }
        }
    }
    pieces.concat()
}

#[test]
fn mutants_depend_on_the_seed_alone() {
    let solution = "    return [tick.amount + 1 for tick in strand.settle(10) if tick.amount >= 0]\n";
    let line = |seed| {
        let mut dice = Dice(seed);
        (0..50).map(|_| mutant(solution, &mut dice)).collect::<Vec<_>>()
    };
    assert_eq!(line(1), line(1));
    assert_ne!(line(1), line(2));
    let distinct: std::collections::HashSet<_> = line(1).into_iter().collect();
    assert!(distinct.len() > 30, "{}", distinct.len());
    assert_eq!(pieces(solution).concat(), solution);
}
