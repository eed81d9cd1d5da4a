#!/usr/bin/env python3
"""Parity of generated statements: random SELECTs and writes (grammar/) over the tables of generated/, run on a
plain and on a distributed database and compared as run.py compares. What differs is made smaller and printed with
its seed and number:  generate.py --host DIR --seed 7 --count 1000;  generate.py --host DIR --seed 7 --only 123
"""

import argparse
import pathlib
import random
import re
import sys
import threading
import time
from collections import Counter

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import run  # noqa: E402
from grammar.choices import Choices  # noqa: E402
from grammar.tables import LITERALS  # noqa: E402
from grammar.writes import Statements  # noqa: E402
from sqlsplit import Statement, top_level_order  # noqa: E402

ALLOWED = {"0A000"}  # of writes
UNRULY = ("22", "21", "54", "57014")  # errors that depend on which row is looked at first, and on the time it takes

UNHURRIED = Statement("SET statement_timeout = '5s'", 1)


class Case:
    """The statements of one try: what is run before the compared ones, the compared ones, and what ends them."""

    block = False  # queries run in transaction blocks, too

    def __init__(self, choices):
        generator = Statements(choices)
        way = choices.below(12)  # 0-5 simple, extended, cursor, prepared twice, bound, scrolled
        self.write = choices.chance(20)
        self.protocol = {6: "extended", 7: "cursor", 10: "bound"}.get(way, "simple")
        generator.prepared = way in (8, 9, 10)
        self.before, self.compared, self.after = [], [], []
        self.values, self.ordered = [], None
        if self.write:
            statements = generator.transaction()
            self.protocol = "extended" if self.protocol == "extended" else "simple"
            self.before, self.compared, self.after = ["BEGIN"], statements, ["ROLLBACK"]
        else:
            self.compared = [generator.query()]
        if self.write and generator.parameters:
            self.compared = [bind(s, generator.parameters) for s in self.compared]
        elif self.write or generator.prepared and not generator.parameters:
            self.protocol = "extended" if self.protocol == "extended" else "simple"
        elif way == 11:
            self.scroll(choices)
        elif way == 10 and all(f"${n}::" in self.compared[0] for n in range(1, len(generator.parameters) + 1)):
            self.before = [f"SET plan_cache_mode = {choices.one(['auto', 'force_generic_plan'])}"]
            self.values = [[value for _, value in generator.parameters],
                           [f"({choices.one(LITERALS[kind])})::{kind}" for kind, _ in generator.parameters]]
            self.values += self.values[:1]
            self.compared, self.after = self.compared * 3, ["RESET plan_cache_mode"]
        elif generator.prepared:
            self.protocol = "simple"
            types = ", ".join(kind for kind, _ in generator.parameters)
            others = [f"({choices.one(LITERALS[kind])})::{kind}" for kind, _ in generator.parameters]
            values, others = ", ".join(value for _, value in generator.parameters), ", ".join(others)
            self.before = [f"SET plan_cache_mode = {choices.one(['auto', 'force_generic_plan'])}",
                           f"PREPARE q ({types}) AS {self.compared[0]}"]
            self.compared, self.after = [f"EXECUTE q ({values})"], ["DEALLOCATE q", "RESET plan_cache_mode"]
            if choices.chance(30):
                self.compared.append(f"EXECUTE q ({others})")
        if not self.write and choices.chance(8):
            zone = choices.one(["America/New_York", "Asia/Tokyo"])
            self.before.insert(0, f"SET TimeZone = '{zone}'")
            self.after.append("RESET TimeZone")
        if self.block and "BEGIN" not in self.before:
            self.before.insert(0, "BEGIN")
            self.after.insert(0, "ROLLBACK")

    def scroll(self, choices):
        """The query by a cursor that goes back and forth; where its rows have no order, always over all of them."""
        sql = self.compared[0]
        self.before = ["BEGIN", f"DECLARE s SCROLL CURSOR FOR {sql}"]
        self.ordered = top_level_order(sql) and "WITH TIES" not in sql
        self.compared, self.after = [], ["ROLLBACK"]
        for _ in range(2 + choices.below(5)):
            if self.ordered:
                self.compared.append(choices.one(["FETCH 3 FROM s", "FETCH BACKWARD 2 FROM s", "MOVE 2 FROM s", "FETCH PRIOR FROM s", "FETCH LAST FROM s",
                                                  "FETCH ABSOLUTE 4 FROM s", "FETCH RELATIVE -2 FROM s", "FETCH ALL FROM s", "FETCH BACKWARD ALL FROM s",
                                                  "MOVE ABSOLUTE 0 FROM s", "FETCH ABSOLUTE -2 FROM s", "MOVE FORWARD ALL FROM s"]))
            else:
                self.compared.append(choices.one(["FETCH ALL FROM s", "MOVE ABSOLUTE 0 FROM s", "FETCH BACKWARD ALL FROM s"]))

    def text(self):
        bound = [f"-- with {', '.join(values)}" for values in self.values]
        return "\n".join([";\n".join(self.before + self.compared + self.after) + ";", *bound])


def bind(sql, parameters):
    return re.sub(r"\$(\d+)", lambda m: f"({parameters[int(m.group(1)) - 1][1]})", sql)


class Comparison:
    def __init__(self, suite, hurry=False):
        self.suite = suite
        self.slow = 0  # statements that the distributed database did not finish in time
        self.hurry, self.stopped = hurry, 0  # cases that a short statement_timeout stopped
        self.refused = None  # why plain PostgreSQL refused the last one

    def why(self, case):
        """What differs between the servers; None: nothing, or the plain one fails."""
        plain = self.answers(self.suite.plain, case)
        self.refused = next((f"{a.error[0]} {a.message}" for a in plain if a.error), None)
        violated = next((a.error[0] for a in plain if a.error and a.error[0].startswith("23")), None)
        if not (case.write and violated) and any(a.error or a.lost for a in plain):
            return None
        if any(len(a.rows) > 20000 for a in plain):
            self.refused = "00000 too many rows"
            return None
        for answer in plain:
            answer.types = [self.without_modifier(t) for t in answer.types]
        if self.hurry:
            why = self.hurried(case, plain)
            if why:
                return f"in a hurry: {why}"
        return self.differing(case, plain, self.answers(self.suite.distributed, case))

    def hurried(self, case, plain):
        """The same for a run of the case that a short statement_timeout may stop; then nothing must be left of it."""
        chance = random.Random(case.text())
        milliseconds = chance.randint(1, 40)
        session, within = self.suite.distributed, case.before[:1] == ["BEGIN"] and chance.random() < 0.5
        before, after, slow = case.before, case.after, self.slow
        try:
            if within:  # what follows ROLLBACK TO is in the same transaction
                case.before, case.after = ["BEGIN", "SAVEPOINT hurry", *before[1:]], ["ROLLBACK TO hurry", *after[1:]]
            answers = self.answers(session, case, milliseconds)
            while within and session.connection.pgconn.transaction_status == run.pq.TransactionStatus.INERROR:
                session.run(Statement("ROLLBACK TO hurry", 1), "simple")  # it was too slow itself
            session.run(UNHURRIED, "simple")
            why = self.differing(case, plain, answers)
            self.stopped += self.slow > slow
            self.slow = slow
            if not why and within:
                case.before, case.after = before[1:], after
                why = self.differing(case, plain, self.answers(session, case))
                why = why and f"after ROLLBACK TO: {why}"
        finally:
            case.before, case.after = before, after
        if session.in_transaction():
            session.run(Statement("ROLLBACK", 1), "simple")
        return why or self.left()

    def left(self):
        """What is left on nodes of statements that were stopped."""
        for _ in range(100):
            found = [f"{name}: {what}" for name, node in zip(self.suite.workers, self.nodes()) for (what,) in node.execute(
                "SELECT 'prepared ' || gid FROM pg_prepared_xacts WHERE database = current_database() UNION ALL "
                "SELECT state || ' ' || query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' AND state <> 'idle' UNION ALL "
                "SELECT 'table ' || oid::regclass FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'")]
            if not found:
                return None
            time.sleep(0.02)
        return f"left on a node: {found[0]}"

    def nodes(self):
        if not hasattr(self, "connections"):
            self.connections = [run.Session(self.suite.options, name).connection for name in self.suite.workers]
        return self.connections

    @staticmethod
    def without_modifier(name):  # folding of constants may find a length or precision, which is no difference
        return re.sub(r"\(.*\)$", "", name)

    def differing(self, case, plain, other):
        for sql, mine, theirs in zip(case.compared, plain, other):
            if theirs.lost:
                return f"crash: {theirs.message}"
            if theirs.error and theirs.error[0] == "57014" and "statement timeout" not in theirs.message:
                return f"error 57014: {theirs.message}"
            if mine.error and theirs.error and theirs.error[0][:2] == "23":
                return None
            if theirs.error and case.write and theirs.error[0] in ALLOWED:
                return None
            if theirs.error and theirs.error[0] in ALLOWED and "over several shard groups" in theirs.message:
                return None
            if theirs.error:
                self.slow += theirs.error[0] == "57014"
                if theirs.error[0].startswith(UNRULY):
                    return None
                return f"error {theirs.error[0]}: {theirs.message}"
            theirs.types = [self.without_modifier(t) for t in theirs.types]
            statement = Statement(sql, 1)
            ordered = top_level_order(sql) and "WITH TIES" not in sql if case.ordered is None else case.ordered
            why = run.difference(statement, mine, theirs, ordered)
            if why:
                return f"difference: {why}"
        return None

    @staticmethod
    def answers(session, case, milliseconds=None):
        if session.connection.pgconn.status != run.pq.ConnStatus.OK:
            session.connect()
        if not session.type_names:
            session.type_name(16384, -1)  # learns the names, which it cannot do within a transaction
        hurry = [f"SET statement_timeout = {milliseconds}"] if milliseconds else []
        for sql in case.before + hurry:
            answer = session.run(Statement(sql, 1), "simple")
            if answer.error or answer.lost:
                for sql in [*case.after, "DEALLOCATE ALL"]:
                    session.run(Statement(sql, 1), "simple")
                return [answer]
        answers = []
        for number, sql in enumerate(case.compared):
            if case.protocol == "bound":
                answers.append(session.run_bound(sql, case.values[number], not number))
            else:
                answers.append(session.run(Statement(sql, 1), case.protocol))
            if answers[-1].error or answers[-1].lost:
                break
        if hurry:
            session.run(UNHURRIED, "simple")
        for sql in case.after:
            session.run(Statement(sql, 1), "simple")
        return answers


def kind_of(why):
    """Findings of one kind are probably one bug."""
    line = why.splitlines()[0]
    if line.startswith("error"):
        return re.sub(r"[\d.]+|\"[^\"]*\"", "#", line)[:90]
    return re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "#", line)[:60]


def smaller(comparison, choices, why, budget):
    """The choices of a shorter statement that fails in the same way."""
    kind, best = kind_of(why), list(choices)
    deadline = time.monotonic() + budget

    def fails(candidate):
        drawn = Choices(given=candidate)
        try:
            case = Case(drawn)
        except (IndexError, ValueError, KeyError, RecursionError):
            return False
        found = comparison.why(case)
        return found and kind_of(found) == kind

    width = max(1, len(best) // 2)
    while width and time.monotonic() < deadline:
        at, changed = 0, False
        while at < len(best) and time.monotonic() < deadline:
            for candidate in (best[:at] + best[at + width:], best[:at] + [0] * width + best[at + width:]):
                if candidate != best and len(candidate) <= len(best) and fails(candidate):
                    best, changed = candidate, True
                    break
            else:
                at += width
        if not changed or width > 1:
            width //= 2
    return best


def analyze_forever(session):
    other = run.Session(session.options, session.dbname)
    while True:
        if other.connection.pgconn.status != run.pq.ConnStatus.OK:
            other.connect()
        other.connection.pgconn.exec_(b"ANALYZE")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    run.add_server_arguments(parser)
    parser.add_argument("--seed", default=1, type=int)
    parser.add_argument("--count", default=300, type=int)
    parser.add_argument("--only", type=int, help="the statement of this number, printed")
    parser.add_argument("--seconds", default=0, type=float, help="stop after so long")
    parser.add_argument("--shrink", default=8.0, type=float, help="seconds for making one finding smaller")
    parser.add_argument("--keep", action="store_true", help="use the databases of the last run")
    parser.add_argument("--analyze", action="store_true", help="with statistics of the tables, which change plans")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the distributed session")
    parser.add_argument("--unrest", action="store_true", help="another session runs ANALYZE all the time, which invalidates plans and caches")
    parser.add_argument("--block", action="store_true", help="each query in a transaction block, in which its nodes have to begin")
    parser.add_argument("--hurry", action="store_true", help="first with a statement_timeout of some milliseconds, drawn for each case")
    parser.add_argument("--refused", action="store_true", help="show what plain PostgreSQL refuses")
    parser.add_argument("--self-check", action="store_true")
    options = parser.parse_args()
    Case.block = options.block
    suite = run.Suite(HERE / "generated", options, "simple")
    # databases of its own: run.py uses the folder, too
    suite.names, suite.workers = ([name.replace("generated", "random") for name in names] for names in (suite.names, suite.workers))
    suite.prepare(keep=options.keep)
    if options.analyze:
        for session in suite.both():
            session.connection.execute("ANALYZE")
    for setting in options.set:
        name, _, value = setting.partition("=")
        suite.distributed.connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    if options.unrest:
        threading.Thread(target=analyze_forever, args=(suite.distributed,), daemon=True).start()
    how = "".join([" --analyze" * options.analyze, " --block" * options.block, " --hurry" * options.hurry, *(f" --set {s}" for s in options.set)])
    suite.plain.connection.execute("SET statement_timeout = '500ms'")
    suite.distributed.connection.execute(UNHURRIED.sql)
    comparison, kinds, refused, valid, failed, began = Comparison(suite, options.hurry), Counter(), Counter(), 0, 0, time.monotonic()
    numbers = [options.only] if options.only is not None else range(options.count)
    tried = 0
    for number in numbers:
        if options.seconds and time.monotonic() - began > options.seconds:
            break
        tried += 1
        choices = Choices(f"{options.seed}:{number}")
        case = Case(choices)
        if options.only is not None:
            print(case.text())
        why = comparison.why(case)
        if comparison.refused:
            refused[kind_of("error " + comparison.refused)] += 1
        else:
            valid += 1
        if not why:
            continue
        failed += 1
        kinds[kind_of(why)] += 1
        if kinds[kind_of(why)] > 3:
            continue
        small = Case(Choices(given=smaller(comparison, choices.made, why, options.shrink)))
        print(f"\nDIFFERENCE --seed {options.seed} --only {number}{how} ({small.protocol})\n{small.text()}\n"
              f"{comparison.why(small) or why}\n", flush=True)
    for kind, count in kinds.most_common():
        print(f"{count:5} {kind}")
    if options.refused:
        for kind, count in refused.most_common():
            print(f"{count:5} by plain PostgreSQL: {kind}")
    if comparison.slow:
        print(f"{comparison.slow} took longer than 5 s, which plain PostgreSQL finished in 0.5 s")
    if options.hurry:
        print(f"{comparison.stopped} were stopped by a short timeout first")
    print(f"{valid} of {tried} generated statements run, {time.monotonic() - began:.1f} s")
    print(f"{valid - failed} passed, {failed} failed")
    return 1 if failed or not valid else 0


if __name__ == "__main__":
    sys.exit(main())
