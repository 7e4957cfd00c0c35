//! The account as a table and as JSON.

use std::io::{self, Write};

use super::scenarios::ScenarioScore;
use super::score::{Alarm, FalseAlarm, KindScore, Quality};
use crate::output::counted;

/// The columns that labels and planted faults have in common.
const HEAD: &str = "found | exact kind | right rank | delay in steps: median, max";

/// Writes the tables of `docs/quality.md`; of a half that was left out none.
///
/// # Errors
/// When the stream fails.
pub fn write_table(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    if quality.files > 0 || !quality.unread.is_empty() {
        write_labels(out, quality)?;
        write_clean(out, quality)?;
        write_missed(out, quality)?;
    }
    if !quality.scenarios.is_empty() {
        write_scenarios(out, quality)?;
    }
    Ok(())
}

fn write_labels(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    for (title, is_documented) in [("Documented labels", true), ("Labels by rule or status", false)] {
        writeln!(out, "\n### {title}\n")?;
        writeln!(out, "| kind, severity, confidence | labels | {HEAD} | undecidable |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        let chosen = quality.kinds.iter().filter(|(name, _)| name.ends_with("documented") == is_documented);
        for (name, score) in chosen {
            let (undecidable, found) = (score.undecidable, score.undecidable_found);
            writeln!(out, "| {name} | {} | {undecidable} ({found} found) |", cells(score))?;
        }
    }
    Ok(())
}

/// How many there are, and what [`HEAD`] names.
fn cells(score: &KindScore) -> String {
    let mut delays = score.delays.clone();
    delays.sort_unstable();
    let delay = match (delays.get(delays.len() / 2), delays.last()) {
        (Some(median), Some(max)) => format!("{median}, {max}"),
        _ => "–".to_owned(),
    };
    let ranks = if score.ranked == 0 { "–".to_owned() } else { format!("{} of {}", score.top1, score.ranked) };
    format!("{} | {} | {} | {ranks} | {delay}", score.labels, score.found, score.exact)
}

fn write_clean(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    let is_counted = |alarm: &&FalseAlarm| !alarm.is_explained;
    let alarms: Vec<&FalseAlarm> = quality.false_alarms.iter().filter(is_counted).collect();
    let traps = alarms.iter().filter(|alarm| alarm.is_trap).count();
    writeln!(out, "\n### Clean training runs\n")?;
    writeln!(out, "| measure | value |\n|---|---|")?;
    writeln!(out, "| files, rows | {}, {} |", quality.clean_files, quality.clean_rows)?;
    writeln!(out, "| incidents of `warning` or above | {} |", alarms.len() - traps)?;
    writeln!(out, "| ... per 1,000 rows | {:.4} |", quality.false_alarms_per_1000_rows())?;
    writeln!(out, "| ... per run | {:.4} |", (alarms.len() - traps) as f64 / quality.clean_files.max(1) as f64)?;
    writeln!(out, "| at by-design labels, or naming a rank where none is guilty | {traps} |")?;
    let explained = quality.false_alarms.len() - alarms.len();
    writeln!(out, "| apart: overlapping a `slow_phase` or `step_time_stall` label | {explained} |")?;
    let (batches, hit) = quality.hard_batches;
    writeln!(out, "| hard batches with an incident of `warning` or above | {hit} of {batches} |")?;
    writeln!(out, "| incidents of `info` | {} |", quality.notes_on_clean)?;
    let line = |alarm: &&FalseAlarm| sentence(&alarm.alarm, if alarm.is_trap { " (by design)" } else { "" });
    write_list(out, "Counted as false alarms", alarms.iter().map(line))
}

fn sentence(alarm: &Alarm, remark: &str) -> String {
    format!("{} {}{remark}: {} – {}", alarm.severity, alarm.kind, alarm.file, alarm.summary)
}

/// A list under its title; nothing where it is empty.
fn write_list(out: &mut dyn Write, title: &str, lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        writeln!(out, "\n{title}:\n")?;
    }
    lines.try_for_each(|line| writeln!(out, "- {line}"))
}

fn write_missed(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    let missed = quality.kinds.iter().filter(|(_, score)| !score.missed.is_empty() && score.labels <= 40);
    write_list(out, "Not found", missed.map(|(name, score)| format!("{name}: {}", score.missed.join(", "))))?;
    if !quality.unread.is_empty() {
        writeln!(out, "\nNot read by any importer: {}", quality.unread.join(", "))?;
    }
    Ok(())
}

fn write_scenarios(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    let of = |number: u64, whole: u64| match whole {
        0 => "–".to_owned(),
        whole => format!("{number} of {whole} ({:.3})", number as f64 / whole as f64),
    };
    writeln!(out, "\n### Scenarios, {}\n", counted(quality.seeds, "seed"))?;
    writeln!(out, "| scenario | planted | {HEAD} | told beside | alarms in the twin |")?;
    writeln!(out, "|---|---|---|---|---|---|---|---|")?;
    let total = ScenarioScore::total(quality.scenarios.values());
    let lines = quality.scenarios.iter().map(|(name, score)| (name.as_str(), score)).chain([("all", &total)]);
    for (name, score) in lines {
        let twin = if score.twin_runs == 0 { "–".to_owned() } else { score.twin_alarms.len().to_string() };
        writeln!(out, "| {name} | {} | {} | {twin} |", cells(&score.faults), score.extras.len())?;
    }
    let faults = &total.faults;
    writeln!(out, "\n| measure | value |\n|---|---|")?;
    writeln!(out, "| runs with faults, healthy runs | {}, {} |", total.runs, total.twin_runs)?;
    writeln!(out, "| found at `warning` or above | {} |", of(faults.found, faults.labels))?;
    writeln!(out, "| ... of the exact kind | {} |", of(faults.exact, faults.labels))?;
    writeln!(out, "| a guilty rank first, where ranks are guilty | {} |", of(faults.top1, faults.ranked))?;
    writeln!(out, "| ... where one rank is guilty | {} |", of(faults.single_top1, faults.single))?;
    writeln!(out, "| incidents of `warning` or above beside the faults | {} |", total.extras.len())?;
    writeln!(out, "| ... in healthy twins | {} |", total.twin_alarms.len())?;
    write_list(out, "Not found", faults.missed.iter().cloned())?;
    write_list(out, "Found, and told otherwise", total.otherwise.iter().cloned())?;
    write_list(out, "Told beside the faults", total.extras.iter().map(|alarm| sentence(alarm, "")))?;
    write_list(out, "Told of healthy twins", total.twin_alarms.iter().map(|alarm| sentence(alarm, "")))
}

/// Writes the account as one JSON object.
///
/// # Errors
/// When the stream fails.
pub fn write_json(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    let mut value = serde_json::to_value(quality)?;
    value["false_alarms_per_1000_rows"] = quality.false_alarms_per_1000_rows().into();
    serde_json::to_writer_pretty(&mut *out, &value)?;
    out.write_all(b"\n")
}
