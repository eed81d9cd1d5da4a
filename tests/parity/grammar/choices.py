"""Decisions, and what names stand for."""

import random
from dataclasses import dataclass, field


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
    whole: bool = False  # a table or view, whose rows have a type


@dataclass
class Scope:
    sources: list
    outer: "Scope | None" = None
    ctes: list = field(default_factory=list)  # Sources that FROM may name

    def columns(self, wanted=None):
        return [(f"{s.name}.{c}" if s.name else c) for s in self.sources for c, t in s.columns if wanted in (None, t)]

    def inner(self):
        """The scope of a subquery in this one."""
        return Scope([], self, self.ctes)
