//! Tasks from documentation: a block of APIs under invented names, some code, and a comment that decides which of them is called.
//!
//! Every library is renamed anew for every task, so that a name can come from nowhere but the block, and which one it is from
//! nowhere but the comment: no other API's description has as many of its words.

use inhouse_core::api::ApiKind;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rustc_hash::{FxHashMap, FxHashSet};

use super::document::{Document, weight};
use super::library::{Api, Shelf, stems};
use super::names::Names;
use super::parameters::Way;
use super::values;
use super::wording::{Distance, identifiers, renamed, wish, wrapped};

/// What is asked for at one cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub document: Document,
    /// All up to the cursor.
    pub prompt: String,
    /// The same without the block.
    pub prompt_no_api: String,
    /// What follows, up to the end of the line.
    pub line: String,
    /// The API that is called there.
    pub name: String,
    pub library: String,
}

/// How much a task may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// One or two lines of context, short signatures.
    Small,
    /// As in real use.
    Full,
}

/// Makes tasks of the libraries it is given.
pub(super) struct Maker<'a> {
    shelves: &'a [Shelf],
    /// Sums of the shelves' chances.
    chances: Vec<f64>,
    names: Names<'a>,
}

/// One API in a task.
struct Entry<'s> {
    api: &'s Api,
    name: String,
    line: String,
}

/// The APIs of a task and everything that has another name in it.
struct Cast<'s> {
    library: &'s str,
    entries: Vec<Entry<'s>>,
    /// Identifier -> its name in this task.
    names: FxHashMap<String, String>,
    /// Parameter -> its name in this task.
    parameters: FxHashMap<String, String>,
    package: String,
}

/// What stands above the comment.
#[derive(Default)]
struct Scene {
    imports: Vec<String>,
    /// Before functions and classes: `alias.` or nothing.
    prefix: String,
    /// The object that methods are called on, and how it is made.
    object: Option<(String, String)>,
    /// Variables with their values, in order.
    variables: Vec<(String, String)>,
}

/// A call, in pieces of different weight.
type Pieces = Vec<(String, u8)>;

impl<'a> Maker<'a> {
    pub fn new(shelves: &'a [Shelf], words: &'a [String], held_out: bool) -> Self {
        let mut sum = 0.0;
        let chances = shelves
            .iter()
            .map(|shelf| {
                sum += (shelf.apis.len() as f64).sqrt();
                sum
            })
            .collect();
        Self { shelves, chances, names: Names { words, held_out } }
    }

    /// One call; `n_apis` in the block. `None`: what was drawn makes no task.
    pub fn task(&self, n_apis: usize, size: Size, rng: &mut impl Rng) -> Option<Task> {
        let shelf = self.shelf(rng)?;
        let golden = pick(shelf, size, rng)?;
        // Libraries document more classes than anyone calls.
        if golden.kind == ApiKind::Class && rng.random_bool(0.5) {
            return None;
        }
        let mut apis = self.with_others(shelf, golden, n_apis, size, rng)?;
        apis.shuffle(rng);
        let cast = self.cast(shelf, &apis, size, rng);
        let golden = cast.entries.iter().position(|entry| std::ptr::eq(entry.api, golden))?;
        let mut scene = self.scene(&cast, &[golden], size, rng);
        let mut comment = comment(&cast, golden, rng)?;
        let (mut call, mut extra) = call(&cast, golden, &mut scene, rng);
        // A second method on what the first call gives.
        let second =
            (0..cast.entries.len()).find(|&i| i != golden && cast.entries[i].api.kind == ApiKind::Method);
        if let Some(second) = second
            && !self.names.held_out
            && cast.entries[golden].api.kind != ApiKind::Class
            && rng.random_bool(0.2)
        {
            let wish = self::comment(&cast, second, rng)?;
            let (arguments, more) = arguments(&cast, second, &mut scene, rng);
            call.push((".".into(), weight::CALL));
            call.push((cast.entries[second].name.clone(), weight::NAME));
            call.push((format!("({arguments})"), weight::CALL));
            extra.extend(more);
            let first = comment.trim_end_matches(['.', '?']).to_owned();
            comment = match rng.random_range(0..3) {
                0 => format!("{first}, then {}", uncapitalized(&wish)),
                1 => format!("{first} and {}", uncapitalized(&wish)),
                _ => format!("{first}. Then {}", uncapitalized(&wish)),
            };
        }
        let comment = with_extra(comment, &extra);
        let block = block(&cast);
        let name = cast.entries[golden].name.clone();
        let is_method = cast.entries[golden].api.kind == ApiKind::Method;
        let (context, before, after) = self.form(&scene, &comment, is_method, size, rng);
        if self.names.held_out && (context.contains(&name) || before.contains(&name)) {
            return None;
        }
        let mut document = Document::default();
        document.push(&block, weight::BLOCK);
        document.push(&context, weight::CONTEXT);
        document.cut();
        let mut line = String::new();
        // What goes before the call is fixed by the form, but for the name of a result.
        document.push(&before, weight::FREE);
        line.push_str(&before);
        for (text, weight) in &call {
            document.push(text, *weight);
            line.push_str(text);
        }
        document.push(&after, weight::CALL);
        let prompt = format!("{block}{context}");
        let library = cast.library.to_owned();
        Some(Task { document, prompt, prompt_no_api: context, line, name, library })
    }

    /// Several comments and calls below one block.
    pub fn script(&self, n_apis: usize, size: Size, rng: &mut impl Rng) -> Option<Document> {
        let shelf = self.shelf(rng)?;
        let first = pick(shelf, size, rng)?;
        let mut apis = self.with_others(shelf, first, n_apis, size, rng)?;
        apis.shuffle(rng);
        let cast = self.cast(shelf, &apis, size, rng);
        let n_steps = if size == Size::Small { 2 } else { rng.random_range(2..=(n_apis + 1).min(5)) };
        let mut steps: Vec<usize> = (0..cast.entries.len()).collect();
        steps.shuffle(rng);
        while steps.len() < n_steps {
            steps.push(rng.random_range(0..cast.entries.len()));
        }
        steps.truncate(n_steps);
        let mut scene = self.scene(&cast, &steps, size, rng);
        let mut made = Vec::new();
        let early = rng.random_bool(0.6);
        let mut known = 0;
        for &step in &steps {
            let comment = comment(&cast, step, rng)?;
            let (call, extra) = call(&cast, step, &mut scene, rng);
            let lines: String =
                scene.variables[known..].iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
            known = scene.variables.len();
            made.push((lines, wrapped(&with_extra(comment, &extra), "# ", rng), call));
        }
        let mut document = Document::default();
        document.push(&block(&cast), weight::BLOCK);
        let mut head = scene.imports.join("\n");
        if !head.is_empty() {
            head.push('\n');
            if rng.random_bool(0.4) {
                head.push('\n');
            }
        }
        if let Some((name, value)) = &scene.object {
            head.push_str(&format!("{name} = {value}\n"));
        }
        if early {
            made.iter().for_each(|(lines, _, _)| head.push_str(lines));
        }
        document.push(&head, weight::CONTEXT);
        let gap = if rng.random_bool(0.3) { "\n" } else { "" };
        let bare = rng.random_bool(0.25);
        for (i, (lines, comment, call)) in made.iter().enumerate() {
            let lines = if early { "" } else { lines };
            let gap = if i == 0 { "" } else { gap };
            document.push(&format!("{gap}{lines}{comment}\n"), weight::CONTEXT);
            if bare {
                document.cut();
            } else {
                let number = if steps.len() > 1 { (i + 1).to_string() } else { String::new() };
                document
                    .push(&format!("{}{number} =", ["r", "out", "x", "step_"].choose(rng)?), weight::CONTEXT);
                document.cut();
                document.push(" ", weight::CALL);
            }
            for (text, weight) in call {
                document.push(text, *weight);
            }
            document.push("\n", weight::CALL);
        }
        Some(document)
    }

    fn shelf(&self, rng: &mut impl Rng) -> Option<&'a Shelf> {
        let at = rng.random_range(0.0..*self.chances.last()?);
        self.shelves.get(self.chances.partition_point(|sum| *sum <= at).min(self.shelves.len() - 1))
    }

    /// `golden` and others beside it: of its class, with words of its description, or any of the library.
    fn with_others(
        &self,
        shelf: &'a Shelf,
        golden: &'a Api,
        n_apis: usize,
        size: Size,
        rng: &mut impl Rng,
    ) -> Option<Vec<&'a Api>> {
        let near = if n_apis > 1 { shelf.near(golden) } else { Vec::new() };
        let mut apis = vec![golden];
        let mut tries = 0;
        while apis.len() < n_apis {
            tries += 1;
            if tries > 60 {
                return None;
            }
            let roll: f64 = rng.random();
            let other = if roll < 0.3 && !near.is_empty() {
                &shelf.apis[*near.choose(rng)? as usize]
            } else if roll < 0.55 && golden.owner.is_some() {
                let any = pick(shelf, size, rng)?;
                if any.owner != golden.owner && tries < 30 {
                    continue;
                }
                any
            } else {
                pick(shelf, size, rng)?
            };
            let alike = |api: &&Api| api.name == other.name || api.description == other.description;
            if (size == Size::Small && !other.is_small) || apis.iter().any(alike) {
                continue;
            }
            apis.push(other);
        }
        Some(apis)
    }

    fn cast(&self, shelf: &'a Shelf, apis: &[&'a Api], size: Size, rng: &mut impl Rng) -> Cast<'a> {
        // Names that mean something are real libraries' way, so some tasks keep theirs.
        let keeps = !self.names.held_out && rng.random_bool(0.12);
        let most = if size == Size::Small { 14 } else { 24 };
        let mut names: FxHashMap<String, String> = FxHashMap::default();
        let mut taken: FxHashSet<String> = FxHashSet::default();
        let mut invent = |old: &str, names: &mut FxHashMap<String, String>, rng: &mut _| {
            if let Some(name) = names.get(old) {
                return name.clone();
            }
            let camel = old.starts_with(|c: char| c.is_ascii_uppercase());
            let mut name = if keeps { old.to_owned() } else { self.names.name_of(camel, most, rng) };
            while !keeps && !taken.insert(name.clone()) {
                name = self.names.name_of(camel, most, rng);
            }
            names.insert(old.to_owned(), name.clone());
            name
        };
        for api in apis {
            invent(&api.name, &mut names, rng);
            if let Some(owner) = &api.owner {
                invent(owner, &mut names, rng);
            }
            for word in identifiers(&api.description) {
                invent(word, &mut names, rng);
            }
        }
        let renames_parameters = !keeps && rng.random_bool(0.35);
        let mut parameters: FxHashMap<String, String> = FxHashMap::default();
        for parameter in apis.iter().flat_map(|api| &api.parameters.list) {
            if !parameters.contains_key(&parameter.name) {
                let new = if renames_parameters && parameter.name.len() > 1 {
                    self.names.parameter(rng)
                } else {
                    parameter.name.clone()
                };
                parameters.insert(parameter.name.clone(), new);
            }
        }
        let annotations = size == Size::Full && rng.random_bool(0.75);
        let returns = size == Size::Full && rng.random_bool(0.5);
        // How the receiver of a method is written: mostly not at all.
        let receiver = rng.random_range(0..20);
        let source =
            ["source", "datapipe", "source_datapipe", "obj", "frame"].choose(rng).copied().unwrap_or("obj");
        let entries = apis
            .iter()
            .map(|api| {
                let name = names.get(&api.name).cloned().unwrap_or_else(|| api.name.clone());
                let mut signature = api.parameters.render(annotations, &mut |old| {
                    parameters.get(old).cloned().unwrap_or_else(|| old.to_owned())
                });
                signature = renamed(&signature, &names);
                if api.kind == ApiKind::Method && receiver < 7 {
                    let owner = api.owner.as_ref().and_then(|owner| names.get(owner));
                    let first = match owner {
                        Some(owner) if receiver < 3 => format!("{source}: {owner}"),
                        _ => "self".into(),
                    };
                    signature = if signature.is_empty() { first } else { format!("{first}, {signature}") };
                }
                let gives = api.parameters.returns.as_ref().filter(|returned| returns && returned.len() < 40);
                let gives = gives.map_or_else(String::new, |gives| format!(" -> {}", renamed(gives, &names)));
                let description = renamed(&api.description, &names);
                let line = format!("# {name}({signature}){gives}: {description}\n");
                Entry { api, name, line }
            })
            .collect();
        let package = if keeps {
            shelf.library.clone()
        } else {
            let tail =
                ["", "", "", ".core", ".io", ".tools", ".iter"].choose(rng).copied().unwrap_or_default();
            format!("{}{tail}", self.names.syllables(1, 2, rng))
        };
        Cast { library: &shelf.library, entries, names, parameters, package }
    }

    /// Imports, and an object where a method is called; `called` are the entries that will be.
    fn scene(&self, cast: &Cast<'_>, called: &[usize], size: Size, rng: &mut impl Rng) -> Scene {
        let mut scene = Scene::default();
        let method = called.iter().map(|&i| &cast.entries[i]).find(|entry| entry.api.kind == ApiKind::Method);
        let others = called.iter().any(|&i| cast.entries[i].api.kind != ApiKind::Method);
        let package = &cast.package;
        let style = rng.random_range(0..10);
        let sparse = size == Size::Small;
        match style {
            0..5 => {
                let alias = match rng.random_range(0..5) {
                    0..2 if package.len() > 2 => package[..2].to_owned(),
                    _ => package.rsplit('.').next().unwrap_or(package).to_owned(),
                };
                let renamed = if alias == *package { String::new() } else { format!(" as {alias}") };
                scene.imports.push(format!("import {package}{renamed}"));
                scene.prefix = format!("{alias}.");
            }
            5..7 => scene.imports.push(format!("from {package} import *")),
            _ if sparse => {}
            // All names of the block, so that the import does not tell which is asked for.
            _ => {
                let mut list: Vec<&str> = cast
                    .entries
                    .iter()
                    .filter(|entry| entry.api.kind != ApiKind::Method)
                    .map(|entry| entry.name.as_str())
                    .collect();
                list.shuffle(rng);
                if self.names.held_out || list.is_empty() {
                    scene.imports.push(format!("from {package} import *"));
                } else {
                    scene.imports.push(format!("from {package} import {}", list.join(", ")));
                }
            }
        }
        let distracting = !sparse && rng.random_bool(0.2);
        if method.is_some() || distracting {
            let owner = method
                .or_else(|| cast.entries.iter().find(|entry| entry.api.owner.is_some()))
                .and_then(|entry| entry.api.owner.as_ref())
                .and_then(|owner| cast.names.get(owner))
                .cloned()
                .unwrap_or_else(|| self.names.name(true, rng));
            let name = values::object(&owner, rng);
            if !others && scene.prefix.is_empty() {
                scene.imports = vec![format!("from {package} import {owner}")];
            } else if scene.prefix.is_empty() && !scene.imports.iter().any(|line| line.ends_with('*')) {
                match scene.imports.last_mut() {
                    Some(line) => line.push_str(&format!(", {owner}")),
                    None => scene.imports.push(format!("from {package} import {owner}")),
                }
            }
            scene.object = Some((name, format!("{}{owner}({})", scene.prefix, values::material(rng))));
        }
        if !sparse && rng.random_bool(0.12) {
            let more = [
                "import os",
                "import re",
                "import math",
                "import random",
                "import json",
                "from datetime import date",
            ];
            let line = more.choose(rng).copied().unwrap_or_default().to_owned();
            scene.imports.insert(0, line);
        }
        scene
    }

    /// (context, what is written before the call, what after it).
    fn form(
        &self,
        scene: &Scene,
        comment: &str,
        is_method: bool,
        size: Size,
        rng: &mut impl Rng,
    ) -> (String, String, String) {
        let mut context = String::new();
        let roll: f64 = rng.random();
        let result = values::result(rng);
        let object = scene.object.as_ref();
        if size == Size::Full && roll < 0.35 {
            // The body of a function: it gets what it needs, the imports stay above.
            let mut parameters: Vec<&str> = Vec::new();
            if let Some((name, _)) = object
                && is_method
            {
                parameters.push(name);
            }
            for (name, _) in &scene.variables {
                if !parameters.contains(&name.as_str()) {
                    parameters.push(name);
                }
            }
            if rng.random_bool(0.15) {
                parameters.shuffle(rng);
            }
            let needs_import = !is_method || rng.random_bool(0.8);
            if needs_import && !scene.imports.is_empty() {
                context.push_str(&scene.imports.join("\n"));
                context.push_str(if rng.random_bool(0.7) { "\n\n" } else { "\n" });
            }
            let name = if rng.random_bool(0.6) { named_after(comment) } else { self.names.name(false, rng) };
            context.push_str(&format!("def {name}({}):\n", parameters.join(", ")));
            if rng.random_bool(0.3) && !comment.contains('"') {
                context.push_str(&format!("    \"\"\"{comment}\"\"\"\n"));
            } else {
                context.push_str(&wrapped(comment, "    # ", rng));
                context.push('\n');
                if rng.random_bool(0.15) {
                    context.push_str("    # return the result\n");
                }
            }
            return if rng.random_bool(0.8) {
                (context, "    return ".into(), "\n".into())
            } else {
                (context, format!("    {result} = "), format!("\n    return {result}\n"))
            };
        }
        context.push_str(&scene.imports.join("\n"));
        if !context.is_empty() {
            context.push('\n');
            if size == Size::Full && rng.random_bool(0.4) {
                context.push('\n');
            }
        }
        let mut lines: Vec<String> =
            scene.variables.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        if let Some((name, value)) = object {
            lines.insert(rng.random_range(0..=lines.len()), format!("{name} = {value}\n"));
        }
        context.push_str(&lines.concat());
        if size == Size::Full && rng.random_bool(0.2) {
            context.push('\n');
        }
        context.push_str(&wrapped(comment, "# ", rng));
        context.push('\n');
        if roll < 0.85 {
            context.push_str(&format!("{result} ="));
            (context, " ".into(), "\n".into())
        } else if roll < 0.92 {
            (context, format!("{result} = "), "\n".into())
        } else {
            (context, String::new(), "\n".into())
        }
    }
}

/// Any API of a shelf, or one with a short line.
fn pick<'a>(shelf: &'a Shelf, size: Size, rng: &mut impl Rng) -> Option<&'a Api> {
    match size {
        Size::Small => shelf.small.choose(rng).map(|&i| &shelf.apis[i as usize]),
        Size::Full => shelf.apis.choose(rng),
    }
}

fn block(cast: &Cast<'_>) -> String {
    let lines: String = cast.entries.iter().map(|entry| entry.line.as_str()).collect();
    format!("# [start]\n{lines}# [end]\n")
}

/// A comment that asks for one of the entries and no other: its description has more of the words than any other's.
fn comment(cast: &Cast<'_>, golden: usize, rng: &mut impl Rng) -> Option<String> {
    let api = cast.entries[golden].api;
    for attempt in 0..12 {
        let distance = if attempt < 8 { Distance::Any } else { Distance::Near };
        let text = wish(api, distance, rng);
        let words = stems(&text);
        let shared = |api: &Api| api.stems.intersection(&words).count();
        let own = shared(api);
        if own == 0
            || cast.entries.iter().enumerate().any(|(i, other)| i != golden && shared(other.api) >= own)
        {
            continue;
        }
        // A real name that is left in the comment would be another than the block's.
        let text = renamed(&text, &cast.names);
        if !text.is_ascii() || text.len() > 240 {
            continue;
        }
        return Some(text);
    }
    None
}

fn with_extra(comment: String, extra: &[String]) -> String {
    if extra.is_empty() {
        return comment;
    }
    let stop = if comment.ends_with(['.', '?']) { "" } else { "." };
    format!("{comment}{stop} {}", extra.join(" "))
}

fn call(cast: &Cast<'_>, entry: usize, scene: &mut Scene, rng: &mut impl Rng) -> (Pieces, Vec<String>) {
    let (arguments, extra) = arguments(cast, entry, scene, rng);
    let entry = &cast.entries[entry];
    let before = match (&scene.object, entry.api.kind) {
        (Some((object, _)), ApiKind::Method) => format!("{object}."),
        _ => scene.prefix.clone(),
    };
    let pieces = vec![
        (before, weight::CALL),
        (entry.name.clone(), weight::NAME),
        (format!("({arguments})"), weight::CALL),
    ];
    (pieces, extra)
}

/// The arguments of a call: variables that the scene gets, and values that the comment tells.
fn arguments(cast: &Cast<'_>, entry: usize, scene: &mut Scene, rng: &mut impl Rng) -> (String, Vec<String>) {
    let api = cast.entries[entry].api;
    let name_of =
        |parameter: &str| cast.parameters.get(parameter).cloned().unwrap_or_else(|| parameter.to_owned());
    let (mut given, mut extra) = (Vec::new(), Vec::new());
    let own_names = rng.random_bool(0.6);
    let by_name = rng.random_bool(0.12);
    for (i, parameter) in api.parameters.required().enumerate() {
        let name = name_of(&parameter.name);
        let by_name = parameter.way == Way::Name || (by_name && i >= api.parameters.position_only);
        let value = if rng.random_bool(0.35) {
            let value = values::literal(&parameter.name, rng);
            extra.push(values::mention(&name, &value, by_name, rng));
            value
        } else {
            let mut variable =
                if own_names { name.trim_matches('_').to_owned() } else { values::variable(rng) };
            let is_object =
                |variable: &str| scene.object.as_ref().is_some_and(|(object, _)| object == variable);
            while is_object(&variable) || given.contains(&variable) || super::names::is_keyword(&variable) {
                variable = format!("{}_{}", values::variable(rng), rng.random_range(1..4));
            }
            if !scene.variables.iter().any(|(known, _)| *known == variable) {
                scene.variables.push((variable.clone(), values::literal(&parameter.name, rng)));
            }
            variable
        };
        given.push(if by_name { format!("{name}={value}") } else { value });
    }
    let optional: Vec<_> = api.parameters.optional().collect();
    if rng.random_bool(0.3)
        && let Some(parameter) = optional.choose(rng)
    {
        let name = name_of(&parameter.name);
        let default = parameter.default.as_deref().unwrap_or_default();
        let value = match default {
            "True" => "False".to_owned(),
            "False" => "True".to_owned(),
            _ => values::literal(&parameter.name, rng),
        };
        if value.len() < 20 {
            extra.push(values::mention(&name, &value, true, rng));
            given.push(format!("{name}={value}"));
        }
    }
    (given.join(", "), extra)
}

fn uncapitalized(text: &str) -> String {
    let mut chars = text.chars();
    let second_is_lower = text.chars().nth(1).is_some_and(|c| c.is_lowercase() || c == ' ');
    match chars.next() {
        Some(first) if second_is_lower => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A function's name after what it does.
fn named_after(comment: &str) -> String {
    const SKIPPED: &[&str] = &[
        "how", "to", "the", "a", "an", "i", "we", "want", "need", "please", "now", "then", "first", "do",
        "can", "would", "like", "of",
    ];
    let words: Vec<String> = comment
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| word.len() > 1)
        .map(str::to_ascii_lowercase)
        .filter(|word| !SKIPPED.contains(&word.as_str()))
        .take(3)
        .collect();
    let name = words.join("_");
    if name.is_empty() || super::names::is_keyword(&name) { "solve".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::coder::library::shelves;
    use crate::pairs::ApiTable;
    use inhouse_core::ApiDoc;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn table() -> ApiTable {
        let verbs = [
            "gather", "split", "paint", "carry", "mend", "weigh", "polish", "stack", "rinse", "fold",
            "label", "trace",
        ];
        let things = ["threads", "pots", "letters", "wheels"];
        let apis = (0..48).map(|i| {
            let (verb, thing) = (verbs[i % 12], things[i / 12]);
            let kind = [ApiKind::Function, ApiKind::Method][i % 2];
            let owner = if kind == ApiKind::Method { "Cart." } else { "" };
            ApiDoc {
                name: format!("{verb}_{thing}"),
                qualified_name: format!("loom.{owner}{verb}_{thing}"),
                module: "loom".into(),
                kind: Some(kind),
                signature: "(rows, limit: int = 3, *, soft=False) -> Cart".into(),
                description: format!(
                    "{} the {thing} of deep_water beside river {i}.",
                    super::super::names::capitalized(verb)
                ),
                ..ApiDoc::default()
            }
        });
        ApiTable::new(apis.collect())
    }

    #[test]
    fn the_block_alone_has_the_name_and_the_comment_decides() {
        let table = table();
        let shelves = shelves(&table, &[], 100, &|_| true);
        let words = vec!["red".to_owned(), "tree".to_owned()];
        let maker = Maker::new(&shelves, &words, true);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut places = [0; 3];
        let mut made = 0;
        for _ in 0..600 {
            let Some(task) = maker.task(3, Size::Full, &mut rng) else { continue };
            made += 1;
            assert!(!task.prompt_no_api.contains(&task.name) && task.line.contains(&task.name), "{task:?}");
            assert!(task.document.text().starts_with(&format!("{}{}", task.prompt, task.line)));
            // No old name is left, neither in the block nor below it.
            let mut words = task.prompt.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            assert!(
                words.all(|word| word != "deep_water" && table.apis().iter().all(|api| api.name != word)),
                "{}",
                task.prompt
            );
            let lines: Vec<&str> = task.prompt.lines().skip(1).take(3).collect();
            let place = lines.iter().position(|line| line.starts_with(&format!("# {}(", task.name))).unwrap();
            places[place] += 1;
            let words = stems(&task.prompt_no_api);
            let shared = |line: &str| {
                stems(
                    line.split_once("): ").or_else(|| line.split_once("Cart: ")).map_or("", |(_, says)| says),
                )
                .intersection(&words)
                .count()
            };
            let best = (0..3).max_by_key(|&i| (shared(lines[i]), i == place)).unwrap();
            assert_eq!(best, place, "{}", task.prompt);
        }
        assert!(made > 200, "{made}");
        assert!(places.iter().all(|&count| count * 5 > made), "the right one is at any place: {places:?}");
    }

    #[test]
    fn names_weigh_and_prompts_end_at_cuts() {
        let table = table();
        let shelves = shelves(&table, &[], 100, &|_| true);
        let maker = Maker::new(&shelves, &[], false);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let texts: Vec<String> = (0..400)
            .filter_map(|_| maker.script(3, Size::Full, &mut rng))
            .map(|document| document.text().to_owned())
            .collect();
        assert!(texts.len() > 100 && texts.iter().any(|text| text.matches("\n# ").count() > 6));
        let tokenizer = crate::corpus::coder::tokenizer::train(&texts, 500).unwrap();
        let task = (0..50).find_map(|_| maker.task(1, Size::Full, &mut rng)).unwrap();
        let encoder = crate::corpus::coder::tokenizer::Encoder::new(tokenizer.clone(), true).unwrap();
        let (tokens, weights) = task.document.encode(&encoder).unwrap();
        assert_eq!((tokens.len(), *tokens.last().unwrap(), weights[0]), (weights.len(), 0, 0));
        let prompt = tokenizer.encode(task.prompt.as_str(), false).unwrap();
        let ids: Vec<u16> = prompt.get_ids().iter().map(|id| *id as u16).collect();
        assert_eq!(tokens[..ids.len()], ids, "what is generated goes on from the prompt's own tokens");
        let named: Vec<u32> = tokens
            .iter()
            .zip(&weights)
            .filter(|(_, w)| **w == weight::NAME)
            .map(|(id, _)| u32::from(*id))
            .collect();
        assert_eq!(tokenizer.decode(&named, false).unwrap().trim(), task.name);
    }
}
