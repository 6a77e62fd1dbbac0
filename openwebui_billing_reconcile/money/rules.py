"""The rules of money, as pure functions over typed values.

They fail closed: whatever is missing, malformed or contradictory is a ``Hold``. Nobody is credited, nothing
is lost, and the reason says what a person has to look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .values import (
    CANCELED,
    REPAIRABLE,
    SUCCEEDED,
    TOPUP,
    UNDECIDED,
    LedgerEntry,
    LocalState,
    Money,
    PaymentRecord,
    ProviderPayment,
    Wallet,
)


class HoldReason(StrEnum):
    """Why a payment is held, not credited. The value is the code in logs, events and answers."""

    NOT_A_TOPUP = "not_a_topup"
    CREDITED_ELSEWHERE = "credited_elsewhere"
    SUCCEEDED_WITHOUT_LEDGER = "succeeded_without_ledger"
    SETTLED_BY_HAND = "settled_by_hand"
    UNKNOWN_STATUS = "unknown_status"
    OTHER_SHOP = "other_shop"
    MALFORMED = "malformed"
    INCOMPLETE = "incomplete"
    NOT_PAID = "not_paid"
    REFUNDED = "refunded"
    TEST_PAYMENT = "test_payment"
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    WALLET_MISSING = "wallet_missing"
    WALLET_FOREIGN = "wallet_foreign"
    WALLET_CURRENCY = "wallet_currency"

    @property
    def message(self) -> str:
        """The reason in words for the user, in English."""
        return _MESSAGES[self]


_CONTACT = "Nothing was credited; please contact support."
_MESSAGES = {
    HoldReason.NOT_A_TOPUP: "This payment is not a wallet top-up.",
    HoldReason.CREDITED_ELSEWHERE: (
        "This payment was already credited in a different way. Please contact support."
    ),
    HoldReason.SUCCEEDED_WITHOUT_LEDGER: (
        f"This payment is marked as done, but the wallet has no entry for it. {_CONTACT}"
    ),
    HoldReason.SETTLED_BY_HAND: (
        "This payment was already settled by hand. Please contact support if that is wrong."
    ),
    HoldReason.UNKNOWN_STATUS: f"This payment is marked in a way that is not known here. {_CONTACT}",
    HoldReason.OTHER_SHOP: f"This payment was made to another shop. {_CONTACT}",
    HoldReason.MALFORMED: f"The payment provider's answer cannot be read in full. {_CONTACT}",
    HoldReason.INCOMPLETE: f"The payment provider's answer is incomplete. {_CONTACT}",
    HoldReason.NOT_PAID: f"The payment provider has not received the money. {_CONTACT}",
    HoldReason.REFUNDED: "This payment was refunded, so it is not credited.",
    HoldReason.TEST_PAYMENT: "This is a test payment, so it is not credited.",
    HoldReason.AMOUNT_MISMATCH: f"The paid amount differs from the ordered amount. {_CONTACT}",
    HoldReason.CURRENCY_MISMATCH: f"The paid currency differs from the ordered one. {_CONTACT}",
    HoldReason.WALLET_MISSING: f"The wallet for this payment does not exist. {_CONTACT}",
    HoldReason.WALLET_FOREIGN: f"The wallet for this payment is not yours. {_CONTACT}",
    HoldReason.WALLET_CURRENCY: f"The wallet for this payment has another currency. {_CONTACT}",
}


@dataclass(frozen=True, slots=True)
class Shop:
    """The host's side of the payment: its account at the provider and what it accepts.

    ``account_id`` is ``None`` where the host does not say which shop it is.
    """

    account_id: str | None
    accepts_test_payments: bool
    default_currency: str


@dataclass(frozen=True, slots=True)
class AlreadyCredited:
    """The ledger holds this payment's credit, for this user."""

    entry: LedgerEntry


@dataclass(frozen=True, slots=True)
class NotOwned:
    """The payment is not proved to be this user's."""


@dataclass(frozen=True, slots=True)
class Hold:
    """It does not add up; a person has to look."""

    reason: HoldReason


@dataclass(frozen=True, slots=True)
class Credit:
    """Credit ``money`` to ``wallet``; ``None``: to a wallet yet to be created in the default currency."""

    money: Money
    wallet: Wallet | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The provider canceled it: record that."""


@dataclass(frozen=True, slots=True)
class StillPending:
    """Undecided at the provider."""


LocalDecision = AlreadyCredited | NotOwned | Hold
Decision = LocalDecision | Credit | Cancel | StillPending


def decide_locally(local: LocalState, user_id: str) -> LocalDecision | None:
    """Return what the host's own tables settle for ``user_id``; ``None``: only the provider can tell.

    The ledger decides, not the payment's status: a status can be overwritten, a ledger entry is the money.
    """
    record = local.record
    owner = local_owner(local)
    if owner is not None and owner != user_id:
        return NotOwned()
    if local.topups:
        return _check_entries(local, user_id)
    if record is None:
        return None
    if record.kind != TOPUP:
        return Hold(HoldReason.NOT_A_TOPUP)
    if record.status == SUCCEEDED:
        # The host's own path returns early for such a payment for ever, so no call of ours could credit it.
        return Hold(HoldReason.SUCCEEDED_WITHOUT_LEDGER)
    if record.status not in REPAIRABLE:
        return Hold(HoldReason.UNKNOWN_STATUS)
    if local.other_entries:
        return Hold(HoldReason.SETTLED_BY_HAND)
    return None


def decide(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, user_id: str, shop: Shop
) -> Decision:
    """Return what is to be done about ``payment`` for ``user_id``.

    ``wallet`` is the one that ``named_wallet`` names, or else the user's own in the payment's currency;
    ``None`` where there is no such wallet.
    """
    settled = decide_locally(local, user_id)
    if settled is not None:
        return settled
    if local.record is None:
        if payment.topup.user_id != user_id:
            return NotOwned()
        if payment.topup.kind != TOPUP:
            return Hold(HoldReason.NOT_A_TOPUP)
        if local.other_entries:
            return Hold(HoldReason.SETTLED_BY_HAND)
    if payment.account_id and shop.account_id and payment.account_id != shop.account_id:
        return Hold(HoldReason.OTHER_SHOP)
    if payment.status in UNDECIDED:
        return StillPending()
    if payment.status == CANCELED:
        return Hold(HoldReason.MALFORMED) if payment.paid or _unreadable(payment, local) else Cancel()
    return _decide_succeeded(payment, local, wallet, user_id, shop)


def owner_of(payment: ProviderPayment, local: LocalState, wallet: Wallet | None) -> str | None:
    """Return the user whose top-up a payment is; ``None``: it is no top-up of this host.

    ``wallet`` is the one that its metadata names, if it exists here. Without a record and an entry only a
    wallet of the user whom the metadata names proves that the payment was made here: another system may share
    the shop.
    """
    if local.record:
        return local.record.user_id if local.record.kind == TOPUP else None
    if local.topups:
        return local.topups[0].user_id
    if payment.topup.kind != TOPUP or wallet is None or wallet.user_id != payment.topup.user_id:
        return None
    return wallet.user_id


def named_wallet(payment: ProviderPayment, local: LocalState) -> str | None:
    """Return the id of the wallet the payment is for. The local record overrules the provider's metadata."""
    return local.record.wallet_id if local.record else payment.topup.wallet_id


def local_owner(local: LocalState) -> str | None:
    """Return whose payment it is by record or ledger; ``None``: they do not say."""
    if local.record:
        return local.record.user_id
    return local.topups[0].user_id if local.topups else None


def _check_entries(local: LocalState, user_id: str) -> AlreadyCredited | Hold:
    """An entry proves the credit only when it is the one we would have written, or an administrator's."""
    if all(_is_as_expected(entry, local.record, user_id) for entry in local.topups):
        return AlreadyCredited(local.topups[0])
    return Hold(HoldReason.CREDITED_ELSEWHERE)


def _is_as_expected(entry: LedgerEntry, record: PaymentRecord | None, user_id: str) -> bool:
    if entry.user_id != user_id or entry.money.kopeks <= 0:
        return False
    if record is None or entry.release_id:
        return True
    return entry.money == record.money and record.wallet_id in {None, entry.wallet_id}


def _decide_succeeded(
    payment: ProviderPayment, local: LocalState, wallet: Wallet | None, user_id: str, shop: Shop
) -> Credit | Hold:
    if _unreadable(payment, local):
        return Hold(HoldReason.MALFORMED)
    if payment.paid is None or payment.amount is None:
        return Hold(HoldReason.INCOMPLETE)
    if not payment.paid:
        return Hold(HoldReason.NOT_PAID)
    if payment.is_refunded:
        return Hold(HoldReason.REFUNDED)
    if payment.test and not shop.accepts_test_payments:
        return Hold(HoldReason.TEST_PAYMENT)
    mismatch = _amount_mismatch(payment, payment.amount, local)
    if mismatch:
        return Hold(mismatch)
    return _decide_wallet(payment, payment.amount, local, wallet, user_id, shop)


def _unreadable(payment: ProviderPayment, local: LocalState) -> frozenset[str]:
    if local.record:  # it decides; what the metadata's own fields say does not matter
        return frozenset(name for name in payment.malformed if not name.startswith("metadata."))
    return payment.malformed


def _amount_mismatch(payment: ProviderPayment, paid: Money, local: LocalState) -> HoldReason | None:
    if local.record:
        if paid.currency != local.record.money.currency:
            return HoldReason.CURRENCY_MISMATCH
        ordered: int | None = local.record.money.kopeks
    else:
        ordered = payment.topup.amount_kopeks
    if paid.kopeks == 0 or ordered not in {None, paid.kopeks}:
        return HoldReason.AMOUNT_MISMATCH
    return None


def _decide_wallet(
    payment: ProviderPayment,
    money: Money,
    local: LocalState,
    wallet: Wallet | None,
    user_id: str,
    shop: Shop,
) -> Credit | Hold:
    if wallet is None:
        if named_wallet(payment, local) is None and money.currency == shop.default_currency:
            return Credit(money, None)
        return Hold(HoldReason.WALLET_MISSING)
    if wallet.user_id != user_id:
        return Hold(HoldReason.WALLET_FOREIGN)
    if wallet.currency != money.currency:
        return Hold(HoldReason.WALLET_CURRENCY)
    return Credit(money, wallet)
