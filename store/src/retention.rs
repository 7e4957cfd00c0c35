//! What goes when the archive is old or full: whole parts, the oldest first, and never the newest.

use std::path::Path as FsPath;

use object_store::ObjectStoreExt;

use crate::archive::StoredPart;
use crate::{Archive, ArchiveError, Date, PartName};

/// A file that a writer left behind is removed when nobody wrote to it for this long.
const LEFT_BEHIND_NS: i64 = 3_600 * 1_000_000_000;

/// Why a part went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is older than the retention.
    Old,
    /// The archive is larger than it may be, and this was the oldest part.
    Full,
}

/// A part that went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedPart {
    /// Its name.
    pub name: PartName,
    /// Its size.
    pub bytes: u64,
    /// Why.
    pub why: Why,
}

/// What retention did.
#[derive(Debug, Default)]
pub struct Removed {
    /// The parts that went, the oldest first.
    pub parts: Vec<RemovedPart>,
    /// Parts that should go and could not be removed; the next call tries again.
    pub failed: Vec<ArchiveError>,
    /// Parts that stay.
    pub kept_parts: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

impl Archive {
    /// Removes the parts that are older than the retention, then the oldest ones until the rest is below the cap.
    ///
    /// A part is as old as its day of log time or its writing, whichever is later, so that an old run that is sent
    /// today stays for the whole retention. The newest part always stays.
    ///
    /// * `now`: nanoseconds since the epoch.
    ///
    /// # Errors
    /// [`ArchiveError::List`]. A part that cannot be removed is told in [`Removed::failed`].
    pub async fn retain(&self, now: i64) -> Result<Removed, ArchiveError> {
        let parts = self.parts().await?;
        let mut removed = Removed {
            kept_parts: parts.len() as u64,
            kept_bytes: parts.iter().map(|part| part.bytes).sum(),
            ..Removed::default()
        };
        for part in overdue(parts, self.options.retention_days, self.options.bytes_max, Date::of(now)) {
            let failed = |source| ArchiveError::Remove { part: part.name.path(), source };
            let location = part.name.location(&self.root).map_err(|source| failed(source.into()))?;
            match self.store.delete(&location).await {
                // Another worker of the group removed it.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                    removed.kept_parts -= 1;
                    removed.kept_bytes -= part.bytes;
                    removed.parts.push(part);
                }
                Err(source) => removed.failed.push(failed(source)),
            }
        }
        if let Some(folder) = &self.folder {
            // What cannot be looked at now is looked at the next time; it is no part, and nobody reads it.
            let _ = sweep(folder, now);
        }
        Ok(removed)
    }
}

/// What has to go, the oldest first.
fn overdue(mut parts: Vec<StoredPart>, retention_days: u32, bytes_max: u64, today: Date) -> Vec<RemovedPart> {
    let age = |part: &StoredPart| part.name.date.max(Date::of(part.written));
    parts.sort_by(|a, b| (age(a), a.written, &a.name).cmp(&(age(b), b.written, &b.name)));
    let mut bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    parts.pop(); // The newest stays, and takes its room.
    let mut removed = Vec::new();
    for part in parts {
        let is_old = retention_days > 0 && today.days_since(age(&part)) > i64::from(retention_days);
        let is_over = bytes_max > 0 && bytes > bytes_max;
        if !is_old && !is_over {
            continue;
        }
        bytes -= part.bytes;
        let why = if is_old { Why::Old } else { Why::Full };
        removed.push(RemovedPart { name: part.name, bytes: part.bytes, why });
    }
    removed
}

/// Removes files that a writer began and did not finish: their names end in `.parquet#1`.
fn sweep(folder: &FsPath, now: i64) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            sweep(&path, now)?;
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_begun = name.rsplit_once(".parquet#").is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        let age = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_nanos());
        let is_left = i64::try_from(age).is_ok_and(|written| now.saturating_sub(written) > LEFT_BEHIND_NS);
        if is_begun && is_left {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Table;

    use super::*;

    const DAY_NS: i64 = 86_400 * 1_000_000_000;

    /// A part of a day, written on another, with this many bytes.
    fn part(day: i64, written_day: i64, bytes: u64) -> StoredPart {
        let run_folder = PartName::run_folder(Some("r"));
        let (table, date, first) = (Table::Samples, Date::of(day * DAY_NS), u64::try_from(day).expect("after 1970"));
        let name = PartName { table, run_folder, date, partition: 0, first, last: first };
        StoredPart { name, bytes, written: written_day * DAY_NS + 1 }
    }

    fn gone(parts: Vec<StoredPart>, retention_days: u32, bytes_max: u64, today: i64) -> Vec<(u64, Why)> {
        let removed = overdue(parts, retention_days, bytes_max, Date::of(today * DAY_NS));
        removed.into_iter().map(|part| (part.name.first, part.why)).collect()
    }

    #[test]
    fn parts_older_than_the_retention_go_and_the_day_that_is_just_in_it_stays() {
        let parts = || vec![part(100, 100, 5), part(69, 69, 5), part(70, 70, 5), part(1, 99, 5)];
        assert_eq!(gone(parts(), 30, 0, 100), [(69, Why::Old)]);
        assert_eq!(gone(parts(), 0, 0, 100), []);
        assert_eq!(gone(parts(), 30, 0, 1_000), [(69, Why::Old), (70, Why::Old), (1, Why::Old)]);
    }

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_the_newest_never() {
        let parts = || vec![part(10, 10, 5), part(11, 11, 5), part(12, 12, 5)];
        assert_eq!(gone(parts(), 0, 15, 12), []);
        assert_eq!(gone(parts(), 0, 14, 12), [(10, Why::Full)]);
        assert_eq!(gone(parts(), 0, 9, 12), [(10, Why::Full), (11, Why::Full)]);
        assert_eq!(gone(parts(), 0, 1, 12), [(10, Why::Full), (11, Why::Full)]);
        assert_eq!(gone(vec![], 1, 1, 12), []);
        assert_eq!(gone(parts(), 1, 9, 12), [(10, Why::Old), (11, Why::Full)]);
    }
}
