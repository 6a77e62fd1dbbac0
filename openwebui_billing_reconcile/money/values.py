"""Values: payment id, money, the provider's payment, the host's records, the result.

All of it is pure. Money is an integer of kopeks with its currency and never passes through a float.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from openwebui_billing_reconcile.errors import InvalidPaymentIdError, InvalidProviderResponseError

_T = TypeVar("_T")

# No '.', '/', '?', '#' or '%': the host's client and the official SDK put the id into the URL unescaped.
PAYMENT_ID_PATTERN: Final = "[A-Za-z0-9_-]{1,64}"
_PAYMENT_ID = re.compile(PAYMENT_ID_PATTERN)
_PROVIDER_VALUE = re.compile(r"([0-9]{1,12})\.([0-9]{2})")
_METADATA_KOPEKS = re.compile(r"[1-9][0-9]{0,14}")
_CURRENCY = re.compile(r"[A-Z]{3}")

SUCCEEDED: Final = "succeeded"
CANCELED: Final = "canceled"
PENDING: Final = "pending"
FAILED: Final = "failed"
WAITING_FOR_CAPTURE: Final = "waiting_for_capture"
REPAIRABLE: Final = frozenset({PENDING, FAILED, CANCELED})
"""Statuses that a credit overrules. One that we do not know was given by somebody for a reason."""

UNDECIDED: Final = frozenset({PENDING, WAITING_FOR_CAPTURE})
_PROVIDER_STATUSES: Final = UNDECIDED | {SUCCEEDED, CANCELED}

TOPUP: Final = "topup"

RECONCILED_BY: Final = "reconciled_by"
CAPTURED_AT: Final = "captured_at"
RELEASE_ID: Final = "release_id"
"""Keys in the metadata that is stored with a credit of ours: which way it came, the provider's time of
capture, and which release it was. A webhook leaves none, so lost ones can be counted from the tables."""


def parse_payment_id(value: object) -> str:
    """The payment id in ``value``, without surrounding white space.

    Raises ``InvalidPaymentIdError`` for anything but 1 to 64 letters, digits, ``_`` and ``-``.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidPaymentIdError("payment_id is required: send the id the top-up returned")
    payment_id = value.strip()
    if not _PAYMENT_ID.fullmatch(payment_id):
        raise InvalidPaymentIdError("payment_id is not valid: send the id the top-up returned, unchanged")
    return payment_id


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in kopeks (hundredths) of a currency."""

    kopeks: int
    currency: str

    @property
    def value(self) -> str:
        """The amount as the provider writes it, "1000.00"."""
        return f"{self.kopeks // 100}.{self.kopeks % 100:02d}"

    @classmethod
    def parse(cls, amount: object) -> Money | None:
        """Parse ``{"value": "1000.00", "currency": "RUB"}``; ``None`` for anything else."""
        if not isinstance(amount, Mapping):
            return None
        value, currency = amount.get("value"), amount.get("currency")
        if not isinstance(value, str) or not isinstance(currency, str):
            return None
        match = _PROVIDER_VALUE.fullmatch(value)
        if not match or not _CURRENCY.fullmatch(currency):
            return None
        return cls(int(match[1]) * 100 + int(match[2]), currency)


@dataclass(frozen=True, slots=True)
class TopupMetadata:
    """What the host wrote on the payment when it created it; ``None`` where nothing readable stands."""

    kind: str | None = None
    user_id: str | None = None
    wallet_id: str | None = None
    amount_kopeks: int | None = None


@dataclass(frozen=True, slots=True)
class ProviderPayment:
    """A payment as the provider tells it.

    ``None`` means absent. A field that is there and cannot be read is named in ``malformed`` (metadata's own
    fields as ``metadata.…``) and reads as absent. ``captured_at`` is the provider's text, ISO 8601; nothing
    is decided by it.
    """

    id: str
    status: str
    paid: bool | None
    amount: Money | None
    test: bool
    account_id: str | None
    refunded: Money | None
    captured_at: str | None
    topup: TopupMetadata
    metadata: Mapping[str, Any]
    malformed: frozenset[str]

    @property
    def is_refunded(self) -> bool:
        """Whether money was given back; the provider says 0.00 where none was."""
        return self.refunded is not None and self.refunded.kopeks > 0

    @property
    def held(self) -> Money | None:
        """What the provider holds of this payment: paid less refunded; ``None`` where that cannot be told."""
        if self.amount is None or "refunded_amount" in self.malformed:
            return None
        refunded = self.refunded or Money(0, self.amount.currency)
        if refunded.currency != self.amount.currency or refunded.kopeks > self.amount.kopeks:
            return None
        return Money(self.amount.kopeks - refunded.kopeks, self.amount.currency)

    @classmethod
    def parse(cls, answer: object, payment_id: str) -> ProviderPayment:
        """Parse the provider's answer about the payment ``payment_id``.

        Raises ``InvalidProviderResponseError`` when it is no payment object, has no known status, or is about
        another payment.
        """
        if not isinstance(answer, Mapping):
            raise InvalidProviderResponseError("Payment provider sent an unreadable answer")
        if answer.get("id") != payment_id:
            raise InvalidProviderResponseError("Payment provider answered about another payment")
        status = answer.get("status")
        if not isinstance(status, str) or status not in _PROVIDER_STATUSES:
            raise InvalidProviderResponseError("Payment provider sent an unknown payment status")
        fields = _Fields()
        recipient = fields.read(answer, "recipient", _mapping) or {}
        metadata = fields.read(answer, "metadata", _mapping) or {}
        return cls(
            id=payment_id,
            status=status,
            paid=fields.read(answer, "paid", _boolean),
            amount=fields.read(answer, "amount", Money.parse),
            test=fields.read(answer, "test", _boolean) or False,
            account_id=fields.read(recipient, "account_id", _text, "recipient."),
            refunded=fields.read(answer, "refunded_amount", Money.parse),
            captured_at=_text(answer.get("captured_at")),
            topup=TopupMetadata(
                kind=fields.read(metadata, "kind", _text, "metadata."),
                user_id=fields.read(metadata, "user_id", _text, "metadata."),
                wallet_id=fields.read(metadata, "wallet_id", _text, "metadata."),
                amount_kopeks=fields.read(metadata, "amount_kopeks", _kopeks, "metadata."),
            ),
            metadata=metadata,
            malformed=frozenset(fields.malformed),
        )


def parse_listed(item: object) -> ProviderPayment | None:
    """Parse an item of the provider's list; ``None`` where it is no payment."""
    payment_id = item.get("id") if isinstance(item, Mapping) else None
    try:
        return ProviderPayment.parse(item, parse_payment_id(payment_id))
    except (InvalidPaymentIdError, InvalidProviderResponseError):
        return None


class _Fields:
    """Reads fields one by one and remembers those that were there and could not be read."""

    def __init__(self) -> None:
        self.malformed: set[str] = set()

    def read(
        self,
        source: Mapping[str, Any],
        name: str,
        reading: Callable[[object], _T | None],
        prefix: str = "",
    ) -> _T | None:
        if name not in source:
            return None
        value = reading(source[name])
        if value is None:
            self.malformed.add(prefix + name)
        return value


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None


def parse_time(text: object) -> float | None:
    """Return the epoch seconds of a provider's timestamp; ``None`` where it is none with an offset."""
    try:
        moment = datetime.fromisoformat(str(text))
        return moment.timestamp() if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _kopeks(value: object) -> int | None:
    """Metadata values are strings at the provider; the host sends an int, so both are read."""
    if not isinstance(value, int | str):
        return None
    digits = str(value)  # of a bool it is no digits
    return int(digits) if _METADATA_KOPEKS.fullmatch(digits) else None


@dataclass(frozen=True, slots=True)
class PaymentRecord:
    """The host's own row about a payment. ``wallet_id`` is ``None`` where the row names no wallet."""

    id: str
    status: str
    kind: str
    user_id: str
    wallet_id: str | None
    money: Money


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A top-up entry of the host's ledger that names the payment: the money itself.

    ``release_id`` is there where an administrator released a held payment by it.
    """

    id: str
    user_id: str
    wallet_id: str
    money: Money
    release_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet, as far as crediting needs it."""

    id: str
    user_id: str
    currency: str


@dataclass(frozen=True, slots=True)
class LocalState:
    """All that the host's tables say about a payment at one moment.

    ``topups`` are the entries that credit it. ``other_entries`` is how many entries of any other type name
    it, counted only while there is no top-up.
    """

    record: PaymentRecord | None = None
    topups: tuple[LedgerEntry, ...] = ()
    other_entries: int = 0

    @property
    def status(self) -> str | None:
        """The record's status; ``None`` where there is no record."""
        return self.record.status if self.record else None

    @property
    def money(self) -> Money | None:
        """What was ordered, or else credited; ``None`` where there is neither."""
        if self.record:
            return self.record.money
        return self.topups[0].money if self.topups else None


@dataclass(frozen=True, slots=True)
class CreditedTopup:
    """A credit in the ledger. ``credited_at`` is in epoch seconds.

    ``reconciled_by`` is the way it came, ``None`` for the webhook; ``captured_at`` is the provider's text.
    """

    payment_id: str
    money: Money
    credited_at: int
    reconciled_by: str | None
    captured_at: str | None


@dataclass(frozen=True, slots=True)
class OpenTopup:
    """A pending top-up of the host's. ``created_at`` is in epoch seconds."""

    payment_id: str
    user_id: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """The state of a top-up after a reconcile call.

    ``provider_status`` is the provider's, or ``succeeded`` where a proved credit made asking needless;
    ``payment_status`` is the local record's, ``None`` where there is no record; ``credited`` is true only
    when the ledger holds this payment's credit. ``is_new``: a call of ours has just credited it, or has had
    the host record the cancellation; else it was so before, or others did it, or nothing has been done.
    """

    payment_id: str
    provider_status: str
    payment_status: str | None
    credited: bool
    is_new: bool = field(default=False, compare=False)  # it is no part of the state


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """What a release did, or would do where it was not confirmed; then ``credited`` is false.

    As ``ReconcileResult``. ``amount_kopeks`` of ``currency`` go to the wallet ``wallet_id`` of ``user_id``;
    ``None`` for a wallet that is yet to be created.
    """

    payment_id: str
    provider_status: str
    payment_status: str | None
    credited: bool
    amount_kopeks: int
    currency: str
    user_id: str
    wallet_id: str | None


@dataclass(frozen=True, slots=True)
class VisitedTopup:
    """The state of one of a user's open top-ups after a visit.

    As ``ReconcileResult``. Where reconciling it failed, ``reason`` is the error's code, and
    ``provider_status`` is ``None`` unless the provider answered.
    """

    payment_id: str
    provider_status: str | None
    payment_status: str | None
    credited: bool
    reason: str | None = None
