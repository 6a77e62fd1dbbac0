"""``status`` in this process: what it says of a host's files, and that an attach does what it foretold."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import urllib.error
from collections.abc import Callable
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from openwebui_billing_reconcile import attach, cli
from openwebui_billing_reconcile.attachment.own_reconcile import METHOD
from openwebui_billing_reconcile.attachment.status import Status, ask_server, read_status
from openwebui_billing_reconcile.host.requirements import BILLING, BILLING_ROUTER, TABLES, WALLET
from tests.unit.conftest import InstallPlugin
from tests.unit.stub_host import (
    LEDGER_KEY,
    LEDGERS_WITHOUT_KEY,
    OUR_PLUGINS,
    SERVICE,
    WALLET_LEDGER_KEY,
    StubHost,
    broken_requirements,
)

SWITCH = "ENABLE_BILLING_TOPUP_RECONCILE"
RATE = "BILLING_TOPUP_RECONCILE_RATE_LIMIT"
OWN_ENDPOINT = '\n\n@router.post("/topup/reconcile")\ndef theirs(): ...\n'


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    """The folder in which a server would be started."""
    folder = tmp_path / "host" / "backend"
    folder.mkdir(parents=True)
    return folder


def status_of(backend: Path, **environ: str) -> Status:
    """What ``status`` says where the start-up hook is installed."""
    status = read_status(backend, environ, is_installed=True)
    assert "open_webui" not in sys.modules
    return status


def test_a_sound_host_is_described_in_words(
    host: StubHost, backend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write(backend)
    (backend.parent / ".env").write_text(
        "ENABLE_BILLING_WALLET=true\nYOOKASSA_SHOP_ID=100500\nYOOKASSA_SECRET_KEY=live_x\n"
    )
    with contextlib.chdir(backend):
        assert cli.main(["status"]) == 0
    words = capsys.readouterr().out
    assert f"{backend}/open_webui, version unknown" in words
    assert "installed in this interpreter" in words
    assert f"flag             {SWITCH}=true (default)" in words
    assert "missing" not in words
    assert "next start       attaches" in words
    assert "cannot credit" not in words
    assert "live_x" not in words


def test_a_file_of_settings_that_cannot_be_read_is_said(
    host: StubHost, backend: Path, mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write(backend)
    file = backend.parent / ".env"
    file.write_text("YOOKASSA_SHOP_ID=100500\n")
    mocker.patch.dict(sys.modules, {"dotenv": None})
    assert cli.main(["status", "--app-dir", str(backend)]) == cli.CANNOT_CREDIT
    assert f"problem          {file} is not read: python-dotenv is" in capsys.readouterr().out
    assert cli.main(["audit", "--app-dir", str(backend)]) == cli.FAILED
    assert f"the host's .env; {file} is not read" in capsys.readouterr().err


CREDITS = {
    "ENABLE_BILLING_WALLET": "True",
    "YOOKASSA_SHOP_ID": "100500",
    "YOOKASSA_SECRET_KEY": "live_x",
}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENABLE_BILLING_WALLET", "false", "the endpoints answer 404"),
        ("ENABLE_BILLING_WALLET", "1", "the endpoints answer 404"),  # the host reads "true" only
        ("YOOKASSA_SHOP_ID", "", "YOOKASSA_SHOP_ID is not set: the endpoints answer 503"),
        ("YOOKASSA_SECRET_KEY", "", "YOOKASSA_SECRET_KEY is not set: the endpoints answer 503"),
        ("BILLING_TOPUP_RECONCILE_MODE", "observe", "nothing is written"),
    ],
)
def test_what_attaches_and_cannot_credit_is_told_apart(
    host: StubHost,
    backend: Path,
    mocker: MockerFixture,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    words: str,
) -> None:
    host.write(backend)
    mocker.patch.dict(os.environ, CREDITS)
    assert cli.main(["status", "--app-dir", str(backend)]) == 0
    os.environ[name] = value
    capsys.readouterr()
    assert cli.main(["status", "--app-dir", str(backend)]) == cli.CANNOT_CREDIT
    told = capsys.readouterr().out
    assert "next start       attaches" in told
    assert f"cannot credit    {name} is" in told
    assert words in told
    assert cli.main(["status", "--json", "--app-dir", str(backend)]) == cli.CANNOT_CREDIT
    prediction = json.loads(capsys.readouterr().out)["prediction"]
    assert (prediction["attaches"], prediction["credits"], len(prediction["obstacles"])) == (True, False, 1)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == metadata.version("openwebui-billing-reconcile")


def test_a_host_that_is_left_alone_is_described_in_words(
    host: StubHost, backend: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.remove(WALLET)
    host.write(backend)
    assert cli.main(["status", "--app-dir", str(backend)]) == 1
    words = capsys.readouterr().out
    assert f"missing          {WALLET}" in words
    assert "next start       does not attach" in words
    assert f"because          the host lacks {WALLET}" in words


def give_wallet_key(host: StubHost) -> None:
    """Let the ledger's key hold the wallet, of which a user has one in each currency."""
    host.edit(TABLES, LEDGER_KEY, WALLET_LEDGER_KEY)
    name = '__tablename__ = "wallet"'
    host.edit(TABLES, name, f'{name}\n    __table_args__ = (UniqueConstraint("user_id", "currency"),)')


def let_payments_be_recorded_twice(host: StubHost) -> None:
    give_wallet_key(host)
    column = "provider_payment_id: Mapped[str]"
    host.edit(TABLES, f"{column} = mapped_column(unique=True)", column)


def let_users_have_two_wallets(host: StubHost) -> None:
    host.edit(TABLES, LEDGER_KEY, WALLET_LEDGER_KEY)


VARIATIONS: list[tuple[str, Callable[[StubHost], None]]] = [
    ("attached", lambda _: None),
    ("no billing", lambda host: host.remove(BILLING_ROUTER)),
    ("own method", lambda host: host.edit(BILLING, SERVICE, f"{SERVICE}\n    def {METHOD}(self): ...\n")),
    ("own endpoint", lambda host: host.append(BILLING_ROUTER, OWN_ENDPOINT)),
    ("no key", lambda host: host.edit(TABLES, LEDGER_KEY, LEDGERS_WITHOUT_KEY["a key for each user"])),
    ("a key for each wallet", give_wallet_key),
    ("a key for each wallet and payments recorded twice", let_payments_be_recorded_twice),
    ("a key for each wallet and two wallets of a user", let_users_have_two_wallets),
    *broken_requirements(),
]


@pytest.mark.parametrize(("what", "change"), VARIATIONS, ids=[what for what, _ in VARIATIONS])
def test_an_attach_does_what_is_foretold(
    host: StubHost, backend: Path, what: str, change: Callable[[StubHost], None]
) -> None:
    change(host)
    host.write(backend)
    foretold = status_of(backend)
    host.load()
    assert foretold.prediction.state == attach().state
    attached = {"attached", "own method", "own endpoint", "a key for each wallet"}
    assert foretold.prediction.attaches is (what in attached)


@pytest.mark.parametrize("switch", ["off", "0", "ture", "on", ""])
def test_an_attach_reads_the_switch_as_foretold(host: StubHost, backend: Path, switch: str) -> None:
    host.write(backend)
    foretold = status_of(backend, **{SWITCH: switch})
    os.environ[SWITCH] = switch
    host.load()
    assert foretold.prediction.state == attach().state


def test_each_flag_is_told_with_its_origin(host: StubHost, backend: Path) -> None:
    host.write(backend)
    file = backend.parent / ".env"
    file.write_text(f"{SWITCH}=off\n{RATE}=5/minute\nBILLING_TOPUP_RECONCILE_DEADLINE_SECONDS=x\n")
    status = status_of(backend, **{SWITCH: "on"})
    flags = {flag.name: (flag.value, flag.origin) for flag in status.flags}
    assert flags[SWITCH] == ("on", "environment")
    assert flags[RATE] == ("5/minute", str(file))
    assert flags["BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS"] == ("auto", "default")
    assert "BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS has a value" in status.problems[0]
    assert status.prediction.attaches
    assert status_of(backend).prediction.state == "off"


@pytest.mark.parametrize(
    ("text", "version"), [('{"version": "0.6.41"}', "0.6.41"), ("{}", None), ("no JSON", None), ("5", None)]
)
def test_the_hosts_version_is_read_where_the_host_reads_it(
    host: StubHost, backend: Path, text: str, version: str | None
) -> None:
    host.write(backend)
    (backend.parent / "package.json").write_text(text)
    assert status_of(backend).host_version == version


def test_without_a_host_it_says_where_to_go(backend: Path) -> None:
    status = status_of(backend)
    assert (status.prediction.state, status.host, status.prediction.attaches) == ("no_host", None, False)
    assert "--app-dir" in status.prediction.why


def test_app_dir_is_where_the_server_would_look(host: StubHost, backend: Path, tmp_path: Path) -> None:
    host.write(tmp_path / "here")
    package = host.write(backend)
    with contextlib.chdir(tmp_path / "here"):
        assert status_of(backend).host == str(package)


def test_every_needed_name_is_listed(host: StubHost, backend: Path) -> None:
    host.write(backend)
    status = status_of(backend)
    assert "open_webui.utils.billing.BillingService._process_topup_webhook" in status.present
    assert "open_webui.models.billing.LedgerEntry.reference_id" in status.present
    assert status.missing == []


def test_where_the_hook_is_not_installed_it_says_so(host: StubHost, backend: Path) -> None:
    host.write(backend)
    status = read_status(backend, {}, is_installed=False)
    assert (status.prediction.state, status.hook_installed) == ("hook_not_installed", False)
    assert "the start-up hook is not installed" in status.prediction.why


def test_plugins_are_told_apart(host: StubHost, backend: Path, install_plugin: InstallPlugin) -> None:
    sound = "from openwebui_billing_reconcile import hookimpl\n@hookimpl\ndef topup_outcome(event): ...\n"
    install_plugin("sound", sound)
    install_plugin("unwanted", sound)
    install_plugin("broken", "raise OSError('no disk')")
    install_plugin("eager", "import open_webui.env")
    host.write(backend)
    status = status_of(backend, BILLING_TOPUP_RECONCILE_BLOCKED_PLUGINS="unwanted")
    assert status.plugins == [*OUR_PLUGINS, "sound"]
    assert status.blocked == ["unwanted"]
    assert status.broken["broken"] == "OSError: no disk"
    assert "without starting the host" in status.broken["eager"]
    assert status.prediction.attaches


def test_two_installed_versions_are_named_the_one_that_counts_first(
    host: StubHost, backend: Path, tmp_path: Path, mocker: MockerFixture
) -> None:
    old = tmp_path / "old"
    info = old / "openwebui_billing_reconcile-0.0.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: openwebui-billing-reconcile\nVersion: 0.0.9\n"
    )
    mocker.patch.object(sys, "path", [str(old), *sys.path])
    host.write(backend)
    installed = status_of(backend).installed
    assert len(installed) == 2
    assert installed[0] == f"0.0.9 in {old}"


def test_what_an_uninstallation_left_behind_is_not_installed(
    host: StubHost, backend: Path, tmp_path: Path, mocker: MockerFixture
) -> None:
    (tmp_path / "left" / "openwebui_billing_reconcile-0.0.9.dist-info").mkdir(parents=True)
    mocker.patch.object(sys, "path", [str(tmp_path / "left"), *sys.path])
    host.write(backend)
    [installed] = status_of(backend).installed
    assert not installed.endswith(f"in {tmp_path / 'left'}")


@pytest.mark.parametrize("body", [b"<!doctype html>", b"[]", b'{"version": "1"}'])
def test_an_answer_that_is_no_report_is_not_taken_for_one(mocker: MockerFixture, body: bytes) -> None:
    answered = mocker.MagicMock(status=200)
    answered.read.return_value = body
    refused = urllib.error.HTTPError("", 401, "", Message(), io.BytesIO())
    opened = mocker.MagicMock()
    opened.__enter__.return_value = answered
    mocker.patch("urllib.request.urlopen", side_effect=[refused, opened])
    answer = ask_server("http://host.test", "token")
    assert (answer.attached, answer.report) == (False, None)
    assert "answers, but with no report" in answer.words


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "not a url"])
def test_a_server_that_does_not_answer_is_said_not_to(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--url", url]) == 1
    assert "does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (401, 0, "is there: without a token it answers 401"),
        (404, 1, "is not there: it answers 404"),
        (200, 1, "is not there: it answers 200"),
    ],
)
def test_a_server_is_judged_by_its_answer(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str], answer: int, code: int, words: str
) -> None:
    url = "http://host.test/api/v1/billing/topup/reconcile/report"
    urlopen = mocker.patch("urllib.request.urlopen")
    urlopen.return_value.__enter__.return_value.status = answer
    if answer >= 400:
        urlopen.side_effect = urllib.error.HTTPError(url, answer, "", Message(), io.BytesIO())
    assert cli.main(["status", "--url", "http://host.test/"]) == code
    assert capsys.readouterr().out == f"{url} {words}\n"
    assert cli.main(["status", "--json", "--url", "http://host.test"]) == code
    assert json.loads(capsys.readouterr().out)["attached"] is (code == 0)
    assert {call.args[0].full_url for call in urlopen.call_args_list} == {url}
    assert cli.main(["status", "--url", "http://host.test", "--token", "no administrator's"]) == 1
