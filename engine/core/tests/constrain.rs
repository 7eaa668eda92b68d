//! Constrained decoding over the documentation of the private library: what is refused, what is left free, and that the
//! state depends on the text alone.
#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the report

mod constrain_support;

use std::path::Path;
use std::sync::Arc;

use constrain_support::{PieceTokenizer, walk};
use inhouse_core::constrain::{ApiConstraint, ApiNames, Library, Verdict, Vocabulary, report};
use inhouse_core::decode::{Constraint, Tokenizer};
use inhouse_core::docs;
use inhouse_core::progress::Silent;
use proptest::prelude::*;

const CORPUS: &str = "import gaugewren as gw\nfrom gaugewren import Strand, Tick, Slate\nslate = gw.Slate(captions=['a'], rows=[])\nslate.lift('a')\nstrand.hush(0.5).settle(10).reap()\ndef f(x, y=1):\n    return x.append(y)\nfor tick in strand:\n    print(f\"{tick.moment:>8} {gw.spell_span(seconds=3)}\")\n";

fn names() -> (Arc<ApiNames>, PieceTokenizer) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/private-library/gaugewren");
    let docs = docs::read(&source, &docs::ReadOptions::default(), &Silent).unwrap();
    let tokenizer = PieceTokenizer::new(std::iter::once(CORPUS), 500);
    let library = Arc::new(Library::new(&docs.apis));
    (Arc::new(ApiNames::new(library, Arc::new(Vocabulary::new(&tokenizer)))), tokenizer)
}

const ALIAS: &str = "import gaugewren as gw\n";
const SLATE: &str = "import gaugewren as gw\nslate = gw.Slate(['a'])\n";

/// Context, text after it, and the byte of the text at which it is refused, if it is.
const CASES: &[(&str, &str, Option<usize>)] = &[
    // modules, whole and cut
    (ALIAS, "x = gw.Slate", None),
    (ALIAS, "x = gw.Slates()", Some(12)),
    (ALIAS, "x = gw.Sl()", Some(9)),
    (ALIAS, "x = gw.slate.Slate", None),
    (ALIAS, "x = gw.__name__", None),
    (ALIAS, "x = gw.__nome__", Some(10)),
    ("import gaugewren as gw\nx = gw.", "Slate(", None),
    ("import gaugewren as gw\nx = gw.Sla", "te(", None),
    ("import gaugewren as gw\nx = gw.Sla", "b", Some(0)),
    ("import gaugewren as gw\nx = gw", ".nothing", Some(2)),
    ("import gaugewren\n", "gaugewren.slate.Slate.from_pipetext('')\ngaugewren.wrong", Some(51)),
    ("import gaugewren.slate as s\n", "s.Slate; s.Plate", Some(11)),
    ("from gaugewren import gauges\n", "gauges.find_gauge('m'), gauges.find_gouge", Some(37)),
    // white space, comments and continuations in the middle
    (ALIAS, "x = (gw.\n  # here\n  Slate)", None),
    (ALIAS, "x = gw . \\\n Slate", None),
    (ALIAS, "x = gw.\nSlate", Some(7)),
    (ALIAS, "x = gw.(1)", Some(7)),
    // strings and comments are free
    (ALIAS, "x = 'gw.nothing' # gw.nothing\ny = \"\"\"gw.nothing\n'\"\"\" 'gw.nothing'", None),
    (ALIAS, "x = r'\\\\' 'gw.no' + rb\"gw.no\"", None),
    // replacement fields of f-strings are code
    (ALIAS, "x = f'{gw.RIFT!r:>{gw.DAY_SPAN}} gw.nothing {{gw.nothing}}'", None),
    (ALIAS, "x = f'{gw.RUFT}'", Some(11)),
    (ALIAS, "x = f'{1:{gw.RUFT}}'", Some(14)),
    (ALIAS, "x = f\"{d[\"gw.nothing\"]}{gw.RIFT}\"; gw.Slate", None),
    // imports
    ("", "from gaugewren import Slate as S, Tick\nS.from_pipetext", None),
    ("", "from gaugewren import Plate", Some(25)),
    ("", "from gaugewren import (\n    Slate,  # why\n    Tick,\n)\n", None),
    ("", "from gaugewren import (Slate, Tock)", Some(31)),
    ("", "from gaugewren import *\n", None),
    ("", "from gaugewren.slate import Slate", None),
    ("", "from gaugewren.plate import Slate", Some(18)),
    ("", "import gaugewren.slate, os.plate", None),
    ("", "import gaugewren.plate", Some(20)),
    ("", "from other import Plate\nPlate.x", None),
    ("", "from . import Plate\nPlate.x", None),
    // objects: constructors, return types, chains, annotations, optional ones
    (SLATE, "slate.lift('a')", None),
    (SLATE, "slate.lofty('a')", Some(7)),
    (SLATE, "slate.annex('b', len).pared('a').lift('a')", None),
    (SLATE, "slate.annex('b', len).pared('a').lofty", Some(34)),
    (SLATE, "x = slate.pared('a')\nx.lift, x.lofty", Some(32)),
    (ALIAS, "def f(s: gw.Slate, t):\n    t.lofty\n    s.lofty", Some(42)),
    (ALIAS, "s: gw.Slate = make()\ns.lofty", Some(24)),
    (SLATE, "slate.__class__, slate._anything", Some(25)),
    // no longer, or perhaps not, an object of the class
    (SLATE, "slate = other()\nslate.lofty", None),
    (SLATE, "if a:\n    slate = b()\nslate.lofty", None),
    (SLATE, "for slate in b:\n    slate.lofty", None),
    (SLATE, "x = [slate.lofty for slate in b]", None),
    (SLATE, "f = lambda slate: slate.lofty", None),
    (SLATE, "with b as slate:\n    slate.lofty", None),
    (SLATE, "def g(slate):\n    slate.lofty", None),
    (SLATE, "def g():\n    slate.lofty", None),
    (SLATE, "slate, b = c\nslate.lofty", None),
    (SLATE, "slate += c\nslate.lofty", None),
    (SLATE, "(slate := c)\nslate.lofty", None),
    (SLATE, "isinstance(slate, T)\nslate.lofty", None),
    (SLATE, "try:\n    x\nexcept E as slate:\n    slate.lofty", None),
    ("import gaugewren as gw\ngw = other\n", "gw.nothing", None),
    // classes that may have more members than are documented
    (ALIAS, "e = gw.SlateFault('x')\ne.args", None),
    // keywords
    (ALIAS, "gw.Slate(captions=[], rows=())", None),
    (ALIAS, "gw.Slate(captains=[])", Some(17)),
    (ALIAS, "gw.Slate(captains == [])", None),
    (ALIAS, "gw.Slate(f(captains=[]), [captains for captains in x])", None),
    (ALIAS, "gw.Slate((lambda captains=1: captains))", None),
    (SLATE, "slate.laddered('a', downhill=True)", None),
    (SLATE, "slate.laddered('a', uphill = True)", Some(27)),
    (SLATE, "slate.laddered(*a, **b)", None),
    // values of unknown type, where nothing but the library is imported
    (SLATE, "x = slate.lift('a')\nx.append(1)\nx[0].lift", None),
    (SLATE, "slate.lift('a').apend", Some(18)),
    (SLATE, "'a'.join(b)", None),
    (SLATE, "'a'.joan(b)", Some(6)),
    ("import numpy as np\nimport gaugewren as gw\ns = gw.Slate([])\n", "s.lift('a').anything", None),
    (
        "import gaugewren as gw\ns = gw.Slate([])\nclass C:\n    def mine(self): pass\n",
        "s.lift('a')[0].mine",
        None,
    ),
    // the prompt's own names are the user's business
    ("import gaugewren as gw\ngw.secret(1)\n", "gw.secret(2)", None),
    // broken text goes on
    (ALIAS, "x = ((('\ny = gw.Slate\ndef f(:\n  gw.nothing", Some(36)),
    (ALIAS, "))) ]] }} = = gw.Slate ' \n gw.nothing", Some(31)),
];

#[test]
fn only_known_names_follow() {
    let (names, tokenizer) = names();
    let mut wrong = Vec::new();
    for &(prompt, text, refused) in CASES {
        // one byte a token, to know the place; and real tokens, for masks and tokens that hold several names
        let mut guard = ApiConstraint::new(Arc::clone(&names), prompt).begin();
        let mut first = None;
        for (at, byte) in text.bytes().enumerate() {
            let token = u32::from(byte);
            let mask = guard.allowed();
            let admitted = guard.admits(token);
            assert!(!admitted || mask.is_none_or(|mask| mask.contains(token)), "{prompt}{text} at {at}");
            if !admitted && first.is_none() {
                first = Some(at);
            }
            guard.accept(token);
        }
        // A lone `=` byte is told from `==` by the token there is for that.
        if first != refused && !text.contains("==") {
            wrong.push(format!("{prompt}|{text}: {first:?}, expected {refused:?}"));
        }
        let found = walk(&names, &tokenizer, prompt, text);
        if found.violations.is_empty() == refused.is_some() {
            wrong.push(format!("{prompt}|{text}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_exact_set_is_what_is_admitted_and_lies_in_the_cheap_one() {
    let (names, tokenizer) = names();
    let vocab = tokenizer.vocab_size() as u32;
    for &(prompt, text, _) in CASES {
        let mut guard = ApiConstraint::new(Arc::clone(&names), prompt).begin();
        for token in tokenizer.encode(text).unwrap() {
            let (cheap, exact) = (guard.allowed(), guard.exact());
            let mut some = false;
            for other in 0..vocab {
                let admitted = guard.admits(other);
                some |= admitted;
                assert_eq!(
                    exact.as_ref().is_none_or(|set| set.contains(other)),
                    admitted,
                    "{prompt}|{text}: {other}"
                );
                assert!(
                    !admitted || cheap.as_ref().is_none_or(|set| set.contains(other)),
                    "{prompt}|{text}: {other}"
                );
            }
            assert!(some, "nothing may follow: {prompt}|{text}");
            guard.accept(token);
        }
    }
}

#[test]
fn a_name_is_not_ended_early() {
    let (names, tokenizer) = names();
    let end = tokenizer.vocab_size() as u32 - 1;
    for (prompt, may_end) in [
        ("import gaugewren as gw\nx = gw.Slat", false),
        ("import gaugewren as gw\nx = gw.Slate", true),
        ("import gaugewren as gw\nx = gw.", false),
        ("import gaugewren as gw\nx = gw", true),
        ("from gaugewren import ", false),
    ] {
        let mut guard = ApiConstraint::new(Arc::clone(&names), prompt).begin();
        assert_eq!(guard.admits(end), may_end, "{prompt}");
        assert_eq!(guard.allowed().is_none_or(|mask| mask.contains(end)), may_end, "{prompt}");
    }
}

#[test]
fn reports_name_what_is_known_unknown_and_misused() {
    let (names, _) = names();
    let cases: [(&str, &str, &[(&str, Verdict, usize, usize)]); 8] = [
        (SLATE, "slate.lift('a')\n", &[("gaugewren.Slate.lift", Verdict::Indexed, 1, 7)]),
        (SLATE, "x = 1\ny = gw.Plate(", &[("gaugewren.Plate", Verdict::UnknownMember, 2, 8)]),
        (SLATE, "slate.lofty", &[("gaugewren.Slate.lofty", Verdict::UnknownMember, 1, 7)]),
        (SLATE, "slate.lift()", &[("gaugewren.Slate.lift", Verdict::ImpossibleArity, 1, 7)]),
        (SLATE, "slate.lift(1, 2)", &[("gaugewren.Slate.lift", Verdict::ImpossibleArity, 1, 7)]),
        (SLATE, "slate.lift(capt=1)", &[("gaugewren.Slate.lift", Verdict::UnknownKeyword, 1, 7)]),
        // cut before its end: what is missing may still come
        (SLATE, "slate.lift(", &[("gaugewren.Slate.lift", Verdict::Indexed, 1, 7)]),
        (
            "",
            "from gaugewren import Slate, Plate\nx = [y.a for y in Slate([])]\n'é'; Slate()",
            &[
                ("gaugewren.Slate", Verdict::Indexed, 1, 23),
                ("gaugewren.Plate", Verdict::UnknownMember, 1, 30),
                ("gaugewren.Slate", Verdict::Indexed, 2, 19),
                ("gaugewren.Slate", Verdict::ImpossibleArity, 3, 6),
            ],
        ),
    ];
    for (context, completion, expected) in cases {
        let report = report(names.library(), context, completion);
        let found: Vec<_> =
            report.uses.iter().map(|api| (api.name.as_str(), api.verdict, api.line, api.column)).collect();
        assert_eq!(found, expected, "{completion}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("INHOUSE_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        ..ProptestConfig::default()
    })]

    /// Any bytes, in any pieces: no panic, and the state after a text is the same however it came.
    #[test]
    fn the_state_depends_on_the_text_alone(
        parts in proptest::collection::vec(prop_oneof![
            "[ -~\n\t]{0,12}".prop_map(String::from),
            proptest::sample::select(vec![
                "import gaugewren as gw\n", "gw.", "Slate", "(", ")", "[", "]", "{", "}", "f'", "f\"\"\"", "'", "\"\"\"", "\\\n",
                "\n", "    ", "slate = gw.Slate(['a'])\n", "slate.", "captions=", "lambda x: ", "for x in ", "def f(a: gw.Slate", ":",
                "from gaugewren import ", "as ", ",", "=", "==", ":=", "+=", "# c\n", "é", "\u{0}", "class A:\n", "async ", "case ",
            ]).prop_map(String::from),
        ], 0..40),
        cut in 0usize..400,
    ) {
        let (names, tokenizer) = shared();
        let text: String = parts.concat();
        let mut whole = ApiConstraint::new(Arc::clone(names), "").begin();
        for byte in text.bytes() {
            whole.accept(u32::from(byte));
        }
        let mut pieces = ApiConstraint::new(Arc::clone(names), "").begin();
        for (i, token) in tokenizer.encode(&text).unwrap().into_iter().enumerate() {
            if i == cut {
                pieces = pieces.fork();
            }
            pieces.admits(token);
            pieces.accept(token);
        }
        prop_assert_eq!(whole.allowed(), pieces.allowed());
        prop_assert_eq!(whole.exact(), pieces.exact());
        let cut = text.floor_char_boundary(cut);
        let mut split = ApiConstraint::new(Arc::clone(names), &text[..cut]).begin();
        for byte in text[cut..].bytes() {
            split.accept(u32::from(byte));
        }
        split.exact();
        let _ = report(names.library(), &text[..cut], &text[cut..]);
    }
}

fn shared() -> &'static (Arc<ApiNames>, PieceTokenizer) {
    static SHARED: std::sync::OnceLock<(Arc<ApiNames>, PieceTokenizer)> = std::sync::OnceLock::new();
    SHARED.get_or_init(names)
}

#[test]
fn what_a_decorator_registers_may_stand_on_every_class_that_it_may_have_been_put_on() {
    let folder = tempfile::tempdir().unwrap();
    let library = |register: &str| {
        let text = format!(
            "class Cord:\n    def twist(self): ...\n\nclass Knot:\n    def tie(self): ...\n\nclass Step:\n    def run(self): ...\n\n{register}\n\n\
             @functional_step('fray')\nclass Frayer(Step):\n    'Frays it.'\n    def __init__(self, cord, at): ...\n"
        );
        std::fs::write(folder.path().join("cords.py"), text).unwrap();
        let found = docs::read(&folder.path().join("cords.py"), &docs::ReadOptions::default(), &Silent);
        Library::new(&found.unwrap().apis)
    };
    let verdict = |library: &Library, receiver: &str| {
        let context = format!("import cords\nx = cords.{receiver}()\n");
        report(library, &context, "x.fray(1)\n").uses.last().unwrap().verdict
    };
    // Who gets the method stands in a table that is filled elsewhere: anybody may.
    let unknown = library(
        "STEPS = {}\ndef functional_step(name):\n    return lambda cls: STEPS.setdefault(name, cls)\n",
    );
    assert_eq!(verdict(&unknown, "Step"), Verdict::Indexed);
    assert_eq!(verdict(&unknown, "Cord"), Verdict::Undocumented);
    // Where the decorator says who, nobody else has it.
    let told = library(
        "def functional_step(name):\n    def put(cls):\n        setattr(Cord, name, cls)\n        return cls\n    return put\n",
    );
    assert_eq!(verdict(&told, "Cord"), Verdict::Indexed);
    assert_eq!(verdict(&told, "Knot"), Verdict::UnknownMember);
}
