"""Splits a file of SQL into statements as psql does: quotes, dollar quotes, comments, BEGIN ATOMIC, COPY data."""

import re
from dataclasses import dataclass, field


@dataclass
class Statement:
    sql: str
    line: int
    directives: dict = field(default_factory=dict)  # "-- word" or "-- word: value" comments right before it
    data: bytes | None = None  # what follows COPY … FROM STDIN, up to \.


TOKEN = re.compile(
    r"""
      (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<quote>'(?:[^']|'')*')
    | (?P<ident>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[A-Za-z_\u0080-\uffff][A-Za-z_0-9\u0080-\uffff]*)?\$)
    | (?P<word>[A-Za-z_\u0080-\uffff][A-Za-z_0-9$\u0080-\uffff]*)
    | (?P<open>\() | (?P<close>\)) | (?P<end>;)
    """,
    re.X | re.S,
)
DIRECTIVE = re.compile(r"^--\s*(refused|unordered|load|fill|only|ignore|reconnect|details|block|again)\b:?\s*(.*)$")


def skip_block(text, at):
    """The position after a block comment, which may nest."""
    depth = 0
    for m in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if m.group() == "/*" else -1
        if depth == 0:
            return m.end()
    return len(text)


def tokens(text, at=0):
    """(kind, text, start, end) of everything that matters for splitting."""
    while True:
        m = TOKEN.search(text, at)
        if not m:
            return
        kind, end = m.lastgroup, m.end()
        if kind == "block":
            end = skip_block(text, m.start())
        elif kind == "dollar":
            close = text.find(m.group(), m.end())
            end = len(text) if close < 0 else close + len(m.group())
        yield kind, text[m.start() : end], m.start(), end
        at = end


def split(text):
    statements, directives = [], {}
    start, depth, atomic, case = 0, 0, 0, 0
    position = 0
    seen_code = False
    words = []
    code_start = 0
    while True:
        advanced = False
        for kind, token, begin, end in tokens(text, position):
            if not seen_code:
                gap = text[start:begin]
                if gap.strip():
                    seen_code, code_start = True, start + len(gap) - len(gap.lstrip())
                elif kind in ("line", "block"):
                    m = DIRECTIVE.match(token.strip())
                    if m:
                        directives[m.group(1)] = m.group(2).strip() or True
                        if m.group(1) in ("load", "reconnect", "details", "block", "again"):  # complete by itself
                            statements.append(
                                Statement("", text.count("\n", 0, begin) + 1, {m.group(1): directives.pop(m.group(1))})
                            )
                    start = end
                    continue
                elif kind == "end":
                    start = end
                    continue
                else:
                    seen_code, code_start = True, begin
            if kind == "open":
                depth += 1
            elif kind == "close":
                depth -= 1
            elif kind == "word":
                word = token.upper()
                words.append(word)
                if word == "ATOMIC" and words[-2:-1] == ["BEGIN"]:
                    atomic = 1
                elif atomic and word == "CASE":
                    case += 1
                elif atomic and word == "END":
                    if case:
                        case -= 1
                    else:
                        atomic = 0
            elif kind == "end" and depth <= 0 and not atomic:
                sql = text[code_start:begin].strip()
                statement = Statement(sql, text.count("\n", 0, code_start) + 1, directives)
                statements.append(statement)
                directives, start, depth, seen_code, words = {}, end, 0, False, []
                if re.match(r"(?is)copy\b.*\bfrom\s+stdin\b", sql):
                    newline = text.find("\n", end) + 1
                    m = re.compile(r"^\\\.[ \t]*$", re.M).search(text, newline)
                    stop = m.start() if m else len(text)
                    statement.data = text[newline:stop].encode()
                    start = position = m.end() if m else len(text)
                    advanced = True
                    break
        if not advanced:
            break
    rest = text[start if not seen_code else code_start :].strip()
    if seen_code and rest:
        statements.append(Statement(rest, text.count("\n", 0, code_start) + 1, directives))
    return statements


def top_level_order(sql):
    """Does the statement promise an order: ORDER BY outside of all parentheses?"""
    depth, previous = 0, ""
    for kind, token, _, _ in tokens(sql):
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind == "word" and depth == 0:
            word = token.upper()
            if previous == "ORDER" and word == "BY":
                return True
            previous = word
    return False
