"""400: whatever is not a top-up's id is turned away before anybody looks it up. It is never 422."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.harness.host import Host, User

from . import answers
from .scenarios import nobody_asked, paid

LIMIT = 4096
MEGABYTE = 1 << 20

HOSTILE_IDS = {
    "parent folder": "../refunds/1",
    "own folder": ".",
    "dots": "..",
    "inner traversal": "a/../../refunds/1",
    "slash": "a/b",
    "leading slash": "/payments",
    "backslash": "..\\refunds",
    "address": "http://127.0.0.1/",
    "query": "x?limit=1",
    "another parameter": "x&limit=1",
    "fragment": "x#y",
    "path parameter": "x;y=1",
    "encoded dots": "%2e%2e",
    "encoded slash": "a%2Fb",
    "twice encoded slash": "a%252Fb",
    "encoded null": "x%00",
    "null": "x\0y",
    "line feed": "x\ny",
    "header": "x\r\nHost: evil.example",
    "tab": "x\ty",
    "space": "x y",
    "escape": "x\x1b[2J",
    "delete": "x\x7f",
    "dot": "x.y",
    "colon": "x:y",
    "plus": "x+y",
    "at": "x@y",
    "star": "*",
    "comma": "x,y",
    "quote": "x' OR '1'='1",
    "double quote": 'x"y',
    "template": "{payment_id}",
    "shell": "$(id)",
    "65 characters": "a" * 65,
    "3000 characters": "a" * 3000,
    "Cyrillic": "платёж",
    "Cyrillic look-alike": "\u0430bc",
    "Arabic digits": "١٢٣",
    "full-width digits": "\uff11\uff12",
    "superscript digit": "x²",
    "Kelvin sign": "\u212a",
    "long s": "\u017f",
    "combining accent": "e\u0301",
    "zero-width space": "x\u200by",
    "right-to-left mark": "x\u202ey",
    "byte-order mark": "\ufeffx",
    "emoji": "💸",
    "lone surrogate": "x\ud800",
}
NOT_IDS: dict[str, object] = {
    "null": None,
    "empty": "",
    "blank": " ",
    "white space": " \t\r\n\v\f",
    "no-break space": "\u00a0",
    "number": 1,
    "decimal": 1.5,
    "zero": 0,
    "true": True,
    "false": False,
    "list": ["x"],
    "empty list": [],
    "object": {"$ne": ""},
}
NOT_BODIES = {
    "absent": b"",
    "blank": b" \n",
    "null": b"null",
    "list": b'["x"]',
    "empty list": b"[]",
    "list of objects": b'[{"payment_id": "x"}]',
    "string": b'"x"',
    "number": b"1",
    "true": b"true",
    "empty object": b"{}",
    "another key": b'{"id": "x"}',
    "another case": b'{"Payment_Id": "x"}',
    "nested": b'{"data": {"payment_id": "x"}}',
    "unfinished": b'{"payment_id": "x"',
    "two objects": b'{"payment_id": "x"}{"payment_id": "y"}',
    "trailing comma": b'{"payment_id": "x",}',
    "single quotes": b"{'payment_id': 'x'}",
    "comment": b'{"payment_id": "x"} // y',
    "form": b"payment_id=x",
    "HTML": b"<html></html>",
    "raw line feed in a string": b'{"payment_id": "x\n"}',
    "not a number": b'{"payment_id": NaN}',
    "infinity": b'{"payment_id": -Infinity}',
    "huge number": b'{"payment_id": ' + b"9" * 4000 + b"}",
    "huge exponent": b'{"payment_id": 1e999999999}',
    "not UTF-8": b'{"payment_id": "\xff\xfe"}',
    "Latin-1": '{"payment_id": "é"}'.encode("latin-1"),
    "null bytes": b"\0" * 16,
    "gzip": b"\x1f\x8b\x08\x00",
    "deep lists": b"[" * LIMIT,
    "closed deep lists": b"[" * (LIMIT // 2) + b"]" * (LIMIT // 2),
    "deep objects": b'{"a":' * (LIMIT // 5),
    "deep payment_id": b'{"payment_id":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "one byte too large": b'{"payment_id": "x"}'.ljust(LIMIT + 1),
    "a megabyte": b'{"payment_id": "x"}'.ljust(MEGABYTE),
    "a megabyte of id": b'{"payment_id": "' + b"x" * MEGABYTE + b'"}',
}


def named(cases: dict[str, object] | dict[str, str] | dict[str, bytes]) -> pytest.MarkDecorator:
    """A test for each value, called by its name."""
    return pytest.mark.parametrize("value", cases.values(), ids=cases.keys())


@pytest.fixture
def anybody(host: Host) -> User:
    """Whoever; such requests cost nothing and touch nobody's money."""
    return host.admin


@named(HOSTILE_IDS)
def test_hostile_id_reaches_nobody(host: Host, anybody: User, value: str) -> None:
    with nobody_asked(host.simulator):
        answers.invalid(anybody.reconcile_raw(json.dumps({"payment_id": value}).encode()))


@named(NOT_IDS)
def test_what_is_no_id_is_400(host: Host, anybody: User, value: object) -> None:
    with nobody_asked(host.simulator):
        answers.invalid(anybody.reconcile_raw(json.dumps({"payment_id": value}).encode()))


@named(NOT_BODIES)
def test_what_is_no_body_is_400(host: Host, anybody: User, value: bytes) -> None:
    with nobody_asked(host.simulator):
        answers.invalid(anybody.reconcile_raw(value))


def test_endless_body_is_cut_off(host: Host, anybody: User) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"payment_id": "'
        for _ in range(64):
            yield b"x" * 1024

    with nobody_asked(host.simulator):
        answers.invalid(anybody.reconcile_raw(chunks()))


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_type_of_the_body_does_not_matter(user: User, content_type: str) -> None:
    payment_id = user.topup()
    response = user.reconcile_raw(json.dumps({"payment_id": payment_id}).encode(), content_type)
    answers.undecided(response, payment_id, "pending", "pending")
    answers.invalid(user.reconcile_raw(b"payment_id=x", content_type))


def test_body_may_be_as_large_as_the_limit(user: User) -> None:
    payment_id = paid(user)
    body = json.dumps({"payment_id": payment_id}).encode().ljust(LIMIT)
    answers.credited(user.reconcile_raw(body), payment_id)


@pytest.mark.parametrize("around", [" {} ", "{}\n", "\t{}", "\r\n{}\r\n", "\u00a0{}"])
def test_white_space_around_the_id_is_ignored(user: User, around: str) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(around.format(payment_id)), payment_id)


@pytest.mark.parametrize("shape", ["a", "A-Z_a-z_0-9", "-", "_", "x" * 64])
def test_every_id_of_letters_digits_hyphens_and_underscores_is_looked_up(
    host: Host, user: User, shape: str
) -> None:
    host.simulator.forget_requests()
    answers.foreign(user.reconcile(shape))
    assert [seen.target for seen in host.simulator.requests()] == [f"/v3/payments/{shape}"]


def test_case_of_the_id_matters(user: User) -> None:
    payment_id = paid(user)
    answers.foreign(user.reconcile(payment_id.swapcase()))
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
