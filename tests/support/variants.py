"""The reference host in variations: copied, edited, and run in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import fork_server

HOST = Path(__file__).parent / "host"

# Imports the host as a server does, and says what came of it.
_LOOK = """
import json, sys
import open_webui.main
from open_webui.main import app
from open_webui.utils import billing
print(json.dumps({
    "paths": sorted(app.openapi()["paths"]),
    "method": hasattr(billing.BillingService, "reconcile_topup_payment"),
}))
"""

PATH = "/api/v1/billing/topup/reconcile"


@dataclass(frozen=True)
class Started:
    """What a host looked like once imported."""

    paths: list[str]
    method: bool
    log: str

    @property
    def attached(self) -> bool:
        """Whether both the endpoint and the method are there; one without the other is a fault."""
        assert (PATH in self.paths) == self.method
        return self.method

    def lines(self) -> list[str]:
        """The plugin's own lines."""
        return [line for line in self.log.splitlines() if "Billing top-up reconcile" in line]


class Variant:
    """A copy of the reference host that a test may change."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "backend"
        shutil.copytree(HOST / "open_webui", self.folder / "open_webui")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that must be there."""
        path = self.folder / "open_webui" / file
        text = path.read_text()
        assert old in text, f"{file} does not say {old!r}"
        path.write_text(text.replace(old, new))

    def write(self, file: str, text: str) -> None:
        """Put a file next to the package, where the server's current directory is."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def install(self, name: str, code: str, value: str | None = None) -> None:
        """A plugin package with an entry point, as pip would have left it."""
        self.write(f"{name}_plugin.py", code)
        self.write(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(
            f"{name}-1.0.dist-info/entry_points.txt",
            f"[openwebui_billing_reconcile]\n{name} = {value or name + '_plugin'}\n",
        )

    def run(self, code: str, env: Mapping[str, str] | None = None, *options: str) -> tuple[str, str]:
        """Run code in the host's folder; its stdout and stderr.

        With ``options`` of Python's it is run by an interpreter that is started for it.
        """
        command = [sys.executable, *options, "-c", code]
        done = fork_server.run(command, {**environment(self.folder), **(env or {})}, self.folder, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def start(self, **env: str) -> Started:
        """Import the host as a server does."""
        out, log = self.run(_LOOK, env)
        return Started(**json.loads(out.splitlines()[-1]), log=out + log)

    def status(self, *options: str, **env: str) -> dict[str, Any]:
        """What ``openwebui-billing-reconcile status`` foretells, without starting the host."""
        command = [sys.executable, "-m", "openwebui_billing_reconcile", "status", "--json", *options]
        done = fork_server.run(command, {**environment(self.folder), **env}, self.folder, timeout=60)
        assert not done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if status["prediction"]["attaches"] else 1)
        assert not (self.folder / "data").exists(), "status has started the host"
        return status

    def json(self, code: str, **env: str) -> Any:
        """What code prints last, as JSON."""
        out, _ = self.run(code, env)
        return json.loads(out.splitlines()[-1])


def environment(folder: Path) -> dict[str, str]:
    """The environment of a host whose data lies in ``folder``."""
    return {
        **{name: value for name, value in os.environ.items() if "BILLING" not in name},
        "DATA_DIR": str(folder / "data"),
        "WEBUI_SECRET_KEY": "a-secret-of-the-tests",
        "ENABLE_BILLING_WALLET": "true",
        "YOOKASSA_SHOP_ID": "100500",
        "YOOKASSA_SECRET_KEY": "test_secret",
        "YOOKASSA_API_URL": "http://127.0.0.1:9",
        "ENV": "dev",
    }
