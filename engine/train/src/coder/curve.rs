//! The loss over a run, as a table and as a drawing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use inhouse_core::{Result, files};

/// Points of one run by step; a resumed run writes over what it did again.
#[derive(Debug, Default)]
pub struct Curve {
    points: BTreeMap<u64, Point>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Tokens read until then.
    pub tokens: u64,
    /// Weighted mean of the step in nats.
    pub loss: f64,
    /// The learning rate.
    pub rate: f64,
    /// The gradient's norm.
    pub norm: f64,
    /// Perplexity on held-out code with and without API lines, where it was measured.
    pub perplexity: Option<[f64; 2]>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 60.0;

impl Curve {
    /// Reads `curve.csv` up to a step, where there is one.
    pub fn read(path: &Path, up_to: u64) -> Self {
        let mut curve = Self::default();
        for line in files::read_text(path).unwrap_or_default().lines().skip(1) {
            let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
            let &[step, tokens, loss, rate, norm, with, without] = cells.as_slice() else { continue };
            if step >= 1.0 && step <= up_to as f64 && loss.is_finite() {
                let perplexity = (with.is_finite() && without.is_finite()).then_some([with, without]);
                curve.set(step as u64, Point { tokens: tokens as u64, loss, rate, norm, perplexity });
            }
        }
        curve
    }

    /// Adds or replaces a point.
    pub fn set(&mut self, step: u64, point: Point) {
        self.points.insert(step, point);
    }

    /// Adds perplexities to a step that is there.
    pub fn measured(&mut self, step: u64, perplexity: [f64; 2]) {
        if let Some(point) = self.points.get_mut(&step) {
            point.perplexity = Some(perplexity);
        }
    }

    /// Writes `curve.csv` and `curve.svg`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (csv, svg) = (self.csv(), self.svg());
        files::write_atomic(&folder.join("curve.csv"), |file| file.write_all(csv.as_bytes()))?;
        files::write_atomic(&folder.join("curve.svg"), |file| file.write_all(svg.as_bytes()))
    }

    fn csv(&self) -> String {
        let mut text = String::from("step,tokens,loss,rate,norm,perplexity,perplexity_no_api\n");
        for (step, Point { tokens, loss, rate, norm, perplexity }) in &self.points {
            let [with, without] =
                perplexity.map_or([String::new(), String::new()], |both| both.map(|p| format!("{p:.4}")));
            writeln!(text, "{step},{tokens},{loss:.6},{rate:.4e},{norm:.4},{with},{without}").ok();
        }
        text
    }

    /// Losses of steps, their mean over the last 50, and the logarithms of perplexities.
    fn svg(&self) -> String {
        let finite = || self.points.values().filter(|point| point.loss.is_finite());
        let last = finite().map(|point| point.tokens).max().unwrap_or(1).max(1) as f64;
        let measured = || self.points.values().filter_map(|point| Some((point.tokens, point.perplexity?)));
        let highest = finite().map(|point| point.loss).fold(1.0, f64::max).min(20.0);
        let x = |tokens: u64| MARGIN + tokens as f64 / last * (WIDTH - 2.0 * MARGIN);
        let y = |loss: f64| HEIGHT - MARGIN - (loss / highest).clamp(0.0, 1.0) * (HEIGHT - 2.0 * MARGIN);
        let line = |points: Vec<(u64, f64)>, color: &str, width: f64| {
            let mut path = String::new();
            for (tokens, loss) in points {
                write!(path, "{:.1},{:.1} ", x(tokens), y(loss)).ok();
            }
            format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>\n",
                path.trim_end()
            )
        };
        let steps: Vec<(u64, f64)> = finite().map(|point| (point.tokens, point.loss)).collect();
        let smooth = (0..steps.len())
            .map(|i| {
                let window = &steps[i.saturating_sub(49)..=i];
                (steps[i].0, window.iter().map(|(_, loss)| loss).sum::<f64>() / window.len() as f64)
            })
            .collect();
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        for i in 0..=4 {
            let loss = highest * f64::from(i) / 4.0;
            let (left, right, level) = (MARGIN, WIDTH - MARGIN, y(loss));
            writeln!(
                text,
                "<path d=\"M{left} {level:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>",
                left - 6.0,
                level + 4.0
            )
            .ok();
            let tokens = last * f64::from(i) / 4.0;
            writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.2} M</text>",
                x(tokens as u64),
                HEIGHT - MARGIN + 18.0,
                tokens / 1e6
            )
            .ok();
        }
        text += &line(steps, "#b8cbe6", 0.7);
        text += &line(smooth, "#1f5fbf", 1.6);
        text += &line(measured().map(|(tokens, both)| (tokens, both[0].ln())).collect(), "#2a9d4a", 1.6);
        text += &line(measured().map(|(tokens, both)| (tokens, both[1].ln())).collect(), "#c0392b", 1.6);
        for (i, (color, words)) in [
            ("#1f5fbf", "loss, weighted (nats), mean of 50 steps"),
            ("#2a9d4a", "held-out code below its API lines"),
            ("#c0392b", "the same code without them"),
        ]
        .iter()
        .enumerate()
        {
            writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{color}\">{words}</text>",
                WIDTH - MARGIN,
                MARGIN - 30.0 + 16.0 * i as f64
            )
            .ok();
        }
        writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">tokens</text>\n</svg>",
            WIDTH / 2.0,
            HEIGHT - 12.0
        )
        .ok();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut curve = Curve::default();
        for step in 1..=5u64 {
            let point = Point {
                tokens: step * 100,
                loss: 5.0 / step as f64,
                rate: 1e-3,
                norm: 1.0,
                perplexity: None,
            };
            curve.set(step, point);
        }
        curve.measured(4, [3.0, 6.0]);
        curve.write(folder.path()).unwrap();
        let again = Curve::read(&folder.path().join("curve.csv"), 4);
        assert_eq!(again.points.len(), 4);
        assert_eq!(again.points[&4].perplexity, Some([3.0, 6.0]));
        let svg = std::fs::read_to_string(folder.path().join("curve.svg")).unwrap();
        assert!(
            svg.starts_with("<svg")
                && svg.matches("<polyline").count() == 4
                && svg.trim_end().ends_with("</svg>")
        );
        assert!(Curve::default().svg().contains("</svg>"));
    }
}
