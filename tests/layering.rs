//! The house stays as drawn: who may depend on whom, which heavy library has which home, which licences are linked.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

const PREFIX: &str = "trainwarden-";

/// What each crate of the house may depend on inside the house. Leaves have nothing; siblings do not import each other.
const PICTURE: &[(&str, &[&str])] = &[
    ("telemetry", &[]),
    ("kernels", &[]),
    ("detect", &["telemetry", "kernels"]),
    ("proto", &[]),
    ("ingest", &["telemetry", "proto"]),
    ("incidents", &["telemetry"]),
    ("simulate", &[]),
    ("store", &["telemetry"]),
    ("query", &["telemetry", "kernels", "store"]),
];

/// Libraries with one home: nobody else of the house may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("parquet", &["ingest", "store", "trainwarden"]),
    ("arrow", &["ingest", "store", "trainwarden"]),
    ("rdkafka", &["ingest"]),
    ("redb", &["store"]),
    ("arrow-flight", &["trainwarden"]),
    ("datafusion", &["query"]),
    ("landlock", &["query"]),
    ("seccompiler", &["query"]),
    ("object_store", &["store"]),
    ("clap", &["trainwarden"]),
    ("anyhow", &["trainwarden"]),
    ("cudarc", &["kernels"]),
    ("reqwest", &["trainwarden"]),
];

/// Libraries that do input, output or async: the core stays free of them.
const NOT_IN_CORE: &[&str] = &["tokio", "rdkafka", "tonic", "reqwest", "parquet", "csv", "tempfile", "flate2", "zstd"];

/// Licences that may be linked. No GPL, no AGPL, no LGPL.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Metadata {
    MetadataCommand::new().exec().expect("cargo describes this workspace")
}

fn house(metadata: &Metadata) -> BTreeMap<String, &Package> {
    let short = |package: &Package| package.name.strip_prefix(PREFIX).unwrap_or(&package.name).to_owned();
    metadata.workspace_packages().into_iter().map(|package| (short(package), package)).collect()
}

fn dependencies(package: &Package) -> BTreeSet<String> {
    let linked = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    linked.map(|dependency| dependency.name.clone()).collect()
}

#[test]
fn every_crate_depends_only_on_what_the_picture_allows() {
    let metadata = metadata();
    let house = house(&metadata);
    for (name, allowed) in PICTURE {
        let package = house.get(*name).unwrap_or_else(|| panic!("there is no crate {name}"));
        for dependency in dependencies(package) {
            if let Some(inside) = dependency.strip_prefix(PREFIX) {
                assert!(allowed.contains(&inside), "{name} depends on {inside}");
            }
        }
    }
    for name in house.keys().filter(|name| *name != "trainwarden") {
        assert!(PICTURE.iter().any(|(known, _)| known == name), "{name} is not in the picture");
    }
}

#[test]
fn heavy_libraries_stay_at_home_and_out_of_the_core() {
    let metadata = metadata();
    for (name, package) in house(&metadata) {
        let dependencies = dependencies(package);
        for (library, homes) in HOMES {
            assert!(!dependencies.contains(*library) || homes.contains(&name.as_str()), "{name} depends on {library}");
        }
        if ["telemetry", "kernels", "detect", "incidents", "simulate"].contains(&name.as_str()) {
            let found: Vec<&&str> = NOT_IN_CORE.iter().filter(|library| dependencies.contains(**library)).collect();
            assert!(found.is_empty(), "{name} is core and depends on {found:?}");
        }
    }
}

#[test]
fn what_is_linked_has_an_allowed_licence() {
    let metadata = metadata();
    let linked = linked(&metadata);
    assert!(linked.len() > 50, "only {} packages were looked at", linked.len());
    for package in metadata.packages.iter().filter(|package| linked.contains(&package.id)) {
        let licence = package.license.as_deref().unwrap_or("none told");
        assert!(is_allowed(licence), "{} is under `{licence}`", package.name);
    }
}

/// Packages that end in a binary: reached from the workspace without development dependencies.
fn linked(metadata: &Metadata) -> BTreeSet<PackageId> {
    let resolve = metadata.resolve.as_ref().expect("cargo resolves by default");
    let mut open: Vec<PackageId> = metadata.workspace_members.clone();
    let mut seen: BTreeSet<PackageId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == id).expect("every package has a node");
        let is_linked =
            |kinds: &[cargo_metadata::DepKindInfo]| kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
        open.extend(node.deps.iter().filter(|dep| is_linked(&dep.dep_kinds)).map(|dep| dep.pkg.clone()));
    }
    seen
}

/// One alternative of an expression is enough; of `AND` every part must be allowed.
fn is_allowed(expression: &str) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" OR ").any(|choice| choice.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn a_copyleft_licence_would_be_seen() {
    assert!(is_allowed("MIT OR Apache-2.0") && is_allowed("(MIT OR GPL-3.0) AND Unicode-3.0"));
    assert!(!is_allowed("GPL-3.0-only") && !is_allowed("AGPL-3.0") && !is_allowed("MIT AND LGPL-2.1"));
}
