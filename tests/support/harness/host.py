"""A host in processes of its own, and its users."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx

from tests.support.local_http import ONE_REQUEST_EACH, answers, local_client
from tests.support.yookassa.client import Simulator
from tests.support.yookassa.process import ServerProcess

from .books import Books
from .ports import free_port
from .waiting import wait_until

REFERENCE_FOLDER = Path(__file__).parents[1] / "host"
APP = "open_webui.main:app"
START_SECONDS = 120.0
LOG_TAIL = 4000  # characters
_MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 1 << 30  # bytes
PASSWORD = "Passw0rd!Aa1"
RETURN_URL = "https://shop.example/billing/balance?topup_return=1"
PACKAGE = 100_000
RECONCILE = "/api/v1/billing/topup/reconcile"

# What this machine's environment says about hosts is not meant for ours.
_HOST_VARIABLES = (
    "BILLING_",
    "ENABLE_BILLING_",
    "YOOKASSA_",
    "DATABASE_",
    "REDIS_",
    "UVICORN_",
    "WEB_CONCURRENCY",
)
# Settings of real hosts that keep a start light; the reference host does not know them.
_LIGHT = {
    "OFFLINE_MODE": "true",
    "RAG_EMBEDDING_ENGINE": "openai",
    "AUDIO_STT_ENGINE": "openai",
    "ENABLE_OLLAMA_API": "false",
    "ENABLE_OPENAI_API": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
}


@dataclass(frozen=True)
class Program:
    """Which host, by its backend folder, and the Python that runs it.

    ``shape`` is the real host, older or newer, that the reference host is like; others have only their own.
    ``is_fresh``: each of its processes is an interpreter that is started for it.
    """

    folder: Path = REFERENCE_FOLDER
    python: str = sys.executable
    shape: Literal["p", "n"] = "p"
    is_fresh: bool = False

    @property
    def is_reference(self) -> bool:
        """Whether it is the reference host."""
        return self.folder == REFERENCE_FOLDER

    @property
    def is_forked(self) -> bool:
        """Whether its processes may be forked from one of ours, which has the libraries."""
        return self.python == sys.executable and not self.is_fresh

    def environment(
        self,
        data_dir: Path,
        database_url: str,
        simulator: Simulator | None,
        extra: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The surroundings of a host process: billing on, and the simulator for a provider."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_HOST_VARIABLES)}
        own = {
            "ENV": "dev",  # with it real hosts serve /openapi.json
            "WEBUI_SECRET_KEY": "test-secret-key-0123456789abcdef0123456789",
            "DATA_DIR": str(data_dir),
            "STATIC_DIR": str(data_dir / "static"),
            "DATABASE_URL": database_url,
            "ENABLE_BILLING_WALLET": "true",
            "BILLING_TOPUP_PACKAGES_KOPEKS": "100000,150000,500000,1000000",
            # A test says what is asked and when; those of the sweep turn it on.
            "ENABLE_BILLING_TOPUP_RECONCILE_SWEEP": "false",
            # Newer hosts have a reconcile of their own. It is ours that is under test.
            "BILLING_TOPUP_RECONCILE_TAKE_OVER": "true",
            "REFERENCE_HOST_SHAPE": self.shape,
        }
        return {**inherited, **_LIGHT, **own, **(_shop(simulator) if simulator else {}), **(extra or {})}


def _shop(simulator: Simulator) -> dict[str, str]:
    return {
        "YOOKASSA_SHOP_ID": simulator.shop_id,
        "YOOKASSA_SECRET_KEY": simulator.secret_key,
        "YOOKASSA_API_URL": simulator.api_url,
    }


class Host:
    """A running host. Every request has a connection of its own, so that any worker may get it."""

    def __init__(
        self,
        base_url: str,
        server: ServerProcess,
        *,
        program: Program,
        environment: Mapping[str, str],
        workers: int = 1,
        simulator: Simulator | None = None,
    ) -> None:
        self.base_url = base_url
        self.server = server
        self.program = program
        self.environment = environment
        self.workers = workers
        self.books = Books(environment["DATABASE_URL"])
        self._simulator = simulator
        self.http = local_client(base_url=base_url, timeout=30, limits=ONE_REQUEST_EACH)

    @property
    def simulator(self) -> Simulator:
        """The host's provider."""
        assert self._simulator is not None, "this host was started without a provider"
        return self._simulator

    @property
    def attempts(self) -> int:
        """How often the host's client asks the provider before it gives up: newer hosts' clients thrice."""
        return 3 if self.books.has_claims else 1

    @property
    def log(self) -> str:
        """All that its processes have written so far."""
        return self.server.output

    def close(self) -> None:
        """Close our connections; the host goes on."""
        self.http.close()
        self.books.close()

    @cached_property
    def admin(self) -> User:
        """The administrator: the first account; on a database that has one already, the same again."""
        email = "admin@example.com"
        consents = {"terms_accepted": True, "privacy_accepted": True}
        signed_up = self._session(
            "signup", {"name": "Admin", "email": email, "password": PASSWORD} | consents
        )
        if signed_up.is_success:
            return self._user(signed_up)
        return self._user(self._session("signin", {"email": email, "password": PASSWORD}))

    def new_user(self, role: str = "user") -> User:
        """Return a new user; the role "pending" is not verified yet."""
        body = {"name": "Somebody", "email": f"{uuid4()}@example.com", "password": PASSWORD, "role": role}
        return self._user(self._session("add", body, self.admin.headers))

    def webhook(self, payment_id: str, event: str = "payment.succeeded") -> int | None:
        """A notification from the provider, now; the host's status."""
        self.simulator.webhooks(url=f"{self.base_url}/api/v1/billing/webhook/yookassa")
        return self.simulator.deliver(payment_id, event)

    def _session(
        self, action: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        answer = self.http.post(f"/api/v1/auths/{action}", json=body, headers=headers)
        self.http.cookies.clear()  # the token travels in the header only
        return answer

    def _user(self, session: httpx.Response) -> User:
        account = session.raise_for_status().json()
        return User(self, account["id"], account["email"], account["token"])


@dataclass(frozen=True)
class User:
    """A user with an account at a host."""

    host: Host = field(repr=False)
    id: str
    email: str
    token: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What a signed-in request carries."""
        return {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str) -> httpx.Response:
        """Read something of the billing API."""
        return self.host.http.get(f"/api/v1/billing{path}", headers=self.headers)

    def balance(self) -> int:
        """What is in the wallet, in kopeks; the host makes the wallet if there is none."""
        wallet = self.get("/balance").raise_for_status().json()
        return int(wallet["balance_topup_kopeks"]) + int(wallet["balance_included_kopeks"])

    def topup(self, kopeks: int = PACKAGE, *, apart: bool = True) -> str:
        """Begin to pay; the payment's id. The host knows a few fixed amounts only.

        ``apart``: the next one of that amount is another payment, on newer hosts too.
        """
        body = {"amount_kopeks": kopeks, "return_url": RETURN_URL}
        answer = self.host.http.post("/api/v1/billing/topup", json=body, headers=self.headers)
        payment_id = str(answer.raise_for_status().json()["payment_id"])
        if apart:
            self.host.books.keep_apart(payment_id)
        return payment_id

    def reconcile(self, payment_id: object, *, timeout: float = 30) -> httpx.Response:
        """What the plugin is for."""
        return self.host.http.post(
            RECONCILE, json={"payment_id": payment_id}, headers=self.headers, timeout=timeout
        )

    def reconcile_pending(self) -> httpx.Response:
        """Ask about all open top-ups of this user."""
        return self.host.http.post(f"{RECONCILE}/pending", headers=self.headers, timeout=30)

    def audit(self, accept: str = "application/json", **days: str) -> httpx.Response:
        """Compare the provider's list with the host's tables; for administrators."""
        headers = {**self.headers, "Accept": accept}
        return self.host.http.get(f"{RECONCILE}/audit", params=days, headers=headers)

    def release(self, payment_id: str, reason: str, **body: object) -> httpx.Response:
        """Release a held payment; for administrators."""
        order = {"payment_id": payment_id, "reason": reason, "note": "They called us.", "confirm": True}
        return self.host.http.post(f"{RECONCILE}/release", json=order | body, headers=self.headers)

    def report(self, days: object = 30) -> httpx.Response:
        """How many credits came which way; for administrators."""
        return self.host.http.get(f"{RECONCILE}/report", params={"days": str(days)}, headers=self.headers)

    def reconcile_raw(
        self, content: bytes | Iterator[bytes], content_type: str = "application/json"
    ) -> httpx.Response:
        """The same with any bytes for a body."""
        headers = {**self.headers, "Content-Type": content_type}
        return self.host.http.post(RECONCILE, content=content, headers=headers)


@contextmanager
def running_host(
    program: Program | None = None,
    *,
    simulator: Simulator | None = None,
    database_url: str | None = None,
    data_dir: Path | None = None,
    workers: int = 1,
    env: Mapping[str, str] | None = None,
    app: str = APP,
    options: Sequence[str] = (),
) -> Iterator[Host]:
    """Start a host, hand it out once it is healthy, stop it.

    Without a database of its own it has a SQLite file in its data folder; without a data folder, a
    temporary one, in memory if there is enough. Without a simulator it has no provider.
    """
    with ExitStack() as stack:
        folder = data_dir or stack.enter_context(_temporary_folder())
        (folder / "static").mkdir(exist_ok=True)  # real hosts want it to be there
        program = program or Program()
        environment = program.environment(
            folder, database_url or f"sqlite:///{folder}/webui.db", simulator, env
        )
        command = [program.python, "-m", "uvicorn", app, *options]
        if workers > 1:
            if not program.is_reference:
                # Two workers that migrate a database at once kill each other on real hosts.
                with _serving(command, environment, program):
                    pass
            command += ["--workers", str(workers)]
        url, server = stack.enter_context(_serving(command, environment, program))
        host = Host(
            url,
            server,
            program=program,
            environment=environment,
            workers=workers,
            simulator=simulator,
        )
        stack.callback(host.close)
        yield host


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    # On a disk each commit of SQLite waits for it, and tests make tens of thousands.
    has_memory = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_MEMORY
    with tempfile.TemporaryDirectory(prefix="host-", dir=_MEMORY if has_memory else None) as folder:
        yield Path(folder)


@contextmanager
def _serving(
    command: Sequence[str], environment: Mapping[str, str], program: Program
) -> Iterator[tuple[str, ServerProcess]]:
    # Real hosts take the server's own words away, so it cannot be left to choose a port and say it.
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = ServerProcess(
        [*command, "--port", str(port)],
        env=environment,
        cwd=program.folder,
        is_forked=program.is_forked,
    )
    try:
        wait_until(
            lambda: server.returncode is not None or answers(f"{url}/health"),
            START_SECONDS,
            f"{url} is not healthy",
        )
        yield url, server
    except BaseException as error:
        error.add_note(f"The host's log ends with:\n{server.output[-LOG_TAIL:]}")
        raise
    finally:
        died = server.returncode
        server.stop()
    if died is not None:
        raise RuntimeError(f"The host died (exit status {died}):\n{server.output[-LOG_TAIL:]}")
