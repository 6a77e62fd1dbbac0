"""When money moves: the whole rule, as pure functions over typed values.

It fails closed. Whatever is missing, malformed or contradictory is a ``Hold``: nobody is credited, nothing is
lost, and the reason says what a person has to look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .values import (
    CANCELED,
    SUCCEEDED,
    TOPUP,
    UNDECIDED,
    Books,
    LedgerLine,
    Money,
    ProviderPayment,
    Wallet,
)


class HoldReason(StrEnum):
    """Why a payment is not credited; the value is the code in the log line."""

    NOT_A_TOPUP = "not_a_topup"
    CREDITED_ELSEWHERE = "credited_elsewhere"
    SUCCEEDED_WITHOUT_LEDGER = "succeeded_without_ledger"
    SETTLED_BY_HAND = "settled_by_hand"
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
    def words(self) -> str:
        """The reason for the user, in English."""
        return _WORDS[self]


_CONTACT = "Nothing was credited; please contact support."
_WORDS = {
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
class Proved:
    """The ledger holds this payment's credit, for the asker."""

    line: LedgerLine


@dataclass(frozen=True, slots=True)
class Foreign:
    """Not proved to be the asker's payment."""


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
class Wait:
    """Undecided at the provider."""


OwnVerdict = Proved | Foreign | Hold
Verdict = OwnVerdict | Credit | Cancel | Wait


def judge_books(books: Books, asker: str) -> OwnVerdict | None:
    """What our own tables settle without asking anybody; ``None``: only the provider can tell.

    The ledger decides, not the payment's status: a status can be overwritten, a ledger entry is the money.
    """
    record = books.record
    owner = _owner_in_books(books)
    if owner is not None and owner != asker:
        return Foreign()
    if books.topups:
        return _proof(books, asker)
    if record is None:
        return None
    if record.kind != TOPUP:
        return Hold(HoldReason.NOT_A_TOPUP)
    if record.status == SUCCEEDED:
        # The host's own path returns early for such a payment for ever, so no call of ours could credit it.
        return Hold(HoldReason.SUCCEEDED_WITHOUT_LEDGER)
    if books.others:
        return Hold(HoldReason.SETTLED_BY_HAND)
    return None


def judge(payment: ProviderPayment, books: Books, wallet: Wallet | None, asker: str, shop: Shop) -> Verdict:
    """What is to be done about ``payment`` for ``asker``.

    ``wallet`` is the one that ``named_wallet`` names, or else the asker's own in the payment's currency;
    ``None`` where there is no such wallet.
    """
    settled = judge_books(books, asker)
    if settled is not None:
        return settled
    if books.record is None:
        if payment.topup.user_id != asker:
            return Foreign()
        if payment.topup.kind != TOPUP:
            return Hold(HoldReason.NOT_A_TOPUP)
        if books.others:
            return Hold(HoldReason.SETTLED_BY_HAND)
    if payment.account_id and shop.account_id and payment.account_id != shop.account_id:
        return Hold(HoldReason.OTHER_SHOP)
    if payment.status in UNDECIDED:
        return Wait()
    if payment.status == CANCELED:
        return Cancel()
    return _judge_succeeded(payment, books, wallet, asker, shop)


def named_wallet(payment: ProviderPayment, books: Books) -> str | None:
    """The wallet the payment is for. With a record of our own the provider's metadata has no say."""
    return books.record.wallet_id if books.record else payment.topup.wallet_id


def _owner_in_books(books: Books) -> str | None:
    if books.record:
        return books.record.user_id
    return books.topups[0].user_id if books.topups else None


def _proof(books: Books, asker: str) -> Proved | Hold:
    """The entry proves the credit only when it is the one we would have written."""
    record = books.record
    for line in books.topups:
        as_expected = line.user_id == asker and line.money.kopeks > 0
        if record:
            as_expected = (
                as_expected and line.money == record.money and record.wallet_id in {None, line.wallet_id}
            )
        if not as_expected:
            return Hold(HoldReason.CREDITED_ELSEWHERE)
    return Proved(books.topups[0])


def _judge_succeeded(
    payment: ProviderPayment, books: Books, wallet: Wallet | None, asker: str, shop: Shop
) -> Credit | Hold:
    unread = payment.malformed
    if books.record:  # it decides; what the metadata's own fields say does not matter
        unread = frozenset(name for name in unread if not name.startswith("metadata."))
    if unread:
        return Hold(HoldReason.MALFORMED)
    if payment.paid is None or payment.amount is None:
        return Hold(HoldReason.INCOMPLETE)
    if not payment.paid:
        return Hold(HoldReason.NOT_PAID)
    if payment.refunded and payment.refunded.kopeks:
        return Hold(HoldReason.REFUNDED)
    if payment.test and not shop.accepts_test_payments:
        return Hold(HoldReason.TEST_PAYMENT)
    mismatch = _amount_mismatch(payment, payment.amount, books)
    if mismatch:
        return Hold(mismatch)
    return _judge_wallet(payment, payment.amount, books, wallet, asker, shop)


def _amount_mismatch(payment: ProviderPayment, paid: Money, books: Books) -> HoldReason | None:
    if books.record:
        if paid.currency != books.record.money.currency:
            return HoldReason.CURRENCY_MISMATCH
        ordered: int | None = books.record.money.kopeks
    else:
        ordered = payment.topup.amount_kopeks
    if paid.kopeks == 0 or ordered not in {None, paid.kopeks}:
        return HoldReason.AMOUNT_MISMATCH
    return None


def _judge_wallet(
    payment: ProviderPayment,
    money: Money,
    books: Books,
    wallet: Wallet | None,
    asker: str,
    shop: Shop,
) -> Credit | Hold:
    if wallet is None:
        if named_wallet(payment, books) is None and money.currency == shop.default_currency:
            return Credit(money, None)
        return Hold(HoldReason.WALLET_MISSING)
    if wallet.user_id != asker:
        return Hold(HoldReason.WALLET_FOREIGN)
    if wallet.currency != money.currency:
        return Hold(HoldReason.WALLET_CURRENCY)
    return Credit(money, wallet)


__all__ = [
    "Cancel",
    "Credit",
    "Foreign",
    "Hold",
    "HoldReason",
    "OwnVerdict",
    "Proved",
    "Shop",
    "Verdict",
    "Wait",
    "judge",
    "judge_books",
    "named_wallet",
]
