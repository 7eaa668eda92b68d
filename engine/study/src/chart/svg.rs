//! Charts as SVG.

use std::fmt::Write;

use super::{Anchor, Canvas, Ink, MARGIN, Type};

/// Where colours come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    /// Fixed ones on white: a file of its own.
    Paper,
    /// The page's, light or dark: CSS variables `--ink`, `--faint`, `--line`, `--s0` to `--s7`.
    Page,
}

/// Colours of series that stay apart for those who see few of them (after Okabe and Ito).
pub const COLOURS: [[u8; 3]; 8] = [
    [0x2f, 0x6f, 0xb3],
    [0xe0, 0x8b, 0x27],
    [0x3f, 0x9e, 0x6f],
    [0xb5, 0x51, 0x8f],
    [0x7a, 0x85, 0x90],
    [0xc4, 0x48, 0x3b],
    [0x5f, 0xb3, 0xd9],
    [0xa9, 0x90, 0x18],
];

/// The colour of an ink on white.
pub(super) fn on_paper(ink: Ink) -> [u8; 3] {
    match ink {
        Ink::Text => [0x1d, 0x23, 0x29],
        Ink::Faint => [0x66, 0x70, 0x7a],
        Ink::Line => [0xdf, 0xe3, 0xe7],
        Ink::Series(i) => COLOURS[i % COLOURS.len()],
    }
}

pub(super) struct Svg {
    out: String,
    palette: Palette,
}

impl Svg {
    pub fn new((width, height): (f64, f64), title: &str, palette: Palette) -> Self {
        let margin = if palette == Palette::Paper { MARGIN } else { 0.0 };
        let (x, width, height) = (-margin, width + 2.0 * margin, height + 2.0 * margin);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{x} {x} {width} {height}\" width=\"{width}\" height=\"{height}\" \
             role=\"img\" font-family=\"'DejaVu Sans', 'Segoe UI', system-ui, sans-serif\"><title>{}</title>",
            escaped(title)
        );
        if palette == Palette::Paper {
            let _ = write!(
                out,
                "<rect x=\"{x}\" y=\"{x}\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
            );
        }
        Self { out, palette }
    }

    pub fn finish(self) -> String {
        self.out + "</svg>"
    }

    fn colour(&self, ink: Ink) -> String {
        match (self.palette, ink) {
            (Palette::Paper, _) => {
                let [r, g, b] = on_paper(ink);
                format!("#{r:02x}{g:02x}{b:02x}")
            }
            (Palette::Page, Ink::Text) => "var(--ink)".into(),
            (Palette::Page, Ink::Faint) => "var(--faint)".into(),
            (Palette::Page, Ink::Line) => "var(--line)".into(),
            (Palette::Page, Ink::Series(i)) => format!("var(--s{})", i % COLOURS.len()),
        }
    }
}

impl Canvas for Svg {
    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), ink: Ink) {
        let fill = self.colour(ink);
        let _ = write!(
            self.out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" style=\"fill:{fill}\"/>"
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        let stroke = self.colour(ink);
        let _ = write!(
            self.out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" style=\"stroke:{stroke};stroke-width:{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, kind: Type, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if kind.bold { " font-weight=\"600\"" } else { "" };
        let (fill, size) = (self.colour(kind.ink), kind.size);
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\"{weight} style=\"fill:{fill}\">{}</text>",
            escaped(text)
        );
    }

    fn open(&mut self, title: &str) {
        let _ = write!(self.out, "<g><title>{}</title>", escaped(title));
    }

    fn close(&mut self) {
        self.out.push_str("</g>");
    }
}

/// A text in XML or HTML.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not to be had in XML at all.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("a\u{1}&<\"'"), "a\u{fffd}&amp;&lt;&quot;&#39;");
    }
}
