"""The official SDK, for hosts without a client of their own: its failures have names."""

from __future__ import annotations

import pytest

from openwebui_billing_reconcile.errors import GatewayError
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway


async def test_nobody_listening_is_a_failure_with_a_name() -> None:
    with pytest.raises(GatewayError):
        await SdkGateway("1", "test_x", "http://127.0.0.1:9/v3").get_payment("x")
