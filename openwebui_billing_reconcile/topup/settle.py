"""Settle one top-up: read again, decide, write by the host's path, prove. One function on one thread.

What was read before the provider was asked counts for nothing: time has passed. And nothing waits between
the last reading and the writing, so that nobody can settle the payment in between by other means.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, assert_never

from sqlalchemy.exc import SQLAlchemyError

from openwebui_billing_reconcile.errors import (
    InvalidProviderResponseError,
    PaymentHeldError,
    PaymentNotOwnedError,
    TemporarilyUnavailableError,
    UnexpectedError,
    WalletBusyError,
)
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
    FAILED,
    PENDING,
    SUCCEEDED,
    LedgerEntry,
    LocalState,
    ProviderPayment,
    ReconcileResult,
)

from .events import EventDispatcher

log = logging.getLogger(__name__)

_REPAIRABLE: Final = frozenset({PENDING, FAILED, CANCELED})
"""Statuses that a proved credit overrules. One that we do not know was given by somebody for a reason."""

_PROGRAMMING_ERRORS: Final = (AttributeError, ImportError, NameError, TypeError)
"""Errors that the next call meets as well."""


@dataclass(frozen=True, slots=True)
class ReconcileCall:
    """One user asking about one payment.

    ``service`` is the host's ``BillingService``. ``expires_at``, by the monotonic clock in seconds, is when
    nobody waits for the answer any more.
    """

    service: Any
    user_id: str
    payment_id: str
    expires_at: float

    def check_not_expired(self) -> None:
        """Raise ``TemporarilyUnavailableError`` when nobody waits any more: the next call asks anew."""
        if time.monotonic() > self.expires_at:
            raise TemporarilyUnavailableError("Payment is still being checked", reason="timeout")


class Settlement:
    """Acts on what the provider said. Every method blocks, and is called on a thread."""

    def __init__(self, ledger: Ledger, events: EventDispatcher) -> None:
        self._ledger = ledger
        self._events = events

    def read(self, call: ReconcileCall) -> LocalState:
        """Return what the host's tables say; ``TemporarilyUnavailableError`` when they cannot be read."""
        with _database(call):
            return self._ledger.read(call.payment_id)

    def settle(self, call: ReconcileCall, payment: ProviderPayment | None, shop: Shop) -> ReconcileResult:
        """Bring the payment to the state the provider reports; ``None``: the provider does not know it.

        Raises the errors of ``errors.ReconcileError``.
        """
        call.check_not_expired()  # it has waited for a thread, and the provider's answer may be old
        if payment is None:
            return self._settle_unknown(call)
        with _database(call):
            local, wallet = self._ledger.read_with_wallet(call.payment_id, payment, call.user_id)
        match decide(payment, local, wallet, call.user_id, shop):
            case AlreadyCredited(entry):
                return self.confirm(call, local, entry, payment.status)
            case NotOwned():
                raise PaymentNotOwnedError
            case Hold(reason):
                self.hold(call, reason)
            case StillPending():
                return _result(call, local, payment.status)
            case Cancel():
                return self._cancel(call, local, payment)
            case Credit() as credit:
                return self._credit(call, credit, payment)
            case never:
                assert_never(never)

    def confirm(
        self, call: ReconcileCall, local: LocalState, entry: LedgerEntry, provider_status: str
    ) -> ReconcileResult:
        """Answer that the credit is in the ledger, and put right a status left behind.

        A crash or a late notification leaves such a status. Whether the repair works does not change the
        answer.
        """
        if local.status in _REPAIRABLE:
            local = self._mark_succeeded(call, entry) or local
        return _result(call, local, provider_status, credited=True)

    def hold(self, call: ReconcileCall, reason: HoldReason) -> NoReturn:
        """Report a payment that does not add up. Raises ``PaymentHeldError``."""
        self._events.held(call.payment_id, call.user_id, reason)
        raise PaymentHeldError(reason.message, reason=reason.value)

    def _settle_unknown(self, call: ReconcileCall) -> ReconcileResult:
        local = self.read(call)
        decision = decide_locally(local, call.user_id)
        if isinstance(decision, AlreadyCredited):
            return self.confirm(call, local, decision.entry, SUCCEEDED)
        if local.record is None or isinstance(decision, NotOwned):
            raise PaymentNotOwnedError
        raise InvalidProviderResponseError("Payment provider does not know this payment")

    def _credit(self, call: ReconcileCall, credit: Credit, payment: ProviderPayment) -> ReconcileResult:
        failure: Exception | None = None
        is_ours = False
        try:
            wallet = credit.wallet or self._ledger.create_wallet(call.user_id, credit.money.currency)
            is_ours = self._ledger.credit(
                call.service, call.payment_id, wallet, credit.money, payment.metadata
            )
        except WalletBusyError:
            raise
        except Exception as error:  # noqa: BLE001 - the host's path fails or is silent: only the ledger tells
            failure = error
            log.warning(
                "Crediting did not go through: payment=%s error=%s", call.payment_id, type(error).__name__
            )
        local = self.read(call)
        match decide_locally(local, call.user_id):
            case AlreadyCredited(entry):
                if is_ours:
                    self._events.credited(call.payment_id, entry)
                return self.confirm(call, local, entry, payment.status)
            case Hold(reason):
                self.hold(call, reason)
        if isinstance(failure, _PROGRAMMING_ERRORS):
            raise UnexpectedError from failure
        raise TemporarilyUnavailableError("Payment could not be credited yet", reason="not_written")

    def _cancel(self, call: ReconcileCall, local: LocalState, payment: ProviderPayment) -> ReconcileResult:
        if local.status != PENDING:
            return _result(call, local, CANCELED)
        with _database(call):
            has_changed = self._ledger.cancel(call.payment_id)
            if has_changed:
                self._ledger.count_auto_topup_failure(call.service, call.payment_id, payment.metadata)
        local = self.read(call)
        decision = decide_locally(local, call.user_id)
        if isinstance(decision, AlreadyCredited):
            return self.confirm(call, local, decision.entry, CANCELED)
        if has_changed:
            self._events.canceled(call.payment_id, call.user_id)
        return _result(call, local, CANCELED)

    def _mark_succeeded(self, call: ReconcileCall, entry: LedgerEntry) -> LocalState | None:
        try:
            self._ledger.mark_succeeded(call.service, call.payment_id, entry)
            return self._ledger.read(call.payment_id)
        except Exception as error:  # noqa: BLE001 - the answer is the same whether this works or not
            log.warning(
                "A credited payment could not be marked succeeded: payment=%s error=%s",
                call.payment_id,
                type(error).__name__,
            )
            return None


def _result(
    call: ReconcileCall, local: LocalState, provider_status: str, *, credited: bool = False
) -> ReconcileResult:
    return ReconcileResult(call.payment_id, provider_status, local.status, credited)


@contextmanager
def _database(call: ReconcileCall) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        log.warning(
            "The billing database did not answer: payment=%s error=%s", call.payment_id, type(error).__name__
        )
        raise TemporarilyUnavailableError(
            "Billing is temporarily unavailable", reason="database_unavailable"
        ) from error
