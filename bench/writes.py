#!/usr/bin/env python3
"""Measures writes on plain PostgreSQL and on shard_ext, side by side in one server (see bench.py, whose parts this uses).

Rounds alternate between the two; the median counts, as a ratio to plain PostgreSQL in the same run. CPU is that of all
server processes, and, where one session does the work, that of its backend alone: on shard_ext the coordinator's.
"""

import argparse
import datetime
import os
import pathlib
import re
import statistics
import subprocess
import time

from bench import HERE, TICK, Bench

SYSTEMS = ("plain", "shard_ext")
LOADED = "id int PRIMARY KEY, device int NOT NULL, at timestamptz NOT NULL, value float8, amount numeric(12, 2), note text"
FORMATS = {"text": "", "csv": " WITH (FORMAT csv)", "binary": " WITH (FORMAT binary)"}
CHUNK = 1 << 18


def backend_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / TICK


class Writes(Bench):
    """Results are (value, CPU of all, CPU of the backend or None), CPU in milliseconds for a unit of the work."""

    def prepare(self):
        with self.connect("postgres") as admin:
            for name in ("plain", "shard_ext", "shard_ext_1", "shard_ext_2"):
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                admin.execute(f"CREATE DATABASE {name}")
        with self.connect("shard_ext") as c:
            c.execute("CREATE EXTENSION shard_ext")
            for number in (1, 2):
                c.execute("SELECT shard_ext.add_node(%s, %s, 5432, %s)", (f"worker_{number}", self.o.host, f"shard_ext_{number}"))
        for table, columns, key in (
            ("loaded", LOADED, "id"), ("source", LOADED, "id"), ("target", LOADED, "id"),
            ("accounts", "id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, name text", "id"),
            ("entries", "account bigint NOT NULL, entry bigint NOT NULL, amount bigint, PRIMARY KEY (account, entry)", "account"),
        ):
            for system in SYSTEMS:
                with self.connect(system) as c:
                    c.execute(f"CREATE TABLE {table} ({columns})")
                    if system == "shard_ext":
                        c.execute("SELECT create_distributed_table(%s, %s, shard_count => %s)", (table, key, self.o.shards))
        for system in SYSTEMS:
            with self.connect(system) as c:
                c.execute("INSERT INTO accounts (id, name) SELECT i, 'account ' || i FROM generate_series(1, 100000) i")
                c.execute(f"INSERT INTO source {self.rows_of(self.o.selected)}")
        for database in ("plain", "shard_ext_1", "shard_ext_2"):
            self.psql(database, "VACUUM ANALYZE")
        self.psql("shard_ext", "ANALYZE")

    def rows_of(self, count):
        return (f"SELECT i, i % 1000, timestamptz '2024-01-01 00:00+00' + i * interval '7 seconds', (i::bigint * 7919 % 100003)::float8 / 7, "
                f"(i % 100000)::numeric / 100, 'note ' || md5(i::text) FROM generate_series(1, {count}) i")

    def file_of(self, form):
        path = pathlib.Path(self.o.files) / f"loaded-{self.rows}.{form}"
        if not path.exists():
            print(f"generating {self.rows:,} rows, {form}", flush=True)
            self.psql("plain", f"\\copy ({self.rows_of(self.rows)}) TO '{path}'{FORMATS[form]}")
        return path

    # --- measuring

    def measure(self, name, unit, one, rounds=None):
        """Runs one(system) in alternating rounds and keeps the medians."""
        collected = {s: [] for s in SYSTEMS}
        for _ in range(rounds or self.o.rounds):
            for system in SYSTEMS:
                collected[system].append(one(system))
        medians = {s: tuple(statistics.median(x) if None not in x else None for x in zip(*collected[s])) for s in SYSTEMS}
        self.results[name] = (unit, medians)
        p, s = medians["plain"], medians["shard_ext"]
        backend = f", of the backend {s[2] / max(p[2], 1e-9):.2f}" if p[2] is not None else ""
        print(f"{name}: plain {p[0]:.5g}, shard_ext {s[0]:.5g} {unit} ({s[0] / p[0]:.2f}); CPU {s[1] / max(p[1], 1e-9):.2f}{backend}", flush=True)

    def session(self, system, units, work):
        """One session does `work`, of so many units."""
        with self.connect(system) as c:
            c.execute("SELECT count(*) FROM accounts WHERE id < 100")  # the nodes are connected
            pid = c.info.backend_pid
            before, mine, began = self.cpu_seconds(), backend_seconds(pid), time.monotonic()
            work(c)
            took = time.monotonic() - began
            mine = backend_seconds(pid) - mine
        self.quiet()
        return units / took, (self.cpu_seconds() - before) * 1000 / units, mine * 1000 / units

    def transactions(self, name, scripts, protocol="prepared", clients=1):
        paths = []
        for number, script in enumerate(scripts):
            paths.append(pathlib.Path(self.o.files) / f"writes-{number}.sql")
            paths[-1].write_text(script)

        def one(system):
            before = self.cpu_seconds()
            files = [x for path in paths for x in ("-f", str(path))]
            out = subprocess.run([f"{self.o.bin}/pgbench", "-n", "-h", self.o.host, "-U", self.o.user, *files, "-M", protocol, "-c", str(clients),
                                  "-j", "1", "-T", str(self.o.seconds), system], check=True, capture_output=True, text=True).stdout
            self.quiet()
            done = int(re.search(r"actually processed: (\d+)", out).group(1))
            return float(re.search(r"^tps = ([\d.]+)", out, re.M).group(1)), (self.cpu_seconds() - before) / done * 1000, None
        self.measure(f"{name}, {clients} client{'s' * (clients > 1)}", "transactions/s", one)

    # --- the work

    def copy(self):
        for form, options in FORMATS.items():
            path = self.file_of(form)

            def feed(c):
                with c.cursor().copy(f"COPY loaded FROM STDIN{options}") as copy, open(path, "rb") as file:
                    while chunk := file.read(CHUNK):
                        copy.write(chunk)

            def one(system):
                self.psql(system, "TRUNCATE loaded")
                self.psql("postgres", "CHECKPOINT")
                return self.session(system, self.rows, feed)
            self.measure(f"COPY of {self.rows:,} rows, {form}", "rows/s", one, self.o.copy_rounds)
            for system in SYSTEMS:
                self.psql(system, "TRUNCATE loaded")

    def batches(self):
        size, count = 1000, 100
        statements = []
        for batch in range(count):
            rows = (f"({i}, {i % 1000}, '2024-01-01 00:00+00', {i / 7}, {i % 1000}.25, 'note {i:032}')" for i in range(batch * size, batch * size + size))
            statements.append(f"INSERT INTO loaded (id, device, at, value, amount, note) VALUES {', '.join(rows)}".encode())

        def insert(c):
            for statement in statements:
                result = c.pgconn.exec_(statement)
                assert result.command_status == b"INSERT 0 1000", result.error_message

        def one(system):
            self.psql(system, "TRUNCATE loaded")
            return self.session(system, size * count, insert)
        self.measure("INSERT of 1,000-row batches", "rows/s", one)

    def singles(self):
        key = "\\set id random(200000, 9000000000000000)\n"
        insert = key + "INSERT INTO accounts (id, balance, name) VALUES (:id, 1, 'new account');\n"
        for protocol in ("simple", "prepared"):
            self.transactions(f"single-row INSERT, {protocol}", [insert], protocol)
        self.transactions("single-row INSERT, prepared", [insert], clients=4)
        account = "\\set id random(1, 100000)\n"
        update = account + "UPDATE accounts SET balance = balance + 1 WHERE id = :id;\n"
        self.transactions("UPDATE by key, simple", [update], "simple")
        self.transactions("UPDATE by key, prepared", [update])
        self.transactions("UPDATE by key, prepared", [update], clients=4)
        upsert = account + "INSERT INTO accounts (id, balance) VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + 1;\n"
        self.transactions("upsert by key", [upsert])

    def tenants(self):
        self.transactions("four statements of one tenant", [
            "\\set id random(1, 100000)\n\\set entry random(1, 9000000000000000)\nBEGIN;\n"
            "SELECT balance FROM accounts WHERE id = :id;\n"
            "UPDATE accounts SET balance = balance + 1 WHERE id = :id;\n"
            "INSERT INTO entries VALUES (:id, :entry, 1);\n"
            "SELECT count(*) FROM entries WHERE account = :id;\nCOMMIT;\n"])
        pairs = list(zip(*(self.accounts_of(node) for node in (1, 2))))
        self.transactions("transfer between two nodes", [
            f"BEGIN;\nUPDATE accounts SET balance = balance - 1 WHERE id = {a};\nUPDATE accounts SET balance = balance + 1 WHERE id = {b};\nCOMMIT;\n"
            for a, b in pairs])

    def accounts_of(self, node, count=100):
        with self.connect(f"shard_ext_{node}") as c:
            schema = c.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'accounts' ORDER BY 1 LIMIT 1").fetchone()[0]
            return [row[0] for row in c.execute(f'SELECT id FROM "{schema}".accounts WHERE id <= 100000 ORDER BY id LIMIT {count}').fetchall()]

    def select(self):
        columns = "device, at, value, amount, note"
        for name, sql in (
            ("colocated", f"INSERT INTO target SELECT id, {columns} FROM source"),
            ("across distributions", f"INSERT INTO target SELECT id + 10000000, {columns} FROM source"),
        ):
            def one(system):
                self.psql(system, "TRUNCATE target")
                self.psql("postgres", "CHECKPOINT")
                return self.session(system, self.o.selected, lambda c: c.execute(sql))
            self.measure(f"INSERT … SELECT of {self.o.selected:,} rows, {name}", "rows/s", one)

    # --- the report

    def report(self):
        def number(x):
            return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"

        def times(a, b):
            return f"{b / max(a, 1e-9):.2f}"

        commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        with self.connect("postgres") as c:
            version = c.execute("SHOW server_version").fetchone()[0].split()[0]
        lines = [
            "## Writes", "",
            f"`bench/run --only writes` on {datetime.date.today()}, commit {commit}: PostgreSQL {version}, {os.cpu_count()} cores for the client and all"
            f" servers, {self.o.shards} shards on two nodes, fsync off. Median of {self.o.rounds} alternating rounds (COPY: {self.o.copy_rounds}); the ratio"
            " is to plain PostgreSQL in the same run, more is better. CPU, as a multiple of plain PostgreSQL's: of all server processes, and of the"
            " session's backend alone, where one session does the work.", "",
            "| | plain | shard_ext | ratio | CPU, all | CPU, backend |", "|---|--:|--:|--:|--:|--:|",
        ]
        for name, (unit, m) in self.results.items():
            p, s = m["plain"], m["shard_ext"]
            backend = times(p[2], s[2]) if p[2] is not None else ""
            lines.append(f"| {name}, {unit} | {number(p[0])} | {number(s[0])} | **{s[0] / p[0]:.2f}** | {times(p[1], s[1])} | {backend} |")
        lines += ["", "How it is measured: the head of `bench/writes.py`.", ""]
        path = pathlib.Path(self.o.output)
        before, _, after = (path.read_text() if path.exists() else "").partition("## Writes\n")
        _, next_one, rest = after.partition("\n## ")
        if not after:  # in front of TPC-H's part
            before, next_one, rest = before.partition("\n## ")
        path.write_text(before.rstrip("\n") + "\n\n" + "\n".join(lines) + (next_one + rest if next_one else ""))
        print("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--bin", required=True, help="PostgreSQL's programs")
    parser.add_argument("--files", required=True, help="a directory for the rows")
    parser.add_argument("--postmaster", type=int, required=True)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of COPY")
    parser.add_argument("--selected", type=int, default=1_000_000, help="rows of INSERT … SELECT")
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copy-rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of single statements or short transactions")
    parser.add_argument("--part", action="append", choices=["copy", "batches", "singles", "tenants", "select"])
    parser.add_argument("--output", help="writes the results there, when all parts have run")
    options = parser.parse_args()
    bench = Writes(options)
    bench.prepare()
    for name in ("copy", "batches", "singles", "tenants", "select"):
        if options.part is None or name in options.part:
            getattr(bench, name)()
    if options.part is None and options.output:
        bench.report()


if __name__ == "__main__":
    main()
