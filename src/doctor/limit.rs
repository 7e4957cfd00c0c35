//! What the system lets one process have.

use super::Finding;

const GROUP: &str = "limits";
/// A connection a sender, and the files of log and archive.
const FILES_GOOD: u64 = 1_024;
/// Below it, the service alone has hardly enough.
const FILES_MIN: u64 = 128;

/// Looks at limits.
pub(super) fn look() -> Vec<Finding> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    files_of(&limits).map(files).into_iter().collect()
}

/// Open files that are allowed, from `/proc/self/limits`.
fn files_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn files(allowed: u64) -> Finding {
    let what = match allowed {
        u64::MAX => "open files are not limited".to_owned(),
        allowed => format!("{allowed} files may be open"),
    };
    let advice = "raise `LimitNOFILE` of the unit, or `ulimit -n`: each sender takes a connection";
    match allowed {
        ..FILES_MIN => Finding::wrong(GROUP, what, advice),
        FILES_MIN..FILES_GOOD => Finding::warning(GROUP, what, advice),
        _ => Finding::good(GROUP, what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn few_files_are_told() {
        let line = |soft: &str| format!("Limit  Soft Limit\nMax open files            {soft}      1048576   files\n");
        let verdict = |soft| files(files_of(&line(soft)).expect("a number")).verdict;
        assert_eq!(
            ["64", "256", "1024", "unlimited"].map(verdict),
            [Verdict::Wrong, Verdict::Warning, Verdict::Good, Verdict::Good]
        );
        assert_eq!(files_of("nothing here"), None);
    }
}
