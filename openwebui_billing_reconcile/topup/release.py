"""An administrator releases a payment: asked anew, decided anew, credited once."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, assert_never

from openwebui_billing_reconcile.errors import (
    InvalidReleaseError,
    ReleaseRefusedError,
    TemporarilyUnavailableError,
    UnknownPaymentError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.host.database_errors import database_errors
from openwebui_billing_reconcile.money.release import UNCREDITED, NotHeld, ReleaseReason, decide_release
from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Credit,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    decide_locally,
    local_owner,
)
from openwebui_billing_reconcile.money.values import (
    CAPTURED_AT,
    RECONCILED_BY,
    RELEASE_ID,
    TOPUP,
    LedgerEntry,
    LocalState,
    Money,
    ProviderPayment,
    ReleaseResult,
    Wallet,
    parse_payment_id,
)
from openwebui_billing_reconcile.settings import MODE, Mode

from .reply import check_not_expired, reply, reply_expires_at
from .resources import Resources
from .settle import mark_succeeded
from .wallet_wait import when_wallet_is_free

log = logging.getLogger(__name__)

MAX_NOTE: Final = 500
"""The longest note, in characters."""


@dataclass(frozen=True, slots=True)
class ReleaseOrder:
    """Who releases which payment, for which reason and with which note; ``release_id`` names this release."""

    payment_id: str
    reason: ReleaseReason
    note: str
    administrator: str
    release_id: str

    @classmethod
    def parse(
        cls, payment_id: object, reason: object, note: object, administrator: str, *, confirm: bool
    ) -> ReleaseOrder:
        """Raises ``InvalidPaymentIdError`` and ``InvalidReleaseError``. A preview needs no note."""
        named = next((known for known in (UNCREDITED, *HoldReason) if known == reason), None)
        if named is None:
            raise InvalidReleaseError("reason must be the code that the audit names")
        words = note.strip() if isinstance(note, str) else ""
        if (confirm and not words) or len(words) > MAX_NOTE:
            raise InvalidReleaseError(
                f"note is required: say in 1 to {MAX_NOTE} characters why it is released"
            )
        return cls(parse_payment_id(payment_id), named, words, administrator, uuid.uuid4().hex)


class Releaser:
    """Releases payments of one host. Used from any number of event loops."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ledger = resources.ledger

    async def release(self, order: ReleaseOrder, *, confirm: bool) -> ReleaseResult:
        """Credit what the provider holds of a payment to its owner; without ``confirm`` only say so.

        Raises ``ReleaseRefusedError`` where the reason named is no longer true, or nothing can be released;
        ``UnknownPaymentError``; and what ``Reconciler.reconcile`` raises about the provider and the database.
        """
        if self._resources.settings.mode is Mode.OBSERVE:
            raise ReleaseRefusedError(
                f"Nothing is released while only observing: set {MODE.name}=credit and restart the host",
                reason="observing",
            )
        shared = self._resources.of_loop()
        expires_at = reply_expires_at()
        async with reply(expires_at):
            gateway = self._resources.gateway(order.payment_id)
            payment = await shared.provider.fetch(gateway, order.payment_id, max_age=0)
            if payment is None:
                raise UnknownPaymentError
            user_id = await shared.read(partial(self._owner, payment))
            shop = self._resources.shop(gateway)

            def work() -> ReleaseResult:
                check_not_expired(expires_at)  # it has waited for a thread, and the answer may be old
                return self._release(order, payment, user_id, shop, confirm=confirm)

            write = partial(shared.user_write_lock.run, user_id, expires_at, work)
            return await shared.tasks.run(when_wallet_is_free(order.payment_id, write))

    def _owner(self, payment: ProviderPayment) -> str:
        """Return whose it is. Where our tables do not say, its metadata must name a user of this host."""
        with database_errors(f"payment={payment.id}"):
            owner = local_owner(self._ledger.read(payment.id))
            if owner is not None:
                return owner
            named = payment.topup.user_id if payment.topup.kind == TOPUP else None
            if named is None or not self._ledger.users_among([named]):
                raise ReleaseRefusedError("This payment is no top-up of this host", reason="not_a_topup")
            return named

    def _release(
        self, order: ReleaseOrder, payment: ProviderPayment, user_id: str, shop: Shop, *, confirm: bool
    ) -> ReleaseResult:
        local, credit = self._decide(order, payment, user_id, shop)
        if not confirm:
            return _result(payment, local, user_id, credit)
        if credit.wallet is None:
            with database_errors(f"payment={payment.id}"):
                self._ledger.create_wallet(user_id, credit.money.currency)
            # That may have waited, so what was read before it counts for nothing.
            return self._release(order, payment, user_id, shop, confirm=confirm)
        self._write(order, payment, local, credit.money, credit.wallet)
        return self._prove(order, payment, user_id, credit)

    def _decide(
        self, order: ReleaseOrder, payment: ProviderPayment, user_id: str, shop: Shop
    ) -> tuple[LocalState, Credit]:
        with database_errors(f"payment={payment.id}"):
            local, wallet, own_wallet = self._ledger.read_with_wallets(payment, user_id)
        match decide_release(payment, local, wallet, own_wallet, user_id, shop, order.reason):
            case Credit() as credit:
                return local, credit
            case AlreadyCredited():
                raise _already_credited()
            case Hold(reason):
                raise ReleaseRefusedError(reason.message, reason=reason.value)
            case NotHeld() | NotOwned():  # another's: the record has changed hands just now
                raise ReleaseRefusedError("Nothing can be released for this reason: make a new audit")
            case never:
                assert_never(never)

    def _write(
        self,
        order: ReleaseOrder,
        payment: ProviderPayment,
        local: LocalState,
        money: Money,
        target: Wallet,
    ) -> None:
        metadata = {
            RECONCILED_BY: Way.RELEASE.value,
            RELEASE_ID: order.release_id,
            CAPTURED_AT: payment.captured_at,
            "payment_id": payment.id,
            "released_by": order.administrator,
            "released_at": int(time.time()),
            "reason": str(order.reason),
            "note": order.note,
        }
        service = self._resources.host.billing_service
        try:
            self._ledger.credit_directly(service, payment.id, local.record, target, money, metadata)
        except WalletBusyError:
            raise
        except Exception as error:  # noqa: BLE001 - the host may raise anything; the ledger tells what is so
            log.warning("Releasing did not go through: payment=%s error=%s", payment.id, type(error).__name__)

    def _prove(
        self, order: ReleaseOrder, payment: ProviderPayment, user_id: str, credit: Credit
    ) -> ReleaseResult:
        with database_errors(f"payment={payment.id}"):
            local = self._ledger.read(payment.id)
        if not local.topups:
            raise TemporarilyUnavailableError("Payment could not be released yet", reason="not_written")
        decision = decide_locally(local, user_id)
        if not isinstance(decision, AlreadyCredited) or decision.entry.release_id != order.release_id:
            raise _already_credited()
        self._report(order, payment, decision.entry)
        local = mark_succeeded(self._ledger, payment.id) or local
        return replace(_result(payment, local, user_id, credit), credited=True)

    def _report(self, order: ReleaseOrder, payment: ProviderPayment, entry: LedgerEntry) -> None:
        log.warning(
            "Top-up released: payment=%s user=%s wallet=%s kopeks=%d currency=%s reason=%s by=%s note=%r",
            payment.id,
            entry.user_id,
            entry.wallet_id,
            entry.money.kopeks,
            entry.money.currency,
            order.reason,
            order.administrator,
            order.note,
        )
        if self._ledger.take_entered(entry):
            self._resources.events.credited(payment.id, entry, Way.RELEASE, payment.captured_at)


def _result(payment: ProviderPayment, local: LocalState, user_id: str, credit: Credit) -> ReleaseResult:
    return ReleaseResult(
        payment_id=payment.id,
        provider_status=payment.status,
        payment_status=local.status,
        credited=False,
        amount_kopeks=credit.money.kopeks,
        currency=credit.money.currency,
        user_id=user_id,
        wallet_id=credit.wallet.id if credit.wallet else None,
    )


def _already_credited() -> ReleaseRefusedError:
    return ReleaseRefusedError("This payment is credited already", reason="already_credited")
