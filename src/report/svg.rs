//! Pieces of the drawings: escaped text, scales, ticks.

use std::fmt::Write as _;

use minijinja::HtmlEscape;

/// Width of a drawing in its own units; a screen scales it.
pub(super) const WIDTH: f64 = 720.0;
/// Room for the labels of the vertical axis.
pub(super) const LEFT: f64 = 66.0;
const RIGHT: f64 = 14.0;
/// Ticks of an axis, about.
const TICKS: f64 = 5.0;

/// Text from outside, safe inside a drawing.
pub(super) fn escaped(text: &str) -> String {
    // Marks that steer a terminal or turn the line around are shown and not obeyed.
    HtmlEscape(&crate::output::printable(text)).to_string()
}

/// A coordinate, to a tenth: shorter than a dot of any screen.
pub(super) fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Where a place of the window, 0 to 1, lies in a drawing.
pub(super) fn across(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

/// The begin of a drawing: what it shows, for whoever cannot see it.
pub(super) fn begin(id: &str, height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title>\
         <desc id=\"{id}-d\">{}</desc>",
        at(height),
        escaped(title),
        escaped(description)
    )
}

/// Round numbers inside a range, ascending.
pub(super) fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let rough = span / TICKS;
    let unit = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|size| size * unit).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|number| number as f64 * step).collect()
}

/// A number of an axis: short, with the letter of its thousands.
pub(super) fn tick_label(value: f64) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (unit, letter) = units.into_iter().find(|(unit, _)| value.abs() >= *unit).unwrap_or((1.0, ""));
    let scaled = value / unit;
    if scaled != 0.0 && scaled.abs() < 1e-3 {
        return format!("{scaled:.0e}");
    }
    let text = format!("{scaled:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{letter}", if text == "-0" { "0" } else { text })
}

/// A line through points, broken where one is missing.
pub(super) fn polyline(class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let (mut path, mut is_open) = (String::new(), false);
    for point in points {
        if let Some((x, y)) = point {
            let _ = write!(path, "{}{} {}", if is_open { 'L' } else { 'M' }, at(x), at(y));
        }
        is_open = point.is_some();
    }
    if path.is_empty() { path } else { format!("<path class=\"{class}\" d=\"{path}\"/>") }
}

/// A text in a drawing; `anchor` is `start`, `middle` or `end`.
pub(super) fn text((x, y): (f64, f64), anchor: &str, class: &str, words: &str) -> String {
    format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        at(x),
        at(y),
        escaped(words)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(93.0, 131.0), [100.0, 110.0, 120.0, 130.0]);
        assert_eq!(ticks(2.0, 2.0), [2.0]);
        assert_eq!([1.755e9, 0.25, 0.0, 12_000.0, 1e-5].map(tick_label), ["1.755G", "0.25", "0", "12k", "1e-5"]);
    }

    #[test]
    fn text_from_outside_is_no_markup() {
        assert_eq!(escaped("<script>\"&'\u{202e}"), "&lt;script&gt;&quot;&amp;&#x27;\\u{202e}");
        assert!(!text((0.0, 0.0), "start", "axis", "</text><script>").contains("<script>"));
    }

    #[test]
    fn a_line_breaks_where_a_point_is_missing() {
        let line = polyline("s0", [Some((0.0, 1.0)), Some((1.0, 1.0)), None, Some((3.0, 1.25))].into_iter());
        assert_eq!(line, "<path class=\"s0\" d=\"M0 1L1 1M3 1.2\"/>");
        assert_eq!(polyline("s0", [None].into_iter()), "");
    }
}
