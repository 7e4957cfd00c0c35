//! The kernels, compiled ahead: PTX that every driver from 525 on takes, for processors from `sm_80` on.

/// One file of kernels.
pub(super) struct Source {
    /// PTX, its first line the digest of what it was compiled from.
    pub(super) ptx: &'static str,
    /// Its entry points.
    pub(super) kernels: &'static [&'static str],
    /// What it was compiled from.
    #[cfg(test)]
    pub(super) text: &'static str,
    /// Name of that file, without its ending.
    #[cfg(test)]
    pub(super) name: &'static str,
}

macro_rules! sources {
    ($($name:literal: [$($kernel:literal),*],)*) => {
        /// All files.
        pub(super) static SOURCES: &[Source] = &[$(Source {
            ptx: include_str!(concat!("ptx/", $name, ".ptx")),
            kernels: &[$($kernel),*],
            #[cfg(test)]
            text: include_str!(concat!($name, ".cu")),
            #[cfg(test)]
            name: $name,
        }),*];
    };
}

sources! {
    "bocpd": ["bocpd"],
    "center_spread": ["center_spread"],
    "fingerprint": ["fingerprint_f32", "fingerprint_f16", "fingerprint_bf16", "fingerprint_e4m3", "fingerprint_e5m2"],
    "pairwise": ["pairwise_tiles", "pairwise_total"],
    "rolling_median": ["rolling_median"],
    "sequential": ["sequential"],
    "slack": ["slack_last", "slack_waits", "slack_total"],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `digest` in `compile`.
    fn digest(texts: &[&str]) -> u64 {
        let bytes = texts.iter().flat_map(|text| text.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn the_ptx_that_is_checked_in_was_compiled_from_the_sources_beside_it() {
        let header = include_str!("common.cuh");
        for source in SOURCES {
            let options = ["--gpu-architecture=compute_80", "--fmad=false", "--std=c++17"];
            let expected = digest(&[&[header, source.text], options.as_slice()].concat());
            let first_line = source.ptx.lines().next().unwrap_or_default();
            let name = source.name;
            assert_eq!(first_line, format!("// source {expected:016x}"), "{name}: run `kernels/src/cuda/compile`");
        }
    }

    #[test]
    fn the_ptx_names_its_kernels_and_the_oldest_processor_and_contracts_nothing() {
        for source in SOURCES {
            assert!(source.ptx.contains(".version 8.0\n.target sm_80\n"), "{}", source.name);
            assert_eq!(source.ptx.matches(".visible .entry ").count(), source.kernels.len(), "{}", source.name);
            for kernel in source.kernels {
                assert!(source.ptx.contains(&format!(".visible .entry {kernel}(")), "{kernel}");
            }
            // Without a rounding mode the assembler may contract, and with `.approx` or `.ftz` bits are lost.
            for word in source.ptx.split_whitespace().filter(|word| word.ends_with(".f32") || word.ends_with(".f64")) {
                let is_rounded = word.contains(".rn.")
                    || !["add.", "sub.", "mul.", "fma.", "mad.", "div.", "sqrt."]
                        .iter()
                        .any(|name| word.starts_with(name));
                assert!(is_rounded && !word.contains("approx") && !word.contains("ftz"), "{}: {word}", source.name);
            }
        }
    }
}
