//! Our own clock, against the log's and against the world's.

use std::path::Path;
use std::process::Command;

use trainwarden_ingest::EmbeddedLog;

use super::Finding;
use crate::config::Config;
use crate::serve::desk::now_ns;

const GROUP: &str = "clock";
/// A log that is so much ahead of us, in nanoseconds, is not only a matter of how clocks are kept apart.
const AHEAD_MAX_NS: i64 = 2_000_000_000;
/// No machine that we run on is older than this: 2024-01-01.
const BUILT_NS: i64 = 1_704_067_200_000_000_000;
/// An offset from the time servers, in seconds, that is worth a look.
const OFFSET_MAX_S: f64 = 0.5;

/// Looks at clocks.
///
/// * `broker_clock`: append time of the newest record on Kafka, where the log is there.
pub(super) fn look(config: &Config, broker_clock: Option<i64>) -> Vec<Finding> {
    let newest = broker_clock.or_else(|| EmbeddedLog::newest_time(&config.data.join("log")));
    let mut findings = vec![against_log(newest, now_ns())];
    findings.push(against_world(Path::new("/run/systemd/timesync/synchronized"), chrony().as_deref()));
    findings
}

fn against_log(newest: Option<i64>, now: i64) -> Finding {
    if now < BUILT_NS {
        return Finding::wrong(GROUP, "the clock of this machine stands before 2024", "set it, and let NTP keep it");
    }
    let Some(newest) = newest else { return Finding::good(GROUP, "the log holds no record to compare the clock with") };
    let ahead = newest.saturating_sub(now);
    let seconds = |ns: i64| ns as f64 / 1e9;
    if ahead > AHEAD_MAX_NS {
        let what = format!("the newest record of the log is {:.1} s in the future", seconds(ahead));
        let advice = "this clock is behind, or the log's is ahead: silence and deadlines are told by the log's; let NTP keep both";
        return Finding::wrong(GROUP, what, advice);
    }
    Finding::good(GROUP, format!("the newest record of the log is {:.1} s old", seconds(-ahead).max(0.0)))
}

/// * `synchronized`: the file that systemd-timesyncd makes when it has the time.
/// * `chrony`: what `chronyc -c tracking` says.
fn against_world(synchronized: &Path, chrony: Option<&str>) -> Finding {
    if let Some(offset) = chrony.and_then(chrony_offset_s) {
        let what = format!("chrony says that this clock is {offset:.6} s off");
        return match offset.abs() <= OFFSET_MAX_S {
            true => Finding::good(GROUP, what),
            false => Finding::wrong(GROUP, what, "see `chronyc sources`: which servers answer?"),
        };
    }
    if synchronized.exists() {
        return Finding::good(GROUP, "systemd-timesyncd keeps this clock");
    }
    let advice = "run chrony or systemd-timesyncd; in a container, look at its host";
    Finding::warning(GROUP, "nothing here says that NTP keeps this clock", advice)
}

fn chrony() -> Option<String> {
    let told = Command::new("chronyc").args(["-c", "tracking"]).output().ok()?;
    told.status.success().then(|| String::from_utf8_lossy(&told.stdout).into_owned())
}

/// The fifth field of `chronyc -c tracking` is the offset in seconds; without a server the first one is empty or zeros.
fn chrony_offset_s(line: &str) -> Option<f64> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let has_server = fields.first().is_some_and(|id| !id.trim_matches('0').is_empty());
    fields.get(4).filter(|_| has_server)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_log_in_the_future_is_wrong_and_one_in_the_past_is_not() {
        let now = BUILT_NS + 100_000_000_000;
        assert_eq!(against_log(Some(now - 1), now).verdict, Verdict::Good);
        assert_eq!(against_log(None, now).verdict, Verdict::Good);
        let ahead = against_log(Some(now + 60_000_000_000), now);
        assert!(ahead.verdict == Verdict::Wrong && ahead.what.contains("60.0 s in the future"), "{ahead:?}");
        assert_eq!(against_log(None, 5).verdict, Verdict::Wrong);
    }

    #[test]
    fn what_chrony_and_timesyncd_say_is_heeded() {
        let here = tempfile::NamedTempFile::new().expect("a temporary file");
        let nowhere = Path::new("/nonexistent/synchronized");
        let line = |offset: &str| {
            format!("C0A80101,192.168.1.1,3,1769860800.1,{offset},0.0,0.0,1.0,0.0,0.0,0.0,0.0,64.0,Normal\n")
        };
        assert_eq!(against_world(nowhere, Some(&line("-0.000120"))).verdict, Verdict::Good);
        assert_eq!(against_world(nowhere, Some(&line("7.5"))).verdict, Verdict::Wrong);
        assert_eq!(against_world(here.path(), None).verdict, Verdict::Good);
        assert_eq!(against_world(nowhere, Some("00000000,,0,0.0,0.0,0\n")).verdict, Verdict::Warning);
    }
}
