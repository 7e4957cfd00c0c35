//! The account as a table and as JSON.

use std::io::{self, Write};

use super::score::{FalseAlarm, KindScore, Quality};

/// Writes the tables of `docs/quality.md`.
///
/// # Errors
/// When the stream fails.
pub fn write_table(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    for (title, is_documented) in [("Documented labels", true), ("Labels by rule or status", false)] {
        writeln!(out, "\n### {title}\n")?;
        writeln!(
            out,
            "| kind, severity, confidence | labels | found | exact kind | right rank | delay in steps: median, max | undecidable |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        let chosen = quality.kinds.iter().filter(|(name, _)| name.ends_with("documented") == is_documented);
        for (name, score) in chosen {
            writeln!(out, "{}", line(name, score))?;
        }
    }
    write_alarms(out, quality)
}

fn line(name: &str, score: &KindScore) -> String {
    let mut delays = score.delays.clone();
    delays.sort_unstable();
    let delay = match (delays.get(delays.len() / 2), delays.last()) {
        (Some(median), Some(max)) => format!("{median}, {max}"),
        _ => "–".to_owned(),
    };
    let ranks = if score.ranked == 0 { "–".to_owned() } else { format!("{} of {}", score.top1, score.ranked) };
    let (labels, found, exact) = (score.labels, score.found, score.exact);
    format!(
        "| {name} | {labels} | {found} | {exact} | {ranks} | {delay} | {} ({} found) |",
        score.undecidable, score.undecidable_found
    )
}

fn write_alarms(out: &mut dyn Write, quality: &Quality) -> io::Result<()> {
    let is_counted = |alarm: &&FalseAlarm| !alarm.is_explained;
    let counted: Vec<&FalseAlarm> = quality.false_alarms.iter().filter(is_counted).collect();
    let traps = counted.iter().filter(|alarm| alarm.is_trap).count();
    writeln!(out, "\n### Clean training runs\n")?;
    writeln!(out, "| measure | value |\n|---|---|")?;
    writeln!(out, "| files, rows | {}, {} |", quality.clean_files, quality.clean_rows)?;
    writeln!(out, "| incidents of `warning` or above | {} |", counted.len() - traps)?;
    writeln!(out, "| ... per 1,000 rows | {:.4} |", quality.false_alarms_per_1000_rows())?;
    writeln!(out, "| ... per run | {:.4} |", (counted.len() - traps) as f64 / quality.clean_files.max(1) as f64)?;
    writeln!(out, "| at by-design labels, or naming a rank where none is guilty | {traps} |")?;
    let explained = quality.false_alarms.len() - counted.len();
    writeln!(out, "| apart: overlapping a `slow_phase` or `step_time_stall` label | {explained} |")?;
    writeln!(
        out,
        "| hard batches with an incident of `warning` or above | {} of {} |",
        quality.hard_batches.1, quality.hard_batches.0
    )?;
    writeln!(out, "| incidents of `info` | {} |", quality.notes_on_clean)?;
    if !counted.is_empty() {
        writeln!(out, "\nCounted as false alarms:\n")?;
        for alarm in counted {
            let trap = if alarm.is_trap { " (by design)" } else { "" };
            writeln!(out, "- {} {}{trap}: {} – {}", alarm.severity, alarm.kind, alarm.file, alarm.summary)?;
        }
    }
    let missed: Vec<(&String, &KindScore)> =
        quality.kinds.iter().filter(|(_, score)| !score.missed.is_empty() && score.labels <= 40).collect();
    if !missed.is_empty() {
        writeln!(out, "\nNot found:\n")?;
        for (name, score) in missed {
            writeln!(out, "- {name}: {}", score.missed.join(", "))?;
        }
    }
    if !quality.unread.is_empty() {
        writeln!(out, "\nNot read by any importer: {}", quality.unread.join(", "))?;
    }
    Ok(())
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
