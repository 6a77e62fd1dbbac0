"""Attaching: to the host as it is, to none that is not fit, and never at the price of the host's start."""

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
    assert host.status()["state"] == "attached"
    started = host.start()
    assert started.attached
    (line,) = started.lines()
    assert "is attached: POST /topup/reconcile; BillingService.reconcile_topup_payment" in line


@pytest.mark.parametrize("off", ["false", "0", "No", "OFF"])
def test_the_switch_leaves_the_host_as_without_the_plugin(host: Variant, off: str) -> None:
    assert host.status(**{SWITCH: off})["state"] == "off"
    started = host.start(**{SWITCH: off})
    assert not started.attached
    (line,) = started.lines()
    assert f"is not attached: {SWITCH} is off" in line


def test_the_switch_is_read_from_the_hosts_env_file(host: Variant) -> None:
    host.write("../.env", f"{SWITCH}=off\n")
    assert host.status()["state"] == "off"
    started = host.start()
    assert not started.attached
    assert f"{SWITCH} is off" in started.log


def test_a_switch_that_cannot_be_read_means_off_and_says_so(host: Variant) -> None:
    assert host.status(**{SWITCH: "ture"})["state"] == "off"
    started = host.start(**{SWITCH: "ture"})
    assert not started.attached
    assert f"{SWITCH} has a value that cannot be read: use true or false" in started.log


def test_a_host_without_billing_starts_and_one_line_says_why(host: Variant) -> None:
    host.edit(
        "utils/airis/app_bootstrap.py", "from open_webui.routers import admin_billing, billing", "return"
    )
    (host.folder / "open_webui/routers/billing.py").unlink()
    assert host.status()["state"] == "no_billing"
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert "is not attached: this host does not load open_webui.routers.billing" in line


def test_a_host_with_the_method_already_is_left_alone(host: Variant) -> None:
    own = f"{SERVICE}\n    async def reconcile_topup_payment(self, user_id, payment_id): ...\n"
    host.edit("utils/billing.py", SERVICE, own)
    assert host.status()["state"] == "superseded"
    started = host.start()
    assert started.method
    assert PATH not in started.paths
    (line,) = started.lines()
    assert "the host has its own BillingService.reconcile_topup_payment" in line


@pytest.mark.parametrize("path", ["/topup/reconcile", "/topup/{anything}"])
def test_a_host_with_the_endpoint_already_is_left_alone(host: Variant, path: str) -> None:
    own = f'\n\n@router.post("{path}")\ndef theirs() -> None: ...\n'
    billing = host.folder / "open_webui/routers/billing.py"
    billing.write_text(billing.read_text() + own)
    started = host.start()
    assert not started.method
    (line,) = started.lines()
    assert "the host has its own POST /topup/reconcile" in line


@pytest.mark.parametrize(
    ("file", "old", "new", "missing"),
    [
        (
            "utils/billing.py",
            "_process_topup_webhook",
            "_process_webhook_of_topup",
            "open_webui.utils.billing.BillingService._process_topup_webhook",
        ),
        (
            "utils/auth.py",
            "get_admin_user",
            "get_administrator",
            "open_webui.utils.auth.get_admin_user",
        ),
    ],
)
def test_a_host_that_lacks_a_name_is_left_alone_and_the_name_is_said(
    host: Variant, file: str, old: str, new: str, missing: str
) -> None:
    for path in (host.folder / "open_webui").rglob("*.py"):
        path.write_text(path.read_text().replace(old, new))
    foretold = host.status()
    assert foretold["state"] == "incompatible"
    assert missing in foretold["missing"]
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert f"this host lacks {missing}" in line


def test_a_crediting_path_with_other_arguments_is_missed(host: Variant) -> None:
    host.edit("utils/billing.py", "webhook_data", "data")
    assert host.status()["state"] == "incompatible"
    started = host.start()
    assert not started.attached
    assert "_process_topup_webhook(webhook_data)" in started.log


def test_a_crediting_path_that_would_have_to_be_awaited_is_missed(host: Variant) -> None:
    host.edit("utils/billing.py", "def _process_topup_webhook", "async def _process_topup_webhook")
    assert host.status()["state"] == "incompatible"
    started = host.start()
    assert not started.attached
    assert "_process_topup_webhook as a plain function" in started.log


def test_a_table_without_a_needed_column_is_missed(host: Variant) -> None:
    for path in (host.folder / "open_webui").rglob("*.py"):
        path.write_text(path.read_text().replace("reference_type", "reference_kind"))
    assert host.status()["state"] == "incompatible"
    started = host.start()
    assert not started.attached
    assert "open_webui.models.billing.LedgerEntry.reference_type" in started.log


def test_a_ledger_that_could_credit_twice_is_left_alone(host: Variant) -> None:
    host.edit(
        "models/billing_wallet.py",
        '"reference_type", "reference_id", "type"',
        '"reference_type", "reference_id", "type", "wallet_id"',
    )
    assert host.status()["state"] == "incompatible"
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert "no unique key (reference_type, reference_id, type)" in line


def test_an_attach_that_fails_half_way_is_undone(host: Variant) -> None:
    forbidding = (
        "class _Closed(type):\n"
        "    def __setattr__(cls, name, value):\n"
        "        raise TypeError('closed')\n\n\n"
        "class BillingService(metaclass=_Closed):"
    )
    host.edit("utils/billing.py", SERVICE, forbidding)
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert "attaching failed: TypeError: closed" in line


def test_a_broken_requirement_is_one_line_and_the_host_starts(host: Variant) -> None:
    host.write("limits.py", "raise ImportError('limits is broken')")
    started = host.start()
    assert not started.attached
    (line,) = started.lines()
    assert "is not attached: ImportError: limits is broken" in line


def test_a_requirement_that_exits_is_one_line_and_the_host_starts(host: Variant) -> None:
    host.write("limits.py", "raise SystemExit(3)")
    started = host.start()
    assert not started.attached
    assert "is not attached: SystemExit: 3" in started.log


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


def test_attaching_twice_changes_nothing_and_detaching_restores_the_host(host: Variant) -> None:
    code = (
        "import json, os\n"
        f"os.environ['{SWITCH}'] = 'off'\n"
        "import open_webui.routers.billing as billing\n"
        "from open_webui.utils.billing import BillingService\n"
        "from openwebui_billing_reconcile import attach, detach\n"
        f"del os.environ['{SWITCH}']\n"
        "look = lambda: (list(billing.router.routes), billing.router.lifespan_context,"
        " dict(vars(BillingService)))\n"
        "before = look()\n"
        "states = [attach().state, attach().state]\n"
        "added = len(billing.router.routes) - len(before[0])\n"
        "detach()\n"
        "print(json.dumps([states, added, before == look()]))\n"
    )
    states, added, restored = host.json(code)
    assert states == ["attached", "attached"]
    assert added >= 1
    assert restored


def test_the_loader_keeps_its_type_and_the_hook_is_armed_once(host: Variant) -> None:
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
