"""What the next start of the host would do, found out without importing the host."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from types import ModuleType

from openwebui_billing_reconcile import settings
from openwebui_billing_reconcile.host.requirements import (
    BILLING,
    BILLING_ROUTER,
    LEDGER_KEY,
    SERVICE,
    check_requirements,
    has_ledger_key,
)
from openwebui_billing_reconcile.host.source import PACKAGE, SourceHost, find_package
from openwebui_billing_reconcile.web.wire import PATH

from .attach import METHOD, State
from .plugins import Plugins

DISTRIBUTION = "openwebui-billing-reconcile"
PREFIX = "/api/v1/billing"
_PTH = "openwebui_billing_reconcile_autoload.pth"


@dataclass(frozen=True, slots=True)
class FlagReading:
    """A flag as the host will read it. ``origin``: environment, the .env file's path, or default."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Status:
    """All that ``status`` found; ``attaches`` and ``why`` are its conclusion."""

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
    state: str
    attaches: bool
    why: str

    def as_json(self) -> str:
        """The same, for machines."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def read_status(app_dir: Path, environ: Mapping[str, str], *, is_installed: bool) -> Status:
    """Look where a server started in, or with ``--app-dir``, ``app_dir`` would look."""
    # The server puts its folder first. Where this command was started says nothing about the server.
    elsewhere = [folder for folder in sys.path if folder not in {"", str(Path.cwd())}]
    package = find_package([str(app_dir), *elsewhere])
    source = SourceHost(package) if package else None
    environment = _Environment(environ, package)
    flags = settings.Settings.read(environment.variables)
    plugins = _plugins(flags.blocked_plugins, app_dir)
    requirements = list(check_requirements(source)) if source else []
    missing = [name for name, is_there in requirements if not is_there]
    hook = _hook(is_installed)
    state, why = _predict(source, flags, missing, is_installed, hook)
    return Status(
        version=_version(DISTRIBUTION) or "unknown",
        installed=_installed(),
        hook_installed=is_installed,
        hook=hook,
        host=str(package) if package else None,
        host_version=_host_version(package),
        present=[name for name, is_there in requirements if is_there],
        missing=missing,
        flags=environment.flags(),
        problems=list(flags.problems),
        plugins=plugins.names,
        blocked=plugins.blocked,
        broken=plugins.broken,
        state=state,
        attaches=state == State.ATTACHED,
        why=why,
    )


def ask_server(url: str, seconds: float = 10.0) -> tuple[bool, str]:
    """Whether a running server has the endpoint: without a token it answers 401."""
    target = url.rstrip("/") + PREFIX + PATH
    try:
        request = urllib.request.Request(target, data=b"{}", method="POST")  # noqa: S310 - the operator's URL
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
    except (OSError, ValueError) as error:
        return False, f"{url} does not answer: {error}"
    if status == 401:
        return True, f"{target} is there: without a token it answers 401"
    return False, f"{target} is not there: it answers {status}"


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
    if source.has_name(BILLING, f"{SERVICE}.{METHOD}"):
        return State.SUPERSEDED, f"the host has its own BillingService.{METHOD}; uninstall this plugin"
    if PATH in source.posts(BILLING_ROUTER):
        return State.SUPERSEDED, f"the host has its own POST {PATH}; uninstall this plugin"
    if not has_ledger_key(source):
        return State.INCOMPATIBLE, f"the host's ledger has no unique key ({', '.join(sorted(LEDGER_KEY))})"
    what = f"POST {PREFIX}{PATH} and BillingService.{METHOD}"
    return State.ATTACHED, f"the next start attaches {what}, and {flags.words}"


class _Environment:
    """The environment as the host's process will have it: its own variables, then those of its .env file."""

    def __init__(self, environ: Mapping[str, str], package: Path | None) -> None:
        # The host reads the file above its backend folder; what the environment says wins.
        self._environ = environ
        self._file = package.parent.parent / ".env" if package else None
        self._from_file = _dotenv(self._file) if self._file else {}
        self.variables = {**self._from_file, **environ}

    def flags(self) -> list[FlagReading]:
        return [FlagReading(flag.name, *self._reading(flag)) for flag in settings.FLAGS]

    def _reading(self, flag: settings.Flag[object]) -> tuple[str, str]:
        if flag.name in self._environ:
            return self._environ[flag.name], "environment"
        if flag.name in self._from_file:
            return self._from_file[flag.name], str(self._file)
        return flag.shown_default, "default"


def _dotenv(file: Path) -> dict[str, str]:
    """The variables of a .env file, read as the host reads them; without python-dotenv it reads none."""
    try:
        from dotenv import dotenv_values
    except ImportError:
        return {}
    return {name: value for name, value in dotenv_values(file).items() if value is not None}


def _hook(is_installed: bool) -> str:
    if is_installed:
        return "installed in this interpreter"
    if sys.flags.no_site:
        return "Python was started with -S; use openwebui_billing_reconcile.asgi:app or attach()"
    if not any((Path(folder) / _PTH).exists() for folder in sys.path if folder):
        return f"{_PTH} is in no site-packages folder; use openwebui_billing_reconcile.asgi:app"
    return f"Python did not run {_PTH}"


def _installed() -> list[str]:
    """Each installation on the path, the one that counts first."""
    found = (d for d in distributions() if (d.metadata["Name"] or "").lower() == DISTRIBUTION)
    return list(dict.fromkeys(f"{d.version} in {d.locate_file('')}" for d in found))


def _host_version(package: Path | None) -> str | None:
    """The fork has it in the package.json above its backend folder, the original as a distribution."""
    if package is None:
        return None
    try:
        return str(json.loads((package.parent.parent / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return _version("open-webui")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
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


__all__ = ["DISTRIBUTION", "FlagReading", "Status", "ask_server", "read_status"]
