//! Whose pauses they are: counted rank by rank, and weighed against what is usual.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::count_tail;
use trainwarden_telemetry::{Rank, Suspect};

use super::LEARN_ROWS;

/// Of the ranks named at most this part may have paused no more than usual (false discovery rate).
const FALSE_PART_MAX: f64 = 0.01;
/// Chance below which pauses do not fall on ranks at random: of ten thousand cases of the whole run one is taken for one
/// of a few ranks.
const EVEN_CHANCE_MIN: f64 = 1e-4;
/// Ranks whose pauses are counted, so that the state is bounded.
const RANKS_MAX: usize = 16_384;
/// Suspects listed: more than a person goes through, and each that joins is another word.
const SUSPECTS_MAX: usize = 256;
/// Chance below which a rank's usual pauses are a habit of its own, and not its part of everybody's.
const HABIT_CHANCE_MAX: f64 = 0.01;

/// The pauses of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pauses {
    pub(super) count: u32,
    /// Time waited for them, in rows.
    pub(super) waiting: f64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Blame {
    /// Pauses in the rows from which the usual is learned.
    usual: BTreeMap<Rank, u32>,
    /// Pauses since the evidence was last zero.
    pauses: BTreeMap<Rank, Pauses>,
    named: BTreeSet<Rank>,
}

impl Blame {
    /// A pause in a row from which the usual is learned.
    pub(super) fn learn(&mut self, rank: Rank) {
        if self.usual.len() < RANKS_MAX || self.usual.contains_key(&rank) {
            *self.usual.entry(rank).or_default() += 1;
        }
    }

    /// A pause since then, `excess` rows long.
    pub(super) fn add(&mut self, rank: Rank, excess: f64) {
        if self.pauses.len() < RANKS_MAX || self.pauses.contains_key(&rank) {
            let pauses = self.pauses.entry(rank).or_default();
            pauses.count += 1;
            pauses.waiting += excess;
        }
    }

    /// Begins anew; what is usual stays.
    pub(super) fn forget(&mut self) {
        self.pauses.clear();
        self.named.clear();
    }

    /// How many ranks paused.
    pub(super) fn paused(&self) -> usize {
        self.pauses.len()
    }

    /// How many pauses there were.
    pub(super) fn total(&self) -> u32 {
        self.pauses.values().map(|pauses| pauses.count).sum()
    }

    /// Those that paused, the one waited for longest first.
    pub(super) fn worst_first(&self) -> Vec<(Rank, Pauses)> {
        let mut ranks: Vec<(Rank, Pauses)> = self.pauses.iter().map(|(rank, pauses)| (*rank, *pauses)).collect();
        ranks.sort_by(|one, other| other.1.waiting.total_cmp(&one.1.waiting).then(one.0.cmp(&other.0)));
        ranks
    }

    /// Names who paused more in `rows` rows than anything usual among `ranks` ranks explains, unless pauses fall on all
    /// of them alike. Who was named stays so.
    ///
    /// Source: Benjamini and Hochberg, "Controlling the False Discovery Rate" (1995).
    pub(super) fn name(&mut self, rows: u32, ranks: usize) {
        if self.is_even(ranks) {
            return;
        }
        let span = f64::from(rows) / f64::from(LEARN_ROWS);
        let usual = upper(self.usual.values().sum()) / ranks as f64;
        let chance = |(rank, pauses): (&Rank, &Pauses)| {
            let own = self.usual.get(rank).filter(|count| count_tail(u64::from(**count), usual) < HABIT_CHANCE_MAX);
            let usual = own.map_or(usual, |count| upper(*count));
            (count_tail(u64::from(pauses.count), span * usual), *rank)
        };
        let mut chances: Vec<(f64, Rank)> = self.pauses.iter().map(chance).collect();
        chances.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let is_sure = |at: &usize| ranks as f64 * chances[*at].0 <= FALSE_PART_MAX * (at + 1) as f64;
        let sure = (0..chances.len()).rev().find(is_sure).map_or(0, |last| last + 1);
        self.named.extend(chances[..sure].iter().map(|(_, rank)| *rank));
    }

    /// True when as many pauses as these come back to the same ranks if each falls on any of `ranks` at random: pairs of
    /// pauses on one rank are counted.
    fn is_even(&self, ranks: usize) -> bool {
        let pairs = |count: u64| count * count.saturating_sub(1) / 2;
        let met = self.pauses.values().map(|pauses| pairs(u64::from(pauses.count))).sum();
        count_tail(met, pairs(u64::from(self.total())) as f64 / ranks as f64) > EVEN_CHANCE_MIN
    }

    /// Who is named, with the part of the waiting; nobody where they are most of `ranks` ranks: the run is meant then.
    pub(super) fn suspects(&self, ranks: usize) -> Vec<Suspect> {
        if self.named.len() * 2 > ranks {
            return Vec::new();
        }
        let waiting: f64 = self.pauses.values().map(|pauses| pauses.waiting).sum();
        let worst_first = self.worst_first().into_iter().filter(|(rank, _)| self.named.contains(rank));
        let suspect = |(rank, pauses): (Rank, Pauses)| Suspect { rank, share: pauses.waiting / waiting };
        worst_first.take(SUSPECTS_MAX).map(suspect).collect()
    }
}

/// How many events to reckon with where `count` were seen: two standard errors more, and one.
pub(super) fn upper(count: u32) -> f64 {
    let count = f64::from(count);
    count + 2.0 * count.sqrt() + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blame after these pauses of one row each; `usual` were seen while the usual was learned.
    fn blame(usual: &[u32], since: &[u32]) -> Blame {
        let mut blame = Blame::default();
        usual.iter().for_each(|rank| blame.learn(Rank(*rank)));
        since.iter().for_each(|rank| blame.add(Rank(*rank), 1.0));
        blame
    }

    fn named(mut blame: Blame, rows: u32, ranks: usize) -> Vec<u32> {
        blame.name(rows, ranks);
        blame.suspects(ranks).iter().map(|suspect| suspect.rank.0).collect()
    }

    #[test]
    fn a_few_of_many_that_pause_again_and_again_are_named_and_who_paused_once_is_not() {
        let since = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 9];
        assert_eq!(named(blame(&[], &since), 60, 1_000), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn pauses_that_fall_on_all_ranks_alike_name_nobody() {
        let since: Vec<u32> = (0..60).map(|pause| pause * 7 % 16).collect();
        assert_eq!(named(blame(&[], &since), 240, 16), Vec::<u32>::new());
        let once: Vec<u32> = (0..60).map(|pause| pause * 100).collect();
        assert_eq!(named(blame(&[], &once), 240, 8_192), Vec::<u32>::new());
    }

    #[test]
    fn most_of_the_ranks_are_the_run() {
        let since: Vec<u32> = (0..900).map(|pause| pause % 9).collect();
        assert_eq!(named(blame(&[], &since), 900, 16), Vec::<u32>::new());
        assert_eq!(named(blame(&[], &since), 900, 18).len(), 9);
    }

    #[test]
    fn who_paused_as_often_before_is_not_named() {
        let usual: Vec<u32> = [7; 20].into_iter().chain(0..5).collect();
        let since: Vec<u32> = [7; 20].into_iter().chain([50; 6]).chain([51; 6]).collect();
        assert_eq!(named(blame(&usual, &since), 256, 512), [50, 51]);
    }

    #[test]
    fn shares_are_of_the_waiting() {
        let mut blame = blame(&[], &[1, 1, 1, 2, 2, 2, 8]);
        blame.add(Rank(2), 3.0);
        blame.name(30, 1_000);
        assert_eq!(
            blame.suspects(1_000),
            [Suspect { rank: Rank(2), share: 0.6 }, Suspect { rank: Rank(1), share: 0.3 }]
        );
        blame.forget();
        assert_eq!((blame.suspects(1_000), blame.paused(), blame.total()), (vec![], 0, 0));
    }
}
