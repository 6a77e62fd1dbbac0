"""The built wheel in fresh environments: the host is started as always, and the endpoint is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.packaging.environments import ROOT, Environment, uv
from tests.support.local_http import ONE_REQUEST_EACH, local_client
from tests.support.variants import HOST, PATH, environment
from tests.support.yookassa.process import running_server

PLUGIN = "openwebui-billing-reconcile"
UVICORN = ("-m", "uvicorn", "open_webui.main:app", "--port", "0")


@pytest.fixture
def host_only(installed: Environment, tmp_path: Path) -> Environment:
    """An environment with what is needed, and without the plugin."""
    environment = installed.copy(tmp_path / "venv")
    environment.uninstall(PLUGIN)
    return environment


@contextmanager
def serving(
    env: Environment, data: Path, *command: str, cwd: Path = HOST, pythonpath: Path | None = None
) -> Iterator[str]:
    """The host started with this command; where it listens."""
    with running_server(
        [str(env.python), *command],
        started=r"running on (http://\S+)",
        env={**environment(data), **({"PYTHONPATH": str(pythonpath)} if pythonpath else {})},
        cwd=cwd,
    ) as (url, _server):
        yield url


def status_without_a_token(url: str) -> int:
    """401: attached. 405: the front end's catch-all answered, so there is no endpoint."""
    deadline = time.monotonic() + 30
    with local_client(limits=ONE_REQUEST_EACH) as client:
        while True:
            try:
                return client.post(url + PATH, json={"payment_id": "x"}).status_code
            except httpx.TransportError:  # a worker that is still starting
                assert time.monotonic() < deadline
                time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "cwd"),
    [
        (UVICORN, HOST),
        ((*UVICORN, "--workers", "2"), HOST),
        ((*UVICORN, "--app-dir", str(HOST)), ROOT),
        (("-m", "uvicorn", f"{PLUGIN.replace('-', '_')}.asgi:app", "--port", "0"), HOST),
    ],
    ids=["one worker", "two workers", "app-dir", "asgi"],
)
def test_the_host_started_as_always_has_the_endpoint(
    installed: Environment, tmp_path: Path, command: tuple[str, ...], cwd: Path
) -> None:
    with serving(installed, tmp_path, *command, cwd=cwd) as url:
        assert [status_without_a_token(url) for _ in range(6)] == [401] * 6


def test_a_parent_that_imports_the_host_first_changes_nothing(installed: Environment, tmp_path: Path) -> None:
    serve = "import open_webui.main, uvicorn; uvicorn.run('open_webui.main:app', port=0, workers=2)"
    with serving(installed, tmp_path, "-c", serve) as url:
        assert [status_without_a_token(url) for _ in range(6)] == [401] * 6


def test_without_the_start_up_hook_asgi_and_attach_work(installed: Environment, tmp_path: Path) -> None:
    packages = installed.packages
    with serving(installed, tmp_path / "plain", "-S", *UVICORN, pythonpath=packages) as url:
        assert status_without_a_token(url) == 405
    asgi = ("-S", "-m", "uvicorn", "openwebui_billing_reconcile.asgi:app", "--port", "0")
    with serving(installed, tmp_path / "asgi", *asgi, pythonpath=packages) as url:
        assert status_without_a_token(url) == 401
    call = (
        "import openwebui_billing_reconcile as plugin, open_webui.routers.billing, uvicorn\n"
        "plugin.attach()\n"
        "uvicorn.run('open_webui.main:app', port=0)"
    )
    with serving(installed, tmp_path / "attach", "-S", "-c", call, pythonpath=packages) as url:
        assert status_without_a_token(url) == 401


def test_uninstalling_leaves_nothing(installed: Environment, tmp_path: Path) -> None:
    rest = installed.copy(tmp_path / "venv")
    rest.uninstall(PLUGIN)
    assert not list(rest.packages.glob("openwebui_billing*"))
    with serving(rest, tmp_path, *UVICORN) as url:
        assert status_without_a_token(url) == 405


def test_an_editable_install_works_and_uninstalls(host_only: Environment, tmp_path: Path) -> None:
    host_only.install(options=["--editable", str(ROOT)])
    with serving(host_only, tmp_path, *UVICORN) as url:
        assert status_without_a_token(url) == 401
    host_only.uninstall(PLUGIN)
    assert not list(host_only.packages.glob("*openwebui_billing*"))


def test_the_source_archive_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    uv("build", "--quiet", "--out-dir", tmp_path, ROOT)  # the archive, and a wheel from it
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as theirs, zipfile.ZipFile(wheel) as ours:
        assert {f.filename: f.CRC for f in theirs.infolist()} == {f.filename: f.CRC for f in ours.infolist()}
        assert "openwebui_billing_reconcile_autoload.pth" in ours.namelist()


def test_an_upgrade_replaces_an_older_version(host_only: Environment, wheel: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(ROOT / "openwebui_billing_reconcile", old / "openwebui_billing_reconcile")
    for name in ("README.md", "LICENSE", "openwebui_billing_reconcile_autoload.pth"):
        shutil.copy(ROOT / name, old)
    project = (ROOT / "pyproject.toml").read_text()
    (old / "pyproject.toml").write_text(re.sub(r'\nversion = "[^"]+"', '\nversion = "0.0.1"', project))
    host_only.install(old)
    host_only.install(wheel)
    assert len(list(host_only.packages.glob("openwebui_billing_reconcile-*.dist-info"))) == 1
    with serving(host_only, tmp_path / "data", *UVICORN) as url:
        assert status_without_a_token(url) == 401


def test_a_plugin_installed_to_a_target_folder_attaches_through_asgi(
    host_only: Environment, wheel: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    host_only.install(wheel, options=["--target", str(target)])
    asgi = ("-m", "uvicorn", "openwebui_billing_reconcile.asgi:app", "--port", "0")
    with serving(host_only, tmp_path / "asgi", *asgi, pythonpath=target) as url:
        assert status_without_a_token(url) == 401


MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def test_the_interpreters_start_imports_nothing_but_ours(
    installed: Environment, host_only: Environment
) -> None:
    def started(env: Environment) -> set[str]:
        return set(json.loads(env.say(MODULES)))

    assert started(installed) - started(host_only) == {
        "openwebui_billing_reconcile",
        "openwebui_billing_reconcile._autoload",
    }


def test_the_interpreters_start_is_little_longer(installed: Environment) -> None:
    def microseconds() -> dict[str, int]:
        """Python's own count of what each import took, those it contains included."""
        listing = _stderr_of(installed, "-X", "importtime", "-c", "pass")
        return {
            name: int(took) for took, name in re.findall(r"\|\s+(\d+) \|\s+(\S+)$", listing, re.MULTILINE)
        }

    def share() -> float:
        took = microseconds()
        package = "openwebui_billing_reconcile"  # it includes its submodule or stands beside it
        return max(took.get(package, 0), took[f"{package}._autoload"]) / took["site"]

    # A share, since the machine may be slow: on one that is not, it is less than a millisecond. The least of
    # several, since another process can only make it look slower.
    assert min(share() for _ in range(20)) < 0.3


def _stderr_of(env: Environment, *arguments: str) -> str:
    done = subprocess.run([env.python, *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stderr
