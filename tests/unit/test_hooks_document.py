"""``hooks.md``: it agrees with the live hooks and the rules of money, and every hook has an example."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args, get_type_hints

import pytest

import openwebui_billing_reconcile
from openwebui_billing_reconcile import errors
from openwebui_billing_reconcile.attachment import isolation, plugins
from openwebui_billing_reconcile.errors import InvalidProviderResponseError
from openwebui_billing_reconcile.hookspecs import Host, ListingGateway, TopupEvent, Way
from openwebui_billing_reconcile.money.rules import (
    Credit,
    Decision,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    decide,
    owner_of,
)
from openwebui_billing_reconcile.money.values import (
    PAYMENT_ID_PATTERN,
    LocalState,
    Money,
    PaymentRecord,
    ProviderPayment,
    Wallet,
)
from openwebui_billing_reconcile.provider import client, cooldown
from openwebui_billing_reconcile.settings import DEADLINE
from tests.support.hooks_document import EXAMPLES, HOOKS, TEXT, implemented, section, table

from .provider_objects import PAYMENT_ID, SHOP_ID, USER_ID, WALLET_ID, sound_payment

LABELS = ["Called", "Runs on", "Arguments", "Returns", "Raises"]


def test_the_document_has_a_section_for_each_hook_and_no_other() -> None:
    sections = set(re.findall(r"^## (\w+_\w+)$", TEXT, re.MULTILINE))
    assert sections == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_each_hook_is_documented_in_the_same_shape(name: str) -> None:
    text = section(f"## {name}")
    assert re.findall(r"^- \*\*([\w ]+)\*\*: ", text, re.MULTILINE) == LABELS
    arguments = re.findall(r"^- \*\*Arguments\*\*: (.*)$", text, re.MULTILINE)[0]
    assert [p for p in inspect.signature(HOOKS[name]).parameters if f"`{p}`" not in arguments] == []
    assert any(f"# {example}.py\n" in text for example, code in EXAMPLES.items() if name in implemented(code))


@pytest.mark.parametrize("name", HOOKS)
def test_the_documented_signature_is_the_live_one(name: str) -> None:
    signature = f"def {name}{inspect.signature(HOOKS[name])}".replace("'", "")
    assert f"```python\n{signature}\n```" in section(f"## {name}")


def test_the_documented_signature_of_the_optional_method_is_the_live_one() -> None:
    signature = f"list_captured{inspect.signature(ListingGateway.list_captured)}".replace("'", "")
    assert f"`{signature}`" in section("## payment_gateway")


@pytest.mark.parametrize("name", HOOKS)
def test_the_document_says_of_each_hook_what_its_docstring_says(name: str) -> None:
    docstring = str(inspect.getdoc(HOOKS[name])).rstrip(".").replace("``", "`")
    assert docstring in " ".join(section(f"## {name}").split())


def test_every_attribute_of_the_host_is_documented() -> None:
    assert set(table("attribute")) == {name for name in vars(Host) if not name.startswith("_")}


def test_every_member_of_a_gateway_is_documented() -> None:
    members = {re.findall(r"\w+", name.removeprefix("async "))[0] for name in table("member")}
    assert members == {name for name in dir(ListingGateway) if not name.startswith("_")}


def test_every_field_of_an_event_is_documented_with_its_values() -> None:
    fields = table("field", section("## topup_outcome"))
    assert set(fields) == set(TopupEvent.__dataclass_fields__)
    outcomes = get_args(get_type_hints(TopupEvent)["outcome"])
    assert set(re.findall(r'`"(\w+)"`', fields["outcome"][0])) == set(outcomes)
    assert re.findall(r'`"(\w+)"`', fields["way"][0]) == [way.value for way in Way]
    assert re.findall(r'`"(\w+)"`', fields["reason"][0]) == [HoldReason.AMOUNT_MISMATCH.value]


def test_the_errors_of_a_gateway_are_raised_as_documented() -> None:
    public = {
        name: getattr(openwebui_billing_reconcile, name) for name in openwebui_billing_reconcile.__all__
    }
    raised = {type(eval(call, {}, public)) for call in table("error")}  # the document is our own
    assert raised == {errors.GatewayError, *errors.GatewayError.__subclasses__()}


def test_every_name_for_annotations_can_be_imported() -> None:
    (line,) = re.findall(r"^- For annotations (.*) can be imported", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", line)) <= set(openwebui_billing_reconcile.__all__)


def test_the_documented_numbers_are_the_live_ones() -> None:
    said = " ".join(TEXT.split())
    assert f"waits {isolation.START_TIMEOUT:g} seconds for it, its stop {isolation.STOP_TIMEOUT:g}." in said
    assert f"`{DEADLINE.name}` ({DEADLINE.shown_default})" in said
    assert f"A page has {client.LIST_TIMEOUT:g} seconds" in said
    assert f"at most {cooldown.MAX_COOLDOWN:g} are kept" in said
    assert client.MAX_QUERIES_IN_FLIGHT == 10
    assert "At most ten queries at a time" in said
    assert PAYMENT_ID_PATTERN == "[A-Za-z0-9_-]{1,64}"
    assert "1 to 64 letters, digits, `_` and `-`" in said


def test_the_built_in_plugins_are_documented() -> None:
    (line,) = re.findall(r"Two plugins are built in\.(.*(?:\n  .*)*)", TEXT)
    assert re.findall(r"`(\w+)`", line) == [ours.name for ours in plugins._OURS]


def test_every_hook_has_an_example() -> None:
    assert set().union(*(implemented(code) for code in EXAMPLES.values())) == set(HOOKS)


# --- The payment object --------------------------------------------------------------------------

OBJECT = table("field", section("### The payment object").split("| without a record |")[0])
METADATA = table("field", section("### The payment object").split("\nThe fields of `metadata`")[1])
ORDERED = Money(100_000, "RUB")
RECORD = LocalState(PaymentRecord("r", "pending", "topup", USER_ID, WALLET_ID, ORDERED))
WALLET = Wallet(WALLET_ID, USER_ID, "RUB")


def complete_payment() -> dict[str, Any]:
    """A payment object that has every documented field, and no other."""
    payment = sound_payment() | {"captured_at": "2026-01-01T10:00:00.000Z"}
    return {name: payment[name] for name in OBJECT}


def decision(payment: dict[str, Any], local: LocalState = RECORD) -> Decision:
    parsed = ProviderPayment.parse(payment, PAYMENT_ID)
    return decide(parsed, local, WALLET, USER_ID, Shop(SHOP_ID, False, "RUB"))


def test_a_payment_with_every_documented_field_is_credited() -> None:
    assert set(METADATA) == set(complete_payment()["metadata"])
    assert (
        decision(complete_payment()) == decision(complete_payment(), LocalState()) == Credit(ORDERED, WALLET)
    )


@pytest.mark.parametrize("name", OBJECT)
def test_a_field_is_needed_as_documented(name: str) -> None:
    payment = complete_payment()
    del payment[name]
    match OBJECT[name][0]:
        case "always":
            with pytest.raises(InvalidProviderResponseError):
                decision(payment)
        case "for a credit":
            assert decision(payment) == Hold(HoldReason.INCOMPLETE)
        case needed:
            assert needed == "no"
            assert decision(payment) == Credit(ORDERED, WALLET)


@pytest.mark.parametrize("name", [name for name, (needed, _) in OBJECT.items() if needed != "always"])
@pytest.mark.parametrize("status", ["succeeded", "canceled"])
def test_a_field_that_is_none_is_malformed_as_documented(name: str, status: str) -> None:
    held = decision(complete_payment() | {"status": status, "paid": status == "succeeded", name: None})
    assert (held == Hold(HoldReason.MALFORMED)) is (name != "captured_at")


def test_a_canceled_payment_that_is_paid_is_malformed() -> None:
    assert decision(complete_payment() | {"status": "canceled"}) == Hold(HoldReason.MALFORMED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("paid", False),
        ("refunded_amount", {"value": "0.01", "currency": "RUB"}),
        ("test", True),
        ("recipient", {"account_id": "another"}),
    ],
)
def test_what_holds_a_payment_is_documented(name: str, value: object) -> None:
    held = decision(complete_payment() | {name: value})
    assert isinstance(held, Hold)
    assert re.findall(r"held as `(\w+)`", OBJECT[name][1]) == [held.reason.value]


@pytest.mark.parametrize("name", METADATA)
def test_a_field_of_the_metadata_is_needed_without_a_record_as_documented(name: str) -> None:
    payment = complete_payment()
    del payment["metadata"][name]
    parsed = ProviderPayment.parse(payment, PAYMENT_ID)
    outcome = decision(payment, LocalState())
    owner = owner_of(parsed, LocalState(), WALLET if parsed.topup.wallet_id else None)
    is_credited = isinstance(outcome, Credit)
    assert (is_credited, owner) == {
        "needed": (False, None),
        "needed in a list": (True, None),
        "no": (True, USER_ID),
    }[METADATA[name][0]]
    assert name != "user_id" or outcome == NotOwned()
    assert decision(payment) == Credit(ORDERED, WALLET)
