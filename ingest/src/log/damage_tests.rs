//! Damage of each kind: it is counted with reason and place, and the good rows are kept.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::{FolderWriter, Row, SampleOut};

/// What a file of one table gives: the steps of its samples, and place, column and reason of each reject.
fn read_file(name: &str, bytes: &[u8]) -> (Vec<u64>, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join(name), bytes).expect("written");
    read_folder(folder.path())
}

fn read_folder(dir: &Path) -> (Vec<u64>, Vec<String>) {
    let kept = tempfile::tempdir().expect("a temporary folder");
    let mut rejects = Rejects::keep_in(kept.path());
    let log = Log::read(&[dir.to_owned()], &mut rejects).expect("damage is no error");
    rejects.finish().expect("kept");
    assert_eq!(rejects.summary().is_empty(), rejects.count() == 0);
    let records = log.runs.into_values().flat_map(RunLog::into_records);
    let steps = records.filter_map(|record| match record.expect("read").row {
        Row::Sample(row) => Some(row.step),
        _ => None,
    });
    let steps = steps.collect();
    let lines = fs::read_to_string(kept.path().join("rejects.jsonl")).unwrap_or_default();
    let told = lines.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| line[key].as_str().unwrap_or("-").to_owned();
        format!("{} | {} | {}", text("place"), text("column"), text("reason"))
    });
    (steps, told.collect())
}

fn table_rejects(expected: &[(&str, &str, &str)]) -> Vec<String> {
    expected.iter().map(|(place, column, reason)| format!("{place} | {column} | {reason}")).collect()
}

#[test]
fn broken_csv_rows_are_told_by_line_and_the_others_are_read() {
    let mut text = b"\xef\xbb\xbfrun,attempt,rank,step,time,metric,value,colour\r\n".to_vec();
    text.extend_from_slice(b"a,,,1,10,loss,1.5,red\r\n");
    text.extend_from_slice(b"a,0,0,2,20,loss\n"); // 3: too short
    text.extend_from_slice(b"a,0,0,2,20,loss,abc,\n"); // 4: no number
    text.extend_from_slice(b"a,0,-1,2,20,loss,1,\n"); // 5: negative
    text.extend_from_slice(b"a,0,4294967295,2,20,loss,1,\n"); // 6: stands for null inside
    text.extend_from_slice(b",0,0,2,20,loss,1,\n"); // 7: no run
    text.extend_from_slice(b"a,0,0,2,20,loss,,\n"); // 8: no value
    text.extend_from_slice(b"a,0,0,2.5,20,loss,1,\n"); // 9: half a step
    text.extend_from_slice(b"a,0,0,2,20,lo\xffss,1,\n"); // 10: not UTF-8
    text.extend_from_slice(b"\n a,0,0,2,20,loss,1e999,\n"); // 12: more than a double holds, behind a blank line
    text.extend_from_slice(b"a,0,0,2,99999999999999999999,loss,1,\n"); // 13: too late
    text.extend_from_slice(b"a,0,1.0,3,3e1,\"lo,\n\"\"ss\",-Infinity,\xff\n"); // 14 and 15: good
    text.extend_from_slice(b"a,0,0,4,40,\"loss,1,\n"); // 16: the quote does not end
    text.extend_from_slice(b"a,0,0,5,50,loss,nan,"); // 17: good, without an end of line
    let (steps, rejects) = read_file("samples.csv", &text);
    assert_eq!(steps, [1, 3, 5]);
    let expected = [
        ("line 3", "-", reason::FIELD_COUNT),
        ("line 4", "value", reason::NOT_A_NUMBER),
        ("line 5", "rank", reason::NEGATIVE),
        ("line 6", "rank", reason::OUT_OF_RANGE),
        ("line 7", "run", reason::MISSING),
        ("line 8", "value", reason::MISSING),
        ("line 9", "step", reason::NOT_AN_INTEGER),
        ("line 10", "metric", reason::INVALID_UTF8),
        ("line 12", "value", reason::OUT_OF_RANGE),
        ("line 13", "time", reason::OUT_OF_RANGE),
        ("line 16", "-", reason::OPEN_QUOTE),
    ];
    assert_eq!(rejects, table_rejects(&expected));
}

#[test]
fn broken_json_lines_are_told_by_line_and_the_others_are_read() {
    let lines: [&[u8]; 17] = [
        br#"{"run": "a", "step": 1, "time": 10, "metric": "loss", "value": 1.5, "colour": {"x": [1]}}"#,
        br#"[1, 2]"#,
        br#"{"run": "a""#,
        br#"{"run": "a", "step": 2, "metric": "loss", "value": "abc"}"#,
        br#"{"run": "a", "step": 2, "metric": "loss", "value": "1.5"}"#,
        br#"{"run": "a", "step": -2, "metric": "loss", "value": 1}"#,
        br#"{"run": "a", "step": 2.5, "metric": "loss", "value": 1}"#,
        br#"{"run": 7, "step": 2, "metric": "loss", "value": 1}"#,
        br#"{"run": "a", "step": 2, "metric": null, "value": 1}"#,
        br#"{"run": "a", "step": 2, "metric": "loss"}"#,
        b"{\"run\": \"a\", \"step\": 2, \"metric\": \"lo\xffss\", \"value\": 1}",
        br#"{"run": "a", "step": true, "metric": "loss", "value": 1}"#,
        br#"{"run": "a", "step": 2, "metric": ["loss"], "value": 1}"#,
        b"  ",
        br#"{"run": "a", "step": 3e0, "time": 3e1, "metric": "l\u006fss", "value": "-Infinity", "rank": null}"#,
        br#"{"run": "a", "step": 18446744073709551615, "metric": "loss", "value": 1}"#,
        br#"{"run": "a", "step": 5, "time": 50, "metric": "loss", "value": "NaN"}"#,
    ];
    let (steps, rejects) = read_file("samples.jsonl", &lines.join(&b'\n'));
    assert_eq!(steps, [1, 3, 5]);
    let expected = [
        ("line 2", "-", reason::NOT_AN_OBJECT),
        ("line 3", "-", reason::INVALID_JSON),
        ("line 4", "value", reason::NOT_A_NUMBER),
        ("line 5", "value", reason::NOT_A_NUMBER),
        ("line 6", "step", reason::NEGATIVE),
        ("line 7", "step", reason::NOT_AN_INTEGER),
        ("line 8", "run", reason::NOT_TEXT),
        ("line 9", "metric", reason::MISSING),
        ("line 10", "value", reason::MISSING),
        ("line 11", "-", reason::INVALID_UTF8),
        ("line 12", "step", reason::NOT_A_NUMBER),
        ("line 13", "metric", reason::NOT_TEXT),
        ("line 16", "step", reason::OUT_OF_RANGE),
    ];
    assert_eq!(rejects, table_rejects(&expected));
}

#[test]
fn an_empty_file_and_one_without_a_column_are_one_reject_and_a_bare_header_is_none() {
    for format in Format::ALL {
        let (steps, rejects) = read_file(&format!("samples.{}", format.extension()), b"");
        assert_eq!((steps.len(), rejects), (0, table_rejects(&[("file", "-", reason::EMPTY_FILE)])), "{format:?}");
    }
    let (_, rejects) = read_file("samples.csv", b"run,metric,value\n");
    assert!(rejects.is_empty(), "{rejects:?}");
    let (_, rejects) = read_file("samples.csv", b"run,value\na,1\nb,2\n");
    assert_eq!(rejects, table_rejects(&[("file", "metric", reason::NO_COLUMN)]));
    assert_eq!(read_file("samples.parquet", b"PAR1 no").1, table_rejects(&[("file", "-", reason::DAMAGED)]));
}

#[test]
fn a_line_beyond_the_limit_is_set_aside_and_the_next_is_read() {
    let long = format!("{{\"x\": \"{}\"}}", "y".repeat(17 << 20));
    let text = format!("{long}\n{{\"run\": \"a\", \"step\": 1, \"time\": 1, \"metric\": \"m\", \"value\": 1}}\n{long}");
    let (steps, rejects) = read_file("samples.jsonl", text.as_bytes());
    assert_eq!(steps, [1]);
    let too_long = reason::LINE_TOO_LONG;
    assert_eq!(rejects, table_rejects(&[("line 1", "-", too_long), ("line 3", "-", too_long)]));
}

/// A CSV file of 5,000 rows that does not compress to nothing.
fn long_csv() -> Vec<u8> {
    let mut text = b"run,step,time,metric,value\n".to_vec();
    for step in 0_u64..5_000 {
        writeln!(text, "a,{step},{step},loss,{:?}", (step as f64).sin()).expect("memory");
    }
    text
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

/// Checks that the rows kept are all whole lines of what a byte-wise decoder gets out of a broken file.
fn assert_kept_up_to_damage(name: &str, packed: &[u8], decoder: &mut dyn Read) {
    let mut text = Vec::new();
    let mut byte = [0];
    while let Ok(1) = decoder.read(&mut byte) {
        text.push(byte[0]);
    }
    assert!(text.len() > 10_000, "the damage comes late enough to keep rows: {}", text.len());
    let whole = text.iter().filter(|&&byte| byte == b'\n').count() - 1;
    let (steps, rejects) = read_file(name, packed);
    assert_eq!(steps, (0..whole as u64).collect::<Vec<_>>());
    let place = format!("line {}", whole + 2);
    assert_eq!(rejects, table_rejects(&[(&place, "-", reason::BROKEN_STREAM)]));
}

#[test]
fn a_broken_stream_keeps_every_row_before_the_damage() {
    let text = long_csv();
    let packed = gzip(&text);
    let cut = &packed[..packed.len() / 2];
    assert_kept_up_to_damage("samples.csv.gz", cut, &mut flate2::read::GzDecoder::new(cut));
    let mut bent = packed.clone();
    let middle = packed.len() / 2;
    bent[middle..middle + 40].fill(0xff);
    assert_kept_up_to_damage("samples.csv.gz", &bent, &mut flate2::read::GzDecoder::new(&bent[..]));
    let packed = zstd::encode_all(&[&text[..], &text[27..]].concat()[..], 1).expect("memory");
    let cut = &packed[..packed.len() - 1_000];
    assert_kept_up_to_damage("samples.csv.zst", cut, &mut zstd::Decoder::new(cut).expect("a decoder"));
}

#[test]
fn several_members_in_one_compressed_file_are_read_as_one_text() {
    let text = long_csv();
    let (head, tail) = text.split_at(text.len() / 3);
    let (steps, rejects) = read_file("samples.csv.gz", &[gzip(head), gzip(tail)].concat());
    assert_eq!((steps.len(), rejects.len()), (5_000, 0));
    let frames = [head, tail].map(|part| zstd::encode_all(part, 1).expect("memory"));
    let (steps, rejects) = read_file("samples.csv.zst", &frames.concat());
    assert_eq!((steps.len(), rejects.len()), (5_000, 0));
}

fn valid_file(format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer = FolderWriter::create(folder.path(), format).expect("created");
    for step in 0..50 {
        let metric = ["loss", "grad_norm"][step % 2];
        let (run, time, step, value) = ("a", Some(step as i64), Some(step as u64), (step as f64).cos());
        let row = SampleOut { run, attempt: 0, rank: Some(3), step, time, metric, value };
        writer.sample(&row).expect("written");
    }
    writer.finish().expect("finished");
    fs::read(folder.path().join(format!("samples.{}", format.extension()))).expect("there")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for format in Format::ALL {
            for table in ["samples", "events"] {
                read_file(&format!("{table}.{}", format.extension()), &bytes);
            }
        }
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_reader_panic(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        for format in Format::ALL {
            let mut bytes = valid_file(format);
            for (place, byte) in &places {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if is_cut {
                bytes.truncate(length.index(bytes.len()));
            }
            read_file(&format!("samples.{}", format.extension()), &bytes);
        }
    }
}
