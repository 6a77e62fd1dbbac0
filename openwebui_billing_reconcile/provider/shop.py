"""The host's side of a payment, from what its gateway and the flags say."""

from __future__ import annotations

from openwebui_billing_reconcile.hookspecs import PaymentGateway
from openwebui_billing_reconcile.money.rules import Shop
from openwebui_billing_reconcile.settings import Settings


def shop_of(gateway: PaymentGateway, settings: Settings, currency: str) -> Shop:
    """Return the host's side of payments that ``gateway`` knows; ``currency`` is the host's default.

    Whatever decides about a payment takes it from here, in the host or without it, so that all decide alike.
    """
    return Shop(gateway.account_id, settings.accepts_test_payments(gateway.is_test_shop), currency)


def is_test_key(secret_key: object) -> bool | None:
    """Return whether a shop's secret key is a test shop's, which begins so; ``None``: there is no key."""
    return str(secret_key).startswith("test_") if secret_key else None
