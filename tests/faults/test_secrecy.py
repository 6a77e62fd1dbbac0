"""What is not the caller's is refused in the same words; answers and the plugin's log hold no secret."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest

from tests.support.harness.host import Host, User
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Document

from .host_pair import HostPair
from .payments import FOREIGN, assert_credited, paid, unrecorded

CANARY = "canary-7f3a"
# By the reference host's logging, or by real hosts' Loguru, which names function and line behind the module.
RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[,.]\d+ \| (\w+) *\| (\S+) - (.*)")
UVICORN = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL): ")


# --- The same refusal ----------------------------------------------------------------------------------


def credited(stranger: User) -> str:
    """A payment that is credited to the stranger."""
    payment_id = paid(stranger)
    assert_credited(stranger.reconcile(payment_id), payment_id)
    return payment_id


def subscription(stranger: User) -> str:
    """A payment that is not a top-up."""
    payment_id = paid(stranger)
    stranger.host.books.change_record(payment_id, kind="subscription")
    return payment_id


def settled_without_entry(stranger: User) -> str:
    """A payment that would be held."""
    payment_id = paid(stranger)
    stranger.host.books.change_record(payment_id, status="succeeded")
    return payment_id


def only_in_the_ledger(stranger: User) -> str:
    """A credited payment whose record is deleted."""
    payment_id = credited(stranger)
    stranger.host.books.delete_record(payment_id)
    return payment_id


def unknown(stranger: User) -> str:
    """An id that neither host nor provider knows."""
    return f"unknown-{stranger.id}"


def without(name: str) -> Callable[[User], str]:
    """A payment that only the provider knows, with one field of its metadata missing."""

    def make(stranger: User) -> str:
        payment_id = unrecorded(stranger)
        metadata = stranger.host.simulator.payment(payment_id)["metadata"]
        stranger.host.simulator.change(payment_id, metadata=metadata | {name: None})
        return payment_id

    return make


def with_fields(**fields: object) -> Callable[[User], str]:
    """A payment that only the provider knows, with odd fields."""
    return lambda stranger: unrecorded(stranger, **fields)


NOT_MINE: dict[str, Callable[[User], str]] = {
    "pending": lambda stranger: stranger.topup(),
    "paid": paid,
    "credited": credited,
    "subscription": subscription,
    "held": settled_without_entry,
    "only in the ledger": only_in_the_ledger,
    "unknown": unknown,
    "unrecorded": unrecorded,
    "without an owner": without("user_id"),
    "without a kind": without("kind"),
    "without metadata": with_fields(remove=["metadata"]),
    "metadata of another kind": with_fields(metadata=["user_id"]),
    "owner of another kind": with_fields(metadata={"kind": "topup", "user_id": ["x"]}),
    "odd wallet": with_fields(metadata={"kind": "topup", "user_id": "x", "wallet_id": "\x00"}),
    "refunded": with_fields(refunded_amount={"value": "1000.00", "currency": "RUB"}),
    "of another shop": with_fields(recipient={"account_id": "another"}),
    "undecided": with_fields(status="pending", paid=False),
    "canceled": with_fields(status="canceled", paid=False),
}


def shape(response: httpx.Response) -> object:
    """Return all of an answer that does not differ each time."""
    timed = {"date", "x-process-time"}  # some hosts say how long they took
    headers = {name: value for name, value in response.headers.items() if name not in timed}
    return response.status_code, response.json(), headers


@pytest.mark.parametrize("case", NOT_MINE)
def test_what_is_not_mine_is_refused_in_the_same_words(
    host_pair: HostPair, user: User, stranger: User, case: str
) -> None:
    payment_id = NOT_MINE[case](stranger)
    refusal = user.reconcile(payment_id)
    assert (refusal.status_code, refusal.json()) == (403, {"detail": FOREIGN})
    assert shape(refusal) == shape(user.reconcile(unknown(user)))
    # An administrator is nobody's owner either.
    assert shape(refusal) == shape(host_pair.host.admin.reconcile(payment_id))


def test_without_an_owner_the_proof_fails(sqlite_pair: HostPair) -> None:
    with sqlite_pair.mutated("no owner"), pytest.raises(AssertionError, match="200"):
        test_what_is_not_mine_is_refused_in_the_same_words(
            sqlite_pair, sqlite_pair.host.new_user(), sqlite_pair.host.new_user(), "credited"
        )


# --- No secrets ----------------------------------------------------------------------------------------

TROUBLE: tuple[Document, ...] = (
    *({"status": status, "body": {"type": "error", "description": CANARY}} for status in range(400, 405)),
    {"status": 500, "body": {"type": "error", "description": CANARY}},
    {"raw": f"<html>{CANARY}</html>"},
    {"raw": f'{{"id": "{CANARY}"', "content_type": "application/json"},
    {"body": {"id": CANARY, "status": CANARY}},
    {"body": [CANARY]},
    {"redirect": f"http://127.0.0.1:9/{CANARY}"},
    {"reset": True},
)
BENT: tuple[Document, ...] = (
    {"status": CANARY},
    {"paid": CANARY},
    {"amount": {"value": CANARY, "currency": CANARY}},
    {"amount": {"value": "1.00", "currency": "RUB"}},
    {"recipient": {"account_id": CANARY}},
    {"metadata": {"user_id": CANARY, "note": CANARY}},
    {"refunded_amount": CANARY},
    {"test": CANARY},
)


def everything_goes_wrong(
    host_pair: HostPair, user: User, foreign: Sequence[str]
) -> Iterator[httpx.Response]:
    """Yield every kind of answer, with secrets wherever they could come from."""
    simulator = host_pair.host.simulator
    for recorded in (True, False):
        for trouble in TROUBLE:
            payment_id = paid(user) if recorded else unrecorded(user)
            simulator.fault(payment_id=payment_id, times=1, **trouble)
            yield user.reconcile(payment_id)
            yield user.reconcile(payment_id)
        for fields in BENT:
            payment_id = paid(user) if recorded else unrecorded(user)
            simulator.change(payment_id, **fields)
            yield user.reconcile(payment_id)
    for payment_id in foreign:
        yield user.reconcile(payment_id)
    for body in (b"", CANARY.encode(), b'{"payment_id": "%s/.."}' % CANARY.encode()):
        yield user.reconcile_raw(body)
    payment_id = paid(user)
    with host_pair.read_only():
        yield user.reconcile(payment_id)
    books = host_pair.host.books
    for table in (books.payments, books.ledger):
        with books.missing(table):
            yield user.reconcile(payment_id)
    with books.refusing("INSERT", books.ledger, reference_id=payment_id):
        yield user.reconcile(payment_id)
    yield user.reconcile(payment_id)


def secrets(host_pair: HostPair, user: User, stranger: User) -> list[str]:
    """Return what nobody may read."""
    simulator, environment = host_pair.host.simulator, host_pair.host.environment
    pair = f"{simulator.shop_id}:{simulator.secret_key}".encode()
    return [
        CANARY,
        simulator.secret_key,
        base64.b64encode(pair).decode(),
        environment["WEBUI_SECRET_KEY"],
        environment["DATABASE_URL"],
        user.token,
        stranger.token,
        user.email,
        stranger.email,
        stranger.id,
        *(wallet["id"] for wallet in host_pair.host.books.wallets(stranger.id)),
        "Traceback",
        'File "',
        "SELECT",
        "INSERT",
        "billing_payment",
    ]


def our_records(host: Host) -> list[tuple[str, str]]:
    """Return level and text of what the plugin itself has logged, stack traces included."""
    records: list[tuple[str, str, str]] = []
    for line in host.log.splitlines():
        found = RECORD.match(line)
        if found:
            records.append((found[1], found[2], found[3]))
        elif records and not UVICORN.match(line):
            level, name, text = records.pop()
            records.append((level, name, f"{text}\n{line}"))
    return [(level, text) for level, name, text in records if name.startswith("openwebui_billing_reconcile")]


def keeps_secrets(host_pair: HostPair, user: User, stranger: User) -> None:
    """Assert that no secret is in an answer or in a log line of the plugin, at any level."""
    foreign = [case(stranger) for case in NOT_MINE.values()]
    last = paid(stranger)
    assert_credited(stranger.reconcile(last), last)
    wait_until(lambda: any(last in text for _, text in our_records(host_pair.host)), 10, "no line about it")
    before = len(our_records(host_pair.host))
    responses = list(everything_goes_wrong(host_pair, user, foreign))
    assert {response.status_code for response in responses} == {200, 400, 403, 409, 502, 503}
    records = our_records(host_pair.host)[before:]
    assert {level for level, _ in records} >= {"INFO", "WARNING"}
    for secret in secrets(host_pair, user, stranger):
        for response in responses:
            assert secret not in response.text
            assert secret not in str(response.headers)
        for _, text in records:
            assert secret not in text
    assert all("\n" not in text for _, text in records)


def test_no_secret_is_told_or_logged(host_pair: HostPair, user: User, stranger: User) -> None:
    keeps_secrets(host_pair, user, stranger)


# It shows as well that the log is open for the level DEBUG.
def test_with_errors_logged_in_full_the_proof_fails(sqlite_pair: HostPair) -> None:
    with sqlite_pair.mutated("errors logged in full"), pytest.raises(AssertionError, match=CANARY):
        keeps_secrets(sqlite_pair, sqlite_pair.host.new_user(), sqlite_pair.host.new_user())
