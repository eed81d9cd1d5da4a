"""Random UPDATE, DELETE, INSERT … SELECT and upserts, each followed by a look at the table."""

from .choices import Scope, Source
from .queries import Queries
from .tables import KEYS, TABLES


class Statements(Queries):
    def transaction(self):
        """Statements for one transaction: writes, and the tables they changed."""
        statements = []
        for _ in range(1 + self.c.count(2, 30)):
            table = self.c.one(["a", "b", "u", "c", "r", "l", "ref", "loc", "a", "b", "u", "m"])
            write = self.c.one([self.update, self.update, self.delete, self.insert, self.insert_select, self.upsert])
            table, sql = write(table)
            statements += [sql, f"SELECT * FROM {table}"]
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
        columns = [name for name in TABLES[table] if name != KEYS[table] and (table, name) != ("u", "k")]
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
                        f"UPDATE SET t = {self.simple(scope, 'text')} WHERE {self.condition(scope, 0)}"])
        return table, (f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join('(' + ', '.join(r) + ')' for r in rows)} "
                f"ON CONFLICT {target} DO {action}{self.returning(Scope([self.target(table)]))}")
