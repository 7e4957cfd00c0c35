//! What the devices tell of themselves: clocks, temperature, power, errors.

use crate::fault::{active, factor, is_hit};
use crate::moment::Moment;
use crate::random::{Random, Stream};
use crate::{FaultKind, Scenario};

/// Clock of a device at work, and the step in which it can be set.
const SM_CLOCK_HZ: f64 = 1.755e9;
const CLOCK_STEP_HZ: f64 = 15e6;
/// Temperature of a device at work, how much places differ, and what a hot one has more.
const TEMPERATURE_C: f64 = 62.0;
const PLACE_C: f64 = 3.0;
const HOT_C: f64 = 24.0;
/// Power of a device at work, and how much devices differ.
const POWER_W: f64 = 620.0;
const DEVICE_W: f64 = 12.0;
/// Corrected memory errors a step of a healthy device: about one in a day of steps of a second.
const ERRORS_A_STEP: f64 = 1e-5;
/// Bit of the clock event reasons that says that a device slows itself down because it is hot.
///
/// Source: NVML API reference, `nvmlClocksEventReasonSwThermalSlowdown`.
const MASK_THERMAL: f64 = 32.0;

/// What one device tells in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) sm_clock_hz: f64,
    pub(crate) temperature_c: f64,
    pub(crate) power_w: f64,
    pub(crate) util_ratio: f64,
    pub(crate) throttle_mask: f64,
    /// Since the launch.
    pub(crate) ecc_errors: u64,
}

/// The devices, rank by rank.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    random: Random,
    ecc_errors: Vec<u64>,
}

impl Counters {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let ecc_errors = vec![0; scenario.cluster.ranks() as usize];
        Self { random: Random { seed: scenario.seed }, ecc_errors }
    }

    /// The reading of a rank's device; to be called once for each rank and step, in the order of steps.
    pub(crate) fn read(&mut self, scenario: &Scenario, moment: Moment, rank: u32) -> Reading {
        let draw = |stream: Stream| self.random.normal(stream, rank, moment.tick());
        let offset = self.random.normal(Stream::DeviceOffset, rank, 0);
        let kept = factor(&scenario.faults, FaultKind::Throttle, (moment, rank), |size| 1.0 - size);
        let is_hot = is_hit(&scenario.faults, FaultKind::Throttle, moment, rank);
        let hot = if is_hot { 1.0 } else { 0.0 };
        let clock = SM_CLOCK_HZ * kept * (1.0 + 0.004 * offset + 0.003 * draw(Stream::DeviceClock));
        let util = 0.97 + 0.01 * draw(Stream::DeviceClock);
        let reading = Reading {
            sm_clock_hz: (clock / CLOCK_STEP_HZ).round() * CLOCK_STEP_HZ,
            temperature_c: (TEMPERATURE_C + PLACE_C * offset + HOT_C * hot + draw(Stream::DeviceTemperature)).round(),
            power_w: (POWER_W * kept + DEVICE_W * offset + 8.0 * draw(Stream::DevicePower)).round(),
            util_ratio: (util * 100.0).round().clamp(0.0, 100.0) / 100.0,
            throttle_mask: MASK_THERMAL * hot,
            ecc_errors: self.ecc_errors[rank as usize] + self.new_errors(scenario, moment, rank),
        };
        self.ecc_errors[rank as usize] = reading.ecc_errors;
        reading
    }

    fn new_errors(&self, scenario: &Scenario, moment: Moment, rank: u32) -> u64 {
        let faulty =
            active(&scenario.faults, FaultKind::MemoryErrors, moment).filter(|fault| fault.touches(moment, rank));
        let rate = ERRORS_A_STEP + faulty.map(|fault| fault.strength(moment)).sum::<f64>();
        // The whole part always, one more with the chance of the rest: the mean is the rate.
        let chance = self.random.uniform(Stream::DeviceErrors, rank, moment.tick());
        rate as u64 + u64::from(chance < rate.fract())
    }
}
