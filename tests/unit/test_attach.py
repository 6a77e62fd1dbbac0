"""Attaching, in this process: to a host that is fit, to none that is not, and never without a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from pytest_mock import MockerFixture

from openwebui_billing_reconcile import attach, detach
from openwebui_billing_reconcile.attachment.attach import Report, State, report_no_billing
from openwebui_billing_reconcile.attachment.own_reconcile import METHOD
from openwebui_billing_reconcile.attachment.plugins import Plugins
from openwebui_billing_reconcile.hookspecs import PROJECT
from openwebui_billing_reconcile.host.requirements import BILLING, BILLING_ROUTER, TABLES
from tests.unit.conftest import InstallPlugin
from tests.unit.stub_host import (
    LEDGER_KEY,
    LEDGERS_WITHOUT_KEY,
    OUR_METHODS,
    OUR_PLUGINS,
    OUR_ROUTES,
    SERVICE,
    StubHost,
    broken_requirements,
)

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"
TAKE_OVER = "BILLING_TOPUP_RECONCILE_TAKE_OVER"
EXTRA = """
from openwebui_billing_reconcile import hookimpl


@hookimpl
def billing_service_methods(host):
    return {"extra": print}
"""
BROKEN = list(broken_requirements())


def attached(host: StubHost, caplog: pytest.LogCaptureFixture) -> Report:
    """What an attach to the host, which is loaded first, reports; its one line says so as well."""
    host.load()
    before = host.looks()
    report = attach()
    (line,) = caplog.messages
    is_attached = report.state in {State.ATTACHED, State.BESIDE}
    assert line.endswith(f"is attached: {report.why}" if is_attached else report.why)
    assert ("is not attached: " in line) is not is_attached
    assert (host.looks() == before) is not is_attached
    return report


def test_the_host_as_it_is_gets_the_endpoint_and_the_method(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    report = attached(host, caplog)
    assert report.state is State.ATTACHED
    assert (report.routes, report.methods, report.plugins) == (
        OUR_ROUTES,
        OUR_METHODS,
        OUR_PLUGINS,
    )
    assert (
        f"is attached: {', '.join(OUR_ROUTES)}; BillingService.{', '.join(OUR_METHODS)}; sweeps every 120 s;"
        in caplog.text
    )
    assert host.serves("POST", "/topup/reconcile")
    assert callable(host.module(BILLING).billing_service.reconcile_topup_payment)


def test_detaching_restores_the_host(host: StubHost) -> None:
    host.load()
    before = host.looks()
    assert attach().state is State.ATTACHED
    assert host.looks() != before
    detach()
    assert host.looks() == before
    detach()
    assert host.looks() == before


def test_a_detach_that_fails_is_reported_and_not_raised(host: StubHost) -> None:
    host.load()
    assert attach().state is State.ATTACHED
    delattr(host.module(BILLING).BillingService, METHOD)  # somebody has taken it away already
    assert attach().state is State.INCOMPATIBLE
    assert attach().state is State.ATTACHED


def test_attaching_twice_adds_everything_once(host: StubHost) -> None:
    host.load()
    before = host.looks()
    assert attach().state is State.ATTACHED
    added = len(host.router.routes)
    assert attach().state is State.ATTACHED
    assert len(host.router.routes) == added
    detach()
    assert host.looks() == before


def test_a_reloaded_host_is_attached_anew(host: StubHost) -> None:
    host.load()
    attach()
    first = host.router
    host.unload()
    host.load()
    assert attach().state is State.ATTACHED
    assert host.router is not first
    assert host.serves("POST", "/topup/reconcile")
    assert len(first.routes) == 1


@pytest.mark.parametrize("off", ["false", "0", "No", "OFF"])
def test_the_switch_leaves_the_host_as_without_the_plugin(
    host: StubHost, caplog: pytest.LogCaptureFixture, off: str
) -> None:
    os.environ[SWITCH] = off
    report = attached(host, caplog)
    assert (report.state, report.why) == (State.OFF, f"{SWITCH} is off")


def test_a_switch_that_cannot_be_read_means_off_and_says_so(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ[SWITCH] = "ture"
    host.load()
    before = host.looks()
    assert attach().state is State.OFF
    assert host.looks() == before
    problem, _ = caplog.messages
    assert problem == f"{SWITCH} has a value that cannot be read: use true or false"


def test_a_host_without_billing_is_said_to_have_none(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    host.remove(BILLING_ROUTER)
    report = attached(host, caplog)
    assert (report.state, report.why) == (State.NO_BILLING, f"this host has no {BILLING_ROUTER}")


def test_a_host_that_came_up_without_billing_is_said_to_have_none(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    assert report_no_billing().state is State.NO_BILLING
    (line,) = caplog.messages
    assert line.endswith(f"is not attached: this host does not load {BILLING_ROUTER}")


def add_own_reconcile(host: StubHost, path: str = "/topup/reconcile") -> None:
    """Give the host an endpoint and a method of its own, between others."""
    host.edit(BILLING, SERVICE, f"{SERVICE}\n    async def {METHOD}(self, user_id, payment_id): ...\n")
    host.append(BILLING_ROUTER, f'\n\n@router.post("{path}")\ndef theirs(): ...\n')
    host.append(BILLING_ROUTER, '\n\n@router.get("/last")\ndef last(): ...\n')


def served(host: StubHost) -> list[str]:
    """Return the paths that a schema of the host shows, in order."""
    app = FastAPI()
    app.include_router(host.router)
    return [f"{next(iter(methods))} {path}" for path, methods in app.openapi()["paths"].items()]


@pytest.mark.parametrize("path", ["/topup/reconcile", "/topup/{anything}"])
def test_beside_a_reconcile_of_the_hosts_own_all_else_attaches(
    host: StubHost, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    add_own_reconcile(host, path)
    report = attached(host, caplog)
    assert report.state is State.BESIDE
    assert report.routes == OUR_ROUTES[1:]
    assert report.methods == OUR_METHODS[1:]
    words = f"the host keeps its own POST /topup/reconcile and {METHOD}: {TAKE_OVER}=true lets ours replace"
    assert words in report.why
    assert served(host)[1:3] == [f"post {path}", "get /last"]
    method = vars(host.module(BILLING).BillingService)[METHOD]
    assert method.__module__ == BILLING
    assert host.serves("POST", "/topup/reconcile/pending")


def test_a_reconcile_of_the_hosts_own_is_taken_over_in_place(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    add_own_reconcile(host)
    os.environ[TAKE_OVER] = "true"
    report = attached(host, caplog)
    assert report.state is State.ATTACHED
    assert (report.routes, report.methods) == (OUR_ROUTES, OUR_METHODS)
    assert f"in place of the host's own POST /topup/reconcile and {METHOD}; " in report.why
    paths = served(host)
    assert paths[:2] == ["get /balance", "post /topup/reconcile"]
    assert paths.count("post /topup/reconcile") == 1
    method = vars(host.module(BILLING).BillingService)[METHOD]
    assert method.__module__ != BILLING


@pytest.mark.parametrize("path", ["/topup/reconcile", "/topup/{anything}"])
def test_detaching_puts_the_hosts_own_reconcile_back(host: StubHost, path: str) -> None:
    add_own_reconcile(host, path)
    os.environ[TAKE_OVER] = "true"
    host.load()
    before, paths = host.looks(), served(host)
    attach()
    assert host.looks() != before
    detach()
    assert host.looks() == before
    assert served(host) == paths


def test_a_route_that_serves_other_paths_too_stays_behind_ours(host: StubHost) -> None:
    add_own_reconcile(host, "/topup/{anything}")
    os.environ[TAKE_OVER] = "true"
    host.load()
    attach()
    paths = served(host)
    assert paths.index("post /topup/reconcile") < paths.index("post /topup/{anything}")


@pytest.mark.parametrize("half", ["method", "endpoint"])
def test_half_a_reconcile_of_the_hosts_own_is_kept_and_taken_over_as_well(
    host: StubHost, caplog: pytest.LogCaptureFixture, half: str
) -> None:
    if half == "method":
        host.edit(BILLING, SERVICE, f"{SERVICE}\n    async def {METHOD}(self, user_id, payment_id): ...\n")
    else:
        host.append(BILLING_ROUTER, '\n\n@router.post("/topup/reconcile")\ndef theirs(): ...\n')
    assert attached(host, caplog).state is State.BESIDE
    os.environ[TAKE_OVER] = "true"
    assert attach().state is State.ATTACHED
    assert served(host).count("post /topup/reconcile") == 1


def test_without_one_of_the_hosts_own_taking_over_changes_nothing(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ[TAKE_OVER] = "true"
    report = attached(host, caplog)
    assert (report.state, report.routes) == (State.ATTACHED, OUR_ROUTES)
    assert "in place of" not in report.why


@pytest.mark.parametrize(("what", "take_away"), BROKEN, ids=[what for what, _ in BROKEN])
def test_a_host_that_lacks_a_requirement_is_left_alone_and_it_is_said_which(
    host: StubHost, caplog: pytest.LogCaptureFixture, what: str, take_away: Callable[[StubHost], None]
) -> None:
    take_away(host)
    report = attached(host, caplog)
    assert report.state is State.INCOMPATIBLE
    assert report.why.startswith("this host lacks ")
    assert what in report.why
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("key", LEDGERS_WITHOUT_KEY.values(), ids=LEDGERS_WITHOUT_KEY)
def test_a_ledger_that_could_credit_twice_is_left_alone(
    host: StubHost, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    host.edit(TABLES, f"({LEDGER_KEY},)", f"({key},)" if key else "()")
    report = attached(host, caplog)
    assert report.state is State.INCOMPATIBLE
    assert "no unique key (reference_type, reference_id, type)" in report.why


def test_an_attach_that_fails_half_way_is_undone(host: StubHost, caplog: pytest.LogCaptureFixture) -> None:
    closed = (
        "class Closed(type):\n    def __setattr__(cls, name, value):\n        raise TypeError('closed')\n\n\n"
    )
    host.edit(BILLING, SERVICE, f"{closed}class BillingService(metaclass=Closed):")
    report = attached(host, caplog)
    assert (report.state, report.why) == (State.INCOMPATIBLE, "attaching failed: TypeError: closed")


def test_where_the_host_shows_warnings_only_the_line_is_a_warning(
    host: StubHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", PROJECT)
    attached(host, caplog)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_without_our_own_plugin_no_others_is_asked_for_anything(
    host: StubHost, install_plugin: InstallPlugin, mocker: MockerFixture
) -> None:
    install_plugin("extra", EXTRA)
    asked = mocker.spy(Plugins, "billing_service_methods")
    mocker.patch.dict(sys.modules, {f"{PROJECT}.attachment.builtin": None})
    host.load()
    before = host.looks()
    report = attach()
    assert report.state is State.INCOMPATIBLE
    assert report.why.startswith("our own plugin is broken: ModuleNotFoundError")
    assert host.looks() == before
    asked.assert_not_called()


def test_a_fault_of_our_own_plugin_is_one_line(
    host: StubHost, caplog: pytest.LogCaptureFixture, mocker: MockerFixture
) -> None:
    mocker.patch("openwebui_billing_reconcile.web.endpoint.make_router", side_effect=OSError("x"))
    report = attached(host, caplog)
    assert (report.state, report.why) == (State.INCOMPATIBLE, "attaching failed: OSError: x")


def test_importing_the_hosts_files_attaches(host: StubHost, tmp_path: Path, mocker: MockerFixture) -> None:
    mocker.patch.object(sys, "path", [str(tmp_path), *sys.path])
    mocker.patch.object(sys, "dont_write_bytecode", True)
    host.write(tmp_path)
    assert not hasattr(host.module(BILLING).BillingService, METHOD)
    assert host.serves("POST", "/topup/reconcile")
    assert hasattr(host.module(BILLING).BillingService, METHOD)
