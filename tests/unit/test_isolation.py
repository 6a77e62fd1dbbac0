"""Whatever a plugin does at the host's start, runtime and stop harms that plugin only."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from openwebui_billing_reconcile import attach
from openwebui_billing_reconcile.hookspecs import PROJECT
from openwebui_billing_reconcile.host.requirements import BILLING
from tests.unit.conftest import InstallPlugin
from tests.unit.stub_host import OUR_PLUGINS, StubHost
from tests.unit.test_plugin_manager import (
    IMPORTS,
    hook_plugin,
    method_plugin,
    route_plugin,
    router_plugin,
)

TASK_GROUP = (
    IMPORTS
    + """
import asyncio


@asynccontextmanager
async def lifespan(app):
    async with asyncio.TaskGroup() as group:
        group.create_task(poll())
        yield


async def poll():
    await asyncio.sleep(0.05)
    raise OSError("the plugin's own back end is gone")
"""
)


async def test_a_plugins_failing_task_group_does_not_end_the_hosts_lifespan(
    host: StubHost, install_plugin: InstallPlugin
) -> None:
    """The usual way to run a background task; its failure cancels the task that runs the host's lifespan."""
    install_plugin("group", TASK_GROUP + router_plugin(arguments="lifespan=lifespan"))
    host.load()
    attach()
    app = FastAPI()
    app.include_router(host.router)
    ended: list[str] = []

    async def lifespan() -> None:  # as a server runs it
        try:
            async with app.router.lifespan_context(app):
                await asyncio.sleep(0.5)  # the server waits for the signal to stop
                ended.append("in order")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    await asyncio.wait({asyncio.create_task(lifespan())})
    assert ended == ["in order"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_plugins_lifespan_that_raises_cancelled(
    host: StubHost, install_plugin: InstallPlugin, moment: str
) -> None:
    fault = "raise __import__('asyncio').CancelledError"
    before, after = (fault, "pass") if moment == "before" else ("pass", fault)
    code = (
        f"{IMPORTS}\n@asynccontextmanager\nasync def lifespan(app):\n    {before}\n    yield\n    {after}\n"
    )
    install_plugin("broken", code + router_plugin(arguments="lifespan=lifespan"))
    host.load()
    attach()
    app = FastAPI()
    app.include_router(host.router)
    began = []

    async def lifespan() -> None:
        async with app.router.lifespan_context(app):
            began.append(True)

    task = asyncio.create_task(lifespan())
    await asyncio.wait({task})
    assert began
    assert not task.cancelled()


@pytest.mark.parametrize("fault", ["asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize("hook", ["billing_router", "billing_service_methods"])
def test_a_plugin_that_raises_anything_is_left_out_alone(
    host: StubHost, install_plugin: InstallPlugin, hook: str, fault: str
) -> None:
    install_plugin("broken", "import asyncio\n" + hook_plugin(hook, f"raise {fault}"))
    install_plugin("sound", route_plugin("/sound"))
    host.load()
    assert attach().plugins == (*OUR_PLUGINS, "sound")


@pytest.mark.parametrize("fault", ["asyncio.CancelledError", "GeneratorExit"])
async def test_a_gateway_hook_that_raises_anything_counts_as_none(
    host: StubHost, install_plugin: InstallPlugin, fault: str
) -> None:
    hook = hook_plugin("payment_gateway", f"raise {fault}", options="(tryfirst=True)")
    install_plugin("broken", "import asyncio\n" + hook)
    host.load()
    host.create_tables()
    attach()
    service = host.module(BILLING).billing_service
    task = asyncio.create_task(service.reconcile_topup_payment("u1", "pay-1"))
    await asyncio.wait({task})
    assert not task.cancelled()
    assert "configured" in str(task.exception())  # ours comes next: no client here


@pytest.mark.parametrize(
    "text",
    [f"[{PROJECT}]\nno equals sign\n", "[another_group]\nno equals sign\n"],
    ids=["ours", "another group"],
)
def test_metadata_that_cannot_be_read_silences_nobody_else(
    host: StubHost, install_plugin: InstallPlugin, tmp_path: Path, text: str
) -> None:
    install_plugin("sound", route_plugin("/sound"))
    info = tmp_path / "site-packages" / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text)
    importlib.invalidate_caches()
    host.load()
    assert attach().plugins == (*OUR_PLUGINS, "sound")


# --- Names ------------------------------------------------------------------------------------------------


def test_a_name_that_only_the_instance_has_is_an_error(host: StubHost, install_plugin: InstallPlugin) -> None:
    """Real hosts set such names in ``__init__``."""
    host.edit(
        BILLING,
        "class BillingService:\n",
        "class BillingService:\n    def __init__(self):\n        self.payments = 'theirs'\n\n",
    )
    install_plugin("taker", method_plugin("{'payments': print}"))
    host.load()
    assert attach().plugins == OUR_PLUGINS


def test_a_plugin_may_not_change_how_the_service_behaves(
    host: StubHost, install_plugin: InstallPlugin
) -> None:
    """With ``__len__`` the host's own ``if billing_service`` would turn false."""
    install_plugin("taker", method_plugin("{'__len__': lambda service: 0}"))
    host.load()
    attach()
    assert host.module(BILLING).billing_service


def test_a_server_outlives_a_plugins_failing_task_group(
    host: StubHost, install_plugin: InstallPlugin
) -> None:
    """Else it would go on without what the host's lifespan had opened."""
    install_plugin("group", TASK_GROUP + router_plugin(arguments="lifespan=lifespan"))
    host.load()
    attach()
    is_open = []

    @asynccontextmanager
    async def hosts_own(app: FastAPI) -> AsyncIterator[None]:
        is_open.append(True)
        try:
            yield
        finally:
            is_open.clear()

    app = FastAPI(lifespan=hosts_own)
    app.include_router(host.router)
    app.get("/open")(lambda: bool(is_open))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        time.sleep(0.5)
        assert httpx.get(f"http://127.0.0.1:{port}/open", trust_env=False).json() is True
    finally:
        server.should_exit = True
        thread.join()
