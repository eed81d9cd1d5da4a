#!/usr/bin/env python3
"""Parity: runs the same SQL on a plain database and on a distributed one and compares what comes back.

Each folder here is a suite with two databases of its own:
    setup.sql       schema (and rows that are there before the tables are distributed), run on both
    distribute.sql  run on the distributed database only
    data.sql        rows that arrive afterwards, run on both (optional)
    workers.txt     options of CREATE DATABASE for the workers, one a line (optional)
    *.sql           the statements that are compared, in the order of the file names

Compared are rows (in order if the statement has an ORDER BY of its own), column names, types, command tags, and of
errors the SQLSTATE with constraint, schema, table, column and type; the texts of errors may not name schemas of
shards. Floats agree within rounding. After a file that writes, all its tables are compared. Comments before a statement:
    -- refused: 0A000    the distributed database refuses this with that SQLSTATE (documented in the README); the plain
                         one is not asked, so that both stay equal
    -- unordered         in spite of its ORDER BY (ties)
    -- ignore: types     don't compare types (or: names, tags, rows)
    -- only: plain       or: distributed
    -- load: table path  (stands alone) COPY a gzipped CSV file with header, NA for NULL
    -- fill: table (...)  COPY the rows of the query that follows into that table
    -- reconnect         (stands alone) go on in a new session
    -- details           (stands alone) from here on compare the messages and details of errors, too
    -- block             (stands alone) what follows is repeated by
    -- again: sql        (stands alone) run that statement, then the statements between the block's start and its first
                         repetition once more
"""

import argparse
import gzip
import math
import pathlib
import re
import sys
import time
from dataclasses import dataclass, field
from itertools import zip_longest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent))

import psycopg  # noqa: E402
from psycopg import pq  # noqa: E402
from sqlsplit import Statement, split, top_level_order  # noqa: E402

FLOATS = {700, 701}
COPY_IN = re.compile(r"\s*COPY\b.*\bFROM\s+STDIN\b", re.I | re.S)
SHARD_SCHEMA = re.compile(r"_10[2-9]\d{3}\b")
WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE")
OK = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY}


@dataclass
class Answer:
    """What a server said to one statement, in a form that can be compared."""

    tag: str = ""
    names: list = field(default_factory=list)
    types: list = field(default_factory=list)
    oids: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    error: tuple | None = None  # SQLSTATE, constraint, table, column, type
    message: str = ""
    schema: str = ""  # that an error names
    names_shard: bool = False  # an error speaks of a shard's schema
    lost: bool = False  # the connection died

    def summary(self):
        if self.lost:
            return f"connection lost: {self.message}"
        if self.error:
            return f"error {self.error[0]}: {self.message}"
        return f"{self.tag}, {len(self.rows)} rows"


def repeated(statements):
    """The statements with blocks written out as often as they are wanted."""
    block, complete = [], True
    for statement in statements:
        if "block" in statement.directives:
            block, complete = [], False
        elif "again" in statement.directives:
            complete = True
            yield Statement(statement.directives["again"], statement.line)
            yield from block
        else:
            if not complete:
                block.append(statement)
            yield statement


class Session:
    """One connection to one database, reconnected when the server dropped it."""

    def __init__(self, options, dbname):
        self.options, self.dbname = options, dbname
        self.connect()

    def connect(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connection = psycopg.connect(
                    host=self.options.host, port=self.options.port, user=self.options.user, dbname=self.dbname,
                    autocommit=True, options="-c statement_timeout=120s -c client_min_messages=warning",
                )
                break
            except psycopg.OperationalError:  # the server may be recovering from a crash
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.connection.add_notice_handler(lambda _: None)
        self.type_names = {}

    def close(self):
        self.connection.close()

    def in_transaction(self):
        return self.connection.pgconn.transaction_status != pq.TransactionStatus.IDLE

    def type_name(self, oid, modifier):
        """A type by name: oids of user types differ between databases."""
        if oid < 16384:
            return f"{oid}({modifier})"
        if oid not in self.type_names and not self.in_transaction():
            result = self.connection.pgconn.exec_(b"SELECT oid, format_type(oid, NULL) FROM pg_type WHERE oid >= 16384")
            for row in range(result.ntuples):
                self.type_names[int(result.get_value(row, 0))] = result.get_value(row, 1).decode()
        return self.type_names.get(oid, "user type")

    def run(self, statement, protocol):
        if self.connection.pgconn.status != pq.ConnStatus.OK:
            self.connect()
        pgconn, sql = self.connection.pgconn, statement.sql.encode()
        cursor = protocol == "cursor" and not self.in_transaction() and is_query(statement.sql)
        try:
            if cursor:
                return self.run_cursor(sql)
            # a COPY FROM STDIN that fails at once is answered twice in the extended protocol: it goes out as a simple one
            if protocol == "extended" and not COPY_IN.match(statement.sql):
                result = pgconn.exec_params(sql, [])
            else:
                result = pgconn.exec_(sql)
            return self.answer(result, statement.data)
        except psycopg.OperationalError as e:
            return Answer(lost=True, message=str(e))

    def run_bound(self, sql, values, first):
        """A statement with parameters, prepared the first time and then executed, as drivers do; `values` are expressions."""
        pgconn = self.connection.pgconn
        try:
            computed = self.answer(pgconn.exec_(f"SELECT {', '.join(f'({v})::text' for v in values)}".encode()), None)
            if computed.error:
                return computed
            if first:
                pgconn.exec_(b"DEALLOCATE ALL")
                prepared = self.answer(pgconn.prepare(b"bound", sql.encode()), None)
                if prepared.error:
                    return prepared
            return self.answer(pgconn.exec_prepared(b"bound", list(computed.rows[0])), None)
        except psycopg.OperationalError as e:
            return Answer(lost=True, message=str(e))

    def run_cursor(self, sql):
        pgconn = self.connection.pgconn
        pgconn.exec_(b"BEGIN")
        try:
            answer = self.answer(pgconn.exec_(b"DECLARE parity NO SCROLL CURSOR FOR " + sql), None)
            rows = []
            for fetch in (b"FETCH 2 FROM parity", b"FETCH 5 FROM parity", b"FETCH ALL FROM parity"):
                if answer.error or answer.lost:
                    return answer
                answer = self.answer(pgconn.exec_(fetch), None)
                rows += answer.rows
            answer.rows, answer.tag = rows, "FETCH"
            return answer
        finally:
            if pgconn.status == pq.ConnStatus.OK:
                pgconn.exec_(b"ROLLBACK")

    def answer(self, result, data):
        pgconn = self.connection.pgconn
        copied = []
        if result.status == pq.ExecStatus.COPY_IN:
            data = data or b""
            try:
                for at in range(0, len(data), 65536):
                    pgconn.put_copy_data(data[at : at + 65536])
                pgconn.put_copy_end()
            except psycopg.OperationalError:  # the server has said no before it has read all
                if pgconn.status != pq.ConnStatus.OK:
                    raise
            result = self.last_result()
        elif result.status == pq.ExecStatus.COPY_OUT:
            while True:
                size, chunk = pgconn.get_copy_data(0)
                if size < 0:
                    break
                copied.append((bytes(chunk),))
            result = self.last_result()
        answer = Answer(tag=(result.command_status or b"").decode(), rows=copied)
        if result.status not in OK:
            get = lambda f: (result.error_field(f) or b"").decode()  # noqa: E731
            fields = pq.DiagnosticField
            answer.error = (get(fields.SQLSTATE), get(fields.CONSTRAINT_NAME), get(fields.TABLE_NAME),
                            get(fields.COLUMN_NAME), get(fields.DATATYPE_NAME))
            answer.message = get(fields.MESSAGE_PRIMARY) or result.error_message.decode()
            detail = get(fields.MESSAGE_DETAIL)
            if detail:
                answer.message += f" ({detail})"
            answer.schema = get(fields.SCHEMA_NAME)
            answer.names_shard = SHARD_SCHEMA.search(f"{answer.message} {get(fields.MESSAGE_HINT)} {answer.schema}") is not None
            answer.lost = pgconn.status != pq.ConnStatus.OK
            return answer
        for column in range(result.nfields):
            answer.names.append(result.fname(column).decode())
            answer.oids.append(result.ftype(column))
            answer.types.append(self.type_name(result.ftype(column), result.fmod(column)))
        if not copied:
            answer.rows = [tuple(result.get_value(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
        return answer

    def last_result(self):
        last = None
        while (result := self.connection.pgconn.get_result()) is not None:
            last = result
        return last


def is_query(sql):
    return sql.lstrip("( \n").upper().startswith(("SELECT", "WITH", "VALUES", "TABLE")) and " INTO " not in sql.upper()


def close_enough(a, b):
    if a == b or a is None or b is None:
        return a == b
    x, y = float(a), float(b)
    return math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(x) and math.isnan(y))


def sort_key(row, floats):
    """Exact columns first, so that rounding does not change the order of rows that are otherwise different."""
    exact = tuple((v is not None, v or b"") for i, v in enumerate(row) if i not in floats)
    rounded = tuple((row[i] is not None, float(row[i] or 0)) for i in floats)
    return exact, rounded


def difference(statement, plain, other, ordered, details=False):
    """None if both servers said the same, else what differs."""
    ignore = statement.directives.get("ignore", "")
    if other.lost and not plain.lost:
        return "the connection was lost"
    if other.names_shard:
        return "the error names the schema of a shard"
    if plain.error or other.error:
        if plain.error == other.error and plain.schema != other.schema:
            return f"schemas of errors differ: {plain.schema!r} {other.schema!r}"
        if details and plain.message != other.message:
            return "messages of errors differ"
        return None if plain.error == other.error else f"errors differ: {plain.error} {other.error}"
    if plain.names != other.names and "names" not in ignore:
        return f"column names differ: {plain.names} {other.names}"
    if plain.types != other.types and "types" not in ignore:
        return f"types differ: {plain.types} {other.types}"
    if "rows" in ignore:
        return None
    a, b = plain.rows, other.rows
    floats = [i for i, oid in enumerate(plain.oids) if oid in FLOATS]
    if not ordered:
        a, b = (sorted(rows, key=lambda row: sort_key(row, floats)) for rows in (a, b))
    if len(a) != len(b):
        missing, extra = set(a) - set(b), set(b) - set(a)
        return f"{len(a)} rows, distributed {len(b)}\n  missing: {show(missing)}\n  extra:   {show(extra)}"
    for number, (x, y) in enumerate(zip(a, b), 1):
        same = all(close_enough(u, v) if i in floats else u == v for i, (u, v) in enumerate(zip(x, y)))
        if not same:
            return f"row {number} differs\n  plain:       {show([x])}\n  distributed: {show([y])}"
    if plain.tag != other.tag and "tags" not in ignore:
        return f"command tags differ: {plain.tag!r} {other.tag!r}"
    return None


def show(rows):
    lines = ["(" + ", ".join("NULL" if v is None else v.decode(errors="replace") for v in row) + ")" for row in rows]
    text = "; ".join(lines[:3]) + (f"; … {len(lines)} in all" if len(lines) > 3 else "")
    return text[:1000]


class Suite:
    def __init__(self, folder, options, protocol):
        self.folder, self.options, self.protocol = folder, options, protocol
        self.names = [f"{folder.name}_plain", f"{folder.name}_distributed"]
        self.workers = [] if options.self_check else [f"{folder.name}_worker_{i}" for i in range(1, options.workers + 1)]
        self.passed = self.failed = 0

    def prepare(self, keep=False):
        """Makes the databases and fills them, or keeps those of an earlier run."""
        if keep:
            self.plain, self.distributed = (Session(self.options, name) for name in self.names)
            return
        path = self.folder / "workers.txt"
        options = path.read_text().splitlines() if path.exists() else []
        here = (self.options.host, self.options.port)
        servers = self.options.worker_server or [here]
        workers = [(name, *servers[i % len(servers)], option)
                   for i, (name, option) in enumerate(zip_longest(self.workers, options, fillvalue="")) if name]
        for name, host, port, option in [(name, *here, "") for name in self.names] + workers:
            with psycopg.connect(host=host, port=port, user=self.options.user, dbname="postgres", autocommit=True) as admin:
                admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                admin.execute(f'CREATE DATABASE "{name}" {option}')
                admin.execute(f'ALTER DATABASE "{name}" SET jit = off')  # compiling takes longer than these statements
        self.plain, self.distributed = (Session(self.options, name) for name in self.names)
        cluster = self.distributed.connection
        if not self.options.self_check:
            cluster.execute("CREATE EXTENSION shard_ext")
        for number, (name, host, port, _) in enumerate(workers, 1):
            cluster.execute("SELECT shard_ext.add_node(%s, %s, %s, %s)", (f"worker_{number}", host, port, name))
        for name, sessions in (("setup", self.both()), ("distribute", [self.distributed]), ("data", self.both())):
            path = self.folder / f"{name}.sql"
            if path.exists() and not (name == "distribute" and self.options.self_check):
                for session in sessions:
                    self.execute(path, session)

    def both(self):
        return [self.plain, self.distributed]

    def execute(self, path, session):
        for statement in split(path.read_text()):
            if "load" in statement.directives:
                answer = load(session, *statement.directives["load"].split())
            elif "fill" in statement.directives:
                answer = fill(session, statement)
            else:
                answer = session.run(statement, "simple")
            if answer.error or answer.lost:
                raise SystemExit(f"{path.relative_to(ROOT)}:{statement.line} on {session.dbname}: {answer.summary()}")

    def run(self, names):
        files = [f for f in sorted(self.folder.glob("*.sql")) if f.stem not in ("setup", "distribute", "data")]
        for path in files:
            if names and not any(n in f"{self.folder.name}/{path.name}" for n in names):
                continue
            self.run_file(path)
        for session in self.both():
            session.close()

    def run_file(self, path):
        began, passed, failed, wrote, details = time.monotonic(), self.passed, self.failed, False, False
        for statement in repeated(split(path.read_text())):
            if "reconnect" in statement.directives:
                self.restart_sessions()
                continue
            if "details" in statement.directives:
                details = True
                continue
            only = statement.directives.get("only")
            if only:
                session = self.plain if only == "plain" else self.distributed
                answer = session.run(statement, "simple")
                self.report(path, statement, answer, answer, f"failed on {only}" if answer.error else None)
                continue
            if "refused" in statement.directives:
                other = self.distributed.run(statement, self.protocol)
                state = other.error[0] if other.error else "no error"
                why = None if state == statement.directives["refused"] else f"should be refused, but: {state}"
                self.report(path, statement, Answer("not asked"), other, None if self.options.self_check else why)
                continue
            plain = self.plain.run(statement, self.protocol)
            other = self.distributed.run(statement, self.protocol)
            if plain.tag.startswith(WRITES):
                wrote = True
            ordered = top_level_order(statement.sql) and "unordered" not in statement.directives
            self.report(path, statement, plain, other, difference(statement, plain, other, ordered, details))
        self.restart_sessions()
        if wrote and not self.compare_tables(path):
            self.prepare()  # the next file must not suffer from what this one left
        name, count, bad = f"{self.folder.name}/{path.stem}", self.passed - passed, self.failed - failed
        state = "ok" if not bad else f"{bad} FAILED"
        print(f"{name} ({self.protocol}): {count + bad} statements, {time.monotonic() - began:.1f} s, {state}", flush=True)

    def restart_sessions(self):
        for session in self.both():
            session.close()
            session.connect()

    def report(self, path, statement, plain, other, why):
        if why is None:
            self.passed += 1
            return
        self.failed += 1
        sql = "\n  ".join(statement.sql.splitlines())
        print(f"\nDIFFERENCE {path.relative_to(ROOT)}:{statement.line} ({self.protocol})\n  {sql}\n  {why}")
        print(f"  plain:       {plain.summary()}\n  distributed: {other.summary()}\n", flush=True)

    def compare_tables(self, path):
        """After writes all tables must hold the same rows: whether they do."""
        failed = self.failed
        found = self.plain.connection.execute(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind IN ('r', 'p') AND NOT relispartition AND nspname !~ '^pg_|^information_schema$' ORDER BY 1")
        for (table,) in found.fetchall():
            (count,) = self.plain.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            what = "*" if count <= 20000 else "count(*)"
            statement = split(f"SELECT {what} FROM {table}")[0]
            plain, other = (s.run(statement, "simple") for s in self.both())
            why = difference(statement, plain, other, False)
            if why:
                self.report(path, statement, plain, other, f"after this file {table} differs: {why}")
        self.passed += self.failed == failed
        return self.failed == failed


def load(session, table, path):
    with gzip.open(ROOT / path) as file:
        columns = file.readline().decode().strip()
        result = session.connection.pgconn.exec_(
            f"COPY {table} ({columns}) FROM STDIN WITH (FORMAT csv, NULL 'NA')".encode())
        return session.answer(result, file.read() if result.status == pq.ExecStatus.COPY_IN else None)


def fill(session, statement):
    rows = session.run(Statement(f"COPY ({statement.sql}) TO STDOUT", statement.line), "simple")
    if rows.error or rows.lost:
        return rows
    data = b"".join(row for (row,) in rows.rows)
    return session.run(Statement(f"COPY {statement.directives['fill']} FROM STDIN", statement.line, data=data), "simple")


def add_server_arguments(parser):
    parser.add_argument("--host", required=True, help="host or socket directory of the server")
    parser.add_argument("--port", default=5432, type=int)
    parser.add_argument("--user", default="postgres")
    parser.add_argument("--workers", default=2, type=int)
    parser.add_argument("--worker-server", action="append", default=[], metavar="HOST[:PORT]", type=server,
                        help="where the workers' databases are (several: in turn; default: on the same server)")


def server(text):
    host, _, port = text.partition(":")
    return host, int(port or 5432)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--protocol", action="append", choices=["simple", "extended", "cursor"],
                        help="how statements are sent (default: all three, one after the other)")
    parser.add_argument("--self-check", action="store_true",
                        help="compare two plain databases: checks the files, needs no extension")
    parser.add_argument("files", nargs="*", help="only files whose suite/name contains this")
    options = parser.parse_args()
    folders = [f.parent for f in sorted(HERE.glob("*/setup.sql"))]
    passed = failed = 0
    for protocol in options.protocol or ["simple", "extended", "cursor"]:
        for folder in folders:
            if options.files and not any(n in f"{folder.name}/{f.name}" for f in folder.glob("*.sql") for n in options.files):
                continue
            suite = Suite(folder, options, protocol)
            try:
                suite.prepare()
                suite.run(options.files)
            except (SystemExit, psycopg.Error) as problem:
                print(f"suite {folder.name} ({protocol}) broke off: {problem}")
                suite.failed += 1
            passed, failed = passed + suite.passed, failed + suite.failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
