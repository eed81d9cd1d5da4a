"""The tables and views of generated/ with their columns, and values to compare them with."""

TABLES = {
    "a": dict(id="int", n="int", t="text", d="date", e="mood", arr="int[]", num="numeric", f="float8", ok="bool"),
    "b": dict(id="int", k="int", t="text", d="date", e="mood", v="int", num="numeric", at="timestamp", span="int4range"),
    "u": dict(id="int", k="int", t="text", v="int", d="date"),
    "c": dict(code="text", id="int", n="int", v="bigint", d="date", f="float8", doc="jsonb"),
    "r": dict(d="date", id="int", t="text", num="numeric", ok="bool"),
    "l": dict(t="text", id="int", v="int", e="mood", p="spot"),
    "m": dict(e="mood", id="int", n="int", f="float8", span="int4range"),
    "w": {"ch": "char(3)", "id": "int", "at": "timestamptz", "iv": "interval", "sm": "small", "by": "bytea", "tags": "text[]"},
    "ref": dict(id="int", t="text", e="mood", n="int"),
    "loc": dict(id="int", t="text", n="int", d="date"),
    "empty": dict(id="int", n="int", t="text"),
    "busy": dict(id="int", n="int", t="text"),
    "pairs": dict(id="int", k="int", t="text", d="date"),
    "sealed": dict(id="int", v="int", t="text"),
    "united": dict(id="int", n="int", t="text", d="date"),
}
VIEWS = ("busy", "pairs", "sealed", "united")
KEYS = dict(a="id", b="id", u="id", c="code", r="d", l="t", m="e", w="ch", ref="id", loc="id", empty="id", busy="id", pairs="id", sealed="id",
            united="id")
OFTEN = ["a", "b", "a", "u", "c", "r", "l", "ref", "loc", "busy", "pairs", "empty", "a", "a", "b", "b", "c", "ref", "a", "b", "a", "b", "c",
         "u", "r", "l", "ref", "loc", "m", "sealed", "united", "w", "w"]
TYPES = ["int", "text", "date", "numeric", "mood", "bool", "float8", "bigint", "int[]", "timestamp", "jsonb", "int4range", "spot", "char(3)", "timestamptz",
         "interval", "small", "bytea", "text[]"]
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
    "int4range": ["'[1,4)'::int4range", "'empty'::int4range", "'[3,)'::int4range"],
    "spot": ["'(1,a)'::spot", "'(2,)'::spot", "ROW(3, 'b')::spot"],
    "char(3)": ["'a'::char(3)", "'ab'::char(3)", "'zz '::char(3)", "''::char(3)", "NULL"],
    "timestamptz": ["timestamptz '2024-01-03 07:00+00'", "timestamptz '2024-01-02 23:30'", "NULL"],
    "interval": ["interval '1 day'", "interval '7 hours'", "interval '-1 mon'", "NULL"],
    "small": ["2::small", "5::small", "NULL"],
    "bytea": ["'\\x01'::bytea", "'\\x5cff00'::bytea", "''::bytea"],
    "text[]": ["'{a,b}'::text[]", "'{}'::text[]", "ARRAY['ab', NULL]"],
}
CONDITIONS = ["int", "int", "int", "text", "text", "date", "mood", "numeric", "bigint", "timestamp", "float8", "int4range", "spot",
              "char(3)", "timestamptz", "interval", "small", "bytea", "text[]"]
PATTERNS = ["'a%'", "'%b%'", "'_'"]
