//! Grouped bars with intervals, in small multiples: the one kind of chart that a study needs, as SVG and as PNG.
//!
//! A chart is rectangles, lines along the axes and text. So a PNG needs no renderer of SVG, only a font: a subset of DejaVu Sans
//! (`fonts/`) lies in the program, since a machine without a desktop has none.

mod png;
mod svg;

pub(crate) use svg::escaped;
pub use svg::{COLOURS, Palette};

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

/// Pixels of a PNG to one unit of a chart.
const PNG_SCALE: f32 = 2.0;
const WIDTH: f64 = 880.0;
/// White around a chart that is a file of its own.
const MARGIN: f64 = 16.0;
const GAP: f64 = 36.0;
const PLOT_HEIGHT: f64 = 190.0;
const AXIS: f64 = 44.0;
const PANEL_HEAD: f64 = 30.0;
const PANEL_FOOT: f64 = 48.0;
const LEGEND: f64 = 30.0;
/// A panel with more bars takes the whole width.
const BARS_OF_HALF: usize = 16;

/// What is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Text,
    Faint,
    Line,
    Series(usize),
}

/// Where a text stands beside its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is set.
#[derive(Debug, Clone, Copy)]
struct Type {
    ink: Ink,
    size: f64,
    bold: bool,
}

/// What a chart is drawn on. Coordinates go right and down; a text's point lies on its baseline.
trait Canvas {
    fn rect(&mut self, at: (f64, f64), size: (f64, f64), ink: Ink);
    /// A line along one of the axes.
    fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64);
    fn text(&mut self, at: (f64, f64), anchor: Anchor, kind: Type, text: &str);
    /// What is drawn until [`Canvas::close`] is called so.
    fn open(&mut self, title: &str);
    fn close(&mut self);
}

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self, palette: Palette) -> String {
        let layout = self.layout();
        let mut canvas = svg::Svg::new((WIDTH, layout.height), &self.title, palette);
        self.draw(&layout, &mut canvas);
        canvas.finish()
    }

    /// The chart as a PNG file, on white, two pixels to a unit.
    ///
    /// # Errors
    /// The font in the program cannot be read, or compression fails: neither happens.
    pub fn png(&self) -> inhouse_core::Result<Vec<u8>> {
        let layout = self.layout();
        let mut canvas = png::Pixels::new((WIDTH, layout.height), PNG_SCALE)?;
        self.draw(&layout, &mut canvas);
        canvas.finish()
    }

    fn layout(&self) -> Layout {
        let slots = |panel: &Panel| panel.groups.len() * self.series.len();
        let narrow = self.panels.len() > 1 && self.panels.iter().all(|panel| slots(panel) <= BARS_OF_HALF);
        let columns = if narrow { 2 } else { 1 };
        let top = if self.series.len() > 1 { LEGEND } else { 4.0 };
        let rows = self.panels.len().div_ceil(columns).max(1);
        let row_height = PANEL_HEAD + PLOT_HEIGHT + PANEL_FOOT + 10.0;
        let panel_width = (WIDTH - GAP * (columns as f64 - 1.0)) / columns as f64;
        Layout { columns, top, row_height, panel_width, height: top + rows as f64 * row_height }
    }

    fn draw(&self, layout: &Layout, canvas: &mut dyn Canvas) {
        if self.series.len() > 1 {
            legend(&self.series, canvas);
        }
        if self.panels.is_empty() {
            let kind = Type { ink: Ink::Faint, size: 12.0, bold: false };
            canvas.text((WIDTH / 2.0, layout.top + 40.0), Anchor::Middle, kind, "nothing is complete yet");
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let x = (i % layout.columns) as f64 * (layout.panel_width + GAP);
            let y = layout.top + (i / layout.columns) as f64 * layout.row_height;
            panel.draw((x, y), layout.panel_width, canvas);
        }
    }
}

struct Layout {
    columns: usize,
    top: f64,
    row_height: f64,
    panel_width: f64,
    height: f64,
}

fn legend(series: &[String], canvas: &mut dyn Canvas) {
    let mut x = AXIS;
    for (i, name) in series.iter().enumerate() {
        canvas.rect((x, 5.0), (12.0, 12.0), Ink::Series(i));
        canvas.text((x + 18.0, 15.5), Anchor::Start, Type { ink: Ink::Text, size: 12.0, bold: false }, name);
        x += 18.0 + 7.4 * name.chars().count() as f64 + 22.0;
    }
}

impl Panel {
    fn draw(&self, (x, y): (f64, f64), width: f64, canvas: &mut dyn Canvas) {
        canvas.text(
            (x, y + 17.0),
            Anchor::Start,
            Type { ink: Ink::Text, size: 14.0, bold: true },
            &self.title,
        );
        let (left, right, bottom) = (x + AXIS, x + width, y + PANEL_HEAD + PLOT_HEIGHT);
        let highest = self.bars.iter().map(|bar| bar.high.max(bar.value)).fold(0.01, f64::max);
        let step = step(highest);
        let n_steps = (highest / step).ceil().max(1.0);
        let most = n_steps * step;
        // Above the highest tick there is room for a label.
        let height = |share: f64| bottom - share.clamp(0.0, most) / most * (PLOT_HEIGHT - 14.0);
        for tick in (0..=n_steps as usize).map(|i| i as f64 * step) {
            canvas.line((left, height(tick)), (right, height(tick)), Ink::Line, 1.0);
            let digits = if step < 0.01 { 1 } else { 0 };
            let kind = Type { ink: Ink::Faint, size: 11.0, bold: false };
            canvas.text(
                (left - 8.0, height(tick) + 4.0),
                Anchor::End,
                kind,
                &format!("{:.digits$} %", 100.0 * tick),
            );
        }
        let group_width = (right - left) / self.groups.len().max(1) as f64;
        for (i, group) in self.groups.iter().enumerate() {
            // Only the series that a group has take room in it.
            let mut bars: Vec<&Bar> = self.bars.iter().filter(|bar| bar.group == i).collect();
            bars.sort_by_key(|bar| bar.series);
            let middle = left + group_width * (i as f64 + 0.5);
            let bar_width = (group_width * 0.78 / bars.len().max(1) as f64).min(46.0);
            let mut at = middle - bar_width * bars.len() as f64 / 2.0;
            for bar in bars {
                bar.draw((at, bottom), bar_width, &height, canvas);
                at += bar_width;
            }
            for (row, line) in group.lines().take(2).enumerate() {
                let (ink, size) = if row == 0 { (Ink::Text, 12.0) } else { (Ink::Faint, 11.0) };
                let at = (middle, bottom + 18.0 + 15.0 * row as f64);
                canvas.text(at, Anchor::Middle, Type { ink, size, bold: false }, line);
            }
        }
        canvas.line((left, bottom), (right, bottom), Ink::Faint, 1.0);
    }
}

impl Bar {
    fn draw(
        &self,
        (x, bottom): (f64, f64),
        width: f64,
        height: &dyn Fn(f64) -> f64,
        canvas: &mut dyn Canvas,
    ) {
        let Self { value, low, high, series, .. } = *self;
        canvas.open(&format!("{:.1} % [{:.1}, {:.1}]", 100.0 * value, 100.0 * low, 100.0 * high));
        let top = height(value);
        canvas.rect((x + 1.0, top), ((width - 2.0).max(1.0), (bottom - top).max(0.0)), Ink::Series(series));
        let middle = x + width / 2.0;
        if high > low {
            let cap = (width / 6.0).min(4.0);
            canvas.line((middle, height(low)), (middle, height(high)), Ink::Text, 1.2);
            for end in [low, high] {
                canvas.line((middle - cap, height(end)), (middle + cap, height(end)), Ink::Text, 1.2);
            }
        }
        if width >= 24.0 {
            let at = (middle, height(high.max(value)) - 5.0);
            let kind = Type { ink: Ink::Text, size: 11.0, bold: false };
            canvas.text(at, Anchor::Middle, kind, &format!("{:.1}", 100.0 * value));
        }
        canvas.close();
    }
}

/// The distance of ticks that gives two to five of them.
fn step(highest: f64) -> f64 {
    let steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25];
    steps.into_iter().find(|step| highest <= step * 5.0).unwrap_or(0.25)
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
    fn a_png_shows_the_same() {
        let png = chart(2).png().unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        assert_eq!(&png[12..16], b"IHDR");
        assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 1824);
        assert!(png.ends_with(b"IEND\xae\x42\x60\x82"));
        assert_eq!(png, chart(2).png().unwrap());
        assert_ne!(png, Chart::default().png().unwrap());
    }

    #[test]
    fn ticks_fit_what_is_shown() {
        for (highest, expected) in [(0.0, 0.001), (0.02, 0.005), (0.4, 0.1), (0.74, 0.2), (1.0, 0.2)] {
            assert_eq!(step(highest), expected, "{highest}");
        }
    }
}
