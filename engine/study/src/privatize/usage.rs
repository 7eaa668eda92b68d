//! Usage in private words: what the library's own tests and examples say, so that an index of the twin knows what an index of the
//! public library would.

use std::collections::{BTreeMap, HashMap};

use inhouse_core::index::{ApiUsage, FileUsage, UsageExample, UsageLedger};
use inhouse_core::usage;

use super::code::{Converter, Names, apply};
use super::documentation::{private_name, private_path};
use super::speech::{Quotes, Said, Speech};
use crate::rename::Table;

/// Name of the usage in the folder of a private library: rows that `inhouse index build --usage` takes.
pub const FILE: &str = "usage.jsonl.gz";

/// Usage as the twin's own code would show it, and its texts with what was kept in them.
pub fn convert(ledger: &UsageLedger, table: &Table, speech: &Speech) -> (Vec<FileUsage>, Vec<Said>) {
    let words = Words::new(table);
    let mut texts = Vec::new();
    let mut files = Vec::new();
    for (i, file) in ledger.files.iter().enumerate() {
        let uses = file.uses.iter().map(|used| convert_use(used, &words, speech, &mut texts)).collect();
        // Paths and digests would tell the public library.
        let path = format!("usage/{i}.py");
        files.push(FileUsage { source: FILE.into(), path, digest: String::new(), uses });
    }
    (files, texts)
}

fn convert_use(used: &ApiUsage, words: &Words, speech: &Speech, texts: &mut Vec<Said>) -> ApiUsage {
    let renamed = |counts: &BTreeMap<String, u32>, rename: &dyn Fn(&str) -> String| {
        let mut out: BTreeMap<String, u32> = BTreeMap::new();
        for (key, count) in counts {
            *out.entry(rename(key)).or_default() += count;
        }
        out
    };
    let mut terms: BTreeMap<String, u32> = BTreeMap::new();
    for (term, count) in &used.terms {
        for term in words.private(term) {
            *terms.entry(term.to_owned()).or_default() += count;
        }
    }
    ApiUsage {
        name: private_name(speech, &used.name),
        calls: used.calls,
        targets: renamed(&used.targets, &|path| private_path(speech, path)),
        keywords: renamed(&used.keywords, &|keyword| speech.name(keyword).unwrap_or(keyword).to_owned()),
        terms,
        examples: used.examples.iter().map(|example| convert_example(example, speech, texts)).collect(),
    }
}

fn convert_example(example: &UsageExample, speech: &Speech, texts: &mut Vec<Said>) -> UsageExample {
    let mut names = Names::default();
    // What tests take for granted.
    names.read("import numpy as np\nimport os, sys, re, math, datetime\n", speech.library());
    let strings = HashMap::new();
    let converter =
        Converter { speech, names: &names, evidence: None, strings: &strings, quotes: Quotes::Keep };
    let code = apply(&example.code, 0..example.code.len(), &converter.edits(&example.code));
    let says = speech.prose(&example.says, Quotes::Keep, &strings);
    let converted = UsageExample {
        code: code.text.clone(),
        says: says.text.clone(),
        line: example.line,
        score: example.score,
    };
    texts.extend([code, says]);
    converted
}

/// What terms of usage become: a name of one word stands for its private one, as it does in prose.
struct Words(HashMap<String, Vec<String>>);

impl Words {
    fn new(table: &Table) -> Self {
        let mut words = HashMap::new();
        for (public, private) in &table.pairs {
            if let [term] = usage::terms(public).as_slice() {
                words.entry(term.clone()).or_insert_with(|| usage::terms(private));
            }
        }
        Self(words)
    }

    fn private<'w>(&'w self, term: &'w str) -> impl Iterator<Item = &'w str> {
        let (known, itself) = match self.0.get(term) {
            Some(private) => (private.as_slice(), None),
            None => (&[][..], Some(term)),
        };
        known.iter().map(String::as_str).chain(itself)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_said_in_private_words() {
        let speech = super::super::speech::tests::speech();
        let table = Table {
            pairs: [("frames", "amberwell"), ("merge", "fuse"), ("drop", "shed"), ("DataFrame", "FactSheet")]
                .map(|(public, private)| (public.to_owned(), private.to_owned()))
                .to_vec(),
            ..Table::default()
        };
        let used = ApiUsage {
            name: "merge".into(),
            calls: 3,
            targets: [("frames.DataFrame.merge".to_owned(), 2)].into(),
            keywords: [("drop".to_owned(), 1)].into(),
            terms: usage::terms("merges rows").into_iter().map(|term| (term, 2)).collect(),
            examples: vec![UsageExample {
                code: "df.merge(other, drop=True)".into(),
                says: "merge the rows".into(),
                line: 4,
                score: 9,
            }],
        };
        let file = FileUsage {
            source: "/frames".into(),
            path: "frames/tests/a.py".into(),
            digest: "d".into(),
            uses: vec![used],
        };
        let (files, texts) = convert(&UsageLedger { files: vec![file] }, &table, &speech);
        let got = &files[0].uses[0];
        assert_eq!((got.name.as_str(), got.calls), ("fuse", 3));
        assert_eq!(got.targets, [("amberwell.FactSheet.fuse".to_owned(), 2)].into());
        assert_eq!(got.keywords, [("shed".to_owned(), 1)].into());
        assert_eq!(got.terms.keys().map(String::as_str).collect::<Vec<_>>(), ["fuse", "row"]);
        assert_eq!(got.examples[0].code, "fs.fuse(other, shed=True)");
        assert_eq!(got.examples[0].says, "fuse the rows");
        assert!(!files[0].path.contains("frames") && texts.len() == 2);
    }
}
