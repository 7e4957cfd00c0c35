//! The CUDA backend: the CPU's results, bit for bit, computed on a device.
//!
//! Kernels are compiled ahead (see `compile` in this folder) and loaded with the driver that the machine has; without
//! one, [`Cuda::open`] says so. One thread owns the device. A call that fails is an error that leaves the state of its
//! caller as it was, so that the CPU can go on with it: see [`crate::Chosen`].

#![expect(unsafe_code, reason = "calls of the driver, and bytes of arrays that go to a device")]

mod device;
mod driver;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod emulator;
mod engine;
mod owner;
mod sources;

use ndarray::ArrayView2;

use crate::backend::{Backend, CenterSpread, KernelError};
use crate::cpu::{
    Bocpd, Bracket, Fingerprint, FingerprintKey, Format, RollingMedian, SequentialBank, SequentialSettings, Slack,
    equal, whole,
};
use device::{Device, Fault};
use driver::Driver;
use owner::Owner;

impl From<Fault> for KernelError {
    fn from(Fault { what, reason, is_lost }: Fault) -> Self {
        Self::Device { what, reason, is_lost }
    }
}

/// A CUDA device of this machine.
pub struct Cuda(OnDevice<Driver>);

impl Cuda {
    /// The first device of the machine.
    ///
    /// # Errors
    /// [`KernelError::Device`] where there is no driver, no device, an older one than `sm_80`, or a broken driver.
    pub fn open() -> Result<Self, KernelError> {
        let (owner, name) = Owner::open(Driver::open, |driver| driver.name().to_owned())?;
        Ok(Self(OnDevice { owner, name }))
    }

    /// What the device calls itself.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.0.name
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Cuda").field(&self.0.name).finish()
    }
}

/// The backend over any device.
struct OnDevice<D: Device> {
    owner: Owner<D>,
    name: String,
}

impl<D: Device + 'static> Backend for OnDevice<D> {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn center_spread(
        &mut self,
        values: ArrayView2<'_, f32>,
        present: ArrayView2<'_, bool>,
    ) -> Result<CenterSpread, KernelError> {
        let (shape, mask_shape) = (values.dim(), present.dim());
        if shape != mask_shape {
            return Err(KernelError::Shape { values: shape.into(), present: mask_shape.into() });
        }
        let (values, present) = (values.as_standard_layout(), present.as_standard_layout());
        let values = values.as_slice().expect("the standard layout is one piece");
        let present = engine::cells_of(present.as_slice().expect("the standard layout is one piece"));
        Ok(self.owner.run(|engine| engine.center_spread(values, Some(present), shape.into()))?)
    }

    fn center_spread_tick(
        &mut self,
        values: &[f32],
        columns: usize,
        brackets: &mut [Bracket],
        statistics: &mut CenterSpread,
    ) -> Result<(), KernelError> {
        let rows = brackets.len();
        equal("values", values.len(), columns * rows)?;
        *statistics = self.owner.run(|engine| engine.center_spread(values, None, [rows, columns]))?;
        for (bracket, (median, mad)) in brackets.iter_mut().zip(statistics.median.iter().zip(&statistics.mad)) {
            // The device needs no guess; a CPU that goes on does.
            bracket.learn(*median, *mad);
        }
        Ok(())
    }

    fn fingerprint(
        &mut self,
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint,
    ) -> Result<(), KernelError> {
        whole("bytes", bytes.len(), format.bytes())?;
        Ok(self.owner.run(|engine| engine.fingerprint(bytes, format, key, first_tile, fingerprint))?)
    }

    fn sequential_update(
        &mut self,
        bank: &mut SequentialBank,
        values: &[f32],
        settings: &SequentialSettings,
    ) -> Result<usize, KernelError> {
        whole("values", values.len(), bank.len())?;
        Ok(self.owner.run(|engine| engine.sequential(bank, values, settings))?)
    }

    fn slack(&mut self, arrivals: &[f32], slack: &mut Slack) -> Result<(), KernelError> {
        whole("arrivals", arrivals.len(), slack.waited.len())?;
        Ok(self.owner.run(|engine| engine.slack(arrivals, slack))?)
    }

    fn pairwise_row_sums(&mut self, points: &[f32], sums: &mut [f64]) -> Result<(), KernelError> {
        whole("points", points.len(), sums.len())?;
        Ok(self.owner.run(|engine| engine.pairwise(points, sums))?)
    }

    fn rolling_median(
        &mut self,
        state: &mut RollingMedian,
        values: &[f32],
        medians: &mut [f32],
    ) -> Result<(), KernelError> {
        whole("values", values.len(), state.series())?;
        equal("medians", medians.len(), values.len())?;
        Ok(self.owner.run(|engine| engine.rolling_median(state, values, medians))?)
    }

    fn bocpd_update(&mut self, state: &mut Bocpd, values: &[f32]) -> Result<(), KernelError> {
        equal("values", values.len(), state.series())?;
        Ok(self.owner.run(|engine| engine.bocpd(state, values))?)
    }
}

/// Hands every call on to the device.
macro_rules! handed_on {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        impl Backend for Cuda {
            fn name(&self) -> &'static str {
                self.0.name()
            }

            $(fn $name(&mut self, $($arg: $ty),*) -> Result<$ret, KernelError> {
                self.0.$name($($arg),*)
            })*
        }
    };
}

handed_on! {
    center_spread(values: ArrayView2<'_, f32>, present: ArrayView2<'_, bool>) -> CenterSpread;
    center_spread_tick(
        values: &[f32],
        columns: usize,
        brackets: &mut [Bracket],
        statistics: &mut CenterSpread
    ) -> ();
    fingerprint(
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint
    ) -> ();
    sequential_update(bank: &mut SequentialBank, values: &[f32], settings: &SequentialSettings) -> usize;
    slack(arrivals: &[f32], slack: &mut Slack) -> ();
    pairwise_row_sums(points: &[f32], sums: &mut [f64]) -> ();
    rolling_median(state: &mut RollingMedian, values: &[f32], medians: &mut [f32]) -> ();
    bocpd_update(state: &mut Bocpd, values: &[f32]) -> ();
}

/// The backend over the emulator; none where the machine cannot compile it.
#[cfg(test)]
pub(crate) fn emulated() -> Option<Box<dyn Backend>> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let emulator = emulator::Emulator::open()?;
        let (owner, ()) = Owner::open(move || Ok(emulator), |_| ()).expect("an emulator opens");
        Some(Box::new(OnDevice { owner, name: "emulator".into() }))
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}

/// As [`emulated`], of a device that is lost after so many launches.
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn emulated_for(launches: usize) -> Option<Box<dyn Backend>> {
    let mut emulator = emulator::Emulator::open()?;
    emulator.launches_left = Some(launches);
    let (owner, ()) = Owner::open(move || Ok(emulator), |_| ()).expect("an emulator opens");
    Some(Box::new(OnDevice { owner, name: "emulator".into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_so_and_does_not_panic() {
        // Where there is a device the answer is another one, and as good.
        match Cuda::open() {
            Ok(cuda) => assert!(!cuda.device_name().is_empty()),
            Err(error) => assert!(error.to_string().starts_with("the device could not "), "{error}"),
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn a_lost_device_leaves_the_state_as_it_was() {
        let Some(mut emulator) = emulator::Emulator::open() else { return };
        emulator.launches_left = Some(1);
        let (owner, ()) = Owner::open(move || Ok(emulator), |_| ()).expect("an emulator opens");
        let mut device = OnDevice { owner, name: "emulator".into() };
        let mut slack = Slack::new(2);
        // Three launches are needed, one is granted.
        let outcome = device.slack(&[1.0, 2.0], &mut slack);
        assert!(matches!(outcome, Err(KernelError::Device { is_lost: true, .. })), "{outcome:?}");
        assert_eq!(slack, Slack::new(2));
        let mut bank = SequentialBank::new(3, 0.0, 1.0);
        assert!(device.sequential_update(&mut bank, &[1.0; 3], &SequentialSettings::default()).is_err());
        assert_eq!(bank, SequentialBank::new(3, 0.0, 1.0));
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn a_panic_on_the_thread_of_the_device_is_an_error() {
        let Some(emulator) = emulator::Emulator::open() else { return };
        let (owner, ()) = Owner::open(move || Ok(emulator), |_| ()).expect("an emulator opens");
        let outcome = owner.run(|_| -> Result<(), Fault> { panic!("missing symbol") });
        assert_eq!(outcome.expect_err("it panicked").reason, "missing symbol");
        let broken = Owner::<emulator::Emulator>::open(|| panic!("a stub"), |_| ());
        assert!(broken.is_err_and(|fault| fault.is_lost));
    }
}
