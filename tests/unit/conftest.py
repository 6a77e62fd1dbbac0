"""A host and plugins inside the tests' own process."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile import detach
from openwebui_billing_reconcile.hookspecs import PROJECT
from openwebui_billing_reconcile.settings import FLAGS
from tests.unit.stub_host import StubHost

InstallPlugin = Callable[..., None]


@pytest.fixture
def host(mocker: MockerFixture, caplog: pytest.LogCaptureFixture) -> Iterator[StubHost]:
    """A host to change and to load; nothing of it stays."""
    caplog.set_level("INFO", PROJECT)
    mocker.patch.dict(os.environ)
    for flag in FLAGS:
        os.environ.pop(flag.name, None)
    stub = StubHost()
    yield stub
    detach()
    mocker.stopall()  # what is put back into sys.modules may hold the host
    stub.unload()
    assert not [name for name in sys.modules if name.partition(".")[0] == "open_webui"]


@pytest.fixture
def install_plugin(tmp_path: Path, mocker: MockerFixture) -> Iterator[InstallPlugin]:
    """Install a plugin, as pip would have left it: ``install_plugin(name, code)``."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    mocker.patch.object(sys, "path", [str(folder), *sys.path])
    mocker.patch.object(sys, "dont_write_bytecode", True)
    modules = []

    def install(name: str, code: str, distribution: str = "", value: str = "") -> None:
        distribution = distribution or name
        module = f"plugin_{distribution}"
        modules.append(module)
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{PROJECT}]\n{name} = {value or module}\n")
        importlib.invalidate_caches()

    yield install
    for module in modules:
        sys.modules.pop(module, None)
