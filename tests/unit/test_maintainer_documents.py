"""The documents for contributors and maintainers: what they name is there, and what they draw is so."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "openwebui_billing_reconcile"
INSTALLED = {"node_modules", "build", "dist", ".venv", ".cache", ".pytest_cache"}
DOCUMENTS = sorted(
    str(path)
    for path in (file.relative_to(ROOT) for file in ROOT.rglob("*.md"))
    if not INSTALLED & {*path.parts}
)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
ISSUE_FORM = ROOT / ".github" / "ISSUE_TEMPLATE" / "problem.yml"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"

LAYERS = [
    layer.split(" | ")
    for layer in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
]
LEAF = {"settings", "hookspecs", "errors", "version"}
"""Modules that every room may import, left out of the picture."""

INPUTS = {"input", "textarea", "dropdown", "checkboxes"}
"""What a person fills in, in an issue form."""

CODE_BLOCK = r"^ *```.*?^ *```"
BLOCKS = re.MULTILINE | re.DOTALL


def without_code(text: str) -> str:
    return re.sub(CODE_BLOCK, "", text, flags=BLOCKS)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_code(document.read_text()), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        copies = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.add(f"{anchor}-{copies}" if copies else anchor)
    return found


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Each link of a document into the repository: the file, and the anchor in it or ""."""
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text())):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            yield (document.parent / path if path else document), anchor


def test_documents_with_links_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= {*DOCUMENTS}
    assert (ROOT / "docs" / "architecture.md", "how-it-gets-in-and-out") in links(ROOT / "SECURITY.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_leads_to_a_file_and_a_heading(document: str) -> None:
    targets = list(links(ROOT / document))
    assert [str(path) for path, _ in targets if not path.exists()] == []
    assert [f"{path}#{anchor}" for path, anchor in targets if anchor and anchor not in anchors(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_make_target_named_is_there(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    text = (ROOT / document).read_text()
    code = [*re.findall(CODE_BLOCK, text, BLOCKS), *re.findall(r"`(make [^`]+)`", without_code(text))]
    commands = re.findall(r"^ *make ((?:[a-z]+ ?)+)", "\n".join(code), re.MULTILINE)
    assert {target for words in commands for target in words.split()} - targets == set()


@pytest.mark.parametrize("text", [CONTRIBUTING, ARCHITECTURE], ids=["CONTRIBUTING.md", "architecture.md"])
def test_each_file_or_folder_named_is_there(text: str) -> None:
    named = {name for name in re.findall(r"`([^`\s]+)`", without_code(text)) if is_path(name)}
    assert len(named) > 20
    assert {name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())} == set()


def is_path(name: str) -> bool:
    """Whether a word in backticks is a file or a folder of this repository, not a URL's or the system's."""
    has_suffix = re.search(r"\w\.(py|md|toml|lock|json|yml|pth|ts|js)$", name)
    return not name.startswith("/") and ("/" in name or has_suffix is not None)


def test_the_house_is_the_one_that_the_linter_holds() -> None:
    table = CONTRIBUTING.split("| room | holds |\n|---|---|\n")[1].split("\n\n")[0]
    rooms = [re.findall(r"`([\w.]+?)(?:\.py|/)`", row.split("|")[1]) for row in table.splitlines()]
    assert rooms == LAYERS


def test_the_picture_of_the_house_shows_each_import_and_no_other() -> None:
    """An import is shown by its arrow, or by a longer way."""
    picture = ARCHITECTURE.split("flowchart TD\n")[1].split("```")[0]
    names = dict(re.findall(r"(\w+)\[(\w+)\]", picture))
    arrows = {
        (names.get(above, above), names.get(below, below))
        for above, below in re.findall(r"^ *(\w+)(?:\[\w+\])? --> (\w+)", picture, re.MULTILINE)
    }
    rooms = {room for layer in LAYERS for room in layer} - LEAF
    assert {room for arrow in arrows for room in arrow} == rooms
    imports = {
        (room, below) for room in rooms for below in imported_by(room) if below in rooms and below != room
    }
    assert arrows <= imports
    assert imports <= ways(arrows)


def imported_by(room: str) -> Iterator[str]:
    """The rooms and modules that a room imports, anywhere in its files."""
    for file in [*PACKAGE.glob(f"{room}.py"), *PACKAGE.glob(f"{room}/**/*.py")]:
        inside = [PACKAGE.name, *file.relative_to(PACKAGE).parts[:-1]]
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) + 1 - node.level] if node.level else []
                module = [*base, *(node.module or "").split(".")] if node.module else base
                if module[0] == PACKAGE.name:
                    yield from module[1:2] or (alias.name for alias in node.names)


def ways(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What arrows lead to, over any number of them."""
    found = arrows
    while longer := {(a, d) for a, b in found for c, d in arrows if b == c} - found:
        found = found | longer
    return found


def test_the_public_ci_runs_ours_on_ubuntu() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    (job,) = workflow["jobs"].values()
    assert job["runs-on"].startswith("ubuntu-")
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    assert (ROOT / ".ci" / "run").exists()
    assert workflow["permissions"] == {"contents": "read"}
    assert {"push", "pull_request"} == workflow[True].keys()  # YAML takes the word "on" for a truth


def test_the_issue_form_has_what_github_needs() -> None:
    form: dict[str, Any] = yaml.safe_load(ISSUE_FORM.read_text())
    assert form["name"]
    assert form["description"]
    assert {field["type"] for field in form["body"]} <= INPUTS | {"markdown"}
    inputs = [field for field in form["body"] if field["type"] in INPUTS]
    assert all(re.fullmatch(r"[\w-]+", field["id"]) and field["attributes"]["label"] for field in inputs)
    for attribute in ("id", "label"):
        values = [field["id"] if attribute == "id" else field["attributes"]["label"] for field in inputs]
        assert len({*values}) == len(values)


def test_the_issue_form_asks_for_status_and_says_what_to_remove() -> None:
    fields = {field.get("id"): field for field in yaml.safe_load(ISSUE_FORM.read_text())["body"]}
    assert "`openwebui-billing-reconcile status --json`" in fields["status"]["attributes"]["description"]
    assert fields["status"]["validations"]["required"] is True
    log = fields["log"]["attributes"]["description"]
    for secret in ("YOOKASSA_SECRET_KEY", "DATABASE_URL", "REDIS_URL", "Authorization", "email"):
        assert secret in log
