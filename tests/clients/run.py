#!/usr/bin/env python3
"""psycopg 3 against a coordinator: what drivers do that psql does not. One function per test; all run on one cluster."""

import argparse
import datetime
import decimal
import itertools
import pathlib
import random
import subprocess
import sys
import threading
import time
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
        self.make("clients", nodes=2)
        with self.connect() as c:
            c.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
            c.execute("""CREATE TABLE people (id int PRIMARY KEY, name text, mood mood, born date, height numeric(5, 2),
                         tags text[], data jsonb, token uuid, photo bytea, seen timestamptz, rate float8)""")
            c.execute("SELECT create_distributed_table('people', 'id', shard_count => 8)")

    def make(self, database, nodes=0):
        """A database; with nodes the coordinator of so many others."""
        workers = [f"{database}_worker_{number}" for number in range(1, nodes + 1)]
        with self.connect("postgres", autocommit=True) as admin:
            for name in (database, *workers):
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                admin.execute(f"CREATE DATABASE {name}")
        if workers:
            with self.connect(database) as c:
                c.execute("CREATE EXTENSION shard_ext")
                for number, name in enumerate(workers, 1):
                    c.execute("SELECT shard_ext.add_node(%s, %s, %s, %s)", (f"worker_{number}", self.options.host, self.options.port, name))

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
def whole_tables_as_on_plain_postgresql(cluster):
    """All rows of a table, byte by byte as another table of the same rows gives them: in both formats, under settings
    that change texts, in and outside of transactions."""
    columns = """id int, small smallint, big bigint, flag bool, r real, d float8, n numeric, t text, v varchar(20), c char(8), one "char",
                 b bytea, day date, at timestamp, seen timestamptz, clock time, clock_tz timetz, span interval, u uuid, j json, jb jsonb,
                 a int[], ta text[], m mood, address inet, bits bit varying(9), place point, r4 int4range, mr datemultirange, words tsvector,
                 price money, x xml, "Ö ""q"" " text"""
    row = """i, CASE WHEN i % 7 = 0 THEN NULL ELSE i END, i * 10000000000, i % 2 = 0, i / 7.0::real, i / 7.0::float8, i / 7.0, E'a\\tb\\\\c\\n' || i,
             CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE E'\\\\N' END, 'é' || i, 'x', decode(md5(i::text), 'hex'), date '2024-01-01' + i,
             timestamp '2024-01-01' + i * interval '1.5 days', timestamptz '2024-06-01 00:00Z' + i * interval '7 hours', time '00:00' + i * interval '61 s',
             timetz '12:00+02', i * interval '1 month 3 days 01:02:03.5', md5(i::text)::uuid, json_build_object('i', i), jsonb_build_object('i', i, 'ä', null),
             ARRAY[i, NULL, 2], ARRAY['a', NULL, E'q"\\\\', ''], (CASE WHEN i % 2 = 0 THEN 'happy' ELSE 'sad' END)::mood, ('10.0.0.' || i % 250 || '/24')::inet,
             i::bit(9), point(i, 0.1), int4range(i, i + 3), datemultirange(daterange('2024-01-01', date '2024-01-01' + i)),
             to_tsvector('simple', 'word ' || i), (i * 1.25)::numeric::money, '<a>é</a>', 'Ünïcode'"""
    settings = ["", "SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'", "SET TimeZone = 'Asia/Kathmandu'; SET bytea_output = 'escape'",
                "SET extra_float_digits = 0", "SET client_encoding = 'LATIN1'", "BEGIN"]
    with cluster.connect(autocommit=True) as c:
        c.execute(f"DROP TABLE IF EXISTS every_type, every_type_here; CREATE TABLE every_type ({columns}); CREATE TABLE every_type_here ({columns})")
        c.execute("SELECT create_distributed_table('every_type', 'id', shard_count => 8)")
        for table in ("every_type", "every_type_here"):
            c.execute(f"INSERT INTO {table} SELECT {row} FROM generate_series(1, 300) i")
        for change in settings:
            if change:
                c.execute(change)
            for output in (0, 1):
                def rows_of(table):
                    result = c.pgconn.exec_params(f"SELECT * FROM {table}".encode(), [], result_format=output)
                    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
                    got = [[result.get_value(i, j) for j in range(result.nfields)] for i in range(result.ntuples)]
                    return sorted(got, key=lambda r: r[0]), [(result.fname(j), result.ftype(j), result.fformat(j)) for j in range(result.nfields)]

                got, expected = rows_of("every_type"), rows_of("every_type_here")
                assert got[1] == expected[1], (change, output)
                assert len(got[0]) == 300
                for one, other in zip(*(rows for rows, _ in (got, expected))):
                    different = [(name, a, b) for (name, *_), a, b in zip(got[1], one, other) if a != b]
                    assert not different, (change, output, different)
            if change == "BEGIN":
                c.execute("COMMIT")
            else:
                c.execute("RESET ALL")
        # a portal that is read in parts, and one whose reading is mixed with other statements
        for few in (1, 7, 299, 300, 301):
            with c.transaction(), c.cursor(name="parts") as cursor:
                cursor.execute("SELECT id, t, seen FROM every_type")
                got = []
                while rows_read := cursor.fetchmany(few):
                    got += rows_read
                    assert c.execute("SELECT count(*) FROM every_type").fetchone() == (300,)
                assert sorted(got) == c.execute("SELECT id, t, seen FROM every_type_here ORDER BY id").fetchall()
        c.execute("DROP TABLE every_type, every_type_here")


@test
def column_descriptions(cluster):
    with cluster.connect() as c:
        d = c.execute("SELECT id, height, name AS n, count(*) OVER () FROM people WHERE id = 1").description
        assert [x.name for x in d] == ["id", "height", "n", "count"]
        assert [x.type_code for x in d] == [23, 1700, 25, 20]
        assert (d[1].precision, d[1].scale) == (5, 2)
        # where columns come from, which drivers need for updatable results
        table = c.execute("SELECT 'people'::regclass::oid").fetchone()[0]
        born, name, none = (table, 4), (table, 2), (0, 0)
        for query, *origins in (("SELECT born, name FROM people", born, name), ("SELECT name, 1 FROM people WHERE id = 1", name, none),
                                ("SELECT born, name FROM people WHERE id < 4 ORDER BY name LIMIT 3", born, name),
                                ("SELECT born, count(*), max(name) FROM people GROUP BY 1 ORDER BY 2", born, none, none),
                                ("SELECT a.name, b.born AS x FROM people a JOIN people b ON b.rate = a.id", name, born),
                                ("SELECT name || '', x.born FROM (SELECT DISTINCT born, name FROM people) x", none, born),
                                ("SELECT born FROM people UNION SELECT born FROM people", none),
                                ("SELECT name FROM people WHERE rate > 1 FOR UPDATE", name),
                                ("UPDATE people SET rate = rate RETURNING born, rate + 1", born, none)):
            result = c.execute(query).pgresult
            assert [(result.ftable(i), result.ftablecol(i)) for i in range(result.nfields)] == list(origins), query


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


# Inputs of COPY that fail, for a table (k int PRIMARY KEY, a int, b text NOT NULL CHECK (b <> 'bad'), d even, v varchar(5)).
HEADER = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
ONE = b"\0\3\0\0\0\4\0\0\0\1\0\0\0\4\0\0\0\1\0\0\0\1x"  # a binary row
MANY = b"".join(b"%d\t1\tx\n" % i for i in range(1, 3000))
BAD_COPIES = [
    ("(k, a, b)", "", b"1\t1\tx\n2\tx\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\nz\t2\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\n\\N\t2\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\n3\t2\n"),
    ("(k, a, b)", "", b"1\t1\tx\n3\n"),
    ("(k, a, b)", "", b"1\t1\tx\n\n"),
    ("(k, a, b)", "", b"1\t1\tx\n3\t2\ty\tmore\n"),
    ("(k, a, b)", "", MANY + b"1500\t1\ttwice\n5000\t1\tx\n"),
    ("(k, a, b)", "", MANY + b"3000\t1\tbad\n5000\t1\tx\n"),
    ("(k, a, b)", "", MANY + b"3000\t1\t\\N\n5000\t1\tx\n"),
    ("(k, b, d)", "", b"1\tx\t2\n2\tx\t3\n"),
    ("(k, b, v)", "", b"1\tx\tshort\n2\tx\ttoo long\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t99999999999\ty\n"),
    ("(k, a, b)", "", b"1\t1\t" + b"x" * 500 + b"\n1\t1\t" + b"y" * 500 + b"\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t" + b"9" * 500 + b"\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\\\nwith a line\n2\tx\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\r\n2\tx\ty\r\n"),
    ("(k, a, b)", "", b"1\t1\tx\r\n2\t2\ty\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t2\ty\r\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t2\t\xff\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t2\ta\0b\n"),
    ("(k, a, b)", "", b"1\t1\tx\n\\.x\n"),
    ("(k, a, b)", "", b"1\t1\tx\n2\t2\ty\\.\n"),
    ("(k, a, b)", " (HEADER)", b"anything\n1\t1\tx\n2\tx\ty\n"),
    ("(k, a, b)", " (HEADER MATCH)", b"k\ta\tc\n1\t1\tx\n"),
    ("(k, a, b)", " (DELIMITER '|', NULL '')", b"1|1|x\n2||y\n3|4|\n"),
    ("(k, a, b)", " (ENCODING 'LATIN1')", b"1\t1\t\xe9\n2\tx\ty\n"),
    ("(k, a, b)", " (FORMAT csv)", b'1,1,"two\nlines"\n2,x,y\n'),
    ("(k, a, b)", " (FORMAT csv)", b'1,1,"two\nlines"\n2,1,"three\n\nlines"\n2,1,again\n3,1,x\n'),
    ("(k, a, b)", " (FORMAT csv)", b'1,1,"two\r\nlines"\r\n2,1,"three\r\n\r\nlines"\r\n2,1,again\r\n3,1,x\r\n'),
    ("(k, a, b)", " (FORMAT csv)", b'1,1,x\n2,1,"never closed\n3,1,x\n'),
    ("(k, a, b)", " (FORMAT csv, HEADER)", b"k,a,b\n1,1,x\n2,1\n"),
    ("(k, a, b)", " (FORMAT csv, HEADER MATCH)", b"k,b,a\n1,1,x\n"),
    ("(k, a, b)", " (FORMAT csv, HEADER MATCH)", b"k,a,b\n1,1,x\n1,2,y\n"),
    ("(k, a, b)", " (FORMAT csv, FORCE_NULL (b), NULL 'n')", b'1,1,x\n2,1,"n"\n'),
    ("(k, a, b)", " (FORMAT csv, FORCE_NOT_NULL (a))", b"1,1,x\n2,,y\n"),
    ("(k, a, b)", " (FORMAT csv, QUOTE '''', ESCAPE '!')", b"1,1,'x!'y'\n2,x,'z'\n"),
    ("", "", b"1\t1\tx\t2\tv\n2\t1\tx\t2\tlonger\n"),
    ("(b, k)", "", b"x\t1\nbad\t2\n"),
    ("(k, b)", " WHERE k > 1 AND b <> 'w'", b"1\tbad\n2\tw\n3\tbad\n"),
    ("(k, b)", " WHERE 10 / k > 0", b"1\tx\n0\ty\n"),
    ("(a, k)", "", b"1\t2\n"),
    ("(k, a, b)", " (FORMAT binary)", b"not binary at all, whatever it is"),
    ("(k, a, b)", " (FORMAT binary)", HEADER + ONE + b"\0\2"),
    ("(k, a, b)", " (FORMAT binary)", HEADER + b"\0\3\0\0\0\4\0\0\0\1\0\0\0\3\0\0\0\0\0\0\1x\xff\xff"),
    ("(k, a, b)", " (FORMAT binary)", HEADER + ONE + ONE + b"\xff\xff"),
    ("(k, a, b)", " (FORMAT binary)", HEADER + ONE[:-5] + b"\xff\xff\xff\xff\xff\xff"),
    ("(k, a, b)", " (FORMAT binary)", HEADER + ONE[:-9]),
]


def copy_error(connection, sql, data):
    """SQLSTATE, texts and fields of what COPY of the data says, with the CONTEXT up to the node's own."""
    try:
        with connection.cursor().copy(sql) as copy:
            for start in range(0, len(data), 8192):
                copy.write(data[start:start + 8192])
    except psycopg.Error as e:
        d = e.diag
        context = (d.context or "").split("\nnode ")[0]
        return d.sqlstate, d.message_primary, d.message_detail, d.message_hint, d.constraint_name, d.table_name, d.column_name, context
    return ("no error",)


@test
def copy_errors_are_those_of_a_plain_table(cluster):
    """With the line and column of the user's input, and nothing kept."""
    with cluster.connect(autocommit=True) as c:
        c.execute("CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0)")
        for schema in ("one", "many"):
            c.execute(f"CREATE SCHEMA {schema}")
            c.execute(f"CREATE TABLE {schema}.t (k int PRIMARY KEY, a int, b text NOT NULL CHECK (b <> 'bad'), d even, v varchar(5))")
        c.execute("SELECT create_distributed_table('many.t', 'k', shard_count => 4)")
        different = []
        for columns, options, data in BAD_COPIES:
            said = [copy_error(c, f"COPY {schema}.t {columns} FROM STDIN{options}", data) for schema in ("one", "many")]
            if said[0] != said[1]:
                different.append((columns, options, data[-80:], *said))
            for schema in ("one", "many"):
                rows = c.execute(f"SELECT count(*) FROM {schema}.t").fetchone()[0]
                assert rows == 0 or said[0] == ("no error",), (schema, rows, columns, options, data[-80:])
                c.execute(f"TRUNCATE {schema}.t")
        assert not different, "\n".join(map(str, different))


@test
def copy_of_what_ends_oddly(cluster):
    """End markers, missing last newlines, other line ends: the rows are those of a plain table."""
    inputs = [
        ("", b"1\ta"), ("", b"1\ta\n\\.\n"), ("", b"1\ta\n\\.\n2\tb\n"), ("", b"1\ta\r\n2\tb\r\n"), ("", b"1\ta\r2\tb\r"),
        ("", b"1\ta\\"), ("", b"1\ta\\\\"), ("", b"1\ta\\\nb\n2\tc"), ("", b"1\t\\r\\n\\t\\b\\f\\v\\q\n"), ("", b""), ("", b"\\.\n"),
        (" (FORMAT csv)", b'1,"a\nb"\n2,c'), (" (FORMAT csv)", b'1,"a\r\nb"\r\n2,c\r\n'), (" (FORMAT csv)", b"1,a\n\\.\n2,b\n"),
        (" (FORMAT csv)", b'1,"\\."\n2,b\n'), (" (FORMAT csv)", b"1,\\.x\n2,b\\.\n"), (" (FORMAT csv)", b'1,"a""b"\n2,""\n3,\n'),
        (" (FORMAT csv, HEADER)", b'k,"two\nlines"\n1,a\n'), (" (FORMAT csv, ESCAPE '\\')", b'1,"a\\"b\\\\"\n'),
        (" (FORMAT csv, DELIMITER E'\\t', QUOTE '''')", b"1\t'a\tb'\n2\t''''\n"), (" (ENCODING 'LATIN1')", b"1\t\xe9\xff\n"),
        (" (FORMAT csv, ENCODING 'UTF8')", "1,\u00e9\U0001f600\n".encode()), (" (DELIMITER ',', NULL 'x')", b"1,x\n2,\\x\n3,\\,\n"),
        (" (FORMAT csv, FORCE_NULL (v))", b'1,""\n2,\n'), (" (FORMAT csv, FORCE_NOT_NULL (v))", b'1,""\n2,\n'),
    ]
    with cluster.connect(autocommit=True) as c:
        for table in ("odd_plain", "odd"):
            c.execute(f"CREATE TABLE {table} (k int, v text)")
        c.execute("SELECT create_distributed_table('odd', 'k', shard_count => 4)")
        for options, data in inputs:
            said = []
            for table in ("odd_plain", "odd"):
                c.execute(f"TRUNCATE {table}")
                error = copy_error(c, f"COPY {table} FROM STDIN{options}", data)
                said.append((error[:2], c.execute(f"SELECT k, v FROM {table} ORDER BY k, v").fetchall()))
            assert said[0] == said[1], (options, data, *said)


@test
def copy_of_huge_fields(cluster):
    """100 MB in one field, in each format."""
    huge = 100_000_000
    with cluster.connect(autocommit=True) as c:
        c.execute("CREATE TABLE huge (k int PRIMARY KEY, v text)")
        c.execute("SELECT create_distributed_table('huge', 'k', shard_count => 4)")
        for number, (options, before, after) in enumerate((
            ("", b"%d\t", b"\\\n\n"), (" (FORMAT csv)", b'%d,"', b'\n"\n'),
            (" (FORMAT binary)", HEADER + b"\0\2\0\0\0\4\0\0\0%c" + (huge + 1).to_bytes(4, "big"), b"\n\xff\xff"),
        ), 1):
            with c.cursor().copy(f"COPY huge FROM STDIN{options}") as copy:
                copy.write(before % number)
                for _ in range(100):
                    copy.write(b"x" * (huge // 100))
                copy.write(after)
            assert c.execute("SELECT length(v), right(v, 2) FROM huge WHERE k = %s", (number,)).fetchone() == (huge + 1, "x\n")
        c.execute("DROP TABLE huge")


def memory(connection):
    """Bytes that are its backend's own."""
    with open(f"/proc/{connection.info.backend_pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


@test
def copy_takes_bounded_memory_and_tells_its_progress(cluster):
    """128 shards, far more rows than the buffer holds."""
    rows, buffer = 400_000, 4 << 20
    with cluster.connect(autocommit=True) as c, cluster.connect(autocommit=True) as watcher:
        c.execute("CREATE TABLE spread (k int, v text)")
        c.execute("SELECT create_distributed_table('spread', 'k', shard_count => 128)")
        c.execute("SET shard_ext.copy_buffer_size = '4MB'")
        with c.cursor().copy("COPY spread FROM STDIN WHERE k >= 0") as copy:
            copy.write(b"-1\tleft out\n")
            copy.write(b"".join(b"%d\tv\n" % i for i in range(1000)))
            before, most, done = memory(c), 0, 0
            for start in range(1000, rows, 1000):
                copy.write(b"".join(b"%d\t%s\n" % (i, b"x" * 100) for i in range(start, start + 1000)))
                if start % 20_000 == 0:
                    most = max(most, memory(c))
                    done, *others = watcher.execute("""SELECT tuples_processed, tuples_excluded, command, type
                                                       FROM pg_stat_progress_copy WHERE relid = 'spread'::regclass""").fetchone()
                    assert 0 <= done <= start + 1000 and others == [1, "COPY FROM", "PIPE"], (done, others)
        assert done > rows // 2, done
        assert most - before < 3 * buffer, f"{(most - before) >> 20} MB"
        assert c.execute("SELECT count(*), sum(k) FROM spread").fetchone() == (rows, rows * (rows - 1) // 2)
        c.execute("DROP TABLE spread")


@test
def insert_select_takes_bounded_memory(cluster):
    """Rows that go from shards to shards are not kept here."""
    with cluster.connect(autocommit=True) as c:
        for table in ("from_here", "to_there"):
            c.execute(f"CREATE TABLE {table} (k int, v text)")
            c.execute("SELECT create_distributed_table(%s, 'k', shard_count => 16)", (table,))
        c.execute("INSERT INTO from_here SELECT i, repeat('x', 100) FROM generate_series(1, 300000) i")
        c.execute("SET shard_ext.copy_buffer_size = '4MB'")
        c.execute("SET work_mem = '64MB'")
        c.execute("INSERT INTO to_there SELECT -k, v FROM from_here WHERE k < 50000")
        before = memory(c)
        assert c.execute("INSERT INTO to_there SELECT k + 1, v FROM from_here").rowcount == 300000
        grown = memory(c) - before
        assert grown < 10 << 20, f"{grown >> 20} MB"
        assert c.execute("SELECT count(*), sum(k) FROM to_there WHERE k > 0").fetchone() == (300000, 45000450000)
        c.execute("DROP TABLE from_here")
        c.execute("DROP TABLE to_there")


@test
def insert_select_where_nodes_allow_one_connection(cluster):
    """Rows that cannot be read beside the connections that write are read before."""
    with cluster.connect(autocommit=True) as c:
        # one connection here, and one to each of the two nodes
        c.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 3")
        for database in ("clients", "clients_worker_1", "clients_worker_2"):
            c.execute(f"GRANT CREATE ON DATABASE {database} TO narrow")
    try:
        with psycopg.connect(host=cluster.options.host, port=cluster.options.port, user="narrow", dbname="clients", autocommit=True) as c:
            c.execute("CREATE SCHEMA narrow")
            c.execute("CREATE TABLE narrow.a (id int PRIMARY KEY, k int, pad text)")
            c.execute("CREATE TABLE narrow.b (k int, id int, pad text)")
            c.execute("SELECT create_distributed_table('narrow.a', 'id', shard_count => 4), create_distributed_table('narrow.b', 'k', shard_count => 3)")
            c.execute("INSERT INTO narrow.a SELECT i, i % 100, repeat('x', 100) FROM generate_series(1, 20000) i")
            c.execute("SET shard_ext.copy_buffer_size = '256kB'")
            for _ in range(2):
                assert c.execute("INSERT INTO narrow.b SELECT k, id, pad FROM narrow.a").rowcount == 20000
            assert c.execute("SELECT count(*), count(DISTINCT id), sum(k) FROM narrow.b").fetchone() == (40000, 20000, 1980000)
            c.execute("DROP SCHEMA narrow CASCADE")
    finally:
        with cluster.connect(autocommit=True) as c:
            for database in ("clients_worker_1", "clients_worker_2", "clients"):
                with cluster.connect(database, autocommit=True) as d:
                    d.execute("DROP OWNED BY narrow CASCADE")
            c.execute("DROP ROLE narrow")


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
def recovery_beside_commits(cluster):
    """Recovery that looks at transactions in the moment of their commit is not noticed by them."""
    with cluster.connect() as c:
        cluster.fill(c, 100)
        c.execute("UPDATE people SET rate = 0")
    notices, problems, ended = [], [], threading.Event()

    def recover():
        with cluster.connect(autocommit=True) as c:
            while not ended.is_set():
                c.execute("SELECT shard_ext.recover_prepared_transactions()")

    def work(thread):
        try:
            with cluster.connect(autocommit=True) as c:
                c.add_notice_handler(lambda notice: notices.append((notice.sqlstate, notice.message_primary, notice.message_detail)))
                for i in range(60):
                    c.execute("UPDATE people SET rate = rate + 1 WHERE id BETWEEN %s AND %s", (thread * 10, thread * 10 + 9))
                    assert c.execute("SELECT min(rate), max(rate) FROM people WHERE id BETWEEN %s AND %s",
                                     (thread * 10, thread * 10 + 9)).fetchone() == (i + 1, i + 1)
        except Exception as e:  # noqa: BLE001
            problems.append(e)

    recovering = [threading.Thread(target=recover) for _ in range(2)]
    working = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for t in recovering + working:
        t.start()
    for t in working:
        t.join()
    ended.set()
    for t in recovering:
        t.join()
    assert not problems, problems
    assert not notices, notices


@test
def rows_that_fail_before_they_are_read(cluster):
    """A cursor's query has failed on a node when the next statement needs that node: that one says why."""
    with cluster.connect() as c:
        cluster.fill(c, 3000)
        c.commit()
        for after in ("SELECT count(*) FROM people", "UPDATE people SET rate = 1"):
            c.execute("UPDATE people SET rate = rate WHERE id < 100")
            c.execute("SAVEPOINT a")
            c.execute("DECLARE failing CURSOR FOR SELECT id, 1 / (id - 2990) FROM people")
            c.execute("FETCH 1 FROM failing")
            try:
                c.execute(after)
                raise AssertionError("an error was expected")
            except errors.DivisionByZero:
                c.execute("ROLLBACK TO a")
            assert c.execute("SELECT count(*) FROM people").fetchone() == (3000,)
            c.rollback()


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


@test
def cancel_while_nodes_set_savepoints(cluster):
    """A cancelled subtransaction is undone on the nodes, wherever they were, and the transaction commits."""
    with cluster.connect() as c, cluster.connect(autocommit=True) as canceller:
        cluster.fill(c, 0)
        c.commit()
        chance, cancelled = random.Random(1), 0
        for number in range(100):
            c.execute("INSERT INTO people (id) SELECT generate_series(%s::int, %s::int)", (number * 1000, number * 1000 + 9))
            c.execute("SAVEPOINT a")
            timer = threading.Timer(chance.random() * 0.03, canceller.execute, ("SELECT pg_cancel_backend(%s)", (c.info.backend_pid,)))
            timer.start()
            try:
                c.execute(f"""DO $$ BEGIN
                        FOR i IN 10..40 LOOP
                            BEGIN
                                INSERT INTO people (id) VALUES ({number * 1000} + i);
                                PERFORM count(*) FROM people;
                            EXCEPTION WHEN unique_violation THEN NULL;
                            END;
                        END LOOP;
                    END $$""")
                timer.join()
            except errors.QueryCanceled:
                cancelled += 1
                timer.join()
                c.execute("ROLLBACK TO a")
            c.execute("INSERT INTO people (id) SELECT generate_series(%s::int, %s::int)", (number * 1000 + 50, number * 1000 + 59))
            c.commit()
        expected = 100 * 20 + (100 - cancelled) * 31
        assert c.execute("SELECT count(*) FROM people").fetchone() == (expected,)
        assert cancelled > 20, cancelled
        for node in ("clients_worker_1", "clients_worker_2"):
            assert canceller.execute("SELECT count(*) FROM pg_prepared_xacts WHERE database = %s", (node,)).fetchone() == (0,)


@test
def readers_that_stop_stop_the_nodes(cluster):
    """LIMIT, EXISTS and CLOSE end what the nodes do at once, inside of transactions too, and lose nothing that was written."""
    slow = "SELECT id, (SELECT count(*) FROM generate_series(1, 10000) g WHERE g + p.id < 0) AS n FROM people p"
    exists = f"SELECT EXISTS (SELECT FROM ({slow} OFFSET 0) s WHERE s.n = random() * 0)"  # the nodes know no LIMIT
    with cluster.connect() as c, cluster.connect("postgres", autocommit=True) as admin:
        cluster.fill(c, 20000)
        c.commit()

        def stopped():
            deadline = time.monotonic() + 5
            while admin.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active' AND datname LIKE 'clients_worker%'").fetchone()[0]:
                assert time.monotonic() < deadline, "the nodes go on"
                time.sleep(0.01)

        def quick(statement):
            began = time.monotonic()
            answer = c.execute(statement).fetchone()
            assert time.monotonic() - began < 5, statement
            return answer[0]

        for level in (None, psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE):
            c.isolation_level = level
            assert quick(exists)
            stopped()
            c.execute("UPDATE people SET rate = -1 WHERE id < 100")
            assert quick(exists)
            stopped()
            assert quick("SELECT count(*) FROM people WHERE rate = -1") == 100
            c.execute("SAVEPOINT a")
            c.execute("UPDATE people SET rate = -2 WHERE id < 50")
            c.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
            assert quick(exists)
            c.execute(f"DECLARE readers CURSOR FOR {slow} WHERE id < 1000")
            c.execute("FETCH 3 FROM readers")
            c.execute("UPDATE people SET rate = -3 WHERE id < 20")
            c.execute("CLOSE readers")
            assert quick(exists)
            stopped()
            assert quick("SELECT min(seen::text) IS NULL AND count(*) = 20 FROM people WHERE rate = -3")
            c.execute("ROLLBACK TO a")
            assert quick(exists)
            assert quick("SELECT count(*) FROM people WHERE rate = -1") == 100
            c.execute(f"DECLARE readers CURSOR FOR {slow}")
            c.execute("FETCH 3 FROM readers")
            c.commit()
            stopped()
            assert quick("SELECT count(*) FROM people WHERE rate = -1") == 100
            c.execute("UPDATE people SET rate = 0")
            assert quick(exists)
            c.rollback()
            stopped()
            assert quick("SELECT count(*) FROM people WHERE rate = -1") == 100
            c.commit()


@test
def an_application_in_sqlalchemy(cluster):
    """The same steps see the same on a plain and on a distributed database."""
    same_on_plain(cluster, "app_sqlalchemy.py")


@test
def an_application_in_django(cluster):
    same_on_plain(cluster, "app_django.py")


def same_on_plain(cluster, script):
    o = cluster.options

    def seen(database, kind):
        path = pathlib.Path(__file__).with_name(script)
        run = subprocess.run([sys.executable, path, o.host, str(o.port), o.user, database, kind], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout.splitlines()

    cluster.make("application_plain")
    cluster.make("application", nodes=2)
    for plain, distributed in itertools.zip_longest(seen("application_plain", "plain"), seen("application", "distributed")):
        assert plain == distributed, f"\n{plain}\n{distributed}"


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
