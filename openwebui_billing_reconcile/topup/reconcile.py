"""The use case: read our books, ask the provider, decide, credit, prove."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar, assert_never

from openwebui_billing_reconcile.errors import (
    NotConfiguredError,
    NotYourPaymentError,
    PaymentHeldError,
    ProviderNonsenseError,
    ReconcileError,
    TryLaterError,
)
from openwebui_billing_reconcile.hookspecs import PaymentGateway
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.rules import (
    Cancel,
    Credit,
    Foreign,
    Hold,
    HoldReason,
    Proved,
    Shop,
    Wait,
    judge,
    judge_books,
    named_wallet,
)
from openwebui_billing_reconcile.money.values import (
    CANCELED,
    PENDING,
    SUCCEEDED,
    Books,
    LedgerLine,
    ProviderPayment,
    Reconciled,
    Wallet,
    parse_payment_id,
)
from openwebui_billing_reconcile.provider.client import REPLY_SECONDS, Budget, Pacing, PacingPerLoop
from openwebui_billing_reconcile.settings import Settings

from .events import News

log = logging.getLogger(__name__)

T = TypeVar("T")


class Reconciler:
    """Reconciles top-ups of one host. Used from any number of event loops."""

    def __init__(self, host: OpenWebUIHost, settings: Settings) -> None:
        self._host = host
        self._settings = settings
        self._ledger = Ledger(host)
        self._budget = Budget(settings.rate_limit)
        self._pacing = PacingPerLoop(settings.deadline_seconds)
        self._news = News(host.hook)

    async def reconcile(self, service: Any, user_id: str, payment_id: object) -> Reconciled:
        """Bring the top-up ``payment_id`` of ``user_id`` to the state the provider reports.

        ``service`` is the host's ``BillingService``. Raises the errors of ``errors.ReconcileError``, and only
        those, within ``pacing.REPLY_SECONDS`` seconds; work under way then goes on without its caller.
        """
        pace = self._pacing.here()
        case = _Case(
            service=service,
            user_id=user_id,
            payment_id=parse_payment_id(payment_id),
            host=self._host,
            settings=self._settings,
            ledger=self._ledger,
            budget=self._budget,
            pace=pace,
            news=self._news,
            gives_up_at=time.monotonic() + REPLY_SECONDS,
        )
        return await pace.reply(case.run())


@dataclass(frozen=True, slots=True)
class _Proof:
    """The credit is in the ledger, and the payment's status may have to follow."""

    books: Books
    line: LedgerLine
    provider_status: str


@dataclass(frozen=True, slots=True)
class _Case:
    """One caller asking about one payment."""

    service: Any
    user_id: str
    payment_id: str
    host: OpenWebUIHost
    settings: Settings
    ledger: Ledger
    budget: Budget
    pace: Pacing
    news: News
    gives_up_at: float  # by the monotonic clock

    async def run(self) -> Reconciled:
        try:
            return await self._reconcile()
        except ReconcileError:
            raise
        except Exception as error:
            log.error("Reconciling a top-up failed unexpectedly: %s", type(error).__name__)
            raise TryLaterError("Payment could not be checked", reason="unexpected") from error

    async def _reconcile(self) -> Reconciled:
        books, _ = await self._read()
        verdict = judge_books(books, self.user_id)
        if isinstance(verdict, Proved):
            return await self._proved(_Proof(books, verdict.line, SUCCEEDED))
        if isinstance(verdict, Foreign):
            self._spend()
            raise NotYourPaymentError
        gateway = self.host.hook.payment_gateway(host=self.host)
        if gateway is None:
            raise NotConfiguredError
        if isinstance(verdict, Hold):
            self._hold(verdict.reason)
        self._check_time()  # it has waited for a thread: its caller may be gone
        payment = await self._ask(gateway, books)
        result = await self.pace.together(
            self._same("settle", payment),
            self.pace.turn(self.user_id),
            partial(self._settle, payment, self._shop(gateway)),
        )
        return await self._proved(result) if isinstance(result, _Proof) else result

    async def _ask(self, gateway: PaymentGateway, books: Books) -> ProviderPayment | None:
        if books.record is None:
            # Not proved to be the asker's: it costs one unit whether or not a question is sent for it, so
            # that nobody learns from the price whether an id exists.
            self._spend()
            return await self.pace.ask(gateway, self.payment_id, self.user_id, afford=lambda: None)
        return await self.pace.ask(gateway, self.payment_id, self.user_id, afford=self._spend)

    async def _settle(self, payment: ProviderPayment | None, shop: Shop) -> Reconciled | _Proof:
        """Act on the provider's answer; the ledger is read again first, for time has passed."""
        books, wallet = await self._read(payment)
        if payment is None:
            return self._unknown_to_provider(books)
        match judge(payment, books, wallet, self.user_id, shop):
            case Proved(line):
                return _Proof(books, line, payment.status)
            case Foreign():
                raise NotYourPaymentError
            case Hold(reason):
                self._hold(reason)
            case Wait():
                return self._answer(books, payment.status, retry_after=self.pace.retry_after(self.payment_id))
            case Cancel():
                return await self._cancel(books)
            case Credit() as credit:
                return await self._credit(credit, payment)
            case never:
                assert_never(never)

    def _unknown_to_provider(self, books: Books) -> _Proof:
        verdict = judge_books(books, self.user_id)
        if isinstance(verdict, Proved):
            return _Proof(books, verdict.line, SUCCEEDED)
        if books.record is None or isinstance(verdict, Foreign):
            raise NotYourPaymentError
        raise ProviderNonsenseError("Payment provider does not know this payment")

    async def _credit(self, credit: Credit, payment: ProviderPayment) -> _Proof:
        try:
            await self.pace.writing(partial(self._write, credit, payment))
        except Exception as error:  # noqa: BLE001 - failure or silence: only the ledger tells
            log.warning(
                "Crediting did not go through: payment=%s error=%s",
                self.payment_id,
                type(error).__name__,
            )
        books, _ = await self._read()
        match judge_books(books, self.user_id):
            case Proved(line):
                self.news.credited(self.payment_id, line)
                return _Proof(books, line, payment.status)
            case Hold(reason):
                self._hold(reason)
            case _:
                raise TryLaterError("Payment could not be credited yet", reason="not_written")

    def _write(self, credit: Credit, payment: ProviderPayment) -> None:
        self._check_time()  # it has waited for its turn and a thread: the provider's answer may be old
        wallet = credit.wallet or self.ledger.create_wallet(self.user_id, credit.money.currency)
        self.ledger.credit(self.service, self.payment_id, wallet, credit.money, dict(payment.metadata))

    async def _proved(self, proof: _Proof) -> Reconciled:
        """The money is there; a status left behind is put right, if that works at once."""
        books = proof.books
        if books.record and books.record.status != SUCCEEDED and not self.pace.is_taken(self.user_id):
            books = await self.pace.briefly(self._mark_succeeded(proof)) or books
        return self._answer(books, proof.provider_status, credited=True)

    async def _mark_succeeded(self, proof: _Proof) -> Books:
        try:
            async with self.pace.turn(self.user_id):
                await self.pace.writing(
                    partial(self.ledger.mark_succeeded, self.service, self.payment_id, proof.line)
                )
            books, _ = await self._read()
        except Exception as error:  # noqa: BLE001 - the answer is the same whether this works or not
            log.warning(
                "A credited payment could not be marked succeeded: payment=%s error=%s",
                self.payment_id,
                type(error).__name__,
            )
            return proof.books
        return books

    async def _cancel(self, books: Books) -> Reconciled | _Proof:
        if books.record and books.record.status == PENDING:
            cancel = partial(self.ledger.cancel, self.payment_id)
            changed = await self._database(self.pace.writing(cancel))
            books, _ = await self._read()
            verdict = judge_books(books, self.user_id)
            if isinstance(verdict, Proved):
                return _Proof(books, verdict.line, CANCELED)
            if changed:
                self.news.canceled(self.payment_id, self.user_id)
        return self._answer(books, CANCELED)

    def _hold(self, reason: HoldReason) -> NoReturn:
        self.news.held(self.payment_id, self.user_id, reason)
        raise PaymentHeldError(reason.words, reason=reason.value)

    def _answer(
        self,
        books: Books,
        provider_status: str,
        *,
        credited: bool = False,
        retry_after: int | None = None,
    ) -> Reconciled:
        return Reconciled(
            payment_id=self.payment_id,
            provider_status=provider_status,
            payment_status=books.record.status if books.record else None,
            credited=credited,
            retry_after=retry_after,
        )

    def _same(self, what: str, payment: ProviderPayment | None) -> Hashable:
        """What this case has in common with others of the same user that can share this work."""
        return what, id(self.service), self.user_id, self.payment_id, id(payment)

    def _check_time(self) -> None:
        """Raise ``TryLaterError`` when nobody waits for this any more: the next call asks anew."""
        if time.monotonic() > self.gives_up_at:
            raise TryLaterError("Payment is still being checked", reason="slow")

    def _spend(self) -> None:
        self.budget.spend(self.user_id)

    def _shop(self, gateway: PaymentGateway) -> Shop:
        accepts_test = self.settings.accept_test_payments
        return Shop(
            account_id=gateway.account_id,
            accepts_test_payments=bool(gateway.is_test_shop) if accepts_test is None else accepts_test,
            default_currency=self.host.default_currency,
        )

    async def _read(self, payment: ProviderPayment | None = None) -> tuple[Books, Wallet | None]:
        """Our books now and, once the provider has spoken of money, the wallet it would go to."""
        read = partial(self._read_books, payment)
        return await self._database(self.pace.reading(read, self._same("read", payment)))

    def _read_books(self, payment: ProviderPayment | None) -> tuple[Books, Wallet | None]:
        books = self.ledger.read(self.service, self.payment_id)
        owner = books.record.user_id if books.record else payment and payment.topup.user_id
        if payment is None or payment.amount is None or owner != self.user_id:
            return books, None  # no wallet of anybody else's is even read
        wallet_id = named_wallet(payment, books)
        return books, self.ledger.wallet(wallet_id, self.user_id, payment.amount.currency)

    async def _database(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except Exception as error:
            log.warning(
                "The billing database did not answer: payment=%s error=%s",
                self.payment_id,
                type(error).__name__,
            )
            raise TryLaterError("Billing is temporarily unavailable", reason="database") from error
