"""Random aggregates and window functions whose result does not depend on the order of the rows."""

from .expressions import Expressions

WINDOWED = ("bigint", "int", "text", "numeric", "float8", "date", "bool")


class Aggregates(Expressions):
    def aggregate(self, scope, kind):
        c = self.c
        value = lambda k: self.expr(scope, k, 1)  # noqa: E731
        distinct = "DISTINCT " if c.chance(20) else ""
        options = {
            "bigint": [lambda: "count(*)", lambda: f"count({distinct}{value(c.one(['int', 'text', 'date', 'numeric', 'mood', 'bool', 'spot']))})",
                       lambda: f"sum({distinct}{value('int')})", lambda: f"max({value('bigint')})", lambda: self.count_rows(scope),
                       lambda: f"rank({self.literal('int')}) WITHIN GROUP (ORDER BY {value('int')})",
                       lambda: f"regr_count({value('float8')}, {value('float8')})"],
            "int": [lambda: f"max({value('int')})", lambda: f"min({value('int')})", lambda: f"bit_or({value('int')})",
                    lambda: f"bit_and({distinct}{value('int')})", lambda: f"count({distinct}{value('text')})::int",
                    lambda: f"sum({value('int')})::int", lambda: f"mode() WITHIN GROUP (ORDER BY {value('int')})",
                    lambda: f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {value('int')})", lambda: f"bit_xor({value('int')})"],
            "numeric": [lambda: f"sum({distinct}{value('numeric')})", lambda: f"avg({distinct}{value('int')})",
                        lambda: f"round(avg({value('numeric')}), 4)", lambda: f"sum({value('bigint')})",
                        lambda: f"round(stddev({value('int')}), 6)", lambda: f"round(var_pop({distinct}{value('numeric')}), 6)",
                        lambda: f"avg({value('numeric')})", lambda: f"(sum({value('int')}) / nullif(count({value('int')}), 0))::numeric"],
            "float8": [lambda: f"sum({distinct}{value('float8')})", lambda: f"avg({value('float8')})", lambda: f"round(var_samp({value('float8')})::numeric, 6)::float8",
                       lambda: f"round(corr({value('float8')}, {value('int')})::numeric, 6)::float8", lambda: f"round(covar_pop({value('int')}, {value('float8')})::numeric, 6)::float8",
                       lambda: f"round(regr_slope({value('float8')}, {value('int')})::numeric, 6)::float8", lambda: f"round(stddev_pop({value('float8')})::numeric, 6)::float8",
                       lambda: f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {value('int')})",
                       lambda: f"percent_rank({self.literal('int')}) WITHIN GROUP (ORDER BY {value('int')})"],
            "text": [lambda: f"max({value('text')})", lambda: self.ordered("string_agg({0}, ',' ORDER BY {0})", "text", scope),
                     lambda: f"string_agg(DISTINCT {value('text')}, ',')", lambda: f"longest({value('text')})",
                     lambda: self.ordered("json_agg({0} ORDER BY {0})::text", "int", scope), lambda: f"min({value('mood')})::text",
                     lambda: self.ordered("string_agg({0}, '' ORDER BY {0} DESC NULLS LAST)", "text", scope),
                     lambda: f"range_agg({value('int4range')})::text", lambda: f"percentile_disc(0.3) WITHIN GROUP (ORDER BY {value('text')})"],
            "date": [lambda: f"max({value('date')})", lambda: f"min({value('date')})", lambda: f"max({value('timestamp')})::date"],
            "mood": [lambda: f"max({value('mood')})", lambda: f"min({value('mood')})", lambda: f"mode() WITHIN GROUP (ORDER BY {value('mood')})"],
            "bool": [lambda: f"bool_and({value('bool')})", lambda: f"bool_or({value('bool')})", lambda: f"every({self.condition(scope, 0)})",
                     lambda: f"(count(*) > {c.below(5)})"],
            "int[]": [lambda: self.ordered("array_agg({0} ORDER BY {0})", "int", scope), lambda: f"array_agg(DISTINCT {value('int')})",
                      lambda: self.ordered("array_agg({0} ORDER BY {0} DESC)", "int", scope),
                      lambda: f"percentile_disc(ARRAY[0.25, 0.75]) WITHIN GROUP (ORDER BY {value('int')})"],
            "timestamp": [lambda: f"max({value('timestamp')})"],
            "jsonb": [lambda: self.ordered("jsonb_agg({0} ORDER BY {0})", "text", scope), lambda: f"jsonb_agg(DISTINCT {value('jsonb')})",
                      lambda: self.ordered("jsonb_object_agg(coalesce({0}, 'none'), 1)", "text", scope)],
            "int4range": [lambda: f"(array_agg(DISTINCT {value('int4range')}))[1]", lambda: f"range_intersect_agg({value('int4range')})"],
            "spot": [lambda: f"(array_agg(DISTINCT {value('spot')}))[1]"],
            "char(3)": [lambda: f"max({value('char(3)')})", lambda: f"min({value('char(3)')})"],
            "timestamptz": [lambda: f"max({value('timestamptz')})", lambda: f"min({value('timestamptz')})"],
            "interval": [lambda: f"max({value('interval')})", lambda: f"max({value('timestamptz')}) - min({value('timestamptz')})"],
            "small": [lambda: f"max({value('small')})::small", lambda: f"percentile_disc(0.5) WITHIN GROUP (ORDER BY {value('small')})::small"],
            "bytea": [lambda: f"string_agg(DISTINCT {value('bytea')}, '\\x00')", lambda: self.ordered("string_agg({0}, '' ORDER BY {0})", "bytea", scope)],
            "text[]": [lambda: f"array_agg(DISTINCT {value('text')})", lambda: f"max({value('text[]')})",
                       lambda: self.ordered("array_agg({0} ORDER BY {0} NULLS FIRST)", "text", scope)],
        }
        text = c.one(options[kind])()
        if c.chance(20):
            plain = not text.startswith(("round", "("))
            if plain and text.endswith(")"):
                text += f" FILTER (WHERE {self.condition(scope, self.c.one([0, 0, 1]))})"
        return text

    def count_rows(self, scope):
        whole = self.whole(scope)
        return f"count({whole})" if whole else "count(*)"

    def ordered(self, form, kind, scope):
        return form.format(self.simple(scope, kind))

    def over(self, scope):
        """A window, of peers only or of rows in an order that leaves nothing to chance."""
        c = self.c
        by = c.one([f"PARTITION BY {self.simple(scope, c.one(['int', 'text', 'date', 'mood']))} ", "", f"PARTITION BY {self.keyed(scope)} "])
        if c.chance(30):
            return f"{by}ORDER BY {', '.join(scope.columns())}", True
        return f"{by}ORDER BY {self.simple(scope, c.one(['int', 'date', 'text']))}{c.one(['', ' DESC', ' NULLS FIRST'])}", False

    def keyed(self, scope):
        keys = [f"{s.name}.{s.key}" for s in scope.sources if s.key and s.name]
        return self.c.one(keys) if keys else self.simple(scope, "int")

    def window(self, scope, kind, over, total):
        """A window function; of rows, not peers, if the order is total."""
        c = self.c
        value = lambda k: self.simple(scope, k)  # noqa: E731
        frame = ""
        if " " in over:
            frames = [""] * 3 + [" RANGE UNBOUNDED PRECEDING", " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", " RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING"]
            if total:
                frames += [" ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", " ROWS UNBOUNDED PRECEDING", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW"]
            frame = c.one(frames)
        over = f"({over}{frame})" if " " in over else over
        options = {
            "bigint": ["count(*)", "rank()", f"sum({value('int')})", "dense_rank()", f"count({value('text')}) FILTER (WHERE {value('int')} > 2)"],
            "int": [f"max({value('int')})", f"min({value('int')})"], "text": [f"max({value('text')})"],
            "numeric": [f"avg({value('int')})", f"sum({value('numeric')})"], "float8": ["percent_rank()", "cume_dist()", f"avg({value('float8')})"],
            "date": [f"min({value('date')})"], "bool": [f"bool_or({value('bool')})"],
        }[kind]
        if total:
            options = options + {
                "bigint": ["row_number()"], "int": ["ntile(3)", f"lag({value('int')})", f"lead({value('int')}, 2, 0)"],
                "text": [f"first_value({value('text')})", f"nth_value({value('text')}, 2)", f"string_agg({value('text')}, ',')"],
                "numeric": [f"last_value({value('numeric')})"], "date": [f"lag({value('date')})"],
            }.get(kind, [])
        return f"{c.one(options)} OVER {over}"
