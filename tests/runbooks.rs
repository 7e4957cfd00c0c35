//! Every kind has a runbook, and a runbook says nothing that the program does not know.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use trainwarden::cli::Cli;
use trainwarden_detect::DetectorKind;
use trainwarden_telemetry::Kind;

const HEADINGS: [&str; 6] = ["What it means", "The numbers", "Innocent causes first", "Confirm", "Do", "Do not"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks")
}

/// Every page: its name without the ending, and its text.
fn pages() -> Vec<(String, String)> {
    let entries = fs::read_dir(folder()).expect("the folder is there");
    let mut pages: Vec<(String, String)> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .map(|path| {
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a page is text"))
        })
        .collect();
    pages.sort();
    pages
}

/// The lines of the blocks of code.
fn commands(text: &str) -> Vec<&str> {
    text.split("```").skip(1).step_by(2).flat_map(|block| block.lines().skip(1)).collect()
}

/// Texts in backticks, outside of blocks of code.
fn quoted(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    prose.split('`').skip(1).step_by(2).map(|text| text.replace('\n', " ")).collect()
}

#[test]
fn every_kind_has_a_runbook_and_every_runbook_a_kind() {
    let kinds: BTreeSet<String> = Kind::ALL.iter().map(|kind| kind.to_string()).collect();
    let names: BTreeSet<String> = pages().into_iter().map(|(name, _)| name).filter(|name| name != "README").collect();
    assert_eq!(names, kinds);
    let (_, index) = pages().into_iter().find(|(name, _)| name == "README").expect("there is an index");
    for kind in &kinds {
        assert!(index.contains(&format!("| [`{kind}`]({kind}.md) |")), "{kind} is not in the index");
    }
}

#[test]
fn every_runbook_has_its_headings_in_order_and_something_under_each() {
    for (name, text) in pages().into_iter().filter(|(name, _)| name != "README") {
        assert!(text.starts_with(&format!("# `{name}`\n")), "{name}");
        let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
        let headings: Vec<&str> = sections.iter().filter_map(|section| section.lines().next()).collect();
        assert_eq!(headings, HEADINGS, "{name}");
        for section in &sections {
            let words = section.split_whitespace().count();
            assert!(words > 8, "{name}: {section}");
        }
        assert!(!commands(&text).is_empty(), "{name} says how to confirm and shows no command");
        assert!(text.lines().count() < 80, "{name} is too long for the night");
    }
}

#[test]
fn no_two_runbooks_share_a_paragraph() {
    let mut seen = BTreeSet::new();
    for (name, text) in pages() {
        let prose: String = text.split("```").step_by(2).collect();
        for paragraph in prose.split("\n\n").filter(|paragraph| paragraph.split_whitespace().count() > 12) {
            assert!(seen.insert(paragraph.to_owned()), "{name} repeats: {paragraph}");
        }
    }
}

#[test]
fn every_link_of_a_runbook_leads_somewhere() {
    for (name, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or(link);
            assert!(folder().join(file).is_file(), "{name}: {link}");
        }
    }
}

#[test]
fn every_command_of_trainwarden_in_a_runbook_is_one() {
    let mut count = 0;
    for (name, text) in pages() {
        let in_prose = quoted(&text);
        let lines = commands(&text).into_iter().chain(in_prose.iter().map(String::as_str));
        for line in lines.filter(|line| line.starts_with("trainwarden ")) {
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{name}: `{line}`: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= Kind::ALL.len(), "{count} commands");
    assert!(Cli::try_parse_from(["trainwarden", "incidents", "explain", "inc_1"]).is_err(), "the check can fail");
}

#[test]
fn no_runbook_names_a_kind_or_a_detector_that_does_not_exist() {
    let families: BTreeSet<&str> = Kind::ALL.iter().filter_map(|kind| kind.as_str().split('.').next()).collect();
    let detectors: BTreeSet<&str> = DetectorKind::ALL.iter().map(|kind| kind.build().spec().name).collect();
    for (name, text) in pages() {
        for word in quoted(&text) {
            let Some((family, kind)) = word.split_once('.').filter(|(family, _)| families.contains(family)) else {
                continue;
            };
            let is_kind = Kind::ALL.iter().any(|known| known.as_str() == word);
            assert!(is_kind || kind == "*", "{name}: `{word}`; `{family}` is a family, and this none of its kinds");
        }
        for page in text.split("../detectors/").skip(1).filter_map(|rest| rest.split(".md").next()) {
            assert!(detectors.contains(page), "{name}: {page}");
        }
    }
}

#[test]
fn the_runbook_of_a_kind_names_every_detector_that_finds_it() {
    let pages = pages();
    for detector in DetectorKind::ALL {
        let detector = detector.build();
        let spec = detector.spec();
        for kind in spec.kinds {
            let (_, text) = pages.iter().find(|(name, _)| name == kind.as_str()).expect("every kind has one");
            assert!(text.contains(&format!("../detectors/{}.md", spec.name)), "{kind}: {} finds it too", spec.name);
        }
    }
}
