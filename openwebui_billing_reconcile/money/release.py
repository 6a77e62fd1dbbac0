"""What an administrator may release: what the provider really holds of a payment, to its owner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from .rules import (
    AlreadyCredited,
    Cancel,
    Credit,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    StillPending,
    decide,
    named_wallet,
)
from .values import PENDING, LocalState, Money, ProviderPayment, Wallet

RELEASABLE: Final = frozenset(
    {
        HoldReason.AMOUNT_MISMATCH,
        HoldReason.REFUNDED,
        HoldReason.TEST_PAYMENT,
        HoldReason.WALLET_MISSING,
        HoldReason.SUCCEEDED_WITHOUT_LEDGER,
    }
)
"""The holds whose obstacle a person can judge. No other can be released."""

UNCREDITED: Final = "uncredited"
"""In the place of a hold's code: the payment adds up, and nobody has credited it."""

ReleaseReason: TypeAlias = HoldReason | Literal["uncredited"]


@dataclass(frozen=True, slots=True)
class NotHeld:
    """There is nothing that a release for this reason could do."""


def decide_release(
    payment: ProviderPayment,
    local: LocalState,
    wallet: Wallet | None,
    own_wallet: Wallet | None,
    user_id: str,
    shop: Shop,
    reason: ReleaseReason,
) -> Credit | AlreadyCredited | NotOwned | Hold | NotHeld:
    """Return what a release for ``reason`` does: a ``Credit``; anything else refuses it.

    Of a held payment the same decision is made once more, with what the provider holds as the amount and the
    named obstacle taken away. Any other obstacle still holds it. ``wallet`` is as in ``decide``,
    ``own_wallet`` the user's own in the payment's currency.
    """
    current = decide(payment, local, wallet, user_id, shop)
    if isinstance(current, Credit) and reason == UNCREDITED:
        return current
    if isinstance(current, Credit | StillPending | Cancel):
        return NotHeld()
    if not isinstance(current, Hold):
        return current
    held = payment.held
    if current.reason != reason or reason not in RELEASABLE or held is None or not held.kopeks:
        return current
    payment, local = _with_amount(payment, local, held)
    match reason:
        case HoldReason.TEST_PAYMENT:
            shop = replace(shop, accepts_test_payments=True)
        case HoldReason.SUCCEEDED_WITHOUT_LEDGER if local.record:
            local = replace(local, record=replace(local.record, status=PENDING))
        case HoldReason.WALLET_MISSING:
            payment, local = _without_wallet(payment, local)
    target = wallet if named_wallet(payment, local) else own_wallet
    decision = decide(payment, local, target, user_id, shop)
    return decision if isinstance(decision, Credit | Hold) else Hold(HoldReason.NOT_PAID)


def _with_amount(
    payment: ProviderPayment, local: LocalState, held: Money
) -> tuple[ProviderPayment, LocalState]:
    """The payment and the order as if ``held`` had been ordered and paid; the order keeps its currency."""
    payment = replace(
        payment, amount=held, refunded=None, topup=replace(payment.topup, amount_kopeks=held.kopeks)
    )
    if local.record is None:
        return payment, local
    ordered = Money(held.kopeks, local.record.money.currency)
    return payment, replace(local, record=replace(local.record, money=ordered))


def _without_wallet(payment: ProviderPayment, local: LocalState) -> tuple[ProviderPayment, LocalState]:
    payment = replace(payment, topup=replace(payment.topup, wallet_id=None))
    return payment, replace(local, record=local.record and replace(local.record, wallet_id=None))
