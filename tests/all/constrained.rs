//! Constrained decoding with a model that knows nothing: random weights draw at random, and whatever comes of it, references to
//! the library's modules name what it has, and no text is broken that would not have been.
//!
//! `INHOUSE_CONSTRAIN_SAMPLES` sets how many completions are drawn (400 without it; 10,000 is the long run).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use inhouse_core::ApiDoc;
use inhouse_core::constrain::{ApiConstraint, ApiNames, Library, Vocabulary};
use inhouse_core::decode::{
    CancelToken, Constraint, DecoderOptions, Guard, Request, SamplingParams, StopRules, TokenId, TokenSet,
    generate,
};
use inhouse_core::docs;
use inhouse_core::progress::Silent;
use inhouse_tests::repository;
use ruff_python_ast::visitor::{self, Visitor};
use ruff_python_ast::{Alias, Expr, ExprContext, Parameter, Stmt};
use ruff_python_parser::{Mode, ParseOptions, parse_unchecked};
use ruff_text_size::{Ranged, TextSize};

/// Where a library's name is due, in ten ways: plain, in brackets, in f-strings, in imports, half a name, after a line that
/// goes on, after a comment, of a submodule.
const PROMPTS: [&str; 10] = [
    "import gaugewren as gw\nx = gw.",
    "import gaugewren as gw\nx = [gw.Slate, gw.",
    "import gaugewren as gw\nprint(f'{gw.",
    "from gaugewren import ",
    "from gaugewren import (\n    Slate,\n    ",
    "import gaugewren as gw\nx = gw.S",
    "import gaugewren as gw\nx = gw \\\n    .",
    "import gaugewren\n\n\ndef f(a):\n    # gaugewren.nothing\n    return gaugewren.",
    "import gaugewren.slate as s\ny = {'a': s.",
    "import gaugewren as gw\nif gw.RIFT > 0 and gw.",
];

/// Tokens of one sample, each with whether it was one of a mask.
type Draws = Vec<(TokenId, bool)>;

/// A constraint that keeps what is drawn under another.
#[derive(Debug)]
struct Recorded {
    inner: ApiConstraint,
    samples: Arc<Mutex<Vec<Draws>>>,
}

struct Recorder {
    inner: Box<dyn Guard>,
    masked: bool,
    draws: Draws,
    samples: Arc<Mutex<Vec<Draws>>>,
}

impl Constraint for Recorded {
    fn begin(&self) -> Box<dyn Guard> {
        let samples = Arc::clone(&self.samples);
        Box::new(Recorder { inner: self.inner.begin(), masked: false, draws: Vec::new(), samples })
    }
}

impl Guard for Recorder {
    fn allowed(&mut self) -> Option<Arc<TokenSet>> {
        let set = self.inner.allowed();
        self.masked = set.is_some();
        set
    }

    fn admits(&mut self, token: TokenId) -> bool {
        let admits = self.inner.admits(token);
        self.masked |= !admits;
        admits
    }

    fn exact(&mut self) -> Option<Arc<TokenSet>> {
        self.inner.exact()
    }

    fn accept(&mut self, token: TokenId) {
        self.draws.push((token, std::mem::take(&mut self.masked)));
        self.inner.accept(token);
    }

    fn gave_way(&mut self) {
        panic!("no token that may follow could be drawn");
    }

    fn fork(&self) -> Box<dyn Guard> {
        let (inner, samples) = (self.inner.fork(), Arc::clone(&self.samples));
        Box::new(Self { inner, masked: self.masked, draws: self.draws.clone(), samples })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let draws = std::mem::take(&mut self.draws);
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(draws);
    }
}

/// Names that each module of the documentation has, taken from the records alone.
fn members(apis: &[ApiDoc]) -> BTreeMap<String, BTreeSet<String>> {
    let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |dotted: &str| {
        if let Some((module, name)) = dotted.rsplit_once('.') {
            members.entry(module.to_owned()).or_default().insert(name.to_owned());
        }
    };
    for api in apis {
        add(&api.qualified_name);
        add(&format!("{}.{}", api.module, api.name));
        add(&api.module);
        api.aliases.iter().for_each(|alias| add(alias));
        for name in api.undocumented.iter().flatten() {
            add(&format!("{}.{name}", api.qualified_name));
        }
    }
    // What every module has (Python's data model, "Module objects").
    const EVERY: &str = "__name__ __doc__ __file__ __path__ __package__ __loader__ __spec__ __dict__ __all__ __version__ __cached__ \
                         __builtins__ __annotations__ __author__ __getattr__ __dir__ __class__";
    for names in members.values_mut() {
        names.extend(EVERY.split_whitespace().map(str::to_owned));
    }
    members
}

/// A reference to a name of a module: the module as the text names it, the name, where it ends, and where the module's name
/// was bound to something else before.
struct Judge<'m> {
    members: &'m BTreeMap<String, BTreeSet<String>>,
    /// Local names of modules.
    aliases: BTreeMap<String, String>,
    /// Offsets from which a local name may be something else.
    rebound: BTreeMap<String, TextSize>,
    /// Module, name and end of every reference.
    references: Vec<(String, String, TextSize, Option<String>)>,
}

impl Judge<'_> {
    fn bind(&mut self, name: &str, at: TextSize) {
        let first = self.rebound.entry(name.to_owned()).or_insert(at);
        *first = at.min(*first);
    }

    fn import(&mut self, alias: &Alias) {
        let module = alias.name.as_str();
        match &alias.asname {
            Some(name) if self.members.contains_key(module) => {
                self.aliases.insert(name.to_string(), module.to_owned());
            }
            Some(name) => self.bind(name, alias.start()),
            None => {
                let root = module.split('.').next().unwrap_or_default();
                if self.members.contains_key(root) {
                    self.aliases.insert(root.to_owned(), root.to_owned());
                }
            }
        }
    }
}

impl<'a> Visitor<'a> for Judge<'_> {
    fn visit_stmt(&mut self, statement: &'a Stmt) {
        match statement {
            Stmt::Import(import) => import.names.iter().for_each(|alias| self.import(alias)),
            Stmt::ImportFrom(import) if import.level == 0 => {
                let module = import.module.as_ref().map(ToString::to_string).unwrap_or_default();
                for alias in &import.names {
                    let name = alias.name.as_str();
                    if self.members.contains_key(&module) && name != "*" && !name.is_empty() {
                        self.references.push((module.clone(), name.to_owned(), alias.name.end(), None));
                    } else {
                        self.bind(alias.asname.as_ref().unwrap_or(&alias.name), alias.start());
                    }
                }
            }
            Stmt::FunctionDef(function) => self.bind(&function.name, function.name.start()),
            Stmt::ClassDef(class) => self.bind(&class.name, class.name.start()),
            Stmt::Global(global) => global.names.iter().for_each(|name| self.bind(name, name.start())),
            _ => {}
        }
        visitor::walk_stmt(self, statement);
    }

    fn visit_parameter(&mut self, parameter: &'a Parameter) {
        self.bind(&parameter.name, parameter.start());
        visitor::walk_parameter(self, parameter);
    }

    fn visit_expr(&mut self, expression: &'a Expr) {
        match expression {
            Expr::Name(name) if name.ctx != ExprContext::Load => self.bind(&name.id, name.start()),
            Expr::Attribute(attribute) => {
                if let Expr::Name(value) = attribute.value.as_ref()
                    && let Some(module) = self.aliases.get(value.id.as_str())
                    && !attribute.attr.is_empty()
                {
                    let (module, name) = (module.clone(), attribute.attr.to_string());
                    self.references.push((module, name, attribute.attr.end(), Some(value.id.to_string())));
                }
            }
            _ => {}
        }
        visitor::walk_expr(self, expression);
    }
}

/// Where a text stops being Python and how. What a parser makes of the rest is its guess.
fn first_error(text: &str) -> Option<(TextSize, String)> {
    let parsed = parse_unchecked(text, ParseOptions::from(Mode::Module));
    let first = parsed.errors().iter().min_by_key(|error| error.location.start())?;
    Some((first.location.start(), first.error.to_string()))
}

/// `text` with the first name of every run of masked tokens replaced by one that says nothing, as long as the name.
fn neutral(text: &str, masked: &[std::ops::Range<usize>]) -> String {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.as_bytes().to_vec();
    let mut before = 0;
    for range in masked {
        // A token after a masked one is masked as well where the name could have gone on.
        let goes_on = std::mem::replace(&mut before, range.end) == range.start;
        let Some(skip) = bytes[range.clone()].iter().position(|byte| is_name(*byte)).filter(|_| !goes_on)
        else {
            continue;
        };
        let within = range.start + skip;
        let begin = bytes[..within].iter().rposition(|byte| !is_name(*byte)).map_or(0, |at| at + 1);
        let end = within + bytes[within..].iter().take_while(|byte| is_name(**byte)).count();
        // A number is no name: `import *` and then anything.
        if !bytes[begin].is_ascii_digit() {
            bytes[begin..end].fill(b'x');
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn random_weights_refer_to_nothing_unknown_and_break_nothing() {
    const TOKENS: usize = 40;
    let wanted: usize =
        std::env::var("INHOUSE_CONSTRAIN_SAMPLES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let library = repository().join("tests/private-library/gaugewren");
    let apis = docs::read(&library, &docs::ReadOptions::default(), &Silent).unwrap().apis;
    let members = members(&apis);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/codegen");
    let model = inhouse_candle::load(&fixture, &inhouse_candle::LoadOptions::default()).unwrap();
    let vocabulary = Arc::new(Vocabulary::new(model.tokenizer()));
    let names = Arc::new(ApiNames::new(Arc::new(Library::new(&apis)), vocabulary));
    let options = DecoderOptions { sequences: 64, context_length: Some(96), ..DecoderOptions::default() };
    let mut decoder = Arc::clone(&model).decoder(&options).unwrap();

    let (mut judged, mut whole, mut references, mut in_completions, mut masked_tokens) = (0, 0, 0, 0, 0);
    let mut wrong = Vec::new();
    for (number, prompt) in PROMPTS.into_iter().enumerate() {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let inner = ApiConstraint::new(Arc::clone(&names), prompt);
        let request = Request {
            prompt: model.tokenizer().encode(prompt).unwrap(),
            n: wanted.div_ceil(PROMPTS.len()),
            params: SamplingParams { temperature: 1.0, top_p: 1.0, ..SamplingParams::default() },
            seed: number as u64,
            max_tokens: TOKENS,
            stops: StopRules::none(),
            ends: Vec::new(),
            silent: Vec::new(),
            log_probabilities: false,
            constraint: Some(Arc::new(Recorded { inner, samples: Arc::clone(&samples) })),
            healed: 0,
            greedy_first: false,
        };
        let go = CancelToken::new();
        let keep = &mut |_: inhouse_core::decode::Event<'_>| ControlFlow::Continue(());
        generate(decoder.as_mut(), model.tokenizer(), &request, &go, keep).unwrap();
        drop(request);
        let samples = std::mem::take(&mut *samples.lock().unwrap());
        let samples: Vec<Draws> = samples.into_iter().filter(|draws| !draws.is_empty()).collect();
        assert_eq!(samples.len(), wanted.div_ceil(PROMPTS.len()), "{prompt:?}");
        for draws in samples {
            let (mut bytes, mut masked) = (prompt.as_bytes().to_vec(), Vec::new());
            for (token, of_mask) in draws {
                let begin = bytes.len();
                bytes.extend(model.tokenizer().token_bytes(token));
                if of_mask {
                    masked_tokens += 1;
                    masked.push(begin..bytes.len());
                }
            }
            let text = match String::from_utf8(bytes) {
                Ok(text) => text,
                // The mask works on bytes; what is no character is replaced byte by byte, so that places stay.
                Err(error) => error
                    .into_bytes()
                    .iter()
                    .map(|b| char::from(if b.is_ascii() { *b } else { b'?' }))
                    .collect(),
            };
            judged += 1;
            let error = first_error(&text);
            whole += usize::from(error.is_none());
            if error != first_error(&neutral(&text, &masked)) {
                wrong.push(format!("broken by a name: {text:?}: {error:?}"));
            }
            let readable = error.map_or(text.len(), |(at, _)| at.to_usize());
            let mut judge = Judge {
                members: &members,
                aliases: BTreeMap::new(),
                rebound: BTreeMap::new(),
                references: Vec::new(),
            };
            let parsed = parse_unchecked(&text, ParseOptions::from(Mode::Module));
            if let ruff_python_ast::Mod::Module(module) = parsed.syntax() {
                judge.visit_body(&module.body);
            }
            for (module, name, end, local) in judge.references {
                let free =
                    local.and_then(|local| judge.rebound.get(&local).copied()).is_some_and(|at| at < end);
                // The limit of tokens cuts names, too: the last one may not be whole.
                if free || end.to_usize() == text.len() || end.to_usize() > readable {
                    continue;
                }
                references += 1;
                in_completions += usize::from(end.to_usize() > prompt.len());
                if !members[&module].contains(&name) {
                    wrong.push(format!("{module}.{name}: {text:?}"));
                }
            }
        }
    }
    println!(
        "{judged} completions of {TOKENS} tokens judged, {whole} of them Python from end to end; {masked_tokens} tokens under a mask; \
         {references} references to modules, {in_completions} that end in the completion"
    );
    assert!(in_completions * 2 > judged, "{in_completions} references in {judged} completions");
    assert!(wrong.is_empty(), "{} of {judged}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
