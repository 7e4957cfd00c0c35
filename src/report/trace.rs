//! One series around an incident, small enough to draw: lines of the suspects, the band of their peers, and how far
//! each rank is from its peers.

use std::collections::BTreeMap;

use trainwarden_kernels::{median_in_place, quantile};
use trainwarden_telemetry::{Label, Rank, Roster};

/// Rows kept: two of a screen's dots each.
const ROWS_MAX: usize = 1_200;
/// Rows of a heat map; of more ranks several share one, and the one farthest from its peers is shown.
const BINS_MAX: usize = 96;
/// The part of the peers that the band holds.
const BAND: (f64, f64) = (0.01, 0.99);

/// A value and who logged it; no rank where it is the whole run's.
pub(super) type Cell = (Option<Rank>, f32);

/// What the numbers of a trace are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measured {
    /// Samples of a metric, in its unit.
    Samples,
    /// Seconds that members waited in calls of a communicator.
    Waits,
    /// 1 where the fingerprint of a rank differs from that of most of its replicas, 0 where not.
    Differs,
}

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) name: String,
    pub(super) measured: Measured,
    /// Whose lines are drawn; one line without a rank where the series is of the whole run.
    pub(super) lines: Vec<Option<Rank>>,
    pub(super) rows: Vec<TraceRow>,
    /// Ranks beside the suspects that the band is made of, at most.
    pub(super) peers: usize,
    /// First and last rank of each row of the heat map.
    pub(super) bins: Vec<(Rank, Rank)>,
    bin_of: BTreeMap<Rank, usize>,
    /// Some peers' median is not above zero: differences are no shares of it.
    pub(super) is_absolute: bool,
}

/// One row of a trace, or several that are drawn in one place.
#[derive(Clone, Debug)]
pub(super) struct TraceRow {
    pub(super) label: Label,
    /// Where it lies in the window, 0 to 1.
    pub(super) place: f64,
    /// Values of the lines; NaN = absent.
    pub(super) lines: Vec<f32>,
    /// Median and band of the peers; NaN where there are none.
    pub(super) median: f32,
    pub(super) low: f32,
    pub(super) high: f32,
    /// A NaN or an infinity was logged.
    pub(super) is_strange: bool,
    /// By row of the heat map, infinite where a NaN or an infinity was logged: difference from the peers' median, and the same as a share of it.
    pub(super) differences: Vec<f32>,
    pub(super) shares: Vec<f32>,
}

impl Trace {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            measured: Measured::Samples,
            lines: Vec::new(),
            rows: Vec::new(),
            peers: 0,
            bins: Vec::new(),
            bin_of: BTreeMap::new(),
            is_absolute: false,
        }
    }

    /// Takes in the cells of a row.
    ///
    /// * `at`: its label and its place in the window.
    /// * `who`: the ranks with lines of their own, and who is whose peer.
    pub(super) fn add(&mut self, at: (Label, f64), measured: Measured, cells: &[Cell], who: (&[Rank], &Roster)) {
        if cells.is_empty() {
            return;
        }
        let row = match cells {
            [(None, value)] => self.whole_run_row(at, *value),
            _ => self.ranks_row(at, cells, who),
        };
        self.measured = measured;
        let column = |place: f64| (place * ROWS_MAX as f64) as usize;
        match self.rows.last_mut().filter(|last| column(last.place) == column(row.place)) {
            Some(last) => last.merge(&row),
            None => self.rows.push(row),
        }
    }

    fn whole_run_row(&mut self, (label, place): (Label, f64), value: f32) -> TraceRow {
        self.lines = vec![None];
        TraceRow {
            label,
            place,
            lines: vec![if value.is_finite() { value } else { f32::NAN }],
            median: f32::NAN,
            low: f32::NAN,
            high: f32::NAN,
            is_strange: !value.is_finite(),
            differences: Vec::new(),
            shares: Vec::new(),
        }
    }

    fn ranks_row(
        &mut self,
        (label, place): (Label, f64),
        cells: &[Cell],
        (suspects, roster): (&[Rank], &Roster),
    ) -> TraceRow {
        let told: Vec<(Rank, f32)> = cells.iter().filter_map(|(rank, value)| Some(((*rank)?, *value))).collect();
        let ranks: Vec<Rank> = told.iter().map(|(rank, _)| *rank).collect();
        self.prepare(&ranks, suspects);
        let value_of = |rank: &Rank| {
            let found = told.iter().find(|(other, _)| other == rank).map(|(_, value)| *value);
            found.filter(|value| value.is_finite()).unwrap_or(f32::NAN)
        };
        let lines: Vec<f32> = self.lines.iter().flatten().map(value_of).collect();
        let (mut differences, mut shares) = (vec![f32::NAN; self.bins.len()], vec![f32::NAN; self.bins.len()]);
        let mut band = [f32::NAN; 3];
        let groups = roster.peer_groups(&ranks);
        for (number, group) in groups.iter().enumerate() {
            for (rank, _) in group.iter().map(|at| told[*at]).filter(|(_, value)| !value.is_finite()) {
                if let Some(bin) = self.bin_of.get(&rank) {
                    (differences[*bin], shares[*bin]) = (f32::INFINITY, f32::INFINITY);
                }
            }
            let is_peer = |at: &&usize| !suspects.contains(&told[**at].0) && told[**at].1.is_finite();
            let mut peers: Vec<f64> = group.iter().filter(is_peer).map(|at| f64::from(told[*at].1)).collect();
            let Some(median) = median_in_place(&mut peers) else { continue };
            let holds_suspect = group.iter().any(|at| suspects.contains(&told[*at].0));
            if holds_suspect || (suspects.is_empty() && number == 0) {
                let edge = |q| quantile(&peers, q).unwrap_or(f64::NAN) as f32;
                band = [median as f32, edge(BAND.0), edge(BAND.1)];
                self.peers = self.peers.max(peers.len());
            }
            self.is_absolute |= median <= 0.0;
            for (rank, value) in group.iter().map(|at| told[*at]).filter(|(_, value)| value.is_finite()) {
                let Some(bin) = self.bin_of.get(&rank).copied() else { continue };
                let difference = (f64::from(value) - median) as f32;
                farther(&mut differences[bin], difference);
                farther(&mut shares[bin], (f64::from(difference) / median.abs().max(f64::MIN_POSITIVE)) as f32);
            }
        }
        let is_strange = told.iter().any(|(_, value)| !value.is_finite());
        TraceRow { label, place, lines, median: band[0], low: band[1], high: band[2], is_strange, differences, shares }
    }

    /// Names lines and rows of the heat map by the first ranks seen.
    fn prepare(&mut self, ranks: &[Rank], suspects: &[Rank]) {
        if self.lines.is_empty() {
            self.lines = suspects.iter().filter(|rank| ranks.contains(rank)).map(|rank| Some(*rank)).collect();
        }
        if self.bins.is_empty() {
            let size = ranks.len().div_ceil(BINS_MAX).max(1);
            let mut sorted = ranks.to_vec();
            sorted.sort_unstable();
            for (bin, part) in sorted.chunks(size).enumerate() {
                self.bins.push((part[0], part[part.len() - 1]));
                self.bin_of.extend(part.iter().map(|rank| (*rank, bin)));
            }
        }
    }
}

impl TraceRow {
    /// Another row in the same place: what stands out of either is kept.
    fn merge(&mut self, other: &Self) {
        for (one, more) in self.lines.iter_mut().zip(&other.lines) {
            let center = if self.median.is_nan() { 0.0 } else { self.median };
            if one.is_nan() || (more - center).abs() > (*one - center).abs() {
                *one = *more;
            }
        }
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
        self.is_strange |= other.is_strange;
        self.differences.iter_mut().zip(&other.differences).for_each(|(one, more)| farther(one, *more));
        self.shares.iter_mut().zip(&other.shares).for_each(|(one, more)| farther(one, *more));
    }
}

/// Keeps the larger of two sizes, with its sign.
fn farther(kept: &mut f32, other: f32) {
    if kept.is_nan() || other.abs() > kept.abs() {
        *kept = other;
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Step;

    use super::*;

    fn row(step: u64, values: &[f32]) -> ((Label, f64), Vec<Cell>) {
        let cells = (0..).map(Rank).map(Some).zip(values.iter().copied()).collect();
        ((Label { step: Some(Step(step)), time: None }, step as f64 / 10.0), cells)
    }

    #[test]
    fn a_suspect_is_a_line_and_its_peers_are_the_band() {
        let mut trace = Trace::new("step_time_s");
        let (at, cells) = row(1, &[1.0, 3.0, 1.0, 2.0, f32::NAN]);
        trace.add(at, Measured::Samples, &cells, (&[Rank(1)], &Roster::default()));
        let first = &trace.rows[0];
        assert_eq!((trace.lines.as_slice(), first.lines.as_slice()), ([Some(Rank(1))].as_slice(), [3.0].as_slice()));
        assert_eq!((first.median, trace.peers, first.is_strange), (1.0, 3, true));
        assert_eq!((first.differences[1], first.shares[1], first.differences[3]), (2.0, 2.0, 1.0));
    }

    #[test]
    fn many_ranks_share_rows_of_the_map_and_the_farthest_shows() {
        let mut trace = Trace::new("m");
        let mut values = vec![1.0; 4_096];
        values[100] = 5.0;
        let (at, cells) = row(1, &values);
        trace.add(at, Measured::Samples, &cells, (&[], &Roster::default()));
        assert!(trace.bins.len() <= BINS_MAX);
        let place = trace.bins.iter().position(|(first, last)| (first.0..=last.0).contains(&100)).expect("it is there");
        assert_eq!(trace.rows[0].differences[place], 4.0);
        assert_eq!(trace.rows[0].differences.iter().filter(|size| **size != 0.0).count(), 1);
    }

    #[test]
    fn rows_in_one_place_are_one_and_the_peak_stays() {
        let mut trace = Trace::new("loss");
        for (place, value) in [(0.5, 2.0), (0.500_01, 9.0), (0.500_02, 2.0), (0.7, 2.0)] {
            let cells = [(None, value)];
            trace.add((Label::default(), place), Measured::Samples, &cells, (&[], &Roster::default()));
        }
        let lines: Vec<f32> = trace.rows.iter().map(|row| row.lines[0]).collect();
        assert_eq!(lines, [9.0, 2.0]);
    }
}
