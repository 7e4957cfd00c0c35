//! In which order the rows of a part lie: rank by rank inside, and few ranks to a row group.

use std::collections::BTreeMap;
use std::ops::Range;

use rustc_hash::FxHashMap;
use trainwarden_telemetry::Table;

use crate::column_rows::{ColumnRows, Values};
use crate::limits::GROUP_ROWS;

/// Most columns that name a series.
const SERIES_COLUMNS_MAX: usize = 4;

type SeriesKey = [u64; SERIES_COLUMNS_MAX];

/// The columns that a row group is sorted by: those that name a series, then those that order its rows.
pub(crate) fn sorted_by(table: Table) -> (&'static [&'static str], &'static [&'static str]) {
    match table {
        Table::Samples => (&["attempt", "metric", "rank"], &["step", "time"]),
        Table::Collectives => (&["attempt", "comm", "rank"], &["seq"]),
        Table::Digests => (&["attempt", "kind", "name", "rank"], &["step", "time"]),
        Table::Events => (&[], &["time"]),
        Table::Ranks => (&["attempt", "rank"], &[]),
        Table::Groups => (&["attempt", "comm", "rank"], &[]),
    }
}

/// Where each row goes in the file, and what of it is one row group.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) places: Vec<u32>,
    pub(crate) groups: Vec<Range<usize>>,
}

/// One series of a part.
struct Series {
    key: SeriesKey,
    group: usize,
    rows: u32,
}

impl Order {
    /// The order of the rows of a table; rows that compare equal keep the order of the log.
    pub(crate) fn of(table: Table, columns: &[ColumnRows]) -> Self {
        let (series_by, rows_by) = sorted_by(table);
        let named =
            |name: &&str| columns.iter().find(|column| column.column.name == *name).expect("every table has its keys");
        let series_by_columns: Vec<&ColumnRows> = series_by.iter().map(named).collect();
        let rows_by: Vec<&ColumnRows> = rows_by.iter().map(named).collect();
        let row_count = columns.first().map_or(0, ColumnRows::len);

        let (mut series, of_row) = find_series(&series_by_columns, row_count);
        let rank = series_by.iter().position(|name| *name == "rank");
        assign_groups(&mut series, rank);
        let mut by_key: Vec<usize> = (0..series.len()).collect();
        by_key.sort_unstable_by_key(|index| (series[*index].group, series[*index].key));

        let mut starts = vec![0_u32; series.len()];
        let mut next = 0;
        for index in &by_key {
            starts[*index] = next;
            next += series[*index].rows;
        }
        let places = places_of(&of_row, &starts, &rows_by);
        let groups = split(by_key.iter().map(|index| (series[*index].group, series[*index].rows as usize)));
        Self { places, groups }
    }
}

/// The series, and of each row which one it is of.
fn find_series(columns: &[&ColumnRows], row_count: usize) -> (Vec<Series>, Vec<u32>) {
    assert!(columns.len() <= SERIES_COLUMNS_MAX, "a key of {} columns", columns.len());
    let places: Vec<Option<Vec<u32>>> = columns
        .iter()
        .map(|column| if let Values::Text(texts) = &column.values { Some(texts.places()) } else { None })
        .collect();
    let mut known: FxHashMap<SeriesKey, u32> = FxHashMap::default();
    let mut series: Vec<Series> = Vec::new();
    let mut of_row = Vec::with_capacity(row_count);
    // Each step tells of the ranks in the order of the step before: the series that came next then is looked at first.
    let mut told: Vec<(SeriesKey, u32)> = Vec::new();
    let mut latest = 0;
    for row in 0..row_count {
        let mut key = [0; SERIES_COLUMNS_MAX];
        for (part, column) in key.iter_mut().zip(columns) {
            *part = column.key(row);
        }
        let guess = told.get(latest as usize).map_or(0, |(_, next)| *next);
        let index = match told.get(guess as usize) {
            Some((known, _)) if *known == key => guess,
            _ => *known.entry(key).or_insert_with(|| {
                series.push(Series { key: sorting(key, &places), group: 0, rows: 0 });
                let index = u32::try_from(series.len() - 1).expect("a part has fewer rows than a u32 counts");
                told.push((key, index));
                index
            }),
        };
        if let Some((_, next)) = told.get_mut(latest as usize) {
            *next = index;
        }
        latest = index;
        series[index as usize].rows += 1;
        of_row.push(index);
    }
    (series, of_row)
}

/// The key with the place of a text instead of its code.
fn sorting(mut key: SeriesKey, places: &[Option<Vec<u32>>]) -> SeriesKey {
    for (part, places) in key.iter_mut().zip(places) {
        if let (Some(places), 1..) = (places, *part) {
            *part = u64::from(places[usize::try_from(*part - 1).expect("a code is a u32")]) + 1;
        }
    }
    key
}

/// Fills row groups with whole ranks of one attempt, in order.
///
/// * `rank`: where the rank stands in the key; the attempt is the first of it.
fn assign_groups(series: &mut [Series], rank: Option<usize>) {
    let Some(rank) = rank else { return };
    let mut rows_of: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for series in series.iter() {
        *rows_of.entry((series.key[0], series.key[rank])).or_default() += series.rows as usize;
    }
    let mut group_of = BTreeMap::new();
    let (mut group, mut filled) = (0, 0);
    for (who, rows) in rows_of {
        if filled > 0 && filled + rows > GROUP_ROWS {
            group += 1;
            filled = 0;
        }
        filled += rows;
        group_of.insert(who, group);
    }
    for series in series {
        series.group = group_of[&(series.key[0], series.key[rank])];
    }
}

/// The place of each row: behind the rows of its series that came before, or where its key says.
///
/// * `of_row`: the series of each row.
/// * `starts`: the first place of each series.
fn places_of(of_row: &[u32], starts: &[u32], by: &[&ColumnRows]) -> Vec<u32> {
    let key = |row: usize| {
        let mut key = [0; 2];
        for (part, column) in key.iter_mut().zip(by) {
            *part = column.key(row);
        }
        key
    };
    let mut next = starts.to_vec();
    let mut latest = vec![[0; 2]; starts.len()];
    let mut unsorted: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut places = Vec::with_capacity(of_row.len());
    for (row, series) in of_row.iter().enumerate() {
        let index = *series as usize;
        places.push(next[index]);
        next[index] += 1;
        let key = key(row);
        if key < latest[index] {
            unsorted.entry(*series).or_default();
        }
        latest[index] = key;
    }
    if unsorted.is_empty() {
        return places;
    }
    for (row, series) in (0..).zip(of_row) {
        if let Some(rows) = unsorted.get_mut(series) {
            rows.push(row);
        }
    }
    for (series, mut rows) in unsorted {
        rows.sort_by_cached_key(|row| key(*row as usize));
        for (place, row) in (starts[series as usize]..).zip(rows) {
            places[row as usize] = place;
        }
    }
    places
}

/// Row groups as ranges of rows; one that a single rank overfills is cut by rows.
fn split(series: impl Iterator<Item = (usize, usize)>) -> Vec<Range<usize>> {
    let mut wholes: Vec<(usize, Range<usize>)> = Vec::new();
    let mut start = 0;
    for (group, rows) in series {
        match wholes.last_mut() {
            Some((last, range)) if *last == group => range.end += rows,
            _ => wholes.push((group, start..start + rows)),
        }
        start += rows;
    }
    let pieces = |range: Range<usize>| {
        let end = range.end;
        range.step_by(GROUP_ROWS).map(move |start| start..end.min(start + GROUP_ROWS))
    };
    wholes.into_iter().flat_map(|(_, range)| pieces(range)).collect()
}
