"""The time of the interpreter's start, with the plugin in its environment and without."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import venv
from pathlib import Path

from tests.support.yookassa.process import ROOT

from .samples import FLOOR, RECONCILE, START, Samples

_PACKAGE = ROOT / "openwebui_billing_reconcile"
_HOOK = ROOT / "openwebui_billing_reconcile_autoload.pth"


def measure_starts(samples: Samples, rounds: int) -> None:
    """Start both alternately."""
    with tempfile.TemporaryDirectory(prefix="starts-") as folder:
        pythons = {
            FLOOR: _environment(Path(folder) / "bare"),
            RECONCILE: _environment(Path(folder) / "installed"),
        }
        _install(Path(folder) / "installed")
        for python in pythons.values():
            _start(python)  # it compiles what it imports
        for number in range(rounds):
            sides = [FLOOR, RECONCILE] if number % 2 else [RECONCILE, FLOOR]
            for side in sides:
                samples.add(START, side, _start(pythons[side]))


def _environment(folder: Path) -> Path:
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    """Install what the wheel contains, as far as it is read at start."""
    (packages,) = folder.glob("lib/python*/site-packages")
    shutil.copytree(_PACKAGE, packages / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(_HOOK, packages)


def _start(python: Path) -> float:
    started_at = time.perf_counter()
    subprocess.run([python, "-c", "pass"], check=True, env={})
    return (time.perf_counter() - started_at) * 1000
