"""``status`` in this process: in words, and where no server answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from openwebui_billing_reconcile import cli
from tests.support.variants import Variant


@pytest.fixture
def host(tmp_path: Path) -> Variant:
    return Variant(tmp_path)


def test_a_sound_host_is_described_in_words(
    host: Variant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host.folder)
    assert cli.main(["status"]) == 0
    words = capsys.readouterr().out
    assert f"{host.folder}/open_webui, version unknown" in words
    assert "armed in this interpreter" in words
    assert "flag             ENABLE_BILLING_TOPUP_RECONCILE=true (default)" in words
    assert "missing" not in words
    assert "next start       attaches" in words


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "not a url"])
def test_a_server_that_does_not_answer_is_said_not_to(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--url", url]) == 1
    assert "does not answer" in capsys.readouterr().out
