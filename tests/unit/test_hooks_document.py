"""``hooks.md``: it agrees with the live hooks, every hook has an example, and every example runs."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from openwebui_billing_reconcile import hookspecs
from openwebui_billing_reconcile.hookspecs import PROJECT, Host, TopupEvent
from tests.packaging.environments import Environment, build_wheel
from tests.support.harness.host import Program, running_host
from tests.support.variants import HOST, Variant
from tests.support.yookassa.process import running_simulator

TEXT = (Path(__file__).parents[2] / "hooks.md").read_text()
HOOKS = {
    name: value
    for name, value in vars(hookspecs).items()
    if inspect.isfunction(value) and hasattr(value, f"{PROJECT}_spec")
}
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES: dict[str, str] = {}
for block in BLOCKS:
    if block.startswith("# "):
        EXAMPLES[block.split("\n", 1)[0].removeprefix("# ").removesuffix(".py")] = block


def implemented(code: str) -> set[str]:
    """The hooks that an example implements."""
    return {
        node.name
        for node in ast.parse(code).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "hookimpl" for d in node.decorator_list)
    }


def test_the_document_has_a_section_for_each_hook_and_no_other() -> None:
    sections = set(re.findall(r"^## (\w+)$", TEXT, re.MULTILINE))
    assert sections == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_documented_signature_is_the_live_one(name: str) -> None:
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    signature = f"def {name}{inspect.signature(HOOKS[name])}".replace("'", "")
    assert f"```python\n{signature}\n```" in section


@pytest.mark.parametrize("name", HOOKS)
def test_the_document_says_of_each_hook_what_its_docstring_says(name: str) -> None:
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    docstring = str(inspect.getdoc(HOOKS[name])).rstrip(".").replace("``", "`")
    assert docstring in " ".join(section.split())


def test_every_attribute_of_the_host_and_field_of_the_record_is_documented() -> None:
    host = {name for name in vars(Host) if not name.startswith("_")}
    record = set(TopupEvent.__dataclass_fields__)
    documented = {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", TEXT, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert host | record == documented


def test_every_hook_has_an_example() -> None:
    assert set().union(*(implemented(code) for code in EXAMPLES.values())) == set(HOOKS)


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


def test_the_packaging_example_builds_installs_and_is_listed(tmp_path: Path) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(toml)
    (project / "my_topup_plugin.py").write_text(EXAMPLES["my_listener_plugin"])
    fresh = Environment(tmp_path / "venv")
    fresh.install(build_wheel(tmp_path / "wheel"), project)
    status = json.loads(
        fresh.say(
            "import sys; from openwebui_billing_reconcile.cli import main; sys.exit(main(sys.argv[1:]))",
            arguments=("status", "--json", "--app-dir", str(HOST)),
        )
    )
    assert status["plugins"] == ["builtin", "my_topup_plugin"]
