"""The order of the checks: a caller learns no more than they may, and no work is done in vain."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.money.rules import HoldReason
from tests.support.harness.host import RECONCILE, Host, User
from tests.support.yookassa.client import Simulator

from . import answers
from .scenarios import StartHost, no_queries, nothing_written, paid, unrecorded

BAD_BODY = b"[]"


def seed_topup(user: User, payment_id: str = "seeded") -> str:
    """Add the ledger entry of a credited top-up and return its payment id."""
    user.balance()
    books = user.host.books
    books.add_entry(user.id, books.wallet(user.id)["id"], reference_id=payment_id)
    return payment_id


# --- 401 before everything -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"Authorization": "Bearer invalid"}, id="invalid"),
        pytest.param({"Authorization": "Basic dTpw"}, id="another scheme"),
        pytest.param({"Cookie": "token=invalid"}, id="invalid in a cookie"),
    ],
)
@pytest.mark.parametrize("content", [BAD_BODY, b'{"payment_id": "x"}', b""])
def test_without_a_good_token_it_is_401(host: Host, headers: dict[str, str], content: bytes) -> None:
    with no_queries(host.simulator):
        response = host.http.post(RECONCILE, content=content, headers=headers)
        host.http.cookies.clear()
    assert response.status_code == 401
    assert "retry-after" not in response.headers


def test_account_that_is_not_verified_is_401(host: Host) -> None:
    pending = host.new_user(role="pending")
    with no_queries(host.simulator):
        response = pending.reconcile_raw(BAD_BODY)
    answers.error(response, 401)


# --- The wallet switched off ---------------------------------------------------------------------


class TestWalletOff:
    """The endpoint answers 404 before it reads anything."""

    @pytest.fixture(scope="class")
    @staticmethod
    def off(start_host: StartHost, simulator: Simulator) -> Host:
        """Return a host without wallets."""
        return start_host(simulator, ENABLE_BILLING_WALLET="false")

    def test_401_comes_before_404(self, off: Host) -> None:
        assert off.http.post(RECONCILE, content=BAD_BODY).status_code == 401

    @pytest.mark.parametrize("content", [BAD_BODY, b"", b'{"payment_id": "../x"}', b"x" * 10_000])
    def test_404_comes_before_400(self, off: Host, content: bytes) -> None:
        assert answers.error(off.admin.reconcile_raw(content), 404) == answers.WALLET_OFF

    def test_no_query_is_sent_and_nothing_is_disclosed(self, off: Host) -> None:
        mine = unrecorded(off.admin)
        with no_queries(off.simulator), nothing_written(off.admin, about=mine):
            assert answers.error(off.admin.reconcile(mine), 404) == answers.WALLET_OFF
            assert answers.error(off.admin.reconcile("unknown"), 404) == answers.WALLET_OFF


# --- No provider ---------------------------------------------------------------------------------


class TestNotConfigured:
    """The host has no shop. What needs no provider is answered nevertheless."""

    @pytest.fixture(scope="class")
    @staticmethod
    def bare(start_host: StartHost) -> Host:
        """Return a host without a shop."""
        return start_host(None)

    @pytest.fixture
    @staticmethod
    def user(bare: Host) -> User:
        return bare.new_user()

    @pytest.fixture
    @staticmethod
    def stranger(bare: Host) -> User:
        return bare.new_user()

    def test_pending_topup_is_503_and_is_not_retryable(self, user: User) -> None:
        user.host.books.add_record(user.id, "ordered")
        with nothing_written(user, about="ordered"):
            assert answers.error(user.reconcile("ordered"), 503) == answers.NOT_CONFIGURED

    def test_unknown_id_is_503(self, user: User) -> None:
        assert answers.error(user.reconcile("unknown_id"), 503) == answers.NOT_CONFIGURED

    def test_400_comes_before_503(self, user: User) -> None:
        answers.invalid(user.reconcile("../x"))
        answers.invalid(user.reconcile_raw(BAD_BODY))

    def test_403_for_anothers_record_comes_before_503(self, user: User, stranger: User) -> None:
        user.host.books.add_record(stranger.id, "theirs")
        answers.not_owned(user.reconcile("theirs"))

    def test_403_for_anothers_credit_comes_before_503(self, user: User, stranger: User) -> None:
        payment_id = seed_topup(stranger, "their_credit")
        answers.not_owned(user.reconcile(payment_id))

    def test_proved_credit_is_200(self, user: User) -> None:
        payment_id = seed_topup(user, "my_credit")
        answers.credited(user.reconcile(payment_id), payment_id, payment_status=None)

    def test_proved_credit_of_a_record_is_200_and_repaired(self, user: User) -> None:
        user.host.books.add_record(user.id, "credited", wallet_id=None)
        seed_topup(user, "credited")
        answers.credited(user.reconcile("credited"), "credited")

    def test_503_comes_before_409(self, user: User) -> None:
        user.host.books.add_record(user.id, "subscription", kind="subscription")
        assert answers.error(user.reconcile("subscription"), 503) == answers.NOT_CONFIGURED


# --- Ours and theirs -----------------------------------------------------------------------------


def test_403_comes_before_a_proved_credit(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(stranger)
    answers.credited(stranger.reconcile(payment_id), payment_id)
    with no_queries(host.simulator):
        answers.not_owned(user.reconcile(payment_id))


def test_403_comes_before_409(host: Host, user: User, stranger: User) -> None:
    payment_id = paid(stranger)
    host.books.change_record(payment_id, kind="subscription")
    with no_queries(host.simulator):
        answers.held(stranger.reconcile(payment_id), HoldReason.NOT_A_TOPUP)
        answers.not_owned(user.reconcile(payment_id))


def test_proved_credit_comes_before_409(host: Host, user: User) -> None:
    payment_id = paid(user)
    answers.credited(user.reconcile(payment_id), payment_id)
    host.simulator.refund(payment_id)
    host.simulator.change(payment_id, paid=False, test="odd", recipient={"account_id": "other"})
    with no_queries(host.simulator):
        answers.credited(user.reconcile(payment_id), payment_id)
