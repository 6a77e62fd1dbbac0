"""The list of requirements: looking at the loaded host and at its files says the same of each one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openwebui_billing_reconcile.host.loaded import LoadedHost
from openwebui_billing_reconcile.host.requirements import (
    BILLING_ROUTER,
    TABLES,
    check_requirements,
    has_ledger_key,
    missing_requirements,
)
from openwebui_billing_reconcile.host.source import SourceHost
from tests.unit.stub_host import LEDGER_KEY, LEDGERS_WITHOUT_KEY, StubHost, broken_requirements

BROKEN = list(broken_requirements())


def test_a_sound_host_meets_every_requirement(host: StubHost, tmp_path: Path) -> None:
    source = SourceHost(host.write(tmp_path))
    host.load()
    assert missing_requirements(LoadedHost()) == []
    assert list(check_requirements(source)) == list(check_requirements(LoadedHost()))
    assert has_ledger_key(source)
    assert has_ledger_key(LoadedHost())


def test_every_requirement_is_taken_away_by_one_case(host: StubHost) -> None:
    host.load()
    asked = {what for what, _ in check_requirements(LoadedHost())}
    assert asked <= {what for what, _ in BROKEN}


@pytest.mark.parametrize(("what", "take_away"), BROKEN, ids=[what for what, _ in BROKEN])
def test_both_ways_of_looking_miss_the_same(
    host: StubHost, tmp_path: Path, what: str, take_away: Callable[[StubHost], None]
) -> None:
    take_away(host)
    source = SourceHost(host.write(tmp_path))
    host.load()
    assert what in missing_requirements(source)
    assert list(check_requirements(source)) == list(check_requirements(LoadedHost()))


def test_both_ways_of_looking_see_a_host_without_billing(host: StubHost, tmp_path: Path) -> None:
    host.remove(BILLING_ROUTER)
    source = SourceHost(host.write(tmp_path))
    host.load()
    assert missing_requirements(source) == missing_requirements(LoadedHost()) == [BILLING_ROUTER]


@pytest.mark.parametrize("key", LEDGERS_WITHOUT_KEY.values(), ids=LEDGERS_WITHOUT_KEY)
def test_both_ways_of_looking_see_a_ledger_without_the_key(host: StubHost, tmp_path: Path, key: str) -> None:
    host.edit(TABLES, f"({LEDGER_KEY},)", f"({key},)" if key else "()")
    source = SourceHost(host.write(tmp_path))
    host.load()
    assert not has_ledger_key(source)
    assert not has_ledger_key(LoadedHost())
