//! Finds the table files of run folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use trainwarden_telemetry::Table;

use crate::limits::FOLDER_DEPTH_MAX;
use crate::reject::reason;
use crate::{Format, IngestError, Place, Reject, Rejects};

/// One file of one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableSource {
    pub(crate) path: PathBuf,
    pub(crate) table: Table,
    pub(crate) format: Format,
    /// Columns that a partitioned writer moved from the file into folder names such as `run=llm-7b`.
    pub(crate) partitions: Vec<(String, String)>,
}

impl TableSource {
    /// A reject of this file.
    pub(crate) fn reject(&self, place: Place, reason: &'static str, detail: impl Into<String>) -> Reject {
        Reject {
            file: self.path.clone(),
            place,
            table: Some(self.table),
            column: None,
            reason,
            detail: detail.into(),
            row: None,
        }
    }

    /// The value that the folder names give to a column; an empty text is null.
    pub(crate) fn partition(&self, column: &str) -> Option<&str> {
        self.partitions.iter().rev().find(|(name, _)| name == column).map(|(_, value)| value.as_str())
    }
}

/// What partitioned writers call the folder of the null value.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// The table files under `paths`, sorted by path, each once.
///
/// A file given by name that is no table is set aside, unless nothing else is found.
///
/// # Errors
/// [`IngestError::NoPath`], [`IngestError::ListFolder`]; [`IngestError::NoTables`] when nothing at all is found.
pub(crate) fn find(paths: &[PathBuf], rejects: &mut Rejects) -> Result<Vec<TableSource>, IngestError> {
    let mut sources = Vec::new();
    let mut strangers = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => IngestError::NoPath { path: path.clone() },
            _ => IngestError::ReadFile { path: path.clone(), source },
        })?;
        if metadata.is_dir() {
            let mut seen = canonical(path).into_iter().collect();
            walk(path, Inherited::of_ancestors(path), &mut seen, &mut sources)?;
        } else if let Some(source) = path.parent().and_then(|dir| Inherited::of_ancestors(dir).source(path)) {
            sources.push(source);
        } else {
            strangers.push(path);
        }
    }
    if sources.is_empty() {
        return Err(no_tables(paths));
    }
    for path in strangers {
        let (file, place, reason) = (path.clone(), Place::File, reason::NOT_A_TABLE);
        rejects.add(&Reject { file, place, table: None, column: None, reason, detail: String::new(), row: None });
    }
    sources.sort();
    let mut seen = BTreeSet::new();
    // The same file may be given twice, once by name and once by its folder.
    sources.retain(|source| seen.insert(fs::canonicalize(&source.path).unwrap_or_else(|_| source.path.clone())));
    Ok(sources)
}

fn no_tables(paths: &[PathBuf]) -> IngestError {
    let quoted: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    let tables: Vec<String> = Table::ALL.iter().map(|table| format!("`{table}`")).collect();
    IngestError::NoTables { paths: quoted.join(", "), tables: tables.join(", ") }
}

/// What a folder says of the files in it.
#[derive(Clone, Debug, Default)]
struct Inherited {
    table: Option<Table>,
    partitions: Vec<(String, String)>,
    depth: usize,
}

impl Inherited {
    /// From the folder itself and the partition folders above it, so that a part may be given alone.
    fn of_ancestors(dir: &Path) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for folder in dir.ancestors() {
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { break };
            names.push(name);
            if !name.contains('=') {
                break;
            }
        }
        names.iter().rev().fold(Self::default(), |inherited, name| inherited.entered(name))
    }

    fn entered(&self, folder: &str) -> Self {
        let mut inside = self.clone();
        inside.depth += 1;
        // Engines that write in parts call the folder as they would the file: `samples.parquet/part-0.parquet`.
        if let Some(table) = Table::from_name(split_format(folder).map_or(folder, |(stem, _)| stem)) {
            inside.table = Some(table);
        } else if let Some(table) = folder.strip_prefix("table=").and_then(Table::from_name) {
            inside.table = Some(table); // The archive's own layout.
        } else if let Some((column, value)) = folder.split_once('=') {
            let value = if value == NULL_PARTITION { String::new() } else { percent_decoded(value) };
            inside.partitions.push((column.to_owned(), value));
        }
        inside
    }

    /// A file in this folder, if it is a table: by its own name, else by the folder's.
    fn source(&self, path: &Path) -> Option<TableSource> {
        let name = path.file_name()?.to_str()?;
        if name.starts_with(['.', '_']) {
            return None; // Hidden files, and the marks that partitioned writers leave (`_SUCCESS`).
        }
        let (stem, format) = split_format(name)?;
        let table = Table::from_name(stem).or(self.table)?;
        Some(TableSource { path: path.to_owned(), table, format, partitions: self.partitions.clone() })
    }
}

/// A file name without the ending of a format, and the format.
fn split_format(name: &str) -> Option<(&str, Format)> {
    Format::ALL.into_iter().find_map(|format| {
        let stem = name.strip_suffix(format.extension())?.strip_suffix('.')?;
        Some((stem, format))
    })
}

fn canonical(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// * `seen`: folders walked so far. Links may lead to one folder in many ways, and back up: without this, a few of them
///   would make millions of paths.
fn walk(
    dir: &Path,
    inherited: Inherited,
    seen: &mut BTreeSet<PathBuf>,
    sources: &mut Vec<TableSource>,
) -> Result<(), IngestError> {
    let failed = |source| IngestError::ListFolder { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(failed)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_, _>>().map_err(failed)?;
    paths.sort(); // Which of two ways to a folder is taken must not hang on the order of the disk.
    for path in paths {
        // A link whose target is gone is no file of ours.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !metadata.is_dir() {
            sources.extend(inherited.source(&path));
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_walked = inherited.depth < FOLDER_DEPTH_MAX && !name.starts_with('.');
        if is_walked && canonical(&path).is_some_and(|folder| seen.insert(folder)) {
            walk(&path, inherited.entered(name), seen, sources)?;
        }
    }
    Ok(())
}

/// Partitioned writers escape characters that no folder name may hold as `%2F`.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = if first == b'%' { tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok()) } else { None };
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("in the folder")).expect("made");
            fs::write(path, "x").expect("written");
        }
        folder
    }

    fn found(folder: &Path, paths: &[&str]) -> Vec<(String, Table)> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
        let sources = find(&paths, &mut Rejects::new()).expect("found");
        let name = |source: &TableSource| {
            source.path.strip_prefix(folder).expect("under the folder").display().to_string().replace('\\', "/")
        };
        sources.iter().map(|source| (name(source), source.table)).collect()
    }

    #[test]
    fn tables_are_found_by_file_name_by_sub_folder_and_in_folders_of_run_folders() {
        let dir = folder(&[
            "a/samples.csv.gz",
            "a/notes.txt",
            "a/.samples.csv.partial",
            "b/digests/part-0.snappy.parquet",
            "b/digests/run=x%2Fy/rank=__HIVE_DEFAULT_PARTITION__/part-1.jsonl",
            "b/digests/_metadata.parquet",
            "b/labels.csv",
            "c/events.parquet/part-0.parquet",
            "d/table=ranks/run=x/date=2026-11-25/0-1-2.parquet",
        ]);
        let expected = [
            ("a/samples.csv.gz", Table::Samples),
            ("b/digests/part-0.snappy.parquet", Table::Digests),
            ("b/digests/run=x%2Fy/rank=__HIVE_DEFAULT_PARTITION__/part-1.jsonl", Table::Digests),
            ("c/events.parquet/part-0.parquet", Table::Events),
            ("d/table=ranks/run=x/date=2026-11-25/0-1-2.parquet", Table::Ranks),
        ]
        .map(|(name, table)| (name.to_owned(), table));
        assert_eq!(found(dir.path(), &[""]), expected);
        assert_eq!(found(dir.path(), &["b/digests", "a/samples.csv.gz", "a", "c", "d/table=ranks/run=x"]), expected);
        let part = dir.path().join("b/digests/run=x%2Fy/rank=__HIVE_DEFAULT_PARTITION__/part-1.jsonl");
        let sources = find(&[part], &mut Rejects::new()).expect("found");
        assert_eq!(sources[0].partition("run"), Some("x/y"));
        assert_eq!(sources[0].partition("rank"), Some(""));
    }

    #[cfg(unix)]
    #[test]
    fn links_in_circles_end_and_each_file_is_found_once() {
        let dir = folder(&["a/samples.csv"]);
        for link in ["a/up-1", "a/up-2", "a/up-3", "b", "c"] {
            std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join(link)).expect("linked");
        }
        assert_eq!(found(dir.path(), &[""]), [("a/samples.csv".to_owned(), Table::Samples)]);
    }

    #[test]
    fn a_path_that_is_not_there_and_a_folder_without_tables_are_told_apart() {
        let dir = folder(&["notes.txt", "samples.csv"]);
        let missing = find(&[dir.path().join("gone")], &mut Rejects::new());
        assert!(matches!(missing, Err(IngestError::NoPath { .. })), "{missing:?}");
        let nothing = find(&[dir.path().join("notes.txt")], &mut Rejects::new()).expect_err("no table");
        assert!(nothing.to_string().contains("`samples`, `collectives`"), "{nothing}");
        let mut rejects = Rejects::new();
        let both = find(&[dir.path().join("notes.txt"), dir.path().join("samples.csv")], &mut rejects);
        assert_eq!(both.expect("one table").len(), 1);
        assert!(rejects.summary()[0].ends_with("notes.txt: set aside: not a table"), "{:?}", rejects.summary());
    }
}
