"""The figures as a table and as JSON, compared with the goals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .run import FEW_PAYMENTS, Measured
from .samples import (
    FIRST,
    FLOOR,
    IDLE,
    MANY,
    MEMORY_SWEEP,
    ONE,
    PENDING,
    QUERIES_SWEEP,
    RECONCILE,
    REPEAT,
    START,
    STATEMENTS_SWEEP,
    STRAIGHTFORWARD,
    WAIT_MANY,
    WAIT_ONE,
    WAIT_SWEEP,
    Summary,
)

FASTER, FLOORS, GROWN, P95, MORE = "× faster", "× floor", "× few", "ms at p95", "ms more"
IDLES, COUNT, MEGABYTES = "× idle at p95", "in a pass", "MB"
"""Than the straightforward endpoint; the floor's cost; the cost with few payments; milliseconds."""

Sides = Mapping[str, Summary]


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for one of a row's ratios."""

    of: str
    limit: float
    at_least: bool = False

    def is_reached(self, value: float) -> bool:
        """Return whether the value is within the limit."""
        return value >= self.limit if self.at_least else value <= self.limit


_FLAT = Goal(GROWN, 1.2)
_NO_SLOWER = Goal(FASTER, 1, at_least=True)
_GOALS = {
    FIRST: (_NO_SLOWER, _FLAT),
    REPEAT: (Goal(FLOORS, 1.3), Goal(FASTER, 3, at_least=True), _FLAT),
    PENDING: (_FLAT,),
    ONE: (Goal(FASTER, 5, at_least=True), _FLAT),
    MANY: (_NO_SLOWER, _FLAT),
    WAIT_ONE: (Goal(P95, 50),),
    WAIT_MANY: (Goal(P95, 50),),
    START: (Goal(MORE, 1),),
    WAIT_SWEEP: (Goal(IDLES, 1.3),),
    QUERIES_SWEEP: (Goal(COUNT, 100),),
    STATEMENTS_SWEEP: (Goal(COUNT, 100),),
    MEMORY_SWEEP: (Goal(MEGABYTES, 5),),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: the sides' figures and their ratios."""

    database: str | None
    payments: int | None
    name: str
    sides: Sides
    work: Sides
    """Milliseconds of the host's processor."""
    ratios: Mapping[str, float]

    def results(self) -> Iterator[tuple[Goal, bool]]:
        """Yield each goal of this row, and whether the row reaches it."""
        for goal in _GOALS.get(self.name, ()):
            if goal.of in self.ratios:
                yield goal, goal.is_reached(self.ratios[goal.of])

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        goals = [asdict(goal) | {"reached": reached} for goal, reached in self.results()]
        return asdict(self) | {"goals": goals}


def rows_of(measured: Sequence[Measured]) -> list[Row]:
    """Return the rows of the table."""
    few = {m.database: m.times.summaries() for m in measured if m.payments == FEW_PAYMENTS}
    rows = []
    for m in measured:
        work = m.work.summaries()
        for name, sides in m.times.summaries().items():
            with_few = few[m.database].get(name) if m.database and m.payments != FEW_PAYMENTS else None
            ratios = dict(_ratios(name, sides, with_few))
            rows.append(Row(m.database, m.payments, name, sides, work.get(name, {}), ratios))
    return rows


def _ratios(name: str, sides: Sides, with_few: Sides | None) -> Iterator[tuple[str, float]]:
    ours, floor, straightforward = sides[RECONCILE], sides.get(FLOOR), sides.get(STRAIGHTFORWARD)
    if straightforward and ours.median > 0:
        yield FASTER, straightforward.median / ours.median
    if floor and floor.median > 0:
        yield FLOORS, ours.median / floor.median
    if with_few:
        yield GROWN, ours.median / with_few[RECONCILE].median
    if name in {WAIT_ONE, WAIT_MANY}:
        yield P95, ours.p95
    idle = sides.get(IDLE)
    if name == WAIT_SWEEP and idle:
        yield IDLES, ours.p95 / idle.p95
    if name in {QUERIES_SWEEP, STATEMENTS_SWEEP}:
        yield COUNT, ours.median
    if name == MEMORY_SWEEP:
        yield MEGABYTES, ours.median
    if name == START and floor:
        yield MORE, ours.median - floor.median


_HEAD = (
    f"{'database':10} {'payments':>8}  {'':36}"
    f"{'median':>9}{'p95':>9}{'spread':>9}{'straight':>10}{'floor':>8}{'idle':>8}"
    f"{FASTER:>10}{FLOORS:>9}{GROWN:>7}{'work':>8}{'straight':>10}{'floor':>8}  goals"
)
_EXPLAINED = """\
Times in ms, memory in MB. median, p95 and spread (between the quartiles) are the plugin's; straight is the
straightforward endpoint, floor the host's authentication and one indexed read, idle a host with nothing
else to do: medians. × faster: than straight. × floor: the floor's time. × few: the time with few payments
in the tables. work: milliseconds of the host's processor for it, background work included; it says what
the machine's other load hides. Of the interpreter's start the floor is an environment without the plugin."""


def table(rows: Sequence[Row]) -> str:
    """Return all rows as text."""
    return "\n".join([_HEAD, *(_line(row) for row in rows), "", _EXPLAINED])


def _line(row: Row) -> str:
    ours = row.sides[RECONCILE]
    others = [_median(row.sides, side) for side in (STRAIGHTFORWARD, FLOOR, IDLE)]
    work = [_median(row.work, side) for side in (RECONCILE, STRAIGHTFORWARD, FLOOR)]
    ratios = [f"{row.ratios[name]:.2f}" if name in row.ratios else "" for name in (FASTER, FLOORS, GROWN)]
    where = f"{row.database or '':10} {'' if row.payments is None else row.payments:>8}  {row.name:36}"
    figures = f"{ours.median:9.1f}{ours.p95:9.1f}{ours.spread:9.1f}"
    cells = zip([*others, *ratios, *work], (10, 8, 8, 10, 9, 7, 8, 10, 8), strict=True)
    return where + figures + "".join(f"{cell:>{width}}" for cell, width in cells) + f"  {_results(row)}"


def _median(sides: Sides, side: str) -> str:
    return f"{sides[side].median:.1f}" if side in sides else ""


def _results(row: Row) -> str:
    return ", ".join(
        f"{goal.of} {'≥' if goal.at_least else '≤'}{goal.limit:g} {'reached' if reached else 'MISSED'}"
        for goal, reached in row.results()
    )
