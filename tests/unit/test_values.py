"""Payment ids, money, and reading the provider's answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwebui_billing_reconcile.errors import InvalidPaymentIdError, InvalidProviderResponseError
from openwebui_billing_reconcile.money.values import Money, ProviderPayment, parse_payment_id

ID = "2c85b0fe-000f-5000-9000-1b1f2d3c4e5f"


@pytest.mark.parametrize("good", [ID, f"  {ID}\n", "a", "A_b-9", "x" * 64])
def test_a_payment_id_is_taken_without_its_white_space(good: str) -> None:
    assert parse_payment_id(good) == good.strip()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        5,
        True,
        [],
        {},
        "",
        "   ",
        "\n",
        "x" * 65,
        "../refunds",
        "a/b",
        "x?y=1",
        "x#f",
        "%2e%2e",
        "a b",
        "a\nb",
        "a\x00",
        "\u0430",  # a Cyrillic letter
        "\u0661",  # an Arabic digit
        "a.b",
        "a;b",
        "a\\b",
    ],
)
def test_anything_else_is_no_payment_id(bad: object) -> None:
    with pytest.raises(InvalidPaymentIdError, match="payment_id"):
        parse_payment_id(bad)


def test_what_is_wrong_with_a_payment_id_is_said_to_the_user() -> None:
    with pytest.raises(InvalidPaymentIdError) as missing:
        parse_payment_id("")
    with pytest.raises(InvalidPaymentIdError) as misshapen:
        parse_payment_id("a/b")
    assert str(missing.value) == "payment_id is required: send the id the top-up returned"
    assert str(misshapen.value) == "payment_id is not valid: send the id the top-up returned, unchanged"


@given(st.integers(0, 10**14 - 1))
def test_money_survives_the_way_through_the_providers_notation(kopeks: int) -> None:
    money = Money(kopeks, "RUB")
    assert Money.parse({"value": money.value, "currency": "RUB"}) == money


@pytest.mark.parametrize(
    "amount",
    [
        None,
        "1000.00",
        1000,
        [],
        {},
        {"value": "1000.00"},
        {"currency": "RUB"},
        *[
            {"value": value, "currency": "RUB"}
            for value in (
                1000,
                1000.0,
                None,
                True,
                "",
                "1000",
                "1000.0",
                "1000.000",
                "1000,00",
                "-1.00",
                "+1.00",
                " 1.00",
                "1.00 ",
                "1.00\n",
                "1e3",
                "1 000.00",
                "1_000.00",
                "NaN",
                "Infinity",
                "0x10.00",
                ".50",
                "\u0663.00",
                "1234567890123.00",
            )
        ],
        *[
            {"value": "1.00", "currency": currency}
            for currency in (None, 643, "", "rub", "RUBL", "RU", "RUB\n")
        ],
    ],
)
def test_what_is_not_exactly_an_amount_is_none(amount: object) -> None:
    assert Money.parse(amount) is None


@pytest.mark.parametrize("missing", [None, 5, "", "  \n"])
def test_a_missing_payment_id_is_said_to_be_missing(missing: object) -> None:
    with pytest.raises(InvalidPaymentIdError, match="payment_id is required"):
        parse_payment_id(missing)


def answer(**changes: Any) -> dict[str, Any]:
    payment = {
        "id": ID,
        "status": "succeeded",
        "paid": True,
        "amount": {"value": "1000.00", "currency": "RUB"},
        "recipient": {"account_id": "100500", "gateway_id": "1"},
        "test": False,
        "metadata": {"kind": "topup", "user_id": "u1", "wallet_id": "w1", "amount_kopeks": "100000"},
    }
    return payment | changes


def test_a_whole_answer_is_read() -> None:
    payment = ProviderPayment.parse(answer(), ID)
    assert (payment.status, payment.paid, payment.test) == ("succeeded", True, False)
    assert payment.amount == Money(100000, "RUB")
    assert payment.account_id == "100500"
    assert payment.topup.user_id == "u1"
    assert payment.topup.amount_kopeks == 100000
    assert not payment.malformed


def test_what_may_be_absent_reads_as_absent() -> None:
    payment = ProviderPayment.parse({"id": ID, "status": "pending"}, ID)
    assert (payment.paid, payment.amount, payment.account_id, payment.refunded) == (None,) * 4
    assert payment.test is False
    assert payment.topup.user_id is None
    assert not payment.malformed


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("paid", "yes", "paid"),
        ("paid", 1, "paid"),
        ("paid", None, "paid"),
        ("amount", 5, "amount"),
        ("amount", None, "amount"),
        ("test", "false", "test"),
        ("recipient", "100500", "recipient"),
        ("recipient", {"account_id": 100500}, "recipient.account_id"),
        ("recipient", {"account_id": ""}, "recipient.account_id"),
        ("refunded_amount", "0.00", "refunded_amount"),
        ("metadata", [], "metadata"),
        ("metadata", None, "metadata"),
        ("metadata", {"kind": 1}, "metadata.kind"),
        ("metadata", {"user_id": ["u1"]}, "metadata.user_id"),
        ("metadata", {"wallet_id": ""}, "metadata.wallet_id"),
        ("metadata", {"wallet_id": "w\x00"}, "metadata.wallet_id"),
        ("metadata", {"user_id": "\ud800"}, "metadata.user_id"),
        *[
            ("metadata", {"amount_kopeks": value}, "metadata.amount_kopeks")
            for value in ("0", "-5", "1.0", "", "007", "1e3", 0, -5, 1.0, True, None, "9" * 16, "\u0663")
        ],
    ],
)
def test_a_field_that_is_there_and_cannot_be_read_is_named(field: str, value: object, named: str) -> None:
    assert ProviderPayment.parse(answer(**{field: value}), ID).malformed == {named}


@pytest.mark.parametrize("kopeks", ["100000", 100000])
def test_metadata_kopeks_may_be_text_or_a_number(kopeks: object) -> None:
    payment = ProviderPayment.parse(answer(metadata={"amount_kopeks": kopeks}), ID)
    assert payment.topup.amount_kopeks == 100000


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        "text",
        5,
        {},
        answer(id="another"),
        answer(id=None),
        answer(id=5),
        answer(status="refunded"),
        answer(status=None),
        answer(status=["succeeded"]),
        answer(status="Succeeded"),
        {"status": "succeeded"},
    ],
)
def test_an_answer_that_is_not_about_this_payment_is_nonsense(nonsense: object) -> None:
    with pytest.raises(InvalidProviderResponseError):
        ProviderPayment.parse(nonsense, ID)
