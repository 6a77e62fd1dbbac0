"""The running host behind the ``Host`` protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import BILLING_ROUTER

SECRET = "secret text"


class ClientError(Exception):
    """Shaped like the newest host's, which reads a code out of the provider's body."""

    def __init__(self, message: str, status_code: int, *, is_retryable: bool = False) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response_text = SECRET
        self.error_code = SECRET
        self.body = {"description": SECRET}
        self.is_retryable = is_retryable


@pytest.fixture
def router(mocker: MockerFixture) -> SimpleNamespace:
    """The host's billing router, of which a test may set the function that words errors."""
    module = SimpleNamespace()
    importlib = mocker.patch("openwebui_billing_reconcile.host.open_webui.importlib")
    importlib.import_module.side_effect = lambda name: module if name == BILLING_ROUTER else SimpleNamespace()
    return module


def test_the_hosts_words_are_asked_for_with_an_error_that_holds_no_text(
    router: SimpleNamespace, mocker: MockerFixture
) -> None:
    given: list[ClientError] = []

    def describe(error: ClientError, action: str) -> HTTPException:
        given.append(error)
        return HTTPException(502, f"{action}: {error.status_code}")

    router._payment_gateway_http_error = describe
    cause = ClientError(SECRET, 401, is_retryable=True)
    error = RuntimeError("ours")
    error.__cause__ = OSError("between")
    error.__cause__.__cause__ = cause
    assert OpenWebUIHost(mocker.Mock()).provider_error_detail(error) == "topup reconcile: 401"
    (copy,) = given
    assert type(copy) is ClientError
    assert copy.is_retryable
    assert SECRET not in f"{copy!r} {copy} {vars(copy)}"
    assert (copy.__cause__, copy.__context__) == (None, None)
    assert cause.response_text == SECRET  # the original stays as it is


@pytest.mark.parametrize("error", [OSError("x"), ClientError("x", 401)])
def test_a_host_without_such_words_says_nothing(error: Exception, router: Any, mocker: MockerFixture) -> None:
    assert OpenWebUIHost(mocker.Mock()).provider_error_detail(error) is None


@pytest.mark.parametrize("error", [OSError("x"), ClientError("x", 401)])
def test_words_that_do_not_fit_are_none(
    error: Exception, router: SimpleNamespace, mocker: MockerFixture
) -> None:
    router._payment_gateway_http_error = lambda error, action: error.no_such_attribute
    assert OpenWebUIHost(mocker.Mock()).provider_error_detail(error) is None
