"""``hooks.md``: it agrees with the live hooks, and every hook has an example."""

from __future__ import annotations

import inspect
import re

import pytest

from openwebui_billing_reconcile.hookspecs import Host, ListingGateway, TopupEvent
from tests.support.hooks_document import EXAMPLES, HOOKS, TEXT, implemented


def test_the_document_has_a_section_for_each_hook_and_no_other() -> None:
    sections = set(re.findall(r"^## (\w+)$", TEXT, re.MULTILINE))
    assert sections == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_documented_signature_is_the_live_one(name: str) -> None:
    section = TEXT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    signature = f"def {name}{inspect.signature(HOOKS[name])}".replace("'", "")
    assert f"```python\n{signature}\n```" in section


def test_the_documented_signature_of_the_optional_method_is_the_live_one() -> None:
    signature = f"def list_captured{inspect.signature(ListingGateway.list_captured)}".replace("'", "")
    assert f"```python\nasync {signature}\n```" in TEXT


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
