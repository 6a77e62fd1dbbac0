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
from tests.support.harness.host import Program, running_host
from tests.support.harness.waiting import wait_until
from tests.support.variants import Variant
from tests.support.yookassa.process import running_simulator

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"


@pytest.fixture
def host(tmp_path: Path) -> Variant:
    return Variant(tmp_path)


def test_without_site_packages_the_hook_is_not_installed_and_it_says_what_to_do(host: Variant) -> None:
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
    assert (status["prediction"]["state"], status["hook_installed"]) == ("hook_not_installed", False)
    assert "-S" in status["prediction"]["why"]
    assert "asgi" in status["prediction"]["why"]


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


def test_a_reconcile_of_the_hosts_own_is_not_taken_for_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with running_host(Program(shape="n"), env={SWITCH: "off"}) as host:
        assert host.new_user().reconcile("unknown").status_code != 404
        assert cli.main(["status", "--url", host.base_url]) == 1
        assert "is not there" in capsys.readouterr().out


def test_a_running_server_tells_an_administrator_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    sweeping = {"ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true", "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1"}
    with running_simulator() as provider, running_host(simulator=provider, env=sweeping) as host:
        arguments = ["status", "--url", host.base_url, "--token", host.admin.token]

        def told() -> str:
            assert cli.main(arguments) == 0
            return capsys.readouterr().out

        wait_until(lambda: "s ago, complete: 0 listed, 0 credited" in told(), 60, "no pass is told")
        assert "mode             credit\nplugins          builtin, builtin_metrics\n" in told()
