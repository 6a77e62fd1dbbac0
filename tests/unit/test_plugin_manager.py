"""Other people's plugins, in this process: what they can add, and that a broken one harms only itself."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from pytest_mock import MockerFixture

from openwebui_billing_reconcile import CapturedPage, ListingGateway, TopupEvent, Way, attach
from openwebui_billing_reconcile.attachment import builtin
from openwebui_billing_reconcile.attachment.isolation import PluginError
from openwebui_billing_reconcile.attachment.plugins import Plugins
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import BILLING, BILLING_ROUTER, ENV
from tests.support.hooks_document import HOOKS
from tests.unit.conftest import InstallPlugin
from tests.unit.stub_host import CLIENT, OUR_METHODS, OUR_PLUGINS, OUR_ROUTES, StubHost

FIRST = "(tryfirst=True)"
BLOCKED = "BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS"
IMPORTS = """
import sys
from contextlib import asynccontextmanager

from fastapi import APIRouter
from openwebui_billing_reconcile import hookimpl
"""


def router_plugin(setup: str = "", arguments: str = "") -> str:
    """A plugin that adds a router."""
    return (
        f"{IMPORTS}\n@hookimpl\ndef billing_router(host):\n"
        f"    router = APIRouter({arguments})\n    {setup or 'pass'}\n    return router\n"
    )


def route_plugin(path: str, method: str = "get") -> str:
    """A plugin that adds a route."""
    return router_plugin(f"router.{method}('{path}')(lambda: 'extra')")


def hook_plugin(hook: str, body: str, arguments: str = "host", options: str = "") -> str:
    """A plugin that implements one hook."""
    return f"{IMPORTS}\n@hookimpl{options}\ndef {hook}({arguments}):\n    {body}\n"


def method_plugin(methods: str) -> str:
    """A plugin that adds methods."""
    return hook_plugin("billing_service_methods", f"return {methods}")


def left_out(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log lines of plugins that are left out."""
    return [line for line in caplog.messages if "is left out" in line]


def test_a_plugin_adds_a_route_and_a_method(
    host: StubHost, install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    install_plugin(
        "extra", route_plugin("/extra") + method_plugin("{'extra': lambda service: [service, 'extra']}")
    )
    host.load()
    report = attach()
    assert report.routes == (*OUR_ROUTES, "GET /extra")
    assert report.methods == (*OUR_METHODS, "extra")
    assert report.plugins == (*OUR_PLUGINS, "extra")
    assert host.serves("GET", "/extra")
    service = host.module(BILLING).billing_service
    assert service.extra() == [service, "extra"]
    (line,) = caplog.messages
    assert "plugins: builtin, builtin_metrics, extra" in line


BROKEN = {
    "import error": ("raise ImportError('no such thing')", "ImportError: no such thing"),
    "error without a text": (
        "class MuteError(Exception):\n    def __str__(self):\n        raise OSError\nraise MuteError",
        "MuteError",
    ),
    "exit at import": ("raise SystemExit('gone')", "SystemExit: gone"),
    "syntax error": ("def", "SyntaxError"),
    "misspelt argument": (hook_plugin("billing_router", "...", "wrong"), "PluginValidationError"),
    "misspelt hook": (hook_plugin("no_such_hook", "..."), "PluginValidationError"),
    "hook wrapper": (
        hook_plugin("billing_router", "return (yield)", options="(wrapper=True)"),
        "PluginError: billing_router is a hook wrapper",
    ),
    "old hook wrapper": (
        hook_plugin("topup_outcome", "yield", "event", "(hookwrapper=True)"),
        "PluginError: topup_outcome is a hook wrapper",
    ),
    "router raises": (hook_plugin("billing_router", "raise OSError('x')"), "OSError: x"),
    "router exits": (hook_plugin("billing_router", "sys.exit(3)"), "PluginError: it raised SystemExit"),
    "router of another type": (hook_plugin("billing_router", "return 5"), "must return an APIRouter"),
    "methods raise": (hook_plugin("billing_service_methods", "raise OSError('x')"), "OSError: x"),
    "methods exit": (
        hook_plugin("billing_service_methods", "sys.exit(3)"),
        "PluginError: it raised SystemExit",
    ),
    "methods of another type": (method_plugin("['x']"), "must return a mapping"),
    "the host's path": (route_plugin("/balance"), "GET /balance is served already"),
    "our path": (route_plugin("/topup/reconcile", "post"), "POST /topup/reconcile is served already"),
    "a mount": (router_plugin("router.mount('/x', lambda: None)"), "may only hold plain routes"),
    "a WebSocket": (router_plugin("router.websocket('/x')(print)"), "plain routes: no WebSocket"),
    "start-up handler": (router_plugin(arguments="on_startup=[print]"), "may not have start-up handlers"),
    "shut-down handler": (router_plugin(arguments="on_shutdown=[print]"), "may not have start-up handlers"),
    "the host's method": (
        method_plugin("{'create_topup_payment': print}"),
        "BillingService.create_topup_payment exists already",
    ),
    "our method": (
        method_plugin("{'reconcile_topup_payment': print}"),
        "BillingService.reconcile_topup_payment exists already",
    ),
    "no name": (method_plugin("{'not a name': print}"), "needs a plain name and a function"),
    "a name of another type": (method_plugin("{5: print}"), "needs a plain name and a function"),
    "no function": (method_plugin("{'x': 'extra'}"), "needs a plain name and a function"),
    "half of it": (route_plugin("/half") + method_plugin("1 / 0"), "ZeroDivisionError"),
    "another half": (route_plugin("/balance") + method_plugin("{'half': print}"), "is served already"),
}


@pytest.mark.parametrize(("code", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_and_changes_nothing(
    host: StubHost, install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture, code: str, why: str
) -> None:
    install_plugin("broken", code)
    install_plugin("sound", route_plugin("/sound"))
    host.load()
    report = attach()
    (line,) = left_out(caplog)
    assert line.startswith("Plugin 'broken' is left out: ")
    assert why in line
    assert report.plugins == (*OUR_PLUGINS, "sound")
    assert report.routes == (*OUR_ROUTES, "GET /sound")
    assert report.methods == OUR_METHODS
    assert host.serves("POST", "/topup/reconcile")
    assert host.serves("GET", "/sound")
    assert not host.serves("GET", "/half")
    assert not hasattr(host.module(BILLING).BillingService, "half")


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_relayed_and_takes_no_wrapper(install_plugin: InstallPlugin, hook: str) -> None:
    assert callable(getattr(Plugins, hook, None))
    install_plugin("wrapper", hook_plugin(hook, "yield", arguments="", options="(wrapper=True)"))
    plugins = Plugins()
    plugins.load()
    assert plugins.broken == {"wrapper": f"PluginError: {hook} is a hook wrapper: implement the hook itself"}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    ("definition", "body"), [("async def", "return None"), ("async def", "yield"), ("def", "yield")]
)
def test_a_hook_that_would_never_run_is_refused(
    install_plugin: InstallPlugin, hook: str, definition: str, body: str
) -> None:
    install_plugin("idle", hook_plugin(hook, body, arguments="").replace("def", definition))
    plugins = Plugins()
    plugins.load()
    assert plugins.broken == {
        "idle": f"PluginError: {hook} would never run: write it without async and yield"
    }


def test_a_router_that_the_host_refuses_is_left_out_alone(
    host: StubHost,
    install_plugin: InstallPlugin,
    caplog: pytest.LogCaptureFixture,
    mocker: MockerFixture,
) -> None:
    install_plugin("broken", route_plugin("/half"))
    install_plugin("sound", route_plugin("/sound"))
    host.load()
    include_router = host.module(BILLING_ROUTER).router.include_router

    def refusing(router: APIRouter) -> None:
        include_router(router)
        if any(getattr(route, "path", "") == "/half" for route in router.routes):
            raise AssertionError("no such route")

    mocker.patch.object(host.module(BILLING_ROUTER).router, "include_router", refusing)
    report = attach()
    assert left_out(caplog) == ["Plugin 'broken' is left out: AssertionError: no such route"]
    assert report.plugins == (*OUR_PLUGINS, "sound")
    assert host.serves("GET", "/sound")
    assert not host.serves("GET", "/half")


def test_of_two_plugins_with_one_path_or_method_one_is_left_out(
    host: StubHost, install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two"):
        install_plugin(name, route_plugin("/extra"))
    for name in ("three", "four"):
        install_plugin(name, method_plugin("{'extra': print}"))
    host.load()
    report = attach()
    assert report.routes == (*OUR_ROUTES, "GET /extra")
    assert report.methods == (*OUR_METHODS, "extra")
    assert len(report.plugins) == len(OUR_PLUGINS) + 2
    assert len(left_out(caplog)) == 2


@pytest.mark.parametrize("name", ["builtin", "extra"])
def test_a_second_plugin_of_a_name_is_refused(
    host: StubHost, install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    install_plugin("extra", route_plugin("/x"))
    install_plugin(name, route_plugin("/y"), distribution="second")
    host.load()
    report = attach()
    assert report.plugins == (*OUR_PLUGINS, "extra")
    assert host.serves("GET", "/x") != host.serves("GET", "/y")
    (line,) = left_out(caplog)
    assert line == (
        f"Plugin {name!r} is left out: PluginError: "
        "another plugin has this name already; left out is the one in plugin_second"
    )


def test_an_entry_point_that_names_nothing_importable_is_named(
    plugins: Plugins, install_plugin: InstallPlugin
) -> None:
    install_plugin("broken", "", value="acme-billing")
    plugins.load()
    assert plugins.broken == {
        "broken": "PluginError: its entry point 'acme-billing' is no importable name: no dashes"
    }


def test_a_blocked_plugin_is_not_even_imported(host: StubHost, install_plugin: InstallPlugin) -> None:
    install_plugin("noisy", route_plugin("/noisy"))
    os.environ[BLOCKED] = "noisy, builtin"
    host.load()
    assert attach().plugins == OUR_PLUGINS
    assert "plugin_noisy" not in sys.modules
    assert not host.serves("GET", "/noisy")


LIFESPAN = """
@asynccontextmanager
async def lifespan(app):
    {before}
    yield {state}
    {after}
"""


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "raise OSError('x')",
            "...",
            "Plugin 'broken' failed at the host's start: OSError in plugin_broken.py, line 10",
        ),
        (
            "sys.exit(3)",
            "...",
            "Plugin 'broken' failed at the host's start: PluginError in plugin_broken.py, line 10",
        ),
        (
            "...",
            "raise OSError('x')",
            "Plugin 'broken' failed at the host's stop: OSError in plugin_broken.py, line 12",
        ),
        (
            "...",
            "sys.exit(3)",
            "Plugin 'broken' failed at the host's stop: PluginError in plugin_broken.py, line 12",
        ),
    ],
)
async def test_the_host_starts_and_stops_whatever_a_routers_lifespan_raises(
    host: StubHost,
    install_plugin: InstallPlugin,
    caplog: pytest.LogCaptureFixture,
    before: str,
    after: str,
    line: str,
) -> None:
    lifespan = LIFESPAN.format(before=before, after=after, state="None")
    install_plugin("broken", lifespan.join([IMPORTS, router_plugin(arguments="lifespan=lifespan")]))
    host.load()
    assert attach().plugins == (*OUR_PLUGINS, "broken")
    app = FastAPI()
    app.include_router(host.router)
    caplog.clear()
    async with app.router.lifespan_context(app):
        pass
    assert [text for text in caplog.messages if "Plugin " in text] == [line]


async def test_the_state_of_a_plugins_lifespan_is_the_hosts(
    host: StubHost, install_plugin: InstallPlugin
) -> None:
    lifespan = LIFESPAN.format(before="...", after="...", state="{'extra': 5}")
    install_plugin("extra", lifespan.join([IMPORTS, router_plugin(arguments="lifespan=lifespan")]))
    host.load()
    attach()
    app = FastAPI()
    app.include_router(host.router)
    async with app.router.lifespan_context(app) as state:
        assert state == {"extra": 5}


GATEWAY = (
    IMPORTS
    + """
class Gateway:
    account_id = None
    is_test_shop = None

    async def get_payment(self, payment_id):
        return {
            "id": payment_id,
            "status": "succeeded",
            "paid": True,
            "amount": {"value": "1000.00", "currency": "RUB"},
        }


@hookimpl
def payment_gateway(host):
    return Gateway()
"""
)
LISTENER = (
    IMPORTS
    + """
import queue
import threading

HEARD = queue.Queue()


@hookimpl(trylast=True)
def topup_outcome(event):
    HEARD.put((event, threading.current_thread()))
"""
)


async def test_another_gateway_is_asked_instead_of_ours_and_listeners_hear_of_it(
    host: StubHost, install_plugin: InstallPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    install_plugin("gateway", GATEWAY)
    install_plugin("listener", LISTENER)
    install_plugin("abstaining", hook_plugin("payment_gateway", "return None", options=FIRST))
    install_plugin("broken", hook_plugin("payment_gateway", "raise OSError('x')", options=FIRST))
    install_plugin("leaving", hook_plugin("payment_gateway", "sys.exit(3)", options=FIRST))
    install_plugin("deaf", hook_plugin("topup_outcome", "raise OSError('x')", "event"))
    install_plugin("fleeing", hook_plugin("topup_outcome", "sys.exit(3)", "event"))
    host.load()
    host.create_tables()
    host.add_wallet(user_id="u1")
    host.add_payment(user_id="u1")
    attach()
    answer = await host.module(BILLING).billing_service.reconcile_topup_payment("u1", "pay-1")
    assert answer == {
        "payment_id": "pay-1",
        "provider_status": "succeeded",
        "payment_status": "succeeded",
        "credited": True,
    }
    event, thread = sys.modules["plugin_listener"].HEARD.get(timeout=10)
    assert event == TopupEvent("credited", "pay-1", "u1", Way.RETURN, event.at, "w1", 100_000, "RUB")
    assert thread is not threading.main_thread()
    for plugin, failure in (
        ("broken", "payment_gateway: OSError"),
        ("leaving", "payment_gateway: PluginError"),
        ("deaf", "topup_outcome: OSError"),
        ("fleeing", "topup_outcome: PluginError"),
    ):
        line = f"Plugin {plugin!r} failed in {failure} in plugin_{plugin}.py, line 10"
        assert caplog.messages.count(line) == 1


@pytest.fixture
def plugins(host: StubHost, mocker: MockerFixture, install_plugin: InstallPlugin) -> Plugins:
    """The plugins of a host; a test installs its own and loads them."""
    return Plugins()


def offered(plugins: Plugins, mocker: MockerFixture) -> Any:
    """The gateway that the plugins offer."""
    host = mocker.create_autospec(OpenWebUIHost, instance=True, has_payment_client=True, payment_client=None)
    return plugins.payment_gateway(host=host, payment_id="x")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise OSError('x')", "OSError in plugin_broken.py, line 10"),
        ("sys.exit(3)", "PluginError in plugin_broken.py, line 10"),
        ("return 5", "AttributeError"),
    ],
)
async def test_a_gateway_hook_that_fails_is_named_and_the_next_is_asked(
    plugins: Plugins,
    install_plugin: InstallPlugin,
    mocker: MockerFixture,
    caplog: pytest.LogCaptureFixture,
    body: str,
    error: str,
) -> None:
    install_plugin("broken", hook_plugin("payment_gateway", body, options=FIRST))
    install_plugin("sound", GATEWAY)
    plugins.load()
    payment: Any = await offered(plugins, mocker).get_payment("pay-1")
    assert payment["id"] == "pay-1"
    assert caplog.messages == [f"Plugin 'broken' failed in payment_gateway: {error}"]


@pytest.mark.parametrize(("raised", "seen"), [("sys.exit(3)", PluginError), ("1 / 0", ZeroDivisionError)])
async def test_a_gateway_that_fails_raises_an_ordinary_error(
    plugins: Plugins,
    install_plugin: InstallPlugin,
    mocker: MockerFixture,
    raised: str,
    seen: type[Exception],
) -> None:
    install_plugin("failing", GATEWAY.replace("return {", f"{raised}\n        return {{"))
    plugins.load()
    with pytest.raises(seen):
        await offered(plugins, mocker).get_payment("pay-1")


LISTING_GATEWAY = GATEWAY.replace(
    "    async def get_payment",
    """
    async def list_captured(self, since, cursor):
        from openwebui_billing_reconcile import CapturedPage

        return CapturedPage([since, cursor], "next")

    async def get_payment""",
)


async def test_a_gateway_that_lists_does_so_in_isolation(
    plugins: Plugins, install_plugin: InstallPlugin, mocker: MockerFixture
) -> None:
    install_plugin("listing", LISTING_GATEWAY)
    plugins.load()
    gateway = offered(plugins, mocker)
    assert isinstance(gateway, ListingGateway)
    assert await gateway.list_captured(5.0, "here") == CapturedPage([5.0, "here"], "next")
    payment: Any = await gateway.get_payment("pay-1")
    assert payment["id"] == "pay-1"


@pytest.mark.parametrize("code", [GATEWAY, GATEWAY.replace("account_id =", "list_captured = account_id =")])
async def test_a_gateway_that_does_not_list_answers_all_the_same(
    plugins: Plugins, install_plugin: InstallPlugin, mocker: MockerFixture, code: str
) -> None:
    install_plugin("plain", code)
    plugins.load()
    gateway = offered(plugins, mocker)
    assert not isinstance(gateway, ListingGateway)
    assert (await gateway.get_payment("pay-1"))["id"] == "pay-1"


@pytest.mark.parametrize(("raised", "seen"), [("sys.exit(3)", PluginError), ("1 / 0", ZeroDivisionError)])
async def test_a_list_that_fails_raises_an_ordinary_error(
    plugins: Plugins,
    install_plugin: InstallPlugin,
    mocker: MockerFixture,
    raised: str,
    seen: type[Exception],
) -> None:
    install_plugin("failing", LISTING_GATEWAY.replace("return CapturedPage", f"{raised}\n        return"))
    plugins.load()
    with pytest.raises(seen):
        await offered(plugins, mocker).list_captured(0.0, None)


@pytest.mark.parametrize(
    ("raised", "error"), [("raise OSError('x')", "OSError"), ("sys.exit(3)", "PluginError")]
)
def test_a_gateway_that_fails_when_asked_whether_it_lists_is_named(
    plugins: Plugins,
    install_plugin: InstallPlugin,
    mocker: MockerFixture,
    caplog: pytest.LogCaptureFixture,
    raised: str,
    error: str,
) -> None:
    attribute = f"@property\n    def list_captured(self):\n        {raised}\n\n    async def get_payment"
    install_plugin("broken", GATEWAY.replace("async def get_payment", attribute))
    plugins.load()
    assert offered(plugins, mocker) is None
    place = "in plugin_broken.py, line 14"
    assert caplog.messages == [f"Plugin 'broken' failed in payment_gateway: {error} {place}"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise OSError('x')", "OSError"),
        ("sys.exit(3)", "PluginError"),
        ("__import__('json').loads('a secret')", "JSONDecodeError"),  # raised by what the plugin calls
    ],
)
def test_a_listener_that_fails_is_named_and_the_others_hear(
    plugins: Plugins,
    install_plugin: InstallPlugin,
    caplog: pytest.LogCaptureFixture,
    body: str,
    error: str,
) -> None:
    install_plugin("deaf", hook_plugin("topup_outcome", body, "event", FIRST))
    install_plugin("listener", LISTENER)
    plugins.load()
    event = TopupEvent("canceled", "pay-1", "u1", Way.SWEEP, at=1.0)
    plugins.topup_outcome(event=event)
    assert sys.modules["plugin_listener"].HEARD.get(timeout=10)[0] is event
    place = "in plugin_deaf.py, line 10"
    assert caplog.messages == [f"Plugin 'deaf' failed in topup_outcome: {error} {place}"]


def test_without_a_gateway_there_is_none(plugins: Plugins, mocker: MockerFixture) -> None:
    plugins.load()
    assert offered(plugins, mocker) is None


CLIENT_OF_SHOP = """
from types import SimpleNamespace


def get_yookassa_client():
    return SimpleNamespace(config=SimpleNamespace(shop_id="7", secret_key="{key}", api_url="http://127.0.0.1:9"))
"""


async def test_the_hosts_client_is_joined_by_one_list_of_the_same_shop(
    host: StubHost, plugins: Plugins, mocker: MockerFixture
) -> None:
    host.append(CLIENT, CLIENT_OF_SHOP.format(key="test_of_the_client"))
    host.load()
    plugins.load()
    sdk = mocker.patch.object(builtin, "SdkGateway", autospec=True)
    sdk.return_value.list_captured.return_value = CapturedPage(["item"], None)
    for _ in range(2):
        gateway = plugins.payment_gateway(host=OpenWebUIHost(plugins), payment_id="x")
        assert isinstance(gateway, ListingGateway)
        assert await gateway.list_captured(5.0, None) == CapturedPage(["item"], None)
    sdk.assert_called_once_with("7", "test_of_the_client", "http://127.0.0.1:9")


def test_a_host_whose_key_is_not_known_has_a_gateway_without_a_list(
    host: StubHost, plugins: Plugins, mocker: MockerFixture
) -> None:
    host.append(CLIENT, CLIENT_OF_SHOP.format(key=""))
    host.load()
    mocker.patch.object(host.module(ENV), "YOOKASSA_SECRET_KEY", "")
    plugins.load()
    gateway = plugins.payment_gateway(host=OpenWebUIHost(plugins), payment_id="x")
    assert gateway is not None
    assert gateway.account_id == "7"
    assert not isinstance(gateway, ListingGateway)


@pytest.fixture
def without_client(host: StubHost, plugins: Plugins) -> OpenWebUIHost:
    """A host that has no YooKassa client of its own."""
    host.remove(CLIENT)
    host.load()
    plugins.load()
    return OpenWebUIHost(plugins)


def test_a_host_without_a_client_is_served_by_the_sdk(
    plugins: Plugins, without_client: OpenWebUIHost
) -> None:
    gateway = plugins.payment_gateway(host=without_client, payment_id="x")
    assert isinstance(gateway, ListingGateway)
    assert (gateway.account_id, gateway.is_test_shop) == ("100500", True)


def test_a_host_without_a_shop_has_no_gateway(
    host: StubHost, plugins: Plugins, without_client: OpenWebUIHost, mocker: MockerFixture
) -> None:
    mocker.patch.object(host.module(ENV), "YOOKASSA_SHOP_ID", "")
    assert plugins.payment_gateway(host=without_client, payment_id="x") is None
