#!/usr/bin/env python3
"""Measures the same work on plain PostgreSQL, on shard_ext and on postgres_fdw with hash partitions.

All three live in one server: a database with an ordinary table, a coordinator with two databases as nodes, and a
database whose partitions are foreign tables in two more databases. Rounds alternate between the three; the median
counts. CPU is that of all server processes (the postmaster's own, its living children's and, as the kernel adds up,
its finished children's), not the client's. Memory is the peak of the anonymous memory of the session's backend, sampled
every 2 ms, above what it had before.
"""

import argparse
import datetime
import os
import pathlib
import platform
import re
import statistics
import subprocess
import threading
import time

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
SYSTEMS = ("plain", "shard_ext", "postgres_fdw")
TICK = os.sysconf("SC_CLK_TCK")
COLUMNS = "id int PRIMARY KEY, device int NOT NULL, at timestamptz NOT NULL, value float8, note text"


class Bench:
    def __init__(self, options):
        self.o = options
        self.rows = options.rows
        self.results = {}
        self.first_rows = {}

    def connect(self, database):
        return psycopg.connect(host=self.o.host, user=self.o.user, dbname=database, autocommit=True)

    def psql(self, database, *commands):
        subprocess.run([f"{self.o.bin}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", self.o.host, "-U", self.o.user,
                        "-d", database, *(x for c in commands for x in ("-c", c))], check=True, stdout=subprocess.DEVNULL)

    # --- the three systems

    def prepare(self):
        with self.connect("postgres") as admin:
            for name in ("plain", "shard_ext", "shard_ext_1", "shard_ext_2", "postgres_fdw", "postgres_fdw_1", "postgres_fdw_2"):
                admin.execute(f"CREATE DATABASE {name}")
        with self.connect("shard_ext") as c:
            c.execute("CREATE EXTENSION shard_ext")
            for number in (1, 2):
                c.execute("SELECT shard_ext.add_node(%s, %s, 5432, %s)", (f"worker_{number}", self.o.host, f"shard_ext_{number}"))
        with self.connect("postgres_fdw") as c:
            c.execute("CREATE EXTENSION postgres_fdw")
            c.execute("ALTER DATABASE postgres_fdw SET enable_partitionwise_aggregate = on")
            c.execute("ALTER DATABASE postgres_fdw SET enable_partitionwise_join = on")
            for number in (1, 2):
                c.execute(f"CREATE SERVER node_{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
                          f"(host '{self.o.host}', dbname 'postgres_fdw_{number}', fetch_size '10000', batch_size '1000', async_capable 'true')")
                c.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER node_{number} OPTIONS (user '{self.o.user}')")
        for table in ("readings", "loaded"):
            self.create(table)
        path = pathlib.Path(self.o.files) / f"readings-{self.rows}.txt"
        if not path.exists():
            print("generating rows", flush=True)
            self.psql("plain", f"\\copy (SELECT i, i % 1000, timestamptz '2024-01-01 00:00+00' + i * interval '7 seconds', "
                      f"(i::bigint * 7919 % 100003)::float8 / 7, 'note ' || md5(i::text) FROM generate_series(1, {self.rows}) i) TO '{path}'")
        self.file = path
        for system in SYSTEMS:
            print(f"loading {system}", flush=True)
            self.psql(system, f"\\copy readings FROM '{path}'")
        for database in ("plain", "shard_ext_1", "shard_ext_2", "postgres_fdw_1", "postgres_fdw_2"):
            self.psql(database, "VACUUM ANALYZE")
        self.psql("postgres_fdw", "ANALYZE readings")
        self.psql("postgres", "CHECKPOINT")

    def create(self, table):
        with self.connect("plain") as c:
            c.execute(f"CREATE TABLE {table} ({COLUMNS})")
        with self.connect("shard_ext") as c:
            c.execute(f"CREATE TABLE {table} ({COLUMNS})")
            c.execute("SELECT create_distributed_table(%s, 'id', shard_count => %s)", (table, self.o.shards))
        with self.connect("postgres_fdw") as c:
            c.execute(f"CREATE TABLE {table} ({COLUMNS.replace(' PRIMARY KEY', ' NOT NULL')}) PARTITION BY HASH (id)")
            for shard in range(self.o.shards):
                node = 1 + shard % 2
                with self.connect(f"postgres_fdw_{node}") as worker:
                    worker.execute(f"CREATE TABLE {table}_{shard} ({COLUMNS})")
                c.execute(f"CREATE FOREIGN TABLE {table}_{shard} PARTITION OF {table} FOR VALUES WITH "
                          f"(MODULUS {self.o.shards}, REMAINDER {shard}) SERVER node_{node}")

    # --- measuring

    def cpu_seconds(self):
        """Of the postmaster, of its living children and of those it has reaped."""
        total = 0
        postmaster = self.o.postmaster
        children = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in [str(postmaster), *children]:
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += sum(map(int, fields[11:15] if pid == str(postmaster) else fields[11:13]))
        return total / TICK

    def quiet(self):
        """Waits until the sessions of the last measurement are gone, so that their time is accounted for."""
        deadline = time.monotonic() + 10
        with self.connect("postgres") as c:
            while time.monotonic() < deadline:
                n = c.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('client backend', 'parallel worker') "
                              "AND pid <> pg_backend_pid()").fetchone()[0]
                if n == 0:
                    return
                time.sleep(0.05)

    def pgbench(self, system, script, *arguments):
        path = pathlib.Path(self.o.files) / "script.sql"
        path.write_text(script)
        before = self.cpu_seconds()
        out = subprocess.run([f"{self.o.bin}/pgbench", "-n", "-h", self.o.host, "-U", self.o.user, "-f", str(path), *arguments, system],
                             check=True, capture_output=True, text=True).stdout
        self.quiet()
        cpu = self.cpu_seconds() - before
        done = int(re.search(r"actually processed: (\d+)", out).group(1))
        tps = float(re.search(r"^tps = ([\d.]+)", out, re.M).group(1))
        return tps, cpu / done * 1000

    def measure(self, name, unit, one, once=()):
        """Runs one(system) -> (value, CPU) in alternating rounds, the slow ones `once`, and keeps the medians."""
        collected = {s: [] for s in SYSTEMS}
        if not self.results:
            one("plain")  # warms up the machine
        for number in range(self.o.rounds):
            for system in SYSTEMS:
                if number == 0 or system not in once:
                    collected[system].append(one(system))
        medians = {s: tuple(statistics.median(x) for x in zip(*collected[s])) for s in SYSTEMS}
        self.results[name] = (unit, medians)
        plain = medians["plain"][0]
        print(f"{name}: " + ", ".join(f"{s} {medians[s][0]:.4g} {unit} ({medians[s][0] / plain:.2f})" for s in SYSTEMS), flush=True)

    def point_reads(self):
        script = f"\\set id random(1, {self.rows})\nSELECT device, at, value, note FROM readings WHERE id = :id;\n"
        for protocol in ("simple", "prepared"):
            for clients in (1, 4):
                self.measure(f"point read by key, {protocol}, {clients} client{'s' * (clients > 1)}", "transactions/s",
                             lambda s: self.pgbench(s, script, "-M", protocol, "-c", str(clients), "-j", "1", "-T", str(self.o.seconds)))

    def statements(self):
        work = {
            "count(*)": ("SELECT count(*) FROM readings;", 10),
            "count(DISTINCT x), 1,000 values": ("SELECT count(DISTINCT device) FROM readings;", 5),
            "count(DISTINCT x), every row its own": ("SELECT count(DISTINCT at) FROM readings;", 3),
            "aggregate into 1,000 groups": ("SELECT device, count(*), sum(value), avg(value), max(at) FROM readings GROUP BY device;", 5),
            "aggregate into 100,000 groups": ("SELECT value, count(*), max(at) FROM readings GROUP BY value;", 3),
            "top 10 of all rows": ("SELECT * FROM readings ORDER BY value DESC, id LIMIT 10;", 10),
        }
        for name, (script, times) in work.items():
            self.measure(name, "queries/s", lambda s: self.pgbench(s, script, "-c", "1", "-t", str(times)))

    def gather(self):
        def one(system):
            tps, cpu = self.pgbench(system, "SELECT * FROM readings;", "-c", "1", "-t", "3")
            return tps * self.rows, cpu
        self.measure(f"gather of {self.rows:,} rows", "rows/s", one)
        self.first_rows = {system: self.first_row(system) for system in SYSTEMS}
        print("first row after, ms: " + ", ".join(f"{s} {ms:.2f} ({n} temporary files)" for s, (ms, n) in self.first_rows.items()))

    def first_row(self, system):
        """Milliseconds from sending a query for all rows to the first of them, and temporary files made meanwhile."""
        def files():
            with self.connect("postgres") as c:
                return c.execute("SELECT sum(temp_files) FROM pg_stat_database").fetchone()[0]
        took, before = [], files()
        with self.connect(system) as c:
            c.execute("SELECT count(*) FROM readings WHERE id < 100").fetchall()
            for _ in range(7):
                began = time.monotonic()
                c.pgconn.send_query(b"SELECT * FROM readings")
                c.pgconn.set_single_row_mode()
                c.pgconn.get_result()
                took.append((time.monotonic() - began) * 1000)
                while c.pgconn.get_result() is not None:
                    pass
        self.quiet()
        return statistics.median(took), files() - before

    def copy(self):
        def one(system):
            self.psql(system, "TRUNCATE loaded")
            self.psql("postgres", "CHECKPOINT")
            before, began = self.cpu_seconds(), time.monotonic()
            self.psql(system, f"\\copy loaded FROM '{self.file}'")
            took = time.monotonic() - began
            self.quiet()
            return self.rows / took, (self.cpu_seconds() - before) * 1000
        self.measure(f"COPY of {self.rows:,} rows", "rows/s", one, once=("postgres_fdw",))

    # --- memory

    def memory(self):
        """Peak growth of the session's backend in MB while it gathers and while it copies."""
        found = {}
        for system in SYSTEMS:
            found[system] = (self.backend_growth(system, self.read_all), self.backend_growth(system, self.copy_all))
            print(f"memory of the backend, {system}: gather {found[system][0]:.1f} MB, COPY {found[system][1]:.1f} MB", flush=True)
        return found

    def backend_growth(self, system, work):
        with self.connect(system) as c:
            c.execute("SELECT count(*) FROM readings WHERE id < 100").fetchall()
            pid, peak, done = c.info.backend_pid, 0, threading.Event()
            before = anonymous(pid)

            def sample():
                nonlocal peak
                while not done.is_set():
                    peak = max(peak, anonymous(pid))
                    time.sleep(0.002)

            thread = threading.Thread(target=sample)
            thread.start()
            work(c)
            done.set()
            thread.join()
            return max(0, peak - before) / 1024

    def read_all(self, c):
        pgconn = c.pgconn
        pgconn.send_query(b"SELECT * FROM readings")
        pgconn.set_single_row_mode()  # the client must not be what holds the rows
        rows = 0
        while (result := pgconn.get_result()) is not None:
            rows += result.ntuples
        assert rows == self.rows, rows

    def copy_all(self, c):
        c.execute("TRUNCATE loaded")
        with c.cursor().copy("COPY loaded FROM STDIN") as copy, open(self.file, "rb") as file:
            while chunk := file.read(1 << 16):
                copy.write(chunk)

    # --- the report

    def report(self, memory):
        def number(x):
            return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"

        with self.connect("postgres") as c:
            version = c.execute("SHOW server_version").fetchone()[0].split()[0]
        commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        cpu = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text())
        lines = [
            "# Benchmark results", "",
            f"`make bench` on {datetime.date.today()}, commit {commit}: PostgreSQL {version}, {os.cpu_count()} cores"
            f" ({cpu.group(1) if cpu else platform.machine()}) for the client and all servers, {self.rows:,} rows in {self.o.shards} shards"
            f" (postgres_fdw: {self.o.shards} hash partitions) on two nodes, data cached, fsync off."
            f" Median of {self.o.rounds} alternating rounds; the ratio is to plain PostgreSQL in the same run, more is better.", "",
            "| | plain | shard_ext | ratio | postgres_fdw | ratio |", "|---|--:|--:|--:|--:|--:|",
        ]
        for name, (unit, m) in self.results.items():
            plain = m["plain"][0]
            lines.append(f"| {name}, {unit} | {number(plain)} | {number(m['shard_ext'][0])} | **{m['shard_ext'][0] / plain:.2f}** |"
                         f" {number(m['postgres_fdw'][0])} | {m['postgres_fdw'][0] / plain:.2f} |")
        lines += ["", "CPU of all server processes (coordinator and nodes together), milliseconds for each transaction, query or COPY:", "",
                  "| | plain | shard_ext | ratio | postgres_fdw | ratio |", "|---|--:|--:|--:|--:|--:|"]
        for name, (_, m) in self.results.items():
            plain = max(m["plain"][1], 1e-9)
            lines.append(f"| {name} | {m['plain'][1]:.3g} | {m['shard_ext'][1]:.3g} | {m['shard_ext'][1] / plain:.2f} |"
                         f" {m['postgres_fdw'][1]:.3g} | {m['postgres_fdw'][1] / plain:.2f} |")
        lines += ["", "Peak growth of the memory of the session's backend, MB (anonymous memory, shared buffers not counted):", "",
                  "| | plain | shard_ext | postgres_fdw |", "|---|--:|--:|--:|"]
        for row, name in enumerate((f"gather of {self.rows:,} rows", f"COPY of {self.rows:,} rows")):
            lines.append(f"| {name} | " + " | ".join(f"{memory[s][row]:.1f}" for s in SYSTEMS) + " |")
        lines += ["", "From sending a query for all rows to its first row, milliseconds (and temporary files made): "
                  + ", ".join(f"{s} {ms:.2f} ({n})" for s, (ms, n) in self.first_rows.items()) + ".", ""]
        lines += ["How it is measured: the head of `bench/bench.py`.", ""]
        path = pathlib.Path(self.o.output)
        _, other, rest = (path.read_text() if path.exists() else "").partition("\n## ")  # the parts of other programs stay
        path.write_text("\n".join(lines) + other + rest)
        print("\n".join(lines))


def anonymous(pid):
    """Anonymous resident memory of a process in kB."""
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--bin", required=True, help="PostgreSQL's programs")
    parser.add_argument("--files", required=True, help="a directory for the rows")
    parser.add_argument("--postmaster", type=int, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each point read run")
    parser.add_argument("--only", help="one of: points statements gather copy memory")
    parser.add_argument("--output", default=str(HERE / "RESULTS.md"))
    options = parser.parse_args()
    bench = Bench(options)
    bench.prepare()
    parts = {"points": bench.point_reads, "statements": bench.statements, "gather": bench.gather, "copy": bench.copy}
    for name, part in parts.items():
        if options.only in (None, name):
            part()
    memory = bench.memory() if options.only in (None, "memory") else {s: (0, 0) for s in SYSTEMS}
    if options.only is None:
        bench.report(memory)


if __name__ == "__main__":
    main()
