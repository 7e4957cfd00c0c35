//! Imports small texts and shows the rows they gave.

use std::path::PathBuf;

use super::{ImportError, ImportReport, ImportSource, WideOptions, import};
use crate::{FolderWriter, Format};

/// What an import made.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) report: ImportReport,
    dir: tempfile::TempDir,
}

impl Folder {
    /// The rows of a table as CSV, in the order written, without the header; empty when there is no such table.
    pub(super) fn rows(&self, table: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join(format!("out/{table}.csv"))).unwrap_or_default();
        text.split_once('\n').map_or_else(String::new, |(_, rows)| rows.to_owned())
    }
}

/// Imports files given by name and text.
pub(super) fn try_import(
    source: &ImportSource,
    files: &[(&str, &str)],
    run: Option<&str>,
) -> Result<Folder, ImportError> {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| dir.path().join(name)).collect();
    for (path, (_, text)) in paths.iter().zip(files) {
        std::fs::write(path, text).expect("the folder is ours");
    }
    let mut writer = FolderWriter::create(&dir.path().join("out"), Format::Csv)?;
    let report = import(source, &paths, run, &mut writer)?;
    writer.finish()?;
    Ok(Folder { report, dir })
}

/// As [`try_import`], for what must succeed.
pub(super) fn imported(source: &ImportSource, files: &[(&str, &str)], run: Option<&str>) -> Folder {
    try_import(source, files, run).expect("the files are readable")
}

/// Imports one wide file with options.
pub(super) fn options_import(options: WideOptions, text: &str) -> Result<Folder, ImportError> {
    try_import(&ImportSource::Wide(options), &[("log.csv", text)], None)
}
