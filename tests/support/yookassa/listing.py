"""`GET /payments`: filters, pages, cursors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from .errors import invalid
from .payments import Document, Payment, read_timestamp

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "gte": operator.ge,
    "gt": operator.gt,
    "lte": operator.le,
    "lt": operator.lt,
}
_KNOWN = {"limit", "cursor", "status", "payment_method"} | {
    f"{moment}.{name}" for moment in ("created_at", "captured_at") for name in _COMPARE
}


def page(newest_first: list[Payment], query: Mapping[str, str]) -> Document:
    """One page of the payments that match."""
    for name in query.keys() - _KNOWN:
        raise invalid("Unknown parameter", name)
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    rest = _after_cursor(newest_first, query.get("cursor"))
    matching = [payment for payment in rest if _matches(payment, query)]
    answer: Document = {
        "type": "list",
        "items": [payment.document for payment in matching[:limit]],
    }
    if len(matching) > limit:
        answer["next_cursor"] = _cursor(matching[limit - 1])
    return answer


def _limit(text: str) -> int:
    # At most three ASCII digits: `int` alone would also take "1_0" and " 1".
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_LIMIT))):
        raise invalid("Incorrect limit", "limit")
    if not 1 <= int(text) <= LARGEST_LIMIT:
        raise invalid(f"The limit is between 1 and {LARGEST_LIMIT}", "limit")
    return int(text)


def _cursor(payment: Payment) -> str:
    """The last payment shown. New payments come in front of it, so a page never shifts."""
    return str(payment.document.get("id"))


def _after_cursor(payments: list[Payment], cursor: str | None) -> list[Payment]:
    if cursor is None:
        return payments
    for index, payment in enumerate(payments):
        if _cursor(payment) == cursor:
            return payments[index + 1 :]
    raise invalid("Incorrect cursor", "cursor")


def _matches(payment: Payment, query: Mapping[str, str]) -> bool:
    method = payment.document.get("payment_method")
    method_type = method.get("type") if isinstance(method, dict) else None
    return (
        query.get("status", payment.status) == payment.status
        and query.get("payment_method", method_type) == method_type
        and _in_time(payment.created_at, "created_at", query)
        and _in_time(read_timestamp(payment.document.get("captured_at")), "captured_at", query)
    )


def _in_time(moment: datetime | None, name: str, query: Mapping[str, str]) -> bool:
    for suffix, compare in _COMPARE.items():
        parameter = f"{name}.{suffix}"
        if parameter not in query:
            continue
        bound = read_timestamp(query[parameter])
        if bound is None:
            raise invalid("Incorrect date", parameter)
        if moment is None or not compare(moment, bound):
            return False
    return True
