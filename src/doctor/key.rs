//! Keys, passwords and certificates: are their files there, safe, and what they should be.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Finding;
use crate::config::{Config, KeyConfig, read_key};

const GROUP: &str = "keys";
/// Rights that let others than owner and group read a file.
const READ_BY_OTHERS: u32 = 0o004;

/// Looks at keys.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = senders(&config.ingest.keys);
    if let Some(path) = &config.otlp.key {
        findings.extend(file("`otlp.key`", path, true));
        if let Err(error) = read_key(path) {
            findings.push(Finding::wrong(GROUP, format!("{error:#}"), "write 64 hexadecimal digits into it"));
        }
    }
    if !config.takes_otlp() {
        let advice = "set `otlp.key`, if exporters of OpenTelemetry are to be heard";
        findings
            .push(Finding::good(GROUP, format!("what comes by OTLP is refused, because it is not signed ({advice})")));
    }
    findings.extend(kafka_files(config));
    findings
}

fn senders(keys: &[KeyConfig]) -> Vec<Finding> {
    if keys.is_empty() {
        let advice = "name the senders' keys in `ingest.keys`, where others than you can send";
        return vec![Finding::warning(GROUP, "every sender is believed: no signature is asked for", advice)];
    }
    let mut findings = Vec::new();
    let mut epochs: BTreeMap<&str, BTreeMap<u32, u32>> = BTreeMap::new();
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for KeyConfig { sender, epoch, key } in keys {
        *epochs.entry(sender).or_default().entry(*epoch).or_default() += 1;
        if let Some(other) = owners.insert(key.to_lowercase(), sender).filter(|other| other != sender) {
            let what = format!("`{sender}` and `{other}` have the same key: each can speak as the other");
            findings.push(Finding::wrong(GROUP, what, "make a key for each sender"));
        }
    }
    for (sender, epochs) in epochs {
        for (epoch, count) in epochs.iter().filter(|(_, count)| **count > 1) {
            let what =
                format!("`ingest.keys` has {count} keys of `{sender}` of epoch {epoch}, and only the last counts");
            findings.push(Finding::wrong(GROUP, what, "give a new key the next epoch"));
        }
        if let Some((newest, _)) = epochs.last_key_value().filter(|_| epochs.len() > 1) {
            let what = format!("keys of `{sender}` from before epoch {newest} still count");
            let advice = "remove them from `ingest.keys` when the sender signs with the new one";
            findings.push(Finding::warning(GROUP, what, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(
            GROUP,
            format!("{} of `ingest.keys` count", crate::output::counted(keys.len() as u64, "key")),
        ));
    }
    findings
}

#[cfg(not(feature = "kafka"))]
fn kafka_files(_config: &Config) -> Vec<Finding> {
    Vec::new()
}

#[cfg(feature = "kafka")]
fn kafka_files(config: &Config) -> Vec<Finding> {
    let Some(kafka) = &config.kafka else { return Vec::new() };
    let mut files: Vec<(&str, &Path, bool)> = Vec::new();
    if let Some(tls) = &kafka.tls {
        files.extend(tls.ca.as_deref().map(|path| ("`kafka.tls.ca`", path, false)));
        files.extend(tls.cert.as_deref().map(|path| ("`kafka.tls.cert`", path, false)));
        files.extend(tls.key.as_deref().map(|path| ("`kafka.tls.key`", path, true)));
    }
    if let Some(sasl) = &kafka.sasl {
        files.extend(sasl.password_file.as_deref().map(|path| ("`kafka.sasl.password_file`", path, true)));
    }
    files.into_iter().flat_map(|(name, path, is_secret)| file(name, path, is_secret)).collect()
}

/// A file that must be readable for us, and where it is secret, for nobody else.
fn file(name: &str, path: &Path, is_secret: bool) -> Vec<Finding> {
    let shown = path.display();
    let opened = std::fs::File::open(path).and_then(|file| file.metadata());
    let mode = match opened {
        Ok(told) => told.permissions().mode(),
        Err(error) => {
            let what = format!("{name}: cannot read `{shown}`: {error}");
            return vec![Finding::wrong(GROUP, what, "name a file that the user of the service can read")];
        }
    };
    match is_secret && mode & READ_BY_OTHERS != 0 {
        true => {
            let what = format!("{name}: everybody on this machine can read `{shown}` (mode {:03o})", mode & 0o777);
            vec![Finding::wrong(GROUP, what, format!("chmod 600 {shown}"))]
        }
        false => vec![Finding::good(GROUP, format!("{name}: `{shown}` can be read"))],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn key(sender: &str, epoch: u32, byte: &str) -> KeyConfig {
        KeyConfig { sender: sender.to_owned(), epoch, key: byte.repeat(32) }
    }

    fn verdicts(keys: &[KeyConfig]) -> Vec<Verdict> {
        senders(keys).iter().map(|found| found.verdict).collect()
    }

    #[test]
    fn keys_that_are_shared_repeated_or_old_are_told() {
        assert_eq!(verdicts(&[key("a", 0, "01"), key("b", 0, "02")]), [Verdict::Good]);
        assert_eq!(verdicts(&[]), [Verdict::Warning]);
        assert_eq!(verdicts(&[key("a", 0, "01"), key("b", 0, "01")]), [Verdict::Wrong], "one key, two senders");
        assert_eq!(verdicts(&[key("a", 0, "01"), key("a", 0, "02")]), [Verdict::Wrong], "one epoch, two keys");
        assert_eq!(verdicts(&[key("a", 0, "01"), key("a", 1, "02")]), [Verdict::Warning], "an old epoch counts");
    }

    #[test]
    fn a_secret_is_readable_for_us_and_for_nobody_else() {
        let path = tempfile::NamedTempFile::new().expect("a temporary file");
        let look = |mode| {
            std::fs::set_permissions(path.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
            file("`otlp.key`", path.path(), true)[0].clone()
        };
        assert_eq!(look(0o600).verdict, Verdict::Good);
        let open = look(0o644);
        assert!(open.verdict == Verdict::Wrong && open.advice.starts_with("chmod 600"), "{open:?}");
        assert_eq!(file("`kafka.tls.ca`", path.path(), false)[0].verdict, Verdict::Good);
        assert_eq!(file("`otlp.key`", Path::new("/nonexistent/key"), true)[0].verdict, Verdict::Wrong);
    }

    #[test]
    fn a_key_that_is_none_is_wrong() {
        let path = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(path.path(), "abc").expect("written");
        let mut config = Config::default();
        config.otlp.key = Some(path.path().to_owned());
        assert!(look(&config).iter().any(|found| found.verdict == Verdict::Wrong && found.what.contains("is no key")));
        std::fs::write(path.path(), "07".repeat(32)).expect("written");
        assert!(look(&config).iter().all(|found| found.verdict != Verdict::Wrong));
    }
}
