//! Numbers on the command line, refused as wrong usage when out of range.

fn parse(text: &str, expected: &str, fits: impl Fn(f64) -> bool) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| fits(*number)).ok_or_else(|| format!("expected {expected}"))
}

/// A temperature.
pub fn temperature(text: &str) -> Result<f32, String> {
    parse(text, "a number from 0 to 100", |number| (0.0..=100.0).contains(&number))
        .map(|number| number as f32)
}

/// A probability above 0.
pub fn top_p(text: &str) -> Result<f32, String> {
    parse(text, "a number above 0 and up to 1", |number| number > 0.0 && number <= 1.0)
        .map(|number| number as f32)
}

/// A share of the largest probability.
pub fn min_p(text: &str) -> Result<f32, String> {
    parse(text, "a number from 0 to 1", |number| (0.0..=1.0).contains(&number)).map(|number| number as f32)
}

/// A factor.
pub fn positive(text: &str) -> Result<f32, String> {
    parse(text, "a number from 0.001 to 1000", |number| (1e-3..=1000.0).contains(&number))
        .map(|number| number as f32)
}

/// A stop string; `\n`, `\t` and `\\` stand for a line break, a tab and a backslash.
pub fn stop(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        out.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                _ => return Err("expected \\n, \\t or \\\\ after a backslash".into()),
            },
            letter => letter,
        });
    }
    if out.is_empty() { Err("an empty stop would end every completion at once".into()) } else { Ok(out) }
}

/// Example calls of an API.
pub fn examples(text: &str) -> Result<usize, String> {
    let most = inhouse_study::generate::MAX_EXAMPLES;
    text.parse().ok().filter(|n| *n <= most).ok_or_else(|| format!("expected a number from 0 to {most}"))
}

/// Seconds that a sample may use.
pub fn timeout(text: &str) -> Result<f64, String> {
    parse(text, "seconds, above 0 and up to 86400", |number| number > 0.0 && number <= 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert_eq!(temperature("0"), Ok(0.0));
        assert_eq!(top_p("1"), Ok(1.0));
        assert_eq!(timeout("0.5"), Ok(0.5));
        for text in ["NaN", "inf", "-1", "", "1e999", "x"] {
            assert!(temperature(text).is_err() && top_p(text).is_err() && timeout(text).is_err(), "{text}");
        }
        assert_eq!((min_p("0.1"), positive("1.3")), (Ok(0.1), Ok(1.3)));
        assert!(min_p("1.1").is_err() && positive("0").is_err() && positive("NaN").is_err());
        assert_eq!(stop(r"\ndef\t\\n"), Ok("\ndef\t\\n".into()));
        assert!(stop("").is_err() && stop(r"a\x").is_err() && stop("a\\").is_err());
        assert_eq!((examples("0"), examples("100")), (Ok(0), Ok(100)));
        assert!(examples("101").is_err() && examples("-1").is_err() && examples("x").is_err());
        assert!(top_p("0").is_err() && top_p("1.5").is_err() && timeout("0").is_err());
    }
}
