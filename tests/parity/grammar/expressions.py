"""Random expressions and conditions of a type over the columns of a scope."""

from .choices import Scope
from .tables import CONDITIONS, LITERALS, PATTERNS


class Expressions:
    def __init__(self, choices):
        self.c, self.aliases, self.parameters, self.prepared = choices, 0, [], False
        self.writing = False  # functions that read tables would see them at another time in RETURNING
        self.crossed = False  # there is a cross join already: another one would make too many rows

    def alias(self, prefix="s"):
        self.aliases += 1
        return f"{prefix}{self.aliases}"

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
            return f"${len(self.parameters)}::{kind}"
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

    def whole(self, scope):
        """The alias of something whose whole row has a type; None: there is none."""
        found = [s.name for s in scope.sources if s.whole and s.name]
        return self.c.one(found) if found else None

    def expr(self, scope, kind, depth=2):
        c, sub = self.c, lambda k: self.expr(scope, k, depth - 1)
        if depth <= 0 or not c.chance(35):
            return self.simple(scope, kind)
        general = [
            lambda: f"coalesce({sub(kind)}, {self.literal(kind)})",
            lambda: f"CASE WHEN {self.condition(scope, depth - 1)} THEN {sub(kind)} ELSE {sub(kind)} END",
            lambda: f"nullif({sub(kind)}, {self.literal(kind)})",
            lambda: f"greatest({sub(kind)}, {sub(kind)})",
            lambda: f"CASE {self.simple(scope, 'int')} WHEN {self.literal('int')} THEN {sub(kind)} WHEN {self.literal('int')} THEN {sub(kind)} END",
        ]
        own = {
            "int": [
                lambda: f"({sub('int')} + {sub('int')})", lambda: f"{sub('int')} * 2", lambda: f"length({sub('text')})",
                lambda: f"abs({sub('int')})", lambda: f"twice({sub('int')})", lambda: f"cardinality({sub('int[]')})",
                lambda: f"extract(day FROM {sub('date')})::int", lambda: f"{sub('bool')}::int",
                lambda: f"({sub('date')} - {sub('date')})", lambda: f"({sub('int[]')})[1]",
                lambda: self.scalar(scope, "int"), lambda: f"lower({sub('int4range')})", lambda: f"({sub('spot')}).x",
                lambda: f"same({sub('int')})", lambda: f"{'twice' if self.writing else 'how_many'}({sub('int')})", lambda: f"({sub('int')} % 3)", lambda: f"(- {sub('int')})",
                lambda: f"array_length({sub('int[]')}, 1)", lambda: f"least({sub('int')}, {sub('int')}, 4)",
                lambda: f"width_bucket({sub('int')}, 0, 12, 4)", lambda: f"({sub('jsonb')} ->> 'n')::int",
                lambda: f"({sub('small')} + 1)", lambda: f"length({sub('char(3)')})", lambda: f"extract(hour FROM {sub('timestamptz')})::int",
            ],
            "bigint": [lambda: f"{sub('int')}::bigint", lambda: self.scalar(scope, "bigint"), lambda: f"({sub('bigint')} / 7)"],
            "text": [
                lambda: f"upper({sub('text')})", lambda: f"({sub('text')} || {sub('text')})", lambda: f"{sub('int')}::text",
                lambda: f"substr({sub('text')}, 1, 1)", lambda: f"{sub('mood')}::text", lambda: f"{sub('date')}::text",
                lambda: f"concat({sub('text')}, {sub('int')})", lambda: f"to_char({sub('date')}, 'Mon DD')",
                lambda: self.scalar(scope, "text"), lambda: f"({sub('jsonb')} ->> 't')", lambda: f"grade({sub('int')})",
                lambda: f"({sub('spot')}).y", lambda: f"array_to_string({sub('int[]')}, '-')", lambda: f"{sub('int4range')}::text",
                lambda: f"replace({sub('text')}, 'a', 'ä')", lambda: f"({sub('text')} COLLATE \"C\")", lambda: self.row_text(scope),
                lambda: f"format('%s-%s', {sub('int')}, {sub('text')})", lambda: f"regexp_replace({sub('text')}, '[ab]+', '<\\&>')",
                lambda: f"{sub('timestamptz')}::text", lambda: f"encode({sub('bytea')}, 'hex')", lambda: f"{sub('char(3)')}::text",
                lambda: f"({sub('text[]')})[1]", lambda: f"{sub('interval')}::text",
            ],
            "date": [lambda: f"({sub('date')} + {sub('int')})", lambda: f"{sub('timestamp')}::date", lambda: self.scalar(scope, "date"),
                     lambda: f"date_trunc('week', {sub('date')})::date"],
            "numeric": [lambda: f"({sub('numeric')} + {sub('int')})", lambda: f"round({sub('numeric')}, 2)", lambda: self.scalar(scope, "numeric"),
                        lambda: f"({sub('numeric')} / 3)", lambda: f"{sub('int')}::numeric"],
            "bool": [lambda: f"({self.condition(scope, depth - 1)})"],
            "int[]": [lambda: f"ARRAY[{sub('int')}, {sub('int')}]", lambda: f"({sub('int[]')} || {sub('int')})", lambda: self.array(scope)],
            "timestamp": [lambda: f"({sub('date')} + interval '1 hour')", lambda: f"date_trunc('day', {sub('timestamp')})"],
            "float8": [lambda: f"({sub('float8')} * 2)", lambda: f"{sub('int')}::float8", lambda: f"floor({sub('float8')})"],
            "jsonb": [lambda: f"jsonb_build_object('x', {sub('int')})", lambda: f"to_jsonb({sub('int[]')})", lambda: self.row_json(scope)],
            "int4range": [lambda: f"int4range({sub('int')}, NULL)", lambda: f"({sub('int4range')} * {sub('int4range')})"],
            "spot": [lambda: f"ROW({sub('int')}, {sub('text')})::spot"],
            "char(3)": [lambda: f"left({sub('text')}, 3)::char(3)"],
            "timestamptz": [lambda: f"({sub('timestamptz')} + {sub('interval')})", lambda: f"{sub('timestamp')}::timestamptz"],
            "interval": [lambda: f"({sub('timestamptz')} - timestamptz '2024-01-01 00:00+00')"],
            "small": [lambda: f"least(abs({sub('int')}) + 1, 9)::small"],
            "bytea": [lambda: f"({sub('bytea')} || {sub('bytea')})", lambda: f"decode(md5({sub('text')}), 'hex')"],
            "text[]": [lambda: f"ARRAY[{sub('text')}, {sub('text')}]", lambda: f"array_append({sub('text[]')}, {sub('text')})"],
        }.get(kind, [])
        return c.one(general + own)()

    def row_text(self, scope):
        whole = self.whole(scope)
        return f"{whole}::text" if whole else self.simple(scope, "text")

    def row_json(self, scope):
        whole = self.whole(scope)
        return f"to_jsonb({whole})" if whole else self.simple(scope, "jsonb")

    def scalar(self, scope, kind):
        """A subquery of one row."""
        if self.c.chance(10):
            return f"({self.select([kind], scope, 0, limit='one')})"
        inner = self.from_clause(scope.inner(), 1)
        value = self.simple(inner[1], kind)
        if kind in ("int", "bigint") and self.c.chance(40):
            value = self.c.one([f"count(*)::{kind}", f"count({value})::{kind}", f"sum({value})::{kind}"])
        elif kind == "bool":
            value = f"bool_or({value})"
        else:
            value = f"{self.c.one(['max', 'min'])}({value})"
        return f"(SELECT {value} FROM {inner[0]}{self.where(inner[1], 70)})"

    def array(self, scope):
        source, inner = self.from_clause(scope.inner(), 0)
        value = self.simple(inner, "int")
        return f"ARRAY(SELECT {value} FROM {source}{self.where(inner, 70)} ORDER BY 1)"

    def comparison(self, scope, kind, depth):
        op = self.c.one(["=", "=", "<", ">", "<=", ">=", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
        return f"{self.simple(scope, kind)} {op} {self.expr(scope, kind, depth)}"

    def condition(self, scope, depth=2):
        c = self.c
        kind = c.one([k for k in CONDITIONS if scope.columns(k)] or ["int"])
        value = lambda k=kind: self.simple(scope, k)  # noqa: E731
        deep = [
            lambda: f"({self.condition(scope, depth - 1)} OR {self.condition(scope, depth - 1)})",
            lambda: f"({self.condition(scope, depth - 1)} AND {self.condition(scope, depth - 1)})",
            lambda: f"NOT ({self.condition(scope, depth - 1)})",
            lambda: self.exists(scope), lambda: self.exists(scope), lambda: self.membership(scope, kind), lambda: self.row_membership(scope),
            lambda: self.membership(scope, kind), lambda: f"{value()} = {self.scalar(scope, kind)}" if kind in ("int", "text", "date") else self.exists(scope),
        ]
        flat = [
            lambda: self.routing(scope), lambda: self.comparison(scope, kind, depth), lambda: self.comparison(scope, kind, depth),
            lambda: f"{value()} IS NULL", lambda: f"{value()} IS NOT NULL",
            lambda: f"{value()} IN ({', '.join(self.literal(kind) for _ in range(1 + c.count(3)))})",
            lambda: f"{value()} NOT IN ({', '.join(self.literal(kind) for _ in range(1 + c.count(2)))})",
            lambda: f"{value()} BETWEEN {self.literal(kind)} AND {self.literal(kind)}",
            lambda: f"{value('text')} {c.one(['LIKE', 'NOT LIKE', 'ILIKE'])} {c.one(PATTERNS)}",
            lambda: f"{value('int')} = ANY ({value('int[]')})",
            lambda: f"({self.column(scope, 'bool') or self.routing(scope)}) IS NOT TRUE",
            lambda: f"({value('int')}, {value('text')}) = ({value('int')}, {value('text')})",
            lambda: f"({value('int')}, {value('int')}) < ({value('int')}, {self.literal('int')})",
            lambda: self.odd_condition(scope),
        ]
        return c.one(flat + deep if depth > 0 else flat)()

    def odd_condition(self, scope):
        value = lambda k: self.simple(scope, k)  # noqa: E731
        whole = self.whole(scope)
        return self.c.one([
            lambda: f"{value('int4range')} @> {value('int')}", lambda: f"{value('int4range')} && {value('int4range')}",
            lambda: f"{value('int[]')} @> ARRAY[{self.literal('int')}]", lambda: f"{value('jsonb')} @> {self.literal('jsonb')}",
            lambda: f"{value('jsonb')} ? 'n'", lambda: f"({value('spot')}).x > {self.literal('int')}",
            lambda: f"{whole} IS NOT NULL" if whole else f"{value('text')} ~ '^a'", lambda: f"{value('text')} ~ '[bB]'",
            lambda: f"{value('int')} IN (VALUES ({self.literal('int')}), ({self.literal('int')}))",
            lambda: f"{'0 <' if self.writing else 'known'} ({value('int')})", lambda: f"{value('int')} <> ALL (ARRAY[{self.literal('int')}, {value('int')}])",
            lambda: f"{value('date')} + 2 > {value('timestamp')}", lambda: f"{value('text')} = ANY ({value('text[]')})",
            lambda: f"{value('timestamptz')} >= {value('date')}", lambda: f"{value('char(3)')} = {value('text')}", lambda: f"{value('bigint')} = {value('int')}",
            lambda: f"({value('date')}, {value('date')}) OVERLAPS ({self.literal('date')}, interval '4 days')",
        ])()

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
            lambda: f"{name} = {self.scalar(Scope([], scope.outer, scope.ctes), kind)}" if kind in ("int", "text", "date") else f"{name} = {lit()}",
        ])()

    def exists(self, scope):
        c = self.c
        if c.chance(12):
            return f"{c.one(['', 'NOT '])}EXISTS ({self.select(['int'], scope, 1)})"
        source, inner = self.from_clause(scope.inner(), 1)
        return f"{c.one(['', 'NOT '])}EXISTS (SELECT {c.one(['', '1', '*'])} FROM {source}{self.where(inner, 90)})"

    def membership(self, scope, kind):
        c = self.c
        sub = self.select([kind], scope, 1) if c.chance(40) else None
        if sub is None:
            source, inner = self.from_clause(scope.inner(), 1)
            sub = f"SELECT {self.simple(inner, kind)} FROM {source}{self.where(inner, 60)}"
        return f"{self.simple(scope, kind)} {c.one(['IN', 'NOT IN', '= ANY', '<> ALL', '> ALL', '< ANY'])} ({sub})"

    def row_membership(self, scope):
        c = self.c
        kinds = ["int", c.one(["int", "text", "date"])]
        source, inner = self.from_clause(scope.inner(), 0)
        sub = ", ".join(self.simple(inner, k) for k in kinds)
        mine = ", ".join(self.simple(scope, k) for k in kinds)
        return f"({mine}) {c.one(['IN', 'NOT IN'])} (SELECT {sub} FROM {source}{self.where(inner, 60)})"

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
