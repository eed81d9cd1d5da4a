#!/usr/bin/env python3
"""TPC-H: its 22 queries with the validation parameters, on plain PostgreSQL and on shard_ext, compared and timed.

Both live in one server: an ordinary database, and a coordinator with two databases as nodes. The rows are made by
tpchgen-cli. Each query runs once on both, which warms up and compares the results (numbers must be equal to the last
digit), then --rounds times, alternating; the median of the client's times counts. With --rounds 0 results are
compared only.
"""

import argparse
import datetime
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import psycopg

HERE = pathlib.Path(__file__).resolve().parent
TABLES = ("region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem")
TIES = {3, 10, 11, 18}  # ORDER BY leaves rows of these in any order, in principle
HEADING = "## TPC-H"


class Tpch:
    def __init__(self, options):
        self.o = options

    def connect(self, database):
        return psycopg.connect(host=self.o.host, port=self.o.port, user=self.o.user, dbname=database, autocommit=True,
                               options=f"-c statement_timeout={self.o.timeout}s")

    def generate(self):
        """Writes the rows as CSV, unless they are there."""
        folder = pathlib.Path(self.o.files) / f"tpch-{self.o.scale}"
        if not (folder / "complete").exists():
            print(f"generating rows of scale {self.o.scale}", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run([pathlib.Path(sys.executable).with_name("tpchgen-cli"), "csv", "-s", str(self.o.scale), "-o", str(folder),
                            "--overwrite", "--quiet"], check=True)
            (folder / "complete").touch()
        return folder

    def prepare(self):
        folder = self.generate()
        databases = ("tpch_plain", "tpch", "tpch_node_1", "tpch_node_2")
        with self.connect("postgres") as admin:
            port = admin.info.port
            for name in databases:
                admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
                admin.execute(f"CREATE DATABASE {name}")
        schema, distribute = ((HERE / "tpch" / f"{name}.sql").read_text() for name in ("schema", "distribute"))
        with self.connect("tpch") as c:
            c.execute("CREATE EXTENSION shard_ext")
            for number in (1, 2):
                c.execute("SELECT shard_ext.add_node(%s, %s, %s, %s)", (f"worker_{number}", self.o.host, port, f"tpch_node_{number}"))
            c.execute(schema)
            c.execute(distribute.replace(":shards", str(self.o.shards)))
        with self.connect("tpch_plain") as c:
            c.execute(schema)
        for database in ("tpch_plain", "tpch"):
            print(f"loading {database}", flush=True)
            with self.connect(database) as c:
                c.execute("SET statement_timeout = 0")
                for table in TABLES:
                    with (folder / f"{table}.csv").open("rb") as file, c.cursor().copy(f"COPY {table} FROM STDIN (FORMAT csv, HEADER)") as copy:
                        while chunk := file.read(1 << 20):
                            copy.write(chunk)
        for database in ("tpch_plain", "tpch_node_1", "tpch_node_2", "tpch"):
            with self.connect(database) as c:
                c.execute("SET statement_timeout = 0")
                c.execute("ANALYZE" if database == "tpch" else "VACUUM ANALYZE")

    def queries(self):
        for path in sorted((HERE / "tpch" / "queries").glob("*.sql")):
            if not self.o.query or int(path.stem) in self.o.query:
                yield int(path.stem), path.read_text().replace(":fraction", f"{0.0001 / self.o.scale:.10f}")

    @staticmethod
    def run(connection, sql):
        """Rows as text, and the seconds until the client had them; or the error."""
        began = time.perf_counter()
        result = connection.pgconn.exec_(sql.encode())
        seconds = time.perf_counter() - began
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            return None, seconds, result.error_message.decode().strip()
        rows = [tuple(result.get_value(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]
        return rows, seconds, None

    def measure(self):
        """{query: (plain seconds, ours, what is wrong)}"""
        results = {}
        with self.connect("tpch_plain") as plain, self.connect("tpch") as ours:
            for number, sql in self.queries():
                wanted, seconds, error = self.run(plain, sql)
                if error:
                    raise SystemExit(f"query {number} on plain PostgreSQL: {error}")
                got, mine, error = self.run(ours, sql)
                if ours.closed:
                    raise SystemExit(f"query {number}: the server ended the connection: {error}")
                wrong = error or self.difference(number, wanted, got)
                times = [(seconds, mine)]
                if error is None and self.o.rounds:
                    times = [(self.run(plain, sql)[1], self.run(ours, sql)[1]) for _ in range(self.o.rounds)]
                results[number] = *(statistics.median(x) for x in zip(*times)), wrong
                plain_ms, ours_ms = (1000 * s for s in results[number][:2])
                print(f"query {number:2}: {len(wanted):5} rows, plain {plain_ms:8.1f} ms, shard_ext {ours_ms:8.1f} ms, "
                      f"{ours_ms / plain_ms:6.2f} times, {'ok' if not wrong else 'FAILED'}", flush=True)
                if wrong:
                    print(wrong, flush=True)
                if self.o.explain and ours_ms > self.o.explain * plain_ms:
                    self.explain(plain, ours, sql)
        return results

    def explain(self, plain, ours, sql):
        for name, connection in (("plain", plain), ("shard_ext", ours)):
            rows, _, error = self.run(connection, f"EXPLAIN (COSTS OFF) {sql}")
            print(f"-- {name}:", error or "\n" + "\n".join(line.decode() for (line,) in rows), sep=" ", flush=True)

    @staticmethod
    def difference(number, wanted, got):
        if number in TIES:
            wanted, got = sorted(wanted), sorted(got)
        if wanted == got:
            return None
        if len(wanted) != len(got):
            return f"  {len(got)} rows instead of {len(wanted)}"
        a, b = next((a, b) for a, b in zip(wanted, got) if a != b)
        return f"  plain:     {a}\n  shard_ext: {b}"

    def report(self, results):
        """Replaces this part of the results file."""
        with self.connect("postgres") as c:
            version = c.execute("SHOW server_version").fetchone()[0].split()[0]
        commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        lines = [
            HEADING, "",
            f"`bench/run --only tpch` on {datetime.date.today()}, commit {commit}: PostgreSQL {version}, {os.cpu_count()} cores for all servers, scale"
            f" {self.o.scale}, tables in {self.o.shards} shards on two nodes: orders and lineitem by orderkey, part and partsupp by partkey,"
            f" customer by custkey; supplier, nation and region on every node. Indexes on primary and foreign keys."
            f" Median of {self.o.rounds} alternating rounds; the ratio is to plain PostgreSQL in the same run, less is better.", "",
            "| query | plain, ms | shard_ext, ms | times plain |", "|---|--:|--:|--:|",
        ]
        ratios = {}
        for number, (plain, ours, wrong) in results.items():
            if wrong:
                lines.append(f"| {number} | {1000 * plain:.1f} | {'no answer' if ours >= self.o.timeout else 'failed'} | |")
                continue
            ratios[number] = ours / plain
            lines.append(f"| {number} | {1000 * plain:.1f} | {1000 * ours:.1f} | **{ours / plain:.2f}** |")
        if ratios:
            worst = max(ratios, key=ratios.get)
            mean = math.exp(statistics.fmean(math.log(r) for r in ratios.values()))
            lines += ["", f"Geometric mean **{mean:.2f}**, worst {ratios[worst]:.2f} (query {worst})"
                      + ("." if len(ratios) == len(results) else f"; without {len(results) - len(ratios)} that failed."), ""]
            print(lines[-2])
        lines += ["How it is measured: the head of `bench/tpch.py`.", ""]
        path = pathlib.Path(self.o.output)
        before = path.read_text() if path.exists() else "# Benchmark results\n\n"
        path.write_text(re.sub(rf"^{HEADING}\n.*", "", before, flags=re.M | re.S).rstrip() + "\n\n" + "\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", required=True)
    parser.add_argument("--files", required=True, help="a directory for the rows")
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one query")
    parser.add_argument("--query", type=int, action="append", help="only this one (may be repeated)")
    parser.add_argument("--explain", type=float, metavar="TIMES", help="show the plans of queries slower than so many times plain")
    parser.add_argument("--keep", action="store_true", help="use the databases of the last run")
    parser.add_argument("--output", help="the results file to change")
    options = parser.parse_args()
    tpch = Tpch(options)
    if not options.keep:
        tpch.prepare()
    results = tpch.measure()
    if options.output and not options.query:
        tpch.report(results)
    failed = sum(1 for *_, wrong in results.values() if wrong)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
