"""Our router hook and our service hook: an ordinary plugin, in through the entry point like anyone's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import cache, lru_cache, partial
from typing import Any

from fastapi import APIRouter

from openwebui_billing_reconcile.hookspecs import PaymentGateway, hookimpl
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.money.values import VisitedTopup
from openwebui_billing_reconcile.operate import metrics
from openwebui_billing_reconcile.operate.audit import Auditor, HostSources
from openwebui_billing_reconcile.operate.period import Period
from openwebui_billing_reconcile.operate.report import Report
from openwebui_billing_reconcile.operate.sweep import Pass, Sweep
from openwebui_billing_reconcile.provider.host_gateway import (
    Account,
    HostGateway,
    ListingHostGateway,
    account_of,
)
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway
from openwebui_billing_reconcile.settings import Settings
from openwebui_billing_reconcile.topup.reconcile import Reconciler
from openwebui_billing_reconcile.topup.release import Releaser
from openwebui_billing_reconcile.topup.resources import Resources
from openwebui_billing_reconcile.version import version
from openwebui_billing_reconcile.web import admin, console, endpoint, loader_script


@lru_cache(maxsize=1)  # a process has one host; router and methods share what they use
def _resources(host: OpenWebUIHost) -> Resources:
    return Resources(host, Settings.read(os.environ), metrics.count_query)


@lru_cache(maxsize=1)
def _reconciler(host: OpenWebUIHost) -> Reconciler:
    return Reconciler(_resources(host))


class _LastPass:
    """The last pass of the sweep that this process made."""

    def __init__(self) -> None:
        self.done: Pass | None = None

    def __call__(self, done: Pass) -> None:
        self.done = done
        if done.is_complete:
            metrics.set_last_success(done.began_at + done.seconds)


@hookimpl
def billing_router(host: OpenWebUIHost) -> APIRouter:
    """The endpoints; while the application runs, the balance page's script and the sweep."""
    resources = _resources(host)
    settings = resources.settings
    last_pass = _LastPass()
    router = endpoint.make_router(host, _reconciler(host))
    router.routes += [*_admin_router(resources, last_pass).routes, *console.make_router().routes]

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as running:
            if settings.frontend:
                await running.enter_async_context(loader_script.lifespan(app))
            if settings.sweep:
                sweep = Sweep(host, _reconciler(host), settings.sweep_seconds, last_pass)
                await running.enter_async_context(sweep.running())
            yield

    router.lifespan_context = lifespan
    return router


def _admin_router(resources: Resources, last_pass: _LastPass) -> APIRouter:
    host = resources.host
    auditor = Auditor(lambda: HostSources(resources))

    async def report_with_state(period: Period) -> dict[str, Any]:
        report = Report(resources.ledger, host.default_currency)
        read = partial(report.read, period, last_pass.done)
        return {
            **await resources.of_loop().read(read),
            "mode": resources.settings.mode.value,
            "version": version(),
            "plugins": list(getattr(host.hook, "names", ())),
        }

    return admin.make_router(host, auditor, Releaser(resources), report_with_state)


@hookimpl
def billing_service_methods(host: OpenWebUIHost) -> Mapping[str, Callable[..., Any]]:
    """``reconcile_topup_payment`` and ``reconcile_pending_topups``."""
    reconciler = _reconciler(host)

    async def reconcile_topup_payment(service: Any, user_id: str, payment_id: str) -> dict[str, object]:
        """Bring a top-up to the state the provider reports, and credit the wallet if it was paid.

        Returns payment_id, provider_status, payment_status and credited. Raises ``ValueError`` for a bad
        id, ``PermissionError`` for a payment not proved to be the user's, ``RuntimeError`` for the rest; see
        ``openwebui_billing_reconcile.errors``.
        """
        fields = asdict(await reconciler.reconcile(service, user_id, payment_id))
        del fields["is_new"]  # it is for the sweep's counts
        return fields

    async def reconcile_pending_topups(service: Any, user_id: str) -> dict[str, list[dict[str, object]]]:
        """Do so for the user's pending top-ups of the last 24 hours, the newest five.

        Returns ``{"payments": [...]}`` with the same four keys each; one that could not be reconciled has the
        error's code under ``reason`` besides. Raises ``RuntimeError`` where they cannot be listed.
        """
        return {"payments": [_visited(topup) for topup in await reconciler.reconcile_open(service, user_id)]}

    return {
        "reconcile_topup_payment": reconcile_topup_payment,
        "reconcile_pending_topups": reconcile_pending_topups,
    }


def _visited(topup: VisitedTopup) -> dict[str, object]:
    fields = asdict(topup)
    if topup.reason is None:
        del fields["reason"]
    return fields


@hookimpl(trylast=True)
def payment_gateway(host: OpenWebUIHost) -> PaymentGateway | None:
    """The host's own YooKassa client; the official SDK for lists, and where the host has no client."""
    settings = Account(host.shop_id, host.shop_secret_key, host.provider_url)
    if not host.has_payment_client:
        return _sdk_gateway(settings)
    client = host.payment_client
    return _host_gateway(client, account_of(client, settings)) if client else None


def _host_gateway(client: Any, account: Account) -> PaymentGateway:
    listing = _sdk_gateway(account)
    return ListingHostGateway(client, account, listing) if listing else HostGateway(client, account)


@cache  # each has threads of its own
def _sdk_gateway(account: Account) -> SdkGateway | None:
    if not (account.shop_id and account.secret_key):
        return None
    return SdkGateway(account.shop_id, account.secret_key, account.api_url)
