//! Where a part lies: folders that name table, run and day, the way Hive, DuckDB and Polars read them.

use std::fmt;

use object_store::path::Path;
use trainwarden_telemetry::Table;

use crate::limits::RUN_FOLDER_BYTES_MAX;

/// What partitioned writers call the folder of the null value.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";
/// Nanoseconds of a day.
const DAY_NS: i64 = 86_400 * 1_000_000_000;
/// Hexadecimal digits of the hash that ends the folder of a name too long for it.
const HASH_DIGITS: usize = 16;

/// A day of log time, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Days since 1970-01-01.
    days: i64,
}

impl Date {
    /// The day of a time.
    ///
    /// * `time`: nanoseconds since the epoch.
    #[must_use]
    pub fn of(time: i64) -> Self {
        Self { days: time.div_euclid(DAY_NS) }
    }

    /// Whole days from `earlier` to `self`; negative when `earlier` lies after.
    #[must_use]
    pub fn days_since(self, earlier: Self) -> i64 {
        self.days - earlier.days
    }

    /// The day written as `2026-11-25`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, rest) = text.rsplit_once('-').and_then(|(front, day)| Some((front, day.parse::<i64>().ok()?)))?;
        let (year, month) = year.rsplit_once('-')?;
        let date = Self { days: days_of(year.parse().ok()?, month.parse().ok()?, rest) };
        (date.to_string() == text).then_some(date)
    }
}

/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl fmt::Display for Date {
    /// Source: as `days_of`, `civil_from_days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shifted = self.days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted - era * 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_of_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_of_march + 2) / 5 + 1;
        let month = if month_of_march < 10 { month_of_march + 3 } else { month_of_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// The name of one part, complete: a part of the same log content has the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartName {
    /// The table.
    pub table: Table,
    /// The folder of the run, escaped; see [`PartName::run_folder`].
    pub run_folder: String,
    /// Day of log time.
    pub date: Date,
    /// Partition of the log.
    pub partition: u32,
    /// Offset of the first record in the parts that were cut together.
    pub first: u64,
    /// ... and of the last.
    pub last: u64,
}

impl PartName {
    /// The folder of a run, without `run=`.
    ///
    /// Characters that Hive escapes are written as `%2F`. A name longer than 200 bytes ends in `~` and a hash; the
    /// column `run` in the file has it whole. No run is `__HIVE_DEFAULT_PARTITION__`.
    #[must_use]
    pub fn run_folder(run: Option<&str>) -> String {
        let Some(run) = run.filter(|run| !run.is_empty()) else { return NULL_FOLDER.to_owned() };
        let mut folder = String::with_capacity(run.len());
        for (index, character) in run.chars().enumerate() {
            let is_null_folder = index == 0 && run == NULL_FOLDER;
            if is_escaped(character) || is_null_folder {
                folder.push_str(&format!("%{:02X}", u32::from(character)));
            } else {
                folder.push(character);
            }
            if folder.len() > RUN_FOLDER_BYTES_MAX {
                return shortened(run, &folder);
            }
        }
        folder
    }

    /// The path of the part, below the root of the archive.
    #[must_use]
    pub fn path(&self) -> String {
        let Self { table, run_folder, date, partition, first, last } = self;
        format!("table={table}/run={run_folder}/date={date}/{partition}-{first}-{last}.parquet")
    }

    /// The part that lies at a path below the root; `None` where the archive would not have put it.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut folders = path.split('/');
        let table = Table::from_name(folders.next()?.strip_prefix("table=")?)?;
        let run_folder = folders.next()?.strip_prefix("run=")?.to_owned();
        let date = Date::parse(folders.next()?.strip_prefix("date=")?)?;
        let mut numbers = folders.next()?.strip_suffix(".parquet")?.split('-');
        let partition = numbers.next()?.parse().ok()?;
        let (first, last) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let name = Self { table, run_folder, date, partition, first, last };
        (folders.next().is_none() && name.path() == path).then_some(name)
    }

    /// The run of the folder; `None` where the folder does not tell it whole (a name cut to a hash, or no run).
    #[must_use]
    pub fn run(&self) -> Option<String> {
        if self.run_folder == NULL_FOLDER || self.run_folder.contains('~') {
            return None;
        }
        let (mut bytes, mut rest) = (Vec::with_capacity(self.run_folder.len()), self.run_folder.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
            let code = escaped.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
            bytes.push(code.unwrap_or(*first));
            rest = if code.is_some() { &after[2..] } else { after };
        }
        String::from_utf8(bytes).ok()
    }

    /// The path in a store, below `root`.
    ///
    /// # Errors
    /// When the store knows no such path.
    pub fn location(&self, root: &Path) -> Result<Path, object_store::path::Error> {
        if root.as_ref().is_empty() { Path::parse(self.path()) } else { Path::parse(format!("{root}/{}", self.path())) }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Hive's own list, and what stores advise against. All are ASCII, so that one escape is one byte.
///
/// Source: `FileUtils.charToEscape` of Apache Hive; "Object key naming guidelines" of Amazon S3.
fn is_escaped(character: char) -> bool {
    character.is_ascii_control() || "\"#%'*/:=?\\{}[]^~<>|`".contains(character)
}

fn shortened(run: &str, folder: &str) -> String {
    let mut end = RUN_FOLDER_BYTES_MAX - HASH_DIGITS - 1;
    // Neither a character nor an escape is cut in two.
    let bytes = folder.as_bytes();
    while !folder.is_char_boundary(end) || bytes[end - 1] == b'%' || bytes[end - 2] == b'%' {
        end -= 1;
    }
    let hash = blake3::hash(run.as_bytes()).to_hex();
    format!("{}~{}", &folder[..end], &hash[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_and_read_also_before_the_epoch_and_in_leap_years() {
        let days = [(0, "1970-01-01"), (-1, "1969-12-31"), (19_782, "2024-02-29"), (20_782, "2026-11-25")];
        for (days, text) in days {
            assert_eq!(Date { days }.to_string(), text);
            assert_eq!(Date::parse(text), Some(Date { days }), "{text}");
        }
        for days in -200_000..200_000 {
            assert_eq!(Date::parse(&Date { days }.to_string()), Some(Date { days }));
        }
        assert_eq!(Date::of(-1).to_string(), "1969-12-31");
        assert_eq!(Date::of(DAY_NS).to_string(), "1970-01-02");
        for text in ["2026-02-30", "2026-13-01", "26-1-1", "", "2026", "x-01-01"] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_a_path_and_back_for_every_run() {
        let long = "é".repeat(300);
        let odd = ["llm-7b", "a b", "a/b", "x=y", "..", ".", "日本語", "%2F", "a\nb", NULL_FOLDER, "~", &long];
        let mut folders = std::collections::BTreeSet::new();
        for run in odd.into_iter().map(Some).chain([None]) {
            let name = PartName {
                table: Table::Samples,
                run_folder: PartName::run_folder(run),
                date: Date { days: 20_782 },
                partition: 3,
                first: 0,
                last: u64::MAX,
            };
            assert_eq!(PartName::parse(&name.path()), Some(name.clone()), "{run:?}");
            assert!(name.location(&Path::default()).is_ok() && name.run_folder.len() <= RUN_FOLDER_BYTES_MAX);
            assert_eq!(name.path().split('/').count(), 4, "{run:?}");
            let told = run.filter(|run| run.len() <= RUN_FOLDER_BYTES_MAX).map(str::to_owned);
            assert_eq!(name.run(), told);
            assert!(folders.insert(name.run_folder), "{run:?} shares a folder");
        }
        assert_eq!(PartName::run_folder(Some("a/b c=d")), "a%2Fb c%3Dd");
        assert_eq!(PartName::run_folder(Some("")), NULL_FOLDER);
    }

    #[test]
    fn what_the_archive_would_not_write_is_no_part() {
        let stem = "table=samples/run=a/date=2026-11-25";
        assert!(PartName::parse(&format!("{stem}/0-1-2.parquet")).is_some());
        let strange = ["0-1-2.parquet.tmp", "0-01-2.parquet", "1-2.parquet", "x.parquet", "a/0-1-2.parquet", "notes"];
        for file in strange {
            assert_eq!(PartName::parse(&format!("{stem}/{file}")), None, "{file}");
        }
        assert_eq!(PartName::parse("table=other/run=a/date=2026-11-25/0-1-2.parquet"), None);
    }
}
