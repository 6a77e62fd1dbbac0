"""The wheel, built and installed once for all test processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import HOST_NEEDS, Environment, build_wheel
from .sharing import made_once


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this source tree."""
    (wheel,) = made_once(tmp_path_factory, "wheel", build_wheel).glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """Return an environment with the wheel and what the reference host needs, to be left as it is."""

    def install(folder: Path) -> None:
        Environment.create(folder).install(wheel, *HOST_NEEDS)

    return Environment(made_once(tmp_path_factory, "installed", install))
