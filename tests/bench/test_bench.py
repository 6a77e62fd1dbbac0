"""The benchmark measures every row and compares it with its goals. No duration is tested."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.report import rows_of, table
from tests.bench.run import FEW_PAYMENTS, QUICK, SQLITE, Measured
from tests.bench.samples import (
    FIRST,
    FLOOR,
    IDLE,
    MANY,
    MEMORY_FIRST,
    MEMORY_NEXT,
    ONE,
    PENDING,
    QUERIES_ONE,
    QUERIES_RETURN,
    QUERIES_SWEEP,
    RECONCILE,
    REPEAT,
    START,
    STATEMENTS_SWEEP,
    STRAIGHTFORWARD,
    SWEEP,
    WAIT_MANY,
    WAIT_ONE,
    WAIT_SWEEP,
    Samples,
)
from tests.support.yookassa.process import ROOT

QUERYING = {RECONCILE, STRAIGHTFORWARD}
ALL = {RECONCILE, STRAIGHTFORWARD, FLOOR}
ROWS = {
    FIRST: QUERYING,
    PENDING: QUERYING,
    REPEAT: ALL,
    ONE: ALL,
    MANY: ALL,
    WAIT_ONE: ALL | {IDLE},
    WAIT_MANY: ALL | {IDLE},
    QUERIES_ONE: ALL,
    QUERIES_RETURN: QUERYING,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--database", SQLITE, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(Path(file).read_text(encoding="utf-8"))


def sides_of(figures: dict[str, Any], name: str, payments: int | None) -> dict[str, Any]:
    (row,) = (r for r in figures["rows"] if (r["name"], r["payments"]) == (name, payments))
    sides: dict[str, Any] = row["sides"]
    return sides


@pytest.mark.parametrize("payments", [FEW_PAYMENTS, QUICK.many_payments])
@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_measured(run: tuple[str, dict[str, Any]], name: str, payments: int) -> None:
    printed, figures = run
    sides = sides_of(figures, name, payments)
    assert set(sides) == ROWS[name]
    assert all(side["count"] > 0 for side in sides.values())
    assert sum(f" {payments}  {name} " in line for line in printed.splitlines()) == 1


def test_memory_and_the_interpreters_start_are_measured(run: tuple[str, dict[str, Any]]) -> None:
    _, figures = run
    assert sides_of(figures, MEMORY_FIRST, FEW_PAYMENTS)[RECONCILE]["count"] == 1
    assert sides_of(figures, MEMORY_NEXT, FEW_PAYMENTS)[RECONCILE]["count"] == 1
    assert set(sides_of(figures, START, None)) == {RECONCILE, FLOOR}


def test_a_pass_over_settled_payments_is_measured(run: tuple[str, dict[str, Any]]) -> None:
    _, figures = run
    pages = math.ceil(QUICK.captured / 100)
    assert sides_of(figures, QUERIES_SWEEP, QUICK.many_payments)[RECONCILE]["median"] == pages
    statements = sides_of(figures, STATEMENTS_SWEEP, QUICK.many_payments)[RECONCILE]["median"]
    assert statements == math.ceil(pages / 2) + 1  # one for two pages, and one for the open top-ups
    assert sides_of(figures, SWEEP, QUICK.many_payments)[RECONCILE]["count"] == QUICK.passes
    assert set(sides_of(figures, WAIT_SWEEP, QUICK.many_payments)) == {RECONCILE, IDLE}


def test_every_answer_was_right_and_one_query_enough(run: tuple[str, dict[str, Any]]) -> None:
    _, figures = run
    assert figures["wrong_answers"] == []
    assert sides_of(figures, QUERIES_RETURN, FEW_PAYMENTS)[RECONCILE]["median"] == 1
    queries = sides_of(figures, QUERIES_ONE, FEW_PAYMENTS)
    assert (queries[RECONCILE]["median"], queries[STRAIGHTFORWARD]["median"]) == (1, QUICK.callers)


@pytest.mark.parametrize(
    ("ours", "reached"),
    [(12, {"× floor": True, "× faster": True}), (14, {"× floor": False, "× faster": False})],
)
def test_a_row_is_compared_with_its_goals(ours: float, reached: dict[str, bool]) -> None:
    times = Samples()
    for side, figure in {RECONCILE: ours, STRAIGHTFORWARD: 40.0, FLOOR: 10.0}.items():
        times.add(REPEAT, side, figure)
    rows = rows_of([Measured(SQLITE, FEW_PAYMENTS, times, Samples(), {})])
    assert {goal.of: is_reached for goal, is_reached in rows[0].results()} == reached
    assert ("MISSED" in table(rows)) is not reached["× floor"]
