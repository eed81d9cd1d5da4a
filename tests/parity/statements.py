"""Random statements over the tables of generated/. Every decision is drawn from a Choices, whose zeros mean the
simplest form: a failing statement is made smaller by dropping and zeroing its choices (generate.py)."""

import random
import re
from dataclasses import dataclass, field

TABLES = {
    "a": dict(id="int", n="int", t="text", d="date", e="mood", arr="int[]", num="numeric", f="float8", ok="bool"),
    "b": dict(id="int", k="int", t="text", d="date", e="mood", v="int", num="numeric", at="timestamp"),
    "u": dict(id="int", k="int", t="text", v="int", d="date"),
    "c": dict(code="text", id="int", n="int", v="bigint", d="date", f="float8", doc="jsonb"),
    "r": dict(d="date", id="int", t="text", num="numeric", ok="bool"),
    "l": dict(t="text", id="int", v="int", e="mood"),
    "ref": dict(id="int", t="text", e="mood", n="int"),
    "loc": dict(id="int", t="text", n="int", d="date"),
    "empty": dict(id="int", n="int", t="text"),
    "busy": dict(id="int", n="int", t="text"),
    "pairs": dict(id="int", k="int", t="text", d="date"),
}
KEYS = dict(a="id", b="id", u="id", c="code", r="d", l="t", ref="id", loc="id", empty="id", busy="id", pairs="id")
OFTEN = ["a", "b", "a", "u", "c", "r", "l", "ref", "loc", "busy", "pairs", "empty", "a", "a", "b", "b", "c", "ref", "a", "b", "a", "b", "c",
         "u", "r", "l", "ref", "loc"]
TYPES = ["int", "text", "date", "numeric", "mood", "bool", "float8", "bigint", "int[]", "timestamp", "jsonb"]
LITERALS = {
    "int": ["1", "0", "2", "3", "5", "7", "11", "-1", "NULL"],
    "bigint": ["2::bigint", "7000000049", "0::bigint"],
    "text": ["'a'", "'ab'", "'b'", "'x'", "''", "'zz'", "NULL"],
    "date": ["date '2024-01-03'", "date '2024-01-05'", "date '2024-01-10'", "date '2023-12-31'", "NULL"],
    "numeric": ["1.50", "0.25", "10.00", "4.00"],
    "float8": ["1.5::float8", "0::float8", "2.25::float8"],
    "mood": ["'ok'", "'sad'", "'glad'"],
    "bool": ["true", "false", "NULL"],
    "int[]": ["'{1,2}'::int[]", "'{}'::int[]", "ARRAY[3, NULL, 7]"],
    "timestamp": ["timestamp '2024-01-03 07:00'", "timestamp '2024-01-02 10:00'"],
    "jsonb": ["""'{"n": 1}'::jsonb""", "'{}'::jsonb"],
}
CONDITIONS = ["int", "int", "int", "text", "text", "date", "mood", "numeric", "bigint", "timestamp", "float8"]
PATTERNS = ["'a%'", "'%b%'", "'_'"]


class Choices:
    """Decisions: random ones, or given ones and zeros behind them."""

    def __init__(self, seed=None, given=None):
        self.random, self.given, self.made = random.Random(seed) if given is None else None, given, []

    def below(self, n):
        if self.random:
            value = self.random.randrange(n)
        else:
            value = self.given[len(self.made)] % n if len(self.made) < len(self.given) else 0
        self.made.append(value)
        return value

    def chance(self, percent):
        return self.below(100) >= 100 - percent

    def one(self, items):
        return items[self.below(len(items))]

    def count(self, most, percent=50):
        n = 0
        while n < most and self.chance(percent):
            n += 1
        return n


@dataclass
class Source:
    """Something in FROM: its name and columns; keys are columns that are distribution columns."""

    name: str
    columns: list  # (name, type)
    key: str | None = None


@dataclass
class Scope:
    sources: list
    outer: "Scope | None" = None
    ctes: list = field(default_factory=list)  # Sources that FROM may name

    def columns(self, wanted=None):
        return [(f"{s.name}.{c}" if s.name else c) for s in self.sources for c, t in s.columns if wanted in (None, t)]


class Generator:
    def __init__(self, choices):
        self.c, self.aliases, self.parameters, self.prepared = choices, 0, [], False
        self.limited = 0

    def alias(self, prefix="s"):
        self.aliases += 1
        return f"{prefix}{self.aliases}"

    # -- expressions

    def literal(self, kind):
        text = self.c.one(LITERALS[kind])
        if text == "NULL" and not self.c.chance(30):
            text = LITERALS[kind][0]
        if kind == "mood":
            text += "::mood"
        if text == "NULL":
            text += f"::{kind}"
        if self.prepared and self.c.chance(60):
            self.parameters.append((kind, text))
            return f"${len(self.parameters)}"
        return text

    def column(self, scope, kind, outer=15):
        """A column of that type, now and then of a query around; None: there is none."""
        found = scope.columns(kind)
        if scope.outer and self.c.chance(outer):
            far = self.column(scope.outer, kind, outer)
            if far:
                return far
        return self.c.one(found) if found else None

    def simple(self, scope, kind):
        column = self.column(scope, kind)
        if column is None or self.c.chance(6):
            return self.literal(kind)
        return column

    def expr(self, scope, kind, depth=2):
        c, sub = self.c, lambda k: self.expr(scope, k, depth - 1)
        if depth <= 0 or not c.chance(35):
            return self.simple(scope, kind)
        general = [
            lambda: f"coalesce({sub(kind)}, {self.literal(kind)})",
            lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {sub(kind)} ELSE {sub(kind)} END",
            lambda: f"nullif({sub(kind)}, {self.literal(kind)})",
            lambda: f"greatest({sub(kind)}, {sub(kind)})",
        ]
        own = {
            "int": [
                lambda: f"({sub('int')} + {sub('int')})", lambda: f"{sub('int')} * 2", lambda: f"length({sub('text')})",
                lambda: f"abs({sub('int')})", lambda: f"twice({sub('int')})", lambda: f"cardinality({sub('int[]')})",
                lambda: f"extract(day FROM {sub('date')})::int", lambda: f"{sub('bool')}::int",
                lambda: f"({sub('date')} - {sub('date')})", lambda: f"({sub('int[]')})[1]",
                lambda: self.scalar(scope, "int"),
            ],
            "bigint": [lambda: f"{sub('int')}::bigint", lambda: self.scalar(scope, "bigint")],
            "text": [
                lambda: f"upper({sub('text')})", lambda: f"({sub('text')} || {sub('text')})", lambda: f"{sub('int')}::text",
                lambda: f"substr({sub('text')}, 1, 1)", lambda: f"{sub('mood')}::text", lambda: f"{sub('date')}::text",
                lambda: f"concat({sub('text')}, {sub('int')})", lambda: f"to_char({sub('date')}, 'Mon DD')",
                lambda: self.scalar(scope, "text"), lambda: f"({sub('jsonb')} ->> 't')",
            ],
            "date": [lambda: f"({sub('date')} + {sub('int')})", lambda: f"{sub('timestamp')}::date", lambda: self.scalar(scope, "date")],
            "numeric": [lambda: f"({sub('numeric')} + {sub('int')})", lambda: f"round({sub('numeric')}, 2)", lambda: self.scalar(scope, "numeric")],
            "bool": [lambda: f"({self.condition(scope, depth - 1)})"],
            "int[]": [lambda: f"ARRAY[{sub('int')}, {sub('int')}]", lambda: f"({sub('int[]')} || {sub('int')})", lambda: self.array(scope)],
            "timestamp": [lambda: f"({sub('date')} + interval '1 hour')"],
            "float8": [lambda: f"({sub('float8')} * 2)", lambda: f"{sub('int')}::float8"],
            "jsonb": [lambda: f"jsonb_build_object('x', {sub('int')})"],
        }.get(kind, [])
        return c.one(general + own)()

    def scalar(self, scope, kind):
        """A subquery of one row."""
        inner = self.from_clause(Scope([], scope, scope.ctes), 1)
        value = self.simple(inner[1], kind)
        if kind in ("int", "bigint") and self.c.chance(40):
            value = self.c.one([f"count(*)::{kind}", f"count({value})::{kind}", f"sum({value})::{kind}"])
        elif kind == "bool":
            value = f"bool_or({value})"
        else:
            value = f"{self.c.one(['max', 'min'])}({value})"
        return f"(SELECT {value} FROM {inner[0]}{self.where(inner[1], 70)})"

    def array(self, scope):
        source, inner = self.from_clause(Scope([], scope, scope.ctes), 0)
        value = self.simple(inner, "int")
        return f"ARRAY(SELECT {value} FROM {source}{self.where(inner, 70)} ORDER BY 1)"

    def comparison(self, scope, kind, depth):
        op = self.c.one(["=", "=", "<", ">", "<=", ">=", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
        return f"{self.simple(scope, kind)} {op} {self.expr(scope, kind, depth)}"

    def condition(self, scope, depth=2):
        c = self.c
        kind = c.one([k for k in CONDITIONS if scope.columns(k)] or ["int"])
        value = lambda: self.simple(scope, kind)  # noqa: E731
        deep = [
            lambda: f"({self.condition(scope, depth - 1)} OR {self.condition(scope, depth - 1)})",
            lambda: f"({self.condition(scope, depth - 1)} AND {self.condition(scope, depth - 1)})",
            lambda: f"NOT ({self.condition(scope, depth - 1)})",
            lambda: self.exists(scope), lambda: self.exists(scope), lambda: self.membership(scope, kind),
            lambda: self.membership(scope, kind), lambda: f"{value()} = {self.scalar(scope, kind)}" if kind in ("int", "text", "date") else self.exists(scope),
        ]
        flat = [
            lambda: self.routing(scope), lambda: self.comparison(scope, kind, depth), lambda: self.comparison(scope, kind, depth),
            lambda: f"{value()} IS NULL", lambda: f"{value()} IS NOT NULL",
            lambda: f"{value()} IN ({', '.join(self.literal(kind) for _ in range(1 + c.count(3)))})",
            lambda: f"{value()} NOT IN ({', '.join(self.literal(kind) for _ in range(1 + c.count(2)))})",
            lambda: f"{value()} BETWEEN {self.literal(kind)} AND {self.literal(kind)}",
            lambda: f"{self.simple(scope, 'text')} LIKE {c.one(PATTERNS)}",
            lambda: f"{self.simple(scope, 'int')} = ANY ({self.simple(scope, 'int[]')})",
            lambda: f"({self.column(scope, 'bool') or self.routing(scope)}) IS NOT TRUE",
            lambda: f"({self.simple(scope, 'int')}, {self.simple(scope, 'text')}) = ({self.simple(scope, 'int')}, {self.simple(scope, 'text')})",
            lambda: f"({self.simple(scope, 'int')}, {self.simple(scope, 'int')}) < ({self.simple(scope, 'int')}, {self.literal('int')})",
        ]
        return c.one(flat + deep if depth > 0 else flat)()

    def routing(self, scope):
        """A condition on a distribution column."""
        keys = [(s, s.key, dict(s.columns)[s.key]) for s in scope.sources if s.key]
        if not keys:
            return self.comparison(scope, "int", 0)
        source, key, kind = self.c.one(keys)
        name, lit = f"{source.name}.{key}", lambda: self.literal(kind)
        return self.c.one([
            lambda: f"{name} = {lit()}", lambda: f"{name} = {lit()}", lambda: f"{name} IN ({lit()}, {lit()})",
            lambda: f"({name} = {lit()} OR {name} = {lit()})", lambda: f"{name} IS NULL",
            lambda: f"{name} > {lit()}", lambda: f"{name} >= {lit()} AND {name} < {lit()}",
            lambda: f"{name} = ANY (ARRAY[{lit()}, {lit()}])", lambda: f"({name} = {lit()} OR {name} IS NULL)",
            lambda: f"({name} = {lit()} AND {self.condition(scope, 0)} OR {name} = {lit()})",
            lambda: f"{name} = {self.expr(scope, kind, 1)}", lambda: f"{name} IS NOT NULL", lambda: f"{name} <> {lit()}",
        ])()

    def exists(self, scope):
        source, inner = self.from_clause(Scope([], scope, scope.ctes), 1)
        return f"{self.c.one(['', 'NOT '])}EXISTS (SELECT {self.c.one(['', '1', '*'])} FROM {source}{self.where(inner, 90)})"

    def membership(self, scope, kind):
        c = self.c
        sub = self.select([kind], scope, 1) if c.chance(40) else None
        if sub is None:
            source, inner = self.from_clause(Scope([], scope, scope.ctes), 1)
            sub = f"SELECT {self.simple(inner, kind)} FROM {source}{self.where(inner, 60)}"
        return f"{self.simple(scope, kind)} {c.one(['IN', 'NOT IN', '= ANY', '<> ALL', '> ALL', '< ANY'])} ({sub})"

    def where(self, scope, percent=60):
        if not self.c.chance(percent):
            return ""
        conditions = []
        if scope.outer and self.c.chance(70):  # correlate
            kind = self.c.one(["int", "text", "date"])
            far = self.column(scope.outer, kind, 20)
            if far:
                conditions.append(f"{self.column(scope, kind, 0) or self.literal(kind)} = {far}")
        if scope.outer and self.c.chance(25):  # on the keys, of two tables around even
            conditions += self.same_keys(scope.outer.sources, scope.sources)
        if not conditions or self.c.chance(30):
            conditions += [self.condition(scope, 1) for _ in range(1 + self.c.count(2, 25))]
        return " WHERE " + " AND ".join(conditions)

    def same_keys(self, around, inside):
        """Equalities of keys between sources around and one inside."""
        inner = [s for s in inside if s.key]
        if not inner:
            return []
        one = self.c.one(inner)
        kind = dict(one.columns)[one.key]
        far = [s for s in around if s.key and dict(s.columns)[s.key] == kind]
        return [f"{s.name}.{s.key} = {one.name}.{one.key}" for s in far[-2:]]

    # -- FROM

    def source(self, scope, depth, lateral):
        """A text and its Source."""
        c = self.c
        which = c.below(100)
        if which < 76 or depth <= 0:
            if scope.ctes and c.chance(30):
                cte, name = c.one(scope.ctes), self.alias()
                return f"{cte.name} {name}", Source(name, cte.columns, cte.key)
            table, name = c.one(OFTEN), self.alias()
            return f"{table} {name}", Source(name, list(TABLES[table].items()), KEYS[table])
        name = self.alias()
        if which < 94:
            kinds = ["int"] + [None] * c.count(3)
            inside = lateral if lateral and c.chance(50) else None
            names = [f"x{i}" for i in range(1, len(kinds) + 1)]
            sql = self.select(kinds, inside or Scope([], scope.outer, scope.ctes), depth - 1, names)
            word = "LATERAL " if inside else ""
            return f"{word}({sql}) {name}", Source(name, list(zip(names, kinds)), "x1")
        if which < 97:
            rows = ", ".join(f"({self.literal('int')}, {c.one(LITERALS['text'][:-1])})" for _ in range(1 + c.count(3)))
            return f"(VALUES {rows}) {name} (x1, x2)", Source(name, [("x1", "int"), ("x2", "text")])
        return f"generate_series(1, {1 + c.below(4)}) {name} (x1)", Source(name, [("x1", "int")])

    def join_condition(self, left, right, scope):
        """On the keys, on other columns, and something more now and then."""
        c = self.c
        both = [t for t in ("int", "text", "date") if any(t in dict(s.columns).values() for s in left) and t in dict(right.columns).values()]
        mine = dict(right.columns)
        conditions = []
        tied = [s for s in left if s.key and right.key and dict(s.columns)[s.key] == mine[right.key]]
        if tied and c.chance(70):
            conditions.append((lambda s: f"{s.name}.{s.key} = {right.name}.{right.key}")(c.one(tied)))
            if len(tied) > 1 and c.chance(30):
                conditions = self.same_keys(tied, [right])
        elif both:
            kind = c.one(both)
            conditions.append(f"{c.one(Scope(left).columns(kind))} = {c.one(Scope([right]).columns(kind))}")
        if not conditions or c.chance(25):
            conditions.append(self.condition(Scope(left + [right], scope.outer, scope.ctes), c.one([0, 0, 1])))
        return " AND ".join(conditions)

    def from_clause(self, scope, depth, most=1):
        """FROM's text, and the scope of what is inside."""
        c = self.c
        text, first = self.source(scope, depth, None)
        sources, merged, plain = [first], None, first.columns and "id" in dict(first.columns)
        for _ in range(c.count(most, 55)):
            kind = c.one(["JOIN", "LEFT JOIN", "JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT JOIN"])
            inner = kind in ("JOIN", "LEFT JOIN")
            here = Scope(sources, scope.outer, scope.ctes)
            right, source = self.source(scope, depth, here if inner else None)
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

    def pair(self, left, right):
        kinds = [t for t in ("int", "text", "date") if Scope(left).columns(t) and Scope([right]).columns(t)]
        if not kinds:
            return "true", "true"
        kind = self.c.one(kinds)
        return self.c.one(Scope(left).columns(kind)), self.c.one(Scope([right]).columns(kind))

    # -- SELECT

    def aggregate(self, scope, kind):
        c = self.c
        value = lambda k: self.expr(scope, k, 1)  # noqa: E731
        distinct = "DISTINCT " if c.chance(20) else ""
        options = {
            "bigint": [lambda: "count(*)", lambda: f"count({distinct}{value(c.one(TYPES[:6]))})", lambda: f"sum({distinct}{value('int')})"],
            "int": [lambda: f"max({value('int')})", lambda: f"min({value('int')})", lambda: f"bit_or({value('int')})",
                    lambda: f"bit_and({distinct}{value('int')})", lambda: f"count({distinct}{value('text')})::int",
                    lambda: f"sum({value('int')})::int", lambda: f"mode() WITHIN GROUP (ORDER BY {value('int')})",
                    lambda: f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {value('int')})"],
            "numeric": [lambda: f"sum({distinct}{value('numeric')})", lambda: f"avg({distinct}{value('int')})",
                        lambda: f"round(avg({value('numeric')}), 4)", lambda: f"sum({value('bigint')})",
                        lambda: f"round(stddev({value('int')}), 6)", lambda: f"round(var_pop({distinct}{value('numeric')}), 6)"],
            "float8": [lambda: f"sum({distinct}{value('float8')})", lambda: f"avg({value('float8')})", lambda: f"var_samp({value('float8')})",
                       lambda: f"regr_count({value('float8')}, {value('float8')})::float8",
                       lambda: f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {value('int')})"],
            "text": [lambda: f"max({value('text')})", lambda: self.ordered("string_agg({0}, ',' ORDER BY {0})", "text", scope),
                     lambda: f"string_agg(DISTINCT {value('text')}, ',')", lambda: f"longest({value('text')})",
                     lambda: self.ordered("json_agg({0} ORDER BY {0})::text", "int", scope), lambda: f"min({value('mood')})::text"],
            "date": [lambda: f"max({value('date')})", lambda: f"min({value('date')})"],
            "mood": [lambda: f"max({value('mood')})", lambda: f"min({value('mood')})"],
            "bool": [lambda: f"bool_and({value('bool')})", lambda: f"bool_or({value('bool')})", lambda: f"every({self.condition(scope, 0)})"],
            "int[]": [lambda: self.ordered("array_agg({0} ORDER BY {0})", "int", scope), lambda: f"array_agg(DISTINCT {value('int')})",
                      lambda: self.ordered("array_agg({0} ORDER BY {0} DESC)", "int", scope)],
            "timestamp": [lambda: f"max({value('timestamp')})"],
            "jsonb": [lambda: self.ordered("jsonb_agg({0} ORDER BY {0})", "text", scope)],
        }
        text = c.one(options[kind])()
        if c.chance(20):
            cut = text.index("::") if "::" in text and not text.startswith("round") and text.rindex(")") < text.rindex("::") else None
            filtered = f" FILTER (WHERE {self.condition(scope, 0)})"
            if cut is None and not text.startswith("round"):
                text += filtered
        return text

    def ordered(self, form, kind, scope):
        return form.format(self.simple(scope, kind))

    def window(self, scope, kind, named):
        c = self.c
        by = self.c.one(["PARTITION BY " + self.simple(scope, c.one(["int", "text", "date"])), ""])
        order = self.simple(scope, c.one(["int", "date", "text"]))
        over = f"({by} ORDER BY {order}{c.one(['', ' DESC', ' NULLS FIRST'])})".replace("( ", "(")
        if named:
            over = named
        value = lambda k: self.simple(scope, k)  # noqa: E731
        return c.one({
            "bigint": [f"count(*) OVER {over}", f"rank() OVER {over}", f"sum({value('int')}) OVER {over}", f"dense_rank() OVER {over}",
                       f"count({value('text')}) FILTER (WHERE {value('int')} > 2) OVER {over}"],
            "int": [f"max({value('int')}) OVER {over}", f"min({value('int')}) OVER {over}"],
            "text": [f"max({value('text')}) OVER {over}"], "numeric": [f"avg({value('int')}) OVER {over}", f"sum({value('numeric')}) OVER {over}"],
            "float8": [f"percent_rank() OVER {over}", f"cume_dist() OVER {over}"], "date": [f"min({value('date')}) OVER {over}"],
        }[kind])

    def select(self, kinds, around, depth, names=None, top=False):
        """A SELECT with columns of these types (None: any, put in its place). `around` is what it may name: outer columns and CTEs."""
        c = self.c
        if depth > 0 and c.chance(10):
            return self.set_operation(kinds, around, depth, names, top)
        outer = around if around.sources else around.outer
        text, scope = self.from_clause(Scope([], outer, around.ctes), depth, 3 if top else 2 if depth > 0 else 1)
        found = [t for source in scope.sources for _, t in source.columns]
        kinds[:] = [kind or c.one(found) for kind in kinds]
        where = self.where(scope)
        form = c.below(10)
        tail, having = "", ""
        if form < 5:
            columns = [self.expr(scope, kind) for kind in kinds]
            if depth > 0 and c.chance(12) and any(k in ("bigint", "int", "text", "numeric", "float8", "date") for k in kinds):
                named = "w" if c.chance(30) else None
                at = c.one([i for i, k in enumerate(kinds) if k in ("bigint", "int", "text", "numeric", "float8", "date")])
                columns[at] = self.window(scope, kinds[at], named)
                if named:
                    tail = f" WINDOW w AS (PARTITION BY {self.simple(scope, 'int')} ORDER BY {self.simple(scope, 'text')})"
        elif form < 9:
            groups = [self.c.one(scope.columns()) for _ in range(c.count(2, 60))]
            keyed = [s for s in scope.sources if s.key and s.name]
            if keyed and c.chance(40):
                s = c.one(keyed)
                groups.append(f"{s.name}.{s.key}")
            groups = list(dict.fromkeys(groups))
            types = {(f"{s.name}.{n}" if s.name else n): t for s in scope.sources for n, t in s.columns}
            columns = []
            for kind in kinds:
                fitting = [g for g in groups if types[g] == kind]
                columns.append(c.one(fitting) if fitting and c.chance(60) else self.aggregate(scope, kind))
            if groups:
                form = c.one(["{}", "{}", "{}", "{}", "ROLLUP ({})", "CUBE ({})", "GROUPING SETS (({}), ())"])
                tail = " GROUP BY " + form.format(", ".join(groups))
            elif not any("(" in col for col in columns):
                columns = [self.aggregate(scope, kind) for kind in kinds]
            if c.chance(25):
                having = " HAVING " + self.having(scope)
        else:
            columns = [self.expr(scope, kind, 1) for kind in kinds]
        names = names or [f"c{i}" for i in range(1, len(kinds) + 1)]
        listed = ", ".join(f"{col} AS {name}" for col, name in zip(columns, names))
        distinct, order = "", self.order(kinds)
        end = ""
        if form == 9:
            if c.chance(50):
                distinct = "DISTINCT "
            else:
                distinct = "DISTINCT "
                if re.fullmatch(r"\w+\.\w+", columns[0]):
                    distinct, end = f"DISTINCT ON ({columns[0]}) ", " ORDER BY 1, " + order[0]
        if not end:
            end = self.limit(order, 60 if top else 20, 40 if top else 100)
        return f"SELECT {distinct}{listed} FROM {text}{where}{tail}{having}{end}"

    def having(self, scope):
        c = self.c
        return c.one([
            lambda: f"count(*) > {c.below(4)}", lambda: f"max({self.simple(scope, 'int')}) > {self.literal('int')}",
            lambda: f"count({self.simple(scope, 'text')}) >= {c.below(3)} AND min({self.simple(scope, 'int')}) < 9",
            lambda: f"sum({self.simple(scope, 'int')}) > {self.scalar(Scope([], scope.outer, scope.ctes), 'int')}",
        ])()

    def order(self, kinds):
        """All columns by position, so that the order leaves nothing to chance; and whether that is so."""
        positions = list(range(1, len(kinds) + 1))
        for i in range(len(positions) - 1):
            j = i + self.c.below(len(positions) - i)
            positions[i], positions[j] = positions[j], positions[i]
        return ", ".join(f"{p}{self.c.one(['', '', ' DESC', ' NULLS FIRST', ' DESC NULLS LAST'])}" for p in positions), positions

    def limit(self, order, percent, limit_percent):
        c = self.c
        if not c.chance(percent):
            return ""
        end = " ORDER BY " + order[0]
        if c.chance(limit_percent):
            end += c.one([f" LIMIT {1 + c.below(8)}", f" LIMIT {1 + c.below(5)} OFFSET {c.below(6)}", f" OFFSET {c.below(5)}",
                          f" FETCH FIRST {1 + c.below(4)} ROWS WITH TIES", f" LIMIT {10 + c.below(10)}"])
        return end

    def set_operation(self, kinds, around, depth, names, top):
        word = self.c.one(["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"])
        arms = [self.select(kinds, around, depth - 1, names) for _ in range(2 + self.c.count(1, 20))]
        text = f" {word} ".join(f"({arm})" for arm in arms)
        return text + self.limit(self.order(kinds), 60 if top else 20, 50)

    def query(self):
        """A top-level SELECT: text, and whether its order is determined."""
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
            recursive, name = "RECURSIVE ", self.alias("q")
            t = c.one(["a", "b", "c", "ref", "loc"])
            column = dict(a="n", b="k", c="n", ref="n", loc="n")[t]
            ctes.append(f"{name} (x1) AS (SELECT min(id) + 1 FROM {c.one(['a', 'b', 'loc'])} UNION SELECT {t}.{column} FROM {t} JOIN {name} ON {t}.id = {name}.x1)")
            scope.ctes.append(Source(name, [("x1", "int")], "x1"))
        kinds = [c.one(TYPES) if c.chance(15) else None for _ in range(1 + c.count(4, 55))]
        body = self.select(kinds, scope, 2, top=True)
        return (f"WITH {recursive}{', '.join(ctes)} " if ctes else "") + body
