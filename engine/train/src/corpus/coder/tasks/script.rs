//! Tasks with several cursors: a script of comments and calls below one block.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::cast::{block, comment};
use super::scene::{call, with_extra};
use super::{Maker, Size, pick};
use crate::corpus::coder::document::{Document, weight};
use crate::corpus::coder::wording::wrapped;

impl Maker<'_> {
    /// Several comments and calls below one block.
    pub fn script(&self, n_apis: usize, size: Size, rng: &mut impl Rng) -> Option<Document> {
        let shelf = self.shelf(rng)?;
        let first = pick(shelf, size, rng)?;
        let mut apis = self.with_others(shelf, first, n_apis, size, rng)?;
        apis.shuffle(rng);
        let mut cast = self.cast(shelf, &apis, size, rng);
        self.show_examples(&mut cast, rng);
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
}
