"""What a provider may say about a paid top-up of 1000.00 RUB, and what is wrong with it.

Each value is what to change in a sound answer: fields to replace and, as `remove`, fields to leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.yookassa.client import Document, rubles


def table(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """A test for each value, called by its name."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def judged_table(*parts: tuple[HoldReason, Mapping[str, Document]]) -> pytest.MarkDecorator:
    """A test for each answer, together with the reason why it is held."""
    return pytest.mark.parametrize(
        ("case", "reason"),
        [
            pytest.param(case, reason, id=f"{reason.value}: {name}")
            for reason, cases in parts
            for name, case in cases.items()
        ],
    )


def values(*amounts: object) -> dict[str, Document]:
    """Answers with such amounts of rubles."""
    return {f"value {amount!r:.30}": {"amount": rubles(amount)} for amount in amounts}


def currencies(*names: object) -> dict[str, Document]:
    """Answers with 1000.00 of such currencies."""
    return {f"currency {name!r}": {"amount": {"value": "1000.00", "currency": name}} for name in names}


def instead_of(field: str, *others: object) -> dict[str, Document]:
    """Answers with such values of a field."""
    return {f"{field} {other!r:.40}": {field: other} for other in others}


NO_MONEY_TO_READ = (
    values(None, True, 1000, 1000.0, 100000, 1e3, [], {}, ["1000.00"], {"value": "1000.00"})
    | values("", " ", "1000", "1000.", "1000.0", "1000.000", "1000,00", ".00", "1e3", "1E3", "1000.00e0")
    | values(" 1000.00", "1000.00 ", "1000.00\n", "1 000.00", "1\u00a0000.00", "1,000.00", "1_000.00")
    | values("-1000.00", "+1000.00", "-0.00", "NaN", "Infinity", "0x3E8", "1000.00 RUB", "₽1000.00")
    | values("１０００.００", "١٠٠٠.٠٠", "1000․00", "100²0.00")  # noqa: RUF001
    | values("1000000000000.00", "9" * 30 + ".00", "9" * 5000 + ".00")
    | currencies(None, "", "rub", "Rub", "RU", "RUBL", " RUB", "RUB\n", 643, ["RUB"], "РУБ", "RUВ", "₽")  # noqa: RUF001
    | instead_of("amount", None, "1000.00", "1000.00 RUB", 1000, 100000, True, [], [rubles("1000.00")], {})
    | {
        "amount without a value": {"remove": ["amount.value"]},
        "amount without a currency": {"remove": ["amount.currency"]},
        "amount with swapped keys": {"amount": {"value": "RUB", "currency": "1000.00"}},
    }
)
UNREADABLE = (
    instead_of("paid", None, "true", "True", "yes", 1, 0, "", [], {})
    | instead_of("test", None, "false", "no", 0, 1, "", [], {})
    | instead_of("recipient", None, "100500", 100500, [], ["account_id"], True)
    | instead_of(
        "recipient", {"account_id": None}, {"account_id": 100500}, {"account_id": ""}, {"account_id": []}
    )
    | instead_of("refunded_amount", None, "0.00", 0, False, [], {}, rubles(0), rubles("0"), rubles("-1.00"))
    | instead_of("refunded_amount", {"value": "0.00"}, {"value": "0.00", "currency": "rub"}, rubles(None))
    | instead_of("metadata", None, "topup", 1, True, [], ["kind"])
)
INCOMPLETE: dict[str, Document] = {
    "paid is missing": {"remove": ["paid"]},
    "amount is missing": {"remove": ["amount"]},
    "paid and amount are missing": {"remove": ["paid", "amount"]},
}
NOT_PAID: dict[str, Document] = {"paid is false": {"paid": False}}
REFUNDED: dict[str, Document] = {
    "whole": {"refunded_amount": rubles("1000.00")},
    "in part": {"refunded_amount": rubles("250.00")},
    "a kopek": {"refunded_amount": rubles("0.01")},
    "more than was paid": {"refunded_amount": rubles("2000.00")},
    "in another currency": {"refunded_amount": {"value": "1.00", "currency": "USD"}},
}
OTHER_SHOP: dict[str, Document] = {
    "another number": {"recipient": {"account_id": "100501"}},
    "our number and more": {"recipient": {"account_id": "1005000"}},
    "our number with a blank": {"recipient": {"account_id": "100500 "}},
    "our number with a zero": {"recipient": {"account_id": "0100500"}},
}
OTHER_AMOUNT = values(
    "0.00", "0.01", "1.00", "10.00", "100.00", "999.99", "1000.01", "1500.00", "10000.00"
) | (values("100000.00", "999999999999.99"))
OTHER_CURRENCY = currencies("USD", "EUR", "KZT", "RUR", "AAA")

NO_ANSWERS: dict[str, Document] = {
    "null": {"body": None},
    "list": {"body": []},
    "list with an object": {"body": [{"status": "succeeded"}]},
    "number": {"body": 1},
    "true": {"body": True},
    "string": {"raw": '"succeeded"', "content_type": "application/json"},
    "empty object": {"body": {}},
    "empty body": {"raw": ""},
    "error with status 200": {"body": {"type": "error", "code": "internal_server_error"}},
    "list of payments": {"body": {"type": "list", "items": []}},
}
"""Whole answers that are no payment."""

NO_PAYMENTS: dict[str, Document] = (
    instead_of("status", None, "", "paid", "refunded", "SUCCEEDED", "succeeded ", " succeeded", "успех")
    | instead_of("status", 0, 1, True, [], ["succeeded"], {}, {"status": "succeeded"})
    | instead_of("id", None, "", 1, True, [], {}, "another", "11111111-2222-4333-8444-555555555555")
    | {"status is missing": {"remove": ["status"]}, "id is missing": {"remove": ["id"]}}
)
"""Answers that are not about the payment, or not about its state."""

SOUND: dict[str, Document] = {
    "as ever": {},
    "without what may be absent": {"remove": ["test", "recipient", "refunded_amount", "metadata"]},
    "without a shop": {"recipient": {}},
    "of our shop": {"recipient": {"account_id": "100500"}},
    "nothing refunded": {"refunded_amount": rubles("0.00")},
    "with a fee": {"income_amount": rubles("965.00")},
    "with an odd fee": {"income_amount": "nonsense"},
    "with leading zeros": {"amount": rubles("000000001000.00")},
    "with more in the amount": {"amount": rubles("1000.00") | {"note": 1}},
    "with unknown fields": {"deal": {"id": "x"}, "transfers": [], "новое": None},
    "with empty metadata": {"metadata": {}},
}
"""Answers with which there is nothing wrong."""
