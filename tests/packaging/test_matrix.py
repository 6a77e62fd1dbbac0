"""One row of the matrix; ``make matrix`` runs them all."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from .matrix import PYTHONS, ROWS, run_row

GUARANTEES = (Path(__file__).parents[2] / "docs" / "guarantees.md").read_text()


def test_the_lowest_declared_requirements_are_enough(wheel: Path, tmp_path: Path) -> None:
    (lowest,) = (row for row in ROWS if row.resolution == "lowest-direct")
    run_row(lowest, platform.python_version(), wheel, tmp_path)


def test_the_document_shows_the_matrix_and_no_row_that_fails() -> None:
    table = re.search(r"\| requirements \|.*\n\|---.*\n((?:\|.*\n)+)", GUARANTEES)
    assert table
    shown = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for r in table[1].splitlines()
        if (cells := r.split("|"))
    }
    assert shown == {row.name: ["passes"] * len(PYTHONS) for row in ROWS}
