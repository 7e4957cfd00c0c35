//! Each function on rows whose answer can be worked out by hand, asked as a person asks: in SQL.

use std::fs;

use trainwarden_kernels::{MAD_TO_SIGMA, Tail};

use crate::testing::answer;

/// Five ranks at two steps; rank 3 is slow, and one value is NaN.
fn rows() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let mut text = "run,rank,step,time,metric,value\n".to_owned();
    for (step, values) in [(10_i64, [1.0, 2.0, 3.0, 9.0, 4.0]), (11, [1.0, 2.0, f64::NAN, 9.0, 4.0])] {
        for (rank, value) in values.into_iter().enumerate() {
            text += &format!("r,{rank},{step},{},step_time_s,{value}\n", step * 1_000_000_000);
        }
    }
    fs::write(dir.path().join("samples.csv"), text).expect("written");
    let calls = "{\"run\":\"r\",\"rank\":0,\"comm\":\"dp\",\"seq\":1,\"op\":\"all_reduce\",\"bytes\":1000,\"start\":1,\"end\":1000000001}\n";
    fs::write(dir.path().join("collectives.jsonl"), calls).expect("written");
    dir
}

fn one(sql: &str) -> String {
    answer(rows().path(), sql).unwrap_or_else(|error| panic!("{sql}: {error}")).trim().to_owned()
}

#[test]
fn mad_and_exact_quantile_are_those_of_the_kernels() {
    // Distances from the median 3: 2 1 0 6 1, of which the median is 1.
    assert_eq!(one("select mad(value) as m from samples where step = 10"), r#"{"m":1.0}"#);
    assert_eq!(one("select exact_quantile(value, 0.5) as q from samples where step = 10"), r#"{"q":3.0}"#);
    // Of 1 2 4 9, a quarter of the way lies between 1 and 2: 1.75; NaN is skipped.
    assert_eq!(one("select exact_quantile(value, 0.25) as q from samples where step = 11"), r#"{"q":1.75}"#);
    assert_eq!(one("select mad(value) as m from samples where step = 99"), r#"{"m":null}"#);
    let told = answer(rows().path(), "select exact_quantile(value, 99) from samples").unwrap_err();
    assert!(told.contains("write 0.99"), "{told}");
}

#[test]
fn robust_z_is_in_scaled_deviations_and_peer_rank_a_p_value() {
    let sql =
        "select rank, robust_z(value) over (partition by step) as z, peer_rank(value) over (partition by step) as p
               from samples where step = 10 order by rank";
    let lines = one(sql);
    let third = lines.lines().nth(3).expect("five ranks");
    // No other of four is as large: (0 + 1) / (4 + 1).
    let p = Tail { above: 0, equal: 0 }.p_value(4);
    assert_eq!(third, format!("{{\"rank\":3,\"z\":{},\"p\":{p}}}", 6.0 / MAD_TO_SIGMA));
    assert_eq!(lines.lines().nth(2), Some("{\"rank\":2,\"z\":0.0,\"p\":0.6}"));
}

#[test]
fn topk_per_names_the_largest_of_each_group() {
    let sql = "select step, topk_per(cast(rank as text), value, 2) as top from samples group by step order by step";
    let expected = "{\"step\":10,\"top\":[{\"label\":\"3\",\"value\":9.0},{\"label\":\"4\",\"value\":4.0}]}";
    assert_eq!(one(sql).lines().next(), Some(expected));
}

#[test]
fn downsample_floors_steps_and_times() {
    assert_eq!(one("select downsample(step, 4) as s from samples where step = 11 limit 1"), r#"{"s":8}"#);
    assert_eq!(one("select downsample(time, 3) as t from samples where step = 11 limit 1"), r#"{"t":9000000000}"#);
}

#[test]
fn busbw_counts_as_nccl_tests_do() {
    let sql =
        "select busbw(op, bytes, (cast(\"end\" as bigint) - cast(start as bigint)) / 1e9, 4) as b from collectives";
    // 2 (n - 1) / n = 1.5 for an all-reduce of four.
    assert_eq!(one(sql), r#"{"b":1500.0}"#);
    assert_eq!(one("select busbw('all_gather', 1000, 1, 4) as b"), r#"{"b":750.0}"#);
    assert_eq!(one("select busbw('barrier', 1000, 1, 4) as b"), r#"{"b":null}"#);
}

#[test]
fn fingerprint_diff_names_the_minority() {
    let votes = "(values ('0','aa'), ('10','bb'), ('2','aa'), ('9','cc'), ('4','aa')) as t(rank, digest)";
    assert_eq!(one(&format!("select fingerprint_diff(rank, digest) as odd from {votes}")), r#"{"odd":["9","10"]}"#);
    assert_eq!(
        one(&format!("select fingerprint_diff(rank, digest) as odd from {votes} where digest = 'aa'")),
        r#"{"odd":[]}"#
    );
}

#[test]
fn run_window_gives_the_steps_around_one() {
    assert_eq!(one("select count(*) as n from run_window('r', 12, 1)"), r#"{"n":5}"#);
    assert_eq!(one("select count(*) as n from run_window('other', 12, 1)"), r#"{"n":0}"#);
    let told = answer(rows().path(), "select * from run_window('r')").unwrap_err();
    assert!(told.contains("run_window('llm-7b', 4120, 50)"), "{told}");
}

#[test]
fn cusum_grows_where_the_level_has_moved_and_stays_where_it_has_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let noise = |at: u64| (at as f64 * 0.618_033_988_749_895).fract() - 0.5;
    let line = |at: u64| {
        let moved = 5.0 + noise(at) + if at < 100 { 0.0 } else { 2.0 };
        format!("r,{at},moved,{moved}\nr,{at},level,{}\n", 5.0 + noise(at))
    };
    let text = "run,step,metric,value\n".to_owned() + &(0..200).map(line).collect::<String>();
    fs::write(dir.path().join("samples.csv"), text).expect("written");
    let sql = "with c as (select metric, step, cusum(value) over (partition by metric order by step) as c from samples)
               select metric, max(c) > 100 as up, max(abs(c)) < 10 as still from c group by metric order by metric";
    let expected =
        "{\"metric\":\"level\",\"up\":false,\"still\":true}\n{\"metric\":\"moved\",\"up\":true,\"still\":false}\n";
    assert_eq!(answer(dir.path(), sql).unwrap(), expected);
    let sql = "select unnest(change_points(step, value))['step'] as step from samples where metric = 'moved'";
    assert_eq!(answer(dir.path(), sql).unwrap(), "{\"step\":100}\n");
}

#[test]
fn an_error_names_the_place_and_what_to_write_instead() {
    let told = |sql: &str| answer(rows().path(), sql).unwrap_err();
    assert_eq!(
        told("select step,\n  vlaue from samples"),
        "line 2, column 3: there is no column `vlaue` here; did you mean `value`?"
    );
    assert_eq!(told("select 1 from sample"), "line 1, column 15: there is no table `sample`; did you mean `samples`?");
    let function = told("select robustz(value) from samples");
    assert!(function.contains("no function `robustz`") && function.contains("robust_z"), "{function}");
}

#[test]
fn nothing_but_the_tables_can_be_read() {
    for sql in [
        "select * from '/etc/passwd'",
        "select * from \"file:///etc/passwd\"",
        "select * from read_parquet('/etc/passwd')",
        "select * from read_csv('/etc/passwd')",
        "select * from generate_series(1, 1000000000000)",
        "with recursive a as (select 1 as x union all select x + 1 from a) select * from a",
        "select * from information_schema.tables",
    ] {
        assert!(answer(rows().path(), sql).is_err(), "{sql}");
    }
}

#[test]
fn every_column_of_every_table_says_what_it_means() {
    assert_eq!(one("select count(*) as n from columns where doc = ''"), r#"{"n":0}"#);
    let tables = one("select count(distinct \"table\") as n from columns");
    assert_eq!(tables, format!("{{\"n\":{}}}", crate::TABLES.len()));
}
