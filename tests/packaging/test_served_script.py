"""Our script behind the loader.js of a host that runs: the flags decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from openwebui_billing_reconcile.web import loader_script
from tests.support.harness.host import Program, running_host

LOADER = "/static/loader.js"
OURS = (Path(loader_script.__file__).parent / loader_script.SCRIPT).read_bytes()


@pytest.mark.parametrize(
    ("flags", "served"),
    [
        ({}, True),
        ({"ENABLE_BILLING_TOPUP_RECONCILE_FRONTEND": "off"}, False),
        ({"ENABLE_BILLING_TOPUP_RECONCILE": "off"}, False),
    ],
    ids=["on", "script off", "all off"],
)
def test_the_flags_decide(program: Program, flags: dict[str, str], served: bool) -> None:
    with running_host(program, env=flags) as host:
        answer = host.http.get(LOADER).raise_for_status()
        theirs = (Path(host.environment["STATIC_DIR"]) / "loader.js").read_bytes()
        log = host.log
    assert answer.content == (theirs + b"\n;\n" + OURS if served else theirs)
    assert log.count("The balance page's script is served behind /static/loader.js") == served
    assert "not served" not in log
