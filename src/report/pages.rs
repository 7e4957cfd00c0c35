//! What the documentation says, inside the program: a page of each detector and a runbook of each kind.

use pulldown_cmark::{Event, Parser, Tag, TagEnd, html};
use trainwarden_telemetry::Kind;

macro_rules! pages {
    ($folder:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../docs/", $folder, "/", $name, ".md")))),*]
    };
}

const DETECTORS: &[(&str, &str)] = pages!("detectors":
    "batch_order" "contradiction" "data_shift" "desync" "device_errors" "duplicate_batch" "environment_change"
    "environment_mismatch" "evaluation_collapse" "gradient_explosion" "gradient_outlier" "hang" "inconsistent_update"
    "kills" "late_arrival" "lineage_break" "loss_drift" "loss_excursion" "metric_outlier" "metric_shift"
    "moved_weights" "nonfinite" "rank_outlier" "replayed" "replica_mismatch" "run_pauses" "run_slowdown" "schedule"
    "silence" "straggler" "throttle" "wandering_sleep");

const RUNBOOKS: &[(&str, &str)] = pages!("runbooks":
    "data.duplicate" "data.order" "data.shift" "divergence.drift" "divergence.gradient" "divergence.loss_spike"
    "divergence.nonfinite" "environment.changed" "environment.mismatch" "gradient.outlier_rank" "hardware.fault"
    "hardware.memory_errors" "hardware.throttle" "metric.outlier" "metric.shift" "optimizer.inconsistent_update"
    "optimizer.schedule" "process.kills" "slowdown.intermittent" "slowdown.link" "slowdown.periodic" "slowdown.rank"
    "slowdown.run" "stall.desync" "stall.hang" "telemetry.forged" "telemetry.inconsistent" "telemetry.replay"
    "telemetry.silence" "weights.lineage_break" "weights.replica_mismatch" "weights.unexplained_update");

/// One page of the documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page(&'static str);

impl Page {
    /// The page of a detector; `None` for a name that is none.
    pub(super) fn of_detector(name: &str) -> Option<Self> {
        find(DETECTORS, name)
    }

    /// The runbook of a kind.
    pub(super) fn of_kind(kind: Kind) -> Option<Self> {
        find(RUNBOOKS, kind.as_str())
    }

    /// What it says in one paragraph, before its first heading.
    pub(super) fn lead(self) -> String {
        let head = self.0.split("\n## ").next().unwrap_or_default();
        let text: Vec<&str> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        text.join(" ")
    }

    /// What it says under a heading, as HTML; empty where it has no such heading.
    pub(super) fn section(self, heading: &str) -> String {
        let mut sections = self.0.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
        let body = sections.find(|(title, _)| *title == heading).map_or("", |(_, body)| body);
        to_html(body.split("\n[All runbooks]").next().unwrap_or_default())
    }
}

fn find(pages: &[(&str, &'static str)], name: &str) -> Option<Page> {
    pages.iter().find(|(other, _)| *other == name).map(|(_, text)| Page(text))
}

/// Markdown as HTML. Links keep their words only: a report stands alone.
fn to_html(markdown: &str) -> String {
    let is_link = |event: &Event<'_>| {
        matches!(event, Event::Start(Tag::Link { .. } | Tag::Image { .. }) | Event::End(TagEnd::Link | TagEnd::Image))
    };
    let mut text = String::new();
    html::push_html(&mut text, Parser::new(markdown).filter(|event| !is_link(event)));
    text
}

#[cfg(test)]
mod tests {
    use trainwarden_detect::DetectorKind;

    use super::*;

    #[test]
    fn every_detector_and_every_kind_has_a_page_with_what_a_report_shows() {
        for kind in DetectorKind::ALL {
            let name = kind.build().spec().name;
            let page = Page::of_detector(name).unwrap_or_else(|| panic!("{name} has no page"));
            for heading in ["What it finds", "How it decides", "Blind spots"] {
                assert!(page.section(heading).starts_with("<p>"), "{name}: {heading}");
            }
        }
        for kind in Kind::ALL {
            let page = Page::of_kind(*kind).unwrap_or_else(|| panic!("{kind} has no runbook"));
            assert!(page.lead().ends_with('.'), "{kind}: {}", page.lead());
            for heading in ["What it means", "Innocent causes first", "Confirm", "Do", "Do not"] {
                let html = page.section(heading);
                assert!(html.starts_with('<') && !html.contains("<a "), "{kind}: {heading}: {html}");
            }
        }
    }
}
