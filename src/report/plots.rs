//! The plots of a report with their legends and captions, and the calls that did not complete.

use serde::Serialize;
use trainwarden_telemetry::{Evidence, Rank};

use super::case_file::CaseFile;
use super::heat_map::{heat_map, size_words};
use super::line_plot::{Beside, Moment, description, line_plot, title};
use super::timeline::moments;
use super::trace::{Measured, Trace};
use super::view::{list, shown};
use super::witness::{Stalled, Window};
use crate::output::counted;

/// One series: its line plot, its map, and what is written beside them.
#[derive(Debug, Serialize)]
pub(super) struct Plot {
    title: String,
    caption: String,
    lines: Vec<LegendView>,
    has_lines: bool,
    has_peers: bool,
    has_band: bool,
    pub(super) drawing: Option<String>,
    pub(super) map: Option<String>,
    map_caption: String,
}

/// One line of a plot by colour and name.
#[derive(Debug, Serialize)]
struct LegendView {
    class: String,
    name: String,
}

/// A call that did not complete.
#[derive(Debug, Serialize)]
pub(super) struct StalledView {
    call: u64,
    op: String,
    finished: usize,
    unfinished: String,
    missing: String,
}

/// The plots of a case, in the order of its evidence.
pub(super) fn plots(case: &CaseFile) -> Vec<Plot> {
    let Some(window) = case.sight.window else { return Vec::new() };
    let moments = moments(&case.incident);
    let suspects: Vec<Rank> = case.incident.suspects.iter().map(|suspect| suspect.rank).collect();
    let draw = |(number, trace): (usize, &Trace)| {
        let band = case.incident.evidence.iter().find(|evidence| is_band_of(evidence, trace));
        let of = |id: &str| (format!("plot{number}{id}"), window);
        let (line_id, map_id) = (of("a"), of("b"));
        let line = line_plot(trace, &beside(&line_id.0, line_id.1, &moments, band));
        let map = heat_map(trace, &beside(&map_id.0, map_id.1, &moments, None), &suspects);
        Plot::of(trace, line, map, band)
    };
    let plots = case.sight.traces.iter().enumerate().map(draw);
    plots.filter(|plot| plot.drawing.is_some() || plot.map.is_some()).collect()
}

fn beside<'a>(id: &'a str, window: Window, moments: &'a [Moment], band: Option<&'a Evidence>) -> Beside<'a> {
    Beside { id, window, moments, band }
}

/// True where the band of the evidence is in the unit of the series: that of the whole run.
fn is_band_of(evidence: &Evidence, trace: &Trace) -> bool {
    let is_whole = trace.lines == [None] && evidence.rank.is_none();
    let is_near = |low: f64, high: f64| {
        let values: Vec<f64> = trace.rows.iter().flat_map(|row| &row.lines).map(|value| f64::from(*value)).collect();
        values.iter().any(|value| (low..=high).contains(value))
    };
    let is_of = evidence.metric.as_str() == trace.name;
    is_whole && is_of && evidence.low.zip(evidence.high).is_some_and(|(low, high)| is_near(low, high))
}

impl Plot {
    fn of(trace: &Trace, drawing: Option<String>, map: Option<(String, f32)>, band: Option<&Evidence>) -> Self {
        let legend = |(place, line): (usize, &Option<Rank>)| match line {
            Some(rank) => LegendView { class: format!("s{place}"), name: rank.to_string() },
            None => LegendView { class: "run".to_owned(), name: "the whole run".to_owned() },
        };
        let strange = trace.rows.iter().filter(|row| row.is_strange).count();
        let mut caption = description(trace);
        if strange > 0 {
            caption.push_str(&format!(
                " NaN or infinite in {} (triangles; solid red in the map).",
                counted(strange as u64, "row")
            ));
        }
        let many = trace.bins.first().is_some_and(|(first, last)| first != last);
        let shared = if many { " A row stands for several ranks and shows the one farthest off." } else { "" };
        Self {
            title: shown(&title(trace)),
            caption: shown(&caption),
            lines: trace.lines.iter().enumerate().map(legend).collect(),
            has_lines: !trace.lines.is_empty(),
            has_peers: trace.peers > 0 && trace.measured != Measured::Differs,
            has_band: band.is_some(),
            drawing,
            map_caption: format!(
                "Every rank against the median of its peers: warm is above, cold below, darkest {}.{shared}",
                map.as_ref().map_or(String::new(), |(_, darkest)| size_words(trace, *darkest))
            ),
            map: map.map(|(drawing, _)| drawing),
        }
    }
}

impl StalledView {
    /// In words.
    pub(super) fn of(stalled: &Stalled) -> Self {
        let listed = |ranks: &[Rank]| list(ranks.iter().map(|rank| rank.0.to_string()).collect());
        Self {
            call: stalled.call,
            op: shown(&stalled.op),
            finished: stalled.finished,
            unfinished: listed(&stalled.unfinished),
            missing: listed(&stalled.missing),
        }
    }
}
