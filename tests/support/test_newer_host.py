"""The reference host in the newer host's shape: its differences, and the flaws of its own reconcile."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.harness.host import PACKAGE, RETURN_URL, Host, Program, User, running_host
from tests.support.harness.postgres import Postgres
from tests.support.harness.waiting import wait_until
from tests.support.variants import Variant
from tests.support.yookassa.client import Document, Simulator, rubles

CANCELED = "payment.canceled"
WAITING = "payment.waiting_for_capture"
NEWER = {"REFERENCE_HOST_SHAPE": "n"}
OWN = {"BILLING_TOPUP_RECONCILE_TAKE_OVER": "false"}  # the host's own reconcile is under test here


# --- What the tests share ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(
    newer_program: Program, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("newer_host")
    with running_host(newer_program, simulator=simulator, data_dir=folder, env=OWN) as running:
        yield running


@pytest.fixture(scope="module")
def refused_host(newer_program: Program, simulator: Simulator) -> Iterator[Host]:
    """A host whose requests the provider refuses."""
    wrong = {"YOOKASSA_SECRET_KEY": "wrong"}
    with running_host(newer_program, simulator=simulator, env=wrong | OWN) as running:
        yield running


@pytest.fixture
def user(host: Host) -> User:
    return host.new_user()


def paid(user: User) -> str:
    payment_id = user.topup()
    user.host.simulator.pay(payment_id)
    return payment_id


def unrecorded(user: User, status: str = "succeeded", **metadata: Any) -> str:
    """A top-up only the provider knows; `metadata` replaces what it says, None removes it."""
    user.balance()
    said = {
        "kind": "topup",
        "user_id": user.id,
        "wallet_id": user.host.books.wallet(user.id)["id"],
        **metadata,
    }
    known = {name: value for name, value in said.items() if value is not None}
    return str(user.host.simulator.create(status=status, metadata=known)["id"])


def records(user: User) -> list[Document]:
    books = user.host.books
    with books.transaction() as connection:
        mine = books.payments.select().where(books.payments.c.user_id == user.id)
        return [dict(row) for row in connection.execute(mine.order_by("created_at", "id")).mappings()]


def status_of(user: User, payment_id: str) -> str | None:
    record = user.host.books.record(payment_id)
    return record["status"] if record else None


def topups(user: User, payment_id: str) -> list[tuple[str, int]]:
    """What was credited for the payment: wallet and amount."""
    entries = user.host.books.entries(payment_id)
    return [(entry["wallet_id"], entry["amount_kopeks"]) for entry in entries if entry["type"] == "topup"]


def assert_nothing_credited(user: User, payment_id: str) -> None:
    assert topups(user, payment_id) == []
    assert user.balance() == 0


def answer(user: User, payment_id: object) -> tuple[int, Document]:
    """What the host's own reconcile says."""
    response = user.reconcile(payment_id)
    return response.status_code, response.json()


def credited(payment_id: str) -> tuple[int, Document]:
    said = {"provider_status": "succeeded", "payment_status": "succeeded", "credited": True}
    return 200, {"payment_id": payment_id, **said}


# --- The plugin ----------------------------------------------------------------------------------


def test_the_hosts_own_route_and_method_stay_unless_they_are_taken_over(host: Host, user: User) -> None:
    assert "is attached: " in host.log
    assert "the host keeps its own POST /topup/reconcile and reconcile_topup_payment" in host.log
    payment_id = paid(user)
    assert answer(user, payment_id) == credited(payment_id)
    assert user.balance() == PACKAGE
    paths = host.http.get("/openapi.json").json()["paths"]
    assert set(paths["/api/v1/billing/topup/reconcile"]["post"]["responses"]) == {"200", "422"}
    assert host.admin.report(1).json()["days"][0]["webhook"]["count"] >= 1


# --- Tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_keys_and_columns(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    env = dict(NEWER)
    if database == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        env["DATABASE_URL"] = postgres.new_database()
    code = """if True:
        import json, sqlalchemy
        from open_webui.config import engine
        tables = sqlalchemy.inspect(engine)

        def keys(table):
            return sorted(key["column_names"] for key in tables.get_unique_constraints(table))

        def columns(table):
            return {column["name"]: column["nullable"] for column in tables.get_columns(table)}

        print(json.dumps([
            keys("billing_ledger_entry"), keys("billing_payment"), columns("billing_payment"),
            "correlation_id" in columns("billing_ledger_entry"), columns("billing_wallet"),
        ]))
    """
    ledger_keys, payment_keys, payment, correlated, wallet = Variant(tmp_path).json(code, **env)
    assert ledger_keys == [
        ["wallet_id", "idempotency_key"],
        ["wallet_id", "reference_type", "reference_id", "type"],
    ]
    assert payment_keys == [["auto_topup_claim_key"], ["idempotency_key"], ["provider_payment_id"]]
    assert payment["provider_payment_id"]
    assert payment["auto_topup_claim_key"]
    assert correlated
    assert wallet["topup_expires_at"]
    assert not wallet["daily_reserved_kopeks"]


# --- A top-up ------------------------------------------------------------------------------------


def test_paid_top_up_is_credited_once(host: Host, user: User) -> None:
    payment_id = paid(user)
    assert [host.webhook(payment_id) for _ in range(2)] == [200, 200]
    wallet_id = host.books.wallet(user.id)["id"]
    assert (user.balance(), topups(user, payment_id)) == (PACKAGE, [(wallet_id, PACKAGE)])
    (entry,) = host.books.entries(payment_id)
    record = host.books.record(payment_id)
    assert record is not None
    assert (record["status"], entry["idempotency_key"]) == ("succeeded", record["id"])
    assert entry["metadata_json"]["expiry_policy"] == "rolling_wallet_balance"
    assert record["metadata_json"]["user_email"] == user.email


def test_record_is_made_before_the_provider_is_asked(refused_host: Host) -> None:
    user = refused_host.new_user()
    body = {"amount_kopeks": PACKAGE, "return_url": RETURN_URL}

    def refused() -> Document:
        address = "/api/v1/billing/topup"
        assert refused_host.http.post(address, json=body, headers=user.headers).status_code == 502
        (record,) = records(user)
        return record

    first = refused()
    assert (first["status"], first["provider_payment_id"]) == ("pending", None)
    assert first["status_details"] == {"yookassa_status": "creating"}
    assert refused()["id"] == first["id"], "the second try goes on with the record of the first"


def test_second_top_up_of_the_same_amount_is_the_same_payment(user: User) -> None:
    first = user.topup(apart=False)
    assert user.topup(apart=False) == first
    assert user.topup(150_000, apart=False) != first
    user.host.simulator.pay(first)
    user.host.webhook(first)
    assert user.topup(apart=False) != first


def test_flaw_dead_payment_comes_back_for_a_day(user: User) -> None:
    first = user.topup(apart=False)
    user.host.simulator.decline(first)
    assert user.topup(apart=False) == first
    user.host.books.change_record(first, created_at=int(time.time()) - 24 * 60 * 60 - 1)
    assert user.topup(apart=False) != first


@pytest.mark.parametrize(
    "return_url",
    ["ftp://shop.example", "https://", "https://me:secret@shop.example", "https://shop.example#here"],
)
def test_return_address_is_checked(user: User, return_url: str) -> None:
    body = {"amount_kopeks": PACKAGE, "return_url": return_url}
    refused = user.host.http.post("/api/v1/billing/topup", json=body, headers=user.headers)
    assert (refused.status_code, refused.json()["detail"]) == (400, "Invalid return_url")


# --- The crediting path --------------------------------------------------------------------------


def bent(user: User, *, remove: tuple[str, ...] = (), **fields: Any) -> str:
    """A paid top-up about which the provider says something else than was recorded."""
    payment_id = paid(user)
    metadata = {"kind": "topup", **fields.pop("metadata", {})}
    user.host.simulator.change(payment_id, metadata=metadata, remove=remove, **fields)
    return payment_id


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": rubles("1.00")},
        {"amount": rubles("1.00"), "metadata": {"amount_kopeks": "100000"}},
        {"amount": {"value": "1000.00", "currency": "USD"}},
        {"metadata": {"wallet_id": "another"}},
        {"metadata": {"user_id": "another"}},
    ],
    ids=["amount", "amount asked for", "currency", "wallet", "user"],
)
def test_contradiction_of_the_record_is_refused_for_good(
    host: Host, user: User, fields: Mapping[str, Any]
) -> None:
    payment_id = bent(user, **fields)
    assert host.webhook(payment_id) == 400
    assert status_of(user, payment_id) == "pending"
    assert_nothing_credited(user, payment_id)


def test_record_decides_and_metadata_are_not_needed(host: Host, user: User) -> None:
    payment_id = bent(user)
    host.simulator.change(payment_id, metadata={})
    assert host.webhook(payment_id) == 200, "the kind as well is the record's"
    assert user.balance() == PACKAGE


@pytest.mark.parametrize("missing", ["amount.value", "amount.currency"])
def test_missing_money_is_to_be_sent_again(host: Host, user: User, missing: str) -> None:
    payment_id = bent(user, remove=(missing,))
    assert host.webhook(payment_id) == 503
    assert_nothing_credited(user, payment_id)


def test_record_without_a_wallet_is_never_credited(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, wallet_id=None)
    assert host.webhook(payment_id) == 503, "also where the metadata name the wallet"
    assert answer(user, payment_id) == (500, {"detail": "Failed to reconcile topup"})
    assert_nothing_credited(user, payment_id)


def test_failed_credit_is_told(host: Host, user: User) -> None:
    payment_id = paid(user)
    with host.books.refusing("INSERT", host.books.ledger, reference_id=payment_id):
        assert host.webhook(payment_id) == 503
    assert status_of(user, payment_id) == "pending"
    assert host.webhook(payment_id) == 200
    assert user.balance() == PACKAGE


def test_payment_only_the_provider_knows_is_adopted(host: Host, user: User) -> None:
    payment_id = unrecorded(user)
    assert host.webhook(payment_id) == 200
    assert (status_of(user, payment_id), user.balance()) == ("succeeded", PACKAGE)


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({"wallet_id": None}, 503),
        ({"user_id": None}, 503),
        ({"user_id": "another"}, 400),
        ({"wallet_id": "?"}, 400),
        ({"amount_kopeks": "1"}, 400),
    ],
)
def test_without_a_record_the_metadata_have_to_add_up(
    host: Host, user: User, metadata: Document, status: int
) -> None:
    payment_id = unrecorded(user, **metadata)
    assert host.webhook(payment_id) == status
    assert status_of(user, payment_id) is None
    assert_nothing_credited(user, payment_id)


def test_wallet_has_to_have_the_payments_currency(host: Host, user: User) -> None:
    payment_id = unrecorded(user, wallet_id=host.books.add_wallet(user.id, "USD"))
    assert host.webhook(payment_id) == 400
    assert_nothing_credited(user, payment_id)


def test_flaw_succeeded_without_an_entry_is_never_credited(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status="succeeded")
    assert host.webhook(payment_id) == 200
    assert answer(user, payment_id) == credited(payment_id), "the status is believed"
    assert_nothing_credited(user, payment_id)


@pytest.mark.parametrize("status", ["canceled", "failed"])
def test_wrongly_closed_payment_is_credited(host: Host, user: User, status: str) -> None:
    payment_id = paid(user)
    host.books.change_record(payment_id, status=status)
    assert host.webhook(payment_id) == 200
    assert (status_of(user, payment_id), user.balance()) == ("succeeded", PACKAGE)


def test_webhook_waits_for_the_database_in_a_thread(host: Host, user: User) -> None:
    payment_id, database = paid(user), host.environment["DATABASE_URL"].removeprefix("sqlite:///")
    asked = host.simulator.questions(payment_id)
    with closing(sqlite3.connect(database, isolation_level=None)) as rival, ThreadPoolExecutor(1) as pool:
        rival.execute("BEGIN IMMEDIATE")
        notified = pool.submit(host.webhook, payment_id)
        wait_until(lambda: host.simulator.questions(payment_id) > asked, 10, "the provider was not asked")
        for _ in range(20):
            assert host.http.get("/health", timeout=2).status_code == 200
        rival.execute("ROLLBACK")
        assert notified.result() == 200
    assert user.balance() == PACKAGE


# --- Automatic top-ups ---------------------------------------------------------------------------


def wants_automatic_top_ups(user: User) -> str:
    """A user whose wallet tops itself up as soon as anything costs money; the wallet's id."""
    user.balance()
    books = user.host.books
    wallet_id = str(books.wallet(user.id)["id"])
    settings = {"auto_topup_threshold_kopeks": 0, "auto_topup_amount_kopeks": PACKAGE}
    books.change_wallet(wallet_id, auto_topup_enabled=True, **settings)
    books.add_record(
        user.id, str(uuid4()), wallet_id=wallet_id, status="succeeded", payment_method_id="saved"
    )
    return wallet_id


def spend(user: User) -> str:
    """What becomes of an automatic top-up when something costs more than there is."""
    refused = user.host.http.post("/api/v1/audio/speech", json={"input": "a"}, headers=user.headers)
    assert refused.status_code == 402
    return str(refused.json()["detail"]["auto_topup_status"])


def newest(user: User) -> Document:
    """The record of the automatic top-up."""
    return next(record for record in records(user) if (record["metadata_json"] or {}).get("auto_topup"))


def opened_for(user: User) -> int:
    """How many payments the provider has opened for the user."""
    # Other tests leave payments there whose metadata is no mapping.
    said = [payment.get("metadata") for payment in user.host.simulator.payments()]
    return sum(isinstance(metadata, dict) and metadata.get("user_id") == user.id for metadata in said)


def claim(user: User) -> str | None:
    key: str | None = newest(user)["auto_topup_claim_key"]
    return key


def test_automatic_top_up_is_claimed_until_it_is_settled(host: Host, user: User) -> None:
    wallet_id = wants_automatic_top_ups(user)
    assert (spend(user), spend(user)) == ("created", "pending")
    assert claim(user) == f"auto_topup:{wallet_id}"
    payment_id = newest(user)["provider_payment_id"]
    host.simulator.pay(payment_id)
    assert host.webhook(payment_id) == 200
    assert (claim(user), user.balance()) == (None, PACKAGE)


def test_canceled_automatic_top_up_gives_up_its_claim_and_counts_once(host: Host, user: User) -> None:
    wallet_id = wants_automatic_top_ups(user)
    spend(user)
    payment_id = newest(user)["provider_payment_id"]
    host.simulator.decline(payment_id)
    assert [host.webhook(payment_id, CANCELED) for _ in range(2)] == [200, 200]
    assert (status_of(user, payment_id), claim(user)) == ("canceled", None)
    assert host.books.wallet(user.id)["auto_topup_fail_count"] == 1
    assert host.books.wallet(user.id)["id"] == wallet_id


@pytest.mark.parametrize("status", ["canceled", "failed", "succeeded"])
def test_flaw_claim_left_behind_stands_in_the_way_for_ever(host: Host, user: User, status: str) -> None:
    wants_automatic_top_ups(user)
    spend(user)
    host.books.change_record(newest(user)["provider_payment_id"], status=status)
    opened = opened_for(user)
    assert [spend(user), spend(user)] == ["created", "created"], "so it says"
    assert opened_for(user) == opened


def test_flaw_pending_top_up_blocks_automatic_ones(user: User) -> None:
    wants_automatic_top_ups(user)
    user.host.books.change_record(user.topup(), created_at=0)
    assert spend(user) == "pending", "however old it is"


def test_refused_automatic_top_up_is_recorded_as_failed(refused_host: Host) -> None:
    user = refused_host.new_user()
    wants_automatic_top_ups(user)
    assert spend(user) == "failed"
    record = newest(user)
    assert (record["status"], record["provider_payment_id"]) == ("failed", None)
    assert record["auto_topup_claim_key"] is None
    assert refused_host.books.wallet(user.id)["auto_topup_fail_count"] == 1


@pytest.mark.parametrize(("age", "is_asked_again"), [(0, False), (61, True)])
def test_claim_of_a_lost_request_is_taken_over_after_a_minute(
    host: Host, user: User, tmp_path: Path, age: int, is_asked_again: bool
) -> None:
    wallet_id = wants_automatic_top_ups(user)
    lost = {"wallet_id": wallet_id, "metadata_json": {"auto_topup": True}, "provider_payment_id": None}
    claimed = {"auto_topup_claim_key": f"auto_topup:{wallet_id}", "updated_at": int(time.time()) - age}
    host.books.add_record(user.id, "", **lost, **claimed)
    code = f"""if True:
        import asyncio, json
        from open_webui.utils.airis.billing_init import init_billing_on_startup
        from open_webui.utils.billing import billing_service

        async def create():
            await init_billing_on_startup()
            topup = [{user.id!r}, {wallet_id!r}, {PACKAGE}, "saved", "reason"]
            return await billing_service.create_auto_topup_payment(*topup)

        print(json.dumps(asyncio.run(create())["payment_id"]))
    """
    payment_id = Variant(tmp_path).json(code, **host.environment)
    assert payment_id == newest(user)["provider_payment_id"]
    assert (payment_id is not None) == is_asked_again


# --- Wallets -------------------------------------------------------------------------------------


def test_two_who_make_a_wallet_at_once_both_get_it(postgres: Postgres, tmp_path: Path) -> None:
    code = """if True:
        import json, sqlalchemy
        from sqlalchemy.orm import Session
        from open_webui.utils import billing
        rivals = []

        # The rival comes between the look and the write.
        @sqlalchemy.event.listens_for(Session, "before_flush", once=True)
        def rival(*_):
            rivals.append(billing.wallet_service.get_or_create_wallet("user", "RUB").id)

        wallet = billing.wallet_service.get_or_create_wallet("user", "RUB")
        print(json.dumps(rivals == [wallet.id]))
    """
    assert Variant(tmp_path).json(code, DATABASE_URL=postgres.new_database(), **NEWER)


def test_flaw_payment_can_be_credited_to_two_wallets(host: Host, user: User) -> None:
    payment_id = paid(user)
    other = host.books.add_wallet(host.new_user().id)
    host.books.add_entry(user.id, other, reference_id=payment_id)
    assert host.webhook(payment_id) == 200
    wallet_id = host.books.wallet(user.id)["id"]
    assert sorted(topups(user, payment_id)) == sorted([(other, PACKAGE), (wallet_id, PACKAGE)])


def test_other_amount_under_the_same_reference_is_refused(host: Host, user: User) -> None:
    payment_id = paid(user)
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.add_entry(user.id, wallet_id, reference_id=payment_id, amount_kopeks=1)
    assert host.webhook(payment_id) == 503
    assert (status_of(user, payment_id), user.balance()) == ("pending", 0)


def test_balance_runs_out_as_a_whole(host: Host, user: User) -> None:
    payment_id = paid(user)
    host.webhook(payment_id)
    wallet_id = host.books.wallet(user.id)["id"]
    (entry,) = host.books.entries(payment_id)
    assert host.books.wallet(user.id)["topup_expires_at"] == entry["expires_at"]
    host.books.change_wallet(wallet_id, topup_expires_at=1)
    assert user.balance() == 0
    movements = user.get("/ledger").json()
    assert sorted((e["type"], e["amount_kopeks"]) for e in movements) == [
        ("adjustment", -PACKAGE),
        ("topup", PACKAGE),
    ]


# --- The client ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "asked", "status", "words"),
    [
        ({"status": 500}, 3, 503, "is temporarily unavailable"),
        ({"status": 429}, 3, 503, "is rate-limiting requests"),
        ({"truncate": 5}, 3, 503, "is temporarily unavailable"),
        ({"status": 400}, 1, 502, "rejected the payment request"),
        ({"status": 401}, 1, 502, "credentials are invalid"),
        ({"status": 404}, 1, 502, "is temporarily unavailable"),
        ({"status": 200, "raw": "<html>"}, 1, 502, "is temporarily unavailable"),
    ],
    ids=["500", "429", "cut off", "400", "401", "404", "unreadable"],
)
def test_what_may_pass_by_itself_is_asked_three_times(
    user: User, fault: Document, asked: int, status: int, words: str
) -> None:
    payment_id, simulator = paid(user), user.host.simulator
    simulator.fault(payment_id=payment_id, times=asked, **fault)
    assert answer(user, payment_id) == (status, {"detail": f"Payment provider {words}"})
    assert simulator.questions(payment_id) == asked
    assert answer(user, payment_id) == credited(payment_id)


def test_error_says_whether_it_may_pass_by_itself(tmp_path: Path) -> None:
    code = """if True:
        import asyncio, json
        from open_webui.utils.yookassa import YooKassaClient, YooKassaConfig, YooKassaRequestError

        async def ask():
            try:
                await YooKassaClient(YooKassaConfig("1", "test_1", api_url="http://127.0.0.1:9")).get_payment("x")
            except YooKassaRequestError as error:
                return [error.status_code, error.retryable, error.error_code, error.source]

        print(json.dumps(asyncio.run(ask())))
    """
    assert Variant(tmp_path).json(code, **NEWER) == [None, True, None, "network"]


# --- The host's own reconcile --------------------------------------------------------------------


def test_reconcile_refuses_strangers_and_what_is_no_id(host: Host, user: User) -> None:
    payment_id, recordless = paid(host.new_user()), unrecorded(user, user_id="another")
    refused = (403, {"detail": "Payment does not belong to the current user"})
    assert [answer(user, payment_id), answer(user, recordless)] == [refused, refused]
    assert answer(user, "  ") == (400, {"detail": "payment_id is required"})
    assert user.reconcile(None).status_code == 422


def test_reconcile_credits_without_a_record(user: User) -> None:
    payment_id = unrecorded(user)
    assert answer(user, payment_id) == credited(payment_id)
    assert user.balance() == PACKAGE


def test_reconcile_without_a_client(newer_program: Program) -> None:
    with running_host(newer_program, env=OWN) as bare:
        said = answer(bare.new_user(), "a-payment")
    assert said == (503, {"detail": "Payment system is not configured"})


def test_flaw_reconcile_asks_about_what_is_credited(user: User) -> None:
    payment_id = paid(user)
    assert [answer(user, payment_id) for _ in range(2)] == [credited(payment_id)] * 2
    assert user.host.simulator.questions(payment_id) == 2


@pytest.mark.parametrize(
    "bend",
    [
        {"recipient": {"account_id": "999999", "gateway_id": "1"}},
        {"id": "about-another-payment"},
        {"test": True},
    ],
    ids=["another shop's", "about another id", "test"],
)
def test_flaw_reconcile_believes_any_answer(user: User, bend: Document) -> None:
    payment_id = paid(user)
    user.host.simulator.change(payment_id, **bend)
    assert answer(user, payment_id) == credited(payment_id)
    assert user.balance() == PACKAGE


def test_flaw_reconcile_pays_what_was_refunded(user: User) -> None:
    payment_id = paid(user)
    user.host.simulator.refund(payment_id)
    assert answer(user, payment_id) == credited(payment_id)
    assert user.balance() == PACKAGE


def test_flaw_reconcile_pays_what_was_settled_by_hand(host: Host, user: User) -> None:
    payment_id = paid(user)
    wallet_id = host.books.wallet(user.id)["id"]
    host.books.add_entry(user.id, wallet_id, type="adjustment", reference_id=payment_id)
    assert answer(user, payment_id) == credited(payment_id)
    assert user.balance() == PACKAGE, "on top of what the hand gave"


def test_flaw_reconcile_sends_hostile_ids(host: Host, user: User) -> None:
    somewhere = str(uuid4())
    assert user.reconcile(f"../refunds/{somewhere}").status_code == 502
    assert f"/v3/refunds/{somewhere}" in {seen.target for seen in host.simulator.requests()}


def test_flaw_late_answer_turns_a_credited_payment_back(host: Host, user: User) -> None:
    payment_id = paid(user)
    answer(user, payment_id)
    host.simulator.change(payment_id, status="waiting_for_capture")
    status, body = answer(user, payment_id)
    assert (status, body["payment_status"], body["credited"]) == (200, "pending", False)
    assert user.balance() == PACKAGE


def test_flaw_mismatch_is_a_500(user: User) -> None:
    payment_id = bent(user, amount=rubles("1.00"))
    assert answer(user, payment_id) == (500, {"detail": "Failed to reconcile topup"})
    assert_nothing_credited(user, payment_id)


def test_unpaid_success_is_a_503(user: User) -> None:
    payment_id = bent(user, paid=False)
    assert answer(user, payment_id) == (503, {"detail": "Payment system temporarily unavailable"})
    assert_nothing_credited(user, payment_id)


def test_flaw_reconcile_counts_a_cancellation_each_time(host: Host, user: User) -> None:
    wants_automatic_top_ups(user)
    spend(user)
    payment_id = newest(user)["provider_payment_id"]
    host.simulator.decline(payment_id)
    for _ in range(3):
        assert answer(user, payment_id)[1]["payment_status"] == "canceled"
    wallet = host.books.wallet(user.id)
    assert (wallet["auto_topup_fail_count"], wallet["auto_topup_enabled"]) == (3, False)
