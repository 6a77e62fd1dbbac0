"""The audit command in this process: what it reads, its exit codes, and no secret in any output."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture
from sqlalchemy import MetaData, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from openwebui_billing_reconcile import cli
from openwebui_billing_reconcile.errors import GatewayError, GatewayRejectedError
from openwebui_billing_reconcile.host.reader import LedgerReader
from openwebui_billing_reconcile.host.reflected import TABLE_NAMES
from openwebui_billing_reconcile.host.requirements import TABLES
from openwebui_billing_reconcile.operate import audit, captured, offline
from openwebui_billing_reconcile.provider.client import ProviderClient
from tests.unit.account import Account, payment, unpaid
from tests.unit.stub_host import StubHost

SECRETS = ("live_secret", "db-password")
SINCE, UNTIL = "2026-03-09", "2026-03-12"
NOON = 1773133200
DAYS = ("--since", SINCE, "--until", UNTIL)


@dataclass
class Output:
    """What the command printed, and its exit code."""

    code: int
    out: str
    err: str


class Shop:
    """A host's folder with its database, and its account at the provider."""

    def __init__(self, backend: Path, engine: Any, tables: dict[str, Any]) -> None:
        self.backend = backend
        self.file = backend / "data" / "webui.db"
        self._engine = engine
        self._tables = tables
        self.account = Account()
        self.made_with: list[tuple[str, ...]] = []

    def gateway(self, *arguments: str) -> Account:
        self.made_with.append(arguments)
        self.account.account_id = arguments[0]
        return self.account

    def write(self, model: str, **columns: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(self._tables[model].insert().values(**columns))

    def add_order(self, payment_id: str, **changes: Any) -> None:
        row = {
            "id": f"record of {payment_id}",
            "provider_payment_id": payment_id,
            "status": "pending",
            "kind": "topup",
            "user_id": "me",
            "wallet_id": "w1",
            "amount_kopeks": 100_000,
            "currency": "RUB",
            "created_at": NOON,
            "updated_at": NOON,
        }
        self.write("Payment", **row | changes)

    def add_credit(self, payment_id: str) -> None:
        self.add_order(payment_id, status="succeeded", raw_payload_json={"metadata": {}})
        self.write(
            "LedgerEntry",
            id=f"credit of {payment_id}",
            user_id="me",
            wallet_id="w1",
            currency="RUB",
            type="topup",
            amount_kopeks=100_000,
            reference_type="payment",
            reference_id=payment_id,
            metadata_json={"provider": "yookassa"},
            created_at=NOON,
        )


@pytest.fixture
def shop(host: StubHost, tmp_path: Path, mocker: MockerFixture) -> Shop:
    """Return a host's folder with one credit in its database, which is in order."""
    backend = tmp_path / "host" / "backend"
    (backend / "data").mkdir(parents=True)
    host.write(backend)
    host.load()
    metadata = MetaData()
    tables = {
        model: getattr(host.module(TABLES), model).__table__.to_metadata(metadata, name=name)
        for model, name in TABLE_NAMES.items()
    }
    host.unload()
    engine = create_engine(f"sqlite:///{backend}/data/webui.db", poolclass=NullPool)
    metadata.create_all(engine)
    shop = Shop(backend, engine, tables)
    shop.write("Wallet", id="w1", user_id="me", currency="RUB")
    shop.add_credit("sound")
    shop.account.add(payment("sound"))
    os.environ |= {"YOOKASSA_SHOP_ID": "100500", "YOOKASSA_SECRET_KEY": "live_secret"}
    for name in [name for name in os.environ if name.startswith("DATABASE_") or name == "DATA_DIR"]:
        del os.environ[name]
    mocker.patch.object(offline, "SdkGateway", shop.gateway)
    mocker.patch.object(audit, "QUERY_INTERVAL", 0.0)
    mocker.patch.object(captured, "PAGE_INTERVAL", 0.0)
    return shop


Run = Callable[..., Output]


@pytest.fixture
def run(shop: Shop, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command; the host is not imported, its database is not changed, and no secret is printed."""

    def run(*arguments: str) -> Output:
        before = shop.file.read_bytes() if shop.file.exists() else None
        code = cli.main(["audit", "--app-dir", str(shop.backend), *arguments])
        printed = capsys.readouterr()
        assert "open_webui" not in sys.modules
        assert before == (shop.file.read_bytes() if shop.file.exists() else None)
        assert not [secret for secret in SECRETS if secret in printed.out + printed.err]
        assert "Traceback" not in printed.err
        return Output(code, printed.out, printed.err)

    return run


def failed(output: Output) -> str:
    """Return why the audit could not be made."""
    assert (output.code, output.out) == (2, "")
    (line,) = [line for line in output.err.splitlines() if line.startswith("The audit could not be made: ")]
    return line.partition(": ")[2]


# --- What it says ----------------------------------------------------------------------------------------


def test_where_there_is_nothing_to_look_at_it_exits_with_0(run: Run, shop: Shop) -> None:
    output = run(*DAYS)
    assert (output.code, output.err) == (0, "")
    assert output.out.splitlines()[1].startswith("1 captured payments and 1 credits were compared")
    assert output.out.splitlines()[2] == "nothing to look at"
    assert shop.made_with == [("100500", "live_secret", "https://api.yookassa.ru/v3")]


def test_with_findings_it_exits_with_1(run: Run, shop: Shop) -> None:
    shop.add_order("lost")
    shop.add_credit("canceled")
    shop.account.add(payment("lost", "1.00"), unpaid("canceled", "canceled"))
    output = run(*DAYS)
    assert output.code == 1
    assert output.out.splitlines()[-2:] == [
        "credited_unpaid: canceled 1000.00 RUB user me",
        "held (amount_mismatch, releasable): lost 1.00 RUB user me captured 2026-03-10 12:00:00",
    ]


@pytest.mark.parametrize(("has_finding", "code"), [(False, 0), (True, 1)])
def test_json_and_csv_are_for_machines(run: Run, shop: Shop, has_finding: bool, code: int) -> None:
    if has_finding:
        shop.add_order("lost")
        shop.account.add(payment("lost"))
    as_json, as_csv = run(*DAYS, "--json"), run(*DAYS, "--csv")
    assert (as_json.code, as_csv.code) == (code, code)
    findings = json.loads(as_json.out)["findings"]
    assert [found["payment_id"] for found in findings] == ["lost"] * has_finding
    lines = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert [(line["class"], line["payment_id"]) for line in lines] == [("uncredited", "lost")] * has_finding


def test_the_days_are_those_asked_for(run: Run) -> None:
    answer = json.loads(run("--since", "2026-03-10", "--until", "2026-03-11", "--json").out)
    assert (answer["since"], answer["until"]) == ("2026-03-10", "2026-03-11")
    assert answer["checked"]["payments"] == 1
    answer = json.loads(run("--since", "2026-03-11", "--until", "2026-03-12", "--json").out)
    assert answer["checked"]["payments"] == 0


def test_progress_is_shown_on_a_terminal_only(run: Run, mocker: MockerFixture) -> None:
    mocker.patch.object(sys.stderr, "isatty", return_value=True)
    output = run(*DAYS)
    assert output.err == "\r1 payments, 0 credits checked\r1 payments, 1 credits checked\n"
    assert output.out == run(*DAYS).out


# --- What it reads ---------------------------------------------------------------------------------------


def test_the_hosts_own_file_says_what_the_environment_does_not(run: Run, shop: Shop) -> None:
    del os.environ["YOOKASSA_SHOP_ID"], os.environ["YOOKASSA_SECRET_KEY"]
    (shop.backend.parent / ".env").write_text(
        "YOOKASSA_SHOP_ID=100501\nYOOKASSA_SECRET_KEY=live_secret\nYOOKASSA_API_URL=http://here/v3\n"
        "DATABASE_URL=sqlite:///data/other.db\nBILLING_DEFAULT_CURRENCY=USD\n"
    )
    shop.file.rename(shop.file.with_name("other.db"))
    output = run(*DAYS)
    assert output.code == 0
    assert shop.made_with == [("100501", "live_secret", "http://here/v3")]


@pytest.mark.parametrize(("schema", "code"), [("", 0), ("main", 0), ("other", 2)])
def test_tables_are_those_of_the_hosts_schema(run: Run, schema: str, code: int) -> None:
    os.environ["DATABASE_SCHEMA"] = schema
    assert run(*DAYS).code == code


@pytest.mark.parametrize(
    ("setting", "is_test_shop", "kind"),
    [
        ("auto", False, "held"),
        ("auto", True, "uncredited"),
        ("true", False, "uncredited"),
        ("false", True, "held"),
    ],
)
def test_test_payments_are_judged_as_the_host_would(
    run: Run, shop: Shop, setting: str, is_test_shop: bool, kind: str
) -> None:
    os.environ["BILLING_TOPUP_RECONCILE_ACCEPT_TEST_PAYMENTS"] = setting
    shop.account.is_test_shop = is_test_shop
    shop.add_order("test")
    shop.account.add(payment("test", test=True))
    (found,) = json.loads(run(*DAYS, "--json").out)["findings"]
    assert found["class"] == kind


def test_a_payment_of_another_shop_is_held(run: Run, shop: Shop) -> None:
    shop.add_order("other")
    shop.account.add(payment("other", recipient={"account_id": "999"}))
    (found,) = json.loads(run(*DAYS, "--json").out)["findings"]
    assert found["reason"] == "other_shop"


# --- What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (("YOOKASSA_SHOP_ID",), "YOOKASSA_SHOP_ID must be set"),
        (("YOOKASSA_SECRET_KEY",), "YOOKASSA_SECRET_KEY must be set"),
        (("YOOKASSA_SHOP_ID", "YOOKASSA_SECRET_KEY"), "YOOKASSA_SHOP_ID and YOOKASSA_SECRET_KEY must be set"),
    ],
)
def test_without_the_shops_credentials_it_cannot_be_made(
    run: Run, missing: tuple[str, ...], words: str
) -> None:
    for name in missing:
        os.environ[name] = ""
    assert failed(run(*DAYS)) == f"{words}, in the environment or the host's .env"


@pytest.mark.parametrize("days", [("--since", "odd"), ("--until", "0001-01-03"), ("--since", UNTIL)])
def test_nor_of_bad_days(run: Run, shop: Shop, days: tuple[str, str]) -> None:
    assert "since" in failed(run(*days)) or days[0] == "--until"
    assert not shop.account.lists


def test_nor_without_the_database(run: Run, shop: Shop) -> None:
    shop.file.unlink()
    words = failed(run(*DAYS))
    assert words == (
        f"there is no database {shop.file}: run this in the host's backend folder, or use --app-dir"
    )
    assert not shop.file.exists()


def test_nor_without_a_table(run: Run, shop: Shop) -> None:
    shop._tables["LedgerEntry"].drop(shop._engine)
    assert failed(run(*DAYS)) == "the host's billing tables cannot be read: NoSuchTableError"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql+nodriver://user:db-password@host/db", "cannot be read: NoSuchModuleError"),
        ("postgresql+asyncpg://user:db-password@host/db", "the database's driver is missing: "),
        ("postgresql://user:db-password@host:none/db", "cannot be read: ArgumentError"),
        ("postgresql://user:db@db-password:5432@host/db", "cannot be read: ArgumentError"),
        ("postgresql://user:db-password@127.0.0.1:1/db", "cannot be read: OperationalError"),
        ("db-password", "cannot be read: ArgumentError"),
    ],
)
def test_nor_where_the_database_cannot_be_reached(run: Run, url: str, words: str) -> None:
    os.environ["DATABASE_URL"] = url
    assert words in failed(run(*DAYS))


@pytest.mark.parametrize("place", ["", "canceled"])
@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (GatewayError("live_secret"), "Payment provider is temporarily unavailable"),
        (GatewayRejectedError("live_secret"), "Payment provider rejected the payment request"),
        (ValueError("live_secret"), "Payment provider is temporarily unavailable"),
    ],
)
def test_nor_where_the_provider_does_not_answer(
    run: Run, shop: Shop, place: str, failure: Exception, words: str
) -> None:
    shop.add_credit("canceled")
    shop.account.errors[place] = failure
    assert failed(run(*DAYS)) == words


def test_nor_where_the_database_fails_on_the_way(run: Run, mocker: MockerFixture) -> None:
    error = OperationalError("db-password", {}, Exception("db-password"))
    mocker.patch.object(LedgerReader, "read_many", side_effect=error)
    assert failed(run(*DAYS)) == "Billing is temporarily unavailable"


def test_what_nobody_expected_is_no_finding(run: Run, mocker: MockerFixture) -> None:
    mocker.patch.object(LedgerReader, "read_many", side_effect=KeyError("db-password"))
    assert failed(run(*DAYS)) == "KeyError"


@pytest.mark.parametrize("arguments", [["--json", "--csv"], ["--days", "7"], ["now"]])
def test_what_it_does_not_understand_is_no_finding(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run(*arguments)
    assert raised.value.code == 2


def test_its_deadline_is_the_hosts(run: Run, mocker: MockerFixture) -> None:
    os.environ["BILLING_TOPUP_RECONCILE_DEADLINE_SECONDS"] = "3"
    client = mocker.patch.object(offline, "ProviderClient", wraps=ProviderClient)
    run(*DAYS)
    client.assert_called_once_with(3.0)
