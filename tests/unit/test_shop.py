"""The host's side of a payment is put together in one place, so that sweep and audit decide alike."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from openwebui_billing_reconcile.money.rules import Shop
from openwebui_billing_reconcile.provider.shop import shop_of
from openwebui_billing_reconcile.settings import TEST_PAYMENTS, Settings
from tests.unit.account import Account

PACKAGE = Path(__file__).parents[2] / "openwebui_billing_reconcile"


@pytest.mark.parametrize("flag", ["true", "false"])
def test_it_is_what_gateway_flags_and_host_say(flag: str) -> None:
    gateway = Account()
    gateway.account_id = "100500"
    settings = Settings.read({TEST_PAYMENTS.name: flag})
    assert shop_of(gateway, settings, "USD") == Shop("100500", flag == "true", "USD")


def test_only_one_place_puts_it_together() -> None:
    places = [
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == Shop.__name__
    ]
    assert places == ["provider/shop.py"]
