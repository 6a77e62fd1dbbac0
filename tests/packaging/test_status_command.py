"""``status``: right about the next start, and about a running server, without ever starting the host.

What it foretells of hosts that are not as they should be stands in test_start.py, next to what happens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openwebui_billing_reconcile import cli
from tests.support.harness.host import running_host
from tests.support.variants import Variant

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"
RATE = "BILLING_TOPUP_RECONCILE_RATE_LIMIT"


@pytest.fixture
def host(tmp_path: Path) -> Variant:
    return Variant(tmp_path)


def test_each_flag_is_told_with_its_origin(host: Variant) -> None:
    host.write("../.env", f"{SWITCH}=off\n{RATE}=5/minute\nBILLING_TOPUP_RECONCILE_DEADLINE_SECONDS=x\n")
    status = host.status(**{SWITCH: "on"})
    flags = {flag["name"]: (flag["value"], flag["origin"]) for flag in status["flags"]}
    file = str(host.folder.parent / ".env")
    assert flags[SWITCH] == ("on", "environment")
    assert flags[RATE] == ("5/minute", file)
    assert flags["BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS"] == ("auto", "default")
    assert "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS has a value" in status["problems"][0]
    assert status["attaches"]


def test_the_hosts_version_is_read_where_the_host_reads_it(host: Variant) -> None:
    host.write("../package.json", '{"version": "0.6.41"}')
    assert host.status()["host_version"] == "0.6.41"


def test_without_a_host_it_says_where_to_go(host: Variant, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status = host.status("--app-dir", str(tmp_path / "empty"))
    assert (status["state"], status["host"], status["attaches"]) == ("no_host", None, False)
    assert "--app-dir" in status["why"]


def test_app_dir_is_where_the_server_would_look(host: Variant, tmp_path: Path) -> None:
    other = Variant(tmp_path / "other")
    assert host.status("--app-dir", str(other.folder))["host"] == str(other.folder / "open_webui")


def test_every_needed_name_is_listed(host: Variant) -> None:
    status = host.status()
    assert "open_webui.utils.billing.BillingService._process_topup_webhook" in status["present"]
    assert "open_webui.models.billing.LedgerEntry.reference_id" in status["present"]
    (host.folder / "open_webui/utils/wallet.py").unlink()
    assert host.status()["missing"] == ["open_webui.utils.wallet"]


def test_a_host_with_the_endpoint_already_is_seen(host: Variant) -> None:
    billing = host.folder / "open_webui/routers/billing.py"
    billing.write_text(billing.read_text() + '\n\n@router.post("/topup/reconcile")\ndef own() -> None: ...\n')
    status = host.status()
    assert status["state"] == "superseded"
    assert "uninstall" in status["why"]


def test_plugins_are_told_apart(host: Variant) -> None:
    sound = "from openwebui_billing_reconcile import hookimpl\n@hookimpl\ndef topup_outcome(record): ...\n"
    host.install("sound", sound)
    host.install("unwanted", sound)
    host.install("broken", "raise OSError('no disk')")
    host.install("eager", "import open_webui.env")
    status = host.status(BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS="unwanted")
    assert status["plugins"] == ["builtin", "sound"]
    assert status["blocked"] == ["unwanted"]
    assert status["broken"]["broken"] == "OSError: no disk"
    assert "without starting the host" in status["broken"]["eager"]
    assert status["attaches"]


def test_without_site_packages_the_hook_is_not_armed_and_it_says_what_to_do(host: Variant) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "openwebui_billing_reconcile", "status", "--json"],
        cwd=host.folder,
        env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    status: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 1
    assert (status["state"], status["hook_armed"]) == ("not_armed", False)
    assert "-S" in status["why"]
    assert "asgi" in status["why"]


def test_two_installed_versions_are_named_the_one_that_counts_first(host: Variant, tmp_path: Path) -> None:
    old = tmp_path / "old" / "openwebui_billing_reconcile-0.0.9.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: openwebui-billing-reconcile\nVersion: 0.0.9\n"
    )
    status = host.status(PYTHONPATH=str(tmp_path / "old"))
    assert len(status["installed"]) == 2
    assert status["installed"][0] == f"0.0.9 in {tmp_path / 'old'}"


@pytest.mark.parametrize(
    ("switch", "code", "words"), [("on", 0, "without a token it answers 401"), ("off", 1, "is not there")]
)
def test_a_running_server_is_asked(
    switch: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_host(env={SWITCH: switch}) as host:
        assert cli.main(["status", "--url", host.base_url]) == code
        assert words in capsys.readouterr().out
        assert cli.main(["status", "--json", "--url", host.base_url + "/"]) == code
        assert json.loads(capsys.readouterr().out)["attached"] is (code == 0)
