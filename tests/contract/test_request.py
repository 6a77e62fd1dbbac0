"""400: whatever is not a top-up's id is turned away before admin looks it up. It is never 422."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.harness.host import Host, User

from . import answers
from .scenarios import each, no_queries, nothing_written, paid

LIMIT = 4096
MEGABYTE = 1 << 20

# One for each class; all of them are in tests/unit/request_bodies.py.
HOSTILE_IDS = {
    "another endpoint": "../refunds/1",
    "encoded slash": "a%2Fb",
    "query parameter": "x?limit=1",
    "fragment": "x#y",
    "header": "x\r\nHost: evil.example",
    "null": "x\0y",
    "space": "x y",
    "SQL": "x' OR '1'='1",
    "65 characters": "a" * 65,
    "Cyrillic": "платёж",
    "lone surrogate": "x\ud800",
}
NOT_IDS: dict[str, object] = {"null": None, "blank": " \t", "number": 1, "list": ["x"], "object": {"$ne": ""}}
NOT_BODIES = {
    "absent": b"",
    "not JSON": b"payment_id=x",
    "not UTF-8": b'{"payment_id": "\xff\xfe"}',
    "not an object": b'["x"]',
    "without payment_id": b"{}",
    "deep": b"[" * LIMIT,
    "one byte too large": b'{"payment_id": "x"}'.ljust(LIMIT + 1),
    "a megabyte": b'{"payment_id": "x"}'.ljust(MEGABYTE),
}


@pytest.fixture
def admin(host: Host) -> User:
    """Return the administrator: refused requests leave nothing behind, so one user serves all."""
    return host.admin


@each(HOSTILE_IDS)
def test_hostile_id_reaches_no_provider(host: Host, admin: User, case: str) -> None:
    with no_queries(host.simulator):
        answers.invalid(admin.reconcile_raw(json.dumps({"payment_id": case}).encode()))


@each(NOT_IDS)
def test_what_is_no_id_is_400(host: Host, admin: User, case: object) -> None:
    with no_queries(host.simulator):
        answers.invalid(admin.reconcile_raw(json.dumps({"payment_id": case}).encode()))


@each(NOT_BODIES)
def test_what_is_no_body_is_400(host: Host, admin: User, case: bytes) -> None:
    with no_queries(host.simulator):
        answers.invalid(admin.reconcile_raw(case))


def test_endless_body_is_cut_off(host: Host, admin: User) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"payment_id": "'
        for _ in range(64):
            yield b"x" * 1024

    with no_queries(host.simulator):
        answers.invalid(admin.reconcile_raw(chunks()))


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_what_another_sites_form_can_send_is_refused(host: Host, user: User, content_type: str) -> None:
    payment_id = paid(user)
    body = json.dumps({"payment_id": payment_id}).encode()
    with no_queries(host.simulator), nothing_written(user, about=payment_id):
        answers.invalid(user.reconcile_raw(body, content_type))


def test_body_may_be_as_large_as_the_limit(user: User) -> None:
    payment_id = paid(user)
    body = json.dumps({"payment_id": payment_id}).encode().ljust(LIMIT)
    answers.credited(user.reconcile_raw(body), payment_id)


def test_white_space_around_the_id_is_ignored(user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(f"\r\n {payment_id}\t"), payment_id)


@pytest.mark.parametrize("shape", ["A-Z_a-z_0-9", "x" * 64])
def test_every_id_of_letters_digits_hyphens_and_underscores_is_looked_up(
    host: Host, user: User, shape: str
) -> None:
    host.simulator.forget_requests()
    answers.not_owned(user.reconcile(shape))
    assert [seen.target for seen in host.simulator.requests()] == [f"/v3/payments/{shape}"]


def test_case_of_the_id_matters(user: User) -> None:
    payment_id = paid(user)
    answers.not_owned(user.reconcile(payment_id.swapcase()))
    assert user.balance() == 0


def test_of_equal_keys_the_last_counts(user: User, stranger: User) -> None:
    mine, theirs = user.topup(), stranger.topup()
    body = f'{{"payment_id": "{theirs}", "payment_id": "{mine}"}}'
    answers.undecided(user.reconcile_raw(body.encode()), mine, "pending", "pending")


def test_other_keys_are_ignored(user: User, stranger: User) -> None:
    payment_id = paid(user)
    body = {"payment_id": payment_id, "user_id": stranger.id, "amount_kopeks": 1, "credited": True}
    answers.credited(user.reconcile_raw(json.dumps(body).encode()), payment_id)
    assert (user.balance(), stranger.balance()) == (100_000, 0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_another_encoding_is_read_or_refused(user: User, encoding: str) -> None:
    payment_id = user.topup()
    response = user.reconcile_raw(json.dumps({"payment_id": payment_id}).encode(encoding))
    if response.status_code == 400:
        answers.invalid(response)
    else:
        answers.undecided(response, payment_id, "pending", "pending")
