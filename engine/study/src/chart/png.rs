//! Charts as PNG.

use std::io::Write;

use ab_glyph::{Font, FontRef, ScaleFont, point};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use inhouse_core::{Error, ErrorKind, Result};

use super::svg::on_paper;
use super::{Anchor, Canvas, Ink, MARGIN, Type};

const REGULAR: &[u8] = include_bytes!("../../fonts/DejaVuSans.subset.ttf");
const BOLD: &[u8] = include_bytes!("../../fonts/DejaVuSans-Bold.subset.ttf");

/// A picture of 8-bit RGB, white at first. Edges are as soft as the pixels that they cover in part.
pub(super) struct Pixels {
    width: usize,
    height: usize,
    scale: f32,
    rgb: Vec<u8>,
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

impl Pixels {
    pub fn new((width, height): (f64, f64), scale: f32) -> Result<Self> {
        let font = |bytes| {
            FontRef::try_from_slice(bytes).map_err(|cause| {
                Error::with_source(ErrorKind::Internal, "the font of charts is damaged", cause)
            })
        };
        let [width, height] =
            [width, height].map(|length| ((length + 2.0 * MARGIN) as f32 * scale).ceil() as usize);
        let rgb = vec![0xff; width * height * 3];
        Ok(Self { width, height, scale, rgb, regular: font(REGULAR)?, bold: font(BOLD)? })
    }

    /// The picture as a file (RFC 2083): a header, the rows as one stream of zlib, the end.
    pub fn finish(self) -> Result<Vec<u8>> {
        let compress = || {
            let mut rows = ZlibEncoder::new(Vec::new(), Compression::best());
            for row in self.rgb.chunks(self.width * 3) {
                // Filter 0: the bytes as they are.
                rows.write_all(&[0])?;
                rows.write_all(row)?;
            }
            rows.finish()
        };
        let rows: Vec<u8> = compress().map_err(|cause: std::io::Error| {
            Error::with_source(ErrorKind::Internal, "cannot compress a chart", cause)
        })?;
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        // 8 bits, RGB, the only compression, the only filters, not interlaced.
        header.extend([8, 2, 0, 0, 0]);
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in [(b"IHDR", header.as_slice()), (b"IDAT", &rows), (b"IEND", &[])] {
            out.extend((data.len() as u32).to_be_bytes());
            let start = out.len();
            out.extend(kind);
            out.extend(data);
            out.extend(crc32fast::hash(&out[start..]).to_be_bytes());
        }
        Ok(out)
    }

    /// A coordinate in pixels.
    fn place(&self, coordinate: f64) -> f32 {
        (coordinate + MARGIN) as f32 * self.scale
    }

    fn mix(&mut self, x: usize, y: usize, colour: [u8; 3], coverage: f32) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        for (pixel, ink) in self.rgb[at..at + 3].iter_mut().zip(colour) {
            let mixed = f32::from(*pixel) + (f32::from(ink) - f32::from(*pixel)) * coverage.clamp(0.0, 1.0);
            *pixel = mixed.round() as u8;
        }
    }

    /// Fills a rectangle given in pixels.
    fn fill(&mut self, left: f32, top: f32, right: f32, bottom: f32, ink: Ink) {
        let colour = on_paper(ink);
        // How much of pixel `i` lies between two borders.
        let covered = |i: usize, from: f32, to: f32| (to.min(i as f32 + 1.0) - from.max(i as f32)).max(0.0);
        for y in top.max(0.0) as usize..(bottom.max(0.0).ceil() as usize).min(self.height) {
            for x in left.max(0.0) as usize..(right.max(0.0).ceil() as usize).min(self.width) {
                self.mix(x, y, colour, covered(x, left, right) * covered(y, top, bottom));
            }
        }
    }
}

impl Canvas for Pixels {
    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), ink: Ink) {
        let [left, top] = [x, y].map(|length| self.place(length));
        let [width, height] = [width, height].map(|length| length as f32 * self.scale);
        self.fill(left, top, left + width, top + height, ink);
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), ink: Ink, width: f64) {
        let half = width as f32 * self.scale / 2.0;
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(|length| self.place(length));
        let (across, along) = if (x1 - x2).abs() < (y1 - y2).abs() { (half, 0.0) } else { (0.0, half) };
        self.fill(x1.min(x2) - across, y1.min(y2) - along, x1.max(x2) + across, y1.max(y2) + along, ink);
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, kind: Type, text: &str) {
        let font = if kind.bold { self.bold.clone() } else { self.regular.clone() };
        // CSS sizes are those of the em, ab_glyph's those of a line.
        let em = font.units_per_em().unwrap_or(2048.0);
        let font = font.as_scaled(kind.size as f32 * self.scale * font.height_unscaled() / em);
        let width: f32 = text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum();
        let share = match anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => 0.5,
            Anchor::End => 1.0,
        };
        let (mut pen, baseline) = (self.place(x) - share * width, self.place(y));
        let colour = on_paper(kind.ink);
        for c in text.chars() {
            let id = font.glyph_id(c);
            let glyph = id.with_scale_and_position(font.scale(), point(pen, baseline));
            pen += font.h_advance(id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| {
                let (px, py) = (corner.x + dx as f32, corner.y + dy as f32);
                if px >= 0.0 && py >= 0.0 {
                    self.mix(px as usize, py as usize, colour, coverage);
                }
            });
        }
    }

    fn open(&mut self, _title: &str) {}

    fn close(&mut self) {}
}
