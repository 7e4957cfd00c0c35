//! The one table of base rates and likelihoods. No number in it was fitted to a file or a scenario.
//!
//! Sources, by the letter at each row:
//! - **L**: the 419 unexpected interruptions of the Llama 3 training, 54 days on 16,384 GPUs (arXiv 2407.21783, table
//!   5), as counts: broken devices, hosts and memory 276; heat 6; switches, cables, adapters and timeouts of
//!   communication 49; software, dependencies and maintenance of hosts 88.
//! - **G**: Greyhound (USENIX ATC 2025), fail-slows of a cluster of 10,000 GPUs: communication is slow in 40 % of large
//!   jobs, computation in less than 2 %, the latter by contention for processors and by held-back devices.
//! - **W**: ByteDance, "Understanding Stragglers" (arXiv 2505.05713): broken workers explain most of the slowdown in
//!   1.7 % of the straggling jobs; the rest is unequal stages, unequal sequences and garbage collection.
//! - **P**: the loss spikes of PaLM (arXiv 2204.02311): about 20, not repeated by the same data from another state.
//! - **B**: BLOOM: replicas that parted for ten days by a defect of software; Llama 3: six silent corruptions.
//! - **J**: judgement. No published study counts these; the page in `docs/hypotheses.md` says so.
//!
//! The rate of deliberate acts has no study either: one documented case among all public trainings. Rows of broken laws
//! that hardware cannot break give it more, because fewer innocent causes are left, never because of who was there. No
//! kind by itself makes it the likeliest: that takes facts.

use trainwarden_telemetry::Kind;

/// One weight a cause, in the order of [`Cause::ALL`](trainwarden_telemetry::Cause::ALL): hardware, throttle, network,
/// software, data, imbalance, instability, deliberate.
pub(super) type Weights = [f64; 8];

/// Of 1,000 stops of a training: L, with 1 for what it did not see and 10 for deliberate acts.
const STOP: Weights = [653.0, 14.0, 116.0, 208.0, 1.0, 1.0, 1.0, 10.0];
/// Of 1,000 ranks that lastingly do their own work slower than their peers: G (held back, contended), W (imbalance); J.
const SLOW_RANK: Weights = [250.0, 350.0, 50.0, 120.0, 20.0, 190.0, 5.0, 15.0];
/// Of 1,000 runs that became slower as a whole: G (communication before computation), W; J.
const SLOW_RUN: Weights = [30.0, 20.0, 400.0, 280.0, 95.0, 155.0, 5.0, 15.0];
/// A metric without a kind of its own: J, nearly nothing is known.
const METRIC: Weights = [180.0, 100.0, 110.0, 290.0, 120.0, 100.0, 90.0, 10.0];

/// How many of 1,000 incidents of a kind each cause is behind, before anything else is known.
pub(super) fn base_rates(kind: Kind) -> Weights {
    use Kind as K;
    match kind {
        K::Hang | K::Silence => STOP,                                             // L
        K::Desync => [40.0, 2.0, 15.0, 880.0, 20.0, 23.0, 2.0, 18.0],             // J: ranks ran other code or shapes
        K::Kills => [240.0, 5.0, 40.0, 640.0, 2.0, 10.0, 3.0, 60.0], // J: memory, scheduler, operator; a Xid is another kind
        K::SlowRank => SLOW_RANK,                                    // G W
        K::SlowRun => SLOW_RUN,                                      // G W
        K::SlowLink => [50.0, 10.0, 800.0, 80.0, 5.0, 35.0, 5.0, 15.0], // G
        K::Intermittent => [50.0, 60.0, 190.0, 370.0, 70.0, 225.0, 5.0, 30.0], // W (garbage collection), G
        K::Periodic => [30.0, 70.0, 100.0, 640.0, 50.0, 85.0, 5.0, 20.0], // J: jobs of the clock, logging, saving
        K::LossSpike => [30.0, 2.0, 3.0, 55.0, 230.0, 5.0, 665.0, 10.0], // P
        K::Gradient => [40.0, 2.0, 3.0, 60.0, 210.0, 5.0, 670.0, 10.0], // P
        K::Drift => [30.0, 2.0, 3.0, 160.0, 200.0, 5.0, 585.0, 15.0], // P J
        K::Nonfinite => [170.0, 5.0, 10.0, 200.0, 120.0, 5.0, 480.0, 10.0], // J
        K::ReplicaMismatch => [480.0, 5.0, 5.0, 440.0, 5.0, 5.0, 5.0, 55.0], // B
        K::UnexplainedUpdate => [60.0, 2.0, 3.0, 720.0, 5.0, 2.0, 8.0, 200.0], // J
        K::LineageBreak => [140.0, 2.0, 18.0, 720.0, 5.0, 2.0, 3.0, 110.0], // J
        K::GradientRank => [420.0, 15.0, 10.0, 160.0, 290.0, 45.0, 40.0, 20.0], // J
        K::InconsistentUpdate => [70.0, 2.0, 3.0, 760.0, 10.0, 5.0, 100.0, 50.0], // J
        K::Schedule => [5.0, 2.0, 3.0, 920.0, 5.0, 5.0, 20.0, 40.0], // J
        K::DuplicateBatch => [10.0, 2.0, 3.0, 380.0, 560.0, 10.0, 5.0, 30.0], // J
        K::BatchOrder => [10.0, 2.0, 3.0, 440.0, 490.0, 15.0, 5.0, 35.0], // J
        K::DataShift => [20.0, 2.0, 3.0, 110.0, 810.0, 15.0, 10.0, 30.0], // J
        K::EnvironmentMismatch | K::EnvironmentChanged => [15.0, 2.0, 3.0, 920.0, 5.0, 5.0, 5.0, 45.0], // J
        K::HardwareFault => [920.0, 15.0, 25.0, 30.0, 1.0, 2.0, 2.0, 5.0], // L
        K::Throttle => [70.0, 845.0, 5.0, 60.0, 2.0, 6.0, 2.0, 10.0], // G
        K::MemoryErrors => [960.0, 15.0, 5.0, 10.0, 2.0, 3.0, 2.0, 3.0], // L
        K::Replay => [30.0, 2.0, 50.0, 520.0, 5.0, 3.0, 10.0, 380.0], // J
        K::Forged => [20.0, 2.0, 18.0, 570.0, 5.0, 3.0, 2.0, 380.0], // J
        K::Inconsistent => [110.0, 2.0, 60.0, 650.0, 15.0, 3.0, 10.0, 150.0], // J
        K::MetricOutlier | K::MetricShift => METRIC,                 // J
    }
}

/// Chance to see a fact given each cause.
///
/// Where a fact excludes others (one rank, one node, several nodes, whole run), a column sums to 1 over them.
pub(super) mod chance {
    use super::Weights;

    /// One rank alone is named, where a kind leaves that open. L J.
    pub(crate) const ONE_RANK: Weights = [0.80, 0.75, 0.25, 0.15, 0.25, 0.30, 0.05, 0.40];
    /// Several ranks, all on one node. L J.
    pub(crate) const ONE_NODE: Weights = [0.10, 0.12, 0.20, 0.08, 0.05, 0.10, 0.02, 0.10];
    /// Ranks on several nodes, or with no nodes told. J.
    pub(crate) const SEVERAL_NODES: Weights = [0.05, 0.08, 0.35, 0.17, 0.25, 0.40, 0.03, 0.20];
    /// Nobody is named: the whole run. J.
    pub(crate) const WHOLE_RUN: Weights = [0.05, 0.05, 0.20, 0.60, 0.45, 0.20, 0.90, 0.30];
    /// Clocks fell with heat, power or a brake as the driver's reason. G J.
    pub(crate) const HELD_BACK: Weights = [0.20, 0.90, 0.01, 0.03, 0.01, 0.02, 0.01, 0.05];
    /// Clocks are set by a user, as the driver says: somebody, or a script of the site, asked for it. J.
    pub(crate) const CLOCKS_SET: Weights = [0.01, 0.02, 0.01, 0.30, 0.01, 0.01, 0.01, 0.30];
    /// Clocks fell, and no reason is told. G J.
    pub(crate) const CLOCKS_FELL: Weights = [0.15, 0.70, 0.02, 0.12, 0.01, 0.03, 0.01, 0.20];
    /// The device of a suspect reports errors. L J.
    pub(crate) const DEVICE_ERRORS: Weights = [0.50, 0.05, 0.02, 0.01, 0.01, 0.01, 0.01, 0.01];
    /// Devices are watched, and show nothing: what throttles would show, and half of what breaks. J.
    pub(crate) const DEVICES_QUIET: Weights = [0.50, 0.08, 0.98, 0.99, 0.99, 0.99, 0.99, 0.95];
    /// It ended and came back. J.
    pub(crate) const CAME_BACK: Weights = [0.50, 0.60, 0.50, 0.30, 0.25, 0.40, 0.40, 0.40];
    /// It began with a relaunch: new code, new placement, another checkpoint. J.
    pub(crate) const AT_LAUNCH: Weights = [0.06, 0.04, 0.05, 0.30, 0.10, 0.10, 0.05, 0.15];
    /// It began where a checkpoint was saved. J.
    pub(crate) const AT_CHECKPOINT: Weights = [0.08, 0.06, 0.06, 0.15, 0.06, 0.06, 0.06, 0.12];
    /// The same ranks replay, contradict or forge telemetry. J.
    pub(crate) const CONTRADICTED: Weights = [0.05, 0.01, 0.03, 0.06, 0.01, 0.01, 0.01, 0.30];
    /// Code, configuration or environment changed shortly before, or differs between ranks. J.
    pub(crate) const ENVIRONMENT_MOVED: Weights = [0.03, 0.02, 0.02, 0.45, 0.05, 0.03, 0.03, 0.30];
    /// The data are out of order, repeated or strange at the same time. J.
    pub(crate) const DATA_STRANGE: Weights = [0.03, 0.02, 0.02, 0.10, 0.55, 0.05, 0.04, 0.10];
    /// Laws of several families are broken in one launch: weights, optimizer, data, environment, telemetry. J.
    pub(crate) const SEVERAL_LAWS: Weights = [0.05, 0.02, 0.02, 0.12, 0.05, 0.02, 0.02, 0.25];
    /// Chance that a change of a site's own making leaves a record of change management before its effect. J.
    pub(crate) const ROLLOUT_RECORDED: Weights = [0.0, 0.0, 0.0, 0.50, 0.10, 0.05, 0.0, 0.15];
    /// The same for a command by hand, on a host that the incident is about. J.
    pub(crate) const COMMAND_RECORDED: Weights = [0.0, 0.0, 0.0, 0.25, 0.05, 0.0, 0.0, 0.40];
}
