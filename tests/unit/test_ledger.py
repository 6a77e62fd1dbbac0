"""What is read from the host's tables, what the host's path is given, and what is written."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy import ClauseElement, Connection, create_mock_engine, event, insert, select
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError, WalletBusyError
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import AUTO_TOPUP_FAILURE, BILLING, DB, FAIL_COUNT, TABLES
from openwebui_billing_reconcile.host.requirements import WALLET as WALLET_MODULE
from openwebui_billing_reconcile.host.statements import lock_wallet, other_entries_naming
from openwebui_billing_reconcile.money.values import (
    LedgerEntry,
    LocalState,
    Money,
    OpenTopup,
    PaymentRecord,
    ProviderPayment,
    Wallet,
)
from tests.unit.stub_host import StubHost

RUB = Money(100_000, "RUB")
RECORD = PaymentRecord("record-1", "pending", "topup", "me", "w1", RUB)
ENTRY = LedgerEntry("entry-1", "me", "w1", RUB)
ENTRY_ROW: dict[str, Any] = {
    "id": "entry-1",
    "user_id": "me",
    "wallet_id": "w1",
    "currency": "RUB",
    "type": "topup",
    "amount_kopeks": 100_000,
    "reference_type": "payment",
    "reference_id": "pay-1",
}
WALLET = Wallet("w1", "me", "RUB")


class Books:
    """A host's tables, to be filled, and the ledger that reads them."""

    def __init__(self, stub: StubHost, mocker: MockerFixture) -> None:
        stub.load()
        stub.create_tables()
        self._stub = stub
        self.tables = stub.module(TABLES)
        self.service = stub.module(BILLING).billing_service
        self.wallet_service = stub.module(WALLET_MODULE).wallet_service
        self.engine = stub.module(DB).engine
        self.ledger = Ledger(OpenWebUIHost(mocker.Mock()))

    def add_payment(self, **changes: Any) -> None:
        """Add the row of ``RECORD``, changed."""
        self._stub.add_payment(**changes)

    def add_entry(self, **changes: Any) -> None:
        """Add the row of ``ENTRY``, changed."""
        self._stub.add("LedgerEntry", **ENTRY_ROW | changes)

    def add_wallet(self, **changes: Any) -> None:
        """Add the row of ``WALLET``, changed."""
        self._stub.add_wallet(**changes)

    def payment(self) -> SimpleNamespace:
        """Return status and time of the only payment."""
        with self._stub.module(DB).get_db() as session:
            payment = self.tables.Payment
            row = session.execute(select(payment.status, payment.updated_at)).one()
            return SimpleNamespace(**row._mapping)

    def failures(self) -> list[int | None]:
        """Return how many failures each wallet counts."""
        with self._stub.module(DB).get_db() as session:
            wallet = self.tables.Wallet
            return list(session.scalars(select(wallet.auto_topup_fail_count).order_by(wallet.id)))


@pytest.fixture
def books(host: StubHost, mocker: MockerFixture) -> Books:
    """Return a host with empty tables."""
    return Books(host, mocker)


# --- Reading -------------------------------------------------------------------------------------


def on_postgresql(statement: ClauseElement) -> str:
    engine = create_mock_engine("postgresql+psycopg2://", lambda *_: None)
    return str(statement.compile(dialect=engine.dialect))


def test_on_postgresql_the_other_entries_are_found_by_a_recursive_walk(books: Books) -> None:
    statement = other_entries_naming(books.tables.LedgerEntry.__table__)
    assert on_postgresql(statement).startswith("WITH RECURSIVE")


def test_where_nothing_is_known_nothing_is_read(books: Books) -> None:
    books.add_payment(id="another record", provider_payment_id="another")
    books.add_entry(reference_id="another")
    assert books.ledger.read("pay-1") == LocalState()


def test_a_record_is_read_whole(books: Books) -> None:
    books.add_payment()
    assert books.ledger.read("pay-1") == LocalState(RECORD)


@pytest.mark.parametrize("wallet_id", [None, ""])
def test_a_record_without_a_wallet_names_none(books: Books, wallet_id: str | None) -> None:
    books.add_payment(wallet_id=wallet_id)
    record = books.ledger.read("pay-1").record
    assert record
    assert record.wallet_id is None


def test_a_credit_is_read_whole_beside_its_record(books: Books) -> None:
    books.add_payment()
    books.add_entry(user_id="somebody", wallet_id="w2", currency="USD", amount_kopeks=5)
    books.add_entry(id="entry-2", reference_id="another")
    assert books.ledger.read("pay-1") == LocalState(
        RECORD, (LedgerEntry("entry-1", "somebody", "w2", Money(5, "USD")),)
    )


def test_a_credit_without_a_record_is_read(books: Books) -> None:
    books.add_entry()
    assert books.ledger.read("pay-1") == LocalState(topups=(ENTRY,))


OTHER_ENTRIES: dict[str, dict[str, Any]] = {
    "another type": {"type": "refund"},
    "another type of reference": {"reference_type": "manual"},
    "the last type of reference": {"reference_type": "zzz"},
    "the first type of reference": {"reference_type": ""},
    "no type of reference": {"reference_type": None},
    "the payment as a key": {"reference_id": None, "reference_type": None, "idempotency_key": "pay-1"},
    "the record as a key": {"reference_id": "x", "idempotency_key": "record-1"},
}


@pytest.mark.parametrize("case", OTHER_ENTRIES.values(), ids=OTHER_ENTRIES.keys())
def test_any_other_entry_that_names_the_payment_is_counted(books: Books, case: dict[str, Any]) -> None:
    books.add_payment()
    for number, kind in enumerate(("gift", "payment", "manual", "refund")):  # the ledger knows other types
        books.add_entry(id=f"unrelated {number}", reference_type=kind, reference_id="another")
    books.add_entry(**case)
    assert books.ledger.read("pay-1") == LocalState(RECORD, other_entries=1)


def test_every_other_entry_is_counted_once(books: Books) -> None:
    books.add_payment()
    for number, case in enumerate(OTHER_ENTRIES.values()):
        books.add_entry(**case | {"id": f"entry-{number}"})
    books.add_entry(id="twice named", type="refund", reference_type="manual", idempotency_key="pay-1")
    assert books.ledger.read("pay-1").other_entries == len(OTHER_ENTRIES) + 1


def test_other_entries_count_for_nothing_beside_a_credit(books: Books) -> None:
    books.add_payment()
    books.add_entry()
    books.add_entry(id="entry-2", type="refund")
    assert books.ledger.read("pay-1") == LocalState(RECORD, (ENTRY,))


def test_entries_that_name_the_payment_count_without_a_record(books: Books) -> None:
    books.add_entry(type="refund")
    books.add_entry(id="entry-2", reference_id=None, idempotency_key="pay-1")
    assert books.ledger.read("pay-1") == LocalState(other_entries=2)


def test_a_credit_that_lands_while_the_tables_are_read_is_no_other_entry(books: Books) -> None:
    books.add_payment()
    entry = books.tables.LedgerEntry.__table__

    @event.listens_for(books.engine, "after_cursor_execute", once=True)
    def lands(connection: Connection, *_: Any) -> None:
        connection.execute(insert(entry).values(**ENTRY_ROW))

    assert books.ledger.read("pay-1") == LocalState(RECORD)


# --- Many payments at once -----------------------------------------------------------------------


def test_many_payments_are_read_as_each_one_is(books: Books) -> None:
    books.add_payment()
    books.add_entry()
    books.add_payment(id="record-2", provider_payment_id="recorded", wallet_id=None)
    books.add_entry(id="entry-3", reference_id="entered", amount_kopeks=7, currency="USD", wallet_id="w2")
    books.add_payment(id="record-4", provider_payment_id="not asked for")
    books.add_entry(id="entry-4", reference_id="not asked for")
    payment_ids = ["pay-1", "recorded", "entered", "unknown"]
    assert books.ledger.read_many(payment_ids) == {
        payment_id: books.ledger.read(payment_id) for payment_id in payment_ids
    }


def test_entries_that_credit_nothing_are_left_out_of_many(books: Books) -> None:
    books.add_payment()
    books.add_entry(type="refund")
    books.add_entry(id="entry-2", reference_type="manual")
    books.add_entry(id="entry-3", type="refund", reference_id="unrecorded")
    assert books.ledger.read_many(["pay-1", "unrecorded"]) == {
        "pay-1": LocalState(RECORD),
        "unrecorded": LocalState(),
    }


def test_the_wallets_that_exist_are_found_by_their_ids(books: Books) -> None:
    books.add_wallet()
    books.add_wallet(id="w2", user_id="somebody", currency="USD")
    books.add_wallet(id="w3")
    assert books.ledger.wallets(["w1", "w2", "unknown"]) == {
        "w1": WALLET,
        "w2": Wallet("w2", "somebody", "USD"),
    }


# --- Open top-ups --------------------------------------------------------------------------------


def test_open_topups_are_paged_the_oldest_first(books: Books) -> None:
    made = {"c": 200, "z": 100, "b": 200, "too old": 99, "too new": 301, "a": 300}
    for name, second in made.items():
        books.add_payment(id=f"record of {name}", provider_payment_id=name, created_at=second)
    pages, after = [], None
    while page := books.ledger.open_topups(100.9, 300.9, after, 2):
        pages.append(page)
        after = page[-1]
    z, b, c, a = (OpenTopup(name, "me", made[name]) for name in "zbca")
    assert pages == [[z, b], [c, a]]


def test_the_first_page_begins_at_the_beginning_of_time(books: Books) -> None:
    books.add_payment(created_at=0)
    books.add_payment(id="record-2", provider_payment_id="canceled", status="canceled")
    books.add_payment(id="record-3", provider_payment_id="subscription", kind="subscription")
    assert books.ledger.open_topups(0, 0, None, 9) == [OpenTopup("pay-1", "me", 0)]


def test_a_users_pending_topups_are_listed_newest_first(books: Books) -> None:
    for number, second in enumerate((100, 300, 200, 99)):
        name = f"pay-{second}"
        books.add_payment(id=f"record-{number}", provider_payment_id=name, created_at=second)
    assert books.ledger.open_topups_of_user("me", 100.9, 10) == ["pay-300", "pay-200", "pay-100"]
    assert books.ledger.open_topups_of_user("me", 100, 2) == ["pay-300", "pay-200"]


@pytest.mark.parametrize(
    "case", [{"status": "canceled"}, {"kind": "subscription"}, {"user_id": "somebody"}], ids=str
)
def test_no_other_payment_is_an_open_topup(books: Books, case: dict[str, str]) -> None:
    books.add_payment(**case)
    assert books.ledger.open_topups_of_user("me", 0, 10) == []


def test_a_topup_that_the_provider_never_saw_is_not_listed(host: StubHost, mocker: MockerFixture) -> None:
    host.edit(TABLES, "provider_payment_id: Mapped[str]", "provider_payment_id: Mapped[str | None]")
    books = Books(host, mocker)
    books.add_payment(provider_payment_id=None)
    assert books.ledger.open_topups_of_user("me", 0, 10) == []


# --- The wallet to be credited -------------------------------------------------------------------


def provider_says(**changes: Any) -> ProviderPayment:
    answer = {
        "id": "pay-1",
        "status": "succeeded",
        "amount": {"value": "1000.00", "currency": "RUB"},
        "metadata": {"kind": "topup", "user_id": "me", "wallet_id": "w1"},
    }
    return ProviderPayment.parse(answer | changes, "pay-1")


def wallet_for(books: Books, user_id: str = "me", **changes: Any) -> Wallet | None:
    """Return the wallet that the payment would be credited to, beside the same state as without it."""
    local, wallet = books.ledger.read_with_wallet(provider_says(**changes), user_id)
    assert local == books.ledger.read("pay-1")
    return wallet


def test_the_wallet_that_the_record_names_counts(books: Books) -> None:
    books.add_wallet(id="w0")
    books.add_wallet(id="w1", user_id="somebody", currency="USD")
    books.add_payment()
    metadata = {"user_id": "somebody", "wallet_id": "w0"}
    assert wallet_for(books, metadata=metadata) == Wallet("w1", "somebody", "USD")


def test_the_wallet_that_the_metadata_names_counts_without_a_record(books: Books) -> None:
    books.add_wallet(id="w0")
    books.add_wallet()
    assert wallet_for(books) == WALLET


def test_where_no_wallet_is_named_it_is_the_users_own_in_the_payments_currency(books: Books) -> None:
    books.add_wallet(id="w0", user_id="somebody")
    books.add_wallet(id="w2", currency="USD")
    books.add_wallet()
    books.add_payment(wallet_id=None)
    assert wallet_for(books) == WALLET
    assert wallet_for(books, amount={"value": "1.00", "currency": "USD"}) == Wallet("w2", "me", "USD")
    assert wallet_for(books, amount={"value": "1.00", "currency": "EUR"}) is None


def test_a_wallet_that_is_not_there_is_none(books: Books) -> None:
    books.add_wallet(id="w0")
    books.add_payment()
    assert wallet_for(books) is None


def test_a_payment_without_money_to_read_leads_to_no_wallet(books: Books) -> None:
    books.add_wallet()
    books.add_payment()
    assert wallet_for(books, amount=None) is None


def test_nobody_elses_payment_leads_to_a_wallet(books: Books) -> None:
    books.add_wallet()
    assert wallet_for(books, "somebody") is None
    assert wallet_for(books, metadata={}) is None
    books.add_payment(user_id="somebody")
    assert wallet_for(books) is None


# --- Creating a wallet ---------------------------------------------------------------------------


def test_a_wallet_is_created_by_the_host(books: Books) -> None:
    books.add_wallet(id="w0", user_id="somebody")
    books.add_wallet(id="w2", currency="USD")
    books.ledger.create_wallet("me", "RUB")
    assert books.ledger.wallets(["wallet of me"]) == {"wallet of me": Wallet("wallet of me", "me", "RUB")}


def test_a_wallet_that_another_created_first_is_taken(books: Books, mocker: MockerFixture) -> None:
    def loses(**columns: str) -> None:
        books.add_wallet(**columns)
        raise OperationalError("insert", {}, Exception("there is one"))

    mocker.patch.object(books.wallet_service, "get_or_create_wallet", loses)
    books.ledger.create_wallet("me", "RUB")
    assert books.ledger.wallets(["w1"]) == {"w1": WALLET}


def test_a_wallet_that_the_host_fails_to_create_is_the_hosts_error(
    books: Books, mocker: MockerFixture
) -> None:
    failing = mocker.patch.object(
        books.wallet_service, "get_or_create_wallet", side_effect=KeyError("theirs")
    )
    with pytest.raises(KeyError, match="theirs"):
        books.ledger.create_wallet("me", "RUB")
    failing.side_effect = None
    with pytest.raises(LookupError, match=r"^the host created no wallet$"):
        books.ledger.create_wallet("me", "RUB")


# --- Crediting -----------------------------------------------------------------------------------


def webhook_of(service: Any) -> Any:
    """Return what the host's path was called with, once."""
    [call] = service._process_topup_webhook.call_args_list
    assert not call.args
    return call.kwargs


def test_the_hosts_path_is_given_what_was_verified_over_what_the_provider_sent(
    books: Books, mocker: MockerFixture
) -> None:
    service = mocker.Mock()
    sent = {"note": "kept", "kind": "other", "user_id": "other", "wallet_id": "other", "amount_kopeks": "1"}
    books.ledger.credit(service, "pay-1", WALLET, Money(100_050, "RUB"), sent)
    assert webhook_of(service) == {
        "event_type": "payment.succeeded",
        "payment_id": "pay-1",
        "webhook_data": {
            "event_type": "payment.succeeded",
            "payment_id": "pay-1",
            "status": "succeeded",
            "amount": "1000.50",
            "currency": "RUB",
            "metadata": {
                "note": "kept",
                "kind": "topup",
                "user_id": "me",
                "wallet_id": "w1",
                "amount_kopeks": 100_050,
            },
        },
    }


def credited(books: Books, payment_id: str = "pay-1", wallet: Wallet = WALLET) -> LedgerEntry:
    """Credit a payment and return its entry."""
    books.ledger.credit(books.service, payment_id, wallet, RUB, {})
    [entry] = books.ledger.read(payment_id).topups
    return entry


def test_an_entry_of_ours_is_taken_once(books: Books) -> None:
    first, second = credited(books), credited(books, "pay-2")
    assert [books.ledger.take_entered(entry) for entry in (second, first, first)] == [True, True, False]


def test_an_entry_that_another_entered_is_not_ours(books: Books, mocker: MockerFixture) -> None:
    path = books.service._process_topup_webhook

    def meanwhile(**arguments: Any) -> None:
        books.add_entry(id="of another payment", reference_id="another")
        path(**arguments)

    books.add_entry(id="before")
    mocker.patch.object(books.service, "_process_topup_webhook", meanwhile)
    credited(books, "pay-2")
    books.add_entry(id="after", reference_id="pay-3")
    for payment_id in ("pay-1", "another", "pay-3"):
        [entry] = books.ledger.read(payment_id).topups
        assert not books.ledger.take_entered(entry)


def test_what_the_hosts_path_raises_goes_through(books: Books, mocker: MockerFixture) -> None:
    mocker.patch.object(books.service, "_process_topup_webhook", side_effect=KeyError("theirs"))
    with pytest.raises(KeyError, match="theirs"):
        books.ledger.credit(books.service, "pay-1", WALLET, RUB, {})


# --- A wallet that somebody holds ----------------------------------------------------------------


class DriverError(sqlite3.OperationalError):
    """An error as PostgreSQL's drivers raise it, with the code where each of them has it."""

    def __init__(self, **codes: str) -> None:
        super().__init__("secret words")
        vars(self).update(codes)


@dataclass
class Locks:
    """What is asked of the database about locks, and the error it answers with."""

    refusal: Exception | None = None
    wallets: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)

    def execute(self, _cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        """Answer in the place of the database where this is about a lock, as SQLAlchemy lets a listener."""
        if statement.startswith("SET LOCAL"):
            self.waits.append(statement)
            return True
        is_lock = statement.startswith(("SELECT wallet.id \nFROM", "BEGIN IMMEDIATE"))
        if is_lock:
            self.wallets.extend(parameters)
            if self.refusal:
                raise self.refusal
        return False


@pytest.fixture
def locks(books: Books, mocker: MockerFixture) -> Locks:
    """Let the database pass for PostgreSQL."""
    mocker.patch.object(books.engine.dialect, "name", "postgresql")
    locks = Locks()
    event.listen(books.engine, "do_execute", locks.execute)
    return locks


@pytest.mark.parametrize("codes", [{"sqlstate": "55P03"}, {"pgcode": "55P03"}], ids=str)
def test_a_wallet_that_somebody_holds_is_not_waited_for(
    books: Books, locks: Locks, codes: dict[str, str]
) -> None:
    locks.refusal = DriverError(**codes)
    with pytest.raises(WalletBusyError):
        books.ledger.credit(books.service, "pay-1", WALLET, RUB, {})
    assert locks.wallets == ["w1"]
    assert books.ledger.read("pay-1") == LocalState()


@pytest.mark.parametrize("codes", [{"sqlstate": "57P01"}, {"pgcode": "57P01"}, {}], ids=str)
def test_another_error_of_the_lock_goes_through(books: Books, locks: Locks, codes: dict[str, str]) -> None:
    locks.refusal = DriverError(**codes)
    with pytest.raises(OperationalError, match="secret words"):
        books.ledger.credit(books.service, "pay-1", WALLET, RUB, {})
    assert books.ledger.read("pay-1") == LocalState()


def test_a_wallet_that_nobody_holds_is_credited_and_no_lock_waited_for_long(
    books: Books, locks: Locks
) -> None:
    assert credited(books) == LedgerEntry("credit of pay-1", "me", "w1", RUB)
    assert locks.wallets == ["w1"]
    assert locks.waits == ["SET LOCAL lock_timeout = '1s'"]


def test_what_writes_beside_a_credit_waits_for_no_lock_long(books: Books, locks: Locks) -> None:
    books.add_wallet()
    books.add_payment(metadata_json={"auto_topup": "true"})
    assert books.ledger.cancel(books.service, "pay-1", {})
    assert locks.wallets == ["w1"]  # it is counted there
    assert set(locks.waits) == {"SET LOCAL lock_timeout = '1s'"}
    assert len(locks.waits) == 2  # for the count, and for the status
    books.ledger.read("pay-1")
    assert len(locks.waits) == 2


def test_a_credit_whose_record_is_changed_first_waits_for_no_lock_long(
    books: Books, locks: Locks, mocker: MockerFixture
) -> None:
    mocker.patch.object(OpenWebUIHost, "ledger_key_has_wallet", True)
    books.add_wallet()
    books.add_payment(wallet_id=None)
    record = books.ledger.read("pay-1").record
    books.ledger.credit_directly(books.service, "pay-1", record, WALLET, RUB, {})
    assert books.ledger.read("pay-1").topups
    assert locks.waits == ["SET LOCAL lock_timeout = '1s'"] * 2  # for the record, and for the credit


def test_a_wallet_that_is_created_waits_for_no_lock_long(books: Books, locks: Locks) -> None:
    books.ledger.create_wallet("me", "RUB")
    assert locks.waits == ["SET LOCAL lock_timeout = '1s'"]


def test_a_failure_is_not_counted_at_a_wallet_that_somebody_holds(books: Books, locks: Locks) -> None:
    books.add_wallet()
    books.add_payment()
    locks.refusal = DriverError(sqlstate="55P03")
    with pytest.raises(WalletBusyError):
        books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true"})
    assert books.failures() == [0]
    assert books.payment().status == "pending"


def test_on_sqlite_somebody_who_writes_is_not_waited_for(
    books: Books, locks: Locks, mocker: MockerFixture
) -> None:
    mocker.patch.object(books.engine.dialect, "name", "sqlite")
    locks.refusal = sqlite3.OperationalError("database is locked")
    with pytest.raises(WalletBusyError):
        books.ledger.credit(books.service, "pay-1", WALLET, RUB, {})
    locks.refusal = None
    assert credited(books) == LedgerEntry("credit of pay-1", "me", "w1", RUB)
    assert not locks.wallets


def test_on_postgresql_the_lock_of_a_wallet_waits_for_nobody(books: Books) -> None:
    assert on_postgresql(lock_wallet(books.tables.Wallet.__table__)).endswith("FOR UPDATE NOWAIT")


def test_the_lock_is_of_one_wallet_alone(books: Books) -> None:
    books.add_wallet()
    books.add_wallet(id="w2")
    with books.engine.connect() as connection:
        statement = lock_wallet(books.tables.Wallet.__table__)
        assert connection.scalars(statement, {"id": "w1"}).all() == ["w1"]


# --- Putting a status right ----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["pending", "failed", "canceled"])
def test_a_status_that_a_credit_overrules_is_put_right(books: Books, status: str) -> None:
    books.add_payment(status=status)
    books.add_entry()
    before = int(time.time())
    assert books.ledger.mark_succeeded("pay-1") is True
    assert books.payment().status == "succeeded"
    assert before <= books.payment().updated_at <= time.time()


@pytest.mark.parametrize("status", ["succeeded", "refunded", "disputed"])
def test_any_other_status_is_left(books: Books, status: str) -> None:
    books.add_payment(status=status)
    books.add_entry()
    assert books.ledger.mark_succeeded("pay-1") is False
    assert vars(books.payment()) == {"status": status, "updated_at": 0}


def test_without_a_credit_no_status_is_put_right(books: Books) -> None:
    books.add_payment()
    books.add_entry(reference_id="another")
    books.add_entry(id="entry-2", type="refund")
    assert books.ledger.mark_succeeded("pay-1") is False
    assert books.payment().status == "pending"


# --- Cancelling ----------------------------------------------------------------------------------


def test_a_cancellation_is_written_with_its_time(books: Books) -> None:
    books.add_payment()
    before = int(time.time())
    assert books.ledger.cancel(books.service, "pay-1", {}) is True
    assert books.payment().status == "canceled"
    assert before <= books.payment().updated_at <= time.time()


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "refunded"])
def test_what_is_not_pending_is_not_canceled(books: Books, status: str) -> None:
    books.add_payment(status=status)
    assert books.ledger.cancel(books.service, "pay-1", {}) is False
    assert vars(books.payment()) == {"status": status, "updated_at": 0}


def test_what_has_been_credited_is_not_canceled(books: Books) -> None:
    books.add_payment()
    books.add_entry()
    assert books.ledger.cancel(books.service, "pay-1", {}) is False
    assert books.payment().status == "pending"


def test_another_payments_entry_or_another_entry_does_not_keep_from_canceling(books: Books) -> None:
    books.add_payment()
    books.add_entry(reference_id="another")
    books.add_entry(id="entry-2", reference_type="manual")
    books.add_entry(id="entry-3", type="refund")
    assert books.ledger.cancel(books.service, "pay-1", {}) is True


def test_another_payment_is_not_canceled(books: Books) -> None:
    books.add_payment()
    assert books.ledger.cancel(books.service, "another", {}) is False
    assert books.payment().status == "pending"


def test_a_failure_is_counted_on_the_payments_wallet_on_top_of_those_before(books: Books) -> None:
    books.add_wallet(id="w0", auto_topup_fail_count=5)
    books.add_wallet(auto_topup_fail_count=2)
    books.add_payment(metadata_json={"auto_topup": "true"})
    books.add_payment(id="record-2", provider_payment_id="another", wallet_id="w0")
    assert books.ledger.cancel(books.service, "pay-1", {})
    assert books.failures() == [5, 3]


def test_a_wallet_that_never_counted_counts_its_first_failure(host: StubHost, mocker: MockerFixture) -> None:
    host.edit(
        TABLES, f"{FAIL_COUNT}: Mapped[int] = mapped_column(default=0)", f"{FAIL_COUNT}: Mapped[int | None]"
    )
    books = Books(host, mocker)
    books.add_wallet(auto_topup_fail_count=None)
    books.add_payment()
    assert books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true"})
    assert books.failures() == [1]


def test_a_payment_whose_wallet_is_gone_is_canceled_and_not_counted(
    books: Books, mocker: MockerFixture
) -> None:
    record_failure = mocker.patch.object(books.service, AUTO_TOPUP_FAILURE)
    books.add_payment()
    assert books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true"}) is True
    record_failure.assert_not_called()


def test_a_failure_that_the_host_did_not_count_is_try_later(books: Books, mocker: MockerFixture) -> None:
    mocker.patch.object(books.service, AUTO_TOPUP_FAILURE)
    books.add_wallet(auto_topup_fail_count=2)
    books.add_payment()
    with pytest.raises(TemporarilyUnavailableError, match=r"^Payment could not be checked yet$") as raised:
        books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true"})
    assert raised.value.reason == "not_written"
    assert books.payment().status == "pending"


def test_a_payment_that_is_no_longer_pending_is_not_counted(books: Books) -> None:
    books.add_wallet()
    books.add_payment(status="succeeded")
    assert books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true"}) is False
    assert books.failures() == [0]


def test_the_metadatas_wallet_counts_only_where_the_record_names_none(books: Books) -> None:
    books.add_wallet(id="w0")
    books.add_wallet()
    books.add_payment()
    assert books.ledger.cancel(books.service, "pay-1", {"auto_topup": "true", "wallet_id": "w0"})
    assert books.failures() == [0, 1]
