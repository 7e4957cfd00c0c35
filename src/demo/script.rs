//! What is played: the demo's own scenario, and the faults of any scenario in words.

use anyhow::{Context, Result};
use trainwarden_simulate::{Draws, Fault, FaultKind, PlantedFault, Scenario, Truth};

/// Ranks of the demo when nobody says how many.
pub const RANKS: u32 = 4096;
/// Its seed when nobody says another.
pub const SEED: u64 = 1;
/// Fewest ranks: replicas vote on who is wrong, and eight of them can.
pub const RANKS_MIN: u32 = 8;
/// Most ranks, those of the largest scenario.
pub const RANKS_MAX: u32 = 131_072;
/// From so many ranks on the model lies on two tensor-parallel parts and two pipeline stages.
const RANKS_PARALLEL: u32 = 64;
/// Model-parallel parts of a replica from there on.
const PARTS: u32 = 4;
const RANKS_PER_NODE: u32 = 8;

/// Time of a step: what a model of some hundred billion weights needs on thousands of GPUs.
const STEP_TIME_S: f64 = 4.0;
const STEPS: u64 = 380;
/// The seed moves each onset by less than so many steps.
const ONSET_PLAY: u64 = 8;
/// Ranks that are guilty, one for each fault that is about a rank or a communicator.
const GUILTY: usize = 5;

/// Whom a fault of the demo is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Culprit {
    /// All ranks alike.
    Everybody,
    /// One rank, drawn from the seed.
    Rank,
    /// One replica, drawn from the seed; named by the rank that logs its loss.
    Replica,
}

/// One fault of the demo: what it is in words, and the lines of the scenario that plant it.
struct Act {
    title: &'static str,
    lines: &'static str,
    culprit: Culprit,
    /// Its first step, before the seed moves it.
    onset: u64,
    /// Steps after which it ends, where its kind can.
    lasts: Option<u64>,
}

/// The six faults, in the order of their onsets: the first when there is something to compare with, each other one when
/// that before it is over, where it can be.
const ACTS: [Act; 6] = [
    Act {
        title: "fans slowed, one GPU overheats",
        lines: "kind = 'throttle'\nsize = 0.2\naudit = 'ipmitool raw 0x30 0x30 0x02 0xff 0x08'",
        culprit: Culprit::Rank,
        onset: 90,
        lasts: Some(30),
    },
    Act {
        title: "one bit flipped in a replica",
        lines: "kind = 'weight_flip'",
        culprit: Culprit::Rank,
        onset: 140,
        lasts: None,
    },
    Act {
        title: "poisoned data for one replica",
        lines: "kind = 'poison'\nsize = 0.1\naudit = 'cp /tmp/shard-0711.bin /data/corpus/'",
        culprit: Culprit::Replica,
        onset: 190,
        lasts: Some(30),
    },
    Act {
        title: "network of one group congested",
        lines: "kind = 'slow_link'\nsize = 2.0",
        culprit: Culprit::Rank,
        onset: 240,
        lasts: Some(45),
    },
    Act {
        title: "weights edited between steps",
        lines: "kind = 'weight_edit'\nsize = 0.1\naudit = 'gdb -p 4711'",
        culprit: Culprit::Everybody,
        onset: 300,
        lasts: None,
    },
    Act {
        title: "NaN in the gradient of one GPU",
        lines: "kind = 'nonfinite'",
        culprit: Culprit::Rank,
        onset: 350,
        lasts: None,
    },
];

/// A planted fault as a person reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planted {
    /// What detection is measured by.
    pub truth: PlantedFault,
    /// What was done, in words.
    pub title: String,
    /// Where: a rank, ranks, a group, everywhere.
    pub place: String,
    /// How much, in words; empty where there is no more or less.
    pub size: String,
}

/// The demo's scenario, and its faults.
///
/// # Errors
/// When the number of ranks is none that [`parse_ranks`] gives.
pub fn own(ranks: u32, seed: u64) -> Result<(Scenario, Vec<Planted>)> {
    let scenario = Scenario::from_toml(&scenario_toml(ranks, seed)).context("the demo's own scenario is wrong")?;
    let mut planted = planted(&scenario);
    for (fault, act) in planted.iter_mut().zip(&ACTS) {
        act.title.clone_into(&mut fault.title);
    }
    Ok((scenario, planted))
}

/// The faults of a scenario in its order.
#[must_use]
pub fn planted(scenario: &Scenario) -> Vec<Planted> {
    let truths = Truth::of(scenario).faults;
    let words = |(fault, truth): (&Fault, PlantedFault)| {
        let (title, place, size) = (title(fault.kind).to_owned(), place(fault, &truth), size(fault));
        Planted { truth, title, place, size }
    };
    scenario.faults.iter().zip(truths).map(words).collect()
}

/// How many ranks a demo can have.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse_ranks(text: &str) -> Result<u32, String> {
    let ranks: u32 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if !(RANKS_MIN..=RANKS_MAX).contains(&ranks) {
        return Err(format!("must be {RANKS_MIN} to {RANKS_MAX}"));
    }
    if ranks >= RANKS_PARALLEL && !ranks.is_multiple_of(PARTS) {
        return Err(format!("must be a multiple of {PARTS} from {RANKS_PARALLEL} on: each replica has {PARTS} parts"));
    }
    Ok(ranks)
}

/// The demo's scenario as TOML, as `simulate` takes it: six faults, whose ranks and onsets follow from the seed.
#[must_use]
pub fn scenario_toml(ranks: u32, seed: u64) -> String {
    let (dp, tp, pp) = if ranks >= RANKS_PARALLEL { (ranks / PARTS, 2, 2) } else { (ranks, 1, 1) };
    let mut text = format!(
        "run = 'demo'\nseed = {seed}\nsteps = {STEPS}\n\n[cluster]\ndp = {dp}\ntp = {tp}\npp = {pp}\n\
         ranks_per_node = {RANKS_PER_NODE}\nstep_time_s = {STEP_TIME_S:.1}\n\n\
         [telemetry]\ncounters = true\n"
    );
    let mut draws = Draws::new(seed);
    let mut guilty = guilty_ranks((dp, tp, pp), &mut draws).into_iter();
    for act in &ACTS {
        let onset = act.onset + draws.below(ONSET_PLAY);
        let rank = if act.culprit == Culprit::Everybody { None } else { guilty.next() };
        text += &format!("\n# {}\n[[fault]]\n{}\nonset_step = {onset}\n", act.title, act.lines);
        if let Some(steps) = act.lasts {
            text += &format!("end_step = {}\n", onset + steps);
        }
        if let Some(rank) = rank {
            text += &format!("ranks = [{rank}]\n");
        }
    }
    text
}

/// A rank for each fault that is about one, on nodes of their own, or just different ones where there are too few nodes.
fn guilty_ranks((dp, tp, pp): (u32, u32, u32), draws: &mut Draws) -> Vec<u32> {
    let ranks = dp * tp * pp;
    let width = if ranks >= RANKS_PER_NODE * GUILTY as u32 { RANKS_PER_NODE } else { 1 };
    let mut taken: Vec<u32> = Vec::with_capacity(GUILTY);
    for act in ACTS.iter().filter(|act| act.culprit != Culprit::Everybody) {
        loop {
            let drawn = draws.below(u64::from(ranks)) as u32;
            // The first part of the last stage of the replica that was drawn.
            let logs_loss = (pp - 1) * dp * tp + drawn / tp % dp * tp;
            let rank = if act.culprit == Culprit::Replica { logs_loss } else { drawn };
            if taken.iter().all(|other| other / width != rank / width) {
                taken.push(rank);
                break;
            }
        }
    }
    taken
}

fn title(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::SlowRank => "ranks compute slower",
        FaultKind::SlowRun => "all ranks compute slower",
        FaultKind::SlowLink => "transfers of a group take longer",
        FaultKind::RandomSleeps => "random ranks sleep now and then",
        FaultKind::Hang => "ranks stop before an all-reduce",
        FaultKind::LossSpike => "the loss jumps",
        FaultKind::LossDrift => "the loss creeps up",
        FaultKind::Nonfinite => "NaN in a gradient",
        FaultKind::GradientFlip => "gradient sent with wrong sign",
        FaultKind::GradientNoise => "noise in a gradient",
        FaultKind::WeightFlip => "one bit flipped in a replica",
        FaultKind::WeightEdit => "weights edited between steps",
        FaultKind::CheckpointSwap => "another checkpoint loaded",
        FaultKind::UpdateSign => "weights moved up the gradient",
        FaultKind::BatchSame => "all replicas read the same data",
        FaultKind::BatchRepeat => "data of earlier steps read again",
        FaultKind::BatchReorder => "batches in another order",
        FaultKind::Poison => "poisoned data",
        FaultKind::LearningRate => "learning rate changed",
        FaultKind::CodeMismatch => "other code on some ranks",
        FaultKind::CodeChange => "code patched in a live run",
        FaultKind::EnvironmentChange => "other packages in a launch",
        FaultKind::Kills => "processes killed",
        FaultKind::Desync => "all-reduce with half of the payload",
        FaultKind::Throttle => "clock of devices falls",
        FaultKind::MemoryErrors => "memory errors of devices",
        FaultKind::Silence => "ranks compute and tell nothing",
        FaultKind::Replay => "old numbers told as new ones",
        FaultKind::Backdate => "rows dated back",
    }
}

/// Where a fault is, in at most 13 letters where one rank is meant.
///
/// * `truth`: whom an incident should name.
fn place(fault: &Fault, truth: &PlantedFault) -> String {
    match (fault.ranks.as_slice(), truth.ranks.as_slice()) {
        ([rank], [_, ..]) => format!("rank {rank}"),
        ([first, rest @ ..], [_, ..]) => format!("rank {first} and {} more", rest.len()),
        ([first, ..], []) if fault.kind == FaultKind::SlowLink => format!("group of {first}"),
        _ => "all ranks".to_owned(),
    }
}

fn size(fault: &Fault) -> String {
    let size = fault.size;
    match fault.kind {
        FaultKind::SlowRank | FaultKind::SlowRun => format!("+{} %", rounded(100.0 * size)),
        FaultKind::Throttle => format!("-{} %", rounded(100.0 * size)),
        FaultKind::SlowLink => format!("x {}", rounded(1.0 + size)),
        FaultKind::RandomSleeps | FaultKind::BatchRepeat | FaultKind::Replay => format!("{} steps", rounded(size)),
        FaultKind::WeightEdit | FaultKind::CheckpointSwap if size == 0.0 => String::new(),
        FaultKind::LossSpike
        | FaultKind::LossDrift
        | FaultKind::WeightEdit
        | FaultKind::CheckpointSwap
        | FaultKind::Poison => format!("{} nats", rounded(size)),
        FaultKind::GradientNoise | FaultKind::LearningRate => format!("x {}", rounded(size)),
        FaultKind::Kills => format!("{} times", rounded(size)),
        FaultKind::MemoryErrors => format!("{} a step", rounded(size)),
        FaultKind::Backdate => format!("{} s", rounded(size)),
        _ => String::new(),
    }
}

/// At most two decimals, and none that is zero.
fn rounded(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_ranks_and_seed_give_the_same_scenario_and_another_seed_other_ranks() {
        let (one, other) = (scenario_toml(4096, 1), scenario_toml(4096, 2));
        assert_eq!(one, scenario_toml(4096, 1));
        assert_ne!(one.replace("seed = 1", "seed = 2"), other);
    }

    #[test]
    fn guilty_ranks_lie_on_nodes_of_their_own_and_faults_stand_apart() {
        for (ranks, seed) in [(8, 1), (64, 2), (4096, 3), (131_072, 4)] {
            let (scenario, _) = own(ranks, seed).expect("the demo's scenario is right");
            let nodes: BTreeSet<u32> =
                scenario.faults.iter().flat_map(|fault| &fault.ranks).map(|rank| rank / 8).collect();
            assert_eq!(nodes.len(), if ranks == 8 { 1 } else { GUILTY });
            assert_eq!(scenario.faults.len(), 6);
            let (dp, parts) = (scenario.cluster.dp, ranks / scenario.cluster.dp);
            let poisoned = scenario.faults[2].ranks[0];
            assert!(parts == 1 || (poisoned >= 2 * dp && poisoned.is_multiple_of(2)), "{poisoned} logs no loss");
            for pair in scenario.faults.windows(2) {
                let end = pair[0].end_step.unwrap_or(pair[0].onset_step);
                assert!(end + 8 <= pair[1].onset_step, "{pair:?}");
            }
        }
    }

    #[test]
    fn a_number_of_ranks_that_does_not_divide_is_refused_with_what_is_accepted() {
        assert_eq!(parse_ranks("63"), Ok(63));
        assert!(parse_ranks("66").expect_err("no multiple of 4").contains("multiple of 4"));
        assert!(parse_ranks("7").expect_err("too few").contains("8 to 131072"));
        assert!(parse_ranks("many").expect_err("no number").contains("`many`"));
    }

    #[test]
    fn planted_faults_are_told_in_words() {
        let (_, planted) = own(64, 1).expect("the demo's scenario is right");
        let words: Vec<(&str, &str)> =
            planted.iter().map(|fault| (fault.title.as_str(), fault.size.as_str())).collect();
        assert_eq!(words[0], ("fans slowed, one GPU overheats", "-20 %"));
        assert_eq!(words[3], ("network of one group congested", "x 3"));
        assert_eq!(words[4], ("weights edited between steps", "0.1 nats"));
        assert_eq!(planted[4].place, "all ranks");
    }
}
