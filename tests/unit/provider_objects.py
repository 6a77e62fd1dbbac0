"""Payment objects a provider may send for a paid top-up of 1000.00 RUB, and what is wrong with each.

A case says how to change ``sound_payment``: names of fields with their values and, as ``remove``, names of
fields to leave out. A dotted name reaches inside a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.yookassa.client import Document, rubles

PAYMENT_ID = "2c85b0fe-000f-5000-9000-1b1f2d3c4e5f"
SHOP_ID = "100500"
USER_ID, WALLET_ID = "user", "wallet"
STATUSES = ("pending", "waiting_for_capture", "succeeded", "canceled")


def sound_payment() -> Document:
    """Return a payment object with which nothing is wrong."""
    return {
        "id": PAYMENT_ID,
        "status": "succeeded",
        "paid": True,
        "amount": rubles("1000.00"),
        "income_amount": rubles("965.00"),
        "refunded_amount": rubles("0.00"),
        "recipient": {"account_id": SHOP_ID, "gateway_id": "100700"},
        "test": False,
        "metadata": {
            "kind": "topup",
            "user_id": USER_ID,
            "wallet_id": WALLET_ID,
            "amount_kopeks": "100000",
        },
    }


def changed_payment(case: Document) -> Document:
    """Return a sound payment object changed as ``case`` says."""
    payment = sound_payment()
    for path in case.get("remove", []):
        holder, name = _locate(payment, path)
        del holder[name]
    for path, value in case.items():
        if path != "remove":
            holder, name = _locate(payment, path)
            holder[name] = value
    return payment


def _locate(payment: Document, path: str) -> tuple[Document, str]:
    *outer, name = path.split(".")
    holder: Any = payment
    for part in outer:
        holder = holder[part]
    return holder, name


def each(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrize ``case`` over the values, with the keys as ids."""
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


def each_with_reason(*tables: tuple[HoldReason, Mapping[str, Document]]) -> pytest.MarkDecorator:
    """Parametrize ``case`` over the values of all tables, and ``reason`` over their hold reasons."""
    return pytest.mark.parametrize(
        ("case", "reason"),
        [
            pytest.param(case, reason, id=f"{reason.value}: {name}")
            for reason, cases in tables
            for name, case in cases.items()
        ],
    )


def values(*amounts: object) -> dict[str, Document]:
    """Return a case for each amount of rubles."""
    return {f"value {amount!r:.30}": {"amount": rubles(amount)} for amount in amounts}


def currencies(*names: object) -> dict[str, Document]:
    """Return a case of 1000.00 for each currency."""
    return {f"currency {name!r}": {"amount": {"value": "1000.00", "currency": name}} for name in names}


def instead_of(field: str, *others: object) -> dict[str, Document]:
    """Return a case for each value of a field."""
    return {f"{field} {other!r:.40}": {field: other} for other in others}


def removed(*fields: str) -> dict[str, Document]:
    """Return a case for each field left out."""
    return {f"{field} is missing": {"remove": [field]} for field in fields}


def in_states(states: Iterable[str], cases: Mapping[str, Document]) -> dict[str, Document]:
    """Return each case in each of the provider's states."""
    return {f"{state}: {name}": {"status": state} | case for state in states for name, case in cases.items()}


# --- Payments that add up ------------------------------------------------------------------------

SOUND: dict[str, Document] = {
    "unchanged": {},
    "without a shop": {"recipient": {}},
    "of our shop": {"recipient": {"account_id": SHOP_ID}},
    "nothing refunded": {"refunded_amount": rubles("0.00")},
    "without what may be absent": {"remove": ["test", "recipient", "refunded_amount"]},
    "with a fee": {"income_amount": rubles("965.00")},
    "with an odd fee": {"income_amount": "odd"},
    "with leading zeros": {"amount": rubles("000000001000.00")},
    "with more in the amount": {"amount": rubles("1000.00") | {"note": 1}},
    "with unknown fields": {"deal": {"id": "x"}, "transfers": [], "новое": None},
    "with more in the metadata": {"metadata.note": "x", "metadata.auto_topup": "false"},
    "with the amount in metadata as a number": {"metadata.amount_kopeks": 100_000},
    "with no amount in metadata": {"remove": ["metadata.amount_kopeks"]},
}
"""Credited with and without a local record."""

SOUND_WITH_RECORD = (
    removed("metadata")
    | instead_of("metadata", {}, {"kind": "other", "user_id": "other", "wallet_id": "other", "note": "other"})
    | instead_of("metadata.kind", "subscription", "TOPUP", "", None, 1)
    | instead_of("metadata.user_id", "somebody", "", None, 1, [])
    | instead_of("metadata.wallet_id", "no such wallet", "", None, 1, {})
    | instead_of("metadata.amount_kopeks", "1", 1, "99999900", -1, "", None, 1e9, "1e9", True)
)
SOUND_WITH_RECORD["without all that may be absent"] = {
    "remove": ["test", "recipient", "refunded_amount", "metadata"]
}
"""Credited only because the local record decides, whatever the metadata's fields say."""

# --- Payments that are held ----------------------------------------------------------------------

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
)
UNREADABLE_METADATA = instead_of("metadata", None, "topup", 1, True, [], ["kind"], ["user_id"])
"""Held with a local record; without one nobody is proved to be the owner."""

UNREADABLE_METADATA_FIELD = (
    instead_of("metadata.amount_kopeks", "", "0", "-100000", "+100000", "0100000", " 100000", "100000 ")
    | instead_of("metadata.amount_kopeks", "1e5", "100000.0", "1000.00", "100_000", "NaN", "1" + "0" * 15)
    | instead_of("metadata.amount_kopeks", "１０００００", "²", None, 0, -100_000, 100_000.0, 1e5)  # noqa: RUF001
    | instead_of("metadata.amount_kopeks", True, [100_000], {})
    | instead_of("metadata.wallet_id", None, "", 1, True, ["x"], {}, "x\0")
)
"""Held without a local record."""

INCOMPLETE: dict[str, Document] = removed("paid", "amount") | {
    "paid and amount are missing": {"remove": ["paid", "amount"]}
}
NOT_PAID: dict[str, Document] = {"paid is false": {"paid": False}}
REFUNDED: dict[str, Document] = {
    "whole": {"refunded_amount": rubles("1000.00")},
    "in part": {"refunded_amount": rubles("250.00")},
    "a kopek": {"refunded_amount": rubles("0.01")},
    "more than was paid": {"refunded_amount": rubles("2000.00")},
    "in another currency": {"refunded_amount": {"value": "1.00", "currency": "USD"}},
}
TEST_PAYMENT: dict[str, Document] = {"test is true": {"test": True}}
OTHER_SHOP: dict[str, Document] = {
    "another number": {"recipient": {"account_id": "100501"}},
    "our number and more": {"recipient": {"account_id": "1005000"}},
    "our number with a blank": {"recipient": {"account_id": "100500 "}},
    "our number with a zero": {"recipient": {"account_id": "0100500"}},
}
OTHER_AMOUNT = values(
    "0.00", "0.01", "1.00", "10.00", "100.00", "999.99", "1000.01", "1500.00", "10000.00", "100000.00"
) | values("999999999999.99")
OTHER_METADATA_AMOUNT = instead_of(
    "metadata.amount_kopeks", "1", "99999", "100001", "10000000", "9" * 15, 1, 1000, 99_999
)
"""Held without a local record."""

NO_MONEY: dict[str, Document] = {
    "nothing paid, nothing ordered": {"amount": rubles("0.00"), "remove": ["metadata.amount_kopeks"]}
}
OTHER_CURRENCY = currencies("USD", "EUR", "KZT", "RUR", "AAA")
OTHER_KIND = instead_of(
    "metadata.kind", "subscription", "adjustment", "TOPUP", "topup ", "", None, 1, True, ["topup"]
) | removed("metadata.kind")
"""No top-up without a local record."""

# --- Payments whose owner is not proved without a local record -----------------------------------

NO_OWNER = (
    UNREADABLE_METADATA
    | removed("metadata", "metadata.user_id")
    | {"metadata is empty": {"metadata": {}}}
    | instead_of("metadata.user_id", "", None, [USER_ID], 1, True, {}, "somebody", "USER", "user ")
)

# --- Answers that are not about the payment ------------------------------------------------------

NO_PAYMENT: dict[str, object] = {
    "null": None,
    "list": [],
    "list with an object": [{"status": "succeeded"}],
    "list with the payment": [sound_payment()],
    "number": 1,
    "true": True,
    "string": "succeeded",
    "empty string": "",
    "empty object": {},
    "error with status 200": {"type": "error", "code": "internal_server_error"},
    "list of payments": {"type": "list", "items": []},
}
"""Whole answers that are no payment object."""

OTHER_PAYMENT: dict[str, Document] = (
    instead_of("status", None, "", "paid", "refunded", "SUCCEEDED", "succeeded ", " succeeded", "успех")
    | instead_of("status", 0, 1, True, [], ["succeeded"], {}, {"status": "succeeded"})
    | instead_of("id", None, "", 1, True, [], {}, "another", "11111111-2222-4333-8444-555555555555")
    | removed("status", "id")
)
"""Objects that are not about the payment queried, or not about its state."""
