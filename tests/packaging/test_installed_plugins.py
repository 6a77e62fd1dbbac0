"""Other people's plugins: what they can add, and that a broken one changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.variants import Variant

IMPORTS = "from fastapi import APIRouter\nfrom openwebui_billing_reconcile import hookimpl\n"
ROUTE = (
    IMPORTS
    + """
@hookimpl
def billing_router(host):
    router = APIRouter()
    @router.get("{path}")
    def extra():
        return "extra"
    return router
"""
)
METHOD = (
    IMPORTS
    + """
@hookimpl
def billing_service_methods(host):
    return {{"{name}": lambda service: "extra"}}
"""
)


@pytest.fixture
def host(tmp_path: Path) -> Variant:
    return Variant(tmp_path)


def test_a_plugin_adds_a_route_and_a_method(host: Variant) -> None:
    host.install("extra", ROUTE.format(path="/extra") + METHOD.format(name="extra").removeprefix(IMPORTS))
    code = (
        "import json\n"
        "from open_webui.main import app\n"
        "from open_webui.utils.billing import billing_service\n"
        "print(json.dumps(['/api/v1/billing/extra' in app.openapi()['paths'], billing_service.extra()]))\n"
    )
    assert host.json(code) == [True, "extra"]
    assert "plugins: builtin, extra" in host.start().log


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("raise SystemExit('gone')", "SystemExit: gone"),
        (IMPORTS + "@hookimpl\ndef billing_router(wrong): ...", "PluginValidationError"),
        (IMPORTS + "@hookimpl\ndef no_such_hook(host): ...", "PluginValidationError"),
        (
            IMPORTS + "@hookimpl(wrapper=True)\ndef billing_router(host):\n    return (yield)",
            "PluginError: billing_router is a hook wrapper",
        ),
        (IMPORTS + "@hookimpl\ndef billing_router(host): raise OSError('x')", "OSError: x"),
        (IMPORTS + "@hookimpl\ndef billing_router(host): return 5", "must return an APIRouter"),
        (IMPORTS + "@hookimpl\ndef billing_service_methods(host): return ['x']", "must return a mapping"),
        (ROUTE.format(path="/balance"), "GET /balance is served already"),
        (ROUTE.format(path="/plans/{id}").replace("router.get", "router.mount"), "TypeError"),
        (
            IMPORTS + "@hookimpl\ndef billing_router(host):\n"
            "    router = APIRouter()\n    router.mount('/x', lambda: None)\n    return router",
            "may only hold plain routes",
        ),
        (ROUTE.format(path="/topup/reconcile").replace("router.get", "router.post"), "served already"),
        (METHOD.format(name="create_topup_payment"), "create_topup_payment exists already"),
        (METHOD.format(name="reconcile_topup_payment"), "reconcile_topup_payment exists already"),
        (METHOD.format(name="not a name"), "needs a plain name"),
        (METHOD.format(name="x").replace("lambda service: ", ""), "needs a plain name and a function"),
        (
            ROUTE.format(path="/half")
            + "\n@hookimpl\ndef billing_service_methods(host): raise OSError('half')",
            "OSError: half",
        ),
    ],
)
def test_a_broken_plugin_is_named_and_changes_nothing(host: Variant, code: str, why: str) -> None:
    host.install("broken", code)
    host.install("sound", ROUTE.format(path="/sound"))
    started = host.start()
    assert started.attached
    (line,) = [line for line in started.log.splitlines() if "Plugin 'broken' is left out" in line]
    assert why in line
    assert "plugins: builtin, sound" in started.log
    assert "/api/v1/billing/sound" in started.paths
    assert "/api/v1/billing/half" not in started.paths


def test_two_plugins_cannot_take_the_same_name(host: Variant) -> None:
    host.install("one", METHOD.format(name="extra"))
    host.install("two", METHOD.format(name="extra"))
    assert "extra exists already" in host.start().log


def test_a_plugin_that_calls_itself_builtin_is_refused_and_ours_stays(host: Variant) -> None:
    host.install("builtin", ROUTE.format(path="/x"))
    started = host.start()
    assert started.attached
    assert "/api/v1/billing/x" not in started.paths


def test_a_blocked_plugin_is_not_even_imported(host: Variant) -> None:
    host.install("noisy", "print('imported')\n" + ROUTE.format(path="/noisy"))
    assert "imported" in host.start().log
    started = host.start(BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS="noisy,builtin")
    assert started.attached
    assert "imported" not in started.log
    assert "/api/v1/billing/noisy" not in started.paths


RECONCILE = """
import asyncio, json, logging
from open_webui.models.billing import Payments, PaymentModel
import open_webui.main
from open_webui.utils.billing import billing_service
from open_webui.utils.wallet import wallet_service
wallet = wallet_service.get_or_create_wallet("u1", "RUB")
Payments.create_payment(PaymentModel(
    id="p1", provider="yookassa", status="pending", kind="topup", amount_kopeks=100000, currency="RUB",
    provider_payment_id="pay-1", user_id="u1", wallet_id=wallet.id, created_at=1, updated_at=1))
try:
    print(json.dumps(asyncio.run(billing_service.reconcile_topup_payment("u1", "pay-1"))))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""
GATEWAY = (
    IMPORTS
    + """
class Gateway:
    account_id = None
    is_test_shop = None
    async def get_payment(self, payment_id):
        return {"id": payment_id, "status": "succeeded", "paid": True,
                "amount": {"value": "1000.00", "currency": "RUB"}}

@hookimpl
def payment_gateway(host):
    return Gateway()
"""
)
LISTENER = (
    IMPORTS
    + """
import threading
HEARD, DONE = [], threading.Event()

@hookimpl
def topup_outcome(record):
    HEARD.append([record.outcome, record.payment_id, record.user_id, record.amount_kopeks, record.currency,
                  record.reason, threading.current_thread() is threading.main_thread()])
    DONE.set()
"""
)
BROKEN = IMPORTS + "@hookimpl\ndef payment_gateway(host): raise OSError('x')\n"
DEAF = IMPORTS + "@hookimpl\ndef topup_outcome(record): raise OSError('x')\n"


def test_another_gateway_is_asked_instead_of_ours_and_listeners_hear_of_it(host: Variant) -> None:
    host.install("gateway", GATEWAY)
    host.install("listener", LISTENER)
    host.install("broken", BROKEN)
    host.install("deaf", DEAF)
    code = RECONCILE + (
        "import listener_plugin\n"
        "assert listener_plugin.DONE.wait(10)\n"
        "print(json.dumps(listener_plugin.HEARD))\n"
    )
    out, log = host.run(code)
    *_, answer, heard = out.splitlines()
    assert '"credited": true' in answer
    assert heard == '[["credited", "pay-1", "u1", 100000, "RUB", null, false]]'
    assert "Plugin 'broken' failed in payment_gateway: OSError" in log + out
    assert "Plugin 'deaf' failed in topup_outcome: OSError" in log + out
