//! Which backend computes a call: the CPU, or a device where it pays.

use std::str::FromStr;

use ndarray::ArrayView2;

use crate::backend::{Backend, CenterSpread, KernelError};
use crate::cpu::{
    Bocpd, Bracket, Cpu, Fingerprint, FingerprintKey, Format, RollingMedian, SequentialBank, SequentialSettings, Slack,
};
use crate::cuda::Cuda;

/// From so many points on, `auto` lets a device sum pairwise distances: of all calls whose data come from the host and
/// whose results go back, the only one whose work grows faster than what is copied. Nothing else of this table is
/// measured yet, so nothing else goes to a device by itself: `docs/decisions/0007-backend-choice.md`.
const PAIRWISE_POINTS_MIN: usize = 65_536;

/// Who is to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A device where it pays and there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU alone.
    Cpu,
    /// A device for everything that it can; the CPU where there is none.
    Cuda,
}

impl FromStr for Choice {
    type Err = KernelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(KernelError::Choice { given: text.to_owned() }),
        }
    }
}

/// Opens a device.
type Open = fn() -> Result<Box<dyn Backend>, KernelError>;

enum Device {
    /// Nothing needed it yet: a driver is not started for calls that do not pay.
    Unopened(Open),
    Open(Box<dyn Backend>),
    /// There is none, or it was lost.
    Absent,
}

/// Backends behind a [`Choice`]. A call that a device does not finish is computed by the CPU, from the state as it was,
/// with the same bits; a lost device is not asked again.
pub struct Chosen {
    choice: Choice,
    cpu: Cpu,
    device: Device,
    report: Option<String>,
    is_reported: bool,
    taken_over: u64,
}

impl Chosen {
    /// A backend of this choice. No device is opened before the first call that is for it.
    #[must_use]
    pub fn new(choice: Choice) -> Self {
        Self::with_device(choice, || Ok(Box::new(Cuda::open()?)))
    }

    fn with_device(choice: Choice, open: Open) -> Self {
        Self {
            choice,
            cpu: Cpu::new(),
            device: Device::Unopened(open),
            report: None,
            is_reported: false,
            taken_over: 0,
        }
    }

    /// What a person should be told: that a device was lost, or that there is none though it was asked for. Told once.
    pub fn take_report(&mut self) -> Option<String> {
        self.report.take()
    }

    /// Number of calls that were for a device and that the CPU computed.
    #[must_use]
    pub fn taken_over(&self) -> u64 {
        self.taken_over
    }

    /// The device that this call is for.
    fn device_for(&mut self, pays: bool) -> Option<&mut dyn Backend> {
        let is_for_device = match self.choice {
            Choice::Auto => pays,
            Choice::Cpu => false,
            Choice::Cuda => true,
        };
        if !is_for_device {
            return None;
        }
        if let Device::Unopened(open) = self.device {
            self.device = match open() {
                Ok(device) => Device::Open(device),
                Err(error) => {
                    // Who leaves the choice to us misses nothing without a device.
                    if self.choice == Choice::Cuda {
                        self.tell(&error);
                    }
                    Device::Absent
                }
            };
        }
        match &mut self.device {
            Device::Open(device) => Some(device.as_mut()),
            _ => {
                self.taken_over += 1;
                None
            }
        }
    }

    fn tell(&mut self, error: &KernelError) {
        if !self.is_reported {
            self.report = Some(format!("{error}; the CPU computes, with the same results"));
            self.is_reported = true;
        }
    }

    fn compute<T>(
        &mut self,
        pays: bool,
        mut call: impl FnMut(&mut dyn Backend) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        if let Some(device) = self.device_for(pays) {
            match call(device) {
                Err(error @ KernelError::Device { is_lost, .. }) => {
                    self.taken_over += 1;
                    self.tell(&error);
                    if is_lost {
                        self.device = Device::Absent;
                    }
                }
                outcome => return outcome,
            }
        }
        call(&mut self.cpu)
    }
}

impl Backend for Chosen {
    /// `cuda` while a device is open.
    fn name(&self) -> &'static str {
        match &self.device {
            Device::Open(device) => device.name(),
            _ => self.cpu.name(),
        }
    }

    fn center_spread(
        &mut self,
        values: ArrayView2<'_, f32>,
        present: ArrayView2<'_, bool>,
    ) -> Result<CenterSpread, KernelError> {
        self.compute(false, |backend| backend.center_spread(values, present))
    }

    fn center_spread_tick(
        &mut self,
        values: &[f32],
        columns: usize,
        brackets: &mut [Bracket],
        statistics: &mut CenterSpread,
    ) -> Result<(), KernelError> {
        self.compute(false, |backend| backend.center_spread_tick(values, columns, brackets, statistics))
    }

    fn fingerprint(
        &mut self,
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint,
    ) -> Result<(), KernelError> {
        self.compute(false, |backend| backend.fingerprint(bytes, format, key, first_tile, fingerprint))
    }

    fn sequential_update(
        &mut self,
        bank: &mut SequentialBank,
        values: &[f32],
        settings: &SequentialSettings,
    ) -> Result<usize, KernelError> {
        self.compute(false, |backend| backend.sequential_update(bank, values, settings))
    }

    fn slack(&mut self, arrivals: &[f32], slack: &mut Slack) -> Result<(), KernelError> {
        self.compute(false, |backend| backend.slack(arrivals, slack))
    }

    fn pairwise_row_sums(&mut self, points: &[f32], sums: &mut [f64]) -> Result<(), KernelError> {
        self.compute(sums.len() >= PAIRWISE_POINTS_MIN, |backend| backend.pairwise_row_sums(points, sums))
    }

    fn rolling_median(
        &mut self,
        state: &mut RollingMedian,
        values: &[f32],
        medians: &mut [f32],
    ) -> Result<(), KernelError> {
        self.compute(false, |backend| backend.rolling_median(state, values, medians))
    }

    fn bocpd_update(&mut self, state: &mut Bocpd, values: &[f32]) -> Result<(), KernelError> {
        self.compute(false, |backend| backend.bocpd_update(state, values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_device() -> Result<Box<dyn Backend>, KernelError> {
        Err(KernelError::Device { what: "open a device", reason: "there is none".into(), is_lost: true })
    }

    fn never() -> Result<Box<dyn Backend>, KernelError> {
        panic!("nothing here is for a device")
    }

    #[test]
    fn a_choice_is_read_from_its_name_and_another_word_is_told_the_names() {
        assert_eq!("cuda".parse::<Choice>().expect("a name"), Choice::Cuda);
        let error = "gpu".parse::<Choice>().expect_err("no name");
        assert_eq!(error.to_string(), "`gpu` is no backend; there are `auto`, `cpu` and `cuda`");
    }

    #[test]
    fn small_calls_of_auto_and_all_of_cpu_open_no_device() {
        let mut sums = vec![0.0; 3];
        let mut auto = Chosen::with_device(Choice::Auto, never);
        auto.pairwise_row_sums(&[0.0, 1.0, 5.0], &mut sums).expect("three points");
        assert_eq!((sums, auto.name()), (vec![6.0, 5.0, 9.0], "cpu"));
        let mut cpu = Chosen::with_device(Choice::Cpu, never);
        assert!(cpu.device_for(true).is_none());
        assert_eq!(cpu.taken_over(), 0);
        // A large call of `auto` looks for a device, and without one says nothing.
        let mut auto = Chosen::with_device(Choice::Auto, no_device);
        assert!(auto.device_for(true).is_none());
        assert_eq!((auto.take_report(), auto.taken_over()), (None, 1));
    }

    #[test]
    fn where_a_device_is_asked_for_and_there_is_none_it_is_told_once() {
        let mut chosen = Chosen::with_device(Choice::Cuda, no_device);
        let mut slack = Slack::new(2);
        for _ in 0..3 {
            chosen.slack(&[1.0, 3.0], &mut slack).expect("whole collectives");
        }
        assert_eq!(slack.waited, [6.0, 0.0]);
        let report = chosen.take_report().expect("told");
        assert_eq!(
            report,
            "the device could not open a device: there is none; the CPU computes, with the same results"
        );
        assert_eq!((chosen.take_report(), chosen.taken_over()), (None, 3));
    }

    /// Loses an emulated device after every possible number of launches.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn a_device_lost_at_any_launch_changes_no_answer_and_is_told_once() {
        use crate::cuda::emulated_for;

        let arrivals: Vec<f32> = (0..5 * 40).map(|at| ((at * 7_919) % 101) as f32).collect();
        let settings = SequentialSettings::default();
        let calls = |backend: &mut dyn Backend| {
            let (mut slack, mut bank) = (Slack::new(5), SequentialBank::new(40, 0.0, 1.0));
            for _ in 0..2 {
                backend.slack(&arrivals, &mut slack).expect("whole collectives");
                backend.sequential_update(&mut bank, &arrivals, &settings).expect("whole ticks");
            }
            (slack.waited, slack.blamed, bank)
        };
        let expected = calls(&mut Cpu::new());
        for launches in 0..9 {
            let Some(device) = emulated_for(launches) else { return };
            let mut chosen = Chosen::with_device(Choice::Cuda, never);
            chosen.device = Device::Open(device);
            assert!(calls(&mut chosen) == expected, "lost after {launches} launches");
            // The two rounds take eight launches: three of the one, one of the other.
            assert_eq!(chosen.take_report().is_some(), launches < 8, "{launches}");
            assert_eq!(chosen.name(), if launches < 8 { "cpu" } else { "cuda" });
            assert_eq!(chosen.take_report(), None);
        }
    }
}
