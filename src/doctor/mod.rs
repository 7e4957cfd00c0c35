//! `doctor`: what is wrong here, and what to do about it. It changes nothing.

#[cfg(feature = "kafka")]
mod broker;
mod clock;
mod disk;
mod finding;
mod key;
mod limit;
mod port;
mod state;

use std::io::{self, Write};

use serde_json::json;

pub use self::finding::{Finding, Verdict};
use crate::config::Config;
use crate::output::{Output, printable};

/// Looks at everything that a service of this configuration needs.
#[must_use]
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let broker_clock = brokers(config, &mut findings);
    findings.extend(clock::look(config, broker_clock));
    findings.extend(disk::look(config));
    findings.extend(key::look(config));
    findings.extend(port::look(config));
    findings.extend(state::look(config));
    findings.extend(limit::look());
    findings
}

/// Looks at the brokers, where there are some; gives the append time of their newest record.
#[cfg(feature = "kafka")]
fn brokers(config: &Config, findings: &mut Vec<Finding>) -> Option<i64> {
    let options = config.kafka.as_ref()?;
    let (found, newest) = broker::look(options, &config.otlp.kafka_topics);
    findings.extend(found);
    newest
}

#[cfg(not(feature = "kafka"))]
fn brokers(_config: &Config, _findings: &mut Vec<Finding>) -> Option<i64> {
    None
}

/// Prints findings, one a line.
///
/// # Errors
/// When the writer fails.
pub fn write(out: &mut dyn Write, findings: &[Finding], output: Output) -> io::Result<()> {
    match output {
        Output::Table => findings.iter().try_for_each(|finding| {
            let Finding { verdict, group, what, advice, .. } = finding;
            writeln!(out, "{:<8} {group:<7} {}", verdict.to_string(), printable(what))?;
            if advice.is_empty() { Ok(()) } else { writeln!(out, "{:<16} {}", "", printable(advice)) }
        }),
        Output::Json => findings.iter().try_for_each(|finding| {
            let Finding { verdict, group, what, advice, .. } = finding;
            let mut line = json!({"verdict": verdict.to_string(), "group": group, "what": what});
            if !advice.is_empty() {
                line["advice"] = json!(advice);
            }
            writeln!(out, "{line}")
        }),
        Output::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(["verdict", "group", "what", "advice"])?;
            for Finding { verdict, group, what, advice, .. } in findings {
                writer.write_record([&verdict.to_string(), *group, what, advice])?;
            }
            writer.flush()
        }
    }
}
