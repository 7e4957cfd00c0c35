//! What incidents say may be behind them and what they say was lost, against simulated runs of which both are known.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use trainwarden::quality::TWIN;
use trainwarden::scorecard::{Scorecard, judged};
use trainwarden::simulation::read_scenarios;
use trainwarden_simulate::{Fault, FaultKind, Row, Scenario, simulate};
use trainwarden_telemetry::{Cause, Impact, Incident};

/// Seeds of each scenario whose loss is measured.
const SEEDS: u64 = 5;

fn scenarios() -> BTreeMap<String, Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    read_scenarios(&folder).unwrap_or_else(|error| panic!("{error:#}"))
}

/// What a planted fault stands for; written down before anything was measured. A fault that a command on record
/// brought about was a change or an act, whatever it did.
fn true_causes(fault: &Fault) -> &'static [Cause] {
    use FaultKind as F;
    if fault.audit.is_some() {
        return &[Cause::SoftwareChange, Cause::Deliberate];
    }
    match fault.kind {
        F::SlowRank => &[Cause::HardwareFault, Cause::Throttle],
        F::Throttle => &[Cause::Throttle],
        F::Hang | F::Nonfinite | F::GradientNoise | F::WeightFlip | F::MemoryErrors => &[Cause::HardwareFault],
        F::SlowLink => &[Cause::Network],
        F::SlowRun | F::LearningRate | F::UpdateSign | F::CodeMismatch | F::CodeChange => &[Cause::SoftwareChange],
        F::EnvironmentChange | F::Desync | F::Silence | F::Backdate => &[Cause::SoftwareChange],
        F::BatchSame | F::BatchRepeat | F::BatchReorder | F::Poison => &[Cause::Data],
        F::LossSpike | F::LossDrift => &[Cause::Instability],
        F::RandomSleeps | F::GradientFlip | F::WeightEdit | F::CheckpointSwap => &[Cause::Deliberate],
        F::Kills | F::Replay => &[Cause::Deliberate],
    }
}

/// How one planted fault was explained.
struct Explained {
    name: String,
    truth: &'static [Cause],
    told: Vec<(Cause, f64)>,
}

impl Explained {
    /// What is told, with the true causes taken together: where two are true, either is right.
    fn merged(&self) -> Vec<(bool, f64)> {
        let is_true = |cause: &Cause| self.truth.contains(cause);
        let others =
            self.told.iter().filter(|(cause, _)| !is_true(cause)).map(|(_, probability)| (false, *probability));
        let mut merged: Vec<(bool, f64)> = std::iter::once((true, self.probability())).chain(others).collect();
        merged.sort_by(|one, other| other.1.total_cmp(&one.1));
        merged
    }

    fn probability(&self) -> f64 {
        self.told.iter().filter(|(cause, _)| self.truth.contains(cause)).map(|(_, probability)| probability).sum()
    }

    fn place(&self) -> usize {
        self.merged().iter().position(|(is_true, _)| *is_true).expect("the truth is in, if only with nothing")
    }
}

fn explained() -> Vec<Explained> {
    let mut all = Vec::new();
    for (name, scenario) in scenarios().into_iter().filter(|(name, _)| !name.ends_with(TWIN)) {
        let (truth, findings) = judged(&scenario).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let card = Scorecard::of(&truth, &findings.incidents);
        for (fault, (_, alarm)) in scenario.faults.iter().zip(&card.faults) {
            let incident = alarm.unwrap_or_else(|| panic!("{name}: {fault:?} is not told"));
            let told = incident.hypotheses.iter().map(|told| (told.cause, told.probability)).collect();
            all.push(Explained { name: name.clone(), truth: true_causes(fault), told });
        }
    }
    all
}

#[test]
fn the_true_cause_is_most_often_the_likeliest_and_probabilities_are_what_they_say() {
    let all = explained();
    let at = |place: usize| all.iter().filter(|one| one.place() <= place).count();
    for one in &all {
        let sum: f64 = one.told.iter().map(|(_, probability)| probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{}: {:?}", one.name, one.told);
        assert!(one.told.len() > 1, "{}: nothing is certain: {:?}", one.name, one.told);
        let told: Vec<String> = one.told.iter().map(|(cause, chance)| format!("{cause} {chance:.3}")).collect();
        println!(
            "{:<22} {:.3} place {} {:?}: {}",
            one.name,
            one.probability(),
            one.place() + 1,
            one.truth,
            told.join(", ")
        );
    }
    let (first, second) = (at(0), at(1));
    let firsts = all.iter().map(|one| one.merged()[0].1);
    let (promised, variance) =
        firsts.fold((0.0, 0.0), |(sum, variance), chance| (sum + chance, variance + chance * (1.0 - chance)));
    let mean = all.iter().map(Explained::probability).sum::<f64>() / all.len() as f64;
    println!("{} faults: {first} first, {promised:.1} promised, {second} first or second, mean {mean:.3}", all.len());
    // As often right as it says, within three standard errors of so many trials.
    assert!((first as f64 - promised).abs() <= 3.0 * variance.sqrt(), "{first} right, {promised:.1} promised");
    assert!(3 * first >= 2 * all.len(), "{first} of {}", all.len());
}

/// The time of each step of a simulated run.
fn step_times(scenario: &Scenario) -> BTreeMap<u64, f64> {
    let mut times = BTreeMap::new();
    let run = simulate(scenario, &mut |_, row| -> Result<(), Infallible> {
        if let Row::Sample { rank: Some(0), step, metric: "step_time_s", value, .. } = row {
            times.insert(step, value);
        }
        Ok(())
    });
    run.unwrap_or_else(|never| match never {});
    times
}

/// GPU-seconds that the faults took, by the run that had the same noise and no fault.
fn excess(faulty: &Scenario) -> f64 {
    let healthy = Scenario { faults: Vec::new(), ..faulty.clone() };
    let (with_fault, without) = (step_times(faulty), step_times(&healthy));
    let lost: f64 = with_fault.iter().map(|(step, seconds)| seconds - without[step]).sum();
    lost * f64::from(faulty.cluster.ranks())
}

/// GPU-seconds from the last step that ended to the moment of judging.
fn standstill(faulty: &Scenario, incident: &Incident) -> f64 {
    let mut last = i64::MIN;
    let run = simulate(faulty, &mut |_, row| -> Result<(), Infallible> {
        if let Row::Sample { time, metric: "step_time_s", .. } = row {
            last = last.max(time);
        }
        Ok(())
    });
    run.unwrap_or_else(|never| match never {});
    let judged_at = incident.detected_at.expect("a simulated run has times");
    (judged_at.0 - last) as f64 / 1e9 * f64::from(faulty.cluster.ranks())
}

/// How many intervals of so many hold the truth.
fn held(name: &str, truth: impl Fn(&Scenario, &Incident) -> f64) -> u64 {
    let scenario = scenarios().remove(name).expect("the scenario is there");
    let mut held = 0;
    for seed in 1..=SEEDS {
        let scenario = Scenario { seed: scenario.seed + seed, ..scenario.clone() };
        let (planted, findings) = judged(&scenario).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let card = Scorecard::of(&planted, &findings.incidents);
        let incident = card.faults[0].1.expect("it is found with every seed");
        let lost = truth(&scenario, incident);
        let Impact { gpu_seconds_lost, low, high, .. } = incident.impact.as_ref().expect("the pace is known");
        println!("{name}, seed {}: lost {lost:.1}, told {gpu_seconds_lost} ({low} to {high})", scenario.seed);
        held += u64::from((*low as f64..=*high as f64).contains(&lost));
    }
    held
}

#[test]
fn the_interval_holds_what_slow_ranks_slow_runs_and_hangs_lost() {
    let by_twin = |scenario: &Scenario, _: &Incident| excess(scenario);
    for name in ["slow_rank_5", "slow_rank_30", "slow_run", "throttle", "random_sleeps", "slow_link", "slow_rank_2"] {
        assert_eq!(held(name, by_twin), SEEDS, "{name}");
    }
    assert_eq!(held("hang", standstill), SEEDS);
}
