"""The main story on every combination of Python and requirements that hosts have: ``make matrix``.

Each row is a fresh environment: first what the host pins, then the built wheel, which must move none of it;
then the reference host runs in that environment and the demo's story is told, and payments are listed there.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.demo import SWEEPING, story
from tests.support.harness.host import Program, running_host
from tests.support.yookassa.process import running_simulator

from .environments import HOST_NEEDS, ROOT, Environment, build_wheel, uv

# The host asks about one payment through its own client: only the list shows that the SDK installed works.
_LIST = """
import asyncio, json, sys
from openwebui_billing_reconcile.provider.sdk_gateway import SdkGateway
page = asyncio.run(SdkGateway(*sys.argv[1:]).list_captured(0.0, None))
print(json.dumps(page.items))
"""


@dataclass(frozen=True)
class Row:
    """Pins that a host brings, and how the resolver fills the rest."""

    name: str
    pins: tuple[str, ...] = ()
    resolution: str = "highest"

    @property
    def pinned(self) -> dict[str, str]:
        """Version by name."""
        return dict(pin.split("==") for pin in self.pins)


ROWS = (
    Row("newest"),
    Row(
        "Open WebUI 0.6.41 with billing",
        (
            "fastapi==0.128.0",
            "starlette==0.50.0",
            "pydantic==2.12.5",
            "sqlalchemy==2.0.45",
            "psycopg2-binary==2.9.11",
        ),
    ),
    Row(
        "Open WebUI 0.11.0 with billing",
        (
            "fastapi==0.136.3",
            "starlette==1.3.1",
            "pydantic==2.13.4",
            "sqlalchemy==2.0.50",
        ),
    ),
    Row("oldest pluggy hosts have", ("pluggy==1.6.0",)),
    Row("lowest declared", resolution="lowest-direct"),
)
PYTHONS = ("3.11", "3.12", "3.13")

# Named beside the wheel, since "lowest-direct" holds for what is named and not for what a wheel requires.
DECLARED = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def run_row(row: Row, python: str, wheel: Path, folder: Path) -> None:
    """Tell the story in this combination; raises what goes wrong."""
    environment = Environment.create(folder / "venv", python)
    needs = [need for need in HOST_NEEDS if need not in row.pinned]
    environment.install(*row.pins, *needs)
    before = _versions(environment, row.pinned)
    environment.install(wheel, *DECLARED, options=["--resolution", row.resolution])
    assert _versions(environment, row.pinned) == before == row.pinned, "a pin of the host was moved"
    if row.resolution == "lowest-direct":
        bounds = _lower_bounds(python)
        installed = _versions(environment, bounds)
        assert {name: Version(installed[name]) for name in bounds} == bounds, "newer than the lowest declared"
    program = Program(python=str(environment.python))
    with running_simulator() as provider, running_host(program, simulator=provider, env=SWEEPING) as host:
        story(host)
        shop = provider.shop_id, provider.secret_key, provider.api_url
        paid = [payment for payment in provider.payments() if payment["status"] == "succeeded"]
        assert json.loads(environment.say(_LIST, shop)) == paid != []


def _lower_bounds(python: str) -> dict[str, Version]:
    """The oldest version by name that is declared for this Python; of two for one name the later counts."""
    requirements = [Requirement(need) for need in DECLARED]
    return {
        requirement.name: Version(str(requirement.specifier).removeprefix(">="))
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python})
    }


def _versions(environment: Environment, names: Iterable[str]) -> dict[str, str]:
    code = "import importlib.metadata as m, sys; print(*(m.version(n) for n in sys.argv[1:]))"
    return dict(zip(names, environment.say(code, tuple(names)).split(), strict=True))


def has_python(version: str) -> bool:
    """Whether this machine has that interpreter; none is downloaded."""
    try:
        uv("python", "find", "--no-python-downloads", version)
    except AssertionError:
        return False
    return True


def main() -> int:
    """Run all of it and print the table; 0 if nothing failed."""
    pythons = [version for version in PYTHONS if has_python(version)]
    cells: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder) / "wheel")
        for number, (row, python) in enumerate((row, python) for row in ROWS for python in pythons):
            began = time.monotonic()
            try:
                run_row(row, python, wheel, Path(folder) / str(number))
                cells[row.name, python] = "passes"
            except Exception as error:  # noqa: BLE001 - the table tells it
                print(f"{row.name}, Python {python}: {error}", file=sys.stderr)
                cells[row.name, python] = "fails"
            print(f"# {row.name}, Python {python}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(f"\n| requirements | {' | '.join(f'Python {version}' for version in pythons)} |")
    print(f"|---|{'---|' * len(pythons)}")
    for row in ROWS:
        print(f"| {row.name} | {' | '.join(cells[row.name, version] for version in pythons)} |")
    return 0 if set(cells.values()) == {"passes"} else 1


if __name__ == "__main__":
    sys.exit(main())
