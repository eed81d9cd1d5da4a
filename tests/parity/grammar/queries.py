"""Random SELECTs: FROM, joins, grouping, windows, set operations, common table expressions, locks."""

import re

from .aggregates import WINDOWED, Aggregates
from .choices import Scope, Source
from .tables import KEYS, LITERALS, OFTEN, TABLES, TYPES, VIEWS


class Queries(Aggregates):
    # -- FROM

    def table(self, table, name):
        return Source(name, list(TABLES[table].items()), KEYS[table], True)

    def source(self, scope, depth, lateral):
        """A text and its Source."""
        c = self.c
        which = c.below(100)
        if which < 74 or depth <= 0:
            if scope.ctes and c.chance(30):
                cte, name = c.one(scope.ctes), self.alias()
                return f"{cte.name} {name}", Source(name, cte.columns, cte.key)
            table, name = c.one(OFTEN), self.alias()
            sample = " TABLESAMPLE SYSTEM (100)" if c.chance(1) and table not in VIEWS else ""
            return f"{table} {name}{sample}", self.table(table, name)
        name = self.alias()
        if which < 92:
            kinds = ["int"] + [None] * c.count(3)
            inside = lateral if lateral and c.chance(50) else None
            names = [f"x{i}" for i in range(1, len(kinds) + 1)]
            sql = self.select(kinds, inside or Scope([], scope.outer, scope.ctes), depth - 1, names)
            if c.chance(4):
                sql = self.with_inside(sql, kinds, scope)
            word = "LATERAL " if inside else ""
            return f"{word}({sql}) {name}", Source(name, list(zip(names, kinds)), "x1")
        if which < 95:
            rows = ", ".join(f"({self.literal('int')}, {c.one(LITERALS['text'][:-1])})" for _ in range(1 + c.count(3)))
            return f"(VALUES {rows}) {name} (x1, x2)", Source(name, [("x1", "int"), ("x2", "text")])
        inside = lateral or Scope([])
        if which < 97:
            most = self.simple(inside, "int") if c.chance(50) else str(1 + c.below(4))
            return f"generate_series(1, {most}) {name} (x1)", Source(name, [("x1", "int")])
        if which < 98:
            return f"unnest({self.simple(inside, 'int[]')}) WITH ORDINALITY {name} (x1, x2)", Source(name, [("x1", "int"), ("x2", "bigint")])
        if which < 99:
            return f"rows_of({self.simple(inside, 'int')}) {name}", self.table("b", name)
        return f"evens({self.simple(inside, 'int')}) {name} (x1)", Source(name, [("x1", "int")])

    def with_inside(self, sql, kinds, scope):
        """A subquery with a WITH clause of its own, that a second arm reads."""
        name = self.alias("q")
        return f"WITH {name} AS ({sql}) SELECT * FROM {name}" + self.c.one(["", f" UNION ALL SELECT * FROM {name}", f" EXCEPT SELECT * FROM {name} WHERE x1 > 3"])

    def join_condition(self, left, right, scope):
        """On the keys, on other columns, and something more now and then."""
        c = self.c
        both = [t for t in ("int", "text", "date", "mood") if any(t in dict(s.columns).values() for s in left) and t in dict(right.columns).values()]
        mine = dict(right.columns)
        conditions = []
        tied = [s for s in left if s.key and right.key and dict(s.columns)[s.key] == mine[right.key]]
        if tied and c.chance(70):
            conditions.append((lambda s: f"{s.name}.{s.key} = {right.name}.{right.key}")(c.one(tied)))
            if len(tied) > 1 and c.chance(30):
                conditions = self.same_keys(tied, [right])
        elif both:
            kind = c.one(both)
            conditions.append(f"{self.compared(kind, c.one(Scope(left).columns(kind)))} = {self.compared(kind, c.one(Scope([right]).columns(kind)))}")
        if not conditions or c.chance(25):
            conditions.append(self.condition(Scope(left + [right], scope.outer, scope.ctes), c.one([0, 0, 1])))
        return " AND ".join(conditions)

    def compared(self, kind, column):
        """A column, or now and then something computed of it, for an equality in a join."""
        c = self.c
        forms = {
            "int": ["{} + 1", "{} % 5", "coalesce({}, 2)", "{}::bigint", "-{}", "twice({})", "nullif({}, 3)"],
            "text": ["upper({})", "{} || ''", "coalesce({}, 'a')", "{}::varchar", "substr({}, 1, 1)"],
            "date": ["{} + 1", "date_trunc('week', {})::date", "coalesce({}, date '2024-01-03')"],
        }.get(kind)
        return c.one(forms).format(column) if forms and c.chance(12) else column

    def from_clause(self, scope, depth, most=1):
        """FROM's text, and the scope of what is inside."""
        c = self.c
        text, first = self.source(scope, depth, None)
        sources, merged, plain = [first], None, first.columns and "id" in dict(first.columns)
        for _ in range(c.count(most, 55)):
            kind = c.one(["JOIN", "LEFT JOIN", "JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN", "JOIN", "LEFT JOIN", "CROSS JOIN"])
            if kind == "CROSS JOIN":
                kind, self.crossed = ("JOIN" if self.crossed else kind), True
            inner = kind in ("JOIN", "LEFT JOIN", "CROSS JOIN")
            here = Scope(sources, scope.outer, scope.ctes)
            if kind != "CROSS JOIN" and c.chance(8):  # a join on the right side
                right, inside = self.from_clause(Scope([], scope.outer, scope.ctes), 0, 1)
                named = [s for s in inside.sources if s.name]
                on = self.join_condition(sources, named[0], scope) if kind != "FULL JOIN" else " = ".join(self.pair(sources, named[0]))
                left = f"({text})" if len(sources) > 1 else text
                right = f"({right})" if len(inside.sources) > 1 else right
                text, plain = f"{left} {kind} {right} ON {on}", False
                sources = sources + named
                continue
            right, source = self.source(scope, depth, here if inner else None)
            if kind == "CROSS JOIN":
                text, plain = f"{text} CROSS JOIN {right}", False
                sources = sources + [source]
                continue
            if plain and "id" in dict(source.columns) and c.chance(40):
                text, merged = f"{text} {kind} {right} USING (id)", True
                sources = sources + [source]
                continue
            plain = False
            if kind == "FULL JOIN":
                on = " AND ".join(f"{x} = {y}" for x, y in [self.pair(sources, source)])
            else:
                on = self.join_condition(sources, source, scope)
            text = f"{text} {kind} {right} ON {on}"
            sources = sources + [source]
        if merged and plain:
            sources = sources + [Source("", [("id", "int")])]
        return text, Scope(sources, scope.outer, scope.ctes)

    def comma_list(self, scope, depth):
        """FROM's text with commas: the conditions stand in WHERE."""
        parts, sources, conditions = [], [], []
        for number in range(2 + self.c.count(2, 45)):
            text, source = self.source(scope, depth, Scope(sources, scope.outer, scope.ctes) if number else None)
            if sources and (self.crossed or self.c.chance(95)):
                conditions.append(self.join_condition(sources, source, scope))
            elif sources:
                self.crossed = True
            parts.append(text)
            sources = sources + [source]
        return ", ".join(parts), Scope(sources, scope.outer, scope.ctes), conditions

    def pair(self, left, right):
        kinds = [t for t in ("int", "text", "date") if Scope(left).columns(t) and Scope([right]).columns(t)]
        if not kinds:
            return "true", "true"
        kind = self.c.one(kinds)
        return self.compared(kind, self.c.one(Scope(left).columns(kind))), self.compared(kind, self.c.one(Scope([right]).columns(kind)))

    # -- SELECT

    def select(self, kinds, around, depth, names=None, top=False, limit=None):
        """A SELECT with columns of these types (None: any, put in its place). `around` is what it may name: outer columns and CTEs."""
        c = self.c
        if depth > 0 and not limit and c.chance(10):
            return self.set_operation(kinds, around, depth, names, top)
        outer = around if around.sources else around.outer
        where = None
        if c.chance(12):
            text, scope, conditions = self.comma_list(Scope([], outer, around.ctes), depth)
            where = self.where(scope, 30)
            where = (where + "".join(f" AND {x}" for x in conditions) if where else " WHERE " + " AND ".join(conditions)) if conditions else where
        else:
            text, scope = self.from_clause(Scope([], outer, around.ctes), depth, 3 if top else 2 if depth > 0 else 1)
        found = [t for source in scope.sources for _, t in source.columns]
        kinds[:] = [kind or c.one(found) for kind in kinds]
        if where is None:
            where = self.where(scope)
        form = c.below(10)
        tail, having = "", ""
        if form < 5:
            columns = [self.expr(scope, kind) for kind in kinds]
            if depth > 0 and c.chance(15):
                columns, tail = self.windowed(columns, kinds, scope)
            elif c.chance(3) and "int" in kinds:
                columns[kinds.index("int")] = c.one([f"generate_series(1, {self.simple(scope, 'int')})", f"unnest({self.simple(scope, 'int[]')})"])
        elif form < 9:
            columns, tail, groups = self.grouped(kinds, scope, depth)
            if c.chance(25):
                having = " HAVING " + self.having(scope, groups)
        else:
            columns = [self.expr(scope, kind, 1) for kind in kinds]
        names = names or [f"c{i}" for i in range(1, len(kinds) + 1)]
        listed = ", ".join(f"{col} AS {name}" for col, name in zip(columns, names))
        distinct, order = "", self.order(kinds)
        end = ""
        if limit:
            end = f" ORDER BY {order} LIMIT 1"
        elif form == 9:
            distinct = "DISTINCT "
            if c.chance(50) and re.fullmatch(r"\w+\.\w+", columns[0]):
                distinct, end = f"DISTINCT ON ({columns[0]}) ", " ORDER BY 1, " + order
        elif form < 5 and "generate_series(" not in listed and "unnest(" not in listed and c.chance(8):
            order = f"{self.by(scope)}, {order}"
        if not end:
            end = self.limit(order, 60 if top else 20, 40 if top else 100)
        if top and form < 5 and not tail and "OVER" not in listed and c.chance(5):
            end += self.lock(scope)
        return f"SELECT {distinct}{listed} FROM {text}{where}{tail}{having}{end}"

    def windowed(self, columns, kinds, scope):
        """Some columns by window functions; and the WINDOW clause."""
        c = self.c
        fitting = [i for i, k in enumerate(kinds) if k in WINDOWED]
        if not fitting:
            return columns, ""
        over, total = self.over(scope)
        named = "w" if c.chance(30) else over
        for at in {c.one(fitting): 0 for _ in range(1 + c.count(1, 30))}:
            columns[at] = self.window(scope, kinds[at], named, total)
        return columns, f" WINDOW w AS ({over})" if named == "w" else ""

    def grouped(self, kinds, scope, depth):
        """Columns of a grouped query, GROUP BY, and the scope of what is grouped by."""
        c = self.c
        groups = [c.one(scope.columns()) for _ in range(c.count(2, 60))]
        types = {(f"{s.name}.{n}" if s.name else n): t for s in scope.sources for n, t in s.columns}
        keyed = [s for s in scope.sources if s.key and s.name]
        if keyed and c.chance(40):
            s = c.one(keyed)
            groups.append(f"{s.name}.{s.key}")
        if c.chance(12):  # an expression; the select list must repeat it to the letter
            kind = c.one(["int", "text", "date"])
            before = len(self.parameters)
            made = self.expr(scope, kind, 1)
            if len(self.parameters) == before and not re.fullmatch(r"[-\d]+|'[^']*'", made):
                groups.append(made)
                types[made] = kind
        groups = list(dict.fromkeys(groups))
        grouped = self.scope_of(groups, scope)
        columns, aggregated = [], False
        for kind in kinds:
            fitting = [g for g in groups if types[g] == kind]
            if fitting and c.chance(60):
                columns.append(c.one(fitting))
            elif grouped.sources and depth > 0 and c.chance(8):
                columns.append(self.scalar(grouped, kind))
            else:
                columns.append(self.aggregate(scope, kind))
                aggregated = True
        tail = ""
        if groups:
            # grouping sets of columns that may be equal confuse plain PostgreSQL: it sorts by one of them only
            simple = len({g.split(".")[0] for g in groups}) > 1 or not all(re.fullmatch(r"s\d+\.\w+", g) for g in groups)
            simple = simple or len(groups) > 1 and not all(s.whole for s in scope.sources if s.name == groups[0].split(".")[0])
            one = groups[c.below(len(groups))]
            form = c.one(["{}", "{}", "{}", "{}", "{}", "{}", "ROLLUP ({})", "CUBE ({})", "GROUPING SETS (({}), ())",
                          "GROUPING SETS (({}), (" + one.replace("{", "{{").replace("}", "}}") + "))", "DISTINCT ROLLUP ({})"][: 1 if simple else None])
            tail = " GROUP BY " + form.format(", ".join(groups))
            if form not in ("{}",) and kinds and "int" in kinds and c.chance(20):
                columns[kinds.index("int")] = f"grouping({groups[0]})"
        elif not aggregated:
            columns = [self.aggregate(scope, kind) for kind in kinds]
        if depth > 0 and "bigint" in kinds and c.chance(20):
            at = kinds.index("bigint")
            columns[at] = c.one(["rank() OVER (ORDER BY count(*))", "sum(count(*)) OVER ()::bigint", f"count(*) OVER (ORDER BY {self.aggregate(scope, 'int')})"])
        return columns, tail, grouped

    def scope_of(self, groups, scope):
        """What a subquery may name of the rows of a grouped query."""
        sources = []
        for s in scope.sources:
            columns = [(n, t) for n, t in s.columns if s.name and f"{s.name}.{n}" in groups]
            if columns:
                sources.append(Source(s.name, columns, s.key if s.key in dict(columns) else None))
        return Scope(sources, scope.outer, scope.ctes)

    def having(self, scope, grouped):
        c = self.c
        return c.one([
            lambda: self.exists(grouped) if grouped.sources else f"count(*) < {1 + c.below(9)}",
            lambda: f"sum({self.simple(scope, 'int')}) <= {self.scalar(grouped, 'int')}",
            lambda: f"count(*) > {c.below(4)}", lambda: f"max({self.simple(scope, 'int')}) > {self.literal('int')}",
            lambda: f"count({self.simple(scope, 'text')}) >= {c.below(3)} AND min({self.simple(scope, 'int')}) < 9",
            lambda: f"sum({self.simple(scope, 'int')}) > {self.scalar(Scope([], scope.outer, scope.ctes), 'int')}",
            lambda: f"count(DISTINCT {self.simple(scope, 'int')}) > 1 OR bool_or({self.condition(scope, 0)})",
        ])()

    def by(self, scope):
        """Something to order by that is no column of the result."""
        return self.c.one([lambda: self.expr(scope, self.c.one(["text", "date"]), 1), lambda: self.scalar(scope, "int"),
                           lambda: f"{self.scalar(scope, 'text')} DESC NULLS LAST", lambda: f"({self.condition(scope, 1)}) DESC"])()

    def order(self, kinds):
        """All columns by position, so that the order leaves nothing to chance."""
        positions = list(range(1, len(kinds) + 1))
        for i in range(len(positions) - 1):
            j = i + self.c.below(len(positions) - i)
            positions[i], positions[j] = positions[j], positions[i]
        return ", ".join(f"{p}{self.c.one(['', '', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST'])}" for p in positions)

    def limit(self, order, percent, limit_percent):
        c = self.c
        if not c.chance(percent):
            return ""
        end = " ORDER BY " + order
        if c.chance(limit_percent):
            end += c.one([f" LIMIT {1 + c.below(8)}", f" LIMIT {1 + c.below(5)} OFFSET {c.below(6)}", f" OFFSET {c.below(5)}",
                          f" FETCH FIRST {1 + c.below(4)} ROWS WITH TIES", f" LIMIT {10 + c.below(10)}", " LIMIT (SELECT count(*) / 9 FROM ref)", " LIMIT 0",
                          " LIMIT NULL OFFSET 2"])
        return end

    def lock(self, scope):
        named = [s.name for s in scope.sources if s.whole]
        which = f" OF {self.c.one(named)}" if named and self.c.chance(80) else ""
        return f" FOR {self.c.one(['UPDATE', 'SHARE', 'NO KEY UPDATE', 'KEY SHARE'])}{which}{self.c.one(['', '', ' NOWAIT', ' SKIP LOCKED'])}"

    def set_operation(self, kinds, around, depth, names, top):
        word = self.c.one(["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"])
        arms = [self.select(kinds, around, depth - 1, names) for _ in range(2 + self.c.count(1, 20))]
        text = f" {word} ".join(f"({arm})" for arm in arms)
        return text + self.limit(self.order(kinds), 60 if top else 20, 50)

    def recursive(self, scope):
        """A recursive common table expression that ends."""
        c, name = self.c, self.alias("q")
        scope.ctes.append(Source(name, [("x1", "int")], "x1"))
        t = c.one(["a", "b", "c", "ref", "loc", "u"])
        column = dict(a="n", b="k", c="n", ref="n", loc="n", u="v")[t]
        base = c.one([lambda: f"SELECT min(id) + 1 FROM {c.one(['a', 'b', 'loc'])}", lambda: f"SELECT id FROM {c.one(['a', 'u', 'ref'])} WHERE id < 4",
                      lambda: f"VALUES ({self.literal('int')})"])()
        return c.one([
            lambda: f"{name} (x1) AS ({base} UNION SELECT {t}.{column} FROM {t} JOIN {name} ON {t}.id = {name}.x1)",
            lambda: f"{name} (x1) AS ({base} UNION SELECT {t}.id FROM {t}, {name} WHERE {t}.{column} = {name}.x1)",
            lambda: f"{name} (x1) AS ({base} UNION ALL SELECT x1 + 1 FROM {name} WHERE x1 < 6 AND EXISTS (SELECT FROM {t} WHERE {t}.id = {name}.x1))",
            lambda: f"{name} (x1) AS ({base} UNION SELECT s.{column} FROM {name}, LATERAL (SELECT * FROM {t} WHERE {t}.id = {name}.x1) s)",
        ])()

    def query(self):
        """A top-level SELECT."""
        c = self.c
        scope, ctes = Scope([]), []
        for _ in range(c.count(2, 25)):
            kinds = ["int"] + [None] * c.count(3)
            name, names = self.alias("q"), [f"x{i}" for i in range(1, len(kinds) + 1)]
            sql = self.select(kinds, Scope([], None, list(scope.ctes)), 1, names)
            ctes.append(f"{name} AS {c.one(['', 'MATERIALIZED ', 'NOT MATERIALIZED '])}({sql})")
            scope.ctes.append(Source(name, list(zip(names, kinds)), "x1"))
        recursive = ""
        if c.chance(3):
            recursive = "RECURSIVE "
            ctes.append(self.recursive(scope))
        kinds = [c.one(TYPES) if c.chance(15) else None for _ in range(1 + c.count(4, 55))]
        body = self.select(kinds, scope, 2, top=True)
        return (f"WITH {recursive}{', '.join(ctes)} " if ctes else "") + body
