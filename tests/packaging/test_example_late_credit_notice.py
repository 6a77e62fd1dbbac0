"""The example ``late-credit-notice``, installed beside the plugin: whose credit came late reads of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.packaging.environments import Environment, with_example
from tests.support.harness.host import Host, Program, User, running_host
from tests.support.harness.ports import free_port
from tests.support.harness.waiting import wait_until
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import running_simulator

SENDER = "Wallet <wallet@shop.example>"
PATIENCE = 60.0
SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1",
}


class Mailboxes:
    """A mail server's handler: keeps what arrives, by recipient; refuses a recipient on demand."""

    def __init__(self) -> None:
        self._arrived: list[Envelope] = []
        self.refused: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - the name that the server calls
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - the name that the server calls
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self._arrived.append(envelope)
        return "250 OK"

    def of(self, address: str) -> list[EmailMessage]:
        """Return what was sent to this address and to nobody else."""
        contents = [envelope.content for envelope in self._arrived if envelope.rcpt_tos == [address]]
        return [
            message_from_bytes(content, policy=policy.default)
            for content in contents
            if isinstance(content, bytes)
        ]


@pytest.fixture(scope="module")
def example(installed: Environment, tmp_path_factory: pytest.TempPathFactory) -> Program:
    environment = with_example("late-credit-notice", installed, tmp_path_factory.mktemp("late-credit-notice"))
    return Program(python=str(environment.python))


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def mail() -> Iterator[Controller]:
    server = Controller(Mailboxes(), hostname="127.0.0.1", port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mailboxes(mail: Controller) -> Mailboxes:
    handler: Mailboxes = mail.handler
    return handler


@contextmanager
def host_with_mail_at(
    port: int, program: Program, provider: Simulator, env: dict[str, str]
) -> Iterator[Host]:
    settings = {
        "LATE_CREDIT_NOTICE_SMTP_HOST": "127.0.0.1",
        "LATE_CREDIT_NOTICE_SMTP_PORT": str(port),
        "LATE_CREDIT_NOTICE_FROM": SENDER,
    }
    with running_host(program, simulator=provider, env=settings | env) as host:
        yield host


@pytest.fixture(scope="module")
def host(mail: Controller, example: Program, provider: Simulator) -> Iterator[Host]:
    """Yield a host that does not sweep, so that a test says who is first."""
    with host_with_mail_at(mail.port, example, provider, {}) as host:
        yield host


def paid(user: User) -> str:
    payment_id = user.topup()
    user.host.simulator.pay(payment_id)
    return payment_id


def assert_notice(message: EmailMessage, user: User, payment_id: str) -> None:
    assert (message["From"], message["To"]) == (SENDER, user.email)
    assert message["Subject"] == "Your top-up was credited / Пополнение зачислено"
    assert message["Message-ID"].endswith("@shop.example>")
    text = message.get_content()
    assert "your top-up of 1000.00 RUB has been credited" in text
    assert "Ваше пополнение на 1000.00 RUB зачислено" in text
    assert text.count(payment_id) == 2


def test_whose_topup_the_sweep_credits_is_told(
    mail: Controller, mailboxes: Mailboxes, example: Program, provider: Simulator
) -> None:
    with host_with_mail_at(mail.port, example, provider, SWEEPING) as host:
        people = [host.new_user() for _ in range(3)]
        payments = [paid(user) for user in people]
        wait_until(lambda: all(mailboxes.of(user.email) for user in people), PATIENCE, "somebody is not told")
    for user, payment_id in zip(people, payments, strict=True):
        (message,) = mailboxes.of(user.email)
        assert_notice(message, user, payment_id)


def test_who_returned_is_not_told_and_who_came_another_way_is(host: Host, mailboxes: Mailboxes) -> None:
    user = host.new_user()
    assert user.reconcile(paid(user)).json()["credited"] is True
    later = paid(user)
    assert user.reconcile_pending().json()["payments"][0]["credited"] is True
    # Listeners hear of one outcome after the other, so that of the return has been told of before.
    wait_until(lambda: mailboxes.of(user.email), PATIENCE, "nobody is told")
    (message,) = mailboxes.of(user.email)
    assert_notice(message, user, later)


def assert_one_log_line(host: Host, user: User, payment_id: str, why: str) -> None:
    def lines() -> list[str]:
        return [line for line in host.log.splitlines() if f"late credit {payment_id} was sent" in line]

    wait_until(lines, PATIENCE, "nothing is logged")
    (line,) = lines()
    assert line.endswith(f": {why}")
    assert user.email not in host.log


def test_a_refused_address_is_one_log_line_without_it(host: Host, mailboxes: Mailboxes) -> None:
    user = host.new_user()
    mailboxes.refused.add(user.email)
    payment_id = paid(user)
    user.reconcile_pending()
    assert_one_log_line(host, user, payment_id, "SMTPRecipientsRefused")


def test_a_mail_server_that_is_down_is_one_log_line(example: Program, provider: Simulator) -> None:
    with host_with_mail_at(9, example, provider, {}) as host:
        user = host.new_user()
        payment_id = paid(user)
        assert user.reconcile_pending().json()["payments"][0]["credited"] is True
        assert_one_log_line(host, user, payment_id, "ConnectionRefusedError")
