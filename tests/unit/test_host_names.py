"""Each name of the host that the package uses is a listed requirement; optional ones may be absent."""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile.errors import TemporarilyUnavailableError
from openwebui_billing_reconcile.hookspecs import Hooks
from openwebui_billing_reconcile.host import requirements
from openwebui_billing_reconcile.host.ledger import Ledger
from openwebui_billing_reconcile.host.loaded import LoadedHost
from openwebui_billing_reconcile.host.open_webui import OpenWebUIHost
from openwebui_billing_reconcile.host.requirements import (
    BILLING,
    BILLING_ROUTER,
    DB,
    ENV,
    ERROR_WORDS,
    OPTIONAL_CALLS,
    OPTIONAL_NAMES,
    REQUIRED_CALLS,
    REQUIRED_NAMES,
    TABLES,
    check_requirements,
    missing_requirements,
)
from openwebui_billing_reconcile.host.source import SourceHost
from tests.unit.stub_host import StubHost

PACKAGE = Path(requirements.__file__).parents[1]
CALLS = {
    f"{module}.{name}": arguments
    for calls in (REQUIRED_CALLS, OPTIONAL_CALLS)
    for module, functions in calls.items()
    for name, arguments in functions.items()
}
NAMES = {
    f"{module}.{name}"
    for listed in (REQUIRED_NAMES, OPTIONAL_NAMES, OPTIONAL_CALLS)
    for module, names in listed.items()
    for name in names
}
OBJECTS = {"service": f"{BILLING}.BillingService", "wallet_service": "open_webui.utils.wallet.wallet_service"}
"""What objects of the host are called in the package, and where they come from."""


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def value_of(node: ast.expr) -> str | None:
    """A constant text, or one that the requirements name."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return getattr(requirements, name, None)
    return None


def module_of(node: ast.expr) -> str | None:
    """The module in ``self._modules[NAME]``, or in ``env`` which stands for one."""
    match node:
        case ast.Subscript(value=ast.Attribute(attr="_modules"), slice=ast.Name(id=name)):
            return str(getattr(requirements, name))
        case ast.Name(id="env"):
            return ENV
    return None


def object_of(node: ast.expr) -> str | None:
    """What stands behind ``service`` or ``self._host.wallet_service``."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return OBJECTS.get(name)
    return None


def used_by(path: Path) -> set[str]:
    """The host's names that a file of the package uses, through modules and objects of the host."""
    found = set()
    for node in nodes(path):
        match node:
            case ast.Attribute(value=owner, attr=name):
                pass
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[owner, argument, *_]):
                name = value_of(argument) or ""
            case _:
                continue
        home = module_of(owner) or object_of(owner)
        if home and name:
            found.add(f"{home}.{name}")
    return found


def test_each_name_that_is_used_is_listed() -> None:
    used = set().union(*(used_by(path) for path in PACKAGE.rglob("*.py")))
    assert {f"{BILLING_ROUTER}.{ERROR_WORDS}", f"{BILLING}.BillingService._process_topup_webhook"} <= used
    assert used - NAMES == set()


def test_each_call_passes_the_arguments_that_are_checked() -> None:
    called: dict[str, set[tuple[str, ...]]] = {}
    for path in (PACKAGE / "host").glob("*.py"):
        for node in nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                function = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                called.setdefault(function, set()).add(tuple(str(word.arg) for word in node.keywords))
    spoken_as = {
        ERROR_WORDS: "speak",
        requirements.AUTO_TOPUP: "is_auto_topup",
        requirements.AUTO_TOPUP_FAILURE: "record_failure",
    }
    for path_of_name, arguments in CALLS.items():
        name = path_of_name.rpartition(".")[2]
        assert called[spoken_as.get(name, name)] == {arguments}, path_of_name


def both(host: StubHost, folder: Path) -> list[str]:
    """What the host lacks, which both ways of looking agree on."""
    source = SourceHost(host.write(folder))
    host.load()
    assert list(check_requirements(source)) == list(check_requirements(LoadedHost()))
    return missing_requirements(source)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (BILLING, "get_yookassa_client"),
        (BILLING_ROUTER, ERROR_WORDS),
        (BILLING, requirements.AUTO_TOPUP),
        (BILLING, requirements.AUTO_TOPUP_FAILURE),
        (TABLES, requirements.FAIL_COUNT),
        (ENV, "YOOKASSA_SHOP_ID"),
        (ENV, "YOOKASSA_SECRET_KEY"),
    ],
)
def test_a_host_without_an_optional_name_is_fit(
    host: StubHost, tmp_path: Path, module: str, name: str
) -> None:
    if name == "get_yookassa_client":
        host.edit(module, f"import {name}", f"import {name} as of_another_name")
    else:
        host.rename(module, name)
    assert both(host, tmp_path) == []


@pytest.mark.parametrize("decorator", ["staticmethod", "classmethod"])
def test_a_method_that_takes_no_service_is_fit(host: StubHost, tmp_path: Path, decorator: str) -> None:
    first = "cls, " if decorator == "classmethod" else ""
    old = f"    def {requirements.AUTO_TOPUP}(self, "
    host.edit(BILLING, old, f"    @{decorator}\n    def {requirements.AUTO_TOPUP}({first}")
    assert both(host, tmp_path) == []


def test_a_service_of_another_class_is_missed(host: StubHost, tmp_path: Path) -> None:
    host.append(BILLING, "\n\nclass Other:\n    pass\n\n\nbilling_service = Other()\n")
    assert both(host, tmp_path) == [f"{BILLING_ROUTER}.billing_service._process_topup_webhook"]


def add_pending(host: StubHost, recorded: dict[str, str]) -> None:
    """Add a pending top-up, and the metadata that the host wrote on it."""
    host.load()
    host.create_tables()
    host.add_wallet()
    host.add_payment(metadata_json=recorded)


def status_and_failures(host: StubHost) -> tuple[str, Any]:
    """Return the payment's status, and how many failures its wallet counts."""
    tables = host.module(TABLES)
    with host.module(DB).get_db() as session:
        wallet = session.get(tables.Wallet, "w1")
        status: str = session.get(tables.Payment, "record-1").status
        return status, getattr(wallet, requirements.FAIL_COUNT, "not there")


def counted(host: StubHost, relay: Hooks, *, metadata: dict[str, str], recorded: dict[str, str]) -> Any:
    """How many failures the wallet counts once an auto top-up with such metadata is canceled."""
    add_pending(host, recorded)
    service = host.module(BILLING).billing_service
    ledger = Ledger(OpenWebUIHost(relay))
    assert ledger.cancel(service, "pay-1", metadata)
    assert not ledger.cancel(service, "pay-1", metadata)  # once per payment
    assert not ledger.cancel(service, "unknown", {"auto_topup": "true"})
    status, failures = status_and_failures(host)
    assert status == "canceled"
    return failures


AUTO = {"auto_topup": "true"}


@pytest.mark.parametrize(
    ("metadata", "recorded", "failures"), [(AUTO, {}, 1), ({}, AUTO, 1), (AUTO, AUTO, 1), ({}, {}, 0)]
)
def test_a_canceled_auto_topup_is_counted(
    host: StubHost, mocker: Any, metadata: dict[str, str], recorded: dict[str, str], failures: int
) -> None:
    assert counted(host, mocker.Mock(), metadata=metadata, recorded=recorded) == failures


def test_a_host_without_auto_topup_counts_nothing(
    host: StubHost, mocker: MockerFixture, caplog: pytest.LogCaptureFixture
) -> None:
    host.rename(TABLES, requirements.FAIL_COUNT)
    assert counted(host, mocker.Mock(), metadata=AUTO, recorded=AUTO) == "not there"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", [requirements.AUTO_TOPUP, requirements.AUTO_TOPUP_FAILURE])
def test_a_host_that_counts_in_another_way_is_left_to_its_webhook(
    host: StubHost, mocker: MockerFixture, name: str
) -> None:
    host.rename(BILLING, name)
    add_pending(host, AUTO)
    service = host.module(BILLING).billing_service
    assert not Ledger(OpenWebUIHost(mocker.Mock())).cancel(service, "pay-1", AUTO)
    assert status_and_failures(host) == ("pending", 0)


def test_a_failure_is_counted_while_the_payment_is_pending(host: StubHost, mocker: MockerFixture) -> None:
    add_pending(host, AUTO)
    service = host.module(BILLING).billing_service
    count, seen = service._record_auto_topup_failure, []

    def watched(**arguments: Any) -> None:
        seen.append(status_and_failures(host))
        count(**arguments)

    mocker.patch.object(service, requirements.AUTO_TOPUP_FAILURE, watched)
    Ledger(OpenWebUIHost(mocker.Mock())).cancel(service, "pay-1", AUTO)
    assert seen == [("pending", 0)]


@pytest.mark.parametrize("failure", [{"side_effect": RuntimeError}, {"return_value": None}])
def test_a_failure_that_is_not_counted_leaves_the_payment_for_the_next_call(
    host: StubHost, mocker: MockerFixture, failure: dict[str, Any]
) -> None:
    add_pending(host, AUTO)
    service = host.module(BILLING).billing_service
    ledger = Ledger(OpenWebUIHost(mocker.Mock()))
    broken = mocker.patch.object(service, requirements.AUTO_TOPUP_FAILURE, **failure)
    with pytest.raises((RuntimeError, TemporarilyUnavailableError)):
        ledger.cancel(service, "pay-1", AUTO)
    assert status_and_failures(host) == ("pending", 0)
    mocker.stop(broken)
    assert ledger.cancel(service, "pay-1", AUTO)
    assert status_and_failures(host) == ("canceled", 1)


def test_a_failure_is_counted_at_the_metadatas_wallet_where_the_record_names_none(
    host: StubHost, mocker: MockerFixture
) -> None:
    add_pending(host, AUTO)
    with host.module(DB).get_db() as session:
        session.query(host.module(TABLES).Payment).update({"wallet_id": None})
        session.commit()
    service = host.module(BILLING).billing_service
    Ledger(OpenWebUIHost(mocker.Mock())).cancel(service, "pay-1", AUTO | {"wallet_id": "w1"})
    assert status_and_failures(host) == ("canceled", 1)
