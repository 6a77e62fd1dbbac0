"""Fresh virtual environments with a built wheel in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

# What the reference host itself needs; the plugin's requirements come with its wheel.
HOST_NEEDS = ("aiohttp", "PyJWT", "python-dotenv", "uvicorn", "psycopg2-binary")


def run(*command: str | Path) -> str:
    """Run a command that must succeed; its stdout."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv(*arguments: str | Path) -> str:
    """Run uv, which comes with the test requirements."""
    return run(sys.executable, "-m", "uv", *arguments)


def build_wheel(folder: Path, project: Path = ROOT) -> Path:
    """The wheel of a project, by default of this source tree."""
    uv("build", "--quiet", "--wheel", "--out-dir", folder, project)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        uv("venv", "--quiet", "--python", python, folder)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        return packages

    def install(self, *what: str | Path, options: Sequence[str] = ()) -> None:
        """Install with uv, and compile as pip does."""
        uv("pip", "install", "--quiet", "--compile-bytecode", "--python", self.python, *options, *what)

    def uninstall(self, name: str) -> None:
        """Uninstall."""
        uv("pip", "uninstall", "--quiet", "--python", self.python, name)

    def say(self, code: str, arguments: Sequence[str] = ()) -> str:
        """What a piece of code prints."""
        return run(self.python, "-c", code, *arguments)


def environment_with_example(name: str, wheel: Path, folder: Path) -> Environment:
    """An environment with the plugin, an example built beside it, and what the reference host needs."""
    environment = Environment(folder / "venv")
    environment.install(wheel, build_wheel(folder, EXAMPLES / name), *HOST_NEEDS)
    return environment
