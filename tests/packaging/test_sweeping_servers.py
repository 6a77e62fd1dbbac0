"""However a host is served, one pass at a time is made, and none by a process that serves nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.harness.host import APP, REFERENCE_FOLDER, Host, Program
from tests.support.harness.ports import free_port
from tests.support.harness.waiting import wait_until
from tests.support.local_http import answers
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import ServerProcess, running_simulator

INTERVAL = 1.0
SWEEPING = {
    "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
    "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": f"{INTERVAL:g}",
}
PASSES = 6
PATIENCE = 60.0

TWO_LOOPS = f"""
import sys, threading
import uvicorn
from {APP.partition(":")[0]} import app

port = int(sys.argv[1])
servers = [uvicorn.Server(uvicorn.Config(app, port=number)) for number in (port, 0)]
threads = [threading.Thread(target=server.run) for server in servers]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
IMPORT_ONLY = f"""
import asyncio
import {APP.partition(":")[0]}

print("imported", flush=True)
asyncio.run(asyncio.sleep({4 * INTERVAL}))
"""
SERVERS = {
    "gunicorn with preload": [
        "-m",
        "gunicorn",
        APP,
        "--preload",
        "--workers=2",
        "--worker-class=uvicorn_worker.UvicornWorker",
        "--bind=127.0.0.1:{port}",
    ],
    "uvicorn with reload": ["-m", "uvicorn", APP, "--reload", "--port={port}"],
    "two loops of one process": ["-c", TWO_LOOPS, "{port}"],
}


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


def environment(folder: Path, provider: Simulator) -> dict[str, str]:
    """Return the surroundings of a host that sweeps."""
    (folder / "static").mkdir()
    return Program().environment(folder, f"sqlite:///{folder}/webui.db", provider, SWEEPING)


def lists(provider: Simulator) -> int:
    """Return how many lists were asked for."""
    return sum(seen.payment_id is None and seen.method == "GET" for seen in provider.requests())


@pytest.mark.parametrize("arguments", SERVERS.values(), ids=SERVERS)
def test_one_pass_at_a_time_credits_once(arguments: list[str], provider: Simulator, tmp_path: Path) -> None:
    port = free_port()
    surroundings = environment(tmp_path, provider)
    command = [sys.executable, *(argument.replace("{port}", str(port)) for argument in arguments)]
    server = ServerProcess(command, env=surroundings, cwd=REFERENCE_FOLDER)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/health"), PATIENCE, "it does not start")
        host = Host(url, server, program=Program(), environment=surroundings, simulator=provider)
        user = host.new_user()
        payment_id = user.topup()
        provider.pay(payment_id)
        wait_until(lambda: user.balance() == 100_000, PATIENCE, "nobody sweeps")
        provider.forget_requests()
        began = time.monotonic()
        wait_until(lambda: lists(provider) >= PASSES, PATIENCE, "it does not sweep on")
        assert 1.3 * (time.monotonic() - began) / INTERVAL + 1 >= PASSES
        assert user.balance() == 100_000
        host.close()
    finally:
        server.stop()


def test_a_process_that_only_imports_the_host_does_not_sweep(provider: Simulator, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", IMPORT_ONLY],
        env=environment(tmp_path, provider),
        cwd=REFERENCE_FOLDER,
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert lists(provider) == 0
