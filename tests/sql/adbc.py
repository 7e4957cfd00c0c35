"""Asks a running service with the ADBC driver for Flight SQL, and with the Flight client of Arrow where ADBC has no word.

adbc.py ask URL ANSWERS       everything that a client of a database does; ANSWERS is a folder of what `trainwarden sql`
                              answers, an Arrow stream with its statement in a file of the same name beside it
adbc.py cancel URL PID        questions that would not end, ended in every way there is; PID is the service
adbc.py slow URL JOURNAL      asks for much, and reads none of it before the service has given up
adbc.py promise URL FOLDER    keeps a ticket and the handle of a prepared statement in a folder
adbc.py redeem URL FOLDER     asks with them
adbc.py token URL TOKEN       asks with a token; `none` = without
adbc.py hostile URL FILE      asks the statements in a file of JSON, and prints every answer and error
adbc.py wait URL              asks what does not end
"""

import json
import pathlib
import subprocess
import sys
import threading
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight

SOME = "(select value from samples limit 4000)"
NEVER = f"select sum(sin(a.value) * cos(b.value) * c.value) as x from {SOME} a, {SOME} b, {SOME} c"
TABLES = {"samples", "collectives", "digests", "events", "ranks", "groups", "incidents", "verdicts", "coverage", "columns"}


def connect(url, **options):
    return adbc_driver_flightsql.dbapi.connect(f"grpc://{url}", db_kwargs=options, autocommit=True)


def refusal(act, kind=adbc_driver_manager.Error):
    """What is said when something is refused."""
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError("it was not refused")


def ask(url, answers):
    with connect(url) as connection:
        database(connection)
        with connection.cursor() as cursor:
            statements(cursor, pathlib.Path(answers))
            prepared(cursor)
            refused(cursor)


def database(connection):
    """What the service is, and what is in it."""
    assert connection.adbc_get_info()["vendor_name"] == "TrainWarden"
    assert connection.adbc_get_table_types() == ["TABLE"]
    [catalog] = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    [schema] = catalog["catalog_db_schemas"]
    assert (catalog["catalog_name"], schema["db_schema_name"]) == ("trainwarden", "public")
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert TABLES <= set(tables), sorted(tables)
    columns = [column["column_name"] for column in tables["ranks"]["table_columns"]]
    assert columns[:4] == ["run", "attempt", "rank", "node"], columns
    assert all(table["table_constraints"] == [] for table in tables.values())
    [catalog] = connection.adbc_get_objects(depth="tables", table_name_filter="co%").read_all().to_pylist()
    found = {table["table_name"] for table in catalog["catalog_db_schemas"][0]["db_schema_tables"]}
    assert {"collectives", "columns", "coverage"} <= found and "samples" not in found, found
    value = connection.adbc_get_table_schema("samples").field("value")
    assert value.type == pyarrow.float64() and value.metadata[b"doc"].startswith(b"the number"), value
    refusal(lambda: connection.adbc_get_table_schema("smaples"))


def statements(cursor, answers):
    """Every answer is that of `trainwarden sql`: the same columns, the same rows, the same bits."""
    files = sorted(answers.glob("*.sql"))
    assert len(files) >= 5, files
    for file in files:
        with pyarrow.ipc.open_stream(file.with_suffix(".arrow")) as stream:
            expected = stream.read_all()
        cursor.execute(file.read_text())
        told = cursor.fetch_arrow_table()
        assert told.schema.equals(expected.schema) and plain(told).equals(plain(expected)), file.read_text()
        assert cursor.adbc_execute_schema(file.read_text()).equals(expected.schema), file.read_text()
    cursor.execute("select count(*) from trainwarden.public.samples")
    assert cursor.fetchone()[0] > 0


def plain(table):
    """Without dictionaries, whose order is nobody's promise."""
    types = [field.type for field in table.schema]
    plain_types = [kind.value_type if pyarrow.types.is_dictionary(kind) else kind for kind in types]
    return table.cast(pyarrow.schema(list(zip(table.column_names, plain_types))))


def prepared(cursor):
    """A statement that is prepared once, and asked with other values."""
    sql = "select metric, count(*) as n, min(rank) as least from samples where metric = ? and rank > ? group by metric"
    assert [field.type for field in cursor.adbc_prepare(sql)] == [pyarrow.string(), pyarrow.uint32()]
    for metric, rank in [("step_time_s", 3), ("forward_time_s", 12), ("step_time_s", 3)]:
        cursor.execute(sql, (metric, rank))
        told = cursor.fetchall()
        cursor.execute(sql.replace("?", f"'{metric}'", 1).replace("?", str(rank), 1))
        assert told == cursor.fetchall() and told[0][2] == rank + 1, told
    row = pyarrow.record_batch({"what": ["a'; drop table samples; --"], "number": [0.1]})
    cursor.execute("select $number as n, $what as w, $number as again", row)
    assert cursor.fetchall() == [(0.1, "a'; drop table samples; --", 0.1)]
    cursor.execute("select ? is null as unknown, ? as late", (None, True))
    assert cursor.fetchall() == [(True, True)]
    assert "No value found for placeholder" in refusal(lambda: cursor.execute("select ? + ?", (1,)).fetchall())
    two = pyarrow.record_batch({"value": [1, 2]})
    assert "must be one row" in refusal(lambda: cursor.execute("select $1 as a", two).fetchall())
    long = "x" * (65 << 10)
    assert "at most 65536 bytes" in refusal(lambda: cursor.execute("select ? as a", (long,)).fetchall())


def refused(cursor):
    for sql in ["drop table samples", "insert into samples values (1)", "copy samples to '/tmp/a'", "set a = 1"]:
        assert "only SELECT and EXPLAIN" in refusal(lambda: cursor.execute(sql)), sql
    assert "did you mean `value`?" in refusal(lambda: cursor.execute("select vlaue from samples"))
    assert "there is no table" in refusal(lambda: cursor.execute("select * from '/etc/passwd'"))
    assert "at most 1" in refusal(lambda: cursor.execute("select 1; select 2"))
    # More than is given out, after what was given out already: an error, and no short answer.
    cursor.execute("select a.*, repeat('x', 6000) as long from samples a")
    assert "larger than what is given out" in refusal(cursor.fetch_arrow_table)
    for sql, said in [("delete from samples", "only SELECT and EXPLAIN"), ("select 1", "is no update")]:
        statement = cursor.adbc_statement
        statement.set_sql_query(sql)
        assert said in refusal(statement.execute_update), sql
    rows = pyarrow.table({"run": ["a"]})
    said = refusal(lambda: cursor.adbc_ingest("samples", rows, mode="append"), adbc_driver_manager.NotSupportedError)
    assert "nothing is written" in said, said


def cancel(url, service):
    alone = lambda: answering(service) == 0
    with connect(url) as connection, connection.cursor() as cursor:
        said = []
        asking = threading.Thread(target=lambda: said.append(refusal(lambda: for_ever(cursor))))
        asking.start()
        wait("the question is being answered", lambda: answering(service) == 1)
        cursor.adbc_cancel()
        asking.join()
        assert "CANCELLED" in said[0], said
        wait("nobody answers a question that is cancelled", alone)
    client = pyarrow.flight.FlightClient(f"grpc://{url}")
    for action in ["CancelFlightInfo", "CancelQuery"]:
        by_action(client, action, service)
        wait("nobody answers a question that is cancelled by an action", alone)
    # Whoever asked is gone.
    asker = subprocess.Popen([sys.executable, __file__, "wait", url])
    wait("the question is being answered", lambda: answering(service) == 1)
    asker.kill()
    asker.wait()
    wait("nobody answers who is gone", alone)


def by_action(client, action, service):
    info = info_of(client, NEVER)
    body = field(1, info.serialize())
    action = pyarrow.flight.Action(action, body if action == "CancelFlightInfo" else any_of("ActionCancelQueryRequest", body))
    end = lambda: [result.body.to_pybytes() for result in client.do_action(action)]
    assert "not being answered" in refusal(end, pyarrow.ArrowKeyError)
    said = []
    read = lambda: client.do_get(info.endpoints[0].ticket).read_all()
    asking = threading.Thread(target=lambda: said.append(refusal(read, pyarrow.flight.FlightCancelledError)))
    asking.start()
    wait("the question is being answered", lambda: answering(service) == 1)
    # Cancelled, the first value of both enumerations.
    assert end()[0].endswith(b"\x08\x01")
    asking.join()
    assert "the question was cancelled" in said[0], said


def info_of(client, sql):
    asked = any_of("CommandStatementQuery", field(1, sql.encode()))
    return client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(asked))


def slow(url, journal):
    client = pyarrow.flight.FlightClient(f"grpc://{url}")
    info = info_of(client, "select a.* from samples a, samples b limit 500000")
    answer = client.do_get(info.endpoints[0].ticket)
    journal = pathlib.Path(journal)
    wait("the service has given up", lambda: journal.exists() and "no answer within 10 s" in journal.read_text())
    # What had come by then is read, and then told to be no answer.
    assert answer.read_chunk().data.num_rows > 0
    assert "no answer within 10 s" in refusal(answer.read_all, pyarrow.ArrowException)


def promise(url, folder):
    client = pyarrow.flight.FlightClient(f"grpc://{url}")
    info = info_of(client, "select 6 * 7 as answer")
    (pathlib.Path(folder) / "ticket").write_bytes(info.endpoints[0].ticket.ticket)
    create = any_of("ActionCreatePreparedStatementRequest", field(1, b"select 6 * 7 as answer"))
    [result] = client.do_action(pyarrow.flight.Action("CreatePreparedStatement", create))
    # An Any of a name and a result, whose first field is the handle.
    body = value_of(value_of(result.body.to_pybytes(), 2), 1)
    (pathlib.Path(folder) / "handle").write_bytes(body)


def redeem(url, folder):
    client = pyarrow.flight.FlightClient(f"grpc://{url}")
    ticket, handle = ((pathlib.Path(folder) / name).read_bytes() for name in ["ticket", "handle"])
    prepared = any_of("CommandPreparedStatementQuery", field(1, handle))
    info = client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(prepared))
    assert info.schema.names == ["answer"], info.schema
    for ticket in [pyarrow.flight.Ticket(ticket), info.endpoints[0].ticket]:
        assert client.do_get(ticket).read_all().to_pylist() == [{"answer": 42}]
    assert "none of ours" in refusal(
        lambda: client.do_get(pyarrow.flight.Ticket(any_of("TicketStatementQuery", field(1, b"\xff")))), pyarrow.ArrowInvalid
    )


def value_of(message, number):
    """The bytes of the first field with a number in a message of protobuf that has fields of bytes alone."""
    at = 0
    while at < len(message):
        found, at = message[at] >> 3, at + 1
        length = shift = 0
        while True:
            length |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 128:
                break
        if found == number:
            return message[at : at + length]
        at += length
    raise AssertionError(f"no field {number}")


def field(number, value):
    """A field of bytes in a message of protobuf."""
    length, left = b"", len(value)
    while left > 127:
        length, left = length + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + value


def any_of(name, body):
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}".encode()) + field(2, body)


def answering(service):
    """How many processes answer questions of a service."""
    count = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
            count += parent == int(service) and b"sql-answer" in (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return count


def wait(what, is_so):
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.02)


def hostile(url, file):
    with connect(url) as connection, connection.cursor() as cursor:
        for sql in json.loads(pathlib.Path(file).read_text()):
            try:
                cursor.execute(sql)
                for batch in cursor.fetch_record_batch():
                    print("answered", *(column.slice(0, 100).to_string(window=100) for column in batch.columns))
            except (adbc_driver_manager.Error, pyarrow.ArrowException) as error:
                said = str(error)
                assert len(said) > 10 and "panicked" not in said and "UNAVAILABLE" not in said, (sql[:200], said)
                print("refused", said)


def token(url, token):
    key = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
    options = {} if token == "none" else {key: f"Bearer {token}"}
    with connect(url, **options) as connection, connection.cursor() as cursor:
        cursor.execute("select 1 as a")
        print(cursor.fetchall())


def ask_for_ever(url):
    with connect(url) as connection, connection.cursor() as cursor:
        for_ever(cursor)


def for_ever(cursor):
    """A cursor would prepare it first, in a process of its own."""
    cursor.adbc_statement.set_sql_query(NEVER)
    cursor.adbc_statement.execute_query()


if __name__ == "__main__":
    modes = {"ask": ask, "hostile": hostile, "cancel": cancel, "token": token, "wait": ask_for_ever}
    (modes | {"slow": slow, "promise": promise, "redeem": redeem})[sys.argv[1]](*sys.argv[2:])
