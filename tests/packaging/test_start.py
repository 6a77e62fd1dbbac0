"""A host starts in a process of its own: the start-up hook attaches, as ``status`` foretold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.variants import PATH, Variant

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"
SERVICE = "class BillingService:"


@pytest.fixture
def host(tmp_path: Path) -> Variant:
    return Variant(tmp_path)


def test_the_host_as_it_is_gets_the_endpoint_and_the_method(host: Variant) -> None:
    assert host.status()["prediction"]["state"] == "attached"
    started = host.start()
    assert started.attached
    (line,) = started.lines()
    assert "is attached: POST /topup/reconcile, POST /topup/reconcile/pending, GET " in line
    assert "; BillingService.reconcile_topup_payment, " in line


def test_the_switch_is_read_from_the_hosts_env_file(host: Variant) -> None:
    host.write("../.env", f"{SWITCH}=off\n")
    assert host.status()["prediction"]["state"] == "off"
    started = host.start()
    assert not started.attached
    assert f"{SWITCH} is off" in started.log


def test_a_host_without_billing_starts_and_one_line_says_why(host: Variant) -> None:
    host.edit(
        "utils/airis/app_bootstrap.py", "from open_webui.routers import admin_billing, billing", "return"
    )
    (host.folder / "open_webui/routers/billing.py").unlink()
    assert host.status()["prediction"]["state"] == "no_billing"
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert "is not attached: this host does not load open_webui.routers.billing" in line


def test_beside_a_method_of_the_hosts_own_all_else_attaches(host: Variant) -> None:
    own = f"{SERVICE}\n    async def reconcile_topup_payment(self, user_id, payment_id): ...\n"
    host.edit("utils/billing.py", SERVICE, own)
    assert host.status()["prediction"]["state"] == "beside"
    started = host.start()
    assert started.method
    assert PATH not in started.paths
    (line,) = started.lines()
    assert "the host keeps its own reconcile_topup_payment: " in line


def test_a_host_that_lacks_a_name_is_left_alone_and_the_name_is_said(host: Variant) -> None:
    missing = "open_webui.utils.auth.get_admin_user"
    for path in (host.folder / "open_webui").rglob("*.py"):
        path.write_text(path.read_text().replace("get_admin_user", "get_administrator"))
    foretold = host.status()
    assert foretold["prediction"]["state"] == "incompatible"
    assert foretold["missing"] == [missing]
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert f"this host lacks {missing}" in line


@pytest.mark.parametrize("error", ["ImportError", "SystemExit"])
def test_a_dependency_that_fails_is_one_line_and_the_host_starts(host: Variant, error: str) -> None:
    host.write("limits.py", f"raise {error}('limits is broken')")
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert f"is not attached: {error}: limits is broken" in line


def test_a_reloaded_router_is_attached_anew(host: Variant) -> None:
    code = (
        "import importlib, json, open_webui.routers.billing as billing\n"
        "first = billing.router\n"
        "importlib.reload(billing)\n"
        "paths = lambda router: sum(r.matches({'type': 'http', 'method': 'POST', 'root_path': '',"
        " 'path': '/topup/reconcile', 'headers': []})[0].name == 'FULL' for r in router.routes)\n"
        "print(json.dumps([paths(first), paths(billing.router)]))\n"
    )
    assert host.json(code) == [0, 1]


def test_the_loader_keeps_its_type_and_the_hook_is_installed_once(host: Variant) -> None:
    code = (
        "import json, sys\n"
        "from openwebui_billing_reconcile import _autoload\n"
        "_autoload.install()\n"
        "import open_webui.routers.billing as billing\n"
        "print(json.dumps([type(billing.__loader__).__name__,"
        " sum(type(f).__name__ == '_Finder' for f in sys.meta_path), _autoload.is_installed()]))\n"
    )
    assert host.json(code) == ["SourceFileLoader", 1, True]


def test_the_asgi_module_attaches_without_the_start_up_hook(host: Variant) -> None:
    code = (
        "import json, sys, site\n"
        "from openwebui_billing_reconcile import _autoload\n"
        "assert not _autoload.is_installed()\n"
        "from openwebui_billing_reconcile.asgi import app\n"
        f"print(json.dumps('{PATH}' in app.openapi()['paths']))\n"
    )
    packages = [path for path in __import__("sys").path if path]
    out, _ = host.run(code, {"PYTHONPATH": ":".join(packages)}, "-S")
    assert out.splitlines()[-1] == "true"
