"""Which top-ups are looked for where nobody names one."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from pytest_mock import MockerFixture
from sqlalchemy.exc import OperationalError

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.topup.backlog import Backlog


@pytest.fixture
def ledger(mocker: MockerFixture) -> Mock:
    """Return a stand-in for the ledger."""
    ledger: Mock = mocker.create_autospec(Ledger, instance=True)
    return ledger


def test_the_open_topups_of_a_visit_are_the_newest_five_of_a_day(ledger: Mock, mocker: MockerFixture) -> None:
    ledger.open_topups_of_user.return_value = ["b", "a"]
    mocker.patch("openwebui_billing_reconcile.topup.backlog.time").time.return_value = 100_000.0
    assert Backlog(ledger).open_of_user("me") == ["b", "a"]
    ledger.open_topups_of_user.assert_called_once_with("me", 13_600.0, 5)


def test_open_topups_that_cannot_be_listed_are_try_later(
    ledger: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.open_topups_of_user.side_effect = OperationalError("select", {}, Exception("down"))
    with pytest.raises(TemporarilyUnavailableError) as raised:
        Backlog(ledger).open_of_user("me")
    assert raised.value.reason == "database_unavailable"
    assert caplog.messages == ["The billing database did not answer: user=me error=OperationalError"]
