"""Random UPDATE, DELETE, MERGE, INSERT … SELECT, upserts and WITH clauses that write, each followed by a look at the table,
with savepoints around some of them."""

from .choices import Scope, Source
from .queries import Queries
from .tables import KEYS, TABLES


class Statements(Queries):
    def transaction(self):
        """Statements for one transaction: writes, and the tables they changed."""
        statements = []
        for _ in range(1 + self.c.count(2, 30)):
            table = self.c.one(["a", "b", "u", "c", "r", "l", "ref", "loc", "a", "b", "u", "m", "w"])
            write = self.c.one([self.update, self.update, self.delete, self.insert, self.insert_select, self.upsert, self.update_from, self.merge,
                                self.writing_with])
            self.also = []
            table, sql = write(table)
            look = [sql, *(f"SELECT * FROM {changed}" for changed in [table, *self.also])]
            if self.c.chance(25):
                undone = self.c.one([[f"ROLLBACK TO p", f"SELECT * FROM {table}"], ["ROLLBACK TO p"], ["RELEASE p"]])
                look = ["SAVEPOINT p", *look, *undone]
            statements += look
        if self.c.chance(30):
            statements.append(self.query())
        return statements

    def target(self, table):
        return Source(table, list(TABLES[table].items()), KEYS[table])

    def returning(self, scope):
        if not self.c.chance(40):
            return ""
        self.writing = True
        text = " RETURNING " + self.c.one(["*", f"{self.expr(scope, 'int', 1)} AS c1, {self.expr(scope, 'text', 1)} AS c2"])
        self.writing = False
        return text

    def assigned(self, table, scope):
        moves = self.c.chance(15)  # rows go to other shards
        columns = [name for name in TABLES[table] if (moves or name != KEYS[table]) and (table, name) != ("u", "k")]
        parts = []
        for name in {self.c.one(columns): 0 for _ in range(1 + self.c.count(2, 40))}:
            kind = TABLES[table][name]
            value = self.expr(scope, kind) if not (table == "u" and name == "v") else self.simple(scope, "int")
            parts.append(f"{name} = {value}")
        return ", ".join(parts)

    def update(self, table):
        scope = Scope([self.target(table)])
        if self.c.chance(20):  # with a table that has one row for each row here
            other = self.alias()
            joined = Scope(scope.sources + [Source(other, list(TABLES["ref"].items()), "id")])
            return table, (f"UPDATE {table} SET {self.assigned(table, joined)} FROM ref {other} "
                    f"WHERE {table}.id = {other}.id AND {self.condition(joined, 1)}{self.returning(scope).replace('*', table + '.*')}")
        return table, f"UPDATE {table} SET {self.assigned(table, scope)}{self.where(scope, 85)}{self.returning(scope)}"

    def one_each(self):
        """A source for UPDATE and MERGE with one row for each value of x1."""
        name = self.alias()
        text, inner = self.from_clause(Scope([]), 1)
        columns = [("x1", "int"), ("x2", self.c.one(["int", "text", "date"])), ("x3", self.c.one(["int", "numeric", "text"]))]
        values = ", ".join(f"{self.c.one(['max', 'min'])}({self.simple(inner, kind)}) AS {column}" for column, kind in columns[1:])
        return (f"(SELECT {self.simple(inner, 'int')} AS x1, {values} FROM {text}{self.where(inner, 40)} GROUP BY 1) {name}",
                Source(name, columns, "x1"))

    def tie(self, table, source):
        columns = [c for c, kind in TABLES[table].items() if kind == "int"]
        column = KEYS[table] if TABLES[table][KEYS[table]] == "int" and self.c.chance(60) else self.c.one(columns)
        return f"{table}.{column} = {source.name}.x1"

    def update_from(self, table):
        text, source = self.one_each()
        joined = Scope([self.target(table), source])
        more = f" AND {self.condition(joined, 1)}" if self.c.chance(30) else ""
        return table, (f"UPDATE {table} SET {self.assigned(table, joined)} FROM {text} WHERE {self.tie(table, source)}{more}"
                       f"{self.returning(Scope([self.target(table)])).replace('*', table + '.*')}")

    def merge(self, table):
        if table == "ref":
            table = "loc"
        text, source = self.one_each()
        mine, joined = Scope([source]), Scope([self.target(table), source])
        clauses = []
        last = self.c.count(2, 50)
        for number in range(last + 1):
            when = f" AND {self.condition(joined, 1)}" if number < last or self.c.chance(50) else ""
            action = self.c.one([lambda: f"UPDATE SET {self.assigned(table, joined)}", lambda: "DELETE", lambda: "DO NOTHING"])()
            clauses.append(f"WHEN MATCHED{when} THEN {action}")
        if self.c.chance(50):
            when = f" AND {self.condition(mine, 0)}" if self.c.chance(50) else ""
            columns = [c for c in TABLES[table] if c in (KEYS[table], "d", "k") or self.c.chance(60)]
            values = [self.expr(mine, TABLES[table][c], 1) if (table, c) != ("u", "k") else f"100 + {source.name}.x1" for c in columns]
            clauses.append(f"WHEN NOT MATCHED{when} THEN INSERT ({', '.join(columns)}) VALUES ({', '.join(values)})")
        more = f" AND {self.condition(joined, 0)}" if self.c.chance(20) else ""
        return table, f"MERGE INTO {table} USING {text} ON {self.tie(table, source)}{more} {' '.join(clauses)}"

    def writing_with(self, table):
        """WITH clauses that write, and a statement that reads what they return."""
        write = self.c.one([self.update, self.delete, self.insert, self.update_from])
        table, sql = write("loc" if table == "ref" else table)
        name = self.alias("q")
        sql = sql.split(" RETURNING ")[0] + f" RETURNING {table}.*"
        returned = Source(name, list(TABLES[table].items()), KEYS[table])
        if self.c.chance(20):
            other, more = self.c.one([self.delete, self.insert])(self.c.one(["a", "b", "c"]))
            second = self.alias("q")
            sql += f"), {second} AS ({more.split(' RETURNING ')[0]} RETURNING {other}.*"
        if self.c.chance(30):
            sql += f"), {self.alias('q')} AS ({self.by_returned(returned, table)}"
        if self.c.chance(30):
            return table, f"WITH {name} AS ({sql}) {self.by_returned(returned, table)}"
        self.writing = True
        scope = Scope([], None, [returned])
        kinds = ["int", None]
        body = self.select(kinds, scope, 1) if self.c.chance(70) else f"SELECT * FROM {name}"
        self.writing = False
        return table, f"WITH {name} AS ({sql}) {body}"

    def by_returned(self, returned, table):
        """A change of another table by what a WITH clause returns."""
        other, name = self.c.one([t for t in ["a", "b", "c", "u", "r", "loc"] if t != table]), self.alias()
        key = self.c.one([column for column, kind in TABLES[table].items() if kind == "int"])
        text = f"(SELECT {key} AS x1, count(*)::int AS x2 FROM {returned.name} GROUP BY 1) {name}"
        source = Source(name, [("x1", "int"), ("x2", "int")], "x1")
        where = f"WHERE {self.tie(other, source)}"
        self.also.append(other)
        if self.c.chance(50):
            return f"DELETE FROM {other} USING {text} {where} RETURNING {other}.*"
        joined = Scope([self.target(other), source])
        return f"UPDATE {other} SET {self.assigned(other, joined)} FROM {text} {where} RETURNING {other}.*"

    def delete(self, table):
        scope = Scope([self.target(table)])
        if self.c.chance(25):
            text, inner = self.from_clause(Scope([]), 0)
            joined = Scope(scope.sources + inner.sources)
            returning = self.returning(scope).replace("*", table + ".*")
            named = [s for s in inner.sources if s.name]
            return table, (f"DELETE FROM {table} USING {text} WHERE {self.join_condition(scope.sources, named[0], Scope([]))} "
                    f"AND {self.condition(joined, 0)}{returning}")
        return table, f"DELETE FROM {table}{self.where(scope, 90)}{self.returning(scope)}"

    def insert(self, table):
        columns = list(TABLES[table])
        if table == "u":
            rows = [[self.c.one(["3", "4", "twice(2)", "11"]), str(100 + n), self.literal("text"), self.literal("int"), self.literal("date")]
                    for n in range(1 + self.c.count(2))]
        elif table == "ref":
            rows = [[str(100 + n), *(self.literal(TABLES[table][c]) for c in columns[1:])] for n in range(1 + self.c.count(2))]
        else:
            rows = [[self.expr(Scope([]), TABLES[table][c], 1) if c != "d" or table != "r" else "date '2024-01-07'" for c in columns]
                    for _ in range(1 + self.c.count(2))]
        values = ", ".join(f"({', '.join(row)})" for row in rows)
        return table, f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}{self.returning(Scope([self.target(table)]))}"

    def insert_select(self, table):
        if table in ("ref", "r"):
            table = "a"
        columns = list(TABLES[table])
        if table == "u":
            text = self.select(["int"], Scope([]), 1, ["x1"])
            sql = f"SELECT coalesce(x1, 5), 100 + row_number() OVER (ORDER BY x1), 'new', 2, NULL FROM ({text}) s ORDER BY 1, 2"
        else:
            columns = columns[: 1 + self.c.below(len(columns))]
            sql = self.select([TABLES[table][c] for c in columns], Scope([]), 1, columns)
        return table, f"INSERT INTO {table} ({', '.join(columns)}) {sql}{self.returning(Scope([self.target(table)]))}"

    def upsert(self, _table):
        c = self.c
        table, target = c.one([("u", "(id, k)"), ("u", "(id, k)"), ("ref", "(id)")])
        columns = list(TABLES[table])
        key = (lambda n: [str(n), str(n)]) if table == "u" else (lambda n: [str(n)])
        rows = [key(n * 3) + [self.literal(TABLES[table][x]) for x in columns[len(key(0)):]] for n in range(1, 2 + c.count(3))]
        scope = Scope([self.target(table), Source("excluded", list(TABLES[table].items()))])
        value = "v" if table == "u" else "n"
        action = c.one(["NOTHING", f"UPDATE SET t = excluded.t, {value} = {table}.{value} + 1",
                        f"UPDATE SET t = {self.simple(scope, 'text')} WHERE {self.comparison(scope, 'int', 0)}"])
        return table, (f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join('(' + ', '.join(r) + ')' for r in rows)} "
                f"ON CONFLICT {target} DO {action}{self.returning(Scope([self.target(table)]))}")
