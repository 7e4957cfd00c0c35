"""Reads an archive with DuckDB and Polars and compares every row with what was written, bit by bit.

check.py ARCHIVE_DIR EXPECTED_FILE

A line of EXPECTED_FILE is a row: its table, then its columns in the order of the contract, divided by the character
U+001F; a null is U+2205, a double its bits in hexadecimal, a time its nanoseconds.
"""

import sys
from collections import Counter
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.compute

NULL = "\u2205"


def duckdb_table(folder, hive):
    connection = duckdb.connect()
    # A run may be called 42 or 2026-01-01: without this, DuckDB takes such a folder for a number or a day.
    types = ", hive_types = {'run': VARCHAR}" if hive else ""
    source = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = {str(hive).lower()}{types})"
    return connection.sql(f"SELECT * FROM {source}").to_arrow_table()


def polars_table(folder, hive):
    schema = {"table": polars.String, "run": polars.String, "date": polars.Date} if hive else None
    frame = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=hive, hive_schema=schema)
    return frame.collect().to_arrow()


def texts(column):
    column = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    kind = column.type
    if pyarrow.types.is_timestamp(kind):
        assert kind.unit == "ns" and kind.tz in ("UTC", "Etc/UTC"), f"a time came as {kind}"
        column = column.cast(pyarrow.int64())
    if pyarrow.types.is_floating(kind):
        assert kind == pyarrow.float64(), f"a double came as {kind}"
        assert column.null_count == 0
        return [f"{bits:x}" for bits in column.to_numpy().view("uint64")]
    return [NULL if value is None else str(value) for value in column.to_pylist()]


def is_told_by_its_folder(line, columns_of):
    """False for the two kinds of names that no folder can hold: the empty one, and one of more than 200 bytes."""
    table, *cells = line.split("\u001f")
    run = cells[columns_of[table].index("run")]
    is_empty = run == "" or (run == NULL and table != "events")
    return not is_empty and not run.startswith("long ")


def rows(table, name, columns):
    parts = [texts(table.column(column)) for column in columns]
    return Counter("\u001f".join((name, *cells)) for cells in zip(*parts))


def main():
    root, expected_file = Path(sys.argv[1]), Path(sys.argv[2])
    lines = expected_file.read_text(encoding="utf-8").split("\u001e")
    columns_of = {line.split("\u001f")[0]: line.split("\u001f")[1:] for line in lines[0].split("\u001d")}
    expected = Counter(line for line in lines[1:] if line)
    tables = sorted(columns_of)
    failures = 0
    for reader, read in (("duckdb", duckdb_table), ("polars", polars_table)):
        for hive in (False, True):
            found = Counter()
            for name in tables:
                table = read(root / f"table={name}", hive)
                found += rows(table, name, columns_of[name])
            wanted = expected
            if hive:
                wanted, found = (
                    Counter({line: lines[line] for line in lines if is_told_by_its_folder(line, columns_of)})
                    for lines in (expected, found)
                )
            missing, strange = wanted - found, found - wanted
            print(f"{reader} hive={hive}: {found.total()} rows of {len(tables)} tables, "
                  f"{missing.total()} missing, {strange.total()} strange")
            for kind, some in (("missing", missing), ("strange", strange)):
                for line in list(some)[:3]:
                    print(f"  {kind}: {line!r}")
            failures += missing.total() + strange.total()
    print(f"duckdb {duckdb.__version__}, polars {polars.__version__}")
    sys.exit(1 if failures else 0)


main()
