//! The few shapes that the pictures are made of.

use std::fmt::Write;

/// The colour of lines and of less important text.
pub(crate) const GREY: &str = "#888";
/// The colour of outlines and of what the reader should look at first.
pub(crate) const BLUE: &str = "#05a";
/// The fill of boxes.
pub(crate) const PALE_BLUE: &str = "#eef4fa";

/// A picture with a white background, so that it is legible on a dark page.
pub(crate) struct Svg(String);

/// Where a text is relative to its point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        ))
    }

    /// Adds an element as it is.
    pub(crate) fn raw(&mut self, element: &str) {
        let _ = writeln!(self.0, "{element}");
    }

    /// Adds a filled rectangle without an outline.
    pub(crate) fn bar(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: &str) {
        self.raw(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        ));
    }

    /// Adds an outlined box with rounded corners and a text in its middle.
    pub(crate) fn labelled_box(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), text: &str) {
        self.raw(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" \
             fill=\"{PALE_BLUE}\" stroke=\"{BLUE}\"/>"
        ));
        self.text((x + width / 2.0, y + height / 2.0 + 5.0), Anchor::Middle, text);
    }

    /// Adds a line of text. The point is on its baseline.
    pub(crate) fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str) {
        self.styled_text(at, anchor, "", text);
    }

    /// Adds a line of text with further attributes.
    pub(crate) fn styled_text(&mut self, (x, y): (f64, f64), anchor: Anchor, style: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let space = if style.is_empty() { "" } else { " " };
        self.raw(&format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{space}{style}>{text}</text>"));
    }

    /// Adds a straight line with further attributes.
    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        self.raw(&format!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"{GREY}\" {style}/>"
        ));
    }

    pub(crate) fn finish(self) -> String {
        self.0 + "</svg>\n"
    }
}
