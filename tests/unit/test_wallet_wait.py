"""How long a call goes on trying where somebody else holds the wallet."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import StillBeingCheckedError, WalletBusyError
from openwebui_billing_reconcile.topup import wallet_wait
from openwebui_billing_reconcile.topup.wallet_wait import MIN_TRIES, when_wallet_is_free

BUSY = "The lock of the wallet could not be had: payment=pay-1"


async def test_a_wallet_that_stays_held_is_given_up_and_logged(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(wallet_wait, "MIN_WAIT", 0.05)
    write = mocker.AsyncMock(side_effect=WalletBusyError)
    with pytest.raises(WalletBusyError):
        await when_wallet_is_free("pay-1", write)
    assert write.await_count >= MIN_TRIES
    assert caplog.messages == [BUSY]


async def test_it_is_tried_a_few_times_however_long_the_queue_took(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    mocker.patch.object(wallet_wait, "MIN_WAIT", -1.0)  # it is over with the first try
    write = mocker.AsyncMock(side_effect=[*[WalletBusyError] * (MIN_TRIES - 1), "written"])
    assert await when_wallet_is_free("pay-1", write) == "written"
    assert not caplog.messages


async def test_it_is_tried_for_a_while_however_often_it_is_held(mocker: MockerFixture) -> None:
    write = mocker.AsyncMock(side_effect=[*[WalletBusyError] * MIN_TRIES, "written"])
    assert await when_wallet_is_free("pay-1", write) == "written"


@pytest.mark.parametrize(("held", "lines"), [(1, [BUSY]), (0, [])])
async def test_a_call_whose_time_ends_meanwhile_says_that_the_wallet_was_held(
    mocker: MockerFixture, caplog: pytest.LogCaptureFixture, held: int, lines: list[str]
) -> None:
    write = mocker.AsyncMock(side_effect=[*[WalletBusyError] * held, StillBeingCheckedError])
    with pytest.raises(StillBeingCheckedError):
        await when_wallet_is_free("pay-1", write)
    assert caplog.messages == lines
