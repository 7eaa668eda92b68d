//! Documentation that was read from source, held against the imported library: text and source from the one, names and
//! signatures from the other where they differ.

use std::collections::HashMap;

use inhouse_core::api::{ApiDoc, ApiKind};
use inhouse_core::decode::CancelToken;
use inhouse_core::docs::Documentation;
use inhouse_core::{Progress, Result, python};
use serde::Serialize;

use super::{ImportOptions, Said, ask};

/// Documentation after it was held against run time, and what differed.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// What holds.
    pub documentation: Documentation,
    /// Public names that the imported library has, inherited ones included.
    pub at_run_time: usize,
    /// Names that the source text does not show: added, with what run time says of them.
    pub missed_by_source: Vec<String>,
    /// Names in the source text that run time does not show, and that were kept: attributes of objects, modules that
    /// cannot be imported here.
    pub missed_by_run_time: Vec<String>,
    /// Names in the source text that do not exist: left out.
    pub absent: Vec<String>,
    /// Signatures that were corrected.
    pub signatures: Vec<Differing>,
}

/// A signature that source text and run time give differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// The dotted name.
    pub name: String,
    /// As the source text has it.
    pub source: String,
    /// As it is called.
    pub run_time: String,
}

/// Imports `library` in the sandbox, as [`super::read`] does, and corrects `documentation`, which was read from its source.
///
/// # Errors
/// As [`super::read`].
pub fn verify(
    documentation: Documentation,
    library: &str,
    options: &ImportOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Verified> {
    let root = format!("{}.", library.split('.').next().unwrap_or(library));
    let names = documentation.apis.iter().map(|api| api.qualified_name.as_str());
    let names: Vec<&str> = names.filter(|name| name.starts_with(&root)).collect();
    let said = ask(library, &names, options, cancel, progress)?;
    Ok(merged(documentation, said))
}

fn merged(documentation: Documentation, said: Said) -> Verified {
    let Said { documentation: run_time, mut asked, there, missing } = said;
    let mut found = Verified::default();
    // Records by all names that run time has them under; their own first.
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (at, api) in run_time.apis.iter().enumerate() {
        by_name.insert(&api.qualified_name, at);
    }
    for (at, api) in run_time.apis.iter().enumerate() {
        for alias in &api.aliases {
            by_name.entry(alias).or_insert(at);
        }
    }
    found.at_run_time = by_name.len();

    let mut matched = vec![false; run_time.apis.len()];
    let mut kept: Vec<ApiDoc> = Vec::with_capacity(documentation.apis.len());
    for mut api in documentation.apis {
        let own = by_name.get(api.qualified_name.as_str()).copied();
        let known = own.or_else(|| {
            // Under another of its names alone, unless its own is there as well, only not public.
            let elsewhere = !there.contains(&api.qualified_name) && !asked.contains_key(&api.qualified_name);
            elsewhere.then(|| api.aliases.iter().find_map(|alias| by_name.get(alias.as_str()).copied()))?
        });
        if let Some(at) = known {
            matched[at] = true;
            correct(&mut api, &run_time.apis[at], &mut found.signatures);
            if own.is_none() && missing.contains(&api.qualified_name) {
                rename(&mut api, &run_time.apis[at]);
            }
        } else if let Some(other) = asked.remove(&api.qualified_name) {
            correct(&mut api, &other, &mut found.signatures);
        } else if missing.contains(&api.qualified_name) {
            // An attribute of objects is not there before there is an object.
            let of_objects = matches!(api.kind, Some(ApiKind::Property | ApiKind::Constant))
                && api.qualified_name.rsplit_once('.').is_some_and(|(owner, _)| owner != api.module);
            if !of_objects {
                found.absent.push(api.qualified_name);
                continue;
            }
            found.missed_by_run_time.push(api.qualified_name.clone());
        } else if !there.contains(&api.qualified_name) && api.kind != Some(ApiKind::Module) {
            found.missed_by_run_time.push(api.qualified_name.clone());
        }
        kept.push(api);
    }
    inherited(&mut kept, &run_time.apis, &by_name, &mut matched);
    let mut added = Vec::new();
    for (api, _) in run_time.apis.into_iter().zip(matched).filter(|(_, matched)| !matched) {
        found.missed_by_source.push(api.qualified_name.clone());
        added.push(api);
    }
    found.documentation = Documentation { apis: placed(kept, added), ..documentation };
    found.documentation.skipped.extend(run_time.skipped);
    found
}

/// Takes over what run time knows better.
fn correct(api: &mut ApiDoc, run_time: &ApiDoc, differing: &mut Vec<Differing>) {
    if differs(&api.signature, &run_time.signature) {
        differing.push(Differing {
            name: api.qualified_name.clone(),
            source: api.signature.clone(),
            run_time: run_time.signature.clone(),
        });
        api.signature.clone_from(&run_time.signature);
    }
    if matches!(api.kind, None | Some(ApiKind::Constant))
        && matches!(run_time.kind, Some(ApiKind::Class | ApiKind::Function))
    {
        api.kind = run_time.kind;
    }
    if api.doc.is_empty() {
        api.doc.clone_from(&run_time.doc);
        api.description.clone_from(&run_time.description);
        api.examples.clone_from(&run_time.examples);
    }
    let names = std::iter::once(&run_time.qualified_name).chain(&run_time.aliases);
    let new: Vec<String> =
        names.filter(|name| **name != api.qualified_name && !api.aliases.contains(name)).cloned().collect();
    api.aliases.extend(new);
}

/// Gives a record whose own name does not exist the one that run time has for it.
fn rename(api: &mut ApiDoc, run_time: &ApiDoc) {
    api.aliases.retain(|alias| *alias != run_time.qualified_name);
    api.name.clone_from(&run_time.name);
    api.qualified_name.clone_from(&run_time.qualified_name);
    if !run_time.module.is_empty() {
        api.module.clone_from(&run_time.module);
    }
}

/// Settles the names that the source text gives to inherited members: where run time has a record of its own for one, that is
/// called differently, the name is that record's.
fn inherited(kept: &mut [ApiDoc], run_time: &[ApiDoc], by_name: &HashMap<&str, usize>, matched: &mut [bool]) {
    for api in kept {
        let ApiDoc { aliases, signature, .. } = api;
        aliases.retain(|alias| match by_name.get(alias.as_str()) {
            Some(&at) if !matched[at] && run_time[at].qualified_name == *alias => {
                let same = !differs(signature, &run_time[at].signature);
                matched[at] |= same;
                same
            }
            _ => true,
        });
    }
}

/// Whether two signatures take different arguments. Annotations and the text of defaults are the source's to tell, and
/// `(*args, **kwargs)` at run time, or nothing, tells less than any text.
fn differs(source: &str, run_time: &str) -> bool {
    let Some(called) = parameters(run_time) else { return false };
    let says_nothing = |one: &(String, char, bool)| matches!(one.1, 'r' | 'k');
    if !called.is_empty() && called.iter().all(says_nothing) && !source.is_empty() {
        return false;
    }
    parameters(source).is_none_or(|written| written != called)
}

/// Name, way of being given, and whether it may be left out, of every parameter.
fn parameters(signature: &str) -> Option<Vec<(String, char, bool)>> {
    python::read_signature(signature, |def, _| {
        let list = &def.parameters;
        let mut found = Vec::new();
        let ways = [(&list.posonlyargs, 'p'), (&list.args, 'a')];
        for (group, way) in ways {
            let each = group.iter().map(|one| (one.parameter.name.to_string(), way, one.default.is_some()));
            found.extend(each);
        }
        found.extend(list.vararg.iter().map(|one| (one.name.to_string(), 'r', true)));
        let named = list.kwonlyargs.iter();
        found.extend(named.map(|one| (one.parameter.name.to_string(), 'n', one.default.is_some())));
        found.extend(list.kwarg.iter().map(|one| (one.name.to_string(), 'k', true)));
        Some(found)
    })
}

/// Puts each added record behind the last of those that share its module or class.
fn placed(kept: Vec<ApiDoc>, added: Vec<ApiDoc>) -> Vec<ApiDoc> {
    let mut last: HashMap<String, usize> = HashMap::new();
    for (at, api) in kept.iter().enumerate() {
        // Itself, the classes around it, and its module.
        let mut path = api.qualified_name.as_str();
        last.insert(path.to_owned(), at);
        while let Some((owner, _)) =
            path.rsplit_once('.').filter(|(owner, _)| owner.len() >= api.module.len())
        {
            last.insert(owner.to_owned(), at);
            path = owner;
        }
    }
    let mut behind: Vec<Vec<ApiDoc>> = vec![Vec::new(); kept.len()];
    let mut rest = Vec::new();
    for api in added {
        let owner = api.qualified_name.rsplit_once('.').map_or("", |(owner, _)| owner);
        match last.get(owner) {
            Some(&at) => behind[at].push(api),
            None => rest.push(api),
        }
    }
    let in_place = kept.into_iter().zip(behind).flat_map(|(api, more)| std::iter::once(api).chain(more));
    in_place.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn api(name: &str, kind: ApiKind, signature: &str, doc: &str) -> ApiDoc {
        ApiDoc {
            name: name.rsplit('.').next().unwrap().into(),
            qualified_name: name.into(),
            module: "loom".into(),
            kind: Some(kind),
            signature: signature.into(),
            doc: doc.into(),
            description: doc.into(),
            ..ApiDoc::default()
        }
    }

    fn documentation(apis: Vec<ApiDoc>) -> Documentation {
        Documentation { apis, ..Documentation::default() }
    }

    #[test]
    fn text_from_the_source_and_truth_from_run_time() {
        let mut spin = api("loom.Thread.spin", ApiKind::Method, "(n: int)", "Spins.");
        spin.aliases = vec!["loom.Wool.spin".into(), "loom.Silk.spin".into()];
        let source = documentation(vec![
            api("loom", ApiKind::Module, "", "A loom."),
            api("loom.weave", ApiKind::Function, "(a: int, b: str = 'x') -> Cloth", "Weaves."),
            api("loom.knot", ApiKind::Function, "(a)", "Knots."),
            api("loom.wrap", ApiKind::Function, "(a, b)", "Wraps."),
            api("loom.gone", ApiKind::Function, "()", "On another system."),
            api("loom.quiet", ApiKind::Function, "(x)", "Not public."),
            api("loom.Thread", ApiKind::Class, "()", "A thread."),
            spin,
            api("loom.Thread.colour", ApiKind::Property, "", "Of an object."),
            api("loom.Thread.fray", ApiKind::Method, "()", "Never attached."),
        ]);
        let mut at_run_time = api("loom.Thread.spin", ApiKind::Method, "(n)", "");
        at_run_time.aliases = vec!["loom.Wool.spin".into()];
        let said = Said {
            documentation: documentation(vec![
                api("loom", ApiKind::Module, "", ""),
                api("loom.weave", ApiKind::Function, "(a, b=...)", "Other words."),
                api("loom.knot", ApiKind::Function, "(a, *, tight=False)", ""),
                api("loom.wrap", ApiKind::Function, "(*args, **kwargs)", ""),
                api("loom.made", ApiKind::Function, "(z)", "Made at run time."),
                api("loom.Thread", ApiKind::Class, "()", ""),
                at_run_time,
                api("loom.Silk.spin", ApiKind::Method, "(n, fine)", ""),
            ]),
            asked: [("loom.quiet".to_owned(), api("loom.quiet", ApiKind::Function, "(x, y)", ""))].into(),
            there: BTreeSet::new(),
            missing: ["loom.gone", "loom.Thread.colour", "loom.Thread.fray"].map(String::from).into(),
        };
        let got = merged(source, said);
        let listed: Vec<(&str, &str)> = got
            .documentation
            .apis
            .iter()
            .map(|api| (api.qualified_name.as_str(), api.signature.as_str()))
            .collect();
        assert_eq!(
            listed,
            [
                ("loom", ""),
                ("loom.weave", "(a: int, b: str = 'x') -> Cloth"),
                ("loom.knot", "(a, *, tight=False)"),
                ("loom.wrap", "(a, b)"),
                ("loom.quiet", "(x, y)"),
                ("loom.Thread", "()"),
                ("loom.Thread.spin", "(n: int)"),
                ("loom.Thread.colour", ""),
                ("loom.made", "(z)"),
                ("loom.Silk.spin", "(n, fine)"),
            ]
        );
        assert_eq!(got.documentation.apis[1].doc, "Weaves.");
        assert_eq!(got.documentation.apis[6].aliases, ["loom.Wool.spin"]);
        assert_eq!(got.at_run_time, 9);
        assert_eq!(got.missed_by_source, ["loom.made", "loom.Silk.spin"]);
        assert_eq!(got.absent, ["loom.gone", "loom.Thread.fray"]);
        assert_eq!(got.missed_by_run_time, ["loom.Thread.colour"]);
        let names: Vec<&str> = got.signatures.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["loom.knot", "loom.quiet"]);
    }

    #[test]
    fn a_name_that_only_another_path_has_is_that_one() {
        let mut moved = api("loom.core.weave", ApiKind::Function, "(a)", "Weaves.");
        moved.aliases = vec!["loom.weave".into()];
        let said = Said {
            documentation: documentation(vec![api("loom.weave", ApiKind::Function, "(a)", "")]),
            missing: ["loom.core.weave".to_owned()].into(),
            ..Said::default()
        };
        let got = merged(documentation(vec![moved]), said);
        assert_eq!(got.documentation.apis.len(), 1);
        assert_eq!(got.documentation.apis[0].qualified_name, "loom.weave");
        assert!(got.documentation.apis[0].aliases.is_empty() && got.missed_by_source.is_empty());
    }
}
