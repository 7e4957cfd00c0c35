//! The log of a simulated run as its CSV files say, and the statistics of this house computed from it a second time, by
//! code that shares nothing with the program's.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Rows of a table, by column.
pub(crate) fn table(folder: &Path, name: &str) -> Vec<BTreeMap<String, String>> {
    let file = File::open(folder.join(format!("{name}.csv"))).expect("the table is there");
    let mut reader = csv::Reader::from_reader(file);
    let header: Vec<String> = reader.headers().expect("a header").iter().map(str::to_owned).collect();
    let row = |record: csv::StringRecord| header.iter().cloned().zip(record.iter().map(str::to_owned)).collect();
    reader.records().map(|record| row(record.expect("a row"))).collect()
}

/// One metric: by step, then by rank; the run itself is rank `None`.
pub(crate) fn series(folder: &Path, metric: &str) -> BTreeMap<u64, BTreeMap<Option<u32>, f64>> {
    let mut series: BTreeMap<u64, BTreeMap<Option<u32>, f64>> = BTreeMap::new();
    for row in table(folder, "samples").iter().filter(|row| row["metric"] == metric) {
        // Panels hold single precision.
        let value = f64::from(row["value"].parse::<f64>().expect("a number") as f32);
        let step = row["step"].parse().expect("a step");
        series.entry(step).or_default().insert(row["rank"].parse().ok(), value);
    }
    series
}

/// The middle value, or the mean of the middle two.
pub(crate) fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The middle of all ranks but one.
pub(crate) fn middle_of_others(row: &BTreeMap<Option<u32>, f64>, rank: u32) -> f64 {
    let others: Vec<f64> = row.iter().filter(|(other, _)| **other != Some(rank)).map(|(_, value)| *value).collect();
    middle(&others)
}

/// The evidence of a deviation of `z` under Student's t with four degrees of freedom.
pub(crate) fn student_log10_e(z: f64) -> f64 {
    let u = z / (z * z + 4.0).sqrt();
    let p = (1.0 - u).powi(2) * (2.0 + u) / 4.0;
    (0.5 / p.sqrt()).log10().max(0.0)
}
