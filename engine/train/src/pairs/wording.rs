//! The same wish in other words, by rule: forms of asking, synonyms, words left out.

use rand::Rng;
use rand::seq::IndexedRandom;

/// Words of programming that people use for one another. The first form of each is as good as any.
const SYNONYMS: &[&[&str]] = &[
    &["get", "retrieve", "fetch", "obtain"],
    &["return", "give", "get", "produce"],
    &["remove", "delete", "discard", "eliminate"],
    &["drop", "remove", "throw away"],
    &["create", "make", "build", "construct"],
    &["compute", "calculate", "determine", "work out"],
    &["convert", "transform", "turn", "change"],
    &["combine", "merge", "join", "put together"],
    &["concatenate", "append", "put together", "chain"],
    &["select", "choose", "pick", "take"],
    &["find", "search for", "look up", "locate"],
    &["check", "test", "determine", "verify"],
    &["count", "number"],
    &["sort", "order", "arrange"],
    &["replace", "substitute", "exchange", "swap"],
    &["split", "divide", "separate", "partition"],
    &["apply", "use", "run"],
    &["call", "invoke", "run"],
    &["add", "append", "attach", "insert"],
    &["set", "assign", "define"],
    &["read", "load", "parse"],
    &["write", "save", "store", "dump"],
    &["show", "display", "present"],
    &["draw", "plot", "render"],
    &["copy", "duplicate", "clone"],
    &["start", "begin", "launch"],
    &["stop", "end", "halt"],
    &["update", "modify", "change", "refresh"],
    &["fill", "populate", "pad"],
    &["filter", "keep only", "select"],
    &["group", "cluster", "collect"],
    &["iterate", "loop", "go"],
    &["generate", "produce", "create"],
    &["estimate", "approximate", "predict"],
    &["evaluate", "assess", "measure"],
    &["fit", "train", "learn"],
    &["scale", "normalize", "rescale"],
    &["shift", "move", "displace"],
    &["reverse", "flip", "invert"],
    &["shuffle", "randomize", "mix"],
    &["extract", "pull out", "get"],
    &["rename", "relabel", "change the name of"],
    &["reshape", "rearrange", "restructure"],
    &["specified", "given", "passed"],
    &["given", "provided", "passed"],
    &["elements", "items", "entries"],
    &["element", "item", "entry"],
    &["values", "entries", "numbers"],
    &["array", "list", "sequence"],
    &["function", "callable", "operation"],
    &["string", "text"],
    &["number", "amount", "count"],
    &["dictionary", "mapping", "dict"],
    &["row", "line", "record"],
    &["rows", "lines", "records"],
    &["column", "field"],
    &["columns", "fields"],
    &["missing", "absent", "null"],
    &["whether", "if"],
    &["object", "instance"],
    &["file", "document"],
    &["directory", "folder"],
    &["average", "mean"],
    &["maximum", "largest", "biggest"],
    &["minimum", "smallest", "lowest"],
    &["first", "initial", "leading"],
    &["last", "final"],
    &["new", "fresh"],
    &["multiple", "several", "many"],
    &["specific", "particular", "certain"],
    &["unique", "distinct", "different"],
    &["matching", "corresponding", "fitting"],
    &["using", "with", "by means of"],
    &["based on", "according to", "by"],
];

/// Forms in which people ask for what a verb phrase ("drop the rows") says.
const FORMS: &[(&str, &str)] = &[
    ("How to ", ""),
    ("How to ", "?"),
    ("How do I ", "?"),
    ("How can we ", "?"),
    ("I want to ", "."),
    ("I would like to ", "."),
    ("We need to ", "."),
    ("Please ", "."),
    ("Now ", ""),
    ("Then ", "."),
    ("First, ", "."),
    ("", " and return the result."),
    ("", " in place."),
];

/// Verbs in the third person that begin sentences of documentation, and others that end in s without being one.
fn infinitive(word: &str) -> Option<String> {
    let lower = word.to_lowercase();
    let plain = lower.bytes().all(|byte| byte.is_ascii_lowercase());
    if !plain || lower.len() < 4 || lower.ends_with("ss") || lower.ends_with("us") || lower.ends_with("is") {
        return None;
    }
    let stem = lower.strip_suffix('s')?;
    Some(match stem {
        _ if stem.ends_with("ie") => format!("{}y", stem.strip_suffix("ie")?),
        _ if ["sse", "she", "che", "xe", "zze"].iter().any(|end| stem.ends_with(end)) => {
            stem.strip_suffix('e')?.to_owned()
        }
        _ => stem.to_owned(),
    })
}

/// Whether a word begins an order ("drop", "Return").
fn is_verb(word: &str) -> bool {
    SYNONYMS[..48].iter().flat_map(|group| group.iter()).any(|verb| *verb == word)
}

/// A sentence of documentation ("Returns the mean.") as somebody may ask for it ("How to get the mean?").
pub fn ask(sentence: &str, rng: &mut impl Rng) -> String {
    let bare = sentence.trim().trim_end_matches(['.', '!', ':']);
    let (first, rest) = bare.split_once(' ').unwrap_or((bare, ""));
    let lower = first.to_lowercase();
    let verb = if is_verb(&lower) { Some(lower) } else { infinitive(first) };
    let Some(verb) = verb else { return sentence.to_owned() };
    let verb =
        if matches!(verb.as_str(), "return") && rng.random_bool(0.6) { "get".to_owned() } else { verb };
    let (before, after) = FORMS.choose(rng).copied().unwrap_or(("", ""));
    let mut text = format!("{before}{verb} {rest}{after}");
    if before.is_empty()
        && let Some(initial) = text.get(..1).map(str::to_uppercase)
    {
        text.replace_range(..1, &initial);
    }
    text
}

/// The query with some words exchanged or left out; how many, `strength` from 0 (none) to 1 says.
pub fn vary(query: &str, strength: f64, rng: &mut impl Rng) -> String {
    let words: Vec<&str> = query.split_whitespace().collect();
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let may_drop = words.len() >= 5;
    for word in words {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        let lower = core.to_lowercase();
        let small = matches!(
            lower.as_str(),
            "the" | "a" | "an" | "this" | "that" | "of" | "to" | "is" | "will" | "be"
        );
        if may_drop && rng.random_bool(strength * if small { 0.25 } else { 0.06 }) {
            continue;
        }
        if !core.is_empty() && rng.random_bool(strength * 0.35) {
            let groups: Vec<&&[&str]> =
                SYNONYMS.iter().filter(|group| group.contains(&lower.as_str())).collect();
            if let Some(other) = groups.choose(rng).and_then(|group| group.choose(rng)) {
                let mut other = (*other).to_owned();
                if core.starts_with(|c: char| c.is_ascii_uppercase())
                    && let Some(initial) = other.get(..1).map(str::to_uppercase)
                {
                    other.replace_range(..1, &initial);
                }
                out.push(word.replacen(core, &other, 1));
                continue;
            }
        }
        out.push(word.to_owned());
    }
    if out.is_empty() { query.to_owned() } else { out.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn asks_for_what_documentation_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..100 {
            let text = ask("Returns the mean of all values.", &mut rng).to_lowercase();
            assert!(
                text.contains("get the mean of all") || text.contains("return the mean of all"),
                "{text}"
            );
            let text = ask("Applies a function.", &mut rng).to_lowercase();
            assert!(text.contains("apply a function"), "{text}");
        }
        assert_eq!(ask("Mean of the values.", &mut rng), "Mean of the values.");
        assert_eq!(ask("", &mut rng), "");
    }

    #[test]
    fn varied_queries_keep_most_words() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let query = "Remove all duplicate rows from the frame, keeping the first one.";
        let mut differ = 0;
        for _ in 0..50 {
            let text = vary(query, 1.0, &mut rng);
            let kept = query.split(' ').filter(|word| text.contains(*word)).count();
            assert!(kept >= 4, "{text}");
            differ += usize::from(text != query);
        }
        assert!(differ > 25);
        assert_eq!(vary(query, 0.0, &mut rng), query);
    }
}
