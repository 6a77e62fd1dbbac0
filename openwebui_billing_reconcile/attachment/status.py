"""What the next start of the host would do, found out without importing the host."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from openwebui_billing_reconcile import settings
from openwebui_billing_reconcile.host.environment import SECRET_KEY, SHOP_ID, HostEnvironment
from openwebui_billing_reconcile.host.requirements import (
    BILLING,
    BILLING_ROUTER,
    LEDGER_KEY,
    SERVICE,
    check_requirements,
    has_ledger_key,
)
from openwebui_billing_reconcile.host.source import PACKAGE, SourceHost, find_package
from openwebui_billing_reconcile.version import DISTRIBUTION, version
from openwebui_billing_reconcile.web.wire import PATH

from .attach import ATTACHED_STATES, State
from .own_reconcile import METHOD, WOULD_GAIN
from .plugins import Plugins

PREFIX = "/api/v1/billing"
REPORTED_FACTS: Final = frozenset({"version", "mode", "plugins", "last_pass"})
"""What a report says of the running server."""

WALLET_SWITCH: Final = "ENABLE_BILLING_WALLET"
_PTH = "openwebui_billing_reconcile_autoload.pth"


@dataclass(frozen=True, slots=True)
class FlagReading:
    """A flag as the host will read it. ``origin``: environment, the .env file's path, or default."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the next start will do, and why; ``obstacles`` keep it from crediting though it attaches."""

    state: str
    attaches: bool
    credits: bool
    why: str
    obstacles: list[str]


@dataclass(frozen=True, slots=True)
class Status:
    """All that ``status`` found; ``prediction`` is its conclusion."""

    version: str
    installed: list[str]
    hook_installed: bool
    hook: str
    host: str | None
    host_version: str | None
    present: list[str]
    missing: list[str]
    flags: list[FlagReading]
    problems: list[str]
    plugins: list[str]
    blocked: list[str]
    broken: dict[str, str]
    prediction: Prediction

    def as_json(self) -> str:
        """The same, for machines."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def find_host(app_dir: Path) -> Path | None:
    """Return the folder of the host's package, as a server started in ``app_dir`` would find it."""
    # The server puts its folder first. Where this command was started says nothing about the server.
    elsewhere = [folder for folder in sys.path if folder not in {"", str(Path.cwd())}]
    return find_package([str(app_dir), *elsewhere])


def read_status(app_dir: Path, environ: Mapping[str, str], *, is_installed: bool) -> Status:
    """Look where a server started in, or with ``--app-dir``, ``app_dir`` would look."""
    package = find_host(app_dir)
    source = SourceHost(package) if package else None
    environment = HostEnvironment(environ, package)
    flags = settings.Settings.read(environment.variables)
    plugins = _plugins(flags.blocked_plugins, app_dir)
    requirements = list(check_requirements(source)) if source else []
    missing = [name for name, is_there in requirements if not is_there]
    hook = _hook(is_installed)
    state, why = _predict(source, flags, missing, is_installed, hook)
    return Status(
        version=version(),
        installed=_installed(),
        hook_installed=is_installed,
        hook=hook,
        host=str(package) if package else None,
        host_version=_host_version(package),
        present=[name for name, is_there in requirements if is_there],
        missing=missing,
        flags=[_reading(flag, environment) for flag in settings.FLAGS],
        problems=[*flags.problems, *filter(None, [environment.problem])],
        plugins=plugins.names,
        blocked=plugins.blocked,
        broken=plugins.broken,
        prediction=_prediction(state, why, environment, flags),
    )


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What a running server says: whether it has the endpoint, and ``report`` to an administrator."""

    attached: bool
    words: str
    report: dict[str, Any] | None = None


def ask_server(url: str, token: str | None = None, seconds: float = 10.0) -> ServerAnswer:
    """Ask a running server whether the plugin is attached: without a token its report answers 401.

    The top-up endpoint would not tell: a host may have one of its own. With an administrator's ``token`` it
    is asked for version, mode, plugins and last pass as well.
    """
    target = f"{url.rstrip('/')}{PREFIX}{PATH}/report"
    try:
        status, _ = _request(target, None, seconds)
        if status != 401:
            return ServerAnswer(False, f"{target} is not there: it answers {status}")
        if token is None:
            return ServerAnswer(True, f"{target} is there: without a token it answers 401")
        status, body = _request(f"{target}?days=1", token, seconds)
    except (OSError, ValueError) as error:
        return ServerAnswer(False, f"{url} does not answer: {error}")
    if status != 200:
        return ServerAnswer(
            True, f"{target} is there; with this token it answers {status}: is it an administrator's?"
        )
    report = _parse_report(body)
    if report is None:
        return ServerAnswer(False, f"{target} answers, but with no report: the plugin is not attached")
    return ServerAnswer(True, f"{target} is there", report)


def _parse_report(body: bytes) -> dict[str, Any] | None:
    """Return the report; ``None`` where something else was answered, such as a page for every address."""
    try:
        report = json.loads(body)
    except ValueError:
        return None
    return report if isinstance(report, dict) and report.keys() >= REPORTED_FACTS else None


def _request(url: str, token: str | None, seconds: float) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the operator's URL
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def _predict(
    source: SourceHost | None, flags: settings.Settings, missing: list[str], is_installed: bool, hook: str
) -> tuple[str, str]:
    """What the next start will do; in the order in which ``attach`` decides."""
    if source is None:
        return (
            "no_host",
            f"there is no {PACKAGE} here: run this in the host's backend folder, or use --app-dir",
        )
    if not source.has_module(BILLING_ROUTER):
        return State.NO_BILLING, f"this host has no {BILLING_ROUTER}: there is nothing to attach to"
    if not is_installed:
        return "hook_not_installed", f"the start-up hook is not installed: {hook}"
    if not flags.enabled:
        return State.OFF, f"{settings.ENABLED.name} is off"
    if missing:
        return State.INCOMPATIBLE, f"the host lacks {', '.join(missing)}"
    if not has_ledger_key(source):
        return State.INCOMPATIBLE, f"the host's ledger has no unique key ({', '.join(sorted(LEDGER_KEY))})"
    own = source.has_name(BILLING, f"{SERVICE}.{METHOD}") or PATH in source.posts(BILLING_ROUTER)
    if own and not flags.take_over:
        return State.BESIDE, f"attaches beside the host's own reconcile, and {flags.words}; {WOULD_GAIN}"
    what = f"POST {PREFIX}{PATH} and BillingService.{METHOD}"
    place = " in place of the host's own" if own else ""
    return State.ATTACHED, f"attaches {what}{place}, and {flags.words}"


def _prediction(state: str, why: str, environment: HostEnvironment, flags: settings.Settings) -> Prediction:
    attaches = state in ATTACHED_STATES
    obstacles = list(_obstacles(environment, flags)) if attaches else []
    return Prediction(state, attaches, attaches and not obstacles, why, obstacles)


def _obstacles(environment: HostEnvironment, flags: settings.Settings) -> Iterator[str]:
    """Yield what keeps an attached plugin from crediting anybody."""
    if not environment.is_on(WALLET_SWITCH):
        yield f"{WALLET_SWITCH} is off: the endpoints answer 404"
    for name in (SHOP_ID, SECRET_KEY):
        if not environment.variables.get(name):
            yield f"{name} is not set: the endpoints answer 503, and nothing is swept"
    if flags.mode is settings.Mode.OBSERVE:
        yield f"{settings.MODE.name} is observe: what would be done is logged, and nothing is written"


def _reading(flag: settings.Flag[object], environment: HostEnvironment) -> FlagReading:
    value = environment.variables.get(flag.name, flag.shown_default)
    return FlagReading(flag.name, value, environment.origin(flag.name))


def _hook(is_installed: bool) -> str:
    if is_installed:
        return "installed in this interpreter"
    if sys.flags.no_site:
        return "Python was started with -S; use openwebui_billing_reconcile.asgi:app or attach()"
    if not any((Path(folder) / _PTH).exists() for folder in sys.path if folder):
        return f"{_PTH} is in no site-packages folder; use openwebui_billing_reconcile.asgi:app"
    return f"Python did not run {_PTH}"


def _installed() -> list[str]:
    """Each installation on the path, the one that counts first.

    A folder that an uninstallation has left behind has no metadata any more, and is none.
    """
    found = (d for d in metadata.distributions(name=DISTRIBUTION) if d.read_text("METADATA"))
    return list(dict.fromkeys(f"{d.version} in {d.locate_file('')}" for d in found))


def _host_version(package: Path | None) -> str | None:
    """The fork has it in the package.json above its backend folder, the original as a distribution."""
    if package is None:
        return None
    try:
        return str(json.loads((package.parent.parent / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return _distribution_version("open-webui")


def _distribution_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _plugins(blocked: frozenset[str], app_dir: Path) -> Plugins:
    """The plugins, loaded as at start; one that imports the host at once is said to be broken."""
    plugins = Plugins()
    with _first_on_path(app_dir), _host_imports_blocked():
        plugins.load(blocked)
    return plugins


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _host_imports_blocked() -> Iterator[None]:
    """Nothing that is imported meanwhile may import the host."""
    blocker = _ImportBlocker()
    sys.meta_path.insert(0, blocker)
    try:
        yield
    finally:
        sys.meta_path.remove(blocker)


class _ImportBlocker:
    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] == PACKAGE:
            raise ImportError("imports the host at once, so it cannot be checked without starting the host")
