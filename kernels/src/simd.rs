//! Which instructions the machine has, and how one body of code is compiled once for each of them.
//!
//! A kernel is written once, over arrays of lanes, and stamped: the compiler vectorises it anew for each set. Rust
//! neither contracts nor reorders floating-point arithmetic, so all stamps give the same bits; the plain one is the
//! definition. Only where a set has an instruction that the compiler does not find (compression, packed maxima) is a
//! kernel written by hand beside the plain one, and the tests hold the two against each other.
//!
//! On AArch64 the plain stamp is compiled with NEON, which that platform always has; there is no other one.

#![expect(unsafe_code, reason = "entering a function compiled for instructions that were found at run time")]

pub(crate) mod lanes;

use std::fmt;

pub(crate) use lanes::Lanes;

/// A set of vector instructions that this machine has.
///
/// Only [`Isa::best`] and [`Isa::all`] make one, after asking the processor: to hold an `Isa` is the proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Isa(pub(crate) Set);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Set {
    /// What every processor of the platform has: SSE2 on x86-64, NEON on AArch64.
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The widest set of this machine.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512() {
                return Self(Set::Avx512);
            }
            if has_avx2() {
                return Self(Set::Avx2);
            }
        }
        Self::plain()
    }

    /// The set that every machine has, which defines the results.
    #[must_use]
    pub const fn plain() -> Self {
        Self(Set::Plain)
    }

    /// Every set of this machine, narrowest first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "one set only"))]
        let mut sets = vec![Self::plain()];
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(has_avx2().then_some(Self(Set::Avx2)));
            sets.extend(has_avx512().then_some(Self(Set::Avx512)));
        }
        sets
    }

    /// `plain`, `avx2` or `avx512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Set::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}

impl Default for Isa {
    fn default() -> Self {
        Self::best()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// A body of code with its arguments, to be compiled for every set.
pub(crate) trait Kernel {
    /// What the body returns.
    type Output;

    /// The body. Implementers mark it `#[inline(always)]`: only inlined is it compiled for the caller's set.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs a body as compiled for `isa`.
#[inline]
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.0 {
        Set::Plain => kernel.run(lanes::Plain),
        // SAFETY: an `Isa` of this set exists only where `has_avx2` was true.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { run_avx2(kernel) },
        // SAFETY: an `Isa` of this set exists only where `has_avx512` was true.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { run_avx512(kernel) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function is entered only where the instructions are.
    kernel.run(unsafe { lanes::Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: this function is entered only where the instructions are.
    kernel.run(unsafe { lanes::Avx512::new() })
}

/// Declares functions whose body is stamped for every set; the first argument of what comes out is the [`Isa`].
/// References need a named lifetime `'a`.
macro_rules! stamped {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $(<const $flag:ident: bool>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes its arrays apart, so that the compiler knows them distinct")]
        $vis fn $name<'a $(, const $flag: bool)?>(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            struct Call<'a $(, const $flag: bool)?>($($ty,)* std::marker::PhantomData<&'a ()>);
            impl<'a $(, const $flag: bool)?> $crate::simd::Kernel for Call<'a $(, $flag)?> {
                type Output = $crate::simd::stamped!(@ret $($ret)?);
                #[inline(always)]
                fn run<L: $crate::simd::Lanes>(self, _: L) -> Self::Output {
                    #[inline(always)]
                    #[allow(clippy::too_many_arguments, reason = "as above")]
                    fn body<'a $(, const $flag: bool)?>($($arg: $ty),*) $(-> $ret)? $body
                    let Self($($arg,)* _) = self;
                    body $(::<$flag>)? ($($arg),*)
                }
            }
            $crate::simd::run(isa, Call::<'a $(, $flag)?>($($arg,)* std::marker::PhantomData))
        }
    )*};
    (@ret) => { () };
    (@ret $ret:ty) => { $ret };
}
pub(crate) use stamped;

/// As [`stamped`], for bodies written with the operations of [`Lanes`]: `fn name(l; …)`, where `l` offers them.
macro_rules! vectored {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($lanes:ident; $($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a kernel takes its arrays apart, so that the compiler knows them distinct")]
        $vis fn $name<'a>(isa: $crate::simd::Isa, $($arg: $ty),*) $(-> $ret)? {
            struct Call<'a>($($ty,)* std::marker::PhantomData<&'a ()>);
            impl<'a> $crate::simd::Kernel for Call<'a> {
                type Output = $crate::simd::stamped!(@ret $($ret)?);
                #[inline(always)]
                fn run<L: $crate::simd::Lanes>(self, lanes: L) -> Self::Output {
                    #[inline(always)]
                    #[allow(clippy::too_many_arguments, reason = "as above")]
                    fn body<'a, L: $crate::simd::Lanes>($lanes: L, $($arg: $ty),*) $(-> $ret)? $body
                    let Self($($arg,)* _) = self;
                    body(lanes, $($arg),*)
                }
            }
            $crate::simd::run(isa, Call::<'a>($($arg,)* std::marker::PhantomData))
        }
    )*};
}
pub(crate) use vectored;

#[cfg(test)]
mod tests {
    use super::*;

    stamped! {
        fn sum_of_squares(values: &'a [f32]) -> f32 {
            let mut lanes = [0.0_f32; 16];
            for chunk in values.as_chunks::<16>().0 {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane += value * value;
                }
            }
            lanes.iter().sum()
        }
    }

    #[test]
    fn a_stamped_body_gives_the_same_bits_for_every_set() {
        let values: Vec<f32> = (0..160).map(|at| (at as f32).sqrt()).collect();
        let plain = sum_of_squares(Isa::plain(), &values);
        assert!(plain > 0.0);
        for isa in Isa::all() {
            assert_eq!(sum_of_squares(isa, &values).to_bits(), plain.to_bits(), "{isa}");
        }
    }

    #[test]
    fn the_best_set_is_the_last_of_all() {
        assert_eq!(Isa::all().last(), Some(&Isa::best()));
        assert_eq!(Isa::all()[0].name(), "plain");
    }
}
