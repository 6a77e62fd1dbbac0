"""Which real host this one is like: the older one, "p", or the newer one, "n".

The modules of this package are the older host's. What the newer one has in place of theirs lies in `shape_n`.
"""

from __future__ import annotations

import importlib
import os
import sys

SHAPE = os.environ.get("REFERENCE_HOST_SHAPE", "p")

if SHAPE not in ("p", "n"):
    raise ValueError(f"REFERENCE_HOST_SHAPE is p or n, not {SHAPE!r}")


def take_shape(module: str, part: str) -> None:
    """Put what that part of the newer host exports in the place of the module's own names.

    This is the last statement of a module, so nobody has imported the names that go.
    """
    if SHAPE == "n":
        newer = importlib.import_module(f"open_webui.shape_n.{part}")
        vars(sys.modules[module]).update({name: getattr(newer, name) for name in newer.__all__})
