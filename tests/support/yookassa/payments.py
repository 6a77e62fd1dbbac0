"""The shop's payments and refunds, and how they move from state to state.

A payment is kept as the document the API answers with, so that the control interface can bend it
into any shape, malformed ones included. Nothing expires by itself: a test says so, with a reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from .calls import NewPayment, is_web_address
from .errors import invalid, unknown_payment, unknown_refund
from .money import Money

Document = dict[str, Any]
Notify = Callable[[str, Document], None]

HOLD = timedelta(days=7)
DEFAULT_AMOUNT = Money(100_000, "RUB")
# What the provider keeps of each payment, in thousandths.
FEE_PER_MILLE = 35
CARD = {
    "first6": "555555",
    "last4": "4477",
    "expiry_month": "12",
    "expiry_year": "2030",
    "card_type": "MasterCard",
    "issuer_country": "RU",
}


def timestamp(moment: datetime) -> str:
    """As the provider writes it: UTC, milliseconds, Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_timestamp(value: object) -> datetime | None:
    """A moment in ISO 8601, or None; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is not None and moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment


@dataclass
class Payment:
    """A payment's document, and what the provider knows beyond it."""

    document: Document
    capture: bool = True
    return_url: str | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def status(self) -> object:
        """Whatever the document says, which may be invalid."""
        return self.document.get("status")

    @property
    def created_at(self) -> datetime:
        """The document's own moment, where it has a readable one."""
        return read_timestamp(self.document.get("created_at")) or self.created

    def succeed(self, amount: Money | None = None) -> None:
        """The money is the shop's; less than was held, where only a part is captured."""
        if amount is not None:
            self.document["amount"] = amount.wire()
        self._confirmed()
        self.document |= {
            "status": "succeeded",
            "captured_at": timestamp(datetime.now(UTC)),
            "refundable": True,
        }
        money = Money.read(self.document.get("amount"))
        if money is not None:
            fee = -(-money.kopeks * FEE_PER_MILLE // 1000)
            self.document["income_amount"] = Money(money.kopeks - fee, money.currency).wire()
            self.document["refunded_amount"] = Money(0, money.currency).wire()
        self._drop("expires_at")

    def hold(self) -> None:
        """The money is set aside until the shop captures it or lets it go."""
        self._confirmed()
        self.document |= {
            "status": "waiting_for_capture",
            "expires_at": timestamp(datetime.now(UTC) + HOLD),
            "refundable": False,
        }
        self._drop("captured_at", "income_amount", "refunded_amount")

    def cancel(self, party: str, reason: str) -> None:
        """Nothing was paid, or what was held has gone back."""
        self.document |= {
            "status": "canceled",
            "paid": False,
            "refundable": False,
            "cancellation_details": {"party": party, "reason": reason},
        }
        self._drop("confirmation", "expires_at", "captured_at", "income_amount", "refunded_amount")

    def _confirmed(self) -> None:
        self.document["paid"] = True
        self.document.setdefault("payment_method", card_method(str(uuid4())))
        self._drop("confirmation", "cancellation_details")

    def _drop(self, *names: str) -> None:
        for name in names:
            self.document.pop(name, None)


def card_method(method_id: str, *, saved: bool = False) -> Document:
    """A bank card, the only thing people pay with here."""
    return {
        "type": "bank_card",
        "id": method_id,
        "saved": saved,
        "status": "active" if saved else "inactive",
        "title": "Bank card *4477",
        "card": dict(CARD),
    }


class Shop:
    """One shop's books."""

    def __init__(self, shop_id: str, secret_key: str, notify: Notify) -> None:
        self.shop_id = shop_id
        self.secret_key = secret_key
        self.payments: dict[str, Payment] = {}
        self.refunds: dict[str, Document] = {}
        self._notify = notify

    def clear(self) -> None:
        """Forget everything."""
        self.payments.clear()
        self.refunds.clear()

    def payment(self, payment_id: str) -> Payment:
        """Find a payment."""
        try:
            return self.payments[payment_id]
        except KeyError:
            raise unknown_payment() from None

    def refund(self, refund_id: str) -> Document:
        """Find a refund."""
        try:
            return self.refunds[refund_id]
        except KeyError:
            raise unknown_refund() from None

    def newest_first(self) -> list[Payment]:
        """All payments; of those made in the same instant the later one first."""
        return sorted(self.payments.values(), key=lambda payment: payment.created_at)[::-1]

    def open(self, new: NewPayment, base_url: str) -> Payment:
        """Create a payment as the API does."""
        payment = Payment(self._document(new), capture=new.capture, return_url=new.return_url)
        payment_id = payment.document["id"]
        self.payments[payment_id] = payment
        if new.payment_method_id is not None:
            payment.document["payment_method"] = card_method(new.payment_method_id, saved=True)
            self.confirm(payment)
            return payment
        payment.document["confirmation"] = _redirect(base_url, payment_id, new.return_url)
        if new.save_payment_method:
            payment.document["payment_method"] = card_method(payment_id, saved=True)
        return payment

    def put(self, fields: Document, remove: Iterable[str], base_url: str) -> Payment:
        """Create a payment in any shape: the fields are laid over a valid one of that status."""
        document = self._document(NewPayment(Money.read(fields.get("amount")) or DEFAULT_AMOUNT))
        payment = Payment(document)
        payment_id = str(fields.get("id", document["id"]))
        match fields.get("status", "succeeded"):
            case "pending":
                document["confirmation"] = _redirect(base_url, payment_id, None)
            case "waiting_for_capture":
                payment.hold()
            case "canceled":
                payment.cancel("payment_network", "general_decline")
            case _:
                payment.succeed()
        bend(payment, fields, remove)
        self.payments[payment_id] = payment
        return payment

    def confirm(self, payment: Payment) -> None:
        """The person paid; the shop chose beforehand whether the money is held first."""
        if payment.capture:
            self.succeed(payment)
        else:
            self.hold(payment)

    def succeed(self, payment: Payment, amount: Money | None = None) -> None:
        """Move to succeeded and tell the shop."""
        payment.succeed(amount)
        self._notify("payment.succeeded", payment.document)

    def hold(self, payment: Payment) -> None:
        """Move to waiting_for_capture and tell the shop."""
        payment.hold()
        self._notify("payment.waiting_for_capture", payment.document)

    def cancel(self, payment: Payment, party: str, reason: str) -> None:
        """Move to canceled and tell the shop."""
        payment.cancel(party, reason)
        self._notify("payment.canceled", payment.document)

    def give_back(self, payment: Payment, amount: Money, description: str | None) -> Document:
        """Refund a part or the whole, and tell the shop."""
        left = refundable(payment)
        if left is None or amount.currency != left.currency or not 0 < amount.kopeks <= left.kopeks:
            raise invalid("The amount exceeds what can still be refunded", "amount")
        refund = _refund(payment, amount, description)
        self.refunds[refund["id"]] = refund
        paid = Money.read(payment.document["amount"]) or left
        after = left.kopeks - amount.kopeks
        payment.document["refunded_amount"] = Money(paid.kopeks - after, paid.currency).wire()
        payment.document["refundable"] = after > 0
        self._notify("refund.succeeded", refund)
        return refund

    def _document(self, new: NewPayment) -> Document:
        document: Document = {
            "id": str(uuid4()),
            "status": "pending",
            "amount": new.amount.wire(),
            "created_at": timestamp(datetime.now(UTC)),
            "paid": False,
            "test": self.secret_key.startswith("test_"),
            "refundable": False,
            "recipient": {"account_id": self.shop_id, "gateway_id": f"2{self.shop_id}"},
            "metadata": dict(new.metadata or {}),
        }
        if new.description is not None:
            document["description"] = new.description
        return document


def bend(payment: Payment, fields: Document, remove: Iterable[str]) -> None:
    """Lay raw fields over a document, then remove keys; "amount.currency" reaches inside."""
    payment.document |= copy.deepcopy(fields)
    for path in remove:
        *parents, last = path.split(".")
        holder: Any = payment.document
        for name in parents:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(last, None)
    confirmation = fields.get("confirmation")
    url = confirmation.get("return_url") if isinstance(confirmation, dict) else None
    if isinstance(url, str) and is_web_address(url):
        payment.return_url = url


def refundable(payment: Payment) -> Money | None:
    """What of a payment has not been refunded yet; None where nothing can be."""
    paid = Money.read(payment.document.get("amount"))
    if payment.status != "succeeded" or paid is None:
        return None
    back = Money.read(payment.document.get("refunded_amount")) or Money(0, paid.currency)
    return Money(paid.kopeks - back.kopeks, paid.currency)


def _redirect(base_url: str, payment_id: str, return_url: str | None) -> Document:
    confirmation = {"type": "redirect", "confirmation_url": f"{base_url}/checkout/{payment_id}"}
    if return_url is not None:
        confirmation["return_url"] = return_url
    return confirmation


def _refund(payment: Payment, amount: Money, description: str | None) -> Document:
    refund: Document = {
        "id": str(uuid4()),
        "payment_id": payment.document.get("id"),
        "status": "succeeded",
        "created_at": timestamp(datetime.now(UTC)),
        "amount": amount.wire(),
    }
    if description is not None:
        refund["description"] = description
    return refund
