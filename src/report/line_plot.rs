//! A series as it went: the suspects, the median of their peers, and the band that holds nearly all of them.

use trainwarden_telemetry::{Evidence, Label};

use super::svg::{across, at, begin, polyline, text, tick_label, ticks};
use super::trace::{Measured, Trace, TraceRow};
use super::witness::Window;
use super::words::capitalised;
use crate::output::{counted, number};

const HEIGHT: f64 = 248.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 32.0;
/// Free room above and below the lines, as a part of their range.
const MARGIN: f64 = 0.06;
/// From such a factor between the largest and the smallest value on, powers of ten are told apart.
const LOGARITHMIC: f64 = 500.0;

/// A moment marked by an upright line.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) label: Label,
    pub(super) word: &'static str,
}

/// What is drawn beside the trace.
pub(super) struct Beside<'a> {
    pub(super) id: &'a str,
    pub(super) window: Window,
    pub(super) moments: &'a [Moment],
    /// The band of the evidence, where it is in the unit of the series.
    pub(super) band: Option<&'a Evidence>,
}

/// Values and where they lie.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(trace: &Trace, band: Option<(f64, f64)>) -> Option<Self> {
        let of_row = |row: &TraceRow| {
            let peers = [row.median, row.low, row.high];
            row.lines.iter().copied().chain(peers).filter(|value| value.is_finite()).map(f64::from).collect::<Vec<_>>()
        };
        let mut values: Vec<f64> = trace.rows.iter().flat_map(of_row).collect();
        values.extend(band.into_iter().flat_map(|(low, high)| [low, high]).filter(|value| value.is_finite()));
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        if low > 0.0 && high / low > LOGARITHMIC {
            return Some(Self { low: low.log10() - 0.1, high: high.log10() + 0.1, is_logarithmic: true });
        }
        let room = ((high - low) * MARGIN).max(high.abs() * 1e-3).max(1e-9);
        Some(Self { low: low - room, high: high + room, is_logarithmic: false })
    }

    fn down(&self, value: f64) -> f64 {
        let value = if self.is_logarithmic { value.max(f64::MIN_POSITIVE).log10() } else { value };
        let part = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.is_logarithmic {
            true => (self.low.ceil() as i32..=self.high.floor() as i32).map(|power| 10_f64.powi(power)).collect(),
            false => ticks(self.low, self.high),
        }
    }
}

/// Draws a trace; nothing where it has no number.
pub(super) fn line_plot(trace: &Trace, beside: &Beside<'_>) -> Option<String> {
    if trace.measured == Measured::Differs {
        return None;
    }
    let edges = beside.band.and_then(|evidence| Some((evidence.low?, evidence.high?)));
    let scale = Scale::of(trace, edges)?;
    let mut svg = begin(beside.id, HEIGHT, &title(trace), &description(trace));
    for value in scale.ticks() {
        let y = scale.down(value);
        svg += &format!("<path class=\"grid\" d=\"M{} {}H{}\"/>", at(across(0.0)), at(y), at(across(1.0)));
        svg += &text((across(0.0) - 6.0, y + 4.0), "end", "axis", &tick_label(value));
    }
    svg += &x_axis(beside.window, HEIGHT - BOTTOM);
    let upright =
        |row: &TraceRow, value: f32| value.is_finite().then(|| (across(row.place), scale.down(f64::from(value))));
    if let Some((low, high)) = edges {
        let (top, bottom) = (scale.down(high), scale.down(low));
        let (left, width) = (across(0.0), across(1.0) - across(0.0));
        svg += &format!(
            "<rect class=\"band\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            at(left),
            at(top),
            at(width),
            at((bottom - top).max(1.0))
        );
    }
    svg += &peers_band(trace, upright);
    let median = if trace.lines.is_empty() { "line run" } else { "median" };
    svg += &polyline(median, trace.rows.iter().map(|row| upright(row, row.median)));
    for line in 0..trace.lines.len() {
        let class = if trace.lines[line].is_none() { "line run".to_owned() } else { format!("line s{line}") };
        svg += &polyline(&class, trace.rows.iter().map(|row| upright(row, *row.lines.get(line)?)));
    }
    for row in trace.rows.iter().filter(|row| row.is_strange) {
        let x = across(row.place);
        svg += &format!("<path class=\"strange\" d=\"M{} {}l-4 -7h8z\"/>", at(x), at(TOP + 10.0));
    }
    svg += &moments(beside, HEIGHT - BOTTOM);
    Some(svg + "</svg>")
}

fn peers_band(trace: &Trace, upright: impl Fn(&TraceRow, f32) -> Option<(f64, f64)>) -> String {
    let upper = trace.rows.iter().filter_map(|row| upright(row, row.high));
    let lower = trace.rows.iter().rev().filter_map(|row| upright(row, row.low));
    let points: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{} {}", at(x), at(y))).collect();
    if points.len() < 4 { String::new() } else { format!("<path class=\"peers\" d=\"M{}z\"/>", points.join("L")) }
}

/// Steps, or the time since the begin, under a drawing.
pub(super) fn x_axis(window: Window, bottom: f64) -> String {
    let (from, to, name) = match window {
        Window::Steps(from, to) => (from as f64, to as f64, "step"),
        Window::Times(from, to) => (0.0, (to - from) as f64 / 60e9, "minutes"),
    };
    let mut svg = format!("<path class=\"frame\" d=\"M{} {}H{}\"/>", at(across(0.0)), at(bottom), at(across(1.0)));
    for value in ticks(from, to) {
        let x = across((value - from) / (to - from).max(1e-9));
        svg += &format!("<path class=\"frame\" d=\"M{} {}v4\"/>", at(x), at(bottom));
        if x < across(0.93) {
            svg += &text((x, bottom + 17.0), "middle", "axis", &format!("{value}"));
        }
    }
    svg + &text((across(1.0), bottom + 17.0), "end", "axis name", name)
}

/// Upright lines where the incident began, was found and ended.
pub(super) fn moments(beside: &Beside<'_>, bottom: f64) -> String {
    let mut placed: Vec<(f64, String)> = Vec::new();
    let mut svg = String::new();
    for moment in beside.moments {
        let Some(place) = beside.window.place(moment.label) else { continue };
        svg += &format!(
            "<path class=\"moment {}\" d=\"M{} {}V{}\"/>",
            moment.word,
            at(across(place)),
            at(TOP - 16.0),
            at(bottom)
        );
        match placed.last_mut().filter(|(last, _)| across(place) - across(*last) < 3.0) {
            Some((_, words)) => *words = format!("{words}, {}", moment.word),
            None => placed.push((place, moment.word.to_owned())),
        }
    }
    let mut taken = f64::NEG_INFINITY;
    for (place, words) in placed {
        let (x, is_right) = (across(place), place > 0.86);
        // Words that would run into the one before stand lower.
        let y = if x - taken < 70.0 { TOP - 5.0 } else { TOP - 18.0 };
        let (x, anchor) = if is_right { (x - 3.0, "end") } else { (x + 3.0, "start") };
        svg += &text((x, y), anchor, "axis word", &words);
        taken = across(place);
    }
    svg
}

/// What a trace shows, in a line.
pub(super) fn title(trace: &Trace) -> String {
    match trace.measured {
        Measured::Samples => trace.name.clone(),
        Measured::Waits => format!("seconds that members of {} wait in its calls", trace.name),
        Measured::Differs => format!("replicas of {} that differ from most", trace.name),
    }
}

/// The same in words, with the numbers of the row that stands out most.
pub(super) fn description(trace: &Trace) -> String {
    let rows = counted(trace.rows.len() as u64, "row");
    let who: Vec<String> = trace.lines.iter().flatten().take(3).map(ToString::to_string).collect();
    let who = match who.as_slice() {
        [] if trace.lines.is_empty() => "The median of the ranks".to_owned(),
        [] => "The whole run".to_owned(),
        named => capitalised(&named.join(", ")),
    };
    if trace.measured == Measured::Differs {
        let is_all = trace.lines.is_empty();
        let differs = |row: &&TraceRow| if is_all { &row.differences } else { &row.lines }.contains(&1.0);
        let many = trace.rows.iter().filter(differs).count();
        let who = if is_all { "Some rank" } else { &who };
        return format!("{who} differs from most of its replicas in {many} of {rows}.");
    }
    let of_row = |row: &TraceRow| if trace.lines.is_empty() { vec![row.median] } else { row.lines.clone() };
    let values: Vec<f32> = trace.rows.iter().flat_map(of_row).filter(|value| value.is_finite()).collect();
    let (Some(least), Some(most)) = (values.iter().copied().reduce(f32::min), values.iter().copied().reduce(f32::max))
    else {
        return format!("{who} has no number in {rows}.");
    };
    format!("{who} lies between {} and {} in {rows}.{}", tick(least), tick(most), farthest(trace))
}

/// The row in which the first suspect is farthest from its peers, in words.
fn farthest(trace: &Trace) -> String {
    let apart = |row: &TraceRow| row.lines.first().map_or(f32::NAN, |value| (value - row.median).abs());
    let rows = trace.rows.iter().filter(|row| apart(row).is_finite());
    let Some(row) = rows.max_by(|one, other| apart(one).total_cmp(&apart(other))) else { return String::new() };
    let (own, peers, many) = (tick(row.lines[0]), tick(row.median), trace.peers);
    format!(" Where it is farthest off, it is {own} and the median of its {many} peers is {peers}.")
}

fn tick(value: f32) -> String {
    let size = value.abs();
    if (1e-3..1_000.0).contains(&size) { number(f64::from(value)) } else { tick_label(f64::from(value)) }
}
