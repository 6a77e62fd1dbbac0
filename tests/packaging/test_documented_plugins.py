"""``hooks.md``: every example runs, in a host of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.environments import Environment, uv
from tests.support.harness.host import Host, Program, running_host
from tests.support.harness.http_server import Answer, running_http_server
from tests.support.harness.waiting import wait_until
from tests.support.hooks_document import EXAMPLES, TEMPLATE
from tests.support.variants import HOST, Variant
from tests.support.yookassa.client import rubles
from tests.support.yookassa.process import running_simulator

PATIENCE = 60.0


def test_every_example_is_run_by_a_test() -> None:
    run_here = {
        "my_route_plugin": test_the_route_example,
        "my_method_plugin": test_the_method_example,
        "my_gateway_plugin": test_the_gateway_and_listener_examples,
        "my_listener_plugin": test_the_gateway_and_listener_examples,
        "host_recipe": test_the_recipe_for_a_host_with_a_manager_of_its_own,
    }
    assert set(run_here) == set(EXAMPLES)


def installed(tmp_path: Path, *examples: str) -> Variant:
    host = Variant(tmp_path)
    for example in examples:
        host.install(example, EXAMPLES[example], value=example)
        host.write(f"{example}.py", EXAMPLES[example])
    return host


def test_the_route_example(tmp_path: Path) -> None:
    host = installed(tmp_path, "my_route_plugin")
    with running_host(Program(folder=host.folder)) as running:
        user = running.new_user()
        running.books.add_record(user.id, "p-1")
        running.books.add_record(running.new_user().id, "p-2")
        assert user.get("/topup/open").json() == {"open": 1, "currency": "RUB"}
        assert running.http.get("/api/v1/billing/topup/open").status_code == 401


def test_the_method_example(tmp_path: Path) -> None:
    host = installed(tmp_path, "my_method_plugin")
    code = (
        "import json, open_webui.main\n"
        "from open_webui.utils.billing import billing_service\n"
        "print(json.dumps(billing_service.topup_status('unknown')))\n"
    )
    assert host.json(code) is None


def acme_payment(payment_id: str) -> dict[str, Any]:
    return {
        "id": payment_id,
        "status": "succeeded",
        "paid": True,
        "amount": rubles("1000.00"),
        "captured_at": datetime.now(UTC).isoformat(),
    }


def logged(host: Host, words: str) -> bool:
    return words in host.log


def test_the_gateway_and_listener_examples(tmp_path: Path) -> None:
    """The gateway stands in YooKassa's place: for a person's query, for the sweep and for the audit."""
    host = installed(tmp_path, "my_gateway_plugin", "my_listener_plugin")
    sweeping = {
        "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "true",
        "BILLING_TOPUP_RECONCILE_SWEEP_SECONDS": "1",
    }
    with (
        running_http_server() as acme,
        running_host(Program(folder=host.folder), env=sweeping | {"ACME_URL": acme.url}) as running,
    ):
        user = running.new_user()
        asked, listed, unknown = "acme-1", "acme-2", "acme-3"
        for payment_id in (asked, listed, unknown):
            running.books.add_record(user.id, payment_id, provider="acme")
        acme.answers[f"/payments/{asked}"] = Answer(body=acme_payment(asked))
        assert user.reconcile(asked).json()["credited"] is True
        assert user.reconcile(unknown).status_code == 502
        acme.answers["/captured"] = Answer(body={"items": [acme_payment(listed)], "next": None})
        wait_until(lambda: running.books.entries(listed), PATIENCE, "the sweep credited nothing")
        for payment_id in (asked, listed):
            line = f"credited: payment {payment_id}, 100000 kopeks"
            wait_until(partial(logged, running, line), PATIENCE, f"the listener has not said {line}")
        audit = running.admin.audit().json()
        assert audit["checked"] == {"payments": 1, "entries": 2, "others": 0, "unreadable": 0}
        assert audit["findings"] == []
        record = running.books.record(asked)
        assert record is not None
        assert record["provider"] == "acme"


def test_the_recipe_for_a_host_with_a_manager_of_its_own(tmp_path: Path) -> None:
    host = installed(tmp_path, "my_listener_plugin")
    host.write("host_recipe.py", EXAMPLES["host_recipe"])
    bootstrap = "from open_webui.routers import admin_billing, billing"
    host.edit("utils/airis/app_bootstrap.py", bootstrap, f"{bootstrap}\n    import host_recipe")
    switch = {"ENABLE_BILLING_TOPUP_RECONCILE": "false"}
    program = Program(folder=host.folder)
    with running_simulator() as provider, running_host(program, simulator=provider, env=switch) as running:
        user = running.new_user()
        payment_id = user.topup()
        provider.pay(payment_id)
        assert user.reconcile(payment_id).json()["credited"] is True
        assert user.balance() == 100_000
        assert "BillingService" not in running.log  # the start-up hook did not attach as well


@pytest.mark.parametrize(
    ("distribution", "plugin", "module"),
    [
        ("acme-topups", "acme", "acme_billing"),
        ("Top_Up.Log", "X-y_z", "a_b_c"),
    ],
)
def test_the_template_builds_installs_and_is_listed_whatever_its_names(
    tmp_path: Path, installed: Environment, distribution: str, plugin: str, module: str
) -> None:
    toml = TEMPLATE
    for old, new in [
        ('name = "acme-topups"', f'name = "{distribution}"'),
        ('acme = "acme_billing"', f'{plugin} = "{module}"'),
        ('["acme_billing.py"]', f'["{module}.py"]'),
    ]:
        assert old in toml
        toml = toml.replace(old, new)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(toml)
    (project / f"{module}.py").write_text(EXAMPLES["my_listener_plugin"])
    uv("build", "--quiet", "--out-dir", tmp_path / "dist", project)  # the archive, and the wheel from it
    (built,) = (tmp_path / "dist").glob("*.whl")
    environment = installed.copy(tmp_path / "venv")
    environment.install(built)
    status = json.loads(
        environment.say(
            "import sys; from openwebui_billing_reconcile.cli import main; main(sys.argv[1:])",
            arguments=("status", "--json", "--app-dir", str(HOST)),
        )
    )
    assert status["plugins"] == ["builtin", "builtin_metrics", plugin]
    assert status["broken"] == {}
