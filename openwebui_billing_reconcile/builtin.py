"""Our router hook and our service hook: an ordinary plugin, in through the entry point like anyone's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter

from . import api
from .gateway import HostGateway, host_gateway
from .hookspecs import hookimpl
from .host import OpenWebUIHost
from .reconcile import Reconciler
from .settings import Settings


@hookimpl
def billing_router(host: OpenWebUIHost) -> APIRouter:
    """POST /topup/reconcile."""
    return api.make_router(host)


@hookimpl
def billing_service_methods(host: OpenWebUIHost) -> Mapping[str, Callable[..., Any]]:
    """``reconcile_topup_payment``."""
    reconciler = Reconciler(host, Settings.read(os.environ))

    async def reconcile_topup_payment(service: Any, user_id: str, payment_id: str) -> dict[str, object]:
        """Bring a top-up to the state the provider reports, and credit the wallet if it was paid.

        Returns payment_id, provider_status, payment_status and credited. Raises ``ValueError`` for a bad
        id, ``PermissionError`` for a payment not proved to be the user's, ``RuntimeError`` for the rest; see
        ``openwebui_billing_reconcile.errors``.
        """
        return await reconciler.reconcile(service, user_id, payment_id)

    return {"reconcile_topup_payment": reconcile_topup_payment}


@hookimpl(trylast=True)
def payment_gateway(host: OpenWebUIHost) -> HostGateway | None:
    """The host's own YooKassa client."""
    return host_gateway(host)
