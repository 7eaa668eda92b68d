//! What stands around a call: imports, variables and an object above it, and the call with its arguments.

use inhouse_core::api::ApiKind;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::cast::Cast;
use super::{Maker, Size};
use crate::corpus::coder::document::weight;
use crate::corpus::coder::names::is_keyword;
use crate::corpus::coder::parameters::Way;
use crate::corpus::coder::values;

/// What stands above the comment.
#[derive(Default)]
pub(super) struct Scene {
    pub imports: Vec<String>,
    /// Before functions and classes: `alias.` or nothing.
    pub prefix: String,
    /// The object that methods are called on, and how it is made.
    pub object: Option<(String, String)>,
    /// Variables with their values, in order.
    pub variables: Vec<(String, String)>,
}

/// A call, in pieces of different weight.
pub(super) type Pieces = Vec<(String, u8)>;

impl Maker<'_> {
    /// Imports, and an object where a method is called; `called` are the entries that will be.
    pub(super) fn scene(&self, cast: &Cast<'_>, called: &[usize], size: Size, rng: &mut impl Rng) -> Scene {
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
}

impl Maker<'_> {
    /// Puts example calls below the lines of some tasks, as documentation shows them: on other objects and with other values.
    pub(super) fn show_examples(&self, cast: &mut Cast<'_>, rng: &mut impl Rng) {
        if self.examples == 0.0 || !rng.random_bool(self.examples) {
            return;
        }
        for i in 0..cast.entries.len() {
            for _ in 0..rng.random_range(0..=2) {
                let owner = cast.entries[i].api.owner.as_ref().and_then(|owner| cast.names.get(owner));
                let object = values::object(owner.map_or("Thing", String::as_str), rng);
                let mut scene = Scene { object: Some((object, String::new())), ..Scene::default() };
                let (pieces, _) = call(cast, i, &mut scene, rng);
                let call: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
                let result =
                    if rng.random_bool(0.3) { format!("{} = ", values::result(rng)) } else { String::new() };
                cast.entries[i].line.push_str(&format!("#   {result}{call}\n"));
            }
        }
    }
}

/// The call of an entry, and what the comment says of its arguments.
pub(super) fn call(
    cast: &Cast<'_>,
    entry: usize,
    scene: &mut Scene,
    rng: &mut impl Rng,
) -> (Pieces, Vec<String>) {
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
pub(super) fn arguments(
    cast: &Cast<'_>,
    entry: usize,
    scene: &mut Scene,
    rng: &mut impl Rng,
) -> (String, Vec<String>) {
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
            let (value, said) = values::told(&parameter.name, rng);
            extra.push(values::mention(&name, &said, by_name, rng));
            value
        } else {
            let mut variable =
                if own_names { name.trim_matches('_').to_owned() } else { values::variable(rng) };
            let is_object =
                |variable: &str| scene.object.as_ref().is_some_and(|(object, _)| object == variable);
            while is_object(&variable) || given.contains(&variable) || is_keyword(&variable) {
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

/// What is done with the result of a call in the same expression: written before it, written after it, and what the comment says.
pub(super) fn wrapped_result(rng: &mut impl Rng) -> (String, String, String) {
    let attribute = ATTRIBUTES.choose(rng).copied().unwrap_or("name");
    let number = rng.random_range(0..4);
    let ordinal = ["first", "second", "third", "fourth"][number];
    let mut all = vec![
        ("list(".to_owned(), ")".to_owned(), "Make a list of it.".to_owned()),
        ("list(".to_owned(), ")".to_owned(), "Give the result as a list.".to_owned()),
        ("len(".to_owned(), ")".to_owned(), "How many are there?".to_owned()),
        ("sorted(".to_owned(), ")".to_owned(), "Sort the result.".to_owned()),
        ("sum(".to_owned(), ")".to_owned(), "Add them all up.".to_owned()),
        ("not ".to_owned(), String::new(), "Tell whether the opposite holds.".to_owned()),
        (String::new(), format!("[{number}]"), format!("Take the {ordinal} of them.")),
        (String::new(), "[-1]".to_owned(), "Only the last one is needed.".to_owned()),
    ];
    // Attributes are the commonest, and are to be taken over from the comment.
    for says in ["Give only its {a}.", "What is its {a}?", "Return the {a} of it.", "Of that, take the {a}."]
    {
        all.push((String::new(), format!(".{attribute}"), says.replace("{a}", attribute)));
    }
    all.choose(rng).cloned().unwrap_or_default()
}

static ATTRIBUTES: &[&str] = &[
    "name", "size", "shape", "value", "label", "kind", "count", "start", "stop", "width", "height", "index",
    "title", "length", "owner", "parent", "values", "keys", "date", "year", "rows", "columns", "depth",
    "colour", "unit", "level", "state", "mode", "id", "path", "text", "weight",
];

/// The comment with sentences after it.
pub(super) fn with_extra(comment: String, extra: &[String]) -> String {
    if extra.is_empty() {
        return comment;
    }
    let stop = if comment.ends_with(['.', '?']) { "" } else { "." };
    format!("{comment}{stop} {}", extra.join(" "))
}
