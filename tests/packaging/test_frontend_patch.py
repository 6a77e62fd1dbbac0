"""The TypeScript: its own tests, what is built from it, and the texts to translate."""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import os
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openwebui_billing_reconcile import errors
from openwebui_billing_reconcile.money.release import UNCREDITED
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.web import console
from openwebui_billing_reconcile.web import loader_script as frontend
from tests.packaging.sharing import locked

ROOT = Path(__file__).parents[2]
PATCH = ROOT / "frontend-patch"
SHIPPED = Path(frontend.__file__).parent / frontend.SCRIPT
CONSOLE = Path(console.__file__).parent / console.PAGE
# Where these take the text from a name, it has been said elsewhere.
PASSED_ON = {"wire.detail", "errors.message", "settle.reason.message", "release.reason.message"}

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and not os.environ.get("CI"), reason="needs Node.js with npm"
)


def npm(*arguments: str) -> None:
    done = subprocess.run(
        ["npm", *arguments], cwd=PATCH, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"npm {arguments}\n{done.stdout}\n{done.stderr}"


def newer(file: Path, than: Path) -> bool:
    return file.stat().st_mtime > than.stat().st_mtime


@pytest.fixture(scope="module")
def tools() -> None:
    with locked(PATCH / ".npm.lock"):  # another test process may be installing them
        installed = PATCH / "node_modules" / ".package-lock.json"
        if not installed.exists() or newer(PATCH / "package-lock.json", installed):
            npm("ci")


@needs_npm
@pytest.mark.usefixtures("tools")
def test_it_passes_its_own_tests() -> None:
    npm("test")


@needs_npm
@pytest.mark.usefixtures("tools")
def test_the_shipped_script_is_the_build_of_its_source(tmp_path: Path) -> None:
    npm("run", "build", "--", str(tmp_path / "built.js"))
    assert (tmp_path / "built.js").read_text() == SHIPPED.read_text(), "npm run build in frontend-patch/"


@needs_npm
@pytest.mark.usefixtures("tools")
def test_the_shipped_console_is_the_build_of_its_source(tmp_path: Path) -> None:
    npm("run", "build:console", "--", str(tmp_path / "built.html"))
    assert (tmp_path / "built.html").read_text() == CONSOLE.read_text(), (
        "npm run build:console in frontend-patch/"
    )


def test_the_shipped_console_is_small_and_names_the_licence_of_what_it_contains() -> None:
    page = CONSOLE.read_bytes()
    assert len(gzip.compress(page, mtime=0)) <= 60_000
    assert b"Copyright (c) 2015-present Jason Miller" in page  # Preact


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_console_explains_each_reason(language: str) -> None:
    texts = json.loads((PATCH / "console" / f"{language}.json").read_text())
    explained = {name.removeprefix("reason.") for name in texts if name.startswith("reason.")}
    assert explained == {f"{reason}{part}" for reason in (UNCREDITED, *HoldReason) for part in ("", ".look")}


def test_the_shipped_script_is_small_plain_and_to_be_read() -> None:
    script = SHIPPED.read_bytes()
    assert len(gzip.compress(script, mtime=0)) <= 3700
    assert script.isascii()  # it is joined to a file of any encoding
    assert max(len(line) for line in script.decode().splitlines()) <= 120


def test_the_snippet_is_small_and_needs_nothing() -> None:
    lines = (PATCH / "reconcile-topup.ts").read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith(("//", "/**"))]
    assert len(code) <= 180
    assert not [line for line in lines if line.startswith("import")]


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((PATCH / "package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_every_detail_has_a_translation() -> None:
    table = json.loads((PATCH / "details.ru.json").read_text())
    details = {*said_by_the_modules(), *(reason.message for reason in HoldReason)}
    assert sorted(table) == sorted(details)
    assert list(table) == sorted(table)
    assert all("CYRILLIC" in "".join(map(unicodedata.name, text)) for text in table.values())


def said_by_the_modules() -> Iterator[str]:
    """The texts of all errors that reach a caller, wherever they are made."""
    package = Path(errors.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            text = text_argument(node, path.stem) if isinstance(node, ast.Call) else None
            if text is not None and f"{path.stem}.{ast.unparse(text)}" not in PASSED_ON:
                name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
                module = importlib.import_module(name)
                yield evaluated(text, vars(module))


def text_argument(call: ast.Call, module: str) -> ast.expr | None:
    called = ast.unparse(call.func)
    if called == "HTTPException" and len(call.args) > 1:
        return call.args[1]
    kind = getattr(errors, called, None)
    is_error = isinstance(kind, type) and issubclass(kind, errors.ReconcileError)
    is_own_text = called == "super().__init__" and module == "errors"
    return call.args[0] if call.args and (is_error or is_own_text) else None


def evaluated(text: ast.expr, names: dict[str, Any]) -> str:
    """What a constant text is, once put together."""
    said = eval(compile(ast.Expression(text), "<text>", "eval"), names)
    assert isinstance(said, str), ast.unparse(text)
    return said
