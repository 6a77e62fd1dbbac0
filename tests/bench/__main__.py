"""What reconciling costs, as ratios measured side by side: `make bench`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .report import Row, rows_of, table
from .run import DATABASES, FULL, QUICK, Measured, measure


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON. A missed goal is no error: it is what one wants to see."""
    options = _options(arguments)
    effort = QUICK if options.quick else FULL
    measured = list(measure(options.database or DATABASES, effort))
    rows = rows_of(measured)
    sys.stdout.write(f"{effort.callers} callers\n{table(rows)}\n{_wrong_answers(measured)}")
    if options.json:
        options.json.write_text(_document(rows, measured), encoding="utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--database", action="append", choices=DATABASES, help="measure on this one only; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="a little of everything, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser.parse_args(arguments)


def _wrong_answers(measured: Sequence[Measured]) -> str:
    lines = [
        f"{m.database}, {m.payments} payments: {count} answers were not as they should be: {what}\n"
        for m in measured
        for what, count in m.wrong_answers.items()
    ]
    return "".join(["\n", *lines]) if lines else ""


def _document(rows: Sequence[Row], measured: Sequence[Measured]) -> str:
    wrong = [
        {"database": m.database, "payments": m.payments, "answers": dict(m.wrong_answers)}
        for m in measured
        if m.wrong_answers
    ]
    content = {"rows": [row.as_json() for row in rows], "wrong_answers": wrong}
    return json.dumps(content, ensure_ascii=False, indent=2)


if __name__ == "__main__":
    sys.exit(main())
