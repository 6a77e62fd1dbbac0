"""Settle one top-up: read again, decide, write by the host's path, prove. One function on one thread.

What was read before the provider was asked counts for nothing: time has passed. And nothing waits between
the last reading and the writing, so that nobody can settle the payment in between by other means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, assert_never

from openwebui_billing_reconcile.errors import (
    InvalidProviderResponseError,
    PaymentHeldError,
    PaymentNotOwnedError,
    ReconcileError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
from openwebui_billing_reconcile.hookspecs import Way
from openwebui_billing_reconcile.host.database_errors import database_errors
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.money.rules import (
    AlreadyCredited,
    Cancel,
    Credit,
    Hold,
    HoldReason,
    NotOwned,
    Shop,
    StillPending,
    decide,
    decide_locally,
)
from openwebui_billing_reconcile.money.values import (
    CANCELED,
    CAPTURED_AT,
    PENDING,
    RECONCILED_BY,
    REPAIRABLE,
    SUCCEEDED,
    LedgerEntry,
    LocalState,
    Money,
    ProviderPayment,
    ReconcileResult,
    Wallet,
)

from .events import EventDispatcher
from .reply import check_not_expired

log = logging.getLogger(__name__)

_PROGRAMMING_ERRORS: Final = (AttributeError, ImportError, NameError, TypeError)
"""Errors that the next call meets as well."""


@dataclass(frozen=True, slots=True)
class ReconcileCall:
    """One payment to be looked at for one user.

    ``way`` is who asked. ``service`` is the host's ``BillingService``. ``expires_at``, by the monotonic clock
    in seconds, is when nobody waits for the answer any more.
    """

    service: Any
    user_id: str
    payment_id: str
    expires_at: float
    way: Way = Way.RETURN


class Settlement:
    """Acts on what the provider said. Its methods block unless they say otherwise: call them on a thread."""

    def __init__(self, ledger: Ledger, events: EventDispatcher) -> None:
        self._ledger = ledger
        self._events = events

    def read(self, call: ReconcileCall) -> LocalState:
        """Return what the host's tables say; ``TemporarilyUnavailableError`` when they cannot be read."""
        with database_errors(f"payment={call.payment_id}"):
            return self._ledger.read(call.payment_id)

    def settle(self, call: ReconcileCall, payment: ProviderPayment | None, shop: Shop) -> ReconcileResult:
        """Bring the payment to the state the provider reports; ``None``: the provider does not know it.

        Raises the errors of ``errors.ReconcileError``.
        """
        check_not_expired(call.expires_at)  # it has waited for a thread, and the provider's answer may be old
        if payment is None:
            return self._settle_unknown(call)
        try:
            return self._settle_known(call, payment, shop)
        except ReconcileError as error:
            error.provider_status = payment.status
            raise

    def _settle_known(self, call: ReconcileCall, payment: ProviderPayment, shop: Shop) -> ReconcileResult:
        with database_errors(f"payment={call.payment_id}"):
            local, wallet = self._ledger.read_with_wallet(payment, call.user_id)
        match decide(payment, local, wallet, call.user_id, shop):
            case AlreadyCredited(entry):
                return self.complete(call, local, entry, payment.status, payment.captured_at)
            case NotOwned():
                raise PaymentNotOwnedError
            case Hold(reason):
                raise held_error(reason, payment.held or local.money)
            case StillPending():
                return _result(call, local, payment.status)
            case Cancel():
                return self._cancel(call, local, payment)
            case Credit() as credit:
                return self._credit(call, local, credit, payment, shop)
            case never:
                assert_never(never)

    def complete(
        self,
        call: ReconcileCall,
        local: LocalState,
        entry: LedgerEntry,
        provider_status: str,
        captured_at: str | None = None,
    ) -> ReconcileResult:
        """Answer that ``entry`` proves the credit; report it where a call of ours entered it.

        A status that a crash or a late notification left behind is put right; whether that works or not, the
        payment is credited. Blocks only where ``needs_repair``.
        """
        is_new = self._ledger.take_entered(entry)
        if is_new:
            way = Way.RELEASE if entry.release_id else call.way
            self._events.credited(call.payment_id, entry, way, captured_at)
        if needs_repair(local):
            local = self._mark_succeeded(call) or local
        return _result(call, local, provider_status, credited=True, is_new=is_new)

    def _settle_unknown(self, call: ReconcileCall) -> ReconcileResult:
        local = self.read(call)
        decision = decide_locally(local, call.user_id)
        if isinstance(decision, AlreadyCredited):
            return self.complete(call, local, decision.entry, SUCCEEDED)
        if local.record is None or isinstance(decision, NotOwned):
            raise PaymentNotOwnedError
        raise InvalidProviderResponseError("Payment provider does not know this payment")

    def _credit(
        self, call: ReconcileCall, local: LocalState, credit: Credit, payment: ProviderPayment, shop: Shop
    ) -> ReconcileResult:
        if credit.wallet is None:
            create = partial(self._ledger.create_wallet, call.user_id, credit.money.currency)
            failure = self._try(call, create, creates_wallet=True)
            if failure is None:  # that may have waited, so what was read before it counts for nothing
                return self._settle_known(call, payment, shop)
        else:
            failure = self._try(call, partial(self._write, call, local, credit.wallet, credit.money, payment))
        return self._prove(call, payment, failure)

    def _write(
        self, call: ReconcileCall, local: LocalState, wallet: Wallet, money: Money, payment: ProviderPayment
    ) -> None:
        about = {RECONCILED_BY: call.way.value, CAPTURED_AT: payment.captured_at}
        record = local.record
        if record and record.wallet_id is None and not self._ledger.credits_without_wallet():
            self._ledger.credit_directly(call.service, call.payment_id, record, wallet, money, about)
        else:
            metadata = {**payment.metadata, **about}
            self._ledger.credit(call.service, call.payment_id, wallet, money, metadata)

    def _try(
        self, call: ReconcileCall, write: Callable[[], None], *, creates_wallet: bool = False
    ) -> Exception | None:
        """Have the host write; return what it raised. Whether it credited only the ledger tells."""
        try:
            write()
        except WalletBusyError:
            raise
        except Exception as error:  # noqa: BLE001 - the host may raise anything
            log.warning(
                "%s did not go through: payment=%s error=%s",
                "Creating the wallet" if creates_wallet else "Crediting",
                call.payment_id,
                type(error).__name__,
            )
            return error
        return None

    def _prove(
        self, call: ReconcileCall, payment: ProviderPayment, failure: Exception | None
    ) -> ReconcileResult:
        local = self.read(call)
        match decide_locally(local, call.user_id):
            case AlreadyCredited(entry):
                return self.complete(call, local, entry, payment.status, payment.captured_at)
            case Hold(reason):
                raise held_error(reason, payment.held or local.money)
            case NotOwned() | None:
                if isinstance(failure, _PROGRAMMING_ERRORS):
                    raise UnexpectedError from failure
                raise TemporarilyUnavailableError("Payment could not be credited yet", reason="not_written")
            case never:
                assert_never(never)

    def _cancel(self, call: ReconcileCall, local: LocalState, payment: ProviderPayment) -> ReconcileResult:
        if local.status != PENDING:
            return _result(call, local, CANCELED)
        with database_errors(f"payment={call.payment_id}"):
            has_changed = self._ledger.cancel(call.service, call.payment_id, payment.metadata)
        if has_changed:
            self._events.canceled(call.payment_id, call.user_id, call.way)
        local = self.read(call)
        decision = decide_locally(local, call.user_id)
        if isinstance(decision, AlreadyCredited):
            return self.complete(call, local, decision.entry, CANCELED)
        return _result(call, local, CANCELED, is_new=has_changed)

    def _mark_succeeded(self, call: ReconcileCall) -> LocalState | None:
        return mark_succeeded(self._ledger, call.payment_id)


class Observation(Settlement):
    """Decides as a settlement does, tells what it would do, and writes nothing."""

    def _credit(
        self, call: ReconcileCall, local: LocalState, credit: Credit, payment: ProviderPayment, shop: Shop
    ) -> ReconcileResult:
        wallet_id = credit.wallet.id if credit.wallet else ""  # one that is yet to be created
        would_be = LedgerEntry("", call.user_id, wallet_id, credit.money)
        self._events.would_credit(call.payment_id, would_be, call.way)
        return _result(call, local, payment.status)

    def _cancel(self, call: ReconcileCall, local: LocalState, payment: ProviderPayment) -> ReconcileResult:
        if local.status == PENDING:
            self._events.would_cancel(call.payment_id, call.user_id, call.way)
        return _result(call, local, payment.status)

    def _mark_succeeded(self, call: ReconcileCall) -> LocalState | None:
        return None


def held_error(reason: HoldReason, money: Money | None) -> PaymentHeldError:
    """Return the error for a payment that does not add up; ``money`` is at stake."""
    amount, currency = (money.kopeks, money.currency) if money else (None, None)
    return PaymentHeldError(reason.message, reason=reason.value, amount_kopeks=amount, currency=currency)


def mark_succeeded(ledger: Ledger, payment_id: str) -> LocalState | None:
    """Mark a credited payment succeeded and return what the tables say then; ``None`` where that fails.

    The money is there whether this works or not; the next call tries again.
    """
    try:
        ledger.mark_succeeded(payment_id)
        return ledger.read(payment_id)
    except Exception as error:  # noqa: BLE001 - see the docstring
        log.warning(
            "A credited payment could not be marked succeeded: payment=%s error=%s",
            payment_id,
            type(error).__name__,
        )
        return None


def needs_repair(local: LocalState) -> bool:
    """Whether a proved credit has left the payment's status behind."""
    return local.status in REPAIRABLE


def _result(
    call: ReconcileCall,
    local: LocalState,
    provider_status: str,
    *,
    credited: bool = False,
    is_new: bool = False,
) -> ReconcileResult:
    return ReconcileResult(call.payment_id, provider_status, local.status, credited, is_new)
