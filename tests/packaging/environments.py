"""Fresh virtual environments with a built wheel in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

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


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, python: str = sys.executable) -> Self:
        """A new one, with nothing in it."""
        uv("venv", "--quiet", "--python", python, folder)
        return cls(folder)

    def copy(self, folder: Path) -> Environment:
        """Another one with the same in it, which takes a tenth of the time to install that.

        Installed files are never written to, only replaced, so both may have them. The commands in its
        ``bin`` are the other's: run modules.
        """
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=os.link)
        return Environment(folder)

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


def with_example(name: str, installed: Environment, folder: Path) -> Environment:
    """An environment with an example built beside the plugin."""
    environment = installed.copy(folder / "venv")
    environment.install(build_wheel(folder, EXAMPLES / name))
    return environment
