"""The version of this package, as it is installed."""

from __future__ import annotations

from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "openwebui-billing-reconcile"


def version() -> str:
    """Return the installed version; "unknown" where the package lies without its metadata."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
