//! Statements of someone who wants to read, break or stop what is not theirs; generated, so that there are many.

use std::path::Path;

/// Places of the machine that are no rows.
const PLACES: [&str; 10] = [
    "/etc/passwd",
    "file:///etc/passwd",
    "/proc/self/environ",
    "/proc/self/mem",
    "../../../../etc/hostname",
    "s3://bucket/key.parquet",
    "http://169.254.169.254/latest/meta-data",
    "https://example.org/a.csv",
    "archive:///table=samples",
    "/dev/zero",
];

/// Functions of other engines that read files, open connections or wait.
const FUNCTIONS: [&str; 14] = [
    "read_parquet",
    "read_csv",
    "read_json",
    "read_text",
    "read_blob",
    "parquet_scan",
    "csv_scan",
    "glob",
    "url",
    "file",
    "pg_read_file",
    "load_extension",
    "sniff_csv",
    "parquet_metadata",
];

/// A question that has no answer in anybody's lifetime.
pub(crate) const NEVER: &str = "select sum(sin(a.value) * cos(b.value) * c.value) from samples a, samples b, samples c";
/// ... and it needs little memory, so that nothing but time ends it.
pub(crate) const NEVER_AND_SMALL: &str = "select sum(sin(a.value) * cos(b.value) * c.value) \
    from (select value from samples limit 4000) a, (select value from samples limit 4000) b, samples c";

/// All families together.
///
/// * `canary`: a file outside the archive that nothing may show.
pub(crate) fn statements(canary: &Path) -> Vec<String> {
    let canary = canary.to_str().expect("a text path");
    let mut all = reads(canary);
    all.extend(writes(canary));
    all.extend(large());
    all.extend(odd());
    all.extend(slow());
    all
}

fn reads(canary: &str) -> Vec<String> {
    let mut all = Vec::new();
    for place in PLACES.into_iter().chain([canary]) {
        all.push(format!("select * from '{place}'"));
        all.push(format!("select * from \"{place}\""));
        all.push(format!("select (select count(*) from \"{place}\")"));
        all.push(format!("explain analyze select * from '{place}'"));
        all.push(format!("with a as (select * from '{place}') select * from a"));
        all.extend(FUNCTIONS.map(|function| format!("select * from {function}('{place}')")));
    }
    all.extend(FUNCTIONS.map(|function| format!("select {function}('{canary}')")));
    let known = ["information_schema.tables", "pg_catalog.pg_class", "datafusion.public.secret", "df_settings"];
    all.extend(known.map(|name| format!("select * from {name}")));
    all.push("select * from run_window('../../etc/passwd', 1, 1) where value > 0 having 1".to_owned());
    all
}

fn writes(canary: &str) -> Vec<String> {
    let fixed = [
        "drop table samples",
        "drop view samples",
        "delete from samples",
        "update samples set value = 0",
        "insert into samples select * from samples",
        "truncate table samples",
        "create view a as select 1",
        "create schema a",
        "create database a",
        "create table a as select * from samples",
        "select * into a from samples",
        "with a as (delete from samples) select 1",
        "explain delete from samples",
        "explain explain drop table samples",
        "set datafusion.catalog.information_schema = true",
        "set datafusion.execution.target_partitions = 100000",
        "set variable a = 1",
        "reset datafusion.execution.batch_size",
        "show all",
        "show tables",
        "show create table samples",
        "load 'libc.so.6'",
        "install httpfs",
        "attach 'x.db' as x",
        "pragma database_list",
        "call system('id')",
        "prepare a as select 1",
        "execute a",
        "deallocate a",
        "begin transaction",
        "commit",
        "grant all on samples to public",
        "create function f(x int) returns int language plpython as 'import os'",
        "analyze table samples",
        "vacuum",
        "kill query 1",
        "use other",
    ];
    let mut all: Vec<String> = fixed.map(str::to_owned).into();
    for format in ["parquet", "csv", "json", "arrow", "avro"] {
        all.push(format!("create external table a stored as {format} location '{canary}'"));
        all.push(format!("create unbounded external table a stored as {format} location '/proc/self/environ'"));
        all.push(format!("copy samples to '{canary}' stored as {format}"));
        all.push(format!("copy (select 1) to '/tmp/out.{format}'"));
        all.push(format!("explain copy samples to '/tmp/out.{format}'"));
    }
    all
}

fn large() -> Vec<String> {
    let mut all = Vec::new();
    for operator in ["+", "-", "*", "||", " and ", " or ", "=", "<", "::int::text||", "/"] {
        all.push(format!("select 1{}", format!("{operator}1").repeat(2_000)));
    }
    for (open, close) in [("(", ")"), ("[", "]"), ("abs(", ")"), ("(select ", ")"), ("not (", ")"), ("array[", "]")] {
        for depth in [60, 1_000] {
            all.push(format!("select {}1{}", open.repeat(depth), close.repeat(depth)));
        }
    }
    for prefix in ["not ", "- ", "+ ", "~ ", "case when 1 then ", "exists (select ", "interval ", "explain "] {
        all.push(format!("select {}1", prefix.repeat(2_000)));
    }
    all.push(format!("select 1{}", " union all select 1".repeat(2_000)));
    all.push(format!("select 1{}", " union select 1".repeat(390)));
    all.push(format!("select * from samples{}", " join samples using (run)".repeat(1_000)));
    all.push(format!("select 1{}", ", 1".repeat(100_000)));
    all.push(format!("select '{}'", "x".repeat(1 << 20)));
    all.push(format!("select \"{}\" from samples", "x".repeat(10_000)));
    all.push("select 1;".repeat(1_000));
    all.push(format!("select 1 /*{}*/", "/*".repeat(5_000)));
    all.push(format!("select 1 where 1 in ({}1)", "1,".repeat(3_000)));
    all.push(format!("{}select 1", "with a as (select 1) ".repeat(300)));
    all.push(format!("select * from {}samples{}", "(select * from ".repeat(200), ")".repeat(200)));
    all
}

fn odd() -> Vec<String> {
    let fixed = [
        "",
        ";",
        ";;;;",
        "\0",
        "select '\0'",
        "select \u{202e}1",
        "select 1 from",
        "select * from samples where",
        "select cast('x' as int)",
        "select 1 / 0",
        "select cast(9223372036854775807 as bigint) + 1",
        "select array_repeat(1, -1)",
        "select lpad('x', -1)",
        "select substr('abc', -9223372036854775808, 9223372036854775807)",
        "select regexp_replace('a', '(', 'b')",
        "select regexp_match('x', '(((((((((((x{1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000}){1000})')",
        "select to_timestamp('9999999-99-99')",
        "select date_bin(interval '0 seconds', now(), now())",
        "select nth_value(value, 0) over () from samples",
        "select exact_quantile(value, 7) from samples",
        "select topk_per(cast(rank as text), value, 1000000000) from samples",
        "select topk_per(cast(rank as text), value, -1) from samples",
        "select downsample(step, 0) from samples",
        "select downsample(step, -9223372036854775808) from samples",
        "select busbw('all_reduce', 1, 0, 0)",
        "select * from run_window('r', 18446744073709551615, 18446744073709551615)",
        "select * from run_window('r', -1, 1)",
        "select * from samples, samples",
        "select a.b.c.d.e.f.g from samples",
        "select chr(-1)",
        "select repeat('x', -5)",
        "select version(), current_user",
        "with recursive a as (select 1 as x union all select x + 1 from a) select * from a",
        "with recursive a as (select 1 as x union all select x from a) select count(*) from a",
        "select * from generate_series(1, 1000000000000)",
        "select * from range(0, 9223372036854775807)",
        "select getenv('HOME')",
        "select $1",
        "select @@version",
        "values (1), (1, 2)",
        "select * from digests",
    ];
    fixed.map(str::to_owned).into()
}

/// What would take all memory, or all time.
fn slow() -> Vec<String> {
    let fixed = [
        "select repeat('x', 2000000000)",
        "select length(repeat(repeat('x', 100000), 100000))",
        "select lpad('x', 2000000000, 'y')",
        "select array_repeat(repeat('x', 1000000), 1000000)",
        "select range(0, 9000000000)",
        "select generate_series(0, 9000000000)",
        "select unnest(range(0, 1000000000)) order by 1",
        "select count(*) from samples a, samples b, samples c",
        "select count(distinct a.value + b.value) from samples a, samples b",
        "select a.value, b.value from samples a, samples b order by a.value * b.value",
        NEVER,
        "select array_agg(a.metric || b.metric) from samples a, samples b",
        "select string_agg(a.metric, ',') from samples a, samples b",
        "select * from samples a, samples b",
    ];
    fixed.map(str::to_owned).into()
}
