"""The example ``held-to-chat``, installed beside the plugin: a chat is told of a held payment."""

from __future__ import annotations

import json
import runpy
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openwebui_billing_reconcile import TopupEvent, Way
from tests.packaging.environments import EXAMPLES, Environment, with_example
from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.http_server import Answer, HttpServer, running_http_server
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator, rubles

SECRET = "/hooks/T0SECRET"
PATIENCE = 30.0


@pytest.fixture(scope="module")
def example(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Program:
    environment = with_example("held-to-chat", installed, tmp_path_factory.mktemp("held-to-chat"))
    return Program(python=str(environment.python))


@contextmanager
def host_that_posts_to(url: str | None, program: Program, simulator: Simulator) -> Iterator[Host]:
    env = {"HELD_TO_CHAT_WEBHOOK_URL": url} if url is not None else {}
    with running_host(program, simulator=simulator, env=env) as host:
        yield host


@pytest.fixture(scope="module")
def running(example: Program, simulator: Simulator) -> Iterator[tuple[Host, HttpServer]]:
    """Yield a host, and the chat that it posts to."""
    with running_http_server() as chat, host_that_posts_to(chat.url + SECRET, example, simulator) as host:
        yield host, chat


@pytest.fixture
def chat(running: tuple[Host, HttpServer]) -> HttpServer:
    """Return the chat, which takes every post and has had none."""
    _, chat = running
    chat.answers = {SECRET: Answer()}
    chat.received.clear()
    return chat


@pytest.fixture
def host(running: tuple[Host, HttpServer]) -> Host:
    return running[0]


def hold(user: User) -> str:
    """Return the id of a top-up that was paid in part, and asked about by its owner."""
    payment_id = user.topup()
    user.host.simulator.change(payment_id, status="succeeded", paid=True, amount=rubles("1.00"))
    assert user.reconcile(payment_id).status_code == 409
    return payment_id


def assert_one_log_line(host: Host, payment_id: str, why: str) -> None:
    def lines() -> list[str]:
        return [line for line in host.log.splitlines() if f"held payment {payment_id}" in line]

    wait_until(lines, PATIENCE, "nothing is logged")
    (line,) = lines()
    assert line.endswith(f": {why}")
    assert SECRET not in host.log


def test_each_held_payment_is_posted_and_nothing_else(host: Host, chat: HttpServer) -> None:
    user = host.new_user()
    credited = user.topup()
    host.simulator.pay(credited)
    assert user.reconcile(credited).json()["credited"] is True
    held = [hold(user), hold(user)]
    wait_until(lambda: len(chat.received) == 2, PATIENCE, "the chat was not told of both")
    for payment_id, request in zip(held, chat.received, strict=True):
        assert (request.method, request.path) == ("POST", SECRET)
        assert request.headers["Content-Type"] == "application/json"
        text = json.loads(request.body)["text"]
        assert payment_id in text
        assert "amount_mismatch" in text
    assert SECRET not in host.log


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_refusal_is_one_log_line_without_the_url(host: Host, chat: HttpServer, status: int) -> None:
    chat.answers = {SECRET: Answer(status, headers={"Location": "/elsewhere"}), "/elsewhere": Answer()}
    payment_id = hold(host.new_user())
    assert_one_log_line(host, payment_id, f"HTTP {status}")
    assert [request.path for request in chat.received] == [SECRET]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (None, "KeyError"),
        (SECRET, "ValueError"),
        (f"no-such-scheme://x{SECRET}", "URLError"),
        (f"http://127.0.0.1:9{SECRET}", "URLError"),
    ],
)
def test_a_chat_that_cannot_be_reached_is_one_log_line_without_the_url(
    example: Program, simulator: Simulator, url: str | None, why: str
) -> None:
    with host_that_posts_to(url, example, simulator) as host:
        assert_one_log_line(host, hold(host.new_user()), why)


def test_a_silent_chat_is_given_up(example: Program, simulator: Simulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it is never read from
        url = f"http://127.0.0.1:{silent.getsockname()[1]}{SECRET}"
        with host_that_posts_to(url, example, simulator) as host:
            assert_one_log_line(host, hold(host.new_user()), "TimeoutError")


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ({"amount_kopeks": 100_050, "currency": "RUB"}, "1000.50 RUB"),
        ({"amount_kopeks": 5, "currency": "RUB"}, "0.05 RUB"),
        ({"amount_kopeks": None, "currency": None}, "amount not known"),
    ],
)
def test_the_message_tells_the_amount_where_it_is_known(amount: dict[str, Any], words: str) -> None:
    event = TopupEvent("held", "p-1", "u-1", Way.SWEEP, 0.0, reason="amount_mismatch", **amount)
    message = runpy.run_path(str(EXAMPLES / "held-to-chat" / "held_to_chat.py"))["message"]
    assert message(event) == (
        f"Top-up held: payment p-1, {words}, reason amount_mismatch. "
        "Nothing was credited; a person has to look."
    )
