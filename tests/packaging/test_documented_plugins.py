"""``hooks.md``: every example runs, in a host of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.packaging.environments import Environment
from tests.support.harness.host import Program, running_host
from tests.support.hooks_document import EXAMPLES, HOOKS, TEXT
from tests.support.variants import HOST, Variant
from tests.support.yookassa.process import running_simulator


def test_every_hook_has_a_test_that_runs_its_example() -> None:
    run_here = {
        "billing_router": test_the_route_example,
        "billing_service_methods": test_the_method_example,
        "payment_gateway": test_the_gateway_and_listener_examples,
        "topup_outcome": test_the_gateway_and_listener_examples,
    }
    assert set(run_here) == set(HOOKS)


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
        assert user.get("/topup/currency").json() == {"currency": "RUB"}
        assert running.http.get("/api/v1/billing/topup/currency").status_code == 401


def test_the_method_example(tmp_path: Path) -> None:
    host = installed(tmp_path, "my_method_plugin")
    code = (
        "import json, open_webui.main\n"
        "from open_webui.utils.billing import billing_service\n"
        "print(json.dumps(billing_service.topup_status('unknown')))\n"
    )
    assert host.json(code) is None


PAYMENT = {
    "id": "p1",
    "provider": "yookassa",
    "status": "pending",
    "kind": "topup",
    "amount_kopeks": 100000,
    "currency": "RUB",
    "provider_payment_id": "demo-1",
    "user_id": "u1",
    "created_at": 1,
    "updated_at": 1,
}


def test_the_gateway_and_listener_examples(tmp_path: Path) -> None:
    host = installed(tmp_path, "my_gateway_plugin", "my_listener_plugin")
    code = f"""
import asyncio, json, logging, threading
import open_webui.main
from open_webui.models.billing import PaymentModel, Payments
from open_webui.utils.billing import billing_service
heard, lines = threading.Event(), []
class Listener(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
        heard.set()
logging.getLogger("topup.audit").addHandler(Listener())
Payments.create_payment(PaymentModel(**{PAYMENT!r}))
answer = asyncio.run(billing_service.reconcile_topup_payment("u1", "demo-1"))
assert heard.wait(10)
print(json.dumps([answer["credited"], lines]))
"""
    assert host.json(code) == [True, ["credited: payment demo-1, 100000 kopeks"]]


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


def test_the_packaging_example_builds_installs_and_is_listed(tmp_path: Path, wheel: Path) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(toml)
    (project / "my_topup_plugin.py").write_text(EXAMPLES["my_listener_plugin"])
    fresh = Environment(tmp_path / "venv")
    fresh.install(wheel, project)
    status = json.loads(
        fresh.say(
            "import sys; from openwebui_billing_reconcile.cli import main; sys.exit(main(sys.argv[1:]))",
            arguments=("status", "--json", "--app-dir", str(HOST)),
        )
    )
    assert status["plugins"] == ["builtin", "builtin_metrics", "my_topup_plugin"]
