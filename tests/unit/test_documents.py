"""What README, changelog and Makefile say is so."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from openwebui_billing_reconcile import settings
from openwebui_billing_reconcile.money.rules import HoldReason
from openwebui_billing_reconcile.version import DISTRIBUTION

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "openwebui_billing_reconcile"
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == PROJECT["version"] == version("openwebui-billing-reconcile")


def test_each_flag_stands_in_the_readme_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]*)`? \|", README, re.MULTILINE))
    assert {flag.name: flag.shown_default or "empty" for flag in settings.FLAGS} == {
        name: default.strip() for name, default in table.items() if "RECONCILE" in name
    }


def test_each_make_target_the_documents_name_is_there() -> None:
    named = set(re.findall(r"\bmake ([a-z]+(?: [a-z]+)*)(?=[`\s])", README))
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    code = {word for words in named for word in words.split()}
    assert {"demo", "test", "dist"} <= code & targets


@pytest.mark.parametrize("document", ["README.md", "hooks.md", "CHANGELOG.md", "frontend-patch/README.md"])
def test_each_link_to_a_file_leads_somewhere(document: str) -> None:
    place = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)\)", place.read_text())
    assert all((place.parent / link).exists() for link in links)


def test_each_conclusion_of_status_stands_in_the_troubleshooting() -> None:
    section = README.split("## Troubleshooting")[1].split("\n## ")[0]
    code = (PACKAGE / "attachment" / "status.py").read_text().split("def _predict")[1].split("\ndef ")[0]
    conclusions = re.findall(r'return [^,\n]+, f"([^"{]*)', code)
    said = [" ".join(words.split()[:3]).replace("`", "") for words in conclusions if words.strip()]
    assert len(said) >= 5
    assert [words for words in said if words not in section] == []


def test_each_reason_code_stands_in_the_readme() -> None:
    assert [reason for reason in HoldReason if f"`{reason.value}`" not in README] == []


def test_status_calls_the_distribution_by_its_name() -> None:
    assert PROJECT["name"] == DISTRIBUTION


def test_nothing_forces_a_host_to_move_a_pin() -> None:
    """Lower bounds only: no requirement names a newest version."""
    needs = PROJECT["dependencies"]
    assert [need for need in needs if re.search(r"[<=~!]=?(?<!>=)", need.replace(">=", ""))] == []
