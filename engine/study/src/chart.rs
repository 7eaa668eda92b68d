//! Grouped bars with intervals, in small multiples, as SVG: the one kind of chart that a study needs.

use std::fmt::Write;

/// A chart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chart {
    /// Its heading, for those who do not see it.
    pub title: String,
    /// Names of the colours.
    pub series: Vec<String>,
    /// One coordinate system each.
    pub panels: Vec<Panel>,
}

/// One coordinate system: shares from 0 to 1 upwards, groups of bars to the right.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Panel {
    /// Its heading.
    pub title: String,
    /// Labels of the groups, at most two lines each.
    pub groups: Vec<String>,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One bar and its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// Its group's place in [`Panel::groups`].
    pub group: usize,
    /// Its place in [`Chart::series`].
    pub series: usize,
    /// Height.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// Where colours come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Palette {
    /// Fixed ones on white: a file of its own.
    Paper,
    /// The page's, light or dark: CSS variables `--ink`, `--faint`, `--line`, `--s0` to `--s7`.
    Page,
}

/// Colours that stay apart for those who see few of them (after Okabe and Ito), and their names on a page.
pub const COLOURS: [&str; 8] =
    ["#2f6fb3", "#e08b27", "#3f9e6f", "#b5518f", "#7a8590", "#c4483b", "#5fb3d9", "#a99018"];

const WIDTH: f64 = 880.0;
const GAP: f64 = 36.0;
const PLOT_HEIGHT: f64 = 190.0;
const AXIS: f64 = 44.0;
const PANEL_HEAD: f64 = 30.0;
const PANEL_FOOT: f64 = 48.0;
const LEGEND: f64 = 30.0;
/// A panel with more bars takes the whole width.
const BARS_OF_HALF: usize = 16;

impl Palette {
    fn fill(self, series: usize) -> String {
        let i = series % COLOURS.len();
        match self {
            Self::Paper => COLOURS[i].to_owned(),
            Self::Page => format!("var(--s{i})"),
        }
    }

    fn named(self, name: &str) -> &'static str {
        match (self, name) {
            (Self::Paper, "ink") => "#1d2329",
            (Self::Paper, "faint") => "#66707a",
            (Self::Paper, _) => "#dfe3e7",
            (Self::Page, "ink") => "var(--ink)",
            (Self::Page, "faint") => "var(--faint)",
            (Self::Page, _) => "var(--line)",
        }
    }
}

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self, palette: Palette) -> String {
        let narrow =
            self.panels.len() > 1 && self.panels.iter().all(|panel| panel.slots(self) <= BARS_OF_HALF);
        let columns = if narrow { 2 } else { 1 };
        let width = (WIDTH - GAP * (columns as f64 - 1.0)) / columns as f64;
        let panel_height = PANEL_HEAD + PLOT_HEIGHT + PANEL_FOOT;
        let top = if self.series.len() > 1 { LEGEND } else { 4.0 };
        let rows = self.panels.len().div_ceil(columns).max(1);
        let height = top + rows as f64 * (panel_height + 10.0);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             role=\"img\" font-family=\"'DejaVu Sans', 'Segoe UI', system-ui, sans-serif\" font-size=\"12\"><title>{}</title>",
            escaped(&self.title)
        );
        if palette == Palette::Paper {
            let _ = write!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" style=\"fill:#ffffff\"/>");
        }
        let mut draw = Drawing { out, palette };
        if self.series.len() > 1 {
            draw.legend(&self.series);
        }
        if self.panels.is_empty() {
            draw.text(WIDTH / 2.0, top + 40.0, "middle", "faint", "", "nothing is complete yet");
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let x = (i % columns) as f64 * (width + GAP);
            let y = top + (i / columns) as f64 * (panel_height + 10.0);
            draw.panel(panel, self.series.len(), x, y, width);
        }
        draw.out + "</svg>"
    }
}

impl Panel {
    /// Bars that would stand side by side if every group had all that it may have.
    fn slots(&self, chart: &Chart) -> usize {
        self.groups.len() * chart.series.len()
    }
}

struct Drawing {
    out: String,
    palette: Palette,
}

impl Drawing {
    fn text(&mut self, x: f64, y: f64, anchor: &str, colour: &str, more: &str, text: &str) {
        let fill = self.palette.named(colour);
        let _ = write!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more} style=\"fill:{fill}\">{}</text>",
            escaped(text)
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let stroke = self.palette.named(colour);
        let _ = write!(
            self.out,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" style=\"stroke:{stroke};stroke-width:{width}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn legend(&mut self, series: &[String]) {
        let mut x = AXIS;
        for (i, name) in series.iter().enumerate() {
            let fill = self.palette.fill(i);
            let _ = write!(
                self.out,
                "<rect x=\"{x:.1}\" y=\"5\" width=\"12\" height=\"12\" rx=\"3\" style=\"fill:{fill}\"/>"
            );
            self.text(x + 18.0, 15.5, "start", "ink", "", name);
            x += 18.0 + 7.4 * name.chars().count() as f64 + 22.0;
        }
    }

    fn panel(&mut self, panel: &Panel, n_series: usize, x: f64, y: f64, width: f64) {
        self.text(x, y + 17.0, "start", "ink", "font-size=\"14\" font-weight=\"600\"", &panel.title);
        let (left, right) = (x + AXIS, x + width);
        let (top, bottom) = (y + PANEL_HEAD, y + PANEL_HEAD + PLOT_HEIGHT);
        let highest = panel.bars.iter().map(|bar| bar.high.max(bar.value)).fold(0.0, f64::max);
        let step = step(highest);
        let most = (highest / step).ceil().max(1.0) * step;
        let height = |share: f64| bottom - (share.clamp(0.0, most) / most) * (PLOT_HEIGHT - 14.0);
        let mut tick = 0.0;
        while tick <= most + step / 2.0 {
            self.line((left, height(tick)), (right, height(tick)), "line", 1.0);
            let digits = if step < 0.01 { 1 } else { 0 };
            let label = format!("{:.digits$} %", 100.0 * tick);
            self.text(left - 8.0, height(tick) + 4.0, "end", "faint", "font-size=\"11\"", &label);
            tick += step;
        }
        let group_width = (right - left) / panel.groups.len().max(1) as f64;
        for (i, group) in panel.groups.iter().enumerate() {
            // Only the series that a group has take room in it.
            let mut bars: Vec<&Bar> = panel.bars.iter().filter(|bar| bar.group == i).collect();
            bars.sort_by_key(|bar| bar.series);
            let middle = left + group_width * (i as f64 + 0.5);
            let bar_width = (group_width * 0.78 / bars.len().max(1) as f64).min(46.0);
            let mut at = middle - bar_width * bars.len() as f64 / 2.0;
            for bar in bars {
                self.bar(bar, at, bar_width, bottom, &height, n_series);
                at += bar_width;
            }
            for (row, line) in group.lines().take(2).enumerate() {
                let (colour, size) = if row == 0 { ("ink", 12) } else { ("faint", 11) };
                let size = format!("font-size=\"{size}\"");
                self.text(middle, bottom + 18.0 + 15.0 * row as f64, "middle", colour, &size, line);
            }
        }
        self.line((left, bottom), (right, bottom), "faint", 1.0);
        debug_assert!(top < bottom);
    }

    fn bar(
        &mut self,
        bar: &Bar,
        x: f64,
        width: f64,
        bottom: f64,
        height: &dyn Fn(f64) -> f64,
        n_series: usize,
    ) {
        let top = height(bar.value);
        let fill = self.palette.fill(bar.series);
        let inner = (width - 2.0).max(1.0);
        let (colour, percent) = (self.palette.named("ink"), 100.0 * bar.value);
        let _ = write!(
            self.out,
            "<g><title>{percent:.1} % [{:.1}, {:.1}]</title><rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{inner:.1}\" \
             height=\"{:.1}\" rx=\"2\" style=\"fill:{fill}\"/>",
            100.0 * bar.low,
            100.0 * bar.high,
            x + 1.0,
            (bottom - top).max(0.0)
        );
        let middle = x + width / 2.0;
        if bar.high > bar.low {
            let (low, high) = (height(bar.low), height(bar.high));
            let cap = (width / 6.0).min(4.0);
            let _ = write!(
                self.out,
                "<path d=\"M{middle:.1} {low:.1}V{high:.1}M{:.1} {high:.1}h{:.1}M{:.1} {low:.1}h{:.1}\" \
                 style=\"stroke:{colour};stroke-width:1.2;fill:none\" opacity=\"0.75\"/>",
                middle - cap,
                2.0 * cap,
                middle - cap,
                2.0 * cap
            );
        }
        if width >= 24.0 || n_series == 1 {
            let label = format!("{percent:.1}");
            self.text(
                middle,
                height(bar.high.max(bar.value)) - 5.0,
                "middle",
                "ink",
                "font-size=\"11\"",
                &label,
            );
        }
        self.out.push_str("</g>");
    }
}

/// The distance of ticks that gives two to five of them.
fn step(highest: f64) -> f64 {
    let steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25];
    steps.into_iter().find(|step| highest <= step * 5.0).unwrap_or(0.25)
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

    fn chart(n_panels: usize) -> Chart {
        let bar = Bar { group: 0, series: 1, value: 0.4, low: 0.3, high: 0.5 };
        let panel = Panel {
            title: "a <b>".into(),
            groups: vec!["@1".into()],
            bars: vec![bar, Bar { series: 0, ..bar }],
        };
        Chart { title: "t".into(), series: vec!["x".into(), "y".into()], panels: vec![panel; n_panels] }
    }

    #[test]
    fn every_bar_is_drawn_and_text_is_text() {
        for (n_panels, palette) in [(1, Palette::Paper), (3, Palette::Page)] {
            let svg = chart(n_panels).svg(palette);
            assert_eq!(svg.matches("<g><title>40.0 % [30.0, 50.0]").count(), 2 * n_panels);
            assert!(svg.contains("a &lt;b&gt;") && !svg.contains("a <b>"));
            assert_eq!(svg.contains("var(--"), palette == Palette::Page);
            // Not one attribute holds what is no number.
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        let nothing = Chart::default().svg(Palette::Paper);
        assert!(nothing.contains("nothing is complete yet"));
    }

    #[test]
    fn ticks_fit_what_is_shown() {
        for (highest, expected) in [(0.0, 0.001), (0.02, 0.005), (0.4, 0.1), (0.74, 0.2), (1.0, 0.2)] {
            assert_eq!(step(highest), expected, "{highest}");
        }
        assert_eq!(escaped("a\u{1}&"), "a\u{fffd}&amp;");
    }
}
