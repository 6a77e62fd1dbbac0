"""Installed plugins, in an interpreter of their own: a start finds them as ``status`` foretold."""

from __future__ import annotations

from pathlib import Path

from tests.support.variants import Variant

EXTRA = """
from fastapi import APIRouter
from openwebui_billing_reconcile import hookimpl


@hookimpl
def billing_router(host):
    router = APIRouter()
    router.get("/extra")(lambda: "extra")
    return router


@hookimpl
def billing_service_methods(host):
    return {"extra": lambda service: "extra"}
"""
LOOK = """
import json
from open_webui.main import app
from open_webui.utils.billing import billing_service
paths = app.openapi()["paths"]
print(json.dumps(["/api/v1/billing/extra" in paths, "/api/v1/billing/topup/reconcile" in paths,
                  billing_service.extra()]))
"""


def test_a_sound_plugin_is_added_beside_a_broken_one_and_a_blocked_one(tmp_path: Path) -> None:
    host = Variant(tmp_path)
    host.install("extra", EXTRA)
    host.install("broken", "raise SystemExit('gone')")
    host.install("noisy", "print('imported')")
    block = {"BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS": "noisy"}
    foretold = host.status(**block)
    assert foretold["plugins"] == ["builtin", "builtin_metrics", "extra"]
    assert foretold["blocked"] == ["noisy"]
    assert foretold["broken"] == {"broken": "SystemExit: gone"}
    out, log = host.run(LOOK, block)
    assert out.splitlines()[-1] == '[true, true, "extra"]'
    assert "imported" not in out
    assert "Plugin 'broken' is left out: SystemExit: gone" in log
    assert "plugins: builtin, builtin_metrics, extra" in log
