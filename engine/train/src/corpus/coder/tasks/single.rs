//! Tasks with one cursor: a comment asks for one API of the block.

use inhouse_core::api::ApiKind;
use rand::Rng;
use rand::seq::SliceRandom;

use super::cast::{block, comment};
use super::scene::{Scene, arguments, call, with_extra, wrapped_result};
use super::{Maker, Size, Task, pick};
use crate::corpus::coder::document::{Document, weight};
use crate::corpus::coder::names::is_keyword;
use crate::corpus::coder::values;
use crate::corpus::coder::wording::wrapped;

impl Maker<'_> {
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
        let mut cast = self.cast(shelf, &apis, size, rng);
        self.show_examples(&mut cast, rng);
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
        // The result is used at once: within another call, or a part of it.
        if !self.names.held_out && rng.random_bool(0.3) {
            let outer = cast.entries.iter().enumerate().position(|(i, entry)| {
                i != golden
                    && entry.api.kind == ApiKind::Function
                    && entry.api.parameters.required().count() == 1
            });
            match outer.filter(|_| second.is_none() && rng.random_bool(0.5)) {
                Some(outer) => {
                    let wish = self::comment(&cast, outer, rng)?;
                    comment = match rng.random_range(0..2) {
                        0 => format!(
                            "{}, and with that: {}",
                            comment.trim_end_matches(['.', '?']),
                            uncapitalized(&wish)
                        ),
                        _ => {
                            format!("{}. Then {}", comment.trim_end_matches(['.', '?']), uncapitalized(&wish))
                        }
                    };
                    call.insert(0, (scene.prefix.clone(), weight::CALL));
                    call.insert(1, (cast.entries[outer].name.clone(), weight::NAME));
                    call.insert(2, ("(".into(), weight::CALL));
                    call.push((")".into(), weight::CALL));
                }
                None => {
                    let (before, after, says) = wrapped_result(rng);
                    call.insert(0, (before, weight::CALL));
                    call.push((after, weight::CALL));
                    extra.push(says);
                }
            }
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
            // Some prompts end in the indentation of the line that is due.
            if !self.names.held_out && rng.random_bool(0.2) {
                context.push_str(if rng.random_bool(0.5) { "    " } else { "\n    " });
                return (context, "return ".into(), "\n".into());
            }
            if !self.names.held_out && rng.random_bool(0.3) {
                context.push('\n');
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
    if name.is_empty() || is_keyword(&name) { "solve".into() } else { name }
}
