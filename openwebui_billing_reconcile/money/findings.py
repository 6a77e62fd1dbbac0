"""What an audit says about a payment, as pure functions over typed values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .release import UNCREDITED, decide_release
from .rules import AlreadyCredited, Credit, Hold, HoldReason, Shop, decide, named_wallet
from .values import SUCCEEDED, LedgerEntry, LocalState, Money, ProviderPayment, Wallet


class FindingClass(StrEnum):
    """What a finding is about. The value is the code in answers."""

    UNCREDITED = "uncredited"
    """Paid, in order, and not credited."""
    HELD = "held"
    """Paid and not credited, since it does not add up."""
    REFUNDED_AFTER_CREDIT = "refunded_after_credit"
    CREDITED_UNPAID = "credited_unpaid"
    """Credited, and the provider does not say that it was paid."""
    AMOUNT_DIFFERS = "amount_differs"
    """Credited with another amount than was paid, or more than once."""
    OPEN_TOO_LONG = "open_too_long"
    """Not paid, and pending for longer than the sweep asks."""
    UNKNOWN_HERE = "unknown_here"
    """Paid for a user of this host, and there is neither a record nor the wallet it names."""


class NoFinding(StrEnum):
    """Why a payment is none."""

    FINE = "fine"
    SETTLED_BY_HAND = "settled_by_hand"
    OTHER = "other"
    """No top-up of this host."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should look at.

    ``money`` is what the provider holds (paid less refunded), or of a refund after the credit what the wallet
    has beyond that; what was credited or ordered where the provider holds nothing or was not asked; ``None``
    where its answer does not say. ``reason`` is what a release has to name: the code of a hold, or
    ``UNCREDITED``. ``captured_at`` is the provider's text.
    """

    kind: FindingClass
    payment_id: str
    user_id: str
    wallet_id: str | None
    money: Money | None
    reason: str | None = None
    captured_at: str | None = None
    releasable: bool = False


@dataclass(frozen=True, slots=True)
class AuditedState:
    """What the host's tables say about a payment of ``user_id``.

    ``wallet`` is the one it names, or else the user's own in its currency; ``own_wallet`` is the latter in
    any case. ``adjusted_kopeks`` is by how much other entries that name the payment have changed the wallet;
    it counts only where the provider gave money back after the credit.
    """

    user_id: str
    local: LocalState
    wallet: Wallet | None = None
    own_wallet: Wallet | None = None
    adjusted_kopeks: int = 0


def find(payment: ProviderPayment, state: AuditedState, shop: Shop) -> Finding | NoFinding:
    """Return what there is to say about a payment that the provider knows."""
    match decide(payment, state.local, state.wallet, state.user_id, shop):
        case AlreadyCredited() if len(state.local.topups) > 1:
            return _finding(FindingClass.AMOUNT_DIFFERS, payment, state, payment.held)
        case AlreadyCredited(entry):
            return check_credit(payment.id, payment, entry, state.adjusted_kopeks)
        case Credit(money):
            return _finding(
                FindingClass.UNCREDITED, payment, state, money, reason=UNCREDITED, releasable=True
            )
        case Hold(HoldReason.NOT_A_TOPUP):
            return NoFinding.OTHER
        case Hold(HoldReason.SETTLED_BY_HAND):
            return NoFinding.SETTLED_BY_HAND
        case Hold() if payment.held and not payment.held.kopeks and not state.local.topups:
            return NoFinding.FINE  # all was given back, and the wallet has nothing of it
        case Hold(reason) if payment.status == SUCCEEDED:
            return _held(payment, state, shop, reason)
        case Hold(HoldReason.CREDITED_ELSEWHERE):
            return check_credit(payment.id, payment, state.local.topups[0])
        case _:
            return NoFinding.FINE


def check_credit(
    payment_id: str, payment: ProviderPayment | None, entry: LedgerEntry, adjusted_kopeks: int = 0
) -> Finding | NoFinding:
    """Return what is wrong with a credit; ``payment`` is ``None`` where the provider does not know it.

    ``adjusted_kopeks`` is as in ``AuditedState``.
    """
    fault = _fault(payment, entry, adjusted_kopeks)
    if fault is None:
        return NoFinding.FINE
    kind, money = fault
    captured_at = payment.captured_at if payment else None
    return Finding(kind, payment_id, entry.user_id, entry.wallet_id, money, captured_at=captured_at)


def _fault(
    payment: ProviderPayment | None, entry: LedgerEntry, adjusted_kopeks: int
) -> tuple[FindingClass, Money | None] | None:
    if payment is None or payment.status != SUCCEEDED or not payment.paid:
        return FindingClass.CREDITED_UNPAID, entry.money
    held = payment.held
    if held is None or held.currency != entry.money.currency:
        kind = FindingClass.REFUNDED_AFTER_CREDIT if payment.is_refunded else FindingClass.AMOUNT_DIFFERS
        return kind, held
    excess = entry.money.kopeks + adjusted_kopeks - held.kopeks
    if not excess or (excess < 0 and entry.release_id):  # a release may credit less than was paid
        return None
    if payment.is_refunded and excess > 0:
        return FindingClass.REFUNDED_AFTER_CREDIT, Money(excess, held.currency)
    return FindingClass.AMOUNT_DIFFERS, held


def _held(payment: ProviderPayment, state: AuditedState, shop: Shop, reason: HoldReason) -> Finding:
    is_unknown = state.local.record is None and reason in {
        HoldReason.WALLET_MISSING,
        HoldReason.WALLET_FOREIGN,
    }
    kind = FindingClass.UNKNOWN_HERE if is_unknown else FindingClass.HELD
    released = decide_release(
        payment, state.local, state.wallet, state.own_wallet, state.user_id, shop, reason
    )
    return _finding(
        kind, payment, state, payment.held, reason=reason.value, releasable=isinstance(released, Credit)
    )


def _finding(
    kind: FindingClass,
    payment: ProviderPayment,
    state: AuditedState,
    money: Money | None,
    *,
    reason: str | None = None,
    releasable: bool = False,
) -> Finding:
    wallet_id = named_wallet(payment, state.local) or (state.wallet.id if state.wallet else None)
    return Finding(kind, payment.id, state.user_id, wallet_id, money, reason, payment.captured_at, releasable)
