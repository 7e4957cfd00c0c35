//! Ranks by steps: how far each rank is from its peers, so that it shows whether one, a host or all are concerned.

use std::fmt::Write as _;

use trainwarden_kernels::median_in_place;
use trainwarden_telemetry::Rank;

use super::line_plot::{Beside, moments, x_axis};
use super::svg::{LEFT, across, at, begin, text};
use super::trace::{Measured, Trace};

/// Ranks from which a map says more than lines.
const RANKS_MIN: usize = 4;
/// Columns at most: with 96 rows and seven shades a map stays below 200 KB.
const COLUMNS_MAX: usize = 120;
/// Shades on each side.
const SHADES: f32 = 6.0;
/// The shade of what is no number.
const STRANGE: i32 = i32::MAX;
/// A size that is so many times the usual one is darkest at least.
const NOISE_PALE: f64 = 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 32.0;

/// Draws the map of a trace; nothing where it has few ranks or they are all equal. With the size drawn darkest.
pub(super) fn heat_map(trace: &Trace, beside: &Beside<'_>, suspects: &[Rank]) -> Option<(String, f32)> {
    if trace.bins.len() < RANKS_MIN {
        return None;
    }
    let cells = cells(trace);
    let most = darkest(&cells)?;
    let height = (trace.bins.len() as f64 * 6.0).clamp(72.0, 192.0);
    let (row_height, column_width) = (height / trace.bins.len() as f64, (across(1.0) - LEFT) / COLUMNS_MAX as f64);
    let words = format!(
        "Rows are {} to {}, columns steps. Darkest is {}.",
        trace.bins[0].0,
        trace.bins[trace.bins.len() - 1].1,
        size_words(trace, most)
    );
    let mut svg =
        begin(beside.id, TOP + height + BOTTOM, &format!("{}: every rank against its peers", trace.name), &words);
    svg += &format!(
        "<rect class=\"field\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\"/>",
        at(across(1.0) - LEFT),
        at(height)
    );
    for (class, path) in shades(&cells, most, (row_height, column_width)) {
        let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    svg += &rank_labels(trace, suspects, row_height);
    svg += &x_axis(beside.window, TOP + height);
    svg += &moments(beside, TOP + height);
    Some((svg + "</svg>", most))
}

/// The size that is drawn darkest: the largest, or so many times the usual that noise alone stays pale.
fn darkest(cells: &[Vec<f32>]) -> Option<f32> {
    let finite = cells.iter().flatten().map(|value| value.abs()).filter(|size| size.is_finite());
    let mut sizes: Vec<f64> = finite.map(f64::from).collect();
    let is_strange = cells.iter().flatten().any(|value| value.is_infinite());
    let most = sizes.iter().copied().fold(0.0, f64::max);
    let usual = median_in_place(&mut sizes).unwrap_or(0.0);
    let darkest = most.max(NOISE_PALE * usual) as f32;
    (darkest > 0.0 || is_strange).then_some(darkest.max(f32::MIN_POSITIVE))
}

/// [rows of the map, columns]: the value farthest from the peers in each; NaN where nothing came.
fn cells(trace: &Trace) -> Vec<Vec<f32>> {
    let mut cells = vec![vec![f32::NAN; COLUMNS_MAX]; trace.bins.len()];
    for row in &trace.rows {
        let column = ((row.place * COLUMNS_MAX as f64) as usize).min(COLUMNS_MAX - 1);
        let values = if trace.is_absolute { &row.differences } else { &row.shares };
        for (cells, value) in cells.iter_mut().zip(values) {
            if cells[column].is_nan() || value.abs() > cells[column].abs() {
                cells[column] = *value;
            }
        }
    }
    // A step that is wider than a column is drawn over all it covers.
    let reach = COLUMNS_MAX.div_ceil(trace.rows.len().max(1));
    for row in &mut cells {
        let mut last = (f32::NAN, 0);
        for cell in row.iter_mut() {
            match cell.is_nan() {
                true if last.1 < reach => (*cell, last.1) = (last.0, last.1 + 1),
                true => {}
                false => last = (*cell, 0),
            }
        }
    }
    cells
}

/// One path a shade; cells side by side are one rectangle.
fn shades(cells: &[Vec<f32>], most: f32, (row_height, column_width): (f64, f64)) -> Vec<(String, String)> {
    let shade = |value: f32| match value {
        value if value.is_nan() => 0,
        value if value.is_infinite() => STRANGE,
        value => (value / most * SHADES).round() as i32,
    };
    let mut paths: std::collections::BTreeMap<i32, String> = std::collections::BTreeMap::new();
    for (place, row) in cells.iter().enumerate() {
        let mut begin = 0;
        for column in 1..=row.len() {
            if column < row.len() && shade(row[column]) == shade(row[begin]) {
                continue;
            }
            if shade(row[begin]) != 0 {
                let (x, y) = (LEFT + begin as f64 * column_width, TOP + place as f64 * row_height);
                let (width, height) = (at((column - begin) as f64 * column_width), at(row_height.max(0.5)));
                let path = paths.entry(shade(row[begin])).or_default();
                let _ = write!(path, "M{} {}h{width}v{height}h-{width}z", at(x), at(y));
            }
            begin = column;
        }
    }
    let class = |shade: i32| match shade {
        STRANGE => "strange".to_owned(),
        _ => shade_class(shade),
    };
    paths.into_iter().map(|(shade, path)| (class(shade), path)).collect()
}

fn shade_class(shade: i32) -> String {
    format!("{}{}", if shade > 0 { "up" } else { "down" }, shade.abs())
}

/// First, last and the suspects' rows by name.
fn rank_labels(trace: &Trace, suspects: &[Rank], row_height: f64) -> String {
    let mut svg = String::new();
    let middle = |bin: usize| TOP + (bin as f64 + 0.5) * row_height + 3.5;
    let mut taken: Vec<f64> = Vec::new();
    let suspicious = suspects
        .iter()
        .filter_map(|rank| Some((trace.bins.iter().position(|(first, last)| (*first..=*last).contains(rank))?, *rank)));
    let ends = [(0, trace.bins[0].0), (trace.bins.len() - 1, trace.bins[trace.bins.len() - 1].1)];
    let named = suspicious.map(|(bin, rank)| (bin, rank, "axis suspect"));
    for (bin, rank, class) in named.chain(ends.map(|(bin, rank)| (bin, rank, "axis"))) {
        let y = middle(bin);
        if taken.iter().all(|other| (other - y).abs() >= 11.0) {
            svg += &text((LEFT - 6.0, y), "end", class, &rank.to_string());
            taken.push(y);
        }
    }
    svg
}

/// A size of the map in words: as a share of the peers' median, or in the unit of the series.
pub(super) fn size_words(trace: &Trace, size: f32) -> String {
    match (trace.measured, trace.is_absolute) {
        (Measured::Differs, _) => "a replica that differs".to_owned(),
        (_, true) => format!("at {} from the median of the peers", super::svg::tick_label(f64::from(size))),
        (_, false) => format!("at {:.1} % from the median of the peers", 100.0 * size),
    }
}
