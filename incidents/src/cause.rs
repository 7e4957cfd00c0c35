//! What explains what: the table by which effects join the incident of their cause.

use trainwarden_telemetry::{Kind, Severity};

/// The kinds an incident of `cause` explains when they begin with it or while it lasts.
///
/// One cause gives one incident: a slow rank makes the whole run slow; a hang silences; a broken rank's
/// gradient moves the loss.
fn effects(cause: Kind) -> &'static [Kind] {
    use Kind as K;
    match cause {
        K::SlowRank => &[K::SlowRun, K::SlowLink, K::Intermittent, K::Periodic],
        K::SlowLink | K::Periodic => &[K::SlowRun, K::Intermittent],
        K::Intermittent => &[K::SlowRun],
        K::Throttle => &[K::SlowRank, K::SlowRun, K::Intermittent],
        // What a device cannot correct ends its process, or enters gradients and weights.
        K::MemoryErrors => {
            &[K::SlowRank, K::SlowRun, K::Intermittent, K::Hang, K::Silence, K::Kills, K::GradientRank, K::Nonfinite]
        }
        K::HardwareFault => {
            &[K::SlowRank, K::SlowRun, K::SlowLink, K::Hang, K::Silence, K::Kills, K::GradientRank, K::ReplicaMismatch]
        }
        K::Desync => &[K::Hang, K::Silence, K::SlowRun],
        K::Hang => &[K::Silence, K::SlowRun, K::SlowRank, K::SlowLink],
        K::Kills => &[K::Hang, K::Silence, K::SlowRun, K::Desync],
        K::Silence => &[K::SlowRun],
        K::Nonfinite => &[K::LossSpike, K::Drift, K::Gradient, K::GradientRank, K::Inconsistent],
        K::Drift => &[K::LossSpike, K::Gradient],
        K::LossSpike => &[K::Gradient],
        K::GradientRank => &[K::LossSpike, K::Drift, K::Gradient, K::Inconsistent],
        // Replicas with other weights have another loss, whatever their data.
        K::UnexplainedUpdate => &[K::ReplicaMismatch, K::LossSpike, K::Drift, K::Gradient, K::DataShift],
        K::LineageBreak => {
            &[K::LossSpike, K::Drift, K::Gradient, K::ReplicaMismatch, K::UnexplainedUpdate, K::DataShift]
        }
        K::ReplicaMismatch => &[K::LossSpike, K::Drift, K::Gradient, K::GradientRank, K::Inconsistent, K::DataShift],
        K::DataShift => &[K::GradientRank, K::LossSpike, K::Drift, K::Gradient],
        K::Schedule | K::InconsistentUpdate => &[K::LossSpike, K::Drift, K::Gradient],
        K::DuplicateBatch => &[K::BatchOrder, K::DataShift],
        K::BatchOrder => &[K::DataShift],
        // Old numbers sent as new ones stand apart from whatever the peers do now.
        K::Replay => &[K::Inconsistent, K::GradientRank, K::DataShift, K::SlowRank, K::Intermittent],
        _ => &[],
    }
}

/// True when an incident of kind `cause` explains a finding of kind `effect`.
///
/// Movements of metrics without a kind of their own are explained by any trouble of the training itself.
pub(crate) fn explains(cause: Kind, effect: Kind) -> bool {
    let is_trouble = || TROUBLE.contains(&cause.as_str().split('.').next().unwrap_or_default());
    match effect {
        Kind::MetricOutlier => cause == Kind::MetricShift || is_trouble(),
        Kind::MetricShift => is_trouble(),
        _ => effects(cause).contains(&effect),
    }
}

/// True for what ends with the processes it is about: when the run is launched again, their pace, their silence and
/// their numbers of the moment are over. What they left behind is not: weights, data, environment and a training that
/// went off its course come back with the checkpoint, and evidence that was forged stays so. Nor are kills: a series of
/// them runs over launches, because each causes the next.
pub(crate) fn ends_with_attempt(kind: Kind) -> bool {
    use Kind as K;
    let family = kind.as_str().split('.').next().unwrap_or_default();
    ["slowdown", "stall", "metric"].contains(&family)
        || matches!(kind, K::Silence | K::Replay | K::GradientRank | K::LossSpike | K::Gradient | K::Throttle)
}

/// True for effects that can begin at any time while their cause lasts, such as waiting for a slow rank; other effects
/// begin with their cause or are a matter of their own.
///
/// Strange data makes strange gradients, a broken device moves its gauges, and an optimizer that spoils weights makes
/// the loss leave its course, whenever that is large enough to be seen; old numbers are as strange as the new ones are
/// far.
pub(crate) fn follows_throughout(cause: Kind, effect: Kind) -> bool {
    let family = |kind: Kind| kind.as_str().split('.').next().unwrap_or_default();
    let lingers = match cause {
        Kind::DataShift => effect == Kind::GradientRank,
        Kind::InconsistentUpdate | Kind::Replay => true,
        _ => family(cause) == "hardware" && family(effect) == "metric",
    };
    lingers || ["slowdown", "telemetry", "stall"].contains(&family(effect))
}

/// True where a finding is too grave to be an effect of `cause`: strange data turns no gradient round and makes none
/// a hundred times as large.
pub(crate) fn is_beyond(cause: Kind, severity: Severity) -> bool {
    cause == Kind::DataShift && severity == Severity::Critical
}

/// Families of incidents that move other metrics too.
const TROUBLE: [&str; 7] = ["divergence", "slowdown", "stall", "weights", "gradient", "optimizer", "hardware"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_kinds_explain_each_other() {
        for &one in Kind::ALL {
            assert!(!explains(one, one), "{one} explains itself");
            for &other in Kind::ALL {
                assert!(!(explains(one, other) && explains(other, one)), "{one} and {other} explain each other");
            }
        }
    }

    #[test]
    fn what_a_launch_leaves_behind_does_not_end_with_it() {
        let lasting: Vec<&str> =
            Kind::ALL.iter().filter(|kind| !ends_with_attempt(**kind)).map(|kind| kind.as_str()).collect();
        let families = ["weights.", "environment.", "data.", "optimizer."];
        for kind in Kind::ALL.iter().filter(|kind| families.iter().any(|family| kind.as_str().starts_with(family))) {
            assert!(lasting.contains(&kind.as_str()), "{kind}");
        }
        for kind in [Kind::Drift, Kind::Nonfinite, Kind::HardwareFault, Kind::MemoryErrors, Kind::Forged, Kind::Kills] {
            assert!(lasting.contains(&kind.as_str()), "{kind}");
        }
    }

    #[test]
    fn a_slow_rank_explains_a_slow_run_and_not_the_other_way() {
        assert!(explains(Kind::SlowRank, Kind::SlowRun));
        assert!(!explains(Kind::SlowRun, Kind::SlowRank));
        assert!(explains(Kind::SlowRun, Kind::MetricShift));
    }
}
