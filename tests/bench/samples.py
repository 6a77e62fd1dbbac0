"""Samples and their summaries."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RECONCILE, STRAIGHTFORWARD, FLOOR, IDLE = "reconcile", "straightforward", "floor", "idle"
"""The sides: the plugin, the two endpoints it is compared with, and an idle host.

For the interpreter's start: with the plugin, and as the floor without it.
"""

FIRST, REPEAT, PENDING = "first credit", "repeat after credit", "pending poll"
ONE, MANY = "all callers, one payment", "all callers, a payment each"
WAIT_ONE, WAIT_MANY = "unrelated meanwhile, one payment", "unrelated meanwhile, a payment each"
SWEEP, WAIT_SWEEP = "a pass over settled payments", "unrelated meanwhile, a pass"
QUERIES_SWEEP, STATEMENTS_SWEEP = "lists: a pass", "statements: a pass"
MEMORY_SWEEP = "memory kept: passes"
QUERIES_RETURN, QUERIES_ONE = "queries: a return of 6 calls", "queries: all callers, one payment"
MEMORY_FIRST, MEMORY_NEXT = "memory kept: first half of many", "memory kept: second half"
START = "interpreter start"
"""The rows. Times are in milliseconds, memory is in megabytes, queries are counted."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Median, 95th percentile and interquartile range of many figures."""

    median: float
    p95: float
    spread: float
    """Between the quartiles."""
    count: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> Summary:
        """Summarize at least one figure."""
        ordered = sorted(figures)
        spread = _quantile(ordered, 0.75) - _quantile(ordered, 0.25)
        return cls(median(ordered), _quantile(ordered, 0.95), spread, len(ordered))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Samples:
    """Figures by row and side."""

    def __init__(self) -> None:
        self._figures: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, row: str, side: str, *figures: float) -> None:
        """Add figures."""
        self._figures[row][side].extend(figures)

    def summaries(self) -> dict[str, dict[str, Summary]]:
        """Return the summaries by row and side."""
        return {
            row: {side: Summary.of(figures) for side, figures in sides.items()}
            for row, sides in self._figures.items()
        }
