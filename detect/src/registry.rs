//! The registry: one line a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors;

macro_rules! registry {
    ($($(#[$doc:meta])* $variant:ident = $module:ident,)*) => {
        /// Which detectors there are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DetectorKind { $($(#[$doc])* $variant,)* }

        impl DetectorKind {
            /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before
            /// effects.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// A detector that has seen nothing.
            #[must_use]
            pub fn build(self) -> Box<dyn Detector> {
                match self { $(Self::$variant => Box::<detectors::$module::$variant>::default(),)* }
            }
        }
    };
}

registry! {
    /// Replicas of weights, optimizer state or gradients differ.
    ReplicaMismatch = replica_mismatch,
    /// Weights moved with no optimizer step between.
    MovedWeights = moved_weights,
    /// A checkpoint loaded is not the one saved.
    LineageBreak = lineage_break,
    /// A batch was seen before, or by two data-parallel indices.
    DuplicateBatch = duplicate_batch,
    /// Batches or random states come in another order than planned.
    BatchOrder = batch_order,
    /// Code, configuration or environment differs between ranks.
    EnvironmentMismatch = environment_mismatch,
    /// Code, configuration or environment changed.
    EnvironmentChange = environment_change,
    /// Telemetry contradicts itself.
    Contradiction = contradiction,
    /// A NaN or an infinity was logged.
    Nonfinite = nonfinite,
    /// Members of a communicator enter different operations.
    Desync = desync,
    /// Ranks wait in a call that somebody never finishes.
    Hang = hang,
    /// Processes were killed.
    Kills = kills,
    /// A rank stopped speaking.
    Silence = silence,
    /// Telemetry was sent before.
    Replayed = replayed,
    /// A device reports errors.
    DeviceErrors = device_errors,
    /// A device lowers its clocks.
    Throttle = throttle,
    /// A rank does its own work slower than its peers.
    Straggler = straggler,
    /// A rank arrives last in collectives, or a communicator is slow.
    LateArrival = late_arrival,
    /// Rare pauses on changing ranks.
    WanderingSleep = wandering_sleep,
    /// A data-parallel index reads other data than its peers.
    DataShift = data_shift,
    /// A rank's gradient stands apart from its peers'.
    GradientOutlier = gradient_outlier,
    /// A rank's metric stands apart from its peers'.
    RankOutlier = rank_outlier,
    /// The gradient norm leaves its range.
    GradientExplosion = gradient_explosion,
    /// The loss jumps up.
    LossExcursion = loss_excursion,
    /// The loss creeps up.
    LossDrift = loss_drift,
    /// The whole run became slower.
    RunSlowdown = run_slowdown,
    /// Rare or rhythmic long steps of the whole run.
    RunPauses = run_pauses,
    /// The learning rate leaves its law.
    Schedule = schedule,
    /// The update does not follow from gradient and learning rate.
    InconsistentUpdate = inconsistent_update,
    /// A score collapses.
    EvaluationCollapse = evaluation_collapse,
    /// A value of an unknown metric stands apart.
    MetricOutlier = metric_outlier,
    /// The level of an unknown metric moved.
    MetricShift = metric_shift,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_detector_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = DetectorKind::ALL.iter().map(|kind| kind.build().spec().name).collect();
        assert_eq!(names.len(), DetectorKind::ALL.len());
    }

    /// Words of a text without marks of layout and links, so that a page and a comment can be compared.
    fn words(text: &str) -> String {
        let text = text.replace("[`", "`").replace("`]", "`");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_page_of_a_detector_says_what_its_file_says() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for kind in DetectorKind::ALL {
            let name = kind.build().spec().name;
            let page = std::fs::read_to_string(format!("{root}/docs/detectors/{name}.md"));
            let page = words(&page.unwrap_or_else(|_| panic!("{name} has no page")));
            let source = std::fs::read_to_string(format!("{root}/detect/src/detectors/{name}.rs"));
            let source = source.expect("a detector's file has its name");
            let comment = source.lines().take_while(|line| line.starts_with("//!"));
            let comment: String = comment.map(|line| line.trim_start_matches("//!").to_owned() + "\n").collect();
            for heading in ["What it finds", "Why it matters", "How it decides", "Parameters", "Blind spots", "Source"]
            {
                let section = comment.split("\n # ").find_map(|section| section.strip_prefix(heading));
                let section = words(section.unwrap_or_else(|| panic!("{name} has no section `{heading}`")));
                assert!(page.contains(&section), "{name}, `{heading}`: the page does not say:\n{section}");
            }
            for constant in source.lines().filter_map(|line| line.strip_prefix("const ")?.strip_suffix(';')) {
                let (constant, value) = constant.split_once(": ").expect("a constant has a type");
                let value = value.split_once(" = ").map(|(_, value)| value);
                if let Some(value) =
                    value.filter(|value| value.len() <= 60 && constant != "VERSION" && constant != "SPEC")
                {
                    assert!(page.contains(&format!("`{constant}` | `{value}`")), "{name}: {constant} is {value}");
                }
            }
        }
    }
}
