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
