#!/usr/bin/env python3
"""psycopg 3 against a coordinator: what drivers do that psql does not. One function per test; all run on one cluster."""

import argparse
import datetime
import decimal
import sys
import threading
import traceback
import uuid

import psycopg
from psycopg import errors, rows, sql
from psycopg.types.json import Jsonb

TESTS = []


def test(function):
    TESTS.append(function)
    return function


class Cluster:
    """A coordinator and two workers, databases of one server."""

    def __init__(self, options):
        self.options = options
        admin = self.connect("postgres", autocommit=True)
        for database in ("clients", "clients_worker_1", "clients_worker_2"):
            admin.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {database}")
        admin.close()
        with self.connect() as c:
            c.execute("CREATE EXTENSION shard_ext")
            for number in (1, 2):
                c.execute("SELECT shard_ext.add_node(%s, %s, %s, %s)",
                          (f"worker_{number}", options.host, options.port, f"clients_worker_{number}"))
            c.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
            c.execute("""CREATE TABLE people (id int PRIMARY KEY, name text, mood mood, born date, height numeric(5, 2),
                         tags text[], data jsonb, token uuid, photo bytea, seen timestamptz, rate float8)""")
            c.execute("SELECT create_distributed_table('people', 'id', shard_count => 8)")

    def connect(self, database="clients", **more):
        o = self.options
        return psycopg.connect(host=o.host, port=o.port, user=o.user, dbname=database, **more)

    def fill(self, connection, count=1000):
        connection.execute("TRUNCATE people")
        with connection.cursor().copy("COPY people (id, name, rate) FROM STDIN") as copy:
            for i in range(count):
                copy.write_row((i, f"name {i}", i / 4))


@test
def types_round_trip(cluster):
    """Every type comes back as it went, in text and in binary."""
    row = (7, "Zoë\t\\'\"\n", "sad", datetime.date(1815, 12, 10), decimal.Decimal("163.50"), ["a", None, 'q"\\,{}'],
           Jsonb({"k": [1, None, "x"]}), uuid.UUID(int=99), bytes(range(256)),
           datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc), 1e-300)
    for binary in (False, True):
        with cluster.connect() as c:
            c.execute("TRUNCATE people")
            c.execute("INSERT INTO people VALUES (%s, %s, %s::mood, %s, %s, %s, %s, %s, %s, %s, %s)", row)
            got = c.cursor(binary=binary).execute("SELECT * FROM people WHERE id = %s", (7,)).fetchone()
            expected = list(row)
            expected[6] = row[6].obj
            if binary:  # psycopg does not know this enum
                expected[2] = b"sad"
            assert list(got) == expected, (binary, got, expected)
            everything = c.cursor(binary=binary).execute("SELECT * FROM people").fetchall()
            assert everything == [got], (everything, got)


@test
def column_descriptions(cluster):
    with cluster.connect() as c:
        d = c.execute("SELECT id, height, name AS n, count(*) OVER () FROM people WHERE id = 1").description
        assert [x.name for x in d] == ["id", "height", "n", "count"]
        assert [x.type_code for x in d] == [23, 1700, 25, 20]
        assert (d[1].precision, d[1].scale) == (5, 2)


@test
def prepared_statements(cluster):
    """More executions than PostgreSQL's five custom plans, keys on all nodes, one statement."""
    with cluster.connect(prepare_threshold=0) as c:
        cluster.fill(c)
        for i in range(200):
            assert c.execute("SELECT name FROM people WHERE id = %s", (i,), prepare=True).fetchone() == (f"name {i}",)
            assert c.execute("SELECT count(*) FROM people WHERE id < %s", (i,), prepare=True).fetchone() == (i,)
        for i in range(50):
            cursor = c.execute("UPDATE people SET name = %s WHERE id = %s RETURNING rate", (f"new {i}", i), prepare=True)
            assert cursor.fetchone() == (i / 4,) and cursor.rowcount == 1
        assert c.execute("SELECT count(*) FROM people WHERE name LIKE 'new %'").fetchone() == (50,)


@test
def prepared_statement_survives_redistribution(cluster):
    with cluster.connect(prepare_threshold=0, autocommit=True) as c, cluster.connect(autocommit=True) as other:
        c.execute("CREATE TABLE moving (id int PRIMARY KEY, v int)")
        c.execute("INSERT INTO moving SELECT g, g * 2 FROM generate_series(1, 20) g")
        read = lambda: [c.execute("SELECT v FROM moving WHERE id = %s", (i,), prepare=True).fetchone()[0] for i in range(1, 21)]  # noqa: E731
        expected = [i * 2 for i in range(1, 21)]
        assert read() == expected
        other.execute("SELECT create_distributed_table('moving', 'id', shard_count => 4)")
        assert read() == expected
        other.execute("SELECT undistribute_table('moving')")
        assert read() == expected
        c.execute("DROP TABLE moving")


@test
def null_parameters_and_wrong_types(cluster):
    with cluster.connect(autocommit=True) as c:
        assert c.execute("SELECT count(*) FROM people WHERE id = %s", (None,)).fetchone() == (0,)
        try:
            c.execute("SELECT * FROM people WHERE id = %s", ("not a number",))
            raise AssertionError("an error was expected")
        except errors.InvalidTextRepresentation:
            pass


@test
def server_side_cursor(cluster):
    """A named cursor in pieces, scrolled, and beside other statements of its transaction."""
    with cluster.connect() as c:
        cluster.fill(c, 5000)
        with c.cursor("forward") as cursor:
            cursor.itersize = 700
            cursor.execute("SELECT id, name FROM people ORDER BY id")
            ids = []
            for n, (i, _) in enumerate(cursor):
                ids.append(i)
                if n % 1000 == 0:  # the connection to the worker is in the middle of the cursor's rows
                    assert c.execute("SELECT name FROM people WHERE id = %s", (i,)).fetchone() == (f"name {i}",)
                    c.execute("UPDATE people SET rate = 0 WHERE id = %s", (i,))
            assert ids == list(range(5000))
        with c.cursor("scroll", scrollable=True) as cursor:
            cursor.execute("SELECT id FROM people ORDER BY id")
            assert cursor.fetchmany(3) == [(0,), (1,), (2,)]
            cursor.scroll(-2)
            assert cursor.fetchone() == (1,)
            cursor.scroll(4990, mode="absolute")
            assert cursor.fetchall() == [(i,) for i in range(4990, 5000)]


@test
def cursor_with_hold(cluster):
    with cluster.connect() as c:
        cluster.fill(c, 3000)
        c.commit()
        cursor = c.cursor("held", withhold=True)
        cursor.execute("SELECT id FROM people ORDER BY id")
        assert cursor.fetchone() == (0,)
        c.commit()
        assert len(cursor.fetchall()) == 2999
        cursor.close()


@test
def abandoned_cursors(cluster):
    """Two cursors on the same tables, closed half read; the session goes on."""
    with cluster.connect() as c:
        cluster.fill(c, 20000)
        a, b = c.cursor("a"), c.cursor("b")
        a.execute("SELECT * FROM people")
        b.execute("SELECT id FROM people WHERE id % 2 = 0")
        assert len(a.fetchmany(10)) == 10 and len(b.fetchmany(10)) == 10
        assert len(a.fetchmany(100)) == 100
        a.close()
        assert len(b.fetchall()) == 9990
        b.close()
        assert c.execute("SELECT count(*) FROM people").fetchone() == (20000,)


@test
def stream_without_cursor(cluster):
    """Single-row mode on the client's side."""
    with cluster.connect() as c:
        cluster.fill(c, 5000)
        seen = 0
        for _ in c.cursor().stream("SELECT * FROM people"):
            seen += 1
        assert seen == 5000


@test
def executemany(cluster):
    """psycopg sends these as a pipeline."""
    with cluster.connect() as c:
        c.execute("TRUNCATE people")
        cursor = c.cursor()
        cursor.executemany("INSERT INTO people (id, name) VALUES (%s, %s)", [(i, f"n{i}") for i in range(300)])
        assert cursor.rowcount == 300
        cursor.executemany("UPDATE people SET name = %s WHERE id = %s RETURNING id", [("x", i) for i in range(50)], returning=True)
        returned = []
        while True:
            returned += cursor.fetchall()
            if not cursor.nextset():
                break
        assert returned == [(i,) for i in range(50)]
        assert c.execute("SELECT count(*), count(*) FILTER (WHERE name = 'x') FROM people").fetchone() == (300, 50)


@test
def pipeline_mode(cluster):
    with cluster.connect(autocommit=True) as c:
        cluster.fill(c, 100)
        with c.pipeline():
            answers = [c.execute("SELECT name FROM people WHERE id = %s", (i,)) for i in range(100)]
            total = c.execute("SELECT count(*) FROM people")
        assert [a.fetchone()[0] for a in answers] == [f"name {i}" for i in range(100)]
        assert total.fetchone() == (100,)
        # an error in the middle undoes what is before it since the last sync, and skips what is behind it
        try:
            with c.pipeline():
                c.execute("INSERT INTO people (id) VALUES (%s)", (1001,))
                c.execute("INSERT INTO people (id) VALUES (%s)", (1,))
                c.execute("INSERT INTO people (id) VALUES (%s)", (1002,))
            raise AssertionError("an error was expected")
        except errors.UniqueViolation:
            pass
        assert c.execute("SELECT count(*) FROM people WHERE id > 1000").fetchone() == (0,)


@test
def copy_in_and_out(cluster):
    with cluster.connect() as c:
        c.execute("TRUNCATE people")
        with c.cursor().copy("COPY people (id, name, tags) FROM STDIN") as copy:
            for i in range(2000):
                copy.write_row((i, None if i % 3 == 0 else f"tab\t{i}", ["x", str(i)]))
        with c.cursor().copy("COPY people (id, name, tags) TO STDOUT") as copy:
            copy.set_types(["int4", "text", "text[]"])
            got = sorted(copy.rows())
        assert got[5] == (5, "tab\t5", ["x", "5"]) and got[6] == (6, None, ["x", "6"]) and len(got) == 2000
        with c.cursor().copy("COPY (SELECT id FROM people WHERE id < 10 ORDER BY id) TO STDOUT (FORMAT csv)") as copy:
            assert b"".join(copy) == b"".join(b"%d\n" % i for i in range(10))


@test
def copy_binary(cluster):
    with cluster.connect() as c:
        c.execute("TRUNCATE people")
        with c.cursor().copy("COPY people (id, name, rate) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "float8"])
            for i in range(500):
                copy.write_row((i, f"b{i}", i / 3))
        with c.cursor().copy("COPY people (id, name, rate) TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "float8"])
            assert sorted(copy.rows()) == [(i, f"b{i}", i / 3) for i in range(500)]


@test
def failed_copy_leaves_nothing(cluster):
    with cluster.connect() as c:
        cluster.fill(c, 10)
        c.commit()
        try:
            with c.cursor().copy("COPY people (id, name) FROM STDIN") as copy:
                for i in range(100, 2000):
                    copy.write_row((i, "x"))
                copy.write_row(("oops", "not a number"))
            raise AssertionError("an error was expected")
        except errors.InvalidTextRepresentation as e:
            assert "line 1901" in (e.diag.context or ""), e.diag.context
        c.rollback()
        try:
            with c.cursor().copy("COPY people (id, name) FROM STDIN") as copy:
                copy.write_row((3000, "x"))
                raise KeyError("the client gives up")
        except KeyError:
            pass
        c.rollback()
        assert c.execute("SELECT count(*) FROM people").fetchone() == (10,)


@test
def transactions_and_savepoints(cluster):
    with cluster.connect() as c:
        cluster.fill(c, 10)
        c.commit()
        with c.transaction():
            c.execute("UPDATE people SET rate = -1")
            try:
                with c.transaction():  # a savepoint
                    c.execute("DELETE FROM people")
                    assert c.execute("SELECT count(*) FROM people").fetchone() == (0,)
                    raise KeyError
            except KeyError:
                pass
            assert c.execute("SELECT count(*), sum(rate) FROM people").fetchone() == (10, -10)
            try:
                with c.transaction():
                    c.execute("INSERT INTO people (id) VALUES (5)")
            except errors.UniqueViolation:
                pass
            c.execute("INSERT INTO people (id, rate) VALUES (77, 1)")
        assert c.execute("SELECT count(*), sum(rate) FROM people").fetchone() == (11, -9)
        c.execute("DELETE FROM people")
        c.rollback()
        assert c.execute("SELECT count(*) FROM people").fetchone() == (11,)


@test
def isolation_and_read_only(cluster):
    with cluster.connect() as c, cluster.connect(autocommit=True) as other:
        cluster.fill(c, 10)
        c.commit()
        c.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert c.execute("SELECT count(*) FROM people").fetchone() == (10,)
        other.execute("DELETE FROM people WHERE id < 5")
        assert c.execute("SELECT count(*) FROM people").fetchone() == (10,)
        try:
            c.execute("UPDATE people SET rate = 1 WHERE id = 1")
            raise AssertionError("an error was expected")
        except errors.SerializationFailure:
            c.rollback()
        c.isolation_level = None
        c.read_only = True
        try:
            c.execute("DELETE FROM people")
            raise AssertionError("an error was expected")
        except errors.ReadOnlySqlTransaction:
            c.rollback()


@test
def errors_with_their_fields(cluster):
    with cluster.connect(autocommit=True) as c:
        cluster.fill(c, 10)
        try:
            c.execute("INSERT INTO people (id) VALUES (%s)", (3,))
            raise AssertionError("an error was expected")
        except errors.UniqueViolation as e:
            assert e.diag.constraint_name == "people_pkey", e.diag.constraint_name
            assert e.diag.table_name == "people", e.diag.table_name
            assert "(id)=(3)" in e.diag.message_detail
        for statement, expected in [
            ("SELECT 1 / (id - id) FROM people", errors.DivisionByZero),
            ("SELECT no_such FROM people", errors.UndefinedColumn),
            ("INSERT INTO people (id) VALUES (NULL)", errors.NotNullViolation),
            ("INSERT INTO people (id, mood) VALUES (99, 'angry')", errors.InvalidTextRepresentation),
            ("INSERT INTO people (id, height) VALUES (99, 123456)", errors.NumericValueOutOfRange),
            ("SELECT name::int FROM people WHERE id = 1", errors.InvalidTextRepresentation),
        ]:
            try:
                c.execute(statement)
                raise AssertionError(f"{statement}: an error was expected")
            except expected:
                pass
        assert c.execute("SELECT count(*) FROM people").fetchone() == (10,)


@test
def session_settings_follow(cluster):
    with cluster.connect(autocommit=True) as c:
        c.execute("TRUNCATE people")
        c.execute("INSERT INTO people (id, seen) VALUES (1, '2024-07-01 03:00+00')")
        for zone, day in (("America/Los_Angeles", datetime.date(2024, 6, 30)), ("UTC", datetime.date(2024, 7, 1))):
            c.execute(sql.SQL("SET TIME ZONE {}").format(sql.Literal(zone)))
            for statement in ("SELECT seen::date FROM people WHERE id = 1", "SELECT max(seen::date) FROM people"):
                assert c.execute(statement).fetchone() == (day,), (zone, statement)


@test
def row_factories_and_local_tables(cluster):
    with cluster.connect(row_factory=rows.dict_row) as c:
        cluster.fill(c, 10)
        c.execute("CREATE TEMP TABLE wanted (id int)")
        c.execute("INSERT INTO wanted VALUES (2), (4), (400)")
        got = c.execute("SELECT p.id, p.name FROM people p JOIN wanted w USING (id) ORDER BY 1").fetchall()
        assert got == [{"id": 2, "name": "name 2"}, {"id": 4, "name": "name 4"}]


@test
def many_sessions_at_once(cluster):
    """Eight threads write to their own rows and to one shared counter."""
    with cluster.connect() as c:
        cluster.fill(c, 100)
        c.execute("UPDATE people SET rate = 0")
    problems = []

    def work(thread):
        try:
            with cluster.connect() as c:
                for i in range(25):
                    with c.transaction():
                        c.execute("UPDATE people SET rate = rate + 1 WHERE id = %s", (thread,))
                        c.execute("UPDATE people SET rate = rate + 1 WHERE id = %s", (99,))
        except Exception as e:  # noqa: BLE001
            problems.append(e)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not problems, problems
    with cluster.connect() as c:
        assert c.execute("SELECT rate FROM people WHERE id = 99").fetchone() == (200,)
        assert c.execute("SELECT sum(rate) FROM people WHERE id < 8").fetchone() == (200,)
        assert c.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)


@test
def cancel_from_another_thread(cluster):
    with cluster.connect(autocommit=True) as c:
        cluster.fill(c, 1000)
        timer = threading.Timer(0.5, c.cancel)
        timer.start()
        try:
            c.execute("SELECT count(*) FROM people a, generate_series(1, 100000000) g WHERE a.id + g = 3")
            raise AssertionError("an error was expected")
        except errors.QueryCanceled:
            pass
        finally:
            timer.join()
        assert c.execute("SELECT count(*) FROM people").fetchone() == (1000,)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", default=5432, type=int)
    parser.add_argument("--user", default="postgres")
    parser.add_argument("names", nargs="*", help="only tests whose name contains this")
    options = parser.parse_args()
    passed = failed = 0
    try:
        cluster = Cluster(options)
    except psycopg.Error:
        traceback.print_exc()
        print("0 passed, 1 failed")
        return 1
    for function in TESTS:
        if options.names and not any(n in function.__name__ for n in options.names):
            continue
        try:
            function(cluster)
            passed += 1
            print(f"{function.__name__}: ok", flush=True)
        except Exception:  # noqa: BLE001
            failed += 1
            print(f"{function.__name__}: FAILED", flush=True)
            traceback.print_exc(limit=3, file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
